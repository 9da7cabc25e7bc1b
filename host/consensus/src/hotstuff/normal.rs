//! The good path: proposals, votes, certificates, commitment, and reads.
//!
//! Relies on [`super::rules`] and on the voter for what may be signed. Promises that a leader proposes only
//! when something waits, so that an idle group is silent. Knows nothing of waiting times.

use quorate_crypto::{Certificate, Signature, Statement, StatementKind};
use quorate_types::{Digest, ENTRY_BYTES_MAX, EntryKind, LogIndex, NodeId, View};

use super::block::{Block, Header};
use super::evidence::Evidence;
use super::message::{Body, Justify, Message, Proposal};
use super::rules::{self, TimedOut};
use super::state::{Ballot, Turn};
use super::voter::of_certificate;
use super::{
    FUTURE_VIEWS_MAX, HotStuff, MILESTONE, ORPHANS_MAX, PENDING_READS_MAX, PendingRead, QUEUED_BYTES_MAX,
    QUEUED_MAX, position_of,
};
use crate::{Committed, ProposeError, ReadError, ReadId};

impl HotStuff {
    /// Files an entry for a block of its own; it is told of once it is in one.
    pub(super) fn propose(&mut self, turn: &mut Turn, proposal: crate::Proposal) {
        let leader = self.expected_leader();
        let refused = if leader != Some(self.node) || !self.may_lead {
            // Whoever asks waits for a leader: if there is none, it shall be replaced.
            self.is_woken = true;
            Some(ProposeError::NotLeader { leader: leader.filter(|leader| *leader != self.node) })
        } else if !matches!(proposal.kind, EntryKind::Batch | EntryKind::Frames)
            || proposal.body.len() > ENTRY_BYTES_MAX
        {
            Some(ProposeError::NotAllowed)
        } else if self.queue.len() >= QUEUED_MAX || self.queued_bytes >= QUEUED_BYTES_MAX {
            Some(ProposeError::Overloaded)
        } else {
            None
        };
        match refused {
            Some(error) => turn.effects.proposed.push((proposal.id, Err(error))),
            None => {
                self.queued_bytes += proposal.body.len();
                self.queue.push_back(proposal);
            }
        }
    }

    /// Files a read: it is answered once a block proposed after it is committed.
    pub(super) fn read(&mut self, turn: &mut Turn, id: ReadId) {
        let leader = self.expected_leader();
        if leader != Some(self.node) || !self.may_lead {
            self.is_woken = true;
            let leader = leader.filter(|leader| *leader != self.node);
            turn.effects.reads.push((id, Err(ReadError::NotLeader { leader })));
        } else if self.reads.len() >= PENDING_READS_MAX {
            turn.effects.reads.push((id, Err(ReadError::Overloaded)));
        } else {
            self.reads.push_back(PendingRead { id, target: None });
        }
    }

    /// Whether an entry that is proposed now is in a block at once.
    pub(crate) fn is_ready(&self) -> bool {
        self.queue.is_empty() && self.may_propose() && self.chain.header(&self.high_digest()).is_some()
    }

    /// Whether this replica leads the view and has not proposed in it.
    fn may_propose(&self) -> bool {
        let safety = self.voter.safety();
        self.may_lead
            && self.is_rooted
            && self.fetching.is_none()
            && self.voter.is_admitted()
            && rules::may_propose(self.view, safety.proposed, safety.last_voted)
            && self.leader() == Some(self.node)
    }

