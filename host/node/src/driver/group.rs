//! One group in the driver: its replica, its machine, and everything between the two.
//!
//! Relies on the replica's effects. Promises one reply for each waiter. Knows nothing of other groups.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use quorate_consensus::hotstuff::Evidence;
use quorate_consensus::{
    Envelope, Message, Now, Persist, Proposal, ProposalId, ProposeError, ReadError, ReadId, Replica,
    ReplicaRole, SnapshotMark, Start, StartError, Status, Token,
};
use quorate_crypto::SetDigest;
use quorate_runtime::{Frozen, StateView};
use quorate_storage::GroupAppend;
use quorate_types::{
    Batch, BatchItem, Digest, Entry, EntryKind, Epoch, EpochConfig, GroupId, LogIndex, NodeId, Position,
    Term, Time,
};

use super::backlog::Backlog;
use super::frames::Frames;
use super::io::{Failure, GroupStart, Output};
use super::{ENTRIES_IN_FLIGHT_MAX, Local};
use crate::machine::{CheckpointHeader, Machine, MachineIdentity};

/// How long a snapshot that a peer fetches is kept after its last request.
const SERVED_IDLE: Duration = Duration::from_secs(30);

/// How many lies one start of a replica tells of; a few prove everything.
const LIES_TOLD_MAX: usize = 256;

/// A promise that waits for its flush.
pub(super) struct HeldMessage {
    pub(super) after: Token,
    pub(super) to: NodeId,
    pub(super) frame: Bytes,
}

/// A snapshot that peers fetch piece by piece.
#[derive(Clone)]
pub(super) struct Served {
    pub(super) mark: SnapshotMark,
    pub(super) view: StateView,
    pub(super) used: Time,
}

impl Served {
    fn is_idle(&self, now: Now) -> bool {
        now.time.since(self.used) >= SERVED_IDLE
    }
}

/// Who waits for an appended entry, item by item.
pub(super) struct InFlight<W> {
    pub(super) position: Position,
    pub(super) waiters: Vec<W>,
}

/// One group.
pub(super) struct Group<W> {
    pub(super) id: GroupId,
    pub(super) identity: MachineIdentity,
    pub(super) replica: Replica,
    pub(super) config: EpochConfig,
    pub(super) status: Status,
    /// `None` while a job holds it.
    pub(super) machine: Option<Machine>,
    /// Known even while a job holds the machine.
    pub(super) applied: LogIndex,
    pub(super) component: Option<Digest>,
    deployments: u64,
    sessions: usize,
    next_timer: Option<quorate_types::HlcTimestamp>,
    pub(super) pending: VecDeque<(BatchItem, W)>,
    pub(super) pending_bytes: usize,
    /// What clients signed; used in groups that sign.
    pub(super) frames: Frames<W>,
    proposals: BTreeMap<ProposalId, Vec<W>>,
    pub(super) in_flight: VecDeque<InFlight<W>>,
    pub(super) held: VecDeque<HeldMessage>,
    pub(super) durable: Token,
    pub(super) persisted_last: Token,
    pub(super) appends: Vec<GroupAppend>,
    pub(super) apply_queue: VecDeque<Entry>,
    /// Microseconds that applying lately took for one entry, the worst decaying slowly.
    pub(super) apply_cost_us: u64,
    pub(super) reads: BTreeMap<ReadId, (String, Bytes, W)>,
    pub(super) confirmed: Vec<(LogIndex, (String, Bytes, W))>,
    pub(super) halted: Option<String>,
    pub(super) fenced: Option<String>,
    /// The code that the next entry, or a query, waits for.
    pub(super) awaiting: Option<Digest>,
    pub(super) set_digest: Option<SetDigest>,
    pub(super) checkpoint_waiters: Vec<W>,
    /// The log holds entries of this group that only a checkpoint lets go.
    pub(super) checkpoint_due: bool,
    /// In a group that signs: one is to be ordered, since checkpoints are taken only where the log says so.
    pub(super) checkpoint_wanted: bool,
    /// Those whom the checkpoint under way will answer.
    pub(super) checkpoint_served: Vec<W>,
    /// A digest point that was reached while a checkpoint was under way; nothing is applied meanwhile.
    pub(super) checkpoint_held: Option<(SnapshotMark, Frozen)>,
    pub(super) checkpointed: LogIndex,
    pub(super) last_digest: Option<(LogIndex, Digest)>,
    /// A snapshot is being made durable; nothing is applied meanwhile.
    pub(super) installing: bool,
    pub(super) served: Option<Served>,
    /// In a group that signs: the last durable checkpoint, which is what this replica offers.
    pub(super) checkpoint: Option<Served>,
    pub(super) backlog: Backlog,
    pub(super) deadline: Option<Time>,
    /// Members that the log proves to have lied.
    accused: Vec<NodeId>,
    /// With what it lies.
    #[cfg(feature = "planted")]
    pub(super) signs: Option<quorate_consensus::hotstuff::Identity>,
    /// Lies found here since the start, at most [`LIES_TOLD_MAX`].
    told: BTreeSet<Digest>,
}

