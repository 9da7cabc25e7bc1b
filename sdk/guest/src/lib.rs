//! Quorate for authors of replicated state machines, in ordinary Rust.
//!
//! Relies on serde and on the contract in `wit/machine.wit`. Promises that what compiles here is
//! deterministic as long as the author stays away from unordered maps, addresses and statics. Knows no
//! host but through the contract.
//!
//! A state machine is a type with [`StateMachine`]: enums of commands, queries and events, [`Map`]s and
//! [`Value`]s for what must last, and an `apply`. [`export!`] makes it a component,
//! [`testing::TestHost`] runs it natively in `cargo test`. `README.md` beside this crate's folder walks
//! through the first ten minutes.
//!
//! # Traps
//!
//! - The order of a `HashMap` or `HashSet` differs between replicas, even within WebAssembly; the
//!   prelude has `BTreeMap` and `BTreeSet`.
//! - Statics and everything else in memory are lost after each entry.
//! - There is no clock and no randomness but [`Context::time`] and [`Context::random`].
//! - A panic refuses the command on every replica with the host's code 1; say what is wrong with a
//!   [`Rejection`] instead, which has a code and a name of yours.
//! - Names of maps, fields and variants are the layout of stored state: raise `SCHEMA_VERSION` and
//!   write `migrate` when they change.

// So that derived code in this crate's own tests can name the crate as an author does.
#[cfg(test)]
#[allow(unused_extern_crates)]
extern crate self as quorate_sdk;

#[doc(hidden)]
pub mod bindings;
mod body;
mod bytes;
pub mod cbor;
mod component;
mod context;
mod host;
mod machine;
pub mod named;
mod random;
mod rejection;
mod schema;
mod store;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
mod time;

#[cfg(test)]
mod tests;

pub use body::{Answer, Body, answer, done};
pub use bytes::Bytes;
pub use cbor::CodecError;
#[doc(hidden)]
pub use component::Component;
pub use context::{Context, LogLevel, Origin, View};
pub use machine::{Migration, Nothing, StateMachine};
pub use quorate_sdk_macros::Reject;
pub use random::Random;
pub use rejection::{Reject, Rejection};
pub use store::{AsKey, Iter, KEY_BYTES_MAX, Key, Map, Read, VALUE_BYTES_MAX, Value, Write};
pub use time::Timestamp;

/// What most state machines need: `use quorate_sdk::prelude::*;`.
pub mod prelude {
    pub use std::collections::{BTreeMap, BTreeSet};

    pub use serde::{Deserialize, Serialize};

    pub use crate::{
        Answer, Body, Bytes, Context, LogLevel, Map, Migration, Nothing, Origin, Read, Reject, Rejection,
        StateMachine, Timestamp, Value, View, Write, answer, done,
    };
}

/// Makes a state machine the component's own: `quorate_sdk::export!(Ledger);`, once, in `lib.rs`.
///
/// Natively it does nothing.
#[macro_export]
macro_rules! export {
    ($machine:ty) => {
        #[cfg(target_arch = "wasm32")]
        #[allow(unsafe_code)]
        const _: () = {
            type QuorateExport = $crate::Component<$machine>;
    $crate::bindings::export!(QuorateExport with_types_in $crate::bindings);
        };
    };
}
