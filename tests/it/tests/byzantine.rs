//! Groups under HotStuff as real processes: made, used, killed and restarted through the command line.
//!
//! Relies on the binary and the ledger component. Promises that such a group is used as any other. Knows no
//! replica that lies: the simulator does.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use quorate_it::{TestCluster, component};
use quorate_proto::frames::{FrameReader, FrameWriter, PROTOCOL};
use quorate_proto::v1::submit_item::Kind;
use quorate_proto::v1::{
    CloseSession, Command, ErrorCode, KeepSession, OpenSession, ReplyFrame, SubmitFrame, SubmitItem, reply,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

fn deposit(amount: u64) -> String {
    json!({ "account": "ada", "amount": amount }).to_string()
}

/// A ledger under HotStuff on all nodes.
#[track_caller]
fn deploy(cluster: &TestCluster) {
    let created = cluster.deploy_with("ledger", &["--protocol", "hotstuff"], &component("ledger"));
    assert_eq!((&created["kind"], &created["protocol"]), (&json!("byzantine"), &json!("hotstuff")));
}

/// Waits until every replica has applied the same, and returns what `group describe` says of each.
fn settled(cluster: &TestCluster) -> Vec<Value> {
    for _ in 0..100 {
        let described = cluster.quorate(&["group", "describe", "ledger"]).good();
        let replicas = described["replicas"].as_array().unwrap().clone();
        let applied = |replica: &Value| replica["applied_index"].as_u64();
        if replicas.iter().all(|replica| applied(replica).is_some_and(|at| Some(at) == applied(&replicas[0])))
        {
            return replicas;
        }
    }
    panic!("the replicas do not come to one index");
}

/// What could go wrong: an acknowledged command lost with a node or with all of them, or applied twice.
#[tokio::test]
async fn acknowledged_commands_survive_the_leader_and_then_everyone() -> Result<()> {
    let mut cluster = TestCluster::start(4).await?;
    deploy(&cluster);
    cluster.ledger_survives_its_leader_and_then_everyone().await?;

    let replicas = settled(&cluster);
    assert!(replicas.iter().all(|replica| replica["fenced"].is_null() && replica["halted"].is_null()));
    let snapshots = cluster.quorate(&["snapshot", "ledger"]).good();
    let digests: Vec<&Value> = snapshots.as_array().unwrap().iter().map(|one| &one["digest"]).collect();
    assert!(digests.len() == 4 && digests.iter().all(|digest| *digest == digests[0]), "{snapshots}");
    Ok(())
}

/// What could go wrong: a replica that lacks what nobody keeps goes on from what one member sends, or not at all.
#[tokio::test]
async fn a_node_that_was_far_behind_gets_in_with_what_the_others_vouch_for() -> Result<()> {
    let mut cluster = TestCluster::start(4).await?;
    deploy(&cluster);
    let _opened = cluster.quorate(&["submit", "ledger", "open", r#"{"account":"ada"}"#]).good();
    cluster.processes.kill(4).await?;
    // One at a time, each is an entry of its own with empty ones after it: more than are kept below a checkpoint.
    let line = json!({ "command": "deposit", "body": { "account": "ada", "amount": 1 } });
    let lines = format!("{line}\n").repeat(200);
    assert_eq!(cluster.quorate_with_input(&["submit", "ledger", "-"], &lines).good()["done"], 200);
    let taken = cluster.quorate(&["snapshot", "ledger", "--node", "1"]).good();
    assert!(taken[0]["index"].as_u64().is_some_and(|index| index > 500), "{taken}");
    cluster.processes.start_all().await?;
    assert_eq!(cluster.quorate(&["submit", "ledger", "deposit", &deposit(1)]).good()["done"], 201);
    let replicas = settled(&cluster);
    assert!(replicas.iter().all(|replica| replica["state"] == "active"), "{replicas:?}");
    let log = std::fs::read_to_string(cluster.processes.log_file(4))?;
    assert!(log.contains("fetching a snapshot"), "entries alone brought it up: the test shows nothing");
    let snapshots = cluster.quorate(&["snapshot", "ledger"]).good();
    let digests: Vec<&Value> = snapshots.as_array().unwrap().iter().map(|one| &one["digest"]).collect();
    assert!(digests.len() == 4 && digests.iter().all(|digest| *digest == digests[0]), "{snapshots}");
    Ok(())
}

/// Copies a directory with all that is in it.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// What could go wrong: a replica that forgot what it signed votes again, for something else.
#[tokio::test]
async fn a_replica_from_an_old_backup_is_recognised_and_takes_no_part() -> Result<()> {
    let mut cluster = TestCluster::start(4).await?;
    deploy(&cluster);
    let _opened = cluster.quorate(&["submit", "ledger", "open", r#"{"account":"ada"}"#]).good();
    let data = cluster.directory().join("node-4");
    let backup = cluster.directory().join("backup");
    cluster.processes.kill(4).await?;
    copy(&data, &backup)?;
    cluster.processes.start_all().await?;
    assert_eq!(cluster.quorate(&["submit", "ledger", "deposit", &deposit(5)]).good()["done"], 5);
    assert_eq!(settled(&cluster)[3]["state"], "active");

    cluster.processes.kill(4).await?;
    std::fs::remove_dir_all(&data)?;
    std::fs::rename(&backup, &data)?;
    cluster.processes.start_all().await?;
    let replica = || cluster.quorate(&["group", "describe", "ledger"]).good()["replicas"][3].clone();
    let is_fenced =
        |replica: &Value| replica["fenced"].as_str().is_some_and(|why| why.contains("old backup"));
    let fenced = (0..100).map(|_| replica()).find(is_fenced);
    assert_eq!(fenced.unwrap_or_else(replica)["state"], "suspected");
    assert_eq!(cluster.quorate(&["submit", "ledger", "deposit", &deposit(7)]).good()["done"], 12);
    Ok(())
}

/// What could go wrong: a group that cannot keep its promises is made all the same.
#[tokio::test]
async fn groups_that_could_not_survive_a_lie_are_refused_with_what_to_do() -> Result<()> {
    let cluster = TestCluster::start(4).await?;
    let create = |arguments: &[&str]| {
        let mut line = vec!["group", "create", "few"];
        line.extend(arguments);
        cluster.quorate(&line)
    };
    let few = create(&["--protocol", "hotstuff", "--replicas", "3"]).refused(5);
    assert!(few.contains("use at least 4"), "{few}");
    let crash = create(&["--protocol", "hotstuff", "--kind", "crash"]).refused(5);
    assert!(crash.contains("crash groups run Raft only"), "{crash}");
    let raft = create(&["--protocol", "raft", "--kind", "byzantine"]).refused(5);
    assert!(raft.contains("Byzantine groups never do"), "{raft}");
    let pbft = create(&["--protocol", "pbft"]).refused(5);
    assert!(pbft.contains("HotStuff"), "{pbft}");
    Ok(())
}

/// What could go wrong: a client is told what the group is by one node, and believes it ever after.
#[tokio::test]
async fn a_client_that_knows_too_few_nodes_is_told_so() -> Result<()> {
    let cluster = TestCluster::start(4).await?;
    deploy(&cluster);
    let one = cluster.processes.plan().context.endpoints[0].clone();
    let refused =
        cluster.quorate(&["submit", "ledger", "open", r#"{"account":"ada"}"#, "--endpoint", &one]).refused(2);
    assert!(refused.contains("name at least 4 nodes"), "{refused}");
    Ok(())
}

/// What could go wrong: a node without its key, or with another's, that votes or brings the others down.
#[tokio::test]
async fn a_node_without_its_key_keeps_out_of_the_group_and_serves_the_others() -> Result<()> {
    let mut cluster = TestCluster::start(4).await?;
    deploy(&cluster);
    let key = cluster.directory().join("pki/node-4-consensus.key");
    let kept = key.with_extension("kept");
    cluster.processes.kill(4).await?;
    std::fs::rename(&key, &kept)?;
    cluster.processes.start_all().await?;
    let _opened = cluster.quorate(&["submit", "ledger", "open", r#"{"account":"ada"}"#]).good();
    let reachable = |cluster: &TestCluster| {
        let described = cluster.quorate(&["group", "describe", "ledger"]).good();
        described["replicas"][3]["reachable"].clone()
    };
    assert_eq!(reachable(&cluster), false);
    cluster.processes.kill(4).await?;
    std::fs::rename(&kept, &key)?;
    cluster.processes.start_all().await?;
    assert_eq!(reachable(&cluster), true);
    assert_eq!(settled(&cluster).len(), 4);
    Ok(())
}

/// A connection for frames, as a client of the cluster opens it.
async fn connection(cluster: &TestCluster) -> Result<impl AsyncRead + AsyncWrite + use<>> {
    let plan = cluster.processes.plan();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&plan.context.ca)?)?;
    let chain = vec![CertificateDer::from_pem_file(&plan.context.cert)?];
    let key = PrivateKeyDer::from_pem_file(&plan.context.key)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    let address = plan.nodes[0].api;
    let tcp = tokio::net::TcpStream::connect(address).await?;
    let host = ServerName::from(address.ip());
    Ok(TlsConnector::from(Arc::new(config)).connect(host, tcp).await?)
}

/// What could go wrong: a client of an old version, or a node that relays, has something ordered that nobody signed.
#[tokio::test]
async fn what_a_client_did_not_sign_is_refused_item_by_item_as_not_signed() -> Result<()> {
    let cluster = TestCluster::start(4).await?;
    deploy(&cluster);
    let before = settled(&cluster)[0]["applied_index"].clone();
    let group = cluster.quorate(&["group", "describe", "ledger"]).good()["id"].as_u64().unwrap();
    let kinds = [
        Kind::OpenSession(OpenSession { client: vec![7; 16].into(), ttl_ms: 60_000 }),
        Kind::Command(Command { session: 1, sequence: 1, acknowledged_below: 1, ..Command::default() }),
        Kind::KeepSession(KeepSession { session: 1 }),
        Kind::CloseSession(CloseSession { session: 1 }),
    ];
    let items = (1..).zip(kinds).map(|(tag, kind)| SubmitItem { tag, kind: Some(kind) }).collect();
    let (reader, writer) = tokio::io::split(connection(&cluster).await?);
    let mut writer = FrameWriter::new(writer);
    writer.append(&SubmitFrame { group, items, signed: None })?;
    writer.flush().await?;
    let mut reader = FrameReader::new(reader, 1 << 20);
    let mut refused = Vec::new();
    while refused.len() < 4 {
        let frame: ReplyFrame = reader.next().await?.unwrap();
        for reply in frame.replies {
            let Some(reply::Kind::Error(error)) = reply.kind else { panic!("{reply:?}") };
            assert_eq!(error.code(), ErrorCode::NotSigned, "{error:?}");
            refused.push(reply.tag);
        }
    }
    refused.sort_unstable();
    assert_eq!(refused, [1, 2, 3, 4]);
    assert_eq!(settled(&cluster)[0]["applied_index"], before, "nothing was ordered");
    Ok(())
}
