//! A host in memory, so that `cargo test` runs a state machine without WebAssembly.
//!
//! Relies on the same road between contract and author that a component takes. Promises entries,
//! stamps, seeds and timers as a group has them. Knows no limits of fuel or memory: those need the real
//! host (`quorate dev`). A panic fails the test, where the real host would refuse the command.
//!
//! ```
//! use quorate_sdk::prelude::*;
//! use quorate_sdk::testing::TestHost;
//!
//! #[derive(Serialize, Deserialize)]
//! enum Command { Add { amount: u64 } }
//! #[derive(Serialize, Deserialize)]
//! enum Query { Total }
//!
//! const TOTAL: Value<u64> = Value::new("total");
//!
//! struct Counter;
//! impl StateMachine for Counter {
//!     const NAME: &'static str = "counter";
//!     const VERSION: &'static str = "1.0.0";
//!     type Command = Command;
//!     type Query = Query;
//!     type Event = Nothing;
//!
//!     fn apply(ctx: &mut Context, command: Command) -> Result<Answer, Rejection> {
//!         let Command::Add { amount } = command;
//!         let total = TOTAL.get(ctx).unwrap_or(0) + amount;
//!         TOTAL.set(ctx, &total);
//!         answer(total)
//!     }
//!
//!     fn query(view: &View, query: Query) -> Result<Answer, Rejection> {
//!         let Query::Total = query;
//!         answer(TOTAL.get(view).unwrap_or(0))
//!     }
//! }
//!
//! let mut host = TestHost::<Counter>::new();
//! let total: u64 = host.apply(Command::Add { amount: 5 })?.read()?;
//! assert_eq!(total, 5);
//! assert_eq!(host.query::<u64>(Query::Total), Ok(5));
//! host.check_determinism();
//! # Ok::<(), Rejection>(())
//! ```

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::ops::Bound;
use std::rc::Rc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bindings::quorate::machine::types::{self, EntryContext, Outcome};
use crate::host::{Direction, Host, Level, Op, Pages, Pair};
use crate::named::NamedError;
use crate::{Body, CodecError, Migration, Rejection, StateMachine, Timestamp, cbor, component, named};

/// The stamp of a new group's first entry: some moment in 2025.
const START_UNIX_MILLIS: u64 = 1_750_000_000_000;
/// How often `migrate` may ask to be called again.
const MIGRATION_STEPS_MAX: usize = 100_000;

/// An event that was shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emitted {
    /// The variant's name, in kebab-case.
    pub topic: String,
    /// What it is about; often empty.
    pub key: Vec<u8>,
    /// The variant's fields, in CBOR.
    pub body: Vec<u8>,
}

impl Emitted {
    /// The event as the author's type.
    ///
    /// # Errors
    ///
    /// When it is an event of another type.
    pub fn read<E: DeserializeOwned>(&self) -> Result<E, NamedError> {
        named::decode(&self.topic, &self.body)
    }
}

/// A timer that is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timer {
    /// When it comes due.
    pub due: Timestamp,
    /// What it carries, in CBOR.
    pub body: Vec<u8>,
}

/// What a group consists of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Memory {
    state: BTreeMap<Vec<u8>, Vec<u8>>,
    timers: BTreeMap<String, Timer>,
    events: Vec<Emitted>,
    lines: Vec<String>,
    /// Calls to `kv-write.write`.
    writes: usize,
}

/// The host interface over the memory.
struct MemoryHost(Rc<RefCell<Memory>>);

/// A cursor over the pairs as they were when it was opened.
struct MemoryPages(std::vec::IntoIter<Pair>);

impl Pages for MemoryPages {
    fn next(&mut self, items_max: u32, bytes_max: u32) -> Vec<Pair> {
        let mut page: Vec<Pair> = Vec::new();
        let mut bytes = 0;
        while page.len() < items_max as usize {
            let Some(pair) = self.0.as_slice().first() else { break };
            bytes += pair.0.len() + pair.1.len();
            if bytes > bytes_max as usize && !page.is_empty() {
                break;
            }
            page.extend(self.0.next());
        }
        page
    }
}

