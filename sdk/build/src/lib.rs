//! A guest crate becomes a validated component, in this process.
//!
//! Relies on an installed cargo and on wit-component. Promises that what it returns is a valid component
//! that imports nothing beyond the contract `quorate:machine`, and that a refusal names the import and
//! says what to do. Knows no host and runs no component.
//!
//! ```no_run
//! let built = quorate_build::build_component("sdk/examples/kv".as_ref(), &Default::default())?;
//! println!("{} bytes at {}", built.bytes.len(), built.path.display());
//! # Ok::<(), quorate_build::BuildError>(())
//! ```

mod cargo;
mod component;
mod error;
mod imports;

pub use cargo::{BuildOptions, BuiltComponent, CargoOutput, build_component, ensure_target};
pub use component::componentize;
pub use error::BuildError;
pub use imports::{Refused, check_imports};

/// The contract's package, as imports and exports name it.
pub const CONTRACT_PACKAGE: &str = "quorate:machine";
/// The contract's version.
pub const CONTRACT_VERSION: &str = "0.1.0";
/// The only target that pulls in no other interface.
pub const TARGET: &str = "wasm32-unknown-unknown";
