//! Raft (Ongaro and Ousterhout 2014; Ongaro's thesis), one replica as a pure machine.
//!
//! Relies on the words of the interface (`Input`, `Effects`). Promises the safety properties below for
//! any order, loss or repetition of messages and for a crash at any point, as long as what was
//! persisted stays. Knows no clock, no disk and no network, and nothing of what commands mean.
//!
//! # The protocol
//!
//! Time is cut into *terms*. In a term at most one replica leads: it needs the votes of a quorum, and
//! each replica votes once a term, durably.
//!
//! ```text
//!             no leader heard              a quorum would vote
//!  +----------+  ------------> +--------------+ --------> +-----------+  a quorum voted  +--------+
//!  | follower |                | pre-candidate|           | candidate | ---------------> | leader |
//!  +----------+  <------------ +--------------+ <-------- +-----------+                  +--------+
//!       ^         leader heard                  leader heard, greater term                   |
//!       +------------------------------------------------------------------------------------+
//!                           greater term, or no quorum heard for an election timeout
//! ```
//!
//! The leader alone orders entries. It appends a proposal to its log, asks for it to be persisted and
//! sends it to every member in the same step; followers append what continues their log, cut what
//! conflicts with it, and acknowledge what is durable. What a quorum holds durably, and what is of the
//! leader's own term, is *committed*, with everything before it, and delivered. A new leader appends an
//! empty entry, so that it soon has an entry of its own term to commit.
//!
//! To each follower the leader is in one of three modes: it *probes* for the place where the logs
//! agree, it *replicates* ahead of the acknowledgements within bounds, or it has offered a *snapshot*
//! because the entries that the follower lacks were compacted.
//!
//! A *read* is confirmed by a heartbeat round that begins after it arrived: whoever answers knew of no
//! later leader, so the commit index of that moment covers everything acknowledged before (ReadIndex,
//! thesis §6.4).
//!
//! Elections are calm: a replica first asks who would vote for it and raises its term only then
//! (pre-vote, §9.6); replicas that heard their leader lately do not answer such questions; a leader
//! that hears no quorum for an election timeout steps down (check-quorum, §6.2). Leadership is handed
//! over (§3.10) by bringing the target up to date and telling it to campaign at once.
//!
//! # What is durable before what
//!
//! Term and vote, and entries, go out in [`crate::Effects::persist`] under a token. A vote, a candidacy
//! and an acknowledgement are [`Pledge`]s, and a pledge can only leave together with the token of the
//! last request. Everything else is a [`Statement`], binds nobody, and leaves at once: a leader's
//! appends while it still flushes them itself, too. Its own copy counts once it is durable.
//!
//! # Deviations from the paper
//!
//! - Term 1 of an epoch counts as voted for the designated first leader by everyone. It leads as soon
//!   as its own vote is durable; a restart forfeits that right. All others campaign from term 2.
//! - Entries carry a hybrid logical stamp, greater than that of the entry before. A voter refuses
//!   uncommitted entries whose stamp lies too far ahead of its own clock; a leader whose stamps a
//!   blocking part of the voters refuse for an election timeout steps down and abstains for a while.
//! - Election timeouts are drawn from a range that starts later the more voters have a higher priority.
//! - A follower fetches an offered snapshot itself, and takes no entries until that ended: the log it
//!   had then never holds anything that the snapshot does not replace.
//! - Membership does not change within an epoch.

mod catchup;
mod leadership;
mod log;
mod message;
mod normal;
#[cfg(feature = "planted")]
pub mod planted;
mod reads;
mod rules;
mod state;
mod step;
#[cfg(test)]
mod tests;

use std::time::Duration;

use quorate_types::{ENTRY_BYTES_MAX, Entry, EpochConfig, LogIndex, NodeId, Role as MemberRole, Term, Time};

pub use message::{Body, Message, Pledge, Statement};
pub use state::ReadRound;

