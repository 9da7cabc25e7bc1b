//! What two nodes tell each other first, and the checks that follow.
//!
//! Relies on the identity that TLS verified. Promises that a peer which passed [`Ourselves::check`]
//! speaks the same protocol version, belongs to the same cluster with the same genesis, is the node that
//! its certificate names, and means this node. Knows no stream.

use bytes::Bytes;
use prost::Message;
use quorate_types::{BootNumber, ClusterId, Digest, NodeId};
use tonic::{Code, Status};

use crate::pki::PeerIdentity;
use crate::proto;

/// The protocol version that this build speaks; described by `proto/peer.proto`.
pub const PROTOCOL_VERSION: u32 = 1;

/// Why one node turns another away.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// For programs.
    pub code: RefusalCode,
    /// For people; says what to do.
    pub message: String,
}

/// Kinds of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusalCode {
    /// The two ends speak different versions of the peer protocol.
    Version,
    /// The caller belongs to another cluster.
    Cluster,
    /// The two ends started from different genesis.
    Genesis,
    /// The caller's hello and its certificate name different nodes.
    Certificate,
    /// The caller is not a configured node.
    Member,
    /// The caller meant another node.
    Receiver,
    /// The certificate is a client's.
    Role,
    /// The link is opened by the node with the lower id only.
    Direction,
    /// Too many calls of this node are being answered.
    Busy,
    /// A message was not what the protocol allows.
    Malformed,
    /// The node is shutting down.
    Stopping,
}

impl RefusalCode {
    fn to_proto(self) -> proto::RefusalCode {
        match self {
            Self::Version => proto::RefusalCode::Version,
            Self::Cluster => proto::RefusalCode::Cluster,
            Self::Genesis => proto::RefusalCode::Genesis,
            Self::Certificate => proto::RefusalCode::Certificate,
            Self::Member => proto::RefusalCode::Member,
            Self::Receiver => proto::RefusalCode::Receiver,
            Self::Role => proto::RefusalCode::Role,
            Self::Direction => proto::RefusalCode::Direction,
            Self::Busy => proto::RefusalCode::Busy,
            Self::Malformed => proto::RefusalCode::Malformed,
            Self::Stopping => proto::RefusalCode::Stopping,
        }
    }

    fn from_proto(code: proto::RefusalCode) -> Option<Self> {
        Some(match code {
            proto::RefusalCode::Unspecified => return None,
            proto::RefusalCode::Version => Self::Version,
            proto::RefusalCode::Cluster => Self::Cluster,
            proto::RefusalCode::Genesis => Self::Genesis,
            proto::RefusalCode::Certificate => Self::Certificate,
            proto::RefusalCode::Member => Self::Member,
            proto::RefusalCode::Receiver => Self::Receiver,
            proto::RefusalCode::Role => Self::Role,
            proto::RefusalCode::Direction => Self::Direction,
            proto::RefusalCode::Busy => Self::Busy,
            proto::RefusalCode::Malformed => Self::Malformed,
            proto::RefusalCode::Stopping => Self::Stopping,
        })
    }

    fn status_code(self) -> Code {
        match self {
            Self::Role | Self::Member | Self::Certificate => Code::PermissionDenied,
            Self::Busy => Code::ResourceExhausted,
            Self::Malformed => Code::InvalidArgument,
            Self::Stopping => Code::Unavailable,
            _ => Code::FailedPrecondition,
        }
    }
}

impl Refusal {
    pub(crate) fn new(code: RefusalCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// The gRPC status that carries this refusal, typed in its details.
    pub(crate) fn to_status(&self) -> Status {
        let details = proto::Refusal { code: self.code.to_proto().into(), message: self.message.clone() };
        Status::with_details(self.code.status_code(), self.message.clone(), details.encode_to_vec().into())
    }

    /// The refusal that a status carries, if it carries one.
    pub(crate) fn from_status(status: &Status) -> Option<Self> {
        let details = proto::Refusal::decode(status.details()).ok()?;
        let code = RefusalCode::from_proto(details.code())?;
        // The message came from outside and goes into logs.
        let message = details.message.chars().filter(|c| !c.is_control()).take(400).collect();
        Some(Self { code, message })
    }
}

/// What this node says of itself and expects of others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ourselves {
    pub(crate) node: NodeId,
    pub(crate) cluster: ClusterId,
    pub(crate) genesis: Digest,
    pub(crate) boot: BootNumber,
}

/// A peer whose hello passed every check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Greeted {
    pub(crate) node: NodeId,
    pub(crate) boot: BootNumber,
}

impl Ourselves {
    /// The hello to `receiver`.
    pub(crate) fn hello(&self, receiver: NodeId) -> proto::Hello {
        proto::Hello {
            version: PROTOCOL_VERSION,
            cluster: Bytes::copy_from_slice(&self.cluster.0),
            genesis: Bytes::copy_from_slice(&self.genesis.0),
            node: self.node.0,
            receiver: receiver.0,
            boot: self.boot.0,
        }
    }

