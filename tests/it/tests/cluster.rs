//! A cluster of real processes from its first command to its restart, through the command line.
//!
//! Relies on the binary and the ledger component. Promises what an operator's first day needs. Knows no
//! fault but killed processes.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read};

use anyhow::Result;
use quorate_it::{TestCluster, component};
use serde_json::json;

fn deposit(amount: u64) -> String {
    json!({ "account": "ada", "amount": amount }).to_string()
}

/// What could go wrong: any command of the line, or anything acknowledged, lost at a kill.
#[tokio::test]
async fn acknowledged_commands_survive_the_leader_and_then_everyone() -> Result<()> {
    let mut cluster = TestCluster::start(3).await?;
    cluster.deploy("ledger", &component("ledger"));
    cluster.ledger_survives_its_leader_and_then_everyone().await
}

/// What could go wrong: an administrative command that exists in `--help` only.
#[tokio::test]
async fn groups_components_and_nodes_can_be_looked_after() -> Result<()> {
    let cluster = TestCluster::start(3).await?;
    cluster.deploy("ledger", &component("ledger"));

    let nodes = cluster.quorate(&["status"]).good();
    assert_eq!(nodes.as_array().map(Vec::len), Some(3));
    assert!(nodes.as_array().unwrap().iter().all(|node| node["answers"] == true), "{nodes}");

    let groups = cluster.quorate(&["group", "list"]).good();
    assert!(groups.as_array().unwrap().iter().any(|group| group["name"] == "ledger"), "{groups}");
    let components = cluster.quorate(&["component", "list"]).good();
    assert_eq!(components[0]["name"], "ledger");

    let group = cluster.quorate(&["group", "describe", "ledger"]).good();
    assert_eq!(group["replicas"].as_array().map(Vec::len), Some(3));
    let leader = group["leader"].as_u64().unwrap();
    let next = leader % 3 + 1;
    let moved = cluster.quorate(&["transfer-leader", "ledger", &next.to_string()]).good();
    assert_eq!(moved["leader"], next);
    assert_eq!(cluster.leader("ledger")?, next);

    let snapshots = cluster.quorate(&["snapshot", "ledger"]).good();
    assert_eq!(snapshots.as_array().map(Vec::len), Some(3));
    Ok(())
}

/// What could go wrong: a line lost, doubled or answered out of order, or a rejection that hides.
#[tokio::test]
async fn lines_of_standard_input_are_submitted_once_each_and_answered_in_order() -> Result<()> {
    let cluster = TestCluster::start(3).await?;
    cluster.deploy("ledger", &component("ledger"));
    let mut lines = vec![json!({ "command": "open", "body": { "account": "ada" } }).to_string()];
    lines.extend(
        (1..=50)
            .map(|_| json!({ "command": "deposit", "body": { "account": "ada", "amount": 2 } }).to_string()),
    );
    let ran = cluster.quorate_with_input(&["submit", "ledger", "-"], &lines.join("\n"));
    assert_eq!(ran.status, 0, "{ran:?}");
    let answers: Vec<serde_json::Value> =
        ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), 52);
    assert!((1..=50).all(|at| answers[at]["done"] == 2 * at), "{answers:?}");
    assert_eq!(answers[51], json!({ "done": 51, "rejected": 0 }));

    let short = json!({ "command": "withdraw", "body": { "account": "ada", "amount": 1_000 } }).to_string();
    let ran = cluster.quorate_with_input(&["submit", "ledger", "-"], &short);
    assert_eq!(ran.status, 4, "{ran:?}");
    assert!(ran.stdout.contains("insufficient-funds"), "{ran:?}");
    Ok(())
}

/// What could go wrong: a watcher that sees nothing, or not what happened.
#[tokio::test]
async fn a_watcher_sees_the_events_of_the_component() -> Result<()> {
    let cluster = TestCluster::start(3).await?;
    cluster.deploy("ledger", &component("ledger"));
    let mut watch = cluster.quorate_in_background(&["watch", "ledger", "--events", "2"]);
    let mut output = BufReader::new(watch.0.stdout.take().expect("standard output is a pipe"));
    // The first line is how the group stands; events of later entries follow.
    let mut text = String::new();
    output.read_line(&mut text)?;
    assert!(text.contains("status"), "{text}");
    let _opened = cluster.quorate(&["submit", "ledger", "open", r#"{"account":"ada"}"#]).good();
    let _deposited = cluster.quorate(&["submit", "ledger", "deposit", &deposit(5)]).good();
    output.read_to_string(&mut text)?;
    assert!(watch.0.wait()?.success(), "{text}");
    let events: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|line: &serde_json::Value| line.get("event").is_some())
        .collect();
    assert_eq!(events.len(), 2, "{text}");
    assert_eq!((&events[0]["event"], &events[1]["event"]), (&json!("opened"), &json!("changed")), "{text}");
    assert_eq!(events[1]["body"]["balance"], 5);
    Ok(())
}

/// What could go wrong: whoever begins to watch after the fact, or at another node, sees a gap.
#[tokio::test]
async fn a_late_watcher_sees_what_happened_before() -> Result<()> {
    let cluster = TestCluster::start(3).await?;
    cluster.deploy("ledger", &component("ledger"));
    let _opened = cluster.quorate(&["submit", "ledger", "open", r#"{"account":"ada"}"#]).good();
    let _paid = cluster.quorate(&["submit", "ledger", "deposit", &deposit(9)]).good();
    let ran = cluster.quorate(&["watch", "ledger", "--from", "1", "--events", "2"]);
    assert_eq!(ran.status, 0, "{ran:?}");
    assert!(!ran.stdout.contains("\"gap\""), "{ran:?}");
    assert_eq!(ran.stdout.lines().filter(|line| line.contains("\"event\"")).count(), 2, "{ran:?}");
    Ok(())
}
