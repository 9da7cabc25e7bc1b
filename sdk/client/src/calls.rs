//! Unary calls that any node may answer, and calls to one node.
//!
//! Relies on nodes for connections. Promises to follow hints, to go on to the next address when one does
//! not answer, and to end at the deadline. Knows no request by name.

use std::future::Future;
use std::time::Duration;

use quorate_proto::v1::ErrorCode;
use tokio::time::{Instant, sleep_until, timeout_at};
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::client::Inner;
use crate::error::Error;
use crate::verdict::{Verdict, judge_status};

/// Who may answer.
#[derive(Clone, Debug)]
pub(crate) enum Scope {
    /// Any node; the one that a node names as leader is asked next.
    Anybody,
    /// The node at this address.
    Only(String),
}

/// How long to wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    pub(crate) started: Instant,
    pub(crate) deadline: Instant,
    /// For one node, before the next is asked.
    pub(crate) attempt: Duration,
}

impl Patience {
    pub(crate) fn new(total: Duration, attempt: Duration) -> Self {
        let started = Instant::now();
        Self { started, deadline: started + total, attempt }
    }

    fn waited_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// What the addresses of one call said so far.
struct Tour<'a> {
    inner: &'a Inner,
    addresses: Vec<String>,
    /// Where in `addresses` the next attempt goes, unless a hint says otherwise.
    at: usize,
    hint: Option<String>,
    attempts: u32,
    /// Attempts that failed since the last whole round of addresses.
    failed: usize,
    /// TLS errors among them.
    tls_failed: usize,
    /// Nodes that do not know what was asked for, among them.
    unknown: usize,
    reason: String,
}

impl<'a> Tour<'a> {
    fn new(inner: &'a Inner, scope: &Scope) -> Self {
        let (addresses, at) = match scope {
            Scope::Anybody => (inner.config.endpoints.clone(), inner.preferred()),
            Scope::Only(address) => (vec![address.clone()], 0),
        };
        Self {
            inner,
            addresses,
            at,
            hint: None,
            attempts: 0,
            failed: 0,
            tls_failed: 0,
            unknown: 0,
            reason: "nobody was asked yet".to_owned(),
        }
    }

    fn next(&mut self) -> String {
        self.attempts += 1;
        self.hint.take().unwrap_or_else(|| self.addresses[self.at % self.addresses.len()].clone())
    }

    /// Notes that an address failed. True after a whole round of failures, before the next one.
    fn move_on(&mut self) -> bool {
        self.at += 1;
        self.inner.prefer(self.at);
        self.failed += 1;
        let whole_round = self.failed >= self.addresses.len();
        if whole_round {
            (self.failed, self.tls_failed, self.unknown) = (0, 0, 0);
        }
        whole_round
    }

    fn tried(&self) -> String {
        self.addresses.join(", ")
    }
}

/// Calls `operation` on one connection after the other until one answers.
pub(crate) async fn call<T, F>(
    inner: &Inner,
    scope: &Scope,
    patience: Patience,
    operation: impl Fn(Channel) -> F,
) -> Result<T, Error>
where
    F: Future<Output = Result<Response<T>, Status>>,
{
    let mut tour = Tour::new(inner, scope);
    let mut maybe_applied = false;
    loop {
        let address = tour.next();
        let Some(node) = inner.node(&address) else {
            return Err(Error::Config { reason: format!("{address:?} is not of the form host:port") });
        };
        let ends = patience.deadline.min(Instant::now() + patience.attempt);
        let wait = match timeout_at(ends, operation(node.channel(0))).await {
            Ok(Ok(response)) => {
                node.heard();
                return Ok(response.into_inner());
            }
            Ok(Err(status)) => {
                let judgement = judge_status(&status);
                maybe_applied |= judgement.unknown;
                tour.reason = format!("{address}: {}", judgement.reason);
                tour.judge(scope, &node, judgement.verdict)?
            }
            Err(_) => {
                maybe_applied = true;
                tour.reason = format!("{address} is silent");
                tour.move_on()
            }
        };
        if wait {
            let until = Instant::now() + inner.jitter.after_attempts(tour.attempts);
            sleep_until(until.min(patience.deadline)).await;
        }
        if Instant::now() >= patience.deadline {
            return Err(tour.late(&patience, maybe_applied));
        }
    }
}

impl Tour<'_> {
    /// Whether to wait before the next attempt, or the error that ends the call.
    fn judge(&mut self, scope: &Scope, node: &crate::node::Node, verdict: Verdict) -> Result<bool, Error> {
        let refused = |code| Error::Refused { code, message: self.reason.clone() };
        match verdict {
            Verdict::AtLeader(Some(hint)) if matches!(scope, Scope::Anybody) => {
                let usable = crate::config::is_address(&hint.address) && hint.address != node.address();
                if !usable {
                    return Ok(self.move_on());
                }
                self.hint = Some(hint.address);
                // Two nodes that point at each other must not be asked without pause.
                Ok(self.attempts > 2)
            }
            Verdict::AtLeader(_) if matches!(scope, Scope::Only(_)) => Err(refused(ErrorCode::NotLeader)),
            Verdict::AtLeader(_) => Ok(self.move_on()),
            Verdict::Elsewhere => {
                if let Some(error) = node.tls_error() {
                    self.tls_failed += 1;
                    if self.tls_failed >= self.addresses.len() {
                        return Err(error);
                    }
                }
                Ok(self.move_on())
            }
            Verdict::Later => Ok(true),
            Verdict::SessionGone => Err(refused(ErrorCode::SessionExpired)),
            Verdict::Forgotten => Err(refused(ErrorCode::Internal)),
            Verdict::Final(error) => {
                // A node that lags behind may not know yet what another one does.
                let may_lag = matches!(error.code(), Some(ErrorCode::UnknownGroup | ErrorCode::NotFound));
                self.unknown += usize::from(may_lag);
                if may_lag && self.unknown < self.addresses.len() {
                    return Ok(self.move_on());
                }
                Err(error)
            }
        }
    }

    fn late(self, patience: &Patience, maybe_applied: bool) -> Error {
        let waited_ms = patience.waited_ms();
        if maybe_applied {
            Error::DeadlineExceeded { waited_ms, maybe_applied, reason: self.reason }
        } else {
            Error::Unreachable { tried: self.tried(), waited_ms, reason: self.reason }
        }
    }
}
