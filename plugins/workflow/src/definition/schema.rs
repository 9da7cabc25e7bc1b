//! JSON Schema for inputs, outputs and contexts.
//!
//! Relies on values and regular expressions. Promises the assertions of draft 2020-12 that need nothing from
//! outside, bounded work, and a pointer to what does not fit. Knows no workflow. `format`, `title` and the
//! like say something about data and assert nothing.

use super::fault::{Fault, pointer};
use crate::jq;
use crate::value::Value;

/// Comparisons that one validation may make.
const STEPS_MAX: u32 = 50_000;
/// How deep references and alternatives may nest.
const NESTING_MAX: u32 = 48;

/// Keywords whose value is a schema.
const ONE: &[&str] =
    &["additionalProperties", "items", "contains", "propertyNames", "not", "if", "then", "else"];
/// Keywords whose value is a list of schemas.
const MANY: &[&str] = &["allOf", "anyOf", "oneOf", "prefixItems"];
/// Keywords whose value is an object of schemas.
const NAMED: &[&str] = &["properties", "patternProperties", "$defs", "definitions", "dependentSchemas"];

/// Checks a schema itself when a definition is read.
pub fn check(schema: &Value, at: &str, faults: &mut Vec<Fault>) {
    check_in(schema, schema, at, faults);
}

fn check_in(root: &Value, schema: &Value, at: &str, faults: &mut Vec<Fault>) {
    let Some(pairs) = schema.pairs() else {
        if !matches!(schema, Value::Bool(_)) {
            faults.push(Fault::new(at, "a schema is an object or a boolean"));
        }
        return;
    };
    for (key, value) in pairs {
        let place = pointer(at, key);
        let key = &**key;
        match key {
            "$ref" => match value.as_text() {
                Some(reference) if resolve(root, reference).is_some() => {}
                Some(_) => {
                    faults.push(Fault::new(&place, "only references into the same schema can be followed"))
                }
                None => faults.push(Fault::new(&place, "a reference is a text")),
            },
            "type" => check_type(value, &place, faults),
            "pattern" => check_pattern(value.as_text(), &place, faults),
            "enum" | "required" if value.items().is_none() => {
                faults.push(Fault::new(&place, "this is a list"))
            }
            "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" | "multipleOf" | "minLength"
            | "maxLength" | "minItems" | "maxItems" | "minProperties" | "maxProperties" | "minContains"
            | "maxContains"
                if value.as_float().is_none() =>
            {
                faults.push(Fault::new(&place, "this is a number"));
            }
            _ if ONE.contains(&key) => check_in(root, value, &place, faults),
            _ if MANY.contains(&key) => match value.items() {
                Some(items) => {
                    for (index, item) in items.iter().enumerate() {
                        check_in(root, item, &pointer(&place, &index.to_string()), faults);
                    }
                }
                None => faults.push(Fault::new(&place, "this is a list of schemas")),
            },
            _ if NAMED.contains(&key) => match value.pairs() {
                Some(named) => {
                    for (name, item) in named {
                        if key == "patternProperties" {
                            check_pattern(Some(name), &place, faults);
                        }
                        check_in(root, item, &pointer(&place, name), faults);
                    }
                }
                None => faults.push(Fault::new(&place, "this is an object of schemas")),
            },
            _ => {}
        }
    }
}

fn check_type(value: &Value, at: &str, faults: &mut Vec<Fault>) {
    let known = |value: &Value| {
        let known = ["null", "boolean", "integer", "number", "string", "array", "object"];
        value.as_text().is_some_and(|name| known.contains(&name))
    };
    let fits = value.items().map_or_else(|| known(value), |items| items.iter().all(known));
    if !fits {
        faults.push(Fault::new(at, "this is no type of JSON Schema"));
    }
}

fn check_pattern(pattern: Option<&str>, at: &str, faults: &mut Vec<Fault>) {
    let problem = match pattern {
        Some(pattern) => jq::is_match(pattern, "").err(),
        None => Some("a pattern is a text".to_owned()),
    };
    faults.extend(problem.map(|problem| Fault::new(at, problem)));
}

