//! Orders as durable cases: started by many clients, worked on by many workers, through the loss of the
//! leader.
//!
//! Relies on the workflow component and on the shop that its example ships for what happens outside.
//! Promises to compare the end of every order with the end that it must come to, and what was done outside
//! with what must have been. Knows nothing of how cases are kept.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use quorate_client::{Client, Consistency, Group, Outcome, Session, SessionOptions, value};
use quorate_workflow::orders::{Done, End, FUNCTIONS, Order, Said, Shop};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::submission::longest_silence;
use super::summary::{Replica, agree, millis, replicas_json, replicas_table, yes};
use super::{COMMAND_DEADLINE, Finding, agreement, connect};
use crate::arguments::{DemoArguments, Protocol};
use crate::cluster::ProcessCluster;
use crate::exit::Fault;
use crate::output::{Output, pairs};
use crate::setup;

const GROUP: &str = "orders";
/// Clients that start orders at the same time.
const STARTERS: usize = 8;
/// Workers that serve all functions at the same time.
const WORKERS: usize = 16;
/// Work items of one claim.
const CLAIM_MAX: u32 = 8;
/// How long a worker waits before it looks for work again.
const CLAIM_PAUSE: Duration = Duration::from_millis(20);
/// How long all orders together may take.
const ORDERS_TIMEOUT: Duration = Duration::from_secs(90);
/// The pause between two looks at the cases.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// The orders and the definition that they are cases of.
pub struct Orders {
    definition: String,
    orders: Vec<Order>,
}

impl Orders {
    /// Reads both files.
    ///
    /// # Errors
    ///
    /// Wrong usage: a file cannot be read, or a line is no order.
    pub fn read(orders: &Path, definition: &Path) -> Result<Self> {
        let read = |file: &Path| {
            std::fs::read_to_string(file)
                .map_err(|error| Fault::usage(format!("{} cannot be read: {error}", file.display())))
        };
        let parse = |(at, line): (usize, &str)| {
            serde_json::from_str(line).map_err(|error| {
                Fault::usage(format!("{} line {}: no order: {error}", orders.display(), at + 1))
            })
        };
        let definition = read(definition)?;
        let text = read(orders)?;
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        Ok(Self { definition, orders: lines.map(parse).collect::<Result<_, _>>()? })
    }
}

#[derive(Deserialize)]
struct Reference {
    namespace: String,
    name: String,
}

#[derive(Deserialize)]
struct Started {
    case: u64,
}

#[derive(Deserialize)]
struct Claimed {
    item: String,
    token: u64,
    function: String,
    arguments: Value,
}

#[derive(Deserialize)]
struct CaseLine {
    case: u64,
    key: Option<String>,
    status: String,
}

/// What all clients and workers share.
struct Shared {
    group: Group,
    definition: Reference,
    orders: Vec<Order>,
    shop: Mutex<Shop>,
    next: AtomicUsize,
    over: AtomicBool,
    /// Answers from the group, of starts and of finished work.
    count: watch::Sender<usize>,
    times: Mutex<Vec<Instant>>,
}

impl Shared {
    fn note(&self) {
        self.times().push(Instant::now());
        self.count.send_modify(|count| *count += 1);
    }

