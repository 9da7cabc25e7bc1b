//! Who leads: pre-vote, election, stepping down, and handing over.
//!
//! Relies on [`super::rules`] for every decision about votes. Promises that a replica campaigns only
//! when it may and that a leader without a quorum ends. Knows nothing of entries but their positions.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_types::{Entry, EntryKind, NodeId, Position, Term, Time};

use super::message::{Body, Pledge, Statement};
use super::state::{Ballot, HardState, Leader, Mode, Progress, ReadRound, Role, Transfer, Turn};
use super::{ABSTAIN_ELECTION_TIMEOUTS, Raft, counts, rules};
use crate::ReadError;

impl Raft {
    pub(super) fn tick(&mut self, turn: &mut Turn) {
        match &self.role {
            Role::Leader(_) => self.tick_leader(turn),
            _ if turn.now.time < self.election_deadline => {}
            // The one designated waits for its own vote to be durable, and for nothing else.
            Role::Candidate(ballot) if ballot.designated => self.arm_election(turn.now.time),
            _ if self.may_campaign(turn.now.time) => self.ask_for_pre_votes(turn),
            _ => {
                self.role = Role::Follower;
                self.leader = None;
                self.draw_election_timeout();
                self.arm_election(turn.now.time);
            }
        }
    }

    fn may_campaign(&self, now: Time) -> bool {
        let eligible = self.config.member(self.node).is_some_and(|own| counts(own.role) && own.priority > 0);
        eligible && self.may_lead && self.fetching.is_none() && now >= self.abstain_until
    }

    /// Silence counts from now on.
    fn arm_election(&mut self, now: Time) {
        self.election_deadline = now.after(self.election_timeout);
    }

    fn ask_for_pre_votes(&mut self, turn: &mut Turn) {
        self.draw_election_timeout();
        self.arm_election(turn.now.time);
        self.leader = None;
        let mut ballot = Ballot::default();
        ballot.granted.insert(self.node);
        if rules::is_quorum(ballot.granted.len(), self.quorum) {
            return self.campaign(turn, false);
        }
        self.role = Role::PreCandidate(ballot);
        let (term, last) = (self.hard.term.next(), self.log.last());
        self.peers().for_each(|peer| turn.say(term, peer, Statement::PreVote { last }));
    }

    pub(super) fn on_pre_vote(&mut self, turn: &mut Turn, from: NodeId, prospective: Term, last: Position) {
        if !self.is_voter() || !self.config.is_voter(from) {
            return;
        }
        // The term first: an asker that fell behind must learn of it even from the loyal.
        if prospective <= self.hard.term {
            return self.say(turn, from, Statement::Refused);
        }
        if self.is_leader_protected(turn.now.time) {
            return;
        }
        if rules::may_pre_vote(prospective, self.hard.term, last, self.log.last()) {
            turn.say(prospective, from, Statement::PreVoteGranted);
        } else {
            self.say(turn, from, Statement::Refused);
        }
    }

    pub(super) fn on_pre_vote_granted(&mut self, turn: &mut Turn, from: NodeId, prospective: Term) {
        let current = prospective == self.hard.term.next() && self.config.is_voter(from);
        let Role::PreCandidate(ballot) = &mut self.role else { return };
        if current {
            ballot.granted.insert(from);
            if rules::is_quorum(ballot.granted.len(), self.quorum) {
                self.campaign(turn, false);
            }
        }
    }

    /// Stands for election in the next term; its own vote counts once it is durable.
    fn campaign(&mut self, turn: &mut Turn, transfer: bool) {
        self.hard = HardState { term: self.hard.term.next(), vote: Some(self.node), ..self.hard };
        self.role = Role::Candidate(Ballot::default());
        self.leader = None;
        self.draw_election_timeout();
        self.arm_election(turn.now.time);
        let last = self.log.last();
        self.peers().for_each(|peer| self.pledge(turn, peer, Pledge::Candidacy { last, transfer }));
    }

