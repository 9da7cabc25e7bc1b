//! Clusters on one machine: what they are made of, and their processes.
//!
//! Relies on the PKI and on the `quorate` binary itself. Promises a cluster with real mutual TLS and a
//! data directory per node, whose processes end when this one does, however it ends. Knows nothing of
//! what the cluster is used for.

mod directory;
mod keys;
mod plan;
mod ports;
mod process;
pub mod usage;

pub use directory::WorkDirectory;
pub use keys::consensus_key;
pub use plan::{ClusterPlan, PlannedNode, random_cluster};
pub use ports::free as free_ports;
pub use process::{Liar, NodeProcess, ProcessCluster};
