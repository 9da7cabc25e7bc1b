//! One command's hold on cases: what it read, what it changed, what it may still do.
//!
//! Relies on the store. Promises one read and one write of each case, the history of what happened,
//! listings that agree with phases, and that a case which the host does not let go on ends instead of
//! waiting for ever. Knows no task.
//!
//! ```text
//! timer comes due -> its action is put into the queue, `more` and `stuck` are set     hardly ever refused
//! more, at once   -> `stuck` is forgotten, the queue is worked off                    may be refused
//! stuck, later    -> the case faults: `more` was refused, and nothing else would come
//! ```

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use quorate_sdk::{Context, Timestamp};
use serde::{Deserialize, Serialize};

use super::case::{Action, Branch, Case, Chapter, FrameId, Happened, Phase, ROOT, State, What};
use crate::definition::program::Kind;
use crate::definition::{Task, TaskId};
use crate::limits::Limits;
use crate::problem::{Problem, Standard};
use crate::queries::status;
use crate::store::{CASES, HISTORY, ITEMS, LIMITS, LISTED, OUTLINES, Stored, TASKS};
use crate::value::Value;
use crate::{CaseLine, Event, lifecycle};

/// Definitions' parts that are kept decoded while an instance lives.
const CACHED_MAX: usize = 2_000;

/// Bytes of work items, events and new cases after which a command leaves the rest to the next entry: well
/// below what the host lets one command write.
const BYTES_PER_COMMAND: usize = 1 << 20;
/// How long after it had to go on a case counts as stuck, in milliseconds.
const STUCK_MILLIS: u64 = 1_000;

/// What a timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Due {
    /// A `wait` is over.
    Wait,
    /// A task takes too long.
    Timeout,
    /// An attempt takes too long.
    Attempt,
    /// It is time to try again.
    Retry,
    /// The case takes too long.
    Case,
    /// There is more to do than one command did.
    More,
    /// A claim of a work item is over.
    Claim,
}

/// A case, and what of it is stored.
struct Held {
    case: Case,
    /// The phase it is listed under, and the status that is shown there.
    listed: Option<(Phase, &'static str)>,
    happened: Vec<Happened>,
}

/// One command.
pub(crate) struct Run<'c> {
    pub(crate) ctx: &'c mut Context,
    pub(crate) limits: Limits,
    /// Milliseconds since 1970.
    pub(crate) now: u64,
    /// Fuel that is left to the transition that is made.
    pub(super) fuel: u64,
    held: BTreeMap<u64, Held>,
    /// Cases that are being worked on, with what came for them meanwhile.
    in_hand: BTreeMap<u64, Vec<Action>>,
    /// Cases that may have something to do.
    ready: VecDeque<u64>,
    transitions_left: u32,
    fuel_left: u64,
    bytes_left: usize,
}

thread_local! {
    // Definitions never change under their number and digest, so remembering them changes no outcome.
    static CACHED_TASKS: RefCell<BTreeMap<(u32, u64, TaskId), Rc<Task>>> = const { RefCell::new(BTreeMap::new()) };
    static CACHED_OUTLINES: RefCell<BTreeMap<(u32, u64), Rc<Stored>>> = const { RefCell::new(BTreeMap::new()) };
}

impl<'c> Run<'c> {
    pub(crate) fn new(ctx: &'c mut Context) -> Self {
        let limits = LIMITS.get(ctx).unwrap_or_default();
        Self {
            now: ctx.time().unix_millis(),
            ctx,
            limits,
            fuel: limits.expression_fuel,
            held: BTreeMap::new(),
            in_hand: BTreeMap::new(),
            ready: VecDeque::new(),
            transitions_left: limits.transitions_per_command,
            fuel_left: limits.fuel_per_command,
            bytes_left: BYTES_PER_COMMAND,
        }
    }

    /// A case, read at its first use.
    pub(crate) fn case(&mut self, id: u64) -> Option<&mut Case> {
        if !self.held.contains_key(&id) {
            let case = CASES.get(self.ctx, &id)?;
            let listed = Some((case.phase, status(&case)));
            self.held.insert(id, Held { case, listed, happened: Vec::new() });
        }
        self.held.get_mut(&id).map(|held| &mut held.case)
    }

    /// Takes up a new case.
    pub(super) fn add(&mut self, id: u64, case: Case) {
        self.held.insert(id, Held { case, listed: None, happened: Vec::new() });
    }

