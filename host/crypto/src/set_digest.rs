//! The digest of a set that can be kept up to date by its changes alone.
//!
//! LtHash16 (Bellare and Micciancio 1997; Lewi, Kim, Maykov and Weis 2019, "Securing Update
//! Propagation with Homomorphic Hashing"): each element is expanded to 1,024 numbers of 16 bits, and a
//! set is the sum of its elements, number by number. Adding and removing commute, so the history does
//! not matter; finding two sets with one sum is as hard as a short-vector problem in that lattice.
//!
//! Relies on BLAKE3 as an extendable-output function. Promises: equal sets, equal digest, whatever the
//! order of changes. Does not know what an element is.

use quorate_types::Digest;

const LANES: usize = 1_024;
const ELEMENT_DOMAIN: &str = "quorate 2026 set digest element";
const SUM_DOMAIN: &str = "quorate 2026 set digest sum";

/// The running sum over a set of (key, value) pairs.
#[derive(Clone, PartialEq, Eq)]
pub struct SetDigest {
    lanes: Box<[u16; LANES]>,
}

impl Default for SetDigest {
    fn default() -> Self {
        Self { lanes: Box::new([0; LANES]) }
    }
}

impl std::fmt::Debug for SetDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SetDigest({})", self.digest())
    }
}

impl SetDigest {
    /// Bytes of the stored form.
    pub const BYTES: usize = LANES * 2;

    /// Adds a pair that the set did not hold.
    pub fn add(&mut self, key: &[u8], value: &[u8]) {
        let element = expand(key, value);
        for (lane, number) in self.lanes.iter_mut().zip(element.chunks_exact(2)) {
            *lane = lane.wrapping_add(u16::from_le_bytes([number[0], number[1]]));
        }
    }

    /// Removes a pair that the set held.
    pub fn remove(&mut self, key: &[u8], value: &[u8]) {
        let element = expand(key, value);
        for (lane, number) in self.lanes.iter_mut().zip(element.chunks_exact(2)) {
            *lane = lane.wrapping_sub(u16::from_le_bytes([number[0], number[1]]));
        }
    }

    /// The set's digest.
    #[must_use]
    pub fn digest(&self) -> Digest {
        crate::digest(SUM_DOMAIN, &self.to_bytes())
    }

    /// The stored form: every lane, two bytes, least significant first.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.lanes.iter().flat_map(|lane| lane.to_le_bytes()).collect()
    }

    /// Reads the stored form; `None` unless it has exactly [`SetDigest::BYTES`] bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != Self::BYTES {
            return None;
        }
        let mut sum = Self::default();
        for (lane, number) in sum.lanes.iter_mut().zip(bytes.chunks_exact(2)) {
            *lane = u16::from_le_bytes([number[0], number[1]]);
        }
        Some(sum)
    }
}

/// The element's expansion; the key's length is hashed first so that no two pairs run together.
fn expand(key: &[u8], value: &[u8]) -> [u8; SetDigest::BYTES] {
    let mut hasher = blake3::Hasher::new_derive_key(ELEMENT_DOMAIN);
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher.update(value);
    let mut element = [0; SetDigest::BYTES];
    hasher.finalize_xof().fill(&mut element);
    element
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_changes_does_not_matter() {
        let mut left = SetDigest::default();
        left.add(b"a", b"1");
        left.add(b"b", b"2");
        left.remove(b"a", b"1");
        left.add(b"a", b"3");
        let mut right = SetDigest::default();
        right.add(b"a", b"3");
        right.add(b"b", b"2");
        assert_eq!(left.digest(), right.digest());
        assert_eq!(SetDigest::from_bytes(&left.to_bytes()), Some(left));
    }

    #[test]
    fn another_value_or_another_split_gives_another_digest() {
        let of = |key: &[u8], value: &[u8]| {
            let mut sum = SetDigest::default();
            sum.add(key, value);
            sum.digest()
        };
        assert_ne!(of(b"a", b"1"), of(b"a", b"2"));
        assert_ne!(of(b"ab", b"c"), of(b"a", b"bc"));
        assert_ne!(of(b"", b""), SetDigest::default().digest());
        assert_eq!(SetDigest::from_bytes(&[0; 3]), None);
    }
}
