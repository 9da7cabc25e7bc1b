//! Events on their way: to watchers, to cases that listen, to definitions that start by them.
//!
//! Relies on the indices of listeners and triggers. Promises CloudEvents with all attributes they must have, that a
//! case is given an event once, and that what one command does not give it to follows in the next entries. Knows no
//! task.
//!
//! ```text
//! event --> definitions that start by it, in order --> cases that listen, in order
//!           a command that has done enough sets a timer with the place that it came to
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::case::{Action, Case, FrameId, Phase, ROOT};
use super::run::{Hand, Run};
use crate::Event;
use crate::definition::program::{Events, Schedule};
use crate::jq;
use crate::store::{LISTENERS, OUTLINES, PARTIAL, TRIGGERS};
use crate::value::Value;

/// Definitions, and cases, that one command gives an event to.
const TAKERS_PER_COMMAND: usize = 100;
/// About how many bytes the cases have together that one command gives an event to, the event counted in each; a
/// larger case is served alone. To read and write a case takes about 200 units of fuel for each byte of a document of
/// many small values, so that these stay within the 20 million that the host's default limits let a command use.
const CASE_BYTES_PER_COMMAND: usize = 64 << 10;

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

/// Where giving an event goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Cursor {
    /// At the definitions after this one.
    Definitions(u32),
    /// At the cases after this one.
    Cases(u64),
}

impl Cursor {
    /// Before all: numbers begin at 1.
    pub(crate) const START: Self = Self::Definitions(0);
}

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
            self.ctx.set_timer(&format!("publish/{case}/{frame}"), due, &(&event, Cursor::START));
        }
        self.emit(kind.as_bytes(), &Event::Published { event });
    }

    /// Gives an event to those that take it, from a place on; to how many cases it was given. What one command leaves
    /// follows in the next entry, by a timer of this identity.
    pub(crate) fn publish(&mut self, id: &str, event: &Value, from: Cursor) -> usize {
        let (rest, given) = self.give(event, from);
        if let Some(rest) = rest {
            let due = self.ctx.time();
            self.ctx.set_timer(id, due, &(event, rest));
        }
        given
    }

    fn give(&mut self, event: &Value, from: Cursor) -> (Option<Cursor>, usize) {
        let kind = event.field("type").and_then(Value::as_text).unwrap_or_default();
        let mut after = match from {
            Cursor::Cases(after) => after,
            Cursor::Definitions(after) => match self.trigger(kind, event, after) {
                Some(last) => return (Some(Cursor::Definitions(last)), 0),
                None => 0,
            },
        };
        let (mut given, mut bytes) = (0, 0);
        loop {
            let cases = self.listening(kind, after);
            if cases.is_empty() {
                return (None, given);
            }
            for case in cases {
                if given == TAKERS_PER_COMMAND {
                    return (Some(Cursor::Cases(after)), given);
                }
                bytes += self.size_of(case) + event.size();
                if given > 0 && bytes > CASE_BYTES_PER_COMMAND {
                    self.put_back(case);
                    return (Some(Cursor::Cases(after)), given);
                }
                self.push(case, Action::Signal(event.clone(), false));
                given += 1;
                after = case;
            }
        }
    }

    /// The next cases that listen to events of a type or to all, in order: none only if there are no more.
    fn listening(&self, kind: &str, after: u64) -> Vec<u64> {
        let mut cases: Vec<u64> = Vec::new();
        let mut known_to = u64::MAX;
        for listened in [kind, ""] {
            let range = (listened, after + 1, 0_u32)..=(listened, u64::MAX, u32::MAX);
            let tasks = LISTENERS.range(self.ctx, range).take(TAKERS_PER_COMMAND);
            let found: Vec<u64> = tasks.map(|((_, case, _), ())| case).collect();
            if let Some(last) = found.get(TAKERS_PER_COMMAND - 1) {
                known_to = known_to.min(*last);
            }
            cases.extend(found);
        }
        cases.retain(|case| *case <= known_to);
        cases.sort_unstable();
        cases.dedup();
        cases
    }

    /// Starts cases of the definitions after one that are scheduled by an event; the last that was looked at if the
    /// command has done enough before all were.
    fn trigger(&mut self, kind: &str, event: &Value, after: u32) -> Option<u32> {
        let mut numbers: Vec<u32> = Vec::new();
        for listened in [kind, ""] {
            let range = (listened, after + 1)..=(listened, u32::MAX);
            let next = TRIGGERS.range(self.ctx, range).take(TAKERS_PER_COMMAND + 1);
            numbers.extend(next.map(|((_, number), ())| number));
        }
        numbers.sort_unstable();
        numbers.dedup();
        let mut last = after;
        for (looked_at, number) in numbers.into_iter().enumerate() {
            if looked_at == TAKERS_PER_COMMAND || self.is_spent() {
                return Some(last);
            }
            last = number;
            let Some(stored) = OUTLINES.get(self.ctx, &number) else { continue };
            let Some(Schedule::On(events)) = &stored.outline.schedule else { continue };
            self.fuel = self.limits.expression_fuel;
            if let Some(input) = self.triggered(number, stored.digest, events, event) {
                self.start_case(number, None, input, None, 0);
            }
            self.count_transition();
        }
        None
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
            self.spend(partial.iter().flatten().map(Value::size).sum());
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
