//! Ed25519 keys and signatures, and the one rule by which a signature is accepted.
//!
//! Relies on `ed25519-dalek`, whose `verify_strict` is that rule: s below the group's order, neither R nor
//! the key of small order, and the equation without the cofactor, so that no two verifiers disagree
//! (Chalkias, Garillot and Nikolaenko 2020, "Taming the many EdDSAs"). Promises that a [`PublicKey`] was
//! checked when it was made, that a [`SecretKey`] signs nothing but [`Statement`]s and is wiped from memory
//! when dropped, and that signature bytes are never an identity: they cannot be ordered or hashed. Knows no
//! signer by name and no file.

use std::fmt;

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use quorate_types::codec::{DecodeError, Reader, Writer};
use zeroize::Zeroizing;

use crate::statement::Statement;

/// A public key that nobody should register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No point of the curve has this encoding.
    #[error("the bytes are no point of the curve; register the 32 bytes of an Ed25519 public key")]
    NotAPoint,
    /// A point of the curve in an encoding that is not its own.
    #[error("the point is not encoded canonically; generate a new key")]
    NotCanonical,
    /// One of the eight points for which anyone can make signatures.
    #[error("the point is of small order, so that anyone could sign for it; generate a new key")]
    SmallOrder,
    /// A point with a part of small order: verifiers with and without the cofactor disagree on it.
    #[error("the point has a part of small order; generate a new key")]
    MixedOrder,
}

/// A public key that was checked: canonical, not of small order, torsion-free.
///
/// Ordered by its bytes, so that sets of keys have one order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Bytes of the encoded form.
    pub const BYTES: usize = 32;

    /// Checks a key once, before anything is verified with it.
    ///
    /// # Errors
    ///
    /// [`KeyError`] for the first fault found.
    pub fn register(bytes: &[u8; Self::BYTES]) -> Result<Self, KeyError> {
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| KeyError::NotAPoint)?;
        let point = key.to_edwards();
        if point.compress().as_bytes() != bytes {
            return Err(KeyError::NotCanonical);
        }
        if point.is_small_order() {
            return Err(KeyError::SmallOrder);
        }
        if !point.is_torsion_free() {
            return Err(KeyError::MixedOrder);
        }
        Ok(Self(key))
    }

    /// The encoded form.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        self.0.to_bytes()
    }

    /// Whether the key's owner signed exactly these bytes (`verify_strict`).
    #[must_use]
    pub fn accepts(&self, message: &[u8], signature: &Signature) -> bool {
        self.0.verify_strict(message, &ed25519_dalek::Signature::from_bytes(&signature.0)).is_ok()
    }
}

impl PartialOrd for PublicKey {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for PublicKey {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.as_bytes().cmp(other.0.as_bytes())
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

/// The rule on its own, for a key that was not registered: what every other verifier must agree with.
#[must_use]
pub fn verify_strict(public: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    let Ok(key) = VerifyingKey::from_bytes(public) else { return false };
    key.verify_strict(message, &ed25519_dalek::Signature::from_bytes(signature)).is_ok()
}

/// 64 bytes that claim to be a signature. Never ordered or hashed: two valid signatures of one statement
/// may differ, so nothing may be told apart by them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature(pub [u8; 64]);

impl Signature {
    /// Bytes of the encoded form.
    pub const BYTES: usize = 64;

    /// Appends the 64 bytes.
    pub fn encode(&self, out: &mut Writer) {
        out.raw(&self.0);
    }

    /// Reads what [`Signature::encode`] wrote.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Truncated`].
    pub fn decode(from: &mut Reader) -> Result<Self, DecodeError> {
        from.array("signature").map(Self)
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signature(")?;
        self.0[..6].iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("..)")
    }
}

/// A secret key; wiped from memory when dropped, printed never.
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// Bytes of a seed.
    pub const SEED_BYTES: usize = 32;

    /// A new key from the operating system's randomness.
    ///
    /// # Errors
    ///
    /// When the operating system has none to give.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut seed = Zeroizing::new([0; Self::SEED_BYTES]);
        getrandom::fill(seed.as_mut_slice())?;
        Ok(Self::from_seed(&seed))
    }

