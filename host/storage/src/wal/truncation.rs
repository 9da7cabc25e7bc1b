//! Frees the oldest segment by copying what is live in it to the end of the log.
//!
//! The groups share the work of keeping the log short: one group that does not checkpoint holds back a
//! segment with its entries, and they are copied if they are few; if they are many,
//! [`Wal::groups_holding_back`] names the groups to checkpoint.
//!
//! Relies on the index for what is live. Promises that a segment is freed only after every group's last
//! hard state, base and live entries lie in later segments and are durable; that one call does a bounded
//! amount of work; and that a crash at any point loses nothing. Does not know why entries are live.

use std::collections::{BTreeMap, VecDeque};
use std::io;

use quorate_types::{Entry, GroupId, LogIndex};

use super::batch::{Record, RecordRef, decode_records};
use super::index::{GroupIndex, RecordPlace};
use super::reader::SegmentReader;
use super::segment::{BATCHES_OFFSET, SegmentNumber};
use super::{Closed, Wal};
use crate::{Disk, WalError};

/// Bytes of batches that one call of [`Wal::maintain`] reads, at least: about a millisecond.
const READ_BYTES: u64 = 1 << 20;
/// Bytes that one call of [`Wal::maintain`] copies, at least; a batch that was begun is finished.
const COPY_BYTES: usize = 256 << 10;
/// While few segments are closed, copying is worth it only if at most this share of one is live.
const EAGER_LIVE_SHARE: u64 = 8;
/// However many segments are closed, copying gains too little while more than this share of all is live.
const LIVE_SHARE_MAX: u64 = 2;

/// How far the copying of the oldest segment got.
#[derive(Clone, Copy, Debug)]
pub(super) struct Truncation {
    segment: SegmentNumber,
    /// The next batch to look at; all before it hold nothing live.
    offset: u64,
}

/// What becomes of what the log said of a group before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// It is void.
    Whole,
    /// It stays.
    Part,
}

/// A group's standing and some of its live entries, to be written again.
#[derive(Debug)]
pub(super) struct Move {
    pub(super) group: GroupId,
    pub(super) extent: Extent,
    /// Consecutive.
    pub(super) entries: Vec<Entry>,
}

impl Move {
    fn range(&self) -> Option<(LogIndex, LogIndex)> {
        self.entries.first().zip(self.entries.last()).map(|(first, last)| (first.index(), last.index()))
    }

    fn bytes(&self) -> usize {
        self.entries.iter().map(Entry::encoded_len).sum()
    }
}

impl<D: Disk> Wal<D> {
    /// Does a bounded part of the work of freeing old segments, about a millisecond, and returns whether
    /// there is more to do now. Costs next to nothing when there is none, so call it at every turn.
    ///
    /// # Errors
    ///
    /// [`WalError::DiskFull`], after which it may be called again; [`WalError::Io`] if a segment cannot
    /// be read; and final ones.
    pub fn maintain(&mut self) -> Result<bool, WalError> {
        self.check_usable()?;
        let Some(truncation) = self.truncation.take().or_else(|| self.choose()) else {
            return Ok(false);
        };
        let Some(oldest) = self.closed.front() else {
            return Ok(false);
        };
        debug_assert_eq!(oldest.number, truncation.segment);
        let (moves, next) = read_live(oldest, &self.index, truncation.offset).map_err(|source| {
            WalError::Io { operation: "read", file: truncation.segment.file_name(), source }
        })?;
        // Until the copies are written, the next call begins where this one did.
        self.truncation = Some(truncation);
        self.write_moves(&moves)?;
        if next < oldest_end(&self.closed) {
            self.truncation = Some(Truncation { offset: next, ..truncation });
            return Ok(true);
        }
        self.write_standings(truncation.segment)?;
        self.flush()?;
        self.free_oldest()?;
        self.truncation = None;
        self.truncation = self.choose();
        Ok(self.truncation.is_some())
    }

    /// The groups whose live entries lie in the oldest closed segment, most bytes first: checkpointing
    /// them lets it go. Empty while nothing needs to be done.
    #[must_use]
    pub fn groups_holding_back(&self) -> Vec<GroupId> {
        let Some(oldest) = self.closed.front().filter(|_| self.closed.len() > self.options.segments_kept)
        else {
            return Vec::new();
        };
        let live = self.index.iter().map(|(group, index)| (index.live_bytes_in(oldest.number), *group));
        let mut holders: Vec<_> = live.filter(|(bytes, _)| *bytes > 0).collect();
        holders.sort_by_key(|(bytes, group)| (std::cmp::Reverse(*bytes), *group));
        holders.into_iter().map(|(_, group)| group).collect()
    }

    /// The oldest segment, if copying what is live in it is worth the space it frees.
    fn choose(&mut self) -> Option<Truncation> {
        if std::mem::take(&mut self.may_truncate) {
            self.pass_end = self.active.number;
        }
        let oldest = self.closed.front().filter(|oldest| oldest.number < self.pass_end)?;
        let live_in =
            |index: &GroupIndex| index.live_bytes_in(oldest.number) + index.standing_bytes_in(oldest.number);
        let live: u64 = self.index.values().map(live_in).sum();
        let is_cheap = live <= oldest.batch_bytes() / EAGER_LIVE_SHARE;
        // A segment full of live entries may have dead ones behind it, so all are weighed together.
        let all_live: u64 = self.index.values().map(GroupIndex::live_bytes).sum();
        let all: u64 = self.closed.iter().map(Closed::batch_bytes).sum();
        let is_crowded = self.closed.len() > self.options.segments_kept && all_live <= all / LIVE_SHARE_MAX;
        if is_cheap || is_crowded {
            let is_dead = !self.index.values().any(|index| index.has_entries_in(oldest.number));
            let offset = if is_dead { oldest.end } else { BATCHES_OFFSET };
            return Some(Truncation { segment: oldest.number, offset });
        }
        self.pass_end = oldest.number;
        None
    }

