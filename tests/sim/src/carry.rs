//! How events happen: nodes take their inputs, and what their drivers ask for is carried out.
//!
//! Relies on the world. Promises the order of the product's shard: resets, log, messages, replies,
//! compaction, tables, fetches. Decides nothing of its own.

use std::time::Duration;

use quorate_node::driver::{Consistency, DriverInput, Failure, Output, Reply};
use quorate_types::{BatchItem, GroupId, NodeId, Outcome, Sequence, Time};

use crate::client::{Learned, OPENING, Request};
use crate::event::{Event, Message};
use crate::network::Endpoint;
use crate::node::{LogWork, TableWork, Waiter};
use crate::planted::{Planted, without_sessions};
use crate::violation::{Checked, Invariant, Violation};
use crate::world::World;

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
            Event::Lie(node) => self.lie(node),
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

    pub(crate) fn running(&mut self, node: NodeId) -> Option<&mut crate::node::Running> {
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
            let now = self.now;
            let liars = self.liars.as_mut().filter(|liars| liars.has(id));
            let frames = match liars {
                Some(liars) => liars.outgoing(now, id, to, frame),
                None => vec![(Duration::ZERO, frame)],
            };
            for (late, frame) in frames {
                self.frame_leaves(id, to, frame, late)?;
            }
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
        for group in output.orders {
            // Whoever leads takes it; to the others it is nothing.
            for node in self.nodes.keys().copied().collect::<Vec<_>>() {
                self.step(node, vec![DriverInput::OrderCheckpoint { group, waiter: Waiter::Nobody }])?;
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

    /// A frame leaves a node, so late.
    pub(crate) fn frame_leaves(
        &mut self,
        id: NodeId,
        to: NodeId,
        frame: bytes::Bytes,
        late: Duration,
    ) -> Checked {
        self.observer.leaves(id, to, &frame)?;
        self.trace.bytes(&frame);
        self.trace.line(|| format!("{id} -> {to} {}", crate::describe::frame(&frame)));
        self.send_late(Endpoint::Node(id), Endpoint::Node(to), Message::Frame(frame), late);
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

    /// What a frame is to the driver of a node, if it is believed.
    fn admit(&mut self, id: NodeId, from: NodeId, frame: bytes::Bytes) -> Option<DriverInput<Waiter>> {
        let Some(signing) = &self.plan.signing else { return Some(DriverInput::Frame { from, frame }) };
        if let Some(liars) = self.liars.as_mut().filter(|liars| liars.has(id)) {
            liars.incoming(&frame);
        }
        let node = self.nodes.get_mut(&id).filter(|node| node.running.is_some())?;
        signing.admit(self.now, from, &frame, &mut node.blocked)
    }

    fn arrive_at_node(&mut self, from: Endpoint, id: NodeId, message: Message) -> Checked {
        let input = match (message, from) {
            (Message::Frame(frame), Endpoint::Node(from)) => match self.admit(id, from, frame) {
                Some(input) => input,
                None => return Ok(()),
            },
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
                    Reply::SnapshotChunk(piece) => {
                        let liars = self.liars.as_mut().filter(|liars| liars.has(id));
                        Some(match liars {
                            Some(liars) => liars.piece(id, &piece),
                            None => piece,
                        })
                    }
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
