//! What nodes do for each other beside consensus: ordering at the leader, reports, pieces of snapshots.
//!
//! Relies on the transport's calls. Promises that a request is served where it can be, however often the
//! leader changes, within a bounded time. Knows no client protocol.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_transport::RequestError;
use quorate_types::{BatchItem, BootNumber, GroupId, LogIndex, NodeId, Outcome, Rejection};
use tokio::sync::oneshot;

use super::{
    CHECKPOINT_TIMEOUT, Inner, ORDER_TIMEOUT, OrderError, PEER_TIMEOUT, PULL_BYTES_PER_SECOND_MIN,
    PULL_PATIENCE, RETRY_PAUSE,
};
use crate::catalog::{self, CatalogCommand};
use crate::driver::{DriverInput, Failure, InstallJob, Puller, PullerStep, Reply, SnapshotFault};
use crate::remote::{PeerCall, PeerRequest, ReplicaReport};
use crate::shard::{ShardInput, Waiter};

impl Inner {
    /// Orders one item at the local replica, which must lead.
    pub(crate) async fn order_here(
        &self,
        group: GroupId,
        item: BatchItem,
    ) -> Result<(Bytes, LogIndex), OrderError> {
        let submit = |waiter| DriverInput::Submit { group, items: vec![(item, waiter)] };
        match self.shard(group).ask(submit).await? {
            Reply::Outcome { outcome: Outcome::Done(body), index } => Ok((body, index)),
            Reply::Outcome { outcome: Outcome::Rejected(rejection), .. } => {
                Err(OrderError::Rejected(rejection))
            }
            other => Err(OrderError::Peer(format!("the replica answered {other:?}"))),
        }
    }

