//! One group, as a client uses it: sessions for commands, queries, and watches.
//!
//! Relies on the route for the leader, or on the lane for all members. Promises that a linearizable answer is the
//! leader's, and that in a group whose replicas may lie any answer is one that f + 1 members gave. Knows nothing of
//! what queries mean.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_proto::v1::client_client::ClientClient;
use quorate_proto::v1::{self, ErrorCode, QueryReply, QueryRequest, query_request};
use quorate_proto::{BODY_BYTES_MAX, NAME_BYTES_MAX};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};
use tonic::Status;

use crate::client::Inner;
use crate::error::Error;
use crate::exchange::{Cause, Settled, Unsettled};
use crate::lane::Lane;
use crate::link::RECEIVE_BYTES_MAX;
use crate::node::Node;
use crate::route::{Lost, Route};
use crate::session::{Session, SessionOptions};
use crate::value;
use crate::verdict::{Judgement, Verdict, judge_status};
use crate::watch::{Watch, WatchFrom};

/// One group. Clones are cheap and share what is known of its leader.
#[derive(Clone, Debug)]
pub struct Group {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    inner: Arc<Inner>,
    route: Arc<Route>,
    /// Where replicas may lie.
    lane: Option<Arc<Lane>>,
    id: u64,
    name: String,
}

/// How fresh an answer has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// It sees every command that was acknowledged before the query was sent. The leader answers; where replicas
    /// may lie, f + 1 members do, at or after an index that is ordered for it, which needs the role writer.
    Linearizable,
    /// It may lag behind, but has applied at least this index; 0 for any. Any member answers, one that
    /// is cut off from the others too.
    Stale {
        /// The least index.
        index_min: u64,
    },
}

impl Consistency {
    /// Whatever some member has applied.
    pub const STALE: Self = Self::Stale { index_min: 0 };
}

/// What a component answered to a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// In CBOR unless the component's schema says otherwise.
    pub body: Bytes,
    /// The index of the last entry that the answer includes.
    pub index: u64,
    /// The hybrid logical clock stamp of that entry: Unix milliseconds in the upper 48 bits.
    pub applied_hlc: u64,
    /// The node that answered.
    pub node: u64,
    /// Who leads the group as far as that node knows; 0 if it knows nobody.
    pub leader: u64,
}

impl Group {
    pub(crate) fn new(
        inner: Arc<Inner>,
        route: Arc<Route>,
        lane: Option<Arc<Lane>>,
        id: u64,
        name: String,
    ) -> Self {
        Self { shared: Arc::new(Shared { inner, route, lane, id, name }) }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.shared.id
    }

    /// Its name in the catalog.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Opens a session.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for options out of range, [`Error::DeadlineExceeded`], or a refusal.
    pub async fn session(&self, options: SessionOptions) -> Result<Session, Error> {
        Session::open(self.clone(), options).await
    }

    /// Asks a query with bytes, within the client's deadline.
    ///
    /// # Errors
    ///
    /// [`Error::Rejected`] by the component, [`Error::DeadlineExceeded`], or a refusal.
    pub async fn query(&self, name: &str, body: Bytes, consistency: Consistency) -> Result<Answer, Error> {
        check_sizes(name, &body)?;
        if let Some(lane) = &self.shared.lane {
            return self.ask_all(lane, name, body, consistency).await;
        }
        let consistency = match consistency {
            Consistency::Linearizable => query_request::Consistency::Linearizable(v1::Linearizable {}),
            Consistency::Stale { index_min } => query_request::Consistency::Stale(v1::Stale { index_min }),
        };
        let request =
            QueryRequest { group: self.id(), name: name.to_owned(), body, consistency: Some(consistency) };
        let reply = match consistency {
            query_request::Consistency::Linearizable(_) => self.ask_leader(request).await?,
            query_request::Consistency::Stale(_) => self.ask_members(request).await?,
        };
        if let Some(rejected) = reply.rejected {
            return Err(Error::Rejected(rejected.into()));
        }
        let QueryReply { body, index, applied_hlc, node, leader, .. } = reply;
        Ok(Answer { body, index, applied_hlc, node, leader })
    }

