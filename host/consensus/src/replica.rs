//! One replica of one group, whatever its protocol.
//!
//! Relies on the protocol rooms. Promises a closed set of protocols behind one interface. Knows
//! nothing of how any of them works.

use std::time::Duration;

use bytes::Bytes;
use quorate_types::{Entry, GroupId, MemberKey, NodeId, Protocol, Time};

use crate::{Effects, Input, Now, SnapshotContent, SnapshotMark, hotstuff, raft};

/// Timeouts and bounds of a group's protocol; the same meaning in every protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timings {
    /// Between two signs of life of a leader. 5 ms to 10 s.
    pub heartbeat: Duration,
    /// The least silence after which a follower campaigns; the actual one is drawn between this and
    /// twice this. At least three heartbeats.
    pub election_timeout: Duration,
    /// How far an entry's stamp may lie ahead of a voter's own wall clock.
    pub clock_skew_max: Duration,
}

impl Default for Timings {
    /// For one local network (DESIGN: failure detection by heartbeat within 150 ms).
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(40),
            election_timeout: Duration::from_millis(150),
            clock_skew_max: Duration::from_secs(10),
        }
    }
}

/// Timings that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimingsError {
    /// The heartbeat is out of range.
    #[error("the heartbeat of {0:?} is outside 5 ms to 10 s")]
    Heartbeat(Duration),
    /// The election timeout is too near to the heartbeat.
    #[error("the election timeout of {election:?} is below three heartbeats of {heartbeat:?}")]
    ElectionTimeout {
        /// The election timeout.
        election: Duration,
        /// The heartbeat.
        heartbeat: Duration,
    },
}

impl Timings {
    /// Checks the ranges.
    ///
    /// # Errors
    ///
    /// [`TimingsError`] for the first that is outside.
    pub fn validate(&self) -> Result<(), TimingsError> {
        if !(Duration::from_millis(5)..=Duration::from_secs(10)).contains(&self.heartbeat) {
            return Err(TimingsError::Heartbeat(self.heartbeat));
        }
        if self.election_timeout < self.heartbeat * 3 {
            return Err(TimingsError::ElectionTimeout {
                election: self.election_timeout,
                heartbeat: self.heartbeat,
            });
        }
        Ok(())
    }
}

/// All that a replica starts from.
#[derive(Clone, Debug)]
pub struct Start {
    /// The group.
    pub group: GroupId,
    /// The node this replica runs on.
    pub node: NodeId,
    /// Seeds the replica's own choices, such as election timeouts.
    pub seed: u64,
    /// Timeouts and bounds.
    pub timings: Timings,
    /// What the durable snapshot includes; position zero and the group's first configuration for a
    /// new group. All of it counts as applied.
    pub base: SnapshotMark,
    /// What that snapshot holds, if others may be told of it.
    pub content: Option<SnapshotContent>,
    /// The last durable [`crate::Persist::hard_state`]; `None` for a replica that never persisted one.
    pub hard_state: Option<Bytes>,
    /// The durable entries after the base, consecutive. Earlier ones may come too and are dropped; if
    /// the one at the base's index is not the base's, all are: a snapshot replaced that history.
    pub entries: Vec<Entry>,
}

/// Durable state from which no replica can start safely.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// The hard state is not one that this version wrote.
    #[error("the stored protocol state cannot be read: {0}")]
    HardState(#[from] quorate_types::codec::DecodeError),
    /// The entries are not consecutive, or leave a gap after the snapshot.
    #[error("the stored log has a gap: expected index {expected}, found {found}")]
    Gap {
        /// The index that should follow.
        expected: quorate_types::LogIndex,
        /// The index found.
        found: quorate_types::LogIndex,
    },
    /// An entry cannot stand after the one before it, or is of a later term than the hard state.
    #[error("the stored log is damaged: entry {index} cannot follow the one before it; repair this replica")]
    Disorder {
        /// The entry.
        index: quorate_types::LogIndex,
    },
    /// The configuration is not valid.
    #[error(transparent)]
    Config(#[from] quorate_types::EpochConfigError),
    /// This version has no such protocol.
    #[error("this version does not run {0:?}")]
    Protocol(Protocol),
    /// The epoch's protocol signs, and nothing to sign with was given.
    #[error("{0:?} needs a key of this replica and the keys of all members")]
    NoIdentity(Protocol),
    /// The keys are not those of the epoch's voters.
    #[error("the keys given are not those of the voters of epoch {0}")]
    OtherSigners(quorate_types::Epoch),
}

/// A replica of a group: a closed set of protocols behind one interface.
#[derive(Debug)]
pub enum Replica {
    /// Crash faults.
    Raft(Box<raft::Raft>),
    /// Lying replicas.
    HotStuff(Box<hotstuff::HotStuff>),
}

impl Replica {
    /// Starts a replica on its durable state.
    ///
    /// # Errors
    ///
    /// [`StartError`] for a state that cannot be continued safely.
    pub fn start(start: Start, now: Now) -> Result<Self, StartError> {
        start.base.config.validate()?;
        match start.base.config.protocol {
            Protocol::Raft => Ok(Self::Raft(Box::new(raft::Raft::start(start, now)?))),
            Protocol::HotStuff => Err(StartError::NoIdentity(Protocol::HotStuff)),
            Protocol::Pbft => Err(StartError::Protocol(Protocol::Pbft)),
        }
    }

    /// Starts a replica of a protocol that signs.
    ///
    /// # Errors
    ///
    /// [`StartError`] for a state that cannot be continued safely, and for keys of other members.
    pub fn start_signing(start: Start, identity: hotstuff::Identity, now: Now) -> Result<Self, StartError> {
        let config = &start.base.config;
        config.validate()?;
        let scope = identity.set.scope();
        let is_of_epoch = (scope.group, scope.epoch, scope.protocol)
            == (start.group, config.epoch, config.protocol)
            && config.voters().map(|member| (member.node, member.key)).eq(identity
                .set
                .members()
                .iter()
                .map(|one| (one.node, Some(MemberKey(one.key.to_bytes())))));
        match config.protocol {
            Protocol::HotStuff if is_of_epoch => {
                Ok(Self::HotStuff(Box::new(hotstuff::HotStuff::start(start, identity, now)?)))
            }
            Protocol::HotStuff => Err(StartError::OtherSigners(config.epoch)),
            other => Err(StartError::Protocol(other)),
        }
    }

    /// Takes one input. Inputs must come one at a time with `now` never going back.
    #[must_use]
    pub fn step(&mut self, now: Now, input: Input) -> Effects {
        match self {
            Self::Raft(raft) => raft.step(now, input),
            Self::HotStuff(hotstuff) => hotstuff.step(now, input),
        }
    }

    /// Whether an entry that is proposed now is appended at once. One that is proposed earlier waits inside the
    /// replica, where nothing more can be added to it.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        match self {
            Self::Raft(_) => true,
            Self::HotStuff(hotstuff) => hotstuff.is_ready(),
        }
    }

    /// When [`Input::Tick`] is due next, if ever.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        match self {
            Self::Raft(raft) => raft.next_deadline(),
            Self::HotStuff(hotstuff) => hotstuff.next_deadline(),
        }
    }
}
