//! The invariants over the logs of one group, checked as the logs grow.
//!
//! Relies on [`Chain`] for what a log is. Promises that a broken invariant is reported at the first
//! event that shows it. Does not know how replicas reach their decisions, only what they log, commit
//! and lead.

use std::collections::BTreeMap;

use quorate_types::{Entry, LogIndex, NodeId, Position, Term};

use crate::chain::{Chain, Link};
use crate::committed::Committed;
use crate::violation::{Checked, hold};

/// An entry that some replica logged.
#[derive(Debug)]
struct Known {
    before: Link,
    link: Link,
    entry: Entry,
}

/// All that the checks know of a group.
#[derive(Debug)]
pub struct GroupHistory {
    /// The fewest voters that decide.
    quorum: usize,
    leaders: BTreeMap<Term, NodeId>,
    /// Every entry that any replica ever logged.
    known: BTreeMap<(LogIndex, Term), Known>,
    committed: Committed,
    /// Of each committed entry the term of the replica that saw it first: it was committed in that term or before.
    seen_in: Vec<Term>,
}

impl GroupHistory {
    /// A group in which `quorum` voters decide.
    #[must_use]
    pub fn new(quorum: usize) -> Self {
        Self {
            quorum,
            leaders: BTreeMap::new(),
            known: BTreeMap::new(),
            committed: Committed::default(),
            seen_in: Vec::new(),
        }
    }

    /// The last committed index.
    #[must_use]
    pub fn commit(&self) -> LogIndex {
        self.committed.last_index()
    }

    /// The leader of a term, if there was one.
    #[must_use]
    pub fn leader_of(&self, term: Term) -> Option<NodeId> {
        self.leaders.get(&term).copied()
    }

    /// The link of an entry that some replica logged.
    #[must_use]
    pub fn known(&self, index: LogIndex, term: Term) -> Option<Link> {
        if index == LogIndex::ZERO {
            return Some(Link::start());
        }
        self.known.get(&(index, term)).map(|known| known.link)
    }

    /// An entry that some replica logged.
    #[must_use]
    pub fn entry(&self, index: LogIndex, term: Term) -> Option<&Entry> {
        self.known.get(&(index, term)).map(|known| &known.entry)
    }

    /// What comes before an entry that some replica logged.
    #[must_use]
    pub fn before(&self, entry: &Entry) -> Link {
        let known = self.known.get(&(entry.index(), entry.position.term));
        known.map_or_else(Link::start, |known| known.before)
    }

    /// Adds entries to a replica's log; returns how many others they replaced.
    ///
    /// # Errors
    ///
    /// A violation of log matching, or of append-only if the replica leads.
    pub fn logged(
        &mut self,
        node: NodeId,
        leads: bool,
        log: &mut Chain,
        entries: &[Entry],
    ) -> Checked<usize> {
        let mut replaced = 0;
        for entry in entries {
            let before = log.at(entry.index().previous());
            hold!(
                before.is_some(),
                LogMatching,
                "node {node} logs {} where its log goes from {} to {}",
                entry.position,
                log.base().position,
                log.last().position
            );
            let before = before.unwrap_or_else(Link::start);
            let link = before.then(entry);
            let place = (entry.index(), entry.position.term);
            let first =
                self.known.entry(place).or_insert_with(|| Known { before, link, entry: entry.clone() });
            hold!(
                first.link == link,
                LogMatching,
                "node {node} logs an entry at {} that another replica logged there after a different history",
                entry.position
            );
            replaced += log.put(link).unwrap_or(0);
        }
        hold!(
            !leads || replaced == 0,
            LeaderAppendOnly,
            "node {node} leads and replaced {replaced} entries of its own log"
        );
        Ok(replaced)
    }

