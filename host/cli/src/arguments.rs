//! What the command line accepts.
//!
//! Relies on clap. Promises that every argument is documented in `--help`, and that what can be checked
//! without a node is checked here. Knows nothing of how commands are carried out.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use quorate_transport::pki::Role;
use quorate_votes::THREADS_MAX;
use quorate_votes::measure::SIZES;

use crate::exit;
use crate::workflow::WorkflowCommand;

/// A consensus node whose state machines are WebAssembly components.
#[derive(Debug, Parser)]
#[command(name = "quorate", version, after_help = exit::HELP)]
pub struct Arguments {
    /// Tables for people, or JSON for programs: one object or array on the last line.
    #[arg(long, global = true, value_enum, default_value = "table")]
    pub output: Format,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// How results are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Everything `quorate` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs nodes.
    #[command(subcommand)]
    Node(NodeCommand),
    /// Looks at a node's configuration without starting it.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Runs a whole cluster in this process, for development: real TLS, a data directory per node.
    Dev(DevArguments),
    /// Makes certificates.
    #[command(subcommand)]
    Pki(PkiCommand),
    /// Creates groups and looks at them.
    #[command(subcommand)]
    Group(GroupCommand),
    /// Looks at proofs that replicas lied.
    #[command(subcommand)]
    Evidence(EvidenceCommand),
    /// Builds, checks and publishes components.
    #[command(subcommand)]
    Component(ComponentCommand),
    /// Makes a published component the active one of a group.
    Deploy(DeployArguments),
    /// Submits commands to a group's component.
    Submit(SubmitArguments),
    /// Asks a group's component.
    Query(QueryArguments),
    /// Follows a group's events until interrupted.
    Watch(WatchArguments),
    /// Defines workflows, runs cases and serves their functions.
    #[command(subcommand)]
    Workflow(WorkflowCommand),
    /// Shows how each node is.
    Status(StatusArguments),
    /// Hands a group's leadership to another node.
    TransferLeader(TransferArguments),
    /// Takes a checkpoint of a group's state at one node, so that its log can be cut.
    Snapshot(SnapshotArguments),
    /// Measures commands per second and latency.
    Bench(BenchArguments),
    /// Measures how votes are verified on this machine: on its processor, and on a device if it has one.
    #[command(subcommand)]
    Votes(VotesCommand),
    /// Prints a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Kills nodes of a cluster of its own and shows that nothing acknowledged is lost.
    #[command(hide = true)]
    Demo(DemoArguments),
}

/// Which cluster to speak with, and as whom.
#[derive(Clone, Debug, Default, Args)]
pub struct ConnectionArguments {
    /// A node's address for clients, as host:port. May be repeated.
    #[arg(long, value_name = "HOST:PORT", help_heading = "Connection")]
    pub endpoint: Vec<String>,
    /// Certificate of the cluster's authority, PEM.
    #[arg(long, value_name = "FILE", help_heading = "Connection")]
    pub ca: Option<PathBuf>,
    /// This client's certificate, PEM.
    #[arg(long, value_name = "FILE", help_heading = "Connection")]
    pub cert: Option<PathBuf>,
    /// This client's key, PEM.
    #[arg(long, value_name = "FILE", help_heading = "Connection")]
    pub key: Option<PathBuf>,
    /// A file that names all of these, as `quorate dev` writes one [default: .quorate/dev.json]
    #[arg(long, value_name = "FILE", env = "QUORATE_CONTEXT", help_heading = "Connection")]
    pub context: Option<PathBuf>,
    /// How long to try, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "10", help_heading = "Connection")]
    pub timeout: u64,
}

/// `quorate node`.
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// Runs a node until it is told to stop. Prints one line when it is ready.
    Run(NodeArguments),
}

