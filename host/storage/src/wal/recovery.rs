//! Opens a log: reads all segments in order and rebuilds what each group has.
//!
//! For each segment but the last, the next one's header says where it ended, and that all of it was
//! durable; so whatever cannot be read before that place is damage. In the last segment a batch that
//! cannot be read is damage if any batch behind it confirms that place, and the torn tail otherwise:
//!
//! ```text
//! | batch 1 | batch 2 | ??????? | batch 4, confirmed: end of 3 |     3 was durable: damage
//! | batch 1 | batch 2 | ??????? | batch 4, confirmed: end of 2 |     3 and 4 were not: cut after 2
//! ```
//!
//! Damage may have held records of any group, so every group gets it, with the entries it had at that
//! place (a state it once was in) and the last hard state that can be read. What was recovered is then
//! written whole to a new segment, and the damaged ones are set aside under another name, so that the
//! log is well-formed again while each group's damage stays on record.
//!
//! Relies on the batch format. Promises that all it reports is durable before it is reported. Does not
//! know how a replica repairs itself.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use quorate_types::{Entry, GroupId, LogIndex};

use super::batch::{BatchHeader, Owner, Record, Standing, decode_records};
use super::files::{SegmentFiles, SegmentStart, Spare};
use super::index::{GroupIndex, RecordPlace};
use super::reader::SegmentReader;
use super::segment::{
    BATCHES_OFFSET, FORMAT_VERSION, FileRole, HeaderRead, LogOffset, SECTOR_BYTES, SegmentHeader,
    SegmentNumber,
};
use super::truncation::{Extent, Move};
use super::{Closed, Damage, DamageKind, RecoveredGroup, Recovery, Wal, WalOptions};
use crate::{Disk, DiskFile, Identity, WalError};

/// A segment file as it was found.
struct Found<F> {
    number: SegmentNumber,
    file: Arc<F>,
    /// `None` if it cannot be read.
    header: Option<SegmentHeader>,
    length: u64,
}

/// The files of a log directory.
struct Survey<F> {
    /// In order.
    segments: Vec<Found<F>>,
    spares: Vec<Spare>,
}

/// Opens the log; see [`Wal::open`].
pub(super) fn open<D: Disk>(
    disk: D,
    identity: Identity,
    options: WalOptions,
) -> Result<(Wal<D>, Recovery), WalError> {
    let Survey { segments: found, spares } = survey(&disk, &identity)?;
    let mut replay = Replay::default();
    let mut ends = Vec::new();
    for (at, segment) in found.iter().enumerate() {
        ends.push(read_segment(&mut replay, segment, found.get(at + 1))?);
    }
    let is_new = found.is_empty();
    if is_new && !options.expected_groups.is_empty() {
        replay.damage(Damage { kind: DamageKind::LogMissing, segment: 0, offset: 0, bytes: 0 });
    }
    let expected: &[GroupId] = if replay.damage.is_some() { &options.expected_groups } else { &[] };
    for group in expected {
        replay.group(*group);
    }
    if let Some(last) = found.last() {
        // Whatever was readable is about to be reported, and may so far lie in the page cache only.
        let flushed = last.file.flush().and_then(|()| disk.sync_directory());
        flushed.map_err(|source| WalError::Final {
            operation: "flush",
            file: last.number.file_name(),
            source,
        })?;
    }
    let start = SegmentStart {
        number: replay.last_segment.next(),
        previous_end: LogOffset { segment: replay.last_segment, offset: ends.last().copied().unwrap_or(0) },
        first_sequence: replay.next_sequence,
        first_record: replay.next_record,
    };
    let mut recovery =
        Recovery { damage: replay.damage, torn_bytes: replay.torn_bytes, is_new, groups: BTreeMap::new() };
    let (index, groups, needs_rewriting) = replay.finish();
    recovery.groups = groups;
    let closed = found.into_iter().zip(ends).map(|(found, end)| found.close(end)).collect();
    let files = SegmentFiles::new(disk, identity, &options, spares)?;
    // No file that may hold a torn tail is written again: the log goes on in a new segment.
    let mut wal = Wal::assemble(Parts { files, options, index, closed, start })?;
    if needs_rewriting {
        wal.rewrite(&recovery)?;
    }
    Ok((wal, recovery))
}

