//! What must hold of one HotStuff group, checked as its replicas log, commit and sign.
//!
//! Relies on [`Chain`] for what a log is and on [`Replicas`] for what is known of each replica. Promises that a broken
//! invariant is reported at the first event that shows it; of what liars sign nothing is asked, and what
//! their replicas log and commit is judged like everyone's, since they keep the rules until it is sent. Knows
//! of the protocol what a replica promises with a signature, and nothing of how it reaches a decision.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use quorate_consensus::Message;
use quorate_crypto::ValidatorSet;
use quorate_storage::GroupAppend;
use quorate_types::{Digest, Entry, EntryKind, EpochConfig, LogIndex, NodeId, Position, Term};

use crate::chain::{Chain, Link};
use crate::committed::Committed;
use crate::durable::FoundLog;
use crate::pledges::{Pledges, Proposals};
use crate::replicas::{Logs, Replicas, Stand, Standing};
use crate::violation::{Checked, hold};

/// All that the checks know of a HotStuff group.
#[derive(Debug)]
pub struct Agreement {
    set: Arc<ValidatorSet>,
    liars: BTreeSet<NodeId>,
    replicas: Replicas,
    /// Of each append that has not reached its disk: the link before its entries, and theirs.
    asked: BTreeMap<NodeId, VecDeque<(Link, Vec<Link>)>>,
    pledges: BTreeMap<NodeId, Pledges>,
    proposals: Proposals,
    /// Every entry that any replica ever logged, by its place and the log up to it.
    known: BTreeMap<(LogIndex, Digest), Entry>,
    committed: Committed,
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
        Self {
            replicas: Replicas::new(config.members.iter().map(|member| member.node), config.first_leader),
            asked: BTreeMap::new(),
            pledges: BTreeMap::new(),
            proposals: Proposals::new(&set, config, tenure_views),
            set,
            liars,
            known: BTreeMap::new(),
            committed: Committed::default(),
        }
    }

    /// Commits entries; those that nobody saw committed before.
    fn commits(&mut self, node: NodeId, range: (LogIndex, LogIndex)) -> Checked<Vec<Entry>> {
        let Some(replica) = self.replicas.get(node) else { return Ok(Vec::new()) };
        let links = self.committed.commits(node, range, &replica.log)?;
        let entry = |link: &Link| self.known.get(&(link.position.index, link.history)).cloned();
        let fresh: Vec<_> = links.iter().filter_map(entry).collect();
        if !fresh.is_empty() {
            self.cannot_be_lost(node)?;
        }
        Ok(fresh)
    }

    /// As many honest replicas as a quorum without its liars hold durably what was just committed.
    fn cannot_be_lost(&self, node: NodeId) -> Checked {
        let Some(last) = self.committed.links().last().copied() else { return Ok(()) };
        let index = last.position.index;
        let holds = |log: &Chain| index <= log.base().position.index || log.at(index) == Some(last);
        let honest = self.replicas.durable().filter(|(node, _)| !self.liars.contains(node));
        let holding = honest.filter(|(_, log)| holds(log)).count();
        let needed = (self.set.members().len() * 2 / 3 + 1).saturating_sub(self.liars.len());
        hold!(
            holding >= needed,
            CommitIsSafe,
            "node {node} commits {}, which {holding} honest replicas hold durably; {needed} must",
            last.position
        );
        Ok(())
    }
}

impl Logs for Agreement {
    fn replicas(&self) -> &Replicas {
        &self.replicas
    }

    fn replicas_mut(&mut self) -> &mut Replicas {
        &mut self.replicas
    }

    fn commit(&self) -> LogIndex {
        self.committed.last_index()
    }

    /// Of the last entry with content: the empty blocks after it need not reach everyone.
    fn settled(&self) -> LogIndex {
        let has_content = |link: &&Link| {
            let entry = self.known.get(&(link.position.index, link.history));
            entry.is_some_and(|entry| entry.kind != EntryKind::Empty)
        };
        let last = self.committed.links().iter().rev().find(has_content);
        last.map_or(LogIndex::ZERO, |link| link.position.index)
    }

    fn link(&self, node: NodeId, position: Position) -> Checked<Link> {
        if position.index == LogIndex::ZERO {
            return Ok(Link::start());
        }
        let link = self.committed.at(position.index).filter(|link| link.position == position);
        hold!(link.is_some(), StateMachineSafety, "node {node} holds {position}, which nobody committed");
        Ok(link.unwrap_or_else(Link::start))
    }

    fn started(&mut self, node: NodeId, found: &FoundLog<'_>, checkpoint: Position) -> Checked {
        let base = self.link(node, checkpoint)?;
        let known = &self.known;
        let is_known = |entry: &Entry| {
            let index = entry.index();
            let mut there = known.range((index, Digest([0; 32]))..=(index, Digest([255; 32])));
            there.any(|(_, known)| known == entry)
        };
        self.asked.remove(&node);
        self.replicas.started(node, found, base, is_known)?;
        if self.liars.contains(&node) {
            return Ok(());
        }
        self.pledges.entry(node).or_default().found(node, found.hard_state, &self.proposals)
    }

    fn logged(&mut self, node: NodeId, entries: &[Entry], _: Standing) -> Checked<usize> {
        let Some(replica) = self.replicas.get_mut(node) else { return Ok(0) };
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
        self.asked.entry(node).or_default().push_back((first.unwrap_or_else(Link::start), links));
        Ok(replaced)
    }

