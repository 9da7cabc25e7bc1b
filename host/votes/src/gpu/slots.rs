//! Which keys have their table on the card.
//!
//! Relies on nothing. Promises that a key keeps its place while a batch uses it, that the key unused for
//! longest gives way, and that a batch which does not fit takes no place. Knows no table.

use std::collections::HashMap;

/// The bytes of a public key.
pub type Key = [u8; 32];

/// The places of the tables, and who holds them.
#[derive(Debug)]
pub struct Slots {
    /// Looked up for every vote and never iterated.
    by_key: HashMap<Key, u32>,
    places: Vec<Place>,
    /// Counts claims, so that ages compare.
    now: u64,
}

#[derive(Clone, Debug, Default)]
struct Place {
    key: Option<Key>,
    used_at: u64,
    /// Batches under way that use the table.
    users: u32,
}

/// The places of a batch's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Each vote's place, in order.
    pub places: Vec<u32>,
    /// The keys whose table must be built first, in the order of their first vote.
    pub new: Vec<(Key, u32)>,
    /// Each claimed place once.
    held: Vec<u32>,
}

impl Slots {
    /// `count` free places.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self { by_key: HashMap::new(), places: vec![Place::default(); count], now: 0 }
    }

    /// Finds or makes places for the keys of a batch; `None` if there are more than can be had now.
    pub fn claim(&mut self, keys: impl Iterator<Item = Key> + Clone) -> Option<Claim> {
        self.now += 1;
        let mut claim = Claim { places: Vec::new(), new: Vec::new(), held: Vec::new() };
        let mut missing = Vec::new();
        for key in keys.clone() {
            match self.by_key.get(&key) {
                Some(place) => self.hold(*place, &mut claim),
                None if missing.last() != Some(&key) => missing.push(key),
                None => {}
            }
        }
        for (key, place) in missing.iter().zip(self.free(missing.len())) {
            // A key that is missing twice was given a place the first time.
            if !self.by_key.contains_key(key) {
                self.give(*key, place);
                self.hold(place, &mut claim);
                claim.new.push((*key, place));
            }
        }
        if missing.iter().any(|key| !self.by_key.contains_key(key)) {
            self.forget(&claim);
            self.release(&claim);
            return None;
        }
        claim.places = keys.map(|key| self.by_key.get(&key).copied().unwrap_or_default()).collect();
        Some(claim)
    }

    /// The batch has ended.
    pub fn release(&mut self, claim: &Claim) {
        for place in &claim.held {
            let slot = &mut self.places[*place as usize];
            slot.users = slot.users.saturating_sub(1);
        }
    }

    /// The tables of these keys were not built.
    pub fn forget(&mut self, claim: &Claim) {
        for (key, place) in &claim.new {
            self.by_key.remove(key);
            self.places[*place as usize].key = None;
        }
    }

    /// Up to `count` places that no batch uses, the longest unused first.
    fn free(&self, count: usize) -> Vec<u32> {
        if count == 0 {
            return Vec::new();
        }
        let is_free = |place: &u32| self.places[*place as usize].users == 0;
        let mut free: Vec<u32> = (0..self.places.len() as u32).filter(is_free).collect();
        free.sort_by_key(|place| self.places[*place as usize].used_at);
        free.truncate(count);
        free
    }

    fn hold(&mut self, place: u32, claim: &mut Claim) {
        let slot = &mut self.places[place as usize];
        if slot.used_at != self.now {
            slot.used_at = self.now;
            slot.users += 1;
            claim.held.push(place);
        }
    }

    fn give(&mut self, key: Key, place: u32) {
        let slot = &mut self.places[place as usize];
        if let Some(old) = slot.key.replace(key) {
            self.by_key.remove(&old);
        }
        self.by_key.insert(key, place);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn keys(of: &[u8]) -> impl Iterator<Item = Key> + Clone {
        of.iter().copied().map(|byte| [byte; 32])
    }

    /// Claims for a batch that ends at once; the keys that were new.
    fn run(slots: &mut Slots, of: &[u8]) -> Vec<u8> {
        let claim = slots.claim(keys(of)).unwrap();
        slots.release(&claim);
        claim.new.iter().map(|(key, _)| key[0]).collect()
    }

    #[test]
    fn the_key_unused_for_longest_gives_way() {
        let mut slots = Slots::new(3);
        assert_eq!(run(&mut slots, &[1, 2, 1]), [1, 2]);
        assert_eq!(run(&mut slots, &[3]), [3]);
        assert_eq!(run(&mut slots, &[1]), [] as [u8; 0]);
        assert_eq!(run(&mut slots, &[4]), [4]);
        assert_eq!(run(&mut slots, &[1, 3]), [] as [u8; 0], "2 gave way");
        assert_eq!(run(&mut slots, &[2]), [2]);
    }

    /// A table that is overwritten while a batch reads it would give wrong verdicts.
    #[test]
    fn a_table_in_use_is_never_given_away() {
        let mut slots = Slots::new(2);
        let under_way = slots.claim(keys(&[1])).unwrap();
        assert_eq!(run(&mut slots, &[2]), [2]);
        assert_eq!(run(&mut slots, &[3]), [3]);
        assert_eq!(slots.claim(keys(&[4, 5])), None);
        assert_eq!(slots.claim(keys(&[1, 3, 4, 5])), None);
        assert_eq!(run(&mut slots, &[1]), [] as [u8; 0], "it is still there");
        slots.release(&under_way);
        assert_eq!(run(&mut slots, &[4, 5]), [4, 5]);
        let claim = slots.claim(keys(&[4, 5, 5, 4])).unwrap();
        assert_eq!(claim.places[0], claim.places[3]);
        assert_eq!(claim.places[1], claim.places[2]);
        assert_ne!(claim.places[0], claim.places[1]);
        slots.release(&claim);
    }

    #[test]
    fn a_key_whose_table_failed_is_built_again() {
        let mut slots = Slots::new(2);
        let claim = slots.claim(keys(&[1])).unwrap();
        slots.forget(&claim);
        slots.release(&claim);
        assert_eq!(run(&mut slots, &[1]), [1]);
    }
}
