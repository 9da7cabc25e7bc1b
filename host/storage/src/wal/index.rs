//! Which segment holds each group's live entries, hard state and base.
//!
//! Relies on nothing but ranges of indices. Promises that an entry found in a segment is called live
//! exactly if no later record replaced, moved or released it. Costs one [`Run`] for each stretch of
//! entries, not one item for each entry. Knows no bytes.

use bytes::Bytes;
use quorate_types::{BootNumber, GroupId, Incarnation, LogIndex};

use super::Damage;
use super::batch::{Owner, RECORD_OVERHEAD_BYTES, Standing};
use super::segment::SegmentNumber;

/// Consecutive entries whose live copies lie in one segment, in records from `since` on.
///
/// Any copy of one of these entries in that segment at an earlier record is dead, and there is no dead
/// copy at a later one: whatever replaces an entry begins a new run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) first: LogIndex,
    pub(super) last: LogIndex,
    pub(super) segment: SegmentNumber,
    /// The number of the record that holds the first of them.
    pub(super) since: u64,
    /// Encoded bytes of the entries; estimated once a run was cut.
    pub(super) bytes: u64,
}

impl Run {
    fn entries(&self) -> u64 {
        self.last.0 - self.first.0 + 1
    }

    /// Keeps only `first..=last`, which lie within.
    fn cut(&mut self, first: LogIndex, last: LogIndex) {
        let before = self.entries();
        (self.first, self.last) = (first, last);
        let share = u128::from(self.bytes) * u128::from(self.entries()) / u128::from(before);
        self.bytes = u64::try_from(share).expect("a part is not greater than the whole");
    }
}

/// Where a record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordPlace {
    pub(super) segment: SegmentNumber,
    pub(super) record: u64,
}

/// What the log knows of one group without its entries' bytes.
///
/// Invariants: runs are in order, do not overlap, and lie above `base`. Outside recovery they are also
/// consecutive from `base + 1` on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct GroupIndex {
    pub(super) incarnation: Incarnation,
    pub(super) boot: BootNumber,
    pub(super) hard_state: Option<Bytes>,
    /// Entries up to here are not needed any more.
    pub(super) base: LogIndex,
    pub(super) damage: Option<Damage>,
    runs: Vec<Run>,
    /// The segment of the last record of hard state and owner; `None` before the first.
    pub(super) state_segment: Option<SegmentNumber>,
    /// The segment of the last record of the base; `None` if none is needed.
    pub(super) base_segment: Option<SegmentNumber>,
}

impl GroupIndex {
    /// A group whose first records may be lost.
    pub(super) fn damaged(damage: Option<Damage>) -> Self {
        Self { damage, ..Self::default() }
    }

    /// The greatest index in the log, or the base if it holds no entry.
    pub(super) fn last(&self) -> LogIndex {
        self.runs.last().map_or(self.base, |run| run.last)
    }

    #[cfg(test)]
    pub(super) fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Encoded bytes of the live entries, about.
    pub(super) fn live_bytes(&self) -> u64 {
        self.runs.iter().map(|run| run.bytes).sum()
    }

    /// Encoded bytes of the live entries in one segment, about.
    pub(super) fn live_bytes_in(&self, segment: SegmentNumber) -> u64 {
        self.runs.iter().filter(|run| run.segment == segment).map(|run| run.bytes).sum()
    }

    /// Whether the copy of an entry that lies there is the live one.
    pub(super) fn is_live(&self, index: LogIndex, place: RecordPlace) -> bool {
        let after = self.runs.partition_point(|run| run.last < index);
        let owner = self.runs.get(after).filter(|run| run.first <= index);
        owner.is_some_and(|run| run.segment == place.segment && run.since <= place.record)
    }

    /// Entries were appended and replace what there was from the first on.
    pub(super) fn append(&mut self, first: LogIndex, last: LogIndex, bytes: u64, place: RecordPlace) {
        let replaces = first <= self.last();
        self.truncate_from(first);
        self.extend(Run { first, last, segment: place.segment, since: place.record, bytes }, !replaces);
    }

