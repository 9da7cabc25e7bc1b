//! Faults as they happen: what the director wants done, traps, ends and starts of nodes, lies that nobody
//! asked for.
//!
//! Relies on the world. Promises that a node that ended starts again, and that no fault begins once the
//! cluster is healed but lies, which go on. Chooses nothing; the director does.

use std::time::Duration;

use quorate_node::driver::DriverInput;
use quorate_types::NodeId;

use crate::director::{Action, Trap};
use crate::event::Event;
use crate::network::Endpoint;
use crate::node::Waiter;
use crate::violation::{Checked, hold};
use crate::world::World;

impl World<'_> {
    pub(crate) fn after_election(&mut self, id: NodeId) {
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

    /// A liar says something of its own accord, and will again.
    pub(crate) fn lie(&mut self, id: NodeId) -> Checked {
        let now = self.now;
        let others: Vec<NodeId> = self.nodes.keys().copied().filter(|node| *node != id).collect();
        let is_up = self.nodes.get(&id).is_some_and(|node| node.running.is_some());
        let frames = match self.liars.as_mut().filter(|_| is_up) {
            Some(liars) => liars.unasked(now, id),
            None => Vec::new(),
        };
        for frame in frames {
            if let Some(to) = self.random.pick(&others).copied() {
                self.frame_leaves(id, to, frame, Duration::ZERO)?;
            }
        }
        self.queue.push(now.after(crate::world::DIRECTOR_INTERVAL), Event::Lie(id));
        Ok(())
    }

    pub(crate) fn direct(&mut self) {
        if !self.troubled {
            return;
        }
        let view = self.view();
        for (delay, action) in self.director.next(&view) {
            self.queue.push(self.now.after(delay), Event::Act(action));
        }
        if let Some(liars) = &mut self.liars {
            if self.director.is_waiting() { liars.rest() } else { liars.go_on() }
        }
        self.queue.push(self.now.after(crate::world::DIRECTOR_INTERVAL), Event::Director);
    }

    pub(crate) fn act(&mut self, action: Action) -> Checked {
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
    pub(crate) fn crash(&mut self, node: NodeId, downtime: Option<Duration>) {
        self.end(node, downtime, false);
    }

    /// Ends a node; unless it waits to be told, it starts again after a while.
    pub(crate) fn end(&mut self, id: NodeId, downtime: Option<Duration>, until_told: bool) {
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

    pub(crate) fn start(&mut self, id: NodeId) -> Checked {
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
        if self.plan.signing.is_some() {
            // The code is made ready at each node before it is put in force; nobody votes for it otherwise.
            let wait = Duration::from_micros(self.random.between(500, 20_000));
            let life = self.life(id);
            self.queue.push(now.after(wait), Event::Component(life));
        }
        self.step(id, Vec::new())
    }
}