use crate::effects::earlier;
use crate::{Now, SnapshotFetch, SnapshotMark, Start, StartError, Status, Timings};
use log::Log;
use state::{Ballot, Flushes, HardState, Random, Role};

/// The entries of one append message, in encoded bytes; one entry may be larger.
pub const APPEND_BYTES_MAX: usize = 1 << 20;
/// Appends to one follower that are not acknowledged. Enough to fill a long link at one entry a message.
pub const IN_FLIGHT_MESSAGES_MAX: usize = 64;
/// Encoded bytes of them; one message may go beyond.
pub const IN_FLIGHT_BYTES_MAX: usize = 8 << 20;
/// Encoded bytes that a leader appends beyond what is committed; one entry may go beyond.
pub const UNCOMMITTED_BYTES_MAX: usize = 32 << 20;
/// Entries that a leader appends beyond what is committed.
pub const UNCOMMITTED_ENTRIES_MAX: u64 = 16 << 10;
/// Reads that wait for confirmation.
pub const PENDING_READS_MAX: usize = 16 << 10;
/// For how many election timeouts a leader whose clock the others refuse does not campaign.
const ABSTAIN_ELECTION_TIMEOUTS: u32 = 10;

const _: () = assert!(APPEND_BYTES_MAX <= IN_FLIGHT_BYTES_MAX);
const _: () = assert!(IN_FLIGHT_BYTES_MAX <= UNCOMMITTED_BYTES_MAX);
const _: () = assert!(ENTRY_BYTES_MAX <= UNCOMMITTED_BYTES_MAX);

/// What was dropped or refused since the start; for watchers only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages of strangers, or that no replica in its right mind would send.
    pub messages_ignored: u64,
    /// Appends refused because a stamp lay too far ahead.
    pub stamps_refused: u64,
}

/// One replica of a Raft epoch.
///
/// Invariants, of which those about one step are checked after each, and break into a fence:
///
/// - The term never falls, and the vote of a term, once given, never changes.
/// - `base <= commit <= last`, and the log is durable no further than its last entry.
/// - No entry is of a later term than the replica.
/// - A leader's vote in its term is its own.
/// - Terms and stamps of entries do not fall along the log, and stamps grow.
/// - Each committed entry is delivered once and in order since the start.
/// - A fenced replica does nothing.
#[derive(Debug)]
pub struct Raft {
    node: NodeId,
    config: EpochConfig,
    /// Voters that decide; from the configuration.
    quorum: usize,
    timings: Timings,
    random: Random,
    /// Term and vote as they are to be; persisted at the end of the step that changed them.
    hard: HardState,
    /// Term and vote as last asked to be persisted; `None` before the first time ever.
    persisted: Option<HardState>,
    log: Log,
    flushes: Flushes,
    /// Everything up to here is committed, and delivered.
    commit: LogIndex,
    /// The latest snapshot that is durable here; what followers are offered.
    mark: SnapshotMark,
    role: Role,
    /// Who leads the current term, as far as known.
    leader: Option<NodeId>,
    /// When that leader was last heard.
    leader_heard: Time,
    /// The silence after which this replica campaigns; drawn anew for each attempt.
    election_timeout: Duration,
    /// When that silence will have lasted long enough.
    election_deadline: Time,
    /// No campaign before then.
    abstain_until: Time,
    /// Whether the outside lets this replica lead.
    may_lead: bool,
    /// The snapshot being fetched; no entries are taken meanwhile.
    fetching: Option<SnapshotFetch>,
    counters: Counters,
    status: Option<Status>,
    fenced: bool,
}