    /// Live entries were written again at the end of the log; nothing else changes.
    pub(super) fn insert(&mut self, first: LogIndex, last: LogIndex, bytes: u64, place: RecordPlace) {
        let mut behind = Vec::new();
        while let Some(run) = self.runs.pop_if(|run| run.last >= first) {
            if run.last > last {
                let mut rest = run;
                rest.cut(run.first.max(last.next()), run.last);
                behind.push(rest);
            }
            if run.first < first {
                let mut rest = run;
                rest.cut(run.first, first.previous());
                self.runs.push(rest);
                break;
            }
        }
        self.extend(Run { first, last, segment: place.segment, since: place.record, bytes }, true);
        self.runs.extend(behind.into_iter().rev());
    }

    fn extend(&mut self, run: Run, may_join: bool) {
        match self.runs.last_mut() {
            Some(end) if may_join && end.segment == run.segment && end.last.next() == run.first => {
                end.last = run.last;
                end.bytes += run.bytes;
            }
            _ => self.runs.push(run),
        }
    }

    /// Entries from `index` on are void.
    pub(super) fn truncate_from(&mut self, index: LogIndex) {
        while self.runs.pop_if(|run| run.first >= index).is_some() {}
        if let Some(run) = self.runs.last_mut()
            && run.last >= index
        {
            run.cut(run.first, index.previous());
        }
    }

    /// Entries up to `through` are not needed; returns whether that is news.
    pub(super) fn compact(&mut self, through: LogIndex) -> bool {
        if through <= self.base {
            return false;
        }
        self.base = through;
        self.runs.retain(|run| run.last > through);
        if let Some(run) = self.runs.first_mut()
            && run.first <= through
        {
            run.cut(through.next(), run.last);
        }
        true
    }

    /// No entry is valid and the next comes after `after`.
    pub(super) fn reset(&mut self, after: LogIndex) {
        self.runs.clear();
        self.base = after;
        self.damage = None;
    }

    /// Whether anything of the group would be lost with this segment and all before it.
    pub(super) fn is_needed_in(&self, segment: SegmentNumber) -> bool {
        self.stands_in(segment) || self.runs.iter().any(|run| run.segment <= segment)
    }

    /// Whether live entries lie in this segment.
    pub(super) fn has_entries_in(&self, segment: SegmentNumber) -> bool {
        self.runs.iter().any(|run| run.segment == segment)
    }

    /// All that is known of the group apart from its entries.
    pub(super) fn standing(&self, group: GroupId) -> (Owner, Standing) {
        let owner = Owner { group, incarnation: self.incarnation, boot: self.boot };
        let standing = Standing {
            hard_state: self.hard_state.clone(),
            base: self.base,
            whole: false,
            damage: self.damage,
        };
        (owner, standing)
    }

    /// Owner, hard state and base lie in this segment now.
    pub(super) fn stand_in(&mut self, segment: SegmentNumber) {
        self.state_segment = Some(segment);
        self.base_segment = (self.base > LogIndex::ZERO).then_some(segment);
    }

    /// The group's owner as a record says; a greater incarnation voids all that came before.
    pub(super) fn take_owner(&mut self, owner: Owner) {
        if owner.incarnation > self.incarnation {
            let is_first = self.incarnation.0 == 0;
            if !is_first {
                *self = Self::default();
            }
            self.incarnation = owner.incarnation;
        }
        self.boot = self.boot.max(owner.boot);
    }

    /// A record's hard state, which stands in `segment`.
    pub(super) fn take_hard_state(&mut self, hard_state: Option<Bytes>, segment: SegmentNumber) {
        if let Some(hard_state) = hard_state {
            self.hard_state = Some(hard_state);
            self.state_segment = Some(segment);
        }
        self.state_segment.get_or_insert(segment);
    }

    /// A record's base, which stands in `segment`.
    pub(super) fn take_base(&mut self, base: LogIndex, segment: SegmentNumber) {
        self.compact(base);
        if self.base > LogIndex::ZERO {
            self.base_segment = Some(segment);
        }
    }

    /// Bytes of the records that say what is known apart from entries, if they lie in this segment.
    pub(super) fn standing_bytes_in(&self, segment: SegmentNumber) -> u64 {
        let hard_state = self.hard_state.as_ref().map_or(0, Bytes::len);
        if self.stands_in(segment) { (RECORD_OVERHEAD_BYTES + hard_state) as u64 } else { 0 }
    }

