//! What an honest HotStuff replica promises with its signatures, held against its disk, against what it signed
//! before and against what was proposed.
//!
//! Relies on every message that leaves being told, liars' proposals too. Promises to find a signature that
//! leaves before its disk remembers it, one that contradicts an earlier one, and a vote for a block that no
//! proposal entitles to one. A vote that a crash kept from leaving was given if its disk remembers it. Knows the rules
//! of voting as the design states them, written a second time.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_consensus::hotstuff::{Body, Header, Justify, Message, Schedule};
use quorate_crypto::ValidatorSet;
use quorate_types::codec::{DecodeError, Reader};
use quorate_types::{Digest, EpochConfig, HlcTimestamp, LogIndex, NodeId, Position, View};

use crate::violation::{Checked, hold};

/// What a proposal shows for its block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entitlement {
    by: NodeId,
    header: Header,
    certified: (View, Digest),
    /// The view given up, and the highest view of a certificate that its signers knew.
    timed_out: Option<(View, View)>,
}

/// All that was proposed in a group, by anyone.
#[derive(Debug)]
pub struct Proposals {
    schedule: Schedule,
    genesis: Digest,
    shown: BTreeMap<Digest, Vec<Entitlement>>,
}

impl Proposals {
    /// None yet.
    #[must_use]
    pub fn new(set: &ValidatorSet, config: &EpochConfig, tenure_views: u64) -> Self {
        Self {
            schedule: Schedule::new(config, tenure_views),
            genesis: Header::genesis(set, Position::ZERO, HlcTimestamp::ZERO).digest(),
            shown: BTreeMap::new(),
        }
    }

    /// Remembers a proposal.
    pub fn note(&mut self, by: NodeId, message: &Message) {
        let Body::Proposal(proposal) = &message.body else { return };
        let certified = match &proposal.justify {
            Justify::Genesis => (View::ZERO, self.genesis),
            Justify::Certified(certificate) => (certificate.statement().view, certificate.statement().digest),
        };
        let timed_out = proposal.timed_out.as_ref().map(|given_up| (given_up.view(), given_up.high_view()));
        let entitlement = Entitlement { by, header: *proposal.block.header(), certified, timed_out };
        let shown = self.shown.entry(proposal.block.digest()).or_default();
        if !shown.contains(&entitlement) {
            shown.push(entitlement);
        }
    }

    /// Whether a proposal by the leader entitles the block to a vote (DESIGN §4: vote if and only if).
    fn entitle(&self, view: View, index: LogIndex, digest: Digest) -> bool {
        let entitles = |shown: &Entitlement| {
            let header = &shown.header;
            let (certified, parent) = shown.certified;
            let after_timeout =
                shown.timed_out.is_some_and(|(given_up, high)| given_up.next() == view && certified >= high);
            (header.view(), header.position.index) == (view, index)
                && header.parent == parent
                && certified < view
                && (certified.next() == view || after_timeout)
                && self.schedule.leader(header.tenure) == shown.by
        };
        self.shown.get(&digest).is_some_and(|shown| shown.iter().any(entitles))
    }
}

/// What one replica signed and sent.
#[derive(Clone, Debug, Default)]
pub struct Pledges {
    votes: BTreeMap<View, (LogIndex, Digest)>,
    proposals: BTreeMap<View, Digest>,
    /// The highest view given up.
    given_up: View,
}

/// What a stored hard state says was signed.
#[derive(Clone, Copy, Debug, Default)]
struct Stored {
    last_voted: View,
    proposed: View,
    vote: Option<(View, LogIndex, Digest)>,
    given_up: View,
}