    /// A replica leads a term.
    ///
    /// # Errors
    ///
    /// A violation of election safety or leader completeness.
    pub fn leads(&mut self, node: NodeId, term: Term, log: &Chain) -> Checked {
        let leader = *self.leaders.entry(term).or_insert(node);
        hold!(leader == node, ElectionSafety, "nodes {leader} and {node} both lead term {term}");
        // An entry first seen committed in a later term may have been committed after this election.
        let seen = self.committed.links().iter().zip(&self.seen_in).rev();
        for (committed, _) in seen.filter(|(_, seen_in)| **seen_in < term) {
            let index = committed.position.index;
            if index <= log.base().position.index {
                break;
            }
            hold!(
                log.at(index) == Some(*committed),
                LeaderCompleteness,
                "node {node} leads term {term} without the committed entry {}; its log goes from {} to {}",
                committed.position,
                log.base().position,
                log.last().position
            );
        }
        Ok(())
    }

    /// A replica in `term` says that everything up to `commit` is committed; `durable` are the logs of
    /// all voters as they are on disk. Returns the entries that nobody saw committed before.
    ///
    /// # Errors
    ///
    /// A violation of state machine safety or of the safety of commits.
    pub fn commits<'a>(
        &mut self,
        node: NodeId,
        term: Term,
        range: (LogIndex, LogIndex),
        log: &Chain,
        durable: impl Iterator<Item = (NodeId, &'a Chain)> + Clone,
    ) -> Checked<Vec<Entry>> {
        let mut fresh = Vec::new();
        for link in self.committed.commits(node, range, log)? {
            self.seen_in.push(term);
            let Position { term, index, .. } = link.position;
            let entry = self.entry(index, term).cloned();
            hold!(entry.is_some(), StateMachineSafety, "node {node} commits {index} that nobody logged");
            fresh.extend(entry);
        }
        if !fresh.is_empty() {
            self.cannot_be_lost(durable)?;
        }
        Ok(fresh)
    }