/// What a local reference such as `#/$defs/pet` leads to.
fn resolve<'s>(root: &'s Value, reference: &str) -> Option<&'s Value> {
    let mut at = root;
    for step in reference.strip_prefix('#')?.split('/').skip(1) {
        let step = step.replace("~1", "/").replace("~0", "~");
        at = match at.items() {
            Some(items) => items.get(step.parse::<usize>().ok()?)?,
            None => at.field(&step)?,
        };
    }
    Some(at)
}

/// Validates a document.
///
/// # Errors
///
/// The first fault, with a pointer into the document.
pub fn validate(schema: &Value, document: &Value) -> Result<(), Fault> {
    Validation { root: schema, steps: 0 }.schema(schema, document, "", 0)
}

struct Validation<'s> {
    root: &'s Value,
    steps: u32,
}

type Verdict = Result<(), Fault>;

impl<'s> Validation<'s> {
    fn schema(&mut self, schema: &'s Value, value: &Value, at: &str, depth: u32) -> Verdict {
        self.steps += 1;
        if self.steps > STEPS_MAX || depth > NESTING_MAX {
            return Err(Fault::new(at, "checking this takes more work than it may"));
        }
        match schema {
            Value::Bool(true) => return Ok(()),
            Value::Bool(false) => return Err(Fault::new(at, "nothing is allowed here")),
            _ => {}
        }
        if let Some(reference) = schema.field("$ref").and_then(Value::as_text) {
            let target = resolve(self.root, reference);
            let target = target.ok_or_else(|| Fault::new(at, format!("`{reference}` leads nowhere")))?;
            self.schema(target, value, at, depth + 1)?;
        }
        plain(schema, value, at)?;
        match value {
            Value::Object(_) => self.object(schema, value, at, depth)?,
            Value::Array(_) => self.array(schema, value, at, depth)?,
            Value::Str(text) => string(schema, text, at)?,
            Value::Int(_) | Value::Float(_) => number(schema, value, at)?,
            Value::Null | Value::Bool(_) => {}
        }
        self.combined(schema, value, at, depth)
    }

    fn combined(&mut self, schema: &'s Value, value: &Value, at: &str, depth: u32) -> Verdict {
        for inner in schema.field("allOf").and_then(Value::items).unwrap_or_default() {
            self.schema(inner, value, at, depth + 1)?;
        }
        if let Some(choices) = schema.field("anyOf").and_then(Value::items)
            && !choices.iter().any(|inner| self.schema(inner, value, at, depth + 1).is_ok())
        {
            return Err(Fault::new(at, "none of the alternatives fits"));
        }
        if let Some(choices) = schema.field("oneOf").and_then(Value::items) {
            let fitting =
                choices.iter().filter(|inner| self.schema(inner, value, at, depth + 1).is_ok()).count();
            if fitting != 1 {
                return Err(Fault::new(
                    at,
                    format!("{fitting} of the alternatives fit, and exactly one must"),
                ));
            }
        }
        if let Some(not) = schema.field("not")
            && self.schema(not, value, at, depth + 1).is_ok()
        {
            return Err(Fault::new(at, "it is what it must not be"));
        }
        if let Some(condition) = schema.field("if") {
            let holds = self.schema(condition, value, at, depth + 1).is_ok();
            if let Some(branch) = schema.field(if holds { "then" } else { "else" }) {
                self.schema(branch, value, at, depth + 1)?;
            }
        }
        Ok(())
    }

    fn object(&mut self, schema: &'s Value, value: &Value, at: &str, depth: u32) -> Verdict {
        let Some(pairs) = value.pairs() else { return Ok(()) };
        for key in schema.field("required").and_then(Value::items).unwrap_or_default() {
            if let Some(key) = key.as_text()
                && !pairs.contains_key(key)
            {
                return Err(Fault::new(at, format!("`{key}` is missing")));
            }
        }
        within(schema, ["minProperties", "maxProperties"], pairs.len(), at, "properties")?;
        let properties = schema.field("properties");
        let patterns = schema.field("patternProperties").and_then(Value::pairs);
        let others = schema.field("additionalProperties");
        let names = schema.field("propertyNames");
        for (key, item) in pairs {
            let place = pointer(at, key);
            if let Some(names) = names {
                self.schema(names, &Value::Str(key.clone()), &place, depth + 1)?;
            }
            let mut named = false;
            if let Some(inner) = properties.and_then(|properties| properties.field(key)) {
                named = true;
                self.schema(inner, item, &place, depth + 1)?;
            }
            for (pattern, inner) in patterns.into_iter().flatten() {
                if jq::is_match(pattern, key).unwrap_or(false) {
                    named = true;
                    self.schema(inner, item, &place, depth + 1)?;
                }
            }
            if let Some(others) = others.filter(|_| !named) {
                self.schema(others, item, &place, depth + 1).map_err(|fault| {
                    if matches!(others, Value::Bool(_)) { unexpected(at, key) } else { fault }
                })?;
            }
        }
        Ok(())
    }

