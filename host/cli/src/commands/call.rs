//! `quorate submit` and `quorate query`: any component, in JSON.
//!
//! Relies on the client library for sessions and for the way between JSON and CBOR. Promises that lines
//! from standard input are submitted once each, with one line of answer per command in the order of the
//! commands. Knows no component.

use std::collections::VecDeque;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use quorate_client::{Client, Consistency, Error as ClientError, Outcome, SessionOptions, value};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::arguments::{QueryArguments, SubmitArguments};
use crate::exit::{Fault, Kind};
use crate::output::Output;
use crate::{connection, setup};

/// Lines that are read before they can be submitted.
const LINES_AHEAD_MAX: usize = 1_024;

/// One line of standard input.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    command: String,
    #[serde(default)]
    body: Value,
}

/// Runs `quorate submit`.
pub async fn submit(arguments: SubmitArguments, output: Output) -> Result<()> {
    let first = match arguments.name.as_str() {
        "-" => None,
        name => Some((name.to_owned(), value::json_to_cbor(&json(&arguments.body)?)?)),
    };
    let client = connection::connect(&arguments.connection).await?;
    let Some((name, body)) = first else { return submit_lines(&client, &arguments, output).await };
    let group = setup::find_group(&client, &arguments.group).await?;
    let session = group.session(SessionOptions::default()).await?;
    match session.submit(&name, body).await? {
        Outcome::Done { body, index } => {
            let answer = decode(&body)?;
            output.show(&json!({ "done": answer, "index": index }), || plain(&answer))?;
            close(session).await
        }
        Outcome::Rejected(rejection) => Err(ClientError::Rejected(rejection).into()),
    }
}

/// Submits the lines of standard input. Rejected commands do not stop the others.
async fn submit_lines(client: &Client, arguments: &SubmitArguments, output: Output) -> Result<()> {
    let window = usize::try_from(arguments.in_flight)?;
    let group = setup::find_group(client, &arguments.group).await?;
    let session = group.session(SessionOptions { window, ..SessionOptions::default() }).await?;
    let mut lines = input_lines()?;
    let mut on_their_way: VecDeque<JoinHandle<Result<Outcome, ClientError>>> = VecDeque::new();
    let mut tally = Tally::default();
    let mut number = 0_u64;
    while let Some(text) = lines.recv().await {
        let text = text.context("standard input cannot be read")?;
        number += 1;
        if text.trim().is_empty() {
            continue;
        }
        let (name, body) = parse_line(&text).with_context(|| format!("line {number}"))?;
        if on_their_way.len() == window
            && let Some(oldest) = on_their_way.pop_front()
        {
            tally.take(oldest.await??, output)?;
        }
        let session = session.clone();
        on_their_way.push_back(tokio::spawn(async move { session.submit(&name, body).await }));
    }
    for task in on_their_way {
        tally.take(task.await??, output)?;
    }
    close(session).await?;
    tally.show(output)
}

