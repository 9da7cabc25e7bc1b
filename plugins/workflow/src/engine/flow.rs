//! What follows when a task is done.
//!
//! Relies on scope for data. Promises the specification's order: output, its schema, export, its schema,
//! then where `then` leads. Knows no kind of task beyond which lists it runs.

use std::rc::Rc;

use super::case::{Action, Branch, FrameId, State, What};
use super::run::{Hand, Live, Run};
use crate::definition::Task;
use crate::definition::program::{Block, Kind, Then};
use crate::problem::{Problem, Standard};
use crate::value::Value;

/// The list that a frame runs.
pub(super) fn block_of<'t>(state: &State, task: &'t Task) -> Option<&'t Block> {
    match (state, &task.kind) {
        (State::Block, Kind::Do(block))
        | (State::Each { .. }, Kind::For { block, .. })
        | (State::Trying(_), Kind::Try(block, _)) => Some(block),
        (State::Catching(_), Kind::Try(_, catch)) => catch.block.as_ref(),
        (State::Listening(_), Kind::Listen { each: Some(each), .. }) => Some(&each.block),
        (State::Before, Kind::Extended { before, .. }) => Some(before),
        (State::After(_), Kind::Extended { after, .. }) => Some(after),
        _ => None,
    }
}

impl Run<'_> {
    /// A running task has its raw output.
    pub(super) fn done(&mut self, hand: &mut Hand, id: FrameId, output: Value) {
        let Some(live) = self.live(hand, id) else { return };
        self.release(hand, id);
        self.complete(hand, &live, output);
    }

    /// A task has its raw output, and no frame any more.
    pub(super) fn complete(&mut self, hand: &mut Hand, live: &Live, output: Value) {
        let Some(task) = live.task.clone() else { return self.end_completed(hand, output) };
        match self.complete_within(hand, live, &task, output) {
            Ok(output) => {
                self.note(hand, What::TaskCompleted, live, Value::Null);
                self.leave(hand, live.parent, live.slot, task.then, output);
            }
            Err(problem) => self.fail(hand, live, problem),
        }
    }

    fn complete_within(
        &mut self,
        hand: &mut Hand,
        live: &Live,
        task: &Rc<Task>,
        raw: Value,
    ) -> Result<Value, Problem> {
        let output = self.shape_out(hand, live, task.output.as_ref(), [Some(&raw), None], raw.clone())?;
        self.small(&output)?;
        if let Some(export) = &task.export {
            let outputs = [Some(&raw), Some(&output)];
            // Without `as`, the context stays as it is, and only its schema is checked.
            let context = match export.template {
                Some(_) => self.shape_out(hand, live, Some(export), outputs, output.clone())?,
                None => self.shape_out(hand, live, Some(export), outputs, hand.case.context.clone())?,
            };
            hand.case.context = context;
        }
        Ok(output)
    }

    /// A task of a list, or a branch, has its output: goes on where its `then` leads.
    pub(super) fn leave(&mut self, hand: &mut Hand, parent: FrameId, slot: u16, then: Then, output: Value) {
        if then == Then::End {
            return self.end_completed(hand, output);
        }
        let Some(frame) = hand.case.frames.get_mut(&parent) else { return };
        let task_of_frame = frame.task;
        match &mut frame.state {
            State::Fork(outputs) => {
                if let Some(place) = outputs.get_mut(usize::from(slot)) {
                    *place = Branch::Done(output);
                }
                return self.branch_done(hand, parent, slot);
            }
            State::Inner => return self.inner_done(hand, parent, output),
            State::Unextended => return self.done(hand, parent, output),
            _ => {}
        }
        let next = match then {
            Then::Continue => slot.checked_add(1),
            Then::Go(place) => Some(place),
            Then::Exit | Then::End => None,
        };
        let next_task = next.and_then(|next| {
            let place = usize::from(next);
            match task_of_frame {
                None => self.outline(&hand.case)?.outline.block.get(place).copied(),
                Some(task) => {
                    let task = self.task(&hand.case, task)?;
                    let state = &hand.case.frames.get(&parent)?.state;
                    block_of(state, &task)?.get(place).copied()
                }
            }
        });
        match (next, next_task) {
            (Some(slot), Some(task)) => {
                hand.case.queue.push_back(Action::Start { parent, slot, task, input: output });
            }
            _ => self.block_done(hand, parent, output, then),
        }
    }

    /// The last task of a list has its output.
    fn block_done(&mut self, hand: &mut Hand, id: FrameId, output: Value, then: Then) {
        let Some(frame) = hand.case.frames.get_mut(&id) else { return };
        match &mut frame.state {
            State::Each { index, .. } => {
                *index += 1;
                self.next_item(hand, id, output);
            }
            State::Listening(heard) => {
                heard.busy = false;
                self.event_processed(hand, id, output);
            }
            State::Before if then != Then::Exit => self.run_extended(hand, id),
            State::After(_) => {
                let State::After(output) = std::mem::replace(&mut frame.state, State::Inner) else { return };
                self.done(hand, id, output);
            }
            _ => self.done(hand, id, output),
        }
    }

    /// Goes on with the item a `for` is at, if there is one and its condition holds.
    pub(super) fn next_item(&mut self, hand: &mut Hand, id: FrameId, input: Value) {
        let Some(live) = self.live(hand, id) else { return };
        let Some(Kind::For { each, at, condition, block, .. }) = live.task.as_ref().map(|task| &task.kind)
        else {
            return;
        };
        let Some(State::Each { items, index }) = hand.case.frames.get(&id).map(|frame| &frame.state) else {
            return;
        };
        let Some(item) = items.items().and_then(|items| items.get(*index as usize)).cloned() else {
            return self.done(hand, id, input);
        };
        if let Some(condition) = condition {
            let names = [(each.as_str(), item), (at.as_str(), Value::unsigned((*index).into()))];
            match self.holds(hand, &live, &names, condition, &input) {
                Ok(true) => {}
                Ok(false) => return self.done(hand, id, input),
                Err(problem) => return self.raise(hand, id, problem),
            }
        }
        match block.first() {
            Some(task) => {
                hand.case.queue.push_back(Action::Start { parent: id, slot: 0, task: *task, input })
            }
            None => self.done(hand, id, input),
        }
    }

    fn branch_done(&mut self, hand: &mut Hand, id: FrameId, slot: u16) {
        let compete = matches!(
            self.live(hand, id).and_then(|live| live.task),
            Some(task) if matches!(task.kind, Kind::Fork { compete: true, .. })
        );
        let Some(State::Fork(outputs)) = hand.case.frames.get_mut(&id).map(|frame| &mut frame.state) else {
            return;
        };
        if compete {
            let won = outputs.get_mut(usize::from(slot)).map(std::mem::take);
            let output = if let Some(Branch::Done(output)) = won { output } else { Value::Null };
            self.cancel_within(hand, id);
            return self.done(hand, id, output);
        }
        if outputs.iter().any(|branch| matches!(branch, Branch::Running)) {
            return;
        }
        let made = std::mem::take(outputs).into_iter().map(|branch| match branch {
            Branch::Done(output) => output,
            Branch::Running => Value::Null,
        });
        match Value::array(made.collect()) {
            Ok(output) => self.done(hand, id, output),
            Err(error) => self.raise(hand, id, Problem::standard(Standard::Runtime, error.to_string())),
        }
    }

    /// A function or an extended task has its output.
    fn inner_done(&mut self, hand: &mut Hand, id: FrameId, output: Value) {
        let Some(live) = self.live(hand, id) else { return };
        if let Some(Kind::Extended { after, .. }) = live.task.as_ref().map(|task| &task.kind)
            && let Some(first) = after.first()
        {
            if let Some(frame) = hand.case.frames.get_mut(&id) {
                frame.state = State::After(output.clone());
            }
            hand.case.queue.push_back(Action::Start { parent: id, slot: 0, task: *first, input: output });
            return;
        }
        self.done(hand, id, output);
    }

    /// Runs a task that an extension has done something before.
    pub(super) fn run_extended(&mut self, hand: &mut Hand, id: FrameId) {
        let Some(live) = self.live(hand, id) else { return };
        let Some(Kind::Extended { task, .. }) = live.task.as_ref().map(|task| &task.kind) else { return };
        if let Some(frame) = hand.case.frames.get_mut(&id) {
            frame.state = State::Inner;
        }
        hand.case.queue.push_back(Action::Start { parent: id, slot: 0, task: *task, input: live.input });
    }
}
