//! A group with the component, and workflows to be run in it.

use std::time::Duration;

use quorate_sdk::prelude::*;
use quorate_sdk::testing::TestHost;

use crate::definition::text;
use crate::value::Value;
use crate::{CaseView, Claimed, Command, HistoryLine, Limits, Query, Reference, Started, Workflow};

/// The samples' files.
const FILES: [&str; 3] = [
    include_str!("samples/data.yaml"),
    include_str!("samples/flow.yaml"),
    include_str!("samples/outside.yaml"),
];

/// A workflow, what is done to it, and what it must come to.
///
/// ```text
/// of, shows      the task or property as the coverage table calls it, and what it shows of it
/// text, input    the definition, to which a document part is added, and the input in JSON
/// steps          what is done from outside: define, answer (a worker's), fail, event, pass (milliseconds),
///                waits
/// output | faults, at | refused, at         it completes with this; it faults with an error whose type ends
///                so, from this task; its definition is refused for this fault
/// ```
pub(super) struct Sample(Value);

pub(super) fn samples() -> Vec<Sample> {
    let read = |file: &str| text::read(file).unwrap().into_items().unwrap();
    FILES.iter().flat_map(|file| read(file)).map(Sample).collect()
}

/// The first lines of a definition.
pub(super) fn document(name: &str) -> String {
    format!("document:\n  dsl: '1.0.0'\n  namespace: test\n  name: {name}\n  version: '0.1.0'\n")
}

pub(crate) fn json(text: &str) -> Value {
    Value::from_json(text).unwrap_or_else(|problem| panic!("{text}: {problem}"))
}

/// A group.
pub(crate) struct Group {
    pub(crate) host: TestHost<Workflow>,
}

impl Group {
    pub(crate) fn new() -> Self {
        Self { host: TestHost::new() }
    }

    pub(crate) fn with(limits: Limits) -> Self {
        Self { host: TestHost::with_parameters(&limits).unwrap() }
    }

    pub(crate) fn define(&mut self, text: &str) -> Result<Reference, Rejection> {
        self.host.apply(Command::Define { text: text.to_owned() })?.read()
    }

    pub(crate) fn start(&mut self, of: &Reference, input: &str) -> Result<u64, Rejection> {
        let command = Command::Start {
            namespace: of.namespace.clone(),
            name: of.name.clone(),
            version: Some(of.version.clone()),
            key: None,
            input: Some(json(input)),
        };
        Ok(self.host.apply(command)?.read::<Started>()?.case)
    }

    /// Defines, starts and lets timers that are due fire.
    pub(crate) fn run(&mut self, text: &str, input: &str) -> u64 {
        let reference = self.define(text).unwrap_or_else(|refused| panic!("{refused}\n{text}"));
        let case = self.start(&reference, input).unwrap();
        self.pass(0);
        case
    }

    /// As [`Group::run`], with a document part of this name added.
    pub(crate) fn run_short(&mut self, name: &str, text: &str, input: &str) -> u64 {
        self.run(&(document(name) + text), input)
    }

    /// Lets time pass, and everything that follows of it happen.
    pub(crate) fn pass(&mut self, millis: u64) {
        for fired in self.host.advance(Duration::from_millis(millis)) {
            fired.unwrap();
        }
        // What a timer leaves for the next entry.
        for _ in 0..200 {
            if self.host.advance(Duration::ZERO).is_empty() {
                break;
            }
        }
    }

    pub(crate) fn claim(&mut self, function: &str) -> Option<Claimed> {
        let command = Command::Claim {
            functions: vec![function.to_owned()],
            worker: "tester".into(),
            limit: None,
            lease: None,
        };
        self.host.apply(command).unwrap().read::<Vec<Claimed>>().unwrap().pop()
    }

    pub(crate) fn claim_one(&mut self, function: &str) -> Claimed {
        self.claim(function).unwrap_or_else(|| panic!("no work for `{function}`"))
    }

    pub(crate) fn answer(&mut self, function: &str, output: &str) -> Claimed {
        let claimed = self.claim_one(function);
        let output = Some(json(output));
        let command = Command::Complete { item: claimed.item, token: claimed.token, output };
        self.host.apply(command).unwrap();
        self.pass(0);
        claimed
    }

    pub(crate) fn fail(&mut self, function: &str, error: &str) {
        let claimed = self.claim_one(function);
        let error = Some(json(error));
        let command = Command::Fail { item: claimed.item, token: claimed.token, error };
        self.host.apply(command).unwrap();
        self.pass(0);
    }

    pub(crate) fn publish(&mut self, event: &str) {
        self.host.apply(Command::Publish { event: json(event) }).unwrap();
        self.pass(0);
    }

    pub(crate) fn case(&self, case: u64) -> CaseView {
        self.host.query(Query::Case { case }).unwrap()
    }

    pub(crate) fn output(&self, case: u64) -> Value {
        let view = self.case(case);
        assert_eq!(view.status, "completed", "{view:?}");
        view.output.unwrap()
    }

