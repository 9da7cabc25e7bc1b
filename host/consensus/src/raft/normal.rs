//! The good path: entries out, acknowledgements back, commitment.
//!
//! Relies on [`super::rules`] for what may be appended, cut and committed. Promises that each follower
//! is sent no more than the bounds allow ahead of its acknowledgements. Knows nothing of elections.

use bytes::Bytes;
use quorate_types::{ENTRY_BYTES_MAX, Entry, EntryKind, LogIndex, NodeId, Position, Term};

use super::log::Log;
use super::message::{Pledge, Statement};
use super::state::{Mode, Progress, ReadRound, Role, Turn};
use super::{
    APPEND_BYTES_MAX, IN_FLIGHT_BYTES_MAX, IN_FLIGHT_MESSAGES_MAX, Raft, UNCOMMITTED_BYTES_MAX,
    UNCOMMITTED_ENTRIES_MAX, rules,
};
use crate::{Committed, Proposal, ProposeError, SnapshotMark, Token};

/// What a leader feeds its followers from.
pub(super) struct Source<'a> {
    pub(super) log: &'a Log,
    pub(super) mark: &'a SnapshotMark,
    pub(super) commit: LogIndex,
    pub(super) term: Term,
}

impl Source<'_> {
    /// Sends all that the follower's mode and the bounds allow.
    fn feed(&self, turn: &mut Turn, to: NodeId, progress: &mut Progress) {
        while !is_full(progress) && progress.next <= self.log.last().index {
            let Some(prev) = self.log.position_at(progress.next.previous()) else {
                return self.offer(turn, to, progress);
            };
            let entries = self.log.message_from(progress.next, APPEND_BYTES_MAX);
            let last = entries.last().map_or(prev.index, Entry::index);
            match &mut progress.mode {
                Mode::Probe { awaiting } => {
                    *awaiting = true;
                    progress.sent = turn.now.time;
                }
                _ => {
                    let bytes = entries.iter().map(Entry::encoded_len).sum();
                    progress.note_sent(last, bytes, turn.now.time);
                    progress.next = last.next();
                }
            }
            turn.say(self.term, to, Statement::Append { prev, commit: self.commit, entries });
        }
    }

    /// Asks without entries whether the follower holds what it should.
    fn probe(&self, turn: &mut Turn, to: NodeId, progress: &mut Progress) {
        let Some(prev) = self.log.position_at(progress.next.previous()) else {
            return self.offer(turn, to, progress);
        };
        progress.sent = turn.now.time;
        turn.say(self.term, to, Statement::Append { prev, commit: self.commit, entries: Vec::new() });
    }
}

fn is_full(progress: &Progress) -> bool {
    match progress.mode {
        Mode::Probe { awaiting } => awaiting,
        Mode::Replicate => {
            progress.in_flight.len() >= IN_FLIGHT_MESSAGES_MAX
                || progress.in_flight_bytes >= IN_FLIGHT_BYTES_MAX
        }
        Mode::Snapshot { .. } => true,
    }
}

impl Raft {
    pub(super) fn propose(&mut self, turn: &mut Turn, proposal: Proposal) {
        let result = match self.may_propose(proposal.kind, proposal.body.len()) {
            Ok(()) => {
                let position = self.append_own(turn, proposal.kind, proposal.body);
                self.feed_all(turn);
                Ok(position)
            }
            Err(error) => Err(error),
        };
        turn.effects.proposed.push((proposal.id, result));
    }

    fn may_propose(&self, kind: EntryKind, body_bytes: usize) -> Result<(), ProposeError> {
        let Role::Leader(leader) = &self.role else {
            return Err(ProposeError::NotLeader { leader: self.leader });
        };
        if kind != EntryKind::Batch || body_bytes > ENTRY_BYTES_MAX {
            return Err(ProposeError::NotAllowed);
        }
        if leader.transfer.is_some() {
            return Err(ProposeError::Transferring);
        }
        let entries = self.log.last().index.0 - self.commit.0;
        if entries >= UNCOMMITTED_ENTRIES_MAX || leader.uncommitted_bytes >= UNCOMMITTED_BYTES_MAX {
            return Err(ProposeError::Overloaded);
        }
        Ok(())
    }

    /// Appends an entry of this leader's term.
    pub(super) fn append_own(&mut self, turn: &mut Turn, kind: EntryKind, body: Bytes) -> Position {
        let index = self.log.last().index.next();
        let position = Position { epoch: self.hard.epoch, term: self.hard.term, index };
        let hlc = self.log.last_hlc().tick(turn.now.wall);
        let entry = Entry { position, hlc, kind, body };
        if let Role::Leader(leader) = &mut self.role {
            leader.uncommitted_bytes += entry.encoded_len();
        }
        self.log.push(entry.clone());
        turn.entries.push(entry);
        position
    }

