//! What must hold of one Raft group, checked as its replicas log, lead, commit, promise and compute.
//!
//! Relies on [`GroupHistory`] for the logs and on [`DurableReplica`] for the disks. Promises to judge from what
//! nodes log, send and keep, never from what they say about themselves where it can be seen. Knows no outcome.

use std::collections::BTreeMap;

use quorate_consensus::ReplicaRole;
use quorate_consensus::raft::{Body, Message, Pledge, Statement};
use quorate_node::driver::GroupReport;
use quorate_storage::GroupAppend;
use quorate_types::{Entry, LogIndex, NodeId, Position, Term};

use crate::agreement::Stand;
use crate::chain::{Chain, Link};
use crate::durable::{DurableReplica, FoundLog};
use crate::history::GroupHistory;
use crate::violation::{Checked, hold};

/// What is known of one replica.
#[derive(Debug)]
struct ReplicaWatch {
    /// Its log as it asked for it, flushed or not.
    log: Chain,
    durable: DurableReplica,
    term: Term,
    leads: bool,
    commit: LogIndex,
    digest_at: LogIndex,
}

/// The logs of a group and what its replicas promised.
#[derive(Debug)]
pub struct RaftLogs {
    history: GroupHistory,
    replicas: BTreeMap<NodeId, ReplicaWatch>,
}

impl RaftLogs {
    /// A group whose replicas run on the nodes given.
    #[must_use]
    pub fn new(nodes: &[NodeId], first_leader: NodeId) -> Self {
        let replica = |node: NodeId| ReplicaWatch {
            log: Chain::default(),
            durable: DurableReplica::new(node, first_leader),
            term: Term::ZERO,
            leads: false,
            commit: LogIndex::ZERO,
            digest_at: LogIndex::ZERO,
        };
        Self {
            history: GroupHistory::new(nodes.len() / 2 + 1),
            replicas: nodes.iter().map(|node| (*node, replica(*node))).collect(),
        }
    }

    /// The last index that anyone saw committed.
    #[must_use]
    pub fn commit(&self) -> LogIndex {
        self.history.commit()
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
        self.replicas.get(&node).map_or(LogIndex::ZERO, |replica| replica.log.last().position.index)
    }

    /// Whether a replica has appended something that is not flushed.
    #[must_use]
    pub fn is_unflushed(&self, node: NodeId) -> bool {
        self.replicas.get(&node).is_some_and(|replica| replica.durable.is_unflushed())
    }

    /// A replica has started and found this log, and in the tables a checkpoint at this position.
    ///
    /// # Errors
    ///
    /// A violation of durability.
    pub fn started(&mut self, node: NodeId, found: &FoundLog<'_>, checkpoint: Position) -> Checked {
        let Some(replica) = self.replicas.get_mut(&node) else { return Ok(()) };
        let base = known(&self.history, node, checkpoint)?;
        let history = &self.history;
        let is_known = |entry: &Entry| history.entry(entry.index(), entry.position.term) == Some(entry);
        replica.durable.recovered(found, is_known)?;
        replica.durable.installed(base);
        replica.log = replica.durable.log().clone();
        replica.leads = false;
        replica.commit = checkpoint.index;
        replica.digest_at = LogIndex::ZERO;
        Ok(())
    }

    /// A replica has ended.
    pub fn ended(&mut self, node: NodeId) {
        if let Some(replica) = self.replicas.get_mut(&node) {
            replica.leads = false;
        }
    }

    /// A replica's log was replaced by a snapshot.
    ///
    /// # Errors
    ///
    /// A violation, for a snapshot of no history that anyone logged.
    pub fn reset(&mut self, node: NodeId, position: Position) -> Checked {
        let base = known(&self.history, node, position)?;
        if let Some(replica) = self.replicas.get_mut(&node) {
            replica.log = Chain::after(base);
            replica.commit = replica.commit.max(position.index);
        }
        Ok(())
    }

    /// A replica asked for records to be appended, and stands as `report` says after that turn; how many entries
    /// they replaced.
    ///
    /// # Errors
    ///
    /// A violation of log matching or append-only.
    pub fn logged(&mut self, node: NodeId, append: &GroupAppend, report: &GroupReport) -> Checked<usize> {
        let Some(replica) = self.replicas.get_mut(&node) else { return Ok(0) };
        let leads = replica.leads && report.role == ReplicaRole::Leader && report.term == replica.term;
        self.history.logged(node, leads, &mut replica.log, &append.entries)
    }

