//! A key as the state's tree holds it: short ones within the node, so that a search reads one place.
//!
//! Relies on nothing. Promises the order and the borrowed form of a byte slice. Knows no space.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;

use bytes::Bytes;

/// Longer keys lie elsewhere and are shared. Five words in all: a leaf of keys and values stays within few
/// pages.
const INLINE_BYTES_MAX: usize = 38;

/// A key.
#[derive(Clone)]
pub(crate) struct Key(Held);

#[derive(Clone)]
enum Held {
    Inline { len: u8, bytes: [u8; INLINE_BYTES_MAX] },
    Shared(Bytes),
}

const _: () = assert!(size_of::<Key>() == 40);

impl Key {
    pub(crate) fn new(key: &[u8]) -> Self {
        if key.len() > INLINE_BYTES_MAX {
            return Self(Held::Shared(Bytes::copy_from_slice(key)));
        }
        let mut bytes = [0; INLINE_BYTES_MAX];
        bytes[..key.len()].copy_from_slice(key);
        Self(Held::Inline { len: key.len() as u8, bytes })
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        match &self.0 {
            Held::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Held::Shared(bytes) => bytes,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.as_slice().len()
    }

    pub(crate) fn to_bytes(&self) -> Bytes {
        match &self.0 {
            Held::Inline { .. } => Bytes::copy_from_slice(self.as_slice()),
            Held::Shared(bytes) => bytes.clone(),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_bytes(), f)
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_slice().cmp(other.as_slice())
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self.as_slice()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_every_length_keep_their_bytes_and_their_order() {
        let raw: Vec<Vec<u8>> = (0..=2 * INLINE_BYTES_MAX).map(|len| vec![7; len]).collect();
        let keys: Vec<Key> = raw.iter().map(|key| Key::new(key)).collect();
        for (key, raw) in keys.iter().zip(&raw) {
            assert_eq!((key.as_slice(), &key.to_bytes()[..], key.len()), (&raw[..], &raw[..], raw.len()));
        }
        assert!(keys.windows(2).all(|pair| pair[0] < pair[1] && pair[0] != pair[1]));
        assert!(Key::new(&[8]) > keys[keys.len() - 1] && Key::new(&[6; 60]) < keys[1 + 6]);
    }
}
