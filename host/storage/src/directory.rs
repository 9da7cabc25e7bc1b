//! The data directory of one node: who may use it, and where its parts lie.
//!
//! ```text
//! DIRECTORY/lock          held while a process uses the directory
//! DIRECTORY/identity      format version, cluster, node, incarnation; written before all else
//! DIRECTORY/wal/          segments of the write-ahead log
//! DIRECTORY/state.redb    tables
//! ```
//!
//! Relies on file locks of the operating system and on atomic rename. Promises that nothing of a
//! directory of another node, cluster or version is changed, and that two processes never share one.
//! Does not know what the parts hold.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use quorate_types::{ClusterId, Incarnation, NodeId};

use crate::file_disk::sync_path;
use crate::{DirectoryError, FileDisk, Identity};

const FORMAT_VERSION: u32 = 1;
const LOCK_NAME: &str = "lock";
const IDENTITY_NAME: &str = "identity";
const IDENTITY_NEW_NAME: &str = "identity.new";
const IDENTITY_BYTES_MAX: usize = 4_096;

/// An open data directory; the lock is held until this is dropped.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    identity: Identity,
    _lock: File,
}

impl DataDirectory {
    /// Opens the directory of a node, or makes it if there is none or it is empty. A new directory
    /// takes all of `expected`; an existing one must agree in cluster and node, and keeps the
    /// incarnation it was made with.
    ///
    /// # Errors
    ///
    /// [`DirectoryError`]; nothing was changed then, but that a missing directory may have been made.
    pub fn open(path: &Path, expected: Identity) -> Result<Self, DirectoryError> {
        let io = |operation, path: &Path| {
            let path = path.to_owned();
            move |source| DirectoryError::Io { operation, path, source }
        };
        fs::create_dir_all(path).map_err(io("make directory", path))?;
        let identity_path = path.join(IDENTITY_NAME);
        if !identity_path.exists() {
            refuse_foreign_files(path)?;
        }
        let lock = take_lock(path)?;
        let identity = match fs::read(&identity_path) {
            Ok(bytes) => parse_identity(path, &bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                write_identity(path, &expected).map_err(io("write the identity file of", path))?;
                expected
            }
            Err(error) => return Err(io("read", &identity_path)(error)),
        };
        if (identity.cluster, identity.node) != (expected.cluster, expected.node) {
            return Err(DirectoryError::WrongIdentity { path: path.to_owned(), found: identity, expected });
        }
        Ok(Self { path: path.to_owned(), identity, _lock: lock })
    }

    /// Whose it is, with the incarnation it was made with.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory of the write-ahead log's segments, made if missing.
    ///
    /// # Errors
    ///
    /// [`DirectoryError::Io`].
    pub fn wal_disk(&self) -> Result<FileDisk, DirectoryError> {
        let path = self.path.join("wal");
        let disk = FileDisk::open(&path).map(FileDisk::writing_directly);
        disk.map_err(|source| DirectoryError::Io { operation: "make directory", path, source })
    }

    /// The file of the tables.
    #[must_use]
    pub fn store_path(&self) -> PathBuf {
        self.path.join("state.redb")
    }
}

fn take_lock(path: &Path) -> Result<File, DirectoryError> {
    let lock_path = path.join(LOCK_NAME);
    let fault = |source| DirectoryError::Io { operation: "lock", path: lock_path.clone(), source };
    let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&lock_path).map_err(fault)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(DirectoryError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(fault(source)),
    }
}

/// A directory without an identity must hold nothing but what a first start may have left behind.
fn refuse_foreign_files(path: &Path) -> Result<(), DirectoryError> {
    let fault = |source| DirectoryError::Io { operation: "list", path: path.to_owned(), source };
    for item in fs::read_dir(path).map_err(fault)? {
        let name = item.map_err(fault)?.file_name();
        if name != LOCK_NAME && name != IDENTITY_NEW_NAME {
            let name = name.to_string_lossy().into_owned();
            return Err(DirectoryError::NotOurs { path: path.to_owned(), name });
        }
    }
    Ok(())
}

fn identity_text(identity: &Identity) -> String {
    let facts = format!(
        "quorate-data {FORMAT_VERSION}\ncluster {}\nnode {}\nincarnation {}\n",
        identity.cluster, identity.node.0, identity.incarnation.0
    );
    let checksum = crc32c::crc32c(facts.as_bytes());
    format!("{facts}checksum {checksum:08x}\n")
}

fn write_identity(path: &Path, identity: &Identity) -> io::Result<()> {
    let new = path.join(IDENTITY_NEW_NAME);
    let mut file = File::create(&new)?;
    file.write_all(identity_text(identity).as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path.join(IDENTITY_NAME))?;
    sync_path(path)?;
    match path.parent() {
        Some(parent) => sync_path(parent),
        None => Ok(()),
    }
}

