//! Lies one by one: messages that a Byzantine replica makes out of honest ones.
//!
//! Relies on the public forms of messages, blocks and certificates. Promises no signature but those of the
//! caller's seal. Knows neither when a lie is told nor to whom.

use bytes::Bytes;
use quorate_consensus::Envelope;
use quorate_consensus::hotstuff::{
    Block, Blocks, Body, Header, Justify, Life, Message, Offer, Proposal, Signer, Timeout,
};
use quorate_crypto::{Certificate, Signature, Signers, Statement, StatementKind, ValidatorSet};
use quorate_types::codec::{Reader, Writer};
use quorate_types::{
    BootNumber, Digest, Entry, EntryKind, GroupId, HlcTimestamp, LogIndex, Position, Term, View,
};

use crate::liar::{Alternative, sealed};
use crate::notary::Seal;
use crate::planted;
use crate::random::Random;

/// Another block in the place of a proposed one: without its entry, or later by one.
fn alternative(block: &Block) -> Block {
    let header = *block.header();
    match header.kind {
        EntryKind::Empty => {
            let hlc = HlcTimestamp(header.hlc.0 + 1);
            Block::new(Header { hlc, ..header }, Bytes::new())
        }
        _ => Block::new(Header { kind: EntryKind::Empty, ..header }, Bytes::new()),
    }
}

/// A proposal out of turn: a block after the last one that was proposed if a certificate for that is known, and
/// else another block in its place.
pub fn out_of_turn(last: &Proposal, known: &[&Certificate]) -> Body {
    let certifies = |certificate: &&&Certificate| certificate.statement().digest == last.block.digest();
    let Some(certificate) = known.iter().find(certifies) else {
        return proposal(Proposal { block: alternative(&last.block), ..last.clone() });
    };
    let before = *last.block.header();
    let (view, index) = (before.view().next(), before.position.index.next());
    let position = Position { term: Term(view.0), index, ..before.position };
    let hlc = HlcTimestamp(before.hlc.0 + 1);
    let header = Header { parent: last.block.digest(), position, hlc, kind: EntryKind::Empty, ..before };
    let justify = Justify::Certified(Box::new((**certificate).clone()));
    proposal(Proposal { block: Block::new(header, Bytes::new()), justify, timed_out: None })
}

/// A block of a late view that follows the genesis, as if the epoch had just begun.
pub fn after_genesis(genesis: &Header, view: View) -> Body {
    let position = Position { term: Term(view.0), index: genesis.position.index.next(), ..genesis.position };
    let hlc = HlcTimestamp(genesis.hlc.0 + 1);
    let header = Header { parent: genesis.digest(), tenure: view, position, hlc, ..*genesis };
    proposal(Proposal { block: Block::new(header, Bytes::new()), justify: Justify::Genesis, timed_out: None })
}

/// Three empty blocks of consecutive views after the last one proposed, as an answer that nobody asked for: enough
/// to commit one of them, under either rule, if they were certified; the certificate shown is that of another
/// block. `None` where there is none to show.
pub fn false_future(last: &Proposal) -> Option<Body> {
    let Justify::Certified(certificate) = &last.justify else { return None };
    let root = *last.block.header();
    let entry = |step: u64| Entry {
        position: Position {
            term: Term(root.view().0 + step),
            index: LogIndex(root.position.index.0 + step),
            ..root.position
        },
        hlc: HlcTimestamp(root.hlc.0 + step),
        kind: EntryKind::Empty,
        body: Bytes::new(),
    };
    let entries = (1..=3).map(entry).collect();
    let certificate = certificate.as_ref().clone();
    Some(Body::Blocks(Box::new(Blocks { root, entries, headers: Vec::new(), certificate })))
}

fn proposal(proposal: Proposal) -> Body {
    Body::Proposal(Box::new(proposal))
}

