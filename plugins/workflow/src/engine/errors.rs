//! Errors: who raises them, who catches them, and trying again.
//!
//! Relies on scope for conditions. Promises that an error goes outwards until a `try` catches it, that
//! everything it passes is cancelled, and that no two things happen to a task that is gone. Knows no
//! command.

use super::case::{Action, Attempts, FrameId, ROOT, State, What};
use super::run::{Due, Hand, Live, Run};
use super::scope::NONE;
use crate::definition::duration::MILLIS_MAX;
use crate::definition::program::{Backoff, Catch, Kind, Retry};
use crate::problem::{Problem, Standard};
use crate::value::Value;

impl Run<'_> {
    /// A running task raises an error.
    pub(super) fn raise(&mut self, hand: &mut Hand, id: FrameId, problem: Problem) {
        let Some(live) = self.live(hand, id) else { return };
        self.cancel_within(hand, id);
        self.release(hand, id);
        self.fail(hand, &live, problem);
    }

    /// A task that has no frame raises an error.
    pub(super) fn fail(&mut self, hand: &mut Hand, live: &Live, mut problem: Problem) {
        // It may have been kept before something went wrong.
        self.cancel_within(hand, live.id);
        if live.id != ROOT {
            self.release(hand, live.id);
        }
        if let Some(task) = &live.task {
            problem.instance.clone_from(&task.at);
        }
        self.note(hand, What::TaskFaulted, live, problem.brief());
        self.propagate(hand, live.parent, problem);
    }

    /// Takes an error outwards from within a frame.
    fn propagate(&mut self, hand: &mut Hand, mut within: FrameId, mut problem: Problem) {
        loop {
            let Some(live) = self.live(hand, within) else { return };
            let trying = match hand.case.frames.get(&within).map(|frame| &frame.state) {
                Some(State::Trying(attempts)) => Some(*attempts),
                _ => None,
            };
            self.cancel_within(hand, within);
            if let (Some(attempts), Some(task)) = (trying, live.task.clone())
                && let Kind::Try(_, catch) = &task.kind
            {
                match self.handle(hand, &live, catch, attempts, problem) {
                    Ok(()) => return,
                    Err(mut uncaught) => {
                        // An error of the catching itself comes from this task.
                        if uncaught.instance.is_empty() {
                            uncaught.instance.clone_from(&task.at);
                        }
                        problem = uncaught;
                    }
                }
            }
            if live.task.is_none() {
                return self.end_faulted(hand, problem);
            }
            self.release(hand, within);
            within = live.parent;
        }
    }

    /// Catches an error and does about it what is to be done; gives it back if it is not caught.
    fn handle(
        &mut self,
        hand: &mut Hand,
        live: &Live,
        catch: &Catch,
        attempts: Attempts,
        problem: Problem,
    ) -> Result<(), Problem> {
        if attempts.limited {
            self.cancel_timer(Due::Attempt, hand.id, live.id);
        }
        let error = problem.to_value();
        let names = [(catch.variable.as_str(), error.clone())];
        if !self.catches(hand, live, catch, &names)? {
            return Err(problem);
        }
        self.note(hand, What::ErrorCaught, live, problem.brief());
        if let Some(retry) = &catch.retry
            && let Some(delay) = self.delay(hand, live, retry, attempts, &names)?
        {
            let attempts = Attempts { retries: attempts.retries + 1, limited: false, ..attempts };
            if let Some(frame) = hand.case.frames.get_mut(&live.id) {
                frame.state = State::Delayed(attempts);
            }
            self.timer(Due::Retry, hand.id, live.id, self.now + delay);
            return Ok(());
        }
        match catch.block.as_ref().and_then(|block| block.first()) {
            Some(first) => {
                if let Some(frame) = hand.case.frames.get_mut(&live.id) {
                    frame.state = State::Catching(error);
                }
                let start =
                    Action::Start { parent: live.id, slot: 0, task: *first, input: live.input.clone() };
                hand.case.queue.push_back(start);
                Ok(())
            }
            // Trying again came to its end and nothing else is to be done: the error goes on.
            None if catch.retry.is_some() => Err(problem),
            None => {
                self.done(hand, live.id, live.input.clone());
                Ok(())
            }
        }
    }

    fn catches(
        &mut self,
        hand: &Hand,
        live: &Live,
        catch: &Catch,
        names: &[(&str, Value)],
    ) -> Result<bool, Problem> {
        let error = &names[0].1;
        if let Some(template) = &catch.with {
            let with = self.fill(hand, live, NONE, names, template, &live.input)?;
            for (key, expected) in with.pairs().into_iter().flatten() {
                let key = if &**key == "details" { "detail" } else { key };
                if error.field(key) != Some(expected) {
                    return Ok(false);
                }
            }
        }
        if let Some(when) = &catch.when
            && !self.holds(hand, live, names, when, &live.input)?
        {
            return Ok(false);
        }
        match &catch.except {
            Some(except) => Ok(!self.holds(hand, live, names, except, &live.input)?),
            None => Ok(true),
        }
    }

    /// How long to wait before trying again; none if it is not tried again.
    fn delay(
        &mut self,
        hand: &Hand,
        live: &Live,
        retry: &Retry,
        attempts: Attempts,
        names: &[(&str, Value)],
    ) -> Result<Option<u64>, Problem> {
        if retry.count.is_some_and(|count| u64::from(attempts.retries) >= count) {
            return Ok(None);
        }
        if let Some(when) = &retry.when
            && !self.holds(hand, live, names, when, &live.input)?
        {
            return Ok(None);
        }
        if let Some(except) = &retry.except
            && self.holds(hand, live, names, except, &live.input)?
        {
            return Ok(None);
        }
        let base = retry.delay.as_ref().map_or(Ok(0), |delay| self.millis(hand, live, delay))?;
        let mut delay = match retry.backoff {
            Backoff::Constant => base,
            Backoff::Linear => base.saturating_mul(u64::from(attempts.retries) + 1),
            Backoff::Exponential => {
                base.saturating_mul(1_u64.checked_shl(attempts.retries).unwrap_or(u64::MAX))
            }
        };
        if let Some((from, to)) = &retry.jitter {
            let from = self.millis(hand, live, from)?;
            let to = self.millis(hand, live, to)?.max(from);
            delay = delay.saturating_add(from + self.ctx.random().below(to - from + 1));
        }
        let delay = delay.min(MILLIS_MAX);
        if let Some(all) = &retry.duration {
            let all = self.millis(hand, live, all)?;
            if (self.now - attempts.since.min(self.now)).saturating_add(delay) > all {
                return Ok(None);
            }
        }
        Ok(Some(delay))
    }

    /// It is time to try again.
    pub(super) fn try_again(&mut self, hand: &mut Hand, id: FrameId) {
        let Some(live) = self.live(hand, id) else { return };
        let Some(frame) = hand.case.frames.get_mut(&id) else { return };
        let State::Delayed(attempts) = frame.state else { return };
        frame.state = State::Trying(attempts);
        let Some(Kind::Try(block, _)) = live.task.as_ref().map(|task| &task.kind) else { return };
        let Some(first) = block.first() else { return };
        let start = Action::Start { parent: id, slot: 0, task: *first, input: live.input.clone() };
        self.note(hand, What::TaskRetried, &live, Value::unsigned(attempts.retries.into()));
        hand.case.queue.push_back(start);
        if let Err(problem) = self.limit_attempt(hand, &live) {
            self.raise(hand, id, problem);
        }
    }

    /// Sets the timer that ends an attempt, if attempts are limited.
    pub(super) fn limit_attempt(&mut self, hand: &mut Hand, live: &Live) -> Result<(), Problem> {
        let Some(Kind::Try(_, catch)) = live.task.as_ref().map(|task| &task.kind) else { return Ok(()) };
        let Some(limit) = catch.retry.as_ref().and_then(|retry| retry.attempt.as_ref()) else {
            return Ok(());
        };
        let millis = self.millis(hand, live, limit)?;
        if let Some(State::Trying(attempts)) =
            hand.case.frames.get_mut(&live.id).map(|frame| &mut frame.state)
        {
            attempts.limited = true;
        }
        self.timer(Due::Attempt, hand.id, live.id, self.now + millis);
        Ok(())
    }

    /// An attempt took too long.
    pub(super) fn attempt_over(&mut self, hand: &mut Hand, id: FrameId) {
        let Some(frame) = hand.case.frames.get(&id) else { return };
        if !matches!(frame.state, State::Trying(_)) {
            return;
        }
        let mut problem = Problem::standard(Standard::Timeout, "the attempt took longer than it may");
        if let Some(task) = frame.task.and_then(|task| self.task(&hand.case, task)) {
            problem.instance.clone_from(&task.at);
        }
        self.propagate(hand, id, problem);
    }

    /// Cancels everything that runs in a frame.
    pub(super) fn cancel_within(&mut self, hand: &mut Hand, id: FrameId) {
        hand.case.queue.retain(|action| !matches!(action, Action::Start { parent, .. } if *parent == id));
        loop {
            // A child has a greater number than its parent, so the last descendant has none of its own.
            let is_within = |mut at: FrameId| {
                while let Some(frame) = hand.case.frames.get(&at) {
                    if frame.task.is_none() {
                        return false;
                    }
                    at = frame.parent;
                    if at == id {
                        return true;
                    }
                }
                false
            };
            let mut later =
                hand.case.frames.range((std::ops::Bound::Excluded(id), std::ops::Bound::Unbounded)).rev();
            let Some(last) = later.find(|(at, _)| is_within(**at)).map(|(at, _)| *at) else { return };
            if let Some(live) = self.live(hand, last) {
                self.note(hand, What::TaskCancelled, &live, Value::Null);
            }
            hand.case.queue.retain(|action| match action {
                Action::Start { parent, .. } => *parent != last,
                Action::Done(frame, _) | Action::Raise(frame, _) => *frame != last,
                _ => true,
            });
            self.release(hand, last);
        }
    }
}
