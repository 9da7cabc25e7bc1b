//! The link to one peer: opening it, reading from it, and opening it again.
//!
//! Relies on the peer for bookkeeping and on TLS for identity. Promises one link at a time, a short
//! first retry and growing, spread delays after it. Knows no frame's meaning.
//!
//! ```text
//!            +--------- wait (retry_delay_min .. retry_delay_max, or until woken) <--------+
//!            v                                                                             |
//!   TLS as node-<id> -> HTTP/2 -> Link -> our hello -> their hello -> frames both ways -> lost
//! ```

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use quorate_types::NodeId;
use tokio::time::{Instant, timeout};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

use crate::config::{FRAMES_PER_MESSAGE_MAX, TransportLimits};
use crate::error::LinkFault;
use crate::hello::{Refusal, RefusalCode};
use crate::peer::{Peer, Session};
use crate::pki::node_name;
use crate::proto::link_message::Content;
use crate::proto::peer_client::PeerClient;
use crate::proto::{Frames, LinkMessage};
use crate::queue::{Outbound, Queue};
use crate::tls::{AlertTap, ClientConn, fault_of_tls};
use crate::transport::Inner;

/// The authority of every request. TLS names the peer; this name is never looked up. The scheme is that
/// of an endpoint whose connector has done TLS already.
const ORIGIN: &str = "http://peer.quorate";

/// Keeps the link to one peer up until the peer is retired.
pub(crate) async fn keep(inner: Arc<Inner>, peer: Arc<Peer>) {
    tokio::select! {
        biased;
        () = peer.retirement() => {}
        () = keep_forever(&inner, &peer) => {}
    }
}

async fn keep_forever(inner: &Inner, peer: &Arc<Peer>) {
    let mut failures: u32 = 0;
    loop {
        let begun = Instant::now();
        let fault = open(inner, peer).await;
        // A link that is lost as soon as it is up counts as a failure, or two nodes that disagree would
        // open links without pause.
        if matches!(fault, LinkFault::Lost { .. }) && begun.elapsed() >= inner.limits.retry_delay_max {
            failures = 0;
        }
        let delay = match &fault {
            // What needs an operator does not change within milliseconds.
            LinkFault::Refused(refusal) | LinkFault::Disagrees(refusal)
                if refusal.code != RefusalCode::Stopping =>
            {
                inner.limits.retry_delay_max
            }
            _ => retry_delay(&inner.limits, inner.ourselves.node, peer.node, failures),
        };
        if peer.note(fault.clone()) {
            tracing::warn!(peer = %peer.node, "no link to node {}: {fault}", peer.node);
        }
        failures = failures.saturating_add(1);
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = peer.wake.notified() => {}
        }
    }
}

/// Opens the link and reads from it until it is lost.
async fn open(inner: &Inner, peer: &Arc<Peer>) -> LinkFault {
    match greet(inner, peer).await {
        Ok(opened) => {
            let reason = read(&inner.limits, opened.session, opened.inbound).await;
            // Dropping the client closes the connection, so it lives as long as the stream.
            drop(opened.client);
            LinkFault::Lost { reason }
        }
        Err(fault) => fault,
    }
}

/// A link whose peer sent a fitting hello.
struct Opened {
    session: Session,
    inbound: Streaming<LinkMessage>,
    client: PeerClient<Channel>,
}

