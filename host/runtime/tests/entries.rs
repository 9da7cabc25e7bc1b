//! Entries, queries and migrations as a node runs them, with good components and bad ones.
//!
//! Relies on the guest in `guest/`. What could go wrong: a bad command takes others with it or leaves
//! something behind, a limit does not hold, or two replicas see different things.

#![allow(clippy::unwrap_used, missing_docs)]

mod guest;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use guest::{command, compiled, context, put};
use quorate_runtime::{
    Applied, Component, Diagnostics, Engine, EngineSettings, Halt, Invocation, Level, Source, Space, State,
    TimerChange,
};
use quorate_types::{ComponentLimits, HlcTimestamp, LogIndex, Outcome, Rejection};

const LIMITS: ComponentLimits = ComponentLimits {
    fuel_per_command: 20_000_000,
    memory_bytes: 64 << 20,
    output_bytes: 4 << 20,
    host_calls: 10_000,
};

fn apply(component: &Component, state: &mut State, commands: &[Invocation]) -> Applied {
    component.apply(state, &context(), commands, &LIMITS).unwrap()
}

fn code(outcome: &Outcome) -> u32 {
    match outcome {
        Outcome::Done(_) => 0,
        Outcome::Rejected(rejection) => rejection.code,
    }
}

fn user(state: &State) -> Vec<(String, String)> {
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    state.range(Space::User, &[], None).map(|(key, value)| (text(&key), text(value))).collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

/// One bad command between two good ones: only it is refused, and only its write is missing.
fn refused_alone(component: &Component, bad: Invocation) -> u32 {
    let mut state = State::new();
    let applied = apply(component, &mut state, &[put("a", "1"), bad, put("b", "2")]);
    assert!(applied.redone, "a fault must lead to a redo");
    assert_eq!(applied.outcomes.len(), 3);
    assert_eq!((code(&applied.outcomes[0]), code(&applied.outcomes[2])), (0, 0));
    assert_eq!(user(&state), pairs(&[("a", "1"), ("b", "2")]));
    code(&applied.outcomes[1])
}

#[test]
fn commands_of_one_entry_see_what_came_before_them_and_keep_it() {
    let component = compiled();
    let mut state = State::new();
    state.put(Space::User, Bytes::from_static(b"old"), Bytes::from_static(b"0"));
    state.put(Space::Host, Bytes::from_static(b"a"), Bytes::from_static(b"hidden"));
    let commands =
        [command("g", b"a"), put("a", "1"), command("g", b"a"), command("d", b"old"), command("g", b"old")];
    let applied = apply(&component, &mut state, &commands);
    assert!(!applied.redone);
    assert_eq!(applied.outcomes[2], Outcome::Done(Bytes::from_static(b"1")));
    let missing = Rejection { code: 107, name: "missing".to_owned(), message: "missing".to_owned() };
    assert_eq!(
        applied.outcomes[0],
        Outcome::Rejected(missing),
        "the host's keys are hidden, host codes are moved"
    );
    assert_eq!(code(&applied.outcomes[4]), 107);
    assert_eq!(user(&state), pairs(&[("a", "1")]));
    assert_eq!(state.get(Space::Host, b"a").unwrap(), "hidden");
}

#[test]
fn each_fault_costs_only_the_guilty_command() {
    let component = compiled();
    for (letter, expected) in [
        ("t", Rejection::TRAPPED),
        ("P", Rejection::TRAPPED),
        ("k", Rejection::TRAPPED),
        ("l", Rejection::OUT_OF_FUEL),
        ("m", Rejection::OVER_LIMIT),
        ("o", Rejection::OVER_LIMIT),
        ("h", Rejection::OVER_LIMIT),
        ("W", Rejection::OVER_LIMIT),
        ("n", Rejection::BAD_ANSWER),
        ("v", Rejection::BAD_ANSWER),
        ("u", Rejection::BAD_ANSWER),
    ] {
        assert_eq!(refused_alone(&component, command(letter, b"left")), expected, "command {letter}");
    }
    assert_eq!(refused_alone(&component, command("c", &[65])), Rejection::OVER_LIMIT);
}

#[test]
fn a_lone_command_that_fails_is_refused_without_a_redo() {
    let mut state = State::new();
    let applied = apply(&compiled(), &mut state, &[command("t", b"left")]);
    assert!(!applied.redone);
    assert_eq!(applied.outcomes.iter().map(code).collect::<Vec<_>>(), [Rejection::TRAPPED]);
    assert_eq!(user(&state), []);
}

#[test]
fn what_stays_within_the_limits_passes() {
    let component = compiled();
    let mut state = State::new();
    let applied = apply(&component, &mut state, &[command("C", b""), command("M", b""), command("c", &[64])]);
    assert!(
        !applied.redone,
        "1,000 cursors in turn, growth that fails softly and 64 cursors at once are allowed"
    );
}

/// The limits of an instance are those of all its commands together; only alone they are exact.
#[test]
fn a_command_may_use_what_its_company_leaves() {
    let component = compiled();
    let greedy = command("w", b"");
    let company = [put("a", "1"), greedy.clone(), put("b", "2")];
    assert!(!apply(&component, &mut State::new(), &company).redone);
    let alone = apply(&component, &mut State::new(), std::slice::from_ref(&greedy));
    assert_eq!(code(&alone.outcomes[0]), Rejection::OVER_LIMIT);
    let strained = [put("a", "1"), greedy, command("t", b"")];
    let redone = apply(&component, &mut State::new(), &strained);
    assert_eq!(
        redone.outcomes.iter().map(code).collect::<Vec<_>>(),
        [0, Rejection::OVER_LIMIT, Rejection::TRAPPED]
    );
}

#[test]
fn text_of_a_fault_is_fixed_and_says_nothing_of_the_engine() {
    let applied = apply(&compiled(), &mut State::new(), &[command("t", b"")]);
    let Outcome::Rejected(rejection) = &applied.outcomes[0] else { panic!("a trap is a rejection") };
    assert_eq!(rejection.name, "trapped");
    assert_eq!(rejection.message, "the component trapped and left nothing behind; the nodes' logs say where");
}

#[test]
fn a_cursor_sees_the_state_as_it_was_at_the_scan() {
    let component = compiled();
    let mut state = State::new();
    for key in ["a", "b", "d"] {
        state.put(Space::User, Bytes::copy_from_slice(key.as_bytes()), Bytes::from_static(b"1"));
    }
    let scan = |reverse: u8, step: u8, start: &[u8]| command("s", &[&[reverse, step], start].concat());
    let commands = [put("c", "2"), command("d", b"b"), scan(0, 1, b""), scan(1, 200, b"c"), scan(0, 0, b"d")];
    let applied = apply(&component, &mut state, &commands);
    assert!(!applied.redone);
    let answer = |at: usize| match &applied.outcomes[at] {
        Outcome::Done(body) => String::from_utf8(body.to_vec()).unwrap(),
        Outcome::Rejected(rejection) => panic!("{rejection:?}"),
    };
    assert_eq!(answer(2), "acd", "the entry's writes are seen, the write after the scan is not");
    assert_eq!(answer(3), "~newdc", "the next scan sees it, from the last key to the first");
    assert_eq!(answer(4), "d~new", "a step of none gives one");
}

#[test]
fn a_range_is_removed_from_the_state_and_from_the_entry() {
    let component = compiled();
    let mut state = State::new();
    for key in ["a", "b", "d"] {
        state.put(Space::User, Bytes::copy_from_slice(key.as_bytes()), Bytes::from_static(b"1"));
    }
    apply(&component, &mut state, &[put("c", "2"), command("R", b"b"), put("e", "3")]);
    assert_eq!(user(&state), pairs(&[("a", "1"), ("e", "3")]));
}

#[test]
fn events_and_timers_keep_their_order_and_those_of_a_bad_command_vanish() {
    let component = compiled();
    let mut state = State::new();
    let commands = [command("e-one", b"1"), command("x", b"2"), command("e-two", b"3")];
    let applied = apply(&component, &mut state, &commands);
    let topics: Vec<_> = applied.events.iter().map(|event| event.topic.as_str()).collect();
    assert_eq!(topics, ["e-one", "e-two"]);
    let set = |id: &str| TimerChange::Set {
        id: id.to_owned(),
        due: HlcTimestamp(1_001),
        body: Bytes::copy_from_slice(id.as_bytes()),
    };
    assert_eq!(applied.timers, [set("1"), TimerChange::Cancel { id: "2".to_owned() }, set("3")]);

    let commands = [command("e-one", b"1"), command("o", b""), command("e-two", b"3")];
    let applied = apply(&component, &mut state, &commands);
    assert!(applied.redone);
    let topics: Vec<_> = applied.events.iter().map(|event| event.topic.as_str()).collect();
    assert_eq!(topics, ["e-one", "e-two"], "nothing twice, nothing of the command that emitted without end");
}

#[test]
fn commands_that_run_alone_draw_from_different_seeds() {
    let component = compiled();
    let commands = [command("S", b""), command("S", b""), command("t", b"")];
    let together = apply(&component, &mut State::new(), &commands[..2]);
    assert_eq!(together.outcomes[0], together.outcomes[1], "the entry's seed, which the position completes");
    let redone = apply(&component, &mut State::new(), &commands);
    assert_ne!(redone.outcomes[0], redone.outcomes[1]);
    assert_eq!(redone, apply(&component, &mut State::new(), &commands));
}

/// Pins what the engine charges. If an update of the engine moves these, replicas of two versions would
/// disagree about fuel: that is a new execution profile.
#[test]
fn fuel_is_the_same_everywhere() {
    let component = compiled();
    let commands: Vec<_> = (0..4).map(|at| put(&format!("key-{at}"), "value")).collect();
    let first = apply(&component, &mut State::new(), &commands);
    assert_eq!(first.fuel, GOLDEN_FUEL_GOOD);
    assert_eq!(
        first,
        apply(&compiled(), &mut State::new(), &commands),
        "another engine, the same everything"
    );
    let mut commands = commands;
    commands.push(command("t", b"x"));
    let redone = apply(&component, &mut State::new(), &commands);
    assert_eq!(redone.fuel, GOLDEN_FUEL_REDONE);
}
const GOLDEN_FUEL_GOOD: u64 = 2_079;
const GOLDEN_FUEL_REDONE: u64 = 5_742;

#[test]
fn nothing_survives_in_an_instance_from_one_entry_to_the_next() {
    let component = compiled();
    let mut state = State::new();
    let first = apply(&component, &mut state, &[put("a", "1")]);
    for _ in 0..20 {
        assert_eq!(apply(&component, &mut state, &[put("a", "1")]), first, "the same heap, so the same fuel");
    }
}

#[test]
fn calls_nested_too_deeply_halt_this_replica_and_change_nothing() {
    let component = compiled();
    let mut state = State::new();
    let commands = [put("a", "1"), command("r", b"")];
    let limits = ComponentLimits { fuel_per_command: 10_000_000_000, ..LIMITS };
    let halted = component.apply(&mut state, &context(), &commands, &limits);
    assert_eq!(halted, Err(Halt::StackOverflow));
    assert_eq!(user(&state), []);
    assert_eq!(code(&apply(&component, &mut state, &[put("a", "1")]).outcomes[0]), 0, "others run on");
}

#[test]
fn the_watchdog_halts_what_no_machine_should_need() {
    let settings = EngineSettings {
        instances: 2,
        watchdog: Duration::ZERO,
        fuel_per_second: u64::MAX.try_into().unwrap(),
        ..EngineSettings::default()
    };
    let component = Engine::new(settings).unwrap().compile(&guest::machine()).unwrap();
    let limits = ComponentLimits { fuel_per_command: 10_000_000_000, ..LIMITS };
    let mut state = State::new();
    let halted = component.apply(&mut state, &context(), &[command("l", b"")], &limits);
    assert_eq!(halted, Err(Halt::Watchdog));
}

#[test]
fn a_query_reads_its_own_view_and_cannot_write() {
    let component = compiled();
    let mut state = State::new();
    apply(&component, &mut state, &[put("a", "1")]);
    let view = state.view();
    apply(&component, &mut state, &[put("a", "2")]);
    let query = |name: &str, body: &'static [u8]| {
        component.query(&view, LogIndex(9), name, &Bytes::from_static(body), &LIMITS).unwrap()
    };
    assert_eq!(query("g", b"a"), Ok(Bytes::from_static(b"1")));
    assert_eq!(query("g", b"z").unwrap_err().code, 107);
    assert_eq!(query("p", b"a").unwrap_err().code, Rejection::TRAPPED);
    assert_eq!(query("e", b"a").unwrap_err().code, Rejection::TRAPPED);
    assert_eq!(query("l", b"a").unwrap_err().code, Rejection::OUT_OF_FUEL);
    assert_eq!(query("w", b"a").unwrap_err().code, Rejection::OVER_LIMIT);
    assert_eq!(user(&state), pairs(&[("a", "2")]));
}

