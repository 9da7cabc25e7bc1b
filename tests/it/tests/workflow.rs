//! Workflows on a cluster of real processes, through the command line.
//!
//! Relies on the binary and the workflow component. Promises that a definition, a case and a worker meet.
//! Knows none of the language: the component's own tests cover it.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use quorate_it::{Background, TestCluster, plugin, repository};
use serde_json::{Value, json};

const HEAD: &str = "document: {dsl: '1.0.0', namespace: it, name: NAME, version: '1.0.0'}\n";

fn write(cluster: &TestCluster, name: &str, rest: &str) -> Result<PathBuf> {
    let file = cluster.directory().join(format!("{name}.yaml"));
    fs::write(&file, HEAD.replace("NAME", name) + rest)?;
    Ok(file)
}

/// Serves a function with a script of the shell.
fn worker(cluster: &TestCluster, function: &str, script: &str) -> Result<Background> {
    let program = cluster.directory().join(function.replace(':', "-"));
    fs::write(&program, format!("#!/bin/sh\n{script}\n"))?;
    assert!(std::process::Command::new("chmod").arg("+x").arg(&program).status()?.success());
    let program = program.to_str().unwrap();
    Ok(cluster.quorate_in_background(&[
        "workflow",
        "worker",
        "flows",
        "--function",
        function,
        "--exec",
        program,
    ]))
}

/// What could go wrong: a case that does not run through, or whose output is not printed; work that no
/// worker gets; a case that cannot be found again.
#[tokio::test]
async fn a_case_runs_with_a_worker_and_can_be_looked_at() -> Result<()> {
    let cluster = TestCluster::start(3).await?;
    cluster.deploy("flows", &plugin("workflow"));
    let sum = write(&cluster, "sum", "do: [{add: {set: {sum: '${ .numbers | add }'}}}]\n")?;
    let input = cluster.directory().join("input.json");
    fs::write(&input, json!({ "numbers": [1, 2, 39] }).to_string())?;
    let run = ["workflow", "run", "flows", sum.to_str().unwrap(), "--input", input.to_str().unwrap()];
    assert!(cluster.quorate(&run).good().to_string().contains("{\"sum\":42}"));

    let greet = write(&cluster, "greet", "do: [{ask: {call: greeter, with: {name: ada}}}]\n")?;
    let program = cluster.directory().join("greeter");
    fs::write(&program, "#!/bin/sh\nread -r asked\nprintf '{\"asked\":%s}' \"$asked\"\n")?;
    let executable = std::process::Command::new("chmod").arg("+x").arg(&program).status()?;
    assert!(executable.success());
    let program = program.to_str().unwrap();
    let _worker = cluster.quorate_in_background(&[
        "workflow",
        "worker",
        "flows",
        "--function",
        "greeter",
        "--exec",
        program,
    ]);
    let answered = cluster.quorate(&["workflow", "run", "flows", greet.to_str().unwrap()]).good();
    assert!(answered.to_string().contains("{\"asked\":{\"name\":\"ada\"}}"), "{answered}");

    let cases = cluster.quorate(&["workflow", "list", "flows"]).good();
    assert!(cases.as_array().is_some_and(|cases| cases.len() == 2), "{cases}");
    assert!(cases.as_array().unwrap().iter().all(|case| case["status"] == "completed"), "{cases}");
    Ok(())
}

/// What could go wrong: a faulty definition that is taken, or refused without its place.
#[tokio::test]
async fn a_faulty_definition_is_refused_with_the_place_of_each_fault() -> Result<()> {
    let cluster = TestCluster::start(1).await?;
    cluster.deploy("flows", &plugin("workflow"));
    let file = write(&cluster, "faulty", "do: [{a: {call: f, then: nowhere}}]\n")?;
    let ran = cluster.quorate(&["workflow", "define", "flows", file.to_str().unwrap()]);
    assert_ne!(ran.status, 0, "{ran:?}");
    assert!(ran.stderr.contains("/do/0/a"), "{ran:?}");
    Ok(())
}

