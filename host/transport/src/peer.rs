//! One peer: its address, its link if there is one, and what was counted.
//!
//! Relies on the handler of the node above. Promises for each node that the handler hears `connected`,
//! then `receive` any number of times, then `disconnected`, never two of them at once, and nothing of an
//! older link after a newer one began. Opens no connection.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use quorate_types::{BootNumber, NodeId};
use tokio::sync::{Notify, Semaphore, watch};
use tonic::transport::Channel;

use crate::Handler;
use crate::error::{LinkFault, SendError};
use crate::queue::{Queue, Refused};

/// What a transport says of one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// The peer.
    pub node: NodeId,
    /// Where it is looked for.
    pub address: String,
    /// The boot number it told, while there is a link.
    pub connected: Option<BootNumber>,
    /// Why there was no link at the last attempt; cleared by the next link.
    pub fault: Option<LinkFault>,
    /// Frames that wait to be written.
    pub queued_frames: usize,
    /// Bytes that wait to be written.
    pub queued_bytes: usize,
    /// Links since this node's start.
    pub links: u64,
    /// Frames queued since this node's start.
    pub frames_sent: u64,
    /// Bytes queued since this node's start.
    pub bytes_sent: u64,
    /// Frames received since this node's start.
    pub frames_received: u64,
    /// Bytes received since this node's start.
    pub bytes_received: u64,
}

#[derive(Debug, Default)]
struct Counters {
    links: AtomicU64,
    frames_sent: AtomicU64,
    bytes_sent: AtomicU64,
    frames_received: AtomicU64,
    bytes_received: AtomicU64,
}

/// A link that is up.
#[derive(Debug)]
struct Link {
    queue: Arc<Queue>,
    boot: BootNumber,
    /// Tells the reader that the link was ended from elsewhere.
    ended: Notify,
}

/// One member of the cluster other than this node.
pub(crate) struct Peer {
    pub(crate) node: NodeId,
    /// Where it is looked for; may change while there is a link.
    pub(crate) address: ArcSwap<String>,
    /// The connection for calls; opened by the first call.
    pub(crate) calls: Channel,
    /// How many calls of this peer may still be answered at the same time.
    pub(crate) answering: Arc<Semaphore>,
    /// Ends the wait before the next attempt to reach the peer.
    pub(crate) wake: Notify,
    handler: Arc<dyn Handler>,
    /// The link that is up; changes only while `turn` is held.
    link: ArcSwapOption<Link>,
    /// Held while the handler hears of this peer. True once the peer is no longer a member.
    turn: Mutex<bool>,
    /// True once the peer is no longer a member.
    retired: watch::Sender<bool>,
    fault: ArcSwapOption<LinkFault>,
    counters: Counters,
}

/// What a peer is made of.
pub(crate) struct PeerParts {
    pub(crate) node: NodeId,
    pub(crate) address: Arc<String>,
    pub(crate) calls: Channel,
    pub(crate) answering_max: usize,
    pub(crate) handler: Arc<dyn Handler>,
}

impl Peer {
    pub(crate) fn new(parts: PeerParts) -> Arc<Self> {
        Arc::new(Self {
            node: parts.node,
            address: ArcSwap::new(parts.address),
            calls: parts.calls,
            answering: Arc::new(Semaphore::new(parts.answering_max)),
            wake: Notify::new(),
            handler: parts.handler,
            link: ArcSwapOption::empty(),
            turn: Mutex::new(false),
            retired: watch::Sender::new(false),
            fault: ArcSwapOption::empty(),
            counters: Counters::default(),
        })
    }

    /// Queues a frame on the link.
    pub(crate) fn send(&self, frame: Bytes) -> Result<(), SendError> {
        let to = self.node;
        let link = self.link.load();
        let Some(link) = link.as_ref() else { return Err(SendError::NotConnected { to }) };
        let len = frame.len() as u64;
        link.queue.push(frame).map_err(|refused| match refused {
            Refused::Full => SendError::Full { to },
            Refused::Closed => SendError::NotConnected { to },
        })?;
        self.counters.frames_sent.fetch_add(1, Ordering::Relaxed);
        self.counters.bytes_sent.fetch_add(len, Ordering::Relaxed);
        Ok(())
    }

