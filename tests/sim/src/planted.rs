//! Bugs on purpose: each is planted between the product's rooms, or in the one rule that it breaks, and
//! the simulator must find it.
//!
//! Relies on the seams of the simulated node; two bugs inside the protocol need the `planted` feature of
//! the consensus room, which no product build enables. Promises that a run without a bug is untouched.

use bytes::Bytes;
use quorate_consensus::raft::planted::{self, RuleBroken};
use quorate_storage::GroupAppend;
use quorate_types::codec::{DecodeError, Reader, Writer};
use quorate_types::{EpochConfig, Position};

use crate::random::Random;

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Planted {
    /// The log reports a batch as durable before it is flushed.
    AcknowledgesBeforeFlush,
    /// Votes do not reach the disk, so that a restarted replica votes again.
    VotesTwice,
    /// A follower cuts its log at every append, not only at a conflict.
    TruncatesAtEveryAppend,
    /// A leader counts replicas for entries of earlier terms.
    CommitsEarlierTermByCount,
    /// Snapshots leave the session table out.
    SessionsMissingFromSnapshot,
}

impl Planted {
    /// All bugs with their names.
    pub const ALL: [(Self, &'static str); 5] = [
        (Self::AcknowledgesBeforeFlush, "acknowledges-before-flush"),
        (Self::VotesTwice, "votes-twice-in-a-term"),
        (Self::TruncatesAtEveryAppend, "truncates-at-every-append"),
        (Self::CommitsEarlierTermByCount, "commits-earlier-term-by-count"),
        (Self::SessionsMissingFromSnapshot, "sessions-missing-from-snapshot"),
    ];

    /// The name for programs.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(bug, _)| *bug == self).map_or("unknown", |(_, name)| name)
    }

    /// The bug of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(bug, _)| *bug)
    }
}

/// Breaks the rule in the protocol that the bug stands for, or restores it, for runs on this thread.
pub fn break_rule(bug: Option<Planted>) {
    planted::break_rule(match bug {
        Some(Planted::TruncatesAtEveryAppend) => Some(RuleBroken::TruncateOnlyAtConflict),
        Some(Planted::CommitsEarlierTermByCount) => Some(RuleBroken::CommitOwnTermOnly),
        _ => None,
    });
}

/// A batch on its way to the log, with every second vote taken out.
#[must_use]
pub fn without_votes(mut batch: Vec<GroupAppend>, random: &mut Random) -> Vec<GroupAppend> {
    for append in &mut batch {
        if append.hard_state.is_some() && random.chance(500) {
            append.hard_state = None;
        }
    }
    batch
}

const CHUNK_DOMAIN: &str = "quorate 2026 snapshot chunk";
/// As the host's part of the state names its session records.
const SESSION_PREFIX: u8 = b's';
/// As pieces name the host's part of the state.
const HOST_SPACE: u8 = 1;

/// A piece of a snapshot with the session records taken out; bytes that are no piece stay as they are.
#[must_use]
pub fn without_sessions(piece: &Bytes) -> Bytes {
    strip(piece.clone()).unwrap_or_else(|_| piece.clone())
}

fn strip(piece: Bytes) -> Result<Bytes, DecodeError> {
    let mut from = Reader::new(piece);
    from.raw(32, "checksum")?;
    let (position, stamp) = (Position::decode(&mut from)?, from.u64("stamp")?);
    let config = EpochConfig::decode(&mut from)?;
    let last = from.u8("end")?;
    let mut kept = Vec::new();
    for _ in 0..from.count(u32::MAX as usize, "pairs")? {
        let space = from.u8("space")?;
        let key = from.bytes(usize::MAX, "key")?;
        let value = from.bytes(usize::MAX, "value")?;
        if space != HOST_SPACE || key.first() != Some(&SESSION_PREFIX) {
            kept.push((space, key, value));
        }
    }
    let mut out = Writer::default();
    position.encode(&mut out);
    out.u64(stamp);
    config.encode(&mut out);
    out.u8(last);
    out.u32(kept.len() as u32);
    for (space, key, value) in &kept {
        out.u8(*space);
        out.bytes(key);
        out.bytes(value);
    }
    let content = out.finish();
    let mut whole = Writer::default();
    whole.raw(&quorate_crypto::digest(CHUNK_DOMAIN, &content).0);
    whole.raw(&content);
    Ok(whole.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bug_has_a_name_of_its_own() {
        for (bug, name) in Planted::ALL {
            assert_eq!(Planted::named(name), Some(bug));
            assert_eq!(bug.name(), name);
        }
        assert_eq!(Planted::named("none"), None);
    }

    #[test]
    fn bytes_that_are_no_piece_are_left_alone() {
        let garbage = Bytes::from_static(b"garbage");
        assert_eq!(without_sessions(&garbage), garbage);
    }
}
