//! Log entries and their positions.
//!
//! Relies on the codec. Promises that an entry's body is encoded once and shared from then on: the
//! same bytes go to the log, to peers and to apply. Knows no protocol.

use std::fmt;

use bytes::Bytes;

use crate::codec::{DecodeError, Reader, Writer};
use crate::{Epoch, HlcTimestamp, LogIndex, Term};

/// The greatest body of one entry, in bytes. Bounds what one flush, one message and one apply hold.
pub const ENTRY_BYTES_MAX: usize = 4 << 20;

/// Where an entry stands; positions compare by epoch, then term or view, then index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The epoch the entry was proposed in.
    pub epoch: Epoch,
    /// The Raft term, or the PBFT or HotStuff view as a number, it was proposed in.
    pub term: Term,
    /// Its place in the group's log, from 1.
    pub index: LogIndex,
}

impl Position {
    /// Before the first entry of any log.
    pub const ZERO: Self = Self { epoch: Epoch::ZERO, term: Term::ZERO, index: LogIndex::ZERO };

    /// Bytes of the encoded form.
    pub const BYTES: usize = 24;

    /// Appends epoch, term and index, eight bytes each.
    pub fn encode(&self, out: &mut Writer) {
        out.u64(self.epoch.0);
        out.u64(self.term.0);
        out.u64(self.index.0);
    }

    /// Reads what [`Position::encode`] wrote.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Truncated`].
    pub fn decode(from: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            epoch: Epoch(from.u64("position epoch")?),
            term: Term(from.u64("position term")?),
            index: LogIndex(from.u64("position index")?),
        })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.epoch, self.term, self.index)
    }
}

/// What an entry's body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum EntryKind {
    /// No body: a new leader's first entry.
    Empty = 0,
    /// An encoded [`crate::Batch`].
    Batch = 1,
    /// An encoded [`crate::EpochConfig`]: ends its epoch and names the next.
    Stop = 2,
    /// Frames that clients signed ([`crate::encode_frames`]).
    Frames = 3,
}

impl TryFrom<u8> for EntryKind {
    type Error = DecodeError;

    fn try_from(tag: u8) -> Result<Self, DecodeError> {
        match tag {
            0 => Ok(Self::Empty),
            1 => Ok(Self::Batch),
            2 => Ok(Self::Stop),
            3 => Ok(Self::Frames),
            other => Err(DecodeError::Unknown { what: "entry kind", value: other.into() }),
        }
    }
}

/// One entry of a group's replicated log; cloning shares the body.
///
/// ```text
/// 0       8       16      24      32   33      37
/// +-------+-------+-------+-------+----+-------+------...
/// | epoch | term  | index | hlc   |kind| bytes | body
/// +-------+-------+-------+-------+----+-------+------...
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands.
    pub position: Position,
    /// Greater than the stamp of the entry before it.
    pub hlc: HlcTimestamp,
    /// What the body is.
    pub kind: EntryKind,
    /// At most [`ENTRY_BYTES_MAX`] bytes.
    pub body: Bytes,
}

impl Entry {
    /// Bytes of the encoded form before the body.
    pub const HEADER_BYTES: usize = Position::BYTES + 8 + 1 + 4;

    /// The place in the log.
    #[must_use]
    pub fn index(&self) -> LogIndex {
        self.position.index
    }

    /// Bytes of the encoded form.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        Self::HEADER_BYTES + self.body.len()
    }

    /// Appends the encoded form.
    pub fn encode(&self, out: &mut Writer) {
        self.position.encode(out);
        out.u64(self.hlc.0);
        out.u8(self.kind as u8);
        out.bytes(&self.body);
    }

    /// Reads what [`Entry::encode`] wrote; the body shares the reader's buffer.
    ///
    /// # Errors
    ///
    /// As the codec, for a body above [`ENTRY_BYTES_MAX`], and for an empty entry with a body.
    pub fn decode(from: &mut Reader) -> Result<Self, DecodeError> {
        let position = Position::decode(from)?;
        let hlc = HlcTimestamp(from.u64("entry stamp")?);
        let kind = EntryKind::try_from(from.u8("entry kind")?)?;
        let bound = if kind == EntryKind::Empty { 0 } else { ENTRY_BYTES_MAX };
        let body = from.bytes(bound, "entry body")?;
        Ok(Self { position, hlc, kind, body })
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:?}[{}B]", self.position, self.kind, self.body.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry {
            position: Position { epoch: Epoch(1), term: Term(2), index: LogIndex(3) },
            hlc: HlcTimestamp(4),
            kind: EntryKind::Batch,
            body: Bytes::from_static(b"body"),
        }
    }

    #[test]
    fn an_entry_round_trips() {
        let mut writer = Writer::default();
        entry().encode(&mut writer);
        assert_eq!(writer.len(), entry().encoded_len());
        let mut reader = Reader::new(writer.finish());
        assert_eq!(Entry::decode(&mut reader), Ok(entry()));
        assert_eq!(reader.end(), Ok(()));
    }

    #[test]
    fn positions_compare_epoch_before_term_before_index() {
        let at =
            |epoch, term, index| Position { epoch: Epoch(epoch), term: Term(term), index: LogIndex(index) };
        assert!(at(2, 1, 1) > at(1, 9, 9));
        assert!(at(1, 2, 1) > at(1, 1, 9));
        assert!(at(1, 1, 2) > at(1, 1, 1));
    }

    #[test]
    fn an_empty_entry_with_a_body_is_refused() {
        let mut writer = Writer::default();
        Entry { kind: EntryKind::Empty, ..entry() }.encode(&mut writer);
        assert!(matches!(
            Entry::decode(&mut Reader::new(writer.finish())),
            Err(DecodeError::TooLarge { bound: 0, .. })
        ));
    }
}