/// Lists and checks all files before anything is changed; segments come in order.
fn survey<D: Disk>(disk: &D, identity: &Identity) -> Result<Survey<D::File>, WalError> {
    let fault = |operation, file: &str| {
        let file = file.to_owned();
        move |source| WalError::Io { operation, file, source }
    };
    let (mut numbers, mut spares) = (Vec::new(), Vec::new());
    for name in disk.list().map_err(fault("list", "directory"))? {
        match FileRole::of(&name) {
            FileRole::Segment(number) => numbers.push(number),
            FileRole::Spare(_) => spares.push(Spare { name, allocated: 0 }),
            FileRole::Other => {}
        }
    }
    numbers.sort_unstable();
    let mut found = Vec::with_capacity(numbers.len());
    for number in numbers {
        let name = number.file_name();
        let file = disk.open(&name).map_err(fault("open", &name))?;
        let header = match SegmentHeader::read(&file).map_err(fault("read", &name))? {
            HeaderRead::Version(other) => {
                return Err(WalError::UnsupportedVersion {
                    file: name,
                    found: other,
                    supported: FORMAT_VERSION,
                });
            }
            HeaderRead::Valid(header) if header.identity != *identity => {
                return Err(WalError::WrongIdentity {
                    file: name,
                    found: header.identity,
                    expected: *identity,
                });
            }
            HeaderRead::Valid(header) if header.number == number => Some(header),
            HeaderRead::Valid(_) | HeaderRead::Unreadable => None,
        };
        let length = file.len().map_err(fault("read", &name))?;
        found.push(Found { number, file: Arc::new(file), header, length });
    }
    Ok(Survey { segments: found, spares })
}

impl<F> Found<F> {
    fn close(self, end: u64) -> Closed<F> {
        let salt = self.header.map_or(0, |header| header.salt);
        // How much of the file has space is not known any more.
        Closed { number: self.number, file: self.file, end, allocated: 0, length: self.length, salt }
    }
}

/// Replays one segment; returns where it ends.
fn read_segment<F: DiskFile>(
    replay: &mut Replay,
    segment: &Found<F>,
    next: Option<&Found<F>>,
) -> Result<u64, WalError> {
    let fault = |source| WalError::Io { operation: "read", file: segment.number.file_name(), source };
    let number = segment.number;
    let damage = |offset, bytes| Damage { kind: DamageKind::Corrupt, segment: number.0, offset, bytes };
    match &segment.header {
        None => replay.damage(damage(0, BATCHES_OFFSET)),
        Some(header) => {
            if replay.segments > 0 && header.previous_end.segment != replay.last_segment {
                let segment = header.previous_end.segment.0;
                replay.damage(Damage { kind: DamageKind::SegmentMissing, segment, offset: 0, bytes: 0 });
            }
            replay.next_sequence = replay.next_sequence.max(header.first_sequence);
            replay.next_record = replay.next_record.max(header.first_record);
        }
    }
    replay.segments += 1;
    replay.last_segment = number;
    let previous_end = next.and_then(|next| next.header).map(|header| header.previous_end);
    let known_end = previous_end.filter(|end| end.segment == number).map(|end| end.offset);
    let salt = segment.header.map(|header| header.salt);
    let mut reader = SegmentReader::new(&*segment.file, number, salt, known_end.unwrap_or(segment.length))
        .map_err(fault)?;
    let mut at = BATCHES_OFFSET;
    while known_end.is_none_or(|end| at < end) {
        if let Some((header, payload)) = reader.batch_at(at).map_err(fault)?
            && (segment.header.is_none() || header.sequence == replay.next_sequence)
        {
            match decode_records(&header, payload) {
                Ok(records) => replay.apply(number, &header, records),
                // The bytes are what was written, and were not a record even then.
                Err(_) => replay.damage(damage(at, header.stored_bytes())),
            }
            replay.count(&header);
            at += header.stored_bytes();
            continue;
        }
        match hole_at(&mut reader, number, at, known_end, replay).map_err(fault)? {
            Hole::Damage { resume } => {
                replay.damage(damage(at, resume - at));
                at = resume;
            }
            Hole::TornTail { bytes } => {
                replay.torn_bytes += bytes;
                break;
            }
        }
    }
    Ok(at)
}

/// What a place is where no batch can be read.
enum Hole {
    /// Something was durable there; reading goes on at `resume`.
    Damage { resume: u64 },
    /// Nothing was ever confirmed there.
    TornTail { bytes: u64 },
}

