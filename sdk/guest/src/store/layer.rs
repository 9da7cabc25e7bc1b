//! Written keys in order.
//!
//! Relies on nothing. Promises the order of bytes. Knows no host.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Bound;

/// A key's bytes. Compared eight at a time: keys of one map begin alike, and WebAssembly compares memory
/// byte by byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StateKey(pub(super) Vec<u8>);

impl Ord for StateKey {
    fn cmp(&self, other: &Self) -> Ordering {
        let (left, right) = (self.0.as_chunks::<8>(), other.0.as_chunks::<8>());
        for (one, two) in left.0.iter().zip(right.0) {
            if u64::from_ne_bytes(*one) != u64::from_ne_bytes(*two) {
                return u64::from_be_bytes(*one).cmp(&u64::from_be_bytes(*two));
            }
        }
        // Keys of one length, which are the rule, end with eight bytes that are compared at once too.
        if let (Some(one), Some(two)) = (self.0.last_chunk::<8>(), other.0.last_chunk::<8>())
            && self.0.len() == other.0.len()
        {
            return u64::from_be_bytes(*one).cmp(&u64::from_be_bytes(*two));
        }
        let alike = 8 * left.0.len().min(right.0.len());
        self.0[alike..].cmp(&other.0[alike..])
    }
}

impl PartialOrd for StateKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// What a key becomes; `None` removes it.
pub(super) type Written = Option<Vec<u8>>;

/// Writes that a list holds before a tree takes over. Most commands write less, and a list that is
/// emptied keeps its memory.
const LISTED_MAX: usize = 32;

/// Keys with what they become.
///
/// Invariant: `listed` is sorted, and empty once `tree` is not.
#[derive(Debug, Default)]
pub(super) struct Layer {
    listed: Vec<(StateKey, Written)>,
    tree: BTreeMap<StateKey, Written>,
}

impl Layer {
    pub(super) fn is_empty(&self) -> bool {
        self.listed.is_empty() && self.tree.is_empty()
    }

    fn place(&self, key: &StateKey) -> Result<usize, usize> {
        self.listed.binary_search_by(|(listed, _)| listed.cmp(key))
    }

    pub(super) fn get(&self, key: &StateKey) -> Option<&Written> {
        if self.tree.is_empty() {
            return self.place(key).ok().map(|place| &self.listed[place].1);
        }
        self.tree.get(key)
    }

    pub(super) fn insert(&mut self, key: StateKey, written: Written) {
        if self.tree.is_empty() {
            match self.place(&key) {
                Ok(place) => {
                    self.listed[place].1 = written;
                    return;
                }
                Err(place) if self.listed.len() < LISTED_MAX => {
                    self.listed.insert(place, (key, written));
                    return;
                }
                Err(_) => self.tree.extend(self.listed.drain(..)),
            }
        }
        self.tree.insert(key, written);
    }

    pub(super) fn clear(&mut self) {
        self.listed.clear();
        self.tree.clear();
    }

    /// Empties the layer, in the order of the keys.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = (StateKey, Written)> {
        self.listed.drain(..).chain(std::mem::take(&mut self.tree))
    }

    /// Keys from `start` to `end`, excluded. The range must not end before it starts.
    pub(super) fn range<'a>(
        &'a self,
        start: &StateKey,
        end: Option<&StateKey>,
    ) -> impl DoubleEndedIterator<Item = (&'a StateKey, &'a Written)> + use<'a> {
        let from = self.listed.partition_point(|(key, _)| key < start);
        let to = end.map_or(self.listed.len(), |end| self.listed.partition_point(|(key, _)| key < end));
        let listed = self.listed[from..to].iter().map(|(key, written)| (key, written));
        let bounds = (Bound::Included(start), end.map_or(Bound::Unbounded, Bound::Excluded));
        listed.chain(self.tree.range(bounds))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys() -> impl Strategy<Value = StateKey> {
        proptest::collection::vec(prop_oneof![Just(0u8), Just(0xff), any::<u8>()], 0..20).prop_map(StateKey)
    }

    proptest! {
        #[test]
        fn keys_compare_as_their_bytes_do(a in keys(), b in keys(), cut in 0usize..20) {
            prop_assert_eq!(a.cmp(&b), a.0.cmp(&b.0));
            let start = StateKey(a.0[..cut.min(a.0.len())].to_vec());
            prop_assert_eq!(start.cmp(&a), start.0.cmp(&a.0));
        }

        #[test]
        fn a_layer_is_an_ordered_map_at_any_size(
            writes in proptest::collection::vec((keys(), any::<Option<u8>>()), 0..3 * LISTED_MAX),
            start in keys(),
            end in proptest::option::of(keys()),
        ) {
            let (mut layer, mut model) = (Layer::default(), BTreeMap::new());
            for (key, value) in writes {
                let written = value.map(|value| vec![value]);
                layer.insert(key.clone(), written.clone());
                model.insert(key, written);
                prop_assert!(layer.listed.is_empty() || layer.tree.is_empty());
            }
            for (key, written) in &model {
                prop_assert_eq!(layer.get(key), Some(written));
            }
            if end.as_ref().is_none_or(|end| start <= *end) {
                let inside = |key: &StateKey| *key >= start && end.as_ref().is_none_or(|end| key < end);
                let expected: Vec<_> = model.iter().filter(|(key, _)| inside(key)).collect();
                prop_assert_eq!(layer.range(&start, end.as_ref()).collect::<Vec<_>>(), expected.clone());
                let backwards: Vec<_> = expected.into_iter().rev().collect();
                prop_assert_eq!(layer.range(&start, end.as_ref()).rev().collect::<Vec<_>>(), backwards);
            }
            prop_assert_eq!(layer.is_empty(), model.is_empty());
            prop_assert_eq!(layer.drain().collect::<Vec<_>>(), model.into_iter().collect::<Vec<_>>());
            prop_assert!(layer.is_empty());
        }
    }
}
