//! Exit statuses: what kind of failure ended the program.
//!
//! Relies on errors that carry a [`Fault`] or come from the client library. Promises the statuses listed
//! in [`HELP`]; a script may rely on them. Knows no command.

use std::fmt;

use quorate_client::Error as ClientError;
use quorate_client::proto::ErrorCode;
use quorate_node::ConfigError;

/// The part of `quorate --help` about exit statuses.
pub const HELP: &str = "\
Exit status:
  0  done
  1  failed
  2  wrong usage: arguments, configuration or context
  3  not reachable, or not done in time; the outcome may be unknown
  4  rejected by the component, or the component itself is refused
  5  refused by the node: no such thing, or the certificate's role does not allow it";

/// The kind of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Anything that has no status of its own.
    Failed,
    /// Arguments, configuration or context cannot be used.
    Usage,
    /// No node answered in time.
    Unreachable,
    /// The component said no, or is refused.
    Rejected,
    /// The node said no.
    Refused,
}

impl Kind {
    /// The status of the process.
    #[must_use]
    pub const fn status(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::Rejected => 4,
            Self::Refused => 5,
        }
    }
}

/// A failure of a known kind, with a sentence that says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which status it ends with.
    pub kind: Kind,
    /// For people.
    pub message: String,
}

impl Fault {
    /// An error of this kind.
    pub fn of(kind: Kind, message: impl Into<String>) -> anyhow::Error {
        anyhow::Error::new(Self { kind, message: message.into() })
    }

    /// Wrong usage.
    pub fn usage(message: impl Into<String>) -> anyhow::Error {
        Self::of(Kind::Usage, message)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

/// The kind of an error: its [`Fault`]'s, or what the client library or the configuration says.
#[must_use]
pub fn kind(error: &anyhow::Error) -> Kind {
    for cause in error.chain() {
        if let Some(fault) = cause.downcast_ref::<Fault>() {
            return fault.kind;
        }
        if let Some(client) = cause.downcast_ref::<ClientError>() {
            return of_client(client);
        }
        if cause.is::<ConfigError>() {
            return Kind::Usage;
        }
    }
    Kind::Failed
}

fn of_client(error: &ClientError) -> Kind {
    match error {
        ClientError::Config { .. } | ClientError::TooLarge { .. } | ClientError::Encode { .. } => Kind::Usage,
        ClientError::Unreachable { .. }
        | ClientError::DeadlineExceeded { .. }
        | ClientError::SessionExpired { .. }
        | ClientError::OutcomeUnknown { .. } => Kind::Unreachable,
        ClientError::Rejected(_) => Kind::Rejected,
        ClientError::Refused { code, .. } => match code {
            ErrorCode::ComponentRefused => Kind::Rejected,
            ErrorCode::Unavailable | ErrorCode::Overloaded | ErrorCode::ShuttingDown => Kind::Unreachable,
            ErrorCode::Internal => Kind::Failed,
            _ => Kind::Refused,
        },
        ClientError::Tls { .. } => Kind::Refused,
        _ => Kind::Failed,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use anyhow::Context;
    use quorate_client::Rejection;

    use super::*;

    fn status(error: impl Into<anyhow::Error>) -> u8 {
        kind(&error.into().context("while trying")).status()
    }

    #[test]
    fn each_kind_of_failure_has_its_own_status() {
        let rejection = Rejection { code: 100, name: "no".into(), message: "no".into(), index: 1 };
        assert_eq!(status(ClientError::Rejected(rejection)), 4);
        let late = ClientError::DeadlineExceeded { waited_ms: 1, maybe_applied: true, reason: "slow".into() };
        assert_eq!(status(late), 3);
        let refused = |code| ClientError::Refused { code, message: "no".into() };
        assert_eq!(status(refused(ErrorCode::UnknownGroup)), 5);
        assert_eq!(status(refused(ErrorCode::Unauthorized)), 5);
        assert_eq!(status(refused(ErrorCode::ComponentRefused)), 4);
        assert_eq!(status(Fault::usage("bad JSON")), 2);
        assert_eq!(status(ConfigError::Source("bad key".into())), 2);
        assert_eq!(status(anyhow::anyhow!("something else")), 1);
    }

    #[test]
    fn context_hides_no_kind() {
        let error = Err::<(), _>(Fault::usage("bad")).context("outer").unwrap_err();
        assert_eq!(kind(&error), Kind::Usage);
    }
}
