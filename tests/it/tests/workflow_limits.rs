//! The workflow component in the sandbox, against the limits of a group.
//!
//! Relies on the runtime alone: one replica, no log and no network. Promises that listings of large cases
//! stay within the usual limits, and that a case which a group's limits do not let go on ends with an error.
//! Knows none of the language.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_client::value;
use quorate_it::plugin;
use quorate_runtime::{
    Component, Engine, EngineSettings, EntryContext, Invocation, Origin, State, TimerChange,
};
use quorate_types::{ComponentLimits, Epoch, HlcTimestamp, LogIndex, Outcome};
use serde_json::{Value, json};

/// A group of one replica.
struct Sandbox {
    component: Component,
    state: State,
    limits: ComponentLimits,
    timers: BTreeMap<(HlcTimestamp, String), Bytes>,
    index: u64,
    /// Milliseconds since 1970.
    now: u64,
}

impl Sandbox {
    fn new() -> Self {
        let bytes = std::fs::read(plugin("workflow")).unwrap();
        let component = Engine::new(EngineSettings::default()).unwrap().compile(&bytes).unwrap();
        let limits = ComponentLimits::default();
        let timers = BTreeMap::new();
        let mut sandbox = Self { component, state: State::new(), limits, timers, index: 0, now: 1 << 40 };
        let entry = sandbox.next_entry();
        let prepared = sandbox.component.init(&mut sandbox.state, &entry, &Bytes::new(), &limits);
        prepared.unwrap().unwrap();
        sandbox
    }

    fn next_entry(&mut self) -> EntryContext {
        self.index += 1;
        EntryContext {
            group: "test".into(),
            epoch: Epoch(1),
            index: LogIndex(self.index),
            hlc: HlcTimestamp((self.now << 16) + self.index),
            seed: (self.index, 7),
            schema_version: 1,
        }
    }

    /// Applies an entry; timers that are due come first.
    fn apply(&mut self, commands: Vec<Invocation>) -> Vec<Outcome> {
        let entry = self.next_entry();
        let later = self.timers.split_off(&(HlcTimestamp(entry.hlc.0 + 1), String::new()));
        let due = std::mem::replace(&mut self.timers, later);
        let fired = due.into_iter().map(|((_, id), body)| Invocation {
            origin: Origin::Timer(id),
            name: "timer".into(),
            body,
        });
        let all: Vec<Invocation> = fired.chain(commands).collect();
        let applied = self.component.apply(&mut self.state, &entry, &all, &self.limits).unwrap();
        for change in applied.timers {
            let (TimerChange::Set { id: changed, .. } | TimerChange::Cancel { id: changed }) = &change;
            self.timers.retain(|(_, id), _| id != changed);
            if let TimerChange::Set { id, due, body } = change {
                self.timers.insert((due, id), body);
            }
        }
        applied.outcomes
    }

    /// What a command answers, or the name of its refusal.
    fn submit(&mut self, name: &str, body: &Value) -> Result<Value, String> {
        let body = value::json_to_cbor(body).unwrap();
        let outcomes = self.apply(vec![Invocation { origin: Origin::System, name: name.into(), body }]);
        match outcomes.last().unwrap() {
            Outcome::Done(body) if body.is_empty() => Ok(Value::Null),
            Outcome::Done(body) => Ok(value::cbor_to_json(body).unwrap()),
            Outcome::Rejected(rejection) => Err(rejection.name.clone()),
        }
    }

    fn command(&mut self, name: &str, body: &Value) -> Value {
        self.submit(name, body).unwrap()
    }

    fn define(&mut self, name: &str, tasks: &str) {
        let head = format!("document: {{dsl: '1.0.0', namespace: it, name: {name}, version: '1.0.0'}}\n");
        self.command("define", &json!({ "text": head + tasks }));
    }

    /// What a query answers, or the name of its refusal.
    fn query(&self, name: &str, body: &Value) -> Result<Value, String> {
        let body = value::json_to_cbor(body).unwrap();
        let at = LogIndex(self.index);
        let answer = self.component.query(&self.state.view(), at, name, &body, &self.limits).unwrap();
        answer.map(|body| value::cbor_to_json(&body).unwrap()).map_err(|refused| refused.name)
    }
}