    /// Sends every follower all that may be sent.
    pub(super) fn feed_all(&mut self, turn: &mut Turn) {
        let Role::Leader(leader) = &mut self.role else { return };
        let source = Source { log: &self.log, mark: &self.mark, commit: self.commit, term: self.hard.term };
        for (to, progress) in &mut leader.progress {
            source.feed(turn, *to, progress);
        }
    }

    /// Lets `change` look at one follower's progress, then sends it what may be sent.
    fn feed_after(
        &mut self,
        turn: &mut Turn,
        to: NodeId,
        change: impl FnOnce(&Source<'_>, &mut Turn, &mut Progress),
    ) {
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(progress) = leader.progress.get_mut(&to) else { return };
        let source = Source { log: &self.log, mark: &self.mark, commit: self.commit, term: self.hard.term };
        change(&source, turn, progress);
        source.feed(turn, to, progress);
    }

    /// Entries from the leader of this term.
    pub(super) fn on_append(
        &mut self,
        turn: &mut Turn,
        from: NodeId,
        prev: Position,
        commit: LogIndex,
        entries: Vec<Entry>,
    ) {
        let sane = rules::is_run(prev, &entries, self.hard.term)
            && entries.last().is_none_or(|entry| entry.position.epoch <= self.hard.epoch);
        if !sane {
            self.counters.messages_ignored += 1;
            return;
        }
        if self.fetching.is_some() {
            return;
        }
        let base = self.log.base().index;
        if prev.index >= base && !self.log.holds(prev) {
            if prev.index <= self.commit {
                return turn.fence(format!("the leader's {prev} is not what is committed here"));
            }
            let hint = self.log.last_not_after(prev.index.previous(), prev);
            return self.say(turn, from, Statement::AppendRefused { prev: prev.index, hint });
        }
        #[cfg(feature = "planted")]
        self.cut_without_conflict(prev);
        let end = entries.last().map_or(prev.index, Entry::index).max(base);
        let known = |entry: &Entry| entry.index() < base || self.log.holds(entry.position);
        if let Some(known) = entries.iter().position(|entry| !known(entry))
            && !self.take_entries(turn, from, commit, entries, known)
        {
            return;
        }
        self.pledge(turn, from, Pledge::AppendAck { matched: end });
        self.commit_to(turn, rules::follower_commit(commit, end));
    }

    /// Appends all but the first `known` of the entries, cutting a conflict; whether it did.
    fn take_entries(
        &mut self,
        turn: &mut Turn,
        from: NodeId,
        leader_commit: LogIndex,
        mut entries: Vec<Entry>,
        known: usize,
    ) -> bool {
        entries.drain(..known);
        let first = entries[0].index();
        if !rules::may_truncate(first, self.commit) {
            turn.fence(format!("the leader's {} is not what is committed here", entries[0].position));
            return false;
        }
        if self.log.hlc_at(first.previous()).is_none_or(|before| before >= entries[0].hlc) {
            self.counters.messages_ignored += 1;
            return false;
        }
        // What a quorum accepted already is taken whatever this replica's clock says.
        let (wall, skew_max) = (turn.now.wall, self.timings.clock_skew_max);
        let mut open = entries.iter().filter(|entry| entry.index() > leader_commit);
        if let Some(far) = open.find(|entry| !rules::is_stamp_near(entry.hlc, wall, skew_max)) {
            self.counters.stamps_refused += 1;
            self.say(turn, from, Statement::StampRefused { index: far.index() });
            return false;
        }
        if first <= self.log.last().index {
            self.log.truncate_from(first);
            self.flushes.truncate_from(first);
        }
        entries.iter().for_each(|entry| self.log.push(entry.clone()));
        turn.entries = entries;
        true
    }

    pub(super) fn on_append_ack(&mut self, turn: &mut Turn, from: NodeId, matched: LogIndex) {
        if matched > self.log.last().index {
            self.counters.messages_ignored += 1;
            return;
        }
        let base = self.log.base().index;
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(progress) = leader.progress.get_mut(&from) else { return };
        if matched < progress.matched {
            return;
        }
        let advanced = matched > progress.matched;
        if advanced {
            progress.note_matched(matched);
            progress.stamp_refused = None;
        }
        match progress.mode {
            Mode::Replicate => {}
            Mode::Snapshot { .. } if matched < base => {}
            Mode::Probe { .. } | Mode::Snapshot { .. } => progress.change(Mode::Replicate, matched.next()),
        }
        if advanced {
            self.advance_commit(turn);
        }
        self.feed_after(turn, from, |_, _, _| {});
        self.urge_target(turn);
    }

    pub(super) fn on_append_refused(
        &mut self,
        turn: &mut Turn,
        from: NodeId,
        prev: LogIndex,
        hint: Position,
    ) {
        self.feed_after(turn, from, |source, _, progress| match progress.mode {
            _ if prev <= progress.matched => {}
            Mode::Snapshot { .. } => {}
            Mode::Replicate => progress.change(Mode::Probe { awaiting: false }, progress.matched.next()),
            Mode::Probe { .. } if progress.next.previous() != prev => {}
            Mode::Probe { .. } => {
                let limit = hint.index.min(prev.previous());
                let agreed = if limit < source.log.base().index {
                    limit
                } else {
                    source.log.last_not_after(limit, hint).index
                };
                progress.change(Mode::Probe { awaiting: false }, agreed.next());
            }
        });
    }

    /// The follower's clock lies behind: it is asked again with the next heartbeat.
    pub(super) fn on_stamp_refused(&mut self, turn: &mut Turn, from: NodeId, index: LogIndex) {
        let now = turn.now.time;
        self.feed_after(turn, from, |_, _, progress| {
            if index > progress.matched && !matches!(progress.mode, Mode::Snapshot { .. }) {
                progress.stamp_refused.get_or_insert(now);
                progress.change(Mode::Probe { awaiting: true }, progress.matched.next());
            }
        });
    }

    pub(super) fn send_heartbeats(&mut self, turn: &mut Turn) {
        let Role::Leader(leader) = &self.role else { return };
        for (to, progress) in &leader.progress {
            let commit = self.commit.min(progress.matched);
            turn.say(self.hard.term, *to, Statement::Heartbeat { commit, round: leader.round });
        }
    }

    pub(super) fn on_heartbeat(&mut self, turn: &mut Turn, from: NodeId, commit: LogIndex, round: ReadRound) {
        // The leader names only what this replica acknowledged, so all of it agrees.
        if commit <= self.log.last().index {
            self.commit_to(turn, commit);
        }
        self.say(turn, from, Statement::HeartbeatAck { round });
    }

    pub(super) fn on_heartbeat_ack(&mut self, turn: &mut Turn, from: NodeId, round: ReadRound) {
        let (now, quiet) = (turn.now.time, self.timings.heartbeat);
        self.feed_after(turn, from, |source, turn, progress| {
            progress.round = progress.round.max(round);
            let waiting = match progress.mode {
                Mode::Probe { awaiting } => awaiting,
                Mode::Replicate => progress.matched < progress.next.previous(),
                Mode::Snapshot { .. } => false,
            };
            // Nothing came back for what was sent: it, or the answer, may be lost. A refused stamp is
            // offered again with its entry, since only time can cure it.
            if waiting && now.since(progress.sent) >= quiet {
                match progress.stamp_refused {
                    Some(_) => progress.mode = Mode::Probe { awaiting: false },
                    None => source.probe(turn, from, progress),
                }
            }
        });
        self.drive_reads(turn);
    }

    /// Everything up to a token is durable.
    pub(super) fn persisted(&mut self, turn: &mut Turn, token: Token) {
        let Some(flushed) = self.flushes.complete(token) else {
            return turn.fence(format!("{token:?} was reported durable and never issued"));
        };
        if flushed.ballot == Some((self.hard.term, Some(self.node))) {
            self.on_own_vote(turn);
        }
        if flushed.advanced {
            self.advance_commit(turn);
        }
    }

    /// Commits what a quorum holds durably, if this replica leads.
    fn advance_commit(&mut self, turn: &mut Turn) {
        let Role::Leader(leader) = &mut self.role else { return };
        let voters = leader.progress.values().filter(|progress| progress.voter);
        leader.scratch.clear();
        leader.scratch.push(self.flushes.durable());
        leader.scratch.extend(voters.map(|progress| progress.matched));
        let stored = rules::quorum_index(&mut leader.scratch, self.quorum);
        let term_at = self.log.position_at(stored).map(|position| position.term);
        #[cfg(feature = "planted")]
        let term_at = super::planted::term_counted(term_at, self.hard.term);
        if rules::may_commit(stored, self.commit, term_at, self.hard.term) {
            self.commit_to(turn, stored);
            self.drive_reads(turn);
        }
    }

    /// Delivers everything up to `index` that was not delivered yet.
    pub(super) fn commit_to(&mut self, turn: &mut Turn, index: LogIndex) {
        if index <= self.commit {
            return;
        }
        let news = self.log.range(self.commit.next(), index);
        if let Role::Leader(leader) = &mut self.role {
            let bytes: usize = news.clone().map(Entry::encoded_len).sum();
            leader.uncommitted_bytes = leader.uncommitted_bytes.saturating_sub(bytes);
        }
        turn.effects.deliver.extend(news.map(|entry| Committed { entry: entry.clone() }));
        self.commit = index;
    }
}
