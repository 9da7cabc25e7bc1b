//! From the text of a definition, YAML or JSON, to a document.
//!
//! Relies on saphyr's YAML events and on serde's JSON. Promises bounded work whatever the text (aliases
//! count as often as they are used), the YAML 1.2 core schema, and that no key is silently lost: a key that
//! comes twice is a fault. Knows no workflow.

use std::collections::BTreeMap;
use std::rc::Rc;

use saphyr_parser::{Event, Parser, ScalarStyle};

use super::fault::{Fault, pointer};
use crate::value::{DEPTH_MAX, Pairs, Value};

/// The longest text, in bytes.
pub const TEXT_BYTES_MAX: usize = 256 << 10;
/// The most values in one document.
const VALUES_MAX: usize = 20_000;

/// Reads a definition's text.
///
/// # Errors
///
/// The first fault, at the value where it was found.
pub fn read(text: &str) -> Result<Value, Fault> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(Fault::new("", format!("the text has {} bytes, more than {TEXT_BYTES_MAX}", text.len())));
    }
    // Every JSON text is read as JSON, since YAML lacks some of JSON's escapes. What only starts like JSON
    // is YAML's flow style.
    if text.trim_start().starts_with('{')
        && let Ok(value) = Value::from_json(text)
    {
        return Ok(value);
    }
    Builder::default().document(text)
}

/// A sequence or mapping that is not ended yet.
enum Open {
    Sequence(Vec<Value>),
    /// The pairs, and the key that waits for its value.
    Mapping(Pairs, Option<Rc<str>>),
}

/// Puts events together.
#[derive(Default)]
struct Builder {
    /// What is open, the innermost last, with its anchor and the values counted before it.
    open: Vec<(Open, usize, usize)>,
    anchors: BTreeMap<usize, (Value, usize)>,
    values: usize,
    document: Option<Value>,
}

impl Builder {
    fn document(mut self, text: &str) -> Result<Value, Fault> {
        let mut documents = 0;
        for event in Parser::new_from_str(text) {
            let (event, span) = match event {
                Ok(event) => event,
                Err(error) => {
                    let (line, column) = (error.marker().line(), error.marker().col() + 1);
                    let problem = format!("{} (line {line}, column {column})", error.info());
                    return Err(self.fault(problem));
                }
            };
            let line = span.start.line();
            match event {
                Event::DocumentStart(_) => {
                    documents += 1;
                    if documents > 1 {
                        return Err(Fault::new("", format!("a second document starts in line {line}")));
                    }
                }
                Event::Alias(anchor) => {
                    let Some((value, values)) = self.anchors.get(&anchor).cloned() else {
                        return Err(self.fault(format!("the alias in line {line} names what holds it")));
                    };
                    self.count(values)?;
                    self.place(value, 0, line)?;
                }
                Event::Scalar(text, style, anchor, tag) => {
                    let tag =
                        tag.as_ref().filter(|tag| tag.is_yaml_core_schema()).map(|tag| tag.suffix.as_str());
                    let value = scalar(&text, style, tag).map_err(|problem| self.fault(problem))?;
                    self.count(1)?;
                    self.place(value, anchor, line)?;
                }
                Event::SequenceStart(anchor, _) => self.begin(Open::Sequence(Vec::new()), anchor)?,
                Event::MappingStart(anchor, _) => self.begin(Open::Mapping(Pairs::new(), None), anchor)?,
                Event::SequenceEnd | Event::MappingEnd => self.end(line)?,
                Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
            }
        }
        self.document.ok_or_else(|| Fault::new("", "the text is empty"))
    }

    /// A fault at the value that is being read.
    fn fault(&self, problem: impl Into<String>) -> Fault {
        let mut at = String::new();
        for (open, _, _) in &self.open {
            at = match open {
                Open::Sequence(items) => pointer(&at, &items.len().to_string()),
                Open::Mapping(_, Some(key)) => pointer(&at, key),
                Open::Mapping(_, None) => at,
            };
        }
        Fault::new(&at, problem)
    }

    fn count(&mut self, values: usize) -> Result<(), Fault> {
        self.values += values;
        if self.values > VALUES_MAX {
            return Err(self.fault(format!("the document has more than {VALUES_MAX} values")));
        }
        Ok(())
    }

    fn begin(&mut self, open: Open, anchor: usize) -> Result<(), Fault> {
        if self.open.len() >= usize::from(DEPTH_MAX) {
            return Err(self.fault(format!("the document nests deeper than {DEPTH_MAX} levels")));
        }
        self.count(1)?;
        self.open.push((open, anchor, self.values));
        Ok(())
    }

    fn end(&mut self, line: usize) -> Result<(), Fault> {
        let Some((open, anchor, values)) = self.open.pop() else { return Ok(()) };
        let value = match open {
            Open::Sequence(items) => Value::array(items),
            Open::Mapping(pairs, _) => Value::object(pairs),
        };
        let value = value.map_err(|error| self.fault(error.to_string()))?;
        if anchor > 0 {
            self.anchors.insert(anchor, (value.clone(), self.values - values + 1));
        }
        self.place(value, 0, line)
    }

