//! What each query answers.
//!
//! Relies on the store. Promises pages of bounded length, in the order in which cases started. Knows no
//! rule of the engine.

use std::collections::BTreeMap;

use quorate_sdk::prelude::*;

use crate::definition::TaskId;
use crate::engine::case::{Case, Phase, State};
use crate::message::{
    CaseLine, CaseView, HistoryLine, ItemId, ItemView, PAGE_MAX, Query, Reference, Refused,
};
use crate::problem::Problem;
use crate::store::{
    CASES, DEFINITIONS, DOCUMENTS, HISTORY, ITEMS, KEYS, LATEST, LIMITS, LISTED, OFFERED, OUTLINES, TASKS,
};

const PHASES: [Phase; 5] =
    [Phase::Active, Phase::Suspended, Phase::Completed, Phase::Faulted, Phase::Cancelled];

/// The specification's status phase.
pub(crate) fn status(case: &Case) -> &'static str {
    match case.phase {
        Phase::Active if case.queue.is_empty() => "waiting",
        Phase::Active => "running",
        Phase::Suspended => "suspended",
        Phase::Completed => "completed",
        Phase::Faulted => "faulted",
        Phase::Cancelled => "cancelled",
    }
}

pub(crate) fn query(view: &View, query: Query) -> Result<Answer, Rejection> {
    match query {
        Query::Case { case } => answer(case_view(view, case)?),
        Query::ByKey { namespace, name, key } => {
            let case = KEYS.get(view, &(namespace, name, key.clone()));
            answer(case_view(view, case.ok_or(Refused::NoCase { case: format!("with the key `{key}`") })?)?)
        }
        Query::Cases { namespace, name, version, state, after, limit } => {
            let definitions = definitions(view, namespace, name, version)?;
            let phases = state.map_or(PHASES.to_vec(), |state| vec![state]);
            answer(cases(view, &definitions, &phases, after.unwrap_or(0), page(limit)))
        }
        Query::History { case, after, limit } => history(view, case, after.unwrap_or(0), page(limit)),
        Query::Definitions { after, limit } => {
            let all = match after {
                Some(after) => DEFINITIONS.after(view, &(after.namespace, after.name, after.version)),
                None => DEFINITIONS.iter(view),
            };
            let lines = all.take(page(limit)).map(|((namespace, name, version), _)| Reference {
                namespace,
                name,
                version,
            });
            answer(lines.collect::<Vec<_>>())
        }
        Query::Definition { namespace, name, version } => {
            let number = match &version {
                Some(version) => {
                    DEFINITIONS.get(view, &(namespace.as_str(), name.as_str(), version.as_str()))
                }
                None => LATEST.get(view, &(namespace.as_str(), name.as_str())),
            };
            let document = number.and_then(|number| DOCUMENTS.get(view, &number));
            let definition = format!("{namespace}/{name} {}", version.as_deref().unwrap_or("latest"));
            answer(document.ok_or(Refused::NotDefined { definition })?)
        }
        Query::Items { function, limit } => answer(items(view, function, page(limit))),
        Query::Limits => answer(LIMITS.get(view).unwrap_or_default()),
    }
}

fn page(limit: Option<u32>) -> usize {
    limit.unwrap_or(PAGE_MAX).clamp(1, PAGE_MAX) as usize
}

fn reference(view: &View, definition: u32) -> Reference {
    OUTLINES.get(view, &definition).map(|stored| stored.reference()).unwrap_or_default()
}

/// The numbers of the definitions that are meant; 0 for all.
fn definitions(
    view: &View,
    namespace: Option<String>,
    name: Option<String>,
    version: Option<String>,
) -> Result<Vec<u32>, Refused> {
    let (Some(namespace), Some(name)) = (namespace, name) else { return Ok(vec![0]) };
    let first = (namespace.as_str(), name.as_str(), version.as_deref().unwrap_or(""));
    let mut numbers = Vec::new();
    for ((of, called, found), number) in DEFINITIONS.range(view, first..) {
        let is_it =
            of == namespace && called == name && version.as_ref().is_none_or(|version| *version == found);
        if !is_it {
            break;
        }
        numbers.push(number);
    }
    // The oldest first, since its cases are: a page is full the sooner.
    numbers.sort_unstable();
    if numbers.is_empty() {
        let version = version.as_deref().unwrap_or("");
        return Err(Refused::NotDefined { definition: format!("{namespace}/{name} {version}") });
    }
    Ok(numbers)
}

