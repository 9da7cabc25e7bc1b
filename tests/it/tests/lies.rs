//! A leader that orders commands nobody sent, answers clients falsely, or deploys what no operator signed, as a real
//! process among honest ones.
//!
//! Relies on the binary whose node lies when told to and on the ledger component. Promises that what clients are told
//! and what replicas hold is the truth all the same, and that the liar is named. Knows no message.

#![allow(clippy::unwrap_used)]

use anyhow::Result;
use quorate_it::{TestCluster, component};
use serde_json::{Value, json};

/// Leads a new group first.
const LIAR: u64 = 1;

fn deposit(cluster: &TestCluster, amount: u64) -> Value {
    let body = json!({ "account": "ada", "amount": amount }).to_string();
    cluster.quorate(&["submit", "ledger", "deposit", &body]).good()["done"].clone()
}

/// How many of the liar's blocks each of the others refused.
fn refused(cluster: &TestCluster) -> Vec<u64> {
    let nodes = cluster.quorate(&["status"]).good();
    let of_liar = |node: &Value| {
        let peers = node["peers"].as_array()?;
        peers.iter().find(|peer| peer["node"] == LIAR)?["payloads_refused"].as_u64()
    };
    nodes.as_array().unwrap().iter().filter_map(of_liar).collect()
}

/// A ledger with an account, led by the liar, which does not lie yet; and the digest of its component.
async fn ledger() -> Result<(TestCluster, String)> {
    let cluster = TestCluster::start_with_liar(4, LIAR).await?;
    let created = cluster.quorate(&["group", "create", "ledger", "--protocol", "hotstuff"]).good();
    assert_eq!(created["protocol"], "hotstuff");
    let pushed = cluster.quorate(&["component", "push", component("ledger").to_str().unwrap()]).good();
    let digest = pushed["digest"].as_str().unwrap().to_owned();
    assert!(cluster.quorate(&["deploy", "ledger", &digest]).good()["index"].is_u64());
    let _opened = cluster.quorate(&["submit", "ledger", "open", r#"{"account":"ada"}"#]).good();
    assert_eq!(deposit(&cluster, 5), 5);
    assert_eq!(refused(&cluster), [0, 0, 0]);
    Ok((cluster, digest))
}

/// Deposits until two members refused blocks of the liar; the balance then.
fn deposit_until_blamed(cluster: &TestCluster, mut balance: u64) -> u64 {
    for amount in 1..=60 {
        balance += amount;
        assert_eq!(deposit(cluster, amount), balance);
        if refused(cluster).iter().filter(|refused| **refused > 0).count() >= 2 {
            return balance;
        }
    }
    panic!("no block of the liar was refused: {:?}", refused(cluster));
}

/// All replicas hold the same.
#[track_caller]
fn are_equal(cluster: &TestCluster) {
    let snapshots = cluster.quorate(&["snapshot", "ledger"]).good();
    let digests: Vec<&Value> = snapshots.as_array().unwrap().iter().map(|one| &one["digest"]).collect();
    assert!(digests.len() == 4 && digests.iter().all(|digest| *digest == digests[0]), "{snapshots}");
}

#[tokio::test]
async fn a_lying_leader_neither_orders_what_nobody_sent_nor_answers_falsely() -> Result<()> {
    let (cluster, _) = ledger().await?;
    cluster.processes.liar().unwrap().lie_about("clients")?;
    let mut balance = deposit_until_blamed(&cluster, 5);
    for _ in 0..5 {
        balance += 1;
        assert_eq!(deposit(&cluster, 1), balance);
    }
    let asked = cluster.quorate(&["query", "ledger", "balance", r#"{"account":"ada"}"#]).good();
    assert_eq!(asked["answer"]["balance"], balance);
    are_equal(&cluster);
    Ok(())
}

/// What could go wrong: a leader puts code in force that no operator signed, or an honest operator cannot deploy past
/// it.
#[tokio::test]
async fn a_lying_leader_deploys_nothing_that_no_operator_signed() -> Result<()> {
    let (cluster, digest) = ledger().await?;
    cluster.processes.liar().unwrap().lie_about("deployments")?;
    let balance = deposit_until_blamed(&cluster, 5);
    let groups = cluster.quorate(&["group", "describe", "ledger"]).good();
    assert_eq!(groups["component"]["digest"], digest.as_str(), "{groups}");
    assert!(cluster.quorate(&["deploy", "ledger", &digest]).good()["index"].is_u64());
    let asked = cluster.quorate(&["query", "ledger", "balance", r#"{"account":"ada"}"#]).good();
    assert_eq!(asked["answer"]["balance"], balance, "deployed again, the state is as it was");
    are_equal(&cluster);
    Ok(())
}
