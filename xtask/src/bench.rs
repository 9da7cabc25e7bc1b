//! `cargo xtask bench`: the comparison with peers, and the benchmarks in `benches/`.
//!
//! Relies on cargo, and on Debian's packages for etcd. Promises to say which program is missing and how
//! to get it. Knows nothing of what is measured.

use std::process::Command;

use anyhow::{Result, bail};

use crate::steps::{self, Profile, Workspace};
use crate::wasm;

/// Debian has shipped etcd's server under both names.
const ETCD_PACKAGES: [&str; 2] = ["etcd-server", "etcd"];

/// Runs the benchmark of this name.
pub fn run(workspace: &Workspace, name: &str, arguments: &[String]) -> Result<()> {
    if name == "peers" {
        return peers(workspace, arguments);
    }
    workspace.step(&format!("bench {name}"), || {
        let mut command = workspace.cargo("bench");
        command.args(["--package", "quorate-benches", "--bench", name]);
        if !arguments.is_empty() {
            command.arg("--").args(arguments);
        }
        steps::run(&mut command)
    })
}

fn peers(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    ensure_etcd(workspace)?;
    workspace.step("build quorate and the comparison", || {
        let mut command = workspace.cargo("build");
        command.args(["--release", "--package", "quorate", "--package", "quorate-benches", "--bins"]);
        steps::run(&mut command)
    })?;
    wasm::build_components(workspace, Profile::Release, &["kv"])?;
    workspace.step("bench peers", || {
        let mut command = workspace.binary(Profile::Release, "quorate-peers");
        command.arg("--component").arg(workspace.component("kv"));
        steps::run(command.args(arguments))
    })
}

fn ensure_etcd(workspace: &Workspace) -> Result<()> {
    if has_etcd() {
        return Ok(());
    }
    workspace.step("install etcd", || {
        let missing = "etcd is not installed and could not be installed: put the program `etcd` on the PATH, \
                       for example with `apt-get install etcd-server`";
        if !steps::succeeds(Command::new("apt-get").arg("--version")) {
            bail!("{missing}");
        }
        // An outdated list still may name the package, so a failed update is not the end.
        if !steps::succeeds(Command::new("apt-get").args(["update", "-qq"])) {
            eprintln!("apt-get update failed; trying with the list at hand");
        }
        for package in ETCD_PACKAGES {
            let mut install = Command::new("apt-get");
            install.args(["install", "-y", "-qq", "--no-install-recommends", package]);
            // The package would otherwise start a server of its own.
            install.env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
            if steps::succeeds(&mut install) && has_etcd() {
                return Ok(());
            }
        }
        bail!("{missing}")
    })
}

fn has_etcd() -> bool {
    steps::succeeds(Command::new("etcd").arg("--version"))
}
