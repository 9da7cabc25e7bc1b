//! Which keys have their table on the card.
//!
//! Relies on nothing. Promises that a key keeps its place while a batch uses it, that the key unused for
//! longest gives way, and that a batch which does not fit changes nothing. Knows no table.

use std::collections::BTreeMap;

/// The bytes of a public key.
pub type Key = [u8; 32];

/// The places of the tables, and who holds them.
#[derive(Debug)]
pub struct Slots {
    by_key: BTreeMap<Key, u32>,
    places: Vec<Place>,
    /// Counts batches, so that ages compare.
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
    /// One place for each distinct key.
    pub places: BTreeMap<Key, u32>,
    /// The keys whose table must be built first.
    pub new: Vec<(Key, u32)>,
}

impl Slots {
    /// `count` free places.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self { by_key: BTreeMap::new(), places: vec![Place::default(); count], now: 0 }
    }

    /// Finds or makes places for the keys of a batch; `None` if there are more than can be had now.
    pub fn claim(&mut self, keys: impl Iterator<Item = Key>) -> Option<Claim> {
        let mut places: BTreeMap<Key, Option<u32>> = BTreeMap::new();
        for key in keys {
            places.entry(key).or_insert_with(|| self.by_key.get(&key).copied());
        }
        let missing = places.values().filter(|place| place.is_none()).count();
        let kept: Vec<u32> = places.values().flatten().copied().collect();
        let mut free: Vec<u32> = (0..self.places.len() as u32)
            .filter(|place| self.places[*place as usize].users == 0 && !kept.contains(place))
            .collect();
        if free.len() < missing {
            return None;
        }
        self.now += 1;
        // The longest unused last, where it is taken from.
        free.sort_by_key(|place| std::cmp::Reverse(self.places[*place as usize].used_at));
        let mut claim = Claim { places: BTreeMap::new(), new: Vec::new() };
        for (key, place) in places {
            let place = match place {
                Some(place) => place,
                None => {
                    let place = free.pop().expect("as many free places as missing keys were counted");
                    claim.new.push((key, place));
                    self.give(key, place);
                    place
                }
            };
            let slot = &mut self.places[place as usize];
            slot.users += 1;
            slot.used_at = self.now;
            claim.places.insert(key, place);
        }
        Some(claim)
    }

    /// The batch has ended.
    pub fn release(&mut self, claim: &Claim) {
        for place in claim.places.values() {
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

    fn keys(of: &[u8]) -> impl Iterator<Item = Key> {
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
        assert_eq!(run(&mut slots, &[1, 3]), [] as [u8; 0], "the refused claim changed nothing");
        slots.release(&under_way);
        assert_eq!(run(&mut slots, &[4, 5]), [4, 5]);
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
