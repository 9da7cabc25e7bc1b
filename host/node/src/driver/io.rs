//! What goes into the driver and what comes out.
//!
//! Relies on the words of `types` and of the machine. Promises that everything the driver asks for is
//! plain data or a job that holds all it needs. Knows no thread.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_consensus::hotstuff::{Evidence, Identity};
use quorate_consensus::{SnapshotFetch, SnapshotMark};
use quorate_crypto::SetDigest;
use quorate_runtime::{Component, Frozen, State, StateView};
use quorate_storage::{GroupAppend, RecoveredGroup, Space as StoredSpace, Store, StoreError};
use quorate_types::{
    BatchItem, Digest, Entry, EpochConfig, GroupId, HlcTimestamp, LogIndex, NodeId, Outcome, Position,
};

use super::frames::{AdmittedFrame, RelayedFrame};
use super::{ApplyJob, EntryEvents, SnapshotFault, VerifiedFrame};
use crate::machine::{CheckpointHeader, Machine, MachineIdentity, QueryAnswer, QueryJob};

/// Names one flush of the node's log; grows by one with each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// How fresh a query's answer must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// Reflects everything acknowledged before the query was asked.
    Linearizable,
    /// Reflects what this replica has applied.
    Stale,
}

/// One thing for the driver to take in.
#[derive(Debug)]
pub enum DriverInput<W> {
    /// From a peer that the transport authenticated, for a group that does not sign.
    Frame {
        /// The peer.
        from: NodeId,
        /// An encoded envelope.
        frame: Bytes,
    },
    /// A message of a group that signs, whose signatures were verified.
    Verified(Box<VerifiedFrame>),
    /// Items for a group's log, each with whoever waits for its outcome.
    Submit {
        /// The group.
        group: GroupId,
        /// The items, in order.
        items: Vec<(BatchItem, W)>,
    },
    /// A frame that a client signed, whose signature was verified at this node.
    ClientFrame {
        /// The group.
        group: GroupId,
        /// The frame.
        frame: AdmittedFrame,
        /// Who waits for its outcomes, one for each item; nobody if a member handed it on.
        waiters: Vec<W>,
    },
    /// A question to a group's state machine.
    Query {
        /// The group.
        group: GroupId,
        /// How fresh the answer must be.
        consistency: Consistency,
        /// The query's name.
        name: String,
        /// Its arguments.
        body: Bytes,
        /// Who asks.
        waiter: W,
    },
    /// The log batches with tickets up to this one are durable.
    Flushed(Ticket),
    /// A job from [`super::Driver::next_apply`] has run.
    Applied(Box<ApplyJob>),
    /// A component's code is here.
    Component(Component),
    /// A checkpoint is durable.
    CheckpointDone(CheckpointDone),
    /// All of a snapshot that the driver asked for has arrived.
    SnapshotFetched(Box<InstallJob>),
    /// A snapshot is durable and loaded.
    SnapshotInstalled(Box<InstallDone>),
    /// A snapshot that the driver asked for could not be had.
    SnapshotFailed {
        /// The group.
        group: GroupId,
        /// Which snapshot.
        position: Position,
    },
    /// What a member sent as a snapshot that the driver asked for is not what it has to be.
    SnapshotRefused {
        /// The group.
        group: GroupId,
        /// Which snapshot.
        position: Position,
        /// Who sent it.
        from: NodeId,
        /// What is wrong with it.
        fault: SnapshotFault,
    },
    /// A peer asks for a piece of a snapshot.
    ServeSnapshot {
        /// The encoded request.
        request: Bytes,
        /// Who asks.
        waiter: W,
    },
    /// Take a checkpoint now and say its digest.
    Checkpoint {
        /// The group.
        group: GroupId,
        /// Who asks.
        waiter: W,
    },
    /// The log cannot be shortened while this group has no later checkpoint.
    CheckpointDue(GroupId),
    /// Have all replicas of a group that signs take a checkpoint, if this one leads.
    OrderCheckpoint {
        /// The group.
        group: GroupId,
        /// Who asks.
        waiter: W,
    },
    /// Hand leadership over.
    TransferLeader {
        /// The group.
        group: GroupId,
        /// The next leader.
        to: NodeId,
        /// Who asks.
        waiter: W,
    },
    /// The node that leads this group cannot be reached.
    LeaderMissing(GroupId),
    /// Whether replicas of this node may lead at all.
    MayLead(bool),
}