    /// Writes standings and entries at the end of the log and brings the index up to date.
    pub(super) fn write_moves(&mut self, moves: &[Move]) -> Result<(), WalError> {
        let mut left = moves;
        while !left.is_empty() {
            self.begin_batch()?;
            let first_record = self.builder.records();
            let mut count = 0;
            for moved in left {
                let fits = self.builder.len() + moved.bytes() <= self.batch_bytes_target();
                if count > 0 && !fits {
                    break;
                }
                let index = self.index.get(&moved.group);
                let (owner, mut standing) = index
                    .expect("what is moved belongs to a group of the index: nothing is forgotten meanwhile")
                    .standing(moved.group);
                standing.whole = moved.extent == Extent::Whole;
                self.builder.push(&RecordRef::Standing {
                    owner,
                    standing: &standing,
                    entries: &moved.entries,
                });
                count += 1;
            }
            let (written, later) = left.split_at(count);
            let place = self.write_built()?;
            for (moved, record) in written.iter().zip(place.record + u64::from(first_record)..) {
                self.counters.bytes_moved += moved.bytes() as u64;
                if let Some(index) = self.index.get_mut(&moved.group) {
                    index.stand_in(place.segment);
                    if let Some((first, last)) = moved.range() {
                        index.insert(first, last, moved.bytes() as u64, RecordPlace { record, ..place });
                    }
                }
            }
            left = later;
        }
        Ok(())
    }

    /// Writes again the hard states and bases that only this segment holds, and all marks that wait.
    fn write_standings(&mut self, segment: SegmentNumber) -> Result<(), WalError> {
        let standing = self.index.iter().filter(|(_, index)| index.stands_in(segment));
        let moves: Vec<Move> = standing
            .map(|(group, _)| Move { group: *group, extent: Extent::Part, entries: Vec::new() })
            .collect();
        self.write_moves(&moves)?;
        self.begin_batch()?;
        if self.builder.records() > 0 {
            self.write_built()?;
        }
        Ok(())
    }

    /// Gives up the oldest segment's file; nothing in it is needed.
    fn free_oldest(&mut self) -> Result<(), WalError> {
        let Some(oldest) = self.closed.pop_front() else {
            return Ok(());
        };
        let needed = self.index.iter().find(|(_, index)| index.is_needed_in(oldest.number));
        assert!(needed.is_none(), "segment {} is freed while {needed:?} needs it", oldest.number);
        self.files.free(&oldest).inspect_err(|_| self.failed = true)?;
        self.counters.segments_freed += 1;
        Ok(())
    }
}

impl<F> Closed<F> {
    fn batch_bytes(&self) -> u64 {
        self.end - BATCHES_OFFSET
    }
}

fn oldest_end<F>(closed: &VecDeque<Closed<F>>) -> u64 {
    closed.front().map_or(0, |oldest| oldest.end)
}

/// The live entries of the next batches of a segment, and where the batches after them begin.
fn read_live<F: crate::DiskFile>(
    oldest: &Closed<F>,
    index: &BTreeMap<GroupId, GroupIndex>,
    from: u64,
) -> io::Result<(Vec<Move>, u64)> {
    let mut reader = SegmentReader::new(&*oldest.file, oldest.number, Some(oldest.salt), oldest.end)?;
    let (mut at, mut copied, mut moves) = (from, 0, Vec::new());
    while at < oldest.end && at - from < READ_BYTES && copied < COPY_BYTES {
        // The segment was whole when it was opened or written; now it is not, and must be kept.
        let unreadable = || io::Error::new(io::ErrorKind::InvalidData, format!("no batch at {at}"));
        let (header, payload) = reader.batch_at(at)?.ok_or_else(unreadable)?;
        let records = decode_records(&header, payload).map_err(io::Error::other)?;
        for (record, number) in records.into_iter().zip(header.first_record..) {
            let (owner, entries) = match record {
                Record::Append { owner, entries, .. } | Record::Standing { owner, entries, .. } => {
                    (owner, entries)
                }
                _ => continue,
            };
            let Some(group) = index.get(&owner.group).filter(|group| group.incarnation == owner.incarnation)
            else {
                continue;
            };
            let place = RecordPlace { segment: oldest.number, record: number };
            let live: Vec<Entry> =
                entries.into_iter().filter(|entry| group.is_live(entry.index(), place)).collect();
            copied += live.iter().map(Entry::encoded_len).sum::<usize>();
            moves.extend(consecutive(owner.group, live));
        }
        at += header.stored_bytes();
    }
    Ok((moves, at))
}

fn consecutive(group: GroupId, live: Vec<Entry>) -> impl Iterator<Item = Move> {
    let follows = |a: &Entry, b: &Entry| a.index().next() == b.index();
    let stretches: Vec<Vec<Entry>> = live.chunk_by(follows).map(<[Entry]>::to_vec).collect();
    stretches.into_iter().map(move |entries| Move { group, extent: Extent::Part, entries })
}
