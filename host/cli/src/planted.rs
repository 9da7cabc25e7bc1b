//! The `quorate` binary with replicas that lie when told to.
//!
//! Relies on the library beside it, built with the feature `planted`. Promises to be `quorate` in all else. For
//! demonstrations and benchmarks alone: no default build has it.

use std::process::ExitCode;

use clap::Parser;
use quorate_cli::arguments::Arguments;

fn main() -> ExitCode {
    quorate_cli::commands::run(Arguments::parse())
}
