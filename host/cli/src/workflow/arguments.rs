//! What `quorate workflow` accepts.
//!
//! Relies on clap. Promises that every argument is documented in `--help`. Knows nothing of how commands
//! are carried out.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::arguments::ConnectionArguments;

/// `quorate workflow`.
#[derive(Debug, Subcommand)]
pub enum WorkflowCommand {
    /// Adds a definition in YAML or JSON.
    Define(DefineArguments),
    /// Starts a case.
    Start(StartArguments),
    /// Shows one case.
    Show(CaseArguments),
    /// Lists cases in the order in which they started.
    List(ListArguments),
    /// Shows what happened in a case, event by event.
    History(CaseArguments),
    /// Ends a case.
    Cancel(CaseArguments),
    /// Halts a case: what comes in is kept, and nothing is done.
    Suspend(CaseArguments),
    /// Lets a halted case go on.
    Resume(CaseArguments),
    /// Gives an event to one case, which holds it until it listens.
    Signal(SignalArguments),
    /// Gives an event to every case that listens to it, and starts what is scheduled by it.
    Publish(PublishArguments),
    /// Defines a workflow, starts a case, waits for its end and prints its output.
    Run(RunArguments),
    /// Serves functions with a program: arguments on its standard input, output on its standard output.
    Worker(WorkerArguments),
}

/// `quorate workflow define`.
#[derive(Debug, Args)]
pub struct DefineArguments {
    /// The group's name or number.
    pub group: String,
    /// The definition.
    pub file: PathBuf,
    /// The cluster.
    #[command(flatten)]
    pub connection: ConnectionArguments,
}

/// `quorate workflow start`.
#[derive(Debug, Args)]
pub struct StartArguments {
    /// The group's name or number.
    pub group: String,
    /// The workflow, as namespace/name.
    pub workflow: String,
    /// Its version [default: the highest]
    #[arg(long)]
    pub version: Option<String>,
    /// A business key: a second start under the same key finds the case of the first.
    #[arg(long)]
    pub business_key: Option<String>,
    /// The input, a file of JSON; `-` for standard input.
    #[arg(long, value_name = "FILE")]
    pub input: Option<PathBuf>,
    /// The cluster.
    #[command(flatten)]
    pub connection: ConnectionArguments,
}

/// `quorate workflow show`, `history`, `cancel`, `suspend` and `resume`.
#[derive(Debug, Args)]
pub struct CaseArguments {
    /// The group's name or number.
    pub group: String,
    /// The case's number.
    pub case: u64,
    /// The cluster.
    #[command(flatten)]
    pub connection: ConnectionArguments,
}

/// `quorate workflow signal`.
#[derive(Debug, Args)]
pub struct SignalArguments {
    /// The case and its group.
    #[command(flatten)]
    pub case: CaseArguments,
    /// The event, a file with a CloudEvent in JSON that has at least `source` and `type`; `-` for standard
    /// input.
    #[arg(long, value_name = "FILE")]
    pub event: PathBuf,
}

/// `quorate workflow publish`.
#[derive(Debug, Args)]
pub struct PublishArguments {
    /// The group's name or number.
    pub group: String,
    /// The event, a file with a CloudEvent in JSON that has at least `source` and `type`; `-` for standard
    /// input.
    #[arg(long, value_name = "FILE")]
    pub event: PathBuf,
    /// The cluster.
    #[command(flatten)]
    pub connection: ConnectionArguments,
}

/// Where a case stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum State {
    /// Running or waiting.
    Active,
    /// Halted.
    Suspended,
    /// Came to its end.
    Completed,
    /// Ended by an error.
    Faulted,
    /// Ended by somebody.
    Cancelled,
}

impl State {
    /// The component's word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Completed => "completed",
            Self::Faulted => "faulted",
            Self::Cancelled => "cancelled",
        }
    }
}

/// `quorate workflow list`.
#[derive(Debug, Args)]
pub struct ListArguments {
    /// The group's name or number.
    pub group: String,
    /// Only cases of this workflow, as namespace/name.
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pub workflow: Option<String>,
    /// Only cases that stand there.
    #[arg(long, value_enum)]
    pub state: Option<State>,
    /// Only cases after this one.
    #[arg(long, value_name = "CASE")]
    pub after: Option<u64>,
    /// How many at most, up to 200.
    #[arg(long, default_value = "50", value_parser = clap::value_parser!(u32).range(1..=200))]
    pub limit: u32,
    /// The cluster.
    #[command(flatten)]
    pub connection: ConnectionArguments,
}

/// `quorate workflow run`.
#[derive(Debug, Args)]
pub struct RunArguments {
    /// The group's name or number.
    pub group: String,
    /// The definition.
    pub file: PathBuf,
    /// The input, a file of JSON; `-` for standard input.
    #[arg(long, value_name = "FILE")]
    pub input: Option<PathBuf>,
    /// How long to wait for the end, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "60")]
    pub wait: u64,
    /// The cluster.
    #[command(flatten)]
    pub connection: ConnectionArguments,
}

/// `quorate workflow worker`.
#[derive(Debug, Args)]
pub struct WorkerArguments {
    /// The group's name or number.
    pub group: String,
    /// A function to serve, such as `http` or `run:shell`. May be repeated.
    #[arg(long, value_name = "NAME", required = true)]
    pub function: Vec<String>,
    /// The program that does it. It reads the arguments as JSON and writes the output as JSON; with another
    /// exit status than 0 the work item fails, and what the program wrote is the error if it is an object.
    #[arg(long, value_name = "PROGRAM")]
    pub exec: PathBuf,
    /// Arguments of the program.
    #[arg(last = true)]
    pub arguments: Vec<String>,
    /// For how many seconds work is claimed before it must be prolonged.
    #[arg(long, value_name = "SECONDS", default_value = "30")]
    #[arg(value_parser = clap::value_parser!(u64).range(3..=86_400))]
    pub lease: u64,
    /// Ends after this many work items.
    #[arg(long, value_name = "COUNT")]
    pub items: Option<u64>,
    /// What others see of who holds a work item.
    #[arg(long, default_value = "quorate-worker")]
    pub name: String,
    /// The cluster.
    #[command(flatten)]
    pub connection: ConnectionArguments,
}
