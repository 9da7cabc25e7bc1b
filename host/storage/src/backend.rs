//! A file of any disk as redb's storage.
//!
//! Relies on [`DiskFile`]. Promises what redb asks of its storage: a synchronisation makes all writes
//! before it durable. Knows no table.

use std::io;

use redb::StorageBackend;

use crate::{Disk, DiskFile, SimFile};

/// A file of a [`Disk`] as redb's storage.
#[derive(Debug)]
pub struct DiskBackend<F> {
    file: F,
}

/// redb's storage on the simulated disk: what was not synchronised is lost, kept or torn at a crash.
pub type SimBackend = DiskBackend<SimFile>;

impl<F: DiskFile> DiskBackend<F> {
    /// Opens a file of `disk`.
    ///
    /// # Errors
    ///
    /// Those of the disk.
    pub fn open<D: Disk<File = F>>(disk: &D, name: &str) -> io::Result<Self> {
        disk.open(name).map(|file| Self { file })
    }

    /// Makes an empty file on `disk`.
    ///
    /// # Errors
    ///
    /// Those of the disk.
    pub fn create<D: Disk<File = F>>(disk: &D, name: &str) -> io::Result<Self> {
        disk.create(name, 0).map(|file| Self { file })
    }
}

impl<F: DiskFile> StorageBackend for DiskBackend<F> {
    fn len(&self) -> Result<u64, io::Error> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.file.read_at(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.file.flush()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.file.write_at(offset, data)
    }
}