    fn times(&self) -> MutexGuard<'_, Vec<Instant>> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shop(&self) -> MutexGuard<'_, Shop> {
        self.shop.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn reached(&self, wanted: usize) -> Result<()> {
        let mut seen = self.count.subscribe();
        let reached = tokio::time::timeout(ORDERS_TIMEOUT, seen.wait_for(|count| *count >= wanted)).await;
        ensure!(matches!(reached, Ok(Ok(_))), "only {} answers came in time", *self.count.borrow());
        Ok(())
    }
}

/// Plays the scenario.
pub(super) async fn play(
    arguments: &DemoArguments,
    work: Orders,
    cluster: &mut ProcessCluster,
    output: Output,
) -> Result<Finding> {
    let client = connect(cluster).await?;
    setup::prepare(&client, GROUP, Protocol::Raft, &arguments.component).await?;
    let group = client.group(GROUP).await?;
    let session = group.session(options()).await?;
    let definition: Reference = session.command("define", &json!({ "text": work.definition })).await?;
    let total = work.orders.len();
    output.hint(&format!(
        "{}/{} is defined; starting {total} orders with {WORKERS} workers",
        definition.namespace, definition.name
    ));
    let shared = Arc::new(Shared {
        group,
        definition,
        orders: work.orders,
        shop: Mutex::default(),
        next: AtomicUsize::new(0),
        over: AtomicBool::new(false),
        count: watch::Sender::new(0),
        times: Mutex::default(),
    });
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..STARTERS {
        tasks.spawn(start_orders(Arc::clone(&shared)));
    }
    for at in 0..WORKERS {
        tasks.spawn(serve(Arc::clone(&shared), format!("worker-{at}")));
    }
    let failover = kill_leader(&client, cluster, &shared, output).await?;
    let cases = wait_for_ends(&shared, &mut tasks).await?;
    let elapsed = begun.elapsed();
    shared.over.store(true, Ordering::Relaxed);
    while let Some(ended) = tasks.join_next().await {
        ended.context("a client ended early")??;
    }
    output.hint("every case is over; looking at each of them, and at every replica");
    let found = judge(&shared, cases).await?;
    let replicas = agreement(&client, cluster, GROUP).await?;
    Ok(Report { total, found, failover, elapsed, replicas }.finding())
}

fn options() -> SessionOptions {
    SessionOptions { deadline: Some(COMMAND_DEADLINE), ..SessionOptions::default() }
}

/// Starts orders that nobody has started, under their own names as business keys.
async fn start_orders(shared: Arc<Shared>) -> Result<()> {
    let session = shared.group.session(options()).await?;
    while let Some(order) = shared.orders.get(shared.next.fetch_add(1, Ordering::Relaxed)) {
        let Reference { namespace, name } = &shared.definition;
        let arguments = json!({
            "namespace": namespace, "name": name, "key": order.key, "input": order.input,
        });
        let started: Started = session.command("start", &arguments).await?;
        tracing::debug!(case = started.case, "an order is under way");
        shared.note();
    }
    Ok(())
}

/// Claims work and does it until all is over.
async fn serve(shared: Arc<Shared>, worker: String) -> Result<()> {
    let session = shared.group.session(options()).await?;
    let claim = json!({ "functions": FUNCTIONS, "worker": worker, "limit": CLAIM_MAX });
    while !shared.over.load(Ordering::Relaxed) {
        let claimed: Vec<Claimed> = session.command("claim", &claim).await?;
        if claimed.is_empty() {
            tokio::time::sleep(CLAIM_PAUSE).await;
        }
        for item in claimed {
            finish(&shared, &session, item).await?;
        }
    }
    Ok(())
}

async fn finish(shared: &Shared, session: &Session, claimed: Claimed) -> Result<()> {
    let Claimed { item, token, function, arguments } = claimed;
    let said = shared.shop().answer(&function, &arguments);
    let (command, body) = match said {
        Said::Done(output) => ("complete", json!({ "item": item, "token": token, "output": output })),
        Said::Failed(error) => ("fail", json!({ "item": item, "token": token, "error": error })),
        Said::Nothing => return Ok(()),
    };
    match session.submit(command, value::to_cbor(&body)?).await? {
        Outcome::Done { .. } => shared.note(),
        // Nobody wants it any more: its task was interrupted or ran out of time.
        Outcome::Rejected(rejection) => tracing::debug!(%item, name = rejection.name, "too late"),
    }
    Ok(())
}

/// Kills the leader once as many answers have come as there are orders; about a quarter of all.
async fn kill_leader(
    client: &Client,
    cluster: &mut ProcessCluster,
    shared: &Shared,
    output: Output,
) -> Result<Duration> {
    shared.reached(shared.orders.len()).await?;
    let leader = client.describe(GROUP).await?.leader.map(|hint| hint.node).unwrap_or_default();
    let before = *shared.count.borrow();
    let killed = Instant::now();
    cluster.kill(leader).await?;
    output.hint(&format!("{before} answers: killed node {leader}, which led, with SIGKILL"));
    shared.reached(before + STARTERS + WORKERS + 1).await?;
    let silence = longest_silence(&shared.times(), killed);
    output.hint(&format!("another node leads; the longest silence was {} ms", silence.as_millis()));
    cluster.start_all().await?;
    output.hint(&format!("node {leader} is back"));
    Ok(silence)
}

/// Waits until every order has a case and every case is over.
async fn wait_for_ends(shared: &Shared, tasks: &mut JoinSet<Result<()>>) -> Result<Vec<CaseLine>> {
    let give_up = Instant::now() + ORDERS_TIMEOUT;
    loop {
        while let Some(ended) = tasks.try_join_next() {
            ended.context("a client ended early")??;
        }
        let cases = cases(&shared.group).await?;
        let open = cases.iter().filter(|case| !matches!(&case.status[..], "completed" | "faulted")).count();
        if cases.len() >= shared.orders.len() && open == 0 {
            return Ok(cases);
        }
        if Instant::now() > give_up {
            bail!("{} of {} orders have cases, and {open} are not over", cases.len(), shared.orders.len());
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

async fn cases(group: &Group) -> Result<Vec<CaseLine>> {
    let mut cases: Vec<CaseLine> = Vec::new();
    loop {
        let arguments = json!({ "after": cases.last().map(|case| case.case) });
        let page: Vec<CaseLine> = group.ask("cases", &arguments, Consistency::Linearizable).await?;
        if page.is_empty() {
            return Ok(cases);
        }
        cases.extend(page);
    }
}

/// What became of the orders.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    /// Cases that came to the end that they must come to.
    completed: usize,
    /// Those of them whose end is an error.
    failed_as_expected: usize,
    /// Orders without a case, or for which something was not done that must have been.
    lost: usize,
    /// Orders with several cases, or for which something was done more often than once.
    duplicated: usize,
    problems: Vec<String>,
}

impl Found {
    /// Compares how the cases of an order ended, and what was done for it, with what must have been.
    fn add(&mut self, order: &Order, ends: &[Option<End>], done: Done) {
        let mut problem = |what: String| self.problems.push(format!("{}: {what}", order.key));
        match ends {
            [] => {
                self.lost += 1;
                problem("it has no case".to_owned());
            }
            [end] if *end == Some(order.end) => {
                self.completed += 1;
                self.failed_as_expected += usize::from(order.end == End::PaymentDeclined);
            }
            [end] => problem(format!("it ended with {end:?} instead of {:?}", order.end)),
            several => {
                self.duplicated += 1;
                problem(format!("it has {} cases", several.len()));
            }
        }
        let must = order.end.done();
        if done != must {
            problem(format!("{done:?} instead of {must:?}"));
        }
        for (found, must) in
            [(done.charged, must.charged), (done.shipped, must.shipped), (done.paid_back, must.paid_back)]
        {
            self.lost += usize::from(found < must);
            self.duplicated += usize::from(found > must);
        }
    }
}

async fn judge(shared: &Shared, cases: Vec<CaseLine>) -> Result<Found> {
    let mut by_order: BTreeMap<String, Vec<CaseLine>> = BTreeMap::new();
    for case in cases {
        by_order.entry(case.key.clone().unwrap_or_default()).or_default().push(case);
    }
    let mut found = Found::default();
    for order in &shared.orders {
        let mut ends = Vec::new();
        for case in by_order.remove(&order.key).unwrap_or_default() {
            let asked = json!({ "case": case.case });
            let view: Value = shared.group.ask("case", &asked, Consistency::Linearizable).await?;
            ends.push(End::of_case(&view));
        }
        let done = shared.shop().done(&order.key);
        found.add(order, &ends, done);
    }
    for (key, cases) in by_order {
        found.duplicated += cases.len();
        found.problems.push(format!("{} cases of `{key}`, which is no order", cases.len()));
    }
    Ok(found)
}

/// What the scenario came to.
struct Report {
    total: usize,
    found: Found,
    failover: Duration,
    elapsed: Duration,
    replicas: Vec<Replica>,
}

impl Report {
    fn held(&self) -> bool {
        let Found { completed, lost, duplicated, problems, .. } = &self.found;
        *completed == self.total
            && *lost == 0
            && *duplicated == 0
            && problems.is_empty()
            && agree(&self.replicas)
    }

    fn finding(self) -> Finding {
        let held = self.held();
        let found = &self.found;
        let per_second = self.total as f64 / self.elapsed.as_secs_f64().max(f64::EPSILON);
        let json = json!({
            "cases": self.total,
            "cases_completed": found.completed,
            "cases_failed_as_expected": found.failed_as_expected,
            "lost": found.lost,
            "duplicated": found.duplicated,
            "failover_ms": millis(self.failover),
            "cases_per_second": per_second.round(),
            "agreed": agree(&self.replicas),
            "replicas": replicas_json(&self.replicas),
            "problems": found.problems,
        });
        let text = move |_: Option<&Path>| {
            let found = &self.found;
            let head = pairs(&[
                (
                    "orders",
                    format!("{} of {} came to the end that they must come to", found.completed, self.total),
                ),
                (
                    "ended in an error",
                    format!("{} of them, since their cards are declined", found.failed_as_expected),
                ),
                ("lost", found.lost.to_string()),
                ("done twice", found.duplicated.to_string()),
                (
                    "fail-over",
                    format!("{} ms without an answer when the leader was killed", millis(self.failover)),
                ),
                ("orders/s", format!("{per_second:.0}, the outage included")),
                ("replicas agree", yes(agree(&self.replicas)).to_owned()),
            ]);
            let problems: String = found.problems.iter().map(|problem| format!("\n  {problem}")).collect();
            format!("{head}\n{}{problems}", replicas_table(&self.replicas))
        };
        Finding { json, text: Box::new(text), held }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(end: End, ends: &[Option<End>], done: Done) -> Found {
        let mut found = Found::default();
        found.add(&Order { key: "a".into(), input: json!({}), end }, ends, done);
        found
    }

    #[test]
    fn an_order_that_ends_as_it_must_counts_as_completed() {
        let shipped = found(End::Shipped, &[Some(End::Shipped)], End::Shipped.done());
        assert_eq!(shipped, Found { completed: 1, ..Found::default() });
        let declined = End::PaymentDeclined;
        let failed = found(declined, &[Some(declined)], Done::default());
        assert_eq!(failed, Found { completed: 1, failed_as_expected: 1, ..Found::default() });
    }

    #[test]
    fn a_case_that_is_missing_or_ends_otherwise_or_twice_is_found() {
        let done = End::Shipped.done();
        assert_eq!(found(End::Shipped, &[], done).lost, 1);
        let otherwise = found(End::Shipped, &[Some(End::NotShipped)], done);
        assert_eq!((otherwise.completed, otherwise.problems.len()), (0, 1));
        assert_eq!(found(End::Shipped, &[None], done).completed, 0);
        assert_eq!(found(End::Shipped, &[Some(End::Shipped); 2], done).duplicated, 1);
    }

    #[test]
    fn what_was_not_done_or_done_twice_is_found() {
        let ended = &[Some(End::NotShipped)];
        let must = End::NotShipped.done();
        assert_eq!(found(End::NotShipped, ended, Done { paid_back: 0, ..must }).lost, 1);
        let twice = found(End::NotShipped, ended, Done { charged: 2, ..must });
        assert_eq!((twice.lost, twice.duplicated, twice.problems.len()), (0, 1, 1));
        assert_eq!(found(End::NotShipped, ended, Done { shipped: 1, ..must }).duplicated, 1);
    }

    #[test]
    fn a_line_that_is_no_order_is_named() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let [orders, definition] = ["orders.jsonl", "workflow.yaml"].map(|name| directory.path().join(name));
        std::fs::write(&definition, quorate_workflow::orders::DEFINITION)?;
        std::fs::write(&orders, quorate_workflow::orders::ORDERS)?;
        assert_eq!(Orders::read(&orders, &definition)?.orders.len(), 1_000);
        let second_has_no_end = quorate_workflow::orders::ORDERS.replacen("\n", "\n{\"key\":\"b\"}\n", 1);
        std::fs::write(&orders, second_has_no_end)?;
        let refused = Orders::read(&orders, &definition).map(|_| ()).map_err(|error| error.to_string());
        assert!(refused.as_ref().is_err_and(|error| error.contains("line 2")), "{refused:?}");
        Ok(())
    }
}
