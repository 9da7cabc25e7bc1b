//! A simulated set of replicas in one hand: disks that lose what was not flushed, a network that loses,
//! delays and reorders, replicas that are silent, and twins: two replicas with one key.
//!
//! Relies on the replicas' effects alone. Promises that a promise travels only once its token is durable, that
//! a crash keeps exactly what was flushed, and that agreement of honest replicas is checked at each delivery.
//! Compiled only for tests and with the feature `planted`. Signatures here are keyed digests: nobody in this
//! room forges, and a hundred thousand runs have to end.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_crypto::{
    Certificate, Check, Scope, SecretKey, Signature, Stated, Statement, StatementKind, TimeoutCertificate,
    Validator, ValidatorSet, Verified,
};
use quorate_types::{
    BootNumber, ClusterId, ComponentLimits, Digest, Entry, EntryKind, Epoch, EpochConfig, GroupId, GroupKind,
    HlcTimestamp, Incarnation, LogIndex, Member, MemberKey, NodeId, Position, Protocol, Role, Time, View,
};

use super::{Body, Certifier, Evidence, HotStuff, Identity, Message, Settings, Signer};
use crate::{
    Effects, Input, Now, Persist, Proposal, ProposalId, SnapshotContent, SnapshotFetch, SnapshotMark, Start,
    Timings, Token,
};

/// When every clock of the simulation starts, in Unix milliseconds.
const WALL_START_MS: u64 = 1_000_000;
const SIGNATURE_DOMAIN: &str = "quorate 2026 simulated signature";

/// What all simulated replicas wait.
pub const TIMINGS: Timings = Timings {
    heartbeat: Duration::from_millis(10),
    election_timeout: Duration::from_millis(100),
    clock_skew_max: Duration::from_millis(1_000),
};

fn imitate(node: NodeId, bytes: &[u8]) -> Signature {
    let mut input = Vec::with_capacity(8 + bytes.len());
    input.extend_from_slice(&node.0.to_le_bytes());
    input.extend_from_slice(bytes);
    let half = quorate_crypto::digest(SIGNATURE_DOMAIN, &input).0;
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(&half);
    signature[32..].copy_from_slice(&half);
    Signature(signature)
}

fn accepts(check: &Check) -> bool {
    imitate(check.signer, check.bytes.as_slice()) == check.signature
}

/// Signs with a digest in place of a key.
#[derive(Debug)]
pub struct Imitation(pub NodeId);

impl Signer for Imitation {
    fn sign(&self, statement: &Statement) -> Signature {
        imitate(self.0, statement.signing_bytes().as_slice())
    }
}

impl Certifier for Imitation {
    fn holds(&self, certificate: &Certificate, set: &ValidatorSet) -> bool {
        certificate.checks(set).is_ok_and(|checks| checks.iter().all(accepts))
    }

    fn timeout_holds(&self, certificate: &TimeoutCertificate, set: &ValidatorSet) -> bool {
        certificate.checks(set).is_ok_and(|checks| checks.iter().all(accepts))
    }
}

/// A small generator of numbers that look random (SplitMix64, Steele, Lea and Flood 2014).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.number() % bound.max(1)
    }
}

/// What survives a crash.
#[derive(Clone, Debug)]
pub struct Disk {
    /// The last hard state.
    pub hard_state: Option<Bytes>,
    /// The log.
    pub entries: Vec<Entry>,
    /// What the state includes.
    pub mark: SnapshotMark,
}

impl Disk {
    fn store(&mut self, persist: Persist) {
        if persist.reset.is_some() {
            self.entries.clear();
        }
        if persist.hard_state.is_some() {
            self.hard_state = persist.hard_state;
        }
        if let Some(first) = persist.entries.first().map(Entry::index) {
            self.entries.retain(|entry| entry.index() < first);
            self.entries.extend(persist.entries);
        }
    }
}

/// How an instance behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conduct {
    /// As the protocol says.
    Honest,
    /// One of two with a key: each as the protocol says.
    Twin,
    /// Says nothing.
    Silent,
}

