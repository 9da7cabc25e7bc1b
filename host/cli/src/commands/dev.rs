//! `quorate dev`: a cluster in one process.
//!
//! Relies on the node and on a cluster plan. Promises real TLS and a data directory per node, a context
//! that other commands find by themselves, and, without `--data`, that nothing is left behind. Knows
//! nothing of groups.

use std::path::Path;

use anyhow::{Context as _, Result};
use quorate_node::{Node, NodeConfig};
use serde_json::json;

use super::node::start_log;
use crate::arguments::DevArguments;
use crate::cluster::{ClusterPlan, WorkDirectory};
use crate::output::Output;
use crate::signals::{self, StandardInput};
use crate::threads;

/// Runs the command.
pub fn run(arguments: &DevArguments, output: Output) -> Result<()> {
    start_log(&arguments.log, false)?;
    let directory = WorkDirectory::new(arguments.data.as_deref(), "dev")?;
    let plan = ClusterPlan::open_or_create(directory.path(), arguments.nodes)?;
    let configs = plan.nodes.iter().map(|node| NodeConfig::load(Some(&node.config), json!({})));
    let configs = configs.collect::<Result<Vec<_>, _>>()?;
    let threads = configs.first().map_or(1, NodeConfig::runtime_threads);
    threads::runtime(threads)?.block_on(serve(arguments, &plan, configs, output))
}

async fn serve(
    arguments: &DevArguments,
    plan: &ClusterPlan,
    configs: Vec<NodeConfig>,
    output: Output,
) -> Result<()> {
    let mut nodes = Vec::new();
    for config in configs {
        let id = config.node.id;
        nodes.push(Node::start(config).await.with_context(|| format!("node {id} cannot start"))?);
    }
    plan.context.write(&arguments.context)?;
    announce(arguments, plan, output)?;
    let input = if arguments.stop_with_stdin { StandardInput::Watched } else { StandardInput::Ignored };
    let failures = nodes.iter().map(|node| Box::pin(node.failed()));
    let outcome = tokio::select! {
        result = signals::stop(input) => result,
        failure = first(failures) => Err(anyhow::anyhow!("a node can no longer promise durability: {failure}")),
    };
    for node in nodes {
        node.shutdown().await;
    }
    remove_context(&arguments.context, plan)?;
    outcome
}

fn announce(arguments: &DevArguments, plan: &ClusterPlan, output: Output) -> Result<()> {
    let context = std::path::absolute(&arguments.context)?;
    let ready = json!({
        "ready": true,
        "context": context,
        "directory": plan.directory,
        "endpoints": plan.context.endpoints,
    });
    output.show(&ready, || {
        let at_default = arguments.context == Path::new(crate::connection::DEFAULT_CONTEXT);
        let found = if at_default {
            "Commands run in this directory find it by themselves; elsewhere set".to_owned()
        } else {
            "So that commands find it, set".to_owned()
        };
        format!(
            "{} nodes are ready at {}\n{found}\n  export QUORATE_CONTEXT={}\nStop with Ctrl-C.",
            plan.nodes.len(),
            plan.context.endpoints.join(", "),
            context.display(),
        )
    })
}

/// Removes the context, unless another cluster has written its own meanwhile.
fn remove_context(file: &Path, plan: &ClusterPlan) -> Result<()> {
    match crate::connection::Context::load(file) {
        Ok(context) if context.endpoints == plan.context.endpoints => {
            std::fs::remove_file(file).with_context(|| format!("cannot remove {}", file.display()))
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

/// The first result of several futures.
async fn first<T>(futures: impl Iterator<Item = impl Future<Output = T> + Unpin>) -> T {
    let mut futures: Vec<_> = futures.collect();
    std::future::poll_fn(|context| {
        for future in &mut futures {
            if let std::task::Poll::Ready(result) = std::pin::Pin::new(future).poll(context) {
                return std::task::Poll::Ready(result);
            }
        }
        std::task::Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_future_that_is_ready_counts() {
        let pending = || {
            Box::pin(async {
                std::future::pending::<()>().await;
                1
            }) as std::pin::Pin<Box<dyn Future<Output = i32>>>
        };
        let ready = Box::pin(async { 2 }) as std::pin::Pin<Box<dyn Future<Output = i32>>>;
        assert_eq!(first([pending(), ready, pending()].into_iter()).await, 2);
    }
}
