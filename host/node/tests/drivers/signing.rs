//! Groups under HotStuff: what the driver adds to the protocol.

use std::time::Duration;

use bytes::Bytes;
use quorate_consensus::hotstuff::{Body, Life, Message};
use quorate_consensus::{Now, ReplicaRole, SnapshotContent, SnapshotFetch, StartError};
use quorate_crypto::{SecretKey, Statement, StatementKind, frame_content, sign_frame};
use quorate_node::catalog::crash_group;
use quorate_node::driver::{AdmittedFrame, DriverInput, Failure, FrameFault, Puller, Reply, SnapshotFault};
use quorate_types::{
    Batch, BatchItem, BootNumber, ClientFrame, ComponentLimits, Digest, EpochConfig, GroupKind, HlcTimestamp,
    LogIndex, MemberKey, NodeId, Outcome, Position, Protocol, Rejection, SessionId, Time, View,
};

use crate::cluster::{CLUSTER, Cluster, GROUP, Lie, driver, envelope, secret, start, store};

/// Entries after which a replica takes the digest of its state.
const DIGEST_ENTRIES: u32 = 16;

fn config() -> EpochConfig {
    let nodes: Vec<_> = (1..=4).map(NodeId).collect();
    let mut config = crash_group(&nodes, ComponentLimits::default());
    (config.kind, config.protocol) = (GroupKind::Byzantine, Protocol::HotStuff);
    for member in &mut config.members {
        member.key = Some(MemberKey(secret(member.node).public().to_bytes()));
    }
    config
}

fn cluster() -> Cluster {
    Cluster::new(&config(), DIGEST_ENTRIES)
}

impl Cluster {
    /// Has all replicas take a checkpoint, and says of each where it stands.
    fn checkpoints(&mut self) -> Vec<Option<(LogIndex, Digest)>> {
        let (leader, waiter) = (self.leader().unwrap(), 0);
        self.input(leader, vec![DriverInput::OrderCheckpoint { group: GROUP, waiter }]);
        self.run(Duration::from_millis(20));
        self.drivers.values().map(|driver| driver.report(GROUP).unwrap().digest).collect()
    }