fn parse_identity(path: &Path, bytes: &[u8]) -> Result<Identity, DirectoryError> {
    let damaged = |reason: &str| DirectoryError::Damaged { path: path.to_owned(), reason: reason.to_owned() };
    let text = std::str::from_utf8(&bytes[..bytes.len().min(IDENTITY_BYTES_MAX)])
        .map_err(|_| damaged("not text"))?;
    let mut lines = text.lines();
    let mut field = |name: &str| {
        lines
            .next()
            .and_then(|line| line.strip_prefix(name)?.strip_prefix(' '))
            .ok_or_else(|| damaged(&format!("no line {name}")))
    };
    let version: u32 = field("quorate-data")?.parse().map_err(|_| damaged("no format version"))?;
    if version != FORMAT_VERSION {
        return Err(DirectoryError::UnsupportedVersion {
            path: path.to_owned(),
            found: version,
            supported: FORMAT_VERSION,
        });
    }
    let cluster = parse_cluster(field("cluster")?).ok_or_else(|| damaged("no cluster id"))?;
    let node = NodeId(field("node")?.parse().map_err(|_| damaged("no node id"))?);
    let incarnation = Incarnation(field("incarnation")?.parse().map_err(|_| damaged("no incarnation"))?);
    let identity = Identity { cluster, node, incarnation };
    // Whole-file equality also finds a wrong checksum and anything that follows it.
    if identity_text(&identity).as_bytes() != bytes {
        return Err(damaged("its checksum does not fit"));
    }
    Ok(identity)
}

fn parse_cluster(text: &str) -> Option<ClusterId> {
    if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    Some(ClusterId(u128::from_str_radix(text, 16).ok()?.to_be_bytes()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn identity(node: u64) -> Identity {
        Identity { cluster: ClusterId([7; 16]), node: NodeId(node), incarnation: Incarnation(1) }
    }

    #[test]
    fn a_directory_keeps_its_owner_and_refuses_others() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("node");
        drop(DataDirectory::open(&path, identity(2)).unwrap());
        let again =
            DataDirectory::open(&path, Identity { incarnation: Incarnation(9), ..identity(2) }).unwrap();
        assert_eq!(*again.identity(), identity(2), "the incarnation is the directory's");
        drop(again);
        let other_node = DataDirectory::open(&path, identity(3)).unwrap_err();
        assert!(matches!(other_node, DirectoryError::WrongIdentity { .. }), "{other_node}");
        let other_cluster = Identity { cluster: ClusterId([8; 16]), ..identity(2) };
        let error = DataDirectory::open(&path, other_cluster).unwrap_err();
        assert!(matches!(error, DirectoryError::WrongIdentity { .. }), "{error}");
    }

    #[test]
    fn two_owners_never_share_a_directory() {
        let root = tempfile::tempdir().unwrap();
        let first = DataDirectory::open(root.path(), identity(1)).unwrap();
        let second = DataDirectory::open(root.path(), identity(1)).unwrap_err();
        assert!(matches!(second, DirectoryError::InUse { .. }), "{second}");
        drop(first);
        DataDirectory::open(root.path(), identity(1)).unwrap();
    }

    #[test]
    fn foreign_files_other_formats_and_damage_are_refused_and_left_alone() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("thesis.tex"), "x").unwrap();
        let error = DataDirectory::open(root.path(), identity(1)).unwrap_err();
        assert!(matches!(error, DirectoryError::NotOurs { .. }), "{error}");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1, "nothing was added");
        fs::remove_file(root.path().join("thesis.tex")).unwrap();

        drop(DataDirectory::open(root.path(), identity(1)).unwrap());
        let file = root.path().join(IDENTITY_NAME);
        let good = fs::read_to_string(&file).unwrap();
        fs::write(&file, good.replacen("quorate-data 1", "quorate-data 2", 1)).unwrap();
        let error = DataDirectory::open(root.path(), identity(1)).unwrap_err();
        assert!(matches!(error, DirectoryError::UnsupportedVersion { found: 2, .. }), "{error}");
        for bad in
            [good.replacen("node 1", "node 2", 1), good.replace("checksum ", "checksum 0"), good[..20].into()]
        {
            fs::write(&file, &bad).unwrap();
            let error = DataDirectory::open(root.path(), identity(1)).unwrap_err();
            assert!(matches!(error, DirectoryError::Damaged { .. }), "{bad:?}: {error}");
        }
        fs::write(&file, good).unwrap();
        DataDirectory::open(root.path(), identity(1)).unwrap();
    }

    #[test]
    fn a_first_start_that_ended_half_way_can_be_repeated() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join(IDENTITY_NEW_NAME), "quorate-da").unwrap();
        fs::write(root.path().join(LOCK_NAME), "").unwrap();
        DataDirectory::open(root.path(), identity(1)).unwrap();
    }
}
