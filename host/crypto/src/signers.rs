//! Who signed: a set of places in a validator set.
//!
//! Relies on groups having at most 128 members. Promises that no place counts twice and that one set has
//! one byte form. Knows no node and no key.
//!
//! ```text
//! 0        1            1 + bytes
//! +--------+------------+
//! | bytes  | bitmap     |   place i is bit i % 8 of byte i / 8; the last byte is not zero
//! +--------+------------+
//! ```

use quorate_types::REPLICAS_MAX;
use quorate_types::codec::{DecodeError, Reader, Writer};

/// Bytes of the longest bitmap.
const BYTES_MAX: usize = 16;

const _: () = assert!(BYTES_MAX * 8 == REPLICAS_MAX, "each member of the largest group has a bit");

/// A set of places in a validator set, from 0.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Signers(u128);

impl Signers {
    /// Adds a place; whether it was not there before.
    pub fn insert(&mut self, place: usize) -> bool {
        assert!(place < REPLICAS_MAX, "place {place} of at most {REPLICAS_MAX}");
        let bit = 1 << place;
        let is_new = self.0 & bit == 0;
        self.0 |= bit;
        is_new
    }

    /// Whether the place is in the set.
    #[must_use]
    pub fn contains(&self, place: usize) -> bool {
        place < REPLICAS_MAX && self.0 & (1 << place) != 0
    }

    /// How many places there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.count_ones() as usize
    }

    /// The places, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> + use<> {
        let bits = self.0;
        (0..REPLICAS_MAX).filter(move |place| bits & (1 << place) != 0)
    }

    /// The highest place, if there is one.
    #[must_use]
    pub fn highest(&self) -> Option<usize> {
        self.0.checked_ilog2().map(|place| place as usize)
    }

    /// Appends the byte form.
    pub fn encode(&self, out: &mut Writer) {
        let bytes = self.highest().map_or(0, |place| place / 8 + 1);
        out.u8(bytes as u8);
        out.raw(&self.0.to_le_bytes()[..bytes]);
    }

    /// Reads what [`Signers::encode`] wrote.
    ///
    /// # Errors
    ///
    /// [`DecodeError::TooLarge`] for more bytes than the largest group needs, and [`DecodeError::Unknown`]
    /// for a last byte of zero, which a shorter form would leave out.
    pub fn decode(from: &mut Reader) -> Result<Self, DecodeError> {
        const WHAT: &str = "signer bitmap";
        let count = usize::from(from.u8(WHAT)?);
        if count > BYTES_MAX {
            return Err(DecodeError::TooLarge { what: WHAT, value: count as u64, bound: BYTES_MAX as u64 });
        }
        let bytes = from.raw(count, WHAT)?;
        if bytes.last() == Some(&0) {
            return Err(DecodeError::Unknown { what: WHAT, value: 0 });
        }
        let mut whole = [0; BYTES_MAX];
        whole[..count].copy_from_slice(&bytes);
        Ok(Self(u128::from_le_bytes(whole)))
    }
}

impl std::fmt::Debug for Signers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn a_place_counts_once_and_places_ascend() {
        let mut signers = Signers::default();
        assert!(signers.insert(127) && signers.insert(0) && signers.insert(8));
        assert!(!signers.insert(8));
        assert_eq!((signers.count(), signers.highest()), (3, Some(127)));
        assert!(signers.iter().eq([0, 8, 127]));
        assert!(!signers.contains(1) && !signers.contains(400));
    }

    #[test]
    fn a_set_has_one_byte_form() {
        for places in [&[][..], &[0], &[7], &[8], &[0, 9, 64, 127]] {
            let mut signers = Signers::default();
            for place in places {
                assert!(signers.insert(*place));
            }
            let mut writer = Writer::default();
            signers.encode(&mut writer);
            let mut reader = Reader::new(writer.finish());
            assert_eq!(Signers::decode(&mut reader), Ok(signers));
            assert_eq!(reader.end(), Ok(()));
        }
        let decode = |bytes: &'static [u8]| Signers::decode(&mut Reader::new(Bytes::from_static(bytes)));
        assert!(matches!(decode(&[2, 1, 0]), Err(DecodeError::Unknown { value: 0, .. })));
        assert!(matches!(decode(&[17]), Err(DecodeError::TooLarge { bound: 16, .. })));
        assert!(matches!(decode(&[2, 1]), Err(DecodeError::Truncated { .. })));
    }
}
