//! Encoded values on their way in and out: arguments, parameters, answers.
//!
//! Relies on the CBOR codec. Promises that a body that was left out reads as an empty map or as null.
//! Knows no command.

use std::borrow::Cow;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Rejection;
use crate::cbor::{self, CodecError};

/// The CBOR of null, read where a body was left out.
const NULL: &[u8] = &[0xf6];
/// The CBOR of a map without pairs, read where null does not fit.
const EMPTY_MAP: &[u8] = &[0xa0];

/// An encoded value that came in: parameters, a timer's body, an answer in a test.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Body<'a> {
    bytes: Cow<'a, [u8]>,
    /// What it is, for messages.
    what: &'static str,
}

impl<'a> Body<'a> {
    pub(crate) fn borrowed(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { bytes: Cow::Borrowed(bytes), what }
    }

    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn owned(what: &'static str, bytes: Vec<u8>) -> Body<'static> {
        Body { bytes: Cow::Owned(bytes), what }
    }

    /// Reads the value. A body that was left out reads as `()`, `None` and as a struct whose fields
    /// all have defaults.
    ///
    /// # Errors
    ///
    /// A rejection that says what does not fit.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Rejection> {
        let read: Result<T, CodecError> = if self.bytes.is_empty() {
            cbor::from_slice(NULL).or_else(|_| cbor::from_slice(EMPTY_MAP))
        } else {
            cbor::from_slice(&self.bytes)
        };
        read.map_err(|error| Rejection::malformed(self.what, &error))
    }

    /// The encoded bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether it was left out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// What a command or query answers, encoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer(pub(crate) Vec<u8>);

impl Answer {
    /// No more than that it was carried out.
    #[must_use]
    pub const fn none() -> Self {
        Self(Vec::new())
    }
}

/// Answers with any value: `answer(balance)`, `answer((key, value))`, `answer("yes")`.
///
/// # Errors
///
/// A rejection when the value's own `Serialize` refuses.
pub fn answer<T: Serialize>(value: T) -> Result<Answer, Rejection> {
    cbor::to_vec(&value).map(Answer).map_err(|error| Rejection::unencodable(&error))
}

/// Answers with no more than that the command was carried out.
///
/// # Errors
///
/// None; the result spares an `Ok` around the last line of an arm.
pub fn done() -> Result<Answer, Rejection> {
    Ok(Answer::none())
}
