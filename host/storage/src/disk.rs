//! Files of one directory, as the log needs them: the seam where a real disk and a simulated one meet.
//!
//! Relies on `std::io`. Promises nothing itself; every implementation keeps what the methods say.
//! Knows no format.

use std::fmt;
use std::io;

/// The files of one directory.
///
/// A created, renamed or removed name is durable only after [`Disk::sync_directory`].
pub trait Disk: Send + Sync + 'static {
    /// An open file.
    type File: DiskFile;

    /// The names of all files, in any order.
    ///
    /// # Errors
    ///
    /// Those of the system.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Makes a new file of `bytes` bytes that read as zero. Space need not be set aside yet.
    ///
    /// # Errors
    ///
    /// Those of the system; `AlreadyExists` if there is a file of that name.
    fn create(&self, name: &str, bytes: u64) -> io::Result<Self::File>;

    /// Opens a file for reading and writing.
    ///
    /// # Errors
    ///
    /// Those of the system; `NotFound` if there is none of that name.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// Renames a file, replacing one that has the new name.
    ///
    /// # Errors
    ///
    /// Those of the system.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    ///
    /// Those of the system.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes all names durable.
    ///
    /// # Errors
    ///
    /// Those of the system. As with [`DiskFile::flush`], what was lost then cannot be told.
    fn sync_directory(&self) -> io::Result<()>;
}

/// An open file; offsets and lengths in bytes.
pub trait DiskFile: fmt::Debug + Send + Sync + 'static {
    /// The length.
    ///
    /// # Errors
    ///
    /// Those of the system.
    fn len(&self) -> io::Result<u64>;

    /// Whether the length is zero.
    ///
    /// # Errors
    ///
    /// As [`DiskFile::len`].
    fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|len| len == 0)
    }

    /// Changes the length; new bytes read as zero.
    ///
    /// # Errors
    ///
    /// Those of the system.
    fn set_len(&self, bytes: u64) -> io::Result<()>;

    /// Fills `out` from `offset` on.
    ///
    /// # Errors
    ///
    /// Those of the system; `UnexpectedEof` beyond the length.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`. Durable, and ordered with other writes, only after
    /// [`DiskFile::flush`].
    ///
    /// # Errors
    ///
    /// Those of the system; some of the bytes may then be written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes all that was written durable, with the length if it is needed to read it (fdatasync).
    ///
    /// # Errors
    ///
    /// Those of the system. What is durable cannot be told then, and a second flush that succeeds
    /// proves nothing: the owner must end.
    fn flush(&self) -> io::Result<()>;
}