/// A node's configuration: flags over environment (`QUORATE_LISTEN__API=..`) over file over default.
#[derive(Clone, Debug, Default, Args)]
pub struct ConfigArguments {
    /// The configuration, TOML.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// This node's number (`node.id`).
    #[arg(long, value_name = "NUMBER")]
    pub id: Option<u64>,
    /// The data directory (`node.data`).
    #[arg(long, value_name = "DIRECTORY")]
    pub data: Option<PathBuf>,
    /// Where clients are served (`listen.api`).
    #[arg(long, value_name = "IP:PORT")]
    pub listen_api: Option<String>,
    /// Where other nodes are served (`listen.peer`).
    #[arg(long, value_name = "IP:PORT")]
    pub listen_peer: Option<String>,
    /// Any other key, such as `raft.heartbeat_ms=50`. May be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// `quorate node run`.
#[derive(Clone, Debug, Args)]
pub struct NodeArguments {
    /// Its configuration.
    #[command(flatten)]
    pub config: ConfigArguments,
    /// What to log, such as `info` or `quorate_node=debug,warn`.
    #[arg(long, value_name = "FILTER", default_value = "info", env = "RUST_LOG")]
    pub log: String,
    /// Log lines as JSON.
    #[arg(long)]
    pub log_json: bool,
    /// Stop when standard input ends, so that the node never outlives the program that started it.
    #[arg(long, hide = true)]
    pub stop_with_stdin: bool,
}

/// `quorate config`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Shows every value and where it came from.
    Explain(ConfigArguments),
    /// Checks the configuration and says what is wrong with it.
    Check(ConfigArguments),
}

/// `quorate dev`.
#[derive(Clone, Debug, Args)]
pub struct DevArguments {
    /// How many nodes.
    #[arg(long, default_value = "3", value_parser = clap::value_parser!(u64).range(1..=9))]
    pub nodes: u64,
    /// Keep certificates and data here and use them again; otherwise all is gone at the end.
    #[arg(long, value_name = "DIRECTORY")]
    pub data: Option<PathBuf>,
    /// Where to write the context that other commands find by themselves.
    #[arg(long, value_name = "FILE", default_value = crate::connection::DEFAULT_CONTEXT)]
    pub context: PathBuf,
    /// What to log.
    #[arg(long, value_name = "FILTER", default_value = "warn", env = "RUST_LOG")]
    pub log: String,
    /// Stop when standard input ends.
    #[arg(long, hide = true)]
    pub stop_with_stdin: bool,
}

/// `quorate pki`.
#[derive(Debug, Subcommand)]
pub enum PkiCommand {
    /// Makes a cluster's authority: `ca.pem` for everyone, `ca-key.pem` for you alone.
    Init {
        /// The directory of certificates.
        #[arg(long, value_name = "DIRECTORY", default_value = "pki")]
        dir: PathBuf,
    },
    /// Issues a node's certificate, and makes its consensus key unless there is one.
    Node {
        /// The node's number.
        #[arg(value_parser = clap::value_parser!(u64).range(1..))]
        id: u64,
        /// A name or address by which clients reach it, besides localhost. May be repeated.
        #[arg(long, value_name = "HOST")]
        host: Vec<String>,
        /// The directory of certificates.
        #[arg(long, value_name = "DIRECTORY", default_value = "pki")]
        dir: PathBuf,
    },
    /// Issues a client's certificate.
    Client {
        /// The client's name, for logs.
        name: String,
        /// What it may do: reader, writer, operator or admin.
        #[arg(long, default_value = "writer", value_parser = parse_role)]
        role: Role,
        /// The directory of certificates.
        #[arg(long, value_name = "DIRECTORY", default_value = "pki")]
        dir: PathBuf,
    },
}

