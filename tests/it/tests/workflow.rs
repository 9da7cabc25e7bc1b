//! Workflows on a cluster of real processes, through the command line.
//!
//! Relies on the binary and the workflow component. Promises that a definition, a case and a worker meet.
//! Knows none of the language: the component's own tests cover it.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use quorate_it::{TestCluster, plugin};
use serde_json::json;

const HEAD: &str = "document: {dsl: '1.0.0', namespace: it, name: NAME, version: '1.0.0'}\n";

fn write(cluster: &TestCluster, name: &str, rest: &str) -> Result<PathBuf> {
    let file = cluster.directory().join(format!("{name}.yaml"));
    fs::write(&file, HEAD.replace("NAME", name) + rest)?;
    Ok(file)
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