/// One running replica.
#[derive(Debug)]
pub struct Instance {
    /// The member it is, or one of the two that are it.
    pub node: NodeId,
    /// How it behaves.
    pub conduct: Conduct,
    /// The part of the network it is in.
    pub part: usize,
    /// None while it is crashed.
    pub replica: Option<HotStuff>,
    /// What survives.
    pub disk: Disk,
    pub(super) unflushed: VecDeque<Persist>,
    held: VecDeque<(Token, NodeId, Message)>,
    durable: Token,
    boots: u64,
    /// How far it delivered.
    pub delivered: LogIndex,
    /// The snapshot that it asked for last.
    pub(super) fetch: Option<SnapshotFetch>,
    /// Why it stopped for good.
    pub fenced: Option<String>,
}

#[derive(Clone, Debug)]
pub(super) struct Packet {
    to: usize,
    pub(super) from: NodeId,
    pub(super) message: Message,
}

/// What can go wrong on the way.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// Of a hundred messages so many are lost.
    pub loss_percent: u64,
    /// Of a hundred proposals so many are lost besides, so that certificates are made and stay hidden.
    pub proposals_lost_percent: u64,
    /// The longest way of a message, in microseconds, from 100 on.
    pub delay_us_max: u64,
}

/// What happened in a whole run.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Messages handed to the network, by kind, from instance to node.
    pub messages: u64,
    /// Of them votes and proposals.
    pub votes_and_proposals: u64,
    /// Entries with a body that some honest replica delivered first.
    pub commits: u64,
    /// Proposals accepted into blocks.
    pub proposed: u64,
    /// Bytes of hard states and entries that all instances together asked to be persisted.
    pub persisted_bytes: u64,
}

/// A simulated cluster.
#[derive(Debug)]
pub struct Cluster {
    /// The replicas, twins one after the other.
    pub instances: Vec<Instance>,
    /// The epoch.
    pub config: EpochConfig,
    set: Arc<ValidatorSet>,
    settings: Settings,
    /// What is on its way, by arrival and age.
    pub(super) packets: BTreeMap<(Time, u64), Packet>,
    sent: u64,
    /// The time of all.
    pub now: Time,
    /// What can go wrong.
    pub weather: Weather,
    /// Where chance comes from.
    pub random: Random,
    /// What honest replicas delivered, by index.
    pub agreed: BTreeMap<LogIndex, Entry>,
    /// What was found about liars.
    pub evidence: Vec<Evidence>,
    /// Splits the network anew in each view, by chance from this seed.
    pub split_views: Option<u64>,
    /// Hides certificates for some views, by chance from this seed: whoever knows one is not heard until then.
    pub secrets: Option<u64>,
    /// What twins signed, by who, kind and view.
    said: BTreeMap<(NodeId, StatementKind, View), Statement>,
    /// How often a twin contradicted the other.
    pub equivocations: u64,
    /// What happened.
    pub counts: Counts,
    /// The first violation of safety.
    pub violation: Option<String>,
    proposals: u64,
    path: u64,
}

/// The keys of nodes 1 to `count`; their derivation is slow, so share them between runs.
#[must_use]
pub fn keys(count: u64) -> Vec<Validator> {
    let seed = |node: u64| std::array::from_fn(|at| if at == 0 { node as u8 } else { 7 });
    (1..=count)
        .map(|node| Validator { node: NodeId(node), key: SecretKey::from_seed(&seed(node)).public() })
        .collect()
}

