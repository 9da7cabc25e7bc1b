//! Starts, and replicas that speak from an old backup.
//!
//! Relies on the node to raise the boot number durably before each start. Promises that a replica signs
//! nothing that binds before a quorum recorded its start, and that one whose start is not later than a
//! recorded one is fenced once f + 1 members say so. Knows no view.

use std::collections::btree_map::Entry;

use quorate_types::NodeId;

use super::message::{Body, Life};
use super::state::Turn;
use super::{HotStuff, rules};

impl HotStuff {
    /// Announces this start to who did not record it yet.
    pub(super) fn announce_start(&mut self, turn: &mut Turn) {
        let life = self.life;
        let missing: Vec<NodeId> =
            self.other_voters().filter(|node| !self.recorded_by.contains(node)).collect();
        for to in missing {
            self.say(turn, to, Body::Boot(life));
        }
        self.boot_deadline = Some(turn.now.time.after(self.timings.election_timeout));
    }

    pub(super) fn on_boot(&mut self, turn: &mut Turn, from: NodeId, life: Life) {
        match self.lives.entry(from) {
            Entry::Occupied(recorded) if *recorded.get() == life => {}
            Entry::Occupied(recorded) if recorded.get().boot >= life.boot => {
                let stale = Body::Stale(*recorded.get());
                return self.say(turn, from, stale);
            }
            Entry::Occupied(mut recorded) => {
                recorded.insert(life);
                turn.must_persist = true;
            }
            Entry::Vacant(empty) => {
                empty.insert(life);
                turn.must_persist = true;
            }
        }
        turn.promises.push((from, self.voter.record(life)));
    }

    pub(super) fn on_recorded(&mut self, from: NodeId, life: Life) {
        if life != self.life || self.voter.is_admitted() {
            return;
        }
        self.recorded_by.insert(from);
        if self.recorded_by.len() + 1 >= self.set.quorum() {
            self.voter.admit();
            self.boot_deadline = None;
        }
    }

    pub(super) fn on_stale(&mut self, turn: &mut Turn, from: NodeId, life: Life) {
        if life.boot < self.life.boot || life == self.life {
            return;
        }
        self.stale_by.insert(from);
        if rules::is_one_honest(self.stale_by.len(), self.set.faults()) {
            turn.fence(format!(
                "start {} is not after the recorded start {}: this state was restored from an old backup",
                self.life.boot, life.boot
            ));
        }
    }
}
