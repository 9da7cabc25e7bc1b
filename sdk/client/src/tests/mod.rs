//! The client against a cluster that misbehaves by script.
//!
//! Relies on a network in memory and on tokio's paused clock: seconds of timeouts take no time, and every
//! run is the same. Checks what the fake cluster applied, not what the client believes.

#![allow(clippy::unwrap_used)]

mod commands;
mod failover;
pub(crate) mod network;
mod observers;
mod operators;
mod secure;
mod world;

use std::time::Duration;

use bytes::Bytes;

use crate::{Client, ClientConfig, Error, Group, Outcome, Session, SessionOptions};
use world::World;

/// A client of a fake cluster's group.
async fn client_of(world: &World) -> Client {
    Client::connect(config_of(world)).await.unwrap()
}

fn config_of(world: &World) -> ClientConfig {
    ClientConfig::in_memory(world.addresses(), world.network().clone())
}

async fn group_of(world: &World) -> Group {
    client_of(world).await.group("ledger").await.unwrap()
}

async fn session_of(world: &World) -> Session {
    group_of(world).await.session(SessionOptions::default()).await.unwrap()
}

/// Submits a command named by a number.
async fn submit(session: &Session, number: u64) -> Result<Outcome, Error> {
    session.submit(&format!("c{number}"), Bytes::from_static(b"body")).await
}

fn ms(value: u64) -> Duration {
    Duration::from_millis(value)
}
