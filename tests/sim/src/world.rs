//! One simulated cluster under one seed: nodes, clients, network and faults in one thread.
//!
//! ```text
//! safety phase                                   healing phase
//! |-- faults, clients busy ------------------|-- no faults: a new command commits, all replicas agree --|
//!                                            ^ not before every floor is reached, or time is up
//! ```
//!
//! Relies on everything else in this crate. Promises that what happens is a function of the settings and
//! the component alone, and that it stops at the first violation. Prints nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use quorate_consensus::Timings;
use quorate_consensus::hotstuff::Schedule;
use quorate_node::driver::DriverInput;
use quorate_node::{DigestInterval, MachineIdentity};
use quorate_runtime::Component;
use quorate_storage::Identity;
use quorate_types::{
    BatchItem, ClusterId, ComponentLimits, Epoch, EpochConfig, GroupId, GroupKind, Incarnation, Member,
    NodeId, Protocol, Role, Time,
};

use crate::client::{Client, Mode};
use crate::clock::NodeClock;
use crate::director::{Action, Director, NodeView, Play, View};
use crate::event::{Event, Life};
use crate::faults::{FaultKind, FaultSet};
use crate::liar::Liars;
use crate::lore::Lore;
use crate::network::{Conditions, Endpoint, Network};
use crate::node::{ClusterPlan, SimNode, Waiter};
use crate::observer::Observer;
use crate::planted::Planted;
use crate::queue::EventQueue;
use crate::random::{Random, spread};
use crate::signing::{Cast, SigningPlan};
use crate::statistics::{
    ACKNOWLEDGED_FLOOR, CONFLICTS_FLOOR, ELECTIONS_FLOOR, SNAPSHOT_INSTALLS_FLOOR, Statistics,
    UNFLUSHED_CRASHES_FLOOR,
};
use crate::trace::Trace;
use crate::violation::{Checked, Invariant, Violation, hold};

/// The faults go on for at least this long.
const SAFETY_MIN: Duration = Duration::from_secs(4);
/// The faults end then even if a floor was not reached.
const SAFETY_MAX: Duration = Duration::from_secs(40);
/// The same where members lie, which slows everything down.
const BYZANTINE_SAFETY_MAX: Duration = Duration::from_secs(120);
/// By then a run has exercised enough, or faults come so often that hardly anything is acknowledged between them,
/// since replicas wait longer with each view that they give up: from then on they come so many times as seldom.
const WORN_AFTER: Duration = Duration::from_secs(60);
/// See [`WORN_AFTER`].
const PACE_WHEN_WORN: u64 = 10;
/// A command submitted when everything is healed commits and is acknowledged within this.
const RECOVERY_BOUND: Duration = Duration::from_secs(5);
/// The same where members lie: up to f of them lead one after the other, each for as long as replicas wait at
/// most (80 ms, doubled six times), and the command may have to be submitted anew to each.
const BYZANTINE_RECOVERY_BOUND: Duration = Duration::from_secs(40);
/// How often all replicas are asked for a last checkpoint, for the leader asked may cease to lead.
const CHECKPOINT_ORDERS: u32 = 8;
/// The ways of a slow network, in microseconds: longer than replicas wait at first.
const SLOW_DELAY_US: (u64, u64) = (100_000, 130_000);
const CLUSTER: ClusterId = ClusterId(*b"quorate simulate");
/// A run with more events does not come to rest: messages that call forth messages without end.
const EVENTS_MAX: u64 = 1_000_000;
/// How often the director looks, and liars speak.
pub(crate) const DIRECTOR_INTERVAL: Duration = Duration::from_millis(10);

/// Within which time a command submitted after healing is acknowledged.
#[must_use]
pub fn recovery_bound(protocol: Protocol) -> Duration {
    match protocol {
        Protocol::Raft => RECOVERY_BOUND,
        Protocol::Pbft | Protocol::HotStuff => BYZANTINE_RECOVERY_BOUND,
    }
}