impl Host for MemoryHost {
    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.0.borrow().state.get(key).cloned()
    }

    fn scan(&self, start: &[u8], end: Option<&[u8]>, direction: Direction) -> Box<dyn Pages> {
        let memory = self.0.borrow();
        let mut pairs: Vec<Pair> = Vec::new();
        if end.is_none_or(|end| start < end) {
            let bounds = (Bound::Included(start), end.map_or(Bound::Unbounded, Bound::Excluded));
            pairs.extend(
                memory.state.range::<[u8], _>(bounds).map(|(key, value)| (key.clone(), value.clone())),
            );
        }
        if direction == Direction::Descending {
            pairs.reverse();
        }
        Box::new(MemoryPages(pairs.into_iter()))
    }

    fn write(&self, ops: &[Op]) {
        let mut memory = self.0.borrow_mut();
        memory.writes += 1;
        for op in ops {
            match op {
                Op::Put((key, value)) => {
                    memory.state.insert(key.clone(), value.clone());
                }
                Op::Delete(key) => {
                    memory.state.remove(key);
                }
                Op::DeleteRange((start, end)) => {
                    memory.state.retain(|key, _| key < start || end.as_ref().is_some_and(|end| key >= end));
                }
            }
        }
    }

    fn emit(&self, topic: &str, key: &[u8], body: &[u8]) {
        let event = Emitted { topic: topic.into(), key: key.into(), body: body.into() };
        self.0.borrow_mut().events.push(event);
    }

    fn set_timer(&self, id: &str, due: u64, body: &[u8]) {
        let timer = Timer { due: Timestamp(due), body: body.into() };
        self.0.borrow_mut().timers.insert(id.into(), timer);
    }

    fn cancel_timer(&self, id: &str) {
        self.0.borrow_mut().timers.remove(id);
    }

    fn log(&self, level: Level, target: &str, message: &str) {
        let level = match level {
            Level::Trace => "trace",
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
        };
        self.0.borrow_mut().lines.push(format!("{level} {target}: {message}"));
    }
}

/// An entry that was applied, to be applied again.
struct Applied {
    entry: EntryContext,
    commands: Vec<types::Command>,
    outcomes: Vec<Outcome>,
}

/// A group of one replica in memory.
///
/// Each call of [`TestHost::apply`] is one entry with one command; [`TestHost::apply_batch`] is one
/// entry with many. The clock moves only by [`TestHost::advance`].
pub struct TestHost<M> {
    memory: Rc<RefCell<Memory>>,
    parameters: Vec<u8>,
    /// The layout version that the state is in.
    schema_version: u32,
    index: u64,
    time: Timestamp,
    session: u64,
    sequence: u64,
    /// Every entry since `init`.
    log: Vec<Applied>,
    machine: PhantomData<M>,
}

/// Applies outcomes' encoded answers.
fn outcome(outcome: &Outcome) -> Result<Body<'static>, Rejection> {
    match outcome {
        Outcome::Done(answer) => Ok(Body::owned("the answer", answer.clone())),
        Outcome::Rejected(rejection) => {
            Err(Rejection::new(rejection.code, rejection.name.clone(), rejection.message.clone()))
        }
    }
}

impl<M: StateMachine> Default for TestHost<M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M: StateMachine> TestHost<M> {
    /// A group that was prepared without parameters.
    ///
    /// # Panics
    ///
    /// When `init` refuses.
    #[must_use]
    pub fn new() -> Self {
        match Self::start(Vec::new()) {
            Ok(host) => host,
            Err(rejection) => panic!("init refused: {rejection}"),
        }
    }

    /// A group that was prepared with parameters.
    ///
    /// # Errors
    ///
    /// What `init` refuses.
    pub fn with_parameters<P: Serialize>(parameters: &P) -> Result<Self, Rejection> {
        Self::start(cbor::to_vec(parameters).map_err(|error| Rejection::unencodable(&error))?)
    }

    fn start(parameters: Vec<u8>) -> Result<Self, Rejection> {
        let mut host = Self::empty(parameters);
        let entry = host.next_entry();
        component::init::<M>(host.imports(), entry, &host.parameters)?;
        Ok(host)
    }

    fn empty(parameters: Vec<u8>) -> Self {
        Self {
            memory: Rc::default(),
            parameters,
            schema_version: M::SCHEMA_VERSION,
            index: 0,
            time: Timestamp::from_unix_millis(START_UNIX_MILLIS),
            session: 1,
            sequence: 0,
            log: Vec::new(),
            machine: PhantomData,
        }
    }

    fn imports(&self) -> Box<dyn Host> {
        Box::new(MemoryHost(Rc::clone(&self.memory)))
    }

