//! One node as the client reaches it: its connections and links, opened when they are needed.
//!
//! Relies on the dialer. Promises for each slot at most one connection for calls and one link, and a new
//! link after one has ended. Knows no group.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use hyper_util::rt::TokioIo;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};

use crate::config::ClientConfig;
use crate::error::Error;
use crate::link::{Link, LinkBounds, Road};
use crate::tls::{Dialer, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, Peer, TlsFault};

/// Bytes a node may send on one stream before the client has read them.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
/// The same for all streams of one connection.
const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;
/// The greatest HTTP/2 frame that is accepted; larger ones cost fewer wake-ups.
const HTTP_FRAME_BYTES_MAX: u32 = 256 << 10;
/// The greatest header list that is accepted, in bytes; an error message is a header.
const HEADER_LIST_BYTES_MAX: u32 = 64 << 10;
/// Calls this side gave up that the node has not heard of yet; more end the connection.
const RESET_STREAMS_MAX: usize = 65_536;

/// One node.
pub(crate) struct Node {
    peer: Peer,
    dialer: Arc<Dialer>,
    config: Arc<ClientConfig>,
    slots: Vec<Slot>,
    fault: Arc<TlsFault>,
}

#[derive(Default)]
struct Slot {
    channel: OnceLock<Channel>,
    link: Mutex<Option<Arc<Link>>>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Node {
    /// A node at an address that was found valid. Opens nothing.
    pub(crate) fn new(peer: Peer, dialer: Arc<Dialer>, config: Arc<ClientConfig>) -> Self {
        let slots = (0..config.connections).map(|_| Slot::default()).collect();
        Self { peer, dialer, config, slots, fault: Arc::default() }
    }

    pub(crate) fn address(&self) -> &str {
        &self.peer.address
    }

    /// The connection of a slot; it is opened by the first call, and again after it was lost.
    pub(crate) fn channel(&self, slot: usize) -> Channel {
        let slot = &self.slots[slot % self.slots.len()];
        slot.channel.get_or_init(|| self.connect_lazily()).clone()
    }

    /// The link of a slot; a new one if there was none or it has ended.
    pub(crate) fn link(&self, slot: usize) -> Arc<Link> {
        let mut link =
            self.slots[slot % self.slots.len()].link.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = link.as_ref().filter(|link| !link.is_closed()) {
            return Arc::clone(open);
        }
        let bounds = LinkBounds {
            in_flight_max: self.config.in_flight_max,
            queued_bytes_max: self.config.queued_bytes_max,
        };
        let road = Road {
            dialer: Arc::clone(&self.dialer),
            peer: self.peer.clone(),
            connect_timeout: self.config.connect_timeout,
            channel: self.channel(slot),
            fault: Arc::clone(&self.fault),
        };
        let opened = Link::open(road, bounds);
        *link = Some(Arc::clone(&opened));
        opened
    }

    /// Why TLS with this node failed, if it did.
    pub(crate) fn tls_error(&self) -> Option<Error> {
        self.fault.get().map(|reason| Error::Tls { reason: format!("{}: {reason}", self.peer.address) })
    }

    /// The node answered a call.
    pub(crate) fn heard(&self) {
        self.fault.clear();
    }

    fn connect_lazily(&self) -> Channel {
        let (dialer, fault) = (Arc::clone(&self.dialer), Arc::clone(&self.fault));
        let (peer, allowed) = (self.peer.clone(), self.config.connect_timeout);
        let connector = tower::service_fn(move |_: Uri| {
            let (dialer, fault, peer) = (Arc::clone(&dialer), Arc::clone(&fault), peer.clone());
            async move {
                let dialled = tokio::time::timeout(allowed, dialer.dial(&peer, &fault)).await;
                dialled.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())).map(TokioIo::new)
            }
        });
        // The connector has done TLS by itself, so the scheme is the plain one.
        Endpoint::from_shared(format!("http://{}", self.peer.address))
            .expect("an address that was found valid makes a URI")
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(HTTP_FRAME_BYTES_MAX)
            .http2_max_header_list_size(HEADER_LIST_BYTES_MAX)
            .http2_max_local_error_reset_streams(RESET_STREAMS_MAX)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .connect_with_connector_lazy(connector)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for slot in &mut self.slots {
            let link = slot.link.get_mut().unwrap_or_else(PoisonError::into_inner);
            if let Some(link) = link.take() {
                link.close();
            }
        }
    }
}