    /// Asks a query with a value that serialises to CBOR, and reads the answer from CBOR.
    ///
    /// # Errors
    ///
    /// As [`Group::query`], [`Error::Encode`] and [`Error::Decode`].
    pub async fn ask<T: DeserializeOwned>(
        &self,
        name: &str,
        arguments: &(impl Serialize + ?Sized),
        consistency: Consistency,
    ) -> Result<T, Error> {
        let answer = self.query(name, value::to_cbor(arguments)?, consistency).await?;
        value::from_cbor(&answer.body)
    }

    /// Follows the group's events of these topics, or of all topics if there are none.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for too many topics.
    pub fn watch(&self, topics: &[&str], from: WatchFrom) -> Result<Watch, Error> {
        Watch::new(self.clone(), topics, from)
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.shared.inner
    }

    pub(crate) fn route(&self) -> &Route {
        &self.shared.route
    }

    /// Its lane, where replicas may lie.
    pub(crate) fn lane(&self) -> Option<&Lane> {
        self.shared.lane.as_deref()
    }

    /// Addresses that may answer for the group, the leader's first.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let members = self.route().members();
        if members.is_empty() { self.inner().config.endpoints.clone() } else { members }
    }

    /// Asks every member until f + 1 give one answer, which one of them at least gives truly: each of its own state,
    /// at an index not below the least one asked for. For a linearizable answer that is the index of an item which is
    /// ordered after the query was sent.
    async fn ask_all(
        &self,
        lane: &Lane,
        name: &str,
        body: Bytes,
        consistency: Consistency,
    ) -> Result<Answer, Error> {
        let mut asking = Asking::new(self);
        let index_min = match consistency {
            Consistency::Stale { index_min } => index_min,
            Consistency::Linearizable => self.ordered_index(&asking).await?,
        };
        let stale = query_request::Consistency::Stale(v1::Stale { index_min });
        let name = name.to_owned();
        let request = QueryRequest { group: self.id(), name, body, consistency: Some(stale) };
        loop {
            asking.attempts += 1;
            let reason = match asking.poll(lane, &request).await {
                Ok(answer) => return answer,
                Err(reason) => reason,
            };
            asking.check(reason.clone())?;
            asking.pause().await;
            asking.check(reason)?;
        }
    }

    /// The index of an entry that is ordered from now on: closing a session that never was changes nothing.
    async fn ordered_index(&self, asking: &Asking<'_>) -> Result<u64, Error> {
        let nothing = || v1::submit_item::Kind::CloseSession(v1::CloseSession { session: 0 });
        match self.exchange(asking.slot, asking.deadline, nothing).await {
            Ok(Settled::Done(done)) => Ok(done.index),
            Ok(other) => Err(Error::Protocol { reason: format!("closing no session gave {other:?}") }),
            Err(Unsettled { cause: Cause::Final(error), .. }) => Err(error),
            Err(unsettled) => Err(asking.late(unsettled.reason)),
        }
    }

    async fn ask_leader(&self, request: QueryRequest) -> Result<QueryReply, Error> {
        let mut asking = Asking::new(self);
        loop {
            let target = match self.route().leader(self.inner(), asking.deadline).await {
                Ok(target) => target,
                Err(Lost::Final(error)) => return Err(error),
                Err(Lost::Deadline(reason)) => return Err(asking.late(reason)),
            };
            let judgement = match asking.ask(&target.node, request.clone()).await {
                Ok(reply) => {
                    self.route().succeeded();
                    return Ok(reply);
                }
                Err(judgement) => judgement,
            };
            let reason = judgement.reason;
            match judgement.verdict {
                Verdict::AtLeader(hint) => self.route().wrong(self.inner(), &target, hint.as_ref(), &reason),
                Verdict::Elsewhere => self.route().wrong(self.inner(), &target, None, &reason),
                Verdict::Later => asking.pause().await,
                other => return Err(final_error(other, reason)),
            }
            asking.check(reason)?;
        }
    }

    async fn ask_members(&self, request: QueryRequest) -> Result<QueryReply, Error> {
        let mut asking = Asking::new(self);
        let addresses = self.addresses();
        let first = self.inner().next_slot();
        let mut unknown = 0;
        loop {
            let at = (first + asking.attempts as usize) % addresses.len();
            let judgement = match self.inner().node(&addresses[at]) {
                Some(node) => match asking.ask(&node, request.clone()).await {
                    Ok(reply) => return Ok(reply),
                    Err(judgement) => judgement,
                },
                None => return Err(Error::Config { reason: format!("{:?} is no address", addresses[at]) }),
            };
            match judgement.verdict {
                Verdict::AtLeader(_) | Verdict::Elsewhere | Verdict::Later => {}
                Verdict::Final(error) if crate::client::is_unknown_group(&error) => {
                    unknown += 1;
                    if unknown >= addresses.len() {
                        return Err(error);
                    }
                }
                other => return Err(final_error(other, judgement.reason)),
            }
            if (asking.attempts as usize).is_multiple_of(addresses.len()) {
                asking.pause().await;
            }
            asking.check(judgement.reason)?;
        }
    }
}

