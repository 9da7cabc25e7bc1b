//! What the replicas of one group committed together.
//!
//! Relies on [`Chain`] for what a log is. Promises that two replicas which commit different entries at one index, or
//! one entry after different histories, are found at the second of them. Does not know whether it was safe to commit.

use quorate_types::{LogIndex, NodeId};

use crate::chain::{Chain, Link};
use crate::violation::{Checked, hold};

/// Every entry that some replica saw committed, from index 1 on.
#[derive(Debug, Default)]
pub struct Committed(Vec<Link>);

impl Committed {
    /// The last committed index.
    #[must_use]
    pub fn last_index(&self) -> LogIndex {
        LogIndex(self.0.len() as u64)
    }

    /// All of them.
    #[must_use]
    pub fn links(&self) -> &[Link] {
        &self.0
    }

    /// What was committed at an index.
    #[must_use]
    pub fn at(&self, index: LogIndex) -> Option<Link> {
        self.0.get(usize::try_from(index.0.checked_sub(1)?).ok()?).copied()
    }

    /// A replica with this log says that everything after `from` up to `to` is committed; what nobody saw committed
    /// before.
    ///
    /// # Errors
    ///
    /// A violation of state machine safety.
    pub fn commits(
        &mut self,
        node: NodeId,
        (from, to): (LogIndex, LogIndex),
        log: &Chain,
    ) -> Checked<Vec<Link>> {
        let mut fresh = Vec::new();
        for index in (from.0 + 1..=to.0).map(LogIndex) {
            let Some(link) = log.at(index) else {
                // A snapshot covers it, which only a replica that had applied it could give.
                hold!(
                    index <= log.base().position.index && index <= self.last_index(),
                    StateMachineSafety,
                    "node {node} commits index {index} that is not in its log, which ends at {}",
                    log.last().position
                );
                continue;
            };
            if let Some(first) = self.at(index) {
                hold!(
                    first == link,
                    StateMachineSafety,
                    "node {node} commits {} where {} was committed before, or after a different history",
                    link.position,
                    first.position
                );
                continue;
            }
            hold!(
                index == self.last_index().next(),
                StateMachineSafety,
                "node {node} commits index {index} where nobody committed what comes before it"
            );
            self.0.push(link);
            fresh.push(link);
        }
        Ok(fresh)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::chain::tests::entry;
    use crate::violation::Invariant;

    const NODE: NodeId = NodeId(1);

    fn links(bodies: &[&'static str]) -> Vec<Link> {
        let mut last = Link::start();
        let link = |(index, body): (u64, &&'static str)| {
            last = last.then(&entry(1, index, body));
            last
        };
        (1..).zip(bodies).map(link).collect()
    }

    fn log(base: Link, links: &[Link]) -> Chain {
        let mut log = Chain::after(base);
        links.iter().for_each(|link| assert_eq!(log.put(*link), Some(0)));
        log
    }

    fn broken(committed: &mut Committed, range: (u64, u64), log: &Chain) -> Invariant {
        committed.commits(NODE, (LogIndex(range.0), LogIndex(range.1)), log).unwrap_err().invariant
    }

    #[test]
    fn a_commit_is_new_once_and_another_one_at_its_place_is_found() {
        let (mut committed, all) = (Committed::default(), links(&["a", "b"]));
        let whole = log(Link::start(), &all);
        assert_eq!(committed.commits(NODE, (LogIndex(0), LogIndex(2)), &whole), Ok(all.clone()));
        assert_eq!(committed.commits(NODE, (LogIndex(0), LogIndex(2)), &whole), Ok(Vec::new()));
        assert_eq!((committed.last_index(), committed.at(LogIndex(2))), (LogIndex(2), Some(all[1])));
        let other = log(Link::start(), &links(&["another", "b"]));
        for from in [0, 1] {
            assert_eq!(broken(&mut committed, (from, 2), &other), Invariant::StateMachineSafety);
        }
    }

    #[test]
    fn a_snapshot_stands_for_what_was_committed_and_for_nothing_else() {
        let all = links(&["a", "b", "c"]);
        let after_two = log(all[1], &all[2..]);
        let mut committed = Committed::default();
        assert_eq!(broken(&mut committed, (0, 3), &after_two), Invariant::StateMachineSafety);
        assert_eq!(broken(&mut committed, (2, 3), &after_two), Invariant::StateMachineSafety, "a hole");
        let whole = log(Link::start(), &all);
        committed.commits(NODE, (LogIndex(0), LogIndex(2)), &whole).unwrap();
        assert_eq!(committed.commits(NODE, (LogIndex(0), LogIndex(3)), &after_two), Ok(vec![all[2]]));
        assert_eq!(broken(&mut committed, (3, 4), &whole), Invariant::StateMachineSafety, "not in its log");
    }
}
