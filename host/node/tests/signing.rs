//! Four drivers of a group under HotStuff joined in one thread, with a log that is durable at once: what the
//! driver adds to the protocol, without disk, network or components. The simulator shows the rest.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_consensus::hotstuff::{Body, Evidence, Identity, Message, Settings};
use quorate_consensus::{Envelope, Message as AnyMessage, Now, ReplicaRole, StartError, Timings};
use quorate_crypto::{SecretKey, Statement, StatementKind, ValidatorSet, frame_content, sign_frame};
use quorate_node::catalog::crash_group;
use quorate_node::driver::{
    AcceptedCertificates, AdmittedFrame, Driver, DriverInput, FrameFault, GroupStart, Local, Output,
    RelayedFrame, Reply, Unverified,
};
use quorate_node::{DigestInterval, MachineIdentity};
use quorate_storage::{Identity as DiskIdentity, SimDisk, Store};
use quorate_types::{
    Batch, BatchItem, BootNumber, ClientFrame, ClusterId, ComponentLimits, Digest, Epoch, EpochConfig,
    GroupId, GroupKind, HlcTimestamp, Incarnation, LogIndex, MemberKey, NodeId, Outcome, Protocol, Rejection,
    SessionId, Time, View,
};

// The catalog's machine is the only one in native code.
const GROUP: GroupId = GroupId::CATALOG;
const CLUSTER: ClusterId = ClusterId([7; 16]);

fn secret(node: NodeId) -> SecretKey {
    SecretKey::from_seed(&[node.0 as u8; 32])
}

fn config() -> EpochConfig {
    let nodes: Vec<_> = (1..=4).map(NodeId).collect();
    let mut config = crash_group(&nodes, ComponentLimits::default());
    (config.kind, config.protocol) = (GroupKind::Byzantine, Protocol::HotStuff);
    for member in &mut config.members {
        member.key = Some(MemberKey(secret(member.node).public().to_bytes()));
    }
    config
}

fn start(node: NodeId) -> GroupStart {
    let identity = DiskIdentity { cluster: CLUSTER, node, incarnation: Incarnation(1) };
    let store = Store::open_on(&SimDisk::new(), "state", &identity).unwrap();
    let machine = MachineIdentity {
        cluster: CLUSTER,
        group: GROUP,
        name: "catalog".into(),
        digest_interval: DigestInterval { entries: 1_000, bytes: 1 << 20 },
    };
    GroupStart::recover(&store, machine, config(), None, Timings::default()).unwrap()
}

fn driver(node: NodeId) -> Driver<u64> {
    Driver::new(Local { node, incarnation: Incarnation(1), boot: BootNumber(1), seed: node.0 })
}

struct Cluster {
    set: Arc<ValidatorSet>,
    accepted: Arc<AcceptedCertificates>,
    drivers: BTreeMap<NodeId, Driver<u64>>,
    down: Option<NodeId>,
    now: Time,
    replies: BTreeMap<u64, Reply>,
    next_waiter: u64,
    evidence: Vec<Evidence>,
    /// Clients' frames that members handed on.
    relays: Vec<RelayedFrame>,
    /// Log batches made durable so far.
    flushes: u64,
}

impl Cluster {
    fn new() -> Self {
        let set = Arc::new(ValidatorSet::of_epoch(CLUSTER, GROUP, &config()).unwrap());
        let mut cluster = Self {
            set: Arc::clone(&set),
            accepted: Arc::default(),
            drivers: BTreeMap::new(),
            down: None,
            now: Time(1),
            replies: BTreeMap::new(),
            next_waiter: 0,
            evidence: Vec::new(),
            relays: Vec::new(),
            flushes: 0,
        };
        for node in (1..=4).map(NodeId) {
            let identity = Identity {
                set: Arc::clone(&set),
                signer: Arc::new(secret(node)),
                certifier: cluster.accepted.clone(),
                boot: BootNumber(1),
                settings: Settings::default(),
            };
            let mut driver = driver(node);
            driver.add_group(start(node).signing(identity), cluster.clock()).unwrap();
            cluster.drivers.insert(node, driver);
        }
        cluster.run(Duration::from_millis(50));
        cluster
    }

    fn clock(&self) -> Now {
        Now { time: self.now, wall: HlcTimestamp::from_unix_ms(1_000 + self.now.0 / 1_000) }
    }

    fn verified(&self, from: NodeId, frame: Bytes) -> Result<DriverInput<u64>, FrameFault> {
        let (unverified, request) = Unverified::read(from, frame, &self.set)?;
        unverified.admit_in_place(request, &self.accepted)
    }

