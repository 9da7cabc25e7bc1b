//! Nodes as processes of this machine.
//!
//! Relies on the `quorate` binary. Promises that no node outlives this process: each is killed when its
//! value is dropped, and stops by itself when the pipe to its standard input closes. Knows nothing of
//! what runs on the cluster.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::{ClusterPlan, PlannedNode};

/// How long a node may take to recover its data and listen.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Lines of a node's log that are shown when it fails.
const LOG_LINES_SHOWN: usize = 30;

/// A running node.
#[derive(Debug)]
pub struct NodeProcess {
    id: u64,
    child: Child,
}

impl NodeProcess {
    /// Its process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Ends it with SIGKILL: it writes nothing more, not even what it holds in memory.
    ///
    /// # Errors
    ///
    /// The system does not let it be killed.
    pub async fn kill(&mut self) -> Result<()> {
        self.child.kill().await.with_context(|| format!("node {} cannot be killed", self.id))
    }
}

/// The nodes of a plan, each a process.
#[derive(Debug)]
pub struct ProcessCluster {
    plan: ClusterPlan,
    binary: PathBuf,
    /// By node; none where it does not run.
    nodes: Vec<Option<NodeProcess>>,
    liar: Option<Liar>,
}

/// A node of the build that can lie.
#[derive(Clone, Debug)]
pub struct Liar {
    /// Its number.
    pub node: u64,
    /// It lies from when this file is there.
    pub file: PathBuf,
}

impl Liar {
    /// Makes it say two things in place of one from now on.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn lie(&self) -> Result<()> {
        self.lie_about("")
    }

    /// Makes it lie from now on about `clients`: it orders what no client sent and answers falsely. Anything else is
    /// as [`Liar::lie`].
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn lie_about(&self, what: &str) -> Result<()> {
        fs::write(&self.file, what).with_context(|| format!("cannot write {}", self.file.display()))
    }
}

impl ProcessCluster {
    /// Starts every node of a plan and waits until all are ready.
    ///
    /// # Errors
    ///
    /// A node does not become ready; the end of its log is in the error.
    pub async fn start(plan: ClusterPlan, binary: PathBuf) -> Result<Self> {
        Self::start_with(plan, binary, None).await
    }

    /// The same, with a node that can be made to lie: a test of the others.
    ///
    /// # Errors
    ///
    /// As [`ProcessCluster::start`], and for a build whose nodes cannot lie.
    pub async fn start_with(plan: ClusterPlan, binary: PathBuf, liar: Option<Liar>) -> Result<Self> {
        if liar.is_some() && !cfg!(feature = "planted") {
            bail!("nodes of this build cannot lie: use `cargo xtask`, which builds one whose nodes can");
        }
        let nodes = plan.nodes.iter().map(|_| None).collect();
        let mut cluster = Self { plan, binary, nodes, liar };
        cluster.start_all().await?;
        Ok(cluster)
    }

    /// The node that can be made to lie.
    #[must_use]
    pub fn liar(&self) -> Option<&Liar> {
        self.liar.as_ref()
    }

    /// What it was made from.
    #[must_use]
    pub fn plan(&self) -> &ClusterPlan {
        &self.plan
    }

    /// Starts the nodes that do not run.
    ///
    /// # Errors
    ///
    /// As [`ProcessCluster::start`].
    pub async fn start_all(&mut self) -> Result<()> {
        let mut starting = Vec::new();
        for at in 0..self.nodes.len() {
            if self.nodes[at].is_none() {
                let node = &self.plan.nodes[at];
                let liar = self.liar.as_ref().filter(|liar| liar.node == node.id);
                starting.push((at, spawn(&self.binary, node, &self.log_file(node.id), liar)?));
            }
        }
        for (at, mut process) in starting {
            self.wait_until_ready(&mut process).await?;
            self.nodes[at] = Some(process);
        }
        Ok(())
    }

