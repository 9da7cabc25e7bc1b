//! A shard's mailbox: many senders, one receiver that takes everything at once.
//!
//! Relies on a mutex held for a push or a swap only. Promises that bounded senders are told when it is
//! full, that the node's own completions always fit, and that order of arrival is kept. Knows nothing of
//! what is sent.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

/// The mailbox.
#[derive(Debug)]
pub struct Mailbox<T> {
    queue: Mutex<Vec<T>>,
    arrived: Notify,
    bound: usize,
}

/// The mailbox is full; the item comes back.
#[derive(Debug, PartialEq, Eq)]
pub struct Full<T>(pub T);

impl<T> Mailbox<T> {
    /// A mailbox that refuses outside items while `bound` or more wait.
    #[must_use]
    pub fn new(bound: usize) -> Self {
        Self { queue: Mutex::new(Vec::new()), arrived: Notify::new(), bound }
    }

    /// Adds an item from outside the node.
    ///
    /// # Errors
    ///
    /// [`Full`] with the item.
    pub fn offer(&self, item: T) -> Result<(), Full<T>> {
        {
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            if queue.len() >= self.bound {
                return Err(Full(item));
            }
            queue.push(item);
        }
        self.arrived.notify_one();
        Ok(())
    }

    /// Adds a completion of the node's own, of which there are as many as the node has work under way.
    pub fn complete(&self, item: T) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push(item);
        self.arrived.notify_one();
    }

    /// Moves everything that waits to the end of `into`.
    pub fn take(&self, into: &mut Vec<T>) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if into.is_empty() {
            std::mem::swap(into, &mut queue);
        } else {
            into.append(&mut queue);
        }
    }

    /// How many items wait.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Waits until something arrived since the last wait.
    pub async fn arrival(&self) {
        self.arrived.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_mailbox_refuses_outsiders_and_takes_completions() {
        let mailbox = Mailbox::new(2);
        assert_eq!(mailbox.offer(1), Ok(()));
        assert_eq!(mailbox.offer(2), Ok(()));
        assert_eq!(mailbox.offer(3), Err(Full(3)));
        mailbox.complete(4);
        let mut taken = Vec::new();
        mailbox.take(&mut taken);
        assert_eq!(taken, [1, 2, 4]);
        assert_eq!(mailbox.offer(5), Ok(()));
    }
}
