//! Snapshots on their way from one node to another, piece by piece, asked for again when nothing comes.
//!
//! Relies on the world. Promises that each fetch ends in a snapshot or in its failure, unless a later one
//! takes its place. Knows nothing of what a piece holds.

use std::time::Duration;

use bytes::Bytes;
use quorate_consensus::SnapshotFetch;
use quorate_node::driver::{DriverInput, Puller, PullerStep};
use quorate_types::{GroupId, NodeId};

use crate::event::{Event, Message};
use crate::network::Endpoint;
use crate::node::Pull;
use crate::violation::Checked;
use crate::world::World;

/// How long a node waits for a piece of a snapshot.
const PULL_PATIENCE: Duration = Duration::from_millis(120);
/// How often it asks for one piece.
const PULL_ATTEMPTS_MAX: u32 = 5;

impl World<'_> {
    pub(crate) fn begin_pull(&mut self, id: NodeId, group: GroupId, fetch: SnapshotFetch) {
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

    pub(crate) fn send_pull(&mut self, id: NodeId, group: GroupId) {
        let (now, life) = (self.now, self.life(id));
        let Some(pull) = self.running(id).and_then(|running| running.pulls.get_mut(&group)) else { return };
        pull.attempts += 1;
        let (number, step, from, request) = (pull.number, pull.step, pull.from, pull.puller.request());
        self.queue.push(now.after(PULL_PATIENCE), Event::PullDue(life, group, number, step));
        let message = Message::SnapshotRequest { pull: number, step, request };
        self.send(Endpoint::Node(id), Endpoint::Node(from), message);
    }

    pub(crate) fn pull_again(&mut self, id: NodeId, group: GroupId, number: u64, step: u32) -> Checked {
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

    pub(crate) fn fail_pull(&mut self, id: NodeId, group: GroupId) -> Checked {
        let pull = self.running(id).and_then(|running| running.pulls.remove(&group));
        let Some(pull) = pull else { return Ok(()) };
        self.step(id, vec![DriverInput::SnapshotFailed { group, position: pull.position }])
    }

    pub(crate) fn take_piece(&mut self, id: NodeId, number: u64, step: u32, piece: Option<Bytes>) -> Checked {
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
}
