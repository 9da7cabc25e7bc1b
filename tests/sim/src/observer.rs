//! The observer of a run: everything that happens is told to it, and it holds every invariant against it.
//!
//! Relies on histories for the logs, on durable replicas for the disks and on the reference model for
//! outcomes. Promises to judge from what nodes log, send, answer and keep, never from what they say about
//! themselves where it can be seen. Drives nothing.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_consensus::raft::{Body, Pledge, Statement};
use quorate_consensus::{Envelope, Message, ReplicaRole};
use quorate_node::driver::GroupReport;
use quorate_storage::GroupAppend;
use quorate_types::{GroupId, LogIndex, NodeId, Outcome, Position, Sequence, SessionId, Term};

use crate::chain::{Chain, Link};
use crate::client::Floor;
use crate::durable::{DurableReplica, FoundLog};
use crate::history::GroupHistory;
use crate::model::ReferenceModel;
use crate::node::{Found, Record};
use crate::statistics::Statistics;
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

/// What is known of one group.
#[derive(Debug)]
struct GroupWatch {
    history: GroupHistory,
    model: ReferenceModel,
    replicas: BTreeMap<NodeId, ReplicaWatch>,
    /// Acknowledged to their clients.
    acknowledged: BTreeMap<(SessionId, Sequence), LogIndex>,
    floor: Floor,
}

/// The observer.
#[derive(Debug)]
pub struct Observer {
    groups: BTreeMap<GroupId, GroupWatch>,
    statistics: Statistics,
}

impl Observer {
    /// An observer of groups whose replicas run on the nodes given.
    #[must_use]
    pub fn new(groups: &[GroupId], nodes: &[NodeId], first_leader: NodeId) -> Self {
        let replica = |node: NodeId| ReplicaWatch {
            log: Chain::default(),
            durable: DurableReplica::new(node, first_leader),
            term: Term::ZERO,
            leads: false,
            commit: LogIndex::ZERO,
            digest_at: LogIndex::ZERO,
        };
        let watch = || GroupWatch {
            history: GroupHistory::new(nodes.len() / 2 + 1),
            model: ReferenceModel::default(),
            replicas: nodes.iter().map(|node| (*node, replica(*node))).collect(),
            acknowledged: BTreeMap::new(),
            floor: Floor::default(),
        };
        Self {
            groups: groups.iter().map(|group| (*group, watch())).collect(),
            statistics: Statistics::default(),
        }
    }

    /// What was seen so far.
    #[must_use]
    pub fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    /// To count what only the driving side sees.
    pub fn statistics_mut(&mut self) -> &mut Statistics {
        &mut self.statistics
    }

    /// The last index of a group that anyone saw committed.
    #[must_use]
    pub fn commit(&self, group: GroupId) -> LogIndex {
        self.groups.get(&group).map_or(LogIndex::ZERO, |watch| watch.history.commit())
    }

    /// The replica that leads the latest term of a group, if it still does.
    #[must_use]
    pub fn leader(&self, group: GroupId) -> Option<NodeId> {
        let leading = self.groups.get(&group)?.replicas.iter().filter(|(_, replica)| replica.leads);
        leading.max_by_key(|(_, replica)| replica.term).map(|(node, _)| *node)
    }

    /// How many committed entries a replica has not logged.
    #[must_use]
    pub fn behind(&self, group: GroupId, node: NodeId) -> u64 {
        let Some(watch) = self.groups.get(&group) else { return 0 };
        let last = watch.replicas.get(&node).map_or(0, |replica| replica.log.last().position.index.0);
        watch.history.commit().0.saturating_sub(last)
    }

    /// What a query asked now must see.
    #[must_use]
    pub fn floor(&self, group: GroupId) -> Floor {
        self.groups.get(&group).map_or(Floor::default(), |watch| watch.floor)
    }

    /// The model of a group's state after all that is committed.
    #[must_use]
    pub fn model(&self, group: GroupId) -> Option<&ReferenceModel> {
        self.groups.get(&group).map(|watch| &watch.model)
    }

