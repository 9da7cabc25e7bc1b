//! Components: the target they are compiled for, and building the examples.
//!
//! Relies on rustc and rustup, and on `quorate component build`. Promises that what is missing is named
//! together with the command that installs it. Knows nothing of how a component is made.

use std::process::Command;

use anyhow::{Result, bail};

use crate::steps::{self, Profile, Workspace};

/// The target of components.
const TARGET: &str = "wasm32-unknown-unknown";

/// The crates that are built into components, by name.
pub const COMPONENTS: &[&str] = &["kv", "ledger", "workflow"];
/// The folders that hold them.
const FOLDERS: &[&str] = &["sdk/examples", "plugins"];

/// Makes sure that everything can be compiled: the allocator needs `make`, components their target.
pub fn ensure_tools(workspace: &Workspace) -> Result<()> {
    if !steps::succeeds(Command::new("make").arg("--version")) {
        bail!("`make` is missing, which builds the memory allocator: install it (Debian: build-essential)");
    }
    if has_target() {
        return Ok(());
    }
    workspace.step("add the WebAssembly target", || {
        let added = steps::run(Command::new("rustup").args(["target", "add", TARGET]));
        match (added, has_target()) {
            (_, true) => Ok(()),
            (Ok(()), false) => {
                bail!("rustup added {TARGET}, but rustc does not find it: is rustc from rustup?")
            }
            (Err(error), false) => bail!(
                "the Rust target {TARGET} is missing and could not be added ({error}): \
                 install it with `rustup target add {TARGET}` or from your distribution"
            ),
        }
    })
}

/// Builds these components into `<target>/components`. The `quorate` binary must have been built.
pub fn build_components(workspace: &Workspace, profile: Profile, components: &[&str]) -> Result<()> {
    ensure_tools(workspace)?;
    for name in components {
        let folders = FOLDERS.iter().map(|folder| workspace.root.join(folder).join(name));
        let Some(folder) = folders.into_iter().find(|folder| folder.is_dir()) else {
            bail!("there is no component {name} in {}", FOLDERS.join(" or "));
        };
        workspace.step(&format!("build component {name}"), || {
            let mut command = workspace.product(profile);
            command.args(["component", "build"]).arg(&folder);
            steps::run(command.arg("--out").arg(workspace.component(name)).args(["--output", "table"]))
        })?;
    }
    Ok(())
}

/// The directory of the target's libraries exists exactly when the target is installed.
fn has_target() -> bool {
    let output = Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]).output();
    output.is_ok_and(|output| {
        output.status.success()
            && std::path::Path::new(String::from_utf8_lossy(&output.stdout).trim_end()).is_dir()
    })
}