    /// The next entry's context: the next index, a later stamp, another seed.
    fn next_entry(&mut self) -> EntryContext {
        self.index += 1;
        self.time = Timestamp(self.time.0 + 1);
        EntryContext {
            group: "test".into(),
            epoch: 1,
            index: self.index,
            hlc: self.time.0,
            seed: (0x5eed, self.index),
            schema_version: self.schema_version,
        }
    }

    /// Applies one entry: timers that are due come first, in the order of their times and identities.
    fn apply_entry(&mut self, commands: Vec<types::Command>) -> Vec<Outcome> {
        let entry = self.next_entry();
        let mut due: Vec<(Timestamp, String)> =
            self.timers().into_iter().map(|(id, timer)| (timer.due, id)).collect();
        due.retain(|(due, _)| due.0 <= entry.hlc);
        due.sort();
        let fired = due.len();
        let mut all: Vec<types::Command> = Vec::with_capacity(fired + commands.len());
        for (_, id) in due {
            let timer = self.memory.borrow_mut().timers.remove(&id);
            let body = timer.map_or_else(Vec::new, |timer| timer.body);
            all.push(types::Command { origin: types::Origin::Timer(id), name: "timer".into(), body });
        }
        all.extend(commands);
        let outcomes = component::apply::<M>(self.imports(), entry.clone(), all.clone());
        self.log.push(Applied { entry, commands: all, outcomes: outcomes.clone() });
        outcomes
    }

    fn command(&mut self, name: String, body: Vec<u8>) -> types::Command {
        self.sequence += 1;
        types::Command { origin: types::Origin::Session((self.session, self.sequence)), name, body }
    }

    fn typed_command(&mut self, command: &M::Command) -> Result<types::Command, Rejection> {
        let (name, body) = named::encode(command).map_err(|error| Rejection::unencodable(&error))?;
        Ok(self.command(name, body))
    }

