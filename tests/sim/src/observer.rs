//! The observer of a run: everything that happens is told to it, and it holds every invariant against it.
//!
//! Relies on histories for the logs, on durable replicas for the disks and on the reference model for
//! outcomes. Promises to judge from what nodes log, send, answer and keep, never from what they say about
//! themselves where it can be seen. Drives nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use quorate_consensus::{Envelope, ReplicaRole};
use quorate_crypto::ValidatorSet;
use quorate_node::driver::GroupReport;
use quorate_storage::GroupAppend;
use quorate_types::{EpochConfig, GroupId, LogIndex, NodeId, Outcome, Position, Sequence, SessionId};

use crate::agreement::Agreement;
use crate::client::Floor;
use crate::durable::FoundLog;
use crate::model::ReferenceModel;
use crate::node::{Found, Record};
use crate::raft_logs::RaftLogs;
use crate::replicas::{Logs, Stand, Standing};
use crate::statistics::Statistics;
use crate::violation::{Checked, hold};

/// What is known of one group.
#[derive(Debug)]
struct GroupWatch {
    logs: Box<dyn Logs>,
    model: ReferenceModel,
    /// Acknowledged to their clients.
    acknowledged: BTreeMap<(SessionId, Sequence), LogIndex>,
    floor: Floor,
}

impl GroupWatch {
    fn new(logs: impl Logs + 'static) -> Self {
        Self {
            logs: Box::new(logs),
            model: ReferenceModel::default(),
            acknowledged: BTreeMap::new(),
            floor: Floor::default(),
        }
    }
}

/// A group whose members sign.
#[derive(Clone, Debug)]
pub struct SigningGroup {
    /// The voters with their keys.
    pub set: Arc<ValidatorSet>,
    /// The epoch.
    pub config: EpochConfig,
    /// For how many views a leader leads.
    pub tenure_views: u64,
}

/// The observer.
#[derive(Debug)]
pub struct Observer {
    groups: BTreeMap<GroupId, GroupWatch>,
    liars: BTreeSet<NodeId>,
    statistics: Statistics,
}

impl Observer {
    /// An observer of Raft groups whose replicas run on the nodes given.
    #[must_use]
    pub fn new(groups: &[GroupId], nodes: &[NodeId], first_leader: NodeId) -> Self {
        let watch = || GroupWatch::new(RaftLogs::new(nodes, first_leader));
        let groups = groups.iter().map(|group| (*group, watch())).collect();
        Self { groups, liars: BTreeSet::new(), statistics: Statistics::default() }
    }

    /// An observer of HotStuff groups in which these nodes lie.
    #[must_use]
    pub fn of_signing(
        groups: impl IntoIterator<Item = (GroupId, SigningGroup)>,
        liars: BTreeSet<NodeId>,
    ) -> Self {
        let watch = |(id, group): (GroupId, SigningGroup)| {
            let logs = Agreement::new(group.set, &group.config, liars.clone(), group.tenure_views);
            (id, GroupWatch::new(logs))
        };
        let groups = groups.into_iter().map(watch).collect();
        Self { groups, liars, statistics: Statistics::default() }
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

    /// What every replica of a group has to have applied once all is quiet.
    #[must_use]
    pub fn settled(&self, group: GroupId) -> LogIndex {
        self.groups.get(&group).map_or(LogIndex::ZERO, |watch| watch.logs.settled())
    }

    /// The replica that leads the latest term of a group, if it still does.
    #[must_use]
    pub fn leader(&self, group: GroupId) -> Option<NodeId> {
        self.groups.get(&group)?.logs.replicas().leader()
    }

    /// How many committed entries a replica has not logged.
    #[must_use]
    pub fn behind(&self, group: GroupId, node: NodeId) -> u64 {
        let Some(watch) = self.groups.get(&group) else { return 0 };
        watch.logs.commit().0.saturating_sub(watch.logs.replicas().last_of(node).0)
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
        self.groups.values().any(|watch| watch.logs.replicas().is_unflushed(node))
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
            let position = found.checkpoints.get(group).copied().unwrap_or(Position::ZERO);
            let group = found.recovery.groups.get(group);
            let log = FoundLog {
                hard_state: group.and_then(|group| group.hard_state.as_ref()),
                entries: group.map_or(&[], |group| &group.entries),
                checkpoint: position.index,
            };
            watch.logs.started(node, &log, position)?;
        }
        Ok(())
    }

