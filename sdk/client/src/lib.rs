//! The client library of Quorate: sessions whose commands count exactly once, queries, watches, and
//! the calls of operators.
//!
//! Relies on `quorate-proto` for the interface, on tonic for HTTP/2 and on rustls for TLS. Promises that
//! a command which was answered was applied once, whatever was repeated on the way; that nothing waits
//! longer than its deadline; and that every error says whether the command may have been applied and
//! what to do next. Knows nothing of what commands mean, and nothing of nodes but their interface.
//!
//! ```text
//!   Session --.                          .-- Link (slot 0) --.
//!   Session ---+--> Route of the group --+-- Link (slot 1) ---+--> Node "host:port"
//!   Session --'     (who leads?)         '-- Link (slot 2) --'
//! ```
//!
//! A [`Session`] numbers its commands and keeps each number until it has an outcome. The *route* of a
//! group knows who leads it and finds out again when that turns out wrong. A *link* is one stream on one
//! connection: it carries the commands of many sessions, writes what queued up meanwhile as one frame,
//! and hands replies back by tag.
//!
//! Replicas of groups of the kinds hybrid and Byzantine may lie. There a client signs what it submits with the key of
//! its certificate, sends it to every member over a connection that TLS authenticated as that member, and believes what
//! f + 1 of them say alike: the *lane* of such a group takes the place of its route.
//!
//! ```no_run
//! # async fn example() -> Result<(), quorate_client::Error> {
//! use quorate_client::{Client, ClientConfig, Consistency, SessionOptions, TlsConfig};
//!
//! let tls = TlsConfig::from_files("pki/ca.pem", "pki/app.pem", "pki/app-key.pem")?;
//! let client = Client::connect(ClientConfig::new(["localhost:7101", "localhost:7102"], tls)).await?;
//! let ledger = client.group("ledger").await?;
//! let session = ledger.session(SessionOptions::default()).await?;
//! let _balance: u64 = session.command("deposit", &("alice", 100)).await?;
//! let _balance: u64 = ledger.ask("balance", &"alice", Consistency::Linearizable).await?;
//! # Ok(())
//! # }
//! ```

mod admin;
mod agreement;
mod calls;
mod client;
mod config;
mod deployment;
mod error;
mod exchange;
mod group;
mod jitter;
mod lane;
mod link;
mod node;
mod pending;
mod route;
mod session;
#[cfg(test)]
mod tests;
mod tls;
pub mod value;
mod verdict;
mod watch;
mod window;

pub use admin::Admin;
pub use client::Client;
pub use config::{CONNECTIONS_MAX, ClientConfig};
pub use error::{Error, Rejection};
pub use group::{Answer, Consistency, Group};
/// The messages that [`Admin`] takes and gives, and the codes of refusals.
pub use quorate_proto::v1 as proto;
pub use session::{Outcome, Session, SessionOptions};
pub use tls::TlsConfig;
pub use watch::{Happening, Watch, WatchFrom};
