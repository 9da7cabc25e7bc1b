//! What the component is told and asked, and what it says.
//!
//! Relies on serde. Promises stable names and codes. Knows no rule.

use std::fmt;

use quorate_sdk::Reject;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::engine::case::{FrameId, Phase};
use crate::value::Value;

/// A work item's name: its case and its place there, as `case.frame`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ItemId(pub u64, pub FrameId);

impl fmt::Display for ItemId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}", self.0, self.1)
    }
}

impl Serialize for ItemId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ItemId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let parts = text.split_once('.');
        parts
            .and_then(|(case, frame)| Some(Self(case.parse().ok()?, frame.parse().ok()?)))
            .ok_or_else(|| D::Error::custom("a work item is named like 17.4"))
    }
}

/// What changes something.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Command {
    /// Adds a definition; answers with its [`Reference`]. The same text again changes nothing.
    Define {
        /// YAML or JSON.
        text: String,
    },
    /// Starts a case; answers with [`Started`].
    Start {
        /// The definition's namespace.
        namespace: String,
        /// The definition's name.
        name: String,
        /// Its version; the highest without.
        #[serde(default)]
        version: Option<String>,
        /// A business key. A second start under the same key finds the case of the first.
        #[serde(default)]
        key: Option<String>,
        /// The input; an empty object without.
        #[serde(default)]
        input: Option<Value>,
    },
    /// Ends a case.
    Cancel {
        /// The case.
        case: u64,
    },
    /// Halts a case: what comes in is kept, and nothing is done.
    Suspend {
        /// The case.
        case: u64,
    },
    /// Lets a halted case go on.
    Resume {
        /// The case.
        case: u64,
    },
    /// Removes a case that is over, with its history and its key.
    Forget {
        /// The case.
        case: u64,
    },
    /// Gives a CloudEvent to one case, which holds it until it listens.
    Signal {
        /// The case.
        case: u64,
        /// The event: at least `source` and `type`.
        event: Value,
    },
    /// Gives a CloudEvent to every case that listens to it, and starts what is scheduled by it. Answers with
    /// how many cases it was given to at once.
    Publish {
        /// The event: at least `source` and `type`.
        event: Value,
    },
    /// Claims work items; answers with a list of [`Claimed`].
    Claim {
        /// The functions to serve, such as `http` or `run:shell`.
        functions: Vec<String>,
        /// Who claims, for people.
        worker: String,
        /// How many at most; one without.
        #[serde(default)]
        limit: Option<u32>,
        /// For how many milliseconds, 1,000 to 86,400,000; 30,000 without.
        #[serde(default)]
        lease: Option<u64>,
    },
    /// Prolongs a claim; answers with its new end in milliseconds since 1970.
    Heartbeat {
        /// The work item.
        item: ItemId,
        /// The claim's token.
        token: u64,
        /// For how many milliseconds from now; as in `claim`.
        #[serde(default)]
        lease: Option<u64>,
    },
    /// Says that a work item is done.
    Complete {
        /// The work item.
        item: ItemId,
        /// The claim's token.
        token: u64,
        /// What came of it.
        #[serde(default)]
        output: Option<Value>,
    },
    /// Says that a work item cannot be done.
    Fail {
        /// The work item.
        item: ItemId,
        /// The claim's token.
        token: u64,
        /// Why, in the form of RFC 7807; a communication error without.
        #[serde(default)]
        error: Option<Value>,
    },
}

/// What can be asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Query {
    /// One case, as a [`CaseView`].
    Case {
        /// The case.
        case: u64,
    },
    /// The case of a business key, as a [`CaseView`].
    ByKey {
        /// The definition's namespace.
        namespace: String,
        /// The definition's name.
        name: String,
        /// The key.
        key: String,
    },
    /// Cases in the order in which they started, as a list of [`CaseLine`].
    Cases {
        /// Only those of this namespace and name.
        #[serde(default)]
        namespace: Option<String>,
        /// Only those of this namespace and name.
        #[serde(default)]
        name: Option<String>,
        /// Only those of this version.
        #[serde(default)]
        version: Option<String>,
        /// Only those that stand there.
        #[serde(default)]
        state: Option<Phase>,
        /// Only those after this one: the last of the page before.
        #[serde(default)]
        after: Option<u64>,
        /// How many at most; [`PAGE_MAX`] without.
        #[serde(default)]
        limit: Option<u32>,
    },
    /// What happened in a case, as a list of [`HistoryLine`].
    History {
        /// The case.
        case: u64,
        /// Only events after this one.
        #[serde(default)]
        after: Option<u64>,
        /// How many at most; [`PAGE_MAX`] without.
        #[serde(default)]
        limit: Option<u32>,
    },
    /// All definitions, as a list of [`Reference`].
    Definitions {
        /// Only those after this one.
        #[serde(default)]
        after: Option<Reference>,
        /// How many at most; [`PAGE_MAX`] without.
        #[serde(default)]
        limit: Option<u32>,
    },
    /// A definition as it was written.
    Definition {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Its version; the highest without.
        #[serde(default)]
        version: Option<String>,
    },
    /// Work items that can be claimed, as a list of [`ItemView`].
    Items {
        /// Only those of this function.
        #[serde(default)]
        function: Option<String>,
        /// How many at most; [`PAGE_MAX`] without.
        #[serde(default)]
        limit: Option<u32>,
    },
    /// The group's limits.
    Limits,
}

/// The most lines of one answer.
pub const PAGE_MAX: u32 = 200;