impl Cluster {
    /// Replicas of these members, each as `conduct` says; a twin stands for two instances.
    ///
    /// # Panics
    ///
    /// For fewer than four members.
    #[must_use]
    pub fn new(
        members: &[Validator],
        conduct: &[Conduct],
        settings: Settings,
        first: u64,
        seed: u64,
    ) -> Self {
        let member = |one: &Validator| Member {
            node: one.node,
            incarnation: Incarnation(1),
            role: Role::Voter,
            priority: 1,
            key: Some(MemberKey(one.key.to_bytes())),
        };
        let config = EpochConfig {
            epoch: Epoch(1),
            kind: GroupKind::Byzantine,
            protocol: Protocol::HotStuff,
            members: members.iter().map(member).collect(),
            first_leader: NodeId(first),
            limits: ComponentLimits::default(),
        };
        let scope = Scope {
            cluster: ClusterId([5; 16]),
            group: GroupId(9),
            epoch: Epoch(1),
            protocol: Protocol::HotStuff,
        };
        let set = ValidatorSet::new(scope, members.to_vec()).expect("members are distinct and enough");
        let mut cluster = Self {
            instances: Vec::new(),
            config,
            set: Arc::new(set),
            settings,
            packets: BTreeMap::new(),
            sent: 0,
            now: Time(1_000_000),
            weather: Weather { delay_us_max: 1_000, ..Weather::default() },
            random: Random(seed),
            agreed: BTreeMap::new(),
            evidence: Vec::new(),
            split_views: None,
            secrets: None,
            said: BTreeMap::new(),
            equivocations: 0,
            counts: Counts::default(),
            violation: None,
            proposals: 0,
            path: seed,
        };
        for (one, conduct) in members.iter().zip(conduct) {
            for _ in 0..if *conduct == Conduct::Twin { 2 } else { 1 } {
                cluster.add(one.node, *conduct);
            }
        }
        for at in 0..cluster.instances.len() {
            cluster.start(at);
        }
        cluster
    }

    fn add(&mut self, node: NodeId, conduct: Conduct) {
        let mark =
            SnapshotMark { position: Position::ZERO, hlc: HlcTimestamp::ZERO, config: self.config.clone() };
        self.instances.push(Instance {
            node,
            conduct,
            part: 0,
            replica: None,
            disk: Disk { hard_state: None, entries: Vec::new(), mark },
            unflushed: VecDeque::new(),
            held: VecDeque::new(),
            durable: Token(0),
            boots: 0,
            delivered: LogIndex::ZERO,
            fetch: None,
            fenced: None,
        });
    }

    /// The members that sign.
    #[must_use]
    pub fn set(&self) -> &ValidatorSet {
        &self.set
    }

    /// Starts an instance on its disk.
    ///
    /// # Panics
    ///
    /// If its disk is damaged, which is a violation.
    pub fn start(&mut self, at: usize) {
        self.instances[at].boots += 1;
        self.start_as(at, self.instances[at].boots);
    }

    /// Starts an instance on its disk with this boot number.
    ///
    /// # Panics
    ///
    /// If its disk is damaged, which is a violation.
    pub fn start_as(&mut self, at: usize, boot: u64) {
        let now = self.clock();
        let nonce = self.random.number();
        let instance = &mut self.instances[at];
        instance.boots = boot;
        // Twins share their starts: peers see one replica.
        let (boot, seed) = if instance.conduct == Conduct::Twin { (1, 1) } else { (boot, nonce) };
        let start = Start {
            group: GroupId(9),
            node: instance.node,
            seed,
            timings: TIMINGS,
            base: instance.disk.mark.clone(),
            content: content_at(instance.disk.mark.position),
            hard_state: instance.disk.hard_state.clone(),
            entries: instance.disk.entries.clone(),
        };
        let identity = Identity {
            set: self.set.clone(),
            signer: Arc::new(Imitation(instance.node)),
            certifier: Arc::new(Imitation(instance.node)),
            boot: BootNumber(boot),
            settings: self.settings,
        };
        instance.delivered = instance.disk.mark.position.index;
        instance.durable = Token(0);
        let replica =
            HotStuff::start(start, identity, now).expect("a disk that was flushed in order is sound");
        instance.replica = Some(replica);
    }

    /// Crashes an instance: what was not flushed is lost, all or a prefix.
    pub fn crash(&mut self, at: usize) {
        let instance = &mut self.instances[at];
        let kept = self.random.below(instance.unflushed.len() as u64 + 1);
        for _ in 0..kept {
            if let Some(persist) = instance.unflushed.pop_front() {
                instance.disk.store(persist);
            }
        }
        instance.unflushed.clear();
        instance.held.clear();
        instance.replica = None;
        self.packets.retain(|_, packet| packet.to != at);
    }

