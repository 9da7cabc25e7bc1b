//! What each kind of task does when it starts.
//!
//! Relies on scope for data. Promises that a task which needs nothing but data is done at once. Knows no
//! command.

use super::case::{Action, Attempts, Branch, State, What};
use super::listening::told;
use super::run::{Due, Hand, Live, Run};
use super::scope::NONE;
use crate::definition::program::{Await, Choice, Kind, Template, Then};
use crate::problem::{Problem, Standard};
use crate::value::Value;

impl Run<'_> {
    /// Does what a task is there for.
    pub(super) fn perform(&mut self, hand: &mut Hand, live: &mut Live) -> Result<(), Problem> {
        let Some(task) = live.task.clone() else { return Ok(()) };
        match &task.kind {
            Kind::Set(template) => {
                let output = self.filled(hand, live, template)?;
                self.complete(hand, live, output);
            }
            Kind::Switch(choices) => return self.choose(hand, live, choices),
            Kind::Raise(template) => {
                let error = self.filled(hand, live, template)?;
                return Err(Problem::from_value(&error, Standard::Runtime));
            }
            Kind::Emit(template) => {
                let event = self.filled(hand, live, template)?;
                self.emit_event(hand, live, event)?;
                let output = live.input.clone();
                self.complete(hand, live, output);
            }
            Kind::Wait(span) => {
                let millis = self.millis(hand, live, span)?;
                self.keep(hand, live, State::Waiting);
                self.timer(Due::Wait, hand.id, live.id, self.now + millis);
            }
            Kind::Do(block) => self.enter(hand, live, State::Block, block.first().copied()),
            Kind::For { within, .. } => {
                let input = live.input.clone();
                let items = self.eval(hand, live, NONE, &[], within, &input)?;
                let items = match items {
                    Value::Array(_) => items,
                    Value::Null => Value::empty_array(),
                    other => {
                        let detail = format!(
                            "`for.in` gives a {}, and only an array can be gone through",
                            other.type_name()
                        );
                        return Err(Problem::standard(Standard::Expression, detail));
                    }
                };
                self.small(&items)?;
                self.keep(hand, live, State::Each { items, index: 0 });
                self.next_item(hand, live.id, input);
            }
            Kind::Fork { branches, .. } => {
                self.keep(hand, live, State::Fork(vec![Branch::Running; branches.len()]));
                for (slot, task) in (0..).zip(branches) {
                    let start =
                        Action::Start { parent: live.id, slot, task: *task, input: live.input.clone() };
                    hand.case.queue.push_back(start);
                }
            }
            Kind::Try(block, _) => {
                let attempts = Attempts { retries: 0, since: self.now, limited: false };
                self.enter(hand, live, State::Trying(attempts), block.first().copied());
                self.limit_attempt(hand, live)?;
            }
            Kind::Listen { .. } => self.start_listening(hand, live)?,
            Kind::Call { function, with } => {
                let arguments = self.filled(hand, live, with)?;
                self.offer(hand, live, function, arguments, true)?;
            }
            Kind::Run { process, with, awaited } => {
                let arguments = self.filled(hand, live, with)?;
                let waits = matches!(awaited, Await::Yes(_));
                self.offer(hand, live, &format!("run:{process}"), arguments, waits)?;
            }
            Kind::Workflow { .. } => self.start_child(hand, live, &task)?,
            Kind::Invoke { task: function, with } => {
                let input = self.filled(hand, live, with)?;
                self.keep(hand, live, State::Inner);
                hand.case.queue.push_back(Action::Start { parent: live.id, slot: 0, task: *function, input });
            }
            Kind::Extended { when, before, .. } => {
                let input = live.input.clone();
                let applies = match when {
                    // A condition that cannot be evaluated does not hold: the specification's own example
                    // takes an endpoint for a text that may be an object.
                    Some(when) => self.holds(hand, live, &[], when, &input).unwrap_or(false),
                    None => true,
                };
                return self.start_extended(hand, live, applies.then(|| before.first().copied()));
            }
        }
        Ok(())
    }

    /// A template filled in from a task's input, as small as documents must be.
    pub(super) fn filled(&mut self, hand: &Hand, live: &Live, template: &Template) -> Result<Value, Problem> {
        let value = self.fill(hand, live, NONE, &[], template, &live.input)?;
        self.small(&value)?;
        Ok(value)
    }

    /// Keeps a task running and starts the first of its list.
    fn enter(&mut self, hand: &mut Hand, live: &Live, state: State, first: Option<u16>) {
        self.keep(hand, live, state);
        match first {
            Some(task) => {
                let start = Action::Start { parent: live.id, slot: 0, task, input: live.input.clone() };
                hand.case.queue.push_back(start);
            }
            None => self.done(hand, live.id, live.input.clone()),
        }
    }

    fn choose(&mut self, hand: &mut Hand, live: &Live, choices: &[Choice]) -> Result<(), Problem> {
        let mut chosen: Option<Then> = None;
        for choice in choices {
            let holds = match &choice.when {
                Some(when) => self.holds(hand, live, &[], when, &live.input)?,
                None => true,
            };
            if holds {
                chosen = Some(choice.then);
                break;
            }
        }
        let Some(then) = chosen else {
            // No case applies: the task's own `then` counts.
            self.complete(hand, live, live.input.clone());
            return Ok(());
        };
        let mut task =
            live.task.as_deref().cloned().ok_or_else(|| Problem::standard(Standard::Runtime, "no task"))?;
        task.then = then;
        let live = Live { task: Some(task.into()), ..live.clone() };
        self.complete(hand, &live, live.input.clone());
        Ok(())
    }

    /// Starts an extended task: with what is done before it, or without the extension at all.
    fn start_extended(
        &mut self,
        hand: &mut Hand,
        live: &Live,
        before: Option<Option<u16>>,
    ) -> Result<(), Problem> {
        let Some(Kind::Extended { task: inner, .. }) = live.task.as_ref().map(|task| &task.kind) else {
            return Ok(());
        };
        match before {
            Some(Some(first)) => self.enter(hand, live, State::Before, Some(first)),
            Some(None) => {
                self.keep(hand, live, State::Inner);
                self.run_extended(hand, live.id);
            }
            None => {
                self.keep(hand, live, State::Unextended);
                let start =
                    Action::Start { parent: live.id, slot: 0, task: *inner, input: live.input.clone() };
                hand.case.queue.push_back(start);
            }
        }
        Ok(())
    }

    /// Gives an event to watchers and to whoever listens.
    fn emit_event(&mut self, hand: &mut Hand, live: &Live, event: Value) -> Result<(), Problem> {
        let id = format!("{}-{}", hand.id, live.id);
        let event = super::cloud_event(event, &id, self.now)
            .map_err(|problem| Problem::standard(Standard::Runtime, problem))?;
        self.note(hand, What::EventEmitted, live, told(&event));
        // It is shown to watchers and perhaps kept for the next entry.
        self.spend(event.size() * 2);
        self.publish_later(hand.id, live.id, event);
        Ok(())
    }
}
