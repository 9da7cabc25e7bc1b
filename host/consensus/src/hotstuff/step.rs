//! The one match over what can happen, and what a step's outcome is made into.
//!
//! Relies on the other files for each case. Promises that a step asks for one persist request at most, that
//! every promise leaves with a token, and that a broken invariant ends in a fence and nothing else. Decides
//! nothing itself.

use quorate_crypto::Stated;
use quorate_types::{LogIndex, NodeId, Term};

use super::message::{Body, Message};
use super::state::{HardState, Turn};
use super::{HotStuff, term_of};
use crate::{Effects, Fence, Input, Now, Outgoing, Persist, ReplicaRole, Status, Token};

impl HotStuff {
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
                (from, crate::Message::HotStuff(message)) => self.receive(&mut turn, from, message),
                _ => self.counters.messages_ignored += 1,
            },
            Input::Propose(proposal) => self.propose(&mut turn, proposal),
            Input::Read(id) => self.read(&mut turn, id),
            Input::Persisted(token) => self.persisted(&mut turn, token),
            Input::Applied(index) => self.applied(&mut turn, index),
            Input::Compact { mark, content, keep_from } => {
                self.compact(&mut turn, mark, content, keep_from);
            }
            Input::SnapshotInstalled(mark) => self.snapshot_installed(&mut turn, mark),
            Input::SnapshotFailed(position) => self.snapshot_failed(&mut turn, position),
            Input::TransferLeader(_) => {}
            Input::MayLead(may_lead) => self.may_lead = may_lead,
            Input::LeaderMissing | Input::CommandsWait => self.is_woken = true,
            Input::LeaderIgnores => self.refuse_leader(),
        }
        self.drive(&mut turn);
        self.finish(turn)
    }

    /// A message whose signature is its sender's.
    pub(super) fn receive(&mut self, turn: &mut Turn, from: NodeId, message: Message) {
        let is_own = from == self.node;
        if message.scope != *self.set.scope() || self.config.member(from).is_none() {
            self.counters.messages_ignored += 1;
            return;
        }
        let from_voter = self.set.member(from).is_some();
        let statement = message.statement();
        match message.body {
            Body::Request { after, high } if !is_own => self.on_request(turn, from, after, &high),
            _ if !from_voter => self.counters.messages_ignored += 1,
            Body::Proposal(_) => self.on_proposal(turn, from, message),
            Body::Vote { view, index, digest } => {
                self.on_vote(turn, from, (view, index, digest), (statement, message.signature));
            }
            Body::Timeout(timeout) => self.on_timeout(turn, from, *timeout, (statement, message.signature)),
            _ if is_own => self.counters.messages_ignored += 1,
            Body::NewView { high, timed_out } => self.on_new_view(turn, from, &high, timed_out),
            Body::Blocks(blocks) => self.on_blocks(turn, from, *blocks),
            Body::Offer(offer) => self.on_offer(turn, from, *offer),
            Body::Boot(life) => self.on_boot(turn, from, life),
            Body::Recorded(life) => self.on_recorded(from, life),
            Body::Stale(life) => self.on_stale(turn, from, life),
            Body::Request { .. } => {}
        }
    }

    fn tick(&mut self, turn: &mut Turn) {
        let now = turn.now.time;
        self.resume(turn);
        turn.may_be_empty = true;
        if self.boot_deadline.is_some_and(|deadline| deadline <= now) {
            self.announce_start(turn);
        }
        if self.search.is_some_and(|search| search.deadline <= now) {
            self.search_again(turn);
        }
        if self.view_deadline.is_some_and(|deadline| deadline <= now) {
            self.view_deadline = None;
            self.give_up(turn);
        }
    }

    /// Everything up to `token` is durable, and so is what this replica promised itself with it.
    fn persisted(&mut self, turn: &mut Turn, token: Token) {
        if token > self.issued {
            return turn.fence(format!("{token:?} is durable and was never asked for"));
        }
        while let Some((_, promise)) = self.loopback.pop_front_if(|(after, _)| *after <= token) {
            if let crate::Message::HotStuff(message) = promise.into_message() {
                self.receive(turn, self.node, message);
            }
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
        for (to, promise) in std::mem::take(&mut turn.promises) {
            if to == self.node {
                self.loopback.push_back((token, promise));
            } else {
                turn.effects.messages.push(Outgoing::after(to, promise, token));
            }
        }
        let status = self.current_status();
        if self.status.as_ref() != Some(&status) {
            self.status = Some(status.clone());
            turn.effects.status = Some(status);
        }
        turn.effects
    }

    /// Asks for hard state and entries to be persisted if there is anything new; the token that makes
    /// everything so far durable. A promise to itself needs a request of its own to be answered.
    fn persist(&mut self, turn: &mut Turn) -> Token {
        let changed = self.persisted.as_ref() != Some(self.voter.safety());
        let to_self = turn.promises.iter().any(|(to, _)| *to == self.node);
        if !changed && !turn.must_persist && turn.reset.is_none() && !to_self {
            return self.issued;
        }
        self.issued = Token(self.issued.0 + 1);
        self.persisted = Some(*self.voter.safety());
        turn.effects.persist = Some(Persist {
            token: self.issued,
            reset: turn.reset,
            hard_state: Some(self.hard_state().encode()),
            entries: std::mem::take(&mut turn.entries),
        });
        self.issued
    }

    fn hard_state(&self) -> HardState {
        HardState {
            epoch: self.config.epoch,
            safety: *self.voter.safety(),
            high: self.high.clone(),
            committed_by: self.committed_by.clone(),
            timed_out: self.timed_out.clone(),
            commit: self.commit,
            root: self.mark_header,
            cut: self.chain.cut().cloned().collect(),
            lives: self.lives.clone(),
        }
    }

    fn broken_invariant(&self) -> Option<String> {
        let (root, tip) = (self.chain.root().position.index, self.chain.tip().position.index);
        if root > self.commit || self.commit > tip {
            return Some(format!("commit {} lies outside the log from {root} to {tip}", self.commit));
        }
        let safety = self.voter.safety();
        if let Some(before) = self.persisted.filter(|before| !before.may_become(safety)) {
            return Some(format!("what was signed went from {before:?} to {safety:?}"));
        }
        if self.view != self.open_view() {
            return Some(format!("is in {} and certificates open {}", self.view, self.open_view()));
        }
        None
    }

    fn current_status(&self) -> Status {
        let tenure = self.expected_tenure();
        let leader = tenure.map(|tenure| self.schedule.leader(tenure));
        let role = if !self.is_voter() {
            ReplicaRole::Learner
        } else if leader == Some(self.node) {
            ReplicaRole::Leader
        } else {
            ReplicaRole::Follower
        };
        // A replica that lacks the block that says who leads knows of no later leader than it did.
        let known = self.status.as_ref().map_or(Term::ZERO, |status| status.term);
        let term = tenure.map_or(known, term_of);
        Status { epoch: self.config.epoch, term, role, leader, commit: self.commit }
    }

    /// Says something that binds nobody.
    pub(super) fn say(&self, turn: &mut Turn, to: NodeId, body: Body) {
        let Some(unbinding) = self.voter.say(body) else { return };
        turn.effects.messages.push(Outgoing::at_once(to, unbinding));
    }

    /// The other members that count.
    pub(super) fn other_voters(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.set.members().iter().map(|member| member.node).filter(|node| *node != self.node)
    }
}
