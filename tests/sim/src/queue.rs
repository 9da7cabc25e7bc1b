//! What happens next: events in order of simulated time, and of their making within one instant.
//!
//! Relies on an ordered map. Promises one order for the same pushes. Does not know what an event is.

use std::collections::BTreeMap;

use quorate_types::Time;

/// Events yet to happen.
#[derive(Debug)]
pub struct EventQueue<E> {
    events: BTreeMap<(Time, u64), E>,
    serial: u64,
}

impl<E> Default for EventQueue<E> {
    fn default() -> Self {
        Self { events: BTreeMap::new(), serial: 0 }
    }
}

impl<E> EventQueue<E> {
    /// Adds an event; among those of one instant it comes last.
    pub fn push(&mut self, at: Time, event: E) {
        self.events.insert((at, self.serial), event);
        self.serial += 1;
    }

    /// Takes the next event.
    pub fn pop(&mut self) -> Option<(Time, E)> {
        self.events.pop_first().map(|((at, _), event)| (at, event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_by_age() {
        let mut queue = EventQueue::default();
        queue.push(Time(5), "late");
        queue.push(Time(1), "first");
        queue.push(Time(5), "later");
        queue.push(Time(1), "second");
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, [(Time(1), "first"), (Time(1), "second"), (Time(5), "late"), (Time(5), "later")]);
    }
}
