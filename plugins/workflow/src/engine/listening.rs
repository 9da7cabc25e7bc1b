//! Tasks that wait for events.
//!
//! Relies on scope for filters. Promises that an event counts once for each task that listens, that what an
//! event has in it can make a filter miss but never fault a case, and that events are processed in the order
//! in which they came. Knows no transport.

use std::collections::BTreeMap;

use super::case::{Action, FrameId, Listening, State, What};
use super::run::{Hand, Live, Run};
use super::scope::NONE;
use crate::definition::Task;
use crate::definition::program::{EventFilter, Events, ForEach, Kind, Read, Template, Until};
use crate::jq;
use crate::problem::{Problem, Standard, brief};
use crate::store::LISTENERS;
use crate::value::Value;

/// Letters that make a text a regular expression rather than only itself.
const PATTERN_LETTERS: &str = "*+?[](){}|^$\\";

/// The event types that a strategy can be met by; empty for any.
pub(super) fn types_of(events: &Events) -> Vec<String> {
    let mut types: Vec<String> = Vec::new();
    let mut add = |kind: &str| {
        if !types.iter().any(|known| known == kind) {
            types.push(kind.to_owned());
        }
    };
    for filter in events.filters() {
        let kind = filter.with.iter().find_map(|(name, value)| match value {
            Template::Const(Value::Str(kind))
                if name == "type" && !kind.contains(|letter| PATTERN_LETTERS.contains(letter)) =>
            {
                Some(&**kind)
            }
            _ => None,
        });
        add(kind.unwrap_or(""));
    }
    if events.filters().is_empty() {
        add("");
    }
    if let Events::Any(_, Some(Until::Events(until))) = events {
        types_of(until).iter().for_each(|kind| add(kind));
    }
    types
}

