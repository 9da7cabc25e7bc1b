//! The `quorate` binary.
//!
//! Relies on the library beside it. Promises the exit statuses that `quorate --help` lists. Knows no
//! command.

use std::process::ExitCode;

use clap::Parser;
use quorate_cli::arguments::Arguments;

fn main() -> ExitCode {
    // A reader that closes the pipe early, as `head` does, ends the program quietly.
    quorate_cli::commands::run(Arguments::parse())
}