    /// No replica that lacks the last committed entry may be electable: fewer than a quorum of voters
    /// may hold a log that is not more up to date than its own (Ongaro thesis §3.6.1).
    fn cannot_be_lost<'a>(&self, durable: impl Iterator<Item = (NodeId, &'a Chain)> + Clone) -> Checked {
        let Some(committed) = self.committed.links().last().copied() else { return Ok(()) };
        let rank =
            |log: &Chain| (log.last().position.epoch, log.last().position.term, log.last().position.index);
        for (candidate, log) in durable.clone() {
            let index = committed.position.index;
            if index <= log.base().position.index || log.at(index) == Some(committed) {
                continue;
            }
            let voters = durable.clone().filter(|(_, other)| rank(other) <= rank(log)).count();
            hold!(
                voters < self.quorum,
                CommitIsSafe,
                "{} counts as committed, and node {candidate} with a durable log up to {} lacks it and could be \
                 elected by {voters} voters",
                committed.position,
                log.last().position
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::chain::tests::entry;
    use crate::violation::Invariant;

    const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

    /// Three replicas whose logs are all durable at once.
    struct Cluster {
        history: GroupHistory,
        logs: [Chain; 3],
    }

    impl Cluster {
        fn new() -> Self {
            Self { history: GroupHistory::new(2), logs: Default::default() }
        }

        fn log(&mut self, node: usize, entries: &[Entry]) -> Checked<usize> {
            self.history.logged(NODES[node], false, &mut self.logs[node], entries)
        }

        fn commit(&mut self, node: usize, term: u64, to: u64) -> Checked<Vec<Entry>> {
            let durable = NODES.iter().copied().zip(&self.logs);
            self.history.commits(
                NODES[node],
                Term(term),
                (LogIndex(0), LogIndex(to)),
                &self.logs[node],
                durable,
            )
        }

        fn lead(&mut self, node: usize, term: u64) -> Checked {
            self.history.leads(NODES[node], Term(term), &self.logs[node])
        }
    }

    fn broken<T: std::fmt::Debug>(checked: Checked<T>) -> Invariant {
        checked.unwrap_err().invariant
    }

    #[test]
    fn two_leaders_of_one_term_are_found() {
        let mut cluster = Cluster::new();
        assert_eq!(cluster.lead(0, 1), Ok(()));
        assert_eq!(cluster.lead(0, 1), Ok(()));
        assert_eq!(broken(cluster.lead(1, 1)), Invariant::ElectionSafety);
        assert_eq!(cluster.lead(1, 2), Ok(()));
    }

    #[test]
    fn one_place_with_two_histories_is_found() {
        let mut cluster = Cluster::new();
        cluster.log(0, &[entry(1, 1, "a"), entry(2, 2, "b")]).unwrap();
        cluster.log(1, &[entry(1, 1, "a"), entry(2, 2, "b")]).unwrap();
        assert_eq!(broken(cluster.log(2, &[entry(1, 1, "x")])), Invariant::LogMatching);
        let mut cluster = Cluster::new();
        cluster.log(0, &[entry(1, 1, "a"), entry(3, 2, "b")]).unwrap();
        cluster.log(1, &[entry(2, 1, "x")]).unwrap();
        assert_eq!(broken(cluster.log(1, &[entry(3, 2, "b")])), Invariant::LogMatching);
    }

    #[test]
    fn a_hole_in_a_log_is_found() {
        assert_eq!(broken(Cluster::new().log(0, &[entry(1, 2, "a")])), Invariant::LogMatching);
    }

    #[test]
    fn a_leader_that_replaces_its_own_entries_is_found_and_a_follower_may() {
        let mut cluster = Cluster::new();
        cluster.log(0, &[entry(1, 1, "a")]).unwrap();
        assert_eq!(cluster.log(0, &[entry(2, 1, "b")]), Ok(1));
        let replaced = cluster.history.logged(NODES[0], true, &mut cluster.logs[0], &[entry(3, 1, "c")]);
        assert_eq!(broken(replaced), Invariant::LeaderAppendOnly);
    }

    #[test]
    fn a_later_leader_without_a_committed_entry_is_found() {
        let mut cluster = Cluster::new();
        cluster.log(0, &[entry(1, 1, "a")]).unwrap();
        cluster.log(1, &[entry(1, 1, "a")]).unwrap();
        assert_eq!(cluster.commit(0, 1, 1).unwrap().len(), 1);
        assert_eq!(cluster.lead(1, 2), Ok(()));
        assert_eq!(broken(cluster.lead(2, 3)), Invariant::LeaderCompleteness);
        // A leader of an earlier term may have been elected before the commit and noticed late.
        assert_eq!(cluster.lead(2, 1), Ok(()));
    }

    #[test]
    fn different_entries_committed_at_one_index_are_found() {
        let mut cluster = Cluster::new();
        cluster.log(0, &[entry(1, 1, "a")]).unwrap();
        cluster.log(1, &[entry(1, 1, "a")]).unwrap();
        cluster.commit(0, 1, 1).unwrap();
        assert!(cluster.commit(1, 1, 1).unwrap().is_empty());
        cluster.log(2, &[entry(2, 1, "b")]).unwrap();
        assert_eq!(broken(cluster.commit(2, 2, 1)), Invariant::StateMachineSafety);
    }

    #[test]
    fn a_commit_beyond_the_log_is_found() {
        let mut cluster = Cluster::new();
        assert_eq!(broken(cluster.commit(0, 1, 1)), Invariant::StateMachineSafety);
    }

    #[test]
    fn a_commit_that_an_electable_replica_lacks_is_found() {
        let mut cluster = Cluster::new();
        cluster.log(0, &[entry(1, 1, "a")]).unwrap();
        assert_eq!(broken(cluster.commit(0, 1, 1)), Invariant::CommitIsSafe, "one copy of three is too few");
        // The figure 8 of the paper: an entry of term 2 on two of three, and one of term 3 elsewhere.
        let mut cluster = Cluster::new();
        cluster.log(0, &[entry(2, 1, "a")]).unwrap();
        cluster.log(1, &[entry(2, 1, "a")]).unwrap();
        cluster.log(2, &[entry(3, 1, "b")]).unwrap();
        assert_eq!(broken(cluster.commit(0, 4, 1)), Invariant::CommitIsSafe);
    }
}
