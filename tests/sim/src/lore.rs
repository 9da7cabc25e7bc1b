//! What the liars of a cluster know together, and the lies that need it.
//!
//! Relies on being shown every message that a liar sends or receives. Promises that certificates kept here
//! have a quorum, and that what it makes is signed by nobody but the seal it is given. Knows neither when a lie
//! is told nor to whom.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use quorate_consensus::hotstuff::{Body, Header, Message, Proposal, Schedule};
use quorate_crypto::{Certificate, ValidatorSet};
use quorate_types::{GroupId, HlcTimestamp, NodeId, Position, View};

use crate::forgery;
use crate::notary::Seal;
use crate::random::Random;

/// Certificates that liars keep, over all groups.
const CERTIFICATES_MAX: usize = 24;
/// Of a thousand blocks out of turn, so many follow the last one known; the others follow the genesis.
const FOLLOWING_PER_MILLE: u32 = 800;

/// What liars know.
#[derive(Debug)]
pub struct Lore {
    sets: BTreeMap<GroupId, Arc<ValidatorSet>>,
    /// Who leads, in all groups alike.
    schedule: Schedule,
    geneses: BTreeMap<GroupId, Header>,
    certificates: VecDeque<(GroupId, Certificate)>,
    /// The last block that anyone proposed in each group.
    proposals: BTreeMap<GroupId, Proposal>,
}

impl Lore {
    /// What liars know of these groups before anything happens.
    #[must_use]
    pub fn new(sets: BTreeMap<GroupId, Arc<ValidatorSet>>, schedule: Schedule) -> Self {
        let genesis = |set: &Arc<ValidatorSet>| Header::genesis(set, Position::ZERO, HlcTimestamp::ZERO);
        Self {
            geneses: sets.iter().map(|(group, set)| (*group, genesis(set))).collect(),
            sets,
            schedule,
            certificates: VecDeque::new(),
            proposals: BTreeMap::new(),
        }
    }

    /// Keeps the proposal and the certificate of what passes.
    pub fn learn(&mut self, group: GroupId, message: &Message) {
        if let Body::Proposal(proposal) = &message.body {
            self.proposals.insert(group, proposal.as_ref().clone());
        }
        let certificate = match &message.body {
            Body::Proposal(proposal) => proposal.justify.certificate(),
            Body::Timeout(timeout) => timeout.high.certificate(),
            Body::NewView { high, .. } | Body::Request { high, .. } => high.certificate(),
            Body::Blocks(blocks) => Some(&blocks.certificate),
            _ => None,
        };
        let Some(certificate) = certificate else { return };
        let Some(set) = self.sets.get(&group) else { return };
        let is_known = |(_, known): &(GroupId, Certificate)| known.statement() == certificate.statement();
        if certificate.check(set).is_err() || self.certificates.iter().any(is_known) {
            return;
        }
        if self.certificates.len() >= CERTIFICATES_MAX {
            self.certificates.pop_front();
        }
        self.certificates.push_back((group, certificate.clone()));
    }

    /// The certificates of a group.
    #[must_use]
    pub fn certificates(&self, group: GroupId) -> Vec<&Certificate> {
        let of_group = self.certificates.iter().filter(|(other, _)| *other == group);
        of_group.map(|(_, certificate)| certificate).collect()
    }

    /// A certificate of a group that proves nothing.
    pub fn forged(
        &self,
        group: GroupId,
        seal: &Seal,
        message: &Message,
        random: &mut Random,
    ) -> Option<Certificate> {
        let of_others = self.certificates.iter().filter(|(other, _)| *other != group);
        let foreign = of_others.map(|(_, certificate)| certificate).next_back();
        forgery::certificate(seal, self.sets.get(&group)?, foreign, message, random)
    }

