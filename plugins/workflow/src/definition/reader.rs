//! What all parts of reading a definition share: faults, names, expressions, templates.
//!
//! Relies on expressions. Promises to find all faults of a definition, not only the first, and to refuse
//! properties that the specification does not know. Knows no task.

use std::collections::BTreeMap;

use super::duration;
use super::fault::{Fault, pointer};
use super::program::{Shape, Span, Task, TaskId, Template};
use super::schema;
use crate::jq::{self, Filter};
use crate::value::{Pairs, Value};

/// Faults after which reading ends.
pub(super) const FAULTS_MAX: usize = 50;
/// The most tasks of a definition.
pub(super) const TASKS_MAX: usize = 1_000;
/// The deepest nesting of tasks within tasks.
pub(super) const TASK_DEPTH_MAX: usize = 16;
/// Variables that are there everywhere.
const VARIABLES: &[&str] =
    &["context", "input", "output", "secrets", "authorization", "task", "workflow", "runtime"];

/// A value of the definition, and where it is.
#[derive(Clone, Debug)]
pub(super) struct At<'v> {
    pub(super) value: &'v Value,
    pub(super) at: String,
}

/// How expressions are told from other texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    #[default]
    Strict,
    Loose,
}

/// Reads one definition.
#[derive(Default)]
pub(super) struct Reader<'v> {
    pub(super) faults: Vec<Fault>,
    pub(super) tasks: Vec<Option<Task>>,
    pub(super) mode: Mode,
    /// Variables that the tasks around give names to.
    pub(super) variables: Vec<String>,
    /// How many tasks are around.
    pub(super) depth: usize,
    /// `use`, if there is one.
    pub(super) shared: Option<At<'v>>,
    /// Functions that were compiled, by name; `None` while they are.
    pub(super) functions: BTreeMap<String, Option<TaskId>>,
    /// Whether an extension is being read, which no extension extends.
    pub(super) within_extension: bool,
}

impl<'v> At<'v> {
    pub(super) fn new(value: &'v Value, at: &str) -> Self {
        Self { value, at: at.to_owned() }
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &str) -> Option<At<'v>> {
        self.value.field(key).map(|value| At { value, at: pointer(&self.at, key) })
    }

    /// The items of a list.
    pub(super) fn items(&self) -> Option<Vec<At<'v>>> {
        let items = self.value.items()?.iter().enumerate();
        Some(items.map(|(index, value)| At { value, at: pointer(&self.at, &index.to_string()) }).collect())
    }

    /// The pairs of an object.
    pub(super) fn pairs(&self) -> Option<Vec<(&'v str, At<'v>)>> {
        let pairs = self.value.pairs()?.iter();
        Some(pairs.map(|(key, value)| (&**key, At { value, at: pointer(&self.at, key) })).collect())
    }
}

