//! Digests of content, proof of origin, and certificates of quorums.
//!
//! Relies on BLAKE3 for hashing and on Ed25519 for signatures. Promises that a [`Verified`] value was
//! vouched for by the one place allowed to do so, that a [`SetDigest`] depends on a set's content alone,
//! that there is one rule by which a signature is accepted ([`PublicKey::accepts`]), and that a certificate
//! which passed its check holds exactly a quorum of distinct members of its epoch. Knows no protocol and no
//! network; of files only those that hold a key.

mod certificate;
mod check;
mod frame;
mod key;
mod key_file;
#[cfg(feature = "planted")]
pub mod planted;
mod possession;
mod set_digest;
mod signed;
mod signers;
mod statement;
mod timeout;
mod validators;
mod verified;

pub use certificate::{Certificate, CertificateError};
pub use check::{Check, Verdict};
pub use frame::{FrameCheck, frame_content, sign_frame};
pub use key::{KeyError, PublicKey, SecretKey, Signature, verify_strict};
pub use key_file::KeyFileError;
pub use possession::{Possession, PossessionError};
pub use set_digest::SetDigest;
pub use signed::{Signed, Stated, VerifyError};
pub use signers::Signers;
pub use statement::{ForeignScope, Scope, SigningBytes, Statement, StatementKind};
pub use timeout::{TimeoutCertificate, TimeoutVote};
pub use validators::{Validator, ValidatorSet, ValidatorSetError};
pub use verified::Verified;

use quorate_types::Digest;

/// The digest of `bytes` under `domain`; digests of two domains never coincide (BLAKE3 key
/// derivation mode).
#[must_use]
pub fn digest(domain: &'static str, bytes: &[u8]) -> Digest {
    Digest(blake3::derive_key(domain, bytes))
}

/// The digest that names a component: BLAKE3 of its bytes, as `b3sum` prints it.
#[must_use]
pub fn component_digest(bytes: &[u8]) -> Digest {
    Digest(*blake3::hash(bytes).as_bytes())
}
