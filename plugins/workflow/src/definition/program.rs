//! A definition in its stored form.
//!
//! Relies on expressions' stored form. Promises that running needs nothing of the text, and that a command
//! reads only the tasks that it runs: each is stored on its own. Knows no case.

use serde::{Deserialize, Serialize};

use crate::jq::Filter;
use crate::value::Value;

/// A task's place in `Program::tasks`.
pub type TaskId = u16;

/// What a task or workflow does to the data that reaches it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Template {
    /// Data without expressions.
    #[serde(rename = "c")]
    Const(Value),
    /// An expression.
    #[serde(rename = "e")]
    Expr(Box<Filter>),
    /// In loose mode: an expression, or the text if evaluating it fails.
    #[serde(rename = "l")]
    Loose(Box<Filter>, String),
    /// A text with expressions in it.
    #[serde(rename = "t")]
    Text(Vec<Template>),
    /// A URI template, whose names are top-level properties of the data.
    #[serde(rename = "u")]
    Uri(String),
    /// An array.
    #[serde(rename = "a")]
    Array(Vec<Template>),
    /// An object.
    #[serde(rename = "o")]
    Object(Vec<(String, Template)>),
}

/// How data is checked and changed on its way.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Shape {
    /// A JSON Schema.
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Value>,
    /// What becomes of the data; it stays as it is without.
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    pub template: Option<Template>,
}

/// A duration.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Span {
    /// Milliseconds.
    #[serde(rename = "m")]
    Millis(u64),
    /// An expression or object that gives a duration.
    #[serde(rename = "t")]
    Template(Template),
}

/// Where to go after a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Then {
    /// To the next task of the same list.
    #[default]
    #[serde(rename = "c")]
    Continue,
    /// Out of the list.
    #[serde(rename = "x")]
    Exit,
    /// To the workflow's end.
    #[serde(rename = "e")]
    End,
    /// To the task at this place of the same list.
    #[serde(rename = "g")]
    Go(u16),
}

/// A task.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Task {
    /// Its name.
    #[serde(rename = "n")]
    pub name: String,
    /// A JSON pointer to it.
    #[serde(rename = "p")]
    pub at: String,
    /// Whether it is run at all.
    #[serde(rename = "f", default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<Filter>,
    /// What it does to its input.
    #[serde(rename = "i", default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Shape>,
    /// What it does to its output.
    #[serde(rename = "o", default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Shape>,
    /// What it does to the context.
    #[serde(rename = "x", default, skip_serializing_if = "Option::is_none")]
    pub export: Option<Shape>,
    /// How long it may take.
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// Where to go afterwards.
    #[serde(rename = "t", default)]
    pub then: Then,
    /// What it does.
    #[serde(rename = "k")]
    pub kind: Kind,
    /// Whether its input is needed after it started.
    #[serde(rename = "ki", default)]
    pub keeps_input: bool,
    /// Whether its raw input is needed after it started.
    #[serde(rename = "kr", default)]
    pub keeps_raw: bool,
}

/// Tasks to be done one after the other.
pub type Block = Vec<TaskId>;

/// A case of a `switch`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Choice {
    /// When it applies; always without.
    #[serde(rename = "w", default, skip_serializing_if = "Option::is_none")]
    pub when: Option<Filter>,
    /// Where it leads.
    #[serde(rename = "t")]
    pub then: Then,
}

/// What a `try` does about errors.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Catch {
    /// Properties that the error must have.
    #[serde(rename = "f", default, skip_serializing_if = "Option::is_none")]
    pub with: Option<Template>,
    /// The variable that holds the error.
    #[serde(rename = "v")]
    pub variable: String,
    /// Whether the error is caught.
    #[serde(rename = "w", default, skip_serializing_if = "Option::is_none")]
    pub when: Option<Filter>,
    /// Whether it is not.
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
    pub except: Option<Filter>,
    /// Whether and when to try again.
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// What to do once trying again has an end.
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub block: Option<Block>,
}

/// How delays grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Backoff {
    /// They do not.
    #[default]
    #[serde(rename = "c")]
    Constant,
    /// By the same amount each time.
    #[serde(rename = "l")]
    Linear,
    /// Twofold each time.
    #[serde(rename = "e")]
    Exponential,
}

/// Whether and when to try again.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Retry {
    /// Whether to try again.
    #[serde(rename = "w", default, skip_serializing_if = "Option::is_none")]
    pub when: Option<Filter>,
    /// Whether not to.
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
    pub except: Option<Filter>,
    /// How long to wait before.
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<Span>,
    /// How that grows.
    #[serde(rename = "b", default)]
    pub backoff: Backoff,
    /// What is added to it by chance: from, to.
    #[serde(rename = "j", default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<(Span, Span)>,
    /// How often at most.
    #[serde(rename = "n", default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// How long one attempt may take.
    #[serde(rename = "a", default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<Span>,
    /// How long all may take.
    #[serde(rename = "l", default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<Span>,
}

/// A value that links an event with others or with data.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Correlation {
    /// Its name.
    #[serde(rename = "n")]
    pub name: String,
    /// Where it is in the event.
    #[serde(rename = "f")]
    pub from: Filter,
    /// What it must be; the first one found without.
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<Template>,
}

/// Which events are meant.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EventFilter {
    /// Attributes that the event must have.
    #[serde(rename = "w")]
    pub with: Vec<(String, Template)>,
    /// Links to other events or data.
    #[serde(rename = "c", default, skip_serializing_if = "Vec::is_empty")]
    pub correlate: Vec<Correlation>,
}

