//! `quorate bench`: commands per second and latency of a cluster.
//!
//! Relies on the load generator in [`load`], which the comparison with other systems shares. Promises a
//! durable cluster with mutual TLS, each node a process, unless an existing one is named. Knows nothing
//! of the component but its `put`.

pub mod figures;
mod kv;
pub mod load;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use quorate_client::{Client, SessionOptions};
use serde_json::{Value, json};

pub use kv::KvClient;

use crate::arguments::BenchArguments;
use crate::cluster::{ClusterPlan, Liar, ProcessCluster, WorkDirectory};
use crate::connection::{self, Context};
use crate::exit::Fault;
use crate::output::{Output, pairs};
use crate::{setup, threads};
use figures::{Figures, Process};
use load::LoadOptions;

/// How long each command may take before it counts as an error.
const COMMAND_DEADLINE: Duration = Duration::from_secs(10);

/// Runs the command.
///
/// # Errors
///
/// The cluster cannot be started or used.
pub fn run(arguments: &BenchArguments, output: Output) -> Result<()> {
    let threads = usize::try_from(arguments.threads)?;
    threads::runtime(threads)?.block_on(measure_and_show(arguments, output))
}

async fn measure_and_show(arguments: &BenchArguments, output: Output) -> Result<()> {
    let component = component_file(arguments.component.as_deref())?;
    let given = &arguments.connection;
    if arguments.kill >= arguments.nodes {
        let message =
            format!("--kill {}: at least one of {} nodes must stay", arguments.kill, arguments.nodes);
        return Err(Fault::usage(message));
    }
    let figures = if given.endpoint.is_empty() && given.context.is_none() {
        let directory = WorkDirectory::new(arguments.work.as_deref(), "bench")?;
        output.hint(&format!("starting {} nodes in {}", arguments.nodes, directory.path().display()));
        let plan = ClusterPlan::open_or_create(directory.path(), arguments.nodes)?;
        let binary = std::env::current_exe().context("this program does not know its own file")?;
        let liar = Liar { node: arguments.nodes, file: directory.path().join("lie") };
        let liar = Some(liar).filter(|_| arguments.lie);
        let mut cluster = ProcessCluster::start_with(plan, binary, liar).await?;
        let context = cluster.plan().context.clone();
        let measured = measure(&context, arguments, &component, Some(&mut cluster), output).await;
        // The directory goes with the data, so the logs are shown now or never.
        measured.map_err(|error| error.context(cluster.logs()))?
    } else if arguments.kill > 0 {
        return Err(Fault::usage("--kill is for the cluster that a measurement starts, not for yours"));
    } else {
        measure(&Context::resolve(given)?, arguments, &component, None, output).await?
    };
    let value = describe(arguments, &figures);
    output.show(&value, || figures.to_text())
}

/// Prepares the group and measures. Without a cluster of its own, only the generator's own time is known.
async fn measure(
    context: &Context,
    arguments: &BenchArguments,
    component: &Path,
    cluster: Option<&mut ProcessCluster>,
    output: Output,
) -> Result<Figures> {
    let clients = usize::try_from(arguments.clients)?;
    let connections = match usize::try_from(arguments.connections)? {
        0 => clients,
        shared => shared.min(clients),
    };
    let client = connect(context, connections, connection::deadline(&arguments.connection)).await?;
    setup::prepare(&client, &arguments.group, arguments.protocol, component).await?;
    let putters = open_clients(&client, &arguments.group, clients).await?;
    let mut processes = Vec::new();
    if let Some(cluster) = cluster {
        kill(&client, arguments, cluster, output).await?;
        if let Some(liar) = cluster.liar() {
            liar.lie()?;
            output.hint(&format!("node {} lies", liar.node));
        }
        let running = cluster.pids().into_iter();
        processes.extend(running.map(|(id, pid)| Process::new(format!("node {id}"), pid)));
    }
    let options = LoadOptions {
        value_bytes: usize::try_from(arguments.size)?,
        warm_up: load::WARM_UP,
        duration: Duration::from_secs(arguments.seconds),
    };
    load::run(putters, options, processes).await
}

/// Kills as many nodes as asked for, the leader first, so that what is measured does without them.
async fn kill(
    client: &Client,
    arguments: &BenchArguments,
    cluster: &mut ProcessCluster,
    output: Output,
) -> Result<()> {
    let leader = client.describe(&arguments.group).await?.leader.map(|hint| hint.node).unwrap_or_default();
    let others = (1..=arguments.nodes).filter(|node| *node != leader);
    for node in std::iter::once(leader).chain(others).take(usize::try_from(arguments.kill)?) {
        cluster.kill(node).await?;
        output.hint(&format!("killed node {node}"));
    }
    Ok(())
}

/// A client with this many connections to each node.
///
/// # Errors
///
/// The cluster cannot be reached.
pub async fn connect(context: &Context, connections: usize, timeout: Duration) -> Result<Client> {
    let mut config = context.client_config()?;
    config.connections = connections;
    config.deadline = timeout;
    Ok(Client::connect(config).await?)
}

/// Opens a session for each client of the generator, all at the same time.
///
/// # Errors
///
/// The group is not there, or a session cannot be opened.
pub async fn open_clients(client: &Client, group: &str, count: usize) -> Result<Vec<KvClient>> {
    let group = client.group(group).await?;
    let opening: Vec<_> = (0..count)
        .map(|_| {
            let group = group.clone();
            let options =
                SessionOptions { window: 1, deadline: Some(COMMAND_DEADLINE), ..SessionOptions::default() };
            tokio::spawn(async move { group.session(options).await })
        })
        .collect();
    let mut clients = Vec::with_capacity(count);
    for session in opening {
        clients.push(KvClient::new(session.await.context("a session's task ended")??));
    }
    Ok(clients)
}

fn describe(arguments: &BenchArguments, figures: &Figures) -> Value {
    let mut value = figures.to_json();
    if let Some(object) = value.as_object_mut() {
        let shape = json!({
            "clients": arguments.clients, "connections": arguments.connections, "size": arguments.size,
            "nodes": arguments.nodes, "protocol": arguments.protocol.name(), "killed": arguments.kill,
            "lies": arguments.lie,
        });
        object.extend(shape.as_object().cloned().unwrap_or_default());
    }
    value
}

/// The component that is measured: the given one, or the one that `cargo xtask plugins` built.
fn component_file(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(file) = given {
        return Ok(file.to_owned());
    }
    // This binary lies in <target>/<profile>/.
    let binary = std::env::current_exe().context("this program does not know its own file")?;
    let beside = binary.ancestors().nth(2).map(|target| target.join("components").join("kv.wasm"));
    beside.filter(|file| file.is_file()).ok_or_else(|| {
        Fault::usage(
            "the key-value component is not built: run `cargo xtask plugins`, or name it with --component",
        )
    })
}

impl Figures {
    /// The figures for people.
    #[must_use]
    pub fn to_text(&self) -> String {
        let micros = |value: u64| format!("{value} us");
        let mut lines = vec![
            ("commands/s", format!("{:.0}", self.commands_per_second)),
            ("median", micros(self.p50_us)),
            ("99th percentile", micros(self.p99_us)),
            ("longest", micros(self.max_us)),
            ("errors", self.errors.to_string()),
            ("processor time", format!("{:.2} us per command", self.cpu_us_per_command)),
        ];
        for (process, micros) in &self.cpu {
            lines.push(("", format!("{micros:.2} us in {process}")));
        }
        pairs(&lines)
    }
}
