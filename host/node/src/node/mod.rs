//! A running node: joins storage, transport, runtime and the shards, and knows what no shard knows:
//! which groups this node runs, where components come from, and who leads what.
//!
//! Relies on every room below. Promises that a node which started holds exactly the groups that its data
//! directory and the catalog name, and that a failed disk stops it. Knows no client protocol; `api` does.

mod calls;
mod components;
mod lies;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use quorate_consensus::hotstuff;
use quorate_crypto::{SecretKey, ValidatorSet};
use quorate_runtime::{Component, Engine, EngineSettings, StateView};
use quorate_storage::{DataDirectory, Identity, RecoveredGroup, Store, Wal, WalOptions};
use quorate_transport::{Tls, TlsFiles, Transport, TransportConfig, TransportLimits};
use quorate_types::{
    BootNumber, ComponentLimits, Digest, GroupId, Incarnation, LogIndex, MemberKey, NodeId, Rejection,
};
use tokio::sync::{broadcast, oneshot, watch};

use crate::api::ApiServer;
use crate::catalog::{self, Catalog, CatalogCommand, GroupRecord, KeyRecord, NodeRecord};
use crate::clients::Clients;
use crate::clock::Clock;
use crate::config::{ConfigError, NodeConfig};
use crate::driver::{
    Driver, DriverInput, EntryEvents, Failure, GroupReport, GroupStart, Local, Puller, RelayedFrame,
    SnapshotFault,
};
use crate::machine::{DigestInterval, MachineIdentity};
use crate::remote::{PeerCall, PeerRequest};
use crate::shard::{Shard, ShardInput, ShardSender, Surroundings};
use crate::signatures::Signatures;
use crate::workers::{DiskFailure, LogWork, StoreWork, Worker, start_log, start_store};

