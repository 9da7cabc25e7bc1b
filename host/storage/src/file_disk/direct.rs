//! Writes past the page cache.
//!
//! Relies on `O_DIRECT` of open(2) and on `STATX_DIOALIGN` of statx(2), both of Linux: a file system that does not say
//! how writes must be aligned gets none of them. Promises that what it takes is written as `pwrite` writes it. Knows
//! nothing of flushes.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// At most this much is written at once; a multiple of every block size.
const STAGED_BYTES: usize = 256 << 10;
/// No device asks for more.
const ALIGNMENT_MAX: usize = 4_096;

/// Memory aligned as the device wants it, used by one writer at a time. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Staging(Arc<Mutex<Vec<u8>>>);

/// A file opened for writing whole blocks.
#[derive(Debug)]
pub(super) struct DirectFile {
    file: File,
    block_bytes: usize,
    staging: Staging,
}

impl DirectFile {
    /// `None` where such writes are not to be had.
    pub(super) fn open(path: &Path, staging: &Staging) -> Option<Self> {
        let (block_bytes, flag) = terms(path)?;
        let file = OpenOptions::new().write(true).custom_flags(flag).open(path).ok()?;
        Some(Self { file, block_bytes, staging: staging.clone() })
    }

    /// Whether this is whole blocks.
    pub(super) fn takes(&self, offset: u64, bytes: usize) -> bool {
        offset.is_multiple_of(self.block_bytes as u64) && bytes.is_multiple_of(self.block_bytes)
    }

    /// Writes whole blocks.
    pub(super) fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut staged = self.staging.0.lock().unwrap_or_else(PoisonError::into_inner);
        staged.resize(STAGED_BYTES + ALIGNMENT_MAX, 0);
        let start = staged.as_ptr().align_offset(ALIGNMENT_MAX);
        let mut offset = offset;
        for piece in bytes.chunks(STAGED_BYTES) {
            let aligned = &mut staged[start..start + piece.len()];
            aligned.copy_from_slice(piece);
            self.file.write_all_at(aligned, offset)?;
            offset += piece.len() as u64;
        }
        Ok(())
    }
}

/// What writes to a file must be multiples of, in bytes, and the flag that asks for them.
#[cfg(target_os = "linux")]
fn terms(path: &Path) -> Option<(usize, i32)> {
    use rustix::fs::{AtFlags, CWD, OFlags, StatxFlags, statx};

    let found = statx(CWD, path, AtFlags::empty(), StatxFlags::DIOALIGN).ok()?;
    let said = found.stx_mask & StatxFlags::DIOALIGN.bits() != 0;
    let [block, memory] =
        [found.stx_dio_offset_align, found.stx_dio_mem_align].map(|bytes| usize::try_from(bytes).ok());
    let (block, memory) = (block?, memory?);
    let usable = said && (1..=ALIGNMENT_MAX).contains(&block) && (1..=ALIGNMENT_MAX).contains(&memory);
    usable.then_some((block, i32::try_from(OFlags::DIRECT.bits()).ok()?))
}

#[cfg(not(target_os = "linux"))]
fn terms(_path: &Path) -> Option<(usize, i32)> {
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_written_past_the_cache_is_read_through_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
        file.set_len(1 << 20).unwrap();
        let Some(direct) = DirectFile::open(&path, &Staging::default()) else {
            eprintln!("skipped: this file system has no direct writes");
            return;
        };
        let block = direct.block_bytes;
        assert!(
            direct.takes(block as u64, 3 * block) && !direct.takes(1, block) && !direct.takes(0, block + 1)
        );
        let mut before = vec![0; 1 << 20];
        file.read_exact_at(&mut before, 0).unwrap();
        let written: Vec<u8> = (0..STAGED_BYTES + 2 * block).map(|at| (at % 251) as u8).collect();
        direct.write_at(block as u64, &written).unwrap();
        let mut after = vec![0; 1 << 20];
        file.read_exact_at(&mut after, 0).unwrap();
        assert_eq!(&after[block..block + written.len()], &written);
        assert!(after[..block].iter().chain(&after[block + written.len()..]).all(|byte| *byte == 0));
    }
}
