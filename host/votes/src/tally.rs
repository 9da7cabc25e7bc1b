//! Verified votes, counted until a digest has its quorum or cannot have one any more.
//!
//! Relies on votes that were verified: it counts what `Verified` vouches for. Promises that a member counts
//! once per kind and view, that a second, different vote of one member is reported with both signatures and
//! never counted, that a certificate is made once, from exactly a quorum, and that memory is bounded by the
//! window of views whatever arrives. Knows no protocol's rules: which digest may be voted for is not its
//! business.

use std::collections::BTreeMap;

use quorate_crypto::{Certificate, ForeignScope, Signature, Signed, Statement, StatementKind, ValidatorSet};
use quorate_types::{Digest, LogIndex, NodeId, View};

/// How many views above the lowest kept one are counted.
pub const VIEWS_AHEAD_MAX: u64 = 64;

/// A verified vote and the signature that proves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vote {
    /// Who voted.
    pub signer: NodeId,
    /// For what.
    pub statement: Statement,
    /// The accepted signature.
    pub signature: Signature,
}

/// Two different votes of one member for one kind and view: proof that it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Equivocation {
    /// The vote that counts.
    pub first: Signed<Statement>,
    /// The vote that does not.
    pub second: Signed<Statement>,
}

/// A vote that is not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TallyError {
    /// It holds in another place.
    #[error(transparent)]
    Foreign(#[from] ForeignScope),
    /// No member of the epoch.
    #[error("{signer} is no member of the epoch")]
    UnknownSigner {
        /// Who voted.
        signer: NodeId,
    },
    /// Its view is over.
    #[error("view {view} is below {lowest}, the lowest that is counted")]
    ViewOver {
        /// The vote's view.
        view: View,
        /// The lowest view that is counted.
        lowest: View,
    },
    /// Its view is too far ahead.
    #[error("view {view} is above {highest}, the highest that is counted")]
    ViewTooFarAhead {
        /// The vote's view.
        view: View,
        /// The highest view that is counted.
        highest: View,
    },
}

/// Whether a digest has its quorum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It may still get one.
    Open,
    /// It has one.
    Reached,
    /// Too many members voted for something else.
    OutOfReach,
}

/// What a vote changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It was counted before.
    Repeated,
    /// It counts, and decides nothing yet.
    Counted,
    /// It completed the quorum.
    Certified(Box<Certificate>),
    /// Its signer voted for something else before; it does not count.
    Equivocated(Box<Equivocation>),
}

/// The count for one digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// Members that voted for it.
    pub yes: usize,
    /// Members that voted for something else of the same kind and view.
    pub no: usize,
    /// Whether it has its quorum.
    pub standing: Standing,
    /// Members that voted for more than one thing, in order.
    pub culprits: Vec<NodeId>,
}

/// The votes of one epoch of one group.
#[derive(Debug)]
pub struct Tally {
    set: ValidatorSet,
    lowest: View,
    ballots: BTreeMap<(View, StatementKind), Ballot>,
}

/// The votes of one kind in one view; at most one for each member, and the members that cast two.
#[derive(Debug, Default)]
struct Ballot {
    votes: BTreeMap<NodeId, Vote>,
    culprits: Vec<NodeId>,
}

impl Tally {
    /// Counts the votes of `set` from `lowest` on.
    #[must_use]
    pub fn new(set: ValidatorSet, lowest: View) -> Self {
        Self { set, lowest, ballots: BTreeMap::new() }
    }

    /// Counts a vote whose signature was accepted.
    ///
    /// # Errors
    ///
    /// [`TallyError`] for a vote of another place, a stranger or a view that is not counted.
    pub fn add(&mut self, vote: Vote) -> Result<Progress, TallyError> {
        let Vote { signer, statement, .. } = vote;
        statement.scope.must_be(self.set.scope())?;
        self.set.member(signer).ok_or(TallyError::UnknownSigner { signer })?;
        self.check_view(statement.view)?;
        let ballot = self.ballots.entry((statement.view, statement.kind)).or_default();
        if let Some(first) = ballot.votes.get(&signer) {
            if first.statement == statement {
                return Ok(Progress::Repeated);
            }
            let equivocation = Equivocation { first: signed(first), second: signed(&vote) };
            if !ballot.culprits.contains(&signer) {
                ballot.culprits.push(signer);
                ballot.culprits.sort();
            }
            return Ok(Progress::Equivocated(Box::new(equivocation)));
        }
        ballot.votes.insert(signer, vote);
        let same = ballot.votes.values().filter(|other| other.statement == statement);
        let votes: Vec<_> = same.map(|vote| (vote.signer, vote.signature)).collect();
        if votes.len() != self.set.quorum() {
            return Ok(Progress::Counted);
        }
        let certificate = Certificate::assemble(statement, &self.set, votes);
        Ok(Progress::Certified(Box::new(certificate.expect("votes of a quorum of distinct members"))))
    }

    /// The count for one content at one place of one kind and view.
    #[must_use]
    pub fn count(&self, kind: StatementKind, view: View, index: LogIndex, digest: Digest) -> Count {
        let ballot = self.ballots.get(&(view, kind));
        let votes = ballot.iter().flat_map(|ballot| ballot.votes.values());
        let (mut yes, mut no) = (0, 0);
        for vote in votes {
            let is_for = vote.statement.digest == digest && vote.statement.index == index;
            *(if is_for { &mut yes } else { &mut no }) += 1;
        }
        let quorum = self.set.quorum();
        let standing = match yes {
            _ if yes >= quorum => Standing::Reached,
            _ if self.set.members().len() - no < quorum => Standing::OutOfReach,
            _ => Standing::Open,
        };
        Count {
            yes,
            no,
            standing,
            culprits: ballot.map(|ballot| ballot.culprits.clone()).unwrap_or_default(),
        }
    }