    fn stands(&mut self, node: NodeId, standing: Standing) -> Checked<Stand> {
        let Some((takes_over, range)) = self.replicas.stands(node, standing) else {
            return Ok(Stand::default());
        };
        let committed = if range.0 < range.1 { self.commits(node, range)? } else { Vec::new() };
        Ok(Stand { is_elected: takes_over && standing.term > Term(1), committed })
    }

    fn appended(&mut self, node: NodeId, append: &GroupAppend) -> Checked {
        let Some(replica) = self.replicas.get_mut(node) else { return Ok(()) };
        let asked = self.asked.get_mut(&node).and_then(VecDeque::pop_front);
        let (before, links) = asked.unwrap_or((Link::start(), Vec::new()));
        replica.durable.appended(replica.term, append.hard_state.clone(), before, links)
    }

    fn leaves(&mut self, node: NodeId, _: NodeId, message: &Message) -> Checked<bool> {
        let (Some(replica), Message::HotStuff(message)) = (self.replicas.get(node), message) else {
            return Ok(false);
        };
        self.proposals.note(node, message);
        if self.liars.contains(&node) {
            return Ok(false);
        }
        let pledges = self.pledges.entry(node).or_default();
        pledges.leaves(node, message, replica.durable.hard_state(), &self.proposals)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bytes::Bytes;
    use quorate_consensus::hotstuff::{self, Block, Body, Header, Justify, Proposal};
    use quorate_crypto::Signature;
    use quorate_types::codec::Writer;
    use quorate_types::{BootNumber, ClusterId, Epoch, GroupId, HlcTimestamp, Incarnation, View};

    use super::*;
    use crate::chain::tests::entry;
    use crate::notary::{Notary, Scheme};
    use crate::signing::epoch;
    use crate::violation::Invariant;

    const FOLLOWING: Standing = Standing { term: Term(1), leads: false, commit: LogIndex::ZERO };
    const PEER: NodeId = NodeId(3);

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
            agreement.logged(node, entries, FOLLOWING).unwrap();
            agreement.appended(node, &append(entries)).unwrap();
        }
    }

    fn durable(agreement: &mut Agreement, nodes: &[u64], entries: &[Entry]) {
        appended(agreement, nodes, entries);
        nodes.iter().for_each(|node| agreement.replicas.flushed(NodeId(*node)));
    }

    fn commits(agreement: &mut Agreement, node: u64, index: u64) -> Checked<Vec<Entry>> {
        let stand = agreement.stands(NodeId(node), Standing { commit: LogIndex(index), ..FOLLOWING });
        stand.map(|stand| stand.committed)
    }

    fn message(agreement: &Agreement, body: Body) -> Message {
        let (scope, signature) = (*agreement.set.scope(), Signature([0; 64]));
        Message::HotStuff(hotstuff::Message { scope, body, signature })
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
        group.replicas.get_mut(NodeId(4)).unwrap().commit = LogIndex(1);
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
        group.replicas.flushed(NodeId(1));
        group.replicas.flushed(NodeId(2));
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
        assert_eq!(group.logged(NodeId(1), &[entry(1, 1, "a"), entry(2, 2, "b")], FOLLOWING), Ok(0));
        assert_eq!(group.logged(NodeId(1), &[entry(3, 1, "c")], FOLLOWING), Ok(2));
        assert_eq!(broken(group.logged(NodeId(1), &[entry(4, 3, "d")], FOLLOWING)), Invariant::LogMatching);
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
        assert_eq!(group.replicas.last_of(node), LogIndex(1), "its log begins after the snapshot");
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
    fn signatures_are_held_against_the_disk_but_for_those_of_liars() {
        let mut group = agreement(&[4]);
        let body = Body::Vote { view: View(1), index: LogIndex(1), digest: Digest([1; 32]) };
        let vote = message(&group, body);
        assert_eq!(broken(group.leaves(NodeId(1), PEER, &vote)), Invariant::PersistBeforeSend);
        assert_eq!(group.leaves(NodeId(4), PEER, &vote), Ok(false));
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
        let body = Body::Vote { view: View(1), index: LogIndex(1), digest: block.digest() };
        let vote = message(&group, body);
        let append = GroupAppend { hard_state: Some(voted_in(1)), ..append(&[]) };
        group.logged(NodeId(2), &[], FOLLOWING).unwrap();
        group.appended(NodeId(2), &append).unwrap();
        group.replicas.flushed(NodeId(2));
        assert_eq!(broken(group.leaves(NodeId(2), PEER, &vote)), Invariant::VoteIsSafe);
        let proposal = Proposal { block, justify: Justify::Genesis, timed_out: None };
        let proposal = message(&group, Body::Proposal(Box::new(proposal)));
        assert_eq!(group.leaves(NodeId(1), PEER, &proposal), Ok(false));
        assert_eq!(group.leaves(NodeId(2), PEER, &vote), Ok(true));
    }

    #[test]
    fn the_first_leader_needs_no_election() {
        let mut group = agreement(&[]);
        let mut elected = |term| {
            let standing = Standing { term: Term(term), leads: true, ..FOLLOWING };
            group.stands(NodeId(1), standing).unwrap().is_elected
        };
        assert!(!elected(1));
        assert!(elected(2));
        assert!(!elected(2));
    }

    #[test]
    fn the_last_entry_with_content_is_not_an_empty_one() {
        let mut group = agreement(&[]);
        durable(&mut group, &[1, 2, 3], &[entry(1, 1, "a"), entry(2, 2, "b"), entry(3, 3, "")]);
        commits(&mut group, 1, 3).unwrap();
        assert_eq!((group.commit(), group.settled()), (LogIndex(3), LogIndex(2)));
    }
}
