//! Prints the commands that ship with the ledger, one line of JSON each.

use std::io::Write;

use quorate_ledger::workload::{commands, to_line};

fn main() -> std::io::Result<()> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for command in commands() {
        writeln!(out, "{}", to_line(&command))?;
    }
    out.flush()
}
