//! A quorum's signatures on one statement.
//!
//! Relies on [`ValidatorSet`] for who counts. Promises that what passed [`Certificate::check`] holds exactly
//! a quorum of distinct members of that very epoch, and what passed [`Certificate::verify`] their valid
//! signatures as well; that one certificate has one byte form; and a typed error for everything else. Knows
//! no protocol, and no certificate that needs no check: there is none.
//!
//! ```text
//! 0           82           114        115 + bitmap
//! +-----------+------------+----------+------------------------------+
//! | statement | set digest | signers  | 64 bytes each, by member     |
//! +-----------+------------+----------+------------------------------+
//! ```

use bytes::Bytes;
use quorate_types::codec::{DecodeError, Reader, Writer};
use quorate_types::{Digest, NodeId};

use crate::{Check, ForeignScope, Signature, Signers, Statement, ValidatorSet};

const DIGEST_DOMAIN: &str = "quorate 2026 certificate";

/// Why a certificate proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// The bytes are none.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
    /// It holds in another place than here.
    #[error(transparent)]
    Foreign(#[from] ForeignScope),
    /// Another set of members made it, in what claims to be the same epoch.
    #[error("it names the validator set {found}, not {expected}")]
    OtherSet {
        /// The epoch's set.
        expected: Digest,
        /// What was found.
        found: Digest,
    },
    /// One member is counted twice.
    #[error("{signer} is named twice")]
    DuplicateSigner {
        /// The member.
        signer: NodeId,
    },
    /// A node that is no member of the epoch.
    #[error("{signer} is no member of the epoch")]
    UnknownSigner {
        /// The node.
        signer: NodeId,
    },
    /// A bit beyond the last member.
    #[error("place {place} is named; the epoch has {members} members")]
    UnknownPlace {
        /// The place, from 0.
        place: usize,
        /// How many members there are.
        members: usize,
    },
    /// Fewer signers than a quorum.
    #[error("{signers} signers; a quorum is {quorum}")]
    TooFew {
        /// How many signed.
        signers: usize,
        /// How many must.
        quorum: usize,
    },
    /// More signers than a quorum.
    #[error("{signers} signers; exactly {quorum} are needed")]
    TooMany {
        /// How many signed.
        signers: usize,
        /// How many must.
        quorum: usize,
    },
    /// A member did not sign what the certificate says.
    #[error("the signature that names {signer} is not valid")]
    InvalidSignature {
        /// The member.
        signer: NodeId,
    },
}

/// A quorum's signatures on one statement, in the order of the members.
///
/// Invariant: as many signatures as signers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    statement: Statement,
    set: Digest,
    signers: Signers,
    signatures: Vec<Signature>,
}

impl Certificate {
    /// Joins exactly a quorum of votes for `statement`; the signatures themselves are not verified here.
    ///
    /// # Errors
    ///
    /// [`CertificateError`] for a foreign statement, an unknown or duplicate signer, or another number of
    /// votes than the quorum.
    pub fn assemble(
        statement: Statement,
        set: &ValidatorSet,
        votes: impl IntoIterator<Item = (NodeId, Signature)>,
    ) -> Result<Self, CertificateError> {
        statement.scope.must_be(set.scope())?;
        let (signers, signatures) = by_member(set, votes)?;
        Ok(Self { statement, set: set.digest(), signers, signatures })
    }

    /// What the signers say.
    #[must_use]
    pub fn statement(&self) -> &Statement {
        &self.statement
    }

    /// Their places in the validator set.
    #[must_use]
    pub fn signers(&self) -> &Signers {
        &self.signers
    }

    /// Their signatures, in the order of the members.
    #[must_use]
    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// Names this certificate byte by byte, for remembering that it was verified. Never an identity: the
    /// same statement has many certificates.
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
        self.statement.scope.must_be(set.scope())?;
        check_signers(self.set, &self.signers, set)
    }

    /// The signatures to be verified, in the order of the members.
    ///
    /// # Errors
    ///
    /// As [`Certificate::check`].
    pub fn checks(&self, set: &ValidatorSet) -> Result<Vec<Check>, CertificateError> {
        self.check(set)?;
        let bytes = self.statement.signing_bytes();
        let check = |(place, signature): (usize, &Signature)| {
            let member = &set.members()[place];
            Check { signer: member.node, key: member.key, bytes, signature: *signature }
        };
        Ok(self.signers.iter().zip(&self.signatures).map(check).collect())
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
        self.statement.encode(out);
        out.raw(&self.set.0);
        self.signers.encode(out);
        self.signatures.iter().for_each(|signature| signature.encode(out));
    }

    /// Reads what [`Certificate::encode`] wrote, without checking it.
    ///
    /// # Errors
    ///
    /// As the codec.
    pub fn decode(from: &mut Reader) -> Result<Self, DecodeError> {
        let statement = Statement::decode(from)?;
        let set = Digest(from.array("certificate set")?);
        let signers = Signers::decode(from)?;
        let signatures = (0..signers.count()).map(|_| Signature::decode(from)).collect::<Result<_, _>>()?;
        Ok(Self { statement, set, signers, signatures })
    }

    /// The byte form.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let room = Statement::BYTES + 32 + 17 + self.signatures.len() * Signature::BYTES;
        let mut out = Writer::with_capacity(room);
        self.encode(&mut out);
        out.finish()
    }
}