/// What is said to this receiver: to victims another block or another timeout, to everyone votes for both.
pub fn equivocate(
    body: &Body,
    is_victim: bool,
    others: impl Iterator<Item = Alternative>,
) -> (Vec<Body>, Option<Alternative>) {
    match body {
        Body::Proposal(honest) => {
            let other = alternative(&honest.block);
            let header = other.header();
            let (view, index, digest) = (header.view(), header.position.index, other.digest());
            let made = Alternative { group: GroupId::CATALOG, view, index, digest };
            let said = if is_victim {
                proposal(Proposal { block: other, ..honest.as_ref().clone() })
            } else {
                body.clone()
            };
            (vec![said], Some(made))
        }
        Body::Vote { view, digest, .. } => {
            let rivals = others.filter(|other| other.view == *view && other.digest != *digest);
            let vote = |other: Alternative| Body::Vote {
                view: other.view,
                index: other.index,
                digest: other.digest,
            };
            (rivals.map(vote).chain([body.clone()]).collect(), None)
        }
        Body::Timeout(timeout) if is_victim => {
            // As if it had never seen a certificate.
            let lower = Timeout { high_view: View::ZERO, high: Justify::Genesis, ..timeout.as_ref().clone() };
            (vec![Body::Timeout(Box::new(lower))], None)
        }
        _ => (vec![body.clone()], None),
    }
}

/// The view that a message is about; zero if it is about none.
fn view_of(body: &Body) -> View {
    match body {
        Body::Proposal(proposal) => proposal.block.header().view(),
        Body::Vote { view, .. } => *view,
        Body::Timeout(timeout) => timeout.view,
        Body::NewView { high, .. } | Body::Request { high, .. } => high.view(),
        _ => View::ZERO,
    }
}

/// A message of which many are sent: votes, timeouts and starts of no use to anyone, most of them far ahead.
pub fn noise(body: &Body, random: &mut Random) -> Body {
    let bits = random.below(40);
    let view = View(view_of(body).0 + random.below(1 << bits));
    let digest = Digest(std::array::from_fn(|_| random.next() as u8));
    match random.below(5) {
        0 | 1 => Body::Vote { view, index: LogIndex(random.below(1 << 20)), digest },
        2 => {
            let (high_view, high, timed_out) = (View::ZERO, Justify::Genesis, None);
            Body::Timeout(Box::new(Timeout { view: view.next(), high_view, high, timed_out }))
        }
        3 => Body::Request { after: LogIndex(random.below(64)), high: Justify::Genesis },
        _ => Body::Recorded(Life { boot: BootNumber(random.below(9)), nonce: random.next() }),
    }
}

/// The same, about a view that is past, or one that is far ahead.
pub fn stale(body: &Body, random: &mut Random) -> Body {
    let back = random.between(1, 4);
    let is_past = random.chance(700);
    let shifted = |view: View| {
        if is_past { View(view.0.saturating_sub(back)) } else { View(view.0 + 100 * back) }
    };
    match body {
        Body::Vote { view, index, digest } => {
            Body::Vote { view: shifted(*view), index: *index, digest: *digest }
        }
        Body::Timeout(timeout) => {
            let view = shifted(timeout.view);
            let high_view = View(timeout.high_view.0.min(view.0.saturating_sub(1)));
            Body::Timeout(Box::new(Timeout { view, high_view, ..timeout.as_ref().clone() }))
        }
        _ => Body::NewView { high: Justify::Genesis, timed_out: None },
    }
}

