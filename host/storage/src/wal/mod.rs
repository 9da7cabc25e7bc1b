//! The write-ahead log that all groups of a node share.
//!
//! A batch of many groups' records is one write, and one flush makes all of it durable. Segments are
//! files of a fixed length whose space is set aside before it is written, so that a flush carries no
//! metadata. When a checkpoint makes entries dispensable ([`Wal::compact`]), [`Wal::maintain`] copies
//! what is still live in the oldest segment to the end of the log, flushes, and only then uses the file
//! again.
//!
//! ```text
//!  oldest                                               active
//! +-----------+   +-----------+   +-----------+   +----------------+
//! | segment 3 |   | segment 4 |   | segment 5 |   | segment 6      |
//! | 2 live    |   |           |   |           |   | .......|end    |
//! +-----+-----+   +-----------+   +-----------+   +--------^-------+
//!       +-------------- live records move here ------------+      then 3 becomes spare, later 7
//! ```
//!
//! Relies on a [`Disk`] and on the batch format. Promises, after [`Wal::open`]: whatever was flushed is
//! there, in each group's order; nothing is there that was not appended; a torn tail is cut; anything
//! else that cannot be read is reported as [`Damage`] until the owner repairs it; and a log of another
//! owner or format is refused before anything is changed. Knows no protocol and no clock.

mod batch;
mod check;
mod files;
mod index;
mod reader;
mod recovery;
mod report;
mod segment;
mod truncation;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use quorate_types::{BootNumber, Entry, GroupId, Incarnation, LogIndex, Position};

pub use batch::HARD_STATE_BYTES_MAX;
pub use report::{Damage, DamageKind, RecoveredGroup, Recovery};

use batch::{BATCH_BYTES_TARGET, BatchBuilder, BatchPlace, Owner, RECORD_OVERHEAD_BYTES, RecordRef};
use check::Tail;
use files::{SegmentFiles, SegmentStart};
use index::{GroupIndex, RecordPlace};
use segment::{BATCHES_OFFSET, LogOffset, SECTOR_BYTES, SegmentNumber};
use truncation::Truncation;

use crate::{Disk, DiskFile, Identity, WalError};

/// Space is set aside in steps of this many bytes, each well below a millisecond of work.
const ALLOCATE_BYTES: u64 = 1 << 20;
/// Marks in one batch, so that it stays within its bound.
const MARKS_PER_BATCH_MAX: usize = 16_384;
/// The least segment: its header and a few sectors.
const SEGMENT_BYTES_MIN: u64 = BATCHES_OFFSET + 16 * SECTOR_BYTES;

/// How the log is laid out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalOptions {
    /// Length of a segment in bytes, at least 16 KiB; a greater record gets a segment of its own size.
    pub segment_bytes: u64,
    /// Stands in every batch that this start writes. Drawn at random, so that no client can put bytes
    /// into an entry that look like a batch.
    pub salt: u64,
    /// Closed segments that may lie there before live records are copied to free the oldest.
    pub segments_kept: usize,
    /// Groups that the node is known to run. If the log is damaged, those it does not know at all are
    /// reported as damaged too, since their only records may be what was lost.
    pub expected_groups: Vec<GroupId>,
}

impl Default for WalOptions {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, salt: 0, segments_kept: 4, expected_groups: Vec::new() }
    }
}

/// What one group adds to the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupAppend {
    /// The group.
    pub group: GroupId,
    /// The life of the replica's durable state; a greater one voids what the log held.
    pub incarnation: Incarnation,
    /// The start of the replica.
    pub boot: BootNumber,
    /// The protocol's durable variables, if they changed; at most [`HARD_STATE_BYTES_MAX`] bytes.
    pub hard_state: Option<Bytes>,
    /// Consecutive entries. They replace whatever the log holds from the first one's index on.
    pub entries: Vec<Entry>,
}

/// Counters since the log was opened, and its present size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WalStatistics {
    /// Batches written.
    pub appends: u64,
    /// Bytes written in batches, padding included.
    pub bytes: u64,
    /// Flushes that succeeded.
    pub flushes: u64,
    /// Bytes copied by [`Wal::maintain`].
    pub bytes_moved: u64,
    /// Segments that were freed.
    pub segments_freed: u64,
    /// Segments that hold records now.
    pub segments: u64,
    /// Bytes of entries that are live now, about.
    pub live_bytes: u64,
}

