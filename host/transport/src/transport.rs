//! The transport of one node: its peers, its listener, and the tasks between them.
//!
//! Relies on tokio. Promises that sending never waits, that the handler hears of each peer in order, and
//! that after [`Transport::shutdown`] it hears nothing more. Knows nothing of consensus.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use hyper_util::rt::TokioIo;
use quorate_types::NodeId;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::transport::Channel;

use crate::call;
use crate::config::{TransportConfig, TransportLimits};
use crate::error::{LinkFault, RequestError, SendError, TransportError};
use crate::gate::LogGate;
use crate::hello::Ourselves;
use crate::link;
use crate::peer::{Peer, PeerParts, PeerStatus};
use crate::pki::{PeerIdentity, Subject};
use crate::service::{Service, server};
use crate::tls::{Incoming, Tls};

/// How long a shutdown waits for peers to see the end of their streams.
const SHUTDOWN_GRACE: Duration = Duration::from_millis(500);

/// A future that a trait returns.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What the node does with what arrives.
///
/// For each peer the calls `connected`, `receive` and `disconnected` come in order and one at a time; for
/// different peers they come at the same time. They run on the network's threads, so they hand on and
/// return. They may call [`Transport::send`] and [`Transport::status`] but not [`Transport::set_peers`].
pub trait Handler: Send + Sync + 'static {
    /// Frames arrived, in the order in which `from` sent them; none is empty. While this runs, nothing
    /// more is read from that peer.
    fn receive(&self, from: NodeId, frames: Vec<Bytes>);

    /// A link to `peer` is up; frames sent from now on travel on it.
    fn connected(&self, peer: NodeId);

    /// The link to `peer` is gone, with every frame that was not delivered.
    fn disconnected(&self, peer: NodeId, why: &str);

    /// Answers a call of [`Transport::request`]. The error is a sentence for the caller.
    fn serve(&self, from: NodeId, request: Bytes) -> BoxFuture<'static, Result<Bytes, String>>;
}

/// What the transport's tasks share.
pub(crate) struct Inner {
    pub(crate) ourselves: Ourselves,
    pub(crate) tls: Tls,
    pub(crate) limits: TransportLimits,
    pub(crate) handler: Arc<dyn Handler>,
    pub(crate) log: LogGate,
    peers: ArcSwap<BTreeMap<NodeId, Arc<Peer>>>,
    /// Cloned into every task, so that a shutdown sees when the last has ended.
    alive: Mutex<Option<mpsc::Sender<()>>>,
}

impl Inner {
    /// The peer with this id, if it is a member.
    pub(crate) fn peer(&self, node: NodeId) -> Option<Arc<Peer>> {
        self.peers.load().get(&node).cloned()
    }

    /// Runs a task that a shutdown waits for; none once a shutdown has begun.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let alive = self.alive.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(alive) = alive else { return };
        tokio::spawn(async move {
            task.await;
            drop(alive);
        });
    }
}

/// The running transport of one node. Dropping it closes the listener and ends every link; prefer
/// [`Transport::shutdown`], which waits for that.
pub struct Transport {
    inner: Arc<Inner>,
    local: SocketAddr,
    stop: watch::Sender<bool>,
    serving: JoinHandle<()>,
    ended: mpsc::Receiver<()>,
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transport").field("node", &self.inner.ourselves.node).finish_non_exhaustive()
    }
}

impl Transport {
    /// Opens the peer port and begins to reach the peers. Runs on the tokio runtime that calls it.
    ///
    /// # Errors
    ///
    /// [`TransportError`] if the certificate is not this node's, a limit contradicts another, or the
    /// address cannot be listened on.
    pub async fn start(config: TransportConfig, handler: Arc<dyn Handler>) -> Result<Self, TransportError> {
        config.limits.validate()?;
        check_identity(&config)?;
        let listened = config.tls.listen(config.listen, config.limits.accept).await;
        let incoming =
            listened.map_err(|source| TransportError::Listen { address: config.listen, source })?;
        let local = incoming.local_address();
        let (alive, ended) = mpsc::channel(1);
        let inner = Arc::new(Inner {
            ourselves: Ourselves {
                node: config.node,
                cluster: config.cluster,
                genesis: config.genesis,
                boot: config.boot,
            },
            tls: config.tls,
            limits: config.limits,
            handler,
            log: LogGate::default(),
            peers: ArcSwap::default(),
            alive: Mutex::new(Some(alive)),
        });
        let stop = watch::Sender::new(false);
        let serving = tokio::spawn(serve(Arc::clone(&inner), incoming, stop.subscribe()));
        let transport = Self { inner, local, stop, serving, ended };
        transport.set_peers(config.peers);
        Ok(transport)
    }

    /// Queues a frame for a peer; never waits. It is written at once when nothing else is being
    /// written, otherwise together with what else was queued meanwhile.
    ///
    /// # Errors
    ///
    /// [`SendError`] if the frame was not queued. One that was queued is lost if the link is lost.
    pub fn send(&self, to: NodeId, frame: Bytes) -> Result<(), SendError> {
        let bound = self.inner.limits.frame_bytes_max;
        if frame.is_empty() || frame.len() > bound {
            return Err(SendError::Size { bytes: frame.len(), bound });
        }
        let peers = self.inner.peers.load();
        peers.get(&to).ok_or(SendError::UnknownPeer { to })?.send(frame)
    }

