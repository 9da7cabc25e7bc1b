//! A node: groups, shards, catalog, and the port for clients.
//!
//! Relies on every room below and is the only one that joins them. Promises one reply for each request,
//! that no group can harm another, and that nothing is acknowledged before a quorum holds it durably.
//! Knows no command line.
//!
//! ```text
//! client --> api --> shard (driver: replica + machine of each group) --> transport --> peers
//!                      |   ^                                        \--> log thread, checkpoint thread
//!                      |   +-- signatures (votes) <-- frames of groups that sign, and of their clients
//!                      +--> runtime (components)
//! ```

mod accused;
mod api;
pub mod catalog;
mod clients;
mod clock;
mod config;
pub mod driver;
mod machine;
mod mailbox;
mod node;
mod remote;
mod sessions;
mod shard;
mod signatures;
mod timers;
mod workers;

pub use accused::{Accused, EVIDENCE_PER_MEMBER_MAX, ProvenLie};
pub use config::{
    ClusterNode, ClusterSection, ConfigError, Explained, LimitSection, ListenSection, LogSection, NodeConfig,
    NodeSection, RaftSection, ThreadSection, TlsSection,
};
pub use machine::{
    AppliedEntry, ApplyStop, CheckpointHeader, DigestInterval, Machine, MachineIdentity, QueryAnswer,
    QueryJob,
};
pub use node::{Node, NodeError};
pub use sessions::{SESSIONS_MAX, TTL_MS_MAX, TTL_MS_MIN, WINDOW_MAX};
pub use workers::DiskFailure;
