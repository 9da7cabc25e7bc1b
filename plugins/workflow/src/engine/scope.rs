//! What expressions see, and what templates become.
//!
//! Relies on expressions. Promises the specification's variables: `$context`, `$input`, `$output`, `$task`,
//! `$workflow`, `$runtime`, and the names that tasks around give. `$secrets` is an authorization error:
//! replicated state has no place for secrets, which workers resolve by their names. Knows no kind of task.

use super::case::{Case, FrameId, State};
use super::run::{Hand, Live, Run};
use crate::definition::program::{Kind, Shape, Span, Template};
use crate::definition::{duration, schema};
use crate::jq::{self, Bounds, Failure, Filter, Globals};
use crate::problem::{Problem, Standard};
use crate::store::DOCUMENTS;
use crate::value::{Pairs, Value};

/// The outputs a task has so far: raw, then transformed.
pub(super) type Outputs<'v> = [Option<&'v Value>; 2];
/// No output yet.
pub(super) const NONE: Outputs<'static> = [None, None];

/// A moment as the specification describes it.
pub(crate) fn moment(millis: u64) -> Value {
    let epoch = [("seconds", Value::unsigned(millis / 1_000)), ("milliseconds", Value::unsigned(millis))];
    Value::record([("iso8601", Value::text(&jq::iso8601_millis(millis))), ("epoch", Value::record(epoch))])
}

/// The values of an expression's variables.
struct Scope<'s, 'c> {
    run: &'s Run<'c>,
    case: &'s Case,
    id: u64,
    live: &'s Live,
    outputs: Outputs<'s>,
    /// Variables for this evaluation only.
    extra: &'s [(&'s str, Value)],
    reads_definition: bool,
}

impl Globals for Scope<'_, '_> {
    fn global(&self, name: &str) -> Result<Value, Failure> {
        if let Some((_, value)) = self.extra.iter().find(|(known, _)| *known == name) {
            return Ok(value.clone());
        }
        match name {
            "context" => Ok(self.case.context.clone()),
            "input" => Ok(self.live.input.clone()),
            "output" => Ok(self.outputs[1].cloned().unwrap_or_default()),
            "task" => Ok(self.task()),
            "workflow" => Ok(self.workflow()),
            "runtime" => Ok(Value::record([
                ("name", Value::text("quorate")),
                ("version", Value::text(env!("CARGO_PKG_VERSION"))),
                ("metadata", Value::record([("group", Value::text(self.run.ctx.group()))])),
            ])),
            "secrets" => Err(Failure::Forbidden(
                "secrets are not part of replicated state; name them in an \
                                                 authentication and let workers resolve them"
                    .to_owned(),
            )),
            "authorization" => Ok(Value::Null),
            _ => self.bound(name).ok_or_else(|| Failure::Error(format!("${name} is not bound here"))),
        }
    }
}

impl Scope<'_, '_> {
    /// The value that a task around gives a name.
    fn bound(&self, name: &str) -> Option<Value> {
        let mut at: FrameId = self.live.parent;
        while let Some(frame) = self.case.frames.get(&at) {
            let names_variables =
                matches!(frame.state, State::Each { .. } | State::Catching(_) | State::Listening(_));
            if names_variables && let Some(task) = frame.task.and_then(|task| self.run.task(self.case, task))
            {
                match (&frame.state, &task.kind) {
                    (State::Each { items, index }, Kind::For { each, at, .. }) => {
                        if name == each {
                            return items.items()?.get(*index as usize).cloned();
                        }
                        if name == at {
                            return Some(Value::unsigned((*index).into()));
                        }
                    }
                    (State::Catching(error), Kind::Try(_, catch)) if catch.variable == name => {
                        return Some(error.clone());
                    }
                    (State::Listening(heard), Kind::Listen { each: Some(each), .. }) => {
                        if name == each.item {
                            return heard.consumed.get(heard.processed as usize).cloned();
                        }
                        if name == each.at {
                            return Some(Value::unsigned(heard.processed.into()));
                        }
                    }
                    _ => {}
                }
            }
            frame.task?;
            at = frame.parent;
        }
        None
    }

