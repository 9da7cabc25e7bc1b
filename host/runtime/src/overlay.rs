//! The writes of an entry above the state it started from, and cursors over both.
//!
//! Relies on persistent trees on both sides, so that a cursor keeps what it saw at no cost. Promises that
//! reads see the writes and that dropping the overlay undoes them. Knows no limits: callers count.

use std::iter::Peekable;
use std::ops::Bound;

use bytes::Bytes;
use imbl::OrdMap;

use crate::key::Key;
use crate::state::{Map, Space, State, in_bounds};

/// The most pairs one step of a cursor returns.
const STEP_PAIRS_MAX: u32 = 4_096;
/// The most bytes of keys and values one step of a cursor returns, unless its first pair alone has more.
const STEP_BYTES_MAX: u32 = 1 << 20;

/// What the writes left: the value of a key, or `None` where it was removed.
pub(crate) type Writes = OrdMap<Key, Option<Bytes>>;

/// A component's view of its state within one entry.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overlay {
    base: Map,
    writes: Writes,
}

impl Overlay {
    pub(crate) fn new(base: Map, writes: Writes) -> Self {
        Self { base, writes }
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&Bytes> {
        match self.writes.get(key) {
            Some(written) => written.as_ref(),
            None => self.base.get(key),
        }
    }

    pub(crate) fn put(&mut self, key: Key, value: Bytes) {
        self.writes.insert(key, Some(value));
    }

    pub(crate) fn delete(&mut self, key: Key) {
        self.writes.insert(key, None);
    }

    /// The keys that are there from `start`, included, to `end`, excluded, or to the last.
    pub(crate) fn keys(&self, start: &[u8], end: Option<&[u8]>) -> impl Iterator<Item = &Key> {
        let start = Bound::Included(start);
        let end = end.map_or(Bound::Unbounded, Bound::Excluded);
        let merged = Merged::forward(in_bounds(&self.base, start, end), in_bounds(&self.writes, start, end));
        merged.filter_map(|(key, value)| value.map(|_| key))
    }

    /// A cursor that goes on seeing what is there now.
    pub(crate) fn scan(&self, range: Range) -> Cursor {
        Cursor { seen: self.clone(), range, at_end: false }
    }

    /// The writes, to be kept.
    pub(crate) fn into_writes(self) -> Writes {
        self.writes
    }
}

/// Makes an entry's writes part of the state.
pub(crate) fn merge(state: &mut State, writes: Writes) {
    for (key, written) in writes {
        match written {
            Some(value) => state.put_key(Space::User, key, value),
            None => state.delete(Space::User, key.as_slice()),
        }
    }
}

/// What a cursor has yet to return.
#[derive(Clone, Debug)]
pub(crate) struct Range {
    pub(crate) start: Bound<Key>,
    pub(crate) end: Bound<Key>,
    pub(crate) direction: Direction,
}

/// Which way a cursor goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Forward,
    Reverse,
}

/// A position in a range of a state that does not change under it.
#[derive(Debug)]
pub(crate) struct Cursor {
    seen: Overlay,
    range: Range,
    at_end: bool,
}

/// What one step of a cursor found.
#[derive(Debug, Default)]
pub(crate) struct Step {
    pub(crate) pairs: Vec<(Bytes, Bytes)>,
    /// Bytes of the keys and values.
    pub(crate) bytes: usize,
    /// Places looked at, those of removed keys included.
    pub(crate) visited: usize,
}

impl Cursor {
    /// The next pairs. Asked for none it returns one, since an empty step is the end.
    pub(crate) fn step(&mut self, pairs_max: u32, bytes_max: u32) -> Step {
        if self.at_end {
            return Step::default();
        }
        let (start, end) = (as_slice(&self.range.start), as_slice(&self.range.end));
        let base = in_bounds(&self.seen.base, start, end);
        let writes = in_bounds(&self.seen.writes, start, end);
        let step = match self.range.direction {
            Direction::Forward => collect(Merged::forward(base, writes), pairs_max, bytes_max),
            Direction::Reverse => collect(Merged::reverse(base.rev(), writes.rev()), pairs_max, bytes_max),
        };
        match (step.pairs.last(), self.range.direction) {
            (Some((last, _)), Direction::Forward) => self.range.start = Bound::Excluded(Key::new(last)),
            (Some((last, _)), Direction::Reverse) => self.range.end = Bound::Excluded(Key::new(last)),
            (None, _) => self.at_end = true,
        }
        step
    }
}

fn as_slice(bound: &Bound<Key>) -> Bound<&[u8]> {
    bound.as_ref().map(Key::as_slice)
}