impl Raft {
    /// Starts on durable state. The first step should be a tick, which is due at once where there is
    /// something to do.
    ///
    /// # Errors
    ///
    /// [`StartError`] for a state that cannot be continued safely.
    pub fn start(start: Start, now: Now) -> Result<Self, StartError> {
        let Start { group: _, node, seed, timings, base, content: _, hard_state, entries } = start;
        let config = base.config.clone();
        let persisted = hard_state.map(|bytes| HardState::decode(bytes, config.epoch)).transpose()?;
        let log = recover_log(&base, entries, persisted.map(|hard| hard.term))?;
        let hard = recover_hard_state(persisted, &base);
        let designated =
            rules::may_claim_first_term(config.first_leader == node, persisted.is_some(), log.last().index);
        let ballot = Ballot { designated, ..Ballot::default() };
        let mut raft = Self {
            node,
            quorum: config.quorum(),
            timings,
            random: Random::new(seed ^ node.0.rotate_left(32)),
            hard,
            persisted,
            flushes: Flushes::new(log.last().index),
            commit: log.base().index,
            log,
            mark: base,
            role: if designated { Role::Candidate(ballot) } else { Role::Follower },
            leader: None,
            leader_heard: Time(0),
            election_timeout: Duration::ZERO,
            election_deadline: now.time,
            abstain_until: Time(0),
            may_lead: true,
            fetching: None,
            counters: Counters::default(),
            status: None,
            fenced: false,
            config,
        };
        let alone = raft.is_voter() && raft.config.voters().count() == 1;
        raft.draw_election_timeout();
        if !designated && !alone {
            raft.election_deadline = now.time.after(raft.election_timeout);
        }
        Ok(raft)
    }

    /// When a tick is due next; `None` for a fenced replica.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        if self.fenced {
            return None;
        }
        match &self.role {
            Role::Leader(leader) => {
                earlier(Some(leader.heartbeat_at), leader.transfer.map(|transfer| transfer.deadline))
            }
            _ => Some(self.election_deadline),
        }
    }

    /// What was dropped or refused since the start.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn is_voter(&self) -> bool {
        self.config.is_voter(self.node)
    }

    /// The other members that count.
    fn peers(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.config.voters().map(|member| member.node).filter(|node| *node != self.node)
    }

    /// Draws the silence after which this replica campaigns: up to twice the configured one, and the
    /// later the more voters have a higher priority.
    fn draw_election_timeout(&mut self) {
        let least = self.timings.election_timeout;
        let own = self.config.member(self.node).map_or(0, |member| member.priority);
        let (mut voters, mut preferred) = (1, 0);
        for voter in self.config.voters() {
            voters += 1;
            preferred += u32::from(voter.priority > own);
        }
        self.election_timeout = self.random.between(least + least * preferred / voters, least * 2);
    }
}

/// Term and vote to go on with; without stored ones, those that every replica of an epoch begins with.
fn recover_hard_state(persisted: Option<HardState>, base: &SnapshotMark) -> HardState {
    let epoch = base.config.epoch;
    let first = HardState { epoch, term: Term(1), vote: Some(base.config.first_leader) };
    let hard = persisted.unwrap_or(first);
    // A snapshot may be durable while the term it brought is not yet: nothing was voted for in it.
    if base.position.epoch == epoch && base.position.term > hard.term {
        return HardState { epoch, term: base.position.term, vote: None };
    }
    hard
}

fn recover_log(base: &SnapshotMark, entries: Vec<Entry>, term: Option<Term>) -> Result<Log, StartError> {
    let mut log = Log::new(base.position, base.hlc);
    let at_base = |entry: &Entry| entry.index() == base.position.index;
    if entries.iter().any(|entry| at_base(entry) && entry.position != base.position) {
        return Ok(log);
    }
    for entry in entries.into_iter().filter(|entry| entry.index() > base.position.index) {
        let expected = log.last().index.next();
        if entry.index() != expected {
            return Err(StartError::Gap { expected, found: entry.index() });
        }
        let stands = rules::follows(log.last(), log.last_hlc(), entry.position, entry.hlc)
            && (entry.position.epoch < base.config.epoch || term >= Some(entry.position.term));
        if !stands {
            return Err(StartError::Disorder { index: entry.index() });
        }
        log.push(entry);
    }
    Ok(log)
}

/// Whether a member counts in elections and commitment.
fn counts(role: MemberRole) -> bool {
    role == MemberRole::Voter
}
