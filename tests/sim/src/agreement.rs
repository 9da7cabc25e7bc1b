//! What must hold of one HotStuff group, checked as its replicas log, commit, sign and compute.
//!
//! Relies on [`Chain`] for what a log is and on [`DurableReplica`] for the disks. Promises that a broken
//! invariant is reported at the first event that shows it; of what liars sign nothing is asked, and what
//! their replicas log and commit is judged like everyone's, since they keep the rules until it is sent. Knows
//! of the protocol what a replica promises with a signature, and nothing of how it reaches a decision.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use quorate_consensus::hotstuff::Message;
use quorate_crypto::ValidatorSet;
use quorate_storage::GroupAppend;
use quorate_types::{Digest, Entry, EntryKind, EpochConfig, LogIndex, NodeId, Position, Term};

use crate::chain::{Chain, Link};
use crate::durable::{DurableReplica, FoundLog};
use crate::pledges::{Pledges, Proposals};
use crate::violation::{Checked, hold};

/// What is known of one replica.
#[derive(Debug)]
struct Watched {
    /// Its log as it asked for it, flushed or not.
    log: Chain,
    durable: DurableReplica,
    /// Of each append that has not reached its disk: the link before its entries, and theirs.
    asked: VecDeque<(Link, Vec<Link>)>,
    pledges: Pledges,
    term: Term,
    leads: bool,
    commit: LogIndex,
    digest_at: LogIndex,
}

/// All that the checks know of a HotStuff group.
#[derive(Debug)]
pub struct Agreement {
    set: Arc<ValidatorSet>,
    liars: BTreeSet<NodeId>,
    replicas: BTreeMap<NodeId, Watched>,
    proposals: Proposals,
    /// Every entry that any replica ever logged, by its place and the log up to it.
    known: BTreeMap<(LogIndex, Digest), Entry>,
    /// From index 1 on.
    committed: Vec<Link>,
    digests: BTreeMap<LogIndex, (Digest, NodeId)>,
}

/// What a replica's stand showed for the first time.
#[derive(Debug, Default)]
pub struct Stand {
    /// It leads, and did not lead this term before.
    pub is_elected: bool,
    /// Entries that nobody saw committed before.
    pub committed: Vec<Entry>,
}

impl Agreement {
    /// A group with these voters, of which some lie.
    #[must_use]
    pub fn new(
        set: Arc<ValidatorSet>,
        config: &EpochConfig,
        liars: BTreeSet<NodeId>,
        tenure_views: u64,
    ) -> Self {
        let replica = |node: NodeId| Watched {
            log: Chain::default(),
            durable: DurableReplica::new(node, config.first_leader),
            asked: VecDeque::new(),
            pledges: Pledges::default(),
            term: Term::ZERO,
            leads: false,
            commit: LogIndex::ZERO,
            digest_at: LogIndex::ZERO,
        };
        let nodes = config.members.iter().map(|member| member.node);
        Self {
            replicas: nodes.map(|node| (node, replica(node))).collect(),
            proposals: Proposals::new(&set, config, tenure_views),
            set,
            liars,
            known: BTreeMap::new(),
            committed: Vec::new(),
            digests: BTreeMap::new(),
        }
    }

    /// The last committed index.
    #[must_use]
    pub fn commit(&self) -> LogIndex {
        LogIndex(self.committed.len() as u64)
    }

