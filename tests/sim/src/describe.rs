//! Messages and records in words, for whoever reads a trace.
//!
//! Relies on the formats of the consensus room. Promises one short line. No part of any check.

use bytes::Bytes;
use quorate_consensus::raft::{Body, Statement};
use quorate_consensus::{Envelope, Message};
use quorate_storage::GroupAppend;

/// A frame between replicas.
#[must_use]
pub fn frame(bytes: &Bytes) -> String {
    let Ok(envelope) = Envelope::decode(bytes.clone()) else {
        return "bytes that are no envelope".to_owned();
    };
    let Message::Raft(message) = &envelope.message else {
        return format!("{}: {:?}", envelope.group, envelope.message);
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