    /// Kills one node with SIGKILL.
    ///
    /// # Errors
    ///
    /// There is no such node, it does not run, or it cannot be killed.
    pub async fn kill(&mut self, id: u64) -> Result<()> {
        let at = self.plan.nodes.iter().position(|node| node.id == id);
        let process = at.and_then(|at| self.nodes[at].take());
        process.with_context(|| format!("node {id} does not run"))?.kill().await
    }

    /// Kills every node with SIGKILL, all before any is waited for.
    ///
    /// # Errors
    ///
    /// One cannot be killed.
    pub async fn kill_all(&mut self) -> Result<()> {
        for process in self.nodes.iter_mut().flatten() {
            process.child.start_kill().with_context(|| format!("node {} cannot be killed", process.id))?;
        }
        for process in &mut self.nodes {
            if let Some(mut process) = process.take() {
                process.kill().await?;
            }
        }
        Ok(())
    }

    /// Process ids of the running nodes.
    #[must_use]
    pub fn pids(&self) -> Vec<(u64, u32)> {
        self.nodes.iter().flatten().filter_map(|node| Some((node.id, node.pid()?))).collect()
    }

    /// The ends of all logs, for whoever looks for a fault.
    #[must_use]
    pub fn logs(&self) -> String {
        let show = |node: &PlannedNode| {
            let file = self.log_file(node.id);
            format!("--- {}\n{}\n", file.display(), log_tail(&file))
        };
        self.plan.nodes.iter().map(show).collect()
    }

    /// Where a node's log goes.
    #[must_use]
    pub fn log_file(&self, id: u64) -> PathBuf {
        self.plan.directory.join(format!("node-{id}.log"))
    }

    async fn wait_until_ready(&self, process: &mut NodeProcess) -> Result<()> {
        let ready = tokio::time::timeout(START_TIMEOUT, first_line(&mut process.child)).await;
        let fault = match ready {
            Ok(Ok(Some(_))) => return Ok(()),
            Ok(Ok(None)) => "ended before it was ready".to_owned(),
            Ok(Err(error)) => format!("cannot be read: {error}"),
            Err(_) => format!("was not ready within {} s", START_TIMEOUT.as_secs()),
        };
        let log = log_tail(&self.log_file(process.id));
        bail!("node {} {fault}; the end of its log:\n{log}", process.id)
    }
}

/// Starts a node; its log grows at the end of a file.
fn spawn(binary: &Path, node: &PlannedNode, log: &Path, liar: Option<&Liar>) -> Result<NodeProcess> {
    let log = open_log(log)?;
    let lie_file = liar.map(|liar| ("PLANTED_LIE_FILE", &liar.file));
    let child = Command::new(binary)
        .envs(lie_file)
        .args(["node", "run", "--stop-with-stdin", "--output", "json", "--config"])
        .arg(&node.config)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {}", binary.display()))?;
    Ok(NodeProcess { id: node.id, child })
}

fn open_log(path: &Path) -> Result<File> {
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.with_context(|| format!("cannot write {}", path.display()))
}

/// The line by which a node says that it is ready; none if it ended first.
async fn first_line(child: &mut Child) -> std::io::Result<Option<String>> {
    match child.stdout.take() {
        // The pipe may close afterwards: a node prints nothing else.
        Some(stdout) => BufReader::new(stdout).lines().next_line().await,
        None => Ok(None),
    }
}

fn log_tail(file: &Path) -> String {
    let text = fs::read(file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_the_end_of_a_log_is_shown() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("node.log");
        let text: Vec<_> = (0..100).map(|line| format!("line {line}")).collect();
        fs::write(&file, text.join("\n")).unwrap();
        let tail = log_tail(&file);
        assert!(tail.ends_with("line 99") && !tail.contains("line 69\n"), "{tail}");
        assert_eq!(log_tail(&directory.path().join("none")), "");
    }

    #[tokio::test]
    async fn a_binary_that_ends_at_once_is_reported() {
        let directory = tempfile::tempdir().unwrap();
        let plan = ClusterPlan::create(directory.path(), 1).unwrap();
        let error = ProcessCluster::start(plan, "/bin/false".into()).await.unwrap_err();
        assert!(error.to_string().contains("ended before it was ready"), "{error}");
    }
}
