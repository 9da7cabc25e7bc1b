//! An epoch: one member set with one protocol, and the quorums that follow from it.
//!
//! Relies on the codec and the limits. Promises that a configuration which passed
//! [`EpochConfig::validate`] has distinct members, enough of them for its protocol, and a first leader
//! among its voters. Knows no message and no log.

use crate::codec::{DecodeError, Reader, Writer};
use crate::{ComponentLimits, Epoch, Incarnation, LimitsError, NodeId};

/// The most replicas of one group, learners included.
pub const REPLICAS_MAX: usize = 128;

/// What faults a group is made for; fixed at its creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum GroupKind {
    /// Replicas may stop; all that speak tell the truth. Runs Raft.
    Crash = 0,
    /// Raft with signed acknowledgements, and a Byzantine protocol when threatened.
    Hybrid = 1,
    /// Up to a third of the replicas may lie. Never runs Raft.
    Byzantine = 2,
}

/// What orders the commands of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Protocol {
    /// Ongaro and Ousterhout 2014.
    Raft = 0,
    /// Castro and Liskov 1999.
    Pbft = 1,
    /// Yin et al. 2019.
    HotStuff = 2,
}

/// What a member does in its epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Role {
    /// Votes, acknowledges, and may lead.
    Voter = 0,
    /// Receives the log and counts in no quorum.
    Learner = 1,
}

/// The public key under which a member of a hybrid or Byzantine group signs: 32 bytes, of which only `crypto`
/// can say whether they are a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct MemberKey(pub [u8; 32]);

/// One member of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Member {
    /// The node it runs on.
    pub node: NodeId,
    /// Which life of that node's durable state is meant.
    pub incarnation: Incarnation,
    /// Whether it counts.
    pub role: Role,
    /// Weight in elections: a higher priority campaigns earlier. 0 never campaigns by itself.
    pub priority: u8,
    /// What its signatures are verified with; none in crash groups, where nothing is signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<MemberKey>,
}

/// Everything that is decided for one epoch of a group.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct EpochConfig {
    /// Its number; the group's first is 1.
    pub epoch: Epoch,
    /// Fixed for the life of the group.
    pub kind: GroupKind,
    /// What orders commands in this epoch.
    pub protocol: Protocol,
    /// All members, sorted by node.
    pub members: Vec<Member>,
    /// Who leads term or view 1.
    pub first_leader: NodeId,
    /// What the component may use.
    pub limits: ComponentLimits,
}

/// A configuration that no group can run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EpochConfigError {
    /// Nobody counts.
    #[error("the group has no voter; name at least one node")]
    NoVoters,
    /// Too many replicas.
    #[error("{replicas} replicas; a group has at most {REPLICAS_MAX}")]
    TooManyReplicas {
        /// How many were named.
        replicas: usize,
    },
    /// Members are not sorted, or one is named twice.
    #[error("node {node} is named twice or out of order")]
    DuplicateMember {
        /// The node.
        node: NodeId,
    },
    /// The first leader is not a voter.
    #[error("the first leader {node} is not a voter of the group")]
    LeaderNotVoter {
        /// The node.
        node: NodeId,
    },
    /// The kind of group never runs this protocol.
    #[error(
        "a {kind:?} group cannot run {protocol:?}; crash groups run Raft only, Byzantine groups never do"
    )]
    ProtocolNotAllowed {
        /// The group's kind.
        kind: GroupKind,
        /// The protocol asked for.
        protocol: Protocol,
    },
    /// Too few voters to survive one lying replica.
    #[error("{voters} voters tolerate no lying replica; use at least 4")]
    TooFewForByzantine {
        /// How many voters there are.
        voters: usize,
    },
    /// A member of a group that signs has no key.
    #[error("node {node} has no key; a member of a {kind:?} group signs with one")]
    NoKey {
        /// The node.
        node: NodeId,
        /// The group's kind.
        kind: GroupKind,
    },
    /// A member of a group that does not sign has a key.
    #[error("node {node} has a key; nothing is signed in a crash group")]
    UnusedKey {
        /// The node.
        node: NodeId,
    },
    /// A limit is out of range.
    #[error(transparent)]
    Limits(#[from] LimitsError),
}