    /// Whether a node has appended something that is not flushed.
    #[must_use]
    pub fn is_unflushed(&self, node: NodeId) -> bool {
        self.groups
            .values()
            .filter_map(|watch| watch.replicas.get(&node))
            .any(|replica| replica.durable.is_unflushed())
    }

    /// A node has started and found this.
    ///
    /// # Errors
    ///
    /// A violation of durability.
    pub fn started(&mut self, node: NodeId, found: &Found) -> Checked {
        hold!(
            found.recovery.damage.is_none(),
            Durability,
            "node {node} finds its log damaged by a crash: {:?}",
            found.recovery.damage
        );
        for (group, watch) in &mut self.groups {
            let Some(replica) = watch.replicas.get_mut(&node) else { continue };
            let position = found.checkpoints.get(group).copied().unwrap_or(Position::ZERO);
            let checkpoint = known(&watch.history, node, position)?;
            let group = found.recovery.groups.get(group);
            let log = FoundLog {
                hard_state: group.and_then(|group| group.hard_state.as_ref()),
                entries: group.map_or(&[], |group| &group.entries),
                checkpoint: position.index,
            };
            replica.durable.recovered(&log, &watch.history)?;
            replica.durable.installed(checkpoint);
            replica.log = replica.durable.log().clone();
            replica.leads = false;
            replica.commit = position.index;
            replica.digest_at = LogIndex::ZERO;
        }
        Ok(())
    }

    /// A node has ended.
    pub fn ended(&mut self, node: NodeId) {
        self.statistics.crashes += 1;
        if self.is_unflushed(node) {
            self.statistics.unflushed_crashes += 1;
        }
        for replica in self.groups.values_mut().filter_map(|watch| watch.replicas.get_mut(&node)) {
            replica.leads = false;
        }
    }

    /// A replica's log was replaced by a snapshot.
    ///
    /// # Errors
    ///
    /// A violation, for a snapshot of no history that anyone logged.
    pub fn reset(&mut self, node: NodeId, group: GroupId, position: Position) -> Checked {
        let Some(watch) = self.groups.get_mut(&group) else { return Ok(()) };
        let base = known(&watch.history, node, position)?;
        if let Some(replica) = watch.replicas.get_mut(&node) {
            replica.log = Chain::after(base);
            replica.commit = replica.commit.max(position.index);
        }
        Ok(())
    }

    /// A replica asked for records to be appended; `report` is how it stands after that turn.
    ///
    /// # Errors
    ///
    /// A violation of log matching or append-only.
    pub fn logged(&mut self, node: NodeId, append: &GroupAppend, report: &GroupReport) -> Checked {
        let Some(watch) = self.groups.get_mut(&append.group) else { return Ok(()) };
        let Some(replica) = watch.replicas.get_mut(&node) else { return Ok(()) };
        let leads = replica.leads && report.role == ReplicaRole::Leader && report.term == replica.term;
        let replaced = watch.history.logged(node, leads, &mut replica.log, &append.entries)?;
        self.statistics.conflicts += u64::from(replaced > 0);
        Ok(())
    }

