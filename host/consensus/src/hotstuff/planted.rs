//! Rules broken on purpose, so that tests and the simulator can show that they would notice. Compiled only
//! for tests and with the feature `planted`.
//!
//! Relies on each run having a thread of its own. Promises that nothing is broken unless [`break_rule`] was
//! called on this thread. Knows no simulator.

use std::cell::Cell;

/// A rule of the protocol that can be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleBroken {
    /// Only certified blocks of consecutive views commit.
    CommitConsecutiveViews,
    /// A timeout raises the last voted view.
    TimeoutRaisesLastVoted,
    /// One vote a view.
    VoteOncePerView,
    /// Nothing but a commit resets the back-off.
    BackOffUntilCommit,
    /// After a timeout, a block extends the highest certificate that a signer knew.
    ExtendHighest,
}

thread_local! {
    static BROKEN: Cell<Option<RuleBroken>> = const { Cell::new(None) };
}

/// Breaks a rule for all replicas stepped on this thread, or none from now on.
pub fn break_rule(rule: Option<RuleBroken>) {
    BROKEN.set(rule);
}

pub(super) fn is_broken(rule: RuleBroken) -> bool {
    BROKEN.get() == Some(rule)
}
