//! The demonstration: real commands, a killed leader, a killed cluster, and nothing acknowledged lost. Under
//! HotStuff one of four nodes lies from half-way on in place of the killed cluster, and is found out.
//!
//! Relies on node processes of this machine and on the ledger's audit, which needs no order. Promises exit
//! status 0 only if every command was acknowledged, none was lost or applied twice, money was conserved and
//! all replicas agree; or, with orders, if each of them came to the end that it must. Knows nothing of how
//! the cluster does it.
//!
//! ```text
//! commands   0 ........ 1/3 ................ 2/3 ........ end      audit, digests
//!                        |                    |
//!               kill -9 the leader     kill -9 every node
//!               restart it             restart them
//! ```

mod orders;
mod submission;
mod summary;
mod workload;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use quorate_client::{Client, Consistency, Group, SessionOptions};
use quorate_ledger::Account;
use serde_json::{Value, json};

use crate::arguments::{DemoArguments, Protocol, Scenario};
use crate::cluster::{ClusterPlan, Liar, ProcessCluster, WorkDirectory};
use crate::commands::evidence;
use crate::output::Output;
use crate::setup;
use crate::signals::{self, StandardInput};
use orders::Orders;
use submission::Submission;
use summary::{Lies, Replica, Summary};
use workload::Workload;

const GROUP: &str = "ledger";
/// How long a command may take, elections and restarts included.
const COMMAND_DEADLINE: Duration = Duration::from_secs(60);
/// How long replicas may take to agree once nothing is submitted any more.
const AGREEMENT_TIMEOUT: Duration = Duration::from_secs(20);
/// The pause between two looks at the replicas.
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// A text, given where the cluster can be started again.
type Text = Box<dyn FnOnce(Option<&Path>) -> String>;

/// What a scenario came to.
struct Finding {
    /// For programs.
    json: Value,
    /// For people.
    text: Text,
    /// Whether all that it promises is so.
    held: bool,
}

/// What a scenario works on, read before anything is started.
enum Work {
    Ledger(Workload),
    Orders(Orders),
}

/// Runs the demonstration.
///
/// # Errors
///
/// Something did not hold, or the cluster could not be run; its directory with the logs is kept then.
pub async fn run(arguments: DemoArguments, output: Output) -> Result<()> {
    let work = match (arguments.scenario, &arguments.definition) {
        (Scenario::Workflow, Some(definition)) => {
            Work::Orders(Orders::read(&arguments.commands, definition)?)
        }
        _ => Work::Ledger(Workload::read(&arguments.commands)?),
    };
    let mut directory = WorkDirectory::new(arguments.work.as_deref(), "demo")?;
    if arguments.keep {
        directory.keep();
    }
    let shown = tokio::select! {
        shown = show(&arguments, work, directory.path(), output) => shown,
        stopped = signals::stop(StandardInput::Ignored) => stopped.and_then(|()| bail!("interrupted")),
    };
    if shown.is_err() {
        directory.keep();
        output.hint(&format!("the cluster's logs and data are kept in {}", directory.path().display()));
    }
    let finding = shown?;
    output.show(&finding.json, || (finding.text)(arguments.keep.then(|| directory.path())))?;
    if !finding.held {
        directory.keep();
        bail!("not all of it held; logs and data are kept in {}", directory.path().display());
    }
    Ok(())
}

async fn show(arguments: &DemoArguments, work: Work, directory: &Path, output: Output) -> Result<Finding> {
    // As few as survive the loss of one: three that may stop, four of which one may lie.
    let nodes = if arguments.protocol == Protocol::Raft { 3 } else { 4 };
    output.hint(&format!("starting {nodes} nodes in {}", directory.display()));
    let plan = ClusterPlan::create(directory, nodes)?;
    let binary = std::env::current_exe().context("this program does not know its own file")?;
    let liar = Liar { node: nodes, file: directory.join("lie") };
    let liar = Some(liar).filter(|_| arguments.protocol == Protocol::Hotstuff);
    let mut cluster = ProcessCluster::start_with(plan, binary, liar).await?;
    let played = match work {
        Work::Ledger(workload) => play(arguments, workload, &mut cluster, output).await,
        Work::Orders(orders) => orders::play(arguments, orders, &mut cluster, output).await,
    };
    if played.is_err() {
        output.hint(&cluster.logs());
    }
    played
}

async fn play(
    arguments: &DemoArguments,
    workload: Workload,
    cluster: &mut ProcessCluster,
    output: Output,
) -> Result<Finding> {
    let client = connect(cluster).await?;
    setup::prepare(&client, GROUP, arguments.protocol, &arguments.component).await?;
    let protocol = arguments.protocol.name();
    output.hint(&format!("the ledger component runs in group `ledger` on every node, ordered by {protocol}"));
    let group = client.group(GROUP).await?;
    let sessions = usize::try_from(arguments.sessions)?;
    let total = workload.len();
    output.hint(&format!("submitting {total} commands through {sessions} clients at once"));
    let submission = Submission::start(workload, &group, sessions, session_options()).await?;
    let progress = output.is_watched().then(|| submission.show_progress());
    let failover = kill_leader(&client, cluster, &submission, output).await?;
    let recovery = match cluster.liar() {
        None => Some(kill_all(cluster, &submission, output).await?),
        Some(liar) => {
            lie(liar, &submission, output).await?;
            None
        }
    };
    let submitted = submission.finish().await?;
    drop(progress);
    output.hint(&format!("{} commands acknowledged; looking at every replica", submitted.acknowledged()));
    if let Some(fault) = submitted.fault() {
        output.hint(&format!("not every command has an answer: {fault}"));
    }
    let report = submitted.audit().compare(&accounts(&group).await?);
    let lies = match cluster.liar() {
        Some(liar) => Some(proofs(&client, liar).await?),
        None => None,
    };
    let replicas = agreement(&client, cluster, GROUP).await?;
    let summary = Summary {
        lies,
        commands: total,
        report,
        failover,
        recovery,
        elapsed: submitted.elapsed(),
        refused: submitted.refused(),
        replicas,
    };
    let (json, held) = (summary.to_json(), summary.held());
    Ok(Finding { json, held, text: Box::new(move |kept| summary.to_text(kept)) })
}

