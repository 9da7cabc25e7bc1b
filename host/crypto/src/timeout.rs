//! A quorum's timeouts of one view, each with the view of the highest certificate its signer knew.
//!
//! Relies on the rules of [`Certificate`](crate::Certificate) for who counts. Promises the same, although
//! each signature covers a statement of its own: that its signer gave up `view` knowing `high_view`. Knows
//! no pacemaker; the highest certificate itself travels beside it.
//!
//! ```text
//! 0       33     41           73         74 + bitmap
//! +-------+------+------------+----------+----------------------------------------+
//! | scope | view | set digest | signers  | high view and 64 bytes each, by member |
//! +-------+------+------------+----------+----------------------------------------+
//! ```

use bytes::Bytes;
use quorate_types::codec::{DecodeError, Reader, Writer};
use quorate_types::{Digest, NodeId, View};

use crate::certificate::{by_member, check_signers, verify_all};
use crate::{CertificateError, Check, Scope, Signature, Signers, Statement, ValidatorSet};

const DIGEST_DOMAIN: &str = "quorate 2026 timeout certificate";

/// One signer's part of a timeout certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeoutVote {
    /// The view of the highest certificate that the signer knew.
    pub high_view: View,
    /// Its signature on [`Statement::timeout`].
    pub signature: Signature,
}

/// A quorum's timeouts of one view, in the order of the members.
///
/// Invariant: as many votes as signers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeoutCertificate {
    scope: Scope,
    view: View,
    set: Digest,
    signers: Signers,
    votes: Vec<TimeoutVote>,
}

impl TimeoutCertificate {
    /// Joins exactly a quorum of timeouts of `view`; the signatures themselves are not verified here.
    ///
    /// # Errors
    ///
    /// [`CertificateError`] for an unknown or duplicate signer, or another number than the quorum.
    pub fn assemble(
        view: View,
        set: &ValidatorSet,
        votes: impl IntoIterator<Item = (NodeId, TimeoutVote)>,
    ) -> Result<Self, CertificateError> {
        let (signers, votes) = by_member(set, votes)?;
        Ok(Self { scope: *set.scope(), view, set: set.digest(), signers, votes })
    }

    /// Where it holds.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The view that its signers gave up.
    #[must_use]
    pub fn view(&self) -> View {
        self.view
    }

    /// The signers' places in the validator set.
    #[must_use]
    pub fn signers(&self) -> &Signers {
        &self.signers
    }

    /// The signers' votes, in the order of the members.
    #[must_use]
    pub fn votes(&self) -> &[TimeoutVote] {
        &self.votes
    }

    /// The highest view of a certificate that any signer knew; a block that follows must extend one at
    /// least as high.
    #[must_use]
    pub fn high_view(&self) -> View {
        self.votes.iter().map(|vote| vote.high_view).max().unwrap_or(View::ZERO)
    }

    /// Names this certificate byte by byte, for remembering that it was verified.
    #[must_use]
    pub fn digest(&self) -> Digest {
        crate::digest(DIGEST_DOMAIN, &self.to_bytes())
    }

    /// Checks all but the signatures: epoch, set, members and quorum.
    ///
    /// # Errors
    ///
    /// [`CertificateError`] for the first fault.
    pub fn check(&self, set: &ValidatorSet) -> Result<(), CertificateError> {
        self.scope.must_be(set.scope())?;
        check_signers(self.set, &self.signers, set)
    }

    /// The signatures to be verified, in the order of the members, each over its own statement.
    ///
    /// # Errors
    ///
    /// As [`TimeoutCertificate::check`].
    pub fn checks(&self, set: &ValidatorSet) -> Result<Vec<Check>, CertificateError> {
        self.check(set)?;
        let check = |(place, vote): (usize, &TimeoutVote)| {
            let member = &set.members()[place];
            let bytes = Statement::timeout(self.scope, self.view, vote.high_view).signing_bytes();
            Check { signer: member.node, key: member.key, bytes, signature: vote.signature }
        };
        Ok(self.signers.iter().zip(&self.votes).map(check).collect())
    }

    /// Checks everything, signatures included, here and now.
    ///
    /// # Errors
    ///
    /// [`CertificateError`]; an invalid signature names whose it should have been.
    pub fn verify(&self, set: &ValidatorSet) -> Result<(), CertificateError> {
        verify_all(self.checks(set)?)
    }

    /// Appends the byte form.
    pub fn encode(&self, out: &mut Writer) {
        self.scope.encode(out);
        out.u64(self.view.0);
        out.raw(&self.set.0);
        self.signers.encode(out);
        for vote in &self.votes {
            out.u64(vote.high_view.0);
            vote.signature.encode(out);
        }
    }

