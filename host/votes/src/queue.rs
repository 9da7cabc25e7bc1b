//! Signatures that wait, by the peer that delivered them.
//!
//! Relies on nothing but order. Promises that each peer's queue is bounded and full is an answer, that what
//! one peer delivered leaves in its order, and that peers take turns: each may take [`TURN_SIGNATURES`]
//! signatures a round (deficit round robin, Shreedhar and Varghese 1995), so that a flood of one costs
//! another one round at most. Knows no signature.

use std::collections::{BTreeMap, VecDeque};

use quorate_types::NodeId;

/// Signatures one peer may take in its turn. A certificate of the largest group takes three turns.
pub const TURN_SIGNATURES: usize = 32;

/// A peer's queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{waiting} signatures of {peer} wait and {added} more do not fit under {bound}; send more slowly")]
pub struct Overloaded {
    /// Whose queue it is.
    pub peer: NodeId,
    /// Signatures that wait in it.
    pub waiting: usize,
    /// Signatures that were to be added.
    pub added: usize,
    /// The bound.
    pub bound: usize,
}

/// Items of all peers; each item weighs as many signatures as it holds.
#[derive(Debug)]
pub struct Queue<T> {
    lanes: BTreeMap<NodeId, Lane<T>>,
    /// Peers with something that waits, in the order of their turns.
    turns: VecDeque<NodeId>,
    waiting: usize,
    lane_max: usize,
}

#[derive(Debug)]
struct Lane<T> {
    items: VecDeque<(usize, T)>,
    waiting: usize,
    /// Signatures the peer may still take in its present turn.
    credit: usize,
}

impl<T> Queue<T> {
    /// An empty queue that holds at most `lane_max` signatures of each peer.
    #[must_use]
    pub fn new(lane_max: usize) -> Self {
        Self { lanes: BTreeMap::new(), turns: VecDeque::new(), waiting: 0, lane_max }
    }

    /// How many signatures wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Whether `weight` more signatures of `peer` would fit.
    ///
    /// # Errors
    ///
    /// [`Overloaded`] if they would not.
    pub fn check_room(&self, peer: NodeId, weight: usize) -> Result<(), Overloaded> {
        let waiting = self.lanes.get(&peer).map_or(0, |lane| lane.waiting);
        if waiting.saturating_add(weight) > self.lane_max {
            return Err(Overloaded { peer, waiting, added: weight, bound: self.lane_max });
        }
        Ok(())
    }

    /// Appends an item, for which [`Queue::check_room`] found room.
    pub fn push(&mut self, peer: NodeId, weight: usize, item: T) {
        let lane = self.lanes.entry(peer).or_insert_with(|| {
            self.turns.push_back(peer);
            Lane { items: VecDeque::new(), waiting: 0, credit: TURN_SIGNATURES }
        });
        lane.items.push_back((weight, item));
        lane.waiting += weight;
        self.waiting += weight;
    }

    /// Takes the next item if it weighs at most `room`.
    pub fn pop(&mut self, room: usize) -> Option<T> {
        loop {
            let peer = *self.turns.front()?;
            let lane = self.lanes.get_mut(&peer).expect("a peer with a turn has a lane");
            let weight = lane.items.front().expect("a lane is never empty").0;
            if weight > lane.credit {
                lane.credit += TURN_SIGNATURES;
                self.turns.rotate_left(1);
                continue;
            }
            if weight > room {
                return None;
            }
            lane.credit -= weight;
            lane.waiting -= weight;
            self.waiting -= weight;
            let (_, item) = lane.items.pop_front().expect("the front was just seen");
            if lane.items.is_empty() {
                // A peer that comes back starts with fresh credit; none is saved up.
                self.lanes.remove(&peer);
                self.turns.pop_front();
            }
            return Some(item);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_one_peer_delays_another_by_one_turn() {
        let mut queue = Queue::new(10_000);
        for number in 0..5_000 {
            queue.push(NodeId(1), 1, (1, number));
        }
        queue.push(NodeId(2), 1, (2, 0));
        let place = (0..).find(|_| queue.pop(1).is_some_and(|(peer, _)| peer == 2));
        assert!(place.is_some_and(|place| place <= TURN_SIGNATURES), "{place:?}");
    }

    /// Were turns counted in items, a peer that sends certificates would take a hundred times its share.
    #[test]
    fn turns_are_counted_in_signatures() {
        let mut queue = Queue::new(100_000);
        for number in 0..500 {
            queue.push(NodeId(1), 67, number);
            queue.push(NodeId(2), 1, number);
        }
        let mut taken = [0, 0];
        for _ in 0..1_000 {
            let before = queue.waiting();
            let Some(_) = queue.pop(usize::MAX) else { break };
            taken[usize::from(before - queue.waiting() == 1)] += before - queue.waiting();
            if taken[1] == 500 {
                break;
            }
        }
        assert!(taken[0] <= taken[1] + 2 * 67 + TURN_SIGNATURES, "{taken:?}");
        assert!(taken[0] * 2 >= taken[1], "{taken:?}");
    }

    #[test]
    fn a_full_lane_refuses_and_the_others_do_not() {
        let mut queue = Queue::new(10);
        queue.push(NodeId(1), 8, ());
        let refused = Overloaded { peer: NodeId(1), waiting: 8, added: 3, bound: 10 };
        assert_eq!(queue.check_room(NodeId(1), 3), Err(refused));
        assert_eq!(queue.check_room(NodeId(1), 2), Ok(()));
        assert_eq!(queue.check_room(NodeId(2), 10), Ok(()));
        assert!(queue.check_room(NodeId(1), usize::MAX).is_err());
    }

    #[test]
    fn a_peers_items_leave_in_order_and_whole() {
        let mut queue = Queue::new(1_000);
        (0..10).for_each(|number| queue.push(NodeId(1), 40, number));
        assert_eq!(queue.pop(39), None, "an item is not split");
        let order: Vec<_> = std::iter::from_fn(|| queue.pop(40)).collect();
        assert_eq!(order, (0..10).collect::<Vec<_>>());
        assert_eq!(queue.waiting(), 0);
    }
}
