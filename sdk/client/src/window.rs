//! The numbers of a session's commands: which are in use, and which are settled.
//!
//! Relies on nothing. Promises ascending numbers, never more than the window apart from the oldest
//! unsettled one, so that the group never holds more outcomes of the session than it is willing to; and
//! that nothing above an unsettled number is acknowledged. Knows no command.
//!
//! ```text
//!   settled and forgotten   lowest                        next
//!   ------------------------|-- settled or not -----------|-- not in use --->
//!                           |<---- at most the window --->|
//! ```

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;

/// The window of one session.
#[derive(Debug)]
pub(crate) struct Window {
    size: usize,
    /// One permit for every number that may be taken.
    room: Semaphore,
    numbers: Mutex<Numbers>,
}

#[derive(Debug)]
struct Numbers {
    /// All smaller numbers are settled.
    lowest: u64,
    /// For each number from `lowest` on that was taken, whether it is settled.
    settled: VecDeque<bool>,
}

impl Window {
    /// A window of `size` numbers, starting at 1.
    pub(crate) fn new(size: usize) -> Arc<Self> {
        let numbers = Numbers { lowest: 1, settled: VecDeque::with_capacity(size) };
        Arc::new(Self { size, room: Semaphore::new(size), numbers: Mutex::new(numbers) })
    }

    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Takes the next number, once there is room; waiters are served in order.
    pub(crate) async fn take(self: &Arc<Self>) -> Turn {
        let permit = self.room.acquire().await.expect("the window's semaphore is never closed");
        permit.forget();
        self.turn()
    }

    /// Takes the next number, if there is room.
    pub(crate) fn try_take(self: &Arc<Self>) -> Option<Turn> {
        self.room.try_acquire().ok()?.forget();
        Some(self.turn())
    }

    /// The outcomes of all smaller numbers are needed no longer.
    pub(crate) fn acknowledged_below(&self) -> u64 {
        self.numbers().lowest
    }

    fn turn(self: &Arc<Self>) -> Turn {
        let mut numbers = self.numbers();
        let sequence = numbers.lowest + numbers.settled.len() as u64;
        numbers.settled.push_back(false);
        assert!(numbers.settled.len() <= self.size, "{} numbers in use", numbers.settled.len());
        Turn { window: Arc::clone(self), sequence }
    }

    fn settle(&self, sequence: u64) {
        let mut numbers = self.numbers();
        let at = sequence - numbers.lowest;
        numbers.settled[at as usize] = true;
        let mut freed = 0;
        while numbers.settled.front() == Some(&true) {
            numbers.settled.pop_front();
            numbers.lowest += 1;
            freed += 1;
        }
        drop(numbers);
        if freed > 0 {
            self.room.add_permits(freed);
        }
    }

    fn numbers(&self) -> MutexGuard<'_, Numbers> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One number in use; dropping it settles it.
#[derive(Debug)]
pub(crate) struct Turn {
    window: Arc<Window>,
    sequence: u64,
}

impl Turn {
    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.window.settle(self.sequence);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn nothing_above_an_unsettled_number_is_acknowledged() {
        let window = Window::new(4);
        let one = window.try_take().unwrap();
        let two = window.try_take().unwrap();
        assert_eq!((one.sequence(), two.sequence()), (1, 2));
        drop(two);
        assert_eq!(window.acknowledged_below(), 1);
        drop(one);
        assert_eq!(window.acknowledged_below(), 3);
    }

    #[test]
    fn the_window_counts_from_the_oldest_unsettled_number() {
        let window = Window::new(2);
        let one = window.try_take().unwrap();
        drop(window.try_take().unwrap());
        assert!(window.try_take().is_none(), "2 is settled, but 1 is not");
        drop(one);
        let three = window.try_take().unwrap();
        let four = window.try_take().unwrap();
        assert_eq!((three.sequence(), four.sequence()), (3, 4));
    }

    #[tokio::test]
    async fn who_waits_for_room_gets_the_next_number() {
        let window = Window::new(1);
        let one = window.take().await;
        let waiting = tokio::spawn({
            let window = Arc::clone(&window);
            async move { window.take().await.sequence() }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(one);
        assert_eq!(waiting.await.unwrap(), 2);
    }
}