    /// Reads what [`TimeoutCertificate::encode`] wrote, without checking it.
    ///
    /// # Errors
    ///
    /// As the codec.
    pub fn decode(from: &mut Reader) -> Result<Self, DecodeError> {
        let scope = Scope::decode(from)?;
        let view = View(from.u64("timeout view")?);
        let set = Digest(from.array("timeout set")?);
        let signers = Signers::decode(from)?;
        let mut vote = || {
            let high_view = View(from.u64("timeout high view")?);
            Ok(TimeoutVote { high_view, signature: Signature::decode(from)? })
        };
        let votes = (0..signers.count()).map(|_| vote()).collect::<Result<_, DecodeError>>()?;
        Ok(Self { scope, view, set, signers, votes })
    }

    /// The byte form.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let mut out = Writer::with_capacity(Scope::BYTES + 57 + self.votes.len() * (8 + Signature::BYTES));
        self.encode(&mut out);
        out.finish()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ForeignScope;
    use crate::certificate::tests::whole;
    use crate::validators::tests::{keys, set};

    /// Timeouts of view 9 by (node, high view).
    fn votes(of: &[(u64, u64)]) -> Vec<(NodeId, TimeoutVote)> {
        let (keys, scope) = (keys(10), *set(4).scope());
        let vote = |(node, high): &(u64, u64)| {
            let statement = Statement::timeout(scope, View(9), View(*high));
            let signature = keys[*node as usize - 1].sign(&statement);
            (NodeId(*node), TimeoutVote { high_view: View(*high), signature })
        };
        of.iter().map(vote).collect()
    }

    fn certificate() -> TimeoutCertificate {
        TimeoutCertificate::assemble(View(9), &set(4), votes(&[(3, 6), (1, 8), (2, 2)])).unwrap()
    }

    #[test]
    fn each_signature_covers_its_own_high_view() {
        let certificate = certificate();
        assert_eq!(certificate.verify(&set(4)), Ok(()));
        assert!(certificate.votes().iter().map(|vote| vote.high_view.0).eq([8, 2, 6]));
        assert_eq!(certificate.high_view(), View(8));
    }

    /// A leader that lowers one signer's view would let a block extend an older certificate.
    #[test]
    fn a_lowered_high_view_is_found_out_and_its_signer_named() {
        let mut lowered = certificate();
        lowered.votes[0].high_view = View(2);
        assert_eq!(lowered.verify(&set(4)), Err(CertificateError::InvalidSignature { signer: NodeId(1) }));
        let mut moved = certificate();
        moved.view = View(10);
        assert_eq!(moved.verify(&set(4)), Err(CertificateError::InvalidSignature { signer: NodeId(1) }));
    }

    #[test]
    fn what_no_quorum_of_this_epoch_made_is_refused_by_name() {
        use CertificateError as E;
        let assemble =
            |of: &[(u64, u64)]| TimeoutCertificate::assemble(View(9), &set(4), votes(of)).map(|_| ());
        assert_eq!(assemble(&[(1, 1), (2, 1)]), Err(E::TooFew { signers: 2, quorum: 3 }));
        let all = [(1, 1), (2, 1), (3, 1), (4, 1)];
        assert_eq!(assemble(&all), Err(E::TooMany { signers: 4, quorum: 3 }));
        assert_eq!(assemble(&[(1, 1), (1, 2), (3, 1)]), Err(E::DuplicateSigner { signer: NodeId(1) }));
        assert_eq!(assemble(&[(1, 1), (2, 2), (9, 1)]), Err(E::UnknownSigner { signer: NodeId(9) }));
        assert!(matches!(certificate().check(&set(5)), Err(E::OtherSet { .. })));
        let mut foreign = certificate();
        foreign.scope.epoch = foreign.scope.epoch.next();
        assert!(matches!(foreign.check(&set(4)), Err(E::Foreign(ForeignScope::Epoch { .. }))));
    }

    #[test]
    fn one_certificate_has_one_byte_form() {
        let bytes = certificate().to_bytes();
        assert_eq!(bytes.len(), Scope::BYTES + 8 + 32 + 2 + 3 * 72);
        assert_eq!(whole(bytes.clone(), TimeoutCertificate::decode), Ok(certificate()));
        let mut long = bytes.to_vec();
        long.push(0);
        assert_eq!(whole(long.into(), TimeoutCertificate::decode), Err(DecodeError::Trailing { left: 1 }));
        for end in 0..bytes.len() {
            let short = whole(bytes.slice(..end), TimeoutCertificate::decode);
            assert!(matches!(short, Err(DecodeError::Truncated { .. })), "{end} bytes");
        }
    }
}
