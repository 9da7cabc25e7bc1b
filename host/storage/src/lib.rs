//! Everything durable of one node: the write-ahead log that all its groups share, and the tables for
//! checkpoints, descriptions and component bytes.
//!
//! Relies on `types` for words and codec, on redb for the tables and on `std::fs` for files. Promises
//! that what was flushed is there after a crash, that nothing is there that was not written, that
//! damage is reported and never passed over, and that nothing of another node, cluster or version is
//! touched. Knows no protocol: hard states, descriptions and headers are bytes to it.
//!
//! | module | what it holds |
//! |---|---|
//! | `disk`, `file_disk`, `sim_disk` | files of one directory: the interface, real, simulated |
//! | `wal` | the shared log: format, recovery, truncation |
//! | `store`, `backend` | the redb tables, and where redb keeps its file |
//! | `directory` | the data directory: identity file and lock |

mod backend;
mod directory;
mod disk;
mod error;
mod file_disk;
mod identity;
mod sim_disk;
mod store;
mod wal;

pub use backend::{DiskBackend, SimBackend};
pub use directory::DataDirectory;
pub use disk::{Disk, DiskFile};
pub use error::{DirectoryError, StoreError, WalError};
pub use file_disk::{FileDisk, FileDiskFile};
pub use identity::Identity;
pub use sim_disk::{SimDisk, SimFile, SimOperation};
pub use store::{Change, LoadedCheckpoint, Pair, Space, Store};
pub use wal::{
    Damage, DamageKind, FlushDone, FlushPending, GroupAppend, HARD_STATE_BYTES_MAX, RecoveredGroup, Recovery,
    Wal, WalOptions, WalStatistics,
};