/// What one run depends on.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Decides everything.
    pub seed: u64,
    /// What orders commands.
    pub protocol: Protocol,
    /// What may go wrong.
    pub faults: FaultSet,
    /// A bug to be found.
    pub planted: Option<Planted>,
}

/// What a run came to, if nothing was violated.
#[derive(Clone, Debug, Default)]
pub struct Ran {
    /// What it exercised.
    pub statistics: Statistics,
    /// How long it took in simulated time.
    pub simulated: Duration,
    /// What did not recover in time after healing.
    pub unhealed: Option<String>,
    /// How long the command after healing took.
    pub recovery: Duration,
}

/// The cluster.
#[derive(Debug)]
pub struct World<'t> {
    pub(crate) planted: Option<Planted>,
    protocol: Protocol,
    pub(crate) component: Component,
    pub(crate) plan: ClusterPlan,
    pub(crate) now: Time,
    pub(crate) queue: EventQueue<Event>,
    pub(crate) random: Random,
    pub(crate) network: Network,
    pub(crate) nodes: BTreeMap<NodeId, SimNode>,
    pub(crate) clients: BTreeMap<u32, Client>,
    pub(crate) director: Director,
    pub(crate) observer: Observer,
    pub(crate) trace: &'t mut Trace,
    pub(crate) pulls: u64,
    /// The members that lie.
    pub(crate) liars: Option<Liars>,
    /// How the network behaves once it is healed.
    healed: Conditions,
    /// Whether faults may happen now.
    pub(crate) troubled: bool,
    faults: FaultSet,
    /// The clients that activate the component, the others by group.
    operators: Vec<u32>,
    probers: Vec<u32>,
}

impl<'t> World<'t> {
    /// A cluster whose nodes are about to start for the first time.
    #[must_use]
    pub fn new(settings: &Settings, component: Component, trace: &'t mut Trace) -> Self {
        let mut random = Random::new(spread(settings.seed));
        let (nodes, groups, plan, interval) = match settings.protocol {
            Protocol::HotStuff => {
                let cast = Cast::new(&settings.faults, &mut random);
                let signing = SigningPlan::new(settings.seed, CLUSTER, &cast, settings.planted, &mut random);
                let interval = random.between(12, 40) as u32;
                let plan = plan(&signing.config.clone(), &cast.groups, interval, Some(signing));
                (cast.nodes, cast.groups, plan, interval)
            }
            _ => {
                let count = if random.chance(600) { 3 } else { 5 };
                let nodes: Vec<NodeId> = (1..=count).map(NodeId).collect();
                let groups: Vec<GroupId> =
                    (1..=if random.chance(300) { 2 } else { 1 }).map(GroupId).collect();
                let interval = random.between(12, 40) as u32;
                let plan = plan(&crash_epoch(&nodes), &groups, interval, None);
                (nodes, groups, plan, interval)
            }
        };
        let director = Director::new(random.fork(), settings.faults.clone(), u64::from(interval) * 2 + 30);
        let network = Network::new(random.fork(), director.usual_conditions());
        let mut world = Self {
            planted: settings.planted,
            protocol: settings.protocol,
            component,
            now: Time(0),
            queue: EventQueue::default(),
            network,
            nodes: BTreeMap::new(),
            clients: BTreeMap::new(),
            director,
            observer: match &plan.signing {
                Some(signing) => Observer::of_signing(signing.watched(), signing.liars.clone()),
                None => Observer::new(&groups, &nodes, nodes[0]),
            },
            liars: None,
            healed: Conditions::calm(),
            trace,
            pulls: 0,
            troubled: false,
            faults: settings.faults.clone(),
            operators: Vec::new(),
            probers: Vec::new(),
            plan,
            random,
        };
        for node in &nodes {
            let clock = world.clock();
            let sim = SimNode::new(*node, clock, world.random.fork());
            world.nodes.insert(*node, sim);
            let at = Time(world.random.between(0, 20_000));
            world.queue.push(at, Event::Act(Action::Restart(*node)));
        }
        for group in &groups {
            world.add_clients(*group, &nodes);
        }
        world.add_liars();
        world
    }

