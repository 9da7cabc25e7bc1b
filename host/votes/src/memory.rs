//! Which certificates were verified before.
//!
//! Relies on digests that name every byte of a certificate. Promises to remember the last so many accepted
//! ones and no rejected one, so that nobody can push good ones out with bad ones. Knows no certificate.

use std::collections::{BTreeSet, VecDeque};

use quorate_types::Digest;

/// The accepted certificates that are remembered, the oldest forgotten first.
#[derive(Debug)]
pub struct Memory {
    known: BTreeSet<Digest>,
    by_age: VecDeque<Digest>,
    max: usize,
}

impl Memory {
    /// Remembers nothing yet, and never more than `max`.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { known: BTreeSet::new(), by_age: VecDeque::new(), max }
    }

    /// Whether this certificate was accepted.
    #[must_use]
    pub fn holds(&self, digest: &Digest) -> bool {
        self.known.contains(digest)
    }

    /// Remembers an accepted certificate.
    pub fn insert(&mut self, digest: Digest) {
        if self.max == 0 || !self.known.insert(digest) {
            return;
        }
        self.by_age.push_back(digest);
        if self.by_age.len() > self.max
            && let Some(oldest) = self.by_age.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_first_and_the_bound_holds() {
        let mut memory = Memory::new(2);
        let digest = |byte| Digest([byte; 32]);
        for byte in [1, 2, 2, 3] {
            memory.insert(digest(byte));
        }
        assert!(!memory.holds(&digest(1)) && memory.holds(&digest(2)) && memory.holds(&digest(3)));
        let mut none = Memory::new(0);
        none.insert(digest(1));
        assert!(!none.holds(&digest(1)));
    }
}
