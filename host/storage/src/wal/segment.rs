//! Segment files: their names, their header, and places in the log.
//!
//! ```text
//! 0            4096          8192                                              length
//! +------------+-------------+---------+---------+---------+------------------+
//! | header     | header copy | batch   | batch   | batch   | zeroes, or what  |
//! |            |             |         |         |         | a recycled file  |
//! |            |             |         |         |         | held before      |
//! +------------+-------------+---------+---------+---------+------------------+
//!
//! header: 0 magic (8) | 8 version (4) | 12 checksum of 16..112 (4) | 16 cluster, node, incarnation (32)
//!         48 segment (8) | 56 salt (8) | 64 end of the segment before: segment, offset (16)
//!         80 first sequence (8) | 88 first record (8) | 96 length (8) | 104 zero (8)
//! ```
//!
//! Relies on the codec. Promises that a header is read only if its checksum is right, and that format
//! and owner can be told before anything else. The header is written twice, a page apart, so that one
//! bad page does not lose a segment. Does not know what batches hold.

use std::fmt;

use bytes::Bytes;
use quorate_types::codec::{DecodeError, Reader, Writer};

use crate::{DiskFile, Identity};

/// The unit that a disk writes whole; batches begin at multiples of it, so that no sector with
/// durable bytes is ever written again.
pub(super) const SECTOR_BYTES: u64 = 512;
/// Where the second copy of the header lies.
const HEADER_COPY_OFFSET: u64 = 4_096;
/// Where the first batch begins.
pub(super) const BATCHES_OFFSET: u64 = 8_192;

const MAGIC: [u8; 8] = *b"QRTEWAL\0";
pub(super) const FORMAT_VERSION: u32 = 1;
const HEADER_BYTES: usize = 112;
const CHECKED_FROM: usize = 16;

const _: () = assert!(BATCHES_OFFSET.is_multiple_of(SECTOR_BYTES));
const _: () = assert!(HEADER_COPY_OFFSET + HEADER_BYTES as u64 <= BATCHES_OFFSET);

const SEGMENT_PREFIX: &str = "wal-";
const SPARE_PREFIX: &str = "spare-";
const DAMAGED_PREFIX: &str = "damaged-";

/// A segment's place in the log, from 1; never used twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SegmentNumber(pub(super) u64);

impl SegmentNumber {
    pub(super) fn next(self) -> Self {
        Self(self.0 + 1)
    }

    pub(super) fn file_name(self) -> String {
        format!("{SEGMENT_PREFIX}{:016x}", self.0)
    }

    pub(super) fn spare_name(self) -> String {
        format!("{SPARE_PREFIX}{:016x}", self.0)
    }

    pub(super) fn damaged_name(self) -> String {
        format!("{DAMAGED_PREFIX}{:016x}", self.0)
    }
}

impl fmt::Display for SegmentNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What a file of the log directory is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileRole {
    /// A segment.
    Segment(SegmentNumber),
    /// A file to be used again.
    Spare(SegmentNumber),
    /// Anything else, a damaged segment that was set aside among it: left alone.
    Other,
}

impl FileRole {
    pub(super) fn of(name: &str) -> Self {
        let number = |text: &str| {
            let canonical = text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            canonical.then(|| u64::from_str_radix(text, 16).ok()).flatten().map(SegmentNumber)
        };
        if let Some(number) = name.strip_prefix(SEGMENT_PREFIX).and_then(number) {
            return Self::Segment(number);
        }
        name.strip_prefix(SPARE_PREFIX).and_then(number).map_or(Self::Other, Self::Spare)
    }
}

/// A place in the log: everything before it comes earlier. Offsets are in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LogOffset {
    pub(super) segment: SegmentNumber,
    pub(super) offset: u64,
}

/// What a segment says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) identity: Identity,
    pub(super) number: SegmentNumber,
    /// Stands in every batch of the segment; bytes inside an entry cannot guess it.
    pub(super) salt: u64,
    /// Where the segment before this one ended, all of it durable; segment 0 if there was none.
    pub(super) previous_end: LogOffset,
    /// The number of its first batch.
    pub(super) first_sequence: u64,
    /// The number of its first record.
    pub(super) first_record: u64,
    /// The file's length in bytes.
    pub(super) length: u64,
}

/// What the first bytes of a file are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeaderRead {
    /// A header of this format.
    Valid(SegmentHeader),
    /// A header of another format version.
    Version(u32),
    /// Nothing that can be read.
    Unreadable,
}

impl SegmentHeader {
    /// The bytes before the first batch.
    pub(super) fn encode(&self) -> Bytes {
        let mut body = Writer::with_capacity(HEADER_BYTES);
        self.identity.encode(&mut body);
        body.u64(self.number.0);
        body.u64(self.salt);
        body.u64(self.previous_end.segment.0);
        body.u64(self.previous_end.offset);
        body.u64(self.first_sequence);
        body.u64(self.first_record);
        body.u64(self.length);
        body.u64(0);
        let mut out = Writer::with_capacity(BATCHES_OFFSET as usize);
        for copy_end in [HEADER_COPY_OFFSET, BATCHES_OFFSET] {
            out.raw(&MAGIC);
            out.u32(FORMAT_VERSION);
            out.u32(crc32c::crc32c(body.as_slice()));
            out.raw(body.as_slice());
            while (out.len() as u64) < copy_end {
                out.u8(0);
            }
        }
        out.finish()
    }

