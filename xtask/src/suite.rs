//! `cargo xtask test`: all that must hold before a change is taken, cheapest first.
//!
//! Relies on cargo, clippy and rustfmt; uses nextest where it is installed. Promises that the same
//! command runs on a laptop and in continuous integration. Knows no single test.

use anyhow::{Result, bail};

use crate::steps::{Profile, Workspace, run, succeeds};
use crate::{tidy, wasm};

/// Runs every check.
pub fn test(workspace: &Workspace) -> Result<()> {
    tidy(workspace)?;
    workspace.step("format", || run(workspace.cargo("fmt").args(["--all", "--", "--check"])))?;
    wasm::ensure_tools(workspace)?;
    workspace.step("lints", || {
        run(workspace.cargo("clippy").args(["--workspace", "--all-targets", "--", "-D", "warnings"]))
    })?;
    // Binaries and tests in one build: they share every dependency, and the tests of processes and the
    // components need the binaries.
    workspace.step("build binaries and tests", || {
        run(workspace.cargo("build").args(["--workspace", "--bins", "--lib", "--tests"]))
    })?;
    wasm::build_components(workspace, Profile::Dev, wasm::COMPONENTS)?;
    workspace.step("tests", || run_tests(workspace))?;
    workspace.build_planted(Profile::Dev)?;
    workspace.step("tests with a node that lies", || {
        let lies = ["--package", "quorate-it", "--features", "planted", "--test", "lies"];
        run(workspace.cargo("test").args(lies))
    })?;
    workspace.step("tests in documents", || run(workspace.cargo("test").args(["--workspace", "--doc"])))?;
    workspace.step("documents", || {
        let mut doc = workspace.cargo("doc");
        run(doc.args(["--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))
    })
}

/// Checks the source against the house rules.
pub fn tidy(workspace: &Workspace) -> Result<()> {
    workspace.step("tidy", || {
        let mut faults = tidy::sources(&workspace.root)?;
        faults.extend(tidy::arrows(&workspace.metadata()?)?);
        if faults.is_empty() {
            return Ok(());
        }
        for fault in &faults {
            eprintln!("{fault}");
        }
        bail!("{} faults against the house rules", faults.len())
    })
}

fn run_tests(workspace: &Workspace) -> Result<()> {
    if succeeds(workspace.cargo("nextest").arg("--version")) {
        return run(workspace.cargo("nextest").args([
            "run",
            "--workspace",
            "--lib",
            "--bins",
            "--tests",
            "--no-fail-fast",
        ]));
    }
    eprintln!("cargo-nextest is not installed; using cargo test");
    run(workspace.cargo("test").args(["--workspace", "--lib", "--bins", "--tests", "--no-fail-fast"]))
}
