//! What can go wrong, and who may know: faults that every replica sees alike become rejections, the rest
//! halts this replica.
//!
//! Relies on the engine to keep the two apart by type. Promises that no text of the engine reaches an
//! outcome, since outcomes are compared between replicas. Knows no entry and no state.

use std::time::Duration;

use quorate_types::Rejection;
use wasmtime::{OutOfMemory, PoolConcurrencyLimitError, Trap};

/// The engine could not be set up on this machine.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// A setting is out of its range.
    #[error("runtime setting {name} is {value}; choose {least} to {greatest}")]
    Setting {
        /// Its name.
        name: &'static str,
        /// Its value.
        value: u64,
        /// The least value allowed.
        least: u64,
        /// The greatest value allowed.
        greatest: u64,
    },
    /// The engine refuses to start, for want of address space most often.
    #[error(
        "the component engine cannot start: {reason}; lower the setting instances or raise the limit on virtual memory"
    )]
    Engine {
        /// What the engine says.
        reason: String,
    },
    /// The watchdog's thread cannot start.
    #[error("the component watchdog cannot start: {0}; raise the limit on threads")]
    Watchdog(#[source] std::io::Error),
}

/// Why bytes are not a component that groups can run.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// More bytes than a component may have.
    #[error("the component has {found} bytes and may have {bound}; strip debug information and unused code")]
    TooLarge {
        /// Bytes found.
        found: u64,
        /// The most allowed.
        bound: u64,
    },
    /// Something that is not WebAssembly at all.
    #[error("these bytes are not a WebAssembly component; push the .wasm file that quorate-build wrote")]
    NotWasm,
    /// A module without its component wrapping.
    #[error(
        "this is a core WebAssembly module, not a component; build it with quorate-build, which wraps it"
    )]
    CoreModule,
    /// Bytes that begin like a component and go wrong.
    #[error("the component is malformed: {reason}; build it again and push the unchanged file")]
    Malformed {
        /// What is wrong, and where.
        reason: String,
    },
    /// A structural bound is passed.
    #[error(
        "the component has {found} {what} and may have {bound}; split it or leave out what it does not need"
    )]
    TooComplex {
        /// What there is too much of.
        what: &'static str,
        /// How much there is.
        found: u64,
        /// The most allowed.
        bound: u64,
    },
    /// An import that no state machine may use.
    #[error(
        "the component imports {import}, which no state machine may use: it would make replicas differ; build for \
         wasm32-unknown-unknown and use only quorate:machine@0.1.0"
    )]
    ForeignImport {
        /// Its full name.
        import: String,
    },
    /// An import of our package that this node does not offer.
    #[error(
        "the component imports {import}, which this node does not offer; build it against quorate:machine@0.1.0"
    )]
    UnknownImport {
        /// Its full name.
        import: String,
    },
    /// The component does not offer the interface of a state machine.
    #[error(
        "the component does not export {export}; build it against world state-machine or mergeable-state-machine of \
         quorate:machine@0.1.0"
    )]
    MissingExport {
        /// What is missing.
        export: String,
    },
    /// The component offers something that nobody would call.
    #[error(
        "the component exports {export}, which is not part of quorate:machine@0.1.0; remove it from its world"
    )]
    ForeignExport {
        /// Its full name.
        export: String,
    },
    /// An import or export of the right name has another type.
    #[error(
        "{item} does not have the type that quorate:machine@0.1.0 gives it: {reason}; build against that package"
    )]
    WrongType {
        /// The import or export.
        item: String,
        /// What differs.
        reason: String,
    },
    /// Compilation took longer than it may.
    #[error("the component took longer than {} s to compile; make it smaller or simpler", limit.as_secs())]
    TooSlow {
        /// The limit.
        limit: Duration,
    },
    /// An earlier component is still being compiled beyond its limit.
    #[error("a component that took too long is still being compiled; try again when it is done")]
    Busy,
    /// `describe` did not answer.
    #[error("the component's describe failed ({name}): {message}; describe must answer without any import")]
    Describe {
        /// The fault's name.
        name: &'static str,
        /// The fault in words.
        message: &'static str,
    },
    /// `describe` answered something that is not allowed.
    #[error("the component's descriptor has a bad {field}: {reason}; correct what describe returns")]
    Descriptor {
        /// Which part.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// This node cannot check components now.
    #[error("this node could not check the component: {reason}; try again or use another node")]
    Node {
        /// What is wrong here.
        reason: String,
    },
}

