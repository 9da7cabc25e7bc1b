//! A workflow as a whole: its name, what it shares, when it starts.
//!
//! Relies on the reader. Promises that what is shared is checked even where nothing uses it. Knows no case.

use super::fault::{Fault, pointer};
use super::program::{Outline, Schedule, Task};
use super::reader::{At, Mode, Reader, single_pair};
use super::{cron, duration};
use crate::value::Value;

/// The longest namespace or name, in bytes: a DNS label (RFC 1123).
const NAME_BYTES_MAX: usize = 63;
/// The longest version, in bytes.
const VERSION_BYTES_MAX: usize = 64;
/// What extensions may extend.
const EXTENDED: [(&str, ()); 15] = [
    ("call", ()),
    ("composite", ()),
    ("do", ()),
    ("emit", ()),
    ("extension", ()),
    ("for", ()),
    ("fork", ()),
    ("listen", ()),
    ("raise", ()),
    ("run", ()),
    ("set", ()),
    ("switch", ()),
    ("try", ()),
    ("wait", ()),
    ("all", ()),
];

fn is_label(text: &str) -> bool {
    let inner = text.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '-');
    (1..=NAME_BYTES_MAX).contains(&text.len()) && inner && !text.starts_with('-') && !text.ends_with('-')
}

/// Whether a text is a semantic version: three numbers, then perhaps labels.
fn is_version(text: &str) -> bool {
    let core = text.split(['-', '+']).next().unwrap_or("");
    let numbers: Vec<&str> = core.split('.').collect();
    let is_number = |number: &&str| {
        !number.is_empty()
            && number.chars().all(|digit| digit.is_ascii_digit())
            && (*number == "0" || !number.starts_with('0'))
    };
    let rest = &text[core.len()..];
    let labels = rest.chars().all(|letter| letter.is_ascii_alphanumeric() || ".-+".contains(letter));
    text.len() <= VERSION_BYTES_MAX
        && numbers.len() == 3
        && numbers.iter().all(is_number)
        && labels
        && rest != "-"
        && rest != "+"
}

/// Compiles a definition's document.
///
/// # Errors
///
/// Every fault that was found.
pub(super) fn compile(document: &Value) -> Result<(Outline, Vec<Task>), Vec<Fault>> {
    let mut reader = Reader::default();
    let outline = reader.workflow_outline(&At::new(document, ""));
    let tasks: Option<Vec<Task>> = reader.tasks.into_iter().collect();
    match (outline, tasks) {
        (Some(outline), Some(tasks)) if reader.faults.is_empty() => Ok((outline, tasks)),
        _ if reader.faults.is_empty() => Err(vec![Fault::new("", "the definition does not read")]),
        _ => Err(reader.faults),
    }
}

impl<'v> Reader<'v> {
    fn workflow_outline(&mut self, at: &At<'v>) -> Option<Outline> {
        let known = ["document", "input", "use", "do", "timeout", "output", "schedule", "evaluate"];
        if !self.object(at, &known) {
            return None;
        }
        let [namespace, name, version] =
            self.required(at, "document").and_then(|at| self.document(&at)).unzip3();
        if let Some(evaluate) = at.get("evaluate") {
            self.evaluate(&evaluate);
        }
        self.shared = at.get("use");
        if let Some(shared) = self.shared.clone() {
            self.shared(&shared);
        }
        let input = self.optional_shape(at, "input", "from");
        let output = self.optional_shape(at, "output", "as");
        let timeout = at.get("timeout").and_then(|timeout| self.timeout(&timeout));
        let schedule = at.get("schedule").and_then(|schedule| self.schedule(&schedule));
        let block = self.required(at, "do").map(|block| self.block(&block));
        Some(Outline {
            namespace: namespace?,
            name: name?,
            version: version?,
            block: block?,
            input,
            output,
            timeout,
            schedule,
        })
    }

    fn document(&mut self, at: &At<'v>) -> Option<[String; 3]> {
        let known = ["dsl", "namespace", "name", "version", "title", "summary", "tags", "metadata"];
        if !self.object(at, &known) {
            return None;
        }
        if let Some(dsl) = self.required(at, "dsl")
            && let Some(version) = self.text(&dsl)
            && !(is_version(version) && version.starts_with("1."))
        {
            self.fault(&dsl.at, format!("version `{version}` of the DSL is not known; there is 1.0"));
        }
        for key in ["title", "summary"] {
            self.optional_text(at, key);
        }
        for key in ["tags", "metadata"] {
            if let Some(found) = at.get(key).filter(|found| found.value.pairs().is_none()) {
                self.fault(&found.at, "an object stands here");
            }
        }
        let mut label = |key: &str| {
            let found = self.required(at, key)?;
            let text = self.text(&found)?;
            if !is_label(text) {
                self.fault(
                    &found.at,
                    format!("`{text}` is not 1 to {NAME_BYTES_MAX} letters, digits and hyphens"),
                );
            }
            Some(text.to_owned())
        };
        let namespace = label("namespace");
        let name = label("name");
        let found = self.required(at, "version")?;
        let version = self.text(&found)?;
        if !is_version(version) {
            self.fault(&found.at, format!("`{version}` is not a semantic version such as 1.0.0"));
        }
        Some([namespace?, name?, version.to_owned()])
    }

