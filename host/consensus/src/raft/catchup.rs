//! Followers too far behind, and the log behind everyone.
//!
//! Relies on the driver to make snapshots and to carry them. Promises that entries are dropped only
//! below a durable snapshot, and that a follower is told of one as long as it lacks it. Knows nothing
//! of what a snapshot holds.

use quorate_types::{LogIndex, NodeId};

use super::Raft;
use super::message::{Pledge, Statement};
use super::normal::Source;
use super::state::{HardState, Mode, Progress, Role, Turn};
use crate::{SnapshotFetch, SnapshotMark};

impl Source<'_> {
    /// Tells the follower of the latest snapshot, since the entries it lacks are gone.
    pub(super) fn offer(&self, turn: &mut Turn, to: NodeId, progress: &mut Progress) {
        progress.change(Mode::Snapshot { offered: turn.now.time }, progress.next);
        let mark = Box::new(self.mark.clone());
        turn.say(self.term, to, Statement::SnapshotOffer { mark });
    }
}

impl Raft {
    /// Offers a snapshot again to whom it was offered an election timeout ago.
    pub(super) fn renew_offers(&mut self, turn: &mut Turn) {
        let (now, patience) = (turn.now.time, self.timings.election_timeout);
        let Role::Leader(leader) = &mut self.role else { return };
        let source = Source { log: &self.log, mark: &self.mark, commit: self.commit, term: self.hard.term };
        for (to, progress) in &mut leader.progress {
            if let Mode::Snapshot { offered } = progress.mode
                && now.since(offered) >= patience
            {
                source.offer(turn, *to, progress);
            }
        }
    }

    pub(super) fn on_snapshot_offer(&mut self, turn: &mut Turn, from: NodeId, mark: &SnapshotMark) {
        let position = mark.position;
        let sane = mark.config.epoch == self.config.epoch
            && mark.config.validate().is_ok()
            && position.term <= self.hard.term;
        if !sane {
            self.counters.messages_ignored += 1;
            return;
        }
        if position.index <= self.commit {
            self.pledge(turn, from, Pledge::AppendAck { matched: self.commit });
        } else if self.log.holds(position) {
            // What a snapshot includes is committed, and this log agrees with it.
            self.commit_to(turn, position.index);
            self.pledge(turn, from, Pledge::AppendAck { matched: position.index });
        } else if self.fetching.is_none_or(|fetch| fetch.from != from) {
            let fetch = SnapshotFetch { from, position, content: None };
            self.fetching = Some(fetch);
            turn.effects.fetch = Some(fetch);
        }
    }

    /// A fetched snapshot is durable and in force.
    pub(super) fn snapshot_installed(&mut self, turn: &mut Turn, mark: SnapshotMark) {
        self.fetching = None;
        let position = mark.position;
        if mark.config.epoch != self.config.epoch {
            return turn.fence(format!("a snapshot of epoch {} was installed", mark.config.epoch));
        }
        if self.log.holds(position) {
            self.log.compact(position.index.next());
            self.flushes.cover(position.index);
        } else if position.index <= self.commit || matches!(self.role, Role::Leader(_)) {
            return turn.fence(format!("a snapshot at {position} was installed over another history"));
        } else {
            self.log.restart(position, mark.hlc);
            self.flushes.restart(position.index);
            turn.reset = Some(position);
        }
        if position.term > self.hard.term {
            self.hard = HardState { term: position.term, vote: None, ..self.hard };
            self.become_follower(turn);
        }
        self.commit = self.commit.max(position.index);
        self.mark = mark;
        if let Some(leader) = self.leader.filter(|leader| *leader != self.node) {
            self.pledge(turn, leader, Pledge::AppendAck { matched: position.index });
        }
    }

    /// A snapshot is durable here: the log before it may go.
    pub(super) fn compact(&mut self, turn: &mut Turn, mark: SnapshotMark, keep_from: LogIndex) {
        let position = mark.position;
        if position.index <= self.mark.position.index {
            return;
        }
        if position.index > self.commit {
            return turn
                .fence(format!("a snapshot at {position} includes more than committed {}", self.commit));
        }
        if self.log.position_at(position.index).is_some_and(|own| own != position) {
            return turn.fence(format!("a snapshot at {position} is not of this log"));
        }
        self.log.compact(keep_from.min(position.index.next()));
        self.mark = mark;
    }
}
