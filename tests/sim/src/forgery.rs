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
use quorate_types::codec::Writer;
use quorate_types::{BootNumber, Digest, EntryKind, GroupId, LogIndex, View};

use crate::liar::{Alternative, sealed};
use crate::notary::Seal;
use crate::random::Random;

/// Another block in the place of a proposed one: without its entry, or later by one.
fn alternative(block: &Block) -> Block {
    let header = *block.header();
    match header.kind {
        EntryKind::Empty => {
            let hlc = quorate_types::HlcTimestamp(header.hlc.0 + 1);
            Block::new(Header { hlc, ..header }, Bytes::new())
        }
        _ => Block::new(Header { kind: EntryKind::Empty, ..header }, Bytes::new()),
    }
}

/// A proposal out of turn: another block in the place of the one that a leader proposed.
pub fn out_of_turn(proposal: &Proposal) -> Body {
    Body::Proposal(Box::new(Proposal { block: alternative(&proposal.block), ..proposal.clone() }))
}

/// What is said to this receiver: to victims another block or another timeout, to everyone votes for both.
pub fn equivocate(
    body: &Body,
    is_victim: bool,
    others: impl Iterator<Item = Alternative>,
) -> (Vec<Body>, Option<Alternative>) {
    match body {
        Body::Proposal(proposal) => {
            let other = alternative(&proposal.block);
            let header = other.header();
            let (view, index, digest) = (header.view(), header.position.index, other.digest());
            let made = Alternative { group: GroupId::CATALOG, view, index, digest };
            let said = if is_victim {
                Body::Proposal(Box::new(Proposal { block: other, ..proposal.as_ref().clone() }))
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
            Certificate::from_bytes(out.finish()).ok()
        }
        _ => foreign.cloned(),
    }
}

/// The same message with this certificate in it; `None` for one that carries none.
pub fn justified(body: &Body, forged: Certificate) -> Option<Body> {
    let view = forged.statement().view;
    let high = Justify::Certified(Box::new(forged));
    Some(match body {
        Body::Proposal(proposal) => {
            Body::Proposal(Box::new(Proposal { justify: high, ..proposal.as_ref().clone() }))
        }
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

/// Blocks and snapshots that are not those of the history; `None` for messages that hold none.
pub fn false_blocks(body: &Body, random: &mut Random) -> Option<Body> {
    match body {
        Body::Blocks(blocks) => Some(Body::Blocks(Box::new(false_history(blocks, random)))),
        Body::Offer(offer) => {
            let mut offer: Offer = offer.as_ref().clone();
            match random.below(3) {
                0 => offer.mark.position.index = offer.mark.position.index.next(),
                1 => offer.mark.hlc.0 += 1,
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
pub fn false_parent(
    body: &Body,
    genesis: Digest,
    known: &[&Certificate],
    random: &mut Random,
) -> Option<Body> {
    let Body::Proposal(proposal) = body else { return None };
    let mut proposal = proposal.as_ref().clone();
    let header = *proposal.block.header();
    let is_early = (2..=4).contains(&header.view().0);
    let (header, justify) = match random.below(6) {
        _ if is_early => {
            let mut position = header.position;
            position.index = LogIndex(1);
            (Header { parent: genesis, tenure: header.view(), position, ..header }, Justify::Genesis)
        }
        0 => (Header { parent: Digest([7; 32]), ..header }, proposal.justify),
        1 => {
            let mut position = header.position;
            position.index = position.index.next();
            (Header { position, ..header }, proposal.justify)
        }
        2 => (Header { tenure: header.tenure.next(), ..header }, proposal.justify),
        _ => {
            // An older certificate, and a block that follows from it in everything else.
            let older: Vec<_> =
                known.iter().filter(|other| other.statement().view < proposal.justify.view()).collect();
            let older = random.pick(&older)?;
            let said = older.statement();
            let mut position = header.position;
            position.index = said.index.next();
            let tenure = header.view();
            let header = Header { parent: said.digest, tenure, position, ..header };
            (header, Justify::Certified(Box::new((**older).clone())))
        }
    };
    let as_empty = random.chance(300);
    let kind = if as_empty { EntryKind::Empty } else { header.kind };
    let content = if as_empty { Bytes::new() } else { proposal.block.body().clone() };
    proposal.block = Block::new(Header { kind, ..header }, content);
    proposal.justify = justify;
    Some(Body::Proposal(Box::new(proposal)))
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
