//! `quorate node run`: one node in this process.
//!
//! Relies on the node. Promises one line on standard output once it is ready, logs on standard error, a
//! clean stop when asked, and a failure when its disk fails. Knows nothing of groups.

use anyhow::{Context as _, Result, bail};
use quorate_node::{Node, NodeConfig};
use serde_json::json;
use tracing_subscriber::EnvFilter;

use crate::arguments::NodeCommand;
use crate::exit::Fault;
use crate::output::Output;
use crate::signals::{self, StandardInput};
use crate::threads;

/// Runs the command.
pub fn run(command: NodeCommand, output: Output) -> Result<()> {
    let NodeCommand::Run(arguments) = command;
    start_log(&arguments.log, arguments.log_json)?;
    let config = super::config::load(&arguments.config)?;
    if config.threads.batch
        && let Err(error) = threads::schedule_as_batch()
    {
        tracing::warn!(%error, "threads are not scheduled as batch work, see threads.batch");
    }
    let input = if arguments.stop_with_stdin { StandardInput::Watched } else { StandardInput::Ignored };
    threads::runtime(config.runtime_threads())?.block_on(serve(config, input, output))
}

async fn serve(config: NodeConfig, input: StandardInput, output: Output) -> Result<()> {
    let id = config.node.id;
    let node = Node::start(config).await.with_context(|| format!("node {id} cannot start"))?;
    let (api, peer) = (node.api_address().to_string(), node.peer_address().to_string());
    let ready = json!({ "ready": true, "node": id, "api": api, "peer": peer });
    output.show(&ready, || format!("node {id} is ready: clients at {api}, nodes at {peer}"))?;
    tokio::select! {
        result = signals::stop(input) => result?,
        failure = node.failed() => bail!("node {id} stops, since it can no longer promise durability: {failure}"),
    }
    node.shutdown().await;
    Ok(())
}

/// Sends log lines that pass the filter to standard error.
pub fn start_log(filter: &str, as_json: bool) -> Result<()> {
    let filter = EnvFilter::try_new(filter)
        .map_err(|error| Fault::usage(format!("the log filter {filter:?} cannot be read: {error}")))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = if as_json { lines.json().try_init() } else { lines.with_ansi(false).try_init() };
    started.map_err(|error| anyhow::anyhow!("logging cannot start: {error}"))
}