/// Opens the link up to the peer's hello.
async fn greet(inner: &Inner, peer: &Arc<Peer>) -> Result<Opened, LinkFault> {
    let address = peer.address.load_full();
    let limits = &inner.limits;
    let connection = connect(inner, peer).await?;
    let tap = connection.tap();
    let expected = node_name(inner.ourselves.cluster, peer.node);
    let fault = |status: Status| fault_of_status(&address, &expected, &tap, &status);
    let channel = within(limits.hello_timeout, &address, channel(limits, connection)).await?;
    let channel = channel.map_err(|error| fault(Status::from_error(Box::new(error))))?;
    let queue = Queue::new(inner.ourselves.hello(peer.node), limits);
    let mut client = PeerClient::new(channel)
        .max_decoding_message_size(limits.decode_bytes_max())
        .max_encoding_message_size(limits.decode_bytes_max());
    let outbound = Request::new(Outbound::new(Arc::clone(&queue)));
    let response = within(limits.hello_timeout, &address, client.link(outbound)).await?;
    let mut inbound = response.map_err(&fault)?.into_inner();
    let first = within(limits.hello_timeout, &address, inbound.message()).await?.map_err(&fault)?;
    let first = first.ok_or_else(|| LinkFault::Lost { reason: "the peer ended the stream".to_owned() })?;
    let Some(Content::Hello(hello)) = first.content else {
        return Err(LinkFault::Disagrees(Refusal::new(
            RefusalCode::Malformed,
            format!("node {} did not open with a hello; run the same version", peer.node),
        )));
    };
    let greeted = inner.ourselves.check(&hello, peer.node).map_err(LinkFault::Disagrees)?;
    let session = peer.begin(queue, greeted.boot);
    let session =
        session.ok_or_else(|| LinkFault::Lost { reason: "the peer is no longer a member".to_owned() })?;
    tracing::info!(peer = %peer.node, boot = greeted.boot.0, "linked to node {}", peer.node);
    Ok(Opened { session, inbound, client })
}

/// Opens a TLS connection to the peer.
pub(crate) async fn connect(inner: &Inner, peer: &Peer) -> Result<ClientConn, LinkFault> {
    let address = peer.address.load_full();
    let connection = inner.tls.connect_to_node(&address, peer.node);
    within(inner.limits.connect_timeout, &address, connection).await?
}

/// Begins HTTP/2 on a connection.
async fn channel(
    limits: &TransportLimits,
    connection: ClientConn,
) -> Result<Channel, tonic::transport::Error> {
    let once = Mutex::new(Some(connection));
    let connector = tower::service_fn(move |_| {
        let connection = once.lock().unwrap_or_else(PoisonError::into_inner).take();
        // When the connection is lost the link is opened anew from the start, never below the hello.
        let spent = || std::io::Error::new(std::io::ErrorKind::NotConnected, "the connection was lost");
        std::future::ready(connection.map(TokioIo::new).ok_or_else(spent))
    });
    endpoint(limits).connect_with_connector(connector).await
}

/// How HTTP/2 is spoken by the end that opens a connection.
pub(crate) fn endpoint(limits: &TransportLimits) -> Endpoint {
    Endpoint::from_static(ORIGIN)
        .initial_stream_window_size(limits.stream_window_bytes)
        .initial_connection_window_size(limits.connection_window_bytes)
        .http2_adaptive_window(false)
        .max_frame_size(limits.http_frame_bytes_max)
        .http2_max_header_list_size(limits.header_list_bytes_max)
        .http2_max_local_error_reset_streams(limits.reset_streams_max)
        .http2_keep_alive_interval(limits.keepalive_interval)
        .keep_alive_timeout(limits.keepalive_timeout)
        .keep_alive_while_idle(true)
}

/// Hands on what arrives until the stream ends; returns why it ended.
pub(crate) async fn read(
    limits: &TransportLimits,
    session: Session,
    mut inbound: Streaming<LinkMessage>,
) -> String {
    let why = loop {
        let message = tokio::select! {
            () = session.ended() => break "it was ended here".to_owned(),
            message = inbound.message() => message,
        };
        let frames = match message {
            Ok(Some(message)) => checked(limits, message),
            Ok(None) => break "the peer ended the stream".to_owned(),
            Err(status) => break brief(&status),
        };
        match frames.map(|frames| session.receive(frames)) {
            Ok(Ok(())) => {}
            Ok(Err(_)) => break "a newer link took its place".to_owned(),
            Err(reason) => break reason,
        }
    };
    session.end(why.clone());
    why
}

