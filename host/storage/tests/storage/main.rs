//! Durable state against a disk that crashes, fills up and decays.

mod common;
mod store;
mod wal_crash;
mod wal_damage;
mod wal_log;
mod wal_truncation;
