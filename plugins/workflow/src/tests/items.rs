//! Work items: who holds them, and what a late answer changes.

use quorate_sdk::prelude::Rejection;

use super::harness::{Group, document, json};
use crate::{Claimed, Command, Event, ItemId, ItemView, Query};

fn complete(item: ItemId, token: u64) -> Command {
    Command::Complete { item, token, output: Some(json("1")) }
}

fn heartbeat(group: &mut Group, claimed: &Claimed, lease: u64) -> Result<u64, Rejection> {
    let command = Command::Heartbeat { item: claimed.item, token: claimed.token, lease: Some(lease) };
    group.host.apply(command)?.read()
}

#[test]
fn a_claim_that_is_over_is_offered_again_and_its_holder_changes_nothing() {
    // A worker that was thought dead comes back and answers: two answers would count.
    let mut group = Group::new();
    let case = group.run_short("works", "do: [{a: {call: f}}]", "{}");
    let first = group.claim_one("f");
    assert!(group.claim("f").is_none(), "one worker at a time");
    group.pass(29_999);
    assert!(group.claim("f").is_none());
    group.pass(1);
    let second = group.claim_one("f");
    assert_eq!((first.item, second.item), (second.item, first.item));
    assert!(second.token > first.token);
    for command in [
        complete(first.item, first.token),
        Command::Fail { item: first.item, token: first.token, error: None },
        Command::Heartbeat { item: first.item, token: first.token, lease: None },
    ] {
        assert_eq!(group.host.apply(command).unwrap_err().name, "stale-token");
    }
    group.host.apply(complete(second.item, second.token)).unwrap();
    assert_eq!(group.output(case), json("1"));
    assert_eq!(group.host.apply(complete(second.item, second.token)).unwrap_err().name, "no-item");
    group.host.check_determinism();
}

#[test]
fn an_answer_between_claims_is_late() {
    let mut group = Group::new();
    group.run_short("works", "do: [{a: {call: f}}]", "{}");
    let claimed = group.claim_one("f");
    group.pass(30_000);
    assert_eq!(group.host.apply(complete(claimed.item, claimed.token)).unwrap_err().name, "stale-token");
}

#[test]
fn a_heartbeat_keeps_a_claim() {
    let mut group = Group::new();
    group.run_short("works", "do: [{a: {call: f}}]", "{}");
    let claimed = group.claim_one("f");
    for _ in 0..5 {
        group.pass(20_000);
        heartbeat(&mut group, &claimed, 30_000).unwrap();
    }
    assert!(group.claim("f").is_none());
    assert_eq!(heartbeat(&mut group, &claimed, 10).unwrap_err().name, "out-of-range");
    group.pass(30_000);
    assert!(group.claim("f").is_some());
    assert_eq!(heartbeat(&mut group, &claimed, 30_000).unwrap_err().name, "stale-token");
}

#[test]
fn work_is_shown_and_claimed_by_function_and_in_order() {
    let mut group = Group::new();
    let text = "do: [{a: {fork: {branches: [{x: {call: f}}, {y: {call: g}}, {z: {call: f}}]}}}]";
    group.define(&(document("works") + text)).unwrap();
    for _ in 0..3 {
        let reference = group.define(&(document("works") + text)).unwrap();
        group.start(&reference, "{}").unwrap();
    }
    let shown =
        group.host.events().iter().filter(|event| event.key == b"f" && event.topic == "work-offered").count();
    assert_eq!(shown, 6);
    let items: Vec<ItemView> =
        group.host.query(Query::Items { function: Some("f".into()), limit: Some(4) }).unwrap();
    let cases: Vec<u64> = items.iter().map(|item| item.item.0).collect();
    assert_eq!(cases, [1, 1, 2, 2]);
    let command = Command::Claim {
        functions: vec!["g".into(), "f".into()],
        worker: "w".into(),
        limit: Some(5),
        lease: Some(1_000),
    };
    let claimed: Vec<Claimed> = group.host.apply(command).unwrap().read().unwrap();
    let functions: Vec<&str> = claimed.iter().map(|claimed| claimed.function.as_str()).collect();
    assert_eq!(functions, ["g", "g", "g", "f", "f"]);
    let event: Event = group.host.events().iter().find(|event| event.key == b"g").unwrap().read().unwrap();
    assert!(matches!(event, Event::WorkOffered { function, .. } if function == "g"));
}

#[test]
fn a_claim_answers_with_no_more_than_fits() {
    let mut group = Group::new();
    let text = "do: [{a: {call: f, with: {x: '${ \"a\" * 100000 }'}}}]";
    for _ in 0..15 {
        group.run_short("large", text, "{}");
    }
    let functions = vec!["f".to_owned()];
    let command = Command::Claim { functions, worker: "w".into(), limit: Some(100), lease: None };
    let claimed: Vec<Claimed> = group.host.apply(command).unwrap().read().unwrap();
    assert_eq!(claimed.len(), 10, "a mebibyte of them");
    assert!(group.claim("f").is_some(), "the others are still offered");
}

#[test]
fn claims_that_make_no_sense_are_refused() {
    let mut group = Group::new();
    let claim = |functions: &[&str], worker: &str, limit, lease| Command::Claim {
        functions: functions.iter().map(|function| (*function).to_owned()).collect(),
        worker: worker.into(),
        limit,
        lease,
    };
    for command in [
        claim(&[], "w", None, None),
        claim(&["f"], "", None, None),
        claim(&[""], "w", None, None),
        claim(&["f"], "w", Some(0), None),
        claim(&["f"], "w", Some(101), None),
        claim(&["f"], "w", None, Some(999)),
    ] {
        assert_eq!(group.host.apply(command).unwrap_err().name, "out-of-range");
    }
}