fn cases(view: &View, definitions: &[u32], phases: &[Phase], after: u64, limit: usize) -> Vec<CaseLine> {
    let mut page: BTreeMap<u64, CaseLine> = BTreeMap::new();
    for definition in definitions {
        for phase in phases {
            let phase = phase.number();
            let range = (*definition, phase, after.saturating_add(1))..=(*definition, phase, u64::MAX);
            for ((_, _, case), line) in LISTED.range(view, range) {
                let is_full = page.len() == limit;
                if is_full && page.last_key_value().is_some_and(|(last, _)| case > *last) {
                    break;
                }
                page.insert(case, line);
                if is_full {
                    page.pop_last();
                }
            }
        }
    }
    page.into_values().collect()
}

fn case_view(view: &View, id: u64) -> Result<CaseView, Refused> {
    let case = CASES.get(view, &id).ok_or_else(|| Refused::NoCase { case: id.to_string() })?;
    let running = case.frames.values().filter_map(|frame| frame.task);
    let tasks = running.filter_map(|task| place(view, case.definition, task)).collect();
    let open = case.frames.iter().filter(|(_, frame)| matches!(frame.state, State::Item));
    Ok(CaseView {
        case: id,
        definition: reference(view, case.definition),
        status: status(&case).to_owned(),
        started_at: case.started,
        updated_at: case.updated,
        tasks,
        items: open.map(|(frame, _)| ItemId(id, *frame)).collect(),
        parent: case.parent.map(|(parent, _)| parent),
        transitions: case.transitions,
        events: case.history,
        key: case.key,
        input: case.input,
        context: case.context,
        output: case.output,
        error: case.error.as_ref().map(Problem::to_value),
    })
}

/// A task's place in its definition.
fn place(view: &View, definition: u32, task: TaskId) -> Option<String> {
    TASKS.get(view, &(definition, task)).map(|task| task.at)
}

fn history(view: &View, id: u64, after: u64, limit: usize) -> Result<Answer, Rejection> {
    let case = CASES.get(view, &id).ok_or_else(|| Refused::NoCase { case: id.to_string() })?;
    // The chapter that holds the next event is the last one that starts no later than it.
    let mut before = HISTORY.range(view, (id, 0)..=(id, after)).descending();
    let first = before.next().map_or(0, |((_, first), _)| first);
    let mut lines = Vec::new();
    for ((_, first), chapter) in HISTORY.range(view, (id, first)..=(id, u64::MAX)) {
        for (number, happened) in (first..).zip(chapter.events) {
            if number < after {
                continue;
            }
            if lines.len() == limit {
                return answer(lines);
            }
            let what = serde_json::to_value(happened.0).ok();
            lines.push(HistoryLine {
                event: number + 1,
                at: chapter.at,
                index: chapter.index,
                what: what.and_then(|what| what.as_str().map(str::to_owned)).unwrap_or_default(),
                task: happened.1.and_then(|task| place(view, case.definition, task)),
                more: happened.3,
            });
        }
    }
    answer(lines)
}

fn items(view: &View, function: Option<String>, limit: usize) -> Vec<ItemView> {
    let found: Vec<ItemId> = match &function {
        Some(function) => {
            let range = (function.as_str(), 0_u64, 0_u32)..=(function.as_str(), u64::MAX, u32::MAX);
            OFFERED.range(view, range).take(limit).map(|((_, case, frame), ())| ItemId(case, frame)).collect()
        }
        None => OFFERED.iter(view).take(limit).map(|((_, case, frame), ())| ItemId(case, frame)).collect(),
    };
    let line = |id: ItemId| {
        let item = ITEMS.get(view, &(id.0, id.1))?;
        Some(ItemView {
            item: id,
            function: item.function,
            task: item.task,
            offered_at: item.offered,
            claims: item.token,
        })
    };
    found.into_iter().filter_map(line).collect()
}
