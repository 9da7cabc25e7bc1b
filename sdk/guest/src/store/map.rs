//! An ordered map that lives in the group's state.
//!
//! Relies on the store. Promises the order of [`Key`]. Knows no command.

use std::marker::PhantomData;
use std::ops::{Bound, RangeBounds};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::key::{AsKey, Key, write_open_string};
use super::layer::StateKey;
use super::scan::Scan;
use super::{Read, Store, Write, check_name, decode_stored, prefix_of};
use crate::host::Direction;

/// Room for the key's own bytes that usually suffices.
const KEY_BYTES_USUAL: usize = 48;

/// An ordered map in the group's state. It holds nothing itself: make it a constant.
///
/// ```
/// use quorate_sdk::prelude::*;
///
/// const BALANCES: Map<String, u64> = Map::new("balances");
/// const GRANTS: Map<(String, u64), bool> = Map::new("grants");
///
/// fn give(ctx: &mut Context, name: &str) {
///     let balance = BALANCES.get(ctx, name).unwrap_or(0);
///     BALANCES.insert(ctx, name, &(balance + 5));
///     GRANTS.insert(ctx, &(name, 7u64), &true);
/// }
/// ```
///
/// Reading panics when a stored value does not read, which happens when a stored type changed without
/// a migration; the command is then refused on every replica. A key or value that is too long for the
/// host refuses the command when it ends, whatever it returns.
pub struct Map<K, V> {
    name: &'static str,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K: Key, V: Serialize + DeserializeOwned> Map<K, V> {
    /// A map of this name. Names are unique within a component and part of its layout; 1 to 64 bytes
    /// without a zero.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        check_name(name);
        Self { name, types: PhantomData }
    }

    fn key<Q: AsKey<K> + ?Sized>(&self, key: &Q) -> StateKey {
        let mut bytes = prefix_of(self.name, KEY_BYTES_USUAL);
        key.write_key(&mut bytes);
        StateKey(bytes)
    }

    /// The first bytes of all keys of this map.
    fn start(&self) -> StateKey {
        StateKey(prefix_of(self.name, 0))
    }

    /// The first bytes after all keys of this map.
    fn end(&self) -> StateKey {
        after_all(self.start())
    }

    /// The value of a key.
    pub fn get<Q: AsKey<K> + ?Sized>(&self, from: &impl Read, key: &Q) -> Option<V> {
        from.store().get(&self.key(key)).map(|bytes| decode_stored(self.name, &bytes))
    }

    /// Whether the key is there.
    pub fn contains<Q: AsKey<K> + ?Sized>(&self, from: &impl Read, key: &Q) -> bool {
        from.store().get(&self.key(key)).is_some()
    }

    /// Sets a key.
    pub fn insert<Q: AsKey<K> + ?Sized>(&self, to: &mut impl Write, key: &Q, value: &V) {
        let key = self.key(key);
        to.store_mut().put(key, value);
    }

    /// Removes a key, if it is there.
    pub fn remove<Q: AsKey<K> + ?Sized>(&self, to: &mut impl Write, key: &Q) {
        let key = self.key(key);
        to.store_mut().delete(key);
    }

    /// Removes a key and returns what it had.
    pub fn take<Q: AsKey<K> + ?Sized>(&self, to: &mut impl Write, key: &Q) -> Option<V> {
        let value = self.get(to, key);
        if value.is_some() {
            self.remove(to, key);
        }
        value
    }

    /// Removes every key. Costs as much as reading them all.
    pub fn clear(&self, to: &mut impl Write) {
        let keys: Vec<StateKey> = self.scan(to.store()).map(|(key, _)| StateKey(key.into_owned())).collect();
        for key in keys {
            to.store_mut().delete(key);
        }
    }

    /// Whether there is no key.
    pub fn is_empty(&self, from: &impl Read) -> bool {
        self.scan(from.store()).next().is_none()
    }

    fn scan<'a>(&self, store: &'a Store) -> Scan<'a> {
        Scan::new(store, &self.start(), Some(&self.end()), Direction::Ascending)
    }

    fn iterate<'a>(&self, store: &'a Store, start: StateKey, end: StateKey) -> Iter<'a, K, V> {
        // A bound longer than a key can be is noted; the command or query is refused.
        store.takes_key(&start);
        store.takes_key(&end);
        Iter {
            name: self.name,
            store,
            start,
            end,
            direction: Direction::Ascending,
            scan: None,
            types: PhantomData,
        }
    }

    /// All pairs in the order of their keys. Take as many as you need: they are read in small pages.
    pub fn iter<'a>(&self, from: &'a impl Read) -> Iter<'a, K, V> {
        self.iterate(from.store(), self.start(), self.end())
    }

    /// The pairs within bounds, such as `10..20`, `"a"..` or `(Bound::Excluded("a"), Bound::Unbounded)`.
    pub fn range<'a, Q: AsKey<K>>(&self, from: &'a impl Read, range: impl RangeBounds<Q>) -> Iter<'a, K, V> {
        let start = match range.start_bound() {
            Bound::Unbounded => self.start(),
            Bound::Included(key) => self.key(key),
            Bound::Excluded(key) => self.just_after(key),
        };
        let end = match range.end_bound() {
            Bound::Unbounded => self.end(),
            Bound::Included(key) => self.just_after(key),
            Bound::Excluded(key) => self.key(key),
        };
        self.iterate(from.store(), start, end)
    }

    /// The pairs after a key, which need not be there: the next page of a listing.
    pub fn after<'a, Q: AsKey<K> + ?Sized>(&self, from: &'a impl Read, key: &Q) -> Iter<'a, K, V> {
        self.range::<&Q>(from, (Bound::Excluded(&key), Bound::Unbounded))
    }

    /// The bytes right after a key's own. No key begins another, so only this one lies below.
    fn just_after<Q: AsKey<K> + ?Sized>(&self, key: &Q) -> StateKey {
        let mut key = self.key(key);
        key.0.push(0);
        key
    }
}

