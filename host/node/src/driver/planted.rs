//! A replica that lies on purpose, to show what others make of it. Compiled only with the feature `planted`,
//! which no default build has.
//!
//! Relies on the node to say from when on. Promises that all but what is sent stays as it is: the replica's own
//! log, votes and state are honest, so that its digest can be compared. Knows no rule of the protocol.

use std::sync::atomic::{AtomicU8, Ordering};

use bytes::Bytes;
use quorate_consensus::Message;
use quorate_consensus::hotstuff::{Block, Body, Header, Identity, Message as Signing};
use quorate_types::{
    Batch, BatchItem, Digest, EntryKind, HlcTimestamp, NodeId, Sequence, decode_frames, encode_frames,
    read_frames,
};

/// About what a replica lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Lie {
    /// About nothing.
    Nothing = 0,
    /// Says two things in place of one.
    Twice = 1,
    /// Orders commands that no client sent, and answers clients falsely.
    Clients = 2,
    /// Orders deployments that no operator signed.
    Deployments = 3,
}

static LIE: AtomicU8 = AtomicU8::new(Lie::Nothing as u8);

/// What the replicas of this process lie about from now on.
pub fn lie_from_now_on(lie: Lie) {
    LIE.store(lie as u8, Ordering::Relaxed);
}

/// Whether the replicas of this process lie about this.
pub(crate) fn lies_about(lie: Lie) -> bool {
    LIE.load(Ordering::Relaxed) == lie as u8
}

/// What a client is answered in place of the truth: a zero in CBOR.
pub(crate) fn answered(body: Bytes) -> Bytes {
    if lies_about(Lie::Clients) { Bytes::from_static(&[0]) } else { body }
}

/// What is sent in place of a message.
pub(super) fn spoken(identity: Option<&Identity>, to: NodeId, message: Message) -> Vec<Message> {
    let (Some(identity), Message::HotStuff(said)) = (identity, &message) else { return vec![message] };
    if lies_about(Lie::Twice) {
        return spoken_twice(identity, to, said);
    }
    match &said.body {
        Body::Proposal(proposal) if lies_about(Lie::Clients) => match fabricated(proposal.block.body()) {
            Some(body) => {
                let mut other = proposal.as_ref().clone();
                other.block = Block::new(*other.block.header(), body);
                vec![signed(identity, said, Body::Proposal(Box::new(other)))]
            }
            None => vec![message],
        },
        Body::Proposal(proposal) if lies_about(Lie::Deployments) => {
            let mut other = proposal.as_ref().clone();
            let item =
                BatchItem::Activate { component: Digest([9; 32]), parameters: Bytes::new(), after: Some(1) };
            let header = Header { kind: EntryKind::Batch, ..*other.block.header() };
            other.block = Block::new(header, Batch { items: vec![item] }.encode());
            vec![signed(identity, said, Body::Proposal(Box::new(other)))]
        }
        _ => vec![message],
    }
}

/// The frames of a block, and one more in which the first client asks for its command again under another number.
fn fabricated(body: &Bytes) -> Option<Bytes> {
    let mut frames = decode_frames(body.clone()).ok()?;
    let (mut frame, mut batch) = read_frames(body.clone()).ok()?.into_iter().next()?;
    for item in &mut batch.items {
        if let BatchItem::Command(command) = item {
            command.sequence = Sequence(command.sequence.0 + 100);
        }
    }
    frame.items = batch.encode();
    frames.push(frame.encode());
    Some(encode_frames(&frames))
}

fn signed(identity: &Identity, said: &Signing, body: Body) -> Message {
    let signature = identity.signer.sign(&body.statement(said.scope));
    Message::HotStuff(Signing { scope: said.scope, body, signature })
}

/// Votes come with a vote for another block, and every second member is proposed another block than the rest, one of
/// them both; snapshots are offered with a false digest.
fn spoken_twice(identity: &Identity, to: NodeId, said: &Signing) -> Vec<Message> {
    let message = Message::HotStuff(said.clone());
    let lie = match &said.body {
        Body::Vote { view, index, digest } => {
            let mut other = *digest;
            other.0[0] ^= 1;
            Some(Body::Vote { view: *view, index: *index, digest: other })
        }
        Body::Proposal(proposal) if to.0.is_multiple_of(2) => {
            let mut other = proposal.as_ref().clone();
            let header = *other.block.header();
            let header = Header { kind: EntryKind::Empty, hlc: HlcTimestamp(header.hlc.0 + 1), ..header };
            other.block = Block::new(header, Bytes::new());
            Some(Body::Proposal(Box::new(other)))
        }
        Body::Offer(offer) => {
            let mut other = offer.clone();
            other.content.digest.0[0] ^= 1;
            Some(Body::Offer(other))
        }
        _ => None,
    };
    let Some(body) = lie else { return vec![message] };
    let is_vote = matches!(body, Body::Vote { .. });
    let other = signed(identity, said, body);
    let first_even = identity.set.members().iter().find(|member| member.node.0.is_multiple_of(2));
    let is_proposal = matches!(said.body, Body::Proposal(_));
    let gets_both = is_vote || (is_proposal && first_even.is_some_and(|member| member.node == to));
    if gets_both { vec![message, other] } else { vec![other] }
}
