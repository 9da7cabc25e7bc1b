//! Digests of content and proof of origin.
//!
//! Relies on BLAKE3 for hashing. Promises that a [`Verified`] value was vouched for by the one place
//! allowed to do so, and that a [`SetDigest`] depends on a set's content alone. Knows no protocol, no
//! key file and no network. Signatures and certificates of Byzantine groups live here as well.

mod set_digest;
mod verified;

pub use set_digest::SetDigest;
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
