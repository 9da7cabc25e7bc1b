//! What unit tests of lies need: four members, one of which lies, and sound blocks, certificates and envelopes to lie
//! about.
//!
//! Relies on the notary. Promises that what it makes is what honest replicas would send. Compiled only for tests.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use quorate_consensus::hotstuff::{Block, Body, Header, Justify, Message, Proposal};
use quorate_consensus::{Envelope, Message as AnyMessage};
use quorate_crypto::{Certificate, Signature, Statement, StatementKind, ValidatorSet};
use quorate_types::{
    BootNumber, ClusterId, Digest, EntryKind, Epoch, EpochConfig, GroupId, HlcTimestamp, Incarnation,
    LogIndex, NodeId, Position, Term, View,
};

use crate::notary::{Notary, Scheme, Seal};
use crate::random::Random;
use crate::signing::epoch;

/// The member that lies.
pub const LIAR: NodeId = NodeId(4);

/// A group of four of which the first leads.
#[derive(Debug)]
pub struct Scene {
    /// Has the keys.
    pub notary: Arc<Notary>,
    /// The epoch.
    pub config: EpochConfig,
    /// The members.
    pub set: ValidatorSet,
    /// The liar's.
    pub seal: Seal,
    /// Where chance comes from.
    pub random: Random,
}

impl Scene {
    /// The scene.
    pub fn new() -> Self {
        let nodes: Vec<NodeId> = (1..=4).map(NodeId).collect();
        let notary = Notary::new(Scheme::StandIn, &nodes, BTreeSet::from([LIAR]), None);
        let config = epoch(&nodes, NodeId(1), &notary);
        let set = ValidatorSet::of_epoch(ClusterId([1; 16]), GroupId(1), &config).unwrap();
        let seal = Seal { node: LIAR, notary: Arc::clone(&notary) };
        Self { notary, config, set, seal, random: Random::new(5) }
    }

    /// What a quorum said of a block, in this group or in another.
    pub fn certified(&self, block: &Block, set: &ValidatorSet) -> Certificate {
        let header = block.header();
        let (kind, view, index) = (StatementKind::Vote, header.view(), header.position.index);
        let statement = Statement { scope: *set.scope(), kind, view, index, digest: block.digest() };
        let votes = (1..=3).map(|node| (NodeId(node), self.notary.sign(NodeId(node), &statement)));
        Certificate::assemble(statement, set, votes).unwrap()
    }

    /// A sound proposal of a view from the second on, in which nothing timed out before.
    pub fn proposal(&self, view: u64, body: &'static [u8]) -> Proposal {
        let parent = block(Digest([1; 32]), view - 1, b"parent");
        let justify = Justify::Certified(Box::new(self.certified(&parent, &self.set)));
        Proposal { block: block(parent.digest(), view, body), justify, timed_out: None }
    }

    /// Unsigned.
    pub fn message(&self, body: Body) -> Message {
        Message { scope: *self.set.scope(), body, signature: Signature([0; 64]) }
    }
}

/// A block of a view of the first tenure, at the index of the same number; empty if it has no body.
pub fn block(parent: Digest, view: u64, body: &'static [u8]) -> Block {
    let position = Position { epoch: Epoch(1), term: Term(view), index: LogIndex(view) };
    let kind = if body.is_empty() { EntryKind::Empty } else { EntryKind::Batch };
    let (tenure, hlc) = (View(1), HlcTimestamp(view * 10));
    Block::new(
        Header { parent, tenure, position, hlc, kind, body: Digest([0; 32]) },
        Bytes::from_static(body),
    )
}

/// A message as a member in its first life sends it to another one.
pub fn envelope(message: Message) -> Envelope {
    Envelope {
        group: GroupId(1),
        epoch: Epoch(1),
        incarnation: Incarnation(1),
        boot: BootNumber(1),
        to_incarnation: Incarnation(1),
        message: AnyMessage::HotStuff(message),
    }
}
