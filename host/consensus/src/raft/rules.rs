//! The safety rules of Raft, each a question about values, and nothing else.
//!
//! Relies on `types`. Promises that every decision on which safety rests is made here and in one place.
//! Knows no replica, no message and no time but what it is asked about.

use std::time::Duration;

use quorate_types::{Entry, HlcTimestamp, LogIndex, NodeId, Position, Term, Time};

/// Whether a candidate's log is at least as far as a voter's: term before index (Ongaro thesis §3.6.1).
pub(super) fn is_up_to_date(candidate: Position, own: Position) -> bool {
    candidate >= own
}

/// Whether a vote in the current term may go to the candidate: one vote a term, kept across any step
/// down within it.
pub(super) fn may_vote(
    vote: Option<NodeId>,
    candidate: NodeId,
    candidate_last: Position,
    own_last: Position,
) -> bool {
    vote.is_none_or(|already| already == candidate) && is_up_to_date(candidate_last, own_last)
}

/// Whether a pre-vote may be granted: the asker could win a term that nobody here is in yet.
pub(super) fn may_pre_vote(
    prospective: Term,
    current: Term,
    asker_last: Position,
    own_last: Position,
) -> bool {
    prospective > current && is_up_to_date(asker_last, own_last)
}

/// Whether a live leader protects its term: requests for votes are ignored so soon after it was heard.
pub(super) fn is_leader_fresh(now: Time, heard: Time, election_timeout: Duration) -> bool {
    now.since(heard) < election_timeout
}

/// Whether so many voters decide.
pub(super) fn is_quorum(count: usize, quorum: usize) -> bool {
    count >= quorum
}

/// The greatest index that `quorum` of the given ones reach; zero if there are fewer.
pub(super) fn quorum_index(matched: &mut [LogIndex], quorum: usize) -> LogIndex {
    if quorum == 0 || matched.len() < quorum {
        return LogIndex::ZERO;
    }
    let (_, reached, _) = matched.select_nth_unstable_by(quorum - 1, |left, right| right.cmp(left));
    *reached
}

/// Whether a leader may commit up to an index that a quorum stores: only if the entry there is of its
/// own term (Ongaro thesis §3.6.2); earlier ones follow with it.
pub(super) fn may_commit(stored: LogIndex, commit: LogIndex, term_at: Option<Term>, current: Term) -> bool {
    stored > commit && term_at == Some(current)
}

/// What a follower may commit: what the leader committed, but not beyond what was found to agree.
pub(super) fn follower_commit(leader_commit: LogIndex, matched: LogIndex) -> LogIndex {
    leader_commit.min(matched)
}

/// Whether the log may be cut at a conflict: never where it is committed.
pub(super) fn may_truncate(conflict: LogIndex, commit: LogIndex) -> bool {
    conflict > commit
}

/// Whether an entry can stand directly after another: next index, no earlier epoch or term, greater stamp.
pub(super) fn follows(
    previous: Position,
    previous_hlc: HlcTimestamp,
    next: Position,
    next_hlc: HlcTimestamp,
) -> bool {
    next.index == previous.index.next()
        && (next.epoch, next.term) >= (previous.epoch, previous.term)
        && next_hlc > previous_hlc
}

/// Whether entries can stand after `previous`, one after the other, in a log of the leader's term.
pub(super) fn is_run(previous: Position, entries: &[Entry], leader_term: Term) -> bool {
    let mut before = (previous, None);
    entries.iter().all(|entry| {
        let hlc = before.1.unwrap_or(HlcTimestamp(entry.hlc.0.saturating_sub(1)));
        let stands = follows(before.0, hlc, entry.position, entry.hlc) && entry.position.term <= leader_term;
        before = (entry.position, Some(entry.hlc));
        stands
    })
}