/// `quorate group`.
#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// Creates a group.
    Create {
        /// Its name: a to z, 0 to 9 and `-`, beginning with a letter.
        name: String,
        /// The nodes that replicate it, such as 1,2,3.
        #[arg(long, value_delimiter = ',', conflicts_with = "replicas")]
        nodes: Vec<u64>,
        /// How many nodes replicate it; the first of the cluster are taken [default: all]
        #[arg(long)]
        replicas: Option<usize>,
        /// What faults it is made for [default: byzantine with --protocol hotstuff, otherwise crash]
        #[arg(long, value_enum)]
        kind: Option<Kind>,
        /// What orders its commands [default: hotstuff with --kind byzantine, otherwise raft]
        #[arg(long, value_enum)]
        protocol: Option<Protocol>,
        /// The cluster.
        #[command(flatten)]
        connection: ConnectionArguments,
    },
    /// Lists all groups.
    List {
        /// The cluster.
        #[command(flatten)]
        connection: ConnectionArguments,
    },
    /// Shows a group with its replicas, and of each whether it can be trusted.
    #[command(visible_alias = "status")]
    Describe {
        /// Its name or number.
        group: String,
        /// The cluster.
        #[command(flatten)]
        connection: ConnectionArguments,
    },
}

/// `quorate evidence`.
#[derive(Debug, Subcommand)]
pub enum EvidenceCommand {
    /// Lists the proofs that members of a group lied.
    List {
        /// The group's name or number.
        group: String,
        /// The cluster.
        #[command(flatten)]
        connection: ConnectionArguments,
    },
    /// Fetches the proofs and verifies each here, with the keys of the group's members. Fails if one proves
    /// nothing.
    Verify {
        /// The group's name or number.
        group: String,
        /// The cluster.
        #[command(flatten)]
        connection: ConnectionArguments,
    },
}

/// What faults a group is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Replicas may stop; all that speak tell the truth.
    Crash,
    /// Crash faults, and a Byzantine protocol when threatened.
    Hybrid,
    /// Up to a third of the replicas may lie.
    Byzantine,
}

/// What orders the commands of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// Raft.
    Raft,
    /// PBFT.
    Pbft,
    /// HotStuff.
    Hotstuff,
}

impl Protocol {
    /// Its name, as it is given.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Raft => "raft",
            Self::Pbft => "pbft",
            Self::Hotstuff => "hotstuff",
        }
    }
}

/// `quorate component`.
#[derive(Debug, Subcommand)]
pub enum ComponentCommand {
    /// Builds a Rust crate into a component and checks it.
    Build {
        /// The crate's directory.
        #[arg(default_value = ".")]
        dir: PathBuf,
        /// Where to put the component; otherwise it stays where cargo builds it.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Show the compiler's messages as they come.
        #[arg(long)]
        verbose: bool,
    },
    /// Checks a component without a cluster and shows what it imports, exports and says of itself.
    Check {
        /// The component.
        file: PathBuf,
    },
    /// Publishes a component in the cluster.
    Push {
        /// The component.
        file: PathBuf,
        /// The cluster.
        #[command(flatten)]
        connection: ConnectionArguments,
    },
    /// Lists all published components.
    List {
        /// The cluster.
        #[command(flatten)]
        connection: ConnectionArguments,
    },
}

/// `quorate deploy`.
#[derive(Debug, Args)]
pub struct DeployArguments {
    /// The group's name or number.
    pub group: String,
    /// The component: its digest, name@version, or name for its greatest version.
    pub component: String,
    /// What its `init` receives, JSON.
    #[arg(long, value_name = "JSON")]
    pub parameters: Option<String>,
    /// The cluster.
    #[command(flatten)]
    pub connection: ConnectionArguments,
}

/// `quorate submit`.
#[derive(Debug, Args)]
pub struct SubmitArguments {
    /// The group's name or number.
    pub group: String,
    /// The command's name, or `-` to read lines {"command":"..","body":{..}} from standard input.
    pub name: String,
    /// Its arguments, JSON.
    #[arg(default_value = "{}")]
    pub body: String,
    /// With `-`: how many commands are on their way at once. With more than one, they may be carried out
    /// in another order.
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u64).range(1..=1_024))]
    pub in_flight: u64,
    /// The cluster.
    #[command(flatten)]
    pub connection: ConnectionArguments,
}