/// Why something could not be done here and now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Another replica leads, or none does yet.
    #[error("this replica does not lead the group; ask the leader")]
    NotLeader {
        /// Who leads, as far as known.
        leader: Option<NodeId>,
    },
    /// Leadership was lost after the item was appended: it may or may not have been applied.
    #[error("leadership was lost while the command was under way; submit it again under the same number")]
    LeadershipLost,
    /// Too much is waiting.
    #[error("the group has too much waiting; submit again a little later")]
    Overloaded,
    /// No entry of that size can be appended.
    #[error("the command does not fit into an entry; make it smaller")]
    TooLarge,
    /// This node runs no replica of the group.
    #[error("this node runs no replica of the group; ask one of its members")]
    UnknownGroup,
    /// This replica does not apply entries.
    #[error("this replica does not apply entries ({0}); ask another member")]
    ApplyHalted(String),
    /// This replica takes no part any more.
    #[error("this replica is fenced ({0}); an operator must look at it")]
    Fenced(String),
    /// The target of a transfer does not vote in the group.
    #[error("node {node} is not a voter of the group")]
    NotVoter {
        /// The node.
        node: NodeId,
    },
    /// The snapshot asked for is not to be had here.
    #[error("the snapshot is not to be had here: {0}")]
    NoSnapshot(String),
    /// A query could not be run at this replica.
    #[error("the query could not be run here: {0}")]
    QueryHalted(String),
    /// A client's frame is not one that can be ordered.
    #[error("the frame is refused: {0}")]
    FrameRefused(String),
    /// A frame puts a component in force whose code is not here.
    #[error("this node does not have component {} ready; prepare the deployment at every member first", .0.short())]
    ComponentMissing(Digest),
    /// No leader ordered a frame for long.
    #[error("no leader ordered the frame in time; submit its commands again under the same numbers")]
    NotOrdered,
    /// What a snapshot replaced may have held the frame.
    #[error(
        "this replica cannot tell what became of the frame; submit its commands again under the same numbers"
    )]
    Skipped,
}

/// What a waiter gets.
#[derive(Clone, Debug)]
pub enum Reply {
    /// The item was committed and applied.
    Outcome {
        /// What became of it.
        outcome: Outcome,
        /// The entry that held it.
        index: LogIndex,
    },
    /// The query was answered.
    Answer(QueryAnswer),
    /// A piece of a snapshot, encoded.
    SnapshotChunk(Bytes),
    /// A checkpoint was taken.
    Checkpoint {
        /// The last entry it includes.
        index: LogIndex,
        /// The state's digest there.
        digest: Digest,
        /// Pairs in the state, the host's own among them.
        keys: u64,
    },
    /// The request is under way.
    Accepted,
    /// It could not be done.
    Failed(Failure),
}

/// All that a turn asks for.
#[derive(Debug)]
pub struct Output<W> {
    /// Send, in order.
    pub sends: Vec<(NodeId, Bytes)>,
    /// Append to the node's log, in order, and flush; then [`DriverInput::Flushed`] with the ticket.
    pub log: Vec<GroupAppend>,
    /// The ticket of this turn's log batch, if it has one.
    pub ticket: Option<Ticket>,
    /// Log entries that a durable checkpoint made dispensable: through this index.
    pub compact: Vec<(GroupId, LogIndex)>,
    /// Groups whose log is void, because a snapshot at this position replaced it; before the batch of
    /// the same output.
    pub reset: Vec<(GroupId, Position)>,
    /// Answer.
    pub replies: Vec<(W, Reply)>,
    /// Members that lied, with the proof: keep it durably, and have it ordered in the group's log.
    pub evidence: Vec<(GroupId, Evidence)>,
    /// Clients' frames that wait for long, to be handed to the leader.
    pub relays: Vec<(GroupId, RelayedFrame)>,
    /// Show to watchers.
    pub events: Vec<(GroupId, EntryEvents)>,
    /// A snapshot replaced a group's entries up to this one: watchers see nothing of what they emitted.
    pub skipped: Vec<(GroupId, LogIndex)>,
    /// Run and answer.
    pub queries: Vec<(QueryJob, W)>,
    /// Run on the checkpoint store, then [`DriverInput::CheckpointDone`].
    pub checkpoints: Vec<CheckpointJob>,
    /// Fetch, then [`DriverInput::SnapshotFetched`], [`DriverInput::SnapshotFailed`] or
    /// [`DriverInput::SnapshotRefused`].
    pub fetches: Vec<(GroupId, SnapshotFetch)>,
    /// Run on the checkpoint store, then [`DriverInput::SnapshotInstalled`] or [`DriverInput::SnapshotRefused`].
    pub installs: Vec<InstallJob>,
    /// Members that sent a snapshot which is not what it has to be.
    pub refused: Vec<(GroupId, NodeId, SnapshotFault)>,
    /// Have the group's leader order a checkpoint: [`DriverInput::OrderCheckpoint`] there.
    pub orders: Vec<GroupId>,
    /// Find and compile, then [`DriverInput::Component`].
    pub needs: Vec<Digest>,
    /// Groups whose status for watchers changed.
    pub changed: Vec<GroupId>,
    /// The catalog's state, whenever it changed.
    pub catalog: Option<StateView>,
}

