//! Commands, queries, watching and finding groups.
//!
//! Relies on the shards and on the catalog. Promises what `client.proto` says. Knows no state machine.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_proto::v1::client_server::Client;
use quorate_proto::v1::query_request::Consistency as WireConsistency;
use quorate_proto::v1::{
    self, Error, ErrorCode, GroupInfo, QueryReply, QueryRequest, ReplyFrame, ResolveRequest, SubmitFrame,
    WatchEvent, WatchRequest,
};
use quorate_proto::{BODY_BYTES_MAX, NAME_BYTES_MAX, TOPICS_MAX};
use quorate_transport::Role;
use quorate_types::{GroupId, LogIndex, Outcome};
use tokio::sync::{broadcast, mpsc};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::convert::{failure_error, group_info, rejected, unknown_group};
use super::submit::SubmitStream;
use super::{Api, require};
use crate::catalog::GroupRecord;
use crate::driver::{Consistency, DriverInput, EntryEvents, Failure, GroupReport, Recent, Reply};
use crate::node::{GroupNews, Inner};

/// Events that wait for one watcher.
const WATCH_QUEUE: usize = 1_024;

#[tonic::async_trait]
impl Client for Api {
    type SubmitStream = ReceiverStream<Result<ReplyFrame, Status>>;

    async fn submit(
        &self,
        request: Request<Streaming<SubmitFrame>>,
    ) -> Result<Response<Self::SubmitStream>, Status> {
        require(&request, Role::Writer)?;
        let mut frames = request.into_inner();
        let (mut stream, replies) = SubmitStream::new(Arc::clone(&self.inner));
        tokio::spawn(async move {
            loop {
                match frames.message().await {
                    Ok(Some(frame)) => {
                        if let Err(status) = stream.take(frame) {
                            tracing::debug!(%status, "a client's stream was ended");
                            break;
                        }
                    }
                    Ok(None) | Err(_) => break,
                }
                stream.settle();
            }
        });
        Ok(Response::new(ReceiverStream::new(replies)))
    }

