//! Why a command or a query is refused.
//!
//! Relies on nothing. Promises that the SDK's own codes and an author's never meet. Knows no host.

use std::fmt;

/// Why something was refused; the same on every replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// A number for programs. An author's own start at [`Rejection::AUTHOR_CODES`].
    pub code: u32,
    /// A stable name for programs, in kebab-case.
    pub name: String,
    /// A sentence for people.
    pub message: String,
}

impl Rejection {
    /// The codes that are an author's to give; smaller ones belong to the host and to the SDK.
    pub const AUTHOR_CODES: std::ops::RangeFrom<u32> = 200..;

    /// The component has no such command.
    pub const UNKNOWN_COMMAND: u32 = 100;
    /// The command's or query's arguments do not read.
    pub const MALFORMED_BODY: u32 = 101;
    /// The component has no such query.
    pub const UNKNOWN_QUERY: u32 = 102;
    /// A key is longer than the host takes.
    pub const KEY_TOO_LONG: u32 = 103;
    /// A value is longer than the host takes.
    pub const VALUE_TOO_LONG: u32 = 104;
    /// An answer, event or value has a form that CBOR cannot carry.
    pub const UNENCODABLE: u32 = 105;
    /// The component cannot migrate from this layout version.
    pub const UNKNOWN_LAYOUT: u32 = 106;

    /// A refusal of an author's own; more often derived with [`Reject`](crate::Reject).
    #[must_use]
    pub fn new(code: u32, name: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code, name: name.into(), message: message.into() }
    }

    pub(crate) fn unencodable(error: &crate::cbor::CodecError) -> Self {
        Self::new(Self::UNENCODABLE, "unencodable", format!("a value cannot be encoded: {error}"))
    }

    pub(crate) fn malformed(what: &str, error: &crate::cbor::CodecError) -> Self {
        Self::new(Self::MALFORMED_BODY, "malformed-body", format!("{what} does not read: {error}"))
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} ({}): {}", self.name, self.code, self.message)
    }
}

/// An author's errors, each with its code, name and message. Derive it.
pub trait Reject {
    /// The code, at least 200.
    fn code(&self) -> u32;
    /// The stable name.
    fn name(&self) -> &'static str;
    /// The sentence.
    fn message(&self) -> String;
}

// As in `anyhow`: `Rejection` is no `Reject`, so that `?` turns every `Reject` into it.
impl<E: Reject> From<E> for Rejection {
    fn from(error: E) -> Self {
        Self { code: error.code(), name: error.name().into(), message: error.message() }
    }
}