    fn document(&self) -> Value {
        if self.reads_definition {
            DOCUMENTS.get(self.run.ctx, &self.case.definition).unwrap_or_default()
        } else {
            Value::Null
        }
    }

    fn workflow(&self) -> Value {
        let mut pairs = Pairs::new();
        pairs.insert("id".into(), Value::text(&self.id.to_string()));
        pairs.insert("input".into(), self.case.input.clone());
        pairs.insert("startedAt".into(), moment(self.case.started));
        if self.reads_definition {
            pairs.insert("definition".into(), self.document());
        }
        Value::object(pairs).unwrap_or_default()
    }

    /// The task's descriptor. Extensions look at the definition's own keys, as the specification's examples
    /// do, so those are there as well.
    fn task(&self) -> Value {
        let Some(task) = &self.live.task else { return Value::Null };
        let mut pairs = Pairs::new();
        if self.reads_definition {
            let document = self.document();
            let mut at = Some(&document);
            for step in task.at.split('/').skip(1) {
                let step = step.replace("~1", "/").replace("~0", "~");
                at = at.and_then(|at| match at.items() {
                    Some(items) => items.get(step.parse::<usize>().ok()?),
                    None => at.field(&step),
                });
            }
            let definition = at.cloned().unwrap_or_default();
            pairs.extend(definition.pairs().cloned().unwrap_or_default());
            pairs.insert("definition".into(), definition);
        }
        pairs.insert("name".into(), Value::text(&task.name));
        pairs.insert("reference".into(), Value::text(&task.at));
        pairs.insert("input".into(), self.live.raw.clone());
        pairs.insert("output".into(), self.outputs[0].cloned().unwrap_or_default());
        pairs.insert("startedAt".into(), moment(self.live.started));
        Value::object(pairs).unwrap_or_default()
    }
}

