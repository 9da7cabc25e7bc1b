//! A cluster's authority, nodes that record what they hear, and a peer that may say anything.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use hyper_util::rt::TokioIo;
use quorate_transport::pki::{Authority, Credentials};
use quorate_transport::proto::peer_client::PeerClient;
use quorate_transport::proto::{self, link_message::Content};
use quorate_transport::{BoxFuture, Handler, LinkFault, Tls, Transport, TransportConfig, TransportLimits};
use quorate_types::{BootNumber, ClusterId, Digest, NodeId};
use tokio::sync::{Semaphore, mpsc};
use tonic::transport::{Channel, Endpoint};

/// Longer than anything here takes; only a failure waits for it.
pub const PATIENCE: Duration = Duration::from_secs(20);
pub const CLUSTER: ClusterId = ClusterId([0xc1; 16]);
pub const GENESIS: Digest = Digest([0x9e; 32]);

/// What a handler heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Connected(NodeId),
    Disconnected(NodeId, String),
    Frames(NodeId, Vec<Bytes>),
}

/// Records events; answers calls by echoing them, with a few words that mean something.
pub struct Recorder {
    events: mpsc::UnboundedSender<Event>,
    /// While held, receiving waits: a slow receiver.
    pub gate: Mutex<()>,
    /// A call of `wait` is answered when it gets a permit.
    pub release: Arc<Semaphore>,
    /// One permit for each call that has begun.
    pub begun: Arc<Semaphore>,
}

impl Recorder {
    fn tell(&self, event: Event) {
        // The test may be over and no longer listen.
        drop(self.events.send(event));
    }
}

impl Handler for Recorder {
    fn receive(&self, from: NodeId, frames: Vec<Bytes>) {
        drop(self.gate.lock().unwrap());
        self.tell(Event::Frames(from, frames));
    }

    fn connected(&self, peer: NodeId) {
        self.tell(Event::Connected(peer));
    }

    fn disconnected(&self, peer: NodeId, why: &str) {
        self.tell(Event::Disconnected(peer, why.to_owned()));
    }

    fn serve(&self, from: NodeId, request: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        let (release, begun) = (Arc::clone(&self.release), Arc::clone(&self.begun));
        Box::pin(async move {
            begun.add_permits(1);
            match request.as_ref() {
                b"fail" => Err("no such snapshot".to_owned()),
                b"wait" => {
                    release.acquire().await.unwrap().forget();
                    Ok(request)
                }
                b"who" => Ok(Bytes::from(from.to_string())),
                _ => Ok(request),
            }
        })
    }
}

/// A running node of a test.
pub struct Node {
    pub id: NodeId,
    pub transport: Transport,
    pub recorder: Arc<Recorder>,
    pub tls: Tls,
    events: mpsc::UnboundedReceiver<Event>,
}

impl Node {
    pub fn address(&self) -> String {
        self.transport.local_address().to_string()
    }

    /// The next event.
    pub async fn next(&mut self) -> Event {
        let event = tokio::time::timeout(PATIENCE, self.events.recv()).await;
        event
            .unwrap_or_else(|_| panic!("node {} heard nothing; {:?}", self.id, self.transport.status()))
            .unwrap()
    }

    pub async fn connected_to(&mut self, peer: u64) {
        assert_eq!(self.next().await, Event::Connected(NodeId(peer)));
    }

    /// Why the link to `peer`, which must be the next event, was lost.
    pub async fn disconnected_from(&mut self, peer: u64) -> String {
        match self.next().await {
            Event::Disconnected(node, why) if node == NodeId(peer) => why,
            other => panic!("expected the loss of node {peer}, heard {other:?}"),
        }
    }

    /// The next `count` frames from `peer`.
    pub async fn frames_from(&mut self, peer: u64, count: usize) -> Vec<Bytes> {
        let mut all = Vec::new();
        while all.len() < count {
            match self.next().await {
                Event::Frames(node, frames) if node == NodeId(peer) => all.extend(frames),
                other => panic!("expected frames of node {peer}, heard {other:?}"),
            }
        }
        assert_eq!(all.len(), count);
        all
    }

    pub fn send(&self, to: u64, frame: &'static [u8]) {
        self.transport.send(NodeId(to), Bytes::from_static(frame)).unwrap();
    }

    pub fn know(&self, peers: &[(u64, String)]) {
        self.transport.set_peers(peers.iter().map(|(id, at)| (NodeId(*id), at.clone())).collect());
    }

    pub async fn ask(
        &self,
        to: u64,
        request: &'static [u8],
    ) -> Result<Bytes, quorate_transport::RequestError> {
        self.transport.request(NodeId(to), Bytes::from_static(request), PATIENCE).await
    }

    /// Why there is no link to `peer`, once `expected` holds of it.
    pub async fn fault(&self, peer: u64, expected: impl Fn(&LinkFault) -> bool) -> LinkFault {
        let search = async {
            loop {
                let status = self.transport.status();
                let status = status.into_iter().find(|status| status.node == NodeId(peer));
                if let Some(fault) = status.and_then(|status| status.fault).filter(|fault| expected(fault)) {
                    return fault;
                }
                tokio::task::yield_now().await;
            }
        };
        let found = tokio::time::timeout(PATIENCE, search).await;
        found.unwrap_or_else(|_| panic!("{:?}", self.transport.status()))
    }
}

