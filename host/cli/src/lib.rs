//! The command line of Quorate: nodes, clusters on one machine, administration, the load generator and
//! the demonstration.
//!
//! Relies on the node and on the client library. Promises tables for people, JSON for programs, and an
//! exit status that tells what kind of failure it was. Knows nothing of how consensus works.

#[cfg(unix)]
mod allocator;
pub mod arguments;
pub mod bench;
pub mod cluster;
pub mod commands;
pub mod connection;
pub mod demo;
pub mod exit;
pub mod output;
pub mod setup;
mod signals;
mod threads;
pub mod votes;
pub mod workflow;
