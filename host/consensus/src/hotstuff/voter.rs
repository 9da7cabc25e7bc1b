//! The one room that asks for signatures.
//!
//! Relies on the predicates of [`super::rules`] and on a deterministic [`Signer`]. Promises that no vote,
//! timeout or proposal is signed against them; that what limits later signatures is raised in the same call;
//! that whatever binds this replica comes out as a [`Promise`], which can only be sent together with the
//! token of the state that remembers it; and that asking again gives the same answer. The signer is private
//! here: no other file of this protocol can sign anything. Knows no block but by its header.

use std::sync::Arc;

use quorate_crypto::{Certificate, Scope, SecretKey, Signature, Statement, TimeoutCertificate, ValidatorSet};
use quorate_types::codec::{DecodeError, Reader, Writer};
use quorate_types::{Digest, LogIndex, View};

use super::block::{Block, Header};
use super::message::{Body, Justify, Message, Proposal, Timeout};
use super::rules::{self, TimedOut};
use crate::effects::{Promise, Unbinding};

/// Makes this replica's signatures. The same statement gives the same signature, always.
pub trait Signer: std::fmt::Debug + Send + Sync {
    /// Signs.
    fn sign(&self, statement: &Statement) -> Signature;
}

impl Signer for SecretKey {
    fn sign(&self, statement: &Statement) -> Signature {
        SecretKey::sign(self, statement)
    }
}

/// Says whether a certificate holds: a function of the certificate and the set alone. The node gives one
/// that remembers what the vote service verified; [`Inline`] verifies each time.
pub trait Certifier: std::fmt::Debug + Send + Sync {
    /// Whether exactly a quorum of distinct members signed what it says.
    fn holds(&self, certificate: &Certificate, set: &ValidatorSet) -> bool;
    /// The same for timeouts.
    fn timeout_holds(&self, certificate: &TimeoutCertificate, set: &ValidatorSet) -> bool;
}

/// Verifies every certificate here and now.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inline;

impl Certifier for Inline {
    fn holds(&self, certificate: &Certificate, set: &ValidatorSet) -> bool {
        certificate.verify(set).is_ok()
    }

    fn timeout_holds(&self, certificate: &TimeoutCertificate, set: &ValidatorSet) -> bool {
        certificate.verify(set).is_ok()
    }
}

/// What a vote said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Vote {
    pub(super) view: View,
    pub(super) index: LogIndex,
    pub(super) digest: Digest,
}

/// What limits later signatures; durable before anything it allowed leaves. Every view only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Safety {
    /// Nothing up to here is voted for.
    pub(super) last_voted: View,
    /// The last vote, so that it can be repeated.
    pub(super) vote: Option<Vote>,
    /// The last view given up, with the view of the certificate that was said, so that it can be repeated.
    pub(super) timeout: Option<(View, View)>,
    /// The last view proposed in.
    pub(super) proposed: View,
}

impl Safety {
    pub(super) fn encode(&self, out: &mut Writer) {
        out.u64(self.last_voted.0);
        out.u64(self.proposed.0);
        out.u8(u8::from(self.vote.is_some()));
        if let Some(vote) = self.vote {
            out.u64(vote.view.0);
            out.u64(vote.index.0);
            out.raw(&vote.digest.0);
        }
        out.u8(u8::from(self.timeout.is_some()));
        if let Some((view, high_view)) = self.timeout {
            out.u64(view.0);
            out.u64(high_view.0);
        }
    }

    pub(super) fn decode(from: &mut Reader) -> Result<Self, DecodeError> {
        let mut safety = Self {
            last_voted: View(from.u64("last voted view")?),
            proposed: View(from.u64("last proposed view")?),
            ..Self::default()
        };
        if from.flag("last vote")? {
            let (view, index) = (View(from.u64("vote view")?), LogIndex(from.u64("vote index")?));
            safety.vote = Some(Vote { view, index, digest: Digest(from.array("vote digest")?) });
        }
        if from.flag("last timeout")? {
            safety.timeout = Some((View(from.u64("timeout view")?), View(from.u64("timeout high view")?)));
        }
        Ok(safety)
    }

    /// Whether `later` may come after this.
    pub(super) fn may_become(&self, later: &Self) -> bool {
        later.last_voted >= self.last_voted
            && later.proposed >= self.proposed
            && (self.vote == later.vote || self.vote.map(|vote| vote.view) < later.vote.map(|vote| vote.view))
            && (self.timeout == later.timeout
                || self.timeout.map(|(view, _)| view) < later.timeout.map(|(view, _)| view))
    }
}

/// Signs for one replica, and remembers what it signed.
#[derive(Debug)]
pub(super) struct Voter {
    scope: Scope,
    signer: Arc<dyn Signer>,
    safety: Safety,
    /// A quorum recorded this start of the replica; nothing that binds is signed before.
    is_admitted: bool,
}

