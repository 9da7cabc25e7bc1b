//! How events happen: nodes take their inputs, and what their drivers ask for is carried out.
//!
//! Relies on the world. Promises the order of the product's shard: resets, log, messages, replies,
//! compaction, tables, fetches. Decides nothing of its own.

use std::time::Duration;

use bytes::Bytes;
use quorate_consensus::SnapshotFetch;
use quorate_node::driver::{Consistency, DriverInput, Failure, Output, Puller, PullerStep, Reply, Ticket};
use quorate_types::{BatchItem, GroupId, NodeId, Outcome, Sequence, Time};

use crate::client::{Learned, OPENING, Request};
use crate::director::{Action, Trap};
use crate::event::{Event, Message};
use crate::network::Endpoint;
use crate::node::{LogWork, Pull, TableWork, Waiter};
use crate::planted::{Planted, without_sessions, without_votes};
use crate::violation::{Checked, Invariant, Violation, hold};
use crate::world::World;

/// How long a node waits for a piece of a snapshot.
const PULL_PATIENCE: Duration = Duration::from_millis(120);
/// How often it asks for one piece.
const PULL_ATTEMPTS_MAX: u32 = 5;
/// Of a thousand apply jobs, so many run beside consensus.
const BESIDE_PER_MILLE: u32 = 150;

