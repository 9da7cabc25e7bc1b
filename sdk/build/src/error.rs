//! Why a component was not built.

use std::path::PathBuf;

use crate::imports::Refused;

/// What went wrong, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A program could not be started.
    #[error(
        "cannot run `{program}` ({source}); install Rust from https://rustup.rs and see that it is on the \
         PATH"
    )]
    Start {
        /// The program.
        program: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// The folder is not a package of cargo's.
    #[error("{folder} is not a crate that can be built: {problem}")]
    NotACrate {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The compiler has no standard library for WebAssembly.
    #[error(
        "the compiler cannot build for wasm32-unknown-unknown and `rustup target add` did not help \
         ({problem}); run `rustup target add wasm32-unknown-unknown` where there is a network, or install \
         your distribution's package of Rust's WebAssembly standard library"
    )]
    NoTarget {
        /// What the attempt to add it said.
        problem: String,
    },
    /// The crate does not compile.
    #[error("{package} does not compile for wasm32-unknown-unknown; mend this and build again:\n{output}")]
    Compile {
        /// The package.
        package: String,
        /// The end of what the compiler said; empty if it was shown already.
        output: String,
    },
    /// The crate makes no WebAssembly module.
    #[error("{package} makes no module; add `[lib] crate-type = [\"cdylib\", \"rlib\"]` to its Cargo.toml")]
    NoModule {
        /// The package.
        package: String,
    },
    /// A file could not be read or written.
    #[error("cannot use {path}: {source}; check that it is there and yours")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The bytes are not WebAssembly.
    #[error("this is not WebAssembly that can be read ({0}); give a module or component built for Quorate")]
    NotWasm(String),
    /// The bytes are a core module where a component is needed.
    #[error("this is a core module, not a component; build it with `quorate component build`")]
    NotAComponent,
    /// The component needs what a state machine may not have.
    #[error("{}", list(.0))]
    Imports(Vec<Refused>),
    /// The component exports no state machine.
    #[error(
        "the component does not export quorate:machine/machine@0.1.0; write \
         `quorate_sdk::export!(YourMachine);` in its lib.rs"
    )]
    NoMachine,
    /// The module does not fit the contract.
    #[error(
        "the module does not fit the contract quorate:machine@0.1.0: {0}; build it with the SDK of this \
         version"
    )]
    Contract(String),
}

fn list(refused: &[Refused]) -> String {
    refused.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
