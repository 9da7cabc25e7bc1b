//! Messages of groups that sign, from a peer's frame to the driver's input.
//!
//! Relies on whoever drives to have the [`Request`] judged, by the vote service or in place. Promises that a
//! frame becomes an input only if the signature of the peer that delivered it is valid and every certificate
//! inside proves itself, and that nothing of a frame is looked at before but what says what to verify. Knows
//! no thread.
//!
//! ```text
//! frame --read--> Unverified + Request ==> verdicts ==> Answer --admit--> DriverInput::Verified
//! ```

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use quorate_consensus::hotstuff::{Body, Certifier, Justify, Message as Signing};
use quorate_consensus::{Envelope, Message};
use quorate_crypto::{
    Certificate, CertificateError, Signed, TimeoutCertificate, ValidatorSet, Verified, VerifyError,
};
use quorate_types::codec::DecodeError;
use quorate_types::{BootNumber, Digest, Epoch, GroupId, Incarnation, NodeId};
use quorate_votes::{Answer, Memory, Part, PartResult, Request};

use super::DriverInput;

/// Certificates that a node remembers as accepted, over all groups: more than are under way at once.
const CERTIFICATES_REMEMBERED: usize = 16_384;

/// What an envelope says beside its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// The group.
    pub group: GroupId,
    /// The epoch the sender is in.
    pub epoch: Epoch,
    /// Which life of the sender's durable state speaks.
    pub incarnation: Incarnation,
    /// Which start of the sender speaks.
    pub boot: BootNumber,
    /// Which life of the receiver is meant.
    pub to_incarnation: Incarnation,
}

/// A frame whose signatures were verified.
#[derive(Debug)]
pub struct VerifiedFrame {
    /// What its envelope says beside the message.
    pub label: Label,
    /// The message.
    pub message: Verified<Message>,
}

/// Why a frame of a group that signs is not believed. It counts against the peer that delivered it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameFault {
    /// The bytes are no envelope.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
    /// A message of a protocol that does not sign.
    #[error("it is not signed")]
    Unsigned,
    /// The message holds elsewhere, its signer is unknown, or its signature is not valid.
    #[error(transparent)]
    Signature(#[from] VerifyError),
    /// A certificate inside holds no quorum of the epoch.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The verdict is on something else.
    #[error("the verdict is on another frame")]
    OtherVerdict,
}

/// A message that waits for the verdicts on its signatures.
#[derive(Debug)]
pub struct Unverified {
    label: Label,
    message: Signed<Signing>,
    set: Arc<ValidatorSet>,
    /// Of the certificates inside, in the order of the request's parts.
    certificates: Vec<Digest>,
}

impl Unverified {
    /// Reads a frame that a peer delivered for a group with these members, and says what to verify.
    ///
    /// # Errors
    ///
    /// [`FrameFault`] for the first reason not to believe it, before any signature is looked at.
    pub fn read(from: NodeId, frame: Bytes, set: &Arc<ValidatorSet>) -> Result<(Self, Request), FrameFault> {
        let Envelope { group, epoch, incarnation, boot, to_incarnation, message } = Envelope::decode(frame)?;
        let Message::HotStuff(message) = message else { return Err(FrameFault::Unsigned) };
        let mut parts = Vec::with_capacity(3);
        let mut certificates = Vec::new();
        let (certificate, timed_out) = certificates_of(&message.body);
        if let Some(certificate) = certificate {
            parts.push(Part::certificate(certificate, set)?);
            certificates.push(certificate.digest());
        }
        if let Some(timed_out) = timed_out {
            parts.push(Part::timeout(timed_out, set)?);
            certificates.push(timed_out.digest());
        }
        let message = message.into_signed(from);
        parts.insert(0, Part::Signature(message.check(set)?));
        let label = Label { group, epoch, incarnation, boot, to_incarnation };
        let unverified = Self { label, message, set: Arc::clone(set), certificates };
        Ok((unverified, Request { peer: from, parts }))
    }

    /// The group that it is for.
    #[must_use]
    pub fn group(&self) -> GroupId {
        self.label.group
    }

