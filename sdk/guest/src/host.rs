//! What a component can ask of its host, so that a test can stand in for it.
//!
//! Relies on the bindings. Promises one interface over the real host and the native one of
//! [`testing`](crate::testing). Knows no types of an author's.

use crate::bindings::quorate::machine::{diagnostics, effects, kv, kv_write};

pub(crate) use diagnostics::Level;
pub(crate) use kv_write::Op;

/// A key and its value.
pub(crate) type Pair = (Vec<u8>, Vec<u8>);

/// Which way a scan goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Ascending,
    Descending,
}

/// The host as a component sees it.
pub(crate) trait Host {
    fn get(&self, key: &[u8]) -> Option<Vec<u8>>;
    /// Reads from `start` to `end`, excluded, of the state as it is now.
    fn scan(&self, start: &[u8], end: Option<&[u8]>, direction: Direction) -> Box<dyn Pages>;
    fn write(&self, ops: &[Op]);
    fn emit(&self, topic: &str, key: &[u8], body: &[u8]);
    fn set_timer(&self, id: &str, due: u64, body: &[u8]);
    fn cancel_timer(&self, id: &str);
    fn log(&self, level: Level, target: &str, message: &str);
}

/// A position in a range.
pub(crate) trait Pages {
    /// The next pairs; none at the end.
    fn next(&mut self, items_max: u32, bytes_max: u32) -> Vec<Pair>;
}

/// The host behind the imports.
pub(crate) struct Imports;

impl Host for Imports {
    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        kv::get(key)
    }

    fn scan(&self, start: &[u8], end: Option<&[u8]>, direction: Direction) -> Box<dyn Pages> {
        Box::new(kv::scan(&kv::Range {
            start: start.to_vec(),
            end: end.map(<[u8]>::to_vec),
            reverse: direction == Direction::Descending,
        }))
    }

    fn write(&self, ops: &[Op]) {
        kv_write::write(ops);
    }

    fn emit(&self, topic: &str, key: &[u8], body: &[u8]) {
        effects::emit(topic, key, body);
    }

    fn set_timer(&self, id: &str, due: u64, body: &[u8]) {
        effects::set_timer(id, due, body);
    }

    fn cancel_timer(&self, id: &str) {
        effects::cancel_timer(id);
    }

    fn log(&self, level: Level, target: &str, message: &str) {
        diagnostics::log(level, target, message);
    }
}

impl Pages for kv::Cursor {
    fn next(&mut self, items_max: u32, bytes_max: u32) -> Vec<Pair> {
        kv::Cursor::next(self, items_max, bytes_max)
    }
}