impl<'v> Reader<'v> {
    pub(super) fn fault(&mut self, at: &str, problem: impl Into<String>) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(Fault::new(at, problem));
        }
    }

    /// Notes a fault unless the value is an object that has no other properties than these.
    pub(super) fn object(&mut self, at: &At<'v>, allowed: &[&str]) -> bool {
        let Some(pairs) = at.value.pairs() else {
            self.fault(&at.at, format!("an object stands here, not a {}", at.value.type_name()));
            return false;
        };
        for key in pairs.keys() {
            if !allowed.contains(&&**key) {
                let known = allowed.join(", ");
                self.fault(&pointer(&at.at, key), format!("`{key}` is not expected here; there are {known}"));
            }
        }
        true
    }

    /// A property that must be there.
    pub(super) fn required(&mut self, at: &At<'v>, key: &str) -> Option<At<'v>> {
        let found = at.get(key);
        if found.is_none() && at.value.pairs().is_some() {
            self.fault(&at.at, format!("`{key}` is missing"));
        }
        found
    }

    /// A text.
    pub(super) fn text(&mut self, at: &At<'v>) -> Option<&'v str> {
        let text = at.value.as_text();
        if text.is_none() {
            self.fault(&at.at, format!("a text stands here, not a {}", at.value.type_name()));
        }
        text
    }

    /// A property that is a text, if it is there.
    pub(super) fn optional_text(&mut self, at: &At<'v>, key: &str) -> Option<&'v str> {
        let found = at.get(key)?;
        self.text(&found)
    }

    /// A property that is true or false.
    pub(super) fn flag(&mut self, at: &At<'v>, key: &str, otherwise: bool) -> bool {
        match at.get(key) {
            None => otherwise,
            Some(At { value: Value::Bool(value), .. }) => *value,
            Some(other) => {
                self.fault(&other.at, "true or false stands here");
                otherwise
            }
        }
    }

    /// One of some words.
    pub(super) fn word<T: Copy>(&mut self, at: &At<'v>, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(at)?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning);
        if found.is_none() {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.fault(&at.at, format!("`{text}` is none of {}", known.join(", ")));
        }
        found
    }

    /// Compiles an expression's text.
    fn compile(&mut self, text: &str, at: &str) -> Option<Filter> {
        let variables = &self.variables;
        let known = |name: &str| VARIABLES.contains(&name) || variables.iter().any(|known| known == name);
        match jq::compile(text, &known) {
            Ok(filter) => Some(filter),
            Err(problem) => {
                self.fault(at, format!("the expression does not read: {problem}"));
                None
            }
        }
    }

    /// A property that is an expression whether or not it stands in `${ }`.
    pub(super) fn expression(&mut self, at: &At<'v>) -> Option<Filter> {
        match at.value {
            Value::Str(text) => {
                let inner = whole_expression(text).unwrap_or(text);
                self.compile(inner, &at.at)
            }
            Value::Bool(_) | Value::Int(_) | Value::Float(_) => self.compile(&at.value.to_json(), &at.at),
            _ => {
                self.fault(&at.at, "an expression stands here");
                None
            }
        }
    }

    /// A property that is an expression, if it is there.
    pub(super) fn optional_expression(&mut self, at: &At<'v>, key: &str) -> Option<Filter> {
        let found = at.get(key)?;
        self.expression(&found)
    }

    /// A text as an expression or a template of them: what `from`, `as` and the like hold.
    pub(super) fn expression_or_template(&mut self, at: &At<'v>) -> Option<Template> {
        match at.value {
            Value::Str(_) => self.expression(at).map(|filter| Template::Expr(Box::new(filter))),
            _ => Some(self.template(at)),
        }
    }

    /// Data with expressions in it.
    pub(super) fn template(&mut self, at: &At<'v>) -> Template {
        match at.value {
            Value::Str(text) => self.text_template(text, &at.at),
            Value::Array(_) => {
                let items: Vec<Template> =
                    at.items().unwrap_or_default().iter().map(|item| self.template(item)).collect();
                if items.iter().all(|item| matches!(item, Template::Const(_))) {
                    return Template::Const(at.value.clone());
                }
                Template::Array(items)
            }
            Value::Object(_) => {
                let pairs: Vec<(String, Template)> = at
                    .pairs()
                    .unwrap_or_default()
                    .iter()
                    .map(|(key, value)| ((*key).to_owned(), self.template(value)))
                    .collect();
                if pairs.iter().all(|(_, value)| matches!(value, Template::Const(_))) {
                    return Template::Const(at.value.clone());
                }
                Template::Object(pairs)
            }
            _ => Template::Const(at.value.clone()),
        }
    }

    fn text_template(&mut self, text: &str, at: &str) -> Template {
        if let Some(inner) = whole_expression(text) {
            let filter = self.compile(inner, at);
            return filter.map_or(Template::Const(Value::Null), |filter| Template::Expr(Box::new(filter)));
        }
        if self.mode == Mode::Loose {
            let known =
                |name: &str| VARIABLES.contains(&name) || self.variables.iter().any(|known| known == name);
            // What does not read is a text, which is what loose means.
            return match jq::compile(text, &known) {
                Ok(filter) => Template::Loose(Box::new(filter), text.to_owned()),
                Err(_) => Template::Const(Value::text(text)),
            };
        }
        let parts = embedded(text);
        if parts.len() == 1 && matches!(parts[0], Embedded::Text(_)) || parts.is_empty() {
            return Template::Const(Value::text(text));
        }
        let parts = parts.into_iter().map(|part| match part {
            Embedded::Text(text) => Template::Const(Value::text(text)),
            Embedded::Expression(inner) => self
                .compile(inner, at)
                .map_or(Template::Const(Value::Null), |filter| Template::Expr(Box::new(filter))),
        });
        Template::Text(parts.collect())
    }

    /// A URI with names in braces, or an expression.
    pub(super) fn uri(&mut self, at: &At<'v>) -> Option<Template> {
        let text = self.text(at)?;
        if text.contains("${") || self.mode == Mode::Loose {
            return Some(self.text_template(text, &at.at));
        }
        let opens = text.matches('{').count();
        if opens == 0 {
            return Some(Template::Const(Value::text(text)));
        }
        if opens != text.matches('}').count() {
            self.fault(&at.at, "the URI template's braces do not match");
        }
        Some(Template::Uri(text.to_owned()))
    }

    /// A duration, in any form.
    pub(super) fn span(&mut self, at: &At<'v>) -> Option<Span> {
        if at.value.as_text().is_some_and(|text| text.contains("${")) {
            return Some(Span::Template(self.template(at)));
        }
        match duration::millis(at.value) {
            Ok(millis) => Some(Span::Millis(millis)),
            Err(problem) => {
                self.fault(&at.at, problem);
                None
            }
        }
    }

    /// `{after: duration}`, or the name of one in `use.timeouts`.
    pub(super) fn timeout(&mut self, at: &At<'v>) -> Option<Span> {
        let at = match at.value.as_text() {
            Some(name) => self.named("timeouts", name, &at.at)?,
            None => at.clone(),
        };
        if !self.object(&at, &["after"]) {
            return None;
        }
        let after = self.required(&at, "after")?;
        self.span(&after)
    }

    /// What `use` has under a name.
    pub(super) fn named(&mut self, section: &str, name: &str, at: &str) -> Option<At<'v>> {
        let found =
            self.shared.as_ref().and_then(|shared| shared.get(section)).and_then(|section| section.get(name));
        if found.is_none() {
            self.fault(at, format!("there is no `{name}` in use.{section}"));
        }
        found
    }

    /// A schema and a change of data, the latter under `key`.
    pub(super) fn shape(&mut self, at: &At<'v>, key: &str) -> Option<Shape> {
        if !self.object(at, &["schema", key]) {
            return None;
        }
        let schema = at.get("schema").and_then(|at| self.schema(&at));
        let template = at.get(key).and_then(|at| self.expression_or_template(&at));
        Some(Shape { schema, template })
    }

    fn schema(&mut self, at: &At<'v>) -> Option<Value> {
        if !self.object(at, &["format", "document", "resource"]) {
            return None;
        }
        if let Some(format) = self.optional_text(at, "format")
            && format != "json"
            && !format.starts_with("json:")
        {
            self.fault(
                &pointer(&at.at, "format"),
                format!("`{format}` is no format that is known; there is json"),
            );
        }
        if let Some(resource) = at.get("resource") {
            self.fault(&resource.at, "a schema cannot be fetched; write it as `document`");
            return None;
        }
        let document = self.required(at, "document")?;
        schema::check(document.value, &document.at, &mut self.faults);
        Some(document.value.clone())
    }

    /// Free-form data that nobody evaluates.
    pub(super) fn metadata(&mut self, at: &At<'v>) {
        if let Some(metadata) = at.get("metadata")
            && metadata.value.pairs().is_none()
        {
            self.fault(&metadata.at, "metadata is an object");
        }
    }
}

/// What stands in `${ }`, if that is the whole text.
fn whole_expression(text: &str) -> Option<&str> {
    let inner = text.trim().strip_prefix("${")?;
    let end = expression_end(inner)?;
    inner[end + 1..].is_empty().then(|| &inner[..end])
}

/// Where the brace that closes an expression is, past texts and inner braces.
fn expression_end(text: &str) -> Option<usize> {
    // Each level of texts and brackets: what closes it.
    let mut open: Vec<char> = vec!['}'];
    let mut letters = text.char_indices();
    while let Some((place, letter)) = letters.next() {
        match (open.last()?, letter) {
            ('"', '\\') => {
                if let Some((_, '(')) = letters.next() {
                    open.push(')');
                }
            }
            ('"', '"') => {
                open.pop();
            }
            ('"', _) => {}
            (_, '"') => open.push('"'),
            (_, '(') => open.push(')'),
            (_, '[') => open.push(']'),
            (_, '{') => open.push('}'),
            (close, letter) if *close == letter => {
                open.pop();
                if open.is_empty() {
                    return Some(place);
                }
            }
            _ => {}
        }
    }
    None
}

/// Part of a text.
enum Embedded<'t> {
    Text(&'t str),
    Expression(&'t str),
}

/// The parts of a text with expressions in it.
fn embedded(text: &str) -> Vec<Embedded<'_>> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let Some(end) = expression_end(&rest[start + 2..]) else { break };
        if start > 0 {
            parts.push(Embedded::Text(&rest[..start]));
        }
        parts.push(Embedded::Expression(&rest[start + 2..start + 2 + end]));
        rest = &rest[start + 2 + end + 1..];
    }
    if !rest.is_empty() {
        parts.push(Embedded::Text(rest));
    }
    parts
}

/// A filter's and its templates' variables.
pub(super) fn uses(template: &Template, name: &str) -> bool {
    match template {
        Template::Const(_) | Template::Uri(_) => false,
        Template::Expr(filter) | Template::Loose(filter, _) => {
            filter.globals.iter().any(|global| global == name)
        }
        Template::Text(items) | Template::Array(items) => items.iter().any(|item| uses(item, name)),
        Template::Object(pairs) => pairs.iter().any(|(_, value)| uses(value, name)),
    }
}

/// A map that names tasks, as pairs; for lists whose items have one key each.
pub(super) fn single_pair(pairs: &Pairs) -> Option<(&str, &Value)> {
    let mut pairs = pairs.iter();
    let (name, value) = pairs.next()?;
    pairs.next().is_none().then_some((&**name, value))
}