/// Why running stopped on this replica alone. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    /// Calls nested deeper than the native stack allows, which differs between machines.
    #[error(
        "the component nested its calls too deeply for this machine's stack; activate a corrected version"
    )]
    StackOverflow,
    /// The machine had no memory left for the component.
    #[error("this machine ran out of memory for the component ({reason}); free memory and restart the node")]
    HostMemory {
        /// What was refused.
        reason: String,
    },
    /// The component ran longer than any machine should need for its fuel.
    #[error("the component ran into the watchdog; see what slows this machine down and restart the node")]
    Watchdog,
    /// The engine failed in a way it should not.
    #[error("the component engine failed: {reason}; restart the node and report this")]
    Engine {
        /// What the engine says.
        reason: String,
    },
}

/// A limit of [`quorate_types::ComponentLimits`] other than fuel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    Memory,
    Output,
    HostCalls,
    Cursors,
    MigrationSteps,
}

/// What a component did wrong; the same on every replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("trapped")]
    Trapped,
    #[error("out of fuel")]
    OutOfFuel,
    #[error("over the limit on {0:?}")]
    OverLimit(Limit),
    #[error("answered against the contract")]
    BadAnswer,
}

impl Fault {
    fn code(self) -> u32 {
        match self {
            Self::Trapped => Rejection::TRAPPED,
            Self::OutOfFuel => Rejection::OUT_OF_FUEL,
            Self::OverLimit(_) => Rejection::OVER_LIMIT,
            Self::BadAnswer => Rejection::BAD_ANSWER,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Trapped => "trapped",
            Self::OutOfFuel => "out-of-fuel",
            Self::OverLimit(_) => "over-limit",
            Self::BadAnswer => "bad-answer",
        }
    }

    pub(crate) fn message(self) -> &'static str {
        match self {
            Self::Trapped => "the component trapped and left nothing behind; the nodes' logs say where",
            Self::OutOfFuel => {
                "more fuel was used than one command may use; ask for less at once or raise the limit"
            }
            Self::OverLimit(Limit::Memory) => "more memory was used than the group's limit allows",
            Self::OverLimit(Limit::Output) => "more was written, emitted and answered than one command may",
            Self::OverLimit(Limit::HostCalls) => {
                "more calls into the host were made than one command may make"
            }
            Self::OverLimit(Limit::Cursors) => "more cursors were open at once than one instance may hold",
            Self::OverLimit(Limit::MigrationSteps) => {
                "the migration took more steps than one migration may take"
            }
            Self::BadAnswer => "the component answered against its contract",
        }
    }

    pub(crate) fn rejection(self) -> Rejection {
        Rejection { code: self.code(), name: self.name().to_owned(), message: self.message().to_owned() }
    }
}

/// How a run ended badly.
#[derive(Debug)]
pub(crate) enum Failure {
    Fault(Fault),
    Halt(Halt),
}

/// The machine refused memory; carried through the engine as an error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NoHostMemory(pub(crate) String);

/// How the engine words that a component passed more to the host at once than it may. The type is private
/// to the engine, so the words must do; a test of the output limit fails if they change.
const TOO_MUCH_AT_ONCE: &str = "fuel allocated for hostcalls has been exhausted";

impl Failure {
    /// Sorts an error of instantiation. What is neither a trap nor ours is the machine's doing.
    pub(crate) fn of_start(error: &wasmtime::Error) -> Self {
        Self::known(error).unwrap_or_else(|| Self::Halt(Halt::Engine { reason: format!("{error:#}") }))
    }

    /// Sorts an error of a call. What is neither a trap nor ours is a value that breaks the component
    /// model's rules, such as text that is not UTF-8: the component's doing.
    pub(crate) fn of_call(error: &wasmtime::Error) -> Self {
        Self::known(error).unwrap_or_else(|| {
            let too_much = error.root_cause().to_string().contains(TOO_MUCH_AT_ONCE);
            Self::Fault(if too_much { Fault::OverLimit(Limit::Output) } else { Fault::BadAnswer })
        })
    }

    fn known(error: &wasmtime::Error) -> Option<Self> {
        if let Some(fault) = error.downcast_ref::<Fault>() {
            return Some(Self::Fault(*fault));
        }
        if let Some(trap) = error.downcast_ref::<Trap>() {
            return Some(match trap {
                Trap::StackOverflow => Self::Halt(Halt::StackOverflow),
                Trap::Interrupt => Self::Halt(Halt::Watchdog),
                Trap::OutOfFuel => Self::Fault(Fault::OutOfFuel),
                _ => Self::Fault(Fault::Trapped),
            });
        }
        let no_memory = error.is::<NoHostMemory>()
            || error.is::<OutOfMemory>()
            || error.is::<PoolConcurrencyLimitError>()
            || error.is::<std::io::Error>();
        no_memory.then(|| Self::Halt(Halt::HostMemory { reason: format!("{error:#}") }))
    }
}
