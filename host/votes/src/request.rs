//! What is asked of the vote service, and what it answers.
//!
//! Relies on `crypto` to say which signatures a value or certificate holds. Promises that an answer has one
//! result for each part, in order, and names who delivered it. Knows no queue.

use quorate_crypto::{
    Certificate, CertificateError, Check, FrameCheck, TimeoutCertificate, ValidatorSet, Verdict,
};
use quorate_types::{Digest, NodeId};

/// One thing that a received envelope needs verified.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "most parts are signatures: a box would be one allocation for each"
)]
pub enum Part {
    /// One signature.
    Signature(Check),
    /// A certificate whose members and quorum were checked; its signatures were not. Or a client's frame, which
    /// reaches a node from the client and in a proposal alike: what was accepted once is not verified again.
    Certificate {
        /// Names the certificate, or the frame, byte by byte.
        digest: Digest,
        /// Its signatures.
        checks: Vec<Check>,
    },
}

impl Part {
    /// A certificate of a quorum for one statement.
    ///
    /// # Errors
    ///
    /// [`CertificateError`] when it holds no quorum of that epoch, whatever its signatures are worth.
    pub fn certificate(certificate: &Certificate, set: &ValidatorSet) -> Result<Self, CertificateError> {
        Ok(Self::Certificate { checks: certificate.checks(set)?, digest: certificate.digest() })
    }

    /// A certificate of a quorum that gave up a view.
    ///
    /// # Errors
    ///
    /// As [`Part::certificate`].
    pub fn timeout(certificate: &TimeoutCertificate, set: &ValidatorSet) -> Result<Self, CertificateError> {
        Ok(Self::Certificate { checks: certificate.checks(set)?, digest: certificate.digest() })
    }

    /// A client's frame.
    #[must_use]
    pub fn frame(FrameCheck { digest, check }: FrameCheck) -> Self {
        Self::Certificate { digest, checks: vec![check] }
    }

    /// How many signatures the part holds.
    #[must_use]
    pub fn signatures(&self) -> usize {
        match self {
            Self::Signature(_) => 1,
            Self::Certificate { checks, .. } => checks.len(),
        }
    }
}

/// All that one received envelope needs verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The authenticated peer that delivered it; invalid signatures count against this one.
    pub peer: NodeId,
    /// What to verify, in the order of the answer's results.
    pub parts: Vec<Part>,
}

impl Request {
    /// A request for one signature.
    #[must_use]
    pub fn signature(peer: NodeId, check: Check) -> Self {
        Self { peer, parts: vec![Part::Signature(check)] }
    }

    /// How many signatures the request holds.
    #[must_use]
    pub fn signatures(&self) -> usize {
        self.parts.iter().map(Part::signatures).sum()
    }
}

/// A request that was taken; ascending in the order of taking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What came of one part.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "most parts are signatures: a box would be one allocation for each"
)]
pub enum PartResult {
    /// The verdict on a signature; `Verified::from_verdict` takes it.
    Signature(Verdict),
    /// Every signature of the certificate is valid.
    CertificateAccepted,
    /// A signature of the certificate is not valid.
    CertificateRejected {
        /// The member whose signature it was to be, 0 for a client's; who delivered it is to blame, not that member.
        signer: NodeId,
    },
}

impl PartResult {
    /// Whether all of the part's signatures are valid.
    #[must_use]
    pub fn is_accepted(&self) -> bool {
        match self {
            Self::Signature(verdict) => verdict.is_accepted(),
            Self::CertificateAccepted => true,
            Self::CertificateRejected { .. } => false,
        }
    }
}

/// What came of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Which request.
    pub ticket: Ticket,
    /// Who delivered it.
    pub peer: NodeId,
    /// One result for each part, in order.
    pub results: Vec<PartResult>,
}

impl Answer {
    /// Whether every part was accepted.
    #[must_use]
    pub fn is_accepted(&self) -> bool {
        self.results.iter().all(PartResult::is_accepted)
    }

    /// The peer to blame: it delivered a signature that is not valid.
    #[must_use]
    pub fn culprit(&self) -> Option<NodeId> {
        (!self.is_accepted()).then_some(self.peer)
    }
}
