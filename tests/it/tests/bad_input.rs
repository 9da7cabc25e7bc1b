//! Bad input of every kind: a clear error that says what to do, no panic, and no effect on other groups.
//!
//! Relies on the binary, the example components and the hostile guests. Promises that after each kind of
//! bad input the cluster still serves. Knows no fault of the network.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use quorate_cli::cluster::{ClusterPlan, random_cluster};
use quorate_it::{Ran, TestCluster, component, hostile_component, quorate, repository};
use quorate_transport::pki::{Authority, Role};
use quorate_types::NodeId;
use serde_json::json;

/// How long a node may take to end a connection that speaks garbage.
const HANG_UP_TIMEOUT: Duration = Duration::from_secs(15);

#[track_caller]
fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

/// The group serves a command and counts it.
#[track_caller]
fn assert_serves(cluster: &TestCluster, key: &str) {
    let body = json!({ "key": key, "value": { "$bytes": "00" } }).to_string();
    assert!(cluster.quorate(&["submit", "store", "put", &body]).good()["index"].is_u64());
}

fn context_with(cluster: &TestCluster, authority: &Path, name: &str) -> String {
    let context = json!({
        "endpoints": cluster.processes.plan().context.endpoints,
        "ca": cluster.directory().join("pki/ca.pem"),
        "cert": authority.join(format!("{name}.pem")),
        "key": authority.join(format!("{name}-key.pem")),
    });
    let file = authority.join(format!("{name}.json"));
    fs::write(&file, context.to_string()).unwrap();
    file.to_str().unwrap().to_owned()
}

fn node_run(config: &Path) -> Ran {
    quorate(&["node", "run", "--stop-with-stdin", "--config", config.to_str().unwrap()])
}

