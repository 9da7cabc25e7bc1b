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
