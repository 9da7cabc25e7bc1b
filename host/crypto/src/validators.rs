//! The members of one epoch that sign, with their keys.
//!
//! Relies on keys that were checked at registration. Promises distinct nodes in ascending order, distinct
//! keys, enough members to tolerate one lying replica, and a digest that binds members, keys and scope
//! together. Knows no learner: only who counts is here.

use quorate_types::codec::Writer;
use quorate_types::{
    ClusterId, Digest, EpochConfig, GroupId, NodeId, REPLICAS_MAX, TooFewReplicas, byzantine_faults,
    byzantine_quorum,
};

use crate::{KeyError, PublicKey, Scope};

const DIGEST_DOMAIN: &str = "quorate 2026 validator set";

/// One member that signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validator {
    /// The node it runs on.
    pub node: NodeId,
    /// Its key in this epoch.
    pub key: PublicKey,
}

/// A set that no epoch can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValidatorSetError {
    /// Too few members; names the number to use instead.
    #[error(transparent)]
    TooFew(#[from] TooFewReplicas),
    /// Too many members.
    #[error("{members} members; a group has at most {REPLICAS_MAX}")]
    TooMany {
        /// How many were named.
        members: usize,
    },
    /// Members are not sorted, or one is named twice.
    #[error("node {node} is named twice or out of order")]
    DuplicateMember {
        /// The node.
        node: NodeId,
    },
    /// Two members share a key, so that one secret would count twice.
    #[error("{node} has the key of {other}; each member needs a key of its own")]
    DuplicateKey {
        /// The later member.
        node: NodeId,
        /// The earlier one.
        other: NodeId,
    },
    /// A member has no key.
    #[error("{node} has no key; a member that votes signs with one")]
    NoKey {
        /// The member.
        node: NodeId,
    },
    /// A member's key is none that anyone should register.
    #[error("the key of {node} cannot be used: {fault}")]
    Key {
        /// The member.
        node: NodeId,
        /// What is wrong with it.
        fault: KeyError,
    },
}

/// The members of one epoch that sign, in ascending order of node.
///
/// Invariants: at least four and at most [`REPLICAS_MAX`] members; nodes ascend strictly; keys differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidatorSet {
    scope: Scope,
    members: Vec<Validator>,
    digest: Digest,
}

impl ValidatorSet {
    /// The set of these members, who must be sorted by node.
    ///
    /// # Errors
    ///
    /// [`ValidatorSetError`] for the first fault found.
    pub fn new(scope: Scope, members: Vec<Validator>) -> Result<Self, ValidatorSetError> {
        quorate_types::check_byzantine(members.len(), 1)?;
        if members.len() > REPLICAS_MAX {
            return Err(ValidatorSetError::TooMany { members: members.len() });
        }
        if let Some(pair) = members.windows(2).find(|pair| pair[0].node >= pair[1].node) {
            return Err(ValidatorSetError::DuplicateMember { node: pair[1].node });
        }
        for (at, member) in members.iter().enumerate() {
            if let Some(other) = members[..at].iter().find(|other| other.key == member.key) {
                return Err(ValidatorSetError::DuplicateKey { node: member.node, other: other.node });
            }
        }
        let digest = digest(&scope, &members);
        Ok(Self { scope, members, digest })
    }

    /// The voters of an epoch.
    ///
    /// # Errors
    ///
    /// [`ValidatorSetError`] for the first fault found, keys that nobody should register included.
    pub fn of_epoch(
        cluster: ClusterId,
        group: GroupId,
        config: &EpochConfig,
    ) -> Result<Self, ValidatorSetError> {
        let validator = |member: &quorate_types::Member| {
            let node = member.node;
            let key = member.key.ok_or(ValidatorSetError::NoKey { node })?;
            let key = PublicKey::register(&key.0).map_err(|fault| ValidatorSetError::Key { node, fault })?;
            Ok(Validator { node, key })
        };
        let scope = Scope { cluster, group, epoch: config.epoch, protocol: config.protocol };
        Self::new(scope, config.voters().map(validator).collect::<Result<_, ValidatorSetError>>()?)
    }

    /// Where the set counts.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The members, in ascending order of node.
    #[must_use]
    pub fn members(&self) -> &[Validator] {
        &self.members
    }

    /// The member on `node`, if there is one.
    #[must_use]
    pub fn member(&self, node: NodeId) -> Option<&Validator> {
        self.place(node).map(|place| &self.members[place])
    }

    /// The member's place in the set, from 0, if there is one on `node`.
    #[must_use]
    pub fn place(&self, node: NodeId) -> Option<usize> {
        self.members.binary_search_by_key(&node, |member| member.node).ok()
    }

    /// How many members make a quorum: `floor(2n/3) + 1`.
    #[must_use]
    pub fn quorum(&self) -> usize {
        #[cfg(feature = "planted")]
        if crate::planted::counts_two_f_plus_one() {
            return 2 * self.faults() + 1;
        }
        byzantine_quorum(self.members.len())
    }