/// `quorate query`.
#[derive(Debug, Args)]
pub struct QueryArguments {
    /// The group's name or number.
    pub group: String,
    /// The query's name.
    pub name: String,
    /// Its arguments, JSON.
    #[arg(default_value = "{}")]
    pub body: String,
    /// Whatever the asked node has applied, without asking the leader.
    #[arg(long)]
    pub stale: bool,
    /// The cluster.
    #[command(flatten)]
    pub connection: ConnectionArguments,
}

/// `quorate watch`.
#[derive(Debug, Args)]
pub struct WatchArguments {
    /// The group's name or number.
    pub group: String,
    /// Events of this topic only. May be repeated.
    #[arg(long)]
    pub topic: Vec<String>,
    /// From this log index on, as far as the node still has the events.
    #[arg(long, value_name = "INDEX")]
    pub from: Option<u64>,
    /// End after this many events.
    #[arg(long, value_name = "NUMBER")]
    pub events: Option<u64>,
    /// The cluster.
    #[command(flatten)]
    pub connection: ConnectionArguments,
}

/// `quorate status`.
#[derive(Debug, Args)]
pub struct StatusArguments {
    /// The cluster.
    #[command(flatten)]
    pub connection: ConnectionArguments,
}

/// `quorate transfer-leader`.
#[derive(Debug, Args)]
pub struct TransferArguments {
    /// The group's name or number.
    pub group: String,
    /// The node that shall lead; 0 for the member with the longest log.
    pub node: u64,
    /// The cluster.
    #[command(flatten)]
    pub connection: ConnectionArguments,
}

/// `quorate snapshot`.
#[derive(Debug, Args)]
pub struct SnapshotArguments {
    /// The group's name or number.
    pub group: String,
    /// At this node only; in groups that survive lies all take one, and this one answers [default: at every member]
    #[arg(long, value_name = "NUMBER")]
    pub node: Option<u64>,
    /// The cluster.
    #[command(flatten)]
    pub connection: ConnectionArguments,
}

/// `quorate bench`: without `--endpoint` or `--context`, a cluster of its own.
#[derive(Clone, Debug, Args)]
pub struct BenchArguments {
    /// Nodes of the cluster that is started, each a process with mutual TLS and durable storage.
    #[arg(long, default_value = "3", value_parser = clap::value_parser!(u64).range(1..=9))]
    pub nodes: u64,
    /// What orders the commands of the group that is created.
    #[arg(long, value_enum, default_value_t = Protocol::Raft)]
    pub protocol: Protocol,
    /// Kill so many of these nodes before the measurement, the leader first.
    #[arg(long, default_value = "0", value_parser = clap::value_parser!(u64).range(0..=8))]
    pub kill: u64,
    /// The last node lies: it signs two statements where an honest one signs one.
    #[arg(long, hide = !cfg!(feature = "planted"))]
    pub lie: bool,
    /// Clients, each with one command outstanding.
    #[arg(long, default_value = "256", value_parser = clap::value_parser!(u64).range(1..=65_536))]
    pub clients: u64,
    /// Connections that the clients share; 0 for one connection per client.
    #[arg(long, default_value = "16")]
    pub connections: u64,
    /// Bytes of each value.
    #[arg(long, default_value = "256", value_parser = clap::value_parser!(u64).range(1..=65_536))]
    pub size: u64,
    /// How long to measure, in seconds, after two seconds that do not count.
    #[arg(long, default_value = "10", value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub seconds: u64,
    /// Threads of the generator.
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u64).range(1..=64))]
    pub threads: u64,
    /// The key-value component [default: components/kv.wasm in cargo's target directory]
    #[arg(long, value_name = "FILE")]
    pub component: Option<PathBuf>,
    /// Directory of the cluster's data; a disk worth measuring [default: the system's temporary one]
    #[arg(long, value_name = "DIRECTORY")]
    pub work: Option<PathBuf>,
    /// The group that is used, and created if it is not there.
    #[arg(long, default_value = "bench")]
    pub group: String,
    /// An existing cluster.
    #[command(flatten)]
    pub connection: ConnectionArguments,
}

