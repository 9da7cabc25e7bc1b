//! What a state machine sees of the world around it.
//!
//! Relies on the store and the host interface. Promises that everything in it is the same on every
//! replica, and that a refused command's events and timers vanish with its writes. Knows no command.

use std::time::Duration;

use serde::Serialize;

use crate::bindings::quorate::machine::types::EntryContext;
use crate::host::{Host, Level};
use crate::store::sealed::{HasStore, HasStoreMut};
use crate::store::{Read, Store, Write};
use crate::{Random, Rejection, Timestamp, cbor, named};

/// Who asked for a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A client's session, and the command's number in it.
    Session {
        /// The session.
        session: u64,
        /// The command's number in the session.
        sequence: u64,
    },
    /// The timer of this identity came due.
    Timer(String),
    /// The host itself.
    System,
}

/// How much a line of the log matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Every step.
    Trace,
    /// For whoever looks for a fault.
    Debug,
    /// Worth knowing.
    Info,
    /// Looks wrong.
    Warn,
    /// Is wrong.
    Error,
}

/// Something beside state that happens once the command is accepted.
enum Effect {
    Emit { topic: String, key: Vec<u8>, body: Vec<u8> },
    SetTimer { id: String, due: Timestamp, body: Vec<u8> },
    CancelTimer { id: String },
}

/// A command's world: the state, the entry's time and randomness, events and timers.
pub struct Context {
    store: Store,
    entry: EntryContext,
    origin: Origin,
    /// The command's place in its entry, from 0.
    position: u32,
    /// Made when the command first draws.
    random: Option<Random>,
    /// What the running command asked for, in order.
    effects: Vec<Effect>,
}

impl Context {
    pub(crate) fn new(host: Box<dyn Host>, entry: EntryContext) -> Self {
        Self {
            store: Store::new(host),
            entry,
            origin: Origin::System,
            position: 0,
            random: None,
            effects: Vec::new(),
        }
    }

    /// Starts the next command.
    pub(crate) fn begin(&mut self, position: u32, origin: Origin) {
        self.position = position;
        self.origin = origin;
        self.random = None;
    }

    /// Ends the running command: keeps what it did, or drops it.
    pub(crate) fn conclude<T>(&mut self, result: Result<T, Rejection>) -> Result<T, Rejection> {
        let noted = self.store.take_refusal();
        match (result, noted) {
            (Ok(value), None) => {
                self.store.accept();
                self.pass_on_effects();
                Ok(value)
            }
            (Err(rejection), _) | (Ok(_), Some(rejection)) => {
                self.store.reject();
                self.effects.clear();
                Err(rejection)
            }
        }
    }

    /// Ends the entry.
    pub(crate) fn finish(self) {
        self.store.finish();
    }

    fn pass_on_effects(&mut self) {
        for effect in self.effects.drain(..) {
            let host = self.store.host();
            match effect {
                Effect::Emit { topic, key, body } => host.emit(&topic, &key, &body),
                Effect::SetTimer { id, due, body } => host.set_timer(&id, due.0, &body),
                Effect::CancelTimer { id } => host.cancel_timer(&id),
            }
        }
    }

    /// The group's name.
    #[must_use]
    pub fn group(&self) -> &str {
        &self.entry.group
    }

    /// The group's epoch: one member set with one protocol. From 1.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.entry.epoch
    }

    /// The entry's place in the group's log. From 1.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.entry.index
    }

    /// The entry's stamp, the only time there is: the same on every replica and for every command of
    /// the entry, greater than that of the entry before.
    #[must_use]
    pub fn time(&self) -> Timestamp {
        Timestamp(self.entry.hlc)
    }

    /// Who asked.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Numbers that look random and are the same on every replica, different for every command.
    ///
    /// They are no secret: whoever reads the log can compute them.
    pub fn random(&mut self) -> &mut Random {
        // Seeded by who asked rather than by the position where that is possible, so that the draws do
        // not depend on how commands were gathered into the entry.
        let (kind, first, second) = match &self.origin {
            Origin::Session { session, sequence } => (1, *session, *sequence),
            Origin::Timer(id) => (2, fold_text(id), 0),
            Origin::System => (3, self.position.into(), 0),
        };
        let seed = self.entry.seed;
        self.random.get_or_insert_with(|| Random::from_seed(&[seed.0, seed.1, kind, first, second]))
    }

    /// Shows an event to whoever watches the group. A variant's name is the topic, its fields the body.
    pub fn emit<E: Serialize>(&mut self, event: &E) {
        self.emit_about(&[], event);
    }

    /// As [`Context::emit`], with a key by which watchers can tell what it is about.
    pub fn emit_about<E: Serialize>(&mut self, key: &[u8], event: &E) {
        match named::encode(event) {
            Ok((topic, body)) => self.effects.push(Effect::Emit { topic, key: key.to_vec(), body }),
            Err(error) => self.store.refuse(Rejection::unencodable(&error)),
        }
    }

    /// Has [`StateMachine::timer`](crate::StateMachine::timer) called in the first entry whose stamp is
    /// not below `due`. Replaces a timer of the same identity.
    pub fn set_timer<T: Serialize>(&mut self, id: &str, due: Timestamp, body: &T) {
        match cbor::to_vec(body) {
            Ok(body) => self.effects.push(Effect::SetTimer { id: id.to_owned(), due, body }),
            Err(error) => self.store.refuse(Rejection::unencodable(&error)),
        }
    }

    /// As [`Context::set_timer`], this long after the entry's time.
    pub fn set_timer_in<T: Serialize>(&mut self, id: &str, delay: Duration, body: &T) {
        self.set_timer(id, self.time() + delay, body);
    }

    /// Forgets a timer, if it is set.
    pub fn cancel_timer(&mut self, id: &str) {
        self.effects.push(Effect::CancelTimer { id: id.to_owned() });
    }

    /// A line for the node's log; never part of an outcome.
    pub fn log(&self, level: LogLevel, message: &str) {
        self.store.host().log(level.into(), "component", message);
    }
}

/// A number for a text, the same everywhere (FNV-1a).
fn fold_text(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

impl From<LogLevel> for Level {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Trace => Self::Trace,
            LogLevel::Debug => Self::Debug,
            LogLevel::Info => Self::Info,
            LogLevel::Warn => Self::Warn,
            LogLevel::Error => Self::Error,
        }
    }
}

/// A query's world: the state as of one index, to be read only.
pub struct View {
    store: Store,
    index: u64,
}

impl View {
    pub(crate) fn new(host: Box<dyn Host>, index: u64) -> Self {
        Self { store: Store::new(host), index }
    }

    /// Ends the query; a read that the host would not take refuses it.
    pub(crate) fn conclude<T>(&self, result: Result<T, Rejection>) -> Result<T, Rejection> {
        match self.store.take_refusal() {
            Some(rejection) => result.and(Err(rejection)),
            None => result,
        }
    }

    /// The index of the last entry that the state holds.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.index
    }

    /// A line for the node's log; never part of an answer.
    pub fn log(&self, level: LogLevel, message: &str) {
        self.store.host().log(level.into(), "component", message);
    }
}

impl HasStore for Context {
    fn store(&self) -> &Store {
        &self.store
    }
}

impl HasStoreMut for Context {
    fn store_mut(&mut self) -> &mut Store {
        &mut self.store
    }
}

impl HasStore for View {
    fn store(&self) -> &Store {
        &self.store
    }
}

impl Read for Context {}
impl Write for Context {}
impl Read for View {}