impl Run<'_> {
    pub(super) fn start_listening(&mut self, hand: &mut Hand, live: &Live) -> Result<(), Problem> {
        let Some(Kind::Listen { to, .. }) = live.task.as_ref().map(|task| &task.kind) else { return Ok(()) };
        let mut heard = Listening { matched: vec![false; to.filters().len()], ..Listening::default() };
        if let Events::Any(_, Some(Until::Events(until))) = to {
            heard.until = vec![false; until.filters().len()];
        }
        self.keep(hand, live, State::Listening(Box::new(heard)));
        for kind in types_of(to) {
            LISTENERS.insert(self.ctx, &(kind, hand.id, live.id), &());
        }
        // What was signalled before anything listened comes first.
        for event in std::mem::take(&mut hand.case.held) {
            if !self.hear(hand, live.id, &event) {
                hand.case.held.push(event);
            }
        }
        Ok(())
    }

    /// Removes a task from those that events are given to.
    pub(super) fn stop_listening(&mut self, case: u64, frame: FrameId, task: &Task) {
        if let Kind::Listen { to, .. } = &task.kind {
            for kind in types_of(to) {
                LISTENERS.remove(self.ctx, &(kind, case, frame));
            }
        }
    }

    /// Gives an event to every task of a case that listens.
    pub(super) fn signal(&mut self, hand: &mut Hand, event: Value, hold: bool) {
        let listening = |state: &State| matches!(state, State::Listening(_));
        let frames: Vec<FrameId> =
            hand.case.frames.iter().filter(|(_, frame)| listening(&frame.state)).map(|(id, _)| *id).collect();
        let mut heard = false;
        for frame in frames {
            heard |= self.hear(hand, frame, &event);
        }
        if !heard && hold && hand.case.held.len() < self.limits.held_signals {
            let live = self.root(hand);
            let kind = told(&event);
            self.note(hand, What::SignalHeld, &live, kind);
            hand.case.held.push(event);
        }
    }

    /// Gives an event to a listening task. Whether it was waited for.
    fn hear(&mut self, hand: &mut Hand, id: FrameId, event: &Value) -> bool {
        let Some(live) = self.live(hand, id) else { return false };
        let Some(Kind::Listen { to, read, .. }) = live.task.as_ref().map(|task| &task.kind) else {
            return false;
        };
        let Some(State::Listening(heard)) = hand.case.frames.get_mut(&id).map(|frame| &mut frame.state)
        else {
            return false;
        };
        if heard.ended {
            return false;
        }
        let mut heard = std::mem::take(&mut **heard);
        let matched = self.count_in(hand, &live, to, *read, &mut heard, event);
        let size: usize = heard.consumed.iter().map(Value::size).sum();
        if let Some(State::Listening(place)) = hand.case.frames.get_mut(&id).map(|frame| &mut frame.state) {
            **place = heard;
        }
        if matched {
            let kind = told(event);
            self.note(hand, What::EventConsumed, &live, kind);
            if size > self.limits.document_bytes {
                let detail =
                    format!("the events have more than {} bytes together", self.limits.document_bytes);
                self.raise(hand, id, Problem::standard(Standard::Runtime, detail));
            } else {
                self.go_on_listening(hand, id);
            }
        }
        matched
    }

    /// Counts an event in, if it is one that is waited for.
    fn count_in(
        &mut self,
        hand: &Hand,
        live: &Live,
        to: &Events,
        read: Read,
        heard: &mut Listening,
        event: &Value,
    ) -> bool {
        if let Events::Any(_, Some(Until::Events(until))) = to {
            let mut keys = std::mem::take(&mut heard.keys);
            let mut met = std::mem::take(&mut heard.until);
            let found = self.meets(hand, live, until, &mut met, &mut keys, event);
            (heard.keys, heard.until) = (keys, met);
            if let Some(over) = found {
                heard.ended = over;
                return true;
            }
        }
        let mut keys = std::mem::take(&mut heard.keys);
        let mut met = std::mem::take(&mut heard.matched);
        let found = self.meets(hand, live, to, &mut met, &mut keys, event);
        (heard.keys, heard.matched) = (keys, met);
        let Some(over) = found else { return false };
        heard.consumed.push(match read {
            Read::Envelope => event.clone(),
            Read::Data | Read::Raw => event.field("data").cloned().unwrap_or_default(),
        });
        heard.ended = match to {
            Events::One(_) | Events::All(_) => over,
            Events::Any(_, None) => true,
            Events::Any(_, Some(Until::Condition(until))) => {
                let so_far = Value::array(heard.consumed.clone()).unwrap_or_default();
                self.holds(hand, live, &[], until, &so_far).unwrap_or(false)
            }
            Events::Any(_, Some(Until::Events(_))) => false,
        };
        true
    }

    /// Whether an event is one of a strategy's, and if so, whether the strategy is met.
    pub(super) fn meets(
        &mut self,
        hand: &Hand,
        live: &Live,
        events: &Events,
        met: &mut [bool],
        keys: &mut BTreeMap<String, Value>,
        event: &Value,
    ) -> Option<bool> {
        let filters = events.filters();
        if filters.is_empty() {
            return Some(true);
        }
        let wants_each = matches!(events, Events::All(_));
        for (place, filter) in filters.iter().enumerate() {
            if wants_each && met.get(place) == Some(&true) {
                continue;
            }
            if self.is_meant(hand, live, filter, keys, event) {
                if let Some(met) = met.get_mut(place) {
                    *met = true;
                }
                return Some(!wants_each || met.iter().all(|met| *met));
            }
        }
        None
    }

    /// Whether an event has what a filter asks for.
    fn is_meant(
        &mut self,
        hand: &Hand,
        live: &Live,
        filter: &EventFilter,
        keys: &mut BTreeMap<String, Value>,
        event: &Value,
    ) -> bool {
        for (name, expected) in &filter.with {
            let attribute = event.field(name).cloned().unwrap_or_default();
            let fits = match expected {
                Template::Const(Value::Str(text)) => is_like(text, &attribute),
                Template::Const(value) => *value == attribute,
                template => match self.fill(hand, live, NONE, &[], template, &attribute) {
                    Ok(Value::Bool(holds)) => holds,
                    Ok(value) => value == attribute,
                    Err(_) => false,
                },
            };
            if !fits {
                return false;
            }
        }
        let mut found = Vec::new();
        for link in &filter.correlate {
            let Ok(value) = self.eval(hand, live, NONE, &[], &link.from, event) else { return false };
            let expected = match &link.expect {
                Some(template) => self.fill(hand, live, NONE, &[], template, &live.input).ok(),
                None => keys.get(&link.name).cloned(),
            };
            match expected {
                Some(expected) if expected != value => return false,
                None if value.is_null() => return false,
                _ => found.push((link.name.clone(), value)),
            }
        }
        keys.extend(found);
        true
    }

    /// Processes the next event, or ends if there was enough.
    fn go_on_listening(&mut self, hand: &mut Hand, id: FrameId) {
        let Some(live) = self.live(hand, id) else { return };
        let Some(Kind::Listen { each, .. }) = live.task.as_ref().map(|task| &task.kind) else { return };
        let Some(State::Listening(heard)) = hand.case.frames.get_mut(&id).map(|frame| &mut frame.state)
        else {
            return;
        };
        let Some(each) = each else {
            if heard.ended {
                let consumed = std::mem::take(&mut heard.consumed);
                self.done_with(hand, id, consumed);
            }
            return;
        };
        if heard.busy {
            return;
        }
        if let Some(item) = heard.consumed.get(heard.processed as usize).cloned() {
            heard.busy = true;
            match each.block.first() {
                Some(task) => {
                    let start = Action::Start { parent: id, slot: 0, task: *task, input: live.input.clone() };
                    hand.case.queue.push_back(start);
                }
                None => {
                    heard.busy = false;
                    self.event_processed(hand, id, item);
                }
            }
        } else if heard.ended {
            let outputs = std::mem::take(&mut heard.outputs);
            self.done_with(hand, id, outputs);
        }
    }

    fn done_with(&mut self, hand: &mut Hand, id: FrameId, items: Vec<Value>) {
        match Value::array(items) {
            Ok(output) => self.done(hand, id, output),
            Err(error) => self.raise(hand, id, Problem::standard(Standard::Runtime, error.to_string())),
        }
    }

    /// An event's tasks are done.
    pub(super) fn event_processed(&mut self, hand: &mut Hand, id: FrameId, output: Value) {
        let Some(live) = self.live(hand, id) else { return };
        let Some(task) = live.task.clone() else { return };
        let Kind::Listen { each: Some(each), .. } = &task.kind else { return };
        match self.shape_event(hand, &live, each, output) {
            Ok(output) => {
                if let Some(State::Listening(heard)) =
                    hand.case.frames.get_mut(&id).map(|frame| &mut frame.state)
                {
                    heard.outputs.push(output);
                    heard.processed += 1;
                }
                self.go_on_listening(hand, id);
            }
            Err(problem) => self.raise(hand, id, problem),
        }
    }

    fn shape_event(
        &mut self,
        hand: &mut Hand,
        live: &Live,
        each: &ForEach,
        raw: Value,
    ) -> Result<Value, Problem> {
        // The names of the item are those of what runs within the listening task.
        let inner = Live { parent: live.id, ..live.clone() };
        let output = self.shape_out(hand, &inner, each.output.as_ref(), [Some(&raw), None], raw.clone())?;
        if let Some(export) = &each.export {
            let outputs = [Some(&raw), Some(&output)];
            hand.case.context = self.shape_out(hand, &inner, Some(export), outputs, output.clone())?;
        }
        Ok(output)
    }
}

/// An event as histories tell it.
pub(super) fn told(event: &Value) -> Value {
    brief(event.field("type").and_then(Value::as_text).unwrap_or_default())
}

/// Whether an attribute is a text, or matches it as a regular expression for the whole.
fn is_like(text: &str, attribute: &Value) -> bool {
    let Some(attribute) = attribute.as_text() else { return false };
    if text == attribute {
        return true;
    }
    let is_pattern = text.contains(|letter| PATTERN_LETTERS.contains(letter));
    is_pattern && jq::is_match(&format!("^(?:{text})$"), attribute).unwrap_or(false)
}
