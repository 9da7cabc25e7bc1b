//! What the tests of real processes share: clusters, the `quorate` command, and what was built for them.
//!
//! Relies on `cargo xtask test`, which builds the binary and the example components first. Promises that
//! every process ends with its test. Knows no single test.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

use anyhow::{Context as _, Result, ensure};
use quorate_build::BuildOptions;
use quorate_cli::cluster::{ClusterPlan, ProcessCluster};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The root of the repository.
#[must_use]
pub fn repository() -> PathBuf {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests");
    Path::new(&manifest).join("../..").canonicalize().expect("this crate lies two levels deep")
}

/// Cargo's directory of this profile: tests lie in its `deps`.
fn profile_directory() -> PathBuf {
    let test = std::env::current_exe().expect("a running program has a file");
    test.ancestors().nth(2).expect("tests lie below the profile's directory").to_owned()
}

/// Cargo's target directory.
#[must_use]
pub fn target_directory() -> PathBuf {
    profile_directory().parent().expect("a profile's directory lies below the target directory").to_owned()
}

/// The `quorate` binary of this profile.
///
/// # Panics
///
/// If it was not built.
#[must_use]
pub fn binary() -> PathBuf {
    let binary = profile_directory().join("quorate");
    assert!(binary.is_file(), "{} is not built: run `cargo build --package quorate`", binary.display());
    binary
}

/// The binary of this profile whose node lies when told to.
///
/// # Panics
///
/// If it was not built.
#[cfg(feature = "planted")]
#[must_use]
pub fn planted_binary() -> PathBuf {
    let binary = profile_directory().join("quorate-planted");
    let build = "cargo build --package quorate --features planted --bin quorate-planted";
    assert!(binary.is_file(), "{} is not built: run `{build}`", binary.display());
    binary
}

/// The component of an example, built at its first use.
///
/// # Panics
///
/// If it does not build.
#[must_use]
pub fn component(example: &str) -> PathBuf {
    build(&repository().join("sdk/examples").join(example))
}

/// A component of `plugins/`, built at its first use.
///
/// # Panics
///
/// If it does not build.
#[must_use]
pub fn plugin(name: &str) -> PathBuf {
    build(&repository().join("plugins").join(name))
}

/// The component with a command for every misbehaviour, built at its first use.
///
/// # Panics
///
/// If it does not build.
#[must_use]
pub fn hostile_component() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build(&repository().join("tests/guests/hostile"))).clone()
}

fn build(guest: &Path) -> PathBuf {
    let target_dir = Some(target_directory().join("guests"));
    let built =
        quorate_build::build_component(guest, &BuildOptions { target_dir, ..BuildOptions::default() });
    built.unwrap_or_else(|error| panic!("{} does not build: {error}", guest.display())).path
}

