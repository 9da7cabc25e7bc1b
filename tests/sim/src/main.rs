//! `quorate-sim`: runs seeds and says what they found.
//!
//! Relies on the library for everything but arguments and output. Promises progress and words on standard
//! error, one JSON object on the last line of standard output if asked for, and exit status 0 only if all
//! held.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use quorate_sim::{
    Campaign, CampaignReport, CampaignResult, FaultSet, Planted, PlantedFound, PlantedReport, tell,
};

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
    /// What orders commands.
    #[arg(long, value_enum, default_value = "raft")]
    protocol: ProtocolName,
    /// all, none, or names with commas between: loss, delay, duplication, reordering, partition, crash,
    /// slow-disk, clock.
    #[arg(long, default_value_t = FaultSet::all())]
    faults: FaultSet,
    /// Plant a bug, or each in turn with `all`, and expect it to be found.
    #[arg(long, value_name = "NAME")]
    planted: Option<String>,
    /// Run one seed and print all that happens.
    #[arg(long, value_name = "SEED")]
    trace: Option<u64>,
    /// A ledger component to run instead of building it.
    #[arg(long, value_name = "FILE")]
    component: Option<PathBuf>,
    /// How many seeds run at once; as many as there are processors if left out.
    #[arg(long)]
    threads: Option<usize>,
    /// What is printed on standard output.
    #[arg(long, value_enum, default_value = "text")]
    output: OutputForm,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ProtocolName {
    Raft,
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

fn run(arguments: &Arguments) -> Result<bool, Box<dyn std::error::Error>> {
    let ProtocolName::Raft = arguments.protocol;
    let bugs = match arguments.planted.as_deref() {
        None => Vec::new(),
        Some("all") => Planted::ALL.iter().map(|(bug, _)| *bug).collect(),
        Some(name) => vec![Planted::named(name).ok_or_else(|| unknown_bug(name))?],
    };
    let component = quorate_sim::load(arguments.component.as_deref())?;
    let threads = arguments.threads.or_else(|| std::thread::available_parallelism().ok().map(usize::from));
    let campaign = |planted| Campaign {
        seed_start: arguments.seed_start,
        seeds: arguments.seeds,
        faults: arguments.faults.clone(),
        planted,
        threads: threads.unwrap_or(1),
    };
    if let Some(seed) = arguments.trace {
        let (result, lines) = tell(&campaign(bugs.first().copied()).settings(seed), &component, usize::MAX);
        lines.iter().for_each(|line| println!("{line}"));
        println!("trace hash {}", result.trace);
        return Ok(match result.ran {
            Ok(ran) => {
                println!("{ran:#?}");
                ran.unhealed.is_none() && ran.statistics.below_floor(&arguments.faults).is_empty()
            }
            Err(violation) => {
                println!("violation of {violation}");
                false
            }
        });
    }
    if bugs.is_empty() {
        let campaign = campaign(None);
        let result = campaign.run(&component, |done| progress(done, campaign.seeds))?;
        explain(&campaign, &result, &component);
        let report = CampaignReport::new(&campaign, &result);
        match arguments.output {
            OutputForm::Json => println!("{}", serde_json::to_string(&report)?),
            OutputForm::Text => println!("{}", serde_json::to_string_pretty(&report)?),
        }
        return Ok(report.is_good());
    }
    let mut report = PlantedReport { planted: Vec::new() };
    for bug in bugs {
        let campaign = campaign(Some(bug));
        let result = campaign.run(&component, |_| {})?;
        let found = PlantedFound::new(bug, &campaign, &result);
        let verdict = if found.found { "found" } else { "NOT FOUND" };
        eprintln!("{}: {verdict} in {} seeds", found.name, found.seeds_to_find);
        report.planted.push(found);
    }
    match arguments.output {
        OutputForm::Json => println!("{}", serde_json::to_string(&report)?),
        OutputForm::Text => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(report.planted.iter().all(|bug| bug.found))
}

fn unknown_bug(name: &str) -> String {
    let names: Vec<_> = Planted::ALL.iter().map(|(_, name)| *name).collect();
    format!("there is no planted bug named {name:?}; use all or one of: {}", names.join(", "))
}

fn progress(done: u64, of: u64) {
    if done.is_multiple_of(50) || done == of {
        eprintln!("{done} of {of} seeds");
    }
}

/// Says on standard error what went wrong, and how to see it again.
fn explain(campaign: &Campaign, result: &CampaignResult, component: &quorate_runtime::Component) {
    for (seed, violation) in result.violations().take(TOLD_MAX) {
        eprintln!("\nseed {seed} violates {violation}\nthe last events:");
        let (_, lines) = tell(&campaign.settings(seed), component, LINES_SHOWN);
        lines.iter().for_each(|line| eprintln!("  {line}"));
        eprintln!("again: cargo xtask sim --faults {} --trace {seed}", campaign.faults);
    }
    result
        .violations()
        .skip(TOLD_MAX)
        .for_each(|(seed, violation)| eprintln!("seed {seed} violates {violation}"));
    for (seed, why) in result.unhealed() {
        eprintln!(
            "seed {seed} did not heal: {why}; again: cargo xtask sim --faults {} --trace {seed}",
            campaign.faults
        );
    }
    for (seed, missed) in result.below_floor(&campaign.faults) {
        eprintln!("seed {seed} exercised too little: {}", missed.join(", "));
    }
}
