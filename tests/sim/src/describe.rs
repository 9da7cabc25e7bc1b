//! Messages and records in words, for whoever reads a trace.
//!
//! Relies on the formats of the consensus room. Promises one short line. No part of any check.

use bytes::Bytes;
use quorate_consensus::raft::{Body, Statement};
use quorate_consensus::{Envelope, Message, hotstuff};
use quorate_storage::GroupAppend;
use quorate_types::Digest;

/// What a signed message says.
fn signed(body: &hotstuff::Body) -> String {
    use hotstuff::Body;
    match body {
        Body::Proposal(proposal) => {
            let header = proposal.block.header();
            let given_up =
                proposal.timed_out.as_ref().map(|given_up| (given_up.view(), given_up.high_view()));
            format!(
                "proposes {} {:?} {} after a certificate of {} and a timeout of {given_up:?}",
                header.position,
                header.kind,
                short(proposal.block.digest()),
                proposal.justify.view()
            )
        }
        Body::Vote { view, index, digest } => format!("votes in {view} for {index} {}", short(*digest)),
        Body::Timeout(timeout) => format!("gives up {} knowing {}", timeout.view, timeout.high_view),
        Body::NewView { high, timed_out } => {
            format!(
                "shows {} and a timeout of {:?}",
                high.view(),
                timed_out.as_ref().map(|known| known.view())
            )
        }
        Body::Request { after, high } => format!("asks for blocks after {after}, knowing {}", high.view()),
        Body::Blocks(blocks) => format!(
            "sends {} blocks after {}, certified in {}",
            blocks.entries.len(),
            blocks.root.position,
            blocks.certificate.statement().view
        ),
        Body::Offer(offer) => format!("offers a snapshot at {}", offer.proof.root.position),
        Body::Boot(life) => format!("starts as {}", life.boot),
        Body::Recorded(life) => format!("recorded start {}", life.boot),
        Body::Stale(life) => format!("knows a later start {}", life.boot),
    }
}

fn short(digest: Digest) -> String {
    digest.to_string().chars().take(8).collect()
}

/// A frame between replicas.
#[must_use]
pub fn frame(bytes: &Bytes) -> String {
    let Ok(envelope) = Envelope::decode(bytes.clone()) else {
        return "bytes that are no envelope".to_owned();
    };
    let message = match &envelope.message {
        Message::Raft(message) => message,
        Message::HotStuff(message) => return format!("{}: {}", envelope.group, signed(&message.body)),
    };
    let what = match &message.body {
        Body::Statement(Statement::Append { prev, commit, entries }) => {
            let last = entries.last().map(|entry| entry.position.to_string()).unwrap_or_default();
            format!("append after {prev}: {} entries to {last}, commit {commit}", entries.len())
        }
        Body::Statement(statement) => format!("{statement:?}"),
        Body::Pledge(pledge) => format!("{pledge:?}"),
    };
    format!("{} {}: {what}", envelope.group, message.term)
}

/// Records that a driver asked for.
#[must_use]
pub fn append(append: &GroupAppend) -> String {
    let range = append.entries.first().zip(append.entries.last());
    let entries = range.map(|(first, last)| format!("{} to {}", first.position, last.position));
    let hard_state = if append.hard_state.is_some() { " and a hard state" } else { "" };
    format!("{}: {}{hard_state}", append.group, entries.unwrap_or_else(|| "no entries".to_owned()))
}