/// The first bytes after all that start with these, which are not all 0xff.
fn after_all(mut start: StateKey) -> StateKey {
    while start.0.last() == Some(&0xff) {
        start.0.pop();
    }
    if let Some(last) = start.0.last_mut() {
        *last += 1;
    }
    start
}

impl<V: Serialize + DeserializeOwned> Map<String, V> {
    /// The pairs whose keys start with a text.
    pub fn starting_with<'a>(&self, from: &'a impl Read, start: &str) -> Iter<'a, String, V> {
        let mut bytes = prefix_of(self.name, start.len());
        write_open_string(start.as_bytes(), &mut bytes);
        let start = StateKey(bytes);
        self.iterate(from.store(), start.clone(), after_all(start))
    }
}

impl<A: Key, B: Key, V: Serialize + DeserializeOwned> Map<(A, B), V> {
    /// The pairs whose keys have this first part.
    pub fn under<'a, Q: AsKey<A> + ?Sized>(&self, from: &'a impl Read, first: &Q) -> Iter<'a, (A, B), V> {
        let mut bytes = prefix_of(self.name, KEY_BYTES_USUAL);
        first.write_key(&mut bytes);
        let start = StateKey(bytes);
        self.iterate(from.store(), start.clone(), after_all(start))
    }
}

/// Pairs of a map in order.
pub struct Iter<'a, K, V> {
    name: &'static str,
    store: &'a Store,
    start: StateKey,
    end: StateKey,
    direction: Direction,
    /// Opened by the first step, so that an iterator that is only made costs nothing.
    scan: Option<Scan<'a>>,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K, V> Iter<'_, K, V> {
    /// From the last key to the first. Has no effect once the first pair was taken.
    #[must_use]
    pub fn descending(mut self) -> Self {
        self.direction = Direction::Descending;
        self
    }
}

impl<K: Key, V: DeserializeOwned> Iterator for Iter<'_, K, V> {
    type Item = (K, V);

    fn next(&mut self) -> Option<(K, V)> {
        let scan = self
            .scan
            .get_or_insert_with(|| Scan::new(self.store, &self.start, Some(&self.end), self.direction));
        let (key, value) = scan.next()?;
        let mut encoded = &key[self.name.len() + 1..];
        let Some(key) = K::read_key(&mut encoded).filter(|_| encoded.is_empty()) else {
            panic!(
                "a key of `{}` does not read; raise SCHEMA_VERSION and write `migrate` when its type changes",
                self.name
            )
        };
        Some((key, decode_stored(self.name, &value)))
    }
}