    /// Orders a command of the node's own at the local replica of the catalog, exactly once.
    async fn order_catalog_here(&self, command: &CatalogCommand) -> Result<Bytes, OrderError> {
        use quorate_types::{Command, Sequence, SessionId};
        // A session for one command: the command is named by the session, so nothing else is kept.
        let client: [u8; 16] = unique_client(self.node, self.boot);
        let open = BatchItem::OpenSession { client, ttl_ms: 60_000 };
        let (body, _) = self.order_here(GroupId::CATALOG, open).await?;
        let session = SessionId(body.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes)));
        let item = BatchItem::Command(Command {
            session,
            sequence: Sequence(1),
            acknowledged_below: Sequence(1),
            name: catalog::COMMAND_NAME.to_owned(),
            body: command.encode(),
        });
        let result = self.order_here(GroupId::CATALOG, item).await.map(|(body, _)| body);
        let closing = self.order_here(GroupId::CATALOG, BatchItem::CloseSession(session)).await;
        if let Err(error) = closing {
            tracing::debug!(%error, "a session of the node's own expires by itself");
        }
        result
    }

    /// Has a catalog command ordered, wherever the catalog's leader is.
    pub(crate) async fn order_catalog(&self, command: CatalogCommand) -> Result<Bytes, OrderError> {
        self.at_leader(GroupId::CATALOG, PeerCall::Catalog(command)).await
    }

    /// Has a call served by the leader of a group, wherever it is; answers what it answered.
    pub(crate) async fn at_leader(&self, group: GroupId, call: PeerCall) -> Result<Bytes, OrderError> {
        let deadline = Instant::now() + ORDER_TIMEOUT;
        let members: Vec<NodeId> = self.members_of(group);
        let mut attempt = 0;
        loop {
            let leader =
                self.leader_of(group).or_else(|| members.get(attempt % members.len().max(1)).copied());
            let result = match leader {
                Some(node) if node == self.node => self.serve_call(call.clone()).await,
                Some(node) => self.call_peer(node, &call).await,
                None => Err(OrderError::NoLeader(group)),
            };
            attempt += 1;
            match result {
                Err(OrderError::Failure(_) | OrderError::Peer(_) | OrderError::NoLeader(_))
                    if Instant::now() < deadline =>
                {
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                other => return other,
            }
        }
    }

    /// The nodes that run a group, as far as known.
    pub(crate) fn members_of(&self, group: GroupId) -> Vec<NodeId> {
        if group == GroupId::CATALOG {
            return self.config.cluster.nodes.iter().map(|node| NodeId(node.id)).collect();
        }
        let record = self.group_record(&group.0.to_string());
        record.map(|r| r.config.members.iter().map(|member| member.node).collect()).unwrap_or_default()
    }

    /// Serves a call at this node or another.
    pub(crate) async fn call(&self, node: NodeId, call: PeerCall) -> Result<Bytes, OrderError> {
        if node == self.node { self.serve_call(call).await } else { self.call_peer(node, &call).await }
    }

    async fn call_peer(&self, node: NodeId, call: &PeerCall) -> Result<Bytes, OrderError> {
        let request = PeerRequest::Call(call.clone()).encode();
        let timeout = if matches!(call, PeerCall::Prepare(_)) { PEER_TIMEOUT * 6 } else { PEER_TIMEOUT };
        let response = self.transport().request(node, request, timeout).await;
        let response = response.map_err(|error| OrderError::Peer(format!("node {node}: {error}")))?;
        match catalog::from_cbor::<Result<Vec<u8>, CallFault>>(&response) {
            Some(Ok(body)) => Ok(Bytes::from(body)),
            Some(Err(CallFault::Rejected { code, name, message })) => {
                Err(OrderError::Rejected(Rejection { code, name, message }))
            }
            Some(Err(CallFault::NotFound(what))) => Err(OrderError::NotFound(what)),
            Some(Err(CallFault::Other(why))) => Err(OrderError::Peer(why)),
            None => Err(OrderError::Peer(format!("node {node} sent an answer that cannot be read"))),
        }
    }

    fn serve_call(
        &self,
        call: PeerCall,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<Bytes, OrderError>> + Send>> {
        let inner = self.weak.upgrade().expect("whoever calls holds the node");
        Box::pin(async move { inner.serve_call_here(call).await })
    }

    async fn serve_call_here(self: Arc<Self>, call: PeerCall) -> Result<Bytes, OrderError> {
        match call {
            PeerCall::Catalog(command) => {
                if matches!(command, CatalogCommand::CreateGroup { .. }) {
                    // A group is refused on nodes that the catalog does not list; a young cluster may not
                    // have listed its first nodes yet.
                    self.register_nodes().await;
                }
                self.order_catalog_here(&command).await
            }
            PeerCall::Prepare(digest) => {
                self.prepare(digest).await.map(|_| Bytes::new()).map_err(OrderError::Peer)
            }
            PeerCall::Activate { group, .. } if self.signatures.is_signed(group) => {
                // Whoever proposed it would be blamed for what a peer, or a client, asked.
                Err(OrderError::Peer("deployments to this group are signed by operators".to_owned()))
            }
            PeerCall::Activate { group, component, parameters } => {
                let item =
                    BatchItem::Activate { component, parameters: Bytes::from(parameters), after: None };
                self.order_here(group, item).await.map(|(_, index)| catalog::to_cbor(&index.0))
            }
            PeerCall::Evidence { group, evidence } => {
                let item = BatchItem::Evidence(Bytes::from(evidence));
                self.order_here(group, item).await.map(|_| Bytes::new())
            }
            PeerCall::Report(group) => {
                let (sender, receiver) = oneshot::channel();
                self.shard(group).tell(ShardInput::Report(group, sender));
                let report = receiver.await.ok().flatten().ok_or(Failure::UnknownGroup)?;
                Ok(catalog::to_cbor(&ReplicaReport::from(report)))
            }
            PeerCall::Checkpoint(group) => {
                let asked = self.shard(group).ask(|waiter| DriverInput::Checkpoint { group, waiter });
                let Ok(taken) = tokio::time::timeout(CHECKPOINT_TIMEOUT, asked).await else {
                    return Err(OrderError::Peer("no checkpoint was ordered in time".to_owned()));
                };
                match taken? {
                    Reply::Checkpoint { index, digest, keys } => {
                        Ok(catalog::to_cbor(&(index.0, digest, keys)))
                    }
                    other => Err(OrderError::Peer(format!("the replica answered {other:?}"))),
                }
            }
            PeerCall::OrderCheckpoint(group) => {
                self.shard(group).ask(|waiter| DriverInput::OrderCheckpoint { group, waiter }).await?;
                Ok(Bytes::new())
            }
            PeerCall::Transfer { group, to } => {
                self.shard(group).ask(|waiter| DriverInput::TransferLeader { group, to, waiter }).await?;
                Ok(Bytes::new())
            }
        }
    }
}

/// A client identity that no other session of the cluster has: node, boot number and a counter.
fn unique_client(node: NodeId, boot: BootNumber) -> [u8; 16] {
    static COUNTER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let mut client = [0; 16];
    client[..4].copy_from_slice(&(node.0 as u32).to_le_bytes());
    client[4..12].copy_from_slice(&boot.0.to_le_bytes());
    client[12..].copy_from_slice(&count.to_le_bytes());
    client
}

/// How a call failed, between nodes.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
enum CallFault {
    Rejected { code: u32, name: String, message: String },
    NotFound(String),
    Other(String),
}

/// What the transport calls.
pub(super) struct PeerHandler(pub(super) Arc<Inner>);

impl quorate_transport::Handler for PeerHandler {
    fn receive(&self, from: NodeId, frames: Vec<Bytes>) {
        for frame in frames {
            // An envelope starts with its group, which says whose mailbox it is for.
            let group =
                frame.first_chunk().map_or(GroupId::CATALOG, |bytes| GroupId(u64::from_le_bytes(*bytes)));
            if let Some(frame) = self.0.signatures.take(from, group, frame) {
                self.0.shard(group).frame(from, frame);
            }
        }
    }

    fn connected(&self, peer: NodeId) {
        tracing::info!(%peer, "connected");
    }

    fn disconnected(&self, peer: NodeId, why: &str) {
        tracing::info!(%peer, why, "disconnected");
        self.0.report_missing_leaders();
    }

    fn serve(
        &self,
        from: NodeId,
        request: Bytes,
    ) -> quorate_transport::BoxFuture<'static, Result<Bytes, String>> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            match PeerRequest::decode(request).map_err(|error| error.to_string())? {
                PeerRequest::Snapshot(request) => inner.serve_snapshot(request).await,
                PeerRequest::Component { digest, offset } => inner.serve_component(digest, offset),
                PeerRequest::ClientFrame { group, frame } => {
                    inner.signatures.take_relayed(from, group, frame);
                    Ok(Bytes::new())
                }
                PeerRequest::Call(PeerCall::Catalog(CatalogCommand::RegisterKey(record)))
                    if record.node != from =>
                {
                    Err(format!("{from} may not register the key of {}", record.node))
                }
                PeerRequest::Call(call) => {
                    tracing::debug!(%from, ?call, "a peer calls");
                    let result = inner.serve_call(call).await;
                    let answer: Result<Vec<u8>, CallFault> = match result {
                        Ok(body) => Ok(body.to_vec()),
                        Err(OrderError::Rejected(Rejection { code, name, message })) => {
                            Err(CallFault::Rejected { code, name, message })
                        }
                        Err(OrderError::NotFound(what)) => Err(CallFault::NotFound(what)),
                        Err(other) => Err(CallFault::Other(other.to_string())),
                    };
                    Ok(catalog::to_cbor(&answer))
                }
            }
        })
    }
}

