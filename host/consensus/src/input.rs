//! What can happen to a replica.
//!
//! Relies on `types` and on [`Verified`]. Promises nothing; it is vocabulary. Does not know which
//! protocol will read it.

use bytes::Bytes;
use quorate_crypto::Verified;
use quorate_types::{Digest, EntryKind, EpochConfig, HlcTimestamp, LogIndex, NodeId, Position, Time};

use crate::{Message, Token};

/// The two clocks, read once by the driver for each turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Monotonic: for timeouts.
    pub time: Time,
    /// Wall clock: for entry stamps, and to refuse stamps too far ahead.
    pub wall: HlcTimestamp,
}

/// Names a proposal between the driver and the replica; chosen by the driver, never on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProposalId(pub u64);

/// Names a read between the driver and the replica; chosen by the driver, never on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadId(pub u64);

/// One entry that the driver asks the leader to append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Comes back in [`crate::Effects::proposed`].
    pub id: ProposalId,
    /// What the body is.
    pub kind: EntryKind,
    /// Encoded once; the same bytes go to the log, to peers and to apply.
    pub body: Bytes,
}

/// The point in the log that a snapshot of the state stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotMark {
    /// The last entry it includes.
    pub position: Position,
    /// That entry's stamp.
    pub hlc: HlcTimestamp,
    /// The epoch in force after that entry.
    pub config: EpochConfig,
}

/// What a snapshot holds, as replicas of a group that signs vouch for it: equal for equal marks and states, and
/// for nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotContent {
    /// Of the mark and the state.
    pub digest: Digest,
    /// Of all keys and values, so that whoever fetches it knows when it is too much.
    pub bytes: u64,
}

/// One thing that happened to a replica.
#[derive(Clone, Debug)]
pub enum Input {
    /// Time passed; sent at or after [`crate::Replica::next_deadline`].
    Tick,
    /// A message whose origin was checked.
    Message(Verified<Message>),
    /// Append an entry, if this replica leads.
    Propose(Proposal),
    /// Confirm that a read answered from the state at the returned index is linearizable.
    Read(ReadId),
    /// Everything up to and including the persist request with this token is durable.
    Persisted(Token),
    /// The state machine applied all entries up to here.
    Applied(LogIndex),
    /// The driver holds a durable snapshot at this mark and wants the log before it released, keeping
    /// at least the entries after `keep_from` for followers that are only a little behind.
    Compact {
        /// What the snapshot includes.
        mark: SnapshotMark,
        /// What it holds, if others may be told of it.
        content: Option<SnapshotContent>,
        /// The first index worth keeping; at most the mark's index + 1.
        keep_from: LogIndex,
    },
    /// A snapshot that [`crate::Effects::fetch`] asked for is durable and in force. The mark lies at or
    /// after the position fetched, at it if its content was named, and beyond everything applied. Whether the
    /// durable log is void says [`crate::Persist::reset`]: entries after the mark may have been acknowledged and
    /// must stay.
    SnapshotInstalled(SnapshotMark),
    /// A snapshot that [`crate::Effects::fetch`] asked for could not be had; ask again when useful. Each
    /// fetch must end in this or in [`Input::SnapshotInstalled`]: until then no entries are taken.
    SnapshotFailed(Position),
    /// Hand leadership to this voter, if this replica leads.
    TransferLeader(NodeId),
    /// Stop campaigning and hand over leadership, or do so no more: the node drains, or apply is
    /// halted here.
    MayLead(bool),
    /// The node of the leader cannot be reached: look whether the group goes on. For protocols whose idle groups
    /// are silent, where nobody would miss a leader; others hear of it by themselves.
    LeaderMissing,
    /// Commands wait here that the leader is to order. For protocols whose leaders may lie: one who does nothing is
    /// replaced.
    CommandsWait,
    /// The leader orders other commands and, for long, not those that wait here: replace it all the same.
    LeaderIgnores,
}