/// One query on its way.
struct Asking<'a> {
    group: &'a Group,
    slot: usize,
    started: Instant,
    deadline: Instant,
    attempts: u32,
    patience: Duration,
}

impl<'a> Asking<'a> {
    fn new(group: &'a Group) -> Self {
        let config = &group.inner().config;
        let started = Instant::now();
        Self {
            group,
            slot: group.inner().next_slot(),
            started,
            deadline: started + config.deadline,
            attempts: 0,
            patience: config.attempt_timeout,
        }
    }

    async fn ask(&mut self, node: &Node, request: QueryRequest) -> Result<QueryReply, Judgement> {
        self.attempts += 1;
        let mut client =
            ClientClient::new(node.channel(self.slot)).max_decoding_message_size(RECEIVE_BYTES_MAX);
        let ends = self.deadline.min(Instant::now() + self.patience);
        match timeout_at(ends, client.query(request)).await {
            Ok(Ok(response)) => {
                node.heard();
                Ok(response.into_inner())
            }
            Ok(Err(status)) => Err(judge_status(&status)),
            Err(_) => {
                self.patience = self.patience.saturating_mul(2);
                let status = Status::unavailable(format!("{} is silent", node.address()));
                Err(judge_status(&status))
            }
        }
    }

    /// Asks every member once: what f + 1 of them said, or why there is no such thing.
    async fn poll(&mut self, lane: &Lane, request: &QueryRequest) -> Result<Result<Answer, Error>, String> {
        let ends = self.deadline.min(Instant::now() + self.patience);
        let mut asked = JoinSet::new();
        for node in lane.members() {
            let (node, request, slot) = (Arc::clone(node), request.clone(), self.slot);
            asked.spawn(async move {
                let channel = node.channel(slot);
                let mut client = ClientClient::new(channel).max_decoding_message_size(RECEIVE_BYTES_MAX);
                client.query(request).await.map(tonic::Response::into_inner)
            });
        }
        let mut poll = Poll { need: lane.need(), replies: Vec::new(), refusals: Vec::new() };
        let mut reason = "no member answered".to_owned();
        while let Ok(Some(joined)) = timeout_at(ends, asked.join_next()).await {
            // A task that panicked is a member that did not answer.
            let Ok(answer) = joined else { continue };
            let told = match answer {
                Ok(reply) => poll.note(reply),
                Err(status) => {
                    let judgement = judge_status(&status);
                    reason = judgement.reason;
                    match judgement.verdict {
                        Verdict::Final(error) => poll.note_refusal(error),
                        _ => None,
                    }
                }
            };
            if let Some(told) = told {
                return Ok(told);
            }
        }
        if poll.replies.len() >= poll.need {
            reason = "the members are at different entries and answer differently".to_owned();
        }
        Err(reason)
    }