/// What a node is started with; the rest has a default.
pub struct Plan {
    pub credentials: Credentials,
    pub genesis: Digest,
    pub boot: u64,
    pub listen: SocketAddr,
    pub peers: BTreeMap<NodeId, String>,
    pub limits: TransportLimits,
}

impl Plan {
    pub fn new(authority: &Authority, id: u64) -> Self {
        Self {
            credentials: authority.issue_node(NodeId(id), &[]).unwrap(),
            genesis: GENESIS,
            boot: 1,
            listen: own_loopback(),
            peers: BTreeMap::new(),
            limits: TransportLimits::default(),
        }
    }

    pub async fn start(self) -> Node {
        let tls = Tls::from_pem(&self.credentials.to_tls_pem()).unwrap();
        let id = tls.identity().node().unwrap();
        let (sender, events) = mpsc::unbounded_channel();
        let recorder = Arc::new(Recorder {
            events: sender,
            gate: Mutex::new(()),
            release: Arc::new(Semaphore::new(0)),
            begun: Arc::new(Semaphore::new(0)),
        });
        let config = TransportConfig {
            node: id,
            cluster: CLUSTER,
            genesis: self.genesis,
            boot: BootNumber(self.boot),
            listen: self.listen,
            peers: self.peers,
            tls: tls.clone(),
            limits: self.limits,
        };
        let handler: Arc<dyn Handler> = Arc::clone(&recorder) as Arc<dyn Handler>;
        let transport = Transport::start(config, handler).await.unwrap();
        Node { id, transport, recorder, tls, events }
    }
}

/// A loopback address that nothing else uses, and any port. On a shared one, the port of a node that is
/// down for a moment could become the near end of somebody's connection.
fn own_loopback() -> SocketAddr {
    static NODES: AtomicU32 = AtomicU32::new(1);
    let process = std::process::id();
    let part = |value: u32| u8::try_from(1 + value % 250).unwrap();
    let node = NODES.fetch_add(1, Ordering::Relaxed);
    SocketAddr::from(([127, part(process), part(process / 250), part(node)], 0))
}

pub fn authority() -> Authority {
    Authority::create(CLUSTER).unwrap()
}

/// Nodes 1 to `count`, each linked to all others.
pub async fn linked(authority: &Authority, count: u64) -> Vec<Node> {
    linked_with(authority, count, TransportLimits::default()).await
}

/// [`linked`] with limits.
pub async fn linked_with(authority: &Authority, count: u64, limits: TransportLimits) -> Vec<Node> {
    let mut nodes = Vec::new();
    for id in 1..=count {
        nodes.push(Plan { limits, ..Plan::new(authority, id) }.start().await);
    }
    let addresses: Vec<_> = nodes.iter().map(|node| (node.id.0, node.address())).collect();
    for node in &nodes {
        node.know(&addresses);
    }
    for node in &mut nodes {
        for _ in 1..count {
            assert!(matches!(node.next().await, Event::Connected(_)));
        }
    }
    nodes
}

/// A peer that has a certificate and may say anything.
pub struct Stranger {
    pub client: PeerClient<Channel>,
    pub node: u64,
}

impl Stranger {
    /// Opens a connection with `tls` to `target`.
    pub async fn connect(tls: &Tls, target: &Node) -> Result<Self, LinkFault> {
        let connection = tls.connect_to_node(&target.address(), target.id).await?;
        let once = Mutex::new(Some(connection));
        let connector = tower::service_fn(move |_| {
            let connection = once.lock().unwrap().take();
            std::future::ready(connection.map(TokioIo::new).ok_or_else(|| std::io::Error::other("lost")))
        });
        let channel = Endpoint::from_static("http://peer.quorate").connect_with_connector(connector).await;
        let node = tls.identity().node().map(|node| node.0).unwrap_or_default();
        Ok(Self { client: PeerClient::new(channel.unwrap()), node })
    }

    /// A hello to `receiver` that passes every check.
    pub fn hello(&self, receiver: u64) -> proto::Hello {
        proto::Hello {
            version: quorate_transport::PROTOCOL_VERSION,
            cluster: Bytes::copy_from_slice(&CLUSTER.0),
            genesis: Bytes::copy_from_slice(&GENESIS.0),
            node: self.node,
            receiver,
            boot: 1,
        }
    }

    /// Opens a link with these messages and keeps it open until the sender is dropped.
    pub async fn link(
        &mut self,
        messages: Vec<proto::LinkMessage>,
    ) -> Result<(tonic::Streaming<proto::LinkMessage>, mpsc::Sender<proto::LinkMessage>), tonic::Status> {
        let (keep, stream) = mpsc::channel(messages.len().max(1));
        for message in messages {
            keep.send(message).await.unwrap();
        }
        let stream = tokio_stream::wrappers::ReceiverStream::new(stream);
        let response = tokio::time::timeout(PATIENCE, self.client.link(stream)).await.unwrap()?;
        Ok((response.into_inner(), keep))
    }
}

pub fn hello_message(hello: proto::Hello) -> proto::LinkMessage {
    proto::LinkMessage { content: Some(Content::Hello(hello)) }
}

pub fn frames_message(frames: Vec<Bytes>) -> proto::LinkMessage {
    proto::LinkMessage { content: Some(Content::Frames(proto::Frames { frames })) }
}
