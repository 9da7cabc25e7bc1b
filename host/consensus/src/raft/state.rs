//! What a replica remembers: the part that survives a crash, and the part that does not.
//!
//! Relies on the codec. Promises that the durable part is in one type, and that the completion of an
//! old flush never vouches for entries that replaced what was flushed. Takes no decisions.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use quorate_types::codec::{DecodeError, Reader, Writer};
use quorate_types::{Entry, Epoch, LogIndex, NodeId, Position, Term, Time};

use crate::effects::Promise;
use crate::{Effects, Now, ReadId, Token};

/// The format of the encoded hard state.
const HARD_STATE_VERSION: u8 = 1;

/// The durable variables (Ongaro thesis §3.3); the log is the other half of what survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HardState {
    /// The epoch that term and vote belong to.
    pub(super) epoch: Epoch,
    /// The latest term seen; only grows.
    pub(super) term: Term,
    /// Who got this replica's vote in `term`; set once, and cleared only by a greater term.
    pub(super) vote: Option<NodeId>,
}

impl HardState {
    /// ```text
    /// 0         1       9      17     18
    /// +---------+-------+------+------+--------+
    /// | version | epoch | term | vote?| voted  |
    /// +---------+-------+------+------+--------+
    /// ```
    pub(super) fn encode(&self) -> Bytes {
        let mut out = Writer::with_capacity(26);
        out.u8(HARD_STATE_VERSION);
        out.u64(self.epoch.0);
        out.u64(self.term.0);
        out.u8(u8::from(self.vote.is_some()));
        out.u64(self.vote.unwrap_or_default().0);
        out.finish()
    }

    /// Reads what [`HardState::encode`] wrote for `epoch`.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] for anything else, another epoch's state included.
    pub(super) fn decode(bytes: Bytes, epoch: Epoch) -> Result<Self, DecodeError> {
        let mut from = Reader::new(bytes);
        let unknown = |what, value| Err(DecodeError::Unknown { what, value });
        match from.u8("hard state version")? {
            HARD_STATE_VERSION => {}
            other => return unknown("hard state version", other.into()),
        }
        match Epoch(from.u64("hard state epoch")?) {
            stored if stored == epoch => {}
            other => return unknown("hard state epoch", other.0),
        }
        let term = Term(from.u64("hard state term")?);
        let voted = from.flag("hard state vote")?;
        let node = NodeId(from.u64("hard state vote")?);
        from.end()?;
        if !voted && node != NodeId::ZERO {
            return unknown("hard state vote", node.0);
        }
        Ok(Self { epoch, term, vote: voted.then_some(node) })
    }
}

/// One persist request under way.
#[derive(Debug)]
struct Flush {
    token: Token,
    /// The last entry of the log as it stands that this request makes durable.
    last: Option<LogIndex>,
    /// The term and vote it makes durable.
    ballot: Option<(Term, Option<NodeId>)>,
}

/// Persist requests under way, and how far the log is durable.
///
/// Invariants: tokens grow; `durable` never exceeds the log's last index; no request vouches for an
/// entry that was replaced after the request was made.
#[derive(Debug)]
pub(super) struct Flushes {
    queue: VecDeque<Flush>,
    issued: Token,
    durable: LogIndex,
}

/// What became durable.
#[derive(Debug, Default)]
pub(super) struct Flushed {
    /// The last term and vote among it.
    pub(super) ballot: Option<(Term, Option<NodeId>)>,
    /// The log is durable further than before.
    pub(super) advanced: bool,
}

impl Flushes {
    pub(super) fn new(durable: LogIndex) -> Self {
        Self { queue: VecDeque::new(), issued: Token::default(), durable }
    }

    /// All entries up to here are durable.
    pub(super) fn durable(&self) -> LogIndex {
        self.durable
    }

    /// The token of the last request.
    pub(super) fn issued(&self) -> Token {
        self.issued
    }

    /// Files a request and names it.
    pub(super) fn issue(&mut self, last: Option<LogIndex>, ballot: Option<(Term, Option<NodeId>)>) -> Token {
        self.issued = Token(self.issued.0 + 1);
        self.queue.push_back(Flush { token: self.issued, last, ballot });
        self.issued
    }

    /// Everything up to `token` is durable; `None` for a token that was never issued.
    pub(super) fn complete(&mut self, token: Token) -> Option<Flushed> {
        if token > self.issued {
            return None;
        }
        let mut flushed = Flushed::default();
        while let Some(flush) = self.queue.pop_front_if(|flush| flush.token <= token) {
            flushed.ballot = flush.ballot.or(flushed.ballot);
            if let Some(last) = flush.last.filter(|last| *last > self.durable) {
                self.durable = last;
                flushed.advanced = true;
            }
        }
        Some(flushed)
    }