async fn connect(cluster: &ProcessCluster) -> Result<Client> {
    let mut config = cluster.plan().context.client_config()?;
    config.deadline = COMMAND_DEADLINE;
    config.connections = 4;
    Ok(Client::connect(config).await?)
}

fn session_options() -> SessionOptions {
    SessionOptions { window: 1, deadline: Some(COMMAND_DEADLINE), ..SessionOptions::default() }
}

/// Kills the leader at one third and starts it again; the longest silence between acknowledgements.
async fn kill_leader(
    client: &Client,
    cluster: &mut ProcessCluster,
    submission: &Submission,
    output: Output,
) -> Result<Duration> {
    submission.acknowledged(submission.total() / 3).await?;
    let leader = client.describe(GROUP).await?.leader.map(|hint| hint.node).unwrap_or_default();
    let before = submission.count();
    let killed = Instant::now();
    cluster.kill(leader).await?;
    output.hint(&format!("{before} acknowledged: killed node {leader}, which led, with SIGKILL"));
    // Answers that were on their way when the leader died do not show that another one took over.
    submission.acknowledged(before + submission.sessions() + 1).await?;
    let silence = submission.longest_silence_since(killed);
    output.hint(&format!("another node leads; the longest silence was {} ms", silence.as_millis()));
    cluster.start_all().await?;
    output.hint(&format!("node {leader} is back"));
    Ok(silence)
}

/// Makes one node lie at half.
async fn lie(liar: &Liar, submission: &Submission, output: Output) -> Result<()> {
    submission.acknowledged(submission.total() / 2).await?;
    liar.lie()?;
    let before = submission.count();
    output.hint(&format!("{before} acknowledged: node {} lies from now on", liar.node));
    submission.open_all();
    Ok(())
}

/// What the group's log proves about the liar, each proof verified here.
async fn proofs(client: &Client, liar: &Liar) -> Result<Lies> {
    let give_up = Instant::now() + AGREEMENT_TIMEOUT;
    loop {
        let reply = client.admin().list_evidence(GROUP).await?;
        let set = evidence::members(&reply)?;
        let mut lies = Lies { node: liar.node, proofs: Vec::new(), wrong: 0 };
        for proof in reply.evidence.iter().filter(|proof| proof.index > 0) {
            match evidence::verify(proof, &set) {
                Ok(()) if proof.node == liar.node => lies.proofs.push(format!(
                    "node {} signed two different {}s in view {} (entry {})",
                    proof.node, proof.kind, proof.view, proof.index
                )),
                _ => lies.wrong += 1,
            }
        }
        if !lies.proofs.is_empty() || lies.wrong > 0 || Instant::now() > give_up {
            return Ok(lies);
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

/// Kills every node at two thirds and starts them again; the longest silence between acknowledgements.
async fn kill_all(cluster: &mut ProcessCluster, submission: &Submission, output: Output) -> Result<Duration> {
    submission.open_all();
    submission.acknowledged(submission.total() * 2 / 3).await?;
    let before = submission.count();
    let killed = Instant::now();
    cluster.kill_all().await?;
    output.hint(&format!("{before} acknowledged: killed every node with SIGKILL"));
    cluster.start_all().await?;
    output.hint("all nodes are back");
    submission.acknowledged(before + submission.sessions() + 1).await?;
    Ok(submission.longest_silence_since(killed))
}

/// Every account of the ledger, page by page, from the leader.
async fn accounts(group: &Group) -> Result<BTreeMap<String, Account>> {
    let mut accounts = BTreeMap::new();
    let mut after: Option<String> = None;
    loop {
        let arguments = json!({ "after": after });
        let page: Vec<(String, Account)> =
            group.ask("accounts", &arguments, Consistency::Linearizable).await?;
        let Some((last, _)) = page.last() else { return Ok(accounts) };
        after = Some(last.clone());
        accounts.extend(page);
    }
}

/// Waits until all replicas have applied the same index, and asks each for its digest there.
async fn agreement(client: &Client, cluster: &ProcessCluster, group: &str) -> Result<Vec<Replica>> {
    let give_up = Instant::now() + AGREEMENT_TIMEOUT;
    loop {
        // All at once: where members sign, each question has a checkpoint ordered that answers the others too.
        let mut asked = Vec::new();
        for node in &cluster.plan().nodes {
            let (admin, group) = (client.admin_at(&node.api.to_string())?, group.to_owned());
            asked.push((node.id, tokio::spawn(async move { admin.state_digest(&group, 0).await })));
        }
        let mut replicas = Vec::new();
        for (node, reply) in asked {
            let reply = reply.await.context("a question's task ended")?;
            let reply = reply.with_context(|| format!("node {node} does not tell its state's digest"))?;
            let state_digest = setup::hex(&reply.digest);
            replicas.push(Replica { node, applied_index: reply.applied_index, state_digest });
        }
        let level = replicas.windows(2).all(|pair| pair[0].applied_index == pair[1].applied_index);
        if level || Instant::now() > give_up {
            return Ok(replicas);
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}
