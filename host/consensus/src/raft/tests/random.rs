//! Clusters by seed: loss, repetition, disorder, partitions and crashes, and what must hold anyway.
//!
//! Checked after every event: election safety, leader completeness, state machine safety, and that
//! confirmed reads see what was committed before them; log matching at the end of each seed. Then all
//! faults end, and a new entry must reach every replica within a bound. All seeds together must have
//! exercised what they are for, or the test fails.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_types::{Entry, LogIndex, NodeId, Role, Term};

use super::super::state::Random;
use super::cluster::{Cluster, Counts, Packet, config, member};
use crate::{Effects, Input, ReadId, ReplicaRole};

const SEEDS: u64 = 500;
const EVENTS: u64 = 4_000;
/// After this long without faults a new entry is everywhere.
const HEALED_WITHIN: Duration = Duration::from_millis(2_500);

#[derive(Default)]
struct World {
    leaders: BTreeMap<Term, NodeId>,
    /// Every committed entry, with the term in which it was first seen to be.
    committed: Vec<(Entry, Term)>,
    /// What was committed when each read was asked.
    reads: BTreeMap<ReadId, LogIndex>,
    confirmed: u64,
    acknowledged: u64,
}

struct Run {
    cluster: Cluster,
    random: Random,
    world: World,
    serial: u64,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let voters = if random.next().is_multiple_of(3) { 5 } else { 3 };
        let mut members: Vec<_> = (1..=voters).map(|node| member(node, Role::Voter, 1)).collect();
        if random.next().is_multiple_of(4) {
            members.push(member(9, Role::Learner, 1));
        }
        Self { cluster: Cluster::new(config(members), seed), random, world: World::default(), serial: 0 }
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.random.next() % bound as u64) as usize
    }

    fn one_up(&mut self) -> Option<NodeId> {
        let up: Vec<_> = self.cluster.ids().into_iter().filter(|id| self.cluster.is_up(*id)).collect();
        (!up.is_empty()).then(|| up[self.below(up.len())])
    }

    fn event(&mut self) {
        let Some(id) = self.one_up() else {
            let ids = self.cluster.ids();
            let any = ids[self.below(ids.len())];
            return self.cluster.start(any);
        };
        match self.below(100) {
            0..48 => self.hand_over_some(),
            48..66 => {
                if let Some((_, effects)) = self.cluster.flush_one(id) {
                    self.observe(id, &effects);
                }
            }
            66..76 => self.pass(),
            76..85 => self.propose(id),
            85..90 => self.read(id),
            90 | 91 => self.snapshot(id),
            92 | 93 => {
                if let Some(effects) = self.cluster.install(id) {
                    self.observe(id, &effects);
                }
            }
            94 => self.cluster.crash(id),
            95 | 96 => {
                let down = self.cluster.ids().into_iter().find(|id| !self.cluster.is_up(*id));
                down.into_iter().for_each(|id| self.cluster.start(id));
            }
            97 | 98 => self.cut_or_heal(id),
            _ => {
                let ids = self.cluster.ids();
                let target = ids[self.below(ids.len())];
                let effects = self.cluster.step(id, Input::TransferLeader(target));
                self.observe(id, &effects);
            }
        }
    }

    /// Usually the oldest message; sometimes another, none, or the same twice.
    fn hand_over_some(&mut self) {
        if self.cluster.network.is_empty() {
            return;
        }
        let place = if self.below(10) == 0 { self.below(self.cluster.network.len()) } else { 0 };
        let fate = self.below(25);
        let packet = match fate {
            0 => self.cluster.network[place].clone(),
            _ => self.cluster.network.remove(place).unwrap(),
        };
        if fate != 1 {
            self.hand_over(packet);
        }
    }

    fn hand_over(&mut self, packet: Packet) {
        let to = packet.to;
        if let Some(effects) = self.cluster.hand_over(packet) {
            self.observe(to, &effects);
        }
    }

    fn pass(&mut self) {
        let micros = self.random.next() % 8_000;
        self.cluster.now = self.cluster.now.after(Duration::from_micros(micros));
        while let Some((_, id)) = self.cluster.next_tick().filter(|(due, _)| *due <= self.cluster.now) {
            let effects = self.cluster.step(id, Input::Tick);
            self.observe(id, &effects);
        }
    }

    /// A replica that thinks it leads, if there is one.
    fn some_leader(&mut self, any: NodeId) -> NodeId {
        let leads = |id: &NodeId| {
            let status = self.cluster.node(*id).status.as_ref();
            status.is_some_and(|status| status.role == ReplicaRole::Leader)
        };
        let leaders: Vec<_> = self.cluster.ids().into_iter().filter(leads).collect();
        if leaders.is_empty() { any } else { leaders[self.below(leaders.len())] }
    }

    fn propose(&mut self, any: NodeId) {
        let id = self.some_leader(any);
        self.serial += 1;
        let effects = self.cluster.propose(id, self.serial, "x");
        self.observe(id, &effects);
    }

    fn read(&mut self, any: NodeId) {
        let id = self.some_leader(any);
        self.serial += 1;
        let read = ReadId(self.serial);
        self.world.reads.insert(read, LogIndex(self.world.committed.len() as u64));
        let effects = self.cluster.step(id, Input::Read(read));
        self.observe(id, &effects);
    }

    fn snapshot(&mut self, id: NodeId) {
        let applied = self.cluster.node(id).state.len() as u64;
        let marked = self.cluster.node(id).disk.mark.position.index.0;
        if applied > marked {
            let index = marked + 1 + self.random.next() % (applied - marked);
            let keep = index + 1 - self.random.next() % 3;
            let effects = self.cluster.compact(id, LogIndex(index), LogIndex(keep));
            self.observe(id, &effects);
        }
    }

    fn cut_or_heal(&mut self, id: NodeId) {
        if self.below(3) > 0 {
            return self.cluster.cut.clear();
        }
        let both_ways = self.below(2) == 0;
        for other in self.cluster.ids() {
            self.cluster.cut.insert((id, other));
            if both_ways {
                self.cluster.cut.insert((other, id));
            }
        }
    }

    /// Checks everything that one step may have broken.
    fn observe(&mut self, id: NodeId, effects: &Effects) {
        assert_eq!(effects.fence, None, "{id} found a broken invariant");
        let status = self.cluster.node(id).status.clone().unwrap();
        for committed in &effects.deliver {
            self.note_committed(id, &committed.entry, status.term);
        }
        for (read, result) in &effects.reads {
            if let Ok(index) = result {
                assert!(*index >= self.world.reads[read], "{id} confirmed a read before what it must see");
                self.world.confirmed += 1;
            }
        }
        self.world.acknowledged +=
            effects.proposed.iter().filter(|(_, result)| result.is_ok()).count() as u64;
        let became = effects.status.as_ref().is_some_and(|status| status.role == ReplicaRole::Leader);
        if became {
            let leader = *self.world.leaders.entry(status.term).or_insert(id);
            assert_eq!(leader, id, "two leaders in {}", status.term);
            self.check_completeness(id, status.term);
        }
    }

    fn note_committed(&mut self, id: NodeId, entry: &Entry, term: Term) {
        let at = usize::try_from(entry.index().0).unwrap() - 1;
        match self.world.committed.get_mut(at) {
            Some((known, _)) => assert_eq!(known, entry, "{id} delivers another entry"),
            None => {
                assert_eq!(at, self.world.committed.len(), "{id} delivers after a gap");
                self.world.committed.push((entry.clone(), term));
            }
        }
    }

    fn check_completeness(&self, id: NodeId, term: Term) {
        let log = &self.cluster.raft(id).log;
        let earlier = self.world.committed.iter().filter(|(_, seen)| *seen < term);
        for (entry, _) in earlier.filter(|(entry, _)| entry.index() > log.base().index) {
            assert_eq!(log.entry(entry.index()), Some(entry), "{id} leads {term} without a committed entry");
        }
    }

    fn check_log_matching(&self) {
        let ups: Vec<_> = self.cluster.ids().into_iter().filter(|id| self.cluster.is_up(*id)).collect();
        for (one, other) in ups.iter().flat_map(|one| ups.iter().map(move |other| (one, other))) {
            let (one, other) = (&self.cluster.raft(*one).log, &self.cluster.raft(*other).log);
            let low = one.base().index.max(other.base().index);
            let high = one.last().index.min(other.last().index);
            let equal =
                |index: &u64| one.position_at(LogIndex(*index)) == other.position_at(LogIndex(*index));
            let agree = (low.0..=high.0).rev().find(equal).unwrap_or(0);
            assert!((low.0..=agree).all(|index| equal(&index)), "logs agree at {agree} and not before it");
        }
    }

    /// Ends all faults; a new entry must then be applied everywhere in time.
    fn heal(&mut self) {
        self.cluster.cut.clear();
        for id in self.cluster.ids() {
            if !self.cluster.is_up(id) {
                self.cluster.start(id);
            }
        }
        let deadline = self.cluster.now.after(HEALED_WITHIN);
        while self.cluster.now < deadline && !self.is_healed() {
            self.propose_everywhere();
            self.cluster.run(Duration::from_millis(20));
            for id in self.cluster.ids() {
                self.cluster.install(id);
            }
        }
        let states: Vec<_> = self.cluster.nodes.values().map(|node| &node.state).collect();
        assert!(self.is_healed(), "a replica did not catch up with anything new in time");
        let known = &self.world.committed;
        assert!(known.iter().zip(states[0]).all(|((known, _), entry)| known == entry), "history changed");
        assert!(known.len() <= states[0].len(), "committed entries are gone");
    }

    fn is_healed(&self) -> bool {
        let mut states = self.cluster.nodes.values().map(|node| &node.state);
        let first = states.next().unwrap();
        first.last().is_some_and(|entry| entry.body == "healed") && states.all(|state| state == first)
    }

    fn propose_everywhere(&mut self) {
        for id in self.cluster.ids() {
            let status = self.cluster.node(id).status.as_ref();
            if status.is_some_and(|status| status.role == ReplicaRole::Leader) {
                self.cluster.propose(id, 0, "healed");
            }
        }
    }
}

