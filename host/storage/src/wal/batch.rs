//! What is written at once: a header, records, and zeroes up to the next sector.
//!
//! ```text
//! 0       4          8         12         16        24         32             40
//! +-------+----------+---------+----------+---------+----------+--------------+---
//! | magic | checksum | payload | payload  | segment | sequence | first record |
//! |       | of 8..72 | bytes   | checksum |         |          |              |
//! +-------+----------+---------+----------+---------+----------+--------------+---
//! 40                 48                56        60     64     72
//! +------------------+-----------------+---------+------+------+-------------------
//! | confirmed        | confirmed       | records | zero | salt | records, padding
//! | segment          | offset          |         |      |      |
//! +------------------+-----------------+---------+------+------+-------------------
//!
//! append    1 | group incarnation boot | hard state? | base | entries     replace from the first on
//! standing  2 | group incarnation boot | hard state? | base | whole? | damage? | entries  (never replace)
//! base      3 | group | through                                       entries up to here are not needed
//! reset     4 | group | after                                         no entry is valid, the next is after
//! forget    5 | group                                                 nothing of the group is valid
//! repaired  6 | group                                                 its damage is mended
//! ```
//!
//! `confirmed` is the place up to which the log was durable when the batch was made: whatever cannot
//! be read before the place that any later batch confirms was there once, and is damage.
//!
//! Relies on the codec. Promises that a batch is read only where both checksums, segment, salt and
//! length are right. Does not know what is live.

use bytes::Bytes;
use quorate_types::codec::{DecodeError, Reader, Writer};
use quorate_types::{BootNumber, ENTRY_BYTES_MAX, Entry, GroupId, Incarnation, LogIndex};

use super::segment::{LogOffset, SECTOR_BYTES, SegmentNumber};
use super::{Damage, DamageKind};

const MAGIC: u32 = u32::from_le_bytes(*b"QRTB");
pub(super) const BATCH_HEADER_BYTES: usize = 72;

/// The most bytes that are gathered before a batch is written; one record may go beyond.
pub(super) const BATCH_BYTES_TARGET: usize = 8 << 20;
/// The greatest protocol state of one group: votes and terms, far below this.
pub const HARD_STATE_BYTES_MAX: usize = 64 << 10;
/// The greatest batch: the target, one greatest entry beyond it, and room for the fields around it.
pub(super) const BATCH_BYTES_MAX: usize = BATCH_BYTES_TARGET + ENTRY_BYTES_MAX + HARD_STATE_BYTES_MAX + 4_096;
/// The most records in a batch, so that a count from outside allocates nothing.
const RECORDS_MAX: usize = BATCH_BYTES_MAX / 9;

const _: () = assert!(BATCH_BYTES_MAX < u32::MAX as usize);

/// What a batch says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BatchHeader {
    pub(super) payload_bytes: u32,
    payload_checksum: u32,
    pub(super) segment: SegmentNumber,
    /// Grows by one with each batch of the log.
    pub(super) sequence: u64,
    /// The number of its first record; records are counted through the whole log.
    pub(super) first_record: u64,
    /// The log was durable up to here.
    pub(super) confirmed: LogOffset,
    pub(super) records: u32,
    pub(super) salt: u64,
}