    pub(super) fn clock(&self) -> Now {
        Now { time: self.now, wall: HlcTimestamp::from_unix_ms(WALL_START_MS + self.now.0 / 1_000) }
    }

    /// Gives an instance one input and carries out what it asks for, but flushes.
    pub fn step(&mut self, at: usize, input: Input) {
        let now = self.clock();
        self.path = Random(self.path ^ (now.time.0 << 6) ^ at as u64).number();
        let Some(replica) = &mut self.instances[at].replica else { return };
        let effects = replica.step(now, input);
        self.carry_out(at, effects);
    }

    fn carry_out(&mut self, at: usize, effects: Effects) {
        self.evidence.extend(effects.evidence);
        self.counts.proposed += effects.proposed.iter().filter(|(_, result)| result.is_ok()).count() as u64;
        let is_honest = self.instances[at].conduct == Conduct::Honest;
        if let Some(persist) = effects.persist {
            let entries: usize = persist.entries.iter().map(Entry::encoded_len).sum();
            self.counts.persisted_bytes +=
                (persist.hard_state.as_ref().map_or(0, Bytes::len) + entries) as u64;
            self.instances[at].unflushed.push_back(persist);
        }
        for outgoing in effects.messages {
            let (to, message, token) = outgoing.into_parts();
            let crate::Message::HotStuff(message) = message else { continue };
            match token.filter(|token| *token > self.instances[at].durable) {
                Some(token) => self.instances[at].held.push_back((token, to, message)),
                None => self.send(at, to, message),
            }
        }
        for committed in effects.deliver {
            let entry = committed.entry;
            let expected = self.instances[at].delivered.next();
            self.instances[at].delivered = entry.index();
            if !is_honest {
                continue;
            }
            if entry.index() != expected {
                self.violate(format!("{} delivers {entry:?} and not {expected}", self.instances[at].node));
            }
            match self.agreed.get(&entry.index()) {
                Some(agreed) if *agreed != entry => {
                    let agreed = format!("{agreed:?}");
                    self.violate(format!("{} delivers {entry:?} and not {agreed}", self.instances[at].node));
                }
                Some(_) => {}
                None => {
                    self.counts.commits += u64::from(entry.kind == EntryKind::Batch);
                    self.agreed.insert(entry.index(), entry);
                }
            }
        }
        let instance = &mut self.instances[at];
        instance.fetch = effects.fetch.or(instance.fetch);
        if let Some(fence) = effects.fence {
            if is_honest {
                self.violate(format!("{} is fenced: {}", self.instances[at].node, fence.reason));
            }
            self.instances[at].fenced = Some(fence.reason);
        }
    }