/// A certificate that proves nothing: made-up signatures, the liar's own under every name, too few of them, or
/// one that holds in another group.
pub fn certificate(
    seal: &Seal,
    set: &ValidatorSet,
    foreign: Option<&Certificate>,
    message: &Message,
    random: &mut Random,
) -> Option<Certificate> {
    let ahead = View(view_of(&message.body).0 + random.below(3));
    let digest = Digest(std::array::from_fn(|_| random.next() as u8));
    let vote = |view, index, digest| Statement {
        scope: *set.scope(),
        kind: StatementKind::Vote,
        view,
        index,
        digest,
    };
    let statement = match &message.body {
        Body::Proposal(proposal) => {
            let header = proposal.block.header();
            vote(header.view().previous(), header.position.index.previous(), header.parent)
        }
        _ => vote(ahead, LogIndex(random.between(1, 40)), digest),
    };
    let own = seal.sign(&statement);
    let under_each = |signature: &mut dyn FnMut() -> Signature| {
        let members = set.members().iter().take(set.quorum());
        Certificate::assemble(statement, set, members.map(|member| (member.node, signature())))
    };
    match random.below(4) {
        0 => under_each(&mut || Signature(std::array::from_fn(|_| random.next() as u8))).ok(),
        1 => under_each(&mut || own).ok(),
        2 => {
            let mut signers = Signers::default();
            signers.insert(set.place(seal.node)?);
            let mut out = Writer::default();
            statement.encode(&mut out);
            out.raw(&set.digest().0);
            signers.encode(&mut out);
            own.encode(&mut out);
            Certificate::decode(&mut Reader::new(out.finish())).ok()
        }
        _ => foreign.cloned(),
    }
}

/// The same message with this certificate in it; `None` for one that carries none.
pub fn justified(body: &Body, forged: Certificate) -> Option<Body> {
    let view = forged.statement().view;
    let high = Justify::Certified(Box::new(forged));
    Some(match body {
        Body::Proposal(honest) => proposal(Proposal { justify: high, ..honest.as_ref().clone() }),
        Body::Timeout(timeout) => {
            let timeout = timeout.as_ref().clone();
            let high_view = view.min(timeout.view.previous());
            Body::Timeout(Box::new(Timeout { high, high_view, ..timeout }))
        }
        Body::NewView { timed_out, .. } => Body::NewView { high, timed_out: timed_out.clone() },
        Body::Request { after, .. } => Body::Request { after: *after, high },
        _ => return None,
    })
}

/// A piece of a snapshot in which a value of the component is another one, or of which nothing is left.
pub fn false_piece(piece: &Bytes) -> Bytes {
    planted::with_pairs(piece, |pairs| {
        match pairs.iter_mut().find(|(space, _, value)| *space != planted::HOST_SPACE && !value.is_empty()) {
            Some((_, _, value)) => {
                let mut other = value.to_vec();
                other[0] ^= 1;
                *value = other.into();
            }
            None => pairs.clear(),
        }
    })
}

/// Blocks and snapshots that are not those of the history; `None` for messages that hold none.
pub fn false_blocks(body: &Body, random: &mut Random) -> Option<Body> {
    match body {
        Body::Blocks(blocks) => Some(Body::Blocks(Box::new(false_history(blocks, random)))),
        Body::Offer(offer) => {
            let mut offer: Offer = offer.as_ref().clone();
            match random.below(3) {
                0 => offer.proof.root.position.index = offer.proof.root.position.index.next(),
                1 => offer.content.digest.0[0] ^= 1,
                _ => offer.proof = false_history(&offer.proof, random),
            }
            Some(Body::Offer(Box::new(offer)))
        }
        _ => None,
    }
}

fn false_history(blocks: &Blocks, random: &mut Random) -> Blocks {
    let mut blocks = blocks.clone();
    let place = random.below(blocks.entries.len().max(1) as u64) as usize;
    match (random.below(4), blocks.entries.get_mut(place)) {
        (0, Some(entry)) => entry.hlc.0 += 1,
        (1, Some(entry)) => {
            entry.kind = EntryKind::Empty;
            entry.body = Bytes::new();
        }
        (2, Some(_)) => {
            blocks.entries.truncate(place);
            blocks.headers.clear();
        }
        _ => blocks.root.hlc.0 += 1,
    }
    blocks
}

