//! Linearizable reads by heartbeat rounds (ReadIndex, Ongaro thesis §6.4).
//!
//! Relies on heartbeats carrying the last round begun. Promises that a read is answered only with a
//! commit index that was taken after it arrived, and after a quorum followed this leader since. Holds
//! reads back until the leader committed in its own term.

use quorate_types::NodeId;

use super::state::{Leader, PendingRead, ReadRound, Role, Turn};
use super::{PENDING_READS_MAX, Raft, rules};
use crate::{ReadError, ReadId};

impl Raft {
    pub(super) fn read(&mut self, turn: &mut Turn, id: ReadId) {
        match self.file_read(id) {
            Ok(()) => self.drive_reads(turn),
            Err(error) => turn.effects.reads.push((id, Err(error))),
        }
    }

    fn file_read(&mut self, id: ReadId) -> Result<(), ReadError> {
        let known: Option<NodeId> = self.leader;
        let Role::Leader(leader) = &mut self.role else {
            return Err(ReadError::NotLeader { leader: known });
        };
        // The next leader may commit before this one hears of it.
        if leader.transfer.is_some() {
            return Err(ReadError::NotLeader { leader: None });
        }
        if leader.reads.len() >= PENDING_READS_MAX {
            return Err(ReadError::Overloaded);
        }
        leader.reads.push_back(PendingRead { id, begun: None });
        Ok(())
    }

    /// Answers the reads of a confirmed round, then begins one for those that came meanwhile.
    pub(super) fn drive_reads(&mut self, turn: &mut Turn) {
        loop {
            let Role::Leader(leader) = &mut self.role else { return };
            while let Some((id, index)) = leader.take_confirmed(self.quorum) {
                turn.effects.reads.push((id, Ok(index)));
            }
            let term_at_commit = self.log.position_at(self.commit).map(|position| position.term);
            // A round under way is waited for: one round at a time confirms any number of reads.
            let waiting = leader.reads.front().is_some_and(|read| read.begun.is_none());
            if !waiting || !rules::may_confirm_reads(term_at_commit, self.hard.term) {
                return;
            }
            leader.round = ReadRound(leader.round.0 + 1);
            let begun = Some((leader.round, self.commit));
            leader.reads.iter_mut().for_each(|read| read.begun = begun);
            self.send_heartbeats(turn);
        }
    }
}

impl Leader {
    /// The oldest read, if a quorum answered its round.
    fn take_confirmed(&mut self, quorum: usize) -> Option<(ReadId, quorate_types::LogIndex)> {
        let read = self.reads.front()?;
        let (round, index) = read.begun?;
        let answered =
            self.progress.values().filter(|follower| follower.voter && follower.round >= round).count();
        if !rules::is_quorum(1 + answered, quorum) {
            return None;
        }
        let id = read.id;
        self.reads.pop_front();
        Some((id, index))
    }
}