    /// How a replica stands after a turn.
    ///
    /// # Errors
    ///
    /// A violation of one of the invariants over logs and leaders.
    pub fn stands(&mut self, node: NodeId, report: &GroupReport) -> Checked<Stand> {
        let mut stand = Stand::default();
        let Some(replica) = self.replicas.get_mut(&node) else { return Ok(stand) };
        let leads = report.role == ReplicaRole::Leader;
        if leads && !(replica.leads && replica.term == report.term) {
            stand.is_elected = report.term > Term(1);
            self.history.leads(node, report.term, &replica.log)?;
        }
        replica.leads = leads;
        replica.term = report.term;
        let range = (replica.commit, report.commit.max(replica.commit));
        replica.commit = range.1;
        if range.0 < range.1 {
            let log = &self.replicas[&node].log;
            let durable = self.replicas.iter().map(|(node, replica)| (*node, replica.durable.log()));
            stand.committed = self.history.commits(node, report.term, range, log, durable)?;
        }
        Ok(stand)
    }

    /// A replica took the digest of its state; whether there was another to compare it with.
    ///
    /// # Errors
    ///
    /// A violation of equal digests.
    pub fn digest(&mut self, node: NodeId, index: LogIndex, digest: quorate_types::Digest) -> Checked<bool> {
        let Some(replica) = self.replicas.get_mut(&node) else { return Ok(false) };
        if index == replica.digest_at {
            return Ok(false);
        }
        replica.digest_at = index;
        self.history.digest(node, index, digest)
    }

    /// Records were given to a replica's disk and are not flushed.
    ///
    /// # Errors
    ///
    /// A broken promise.
    pub fn appended(&mut self, node: NodeId, append: &GroupAppend) -> Checked {
        let Some(replica) = self.replicas.get_mut(&node) else { return Ok(()) };
        let mut links = Vec::with_capacity(append.entries.len());
        for entry in &append.entries {
            links.push(known(&self.history, node, entry.position)?);
        }
        let before = match append.entries.first() {
            Some(first) => self.history.before(first),
            None => Link::start(),
        };
        replica.durable.appended(replica.term, append.hard_state.clone(), before, links)
    }

    /// A replica's disk voids its log up to a snapshot, not flushed.
    ///
    /// # Errors
    ///
    /// A violation, for a snapshot of no history that anyone logged.
    pub fn voided(&mut self, node: NodeId, position: Position) -> Checked {
        let Some(replica) = self.replicas.get_mut(&node) else { return Ok(()) };
        replica.durable.reset(known(&self.history, node, position)?);
        Ok(())
    }

    /// All that was given to a node's disk is durable.
    pub fn flushed(&mut self, node: NodeId) {
        if let Some(replica) = self.replicas.get_mut(&node) {
            replica.durable.flushed();
        }
    }

    /// A fetched snapshot is in a node's tables.
    ///
    /// # Errors
    ///
    /// A violation, for a snapshot of no history that anyone logged.
    pub fn installed(&mut self, node: NodeId, position: Position) -> Checked {
        let base = known(&self.history, node, position)?;
        if let Some(replica) = self.replicas.get_mut(&node) {
            replica.durable.installed(base);
        }
        Ok(())
    }

    /// A message leaves a node; whether it promises something that was checked.
    ///
    /// # Errors
    ///
    /// A violation of persist-before-send, or a broken promise.
    pub fn leaves(&mut self, node: NodeId, to: NodeId, message: &Message) -> Checked<bool> {
        let Some(replica) = self.replicas.get_mut(&node) else { return Ok(false) };
        let term = message.term;
        match message.body {
            Body::Pledge(Pledge::Vote) => replica.durable.vote_leaves(term, to)?,
            Body::Pledge(Pledge::Candidacy { .. }) => replica.durable.candidacy_leaves(term)?,
            Body::Pledge(Pledge::AppendAck { matched }) => {
                replica.durable.acknowledgement_leaves(term, matched, &self.history)?;
            }
            Body::Statement(Statement::Append { .. } | Statement::Heartbeat { .. }) => {
                let leader = self.history.leader_of(term);
                hold!(
                    leader.is_none_or(|leader| leader == node),
                    ElectionSafety,
                    "node {node} speaks as leader of {term}, which {leader:?} leads"
                );
                return Ok(false);
            }
            Body::Statement(_) => return Ok(false),
        }
        Ok(true)
    }
}

fn known(history: &GroupHistory, node: NodeId, position: Position) -> Checked<Link> {
    let link = history.known(position.index, position.term);
    hold!(link.is_some(), StateMachineSafety, "node {node} holds {position}, which no replica ever logged");
    Ok(link.unwrap_or_else(Link::start))
}