impl<W> Default for Output<W> {
    fn default() -> Self {
        Self {
            sends: Vec::new(),
            log: Vec::new(),
            ticket: None,
            compact: Vec::new(),
            reset: Vec::new(),
            replies: Vec::new(),
            evidence: Vec::new(),
            relays: Vec::new(),
            events: Vec::new(),
            skipped: Vec::new(),
            queries: Vec::new(),
            checkpoints: Vec::new(),
            fetches: Vec::new(),
            installs: Vec::new(),
            refused: Vec::new(),
            orders: Vec::new(),
            needs: Vec::new(),
            changed: Vec::new(),
            catalog: None,
        }
    }
}

impl<W> Output<W> {
    pub(super) fn refuse(&mut self, waiters: impl IntoIterator<Item = W>, failure: &Failure) {
        self.replies.extend(waiters.into_iter().map(|waiter| (waiter, Reply::Failed(failure.clone()))));
    }
}

/// A checkpoint to be written, off the consensus path.
#[derive(Debug)]
pub struct CheckpointJob {
    pub(super) group: GroupId,
    pub(super) mark: SnapshotMark,
    pub(super) frozen: Frozen,
    pub(super) set_digest: SetDigest,
}

/// A checkpoint that is durable.
#[derive(Debug)]
pub struct CheckpointDone {
    pub(super) group: GroupId,
    pub(super) mark: SnapshotMark,
    pub(super) set_digest: SetDigest,
    /// The state as it was written.
    pub(super) view: StateView,
}

impl CheckpointJob {
    /// Computes the digest and writes what changed in one durable transaction.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; the node must stop then, since its log cannot be released any more.
    pub fn run(mut self, store: &Store) -> Result<CheckpointDone, StoreError> {
        self.frozen.update_digest(&mut self.set_digest);
        let header = CheckpointHeader { mark: self.mark.clone(), set_digest: self.set_digest.clone() };
        let changes = self.frozen.changes().map(|(space, key, value)| (stored(space), key, value.cloned()));
        store.checkpoint(self.group, &header.encode(), changes)?;
        let view = self.frozen.view().clone();
        Ok(CheckpointDone { group: self.group, mark: self.mark, set_digest: self.set_digest, view })
    }
}

/// A fetched snapshot to be made durable, off the consensus path.
#[derive(Debug)]
pub struct InstallJob {
    pub(super) identity: MachineIdentity,
    /// From whom it came, and what it had to be.
    pub(super) fetch: SnapshotFetch,
    pub(super) mark: SnapshotMark,
    /// In order, each key once.
    pub(super) pairs: Vec<(quorate_runtime::Space, Bytes, Bytes)>,
}

/// A snapshot that is durable and loaded.
#[derive(Debug)]
pub struct InstallDone {
    pub(super) machine: Machine,
    pub(super) set_digest: SetDigest,
}

impl InstallJob {
    /// The group.
    #[must_use]
    pub fn group(&self) -> GroupId {
        self.identity.group
    }

    /// What the snapshot includes.
    #[must_use]
    pub fn position(&self) -> Position {
        self.mark.position
    }

    /// From whom it came.
    #[must_use]
    pub fn from(&self) -> NodeId {
        self.fetch.from
    }

    /// Loads the state, computes its digest and replaces the stored checkpoint in one durable
    /// transaction, unless the state is another one than members vouch for: then nothing of it is kept.
    ///
    /// # Errors
    ///
    /// [`StoreError`] as for a checkpoint, or why the snapshot is refused.
    pub fn run(self, store: &Store) -> Result<Result<InstallDone, SnapshotFault>, StoreError> {
        let mut set_digest = SetDigest::default();
        let mut bytes = 0;
        for (space, key, value) in &self.pairs {
            set_digest.add(&space.tagged(key), value);
            bytes += (key.len() + value.len()) as u64;
        }
        let header = CheckpointHeader { mark: self.mark.clone(), set_digest: set_digest.clone() };
        if self.fetch.content.is_some_and(|content| content != header.content(bytes)) {
            return Ok(Err(SnapshotFault::OtherContent));
        }
        let state = State::load(self.pairs.iter().cloned());
        let machine = match Machine::load(self.identity.clone(), self.mark, state) {
            Ok(machine) => machine,
            Err(error) => return Ok(Err(error.into())),
        };
        let pairs = self.pairs.into_iter().map(|(space, key, value)| (stored(space), key, value));
        store.install(self.identity.group, &header.encode(), pairs)?;
        Ok(Ok(InstallDone { machine, set_digest }))
    }
}