    fn violate(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    fn send(&mut self, at: usize, to: NodeId, message: Message) {
        let (from, part) = (self.instances[at].node, self.instances[at].part);
        if self.instances[at].conduct == Conduct::Silent {
            return;
        }
        self.counts.messages += 1;
        let counted = matches!(message.body, Body::Vote { .. } | Body::Proposal(_));
        self.counts.votes_and_proposals += u64::from(counted);
        let statement = message.statement();
        let (kind, view) = (statement.kind, statement.view);
        if self.instances[at].conduct == Conduct::Twin && view > View::ZERO {
            let first = *self.said.entry((from, kind, view)).or_insert(statement);
            self.equivocations += u64::from(first != statement);
        }
        let current = self.instances[at].replica.as_ref().map_or(View::ZERO, HotStuff::view);
        if self.is_secret(message.body.certified(), current) {
            return;
        }
        let view = if view > View::ZERO { view } else { current };
        let is_proposal = matches!(message.body, Body::Proposal(_));
        let loss =
            self.weather.loss_percent + if is_proposal { self.weather.proposals_lost_percent } else { 0 };
        for target in 0..self.instances.len() {
            let reached = self.instances[target].node == to && self.instances[target].part == part;
            let joined = self.part_in(at, view) == self.part_in(target, view);
            if !reached || !joined || self.random.below(100) < loss {
                continue;
            }
            let delay = 100 + self.random.below(self.weather.delay_us_max.max(1));
            self.sent += 1;
            let arrival = (Time(self.now.0 + delay), self.sent);
            self.packets.insert(arrival, Packet { to: target, from, message: message.clone() });
        }
    }

    /// In which part of the network an instance is in a view. Splits last for some views; mostly one of two
    /// twins is apart, so that it may know a certificate that its other half does not, and now and then
    /// somebody else is, too.
    fn part_in(&self, at: usize, view: View) -> u64 {
        let Some(seed) = self.split_views else { return 0 };
        let lasting = 1 + seed % 5;
        let mut random = Random(seed ^ (view.0 / lasting).wrapping_mul(0xd134_2543_de82_ef95));
        let count = self.instances.len() as u64;
        let is_twin = |at: &usize| self.instances[*at].conduct == Conduct::Twin;
        let twins: Vec<usize> = (0..self.instances.len()).filter(is_twin).collect();
        let twin = twins.get(random.below(twins.len() as u64) as usize);
        let other = random.below(count) as usize;
        if random.below(4) > 0 && twin == Some(&at) {
            1
        } else if random.below(2) > 0 && other == at {
            2
        } else {
            0
        }
    }

    /// Whether a certificate of this view is still hidden in the sender's.
    fn is_secret(&self, certified: View, current: View) -> bool {
        let Some(seed) = self.secrets else { return false };
        let mut random = Random(seed ^ certified.0.wrapping_mul(0xd134_2543_de82_ef95));
        let lasts = [0, 0, 0, 1, 2, 4][random.below(6) as usize];
        current.0 <= certified.0 + lasts
    }

    /// Completes the oldest flush of an instance, and sends what waited for it.
    pub fn flush(&mut self, at: usize) {
        let instance = &mut self.instances[at];
        let Some(persist) = instance.unflushed.pop_front() else { return };
        let token = persist.token;
        instance.disk.store(persist);
        instance.durable = token;
        while let Some((_, to, message)) = self.instances[at].held.pop_front_if(|(held, ..)| *held <= token) {
            self.send(at, to, message);
        }
        self.step(at, Input::Persisted(token));
    }

    #[cfg(test)]
    fn mark_at(&self, index: LogIndex) -> SnapshotMark {
        let entry = &self.agreed[&index];
        SnapshotMark { position: entry.position, hlc: entry.hlc, config: self.config.clone() }
    }

    /// Gives an instance a durable snapshot at an index it delivered, and lets it forget the log up to there.
    #[cfg(test)]
    pub(super) fn compact(&mut self, at: usize, index: LogIndex) {
        let mark = self.mark_at(index);
        self.instances[at].disk.mark = mark.clone();
        let content = content_at(mark.position);
        self.step(at, Input::Compact { mark, content, keep_from: index.next() });
    }

    /// Gives an instance the snapshot at an index, whole and true.
    #[cfg(test)]
    pub(super) fn install(&mut self, at: usize, index: LogIndex) {
        let mark = self.mark_at(index);
        self.instances[at].disk.mark = mark.clone();
        self.instances[at].delivered = index;
        self.step(at, Input::SnapshotInstalled(mark));
    }

    /// Proposes a new body wherever a replica says that it leads; twins propose different ones.
    pub fn propose_everywhere(&mut self) {
        for at in 0..self.instances.len() {
            self.propose(at);
        }
    }

    /// Proposes a new body at one instance.
    pub fn propose(&mut self, at: usize) {
        self.propose_bytes(at, 8);
    }

    /// Proposes a new body of so many bytes, at least 8, at one instance.
    pub fn propose_bytes(&mut self, at: usize, count: usize) {
        self.proposals += 1;
        let mut body = self.proposals.to_le_bytes().to_vec();
        body.resize(count.max(8), 0);
        let body = Bytes::from(body);
        let proposal = Proposal { id: ProposalId(self.proposals), kind: EntryKind::Batch, body };
        self.step(at, Input::Propose(proposal));
    }

    /// When something is due next.
    fn next_event(&self) -> Option<(Time, Event)> {
        let mut next: Option<(Time, Event)> = None;
        let mut offer = |time: Time, event: Event| {
            if next.as_ref().is_none_or(|(earliest, _)| time < *earliest) {
                next = Some((time, event));
            }
        };
        if let Some((arrival, _)) = self.packets.first_key_value() {
            offer(arrival.0, Event::Packet);
        }
        for (at, instance) in self.instances.iter().enumerate() {
            if !instance.unflushed.is_empty() && instance.replica.is_some() {
                offer(self.now, Event::Flush(at));
            }
            if let Some(deadline) = instance.replica.as_ref().and_then(HotStuff::next_deadline) {
                offer(deadline, Event::Tick(at));
            }
        }
        next
    }

    /// Lets one thing happen, no later than `until`; whether one did.
    pub fn advance(&mut self, until: Time) -> bool {
        let Some((time, event)) = self.next_event().filter(|(time, _)| *time <= until) else {
            self.now = self.now.max(until);
            return false;
        };
        self.now = self.now.max(time);
        match event {
            Event::Packet => {
                let Some((_, packet)) = self.packets.pop_first() else { return false };
                let Ok(check) = packet.message.clone().into_signed(packet.from).check(&self.set) else {
                    return true;
                };
                if accepts(&check) {
                    let message = Verified::from_authenticated_peer(packet.from, packet.message).widen();
                    self.step(packet.to, Input::Message(message));
                }
            }
            Event::Flush(at) => self.flush(at),
            Event::Tick(at) => self.step(at, Input::Tick),
        }
        true
    }

    /// Lets so much time pass.
    pub fn run(&mut self, duration: Duration) {
        let until = self.now.after(duration);
        while self.violation.is_none() && self.advance(until) {}
    }

    /// Whether nothing is under way and nobody waits for anything.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.next_event().is_none()
    }