    /// The error of a case that faulted: the last part of its type, and its detail.
    pub(crate) fn error(&self, case: u64) -> (String, String) {
        let view = self.case(case);
        assert_eq!(view.status, "faulted", "{view:?}");
        let error = view.error.unwrap();
        let text = |key| error.field(key).and_then(Value::as_text).unwrap_or("").to_owned();
        (text("type").rsplit('/').next().unwrap().to_owned(), text("detail"))
    }

    pub(crate) fn history(&self, case: u64) -> Vec<HistoryLine> {
        self.host.query(Query::History { case, after: None, limit: None }).unwrap()
    }
}

fn text_of<'v>(value: &'v Value, key: &str) -> Option<&'v str> {
    value.field(key).and_then(Value::as_text)
}

impl Sample {
    fn get(&self, key: &str) -> Option<&str> {
        text_of(&self.0, key)
    }

    /// The task or property it is about.
    pub(super) fn of(&self) -> &str {
        self.get("of").unwrap()
    }

    /// Whether it shows something that is accepted.
    pub(super) fn is_positive(&self) -> bool {
        self.get("output").is_some()
    }

    fn definition(&self) -> String {
        let text = self.get("text").unwrap();
        if text.contains("dsl:") { text.to_owned() } else { document("sample") + text }
    }

    /// Runs it and checks what it comes to.
    pub(super) fn check(&self) {
        let text = self.definition();
        let label = format!("{} ({})\n{text}", self.of(), self.get("shows").unwrap());
        let mut group = Group::new();
        if let Some(part) = self.get("refused") {
            return self.check_refusal(&mut group, &text, part, &label);
        }
        let steps = self.0.field("steps").and_then(Value::items).unwrap_or_default();
        let (before, after): (Vec<&Value>, Vec<&Value>) =
            steps.iter().partition(|step| step.field("define").is_some());
        for step in before {
            group.define(text_of(step, "define").unwrap()).expect(&label);
        }
        let reference = group.define(&text).unwrap_or_else(|refused| panic!("{label}\n{refused}"));
        let input = self.get("input").unwrap_or("{}");
        let case = group.start(&reference, input).unwrap_or_else(|refused| panic!("{label}\n{refused}"));
        group.pass(0);
        for step in after {
            take_step(&mut group, step, case, &label);
        }
        let view = group.case(case);
        if let Some(output) = self.get("output") {
            assert_eq!(view.status, "completed", "{label}\n{view:?}");
            assert_eq!(view.output.unwrap_or_default(), json(output), "{label}");
        } else {
            assert_eq!(view.status, "faulted", "{label}\n{view:?}");
            let error = view.error.unwrap();
            let kind = self.get("faults").unwrap();
            assert!(text_of(&error, "type").unwrap().ends_with(kind), "{label}\n{error}");
            assert_eq!(text_of(&error, "instance"), self.get("at"), "{label}\n{error}");
        }
        let timers = group.host.timers();
        assert!(timers.is_empty(), "{label}\ntimers are left: {:?}", timers.keys());
        let work: Vec<crate::ItemView> =
            group.host.query(Query::Items { function: None, limit: None }).unwrap();
        assert!(work.is_empty(), "{label}\nwork is left: {work:?}");
        group.host.check_determinism();
    }

    fn check_refusal(&self, group: &mut Group, text: &str, part: &str, label: &str) {
        let refused = group.define(text).expect_err(label);
        assert_eq!(refused.name, "bad-definition", "{label}");
        let at = self.get("at").unwrap();
        let found = refused.message.lines().any(|line| {
            let line = line.trim_start_matches("the definition has faults: ");
            line.split(": ").next() == Some(at) && line.contains(part)
        });
        assert!(found, "{label}\nexpected `{at}` with `{part}` in:\n{}", refused.message);
    }
}

fn take_step(group: &mut Group, step: &Value, case: u64, label: &str) {
    let get = |key| text_of(step, key);
    if let Some(function) = get("answer") {
        let claimed = group.answer(function, get("output").expect(label));
        if let Some(arguments) = get("arguments") {
            assert_eq!(claimed.arguments, json(arguments), "{label}");
        }
    } else if let Some(function) = get("fail") {
        group.fail(function, get("error").expect(label));
    } else if let Some(event) = get("event") {
        group.publish(event);
    } else if let Some(millis) = step.field("pass").and_then(Value::as_int) {
        group.pass(u64::try_from(millis).expect(label));
    } else {
        assert!(step.field("waits").is_some(), "{label}\nno such step: {step}");
        let view = group.case(case);
        assert_eq!(view.status, "waiting", "{label}\n{view:?}");
    }
}

#[test]
fn every_sample_comes_to_what_it_must() {
    // All failures at once, since one change often breaks several.
    let mut failed = Vec::new();
    for sample in samples() {
        let run = std::panic::AssertUnwindSafe(|| sample.check());
        if std::panic::catch_unwind(run).is_err() {
            failed.push(sample.of().to_owned());
        }
    }
    assert_eq!(failed, Vec::<String>::new());
}