    /// Applies one command as an entry of its own and returns its answer.
    ///
    /// # Errors
    ///
    /// What the state machine refuses.
    pub fn apply(&mut self, command: M::Command) -> Result<Body<'static>, Rejection> {
        let command = self.typed_command(&command)?;
        self.apply_one(command)
    }

    /// Applies one command by name, with a body as it comes off the wire.
    ///
    /// # Errors
    ///
    /// What the state machine or the SDK refuses.
    pub fn apply_raw(&mut self, name: &str, body: &[u8]) -> Result<Body<'static>, Rejection> {
        let command = self.command(name.into(), body.into());
        self.apply_one(command)
    }

    fn apply_one(&mut self, command: types::Command) -> Result<Body<'static>, Rejection> {
        let outcomes = self.apply_entry(vec![command]);
        outcomes.last().map_or_else(|| Ok(Body::default()), outcome)
    }

    /// Applies commands as one entry and returns one outcome for each.
    ///
    /// # Errors
    ///
    /// When a command cannot be encoded; nothing is applied then.
    pub fn apply_batch(
        &mut self,
        commands: impl IntoIterator<Item = M::Command>,
    ) -> Result<Vec<Result<Body<'static>, Rejection>>, Rejection> {
        let commands: Vec<types::Command> =
            commands.into_iter().map(|command| self.typed_command(&command)).collect::<Result<_, _>>()?;
        let count = commands.len();
        let outcomes = self.apply_entry(commands);
        Ok(outcomes[outcomes.len() - count..].iter().map(outcome).collect())
    }

    /// Asks a query.
    ///
    /// # Errors
    ///
    /// What the state machine refuses, or an answer of another type.
    pub fn query<T: DeserializeOwned>(&self, query: M::Query) -> Result<T, Rejection> {
        let (name, body) = named::encode(&query).map_err(|error| Rejection::unencodable(&error))?;
        self.query_raw(&name, &body)?.read()
    }

    /// Asks a query by name, with a body as it comes off the wire.
    ///
    /// # Errors
    ///
    /// What the state machine or the SDK refuses.
    pub fn query_raw(&self, name: &str, body: &[u8]) -> Result<Body<'static>, Rejection> {
        let answer = component::query::<M>(self.imports(), self.index, name, body)?;
        Ok(Body::owned("the answer", answer))
    }

    /// Moves the clock and applies an entry without commands, which fires the timers that are due. One
    /// result for each.
    pub fn advance(&mut self, duration: Duration) -> Vec<Result<(), Rejection>> {
        self.time = self.time + duration;
        let outcomes = self.apply_entry(Vec::new());
        outcomes.iter().map(|fired| outcome(fired).map(|_| ())).collect()
    }

    /// Puts another machine on this group's state, as a deployment does: `migrate` runs if the layout
    /// versions differ, step by step.
    ///
    /// # Errors
    ///
    /// What `migrate` refuses; this host is lost then, where a real group would keep the old machine.
    ///
    /// # Panics
    ///
    /// When `migrate` asks to be called again without end.
    pub fn upgrade<N: StateMachine>(mut self) -> Result<TestHost<N>, Rejection> {
        let from = self.schema_version;
        let mut resume: Option<Vec<u8>> = None;
        let mut finished = from == N::SCHEMA_VERSION;
        for _ in 0..MIGRATION_STEPS_MAX {
            if finished {
                break;
            }
            let entry = self.next_entry();
            match component::migrate::<N>(self.imports(), entry, from, resume.as_deref())? {
                Migration::More(next) => resume = Some(next),
                Migration::Finished => finished = true,
            }
        }
        assert!(finished, "migrate did not finish in {MIGRATION_STEPS_MAX} steps");
        let mut upgraded = TestHost::<N>::empty(self.parameters);
        upgraded.memory = self.memory;
        upgraded.index = self.index;
        upgraded.time = self.time;
        upgraded.sequence = self.sequence;
        Ok(upgraded)
    }

    /// Makes the following commands come from another session.
    pub fn become_session(&mut self, session: u64) {
        self.session = session;
    }

    /// The stamp of the newest entry.
    #[must_use]
    pub fn time(&self) -> Timestamp {
        self.time
    }

    /// Every event so far.
    #[must_use]
    pub fn events(&self) -> Vec<Emitted> {
        self.memory.borrow().events.clone()
    }

    /// The timers that are set, by identity.
    #[must_use]
    pub fn timers(&self) -> BTreeMap<String, Timer> {
        self.memory.borrow().timers.clone()
    }

    /// The lines that were logged.
    #[must_use]
    pub fn log_lines(&self) -> Vec<String> {
        self.memory.borrow().lines.clone()
    }

    /// The whole state, as bytes.
    #[must_use]
    pub fn state(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        self.memory.borrow().state.clone()
    }

    /// How often writes crossed to the host.
    #[must_use]
    pub fn write_calls(&self) -> usize {
        self.memory.borrow().writes
    }

    /// The schema that `describe` returns.
    #[must_use]
    pub fn schema() -> String {
        component::describe::<M>().schema
    }

    /// Applies every entry again on two fresh groups and compares outcomes, state, events and timers.
    ///
    /// Finds what differs between runs in one process: unordered maps, statics, addresses. Only for
    /// hosts that were not made by [`TestHost::upgrade`].
    ///
    /// # Panics
    ///
    /// When something differs, with the first difference.
    pub fn check_determinism(&self) {
        for _ in 0..2 {
            let replica = match Self::start(self.parameters.clone()) {
                Ok(replica) => replica,
                Err(rejection) => panic!("init refused the second time: {rejection}"),
            };
            for applied in &self.log {
                for command in &applied.commands {
                    if let types::Origin::Timer(id) = &command.origin {
                        replica.memory.borrow_mut().timers.remove(id);
                    }
                }
                let again =
                    component::apply::<M>(replica.imports(), applied.entry.clone(), applied.commands.clone());
                for (position, (first, second)) in applied.outcomes.iter().zip(&again).enumerate() {
                    let (first, second) = (outcome(first), outcome(second));
                    let (index, name) = (applied.entry.index, &applied.commands[position].name);
                    assert!(
                        first == second,
                        "not deterministic: `{name}` at entry {index}, position {position} gave {first:?}, \
                         then {second:?}"
                    );
                }
            }
            let (first, second) = (self.memory.borrow(), replica.memory.borrow());
            assert!(first.state == second.state, "not deterministic: the state differs between two runs");
            assert!(first.events == second.events, "not deterministic: the events differ between two runs");
            assert!(first.timers == second.timers, "not deterministic: the timers differ between two runs");
        }
    }
}

/// A value as a body, for [`TestHost::apply_raw`].
///
/// # Errors
///
/// When its `Serialize` refuses.
pub fn body<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    cbor::to_vec(value)
}
