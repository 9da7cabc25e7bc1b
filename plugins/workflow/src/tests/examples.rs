//! The specification's own examples, with what they come to.

use super::harness::{Group, json};
use crate::{CaseLine, Event, Query};

macro_rules! example {
    ($name:literal) => {
        include_str!(concat!("../../examples/specification/", $name, ".yaml"))
    };
}

/// The newest case of a group.
fn newest(group: &Group) -> u64 {
    let all =
        Query::Cases { namespace: None, name: None, version: None, state: None, after: None, limit: None };
    group.host.query::<Vec<CaseLine>>(all).unwrap().last().unwrap().case
}

#[test]
fn set_starts_by_an_event_and_keeps_it() {
    let mut group = Group::new();
    group.define(example!("set")).unwrap();
    group.publish(
        r#"{"source":"s","id":"1","type":"io.serverlessworkflow.samples.events.trigger.v1","time":"t"}"#,
    );
    let output = group.output(newest(&group));
    let expected = r#"{"startEvent":{"source":"s","id":"1","specversion":"1.0","time":"t",
                       "type":"io.serverlessworkflow.samples.events.trigger.v1"}}"#;
    assert_eq!(output, json(expected));
}

#[test]
fn emit_shows_the_event() {
    let mut group = Group::new();
    let case = group.run(example!("emit"), "{}");
    assert_eq!(group.output(case), json("{}"));
    let events: Vec<Event> = group.host.events().iter().filter_map(|event| event.read().ok()).collect();
    let data = events.iter().find_map(|event| match event {
        Event::Published { event } => event.field("data").cloned(),
        _ => None,
    });
    let expected = r#"{"client":{"firstName":"Cruella","lastName":"de Vil"},
                       "items":[{"breed":"dalmatian","quantity":101}]}"#;
    assert_eq!(data, Some(json(expected)));
}

