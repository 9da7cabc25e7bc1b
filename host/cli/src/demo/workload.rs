//! The commands of the demonstration, read from a file.
//!
//! Relies on the ledger to understand its own lines. Promises that every line is a command before the
//! first is submitted. Knows no cluster.

use std::path::Path;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use quorate_client::value;
use quorate_ledger::{Command, workload};
use serde_json::Value;

use crate::exit::Fault;

/// One line: the command as the ledger's audit and as the client library take it.
#[derive(Clone, Debug)]
pub struct Line {
    /// For the audit.
    pub command: Command,
    /// Its name on the wire.
    pub name: String,
    /// Its arguments on the wire.
    pub body: Bytes,
}

/// All lines.
#[derive(Clone, Debug)]
pub struct Workload {
    /// In the order of the file.
    pub lines: Vec<Line>,
}

impl Workload {
    /// Reads a file of commands.
    ///
    /// # Errors
    ///
    /// Wrong usage: the file cannot be read, or a line is no command of the ledger.
    pub fn read(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file)
            .map_err(|error| Fault::usage(format!("{} cannot be read: {error}", file.display())))?;
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let lines = lines.map(|(at, line)| {
            parse(line)
                .map_err(|error| Fault::usage(format!("{} line {}: {error:#}", file.display(), at + 1)))
        });
        let lines: Vec<_> = lines.collect::<Result<_>>()?;
        if lines.len() < 3 {
            return Err(Fault::usage(format!("{} holds fewer than three commands", file.display())));
        }
        Ok(Self { lines })
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lines.len()
    }
}

fn parse(text: &str) -> Result<Line> {
    let command = workload::from_line(text)?;
    let value: Value = serde_json::from_str(text)?;
    let name = value["command"].as_str().context("the line names no command")?.to_owned();
    Ok(Line { command, name, body: value::json_to_cbor(&value["body"])? })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_shipped_commands_are_all_read() {
        let file = Path::new("../../sdk/examples/ledger/commands.jsonl");
        assert_eq!(Workload::read(file).unwrap().len(), 10_000);
    }

    #[test]
    fn a_line_that_is_no_command_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("commands.jsonl");
        std::fs::write(&file, "{\"command\":\"open\",\"body\":{\"account\":\"a\"}}\n{\"command\":\"rob\"}\n")
            .unwrap();
        let error = Workload::read(&file).unwrap_err();
        assert!(error.to_string().contains("line 2"), "{error}");
    }
}
