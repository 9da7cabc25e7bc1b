//! `quorate workflow`: definitions, cases and workers of a group that runs the workflow component.
//!
//! Relies on the client library and on the component's commands and queries by their names. Promises
//! tables for people, JSON for programs, and an exit status that tells a case that faulted from one that
//! completed. Knows nothing of how the component works.

mod arguments;
mod remote;
mod worker;

use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};

pub use arguments::{
    CaseArguments, DefineArguments, ListArguments, PublishArguments, RunArguments, SignalArguments,
    StartArguments, State, WorkerArguments, WorkflowCommand,
};

use crate::exit::{Fault, Kind};
use crate::output::{Output, pairs, table};
use remote::Remote;

/// How often `run` looks whether a case is over, in milliseconds.
const LOOK_MILLIS: u64 = 50;

/// Carries out a command.
///
/// # Errors
///
/// As the command's; the kinds are those of [`crate::exit`].
pub async fn run(command: WorkflowCommand, output: Output) -> Result<()> {
    match command {
        WorkflowCommand::Define(arguments) => define(arguments, output).await,
        WorkflowCommand::Start(arguments) => start(arguments, output).await,
        WorkflowCommand::Show(arguments) => show(arguments, output).await,
        WorkflowCommand::List(arguments) => list(arguments, output).await,
        WorkflowCommand::History(arguments) => history(arguments, output).await,
        WorkflowCommand::Cancel(arguments) => turn(arguments, ["cancel", "cancelled"], output).await,
        WorkflowCommand::Suspend(arguments) => turn(arguments, ["suspend", "suspended"], output).await,
        WorkflowCommand::Resume(arguments) => turn(arguments, ["resume", "resumed"], output).await,
        WorkflowCommand::Signal(arguments) => signal(arguments, output).await,
        WorkflowCommand::Publish(arguments) => publish(arguments, output).await,
        WorkflowCommand::Run(arguments) => run_to_end(arguments, output).await,
        WorkflowCommand::Worker(arguments) => worker::run(arguments, output).await,
    }
}

fn read_text(file: &Path) -> Result<String> {
    let refused = |error| Fault::usage(format!("{} cannot be read: {error}", file.display()));
    if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(refused)?;
        return Ok(text);
    }
    std::fs::read_to_string(file).map_err(refused)
}

/// A case's input; an empty object if there is none.
fn read_input(file: Option<&Path>) -> Result<Value> {
    file.map_or_else(|| Ok(json!({})), read_json)
}

fn read_json(file: &Path) -> Result<Value> {
    serde_json::from_str(&read_text(file)?)
        .map_err(|error| Fault::usage(format!("{} is not JSON: {error}", file.display())))
}

