//! The members of one group, whose logs are durable at once.
//!
//! Relies on the drivers alone. Promises that all that one turn asks for is carried out, in its order, and that what
//! members sign is verified on its way. Knows no disk, no network and no component: the group is the catalog's, the
//! only one whose machine is in native code.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_consensus::hotstuff::{Body, Evidence, Identity, Message, Settings};
use quorate_consensus::{Envelope, Message as AnyMessage, Now, ReplicaRole, SnapshotFetch, Timings};
use quorate_crypto::{SecretKey, ValidatorSet};
use quorate_node::driver::{
    AcceptedCertificates, Driver, DriverInput, FrameFault, GroupReport, GroupStart, Local, Output, Puller,
    PullerStep, RelayedFrame, Reply, SnapshotFault, Unverified,
};
use quorate_node::{DigestInterval, MachineIdentity};
use quorate_storage::{Identity as DiskIdentity, SimDisk, Store};
use quorate_types::{
    BatchItem, BootNumber, ClusterId, Epoch, EpochConfig, GroupId, HlcTimestamp, Incarnation, NodeId, Time,
};

pub const GROUP: GroupId = GroupId::CATALOG;
pub const CLUSTER: ClusterId = ClusterId([7; 16]);

/// Inputs for one member that wait for their turn.
type Queue = VecDeque<(NodeId, Vec<DriverInput<u64>>)>;

pub struct Cluster {
    /// The members with their keys, in a group that signs.
    set: Option<Arc<ValidatorSet>>,
    accepted: Arc<AcceptedCertificates>,
    pub drivers: BTreeMap<NodeId, Driver<u64>>,
    stores: BTreeMap<NodeId, Store>,
    /// Members that take no input.
    pub down: BTreeSet<NodeId>,
    pub now: Time,
    /// By waiter; nobody waits as 0.
    pub replies: BTreeMap<u64, Reply>,
    pub last_waiter: u64,
    /// Log batches made durable so far.
    pub flushes: u64,
    pub evidence: Vec<Evidence>,
    /// Clients' frames that members handed on.
    pub relays: Vec<RelayedFrame>,
    /// Who lies about its snapshots, and how.
    pub liar: Option<(NodeId, Lie)>,
    /// Whose snapshots were refused, and why.
    pub refused: Vec<(NodeId, SnapshotFault)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Offers another digest than that of its state.
    Digest,
    /// Offers the digest of its state and sends another state.
    Content,
}

pub fn secret(node: NodeId) -> SecretKey {
    SecretKey::from_seed(&[node.0 as u8; 32])
}

/// A message of a member in its first life to another one in its.
pub fn envelope(message: Message) -> Bytes {
    Envelope {
        group: GROUP,
        epoch: Epoch(1),
        incarnation: Incarnation(1),
        boot: BootNumber(1),
        to_incarnation: Incarnation(1),
        message: AnyMessage::HotStuff(message),
    }
    .encode()
}

/// The frame of a member that offers another digest than that of its state.
fn with_another_digest(node: NodeId, frame: Bytes) -> Bytes {
    let envelope = Envelope::decode(frame.clone()).unwrap();
    let AnyMessage::HotStuff(Message { scope, body: Body::Offer(offer), .. }) = &envelope.message else {
        return frame;
    };
    let (scope, mut offer) = (*scope, offer.clone());
    offer.content.digest.0[0] ^= 1;
    let body = Body::Offer(offer);
    let signature = secret(node).sign(&body.statement(scope));
    let message = AnyMessage::HotStuff(Message { scope, body, signature });
    Envelope { message, ..envelope }.encode()
}

/// A piece with another value at its end.
fn with_another_value(piece: &Bytes) -> Bytes {
    let mut content = piece[32..].to_vec();
    *content.last_mut().unwrap() ^= 1;
    let checksum = quorate_crypto::digest("quorate 2026 snapshot chunk", &content);
    [&checksum.0[..], &content].concat().into()
}

pub fn store(node: NodeId) -> Store {
    let identity = DiskIdentity { cluster: CLUSTER, node, incarnation: Incarnation(1) };
    Store::open_on(&SimDisk::new(), "state", &identity).unwrap()
}

/// A replica that takes the digest of its state after so many entries.
pub fn start(store: &Store, config: &EpochConfig, digest_entries: u32) -> GroupStart {
    let machine = MachineIdentity {
        cluster: CLUSTER,
        group: GROUP,
        name: "catalog".into(),
        digest_interval: DigestInterval { entries: digest_entries, bytes: 1 << 20 },
    };
    GroupStart::recover(store, machine, config.clone(), None, Timings::default()).unwrap()
}

pub fn driver(node: NodeId) -> Driver<u64> {
    Driver::new(Local { node, incarnation: Incarnation(1), boot: BootNumber(1), seed: node.0 })
}