    /// Proposes if this replica leads the view and something waits.
    pub(super) fn try_propose(&mut self, turn: &mut Turn) {
        self.empty_deadline = None;
        if !self.may_propose() {
            return;
        }
        let parent_digest = self.high_digest();
        let Some(parent) = self.chain.header(&parent_digest).copied() else { return };
        if self.queue.is_empty() && !self.is_woken && !self.needs_empty_block(parent_digest) {
            return self.come_to_rest(turn);
        }
        if self.queue.is_empty() && !turn.may_be_empty {
            self.empty_deadline = Some(turn.now.time);
            return;
        }
        let timed_out = if self.high.view().next() == self.view { None } else { self.timed_out.clone() };
        let (kind, body, id) = match self.queue.pop_front() {
            Some(proposal) => {
                self.queued_bytes -= proposal.body.len();
                (proposal.kind, proposal.body, Some(proposal.id))
            }
            None => (EntryKind::Empty, bytes::Bytes::new(), None),
        };
        let position = position_of(&self.config, self.view, parent.position.index.next());
        let header = Header {
            parent: parent_digest,
            tenure: self.schedule.tenure(&parent, self.view),
            position,
            hlc: parent.hlc.tick(turn.now.wall),
            kind,
            body: Digest::default(),
        };
        let block = Block::new(header, body);
        let after = timed_out.as_ref().map(of_certificate);
        let Some(promise) = self.voter.propose(block.clone(), self.high.clone(), timed_out) else { return };
        let peers: Vec<NodeId> = self.config.members.iter().map(|member| member.node).collect();
        for to in peers.into_iter().filter(|to| *to != self.node) {
            turn.promises.push((to, promise.clone()));
        }
        if let Some(id) = id {
            turn.effects.proposed.push((id, Ok(position)));
        }
        self.reads.iter_mut().for_each(|read| read.target = read.target.or(Some(position)));
        let digest = block.digest();
        if self.chain.add(block) {
            self.vote_for(turn, digest, self.high.view(), after);
        }
    }

    /// Nothing is to be proposed: the others learn the last certificate, so that all have committed alike before
    /// the silence.
    fn come_to_rest(&mut self, turn: &mut Turn) {
        if self.rested >= self.high.view() {
            return;
        }
        if !turn.may_be_empty {
            self.empty_deadline = Some(turn.now.time);
            return;
        }
        self.rested = self.high.view();
        let peers: Vec<NodeId> = self.config.members.iter().map(|member| member.node).collect();
        peers.into_iter().for_each(|to| self.show_view(turn, to));
    }

    /// Whether somebody does not yet know that an entry of the chain up to here is committed, or a read waits.
    fn needs_empty_block(&self, parent: Digest) -> bool {
        let mut open =
            self.chain.ancestry(parent).take_while(|header| header.position.index > self.announced);
        !self.reads.is_empty() || open.any(|header| header.kind != EntryKind::Empty)
    }

    pub(super) fn on_proposal(&mut self, turn: &mut Turn, from: NodeId, message: Message) {
        let statement = quorate_crypto::Stated::statement(&message);
        let Body::Proposal(proposal) = &message.body else { return };
        let Proposal { block, justify, timed_out } = proposal.as_ref();
        let header = *block.header();
        let view = header.view();
        let after = timed_out.as_ref().map(of_certificate);
        let parent_index = match justify {
            Justify::Genesis => self.chain.root().position.index,
            Justify::Certified(certificate) => certificate.statement().index,
        };
        let sane = header.position == position_of(&self.config, view, parent_index.next())
            && header.parent == justify.digest(self.genesis)
            && self.may_be_from(from, &header)
            && rules::is_kind_allowed(header.kind)
            && self.extends(&header, justify.view(), after);
        if !sane {
            self.counters.messages_ignored += 1;
            return;
        }
        if view < self.view {
            return self.show_view(turn, from);
        }
        let by_timeout = justify.view().next() != view;
        let opened = self.learn(turn, justify)
            && timed_out.as_ref().filter(|_| by_timeout).is_none_or(|known| self.learn_timeout(turn, known));
        if !opened {
            self.counters.certificates_refused += 1;
            return;
        }
        if view < self.view || !self.note_proposal(turn, from, statement, message.signature) {
            return;
        }
        let Some(parent) = self.chain.header(&header.parent) else {
            if self.orphans.len() >= ORPHANS_MAX {
                self.orphans.pop_front();
            }
            self.orphans.push_back((from, message));
            return self.look_for_blocks(turn, from);
        };
        if self.schedule.tenure(parent, view) != header.tenure {
            self.counters.messages_ignored += 1;
            return;
        }
        if !rules::is_stamp_near(header.hlc, turn.now.wall, self.timings.clock_skew_max) {
            self.counters.stamps_refused += 1;
            return;
        }
        let (digest, qc_view) = (block.digest(), justify.view());
        if self.chain.add(block.clone()) {
            self.vote_for(turn, digest, qc_view, after);
        }
    }

