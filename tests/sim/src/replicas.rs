//! What is watched of the replicas of one group, whichever protocol they follow, and what a protocol's own
//! checks have to judge.
//!
//! Relies on [`DurableReplica`] for the disks, and on links of what was really logged. Promises that logs,
//! disks and stands are told as they happened, and to find replicas that compute different states. Knows of no
//! protocol what it allows.

use std::collections::BTreeMap;
use std::fmt;

use quorate_consensus::Message;
use quorate_storage::GroupAppend;
use quorate_types::{Digest, Entry, LogIndex, NodeId, Position, Term};

use crate::chain::{Chain, Link};
use crate::durable::{DurableReplica, FoundLog};
use crate::violation::{Checked, hold};

/// How a replica stands after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its term, or its view.
    pub term: Term,
    /// Whether it leads.
    pub leads: bool,
    /// The last index that it knows to be committed.
    pub commit: LogIndex,
}

/// What a replica's stand showed for the first time.
#[derive(Debug, Default)]
pub struct Stand {
    /// It leads, and did not lead this term before.
    pub is_elected: bool,
    /// Entries that nobody saw committed before.
    pub committed: Vec<Entry>,
}

/// The logs of a group, judged by its protocol's promises.
pub trait Logs: fmt::Debug {
    /// The replicas.
    fn replicas(&self) -> &Replicas;

    /// To tell them what happened.
    fn replicas_mut(&mut self) -> &mut Replicas;

    /// The last index that anyone saw committed.
    fn commit(&self) -> LogIndex;

    /// The last index that every replica has to have applied once all is quiet.
    fn settled(&self) -> LogIndex;

    /// The link of a position up to which a replica says that it holds the log.
    ///
    /// # Errors
    ///
    /// A violation, for one that no replica can have come to.
    fn link(&self, node: NodeId, position: Position) -> Checked<Link>;

    /// A replica has started and found this log, and in the tables a checkpoint at this position.
    ///
    /// # Errors
    ///
    /// A violation of durability.
    fn started(&mut self, node: NodeId, found: &FoundLog<'_>, checkpoint: Position) -> Checked;

    /// A replica asked for entries to be appended, and stands like this after that turn; how many others they
    /// replaced.
    ///
    /// # Errors
    ///
    /// A violation of log matching or append-only.
    fn logged(&mut self, node: NodeId, entries: &[Entry], standing: Standing) -> Checked<usize>;

    /// A replica stands like this after a turn.
    ///
    /// # Errors
    ///
    /// A violation of one of the invariants over logs and leaders.
    fn stands(&mut self, node: NodeId, standing: Standing) -> Checked<Stand>;

    /// Records were given to a replica's disk and are not flushed.
    ///
    /// # Errors
    ///
    /// A broken promise.
    fn appended(&mut self, node: NodeId, append: &GroupAppend) -> Checked;

    /// A message leaves a node; whether it promises something that was checked.
    ///
    /// # Errors
    ///
    /// A violation of persist-before-send, a broken promise, or an unsafe vote.
    fn leaves(&mut self, node: NodeId, to: NodeId, message: &Message) -> Checked<bool>;

    /// A replica's log was replaced by a snapshot.
    ///
    /// # Errors
    ///
    /// As [`Logs::link`].
    fn reset(&mut self, node: NodeId, position: Position) -> Checked {
        let base = self.link(node, position)?;
        if let Some(replica) = self.replicas_mut().get_mut(node) {
            replica.log = Chain::after(base);
            replica.commit = replica.commit.max(position.index);
        }
        Ok(())
    }

    /// A replica's disk voids its log up to a snapshot, not flushed.
    ///
    /// # Errors
    ///
    /// As [`Logs::link`].
    fn voided(&mut self, node: NodeId, position: Position) -> Checked {
        let base = self.link(node, position)?;
        if let Some(replica) = self.replicas_mut().get_mut(node) {
            replica.durable.reset(base);
        }
        Ok(())
    }

    /// A fetched snapshot is in a node's tables.
    ///
    /// # Errors
    ///
    /// As [`Logs::link`].
    fn installed(&mut self, node: NodeId, position: Position) -> Checked {
        let base = self.link(node, position)?;
        if let Some(replica) = self.replicas_mut().get_mut(node) {
            replica.durable.installed(base);
        }
        Ok(())
    }
}

/// What is known of one replica.
#[derive(Debug)]
pub struct Watched {
    /// Its log as it asked for it, flushed or not.
    pub log: Chain,
    /// Its disk.
    pub durable: DurableReplica,
    /// Where it stood after its last turn.
    pub term: Term,
    /// Whether it led then.
    pub leads: bool,
    /// The last index that it ever knew to be committed.
    pub commit: LogIndex,
    /// Where it last took the digest of its state.
    digest_at: LogIndex,
}

/// The replicas of a group.
#[derive(Debug)]
pub struct Replicas {
    replicas: BTreeMap<NodeId, Watched>,
    /// The first digest taken at each index, and who took it.
    digests: BTreeMap<LogIndex, (Digest, NodeId)>,
}

impl Replicas {
    /// Replicas on these nodes that never ran.
    #[must_use]
    pub fn new(nodes: impl IntoIterator<Item = NodeId>, first_leader: NodeId) -> Self {
        let replica = |node: NodeId| Watched {
            log: Chain::default(),
            durable: DurableReplica::new(node, first_leader),
            term: Term::ZERO,
            leads: false,
            commit: LogIndex::ZERO,
            digest_at: LogIndex::ZERO,
        };
        let replicas = nodes.into_iter().map(|node| (node, replica(node))).collect();
        Self { replicas, digests: BTreeMap::new() }
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, node: NodeId) -> Option<&Watched> {
        self.replicas.get(&node)
    }

