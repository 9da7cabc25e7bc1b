//! How cases end, are halted and go on.
//!
//! Relies on the queue. Promises that a case ends once, that nothing of it stays behind but the case itself
//! and its history, and that whoever waits for it hears of it. Knows no task.

use super::case::{Action, Case, Phase, ROOT, What};
use super::run::{Hand, Run};
use super::schedule;
use crate::definition::program::Schedule;
use crate::problem::{Problem, Standard};
use crate::value::Value;

impl Run<'_> {
    /// A case comes to its end with its last task's output.
    pub(super) fn end_completed(&mut self, hand: &mut Hand, output: Value) {
        let mut live = self.root(hand);
        live.input = output.clone();
        let shape = self.outline(&hand.case).and_then(|stored| stored.outline.output.clone());
        match self.shape_out(hand, &live, shape.as_ref(), [Some(&output), None], output.clone()) {
            Ok(output) => {
                hand.case.output = Some(output.clone());
                self.spend(output.size());
                self.end(hand, Phase::Completed, What::CaseCompleted, Value::Null);
                self.tell_parent(&hand.case, |frame| Action::Done(frame, output));
            }
            Err(problem) => self.end_faulted(hand, problem),
        }
    }

    /// An error that nothing caught ends a case.
    pub(super) fn end_faulted(&mut self, hand: &mut Hand, problem: Problem) {
        if hand.case.phase.is_over() && hand.case.phase != Phase::Completed {
            return;
        }
        hand.case.output = None;
        hand.case.error = Some(problem.clone());
        self.end(hand, Phase::Faulted, What::CaseFaulted, problem.brief());
        self.tell_parent(&hand.case, |frame| Action::Raise(frame, problem));
    }

    fn end(&mut self, hand: &mut Hand, phase: Phase, what: What, more: Value) {
        self.cancel_within(hand, ROOT);
        self.release(hand, ROOT);
        hand.case.frames.clear();
        hand.case.queue.clear();
        hand.case.held.clear();
        hand.case.phase = phase;
        let live = self.root(hand);
        self.note(hand, what, &live, more);
        self.show(hand, what);
        if let Some(stored) = self.outline(&hand.case)
            && let Some(Schedule::After(millis)) = stored.outline.schedule
            && hand.case.parent.is_none()
        {
            schedule::arm(self.ctx, hand.case.definition, self.now + millis);
        }
    }

    fn tell_parent(&mut self, case: &Case, action: impl FnOnce(u32) -> Action) {
        // A frame that is gone takes no action.
        if let Some((parent, frame)) = case.parent {
            self.push(parent, action(frame));
        }
    }

    /// Ends a case from outside. Whether it was going on.
    pub(crate) fn cancel(&mut self, id: u64) -> bool {
        self.with(id, |run, hand| {
            if hand.case.phase.is_over() {
                return false;
            }
            run.end(hand, Phase::Cancelled, What::CaseCancelled, Value::Null);
            run.tell_parent(&hand.case, |frame| {
                let detail = "the workflow that it ran was cancelled";
                Action::Raise(frame, Problem::standard(Standard::Runtime, detail))
            });
            true
        })
        .unwrap_or(false)
    }

    /// Ends a case because nothing waits for it any more.
    pub(super) fn cancel_child(&mut self, id: u64) {
        self.with(id, |run, hand| {
            if !hand.case.phase.is_over() {
                hand.case.parent = None;
                run.end(hand, Phase::Cancelled, What::CaseCancelled, Value::Null);
            }
        });
    }

    /// Halts a case. Whether it was going on.
    pub(crate) fn suspend(&mut self, id: u64) -> bool {
        self.turn(id, Phase::Active, Phase::Suspended, What::CaseSuspended)
    }

    /// Lets a halted case go on. Whether it was halted.
    pub(crate) fn resume(&mut self, id: u64) -> bool {
        let turned = self.turn(id, Phase::Suspended, Phase::Active, What::CaseResumed);
        self.wake(id);
        turned
    }

    fn turn(&mut self, id: u64, from: Phase, to: Phase, what: What) -> bool {
        self.with(id, |run, hand| {
            if hand.case.phase != from {
                return false;
            }
            hand.case.phase = to;
            let live = run.root(hand);
            run.note(hand, what, &live, Value::Null);
            run.show(hand, what);
            true
        })
        .unwrap_or(false)
    }
}