fn collect<'a>(
    merged: impl Iterator<Item = (&'a Key, Option<&'a Bytes>)>,
    pairs_max: u32,
    bytes_max: u32,
) -> Step {
    let pairs_max = pairs_max.clamp(1, STEP_PAIRS_MAX) as usize;
    let bytes_max = bytes_max.min(STEP_BYTES_MAX) as usize;
    let mut step = Step::default();
    for (key, value) in merged {
        step.visited += 1;
        let Some(value) = value else { continue };
        let bytes = step.bytes + key.len() + value.len();
        if !step.pairs.is_empty() && bytes > bytes_max {
            break;
        }
        step.bytes = bytes;
        step.pairs.push((key.to_bytes(), value.clone()));
        if step.pairs.len() == pairs_max {
            break;
        }
    }
    step
}

/// Two ordered sequences as one; where both have a key, the writes speak. `None` is a removed key.
struct Merged<B: Iterator, W: Iterator> {
    base: Peekable<B>,
    writes: Peekable<W>,
    direction: Direction,
}

impl<'a, B, W> Merged<B, W>
where
    B: Iterator<Item = (&'a Key, &'a Bytes)>,
    W: Iterator<Item = (&'a Key, &'a Option<Bytes>)>,
{
    fn forward(base: B, writes: W) -> Self {
        Self { base: base.peekable(), writes: writes.peekable(), direction: Direction::Forward }
    }

    fn reverse(base: B, writes: W) -> Self {
        Self { base: base.peekable(), writes: writes.peekable(), direction: Direction::Reverse }
    }
}

impl<'a, B, W> Iterator for Merged<B, W>
where
    B: Iterator<Item = (&'a Key, &'a Bytes)>,
    W: Iterator<Item = (&'a Key, &'a Option<Bytes>)>,
{
    type Item = (&'a Key, Option<&'a Bytes>);

    fn next(&mut self) -> Option<Self::Item> {
        use std::cmp::Ordering;

        let order = match (self.base.peek(), self.writes.peek()) {
            (None, None) => return None,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((base, _)), Some((write, _))) => match self.direction {
                Direction::Forward => base.cmp(write),
                Direction::Reverse => write.cmp(base),
            },
        };
        if order == Ordering::Less {
            return self.base.next().map(|(key, value)| (key, Some(value)));
        }
        if order == Ordering::Equal {
            self.base.next();
        }
        self.writes.next().map(|(key, written)| (key, written.as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn key() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(0u8..4, 0..3)
    }

    fn collected(cursor: &mut Cursor, pairs_max: u32, bytes_max: u32) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut all = Vec::new();
        loop {
            let step = cursor.step(pairs_max, bytes_max);
            assert_eq!(
                step.bytes,
                step.pairs.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>()
            );
            assert!(step.pairs.len() == 1 || step.bytes <= bytes_max as usize, "a step keeps to its bytes");
            if step.pairs.is_empty() {
                return all;
            }
            all.extend(step.pairs.into_iter().map(|(key, value)| (key.to_vec(), value.to_vec())));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_cursor_walks_base_and_writes_as_one(
            base in prop::collection::btree_map(key(), 0u8..9, 0..30),
            writes in prop::collection::vec((key(), prop::option::of(0u8..9)), 0..30),
            start in key(),
            end in prop::option::of(key()),
            reverse in any::<bool>(),
            pairs_max in 0u32..6,
            bytes_max in 0u32..20,
        ) {
            let bytes = |value: u8| Bytes::from(vec![value; value as usize]);
            let map = base.iter().map(|(key, value)| (Key::new(key), bytes(*value))).collect();
            let mut overlay = Overlay::new(map, Writes::default());
            let mut model: BTreeMap<_, _> =
                base.into_iter().map(|(key, value)| (key, bytes(value).to_vec())).collect();
            for (key, value) in writes {
                match value {
                    Some(value) => {
                        overlay.put(Key::new(&key), bytes(value));
                        model.insert(key, bytes(value).to_vec());
                    }
                    None => {
                        overlay.delete(Key::new(&key));
                        model.remove(&key);
                    }
                }
            }
            let direction = if reverse { Direction::Reverse } else { Direction::Forward };
            let range = Range {
                start: Bound::Included(Key::new(&start)),
                end: end.as_deref().map_or(Bound::Unbounded, |end| Bound::Excluded(Key::new(end))),
                direction,
            };
            let mut cursor = overlay.scan(range);
            overlay.put(Key::new(&[1]), Bytes::from_static(b"after the scan"));
            let inside = |key: &Vec<u8>| *key >= start && end.as_ref().is_none_or(|end| key < end);
            let mut expected: Vec<_> = model.into_iter().filter(|(key, _)| inside(key)).collect();
            if reverse {
                expected.reverse();
            }
            prop_assert_eq!(collected(&mut cursor, pairs_max, bytes_max), expected);
        }
    }
}