impl Inner {
    async fn serve_snapshot(&self, request: Bytes) -> Result<Bytes, String> {
        let group =
            request.first_chunk().map_or(GroupId::CATALOG, |bytes| GroupId(u64::from_le_bytes(*bytes)));
        match self.shard(group).ask(|waiter| DriverInput::ServeSnapshot { request, waiter }).await {
            Ok(Reply::SnapshotChunk(chunk)) => Ok(chunk),
            Ok(other) => Err(format!("the replica answered {other:?}")),
            Err(failure) => Err(failure.to_string()),
        }
    }

    /// Pulls a snapshot; what became of it.
    pub(super) async fn pull(
        &self,
        puller: Box<Puller>,
        fetch: quorate_consensus::SnapshotFetch,
    ) -> DriverInput<Waiter> {
        let (group, position, from) = (puller.group(), fetch.position, fetch.from);
        let pieces = self.pull_pieces(puller, from);
        let ended = match fetch.content {
            None => pieces.await,
            // A member that lies may send as slowly as it likes.
            Some(content) => {
                let patience = PULL_PATIENCE + Duration::from_secs(content.bytes / PULL_BYTES_PER_SECOND_MIN);
                tokio::time::timeout(patience, pieces).await.unwrap_or_else(|_| {
                    tracing::warn!(%group, %from, ?patience, "a snapshot takes too long");
                    None
                })
            }
        };
        match ended {
            Some(Ok(job)) => DriverInput::SnapshotFetched(job),
            Some(Err(fault)) => DriverInput::SnapshotRefused { group, position, from, fault },
            None => DriverInput::SnapshotFailed { group, position },
        }
    }

    async fn pull_pieces(
        &self,
        mut puller: Box<Puller>,
        from: NodeId,
    ) -> Option<Result<Box<InstallJob>, SnapshotFault>> {
        /// How often one piece is asked for before the pull is given up.
        const ATTEMPTS: u32 = 20;
        let mut attempts = 0;
        loop {
            let request = PeerRequest::Snapshot(puller.request()).encode();
            match self.transport().request(from, request, PEER_TIMEOUT).await {
                Ok(piece) => match puller.take(piece) {
                    PullerStep::More(next) => {
                        puller = next;
                        attempts = 0;
                    }
                    PullerStep::Complete(job) => return Some(Ok(job)),
                    PullerStep::Fault(fault) => return Some(Err(fault)),
                },
                Err(error)
                    if attempts < ATTEMPTS
                        && !matches!(
                            error,
                            RequestError::UnknownPeer { .. } | RequestError::TooLarge { .. }
                        ) =>
                {
                    attempts += 1;
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                Err(error) => {
                    tracing::warn!(%from, %error, "a snapshot cannot be fetched");
                    return None;
                }
            }
        }
    }
}
