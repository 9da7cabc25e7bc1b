//! The driver: runs the replicas of many groups as one deterministic machine, inputs in, output out.
//!
//! Relies on `consensus` for what to do, on [`Machine`] for what entries mean. Promises that
//! messages which promise something leave only after the flush that makes it true, that every submitted
//! item gets exactly one reply, and that no group can harm another: a fault fences or halts one replica.
//! Knows no thread, socket, file or clock; the shard and the simulator drive it in the same way:
//!
//! ```text
//!            inputs                        output
//! mailbox ----------> turn(now, inputs) ----------> sends, log batch with a ticket, jobs, replies
//!    ^                                                 |
//!    +--- Flushed(ticket), Applied(job), ... <---------+   carried out by whoever drives
//! ```

mod apply;
mod backlog;
mod frames;
mod group;
mod io;
#[cfg(feature = "planted")]
pub mod planted;
mod signed;
mod snapshot;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use quorate_consensus::{Envelope, Input, Message, Now, ReplicaRole, StartError, Status, hotstuff};
use quorate_crypto::Verified;
use quorate_runtime::Component;
use quorate_types::{
    Batch, BatchItem, BootNumber, COMMANDS_PER_ENTRY_MAX, ClientFrame, Digest, ENTRY_BYTES_MAX, EntryKind,
    GroupId, Incarnation, LogIndex, NodeId, Position, Time, decode_frames,
};

use group::{Group, HeldMessage};

pub use apply::ApplyJob;
pub use backlog::{EntryEvents, Recent};
pub use frames::{AdmittedFrame, FORGOTTEN_AFTER, IGNORED_AFTER, RELAYED_AFTER, RelayedFrame};
pub use group::GroupReport;
pub use io::{
    CheckpointDone, CheckpointJob, Consistency, DriverInput, Failure, GroupStart, InstallDone, InstallJob,
    Output, RecoverError, Reply, Ticket,
};
pub use signed::{
    AcceptedCertificates, ClientRegister, FrameFault, Label, PayloadFault, Unverified, VerifiedFrame,
};
pub use snapshot::{Puller, PullerStep, SNAPSHOT_CHUNK_BYTES, SnapshotFault};

use crate::accused::Accused;
use crate::machine::Machine;

/// The most items that wait in one group for the leader to append them; more are `Overloaded`.
pub const PENDING_ITEMS_MAX: usize = 32_768;
/// The most bytes that wait in one group for the leader to append them.
pub const PENDING_BYTES_MAX: usize = 32 << 20;
/// The most bytes of items in one entry, far below what an entry may hold: one entry is one message, one
/// write and one apply.
pub const BATCH_BYTES_MAX: usize = 512 << 10;
/// The most entries that a group's leader appends before the first of them is applied. Few large
/// entries cost less than many small ones; a few in flight hide the flush and the network.
pub const ENTRIES_IN_FLIGHT_MAX: usize = 4;
/// The most queries of one group that wait for confirmation or for the state machine.
pub const READS_MAX: usize = 16_384;

const _: () = assert!(BATCH_BYTES_MAX + quorate_types::COMMAND_BODY_BYTES_MAX + 1_024 < ENTRY_BYTES_MAX);

/// Who this node is, in every message and record.
#[derive(Clone, Copy, Debug)]
pub struct Local {
    /// The node.
    pub node: NodeId,
    /// Which life of its durable state.
    pub incarnation: Incarnation,
    /// Which start of the process.
    pub boot: BootNumber,
    /// Seeds the choices of its replicas, such as election timeouts.
    pub seed: u64,
}

/// Counts of what the driver refused or dropped, each a sign of something to look at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DriverCounters {
    /// Frames that are not an envelope.
    pub frames_malformed: u64,
    /// Messages for a group this node does not run.
    pub messages_unknown_group: u64,
    /// Messages of another epoch, or to or from another life of a replica, or from a non-member.
    pub messages_stale: u64,
    /// Frames of a group that signs whose signatures nobody verified, and the other way round.
    pub messages_unverified: u64,
    /// Proposals not looked at, because they put code in force that is not here.
    pub proposals_unready: u64,
    /// Items refused because a group had too many waiting.
    pub items_overloaded: u64,
    /// Times that a leader was refused because it ordered other commands than those that waited here.
    pub leaders_refused: u64,
    /// Elections that a replica of this node won.
    pub elections_won: u64,
    /// Snapshots that a member sent and that were not what they had to be.
    pub snapshots_refused: u64,
    /// Entries applied.
    pub entries_applied: u64,
    /// Items applied.
    pub items_applied: u64,
}

