//! What the tests share: an owner, entries, and a model of what the log must hold.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_storage::{GroupAppend, Identity, RecoveredGroup, Recovery, SimDisk, Wal, WalError, WalOptions};
use quorate_types::{
    BootNumber, ClusterId, Entry, EntryKind, Epoch, GroupId, HlcTimestamp, Incarnation, LogIndex, NodeId,
    Position, Term,
};

/// Room for about eight small batches.
pub const SEGMENT_BYTES: u64 = 16 << 10;

pub fn identity() -> Identity {
    Identity { cluster: ClusterId([1; 16]), node: NodeId(1), incarnation: Incarnation(1) }
}

pub fn options() -> WalOptions {
    WalOptions { segment_bytes: SEGMENT_BYTES, salt: 99, segments_kept: 2, ..WalOptions::default() }
}

pub fn open(disk: &SimDisk) -> Result<(Wal<SimDisk>, Recovery), WalError> {
    Wal::open(disk.clone(), identity(), options())
}

pub fn entry(index: u64, term: u64, bytes: usize) -> Entry {
    let body: Vec<u8> = (0..bytes).map(|at| (index * 31 + term * 7 + at as u64) as u8).collect();
    Entry {
        position: Position { epoch: Epoch(1), term: Term(term), index: LogIndex(index) },
        hlc: HlcTimestamp(index),
        kind: EntryKind::Batch,
        body: body.into(),
    }
}

pub fn entries(indices: std::ops::RangeInclusive<u64>, term: u64) -> Vec<Entry> {
    indices.map(|index| entry(index, term, 40)).collect()
}

pub fn append(group: u64, hard_state: Option<&'static str>, entries: Vec<Entry>) -> GroupAppend {
    GroupAppend {
        group: GroupId(group),
        incarnation: Incarnation(1),
        boot: BootNumber(1),
        hard_state: hard_state.map(|text| Bytes::from_static(text.as_bytes())),
        entries,
    }
}

pub fn after(index: u64) -> Position {
    Position { epoch: Epoch(1), term: Term(1), index: LogIndex(index) }
}

pub fn indices(group: &RecoveredGroup) -> Vec<u64> {
    group.entries.iter().map(|entry| entry.index().0).collect()
}

/// One thing that the owner of a log did.
#[derive(Clone, Debug)]
pub enum Op {
    Append(Vec<GroupAppend>),
    Compact(GroupId, LogIndex),
    Reset(GroupId, LogIndex),
    Forget(GroupId),
}

/// What a group must hold after some operations.
#[derive(Clone, Debug, Default)]
pub struct GroupModel {
    pub incarnation: Incarnation,
    pub hard_state: Option<Bytes>,
    /// All entries since the last reset, released ones too: a release may be lost.
    pub entries: BTreeMap<u64, Entry>,
    pub base: u64,
}

/// What all groups must hold after some operations.
#[derive(Clone, Debug, Default)]
pub struct Model(pub BTreeMap<GroupId, GroupModel>);

impl Model {
    pub fn after(ops: &[Op]) -> Self {
        let mut model = Self::default();
        ops.iter().for_each(|op| model.apply(op));
        model
    }

    pub fn last(&self, group: GroupId) -> u64 {
        self.0.get(&group).map_or(0, |held| held.entries.keys().last().copied().unwrap_or(0).max(held.base))
    }

    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::Append(batch) => {
                for item in batch {
                    let held = self.0.entry(item.group).or_default();
                    held.incarnation = item.incarnation;
                    held.hard_state = item.hard_state.clone().or(held.hard_state.take());
                    if let Some(first) = item.entries.first() {
                        held.entries.split_off(&first.index().0);
                        held.entries
                            .extend(item.entries.iter().map(|entry| (entry.index().0, entry.clone())));
                    }
                }
            }
            Op::Compact(group, through) => {
                if let Some(held) = self.0.get_mut(group) {
                    held.base = held.base.max(through.0);
                }
            }
            Op::Reset(group, after) => {
                let held = self.0.entry(*group).or_default();
                held.entries.clear();
                held.base = after.0;
            }
            Op::Forget(group) => {
                self.0.remove(group);
            }
        }
    }

    /// Whether a recovery is this state; a release may be lost or newer than the state.
    pub fn matches(&self, recovered: &BTreeMap<GroupId, RecoveredGroup>) -> bool {
        self.0.len() == recovered.len()
            && self
                .0
                .iter()
                .all(|(group, held)| recovered.get(group).is_some_and(|found| held.matches(found)))
    }
}

impl GroupModel {
    fn matches(&self, found: &RecoveredGroup) -> bool {
        let expected = self.entries.range(found.base.0 + 1..).map(|(_, entry)| entry);
        let reaches = self.entries.keys().next().map_or(self.base, |first| first - 1);
        self.incarnation == found.incarnation
            && self.hard_state == found.hard_state
            && found.base.0 >= reaches
            && expected.eq(found.entries.iter())
    }
}
