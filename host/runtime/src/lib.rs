//! Runs replicated state machines that are WebAssembly components, and holds their state.
//!
//! Relies on wasmtime for code and on `imbl` for ordered maps. Promises that applying the same commands to
//! the same state gives the same state, outcomes, events, timers and fuel on every machine, or a [`Halt`]
//! and no change at all; that nothing a component does harms the node; and that a component cannot reach
//! anything but `quorate:machine`. Knows no consensus, no disk, no session: `node` brings entries and takes
//! what they gave.
//!
//! A fresh instance from a pool runs each entry, so nothing survives in a component's memory from one entry
//! to the next. Its reads go through the entry's own writes to the state; the writes join the state only
//! when the entry ends well.

mod abi;
mod apply;
mod check;
mod component;
mod descriptor;
mod diagnostics;
mod engine;
mod error;
mod frozen;
mod host;
mod key;
mod limits;
mod overlay;
mod state;

pub use apply::{Applied, EntryContext, Event, Invocation, Origin, TimerChange};
pub use check::{COMPONENT_BYTES_MAX, World};
pub use component::Component;
pub use descriptor::Descriptor;
pub use diagnostics::{Diagnostics, Level, Silent, Source};
pub use engine::{Engine, EngineSettings};
pub use error::{CheckError, Halt, RuntimeError};
pub use frozen::Frozen;
pub use state::{Space, State, StateView};
