//! What a node's error or a broken call means for whoever asked.
//!
//! Relies on the interface's codes. Promises one meaning per code, the same for commands, queries and
//! calls. Sends nothing.

use quorate_proto::v1::{self, ErrorCode, LeaderHint};
use tonic::{Code, Status};

use crate::error::Error;

/// The most characters of a foreign text that is shown.
const REASON_CHARS_MAX: usize = 300;

/// What to do next.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Ask the leader; the node may have named it.
    AtLeader(Option<LeaderHint>),
    /// This node cannot at the moment; another one may.
    Elsewhere,
    /// The same node can a little later.
    Later,
    /// The session is gone.
    SessionGone,
    /// The group forgot the outcome.
    Forgotten,
    /// Repeating would not help.
    Final(Error),
}

/// A verdict with its reason.
#[derive(Debug)]
pub(crate) struct Judgement {
    pub(crate) verdict: Verdict,
    /// Whether what was sent may have had, or still get, its effect.
    pub(crate) unknown: bool,
    /// What the node said.
    pub(crate) reason: String,
}

/// Judges an error that a node gave.
pub(crate) fn judge(error: v1::Error) -> Judgement {
    let code = error.code();
    let reason = brief(&error.message);
    let unknown = matches!(
        code,
        ErrorCode::LeadershipLost | ErrorCode::ApplyHalted | ErrorCode::Unavailable | ErrorCode::Internal
    );
    let verdict = match code {
        ErrorCode::NotLeader => Verdict::AtLeader(error.leader),
        ErrorCode::LeadershipLost => Verdict::AtLeader(None),
        ErrorCode::Unavailable | ErrorCode::ShuttingDown | ErrorCode::ApplyHalted => Verdict::Elsewhere,
        ErrorCode::Overloaded | ErrorCode::RequiresByzantine | ErrorCode::WindowFull => Verdict::Later,
        ErrorCode::SessionExpired => Verdict::SessionGone,
        ErrorCode::SequenceStale | ErrorCode::Internal => Verdict::Forgotten,
        ErrorCode::Unspecified => {
            Verdict::Final(Error::Protocol { reason: format!("error code {} is not known", error.code) })
        }
        _ => Verdict::Final(Error::Refused { code, message: reason.clone() }),
    };
    Judgement { verdict, unknown, reason }
}

/// Judges a call that failed.
pub(crate) fn judge_status(status: &Status) -> Judgement {
    if let Some(error) = v1::Error::from_status(status) {
        return judge(error);
    }
    let reason = innermost(status);
    match status.code() {
        Code::Unavailable
        | Code::Unknown
        | Code::Internal
        | Code::Cancelled
        | Code::Aborted
        | Code::DeadlineExceeded
        | Code::ResourceExhausted => {
            Judgement { verdict: Verdict::Elsewhere, unknown: !never_connected(status), reason }
        }
        code => {
            let error = Error::Protocol { reason: format!("{code}: {reason}") };
            Judgement { verdict: Verdict::Final(error), unknown: true, reason }
        }
    }
}

/// Whether a call failed because there was no connection to send it on.
fn never_connected(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The innermost cause of a failed call, as one short line: part of it came from outside.
pub(crate) fn innermost(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        text = error.to_string();
        cause = error.source();
    }
    if text.is_empty() { status.code().to_string() } else { brief(&text) }
}

/// A text from outside as one short line.
pub(crate) fn brief(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(REASON_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_codes_that_leave_the_outcome_open_count_as_unknown() {
        let open = |code| judge(v1::Error::new(code, "x")).unknown;
        for code in [ErrorCode::LeadershipLost, ErrorCode::Unavailable, ErrorCode::ApplyHalted] {
            assert!(open(code), "{code:?}");
        }
        for code in [ErrorCode::NotLeader, ErrorCode::Overloaded, ErrorCode::ShuttingDown, ErrorCode::Invalid]
        {
            assert!(!open(code), "{code:?}");
        }
    }

    #[test]
    fn refusals_are_final_and_codes_from_the_future_are_protocol_errors() {
        let refused = judge(v1::Error::new(ErrorCode::Unauthorized, "get a writer's certificate\n"));
        let Verdict::Final(Error::Refused { code: ErrorCode::Unauthorized, message }) = refused.verdict
        else {
            panic!("{refused:?}");
        };
        assert_eq!(message, "get a writer's certificate");
        let strange = judge(v1::Error { code: 999, message: String::new(), leader: None });
        assert!(matches!(strange.verdict, Verdict::Final(Error::Protocol { .. })));
    }

    #[test]
    fn a_broken_call_is_tried_elsewhere_and_an_unimplemented_one_is_not() {
        assert!(matches!(judge_status(&Status::unavailable("gone")).verdict, Verdict::Elsewhere));
        let alien = judge_status(&Status::unimplemented("what?"));
        assert!(matches!(alien.verdict, Verdict::Final(Error::Protocol { .. })));
    }
}
