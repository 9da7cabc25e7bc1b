//! A value under its signer's signature, before anyone has verified it.
//!
//! Relies on [`Stated`] to name every part of the value that matters. Promises that nothing reads the value
//! by accident: it comes out as [`Verified`](crate::Verified), or through a method whose name says that it
//! is not. Knows no message.

use quorate_types::NodeId;

use crate::{Check, ForeignScope, SecretKey, Signature, Statement, ValidatorSet};

/// A value that can be signed.
pub trait Stated {
    /// What a signature of this value says. Parts of the value that the statement leaves out are not
    /// vouched for: its digest covers them.
    fn statement(&self) -> Statement;
}

impl Stated for Statement {
    fn statement(&self) -> Statement {
        *self
    }
}

/// Why a signed value is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// It holds in another place than here.
    #[error(transparent)]
    Foreign(#[from] ForeignScope),
    /// The signer is no member of the epoch.
    #[error("{signer} is no member of the epoch")]
    UnknownSigner {
        /// Who is said to have signed.
        signer: NodeId,
    },
    /// The named signer did not sign it. Counts against whoever delivered it, never against the signer.
    #[error("the signature that names {signer} is not valid")]
    InvalidSignature {
        /// Who is said to have signed.
        signer: NodeId,
    },
    /// The verdict is on something else.
    #[error("the verdict is on another signature than the one of {signer}")]
    OtherVerdict {
        /// Who is said to have signed.
        signer: NodeId,
    },
}

/// A value, who is said to have signed it, and the signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed<T> {
    value: T,
    signer: NodeId,
    signature: Signature,
}

impl<T: Stated> Signed<T> {
    /// Signs a value.
    #[must_use]
    pub fn sign(value: T, signer: NodeId, key: &SecretKey) -> Self {
        let signature = key.sign(&value.statement());
        Self { value, signer, signature }
    }

    /// What is to be verified: the signature of the signer's key in `set` over the value's statement.
    ///
    /// # Errors
    ///
    /// [`VerifyError::Foreign`] and [`VerifyError::UnknownSigner`], before any signature is looked at.
    pub fn check(&self, set: &ValidatorSet) -> Result<Check, VerifyError> {
        let statement = self.value.statement();
        statement.scope.must_be(set.scope())?;
        let Some(member) = set.member(self.signer) else {
            return Err(VerifyError::UnknownSigner { signer: self.signer });
        };
        let bytes = statement.signing_bytes();
        Ok(Check { signer: self.signer, key: member.key, bytes, signature: self.signature })
    }
}

impl<T> Signed<T> {
    /// A signed value as it was received.
    #[must_use]
    pub fn from_parts(value: T, signer: NodeId, signature: Signature) -> Self {
        Self { value, signer, signature }
    }

    /// The value, which nobody has vouched for: for routing and encoding alone.
    #[must_use]
    pub fn unverified(&self) -> &T {
        &self.value
    }

    /// Who is said to have signed.
    #[must_use]
    pub fn signer(&self) -> NodeId {
        self.signer
    }

    /// The signature.
    #[must_use]
    pub fn signature(&self) -> Signature {
        self.signature
    }

    pub(crate) fn into_value(self) -> T {
        self.value
    }
}
