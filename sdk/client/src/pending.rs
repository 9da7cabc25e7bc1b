//! What was sent on a link and waits for its reply.
//!
//! Relies on nothing. Promises that a tag finds what it was given for at most once, so that late,
//! repeated and invented replies find nothing. Knows no frame.
//!
//! ```text
//! tag:  63          32 31           0
//!       +-------------+-------------+
//!       | generation  | slot        |     the generation changes whenever the slot is emptied
//!       +-------------+-------------+
//! ```

/// Values by tag.
#[derive(Debug)]
pub(crate) struct Pending<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Default for Pending<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }
}

impl<T> Pending<T> {
    /// How many values wait.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Keeps a value and gives its tag.
    pub(crate) fn insert(&mut self, value: T) -> u64 {
        let at = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, value: None });
            u32::try_from(self.slots.len() - 1).expect("what waits is bounded below 2^32")
        });
        let slot = &mut self.slots[at as usize];
        slot.value = Some(value);
        (u64::from(slot.generation) << 32) | u64::from(at)
    }

    /// Takes the value of a tag, if it still waits.
    pub(crate) fn take(&mut self, tag: u64) -> Option<T> {
        let at = tag as u32;
        let slot = self.slots.get_mut(at as usize)?;
        if u64::from(slot.generation) != tag >> 32 {
            return None;
        }
        let value = slot.value.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(at);
        Some(value)
    }

    /// Takes all values.
    pub(crate) fn drain(&mut self) -> Vec<T> {
        self.free.clear();
        std::mem::take(&mut self.slots).into_iter().filter_map(|slot| slot.value).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_finds_its_value_once() {
        let mut pending = Pending::default();
        let one = pending.insert("one");
        let two = pending.insert("two");
        assert_eq!(pending.take(two), Some("two"));
        assert_eq!(pending.take(two), None);
        assert_eq!(pending.len(), 1);
        assert_eq!(pending.take(one), Some("one"));
        assert_eq!(pending.len(), 0);
    }

    #[test]
    fn a_late_reply_does_not_find_what_took_the_slot_since() {
        let mut pending = Pending::default();
        let old = pending.insert("old");
        assert_eq!(pending.take(old), Some("old"));
        let new = pending.insert("new");
        assert_ne!(old, new);
        assert_eq!(pending.take(old), None);
        assert_eq!(pending.take(new), Some("new"));
    }

    #[test]
    fn invented_tags_find_nothing() {
        let mut pending = Pending::default();
        let tag = pending.insert(1);
        for invented in [tag + 1, u64::MAX, tag | (1 << 32)] {
            assert_eq!(pending.take(invented), None);
        }
        assert_eq!(pending.drain(), [1]);
        assert_eq!(pending.len(), 0);
    }
}
