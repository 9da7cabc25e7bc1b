//! What a log held when it was opened, and what was lost.
//!
//! Relies on `types`. Promises nothing; it is vocabulary. Does not know how it was found.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use quorate_types::{BootNumber, Entry, GroupId, Incarnation, LogIndex};

#[cfg(doc)]
use super::Wal;

/// What the log held when it was opened.
#[derive(Clone, Debug, Default)]
pub struct Recovery {
    /// Every group it knows.
    pub groups: BTreeMap<GroupId, RecoveredGroup>,
    /// What was lost, if anything. Every group then carries damage too; a group that is not listed may
    /// have had its only records there.
    pub damage: Option<Damage>,
    /// Bytes of batches cut off at the end, none of which was ever confirmed as durable; sectors of
    /// batches that cannot be told from zeroes are not counted.
    pub torn_bytes: u64,
    /// There was no log at all.
    pub is_new: bool,
}

/// What the log held of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredGroup {
    /// The life of the replica's durable state.
    pub incarnation: Incarnation,
    /// The last start of the replica that wrote anything.
    pub boot: BootNumber,
    /// The last hard state.
    pub hard_state: Option<Bytes>,
    /// Entries up to here were released or replaced by a snapshot.
    pub base: LogIndex,
    /// Consecutive entries from `base + 1` on. With damage: those of some earlier moment.
    pub entries: Vec<Entry>,
    /// Records may be missing: the replica must repair from its peers before it votes. Stays until
    /// [`Wal::mark_repaired`], [`Wal::reset`] or [`Wal::forget`].
    pub damage: Option<Damage>,
}

/// A part of the log that was durable once and cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// What is wrong.
    pub kind: DamageKind,
    /// The segment.
    pub segment: u64,
    /// Where in the segment, in bytes.
    pub offset: u64,
    /// How many bytes, at least.
    pub bytes: u64,
}

/// What is wrong with a part of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DamageKind {
    /// Bytes are not what was written.
    Corrupt,
    /// A segment file is not there.
    SegmentMissing,
    /// No segment file is there, though the node runs groups.
    LogMissing,
    /// Entries of the group are not consecutive.
    EntriesMissing,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { segment, offset, bytes, .. } = self;
        match self.kind {
            DamageKind::Corrupt => {
                write!(f, "{bytes} bytes at {offset} of log segment {segment:016x} cannot be read")
            }
            DamageKind::SegmentMissing => write!(f, "log segment {segment:016x} is missing"),
            DamageKind::LogMissing => write!(f, "the log is missing"),
            DamageKind::EntriesMissing => write!(f, "entries of the group are missing from the log"),
        }
    }
}
