//! Makes, reuses and gives up segment files.
//!
//! Relies on a [`Disk`]. Promises that a file has a segment's name only once its header is durable, and
//! that a failure for want of space leaves nothing half made. Does not know what segments hold.

use std::io;
use std::sync::Arc;

use super::segment::{BATCHES_OFFSET, LogOffset, SegmentHeader, SegmentNumber};
use super::{Active, Closed, WalOptions};
use crate::{Disk, DiskFile, Identity, WalError};

/// Files kept to be used again.
const SPARES_MAX: usize = 2;

/// A file to be used again.
#[derive(Clone, Debug)]
pub(super) struct Spare {
    pub(super) name: String,
    /// Space is set aside up to here.
    pub(super) allocated: u64,
}

/// Where in the log a segment begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct SegmentStart {
    pub(super) number: SegmentNumber,
    pub(super) previous_end: LogOffset,
    pub(super) first_sequence: u64,
    pub(super) first_record: u64,
}

/// The log directory and the files in it that hold no records.
#[derive(Debug)]
pub(super) struct SegmentFiles<D> {
    disk: D,
    identity: Identity,
    segment_bytes: u64,
    salt: u64,
    spares: Vec<Spare>,
}

fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::StorageFull
}

impl<D: Disk> SegmentFiles<D> {
    /// Takes over the directory; files that cannot be used again are removed.
    pub(super) fn new(
        disk: D,
        identity: Identity,
        options: &WalOptions,
        found: Vec<Spare>,
    ) -> Result<Self, WalError> {
        let mut spares = Vec::new();
        for spare in found {
            let fault = |operation| {
                let file = spare.name.clone();
                move |source| WalError::Io { operation, file, source }
            };
            let length = disk.open(&spare.name).and_then(|file| file.len()).map_err(fault("open"))?;
            if length == options.segment_bytes && spares.len() < SPARES_MAX {
                spares.push(spare);
            } else {
                disk.remove(&spare.name).map_err(fault("remove"))?;
            }
        }
        Ok(Self { disk, identity, segment_bytes: options.segment_bytes, salt: options.salt, spares })
    }

    /// Makes a segment with space for a batch of `bytes`. Final errors end the log.
    pub(super) fn begin_segment(
        &mut self,
        start: SegmentStart,
        bytes: u64,
    ) -> Result<Active<D::File>, WalError> {
        let length = self.segment_bytes.max(BATCHES_OFFSET + bytes);
        let header = SegmentHeader {
            identity: self.identity,
            number: start.number,
            salt: self.salt,
            previous_end: start.previous_end,
            first_sequence: start.first_sequence,
            first_record: start.first_record,
            length,
        };
        let name = start.number.file_name();
        let (spare, file) = self.open_spare(start.number, length)?;
        if let Err(source) = file.write_at(0, &header.encode()) {
            let removed = self.disk.remove(&spare.name);
            return Err(match removed {
                Ok(()) if is_full(&source) => WalError::DiskFull { file: name, bytes },
                _ => WalError::Final { operation: "write", file: name, source },
            });
        }
        let named = file.flush().and_then(|()| self.disk.rename(&spare.name, &name));
        let durable = named.and_then(|()| self.disk.sync_directory());
        match durable {
            Ok(()) => Ok(Active {
                number: start.number,
                file: Arc::new(file),
                end: BATCHES_OFFSET,
                allocated: spare.allocated,
                length,
                salt: self.salt,
            }),
            Err(source) => Err(WalError::Final { operation: "flush", file: name, source }),
        }
    }

    /// A file of this length under a spare name: a used one, or a new one.
    fn open_spare(&mut self, number: SegmentNumber, length: u64) -> Result<(Spare, D::File), WalError> {
        let used = if length == self.segment_bytes { self.spares.pop() } else { None };
        let (spare, file) = match used {
            Some(spare) => {
                let file = self.disk.open(&spare.name);
                (spare, file)
            }
            None => {
                let name = number.spare_name();
                let file = self.disk.create(&name, length);
                (Spare { name, allocated: 0 }, file)
            }
        };
        match file {
            Ok(file) => Ok((spare, file)),
            Err(source) if is_full(&source) => Err(WalError::DiskFull { file: spare.name, bytes: length }),
            Err(source) => Err(WalError::Io { operation: "open", file: spare.name, source }),
        }
    }

    /// Gives up a segment that nothing needs: its file is kept to be used again, or removed.
    pub(super) fn free(&mut self, segment: &Closed<D::File>) -> Result<(), WalError> {
        let name = segment.number.file_name();
        let reusable = segment.length == self.segment_bytes && self.spares.len() < SPARES_MAX;
        let freed = if reusable {
            let spare = Spare { name: segment.number.spare_name(), allocated: segment.allocated };
            let renamed = self.disk.rename(&name, &spare.name);
            self.spares.push(spare);
            renamed
        } else {
            self.disk.remove(&name)
        };
        let durable = freed.and_then(|()| self.disk.sync_directory());
        durable.map_err(|source| WalError::Final { operation: "remove", file: name, source })
    }

    /// Gives damaged segments names that no log reads, oldest first, and keeps them for the operator.
    pub(super) fn set_aside(&mut self, numbers: impl Iterator<Item = SegmentNumber>) -> Result<(), WalError> {
        for number in numbers {
            let (from, to) = (number.file_name(), number.damaged_name());
            let renamed = self.disk.rename(&from, &to);
            renamed.map_err(|source| WalError::Final { operation: "rename", file: from, source })?;
        }
        let file = "directory".to_owned();
        self.disk.sync_directory().map_err(|source| WalError::Final { operation: "flush", file, source })
    }
}