/// When listening ends.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Until {
    /// When this holds of the events so far.
    #[serde(rename = "c")]
    Condition(Filter),
    /// When these came.
    #[serde(rename = "e")]
    Events(Box<Events>),
}

/// Which events to wait for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Events {
    /// This one.
    #[serde(rename = "o")]
    One(EventFilter),
    /// One for each.
    #[serde(rename = "a")]
    All(Vec<EventFilter>),
    /// Any of these, or any at all if there are none; until something, or only the first.
    #[serde(rename = "y")]
    Any(Vec<EventFilter>, Option<Until>),
}

impl Events {
    /// The filters.
    #[must_use]
    pub fn filters(&self) -> &[EventFilter] {
        match self {
            Self::One(filter) => std::slice::from_ref(filter),
            Self::All(filters) | Self::Any(filters, _) => filters,
        }
    }
}

/// What of an event is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Read {
    /// Its data.
    #[default]
    Data,
    /// The whole event.
    Envelope,
    /// Its data as it came.
    Raw,
}

/// What is done with each event.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ForEach {
    /// The variable that holds the event.
    #[serde(rename = "v")]
    pub item: String,
    /// The variable that counts events.
    #[serde(rename = "i")]
    pub at: String,
    /// The tasks.
    #[serde(rename = "d")]
    pub block: Block,
    /// What becomes of their output.
    #[serde(rename = "o", default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Shape>,
    /// What becomes of the context.
    #[serde(rename = "x", default, skip_serializing_if = "Option::is_none")]
    pub export: Option<Shape>,
}

/// What of a process is its output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Return {
    /// What it wrote.
    #[default]
    Stdout,
    /// What it complained.
    Stderr,
    /// How it ended.
    Code,
    /// All three.
    All,
    /// Nothing.
    None,
}

/// Whether a process is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Await {
    /// It is, and this is its output.
    #[serde(rename = "y")]
    Yes(Return),
    /// It is not.
    #[serde(rename = "n")]
    No,
}

/// What a task does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Kind {
    /// `do`
    #[serde(rename = "do")]
    Do(Block),
    /// `set`
    #[serde(rename = "set")]
    Set(Template),
    /// `switch`
    #[serde(rename = "switch")]
    Switch(Vec<Choice>),
    /// `for`
    #[serde(rename = "for")]
    For {
        /// The variable that holds the item.
        each: String,
        /// The variable that counts items.
        at: String,
        /// What to go through.
        within: Filter,
        /// Whether to go on.
        condition: Option<Filter>,
        /// The tasks.
        block: Block,
    },
    /// `fork`
    #[serde(rename = "fork")]
    Fork {
        /// The branches.
        branches: Block,
        /// Whether the first to complete ends the others.
        compete: bool,
    },
    /// `try`
    #[serde(rename = "try")]
    Try(Block, Box<Catch>),
    /// `raise`
    #[serde(rename = "raise")]
    Raise(Template),
    /// `wait`
    #[serde(rename = "wait")]
    Wait(Span),
    /// `emit`
    #[serde(rename = "emit")]
    Emit(Template),
    /// `listen`
    #[serde(rename = "listen")]
    Listen {
        /// Which events.
        to: Events,
        /// What of them.
        read: Read,
        /// What is done with each.
        each: Option<Box<ForEach>>,
    },
    /// `call` of a function that workers serve
    #[serde(rename = "call")]
    Call {
        /// Its name.
        function: String,
        /// Its arguments.
        with: Template,
    },
    /// `call` of a function of the workflow
    #[serde(rename = "invoke")]
    Invoke {
        /// The function.
        task: TaskId,
        /// Its arguments.
        with: Template,
    },
    /// `run` of a container, script or shell command
    #[serde(rename = "run")]
    Run {
        /// `container`, `script` or `shell`.
        process: String,
        /// Its description.
        with: Template,
        /// Whether it is waited for.
        awaited: Await,
    },
    /// `run` of a workflow
    #[serde(rename = "workflow")]
    Workflow {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Its version; the newest without.
        version: Option<String>,
        /// Its input.
        input: Option<Template>,
        /// Whether it is waited for.
        awaited: bool,
    },
    /// A task with what extensions do before and after it.
    #[serde(rename = "extended")]
    Extended {
        /// Whether the extension applies.
        when: Option<Filter>,
        /// What is done before.
        before: Block,
        /// The task.
        task: TaskId,
        /// What is done after.
        after: Block,
    },
}

/// When cases start by themselves.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Schedule {
    /// In even intervals, in milliseconds.
    #[serde(rename = "e")]
    Every(u64),
    /// By a cron expression, in UTC.
    #[serde(rename = "c")]
    Cron(String),
    /// This many milliseconds after the case before ended.
    #[serde(rename = "a")]
    After(u64),
    /// When events come.
    #[serde(rename = "o")]
    On(Events),
}

/// What a workflow does around its tasks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outline {
    /// Its namespace.
    #[serde(rename = "s")]
    pub namespace: String,
    /// Its name.
    #[serde(rename = "n")]
    pub name: String,
    /// Its version.
    #[serde(rename = "v")]
    pub version: String,
    /// The tasks it starts with.
    #[serde(rename = "d")]
    pub block: Block,
    /// What it does to its input.
    #[serde(rename = "i", default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Shape>,
    /// What it does to its output.
    #[serde(rename = "o", default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Shape>,
    /// How long it may take.
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// When cases start by themselves.
    #[serde(rename = "w", default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
}
