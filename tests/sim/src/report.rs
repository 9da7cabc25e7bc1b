//! What a campaign gave, for people and for programs.
//!
//! Relies on the campaign. Promises one JSON object with stable keys. Knows no terminal.

use quorate_types::Protocol;
use serde::Serialize;

use crate::campaign::{Campaign, CampaignResult};
use crate::planted::Planted;
use crate::statistics::Statistics;
use crate::twins::TwinsReport;
use crate::violation::Invariant;
use crate::world::recovery_bound;

/// A campaign without a planted bug, for programs.
#[derive(Clone, Debug, Serialize)]
pub struct CampaignReport {
    /// The protocol.
    pub protocol: &'static str,
    /// Seeds that ran.
    pub seeds: u64,
    /// The first of them.
    pub seed_start: u64,
    /// What could go wrong.
    pub faults: String,
    /// Seeds that violated an invariant.
    pub violations: u64,
    /// Seeds that did not recover in time.
    pub unhealed: u64,
    /// Seeds that exercised too little.
    pub below_floor: u64,
    /// Events over all seeds.
    pub events: u64,
    /// Simulated time over all seeds.
    pub simulated_seconds: f64,
    /// How long it took.
    pub wall_seconds: f64,
    /// Over every effect and digest of every seed, in order.
    pub trace_hash: String,
    /// Within this a command submitted after healing must be acknowledged, in simulated seconds.
    pub recovery_bound_seconds: f64,
    /// How long the slowest took, in simulated milliseconds.
    pub recovery_max_ms: f64,
    /// What all runs exercised together.
    pub exercised: Statistics,
}

/// Whether a planted bug was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlantedFound {
    /// The bug.
    pub name: &'static str,
    /// Whether a seed found it.
    pub found: bool,
    /// How many seeds it took; those that were tried, if none did.
    pub seeds_to_find: u64,
    /// The invariant that it broke.
    pub invariant: Option<&'static str>,
    /// The seed that found it.
    pub seed: Option<u64>,
    /// What was seen.
    pub detail: Option<String>,
    /// What it took in each of several disjoint ranges of seeds, this one first.
    pub seeds_by_range: Vec<u64>,
    /// The median of those; the greater of the middle two.
    pub seeds_median: u64,
}

/// All planted bugs that were looked for.
#[derive(Clone, Debug, Serialize)]
pub struct PlantedReport {
    /// Each bug.
    pub planted: Vec<PlantedFound>,
}

impl CampaignReport {
    /// What a campaign gave.
    #[must_use]
    pub fn new(campaign: &Campaign, result: &CampaignResult) -> Self {
        Self {
            protocol: name_of(campaign.protocol),
            seeds: result.seeds.len() as u64,
            seed_start: campaign.seed_start,
            faults: campaign.faults.to_string(),
            violations: result.violations().count() as u64,
            unhealed: result.unhealed().count() as u64,
            below_floor: result.below_floor(&campaign.faults).len() as u64,
            events: result.events(),
            simulated_seconds: result.simulated().as_secs_f64(),
            wall_seconds: result.wall.as_secs_f64(),
            trace_hash: result.trace_hash().to_string(),
            recovery_bound_seconds: recovery_bound(campaign.protocol).as_secs_f64(),
            recovery_max_ms: result.slowest_recovery().as_secs_f64() * 1_000.0,
            exercised: result.statistics(),
        }
    }

    /// Whether nothing was found and enough was exercised.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.violations == 0 && self.unhealed == 0 && self.below_floor == 0
    }
}

impl PlantedFound {
    /// What a campaign with a planted bug gave.
    #[must_use]
    pub fn new(bug: Planted, campaign: &Campaign, result: &CampaignResult) -> Self {
        let tried = result.seeds.len() as u64;
        Self::of(bug, campaign.seed_start, tried, result.shows(bug))
    }

    /// What twins with a planted bug gave: the numbers are those of scenarios.
    #[must_use]
    pub fn among_twins(bug: Planted, report: &TwinsReport) -> Self {
        let found = report.rules.iter().find_map(|rule| rule.found.first());
        let shown = found.map(|(number, what)| (*number, Invariant::StateMachineSafety.name(), what.clone()));
        Self::of(bug, report.scenario_start, report.scenarios, shown)
    }

    fn of(bug: Planted, start: u64, tried: u64, shown: Option<(u64, &'static str, String)>) -> Self {
        let took = shown.as_ref().map_or(tried, |(seed, ..)| seed - start + 1);
        Self {
            name: bug.name(),
            found: shown.is_some(),
            seeds_to_find: took,
            invariant: shown.as_ref().map(|(_, invariant, _)| *invariant),
            seed: shown.as_ref().map(|(seed, ..)| *seed),
            detail: shown.map(|(.., detail)| detail),
            seeds_by_range: vec![took],
            seeds_median: took,
        }
    }

    /// Adds what another range of seeds gave; the bug counts as found if each range shows it.
    pub fn join(&mut self, other: &Self) {
        self.found &= other.found;
        self.seeds_by_range.push(other.seeds_to_find);
        let mut sorted = self.seeds_by_range.clone();
        sorted.sort_unstable();
        self.seeds_median = sorted.get(sorted.len() / 2).copied().unwrap_or_default();
    }
}

/// A protocol's name for programs.
#[must_use]
pub fn name_of(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Raft => "raft",
        Protocol::Pbft => "pbft",
        Protocol::HotStuff => "hotstuff",
    }
}
