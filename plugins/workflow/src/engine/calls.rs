//! What is done outside a case: by workers, and by other cases.
//!
//! Relies on the store. Promises that a work item is held by one worker at a time, that every claim has a
//! greater token than the one before, and that a worker which lost its claim changes nothing. Knows no
//! function.

use super::case::{FrameId, State, What};
use super::run::{Due, Hand, Live, Run};
use crate::definition::Task;
use crate::definition::program::{Await, Kind, Return};
use crate::problem::{Problem, Standard, brief};
use crate::store::{DEFINITIONS, ITEMS, Item, LATEST, OFFERED};
use crate::value::Value;
use crate::{Event, ItemId};

impl Run<'_> {
    /// Offers something to workers; goes on at once if nothing waits for it.
    pub(super) fn offer(
        &mut self,
        hand: &mut Hand,
        live: &Live,
        function: &str,
        arguments: Value,
        waits: bool,
    ) -> Result<(), Problem> {
        let open = hand.case.frames.values().filter(|frame| matches!(frame.state, State::Item)).count();
        if open >= self.limits.open_items {
            let detail = format!("the case has {open} open work items, which is the bound");
            return Err(Problem::standard(Standard::Runtime, detail));
        }
        let task = live.task.as_ref().map(|task| task.at.clone()).unwrap_or_default();
        let item = Item {
            function: function.to_owned(),
            arguments,
            task,
            offered: self.now,
            token: 0,
            claim: None,
            detached: !waits,
        };
        self.spend(item.arguments.size());
        ITEMS.insert(self.ctx, &(hand.id, live.id), &item);
        self.note(hand, What::WorkOffered, live, brief(function));
        self.offered(hand.id, live.id, function);
        if waits {
            self.keep(hand, live, State::Item);
        } else {
            self.complete(hand, live, live.input.clone());
        }
        Ok(())
    }

    fn offered(&mut self, case: u64, frame: FrameId, function: &str) {
        OFFERED.insert(self.ctx, &(function, case, frame), &());
        let event = Event::WorkOffered { item: ItemId(case, frame), function: function.to_owned() };
        self.emit(function.as_bytes(), &event);
    }

    /// Removes a work item.
    pub(crate) fn forget_item(&mut self, case: u64, frame: FrameId, item: &Item) {
        ITEMS.remove(self.ctx, &(case, frame));
        if item.claim.is_some() {
            self.cancel_timer(Due::Claim, case, frame);
        } else {
            OFFERED.remove(self.ctx, &(item.function.as_str(), case, frame));
        }
    }

    /// A claim's time is over: the work item is offered again.
    pub(super) fn claim_over(&mut self, case: u64, frame: FrameId) {
        let Some(mut item) = ITEMS.get(self.ctx, &(case, frame)) else { return };
        if item.claim.as_ref().is_none_or(|claim| claim.until > self.now) {
            return;
        }
        item.claim = None;
        ITEMS.insert(self.ctx, &(case, frame), &item);
        let function = item.function;
        self.offered(case, frame, &function);
    }

    /// What of a worker's answer is a task's output.
    pub(crate) fn output_of(&mut self, case: u64, frame: FrameId, answer: Value) -> Value {
        let place = self.case(case).and_then(|case| {
            let task = case.frames.get(&frame)?.task?;
            Some(((case.definition, case.digest), task))
        });
        let task = place.and_then(|(definition, task)| self.task_of(definition, task));
        let Some(task) = task else { return answer };
        let Kind::Run { awaited: Await::Yes(returned), .. } = &task.kind else { return answer };
        let part = |key: &str| answer.field(key).cloned();
        let is_result = part("code").is_some() || part("stdout").is_some() || part("stderr").is_some();
        match returned {
            Return::None => Value::Null,
            _ if !is_result => answer,
            Return::Stdout => part("stdout").unwrap_or_default(),
            Return::Stderr => part("stderr").unwrap_or_default(),
            Return::Code => part("code").unwrap_or_default(),
            Return::All => answer,
        }
    }

    /// Starts a case within a case.
    pub(super) fn start_child(&mut self, hand: &mut Hand, live: &Live, task: &Task) -> Result<(), Problem> {
        let Kind::Workflow { namespace, name, version, input, awaited } = &task.kind else { return Ok(()) };
        let number = match version {
            Some(version) => {
                DEFINITIONS.get(self.ctx, &(namespace.as_str(), name.as_str(), version.as_str()))
            }
            None => LATEST.get(self.ctx, &(namespace.as_str(), name.as_str())),
        };
        let Some(number) = number else {
            let version = version.as_deref().unwrap_or("latest");
            let detail = format!("there is no workflow {namespace}/{name} {version}");
            return Err(Problem::standard(Standard::Configuration, detail));
        };
        if hand.case.depth >= self.limits.case_depth {
            let detail = format!("cases nest deeper than {} levels", self.limits.case_depth);
            return Err(Problem::standard(Standard::Runtime, detail));
        }
        let input = match input {
            Some(template) => self.filled(hand, live, template)?,
            None => live.input.clone(),
        };
        let parent = awaited.then_some((hand.id, live.id));
        let child = self.start_case(number, None, input, parent, hand.case.depth + 1);
        let Some(child) = child else {
            return Err(Problem::standard(Standard::Configuration, "the definition is gone"));
        };
        self.note(hand, What::ChildStarted, live, Value::unsigned(child));
        if *awaited {
            self.keep(hand, live, State::Child(child));
        } else {
            self.complete(hand, live, live.input.clone());
        }
        Ok(())
    }
}