/// A proposal that extends what it must not; `None` for other messages, and where there is nothing to extend.
pub fn false_parent(body: &Body, known: &[&Certificate], random: &mut Random) -> Option<Body> {
    let Body::Proposal(honest) = body else { return None };
    let (header, justify) = (*honest.block.header(), honest.justify.clone());
    let at = |index: LogIndex| Position { index, ..header.position };
    let (header, justify) = match random.below(6) {
        0 => (Header { parent: Digest([7; 32]), ..header }, justify),
        1 => (Header { position: at(header.position.index.next()), ..header }, justify),
        2 => (Header { tenure: header.tenure.next(), ..header }, justify),
        _ => {
            // An older certificate, and a block that follows from it in everything else.
            let older: Vec<_> =
                known.iter().filter(|other| other.statement().view < justify.view()).collect();
            let older = random.pick(&older)?;
            let said = older.statement();
            let (parent, position) = (said.digest, at(said.index.next()));
            let header = Header { parent, tenure: header.view(), position, ..header };
            (header, Justify::Certified(Box::new((**older).clone())))
        }
    };
    let (kind, content) = match header.kind {
        EntryKind::Batch if !random.chance(300) => (EntryKind::Batch, honest.block.body().clone()),
        _ => (EntryKind::Empty, Bytes::new()),
    };
    let block = Block::new(Header { kind, ..header }, content);
    Some(proposal(Proposal { block, justify, timed_out: honest.timed_out.clone() }))
}

/// The message under a signature that is not valid.
pub fn unsigned(envelope: &Envelope, mut message: Message, random: &mut Random) -> Bytes {
    let bit = random.below(512);
    message.signature.0[(bit / 8) as usize] ^= 1 << (bit % 8);
    sealed(envelope, message)
}