    /// A node has ended.
    pub fn ended(&mut self, node: NodeId) {
        self.statistics.crashes += 1;
        if self.is_unflushed(node) {
            self.statistics.unflushed_crashes += 1;
        }
        for watch in self.groups.values_mut() {
            watch.logs.replicas_mut().ended(node);
        }
    }

    /// A replica's log was replaced by a snapshot.
    ///
    /// # Errors
    ///
    /// A violation, for a snapshot of no history that anyone logged.
    pub fn reset(&mut self, node: NodeId, group: GroupId, position: Position) -> Checked {
        let Some(watch) = self.groups.get_mut(&group) else { return Ok(()) };
        watch.logs.reset(node, position)
    }

    /// A replica asked for records to be appended; `report` is how it stands after that turn.
    ///
    /// # Errors
    ///
    /// A violation of log matching or append-only.
    pub fn logged(&mut self, node: NodeId, append: &GroupAppend, report: &GroupReport) -> Checked {
        let Some(watch) = self.groups.get_mut(&append.group) else { return Ok(()) };
        let replaced = watch.logs.logged(node, &append.entries, standing(report))?;
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
        let is_out = refused.is_some() && !self.liars.contains(&node);
        hold!(!is_out, NoFence, "node {node} took its replica of {group} out: {refused:?}");
        let Stand { is_elected, committed } = watch.logs.stands(node, standing(report))?;
        self.statistics.elections += u64::from(is_elected);
        for entry in committed {
            self.statistics.committed += 1;
            watch.model.apply(&entry);
        }
        if let Some((index, digest)) = report.digest {
            let compared = watch.logs.replicas_mut().digest(node, index, digest)?;
            self.statistics.digests_compared += u64::from(compared);
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
            match record {
                Record::Reset(_, position) => watch.logs.voided(node, *position)?,
                Record::Append(append) => watch.logs.appended(node, append)?,
            }
        }
        Ok(())
    }

    /// All that was given to a node's log is durable.
    pub fn flushed(&mut self, node: NodeId) {
        for watch in self.groups.values_mut() {
            watch.logs.replicas_mut().flushed(node);
        }
    }

    /// A fetched snapshot is in a node's tables.
    ///
    /// # Errors
    ///
    /// A violation, for a snapshot of no history that anyone logged.
    pub fn installed(&mut self, node: NodeId, group: GroupId, position: Position) -> Checked {
        let Some(watch) = self.groups.get_mut(&group) else { return Ok(()) };
        watch.logs.installed(node, position)?;
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
        let is_whole = envelope.is_ok() || self.liars.contains(&node);
        hold!(is_whole, PersistBeforeSend, "node {node} sends bytes that are no envelope");
        let Ok(envelope) = envelope else { return Ok(()) };
        let Some(watch) = self.groups.get_mut(&envelope.group) else { return Ok(()) };
        let is_promise = watch.logs.leaves(node, to, &envelope.message)?;
        self.statistics.promises_checked += u64::from(is_promise);
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
            index <= watch.logs.commit(),
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
                    watch.model.outcome(*session, *sequence).is_some() && *index <= watch.logs.commit(),
                    AcknowledgedSurvives,
                    "command {session}/{sequence} of {group}, acknowledged at {index}, is not in the history"
                );
            }
        }
        Ok(())
    }
}

fn standing(report: &GroupReport) -> Standing {
    Standing { term: report.term, leads: report.role == ReplicaRole::Leader, commit: report.commit }
}
