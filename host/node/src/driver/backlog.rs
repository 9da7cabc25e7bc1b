//! The last events of a group, kept for watchers that come late or come back.
//!
//! Relies on the driver to note every applied entry that emitted something. Promises bounded memory, and to
//! say from which index on nothing is missing. Knows no watcher.

use std::collections::VecDeque;
use std::sync::Arc;

use quorate_runtime::Event;
use quorate_types::{HlcTimestamp, LogIndex};

/// The most entries whose events are kept.
pub const BACKLOG_ENTRIES_MAX: usize = 4_096;
/// The most bytes of events that are kept for one group.
pub const BACKLOG_BYTES_MAX: usize = 256 << 10;
/// What an event costs beside its texts.
const EVENT_BYTES: usize = 64;

/// What one entry emitted, in order of emission.
#[derive(Clone, Debug)]
pub struct EntryEvents {
    /// The entry.
    pub index: LogIndex,
    /// Its stamp.
    pub stamp: HlcTimestamp,
    /// The events, at least one.
    pub events: Arc<Vec<Event>>,
}

impl EntryEvents {
    fn bytes(&self) -> usize {
        let of = |event: &Event| EVENT_BYTES + event.topic.len() + event.key.len() + event.body.len();
        self.events.iter().map(of).sum()
    }
}

/// Events from some index on.
#[derive(Clone, Debug)]
pub struct Recent {
    /// From this index on nothing is missing.
    pub complete_from: LogIndex,
    /// The events that were asked for, as far as they are kept, oldest first.
    pub entries: Vec<EntryEvents>,
}

/// The backlog of one group.
#[derive(Debug)]
pub(super) struct Backlog {
    complete_from: LogIndex,
    entries: VecDeque<EntryEvents>,
    bytes: usize,
}

impl Backlog {
    /// A backlog that knows nothing of entries up to this one.
    pub(super) fn after(applied: LogIndex) -> Self {
        Self { complete_from: applied.next(), entries: VecDeque::new(), bytes: 0 }
    }

    /// Keeps what an entry emitted, and lets the oldest go where there is too much.
    pub(super) fn note(&mut self, entry: EntryEvents) {
        self.bytes += entry.bytes();
        self.entries.push_back(entry);
        while self.entries.len() > BACKLOG_ENTRIES_MAX || self.bytes > BACKLOG_BYTES_MAX {
            let Some(oldest) = self.entries.pop_front() else { return };
            self.bytes -= oldest.bytes();
            self.complete_from = oldest.index.next();
        }
    }

    /// What is kept of entries from this index on.
    pub(super) fn since(&self, from: LogIndex) -> Recent {
        let first = self.entries.partition_point(|entry| entry.index < from);
        Recent { complete_from: self.complete_from, entries: self.entries.range(first..).cloned().collect() }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn entry(index: u64, body: usize) -> EntryEvents {
        let event = Event { topic: "t".into(), key: Bytes::new(), body: vec![0; body].into() };
        EntryEvents { index: LogIndex(index), stamp: HlcTimestamp(index), events: Arc::new(vec![event]) }
    }

    fn indices(recent: &Recent) -> Vec<u64> {
        recent.entries.iter().map(|entry| entry.index.0).collect()
    }

    #[test]
    fn what_is_kept_is_found_and_what_is_not_is_said() {
        let mut backlog = Backlog::after(LogIndex(4));
        for index in [6, 9, 10] {
            backlog.note(entry(index, 1));
        }
        let recent = backlog.since(LogIndex(7));
        assert_eq!((recent.complete_from, indices(&recent)), (LogIndex(5), vec![9, 10]));
        assert_eq!(indices(&backlog.since(LogIndex(11))), [0; 0]);
    }

    #[test]
    fn neither_many_events_nor_large_ones_are_kept_without_bound() {
        let mut many = Backlog::after(LogIndex(0));
        (1..=BACKLOG_ENTRIES_MAX as u64 + 3).for_each(|index| many.note(entry(index, 0)));
        assert!(many.entries.len() <= BACKLOG_ENTRIES_MAX);
        assert!(many.complete_from >= LogIndex(4));
        let mut large = Backlog::after(LogIndex(0));
        (1..=3).for_each(|index| large.note(entry(index, BACKLOG_BYTES_MAX / 2)));
        assert_eq!((large.complete_from, indices(&large.since(LogIndex(0)))), (LogIndex(3), vec![3]));
        large.note(entry(4, BACKLOG_BYTES_MAX + 1));
        assert_eq!((large.complete_from, large.bytes), (LogIndex(5), 0));
    }
}