/// What could go wrong: a page that reads its cases costs what they hold, and the more they hold the fewer
/// fit into one answer, until a page of the size that is promised is refused.
#[test]
fn a_page_of_200_large_cases_is_within_the_usual_limits() {
    let mut sandbox = Sandbox::new();
    sandbox.define("large", "do: [{a: {call: f}}]\n");
    let numbers: Vec<u64> = (0..4_000).collect();
    for case in 0..250 {
        let key = format!("case-{case}");
        let input = json!({ "numbers": numbers });
        sandbox.command("start", &json!({ "namespace": "it", "name": "large", "key": key, "input": input }));
    }
    let page = sandbox.query("cases", &json!({ "after": 20, "limit": 200 })).unwrap();
    let lines = page.as_array().unwrap();
    assert_eq!(
        (lines.len(), &lines[0]["key"], &lines[199]["key"]),
        (200, &json!("case-20"), &json!("case-219"))
    );
    assert_eq!((&lines[0]["status"], &lines[0]["ended_at"]), (&json!("waiting"), &Value::Null));

    sandbox.limits.fuel_per_command /= 4;
    assert!(sandbox.query("cases", &json!({ "limit": 200 })).is_ok(), "a quarter of the usual fuel suffices");
    sandbox.limits.fuel_per_command /= 100;
    assert_eq!(sandbox.query("cases", &json!({ "limit": 200 })), Err("out-of-fuel".into()));
}

/// What could go wrong: the entry in which a case is to go on is refused, nothing sets a timer again, and
/// the case stands there as running for ever, with whoever waits for it.
#[test]
fn a_case_that_its_groups_limits_do_not_let_go_on_faults() {
    let mut sandbox = Sandbox::new();
    let dear = "do: [{w: {wait: PT1S}}, {a: {set: {x: '${ [range(3500)] | add }'}}}]\n";
    sandbox.define("dear", dear);
    sandbox.define("around", "do: [{r: {run: {workflow: {namespace: it, name: dear}}}}]\n");
    sandbox.command("start", &json!({ "namespace": "it", "name": "around" }));
    sandbox.command("start", &json!({ "namespace": "it", "name": "dear" }));
    sandbox.limits.fuel_per_command = 400_000;
    let status = |sandbox: &Sandbox, case: u64| sandbox.query("case", &json!({ "case": case })).unwrap();
    for _ in 0..50 {
        sandbox.now += 100;
        sandbox.apply(Vec::new());
    }
    for case in 1..=3 {
        let view = status(&sandbox, case);
        assert_eq!(view["status"], "faulted", "case {case}: {view}");
        let kind = view["error"]["type"].as_str().unwrap();
        assert!(kind.ends_with("/errors/runtime"), "{view}");
    }
    let detail = status(&sandbox, 2)["error"]["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("group's limits"), "{detail}");
    assert!(sandbox.timers.is_empty(), "{:?}", sandbox.timers.keys());
    let listed = sandbox.query("cases", &json!({ "state": "faulted" })).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 3, "{listed}");
}

/// What could go wrong: a worker is told that its answer counts, though its task ran out of time in the same
/// entry, before it.
#[test]
fn an_answer_after_the_end_of_its_tasks_time_is_refused() {
    let mut sandbox = Sandbox::new();
    sandbox.define("limited", "do: [{a: {call: f, timeout: {after: PT1S}}}]\n");
    sandbox.command("start", &json!({ "namespace": "it", "name": "limited" }));
    let claimed = sandbox.command("claim", &json!({ "functions": ["f"], "worker": "late" }));
    let answer = json!({ "item": claimed[0]["item"], "token": claimed[0]["token"], "output": 1 });
    sandbox.now += 1_000;
    assert_eq!(sandbox.submit("complete", &answer), Err("no-item".to_owned()));
    sandbox.apply(Vec::new());
    let view = sandbox.query("case", &json!({ "case": 1 })).unwrap();
    assert!(view["error"]["type"].as_str().is_some_and(|kind| kind.ends_with("/errors/timeout")), "{view}");
    assert!(sandbox.timers.is_empty(), "{:?}", sandbox.timers.keys());
}

/// What could go wrong: the guard against cases that cannot go on ends one that merely takes many entries,
/// or one that comes due in the same entry after a long silence of the group.
#[test]
fn a_case_that_takes_many_entries_or_waits_out_a_silence_is_left_alone() {
    let mut sandbox = Sandbox::new();
    let long = "do: [{a: {for: {in: '[range(900)]'}, do: [{m: {set: {n: '${ .n + $item }'}}}]}}]\n";
    sandbox.define("long", long);
    sandbox.command("start", &json!({ "namespace": "it", "name": "long" }));
    let mut entries = 0;
    while sandbox.query("case", &json!({ "case": 1 })).unwrap()["status"] == "running" {
        // So long that the timer to go on and its guard come due together.
        sandbox.now += 60_000;
        let outcomes = sandbox.apply(Vec::new());
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Done(_))), "{outcomes:?}");
        entries += 1;
    }
    let view = sandbox.query("case", &json!({ "case": 1 })).unwrap();
    assert_eq!((&view["status"], &view["output"]["n"]), (&json!("completed"), &json!(899 * 450)));
    assert!(entries > 3, "{entries} entries");
    assert!(sandbox.timers.is_empty(), "{:?}", sandbox.timers.keys());
}