/// How a group stands at this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupReport {
    /// The epoch in force.
    pub epoch: Epoch,
    /// The term or view.
    pub term: Term,
    /// What this replica does.
    pub role: ReplicaRole,
    /// Who leads, as far as known.
    pub leader: Option<NodeId>,
    /// The last index known to be committed.
    pub commit: LogIndex,
    /// The last index applied here.
    pub applied: LogIndex,
    /// The component in force here.
    pub component: Option<Digest>,
    /// How many deployments were carried out here, failed ones included.
    pub deployments: u64,
    /// The last index that a durable checkpoint includes.
    pub checkpointed: LogIndex,
    /// The last digest taken, and where.
    pub digest: Option<(LogIndex, Digest)>,
    /// Items that wait to be appended.
    pub pending: usize,
    /// Open sessions.
    pub sessions: usize,
    /// Why this replica applies nothing, if so.
    pub halted: Option<String>,
    /// Why this replica takes no part, if so.
    pub fenced: Option<String>,
    /// Members that the log proves to have lied, in order.
    pub accused: Vec<NodeId>,
}

impl<W> Group<W> {
    pub(super) fn start(start: GroupStart, node: NodeId, seed: u64, now: Now) -> Result<Self, StartError> {
        let machine = start.machine;
        let mark = machine.mark().clone();
        let is_offered = mark.config.is_signed() && mark.position.index > LogIndex::ZERO;
        let checkpoint =
            is_offered.then(|| Served { mark: mark.clone(), view: machine.view(), used: Time(0) });
        let header = CheckpointHeader { mark: mark.clone(), set_digest: start.set_digest.clone() };
        let content = checkpoint.as_ref().map(|checkpoint| header.content(checkpoint.view.bytes()));
        let state = Start {
            group: machine.group(),
            node,
            seed,
            timings: start.timings,
            base: mark.clone(),
            content,
            hard_state: start.hard_state,
            entries: start.entries,
        };
        #[cfg(feature = "planted")]
        let signs = start.identity.clone();
        let replica = match start.identity {
            Some(identity) => Replica::start_signing(state, identity, now)?,
            None => Replica::start(state, now)?,
        };
        let status = Status {
            epoch: mark.config.epoch,
            term: Term::ZERO,
            role: ReplicaRole::Follower,
            leader: None,
            commit: mark.position.index,
        };
        Ok(Self {
            id: machine.group(),
            identity: machine.identity().clone(),
            replica,
            config: mark.config.clone(),
            status,
            applied: machine.applied(),
            component: machine.component(),
            deployments: machine.deployments(),
            sessions: machine.sessions(),
            next_timer: machine.next_timer(),
            accused: machine.accused().members(),
            told: BTreeSet::new(),
            #[cfg(feature = "planted")]
            signs,
            machine: Some(machine),
            pending: VecDeque::new(),
            pending_bytes: 0,
            frames: Frames::default(),
            proposals: BTreeMap::new(),
            in_flight: VecDeque::new(),
            held: VecDeque::new(),
            durable: Token::default(),
            persisted_last: Token::default(),
            appends: Vec::new(),
            apply_queue: VecDeque::new(),
            apply_cost_us: 0,
            reads: BTreeMap::new(),
            confirmed: Vec::new(),
            halted: None,
            fenced: start.damage.map(|damage| format!("its log is damaged: {damage}")),
            awaiting: None,
            set_digest: Some(start.set_digest),
            checkpoint_waiters: Vec::new(),
            checkpoint_due: false,
            checkpoint_wanted: false,
            checkpoint_served: Vec::new(),
            checkpoint_held: None,
            checkpointed: mark.position.index,
            last_digest: None,
            installing: false,
            served: None,
            checkpoint,
            backlog: Backlog::after(mark.position.index),
            deadline: None,
        })
    }