/// Whether an entry's stamp lies no further ahead of the own wall clock than allowed.
pub(super) fn is_stamp_near(stamp: HlcTimestamp, wall: HlcTimestamp, skew_max: Duration) -> bool {
    let skew_ms = u64::try_from(skew_max.as_millis()).unwrap_or(u64::MAX);
    stamp.unix_ms() <= wall.unix_ms().saturating_add(skew_ms)
}

/// Whether reads can be confirmed: the leader committed in its own term, so it knows the commit index
/// (Ongaro thesis §6.4).
pub(super) fn may_confirm_reads(term_at_commit: Option<Term>, current: Term) -> bool {
    term_at_commit == Some(current)
}

/// Whether the right to lead the first term may be claimed: never used, and nothing happened yet.
pub(super) fn may_claim_first_term(first_leader: bool, ever_persisted: bool, last: LogIndex) -> bool {
    first_leader && !ever_persisted && last == LogIndex::ZERO
}

/// Whether a replica that is asked to take over may campaign: only with all of its log durable.
pub(super) fn may_take_over(durable: LogIndex, last: LogIndex) -> bool {
    durable == last
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use quorate_types::{EntryKind, Epoch};

    use super::*;

    fn at(term: u64, index: u64) -> Position {
        Position { epoch: Epoch(1), term: Term(term), index: LogIndex(index) }
    }

    fn entry(term: u64, index: u64, hlc: u64) -> Entry {
        Entry {
            position: at(term, index),
            hlc: HlcTimestamp(hlc),
            kind: EntryKind::Batch,
            body: Bytes::new(),
        }
    }

    #[test]
    fn a_log_of_a_later_term_wins_over_a_longer_one() {
        assert!(is_up_to_date(at(3, 5), at(2, 9)));
        assert!(is_up_to_date(at(3, 5), at(3, 5)));
        assert!(!is_up_to_date(at(2, 9), at(3, 5)));
        assert!(!is_up_to_date(at(3, 4), at(3, 5)));
    }

    #[test]
    fn one_vote_a_term_for_a_log_that_is_far_enough() {
        let (one, two) = (NodeId(1), NodeId(2));
        assert!(may_vote(None, one, at(1, 1), at(1, 1)));
        assert!(may_vote(Some(one), one, at(1, 1), at(1, 1)));
        assert!(!may_vote(Some(two), one, at(1, 1), at(1, 1)));
        assert!(!may_vote(None, one, at(1, 0), at(1, 1)));
    }

    #[test]
    fn a_pre_vote_needs_a_later_term_and_a_log_that_is_far_enough() {
        assert!(may_pre_vote(Term(3), Term(2), at(1, 1), at(1, 1)));
        assert!(!may_pre_vote(Term(2), Term(2), at(1, 1), at(1, 1)));
        assert!(!may_pre_vote(Term(3), Term(2), at(1, 0), at(1, 1)));
    }

    #[test]
    fn a_leader_is_fresh_for_one_election_timeout() {
        let timeout = Duration::from_micros(100);
        assert!(is_leader_fresh(Time(199), Time(100), timeout));
        assert!(!is_leader_fresh(Time(200), Time(100), timeout));
    }

    #[test]
    fn a_quorum_is_reached_exactly() {
        assert!(is_quorum(2, 2) && is_quorum(3, 2));
        assert!(!is_quorum(1, 2));
    }

    #[test]
    fn the_quorum_index_is_what_a_quorum_reaches() {
        let of = |indices: &[u64], quorum| {
            quorum_index(&mut indices.iter().copied().map(LogIndex).collect::<Vec<_>>(), quorum)
        };
        assert_eq!(of(&[7, 3, 5], 2), LogIndex(5));
        assert_eq!(of(&[7, 3, 5], 3), LogIndex(3));
        assert_eq!(of(&[9, 0, 0, 0], 3), LogIndex(0));
        assert_eq!(of(&[4], 1), LogIndex(4));
        assert_eq!(of(&[4], 2), LogIndex(0));
    }

    #[test]
    fn only_entries_of_the_own_term_are_committed_by_count() {
        assert!(may_commit(LogIndex(5), LogIndex(4), Some(Term(3)), Term(3)));
        assert!(!may_commit(LogIndex(5), LogIndex(4), Some(Term(2)), Term(3)));
        assert!(!may_commit(LogIndex(4), LogIndex(4), Some(Term(3)), Term(3)));
        assert!(!may_commit(LogIndex(5), LogIndex(4), None, Term(3)));
    }

    #[test]
    fn a_follower_commits_no_further_than_its_log_agrees() {
        assert_eq!(follower_commit(LogIndex(5), LogIndex(9)), LogIndex(5));
        assert_eq!(follower_commit(LogIndex(9), LogIndex(5)), LogIndex(5));
    }

    #[test]
    fn what_is_committed_is_never_cut() {
        assert!(may_truncate(LogIndex(6), LogIndex(5)));
        assert!(!may_truncate(LogIndex(5), LogIndex(5)));
    }

    #[test]
    fn entries_follow_by_index_term_and_stamp() {
        let before = (at(2, 5), HlcTimestamp(50));
        assert!(follows(before.0, before.1, at(2, 6), HlcTimestamp(51)));
        assert!(follows(before.0, before.1, at(4, 6), HlcTimestamp(51)));
        assert!(!follows(before.0, before.1, at(2, 7), HlcTimestamp(51)));
        assert!(!follows(before.0, before.1, at(1, 6), HlcTimestamp(51)));
        assert!(!follows(before.0, before.1, at(2, 6), HlcTimestamp(50)));
        let later_epoch = Position { epoch: Epoch(2), ..at(1, 6) };
        assert!(follows(before.0, before.1, later_epoch, HlcTimestamp(51)));
    }

    #[test]
    fn a_run_has_no_gap_no_step_back_and_nothing_of_the_future() {
        let run = [entry(2, 6, 60), entry(3, 7, 70)];
        assert!(is_run(at(2, 5), &run, Term(3)));
        assert!(is_run(at(2, 5), &[], Term(3)));
        assert!(!is_run(at(2, 4), &run, Term(3)));
        assert!(!is_run(at(3, 5), &run, Term(3)));
        assert!(!is_run(at(2, 5), &run, Term(2)));
        assert!(!is_run(at(2, 5), &[entry(2, 6, 60), entry(3, 7, 60)], Term(3)));
        assert!(!is_run(at(2, 5), &[entry(2, 6, 60), entry(3, 8, 70)], Term(3)));
    }

    #[test]
    fn a_stamp_may_lie_ahead_by_the_greatest_skew_and_no_more() {
        let wall = HlcTimestamp::from_unix_ms(1_000);
        let skew = Duration::from_millis(50);
        assert!(is_stamp_near(HlcTimestamp::from_unix_ms(1_050), wall, skew));
        assert!(is_stamp_near(HlcTimestamp(0), wall, skew));
        assert!(!is_stamp_near(HlcTimestamp::from_unix_ms(1_051), wall, skew));
    }

    #[test]
    fn reads_need_a_commit_in_the_own_term() {
        assert!(may_confirm_reads(Some(Term(3)), Term(3)));
        assert!(!may_confirm_reads(Some(Term(2)), Term(3)));
        assert!(!may_confirm_reads(None, Term(3)));
    }

    #[test]
    fn the_first_term_is_claimed_once_by_the_one_designated() {
        assert!(may_claim_first_term(true, false, LogIndex(0)));
        assert!(!may_claim_first_term(false, false, LogIndex(0)));
        assert!(!may_claim_first_term(true, true, LogIndex(0)));
        assert!(!may_claim_first_term(true, false, LogIndex(1)));
    }

    #[test]
    fn only_a_durable_log_takes_over() {
        assert!(may_take_over(LogIndex(5), LogIndex(5)));
        assert!(!may_take_over(LogIndex(4), LogIndex(5)));
    }
}