    /// How many members may lie: `floor((n - 1) / 3)`.
    #[must_use]
    pub fn faults(&self) -> usize {
        byzantine_faults(self.members.len())
    }

    /// Names scope, members and keys.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }
}

fn digest(scope: &Scope, members: &[Validator]) -> Digest {
    let mut out = Writer::with_capacity(Scope::BYTES + members.len() * (8 + PublicKey::BYTES));
    scope.encode(&mut out);
    for member in members {
        out.u64(member.node.0);
        out.raw(&member.key.to_bytes());
    }
    crate::digest(DIGEST_DOMAIN, out.as_slice())
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::SecretKey;

    /// The keys of nodes 1 to `count`.
    pub(crate) fn keys(count: u8) -> Vec<SecretKey> {
        (1..=count).map(|node| SecretKey::from_seed(&[node; 32])).collect()
    }

    /// Nodes 1 to `count` with [`keys`].
    pub(crate) fn set(count: u8) -> ValidatorSet {
        ValidatorSet::new(crate::statement::tests::statement().scope, members(count)).unwrap()
    }

    fn members(count: u8) -> Vec<Validator> {
        let nodes = (1..).map(NodeId);
        keys(count).iter().zip(nodes).map(|(key, node)| Validator { node, key: key.public() }).collect()
    }

    #[test]
    fn quorum_and_faults_come_from_n() {
        let of = |count| (set(count).quorum(), set(count).faults());
        assert_eq!(
            [4, 5, 6, 7, 10, 31, 100].map(of),
            [(3, 1), (4, 1), (5, 1), (5, 2), (7, 3), (21, 10), (67, 33)]
        );
    }

    #[test]
    fn sets_that_no_epoch_can_have_are_refused_by_name() {
        let scope = *set(4).scope();
        let new = |change: fn(&mut Vec<Validator>)| {
            let mut members = members(5);
            change(&mut members);
            ValidatorSet::new(scope, members).map(|_| ())
        };
        let too_few = TooFewReplicas { replicas: 3, faults: 1, needed: 4 };
        assert_eq!(new(|members| members.truncate(3)), Err(ValidatorSetError::TooFew(too_few)));
        let many = new(|members| members.extend(vec![members[0]; 200]));
        assert_eq!(many, Err(ValidatorSetError::TooMany { members: 205 }));
        let twice = new(|members| members[1].node = NodeId(1));
        assert_eq!(twice, Err(ValidatorSetError::DuplicateMember { node: NodeId(1) }));
        let unsorted = new(|members| members.swap(0, 1));
        assert_eq!(unsorted, Err(ValidatorSetError::DuplicateMember { node: NodeId(1) }));
        let shared = new(|members| members[3].key = members[1].key);
        assert_eq!(shared, Err(ValidatorSetError::DuplicateKey { node: NodeId(4), other: NodeId(2) }));
    }

    #[test]
    fn the_set_of_an_epoch_is_its_voters_and_keys_that_cannot_be_used_are_refused_by_name() {
        use quorate_types::{ComponentLimits, GroupKind, Incarnation, Member, MemberKey, Role};
        let base = set(4);
        let member = |one: &Validator| Member {
            node: one.node,
            incarnation: Incarnation(1),
            role: if one.node == NodeId(5) { Role::Learner } else { Role::Voter },
            priority: 1,
            key: Some(MemberKey(one.key.to_bytes())),
        };
        let scope = *base.scope();
        let good = EpochConfig {
            epoch: scope.epoch,
            kind: GroupKind::Byzantine,
            protocol: scope.protocol,
            members: members(5).iter().map(member).collect(),
            first_leader: NodeId(1),
            limits: ComponentLimits::default(),
        };
        let of = |config: &EpochConfig| ValidatorSet::of_epoch(scope.cluster, scope.group, config);
        assert_eq!(of(&good), Ok(base), "the learner does not count");
        let with = |key| {
            let mut config = good.clone();
            config.members[1].key = key;
            of(&config).map(|_| ())
        };
        let node = NodeId(2);
        assert_eq!(with(None), Err(ValidatorSetError::NoKey { node }));
        let fault = KeyError::SmallOrder;
        assert_eq!(with(Some(MemberKey([0; 32]))), Err(ValidatorSetError::Key { node, fault }));
        let other = NodeId(1);
        assert_eq!(with(good.members[0].key), Err(ValidatorSetError::DuplicateKey { node, other }));
    }

    #[test]
    fn the_digest_names_scope_members_and_keys() {
        let base = set(4);
        let with = |scope: Scope, change: fn(&mut Vec<Validator>)| {
            let mut members = members(4);
            change(&mut members);
            ValidatorSet::new(scope, members).unwrap().digest()
        };
        assert_eq!(with(*base.scope(), |_| ()), base.digest());
        assert_ne!(with(*base.scope(), |members| members[3].node = NodeId(5)), base.digest());
        assert_ne!(with(*base.scope(), |members| members[3].key = keys(9)[8].public()), base.digest());
        let epoch = base.scope().epoch.next();
        assert_ne!(with(Scope { epoch, ..*base.scope() }, |_| ()), base.digest());
    }
}