    /// Members that lie begin to, and now and then the healed network is a slow one until a command was
    /// acknowledged: slower than replicas wait at first, so that only growing patience brings progress.
    fn add_liars(&mut self) {
        let Some(signing) = self.plan.signing.clone() else { return };
        let lore = Lore::new(signing.sets, Schedule::new(&signing.config, signing.rules.tenure_views));
        let nodes = signing.liars.iter().copied();
        let liars = Liars::new(nodes, &self.faults, signing.notary, lore, &mut self.random);
        for liar in liars.nodes() {
            self.queue.push(Time(self.random.between(0, 20_000)), Event::Lie(liar));
        }
        self.liars = Some(liars);
        if self.faults.has(FaultKind::Delay) && self.random.chance(150) {
            self.healed.delay_us = SLOW_DELAY_US;
        }
    }

    /// Whether a node keeps the rules.
    pub(crate) fn is_honest(&self, node: NodeId) -> bool {
        self.liars.as_ref().is_none_or(|liars| !liars.has(node))
    }

    /// Within which time a command is acknowledged once everything is healed.
    fn recovery_bound(&self) -> Duration {
        recovery_bound(self.protocol)
    }

    /// Runs to the end, or to the first violation.
    ///
    /// # Errors
    ///
    /// The violation.
    pub fn run(mut self) -> Checked<Ran> {
        let activated = self.run_until(Time(0).after(self.recovery_bound() * 3), |world| {
            world.operators.iter().all(|operator| world.clients[operator].is_idle())
        })?;
        if !activated {
            return Ok(self.ran(Some("the component was not activated".to_owned()), Duration::ZERO));
        }
        self.trace.line(|| "the component is active; faults begin".to_owned());
        self.set_modes(Mode::Busy);
        self.troubled = true;
        self.queue.push(self.now, Event::Director);
        let begun = self.now;
        self.run_until(begun.after(SAFETY_MIN), |_| false)?;
        let longest = if self.plan.signing.is_some() { BYZANTINE_SAFETY_MAX } else { SAFETY_MAX };
        self.run_until(begun.after(longest), |world| world.lacking().is_empty() && world.counted_enough())?;
        self.heal();
        let healed = self.now;
        let (recovery, bound) = (self.probe()?, self.recovery_bound());
        self.network.set_conditions(Conditions::calm());
        self.set_modes(Mode::Finishing);
        let settled = self.run_until(healed.after(bound * 3), Self::is_settled)?;
        let unhealed = match (recovery, settled) {
            (None, _) => Some(format!("a command submitted after healing was not acknowledged in {bound:?}")),
            (Some(_), false) => Some(format!("not settled after healing: {}", self.unsettled())),
            (Some(_), true) => None,
        };
        if unhealed.is_none() {
            self.compare_final_states()?;
        }
        self.observer.all_survive()?;
        Ok(self.ran(unhealed, recovery.unwrap_or(bound)))
    }

    fn ran(&self, unhealed: Option<String>, recovery: Duration) -> Ran {
        let counts = self.network.counts();
        let statistics = Statistics {
            messages: counts.sent,
            messages_troubled: counts.lost + counts.cut + counts.duplicated,
            lies: self.liars.as_ref().map_or(0, Liars::told),
            ..*self.observer.statistics()
        };
        Ran { statistics, simulated: self.now.since(Time(0)), unhealed, recovery }
    }

    /// Lets events happen until a condition holds; `false` if it does not by `end`.
    fn run_until(&mut self, end: Time, done: impl Fn(&Self) -> bool) -> Checked<bool> {
        loop {
            if done(self) {
                return Ok(true);
            }
            let Some((at, event)) = self.queue.pop() else {
                self.now = end;
                return Ok(false);
            };
            if at > end || self.trace.events() > EVENTS_MAX {
                self.queue.push(at, event);
                self.now = end;
                return Ok(false);
            }
            self.now = at.max(self.now);
            self.trace.event(self.now);
            self.happen(event)?;
            if let Some(signing) = &self.plan.signing
                && let Some(offence) = signing.notary.take_offence()
            {
                return Err(offence);
            }
        }
    }