    /// Whether nothing was ever said of where the group's entries begin.
    pub(super) fn is_blank(&self) -> bool {
        self.runs.is_empty() && self.base == LogIndex::ZERO && self.base_segment.is_none()
    }

    /// Whether anything that only this segment says would be lost with it, apart from entries.
    pub(super) fn stands_in(&self, segment: SegmentNumber) -> bool {
        let within = |place: Option<SegmentNumber>| place.is_some_and(|place| place <= segment);
        within(self.state_segment) || within(self.base_segment)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn place(segment: u64, record: u64) -> RecordPlace {
        RecordPlace { segment: SegmentNumber(segment), record }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Append { back: u64, count: u64 },
        Move { skip: u64, count: u64 },
        Compact { ahead: u64 },
        NextSegment,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0u64..6, 1u64..5).prop_map(|(back, count)| Step::Append { back, count }),
            2 => (0u64..8, 1u64..6).prop_map(|(skip, count)| Step::Move { skip, count }),
            1 => (0u64..5).prop_map(|ahead| Step::Compact { ahead }),
            2 => Just(Step::NextSegment),
        ]
    }

    proptest! {
        /// The model keeps every copy ever written and the place of the live one.
        #[test]
        fn an_entry_is_live_exactly_where_it_was_last_written(steps in prop::collection::vec(step(), 1..60)) {
            let mut index = GroupIndex::default();
            let mut live: BTreeMap<u64, RecordPlace> = BTreeMap::new();
            let mut copies: Vec<(u64, RecordPlace)> = Vec::new();
            let (mut segment, mut record, mut base) = (1, 0, 0);
            for step in steps {
                record += 1;
                let at = place(segment, record);
                let last = live.keys().last().copied().unwrap_or(base);
                match step {
                    Step::Append { back, count } => {
                        let first = last.saturating_sub(back).max(base) + 1;
                        live.split_off(&first);
                        for entry in first..first + count {
                            live.insert(entry, at);
                            copies.push((entry, at));
                        }
                        index.append(LogIndex(first), LogIndex(first + count - 1), count * 10, at);
                    }
                    // As truncation does it: live entries of the oldest segment, consecutive ones at once.
                    Step::Move { skip, count } => {
                        let oldest = live.values().map(|at| at.segment).min();
                        let held = live.iter().filter(|(_, at)| Some(at.segment) == oldest);
                        let held = held.map(|(entry, _)| *entry);
                        let chosen: Vec<u64> = held.skip(skip as usize).take(count as usize).collect();
                        for stretch in chosen.chunk_by(|a, b| a + 1 == *b) {
                            if oldest == Some(SegmentNumber(segment)) {
                                continue;
                            }
                            for entry in stretch {
                                live.insert(*entry, at);
                                copies.push((*entry, at));
                            }
                            let (first, last) = (stretch[0], *stretch.last().unwrap());
                            index.insert(LogIndex(first), LogIndex(last), stretch.len() as u64 * 10, at);
                        }
                    }
                    Step::Compact { ahead } => {
                        base = (base + ahead).min(last);
                        live = live.split_off(&(base + 1));
                        index.compact(LogIndex(base));
                    }
                    Step::NextSegment => segment += 1,
                }
                for (entry, at) in &copies {
                    let expected = live.get(entry) == Some(at);
                    let found = index.is_live(LogIndex(*entry), *at);
                    prop_assert_eq!(found, expected, "entry {} at {:?}", entry, at);
                }
                prop_assert_eq!(index.last().0, live.keys().last().copied().unwrap_or(base));
                prop_assert!(index.runs().windows(2).all(|pair| pair[0].last.next() == pair[1].first));
            }
        }
    }

    #[test]
    fn appending_in_one_segment_costs_one_run() {
        let mut index = GroupIndex::default();
        for entry in 1..=1_000 {
            index.append(LogIndex(entry), LogIndex(entry), 50, place(1, entry));
        }
        assert_eq!(index.runs().len(), 1);
        assert_eq!(index.live_bytes_in(SegmentNumber(1)), 50_000);
        index.compact(LogIndex(900));
        assert_eq!(index.live_bytes(), 5_000);
        assert!(!index.compact(LogIndex(900)), "the same base again is no news");
    }
}