/// The lines of standard input, read by a thread of its own: the event loop would wait at its end for a
/// read that it cannot cancel.
fn input_lines() -> Result<mpsc::Receiver<std::io::Result<String>>> {
    let (sender, lines) = mpsc::channel(LINES_AHEAD_MAX);
    let read = move || {
        for line in std::io::stdin().lines() {
            // Nobody listens any more after a failure.
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("stdin".to_owned()).spawn(read).context("no thread can be started")?;
    Ok(lines)
}

/// What became of the lines.
#[derive(Debug, Default)]
struct Tally {
    done: u64,
    rejected: u64,
}

impl Tally {
    fn take(&mut self, outcome: Outcome, output: Output) -> Result<()> {
        let value = match outcome {
            Outcome::Done { body, index } => {
                self.done += 1;
                json!({ "done": decode(&body)?, "index": index })
            }
            Outcome::Rejected(rejection) => {
                self.rejected += 1;
                json!({ "rejected": { "code": rejection.code, "name": rejection.name, "message": rejection.message } })
            }
        };
        output.line(&value.to_string())
    }

    fn show(&self, output: Output) -> Result<()> {
        let Self { done, rejected } = self;
        let value = json!({ "done": done, "rejected": rejected });
        output.show(&value, || format!("{done} done, {rejected} rejected"))?;
        if self.rejected > 0 {
            return Err(Fault::of(Kind::Rejected, format!("the component rejected {rejected} commands")));
        }
        Ok(())
    }
}

/// Runs `quorate query`.
pub async fn query(arguments: QueryArguments, output: Output) -> Result<()> {
    let body = value::json_to_cbor(&json(&arguments.body)?)?;
    let client = connection::connect(&arguments.connection).await?;
    let group = setup::find_group(&client, &arguments.group).await?;
    let consistency = if arguments.stale { Consistency::STALE } else { Consistency::Linearizable };
    let answer = group.query(&arguments.name, body, consistency).await?;
    let found = decode(&answer.body)?;
    let value =
        json!({ "answer": found, "index": answer.index, "node": answer.node, "stale": arguments.stale });
    output.show(&value, || plain(&found))
}

/// Reads an argument as JSON.
///
/// # Errors
///
/// Wrong usage: it is not JSON.
pub fn json(text: &str) -> Result<Value> {
    serde_json::from_str(text).map_err(|error| Fault::usage(format!("{text:?} is not JSON: {error}")))
}

fn parse_line(text: &str) -> Result<(String, Bytes)> {
    let line: Line = serde_json::from_str(text).map_err(|error| {
        Fault::usage(format!("not a command: {error}; write {{\"command\":\"name\",\"body\":{{..}}}}"))
    })?;
    // A command without arguments is a map without entries, as on the command line.
    let body = if line.body.is_null() { json!({}) } else { line.body };
    Ok((line.command, value::json_to_cbor(&body)?))
}

/// An answer as JSON; a component may answer with nothing at all.
pub fn decode(body: &[u8]) -> Result<Value> {
    if body.is_empty() {
        return Ok(Value::Null);
    }
    Ok(value::cbor_to_json(body)?)
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => "done".to_owned(),
        Value::String(text) => text.clone(),
        other => serde_json::to_string_pretty(other).unwrap_or_else(|_| other.to_string()),
    }
}

/// A session that is not closed expires by itself, so a failure to close it fails nothing else.
async fn close(session: quorate_client::Session) -> Result<()> {
    if let Err(error) = session.close().await {
        tracing::debug!(%error, "the session was left to expire");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::exit::kind;

    #[test]
    fn a_line_names_a_command_and_its_body() {
        let (name, body) = parse_line(r#"{"command":"deposit","body":{"account":"a","amount":5}}"#).unwrap();
        assert_eq!(name, "deposit");
        assert_eq!(decode(&body).unwrap(), json!({ "account": "a", "amount": 5 }));
        let (_, body) = parse_line(r#"{"command":"reset"}"#).unwrap();
        assert_eq!(decode(&body).unwrap(), json!({}));
    }

    #[test]
    fn a_line_of_another_form_is_wrong_usage() {
        for line in ["deposit", "{}", r#"{"command":5}"#, r#"{"command":"a","boby":{}}"#] {
            assert_eq!(kind(&parse_line(line).unwrap_err()), Kind::Usage, "{line}");
        }
    }

    #[test]
    fn rejections_among_the_lines_end_with_their_own_status() {
        let output = Output::new(crate::arguments::Format::Json);
        assert!(Tally { done: 2, rejected: 0 }.show(output).is_ok());
        let error = Tally { done: 2, rejected: 1 }.show(output).unwrap_err();
        assert_eq!(kind(&error), Kind::Rejected);
    }

    #[test]
    fn an_empty_answer_is_null() {
        assert_eq!(decode(b"").unwrap(), Value::Null);
        assert!(decode(b"\xff\xff").is_err());
    }
}