impl Pledges {
    /// A message leaves; whether it promises something.
    ///
    /// # Errors
    ///
    /// A violation of persist-before-send, a broken promise, or an unsafe vote.
    pub fn leaves(
        &mut self,
        node: NodeId,
        message: &Message,
        hard_state: Option<&Bytes>,
        proposals: &Proposals,
    ) -> Checked<bool> {
        match &message.body {
            Body::Vote { view, index, digest } => {
                let stored = stored(node, hard_state)?;
                hold!(
                    stored.last_voted >= *view,
                    PersistBeforeSend,
                    "node {node} votes in {view} while its disk knows of votes up to {}",
                    stored.last_voted
                );
                self.vote_leaves(node, (*view, *index, *digest), proposals)?;
            }
            Body::Timeout(timeout) => {
                let stored = stored(node, hard_state)?;
                hold!(
                    stored.given_up >= timeout.view,
                    PersistBeforeSend,
                    "node {node} gives up {} while its disk knows of {}",
                    timeout.view,
                    stored.given_up
                );
                let voted = self.votes.last_key_value().map_or(View::ZERO, |(view, _)| *view);
                hold!(
                    timeout.view >= voted,
                    PromiseKept,
                    "node {node} gives up {} and voted in {voted} before",
                    timeout.view
                );
                self.given_up = self.given_up.max(timeout.view);
            }
            Body::Proposal(proposal) => {
                let (view, digest) = (proposal.block.header().view(), proposal.block.digest());
                let stored = stored(node, hard_state)?;
                hold!(
                    stored.proposed >= view,
                    PersistBeforeSend,
                    "node {node} proposes in {view} while its disk knows of proposals up to {}",
                    stored.proposed
                );
                let first = *self.proposals.entry(view).or_insert(digest);
                hold!(first == digest, PromiseKept, "node {node} proposes two blocks in {view}");
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// A restart finds this hard state: the vote in it may leave from now on, whatever is given up meanwhile.
    ///
    /// # Errors
    ///
    /// A broken promise, if another vote of that view has left. If the view was given up, or the block was not
    /// proposed to others yet, the vote is judged when it leaves.
    pub fn found(&mut self, node: NodeId, hard_state: Option<&Bytes>, proposals: &Proposals) -> Checked {
        match stored(node, hard_state)?.vote {
            Some(vote @ (view, index, digest))
                if view > self.given_up && proposals.entitle(view, index, digest) =>
            {
                self.vote_leaves(node, vote, proposals)
            }
            _ => Ok(()),
        }
    }

    fn vote_leaves(
        &mut self,
        node: NodeId,
        (view, index, digest): (View, LogIndex, Digest),
        proposals: &Proposals,
    ) -> Checked {
        let first = self.votes.get(&view).copied();
        if first == Some((index, digest)) {
            return Ok(());
        }
        hold!(first.is_none(), PromiseKept, "node {node} votes for two blocks in {view}");
        hold!(
            view > self.given_up,
            PromiseKept,
            "node {node} votes in {view} and gave up {} before",
            self.given_up
        );
        hold!(
            proposals.entitle(view, index, digest),
            VoteIsSafe,
            "node {node} votes in {view} for a block at {index} that no proposal entitles to a vote"
        );
        self.votes.insert(view, (index, digest));
        Ok(())
    }
}

fn stored(node: NodeId, hard_state: Option<&Bytes>) -> Checked<Stored> {
    let Some(bytes) = hard_state else { return Ok(Stored::default()) };
    let stored = read(bytes.clone());
    hold!(stored.is_ok(), Durability, "node {node} wrote a hard state that cannot be read");
    Ok(stored.unwrap_or_default())
}

/// What a hard state says was signed, read by its documented layout and not by the code under test.
fn read(bytes: Bytes) -> Result<Stored, DecodeError> {
    let mut from = Reader::new(bytes);
    from.u8("version")?;
    from.u64("epoch")?;
    let mut stored = Stored {
        last_voted: View(from.u64("last voted")?),
        proposed: View(from.u64("last proposed")?),
        vote: None,
        given_up: View::ZERO,
    };
    if from.flag("vote")? {
        let (view, index) = (View(from.u64("voted view")?), LogIndex(from.u64("voted index")?));
        stored.vote = Some((view, index, Digest(from.array("voted digest")?)));
    }
    if from.flag("timeout")? {
        stored.given_up = View(from.u64("given up")?);
    }
    Ok(stored)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use quorate_consensus::hotstuff::{Block, Proposal, Timeout};
    use quorate_crypto::{Scope, Signature};
    use quorate_types::codec::Writer;
    use quorate_types::{ClusterId, EntryKind, Epoch, GroupId, Term};

    use super::*;
    use crate::notary::{Notary, Scheme};
    use crate::signing::epoch;
    use crate::violation::Invariant;

    const VOTER: NodeId = NodeId(2);

    struct Scene {
        scope: Scope,
        proposals: Proposals,
        pledges: Pledges,
        genesis: Header,
    }

    impl Scene {
        fn new() -> Self {
            let nodes: Vec<NodeId> = (1..=4).map(NodeId).collect();
            let notary = Notary::new(Scheme::StandIn, &nodes, BTreeSet::new(), None);
            let config = epoch(&nodes, NodeId(1), &notary);
            let set = ValidatorSet::of_epoch(ClusterId([1; 16]), GroupId(1), &config).unwrap();
            let genesis = Header::genesis(&set, Position::ZERO, HlcTimestamp::ZERO);
            let proposals = Proposals::new(&set, &config, 1_000);
            Self { scope: *set.scope(), proposals, pledges: Pledges::default(), genesis }
        }

        fn message(&self, body: Body) -> Message {
            Message { scope: self.scope, body, signature: Signature([0; 64]) }
        }

        /// A block of the first view that the leader proposes, told apart by its stamp.
        fn proposed(&mut self, stamp: u64) -> Digest {
            let position = Position { epoch: Epoch(1), term: Term(1), index: LogIndex(1) };
            let header = Header {
                parent: self.genesis.digest(),
                position,
                hlc: HlcTimestamp(stamp),
                kind: EntryKind::Empty,
                ..self.genesis
            };
            let block = Block::new(header, Bytes::new());
            let digest = block.digest();
            let proposal = Proposal { block, justify: Justify::Genesis, timed_out: None };
            let message = self.message(Body::Proposal(Box::new(proposal)));
            self.proposals.note(NodeId(1), &message);
            digest
        }

        fn leaves(&mut self, body: Body, stored: [u64; 2]) -> Checked<bool> {
            let message = self.message(body);
            self.pledges.leaves(VOTER, &message, Some(&hard_state(stored, None)), &self.proposals)
        }

        /// A restart after a vote in view 1.
        fn found(&mut self, voted: Digest) -> Checked {
            self.pledges.found(VOTER, Some(&hard_state([1, 0], Some(voted))), &self.proposals)
        }
    }

    /// The views last voted in and given up, and the vote in view 1 if there is one.
    fn hard_state([voted, given_up]: [u64; 2], vote: Option<Digest>) -> Bytes {
        let mut out = Writer::default();
        out.u8(1);
        out.u64(1);
        out.u64(voted);
        out.u64(0);
        out.u8(vote.is_some().into());
        if let Some(digest) = vote {
            out.u64(1);
            out.u64(1);
            out.raw(&digest.0);
        }
        out.u8(1);
        out.u64(given_up);
        out.u64(0);
        out.finish()
    }

    fn vote(digest: Digest) -> Body {
        Body::Vote { view: View(1), index: LogIndex(1), digest }
    }

    fn timeout(view: u64) -> Body {
        let (high_view, high, timed_out) = (View::ZERO, Justify::Genesis, None);
        Body::Timeout(Box::new(Timeout { view: View(view), high_view, high, timed_out }))
    }

    fn broken(checked: Checked<bool>) -> Invariant {
        checked.unwrap_err().invariant
    }

    #[test]
    fn a_vote_that_its_disk_does_not_know_is_found_and_one_that_it_knows_may_be_repeated() {
        let mut scene = Scene::new();
        let digest = scene.proposed(5);
        assert_eq!(broken(scene.leaves(vote(digest), [0, 0])), Invariant::PersistBeforeSend);
        assert_eq!(scene.leaves(vote(digest), [1, 0]), Ok(true));
        assert_eq!(scene.leaves(vote(digest), [1, 0]), Ok(true));
        let other = scene.proposed(6);
        assert_eq!(broken(scene.leaves(vote(other), [1, 0])), Invariant::PromiseKept);
    }

    #[test]
    fn a_vote_in_a_view_that_was_given_up_is_found_and_so_is_an_early_timeout() {
        let mut scene = Scene::new();
        let digest = scene.proposed(5);
        assert_eq!(broken(scene.leaves(timeout(1), [1, 0])), Invariant::PersistBeforeSend);
        assert_eq!(scene.leaves(timeout(1), [1, 1]), Ok(true));
        assert_eq!(broken(scene.leaves(vote(digest), [1, 1])), Invariant::PromiseKept);
    }

    /// What could go wrong: a vote that was decided before the view was given up, and left after, counts as broken.
    #[test]
    fn a_vote_that_a_crash_held_back_may_leave_after_its_view_was_given_up() {
        let mut scene = Scene::new();
        let digest = scene.proposed(5);
        assert_eq!(scene.found(digest), Ok(()));
        let other = scene.proposed(6);
        assert_eq!(scene.found(other).unwrap_err().invariant, Invariant::PromiseKept);
        assert_eq!(scene.leaves(timeout(1), [1, 1]), Ok(true));
        assert_eq!(scene.leaves(vote(digest), [1, 1]), Ok(true));
        assert_eq!(broken(scene.leaves(vote(other), [1, 1])), Invariant::PromiseKept);

        let mut scene = Scene::new();
        let digest = scene.proposed(5);
        assert_eq!(scene.found(Digest([3; 32])), Ok(()), "its own proposal may not have left either");
        assert_eq!(broken(scene.leaves(vote(Digest([3; 32])), [1, 0])), Invariant::VoteIsSafe);
        assert_eq!(scene.leaves(timeout(1), [1, 1]), Ok(true));
        assert_eq!(scene.found(digest), Ok(()));
        assert_eq!(broken(scene.leaves(vote(digest), [1, 1])), Invariant::PromiseKept);
    }

    #[test]
    fn a_vote_for_what_nobody_entitled_proposed_is_found() {
        let mut scene = Scene::new();
        assert_eq!(broken(scene.leaves(vote(Digest([3; 32])), [1, 0])), Invariant::VoteIsSafe);
        let digest = scene.proposed(5);
        let late = Body::Vote { view: View(2), index: LogIndex(1), digest };
        assert_eq!(broken(scene.leaves(late, [2, 0])), Invariant::VoteIsSafe);
        assert_eq!(scene.leaves(vote(digest), [2, 0]), Ok(true));
    }
}
