//! `quorate watch`: a group's events as they happen.
//!
//! Relies on the client library. Promises one line per event, as JSON for programs, until interrupted or
//! until as many as asked for were shown. Knows no component.

use anyhow::Result;
use quorate_client::{Happening, WatchFrom, value};
use serde_json::{Value, json};

use crate::arguments::WatchArguments;
use crate::connection;
use crate::output::Output;
use crate::setup::{self, hex};
use crate::signals::{self, StandardInput};

/// Runs the command.
pub async fn run(arguments: WatchArguments, output: Output) -> Result<()> {
    let client = connection::connect(&arguments.connection).await?;
    let group = setup::find_group(&client, &arguments.group).await?;
    let topics: Vec<_> = arguments.topic.iter().map(String::as_str).collect();
    let from = arguments.from.map_or(WatchFrom::Now, WatchFrom::Index);
    let mut watch = group.watch(&topics, from)?;
    let stop = signals::stop(StandardInput::Ignored);
    tokio::pin!(stop);
    let mut shown = 0;
    while arguments.events.is_none_or(|events| shown < events) {
        let happening = tokio::select! {
            happening = watch.next() => happening?,
            stopped = &mut stop => return stopped,
        };
        if matches!(happening, Happening::Event { .. }) {
            shown += 1;
        }
        let value = describe(&happening);
        output.show(&value, || plain(&happening, &value))?;
    }
    Ok(())
}

fn describe(happening: &Happening) -> Value {
    match happening {
        Happening::Event { index, position, hlc, topic, key, body } => json!({
            "event": topic, "index": index, "position": position, "unix_ms": hlc >> 16,
            "key": readable(key),
            // A component may emit what is no CBOR; it is shown as it is.
            "body": value::cbor_to_json(body).unwrap_or_else(|_| readable(body)),
        }),
        Happening::Status { applied_index, term, leader, component } => json!({
            "status": { "applied_index": applied_index, "term": term, "leader": leader, "component": hex(component) },
        }),
        Happening::Gap { from_index, to_index } => {
            json!({ "gap": { "from_index": from_index, "to_index": to_index } })
        }
    }
}

/// Text where it is text, hexadecimal digits otherwise.
fn readable(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::from(text),
        Err(_) => json!({ "$bytes": hex(bytes) }),
    }
}

fn plain(happening: &Happening, value: &Value) -> String {
    match happening {
        Happening::Event { index, topic, .. } => format!("#{index} {topic} {}", value["body"]),
        Happening::Status { applied_index, term, leader, .. } => {
            format!("#{applied_index} applied; node {leader} leads in term {term}")
        }
        Happening::Gap { from_index, to_index } => {
            format!("events from #{from_index} up to #{to_index} are missing")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_shown_with_its_time_and_body() {
        let happening = Happening::Event {
            index: 7,
            position: 0,
            hlc: 5 << 16 | 3,
            topic: "changed".into(),
            key: b"\xff".to_vec().into(),
            body: b"\xa1\x61a\x01".to_vec().into(),
        };
        let value = describe(&happening);
        assert_eq!((&value["unix_ms"], &value["body"]["a"]), (&json!(5), &json!(1)));
        assert_eq!(value["key"], json!({ "$bytes": "ff" }));
        assert_eq!(plain(&happening, &value), "#7 changed {\"a\":1}");
    }
}
