//! That a flush which is claimed is a flush that happened: seen from outside, by strace.
//!
//! Relies on strace; where it is absent or may not trace, the test says so and ends. Promises nothing about
//! disks, which only the simulated one can lose. Knows no format of the log.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use quorate_it::{TestCluster, component};
use serde_json::{Value, json};

/// Commands submitted one after the other: each needs a flush at a quorum before the next is sent.
const COMMANDS: usize = 100;
const ATTACH_TIMEOUT: Duration = Duration::from_secs(10);

fn may_trace() -> bool {
    let traced =
        Command::new("strace").args(["-f", "-o", "/dev/null", "true"]).stderr(Stdio::null()).status();
    traced.is_ok_and(|status| status.success())
}

/// Flushes that each node claims since its start.
fn claimed(cluster: &TestCluster) -> BTreeMap<u64, u64> {
    let nodes = cluster.quorate(&["status"]).good();
    let of = |node: &Value| (node["node"].as_u64().unwrap(), node["log"]["flushes"].as_u64().unwrap());
    nodes.as_array().unwrap().iter().map(of).collect()
}

/// Every line of a trace that is a call of a flush, and not the continuation of one.
fn flushes(trace: &str) -> usize {
    trace.lines().filter(|line| line.contains("fdatasync(") || line.contains("fsync(")).count()
}

#[test]
fn calls_are_counted_once_each() {
    let trace = "7 fdatasync(5) = 0\n8 fdatasync(5 <unfinished ...>\n8 <... fdatasync resumed>) = 0\n9 fsync(3) = 0\n";
    assert_eq!(flushes(trace), 3);
}

#[tokio::test]
async fn every_flush_that_is_claimed_is_a_call_to_the_system() -> Result<()> {
    if !may_trace() {
        eprintln!("SKIPPED: strace is not installed or may not trace here, so flushes cannot be seen");
        return Ok(());
    }
    let cluster = TestCluster::start(3).await?;
    cluster.deploy("store", &component("kv"));
    let leader = cluster.leader("store")?;
    let (_, pid) = *cluster.processes.pids().iter().find(|(node, _)| *node == leader).context("it runs")?;
    let file = cluster.directory().join("trace");
    let mut strace = Command::new("strace")
        .args(["-f", "-e", "trace=fdatasync,fsync", "-p", &pid.to_string(), "-o"])
        .arg(&file)
        .stderr(Stdio::null())
        .spawn()?;
    // Calls before strace is attached are not seen, so claims are counted from a seen one on.
    let deadline = Instant::now() + ATTACH_TIMEOUT;
    let mut number = 0;
    while flushes(&fs::read_to_string(&file).unwrap_or_default()) == 0 {
        assert!(Instant::now() < deadline, "strace saw no flush while commands were acknowledged");
        put(&cluster, number);
        number += 1;
    }
    let seen_before = flushes(&fs::read_to_string(&file)?);
    let claimed_before = claimed(&cluster);
    let lines: Vec<_> = (0..COMMANDS).map(|at| line(number + at).to_string()).collect();
    let ran = cluster.quorate_with_input(&["submit", "store", "-"], &lines.join("\n"));
    assert_eq!(ran.status, 0, "{ran:?}");
    let claimed_after = claimed(&cluster);
    // Stopping strace makes it write what it holds.
    Command::new("kill").args(["-INT", &strace.id().to_string()]).status()?;
    strace.wait()?;
    let seen = flushes(&fs::read_to_string(&file)?) - seen_before;
    // A slow leader may flush two commands at once when both followers have flushed each of them.
    let total = claimed_after.values().sum::<u64>() - claimed_before.values().sum::<u64>();
    assert!(
        total >= 2 * COMMANDS as u64,
        "{COMMANDS} commands in turn need a flush each at two of three nodes; {total} were claimed in all"
    );
    let claims = claimed_after[&leader] - claimed_before[&leader];
    // One flush may have been seen before it was claimed, at the moment of the first look.
    assert!(seen as u64 + 1 >= claims, "{claims} flushes were claimed, and {seen} calls were seen");
    Ok(())
}

fn line(number: usize) -> Value {
    json!({ "command": "put", "body": { "key": format!("key-{number}"), "value": { "$bytes": "00" } } })
}

fn put(cluster: &TestCluster, number: usize) {
    let body = line(number)["body"].to_string();
    assert!(cluster.quorate(&["submit", "store", "put", &body]).good()["index"].is_u64());
}
