//! Reads batches out of one segment, in order or after a hole.
//!
//! Relies on the batch format. Promises to give only bytes whose checksums, segment and salt are right.
//! Does not know whether a hole is a torn tail or damage.

use std::io;

use bytes::Bytes;

use super::batch::{BATCH_HEADER_BYTES, BatchHeader};
use super::segment::{SECTOR_BYTES, SegmentNumber};
use crate::DiskFile;

/// Bytes read ahead at once.
const WINDOW_BYTES: u64 = 1 << 20;

/// A reader of one segment.
#[derive(Debug)]
pub(super) struct SegmentReader<'a, F> {
    file: &'a F,
    segment: SegmentNumber,
    /// What every batch must say; `None` while the segment's header could not be read.
    salt: Option<u64>,
    /// Nothing from here on is read.
    limit: u64,
    window: Vec<u8>,
    window_at: u64,
}

impl<'a, F: DiskFile> SegmentReader<'a, F> {
    /// Reads `file` up to `limit` bytes or its end.
    pub(super) fn new(
        file: &'a F,
        segment: SegmentNumber,
        salt: Option<u64>,
        limit: u64,
    ) -> io::Result<Self> {
        let limit = limit.min(file.len()?);
        Ok(Self { file, segment, salt, limit, window: Vec::new(), window_at: 0 })
    }

    /// Nothing from here on is read.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    fn slice(&mut self, offset: u64, bytes: usize) -> io::Result<Option<&[u8]>> {
        let end = offset + bytes as u64;
        if end > self.limit {
            return Ok(None);
        }
        if offset < self.window_at || end > self.window_at + self.window.len() as u64 {
            let wanted = (bytes as u64).max(WINDOW_BYTES).min(self.limit - offset);
            self.window.resize(usize::try_from(wanted).map_err(io::Error::other)?, 0);
            self.window_at = offset;
            self.file.read_at(offset, &mut self.window)?;
        }
        let start = usize::try_from(offset - self.window_at).map_err(io::Error::other)?;
        Ok(Some(&self.window[start..start + bytes]))
    }

    /// The batch that begins there, if one does.
    pub(super) fn batch_at(&mut self, offset: u64) -> io::Result<Option<(BatchHeader, Bytes)>> {
        let Some(head) = self.slice(offset, BATCH_HEADER_BYTES)? else {
            return Ok(None);
        };
        let head = head.first_chunk().expect("a slice has the length asked for");
        let Some(header) = BatchHeader::decode(head) else {
            return Ok(None);
        };
        if header.segment != self.segment || self.salt.is_some_and(|salt| salt != header.salt) {
            return Ok(None);
        }
        let payload = self.slice(offset + BATCH_HEADER_BYTES as u64, header.payload_bytes as usize)?;
        match payload {
            Some(payload) if header.vouches_for(payload) => {
                let payload = Bytes::copy_from_slice(payload);
                self.salt = Some(header.salt);
                Ok(Some((header, payload)))
            }
            _ => Ok(None),
        }
    }

    /// The first batch at or after `offset` that satisfies `wanted`, and where it begins.
    pub(super) fn find(
        &mut self,
        mut offset: u64,
        wanted: impl Fn(&BatchHeader) -> bool,
    ) -> io::Result<Option<(u64, BatchHeader)>> {
        while offset < self.limit {
            match self.batch_at(offset)? {
                Some((header, _)) if wanted(&header) => return Ok(Some((offset, header))),
                // What lies inside a batch is an entry's bytes, whatever it looks like.
                Some((header, _)) => offset += header.stored_bytes(),
                None => offset += SECTOR_BYTES,
            }
        }
        Ok(None)
    }
}
