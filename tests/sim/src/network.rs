//! The network between nodes, and between clients and nodes: when a message arrives, if it does.
//!
//! Relies on a seed. Promises that a message is lost, late, doubled or overtaken only as far as the
//! conditions allow, and that nothing passes a cut. Knows no message.

use std::collections::{BTreeMap, BTreeSet};

use quorate_types::{NodeId, Time};

use crate::random::Random;

/// One end of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Endpoint {
    /// A node.
    Node(NodeId),
    /// A client, by number.
    Client(u32),
}

/// How the network behaves; delays in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// Messages lost, of a thousand.
    pub loss_per_mille: u32,
    /// Messages that arrive twice, of a thousand.
    pub duplicate_per_mille: u32,
    /// The usual delay, least and greatest.
    pub delay_us: (u64, u64),
    /// Messages that are late, of a thousand.
    pub late_per_mille: u32,
    /// How late those are, least and greatest, on top of the usual delay.
    pub late_us: (u64, u64),
    /// Whether messages of one sender to one receiver keep their order.
    pub in_order: bool,
}

impl Conditions {
    /// A quiet local network.
    #[must_use]
    pub fn calm() -> Self {
        Self {
            loss_per_mille: 0,
            duplicate_per_mille: 0,
            delay_us: (150, 350),
            late_per_mille: 0,
            late_us: (0, 0),
            in_order: true,
        }
    }
}

/// How often the network did what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkCounts {
    /// Messages given to it.
    pub sent: u64,
    /// Lost on the way.
    pub lost: u64,
    /// Stopped by a cut.
    pub cut: u64,
    /// Delivered twice.
    pub duplicated: u64,
}

/// When a message arrives: never, once or twice.
pub type Arrivals = [Option<Time>; 2];

/// The network.
#[derive(Debug)]
pub struct Network {
    random: Random,
    conditions: Conditions,
    cuts: BTreeSet<(Endpoint, Endpoint)>,
    last_arrival: BTreeMap<(Endpoint, Endpoint), Time>,
    counts: NetworkCounts,
}

impl Network {
    /// A network without cuts.
    #[must_use]
    pub fn new(random: Random, conditions: Conditions) -> Self {
        Self {
            random,
            conditions,
            cuts: BTreeSet::new(),
            last_arrival: BTreeMap::new(),
            counts: NetworkCounts::default(),
        }
    }

    /// Changes how it behaves from now on.
    pub fn set_conditions(&mut self, conditions: Conditions) {
        self.conditions = conditions;
    }

    /// Stops everything from one end to another; the other direction is left as it is.
    pub fn cut(&mut self, from: Endpoint, to: Endpoint) {
        self.cuts.insert((from, to));
    }

    /// Ends the cut from one end to another.
    pub fn mend(&mut self, from: Endpoint, to: Endpoint) {
        self.cuts.remove(&(from, to));
    }

    /// Ends all cuts.
    pub fn mend_all(&mut self) {
        self.cuts.clear();
    }

    /// Whether a message from one end reaches the other at all.
    #[must_use]
    pub fn passes(&self, from: Endpoint, to: Endpoint) -> bool {
        !self.cuts.contains(&(from, to))
    }

    /// How often it did what.
    #[must_use]
    pub fn counts(&self) -> NetworkCounts {
        self.counts
    }

    /// Decides what becomes of a message sent now.
    pub fn send(&mut self, now: Time, from: Endpoint, to: Endpoint) -> Arrivals {
        self.counts.sent += 1;
        if !self.passes(from, to) {
            self.counts.cut += 1;
            return [None, None];
        }
        if self.random.chance(self.conditions.loss_per_mille) {
            self.counts.lost += 1;
            return [None, None];
        }
        let first = self.arrival(now, from, to);
        if !self.random.chance(self.conditions.duplicate_per_mille) {
            return [Some(first), None];
        }
        self.counts.duplicated += 1;
        [Some(first), Some(self.arrival(now, from, to))]
    }

    fn arrival(&mut self, now: Time, from: Endpoint, to: Endpoint) -> Time {
        let (least, greatest) = self.conditions.delay_us;
        let mut delay = self.random.between(least, greatest);
        if self.random.chance(self.conditions.late_per_mille) {
            let (least, greatest) = self.conditions.late_us;
            delay += self.random.between(least, greatest);
        }
        let mut at = Time(now.0 + delay);
        if self.conditions.in_order {
            let last = self.last_arrival.entry((from, to)).or_default();
            at = at.max(*last);
            *last = at;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Endpoint = Endpoint::Node(NodeId(1));
    const B: Endpoint = Endpoint::Client(0);

    fn network(conditions: Conditions) -> Network {
        Network::new(Random::new(3), conditions)
    }

    fn arrivals(network: &mut Network, count: u64) -> Vec<Arrivals> {
        (0..count).map(|number| network.send(Time(number * 10), A, B)).collect()
    }

    #[test]
    fn a_calm_network_delivers_everything_once_and_in_order() {
        let mut network = network(Conditions::calm());
        let times: Vec<_> =
            arrivals(&mut network, 500).into_iter().map(|[first, second]| (first, second)).collect();
        assert!(times.iter().all(|(first, second)| first.is_some() && second.is_none()));
        assert!(times.is_sorted());
    }

    #[test]
    fn a_cut_stops_one_direction_until_it_is_mended() {
        let mut network = network(Conditions::calm());
        network.cut(A, B);
        assert_eq!(network.send(Time(0), A, B), [None, None]);
        assert!(network.send(Time(0), B, A)[0].is_some());
        network.mend(A, B);
        assert!(network.send(Time(0), A, B)[0].is_some());
        assert_eq!(network.counts().cut, 1);
    }

    #[test]
    fn loss_duplication_and_overtaking_happen_when_allowed() {
        let mut network = network(Conditions {
            loss_per_mille: 100,
            duplicate_per_mille: 100,
            late_per_mille: 100,
            late_us: (1_000, 5_000),
            in_order: false,
            ..Conditions::calm()
        });
        let all = arrivals(&mut network, 1_000);
        let lost = all.iter().filter(|[first, _]| first.is_none()).count();
        let doubled = all.iter().filter(|[_, second]| second.is_some()).count();
        assert!((50..150).contains(&lost), "{lost}");
        assert!((50..150).contains(&doubled), "{doubled}");
        let firsts: Vec<_> = all.iter().filter_map(|[first, _]| *first).collect();
        assert!(!firsts.is_sorted());
        assert_eq!(network.counts().lost, lost as u64);
    }
}