    fn evaluate(&mut self, at: &At<'v>) {
        if !self.object(at, &["language", "mode"]) {
            return;
        }
        if let Some(language) = at.get("language") {
            self.word(&language, &[("jq", ())]);
        }
        if let Some(mode) = at.get("mode") {
            self.mode =
                self.word(&mode, &[("strict", Mode::Strict), ("loose", Mode::Loose)]).unwrap_or_default();
        }
    }

    fn shared(&mut self, at: &At<'v>) {
        let known = [
            "authentications",
            "catalogs",
            "errors",
            "extensions",
            "functions",
            "retries",
            "secrets",
            "timeouts",
        ];
        if !self.object(at, &known) {
            return;
        }
        for (section, own) in at.pairs().unwrap_or_default() {
            let is_list = matches!(section, "extensions" | "secrets");
            if is_list != own.value.items().is_some() || (!is_list && own.value.pairs().is_none()) {
                self.fault(
                    &own.at,
                    if is_list { "a list stands here" } else { "an object of names stands here" },
                );
                continue;
            }
            for item in own.items().unwrap_or_default() {
                if section == "secrets" {
                    self.text(&item);
                } else {
                    self.extension(&item);
                }
            }
            for (_, item) in own.pairs().unwrap_or_default() {
                match section {
                    "errors" => {
                        self.error(&item);
                    }
                    "authentications" => {
                        self.scheme(&item);
                    }
                    "timeouts" => {
                        self.timeout(&item);
                    }
                    "catalogs" if self.object(&item, &["endpoint"]) => {
                        if let Some(endpoint) = self.required(&item, "endpoint") {
                            self.endpoint(&endpoint);
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    fn extension(&mut self, item: &At<'v>) {
        let Some((name, value)) = item.value.pairs().and_then(single_pair) else {
            self.fault(&item.at, "an extension is an object with its name as the only key");
            return;
        };
        let at = At { value, at: pointer(&item.at, name) };
        if self.object(&at, &["extend", "when", "before", "after"])
            && let Some(extend) = self.required(&at, "extend")
        {
            self.word(&extend, &EXTENDED);
        }
    }

    fn schedule(&mut self, at: &At<'v>) -> Option<Schedule> {
        let kinds = ["every", "cron", "after", "on"];
        if !self.object(at, &kinds) {
            return None;
        }
        let present: Vec<&str> = kinds.into_iter().filter(|kind| at.get(kind).is_some()).collect();
        let [kind] = present[..] else {
            self.fault(&at.at, format!("a schedule is one of {}", kinds.join(", ")));
            return None;
        };
        let own = at.get(kind)?;
        let problem = match kind {
            "on" => return self.events(&own).map(Schedule::On),
            "cron" => {
                let text = self.text(&own)?;
                match cron::Cron::read(text) {
                    Ok(_) => return Some(Schedule::Cron(text.to_owned())),
                    Err(problem) => problem,
                }
            }
            _ => match duration::millis(own.value) {
                Ok(0) => "an interval is longer than nothing".to_owned(),
                Ok(millis) if kind == "every" => return Some(Schedule::Every(millis)),
                Ok(millis) => return Some(Schedule::After(millis)),
                Err(problem) => problem,
            },
        };
        self.fault(&own.at, problem);
        None
    }
}

/// Three results from one.
trait Unzip3 {
    fn unzip3(self) -> [Option<String>; 3];
}

impl Unzip3 for Option<[String; 3]> {
    fn unzip3(self) -> [Option<String>; 3] {
        self.map_or([None, None, None], |texts| texts.map(Some))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_labels_are_told_from_other_texts() {
        for good in ["1.0.0", "0.1.0", "1.0.0-alpha1", "1.2.3-rc.1+build5"] {
            assert!(is_version(good), "{good}");
        }
        for bad in ["1.0", "1", "1.0.0.0", "01.0.0", "a.b.c", "1.0.0-", "1.0.0-ä", ""] {
            assert!(!is_version(bad), "{bad}");
        }
        assert!(is_label("order-pet"));
        for bad in ["", "-a", "a-", "a b", "ä", &"a".repeat(64)] {
            assert!(!is_label(bad), "{bad}");
        }
    }
}
