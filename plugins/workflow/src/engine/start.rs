//! Starting cases and tasks.
//!
//! Relies on scope for data and on the kinds of tasks for what they do. Promises the specification's order:
//! condition, schema, transformation, task. Knows no kind of task.

use std::collections::{BTreeMap, VecDeque};

use super::case::{Action, Case, Frame, FrameId, Phase, ROOT, State, What};
use super::run::{Due, Hand, Live, Run};
use crate::definition::TaskId;
use crate::definition::program::Then;
use crate::problem::{Problem, Standard};
use crate::store::{NEXT_CASE, OUTLINES};
use crate::value::Value;

impl Run<'_> {
    /// Starts a case of a definition, and returns its number; its first tasks are in its queue.
    pub(crate) fn start_case(
        &mut self,
        definition: u32,
        key: Option<String>,
        input: Value,
        parent: Option<(u64, FrameId)>,
        depth: u8,
    ) -> Option<u64> {
        let stored = OUTLINES.get(self.ctx, &definition)?;
        let id = NEXT_CASE.get(self.ctx).unwrap_or(1);
        NEXT_CASE.set(self.ctx, &(id + 1));
        let root = Frame {
            task: None,
            parent: ROOT,
            slot: 0,
            started: self.now,
            input: None,
            raw: None,
            limited: false,
            state: State::Block,
        };
        let case = Case {
            definition,
            digest: stored.digest,
            key,
            phase: Phase::Active,
            started: self.now,
            updated: self.now,
            input,
            context: Value::empty_object(),
            output: None,
            error: None,
            parent,
            depth,
            frames: BTreeMap::from([(ROOT, root)]),
            next_frame: ROOT + 1,
            queue: VecDeque::new(),
            held: Vec::new(),
            history: 0,
            transitions: 0,
        };
        self.spend(case.input.size());
        self.add(id, case);
        self.with(id, |run, hand| {
            let live = run.root(hand);
            run.note(hand, What::CaseStarted, &live, Value::Null);
            run.show(hand, What::CaseStarted);
            if let Err(problem) = run.begin(hand, &live) {
                run.end_faulted(hand, problem);
            }
        });
        self.wake(id);
        Some(id)
    }

    /// The workflow itself, as expressions see it.
    pub(super) fn root(&self, hand: &Hand) -> Live {
        Live {
            id: ROOT,
            parent: ROOT,
            slot: 0,
            id_of_task: None,
            task: None,
            input: Value::Null,
            raw: hand.case.input.clone(),
            started: hand.case.started,
        }
    }

    fn begin(&mut self, hand: &mut Hand, live: &Live) -> Result<(), Problem> {
        let gone = || Problem::standard(Standard::Configuration, "the definition is gone");
        let stored = self.outline(&hand.case).ok_or_else(gone)?;
        self.small(&hand.case.input)?;
        let raw = hand.case.input.clone();
        let input = self.shape_in(hand, live, stored.outline.input.as_ref(), &raw)?;
        if let Some(timeout) = &stored.outline.timeout {
            let millis = self.millis(hand, &Live { input: input.clone(), ..live.clone() }, timeout)?;
            self.timer(Due::Case, hand.id, ROOT, self.now + millis);
            if let Some(root) = hand.case.frames.get_mut(&ROOT) {
                root.limited = true;
            }
        }
        let first = *stored.outline.block.first().ok_or_else(gone)?;
        hand.case.queue.push_back(Action::Start { parent: ROOT, slot: 0, task: first, input });
        Ok(())
    }

    /// Does what is next in a case.
    pub(super) fn act(&mut self, hand: &mut Hand, action: Action) {
        match action {
            Action::Start { parent, slot, task, input } => self.start(hand, parent, slot, task, input),
            Action::Done(frame, output) => self.done(hand, frame, output),
            Action::Raise(frame, problem) => self.raise(hand, frame, problem),
            Action::AttemptOver(frame) => self.attempt_over(hand, frame),
            Action::Retry(frame) => self.try_again(hand, frame),
            Action::Signal(event, hold) => self.signal(hand, event, hold),
            Action::Timeout => {
                let detail = "the case took longer than it may";
                self.end_faulted(hand, Problem::standard(Standard::Timeout, detail));
            }
        }
    }

    fn start(&mut self, hand: &mut Hand, parent: FrameId, slot: u16, id: TaskId, raw: Value) {
        if !hand.case.frames.contains_key(&parent) {
            return;
        }
        let Some(task) = self.task(&hand.case, id) else {
            let problem = Problem::standard(Standard::Configuration, "the definition lacks a task");
            return self.end_faulted(hand, problem);
        };
        let frame = hand.case.next_frame;
        hand.case.next_frame += 1;
        hand.case.transitions += 1;
        let mut live = Live {
            id: frame,
            parent,
            slot,
            id_of_task: Some(id),
            task: Some(task),
            input: raw.clone(),
            raw,
            started: self.now,
        };
        if let Err(problem) = self.start_within(hand, &mut live) {
            self.fail(hand, &live, problem);
        }
    }

    fn start_within(&mut self, hand: &mut Hand, live: &mut Live) -> Result<(), Problem> {
        let Some(task) = live.task.clone() else { return Ok(()) };
        if hand.case.history + hand.happened.len() as u64 >= self.limits.history_events {
            let detail = format!("the history has {} events, which is its bound", self.limits.history_events);
            // Not an error that a `try` could catch for ever.
            self.end_faulted(hand, Problem::standard(Standard::Runtime, detail));
            return Ok(());
        }
        if hand.case.frames.len() >= self.limits.open_tasks {
            let detail = format!("{} tasks run at once, which is the bound", self.limits.open_tasks);
            return Err(Problem::standard(Standard::Runtime, detail));
        }
        if let Some(condition) = &task.condition
            && !self.holds(hand, live, &[], condition, &live.raw)?
        {
            self.note(hand, What::TaskSkipped, live, Value::Null);
            let output = live.raw.clone();
            self.leave(hand, live.parent, live.slot, Then::Continue, output);
            return Ok(());
        }
        self.note(hand, What::TaskStarted, live, Value::Null);
        if let Some(shape) = &task.input {
            let raw = live.raw.clone();
            live.input = self.shape_in(hand, live, Some(shape), &raw)?;
        }
        let limit = task.timeout.as_ref().map(|timeout| self.millis(hand, live, timeout)).transpose()?;
        self.perform(hand, live)?;
        if let Some(millis) = limit
            && let Some(frame) = hand.case.frames.get_mut(&live.id)
        {
            frame.limited = true;
            self.timer(Due::Timeout, hand.id, live.id, self.now + millis);
        }
        Ok(())
    }

    /// Keeps a task running.
    pub(super) fn keep(&mut self, hand: &mut Hand, live: &Live, state: State) {
        let (keeps_input, keeps_raw) =
            live.task.as_ref().map_or((false, false), |task| (task.keeps_input, task.keeps_raw));
        let frame = Frame {
            task: live.id_of_task,
            parent: live.parent,
            slot: live.slot,
            started: live.started,
            input: keeps_input.then(|| live.input.clone()),
            raw: keeps_raw.then(|| live.raw.clone()),
            limited: false,
            state,
        };
        hand.case.frames.insert(live.id, frame);
    }

    /// A running task, as its expressions see it.
    pub(super) fn live(&self, hand: &Hand, id: FrameId) -> Option<Live> {
        let frame = hand.case.frames.get(&id)?;
        let task = frame.task.and_then(|task| self.task(&hand.case, task));
        Some(Live {
            id,
            parent: frame.parent,
            slot: frame.slot,
            id_of_task: frame.task,
            task,
            input: frame.input.clone().unwrap_or_default(),
            raw: frame.raw.clone().unwrap_or_default(),
            started: frame.started,
        })
    }
}
