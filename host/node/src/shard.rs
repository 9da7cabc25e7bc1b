//! A shard: one driver, its mailbox, and the carrying out of what the driver asks for.
//!
//! Relies on the driver for every decision. Promises that a turn is bounded, that quick applies run in
//! place after the turn's messages are under way and slow ones beside, and that replies of one turn reach
//! a connection together. Knows no protocol.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_consensus::hotstuff::Evidence;
use quorate_runtime::StateView;
use quorate_types::{BatchItem, Digest, GroupId, LogIndex, NodeId};
use tokio::sync::oneshot;

use crate::accused::Accused;
use crate::clock::Clock;
use crate::driver::{
    AdmittedFrame, ApplyJob, Driver, DriverInput, EntryEvents, Failure, GroupReport, GroupStart, Output,
    Recent, RelayedFrame, Reply, SnapshotFault,
};
use crate::machine::MachineIdentity;
use crate::mailbox::Mailbox;
use crate::workers::{LogWork, StoreWork};

/// The most inputs one turn takes, so that flushes and messages are not held up by a long queue.
const TURN_INPUTS_MAX: usize = 4_096;

/// Collects the replies of one connection's stream.
pub trait ReplySink: Send + Sync {
    /// Takes one reply.
    fn reply(&self, tag: u64, reply: Reply);
    /// No more replies come in this turn.
    fn flush(&self);
}

/// Who waits for a reply.
pub enum Waiter {
    /// An item of a stream, by its tag.
    Stream(Arc<dyn ReplySink>, u64),
    /// One request.
    Once(oneshot::Sender<Reply>),
}

impl std::fmt::Debug for Waiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stream(_, tag) => write!(f, "Stream({tag})"),
            Self::Once(_) => write!(f, "Once"),
        }
    }
}

/// What a shard can be told.
#[derive(Debug)]
pub enum ShardInput {
    /// For the driver.
    Driver(DriverInput<Waiter>),
    /// Start a replica.
    AddGroup(Box<GroupStart>),
    /// How a group stands.
    Report(GroupId, oneshot::Sender<Option<GroupReport>>),
    /// A group's events from an index on, and how it stands.
    Recent(GroupId, LogIndex, oneshot::Sender<Option<(GroupReport, Recent)>>),
    /// Of whom a group's log proves a lie.
    Accused(GroupId, oneshot::Sender<Option<Accused>>),
    /// End the shard.
    Stop,
}

/// The way to a shard.
#[derive(Clone, Debug)]
pub struct ShardSender(Arc<Mailbox<ShardInput>>);

impl ShardSender {
    /// A way to a new mailbox with this bound.
    #[must_use]
    pub fn new(bound: usize) -> Self {
        Self(Arc::new(Mailbox::new(bound)))
    }

    /// Hands over items from a client; all are refused as overloaded when the mailbox is full.
    pub fn submit(&self, group: GroupId, items: Vec<(BatchItem, Waiter)>) {
        if let Err(full) = self.0.offer(ShardInput::Driver(DriverInput::Submit { group, items }))
            && let ShardInput::Driver(DriverInput::Submit { items, .. }) = full.0
        {
            refuse_all(items.into_iter().map(|(_, waiter)| waiter), &Failure::Overloaded);
        }
    }

    /// Hands over a frame from a peer; dropped when the mailbox is full, as a network may drop it.
    pub fn frame(&self, from: NodeId, frame: Bytes) {
        if self.0.offer(ShardInput::Driver(DriverInput::Frame { from, frame })).is_err() {
            tracing::debug!(%from, "a shard's mailbox is full; a frame was dropped");
        }
    }

    /// Hands over a message whose signatures were verified; dropped when the mailbox is full.
    pub fn verified(&self, from: NodeId, input: DriverInput<Waiter>) {
        if self.0.offer(ShardInput::Driver(input)).is_err() {
            tracing::debug!(%from, "a shard's mailbox is full; a verified message was dropped");
        }
    }

    /// Hands over a client's frame whose signature was verified; refused as overloaded when the mailbox is full.
    pub fn client_frame(&self, group: GroupId, frame: AdmittedFrame, waiters: Vec<Waiter>) {
        let input = DriverInput::ClientFrame { group, frame, waiters };
        if let Err(full) = self.0.offer(ShardInput::Driver(input))
            && let ShardInput::Driver(DriverInput::ClientFrame { waiters, .. }) = full.0
        {
            refuse_all(waiters, &Failure::Overloaded);
        }
    }