    /// How a replica stands after a turn.
    ///
    /// # Errors
    ///
    /// A violation of one of the invariants over logs, leaders and digests.
    pub fn stands(&mut self, node: NodeId, group: GroupId, report: &GroupReport) -> Checked {
        let Some(watch) = self.groups.get_mut(&group) else { return Ok(()) };
        let refused = report.fenced.as_ref().or(report.halted.as_ref());
        hold!(refused.is_none(), NoFence, "node {node} took its replica of {group} out: {refused:?}");
        let Some(replica) = watch.replicas.get_mut(&node) else { return Ok(()) };
        let leads = report.role == ReplicaRole::Leader;
        if leads && !(replica.leads && replica.term == report.term) {
            self.statistics.elections += u64::from(report.term > Term(1));
            watch.history.leads(node, report.term, &replica.log)?;
        }
        replica.leads = leads;
        replica.term = report.term;
        let range = (replica.commit, report.commit.max(replica.commit));
        replica.commit = range.1;
        if range.0 < range.1 {
            let log = &watch.replicas[&node].log;
            let durable = watch.replicas.iter().map(|(node, replica)| (*node, replica.durable.log()));
            for entry in watch.history.commits(node, report.term, range, log, durable)? {
                self.statistics.committed += 1;
                watch.model.apply(&entry);
            }
        }
        if let Some((index, digest)) = report.digest {
            let replica = watch.replicas.get_mut(&node).expect("it was there a moment ago");
            if index != replica.digest_at {
                replica.digest_at = index;
                self.statistics.digests_compared += u64::from(watch.history.digest(node, index, digest)?);
            }
        }
        Ok(())
    }

    /// Records were given to a node's log and are not flushed.
    ///
    /// # Errors
    ///
    /// A broken promise.
    pub fn appended(&mut self, node: NodeId, written: &[Record]) -> Checked {
        for record in written {
            let group = match record {
                Record::Append(append) => append.group,
                Record::Reset(group, _) => *group,
            };
            let Some(watch) = self.groups.get_mut(&group) else { continue };
            let Some(replica) = watch.replicas.get_mut(&node) else { continue };
            match record {
                Record::Reset(_, position) => replica.durable.reset(known(&watch.history, node, *position)?),
                Record::Append(append) => {
                    let mut links = Vec::with_capacity(append.entries.len());
                    for entry in &append.entries {
                        links.push(known(&watch.history, node, entry.position)?);
                    }
                    let before = match append.entries.first() {
                        Some(first) => watch.history.before(first),
                        None => Link::start(),
                    };
                    replica.durable.appended(replica.term, append.hard_state.clone(), before, links)?;
                }
            }
        }
        Ok(())
    }

    /// All that was given to a node's log is durable.
    pub fn flushed(&mut self, node: NodeId) {
        for replica in self.groups.values_mut().filter_map(|watch| watch.replicas.get_mut(&node)) {
            replica.durable.flushed();
        }
    }

    /// A fetched snapshot is in a node's tables.
    ///
    /// # Errors
    ///
    /// A violation, for a snapshot of no history that anyone logged.
    pub fn installed(&mut self, node: NodeId, group: GroupId, position: Position) -> Checked {
        let Some(watch) = self.groups.get_mut(&group) else { return Ok(()) };
        let base = known(&watch.history, node, position)?;
        if let Some(replica) = watch.replicas.get_mut(&node) {
            replica.durable.installed(base);
        }
        self.statistics.snapshot_installs += 1;
        Ok(())
    }

    /// A frame leaves a node.
    ///
    /// # Errors
    ///
    /// A violation of persist-before-send, or a broken promise.
    pub fn leaves(&mut self, node: NodeId, to: NodeId, frame: &Bytes) -> Checked {
        let envelope = Envelope::decode(frame.clone());
        hold!(envelope.is_ok(), PersistBeforeSend, "node {node} sends bytes that are no envelope");
        let Ok(envelope) = envelope else { return Ok(()) };
        let Some(watch) = self.groups.get_mut(&envelope.group) else { return Ok(()) };
        let Some(replica) = watch.replicas.get_mut(&node) else { return Ok(()) };
        let Message::Raft(message) = envelope.message else { return Ok(()) };
        let term = message.term;
        match message.body {
            Body::Pledge(Pledge::Vote) => replica.durable.vote_leaves(term, to)?,
            Body::Pledge(Pledge::Candidacy { .. }) => replica.durable.candidacy_leaves(term)?,
            Body::Pledge(Pledge::AppendAck { matched }) => {
                replica.durable.acknowledgement_leaves(term, matched, &watch.history)?;
            }
            Body::Statement(Statement::Append { .. } | Statement::Heartbeat { .. }) => {
                let leader = watch.history.leader_of(term);
                hold!(
                    leader.is_none_or(|leader| leader == node),
                    ElectionSafety,
                    "node {node} speaks as leader of {term}, which {leader:?} leads"
                );
                return Ok(());
            }
            Body::Statement(_) => return Ok(()),
        }
        self.statistics.promises_checked += 1;
        Ok(())
    }