/// The driver of all groups of one shard. `W` names whoever waits for a reply.
pub struct Driver<W> {
    local: Local,
    groups: BTreeMap<GroupId, Group<W>>,
    components: Arc<BTreeMap<Digest, Component>>,
    /// When each group wants its next tick; mirrors `Group::deadline`.
    deadlines: BTreeSet<(Time, GroupId)>,
    /// Groups that an input of this turn touched.
    touched: BTreeSet<GroupId>,
    /// Groups with something to persist.
    persisting: BTreeSet<GroupId>,
    /// Groups that may have entries to apply.
    ready: BTreeSet<GroupId>,
    ticket: Ticket,
    /// Flushes under way, oldest first, with the tokens each makes durable.
    flushes: std::collections::VecDeque<(Ticket, Vec<(GroupId, quorate_consensus::Token)>)>,
    counters: DriverCounters,
    serial: u64,
    /// Logs that were found void at start; told with the next turn.
    resets: Vec<(GroupId, Position)>,
}

impl<W> Driver<W> {
    /// A driver without groups.
    #[must_use]
    pub fn new(local: Local) -> Self {
        Self {
            local,
            groups: BTreeMap::new(),
            components: Arc::default(),
            deadlines: BTreeSet::new(),
            touched: BTreeSet::new(),
            persisting: BTreeSet::new(),
            ready: BTreeSet::new(),
            ticket: Ticket(0),
            flushes: std::collections::VecDeque::new(),
            counters: DriverCounters::default(),
            serial: 0,
            resets: Vec::new(),
        }
    }

    /// Takes inputs in order, then proposes what gathered, and says what is to be done.
    pub fn turn(&mut self, now: Now, inputs: impl IntoIterator<Item = DriverInput<W>>) -> Output<W> {
        let mut output = Output { reset: std::mem::take(&mut self.resets), ..Output::default() };
        for input in inputs {
            self.take(now, input, &mut output);
        }
        self.tick_due(now, &mut output);
        for id in std::mem::take(&mut self.touched) {
            self.propose_pending(id, now, &mut output);
            self.refresh_deadline(id, now);
        }
        self.touched.clear();
        self.gather_log(&mut output);
        output
    }

