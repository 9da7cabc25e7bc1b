//! A running node: joins storage, transport, runtime and the shards, and knows what no shard knows:
//! which groups this node runs, where components come from, and who leads what.
//!
//! Relies on every room below. Promises that a node which started holds exactly the groups that its data
//! directory and the catalog name, and that a failed disk stops it. Knows no client protocol; `api` does.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use quorate_runtime::{Component, Engine, EngineSettings, Event, StateView};
use quorate_storage::{DataDirectory, Identity, RecoveredGroup, Store, Wal, WalOptions};
use quorate_transport::{RequestError, Tls, TlsFiles, Transport, TransportConfig, TransportLimits};
use quorate_types::{
    BatchItem, BootNumber, ComponentLimits, Digest, GroupId, HlcTimestamp, Incarnation, LogIndex, NodeId,
    Outcome, Rejection,
};
use tokio::sync::{broadcast, oneshot, watch};

use crate::api::ApiServer;
use crate::catalog::{self, Catalog, CatalogCommand, ComponentRecord, GroupRecord, NodeRecord};
use crate::clock::Clock;
use crate::config::{ConfigError, NodeConfig};
use crate::driver::{
    Driver, DriverInput, Failure, GroupReport, GroupStart, Local, Puller, PullerStep, Reply,
};
use crate::machine::{DigestInterval, MachineIdentity};
use crate::remote::{COMPONENT_BYTES_MAX, COMPONENT_CHUNK_BYTES, PeerCall, PeerRequest, ReplicaReport};
use crate::shard::{Shard, ShardInput, ShardSender, Surroundings};
use crate::workers::{DiskFailure, LogWork, StoreWork, Worker, start_log, start_store};

/// How long one request to a peer may take.
const PEER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a node tries to have something ordered before it gives up.
const ORDER_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause between two attempts of the node's own.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// Events and status changes kept for a watcher that lags.
const WATCH_BACKLOG: usize = 4_096;

