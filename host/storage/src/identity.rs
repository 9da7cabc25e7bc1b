//! Whose durable state this is.
//!
//! Relies on `types`. Promises one fixed byte form. Knows nothing of where it is kept.

use std::fmt;

use quorate_types::codec::{DecodeError, Reader, Writer};
use quorate_types::{ClusterId, Incarnation, NodeId};

/// The owner of a data directory, of every log segment and of the tables in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// The life of the node's durable state; fixed when the directory is made.
    pub incarnation: Incarnation,
}

impl Identity {
    /// Bytes of the encoded form.
    pub(crate) const BYTES: usize = 32;

    pub(crate) fn encode(&self, out: &mut Writer) {
        out.raw(&self.cluster.0);
        out.u64(self.node.0);
        out.u64(self.incarnation.0);
    }

    pub(crate) fn decode(from: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            cluster: ClusterId(from.array("identity cluster")?),
            node: NodeId(from.u64("identity node")?),
            incarnation: Incarnation(from.u64("identity incarnation")?),
        })
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} of cluster {} (incarnation {})", self.node, self.cluster, self.incarnation)
    }
}
