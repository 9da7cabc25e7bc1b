//! Timers that components set: replicated state, fired by the stamps of entries.
//!
//! Relies on the entries' stamps for time. Promises that due timers fire in order of (due, identity)
//! before the commands of the entry that makes them due, a bounded number in each entry, the same on
//! every replica. Knows no clock: an idle leader proposes a tick when a timer is overdue.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_runtime::{Space, State, TimerChange};
use quorate_types::HlcTimestamp;
use quorate_types::codec::{DecodeError, Reader, Writer};

/// The most timers that one entry fires; the rest fire with the next entries.
pub const TIMERS_PER_ENTRY_MAX: usize = 256;
/// The greatest body of a timer, in bytes; the runtime refuses larger ones.
const TIMER_BODY_BYTES_MAX: usize = 1 << 20;
const KEY_PREFIX: u8 = b't';

/// The timers of one group.
#[derive(Debug, Default)]
pub struct Timers {
    due: BTreeMap<(HlcTimestamp, String), Bytes>,
    by_id: BTreeMap<String, HlcTimestamp>,
    /// Identities whose stored form is out of date.
    dirty: BTreeSet<String>,
}

impl Timers {
    /// Carries out what a component asked for.
    pub fn change(&mut self, change: TimerChange) {
        match change {
            TimerChange::Set { id, due, body } => {
                self.remove(&id);
                self.by_id.insert(id.clone(), due);
                self.dirty.insert(id.clone());
                self.due.insert((due, id), body);
            }
            TimerChange::Cancel { id } => self.remove(&id),
        }
    }

    /// Takes the timers that an entry with this stamp fires.
    pub fn take_due(&mut self, stamp: HlcTimestamp) -> Vec<(String, Bytes)> {
        let mut fired = Vec::new();
        while fired.len() < TIMERS_PER_ENTRY_MAX
            && let Some(first) = self.due.first_entry()
            && first.key().0 <= stamp
        {
            let ((_, id), body) = first.remove_entry();
            self.by_id.remove(&id);
            self.dirty.insert(id.clone());
            fired.push((id, body));
        }
        fired
    }

    /// When the next timer is due.
    #[must_use]
    pub fn next_due(&self) -> Option<HlcTimestamp> {
        self.due.keys().next().map(|(due, _)| *due)
    }

    /// Writes what changed since the last call into the host space of the state.
    pub fn store(&mut self, state: &mut State) {
        for id in std::mem::take(&mut self.dirty) {
            match self.by_id.get(&id) {
                Some(due) => {
                    let body = &self.due[&(*due, id.clone())];
                    let mut value = Writer::with_capacity(8 + body.len());
                    value.u64(due.0);
                    value.raw(body);
                    state.put(Space::Host, key(&id), value.finish());
                }
                None => state.delete(Space::Host, &key(&id)),
            }
        }
    }

    /// Reads the timers from the host space of a state.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] for a value that no version wrote.
    pub fn load(state: &State) -> Result<Self, DecodeError> {
        let mut timers = Self::default();
        for (key, value) in state.range(Space::Host, &[KEY_PREFIX], Some(&[KEY_PREFIX + 1])) {
            let Ok(id) = std::str::from_utf8(&key[1..]) else {
                return Err(DecodeError::Unknown { what: "timer identity", value: 0 });
            };
            let mut from = Reader::new(value.clone());
            let due = HlcTimestamp(from.u64("timer due")?);
            let left = from.left();
            if left > TIMER_BODY_BYTES_MAX {
                let bound = TIMER_BODY_BYTES_MAX as u64;
                return Err(DecodeError::TooLarge { what: "timer body", value: left as u64, bound });
            }
            timers.by_id.insert(id.to_owned(), due);
            timers.due.insert((due, id.to_owned()), from.rest());
        }
        Ok(timers)
    }

    fn remove(&mut self, id: &str) {
        if let Some(due) = self.by_id.remove(id) {
            self.due.remove(&(due, id.to_owned()));
            self.dirty.insert(id.to_owned());
        }
    }
}

fn key(id: &str) -> Bytes {
    let mut out = Writer::with_capacity(1 + id.len());
    out.u8(KEY_PREFIX);
    out.raw(id.as_bytes());
    out.finish()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn set(id: &str, due: u64) -> TimerChange {
        TimerChange::Set {
            id: id.into(),
            due: HlcTimestamp(due),
            body: Bytes::copy_from_slice(id.as_bytes()),
        }
    }

    fn fired(timers: &mut Timers, stamp: u64) -> Vec<String> {
        timers.take_due(HlcTimestamp(stamp)).into_iter().map(|(id, _)| id).collect()
    }

    #[test]
    fn due_timers_fire_once_in_order_and_others_wait() {
        let mut timers = Timers::default();
        ["c", "a", "b"].iter().zip([5, 5, 3]).for_each(|(id, due)| timers.change(set(id, due)));
        timers.change(set("later", 9));
        assert_eq!(fired(&mut timers, 5), ["b", "a", "c"]);
        assert!(fired(&mut timers, 5).is_empty());
        assert_eq!(timers.next_due(), Some(HlcTimestamp(9)));
    }

    #[test]
    fn setting_again_replaces_and_cancelling_removes() {
        let mut timers = Timers::default();
        timers.change(set("a", 5));
        timers.change(set("a", 8));
        timers.change(set("b", 5));
        timers.change(TimerChange::Cancel { id: "b".into() });
        assert!(fired(&mut timers, 7).is_empty());
        assert_eq!(fired(&mut timers, 8), ["a"]);
    }

    #[test]
    fn one_entry_fires_a_bounded_number() {
        let mut timers = Timers::default();
        (0..TIMERS_PER_ENTRY_MAX + 1).for_each(|n| timers.change(set(&format!("{n:04}"), 1)));
        assert_eq!(fired(&mut timers, 1).len(), TIMERS_PER_ENTRY_MAX);
        assert_eq!(fired(&mut timers, 1).len(), 1);
    }

    #[test]
    fn timers_survive_a_snapshot() {
        let mut timers = Timers::default();
        timers.change(set("kept", 5));
        timers.change(set("fired", 1));
        let mut state = State::new();
        timers.store(&mut state);
        assert_eq!(fired(&mut timers, 1), ["fired"]);
        timers.store(&mut state);
        let mut loaded = Timers::load(&state).unwrap();
        assert_eq!(fired(&mut loaded, 9), ["kept"]);
    }
}