    /// When [`Driver::turn`] is due even without input.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        self.deadlines.first().map(|(time, _)| *time)
    }

    /// What the driver refused or dropped since it started.
    #[must_use]
    pub fn counters(&self) -> DriverCounters {
        self.counters
    }

    /// The groups run here.
    pub fn groups(&self) -> impl Iterator<Item = GroupId> + '_ {
        self.groups.keys().copied()
    }

    /// How a group stands, for people and watchers.
    #[must_use]
    pub fn report(&self, id: GroupId) -> Option<GroupReport> {
        self.groups.get(&id).map(Group::report)
    }

    /// The events of a group from this index on, as far as they are kept here.
    #[must_use]
    pub fn recent_events(&self, id: GroupId, from: LogIndex) -> Option<Recent> {
        self.groups.get(&id).map(|group| group.backlog.since(from))
    }

    /// Of whom a group's log proves a lie, unless a job holds its machine.
    #[must_use]
    pub fn accused(&self, id: GroupId) -> Option<Accused> {
        self.machine(id).map(|machine| machine.accused().clone())
    }

    /// A group's state machine, unless a job holds it.
    #[must_use]
    pub fn machine(&self, id: GroupId) -> Option<&Machine> {
        self.groups.get(&id).and_then(|group| group.machine.as_ref())
    }

    fn take(&mut self, now: Now, input: DriverInput<W>, output: &mut Output<W>) {
        match input {
            DriverInput::Frame { from, frame } => self.take_frame(now, from, frame, output),
            DriverInput::Verified(frame) => self.take_verified(now, *frame, output),
            DriverInput::Submit { group, items } => self.take_items(now, group, items, output),
            DriverInput::ClientFrame { group, frame, waiters } => {
                self.take_client_frame(now, group, frame, waiters, output);
            }
            DriverInput::Query { group, consistency, name, body, waiter } => {
                self.take_query(now, group, consistency, (name, body, waiter), output);
            }
            DriverInput::Flushed(ticket) => self.take_flushed(now, ticket, output),
            DriverInput::Applied(job) => self.take_applied(now, *job, output),
            DriverInput::Component(component) => self.take_component(now, &component, output),
            DriverInput::CheckpointDone(done) => self.take_checkpoint(now, done, output),
            DriverInput::SnapshotFetched(job) => self.take_fetched(now, *job, output),
            DriverInput::SnapshotInstalled(done) => self.take_installed(now, *done, output),
            DriverInput::SnapshotFailed { group, position } => {
                self.take_failed(now, group, position, output);
            }
            DriverInput::SnapshotRefused { group, position, from, fault } => {
                self.take_refused(now, (group, position), (from, fault), output);
            }
            DriverInput::ServeSnapshot { request, waiter } => self.take_serve(now, request, waiter, output),
            DriverInput::Checkpoint { group, waiter } => self.take_checkpoint_request(group, waiter, output),
            DriverInput::CheckpointDue(group) => self.take_checkpoint_due(group, output),
            DriverInput::OrderCheckpoint { group, waiter } => {
                self.take_checkpoint_order(now, group, waiter, output);
            }
            DriverInput::TransferLeader { group, to, waiter } => {
                self.take_transfer(now, group, to, waiter, output);
            }
            DriverInput::LeaderMissing(group) => self.step(now, group, Input::LeaderMissing, output),
            DriverInput::MayLead(may) => {
                let ids: Vec<_> = self.groups.keys().copied().collect();
                ids.into_iter().for_each(|id| self.step(now, id, Input::MayLead(may), output));
            }
        }
    }

    /// Starts a replica on its durable state.
    ///
    /// # Errors
    ///
    /// [`StartError`] for a state that cannot be continued safely; nothing is added then.
    pub fn add_group(&mut self, start: GroupStart, now: Now) -> Result<(), StartError> {
        let id = start.group();
        assert!(!self.groups.contains_key(&id), "group {id} is started once");
        let seed = self.local.seed ^ id.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let void = start.void;
        let mut group = Group::start(start, self.local.node, seed, now)?;
        // The next turn gives the replica its first tick, and carries out what it asks for.
        group.deadline = Some(now.time);
        self.deadlines.insert((now.time, id));
        self.groups.insert(id, group);
        self.resets.extend(void.map(|position| (id, position)));
        Ok(())
    }

    fn take_frame(&mut self, now: Now, from: NodeId, frame: Bytes, output: &mut Output<W>) {
        let Ok(envelope) = Envelope::decode(frame) else {
            self.counters.frames_malformed += 1;
            return;
        };
        let Envelope { group, epoch, incarnation, boot, to_incarnation, message } = envelope;
        let label = Label { group, epoch, incarnation, boot, to_incarnation };
        if self.groups.get(&group).is_some_and(|group| group.config.is_signed()) {
            self.counters.messages_unverified += 1;
            return;
        }
        self.take_message(now, label, Verified::from_authenticated_peer(from, message), output);
    }

    fn take_verified(&mut self, now: Now, frame: VerifiedFrame, output: &mut Output<W>) {
        let VerifiedFrame { label, message } = frame;
        if self.groups.get(&label.group).is_some_and(|group| !group.config.is_signed()) {
            self.counters.messages_unverified += 1;
            return;
        }
        if !self.could_apply(message.value()) {
            self.counters.proposals_unready += 1;
            return self.step(now, label.group, Input::LeaderMissing, output);
        }
        self.take_message(now, label, message, output);
    }

    /// Whether the code is here that a proposed block puts in force. Without it, the block is not voted for: else a
    /// leader that lies has the group agree on code that nobody has, and wait for it for ever. A block that a quorum
    /// voted for comes with its certificate, which shows that honest members have the code.
    fn could_apply(&self, message: &Message) -> bool {
        let Message::HotStuff(hotstuff::Message { body: hotstuff::Body::Proposal(proposal), .. }) = message
        else {
            return true;
        };
        let (kind, body) = (proposal.block.header().kind, proposal.block.body().clone());
        activated(kind, body).iter().all(|component| self.components.contains_key(component))
    }

    fn take_message(&mut self, now: Now, label: Label, message: Verified<Message>, output: &mut Output<W>) {
        let Some(group) = self.groups.get(&label.group) else {
            self.counters.messages_unknown_group += 1;
            return;
        };
        let sender = group.config.member(message.origin());
        let current = group.config.epoch == label.epoch
            && label.to_incarnation == self.local.incarnation
            && sender.is_some_and(|member| member.incarnation == label.incarnation);
        if !current {
            self.counters.messages_stale += 1;
            return;
        }
        self.step(now, label.group, Input::Message(message), output);
    }

    fn take_items(&mut self, now: Now, id: GroupId, items: Vec<(BatchItem, W)>, output: &mut Output<W>) {
        let Some(group) = self.groups.get_mut(&id) else {
            return output.refuse(items.into_iter().map(|(_, waiter)| waiter), &Failure::UnknownGroup);
        };
        if let Some(failure) = group.refusal() {
            output.refuse(items.into_iter().map(|(_, waiter)| waiter), &failure);
            // Idle members may each take another for the leader, and send whoever asks in circles.
            return self.step(now, id, Input::CommandsWait, output);
        }
        for (item, waiter) in items {
            let len = item.encoded_len();
            let full =
                group.pending.len() >= PENDING_ITEMS_MAX || group.pending_bytes + len > PENDING_BYTES_MAX;
            if full {
                self.counters.items_overloaded += 1;
                output.replies.push((waiter, Reply::Failed(Failure::Overloaded)));
            } else {
                group.pending_bytes += len;
                group.pending.push_back((item, waiter));
            }
        }
        self.touched.insert(id);
    }

    /// Holds a client's frame until it is applied, whoever leads.
    fn take_client_frame(
        &mut self,
        now: Now,
        id: GroupId,
        frame: AdmittedFrame,
        waiters: Vec<W>,
        output: &mut Output<W>,
    ) {
        let Some(group) = self.groups.get_mut(&id) else {
            return output.refuse(waiters, &Failure::UnknownGroup);
        };
        match group.refusal() {
            None | Some(Failure::NotLeader { .. }) => {}
            Some(failure) => return output.refuse(waiters, &failure),
        }
        // Whoever leads would propose in vain what nobody is ready for.
        let missing = frame.activates.iter().find(|component| !self.components.contains_key(component));
        if let Some(missing) = missing {
            return output.refuse(waiters, &Failure::ComponentMissing(*missing));
        }
        let was_empty = group.frames.is_empty();
        self.counters.items_overloaded += group.frames.take(now.time, frame, waiters, output) as u64;
        self.touched.insert(id);
        if was_empty && !group.frames.is_empty() && !group.is_leader() {
            self.step(now, id, Input::CommandsWait, output);
        }
    }

    /// Does what is due about frames that wait for too long.
    fn look_for_overdue(&mut self, now: Now, id: GroupId, output: &mut Output<W>) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let overdue = group.frames.overdue(now.time, output);
        if group.is_leader() {
            return;
        }
        if let Some(to) = group.status.leader {
            output.relays.extend(overdue.relay.into_iter().map(|bytes| (id, RelayedFrame { to, bytes })));
        }
        if overdue.is_ignored {
            self.counters.leaders_refused += 1;
            self.step(now, id, Input::LeaderIgnores, output);
        }
    }

    /// Appends entries made of what gathered, as far as the bound on entries in flight allows.
    fn propose_pending(&mut self, id: GroupId, now: Now, output: &mut Output<W>) {
        loop {
            let Some(group) = self.groups.get_mut(&id) else { return };
            if let Some(item) = group.own_item(now) {
                let proposal = group.own_proposal(self.serial, item);
                self.serial += 1;
                self.step(now, id, Input::Propose(proposal), output);
                return;
            }
            let frames_wait = group.is_leader() && group.frames.is_proposable();
            if group.pending.is_empty() && !frames_wait || !group.may_propose() {
                return;
            }
            let serial = self.serial;
            self.serial += 1;
            let proposal = if group.pending.is_empty() {
                group.next_frames(serial)
            } else {
                Some(group.next_proposal(serial, COMMANDS_PER_ENTRY_MAX, BATCH_BYTES_MAX))
            };
            let Some(proposal) = proposal else { return };
            self.step(now, id, Input::Propose(proposal), output);
        }
    }

    fn take_query(
        &mut self,
        now: Now,
        id: GroupId,
        consistency: Consistency,
        (name, body, waiter): (String, Bytes, W),
        output: &mut Output<W>,
    ) {
        let Some(group) = self.groups.get_mut(&id) else {
            return output.refuse([waiter], &Failure::UnknownGroup);
        };
        if let Some(why) = &group.halted {
            let failure = Failure::ApplyHalted(why.clone());
            return output.refuse([waiter], &failure);
        }
        if group.reads.len() + group.confirmed.len() >= READS_MAX {
            return output.refuse([waiter], &Failure::Overloaded);
        }
        match consistency {
            Consistency::Stale => {
                group.confirmed.push((LogIndex::ZERO, (name, body, waiter)));
                group.answer_confirmed(output);
            }
            Consistency::Linearizable => {
                let read = quorate_consensus::ReadId(self.serial);
                self.serial += 1;
                group.reads.insert(read, (name, body, waiter));
                self.step(now, id, Input::Read(read), output);
            }
        }
    }

    fn take_flushed(&mut self, now: Now, ticket: Ticket, output: &mut Output<W>) {
        while self.flushes.front().is_some_and(|(oldest, _)| *oldest <= ticket) {
            let (_, tokens) = self.flushes.pop_front().expect("the front was just seen");
            for (id, token) in tokens {
                let Some(group) = self.groups.get_mut(&id) else { continue };
                group.durable = group.durable.max(token);
                while group.held.front().is_some_and(|held| held.after <= token) {
                    let held = group.held.pop_front().expect("the front was just seen");
                    output.sends.push((held.to, held.frame));
                }
                self.step(now, id, Input::Persisted(token), output);
            }
        }
    }

    fn take_transfer(&mut self, now: Now, id: GroupId, to: NodeId, waiter: W, output: &mut Output<W>) {
        let Some(group) = self.groups.get(&id) else {
            return output.refuse([waiter], &Failure::UnknownGroup);
        };
        if !group.is_leader() {
            let failure = Failure::NotLeader { leader: group.status.leader };
            return output.refuse([waiter], &failure);
        }
        if !group.config.is_voter(to) {
            return output.refuse([waiter], &Failure::NotVoter { node: to });
        }
        output.replies.push((waiter, Reply::Accepted));
        self.step(now, id, Input::TransferLeader(to), output);
    }

    fn tick_due(&mut self, now: Now, output: &mut Output<W>) {
        while let Some((time, id)) = self.deadlines.first().copied()
            && time <= now.time
        {
            self.deadlines.pop_first();
            if let Some(group) = self.groups.get_mut(&id) {
                group.deadline = None;
                group.forget_served(now);
                // What waits goes first: a tick may make the replica go on without it.
                self.propose_pending(id, now, output);
                self.look_for_overdue(now, id, output);
                self.step(now, id, Input::Tick, output);
                self.touched.insert(id);
            }
        }
    }

    fn refresh_deadline(&mut self, id: GroupId, now: Now) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let next = group.next_deadline(now);
        if next != group.deadline {
            if let Some(old) = group.deadline {
                self.deadlines.remove(&(old, id));
            }
            if let Some(new) = next {
                self.deadlines.insert((new, id));
            }
            group.deadline = next;
        }
    }

    /// Steps one replica and files what it asks for.
    fn step(&mut self, now: Now, id: GroupId, input: Input, output: &mut Output<W>) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        if group.fenced.is_some() {
            return;
        }
        let effects = group.replica.step(now, input);
        self.touched.insert(id);
        if let Some(fence) = effects.fence {
            group.fence(fence.reason, output);
            return;
        }
        if let Some(persist) = effects.persist {
            output.reset.extend(persist.reset.map(|position| (id, position)));
            group.persist(persist, &self.local);
            self.persisting.insert(id);
        }
        for outgoing in effects.messages {
            let (to, message, after) = outgoing.into_parts();
            #[cfg(feature = "planted")]
            let spoken = planted::spoken(group.signs.as_ref(), to, message);
            #[cfg(not(feature = "planted"))]
            let spoken = [message];
            for message in spoken {
                let Some(frame) = group.frame(&self.local, to, message) else { continue };
                match after.filter(|token| *token > group.durable) {
                    Some(after) => group.held.push_back(HeldMessage { after, to, frame }),
                    None => output.sends.push((to, frame)),
                }
            }
        }
        if !effects.deliver.is_empty() && group.halted.is_none() {
            group.apply_queue.extend(effects.deliver.into_iter().map(|committed| committed.entry));
            self.ready.insert(id);
        }
        for evidence in effects.evidence {
            if group.is_news(&evidence) {
                output.evidence.push((id, evidence));
            }
        }
        for (proposal, result) in effects.proposed {
            group.note_proposed(proposal, result, output);
        }
        for (read, result) in effects.reads {
            group.note_read(read, result, output);
        }
        if let Some(fetch) = effects.fetch {
            output.fetches.push((id, fetch));
        }
        if let Some(status) = effects.status {
            self.note_status(now, id, status, output);
        }
    }

    fn note_status(&mut self, now: Now, id: GroupId, status: Status, output: &mut Output<W>) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let led = group.is_leader();
        let leads = status.role == ReplicaRole::Leader;
        if leads && !led {
            self.counters.elections_won += 1;
        }
        if led && (!leads || status.term != group.status.term) {
            group.lose_leadership(status.leader, output);
        }
        if group.status.leader != status.leader {
            group.frames.order_again(now.time);
        }
        let watched = group.status.role != status.role
            || group.status.leader != status.leader
            || group.status.term != status.term;
        group.status = status;
        if watched {
            output.changed.push(id);
        }
    }

    /// Turns what the groups want persisted into one log batch with one ticket.
    fn gather_log(&mut self, output: &mut Output<W>) {
        let mut tokens = Vec::new();
        for id in std::mem::take(&mut self.persisting) {
            let Some(group) = self.groups.get_mut(&id) else { continue };
            output.log.append(&mut group.appends);
            tokens.push((id, group.persisted_last));
        }
        if !tokens.is_empty() {
            self.ticket = Ticket(self.ticket.0 + 1);
            self.flushes.push_back((self.ticket, tokens));
            output.ticket = Some(self.ticket);
        }
    }
}