    /// Joins the network and lets everybody run; whether a new entry is delivered by all honest replicas
    /// within `bound`.
    pub fn heals_within(&mut self, bound: Duration) -> bool {
        self.weather = Weather { delay_us_max: 1_000, ..Weather::default() };
        self.split_views = None;
        self.secrets = None;
        for at in 0..self.instances.len() {
            self.instances[at].part = 0;
            if self.instances[at].replica.is_none() {
                self.start(at);
            }
        }
        let before = self.agreed.last_key_value().map_or(LogIndex::ZERO, |(index, _)| *index);
        let until = self.now.after(bound);
        while self.now < until && self.violation.is_none() {
            self.propose_everywhere();
            self.run(Duration::from_millis(50));
            let all = self.honest().all(|instance| {
                let new =
                    self.agreed.range(before.next()..).take_while(|(index, _)| **index <= instance.delivered);
                new.filter(|(_, entry)| entry.kind == EntryKind::Batch).count() > 0
            });
            if all {
                return true;
            }
        }
        false
    }

    /// The honest instances.
    pub fn honest(&self) -> impl Iterator<Item = &Instance> {
        self.instances.iter().filter(|instance| instance.conduct == Conduct::Honest)
    }

    /// A number made of which instance did something when: two runs that differ have different ones.
    #[must_use]
    pub fn path(&self) -> u64 {
        self.path
    }

    /// The digest of a log, for comparing runs.
    #[must_use]
    pub fn trace(&self) -> Digest {
        let text = format!("{:?} {:?}", self.agreed, self.counts);
        quorate_crypto::digest(SIGNATURE_DOMAIN, text.as_bytes())
    }
}

/// What an honest replica's snapshot holds; nothing before the first entry.
pub(super) fn content_at(position: Position) -> Option<SnapshotContent> {
    let digest = quorate_crypto::digest(SIGNATURE_DOMAIN, &position.index.0.to_le_bytes());
    (position.index > LogIndex::ZERO).then_some(SnapshotContent { digest, bytes: 100 })
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Packet,
    Flush(usize),
    Tick(usize),
}