    /// The node that a certificate names, if it may speak on the peer port at all.
    pub(crate) fn check_certificate(&self, identity: &PeerIdentity) -> Result<NodeId, Refusal> {
        if identity.cluster != self.cluster {
            return Err(Refusal::new(
                RefusalCode::Cluster,
                format!(
                    "node {} belongs to cluster {} and the certificate is of {identity}; check the address \
                     in [peers]",
                    self.node, self.cluster
                ),
            ));
        }
        identity.node().ok_or_else(|| {
            Refusal::new(
                RefusalCode::Role,
                format!(
                    "the peer port is for nodes and the certificate is of {identity}; use the client port"
                ),
            )
        })
    }

    /// Checks the hello of the node that `certified` names.
    pub(crate) fn check(&self, hello: &proto::Hello, certified: NodeId) -> Result<Greeted, Refusal> {
        let theirs = NodeId(hello.node);
        let us = self.node;
        // The version comes first: of a later one no other field is understood for certain.
        if hello.version != PROTOCOL_VERSION {
            let (found, ours) = (hello.version, PROTOCOL_VERSION);
            let message = format!(
                "node {certified} speaks peer protocol {found} and node {us} speaks {ours}; run the same \
                 version"
            );
            return Err(Refusal::new(RefusalCode::Version, message));
        }
        if hello.cluster != self.cluster.0.as_slice() {
            let (found, ours) = (hex(&hello.cluster), self.cluster);
            let message = format!(
                "node {certified} belongs to cluster {found} and node {us} to {ours}; check the address in \
                 [peers]"
            );
            return Err(Refusal::new(RefusalCode::Cluster, message));
        }
        if hello.genesis != self.genesis.0.as_slice() {
            let (found, ours) = (hex(&hello.genesis), self.genesis.short());
            let message = format!(
                "node {certified} started from genesis {found} and node {us} from {ours}; give both the \
                 same initial nodes and keys"
            );
            return Err(Refusal::new(RefusalCode::Genesis, message));
        }
        if theirs != certified {
            let message = format!(
                "a node calls itself {theirs} and its certificate is of node {certified}; use the \
                 certificate issued for that node"
            );
            return Err(Refusal::new(RefusalCode::Certificate, message));
        }
        if NodeId(hello.receiver) != us {
            let meant = NodeId(hello.receiver);
            let message = format!("node {theirs} looks for node {meant} and found {us}; check [peers]");
            return Err(Refusal::new(RefusalCode::Receiver, message));
        }
        Ok(Greeted { node: theirs, boot: BootNumber(hello.boot) })
    }
}

/// The first six bytes as hexadecimal digits; what is shown came from outside.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{Role, Subject};

    fn ourselves(node: u64) -> Ourselves {
        Ourselves {
            node: NodeId(node),
            cluster: ClusterId([7; 16]),
            genesis: Digest([8; 32]),
            boot: BootNumber(3),
        }
    }

    #[test]
    fn a_fitting_hello_is_greeted_and_each_other_one_is_refused_for_its_reason() {
        let us = ourselves(2);
        let hello = ourselves(1).hello(NodeId(2));
        let greeted = Greeted { node: NodeId(1), boot: BootNumber(3) };
        assert_eq!(us.check(&hello, NodeId(1)), Ok(greeted));

        let broken = [
            (proto::Hello { version: 2, ..hello.clone() }, RefusalCode::Version),
            (proto::Hello { cluster: Bytes::from_static(b"short"), ..hello.clone() }, RefusalCode::Cluster),
            (proto::Hello { genesis: Bytes::from(vec![9; 32]), ..hello.clone() }, RefusalCode::Genesis),
            (proto::Hello { node: 3, ..hello.clone() }, RefusalCode::Certificate),
            (proto::Hello { receiver: 9, ..hello }, RefusalCode::Receiver),
            (proto::Hello::default(), RefusalCode::Version),
        ];
        for (hello, code) in broken {
            assert_eq!(us.check(&hello, NodeId(1)).map_err(|refusal| refusal.code), Err(code), "{hello:?}");
        }
    }

    #[test]
    fn certificates_of_clients_and_of_other_clusters_are_refused() {
        let us = ourselves(2);
        let node = PeerIdentity { cluster: us.cluster, subject: Subject::Node(NodeId(1)) };
        assert_eq!(us.check_certificate(&node), Ok(NodeId(1)));
        let client = Subject::Client { name: "ada".to_owned(), role: Role::Admin };
        let client = PeerIdentity { cluster: us.cluster, subject: client };
        assert_eq!(us.check_certificate(&client).map_err(|refusal| refusal.code), Err(RefusalCode::Role));
        let foreign = PeerIdentity { cluster: ClusterId([0; 16]), ..node };
        assert_eq!(us.check_certificate(&foreign).map_err(|refusal| refusal.code), Err(RefusalCode::Cluster));
    }

    #[test]
    fn a_refusal_survives_the_status_that_carries_it() {
        let refusal = Refusal::new(RefusalCode::Genesis, "give both the same nodes");
        assert_eq!(Refusal::from_status(&refusal.to_status()), Some(refusal));
        assert_eq!(Refusal::from_status(&Status::unknown("elsewhere")), None);
        let garbage = Status::with_details(Code::Unknown, "", Bytes::from_static(b"\xff\xff"));
        assert_eq!(Refusal::from_status(&garbage), None);
    }
}
