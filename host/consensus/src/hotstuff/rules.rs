//! The safety rules of HotStuff, each a question about values, and nothing else.
//!
//! Relies on `types`. Promises that every decision on which safety rests is made here and in one place.
//! Knows no replica, no message and no signature but what it is asked about.

use std::time::Duration;

use quorate_types::{Digest, EntryKind, HlcTimestamp, LogIndex, Position, View};

use super::block::Header;

/// How many certified blocks of consecutive views commit the first of them; fixed when a group is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CommitRule {
    /// Two: the rule of Jolteon and HotStuff-2 with timeout certificates.
    #[default]
    TwoChain,
    /// Three: the rule of the paper (Yin et al. 2019 §5), for comparison.
    ThreeChain,
}

/// What a timeout certificate says to the rule of voting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TimedOut {
    /// The view that was given up.
    pub(super) view: View,
    /// The highest view of a certificate that any signer knew.
    pub(super) high_view: View,
}

/// Whether a block may be voted for: its view is above every one voted in or given up, and it extends either
/// the certificate of the view before, or, after a timeout of that view, a certificate at least as high as
/// every one that a signer of the timeout knew.
pub(super) fn may_vote(view: View, last_voted: View, qc_view: View, timed_out: Option<TimedOut>) -> bool {
    view > last_voted && extends(view, qc_view, timed_out)
}

/// The second half of [`may_vote`], which binds the proposer too.
pub(super) fn extends(view: View, qc_view: View, timed_out: Option<TimedOut>) -> bool {
    let after_timeout =
        timed_out.is_some_and(|timed_out| timed_out.view.next() == view && qc_view >= timed_out.high_view);
    qc_view < view && (qc_view.next() == view || after_timeout)
}

/// Whether a view may be given up: it was not, with another certificate, and no later one was voted in.
pub(super) fn may_time_out(view: View, last_voted: View) -> bool {
    view >= last_voted && view > View::ZERO
}

/// The last voted view after a timeout of `view`: nothing up to there is voted for any more.
pub(super) fn last_voted_after_timeout(last_voted: View, view: View) -> View {
    last_voted.max(view)
}

/// Whether a leader may propose: never twice in a view, and never in one it voted in or gave up.
pub(super) fn may_propose(view: View, proposed: View, last_voted: View) -> bool {
    view > proposed && view > last_voted
}

/// Which block commits once the last one of `chain` is certified; `chain` is given from that one backwards,
/// parent after child. A certified block's ancestors are certified: honest voters saw the certificate.
pub(super) fn commits<'a>(
    rule: CommitRule,
    chain: impl IntoIterator<Item = &'a Header>,
) -> Option<&'a Header> {
    let mut chain = chain.into_iter();
    let mut last = chain.next()?;
    let steps = match rule {
        CommitRule::TwoChain => 1,
        CommitRule::ThreeChain => 2,
    };
    for _ in 0..steps {
        let parent = chain.next()?;
        if !are_consecutive(parent.view(), last.view()) {
            return None;
        }
        last = parent;
    }
    Some(last)
}

fn are_consecutive(parent: View, child: View) -> bool {
    #[cfg(any(test, feature = "planted"))]
    if super::planted::is_broken(super::planted::RuleBroken::CommitConsecutiveViews) {
        return true;
    }
    parent.next() == child
}

/// Whether a block can stand directly after another: next index, same epoch, later view, greater stamp, and
/// a body only where its kind has one.
pub(super) fn follows(parent: &Header, parent_digest: Digest, child: &Header) -> bool {
    child.parent == parent_digest && stands_after(parent.position, parent.hlc, child.position, child.hlc)
}

/// [`follows`] for what a log entry says of itself.
pub(super) fn stands_after(
    parent: Position,
    parent_hlc: HlcTimestamp,
    child: Position,
    hlc: HlcTimestamp,
) -> bool {
    child.epoch == parent.epoch
        && child.index == parent.index.next()
        && child.term > parent.term
        && hlc > parent_hlc
}

/// Whether a block may carry this; stops come with epochs.
pub(super) fn is_kind_allowed(kind: EntryKind) -> bool {
    matches!(kind, EntryKind::Empty | EntryKind::Batch | EntryKind::Frames)
}

/// Whether a stamp lies no further ahead of the own wall clock than allowed.
pub(super) fn is_stamp_near(stamp: HlcTimestamp, wall: HlcTimestamp, skew_max: Duration) -> bool {
    let skew_ms = u64::try_from(skew_max.as_millis()).unwrap_or(u64::MAX);
    stamp.unix_ms() <= wall.unix_ms().saturating_add(skew_ms)
}

/// Whether a log may be turned to another branch after `fork`: never below what is committed.
pub(super) fn may_fork(fork: LogIndex, commit: LogIndex) -> bool {
    fork >= commit
}

/// Whether so many timeouts of a view prove that an honest replica gave it up.
pub(super) fn is_one_honest(count: usize, faults: usize) -> bool {
    count > faults
}