    /// Whether the message is of this replica's term, which a greater one raises.
    pub(super) fn meet_term(&mut self, turn: &mut Turn, from: NodeId, term: Term, body: &Body) -> bool {
        let asks = body.is_from_leader() || matches!(body, Body::Pledge(Pledge::Candidacy { .. }));
        if asks && !self.config.is_voter(from) {
            self.counters.messages_ignored += 1;
            return false;
        }
        if term < self.hard.term {
            if asks {
                self.say(turn, from, Statement::Refused);
            }
            return false;
        }
        if term > self.hard.term {
            if let Body::Pledge(Pledge::Candidacy { transfer: false, .. }) = body
                && self.is_leader_protected(turn.now.time)
            {
                return false;
            }
            self.hard = HardState { term, vote: None, ..self.hard };
            self.become_follower(turn);
        }
        true
    }

    /// Whether a live leader makes this replica deaf to candidates; a leader counts on itself, since
    /// it steps down without a quorum.
    fn is_leader_protected(&self, now: Time) -> bool {
        match &self.role {
            Role::Leader(_) => true,
            _ => {
                self.leader.is_some()
                    && rules::is_leader_fresh(now, self.leader_heard, self.timings.election_timeout)
            }
        }
    }

    pub(super) fn on_candidacy(&mut self, turn: &mut Turn, from: NodeId, last: Position) {
        let repeated = self.hard.vote == Some(from);
        let open = self.is_voter() && (self.leader.is_none() || repeated);
        if open && rules::may_vote(self.hard.vote, from, last, self.log.last()) {
            self.hard.vote = Some(from);
            self.arm_election(turn.now.time);
            self.pledge(turn, from, Pledge::Vote);
        } else if self.is_voter() {
            self.say(turn, from, Statement::Refused);
        }
    }

    pub(super) fn on_vote(&mut self, turn: &mut Turn, from: NodeId) {
        if self.config.is_voter(from)
            && let Role::Candidate(ballot) = &mut self.role
        {
            ballot.granted.insert(from);
            self.count_votes(turn);
        }
    }

    /// This replica's own vote in the current term is durable.
    pub(super) fn on_own_vote(&mut self, turn: &mut Turn) {
        if let Role::Candidate(ballot) = &mut self.role {
            ballot.granted.insert(self.node);
            self.count_votes(turn);
        }
    }

    fn count_votes(&mut self, turn: &mut Turn) {
        let Role::Candidate(ballot) = &self.role else { return };
        let designated = ballot.designated && ballot.granted.contains(&self.node);
        if designated || rules::is_quorum(ballot.granted.len(), self.quorum) {
            self.lead(turn);
        }
    }

    fn lead(&mut self, turn: &mut Turn) {
        let (now, last) = (turn.now.time, self.log.last().index);
        let others = self.config.members.iter().filter(|member| member.node != self.node);
        let progress: BTreeMap<_, _> =
            others.map(|member| (member.node, Progress::new(counts(member.role), last, now))).collect();
        self.role = Role::Leader(Box::new(Leader {
            scratch: Vec::with_capacity(progress.len() + 1),
            progress,
            heartbeat_at: now.after(self.timings.heartbeat),
            uncommitted_bytes: self.log.range(self.commit.next(), last).map(Entry::encoded_len).sum(),
            reads: Default::default(),
            round: ReadRound::default(),
            transfer: None,
        }));
        self.leader = Some(self.node);
        self.append_own(turn, EntryKind::Empty, Bytes::new());
        self.feed_all(turn);
    }

    /// Ends whatever this replica was in its term; the vote stays.
    pub(super) fn become_follower(&mut self, turn: &mut Turn) {
        self.leader = None;
        if let Role::Leader(leader) = std::mem::replace(&mut self.role, Role::Follower) {
            let lost = leader.reads.into_iter().map(|read| (read.id, Err(ReadError::LeadershipLost)));
            turn.effects.reads.extend(lost);
            self.draw_election_timeout();
            self.arm_election(turn.now.time);
        }
    }

    /// Whether the sender leads this replica in the current term; if so, it was just heard.
    pub(super) fn follow(&mut self, turn: &mut Turn, from: NodeId) -> bool {
        let leads = self.leader.unwrap_or(from) == from && self.config.is_voter(from);
        if !leads || matches!(self.role, Role::Leader(_)) {
            self.counters.messages_ignored += 1;
            return false;
        }
        self.role = Role::Follower;
        self.leader = Some(from);
        self.leader_heard = turn.now.time;
        self.arm_election(turn.now.time);
        true
    }