    pub(super) fn report(&self) -> GroupReport {
        GroupReport {
            epoch: self.status.epoch,
            term: self.status.term,
            role: self.status.role,
            leader: self.status.leader,
            commit: self.status.commit,
            applied: self.applied,
            component: self.component,
            deployments: self.deployments,
            checkpointed: self.checkpointed,
            digest: self.last_digest,
            pending: self.pending.len() + self.frames.items(),
            sessions: self.sessions,
            halted: self.halted.clone(),
            fenced: self.fenced.clone(),
            accused: self.accused.clone(),
        }
    }

    /// Whether a lie was not told before, as far as there is room to remember.
    pub(super) fn is_news(&mut self, evidence: &Evidence) -> bool {
        self.told.len() < LIES_TOLD_MAX && self.told.insert(evidence.digest())
    }

    pub(super) fn is_leader(&self) -> bool {
        self.status.role == ReplicaRole::Leader
    }

    /// Why nothing can be submitted here, if so.
    pub(super) fn refusal(&self) -> Option<Failure> {
        if let Some(why) = &self.fenced {
            return Some(Failure::Fenced(why.clone()));
        }
        if let Some(why) = &self.halted {
            return Some(Failure::ApplyHalted(why.clone()));
        }
        (!self.is_leader()).then_some(Failure::NotLeader { leader: self.status.leader })
    }

    /// Whether what gathered should become an entry now: gathering on costs nothing while the replica could
    /// not append it yet, as long as something under way keeps its timers running.
    pub(super) fn may_propose(&self) -> bool {
        let under_way = self.under_way();
        under_way < ENTRIES_IN_FLIGHT_MAX && (under_way == 0 || self.replica.is_ready())
    }

    /// Entries that this replica proposed and that are not applied.
    fn under_way(&self) -> usize {
        self.in_flight.len() + self.proposals.len()
    }

    /// The next entry, made of what gathered, in order.
    pub(super) fn next_proposal(&mut self, serial: u64, items_max: usize, bytes_max: usize) -> Proposal {
        let mut batch = Batch::default();
        let mut waiters = Vec::new();
        let mut bytes = 0;
        while let Some((item, _)) = self.pending.front()
            && batch.items.len() < items_max
            && (batch.items.is_empty() || bytes + item.encoded_len() <= bytes_max)
        {
            let (item, waiter) = self.pending.pop_front().expect("the front was just seen");
            bytes += item.encoded_len();
            batch.items.push(item);
            waiters.push(waiter);
        }
        self.pending_bytes -= bytes;
        let id = ProposalId(serial);
        self.proposals.insert(id, waiters);
        Proposal { id, kind: EntryKind::Batch, body: batch.encode() }
    }

    /// The next entry made of clients' frames, if any wait. Their waiters stay with the frames.
    pub(super) fn next_frames(&mut self, serial: u64) -> Option<Proposal> {
        let body = self.frames.next_body()?;
        let id = ProposalId(serial);
        self.proposals.insert(id, Vec::new());
        Some(Proposal { id, kind: EntryKind::Frames, body })
    }

    /// What this replica has ordered of its own accord, if anything: a digest where one is wanted, or time carried
    /// forward when nothing else does it.
    pub(super) fn own_item(&mut self, now: Now) -> Option<BatchItem> {
        if !self.is_leader() {
            return None;
        }
        if self.checkpoint_wanted && self.may_propose() {
            self.checkpoint_wanted = false;
            return Some(BatchItem::Checkpoint);
        }
        (self.pending.is_empty() && !self.frames.is_proposable() && self.timer_overdue(now))
            .then_some(BatchItem::Tick)
    }