    fn clock(&mut self) -> NodeClock {
        if !self.faults.has(FaultKind::Clock) {
            return NodeClock::exact();
        }
        NodeClock::skewed(self.random.between(0, 20) as i64 - 10, self.random.between(0, 1_000) as i64 - 500)
    }

    fn add_clients(&mut self, group: GroupId, nodes: &[NodeId]) {
        let (component, parameters) = (self.component.digest(), Bytes::new());
        let activate = BatchItem::Activate { component, parameters, after: None };
        let operator = self.next_client();
        let random = self.random.fork();
        self.operators.push(operator);
        self.add_client(Client::once(operator, group, nodes.to_vec(), random, activate));
        let prober = self.next_client();
        self.probers.push(prober);
        for number in prober..prober + 1 + self.random.between(3, 6) as u32 {
            let random = self.random.fork();
            let mut client = Client::new(number, group, nodes.to_vec(), random);
            client.set_mode(Mode::Finishing);
            self.add_client(client);
        }
    }

    fn next_client(&self) -> u32 {
        self.clients.len() as u32
    }

    fn add_client(&mut self, client: Client) {
        let at = Time(self.random.between(20_000, 60_000));
        self.queue.push(at, Event::Client(client.id()));
        self.clients.insert(client.id(), client);
    }

    /// All but operators and probers do this from now on.
    fn set_modes(&mut self, mode: Mode) {
        let (operators, probers) = (&self.operators, &self.probers);
        let working = self
            .clients
            .values_mut()
            .filter(|client| !operators.contains(&client.id()) && !probers.contains(&client.id()));
        working.for_each(|client| client.set_mode(mode));
    }

    /// What the director sees.
    pub(crate) fn view(&self) -> View {
        let groups = || self.plan.groups.iter().map(|(machine, _)| machine.group);
        let node = |node: &SimNode| NodeView {
            node: node.id,
            up: node.running.is_some(),
            is_honest: self.is_honest(node.id),
            behind: groups().map(|group| self.observer.behind(group, node.id)).max().unwrap_or(0),
        };
        View {
            now: self.now,
            nodes: self.nodes.values().map(node).collect(),
            leaders: groups().map(|group| (group, self.observer.leader(group))).collect(),
            lacking: self.lacking(),
            pace: if self.now > Time(0).after(WORN_AFTER) { PACE_WHEN_WORN } else { 1 },
        }
    }

    fn lacking(&self) -> Vec<Play> {
        let seen = self.observer.statistics();
        let (crash, cut) = (self.faults.has(FaultKind::Crash), self.faults.has(FaultKind::Partition));
        let plays = [
            (Play::UnflushedCrash, crash && seen.unflushed_crashes < UNFLUSHED_CRASHES_FLOOR),
            (Play::Isolation, cut && seen.conflicts < CONFLICTS_FLOOR),
            (Play::Isolation, cut && seen.elections < ELECTIONS_FLOOR),
            (Play::Absence, (crash || cut) && seen.snapshot_installs < SNAPSHOT_INSTALLS_FLOOR),
            (Play::UnflushedCrash, crash && !cut && seen.elections < ELECTIONS_FLOOR),
        ];
        plays.into_iter().filter(|(_, lacking)| *lacking).map(|(play, _)| play).collect()
    }

    fn counted_enough(&self) -> bool {
        self.observer.statistics().acknowledged >= ACKNOWLEDGED_FLOOR
    }

