//! The pacemaker: who leads, when a view is given up, and how views are entered.
//!
//! Relies on the voter for timeouts. Promises that a replica which waits for something gives up a view that
//! brings nothing, that f + 1 who do so take the others along, and that waiting times grow until a commit.
//! Knows nothing of blocks but that entries are open.

use std::time::Duration;

use quorate_crypto::{Signature, Statement, TimeoutCertificate, TimeoutVote};
use quorate_types::{NodeId, View};

use super::evidence::Evidence;
use super::message::{Body, Justify, Message, Timeout};
use super::state::Turn;
use super::{BACK_OFF_MAX, HotStuff, rules};
use crate::{ProposeError, ReadError};

impl HotStuff {
    /// The tenure that the current view belongs to, as far as this replica can tell.
    fn tenure(&self) -> Option<View> {
        if self.high.view().next() != self.view {
            return Some(self.view);
        }
        let parent = self.chain.header(&self.high_digest())?;
        Some(self.schedule.tenure(parent, self.view))
    }

    /// Who may propose in the current view, as far as this replica can tell.
    pub(super) fn leader(&self) -> Option<NodeId> {
        self.tenure().map(|tenure| self.schedule.leader(tenure))
    }

    /// The tenure of the next proposal: of this view, or of the next one once a block of this one was voted
    /// for.
    pub(super) fn expected_tenure(&self) -> Option<View> {
        let voted = self.voter.safety().vote.filter(|vote| vote.view == self.view);
        match voted.and_then(|vote| self.chain.header(&vote.digest)) {
            Some(header) => Some(self.schedule.tenure(header, self.view.next())),
            None => self.tenure(),
        }
    }

    /// Who will propose next.
    pub(super) fn expected_leader(&self) -> Option<NodeId> {
        self.expected_tenure().map(|tenure| self.schedule.leader(tenure))
    }

    /// Enters the view that the certificates known open.
    pub(super) fn enter_view(&mut self) {
        let view = self.open_view();
        if view == self.view {
            return;
        }
        self.view = view;
        self.timeouts.clear();
        self.view_deadline = None;
        let high = self.high.view();
        self.votes.retain(|voted, _| *voted > high);
        self.proposals.retain(|(proposed, _), _| *proposed >= view);
        self.orphans.retain(|(_, message)| match &message.body {
            Body::Proposal(proposal) => proposal.block.header().view() >= view,
            _ => false,
        });
    }

    /// What follows from whatever happened in this step: blocks, timers, answers.
    pub(super) fn drive(&mut self, turn: &mut Turn) {
        self.retry_orphans(turn);
        self.try_propose(turn);
        if self.refused.is_some() && self.tenure() == self.refused && self.last_given_up() != Some(self.view)
        {
            self.give_up(turn);
        }
        if self.expected_leader() != Some(self.node) || !self.may_lead {
            self.refuse_waiting(turn);
        }
        if !self.is_waiting() {
            self.view_deadline = None;
        } else if self.view_deadline.is_none() && !self.says_no_more() {
            self.view_deadline = Some(turn.now.time.after(self.patience()));
        }
    }

    /// Whether this replica waits for progress, so that a view without any is given up.
    fn is_waiting(&self) -> bool {
        self.is_voter()
            && self.voter.is_admitted()
            && (self.is_woken || !self.queue.is_empty() || !self.reads.is_empty() || self.has_open_entries())
    }

    /// Never, but for a rule broken on purpose.
    fn says_no_more(&self) -> bool {
        #[cfg(any(test, feature = "planted"))]
        if super::planted::is_broken(super::planted::RuleBroken::TimeoutsAreRepeated) {
            return self.last_given_up() == Some(self.view);
        }
        false
    }

    /// How long a view may bring nothing.
    fn patience(&self) -> Duration {
        #[cfg(any(test, feature = "planted"))]
        if super::planted::is_broken(super::planted::RuleBroken::BackOffUntilCommit) {
            return self.timings.election_timeout;
        }
        self.timings.election_timeout * (1 << self.failures.min(BACK_OFF_MAX))
    }

    /// Tells who waits here that another replica leads.
    fn refuse_waiting(&mut self, turn: &mut Turn) {
        let leader = self.expected_leader().filter(|leader| *leader != self.node);
        self.queued_bytes = 0;
        for proposal in self.queue.drain(..) {
            turn.effects.proposed.push((proposal.id, Err(ProposeError::NotLeader { leader })));
        }
        for read in self.reads.drain(..) {
            turn.effects.reads.push((read.id, Err(ReadError::LeadershipLost)));
        }
    }

    /// Gives up every view of the tenure that the current one belongs to, unless it is this replica's own.
    pub(super) fn refuse_leader(&mut self) {
        self.refused = self.tenure().filter(|tenure| self.schedule.leader(*tenure) != self.node);
    }