    /// One of them, to tell it what happened.
    pub fn get_mut(&mut self, node: NodeId) -> Option<&mut Watched> {
        self.replicas.get_mut(&node)
    }

    /// All durable logs.
    pub fn durable(&self) -> impl Iterator<Item = (NodeId, &Chain)> + Clone {
        self.replicas.iter().map(|(node, replica)| (*node, replica.durable.log()))
    }

    /// The replica that leads the latest term, if it still does.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        let leading = self.replicas.iter().filter(|(_, replica)| replica.leads);
        leading.max_by_key(|(_, replica)| replica.term).map(|(node, _)| *node)
    }

    /// The last index that a replica logged.
    #[must_use]
    pub fn last_of(&self, node: NodeId) -> LogIndex {
        self.get(node).map_or(LogIndex::ZERO, |replica| replica.log.last().position.index)
    }

    /// Whether a replica has appended something that is not flushed.
    #[must_use]
    pub fn is_unflushed(&self, node: NodeId) -> bool {
        self.get(node).is_some_and(|replica| replica.durable.is_unflushed())
    }

    /// A replica has started and found this log after a checkpoint at `base`.
    ///
    /// # Errors
    ///
    /// A violation of durability.
    pub fn started(
        &mut self,
        node: NodeId,
        found: &FoundLog<'_>,
        base: Link,
        is_known: impl Fn(&Entry) -> bool,
    ) -> Checked {
        let Some(replica) = self.get_mut(node) else { return Ok(()) };
        replica.durable.recovered(found, is_known)?;
        replica.durable.installed(base);
        replica.log = replica.durable.log().clone();
        replica.leads = false;
        replica.commit = base.position.index;
        replica.digest_at = LogIndex::ZERO;
        Ok(())
    }

    /// A replica has ended.
    pub fn ended(&mut self, node: NodeId) {
        if let Some(replica) = self.get_mut(node) {
            replica.leads = false;
        }
    }

    /// All that was given to a node's disk is durable.
    pub fn flushed(&mut self, node: NodeId) {
        if let Some(replica) = self.get_mut(node) {
            replica.durable.flushed();
        }
    }

    /// A replica stands like this after a turn; whether it leads a term that it did not lead before, and from where to
    /// where it commits.
    pub fn stands(&mut self, node: NodeId, standing: Standing) -> Option<(bool, (LogIndex, LogIndex))> {
        let replica = self.get_mut(node)?;
        let Standing { term, leads, commit } = standing;
        let takes_over = leads && !(replica.leads && replica.term == term);
        (replica.term, replica.leads) = (term, leads);
        let range = (replica.commit, commit.max(replica.commit));
        replica.commit = range.1;
        Some((takes_over, range))
    }