    /// Makes `queue` the peer's link, in place of an older one; none if the peer is retired.
    pub(crate) fn begin(self: &Arc<Self>, queue: Arc<Queue>, boot: BootNumber) -> Option<Session> {
        let turn = self.turn();
        if *turn {
            return None;
        }
        self.end_link("a newer link took its place");
        let link = Arc::new(Link { queue, boot, ended: Notify::new() });
        self.link.store(Some(Arc::clone(&link)));
        self.fault.store(None);
        self.counters.links.fetch_add(1, Ordering::Relaxed);
        self.handler.connected(self.node);
        drop(turn);
        Some(Session { peer: Arc::clone(self), link, why: "the stream was dropped".to_owned() })
    }

    /// Ends the link, and every later attempt at one.
    pub(crate) fn retire(&self, why: &str) {
        let mut turn = self.turn();
        *turn = true;
        // Before the link ends, so that whoever reads from it does not open it again; under the turn, so
        // that nothing else ends it for another reason.
        self.retired.send_replace(true);
        self.end_link(why);
    }

    /// Ends the link if the peer was started anew since: its end of that link no longer exists.
    pub(crate) fn end_older(&self, boot: BootNumber) {
        let _turn = self.turn();
        if self.link.load().as_ref().is_some_and(|link| link.boot < boot) {
            self.end_link("the peer was started anew");
        }
    }

    /// Completes when the peer is no longer a member.
    pub(crate) async fn retirement(&self) {
        let mut retired = self.retired.subscribe();
        // The sender lives in this peer, so waiting ends only by the value.
        if retired.wait_for(|retired| *retired).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.link.load().is_some()
    }

    /// Keeps why there is no link. True if the reason is another than before.
    pub(crate) fn note(&self, fault: LinkFault) -> bool {
        let before = self.fault.swap(Some(Arc::new(fault.clone())));
        before.is_none_or(|before| *before != fault)
    }

    pub(crate) fn status(&self) -> PeerStatus {
        let link = self.link.load();
        let (queued_frames, queued_bytes) = link.as_ref().map(|link| link.queue.len()).unwrap_or_default();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PeerStatus {
            node: self.node,
            address: self.address.load().to_string(),
            connected: link.as_ref().map(|link| link.boot),
            fault: self.fault.load_full().map(|fault| (*fault).clone()),
            queued_frames,
            queued_bytes,
            links: count(&self.counters.links),
            frames_sent: count(&self.counters.frames_sent),
            bytes_sent: count(&self.counters.bytes_sent),
            frames_received: count(&self.counters.frames_received),
            bytes_received: count(&self.counters.bytes_received),
        }
    }

    fn turn(&self) -> MutexGuard<'_, bool> {
        // A handler that panicked has ended its own task; the link's bookkeeping is not touched by it.
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the link that is up, if any. The caller holds the turn.
    fn end_link(&self, why: &str) {
        if let Some(link) = self.link.swap(None) {
            link.queue.close();
            link.ended.notify_one();
            self.handler.disconnected(self.node, why);
        }
    }
}

/// The right to hand on what arrives on one link; dropping it ends the link.
pub(crate) struct Session {
    peer: Arc<Peer>,
    link: Arc<Link>,
    /// Told to the handler when the link ends.
    why: String,
}

/// A newer link took the place of this one, or it was ended from elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended;

impl Session {
    /// Hands frames to the handler.
    pub(crate) fn receive(&self, frames: Vec<Bytes>) -> Result<(), Ended> {
        let _turn = self.peer.turn();
        if !self.is_current() {
            return Err(Ended);
        }
        let bytes: usize = frames.iter().map(Bytes::len).sum();
        let counters = &self.peer.counters;
        counters.frames_received.fetch_add(frames.len() as u64, Ordering::Relaxed);
        counters.bytes_received.fetch_add(bytes as u64, Ordering::Relaxed);
        self.peer.handler.receive(self.peer.node, frames);
        Ok(())
    }

    /// Completes when the link was ended from elsewhere.
    pub(crate) async fn ended(&self) {
        self.link.ended.notified().await;
    }

    /// Ends the link for a reason.
    pub(crate) fn end(mut self, why: String) {
        self.why = why;
    }

    fn is_current(&self) -> bool {
        self.peer.link.load().as_ref().is_some_and(|link| Arc::ptr_eq(link, &self.link))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.link.queue.close();
        let _turn = self.peer.turn();
        if self.is_current() {
            self.peer.end_link(&self.why);
        }
    }
}