    /// Ends all faults: the network is calm, every node runs, disks are as quick as usual. Clocks stay as
    /// they are.
    fn heal(&mut self) {
        self.trace.line(|| "healed".to_owned());
        self.troubled = false;
        if let Some(liars) = &mut self.liars {
            liars.go_on();
        }
        self.network.mend_all();
        self.network.set_conditions(self.healed);
        for node in self.nodes.values_mut() {
            node.slow = Duration::ZERO;
            node.armed = None;
            let delay = Duration::from_micros(node.random.between(0, 50_000));
            self.queue.push(self.now.after(delay), Event::Act(Action::Restart(node.id)));
        }
    }

    /// Submits a new command to each group and waits for its outcome; how long the slowest took, or
    /// `None` if the bound was not kept.
    fn probe(&mut self) -> Checked<Option<Duration>> {
        let begun = self.now;
        // A prober has nothing under way and its session is long open, unless everything was in vain so far.
        let probers = self.probers.clone();
        let are_open = |world: &Self| probers.iter().all(|prober| world.clients[prober].session().is_some());
        self.run_until(begun.after(self.recovery_bound()), are_open)?;
        let mut open = true;
        for prober in self.probers.clone() {
            if let Some(client) = self.clients.get_mut(&prober) {
                open &= client.command_now(self.now).is_some();
                self.queue.push(self.now, Event::Client(prober));
            }
        }
        let probed = |world: &Self| world.probers.iter().all(|prober| world.clients[prober].is_idle());
        let answered = self.run_until(begun.after(self.recovery_bound()), probed)?;
        Ok((open && answered).then(|| self.now.since(begun)))
    }

    /// Whether nothing is under way and all replicas applied all that is committed.
    fn is_settled(&self) -> bool {
        self.clients.values().all(Client::is_idle) && self.unlevel().is_none()
    }

    fn unsettled(&self) -> String {
        let busy = self.clients.values().find(|client| !client.is_idle());
        let busy = busy.map(|client| format!("client {} still waits", client.id()));
        busy.or_else(|| self.unlevel()).unwrap_or_default()
    }

    fn unlevel(&self) -> Option<String> {
        for (machine, _) in &self.plan.groups {
            let group = machine.group;
            let commit = self.observer.settled(group);
            for node in self.nodes.values().filter(|node| self.is_honest(node.id)) {
                let report = node.running.as_ref().and_then(|running| running.driver.report(group));
                let Some(report) = report else { return Some(format!("node {} is down", node.id)) };
                if report.applied < commit {
                    let at = report.applied;
                    return Some(format!("node {} applied {group} up to {at} of {commit}", node.id));
                }
            }
        }
        None
    }

    /// Takes the digest of every replica at one index and asks every replica the same query.
    fn compare_final_states(&mut self) -> Checked {
        let groups: Vec<GroupId> = self.plan.groups.iter().map(|(machine, _)| machine.group).collect();
        let nodes: Vec<NodeId> = self.nodes.keys().copied().filter(|node| self.is_honest(*node)).collect();
        // A replica that started from a checkpoint and applied nothing since has not loaded the code yet.
        for node in &nodes {
            self.step(*node, vec![DriverInput::Component(self.component.clone())])?;
        }
        // What comes later need not be in it.
        let floors: Vec<_> = groups.iter().map(|group| (*group, self.observer.settled(*group))).collect();
        let level = |world: &Self| {
            let honest = world.nodes.values().filter(|node| world.is_honest(node.id));
            let reports = honest.filter_map(|node| node.running.as_ref());
            let mut each = reports.flat_map(|running| {
                floors.iter().map(|(group, floor)| (*floor, running.driver.report(*group)))
            });
            each.all(|(settled, report)| {
                report.is_some_and(|report| report.digest.is_some_and(|(at, _)| at >= settled))
            })
        };
        let mut done = false;
        for _ in 0..CHECKPOINT_ORDERS {
            // In groups that sign the leader orders it, liar or not, and leaders change.
            for group in groups.iter().copied() {
                for node in self.nodes.keys().copied().collect::<Vec<_>>() {
                    if self.is_honest(node) || self.plan.signing.is_some() {
                        self.step(node, vec![DriverInput::Checkpoint { group, waiter: Waiter::Nobody }])?;
                    }
                }
            }
            done = self.run_until(self.now.after(RECOVERY_BOUND), level)?;
            if done {
                break;
            }
        }
        let reports = || {
            let running = self.nodes.values().filter_map(|node| Some((node.id, node.running.as_ref()?)));
            running.flat_map(|(node, running)| {
                groups.iter().map(move |group| (node, running.driver.report(*group)))
            })
        };
        let stands: Vec<_> = reports()
            .filter_map(|(node, report)| report.map(|report| (node, report.applied, report.digest)))
            .collect();
        hold!(done, EqualDigests, "a replica did not take the digest of its final state: {stands:?}");
        for group in groups {
            for node in &nodes {
                self.check_books(*node, group)?;
            }
        }
        Ok(())
    }