/// What `quorate` printed and how it ended.
#[derive(Debug)]
pub struct Ran {
    /// The exit status.
    pub status: i32,
    /// The last line of standard output as JSON; null if there is none.
    pub value: Value,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ran {
    fn of(output: Output) -> Self {
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let last = stdout.lines().last().unwrap_or_default();
        Self {
            status: output.status.code().unwrap_or(-1),
            value: serde_json::from_str(last).unwrap_or_default(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            stdout,
        }
    }

    /// The value of a command that must have succeeded.
    ///
    /// # Panics
    ///
    /// If it did not.
    #[must_use]
    #[track_caller]
    pub fn good(self) -> Value {
        assert_eq!(self.status, 0, "{self:?}");
        self.value
    }

    /// What a command that must have failed with this status said.
    ///
    /// # Panics
    ///
    /// If it ended otherwise, or panicked.
    #[must_use]
    #[track_caller]
    pub fn refused(self, status: i32) -> String {
        assert_eq!(self.status, status, "{self:?}");
        assert!(!self.stderr.contains("panicked"), "{self:?}");
        assert_eq!(self.value["status"], status, "{self:?}");
        self.stderr
    }
}

/// Runs `quorate` with JSON output.
///
/// # Panics
///
/// If it cannot be started.
#[must_use]
pub fn quorate(arguments: &[&str]) -> Ran {
    let mut command = Command::new(binary());
    command.args(["--output", "json"]).args(arguments).stdin(Stdio::null());
    Ran::of(command.output().expect("the binary can be started"))
}

/// A process that ends with its test.
#[derive(Debug)]
pub struct Background(pub Child);

impl Drop for Background {
    fn drop(&mut self) {
        // Already gone is as good as killed.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A cluster of processes in a directory that goes with it.
#[derive(Debug)]
pub struct TestCluster {
    /// The processes.
    pub processes: ProcessCluster,
    directory: TempDir,
}

impl TestCluster {
    /// Starts a cluster of as many nodes.
    ///
    /// # Errors
    ///
    /// A node does not start; the end of its log is in the error.
    pub async fn start(nodes: u64) -> Result<Self> {
        let directory = TempDir::new().context("no temporary directory")?;
        let plan = ClusterPlan::create(directory.path(), nodes)?;
        let processes = ProcessCluster::start(plan, binary()).await?;
        Ok(Self { processes, directory })
    }

    /// Starts a cluster of as many nodes, of which one lies once it is told to.
    ///
    /// # Errors
    ///
    /// As [`TestCluster::start`].
    #[cfg(feature = "planted")]
    pub async fn start_with_liar(nodes: u64, liar: u64) -> Result<Self> {
        let directory = TempDir::new().context("no temporary directory")?;
        let plan = ClusterPlan::create(directory.path(), nodes)?;
        let liar = quorate_cli::cluster::Liar { node: liar, file: directory.path().join("lie") };
        let processes = ProcessCluster::start_with(plan, planted_binary(), Some(liar)).await?;
        Ok(Self { processes, directory })
    }

    /// Where its certificates, configurations and data lie.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Runs `quorate` as this cluster's administrator.
    #[must_use]
    pub fn quorate(&self, arguments: &[&str]) -> Ran {
        self.quorate_with_input(arguments, "")
    }

    /// Runs `quorate` as this cluster's administrator, with this text on standard input.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    #[must_use]
    pub fn quorate_with_input(&self, arguments: &[&str], input: &str) -> Ran {
        use std::io::Write;
        let mut command = Command::new(binary());
        command.args(["--output", "json"]).args(arguments).env("QUORATE_CONTEXT", self.context());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary can be started");
        let mut stdin = child.stdin.take().expect("standard input is a pipe");
        // A command that fails early does not read its input.
        stdin.write_all(input.as_bytes()).ok();
        drop(stdin);
        Ran::of(child.wait_with_output().expect("a started process ends"))
    }

    /// Runs `quorate` as this cluster's administrator and returns at once.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    #[must_use]
    pub fn quorate_in_background(&self, arguments: &[&str]) -> Background {
        let mut command = Command::new(binary());
        command.args(["--output", "json"]).args(arguments).env("QUORATE_CONTEXT", self.context());
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        Background(command.spawn().expect("the binary can be started"))
    }

    /// Creates a group and deploys a component to it.
    ///
    /// # Panics
    ///
    /// If a step fails.
    #[track_caller]
    pub fn deploy(&self, group: &str, component: &Path) {
        self.deploy_with(group, &[], component);
    }

    /// Creates a group with these options and deploys a component to it; returns what creating it printed.
    ///
    /// # Panics
    ///
    /// If a step fails.
    #[track_caller]
    pub fn deploy_with(&self, group: &str, options: &[&str], component: &Path) -> Value {
        let created = self.quorate(&[&["group", "create", group], options].concat()).good();
        assert_eq!(created["name"], group);
        let file = component.to_str().expect("paths of tests are text");
        let pushed = self.quorate(&["component", "push", file]).good();
        let digest = pushed["digest"].as_str().expect("a digest is text").to_owned();
        assert!(self.quorate(&["deploy", group, &digest]).good()["index"].is_u64());
        created
    }

    /// Pays into the ledger while its leader dies, and after all nodes died: a deposit of 5, of 7 and of 1.
    ///
    /// # Errors
    ///
    /// A node does not start again, or nobody leads.
    ///
    /// # Panics
    ///
    /// If an acknowledged deposit is lost or counts twice.
    pub async fn ledger_survives_its_leader_and_then_everyone(&mut self) -> Result<()> {
        let deposit = |cluster: &Self, amount: u64| {
            let body = json!({ "account": "ada", "amount": amount }).to_string();
            cluster.quorate(&["submit", "ledger", "deposit", &body]).good()["done"].clone()
        };
        let _opened = self.quorate(&["submit", "ledger", "open", r#"{"account":"ada"}"#]).good();
        assert_eq!(deposit(self, 5), 5);

        let leader = self.leader("ledger")?;
        self.processes.kill(leader).await?;
        assert_eq!(deposit(self, 7), 12);
        assert_ne!(self.leader("ledger")?, leader);
        self.processes.start_all().await?;

        self.processes.kill_all().await?;
        self.processes.start_all().await?;
        assert_eq!(deposit(self, 1), 13);
        let balance = self.quorate(&["query", "ledger", "balance", r#"{"account":"ada"}"#]).good();
        assert_eq!(balance["answer"], json!({ "balance": 13, "applied": 4 }));
        Ok(())
    }

    /// The node that leads a group.
    ///
    /// # Errors
    ///
    /// Nobody leads, or nobody answers.
    pub fn leader(&self, group: &str) -> Result<u64> {
        let described = self.quorate(&["group", "describe", group]);
        ensure!(described.status == 0, "{described:?}");
        described.value["leader"].as_u64().with_context(|| format!("nobody leads: {}", described.value))
    }

    fn context(&self) -> PathBuf {
        self.processes.plan().context_file()
    }
}
