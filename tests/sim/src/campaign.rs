//! Many runs: seeds spread over threads, results in the order of the seeds.
//!
//! Relies on [`World`] for one run. Promises results that do not depend on the number of threads, that a
//! panic in a run is a violation of that run, and that a run that found something is told in words by
//! running it again. Prints nothing.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

use quorate_runtime::Component;
use quorate_types::{Digest, Protocol};

use crate::faults::FaultSet;
use crate::planted::{Finder, Planted, break_rule};
use crate::statistics::Statistics;
use crate::trace::{Trace, combined};
use crate::violation::{Checked, Invariant, Violation};
use crate::world::{Ran, Settings, World};

/// Stack of a thread that runs components.
const STACK_BYTES: usize = 8 << 20;

/// What a series of runs depends on.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// The first seed.
    pub seed_start: u64,
    /// How many seeds, from the first on.
    pub seeds: u64,
    /// What orders commands.
    pub protocol: Protocol,
    /// What may go wrong.
    pub faults: FaultSet,
    /// A bug to be found; the campaign then ends with the first seed that finds it.
    pub planted: Option<Planted>,
    /// How many runs go on at once; at least one.
    pub threads: usize,
}

/// What one seed gave.
#[derive(Clone, Debug)]
pub struct SeedResult {
    /// What it came to.
    pub ran: Checked<Ran>,
    /// Events that happened.
    pub events: u64,
    /// The hash of its trace.
    pub trace: Digest,
}

/// What a campaign gave, by seed.
#[derive(Debug)]
pub struct CampaignResult {
    /// Each seed's result. With a planted bug: up to the seed that found it.
    pub seeds: BTreeMap<u64, SeedResult>,
    /// How long it took.
    pub wall: Duration,
}

thread_local! {
    /// The last panic of a run on this thread; `None` outside of runs, whose panics are reported as usual.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Lets panics of runs be kept instead of printed.
fn keep_panics() {
    static KEPT: Once = Once::new();
    KEPT.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let in_run = PANIC.with_borrow_mut(|kept| match kept {
                Some(text) => {
                    *text = panic.to_string();
                    true
                }
                None => false,
            });
            if !in_run {
                usual(panic);
            }
        }));
    });
}

/// Runs one seed.
#[must_use]
pub fn run_seed(settings: &Settings, component: &Component, trace: &mut Trace) -> SeedResult {
    keep_panics();
    break_rule(settings.planted);
    PANIC.set(Some(String::new()));
    let ran = catch_unwind(AssertUnwindSafe(|| World::new(settings, component.clone(), trace).run()));
    let panic = PANIC.take().unwrap_or_default();
    break_rule(None);
    let ran = ran.unwrap_or_else(|_| Err(Violation::new(Invariant::NoPanic, format_args!("{panic}"))));
    SeedResult { ran, events: trace.events(), trace: trace.digest() }
}

/// Runs one seed again and returns its last lines in words.
#[must_use]
pub fn tell(settings: &Settings, component: &Component, lines: usize) -> (SeedResult, Vec<String>) {
    let mut trace = Trace::telling(lines);
    let result = run_seed(settings, component, &mut trace);
    (result, trace.lines())
}

impl Campaign {
    /// The settings of one of its seeds.
    #[must_use]
    pub fn settings(&self, seed: u64) -> Settings {
        Settings { seed, protocol: self.protocol, faults: self.faults.clone(), planted: self.planted }
    }