    /// An entry for which nobody waits.
    pub(super) fn own_proposal(&mut self, serial: u64, item: BatchItem) -> Proposal {
        let id = ProposalId(serial);
        self.proposals.insert(id, Vec::new());
        let body = Batch { items: vec![item] }.encode();
        Proposal { id, kind: EntryKind::Batch, body }
    }

    /// Whether a timer is due and nothing under way will fire it.
    pub(super) fn timer_overdue(&self, now: Now) -> bool {
        self.under_way() == 0 && self.halted.is_none() && self.next_timer.is_some_and(|due| due <= now.wall)
    }

    pub(super) fn next_deadline(&self, now: Now) -> Option<Time> {
        let timer = self.next_timer.filter(|_| self.is_leader() && self.under_way() == 0).map(|due| {
            let ahead_ms = due.unix_ms().saturating_sub(now.wall.unix_ms());
            now.time.after(Duration::from_millis(ahead_ms.max(1)))
        });
        let forgotten = self.served.as_ref().map(|served| served.used.after(SERVED_IDLE));
        let deadlines = [self.replica.next_deadline(), timer, self.frames.next_deadline(), forgotten];
        deadlines.into_iter().flatten().min()
    }

    /// Notes what the machine came to; whether watchers should hear of it.
    pub(super) fn note_machine(&mut self) -> bool {
        let mut is_news = false;
        if let Some(machine) = &self.machine {
            self.next_timer = machine.next_timer();
            self.applied = machine.applied();
            self.component = machine.component();
            is_news = machine.deployments() != self.deployments;
            self.deployments = machine.deployments();
            self.sessions = machine.sessions();
            if machine.accused().len() != self.accused.len() {
                self.accused = machine.accused().members();
                is_news = true;
            }
        }
        is_news
    }

    pub(super) fn note_proposed(
        &mut self,
        id: ProposalId,
        result: Result<Position, ProposeError>,
        output: &mut Output<W>,
    ) {
        let Some(waiters) = self.proposals.remove(&id) else { return };
        match result {
            Ok(position) => {
                // What stood there was displaced: the same replica never appends twice at one place.
                while self.in_flight.back().is_some_and(|entry| entry.position.index >= position.index) {
                    let displaced = self.in_flight.pop_back().expect("the back was just seen");
                    output.refuse(displaced.waiters, &Failure::LeadershipLost);
                }
                self.in_flight.push_back(InFlight { position, waiters });
            }
            Err(ProposeError::NotLeader { leader }) => output.refuse(waiters, &Failure::NotLeader { leader }),
            Err(ProposeError::Transferring) => output.refuse(waiters, &Failure::NotLeader { leader: None }),
            Err(ProposeError::NotAllowed) => output.refuse(waiters, &Failure::TooLarge),
            Err(ProposeError::Overloaded) => output.refuse(waiters, &Failure::Overloaded),
        }
    }

    pub(super) fn note_read(
        &mut self,
        id: ReadId,
        result: Result<LogIndex, ReadError>,
        output: &mut Output<W>,
    ) {
        let Some(query) = self.reads.remove(&id) else { return };
        match result {
            Ok(index) => {
                self.confirmed.push((index, query));
                self.answer_confirmed(output);
            }
            Err(ReadError::NotLeader { leader }) => output.refuse([query.2], &Failure::NotLeader { leader }),
            Err(ReadError::LeadershipLost) => {
                output.refuse([query.2], &Failure::NotLeader { leader: self.status.leader });
            }
            Err(ReadError::Overloaded) => output.refuse([query.2], &Failure::Overloaded),
        }
    }

    /// Hands out the queries whose state is here.
    pub(super) fn answer_confirmed(&mut self, output: &mut Output<W>) {
        let Some(machine) = &self.machine else { return };
        if self.confirmed.is_empty() {
            return;
        }
        if let Some(missing) = machine.missing_component() {
            output.needs.push(missing);
            return;
        }
        let applied = machine.applied();
        let (ready, waiting) =
            std::mem::take(&mut self.confirmed).into_iter().partition(|(at, _)| *at <= applied);
        self.confirmed = waiting;
        let ready: Vec<(LogIndex, (String, Bytes, W))> = ready;
        for (_, (name, body, waiter)) in ready {
            output.queries.push((machine.query(name, body), waiter));
        }
    }

