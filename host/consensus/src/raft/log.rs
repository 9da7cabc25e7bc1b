//! The part of the log that is kept in memory: everything after a base that a snapshot includes.
//!
//! Relies on its callers to append only what follows the last entry ([`super::rules::follows`]).
//! Promises that positions of everything from the base on are known, and that what it hands out is
//! bounded in bytes. Does not know what is committed or durable.

use std::collections::VecDeque;

use quorate_types::{Entry, HlcTimestamp, LogIndex, Position};

/// Consecutive entries after a base.
///
/// ```text
///   compacted        base   first                last
/// ................. [  b  ] [ b+1 ][ b+2 ] ... [ b+n ]
///    (snapshot)      position and stamp known; entries held
/// ```
#[derive(Debug)]
pub(super) struct Log {
    base: Position,
    base_hlc: HlcTimestamp,
    entries: VecDeque<Entry>,
}

impl Log {
    pub(super) fn new(base: Position, base_hlc: HlcTimestamp) -> Self {
        Self { base, base_hlc, entries: VecDeque::new() }
    }

    /// The last position that is known without its entry.
    pub(super) fn base(&self) -> Position {
        self.base
    }

    pub(super) fn last(&self) -> Position {
        self.entries.back().map_or(self.base, |entry| entry.position)
    }

    pub(super) fn last_hlc(&self) -> HlcTimestamp {
        self.entries.back().map_or(self.base_hlc, |entry| entry.hlc)
    }

    /// `None` below the base and after the last entry.
    pub(super) fn position_at(&self, index: LogIndex) -> Option<Position> {
        if index == self.base.index {
            return Some(self.base);
        }
        self.entry(index).map(|entry| entry.position)
    }

    /// `None` below the base and after the last entry.
    pub(super) fn hlc_at(&self, index: LogIndex) -> Option<HlcTimestamp> {
        if index == self.base.index {
            return Some(self.base_hlc);
        }
        self.entry(index).map(|entry| entry.hlc)
    }

    /// `None` up to the base and after the last entry.
    pub(super) fn entry(&self, index: LogIndex) -> Option<&Entry> {
        let offset = index.0.checked_sub(self.base.index.0 + 1)?;
        self.entries.get(usize::try_from(offset).ok()?)
    }

    /// Whether this position stands in the log or is its base.
    pub(super) fn holds(&self, position: Position) -> bool {
        self.position_at(position.index) == Some(position)
    }

    /// Entries from `first` to `last`, as far as they are held.
    pub(super) fn range(&self, first: LogIndex, last: LogIndex) -> impl Iterator<Item = &Entry> + Clone {
        let from = self.offset_after_base(first);
        let to = self.offset_after_base(last.next()).max(from);
        self.entries.range(from..to)
    }

    /// Entries from `first` on, as many as encode in `bytes_max` bytes, but at least one if there is one.
    pub(super) fn message_from(&self, first: LogIndex, bytes_max: usize) -> Vec<Entry> {
        let mut bytes = 0_usize;
        let held = self.entries.range(self.offset_after_base(first)..);
        let fitting = held.clone().take_while(|entry| {
            let fits = bytes == 0 || bytes + entry.encoded_len() <= bytes_max;
            bytes += entry.encoded_len();
            fits
        });
        let count = fitting.count();
        let mut entries = Vec::with_capacity(count);
        entries.extend(held.take(count).cloned());
        entries
    }

    /// The last place, at `limit` at most, that a log holding `position` might agree with: entries of a
    /// greater term cannot stand before it there. At least the base.
    pub(super) fn last_not_after(&self, limit: LogIndex, position: Position) -> Position {
        let held = self.offset_after_base(limit.next());
        let count = self.entries.partition_point(|entry| {
            (entry.position.epoch, entry.position.term) <= (position.epoch, position.term)
        });
        match held.min(count).checked_sub(1) {
            Some(offset) => self.entries[offset].position,
            None => self.base,
        }
    }

    pub(super) fn push(&mut self, entry: Entry) {
        self.entries.push_back(entry);
    }

    /// Drops everything from `index` on.
    pub(super) fn truncate_from(&mut self, index: LogIndex) {
        self.entries.truncate(self.offset_after_base(index));
    }

