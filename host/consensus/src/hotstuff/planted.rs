//! Rules broken on purpose, so that tests and the simulator can show that they would notice. Compiled only
//! for tests and with the feature `planted`.
//!
//! Relies on each run having a thread of its own. Promises that nothing is broken unless [`break_rule`] was
//! called on this thread. Knows no simulator.

use std::cell::Cell;

use quorate_types::{EntryKind, View};

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
    /// Empty blocks are voted for by the same rules as others.
    OneKindOfVote,
    /// The genesis is extended in the first view, and later only as the rules allow.
    GenesisIsNoCertificate,
    /// A certificate is of this epoch of this group.
    CertificatesOfThisGroup,
    /// Blocks of a peer are taken only as far as a certificate covers them.
    BlocksAreCertified,
    /// Only its leader proposes in a view.
    LeaderProposes,
    /// A quorum of timeouts makes a certificate.
    TimeoutCertificates,
    /// A timeout is sent again until the view is over.
    TimeoutsAreRepeated,
    /// A snapshot is fetched only if f + 1 members offer the same, and is to hold just that.
    OffersAreAlike,
}

thread_local! {
    static BROKEN: Cell<Option<RuleBroken>> = const { Cell::new(None) };
}

/// Breaks a rule for all replicas stepped on this thread, or none from now on.
pub fn break_rule(rule: Option<RuleBroken>) {
    BROKEN.set(rule);
}

/// Whether a broken rule lets a block extend what it must not.
pub(super) fn may_extend(header: &super::Header, qc_view: View, is_after_timeout: bool) -> bool {
    qc_view < header.view()
        && match BROKEN.get() {
            Some(RuleBroken::ExtendHighest) => is_after_timeout,
            Some(RuleBroken::OneKindOfVote) => header.kind == EntryKind::Empty,
            Some(RuleBroken::GenesisIsNoCertificate) => qc_view == View::ZERO,
            _ => false,
        }
}

pub(super) fn is_broken(rule: RuleBroken) -> bool {
    BROKEN.get() == Some(rule)
}