    /// Works on a case; everything else stays in reach meanwhile.
    pub(crate) fn with<T>(&mut self, id: u64, work: impl FnOnce(&mut Self, &mut Hand) -> T) -> Option<T> {
        self.case(id)?;
        let held = self.held.remove(&id)?;
        let mut hand = Hand { id, case: held.case, happened: held.happened };
        self.in_hand.insert(id, Vec::new());
        let result = work(self, &mut hand);
        let came = self.in_hand.remove(&id).unwrap_or_default();
        if !came.is_empty() && !hand.case.phase.is_over() {
            hand.case.queue.extend(came);
            self.wake(id);
        }
        self.held.insert(id, Held { case: hand.case, listed: held.listed, happened: hand.happened });
        Some(result)
    }

    /// Has a case's queue worked off.
    pub(crate) fn wake(&mut self, id: u64) {
        if !self.ready.contains(&id) {
            self.ready.push_back(id);
        }
    }

    /// Puts an action into a case's queue.
    pub(crate) fn push(&mut self, id: u64, action: Action) {
        if let Some(came) = self.in_hand.get_mut(&id) {
            came.push(action);
        } else if let Some(case) = self.case(id)
            && !case.phase.is_over()
        {
            case.queue.push_back(action);
            self.wake(id);
        }
    }

    /// Makes transitions until nothing is left to do, or the command has done enough.
    pub(crate) fn go(&mut self) {
        while let Some(id) = self.ready.pop_front() {
            self.with(id, |run, hand| {
                while hand.case.phase == Phase::Active
                    && let Some(action) = hand.case.queue.pop_front()
                {
                    if run.is_spent() {
                        hand.case.queue.push_front(action);
                        run.later(id);
                        return;
                    }
                    run.fuel = run.limits.expression_fuel;
                    run.act(hand, action);
                    run.count_transition();
                }
            });
        }
    }

    /// Whether the command has done enough, so that the rest is left to the next entry.
    pub(super) fn is_spent(&self) -> bool {
        self.transitions_left == 0 || self.fuel_left == 0 || self.bytes_left == 0
    }

    /// Counts a transition, which began with all the fuel that one may take.
    pub(super) fn count_transition(&mut self) {
        let used = self.limits.expression_fuel - self.fuel;
        self.fuel_left = self.fuel_left.saturating_sub(used);
        self.transitions_left = self.transitions_left.saturating_sub(1);
    }

    /// About how many bytes a case takes.
    pub(super) fn size_of(&mut self, id: u64) -> usize {
        let most = self.limits.case_bytes;
        self.case(id).map_or(0, |case| size(case, most))
    }

    /// Forgets a case that was only looked at.
    pub(super) fn put_back(&mut self, id: u64) {
        self.held.remove(&id);
    }

    /// Counts what a transition writes beside its case.
    pub(super) fn spend(&mut self, bytes: usize) {
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
    }

    /// Works off what there is to do and writes what changed.
    pub(crate) fn finish(mut self) {
        self.go();
        while self.bound() {
            self.go();
        }
        self.write();
    }

    /// Writes what changed, and has what there is to do worked off in the next entry: a refusal then
    /// leaves what changed now as it is.
    pub(crate) fn finish_later(mut self) {
        self.bound();
        for id in std::mem::take(&mut self.ready) {
            let goes_on = |case: &mut Case| case.phase == Phase::Active && !case.queue.is_empty();
            if self.case(id).is_some_and(goes_on) {
                self.later(id);
            }
        }
        self.write();
    }

    /// Has a case go on in the next entry, or end if the host does not let it.
    fn later(&mut self, id: u64) {
        self.timer(Due::More, id, ROOT, self.now);
        let at = Timestamp::from_unix_millis(self.now + STUCK_MILLIS);
        self.ctx.set_timer(&stuck_id(id), at, &(id, self.now));
    }

    /// Ends a case that was to go on after it was written last, at `since`, and did not.
    pub(crate) fn stuck(&mut self, id: u64, since: u64) {
        let is_stuck =
            |case: &mut Case| case.phase == Phase::Active && case.updated == since && !case.queue.is_empty();
        if !self.case(id).is_some_and(is_stuck) {
            self.put_back(id);
            return;
        }
        self.with(id, |run, hand| {
            let detail = "what is to be done next takes more than the group's limits let one command take";
            run.end_faulted(hand, Problem::standard(Standard::Runtime, detail));
        });
    }

    fn write(mut self) {
        for (id, held) in std::mem::take(&mut self.held) {
            let Held { mut case, listed, happened } = held;
            case.updated = self.now;
            if !happened.is_empty() {
                let first = case.history;
                case.history += happened.len() as u64;
                let chapter = Chapter { at: self.now, index: self.ctx.index(), events: happened };
                HISTORY.insert(self.ctx, &(id, first), &chapter);
            }
            if listed != Some((case.phase, status(&case))) {
                self.list(id, &case, listed.map(|(phase, _)| phase));
            }
            CASES.insert(self.ctx, &id, &case);
        }
    }