/// A change without records of its own yet; goes out before anything appended later.
#[derive(Clone, Copy, Debug)]
enum Mark {
    Base { group: GroupId, through: LogIndex },
    Reset { group: GroupId, after: LogIndex },
    Forget { group: GroupId },
    Repaired { group: GroupId },
}

/// The segment that is written.
#[derive(Debug)]
struct Active<F> {
    number: SegmentNumber,
    file: Arc<F>,
    /// Where the next batch goes.
    end: u64,
    /// Space is set aside up to here.
    allocated: u64,
    length: u64,
    salt: u64,
}

/// A segment that is not written any more.
#[derive(Debug)]
struct Closed<F> {
    number: SegmentNumber,
    file: Arc<F>,
    end: u64,
    allocated: u64,
    length: u64,
    salt: u64,
}

/// A change to the index that takes effect once its record is written.
#[derive(Debug)]
struct Appended {
    owner: Owner,
    base: LogIndex,
    hard_state: Option<Bytes>,
    /// First and last entry, and their encoded bytes.
    entries: Option<(LogIndex, LogIndex, u64)>,
    /// Which record of its batch.
    record: u64,
}

/// The write-ahead log of one node.
///
/// Invariants: every record before `confirmed` is durable; the index speaks of written records only;
/// marks that wait are written before any later record.
#[derive(Debug)]
pub struct Wal<D: Disk> {
    files: SegmentFiles<D>,
    options: WalOptions,
    active: Active<D::File>,
    closed: VecDeque<Closed<D::File>>,
    index: BTreeMap<GroupId, GroupIndex>,
    marks: Vec<Mark>,
    /// How many of the marks are in the batch being built.
    marks_in_batch: usize,
    builder: BatchBuilder,
    appended: Vec<Appended>,
    /// The last index of each group within the batch being checked.
    tails: BTreeMap<GroupId, Tail>,
    /// The base of its group at each item of the batch being checked.
    bases: Vec<LogIndex>,
    next_sequence: u64,
    next_record: u64,
    confirmed: LogOffset,
    truncation: Option<Truncation>,
    /// Something changed since the last pass over the segments began that may let one be freed.
    may_truncate: bool,
    /// The pass ends before this segment: what a pass copied, it does not copy again.
    pass_end: SegmentNumber,
    zeroes: Arc<[u8]>,
    counters: WalStatistics,
    failed: bool,
}

/// A flush that can run on another thread while batches are appended.
#[derive(Debug)]
#[must_use = "nothing is durable until it has run"]
pub struct FlushPending<F> {
    file: Arc<F>,
    name: String,
    through: LogOffset,
}

/// Proof that a flush succeeded.
#[derive(Debug)]
#[must_use = "the log takes note of it with finish_flush"]
pub struct FlushDone {
    through: LogOffset,
}

impl<F: DiskFile> FlushPending<F> {
    /// Makes durable all that was appended before it was made.
    ///
    /// # Errors
    ///
    /// [`WalError::Final`]: the process must end.
    pub fn run(self) -> Result<FlushDone, WalError> {
        match self.file.flush() {
            Ok(()) => Ok(FlushDone { through: self.through }),
            Err(source) => Err(WalError::Final { operation: "flush", file: self.name, source }),
        }
    }
}

impl<D: Disk> Wal<D> {
    /// Opens the log of `identity`, or makes one. What it then holds is durable.
    ///
    /// # Errors
    ///
    /// [`WalError::WrongIdentity`] and [`WalError::UnsupportedVersion`] before anything is changed,
    /// [`WalError::SegmentTooSmall`], and those of the disk.
    pub fn open(disk: D, identity: Identity, options: WalOptions) -> Result<(Self, Recovery), WalError> {
        if options.segment_bytes < SEGMENT_BYTES_MIN {
            return Err(WalError::SegmentTooSmall { given: options.segment_bytes, least: SEGMENT_BYTES_MIN });
        }
        let segment_bytes = options.segment_bytes.next_multiple_of(SECTOR_BYTES);
        recovery::open(disk, identity, WalOptions { segment_bytes, ..options })
    }

