//! The director of a run: which fault happens when.
//!
//! Relies on a seed and on a view of the cluster. Promises only faults of the allowed kinds, that each is
//! undone after a while, that every run begins with the faults its floors depend on, in random order, and that a
//! replica which no fault drove to a snapshot is at last kept away until nothing else helps it, undisturbed.
//! Carries nothing out.

use std::time::Duration;

use quorate_types::{GroupId, NodeId, Time};

use crate::faults::{FaultKind, FaultSet};
use crate::network::{Conditions, Endpoint};
use crate::random::Random;

/// What a node runs into at its next chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trap {
    /// It ends after a batch was appended to the log and before it is flushed.
    CrashAfterAppend,
    /// It ends in the middle of the table transaction of a checkpoint or of a fetched snapshot.
    CrashInTables,
    /// It ends after a fetched snapshot is in the tables and before the replica knows.
    CrashAfterInstall,
    /// It ends soon after it won an election.
    CrashAfterElection,
    /// It is cut off the moment it wins an election, and the node named here is cut off no longer.
    SwapAtElection(NodeId),
}

/// Something the director wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A node ends. It starts again after this while, or when told.
    Crash(NodeId, Option<Duration>),
    /// A node is to run into a trap.
    Arm(NodeId, Trap),
    /// A node that was to end in a trap and did not ends now.
    CrashIfArmed(NodeId),
    /// A node starts, unless it runs.
    Restart(NodeId),
    /// Nothing passes from the first to the second of each pair.
    Cut(Vec<(Endpoint, Endpoint)>),
    /// The cut ends.
    Mend(Vec<(Endpoint, Endpoint)>),
    /// The network behaves like this.
    Network(Conditions),
    /// Each flush of a node takes this much longer.
    SlowDisk(NodeId, Duration),
    /// A node's wall clock is ahead by this many milliseconds.
    SetClock(NodeId, i64),
    /// An operator asks for a group's leadership to move.
    Transfer(GroupId, NodeId),
}

/// How a node stands.
#[derive(Clone, Copy, Debug)]
pub struct NodeView {
    /// The node.
    pub node: NodeId,
    /// Whether it runs.
    pub up: bool,
    /// Whether it keeps the rules.
    pub is_honest: bool,
    /// Entries committed since it last logged one, in the group where that is most.
    pub behind: u64,
}

/// What the director sees.
#[derive(Clone, Debug)]
pub struct View {
    /// Simulated time.
    pub now: Time,
    /// All nodes.
    pub nodes: Vec<NodeView>,
    /// The groups and their present leaders, as far as there are any.
    pub leaders: Vec<(GroupId, Option<NodeId>)>,
    /// What the run still lacks.
    pub lacking: Vec<Play>,
    /// Faults come so many times as seldom as usual; 1 to 1,000.
    pub pace: u64,
}

/// A fault that a run needs for one of its floors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Play {
    /// A leader ends between append and flush.
    UnflushedCrash,
    /// A leader is cut off from its followers and not from its clients.
    Isolation,
    /// A replica is away until its peers no longer hold the entries it lacks.
    Absence,
    /// Two leaders one after the other each hold entries that nobody else has.
    Rivals,
}

/// A replica that is away.
#[derive(Debug)]
struct Absent {
    node: NodeId,
    /// Never, if nothing but its lag ends the absence.
    until: Option<Time>,
    cut: bool,
}

/// The director.
#[derive(Debug)]
pub struct Director {
    random: Random,
    faults: FaultSet,
    usual: Conditions,
    /// An absent replica returns when it is this many entries behind.
    absence_entries: u64,
    opening: Vec<Play>,
    absent: Option<Absent>,
    next_play: Time,
    /// When it was first asked.
    begun: Option<Time>,
    /// Whether nothing else happens until an absent replica needed a snapshot.
    is_waiting: bool,
}