    /// Takes the verdicts on all parts: the input they make of the message.
    ///
    /// # Errors
    ///
    /// [`FrameFault`] if any of them is a rejection.
    pub fn admit<W>(
        self,
        answer: &Answer,
        accepted: &AcceptedCertificates,
    ) -> Result<DriverInput<W>, FrameFault> {
        let signer = self.message.signer();
        let Some((PartResult::Signature(verdict), rest)) = answer.results.split_first() else {
            return Err(FrameFault::OtherVerdict);
        };
        if rest.len() != self.certificates.len() {
            return Err(FrameFault::OtherVerdict);
        }
        let message = Verified::from_verdict(self.message, &self.set, verdict)?;
        if !answer.is_accepted() {
            return Err(VerifyError::InvalidSignature { signer }.into());
        }
        accepted.remember(&self.certificates);
        let frame = VerifiedFrame { label: self.label, message: message.widen() };
        Ok(DriverInput::Verified(Box::new(frame)))
    }

    /// Judges the request in place, for whoever drives without a vote service.
    ///
    /// # Errors
    ///
    /// As [`Unverified::admit`].
    pub fn admit_in_place<W>(
        self,
        request: Request,
        accepted: &AcceptedCertificates,
    ) -> Result<DriverInput<W>, FrameFault> {
        let judge = |part: Part| match part {
            Part::Signature(check) => PartResult::Signature(check.verify()),
            Part::Certificate { checks, .. } => {
                match checks.into_iter().find(|check| !check.verify().is_accepted()) {
                    Some(check) => PartResult::CertificateRejected { signer: check.signer },
                    None => PartResult::CertificateAccepted,
                }
            }
        };
        let results = request.parts.into_iter().map(judge).collect();
        self.admit(&Answer { ticket: quorate_votes::Ticket(0), peer: request.peer, results }, accepted)
    }
}

/// The certificates that a message carries.
fn certificates_of(body: &Body) -> (Option<&Certificate>, Option<&TimeoutCertificate>) {
    let certified = |justify| match justify {
        &Justify::Genesis => None,
        Justify::Certified(certificate) => Some(certificate.as_ref()),
    };
    match body {
        Body::Proposal(proposal) => (certified(&proposal.justify), proposal.timed_out.as_ref()),
        Body::Timeout(timeout) => (certified(&timeout.high), timeout.timed_out.as_ref()),
        Body::NewView { high, timed_out } => (certified(high), timed_out.as_ref()),
        Body::Request { high, .. } => (certified(high), None),
        Body::Blocks(blocks) => (Some(&blocks.certificate), None),
        Body::Offer(offer) => (Some(&offer.proof.certificate), None),
        Body::Vote { .. } | Body::Boot(_) | Body::Recorded(_) | Body::Stale(_) => (None, None),
    }
}

/// Which certificates were accepted, so that the replicas that read them later need not verify them again.
#[derive(Debug)]
pub struct AcceptedCertificates(Mutex<Memory>);

impl Default for AcceptedCertificates {
    fn default() -> Self {
        Self(Mutex::new(Memory::new(CERTIFICATES_REMEMBERED)))
    }
}

impl AcceptedCertificates {
    fn remember(&self, digests: &[Digest]) {
        if !digests.is_empty() {
            let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            digests.iter().for_each(|digest| memory.insert(*digest));
        }
    }

    /// Whether a certificate with this digest was accepted; otherwise it is judged here and now.
    fn judge(&self, digest: Digest, judge: impl FnOnce() -> bool) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).holds(&digest);
        if !known && judge() {
            self.remember(&[digest]);
            return true;
        }
        known
    }
}

impl Certifier for AcceptedCertificates {
    fn holds(&self, certificate: &Certificate, set: &ValidatorSet) -> bool {
        // The digest covers the set that the certificate names; whether that is this one is looked at always.
        certificate.check(set).is_ok() && self.judge(certificate.digest(), || certificate.verify(set).is_ok())
    }

    fn timeout_holds(&self, certificate: &TimeoutCertificate, set: &ValidatorSet) -> bool {
        certificate.check(set).is_ok() && self.judge(certificate.digest(), || certificate.verify(set).is_ok())
    }
}