    fn input(&mut self, node: NodeId, inputs: Vec<DriverInput<u64>>) {
        let mut queue = VecDeque::from([(node, inputs)]);
        while let Some((node, inputs)) = queue.pop_front() {
            if self.down == Some(node) {
                continue;
            }
            let clock = self.clock();
            let output = self.drivers.get_mut(&node).unwrap().turn(clock, inputs);
            self.carry_out(node, output, &mut queue);
            let driver = self.drivers.get_mut(&node).unwrap();
            while let Some(mut job) = driver.next_apply() {
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
            queue.push_back((to, vec![self.verified(node, frame).unwrap()]));
        }
        if let Some(ticket) = output.ticket {
            self.flushes += 1;
            queue.push_back((node, vec![DriverInput::Flushed(ticket)]));
        }
        self.evidence.extend(output.evidence.into_iter().map(|(_, evidence)| evidence));
        self.relays.extend(output.relays.into_iter().map(|(_, frame)| frame));
        for (waiter, reply) in output.replies {
            assert!(self.replies.insert(waiter, reply).is_none(), "one reply for each waiter");
        }
    }

    fn run(&mut self, duration: Duration) {
        let end = self.now.after(duration);
        while self.now < end {
            for node in (1..=4).map(NodeId) {
                let due = |cluster: &Self| {
                    cluster.drivers[&node].next_deadline().is_some_and(|due| due <= cluster.now)
                };
                for _ in 0..100 {
                    if due(self) {
                        self.input(node, Vec::new());
                    }
                }
            }
            self.now = self.now.after(Duration::from_millis(1));
        }
    }

    fn leader(&self) -> Option<NodeId> {
        let leads = |node: &NodeId| {
            let report = self.drivers[node].report(GROUP);
            Some(*node) != self.down && report.is_some_and(|report| report.role == ReplicaRole::Leader)
        };
        self.drivers.keys().copied().find(leads)
    }

    /// Submits an item that opens a session.
    fn open(&mut self, node: NodeId, client: u8) -> u64 {
        self.next_waiter += 1;
        let items = vec![(BatchItem::OpenSession { client: [client; 16], ttl_ms: 60_000 }, self.next_waiter)];
        self.input(node, vec![DriverInput::Submit { group: GROUP, items }]);
        self.next_waiter
    }

    /// Hands a client's frame to these members; who waits at each.
    fn send(&mut self, to: impl IntoIterator<Item = NodeId>, frame: &ClientFrame) -> Vec<u64> {
        let items = frame.batch().unwrap().items.len();
        let admitted = AdmittedFrame { content: frame_content(frame), bytes: frame.encode(), items };
        let mut waiters = Vec::new();
        for node in to {
            let first = self.next_waiter + 1;
            self.next_waiter += items as u64;
            let waiting = (first..=self.next_waiter).collect();
            waiters.extend(first..=self.next_waiter);
            let (group, frame) = (GROUP, admitted.clone());
            self.input(node, vec![DriverInput::ClientFrame { group, frame, waiters: waiting }]);
        }
        waiters
    }

    /// What a waiter was told; nothing yet.
    fn told(&mut self, waiter: u64) -> Option<(Outcome, LogIndex)> {
        match self.replies.remove(&waiter)? {
            Reply::Outcome { outcome, index } => Some((outcome, index)),
            other => panic!("{other:?}"),
        }
    }

    fn is_done(&mut self, waiter: u64) -> bool {
        matches!(self.replies.remove(&waiter), Some(Reply::Outcome { outcome: Outcome::Done(_), .. }))
    }
}

#[test]
fn what_a_leader_takes_is_applied_by_all_and_answered_once() {
    let mut cluster = Cluster::new();
    let leader = cluster.leader().unwrap();
    let waiters: Vec<_> = (1..=20).map(|client| cluster.open(leader, client)).collect();
    cluster.run(Duration::from_millis(20));
    assert!(waiters.into_iter().all(|waiter| cluster.is_done(waiter)));
    let applied = |node: u64| cluster.drivers[&NodeId(node)].report(GROUP).unwrap().sessions;
    assert_eq!((1..=4).map(applied).collect::<Vec<_>>(), [20; 4]);
}

/// What could go wrong: empty blocks crowd out the entries that gather meanwhile, or a view's end is taken for
/// the end of leadership.
#[test]
fn what_gathers_while_a_view_lasts_becomes_one_entry() {
    let mut cluster = Cluster::new();
    let leader = cluster.leader().unwrap();
    let term = cluster.drivers[&leader].report(GROUP).unwrap().term;
    let items = (1..=100).map(|client: u8| {
        cluster.next_waiter += 1;
        (BatchItem::OpenSession { client: [client; 16], ttl_ms: 60_000 }, cluster.next_waiter)
    });
    let inputs: Vec<_> = items
        .collect::<Vec<_>>()
        .into_iter()
        .map(|item| DriverInput::Submit { group: GROUP, items: vec![item] })
        .collect();
    cluster.input(leader, inputs);
    cluster.run(Duration::from_millis(20));
    let report = cluster.drivers[&leader].report(GROUP).unwrap();
    assert_eq!(report.sessions, 100);
    assert!(report.commit < LogIndex(8), "{report:?}");
    assert_eq!((report.term, report.role), (term, ReplicaRole::Leader));
    let silent = cluster.flushes;
    cluster.run(Duration::from_secs(2));
    assert_eq!(cluster.flushes, silent, "an idle group writes nothing");
}

#[test]
fn a_leader_that_stops_is_replaced() {
    let mut cluster = Cluster::new();
    let first = cluster.leader().unwrap();
    cluster.down = Some(first);
    let other = NodeId(first.0 % 4 + 1);
    let mut waiter = cluster.open(other, 1);
    for node in (1..=4).map(NodeId) {
        cluster.input(node, vec![DriverInput::LeaderMissing(GROUP)]);
    }
    for _ in 0..20 {
        cluster.run(Duration::from_millis(200));
        if cluster.is_done(waiter) {
            assert_ne!(cluster.leader(), Some(first));
            return;
        }
        let next = cluster.leader().unwrap_or(other);
        waiter = cluster.open(next, 1);
    }
    panic!("nobody took over: {:?}", cluster.leader());
}

#[test]
fn a_frame_that_skipped_verification_is_dropped() {
    let mut cluster = Cluster::new();
    let scope = *cluster.set.scope();
    let body = Body::Boot(quorate_consensus::hotstuff::Life { boot: BootNumber(9), nonce: 9 });
    let signature = secret(NodeId(2)).sign(&body.statement(scope));
    let message = AnyMessage::HotStuff(Message { scope, body, signature });
    let (incarnation, boot) = (Incarnation(1), BootNumber(9));
    let frame =
        Envelope { group: GROUP, epoch: Epoch(1), incarnation, boot, to_incarnation: incarnation, message }
            .encode();
    cluster.input(NodeId(1), vec![DriverInput::Frame { from: NodeId(2), frame: frame.clone() }]);
    assert_eq!(cluster.drivers[&NodeId(1)].counters().messages_unverified, 1);
    assert!(matches!(cluster.verified(NodeId(3), frame), Err(FrameFault::Signature(_))), "another deliverer");
}

/// What could go wrong: a lie that is seen and forgotten, or told again and again.
#[test]
fn two_votes_of_one_view_become_evidence_that_the_log_keeps() {
    let mut cluster = Cluster::new();
    let leader = cluster.leader().unwrap();
    let liar = NodeId(leader.0 % 4 + 1);
    let vote = |content, index| {
        let (kind, digest) = (StatementKind::Vote, Digest([content; 32]));
        Statement { scope: *cluster.set.scope(), kind, view: View(10), index: LogIndex(index), digest }
    };
    let votes = [vote(1, 9), vote(2, 9)];
    for _ in 0..2 {
        for statement in votes {
            let Statement { scope, view, index, digest, .. } = statement;
            let (body, signature) = (Body::Vote { view, index, digest }, secret(liar).sign(&statement));
            let message = AnyMessage::HotStuff(Message { scope, body, signature });
            let (incarnation, boot) = (Incarnation(1), BootNumber(1));
            let envelope = Envelope {
                group: GROUP,
                epoch: Epoch(1),
                incarnation,
                boot,
                to_incarnation: incarnation,
                message,
            };
            let input = cluster.verified(liar, envelope.encode()).unwrap();
            cluster.input(leader, vec![input]);
        }
    }
    assert_eq!(cluster.evidence.len(), 1, "told once");
    let evidence = cluster.evidence[0].clone();
    assert_eq!((evidence.signer(), evidence.verify(&cluster.set)), (liar, Ok(())));
    cluster.next_waiter += 1;
    let items = vec![(BatchItem::Evidence(evidence.to_bytes()), cluster.next_waiter)];
    cluster.input(leader, vec![DriverInput::Submit { group: GROUP, items }]);
    cluster.run(Duration::from_millis(20));
    assert!(cluster.is_done(cluster.next_waiter));
    for driver in cluster.drivers.values() {
        assert_eq!(driver.report(GROUP).unwrap().accused, [liar]);
    }
}

fn opening(client: u8, seed: u8) -> ClientFrame {
    let items = vec![BatchItem::OpenSession { client: [client; 16], ttl_ms: 60_000 }];
    signed(items, seed)
}

fn signed(items: Vec<BatchItem>, seed: u8) -> ClientFrame {
    let secret = SecretKey::from_seed(&[seed; 32]);
    sign_frame(CLUSTER, GROUP, &secret, Bytes::from_static(b"certificate"), Batch { items }.encode())
}

fn all() -> impl Iterator<Item = NodeId> {
    (1..=4).map(NodeId)
}

/// What could go wrong: only the leader answers, so that a client has its word alone; or members answer differently.
#[test]
fn every_member_answers_a_frame_alike_also_one_that_gets_it_after_it_was_applied() {
    let mut cluster = Cluster::new();
    let frame = opening(1, 50);
    let waiters = cluster.send(all().take(3), &frame);
    cluster.run(Duration::from_millis(20));
    let told: Vec<_> = waiters.into_iter().map(|waiter| cluster.told(waiter).unwrap()).collect();
    assert!(matches!(told[0].0, Outcome::Done(_)) && told.iter().all(|one| *one == told[0]), "{told:?}");
    let late = cluster.send([NodeId(4)], &frame);
    assert_eq!(cluster.told(late[0]).as_ref(), Some(&told[0]));
    assert_eq!(cluster.drivers[&NodeId(4)].report(GROUP).unwrap().pending, 0);
}

/// What could go wrong: a leader uses the session of one client for another, or replays what it has seen.
#[test]
fn a_session_takes_frames_of_its_own_key_and_a_replay_gives_the_first_outcome() {
    let mut cluster = Cluster::new();
    let opened = cluster.send(all(), &opening(1, 50));
    cluster.run(Duration::from_millis(20));
    let (Outcome::Done(session), _) = cluster.told(opened[0]).unwrap() else { panic!("not opened") };
    let session = SessionId(u64::from_le_bytes(session[..].try_into().unwrap()));
    let mut close = |seed| {
        let waiters = cluster.send(all(), &signed(vec![BatchItem::CloseSession(session)], seed));
        cluster.run(Duration::from_millis(20));
        cluster.told(waiters[0]).unwrap().0
    };
    assert!(
        matches!(close(51), Outcome::Rejected(rejection) if rejection.code == Rejection::FOREIGN_SESSION)
    );
    assert!(matches!(close(50), Outcome::Done(_)));
    let sessions = |cluster: &Cluster| cluster.drivers[&NodeId(1)].report(GROUP).unwrap().sessions;
    assert_eq!(sessions(&cluster), 0);
}

/// What could go wrong: a client's frame is lost with the leader that had it.
#[test]
fn a_frame_outlives_the_leader_that_took_it() {
    let mut cluster = Cluster::new();
    let first = cluster.leader().unwrap();
    cluster.down = Some(first);
    let waiters = cluster.send(all().filter(|node| *node != first), &opening(1, 50));
    cluster.run(Duration::from_secs(1));
    assert!(waiters.into_iter().all(|waiter| cluster.is_done(waiter)));
    assert_ne!(cluster.leader(), Some(first));
}

/// What could go wrong: a leader orders what others want and ignores one client for as long as it leads; or a client
/// that leaves the leader out has an honest one replaced.
#[test]
fn a_leader_is_shown_what_it_leaves_out_and_then_replaced() {
    let mut cluster = Cluster::new();
    let first = cluster.leader().unwrap();
    let waiters = cluster.send(all().filter(|node| *node != first), &opening(1, 50));
    let mut others = Vec::new();
    for client in 2..=120 {
        others.extend(cluster.send(all(), &opening(client, 51)));
        cluster.run(Duration::from_millis(25));
        let relayed = cluster.now > Time(1).after(Duration::from_millis(1_200));
        assert!(!relayed || cluster.relays.len() >= 3, "nobody showed it to the leader");
        if cluster.leader() != Some(first) {
            break;
        }
        assert!(cluster.replies.keys().all(|waiter| !waiters.contains(waiter)));
    }
    cluster.run(Duration::from_millis(200));
    assert!(cluster.relays.iter().all(|relay| relay.to == first && relay.bytes == opening(1, 50).encode()));
    assert_ne!(cluster.leader(), Some(first), "a leader that ignores a client goes on");
    assert!(waiters.into_iter().chain(others).all(|waiter| cluster.is_done(waiter)));
}

#[test]
fn a_replica_without_a_key_does_not_start() {
    let mut driver = driver(NodeId(1));
    let now = Now { time: Time(1), wall: HlcTimestamp::from_unix_ms(1) };
    let started = driver.add_group(start(NodeId(1)), now);
    assert_eq!(started, Err(StartError::NoIdentity(Protocol::HotStuff)));
}