    /// Another leader decides now what becomes of everything under way here.
    pub(super) fn lose_leadership(&mut self, leader: Option<NodeId>, output: &mut Output<W>) {
        for entry in std::mem::take(&mut self.in_flight) {
            output.refuse(entry.waiters, &Failure::LeadershipLost);
        }
        for (_, waiters) in std::mem::take(&mut self.proposals) {
            output.refuse(waiters, &Failure::LeadershipLost);
        }
        self.refuse_pending(&Failure::NotLeader { leader }, output);
    }

    fn refuse_pending(&mut self, failure: &Failure, output: &mut Output<W>) {
        self.pending_bytes = 0;
        output.refuse(std::mem::take(&mut self.pending).into_iter().map(|(_, waiter)| waiter), failure);
    }

    /// Ends this replica's part in the group.
    pub(super) fn fence(&mut self, reason: String, output: &mut Output<W>) {
        self.fenced = Some(reason.clone());
        self.held.clear();
        self.appends.clear();
        self.lose_leadership(None, output);
        let failure = Failure::Fenced(reason);
        self.frames.refuse_all(&failure, output);
        output.refuse(std::mem::take(&mut self.reads).into_values().map(|query| query.2), &failure);
        self.status.role = ReplicaRole::Follower;
        self.status.leader = None;
    }

    /// Stops applying, serving and leading; the replica goes on logging and voting.
    pub(super) fn halt(&mut self, why: String, output: &mut Output<W>) {
        let failure = Failure::ApplyHalted(why.clone());
        self.halted = Some(why);
        self.apply_queue.clear();
        self.frames.refuse_all(&failure, output);
        let reads = std::mem::take(&mut self.reads).into_values();
        output.refuse(reads.map(|query| query.2), &failure);
        output.refuse(std::mem::take(&mut self.confirmed).into_iter().map(|(_, query)| query.2), &failure);
        output.refuse(std::mem::take(&mut self.checkpoint_waiters), &failure);
    }

    /// Adds a persist request to what this turn's log batch will hold.
    pub(super) fn persist(&mut self, persist: Persist, local: &Local) {
        self.persisted_last = persist.token;
        if persist.reset.is_some() {
            // What this turn gathered before is void with the rest, but for the hard state.
            self.appends.iter_mut().for_each(|append| append.entries.clear());
        }
        if let Some(last) = self.appends.last_mut() {
            let follows = match (last.entries.last(), persist.entries.first()) {
                (Some(end), Some(start)) => end.index().next() == start.index(),
                _ => true,
            };
            if follows {
                last.entries.extend(persist.entries);
                last.hard_state = persist.hard_state.or(last.hard_state.take());
                return;
            }
        }
        self.appends.push(GroupAppend {
            group: self.id,
            incarnation: local.incarnation,
            boot: local.boot,
            hard_state: persist.hard_state,
            entries: persist.entries,
        });
    }

    /// A message as bytes for a member; `None` for a node that is not one.
    pub(super) fn frame(&self, local: &Local, to: NodeId, message: Message) -> Option<Bytes> {
        let member = self.config.member(to)?;
        let envelope = Envelope {
            group: self.id,
            epoch: self.config.epoch,
            incarnation: local.incarnation,
            boot: local.boot,
            to_incarnation: member.incarnation,
            message,
        };
        Some(envelope.encode())
    }

    pub(super) fn forget_served(&mut self, now: Now) {
        self.served.take_if(|served| served.is_idle(now));
    }

    /// Keeps the state at a durable checkpoint for those to whom it is offered; whoever fetches the one before
    /// goes on.
    pub(super) fn keep_checkpoint(&mut self, now: Now, mark: SnapshotMark, view: Option<StateView>) {
        let Some(view) = view.filter(|_| self.config.is_signed()) else { return };
        let before = self.checkpoint.replace(Served { mark, view, used: Time(0) });
        if let Some(before) = before.filter(|before| !before.is_idle(now)) {
            self.served = Some(before);
        }
    }
}