/// Why a node cannot start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A certificate or key cannot be used.
    #[error("the certificates cannot be used: {0}")]
    Tls(String),
    /// The data directory cannot be used.
    #[error(transparent)]
    Directory(#[from] quorate_storage::DirectoryError),
    /// The log cannot be used.
    #[error("the write-ahead log cannot be used: {0}")]
    Wal(#[from] quorate_storage::WalError),
    /// The tables cannot be used.
    #[error("the checkpoint tables cannot be used: {0}")]
    Store(#[from] quorate_storage::StoreError),
    /// A group cannot be recovered.
    #[error(transparent)]
    Recover(#[from] crate::driver::RecoverError),
    /// The peer port cannot be served.
    #[error("the peer port cannot be served: {0}")]
    Transport(#[from] quorate_transport::TransportError),
    /// The client port cannot be served.
    #[error("the client port cannot be served: {0}")]
    Api(String),
    /// Components cannot be run here.
    #[error("components cannot be run on this machine: {0}")]
    Runtime(String),
    /// The system gave no thread.
    #[error("a thread cannot be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// Why the node could not get something done for a client or for itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// The replica said no.
    #[error(transparent)]
    Failure(#[from] Failure),
    /// The state machine said no.
    #[error("{}: {}", .0.name, .0.message)]
    Rejected(Rejection),
    /// A peer could not be asked or said no.
    #[error("{0}")]
    Peer(String),
    /// Nobody could do it in time.
    #[error("no leader of {0} answered in time; check `quorate status`, then try again")]
    NoLeader(GroupId),
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
}

/// Something that happened to a group, for watchers.
#[derive(Clone, Debug)]
pub enum GroupNews {
    /// The component emitted events.
    Events {
        /// The group.
        group: GroupId,
        /// The entry that emitted them.
        index: LogIndex,
        /// That entry's stamp.
        stamp: HlcTimestamp,
        /// In order of emission.
        events: Arc<Vec<Event>>,
    },
    /// Leadership or health changed.
    Status(GroupId, GroupReport),
}

/// Tells one who waits for a component how the search ended.
type Found = oneshot::Sender<Result<(), String>>;

/// What all parts of a running node share.
pub struct Inner {
    pub(crate) config: NodeConfig,
    pub(crate) node: NodeId,
    pub(crate) boot: BootNumber,
    pub(crate) started: Instant,
    pub(crate) cluster: quorate_types::ClusterId,
    pub(crate) shards: Vec<ShardSender>,
    pub(crate) store: Arc<Store>,
    engine: Engine,
    transport: std::sync::OnceLock<Transport>,
    catalog: ArcSwap<Catalog>,
    catalog_changed: watch::Sender<u64>,
    pub(crate) news: broadcast::Sender<GroupNews>,
    /// Groups started here, or being started, as their stored descriptions say.
    running: Mutex<BTreeMap<GroupId, GroupRecord>>,
    /// Whether the catalog was applied since the start, so that what it does not name does not exist.
    catalog_known: AtomicBool,
    /// The last status of each group at this node.
    reports: Mutex<BTreeMap<GroupId, GroupReport>>,
    components: Mutex<BTreeMap<Digest, Component>>,
    /// Components being found, with whoever waits for them.
    finding: Mutex<BTreeMap<Digest, Vec<Found>>>,
    pub(crate) log: std::sync::mpsc::Sender<LogWork>,
    failure: watch::Sender<Option<DiskFailure>>,
    runtime: tokio::runtime::Handle,
    weak: std::sync::Weak<Inner>,
}

/// A running node.
pub struct Node {
    inner: Arc<Inner>,
    api: ApiServer,
    log: Worker<LogWork>,
    store: Worker<StoreWork>,
    shard_tasks: Vec<tokio::task::JoinHandle<()>>,
    housekeeping: tokio::task::JoinHandle<()>,
    // The lock on the directory is held as long as the node runs.
    _directory: DataDirectory,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Node {
    /// Starts a node on the tokio runtime that calls this.
    ///
    /// # Errors
    ///
    /// [`NodeError`], each saying what to do; nothing keeps running then.
    pub async fn start(config: NodeConfig) -> Result<Self, NodeError> {
        config.validate()?;
        let cluster = config.cluster_id()?;
        let node = config.node_id();
        let tls = Tls::from_files(TlsFiles {
            authority: config.tls.ca.clone(),
            certificate: config.tls.cert.clone(),
            key: config.tls.key.clone(),
        })
        .map_err(|error| NodeError::Tls(error.to_string()))?;
        let directory =
            DataDirectory::open(&config.node.data, Identity { cluster, node, incarnation: Incarnation(1) })?;
        let identity = *directory.identity();
        let store = Arc::new(Store::open(&directory.store_path(), &identity)?);
        let boot = store.raise_boot()?;
        let options = WalOptions {
            segment_bytes: config.log.segment_bytes,
            salt: random_seed(node, boot),
            expected_groups: store.groups()?,
            ..WalOptions::default()
        };
        let (wal, recovery) = Wal::open(directory.wal_disk()?, identity, options)?;
        let engine =
            Engine::new(EngineSettings::default()).map_err(|error| NodeError::Runtime(error.to_string()))?;
        let (failure, _) = watch::channel(None);
        let on_failure = {
            let failure = failure.clone();
            Arc::new(move |fault: DiskFailure| {
                tracing::error!(%fault, "a disk failed");
                failure.send_replace(Some(fault));
            })
        };
        let log = start_log(wal, config.node.data.clone(), on_failure.clone())?;
        let store_worker = start_store(Arc::clone(&store), config.node.data.clone(), on_failure)?;
        let shard_count = config.shard_count();
        let shards: Vec<_> = (0..shard_count).map(|_| ShardSender::new(config.limits.mailbox)).collect();
        let inner = Arc::new_cyclic(|weak| Inner {
            node,
            boot,
            started: Instant::now(),
            cluster,
            shards,
            store,
            engine,
            transport: std::sync::OnceLock::new(),
            catalog: ArcSwap::default(),
            catalog_changed: watch::channel(0).0,
            news: broadcast::channel(WATCH_BACKLOG).0,
            running: Mutex::default(),
            catalog_known: AtomicBool::new(false),
            reports: Mutex::default(),
            components: Mutex::default(),
            finding: Mutex::default(),
            log: log.sender(),
            failure,
            runtime: tokio::runtime::Handle::current(),
            weak: weak.clone(),
            config,
        });
        inner.recover_groups(recovery.groups)?;
        let transport = Transport::start(inner.transport_config(tls.clone())?, inner.handler()).await?;
        if inner.transport.set(transport).is_err() {
            unreachable!("the transport is set once, here");
        }
        // Shards send from their first turn on, so they start after the transport.
        let shard_tasks = inner.start_shards(&identity, store_worker.sender());
        let api = ApiServer::start(Arc::clone(&inner), &tls).await.map_err(NodeError::Api)?;
        let housekeeping = tokio::spawn(housekeep(Arc::clone(&inner)));
        tracing::info!(%node, boot = boot.0, api = %api.address(), "the node is running");
        Ok(Self { inner, api, log, store: store_worker, shard_tasks, housekeeping, _directory: directory })
    }

    /// Where clients are served.
    #[must_use]
    pub fn api_address(&self) -> std::net::SocketAddr {
        self.api.address()
    }

    /// Where peers are served.
    #[must_use]
    pub fn peer_address(&self) -> std::net::SocketAddr {
        self.inner.transport().local_address()
    }

    /// Resolves when a disk failed; the process must stop then.
    pub async fn failed(&self) -> DiskFailure {
        let mut failure = self.inner.failure.subscribe();
        loop {
            if let Some(fault) = failure.borrow_and_update().clone() {
                return fault;
            }
            if failure.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Hands over leadership, then stops: no acknowledged command is lost even without this, but groups
    /// are spared an election.
    pub async fn shutdown(self) {
        for shard in &self.inner.shards {
            shard.complete(DriverInput::MayLead(false));
        }
        let leads =
            || locked(&self.inner.reports).values().any(|r| r.role == quorate_consensus::ReplicaRole::Leader);
        let deadline = Instant::now() + Duration::from_millis(500);
        while leads() && Instant::now() < deadline && self.inner.config.cluster.nodes.len() > 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.api.stop().await;
        self.housekeeping.abort();
        for shard in &self.inner.shards {
            shard.tell(ShardInput::Stop);
        }
        for task in self.shard_tasks {
            drop(tokio::time::timeout(crate::shard::STOP_TIMEOUT, task).await);
        }
        let stopping = tokio::task::spawn_blocking(move || {
            self.log.stop(LogWork::Stop);
            self.store.stop(StoreWork::Stop);
        });
        drop(stopping.await);
    }
}

/// Follows the catalog: starts the groups it names, and keeps its list of nodes true.
async fn housekeep(inner: Arc<Inner>) {
    let mut changed = inner.catalog_changed.subscribe();
    let mut pause = tokio::time::interval(Duration::from_millis(500));
    loop {
        tokio::select! {
            result = changed.changed() => if result.is_err() { return },
            _ = pause.tick() => {}
        }
        inner.start_missing_groups();
        if inner.leader_of(GroupId::CATALOG) == Some(inner.node) {
            inner.register_nodes().await;
        }
    }
}

impl Inner {
    /// The shard that runs a group.
    pub(crate) fn shard(&self, group: GroupId) -> &ShardSender {
        &self.shards[(group.0 % self.shards.len() as u64) as usize]
    }

    pub(crate) fn transport(&self) -> &Transport {
        self.transport.get().expect("the transport is set before anything is served")
    }

    /// What the catalog says, as far as this node has applied it.
    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        self.catalog.load_full()
    }

    /// Who leads a group, as far as this node knows.
    pub(crate) fn leader_of(&self, group: GroupId) -> Option<NodeId> {
        locked(&self.reports).get(&group).and_then(|report| report.leader)
    }

    /// How the groups at this node stood when it last changed.
    pub(crate) fn reports(&self) -> BTreeMap<GroupId, GroupReport> {
        locked(&self.reports).clone()
    }

    /// Where clients reach a node.
    pub(crate) fn api_address_of(&self, node: NodeId) -> Option<String> {
        let catalog = self.catalog.load();
        let known =
            catalog.nodes.iter().find(|record| record.node == node).map(|record| record.api_address.clone());
        known.or_else(|| self.config.cluster.nodes.iter().find(|n| n.id == node.0).map(|n| n.api.clone()))
    }

    pub(crate) fn catalog_record(&self) -> GroupRecord {
        let mut nodes: Vec<_> = self.config.cluster.nodes.iter().map(|node| NodeId(node.id)).collect();
        nodes.sort_unstable();
        GroupRecord {
            group: GroupId::CATALOG,
            name: "catalog".to_owned(),
            config: catalog::crash_group(&nodes, ComponentLimits::default()),
            component: None,
        }
    }

    /// The group of this name or number: as the catalog says, or as this node runs it.
    pub(crate) fn group_record(&self, name: &str) -> Option<GroupRecord> {
        if name == "0" || name == "catalog" {
            return Some(self.catalog_record());
        }
        if let Some(record) = self.catalog.load().group(name) {
            return Some(record.clone());
        }
        let running = locked(&self.running);
        running.values().find(|record| record.name == name || record.group.0.to_string() == name).cloned()
    }

    /// Whether the catalog was applied since this node started.
    pub(crate) fn catalog_known(&self) -> bool {
        self.catalog_known.load(Ordering::Acquire)
    }

    /// Starts the catalog and every group that the data directory holds.
    fn recover_groups(&self, mut recovered: BTreeMap<GroupId, RecoveredGroup>) -> Result<(), NodeError> {
        let record = self.catalog_record();
        if self.store.group(GroupId::CATALOG)?.is_none() {
            self.store.put_group(GroupId::CATALOG, &catalog::to_cbor(&record))?;
        }
        for group in self.store.groups()? {
            let description = self.store.group(group)?.unwrap_or_default();
            let record: GroupRecord =
                catalog::from_cbor(&description).ok_or(crate::driver::RecoverError {
                    group,
                    why: "its stored description cannot be read".to_owned(),
                })?;
            self.start_group(&record, recovered.remove(&group))?;
        }
        Ok(())
    }

    fn start_group(&self, record: &GroupRecord, found: Option<RecoveredGroup>) -> Result<(), NodeError> {
        if locked(&self.running).insert(record.group, record.clone()).is_some() {
            return Ok(());
        }
        let identity = MachineIdentity {
            cluster: self.cluster,
            group: record.group,
            name: record.name.clone(),
            digest_interval: DigestInterval::default(),
        };
        let timings = self.config.timings();
        let start = GroupStart::recover(&self.store, identity, record.config.clone(), found, timings)?;
        self.shard(record.group).tell(ShardInput::AddGroup(Box::new(start)));
        Ok(())
    }

    /// Starts the groups that the catalog places here and that are new.
    fn start_missing_groups(&self) {
        for record in &self.catalog.load().groups {
            if record.config.member(self.node).is_none() || locked(&self.running).contains_key(&record.group)
            {
                continue;
            }
            let stored =
                self.store.put_group(record.group, &catalog::to_cbor(record)).map_err(NodeError::from);
            match stored.and_then(|()| self.start_group(record, None)) {
                Ok(()) => tracing::info!(group = %record.group, name = record.name, "a group was started"),
                Err(error) => tracing::error!(group = %record.group, %error, "a group cannot be started"),
            }
        }
    }

    fn start_shards(
        self: &Arc<Self>,
        identity: &Identity,
        store: std::sync::mpsc::Sender<StoreWork>,
    ) -> Vec<tokio::task::JoinHandle<()>> {
        let clock = Clock::default();
        let unix_ns =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_nanos();
        let seed = (unix_ns as u64) ^ (self.node.0 << 48) ^ self.boot.0;
        let local = Local { node: self.node, incarnation: identity.incarnation, boot: self.boot, seed };
        let shards = self.shards.iter().map(|sender| {
            let shard = Shard {
                sender: sender.clone(),
                driver: Driver::new(local),
                clock,
                log: self.log.clone(),
                store: store.clone(),
                surroundings: Arc::clone(self),
            };
            tokio::spawn(shard.run())
        });
        shards.collect()
    }

    fn transport_config(&self, tls: Tls) -> Result<TransportConfig, NodeError> {
        Ok(TransportConfig {
            node: self.node,
            cluster: self.cluster,
            genesis: self.config.genesis()?,
            boot: self.boot,
            listen: self.config.listen.peer,
            peers: self
                .config
                .cluster
                .nodes
                .iter()
                .map(|node| (NodeId(node.id), node.peer.clone()))
                .collect(),
            tls,
            limits: TransportLimits::default(),
        })
    }

    fn handler(self: &Arc<Self>) -> Arc<dyn quorate_transport::Handler> {
        Arc::new(PeerHandler(Arc::clone(self)))
    }

    /// Makes the catalog's list of nodes say what the configuration says.
    async fn register_nodes(&self) {
        let known = self.catalog.load_full();
        for node in &self.config.cluster.nodes {
            let record = NodeRecord {
                node: NodeId(node.id),
                api_address: node.api.clone(),
                peer_address: node.peer.clone(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
            };
            if known.nodes.contains(&record) {
                continue;
            }
            if let Err(error) = self.order_catalog(CatalogCommand::RegisterNode(record)).await {
                tracing::debug!(%error, "a node could not be registered yet");
                return;
            }
        }
    }

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
            PeerCall::Activate { group, component, parameters } => {
                let item = BatchItem::Activate { component, parameters: Bytes::from(parameters) };
                self.order_here(group, item).await.map(|(_, index)| catalog::to_cbor(&index.0))
            }
            PeerCall::Report(group) => {
                let (sender, receiver) = oneshot::channel();
                self.shard(group).tell(ShardInput::Report(group, sender));
                let report = receiver.await.ok().flatten().ok_or(Failure::UnknownGroup)?;
                Ok(catalog::to_cbor(&ReplicaReport::from(report)))
            }
            PeerCall::Checkpoint(group) => {
                match self.shard(group).ask(|waiter| DriverInput::Checkpoint { group, waiter }).await? {
                    Reply::Checkpoint { index, digest } => Ok(catalog::to_cbor(&(index.0, digest))),
                    other => Err(OrderError::Peer(format!("the replica answered {other:?}"))),
                }
            }
            PeerCall::Transfer { group, to } => {
                self.shard(group).ask(|waiter| DriverInput::TransferLeader { group, to, waiter }).await?;
                Ok(Bytes::new())
            }
        }
    }

    /// Compiles bytes, off the consensus path, and checks that they are a state machine.
    pub(crate) async fn compile(&self, bytes: Bytes) -> Result<Component, String> {
        let engine = self.engine.clone();
        match tokio::task::spawn_blocking(move || engine.compile(&bytes)).await {
            Ok(compiled) => compiled.map_err(|error| error.to_string()),
            Err(error) => Err(format!("compiling ended unexpectedly: {error}")),
        }
    }

    /// Stores a checked component and lists it in the catalog.
    pub(crate) async fn push_component(
        &self,
        component: Component,
        bytes: Bytes,
    ) -> Result<ComponentRecord, OrderError> {
        let record = ComponentRecord::of(&component, bytes.len() as u64, self.node);
        self.keep_component(component, bytes).await.map_err(OrderError::Peer)?;
        self.order_catalog(CatalogCommand::RegisterComponent(record.clone())).await?;
        Ok(record)
    }

    async fn keep_component(&self, component: Component, bytes: Bytes) -> Result<(), String> {
        let (store, digest) = (Arc::clone(&self.store), component.digest());
        let stored = tokio::task::spawn_blocking(move || store.put_component(digest, &bytes)).await;
        match stored {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(error.to_string()),
            Err(error) => return Err(error.to_string()),
        }
        locked(&self.components).insert(digest, component.clone());
        for shard in &self.shards {
            shard.complete(DriverInput::Component(component.clone()));
        }
        Ok(())
    }

    /// Makes sure that a component is stored, compiled and known to the shards.
    async fn prepare(&self, digest: Digest) -> Result<(), String> {
        if locked(&self.components).contains_key(&digest) {
            return Ok(());
        }
        let (sender, receiver) = oneshot::channel();
        let first = {
            let mut finding = locked(&self.finding);
            let waiting = finding.entry(digest).or_default();
            waiting.push(sender);
            waiting.len() == 1
        };
        if first {
            let inner = self.weak.upgrade().expect("whoever calls holds the node");
            self.runtime.spawn(async move {
                let result = inner.find_component(digest).await;
                let waiting = locked(&inner.finding).remove(&digest).unwrap_or_default();
                // Whoever waited may have left.
                waiting.into_iter().for_each(|waiter| drop(waiter.send(result.clone())));
            });
        }
        receiver.await.unwrap_or_else(|_| Err("the node is stopping".to_owned()))
    }

    async fn find_component(&self, digest: Digest) -> Result<(), String> {
        let stored = self.store.component(digest).map_err(|error| error.to_string())?;
        let bytes = match stored {
            Some(bytes) => bytes,
            None => self.fetch_component(digest).await?,
        };
        let component = self.compile(bytes.clone()).await?;
        self.keep_component(component, bytes).await
    }

    /// Asks the other nodes in turn.
    async fn fetch_component(&self, digest: Digest) -> Result<Bytes, String> {
        let mut faults = Vec::new();
        for node in self.config.cluster.nodes.iter().map(|node| NodeId(node.id)).filter(|id| *id != self.node)
        {
            match self.fetch_component_from(node, digest).await {
                Ok(bytes) => return Ok(bytes),
                Err(fault) => faults.push(format!("{node}: {fault}")),
            }
        }
        Err(format!("no node could send component {}: {}", digest.short(), faults.join("; ")))
    }

    async fn fetch_component_from(&self, node: NodeId, digest: Digest) -> Result<Bytes, String> {
        let mut bytes = Vec::new();
        loop {
            let request = PeerRequest::Component { digest, offset: bytes.len() as u64 }.encode();
            let piece =
                self.transport().request(node, request, PEER_TIMEOUT).await.map_err(|e| e.to_string())?;
            bytes.extend_from_slice(&piece);
            if bytes.len() > COMPONENT_BYTES_MAX {
                return Err("it is larger than a component may be".to_owned());
            }
            if piece.len() < COMPONENT_CHUNK_BYTES {
                break;
            }
        }
        if quorate_crypto::component_digest(&bytes) != digest {
            return Err("the bytes do not have that digest".to_owned());
        }
        Ok(Bytes::from(bytes))
    }

    /// Replaces a group's component: waits until a quorum of its members has the code, then orders the
    /// activation. Answers the index at which it took effect.
    pub(crate) async fn deploy(
        &self,
        record: &GroupRecord,
        component: Digest,
        parameters: Bytes,
    ) -> Result<LogIndex, OrderError> {
        let members: Vec<_> = record.config.voters().map(|member| member.node).collect();
        let (sender, mut prepared) = tokio::sync::mpsc::unbounded_channel();
        for node in members.iter().copied() {
            let inner = self.weak.upgrade().expect("whoever calls holds the node");
            let sender = sender.clone();
            self.runtime.spawn(async move {
                let result = inner.call(node, PeerCall::Prepare(component)).await;
                // Whoever deploys may have a quorum already.
                drop(sender.send((node, result)));
            });
        }
        drop(sender);
        let (mut ready, mut faults) = (0, Vec::new());
        while ready < record.config.quorum() {
            match prepared.recv().await {
                Some((_, Ok(_))) => ready += 1,
                Some((node, Err(error))) => faults.push(format!("node {node}: {error}")),
                None => {
                    let why =
                        format!("no quorum of the group has the component ready: {}", faults.join("; "));
                    return Err(OrderError::Peer(why));
                }
            }
        }
        let group = record.group;
        let call = PeerCall::Activate { group, component, parameters: parameters.to_vec() };
        let answer = self.at_leader(group, call).await?;
        self.order_catalog(CatalogCommand::NoteActivation { group, component }).await?;
        Ok(LogIndex(catalog::from_cbor(&answer).unwrap_or_default()))
    }
}

/// A number that differs between nodes and between starts; needs no secrecy.
fn random_seed(node: NodeId, boot: BootNumber) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one((node.0, boot.0))
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
struct PeerHandler(Arc<Inner>);

impl quorate_transport::Handler for PeerHandler {
    fn receive(&self, from: NodeId, frames: Vec<Bytes>) {
        for frame in frames {
            // An envelope starts with its group, which says whose mailbox it is for.
            let group =
                frame.first_chunk().map_or(GroupId::CATALOG, |bytes| GroupId(u64::from_le_bytes(*bytes)));
            self.0.shard(group).frame(from, frame);
        }
    }

    fn connected(&self, peer: NodeId) {
        tracing::info!(%peer, "connected");
    }

    fn disconnected(&self, peer: NodeId, why: &str) {
        tracing::info!(%peer, why, "disconnected");
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

    fn serve_component(&self, digest: Digest, offset: u64) -> Result<Bytes, String> {
        let bytes = self.store.component(digest).map_err(|error| error.to_string())?;
        let bytes = bytes.ok_or_else(|| "this node does not hold it".to_owned())?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        Ok(bytes.slice(start..(start + COMPONENT_CHUNK_BYTES).min(bytes.len())))
    }

    async fn pull(&self, shard: ShardSender, mut puller: Box<Puller>, from: NodeId) -> Option<()> {
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
                    PullerStep::Complete(job) => {
                        shard.complete(DriverInput::SnapshotFetched(job));
                        return Some(());
                    }
                    PullerStep::Fault(why) => {
                        tracing::warn!(%from, why, "a snapshot cannot be fetched");
                        return None;
                    }
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

impl Surroundings for Inner {
    fn send(&self, to: NodeId, frame: Bytes) {
        if let Err(error) = self.transport().send(to, frame) {
            tracing::trace!(%to, %error, "a frame was dropped");
        }
    }

    fn fetch(&self, shard: &ShardSender, identity: MachineIdentity, fetch: quorate_consensus::SnapshotFetch) {
        let inner = self.weak.upgrade().expect("the shard holds the node");
        let shard = shard.clone();
        self.runtime.spawn(async move {
            let group = identity.group;
            tracing::info!(%group, from = %fetch.from, position = %fetch.position, "fetching a snapshot");
            let puller = Puller::new(identity, fetch);
            if inner.pull(shard.clone(), puller, fetch.from).await.is_none() {
                shard.complete(DriverInput::SnapshotFailed { group, position: fetch.position });
            }
        });
    }

    fn need(&self, component: Digest) {
        let inner = self.weak.upgrade().expect("the shard holds the node");
        self.runtime.spawn(async move {
            // The group waits for the code, so the node keeps looking for it.
            while let Err(error) = inner.prepare(component).await {
                tracing::warn!(component = %component.short(), %error, "a component is needed");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
    }

    fn events(&self, group: GroupId, index: LogIndex, stamp: HlcTimestamp, events: Vec<Event>) {
        // Nobody may be watching.
        drop(self.news.send(GroupNews::Events { group, index, stamp, events: Arc::new(events) }));
    }

    fn changed(&self, group: GroupId, report: GroupReport) {
        tracing::info!(
            %group, role = ?report.role, term = %report.term,
            leader = report.leader.map(|node| node.0), "status changed"
        );
        locked(&self.reports).insert(group, report.clone());
        if group == GroupId::CATALOG {
            self.catalog_changed.send_modify(|count| *count += 1);
        }
        // Nobody may be watching.
        drop(self.news.send(GroupNews::Status(group, report)));
    }

    fn catalog(&self, view: StateView) {
        self.catalog.store(Arc::new(Catalog::read(&view)));
        self.catalog_known.store(true, Ordering::Release);
        self.catalog_changed.send_modify(|count| *count += 1);
    }
}
