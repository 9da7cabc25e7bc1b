//! Proof that a replica lied: two signed statements of one signer of which honest replicas make one.
//!
//! Relies on the kinds of statements. Promises that a piece of evidence proves itself to whoever knows the
//! epoch's members, and that its identity is what was said and never the bytes of a signature. Does not know
//! what is done about it.

use bytes::Bytes;
use quorate_crypto::{Check, Signature, Statement, StatementKind, ValidatorSet};
use quorate_types::codec::{DecodeError, Reader, Writer};
use quorate_types::{Digest, NodeId};

const EVIDENCE_DOMAIN: &str = "quorate 2026 evidence";

/// Two conflicting statements under one signer's signatures; the lesser statement comes first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    signer: NodeId,
    statements: [Statement; 2],
    signatures: [Signature; 2],
}

/// Why something proves no lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvidenceError {
    /// An honest replica may say both.
    #[error("the two statements do not conflict")]
    NoConflict,
    /// The signer is no member of the epoch, or the epoch is another.
    #[error("{signer} is no member of that epoch")]
    UnknownSigner {
        /// Who is accused.
        signer: NodeId,
    },
    /// One of the signatures is not the signer's.
    #[error("a signature that names {signer} is not valid")]
    InvalidSignature {
        /// Who is accused.
        signer: NodeId,
    },
}

impl Evidence {
    /// Joins two statements if no honest replica makes both: of one kind that is made once a view, in one
    /// view of one epoch, and different.
    #[must_use]
    pub fn of(signer: NodeId, first: (Statement, Signature), second: (Statement, Signature)) -> Option<Self> {
        if !conflict(&first.0, &second.0) {
            return None;
        }
        let (first, second) = if first.0 <= second.0 { (first, second) } else { (second, first) };
        Some(Self { signer, statements: [first.0, second.0], signatures: [first.1, second.1] })
    }

    /// Who lied.
    #[must_use]
    pub fn signer(&self) -> NodeId {
        self.signer
    }

    /// What was said.
    #[must_use]
    pub fn statements(&self) -> &[Statement; 2] {
        &self.statements
    }

    /// Names the lie: who said what, whatever the bytes of the signatures.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut out = Writer::with_capacity(8 + 2 * Statement::BYTES);
        out.u64(self.signer.0);
        self.statements.iter().for_each(|statement| statement.encode(&mut out));
        quorate_crypto::digest(EVIDENCE_DOMAIN, out.as_slice())
    }

    /// The byte form.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let mut out = Writer::with_capacity(8 + 2 * (Statement::BYTES + Signature::BYTES));
        self.encode(&mut out);
        out.finish()
    }

    /// Reads evidence that is all of `bytes`, without verifying it.
    ///
    /// # Errors
    ///
    /// As the codec.
    pub fn from_bytes(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut from = Reader::new(bytes);
        let evidence = Self::decode(&mut from)?;
        from.end()?;
        Ok(evidence)
    }

    /// Checks that the evidence holds against a member of `set`.
    ///
    /// # Errors
    ///
    /// [`EvidenceError`] for the first reason why it does not.
    pub fn verify(&self, set: &ValidatorSet) -> Result<(), EvidenceError> {
        if !conflict(&self.statements[0], &self.statements[1]) {
            return Err(EvidenceError::NoConflict);
        }
        let signer = self.signer;
        let member = set.member(signer).filter(|_| self.statements[0].scope == *set.scope());
        let key = member.ok_or(EvidenceError::UnknownSigner { signer })?.key;
        for (statement, signature) in self.statements.iter().zip(self.signatures) {
            let check = Check { signer, key, bytes: statement.signing_bytes(), signature };
            if !check.verify().is_accepted() {
                return Err(EvidenceError::InvalidSignature { signer });
            }
        }
        Ok(())
    }

    /// Appends the encoded form.
    pub fn encode(&self, out: &mut Writer) {
        out.u64(self.signer.0);
        for (statement, signature) in self.statements.iter().zip(self.signatures) {
            statement.encode(out);
            signature.encode(out);
        }
    }

    /// Reads what [`Evidence::encode`] wrote, without verifying it.
    ///
    /// # Errors
    ///
    /// As the codec.
    pub fn decode(from: &mut Reader) -> Result<Self, DecodeError> {
        let signer = NodeId(from.u64("evidence signer")?);
        let mut part = || Ok::<_, DecodeError>((Statement::decode(from)?, Signature::decode(from)?));
        let (first, second) = (part()?, part()?);
        Ok(Self { signer, statements: [first.0, second.0], signatures: [first.1, second.1] })
    }
}

fn conflict(first: &Statement, second: &Statement) -> bool {
    let once = matches!(first.kind, StatementKind::Proposal | StatementKind::Vote | StatementKind::Timeout);
    once && first != second
        && (first.scope, first.kind, first.view) == (second.scope, second.kind, second.view)
}
