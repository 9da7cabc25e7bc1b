//! Whole transports over loopback sockets with real certificates.
//!
//! Relies on the public interface of the crate. Every wait is for something that happens, bounded by a
//! time that only a failure reaches.

#![allow(clippy::unwrap_used)]

mod fixtures;
mod links;
mod refusals;
