//! Task transitions per second, the engine run natively.
//!
//! Answers: what does one transition cost without WebAssembly and without consensus? Each iteration is one
//! entry of the native host with [`CASES`] starts of a workflow of data tasks; the time is divided by the
//! transitions those make. The host of the tests keeps every entry for its replay, which is part of what is
//! measured, as are encoding and decoding of commands and state.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use quorate_sdk::testing::TestHost;
use quorate_workflow::value::Value;
use quorate_workflow::{CaseView, Command, Query, Workflow};

/// Cases that one entry starts.
const CASES: u64 = 16;
/// Transitions that each of them makes: the tasks of [`DATA`], those within `for` once for each item.
const TRANSITIONS: u64 = 12;

/// What a case does without waiting: sets, conditions, a loop.
const DATA: &str = include_str!("data.yaml");

const INPUT: &str = r#"{"lines":[{"sku":"a","quantity":2,"price":30},{"sku":"b","quantity":1,"price":70}]}"#;

fn start() -> Command {
    let input = Value::from_json(INPUT).expect("the input is JSON");
    Command::Start {
        namespace: "bench".into(),
        name: "data".into(),
        version: None,
        key: None,
        input: Some(input),
    }
}

fn group() -> TestHost<Workflow> {
    let mut host = TestHost::<Workflow>::new();
    host.apply(Command::Define { text: DATA.into() }).expect("the definition is accepted");
    host
}

/// Asserts that a case makes the transitions that are counted.
fn check() {
    let mut host = group();
    host.apply(start()).expect("the case starts");
    let view: CaseView = host.query(Query::Case { case: 1 }).expect("the case is there");
    assert_eq!((view.status.as_str(), view.transitions), ("completed", TRANSITIONS));
}

fn transitions(criterion: &mut Criterion) {
    check();
    let mut group_of = criterion.benchmark_group("workflow");
    group_of.throughput(Throughput::Elements(CASES * TRANSITIONS));
    group_of.bench_function("native transitions", |bencher| {
        // A fresh group for each iteration, so that state does not grow while it is measured.
        bencher.iter_batched(
            || (group(), (0..CASES).map(|_| start()).collect::<Vec<_>>()),
            |(mut host, commands)| {
                let outcomes = host.apply_batch(commands).expect("commands are encoded");
                assert!(outcomes.iter().all(Result::is_ok));
                host
            },
            criterion::BatchSize::SmallInput,
        );
    });
    group_of.finish();
}

criterion_group!(benches, transitions);
criterion_main!(benches);