/// Puts what exactly a quorum of distinct members gave into the order of the members.
pub(crate) fn by_member<V>(
    set: &ValidatorSet,
    votes: impl IntoIterator<Item = (NodeId, V)>,
) -> Result<(Signers, Vec<V>), CertificateError> {
    let mut signers = Signers::default();
    let mut placed = Vec::with_capacity(set.quorum());
    for (signer, vote) in votes {
        let place = set.place(signer).ok_or(CertificateError::UnknownSigner { signer })?;
        if !signers.insert(place) {
            return Err(CertificateError::DuplicateSigner { signer });
        }
        placed.push((place, vote));
    }
    check_count(&signers, set)?;
    placed.sort_by_key(|(place, _)| *place);
    Ok((signers, placed.into_iter().map(|(_, vote)| vote).collect()))
}

/// Checks that exactly a quorum of members of `set` signed what names the set `found`.
pub(crate) fn check_signers(
    found: Digest,
    signers: &Signers,
    set: &ValidatorSet,
) -> Result<(), CertificateError> {
    if found != set.digest() {
        return Err(CertificateError::OtherSet { expected: set.digest(), found });
    }
    let members = set.members().len();
    if let Some(place) = signers.highest().filter(|place| *place >= members) {
        return Err(CertificateError::UnknownPlace { place, members });
    }
    check_count(signers, set)
}

/// Verifies one signature after another and names the first that is not valid.
pub(crate) fn verify_all(checks: Vec<Check>) -> Result<(), CertificateError> {
    match checks.into_iter().map(Check::verify).find(|verdict| !verdict.is_accepted()) {
        Some(verdict) => Err(CertificateError::InvalidSignature { signer: verdict.check().signer }),
        None => Ok(()),
    }
}