    /// Entries from `index` on were replaced: nothing asked for before vouches for them.
    pub(super) fn truncate_from(&mut self, index: LogIndex) {
        let kept = index.previous();
        self.durable = self.durable.min(kept);
        for flush in &mut self.queue {
            flush.last = flush.last.map(|last| last.min(kept));
        }
    }

    /// The log starts anew after a durable snapshot: nothing asked for before vouches for an entry.
    pub(super) fn restart(&mut self, base: LogIndex) {
        self.durable = base;
        self.queue.iter_mut().for_each(|flush| flush.last = None);
    }

    /// A durable snapshot covers the log up to here.
    pub(super) fn cover(&mut self, base: LogIndex) {
        self.durable = self.durable.max(base);
    }
}

/// What this replica does just now.
#[derive(Debug)]
pub(super) enum Role {
    /// Follows, or waits for someone to follow; a learner is always here.
    Follower,
    /// Asks who would vote for it.
    PreCandidate(Ballot),
    /// Asks for votes.
    Candidate(Ballot),
    /// Orders entries.
    Leader(Box<Leader>),
}

/// Votes for this replica in one term.
#[derive(Debug, Default)]
pub(super) struct Ballot {
    /// Who granted one; itself only once its own vote is durable.
    pub(super) granted: BTreeSet<NodeId>,
    /// It claims the first term, which all voters count as won by it.
    pub(super) designated: bool,
}

/// What only a leader keeps; gone with its leadership.
#[derive(Debug)]
pub(super) struct Leader {
    /// Every other member, voters and learners.
    pub(super) progress: BTreeMap<NodeId, Progress>,
    /// When all of them hear from it next.
    pub(super) heartbeat_at: Time,
    /// Encoded bytes of what is appended and not committed.
    pub(super) uncommitted_bytes: usize,
    /// Reads that wait; those without a round come last.
    pub(super) reads: VecDeque<PendingRead>,
    /// The last heartbeat round that was started to confirm reads.
    pub(super) round: ReadRound,
    /// Leadership is being handed over.
    pub(super) transfer: Option<Transfer>,
    /// Room for the indices that commitment is counted from.
    pub(super) scratch: Vec<LogIndex>,
}

/// Numbers the heartbeat rounds that confirm reads, within one leadership. Zero confirms none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReadRound(pub u64);

/// A read that waits for its confirmation.
#[derive(Debug)]
pub(super) struct PendingRead {
    pub(super) id: ReadId,
    /// The round that confirms it, with the commit index when that round began.
    pub(super) begun: Option<(ReadRound, LogIndex)>,
}

/// A transfer of leadership under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transfer {
    pub(super) target: NodeId,
    /// Given up then.
    pub(super) deadline: Time,
}

/// How a leader sends to one follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Finds out where the logs agree, one message at a time.
    Probe {
        /// One is under way.
        awaiting: bool,
    },
    /// Sends ahead of the acknowledgements.
    Replicate,
    /// Waits until the follower has a snapshot.
    Snapshot {
        /// When it was offered last.
        offered: Time,
    },
}

/// What a leader knows of one follower.
#[derive(Debug)]
pub(super) struct Progress {
    /// Whether it counts.
    pub(super) voter: bool,
    /// Durable there and equal to the leader's log; only grows within a leadership.
    pub(super) matched: LogIndex,
    /// What is sent next; always after `matched`.
    pub(super) next: LogIndex,
    pub(super) mode: Mode,
    /// Last index and bytes of each append that is not acknowledged, oldest first.
    pub(super) in_flight: VecDeque<(LogIndex, usize)>,
    pub(super) in_flight_bytes: usize,
    /// When it last said anything.
    pub(super) heard: Time,
    /// When an append last left for it.
    pub(super) sent: Time,
    /// The last round it answered.
    pub(super) round: ReadRound,
    /// Since when it refuses a stamp.
    pub(super) stamp_refused: Option<Time>,
}

impl Progress {
    pub(super) fn new(voter: bool, last: LogIndex, now: Time) -> Self {
        Self {
            voter,
            matched: LogIndex::ZERO,
            next: last.next(),
            mode: Mode::Probe { awaiting: false },
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            heard: now,
            sent: now,
            round: ReadRound::default(),
            stamp_refused: None,
        }
    }

    /// An append left.
    pub(super) fn note_sent(&mut self, last: LogIndex, bytes: usize, now: Time) {
        self.in_flight.push_back((last, bytes));
        self.in_flight_bytes += bytes;
        self.sent = now;
    }

