//! Events on their way: to watchers, to cases that listen, to definitions that start by them.
//!
//! Relies on the index of listeners. Promises CloudEvents with all attributes they must have, and a bounded
//! number of cases for each command: the rest follows in the next entries. Knows no task.

use std::collections::BTreeMap;

use super::case::{Action, Case, FrameId, Phase, ROOT};
use super::run::{Hand, Run};
use crate::Event;
use crate::definition::program::{Events, Schedule};
use crate::jq;
use crate::store::{LISTENERS, OUTLINES, PARTIAL, TRIGGERS};
use crate::value::Value;

/// Cases that one command gives an event to.
const CASES_PER_COMMAND: usize = 100;

/// A CloudEvent with every attribute that it must have (CloudEvents 1.0 §3.1).
///
/// # Errors
///
/// What is wrong with it.
pub(crate) fn cloud_event(event: Value, id: &str, now: u64) -> Result<Value, String> {
    if event.pairs().is_none() {
        return Err(format!("an event is an object, not a {}", event.type_name()));
    }
    for key in ["source", "type"] {
        if event.field(key).and_then(Value::as_text).is_none_or(str::is_empty) {
            return Err(format!("an event needs the text `{key}`"));
        }
    }
    let defaults = [("specversion", "1.0"), ("id", id), ("time", &jq::iso8601_millis(now))];
    let mut event = event;
    for (key, value) in defaults {
        if event.field(key).is_none_or(Value::is_null) {
            event = event.with_field(key, Value::text(value)).map_err(|error| error.to_string())?;
        }
    }
    Ok(event)
}

/// Where giving an event to cases goes on: whether those that listen to any type are next, and after which
/// case.
pub(crate) type Cursor = (bool, u64);

impl Run<'_> {
    /// Shows an event to watchers, and has it given to cases in the next entry.
    pub(super) fn publish_later(&mut self, case: u64, frame: FrameId, event: Value) {
        let kind = event.field("type").and_then(Value::as_text).unwrap_or_default().to_owned();
        let listens = |kind: &str| {
            let from = (kind, 0_u64, 0_u32);
            let to = (kind, u64::MAX, u32::MAX);
            LISTENERS.range(self.ctx, from..=to).next().is_some()
                || TRIGGERS.range(self.ctx, (kind, 0_u32)..=(kind, u32::MAX)).next().is_some()
        };
        if listens(&kind) || listens("") {
            let due = self.ctx.time();
            let cursor: Option<Cursor> = None;
            self.ctx.set_timer(&format!("publish/{case}/{frame}"), due, &(&event, cursor));
        }
        self.emit(kind.as_bytes(), &Event::Published { event });
    }

    /// Gives an event to the cases that listen; returns where to go on if there are more than one command
    /// serves, and how many it was given to.
    pub(crate) fn publish(&mut self, event: &Value, from: Option<Cursor>) -> (Option<Cursor>, usize) {
        let kind = event.field("type").and_then(Value::as_text).unwrap_or_default().to_owned();
        if from.is_none() {
            self.trigger(&kind, event);
        }
        let (mut any, mut after) = from.unwrap_or((false, 0));
        let mut cases: Vec<u64> = Vec::new();
        let next = loop {
            let listened = if any { "" } else { kind.as_str() };
            let mut full = false;
            let start = (listened, after + 1, 0_u32);
            for ((_, case, _), ()) in LISTENERS.range(self.ctx, start..=(listened, u64::MAX, u32::MAX)) {
                if cases.last() == Some(&case) {
                    continue;
                }
                if cases.len() == CASES_PER_COMMAND {
                    full = true;
                    break;
                }
                let own = (kind.as_str(), case, 0_u32)..=(kind.as_str(), case, u32::MAX);
                let twice = any && LISTENERS.range(self.ctx, own).next().is_some();
                if !twice {
                    cases.push(case);
                }
                after = case;
            }
            if full {
                break Some((any, after));
            }
            if any || kind.is_empty() {
                break None;
            }
            (any, after) = (true, 0);
        };
        let count = cases.len();
        for case in cases {
            self.push(case, Action::Signal(event.clone(), false));
        }
        (next, count)
    }

    /// Starts cases of the definitions that are scheduled by an event.
    fn trigger(&mut self, kind: &str, event: &Value) {
        let mut numbers: Vec<u32> = Vec::new();
        for listened in [kind, ""] {
            let range = (listened, 0_u32)..=(listened, u32::MAX);
            numbers.extend(
                TRIGGERS.range(self.ctx, range).take(CASES_PER_COMMAND).map(|((_, number), ())| number),
            );
        }
        numbers.sort_unstable();
        numbers.dedup();
        for number in numbers {
            let Some(stored) = OUTLINES.get(self.ctx, &number) else { continue };
            let Some(Schedule::On(events)) = &stored.outline.schedule else { continue };
            if let Some(input) = self.triggered(number, stored.digest, events, event) {
                self.start_case(number, None, input, None, 0);
            }
        }
    }

    /// The events by which a definition starts now, if it does.
    fn triggered(&mut self, number: u32, digest: u64, events: &Events, event: &Value) -> Option<Value> {
        let hand = blank(number, digest, self.now);
        let live = self.root(&hand);
        let mut partial = match events {
            Events::All(filters) => {
                PARTIAL.get(self.ctx, &number).unwrap_or_else(|| vec![None; filters.len()])
            }
            _ => vec![None; events.filters().len()],
        };
        let mut met: Vec<bool> = partial.iter().map(Option::is_some).collect();
        let before = met.clone();
        self.fuel = self.limits.expression_fuel;
        let over = self.meets(&hand, &live, events, &mut met, &mut BTreeMap::new(), event)?;
        if !matches!(events, Events::All(_)) {
            return Value::array(vec![event.clone()]).ok();
        }
        for ((place, before), met) in partial.iter_mut().zip(before).zip(met) {
            if met && !before {
                *place = Some(event.clone());
            }
        }
        if !over {
            PARTIAL.insert(self.ctx, &number, &partial);
            return None;
        }
        PARTIAL.remove(self.ctx, &number);
        Value::array(partial.into_iter().flatten().collect()).ok()
    }
}

/// A case that is none, for expressions that are evaluated before there is one.
fn blank(definition: u32, digest: u64, now: u64) -> Hand {
    let case = Case {
        definition,
        digest,
        key: None,
        phase: Phase::Active,
        started: now,
        updated: now,
        input: Value::Null,
        context: Value::Null,
        output: None,
        error: None,
        parent: None,
        depth: 0,
        frames: BTreeMap::new(),
        next_frame: ROOT,
        queue: std::collections::VecDeque::new(),
        held: Vec::new(),
        history: 0,
        transitions: 0,
    };
    Hand { id: 0, case, happened: Vec::new() }
}