    /// A member said something in this term.
    pub(super) fn note_heard(&mut self, now: Time, from: NodeId) {
        if let Role::Leader(leader) = &mut self.role
            && let Some(progress) = leader.progress.get_mut(&from)
        {
            progress.heard = now;
        }
    }

    fn tick_leader(&mut self, turn: &mut Turn) {
        let now = turn.now.time;
        let Role::Leader(leader) = &mut self.role else { return };
        if leader.transfer.is_some_and(|transfer| transfer.deadline <= now) {
            leader.transfer = None;
        }
        if now < leader.heartbeat_at {
            return;
        }
        leader.heartbeat_at = now.after(self.timings.heartbeat);
        let patience = self.timings.election_timeout;
        let voters = || leader.progress.values().filter(|progress| progress.voter);
        let heard = 1 + voters().filter(|progress| now.since(progress.heard) <= patience).count();
        if !rules::is_quorum(heard, self.quorum) {
            return self.become_follower(turn);
        }
        let refuses =
            |progress: &&Progress| progress.stamp_refused.is_some_and(|at| now.since(at) >= patience);
        let accepting = 1 + voters().count() - voters().filter(refuses).count();
        if !rules::is_quorum(accepting, self.quorum) {
            self.abstain_until = now.after(patience * ABSTAIN_ELECTION_TIMEOUTS);
            return self.become_follower(turn);
        }
        self.send_heartbeats(turn);
        self.renew_offers(turn);
        if self.may_lead {
            self.urge_target(turn);
        } else {
            self.hand_over(turn);
        }
    }

    pub(super) fn transfer(&mut self, turn: &mut Turn, target: NodeId) {
        let deadline = turn.now.time.after(self.timings.election_timeout);
        if let Role::Leader(leader) = &mut self.role
            && leader.progress.get(&target).is_some_and(|progress| progress.voter)
        {
            leader.transfer = Some(Transfer { target, deadline });
            self.urge_target(turn);
        }
    }

    /// Tells the target of a transfer to campaign, once it holds everything.
    pub(super) fn urge_target(&mut self, turn: &mut Turn) {
        let Role::Leader(leader) = &self.role else { return };
        let Some(Transfer { target, .. }) = leader.transfer else { return };
        let ready = leader.progress.get(&target).is_some_and(|held| held.matched == self.log.last().index);
        if ready {
            self.say(turn, target, Statement::TimeoutNow);
        }
    }

    pub(super) fn on_timeout_now(&mut self, turn: &mut Turn) {
        let able = self.is_voter() && self.may_lead && self.fetching.is_none();
        if able && rules::may_take_over(self.flushes.durable(), self.log.last().index) {
            self.campaign(turn, true);
        }
    }

    pub(super) fn set_may_lead(&mut self, turn: &mut Turn, may_lead: bool) {
        self.may_lead = may_lead;
        match self.role {
            _ if may_lead => {}
            Role::Leader(_) => self.hand_over(turn),
            _ => self.role = Role::Follower,
        }
    }

    /// Transfers leadership to the voter that is best prepared, unless a transfer is under way.
    fn hand_over(&mut self, turn: &mut Turn) {
        let (now, patience) = (turn.now.time, self.timings.election_timeout);
        let Role::Leader(leader) = &self.role else { return };
        if leader.transfer.is_some() {
            return self.urge_target(turn);
        }
        let preparation = |(node, progress): &(&NodeId, &Progress)| {
            let alive = now.since(progress.heard) <= patience;
            let serving = !matches!(progress.mode, Mode::Snapshot { .. });
            let priority = self.config.member(**node).map_or(0, |member| member.priority);
            (alive, serving, progress.matched, priority, Reverse(**node))
        };
        let voters = leader.progress.iter().filter(|(_, progress)| progress.voter);
        if let Some((target, _)) = voters.max_by_key(preparation) {
            self.transfer(turn, *target);
        }
    }
}