    fn may_be_from(&self, from: NodeId, header: &Header) -> bool {
        #[cfg(any(test, feature = "planted"))]
        if super::planted::is_broken(super::planted::RuleBroken::LeaderProposes) {
            return true;
        }
        self.schedule.leader(header.tenure) == from
    }

    fn extends(&self, header: &Header, qc_view: View, after: Option<TimedOut>) -> bool {
        let view = header.view();
        #[cfg(any(test, feature = "planted"))]
        if super::planted::may_extend(header, qc_view, after.is_some()) {
            return true;
        }
        rules::extends(view, qc_view, after)
    }

    /// Remembers a signer's proposal of a view; whether it is the first one there, or that one again.
    fn note_proposal(
        &mut self,
        turn: &mut Turn,
        from: NodeId,
        statement: Statement,
        signature: Signature,
    ) -> bool {
        let first = *self.proposals.entry((statement.view, from)).or_insert((statement, signature));
        if first.0 == statement {
            return true;
        }
        turn.effects.evidence.extend(Evidence::of(from, first, (statement, signature)));
        false
    }

    /// Votes for a block of the tree if the rules allow, and turns the log to it.
    fn vote_for(&mut self, turn: &mut Turn, digest: Digest, qc_view: View, after: Option<TimedOut>) {
        let Some(header) = self.chain.header(&digest).copied() else { return };
        let may_fork = self.chain.fork(digest).is_some_and(|fork| rules::may_fork(fork, self.commit));
        if !may_fork || !self.is_rooted || !self.is_voter() {
            return;
        }
        self.announced = self.commit;
        let Some(promise) = self.voter.vote(&header, digest, qc_view, after) else { return };
        let Some(entries) = self.chain.adopt(digest) else { return };
        turn.persist(entries);
        self.is_woken = false;
        let collector = self.schedule.leader(self.schedule.tenure(&header, header.view().next()));
        turn.promises.push((collector, promise));
    }

    pub(super) fn on_vote(
        &mut self,
        turn: &mut Turn,
        from: NodeId,
        vote: (View, LogIndex, Digest),
        signed: (Statement, Signature),
    ) {
        let (view, index, digest) = vote;
        if view <= self.high.view() {
            return;
        }
        if view.0 > self.view.0 + FUTURE_VIEWS_MAX {
            self.counters.views_ahead += 1;
            return;
        }
        let votes = self.votes.entry(view).or_default();
        let ballot = Ballot { index, digest, signature: signed.1 };
        let first = *votes.entry(from).or_insert(ballot);
        if (first.index, first.digest) != (index, digest) {
            let statement = Statement { index: first.index, digest: first.digest, ..signed.0 };
            turn.effects.evidence.extend(Evidence::of(from, (statement, first.signature), signed));
            return;
        }
        let quorum = self.set.quorum();
        let alike = votes.iter().filter(|(_, ballot)| (ballot.index, ballot.digest) == (index, digest));
        let alike: Vec<_> = alike.map(|(node, ballot)| (*node, ballot.signature)).take(quorum).collect();
        if alike.len() < quorum {
            return;
        }
        // Each of these votes was verified when it came.
        if let Ok(certificate) = Certificate::assemble(signed.0, &self.set, alike) {
            self.take_certificate(turn, certificate);
            if self.chain.header(&digest).is_none() {
                self.look_for_blocks(turn, from);
            }
        }
    }