#[tokio::test]
async fn requests_that_make_no_sense_are_refused_with_advice() -> Result<()> {
    let cluster = TestCluster::start(3).await?;
    cluster.deploy("store", &component("kv"));

    let unknown = cluster.quorate(&["query", "nowhere", "get"]).refused(5);
    assert_says(&unknown, &["nowhere"]);
    let not_json = cluster.quorate(&["submit", "store", "put", "{key: a}"]).refused(2);
    assert_says(&not_json, &["not JSON"]);
    let no_command = cluster.quorate(&["submit", "store", "fly"]).refused(4);
    assert_says(&no_command, &["fly"]);
    let malformed = cluster.quorate(&["submit", "store", "put", r#"{"key":5}"#]).refused(4);
    assert_says(&malformed, &["put"]);
    let taken = cluster.quorate(&["group", "create", "Bad Name"]).refused(5);
    assert_says(&taken, &["name"]);
    let no_component = cluster.quorate(&["deploy", "store", "nothing@1.0.0"]).refused(5);
    assert_says(&no_component, &["component list"]);
    let large = format!(r#"{{"key":"a","value":"{}"}}"#, "x".repeat((1 << 20) + 1));
    let line = format!(r#"{{"command":"put","body":{large}}}"#);
    let oversized = cluster.quorate_with_input(&["submit", "store", "-"], &line).refused(2);
    assert_says(&oversized, &["bytes"]);
    assert_serves(&cluster, "after nonsense");
    Ok(())
}

#[tokio::test]
async fn components_that_may_not_run_are_named_and_refused() -> Result<()> {
    let cluster = TestCluster::start(3).await?;
    cluster.deploy("store", &component("kv"));
    let directory = tempfile::tempdir()?;
    let write = |name: &str, bytes: &[u8]| {
        let file = directory.path().join(name);
        fs::write(&file, bytes).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let clock = wat::parse_file(repository().join("tests/guests/wasi-clock/wasi-clock.wat"))?;
    let clock = write("clock.wasm", &clock);
    let core = write("core.wasm", &wat::parse_str("(module)")?);
    let other_world = write("world.wasm", &wat::parse_str("(component)")?);
    let garbage = write("garbage.wasm", b"\0asm and then nothing that means anything");

    for command in ["check", "push"] {
        let refused = |file: &str| cluster.quorate(&["component", command, file]).refused(4);
        assert_says(&refused(&clock), &["wasi:clocks/wall-clock@0.2.6"]);
        assert_says(&refused(&core), &["core"]);
        assert_says(&refused(&other_world), &["quorate:machine"]);
        assert!(!refused(&garbage).is_empty());
    }
    assert_serves(&cluster, "after components");
    Ok(())
}

#[tokio::test]
async fn a_component_over_its_limits_harms_neither_its_neighbours_nor_other_groups() -> Result<()> {
    let cluster = TestCluster::start(3).await?;
    cluster.deploy("store", &component("kv"));
    cluster.deploy("hostile", &hostile_component());

    let put = r#"{"key":"a","value":{"$bytes":"00"}}"#;
    let _before = cluster.quorate(&["submit", "hostile", "put", put]).good();
    let misbehaviours = [
        ("spin", r#"{"key":"b"}"#),
        ("panic", r#"{"key":"c"}"#),
        ("take-memory", "{}"),
        ("answer-much", r#"{"bytes":100000000}"#),
    ];
    for (command, body) in misbehaviours {
        let refused = cluster.quorate(&["submit", "hostile", command, body]).refused(4);
        assert_says(&refused, &["code"]);
    }
    let _after = cluster.quorate(&["submit", "hostile", "put", put]).good();
    assert_serves(&cluster, "after hostility");

    let group = cluster.quorate(&["group", "describe", "hostile"]).good();
    for replica in group["replicas"].as_array().unwrap() {
        assert!(replica["halted"].is_null() && replica["fenced"].is_null(), "{group}");
    }
    Ok(())
}

#[test]
fn a_configuration_with_a_fault_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let plan = ClusterPlan::create(directory.path(), 1).unwrap();
    let good = fs::read_to_string(&plan.nodes[0].config).unwrap();
    let file = directory.path().join("odd.toml");
    let check = |text: &str| {
        fs::write(&file, text).unwrap();
        quorate(&["config", "check", "--config", file.to_str().unwrap()])
    };
    assert_eq!(check(&good).good()["valid"], true);
    assert_says(&check(&good.replace("heartbeat_ms", "heart_beat_ms")).refused(2), &["heart_beat_ms"]);
    assert_says(&check(&good.replace("heartbeat_ms = 40", "heartbeat_ms = 0")).refused(2), &["raft"]);
    assert_says(&check("node = [").refused(2), &["odd.toml"]);
    assert_says(&quorate(&["config", "check", "--config", "none.toml"]).refused(2), &["none.toml"]);
}

#[tokio::test]
async fn certificates_of_others_open_no_door() -> Result<()> {
    let cluster = TestCluster::start(3).await?;
    cluster.deploy("store", &component("kv"));

    // A reader of this cluster may look and may not submit.
    let pki = cluster.directory().join("pki");
    let _issued =
        quorate(&["pki", "client", "looker", "--role", "reader", "--dir", pki.to_str().unwrap()]).good();
    let reader = context_with(&cluster, &pki, "looker");
    let submit = ["submit", "store", "put", r#"{"key":"a","value":{"$bytes":"00"}}"#, "--context", &reader];
    assert_says(&quorate(&submit).refused(5), &["writer"]);
    let _listed = quorate(&["query", "store", "list", "--context", &reader]).good();
    assert!(!quorate(&["group", "create", "more", "--context", &reader]).refused(5).is_empty());

    // An administrator of another cluster is nobody here.
    let foreign = tempfile::tempdir()?;
    let authority = Authority::create(random_cluster()?)?;
    authority.issue_client("stranger", Role::Admin)?.write_to(foreign.path(), "stranger")?;
    let stranger = context_with(&cluster, foreign.path(), "stranger");
    let refused = quorate(&["status", "--timeout", "3", "--context", &stranger]);
    assert!(matches!(refused.status, 3 | 5), "{refused:?}");
    assert!(!refused.stderr.contains("panicked"), "{refused:?}");
    assert_serves(&cluster, "after strangers");
    Ok(())
}

#[test]
fn a_node_does_not_start_with_the_certificate_or_the_data_of_another() {
    let directory = tempfile::tempdir().unwrap();
    let plan = ClusterPlan::create(directory.path(), 2).unwrap();
    let config = &plan.nodes[0].config;
    let good = fs::read_to_string(config).unwrap();
    let pki = directory.path().join("pki");

    // The certificate of node 2 in the hands of node 1.
    fs::write(config, good.replace("node-1.pem", "node-2.pem").replace("node-1-key.pem", "node-2-key.pem"))
        .unwrap();
    assert_says(&node_run(config).refused(1), &["certificate"]);

    // The certificate of another cluster's node 1.
    let authority = Authority::create(random_cluster().unwrap()).unwrap();
    let foreign = directory.path().join("foreign");
    authority.issue_node(NodeId(1), &[]).unwrap().write_to(&foreign, "node-1").unwrap();
    let mixed = good.replace(pki.join("node-1").to_str().unwrap(), foreign.join("node-1").to_str().unwrap());
    assert_ne!(mixed, good);
    fs::write(config, mixed).unwrap();
    assert_says(&node_run(config).refused(1), &["certificate"]);

    // Data that node 2 wrote; it starts, sees its standard input end, and stops.
    let other = fs::read_to_string(&plan.nodes[1].config).unwrap();
    assert_eq!(node_run(&plan.nodes[1].config).status, 0);
    assert!(other.contains("node-2"));
    let data = |id: u64| directory.path().canonicalize().unwrap().join(format!("node-{id}"));
    let swapped = good.replace(
        &format!("data = {:?}", data(1).to_str().unwrap()),
        &format!("data = {:?}", data(2).to_str().unwrap()),
    );
    assert_ne!(swapped, good);
    fs::write(config, swapped).unwrap();
    assert_says(&node_run(config).refused(1), &["node"]);
}

#[tokio::test]
async fn garbage_on_either_port_is_hung_up_on() -> Result<()> {
    let cluster = TestCluster::start(3).await?;
    cluster.deploy("store", &component("kv"));
    let noises: [&[u8]; 3] =
        [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", &[0xff; 4096], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"];
    let nodes = cluster.processes.plan().nodes.clone();
    let heard = tokio::task::spawn_blocking(move || {
        for node in nodes {
            for address in [node.peer, node.api] {
                for noise in noises {
                    let mut socket = TcpStream::connect(address).unwrap();
                    socket.set_read_timeout(Some(HANG_UP_TIMEOUT)).unwrap();
                    // The node may hang up before all is written.
                    socket.write_all(noise).ok();
                    let mut answer = Vec::new();
                    if let Err(error) = socket.read_to_end(&mut answer) {
                        assert_eq!(
                            error.kind(),
                            std::io::ErrorKind::ConnectionReset,
                            "{address} did not hang up"
                        );
                    }
                    // At most a TLS alert; nothing that a stranger could use.
                    assert!(answer.len() < 64, "{address} answered {} bytes", answer.len());
                }
            }
        }
    });
    heard.await?;
    assert_serves(&cluster, "after garbage");
    Ok(())
}