/// The two parts of `namespace/name`.
fn split_name(name: &str) -> Result<(&str, &str)> {
    name.split_once('/')
        .ok_or_else(|| Fault::usage(format!("{name} is no workflow; write it as namespace/name")))
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn definition_name(value: &Value) -> String {
    format!("{}/{} {}", text(&value["namespace"]), text(&value["name"]), text(&value["version"]))
}

async fn define(arguments: DefineArguments, output: Output) -> Result<()> {
    let text = read_text(&arguments.file)?;
    let remote = Remote::connect(&arguments.group, &arguments.connection).await?;
    let defined = remote.command("define", &json!({ "text": text })).await?;
    output.show(&defined, || definition_name(&defined))?;
    remote.close().await
}

async fn start(arguments: StartArguments, output: Output) -> Result<()> {
    let (namespace, name) = split_name(&arguments.workflow)?;
    let body = json!({
        "namespace": namespace, "name": name, "version": arguments.version, "key": arguments.business_key,
        "input": read_input(arguments.input.as_deref())?,
    });
    let remote = Remote::connect(&arguments.group, &arguments.connection).await?;
    let started = remote.command("start", &body).await?;
    output.show(&started, || {
        let new = if started["new"] == true { "" } else { " (started before under this key)" };
        format!("case {}{new}", started["case"])
    })?;
    remote.close().await
}

async fn show(arguments: CaseArguments, output: Output) -> Result<()> {
    let remote = Remote::connect(&arguments.group, &arguments.connection).await?;
    let case = remote.query("case", &json!({ "case": arguments.case })).await?;
    output.show(&case, || describe(&case))?;
    remote.close().await
}

fn describe(case: &Value) -> String {
    let mut lines = vec![
        ("case", text(&case["case"])),
        ("workflow", definition_name(&case["definition"])),
        ("key", text(&case["key"])),
        ("status", text(&case["status"])),
        ("tasks", text(&case["tasks"])),
        ("input", text(&case["input"])),
        ("context", text(&case["context"])),
    ];
    for key in ["output", "error"] {
        if !case[key].is_null() {
            lines.push((key, text(&case[key])));
        }
    }
    pairs(&lines)
}

async fn list(arguments: ListArguments, output: Output) -> Result<()> {
    let name = arguments.workflow.as_deref().map(split_name).transpose()?;
    let body = json!({
        "namespace": name.map(|(namespace, _)| namespace), "name": name.map(|(_, name)| name),
        "state": arguments.state.map(State::word), "after": arguments.after, "limit": arguments.limit,
    });
    let remote = Remote::connect(&arguments.group, &arguments.connection).await?;
    let cases = remote.query("cases", &body).await?;
    output.show(&cases, || {
        let rows = cases.as_array().into_iter().flatten();
        let row = |case: &Value| {
            vec![
                text(&case["case"]),
                text(&case["status"]),
                definition_name(&case["definition"]),
                text(&case["key"]),
            ]
        };
        table(&["case", "status", "workflow", "key"], rows.map(row))
    })?;
    remote.close().await
}

async fn history(arguments: CaseArguments, output: Output) -> Result<()> {
    let remote = Remote::connect(&arguments.group, &arguments.connection).await?;
    let mut events: Vec<Value> = Vec::new();
    loop {
        let after = events.last().map(|event| event["event"].clone());
        let page = remote.query("history", &json!({ "case": arguments.case, "after": after })).await?;
        match page {
            Value::Array(page) if !page.is_empty() => events.extend(page),
            _ => break,
        }
    }
    let value = Value::Array(events);
    output.show(&value, || {
        let rows = value.as_array().into_iter().flatten();
        let row = |event: &Value| {
            vec![
                text(&event["event"]),
                text(&event["at"]),
                text(&event["what"]),
                text(&event["task"]),
                text(&event["more"]),
            ]
        };
        table(&["event", "unix ms", "what", "task", "more"], rows.map(row))
    })?;
    remote.close().await
}

/// Submits a command about a case, and says what the case is then.
async fn turn(arguments: CaseArguments, [command, became]: [&str; 2], output: Output) -> Result<()> {
    let CaseArguments { group, case, connection } = arguments;
    let remote = Remote::connect(&group, &connection).await?;
    remote.command(command, &json!({ "case": case })).await?;
    output.show(&json!({ became: case }), || format!("case {case} is {became}"))?;
    remote.close().await
}

async fn signal(arguments: SignalArguments, output: Output) -> Result<()> {
    let event = read_json(&arguments.event)?;
    let CaseArguments { group, case, connection } = arguments.case;
    let remote = Remote::connect(&group, &connection).await?;
    remote.command("signal", &json!({ "case": case, "event": event })).await?;
    output.show(&json!({ "signalled": case }), || format!("case {case} has the event"))?;
    remote.close().await
}

async fn publish(arguments: PublishArguments, output: Output) -> Result<()> {
    let event = read_json(&arguments.event)?;
    let remote = Remote::connect(&arguments.group, &arguments.connection).await?;
    let cases = remote.command("publish", &json!({ "event": event })).await?;
    output.show(&json!({ "cases": cases }), || format!("{cases} cases have the event"))?;
    remote.close().await
}

async fn run_to_end(arguments: RunArguments, output: Output) -> Result<()> {
    let definition = read_text(&arguments.file)?;
    let input = read_input(arguments.input.as_deref())?;
    let remote = Remote::connect(&arguments.group, &arguments.connection).await?;
    let defined = remote.command("define", &json!({ "text": definition })).await?;
    let mut body = defined;
    body["input"] = input;
    let started = remote.command("start", &body).await?;
    let asked = json!({ "case": started["case"] });
    let until = Instant::now() + Duration::from_secs(arguments.wait);
    let case = loop {
        let case = remote.query("case", &asked).await?;
        if matches!(case["status"].as_str(), Some("completed" | "faulted" | "cancelled")) {
            break case;
        }
        if Instant::now() >= until {
            let message = format!(
                "case {} is {} at {} after {} s; see `quorate workflow show`",
                started["case"],
                text(&case["status"]),
                case["tasks"],
                arguments.wait
            );
            return Err(Fault::of(Kind::Unreachable, message));
        }
        tokio::time::sleep(Duration::from_millis(LOOK_MILLIS)).await;
    };
    remote.close().await?;
    match case["status"].as_str() {
        Some("completed") => {
            let made = &case["output"];
            output.show(&json!({ "case": case["case"], "output": made }), || {
                serde_json::to_string_pretty(made).unwrap_or_else(|_| made.to_string())
            })
        }
        Some("faulted") => {
            Err(Fault::of(Kind::Failed, format!("case {} faulted: {}", case["case"], case["error"])))
        }
        _ => Err(Fault::of(Kind::Failed, format!("case {} was cancelled", case["case"]))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::exit::kind;

    #[test]
    fn names_have_two_parts() {
        assert_eq!(split_name("shop/order").unwrap(), ("shop", "order"));
        assert_eq!(kind(&split_name("order").unwrap_err()), Kind::Usage);
    }

    #[test]
    fn input_that_is_no_json_is_wrong_usage() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("input.json");
        std::fs::write(&file, "{").unwrap();
        assert_eq!(kind(&read_input(Some(&file)).unwrap_err()), Kind::Usage);
        assert_eq!(kind(&read_input(Some(Path::new("no-such-file"))).unwrap_err()), Kind::Usage);
        assert_eq!(read_input(None).unwrap(), json!({}));
    }

    #[test]
    fn a_case_is_described_with_what_it_came_to() {
        let case = json!({
            "case": 3, "definition": { "namespace": "a", "name": "b", "version": "1.0.0" }, "key": null,
            "status": "faulted", "tasks": [], "input": {}, "context": {}, "output": null,
            "error": { "status": 500 },
        });
        let shown = describe(&case);
        assert!(shown.contains("a/b 1.0.0") && shown.contains("500") && !shown.contains("output"), "{shown}");
    }
}
