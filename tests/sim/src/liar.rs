//! Replicas that lie: what becomes of the frames of a Byzantine node, and what it sends of its own accord.
//!
//! ```text
//! driver of a liar --frame--> Liars::outgoing --> the same, another one, several, or none, some of them late
//!                             Liars::unasked  --> frames that nobody asked for
//! ```
//!
//! Relies on the frames alone: underneath each liar runs a replica that keeps the rules, so that its lies fit
//! what goes on. Promises only lies of the allowed kinds, made with the liars' own keys and with what they
//! received, and that liars know what the others of them do. Knows no replica's state.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_consensus::hotstuff::{Body, Justify, Message};
use quorate_consensus::{Envelope, Message as AnyMessage};
use quorate_types::{Digest, GroupId, LogIndex, NodeId, Time, View};

use crate::faults::{FaultKind, FaultSet};
use crate::forgery;
use crate::lore::Lore;
use crate::notary::{Notary, Seal};
use crate::random::Random;

/// Frames of its own that a liar keeps for sending them again.
const KEPT_MAX: usize = 32;
/// Blocks that liars made beside those of their replicas.
const ALTERNATIVES_MAX: usize = 16;
/// Frames that a flooding liar sends at once.
const FLOOD: u64 = 24;

/// A block that a liar proposed to some and not to others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Alternative {
    pub(crate) group: GroupId,
    pub(crate) view: View,
    pub(crate) index: LogIndex,
    pub(crate) digest: Digest,
}

#[derive(Debug)]
struct Liar {
    random: Random,
    /// What it does now; nothing for a while in between.
    tactic: Option<FaultKind>,
    until: Time,
    kept: VecDeque<Bytes>,
    /// Whom it treats worse than the others: nodes whose number has this bit here.
    victims: u64,
}

/// All liars of a cluster and what they know together.
#[derive(Debug)]
pub struct Liars {
    notary: Arc<Notary>,
    lore: Lore,
    tactics: Vec<FaultKind>,
    liars: BTreeMap<NodeId, Liar>,
    alternatives: VecDeque<Alternative>,
    /// Lies told so far.
    told: u64,
    /// Whether they tell none for now.
    rest: bool,
}

impl Liars {
    /// These nodes, which lie as far as the faults allow.
    #[must_use]
    pub fn new(
        nodes: impl IntoIterator<Item = NodeId>,
        faults: &FaultSet,
        notary: Arc<Notary>,
        lore: Lore,
        random: &mut Random,
    ) -> Self {
        let liar = |node| {
            let random = random.fork();
            (node, Liar { random, tactic: None, until: Time(0), kept: VecDeque::new(), victims: 0 })
        };
        Self {
            notary,
            lore,
            tactics: FaultKind::LIES.into_iter().filter(|kind| faults.has(*kind)).collect(),
            liars: nodes.into_iter().map(liar).collect(),
            alternatives: VecDeque::new(),
            told: 0,
            rest: false,
        }
    }

    /// They keep the rules from now on.
    pub fn rest(&mut self) {
        self.rest = true;
    }

    /// They lie again.
    pub fn go_on(&mut self) {
        self.rest = false;
    }

    /// Whether this node lies.
    #[must_use]
    pub fn has(&self, node: NodeId) -> bool {
        self.liars.contains_key(&node)
    }

