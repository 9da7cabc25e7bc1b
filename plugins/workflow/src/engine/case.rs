//! What is stored of a case.
//!
//! Relies on values and definitions. Promises that one value of the group's state holds everything a case
//! needs to go on, and that documents which no task will look at again are not kept. Knows no command.
//!
//! ```text
//! root frame 0 ── block ── task frame ── block ── task frame        each frame is a running task; a frame
//!                            └─ branch ── task frame                 without children waits for something
//! ```

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::definition::TaskId;
use crate::problem::Problem;
use crate::value::Value;

/// The number of a frame in its case, never given twice.
pub type FrameId = u32;
/// The workflow itself.
pub const ROOT: FrameId = 0;

/// Where a case stands, as far as it is listed by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It goes on: running, or waiting for something.
    Active,
    /// Somebody halted it.
    Suspended,
    /// It came to its end.
    Completed,
    /// An error that nothing caught ended it.
    Faulted,
    /// Somebody ended it.
    Cancelled,
}

impl Phase {
    /// Its number in the order of listings.
    #[must_use]
    pub fn number(self) -> u8 {
        self as u8
    }

    /// Whether nothing can happen to it any more.
    #[must_use]
    pub fn is_over(self) -> bool {
        matches!(self, Self::Completed | Self::Faulted | Self::Cancelled)
    }
}

/// A case.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Case {
    /// The number of its definition.
    #[serde(rename = "d")]
    pub definition: u32,
    /// A digest of its definition.
    #[serde(rename = "g")]
    pub digest: u64,
    /// Its business key.
    #[serde(rename = "k", default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Where it stands.
    #[serde(rename = "p")]
    pub phase: Phase,
    /// When it started, in milliseconds since 1970.
    #[serde(rename = "s")]
    pub started: u64,
    /// When something last happened to it.
    #[serde(rename = "u")]
    pub updated: u64,
    /// Its input as it came.
    #[serde(rename = "i")]
    pub input: Value,
    /// Its context.
    #[serde(rename = "c")]
    pub context: Value,
    /// What it made, once it is completed.
    #[serde(rename = "o", default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// What ended it, once it is faulted.
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Problem>,
    /// The case and the frame that wait for it.
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<(u64, FrameId)>,
    /// How many cases are around it.
    #[serde(rename = "n", default)]
    pub depth: u8,
    /// Its running tasks.
    #[serde(rename = "f")]
    pub frames: BTreeMap<FrameId, Frame>,
    /// The next frame's number.
    #[serde(rename = "x")]
    pub next_frame: FrameId,
    /// What is to be done.
    #[serde(rename = "q", default, skip_serializing_if = "VecDeque::is_empty")]
    pub queue: VecDeque<Action>,
    /// Signals that came before anything listened.
    #[serde(rename = "m", default, skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<Value>,
    /// Events in its history.
    #[serde(rename = "h")]
    pub history: u64,
    /// Transitions it made.
    #[serde(rename = "t")]
    pub transitions: u64,
}

/// A running task.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Frame {
    /// The task; none for the workflow itself.
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
    /// The frame it runs in.
    #[serde(rename = "p", default)]
    pub parent: FrameId,
    /// Its place in its list, or its branch.
    #[serde(rename = "l", default)]
    pub slot: u16,
    /// When it started, in milliseconds since 1970.
    #[serde(rename = "s")]
    pub started: u64,
    /// Its input, if something will look at it again.
    #[serde(rename = "i", default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    /// Its input before it was changed, if something will look at it again.
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<Value>,
    /// Whether a timer limits how long it may take.
    #[serde(rename = "d", default, skip_serializing_if = "std::ops::Not::not")]
    pub limited: bool,
    /// What it does.
    #[serde(rename = "k")]
    pub state: State,
}

/// What a running task does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum State {
    /// Runs a list.
    #[serde(rename = "b")]
    Block,
    /// Runs a list for each item.
    #[serde(rename = "e")]
    Each {
        /// All items, an array.
        #[serde(rename = "i")]
        items: Value,
        /// The item it is at.
        #[serde(rename = "n")]
        index: u32,
    },
    /// Runs branches, which leave their outputs here.
    #[serde(rename = "f")]
    Fork(Vec<Branch>),
    /// Runs a list whose errors it may catch.
    #[serde(rename = "y")]
    Trying(Attempts),
    /// Waits before it tries again.
    #[serde(rename = "z")]
    Delayed(Attempts),
    /// Runs a list because of an error.
    #[serde(rename = "c")]
    Catching(Value),
    /// Waits for a time.
    #[serde(rename = "w")]
    Waiting,
    /// Waits for a worker.
    #[serde(rename = "i")]
    Item,
    /// Waits for a case.
    #[serde(rename = "s")]
    Child(u64),
    /// Waits for events.
    #[serde(rename = "l")]
    Listening(Box<Listening>),
    /// Runs a function or an extended task.
    #[serde(rename = "v")]
    Inner,
    /// Runs a task whose extension does not apply.
    #[serde(rename = "nx")]
    Unextended,
    /// Runs what an extension does before.
    #[serde(rename = "x")]
    Before,
    /// Runs what an extension does after, and holds the extended task's output.
    #[serde(rename = "a")]
    After(Value),
}

