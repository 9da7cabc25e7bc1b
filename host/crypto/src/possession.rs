//! Proof that whoever registers a key holds its secret.
//!
//! Relies on [`PublicKey::register`] for what a key must be. Promises that a proof is of one key for one node of
//! one cluster, so that nobody registers another's key as its own and none is carried over to another cluster.
//! Knows no place where keys are registered.

use quorate_types::{ClusterId, Epoch, GroupId, LogIndex, MemberKey, NodeId, Protocol, View};

use crate::{KeyError, PublicKey, Scope, SecretKey, Signature, Statement, StatementKind};

const KEY_DOMAIN: &str = "quorate 2026 possession";

/// A node's key with the proof that the node holds its secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Possession {
    /// Whose key it is.
    pub node: NodeId,
    /// The key, which nobody has checked yet.
    pub key: MemberKey,
    /// The key's own signature over node and key.
    pub proof: Signature,
}

/// A key that is not registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PossessionError {
    /// The bytes are no key that anyone should register.
    #[error("the key of {node} cannot be registered: {fault}")]
    Key {
        /// The node.
        node: NodeId,
        /// What is wrong with it.
        fault: KeyError,
    },
    /// The proof is not that key's.
    #[error("{node} does not prove that it holds the secret of its key")]
    NotProven {
        /// The node.
        node: NodeId,
    },
}

impl Possession {
    /// Proves that this node holds the secret of its key.
    #[must_use]
    pub fn prove(cluster: ClusterId, node: NodeId, secret: &SecretKey) -> Self {
        let key = MemberKey(secret.public().to_bytes());
        Self { node, key, proof: secret.sign(&statement(cluster, node, key)) }
    }

    /// Checks key and proof.
    ///
    /// # Errors
    ///
    /// [`PossessionError`] for the first fault found.
    pub fn check(&self, cluster: ClusterId) -> Result<PublicKey, PossessionError> {
        let node = self.node;
        let key = PublicKey::register(&self.key.0).map_err(|fault| PossessionError::Key { node, fault })?;
        let statement = statement(cluster, node, self.key);
        if key.accepts(statement.signing_bytes().as_slice(), &self.proof) {
            return Ok(key);
        }
        Err(PossessionError::NotProven { node })
    }
}

fn statement(cluster: ClusterId, node: NodeId, key: MemberKey) -> Statement {
    let scope = Scope { cluster, group: GroupId::CATALOG, epoch: Epoch::ZERO, protocol: Protocol::Raft };
    let digest = crate::digest(KEY_DOMAIN, &key.0);
    Statement { scope, kind: StatementKind::Possession, view: View::ZERO, index: LogIndex(node.0), digest }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: ClusterId = ClusterId([3; 16]);

    /// Without the proof, a node could register another's key and stand in for its votes.
    #[test]
    fn a_proof_is_of_one_key_for_one_node_of_one_cluster() {
        let secret = SecretKey::from_seed(&[1; 32]);
        let good = Possession::prove(CLUSTER, NodeId(2), &secret);
        assert_eq!(good.check(CLUSTER), Ok(secret.public()));
        let not_proven = |node| Err(PossessionError::NotProven { node: NodeId(node) });
        assert_eq!(Possession { node: NodeId(3), ..good }.check(CLUSTER), not_proven(3));
        assert_eq!(good.check(ClusterId([4; 16])), not_proven(2));
        let other = MemberKey(SecretKey::from_seed(&[9; 32]).public().to_bytes());
        assert_eq!(Possession { key: other, ..good }.check(CLUSTER), not_proven(2));
    }

    #[test]
    fn bytes_that_are_no_key_are_refused_before_the_proof_is_looked_at() {
        let good = Possession::prove(CLUSTER, NodeId(2), &SecretKey::from_seed(&[1; 32]));
        let of = |key| Possession { key: MemberKey(key), ..good }.check(CLUSTER);
        let refused = |fault| Err(PossessionError::Key { node: NodeId(2), fault });
        assert_eq!(of([0; 32]), refused(KeyError::SmallOrder));
        let mut none = [0; 32];
        none[0] = 2;
        assert_eq!(of(none), refused(KeyError::NotAPoint));
    }
}
