//! One group, as a client uses it: sessions for commands, queries, and watches.
//!
//! Relies on the route for the leader. Promises that a linearizable answer is the leader's. Knows nothing
//! of what queries mean.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_proto::v1::client_client::ClientClient;
use quorate_proto::v1::{self, ErrorCode, QueryReply, QueryRequest, query_request};
use quorate_proto::{BODY_BYTES_MAX, NAME_BYTES_MAX};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep_until, timeout_at};
use tonic::Status;

use crate::client::Inner;
use crate::error::Error;
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
    id: u64,
    name: String,
}

/// How fresh an answer has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// It sees every command that was acknowledged before the query was sent. The leader answers.
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
    pub(crate) fn new(inner: Arc<Inner>, route: Arc<Route>, id: u64, name: String) -> Self {
        Self { shared: Arc::new(Shared { inner, route, id, name }) }
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

    /// Addresses that may answer for the group, the leader's first.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let members = self.route().members();
        if members.is_empty() { self.inner().config.endpoints.clone() } else { members }
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
