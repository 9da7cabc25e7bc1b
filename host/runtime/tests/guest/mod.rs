//! Builds the tests' component from its text and says how to speak to it.
//!
//! Relies on the contract in `wit/`, so that a change there that this crate does not follow shows here.

#![allow(clippy::unwrap_used, dead_code)]

use bytes::Bytes;
use quorate_runtime::{Component, Engine, EngineSettings, EntryContext, Invocation, Origin};
use quorate_types::{Epoch, HlcTimestamp, LogIndex, Sequence, SessionId};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// The contract.
pub const CONTRACT: &str = include_str!("../../../../wit/machine.wit");
/// The machine, as text.
pub const MACHINE: &str = include_str!("machine.wat");

/// A component of this world, from a core module's text and a contract's text.
pub fn encode(module: &str, contract: &str, world: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let package = resolve.push_str("machine.wit", contract).unwrap();
    let world = resolve.select_world(&[package], Some(world)).unwrap();
    let mut core = wat::parse_str(module).unwrap();
    embed_component_metadata(&mut core, &resolve, world, StringEncoding::UTF8, false).unwrap();
    ComponentEncoder::default().module(&core).unwrap().validate(true).encode().unwrap()
}

/// The tests' component.
pub fn machine() -> Vec<u8> {
    encode(MACHINE, CONTRACT, "state-machine")
}

/// An engine as a node has it, but small.
pub fn engine() -> Engine {
    Engine::new(EngineSettings { instances: 4, ..EngineSettings::default() }).unwrap()
}

/// The tests' component, compiled.
pub fn compiled() -> Component {
    engine().compile(&machine()).unwrap()
}

/// A command by a session.
pub fn command(name: &str, body: &[u8]) -> Invocation {
    let origin = Origin::Session(SessionId(5), Sequence(6));
    Invocation { origin, name: name.to_owned(), body: Bytes::copy_from_slice(body) }
}

/// The command that puts a value.
pub fn put(key: &str, value: &str) -> Invocation {
    command("p", &[&[key.len() as u8], key.as_bytes(), value.as_bytes()].concat())
}

/// Some entry's context.
pub fn context() -> EntryContext {
    EntryContext {
        group: "tests".to_owned(),
        epoch: Epoch(1),
        index: LogIndex(9),
        hlc: HlcTimestamp(1_000),
        seed: (11, 12),
        schema_version: 2,
    }
}
