//! One signature to be verified, and what came of it.
//!
//! Relies on the one rule of [`PublicKey::accepts`]. Promises that a [`Verdict`] carries what it judged, so
//! that a verdict on one signature never vouches for another. Knows no batch and no device.

use quorate_types::NodeId;

use crate::{PublicKey, Signature, SigningBytes};

/// A signature that waits for its verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Check {
    /// Who is said to have signed.
    pub signer: NodeId,
    /// That signer's key.
    pub key: PublicKey,
    /// What is said to be signed.
    pub bytes: SigningBytes,
    /// The signature.
    pub signature: Signature,
}

impl Check {
    /// Verifies here and now, on the processor.
    #[must_use]
    pub fn verify(self) -> Verdict {
        let accepted = self.key.accepts(self.bytes.as_slice(), &self.signature);
        Verdict { check: self, accepted }
    }

    /// Takes over a verdict that was reached elsewhere by the same rule: on a device, or before, for these
    /// very bytes. For the vote service alone; its tests see to it that nobody else calls this.
    #[must_use]
    pub fn decided_elsewhere(self, accepted: bool) -> Verdict {
        Verdict { check: self, accepted }
    }
}

/// What came of one [`Check`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    check: Check,
    accepted: bool,
}

impl Verdict {
    /// What was judged.
    #[must_use]
    pub fn check(&self) -> &Check {
        &self.check
    }

    /// Whether the named signer signed those bytes.
    #[must_use]
    pub fn is_accepted(&self) -> bool {
        self.accepted
    }
}
