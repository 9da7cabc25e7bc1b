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

/// The example ledger of the checkout that the current directory lies in. The path that this program was
/// compiled at says nothing: target directories are shared between checkouts.
fn ledger() -> Result<PathBuf, ComponentError> {
    let example = Path::new("sdk/examples/ledger");
    let read = |source| ComponentError::Read { path: example.to_owned(), source };
    let here = std::env::current_dir().map_err(read)?;
    let found = here.ancestors().map(|folder| folder.join(example)).find(|path| path.is_dir());
    found.ok_or_else(|| read(std::io::ErrorKind::NotFound.into()))
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
        None => build_component(&ledger()?, &BuildOptions::default())?.bytes,
    };
    Ok(Engine::new(EngineSettings::default())?.compile(&bytes)?)
}
