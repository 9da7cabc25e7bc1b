//! Twins (Bano et al. 2021): many scenarios in which two replicas share one key, under each rule of commitment.
//!
//! Relies on the scenarios of the consensus room, which are functions of their numbers. Promises results that
//! do not depend on the number of threads, and one JSON object. Knows no node: replicas run alone, on disks and
//! a network of their own, and signatures are keyed digests.

use std::collections::BTreeSet;
use std::num::NonZero;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use quorate_consensus::hotstuff::CommitRule;
use quorate_consensus::hotstuff::cluster::keys;
use quorate_consensus::hotstuff::twins::{Healing, Outcome, scenario};
use quorate_crypto::Validator;
use serde::Serialize;

use crate::planted::{Planted, break_rule};

/// Members of most scenarios: the fewest that tolerate a liar.
const FEW: u64 = 4;
/// Members of every tenth scenario: two of them may have twins.
const MANY: u64 = 7;
/// Scenarios that one thread takes at a time.
const CHUNK: u64 = 64;
/// Scenarios that found something and are named.
const NAMED_MAX: usize = 20;

/// A series of scenarios.
#[derive(Clone, Debug)]
pub struct Twins {
    /// The number of the first.
    pub first: u64,
    /// How many, under each rule.
    pub scenarios: u64,
    /// A bug to be found; the series then ends with the first scenario that finds it.
    pub planted: Option<Planted>,
    /// How many run at once.
    pub threads: NonZero<usize>,
}

/// What a series gave.
#[derive(Clone, Debug, Serialize)]
pub struct TwinsReport {
    /// The protocol.
    pub protocol: &'static str,
    /// Scenarios under each rule.
    pub scenarios: u64,
    /// The number of the first.
    pub scenario_start: u64,
    /// Under each rule of commitment.
    pub rules: Vec<RuleReport>,
    /// How long it took.
    pub wall_seconds: f64,
}

/// What a series gave under one rule of commitment.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RuleReport {
    /// The rule.
    pub rule: &'static str,
    /// Scenarios in which honest replicas contradicted each other, or one was fenced.
    pub violations: u64,
    /// Scenarios after whose healing nothing new was committed.
    pub unhealed: u64,
    /// Scenarios of which no two went alike.
    pub distinct: u64,
    /// Of those, the ones in which a twin signed what contradicts the other and something was committed.
    pub distinct_equivocated_and_committed: u64,
    /// Whether those are more than half of all.
    pub is_more_than_half: bool,
    /// Entries with a body that were committed, over all.
    pub commits: u64,
    /// Over what happened in each, in order.
    pub trace_hash: String,
    /// The first scenarios that found something, with what it was.
    pub found: Vec<(u64, String)>,
}

impl Twins {
    /// Runs all scenarios; calls `progress` with the number done under the present rule now and then.
    ///
    /// # Errors
    ///
    /// As the operating system, when it has no thread to give.
    pub fn run(&self, progress: impl Fn(&str, u64) + Sync) -> std::io::Result<TwinsReport> {
        let begun = Instant::now();
        let mut rules = Vec::new();
        for (rule, name) in [(CommitRule::TwoChain, "two-chain"), (CommitRule::ThreeChain, "three-chain")] {
            let report = self.run_rule(rule, name, &|done| progress(name, done))?;
            let is_shown = self.planted.is_some() && report.violations > 0;
            rules.push(report);
            if is_shown {
                break;
            }
        }
        Ok(TwinsReport {
            protocol: "hotstuff",
            scenarios: self.scenarios,
            scenario_start: self.first,
            rules,
            wall_seconds: begun.elapsed().as_secs_f64(),
        })
    }

    fn run_rule(
        &self,
        rule: CommitRule,
        name: &'static str,
        progress: &(dyn Fn(u64) + Sync),
    ) -> std::io::Result<RuleReport> {
        let next = AtomicU64::new(0);
        let end = AtomicU64::new(self.scenarios);
        let outcomes = Mutex::new(Vec::new());
        let (few, many) = (keys(FEW), keys(MANY));
        let work = || {
            break_rule(self.planted);
            loop {
                let begin = next.fetch_add(CHUNK, Ordering::SeqCst);
                let mut chunk = Vec::new();
                for offset in begin..(begin + CHUNK).min(end.load(Ordering::SeqCst)) {
                    let number = self.first.wrapping_add(offset);
                    let outcome = self.run_one(&few, &many, rule, number);
                    if self.planted.is_some() && outcome.violation.is_some() {
                        end.fetch_min(offset + 1, Ordering::SeqCst);
                    }
                    chunk.push((offset, outcome));
                }
                if chunk.is_empty() {
                    break_rule(None);
                    return;
                }
                let mut outcomes = outcomes.lock().unwrap_or_else(PoisonError::into_inner);
                outcomes.extend(chunk);
                progress(outcomes.len() as u64);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..self.threads.get() {
                std::thread::Builder::new().spawn_scoped(scope, work)?;
            }
            std::io::Result::Ok(())
        })?;
        let end = end.into_inner();
        let mut outcomes = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
        outcomes.retain(|(offset, _)| *offset < end);
        outcomes.sort_by_key(|(offset, _)| *offset);
        Ok(self.report(name, &outcomes))
    }

    fn run_one(&self, few: &[Validator], many: &[Validator], rule: CommitRule, number: u64) -> Outcome {
        let members = if number % 10 == 9 { many } else { few };
        let healing = if self.planted.is_some() { Healing::Skipped } else { Healing::Shown };
        scenario(members, rule, number, healing)
    }

    fn report(&self, name: &'static str, outcomes: &[(u64, Outcome)]) -> RuleReport {
        let mut report = RuleReport { rule: name, ..RuleReport::default() };
        let mut hasher = blake3::Hasher::new();
        let mut seen = BTreeSet::new();
        for (offset, outcome) in outcomes {
            hasher.update(&outcome.path.to_le_bytes());
            report.commits += outcome.commits;
            report.violations += u64::from(outcome.violation.is_some());
            report.unhealed += u64::from(!outcome.healed);
            if seen.insert(outcome.path) {
                report.distinct += 1;
                let useful = outcome.equivocated && outcome.commits > 0;
                report.distinct_equivocated_and_committed += u64::from(useful);
            }
            let unhealed = (!outcome.healed).then(|| "nothing new is committed after healing".to_owned());
            if let Some(what) = outcome.violation.clone().or(unhealed)
                && report.found.len() < NAMED_MAX
            {
                report.found.push((self.first.wrapping_add(*offset), what));
            }
        }
        report.is_more_than_half = report.distinct_equivocated_and_committed * 2 > self.scenarios;
        report.trace_hash = hasher.finalize().to_string();
        report
    }
}

impl TwinsReport {
    /// Whether nothing was found and enough was exercised.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.rules.iter().all(|rule| rule.violations == 0 && rule.unhealed == 0 && rule.is_more_than_half)
    }
}