    /// A block in a view that another member leads, or one in a view of the liar's own as if nothing had been
    /// before it.
    pub fn out_of_turn(&self, group: GroupId, liar: NodeId, random: &mut Random) -> Option<Body> {
        if let Some(last) = self.proposals.get(&group).filter(|_| random.chance(FOLLOWING_PER_MILLE)) {
            return Some(forgery::out_of_turn(last, &self.certificates(group)));
        }
        let members = self.sets.get(&group)?.members().len() as u64;
        let own = (2..2 + members).find(|view| self.schedule.leader(View(*view)) == liar)?;
        let view = View(own + members * random.below(4));
        Some(forgery::after_genesis(self.geneses.get(&group)?, view))
    }

    /// Blocks that nobody proposed, sent to a replica that may not have asked.
    pub fn false_future(&self, group: GroupId) -> Option<Body> {
        self.proposals.get(&group).and_then(forgery::false_future)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use quorate_consensus::hotstuff::Justify;
    use quorate_types::{Digest, LogIndex};

    use super::*;
    use crate::scene::{LIAR, Scene, block};

    const GROUP: GroupId = GroupId(1);

    fn lore(scene: &Scene) -> Lore {
        let sets = BTreeMap::from([(GROUP, Arc::new(scene.set.clone()))]);
        Lore::new(sets, Schedule::new(&scene.config, 1_000))
    }

    fn request(scene: &Scene, certificate: Certificate) -> Message {
        let high = Justify::Certified(Box::new(certificate));
        scene.message(Body::Request { after: LogIndex(1), high })
    }

    #[test]
    fn certificates_are_kept_once_each_and_the_oldest_goes() {
        let scene = Scene::new();
        let mut lore = lore(&scene);
        let of_view = |view| scene.certified(&block(Digest([1; 32]), view, b""), &scene.set);
        for view in 1..=CERTIFICATES_MAX as u64 + 2 {
            lore.learn(GROUP, &request(&scene, of_view(view)));
            lore.learn(GROUP, &request(&scene, of_view(view)));
        }
        let views: Vec<u64> = lore.certificates(GROUP).iter().map(|kept| kept.statement().view.0).collect();
        assert_eq!(views, (3..=CERTIFICATES_MAX as u64 + 2).collect::<Vec<_>>());
        assert!(lore.certificates(GroupId(2)).is_empty());
    }

    /// Liars receive each other's lies.
    #[test]
    fn a_certificate_without_a_quorum_is_not_kept() {
        let mut scene = Scene::new();
        let mut lore = lore(&scene);
        let honest = scene.message(Body::Proposal(Box::new(scene.proposal(5, b""))));
        let short = std::iter::repeat_with(|| lore.forged(GROUP, &scene.seal, &honest, &mut scene.random))
            .flatten()
            .find(|forged| forged.check(&scene.set).is_err());
        lore.learn(GROUP, &request(&scene, short.unwrap()));
        assert!(lore.certificates(GROUP).is_empty());
    }

    #[test]
    fn out_of_turn_is_the_liars_own_late_view_or_anothers_next_one() {
        let mut scene = Scene::new();
        let mut lore = lore(&scene);
        let out_of_turn = |lore: &Lore, random: &mut Random| match lore.out_of_turn(GROUP, LIAR, random) {
            Some(Body::Proposal(proposal)) => *proposal,
            other => unreachable!("a proposal was made and not {other:?}"),
        };
        for _ in 0..50 {
            let first = out_of_turn(&lore, &mut scene.random);
            let view = first.block.header().view();
            assert_eq!(first.justify, Justify::Genesis);
            assert!(view > View(1) && lore.schedule.leader(view) == LIAR);
        }
        let last = scene.proposal(5, b"");
        lore.learn(GROUP, &scene.message(Body::Proposal(Box::new(last.clone()))));
        let (mut late, mut instead) = (0, 0);
        for _ in 0..50 {
            let other = out_of_turn(&lore, &mut scene.random);
            late += u64::from(other.justify == Justify::Genesis);
            instead += u64::from(other.justify == last.justify && other.block != last.block);
        }
        assert!(late > 0 && instead > 0 && late + instead == 50, "{late} and {instead}");
    }
}
