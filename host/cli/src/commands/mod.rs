//! The commands, one file per subject, and how they end.
//!
//! Relies on the client library, the node and the rooms beside this one. Promises that a failure is shown
//! once and gives the process its exit status. Knows no protocol.

mod call;
mod component;
mod config;
mod dev;
pub(crate) mod evidence;
mod group;
mod node;
mod pki;
mod status;
mod watch;

use std::process::ExitCode;

use anyhow::Result;
use clap::CommandFactory;

use crate::arguments::{Arguments, Command};
use crate::output::Output;
use crate::threads::on_one_thread;
use crate::{bench, demo, exit, votes, workflow};

/// Carries out what the arguments say and shows how it ended.
#[must_use]
pub fn run(arguments: Arguments) -> ExitCode {
    let output = Output::new(arguments.output);
    match carry_out(arguments.command, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output.error(&error);
            ExitCode::from(exit::kind(&error).status())
        }
    }
}

fn carry_out(command: Command, output: Output) -> Result<()> {
    match command {
        Command::Node(command) => node::run(command, output),
        Command::Config(command) => config::run(command, output),
        Command::Dev(arguments) => dev::run(&arguments, output),
        Command::Pki(command) => pki::run(command, output),
        Command::Group(command) => on_one_thread(group::run(command, output)),
        Command::Evidence(command) => on_one_thread(evidence::run(command, output)),
        Command::Component(command) => component::run(command, output),
        Command::Deploy(arguments) => on_one_thread(component::deploy(arguments, output)),
        Command::Submit(arguments) => on_one_thread(call::submit(arguments, output)),
        Command::Query(arguments) => on_one_thread(call::query(arguments, output)),
        Command::Watch(arguments) => on_one_thread(watch::run(arguments, output)),
        Command::Workflow(command) => on_one_thread(workflow::run(command, output)),
        Command::Status(arguments) => on_one_thread(status::run(arguments, output)),
        Command::TransferLeader(arguments) => on_one_thread(group::transfer_leader(arguments, output)),
        Command::Snapshot(arguments) => on_one_thread(group::snapshot(arguments, output)),
        Command::Bench(arguments) => bench::run(&arguments, output),
        Command::Votes(command) => votes::run(&command, output),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Arguments::command(), "quorate", &mut std::io::stdout());
            Ok(())
        }
        Command::Demo(arguments) => on_one_thread(demo::run(arguments, output)),
    }
}