fn stored(space: quorate_runtime::Space) -> StoredSpace {
    match space {
        quorate_runtime::Space::User => StoredSpace::User,
        quorate_runtime::Space::Host => StoredSpace::Host,
    }
}

fn loaded(space: StoredSpace) -> quorate_runtime::Space {
    match space {
        StoredSpace::User => quorate_runtime::Space::User,
        StoredSpace::Host => quorate_runtime::Space::Host,
    }
}

/// All that a group's replica starts from.
#[derive(Debug)]
pub struct GroupStart {
    pub(super) machine: Machine,
    pub(super) set_digest: SetDigest,
    pub(super) hard_state: Option<Bytes>,
    pub(super) entries: Vec<Entry>,
    /// The checkpoint's position, if the log does not reach it or holds another history: a snapshot was
    /// installed and the node ended before the log knew.
    pub(super) void: Option<Position>,
    /// Damage found in the log: the replica is fenced rather than let vote on a forgotten promise.
    pub(super) damage: Option<String>,
    pub(super) timings: quorate_consensus::Timings,
    /// With what it signs, in groups that do.
    pub(super) identity: Option<Identity>,
}

impl GroupStart {
    /// The group.
    #[must_use]
    pub fn group(&self) -> GroupId {
        self.machine.group()
    }

    /// Reads a group's durable state: its checkpoint and what the log holds after it.
    ///
    /// # Errors
    ///
    /// The reason, naming the group, when the stored state cannot be read.
    pub fn recover(
        store: &Store,
        identity: MachineIdentity,
        first: EpochConfig,
        recovered: Option<RecoveredGroup>,
        timings: quorate_consensus::Timings,
    ) -> Result<Self, RecoverError> {
        let group = identity.group;
        let fault = |why: String| RecoverError { group, why };
        let loaded_checkpoint = store.load(group).map_err(|error| fault(error.to_string()))?;
        let (machine, set_digest) = match loaded_checkpoint {
            None => {
                let none = SnapshotMark { position: Position::ZERO, hlc: HlcTimestamp::ZERO, config: first };
                (Machine::new(identity, none), SetDigest::default())
            }
            Some(checkpoint) => {
                let header =
                    CheckpointHeader::decode(checkpoint.header).map_err(|error| fault(error.to_string()))?;
                let pairs =
                    checkpoint.pairs.into_iter().map(|(space, key, value)| (loaded(space), key, value));
                let machine = Machine::load(identity, header.mark, State::load(pairs))
                    .map_err(|error| fault(error.to_string()))?;
                (machine, header.set_digest)
            }
        };
        let base = machine.mark().position;
        let void = recovered.as_ref().is_some_and(|found| is_void(base, found)).then_some(base);
        let (hard_state, entries, damage) = match recovered {
            None => (None, Vec::new(), None),
            Some(found) => {
                let damage = found.damage.map(|damage| damage.to_string());
                (found.hard_state, entries_after(base, found.entries), damage)
            }
        };
        let identity = None;
        Ok(Self { machine, set_digest, hard_state, entries, void, damage, timings, identity })
    }

    /// The epoch in force, which says whether the group signs.
    #[must_use]
    pub fn config(&self) -> &EpochConfig {
        &self.machine.mark().config
    }

    /// Gives the replica what it signs with; needed in groups that sign.
    #[must_use]
    pub fn signing(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }
}

/// A group whose durable state cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("group {group} cannot be started: {why}")]
pub struct RecoverError {
    /// The group.
    pub group: GroupId,
    /// Why.
    pub why: String,
}

/// Whether the log cannot be continued after the checkpoint: it ends before it, or is not its history.
fn is_void(base: Position, found: &RecoveredGroup) -> bool {
    let last = found.entries.last().map_or(found.base, Entry::index);
    let at_base = found.entries.iter().find(|entry| entry.index() == base.index);
    last < base.index || at_base.is_some_and(|entry| entry.position != base)
}

/// The logged entries that continue the checkpoint. When the log holds another entry at the
/// checkpoint's index, a snapshot replaced that history, and nothing of it continues the checkpoint.
fn entries_after(base: Position, logged: Vec<Entry>) -> Vec<Entry> {
    let by_index: BTreeMap<LogIndex, &Entry> = logged.iter().map(|entry| (entry.index(), entry)).collect();
    if by_index.get(&base.index).is_some_and(|at_base| at_base.position != base) {
        return Vec::new();
    }
    let mut next = base.index.next();
    let mut kept = Vec::new();
    for entry in logged {
        if entry.index() == next {
            next = next.next();
            kept.push(entry);
        }
    }
    kept
}