/// The frame with one to four of its bytes changed.
pub fn mutated(frame: &Bytes, random: &mut Random) -> Bytes {
    let mut bytes = frame.to_vec();
    for _ in 0..random.between(1, 4) {
        let place = random.below(bytes.len() as u64) as usize;
        if let Some(byte) = bytes.get_mut(place) {
            *byte ^= 1 << random.below(8);
        }
    }
    Bytes::from(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use quorate_consensus::hotstuff::cluster::{Cluster, Conduct, keys};
    use quorate_consensus::hotstuff::{Certifier, Settings};
    use quorate_consensus::{Input, Message as AnyMessage, SnapshotContent};
    use quorate_crypto::{Stated, Verified};
    use quorate_types::{ClusterId, Epoch};

    use super::*;
    use crate::liar::opened;
    use crate::scene::{LIAR, Scene, block, envelope};

    const DRAWS: u64 = 200;
    /// What a replica may keep of a flood: a vote in each view that is near, a timeout.
    const FLOOD_BYTES_MAX: usize = 4 << 10;

    fn proposed(body: Body) -> Proposal {
        match body {
            Body::Proposal(proposal) => *proposal,
            other => unreachable!("a proposal was made and not {other:?}"),
        }
    }

    /// Whether a block stands directly after the certified one, in the next view and the first leader's tenure.
    fn follows(proposal: &Proposal) -> bool {
        let Justify::Certified(certificate) = &proposal.justify else { return false };
        let (header, said) = (proposal.block.header(), certificate.statement());
        header.parent == said.digest
            && header.view() == said.view.next()
            && header.position.index == said.index.next()
            && header.tenure == View(1)
    }

    fn vote(view: u64, fill: u8) -> Body {
        Body::Vote { view: View(view), index: LogIndex(view), digest: Digest([fill; 32]) }
    }

    #[test]
    fn victims_get_another_block_of_the_same_view_and_the_others_the_leaders_own() {
        let scene = Scene::new();
        for content in [b"batch".as_slice(), b""] {
            let honest = proposal(scene.proposal(5, content));
            let (kept, made) = equivocate(&honest, false, [].into_iter());
            assert_eq!(kept, std::slice::from_ref(&honest));
            let (said, told) = equivocate(&honest, true, [].into_iter());
            let rival = proposed(said.into_iter().next().unwrap());
            assert!(follows(&rival) && rival.block.digest() != proposed(honest).block.digest());
            assert_eq!(made.unwrap().digest, rival.block.digest());
            assert_eq!(told.unwrap().digest, rival.block.digest());
        }
    }

    #[test]
    fn liars_vote_for_both_blocks_of_a_view_and_deny_certificates_to_victims() {
        let rival = |view, digest| Alternative { group: GroupId(1), view, index: LogIndex(5), digest };
        let (one, other) = (rival(View(5), Digest([2; 32])), rival(View(6), Digest([3; 32])));
        let (said, _) = equivocate(&vote(5, 1), false, [one, other].into_iter());
        assert_eq!(said, [vote(5, 2), vote(5, 1)]);
        let scene = Scene::new();
        let high = scene.proposal(5, b"").justify;
        let timeout = Timeout { view: View(6), high_view: View(4), high, timed_out: None };
        let timeout = Body::Timeout(Box::new(timeout));
        assert_eq!(equivocate(&timeout, false, [].into_iter()).0, std::slice::from_ref(&timeout));
        let (said, _) = equivocate(&timeout, true, [].into_iter());
        let Body::Timeout(said) = &said[0] else { unreachable!() };
        assert_eq!((said.view, said.high_view, &said.high), (View(6), View::ZERO, &Justify::Genesis));
    }

    /// Otherwise a flood could fill a replica: votes of any view, blocks of anyone, requests without end.
    #[test]
    fn a_flood_leaves_a_replica_as_large_as_it_was_and_able_to_commit() {
        let conduct = [Conduct::Honest, Conduct::Honest, Conduct::Honest, Conduct::Silent];
        let mut cluster = Cluster::new(&keys(4), &conduct, Settings::default(), 1, 3);
        cluster.propose(0);
        cluster.run(Duration::from_millis(200));
        let replica = |cluster: &Cluster| cluster.instances[1].replica.as_ref().unwrap().footprint().state;
        let (before, mut random) = (replica(&cluster), Random::new(9));
        for _ in 0..20_000 {
            let view = cluster.instances[1].replica.as_ref().unwrap().view();
            let body = noise(&Body::Vote { view, index: LogIndex(1), digest: Digest([0; 32]) }, &mut random);
            let message = Message { scope: *cluster.set().scope(), body, signature: Signature([0; 64]) };
            let message = Verified::from_authenticated_peer(LIAR, message).widen::<AnyMessage>();
            cluster.step(1, Input::Message(message));
        }
        let after = replica(&cluster);
        assert!(after <= before + FLOOD_BYTES_MAX, "{before} bytes became {after}");
        let commits = cluster.counts.commits;
        cluster.propose(0);
        cluster.run(Duration::from_millis(500));
        assert_eq!((cluster.counts.commits, cluster.violation), (commits + 1, None));
    }

    #[test]
    fn noise_is_of_every_kind_near_and_far() {
        let mut random = Random::new(1);
        let all: Vec<Body> = (0..DRAWS).map(|_| noise(&vote(50, 1), &mut random)).collect();
        let views: Vec<u64> = all.iter().map(|body| view_of(body).0).collect();
        assert!(views.iter().any(|view| (50..60).contains(view)) && views.iter().any(|view| *view > 10_000));
        for is_kind in [
            |body: &Body| matches!(body, Body::Vote { .. }),
            |body: &Body| matches!(body, Body::Timeout(_)),
            |body: &Body| matches!(body, Body::Request { .. }),
            |body: &Body| matches!(body, Body::Recorded(_)),
        ] {
            assert!(all.iter().any(is_kind));
        }
    }

    #[test]
    fn stale_views_are_past_or_far_ahead_and_never_the_right_one() {
        let scene = Scene::new();
        let mut random = Random::new(1);
        let high = scene.proposal(5, b"").justify;
        let timeout = Timeout { view: View(50), high_view: View(4), high, timed_out: None };
        for honest in [vote(50, 1), Body::Timeout(Box::new(timeout))] {
            let views: Vec<u64> = (0..DRAWS).map(|_| view_of(&stale(&honest, &mut random)).0).collect();
            assert!(views.iter().all(|view| (46..50).contains(view) || *view >= 150), "{views:?}");
            assert!(views.iter().any(|view| *view < 50) && views.iter().any(|view| *view > 50));
        }
        let other = stale(&Body::Recorded(Life::default()), &mut random);
        assert_eq!(other, Body::NewView { high: Justify::Genesis, timed_out: None });
    }

    /// One that held would be no lie, and one of a kind that is never drawn tests nothing.
    #[test]
    fn made_up_certificates_are_of_four_kinds_and_none_holds() {
        let mut scene = Scene::new();
        let other = ValidatorSet::of_epoch(ClusterId([1; 16]), GroupId(2), &scene.config).unwrap();
        let foreign = scene.certified(&block(Digest([1; 32]), 4, b"foreign"), &other);
        let honest = scene.message(proposal(scene.proposal(5, b"batch")));
        let mut seen = [0; 4];
        for _ in 0..DRAWS {
            let (seal, random) = (&scene.seal, &mut scene.random);
            let forged = certificate(seal, &scene.set, Some(&foreign), &honest, random).unwrap();
            assert!(!scene.seal.holds(&forged, &scene.set));
            let signatures = forged.signatures();
            let is_own = |signature: &Signature| *signature == scene.seal.sign(forged.statement());
            let kind = if forged == foreign {
                0
            } else if signatures.len() < scene.set.quorum() {
                1
            } else if signatures.iter().all(is_own) {
                2
            } else {
                3
            };
            seen[kind] += 1;
            assert_eq!(forged.statement().view, View(4), "it names the block that is extended");
        }
        assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
        assert_eq!(scene.notary.take_offence(), None);
    }

    #[test]
    fn a_made_up_certificate_takes_the_place_of_the_sound_one_wherever_there_is_one() {
        let scene = Scene::new();
        let (honest, forged) = (scene.proposal(5, b""), scene.proposal(9, b"").justify);
        let Justify::Certified(certificate) = forged.clone() else { unreachable!() };
        let into = |body: &Body| justified(body, certificate.as_ref().clone());
        let high = honest.justify.clone();
        assert_eq!(proposed(into(&proposal(honest)).unwrap()).justify, forged);
        let timeout = Timeout { view: View(6), high_view: View(4), high: high.clone(), timed_out: None };
        let Some(Body::Timeout(said)) = into(&Body::Timeout(Box::new(timeout))) else { unreachable!() };
        assert_eq!((said.high_view, said.high), (View(5), forged.clone()), "below the view given up");
        let shown = Body::NewView { high: high.clone(), timed_out: None };
        assert_eq!(into(&shown), Some(Body::NewView { high: forged.clone(), timed_out: None }));
        let asked = Body::Request { after: LogIndex(3), high };
        assert_eq!(into(&asked), Some(Body::Request { after: LogIndex(3), high: forged }));
        assert_eq!(into(&vote(5, 1)), None);
    }

    #[test]
    fn blocks_and_offers_are_never_those_of_the_history() {
        let mut scene = Scene::new();
        let entry = |index: u64| Entry {
            position: Position { epoch: Epoch(1), term: Term(index), index: LogIndex(index) },
            hlc: HlcTimestamp(index),
            kind: EntryKind::Batch,
            body: Bytes::from_static(b"batch"),
        };
        let root = block(Digest([1; 32]), 1, b"root");
        let certificate = scene.certified(&root, &scene.set);
        let entries = vec![entry(2), entry(3)];
        let honest = Blocks { root: *root.header(), entries, headers: Vec::new(), certificate };
        let content = SnapshotContent { digest: Digest([2; 32]), bytes: 9 };
        let offer = Offer { content, proof: Blocks { entries: Vec::new(), ..honest.clone() } };
        for body in [Body::Blocks(Box::new(honest)), Body::Offer(Box::new(offer))] {
            let mut lies: Vec<Body> = Vec::new();
            for _ in 0..DRAWS {
                let lie = false_blocks(&body, &mut scene.random).unwrap();
                assert_ne!(lie, body);
                if !lies.contains(&lie) {
                    lies.push(lie);
                }
            }
            assert!(lies.len() >= 3, "{lies:?}");
        }
        assert_eq!(false_blocks(&vote(5, 1), &mut scene.random), None);
    }

    #[test]
    fn a_block_with_a_false_parent_does_not_follow_the_certificate_that_it_shows() {
        let mut scene = Scene::new();
        let older = scene.certified(&block(Digest([1; 32]), 2, b"older"), &scene.set);
        let honest = scene.proposal(5, b"batch");
        assert!(follows(&honest));
        let (honest, mut is_older) = (proposal(honest), 0);
        for _ in 0..DRAWS {
            let lie = proposed(false_parent(&honest, &[&older], &mut scene.random).unwrap());
            assert!(!follows(&lie), "{lie:?}");
            is_older += u64::from(lie.justify.view() == View(2));
        }
        assert!(is_older > 0 && is_older < DRAWS, "{is_older}");
        assert_eq!(false_parent(&vote(5, 1), &[&older], &mut scene.random), None);
    }

    #[test]
    fn out_of_turn_comes_a_block_after_the_last_if_that_is_certified_and_else_in_its_place() {
        let scene = Scene::new();
        let last = scene.proposal(5, b"batch");
        let certificate = scene.certified(&last.block, &scene.set);
        let next = proposed(out_of_turn(&last, &[&certificate]));
        assert!(follows(&next) && next.block.header().view() == View(6));
        assert!(next.block.header().hlc > last.block.header().hlc);
        let instead = proposed(out_of_turn(&last, &[]));
        assert!(follows(&instead) && instead.block.header().view() == View(5));
        assert_ne!(instead.block.digest(), last.block.digest());
    }

    #[test]
    fn a_false_future_would_commit_a_block_and_its_certificate_is_of_none_of_them() {
        let scene = Scene::new();
        let last = scene.proposal(5, b"batch");
        let Some(Body::Blocks(blocks)) = false_future(&last) else { unreachable!() };
        let places = |entry: &Entry| (entry.position.term.0, entry.position.index.0);
        let places: Vec<_> = blocks.entries.iter().map(places).collect();
        assert_eq!(places, [(6, 6), (7, 7), (8, 8)]);
        assert_eq!(blocks.root, *last.block.header());
        assert_eq!(blocks.certificate.statement().view, View(4));
        assert_eq!(false_future(&Proposal { justify: Justify::Genesis, ..last }), None);
    }

    #[test]
    fn a_late_block_claims_to_follow_the_genesis_and_shows_no_certificate() {
        let scene = Scene::new();
        let genesis = Header::genesis(&scene.set, Position::ZERO, HlcTimestamp::ZERO);
        let lie = proposed(after_genesis(&genesis, View(6)));
        let header = lie.block.header();
        assert_eq!((header.parent, header.position.index), (genesis.digest(), LogIndex(1)));
        assert_eq!((header.view(), header.tenure, lie.justify), (View(6), View(6), Justify::Genesis));
        assert!(header.hlc > genesis.hlc);
    }

    fn sealed_vote(scene: &Scene) -> (Envelope, Message) {
        let mut message = scene.message(vote(5, 1));
        message.signature = scene.seal.signature_of(&message);
        (envelope(message.clone()), message)
    }

    #[test]
    fn a_false_signature_is_refused_and_says_the_same() {
        let mut scene = Scene::new();
        let (envelope, message) = sealed_vote(&scene);
        for _ in 0..DRAWS {
            let frame = unsigned(&envelope, message.clone(), &mut scene.random);
            let (_, said) = opened(&frame).unwrap();
            assert_eq!(said.statement(), message.statement());
            let check = said.into_signed(LIAR).check(&scene.set).unwrap();
            assert!(!scene.notary.accepts(&check));
        }
    }

    #[test]
    fn mutation_changes_bytes_and_their_number_never() {
        let mut scene = Scene::new();
        let (envelope, _) = sealed_vote(&scene);
        let frame = envelope.encode();
        let changed = |random: &mut Random| {
            let other = mutated(&frame, random);
            assert_eq!(other.len(), frame.len());
            other != frame
        };
        let changed = (0..DRAWS).filter(|_| changed(&mut scene.random)).count() as u64;
        assert!(changed > DRAWS * 9 / 10, "{changed}");
    }
}