impl World<'_> {
    /// Lets one event happen.
    pub(crate) fn happen(&mut self, event: Event) -> Checked {
        match event {
            Event::Arrive { from, to, message } => match to {
                Endpoint::Node(node) => self.arrive_at_node(from, node, message),
                Endpoint::Client(client) => self.arrive_at_client(client, message),
            },
            Event::Client(client) => {
                self.wake_client(client);
                Ok(())
            }
            Event::Director => {
                self.direct();
                Ok(())
            }
            Event::Act(action) => self.act(action),
            Event::Wake(life) if self.lives(life) => {
                if let Some(running) = self.running(life.node) {
                    running.wake = None;
                }
                self.step(life.node, Vec::new())
            }
            Event::Flush(life) if self.lives(life) => self.flush(life.node),
            Event::Tables(life) if self.lives(life) => self.run_tables(life.node),
            Event::Applied(life, job) if self.lives(life) => {
                self.step(life.node, vec![DriverInput::Applied(job)])
            }
            Event::Component(life) if self.lives(life) => {
                let component = self.component.clone();
                self.step(life.node, vec![DriverInput::Component(component)])
            }
            Event::PullDue(life, group, pull, step) if self.lives(life) => {
                self.pull_again(life.node, group, pull, step)
            }
            Event::Crash(life) if self.troubled && self.lives(life) => {
                self.crash(life.node, None);
                Ok(())
            }
            Event::Wake(_)
            | Event::Flush(_)
            | Event::Tables(_)
            | Event::Applied(..)
            | Event::Component(_)
            | Event::PullDue(..)
            | Event::Crash(_) => Ok(()),
        }
    }

    fn running(&mut self, node: NodeId) -> Option<&mut crate::node::Running> {
        self.nodes.get_mut(&node).and_then(|node| node.running.as_mut())
    }

    /// One turn of a node's driver, and all that follows from it at once.
    pub(crate) fn step(&mut self, id: NodeId, inputs: Vec<DriverInput<Waiter>>) -> Checked {
        let mut inputs = inputs;
        loop {
            let time = self.now;
            let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
            let now = node.clock.now(time);
            let Some(running) = node.running.as_mut() else { return Ok(()) };
            let output = running.driver.turn(now, std::mem::take(&mut inputs));
            self.carry_out(id, output)?;
            let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
            let Some(running) = node.running.as_mut() else { return Ok(()) };
            let Some(mut job) = running.driver.next_apply() else { break };
            job.run();
            if node.random.chance(BESIDE_PER_MILLE) {
                let took = Duration::from_micros(node.random.between(50, 4_000));
                let life = self.life(id);
                self.queue.push(time.after(took), Event::Applied(life, Box::new(job)));
                continue;
            }
            inputs.push(DriverInput::Applied(Box::new(job)));
        }
        self.schedule_wake(id);
        Ok(())
    }

    fn schedule_wake(&mut self, id: NodeId) {
        let (now, life) = (self.now, self.life(id));
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let Some(running) = node.running.as_mut() else { return };
        let Some(due) = running.driver.next_deadline() else { return };
        let at = node.clock.when(due).max(Time(now.0 + 1));
        if running.wake.is_none_or(|planned| at < planned) {
            running.wake = Some(at);
            self.queue.push(at, Event::Wake(life));
        }
    }

    fn carry_out(&mut self, id: NodeId, output: Output<Waiter>) -> Checked {
        for (group, position) in &output.reset {
            self.observer.reset(id, *group, *position)?;
            self.trace.line(|| format!("{id} voids its log of {group} up to {position}"));
            self.log_work(id, LogWork::Reset(*group, *position));
        }
        self.note_log(id, &output)?;
        if let Some(ticket) = output.ticket {
            self.log_work(id, LogWork::Append(output.log, ticket));
        }
        for (to, frame) in output.sends {
            self.observer.leaves(id, to, &frame)?;
            self.trace.bytes(&frame);
            self.trace.line(|| format!("{id} -> {to} {}", crate::describe::frame(&frame)));
            self.send(Endpoint::Node(id), Endpoint::Node(to), Message::Frame(frame));
        }
        for (waiter, reply) in output.replies {
            self.give(id, waiter, reply)?;
        }
        for (job, waiter) in output.queries {
            let reply = match job.run() {
                Ok(answer) => Reply::Answer(answer),
                Err(why) => Reply::Failed(Failure::QueryHalted(why)),
            };
            self.give(id, waiter, reply)?;
        }
        for (group, through) in output.compact {
            self.log_work(id, LogWork::Compact(group, through));
        }
        let checkpoints = output.checkpoints.into_iter().map(TableWork::Checkpoint);
        for work in checkpoints.chain(output.installs.into_iter().map(TableWork::Install)) {
            if let Some(running) = self.running(id) {
                running.table_queue.push_back(work);
            }
        }
        for (group, fetch) in output.fetches {
            self.begin_pull(id, group, fetch);
        }
        if !output.needs.is_empty() {
            let wait = Duration::from_micros(self.random.between(500, 20_000));
            let life = self.life(id);
            self.queue.push(self.now.after(wait), Event::Component(life));
        }
        self.start_log(id)?;
        self.start_tables(id);
        Ok(())
    }

    /// Tells observer and trace what a driver logged and how its replicas stand.
    fn note_log(&mut self, id: NodeId, output: &Output<Waiter>) -> Checked {
        let groups: Vec<GroupId> = self.plan.groups.iter().map(|(machine, _)| machine.group).collect();
        for group in groups {
            let report = self.running(id).and_then(|running| running.driver.report(group));
            let Some(report) = report else { continue };
            for append in output.log.iter().filter(|append| append.group == group) {
                self.observer.logged(id, append, &report)?;
                self.trace.number(group.0);
                self.trace.bytes(append.hard_state.as_deref().unwrap_or_default());
                for entry in &append.entries {
                    self.trace.number(entry.position.term.0);
                    self.trace.number(entry.position.index.0);
                    self.trace.number(entry.hlc.0);
                    self.trace.bytes(&entry.body);
                }
                self.trace.line(|| format!("{id} logs {}", crate::describe::append(append)));
            }
            let led = self.observer.leader(group);
            self.observer.stands(id, group, &report)?;
            if let Some((index, digest)) = report.digest {
                self.trace.number(index.0);
                self.trace.bytes(&digest.0);
            }
            if led != Some(id) && self.observer.leader(group) == Some(id) {
                self.trace.line(|| format!("{id} leads {group} in {}", report.term));
                self.after_election(id);
            }
        }
        Ok(())
    }

    fn after_election(&mut self, id: NodeId) {
        let life = self.life(id);
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let Some(trap) = node.armed else { return };
        match trap {
            Trap::CrashAfterElection => {
                let wait = Duration::from_micros(node.random.between(0, 3_000));
                self.queue.push(self.now.after(wait), Event::Crash(life));
            }
            Trap::SwapAtElection(other) => {
                self.trace.line(|| format!("{id} is cut off and {other} is back"));
                for node in self.nodes.keys().copied().filter(|node| *node != id) {
                    let ends = (Endpoint::Node(id), Endpoint::Node(node));
                    self.network.cut(ends.0, ends.1);
                    self.network.cut(ends.1, ends.0);
                    if node != other {
                        self.network.mend(Endpoint::Node(other), Endpoint::Node(node));
                        self.network.mend(Endpoint::Node(node), Endpoint::Node(other));
                    }
                }
            }
            Trap::CrashAfterAppend | Trap::CrashInTables | Trap::CrashAfterInstall => return,
        }
        // One is enough; whoever is elected next goes free.
        for node in self.nodes.values_mut().filter(|node| node.armed == Some(trap)) {
            node.armed = None;
        }
    }

    fn log_work(&mut self, id: NodeId, work: LogWork) {
        if let Some(running) = self.running(id) {
            running.log_queue.push_back(work);
        }
    }

    /// The log thread, if it is idle, appends what waits and begins a flush.
    fn start_log(&mut self, id: NodeId) -> Checked {
        let (now, planted, life) = (self.now, self.planted, self.life(id));
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        let Some(running) = node.running.as_mut() else { return Ok(()) };
        if running.flushing.is_some() || running.log_queue.is_empty() {
            return Ok(());
        }
        if planted == Some(Planted::VotesTwice) {
            for work in &mut running.log_queue {
                if let LogWork::Append(batch, _) = work {
                    *batch = without_votes(std::mem::take(batch), &mut node.random);
                }
            }
        }
        let appended = running.append_waiting();
        hold!(appended.is_ok(), NoFence, "node {id} cannot write its log: {:?}", appended.as_ref().err());
        let Ok(appended) = appended else { return Ok(()) };
        let tickets = appended.flushing.tickets.clone();
        let something = !appended.written.is_empty();
        running.flushing = Some(appended.flushing);
        let delay = node.flush_delay();
        if something && node.armed == Some(Trap::CrashAfterAppend) {
            let wait = node.random.below(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX));
            self.queue.push(now.after(Duration::from_micros(wait)), Event::Crash(life));
        }
        self.queue.push(now.after(delay), Event::Flush(life));
        self.observer.appended(id, &appended.written)?;
        if planted == Some(Planted::AcknowledgesBeforeFlush) && !tickets.is_empty() {
            let early = tickets.into_iter().map(DriverInput::Flushed).collect();
            return self.step(id, early);
        }
        Ok(())
    }

    /// The log thread's flush ends.
    fn flush(&mut self, id: NodeId) -> Checked {
        let planted = self.planted;
        let Some(running) = self.running(id) else { return Ok(()) };
        let Some(flushing) = running.flushing.take() else { return Ok(()) };
        let mut result = Ok(());
        if !flushing.tickets.is_empty() {
            result = running.wal.flush();
        }
        while result.is_ok() && flushing.maintain {
            match running.wal.maintain() {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => result = Err(error),
            }
        }
        hold!(result.is_ok(), NoFence, "node {id} cannot flush its log: {:?}", result.as_ref().err());
        if !flushing.tickets.is_empty() {
            self.observer.flushed(id);
        }
        let tickets: Vec<Ticket> = flushing.tickets;
        self.start_log(id)?;
        if planted == Some(Planted::AcknowledgesBeforeFlush) {
            return Ok(());
        }
        let inputs: Vec<_> = tickets.into_iter().map(DriverInput::Flushed).collect();
        if inputs.is_empty() { Ok(()) } else { self.step(id, inputs) }
    }

    fn start_tables(&mut self, id: NodeId) {
        let (now, life) = (self.now, self.life(id));
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let delay = node.table_delay();
        let Some(running) = node.running.as_mut() else { return };
        if !running.tables_busy && !running.table_queue.is_empty() {
            running.tables_busy = true;
            self.queue.push(now.after(delay), Event::Tables(life));
        }
    }

    /// The tables thread does its first piece of work.
    fn run_tables(&mut self, id: NodeId) -> Checked {
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        let Some(running) = node.running.as_mut() else { return Ok(()) };
        let Some(work) = running.table_queue.pop_front() else { return Ok(()) };
        running.tables_busy = false;
        let torn = node.armed == Some(Trap::CrashInTables);
        if torn {
            node.disk.halt_after(node.random.below(24));
        }
        let ends_here =
            torn || (matches!(work, TableWork::Install(_)) && node.armed == Some(Trap::CrashAfterInstall));
        let (input, installed) = match work {
            TableWork::Checkpoint(job) => (job.run(&running.store).map(DriverInput::CheckpointDone), None),
            TableWork::Install(job) => {
                let (group, position) = (job.group(), job.position());
                let result = job.run(&running.store).map(|done| match done {
                    Ok(done) => DriverInput::SnapshotInstalled(Box::new(done)),
                    Err(_) => DriverInput::SnapshotFailed { group, position },
                });
                (result, Some((group, position)))
            }
        };
        if ends_here {
            self.observer.statistics_mut().table_crashes += 1;
            self.crash(id, None);
            return Ok(());
        }
        hold!(input.is_ok(), NoFence, "node {id} cannot write its tables: {:?}", input.as_ref().err());
        let Ok(input) = input else { return Ok(()) };
        match (&input, installed) {
            (DriverInput::SnapshotInstalled(_), Some((group, position))) => {
                self.observer.installed(id, group, position)?;
            }
            (DriverInput::CheckpointDone(_), _) => self.observer.statistics_mut().checkpoints += 1,
            _ => {}
        }
        self.step(id, vec![input])?;
        self.start_tables(id);
        Ok(())
    }

    fn arrive_at_node(&mut self, from: Endpoint, id: NodeId, message: Message) -> Checked {
        let input = match (message, from) {
            (Message::Frame(frame), Endpoint::Node(from)) => DriverInput::Frame { from, frame },
            (Message::Request(group, request), Endpoint::Client(client)) => {
                request_input(client, group, request)
            }
            (Message::SnapshotRequest { pull, step, request }, Endpoint::Node(from)) => {
                DriverInput::ServeSnapshot { request, waiter: Waiter::Pull(from, pull, step) }
            }
            (Message::SnapshotPiece { pull, step, piece }, _) => {
                return self.take_piece(id, pull, step, piece);
            }
            _ => return Ok(()),
        };
        self.step(id, vec![input])
    }

    /// Sends a driver's reply to whoever waits for it.
    fn give(&mut self, id: NodeId, waiter: Waiter, reply: Reply) -> Checked {
        let from = Endpoint::Node(id);
        match waiter {
            Waiter::Item(client, sequence) => {
                self.check_outcome(client, sequence, &reply)?;
                self.note_reply(&reply);
                self.trace.line(|| format!("{id} => client {client} {sequence} {reply:?}"));
                self.send(from, Endpoint::Client(client), Message::Reply(sequence, reply));
            }
            Waiter::Query(client, number) => {
                self.note_reply(&reply);
                self.send(from, Endpoint::Client(client), Message::Answer(number, reply));
            }
            Waiter::Pull(to, pull, step) => {
                let piece = match reply {
                    Reply::SnapshotChunk(piece)
                        if self.planted == Some(Planted::SessionsMissingFromSnapshot) =>
                    {
                        Some(without_sessions(&piece))
                    }
                    Reply::SnapshotChunk(piece) => Some(piece),
                    _ => None,
                };
                self.trace.bytes(piece.as_deref().unwrap_or_default());
                self.send(from, Endpoint::Node(to), Message::SnapshotPiece { pull, step, piece });
            }
            Waiter::Nobody => {}
        }
        Ok(())
    }

    fn note_reply(&mut self, reply: &Reply) {
        match reply {
            Reply::Outcome { outcome, index } => {
                self.trace.number(index.0);
                self.note_outcome(outcome);
            }
            Reply::Answer(answer) => {
                self.trace.number(answer.index.0);
                self.note_outcome(&answer.outcome);
            }
            _ => self.trace.number(0),
        }
    }

    fn note_outcome(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Done(body) => self.trace.bytes(body),
            Outcome::Rejected(rejection) => self.trace.number(u64::from(rejection.code)),
        }
    }

    fn check_outcome(&self, client: u32, sequence: Sequence, reply: &Reply) -> Checked {
        let Some(client) = self.clients.get(&client) else { return Ok(()) };
        match (reply, client.session()) {
            (Reply::Outcome { outcome, index }, Some(session)) if sequence != OPENING => {
                self.observer.answers(client.group(), (session, sequence), outcome, *index)
            }
            _ => Ok(()),
        }
    }

    fn arrive_at_client(&mut self, id: u32, message: Message) -> Checked {
        let now = self.now;
        let Some(client) = self.clients.get_mut(&id) else { return Ok(()) };
        let group = client.group();
        let learned = match message {
            Message::Reply(sequence, reply) => client.reply(now, sequence, reply),
            Message::Answer(number, reply) => client.answer(now, number, reply),
            _ => None,
        };
        match learned {
            Some(Learned::Acknowledged { session, sequence, outcome, index }) => {
                self.observer.acknowledged(group, (session, sequence), &outcome, index)?;
            }
            Some(Learned::Answered { outcome, index, floor }) => {
                self.observer.queried(group, floor, &outcome, index)?;
            }
            Some(Learned::Opened { outcome: Outcome::Rejected(rejection) }) => {
                return Err(Violation::new(
                    Invariant::ExactlyOnce,
                    format_args!("client {id} cannot begin: {}: {}", rejection.name, rejection.message),
                ));
            }
            Some(Learned::Opened { .. }) | None => {}
        }
        Ok(())
    }

    fn wake_client(&mut self, id: u32) {
        let now = self.now;
        let Some(client) = self.clients.get_mut(&id) else { return };
        let group = client.group();
        let (requests, next) = client.wake(now, self.observer.floor(group));
        for (node, request) in requests {
            self.send(Endpoint::Client(id), Endpoint::Node(node), Message::Request(group, request));
        }
        self.queue.push(next, Event::Client(id));
    }

    fn begin_pull(&mut self, id: NodeId, group: GroupId, fetch: SnapshotFetch) {
        self.pulls += 1;
        let number = self.pulls;
        let Some(running) = self.running(id) else { return };
        let Some(identity) = running.driver.identity(group) else { return };
        let pull = Pull {
            number,
            step: 0,
            attempts: 0,
            from: fetch.from,
            position: fetch.position,
            puller: Puller::new(identity, fetch),
        };
        running.pulls.insert(group, pull);
        self.send_pull(id, group);
    }

    fn send_pull(&mut self, id: NodeId, group: GroupId) {
        let (now, life) = (self.now, self.life(id));
        let Some(pull) = self.running(id).and_then(|running| running.pulls.get_mut(&group)) else { return };
        pull.attempts += 1;
        let (number, step, from, request) = (pull.number, pull.step, pull.from, pull.puller.request());
        self.queue.push(now.after(PULL_PATIENCE), Event::PullDue(life, group, number, step));
        let message = Message::SnapshotRequest { pull: number, step, request };
        self.send(Endpoint::Node(id), Endpoint::Node(from), message);
    }

    fn pull_again(&mut self, id: NodeId, group: GroupId, number: u64, step: u32) -> Checked {
        let Some(running) = self.running(id) else { return Ok(()) };
        let Some(pull) = running.pulls.get(&group) else { return Ok(()) };
        if pull.number != number || pull.step != step {
            return Ok(());
        }
        if pull.attempts < PULL_ATTEMPTS_MAX {
            self.send_pull(id, group);
            return Ok(());
        }
        self.fail_pull(id, group)
    }

    fn fail_pull(&mut self, id: NodeId, group: GroupId) -> Checked {
        let pull = self.running(id).and_then(|running| running.pulls.remove(&group));
        let Some(pull) = pull else { return Ok(()) };
        self.step(id, vec![DriverInput::SnapshotFailed { group, position: pull.position }])
    }

    fn take_piece(&mut self, id: NodeId, number: u64, step: u32, piece: Option<Bytes>) -> Checked {
        let Some(running) = self.running(id) else { return Ok(()) };
        let found = running.pulls.iter().find(|(_, pull)| pull.number == number && pull.step == step);
        let Some(group) = found.map(|(group, _)| *group) else { return Ok(()) };
        let Some(piece) = piece else { return self.fail_pull(id, group) };
        let Some(pull) = running.pulls.remove(&group) else { return Ok(()) };
        match pull.puller.take(piece) {
            PullerStep::More(puller) => {
                running.pulls.insert(group, Pull { puller, step: step + 1, attempts: 0, ..pull });
                self.send_pull(id, group);
                Ok(())
            }
            PullerStep::Complete(job) => self.step(id, vec![DriverInput::SnapshotFetched(job)]),
            PullerStep::Fault(_) => {
                self.step(id, vec![DriverInput::SnapshotFailed { group, position: pull.position }])
            }
        }
    }

    fn direct(&mut self) {
        if !self.troubled {
            return;
        }
        let view = self.view();
        for (delay, action) in self.director.next(&view) {
            self.queue.push(self.now.after(delay), Event::Act(action));
        }
        self.queue.push(self.now.after(crate::world::DIRECTOR_INTERVAL), Event::Director);
    }

    fn act(&mut self, action: Action) -> Checked {
        // Once healed, nothing happens any more but that nodes start.
        if !self.troubled && !matches!(action, Action::Restart(_)) {
            return Ok(());
        }
        self.trace.line(|| format!("{action:?}"));
        match action {
            Action::Crash(node, downtime) => {
                let told = downtime.is_none();
                self.end(node, downtime, told);
            }
            Action::Arm(node, point) => {
                if let Some(node) = self.nodes.get_mut(&node).filter(|node| node.running.is_some()) {
                    node.armed = Some(point);
                }
            }
            Action::CrashIfArmed(node) => {
                if self.nodes.get(&node).is_some_and(|node| node.armed.is_some()) {
                    self.crash(node, None);
                }
            }
            Action::Restart(node) => return self.start(node),
            Action::Cut(pairs) => pairs.into_iter().for_each(|(from, to)| self.network.cut(from, to)),
            Action::Mend(pairs) => pairs.into_iter().for_each(|(from, to)| self.network.mend(from, to)),
            Action::Network(conditions) => self.network.set_conditions(conditions),
            Action::SlowDisk(node, slow) => {
                if let Some(node) = self.nodes.get_mut(&node) {
                    node.slow = slow;
                }
            }
            Action::SetClock(node, ahead_ms) => {
                if let Some(node) = self.nodes.get_mut(&node) {
                    node.clock.set_ahead(ahead_ms);
                }
            }
            Action::Transfer(group, to) => {
                if let Some(leader) = self.observer.leader(group) {
                    let input = DriverInput::TransferLeader { group, to, waiter: Waiter::Nobody };
                    return self.step(leader, vec![input]);
                }
            }
        }
        Ok(())
    }

    /// Ends a node; it starts again after a while.
    fn crash(&mut self, node: NodeId, downtime: Option<Duration>) {
        self.end(node, downtime, false);
    }

    /// Ends a node; unless it waits to be told, it starts again after a while.
    fn end(&mut self, id: NodeId, downtime: Option<Duration>, until_told: bool) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&id).filter(|node| node.running.is_some()) else { return };
        self.observer.ended(id);
        node.crash();
        self.trace.line(|| format!("{id} has crashed"));
        if !until_told {
            let downtime = downtime.unwrap_or_else(|| self.director.downtime());
            self.queue.push(now.after(downtime), Event::Act(Action::Restart(id)));
        }
    }

    fn start(&mut self, id: NodeId) -> Checked {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&id).filter(|node| node.running.is_none()) else { return Ok(()) };
        let found = node.start(now, &self.plan);
        hold!(
            found.is_ok(),
            NoFence,
            "{}",
            found.as_ref().err().map(ToString::to_string).unwrap_or_default()
        );
        let Ok(found) = found else { return Ok(()) };
        self.trace.line(|| format!("{id} starts"));
        self.observer.started(id, &found)?;
        self.step(id, Vec::new())
    }
}

fn request_input(client: u32, group: GroupId, request: Request) -> DriverInput<Waiter> {
    match request {
        Request::Submit(items) => {
            let waiting = |(item, sequence): (BatchItem, Sequence)| (item, Waiter::Item(client, sequence));
            DriverInput::Submit { group, items: items.into_iter().map(waiting).collect() }
        }
        Request::Query { number, name, body } => DriverInput::Query {
            group,
            consistency: Consistency::Linearizable,
            name,
            body,
            waiter: Waiter::Query(client, number),
        },
    }
}
