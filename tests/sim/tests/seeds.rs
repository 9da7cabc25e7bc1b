//! A few seeds of the whole simulator, in this process and in others.
//!
//! Relies on the ledger component, which is built once. Promises that what holds for ten seeds here is
//! what `cargo xtask sim` checks for many more.

#![allow(clippy::unwrap_used)]

use std::num::NonZero;
use std::process::Command;
use std::sync::OnceLock;

use quorate_runtime::Component;
use quorate_sim::{
    Campaign, CampaignReport, FaultSet, Planted, PlantedFound, Settings, Trace, Twins, run_seed,
};
use quorate_types::Protocol;

fn component() -> &'static Component {
    static COMPONENT: OnceLock<Component> = OnceLock::new();
    COMPONENT.get_or_init(|| quorate_sim::load(None).unwrap())
}

fn campaign(seeds: u64, faults: FaultSet, planted: Option<Planted>) -> Campaign {
    let protocol = planted.map_or(Protocol::Raft, Planted::protocol);
    Campaign { seed_start: 0, seeds, protocol, faults, planted, threads: 2 }
}

#[test]
fn ten_seeds_with_all_faults_hold_heal_and_exercise_enough() {
    let campaign = campaign(10, FaultSet::all(), None);
    let result = campaign.run(component(), |_| {}).unwrap();
    let violations: Vec<_> = result.violations().collect();
    assert!(violations.is_empty(), "{violations:?}");
    let unhealed: Vec<_> = result.unhealed().collect();
    assert!(unhealed.is_empty(), "{unhealed:?}");
    assert_eq!(result.below_floor(&campaign.faults), []);
    assert!(CampaignReport::new(&campaign, &result).is_good());
}

/// Some of them with real keys, most with members that lie.
#[test]
fn ten_seeds_of_hotstuff_with_all_faults_hold_and_heal() {
    let campaign = Campaign { protocol: Protocol::HotStuff, ..campaign(10, FaultSet::all(), None) };
    let result = campaign.run(component(), |_| {}).unwrap();
    let violations: Vec<_> = result.violations().collect();
    assert!(violations.is_empty(), "{violations:?}");
    let unhealed: Vec<_> = result.unhealed().collect();
    assert!(unhealed.is_empty(), "{unhealed:?}");
    let statistics = result.statistics();
    assert!(statistics.lies > 0 && statistics.snapshot_installs > 0, "{statistics:?}");
}

#[test]
fn twins_contradict_each_other_and_nobody_else() {
    let twins = |first| Twins { first, scenarios: 60, planted: None, threads: NonZero::<usize>::MIN };
    let (report, other) = (twins(0).run(|_, _| {}).unwrap(), twins(60).run(|_, _| {}).unwrap());
    assert!(report.is_good(), "{report:?}");
    assert_ne!(report.rules[0].trace_hash, other.rules[0].trace_hash);
    assert_eq!(report.rules[0].trace_hash, twins(0).run(|_, _| {}).unwrap().rules[0].trace_hash);
}

#[test]
fn without_faults_nothing_is_lost_and_nobody_is_elected() {
    let campaign = campaign(2, FaultSet::none(), None);
    let result = campaign.run(component(), |_| {}).unwrap();
    assert!(CampaignReport::new(&campaign, &result).is_good());
    assert_eq!(result.statistics().crashes, 0);
    assert_eq!(result.statistics().messages_troubled, 0);
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_does_not() {
    let run = |protocol, seed| {
        let settings = Settings { seed, protocol, faults: FaultSet::all(), planted: None };
        run_seed(&settings, component(), &mut Trace::silent()).trace
    };
    for protocol in [Protocol::Raft, Protocol::HotStuff] {
        assert_eq!(run(protocol, 3), run(protocol, 3));
        assert_ne!(run(protocol, 3), run(protocol, 4));
    }
}

#[test]
fn two_processes_and_any_number_of_threads_give_one_trace_hash() {
    let hash = |threads: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_quorate-sim"))
            .args(["--seeds", "3", "--seed-start", "20", "--output", "json", "--threads", threads])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let report: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        for key in ["violations", "unhealed", "below_floor"] {
            assert_eq!(report[key], 0, "{report}");
        }
        report["trace_hash"].as_str().unwrap().to_owned()
    };
    let own = Campaign { seed_start: 20, ..campaign(3, FaultSet::all(), None) };
    let own = own.run(component(), |_| {}).unwrap().trace_hash().to_string();
    assert_eq!(hash("1"), own);
    assert_eq!(hash("2"), own);
}

#[test]
fn bugs_that_break_a_promise_are_found_at_once() {
    use Planted as P;
    for bug in [
        P::AcknowledgesBeforeFlush,
        P::VotesTwice,
        P::SignsBeforeFlush,
        P::CountsASignerTwice,
        P::TakesAnyLeader,
    ] {
        let campaign = campaign(10, FaultSet::all(), Some(bug));
        let found = PlantedFound::new(bug, &campaign, &campaign.run(component(), |_| {}).unwrap());
        assert!(found.found, "{found:?}");
    }
}

#[test]
fn twins_find_commits_across_views_under_the_first_rule_and_stop_there() {
    let bug = Planted::CommitsAcrossViews;
    let twins = Twins { first: 0, scenarios: 500, planted: Some(bug), threads: NonZero::<usize>::MIN };
    let report = twins.run(|_, _| {}).unwrap();
    let found = PlantedFound::among_twins(bug, &report);
    assert!(found.found && report.rules.len() == 1, "{found:?}");
}

#[test]
fn unknown_names_are_refused_with_the_known_ones() {
    for arguments in [["--faults", "flood"], ["--planted", "flood"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_quorate-sim")).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains("flood"));
    }
}