    /// A replica's answer from its own state must be what the history gives.
    fn check_books(&self, node: NodeId, group: GroupId) -> Checked {
        let machine = self.nodes[&node].running.as_ref().and_then(|running| running.driver.machine(group));
        let (Some(machine), Some(model)) = (machine, self.observer.model(group)) else { return Ok(()) };
        let (name, body) = crate::workload::reading_query();
        let answer = machine.query(name, body).run();
        let fault = match &answer {
            Ok(answer) => model.query_fault(answer.index, &answer.outcome),
            Err(why) => Some(why.clone()),
        };
        match fault {
            None => Ok(()),
            Some(why) => Err(Violation::new(
                Invariant::ExactlyOnce,
                format_args!("the final state of {group} at node {node} is {answer:?}: {why}"),
            )),
        }
    }

    /// The present life of a node.
    pub(crate) fn life(&self, node: NodeId) -> Life {
        Life { node, life: self.nodes.get(&node).map_or(0, |node| node.life) }
    }

    /// Whether a life is the present one and the node runs.
    pub(crate) fn lives(&self, life: Life) -> bool {
        self.nodes.get(&life.node).is_some_and(|node| node.life == life.life && node.running.is_some())
    }

    /// Sends a message over the network.
    pub(crate) fn send(&mut self, from: Endpoint, to: Endpoint, message: crate::event::Message) {
        self.send_late(from, to, message, Duration::ZERO);
    }

    /// Sends a message over the network that its sender holds back for a while.
    pub(crate) fn send_late(
        &mut self,
        from: Endpoint,
        to: Endpoint,
        message: crate::event::Message,
        late: Duration,
    ) {
        for at in self.network.send(self.now, from, to).into_iter().flatten() {
            self.queue.push(at.after(late), Event::Arrive { from, to, message: message.clone() });
        }
    }
}

/// The epoch of a crash group of these nodes.
fn crash_epoch(nodes: &[NodeId]) -> EpochConfig {
    let incarnation = Incarnation(1);
    let member =
        |node: &NodeId| Member { node: *node, incarnation, role: Role::Voter, priority: 1, key: None };
    EpochConfig {
        epoch: Epoch(1),
        kind: GroupKind::Crash,
        protocol: Protocol::Raft,
        members: nodes.iter().map(member).collect(),
        first_leader: nodes[0],
        limits: ComponentLimits::default(),
    }
}

fn plan(
    config: &EpochConfig,
    groups: &[GroupId],
    interval: u32,
    signing: Option<SigningPlan>,
) -> ClusterPlan {
    let machine = |group: &GroupId| MachineIdentity {
        cluster: CLUSTER,
        group: *group,
        name: format!("ledger-{}", group.0),
        digest_interval: DigestInterval { entries: interval, bytes: 1 << 20 },
    };
    ClusterPlan {
        identity: Identity { cluster: CLUSTER, node: NodeId::ZERO, incarnation: Incarnation(1) },
        groups: groups.iter().map(|group| (machine(group), config.clone())).collect(),
        timings: Timings {
            heartbeat: Duration::from_millis(20),
            election_timeout: Duration::from_millis(80),
            ..Timings::default()
        },
        signing,
    }
}