    /// A node gives an outcome for an item to whoever waits for it.
    ///
    /// # Errors
    ///
    /// A violation, if it is not the outcome that the history gives.
    pub fn answers(
        &self,
        group: GroupId,
        (session, sequence): (SessionId, Sequence),
        outcome: &Outcome,
        index: LogIndex,
    ) -> Checked {
        let Some(watch) = self.groups.get(&group) else { return Ok(()) };
        hold!(
            index <= watch.history.commit(),
            AcknowledgedSurvives,
            "command {session}/{sequence} of {group} is answered at {index} before anything there is committed"
        );
        let expected = watch.model.outcomes_at(session, sequence, index);
        hold!(
            expected.iter().any(|expected| expected.matches(outcome)),
            ExactlyOnce,
            "command {session}/{sequence} of {group} has the outcome {outcome:?} at {index}; the history gives \
             {expected:?}"
        );
        Ok(())
    }

    /// A client received the outcome of a command.
    ///
    /// # Errors
    ///
    /// A violation, if the history carries it out otherwise.
    pub fn acknowledged(
        &mut self,
        group: GroupId,
        (session, sequence): (SessionId, Sequence),
        outcome: &Outcome,
        index: LogIndex,
    ) -> Checked {
        let Some(watch) = self.groups.get_mut(&group) else { return Ok(()) };
        let expected = watch.model.outcome(session, sequence);
        hold!(
            expected.is_some_and(|expected| expected.matches(outcome)),
            ExactlyOnce,
            "client of {session} was told {outcome:?} for {sequence} at {index}; the history gives {expected:?}"
        );
        watch.acknowledged.insert((session, sequence), index);
        watch.floor.index = watch.floor.index.max(index);
        self.statistics.acknowledged += 1;
        Ok(())
    }

    /// A client received the answer to a linearizable query.
    ///
    /// # Errors
    ///
    /// A violation of fresh reads.
    pub fn queried(&mut self, group: GroupId, floor: Floor, outcome: &Outcome, index: LogIndex) -> Checked {
        let Some(watch) = self.groups.get_mut(&group) else { return Ok(()) };
        hold!(
            index >= floor.index,
            FreshReads,
            "a query of {group} was answered from index {index} though {} was acknowledged before it was asked",
            floor.index
        );
        let fault = watch.model.query_fault(index, outcome);
        hold!(
            fault.is_none(),
            FreshReads,
            "a query of {group} at index {index} was answered with {outcome:?}: {}",
            fault.unwrap_or_default()
        );
        watch.floor.index = watch.floor.index.max(index);
        self.statistics.queries += 1;
        Ok(())
    }

    /// At the end: every acknowledged command stands in the history where it was acknowledged.
    ///
    /// # Errors
    ///
    /// A violation, for the first that does not.
    pub fn all_survive(&self) -> Checked {
        for (group, watch) in &self.groups {
            for ((session, sequence), index) in &watch.acknowledged {
                hold!(
                    watch.model.outcome(*session, *sequence).is_some() && *index <= watch.history.commit(),
                    AcknowledgedSurvives,
                    "command {session}/{sequence} of {group}, acknowledged at {index}, is not in the history"
                );
            }
        }
        Ok(())
    }
}

fn known(history: &GroupHistory, node: NodeId, position: Position) -> Checked<Link> {
    let link = history.known(position.index, position.term);
    hold!(link.is_some(), StateMachineSafety, "node {node} holds {position}, which no replica ever logged");
    Ok(link.unwrap_or_else(Link::start))
}
