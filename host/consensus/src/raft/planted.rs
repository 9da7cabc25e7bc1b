//! Rules broken on purpose, so that the simulator can show that it would notice. Compiled only with the
//! feature `planted`.
//!
//! Relies on each run of the simulator having a thread of its own. Promises that nothing is broken unless
//! [`break_rule`] was called on this thread. Knows no simulator.

use std::cell::Cell;

use quorate_types::{Position, Term};

use super::Raft;

/// A rule of the protocol that can be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleBroken {
    /// A log is cut only where it conflicts with the leader's.
    TruncateOnlyAtConflict,
    /// Replicas are counted only for entries of the leader's own term.
    CommitOwnTermOnly,
}

thread_local! {
    static BROKEN: Cell<Option<RuleBroken>> = const { Cell::new(None) };
}

/// Breaks a rule for all replicas stepped on this thread, or none from now on.
pub fn break_rule(rule: Option<RuleBroken>) {
    BROKEN.set(rule);
}

/// The term that the rule of commitment is asked about: the leader's own, whatever the entry's is, while
/// that rule is broken.
pub(super) fn term_counted(term_at: Option<Term>, current: Term) -> Option<Term> {
    match BROKEN.get() {
        Some(RuleBroken::CommitOwnTermOnly) => term_at.map(|_| current),
        _ => term_at,
    }
}

impl Raft {
    /// Cuts everything after `prev` that is not committed, conflict or not, while that rule is broken.
    pub(super) fn cut_without_conflict(&mut self, prev: Position) {
        let from = prev.index.max(self.commit).next();
        if BROKEN.get() == Some(RuleBroken::TruncateOnlyAtConflict) && from <= self.log.last().index {
            self.log.truncate_from(from);
            self.flushes.truncate_from(from);
        }
    }
}
