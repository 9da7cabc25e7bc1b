//! The writes of a command and of the entry around it, held back from the host.
//!
//! Relies on the host interface. Promises that reads see them, that a refused command's are dropped,
//! and that what is held stays near [`HELD_BYTES_MAX`]. Knows bytes only.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;

use super::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::Rejection;
use crate::host::{Host, Op};

/// Keys and values of accepted commands that are held before they go to the host, in bytes. Large
/// enough for an ordinary entry to cross in one call, small against an instance's memory.
const HELD_BYTES_MAX: usize = 1 << 20;

/// Keys with what they become; `None` removes.
pub(super) type Layer = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

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
}

impl Store {
    pub(crate) fn new(host: Box<dyn Host>) -> Self {
        Self { host, entry: Layer::new(), command: Layer::new(), entry_bytes: 0, refusal: RefCell::new(None) }
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
    pub(super) fn takes_key(&self, key: &[u8]) -> bool {
        let fits = key.len() <= KEY_BYTES_MAX;
        if !fits {
            let message = format!("a key of {} bytes exceeds {KEY_BYTES_MAX}", key.len());
            self.refuse(Rejection::new(Rejection::KEY_TOO_LONG, "key-too-long", message));
        }
        fits
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<Cow<'_, [u8]>> {
        if !self.takes_key(key) {
            return None;
        }
        for layer in self.layers() {
            if let Some(written) = layer.get(key) {
                return written.as_deref().map(Cow::Borrowed);
            }
        }
        self.host.get(key).map(Cow::Owned)
    }

    pub(super) fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        if value.len() > VALUE_BYTES_MAX {
            let message = format!("a value of {} bytes exceeds {VALUE_BYTES_MAX}", value.len());
            self.refuse(Rejection::new(Rejection::VALUE_TOO_LONG, "value-too-long", message));
        } else if self.takes_key(&key) {
            self.command.insert(key, Some(value));
        }
    }

    pub(super) fn delete(&mut self, key: Vec<u8>) {
        if self.takes_key(&key) {
            self.command.insert(key, None);
        }
    }

    /// The running command was accepted: keeps what it wrote.
    pub(crate) fn accept(&mut self) {
        for (key, written) in std::mem::take(&mut self.command) {
            self.entry_bytes += key.len() + written.as_ref().map_or(0, Vec::len);
            self.entry.insert(key, written);
        }
        if self.entry_bytes > HELD_BYTES_MAX {
            self.flush();
        }
    }

    /// The running command was refused: drops what it wrote.
    pub(crate) fn reject(&mut self) {
        self.command.clear();
    }

    /// Hands to the host what accepted commands wrote.
    pub(crate) fn flush(&mut self) {
        self.entry_bytes = 0;
        let written = std::mem::take(&mut self.entry);
        if written.is_empty() {
            return;
        }
        let ops: Vec<Op> = written
            .into_iter()
            .map(|(key, written)| match written {
                Some(value) => Op::Put((key, value)),
                None => Op::Delete(key),
            })
            .collect();
        self.host.write(&ops);
    }
}