    fn array(&mut self, schema: &'s Value, value: &Value, at: &str, depth: u32) -> Verdict {
        let Some(items) = value.items() else { return Ok(()) };
        within(schema, ["minItems", "maxItems"], items.len(), at, "items")?;
        let first = schema.field("prefixItems").and_then(Value::items).unwrap_or_default();
        for (index, item) in items.iter().enumerate() {
            if let Some(inner) = first.get(index).or_else(|| schema.field("items")) {
                self.schema(inner, item, &pointer(at, &index.to_string()), depth + 1)?;
            }
        }
        if schema.field("uniqueItems").is_some_and(Value::is_true) {
            let mut sorted: Vec<&Value> = items.iter().collect();
            sorted.sort();
            if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
                return Err(Fault::new(at, "an item comes twice"));
            }
        }
        if let Some(inner) = schema.field("contains") {
            let count = items.iter().filter(|item| self.schema(inner, item, at, depth + 1).is_ok()).count();
            let least = schema.field("minContains").and_then(Value::as_float).unwrap_or(1.0);
            let most = schema.field("maxContains").and_then(Value::as_float).unwrap_or(f64::INFINITY);
            if !(least..=most).contains(&(count as f64)) {
                return Err(Fault::new(at, format!("{count} items are of the kind it must contain")));
            }
        }
        Ok(())
    }
}

fn unexpected(at: &str, key: &str) -> Fault {
    Fault::new(at, format!("`{key}` is not expected"))
}

/// Assertions on any value.
fn plain(schema: &Value, value: &Value, at: &str) -> Verdict {
    if let Some(expected) = schema.field("type") {
        let is_it = |name: &Value| match name.as_text() {
            Some("integer") => value.as_float().is_some_and(|number| number.fract() == 0.0),
            name => name == Some(value.type_name()),
        };
        let fits = expected.items().map_or_else(|| is_it(expected), |names| names.iter().any(is_it));
        if !fits {
            return Err(Fault::new(at, format!("a {} stands where {expected} must", value.type_name())));
        }
    }
    if let Some(choices) = schema.field("enum").and_then(Value::items)
        && !choices.contains(value)
    {
        return Err(Fault::new(at, "it is none of the values that are allowed"));
    }
    match schema.field("const") {
        Some(expected) if expected != value => Err(Fault::new(at, format!("it must be {expected}"))),
        _ => Ok(()),
    }
}

fn within(schema: &Value, [least, most]: [&str; 2], count: usize, at: &str, what: &str) -> Verdict {
    let bound = |name| schema.field(name).and_then(Value::as_float);
    let fits = bound(least).is_none_or(|least| count as f64 >= least)
        && bound(most).is_none_or(|most| count as f64 <= most);
    if fits { Ok(()) } else { Err(Fault::new(at, format!("{count} {what} are too few or too many"))) }
}

fn string(schema: &Value, text: &str, at: &str) -> Verdict {
    if schema.field("minLength").is_some() || schema.field("maxLength").is_some() {
        within(schema, ["minLength", "maxLength"], text.chars().count(), at, "letters")?;
    }
    if let Some(pattern) = schema.field("pattern").and_then(Value::as_text)
        && !jq::is_match(pattern, text).unwrap_or(false)
    {
        return Err(Fault::new(at, format!("it does not match {pattern}")));
    }
    Ok(())
}