    /// Everything up to `matched` arrived.
    pub(super) fn note_matched(&mut self, matched: LogIndex) {
        self.matched = matched;
        self.next = self.next.max(matched.next());
        while let Some((_, bytes)) = self.in_flight.pop_front_if(|(last, _)| *last <= matched) {
            self.in_flight_bytes -= bytes;
        }
    }

    /// Sends from `next` on in another mode; what is under way is not counted on any more.
    pub(super) fn change(&mut self, mode: Mode, next: LogIndex) {
        self.mode = mode;
        self.next = next.max(self.matched.next());
        self.in_flight.clear();
        self.in_flight_bytes = 0;
    }
}

/// What one step gathers before it becomes effects.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) now: Now,
    pub(super) effects: Effects,
    /// Leave with the token of what this step persists, or the last one before.
    pub(super) promises: Vec<(NodeId, Promise)>,
    /// Consecutive entries to persist.
    pub(super) entries: Vec<Entry>,
    /// The durable log is void before them.
    pub(super) reset: Option<Position>,
    /// The first broken invariant.
    pub(super) fence: Option<String>,
}

impl Turn {
    pub(super) fn new(now: Now) -> Self {
        Self {
            now,
            effects: Effects::default(),
            promises: Vec::new(),
            entries: Vec::new(),
            reset: None,
            fence: None,
        }
    }

    /// Notes a broken invariant; the first one counts.
    pub(super) fn fence(&mut self, reason: String) {
        self.fence.get_or_insert(reason);
    }
}

/// A small generator of numbers that look random (SplitMix64, Steele, Lea and Flood 2014); its seed
/// comes from outside, and nothing of safety rests on it.
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A duration from `low` on and below `high`, to the microsecond.
    pub(super) fn between(&mut self, low: Duration, high: Duration) -> Duration {
        let span = u64::try_from(high.saturating_sub(low).as_micros()).unwrap_or(u64::MAX).max(1);
        low + Duration::from_micros(self.next() % span)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn hard_state_round_trips_and_other_epochs_and_versions_are_refused() {
        for vote in [None, Some(NodeId(3))] {
            let state = HardState { epoch: Epoch(2), term: Term(7), vote };
            let bytes = state.encode();
            assert_eq!(HardState::decode(bytes.clone(), Epoch(2)), Ok(state));
            assert!(HardState::decode(bytes.clone(), Epoch(3)).is_err());
            assert!((0..bytes.len()).all(|len| HardState::decode(bytes.slice(..len), Epoch(2)).is_err()));
            let mut other = bytes.to_vec();
            other[0] = 9;
            assert!(HardState::decode(other.into(), Epoch(2)).is_err());
        }
    }

    #[test]
    fn a_flush_vouches_for_its_entries_in_order() {
        let mut flushes = Flushes::new(LogIndex(3));
        let first = flushes.issue(Some(LogIndex(5)), None);
        let second = flushes.issue(Some(LogIndex(8)), Some((Term(2), None)));
        assert!(flushes.complete(first).unwrap().advanced);
        assert_eq!(flushes.durable(), LogIndex(5));
        assert_eq!(flushes.complete(second).unwrap().ballot, Some((Term(2), None)));
        assert_eq!(flushes.durable(), LogIndex(8));
        assert!(!flushes.complete(second).unwrap().advanced);
        assert!(flushes.complete(Token(3)).is_none());
    }

    #[test]
    fn a_late_flush_does_not_vouch_for_what_replaced_its_entries() {
        let mut flushes = Flushes::new(LogIndex(3));
        let old = flushes.issue(Some(LogIndex(8)), None);
        flushes.truncate_from(LogIndex(6));
        let new = flushes.issue(Some(LogIndex(9)), None);
        flushes.complete(old).unwrap();
        assert_eq!(flushes.durable(), LogIndex(5));
        flushes.complete(new).unwrap();
        assert_eq!(flushes.durable(), LogIndex(9));
        flushes.truncate_from(LogIndex(7));
        assert_eq!(flushes.durable(), LogIndex(6));
    }

    #[test]
    fn a_flush_from_before_a_snapshot_vouches_for_nothing() {
        let mut flushes = Flushes::new(LogIndex(3));
        let old = flushes.issue(Some(LogIndex(99)), None);
        flushes.restart(LogIndex(50));
        assert!(!flushes.complete(old).unwrap().advanced);
        assert_eq!(flushes.durable(), LogIndex(50));
    }

    #[test]
    fn a_drawn_duration_stays_within_its_range() {
        let mut random = Random::new(1);
        let (low, high) = (Duration::from_millis(150), Duration::from_millis(300));
        assert!((0..1_000).all(|_| (low..high).contains(&random.between(low, high))));
        assert_eq!(random.between(high, high), high);
    }
}