    /// Lists a case as it stands, and no longer under the phase before.
    fn list(&mut self, id: u64, case: &Case, before: Option<Phase>) {
        // A line is small; a definition's outline need not be.
        let known = before.and_then(|before| LISTED.get(self.ctx, &(0, before.number(), id)));
        let line = known.unwrap_or_else(|| CaseLine {
            case: id,
            definition: self.outline(case).map(|stored| stored.reference()).unwrap_or_default(),
            key: case.key.clone(),
            status: String::new(),
            started_at: case.started,
            ended_at: None,
        });
        let ended_at = case.phase.is_over().then_some(self.now);
        let line = CaseLine { status: status(case).to_owned(), ended_at, ..line };
        for definition in [0, case.definition] {
            if let Some(before) = before.filter(|before| *before != case.phase) {
                LISTED.remove(self.ctx, &(definition, before.number(), id));
            }
            LISTED.insert(self.ctx, &(definition, case.phase.number(), id), &line);
        }
    }

    /// Ends cases that hold more than they may, so that they can be written; whether any ended by that.
    fn bound(&mut self) -> bool {
        let most = self.limits.case_bytes;
        let large: Vec<u64> =
            self.held.iter().filter(|(_, held)| size(&held.case, most) > most).map(|(id, _)| *id).collect();
        let mut ended = false;
        for id in large {
            self.with(id, |run, hand| {
                let before = hand.case.phase;
                let detail = format!("the case holds more than {most} bytes");
                run.end_faulted(hand, Problem::standard(Standard::Runtime, detail));
                ended |= hand.case.phase != before;
                // What a case may hold always leaves room for what it was given.
                hand.case.context = Value::empty_object();
            });
        }
        ended
    }

    /// A task of a case's definition.
    pub(super) fn task(&self, case: &Case, id: TaskId) -> Option<Rc<Task>> {
        self.task_of((case.definition, case.digest), id)
    }

    /// A task of a definition, by the definition's number and digest.
    pub(super) fn task_of(&self, (definition, digest): (u32, u64), id: TaskId) -> Option<Rc<Task>> {
        let key = (definition, digest, id);
        CACHED_TASKS.with_borrow_mut(|cached| {
            if let Some(task) = cached.get(&key) {
                return Some(Rc::clone(task));
            }
            let task = Rc::new(TASKS.get(self.ctx, &(definition, id))?);
            if cached.len() >= CACHED_MAX {
                cached.clear();
            }
            cached.insert(key, Rc::clone(&task));
            Some(task)
        })
    }

    /// The outline of a case's definition.
    pub(super) fn outline(&self, case: &Case) -> Option<Rc<Stored>> {
        let key = (case.definition, case.digest);
        CACHED_OUTLINES.with_borrow_mut(|cached| {
            if let Some(stored) = cached.get(&key) {
                return Some(Rc::clone(stored));
            }
            let stored = Rc::new(OUTLINES.get(self.ctx, &case.definition)?);
            if cached.len() >= CACHED_MAX {
                cached.clear();
            }
            cached.insert(key, Rc::clone(&stored));
            Some(stored)
        })
    }

    /// Sets a timer; one of its kind and frame is replaced.
    pub(crate) fn timer(&mut self, due: Due, case: u64, frame: FrameId, at: u64) {
        self.ctx.set_timer(&timer_id(due, case, frame), Timestamp::from_unix_millis(at), &(due, case, frame));
    }

    /// Forgets a timer.
    pub(crate) fn cancel_timer(&mut self, due: Due, case: u64, frame: FrameId) {
        self.ctx.cancel_timer(&timer_id(due, case, frame));
    }

    /// A timer came due. Only [`Due::More`] has anything worked off by [`Run::finish`].
    pub(crate) fn due(&mut self, due: Due, case: u64, frame: FrameId) {
        let action = match due {
            Due::More => {
                self.ctx.cancel_timer(&stuck_id(case));
                return self.wake(case);
            }
            Due::Claim => return self.claim_over(case, frame),
            Due::Case => Action::Timeout,
            Due::Attempt => Action::AttemptOver(frame),
            Due::Retry => Action::Retry(frame),
            Due::Timeout => {
                Action::Raise(frame, Problem::standard(Standard::Timeout, "the task took longer than it may"))
            }
            Due::Wait => {
                let waited = self.case(case).and_then(|case| case.frames.get(&frame)?.input.clone());
                Action::Done(frame, waited.unwrap_or_default())
            }
        };
        let exists = self.case(case).is_some_and(|case| case.frames.contains_key(&frame));
        if exists {
            self.push(case, action);
        } else {
            self.held.remove(&case);
        }
    }