impl Run<'_> {
    /// Evaluates an expression.
    pub(super) fn eval(
        &mut self,
        hand: &Hand,
        live: &Live,
        outputs: Outputs<'_>,
        extra: &[(&str, Value)],
        filter: &Filter,
        input: &Value,
    ) -> Result<Value, Problem> {
        let mut bounds = Bounds { fuel: self.fuel, depth: self.limits.expression_depth };
        let scope = Scope {
            run: self,
            case: &hand.case,
            id: hand.id,
            live,
            outputs,
            extra,
            reads_definition: filter.reads_definition,
        };
        let result = jq::evaluate(filter, input, &scope, &mut bounds);
        self.fuel = bounds.fuel;
        result.map_err(|failure| {
            let kind = match failure {
                Failure::Forbidden(_) => Standard::Authorization,
                _ => Standard::Expression,
            };
            Problem::standard(kind, failure.to_string())
        })
    }

    /// Whether a condition holds.
    pub(super) fn holds(
        &mut self,
        hand: &Hand,
        live: &Live,
        extra: &[(&str, Value)],
        filter: &Filter,
        input: &Value,
    ) -> Result<bool, Problem> {
        self.eval(hand, live, NONE, extra, filter, input).map(|value| value.is_true())
    }

    /// Fills a template in.
    pub(super) fn fill(
        &mut self,
        hand: &Hand,
        live: &Live,
        outputs: Outputs<'_>,
        extra: &[(&str, Value)],
        template: &Template,
        input: &Value,
    ) -> Result<Value, Problem> {
        let too_deep =
            |error: crate::value::TooDeep| Problem::standard(Standard::Expression, error.to_string());
        match template {
            Template::Const(value) => Ok(value.clone()),
            Template::Expr(filter) => self.eval(hand, live, outputs, extra, filter, input),
            Template::Loose(filter, text) => {
                let result = self.eval(hand, live, outputs, extra, filter, input);
                Ok(result.unwrap_or_else(|_| Value::text(text)))
            }
            Template::Uri(uri) => expand(uri, input),
            Template::Text(parts) => {
                let mut text = String::new();
                for part in parts {
                    match self.fill(hand, live, outputs, extra, part, input)? {
                        Value::Str(part) => text.push_str(&part),
                        other => text.push_str(&other.to_json()),
                    }
                }
                Ok(Value::text(&text))
            }
            Template::Array(items) => {
                let mut filled = Vec::with_capacity(items.len());
                for item in items {
                    filled.push(self.fill(hand, live, outputs, extra, item, input)?);
                }
                Value::array(filled).map_err(too_deep)
            }
            Template::Object(pairs) => {
                let mut filled = Pairs::new();
                for (key, value) in pairs {
                    filled.insert(key.as_str().into(), self.fill(hand, live, outputs, extra, value, input)?);
                }
                Value::object(filled).map_err(too_deep)
            }
        }
    }

    /// A duration in milliseconds.
    pub(super) fn millis(&mut self, hand: &Hand, live: &Live, span: &Span) -> Result<u64, Problem> {
        match span {
            Span::Millis(millis) => Ok(*millis),
            Span::Template(template) => {
                let input = live.input.clone();
                let value = self.fill(hand, live, NONE, &[], template, &input)?;
                duration::millis(&value).map_err(|problem| Problem::standard(Standard::Expression, problem))
            }
        }
    }

    /// Checks what came in, then changes it.
    pub(super) fn shape_in(
        &mut self,
        hand: &Hand,
        live: &Live,
        shape: Option<&Shape>,
        raw: &Value,
    ) -> Result<Value, Problem> {
        let Some(shape) = shape else { return Ok(raw.clone()) };
        fits(shape, raw, "input")?;
        let Some(template) = &shape.template else { return Ok(raw.clone()) };
        let value = self.fill(hand, live, NONE, &[], template, raw)?;
        self.small(&value)?;
        Ok(value)
    }

    /// Changes what goes out, then checks it.
    pub(super) fn shape_out(
        &mut self,
        hand: &Hand,
        live: &Live,
        shape: Option<&Shape>,
        outputs: Outputs<'_>,
        raw: Value,
    ) -> Result<Value, Problem> {
        let Some(shape) = shape else { return Ok(raw) };
        let value = match &shape.template {
            Some(template) => {
                let value = self.fill(hand, live, outputs, &[], template, &raw)?;
                self.small(&value)?;
                value
            }
            None => raw,
        };
        fits(shape, &value, "output")?;
        Ok(value)
    }

    /// Refuses a document that is larger than it may be.
    pub(super) fn small(&self, value: &Value) -> Result<(), Problem> {
        let (size, most) = (value.size(), self.limits.document_bytes);
        if size <= most {
            return Ok(());
        }
        Err(Problem::standard(
            Standard::Runtime,
            format!("a document has about {size} bytes, more than {most}"),
        ))
    }
}

fn fits(shape: &Shape, value: &Value, what: &str) -> Result<(), Problem> {
    let Some(schema) = &shape.schema else { return Ok(()) };
    schema::validate(schema, value).map_err(|fault| {
        Problem::standard(Standard::Validation, format!("the {what} does not fit its schema: {fault}"))
    })
}

/// Fills a URI template's names with top-level properties (RFC 6570 §3.2.2).
fn expand(uri: &str, input: &Value) -> Result<Value, Problem> {
    let mut expanded = String::new();
    let mut rest = uri;
    while let Some((before, after)) = rest.split_once('{') {
        expanded.push_str(before);
        let (name, after) = after.split_once('}').unwrap_or((after, ""));
        match input.field(name) {
            None | Some(Value::Null) => {}
            Some(Value::Str(text)) => jq::percent_encode(text, &mut expanded),
            Some(Value::Array(_) | Value::Object(_)) => {
                let detail = format!("`{name}` is no text, number or boolean, so it cannot stand in a URI");
                return Err(Problem::standard(Standard::Expression, detail));
            }
            Some(other) => jq::percent_encode(&other.to_json(), &mut expanded),
        }
        rest = after;
    }
    expanded.push_str(rest);
    Ok(Value::text(&expanded))
}
