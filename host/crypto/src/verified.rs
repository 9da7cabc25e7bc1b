//! A value whose origin was checked.
//!
//! Relies on whoever calls the constructors to be the verifier: `node` for authenticated peers of
//! crash groups, the vote service for signatures. Promises that nothing else can make one: a decoder
//! cannot. Knows nothing of what is verified.

use quorate_types::NodeId;

/// A value together with the node that vouched for it.
///
/// In crash groups the origin is the mutually authenticated peer that delivered the value; in hybrid
/// and Byzantine groups the signer that the value names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified<T> {
    origin: NodeId,
    value: T,
}

impl<T> Verified<T> {
    /// Vouches for a value received from `peer` over a connection on which both sides proved their
    /// identity.
    #[must_use]
    pub fn from_authenticated_peer(peer: NodeId, value: T) -> Self {
        Self { origin: peer, value }
    }

    /// Who vouched for the value.
    #[must_use]
    pub fn origin(&self) -> NodeId {
        self.origin
    }

    /// The value.
    #[must_use]
    pub fn value(&self) -> &T {
        &self.value
    }

    /// Splits into origin and value.
    #[must_use]
    pub fn into_parts(self) -> (NodeId, T) {
        (self.origin, self.value)
    }
}