/// A branch of a fork. Not an option, since null is an output as good as any and would be lost.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub enum Branch {
    /// It runs.
    #[default]
    #[serde(rename = "r")]
    Running,
    /// It made this.
    #[serde(rename = "d")]
    Done(Value),
}

/// How often and how long something was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempts {
    /// Retries so far.
    #[serde(rename = "n")]
    pub retries: u32,
    /// When the first attempt started.
    #[serde(rename = "s")]
    pub since: u64,
    /// Whether a timer limits this attempt.
    #[serde(rename = "l", default)]
    pub limited: bool,
}

/// What a listening task has heard.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Listening {
    /// What it consumed.
    #[serde(rename = "c", default)]
    pub consumed: Vec<Value>,
    /// For each filter of `all`, whether its event came.
    #[serde(rename = "m", default)]
    pub matched: Vec<bool>,
    /// The same for the events that end it.
    #[serde(rename = "u", default)]
    pub until: Vec<bool>,
    /// Values that events are correlated by.
    #[serde(rename = "k", default)]
    pub keys: BTreeMap<String, Value>,
    /// With `foreach`: how many of the consumed were processed.
    #[serde(rename = "n", default)]
    pub processed: u32,
    /// Whether the next one is being processed.
    #[serde(rename = "b", default)]
    pub busy: bool,
    /// What processing made of them.
    #[serde(rename = "o", default)]
    pub outputs: Vec<Value>,
    /// Whether it has heard enough.
    #[serde(rename = "e", default)]
    pub ended: bool,
}

/// Something to be done in a case.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Action {
    /// Start a task.
    #[serde(rename = "s")]
    Start {
        /// The frame to run it in.
        #[serde(rename = "p")]
        parent: FrameId,
        /// Its place there.
        #[serde(rename = "l")]
        slot: u16,
        /// The task.
        #[serde(rename = "t")]
        task: TaskId,
        /// Its input.
        #[serde(rename = "i")]
        input: Value,
    },
    /// A task made this.
    #[serde(rename = "d")]
    Done(FrameId, Value),
    /// A task raised this.
    #[serde(rename = "r")]
    Raise(FrameId, Problem),
    /// An attempt took too long.
    #[serde(rename = "a")]
    AttemptOver(FrameId),
    /// It is time to try again.
    #[serde(rename = "y")]
    Retry(FrameId),
    /// An event came; whether it is held if nothing listens.
    #[serde(rename = "e")]
    Signal(Value, bool),
    /// The whole case takes too long.
    #[serde(rename = "o")]
    Timeout,
}

/// One event of a history: what, which task, which frame, and more about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Happened(pub What, pub Option<TaskId>, pub FrameId, pub Value);

/// What can happen in a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// The case started.
    CaseStarted,
    /// The case was halted.
    CaseSuspended,
    /// The case goes on.
    CaseResumed,
    /// The case completed.
    CaseCompleted,
    /// The case faulted.
    CaseFaulted,
    /// The case was cancelled.
    CaseCancelled,
    /// A task started.
    TaskStarted,
    /// A task's condition did not hold.
    TaskSkipped,
    /// A task completed.
    TaskCompleted,
    /// A task raised an error.
    TaskFaulted,
    /// A task's error was caught.
    ErrorCaught,
    /// A task is tried again.
    TaskRetried,
    /// A task was cancelled.
    TaskCancelled,
    /// A work item was offered.
    WorkOffered,
    /// An event was emitted.
    EventEmitted,
    /// An event was consumed.
    EventConsumed,
    /// A signal is held until something listens.
    SignalHeld,
    /// A case within this one started.
    ChildStarted,
}

/// Events of a history that one command caused.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Chapter {
    /// When, in milliseconds since 1970.
    #[serde(rename = "t")]
    pub at: u64,
    /// The entry's index in the group's log.
    #[serde(rename = "i")]
    pub index: u64,
    /// What happened, in order.
    #[serde(rename = "e")]
    pub events: Vec<Happened>,
}