    /// Gives up the current view, or says so again.
    pub(super) fn give_up(&mut self, turn: &mut Turn) {
        let opened_by = self.timed_out.as_ref().filter(|_| self.high.view().next() != self.view);
        let Some(promise) = self.voter.time_out(self.view, &self.high, opened_by) else { return };
        self.counters.timeouts += 1;
        self.is_woken = true;
        let peers: Vec<NodeId> = self.other_voters().collect();
        for to in peers.into_iter().chain([self.node]) {
            turn.promises.push((to, promise.clone()));
        }
    }

    pub(super) fn on_timeout(
        &mut self,
        turn: &mut Turn,
        from: NodeId,
        timeout: Timeout,
        signed: (Statement, Signature),
    ) {
        let Timeout { view, high_view, high, timed_out } = timeout;
        if high_view >= view || high.view() < high_view {
            self.counters.messages_ignored += 1;
            return;
        }
        if view < self.view {
            return self.show_view(turn, from);
        }
        if !self.learn_both(turn, &high, timed_out.as_ref()) {
            return;
        }
        if view != self.view {
            self.counters.views_ahead += u64::from(view > self.view);
            return;
        }
        let vote = TimeoutVote { high_view, signature: signed.1 };
        let first = *self.timeouts.entry(from).or_insert((signed.0, vote));
        if first.0 != signed.0 {
            let first = (first.0, first.1.signature);
            turn.effects.evidence.extend(Evidence::of(from, first, signed));
            return;
        }
        self.is_woken = true;
        let gave_up = self.voter.safety().timeout.is_some_and(|(given, _)| given == view);
        if !gave_up && rules::is_one_honest(self.timeouts.len(), self.set.faults()) {
            self.give_up(turn);
        }
        let quorum = self.set.quorum();
        #[cfg(any(test, feature = "planted"))]
        if super::planted::is_broken(super::planted::RuleBroken::TimeoutCertificates) {
            return;
        }
        if self.timeouts.len() >= quorum {
            let votes = self.timeouts.iter().take(quorum).map(|(node, (_, vote))| (*node, *vote));
            if let Ok(certificate) = TimeoutCertificate::assemble(view, &self.set, votes) {
                self.take_timeout(certificate);
            }
        }
    }

    /// Shows a replica that is behind how far certificates reach.
    pub(super) fn show_view(&self, turn: &mut Turn, to: NodeId) {
        if to != self.node {
            let (high, timed_out) = (self.high.clone(), self.timed_out.clone());
            self.say(turn, to, Body::NewView { high, timed_out });
        }
    }

    pub(super) fn on_new_view(
        &mut self,
        turn: &mut Turn,
        from: NodeId,
        high: &Justify,
        timed_out: Option<TimeoutCertificate>,
    ) {
        if self.learn_both(turn, high, timed_out.as_ref()) && self.is_missing_blocks() {
            self.look_for_blocks(turn, from);
        }
    }

    fn learn_both(
        &mut self,
        turn: &mut Turn,
        high: &Justify,
        timed_out: Option<&TimeoutCertificate>,
    ) -> bool {
        let newer = |high: &Justify| high.view() > self.high.view();
        let known = (!newer(high) || self.learn(turn, high))
            && timed_out
                .is_none_or(|timed_out| timed_out.view() < self.view || self.learn_timeout(turn, timed_out));
        self.counters.certificates_refused += u64::from(!known);
        known
    }

    /// Learns a timeout certificate; whether it holds. Honest signers know no certificate of the view they
    /// give up, or of a later one.
    pub(super) fn learn_timeout(&mut self, _: &mut Turn, certificate: &TimeoutCertificate) -> bool {
        if self.timed_out.as_ref() == Some(certificate) {
            return true;
        }
        let sane = certificate.high_view() < certificate.view();
        if !sane || !self.certifier.timeout_holds(certificate, &self.set) {
            return false;
        }
        self.take_timeout(certificate.clone());
        true
    }

    /// Takes a timeout certificate that holds.
    fn take_timeout(&mut self, certificate: TimeoutCertificate) {
        if self.timed_out.as_ref().is_some_and(|known| known.view() >= certificate.view()) {
            return;
        }
        let before = self.view;
        self.timed_out = Some(certificate);
        self.enter_view();
        if self.view > before {
            self.failures = self.failures.saturating_add(1);
            self.is_woken = true;
        }
    }

    /// Looks again at proposals whose parent was missing.
    fn retry_orphans(&mut self, turn: &mut Turn) {
        let is_ready = |message: &Message| match &message.body {
            Body::Proposal(proposal) => self.chain.header(&proposal.block.header().parent).is_some(),
            _ => false,
        };
        if !self.orphans.iter().any(|(_, message)| is_ready(message)) {
            return;
        }
        for (from, message) in std::mem::take(&mut self.orphans) {
            self.on_proposal(turn, from, message);
        }
    }

    /// The view this replica last gave up, if any.
    #[must_use]
    pub fn last_given_up(&self) -> Option<View> {
        self.voter.safety().timeout.map(|(view, _)| view)
    }
}