#[cfg(test)]
mod tests {
    use quorate_types::{Epoch, Term};

    use super::*;

    fn header(view: u64, index: u64) -> Header {
        Header {
            parent: Digest::default(),
            tenure: View(1),
            position: Position { epoch: Epoch(1), term: Term(view), index: LogIndex(index) },
            hlc: HlcTimestamp(index),
            kind: EntryKind::Empty,
            body: Digest::default(),
        }
    }

    fn timed_out(view: u64, high_view: u64) -> Option<TimedOut> {
        Some(TimedOut { view: View(view), high_view: View(high_view) })
    }

    #[test]
    fn a_vote_needs_a_new_view_and_the_certificate_of_the_one_before() {
        assert!(may_vote(View(5), View(4), View(4), None));
        assert!(!may_vote(View(5), View(5), View(4), None));
        assert!(!may_vote(View(5), View(9), View(4), None));
        assert!(!may_vote(View(5), View(4), View(3), None));
        assert!(!may_vote(View(5), View(4), View(5), None));
        assert!(!may_vote(View(5), View(4), View(6), timed_out(4, 2)));
    }

    #[test]
    fn after_a_timeout_a_vote_needs_a_certificate_as_high_as_every_signers() {
        assert!(may_vote(View(5), View(4), View(3), timed_out(4, 3)));
        assert!(may_vote(View(5), View(4), View(3), timed_out(4, 2)));
        assert!(!may_vote(View(5), View(4), View(2), timed_out(4, 3)));
        assert!(!may_vote(View(5), View(4), View(3), timed_out(3, 3)));
        assert!(!may_vote(View(5), View(4), View(3), timed_out(5, 3)));
        assert!(!may_vote(View(5), View(5), View(3), timed_out(4, 3)));
    }

    #[test]
    fn a_timeout_raises_the_last_voted_view_and_never_lowers_it() {
        assert_eq!(last_voted_after_timeout(View(4), View(5)), View(5));
        assert_eq!(last_voted_after_timeout(View(6), View(5)), View(6));
        assert!(may_time_out(View(5), View(5)) && may_time_out(View(5), View(4)));
        assert!(!may_time_out(View(5), View(6)) && !may_time_out(View(0), View(0)));
    }

    #[test]
    fn one_proposal_a_view_and_none_in_a_view_given_up() {
        assert!(may_propose(View(5), View(4), View(4)));
        assert!(!may_propose(View(5), View(5), View(4)));
        assert!(!may_propose(View(5), View(4), View(5)));
    }

    #[test]
    fn only_certified_blocks_of_consecutive_views_commit() {
        let commits = |rule, views: [u64; 3]| {
            let chain = [header(views[2], 3), header(views[1], 2), header(views[0], 1)];
            super::commits(rule, chain.iter()).map(|header| header.view().0)
        };
        assert_eq!(commits(CommitRule::TwoChain, [1, 4, 5]), Some(4));
        assert_eq!(commits(CommitRule::TwoChain, [3, 4, 6]), None);
        assert_eq!(commits(CommitRule::ThreeChain, [3, 4, 5]), Some(3));
        assert_eq!(commits(CommitRule::ThreeChain, [1, 4, 5]), None);
        assert_eq!(commits(CommitRule::ThreeChain, [3, 4, 6]), None);
        assert_eq!(super::commits(CommitRule::TwoChain, [&header(1, 1)]), None);
    }

    #[test]
    fn blocks_follow_by_digest_index_view_and_stamp() {
        let (parent, digest) = (header(4, 4), Digest([7; 32]));
        let child = Header { parent: digest, ..header(5, 5) };
        assert!(follows(&parent, digest, &child));
        assert!(!follows(&parent, Digest([8; 32]), &child));
        assert!(!follows(&parent, digest, &Header { parent: digest, ..header(5, 6) }));
        assert!(!follows(&parent, digest, &Header { parent: digest, ..header(4, 5) }));
        assert!(!follows(&parent, digest, &Header { hlc: parent.hlc, ..child }));
        let mut other_epoch = child;
        other_epoch.position.epoch = Epoch(2);
        assert!(!follows(&parent, digest, &other_epoch));
    }

    #[test]
    fn stops_strangers_stamps_and_forks_below_the_commit_are_refused() {
        let allowed = [EntryKind::Empty, EntryKind::Batch, EntryKind::Frames];
        assert!(allowed.into_iter().all(is_kind_allowed));
        assert!(!is_kind_allowed(EntryKind::Stop));
        let wall = HlcTimestamp::from_unix_ms(1_000);
        let skew = Duration::from_millis(50);
        assert!(is_stamp_near(HlcTimestamp::from_unix_ms(1_050), wall, skew));
        assert!(!is_stamp_near(HlcTimestamp::from_unix_ms(1_051), wall, skew));
        assert!(may_fork(LogIndex(5), LogIndex(5)) && !may_fork(LogIndex(4), LogIndex(5)));
        assert!(is_one_honest(2, 1) && !is_one_honest(1, 1));
    }
}