    /// Puts a value where it belongs.
    fn place(&mut self, value: Value, anchor: usize, line: usize) -> Result<(), Fault> {
        if anchor > 0 {
            self.anchors.insert(anchor, (value.clone(), 1));
        }
        let Some((open, _, _)) = self.open.last_mut() else {
            self.document = Some(value);
            return Ok(());
        };
        match open {
            Open::Sequence(items) => items.push(value),
            Open::Mapping(pairs, key @ None) => {
                let text: Rc<str> = match value {
                    Value::Str(text) => text,
                    Value::Array(_) | Value::Object(_) => {
                        return Err(self.fault(format!("a key in line {line} is not a text")));
                    }
                    other => other.to_json().into(),
                };
                let twice = pairs.contains_key(&text);
                *key = Some(text);
                if twice {
                    return Err(self.fault(format!("the key comes a second time in line {line}")));
                }
            }
            Open::Mapping(pairs, key) => {
                if let Some(key) = key.take() {
                    pairs.insert(key, value);
                }
            }
        }
        Ok(())
    }
}

/// A scalar by the core schema (YAML 1.2.2 §10.3).
fn scalar(text: &str, style: ScalarStyle, tag: Option<&str>) -> Result<Value, String> {
    if tag == Some("str") || (style != ScalarStyle::Plain && tag.is_none()) {
        return Ok(Value::text(text));
    }
    let value = match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => number(text).unwrap_or_else(|| Value::text(text)),
    };
    let fits = match tag {
        Some("int") => matches!(value, Value::Int(_)),
        Some("float") => value.as_float().is_some(),
        Some("bool") => matches!(value, Value::Bool(_)),
        Some("null") => value.is_null(),
        _ => true,
    };
    if fits { Ok(value) } else { Err(format!("`{text}` is not what its tag says")) }
}

fn number(text: &str) -> Option<Value> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if let Some(hex) = text.strip_prefix("0x") {
        return i64::from_str_radix(hex, 16).ok().map(Value::Int);
    }
    if let Some(octal) = text.strip_prefix("0o") {
        return i64::from_str_radix(octal, 8).ok().map(Value::Int);
    }
    match digits {
        ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN" => return None,
        _ => {}
    }
    let starts = digits.strip_prefix('.').unwrap_or(digits).starts_with(|first: char| first.is_ascii_digit());
    let allowed = digits.chars().all(|letter| letter.is_ascii_digit() || ".eE+-".contains(letter));
    if !starts || !allowed {
        return None;
    }
    text.parse::<i64>().map(Value::Int).ok().or_else(|| text.parse::<f64>().ok().map(Value::number))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn yields(text: &str, json: &str) {
        assert_eq!(read(text).unwrap(), Value::from_json(json).unwrap(), "{text}");
    }

    #[test]
    fn yaml_and_json_give_the_same_document() {
        yields(
            "a: 1\nb: [x, 'y', \"z\\n\"]\nc:\n  - d: ~\n",
            r#"{"a":1,"b":["x","y","z\n"],"c":[{"d":null}]}"#,
        );
        yields(r#"{"a": {"b": "\ud83d\ude00", "c": "\/"}}"#, r#"{"a":{"b":"😀","c":"/"}}"#);
        yields("{a: 1, b: yes}", r#"{"a":1,"b":"yes"}"#);
        yields("a: &x {b: 1}\nc: *x\n", r#"{"a":{"b":1},"c":{"b":1}}"#);
        yields(
            "v: 1.0.0\nn: 0x1f\nf: 1e3\ns: !!str 1\nt: |\n  two\n  lines\n",
            r#"{"v":"1.0.0","n":31,"f":1000,"s":"1","t":"two\nlines\n"}"#,
        );
    }

    #[test]
    fn what_is_wrong_is_found_with_its_place() {
        for (text, at, part) in [
            ("a: 1\na: 2\n", "/a", "second time"),
            ("a:\n  b: [1, 2\n", "", "line"),
            ("a: &x [*x]\n", "/a/0", "holds it"),
            ("a: !!int x\n", "/a", "tag"),
            ("? [1]\n: 2\n", "", "not a text"),
            ("", "", "empty"),
            ("a: 1\n---\nb: 2\n", "", "second document"),
        ] {
            let fault = read(text).unwrap_err();
            assert!(fault.problem.contains(part), "{text}: {fault:?}");
            assert!(at.is_empty() || fault.at == at, "{text}: {fault:?}");
        }
    }

    #[test]
    fn texts_that_grow_when_read_are_refused() {
        let mut bomb = String::from("a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n");
        for level in 1..8 {
            let aliases = vec![format!("*a{}", level - 1); 10].join(",");
            bomb.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
        }
        assert!(read(&bomb).unwrap_err().problem.contains("more than"), "aliases");
        assert!(read(&"[".repeat(100)).unwrap_err().problem.contains("deeper"), "nesting");
        assert!(read(&" ".repeat(TEXT_BYTES_MAX + 1)).unwrap_err().problem.contains("bytes"), "length");
    }

    proptest! {
        #[test]
        fn no_text_takes_the_reader_down(text in "[-a-c: \n\\[\\]{},&*!'\"|>#0-9]{0,60}") {
            let _read = read(&text).is_ok();
        }
    }
}
