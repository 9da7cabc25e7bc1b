//! Cases from outside: keys, listings, histories, halting, versions, schedules.

use quorate_sdk::prelude::Rejection;

use super::harness::{Group, document, json};
use crate::value::Value;
use crate::{CaseLine, Command, Event, Limits, Phase, Query, Reference, Started};

const WAITS: &str = "do: [{w: {wait: PT10S}}, {s: {set: {x: 1}}}]";

fn reference(name: &str) -> Reference {
    Reference { namespace: "test".into(), name: name.into(), version: "0.1.0".into() }
}

fn start_with_key(group: &mut Group, key: &str, input: &str) -> Result<Started, Rejection> {
    let command = Command::Start {
        namespace: "test".into(),
        name: "keyed".into(),
        version: None,
        key: Some(key.into()),
        input: Some(json(input)),
    };
    group.host.apply(command)?.read()
}

fn list(group: &Group, query: Query) -> Vec<u64> {
    let lines: Vec<CaseLine> = group.host.query(query).unwrap();
    lines.into_iter().map(|line| line.case).collect()
}

#[test]
fn a_second_start_under_one_key_finds_the_first() {
    // A client that does not know whether its start arrived repeats it; that must not make two cases.
    let mut group = Group::new();
    group.define(&(document("keyed") + WAITS)).unwrap();
    let first = start_with_key(&mut group, "order-1", r#"{"n":1}"#).unwrap();
    assert_eq!(first, Started { case: 1, new: true });
    assert_eq!(start_with_key(&mut group, "order-1", r#"{"n":1}"#).unwrap(), Started { case: 1, new: false });
    let refused = start_with_key(&mut group, "order-1", r#"{"n":2}"#).unwrap_err();
    assert_eq!((refused.code, refused.name.as_str()), (204, "key-taken"));
    assert_eq!(start_with_key(&mut group, "order-2", r#"{"n":1}"#).unwrap().case, 2);
    assert!(start_with_key(&mut group, "", "{}").is_err(), "an empty key");
    let query = Query::ByKey { namespace: "test".into(), name: "keyed".into(), key: "order-1".into() };
    assert_eq!(group.host.query::<crate::CaseView>(query).unwrap().case, 1);
}

#[test]
fn what_is_not_there_is_refused() {
    let mut group = Group::new();
    let names = |refused: Rejection| refused.name;
    assert_eq!(group.start(&reference("none"), "{}").map_err(names), Err("not-defined".to_owned()));
    for command in [
        Command::Cancel { case: 7 },
        Command::Suspend { case: 7 },
        Command::Resume { case: 7 },
        Command::Forget { case: 7 },
        Command::Signal { case: 7, event: json(r#"{"source":"s","type":"t"}"#) },
    ] {
        assert_eq!(group.host.apply(command).map(|_| ()).map_err(names), Err("no-case".to_owned()));
    }
    let event = Command::Publish { event: json(r#"{"type":"t"}"#) };
    assert_eq!(group.host.apply(event).map(|_| ()).map_err(names), Err("bad-event".to_owned()));
    let asked: Result<Value, Rejection> = group.host.query(Query::Case { case: 7 });
    assert_eq!(asked.map_err(names), Err("no-case".to_owned()));
}

#[test]
fn cases_are_listed_by_state_and_definition_page_by_page() {
    let mut group = Group::new();
    let long = group.define(&(document("long") + WAITS)).unwrap();
    let short = group.define(&(document("short") + "do: [{s: {set: {x: 1}}}]")).unwrap();
    for _ in 0..5 {
        group.start(&long, "{}").unwrap();
        group.start(&short, "{}").unwrap();
    }
    group.host.apply(Command::Cancel { case: 3 }).unwrap();
    let all = |state, name: Option<&str>, after, limit| Query::Cases {
        namespace: name.map(|_| "test".into()),
        name: name.map(Into::into),
        version: None,
        state,
        after,
        limit,
    };
    assert_eq!(list(&group, all(None, None, None, Some(4))), [1, 2, 3, 4]);
    assert_eq!(list(&group, all(None, None, Some(4), Some(4))), [5, 6, 7, 8]);
    assert_eq!(list(&group, all(Some(Phase::Active), None, None, None)), [1, 5, 7, 9]);
    assert_eq!(list(&group, all(Some(Phase::Cancelled), Some("long"), None, None)), [3]);
    assert_eq!(list(&group, all(Some(Phase::Completed), Some("short"), Some(4), Some(2))), [6, 8]);
    assert_eq!(list(&group, all(Some(Phase::Faulted), None, None, None)), [] as [u64; 0]);
    let refused = group.host.query::<Value>(all(None, Some("none"), None, None)).unwrap_err();
    assert_eq!(refused.name, "not-defined");
}

#[test]
fn a_line_says_how_its_case_stands_at_any_time() {
    // Lines are stored beside their cases; one that is not written when its case changes would lie.
    let limits = Limits { transitions_per_command: 1, ..Limits::default() };
    let mut group = Group::with(limits);
    let long = group.define(&(document("long") + "do: [{a: {set: {x: 1}}}, {c: {call: f}}]")).unwrap();
    let case = group.start(&long, "{}").unwrap();
    let line = |group: &Group| {
        let query = Query::Cases {
            namespace: None,
            name: None,
            version: None,
            state: None,
            after: None,
            limit: None,
        };
        let [line] = group.host.query::<Vec<CaseLine>>(query).unwrap().try_into().unwrap();
        assert_eq!(
            (line.case, &line.definition, line.started_at),
            (case, &long, group.case(case).started_at)
        );
        assert_eq!(line.status, group.case(case).status);
        (line.status, line.ended_at)
    };
    assert_eq!(line(&group), ("running".to_owned(), None));
    group.pass(0);
    assert_eq!(line(&group), ("waiting".to_owned(), None));
    group.host.apply(Command::Suspend { case }).unwrap();
    assert_eq!(line(&group), ("suspended".to_owned(), None));
    group.host.apply(Command::Resume { case }).unwrap();
    group.pass(5_000);
    group.answer("f", "1");
    let ended = group.case(case).updated_at;
    assert_eq!(line(&group), ("completed".to_owned(), Some(ended)));
    group.host.apply(Command::Forget { case }).unwrap();
    let left = group.host.state().into_keys().filter(|key| key.starts_with(b"listed"));
    assert_eq!(left.count(), 0, "a line outlived its case");
}

#[test]
fn pages_hold_the_oldest_cases_of_all_versions() {
    // Versions are listed apart. Joined in the wrong order, a page would skip cases for good.
    let mut group = Group::new();
    let versions = ["10.0.0", "9.0.0", "8.0.0"].map(|version| {
        let text = document("many").replace("0.1.0", version) + WAITS;
        group.define(&text).unwrap()
    });
    for round in 0..4 {
        for version in &versions[..=round % 3] {
            group.start(version, "{}").unwrap();
        }
    }
    let page = |after: u64| Query::Cases {
        namespace: Some("test".into()),
        name: Some("many".into()),
        version: None,
        state: None,
        after: Some(after),
        limit: Some(3),
    };
    let pages = [list(&group, page(0)), list(&group, page(3)), list(&group, page(6))];
    assert_eq!(pages, [vec![1, 2, 3], vec![4, 5, 6], vec![7]]);
}

#[test]
fn a_history_tells_everything_in_order_and_by_pages() {
    let mut group = Group::new();
    let case =
        group.run_short("told", "do: [{a: {set: {x: 1}}}, {b: {if: false, set: {}}}, {c: {call: f}}]", "{}");
    group.answer("f", "1");
    let lines = group.history(case);
    let told: Vec<(&str, Option<&str>)> =
        lines.iter().map(|line| (line.what.as_str(), line.task.as_deref())).collect();
    assert_eq!(
        told,
        [
            ("case-started", None),
            ("task-started", Some("/do/0/a")),
            ("task-completed", Some("/do/0/a")),
            ("task-skipped", Some("/do/1/b")),
            ("task-started", Some("/do/2/c")),
            ("work-offered", Some("/do/2/c")),
            ("task-completed", Some("/do/2/c")),
            ("case-completed", None),
        ]
    );
    for after in 0..8 {
        let page: Vec<crate::HistoryLine> =
            group.host.query(Query::History { case, after: Some(after), limit: Some(3) }).unwrap();
        let numbers: Vec<u64> = page.iter().map(|line| line.event).collect();
        let expected: Vec<u64> = (after + 1..=8).take(3).collect();
        assert_eq!(numbers, expected, "after {after}");
    }
}

#[test]
fn a_halted_case_does_nothing_and_loses_nothing() {
    let mut group = Group::new();
    let case =
        group.run_short("halted", "do: [{f: {fork: {branches: [{w: {wait: PT1S}}, {c: {call: f}}]}}}]", "{}");
    let claimed = group.claim_one("f");
    group.host.apply(Command::Suspend { case }).unwrap();
    assert_eq!(group.host.apply(Command::Suspend { case }).unwrap_err().name, "wrong-state");
    group.pass(5_000);
    let done = Command::Complete { item: claimed.item, token: claimed.token, output: Some(json("7")) };
    group.host.apply(done).unwrap();
    assert_eq!(group.case(case).status, "suspended");
    group.host.apply(Command::Resume { case }).unwrap();
    assert_eq!(group.output(case), json("[{},7]"));
    assert_eq!(group.host.apply(Command::Resume { case }).unwrap_err().name, "wrong-state");
    group.host.check_determinism();
}

#[test]
fn a_cancelled_case_leaves_nothing_behind() {
    let mut group = Group::new();
    group.define(&(document("child") + WAITS)).unwrap();
    let text = "do:\n- f:\n    fork:\n      branches:\n      - w: {wait: PT9S, timeout: {after: PT20S}}\n      \
                - c: {call: f}\n      - l: {listen: {to: {one: {with: {type: t}}}}}\n      \
                - r: {run: {workflow: {namespace: test, name: child}}}\n      \
                - t: {try: [{x: {call: g}}], catch: {retry: {delay: PT5S}}}\ntimeout: {after: PT60S}";
    let case = group.run_short("parent", text, "{}");
    group.fail("g", "{}");
    assert_eq!(
        group.host.timers().len(),
        5,
        "wait, its timeout, the child's wait, the retry, the case's own"
    );
    group.host.apply(Command::Cancel { case }).unwrap();
    assert_eq!(group.case(case).status, "cancelled");
    assert_eq!(group.case(case + 1).status, "cancelled", "the case within it");
    assert!(group.host.timers().is_empty(), "{:?}", group.host.timers().keys());
    assert!(group.claim("f").is_none());
    let keys: Vec<String> =
        group.host.state().into_keys().map(|key| String::from_utf8_lossy(&key).into_owned()).collect();
    assert!(!keys.iter().any(|key| key.starts_with("listeners") || key.starts_with("items")), "{keys:?}");
    assert_eq!(group.host.apply(Command::Cancel { case }).unwrap_err().name, "over");
}

#[test]
fn a_case_that_is_over_can_be_forgotten() {
    let mut group = Group::new();
    group.define(&(document("keyed") + "do: [{a: {if: .wait, wait: PT9S}}]")).unwrap();
    let before = group.host.state();
    let case = start_with_key(&mut group, "k", "{}").unwrap().case;
    let waiting = start_with_key(&mut group, "w", r#"{"wait":true}"#).unwrap().case;
    assert_eq!(group.host.apply(Command::Forget { case: waiting }).unwrap_err().name, "wrong-state");
    group.host.apply(Command::Cancel { case: waiting }).unwrap();
    for case in [case, waiting] {
        group.host.apply(Command::Forget { case }).unwrap();
    }
    let mut after = group.host.state();
    after.retain(|key, _| !key.starts_with(b"next-case"));
    assert_eq!(after, before, "nothing but the count of cases is left");
}

#[test]
fn cases_stay_on_their_version() {
    let mut group = Group::new();
    let versioned = |version: &str, x: i64| {
        format!(
            "document: {{dsl: 1.0.0, namespace: test, name: v, version: {version}}}\n\
             do: [{{w: {{wait: PT1S}}}}, {{s: {{set: {{x: {x}}}}}}}]"
        )
    };
    let first = group.run(&versioned("1.0.0", 1), "{}");
    let second = group.run(&versioned("2.0.0-rc.1", 2), "{}");
    group.define(&versioned("1.5.0", 15)).unwrap();
    let latest =
        Command::Start { namespace: "test".into(), name: "v".into(), version: None, key: None, input: None };
    let third = group.host.apply(latest).unwrap().read::<Started>().unwrap().case;
    group.pass(1_000);
    let outputs: Vec<Value> = [first, second, third].iter().map(|case| group.output(*case)).collect();
    assert_eq!(outputs, [json(r#"{"x":1}"#), json(r#"{"x":2}"#), json(r#"{"x":2}"#)]);
    // The same text again changes nothing; another text under the same version is refused.
    assert!(group.define(&versioned("1.0.0", 1)).is_ok());
    assert_eq!(group.define(&versioned("1.0.0", 9)).unwrap_err().name, "already-defined");
}

#[test]
fn a_signal_is_held_until_the_case_listens() {
    let mut group = Group::new();
    let text = "do: [{w: {wait: PT1S}}, {l: {listen: {to: {one: {with: {type: t}}}}}}]";
    let case = group.run_short("listens", text, "{}");
    let signal = |case, kind: &str| Command::Signal {
        case,
        event: json(&format!(r#"{{"source":"s","type":"{kind}","data":5}}"#)),
    };
    group.host.apply(signal(case, "t")).unwrap();
    group.pass(1_000);
    assert_eq!(group.output(case), json("[5]"));
    assert_eq!(group.host.apply(signal(case, "t")).unwrap_err().name, "over");
}

#[test]
fn an_emitted_event_is_shown_to_watchers_with_all_its_attributes() {
    let mut group = Group::new();
    let text = "do: [{a: {emit: {event: {with: {source: 'https://e.com', type: t.v1, data: {n: 1}}}}}}]";
    group.run_short("emits", text, "{}");
    let events: Vec<Event> = group.host.events().iter().filter_map(|event| event.read().ok()).collect();
    let published = events.iter().find_map(|event| match event {
        Event::Published { event } => Some(event.clone()),
        _ => None,
    });
    let event = published.unwrap();
    for key in ["id", "source", "type", "specversion", "time"] {
        assert!(event.field(key).and_then(Value::as_text).is_some(), "{key} in {event}");
    }
    let kinds: Vec<&str> = events
        .iter()
        .filter_map(|event| match event {
            Event::Lifecycle { kind, .. } => Some(kind.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(
        kinds,
        ["io.serverlessworkflow.workflow.started.v1", "io.serverlessworkflow.workflow.completed.v1"]
    );
}

#[test]
fn schedules_start_cases_by_themselves() {
    let mut group = Group::new();
    let set = "do: [{a: {set: {x: '${ $workflow.input }'}}}]";
    group.define(&format!("{}schedule: {{every: PT10S}}\n{set}", document("every"))).unwrap();
    group.define(&format!("{}schedule: {{cron: '0 0 * * *'}}\n{set}", document("cron"))).unwrap();
    group.define(&format!("{}schedule: {{after: PT5S}}\n{set}", document("after"))).unwrap();
    let on = "schedule: {on: {all: [{with: {type: a}}, {with: {type: b}}]}}";
    group.define(&format!("{}{on}\n{set}", document("on"))).unwrap();
    let count = |group: &Group, name: &str| {
        let (namespace, name) = (Some("test".into()), Some(name.into()));
        list(group, Query::Cases { namespace, name, version: None, state: None, after: None, limit: None })
    };
    group.pass(10_000);
    group.pass(10_000);
    assert_eq!(count(&group, "every").len(), 2);
    assert_eq!(count(&group, "cron").len(), 0);
    group.start(&reference("after"), "{}").unwrap();
    group.pass(5_000);
    group.pass(5_000);
    assert_eq!(count(&group, "after").len(), 3, "each end starts the next");
    group.publish(r#"{"source":"s","type":"b","id":"1"}"#);
    assert_eq!(count(&group, "on").len(), 0);
    group.publish(r#"{"source":"s","type":"a","id":"2"}"#);
    let started = count(&group, "on");
    assert_eq!(started.len(), 1);
    let output = group.output(started[0]);
    let ids: Vec<&str> = output
        .field("x")
        .unwrap()
        .items()
        .unwrap()
        .iter()
        .map(|event| event.field("id").unwrap().as_text().unwrap())
        .collect();
    assert_eq!(ids, ["2", "1"], "in the order of the filters");
    group.pass(24 * 3_600_000);
    assert_eq!(count(&group, "cron").len(), 1);
    // A newer version takes the schedule over.
    let newer = format!("{}schedule: {{every: PT10S}}\n{set}", document("every")).replace("0.1.0", "0.2.0");
    group.define(&newer).unwrap();
    let before = count(&group, "every").len();
    group.pass(10_000);
    assert_eq!(count(&group, "every").len(), before + 1, "only one of the versions starts cases");
}
