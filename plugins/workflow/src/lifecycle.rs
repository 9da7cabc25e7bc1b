//! The specification's lifecycle events.
//!
//! Relies on values. Promises CloudEvents with the types and data that the specification names. Knows no
//! watcher.

use crate::Event;
use crate::definition::{Outline, Task};
use crate::engine::case::{Case, What};
use crate::jq;
use crate::value::{Pairs, Value};

/// The name of a case: that of its workflow, its number, its namespace.
fn qualified(id: u64, outline: &Outline) -> String {
    format!("{}-{id}.{}", outline.name, outline.namespace)
}

/// An event about a case.
pub(crate) fn of_case(id: u64, case: &Case, outline: &Outline, what: What, now: u64) -> Event {
    let (word, moment) = match what {
        What::CaseStarted => ("started", "startedAt"),
        What::CaseSuspended => ("suspended", "suspendedAt"),
        What::CaseResumed => ("resumed", "resumedAt"),
        What::CaseCancelled => ("cancelled", "cancelledAt"),
        What::CaseFaulted => ("faulted", "faultedAt"),
        _ => ("completed", "completedAt"),
    };
    let mut data = Pairs::new();
    data.insert("name".into(), Value::text(&qualified(id, outline)));
    data.insert(moment.into(), Value::text(&jq::iso8601_millis(now)));
    match what {
        What::CaseStarted => {
            let definition = Value::record([
                ("name", Value::text(&outline.name)),
                ("namespace", Value::text(&outline.namespace)),
                ("version", Value::text(&outline.version)),
            ]);
            data.insert("definition".into(), definition);
        }
        What::CaseFaulted => {
            let error = case.error.as_ref().map(crate::problem::Problem::to_value);
            data.insert("error".into(), error.unwrap_or_default());
        }
        What::CaseCompleted => {
            data.insert("output".into(), case.output.clone().unwrap_or_default());
        }
        _ => {}
    }
    let kind = format!("io.serverlessworkflow.workflow.{word}.v1");
    Event::Lifecycle { kind, case: id, at: now, data: Value::object(data).unwrap_or_default() }
}

/// An event about a task, if the specification has one for it.
pub(crate) fn of_task(id: u64, task: &Task, what: What, now: u64) -> Option<Event> {
    let (word, moment) = match what {
        What::TaskStarted => ("started", "startedAt"),
        What::TaskCompleted => ("completed", "completedAt"),
        What::TaskFaulted => ("faulted", "faultedAt"),
        What::TaskRetried => ("retried", "retriedAt"),
        What::TaskCancelled => ("cancelled", "cancelledAt"),
        _ => return None,
    };
    let data = Value::record([
        ("workflow", Value::text(&id.to_string())),
        ("task", Value::text(&task.at)),
        (moment, Value::text(&jq::iso8601_millis(now))),
    ]);
    Some(Event::Lifecycle { kind: format!("io.serverlessworkflow.task.{word}.v1"), case: id, at: now, data })
}