    /// The key of a seed (RFC 8032 §5.1.5). Seeds come from a key file, or from the simulator.
    #[must_use]
    pub fn from_seed(seed: &[u8; Self::SEED_BYTES]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The key that verifies what this one signs. It needs no check: a derived key is canonical, of large
    /// order and torsion-free, since clamping makes its scalar a multiple of the cofactor that is not zero
    /// modulo the group's order.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// Signs a statement. Deterministic: the same statement gives the same signature.
    #[must_use]
    pub fn sign(&self, statement: &Statement) -> Signature {
        self.sign_bytes(statement.signing_bytes().as_slice())
    }

    pub(crate) fn sign_bytes(&self, message: &[u8]) -> Signature {
        Signature(self.0.sign(message).to_bytes())
    }

    pub(crate) fn seed(&self) -> Zeroizing<[u8; Self::SEED_BYTES]> {
        Zeroizing::new(self.0.to_bytes())
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {})", self.public())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const RFC8032: &str = include_str!("../tests/vectors/rfc8032.txt");
    const WYCHEPROOF: &str = include_str!("../tests/vectors/wycheproof.txt");
    const SPECCHECK: &str = include_str!("../tests/vectors/speccheck.txt");

    fn bytes(hex: &str) -> Vec<u8> {
        let hex = if hex == "-" { "" } else { hex };
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    fn array<const N: usize>(hex: &str) -> [u8; N] {
        bytes(hex).try_into().unwrap()
    }

    fn lines(text: &str) -> impl Iterator<Item = Vec<&str>> {
        text.lines().filter(|line| !line.starts_with('#')).map(|line| line.split(' ').collect())
    }

    /// (expected verdict, the rule's verdict, key, case) of each case; a signature of another length than
    /// 64 bytes is no signature at all and refused by its type.
    fn verdicts(text: &str) -> Vec<(bool, bool, [u8; 32], String)> {
        lines(text)
            .map(|case| {
                let (key, message) = (array(case[1]), bytes(case[2]));
                let signature: Result<[u8; 64], _> = bytes(case[3]).try_into();
                let accepted = signature.is_ok_and(|signature| verify_strict(&key, &message, &signature));
                (case[0] == "1", accepted, key, case[4..].join(" "))
            })
            .collect()
    }

    #[test]
    fn the_vectors_of_rfc_8032_are_derived_signed_and_accepted() {
        let mut cases = 0;
        for case in lines(RFC8032) {
            let secret = SecretKey::from_seed(&array(case[0]));
            let (public, message, signature) = (array(case[1]), bytes(case[2]), Signature(array(case[3])));
            assert_eq!(secret.public().to_bytes(), public);
            assert_eq!(secret.sign_bytes(&message), signature);
            assert!(PublicKey::register(&public).unwrap().accepts(&message, &signature));
            let mut other = message.clone();
            other.push(0);
            assert!(!secret.public().accepts(&other, &signature));
            cases += 1;
        }
        assert_eq!(cases, 5);
    }

    #[test]
    fn wycheproof_and_speccheck_get_the_verdicts_of_the_one_rule() {
        let wycheproof = verdicts(WYCHEPROOF);
        assert_eq!(wycheproof.len(), 150);
        let speccheck = verdicts(SPECCHECK);
        assert_eq!(speccheck.len(), 15);
        for (expected, actual, _, case) in wycheproof.iter().chain(&speccheck) {
            assert_eq!(actual, expected, "case {case}");
        }
        // Were all verdicts alike, a rule that always answers the same would pass.
        assert!(wycheproof.iter().any(|case| case.0) && wycheproof.iter().any(|case| !case.0));
    }

    /// Case 3 of speccheck passes the rule although its key has a part of small order: such keys are kept
    /// out at registration.
    #[test]
    fn keys_of_mixed_order_pass_the_rule_and_fail_registration() {
        let (_, accepted, key, _) = verdicts(SPECCHECK).into_iter().find(|case| case.3 == "3").unwrap();
        assert!(accepted);
        assert_eq!(PublicKey::register(&key), Err(KeyError::MixedOrder));
    }

    #[test]
    fn keys_that_nobody_should_register_are_refused_by_name() {
        let of = |low: u8, rest: u8, high: u8| {
            let mut key = [rest; 32];
            (key[0], key[31]) = (low, high);
            PublicKey::register(&key)
        };
        // y = 0, 1 and p - 1: orders 4, 1 and 2.
        assert_eq!(of(0, 0, 0), Err(KeyError::SmallOrder));
        assert_eq!(of(1, 0, 0), Err(KeyError::SmallOrder));
        assert_eq!(of(0xec, 0xff, 0x7f), Err(KeyError::SmallOrder));
        let order_8 = array("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05");
        assert_eq!(PublicKey::register(&order_8), Err(KeyError::SmallOrder));
        // y = p and p + 1 stand for 0 and 1; x = 0 has no negative.
        assert_eq!(of(0xed, 0xff, 0x7f), Err(KeyError::NotCanonical));
        assert_eq!(of(0xee, 0xff, 0x7f), Err(KeyError::NotCanonical));
        assert_eq!(of(1, 0, 0x80), Err(KeyError::NotCanonical));
        // y = 2 is on no point.
        assert_eq!(of(2, 0, 0), Err(KeyError::NotAPoint));
    }

    #[test]
    fn a_secret_key_is_not_printed() {
        let secret = SecretKey::from_seed(&[7; 32]);
        let text = format!("{secret:?}");
        assert!(!text.contains("0707") && text.contains(&secret.public().to_string()));
        assert_ne!(SecretKey::generate().unwrap().public(), SecretKey::generate().unwrap().public());
    }
}