/// The components that an entry puts in force. What cannot be read has no meaning to anybody.
fn activated(kind: EntryKind, body: Bytes) -> Vec<Digest> {
    let batches = match kind {
        EntryKind::Empty | EntryKind::Stop => Vec::new(),
        EntryKind::Batch => vec![Batch::decode(body).unwrap_or_default()],
        EntryKind::Frames => {
            // Only frames with a certificate can hold any, and those are few.
            let frames = decode_frames(body).unwrap_or_default().into_iter();
            let frames = frames.filter_map(|frame| ClientFrame::decode(frame).ok());
            let certified = frames.filter(|frame| !frame.certificate.is_empty());
            certified.map(|frame| frame.batch().unwrap_or_default()).collect()
        }
    };
    batches.iter().flat_map(Batch::activates).collect()
}

#[cfg(test)]
mod tests {
    use quorate_types::{ClientKey, encode_frames};

    use super::*;

    /// What could go wrong: a block is voted for whose deployment nobody could carry out.
    #[test]
    fn what_a_block_puts_in_force_is_found_wherever_it_stands() {
        let activate = |digest, after| BatchItem::Activate {
            component: Digest([digest; 32]),
            parameters: Bytes::new(),
            after,
        };
        let frame = |certificate, items| {
            let items = Batch { items }.encode();
            ClientFrame { key: ClientKey([1; 32]), signature: [2; 64], certificate, items }.encode()
        };
        let batch = Batch { items: vec![BatchItem::Tick, activate(1, None), activate(2, None)] }.encode();
        assert_eq!(activated(EntryKind::Batch, batch), [Digest([1; 32]), Digest([2; 32])]);
        let certificate = Bytes::from_static(b"certificate");
        let frames = encode_frames(&[
            frame(Bytes::new(), vec![BatchItem::KeepSession(quorate_types::SessionId(1))]),
            frame(certificate, vec![activate(3, Some(0))]),
        ]);
        assert_eq!(activated(EntryKind::Frames, frames), [Digest([3; 32])]);
        for kind in [EntryKind::Empty, EntryKind::Stop, EntryKind::Batch, EntryKind::Frames] {
            assert_eq!(activated(kind, Bytes::from_static(b"garbage")), []);
        }
    }
}