fn u32_at(bytes: &[u8; BATCH_HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes were taken"))
}

fn u64_at(bytes: &[u8; BATCH_HEADER_BYTES], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes were taken"))
}

impl BatchHeader {
    /// Reads a header whose magic, checksum and bounds are right; `None` for any other bytes.
    pub(super) fn decode(bytes: &[u8; BATCH_HEADER_BYTES]) -> Option<Self> {
        if u32_at(bytes, 0) != MAGIC || u32_at(bytes, 4) != crc32c::crc32c(&bytes[8..]) {
            return None;
        }
        let header = Self {
            payload_bytes: u32_at(bytes, 8),
            payload_checksum: u32_at(bytes, 12),
            segment: SegmentNumber(u64_at(bytes, 16)),
            sequence: u64_at(bytes, 24),
            first_record: u64_at(bytes, 32),
            confirmed: LogOffset { segment: SegmentNumber(u64_at(bytes, 40)), offset: u64_at(bytes, 48) },
            records: u32_at(bytes, 56),
            salt: u64_at(bytes, 64),
        };
        let bounded =
            header.payload_bytes as usize <= BATCH_BYTES_MAX && header.records as usize <= RECORDS_MAX;
        bounded.then_some(header)
    }

    fn write(&self, out: &mut [u8; BATCH_HEADER_BYTES]) {
        out[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        out[8..12].copy_from_slice(&self.payload_bytes.to_le_bytes());
        out[12..16].copy_from_slice(&self.payload_checksum.to_le_bytes());
        out[16..24].copy_from_slice(&self.segment.0.to_le_bytes());
        out[24..32].copy_from_slice(&self.sequence.to_le_bytes());
        out[32..40].copy_from_slice(&self.first_record.to_le_bytes());
        out[40..48].copy_from_slice(&self.confirmed.segment.0.to_le_bytes());
        out[48..56].copy_from_slice(&self.confirmed.offset.to_le_bytes());
        out[56..60].copy_from_slice(&self.records.to_le_bytes());
        out[60..64].fill(0);
        out[64..72].copy_from_slice(&self.salt.to_le_bytes());
        let checksum = crc32c::crc32c(&out[8..]);
        out[4..8].copy_from_slice(&checksum.to_le_bytes());
    }

    /// Bytes in the segment, padding included.
    pub(super) fn stored_bytes(&self) -> u64 {
        padded(BATCH_HEADER_BYTES + self.payload_bytes as usize)
    }

    /// Whether these are the bytes that the header speaks of.
    pub(super) fn vouches_for(&self, payload: &[u8]) -> bool {
        payload.len() == self.payload_bytes as usize && crc32c::crc32c(payload) == self.payload_checksum
    }
}

fn padded(bytes: usize) -> u64 {
    (bytes as u64).next_multiple_of(SECTOR_BYTES)
}

/// What [`BatchBuilder::seal`] needs to know of the batch's place.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchPlace {
    pub(super) segment: SegmentNumber,
    pub(super) sequence: u64,
    pub(super) first_record: u64,
    pub(super) confirmed: LogOffset,
    pub(super) salt: u64,
}

/// Gathers records in one buffer that serves batch after batch.
#[derive(Debug, Default)]
pub(super) struct BatchBuilder {
    out: Writer,
    records: u32,
}

impl BatchBuilder {
    pub(super) fn clear(&mut self) {
        self.out.clear();
        self.out.raw(&[0; BATCH_HEADER_BYTES]);
        self.records = 0;
    }

    pub(super) fn records(&self) -> u32 {
        self.records
    }

    /// Bytes so far, header included.
    pub(super) fn len(&self) -> usize {
        self.out.len()
    }

    /// Bytes the batch will take in the segment.
    pub(super) fn stored_bytes(&self) -> u64 {
        padded(self.out.len())
    }

    pub(super) fn push(&mut self, record: &RecordRef<'_>) {
        record.encode(&mut self.out);
        self.records += 1;
    }

    /// Writes header and padding; the bytes are what goes to the segment.
    pub(super) fn seal(&mut self, place: BatchPlace) -> &[u8] {
        let payload = &self.out.as_slice()[BATCH_HEADER_BYTES..];
        let header = BatchHeader {
            payload_bytes: u32::try_from(payload.len()).expect("a batch is bounded far below 4 GiB"),
            payload_checksum: crc32c::crc32c(payload),
            segment: place.segment,
            sequence: place.sequence,
            first_record: place.first_record,
            confirmed: place.confirmed,
            records: self.records,
            salt: place.salt,
        };
        let padding = usize::try_from(header.stored_bytes()).expect("a batch is bounded") - self.out.len();
        self.out.raw(&[0; SECTOR_BYTES as usize][..padding]);
        let head = self.out.as_mut_slice().first_chunk_mut().expect("clear left room for the header");
        header.write(head);
        self.out.as_slice()
    }
}

/// Whose record it is, and of which life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) group: GroupId,
    pub(super) incarnation: Incarnation,
    pub(super) boot: BootNumber,
}

/// What is known of a group apart from its entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) hard_state: Option<Bytes>,
    /// Entries up to here are not needed.
    pub(super) base: LogIndex,
    /// Nothing that came before is valid; otherwise the rest stays as it is.
    pub(super) whole: bool,
    pub(super) damage: Option<Damage>,
}

/// A record to be written; borrows what it says.
#[derive(Clone, Copy, Debug)]
pub(super) enum RecordRef<'a> {
    Append { owner: Owner, hard_state: Option<&'a Bytes>, base: LogIndex, entries: &'a [Entry] },
    Standing { owner: Owner, standing: &'a Standing, entries: &'a [Entry] },
    Base { group: GroupId, through: LogIndex },
    Reset { group: GroupId, after: LogIndex },
    Forget { group: GroupId },
    Repaired { group: GroupId },
}

/// A record that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    Append { owner: Owner, hard_state: Option<Bytes>, base: LogIndex, entries: Vec<Entry> },
    Standing { owner: Owner, standing: Standing, entries: Vec<Entry> },
    Base { group: GroupId, through: LogIndex },
    Reset { group: GroupId, after: LogIndex },
    Forget { group: GroupId },
    Repaired { group: GroupId },
}

/// Bytes of a record around its entries and hard state, at most.
pub(super) const RECORD_OVERHEAD_BYTES: usize = 96;