    /// Forgets all views below `lowest`.
    pub fn discard_below(&mut self, lowest: View) {
        self.lowest = self.lowest.max(lowest);
        self.ballots = self.ballots.split_off(&(self.lowest, StatementKind::Proposal));
    }

    fn check_view(&self, view: View) -> Result<(), TallyError> {
        let (lowest, highest) = (self.lowest, View(self.lowest.0.saturating_add(VIEWS_AHEAD_MAX)));
        if view < lowest {
            return Err(TallyError::ViewOver { view, lowest });
        }
        if view > highest {
            return Err(TallyError::ViewTooFarAhead { view, highest });
        }
        Ok(())
    }
}

fn signed(vote: &Vote) -> Signed<Statement> {
    Signed::from_parts(vote.statement, vote.signer, vote.signature)
}

const _: () = assert!(StatementKind::Proposal as u8 == 1, "no kind is ordered before a proposal");

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use quorate_crypto::Verified;
    use quorate_types::GroupId;

    use super::*;
    use crate::verifier::tests::{set, signed as sign, vote as statement};

    fn vote(view: u64, content: u8, node: u64) -> Vote {
        let signed = sign(view, content, node);
        Vote { signer: signed.signer(), statement: *signed.unverified(), signature: signed.signature() }
    }

    fn tally() -> Tally {
        Tally::new(set(), View(1))
    }

    fn count(tally: &Tally, content: u8) -> (usize, usize, Standing) {
        let count = tally.count(StatementKind::Vote, View(3), LogIndex(3), Digest([content; 32]));
        (count.yes, count.no, count.standing)
    }

    #[test]
    fn the_quorum_makes_one_certificate_that_verifies() {
        let mut tally = tally();
        assert_eq!(tally.add(vote(3, 1, 4)), Ok(Progress::Counted));
        assert_eq!(tally.add(vote(3, 1, 4)), Ok(Progress::Repeated));
        assert_eq!(tally.add(vote(3, 1, 1)), Ok(Progress::Counted));
        assert_eq!(count(&tally, 1), (2, 0, Standing::Open));
        let Progress::Certified(certificate) = tally.add(vote(3, 1, 2)).unwrap() else { panic!("a quorum") };
        assert_eq!(certificate.verify(&set()), Ok(()));
        assert_eq!(*certificate.statement(), statement(3, 1));
        assert_eq!(tally.add(vote(3, 1, 3)), Ok(Progress::Counted), "no second certificate");
        assert_eq!(count(&tally, 1), (4, 0, Standing::Reached));
    }

    /// Votes for other content, at another index, or of another kind or view count for nothing here.
    #[test]
    fn only_votes_for_the_same_statement_add_up() {
        let mut tally = tally();
        let mut other = vote(3, 1, 2);
        other.statement.index = LogIndex(9);
        for vote in [vote(3, 1, 1), other, vote(3, 2, 3), vote(3, 2, 4), vote(4, 1, 3)] {
            assert_eq!(tally.add(vote), Ok(Progress::Counted));
        }
        assert_eq!(count(&tally, 1), (1, 3, Standing::OutOfReach));
        assert_eq!(count(&tally, 2), (2, 2, Standing::OutOfReach));
        assert_eq!(count(&tally, 3), (0, 4, Standing::OutOfReach));
    }

    #[test]
    fn a_second_vote_does_not_count_and_both_prove_the_lie() {
        let mut tally = tally();
        assert_eq!(tally.add(vote(3, 1, 1)), Ok(Progress::Counted));
        let Progress::Equivocated(proof) = tally.add(vote(3, 2, 1)).unwrap() else { panic!("two votes") };
        for signed in [proof.first, proof.second] {
            assert_eq!(Verified::from_signed(signed, &set()).unwrap().origin(), NodeId(1));
        }
        assert_eq!(count(&tally, 2), (0, 1, Standing::Open));
        let culprits = tally.count(StatementKind::Vote, View(3), LogIndex(3), Digest([1; 32])).culprits;
        assert_eq!(culprits, [NodeId(1)]);
    }

    #[test]
    fn strangers_other_places_and_views_out_of_the_window_are_refused() {
        let mut tally = tally();
        let stranger = Vote { signer: NodeId(9), ..vote(3, 1, 1) };
        assert_eq!(tally.add(stranger), Err(TallyError::UnknownSigner { signer: NodeId(9) }));
        let mut foreign = vote(3, 1, 1);
        foreign.statement.scope.group = GroupId(9);
        assert!(matches!(tally.add(foreign), Err(TallyError::Foreign(ForeignScope::Group { .. }))));
        let (view, highest) = (View(99), View(65));
        assert_eq!(tally.add(vote(99, 1, 1)), Err(TallyError::ViewTooFarAhead { view, highest }));
        assert_eq!(tally.add(vote(3, 1, 1)), Ok(Progress::Counted));
        tally.discard_below(View(4));
        let (view, lowest) = (View(3), View(4));
        assert_eq!(tally.add(vote(3, 1, 1)), Err(TallyError::ViewOver { view, lowest }));
        assert_eq!(count(&tally, 1), (0, 0, Standing::Open));
        tally.discard_below(View(2));
        assert!(tally.add(vote(3, 1, 1)).is_err(), "the window never moves back");
    }
}
