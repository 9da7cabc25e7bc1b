//! Secret keys on disk: PKCS#8 in PEM (RFC 5208, RFC 8410), readable by their owner alone.
//!
//! Relies on a Unix file system. Promises that a key file is created whole or not at all, never replaces
//! another file, is refused if anyone but its owner may read it, and that what was read is wiped from
//! memory. Knows no directory layout and no node.
//!
//! The form is what `openssl genpkey -algorithm ed25519` writes: the seed alone, without the public key.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey, KeypairBytes};
use zeroize::Zeroizing;

use crate::key::SecretKey;

/// The longest key file; the usual one has 119 bytes.
const FILE_BYTES_MAX: u64 = 4 << 10;
/// Read and write for the owner, nothing for others.
const MODE: u32 = 0o600;
/// The bits that let group or others do anything.
const FOREIGN_BITS: u32 = 0o077;

/// A key file that cannot be read or made.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file system refused.
    #[error("the key file {path} cannot be {verb}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried: `read` or `created`.
        verb: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// Group or others may use the file.
    #[error("the key file {path} has mode {mode:03o}, so others than its owner may read it; run `chmod 600`")]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not a regular file, or far too long for a key.
    #[error("{path} is no key file: it is not a regular file of at most {FILE_BYTES_MAX} bytes")]
    NotAKeyFile {
        /// The file.
        path: PathBuf,
    },
    /// The content is no Ed25519 key.
    #[error("{path} holds no Ed25519 secret key in PKCS#8 PEM form")]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

impl SecretKey {
    /// Reads a key file.
    ///
    /// # Errors
    ///
    /// [`KeyFileError`]; a file that others than its owner may use is refused before it is read.
    pub fn read_file(path: &Path) -> Result<Self, KeyFileError> {
        let io = |source| KeyFileError::Io { path: path.to_owned(), verb: "read", source };
        let file = File::open(path).map_err(io)?;
        // Asked of the open file, so that what is checked is what is read.
        let found = file.metadata().map_err(io)?;
        if !found.is_file() || found.len() > FILE_BYTES_MAX {
            return Err(KeyFileError::NotAKeyFile { path: path.to_owned() });
        }
        let mode = found.permissions().mode() & 0o777;
        if mode & FOREIGN_BITS != 0 {
            return Err(KeyFileError::Permissions { path: path.to_owned(), mode });
        }
        // Room for all of it at once: a buffer that grows leaves copies behind.
        let mut text = Zeroizing::new(Vec::with_capacity(FILE_BYTES_MAX as usize));
        file.take(FILE_BYTES_MAX).read_to_end(&mut text).map_err(io)?;
        Self::from_pem(&text).ok_or_else(|| KeyFileError::Malformed { path: path.to_owned() })
    }

    /// The Ed25519 key of a PEM text in PKCS#8 form; none if it holds no such key.
    #[must_use]
    pub fn from_pem(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let key = SigningKey::from_pkcs8_pem(text).ok()?;
        Some(Self::from_seed(&Zeroizing::new(key.to_bytes())))
    }

    /// Writes a new key file, whole or not at all, with mode 0600.
    ///
    /// # Errors
    ///
    /// [`KeyFileError::Io`], with [`io::ErrorKind::AlreadyExists`] if there is a file of that name.
    pub fn create_file(&self, path: &Path) -> Result<(), KeyFileError> {
        let fault = |source| KeyFileError::Io { path: path.to_owned(), verb: "created", source };
        let form = KeypairBytes { secret_key: *self.seed(), public_key: None };
        let pem = form.to_pkcs8_pem(LineEnding::LF).map_err(|error| fault(io::Error::other(error)))?;
        create_whole(path, pem.as_bytes()).map_err(fault)
    }
}

/// Writes beside the file, flushes, and links the name to it: a link, unlike a rename, replaces nothing.
fn create_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // A name of its own, so that neither another creation nor what a crash left behind is in the way.
    let number = getrandom::u64().map_err(io::Error::other)?;
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(format!(".{number:016x}.new"));
    let beside = path.with_file_name(name);
    let linked = write_flushed(&beside, bytes).and_then(|()| fs::hard_link(&beside, path));
    let removed = fs::remove_file(&beside);
    linked.and(removed)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

fn write_flushed(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_key_comes_back_from_its_file_and_nobody_else_may_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("node.key");
        let key = SecretKey::generate().unwrap();
        key.create_file(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(SecretKey::read_file(&path).unwrap().public(), key.public());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left beside it");
        for mode in [0o640, 0o604, 0o610] {
            set_mode(&path, mode);
            let refused = SecretKey::read_file(&path);
            assert!(matches!(refused, Err(KeyFileError::Permissions { mode: found, .. }) if found == mode));
        }
    }

    #[test]
    fn a_key_file_is_never_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("node.key");
        let first = SecretKey::from_seed(&[1; 32]);
        first.create_file(&path).unwrap();
        let second = SecretKey::from_seed(&[2; 32]).create_file(&path);
        assert!(
            matches!(second, Err(KeyFileError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists)
        );
        assert_eq!(SecretKey::read_file(&path).unwrap().public(), first.public());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_key_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let missing = SecretKey::read_file(&directory.path().join("none"));
        assert!(matches!(missing, Err(KeyFileError::Io { .. })));
        let not_a_file = SecretKey::read_file(directory.path());
        assert!(matches!(not_a_file, Err(KeyFileError::NotAKeyFile { .. })));
        let write = |name: &str, bytes: &[u8]| {
            let path = directory.path().join(name);
            fs::write(&path, bytes).unwrap();
            set_mode(&path, MODE);
            SecretKey::read_file(&path)
        };
        assert!(matches!(write("text", b"hello"), Err(KeyFileError::Malformed { .. })));
        assert!(matches!(write("bytes", &[0xff; 64]), Err(KeyFileError::Malformed { .. })));
        assert!(matches!(write("long", &[b'a'; 5000]), Err(KeyFileError::NotAKeyFile { .. })));
    }

    /// The example of RFC 8410 §10.3, as other tools write it.
    #[test]
    fn the_example_of_rfc_8410_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rfc8410.key");
        let pem = "-----BEGIN PRIVATE KEY-----\n\
                   MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
                   -----END PRIVATE KEY-----\n";
        write_flushed(&path, pem.as_bytes()).unwrap();
        let key = SecretKey::read_file(&path).unwrap();
        assert_eq!(
            key.public().to_string(),
            "19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1"
        );
        let again = directory.path().join("again.key");
        key.create_file(&again).unwrap();
        assert_eq!(fs::read_to_string(again).unwrap(), pem);
    }
}