fn number(schema: &Value, value: &Value, at: &str) -> Verdict {
    let Some(number) = value.as_float() else { return Ok(()) };
    let bound = |name| schema.field(name).and_then(Value::as_float);
    let checks = [
        (bound("minimum").is_some_and(|least| number < least), "it is too small"),
        (bound("maximum").is_some_and(|most| number > most), "it is too great"),
        (bound("exclusiveMinimum").is_some_and(|least| number <= least), "it is too small"),
        (bound("exclusiveMaximum").is_some_and(|most| number >= most), "it is too great"),
        (bound("multipleOf").is_some_and(|step| step > 0.0 && number % step != 0.0), "it is no multiple"),
    ];
    match checks.iter().find(|(fails, _)| *fails) {
        Some((_, problem)) => Err(Fault::new(at, *problem)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::tests::json;

    #[test]
    fn each_assertion_accepts_and_refuses() {
        for (schema, good, bad, at) in [
            (r#"{"type":"integer"}"#, "1", "1.5", ""),
            (r#"{"type":["string","null"]}"#, "null", "1", ""),
            (r#"{"enum":[1,"a"]}"#, "\"a\"", "2", ""),
            (r#"{"const":{"a":1}}"#, r#"{"a":1}"#, "{}", ""),
            (r#"{"required":["a"]}"#, r#"{"a":1}"#, "{}", ""),
            (r#"{"properties":{"a":{"type":"string"}}}"#, r#"{"a":"x"}"#, r#"{"a":1}"#, "/a"),
            (r#"{"properties":{"a":true},"additionalProperties":false}"#, r#"{"a":1}"#, r#"{"b":1}"#, ""),
            (r#"{"patternProperties":{"^x":{"type":"number"}}}"#, r#"{"x1":1}"#, r#"{"x1":"a"}"#, "/x1"),
            (r#"{"propertyNames":{"maxLength":1}}"#, r#"{"a":1}"#, r#"{"ab":1}"#, "/ab"),
            (r#"{"items":{"minimum":2}}"#, "[2]", "[3,1]", "/1"),
            (r#"{"prefixItems":[{"type":"string"}],"items":false}"#, "[\"a\"]", "[\"a\",1]", "/1"),
            (r#"{"minItems":1,"maxItems":2,"uniqueItems":true}"#, "[1,2]", "[1,1]", ""),
            (r#"{"contains":{"const":1}}"#, "[0,1]", "[0]", ""),
            (r#"{"minLength":2,"pattern":"^a"}"#, "\"ab\"", "\"ba\"", ""),
            (r#"{"exclusiveMinimum":1,"maximum":3,"multipleOf":0.5}"#, "1.5", "1", ""),
            (r#"{"anyOf":[{"type":"null"},{"minimum":5}]}"#, "7", "3", ""),
            (r#"{"oneOf":[{"minimum":1},{"minimum":5}]}"#, "3", "7", ""),
            (r#"{"not":{"type":"null"}}"#, "1", "null", ""),
            (r#"{"if":{"minimum":5},"then":{"multipleOf":5},"else":{"maximum":2}}"#, "10", "3", ""),
            (r##"{"$ref":"#/$defs/p","$defs":{"p":{"type":"string"}}}"##, "\"a\"", "1", ""),
            (r#"{"minProperties":1}"#, r#"{"a":1}"#, "{}", ""),
        ] {
            let mut faults = Vec::new();
            check(&json(schema), "", &mut faults);
            assert_eq!(faults, [], "{schema}");
            assert_eq!(validate(&json(schema), &json(good)), Ok(()), "{schema} {good}");
            assert_eq!(validate(&json(schema), &json(bad)).unwrap_err().at, at, "{schema} {bad}");
        }
    }

    #[test]
    fn schemas_that_are_none_are_refused() {
        for (schema, at) in [
            ("1", ""),
            (r#"{"type":"integr"}"#, "/type"),
            (r#"{"properties":{"a":{"pattern":"("}}}"#, "/properties/a/pattern"),
            (r#"{"$ref":"https://example.com/s"}"#, "/$ref"),
            (r#"{"allOf":{}}"#, "/allOf"),
            (r#"{"minimum":"1"}"#, "/minimum"),
            (r#"{"required":"a"}"#, "/required"),
        ] {
            let mut faults = Vec::new();
            check(&json(schema), "", &mut faults);
            assert_eq!(faults.first().map(|fault| fault.at.as_str()), Some(at), "{schema}");
        }
    }

    #[test]
    fn references_without_end_are_stopped() {
        let schema = json(r##"{"$ref":"#"}"##);
        assert!(validate(&schema, &Value::Null).unwrap_err().problem.contains("more work"));
        let wide = json(r##"{"anyOf":[{"$ref":"#"},{"$ref":"#"}],"not":true}"##);
        assert!(validate(&wide, &Value::Null).is_err());
    }
}