    /// Runs all seeds; calls `progress` with the number of seeds done after each.
    ///
    /// # Errors
    ///
    /// As the operating system, when it has no thread to give.
    pub fn run(
        &self,
        component: &Component,
        progress: impl Fn(u64) + Sync,
    ) -> std::io::Result<CampaignResult> {
        let begun = Instant::now();
        let next = AtomicU64::new(0);
        // With a planted bug, seeds after the first that found it are not run.
        let end = AtomicU64::new(self.seeds);
        let results = Mutex::new(BTreeMap::new());
        std::thread::scope(|scope| {
            let work = || {
                loop {
                    let offset = next.fetch_add(1, Ordering::SeqCst);
                    if offset >= end.load(Ordering::SeqCst) {
                        return;
                    }
                    let seed = self.seed_start.wrapping_add(offset);
                    let result = run_seed(&self.settings(seed), component, &mut Trace::silent());
                    if self.planted.is_some_and(|bug| is_found(bug, &result)) {
                        end.fetch_min(offset + 1, Ordering::SeqCst);
                    }
                    let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
                    results.insert(offset, (seed, result));
                    progress(results.len() as u64);
                }
            };
            for number in 0..self.threads.max(1) {
                let builder =
                    std::thread::Builder::new().name(format!("run-{number}")).stack_size(STACK_BYTES);
                builder.spawn_scoped(scope, work)?;
            }
            std::io::Result::Ok(())
        })?;
        let end = end.into_inner();
        let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        let seeds =
            results.into_iter().filter(|(offset, _)| *offset < end).map(|(_, result)| result).collect();
        Ok(CampaignResult { seeds, wall: begun.elapsed() })
    }
}

/// Whether a run shows a bug: by what it violates, or by not recovering.
fn is_found(bug: Planted, result: &SeedResult) -> bool {
    match &result.ran {
        Err(_) => true,
        Ok(ran) => bug.finder() == Finder::Recovery && ran.unhealed.is_some(),
    }
}

impl CampaignResult {
    /// The first seed that shows a bug, with the invariant and what was seen.
    #[must_use]
    pub fn shows(&self, bug: Planted) -> Option<(u64, &'static str, String)> {
        let (seed, result) = self.seeds.iter().find(|(_, result)| is_found(bug, result))?;
        Some(match &result.ran {
            Err(violation) => (*seed, violation.invariant.name(), violation.detail.clone()),
            Ok(ran) => (*seed, "recovery", ran.unhealed.clone().unwrap_or_default()),
        })
    }

    /// Seeds that violated an invariant.
    pub fn violations(&self) -> impl Iterator<Item = (u64, &Violation)> {
        self.seeds.iter().filter_map(|(seed, result)| result.ran.as_ref().err().map(|found| (*seed, found)))
    }

    /// Seeds that did not recover in time.
    pub fn unhealed(&self) -> impl Iterator<Item = (u64, &str)> {
        self.runs().filter_map(|(seed, ran)| ran.unhealed.as_deref().map(|why| (seed, why)))
    }

    /// Seeds that exercised too little, and of what.
    pub fn below_floor(&self, faults: &FaultSet) -> Vec<(u64, Vec<String>)> {
        let missed = self.runs().map(|(seed, ran)| (seed, ran.statistics.below_floor(faults)));
        missed.filter(|(_, missed)| !missed.is_empty()).collect()
    }

    /// Seeds without a violation.
    pub fn runs(&self) -> impl Iterator<Item = (u64, &Ran)> {
        self.seeds.iter().filter_map(|(seed, result)| result.ran.as_ref().ok().map(|ran| (*seed, ran)))
    }

    /// Added up over all seeds without a violation.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let mut sum = Statistics::default();
        self.runs().for_each(|(_, ran)| sum.add(&ran.statistics));
        sum
    }

    /// Events over all seeds.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.seeds.values().map(|result| result.events).sum()
    }

    /// Simulated time over all seeds without a violation.
    #[must_use]
    pub fn simulated(&self) -> Duration {
        self.runs().map(|(_, ran)| ran.simulated).sum()
    }

    /// The longest that a command after healing took.
    #[must_use]
    pub fn slowest_recovery(&self) -> Duration {
        self.runs().map(|(_, ran)| ran.recovery).max().unwrap_or_default()
    }

    /// The hash over the traces of all seeds, in order.
    #[must_use]
    pub fn trace_hash(&self) -> Digest {
        combined(self.seeds.values().map(|result| result.trace))
    }
}