/// What watchers are shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// Something for workers to do; about its function.
    WorkOffered {
        /// The work item.
        item: ItemId,
        /// The function.
        function: String,
    },
    /// A case emitted a CloudEvent; about its type.
    Published {
        /// The event.
        event: Value,
    },
    /// Something happened to a case or a task; about the case, as eight bytes.
    Lifecycle {
        /// The type that the specification gives it.
        kind: String,
        /// The case.
        case: u64,
        /// When, in milliseconds since 1970.
        at: u64,
        /// The data that the specification gives it.
        data: Value,
    },
}

/// A definition's name.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Reference {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// The answer to `start`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// The case.
    pub case: u64,
    /// Whether it was started now; it is that of an earlier start under the same key otherwise.
    pub new: bool,
}

/// One case in a list. It is stored as it is shown, so that a page costs no more than its lines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CaseLine {
    /// The case.
    pub case: u64,
    /// Its definition.
    pub definition: Reference,
    /// Its business key.
    pub key: Option<String>,
    /// The specification's status phase: `running`, `waiting`, `suspended`, `cancelled`, `faulted` or
    /// `completed`.
    pub status: String,
    /// When it started, in milliseconds since 1970.
    pub started_at: u64,
    /// When it ended, once it is over.
    pub ended_at: Option<u64>,
}

/// One case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CaseView {
    /// The case.
    pub case: u64,
    /// Its definition.
    pub definition: Reference,
    /// Its business key.
    pub key: Option<String>,
    /// The specification's status phase.
    pub status: String,
    /// When it started, in milliseconds since 1970.
    pub started_at: u64,
    /// When something last happened to it.
    pub updated_at: u64,
    /// Its input.
    pub input: Value,
    /// Its context.
    pub context: Value,
    /// What it made, once it is completed.
    pub output: Option<Value>,
    /// What ended it, once it is faulted.
    pub error: Option<Value>,
    /// The tasks that run, as JSON pointers.
    pub tasks: Vec<String>,
    /// Its open work items.
    pub items: Vec<ItemId>,
    /// The case that it is part of.
    pub parent: Option<u64>,
    /// Transitions it made.
    pub transitions: u64,
    /// Events in its history.
    pub events: u64,
}

/// One event of a history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HistoryLine {
    /// Its number, from 1.
    pub event: u64,
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// The entry's index in the group's log.
    pub index: u64,
    /// What happened, such as `task-completed`.
    pub what: String,
    /// The task, as a JSON pointer.
    pub task: Option<String>,
    /// More about it.
    pub more: Value,
}

/// A work item that was claimed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Claimed {
    /// The work item.
    pub item: ItemId,
    /// The claim's token: greater than that of every claim before. Nothing is accepted without it.
    pub token: u64,
    /// When the claim ends, in milliseconds since 1970.
    pub until: u64,
    /// The function.
    pub function: String,
    /// Its arguments.
    pub arguments: Value,
    /// The task it is for, as a JSON pointer.
    pub task: String,
}

/// A work item that can be claimed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ItemView {
    /// The work item.
    pub item: ItemId,
    /// The function.
    pub function: String,
    /// The task it is for, as a JSON pointer.
    pub task: String,
    /// When it was first offered, in milliseconds since 1970.
    pub offered_at: u64,
    /// How often it was claimed before.
    pub claims: u64,
}

/// Why a command or query is refused.
#[derive(Clone, Debug, PartialEq, Eq, Reject)]
pub enum Refused {
    /// The definition is faulty.
    #[reject(code = 200, message = "the definition has faults: {faults}")]
    BadDefinition {
        /// All of them, one for each line.
        faults: String,
    },
    /// Another definition has this name and version.
    #[reject(code = 201, message = "{definition} is defined otherwise already; give it another version")]
    AlreadyDefined {
        /// Its name.
        definition: String,
    },
    /// No definition has this name.
    #[reject(code = 202, message = "{definition} is not defined")]
    NotDefined {
        /// Its name.
        definition: String,
    },
    /// There is no such case.
    #[reject(code = 203, message = "there is no case {case}")]
    NoCase {
        /// What was asked for.
        case: String,
    },
    /// The key belongs to a case that was started otherwise.
    #[reject(
        code = 204,
        message = "the key `{key}` belongs to case {case}, which was started with another input"
    )]
    KeyTaken {
        /// The key.
        key: String,
        /// The case.
        case: u64,
    },
    /// The case is over.
    #[reject(code = 205, message = "case {case} is {status} already")]
    Over {
        /// The case.
        case: u64,
        /// How it ended.
        status: String,
    },
    /// The case is not as the command needs it.
    #[reject(code = 206, message = "case {case} is {status}")]
    WrongState {
        /// The case.
        case: u64,
        /// Where it stands.
        status: String,
    },
    /// There is no such work item: it is done, or its task was cancelled.
    #[reject(code = 207, message = "there is no work item {item}; it is done or nobody wants it any more")]
    NoItem {
        /// The work item.
        item: String,
    },
    /// The claim is over, or another worker has the work item.
    #[reject(code = 208, message = "token {token} no longer holds work item {item}")]
    StaleToken {
        /// The work item.
        item: String,
        /// The token.
        token: u64,
    },
    /// Something is out of its range.
    #[reject(code = 209, message = "{what} is {value}; choose {least} to {greatest}")]
    OutOfRange {
        /// What.
        what: String,
        /// Its value.
        value: u64,
        /// The least that is allowed.
        least: u64,
        /// The most that is allowed.
        greatest: u64,
    },
    /// The event is no CloudEvent.
    #[reject(code = 210, message = "{problem}")]
    BadEvent {
        /// What is wrong with it.
        problem: String,
    },
    /// A document is too large.
    #[reject(code = 211, message = "{what} has about {bytes} bytes, more than {most}")]
    TooLarge {
        /// What.
        what: String,
        /// Its size.
        bytes: usize,
        /// The bound.
        most: usize,
    },
}
