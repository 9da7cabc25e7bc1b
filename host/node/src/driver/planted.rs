//! A replica that lies on purpose, to show what others make of it. Compiled only with the feature `planted`,
//! which no default build has.
//!
//! Relies on the node to say from when on. Promises that all but what is sent stays as it is: the replica's own
//! log, votes and state are honest, so that its digest can be compared. Knows no rule of the protocol.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use quorate_consensus::Message;
use quorate_consensus::hotstuff::{Block, Body, Header, Identity, Message as Signing};
use quorate_types::{EntryKind, HlcTimestamp, NodeId};

static LIES: AtomicBool = AtomicBool::new(false);

/// From now on, the replicas of this process lie, or no more.
pub fn lie_from_now_on(lies: bool) {
    LIES.store(lies, Ordering::Relaxed);
}

/// What is sent in place of a message: votes come with a vote for another block, and every second member is
/// proposed another block than the rest, one of them both.
pub(super) fn spoken(identity: Option<&Identity>, to: NodeId, message: Message) -> Vec<Message> {
    let (true, Some(identity), Message::HotStuff(said)) = (LIES.load(Ordering::Relaxed), identity, &message)
    else {
        return vec![message];
    };
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
        _ => None,
    };
    let Some(body) = lie else { return vec![message] };
    let signature = identity.signer.sign(&body.statement(said.scope));
    let is_vote = matches!(body, Body::Vote { .. });
    let other = Message::HotStuff(Signing { scope: said.scope, body, signature });
    let first_even = identity.set.members().iter().find(|member| member.node.0.is_multiple_of(2));
    let gets_both = is_vote || first_even.is_some_and(|member| member.node == to);
    if gets_both { vec![message, other] } else { vec![other] }
}
