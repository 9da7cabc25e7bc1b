//! A directory of the operating system as a [`Disk`].
//!
//! Relies on `std::fs` and on POSIX semantics of `pwrite`, `fdatasync` and directory `fsync`. Promises
//! what [`Disk`] asks. Knows no format.

mod direct;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use direct::{DirectFile, Staging};

use crate::{Disk, DiskFile};

/// A directory of the operating system.
#[derive(Clone, Debug)]
pub struct FileDisk {
    path: PathBuf,
    direct: Option<Staging>,
}

/// A file of the operating system.
#[derive(Debug)]
pub struct FileDiskFile {
    file: File,
    direct: Option<DirectFile>,
}

impl FileDisk {
    /// Opens a directory and makes it if there is none.
    ///
    /// # Errors
    ///
    /// Those of the system.
    pub fn open(path: &Path) -> io::Result<Self> {
        if !path.is_dir() {
            fs::create_dir(path)?;
            if let Some(parent) = path.parent() {
                sync_path(parent)?;
            }
        }
        Ok(Self { path: path.to_owned(), direct: None })
    }

    /// Writes whole blocks past the page cache (`O_DIRECT`) from now on, where the file system can. For files that
    /// are written once, flushed at once and read after a restart only: the cache would fill with what nobody
    /// reads, and each flush would wait for the write-back of other files.
    #[must_use]
    pub fn writing_directly(self) -> Self {
        Self { direct: Some(Staging::default()), ..self }
    }

    fn file(&self, file: File, path: &Path) -> FileDiskFile {
        let direct = self.direct.as_ref().and_then(|staging| DirectFile::open(path, staging));
        FileDiskFile { file, direct }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Makes the names in a directory durable.
pub(crate) fn sync_path(path: &Path) -> io::Result<()> {
    // The parent of a relative path of one part is empty, and means the working directory.
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    File::open(path)?.sync_all()
}

impl Disk for FileDisk {
    type File = FileDiskFile;

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for item in fs::read_dir(&self.path)? {
            let item = item?;
            if item.file_type()?.is_file() {
                // A name that is not UTF-8 is not one of ours.
                names.extend(item.file_name().into_string());
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<FileDiskFile> {
        let path = self.path.join(name);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        if let Err(error) = file.set_len(bytes) {
            fs::remove_file(&path)?;
            return Err(error);
        }
        Ok(self.file(file, &path))
    }

    fn open(&self, name: &str) -> io::Result<FileDiskFile> {
        let path = self.path.join(name);
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        Ok(self.file(file, &path))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync_directory(&self) -> io::Result<()> {
        sync_path(&self.path)
    }
}

impl DiskFile for FileDiskFile {
    fn len(&self) -> io::Result<u64> {
        self.file.metadata().map(|metadata| metadata.len())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        match self.direct.as_ref().filter(|direct| direct.takes(offset, bytes.len())) {
            Some(direct) => direct.write_at(offset, bytes),
            None => self.file.write_all_at(bytes, offset),
        }
    }

    fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_file_keeps_what_was_written_and_refuses_to_be_made_twice() {
        let directory = tempfile::tempdir().unwrap();
        let disk = FileDisk::open(&directory.path().join("wal")).unwrap().writing_directly();
        let file = disk.create("a", 4_096).unwrap();
        file.write_at(100, b"hello").unwrap();
        file.flush().unwrap();
        assert_eq!(disk.create("a", 1).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        disk.rename("a", "b").unwrap();
        disk.sync_directory().unwrap();
        assert_eq!(disk.list().unwrap(), ["b"]);
        let mut out = [0; 7];
        disk.open("b").unwrap().read_at(99, &mut out).unwrap();
        assert_eq!(&out, b"\0hello\0");
        let beyond = disk.open("b").unwrap().read_at(4_090, &mut out).unwrap_err();
        assert_eq!(beyond.kind(), io::ErrorKind::UnexpectedEof);
        disk.remove("b").unwrap();
        assert_eq!(disk.open("b").unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