    /// Asks a peer and waits for its answer, over a connection apart from the link.
    ///
    /// # Errors
    ///
    /// [`RequestError`]. Unless it says otherwise, the peer may have carried the request out.
    pub async fn request(
        &self,
        to: NodeId,
        request: Bytes,
        allowed: Duration,
    ) -> Result<Bytes, RequestError> {
        let peer = self.inner.peer(to).ok_or(RequestError::UnknownPeer { to })?;
        timeout(allowed, call::ask(&self.inner, &peer, request))
            .await
            .unwrap_or(Err(RequestError::TimedOut { to }))
    }

    /// Where peers are accepted; with the port that was taken if the configuration asked for any.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.local
    }

    /// Makes `peers` the members, each with its `host:port`. Links to nodes that are no longer members
    /// end before this returns; a link to a node with a new address stays. Not to be called by a
    /// [`Handler`].
    pub fn set_peers(&self, peers: BTreeMap<NodeId, String>) {
        let before = self.inner.peers.load_full();
        let mut after = BTreeMap::new();
        for (node, address) in peers {
            if node == self.inner.ourselves.node {
                continue;
            }
            let kept = before.get(&node).inspect(|peer| {
                peer.address.store(Arc::new(address.clone()));
                peer.wake.notify_one();
            });
            after.insert(node, kept.cloned().unwrap_or_else(|| self.inner.new_peer(node, address)));
        }
        let after = Arc::new(after);
        self.inner.peers.store(Arc::clone(&after));
        for (_, gone) in before.iter().filter(|(node, _)| !after.contains_key(node)) {
            gone.retire("the node is no longer a member");
        }
        for (_, new) in after.iter().filter(|(node, _)| !before.contains_key(node)) {
            self.inner.begin(new);
        }
    }

    /// What is known of each peer, by node.
    #[must_use]
    pub fn status(&self) -> Vec<PeerStatus> {
        self.inner.peers.load().values().map(|peer| peer.status()).collect()
    }

    /// Ends every link, closes the peer port and waits for the transport's tasks, at most half a second
    /// for those that a peer holds up. The handler hears `disconnected` of each link before this returns
    /// and nothing after.
    pub async fn shutdown(mut self) {
        self.stop_all("this node shuts down");
        let tasks = async {
            // No task sends: receiving ends when the last has dropped its end.
            while self.ended.recv().await.is_some() {}
            (&mut self.serving).await
        };
        if timeout(SHUTDOWN_GRACE, tasks).await.is_err() {
            tracing::debug!("a peer did not end its streams in time; they are dropped");
        }
    }

    fn stop_all(&self, why: &str) {
        self.inner.alive.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.stop.send_replace(true);
        for peer in self.inner.peers.load().values() {
            peer.retire(why);
        }
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        self.stop_all("this node shuts down");
        self.serving.abort();
    }
}

impl Inner {
    fn new_peer(self: &Arc<Self>, node: NodeId, address: String) -> Arc<Peer> {
        let address = Arc::new(address);
        Peer::new(PeerParts {
            node,
            address,
            calls: self.call_channel(node),
            answering_max: self.limits.calls_in_flight_max,
            handler: Arc::clone(&self.handler),
        })
    }

    /// A channel that connects to the peer's present address when it is first used, and again whenever
    /// its connection was lost.
    fn call_channel(self: &Arc<Self>, node: NodeId) -> Channel {
        let weak = Arc::downgrade(self);
        let connector = tower::service_fn(move |_| {
            let weak = weak.clone();
            async move {
                let gone = || LinkFault::Lost { reason: "the node is no longer a member".to_owned() };
                let inner = weak.upgrade().ok_or_else(gone)?;
                let peer = inner.peer(node).ok_or_else(gone)?;
                link::connect(&inner, &peer).await.map(TokioIo::new)
            }
        });
        link::endpoint(&self.limits).connect_with_connector_lazy(connector)
    }

    /// Begins to reach a new peer: opens the link, or asks the peer to.
    fn begin(self: &Arc<Self>, peer: &Arc<Peer>) {
        let (inner, peer) = (Arc::clone(self), Arc::clone(peer));
        if self.ourselves.node < peer.node {
            self.spawn(link::keep(inner, peer));
        } else {
            self.spawn(call::knock(inner, peer));
        }
    }
}

async fn serve(inner: Arc<Inner>, incoming: Incoming, mut stop: watch::Receiver<bool>) {
    let router = server(&inner.limits).add_service(Service::limited(inner));
    let stopped = async move {
        // An error means that the transport was dropped, which stops as well.
        drop(stop.wait_for(|stop| *stop).await);
    };
    if let Err(error) = router.serve_with_incoming_shutdown(incoming, stopped).await {
        tracing::error!("the peer port is closed: {error}; restart the node");
    }
}

/// The certificate must be this node's, or every peer would refuse it.
fn check_identity(config: &TransportConfig) -> Result<(), TransportError> {
    let expected = PeerIdentity { cluster: config.cluster, subject: Subject::Node(config.node) };
    let found = config.tls.identity();
    if *found == expected {
        return Ok(());
    }
    Err(TransportError::WrongCertificate { found: found.to_string(), expected: expected.to_string() })
}