/// What could go wrong: a halted case that goes on, or cannot be let go on; an event that reaches another
/// case, or none; one that is refused without its reason.
#[tokio::test]
async fn cases_are_halted_and_given_events() -> Result<()> {
    let cluster = TestCluster::start(1).await?;
    cluster.deploy("flows", &plugin("workflow"));
    let waits = write(&cluster, "waits", "do: [{l: {listen: {to: {one: {with: {type: it.news}}}}}}]\n")?;
    let workflow = |rest: &[&str]| cluster.quorate(&[&["workflow"], rest].concat());
    let with_event = |rest: &[&str], event: &str| {
        cluster.quorate_with_input(&[&["workflow"], rest, &["--event", "-"]].concat(), event)
    };
    let status = |case: &str| workflow(&["show", "flows", case]).good()["status"].clone();
    let _defined = workflow(&["define", "flows", waits.to_str().unwrap()]).good();
    for case in 1..=3 {
        assert_eq!(workflow(&["start", "flows", "it/waits"]).good()["case"], case);
    }
    let news = r#"{"source":"/it","type":"it.news","data":1}"#;

    assert_eq!(with_event(&["signal", "flows", "3"], news).good(), json!({ "signalled": 3 }));
    assert_eq!([status("2"), status("3")], ["waiting", "completed"]);
    let over = with_event(&["signal", "flows", "3"], news).refused(4);
    assert!(over.contains("case 3 is completed already"), "{over}");

    assert_eq!(workflow(&["suspend", "flows", "1"]).good(), json!({ "suspended": 1 }));
    let twice = workflow(&["suspend", "flows", "1"]).refused(4);
    assert!(twice.contains("case 1 is suspended"), "{twice}");
    assert_eq!(with_event(&["publish", "flows"], news).good(), json!({ "cases": 2 }));
    assert_eq!([status("1"), status("2")], ["suspended", "completed"]);
    assert_eq!(workflow(&["resume", "flows", "1"]).good(), json!({ "resumed": 1 }));
    assert_eq!(status("1"), "completed");
    let again = workflow(&["resume", "flows", "1"]).refused(4);
    assert!(again.contains("case 1 is completed"), "{again}");

    let untyped = with_event(&["publish", "flows"], r#"{"source":"/it"}"#).refused(4);
    assert!(untyped.contains("`type`"), "{untyped}");
    let no_json = with_event(&["publish", "flows"], "{").refused(2);
    assert!(no_json.contains("is not JSON"), "{no_json}");
    Ok(())
}

/// Examples of the specification, the input of a case, and its output or a part of its error. Calls are
/// answered by a worker of this machine.
const EXAMPLES: [(&str, &str, Result<&str, &str>); 15] = [
    ("emit", "{}", Ok("{}")),
    ("for", r#"{"pets":[{"id":1}]}"#, Ok(r#"{"pets":[{"id":1}]}"#)),
    ("switch-then-string", r#"{"orderType":"electronic"}"#, Ok(r#"{"validate":true,"status":"fulfilled"}"#)),
    ("switch-then-string", r#"{"orderType":"other"}"#, Ok(r#"{"log":"warn","message":"something's wrong"}"#)),
    ("conditional-task", r#"{"customer":{"age":17}}"#, Err("access-forbidden")),
    ("conditional-task", r#"{"customer":{"age":18}}"#, Ok(ANSWER)),
    ("raise-inline", "{}", Err("is a work in progress and cannot be run yet")),
    ("star-wars-homeworld", r#"{"id":1}"#, Ok(ANSWER)),
    ("star-wars-homeworld", "{}", Err("`id` is missing")),
    ("fork", r#"{"patient":{"fullName":"Ada"},"room":{"number":7}}"#, Ok(ANSWER)),
    ("run-return-all", "{}", Ok(r#"{"code":0,"stdout":"Hello","stderr":""}"#)),
    ("call-custom-function-inline", "{}", Err("the input does not fit its schema")),
    ("try-catch-then", r#"{"petId":1}"#, Ok(ANSWER)),
    ("try-catch-retry-inline", r#"{"petId":1}"#, Ok(ANSWER)),
    ("run-subflow", r#"{"user":"ada"}"#, Ok(r#"{"registered":".user"}"#)),
];
/// What the worker answers to every call.
const ANSWER: &str = r#"{"content":{"homeworld":"https://swapi.dev/api/planets/1"},"name":"Tatooine"}"#;

/// What could go wrong: a workflow that the specification shows does not run, or comes to something else.
#[tokio::test]
async fn the_specifications_examples_come_to_what_they_must() -> Result<()> {
    let cluster = TestCluster::start(1).await?;
    cluster.deploy("flows", &plugin("workflow"));
    let _http = worker(&cluster, "http", &format!("cat > /dev/null; echo '{ANSWER}'"))?;
    let container = r#"cat > /dev/null; echo '{"code":0,"stdout":"Hello","stderr":""}'"#;
    let _container = worker(&cluster, "run:container", container)?;
    let child = cluster.directory().join("child.yaml");
    let text = "document: {dsl: '1.0.0', namespace: test, name: register-customer, version: '0.1.0'}\n\
                do: [{register: {set: {registered: '${ .customer }'}}}]\n";
    fs::write(&child, text)?;
    let _defined = cluster.quorate(&["workflow", "define", "flows", child.to_str().unwrap()]).good();
    let folder = repository().join("plugins/workflow/examples/specification");
    for (name, input, expected) in EXAMPLES {
        let file = folder.join(format!("{name}.yaml"));
        let run = ["workflow", "run", "flows", file.to_str().unwrap(), "--input", "-"];
        let ran = cluster.quorate_with_input(&run, input);
        match expected {
            Ok(output) => {
                let output: Value = serde_json::from_str(output)?;
                assert_eq!(ran.good()["output"], output, "{name}");
            }
            Err(part) => {
                assert_ne!(ran.status, 0, "{name}: {ran:?}");
                assert!(ran.stderr.contains(part), "{name}: {ran:?}");
            }
        }
    }
    Ok(())
}
