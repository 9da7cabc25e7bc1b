//! What one replica's log holds durably, kept apart from the replica and its driver, and the promises to
//! peers held against it.
//!
//! ```text
//!              append            flush
//! driver ---> written, in order ------> durable <--- promises are checked against this
//!                    |                     |
//!                    +------ crash --------+--- what is recovered is the durable state and some
//!                                               first part of what was written, nothing else
//! ```
//!
//! Relies on being told of every append and flush that really reached the disk. Promises to find a
//! vote, candidacy or acknowledgement that left too early or is not kept, and a log that lost what was
//! flushed. Knows of Raft what its messages promise.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use quorate_types::codec::{DecodeError, Reader};
use quorate_types::{Entry, LogIndex, NodeId, Term};

use crate::chain::{Chain, Link};
use crate::history::GroupHistory;
use crate::violation::{Checked, hold};

/// One record of the group on its way to the disk.
#[derive(Clone, Debug)]
enum Written {
    Append { hard_state: Option<Bytes>, before: Link, links: Vec<Link> },
    Reset { base: Link },
}

/// A replica's durable log and what it promised.
#[derive(Clone, Debug)]
pub struct DurableReplica {
    node: NodeId,
    /// Every replica of a new group counts as having voted for it in the first term.
    first_leader: NodeId,
    hard_state: Option<Bytes>,
    log: Chain,
    written: VecDeque<Written>,
    /// A log without entries after the last snapshot that came from a peer and is in the tables.
    installed: Chain,
    votes: BTreeMap<Term, NodeId>,
    /// The greatest place acknowledged to the leader of the last term in which there was one.
    acknowledged: Option<(Term, Link)>,
}

/// A log as it was found when it was opened.
#[derive(Clone, Debug)]
pub struct FoundLog<'a> {
    /// The last hard state.
    pub hard_state: Option<&'a Bytes>,
    /// Consecutive entries.
    pub entries: &'a [Entry],
    /// What the checkpoint in the tables includes; entries up to here do not matter any more.
    pub checkpoint: LogIndex,
}

impl FoundLog<'_> {
    /// Whether this is what was found: the same hard state, and the same entries after the checkpoint.
    fn is(&self, hard_state: Option<&Bytes>, log: &Chain) -> bool {
        let found = self.entries.iter().map(|entry| entry.position).filter(|at| at.index > self.checkpoint);
        let held = log.links().iter().map(|link| link.position).filter(|at| at.index > self.checkpoint);
        self.hard_state == hard_state && found.eq(held)
    }
}

impl DurableReplica {
    /// A replica that never wrote anything.
    #[must_use]
    pub fn new(node: NodeId, first_leader: NodeId) -> Self {
        Self {
            node,
            first_leader,
            hard_state: None,
            log: Chain::default(),
            written: VecDeque::new(),
            installed: Chain::default(),
            votes: BTreeMap::new(),
            acknowledged: None,
        }
    }

    /// The durable log. A snapshot in the tables voids a log that is not its history.
    #[must_use]
    pub fn log(&self) -> &Chain {
        let base = self.installed.base();
        let (index, begins) = (base.position.index, self.log.base().position.index);
        if begins > index || self.log.at(index) == Some(base) { &self.log } else { &self.installed }
    }

    /// Records were appended and are not flushed; `links` are those of their entries and come after
    /// `before`.
    ///
    /// # Errors
    ///
    /// A broken promise, when they remove what was acknowledged to the leader of the same term.
    pub fn appended(
        &mut self,
        term: Term,
        hard_state: Option<Bytes>,
        before: Link,
        links: Vec<Link>,
    ) -> Checked {
        if let (Some((of, acknowledged)), Some(first), Some(last)) =
            (self.acknowledged, links.first(), links.last())
        {
            let (from, to) = (first.position.index, last.position.index);
            let place = acknowledged.position.index;
            let kept = from > place || links.contains(&acknowledged);
            hold!(
                of != term || kept,
                PromiseKept,
                "node {} acknowledged {} to the leader of {term} and now writes {from} to {to} over it",
                self.node,
                acknowledged.position
            );
        }
        self.written.push_back(Written::Append { hard_state, before, links });
        Ok(())
    }

    /// The log was voided up to a snapshot, which is not flushed.
    pub fn reset(&mut self, base: Link) {
        self.written.push_back(Written::Reset { base });
    }