/// An absent replica returns after this even if it is not far behind.
const ABSENCE_MAX: Duration = Duration::from_secs(4);
/// How long faults may drive some replica to a snapshot before one is kept away for it: by then nearly all runs had
/// one, and the shortest runs have time left.
const WAITING_AFTER: Duration = Duration::from_secs(15);
/// By then all faults that were under way have ended by themselves.
const FAULTS_END: Duration = Duration::from_millis(1_500);
/// How long a replica that is back from such an absence may take for its snapshot before one is kept away again.
const SNAPSHOT_TAKES: Duration = Duration::from_secs(3);
/// How long a node may go on that is to end in a trap.
const ARMED_MAX: Duration = Duration::from_millis(400);

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

impl Director {
    /// The director of a run; a replica is far behind when `absence_entries` were committed without it.
    #[must_use]
    pub fn new(mut random: Random, faults: FaultSet, absence_entries: u64) -> Self {
        let usual = usual_conditions(&mut random, &faults);
        let mut opening = vec![Play::UnflushedCrash, Play::Isolation, Play::Absence, Play::Rivals];
        random.shuffle(&mut opening);
        Self {
            random,
            faults,
            usual,
            absence_entries,
            opening,
            absent: None,
            next_play: Time(300_000),
            begun: None,
            is_waiting: false,
        }
    }

    /// How the network behaves when nothing special happens to it.
    #[must_use]
    pub fn usual_conditions(&self) -> Conditions {
        self.usual
    }

    /// How long a crashed node stays down.
    pub fn downtime(&mut self) -> Duration {
        if self.random.chance(300) {
            ms(self.random.between(300, 1_200))
        } else {
            ms(self.random.between(10, 300))
        }
    }