impl EpochConfig {
    /// The voters, in order of node.
    pub fn voters(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.role == Role::Voter)
    }

    /// The member on `node`, if there is one.
    #[must_use]
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        self.members.iter().find(|member| member.node == node)
    }

    /// Whether `node` counts in this epoch's quorums.
    #[must_use]
    pub fn is_voter(&self, node: NodeId) -> bool {
        self.member(node).is_some_and(|member| member.role == Role::Voter)
    }

    /// Whether members sign what they say, so that each needs a key.
    #[must_use]
    pub fn is_signed(&self) -> bool {
        self.kind != GroupKind::Crash
    }

    /// How many voters make a quorum: a majority in crash groups, otherwise `floor(2n/3) + 1`.
    #[must_use]
    pub fn quorum(&self) -> usize {
        let voters = self.voters().count();
        match self.kind {
            GroupKind::Crash => voters / 2 + 1,
            GroupKind::Hybrid | GroupKind::Byzantine => crate::byzantine_quorum(voters),
        }
    }

    /// Checks everything a group needs to run.
    ///
    /// # Errors
    ///
    /// [`EpochConfigError`] for the first fault found.
    pub fn validate(&self) -> Result<(), EpochConfigError> {
        if self.members.len() > REPLICAS_MAX {
            return Err(EpochConfigError::TooManyReplicas { replicas: self.members.len() });
        }
        if let Some(pair) = self.members.windows(2).find(|pair| pair[0].node >= pair[1].node) {
            return Err(EpochConfigError::DuplicateMember { node: pair[1].node });
        }
        let voters = self.voters().count();
        if voters == 0 {
            return Err(EpochConfigError::NoVoters);
        }
        if !self.is_voter(self.first_leader) {
            return Err(EpochConfigError::LeaderNotVoter { node: self.first_leader });
        }
        let allowed = match self.kind {
            GroupKind::Crash => self.protocol == Protocol::Raft,
            GroupKind::Hybrid => true,
            GroupKind::Byzantine => self.protocol != Protocol::Raft,
        };
        if !allowed {
            return Err(EpochConfigError::ProtocolNotAllowed { kind: self.kind, protocol: self.protocol });
        }
        if self.kind != GroupKind::Crash && voters < 4 {
            return Err(EpochConfigError::TooFewForByzantine { voters });
        }
        self.validate_keys()?;
        Ok(self.limits.validate()?)
    }

    fn validate_keys(&self) -> Result<(), EpochConfigError> {
        let kind = self.kind;
        match self.members.iter().find(|member| member.key.is_some() != self.is_signed()) {
            Some(member) if self.is_signed() => Err(EpochConfigError::NoKey { node: member.node, kind }),
            Some(member) => Err(EpochConfigError::UnusedKey { node: member.node }),
            None => Ok(()),
        }
    }

    /// Appends the encoded form.
    pub fn encode(&self, out: &mut Writer) {
        out.u64(self.epoch.0);
        out.u8(self.kind as u8);
        out.u8(self.protocol as u8);
        out.u64(self.first_leader.0);
        self.limits.encode(out);
        out.u32(self.members.len() as u32);
        for member in &self.members {
            out.u64(member.node.0);
            out.u64(member.incarnation.0);
            out.u8(member.role as u8);
            out.u8(member.priority);
            if self.is_signed() {
                out.raw(&member.key.unwrap_or(MemberKey([0; 32])).0);
            }
        }
    }

    /// Reads what [`EpochConfig::encode`] wrote, without validating it.
    ///
    /// # Errors
    ///
    /// As the codec.
    pub fn decode(from: &mut Reader) -> Result<Self, DecodeError> {
        let epoch = Epoch(from.u64("epoch")?);
        let kind = match from.u8("group kind")? {
            0 => GroupKind::Crash,
            1 => GroupKind::Hybrid,
            2 => GroupKind::Byzantine,
            other => return Err(DecodeError::Unknown { what: "group kind", value: other.into() }),
        };
        let protocol = match from.u8("protocol")? {
            0 => Protocol::Raft,
            1 => Protocol::Pbft,
            2 => Protocol::HotStuff,
            other => return Err(DecodeError::Unknown { what: "protocol", value: other.into() }),
        };
        let first_leader = NodeId(from.u64("first leader")?);
        let limits = ComponentLimits::decode(from)?;
        let count = from.count(REPLICAS_MAX, "members")?;
        let mut members = Vec::with_capacity(count);
        for _ in 0..count {
            members.push(Member {
                node: NodeId(from.u64("member node")?),
                incarnation: Incarnation(from.u64("member incarnation")?),
                role: if from.flag("member role")? { Role::Learner } else { Role::Voter },
                priority: from.u8("member priority")?,
                key: match kind {
                    GroupKind::Crash => None,
                    GroupKind::Hybrid | GroupKind::Byzantine => Some(MemberKey(from.array("member key")?)),
                },
            });
        }
        Ok(Self { epoch, kind, protocol, members, first_leader, limits })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(kind: GroupKind, protocol: Protocol, voters: u64) -> EpochConfig {
        let member = |node| Member {
            node: NodeId(node),
            incarnation: Incarnation(1),
            role: Role::Voter,
            priority: 1,
            key: (kind != GroupKind::Crash).then_some(MemberKey([node as u8; 32])),
        };
        EpochConfig {
            epoch: Epoch(1),
            kind,
            protocol,
            members: (1..=voters).map(member).collect(),
            first_leader: NodeId(1),
            limits: ComponentLimits::default(),
        }
    }

    #[test]
    fn quorums_come_from_n_and_not_from_f() {
        let crash: Vec<_> = (1..=7).map(|n| config(GroupKind::Crash, Protocol::Raft, n).quorum()).collect();
        assert_eq!(crash, [1, 2, 2, 3, 3, 4, 4]);
        let byzantine: Vec<_> =
            (4..=10).map(|n| config(GroupKind::Byzantine, Protocol::Pbft, n).quorum()).collect();
        assert_eq!(byzantine, [3, 4, 5, 5, 6, 7, 7]);
    }

    #[test]
    fn a_configuration_round_trips() {
        let config = config(GroupKind::Hybrid, Protocol::HotStuff, 5);
        let mut writer = Writer::default();
        config.encode(&mut writer);
        let mut reader = Reader::new(writer.finish());
        assert_eq!(EpochConfig::decode(&mut reader), Ok(config));
        assert_eq!(reader.end(), Ok(()));
    }

    #[test]
    fn groups_that_cannot_run_are_refused() {
        use EpochConfigError as E;
        let mut twice = config(GroupKind::Crash, Protocol::Raft, 3);
        twice.members[1].node = NodeId(1);
        assert_eq!(twice.validate(), Err(E::DuplicateMember { node: NodeId(1) }));
        let mut led = config(GroupKind::Crash, Protocol::Raft, 3);
        led.first_leader = NodeId(9);
        assert_eq!(led.validate(), Err(E::LeaderNotVoter { node: NodeId(9) }));
        assert!(matches!(
            config(GroupKind::Crash, Protocol::Pbft, 4).validate(),
            Err(E::ProtocolNotAllowed { .. })
        ));
        assert_eq!(
            config(GroupKind::Byzantine, Protocol::Pbft, 3).validate(),
            Err(E::TooFewForByzantine { voters: 3 })
        );
        let mut silent = config(GroupKind::Hybrid, Protocol::HotStuff, 4);
        silent.members[2].key = None;
        assert_eq!(silent.validate(), Err(E::NoKey { node: NodeId(3), kind: GroupKind::Hybrid }));
        let mut keyed = config(GroupKind::Crash, Protocol::Raft, 3);
        keyed.members[1].key = Some(MemberKey([1; 32]));
        assert_eq!(keyed.validate(), Err(E::UnusedKey { node: NodeId(2) }));
        let mut empty = config(GroupKind::Crash, Protocol::Raft, 1);
        empty.members.clear();
        assert_eq!(empty.validate(), Err(E::NoVoters));
        assert_eq!(config(GroupKind::Crash, Protocol::Raft, 3).validate(), Ok(()));
    }
}
