//! What exceeds a bound is an error of its case, and no other case notices.

use std::time::Duration;

use super::harness::{Group, document, json};
use crate::{Command, Limits};

/// Runs a case that exceeds a bound beside one that does not.
fn exceeds(limits: Limits, text: &str, input: &str) -> (String, String) {
    let mut group = Group::with(limits);
    let other =
        group.run_short("other", "do: [{w: {wait: PT1S}}, {s: {set: {x: '${ [range(10)] | add }'}}}]", "{}");
    let case = group.run_short("exceeds", text, input);
    group.pass(1_000);
    assert_eq!(group.output(other), json(r#"{"x":45}"#), "the other case");
    group.host.check_determinism();
    group.error(case)
}

#[test]
fn expressions_that_never_end_are_expression_errors() {
    for text in ["until(false; .)", "[repeat(1)]", "[range(1e9)] | length"] {
        let (kind, detail) =
            exceeds(Limits::default(), &format!("do: [{{a: {{set: {{x: '${{ {text} }}'}}}}}}]"), "{}");
        assert_eq!(kind, "expression", "{text}");
        assert!(detail.contains("more steps"), "{text}: {detail}");
    }
    let (kind, detail) = exceeds(Limits::default(), "do: [{a: {set: {x: '${ def f: [f]; f }'}}}]", "{}");
    assert!(kind == "expression" && detail.contains("nests deeper"), "{detail}");
}

#[test]
fn an_expression_error_can_be_caught() {
    let mut group = Group::new();
    let text =
        "do: [{a: {try: [{b: {set: {x: '${ until(false; .) }'}}}], catch: {do: [{c: {set: {ok: true}}}]}}}]";
    let case = group.run_short("caught", text, "{}");
    assert_eq!(group.output(case), json(r#"{"ok":true}"#));
}

#[test]
fn large_documents_are_runtime_errors() {
    let limits = Limits { document_bytes: 1 << 10, ..Limits::default() };
    let (kind, detail) = exceeds(limits, "do: [{a: {set: {x: '${ \"a\" * 2000 }'}}}]", "{}");
    assert!(kind == "runtime" && detail.contains("more than 1024"), "{detail}");
    let mut group = Group::with(limits);
    let reference = group.define(&(document("d") + "do: [{a: {call: f}}]")).unwrap();
    let large = format!("\"{}\"", "a".repeat(2_000));
    assert_eq!(group.start(&reference, &large).unwrap_err().name, "too-large");
    group.start(&reference, "{}").unwrap();
    let claimed = group.claim_one("f");
    let command = Command::Complete { item: claimed.item, token: claimed.token, output: Some(json(&large)) };
    assert_eq!(group.host.apply(command).unwrap_err().name, "too-large");
}

#[test]
fn a_case_that_holds_too_much_faults_and_can_still_be_written() {
    let limits = Limits { document_bytes: 3 << 10, case_bytes: 8 << 10, ..Limits::default() };
    let text = "do: [{a: {fork: {branches: [{b: {wait: PT9S}}, {c: {wait: PT9S}}, {d: {wait: PT9S}}, \
                {e: {wait: PT9S}}]}, input: {from: '\"a\" * 2500'}}}]";
    let (kind, detail) = exceeds(limits, text, "{}");
    assert!(kind == "runtime" && detail.contains("holds more than"), "{detail}");
}

#[test]
fn long_histories_many_tasks_many_items_and_deep_cases_are_runtime_errors() {
    let limits = Limits { history_events: 50, ..Limits::default() };
    let loops = "do: [{a: {set: {x: 1}, then: b}}, {b: {set: {x: 2}, then: a}}]";
    assert!(exceeds(limits, loops, "{}").1.contains("history has 50"));
    let limits = Limits { open_tasks: 5, ..Limits::default() };
    let branches: Vec<String> = (0..9).map(|at| format!("{{b{at}: {{wait: PT9S}}}}")).collect();
    let fork = format!("do: [{{a: {{fork: {{branches: [{}]}}}}}}]", branches.join(","));
    assert!(exceeds(limits, &fork, "{}").1.contains("tasks run at once"));
    let limits = Limits { open_items: 3, ..Limits::default() };
    assert!(exceeds(limits, &fork.replace("wait: PT9S", "call: f"), "{}").1.contains("open work items"));
    let limits = Limits { case_depth: 3, ..Limits::default() };
    let own = "do: [{a: {run: {workflow: {namespace: test, name: exceeds}}}}]";
    assert!(exceeds(limits, own, "{}").1.contains("cases nest deeper"));
}

#[test]
fn what_one_command_does_not_finish_goes_on_in_the_next_entries() {
    let limits = Limits { transitions_per_command: 7, fuel_per_command: 1_000, ..Limits::default() };
    let mut group = Group::with(limits);
    let text = "do: [{a: {for: {in: '[range(100)]'}, do: [{m: {set: {n: '${ .n + $item }'}}}]}}]";
    let reference = group.define(&(document("long") + text)).unwrap();
    let case = group.start(&reference, "{}").unwrap();
    assert_eq!(group.case(case).status, "running");
    group.pass(0);
    assert_eq!(group.output(case), json(r#"{"n":4950}"#));
    group.host.check_determinism();
}

#[test]
fn what_one_command_would_write_too_much_of_goes_on_in_the_next_entries() {
    let mut group = Group::with(Limits { case_bytes: 900 << 10, ..Limits::default() });
    let branches: Vec<String> =
        (0..15).map(|at| format!("{{b{at}: {{call: f, with: {{x: '${{ .x }}'}}}}}}")).collect();
    let text = format!("do: [{{a: {{fork: {{branches: [{}]}}}}}}]", branches.join(","));
    let reference = group.define(&(document("writes") + &text)).unwrap();
    let case = group.start(&reference, &format!("{{\"x\":\"{}\"}}", "a".repeat(100_000))).unwrap();
    let first = group.case(case).items.len();
    assert!((5..15).contains(&first), "{first} at first");
    group.pass(0);
    assert_eq!(group.case(case).items.len(), 15);
}

const LISTENS: &str = "do: [{l: {listen: {to: {one: {with: {type: t}}}}}}]";

/// Publishes an event to cases that listen until all have heard it; how many were given it by the command itself, and
/// how many heard of it in each entry after that.
fn published(group: &mut Group, cases: &[u64], event: &str) -> (usize, Vec<usize>) {
    let heard = |group: &Group| cases.iter().filter(|case| group.case(**case).status == "completed").count();
    let at_once = group.host.apply(Command::Publish { event: json(event) }).unwrap().read().unwrap();
    assert_eq!(heard(group), at_once);
    let mut later = Vec::new();
    for _ in cases {
        let before = heard(group);
        for fired in group.host.advance(Duration::ZERO) {
            fired.unwrap();
        }
        later.push(heard(group) - before);
    }
    assert_eq!(heard(group), cases.len());
    assert!(group.host.timers().is_empty());
    group.host.check_determinism();
    (at_once, later)
}

/// What could go wrong: one event is given to so many large cases that the host refuses the command, and nobody ever
/// hears of it; or the rest of them is forgotten.
#[test]
fn an_event_for_large_cases_is_given_to_some_of_them_in_each_entry_and_to_all_in_the_end() {
    let mut group = Group::new();
    let reference = group.define(&(document("listens") + LISTENS)).unwrap();
    // A case holds its input twice: as it came, and for the task that listens.
    let input = format!("\"{}\"", "a".repeat(10_000));
    let cases: Vec<u64> = (0..7).map(|_| group.start(&reference, &input).unwrap()).collect();
    let (at_once, later) = published(&mut group, &cases, r#"{"source":"s","type":"t"}"#);
    assert_eq!(at_once, 3);
    assert!(later.iter().all(|heard| *heard <= 3), "{later:?}");
    // An event is written with each case that it is given to.
    let cases: Vec<u64> = (0..7).map(|_| group.start(&reference, "{}").unwrap()).collect();
    let event = format!("{{\"source\":\"s\",\"type\":\"t\",\"data\":\"{}\"}}", "a".repeat(30_000));
    assert_eq!(published(&mut group, &cases, &event).0, 2);
    // A larger case is served alone.
    let alone = group.start(&reference, &format!("\"{}\"", "a".repeat(50_000))).unwrap();
    assert_eq!(published(&mut group, &[alone], r#"{"source":"s","type":"t"}"#).0, 1);
}

/// What could go wrong: two events of one entry, each for more cases than a command serves, share the timer that gives
/// them to the others.
#[test]
fn events_of_one_entry_reach_all_cases_each() {
    let mut group = Group::new();
    let all = "do: [{l: {listen: {to: {all: [{with: {type: t}}, {with: {type: u}}]}}}}]";
    let reference = group.define(&(document("both") + all)).unwrap();
    let cases: Vec<u64> = (0..130).map(|_| group.start(&reference, "{}").unwrap()).collect();
    let event =
        |kind: &str| Command::Publish { event: json(&format!(r#"{{"source":"s","type":"{kind}"}}"#)) };
    for given in group.host.apply_batch([event("t"), event("u")]).unwrap() {
        assert_eq!(given.unwrap().read::<usize>(), Ok(100));
    }
    group.pass(0);
    assert!(cases.iter().all(|case| group.case(*case).status == "completed"));
    group.host.check_determinism();
}

/// What could go wrong: of cases that listen to an event's type and cases that listen to any, some are passed over when
/// the event is given in pieces, or one that listens to both is given it twice.
#[test]
fn each_case_is_given_an_event_once_however_it_listens() {
    let mut group = Group::new();
    let one = "{listen: {to: {one: {with: {type: t}}}}}";
    let two = "{listen: {to: {any: [{with: {source: s}}], until: '( . | length ) == 2'}}}";
    let fork = |branches: &[&str]| {
        let branches = branches.iter().zip(0..).map(|(branch, at)| format!("{{b{at}: {branch}}}"));
        format!("do: [{{f: {{fork: {{branches: [{}]}}}}}}]", branches.collect::<Vec<_>>().join(","))
    };
    let kinds = [
        (fork(&[one; 4]), "[[1],[1],[1],[1]]"),
        (fork(&[two]), "[[1,2]]"),
        (fork(&[one, two]), "[[1],[1,2]]"),
    ];
    let mut cases = Vec::new();
    for (name, (text, output)) in ["one", "two", "both"].into_iter().zip(kinds) {
        let reference = group.define(&(document(name) + &text)).unwrap();
        cases.push((reference, output, Vec::new()));
    }
    for _ in 0..40 {
        for (reference, _, started) in &mut cases {
            started.push(group.start(reference, "{}").unwrap());
        }
    }
    for data in [1, 2] {
        group.publish(&format!(r#"{{"source":"s","type":"t","data":{data}}}"#));
    }
    for (reference, output, started) in cases {
        for case in started {
            assert_eq!(group.output(case), json(output), "{} {case}", reference.name);
        }
    }
    group.host.check_determinism();
}

/// What could go wrong: an event starts so many cases that the host refuses the command; or those beyond the bound are
/// never started.
#[test]
fn an_event_starts_the_cases_of_all_definitions_and_each_once() {
    let limits = Limits { transitions_per_command: 40, ..Limits::default() };
    for (limits, at_once) in [(Limits::default(), 100), (limits, 40)] {
        let mut group = Group::with(limits);
        let starts = "schedule: {on: {one: {with: {type: t}}}}\ndo: [{s: {set: {x: 1}}}]";
        for number in 0..110 {
            group.define(&(document(&format!("starts-{number}")) + starts)).unwrap();
        }
        let listening = group.run_short("listens", LISTENS, "{}");
        let event = || Command::Publish { event: json(r#"{"source":"s","type":"t"}"#) };
        let started =
            |group: &Group| group.host.state().keys().filter(|key| key.starts_with(b"cases")).count();
        assert_eq!(group.host.apply(event()).unwrap().read::<usize>(), Ok(0), "definitions come first");
        assert_eq!(started(&group), 1 + at_once);
        group.pass(0);
        assert_eq!((started(&group), group.case(listening).status.as_str()), (111, "completed"));
        group.host.check_determinism();
    }
}

#[test]
fn signals_that_nobody_listens_to_are_bounded() {
    let mut group = Group::with(Limits { held_signals: 2, ..Limits::default() });
    let case = group.run_short(
        "deaf",
        "do: [{w: {wait: PT1S}}, {l: {listen: {to: {any: [], until: '( . | length ) == 3'}}}}]",
        "{}",
    );
    for at in 0..5 {
        let event = json(&format!(r#"{{"source":"s","type":"t","data":{at}}}"#));
        group.host.apply(Command::Signal { case, event }).unwrap();
    }
    group.pass(1_000);
    group.publish(r#"{"source":"s","type":"t","data":9}"#);
    assert_eq!(group.output(case), json("[0,1,9]"));
}

#[test]
fn limits_out_of_range_are_refused() {
    use quorate_sdk::testing::TestHost;
    for limits in [
        Limits { expression_fuel: 1, ..Limits::default() },
        Limits { expression_depth: 10_000, ..Limits::default() },
        Limits { case_bytes: 2 << 20, ..Limits::default() },
        Limits { transitions_per_command: 0, ..Limits::default() },
    ] {
        let refused = TestHost::<crate::Workflow>::with_parameters(&limits).err().unwrap();
        assert_eq!(refused.name, "out-of-range");
    }
    assert_eq!(Limits::default().check(), None);
}
