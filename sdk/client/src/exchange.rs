//! One item's way to its answer: sent to the leader, and sent again until somebody answers; in a group whose replicas
//! may lie, sent to all members by the group's lane.
//!
//! Relies on the route for the leader and on links, or the lane, to carry the item. Promises to end at the deadline,
//! to repeat only what may be repeated, and to remember whether any sending may have had its effect.
//! Knows neither sequence numbers nor what a command means.

use std::collections::VecDeque;
use std::time::Duration;

use quorate_proto::v1::{self, ErrorCode, reply, submit_item};
use quorate_types::BatchItem;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::error::{Error, Rejection};
use crate::group::Group;
use crate::lane::{Lane, item_of};
use crate::link::{Answer, NotQueued};
use crate::route::{Lost, Target};
use crate::verdict::{Verdict, judge};

/// Codes of rejections that the host gives in place of errors (`Rejection::HOST_CODES` of the node).
const HOST_SESSION_EXPIRED: u32 = 7;
const HOST_SEQUENCE_STALE: u32 = 8;
const HOST_TOO_MANY_SESSIONS: u32 = 9;
const HOST_WINDOW_FULL: u32 = 10;

/// An answer that ends an exchange.
#[derive(Debug)]
pub(crate) enum Settled {
    Done(v1::Done),
    Rejected(Rejection),
    SessionOpened(u64),
    Kept,
}

/// An exchange ended without an answer.
#[derive(Debug)]
pub(crate) struct Unsettled {
    pub(crate) cause: Cause,
    /// Whether some sending may have had its effect.
    pub(crate) maybe_applied: bool,
    /// What the last sendings met.
    pub(crate) reason: String,
}

#[derive(Debug)]
pub(crate) enum Cause {
    Deadline,
    SessionGone,
    Forgotten,
    Final(Error),
}

/// What one sending gave.
enum Step {
    Settled(Settled),
    Failed(Cause, String),
    /// Send again, to whoever leads then.
    Again(String),
    /// Send again, after a wait.
    Later(String),
}

/// One exchange.
struct Exchange<'a> {
    group: &'a Group,
    slot: usize,
    deadline: Instant,
    maybe_applied: bool,
    /// How long the next sending may stay unanswered.
    patience: Duration,
    /// How often the group had too much to do.
    turned_away: u32,
    met: Met,
}

/// What the last sendings met that differed, the latest last: nodes that send a client to each other each say why.
#[derive(Debug, Default)]
struct Met(VecDeque<String>);

/// Reasons that an error names.
const MET_MAX: usize = 4;

impl Met {
    fn note(&mut self, reason: String) {
        self.0.retain(|known| *known != reason);
        if self.0.len() >= MET_MAX {
            self.0.pop_front();
        }
        self.0.push_back(reason);
    }

    fn told(&self) -> String {
        if self.0.is_empty() {
            return "nothing was sent yet".to_owned();
        }
        self.0.iter().map(String::as_str).collect::<Vec<_>>().join("; then ")
    }
}

impl Group {
    /// Sends what `make` makes until it is answered or the deadline passes.
    pub(crate) async fn exchange(
        &self,
        slot: usize,
        deadline: Instant,
        make: impl Fn() -> submit_item::Kind,
    ) -> Result<Settled, Unsettled> {
        if let Some(lane) = self.lane() {
            return self.order(lane, slot, deadline, || item_of(make())).await;
        }
        let mut exchange = Exchange::new(self, slot, deadline);
        loop {
            let step = match self.route().leader(self.inner(), deadline).await {
                Ok(target) => exchange.send(&target, make()).await,
                Err(Lost::Final(error)) => return Err(exchange.failed(Cause::Final(error))),
                Err(Lost::Deadline(last)) => {
                    if !last.is_empty() {
                        exchange.met.note(last);
                    }
                    return Err(exchange.failed(Cause::Deadline));
                }
            };
            if let Some(end) = exchange.end(step).await {
                return end;
            }
        }
    }

    /// Sends what `make` makes to every member until enough of them answered alike or the deadline passes.
    pub(crate) async fn order(
        &self,
        lane: &Lane,
        slot: usize,
        deadline: Instant,
        make: impl Fn() -> BatchItem,
    ) -> Result<Settled, Unsettled> {
        let mut exchange = Exchange::new(self, slot, deadline);
        loop {
            let step = exchange.send_to_all(lane, make()).await;
            if let Some(end) = exchange.end(step).await {
                return end;
            }
        }
    }
}

impl<'a> Exchange<'a> {
    fn new(group: &'a Group, slot: usize, deadline: Instant) -> Self {
        let patience = group.inner().config.attempt_timeout;
        let met = Met::default();
        Self { group, slot, deadline, maybe_applied: false, patience, turned_away: 0, met }
    }

    /// How the exchange ends with this step; none if there is another one to come, after a wait if need be.
    async fn end(&mut self, step: Step) -> Option<Result<Settled, Unsettled>> {
        match step {
            Step::Settled(settled) => {
                self.group.route().succeeded();
                return Some(Ok(settled));
            }
            Step::Failed(cause, last) => {
                self.met.note(last);
                return Some(Err(self.failed(cause)));
            }
            Step::Again(last) => self.met.note(last),
            Step::Later(last) => {
                self.met.note(last);
                self.turned_away += 1;
                let until = Instant::now() + self.group.inner().jitter.after_attempts(self.turned_away);
                sleep_until(until.min(self.deadline)).await;
            }
        }
        (Instant::now() >= self.deadline).then(|| Err(self.failed(Cause::Deadline)))
    }