impl RecordRef<'_> {
    fn encode(&self, out: &mut Writer) {
        match *self {
            Self::Append { owner, hard_state, base, entries } => {
                out.u8(1);
                owner.encode(out);
                encode_optional(hard_state, out);
                out.u64(base.0);
                encode_entries(entries, out);
            }
            Self::Standing { owner, standing, entries } => {
                out.u8(2);
                owner.encode(out);
                encode_optional(standing.hard_state.as_ref(), out);
                out.u64(standing.base.0);
                out.u8(standing.whole.into());
                encode_damage(standing.damage.as_ref(), out);
                encode_entries(entries, out);
            }
            Self::Base { group, through } => {
                out.u8(3);
                out.u64(group.0);
                out.u64(through.0);
            }
            Self::Reset { group, after } => {
                out.u8(4);
                out.u64(group.0);
                out.u64(after.0);
            }
            Self::Forget { group } => {
                out.u8(5);
                out.u64(group.0);
            }
            Self::Repaired { group } => {
                out.u8(6);
                out.u64(group.0);
            }
        }
    }
}

impl Record {
    fn decode(from: &mut Reader) -> Result<Self, DecodeError> {
        match from.u8("log record")? {
            1 => Ok(Self::Append {
                owner: Owner::decode(from)?,
                hard_state: decode_optional(from)?,
                base: LogIndex(from.u64("append base")?),
                entries: decode_entries(from)?,
            }),
            2 => {
                let owner = Owner::decode(from)?;
                let hard_state = decode_optional(from)?;
                let base = LogIndex(from.u64("standing base")?);
                let whole = from.flag("standing extent")?;
                let damage = decode_damage(from)?;
                let entries = decode_entries(from)?;
                Ok(Self::Standing { owner, standing: Standing { hard_state, base, whole, damage }, entries })
            }
            3 => Ok(Self::Base {
                group: GroupId(from.u64("base group")?),
                through: LogIndex(from.u64("base index")?),
            }),
            4 => Ok(Self::Reset {
                group: GroupId(from.u64("reset group")?),
                after: LogIndex(from.u64("reset index")?),
            }),
            5 => Ok(Self::Forget { group: GroupId(from.u64("forgotten group")?) }),
            6 => Ok(Self::Repaired { group: GroupId(from.u64("repaired group")?) }),
            other => Err(DecodeError::Unknown { what: "log record", value: other.into() }),
        }
    }
}

/// Reads all records of a payload.
pub(super) fn decode_records(header: &BatchHeader, payload: Bytes) -> Result<Vec<Record>, DecodeError> {
    let mut from = Reader::new(payload);
    let mut records = Vec::new();
    for _ in 0..header.records {
        records.push(Record::decode(&mut from)?);
    }
    from.end()?;
    Ok(records)
}

impl Owner {
    fn encode(&self, out: &mut Writer) {
        out.u64(self.group.0);
        out.u64(self.incarnation.0);
        out.u64(self.boot.0);
    }

    fn decode(from: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            group: GroupId(from.u64("record group")?),
            incarnation: Incarnation(from.u64("record incarnation")?),
            boot: BootNumber(from.u64("record boot number")?),
        })
    }
}

fn encode_optional(value: Option<&Bytes>, out: &mut Writer) {
    out.u8(value.is_some().into());
    if let Some(value) = value {
        out.bytes(value);
    }
}

/// The value is copied: it outlives the entries that came with it, and must not keep their buffer.
fn decode_optional(from: &mut Reader) -> Result<Option<Bytes>, DecodeError> {
    if !from.flag("hard state presence")? {
        return Ok(None);
    }
    let shared = from.bytes(HARD_STATE_BYTES_MAX, "hard state")?;
    Ok(Some(Bytes::copy_from_slice(&shared)))
}

fn encode_entries(entries: &[Entry], out: &mut Writer) {
    out.u32(u32::try_from(entries.len()).expect("a batch is bounded, and so are its entries"));
    for entry in entries {
        entry.encode(out);
    }
}

fn decode_entries(from: &mut Reader) -> Result<Vec<Entry>, DecodeError> {
    let count = from.count(BATCH_BYTES_MAX / Entry::HEADER_BYTES, "entries")?;
    let mut entries = Vec::with_capacity(count.min(from.left() / Entry::HEADER_BYTES));
    for _ in 0..count {
        entries.push(Entry::decode(from)?);
    }
    Ok(entries)
}

fn encode_damage(damage: Option<&Damage>, out: &mut Writer) {
    match damage {
        None => out.u8(0),
        Some(damage) => {
            out.u8(match damage.kind {
                DamageKind::Corrupt => 1,
                DamageKind::SegmentMissing => 2,
                DamageKind::LogMissing => 3,
                DamageKind::EntriesMissing => 4,
            });
            out.u64(damage.segment);
            out.u64(damage.offset);
            out.u64(damage.bytes);
        }
    }
}

fn decode_damage(from: &mut Reader) -> Result<Option<Damage>, DecodeError> {
    let kind = match from.u8("damage")? {
        0 => return Ok(None),
        1 => DamageKind::Corrupt,
        2 => DamageKind::SegmentMissing,
        3 => DamageKind::LogMissing,
        4 => DamageKind::EntriesMissing,
        other => return Err(DecodeError::Unknown { what: "damage", value: other.into() }),
    };
    Ok(Some(Damage {
        kind,
        segment: from.u64("damaged segment")?,
        offset: from.u64("damage offset")?,
        bytes: from.u64("damage length")?,
    }))
}

#[cfg(test)]
mod tests;
