//! Certificates and keys as files.
//!
//! Relies on the file system. Promises that a key is written readable for its owner only and refused
//! when others may read it, and that a file is replaced whole, so that a reload never sees half of one.
//! Knows no format.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::error::CertificateError;

/// The greatest file that is read, in bytes; a chain of certificates is a few thousand.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Permission bits of group and others.
const OTHERS_MASK: u32 = 0o077;

/// Reads a file that anyone may read.
pub(crate) fn read_public(path: &Path) -> Result<String, CertificateError> {
    let fault = |source| CertificateError::Read { path: path.to_owned(), source };
    let len = fs::metadata(path).map_err(fault)?.len();
    if len > FILE_BYTES_MAX {
        return Err(fault(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has {len} bytes"))));
    }
    fs::read_to_string(path).map_err(fault)
}

/// Reads a key, which nobody but its owner may be able to read.
pub(crate) fn read_key(path: &Path) -> Result<String, CertificateError> {
    let metadata = fs::metadata(path);
    let metadata = metadata.map_err(|source| CertificateError::Read { path: path.to_owned(), source })?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & OTHERS_MASK != 0 {
        return Err(CertificateError::KeyExposed { path: path.to_owned(), mode });
    }
    read_public(path)
}

/// Fails if there is a file already.
pub(crate) fn refuse_existing(path: &Path) -> Result<(), CertificateError> {
    match fs::symlink_metadata(path) {
        Ok(_) => Err(CertificateError::Exists { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(CertificateError::Read { path: path.to_owned(), source }),
    }
}

/// Writes a file that anyone may read, replacing what was there.
pub(crate) fn write_public(path: &Path, text: &str) -> Result<(), CertificateError> {
    write(path, text, 0o644)
}

/// Writes a file that only its owner may read, replacing what was there.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<(), CertificateError> {
    write(path, text, 0o600)
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), CertificateError> {
    let fault = |source| CertificateError::Write { path: path.to_owned(), source };
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(fault)?;
    }
    let beside = temporary(path);
    // A file left by an interrupted write may have other permissions: it is never written into.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fault(error)),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside).map_err(fault)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(fault)?;
    fs::rename(&beside, path).map_err(fault)
}

fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_key_is_private_when_written_and_refused_when_exposed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep").join("key.pem");
        write_private(&path, "secret").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read_key(&path).unwrap(), "secret");

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let fault = read_key(&path).unwrap_err();
        assert!(matches!(fault, CertificateError::KeyExposed { mode: 0o640, .. }));
        assert!(fault.to_string().contains("chmod 600"), "{fault}");
    }

    #[test]
    fn writing_replaces_and_an_existing_authority_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.pem");
        assert!(refuse_existing(&path).is_ok());
        write_public(&path, "one").unwrap();
        write_public(&path, "two").unwrap();
        assert_eq!(read_public(&path).unwrap(), "two");
        assert!(matches!(refuse_existing(&path), Err(CertificateError::Exists { .. })));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