    /// Whether nothing is to go wrong but that one replica is away, liars included: with one away and others silent
    /// there is no quorum from which it could fall behind.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.is_waiting
    }

    /// What happens now, each part after its delay.
    pub fn next(&mut self, view: &View) -> Vec<(Duration, Action)> {
        let mut actions = self.end_absence(view);
        let begun = *self.begun.get_or_insert(view.now);
        let is_late = view.now.since(begun) >= WAITING_AFTER;
        if is_late && view.lacking.contains(&Play::Absence) {
            actions.extend(self.wait(view));
            return actions;
        }
        self.is_waiting = false;
        if view.now >= self.next_play {
            self.next_play = view.now.after(ms(self.random.between(80, 450) * view.pace));
            let play = self.opening.pop().or_else(|| {
                // Now and then something else happens too, which may be what the lacking part needs.
                let repeat = self.random.chance(700);
                view.lacking.first().copied().filter(|_| repeat)
            });
            actions.extend(match play {
                Some(play) => self.needed(play, view),
                None => self.any(view),
            });
        }
        actions
    }

    fn end_absence(&mut self, view: &View) -> Vec<(Duration, Action)> {
        let Some(absent) = &self.absent else { return Vec::new() };
        let behind =
            view.nodes.iter().find(|other| other.node == absent.node).map_or(0, |other| other.behind);
        if absent.until.is_none_or(|until| view.now < until) && behind < self.absence_entries {
            return Vec::new();
        }
        let (node, cut) = (absent.node, absent.cut);
        self.absent = None;
        let action = if cut { Action::Mend(around(node, view)) } else { Action::Restart(node) };
        vec![(Duration::ZERO, action)]
    }

    /// A replica is away until its lag alone brings it back, and again if that was not enough. Before that all that
    /// earlier faults left behind ends.
    fn wait(&mut self, view: &View) -> Vec<(Duration, Action)> {
        if !self.is_waiting {
            self.is_waiting = true;
            self.next_play = view.now.after(FAULTS_END);
            let back = self.absent.take().map(|absent| Action::Restart(absent.node));
            return clear(view).into_iter().chain(back).map(|action| (Duration::ZERO, action)).collect();
        }
        if let Some(absent) = &mut self.absent {
            absent.until = None;
            self.next_play = view.now.after(SNAPSHOT_TAKES);
            return Vec::new();
        }
        if view.now >= self.next_play { self.absence(view) } else { Vec::new() }
    }

    fn needed(&mut self, play: Play, view: &View) -> Vec<(Duration, Action)> {
        match play {
            Play::UnflushedCrash => {
                self.armed(self.faults.has(FaultKind::Crash), Trap::CrashAfterAppend, view)
            }
            Play::Isolation => self.isolation(view),
            Play::Absence => self.absence(view),
            Play::Rivals => self.rivals(view),
        }
    }

    fn any(&mut self, view: &View) -> Vec<(Duration, Action)> {
        let crash = self.faults.has(FaultKind::Crash);
        match self.random.below(15) {
            0 => self.armed(crash, Trap::CrashAfterAppend, view),
            1 => self.armed(crash, Trap::CrashInTables, view),
            2 => self.armed(crash, Trap::CrashAfterInstall, view),
            3 | 4 => self.crash_next_leader(crash, view),
            5 => self.crash_some(crash, view),
            6 => self.isolation(view),
            7 => self.absence(view),
            8 => self.split(view),
            9 => self.storm(),
            10 => self.slow_disk(view),
            11 => self.clock(view),
            12 | 13 => self.rivals(view),
            _ => self.transfer(view),
        }
    }

    /// A leader, mostly, or any node that runs.
    fn victim(&mut self, view: &View) -> Option<NodeId> {
        let leaders: Vec<_> = view.leaders.iter().filter_map(|(_, leader)| *leader).collect();
        let running: Vec<_> = view.nodes.iter().filter(|node| node.up).map(|node| node.node).collect();
        let leader = if self.random.chance(600) { self.random.pick(&leaders).copied() } else { None };
        leader.or_else(|| self.random.pick(&running).copied())
    }

    fn armed(&mut self, allowed: bool, point: Trap, view: &View) -> Vec<(Duration, Action)> {
        match self.victim(view).filter(|_| allowed) {
            Some(node) => {
                vec![(Duration::ZERO, Action::Arm(node, point)), (ARMED_MAX, Action::CrashIfArmed(node))]
            }
            None => Vec::new(),
        }
    }

    /// The leader ends, and whoever follows it ends soon after its election.
    fn crash_next_leader(&mut self, allowed: bool, view: &View) -> Vec<(Duration, Action)> {
        let leader = view.leaders.iter().find_map(|(_, leader)| *leader);
        let Some(leader) = leader.filter(|_| allowed) else { return Vec::new() };
        let others = view.nodes.iter().filter(|other| other.up && other.node != leader);
        let mut actions: Vec<_> =
            others.map(|other| (Duration::ZERO, Action::Arm(other.node, Trap::CrashAfterElection))).collect();
        let downtime = self.downtime();
        actions.push((Duration::ZERO, Action::Crash(leader, Some(downtime))));
        actions
    }

    fn crash_some(&mut self, allowed: bool, view: &View) -> Vec<(Duration, Action)> {
        if !allowed {
            return Vec::new();
        }
        let all = self.random.chance(200);
        let one = self.victim(view);
        let nodes = view.nodes.iter().map(|other| other.node).filter(|node| all || Some(*node) == one);
        let nodes: Vec<_> = nodes.collect();
        nodes.into_iter().map(|node| (Duration::ZERO, Action::Crash(node, Some(self.downtime())))).collect()
    }

    fn isolation(&mut self, view: &View) -> Vec<(Duration, Action)> {
        let leader = view.leaders.iter().filter_map(|(_, leader)| *leader).collect::<Vec<_>>();
        let leader = self.random.pick(&leader).copied().filter(|_| self.faults.has(FaultKind::Partition));
        let Some(leader) = leader else { return Vec::new() };
        let cut = around(leader, view);
        let wait = ms(self.random.between(150, 700));
        vec![(Duration::ZERO, Action::Cut(cut.clone())), (wait, Action::Mend(cut))]
    }

    /// The opening of figure 8 of the Raft paper: a leader is cut off with entries of its own; the next
    /// one is cut off with its first entry, and the old leader, whose disk is slow now, comes back.
    fn rivals(&mut self, view: &View) -> Vec<(Duration, Action)> {
        let leaders = view.leaders.iter().filter_map(|(_, leader)| *leader).collect::<Vec<_>>();
        let leader = self.random.pick(&leaders).copied().filter(|_| self.faults.has(FaultKind::Partition));
        let Some(leader) = leader else { return Vec::new() };
        let mut actions = vec![(Duration::ZERO, Action::Cut(around(leader, view)))];
        for rival in view.nodes.iter().filter(|rival| rival.up && rival.node != leader) {
            actions.push((Duration::ZERO, Action::Arm(rival.node, Trap::SwapAtElection(leader))));
        }
        let end = ms(self.random.between(500, 900));
        if self.faults.has(FaultKind::SlowDisk) {
            let slow = ms(self.random.between(5, 40));
            actions.push((ms(60), Action::SlowDisk(leader, slow)));
            actions.push((end, Action::SlowDisk(leader, Duration::ZERO)));
        }
        let all = view.nodes.iter().flat_map(|node| around(node.node, view)).collect();
        actions.push((end, Action::Mend(all)));
        self.next_play = view.now.after(end);
        actions
    }

    fn absence(&mut self, view: &View) -> Vec<(Duration, Action)> {
        let leads = |node: NodeId| view.leaders.iter().any(|(_, leader)| *leader == Some(node));
        let followers = view.nodes.iter().filter(|node| node.up && node.is_honest && !leads(node.node));
        let followers: Vec<_> = followers.map(|node| node.node).collect();
        let (crash, cut) = (self.faults.has(FaultKind::Crash), self.faults.has(FaultKind::Partition));
        let by_cut = cut && (!crash || self.random.chance(400));
        let follower =
            self.random.pick(&followers).copied().filter(|_| self.absent.is_none() && (crash || cut));
        let Some(node) = follower else { return Vec::new() };
        self.absent = Some(Absent { node, until: Some(view.now.after(ABSENCE_MAX)), cut: by_cut });
        let action = if by_cut { Action::Cut(around(node, view)) } else { Action::Crash(node, None) };
        vec![(Duration::ZERO, action)]
    }

    /// Two sides that do not reach one another, or of which one does not reach the other.
    fn split(&mut self, view: &View) -> Vec<(Duration, Action)> {
        if !self.faults.has(FaultKind::Partition) {
            return Vec::new();
        }
        let side: Vec<bool> = view.nodes.iter().map(|_| self.random.chance(500)).collect();
        let one_way = self.random.chance(400);
        let mut cut = Vec::new();
        for (from, from_side) in view.nodes.iter().zip(&side) {
            for (to, to_side) in view.nodes.iter().zip(&side) {
                if from_side != to_side && (*from_side || !one_way) {
                    cut.push((Endpoint::Node(from.node), Endpoint::Node(to.node)));
                }
            }
        }
        let wait = ms(self.random.between(100, 900));
        vec![(Duration::ZERO, Action::Cut(cut.clone())), (wait, Action::Mend(cut))]
    }

    fn storm(&mut self) -> Vec<(Duration, Action)> {
        let mut storm = self.usual;
        if self.faults.has(FaultKind::Loss) {
            storm.loss_per_mille = self.random.between(50, 300) as u32;
        }
        if self.faults.has(FaultKind::Duplication) {
            storm.duplicate_per_mille = self.random.between(50, 300) as u32;
        }
        if self.faults.has(FaultKind::Delay) {
            storm.late_per_mille = self.random.between(50, 400) as u32;
            storm.late_us = (1_000, self.random.between(5_000, 250_000));
        }
        let wait = ms(self.random.between(150, 700));
        vec![(Duration::ZERO, Action::Network(storm)), (wait, Action::Network(self.usual))]
    }

    fn slow_disk(&mut self, view: &View) -> Vec<(Duration, Action)> {
        let Some(node) = self.victim(view).filter(|_| self.faults.has(FaultKind::SlowDisk)) else {
            return Vec::new();
        };
        let slow = ms(self.random.between(5, 80));
        let wait = ms(self.random.between(100, 600));
        vec![(Duration::ZERO, Action::SlowDisk(node, slow)), (wait, Action::SlowDisk(node, Duration::ZERO))]
    }

    fn clock(&mut self, view: &View) -> Vec<(Duration, Action)> {
        let Some(node) = self.victim(view).filter(|_| self.faults.has(FaultKind::Clock)) else {
            return Vec::new();
        };
        let ahead = self.random.between(0, 6_000) as i64 - 3_000;
        vec![(Duration::ZERO, Action::SetClock(node, ahead))]
    }

    fn transfer(&mut self, view: &View) -> Vec<(Duration, Action)> {
        let to = self.random.pick(&view.nodes).map(|node| node.node);
        let group = self.random.pick(&view.leaders).map(|(group, _)| *group);
        match (group, to) {
            (Some(group), Some(to)) => vec![(Duration::ZERO, Action::Transfer(group, to))],
            _ => Vec::new(),
        }
    }
}