#[test]
fn more_queries_than_instances_wait_their_turn() {
    let component = compiled();
    let view = State::new().view();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..20 {
                    let answer = component.query(&view, LogIndex(1), "g", &Bytes::from_static(b"a"), &LIMITS);
                    assert_eq!(answer.unwrap().unwrap_err().code, 107);
                }
            });
        }
    });
}

#[test]
fn init_prepares_the_state_or_leaves_it_alone() {
    let component = compiled();
    let init = |state: &mut State, parameters: &'static [u8]| {
        component.init(state, &context(), &Bytes::from_static(parameters), &LIMITS).unwrap()
    };
    let mut state = State::new();
    assert_eq!(init(&mut state, b"!no").unwrap_err().code, 300);
    assert_eq!(init(&mut state, b"?").unwrap_err().code, Rejection::TRAPPED);
    assert_eq!(user(&state), []);
    assert!(init(&mut state, b"yes").is_ok());
    assert_eq!(user(&state), pairs(&[("params", "yes")]));
}

#[test]
fn a_migration_goes_all_the_way_or_not_at_all() {
    let component = compiled();
    let migrate = |state: &mut State, from| component.migrate(state, &context(), from, &LIMITS).unwrap();
    let mut state = State::new();
    assert_eq!(migrate(&mut state, 3).unwrap_err().code, 301, "refused in its second step");
    assert_eq!(migrate(&mut state, 4).unwrap_err().code, Rejection::OVER_LIMIT, "never finished");
    let unknown = migrate(&mut state, 2).unwrap_err();
    assert_eq!((unknown.code, unknown.name.as_str()), (Rejection::ACTIVATION_FAILED, "no-migration"));
    assert_eq!(user(&state), []);
    assert!(migrate(&mut state, 1).is_ok());
    assert_eq!(user(&state), pairs(&[("m1", ""), ("m2", "")]));
}