fn hole_at<F: DiskFile>(
    reader: &mut SegmentReader<'_, F>,
    number: SegmentNumber,
    at: u64,
    known_end: Option<u64>,
    replay: &mut Replay,
) -> std::io::Result<Hole> {
    let here = LogOffset { segment: number, offset: at };
    let least = replay.next_sequence;
    let later = |header: &BatchHeader| header.sequence >= least;
    let next = reader.find(at + SECTOR_BYTES, later)?;
    let confirmed = match known_end {
        Some(_) => true,
        None => reader.find(at + SECTOR_BYTES, |header| later(header) && header.confirmed > here)?.is_some(),
    };
    if !confirmed {
        let bytes = next.map_or(0, |(offset, header)| offset + header.stored_bytes() - at);
        return Ok(Hole::TornTail { bytes });
    }
    if let Some((resume, header)) = next {
        replay.next_sequence = header.sequence;
        return Ok(Hole::Damage { resume });
    }
    Ok(Hole::Damage { resume: known_end.unwrap_or_else(|| reader.limit()) })
}

/// What the records read so far add up to.
#[derive(Default)]
struct Replay {
    groups: BTreeMap<GroupId, Replayed>,
    /// The first damage.
    damage: Option<Damage>,
    torn_bytes: u64,
    segments: u64,
    last_segment: SegmentNumber,
    next_sequence: u64,
    next_record: u64,
}

#[derive(Default)]
struct Replayed {
    index: GroupIndex,
    entries: BTreeMap<LogIndex, Entry>,
    /// Damage was met after the entries: no later one can be put behind them.
    frozen: bool,
}

impl Replay {
    /// Every group known so far keeps the entries it has, and takes later ones only after a new start.
    fn damage(&mut self, damage: Damage) {
        self.damage.get_or_insert(damage);
        for group in self.groups.values_mut() {
            group.index.damage.get_or_insert(damage);
            group.frozen = true;
        }
    }

    /// A group; one that is first seen behind damage may have lost what came before.
    fn group(&mut self, group: GroupId) -> &mut Replayed {
        let damage = self.damage;
        self.groups.entry(group).or_insert_with(|| Replayed {
            index: GroupIndex::damaged(damage),
            frozen: damage.is_some(),
            entries: BTreeMap::new(),
        })
    }

    fn count(&mut self, header: &BatchHeader) {
        self.next_sequence = header.sequence + 1;
        self.next_record = self.next_record.max(header.first_record + u64::from(header.records));
    }

    fn apply(&mut self, segment: SegmentNumber, header: &BatchHeader, records: Vec<Record>) {
        for (record, number) in records.into_iter().zip(header.first_record..) {
            let place = RecordPlace { segment, record: number };
            match record {
                Record::Append { owner, hard_state, base, entries } => {
                    self.owned(owner, |group| {
                        group.index.take_base(base, segment);
                        group.index.take_hard_state(hard_state, segment);
                        group.append(entries, place);
                    });
                }
                Record::Standing { owner, standing, entries } => {
                    if standing.whole {
                        self.groups.insert(owner.group, Replayed::default());
                    }
                    self.owned(owner, |group| group.stand(standing, entries, place));
                }
                Record::Base { group, through } => {
                    let group = self.group(group);
                    group.index.take_base(through, segment);
                }
                Record::Reset { group, after } => {
                    let group = self.group(group);
                    group.entries.clear();
                    group.frozen = false;
                    group.index.reset(after);
                    group.index.base_segment = Some(segment);
                }
                Record::Forget { group } => {
                    self.groups.remove(&group);
                }
                Record::Repaired { group } => {
                    let group = self.group(group);
                    if !group.frozen {
                        group.index.damage = None;
                    }
                }
            }
        }
    }

    /// Hands a record to its group, unless it is of an earlier life.
    fn owned(&mut self, owner: Owner, body: impl FnOnce(&mut Replayed)) {
        let damage = self.damage;
        let group = self.group(owner.group);
        if owner.incarnation < group.index.incarnation {
            return;
        }
        let before = group.index.incarnation;
        group.index.take_owner(owner);
        if owner.incarnation > before && before.0 > 0 {
            // A new life; its first records may be what was lost.
            group.entries.clear();
            group.index.damage = damage;
            group.frozen = damage.is_some();
        }
        body(group);
    }