    async fn pause(&self) {
        let until = Instant::now() + self.group.inner().jitter.after_attempts(self.attempts);
        sleep_until(until.min(self.deadline)).await;
    }

    fn check(&self, reason: String) -> Result<(), Error> {
        if Instant::now() < self.deadline { Ok(()) } else { Err(self.late(reason)) }
    }

    fn late(&self, reason: String) -> Error {
        let waited_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Error::DeadlineExceeded { waited_ms, maybe_applied: false, reason }
    }
}

/// What members said to one query.
struct Poll {
    need: usize,
    replies: Vec<QueryReply>,
    refusals: Vec<Error>,
}

impl Poll {
    /// Counts a reply; the answer, once enough gave it.
    fn note(&mut self, reply: QueryReply) -> Option<Result<Answer, Error>> {
        self.replies.push(reply);
        let last = self.replies.last()?;
        // Members may have come to different entries; what they were asked for is the same at each.
        let told = |reply: &QueryReply| {
            let code = reply.rejected.as_ref().map(|rejected| (rejected.code, rejected.name.clone()));
            (reply.body.clone(), code)
        };
        let alike: Vec<&QueryReply> = self.replies.iter().filter(|one| told(one) == told(last)).collect();
        if alike.len() < self.need {
            return None;
        }
        // What is true at an index is said of the least of those that gave it.
        let first = alike.into_iter().min_by_key(|reply| reply.index)?.clone();
        if let Some(rejected) = first.rejected {
            return Some(Err(Error::Rejected(rejected.into())));
        }
        let QueryReply { body, index, applied_hlc, node, leader, .. } = first;
        Some(Ok(Answer { body, index, applied_hlc, node, leader }))
    }

    /// Counts a refusal that repeating would not change.
    fn note_refusal(&mut self, error: Error) -> Option<Result<Answer, Error>> {
        let code = error.code();
        let alike = self.refusals.iter().filter(|other| other.code() == code).count() + 1;
        self.refusals.push(error.clone());
        (alike >= self.need).then_some(Err(error))
    }
}

fn final_error(verdict: Verdict, reason: String) -> Error {
    match verdict {
        Verdict::Final(error) => error,
        _ => Error::Refused { code: ErrorCode::Internal, message: reason },
    }
}

/// Refuses what no node would take.
pub(crate) fn check_sizes(name: &str, body: &Bytes) -> Result<(), Error> {
    let checks = [("the name", name.len(), NAME_BYTES_MAX), ("the body", body.len(), BODY_BYTES_MAX)];
    for (what, bytes, bytes_max) in checks {
        if bytes > bytes_max {
            return Err(Error::TooLarge { what, bytes, bytes_max });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn reply(body: &'static str, index: u64) -> QueryReply {
        QueryReply { body: Bytes::from_static(body.as_bytes()), index, ..QueryReply::default() }
    }

    /// What could go wrong: one member's answer is believed, or an index that only a liar claims.
    #[test]
    fn an_answer_to_a_query_counts_when_f_plus_one_members_gave_it() {
        let mut poll = Poll { need: 2, replies: Vec::new(), refusals: Vec::new() };
        assert!(poll.note(reply("a lie", 900)).is_none());
        assert!(poll.note(reply("truth", 7)).is_none());
        let answer = poll.note(reply("truth", 9)).unwrap().unwrap();
        assert_eq!((&answer.body[..], answer.index), (&b"truth"[..], 7));
        let unknown = Error::Refused { code: ErrorCode::UnknownGroup, message: "gone".into() };
        let unauthorized = Error::Refused { code: ErrorCode::Unauthorized, message: "no".into() };
        assert!(poll.note_refusal(unknown).is_none());
        assert!(poll.note_refusal(unauthorized.clone()).is_none());
        assert_eq!(poll.note_refusal(unauthorized.clone()), Some(Err(unauthorized)));
    }
}