    /// The last committed index of an entry with content: the empty blocks after it need not reach everyone.
    #[must_use]
    pub fn last_with_content(&self) -> LogIndex {
        let has_content = |link: &&Link| {
            let entry = self.known.get(&(link.position.index, link.history));
            entry.is_some_and(|entry| entry.kind != EntryKind::Empty)
        };
        let last = self.committed.iter().rev().find(has_content);
        last.map_or(LogIndex::ZERO, |link| link.position.index)
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
        let base = self.committed_at(node, checkpoint)?;
        let Some(replica) = self.replicas.get_mut(&node) else { return Ok(()) };
        let known = &self.known;
        let is_known = |entry: &Entry| {
            let index = entry.index();
            let mut there = known.range((index, Digest([0; 32]))..=(index, Digest([255; 32])));
            there.any(|(_, known)| known == entry)
        };
        replica.durable.recovered(found, is_known)?;
        replica.durable.installed(base);
        replica.log = replica.durable.log().clone();
        replica.asked.clear();
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
    /// A violation, for a snapshot of what nobody committed.
    pub fn reset(&mut self, node: NodeId, position: Position) -> Checked {
        let base = self.committed_at(node, position)?;
        if let Some(replica) = self.replicas.get_mut(&node) {
            replica.log = Chain::after(base);
            replica.commit = replica.commit.max(position.index);
        }
        Ok(())
    }

    /// A replica asked for entries to be appended; how many others they replaced.
    ///
    /// # Errors
    ///
    /// A violation of log matching, for an entry that leaves a hole.
    pub fn logged(&mut self, node: NodeId, entries: &[Entry]) -> Checked<usize> {
        let Some(replica) = self.replicas.get_mut(&node) else { return Ok(0) };
        let first = entries.first().and_then(|first| replica.log.at(first.index().previous()));
        let (mut replaced, mut links) = (0, Vec::with_capacity(entries.len()));
        for entry in entries {
            let before = replica.log.at(entry.index().previous());
            hold!(
                before.is_some(),
                LogMatching,
                "node {node} logs {} where its log goes from {} to {}",
                entry.position,
                replica.log.base().position,
                replica.log.last().position
            );
            let link = before.unwrap_or_else(Link::start).then(entry);
            self.known.entry((entry.index(), link.history)).or_insert_with(|| entry.clone());
            replaced += replica.log.put(link).unwrap_or(0);
            links.push(link);
        }
        replica.asked.push_back((first.unwrap_or_else(Link::start), links));
        Ok(replaced)
    }

    /// How a replica stands after a turn.
    ///
    /// # Errors
    ///
    /// A violation of agreement.
    pub fn stands(&mut self, node: NodeId, (term, leads): (Term, bool), commit: LogIndex) -> Checked<Stand> {
        let Some(replica) = self.replicas.get_mut(&node) else { return Ok(Stand::default()) };
        let is_elected = leads && term > Term(1) && !(replica.leads && replica.term == term);
        (replica.leads, replica.term) = (leads, term);
        let range = (replica.commit, commit.max(replica.commit));
        replica.commit = range.1;
        let committed = if range.0 < range.1 { self.commits(node, range)? } else { Vec::new() };
        Ok(Stand { is_elected, committed })
    }

    /// A replica took the digest of its state; whether there was another to compare it with.
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
        let Some((first, other)) = self.digests.get(&index).copied() else {
            self.digests.insert(index, (digest, node));
            return Ok(false);
        };
        hold!(first == digest, EqualDigests, "nodes {other} and {node} differ in the state at {index}");
        Ok(true)
    }

    /// Entries and hard state were given to a replica's disk and are not flushed.
    ///
    /// # Errors
    ///
    /// A broken promise.
    pub fn appended(&mut self, node: NodeId, append: &GroupAppend) -> Checked {
        let Some(replica) = self.replicas.get_mut(&node) else { return Ok(()) };
        let (before, links) = replica.asked.pop_front().unwrap_or((Link::start(), Vec::new()));
        replica.durable.appended(replica.term, append.hard_state.clone(), before, links)
    }