    fn decode(bytes: &Bytes) -> HeaderRead {
        let Some(version) = Self::version(bytes) else {
            return HeaderRead::Unreadable;
        };
        if version != FORMAT_VERSION {
            return HeaderRead::Version(version);
        }
        Self::decode_checked(bytes).map_or(HeaderRead::Unreadable, HeaderRead::Valid)
    }

    fn version(bytes: &Bytes) -> Option<u32> {
        let mut from = Reader::new(bytes.clone());
        let magic: [u8; 8] = from.array("segment magic").ok()?;
        (magic == MAGIC).then(|| from.u32("segment version").ok()).flatten()
    }

    fn decode_checked(bytes: &Bytes) -> Result<SegmentHeader, DecodeError> {
        let mut from = Reader::new(bytes.slice(..bytes.len().min(HEADER_BYTES)));
        from.raw(12, "segment magic and version")?;
        let checksum = from.u32("segment checksum")?;
        let found = crc32c::crc32c(&bytes[CHECKED_FROM.min(bytes.len())..bytes.len().min(HEADER_BYTES)]);
        if found != checksum {
            return Err(DecodeError::Unknown { what: "segment checksum", value: checksum.into() });
        }
        let header = SegmentHeader {
            identity: Identity::decode(&mut from)?,
            number: SegmentNumber(from.u64("segment number")?),
            salt: from.u64("segment salt")?,
            previous_end: LogOffset {
                segment: SegmentNumber(from.u64("previous segment")?),
                offset: from.u64("previous end")?,
            },
            first_sequence: from.u64("first sequence")?,
            first_record: from.u64("first record")?,
            length: from.u64("segment length")?,
        };
        from.u64("segment reserve")?;
        from.end()?;
        Ok(header)
    }

    /// Reads the header of a file, from its second copy if the first cannot be read.
    ///
    /// # Errors
    ///
    /// Those of the disk.
    pub(super) fn read<F: DiskFile>(file: &F) -> std::io::Result<HeaderRead> {
        let mut version = None;
        for offset in [0, HEADER_COPY_OFFSET] {
            let mut bytes = vec![0; HEADER_BYTES];
            if file.len()? < offset + HEADER_BYTES as u64 {
                break;
            }
            file.read_at(offset, &mut bytes)?;
            match Self::decode(&Bytes::from(bytes)) {
                valid @ HeaderRead::Valid(_) => return Ok(valid),
                HeaderRead::Version(other) => version = Some(other),
                HeaderRead::Unreadable => {}
            }
        }
        Ok(version.map_or(HeaderRead::Unreadable, HeaderRead::Version))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use quorate_types::{ClusterId, Incarnation, NodeId};

    use super::*;
    use crate::{Disk, SimDisk};

    fn header() -> SegmentHeader {
        SegmentHeader {
            identity: Identity { cluster: ClusterId([3; 16]), node: NodeId(4), incarnation: Incarnation(5) },
            number: SegmentNumber(6),
            salt: 7,
            previous_end: LogOffset { segment: SegmentNumber(5), offset: 8_704 },
            first_sequence: 8,
            first_record: 9,
            length: 65_536,
        }
    }

    fn disk_with_header() -> SimDisk {
        let disk = SimDisk::new();
        disk.create("s", 65_536).unwrap().write_at(0, &header().encode()).unwrap();
        disk
    }

    fn read(disk: &SimDisk) -> HeaderRead {
        SegmentHeader::read(&disk.open("s").unwrap()).unwrap()
    }

    #[test]
    fn a_header_survives_one_bad_copy_and_not_two() {
        let disk = disk_with_header();
        assert_eq!(read(&disk), HeaderRead::Valid(header()));
        disk.corrupt("s", 60, 1).unwrap();
        assert_eq!(read(&disk), HeaderRead::Valid(header()));
        disk.corrupt("s", 4_096 + 20, 1).unwrap();
        assert_eq!(read(&disk), HeaderRead::Unreadable);
    }

    #[test]
    fn another_format_is_named_and_zeroes_are_nothing() {
        let disk = disk_with_header();
        disk.corrupt("s", 8, 3).unwrap();
        disk.corrupt("s", 4_096 + 8, 3).unwrap();
        assert_eq!(read(&disk), HeaderRead::Version(2));
        disk.create("z", 65_536).unwrap();
        assert_eq!(SegmentHeader::read(&disk.open("z").unwrap()).unwrap(), HeaderRead::Unreadable);
    }

    #[test]
    fn file_names_are_told_apart_and_only_the_canonical_form_counts() {
        let number = SegmentNumber(0xab);
        assert_eq!(FileRole::of(&number.file_name()), FileRole::Segment(number));
        assert_eq!(FileRole::of(&number.spare_name()), FileRole::Spare(number));
        for other in [number.damaged_name().as_str(), "wal-AB", "wal-00000000000000AB", "wal-", "x"] {
            assert_eq!(FileRole::of(other), FileRole::Other, "{other}");
        }
    }
}