    /// Writes a batch at the end of the log without making it durable. A batch may be written in parts
    /// and may begin a new segment, which flushes the one before; after a crash, some first part of
    /// what was not flushed is there, in order.
    ///
    /// # Errors
    ///
    /// [`WalError::StaleIncarnation`], [`WalError::Gap`] and [`WalError::TooLarge`] before anything is
    /// written; [`WalError::DiskFull`], after which the same batch may be appended again; and final
    /// ones.
    pub fn append(&mut self, batch: &[GroupAppend]) -> Result<(), WalError> {
        self.check_usable()?;
        self.validate(batch)?;
        let active = self.active.number;
        let appended = self.append_checked(batch);
        self.may_truncate |= self.active.number > active;
        appended
    }

    fn append_checked(&mut self, batch: &[GroupAppend]) -> Result<(), WalError> {
        self.begin_batch()?;
        for (at, item) in batch.iter().enumerate() {
            let mut hard_state = item.hard_state.as_ref();
            let mut entries = item.entries.as_slice();
            loop {
                let (now, later) = entries.split_at(self.fitting(entries));
                self.push_append(item, self.bases[at], hard_state.take(), now);
                entries = later;
                if self.builder.len() >= self.batch_bytes_target() {
                    self.write_batch()?;
                    self.begin_batch()?;
                }
                if entries.is_empty() {
                    break;
                }
            }
        }
        self.write_batch()
    }

    /// Makes all that was appended durable; returns at once if it is.
    ///
    /// # Errors
    ///
    /// [`WalError::Final`]: what is durable cannot be told, and the process must end.
    pub fn flush(&mut self) -> Result<(), WalError> {
        self.check_usable()?;
        let Some(pending) = self.begin_flush() else {
            return Ok(());
        };
        let done = pending.run().inspect_err(|_| self.failed = true)?;
        self.finish_flush(&done);
        Ok(())
    }

    /// A flush of all that was appended so far, to run anywhere; `None` if all of it is durable. Give
    /// its [`FlushDone`] to [`Wal::finish_flush`]; if it fails, the process must end.
    #[must_use]
    pub fn begin_flush(&self) -> Option<FlushPending<D::File>> {
        let through = self.end();
        (through > self.confirmed).then(|| FlushPending {
            file: Arc::clone(&self.active.file),
            name: self.active.number.file_name(),
            through,
        })
    }

    /// Takes note of a flush that succeeded.
    pub fn finish_flush(&mut self, done: &FlushDone) {
        self.confirmed = self.confirmed.max(done.through);
        self.counters.flushes += 1;
    }

    /// Entries up to `through` are not needed any more, because a durable checkpoint holds them.
    ///
    /// This, [`Wal::reset`], [`Wal::forget`] and [`Wal::mark_repaired`] take effect at once and are
    /// written with whatever is written next; a crash before that is as if they had not been called.
    pub fn compact(&mut self, group: GroupId, through: LogIndex) {
        let Some(index) = self.index.get_mut(&group) else {
            return;
        };
        if index.compact(through) {
            self.marks.push(Mark::Base { group, through });
            self.may_truncate = true;
        }
    }

    /// No entry of the group is valid any more, because a durable snapshot that includes `after`
    /// replaced them all; the next entry comes after it. Ends damage.
    pub fn reset(&mut self, group: GroupId, after: Position) {
        self.index.entry(group).or_default().reset(after.index);
        self.marks.push(Mark::Reset { group, after: after.index });
        self.may_truncate = true;
    }

    /// The group was deleted: nothing the log holds of it is valid.
    pub fn forget(&mut self, group: GroupId) {
        if self.index.remove(&group).is_some() {
            self.marks.push(Mark::Forget { group });
            self.may_truncate = true;
        }
    }

    /// The replica made good, from its peers, whatever damage took: it is not reported any more.
    pub fn mark_repaired(&mut self, group: GroupId) {
        if let Some(index) = self.index.get_mut(&group)
            && index.damage.take().is_some()
        {
            self.marks.push(Mark::Repaired { group });
        }
    }