/// Ends cuts that nothing would mend and traps that nobody ran into.
fn clear(view: &View) -> Vec<Action> {
    let all = view.nodes.iter().flat_map(|node| around(node.node, view)).collect();
    let armed = view.nodes.iter().map(|node| Action::CrashIfArmed(node.node));
    armed.chain([Action::Mend(all)]).collect()
}

/// Both directions between a node and every other.
fn around(node: NodeId, view: &View) -> Vec<(Endpoint, Endpoint)> {
    let one = Endpoint::Node(node);
    let others = view.nodes.iter().map(|other| Endpoint::Node(other.node)).filter(|other| *other != one);
    others.flat_map(|other| [(one, other), (other, one)]).collect()
}

fn usual_conditions(random: &mut Random, faults: &FaultSet) -> Conditions {
    let mut usual = Conditions::calm();
    if faults.has(FaultKind::Loss) {
        usual.loss_per_mille = random.between(0, 20) as u32;
    }
    if faults.has(FaultKind::Duplication) {
        usual.duplicate_per_mille = random.between(0, 30) as u32;
    }
    if faults.has(FaultKind::Delay) {
        usual.delay_us = (100, random.between(200, 2_000));
        usual.late_per_mille = random.between(0, 30) as u32;
        usual.late_us = (500, random.between(1_000, 120_000));
    }
    usual.in_order = !faults.has(FaultKind::Reordering);
    usual
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(now: u64) -> View {
        let node = |number| NodeView { node: NodeId(number), up: true, is_honest: number < 3, behind: 0 };
        View {
            now: Time(now),
            nodes: (1..=3).map(node).collect(),
            leaders: vec![(GroupId(1), Some(NodeId(1)))],
            lacking: Vec::new(),
            pace: 1,
        }
    }

    fn actions(faults: FaultSet, seed: u64) -> Vec<Action> {
        let mut director = Director::new(Random::new(seed), faults, 100);
        (0..400).flat_map(|step| director.next(&view(step * 50_000))).map(|(_, action)| action).collect()
    }

    #[test]
    fn without_faults_nothing_happens_but_what_operators_do() {
        let done = actions(FaultSet::none(), 1);
        let harmless = |action: &Action| {
            matches!(action, Action::Transfer(..)) || *action == Action::Network(Conditions::calm())
        };
        assert!(done.iter().all(harmless), "{done:?}");
    }

    #[test]
    fn every_cut_is_mended_and_every_kind_of_fault_comes_up() {
        let done = actions(FaultSet::all(), 2);
        let cuts = done.iter().filter(|action| matches!(action, Action::Cut(_))).count();
        let mends = done.iter().filter(|action| matches!(action, Action::Mend(_))).count();
        assert!(cuts > 0 && cuts.abs_diff(mends) <= 1, "{cuts} cuts, {mends} mended");
        let armed =
            |point| done.iter().any(|action| matches!(action, Action::Arm(_, armed) if *armed == point));
        assert!(armed(Trap::CrashAfterAppend) && armed(Trap::CrashInTables));
        assert!(armed(Trap::CrashAfterInstall) && armed(Trap::CrashAfterElection));
        assert!(done.iter().any(|action| matches!(action, Action::SlowDisk(_, slow) if !slow.is_zero())));
        assert!(done.iter().any(|action| matches!(action, Action::SetClock(..))));
    }

    /// Otherwise a group whose replicas have become patient is never left alone for long enough to go on.
    #[test]
    fn at_another_pace_faults_come_as_much_more_seldom() {
        let plays = |pace: u64| {
            let mut director = Director::new(Random::new(4), FaultSet::all(), 100);
            let steps = (0..4_000).map(|step| View { pace, ..view(step * 50_000) });
            steps.filter(|view| !director.next(view).is_empty()).count()
        };
        let (often, seldom) = (plays(1), plays(10));
        assert!(often > 5 * seldom && seldom > 20, "{often} and {seldom}");
    }

    /// What could go wrong: a run in which each absence was too short, or its victim a liar, exercises no snapshot.
    #[test]
    fn a_replica_is_kept_away_undisturbed_until_it_needed_a_snapshot() {
        let mut director = Director::new(Random::new(6), FaultSet::all(), 100);
        let late = |ms: u64| View { lacking: vec![Play::Absence], ..view(300_000 + ms * 1_000) };
        let mut away: Option<NodeId> = None;
        let at = |ms| (15_000..).step_by(10).take_while(move |at| *at < ms);
        director.next(&late(0));
        for ms in at(60_000) {
            let mut now = late(ms);
            for node in now.nodes.iter_mut().filter(|node| Some(node.node) == away) {
                node.behind = 99;
            }
            for (_, action) in director.next(&now) {
                match action {
                    Action::Crash(node, None) => away = Some(node),
                    Action::Cut(pairs) => {
                        let Endpoint::Node(node) = pairs[0].0 else { panic!("clients are not cut off") };
                        away = Some(node);
                    }
                    Action::CrashIfArmed(_) | Action::Mend(_) | Action::Restart(_) if ms == 15_000 => {}
                    other => panic!("{other:?} at {ms}"),
                }
            }
            assert!(director.is_waiting());
            assert_eq!(away.is_some(), ms >= 16_500, "at {ms}");
        }
        assert_eq!(away, Some(NodeId(2)), "the first leads and the third lies");
        let mut far = late(60_000);
        far.nodes[1].behind = 100;
        assert_eq!(director.next(&far).len(), 1, "it is back");
        director.next(&late(62_000));
        assert!(director.is_waiting());
        director.next(&view(62_300_000));
        assert!(!director.is_waiting(), "it had its snapshot");
    }

    #[test]
    fn an_absent_replica_returns_when_it_is_far_behind() {
        let mut director = Director::new(Random::new(3), FaultSet::all(), 100);
        director.opening = vec![Play::Absence];
        let away = director.next(&view(1_000_000));
        let node = match &away[0].1 {
            Action::Crash(node, None) => *node,
            Action::Cut(pairs) => match pairs[0].0 {
                Endpoint::Node(node) => node,
                Endpoint::Client(_) => panic!("clients are not cut off"),
            },
            other => panic!("{other:?} is no absence"),
        };
        let mut far = view(1_001_000);
        assert!(director.next(&far).is_empty());
        far.nodes[node.0 as usize - 1].behind = 100;
        assert_eq!(director.next(&far).len(), 1);
    }
}