    /// A replica took the digest of its state; whether there was another's to compare it with.
    ///
    /// # Errors
    ///
    /// A violation of equal digests.
    pub fn digest(&mut self, node: NodeId, index: LogIndex, digest: Digest) -> Checked<bool> {
        let Some(replica) = self.replicas.get_mut(&node) else { return Ok(false) };
        if replica.digest_at == index {
            return Ok(false);
        }
        replica.digest_at = index;
        let (first, other) = *self.digests.entry(index).or_insert((digest, node));
        hold!(
            first == digest,
            EqualDigests,
            "at index {index} node {node} has digest {} and node {other} has {}",
            digest.short(),
            first.short()
        );
        Ok(other != node)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::violation::Invariant;

    fn replicas() -> Replicas {
        Replicas::new((1..=3).map(NodeId), NodeId(1))
    }

    #[test]
    fn equal_digests_at_one_index_are_compared_once_each_and_others_are_found() {
        let mut replicas = replicas();
        let (one, other, index) = (Digest([1; 32]), Digest([2; 32]), LogIndex(8));
        assert_eq!(replicas.digest(NodeId(1), index, one), Ok(false));
        assert_eq!(replicas.digest(NodeId(2), index, one), Ok(true));
        assert_eq!(replicas.digest(NodeId(2), index, one), Ok(false));
        let broken = replicas.digest(NodeId(3), index, other).unwrap_err().invariant;
        assert_eq!(broken, Invariant::EqualDigests);
        assert_eq!(replicas.digest(NodeId(3), LogIndex(9), other), Ok(false));
    }

    /// A replica that computes its state again after a restart is held against itself, which is no comparison.
    #[test]
    fn a_replica_that_starts_again_must_come_to_its_own_digest() {
        let mut replicas = replicas();
        let found = FoundLog { hard_state: None, entries: &[], checkpoint: LogIndex::ZERO };
        replicas.digest(NodeId(1), LogIndex(8), Digest([1; 32])).unwrap();
        let start = |replicas: &mut Replicas| replicas.started(NodeId(1), &found, Link::start(), |_| true);
        start(&mut replicas).unwrap();
        assert_eq!(replicas.digest(NodeId(1), LogIndex(8), Digest([1; 32])), Ok(false));
        start(&mut replicas).unwrap();
        let broken = replicas.digest(NodeId(1), LogIndex(8), Digest([2; 32])).unwrap_err().invariant;
        assert_eq!(broken, Invariant::EqualDigests);
    }

    #[test]
    fn whoever_leads_a_term_takes_over_once_and_the_latest_leads() {
        let mut replicas = replicas();
        let stands = |replicas: &mut Replicas, node, term, leads| {
            let standing = Standing { term: Term(term), leads, commit: LogIndex::ZERO };
            replicas.stands(NodeId(node), standing).unwrap().0
        };
        assert!(stands(&mut replicas, 1, 1, true));
        assert!(stands(&mut replicas, 2, 5, true));
        assert!(!stands(&mut replicas, 2, 5, true));
        assert_eq!(replicas.leader(), Some(NodeId(2)));
        assert!(!stands(&mut replicas, 2, 5, false));
        assert_eq!(replicas.leader(), Some(NodeId(1)));
        replicas.ended(NodeId(1));
        assert_eq!(replicas.leader(), None);
    }

    /// What could go wrong: a commit index that falls, after a restart or in a report, has entries counted twice.
    #[test]
    fn what_a_replica_commits_begins_where_it_ended_before() {
        let mut replicas = replicas();
        let mut commits = |commit| {
            let standing = Standing { term: Term(1), leads: false, commit: LogIndex(commit) };
            replicas.stands(NodeId(1), standing).unwrap().1
        };
        assert_eq!(commits(4), (LogIndex(0), LogIndex(4)));
        assert_eq!(commits(3), (LogIndex(4), LogIndex(4)));
        assert_eq!(commits(6), (LogIndex(4), LogIndex(6)));
    }
}