    /// Hands a client's frame to these members; who waits at each.
    fn send(&mut self, to: impl IntoIterator<Item = NodeId>, frame: &ClientFrame) -> Vec<u64> {
        let items = frame.batch().unwrap().items.len();
        let activates = frame.batch().unwrap().activates().collect();
        let (content, bytes) = (frame_content(frame), frame.encode());
        let admitted = AdmittedFrame { content, bytes, items, activates };
        let mut waiters = Vec::new();
        for node in to {
            let first = self.last_waiter + 1;
            self.last_waiter += items as u64;
            let waiting = (first..=self.last_waiter).collect();
            waiters.extend(first..=self.last_waiter);
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
    let mut cluster = cluster();
    let leader = cluster.leader().unwrap();
    let waiters: Vec<_> = (1..=20).map(|client| cluster.open(leader, client)).collect();
    cluster.run(Duration::from_millis(20));
    assert!(waiters.into_iter().all(|waiter| cluster.is_done(waiter)));
    let applied = |node: u64| cluster.report(NodeId(node)).sessions;
    assert_eq!((1..=4).map(applied).collect::<Vec<_>>(), [20; 4]);
}

/// What could go wrong: empty blocks crowd out the entries that gather meanwhile, or a view's end is taken for
/// the end of leadership.
#[test]
fn what_gathers_while_a_view_lasts_becomes_one_entry() {
    let mut cluster = cluster();
    let leader = cluster.leader().unwrap();
    let term = cluster.report(leader).term;
    let items = (1..=100).map(|client: u8| {
        cluster.last_waiter += 1;
        (BatchItem::OpenSession { client: [client; 16], ttl_ms: 60_000 }, cluster.last_waiter)
    });
    let inputs: Vec<_> = items
        .collect::<Vec<_>>()
        .into_iter()
        .map(|item| DriverInput::Submit { group: GROUP, items: vec![item] })
        .collect();
    cluster.input(leader, inputs);
    cluster.run(Duration::from_millis(20));
    let report = cluster.report(leader);
    assert_eq!(report.sessions, 100);
    assert!(report.commit < LogIndex(8), "{report:?}");
    assert_eq!((report.term, report.role), (term, ReplicaRole::Leader));
    let silent = cluster.flushes;
    cluster.run(Duration::from_secs(2));
    assert_eq!(cluster.flushes, silent, "an idle group writes nothing");
}

#[test]
fn a_leader_that_stops_is_replaced() {
    let mut cluster = cluster();
    let first = cluster.leader().unwrap();
    cluster.down.insert(first);
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
    let mut cluster = cluster();
    let scope = *cluster.set().scope();
    let body = Body::Boot(Life { boot: BootNumber(1), nonce: 9 });
    let signature = secret(NodeId(2)).sign(&body.statement(scope));
    let frame = envelope(Message { scope, body, signature });
    cluster.input(NodeId(1), vec![DriverInput::Frame { from: NodeId(2), frame: frame.clone() }]);
    assert_eq!(cluster.drivers[&NodeId(1)].counters().messages_unverified, 1);
    assert!(matches!(cluster.verified(NodeId(3), frame), Err(FrameFault::Signature(_))), "another deliverer");
}

/// What could go wrong: a lie that is seen and forgotten, or told again and again.
#[test]
fn two_votes_of_one_view_become_evidence_that_the_log_keeps() {
    let mut cluster = cluster();
    let leader = cluster.leader().unwrap();
    let liar = NodeId(leader.0 % 4 + 1);
    let vote = |content, index| {
        let (kind, digest) = (StatementKind::Vote, Digest([content; 32]));
        Statement { scope: *cluster.set().scope(), kind, view: View(10), index: LogIndex(index), digest }
    };
    let votes = [vote(1, 9), vote(2, 9)];
    for _ in 0..2 {
        for statement in votes {
            let Statement { scope, view, index, digest, .. } = statement;
            let (body, signature) = (Body::Vote { view, index, digest }, secret(liar).sign(&statement));
            let frame = envelope(Message { scope, body, signature });
            let input = cluster.verified(liar, frame).unwrap();
            cluster.input(leader, vec![input]);
        }
    }
    assert_eq!(cluster.evidence.len(), 1, "told once");
    let evidence = cluster.evidence[0].clone();
    assert_eq!((evidence.signer(), evidence.verify(cluster.set())), (liar, Ok(())));
    let waiter = cluster.submit(leader, BatchItem::Evidence(evidence.to_bytes()));
    cluster.run(Duration::from_millis(20));
    assert!(cluster.is_done(waiter));
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
    let mut cluster = cluster();
    let frame = opening(1, 50);
    let waiters = cluster.send(all().take(3), &frame);
    cluster.run(Duration::from_millis(20));
    let told: Vec<_> = waiters.into_iter().map(|waiter| cluster.told(waiter).unwrap()).collect();
    assert!(matches!(told[0].0, Outcome::Done(_)) && told.iter().all(|one| *one == told[0]), "{told:?}");
    let late = cluster.send([NodeId(4)], &frame);
    assert_eq!(cluster.told(late[0]).as_ref(), Some(&told[0]));
    assert_eq!(cluster.report(NodeId(4)).pending, 0);
}

/// What could go wrong: a leader uses the session of one client for another, or replays what it has seen.
#[test]
fn a_session_takes_frames_of_its_own_key_and_a_replay_gives_the_first_outcome() {
    let mut cluster = cluster();
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
    let sessions = |cluster: &Cluster| cluster.report(NodeId(1)).sessions;
    assert_eq!(sessions(&cluster), 0);
}

/// What could go wrong: a client's frame is lost with the leader that had it.
#[test]
fn a_frame_outlives_the_leader_that_took_it() {
    let mut cluster = cluster();
    let first = cluster.leader().unwrap();
    cluster.down.insert(first);
    let waiters = cluster.send(all().filter(|node| *node != first), &opening(1, 50));
    cluster.run(Duration::from_secs(1));
    assert!(waiters.into_iter().all(|waiter| cluster.is_done(waiter)));
    assert_ne!(cluster.leader(), Some(first));
}

/// What could go wrong: a leader orders what others want and ignores one client for as long as it leads; or a client
/// that leaves the leader out has an honest one replaced.
#[test]
fn a_leader_is_shown_what_it_leaves_out_and_then_replaced() {
    let mut cluster = cluster();
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
    let started = driver.add_group(start(&store(NodeId(1)), &config(), DIGEST_ENTRIES), now);
    assert_eq!(started, Err(StartError::NoIdentity(Protocol::HotStuff)));
}

/// A cluster whose last member was away until nobody kept the entries that it lacks.
fn far_behind() -> Cluster {
    let mut cluster = cluster();
    cluster.down.insert(NodeId(4));
    let leader = cluster.leader().unwrap();
    for client in 1..=40 {
        let waiter = cluster.open(leader, client);
        cluster.run(Duration::from_millis(5));
        assert!(cluster.is_done(waiter));
    }
    assert!(cluster.report(leader).checkpointed > LogIndex(64));
    cluster
}

/// What could go wrong: a replica that was far behind goes on from a state that one member made up.
#[test]
fn a_replica_far_behind_gets_in_and_not_with_the_state_of_one_that_lies() {
    for lie in [None, Some(Lie::Digest), Some(Lie::Content)] {
        let mut cluster = far_behind();
        cluster.liar = lie.map(|lie| (NodeId(1), lie));
        cluster.down.clear();
        // A new entry shows it that it is behind.
        let leader = cluster.leader().unwrap();
        let waiter = cluster.open(leader, 41);
        cluster.run(Duration::from_secs(2));
        assert!(cluster.is_done(waiter));
        let report = cluster.report(NodeId(4));
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
    let mut cluster = cluster();
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
        assert_eq!(report.digest, cluster.report(leader).digest);
    }
}

/// What could go wrong: a member that takes its next checkpoint leaves who fetches the one before with half of it.
#[test]
fn a_snapshot_is_served_as_it_was_offered_and_no_other() {
    let mut cluster = cluster();
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
    let mut cluster = cluster();
    let liar = cluster.leader().unwrap();
    let activate = BatchItem::Activate { component: Digest([9; 32]), parameters: Bytes::new(), after: None };
    let waiter = cluster.submit(liar, activate);
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

/// What could go wrong: honest leaders propose one after the other what nobody can vote for.
#[test]
fn a_deployment_for_which_a_member_is_not_ready_waits_there_for_nobody() {
    let mut cluster = cluster();
    let missing = Digest([9; 32]);
    let deploy = BatchItem::Activate { component: missing, parameters: Bytes::new(), after: Some(0) };
    let items = Batch { items: vec![deploy] }.encode();
    let certificate = Bytes::from_static(b"certificate");
    let frame = sign_frame(CLUSTER, GROUP, &SecretKey::from_seed(&[99; 32]), certificate, items);
    for waiter in cluster.send((1..=4).map(NodeId), &frame) {
        let told = cluster.replies.remove(&waiter);
        assert!(
            matches!(&told, Some(Reply::Failed(Failure::ComponentMissing(it))) if *it == missing),
            "{told:?}"
        );
    }
    let leader = cluster.leader();
    cluster.run(Duration::from_secs(5));
    assert_eq!(cluster.leader(), leader);
    assert!(cluster.drivers.values().all(|driver| driver.counters().proposals_unready == 0));
}

/// What could go wrong: idle members each take another for the leader, and whoever asks goes in circles for ever.
#[test]
fn whoever_asks_a_member_that_does_not_lead_makes_it_look_for_a_leader() {
    let mut cluster = cluster();
    let leader = cluster.leader().unwrap();
    cluster.down.insert(leader);
    cluster.run(Duration::from_secs(2));
    assert_eq!(cluster.leader(), None, "nobody misses a leader as long as nobody asks");
    for node in (1..=4).map(NodeId).filter(|node| *node != leader) {
        let refused = cluster.open(node, 1);
        assert!(matches!(
            cluster.replies.remove(&refused),
            Some(Reply::Failed(Failure::NotLeader { leader: Some(known) })) if known == leader
        ));
    }
    cluster.run(Duration::from_secs(2));
    assert!(cluster.leader().is_some());
}