    async fn query(&self, request: Request<QueryRequest>) -> Result<Response<QueryReply>, Status> {
        require(&request, Role::Reader)?;
        let request = request.into_inner();
        if request.name.len() > NAME_BYTES_MAX || request.body.len() > BODY_BYTES_MAX {
            let message = format!(
                "a query has a name of at most {NAME_BYTES_MAX} bytes and a body of at most {BODY_BYTES_MAX} bytes"
            );
            return Err(Error::new(ErrorCode::TooLarge, message).into());
        }
        let group = GroupId(request.group);
        let (consistency, least) = match request.consistency {
            Some(WireConsistency::Stale(stale)) => (Consistency::Stale, LogIndex(stale.index_min)),
            Some(WireConsistency::Linearizable(_)) | None => (Consistency::Linearizable, LogIndex::ZERO),
        };
        let (name, body) = (request.name, request.body);
        let ask = |waiter| DriverInput::Query { group, consistency, name, body, waiter };
        let answer = match self.inner.shard(group).ask(ask).await {
            Ok(Reply::Answer(answer)) => answer,
            Ok(_) => {
                return Err(Error::new(ErrorCode::Internal, "the replica answered another question").into());
            }
            Err(failure) => return Err(failure_error(&self.inner, group, &failure).into()),
        };
        if answer.index < least {
            let applied = answer.index;
            let message =
                format!("this replica has applied {applied} and not yet {least}; try again shortly");
            return Err(Error::new(ErrorCode::Unavailable, message).into());
        }
        let (body, refused) = match answer.outcome {
            Outcome::Done(body) => (body, None),
            Outcome::Rejected(rejection) => (bytes::Bytes::new(), Some(rejected(rejection, answer.index.0))),
        };
        #[cfg(feature = "planted")]
        let body = crate::driver::planted::answered(body);
        Ok(Response::new(QueryReply {
            body,
            index: answer.index.0,
            applied_hlc: answer.stamp.0,
            node: self.inner.node.0,
            leader: self.inner.leader_of(group).unwrap_or_default().0,
            rejected: refused,
        }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchEvent, Status>> + Send>>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        require(&request, Role::Reader)?;
        let request = request.into_inner();
        if request.topics.len() > TOPICS_MAX {
            let message = format!("a watch names at most {TOPICS_MAX} topics; name none to see all");
            return Err(Error::new(ErrorCode::TooLarge, message).into());
        }
        let group = GroupId(request.group);
        let news = self.inner.news.subscribe();
        // Without an index nothing old is shown.
        let from = request.from_index.map_or(LogIndex(u64::MAX), LogIndex);
        let (reply, answer) = tokio::sync::oneshot::channel();
        self.inner.shard(group).tell(crate::shard::ShardInput::Recent(group, from, reply));
        let (report, recent) = answer
            .await
            .ok()
            .flatten()
            .ok_or_else(|| failure_error(&self.inner, group, &Failure::UnknownGroup))?;
        let (sender, receiver) = mpsc::channel(WATCH_QUEUE);
        let watcher = Watcher { group, topics: request.topics, seen: report.applied.0, sender };
        tokio::spawn(watcher.run(report, from, recent, news));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn resolve(&self, request: Request<ResolveRequest>) -> Result<Response<GroupInfo>, Status> {
        require(&request, Role::Reader)?;
        let record = find_group(&self.inner, Some(request.into_inner())).await?;
        Ok(Response::new(group_info(&self.inner, &record)))
    }
}

impl Api {
    /// How a group stands at this node now.
    pub(super) async fn report(&self, group: GroupId) -> Option<GroupReport> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        self.inner.shard(group).tell(crate::shard::ShardInput::Report(group, sender));
        receiver.await.ok().flatten()
    }
}

/// How long a request waits for a group that this node may merely not have heard of yet.
const HEARSAY: Duration = Duration::from_millis(500);

/// The group that a request names. A group that was just created elsewhere is waited for a moment.
pub(super) async fn find_group(inner: &Inner, request: Option<ResolveRequest>) -> Result<GroupRecord, Error> {
    use v1::resolve_request::Group;
    let name = match request.and_then(|request| request.group) {
        Some(Group::Id(id)) => id.to_string(),
        Some(Group::Name(name)) => name,
        None => return Err(Error::new(ErrorCode::Invalid, "name a group, or give its id")),
    };
    let deadline = Instant::now() + HEARSAY;
    loop {
        if let Some(record) = inner.group_record(&name) {
            return Ok(record);
        }
        if Instant::now() >= deadline {
            return Err(unknown_group(inner, &name));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// One watching client.
struct Watcher {
    group: GroupId,
    topics: Vec<String>,
    /// The last index whose events were shown or passed over.
    seen: u64,
    sender: mpsc::Sender<Result<WatchEvent, Status>>,
}

impl Watcher {
    async fn run(
        mut self,
        report: GroupReport,
        from: LogIndex,
        recent: Recent,
        mut news: broadcast::Receiver<GroupNews>,
    ) {
        if !self.show(v1::watch_event::Kind::Status(status(&report))).await {
            return;
        }
        if from < recent.complete_from {
            let gap = v1::WatchGap { from_index: from.0, to_index: recent.complete_from.0 };
            if !self.show(v1::watch_event::Kind::Gap(gap)).await {
                return;
            }
        }
        for entry in &recent.entries {
            if !self.show_entry(entry).await {
                return;
            }
        }
        loop {
            let shown = tokio::select! {
                () = self.sender.closed() => return,
                item = news.recv() => match item {
                    Ok(item) => self.take(item).await,
                    Err(broadcast::error::RecvError::Lagged(_)) => {
                        let gap = v1::WatchGap { from_index: self.seen + 1, to_index: 0 };
                        self.show(v1::watch_event::Kind::Gap(gap)).await
                    }
                    Err(broadcast::error::RecvError::Closed) => return,
                }
            };
            if !shown {
                return;
            }
        }
    }

    async fn take(&mut self, item: GroupNews) -> bool {
        match item {
            GroupNews::Events(group, entry) if group == self.group && entry.index.0 > self.seen => {
                self.seen = entry.index.0;
                self.show_entry(&entry).await
            }
            GroupNews::Skipped(group, through) if group == self.group && through.0 > self.seen => {
                let gap = v1::WatchGap { from_index: self.seen + 1, to_index: through.0 + 1 };
                self.seen = through.0;
                self.show(v1::watch_event::Kind::Gap(gap)).await
            }
            GroupNews::Status(group, report) if group == self.group => {
                self.show(v1::watch_event::Kind::Status(status(&report))).await
            }
            _ => true,
        }
    }

    async fn show_entry(&self, entry: &EntryEvents) -> bool {
        for (position, event) in entry.events.iter().enumerate() {
            if !self.topics.is_empty() && !self.topics.contains(&event.topic) {
                continue;
            }
            let event = v1::ComponentEvent {
                index: entry.index.0,
                position: position as u32,
                hlc: entry.stamp.0,
                topic: event.topic.clone(),
                key: event.key.clone(),
                body: event.body.clone(),
            };
            if !self.show(v1::watch_event::Kind::Event(event)).await {
                return false;
            }
        }
        true
    }

    async fn show(&self, kind: v1::watch_event::Kind) -> bool {
        self.sender.send(Ok(WatchEvent { kind: Some(kind) })).await.is_ok()
    }
}

fn status(report: &GroupReport) -> v1::WatchStatus {
    v1::WatchStatus {
        applied_index: report.applied.0,
        epoch: report.epoch.0,
        term: report.term.0,
        leader: report.leader.unwrap_or_default().0,
        component: report
            .component
            .map(|digest| bytes::Bytes::copy_from_slice(&digest.0))
            .unwrap_or_default(),
    }
}