fn check_count(signers: &Signers, set: &ValidatorSet) -> Result<(), CertificateError> {
    let (signers, quorum) = (signers.count(), set.quorum());
    if signers < quorum {
        return Err(CertificateError::TooFew { signers, quorum });
    }
    if signers > quorum {
        return Err(CertificateError::TooMany { signers, quorum });
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use quorate_types::{ClusterId, Epoch, GroupId, Protocol, View};

    use super::*;
    use crate::validators::tests::{keys, set};
    use crate::{Scope, Validator};

    /// Reads what is all of `bytes`.
    pub(crate) fn whole<T>(
        bytes: Bytes,
        decode: impl FnOnce(&mut Reader) -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        let mut reader = Reader::new(bytes);
        let read = decode(&mut reader)?;
        reader.end()?;
        Ok(read)
    }

    fn statement() -> Statement {
        crate::statement::tests::statement()
    }

    /// Votes of these nodes for `statement`.
    fn votes(statement: &Statement, nodes: &[u64]) -> Vec<(NodeId, Signature)> {
        let keys = keys(10);
        nodes.iter().map(|node| (NodeId(*node), keys[*node as usize - 1].sign(statement))).collect()
    }

    fn certificate() -> Certificate {
        Certificate::assemble(statement(), &set(4), votes(&statement(), &[4, 1, 3])).unwrap()
    }

    #[test]
    fn exactly_a_quorum_of_distinct_members_makes_a_certificate() {
        let certificate = certificate();
        assert_eq!(certificate.verify(&set(4)), Ok(()));
        assert!(certificate.signers().iter().eq([0, 2, 3]));
        let assemble = |nodes: &[u64]| {
            Certificate::assemble(statement(), &set(4), votes(&statement(), nodes)).map(|_| ())
        };
        use CertificateError as E;
        assert_eq!(assemble(&[1, 2]), Err(E::TooFew { signers: 2, quorum: 3 }));
        assert_eq!(assemble(&[1, 2, 3, 4]), Err(E::TooMany { signers: 4, quorum: 3 }));
        assert_eq!(assemble(&[1, 2, 1]), Err(E::DuplicateSigner { signer: NodeId(1) }));
        assert_eq!(assemble(&[1, 2, 7]), Err(E::UnknownSigner { signer: NodeId(7) }));
    }

    /// The quorum is that of n, not `2f + 1`: with six members, four signers are too few.
    #[test]
    fn the_quorum_is_the_one_of_n() {
        let assemble = |nodes: &[u64]| {
            Certificate::assemble(statement(), &set(6), votes(&statement(), nodes)).map(|_| ())
        };
        assert_eq!(assemble(&[1, 2, 3]), Err(CertificateError::TooFew { signers: 3, quorum: 5 }));
        assert_eq!(assemble(&[1, 2, 3, 4]), Err(CertificateError::TooFew { signers: 4, quorum: 5 }));
        assert_eq!(assemble(&[1, 2, 3, 4, 6]), Ok(()));
    }

    #[test]
    fn certificates_of_another_place_are_refused_by_name() {
        let base = *set(4).scope();
        let check = |scope: Scope| {
            let other = ValidatorSet::new(scope, set(4).members().to_vec()).unwrap();
            certificate().check(&other)
        };
        let foreign = |error| Err(CertificateError::Foreign(error));
        let (expected, found) = (ClusterId([7; 16]), base.cluster);
        assert_eq!(
            check(Scope { cluster: expected, ..base }),
            foreign(ForeignScope::Cluster { expected, found })
        );
        let (expected, found) = (GroupId(7), base.group);
        assert_eq!(
            check(Scope { group: expected, ..base }),
            foreign(ForeignScope::Group { expected, found })
        );
        let (expected, found) = (Epoch(7), base.epoch);
        assert_eq!(
            check(Scope { epoch: expected, ..base }),
            foreign(ForeignScope::Epoch { expected, found })
        );
        let (expected, found) = (Protocol::Pbft, base.protocol);
        assert_eq!(
            check(Scope { protocol: expected, ..base }),
            foreign(ForeignScope::Protocol { expected, found })
        );
        assert!(matches!(certificate().check(&set(5)), Err(CertificateError::OtherSet { .. })));
        let foreign = Certificate::assemble(
            Statement { scope: Scope { epoch: Epoch(7), ..base }, ..statement() },
            &set(4),
            votes(&statement(), &[1, 2, 3]),
        );
        assert!(matches!(foreign, Err(CertificateError::Foreign(ForeignScope::Epoch { .. }))));
    }

    /// A leader that alters what a quorum said, or lends one member's signature to another, is found out and
    /// the member named.
    #[test]
    fn signatures_are_verified_and_the_culprit_is_named() {
        let mut moved = certificate();
        moved.statement.view = View(99);
        assert_eq!(moved.verify(&set(4)), Err(CertificateError::InvalidSignature { signer: NodeId(1) }));
        let mut lent = certificate();
        lent.signatures[1] = lent.signatures[0];
        assert_eq!(lent.verify(&set(4)), Err(CertificateError::InvalidSignature { signer: NodeId(3) }));
        let rekeyed: Vec<Validator> = set(4).members().to_vec();
        assert_eq!(certificate().verify(&ValidatorSet::new(*set(4).scope(), rekeyed).unwrap()), Ok(()));
    }

    #[test]
    fn one_certificate_has_one_byte_form() {
        let bytes = certificate().to_bytes();
        assert_eq!(bytes.len(), Statement::BYTES + 32 + 2 + 3 * 64);
        assert_eq!(whole(bytes.clone(), Certificate::decode), Ok(certificate()));
        let mut long = bytes.to_vec();
        long.push(0);
        assert_eq!(whole(long.into(), Certificate::decode), Err(DecodeError::Trailing { left: 1 }));
        let short = whole(bytes.slice(..bytes.len() - 1), Certificate::decode);
        assert!(matches!(short, Err(DecodeError::Truncated { .. })));
        // The bitmap in two bytes instead of one.
        let at = Statement::BYTES + 32;
        let mut wide = bytes.to_vec();
        wide[at] = 2;
        wide.insert(at + 2, 0);
        assert!(matches!(whole(wide.into(), Certificate::decode), Err(DecodeError::Unknown { .. })));
        // A bit beyond the fourth member, in place of the last signer's.
        let mut beyond = bytes.to_vec();
        beyond[at + 1] = 0b1_0101;
        let beyond = whole(beyond.into(), Certificate::decode).unwrap();
        assert_eq!(beyond.check(&set(4)), Err(CertificateError::UnknownPlace { place: 4, members: 4 }));
        assert_ne!(certificate().digest(), beyond.digest());
    }

    proptest! {
        /// Whatever arrives, reading and checking it ends, and what is read is written alike.
        #[test]
        fn bytes_from_outside_never_panic(noise in prop::collection::vec(any::<u8>(), 0..400), cut in 0usize..310,
                                          at in 0usize..310, byte in any::<u8>()) {
            let good = certificate().to_bytes();
            let mut mutated = good.to_vec();
            let place = at % mutated.len();
            mutated[place] = byte;
            mutated.truncate(cut.max(1));
            for bytes in [noise, mutated] {
                if let Ok(read) = whole(bytes.clone().into(), Certificate::decode) {
                    prop_assert_eq!(read.to_bytes(), Bytes::from(bytes.clone()));
                    let believed = read.verify(&set(4)).is_ok();
                    prop_assert!(!believed || bytes == good);
                }
            }
        }
    }
}