    /// The liars.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.liars.keys().copied()
    }

    /// How many lies were told.
    #[must_use]
    pub fn told(&self) -> u64 {
        self.told
    }

    /// A liar receives a frame.
    pub fn incoming(&mut self, frame: &Bytes) {
        if let Some((envelope, message)) = opened(frame) {
            self.lore.learn(envelope.group, &message);
        }
    }

    /// What a liar sends in place of a frame, each after a delay.
    pub fn outgoing(&mut self, now: Time, from: NodeId, to: NodeId, frame: Bytes) -> Vec<(Duration, Bytes)> {
        let Some((envelope, message)) = opened(&frame) else { return vec![(Duration::ZERO, frame)] };
        self.lore.learn(envelope.group, &message);
        let Some(tactic) = self.tactic(now, from) else { return vec![(Duration::ZERO, frame)] };
        let honest = frame.clone();
        let frames = self.lie(tactic, from, to, &envelope, message, frame);
        self.told += u64::from(
            frames.len() != 1 || frames.iter().any(|(late, sent)| !late.is_zero() || *sent != honest),
        );
        if let Some(liar) = self.liars.get_mut(&from) {
            if liar.kept.len() >= KEPT_MAX {
                liar.kept.pop_front();
            }
            liar.kept.push_back(honest);
        }
        frames
    }

    /// What a liar sends in place of a piece of its snapshot.
    pub fn piece(&mut self, from: NodeId, piece: &Bytes) -> Bytes {
        let is_lie = !self.rest
            && self.tactics.contains(&FaultKind::LyingSync)
            && self.liars.get_mut(&from).is_some_and(|liar| liar.random.chance(500));
        self.told += u64::from(is_lie);
        if is_lie { forgery::false_piece(piece) } else { piece.clone() }
    }

    /// What a liar sends of its own accord, to anyone.
    pub fn unasked(&mut self, now: Time, from: NodeId) -> Vec<Bytes> {
        let tactic = self.tactic(now, from);
        let (Some(tactic), Some(liar)) = (tactic, self.liars.get_mut(&from)) else { return Vec::new() };
        let count = match tactic {
            FaultKind::Flooding => FLOOD,
            FaultKind::Replay => liar.random.between(0, 3),
            FaultKind::FabricatedCertificates
            | FaultKind::StaleViews
            | FaultKind::InvalidSignatures
            | FaultKind::LyingSync
            | FaultKind::InvalidParents => 1,
            _ => return Vec::new(),
        };
        let seal = Seal { node: from, notary: Arc::clone(&self.notary) };
        let mut frames = Vec::new();
        for _ in 0..count {
            let kept = liar.random.pick(liar.kept.make_contiguous()).cloned();
            frames.extend(kept.and_then(|kept| made_up(tactic, &seal, &self.lore, &kept, &mut liar.random)));
        }
        self.told += frames.len() as u64;
        frames
    }

    /// What the liar does now.
    fn tactic(&mut self, now: Time, node: NodeId) -> Option<FaultKind> {
        let liar = self.liars.get_mut(&node)?;
        if now >= liar.until {
            liar.until = now.after(Duration::from_millis(liar.random.between(20, 400)));
            let honest = liar.random.chance(250);
            liar.tactic = liar.random.pick(&self.tactics).copied().filter(|_| !honest);
            liar.victims = liar.random.next();
        }
        liar.tactic.filter(|_| !self.rest)
    }

    fn lie(
        &mut self,
        tactic: FaultKind,
        from: NodeId,
        to: NodeId,
        envelope: &Envelope,
        message: Message,
        frame: Bytes,
    ) -> Vec<(Duration, Bytes)> {
        let seal = Seal { node: from, notary: Arc::clone(&self.notary) };
        let Some(liar) = self.liars.get_mut(&from) else { return Vec::new() };
        let is_victim = (liar.victims >> (to.0 % 64)) & 1 == 1;
        let random = &mut liar.random;
        let at_once = |frame| (Duration::ZERO, frame);
        let signed = |body| {
            let mut message = Message { body, ..message.clone() };
            message.signature = seal.signature_of(&message);
            at_once(sealed(envelope, message))
        };
        match tactic {
            FaultKind::Equivocation => {
                let group = envelope.group;
                let others = self.alternatives.iter().filter(|other| other.group == group).copied();
                let (bodies, made) = forgery::equivocate(&message.body, is_victim, others);
                if let Some(made) = made {
                    let made = Alternative { group, ..made };
                    let is_new = !self.alternatives.iter().any(|known| known.digest == made.digest);
                    if self.alternatives.len() >= ALTERNATIVES_MAX {
                        self.alternatives.pop_front();
                    }
                    self.alternatives.extend(is_new.then_some(made));
                }
                bodies.into_iter().map(signed).collect()
            }
            FaultKind::WithheldVotes => {
                let is_kept = match &message.body {
                    Body::Vote { .. } | Body::Timeout(_) => random.chance(300),
                    Body::Proposal(_) => !is_victim,
                    _ => true,
                };
                is_kept.then(|| at_once(frame)).into_iter().collect()
            }
            FaultKind::InvalidSignatures if random.chance(500) => {
                vec![at_once(forgery::unsigned(envelope, message.clone(), random))]
            }
            FaultKind::Replay => {
                let again = random.pick(liar.kept.make_contiguous()).cloned();
                again.into_iter().map(at_once).chain([at_once(frame)]).collect()
            }
            FaultKind::StaleViews if random.chance(400) => {
                vec![signed(forgery::stale(&message.body, random)), at_once(frame)]
            }
            FaultKind::FabricatedCertificates => {
                let forged = self.lore.forged(envelope.group, &seal, &message, random);
                match forged.and_then(|forged| forgery::justified(&message.body, forged)) {
                    Some(body) => vec![signed(body)],
                    None => vec![at_once(frame)],
                }
            }
            FaultKind::LyingSync => match forgery::false_blocks(&message.body, random) {
                Some(body) => vec![signed(body)],
                None => vec![at_once(frame)],
            },
            FaultKind::InvalidParents => {
                let known = self.lore.certificates(envelope.group);
                match forgery::false_parent(&message.body, &known, random) {
                    Some(body) => vec![signed(body)],
                    None => vec![at_once(frame)],
                }
            }
            FaultKind::TargetedDelay if is_victim => {
                vec![(Duration::from_millis(random.between(20, 200)), frame)]
            }
            FaultKind::Mutation if random.chance(400) => {
                let mutated = forgery::mutated(&frame, random);
                let resigned = opened(&mutated).filter(|_| random.chance(500)).map(|(envelope, message)| {
                    let signature = seal.signature_of(&message);
                    sealed(&envelope, Message { signature, ..message })
                });
                vec![at_once(resigned.unwrap_or(mutated))]
            }
            _ => vec![at_once(frame)],
        }
    }
}

