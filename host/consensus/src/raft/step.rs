//! The one match over what can happen, and what a step's outcome is made into.
//!
//! Relies on the other files for each case. Promises that a step asks for one persist request at most,
//! that every pledge leaves with a token, and that a broken invariant ends in a fence and nothing else.
//! Decides nothing itself.

use quorate_types::NodeId;

use super::message::{Body, Message, Pledge, Statement};
use super::state::{Role, Turn};
use super::{LogIndex, Raft};
use crate::effects::{Promise, Unbinding};
use crate::{Effects, Fence, Input, Now, Outgoing, Persist, ReplicaRole, Status, Token};

impl Raft {
    /// Takes one input. Inputs must come one at a time with `now` never going back.
    #[must_use]
    pub fn step(&mut self, now: Now, input: Input) -> Effects {
        if self.fenced {
            return Effects::default();
        }
        let mut turn = Turn::new(now);
        match input {
            Input::Tick => self.tick(&mut turn),
            Input::Message(message) => match message.into_parts() {
                (from, crate::Message::Raft(message)) => self.receive(&mut turn, from, message),
                _ => self.counters.messages_ignored += 1,
            },
            Input::Propose(proposal) => self.propose(&mut turn, proposal),
            Input::Read(id) => self.read(&mut turn, id),
            Input::Persisted(token) => self.persisted(&mut turn, token),
            Input::Applied(index) => self.applied(&mut turn, index),
            Input::Compact { mark, content: _, keep_from } => self.compact(&mut turn, mark, keep_from),
            Input::SnapshotInstalled(mark) => self.snapshot_installed(&mut turn, mark),
            Input::SnapshotFailed(_) => self.fetching = None,
            Input::TransferLeader(target) => self.transfer(&mut turn, target),
            Input::MayLead(may_lead) => self.set_may_lead(&mut turn, may_lead),
            Input::LeaderMissing | Input::CommandsWait | Input::LeaderIgnores => {}
        }
        self.finish(turn)
    }

    fn receive(&mut self, turn: &mut Turn, from: NodeId, message: Message) {
        if from == self.node || self.config.member(from).is_none() {
            self.counters.messages_ignored += 1;
            return;
        }
        let Message { term, body } = message;
        match body {
            // These name a term that nobody is in yet.
            Body::Statement(Statement::PreVote { last }) => self.on_pre_vote(turn, from, term, last),
            Body::Statement(Statement::PreVoteGranted) => self.on_pre_vote_granted(turn, from, term),
            body => {
                if self.meet_term(turn, from, term, &body) {
                    self.note_heard(turn.now.time, from);
                    self.receive_in_term(turn, from, body);
                }
            }
        }
    }

    /// A message of the current term.
    fn receive_in_term(&mut self, turn: &mut Turn, from: NodeId, body: Body) {
        if body.is_from_leader() && !self.follow(turn, from) {
            return;
        }
        match body {
            Body::Statement(statement) => match statement {
                Statement::Append { prev, commit, entries } => {
                    self.on_append(turn, from, prev, commit, entries);
                }
                Statement::Heartbeat { commit, round } => self.on_heartbeat(turn, from, commit, round),
                Statement::SnapshotOffer { mark } => self.on_snapshot_offer(turn, from, &mark),
                Statement::TimeoutNow => self.on_timeout_now(turn),
                Statement::AppendRefused { prev, hint } => self.on_append_refused(turn, from, prev, hint),
                Statement::StampRefused { index } => self.on_stamp_refused(turn, from, index),
                Statement::HeartbeatAck { round } => self.on_heartbeat_ack(turn, from, round),
                // Asked for, and no: a candidate waits for its timeout.
                Statement::Refused => {}
                // Taken before terms are compared.
                Statement::PreVote { .. } | Statement::PreVoteGranted => {}
            },
            Body::Pledge(Pledge::Candidacy { last, .. }) => self.on_candidacy(turn, from, last),
            Body::Pledge(Pledge::Vote) => self.on_vote(turn, from),
            Body::Pledge(Pledge::AppendAck { matched }) => self.on_append_ack(turn, from, matched),
        }
    }

