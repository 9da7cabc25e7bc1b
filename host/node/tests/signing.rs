//! Four drivers of a group under HotStuff joined in one thread, with a log that is durable at once: what the
//! driver adds to the protocol, without disk, network or components. The simulator shows the rest.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_consensus::hotstuff::{Body, Evidence, Identity, Message, Settings};
use quorate_consensus::{
    Envelope, Message as AnyMessage, Now, ReplicaRole, SnapshotContent, SnapshotFetch, StartError, Timings,
};
use quorate_crypto::{SecretKey, Statement, StatementKind, ValidatorSet, frame_content, sign_frame};
use quorate_node::catalog::crash_group;
use quorate_node::driver::{
    AcceptedCertificates, AdmittedFrame, Driver, DriverInput, Failure, FrameFault, GroupStart, Local, Output,
    Puller, PullerStep, RelayedFrame, Reply, SnapshotFault, Unverified,
};
use quorate_node::{DigestInterval, MachineIdentity};
use quorate_storage::{Identity as DiskIdentity, SimDisk, Store};
use quorate_types::{
    Batch, BatchItem, BootNumber, ClientFrame, ClusterId, ComponentLimits, Digest, Epoch, EpochConfig,
    GroupId, GroupKind, HlcTimestamp, Incarnation, LogIndex, MemberKey, NodeId, Outcome, Position, Protocol,
    Rejection, SessionId, Time, View,
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

fn store(node: NodeId) -> Store {
    let identity = DiskIdentity { cluster: CLUSTER, node, incarnation: Incarnation(1) };
    Store::open_on(&SimDisk::new(), "state", &identity).unwrap()
}

fn start(store: &Store) -> GroupStart {
    let machine = MachineIdentity {
        cluster: CLUSTER,
        group: GROUP,
        name: "catalog".into(),
        digest_interval: DigestInterval { entries: 16, bytes: 1 << 20 },
    };
    GroupStart::recover(store, machine, config(), None, Timings::default()).unwrap()
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
    stores: BTreeMap<NodeId, Store>,
    /// Who lies about its snapshots, and how.
    liar: Option<(NodeId, Lie)>,
    refused: Vec<(NodeId, SnapshotFault)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    /// Offers another digest than that of its state.
    Digest,
    /// Offers the digest of its state and sends another state.
    Content,
}

/// A message of a member in the envelope of another one of it.
fn resigned(envelope: Envelope, node: NodeId, body: Body) -> Bytes {
    let AnyMessage::HotStuff(said) = envelope.message else { panic!("it is signed") };
    let signature = secret(node).sign(&body.statement(said.scope));
    let message = AnyMessage::HotStuff(Message { scope: said.scope, body, signature });
    Envelope { message, ..envelope }.encode()
}

/// The frame of a member that offers another digest than that of its state.
fn with_another_digest(node: NodeId, frame: Bytes) -> Bytes {
    let envelope = Envelope::decode(frame.clone()).unwrap();
    match &envelope.message {
        AnyMessage::HotStuff(Message { body: Body::Offer(offer), .. }) => {
            let mut offer = offer.clone();
            offer.content.digest.0[0] ^= 1;
            resigned(envelope, node, Body::Offer(offer))
        }
        _ => frame,
    }
}

/// A piece with another value at its end.
fn with_another_value(piece: &Bytes) -> Bytes {
    let mut content = piece[32..].to_vec();
    *content.last_mut().unwrap() ^= 1;
    let checksum = quorate_crypto::digest("quorate 2026 snapshot chunk", &content);
    [&checksum.0[..], &content].concat().into()
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
            stores: BTreeMap::new(),
            liar: None,
            refused: Vec::new(),
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
            let store = store(node);
            driver.add_group(start(&store).signing(identity), cluster.clock()).unwrap();
            cluster.drivers.insert(node, driver);
            cluster.stores.insert(node, store);
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
        for (to, mut frame) in output.sends {
            if self.liar == Some((node, Lie::Digest)) {
                frame = with_another_digest(node, frame);
            }
            queue.push_back((to, vec![self.verified(node, frame).unwrap()]));
        }
        if let Some(ticket) = output.ticket {
            self.flushes += 1;
            queue.push_back((node, vec![DriverInput::Flushed(ticket)]));
        }
        self.evidence.extend(output.evidence.into_iter().map(|(_, evidence)| evidence));
        self.relays.extend(output.relays.into_iter().map(|(_, frame)| frame));
        for job in output.checkpoints {
            let done = job.run(&self.stores[&node]).unwrap();
            queue.push_back((node, vec![DriverInput::CheckpointDone(done)]));
        }
        for (_, fetch) in output.fetches {
            queue.push_back((node, vec![self.pull(node, fetch)]));
        }
        for job in output.installs {
            let (group, position, from) = (job.group(), job.position(), job.from());
            let input = match job.run(&self.stores[&node]).unwrap() {
                Ok(done) => DriverInput::SnapshotInstalled(Box::new(done)),
                Err(fault) => DriverInput::SnapshotRefused { group, position, from, fault },
            };
            queue.push_back((node, vec![input]));
        }
        self.refused.extend(output.refused.into_iter().map(|(_, from, fault)| (from, fault)));
        for group in output.orders {
            let (leader, waiter) = (self.leader().unwrap(), 0);
            queue.push_back((leader, vec![DriverInput::OrderCheckpoint { group, waiter }]));
        }
        for (waiter, reply) in output.replies {
            assert!(waiter == 0 || self.replies.insert(waiter, reply).is_none(), "one reply for each waiter");
        }
    }

    /// Asks a member for a piece of a snapshot.
    fn piece(&mut self, from: NodeId, request: Bytes) -> Reply {
        let clock = self.clock();
        let input = DriverInput::ServeSnapshot { request, waiter: 0 };
        let output = self.drivers.get_mut(&from).unwrap().turn(clock, [input]);
        output.replies.into_iter().next().unwrap().1
    }

    fn pull(&mut self, node: NodeId, fetch: SnapshotFetch) -> DriverInput<u64> {
        let (group, position, from) = (GROUP, fetch.position, fetch.from);
        let mut puller = Puller::new(self.drivers[&node].identity(group).unwrap(), fetch);
        loop {
            let Reply::SnapshotChunk(piece) = self.piece(from, puller.request()) else {
                return DriverInput::SnapshotFailed { group, position };
            };
            let is_false = self.liar == Some((from, Lie::Content));
            match puller.take(if is_false { with_another_value(&piece) } else { piece }) {
                PullerStep::More(next) => puller = next,
                PullerStep::Complete(job) => return DriverInput::SnapshotFetched(job),
                PullerStep::Fault(fault) => {
                    return DriverInput::SnapshotRefused { group, position, from, fault };
                }
            }
        }
    }

    /// Has all replicas take a checkpoint, and says of each where it stands.
    fn checkpoints(&mut self) -> Vec<Option<(LogIndex, Digest)>> {
        let (leader, waiter) = (self.leader().unwrap(), 0);
        self.input(leader, vec![DriverInput::OrderCheckpoint { group: GROUP, waiter }]);
        self.run(Duration::from_millis(20));
        self.drivers.values().map(|driver| driver.report(GROUP).unwrap().digest).collect()
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
    let started = driver.add_group(start(&store(NodeId(1))), now);
    assert_eq!(started, Err(StartError::NoIdentity(Protocol::HotStuff)));
}

/// A cluster whose last member was away until nobody kept the entries that it lacks.
fn far_behind() -> Cluster {
    let mut cluster = Cluster::new();
    cluster.down = Some(NodeId(4));
    let leader = cluster.leader().unwrap();
    for client in 1..=40 {
        let waiter = cluster.open(leader, client);
        cluster.run(Duration::from_millis(5));
        assert!(cluster.is_done(waiter));
    }
    assert!(cluster.drivers[&leader].report(GROUP).unwrap().checkpointed > LogIndex(64));
    cluster
}

/// What could go wrong: a replica that was far behind goes on from a state that one member made up.
#[test]
fn a_replica_far_behind_gets_in_and_not_with_the_state_of_one_that_lies() {
    for lie in [None, Some(Lie::Digest), Some(Lie::Content)] {
        let mut cluster = far_behind();
        cluster.liar = lie.map(|lie| (NodeId(1), lie));
        cluster.down = None;
        // A new entry shows it that it is behind.
        let leader = cluster.leader().unwrap();
        let waiter = cluster.open(leader, 41);
        cluster.run(Duration::from_secs(2));
        assert!(cluster.is_done(waiter));
        let report = cluster.drivers[&NodeId(4)].report(GROUP).unwrap();
        assert_eq!((report.sessions, report.fenced), (41, None), "{lie:?}");
        let refused =
            if lie == Some(Lie::Content) { vec![(NodeId(1), SnapshotFault::OtherContent)] } else { vec![] };
        assert_eq!(cluster.refused, refused, "{lie:?}");
        let counted = cluster.drivers[&NodeId(4)].counters().snapshots_refused;
        assert_eq!(counted, refused.len() as u64, "{lie:?}");
        let checkpoints = cluster.checkpoints();
        assert!(
            checkpoints[0].is_some() && checkpoints.iter().all(|one| *one == checkpoints[0]),
            "{checkpoints:?}"
        );
    }
}

/// What could go wrong: replicas that take checkpoints each where it likes have none in common to offer.
#[test]
fn a_checkpoint_that_someone_asks_for_is_taken_by_all_at_one_index() {
    let mut cluster = Cluster::new();
    let leader = cluster.leader().unwrap();
    let other = NodeId(leader.0 % 4 + 1);
    assert!(cluster.open(leader, 1) > 0);
    cluster.run(Duration::from_millis(5));
    cluster.input(other, vec![DriverInput::OrderCheckpoint { group: GROUP, waiter: 900 }]);
    let refused = cluster.replies.remove(&900);
    assert!(
        matches!(refused, Some(Reply::Failed(Failure::NotLeader { leader: Some(node) })) if node == leader)
    );
    cluster.input(other, vec![DriverInput::Checkpoint { group: GROUP, waiter: 901 }]);
    cluster.run(Duration::from_millis(20));
    let Some(Reply::Checkpoint { index, .. }) = cluster.replies.remove(&901) else { panic!("not taken") };
    cluster.input(other, vec![DriverInput::CheckpointDue(GROUP)]);
    cluster.run(Duration::from_millis(20));
    for driver in cluster.drivers.values() {
        let report = driver.report(GROUP).unwrap();
        assert!(report.checkpointed > index, "{report:?}");
        assert_eq!(report.digest, cluster.drivers[&leader].report(GROUP).unwrap().digest);
    }
}

/// What could go wrong: a member that takes its next checkpoint leaves who fetches the one before with half of it.
#[test]
fn a_snapshot_is_served_as_it_was_offered_and_no_other() {
    let mut cluster = Cluster::new();
    let digests = cluster.checkpoints();
    let (index, _) = digests[0].unwrap();
    let position = |index| Position { index, ..Position::ZERO };
    let content = Some(SnapshotContent { digest: Digest([0; 32]), bytes: 1 << 20 });
    let request = |index| {
        let identity = cluster.drivers[&NodeId(1)].identity(GROUP).unwrap();
        Puller::new(identity, SnapshotFetch { from: NodeId(1), position: position(index), content }).request()
    };
    let (offered, next) = (request(index), request(index.next()));
    assert!(matches!(cluster.piece(NodeId(1), next), Reply::Failed(Failure::NoSnapshot(_))));
    let Reply::SnapshotChunk(piece) = cluster.piece(NodeId(1), offered.clone()) else { panic!("not served") };
    assert!(cluster.checkpoints()[0].unwrap().0 > index);
    let Reply::SnapshotChunk(again) = cluster.piece(NodeId(1), offered.clone()) else { panic!("not kept") };
    assert_eq!(piece, again);
    cluster.run(Duration::from_secs(31));
    assert!(
        matches!(cluster.piece(NodeId(1), offered), Reply::Failed(Failure::NoSnapshot(_))),
        "not for ever"
    );
}

/// What could go wrong: a leader that lies has code put in force that nobody has, and every replica waits for it.
#[test]
fn a_leader_that_activates_what_nobody_has_stops_itself_alone() {
    let mut cluster = Cluster::new();
    let liar = cluster.leader().unwrap();
    let activate = BatchItem::Activate { component: Digest([9; 32]), parameters: Bytes::new() };
    cluster.next_waiter += 1;
    let waiter = cluster.next_waiter;
    cluster.input(liar, vec![DriverInput::Submit { group: GROUP, items: vec![(activate, waiter)] }]);
    for _ in 0..20 {
        cluster.run(Duration::from_millis(200));
        if cluster.leader() != Some(liar) {
            break;
        }
    }
    let others = (1..=4).map(NodeId).filter(|node| *node != liar);
    let unready = others.map(|node| cluster.drivers[&node].counters().proposals_unready);
    assert!(unready.into_iter().all(|count| count > 0));
    assert!(matches!(cluster.replies.remove(&waiter), Some(Reply::Failed(Failure::LeadershipLost))));
    let leader = cluster.leader().unwrap();
    assert_ne!(leader, liar);
    let opened = cluster.open(leader, 1);
    cluster.run(Duration::from_secs(1));
    assert!(cluster.is_done(opened), "the others go on");
    for driver in cluster.drivers.values() {
        let report = driver.report(GROUP).unwrap();
        assert_eq!((report.sessions, report.applied), (1, report.commit), "{report:?}");
    }
}
