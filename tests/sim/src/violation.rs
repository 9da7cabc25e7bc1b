//! What must never happen.
//!
//! Relies on nothing. Promises one name per invariant, stable for programs. Knows no check.

use std::fmt;

/// An invariant of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// At most one leader in a term.
    ElectionSafety,
    /// A leader never replaces an entry of its own log.
    LeaderAppendOnly,
    /// Logs that agree on one entry agree on all before it.
    LogMatching,
    /// A committed entry is in the log of every leader of a later term.
    LeaderCompleteness,
    /// Replicas commit the same entry at the same index.
    StateMachineSafety,
    /// No replica that lacks a committed entry can be elected.
    CommitIsSafe,
    /// A vote, candidacy or acknowledgement leaves only after what it promises is durable.
    PersistBeforeSend,
    /// A replica votes for one candidate in a term and keeps what it acknowledged to its leader.
    PromiseKept,
    /// A log that is opened again holds what was flushed and nothing that was not written.
    Durability,
    /// An acknowledged command is part of the history for ever.
    AcknowledgedSurvives,
    /// A command counts once, and its outcome is that of its place in the history.
    ExactlyOnce,
    /// A linearizable query sees everything acknowledged before it was asked.
    FreshReads,
    /// Equal index, equal digest.
    EqualDigests,
    /// No replica is fenced, halted or unable to start.
    NoFence,
    /// A replica votes only for a block that its leader may propose, after a certificate that allows it.
    VoteIsSafe,
    /// Nobody believes a signature that was not made, or a certificate without a quorum.
    NoForgery,
    /// Nothing panics.
    NoPanic,
}

impl Invariant {
    /// The name for programs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ElectionSafety => "election-safety",
            Self::LeaderAppendOnly => "leader-append-only",
            Self::LogMatching => "log-matching",
            Self::LeaderCompleteness => "leader-completeness",
            Self::StateMachineSafety => "state-machine-safety",
            Self::CommitIsSafe => "commit-is-safe",
            Self::PersistBeforeSend => "persist-before-send",
            Self::PromiseKept => "promise-kept",
            Self::Durability => "durability",
            Self::AcknowledgedSurvives => "acknowledged-survives",
            Self::ExactlyOnce => "exactly-once",
            Self::FreshReads => "fresh-reads",
            Self::EqualDigests => "equal-digests",
            Self::NoFence => "no-fence",
            Self::VoteIsSafe => "vote-is-safe",
            Self::NoForgery => "no-forgery",
            Self::NoPanic => "no-panic",
        }
    }
}

/// An invariant that was found broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", invariant.name())]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// What was seen.
    pub detail: String,
}

impl Violation {
    /// A violation with what was seen.
    #[must_use]
    pub fn new(invariant: Invariant, detail: fmt::Arguments<'_>) -> Self {
        Self { invariant, detail: detail.to_string() }
    }
}

/// Nothing, or what was found broken.
pub type Checked<T = ()> = Result<T, Violation>;

/// Fails with a violation unless a condition holds.
macro_rules! hold {
    ($condition:expr, $invariant:ident, $($detail:tt)+) => {
        if !$condition {
            return Err($crate::violation::Violation::new(
                $crate::violation::Invariant::$invariant,
                format_args!($($detail)+),
            ));
        }
    };
}
pub(crate) use hold;