/// A frame that nobody asked for, made of one that the liar once sent.
fn made_up(tactic: FaultKind, seal: &Seal, lore: &Lore, kept: &Bytes, random: &mut Random) -> Option<Bytes> {
    let (envelope, mut message) = opened(kept)?;
    let group = envelope.group;
    match tactic {
        FaultKind::Flooding => message.body = forgery::noise(&message.body, random),
        FaultKind::StaleViews => message.body = forgery::stale(&message.body, random),
        FaultKind::LyingSync => message.body = lore.false_future(group)?,
        FaultKind::InvalidParents => message.body = lore.out_of_turn(group, seal.node, random)?,
        FaultKind::FabricatedCertificates => {
            let high = Justify::Certified(Box::new(lore.forged(group, seal, &message, random)?));
            message.body = Body::NewView { high, timed_out: None };
        }
        FaultKind::InvalidSignatures => return Some(forgery::unsigned(&envelope, message, random)),
        _ => {}
    }
    message.signature = seal.signature_of(&message);
    Some(sealed(&envelope, message))
}

/// A frame with a signed message, apart.
pub(crate) fn opened(frame: &Bytes) -> Option<(Envelope, Message)> {
    let envelope = Envelope::decode(frame.clone()).ok()?;
    match &envelope.message {
        AnyMessage::HotStuff(message) => {
            let message = message.clone();
            Some((envelope, message))
        }
        AnyMessage::Raft(_) => None,
    }
}