    /// How many inputs wait.
    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        self.0.len()
    }

    /// Hands over a request with one answer.
    ///
    /// # Errors
    ///
    /// [`Failure`] when it could not be done.
    pub async fn ask(&self, input: impl FnOnce(Waiter) -> DriverInput<Waiter>) -> Result<Reply, Failure> {
        let (sender, receiver) = oneshot::channel();
        if self.0.offer(ShardInput::Driver(input(Waiter::Once(sender)))).is_err() {
            return Err(Failure::Overloaded);
        }
        match receiver.await {
            Ok(Reply::Failed(failure)) => Err(failure),
            Ok(reply) => Ok(reply),
            Err(_) => Err(Failure::Overloaded),
        }
    }

    /// Hands over a completion of the node's own.
    pub fn complete(&self, input: DriverInput<Waiter>) {
        self.0.complete(ShardInput::Driver(input));
    }

    /// Hands over anything else.
    pub fn tell(&self, input: ShardInput) {
        self.0.complete(input);
    }
}

/// Tells all of them why not.
pub fn refuse_all(waiters: impl IntoIterator<Item = Waiter>, failure: &Failure) {
    answer(waiters.into_iter().map(|waiter| (waiter, Reply::Failed(failure.clone()))));
}

/// What a shard needs of the rest of the node.
pub trait Surroundings: Send + Sync + 'static {
    /// Sends a frame to a peer, or drops it.
    fn send(&self, to: NodeId, frame: Bytes);
    /// Fetches a snapshot and reports it to the shard.
    fn fetch(&self, shard: &ShardSender, identity: MachineIdentity, fetch: quorate_consensus::SnapshotFetch);
    /// Notes that a member sent a snapshot which is not what it has to be.
    fn refused(&self, group: GroupId, from: NodeId, fault: SnapshotFault);
    /// Has the group's leader order a checkpoint.
    fn order_checkpoint(&self, group: GroupId);
    /// Finds and compiles a component and reports it to the shards.
    fn need(&self, component: Digest);
    /// Keeps the proof of a lie and has it ordered.
    fn evidence(&self, group: GroupId, evidence: Evidence);
    /// Hands a client's frame to the leader.
    fn relay(&self, group: GroupId, frame: RelayedFrame);
    /// Shows events to watchers.
    fn events(&self, group: GroupId, events: EntryEvents);
    /// Tells watchers that entries up to this one came by snapshot.
    fn skipped(&self, group: GroupId, through: LogIndex);
    /// Shows a group's new status to watchers.
    fn changed(&self, group: GroupId, report: GroupReport);
    /// The catalog's state changed.
    fn catalog(&self, view: StateView);
}

/// One shard.
pub struct Shard<S> {
    /// The way to it.
    pub sender: ShardSender,
    /// What it runs.
    pub driver: Driver<Waiter>,
    /// The node's clocks.
    pub clock: Clock,
    /// The log thread.
    pub log: std::sync::mpsc::Sender<LogWork>,
    /// The checkpoint thread.
    pub store: std::sync::mpsc::Sender<StoreWork>,
    /// The rest of the node.
    pub surroundings: Arc<S>,
}

impl<S: Surroundings> Shard<S> {
    /// Runs until told to stop.
    pub async fn run(mut self) {
        let mut inputs = Vec::new();
        loop {
            let mailbox = Arc::clone(&self.sender.0);
            match self.driver.next_deadline().map(|time| self.clock.instant(time)) {
                Some(due) => {
                    tokio::select! {
                        biased;
                        () = mailbox.arrival() => {}
                        () = tokio::time::sleep_until(due.into()) => {}
                    }
                }
                None => mailbox.arrival().await,
            }
            mailbox.take(&mut inputs);
            while !inputs.is_empty()
                || self.driver.next_deadline().is_some_and(|d| d <= self.clock.now().time)
            {
                let rest = inputs.split_off(inputs.len().min(TURN_INPUTS_MAX));
                if !self.turn(std::mem::replace(&mut inputs, rest)) {
                    return;
                }
                // Connections on the same thread get their turn as well.
                tokio::task::yield_now().await;
                mailbox.take(&mut inputs);
            }
        }
    }