    /// Sends to every member once and judges what enough of them said.
    async fn send_to_all(&mut self, lane: &Lane, item: BatchItem) -> Step {
        let waiting = match lane.send(item) {
            Ok(waiting) => waiting,
            Err(_) => return Step::Later("too much waits for this group's members".to_owned()),
        };
        let ends = self.deadline.min(Instant::now() + self.patience);
        let Ok(Ok(answer)) = timeout_at(ends, waiting).await else {
            self.maybe_applied = true;
            self.patience = self.patience.saturating_mul(2);
            let reason = format!("fewer than {} members gave one answer", lane.need());
            return if ends == self.deadline {
                Step::Failed(Cause::Deadline, reason)
            } else {
                Step::Again(reason)
            };
        };
        self.judge(None, answer)
    }

    /// Sends once and judges what came of it.
    async fn send(&mut self, target: &Target, item: submit_item::Kind) -> Step {
        let mut ticket = match target.node.link(self.slot).send(self.group.id(), item) {
            Ok(ticket) => ticket,
            Err(NotQueued::Full) => return Step::Later("too much waits on this connection".to_owned()),
            Err(NotQueued::Closed) => return self.again(Some(target), "the connection ended"),
        };
        let ends = self.deadline.min(Instant::now() + self.patience);
        let Ok(answer) = timeout_at(ends, ticket.answer()).await else {
            self.maybe_applied = true;
            self.patience = self.patience.saturating_mul(2);
            let reason = format!("{} is silent", target.node.address());
            if ends == self.deadline {
                return Step::Failed(Cause::Deadline, reason);
            }
            return self.again(Some(target), &reason);
        };
        self.judge(Some(target), answer)
    }

    /// What an answer means, of the node at `target` or of enough members.
    fn judge(&mut self, target: Option<&Target>, answer: Answer) -> Step {
        let error = match answer {
            Ok(reply::Kind::Done(done)) => return Step::Settled(Settled::Done(done)),
            Ok(reply::Kind::SessionOpened(opened)) => {
                return Step::Settled(Settled::SessionOpened(opened.session));
            }
            Ok(reply::Kind::Ok(_)) => return Step::Settled(Settled::Kept),
            Ok(reply::Kind::Rejected(rejected)) => match error_of_host(&rejected) {
                Some(code) => v1::Error::new(code, rejected.message),
                None => return Step::Settled(Settled::Rejected(rejected.into())),
            },
            Ok(reply::Kind::Error(error)) => error,
            Err(fault) => {
                self.maybe_applied |= fault.maybe_sent;
                return self.again(target, &fault.reason);
            }
        };
        let judgement = judge(error);
        self.maybe_applied |= judgement.unknown;
        let reason = match target {
            Some(target) => format!("{}: {}", target.node.address(), judgement.reason),
            None => judgement.reason,
        };
        match judgement.verdict {
            Verdict::AtLeader(hint) => match target {
                Some(target) => {
                    self.group.route().wrong(self.group.inner(), target, hint.as_ref(), &reason);
                    Step::Again(reason)
                }
                None => Step::Later(reason),
            },
            Verdict::Elsewhere => self.again(target, &reason),
            Verdict::Later => Step::Later(reason),
            Verdict::SessionGone => Step::Failed(Cause::SessionGone, reason),
            Verdict::Forgotten => Step::Failed(Cause::Forgotten, reason),
            Verdict::Final(error) => Step::Failed(Cause::Final(error), reason),
        }
    }

    fn again(&self, target: Option<&Target>, reason: &str) -> Step {
        let Some(target) = target else { return Step::Later(reason.to_owned()) };
        self.group.route().wrong(self.group.inner(), target, None, reason);
        Step::Again(reason.to_owned())
    }

    fn failed(&self, cause: Cause) -> Unsettled {
        Unsettled { cause, maybe_applied: self.maybe_applied, reason: self.met.told() }
    }
}

/// The error that a rejection by the host stands for, if it stands for one.
fn error_of_host(rejected: &v1::Rejected) -> Option<ErrorCode> {
    match rejected.code {
        HOST_SESSION_EXPIRED => Some(ErrorCode::SessionExpired),
        HOST_SEQUENCE_STALE => Some(ErrorCode::SequenceStale),
        HOST_TOO_MANY_SESSIONS => Some(ErrorCode::TooManySessions),
        HOST_WINDOW_FULL => Some(ErrorCode::WindowFull),
        _ => None,
    }
}

impl From<v1::Rejected> for Rejection {
    fn from(rejected: v1::Rejected) -> Self {
        let v1::Rejected { code, name, message, index } = rejected;
        Self { code, name, message, index }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_last_reasons_that_differed_and_no_more() {
        let mut met = Met::default();
        assert_eq!(met.told(), "nothing was sent yet");
        for reason in ["a", "b", "a", "b", "a"] {
            met.note(reason.to_owned());
        }
        assert_eq!(met.told(), "b; then a");
        ["c", "d", "e"].into_iter().for_each(|reason| met.note(reason.to_owned()));
        assert_eq!(met.told(), "a; then c; then d; then e");
    }
}
