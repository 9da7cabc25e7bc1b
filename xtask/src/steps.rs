//! Where the workspace is, and how one step of a task is run.
//!
//! Relies on `cargo metadata`. Promises that a step's name, duration and result go to standard error, so
//! that standard output stays with the program that a task runs. Knows no task.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// The workspace: its root, and where cargo puts what it builds.
pub struct Workspace {
    /// The directory of the virtual manifest.
    pub root: PathBuf,
    /// Cargo's target directory, whatever set it.
    pub target: PathBuf,
    cargo: PathBuf,
}

/// The binary that is the product.
pub const PRODUCT: &str = "quorate";
/// The same with replicas that lie when told to.
pub const PLANTED: &str = "quorate-planted";

/// How a binary is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Quick to build.
    Dev,
    /// Quick to run.
    Release,
}

impl Profile {
    /// The profile that a `--dev` flag asks for.
    #[must_use]
    pub fn dev_if(dev: bool) -> Self {
        if dev { Self::Dev } else { Self::Release }
    }

    fn directory(self) -> &'static str {
        match self {
            Self::Dev => "debug",
            Self::Release => "release",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Release => "release",
        }
    }
}

impl Workspace {
    /// Asks cargo where the workspace is.
    pub fn find() -> Result<Self> {
        let cargo = std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from);
        let manifest = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
        let here = match manifest {
            Some(xtask) => xtask,
            None => std::env::current_dir().context("the current directory cannot be read")?,
        };
        let metadata = metadata(&cargo, &here)?;
        let path = |key: &str| {
            let text = metadata.get(key).and_then(serde_json::Value::as_str);
            text.map(PathBuf::from).with_context(|| format!("cargo metadata names no {key}"))
        };
        Ok(Self { root: path("workspace_root")?, target: path("target_directory")?, cargo })
    }

    /// What `cargo metadata` says of the members, without their dependencies.
    pub fn metadata(&self) -> Result<serde_json::Value> {
        metadata(&self.cargo, &self.root)
    }

    /// `cargo SUBCOMMAND`, run in the workspace's root.
    #[must_use]
    pub fn cargo(&self, subcommand: &str) -> Command {
        let mut command = Command::new(&self.cargo);
        command.current_dir(&self.root).arg(subcommand).env("CARGO_TARGET_DIR", &self.target);
        command
    }

    /// A binary of the workspace, which must have been built.
    #[must_use]
    pub fn binary(&self, profile: Profile, name: &str) -> Command {
        let mut command = Command::new(self.target.join(profile.directory()).join(name));
        // Components are compiled by a cargo of their own, which must not wait for this one.
        command.env("CARGO_TARGET_DIR", &self.target);
        command
    }

    /// The `quorate` binary.
    #[must_use]
    pub fn product(&self, profile: Profile) -> Command {
        self.binary(profile, PRODUCT)
    }

    /// Where the component of this example is put.
    #[must_use]
    pub fn component(&self, example: &str) -> PathBuf {
        self.target.join("components").join(format!("{example}.wasm"))
    }

    /// Builds the `quorate` binary alone.
    pub fn build_product(&self, profile: Profile) -> Result<()> {
        self.step("build quorate", || {
            run(self.cargo("build").args([
                "--package",
                "quorate",
                "--bin",
                "quorate",
                "--profile",
                profile.name(),
            ]))
        })
    }

    /// Builds the binary whose replicas lie when told to, beside the product.
    pub fn build_planted(&self, profile: Profile) -> Result<()> {
        self.step("build quorate-planted", || {
            run(self.cargo("build").args([
                "--package",
                "quorate",
                "--bin",
                PLANTED,
                "--features",
                "planted",
                "--profile",
                profile.name(),
            ]))
        })
    }

    /// Runs one step and says how long it took.
    pub fn step(&self, name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
        eprintln!("==> {name}");
        let start = Instant::now();
        let result = work();
        let seconds = start.elapsed().as_secs_f64();
        match &result {
            Ok(()) => eprintln!("==> {name}: done in {seconds:.1} s"),
            Err(_) => eprintln!("==> {name}: failed after {seconds:.1} s"),
        }
        result.with_context(|| format!("step `{name}` failed"))
    }
}

/// Runs a command to its end with this process's standard streams.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {}", describe(command)))?;
    if !status.success() {
        bail!("{} ended with {status}", describe(command));
    }
    Ok(())
}

/// Runs a command quietly; whether it could be started and succeeded.
pub fn succeeds(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

fn describe(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let mut text = program.file_name().unwrap_or(command.get_program()).to_string_lossy().into_owned();
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}

fn metadata(cargo: &Path, directory: &Path) -> Result<serde_json::Value> {
    let output = Command::new(cargo)
        .current_dir(directory)
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo: install Rust with rustup")?;
    if !output.status.success() {
        bail!("cargo metadata ended with {}", output.status);
    }
    serde_json::from_slice(&output.stdout).context("cargo metadata printed no JSON")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_failing_command_fails_its_step_and_is_named() {
        let workspace = Workspace { root: ".".into(), target: ".".into(), cargo: "cargo".into() };
        let error = workspace.step("try", || run(Command::new("false").arg("--now"))).unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("`try`") && text.contains("false --now"), "{text}");
        assert!(workspace.step("try", || run(&mut Command::new("true"))).is_ok());
    }

    #[test]
    fn a_program_that_is_not_there_does_not_succeed() {
        assert!(!succeeds(&mut Command::new("quorate-no-such-program")));
        assert!(succeeds(&mut Command::new("true")));
    }
}