    /// Learns a justification; whether it holds.
    pub(super) fn learn(&mut self, turn: &mut Turn, justify: &Justify) -> bool {
        let Justify::Certified(certificate) = justify else { return true };
        if !self.holds(certificate) {
            return false;
        }
        self.take_certificate(turn, certificate.as_ref().clone());
        true
    }

    /// Whether a certificate proves that a quorum voted for a block. One that says what a known one says
    /// proves nothing new and is not verified again.
    pub(super) fn holds(&self, certificate: &Certificate) -> bool {
        let statement = certificate.statement();
        if let Justify::Certified(high) = &self.high
            && high.statement() == statement
        {
            return true;
        }
        let is_ours = statement.scope == *self.set.scope();
        #[cfg(any(test, feature = "planted"))]
        let is_ours =
            is_ours || super::planted::is_broken(super::planted::RuleBroken::CertificatesOfThisGroup);
        statement.kind == StatementKind::Vote && is_ours && self.certifier.holds(certificate, &self.set)
    }

    /// Takes a certificate that holds: the view it opens, and what it commits.
    pub(super) fn take_certificate(&mut self, turn: &mut Turn, certificate: Certificate) {
        let statement = *certificate.statement();
        if statement.view == self.high.view() && statement.digest != self.high_digest() {
            return turn.fence(format!("two blocks are certified in {}", statement.view));
        }
        if statement.view > self.high.view() {
            self.high = Justify::Certified(Box::new(certificate));
            self.enter_view();
        }
        self.try_commit(turn);
    }

    /// Commits what the highest certificate commits, if its blocks are here.
    pub(super) fn try_commit(&mut self, turn: &mut Turn) {
        let ancestry = self.chain.ancestry(self.high_digest());
        let Some(header) = rules::commits(self.rule, ancestry).copied() else { return };
        if header.position.index > self.commit && header.view() > View::ZERO {
            self.committed_by = self.high.clone();
            self.commit_to(turn, header.digest(), header.position.index);
        }
    }

    /// Commits a block and all before it.
    pub(super) fn commit_to(&mut self, turn: &mut Turn, digest: Digest, index: LogIndex) {
        let Some(fork) = self.chain.fork(digest) else { return };
        if !rules::may_fork(fork, self.commit) {
            return turn.fence(format!("block {index} is certified on another branch than {}", self.commit));
        }
        let Some(entries) = self.chain.adopt(digest) else { return };
        turn.persist(entries);
        self.deliver_to(turn, index);
        self.failures = 0;
        self.chain.prune(self.commit);
        if let Justify::Certified(high) = &self.high
            && high.statement().index.0 % MILESTONE == 0
        {
            self.milestones.insert(high.statement().index, high.as_ref().clone());
        }
        let is_due = |read: &mut PendingRead| read.target.is_some_and(|target| target.index <= index);
        while let Some(read) = self.reads.pop_front_if(is_due) {
            // Another block in the place of its own says nothing of what was acknowledged before the read.
            let is_own = read.target.is_some_and(|target| self.chain.holds(target));
            let answer = if is_own { Ok(index) } else { Err(ReadError::LeadershipLost) };
            turn.effects.reads.push((read.id, answer));
        }
    }

    /// Delivers the log up to here.
    pub(super) fn deliver_to(&mut self, turn: &mut Turn, index: LogIndex) {
        while self.commit < index {
            let Some(block) = self.chain.at(self.commit.next()) else { return };
            turn.effects.deliver.push(Committed { entry: block.entry() });
            self.commit = self.commit.next();
        }
    }

    /// Whether an entry that is not committed stands in the log, or is certified.
    pub(super) fn has_open_entries(&self) -> bool {
        let open = |digest| {
            let headers =
                self.chain.ancestry(digest).take_while(|header| header.position.index > self.commit);
            headers.filter(|header| header.kind != EntryKind::Empty).count() > 0
        };
        open(self.chain.tip_digest()) || open(self.high_digest())
    }
}
