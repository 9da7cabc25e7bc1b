//! Three drivers joined in one thread with a log that is durable at once: what the driver promises to
//! whoever submits, without disk, network or components. The simulator shows the rest.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use quorate_consensus::{Now, ReplicaRole, Timings};
use quorate_node::catalog::{COMMAND_NAME, CatalogCommand, NodeRecord, crash_group};
use quorate_node::driver::{Consistency, Driver, DriverInput, Failure, GroupStart, Local, Output, Reply};
use quorate_node::{DigestInterval, MachineIdentity};
use quorate_storage::{Identity, SimDisk, Store};
use quorate_types::{
    BatchItem, BootNumber, ClusterId, Command, ComponentLimits, GroupId, HlcTimestamp, Incarnation, NodeId,
    Outcome, Sequence, SessionId, Time,
};

const GROUP: GroupId = GroupId::CATALOG;
const CLUSTER: ClusterId = ClusterId([7; 16]);

struct Member {
    driver: Driver<u64>,
    store: Store,
    up: bool,
}

struct Cluster {
    members: BTreeMap<NodeId, Member>,
    now: Time,
    replies: BTreeMap<u64, Reply>,
    next_waiter: u64,
}

impl Cluster {
    fn new() -> Self {
        let nodes = [NodeId(1), NodeId(2), NodeId(3)];
        let mut cluster =
            Self { members: BTreeMap::new(), now: Time(1), replies: BTreeMap::new(), next_waiter: 0 };
        for node in nodes {
            let identity = Identity { cluster: CLUSTER, node, incarnation: Incarnation(1) };
            let store = Store::open_on(&SimDisk::new(), "state", &identity).unwrap();
            let local = Local { node, incarnation: Incarnation(1), boot: BootNumber(1), seed: node.0 };
            let mut driver = Driver::new(local);
            let machine = MachineIdentity {
                cluster: CLUSTER,
                group: GROUP,
                name: "catalog".into(),
                digest_interval: DigestInterval { entries: 4, bytes: 1 << 20 },
            };
            let config = crash_group(&nodes, ComponentLimits::default());
            let start = GroupStart::recover(&store, machine, config, None, Timings::default()).unwrap();
            driver.add_group(start, cluster.clock()).unwrap();
            cluster.members.insert(node, Member { driver, store, up: true });
        }
        cluster.run(Duration::from_millis(50));
        cluster
    }

    fn clock(&self) -> Now {
        Now { time: self.now, wall: HlcTimestamp::from_unix_ms(1_000 + self.now.0 / 1_000) }
    }

    fn input(&mut self, node: NodeId, input: DriverInput<u64>) {
        let mut queue = VecDeque::from([(node, vec![input])]);
        while let Some((node, inputs)) = queue.pop_front() {
            let clock = self.clock();
            let member = self.members.get_mut(&node).unwrap();
            if !member.up {
                continue;
            }
            let output = member.driver.turn(clock, inputs);
            self.carry_out(node, output, &mut queue);
            let member = self.members.get_mut(&node).unwrap();
            while let Some(mut job) = member.driver.next_apply() {
                job.run();
                queue.push_back((node, vec![DriverInput::Applied(Box::new(job))]));
            }
        }
    }

    fn carry_out(
        &mut self,
        node: NodeId,
        output: Output<u64>,
        queue: &mut VecDeque<(NodeId, Vec<DriverInput<u64>>)>,
    ) {
        for (to, frame) in output.sends {
            queue.push_back((to, vec![DriverInput::Frame { from: node, frame }]));
        }
        if let Some(ticket) = output.ticket {
            queue.push_back((node, vec![DriverInput::Flushed(ticket)]));
        }
        for job in output.checkpoints {
            let done = job.run(&self.members[&node].store).unwrap();
            queue.push_back((node, vec![DriverInput::CheckpointDone(done)]));
        }
        for (job, waiter) in output.queries {
            self.replies.insert(waiter, Reply::Answer(job.run().unwrap()));
        }
        for (waiter, reply) in output.replies {
            assert!(self.replies.insert(waiter, reply).is_none(), "one reply for each waiter");
        }
    }

    /// Lets time pass, a millisecond at a time.
    fn run(&mut self, duration: Duration) {
        let end = self.now.after(duration);
        while self.now < end {
            self.now = self.now.after(Duration::from_millis(1));
            let nodes: Vec<_> = self.members.keys().copied().collect();
            for node in nodes {
                let due = self.members[&node].driver.next_deadline().is_some_and(|due| due <= self.now);
                if due {
                    self.input(node, DriverInput::MayLead(true));
                }
            }
        }
    }

    fn leader(&self) -> Option<NodeId> {
        let leads = |member: &Member| {
            member.up && member.driver.report(GROUP).is_some_and(|report| report.role == ReplicaRole::Leader)
        };
        self.members.iter().find(|(_, member)| leads(member)).map(|(node, _)| *node)
    }

