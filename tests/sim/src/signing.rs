//! What a cluster of groups whose members sign has beside one that does not: keys, liars, and frames that are
//! verified before a driver takes them.
//!
//! Relies on the notary for signatures. Promises that seeds with real keys go the product's way from frame to
//! driver, and the others the same way but for the verdicts. Knows no fault but that members lie.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_consensus::hotstuff::{CommitRule, Identity, Settings as Rules};
use quorate_crypto::{ValidatorSet, Verified};
use quorate_node::driver::{AcceptedCertificates, DriverInput, Label, Unverified, VerifiedFrame};
use quorate_types::{
    BootNumber, ClusterId, ComponentLimits, Epoch, EpochConfig, GroupId, GroupKind, Incarnation, Member,
    MemberKey, NodeId, Protocol, Role, Time, byzantine_faults,
};

use crate::faults::FaultSet;
use crate::liar::opened;
use crate::node::Waiter;
use crate::notary::{Notary, Scheme, Seal};
use crate::observer::SigningGroup;
use crate::planted::Planted;
use crate::random::Random;

/// One seed of so many runs with real keys.
const REAL_KEYS_EVERY: u64 = 16;
/// How long a batch that one bad signature fails keeps a node from everything else, with the planted bug of that:
/// longer than it is, mostly, until a liar sends the next one.
const BATCH_RETRIED: Duration = Duration::from_secs(5);

/// What every node of a cluster of signing groups agrees on.
#[derive(Clone, Debug)]
pub struct SigningPlan {
    /// Has the keys.
    pub notary: Arc<Notary>,
    /// The members of each group.
    pub sets: BTreeMap<GroupId, Arc<ValidatorSet>>,
    /// The epoch of all groups.
    pub config: EpochConfig,
    /// When blocks commit and how long leaders lead.
    pub rules: Rules,
    /// Who lies.
    pub liars: BTreeSet<NodeId>,
    planted: Option<Planted>,
    accepted: Arc<AcceptedCertificates>,
}

/// How many nodes and groups, and which of the nodes lie.
#[derive(Clone, Debug)]
pub struct Cast {
    /// All nodes.
    pub nodes: Vec<NodeId>,
    /// All groups.
    pub groups: Vec<GroupId>,
    liars: BTreeSet<NodeId>,
}

impl Cast {
    /// The cast of a seed: at most as many liars as are tolerated.
    #[must_use]
    pub fn new(faults: &FaultSet, random: &mut Random) -> Self {
        let count = match random.below(10) {
            0..=4 => 4,
            5 => 5,
            6 => 6,
            _ => 7,
        };
        let mut nodes: Vec<NodeId> = (1..=count).map(NodeId).collect();
        let groups = (1..=if random.chance(400) { 2 } else { 1 }).map(GroupId).collect();
        let most = byzantine_faults(nodes.len()) as u64;
        let lying = if faults.has_lies() && random.chance(850) { random.between(1, most) } else { 0 };
        random.shuffle(&mut nodes);
        let liars = nodes.iter().copied().take(lying as usize).collect();
        nodes.sort_unstable();
        Self { nodes, groups, liars }
    }
}

impl SigningPlan {
    /// The plan of a seed.
    #[must_use]
    pub fn new(
        seed: u64,
        cluster: ClusterId,
        cast: &Cast,
        planted: Option<Planted>,
        random: &mut Random,
    ) -> Self {
        let scheme = if seed.is_multiple_of(REAL_KEYS_EVERY) { Scheme::Ed25519 } else { Scheme::StandIn };
        let notary = Notary::new(scheme, &cast.nodes, cast.liars.clone(), planted);
        let first_leader = random.pick(&cast.nodes).copied().unwrap_or_default();
        let config = epoch(&cast.nodes, first_leader, &notary);
        let set = |group: &GroupId| {
            let set = ValidatorSet::of_epoch(cluster, *group, &config);
            (*group, Arc::new(set.expect("the keys are distinct and there are members enough")))
        };
        let commit_rule = if random.chance(250) { CommitRule::ThreeChain } else { CommitRule::TwoChain };
        // A leader of a few views is gone before its entries are committed, and nobody is told of them.
        let tenure_views = [8, 64, 1_000][random.below(3) as usize];
        Self {
            sets: cast.groups.iter().map(set).collect(),
            config,
            rules: Rules { commit_rule, tenure_views },
            liars: cast.liars.clone(),
            planted,
            accepted: Arc::default(),
            notary,
        }
    }