impl Cluster {
    /// A group that runs since 50 ms. Its members sign if they have keys.
    pub fn new(config: &EpochConfig, digest_entries: u32) -> Self {
        let set =
            config.is_signed().then(|| Arc::new(ValidatorSet::of_epoch(CLUSTER, GROUP, config).unwrap()));
        let mut cluster = Self {
            set: set.clone(),
            accepted: Arc::default(),
            drivers: BTreeMap::new(),
            stores: BTreeMap::new(),
            down: BTreeSet::new(),
            now: Time(1),
            replies: BTreeMap::new(),
            last_waiter: 0,
            flushes: 0,
            evidence: Vec::new(),
            relays: Vec::new(),
            liar: None,
            refused: Vec::new(),
        };
        for member in &config.members {
            let (node, store) = (member.node, store(member.node));
            let mut start = start(&store, config, digest_entries);
            if let Some(set) = &set {
                start = start.signing(Identity {
                    set: Arc::clone(set),
                    signer: Arc::new(secret(node)),
                    certifier: cluster.accepted.clone(),
                    boot: BootNumber(1),
                    settings: Settings::default(),
                });
            }
            let mut driver = driver(node);
            driver.add_group(start, cluster.clock()).unwrap();
            cluster.drivers.insert(node, driver);
            cluster.stores.insert(node, store);
        }
        cluster.run(Duration::from_millis(50));
        cluster
    }

    pub fn set(&self) -> &ValidatorSet {
        self.set.as_deref().unwrap()
    }

    pub fn clock(&self) -> Now {
        Now { time: self.now, wall: HlcTimestamp::from_unix_ms(1_000 + self.now.0 / 1_000) }
    }

    /// A signed frame as it comes in at a member.
    pub fn verified(&self, from: NodeId, frame: Bytes) -> Result<DriverInput<u64>, FrameFault> {
        let (unverified, request) = Unverified::read(from, frame, self.set.as_ref().unwrap())?;
        unverified.admit_in_place(request, &self.accepted)
    }

    pub fn report(&self, node: NodeId) -> GroupReport {
        self.drivers[&node].report(GROUP).unwrap()
    }

    /// Gives inputs to a member, and has all that follows of them happen.
    pub fn input(&mut self, node: NodeId, inputs: Vec<DriverInput<u64>>) {
        let mut queue = Queue::from([(node, inputs)]);
        while let Some((node, inputs)) = queue.pop_front() {
            if self.down.contains(&node) {
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

    fn carry_out(&mut self, node: NodeId, output: Output<u64>, queue: &mut Queue) {
        let mut then = |to, input| queue.push_back((to, vec![input]));
        for (to, mut frame) in output.sends {
            if self.liar == Some((node, Lie::Digest)) {
                frame = with_another_digest(node, frame);
            }
            let is_signed = self.set.is_some();
            let plain = |frame| DriverInput::Frame { from: node, frame };
            then(to, if is_signed { self.verified(node, frame).unwrap() } else { plain(frame) });
        }
        if let Some(ticket) = output.ticket {
            self.flushes += 1;
            then(node, DriverInput::Flushed(ticket));
        }
        self.evidence.extend(output.evidence.into_iter().map(|(_, evidence)| evidence));
        self.relays.extend(output.relays.into_iter().map(|(_, frame)| frame));
        for job in output.checkpoints {
            then(node, DriverInput::CheckpointDone(job.run(&self.stores[&node]).unwrap()));
        }
        for (_, fetch) in output.fetches {
            then(node, self.pull(node, fetch));
        }
        for job in output.installs {
            let (group, position, from) = (job.group(), job.position(), job.from());
            let input = match job.run(&self.stores[&node]).unwrap() {
                Ok(done) => DriverInput::SnapshotInstalled(Box::new(done)),
                Err(fault) => DriverInput::SnapshotRefused { group, position, from, fault },
            };
            then(node, input);
        }
        self.refused.extend(output.refused.into_iter().map(|(_, from, fault)| (from, fault)));
        for group in output.orders {
            then(self.leader().unwrap(), DriverInput::OrderCheckpoint { group, waiter: 0 });
        }
        let answers =
            output.queries.into_iter().map(|(job, waiter)| (waiter, Reply::Answer(job.run().unwrap())));
        for (waiter, reply) in answers.chain(output.replies) {
            assert!(waiter == 0 || self.replies.insert(waiter, reply).is_none(), "one reply for each waiter");
        }
    }

    /// Asks a member for a piece of a snapshot.
    pub fn piece(&mut self, from: NodeId, request: Bytes) -> Reply {
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

    /// Lets time pass, a millisecond at a time.
    pub fn run(&mut self, duration: Duration) {
        let end = self.now.after(duration);
        while self.now < end {
            for node in self.drivers.keys().copied().collect::<Vec<_>>() {
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

    pub fn leader(&self) -> Option<NodeId> {
        let leads =
            |node: &NodeId| !self.down.contains(node) && self.report(*node).role == ReplicaRole::Leader;
        self.drivers.keys().copied().find(leads)
    }

    /// Submits an item; who waits for its outcome.
    pub fn submit(&mut self, node: NodeId, item: BatchItem) -> u64 {
        self.last_waiter += 1;
        let items = vec![(item, self.last_waiter)];
        self.input(node, vec![DriverInput::Submit { group: GROUP, items }]);
        self.last_waiter
    }

    /// Submits an item that opens a session.
    pub fn open(&mut self, node: NodeId, client: u8) -> u64 {
        self.submit(node, BatchItem::OpenSession { client: [client; 16], ttl_ms: 60_000 })
    }
}