    /// A replica's disk voids its log up to a snapshot, not flushed.
    ///
    /// # Errors
    ///
    /// A violation, for a snapshot of what nobody committed.
    pub fn voided(&mut self, node: NodeId, position: Position) -> Checked {
        let base = self.committed_at(node, position)?;
        if let Some(replica) = self.replicas.get_mut(&node) {
            replica.durable.reset(base);
        }
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
    /// A violation, for a snapshot of what nobody committed.
    pub fn installed(&mut self, node: NodeId, position: Position) -> Checked {
        let base = self.committed_at(node, position)?;
        if let Some(replica) = self.replicas.get_mut(&node) {
            replica.durable.installed(base);
        }
        Ok(())
    }

    /// A message leaves a node; whether it promises something that was checked.
    ///
    /// # Errors
    ///
    /// A violation of persist-before-send, a broken promise, or an unsafe vote.
    pub fn leaves(&mut self, node: NodeId, message: &Message) -> Checked<bool> {
        self.proposals.note(node, message);
        if self.liars.contains(&node) {
            return Ok(false);
        }
        let Some(replica) = self.replicas.get_mut(&node) else { return Ok(false) };
        replica.pledges.leaves(node, message, replica.durable.hard_state(), &self.proposals)
    }

    /// Commits entries; those that nobody saw committed before.
    fn commits(&mut self, node: NodeId, (from, to): (LogIndex, LogIndex)) -> Checked<Vec<Entry>> {
        let mut fresh = Vec::new();
        let Some(replica) = self.replicas.get(&node) else { return Ok(fresh) };
        for index in (from.0 + 1..=to.0).map(LogIndex) {
            let Some(link) = replica.log.at(index) else {
                hold!(
                    index <= replica.log.base().position.index && index.0 <= self.committed.len() as u64,
                    StateMachineSafety,
                    "node {node} commits index {index} that is not in its log, which ends at {}",
                    replica.log.last().position
                );
                continue;
            };
            if index.0 > self.committed.len() as u64 {
                fresh.extend(self.known.get(&(index, link.history)).cloned());
                self.committed.push(link);
            }
            let first = self.committed[index.0 as usize - 1];
            hold!(
                first == link,
                StateMachineSafety,
                "node {node} commits {} where {} was committed before, or after a different history",
                link.position,
                first.position
            );
        }
        if !fresh.is_empty() {
            self.cannot_be_lost(node)?;
        }
        Ok(fresh)
    }

    /// As many honest replicas as a quorum without its liars hold durably what was just committed.
    fn cannot_be_lost(&self, node: NodeId) -> Checked {
        let Some(last) = self.committed.last().copied() else { return Ok(()) };
        let index = last.position.index;
        let holds = |replica: &Watched| {
            let log = replica.durable.log();
            index <= log.base().position.index || log.at(index) == Some(last)
        };
        let honest = self.replicas.iter().filter(|(node, _)| !self.liars.contains(node));
        let holding = honest.filter(|(_, replica)| holds(replica)).count();
        let needed = (self.set.members().len() * 2 / 3 + 1).saturating_sub(self.liars.len());
        hold!(
            holding >= needed,
            CommitIsSafe,
            "node {node} commits {}, which {holding} honest replicas hold durably; {needed} must",
            last.position
        );
        Ok(())
    }

    fn committed_at(&self, node: NodeId, position: Position) -> Checked<Link> {
        if position.index == LogIndex::ZERO {
            return Ok(Link::start());
        }
        let link = self.committed.get(position.index.0 as usize - 1).copied();
        let link = link.filter(|link| link.position == position);
        hold!(link.is_some(), StateMachineSafety, "node {node} holds {position}, which nobody committed");
        Ok(link.unwrap_or_else(Link::start))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bytes::Bytes;
    use quorate_consensus::hotstuff::{Block, Body, Header, Justify, Proposal};
    use quorate_crypto::Signature;
    use quorate_types::codec::Writer;
    use quorate_types::{BootNumber, ClusterId, Epoch, GroupId, HlcTimestamp, Incarnation, View};

    use super::*;
    use crate::notary::{Notary, Scheme};
    use crate::signing::epoch;
    use crate::violation::Invariant;

    const FOLLOWING: (Term, bool) = (Term(1), false);

    fn agreement(liars: &[u64]) -> Agreement {
        let nodes: Vec<NodeId> = (1..=4).map(NodeId).collect();
        let notary = Notary::new(Scheme::StandIn, &nodes, BTreeSet::new(), None);
        let config = epoch(&nodes, NodeId(1), &notary);
        let set = ValidatorSet::of_epoch(ClusterId([1; 16]), GroupId(1), &config).unwrap();
        Agreement::new(Arc::new(set), &config, liars.iter().copied().map(NodeId).collect(), 1_000)
    }

    fn position(view: u64, index: u64) -> Position {
        Position { epoch: Epoch(1), term: Term(view), index: LogIndex(index) }
    }

    fn entry(view: u64, index: u64, body: &'static str) -> Entry {
        let kind = if body.is_empty() { EntryKind::Empty } else { EntryKind::Batch };
        let body = Bytes::from_static(body.as_bytes());
        Entry { position: position(view, index), hlc: HlcTimestamp(index), kind, body }
    }

    fn append(entries: &[Entry]) -> GroupAppend {
        GroupAppend {
            group: GroupId(1),
            incarnation: Incarnation(1),
            boot: BootNumber(1),
            hard_state: None,
            entries: entries.to_vec(),
        }
    }

    /// These nodes log this; all but the last step of making it durable.
    fn appended(agreement: &mut Agreement, nodes: &[u64], entries: &[Entry]) {
        for node in nodes.iter().copied().map(NodeId) {
            agreement.logged(node, entries).unwrap();
            agreement.appended(node, &append(entries)).unwrap();
        }
    }

    fn durable(agreement: &mut Agreement, nodes: &[u64], entries: &[Entry]) {
        appended(agreement, nodes, entries);
        nodes.iter().for_each(|node| agreement.flushed(NodeId(*node)));
    }

    fn commits(agreement: &mut Agreement, node: u64, index: u64) -> Checked<Vec<Entry>> {
        let stand = agreement.stands(NodeId(node), FOLLOWING, LogIndex(index));
        stand.map(|stand| stand.committed)
    }

    fn broken<T: std::fmt::Debug>(checked: Checked<T>) -> Invariant {
        checked.unwrap_err().invariant
    }

    #[test]
    fn a_commit_is_new_once_and_another_one_at_its_place_is_found() {
        let mut group = agreement(&[]);
        let log = [entry(1, 1, "a"), entry(2, 2, "b")];
        durable(&mut group, &[1, 2, 3], &log);
        assert_eq!(commits(&mut group, 1, 2).unwrap(), log);
        assert_eq!(commits(&mut group, 2, 2).unwrap(), []);
        durable(&mut group, &[4], &[entry(1, 1, "another"), entry(2, 2, "b")]);
        assert_eq!(broken(commits(&mut group, 4, 1)), Invariant::StateMachineSafety);
    }

    /// Equal entries after different histories are different logs.
    #[test]
    fn a_commit_of_the_same_entry_after_another_history_is_found() {
        let mut group = agreement(&[]);
        let same = entry(2, 2, "b");
        durable(&mut group, &[1, 2, 3], &[entry(1, 1, "a"), same.clone()]);
        commits(&mut group, 1, 2).unwrap();
        durable(&mut group, &[4], &[entry(1, 1, "another"), same]);
        group.replicas.get_mut(&NodeId(4)).unwrap().commit = LogIndex(1);
        assert_eq!(broken(commits(&mut group, 4, 2)), Invariant::StateMachineSafety);
    }

    #[test]
    fn a_commit_of_what_a_replica_did_not_log_is_found() {
        let mut group = agreement(&[]);
        durable(&mut group, &[1, 2, 3], &[entry(1, 1, "a")]);
        assert_eq!(broken(commits(&mut group, 1, 2)), Invariant::StateMachineSafety);
        assert_eq!(broken(commits(&mut group, 4, 1)), Invariant::StateMachineSafety);
    }

    #[test]
    fn a_commit_needs_a_quorum_of_disks() {
        let mut group = agreement(&[]);
        appended(&mut group, &[1, 2, 3], &[entry(1, 1, "a")]);
        group.flushed(NodeId(1));
        group.flushed(NodeId(2));
        assert_eq!(broken(commits(&mut group, 1, 1)), Invariant::CommitIsSafe);
        let mut group = agreement(&[]);
        durable(&mut group, &[1, 2, 3], &[entry(1, 1, "a")]);
        assert!(commits(&mut group, 1, 1).is_ok());
    }

    /// A liar's disk proves nothing, and a quorum may count the liars' votes.
    #[test]
    fn a_commit_needs_as_many_honest_disks_as_a_quorum_without_its_liars() {
        let mut group = agreement(&[4]);
        durable(&mut group, &[1, 4], &[entry(1, 1, "a")]);
        assert_eq!(broken(commits(&mut group, 1, 1)), Invariant::CommitIsSafe);
        let mut group = agreement(&[4]);
        durable(&mut group, &[1, 2], &[entry(1, 1, "a")]);
        assert!(commits(&mut group, 1, 1).is_ok());
    }

    #[test]
    fn a_log_has_no_hole_and_what_it_replaces_is_counted() {
        let mut group = agreement(&[]);
        assert_eq!(group.logged(NodeId(1), &[entry(1, 1, "a"), entry(2, 2, "b")]), Ok(0));
        assert_eq!(group.logged(NodeId(1), &[entry(3, 1, "c")]), Ok(2));
        assert_eq!(broken(group.logged(NodeId(1), &[entry(4, 3, "d")])), Invariant::LogMatching);
    }

    #[test]
    fn a_snapshot_of_what_nobody_committed_is_found_wherever_it_comes_in() {
        let mut group = agreement(&[]);
        durable(&mut group, &[1, 2, 3], &[entry(1, 1, "a"), entry(2, 2, "b")]);
        commits(&mut group, 1, 1).unwrap();
        let (node, found) = (NodeId(4), FoundLog { hard_state: None, entries: &[], checkpoint: LogIndex(2) });
        for wrong in [position(2, 2), position(3, 1)] {
            assert_eq!(broken(group.reset(node, wrong)), Invariant::StateMachineSafety);
            assert_eq!(broken(group.voided(node, wrong)), Invariant::StateMachineSafety);
            assert_eq!(broken(group.installed(node, wrong)), Invariant::StateMachineSafety);
            assert_eq!(broken(group.started(node, &found, wrong)), Invariant::StateMachineSafety);
        }
        let right = position(1, 1);
        let found = FoundLog { checkpoint: LogIndex(1), ..found };
        assert_eq!(group.started(node, &found, right), Ok(()));
        assert_eq!(group.reset(node, right), Ok(()));
        assert_eq!(group.voided(node, right), Ok(()));
        assert_eq!(group.installed(node, right), Ok(()));
        assert_eq!(group.last_of(node), LogIndex(1), "its log begins after the snapshot");
    }

    #[test]
    fn a_restart_finds_what_was_flushed_and_nothing_that_nobody_logged() {
        let mut group = agreement(&[]);
        let log = [entry(1, 1, "a"), entry(2, 2, "b")];
        durable(&mut group, &[1], &log);
        let start = |group: &mut Agreement, entries: &[Entry]| {
            let found = FoundLog { hard_state: None, entries, checkpoint: LogIndex::ZERO };
            group.started(NodeId(1), &found, Position::ZERO)
        };
        assert_eq!(start(&mut group, &log), Ok(()));
        assert_eq!(broken(start(&mut group, &log[..1])), Invariant::Durability);
        let mut group = agreement(&[]);
        durable(&mut group, &[1], &log);
        let altered = [entry(1, 1, "a"), entry(2, 2, "another")];
        assert_eq!(broken(start(&mut group, &altered)), Invariant::Durability);
    }

    #[test]
    fn equal_digests_at_one_index_are_compared_once_each_and_others_are_found() {
        let mut group = agreement(&[]);
        let (index, digest) = (LogIndex(9), Digest([1; 32]));
        assert_eq!(group.digest(NodeId(1), index, digest), Ok(false));
        assert_eq!(group.digest(NodeId(2), index, digest), Ok(true));
        assert_eq!(group.digest(NodeId(2), index, digest), Ok(false));
        assert_eq!(broken(group.digest(NodeId(3), index, Digest([2; 32]))), Invariant::EqualDigests);
    }

    #[test]
    fn signatures_are_held_against_the_disk_but_for_those_of_liars() {
        let mut group = agreement(&[4]);
        let body = Body::Vote { view: View(1), index: LogIndex(1), digest: Digest([1; 32]) };
        let vote = Message { scope: *group.set.scope(), body, signature: Signature([0; 64]) };
        assert_eq!(broken(group.leaves(NodeId(1), &vote)), Invariant::PersistBeforeSend);
        assert_eq!(group.leaves(NodeId(4), &vote), Ok(false));
    }

    /// A hard state that says that a view was voted in and none given up.
    fn voted_in(view: u64) -> Bytes {
        let mut out = Writer::default();
        out.u8(1);
        out.u64(1);
        out.u64(view);
        out.u64(0);
        out.u8(0);
        out.u8(0);
        out.finish()
    }

    /// Liars lead, too, and what they propose by the rules is to be voted for.
    #[test]
    fn the_proposal_of_a_lying_leader_entitles_its_block_to_a_vote() {
        let mut group = agreement(&[1]);
        let genesis = Header::genesis(&group.set, Position::ZERO, HlcTimestamp::ZERO);
        let (parent, hlc) = (genesis.digest(), HlcTimestamp(5));
        let block = Block::new(Header { parent, position: position(1, 1), hlc, ..genesis }, Bytes::new());
        let (scope, signature) = (*group.set.scope(), Signature([0; 64]));
        let body = Body::Vote { view: View(1), index: LogIndex(1), digest: block.digest() };
        let vote = Message { scope, body, signature };
        let append = GroupAppend { hard_state: Some(voted_in(1)), ..append(&[]) };
        group.logged(NodeId(2), &[]).unwrap();
        group.appended(NodeId(2), &append).unwrap();
        group.flushed(NodeId(2));
        assert_eq!(broken(group.leaves(NodeId(2), &vote)), Invariant::VoteIsSafe);
        let proposal = Proposal { block, justify: Justify::Genesis, timed_out: None };
        let proposal = Message { scope, body: Body::Proposal(Box::new(proposal)), signature };
        assert_eq!(group.leaves(NodeId(1), &proposal), Ok(false));
        assert_eq!(group.leaves(NodeId(2), &vote), Ok(true));
    }

    #[test]
    fn whoever_leads_a_term_is_elected_once_and_the_latest_leads() {
        let mut group = agreement(&[]);
        let elected = |group: &mut Agreement, node, term, leads| {
            group.stands(NodeId(node), (Term(term), leads), LogIndex::ZERO).unwrap().is_elected
        };
        assert!(!elected(&mut group, 1, 1, true), "the first leader needs no election");
        assert!(elected(&mut group, 2, 5, true));
        assert!(!elected(&mut group, 2, 5, true));
        assert_eq!(group.leader(), Some(NodeId(2)));
        assert!(!elected(&mut group, 2, 5, false));
        assert_eq!(group.leader(), Some(NodeId(1)));
        group.ended(NodeId(1));
        assert_eq!(group.leader(), None);
    }

    #[test]
    fn the_last_entry_with_content_is_not_an_empty_one() {
        let mut group = agreement(&[]);
        durable(&mut group, &[1, 2, 3], &[entry(1, 1, "a"), entry(2, 2, "b"), entry(3, 3, "")]);
        commits(&mut group, 1, 3).unwrap();
        assert_eq!((group.commit(), group.last_with_content()), (LogIndex(3), LogIndex(2)));
    }
}
