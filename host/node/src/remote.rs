//! What nodes ask of each other beside consensus: pieces of snapshots and components, and the few
//! requests that only a group's leader or only a certain replica can serve.
//!
//! Relies on the transport's request-and-response call. Promises a typed decoding of what a peer sends.
//! Knows no connection.

use bytes::Bytes;
use quorate_types::codec::{DecodeError, Reader, Writer};
use quorate_types::{Digest, GroupId};
use serde::{Deserialize, Serialize};

use crate::catalog::{CatalogCommand, from_cbor, to_cbor};

/// How much of a component one piece holds, in bytes.
pub const COMPONENT_CHUNK_BYTES: usize = 1 << 20;
/// The greatest component, in bytes.
pub const COMPONENT_BYTES_MAX: usize = 16 << 20;

/// A request from one node to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerRequest {
    /// A piece of a snapshot, in the driver's encoding.
    Snapshot(Bytes),
    /// The piece of a component that starts here.
    Component {
        /// Which.
        digest: Digest,
        /// Where the piece starts.
        offset: u64,
    },
    /// Anything small.
    Call(PeerCall),
    /// To a group's leader: a client's frame that waits at the sender.
    ClientFrame {
        /// The group.
        group: GroupId,
        /// Its bytes.
        frame: Bytes,
    },
}

/// A small request, with an answer in CBOR.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum PeerCall {
    /// To the catalog's leader: order this command.
    Catalog(CatalogCommand),
    /// Fetch and compile a component; answered when it is ready.
    Prepare(Digest),
    /// To a group's leader: order the activation of a component.
    Activate {
        /// The group.
        group: GroupId,
        /// The component.
        component: Digest,
        /// Handed to `init`, in CBOR.
        parameters: Vec<u8>,
    },
    /// How the receiver's replica of a group stands.
    Report(GroupId),
    /// Take a checkpoint of a group at the receiver and say its digest.
    Checkpoint(GroupId),
    /// To the leader of a group that signs: have all replicas take a checkpoint.
    OrderCheckpoint(GroupId),
    /// To a group's leader: order the proof that a member lied.
    Evidence {
        /// The group.
        group: GroupId,
        /// The proof, encoded.
        evidence: Vec<u8>,
    },
    /// To a group's leader: hand leadership to this node.
    Transfer {
        /// The group.
        group: GroupId,
        /// The next leader.
        to: quorate_types::NodeId,
    },
}

// Calls compare by their encoded form; their parts have no other use for equality.
impl PartialEq for PeerCall {
    fn eq(&self, other: &Self) -> bool {
        to_cbor(self) == to_cbor(other)
    }
}

impl Eq for PeerCall {}

/// How a replica stands, between nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaReport {
    /// What it does: `leader`, `follower`, `candidate` or `learner`.
    pub role: String,
    /// The epoch in force.
    pub epoch: u64,
    /// The term or view.
    pub term: u64,
    /// Who leads, as far as it knows; 0 for nobody.
    pub leader: u64,
    /// The last index it knows to be committed.
    pub commit: u64,
    /// The last index it applied.
    pub applied: u64,
    /// The last index in its durable checkpoint.
    pub checkpointed: u64,
    /// The component in force.
    pub component: Option<Digest>,
    /// Open sessions.
    pub sessions: u64,
    /// The last digest it took, and where.
    pub digest: Option<(u64, Digest)>,
    /// Why it applies nothing, if so.
    pub halted: Option<String>,
    /// Why it takes no part, if so.
    pub fenced: Option<String>,
    /// Members that its log proves to have lied.
    #[serde(default)]
    pub accused: Vec<u64>,
}

impl From<crate::driver::GroupReport> for ReplicaReport {
    fn from(report: crate::driver::GroupReport) -> Self {
        Self {
            role: format!("{:?}", report.role).to_lowercase(),
            epoch: report.epoch.0,
            term: report.term.0,
            leader: report.leader.unwrap_or_default().0,
            commit: report.commit.0,
            applied: report.applied.0,
            checkpointed: report.checkpointed.0,
            component: report.component,
            sessions: report.sessions as u64,
            digest: report.digest.map(|(index, digest)| (index.0, digest)),
            halted: report.halted,
            fenced: report.fenced,
            accused: report.accused.iter().map(|node| node.0).collect(),
        }
    }
}

impl PeerRequest {
    /// The encoded form.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::with_capacity(64);
        match self {
            Self::Snapshot(request) => {
                out.u8(1);
                out.raw(request);
            }
            Self::Component { digest, offset } => {
                out.u8(2);
                out.raw(&digest.0);
                out.u64(*offset);
            }
            Self::Call(call) => {
                out.u8(3);
                out.raw(&to_cbor(call));
            }
            Self::ClientFrame { group, frame } => {
                out.u8(4);
                out.u64(group.0);
                out.raw(frame);
            }
        }
        out.finish()
    }

    /// Reads what [`PeerRequest::encode`] wrote.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] for anything else.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut from = Reader::new(bytes);
        match from.u8("peer request")? {
            1 => Ok(Self::Snapshot(from.rest())),
            2 => {
                let digest = Digest(from.array("component digest")?);
                let offset = from.u64("component offset")?;
                from.end()?;
                Ok(Self::Component { digest, offset })
            }
            3 => from_cbor(&from.rest())
                .map(Self::Call)
                .ok_or(DecodeError::Unknown { what: "peer call", value: 3 }),
            4 => Ok(Self::ClientFrame { group: GroupId(from.u64("frame group")?), frame: from.rest() }),
            other => Err(DecodeError::Unknown { what: "peer request", value: other.into() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_round_trip_and_garbage_is_refused() {
        for request in [
            PeerRequest::Snapshot(Bytes::from_static(b"piece")),
            PeerRequest::Component { digest: Digest([4; 32]), offset: 9 },
            PeerRequest::Call(PeerCall::Prepare(Digest([5; 32]))),
            PeerRequest::Call(PeerCall::Report(GroupId(3))),
            PeerRequest::ClientFrame { group: GroupId(3), frame: Bytes::from_static(b"frame") },
        ] {
            assert_eq!(PeerRequest::decode(request.encode()), Ok(request));
        }
        for garbage in [&b""[..], b"\x02short", b"\x03\xff", b"\x04short", b"\x09"] {
            assert!(PeerRequest::decode(Bytes::from_static(garbage)).is_err());
        }
    }
}
