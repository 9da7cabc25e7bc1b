//! `quorate workflow worker`: functions served by any program.
//!
//! Relies on the group's claims. Promises one work item at a time, a claim that is prolonged while the
//! program runs, and that whatever the program does ends the work item or is told. Knows no function.

use std::process::{Output as Ended, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use quorate_client::WatchFrom;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::WorkerArguments;
use super::remote::{Became, Remote};
use crate::output::Output;
use crate::signals::{self, StandardInput};

/// How long to wait for news of work before looking again: claims that others lost are offered without news
/// of their own having to arrive.
const LOOK: Duration = Duration::from_secs(1);
/// The longest part of what a program wrote that an error carries, in bytes.
const TOLD_BYTES_MAX: usize = 1_000;

/// Runs the command.
pub(super) async fn run(arguments: WorkerArguments, output: Output) -> Result<()> {
    let remote = Remote::connect(&arguments.group, &arguments.connection).await?;
    let mut news = remote.group().watch(&["work-offered"], WatchFrom::Now)?;
    let stop = signals::stop(StandardInput::Ignored);
    tokio::pin!(stop);
    output.hint(&format!("serving {} with {}", arguments.function.join(", "), arguments.exec.display()));
    let mut served = 0;
    while arguments.items.is_none_or(|items| served < items) {
        let claim = json!({
            "functions": arguments.function, "worker": arguments.name, "limit": 1, "lease": arguments.lease * 1_000,
        });
        let claimed = remote.command("claim", &claim).await?;
        if let Some(item) = claimed.get(0) {
            tokio::select! {
                result = serve(&remote, &arguments, item, output) => result?,
                // The claim ends by itself, and another worker takes the work item.
                stopped = &mut stop => return stopped,
            }
            served += 1;
            continue;
        }
        tokio::select! {
            happening = news.next() => {
                if let Err(error) = happening {
                    tracing::debug!(%error, "no news of work");
                    tokio::time::sleep(LOOK).await;
                }
            }
            () = tokio::time::sleep(LOOK) => {}
            stopped = &mut stop => return stopped,
        }
    }
    remote.close().await
}

/// Has the program do one work item.
async fn serve(remote: &Remote, arguments: &WorkerArguments, item: &Value, output: Output) -> Result<()> {
    let ended = execute(remote, arguments, item).await?;
    let (command, field, value) = match ended {
        Some(ended) => judge(&ended),
        // The claim was lost; whoever has it now answers.
        None => return told(output, item, "lost"),
    };
    let body = json!({ "item": item["item"], "token": item["token"], field: value });
    match remote.attempt(command, &body).await? {
        Became::Done => told(output, item, command),
        Became::Refused(name, message) => {
            output.hint(&message);
            told(output, item, &name)
        }
    }
}

fn told(output: Output, item: &Value, became: &str) -> Result<()> {
    let value = json!({ "item": item["item"], "function": item["function"], "became": became });
    output.show(&value, || format!("{} {}: {became}", item["item"], item["function"]))
}

/// Runs the program and prolongs the claim meanwhile; none if the claim was lost, which ends the program.
async fn execute(remote: &Remote, arguments: &WorkerArguments, item: &Value) -> Result<Option<Ended>> {
    let program = arguments.exec.display();
    let mut child = Command::new(&arguments.exec)
        .args(&arguments.arguments)
        .env("QUORATE_FUNCTION", item["function"].as_str().unwrap_or_default())
        .env("QUORATE_ITEM", item["item"].as_str().unwrap_or_default())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("{program} cannot be started"))?;
    let mut input = child.stdin.take().context("the program has no standard input")?;
    let text = item["arguments"].to_string();
    let written = async move {
        // A program that does not read its input is none the worse for it.
        if let Err(error) = input.write_all(text.as_bytes()).await {
            tracing::debug!(%error, "the program did not read all of its input");
        }
    };
    let ended = async {
        let ((), ended) = tokio::join!(written, child.wait_with_output());
        ended
    };
    tokio::pin!(ended);
    let mut beat = tokio::time::interval(Duration::from_millis(arguments.lease * 1_000 / 3));
    beat.tick().await;
    loop {
        tokio::select! {
            ended = &mut ended => return ended.map(Some).with_context(|| format!("{program} cannot be waited for")),
            _ = beat.tick() => {
                let body = json!({
                    "item": item["item"], "token": item["token"], "lease": arguments.lease * 1_000,
                });
                if let Became::Refused(_, message) = remote.attempt("heartbeat", &body).await? {
                    tracing::warn!(reason = message, "the claim was lost");
                    return Ok(None);
                }
            }
        }
    }
}

/// What is to be said of a program that ended: the command, its field, and what stands there.
fn judge(ended: &Ended) -> (&'static str, &'static str, Value) {
    let written = String::from_utf8_lossy(&ended.stdout);
    let read = serde_json::from_str::<Value>(&written);
    if ended.status.success() {
        let output = match read {
            Ok(output) => output,
            Err(_) if written.trim().is_empty() => Value::Null,
            // What is no JSON is a text, as of a shell command.
            Err(_) => Value::from(written.trim_end()),
        };
        return ("complete", "output", output);
    }
    let error = match read {
        Ok(error @ Value::Object(_)) => error,
        _ => {
            let complaint = String::from_utf8_lossy(&ended.stderr);
            let told: String = complaint.trim().chars().take(TOLD_BYTES_MAX).collect();
            json!({ "title": format!("the worker's program ended with {}", ended.status), "detail": told })
        }
    };
    ("fail", "error", error)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    fn ended(code: i32, stdout: &str, stderr: &str) -> Ended {
        Ended { status: ExitStatus::from_raw(code << 8), stdout: stdout.into(), stderr: stderr.into() }
    }

    #[test]
    fn a_programs_output_is_json_or_text() {
        assert_eq!(judge(&ended(0, "{\"a\":1}\n", "")), ("complete", "output", json!({ "a": 1 })));
        assert_eq!(judge(&ended(0, "hello\n", "")), ("complete", "output", json!("hello")));
        assert_eq!(judge(&ended(0, "", "")), ("complete", "output", Value::Null));
    }

    #[test]
    fn a_program_that_fails_says_why() {
        let (command, field, error) = judge(&ended(3, "", "no such card\n"));
        assert_eq!((command, field, &error["detail"]), ("fail", "error", &json!("no such card")));
        let (_, _, error) = judge(&ended(1, "{\"status\":402}", "ignored"));
        assert_eq!(error, json!({ "status": 402 }));
    }
}