    /// Drops everything before `keep_from`, which becomes the first entry held.
    pub(super) fn compact(&mut self, keep_from: LogIndex) {
        let count = self.offset_after_base(keep_from);
        if let Some(last) = self.entries.drain(..count).next_back() {
            self.base = last.position;
            self.base_hlc = last.hlc;
        }
    }

    /// Forgets every entry and starts after another base.
    pub(super) fn restart(&mut self, base: Position, base_hlc: HlcTimestamp) {
        *self = Self::new(base, base_hlc);
    }

    /// How many held entries stand before `index`.
    fn offset_after_base(&self, index: LogIndex) -> usize {
        let offset = index.0.saturating_sub(self.base.index.0 + 1);
        usize::try_from(offset).unwrap_or(usize::MAX).min(self.entries.len())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use quorate_types::{EntryKind, Epoch, Term};

    use super::*;

    fn position(term: u64, index: u64) -> Position {
        Position { epoch: Epoch(1), term: Term(term), index: LogIndex(index) }
    }

    fn entry(term: u64, index: u64) -> Entry {
        let body = Bytes::from(vec![0; 100]);
        Entry { position: position(term, index), hlc: HlcTimestamp(index * 10), kind: EntryKind::Batch, body }
    }

    /// Base at 10 in term 2, then entries 11 to 16 of terms 2, 2, 4, 4, 5, 5.
    fn log() -> Log {
        let mut log = Log::new(position(2, 10), HlcTimestamp(100));
        for (offset, term) in [2, 2, 4, 4, 5, 5].into_iter().enumerate() {
            log.push(entry(term, 11 + offset as u64));
        }
        log
    }

    #[test]
    fn positions_are_known_from_the_base_to_the_last_entry_only() {
        let log = log();
        assert_eq!(log.position_at(LogIndex(9)), None);
        assert_eq!(log.position_at(LogIndex(10)), Some(position(2, 10)));
        assert_eq!(log.position_at(LogIndex(16)), Some(position(5, 16)));
        assert_eq!(log.position_at(LogIndex(17)), None);
        assert!(log.holds(position(4, 13)) && !log.holds(position(2, 13)));
        assert_eq!(log.hlc_at(LogIndex(10)), Some(HlcTimestamp(100)));
        assert!(log.entry(LogIndex(10)).is_none() && log.entry(LogIndex(0)).is_none());
    }

    #[test]
    fn a_message_holds_what_fits_and_never_nothing() {
        let log = log();
        let one = Entry::HEADER_BYTES + 100;
        assert_eq!(log.message_from(LogIndex(12), 2 * one).len(), 2);
        assert_eq!(log.message_from(LogIndex(12), 2 * one - 1).len(), 1);
        assert_eq!(log.message_from(LogIndex(12), 1).len(), 1);
        assert_eq!(log.message_from(LogIndex(17), 1_000).len(), 0);
    }

    #[test]
    fn the_hint_passes_over_all_entries_of_terms_that_cannot_agree() {
        let log = log();
        assert_eq!(log.last_not_after(LogIndex(16), position(4, 20)), position(4, 14));
        assert_eq!(log.last_not_after(LogIndex(13), position(4, 20)), position(4, 13));
        assert_eq!(log.last_not_after(LogIndex(99), position(9, 99)), position(5, 16));
        assert_eq!(log.last_not_after(LogIndex(16), position(1, 16)), position(2, 10));
    }

    #[test]
    fn truncation_and_compaction_leave_the_middle() {
        let mut log = log();
        log.truncate_from(LogIndex(15));
        assert_eq!(log.last(), position(4, 14));
        log.compact(LogIndex(13));
        assert_eq!((log.base(), log.last()), (position(2, 12), position(4, 14)));
        assert_eq!(log.hlc_at(LogIndex(12)), Some(HlcTimestamp(120)));
        assert_eq!(log.range(LogIndex(1), LogIndex(13)).count(), 1);
        log.compact(LogIndex(5));
        assert_eq!(log.base(), position(2, 12));
        log.compact(LogIndex(99));
        assert_eq!((log.base(), log.last()), (position(4, 14), position(4, 14)));
    }
}
