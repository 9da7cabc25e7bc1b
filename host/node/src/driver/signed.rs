//! Messages of groups that sign, from a peer's frame to the driver's input.
//!
//! Relies on whoever drives to have the [`Request`] judged, by the vote service or in place. Promises that a
//! frame becomes an input only if the signature of the peer that delivered it is valid, every certificate
//! inside proves itself and clients and operators signed what a block orders for them, and that nothing of a frame is
//! looked at before but what says what to verify. Knows no thread.
//!
//! ```text
//! frame --read--> Unverified + Request ==> verdicts ==> Answer --admit--> DriverInput::Verified
//! ```

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use quorate_consensus::hotstuff::{Body, Certifier, Justify, Message as Signing};
use quorate_consensus::{Envelope, Message};
use quorate_crypto::{
    Certificate, CertificateError, FrameCheck, KeyError, Signed, TimeoutCertificate, ValidatorSet, Verified,
    VerifyError,
};
use quorate_types::codec::DecodeError;
use quorate_types::{
    Batch, BatchItem, BootNumber, ClientFrame, Digest, EntryKind, Epoch, FrameContentError, GroupId,
    Incarnation, NodeId, read_frames,
};
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
    /// A block is proposed that orders what no client signed.
    #[error(transparent)]
    Payload(#[from] PayloadFault),
    /// The verdict is on something else.
    #[error("the verdict is on another frame")]
    OtherVerdict,
}

/// Why what a block carries is not voted for. It counts against whoever proposed the block, never against the owner
/// of a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadFault {
    /// What clients and operators ask for stands where nodes order what is theirs.
    #[error("item {item} of a block is a client's or an operator's and is not signed")]
    Unsigned {
        /// Its place in the block.
        item: usize,
    },
    /// The bytes are no batch or no frames, or a frame holds what clients may not ask for.
    #[error(transparent)]
    Content(#[from] FrameContentError),
    /// A frame is signed with a key that nobody should register.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A frame opens a session or puts a component in force and the authority does not let its key do so.
    #[error("the certificate of a frame is refused: {0}")]
    Certificate(String),
    /// A frame's signature is not valid.
    #[error("the signature of a frame is not valid")]
    Signature,
}

/// What a node knows of clients: their keys, and whom the authority lets open sessions or deploy.
pub trait ClientRegister {
    /// What is to be verified of a frame whose items are these.
    ///
    /// # Errors
    ///
    /// [`PayloadFault`] for a key or a certificate that is not accepted.
    fn check(&self, group: GroupId, frame: &ClientFrame, batch: &Batch) -> Result<FrameCheck, PayloadFault>;
}

/// A message that waits for the verdicts on its signatures.
#[derive(Debug)]
pub struct Unverified {
    label: Label,
    message: Signed<Signing>,
    set: Arc<ValidatorSet>,
    /// Of the certificates inside, in the order of the request's parts.
    certificates: Vec<Digest>,
    /// Clients' frames inside, whose parts come last.
    frames: usize,
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
        let unverified = Self { label, message, set: Arc::clone(set), certificates, frames: 0 };
        Ok((unverified, Request { peer: from, parts }))
    }

    /// Has what clients signed of a proposed block verified as well.
    ///
    /// # Errors
    ///
    /// [`PayloadFault`] for the first reason not to vote for the block, before any signature is looked at.
    pub fn check_payload(
        &mut self,
        request: &mut Request,
        clients: &impl ClientRegister,
    ) -> Result<(), PayloadFault> {
        let Body::Proposal(proposal) = &self.message.unverified().body else { return Ok(()) };
        let block = &proposal.block;
        match block.header().kind {
            EntryKind::Empty | EntryKind::Stop => {}
            EntryKind::Batch => {
                let batch = Batch::decode(block.body().clone()).map_err(FrameContentError::from)?;
                let is_of_node = |item: &BatchItem| {
                    matches!(item, BatchItem::Tick | BatchItem::Evidence(_) | BatchItem::Checkpoint)
                };
                if let Some(item) = batch.items.iter().position(|item| !is_of_node(item)) {
                    return Err(PayloadFault::Unsigned { item });
                }
            }
            EntryKind::Frames => {
                for (frame, batch) in read_frames(block.body().clone())? {
                    request.parts.push(Part::frame(clients.check(self.label.group, &frame, &batch)?));
                    self.frames += 1;
                }
            }
        }
        Ok(())
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
        if rest.len() != self.certificates.len() + self.frames {
            return Err(FrameFault::OtherVerdict);
        }
        let message = Verified::from_verdict(self.message, &self.set, verdict)?;
        let (certificates, frames) = rest.split_at(self.certificates.len());
        if !certificates.iter().all(PartResult::is_accepted) {
            return Err(VerifyError::InvalidSignature { signer }.into());
        }
        if !frames.iter().all(PartResult::is_accepted) {
            return Err(PayloadFault::Signature.into());
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