/// `quorate votes`.
#[derive(Debug, Subcommand)]
pub enum VotesCommand {
    /// Measures batches of several sizes on every side there is. Each verdict that is timed is checked.
    Bench(VotesBenchArguments),
    /// Shows which devices and kernels there are, what both sides cost, and from which batch on a device is used.
    Status(VotesArguments),
}

/// What of this machine verifies votes.
#[derive(Clone, Copy, Debug, Args)]
pub struct VotesArguments {
    /// Threads of the processor, 1 to 64 [default: as many as the processor has]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=THREADS_MAX as u64))]
    pub threads: Option<u64>,
    /// Leaves devices out.
    #[arg(long)]
    pub no_device: bool,
}

/// `quorate votes bench`.
#[derive(Clone, Debug, Args)]
pub struct VotesBenchArguments {
    /// Votes of a batch, 1 to 131072. May be repeated or separated by commas.
    #[arg(long, value_name = "COUNT", value_delimiter = ',', default_values_t = SIZES.map(|size| size as u64))]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=131_072))]
    pub votes: Vec<u64>,
    /// The machine.
    #[command(flatten)]
    pub machine: VotesArguments,
}

/// `quorate demo`.
#[derive(Clone, Debug, Args)]
pub struct DemoArguments {
    /// What is shown.
    #[arg(long, value_enum, default_value_t = Scenario::Ledger)]
    pub scenario: Scenario,
    /// The component: the ledger, or the workflow component.
    #[arg(long, value_name = "FILE")]
    pub component: PathBuf,
    /// The ledger's commands or the orders, one JSON object per line.
    #[arg(long, value_name = "FILE")]
    pub commands: PathBuf,
    /// The definition that the orders are cases of.
    #[arg(long, value_name = "FILE", required_if_eq("scenario", "workflow"))]
    pub definition: Option<PathBuf>,
    /// What orders the ledger's commands: three nodes run Raft, four run HotStuff.
    #[arg(long, value_enum, default_value_t = Protocol::Raft)]
    pub protocol: Protocol,
    /// Clients that submit at the same time, each with a session of its own.
    #[arg(long, default_value = "32", value_parser = clap::value_parser!(u64).range(1..=1_024))]
    pub sessions: u64,
    /// Keep the cluster's directory and say how to start it again.
    #[arg(long)]
    pub keep: bool,
    /// Where to keep it [default: a new directory in the system's temporary one]
    #[arg(long, value_name = "DIRECTORY")]
    pub work: Option<PathBuf>,
}

/// What the demonstration shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Accounts and transfers, through the loss of the leader and then of every node.
    Ledger,
    /// Orders as durable cases with outside workers, through the loss of the leader.
    Workflow,
}

fn parse_role(text: &str) -> Result<Role, String> {
    text.parse().map_err(|error: quorate_transport::pki::ParseRoleError| error.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_benchmark_of_the_readme_parses() {
        let line = "quorate bench --nodes 3 --clients 256 --size 256 --seconds 10 --output json";
        let arguments = parse(line).unwrap();
        assert_eq!(arguments.output, Format::Json);
        assert!(matches!(arguments.command, Command::Bench(bench) if bench.clients == 256));
    }

    #[test]
    fn output_and_connection_may_stand_after_the_subcommand() {
        let line = "quorate query ledger total --stale --endpoint a:1 --endpoint b:2 --output json";
        let Command::Query(query) = parse(line).unwrap().command else { panic!("not a query") };
        assert_eq!((query.connection.endpoint.len(), query.body.as_str(), query.stale), (2, "{}", true));
    }

    #[test]
    fn values_out_of_range_are_wrong_usage() {
        for line in [
            "quorate bench --clients 0",
            "quorate dev --nodes 0",
            "quorate pki node 0",
            "quorate pki client ada --role king",
            "quorate group create g --nodes 1,2 --replicas 2",
            "quorate query g",
        ] {
            let error = parse(line).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn help_lists_the_exit_statuses() {
        let help = Arguments::command().render_long_help().to_string();
        assert!(help.contains("rejected by the component"));
    }
}