    /// The durable hard state.
    #[must_use]
    pub fn hard_state(&self) -> Option<&Bytes> {
        self.hard_state.as_ref()
    }

    /// Whether something was appended and is not durable.
    #[must_use]
    pub fn is_unflushed(&self) -> bool {
        !self.written.is_empty()
    }

    /// All that was appended is durable.
    pub fn flushed(&mut self) {
        for written in std::mem::take(&mut self.written) {
            put(&mut self.hard_state, &mut self.log, &written);
        }
    }

    /// A fetched snapshot is in the tables.
    pub fn installed(&mut self, base: Link) {
        self.installed = Chain::after(base);
    }

    /// The log was opened after a crash: what it holds must be what was durable and some first part of
    /// what was written after it, and every entry one that some replica logged. From then on that is what is
    /// durable.
    ///
    /// # Errors
    ///
    /// A violation of durability.
    pub fn recovered(&mut self, found: &FoundLog<'_>, is_known: impl Fn(&Entry) -> bool) -> Checked {
        for entry in found.entries {
            hold!(
                is_known(entry),
                Durability,
                "node {} finds the entry {} that no replica ever logged",
                self.node,
                entry.position
            );
        }
        let flushed = self.log.last().position;
        let mut rest = std::mem::take(&mut self.written).into_iter();
        while !found.is(self.hard_state.as_ref(), &self.log) {
            let Some(next) = rest.next() else {
                hold!(
                    false,
                    Durability,
                    "node {} flushed a log up to {flushed} and finds {} entries up to {:?} after checkpoint {}, with \
                     hard state {:?}",
                    self.node,
                    found.entries.len(),
                    found.entries.last().map(|entry| entry.position),
                    found.checkpoint,
                    found.hard_state
                );
                break;
            };
            put(&mut self.hard_state, &mut self.log, &next);
        }
        Ok(())
    }

    /// A vote leaves for `candidate`.
    ///
    /// # Errors
    ///
    /// A violation of persist-before-send, or a broken promise.
    pub fn vote_leaves(&mut self, term: Term, candidate: NodeId) -> Checked {
        let durable = self.durable_vote()?;
        let holds = durable.0 > term || durable == (term, Some(candidate));
        hold!(
            holds,
            PersistBeforeSend,
            "node {} votes for {candidate} in {term} while its disk holds a vote for {:?} in {}",
            self.node,
            durable.1,
            durable.0
        );
        let first = *self.votes.entry(term).or_insert(candidate);
        hold!(
            first == candidate,
            PromiseKept,
            "node {} votes for {candidate} in {term} and voted for {first} before",
            self.node
        );
        Ok(())
    }

    /// A candidacy leaves: a vote for itself.
    ///
    /// # Errors
    ///
    /// As [`DurableReplica::vote_leaves`].
    pub fn candidacy_leaves(&mut self, term: Term) -> Checked {
        self.vote_leaves(term, self.node)
    }

    /// An acknowledgement of a place in the log leaves for the leader of a term.
    ///
    /// # Errors
    ///
    /// A violation of persist-before-send.
    pub fn acknowledgement_leaves(
        &mut self,
        term: Term,
        matched: LogIndex,
        history: &GroupHistory,
    ) -> Checked {
        let durable = self.durable_vote()?;
        hold!(
            durable.0 >= term,
            PersistBeforeSend,
            "node {} acknowledges in {term} while its disk is at {}",
            self.node,
            durable.0
        );
        if matched <= self.log().base().position.index || matched <= self.installed.base().position.index {
            return Ok(());
        }
        // A later leader may have replaced it since; then the acknowledgement is of no use to anyone.
        if durable.0 > term {
            return Ok(());
        }
        let held = self.log().at(matched);
        hold!(
            held.is_some(),
            PersistBeforeSend,
            "node {} acknowledges index {matched} in {term} while its disk holds up to {}",
            self.node,
            self.log().last().position
        );
        let held = held.expect("just checked");
        hold!(
            history.known(matched, held.position.term) == Some(held),
            LogMatching,
            "node {} acknowledges {} that nobody else knows",
            self.node,
            held.position
        );
        let further = match self.acknowledged {
            Some((of, before)) => of < term || before.position.index < matched,
            None => true,
        };
        if further {
            self.acknowledged = Some((term, held));
        }
        Ok(())
    }

