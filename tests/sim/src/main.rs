//! `quorate-sim`: runs seeds, twins and sizes, and says what they found.
//!
//! Relies on the library for everything but arguments and output. Promises progress and words on standard
//! error, one JSON object on the last line of standard output if asked for, and exit status 0 only if all
//! held.

use std::num::NonZero;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use quorate_runtime::Component;
use quorate_sim::{
    Campaign, CampaignReport, CampaignResult, FaultSet, Finder, Planted, PlantedFound, PlantedReport, Twins,
    name_of, tell,
};
use quorate_types::Protocol;
use serde::Serialize;

/// The last events that are shown of a run that found something.
const LINES_SHOWN: usize = 60;
/// Runs that found something and are told in words.
const TOLD_MAX: usize = 3;

/// Runs a simulated cluster under many seeds and checks its invariants after every event.
#[derive(Debug, Parser)]
#[command(name = "quorate-sim", version)]
struct Arguments {
    /// How many seeds; with --planted, how many may be tried for each bug.
    #[arg(long, default_value_t = 500)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    seed_start: u64,
    /// What orders commands: raft if left out; with --planted, the bugs of this protocol alone.
    #[arg(long, value_enum)]
    protocol: Option<ProtocolName>,
    /// all, none, or names with commas between: loss, delay, duplication, reordering, partition, crash,
    /// slow-disk, clock; of members that lie, under hotstuff: equivocation, withheld-votes, invalid-signatures,
    /// replay, stale-views, fabricated-certificates, lying-sync, invalid-parents, flooding, targeted-delay,
    /// mutation.
    #[arg(long, default_value_t = FaultSet::all())]
    faults: FaultSet,
    /// Plant a bug, or each in turn with `all`, and expect it to be found.
    #[arg(long, value_name = "NAME")]
    planted: Option<String>,
    /// Look for each planted bug in so many disjoint ranges of seeds, and report the median.
    #[arg(long, default_value = "10", requires = "planted")]
    ranges: NonZero<u64>,
    /// Run two replicas with one key over generated partitions and leaders, under both commit rules.
    #[arg(long, conflicts_with_all = ["planted", "trace"])]
    twins: bool,
    /// How many scenarios of twins, under each rule.
    #[arg(long, default_value_t = 100_000)]
    scenarios: u64,
    /// The first scenario.
    #[arg(long, default_value_t = 0)]
    scenario_start: u64,
    /// Run groups of 4 to 100 members and report messages per decision, memory and disk.
    #[arg(long, conflicts_with_all = ["planted", "trace", "twins"])]
    sizes: bool,
    /// Run one seed and print all that happens.
    #[arg(long, value_name = "SEED")]
    trace: Option<u64>,
    /// A ledger component to run instead of building it.
    #[arg(long, value_name = "FILE")]
    component: Option<PathBuf>,
    /// How many seeds run at once; as many as there are processors if left out.
    #[arg(long)]
    threads: Option<NonZero<usize>>,
    /// What is printed on standard output.
    #[arg(long, value_enum, default_value = "text")]
    output: OutputForm,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ProtocolName {
    Raft,
    Hotstuff,
}

impl From<ProtocolName> for Protocol {
    fn from(name: ProtocolName) -> Self {
        match name {
            ProtocolName::Raft => Self::Raft,
            ProtocolName::Hotstuff => Self::HotStuff,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OutputForm {
    Text,
    Json,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

type Outcome = Result<bool, Box<dyn std::error::Error>>;

fn run(arguments: &Arguments) -> Outcome {
    let given = arguments.protocol.map(Protocol::from);
    if arguments.twins || arguments.sizes {
        if given == Some(Protocol::Raft) {
            return Err("twins and sizes are of hotstuff; leave --protocol raft out".into());
        }
        return if arguments.twins { run_twins(arguments) } else { run_sizes(arguments) };
    }
    let bugs = match arguments.planted.as_deref() {
        None => Vec::new(),
        Some("all") => {
            let all = Planted::ALL.iter().copied();
            all.filter(|bug| given.is_none_or(|protocol| bug.protocol() == protocol)).collect()
        }
        Some(name) => vec![Planted::named(name).ok_or_else(|| unknown_bug(name))?],
    };
    let component = quorate_sim::load(arguments.component.as_deref())?;
    match (arguments.trace, bugs.first().copied()) {
        (Some(seed), bug) => run_trace(arguments, seed, bug, &component),
        (None, None) => run_campaign(arguments, &component),
        (None, Some(_)) => run_planted(arguments, &bugs, &component),
    }
}

impl Arguments {
    fn threads(&self) -> NonZero<usize> {
        self.threads.or_else(|| std::thread::available_parallelism().ok()).unwrap_or(NonZero::<usize>::MIN)
    }

    fn campaign(&self, planted: Option<Planted>) -> Campaign {
        let given = self.protocol.map_or(Protocol::Raft, Protocol::from);
        Campaign {
            seed_start: self.seed_start,
            seeds: self.seeds,
            protocol: planted.map_or(given, Planted::protocol),
            faults: self.faults.clone(),
            planted,
            threads: self.threads().get(),
        }
    }

    fn print(&self, report: &impl Serialize) -> Result<(), serde_json::Error> {
        match self.output {
            OutputForm::Json => println!("{}", serde_json::to_string(report)?),
            OutputForm::Text => println!("{}", serde_json::to_string_pretty(report)?),
        }
        Ok(())
    }
}

fn run_trace(arguments: &Arguments, seed: u64, bug: Option<Planted>, component: &Component) -> Outcome {
    let (result, lines) = tell(&arguments.campaign(bug).settings(seed), component, usize::MAX);
    lines.iter().for_each(|line| println!("{line}"));
    println!("trace hash {}", result.trace);
    Ok(match result.ran {
        Ok(ran) => {
            println!("{ran:#?}");
            ran.unhealed.is_none() && ran.statistics.below_floor(&arguments.faults).is_empty()
        }
        Err(violation) => {
            println!("violation of {violation}");
            false
        }
    })
}

fn run_campaign(arguments: &Arguments, component: &Component) -> Outcome {
    let campaign = arguments.campaign(None);
    let result = campaign.run(component, |done| progress(done, campaign.seeds))?;
    explain(&campaign, &result, component);
    let report = CampaignReport::new(&campaign, &result);
    arguments.print(&report)?;
    Ok(report.is_good())
}

fn run_planted(arguments: &Arguments, bugs: &[Planted], component: &Component) -> Outcome {
    let mut report = PlantedReport { planted: Vec::new() };
    for bug in bugs {
        let mut found = look_for(arguments, *bug, 0, component)?;
        for range in 1..arguments.ranges.get() {
            found.join(&look_for(arguments, *bug, range, component)?);
        }
        let verdict = if found.found { "found" } else { "NOT FOUND" };
        let (what, took) =
            (if bug.finder() == Finder::Twins { "scenarios" } else { "seeds" }, &found.seeds_by_range);
        eprintln!("{}: {verdict} in {took:?} {what}, median {}", found.name, found.seeds_median);
        report.planted.push(found);
    }
    arguments.print(&report)?;
    Ok(report.planted.iter().all(|bug| bug.found))
}

/// Looks for a bug in one of several ranges that follow one another.
fn look_for(
    arguments: &Arguments,
    bug: Planted,
    range: u64,
    component: &Component,
) -> std::io::Result<PlantedFound> {
    if bug.finder() == Finder::Twins {
        let first = arguments.scenario_start + range * arguments.scenarios;
        let (scenarios, threads) = (arguments.scenarios, arguments.threads());
        let twins = Twins { first, scenarios, planted: Some(bug), threads };
        return Ok(PlantedFound::among_twins(bug, &twins.run(|_, _| {})?));
    }
    let campaign = arguments.campaign(Some(bug));
    let seed_start = campaign.seed_start + range * campaign.seeds;
    let campaign = Campaign { seed_start, ..campaign };
    Ok(PlantedFound::new(bug, &campaign, &campaign.run(component, |_| {})?))
}

fn run_twins(arguments: &Arguments) -> Outcome {
    let twins = Twins {
        first: arguments.scenario_start,
        scenarios: arguments.scenarios,
        planted: None,
        threads: arguments.threads(),
    };
    let report = twins.run(|rule, done| {
        if done.is_multiple_of(5_000) || done == twins.scenarios {
            eprintln!("{rule}: {done} of {} scenarios", twins.scenarios);
        }
    })?;
    for rule in &report.rules {
        rule.found.iter().for_each(|(number, what)| eprintln!("{}: scenario {number}: {what}", rule.rule));
    }
    arguments.print(&report)?;
    Ok(report.is_good())
}

/// What groups of several sizes gave.
#[derive(Serialize)]
struct SizesReport {
    protocol: &'static str,
    sizes: Vec<quorate_sim::SizeReport>,
}

fn run_sizes(arguments: &Arguments) -> Outcome {
    let report = SizesReport { protocol: name_of(Protocol::HotStuff), sizes: quorate_sim::sizes() };
    arguments.print(&report)?;
    Ok(report.sizes.iter().all(|size| size.fault.is_none()))
}

fn unknown_bug(name: &str) -> String {
    let names: Vec<_> = Planted::ALL.iter().map(|bug| bug.name()).collect();
    format!("there is no planted bug named {name:?}; use all or one of: {}", names.join(", "))
}

fn progress(done: u64, of: u64) {
    if done.is_multiple_of(50) || done == of {
        eprintln!("{done} of {of} seeds");
    }
}

/// Says on standard error what went wrong, and how to see it again.
fn explain(campaign: &Campaign, result: &CampaignResult, component: &Component) {
    for (seed, violation) in result.violations().take(TOLD_MAX) {
        eprintln!("\nseed {seed} violates {violation}\nthe last events:");
        let (_, lines) = tell(&campaign.settings(seed), component, LINES_SHOWN);
        lines.iter().for_each(|line| eprintln!("  {line}"));
        eprintln!("again: {} --trace {seed}", again(campaign));
    }
    result
        .violations()
        .skip(TOLD_MAX)
        .for_each(|(seed, violation)| eprintln!("seed {seed} violates {violation}"));
    for (seed, why) in result.unhealed() {
        eprintln!("seed {seed} did not heal: {why}; again: {} --trace {seed}", again(campaign));
    }
    for (seed, missed) in result.below_floor(&campaign.faults) {
        eprintln!("seed {seed} exercised too little: {}", missed.join(", "));
    }
}

/// The command that runs seeds of a campaign again.
fn again(campaign: &Campaign) -> String {
    let (protocol, faults) = (name_of(campaign.protocol), &campaign.faults);
    format!("cargo xtask sim --protocol {protocol} --faults {faults}")
}
