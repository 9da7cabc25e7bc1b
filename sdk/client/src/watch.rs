//! Following a group: its component's events, and changes of its leadership and component.
//!
//! Relies on the group for addresses. Promises every event after the start of the watch once and in
//! order, across lost connections; where a node no longer has some, says so. Knows nothing of what
//! events mean.

use bytes::Bytes;
use quorate_proto::TOPICS_MAX;
use quorate_proto::v1::client_client::ClientClient;
use quorate_proto::v1::{
    ComponentEvent, ErrorCode, WatchEvent, WatchGap, WatchRequest, WatchStatus, watch_event,
};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Status, Streaming};

use crate::client::is_unknown_group;
use crate::error::Error;
use crate::group::Group;
use crate::link::RECEIVE_BYTES_MAX;
use crate::verdict::{Judgement, Verdict, judge_status};

/// Where a watch starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchFrom {
    /// With the events of entries applied from now on.
    Now,
    /// With the events of this entry, as far as some node still has them.
    Index(u64),
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// The component emitted an event.
    Event {
        /// The index of the entry that emitted it.
        index: u64,
        /// Its place among the events of that entry, from 0.
        position: u32,
        /// The hybrid logical clock stamp of that entry: Unix milliseconds in the upper 48 bits.
        hlc: u64,
        /// Chosen by the component.
        topic: String,
        /// Chosen by the component; may be empty.
        key: Bytes,
        /// In CBOR unless the component's schema says otherwise.
        body: Bytes,
    },
    /// How the group stands at the node that is watched; also after every new connection.
    Status {
        /// The last applied index.
        applied_index: u64,
        /// The term or view.
        term: u64,
        /// Who leads; 0 if unknown.
        leader: u64,
        /// Digest of the active component; empty if there is none.
        component: Bytes,
    },
    /// Events of these entries may be missing.
    Gap {
        /// The first index that may be missing.
        from_index: u64,
        /// The first index that is not missing.
        to_index: u64,
    },
}

/// A watch of one group.
#[derive(Debug)]
pub struct Watch {
    group: Group,
    topics: Vec<String>,
    /// Where the next connection starts.
    resume: Option<u64>,
    /// The last event that was handed out.
    last: Option<(u64, u32)>,
    stream: Option<Streaming<WatchEvent>>,
    /// Attempts to connect since the last event.
    attempts: u32,
}

impl Watch {
    pub(crate) fn new(group: Group, topics: &[&str], from: WatchFrom) -> Result<Self, Error> {
        if topics.len() > TOPICS_MAX {
            return Err(Error::Config {
                reason: format!("{} topics; a watch has at most {TOPICS_MAX}", topics.len()),
            });
        }
        let resume = match from {
            WatchFrom::Now => None,
            WatchFrom::Index(index) => Some(index),
        };
        let topics = topics.iter().map(|&topic| topic.to_owned()).collect();
        Ok(Self { group, topics, resume, last: None, stream: None, attempts: 0 })
    }

    /// Waits for what happens next. Reconnects by itself, to another member if need be. Cancelling it
    /// loses nothing.
    ///
    /// # Errors
    ///
    /// A refusal, or [`Error::Unreachable`] when no member could be watched for as long as the client's
    /// deadline; a later call tries again.
    pub async fn next(&mut self) -> Result<Happening, Error> {
        let started = Instant::now();
        loop {
            // The stream stays in its place while this waits, so that a cancelled wait loses nothing.
            let failed = match &mut self.stream {
                Some(stream) => match stream.message().await {
                    Ok(Some(event)) => {
                        self.attempts = 0;
                        match self.take_in(event) {
                            Some(happening) => return Ok(happening),
                            None => continue,
                        }
                    }
                    Ok(None) => judge_status(&Status::unavailable("the node ended the watch")),
                    Err(status) => judge_status(&status),
                },
                None => match self.connect().await {
                    Ok(stream) => {
                        self.stream = Some(stream);
                        continue;
                    }
                    Err(judgement) => judgement,
                },
            };
            self.stream = None;
            self.retry(started, failed).await?;
        }
    }

    async fn connect(&self) -> Result<Streaming<WatchEvent>, Judgement> {
        let addresses = self.group.addresses();
        let address = &addresses[self.attempts as usize % addresses.len()];
        let unusable = || judge_status(&Status::unavailable(format!("{address} is no usable address")));
        let node = self.group.inner().node(address).ok_or_else(unusable)?;
        let mut client = ClientClient::new(node.channel(0)).max_decoding_message_size(RECEIVE_BYTES_MAX);
        let request =
            WatchRequest { group: self.group.id(), topics: self.topics.clone(), from_index: self.resume };
        match timeout(self.group.inner().config.attempt_timeout, client.watch(request)).await {
            Ok(Ok(response)) => {
                node.heard();
                Ok(response.into_inner())
            }
            Ok(Err(status)) => Err(judge_status(&status)),
            Err(_) => Err(judge_status(&Status::unavailable(format!("{address} is silent")))),
        }
    }

    /// Waits before the next attempt, or ends.
    async fn retry(&mut self, started: Instant, failed: Judgement) -> Result<(), Error> {
        let members = u32::try_from(self.group.addresses().len()).unwrap_or(u32::MAX);
        match failed.verdict {
            Verdict::AtLeader(_) | Verdict::Elsewhere | Verdict::Later => {}
            // A member that lags behind may not know the group yet; all of them cannot be wrong.
            Verdict::Final(error) if is_unknown_group(&error) && self.attempts < members => {}
            Verdict::Final(error) => return Err(error),
            Verdict::SessionGone | Verdict::Forgotten => {
                return Err(Error::Refused { code: ErrorCode::Internal, message: failed.reason });
            }
        }
        let inner = self.group.inner();
        if self.attempts > 0 && started.elapsed() >= inner.config.deadline {
            let waited_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
            let tried = self.group.addresses().join(", ");
            return Err(Error::Unreachable { tried, waited_ms, reason: failed.reason });
        }
        self.attempts = self.attempts.saturating_add(1);
        sleep(inner.jitter.after_attempts(self.attempts)).await;
        Ok(())
    }

    /// Notes how far the watch has come; none for what was handed out before.
    fn take_in(&mut self, event: WatchEvent) -> Option<Happening> {
        match event.kind? {
            watch_event::Kind::Event(event) => {
                let ComponentEvent { index, position, hlc, topic, key, body } = event;
                if self.last >= Some((index, position)) {
                    return None;
                }
                self.last = Some((index, position));
                // The same entry may have further events.
                self.resume = Some(index);
                Some(Happening::Event { index, position, hlc, topic, key, body })
            }
            watch_event::Kind::Status(status) => {
                let WatchStatus { applied_index, term, leader, component, .. } = status;
                if self.resume.is_none() {
                    self.resume = Some(applied_index.saturating_add(1));
                }
                Some(Happening::Status { applied_index, term, leader, component })
            }
            watch_event::Kind::Gap(WatchGap { from_index, to_index }) => {
                self.resume = self.resume.max(Some(to_index));
                Some(Happening::Gap { from_index, to_index })
            }
        }
    }
}