    fn durable_vote(&self) -> Checked<(Term, Option<NodeId>)> {
        let Some(bytes) = &self.hard_state else { return Ok((Term(1), Some(self.first_leader))) };
        let ballot = stored_ballot(bytes.clone());
        hold!(ballot.is_ok(), Durability, "node {} wrote a hard state that cannot be read", self.node);
        Ok(ballot.unwrap_or_default())
    }
}

/// Term and vote of a stored hard state, read by its documented layout and not by the code under test.
fn stored_ballot(bytes: Bytes) -> Result<(Term, Option<NodeId>), DecodeError> {
    let mut from = Reader::new(bytes);
    from.u8("version")?;
    from.u64("epoch")?;
    let term = Term(from.u64("term")?);
    let voted = from.flag("voted")?;
    let vote = NodeId(from.u64("vote")?);
    from.end()?;
    Ok((term, voted.then_some(vote)))
}

fn put(hard_state: &mut Option<Bytes>, log: &mut Chain, written: &Written) {
    match written {
        Written::Append { hard_state: changed, before, links } => {
            if changed.is_some() {
                hard_state.clone_from(changed);
            }
            if links.first().is_some_and(|_| log.at(before.position.index).is_none()) {
                *log = Chain::after(*before);
            }
            for link in links {
                let put = log.put(*link);
                debug_assert!(put.is_some(), "consecutive links leave no hole");
            }
        }
        Written::Reset { base } => *log = Chain::after(*base),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use quorate_types::codec::Writer;

    use super::*;
    use crate::chain;
    use crate::violation::Invariant;

    fn entry(term: u64, index: u64) -> Entry {
        chain::tests::entry(term, index, "x")
    }

    fn ballot(term: u64, vote: u64) -> Bytes {
        let mut out = Writer::default();
        out.u8(1);
        out.u64(1);
        out.u64(term);
        out.u8(u8::from(vote > 0));
        out.u64(vote);
        out.finish()
    }

    struct Replica {
        history: GroupHistory,
        log: Chain,
        durable: DurableReplica,
    }

    impl Replica {
        fn new() -> Self {
            let durable = DurableReplica::new(NodeId(2), NodeId(1));
            Self { history: GroupHistory::new(2), log: Chain::default(), durable }
        }

        fn append(&mut self, term: u64, hard_state: Option<Bytes>, entries: &[Entry]) -> Checked {
            self.history.logged(NodeId(2), false, &mut self.log, entries).unwrap();
            let links = entries.iter().map(|entry| self.log.at(entry.index()).unwrap()).collect();
            let before = entries.first().map_or(Link::start(), |first| self.history.before(first));
            self.durable.appended(Term(term), hard_state, before, links)
        }

        fn acknowledge(&mut self, term: u64, matched: u64) -> Checked {
            self.durable.acknowledgement_leaves(Term(term), LogIndex(matched), &self.history)
        }

        fn recover(&mut self, hard_state: Option<&Bytes>, entries: &[Entry]) -> Checked {
            let found = FoundLog { hard_state, entries, checkpoint: LogIndex::ZERO };
            let history = &self.history;
            let is_known = |entry: &Entry| history.entry(entry.index(), entry.position.term) == Some(entry);
            self.durable.recovered(&found, is_known)
        }
    }

    fn broken(checked: Checked) -> Invariant {
        checked.unwrap_err().invariant
    }

    #[test]
    fn a_vote_that_leaves_before_its_flush_is_found() {
        let mut replica = Replica::new();
        replica.append(2, Some(ballot(2, 3)), &[]).unwrap();
        assert_eq!(broken(replica.durable.vote_leaves(Term(2), NodeId(3))), Invariant::PersistBeforeSend);
        replica.durable.flushed();
        assert_eq!(replica.durable.vote_leaves(Term(2), NodeId(3)), Ok(()));
        assert_eq!(broken(replica.durable.vote_leaves(Term(2), NodeId(1))), Invariant::PersistBeforeSend);
    }

    #[test]
    fn two_votes_in_one_term_are_found_even_if_both_were_durable() {
        let mut replica = Replica::new();
        replica.append(2, Some(ballot(2, 3)), &[]).unwrap();
        replica.durable.flushed();
        replica.durable.vote_leaves(Term(2), NodeId(3)).unwrap();
        replica.append(2, Some(ballot(2, 1)), &[]).unwrap();
        replica.durable.flushed();
        assert_eq!(broken(replica.durable.vote_leaves(Term(2), NodeId(1))), Invariant::PromiseKept);
        assert_eq!(broken(replica.durable.candidacy_leaves(Term(2))), Invariant::PersistBeforeSend);
    }

    #[test]
    fn an_acknowledgement_that_leaves_before_its_flush_is_found() {
        let mut replica = Replica::new();
        replica.append(1, None, &[entry(1, 1), entry(1, 2)]).unwrap();
        assert_eq!(broken(replica.acknowledge(1, 1)), Invariant::PersistBeforeSend);
        replica.durable.flushed();
        assert_eq!(replica.acknowledge(1, 2), Ok(()));
        assert_eq!(broken(replica.acknowledge(1, 3)), Invariant::PersistBeforeSend);
        assert_eq!(broken(replica.acknowledge(2, 2)), Invariant::PersistBeforeSend, "term 2 is not durable");
    }

    #[test]
    fn an_acknowledged_entry_that_is_cut_in_its_term_is_found_and_later_it_may_be() {
        let mut replica = Replica::new();
        replica.append(1, None, &[entry(1, 1), entry(1, 2), entry(1, 3)]).unwrap();
        replica.durable.flushed();
        replica.acknowledge(1, 3).unwrap();
        assert_eq!(replica.append(1, None, &[entry(1, 2), entry(1, 3)]), Ok(()));
        assert_eq!(broken(replica.append(1, None, &[entry(1, 2)])), Invariant::PromiseKept);
        assert_eq!(replica.append(2, Some(ballot(2, 0)), &[entry(2, 2)]), Ok(()));
    }

    #[test]
    fn a_log_that_lost_what_was_flushed_is_found() {
        let (one, two) = (entry(1, 1), entry(1, 2));
        let whole = [one.clone(), two];
        let flushed = || {
            let mut replica = Replica::new();
            replica.append(1, Some(ballot(1, 1)), &whole).unwrap();
            replica.durable.flushed();
            replica
        };
        assert_eq!(flushed().recover(Some(&ballot(1, 1)), &whole), Ok(()));
        assert_eq!(broken(flushed().recover(Some(&ballot(1, 1)), &whole[..1])), Invariant::Durability);
        assert_eq!(broken(flushed().recover(None, &whole)), Invariant::Durability);
        let invented = [one, Entry { body: Bytes::from_static(b"y"), ..entry(1, 2) }];
        assert_eq!(broken(flushed().recover(Some(&ballot(1, 1)), &invented)), Invariant::Durability);
    }

    #[test]
    fn some_first_part_of_what_was_not_flushed_may_be_there() {
        let (one, two) = (entry(1, 1), entry(1, 2));
        let written = || {
            let mut replica = Replica::new();
            replica.append(1, None, std::slice::from_ref(&one)).unwrap();
            replica.append(2, Some(ballot(2, 3)), std::slice::from_ref(&two)).unwrap();
            replica
        };
        assert_eq!(written().recover(None, &[]), Ok(()));
        assert_eq!(written().recover(None, std::slice::from_ref(&one)), Ok(()));
        assert_eq!(written().recover(Some(&ballot(2, 3)), &[one.clone(), two.clone()]), Ok(()));
        assert_eq!(
            broken(written().recover(Some(&ballot(2, 3)), std::slice::from_ref(&one))),
            Invariant::Durability
        );
    }

    #[test]
    fn a_snapshot_in_the_tables_voids_another_history() {
        let mut replica = Replica::new();
        replica.append(1, None, &[entry(1, 1), entry(1, 2)]).unwrap();
        replica.durable.flushed();
        let known = replica.log.at(LogIndex(1)).unwrap();
        replica.durable.installed(known);
        assert_eq!(replica.durable.log().last().position.index, LogIndex(2), "it goes on after the snapshot");
        let far = Link::start().then(&entry(3, 1)).then(&entry(3, 2)).then(&entry(3, 3));
        replica.durable.installed(far);
        assert_eq!(replica.durable.log().last(), far);
    }
}