#[test]
fn safety_holds_under_faults_and_progress_returns_when_they_end() {
    let mut total = Counts::default();
    let (mut elections, mut confirmed, mut committed, mut acknowledged) = (0, 0, 0, 0);
    for seed in 0..SEEDS {
        println!("seed {seed}");
        let mut run = Run::new(seed);
        for _ in 0..EVENTS {
            run.event();
        }
        run.check_log_matching();
        elections += run.world.leaders.len();
        confirmed += run.world.confirmed;
        committed += run.world.committed.len();
        acknowledged += run.world.acknowledged;
        run.heal();
        let counts = run.cluster.counts;
        total.conflicts += counts.conflicts;
        total.installs += counts.installs;
        total.losses += counts.losses;
    }
    println!(
        "{elections} elections, {acknowledged} appended, {committed} committed, {confirmed} reads, {total:?}"
    );
    let seeds = SEEDS as usize;
    assert!(
        elections >= 3 * seeds && committed >= 30 * seeds,
        "{elections} elections, {committed} committed"
    );
    assert!(confirmed >= SEEDS && acknowledged >= 30 * SEEDS, "{confirmed} reads, {acknowledged} appended");
    assert!(total.conflicts >= SEEDS / 2, "{total:?}");
    assert!(total.installs >= SEEDS / 10 && total.losses >= SEEDS, "{total:?}");
}
