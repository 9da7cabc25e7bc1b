//! What a transport is started with, and every bound it keeps.
//!
//! Relies on the shared identities. Promises that limits which passed [`TransportLimits::validate`] fit
//! together. Knows no configuration file.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use quorate_types::{BootNumber, ClusterId, Digest, NodeId};

use crate::TransportError;
use crate::tls::{AcceptLimits, Tls};

/// The most frames in one gRPC message. Bounds what decoding one message allocates beside its bytes.
pub const FRAMES_PER_MESSAGE_MAX: usize = 4_096;

/// What protobuf adds to a message at most: a tag and a length for each frame and some for the rest.
pub(crate) const MESSAGE_OVERHEAD_BYTES: usize = FRAMES_PER_MESSAGE_MAX * 8 + 1_024;

/// What one node's transport is started with.
#[derive(Clone, Debug)]
pub struct TransportConfig {
    /// This node.
    pub node: NodeId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Digest of the cluster's genesis; nodes with another one are refused.
    pub genesis: Digest,
    /// How often this node was started; told to peers.
    pub boot: BootNumber,
    /// Where to accept peers. Port 0 takes a free one; see [`crate::Transport::local_address`].
    pub listen: SocketAddr,
    /// The members and where they listen, each as `host:port`. This node itself may be among them.
    pub peers: BTreeMap<NodeId, String>,
    /// Certificate, key and authority of this node.
    pub tls: Tls,
    /// Bounds.
    pub limits: TransportLimits,
}

/// Bounds of a transport. The default suits a cluster in one data centre.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransportLimits {
    /// The most frames queued to one peer; above, sending is refused.
    pub frames_queued_max: usize,
    /// The most bytes queued to one peer; above, sending is refused. At least one greatest frame.
    pub bytes_queued_max: usize,
    /// The greatest frame, in bytes; above the greatest log entry with what surrounds it.
    pub frame_bytes_max: usize,
    /// Frames are gathered into one message until it holds this many bytes.
    pub message_bytes_target: usize,
    /// The greatest request or answer of [`crate::Transport::request`], in bytes.
    pub call_bytes_max: usize,
    /// The most calls of one peer that are answered at a time; above, they are refused as busy.
    pub calls_in_flight_max: usize,
    /// HTTP/2 receive window of one stream, in bytes: what a slow receiver makes its node hold.
    pub stream_window_bytes: u32,
    /// HTTP/2 receive window of one connection, in bytes.
    pub connection_window_bytes: u32,
    /// The greatest HTTP/2 frame, in bytes; 16 KiB to 16 MiB.
    pub http_frame_bytes_max: u32,
    /// The greatest HTTP/2 header list, in bytes.
    pub header_list_bytes_max: u32,
    /// The most HTTP/2 streams of one connection.
    pub streams_max: u32,
    /// The most HTTP/2 streams reset by an error of the other end before its connection is closed.
    pub reset_streams_max: usize,
    /// How often a quiet connection is probed.
    pub keepalive_interval: Duration,
    /// A connection whose probe stays unanswered for this long is closed.
    pub keepalive_timeout: Duration,
    /// The longest time for reaching a peer, TLS included.
    pub connect_timeout: Duration,
    /// The longest time for the exchange of hellos.
    pub hello_timeout: Duration,
    /// The delay before the first attempt to reach a lost peer again; doubles with each failure.
    pub retry_delay_min: Duration,
    /// The longest delay between two attempts.
    pub retry_delay_max: Duration,
    /// Bounds on connections that others open.
    pub accept: AcceptLimits,
}

impl Default for TransportLimits {
    fn default() -> Self {
        Self {
            frames_queued_max: 65_536,
            bytes_queued_max: 64 << 20,
            frame_bytes_max: 8 << 20,
            message_bytes_target: 1 << 20,
            call_bytes_max: 16 << 20,
            calls_in_flight_max: 16,
            stream_window_bytes: 8 << 20,
            connection_window_bytes: 16 << 20,
            http_frame_bytes_max: 256 << 10,
            header_list_bytes_max: 16 << 10,
            streams_max: 64,
            reset_streams_max: 128,
            keepalive_interval: Duration::from_secs(2),
            keepalive_timeout: Duration::from_secs(4),
            connect_timeout: Duration::from_secs(2),
            hello_timeout: Duration::from_secs(5),
            retry_delay_min: Duration::from_millis(5),
            retry_delay_max: Duration::from_secs(1),
            accept: AcceptLimits::default(),
        }
    }
}

impl TransportLimits {
    /// Checks that the limits fit together.
    ///
    /// # Errors
    ///
    /// [`TransportError::Limit`] for the first that does not.
    pub fn validate(&self) -> Result<(), TransportError> {
        let rules = [
            (self.frames_queued_max >= 1, "frames_queued_max must be at least 1"),
            (self.frame_bytes_max >= 1_024, "frame_bytes_max must be at least 1 KiB"),
            (self.frame_bytes_max <= 1 << 30, "frame_bytes_max must be at most 1 GiB"),
            (self.message_bytes_target <= 1 << 30, "message_bytes_target must be at most 1 GiB"),
            (self.call_bytes_max <= 1 << 30, "call_bytes_max must be at most 1 GiB"),
            (self.bytes_queued_max >= self.frame_bytes_max, "bytes_queued_max must hold one greatest frame"),
            (self.calls_in_flight_max >= 1, "calls_in_flight_max must be at least 1"),
            (self.stream_window_bytes >= 65_535, "stream_window_bytes must be at least 65535"),
            (self.stream_window_bytes < 1 << 31, "stream_window_bytes must be below 2 GiB"),
            (
                (self.stream_window_bytes..1 << 31).contains(&self.connection_window_bytes),
                "connection_window_bytes must be at least stream_window_bytes and below 2 GiB",
            ),
            (
                (16_384..1 << 24).contains(&self.http_frame_bytes_max),
                "http_frame_bytes_max must be at least 16 KiB and below 16 MiB",
            ),
            (self.header_list_bytes_max >= 4_096, "header_list_bytes_max must be at least 4 KiB"),
            (
                self.streams_max as usize > self.calls_in_flight_max,
                "streams_max must be above calls_in_flight_max",
            ),
            (!self.keepalive_interval.is_zero(), "keepalive_interval must be above zero"),
            (!self.retry_delay_min.is_zero(), "retry_delay_min must be above zero"),
            (self.retry_delay_min <= self.retry_delay_max, "retry_delay_min must be at most retry_delay_max"),
            (self.accept.handshakes_max >= 1, "accept.handshakes_max must be at least 1"),
            (
                self.accept.connections_max >= self.accept.handshakes_max,
                "accept.connections_max must be at least accept.handshakes_max",
            ),
        ];
        match rules.into_iter().find(|(holds, _)| !holds) {
            Some((_, rule)) => Err(TransportError::Limit { rule }),
            None => Ok(()),
        }
    }

    /// The greatest gRPC message that a peer may send here.
    pub(crate) fn decode_bytes_max(&self) -> usize {
        let frames = self.frame_bytes_max + self.message_bytes_target;
        frames.max(self.call_bytes_max) + MESSAGE_OVERHEAD_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid_and_limits_that_contradict_each_other_are_not() {
        assert!(TransportLimits::default().validate().is_ok());
        let narrow = TransportLimits { bytes_queued_max: 1, ..TransportLimits::default() };
        let fault = narrow.validate().expect_err("the queue does not hold one frame");
        assert!(fault.to_string().contains("bytes_queued_max"), "{fault}");
    }
}