#[test]
fn for_ends_when_its_condition_does_not_hold() {
    let mut group = Group::new();
    let case = group.run(example!("for"), r#"{"pets":[{"id":1},{"id":2}]}"#);
    assert_eq!(group.output(case), json(r#"{"pets":[{"id":1},{"id":2}]}"#));
    let case = group.run(example!("for"), r#"{"pets":[{"id":1}],"vet":"v"}"#);
    assert_eq!(group.case(case).tasks, ["/do/0/checkup", "/do/0/checkup/do/0/waitForCheckup"]);
}

#[test]
fn fork_takes_the_first_answer_and_withdraws_the_other_call() {
    let mut group = Group::new();
    let case = group.run(example!("fork"), r#"{"patient":{"fullName":"Ada"},"room":{"number":7}}"#);
    let nurse = group.claim_one("http");
    let doctor = group.answer("http", r#"{"comes":"doctor"}"#);
    let body = json(r#"{"patientId":"Ada","room":7}"#);
    assert_eq!((nurse.arguments.field("body"), doctor.arguments.field("body")), (Some(&body), Some(&body)));
    assert_eq!(group.output(case), json(r#"{"comes":"doctor"}"#));
    let late = crate::Command::Complete { item: nurse.item, token: nurse.token, output: None };
    assert_eq!(group.host.apply(late).unwrap_err().name, "no-item");
}

#[test]
fn conditional_task_raises_only_for_the_underage() {
    let mut group = Group::new();
    let case = group.run(example!("conditional-task"), r#"{"customer":{"age":17}}"#);
    assert_eq!(group.error(case).0, "access-forbidden");
    let case = group.run(example!("conditional-task"), r#"{"customer":{"age":18}}"#);
    group.answer("http", r#"{"placed":true}"#);
    assert_eq!(group.output(case), json(r#"{"placed":true}"#));
}

#[test]
fn listen_to_all_waits_for_one_of_each() {
    let mut group = Group::new();
    let case = group.run(example!("listen-to-all"), "{}");
    for data in [r#"temperature","data":{"temperature":37}"#, r#"bpm","data":{"bpm":120}"#] {
        group.publish(&format!(r#"{{"source":"s","type":"com.fake-hospital.vitals.measurements.{data}}}"#));
    }
    assert_eq!(group.case(case).status, "waiting");
    group.publish(
        r#"{"source":"s","type":"com.fake-hospital.vitals.measurements.temperature","data":{"temperature":39}}"#,
    );
    assert_eq!(group.output(case), json(r#"[{"bpm":120},{"temperature":39}]"#));
}

#[test]
fn listen_until_a_condition_takes_four_events() {
    let mut group = Group::new();
    let case = group.run(example!("listen-to-any-until-condition"), "{}");
    for at in 1..=4 {
        assert_eq!(group.case(case).status, "waiting");
        group.publish(&format!(r#"{{"source":"s","type":"t{at}","data":{at}}}"#));
    }
    assert_eq!(group.output(case), json("[1,2,3,4]"));
}

#[test]
fn listen_until_consumed_leaves_the_last_event_out() {
    let mut group = Group::new();
    let case = group.run(example!("listen-to-any-until-consumed"), "{}");
    group.publish(r#"{"source":"s","type":"com.fake-hospital.vitals.measurements.bpm","data":{"bpm":40}}"#);
    group.publish(r#"{"source":"s","type":"com.fake-hospital.patient.checked-out","data":{"at":"noon"}}"#);
    assert_eq!(group.output(case), json(r#"[{"bpm":40}]"#));
}

#[test]
fn the_mocking_extension_lets_other_hosts_pass_and_mocks_its_own() {
    let mut group = Group::new();
    let case = group.run(example!("mock-service-extension"), "{}");
    group.answer("http", r#"{"real":true}"#);
    assert_eq!(group.output(case), json(r#"{"real":true}"#));
    let mocked = example!("mock-service-extension")
        .replace("uri: https://fake.com/sample", "uri: https://mocked.service.com/sample")
        .replace("$task.with.endpoint | startswith", "$task.with.endpoint | tostring | startswith")
        .replace("version: 0.1.0", "version: 0.2.0");
    let case = group.run(&mocked, "{}");
    let expected =
        r#"{"statusCode":200,"headers":{"Content-Type":"application/json"},"content":{"foo":{"bar":"baz"}}}"#;
    assert_eq!(group.output(case), json(expected));
}

#[test]
fn raise_describes_the_workflow_inline_and_by_name() {
    for text in [example!("raise-inline"), example!("raise-reusable")] {
        let mut group = Group::new();
        let case = group.run(text, "{}");
        let detail = "The workflow 'raise-not-implemented:0.1.0' is a work in progress and cannot be run yet";
        assert_eq!(group.error(case), ("not-implemented".to_owned(), detail.to_owned()));
    }
}

#[test]
fn run_subflow_waits_for_the_other_workflow() {
    let mut group = Group::new();
    let child = "document: {dsl: 1.0.0, namespace: test, name: register-customer, version: 0.1.0}\n\
                 do: [{register: {set: {registered: '${ .customer }'}}}]";
    group.define(child).unwrap();
    let case = group.run(example!("run-subflow"), r#"{"user":"ada"}"#);
    // In strict mode `.user` is a text.
    assert_eq!(group.output(case), json(r#"{"registered":".user"}"#));
}

#[test]
fn run_returns_code_and_both_outputs() {
    let mut group = Group::new();
    let case = group.run(example!("run-return-all"), "{}");
    let claimed = group.answer("run:container", r#"{"code":0,"stdout":"Hello","stderr":""}"#);
    assert_eq!(claimed.arguments, json(r#"{"image":"hello-world"}"#));
    assert_eq!(group.output(case), json(r#"{"code":0,"stdout":"Hello","stderr":""}"#));
}

#[test]
fn an_event_driven_workflow_reads_the_event_that_started_it() {
    let mut group = Group::new();
    group.define(example!("schedule-event-driven")).unwrap();
    group.publish(
        r#"{"source":"s","type":"com.example.hospital.events.patients.heartbeat.low","data":{"timestamp":"noon",
            "patient":{"id":"p1","name":"Ada","room":{"number":7},"vitals":{"bpm":35}}}}"#,
    );
    let claimed = group.answer("http", "{}");
    let body = r#"{"patientId":"p1","patientName":"Ada","roomNumber":7,"vitals":{"heartRate":35,"timestamp":"noon"},
                   "message":"Alert: Patient's heartbeat is critically low. Immediate attention required."}"#;
    assert_eq!(claimed.arguments.field("body"), Some(&json(body)));
    assert_eq!(group.output(newest(&group)), json("{}"));
}

#[test]
fn star_wars_homeworld_follows_the_first_answer() {
    let mut group = Group::new();
    let case = group.run(example!("star-wars-homeworld"), r#"{"id":1}"#);
    let first = group
        .answer("http", r#"{"statusCode":200,"content":{"homeworld":"https://swapi.dev/api/planets/1"}}"#);
    let uri = |uri: &str| json(&format!(r#"{{"uri":"{uri}"}}"#));
    assert_eq!(first.arguments.field("endpoint"), Some(&uri("https://swapi.dev/api/people/1")));
    let second = group.answer("http", r#"{"name":"Tatooine"}"#);
    assert_eq!(second.arguments.field("endpoint"), Some(&uri("https://swapi.dev/api/planets/1")));
    assert_eq!(group.output(case), json(r#"{"name":"Tatooine"}"#));
    let case = group.run(example!("star-wars-homeworld"), r#"{"id":0}"#);
    assert_eq!(group.error(case).0, "validation");
}

#[test]
fn switch_takes_the_branch_of_the_order() {
    for (kind, output) in [
        ("electronic", r#"{"validate":true,"status":"fulfilled"}"#),
        ("physical", r#"{"inventory":"clear","items":1,"address":"Elmer St"}"#),
        ("other", r#"{"log":"warn","message":"something's wrong"}"#),
    ] {
        let mut group = Group::new();
        let case = group.run(example!("switch-then-string"), &format!(r#"{{"orderType":"{kind}"}}"#));
        assert_eq!(group.output(case), json(output), "{kind}");
    }
}

#[test]
fn retries_back_off_exponentially_and_end() {
    let mut group = Group::new();
    let case = group.run(example!("try-catch-retry-inline"), r#"{"petId":1}"#);
    for delay in [3, 6, 12, 24, 48] {
        group.fail("http", r#"{"status":503}"#);
        group.pass(delay * 1_000 - 1);
        assert!(group.claim("http").is_none(), "{delay}");
        group.pass(1);
    }
    group.fail("http", r#"{"status":503}"#);
    assert_eq!(group.error(case).0, "communication");
    let case = group.run(example!("try-catch-retry-inline"), r#"{"petId":2}"#);
    group.fail("http", r#"{"status":503}"#);
    group.pass(3_000);
    group.answer("http", r#"{"id":2}"#);
    assert_eq!(group.output(case), json(r#"{"id":2}"#));
}

#[test]
fn a_caught_error_is_handled_and_the_next_task_runs() {
    let mut group = Group::new();
    let case = group.run(example!("try-catch-then"), r#"{"petId":1}"#);
    group.answer("http", r#"{"id":1}"#);
    let bought = group.answer("http", r#"{"sold":1}"#);
    assert_eq!(bought.arguments.field("body"), Some(&json(r#"{"id":1,"status":"sold"}"#)));
    assert_eq!(group.output(case), json(r#"{"sold":1}"#));
    let case = group.run(example!("try-catch-then"), r#"{"petId":2}"#);
    group.fail("http", r#"{"status":404}"#);
    // In strict mode `$error` is a text in `set`, and after the handler no error is bound for `export`.
    assert_eq!(group.output(case), json(r#"{"error":"$error"}"#));
    assert_eq!(
        group.case(case).context.field("error").and_then(|error| error.field("status")),
        Some(&json("404"))
    );
}

#[test]
fn a_function_refuses_input_that_its_schema_does_not_allow() {
    let mut group = Group::new();
    let case = group.run(example!("call-custom-function-inline"), "{}");
    // The example passes a number where its schema asks for a text.
    assert_eq!(group.error(case).0, "validation");
    let text =
        example!("call-custom-function-inline").replace("petId: 69", "petId: '69'").replace("0.1.0", "0.2.0");
    let case = group.run(&text, "{}");
    let claimed = group.answer("http", r#"{"name":"milou"}"#);
    let endpoint = json(r#"{"uri":"https://petstore.swagger.io/v2/pet/69"}"#);
    assert_eq!(claimed.arguments.field("endpoint"), Some(&endpoint));
    assert_eq!(group.output(case), json(r#"{"name":"milou"}"#));
}
