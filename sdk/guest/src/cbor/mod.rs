//! CBOR (RFC 8949) for bodies, answers, events and stored values, over serde.
//!
//! Relies on serde only. Promises that one value has one encoding, that anything it writes it reads
//! back, and that bytes from outside end in a typed error: nesting is bounded by [`DEPTH_MAX`] because
//! a native stack overflow would halt the replica instead of refusing one command. Knows no command.
//!
//! It is written here rather than taken from a library because bodies come from JSON as often as from
//! Rust: a whole number must fit a float field, text must fit a byte field, and `()` must be null.

mod decode;
mod encode;

pub use decode::from_slice;
pub(crate) use decode::{Decoder, finish};
pub(crate) use encode::{Encoder, Items};
pub use encode::{to_vec, write};

/// The deepest nesting of arrays, maps and tags that is read or written.
pub const DEPTH_MAX: u32 = 128;

/// Why a value could not be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The bytes end inside a value.
    #[error("the value ends early")]
    Ended,
    /// Bytes are left after the value.
    #[error("{0} bytes follow the value")]
    Trailing(usize),
    /// The value nests deeper than [`DEPTH_MAX`].
    #[error("the value nests deeper than {DEPTH_MAX} levels")]
    TooDeep,
    /// This initial byte means nothing in CBOR, or not at this place.
    #[error("byte {byte:#04x} does not belong at {at}")]
    Unexpected {
        /// The byte.
        byte: u8,
        /// What was being read.
        at: &'static str,
    },
    /// A text string is not UTF-8.
    #[error("a text is not UTF-8")]
    NotText,
    /// The type that is read or written objects.
    #[error("{0}")]
    Custom(String),
}

impl serde::de::Error for CodecError {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self::Custom(message.to_string())
    }
}

impl serde::ser::Error for CodecError {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self::Custom(message.to_string())
    }
}

/// The major types, an item's upper three bits.
mod major {
    pub const UNSIGNED: u8 = 0;
    pub const NEGATIVE: u8 = 1;
    pub const BYTES: u8 = 2;
    pub const TEXT: u8 = 3;
    pub const ARRAY: u8 = 4;
    pub const MAP: u8 = 5;
    pub const TAG: u8 = 6;
    pub const SIMPLE: u8 = 7;
}

/// Whole initial bytes.
mod initial {
    pub const ARRAY_OPEN: u8 = 0x9f;
    pub const MAP_OPEN: u8 = 0xbf;
    pub const POSITIVE_BIG: u8 = 0xc2;
    pub const NEGATIVE_BIG: u8 = 0xc3;
    pub const FALSE: u8 = 0xf4;
    pub const TRUE: u8 = 0xf5;
    pub const NULL: u8 = 0xf6;
    pub const UNDEFINED: u8 = 0xf7;
    pub const FLOAT_16: u8 = 0xf9;
    pub const FLOAT_32: u8 = 0xfa;
    pub const FLOAT_64: u8 = 0xfb;
    pub const BREAK: u8 = 0xff;
}

/// Tags for integers that do not fit 64 bits.
mod tag {
    pub const POSITIVE_BIG: u64 = 2;
    pub const NEGATIVE_BIG: u64 = 3;
}

#[cfg(test)]
mod tests;