    /// The index, what to report, and whether the log must be written anew.
    fn finish(self) -> (BTreeMap<GroupId, GroupIndex>, BTreeMap<GroupId, RecoveredGroup>, bool) {
        let (mut index, mut groups) = (BTreeMap::new(), BTreeMap::new());
        let mut needs_rewriting = self.damage.is_some();
        for (id, mut group) in self.groups {
            needs_rewriting |= group.settle();
            groups.insert(
                id,
                RecoveredGroup {
                    incarnation: group.index.incarnation,
                    boot: group.index.boot,
                    hard_state: group.index.hard_state.clone(),
                    base: group.index.base,
                    entries: group.entries.into_values().collect(),
                    damage: group.index.damage,
                },
            );
            index.insert(id, group.index);
        }
        (index, groups, needs_rewriting)
    }
}

fn encoded_len(entries: &[Entry]) -> u64 {
    entries.iter().map(|entry| entry.encoded_len() as u64).sum()
}

impl Replayed {
    fn append(&mut self, entries: Vec<Entry>, place: RecordPlace) {
        let (Some(first), Some(last), false) = (entries.first(), entries.last(), self.frozen) else {
            return;
        };
        self.index.append(first.index(), last.index(), encoded_len(&entries), place);
        self.entries.split_off(&first.index());
        self.entries.extend(entries.into_iter().map(|entry| (entry.index(), entry)));
    }

    fn stand(&mut self, standing: Standing, entries: Vec<Entry>, place: RecordPlace) {
        self.index.take_hard_state(standing.hard_state, place.segment);
        self.index.compact(standing.base);
        if self.frozen && !standing.whole {
            self.index.stand_in(place.segment);
            return;
        }
        self.frozen = false;
        self.index.damage = standing.damage;
        if let (Some(first), Some(last)) = (entries.first(), entries.last()) {
            self.index.insert(first.index(), last.index(), encoded_len(&entries), place);
            self.entries.extend(entries.into_iter().map(|entry| (entry.index(), entry)));
        }
        self.index.stand_in(place.segment);
    }

    /// Drops what the base released and what lies behind a hole; returns whether a hole was found.
    fn settle(&mut self) -> bool {
        self.entries = self.entries.split_off(&self.index.base.next());
        let mut expected = self.index.base.next();
        let hole = self.entries.keys().find(|index| {
            let follows = **index == expected;
            expected = expected.next();
            !follows
        });
        let Some(hole) = hole.copied() else {
            return false;
        };
        let entries = self.entries.split_off(&hole);
        self.index.truncate_from(hole);
        if !self.frozen {
            let (kind, bytes) = (DamageKind::EntriesMissing, entries.len() as u64);
            let segment = self.index.state_segment.map_or(0, |segment| segment.0);
            self.index.damage.get_or_insert(Damage { kind, segment, offset: 0, bytes });
        }
        true
    }
}

/// Parts of a log that was read, for [`Wal::assemble`].
pub(super) struct Parts<D: Disk> {
    pub(super) files: SegmentFiles<D>,
    pub(super) options: WalOptions,
    pub(super) index: BTreeMap<GroupId, GroupIndex>,
    pub(super) closed: VecDeque<Closed<D::File>>,
    pub(super) start: SegmentStart,
}

impl<D: Disk> Wal<D> {
    /// Writes all that was recovered to the end of the log, whole, and sets the damaged files aside.
    fn rewrite(&mut self, recovery: &Recovery) -> Result<(), WalError> {
        let mut moves = Vec::new();
        for (group, recovered) in &recovery.groups {
            let mut left = recovered.entries.as_slice();
            let mut extent = Extent::Whole;
            loop {
                let (now, later) = left.split_at(self.fitting(left));
                moves.push(Move { group: *group, extent, entries: now.to_vec() });
                (left, extent) = (later, Extent::Part);
                if left.is_empty() {
                    break;
                }
            }
        }
        self.write_moves(&moves)?;
        self.flush()?;
        let numbers: Vec<SegmentNumber> = self.closed.iter().map(|closed| closed.number).collect();
        let older = |number: &SegmentNumber| !self.index.values().any(|index| index.is_needed_in(*number));
        let damaged: Vec<SegmentNumber> = numbers.into_iter().filter(older).collect();
        self.closed.retain(|closed| !damaged.contains(&closed.number));
        self.files.set_aside(damaged.into_iter())
    }
}
