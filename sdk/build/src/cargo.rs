//! Running cargo for a guest crate.
//!
//! Relies on the cargo and rustc that the crate's folder selects. Promises a build in a target folder of
//! its own, so that it never waits for a lock that the calling cargo holds, and the same bytes wherever
//! the sources lie. Knows nothing of what the crate does.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

use crate::{BuildError, TARGET, componentize};

/// How much of a failed build's output an error carries, in bytes.
const OUTPUT_BYTES_MAX: usize = 16 << 10;

/// Settings of the release profile that every component is built with, whatever its manifest says.
/// Optimised for speed: every replica runs it. Stripped, since names would cost load time.
const PROFILE: [&str; 8] = [
    "profile.release.opt-level=3",
    "profile.release.lto=true",
    "profile.release.codegen-units=1",
    "profile.release.panic=\"abort\"",
    "profile.release.strip=true",
    "profile.release.debug=false",
    "profile.release.incremental=false",
    // Procedural macros run once; built alike for every guest, they are built once.
    "profile.release.build-override.opt-level=0",
];

/// The stack of a component, in bytes. Ample for values nested as deep as the SDK reads them; Rust's own
/// choice of a mebibyte lies before the heap and keeps it out of the memory that a host's pool holds
/// ready, which cost 15 of 36 microseconds for an entry of one command.
const STACK_BYTES: u32 = 256 << 10;

/// Variables by which a calling cargo, or flags meant for the host, would reach into the build.
const FOREIGN_VARIABLES: [&str; 6] = [
    "CARGO_ENCODED_RUSTFLAGS",
    "RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_MAKEFLAGS",
    "CARGO_TARGET_DIR",
    "RUSTC_WORKSPACE_WRAPPER",
];

/// What becomes of the compiler's messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CargoOutput {
    /// Kept for the error.
    #[default]
    Captured,
    /// Shown as they come.
    Shown,
}

/// How to build.
#[derive(Clone, Debug, Default)]
pub struct BuildOptions {
    /// Where to build; `guests` below the crate's own target folder if it is left out.
    pub target_dir: Option<PathBuf>,
    /// Features to turn on.
    pub features: Vec<String>,
    /// What becomes of the compiler's messages.
    pub output: CargoOutput,
    /// Arguments for cargo, such as `--locked` or `--offline`.
    pub cargo_args: Vec<String>,
}

/// A component that was built.
#[derive(Clone, Debug)]
pub struct BuiltComponent {
    /// The component.
    pub bytes: Vec<u8>,
    /// Where it was written: `<package>.component.wasm` in the build's release folder.
    pub path: PathBuf,
}

/// What cargo says of a crate.
struct Package {
    name: String,
    manifest: PathBuf,
    target_dir: PathBuf,
}

/// Builds the crate in a folder into a component.
///
/// # Errors
///
/// [`BuildError`]: no cargo, no such crate, no WebAssembly target, a crate that does not compile or makes
/// no module, or a component that imports what it must not.
pub fn build_component(manifest_dir: &Path, options: &BuildOptions) -> Result<BuiltComponent, BuildError> {
    let package = package(manifest_dir)?;
    ensure_target(manifest_dir)?;
    let module_path = build_module(&package, options)?;
    let module = std::fs::read(&module_path)
        .map_err(|source| BuildError::File { path: module_path.clone(), source })?;
    let bytes = componentize(&module)?;
    let path = module_path.with_file_name(format!("{}.component.wasm", package.name));
    write_whole(&path, &bytes).map_err(|source| BuildError::File { path: path.clone(), source })?;
    Ok(BuiltComponent { bytes, path })
}

/// Writes a file that others may be reading, or building too: they see the old bytes or the new ones.
fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    static WRITTEN: AtomicU64 = AtomicU64::new(0);
    let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
    let partial = path.with_extension(format!("{}-{number}.part", std::process::id()));
    std::fs::write(&partial, bytes)?;
    std::fs::rename(&partial, path)
}

/// A program of the toolchain: what the variable names, or what is on the path.
fn tool(variable: &str, name: &str) -> OsString {
    std::env::var_os(variable).unwrap_or_else(|| name.into())
}

/// Runs a program in a folder, to its end.
fn run(command: &mut Command) -> Result<std::process::Output, BuildError> {
    let program = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).output().map_err(|source| BuildError::Start { program, source })
}

fn tail(output: &[u8]) -> String {
    let start = output.len().saturating_sub(OUTPUT_BYTES_MAX);
    String::from_utf8_lossy(&output[start..]).trim().to_owned()
}

/// Asks cargo about the crate in a folder.
fn package(manifest_dir: &Path) -> Result<Package, BuildError> {
    let not_a_crate = |problem: String| BuildError::NotACrate { folder: manifest_dir.to_owned(), problem };
    let manifest = manifest_dir.join("Cargo.toml");
    let manifest =
        manifest.canonicalize().map_err(|error| not_a_crate(format!("{}: {error}", manifest.display())))?;
    let mut command = Command::new(tool("CARGO", "cargo"));
    command.args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path"]).arg(&manifest);
    let output = run(command.current_dir(manifest_dir))?;
    if !output.status.success() {
        return Err(not_a_crate(tail(&output.stderr)));
    }
    let metadata: Value =
        serde_json::from_slice(&output.stdout).map_err(|error| not_a_crate(error.to_string()))?;
    let is_it =
        |package: &&Value| package["manifest_path"].as_str().is_some_and(|path| Path::new(path) == manifest);
    let packages = metadata["packages"].as_array().map_or(&[][..], Vec::as_slice);
    let name = packages.iter().find(is_it).and_then(|package| package["name"].as_str());
    let name = name.ok_or_else(|| not_a_crate("its Cargo.toml has no [package]".into()))?.to_owned();
    let target_dir = metadata["target_directory"].as_str();
    let target_dir =
        target_dir.ok_or_else(|| not_a_crate("cargo names no target folder for it".into()))?.into();
    Ok(Package { name, manifest, target_dir })
}

