//! Groups under Raft: what the driver promises to whoever submits.

use std::time::Duration;

use bytes::Bytes;
use quorate_node::catalog::{COMMAND_NAME, CatalogCommand, NodeRecord, crash_group};
use quorate_node::driver::{Consistency, DriverInput, Failure, Reply};
use quorate_types::{BatchItem, Command, ComponentLimits, GroupId, NodeId, Outcome, Sequence, SessionId};

use crate::cluster::{Cluster, GROUP};

const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

fn cluster() -> Cluster {
    Cluster::new(&crash_group(&NODES, ComponentLimits::default()), 4)
}

fn outcome(cluster: &mut Cluster, waiter: u64) -> Outcome {
    match cluster.replies.remove(&waiter) {
        Some(Reply::Outcome { outcome, .. }) => outcome,
        other => panic!("no outcome: {other:?}"),
    }
}

fn open(cluster: &mut Cluster, node: NodeId) -> SessionId {
    let waiter = cluster.open(node, 3);
    let Outcome::Done(body) = outcome(cluster, waiter) else { panic!("not opened") };
    SessionId(u64::from_le_bytes(body[..].try_into().unwrap()))
}

fn register(session: SessionId, sequence: u64, node: u64) -> BatchItem {
    let record = NodeRecord {
        node: NodeId(node),
        api_address: format!("127.0.0.1:{node}"),
        peer_address: format!("127.0.0.1:9{node}"),
        version: "0.1.0".into(),
    };
    BatchItem::Command(Command {
        session,
        sequence: Sequence(sequence),
        acknowledged_below: Sequence(1),
        name: COMMAND_NAME.into(),
        body: CatalogCommand::RegisterNode(record).encode(),
    })
}

#[test]
fn a_command_is_applied_on_every_replica_and_answered_once() {
    let mut cluster = cluster();
    assert_eq!(cluster.leader(), Some(NodeId(1)), "the designated leader leads first");
    let session = open(&mut cluster, NodeId(1));
    for sequence in 1..=9 {
        let waiter = cluster.submit(NodeId(1), register(session, sequence, sequence));
        assert_eq!(outcome(&mut cluster, waiter), Outcome::Done(Bytes::new()));
    }
    cluster.run(Duration::from_millis(200));
    let reports = NODES.map(|node| cluster.report(node));
    assert!(reports.iter().all(|report| report.applied == reports[0].applied), "{reports:?}");
    assert!(reports[0].digest.is_some(), "digests were taken");
    assert!(reports.iter().all(|report| report.digest == reports[0].digest), "{reports:?}");
}

#[test]
fn followers_refuse_and_name_the_leader() {
    let mut cluster = cluster();
    let waiter = cluster.submit(NodeId(2), BatchItem::Tick);
    assert!(matches!(
        cluster.replies.get(&waiter),
        Some(Reply::Failed(Failure::NotLeader { leader: Some(NodeId(1)) }))
    ));
}

#[test]
fn a_retry_at_the_next_leader_counts_once() {
    let mut cluster = cluster();
    let session = open(&mut cluster, NodeId(1));
    let first = cluster.submit(NodeId(1), register(session, 1, 5));
    assert_eq!(outcome(&mut cluster, first), Outcome::Done(Bytes::new()));
    cluster.down.insert(NodeId(1));
    cluster.run(Duration::from_secs(2));
    let next = cluster.leader().expect("a new leader within two seconds");
    assert_ne!(next, NodeId(1));
    let before = cluster.drivers[&next].counters().items_applied;
    let again = cluster.submit(next, register(session, 1, 5));
    assert_eq!(outcome(&mut cluster, again), Outcome::Done(Bytes::new()));
    assert_eq!(cluster.drivers[&next].counters().items_applied, before + 1);
}

#[test]
fn a_leader_cut_off_answers_every_waiter_when_it_steps_down() {
    let mut cluster = cluster();
    let session = open(&mut cluster, NodeId(1));
    cluster.down.extend([NodeId(2), NodeId(3)]);
    let waiter = cluster.submit(NodeId(1), register(session, 1, 5));
    assert!(!cluster.replies.contains_key(&waiter), "nothing is acknowledged without a quorum");
    cluster.run(Duration::from_secs(2));
    assert!(matches!(cluster.replies.get(&waiter), Some(Reply::Failed(Failure::LeadershipLost))));
}

#[test]
fn a_linearizable_query_is_answered_by_the_leader_alone() {
    let mut cluster = cluster();
    let ask = |consistency, waiter| DriverInput::Query {
        group: GROUP,
        consistency,
        name: "list".into(),
        body: Bytes::new(),
        waiter,
    };
    cluster.input(NodeId(1), vec![ask(Consistency::Linearizable, 1_001)]);
    assert!(matches!(cluster.replies.get(&1_001), Some(Reply::Answer(_))));
    cluster.input(NodeId(2), vec![ask(Consistency::Linearizable, 1_002)]);
    assert!(matches!(cluster.replies.get(&1_002), Some(Reply::Failed(Failure::NotLeader { .. }))));
    cluster.input(NodeId(2), vec![ask(Consistency::Stale, 1_003)]);
    assert!(matches!(cluster.replies.get(&1_003), Some(Reply::Answer(_))));
}

#[test]
fn frames_that_are_not_for_this_replica_are_counted_and_dropped() {
    let mut cluster = cluster();
    let frame = Bytes::from_static(b"garbage");
    cluster.input(NodeId(1), vec![DriverInput::Frame { from: NodeId(2), frame }]);
    assert_eq!(cluster.drivers[&NodeId(1)].counters().frames_malformed, 1);
    let waiter = 2_000;
    let items = vec![(BatchItem::Tick, waiter)];
    cluster.input(NodeId(1), vec![DriverInput::Submit { group: GroupId(99), items }]);
    assert!(matches!(cluster.replies.get(&waiter), Some(Reply::Failed(Failure::UnknownGroup))));
}