impl Voter {
    pub(super) fn new(scope: Scope, signer: Arc<dyn Signer>, safety: Safety) -> Self {
        Self { scope, signer, safety, is_admitted: false }
    }

    pub(super) fn safety(&self) -> &Safety {
        &self.safety
    }

    pub(super) fn is_admitted(&self) -> bool {
        self.is_admitted
    }

    /// A quorum recorded this start.
    pub(super) fn admit(&mut self) {
        self.is_admitted = true;
    }

    /// A vote for a block whose parent is certified in `qc_view`, if the rules allow one or it was given.
    pub(super) fn vote(
        &mut self,
        header: &Header,
        digest: Digest,
        qc_view: View,
        timed_out: Option<TimedOut>,
    ) -> Option<Promise> {
        let vote = Vote { view: header.view(), index: header.position.index, digest };
        let is_repeated = self.safety.vote == Some(vote);
        let may_vote = rules::may_vote(vote.view, self.last_voted(), qc_view, timed_out);
        #[cfg(any(test, feature = "planted"))]
        let may_vote = may_vote
            || super::planted::may_extend(header, qc_view, timed_out.is_some())
                && vote.view > self.last_voted();
        if !self.is_admitted || !(is_repeated || may_vote) {
            return None;
        }
        self.safety.last_voted = self.safety.last_voted.max(vote.view);
        self.safety.vote = Some(vote);
        Some(self.promise(Body::Vote { view: vote.view, index: vote.index, digest }))
    }

    fn last_voted(&self) -> View {
        #[cfg(any(test, feature = "planted"))]
        if super::planted::is_broken(super::planted::RuleBroken::VoteOncePerView)
            && self.safety.vote.map(|vote| vote.view) > self.safety.timeout.map(|(view, _)| view)
        {
            return self.safety.last_voted.previous();
        }
        self.safety.last_voted
    }

    /// A timeout of `view`, if the rules allow one or it was given.
    pub(super) fn time_out(
        &mut self,
        view: View,
        high: &Justify,
        timed_out: Option<&TimeoutCertificate>,
    ) -> Option<Promise> {
        let given = self.safety.timeout.filter(|(given, _)| *given == view);
        if !self.is_admitted || !rules::may_time_out(view, self.safety.last_voted) {
            return None;
        }
        let (_, high_view) = given.unwrap_or((view, high.view()));
        self.safety.timeout = Some((view, high_view));
        self.raise_after_timeout(view);
        let timed_out = timed_out.cloned();
        Some(self.promise(Body::Timeout(Box::new(Timeout {
            view,
            high_view,
            high: high.clone(),
            timed_out,
        }))))
    }

    fn raise_after_timeout(&mut self, view: View) {
        #[cfg(any(test, feature = "planted"))]
        if super::planted::is_broken(super::planted::RuleBroken::TimeoutRaisesLastVoted) {
            return;
        }
        self.safety.last_voted = rules::last_voted_after_timeout(self.safety.last_voted, view);
    }

    /// A proposal of a block, if this replica made none in its view and did not give the view up.
    pub(super) fn propose(
        &mut self,
        block: Block,
        justify: Justify,
        timed_out: Option<TimeoutCertificate>,
    ) -> Option<Promise> {
        let view = block.header().view();
        let after = timed_out.as_ref().map(of_certificate);
        let may_propose = rules::may_propose(view, self.safety.proposed, self.safety.last_voted)
            && rules::extends(view, justify.view(), after);
        if !self.is_admitted || !may_propose {
            return None;
        }
        self.safety.proposed = view;
        Some(self.promise(Body::Proposal(Box::new(Proposal { block, justify, timed_out }))))
    }

    /// Says that another replica's start is recorded.
    pub(super) fn record(&self, life: super::message::Life) -> Promise {
        self.promise(Body::Recorded(life))
    }

    /// Says something that binds nobody; `None` for what does.
    pub(super) fn say(&self, body: Body) -> Option<Unbinding> {
        let binds =
            matches!(body, Body::Proposal(_) | Body::Vote { .. } | Body::Timeout(_) | Body::Recorded(_));
        (!binds).then(|| Unbinding::hotstuff(self.signed(body)))
    }

    fn promise(&self, body: Body) -> Promise {
        Promise::hotstuff(self.signed(body))
    }

    fn signed(&self, body: Body) -> Message {
        let signature = self.signer.sign(&body.statement(self.scope));
        Message { scope: self.scope, body, signature }
    }
}

/// What a timeout certificate says to the rule of voting.
pub(super) fn of_certificate(certificate: &TimeoutCertificate) -> TimedOut {
    TimedOut { view: certificate.view(), high_view: certificate.high_view() }
}
