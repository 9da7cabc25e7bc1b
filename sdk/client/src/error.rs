//! What can go wrong for a client, with the facts and what to do next.
//!
//! Relies on the interface for the codes of refusals. Promises to say of every command whether it may
//! have been applied. Knows no connection.

use quorate_proto::v1::ErrorCode;

/// Why a command was refused by the component, or by the host on its behalf; the same on every replica.
/// The command was applied and left nothing behind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} (code {code}): {message}")]
pub struct Rejection {
    /// Below 100 the host's, from 100 on the component's own.
    pub code: u32,
    /// A stable name for programs, such as `insufficient-funds`.
    pub name: String,
    /// A sentence for people.
    pub message: String,
    /// The index of the log entry that decided it; 0 for queries.
    pub index: u64,
}

/// Why something could not be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The configuration cannot work.
    #[error("the client's configuration cannot work: {reason}")]
    Config {
        /// Which setting, and what it may be.
        reason: String,
    },
    /// TLS failed with every node that could be reached: certificates do not belong together.
    #[error(
        "no secure connection: {reason}; use the certificate authority of this cluster and a client \
         certificate that it issued"
    )]
    Tls {
        /// What TLS said.
        reason: String,
    },
    /// No node answered within the deadline.
    #[error(
        "no node of {tried} answered within {waited_ms} ms: {reason}; check addresses and whether nodes run"
    )]
    Unreachable {
        /// The addresses that were tried.
        tried: String,
        /// How long, in milliseconds.
        waited_ms: u64,
        /// What the last attempt met.
        reason: String,
    },
    /// The deadline passed without an outcome.
    #[error("no outcome within {waited_ms} ms ({}): {reason}", certainty(*.maybe_applied))]
    DeadlineExceeded {
        /// How long, in milliseconds.
        waited_ms: u64,
        /// Whether the command may have been, or may still be, applied. If false, it was not.
        maybe_applied: bool,
        /// What the last attempt met.
        reason: String,
    },
    /// The session expired, was closed, or never was; its group keeps no outcomes of it any longer.
    #[error(
        "session {session} has expired and the outcome of command {sequence} is {}; open a new session \
         and decide anew what to submit", if *.maybe_applied { "unknown" } else { "certain: not applied" }
    )]
    SessionExpired {
        /// The session.
        session: u64,
        /// The command's number in it; 0 when no command was concerned.
        sequence: u64,
        /// Whether the command may have been applied by an earlier sending.
        maybe_applied: bool,
    },
    /// The session has as many commands without outcome as it may have.
    #[error("the session's window of {window} commands is full; await some outcomes first")]
    WindowFull {
        /// The window.
        window: usize,
    },
    /// The group cannot tell the outcome of a command any more.
    #[error("the outcome of command {sequence} is unknown: {reason}; query the state before repeating it")]
    OutcomeUnknown {
        /// The command's number in its session.
        sequence: u64,
        /// What the node said.
        reason: String,
    },
    /// Something is above its bound; nothing was sent.
    #[error("{what} has {bytes} bytes and may have {bytes_max}; make it smaller or split it")]
    TooLarge {
        /// What.
        what: &'static str,
        /// How many bytes it has.
        bytes: usize,
        /// How many it may have.
        bytes_max: usize,
    },
    /// The component refused, from [`crate::Session::command`] and [`crate::Group::query`].
    #[error(transparent)]
    Rejected(Rejection),
    /// A node refused, and repeating would not help. Nothing was applied.
    #[error("{message} ({})", .code.as_str_name())]
    Refused {
        /// For programs.
        code: ErrorCode,
        /// For people; says what to do.
        message: String,
    },
    /// A node broke the interface.
    #[error("the node does not speak this client's protocol: {reason}; use the same version of both")]
    Protocol {
        /// What it did.
        reason: String,
    },
    /// A value has no CBOR form.
    #[error("the value cannot be encoded: {reason}; use types that serialise to CBOR")]
    Encode {
        /// What is wrong with it.
        reason: String,
    },
    /// An answer is not the value that was asked for. The command was applied.
    #[error("the answer cannot be decoded: {reason}; ask for the type that the component's schema names")]
    Decode {
        /// What is wrong with it.
        reason: String,
    },
}

impl Error {
    /// Whether the command may have been applied although there is no outcome. False also when it was
    /// applied for certain.
    #[must_use]
    pub fn maybe_applied(&self) -> bool {
        match self {
            Self::DeadlineExceeded { maybe_applied, .. } | Self::SessionExpired { maybe_applied, .. } => {
                *maybe_applied
            }
            Self::OutcomeUnknown { .. } | Self::Protocol { .. } => true,
            _ => false,
        }
    }

    /// The code of a refusal.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }
}

fn certainty(maybe_applied: bool) -> &'static str {
    if maybe_applied {
        "it may have been applied; query the state before repeating it"
    } else {
        "not applied"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_tell_apart_what_was_surely_not_applied() {
        let late = |maybe_applied| Error::DeadlineExceeded {
            waited_ms: 5,
            maybe_applied,
            reason: "no leader".into(),
        };
        assert!(late(true).to_string().contains("may have been applied"));
        assert!(late(false).to_string().contains("(not applied)"));
        assert!(late(true).maybe_applied());
        assert!(!late(false).maybe_applied());
    }
}