/// How long one request to a peer may take.
const PEER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a node tries to have something ordered before it gives up.
const ORDER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a checkpoint may take that someone asked for.
const CHECKPOINT_TIMEOUT: Duration = Duration::from_secs(60);
/// How long fetching a snapshot may take where the next member would be asked otherwise, beside the time that its
/// size allows at [`PULL_BYTES_PER_SECOND_MIN`].
const PULL_PATIENCE: Duration = Duration::from_secs(30);
/// Less than any network between nodes carries.
const PULL_BYTES_PER_SECOND_MIN: u64 = 1 << 20;
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
    /// The consensus key cannot be used.
    #[error("the consensus key cannot be used: {0}")]
    Key(#[from] quorate_crypto::KeyFileError),
    /// The system gives no randomness.
    #[error("this system gives no randomness: {0}")]
    Randomness(#[from] getrandom::Error),
    /// Signatures cannot be verified here.
    #[error(transparent)]
    Votes(#[from] crate::signatures::StartError),
    /// A group signs, and this node cannot.
    #[error("group {group} cannot be run here: {why}")]
    CannotSign {
        /// The group.
        group: GroupId,
        /// Why not.
        why: String,
    },
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
    Events(GroupId, EntryEvents),
    /// Entries up to this one came by snapshot; what they emitted is not known here.
    Skipped(GroupId, LogIndex),
    /// Leadership or health changed.
    Status(GroupId, Box<GroupReport>),
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
    /// Signs in hybrid and Byzantine groups.
    key: Option<Arc<SecretKey>>,
    pub(crate) signatures: Signatures,
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
    store_work: std::sync::mpsc::Sender<StoreWork>,
    /// Evidence that the log of its group does not hold yet.
    evidence: Mutex<BTreeMap<(GroupId, Digest), hotstuff::Evidence>>,
    ordering_evidence: AtomicBool,
    /// Whether the catalog is being told of a component.
    noting_activation: AtomicBool,
    /// Groups whose leader is being asked to order a checkpoint.
    ordering_checkpoints: Mutex<BTreeSet<GroupId>>,
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
            salt: getrandom::u64()?,
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
        let clock = Clock::default();
        let shard_count = config.shard_count();
        let shards: Vec<_> = (0..shard_count).map(|_| ShardSender::new(config.limits.mailbox)).collect();
        let on_held = {
            let shards = shards.clone();
            Arc::new(move |group| shard_of(&shards, group).complete(DriverInput::CheckpointDue(group)))
        };
        let log = start_log(wal, config.node.data.clone(), on_held, on_failure.clone())?;
        let store_worker = start_store(Arc::clone(&store), config.node.data.clone(), on_failure)?;
        let clients = Clients::new(cluster, tls.clone());
        let cards = &config.votes.cards.0;
        let signatures = Signatures::start(config.vote_threads(), cards, clock, shards.clone(), clients)?;
        let key = consensus_key(&config.node.consensus_key)?;
        let seed = getrandom::u64()?;
        let inner = Arc::new_cyclic(|weak| Inner {
            node,
            boot,
            started: Instant::now(),
            cluster,
            shards,
            store,
            engine,
            transport: std::sync::OnceLock::new(),
            key,
            signatures,
            catalog: ArcSwap::default(),
            catalog_changed: watch::channel(0).0,
            news: broadcast::channel(WATCH_BACKLOG).0,
            running: Mutex::default(),
            catalog_known: AtomicBool::new(false),
            reports: Mutex::default(),
            components: Mutex::default(),
            finding: Mutex::default(),
            log: log.sender(),
            store_work: store_worker.sender(),
            evidence: Mutex::default(),
            ordering_evidence: AtomicBool::new(false),
            noting_activation: AtomicBool::new(false),
            ordering_checkpoints: Mutex::default(),
            failure,
            runtime: tokio::runtime::Handle::current(),
            weak: weak.clone(),
            config,
        });
        inner.recover_groups(recovery.groups)?;
        inner.recover_evidence()?;
        let transport = Transport::start(inner.transport_config(tls.clone())?, inner.handler()).await?;
        if inner.transport.set(transport).is_err() {
            unreachable!("the transport is set once, here");
        }
        // Shards send from their first turn on, so they start after the transport.
        let local = Local { node, incarnation: identity.incarnation, boot, seed };
        let shard_tasks = inner.start_shards(local, clock);
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

/// Reads the key with which this node signs; a node without one takes no part in groups that sign.
fn consensus_key(path: &std::path::Path) -> Result<Option<Arc<SecretKey>>, NodeError> {
    if !path.try_exists().unwrap_or(true) {
        tracing::info!(path = %path.display(), "there is no consensus key: this node joins no group that signs");
        return Ok(None);
    }
    Ok(Some(Arc::new(SecretKey::read_file(path)?)))
}

/// The shard that runs a group.
pub(crate) fn shard_of(shards: &[ShardSender], group: GroupId) -> &ShardSender {
    &shards[(group.0 % shards.len() as u64) as usize]
}

/// About what the file says that this node shall lie; an empty one is enough.
#[cfg(feature = "planted")]
fn lie_wanted() -> crate::driver::planted::Lie {
    use crate::driver::planted::Lie;
    let said = std::env::var_os("PLANTED_LIE_FILE").map(std::fs::read_to_string);
    match said.as_ref().map(|said| said.as_deref()) {
        Some(Ok("clients")) => Lie::Clients,
        Some(Ok("deployments")) => Lie::Deployments,
        Some(Ok(_)) => Lie::Twice,
        _ => Lie::Nothing,
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
        inner.register_key().await;
        inner.order_evidence();
        inner.note_activations();
        inner.report_missing_leaders();
        #[cfg(feature = "planted")]
        crate::driver::planted::lie_from_now_on(lie_wanted());
    }
}

impl Inner {
    /// The shard that runs a group.
    pub(crate) fn shard(&self, group: GroupId) -> &ShardSender {
        shard_of(&self.shards, group)
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
            match self.start_group(&record, recovered.remove(&group)) {
                // One group that cannot be run is no reason to leave the others without this node.
                Err(error @ NodeError::CannotSign { .. }) => {
                    tracing::error!(%error, "a group is not started")
                }
                other => other?,
            }
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
        let mut start = GroupStart::recover(&self.store, identity, record.config.clone(), found, timings)?;
        if start.config().is_signed() {
            let signer = self.signing_identity(record.group, start.config())?;
            self.signatures.add_group(record.group, Arc::clone(&signer.set));
            start = start.signing(signer);
        }
        self.shard(record.group).tell(ShardInput::AddGroup(Box::new(start)));
        Ok(())
    }

    /// With what the replica of a group that signs starts.
    fn signing_identity(
        &self,
        group: GroupId,
        config: &quorate_types::EpochConfig,
    ) -> Result<hotstuff::Identity, NodeError> {
        let cannot = |why: String| NodeError::CannotSign { group, why };
        let path = self.config.node.consensus_key.display();
        let set =
            ValidatorSet::of_epoch(self.cluster, group, config).map_err(|fault| cannot(fault.to_string()))?;
        let key = self.key.clone().ok_or_else(|| cannot(format!("there is no consensus key {path}")))?;
        if set.member(self.node).is_some_and(|member| member.key != key.public()) {
            return Err(cannot(format!("the key {path} is not the one with which this node is a member")));
        }
        Ok(hotstuff::Identity {
            set: Arc::new(set),
            signer: key,
            certifier: self.signatures.accepted(),
            boot: self.boot,
            settings: hotstuff::Settings::default(),
        })
    }

    /// Makes the catalog say with which key this node signs.
    async fn register_key(&self) {
        let Some(key) = &self.key else { return };
        let public = MemberKey(key.public().to_bytes());
        let catalog = self.catalog.load_full();
        let is_listed = catalog.nodes.iter().any(|record| record.node == self.node);
        if !self.catalog_known() || !is_listed || catalog.key(self.node) == Some(public) {
            return;
        }
        let record = KeyRecord::of(self.cluster, self.node, key);
        match self.order_catalog(CatalogCommand::RegisterKey(record)).await {
            Ok(_) => tracing::info!("the consensus key was registered"),
            Err(error) => tracing::warn!(%error, "the consensus key could not be registered yet"),
        }
    }

    /// Tells groups whose leader's node cannot be reached. Idle groups send nothing, so that liveness is known of
    /// nodes and not of groups.
    pub(crate) fn report_missing_leaders(&self) {
        let Some(transport) = self.transport.get() else { return };
        let reached: Vec<NodeId> = transport
            .status()
            .into_iter()
            .filter(|peer| peer.connected.is_some())
            .map(|peer| peer.node)
            .chain([self.node])
            .collect();
        let missing = |report: &GroupReport| report.leader.is_some_and(|leader| !reached.contains(&leader));
        let groups: Vec<GroupId> =
            locked(&self.reports).iter().filter(|(_, report)| missing(report)).map(|(id, _)| *id).collect();
        for group in groups {
            self.shard(group).complete(DriverInput::LeaderMissing(group));
        }
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

    fn start_shards(self: &Arc<Self>, local: Local, clock: Clock) -> Vec<tokio::task::JoinHandle<()>> {
        let shards = self.shards.iter().map(|sender| {
            let shard = Shard {
                sender: sender.clone(),
                driver: Driver::new(local),
                clock,
                log: self.log.clone(),
                store: self.store_work.clone(),
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
        Arc::new(calls::PeerHandler(Arc::clone(self)))
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
            let ended = inner.pull(Puller::new(identity, fetch), fetch).await;
            shard.complete(ended);
        });
    }

    fn refused(&self, group: GroupId, from: NodeId, fault: SnapshotFault) {
        tracing::warn!(%group, %from, %fault, "a snapshot was refused");
        self.signatures.refuse_snapshot(from);
    }

    fn order_checkpoint(&self, group: GroupId) {
        let inner = self.weak.upgrade().expect("the shard holds the node");
        if !locked(&self.ordering_checkpoints).insert(group) {
            return;
        }
        self.runtime.spawn(async move {
            if let Err(error) = inner.at_leader(group, PeerCall::OrderCheckpoint(group)).await {
                tracing::warn!(%group, %error, "a checkpoint could not be ordered yet");
            }
            locked(&inner.ordering_checkpoints).remove(&group);
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

    fn evidence(&self, group: GroupId, evidence: hotstuff::Evidence) {
        self.keep_evidence(group, evidence);
    }

    fn relay(&self, group: GroupId, frame: RelayedFrame) {
        let inner = self.weak.upgrade().expect("the shard holds the node");
        self.runtime.spawn(async move {
            let request = PeerRequest::ClientFrame { group, frame: frame.bytes }.encode();
            if let Err(error) = inner.transport().request(frame.to, request, PEER_TIMEOUT).await {
                tracing::debug!(%group, to = %frame.to, %error, "a client's frame could not be handed on");
            }
        });
    }

    fn events(&self, group: GroupId, events: EntryEvents) {
        // Nobody may be watching.
        drop(self.news.send(GroupNews::Events(group, events)));
    }

    fn skipped(&self, group: GroupId, through: LogIndex) {
        drop(self.news.send(GroupNews::Skipped(group, through)));
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
        drop(self.news.send(GroupNews::Status(group, Box::new(report))));
    }

    fn catalog(&self, view: StateView) {
        self.catalog.store(Arc::new(Catalog::read(&view)));
        self.catalog_known.store(true, Ordering::Release);
        self.catalog_changed.send_modify(|count| *count += 1);
    }
}
