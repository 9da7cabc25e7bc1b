//! What exceeds a bound is an error of its case, and no other case notices.

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
