//! What can go wrong with durable state, each fact in a field and each text saying what to do next.
//!
//! Relies on `types`. Promises that every refusal to start names both sides of the disagreement.

use std::io;
use std::path::PathBuf;

use quorate_types::codec::DecodeError;
use quorate_types::{Digest, GroupId, Incarnation, LogIndex};

use crate::{Identity, Space};

/// The write-ahead log cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// The system refused; the log is as before unless [`WalError::is_final`].
    #[error("cannot {operation} log file {file}: {source}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The file's name in the log directory.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// There is no room for the batch. Nothing of it is in the log, and it may be appended again.
    #[error(
        "no room for {bytes} more bytes in log file {file}: free space on the disk, then restart or wait"
    )]
    DiskFull {
        /// The file's name in the log directory.
        file: String,
        /// The bytes that found no room.
        bytes: u64,
    },
    /// A write or flush failed, so what is durable cannot be told. The process must end.
    #[error(
        "cannot {operation} log file {file}: {source}; end the process and check the disk before a restart"
    )]
    Final {
        /// What was tried.
        operation: &'static str,
        /// The file's name in the log directory.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// A [`WalError::Final`] came before.
    #[error("the log failed before and takes nothing more: end the process and check the disk")]
    Failed,
    /// The log belongs to someone else. Nothing was changed.
    #[error(
        "log file {file} belongs to {found}, this is {expected}: point --data at the directory of this node"
    )]
    WrongIdentity {
        /// The file's name in the log directory.
        file: String,
        /// Whose it is.
        found: Identity,
        /// Who asks.
        expected: Identity,
    },
    /// The log was written by a version with another format. Nothing was changed.
    #[error(
        "log file {file} has format {found}, this version reads {supported}: start the version that wrote it"
    )]
    UnsupportedVersion {
        /// The file's name in the log directory.
        file: String,
        /// The format found.
        found: u32,
        /// The format of this version.
        supported: u32,
    },
    /// The segment size is out of range.
    #[error("a segment of {given} bytes is too small: choose at least {least}")]
    SegmentTooSmall {
        /// What was asked for.
        given: u64,
        /// The least allowed.
        least: u64,
    },
    /// A record is of an earlier life of the replica than the log already holds.
    #[error("group {group} is at incarnation {known}, the record is of {given}: fence that replica")]
    StaleIncarnation {
        /// The group.
        group: GroupId,
        /// What the log holds.
        known: Incarnation,
        /// What the record says.
        given: Incarnation,
    },
    /// Entries would leave a hole, or lie where the log was compacted.
    #[error("group {group} continues at {from} to {to}, the entry is at {given}: reset the group first")]
    Gap {
        /// The group.
        group: GroupId,
        /// The first index that may be written.
        from: LogIndex,
        /// The last index that may be written.
        to: LogIndex,
        /// The index given.
        given: LogIndex,
    },
    /// An entry or hard state is above its bound.
    #[error("a {what} of group {group} has {bytes} bytes, above the bound of {bound}: refuse it earlier")]
    TooLarge {
        /// What it is.
        what: &'static str,
        /// The group.
        group: GroupId,
        /// Its length.
        bytes: usize,
        /// The bound.
        bound: usize,
    },
}

impl WalError {
    /// Whether the process must end, because what is durable cannot be told any more.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Final { .. } | Self::Failed)
    }
}

/// The tables cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database refused.
    #[error("the state database failed: {0}; end the process and check the disk before a restart")]
    Database(#[source] Box<redb::Error>),
    /// The database belongs to someone else. Nothing was changed.
    #[error(
        "the state database belongs to {found}, this is {expected}: point --data at the directory \
         of this node"
    )]
    WrongIdentity {
        /// Whose it is.
        found: Identity,
        /// Who asks.
        expected: Identity,
    },
    /// The database was written by a version with another format. Nothing was changed.
    #[error(
        "the state database has format {found}, this version reads {supported}: start the version \
         that wrote it"
    )]
    UnsupportedVersion {
        /// The format found.
        found: u32,
        /// The format of this version.
        supported: u32,
    },
    /// The database has tables but does not say whose it is.
    #[error(
        "the state database does not say whose it is: restore it from a backup, or start with an \
         empty directory"
    )]
    NoIdentity,
    /// A value of a group's state is not what was written.
    #[error(
        "the value of key {key:02x?} in space {space:?} of group {group} is damaged: repair the \
         replica from its peers"
    )]
    DamagedPair {
        /// The group.
        group: GroupId,
        /// The space of the key.
        space: Space,
        /// The key.
        key: Vec<u8>,
    },
    /// Another value is not what was written.
    #[error("the {what} is damaged: {remedy}")]
    Damaged {
        /// Which value.
        what: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A component's bytes are not what was written.
    #[error("the bytes of component {digest} are damaged: remove and push it again")]
    DamagedComponent {
        /// The component.
        digest: Digest,
    },
    /// A group was removed, and ids are never used again.
    #[error("group {group} was removed: choose an id that was never used")]
    GroupRemoved {
        /// The group.
        group: GroupId,
    },
    /// A value of the right checksum cannot be read.
    #[error("a stored value cannot be read: {0}; start the version that wrote it")]
    Decode(#[from] DecodeError),
}

impl From<io::Error> for StoreError {
    fn from(error: io::Error) -> Self {
        Self::Database(Box::new(error.into()))
    }
}

macro_rules! from_redb {
    ($($error:ident),*) => {
        $(impl From<redb::$error> for StoreError {
            fn from(error: redb::$error) -> Self {
                Self::Database(Box::new(error.into()))
            }
        })*
    };
}
from_redb!(DatabaseError, TransactionError, TableError, StorageError, CommitError);

/// The data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The system refused.
    #[error("cannot {operation} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process has it open.
    #[error(
        "{path} is in use by another process: stop that process, or point --data \
         elsewhere",
        path = path.display()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// It belongs to someone else. Nothing was changed.
    #[error(
        "{path} belongs to {found}, this is node {node} of cluster {cluster}: point --data at the \
         directory of this node",
        path = path.display(), node = expected.node, cluster = expected.cluster
    )]
    WrongIdentity {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        found: Identity,
        /// Who asks.
        expected: Identity,
    },
    /// It was written by a version with another format. Nothing was changed.
    #[error(
        "{path} has format {found}, this version reads {supported}: start the version that wrote \
         it",
        path = path.display()
    )]
    UnsupportedVersion {
        /// The directory.
        path: PathBuf,
        /// The format found.
        found: u32,
        /// The format of this version.
        supported: u32,
    },
    /// It holds files that are not ours.
    #[error(
        "{path} holds {name} and no identity file: point --data at an empty \
         directory",
        path = path.display()
    )]
    NotOurs {
        /// The directory.
        path: PathBuf,
        /// One of the files.
        name: String,
    },
    /// Its identity file cannot be read.
    #[error(
        "the identity file of {path} is damaged ({reason}): restore it from a \
         backup",
        path = path.display()
    )]
    Damaged {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}