    /// Shows watchers that something happened to a case.
    pub(super) fn show(&mut self, hand: &Hand, what: What) {
        if let Some(stored) = self.outline(&hand.case) {
            let event = lifecycle::of_case(hand.id, &hand.case, &stored.outline, what, self.now);
            self.ctx.emit_about(&hand.id.to_be_bytes(), &event);
        }
    }

    /// Notes that something happened to a task.
    pub(super) fn note(&mut self, hand: &mut Hand, what: What, task: &Live, more: Value) {
        if task.is_extended() {
            return;
        }
        if self.limits.task_events
            && let Some(definition) = &task.task
            && let Some(event) = lifecycle::of_task(hand.id, definition, what, self.now)
        {
            self.ctx.emit_about(&hand.id.to_be_bytes(), &event);
        }
        hand.happened.push(Happened(what, task.id_of_task, task.id, more));
    }

    /// Shows an event to watchers.
    pub(super) fn emit(&mut self, key: &[u8], event: &Event) {
        self.ctx.emit_about(key, event);
    }

    /// Removes everything outside a case that a frame of it has.
    pub(super) fn release(&mut self, hand: &mut Hand, id: FrameId) {
        let Some(frame) = hand.case.frames.remove(&id) else { return };
        if frame.limited {
            self.cancel_timer(if id == ROOT { Due::Case } else { Due::Timeout }, hand.id, id);
        }
        match &frame.state {
            State::Waiting => self.cancel_timer(Due::Wait, hand.id, id),
            State::Delayed(_) => self.cancel_timer(Due::Retry, hand.id, id),
            State::Trying(attempts) if attempts.limited => self.cancel_timer(Due::Attempt, hand.id, id),
            State::Item => {
                if let Some(item) = ITEMS.get(self.ctx, &(hand.id, id)) {
                    self.forget_item(hand.id, id, &item);
                }
            }
            State::Child(child) => {
                let child = *child;
                self.cancel_child(child);
            }
            State::Listening(_) => {
                if let Some(task) = frame.task.and_then(|task| self.task(&hand.case, task)) {
                    self.stop_listening(hand.id, id, &task);
                }
            }
            _ => {}
        }
    }
}

/// A case that is being worked on.
pub(crate) struct Hand {
    pub(crate) id: u64,
    pub(crate) case: Case,
    pub(crate) happened: Vec<Happened>,
}

/// A task that is running, with what its expressions see.
#[derive(Clone)]
pub(super) struct Live {
    pub(super) id: FrameId,
    pub(super) parent: FrameId,
    pub(super) slot: u16,
    pub(super) id_of_task: Option<TaskId>,
    /// None for the workflow itself.
    pub(super) task: Option<Rc<Task>>,
    pub(super) input: Value,
    pub(super) raw: Value,
    pub(super) started: u64,
}

impl Live {
    /// Whether it only stands for another task that an extension was put around.
    fn is_extended(&self) -> bool {
        self.task.as_ref().is_some_and(|task| matches!(task.kind, Kind::Extended { .. }))
    }
}

fn timer_id(due: Due, case: u64, frame: FrameId) -> String {
    let kind = match due {
        Due::Wait => "wait",
        Due::Timeout => "timeout",
        Due::Attempt => "attempt",
        Due::Retry => "retry",
        Due::Case => "case",
        Due::More => "more",
        Due::Claim => "claim",
    };
    format!("{kind}/{case}/{frame}")
}

fn stuck_id(case: u64) -> String {
    format!("stuck/{case}")
}

/// About how many bytes a case takes, counted until it is more than `enough`.
fn size(case: &Case, enough: usize) -> usize {
    let optional = |value: &Option<Value>| value.as_ref().map_or(0, Value::size);
    let mut sum = 300 + case.input.size() + case.context.size() + optional(&case.output);
    sum += case.held.iter().map(Value::size).sum::<usize>();
    for action in &case.queue {
        sum += 40
            + match action {
                Action::Start { input: value, .. } | Action::Done(_, value) | Action::Signal(value, _) => {
                    value.size()
                }
                _ => 200,
            };
    }
    for frame in case.frames.values() {
        if sum > enough {
            return sum;
        }
        sum += 60 + optional(&frame.input) + optional(&frame.raw);
        sum += match &frame.state {
            State::Each { items, .. } => items.size(),
            State::Fork(branches) => {
                let made =
                    |branch: &Branch| if let Branch::Done(output) = branch { output.size() } else { 2 };
                branches.iter().map(made).sum()
            }
            State::Catching(value) | State::After(value) => value.size(),
            State::Listening(heard) => {
                let lists = heard.consumed.iter().chain(&heard.outputs).chain(heard.keys.values());
                100 + lists.map(Value::size).sum::<usize>()
            }
            _ => 10,
        };
    }
    sum
}