    /// With what a node's replica of a group signs.
    #[must_use]
    pub fn identity(&self, node: NodeId, group: GroupId, boot: BootNumber) -> Option<Identity> {
        let seal = Arc::new(Seal { node, notary: Arc::clone(&self.notary) });
        Some(Identity {
            set: Arc::clone(self.sets.get(&group)?),
            signer: seal.clone(),
            certifier: seal,
            boot,
            settings: self.rules,
        })
    }

    /// The groups as the observer sees them.
    pub fn watched(&self) -> impl Iterator<Item = (GroupId, SigningGroup)> + '_ {
        let group = |set: &Arc<ValidatorSet>| SigningGroup {
            set: Arc::clone(set),
            config: self.config.clone(),
            tenure_views: self.rules.tenure_views,
        };
        self.sets.iter().map(move |(id, set)| (*id, group(set)))
    }

    /// What a frame that a peer delivered is to a driver; nothing if it is not believed. `blocked` is until
    /// when a batch that failed is verified again, with the planted bug of that.
    pub fn admit(
        &self,
        now: Time,
        from: NodeId,
        frame: &Bytes,
        blocked: &mut Time,
    ) -> Option<DriverInput<Waiter>> {
        if now < *blocked {
            return None;
        }
        let judged = self.judge(from, frame);
        if judged.is_err() && self.planted == Some(Planted::FailsWholeBatch) {
            *blocked = now.after(BATCH_RETRIED);
        }
        judged.ok()?
    }

    /// The input that a frame makes, nothing for bytes that make none; an error for a signature that is not
    /// valid.
    fn judge(&self, from: NodeId, frame: &Bytes) -> Result<Option<DriverInput<Waiter>>, BadSignature> {
        let Some((envelope, message)) = opened(frame) else { return Ok(None) };
        let Some(set) = self.sets.get(&envelope.group) else { return Ok(None) };
        let signed = message.into_signed(from);
        let Ok(check) = signed.check(set) else { return Ok(None) };
        if !self.notary.accepts(&check) {
            return Err(BadSignature);
        }
        if self.notary.scheme() == Scheme::Ed25519 && self.planted.is_none() {
            let Ok((unverified, request)) = Unverified::read(from, frame.clone(), set) else {
                return Ok(None);
            };
            return Ok(unverified.admit_in_place(request, &self.accepted).ok());
        }
        let label = Label {
            group: envelope.group,
            epoch: envelope.epoch,
            incarnation: envelope.incarnation,
            boot: envelope.boot,
            to_incarnation: envelope.to_incarnation,
        };
        // The verdict was reached above, by the notary's rule.
        let message = Verified::from_authenticated_peer(from, envelope.message);
        Ok(Some(DriverInput::Verified(Box::new(VerifiedFrame { label, message }))))
    }
}

/// The first epoch of a group of these nodes, with the keys that the notary has for them.
#[must_use]
pub fn epoch(nodes: &[NodeId], first_leader: NodeId, notary: &Notary) -> EpochConfig {
    let member = |node: &NodeId| Member {
        node: *node,
        incarnation: Incarnation(1),
        role: Role::Voter,
        priority: 1,
        key: notary.key(*node).map(|key| MemberKey(key.to_bytes())),
    };
    EpochConfig {
        epoch: Epoch(1),
        kind: GroupKind::Byzantine,
        protocol: Protocol::HotStuff,
        members: nodes.iter().map(member).collect(),
        first_leader,
        limits: ComponentLimits::default(),
    }
}

/// A signature that is not its signer's.
#[derive(Debug)]
struct BadSignature;