/// The frames of a message, if it is one that the protocol allows here. Each gets memory of its own: what it says may
/// be kept for long, and would hold a receive buffer that has room for more.
fn checked(limits: &TransportLimits, message: LinkMessage) -> Result<Vec<bytes::Bytes>, String> {
    let Some(Content::Frames(Frames { frames })) = message.content else {
        return Err("the peer sent something other than frames".to_owned());
    };
    if frames.len() > FRAMES_PER_MESSAGE_MAX {
        return Err(format!("the peer sent {} frames at once", frames.len()));
    }
    match frames.iter().find(|frame| frame.is_empty() || frame.len() > limits.frame_bytes_max) {
        Some(frame) => Err(format!("the peer sent a frame of {} bytes", frame.len())),
        None => Ok(frames.iter().map(|frame| bytes::Bytes::copy_from_slice(frame)).collect()),
    }
}

/// Waits no longer than `allowed`.
pub(crate) async fn within<F: Future>(
    allowed: Duration,
    address: &str,
    future: F,
) -> Result<F::Output, LinkFault> {
    timeout(allowed, future).await.map_err(|_| LinkFault::TimedOut { address: address.to_owned() })
}

/// Sorts a failed call by who has to do something about it.
pub(crate) fn fault_of_status(address: &str, expected: &str, tap: &AlertTap, status: &Status) -> LinkFault {
    if let Some(refusal) = Refusal::from_status(status) {
        return LinkFault::Refused(refusal);
    }
    match tap.error() {
        Some(error) => fault_of_tls(address, expected, error),
        None => LinkFault::Lost { reason: brief(status) },
    }
}

/// A status with its innermost cause, as one short line: part of it came from outside.
fn brief(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        text = error.to_string();
        cause = error.source();
    }
    if text.is_empty() {
        text = status.code().to_string();
    }
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// The delay before attempt `failures + 1`: doubles up to the longest, then shortened by up to half. The
/// spread comes from the pair and the attempt, so that nodes which lost one peer at the same moment do
/// not return at the same moment, without a source of randomness.
fn retry_delay(limits: &TransportLimits, us: NodeId, peer: NodeId, failures: u32) -> Duration {
    let doubled = limits.retry_delay_min.saturating_mul(1 << failures.min(20));
    let longest = doubled.min(limits.retry_delay_max);
    let mut mixed = us.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ peer.0.rotate_left(32) ^ u64::from(failures);
    // The finalizer of SplitMix64 (Steele et al. 2014): every input bit reaches every output bit.
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let share = f64::from((mixed >> 40) as u32) / f64::from(1_u32 << 24);
    longest.mul_f64(1.0 - share / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_start_short_grow_to_the_bound_and_differ_between_pairs() {
        let limits = TransportLimits::default();
        let delay = |us, failures| retry_delay(&limits, NodeId(us), NodeId(9), failures);
        assert!(delay(1, 0) <= limits.retry_delay_min);
        for failures in 0..64 {
            let longest = limits.retry_delay_min.saturating_mul(1 << failures.min(20));
            let longest = longest.min(limits.retry_delay_max);
            assert!(delay(1, failures) <= longest && delay(1, failures) >= longest / 2, "{failures}");
        }
        assert_ne!(delay(1, 30), delay(2, 30));
    }

    #[test]
    fn messages_other_than_well_formed_frames_are_refused() {
        let limits = TransportLimits { frame_bytes_max: 4, ..TransportLimits::default() };
        let check = |frames: Vec<&'static [u8]>| {
            let frames = frames.into_iter().map(bytes::Bytes::from_static).collect();
            checked(&limits, LinkMessage { content: Some(Content::Frames(Frames { frames })) }).is_ok()
        };
        assert!(check(vec![b"abcd", b"e"]));
        assert!(!check(vec![b"abcde"]));
        assert!(!check(vec![b"a", b""]));
        assert!(!check(vec![b"a"; FRAMES_PER_MESSAGE_MAX + 1]));
        assert!(checked(&limits, LinkMessage { content: None }).is_err());
    }
}
