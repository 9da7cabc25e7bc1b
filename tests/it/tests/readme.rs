//! Every command of the README's first ten minutes is run as it is written.
//!
//! Relies on blocks fenced as `sh`. Promises that a command which no longer works fails a test. Blocks
//! fenced as `sh background` keep running; those fenced as `sh setup` are what `cargo xtask` does and what
//! has run before any test.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use quorate_it::{Background, binary, component, repository, target_directory};

#[derive(Debug, PartialEq, Eq)]
struct Block {
    fence: String,
    text: String,
}

/// The fenced blocks below a heading whose text contains `heading`, up to the next heading of its level.
fn blocks(readme: &str, heading: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut inside = false;
    let mut open: Option<Block> = None;
    for line in readme.lines() {
        if let Some(block) = &mut open {
            if line.trim() == "```" {
                blocks.extend(open.take());
            } else {
                block.text.push_str(line);
                block.text.push('\n');
            }
        } else if let Some(title) = line.strip_prefix("## ") {
            inside = title.contains(heading);
        } else if inside && let Some(fence) = line.strip_prefix("```") {
            open = Some(Block { fence: fence.trim().to_owned(), text: String::new() });
        }
    }
    blocks
}

fn shell(text: &str, directory: &Path) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    let binaries = binary().parent().unwrap().display().to_string();
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", text]).current_dir(directory);
    command.env("PATH", format!("{binaries}:{path}")).env("CARGO_TARGET_DIR", target_directory());
    command.env_remove("QUORATE_CONTEXT").stdin(Stdio::null());
    command
}

fn run_blocks(blocks: &[Block], directory: &Path) -> Result<()> {
    let mut background = Vec::new();
    for block in blocks {
        match block.fence.as_str() {
            "sh" => {
                let output = shell(&block.text, directory).output()?;
                ensure!(
                    output.status.success(),
                    "this block of the README fails:\n{}\n{}{}",
                    block.text,
                    String::from_utf8_lossy(&output.stdout),
                    String::from_utf8_lossy(&output.stderr),
                );
            }
            "sh background" => {
                let text = format!("exec {}", block.text.trim());
                let mut child = shell(&text, directory).stdout(Stdio::piped()).spawn()?;
                let output = child.stdout.take().expect("standard output is a pipe");
                background.push(Background(child));
                // The first line says that it is ready; the end of the output, that it failed.
                let mut ready = String::new();
                BufReader::new(output).read_line(&mut ready)?;
                ensure!(ready.contains("ready"), "this block of the README is not ready:\n{}", block.text);
            }
            // Output that is shown, and what has been done before.
            _ => {}
        }
    }
    Ok(())
}

/// A directory that looks like the repository's root to the README's commands.
fn stage() -> Result<tempfile::TempDir> {
    let directory = tempfile::tempdir()?;
    symlink(repository().join("sdk"), directory.path().join("sdk"))?;
    let components = directory.path().join("target/components");
    fs::create_dir_all(&components)?;
    for example in ["kv", "ledger"] {
        fs::copy(component(example), components.join(format!("{example}.wasm")))?;
    }
    Ok(directory)
}

fn run_section(heading: &str) -> Result<()> {
    let readme = fs::read_to_string(repository().join("README.md"))?;
    let blocks = blocks(&readme, heading);
    ensure!(blocks.iter().any(|block| block.fence == "sh"), "the README has no commands under {heading:?}");
    run_blocks(&blocks, stage()?.path())
}

#[test]
fn the_first_ten_minutes_of_an_operator_work_as_written() -> Result<()> {
    run_section("for an operator")
}

#[test]
fn the_first_ten_minutes_of_a_component_author_work_as_written() -> Result<()> {
    run_section("for a component author")
}

#[test]
fn a_command_that_fails_is_found() {
    let readme = "## Minutes for an operator\n\n```sh\ntrue\nfalse\n```\n\n## Other\n\n```sh\nexit 3\n```\n";
    let found = blocks(readme, "for an operator");
    assert_eq!(found, [Block { fence: "sh".into(), text: "true\nfalse\n".into() }]);
    let directory = tempfile::tempdir().unwrap();
    let error = run_blocks(&found, directory.path()).unwrap_err();
    assert!(error.to_string().contains("fails"), "{error}");
}