/// Sees that the compiler selected in a folder can build for WebAssembly, and adds the target with rustup
/// if it cannot.
///
/// # Errors
///
/// [`BuildError::NoTarget`] when the target is not there and cannot be added.
pub fn ensure_target(folder: &Path) -> Result<(), BuildError> {
    let rustc = tool("RUSTC", "rustc");
    let output =
        run(Command::new(&rustc).args(["--print", "target-libdir", "--target", TARGET]).current_dir(folder))?;
    let libraries = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    if output.status.success() && libraries.is_dir() {
        return Ok(());
    }
    let added = run(Command::new("rustup").args(["target", "add", TARGET]).current_dir(folder));
    match added {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(BuildError::NoTarget { problem: tail(&output.stderr) }),
        Err(error) => Err(BuildError::NoTarget { problem: error.to_string() }),
    }
}

/// Flags for the compiler: the stack's size, and names in place of the builder's folders in panic
/// messages, so that the same sources give the same bytes everywhere. Paths within a workspace are
/// relative already. The flags are the same for every crate, so that guests which share a target folder
/// share their dependencies.
fn rust_flags() -> String {
    let home = |variable: &str, below: &str| {
        std::env::var_os(variable).map(PathBuf::from).or_else(|| Some(std::env::home_dir()?.join(below)))
    };
    let folders = [(home("CARGO_HOME", ".cargo"), "/cargo"), (home("RUSTUP_HOME", ".rustup"), "/rustup")];
    let remapped = folders.iter().filter_map(|(folder, name)| {
        Some(format!("--remap-path-prefix={}={name}", folder.as_ref()?.display()))
    });
    let flags: Vec<String> =
        std::iter::once(format!("-Clink-arg=-zstack-size={STACK_BYTES}")).chain(remapped).collect();
    // Cargo's separator, since folders may have spaces.
    flags.join("\u{1f}")
}

/// Runs the build and returns the module's path.
fn build_module(package: &Package, options: &BuildOptions) -> Result<PathBuf, BuildError> {
    let target_dir = options.target_dir.clone().unwrap_or_else(|| package.target_dir.join("guests"));
    let mut command = Command::new(tool("CARGO", "cargo"));
    command
        .args(["build", "--release", "--lib", "--target", TARGET, "--manifest-path"])
        .arg(&package.manifest);
    command.arg("--target-dir").arg(target_dir).arg("--message-format=json-render-diagnostics");
    for setting in PROFILE {
        command.args(["--config", setting]);
    }
    if !options.features.is_empty() {
        command.arg("--features").arg(options.features.join(","));
    }
    command.args(&options.cargo_args);
    for variable in FOREIGN_VARIABLES {
        command.env_remove(variable);
    }
    command.env("CARGO_ENCODED_RUSTFLAGS", rust_flags());
    if let Some(folder) = package.manifest.parent() {
        command.current_dir(folder);
    }
    if options.output == CargoOutput::Shown {
        command.stderr(Stdio::inherit());
    }
    let output = run(&mut command)?;
    if !output.status.success() {
        return Err(BuildError::Compile { package: package.name.clone(), output: tail(&output.stderr) });
    }
    module_of(package, &output.stdout).ok_or_else(|| BuildError::NoModule { package: package.name.clone() })
}

/// The module that cargo says it made of this package.
fn module_of(package: &Package, messages: &[u8]) -> Option<PathBuf> {
    // Lines that are not JSON come from build scripts and procedural macros.
    let messages =
        messages.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    let is_ours = |message: &Value| {
        let manifest = message["manifest_path"].as_str();
        message["reason"] == "compiler-artifact"
            && manifest.is_some_and(|path| Path::new(path) == package.manifest)
    };
    messages.filter(is_ours).find_map(|message| {
        let files = message["filenames"].as_array()?;
        let mut paths = files.iter().filter_map(Value::as_str).map(PathBuf::from);
        paths.find(|path| path.extension().is_some_and(|extension| extension == "wasm"))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// What could go wrong: whoever reads while another build writes finds half a component.
    #[test]
    fn a_file_that_is_written_again_and_again_is_always_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.component.wasm");
        write_whole(&path, &[0; 1 << 20]).unwrap();
        std::thread::scope(|scope| {
            for byte in 1..=2 {
                let path = &path;
                scope.spawn(move || (0..20).for_each(|_| write_whole(path, &[byte; 1 << 20]).unwrap()));
            }
            for _ in 0..40 {
                let found = std::fs::read(&path).unwrap();
                assert!(found.len() == 1 << 20 && found.iter().all(|byte| *byte == found[0]));
            }
        });
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "no part is left behind");
    }
}
