//! The byte form of everything that reaches a disk or a peer: fixed-width little-endian integers and
//! length-prefixed bytes, nothing else.
//!
//! Relies on `bytes` for slices that share one buffer. Promises one byte string per value, and a typed
//! error, never a panic or a large allocation, for bytes that are not one. Knows no format by name.

use bytes::Bytes;

/// Bytes from outside are not the value they were read as.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end inside a value.
    #[error("{what}: {needed} more bytes are needed and {left} are left")]
    Truncated {
        /// The value being read.
        what: &'static str,
        /// Bytes the value needs.
        needed: usize,
        /// Bytes that were left.
        left: usize,
    },
    /// A tag, flag or text has a value that is not allowed.
    #[error("{what}: {value} is not a known value")]
    Unknown {
        /// The value being read.
        what: &'static str,
        /// What was found.
        value: u64,
    },
    /// A count or length is above its bound.
    #[error("{what}: {value} is above the bound of {bound}")]
    TooLarge {
        /// The value being read.
        what: &'static str,
        /// What was found.
        value: u64,
        /// The greatest value allowed.
        bound: u64,
    },
    /// Bytes are left over after the value.
    #[error("{left} bytes are left over")]
    Trailing {
        /// How many.
        left: usize,
    },
}

/// Appends values to a growing buffer.
#[derive(Debug, Default)]
pub struct Writer {
    out: Vec<u8>,
}

impl Writer {
    /// An empty writer with room for `capacity` bytes.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self { out: Vec::with_capacity(capacity) }
    }

    /// Appends one byte.
    pub fn u8(&mut self, value: u8) {
        self.out.push(value);
    }

    /// Appends four bytes, least significant first.
    pub fn u32(&mut self, value: u32) {
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    /// Appends eight bytes, least significant first.
    pub fn u64(&mut self, value: u64) {
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    /// Appends bytes whose length the reader knows.
    pub fn raw(&mut self, value: &[u8]) {
        self.out.extend_from_slice(value);
    }

    /// Appends a length of four bytes, then the bytes.
    ///
    /// # Panics
    ///
    /// Above 4 GiB; every caller's bound is far below.
    pub fn bytes(&mut self, value: &[u8]) {
        self.u32(u32::try_from(value.len()).expect("every encoded value is bounded below 4 GiB"));
        self.raw(value);
    }

    /// How many bytes were appended.
    #[must_use]
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether nothing was appended.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// The bytes so far.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.out
    }

    /// The bytes so far, to fill in what is known only after what follows it.
    #[must_use]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.out
    }

    /// Forgets the bytes and keeps the room, so that one writer serves many values.
    pub fn clear(&mut self) {
        self.out.clear();
    }

    /// The bytes.
    #[must_use]
    pub fn finish(self) -> Bytes {
        Bytes::from(self.out)
    }
}

/// Takes values off the front of a buffer; byte values share that buffer.
#[derive(Clone, Debug)]
pub struct Reader {
    left: Bytes,
}

impl Reader {
    /// Reads from the start of `bytes`.
    #[must_use]
    pub fn new(bytes: Bytes) -> Self {
        Self { left: bytes }
    }

    /// Takes `len` bytes without copying.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Truncated`].
    pub fn raw(&mut self, len: usize, what: &'static str) -> Result<Bytes, DecodeError> {
        if self.left.len() < len {
            return Err(DecodeError::Truncated { what, needed: len, left: self.left.len() });
        }
        Ok(self.left.split_to(len))
    }

    /// Takes `N` bytes.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Truncated`].
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        let Some(front) = self.left.first_chunk::<N>().copied() else {
            return Err(DecodeError::Truncated { what, needed: N, left: self.left.len() });
        };
        bytes::Buf::advance(&mut self.left, N);
        Ok(front)
    }

    /// Takes one byte.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Truncated`].
    pub fn u8(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        self.array::<1>(what).map(|[byte]| byte)
    }

    /// Takes four bytes.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Truncated`].
    pub fn u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        self.array(what).map(u32::from_le_bytes)
    }

    /// Takes eight bytes.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Truncated`].
    pub fn u64(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// Takes a byte that is 0 or 1.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Truncated`], or [`DecodeError::Unknown`] for any other byte.
    pub fn flag(&mut self, what: &'static str) -> Result<bool, DecodeError> {
        match self.u8(what)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(DecodeError::Unknown { what, value: other.into() }),
        }
    }

    /// Takes a length of four bytes, at most `bound`, then that many bytes without copying.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Truncated`] or [`DecodeError::TooLarge`].
    pub fn bytes(&mut self, bound: usize, what: &'static str) -> Result<Bytes, DecodeError> {
        let len = self.count(bound, what)?;
        self.raw(len, what)
    }

    /// Takes a count of four bytes, at most `bound`.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Truncated`] or [`DecodeError::TooLarge`].
    pub fn count(&mut self, bound: usize, what: &'static str) -> Result<usize, DecodeError> {
        let value = self.u32(what)? as usize;
        if value > bound {
            return Err(DecodeError::TooLarge { what, value: value as u64, bound: bound as u64 });
        }
        Ok(value)
    }

    /// Takes UTF-8 text of at most `bound` bytes.
    ///
    /// # Errors
    ///
    /// As [`Reader::bytes`], and [`DecodeError::Unknown`] for bytes that are not UTF-8.
    pub fn text(&mut self, bound: usize, what: &'static str) -> Result<String, DecodeError> {
        let bytes = self.bytes(bound, what)?;
        match std::str::from_utf8(&bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(error) => Err(DecodeError::Unknown { what, value: bytes[error.valid_up_to()].into() }),
        }
    }

    /// How many bytes are left.
    #[must_use]
    pub fn left(&self) -> usize {
        self.left.len()
    }

    /// All bytes that are left, without copying.
    #[must_use]
    pub fn rest(self) -> Bytes {
        self.left
    }

    /// Ends reading.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Trailing`] if bytes are left, so that one value has one byte string.
    pub fn end(self) -> Result<(), DecodeError> {
        match self.left.len() {
            0 => Ok(()),
            left => Err(DecodeError::Trailing { left }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_in_order() {
        let mut writer = Writer::default();
        writer.u8(7);
        writer.u32(8);
        writer.u64(9);
        writer.bytes(b"abc");
        let mut reader = Reader::new(writer.finish());
        assert_eq!(reader.u8("a"), Ok(7));
        assert_eq!(reader.u32("b"), Ok(8));
        assert_eq!(reader.u64("c"), Ok(9));
        assert_eq!(reader.text(3, "d"), Ok("abc".to_owned()));
        assert_eq!(reader.end(), Ok(()));
    }

    #[test]
    fn a_length_beyond_its_bound_or_the_buffer_is_refused_before_allocation() {
        let mut writer = Writer::default();
        writer.u32(u32::MAX);
        let bytes = writer.finish();
        let bound = Reader::new(bytes.clone()).bytes(16, "x");
        assert!(matches!(bound, Err(DecodeError::TooLarge { bound: 16, .. })));
        let short = Reader::new(bytes).bytes(usize::MAX, "x");
        assert!(matches!(short, Err(DecodeError::Truncated { left: 0, .. })));
    }

    #[test]
    fn left_over_bytes_and_odd_flags_are_refused() {
        let mut reader = Reader::new(Bytes::from_static(&[2, 0]));
        assert!(matches!(reader.flag("f"), Err(DecodeError::Unknown { value: 2, .. })));
        assert_eq!(reader.end(), Err(DecodeError::Trailing { left: 1 }));
    }
}
