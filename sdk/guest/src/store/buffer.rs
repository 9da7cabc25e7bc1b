//! The writes of a command and of the entry around it, held back from the host.
//!
//! Relies on the host interface. Promises that reads see them, that a refused command's are dropped,
//! and that what is held stays near [`HELD_BYTES_MAX`]. Knows bytes only.

use std::borrow::Cow;
use std::cell::RefCell;

use serde::Serialize;

use super::layer::{Layer, StateKey};
use super::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::host::{Host, Op};
use crate::{Rejection, cbor};

/// Keys and values of accepted commands that are held before they go to the host, in bytes. Large
/// enough for an ordinary entry to cross in one call, small against an instance's memory.
const HELD_BYTES_MAX: usize = 1 << 20;

/// The group's state with what this entry does to it.
///
/// Invariant: the host has none of the command layer, and of the entry layer nothing that was not
/// accepted.
pub struct Store {
    host: Box<dyn Host>,
    /// What accepted commands of this entry wrote since the last call to the host.
    entry: Layer,
    /// What the running command wrote.
    command: Layer,
    /// Bytes of the entry layer, counting rewritten keys again.
    entry_bytes: usize,
    /// The first thing that the running command did which the host would not take. Reads note it too,
    /// hence the cell.
    refusal: RefCell<Option<Rejection>>,
    /// Where values are encoded before they are kept at their length.
    scratch: Vec<u8>,
}

impl Store {
    pub(crate) fn new(host: Box<dyn Host>) -> Self {
        Self {
            host,
            entry: Layer::default(),
            command: Layer::default(),
            entry_bytes: 0,
            refusal: RefCell::new(None),
            scratch: Vec::new(),
        }
    }

    pub(crate) fn host(&self) -> &dyn Host {
        &*self.host
    }

    pub(super) fn layers(&self) -> [&Layer; 2] {
        [&self.command, &self.entry]
    }

    /// Notes that the running command must be refused, whatever it returns.
    pub(crate) fn refuse(&self, rejection: Rejection) {
        self.refusal.borrow_mut().get_or_insert(rejection);
    }

    /// What was noted since the last time.
    pub(crate) fn take_refusal(&self) -> Option<Rejection> {
        self.refusal.take()
    }

    /// Whether the host takes a key of this length; notes it if not.
    pub(super) fn takes_key(&self, key: &StateKey) -> bool {
        let fits = key.0.len() <= KEY_BYTES_MAX;
        if !fits {
            let message = format!("a key of {} bytes exceeds {KEY_BYTES_MAX}", key.0.len());
            self.refuse(Rejection::new(Rejection::KEY_TOO_LONG, "key-too-long", message));
        }
        fits
    }

    pub(super) fn get(&self, key: &StateKey) -> Option<Cow<'_, [u8]>> {
        if !self.takes_key(key) {
            return None;
        }
        for layer in self.layers() {
            if let Some(written) = layer.get(key) {
                return written.as_deref().map(Cow::Borrowed);
            }
        }
        self.host.get(&key.0).map(Cow::Owned)
    }

    pub(super) fn put<T: Serialize>(&mut self, key: StateKey, value: &T) {
        self.scratch.clear();
        if let Err(error) = cbor::write(value, &mut self.scratch) {
            self.refuse(Rejection::unencodable(&error));
        } else if self.scratch.len() > VALUE_BYTES_MAX {
            let message = format!("a value of {} bytes exceeds {VALUE_BYTES_MAX}", self.scratch.len());
            self.refuse(Rejection::new(Rejection::VALUE_TOO_LONG, "value-too-long", message));
        } else if self.takes_key(&key) {
            self.command.insert(key, Some(self.scratch.as_slice().into()));
        }
    }

    pub(super) fn delete(&mut self, key: StateKey) {
        if self.takes_key(&key) {
            self.command.insert(key, None);
        }
    }

    /// The running command was accepted: keeps what it wrote.
    pub(crate) fn accept(&mut self) {
        for (key, written) in self.command.drain() {
            self.entry_bytes += key.0.len() + written.as_ref().map_or(0, Vec::len);
            self.entry.insert(key, written);
        }
        if self.entry_bytes > HELD_BYTES_MAX {
            drop(self.flush());
        }
    }

    /// The running command was refused: drops what it wrote.
    pub(crate) fn reject(&mut self) {
        self.command.clear();
    }

    /// Hands to the host what accepted commands wrote, and returns it.
    fn flush(&mut self) -> Vec<Op> {
        self.entry_bytes = 0;
        let op = |(key, written): (StateKey, Option<Vec<u8>>)| match written {
            Some(value) => Op::Put((key.0, value)),
            None => Op::Delete(key.0),
        };
        let ops: Vec<Op> = self.entry.drain().map(op).collect();
        if !ops.is_empty() {
            self.host.write(&ops);
        }
        ops
    }

    /// Ends the entry.
    pub(crate) fn finish(mut self) {
        let written = self.flush();
        // The instance ends with the entry: giving memory back piece by piece would be work for nothing.
        if cfg!(target_arch = "wasm32") {
            std::mem::forget(written);
        }
    }
}