    /// One bounded turn; `false` when told to stop.
    fn turn(&mut self, inputs: Vec<ShardInput>) -> bool {
        let now = self.clock.now();
        let mut driver_inputs = Vec::with_capacity(inputs.len());
        for input in inputs {
            match input {
                ShardInput::Driver(input) => driver_inputs.push(input),
                ShardInput::AddGroup(start) => {
                    let group = start.group();
                    if let Err(error) = self.driver.add_group(*start, now) {
                        tracing::error!(%group, %error, "a replica cannot start on its durable state");
                    }
                }
                // Whoever asked may have left.
                ShardInput::Report(group, reply) => drop(reply.send(self.driver.report(group))),
                ShardInput::Accused(group, reply) => drop(reply.send(self.driver.accused(group))),
                ShardInput::Recent(group, from, reply) => {
                    let report = self.driver.report(group);
                    drop(reply.send(report.zip(self.driver.recent_events(group, from))));
                }
                ShardInput::Stop => return false,
            }
        }
        let output = self.driver.turn(now, driver_inputs);
        self.carry_out(output);
        while let Some(job) = self.driver.next_apply() {
            if job.is_quick() {
                let job = run_timed(job);
                let output = self.driver.turn(self.clock.now(), [DriverInput::Applied(Box::new(job))]);
                self.carry_out(output);
            } else {
                let sender = self.sender.clone();
                tokio::task::spawn_blocking(move || {
                    sender.complete(DriverInput::Applied(Box::new(run_timed(job))))
                });
            }
        }
        true
    }

    fn carry_out(&mut self, output: Output<Waiter>) {
        for (group, position) in output.reset {
            self.log_work(LogWork::Reset(group, position));
        }
        if let Some(ticket) = output.ticket {
            let shard = self.sender.clone();
            self.log_work(LogWork::Append { batch: output.log, ticket, shard });
        }
        for (to, frame) in output.sends {
            self.surroundings.send(to, frame);
        }
        answer(output.replies);
        for (job, waiter) in output.queries {
            tokio::task::spawn_blocking(move || {
                let reply = match job.run() {
                    Ok(found) => Reply::Answer(found),
                    Err(why) => Reply::Failed(Failure::QueryHalted(why)),
                };
                answer([(waiter, reply)]);
            });
        }
        for (group, through) in output.compact {
            self.log_work(LogWork::Compact(group, through));
        }
        for job in output.checkpoints {
            self.store_work(StoreWork::Checkpoint(job, self.sender.clone()));
        }
        for job in output.installs {
            self.store_work(StoreWork::Install(job, self.sender.clone()));
        }
        for (group, fetch) in output.fetches {
            if let Some(identity) = self.driver.identity(group) {
                self.surroundings.fetch(&self.sender, identity, fetch);
            }
        }
        for (group, from, fault) in output.refused {
            self.surroundings.refused(group, from, fault);
        }
        output.orders.into_iter().for_each(|group| self.surroundings.order_checkpoint(group));
        output.needs.into_iter().for_each(|digest| self.surroundings.need(digest));
        for (group, evidence) in output.evidence {
            self.surroundings.evidence(group, evidence);
        }
        for (group, frame) in output.relays {
            self.surroundings.relay(group, frame);
        }
        for (group, events) in output.events {
            self.surroundings.events(group, events);
        }
        for (group, through) in output.skipped {
            self.surroundings.skipped(group, through);
        }
        for group in output.changed {
            if let Some(report) = self.driver.report(group) {
                self.surroundings.changed(group, report);
            }
        }
        if let Some(view) = output.catalog {
            self.surroundings.catalog(view);
        }
    }

    fn log_work(&self, work: LogWork) {
        if self.log.send(work).is_err() {
            // The thread has reported why, and the node is stopping; nothing is acknowledged any more.
            tracing::debug!("the log thread has ended");
        }
    }

    fn store_work(&self, work: StoreWork) {
        if self.store.send(work).is_err() {
            tracing::debug!("the checkpoint thread has ended");
        }
    }
}

fn run_timed(mut job: ApplyJob) -> ApplyJob {
    let begun = Instant::now();
    job.run();
    job.note_duration(u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX));
    job
}

/// Hands out replies; each stream is flushed once.
fn answer(replies: impl IntoIterator<Item = (Waiter, Reply)>) {
    let mut sinks: Vec<Arc<dyn ReplySink>> = Vec::new();
    for (waiter, reply) in replies {
        match waiter {
            Waiter::Stream(sink, tag) => {
                sink.reply(tag, reply);
                if sinks.last().is_none_or(|last| !Arc::ptr_eq(last, &sink)) {
                    sinks.push(sink);
                }
            }
            // Whoever asked may have left.
            Waiter::Once(sender) => drop(sender.send(reply)),
        }
    }
    // Thousands of connections may have a reply each.
    sinks.sort_unstable_by_key(|sink| Arc::as_ptr(sink).cast::<()>());
    sinks.dedup_by(|one, other| Arc::ptr_eq(one, other));
    sinks.iter().for_each(|sink| sink.flush());
}

/// How long a node waits for its shards to come to rest.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(5);
