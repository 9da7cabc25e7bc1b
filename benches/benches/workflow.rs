//! Task transitions per second of one group, through WebAssembly.
//!
//! Answers: what does one transition cost as nodes run it, and how much of that is the sandbox? Beside it
//! stands `plugins/workflow/benches/workflow.rs`, which runs the same cases natively. Each iteration is one
//! entry that starts [`CASES`] cases on a state with the definition in it; the time is divided by the
//! transitions those make. Consensus, log and network are not part of it.

use std::path::Path;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use quorate_build::{BuildOptions, build_component};
use quorate_client::value;
use quorate_runtime::{Component, Engine, EngineSettings, EntryContext, Invocation, Origin, State};
use quorate_types::{ComponentLimits, Epoch, HlcTimestamp, LogIndex, Outcome};
use serde_json::{Value, json};

/// Cases that one entry starts.
const CASES: u64 = 16;
/// Transitions that each of them makes.
const TRANSITIONS: u64 = 12;
/// What a case does without waiting: sets, conditions, a loop, a caught error.
const DATA: &str = include_str!("../../plugins/workflow/benches/data.yaml");

fn component() -> Component {
    let here = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the benchmarks");
    let crate_folder = Path::new(&here).join("../plugins/workflow");
    let built = build_component(&crate_folder, &BuildOptions::default()).expect("the component builds");
    let engine = Engine::new(EngineSettings::default()).expect("the engine starts");
    engine.compile(&built.bytes).expect("the component is accepted")
}

fn context(index: u64) -> EntryContext {
    EntryContext {
        group: "bench".into(),
        epoch: Epoch(1),
        index: LogIndex(index),
        hlc: HlcTimestamp(index << 16),
        seed: (index, 7),
        schema_version: 1,
    }
}

fn invocation(name: &str, arguments: &Value) -> Invocation {
    let body = value::json_to_cbor(arguments).expect("JSON fits CBOR");
    Invocation { origin: Origin::System, name: name.into(), body }
}

fn start() -> Invocation {
    let lines = json!([
        { "sku": "a", "quantity": 2, "price": 30 },
        { "sku": "b", "quantity": 1, "price": 70 },
    ]);
    invocation("start", &json!({ "namespace": "bench", "name": "data", "input": { "lines": lines } }))
}

/// A state in which the workflow is defined.
fn defined(component: &Component, limits: &ComponentLimits) -> State {
    let mut state = State::new();
    let prepared = component.init(&mut state, &context(1), &Bytes::new(), limits).expect("it runs");
    prepared.expect("it starts empty");
    let define = [invocation("define", &json!({ "text": DATA }))];
    let applied = component.apply(&mut state, &context(2), &define, limits).expect("it runs");
    assert!(matches!(applied.outcomes[..], [Outcome::Done(_)]), "{:?}", applied.outcomes);
    state
}

/// Asserts that a case makes the transitions that are counted.
fn check(component: &Component, state: &State, limits: &ComponentLimits) {
    let mut state = state.clone();
    component.apply(&mut state, &context(3), &[start()], limits).expect("it runs");
    let body = value::json_to_cbor(&json!({ "case": 1 })).expect("JSON fits CBOR");
    let found = component.query(&state.view(), LogIndex(3), "case", &body, limits).expect("it runs");
    let view = value::cbor_to_json(&found.expect("the case is there")).expect("the answer is CBOR");
    assert_eq!((&view["status"], &view["transitions"]), (&json!("completed"), &json!(TRANSITIONS)));
}

fn transitions(criterion: &mut Criterion) {
    let component = component();
    let limits = ComponentLimits::default();
    let state = defined(&component, &limits);
    check(&component, &state, &limits);
    let commands: Vec<_> = (0..CASES).map(|_| start()).collect();
    let mut group = criterion.benchmark_group("workflow");
    group.throughput(Throughput::Elements(CASES * TRANSITIONS));
    group.bench_function("transitions through WebAssembly", |bencher| {
        bencher.iter_batched(
            || state.clone(),
            |mut state| {
                let applied = component.apply(&mut state, &context(3), &commands, &limits).expect("it runs");
                assert!(applied.outcomes.iter().all(|outcome| matches!(outcome, Outcome::Done(_))));
                state
            },
            criterion::BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, transitions);
criterion_main!(benches);