    fn applied(&mut self, turn: &mut Turn, index: LogIndex) {
        if index > self.commit {
            turn.fence(format!("entry {index} was applied and only {} is committed", self.commit));
        }
    }

    /// Turns what the step gathered into effects.
    fn finish(&mut self, mut turn: Turn) -> Effects {
        if let Some(reason) = turn.fence.take().or_else(|| self.broken_invariant()) {
            self.fenced = true;
            return Effects { fence: Some(Fence { reason }), ..Effects::default() };
        }
        let token = self.persist(&mut turn);
        let promises = turn.promises.into_iter();
        turn.effects.messages.extend(promises.map(|(to, promise)| Outgoing::after(to, promise, token)));
        let status = self.current_status();
        if self.status.as_ref() != Some(&status) {
            self.status = Some(status.clone());
            turn.effects.status = Some(status);
        }
        turn.effects
    }

    /// Asks for term, vote and entries to be persisted if there is anything new; the token that makes
    /// everything so far durable.
    fn persist(&mut self, turn: &mut Turn) -> Token {
        let changed = self.persisted != Some(self.hard);
        if !changed && turn.entries.is_empty() && turn.reset.is_none() {
            return self.flushes.issued();
        }
        let entries = std::mem::take(&mut turn.entries);
        let last = entries.last().map(quorate_types::Entry::index);
        let token = self.flushes.issue(last, changed.then_some((self.hard.term, self.hard.vote)));
        let hard_state = changed.then(|| self.hard.encode());
        self.persisted = Some(self.hard);
        turn.effects.persist = Some(Persist { token, reset: turn.reset, hard_state, entries });
        token
    }

    fn broken_invariant(&self) -> Option<String> {
        let (base, commit, last) = (self.log.base().index, self.commit, self.log.last());
        if base > commit || commit > last.index {
            return Some(format!("commit {commit} lies outside the log from {base} to {}", last.index));
        }
        if self.flushes.durable() > last.index {
            return Some(format!("durable up to {} beyond the last {}", self.flushes.durable(), last.index));
        }
        if last.epoch == self.hard.epoch && last.term > self.hard.term {
            return Some(format!("the last entry {last} is of a later term than {}", self.hard.term));
        }
        if let Some(before) = self.persisted {
            let (term, vote) = (self.hard.term, self.hard.vote);
            if before.term > term || (before.term == term && before.vote.is_some() && before.vote != vote) {
                return Some(format!("term and vote went from {before:?} to {term} {vote:?}"));
            }
        }
        if matches!(self.role, Role::Leader(_)) && self.hard.vote != Some(self.node) {
            return Some(format!("leads {} without its own vote", self.hard.term));
        }
        None
    }

    fn current_status(&self) -> Status {
        let role = match &self.role {
            _ if !self.is_voter() => ReplicaRole::Learner,
            Role::Follower => ReplicaRole::Follower,
            Role::PreCandidate(_) | Role::Candidate(_) => ReplicaRole::Candidate,
            Role::Leader(_) => ReplicaRole::Leader,
        };
        let (epoch, term) = (self.config.epoch, self.hard.term);
        Status { epoch, term, role, leader: self.leader, commit: self.commit }
    }

    /// Says something that binds nobody.
    pub(super) fn say(&self, turn: &mut Turn, to: NodeId, statement: Statement) {
        turn.say(self.hard.term, to, statement);
    }

    /// Promises something that holds once this step's state is durable.
    pub(super) fn pledge(&self, turn: &mut Turn, to: NodeId, pledge: Pledge) {
        turn.promises.push((to, Promise::raft(self.hard.term, pledge)));
    }
}

impl Turn {
    /// Says something that binds nobody.
    pub(super) fn say(&mut self, term: quorate_types::Term, to: NodeId, statement: Statement) {
        self.effects.messages.push(Outgoing::at_once(to, Unbinding::raft(term, statement)));
    }
}