/// A message in the envelope of another.
pub(crate) fn sealed(envelope: &Envelope, message: Message) -> Bytes {
    Envelope { message: AnyMessage::HotStuff(message), ..envelope.clone() }.encode()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use quorate_consensus::hotstuff::Schedule;
    use quorate_crypto::{Signature, Stated, ValidatorSet};
    use quorate_types::ClusterId;

    use super::*;
    use crate::notary::Scheme;
    use crate::scene::envelope;
    use crate::signing::epoch;

    fn liars(faults: &str) -> (Liars, Arc<ValidatorSet>, Arc<Notary>) {
        let nodes: Vec<NodeId> = (1..=4).map(NodeId).collect();
        let notary = Notary::new(Scheme::StandIn, &nodes, BTreeSet::from([NodeId(1)]), None);
        let config = epoch(&nodes, NodeId(2), &notary);
        let set = Arc::new(ValidatorSet::of_epoch(ClusterId([1; 16]), GroupId(1), &config).unwrap());
        let sets = BTreeMap::from([(GroupId(1), Arc::clone(&set))]);
        let lore = Lore::new(sets, Schedule::new(&config, 1_000));
        let (faults, of_notary) = (faults.parse().unwrap(), Arc::clone(&notary));
        let liars = Liars::new([NodeId(1)], &faults, of_notary, lore, &mut Random::new(3));
        (liars, set, notary)
    }

    fn vote(set: &ValidatorSet, notary: &Notary, view: u64) -> Bytes {
        let body = Body::Vote { view: View(view), index: LogIndex(view), digest: Digest([2; 32]) };
        let mut message = Message { scope: *set.scope(), body, signature: Signature([0; 64]) };
        message.signature = notary.sign(NodeId(1), &message.statement());
        envelope(message).encode()
    }

    /// What a liar makes of many votes, each to one of three others.
    fn sent(faults: &str) -> (Vec<Bytes>, Vec<(Duration, Bytes)>, Liars) {
        let (mut liars, set, notary) = liars(faults);
        let (mut honest, mut said) = (Vec::new(), Vec::new());
        for view in 1..200 {
            let frame = vote(&set, &notary, view);
            honest.push(frame.clone());
            let to = NodeId(2 + view % 3);
            said.extend(liars.outgoing(Time(view * 20_000), NodeId(1), to, frame));
        }
        (honest, said, liars)
    }

    #[test]
    fn without_lies_everything_passes_as_it_is() {
        let (honest, said, liars) = sent("none");
        assert_eq!(said, honest.into_iter().map(|frame| (Duration::ZERO, frame)).collect::<Vec<_>>());
        assert_eq!(liars.told(), 0);
    }

    #[test]
    fn liars_that_rest_keep_the_rules_until_they_go_on() {
        let (mut liars, set, notary) = liars("withheld-votes");
        let passed = |liars: &mut Liars| {
            let frames = (1..200).map(|view| vote(&set, &notary, view));
            let sent = frames.map(|frame| liars.outgoing(Time(5), NodeId(1), NodeId(2), frame).len());
            sent.sum::<usize>()
        };
        while passed(&mut liars) == 199 {
            liars.liars.values_mut().for_each(|liar| liar.until = Time(0));
        }
        liars.rest();
        assert_eq!(passed(&mut liars), 199);
        liars.go_on();
        assert!(passed(&mut liars) < 199);
    }

    #[test]
    fn each_lie_that_concerns_votes_changes_what_is_sent() {
        for lie in
            ["withheld-votes", "invalid-signatures", "replay", "stale-views", "targeted-delay", "mutation"]
        {
            let (honest, said, liars) = sent(lie);
            assert_ne!(
                said,
                honest.into_iter().map(|frame| (Duration::ZERO, frame)).collect::<Vec<_>>(),
                "{lie}"
            );
            assert!(liars.told() > 0, "{lie}");
        }
    }

    /// A liar that could sign for others would be no test of anything.
    #[test]
    fn whatever_a_liar_sends_is_signed_with_its_own_key_or_refused() {
        let (_, said, _) = sent("all");
        let (_, set, notary) = liars("all");
        for (_, frame) in said {
            let Some((_, message)) = opened(&frame) else { continue };
            for other in 2..=4 {
                let signed = message.clone().into_signed(NodeId(other));
                assert!(signed.check(&set).is_err() || !notary.accepts(&signed.check(&set).unwrap()));
            }
        }
    }

    #[test]
    fn a_flood_is_many_frames_that_nobody_asked_for() {
        let (_, _, mut liars) = sent("flooding");
        let frames: usize =
            (0..100).map(|step| liars.unasked(Time(5_000_000 + step * 10_000), NodeId(1)).len()).sum();
        assert!(frames > 200, "{frames}");
        assert!(liars.unasked(Time(9_000_000), NodeId(2)).is_empty(), "an honest node says nothing unasked");
    }
}
