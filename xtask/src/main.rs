//! `cargo xtask`: the front door of the repository.
//!
//! Relies on cargo, and on rustup to add the target that components are compiled for. Promises that each
//! step prints its name and duration, that the first failure ends the run with a message and a status
//! other than 0, and that nothing is built that the command does not need. Knows nothing of the product
//! but the names of its crates and binaries.

mod bench;
mod gpu;
mod steps;
mod suite;
mod tidy;
mod wasm;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::steps::{Profile, Workspace};

/// Builds, checks and shows Quorate.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Starts three nodes, runs 10,000 commands through them, kills the leader and then all of them, and
    /// shows that nothing acknowledged was lost.
    Demo {
        /// Build without optimisation: faster to build, slower to run.
        #[arg(long)]
        dev: bool,
        /// Arguments of `quorate demo`, such as `--output json`, `--keep`, `--scenario workflow` or
        /// `--protocol hotstuff`, with which one of four nodes lies.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Everything that must hold before a change is taken: format, lints, components, tests, documents.
    Test,
    /// Checks the source against the house rules: arrows between crates, lengths, stray markers.
    Tidy,
    /// Builds the components into `<target>/components`: the examples and the products.
    Plugins {
        /// Use the unoptimised `quorate` binary to build them.
        #[arg(long)]
        dev: bool,
    },
    /// Runs the simulator; arguments are passed through, such as `--seeds 500 --output json`.
    Sim {
        /// Arguments of `quorate-sim`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Builds and checks the kernels that verify votes on a graphics card.
    Gpu {
        #[command(subcommand)]
        task: GpuTask,
    },
    /// Runs a benchmark: `peers` compares with etcd, any other name is one of `benches/`.
    Bench {
        /// `peers`, or the name of a file in `benches/benches`.
        name: String,
        /// Arguments of the benchmark, such as `--rounds 1 --seconds 5`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

#[derive(Subcommand)]
enum GpuTask {
    /// Compiles the kernels with pinned compilers, into `host/votes/kernels/built`.
    Build,
    /// Compiles them again and compares.
    Verify,
    /// Builds one program that measures a card wherever there is one.
    BenchBundle,
}

fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    let workspace = Workspace::find()?;
    match task {
        Task::Demo { dev, arguments } => demo(&workspace, Profile::dev_if(dev), &arguments),
        Task::Test => suite::test(&workspace),
        Task::Tidy => suite::tidy(&workspace),
        Task::Plugins { dev } => {
            let profile = Profile::dev_if(dev);
            workspace.build_product(profile)?;
            wasm::build_components(&workspace, profile, wasm::COMPONENTS)
        }
        Task::Sim { arguments } => sim(&workspace, &arguments),
        Task::Gpu { task } => match task {
            GpuTask::Build => gpu::build(&workspace),
            GpuTask::Verify => gpu::verify(&workspace),
            GpuTask::BenchBundle => gpu::bench_bundle(&workspace),
        },
        Task::Bench { name, arguments } => bench::run(&workspace, &name, &arguments),
    }
}

/// Builds the binary and the scenario's component, and hands over to `quorate demo`.
fn demo(workspace: &Workspace, profile: Profile, arguments: &[String]) -> Result<()> {
    let given = arguments.join(" ").replace('=', " ");
    let is_workflow = given.contains("--scenario workflow");
    let component = if is_workflow { "workflow" } else { "ledger" };
    // One node of a HotStuff cluster lies, so that demonstration has a build of its own.
    let lies = given.contains("--protocol hotstuff");
    workspace.build_product(profile)?;
    if lies {
        workspace.build_planted(profile)?;
    }
    wasm::build_components(workspace, profile, &[component])?;
    workspace.step("demo", || {
        let name = if lies { steps::PLANTED } else { steps::PRODUCT };
        let mut command = workspace.binary(profile, name);
        command.arg("demo").arg("--component").arg(workspace.component(component));
        let file = |name: &str| workspace.root.join(name);
        if is_workflow {
            command.arg("--definition").arg(file("plugins/workflow/examples/order-fulfilment/workflow.yaml"));
            command.arg("--commands").arg(file("plugins/workflow/examples/order-fulfilment/orders.jsonl"));
        } else {
            command.arg("--commands").arg(file("sdk/examples/ledger/commands.jsonl"));
        }
        steps::run(command.args(arguments))
    })
}

fn sim(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    wasm::ensure_tools(workspace)?;
    workspace.step("build the simulator", || {
        steps::run(workspace.cargo("build").args([
            "--release",
            "--package",
            "quorate-sim",
            "--bin",
            "quorate-sim",
        ]))
    })?;
    workspace.step("sim", || steps::run(workspace.binary(Profile::Release, "quorate-sim").args(arguments)))
}