/// Keeps what components say.
#[derive(Debug, Default)]
struct Heard(Mutex<Vec<String>>);

impl Diagnostics for Heard {
    fn log(&self, source: &Source, level: Level, target: &str, message: &str) {
        self.0.lock().unwrap().push(format!("{} {level:?} {target} {message}", source.label));
    }

    fn panicked(&self, source: &Source, message: &str, location: &str) {
        self.0.lock().unwrap().push(format!("{} panicked {message} {location}", source.label));
    }
}

#[test]
fn a_component_speaks_to_the_nodes_log_and_to_nobody_else() {
    let heard = Arc::new(Heard::default());
    let settings = EngineSettings {
        instances: 2,
        diagnostics: Arc::clone(&heard) as Arc<dyn Diagnostics>,
        ..EngineSettings::default()
    };
    let component = Engine::new(settings).unwrap().compile(&guest::machine()).unwrap();
    let long = vec![b'x'; 10_000];
    let applied = apply(&component, &mut State::new(), &[command("L", b"hello"), command("L", &long)]);
    assert_eq!(applied.outcomes, vec![Outcome::Done(Bytes::new()); 2]);
    let applied = apply(&component, &mut State::new(), &[command("P", b"")]);
    assert!(!format!("{:?}", applied.outcomes).contains("boom"));
    let lines = heard.0.lock().unwrap();
    assert_eq!(lines[0], "test-guest@1.2.3 Warn L hello");
    assert!(lines[1].len() < 5_000, "long lines are cut");
    assert_eq!(lines[2], "test-guest@1.2.3 panicked boom guest.rs:7");
}