    /// Counters since opening, and the present size. Takes time with the number of groups.
    #[must_use]
    pub fn statistics(&self) -> WalStatistics {
        WalStatistics {
            segments: self.closed.len() as u64 + 1,
            live_bytes: self.index.values().map(GroupIndex::live_bytes).sum(),
            ..self.counters
        }
    }

    fn check_usable(&self) -> Result<(), WalError> {
        if self.failed { Err(WalError::Failed) } else { Ok(()) }
    }

    fn end(&self) -> LogOffset {
        LogOffset { segment: self.active.number, offset: self.active.end }
    }

    /// Checks everything that could be refused, before anything is written.
    fn validate(&mut self, batch: &[GroupAppend]) -> Result<(), WalError> {
        self.tails.clear();
        self.bases.clear();
        for item in batch {
            let group = item.group;
            let tail = self.tails.entry(group).or_insert_with(|| Tail::of(self.index.get(&group)));
            tail.accept(item)?;
            self.bases.push(tail.base);
        }
        Ok(())
    }

    fn batch_bytes_target(&self) -> usize {
        let capacity = self.options.segment_bytes - BATCHES_OFFSET;
        usize::try_from(capacity).map_or(BATCH_BYTES_TARGET, |capacity| capacity.min(BATCH_BYTES_TARGET))
    }

    /// How many of the entries fit into the batch; at least one, so that each gets its turn.
    fn fitting(&self, entries: &[Entry]) -> usize {
        let target = self.batch_bytes_target();
        let mut bytes = self.builder.len() + RECORD_OVERHEAD_BYTES;
        let beyond = entries.iter().position(|entry| {
            bytes += entry.encoded_len();
            bytes > target
        });
        beyond.map_or(entries.len(), |count| count.max(1))
    }

    /// Begins a batch with the marks that wait; writes them alone first where they are too many.
    fn begin_batch(&mut self) -> Result<(), WalError> {
        loop {
            self.builder.clear();
            self.appended.clear();
            self.marks_in_batch = self.marks.len().min(MARKS_PER_BATCH_MAX);
            for mark in &self.marks[..self.marks_in_batch] {
                self.builder.push(&mark.record());
            }
            if self.marks_in_batch == self.marks.len() {
                return Ok(());
            }
            self.write_built()?;
        }
    }

    fn push_append(
        &mut self,
        item: &GroupAppend,
        base: LogIndex,
        hard_state: Option<&Bytes>,
        entries: &[Entry],
    ) {
        let owner = Owner { group: item.group, incarnation: item.incarnation, boot: item.boot };
        let bytes = entries.iter().map(|entry| entry.encoded_len() as u64).sum();
        let range = entries.first().zip(entries.last());
        self.appended.push(Appended {
            owner,
            base,
            hard_state: hard_state.cloned(),
            entries: range.map(|(first, last)| (first.index(), last.index(), bytes)),
            record: self.builder.records().into(),
        });
        self.builder.push(&RecordRef::Append { owner, hard_state, base, entries });
    }

    /// Writes what was built, if anything, and brings the index up to date.
    fn write_batch(&mut self) -> Result<(), WalError> {
        if self.builder.records() == 0 {
            return Ok(());
        }
        let place = self.write_built()?;
        for appended in self.appended.drain(..) {
            let at = RecordPlace { record: place.record + appended.record, ..place };
            let index = self.index.entry(appended.owner.group).or_default();
            index.take_owner(appended.owner);
            index.take_base(appended.base, at.segment);
            index.take_hard_state(appended.hard_state, at.segment);
            if let Some((first, last, bytes)) = appended.entries {
                index.append(first, last, bytes, at);
            }
        }
        Ok(())
    }

