//! `cargo xtask bench peers`: this system and etcd under one load generator, in turn.
//!
//! Relies on the generator of `quorate bench` and on an installed etcd. Promises equal clients,
//! connections, keys, value sizes, durability and mutual TLS on both sides, a fresh cluster for every
//! measurement, alternating order, and the raw figures of both sides of every round. Knows nothing of how
//! either side works.

mod etcd;
mod ratio;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;
use quorate_cli::arguments::Protocol;
use quorate_cli::bench::figures::{Figures, Process};
use quorate_cli::bench::load::{self, LoadOptions};
use quorate_cli::cluster::{ClusterPlan, ProcessCluster, WorkDirectory};
use quorate_cli::{bench, setup};

use crate::etcd::EtcdCluster;
use crate::ratio::{Comparison, Round};

/// Nodes of each side.
const NODES: u64 = 3;
/// The group that is measured.
const GROUP: &str = "bench";
/// How long preparing a cluster may take.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(30);

/// Compares this system with etcd.
#[derive(Debug, Parser)]
#[command(name = "quorate-peers")]
struct Arguments {
    /// The key-value component.
    #[arg(long, value_name = "FILE")]
    component: PathBuf,
    /// Rounds; each measures both sides, in alternating order.
    #[arg(long, default_value = "5", value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// Seconds of each measurement, after two that do not count.
    #[arg(long, default_value = "10", value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Numbers of clients, each with one put outstanding.
    #[arg(long, value_delimiter = ',', default_value = "1,256,1024")]
    clients: Vec<usize>,
    /// Numbers of connections that the clients share; 0 for one connection per client.
    #[arg(long, value_delimiter = ',', default_value = "16,0")]
    connections: Vec<usize>,
    /// Bytes of each value.
    #[arg(long, default_value = "256")]
    size: usize,
    /// Directory of the data of both sides [default: the system's temporary one]
    #[arg(long, value_name = "DIRECTORY")]
    work: Option<PathBuf>,
    /// Tables for people, or JSON for programs.
    #[arg(long, value_enum, default_value = "table")]
    output: quorate_cli::arguments::Format,
}

/// One shape of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    clients: usize,
    connections: usize,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    // One thread, as `quorate bench` has by default: the generator must not take the nodes' processors.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut comparisons = Vec::new();
    for shape in shapes(&arguments.clients, &arguments.connections) {
        let mut rounds = Vec::new();
        for number in 0..arguments.rounds {
            let round = runtime.block_on(round(arguments, shape, number))?;
            eprintln!("{} clients, {} connections: {round}", shape.clients, shape.connections);
            rounds.push(round);
        }
        comparisons.push(Comparison { clients: shape.clients, connections: shape.connections, rounds });
    }
    ratio::show(&comparisons, quorate_cli::output::Output::new(arguments.output))
}

/// Every combination; one that repeats another, as one client over 16 connections does, is left out.
fn shapes(clients: &[usize], connections: &[usize]) -> Vec<Shape> {
    let mut shapes = Vec::new();
    for &clients in clients {
        for &shared in connections {
            let connections = if shared == 0 { clients } else { shared.min(clients) };
            let shape = Shape { clients, connections };
            if !shapes.contains(&shape) {
                shapes.push(shape);
            }
        }
    }
    shapes
}

/// Measures both sides; which one comes first alternates.
async fn round(arguments: &Arguments, shape: Shape, number: u64) -> Result<Round> {
    if number.is_multiple_of(2) {
        let ours = ours(arguments, shape).await?;
        Ok(Round { ours, theirs: theirs(arguments, shape).await? })
    } else {
        let theirs = theirs(arguments, shape).await?;
        Ok(Round { ours: ours(arguments, shape).await?, theirs })
    }
}

fn load_options(arguments: &Arguments) -> LoadOptions {
    LoadOptions {
        value_bytes: arguments.size,
        warm_up: load::WARM_UP,
        duration: Duration::from_secs(arguments.seconds),
    }
}

async fn ours(arguments: &Arguments, shape: Shape) -> Result<Figures> {
    let directory = side_directory(arguments, "quorate")?;
    let plan = ClusterPlan::create(directory.path(), NODES)?;
    let cluster = ProcessCluster::start(plan, sibling_binary()?).await?;
    let client = bench::connect(&cluster.plan().context, shape.connections, PREPARE_TIMEOUT).await?;
    setup::prepare(&client, GROUP, Protocol::Raft, &arguments.component).await?;
    let clients = bench::open_clients(&client, GROUP, shape.clients).await?;
    let processes = cluster.pids().into_iter().map(|(id, pid)| Process::new(format!("node {id}"), pid));
    let figures = load::run(clients, load_options(arguments), processes.collect()).await;
    figures.with_context(|| format!("quorate was not measured\n{}", cluster.logs()))
}

async fn theirs(arguments: &Arguments, shape: Shape) -> Result<Figures> {
    let directory = side_directory(arguments, "etcd")?;
    let cluster = EtcdCluster::start(directory.path(), NODES).await?;
    let clients = cluster.clients(shape.clients, shape.connections).await?;
    let figures = load::run(clients, load_options(arguments), cluster.processes()).await;
    figures.with_context(|| format!("etcd was not measured; its logs are in {}", directory.path().display()))
}

/// A fresh directory for one side of one measurement, removed afterwards.
fn side_directory(arguments: &Arguments, side: &str) -> Result<WorkDirectory> {
    match &arguments.work {
        Some(work) => WorkDirectory::below(work, side),
        None => WorkDirectory::new(None, side),
    }
}

/// The `quorate` binary of the same build.
fn sibling_binary() -> Result<PathBuf> {
    let own = std::env::current_exe().context("this program does not know its own file")?;
    let binary = own.parent().unwrap_or(Path::new(".")).join("quorate");
    anyhow::ensure!(binary.is_file(), "{} is not there; build it with this program", binary.display());
    Ok(binary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_cover_shared_and_own_connections_without_repetition() {
        let shape = |clients, connections| Shape { clients, connections };
        let expected = [shape(1, 1), shape(256, 16), shape(256, 256), shape(1024, 16), shape(1024, 1024)];
        assert_eq!(shapes(&[1, 256, 1024], &[16, 0]), expected);
    }
}