    fn submit(&mut self, node: NodeId, item: BatchItem) -> u64 {
        self.next_waiter += 1;
        let waiter = self.next_waiter;
        self.input(node, DriverInput::Submit { group: GROUP, items: vec![(item, waiter)] });
        waiter
    }

    fn outcome(&mut self, waiter: u64) -> Outcome {
        match self.replies.remove(&waiter) {
            Some(Reply::Outcome { outcome, .. }) => outcome,
            other => panic!("no outcome: {other:?}"),
        }
    }

    fn open(&mut self, node: NodeId) -> SessionId {
        let waiter = self.submit(node, BatchItem::OpenSession { client: [3; 16], ttl_ms: 60_000 });
        let Outcome::Done(body) = self.outcome(waiter) else { panic!("not opened") };
        SessionId(u64::from_le_bytes(body[..].try_into().unwrap()))
    }
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
    let mut cluster = Cluster::new();
    assert_eq!(cluster.leader(), Some(NodeId(1)), "the designated leader leads first");
    let session = cluster.open(NodeId(1));
    for sequence in 1..=9 {
        let waiter = cluster.submit(NodeId(1), register(session, sequence, sequence));
        assert_eq!(cluster.outcome(waiter), Outcome::Done(Bytes::new()));
    }
    cluster.run(Duration::from_millis(200));
    let reports: Vec<_> =
        cluster.members.values().map(|member| member.driver.report(GROUP).unwrap()).collect();
    assert!(reports.iter().all(|report| report.applied == reports[0].applied), "{reports:?}");
    assert!(reports[0].digest.is_some(), "digests were taken");
    assert!(reports.iter().all(|report| report.digest == reports[0].digest), "{reports:?}");
}

#[test]
fn followers_refuse_and_name_the_leader() {
    let mut cluster = Cluster::new();
    let waiter = cluster.submit(NodeId(2), BatchItem::Tick);
    assert!(matches!(
        cluster.replies.get(&waiter),
        Some(Reply::Failed(Failure::NotLeader { leader: Some(NodeId(1)) }))
    ));
}

#[test]
fn a_retry_at_the_next_leader_counts_once() {
    let mut cluster = Cluster::new();
    let session = cluster.open(NodeId(1));
    let first = cluster.submit(NodeId(1), register(session, 1, 5));
    assert_eq!(cluster.outcome(first), Outcome::Done(Bytes::new()));
    cluster.members.get_mut(&NodeId(1)).unwrap().up = false;
    cluster.run(Duration::from_secs(2));
    let next = cluster.leader().expect("a new leader within two seconds");
    assert_ne!(next, NodeId(1));
    let before = cluster.members[&next].driver.counters().items_applied;
    let again = cluster.submit(next, register(session, 1, 5));
    assert_eq!(cluster.outcome(again), Outcome::Done(Bytes::new()));
    assert_eq!(cluster.members[&next].driver.counters().items_applied, before + 1);
}

#[test]
fn a_leader_cut_off_answers_every_waiter_when_it_steps_down() {
    let mut cluster = Cluster::new();
    let session = cluster.open(NodeId(1));
    for node in [2, 3] {
        cluster.members.get_mut(&NodeId(node)).unwrap().up = false;
    }
    let waiter = cluster.submit(NodeId(1), register(session, 1, 5));
    assert!(!cluster.replies.contains_key(&waiter), "nothing is acknowledged without a quorum");
    cluster.run(Duration::from_secs(2));
    assert!(matches!(cluster.replies.get(&waiter), Some(Reply::Failed(Failure::LeadershipLost))));
}

#[test]
fn a_linearizable_query_is_answered_by_the_leader_alone() {
    let mut cluster = Cluster::new();
    let ask = |consistency, waiter| DriverInput::Query {
        group: GROUP,
        consistency,
        name: "list".into(),
        body: Bytes::new(),
        waiter,
    };
    cluster.input(NodeId(1), ask(Consistency::Linearizable, 1_001));
    assert!(matches!(cluster.replies.get(&1_001), Some(Reply::Answer(_))));
    cluster.input(NodeId(2), ask(Consistency::Linearizable, 1_002));
    assert!(matches!(cluster.replies.get(&1_002), Some(Reply::Failed(Failure::NotLeader { .. }))));
    cluster.input(NodeId(2), ask(Consistency::Stale, 1_003));
    assert!(matches!(cluster.replies.get(&1_003), Some(Reply::Answer(_))));
}

#[test]
fn frames_that_are_not_for_this_replica_are_counted_and_dropped() {
    let mut cluster = Cluster::new();
    let frame = Bytes::from_static(b"garbage");
    cluster.input(NodeId(1), DriverInput::Frame { from: NodeId(2), frame });
    assert_eq!(cluster.members[&NodeId(1)].driver.counters().frames_malformed, 1);
    let waiter = 2_000;
    cluster
        .input(NodeId(1), DriverInput::Submit { group: GroupId(99), items: vec![(BatchItem::Tick, waiter)] });
    assert!(matches!(cluster.replies.get(&waiter), Some(Reply::Failed(Failure::UnknownGroup))));
}