    /// Writes the builder's bytes at the end of the log; returns the place of the first record.
    fn write_built(&mut self) -> Result<RecordPlace, WalError> {
        self.make_room(self.builder.stored_bytes())?;
        let place = BatchPlace {
            segment: self.active.number,
            sequence: self.next_sequence,
            first_record: self.next_record,
            confirmed: self.confirmed,
            salt: self.active.salt,
        };
        let records = u64::from(self.builder.records());
        let bytes = self.builder.seal(place);
        if let Err(source) = self.active.file.write_at(self.active.end, bytes) {
            self.failed = true;
            return Err(WalError::Final { operation: "write", file: self.active.number.file_name(), source });
        }
        self.active.end += bytes.len() as u64;
        self.counters.appends += 1;
        self.counters.bytes += bytes.len() as u64;
        self.next_sequence += 1;
        self.next_record += records;
        for mark in self.marks.drain(..self.marks_in_batch) {
            if let Mark::Base { group, .. } | Mark::Reset { group, .. } = mark
                && let Some(index) = self.index.get_mut(&group)
            {
                index.base_segment = Some(place.segment);
            }
        }
        self.marks_in_batch = 0;
        Ok(RecordPlace { segment: place.segment, record: place.first_record })
    }

    /// Sees to it that the active segment has space for `bytes` more bytes, set aside on the disk, so
    /// that a full disk is found before any byte of a batch is written.
    fn make_room(&mut self, bytes: u64) -> Result<(), WalError> {
        if self.active.end + bytes > self.active.length {
            self.roll(bytes)?;
        }
        while self.active.allocated < self.active.end + bytes {
            let from = self.active.allocated.max(self.active.end);
            let step = (self.active.length - from).min(self.zeroes.len() as u64);
            let zeroes = &self.zeroes[..usize::try_from(step).expect("a step is at most the zeroes' length")];
            if let Err(source) = self.active.file.write_at(from, zeroes) {
                let file = self.active.number.file_name();
                if source.kind() == io::ErrorKind::StorageFull {
                    return Err(WalError::DiskFull { file, bytes });
                }
                self.failed = true;
                return Err(WalError::Final { operation: "write", file, source });
            }
            self.active.allocated = from + step;
        }
        Ok(())
    }

    /// Closes the active segment, all of it durable, and begins another with space for `bytes`.
    fn roll(&mut self, bytes: u64) -> Result<(), WalError> {
        self.flush()?;
        let start = SegmentStart {
            number: self.active.number.next(),
            previous_end: self.end(),
            first_sequence: self.next_sequence,
            first_record: self.next_record,
        };
        let begun = self.files.begin_segment(start, bytes);
        let next = begun.inspect_err(|error| self.failed = error.is_final())?;
        let old = std::mem::replace(&mut self.active, next);
        self.closed.push_back(Closed {
            number: old.number,
            file: old.file,
            end: old.end,
            allocated: old.allocated,
            length: old.length,
            salt: old.salt,
        });
        self.confirmed = self.end();
        Ok(())
    }

    /// Puts a log that was read together with a new segment at its end.
    fn assemble(parts: recovery::Parts<D>) -> Result<Self, WalError> {
        let recovery::Parts { mut files, options, index, closed, start } = parts;
        let active = files.begin_segment(start, 0)?;
        let confirmed = LogOffset { segment: active.number, offset: active.end };
        let step = active.length.min(ALLOCATE_BYTES);
        let zeroes = vec![0; usize::try_from(step).expect("an allocation step is far below 4 GiB")].into();
        Ok(Self {
            files,
            options,
            active,
            may_truncate: !closed.is_empty(),
            closed,
            index,
            marks: Vec::new(),
            marks_in_batch: 0,
            builder: BatchBuilder::default(),
            appended: Vec::new(),
            tails: BTreeMap::new(),
            bases: Vec::new(),
            next_sequence: start.first_sequence,
            next_record: start.first_record,
            confirmed,
            truncation: None,
            pass_end: SegmentNumber::default(),
            zeroes,
            counters: WalStatistics::default(),
            failed: false,
        })
    }
}

impl Mark {
    fn record(&self) -> RecordRef<'static> {
        match *self {
            Self::Base { group, through } => RecordRef::Base { group, through },
            Self::Reset { group, after } => RecordRef::Reset { group, after },
            Self::Forget { group } => RecordRef::Forget { group },
            Self::Repaired { group } => RecordRef::Repaired { group },
        }
    }
}
