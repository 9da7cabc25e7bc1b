//! The component that the simulated groups run: the ledger of the SDK's examples, built once.
//!
//! Relies on quorate-build. Promises the component that a deployment would use, compiled by the
//! product's engine. Knows no cluster.

use std::path::{Path, PathBuf};

use quorate_build::{BuildError, BuildOptions, build_component};
use quorate_runtime::{CheckError, Component, Engine, EngineSettings, RuntimeError};

/// The component cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ComponentError {
    /// It does not build.
    #[error("the ledger component cannot be built: {0}; build it by hand and pass it with --component")]
    Build(#[from] BuildError),
    /// It cannot be read.
    #[error("component {path} cannot be read: {source}; check the path given with --component")]
    Read {
        /// Where it was looked for.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The engine cannot be set up.
    #[error(transparent)]
    Engine(#[from] RuntimeError),
    /// It is no component that a group can run.
    #[error(transparent)]
    Check(#[from] CheckError),
}

/// Builds the ledger, or reads a component from a file, and compiles it.
///
/// # Errors
///
/// [`ComponentError`].
pub fn load(path: Option<&Path>) -> Result<Component, ComponentError> {
    let bytes = match path {
        Some(path) => {
            std::fs::read(path).map_err(|source| ComponentError::Read { path: path.to_owned(), source })?
        }
        None => {
            let ledger = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sdk/examples/ledger");
            build_component(&ledger, &BuildOptions::default())?.bytes
        }
    };
    Ok(Engine::new(EngineSettings::default())?.compile(&bytes)?)
}
