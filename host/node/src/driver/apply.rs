//! Applying committed entries, checkpoints, and the arrival of code.
//!
//! Relies on [`Machine`]. Promises that entries of a group are applied in order by one job at a time,
//! and that a digest is taken exactly where the log says so. A job holds all it needs and may run on any
//! thread; small ones run in place.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use quorate_consensus::{Input, Now, SnapshotMark};
use quorate_runtime::{Component, Frozen};
use quorate_types::{Digest, Entry, GroupId, LogIndex, Position};

use super::io::{CheckpointDone, CheckpointJob, Failure, Output, Reply};
use super::{Driver, EntryEvents, Group};
use crate::machine::{AppliedEntry, ApplyStop, CheckpointHeader, Machine};

/// The most entries one job applies, so that replies are not held up by a long queue.
const JOB_ENTRIES_MAX: usize = 16;
/// A group whose entries lately took longer than this is applied beside consensus, in microseconds.
const INLINE_COST_US_MAX: u64 = 5_000;
/// The most entries kept in memory below a checkpoint for followers that are only a little behind; no more
/// than lie between two checkpoints.
const KEPT_ENTRIES: u64 = 256;

/// Committed entries of one group together with its machine.
#[derive(Debug)]
pub struct ApplyJob {
    group: GroupId,
    machine: Machine,
    entries: VecDeque<Entry>,
    components: Arc<BTreeMap<Digest, Component>>,
    done: Vec<(Position, usize, AppliedEntry)>,
    stop: Option<ApplyStop>,
    frozen: Option<(SnapshotMark, Frozen)>,
    cost_us: u64,
    took_us: u64,
}

impl ApplyJob {
    /// Whether the group's recent history says that this takes only a moment.
    #[must_use]
    pub fn is_quick(&self) -> bool {
        self.cost_us <= INLINE_COST_US_MAX
    }

    /// The group.
    #[must_use]
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// Applies the entries, up to one after which a digest is due or one that cannot be applied.
    pub fn run(&mut self) {
        while let Some(entry) = self.entries.front() {
            match self.machine.apply(entry, &self.components) {
                Ok(applied) => {
                    let digest_due = applied.digest_due;
                    let entry = self.entries.pop_front().expect("the front was just applied");
                    self.done.push((entry.position, entry.body.len(), applied));
                    if digest_due {
                        self.frozen = Some((self.machine.mark().clone(), self.machine.freeze()));
                        return;
                    }
                }
                Err(stop) => {
                    self.stop = Some(stop);
                    return;
                }
            }
        }
    }

    /// Notes how long [`ApplyJob::run`] took, in microseconds; decides where the group's next job runs,
    /// never what it does.
    pub fn note_duration(&mut self, took_us: u64) {
        self.took_us = took_us;
    }
}

impl<W> Driver<W> {
    /// The next committed entries to apply, if any group has some and nothing holds it up.
    pub fn next_apply(&mut self) -> Option<ApplyJob> {
        while let Some(id) = self.ready.pop_first() {
            let Some(group) = self.groups.get_mut(&id) else { continue };
            if group.may_not_apply() || group.apply_queue.is_empty() {
                continue;
            }
            let Some(machine) = group.machine.take() else { continue };
            let count = group.apply_queue.len().min(JOB_ENTRIES_MAX);
            return Some(ApplyJob {
                group: id,
                machine,
                entries: group.apply_queue.drain(..count).collect(),
                components: Arc::clone(&self.components),
                done: Vec::with_capacity(count),
                stop: None,
                frozen: None,
                cost_us: group.apply_cost_us,
                took_us: 0,
            });
        }
        None
    }

    pub(super) fn take_applied(&mut self, now: Now, job: ApplyJob, output: &mut Output<W>) {
        let id = job.group;
        let Some(group) = self.groups.get_mut(&id) else { return };
        group.machine = Some(job.machine);
        if group.note_machine() {
            output.changed.push(id);
        }
        let per_entry = job.took_us / (job.done.len() as u64).max(1);
        // The worst lately seen: it loses a sixty-fourth with each job that is quicker.
        group.apply_cost_us = per_entry.max(group.apply_cost_us - group.apply_cost_us / 64);
        for entry in job.entries.into_iter().rev() {
            group.apply_queue.push_front(entry);
        }
        let changed = !job.done.is_empty();
        for (position, _, applied) in job.done {
            self.counters.entries_applied += 1;
            self.counters.items_applied += applied.outcomes.len() as u64;
            group.reply_applied(position, applied, output);
        }
        if changed && id == GroupId::CATALOG {
            output.catalog = group.machine.as_ref().map(Machine::view);
        }
        if let Some((mark, frozen)) = job.frozen {
            group.start_or_hold_checkpoint(mark, frozen, output);
        }
        group.start_wanted_checkpoint(output);
        group.answer_confirmed(output);
        let applied = group.applied;
        let still_wait = !group.frames.is_empty() && !group.is_leader();
        match job.stop {
            None => {}
            Some(ApplyStop::NeedsComponent(digest)) => {
                group.awaiting = Some(digest);
                output.needs.push(digest);
                self.step(now, id, Input::MayLead(false), output);
            }
            Some(ApplyStop::Halted(why)) => {
                group.halt(why, output);
                output.changed.push(id);
                self.step(now, id, Input::MayLead(false), output);
            }
        }
        self.ready.insert(id);
        self.step(now, id, Input::Applied(applied), output);
        if still_wait {
            self.step(now, id, Input::CommandsWait, output);
        }
    }

    pub(super) fn take_component(&mut self, now: Now, component: &Component, output: &mut Output<W>) {
        let digest = component.digest();
        Arc::make_mut(&mut self.components).insert(digest, component.clone());
        let ids: Vec<_> = self.groups.keys().copied().collect();
        for id in ids {
            let Some(group) = self.groups.get_mut(&id) else { continue };
            if let Some(machine) = &mut group.machine {
                machine.provide(component);
            }
            group.answer_confirmed(output);
            if group.awaiting == Some(digest) {
                group.awaiting = None;
                self.ready.insert(id);
                self.step(now, id, Input::MayLead(true), output);
            }
        }
    }

    pub(super) fn take_checkpoint_request(&mut self, id: GroupId, waiter: W, output: &mut Output<W>) {
        let Some(group) = self.groups.get_mut(&id) else {
            return output.refuse([waiter], &Failure::UnknownGroup);
        };
        if let Some(why) = &group.halted {
            let failure = Failure::ApplyHalted(why.clone());
            return output.refuse([waiter], &failure);
        }
        group.checkpoint_waiters.push(waiter);
        self.want_checkpoint(id, output);
    }

    /// A replica that is halted cannot take one: its log stays as long as it is.
    pub(super) fn take_checkpoint_due(&mut self, id: GroupId, output: &mut Output<W>) {
        let Some(group) = self.groups.get_mut(&id).filter(|group| group.halted.is_none()) else { return };
        group.checkpoint_due = true;
        self.want_checkpoint(id, output);
    }

    /// Takes a checkpoint, or has one ordered where they are taken only where the log says so.
    fn want_checkpoint(&mut self, id: GroupId, output: &mut Output<W>) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        if !group.config.is_signed() {
            group.start_wanted_checkpoint(output);
        } else if group.is_leader() {
            group.checkpoint_wanted = true;
            self.touched.insert(id);
        } else {
            output.orders.push(id);
        }
    }

    pub(super) fn take_checkpoint_order(&mut self, now: Now, id: GroupId, waiter: W, output: &mut Output<W>) {
        let Some(group) = self.groups.get_mut(&id) else {
            return output.refuse([waiter], &Failure::UnknownGroup);
        };
        if let Some(failure) = group.refusal() {
            output.refuse([waiter], &failure);
            return self.step(now, id, Input::CommandsWait, output);
        }
        output.replies.push((waiter, Reply::Accepted));
        self.want_checkpoint(id, output);
    }

    pub(super) fn take_checkpoint(&mut self, now: Now, done: CheckpointDone, output: &mut Output<W>) {
        let id = done.group;
        let Some(group) = self.groups.get_mut(&id) else { return };
        let (index, digest, keys) = (done.mark.position.index, done.set_digest.digest(), done.view.pairs());
        let header = CheckpointHeader { mark: done.mark.clone(), set_digest: done.set_digest };
        let content = group.config.is_signed().then(|| header.content(done.view.bytes()));
        group.set_digest = Some(header.set_digest);
        group.checkpointed = index;
        group.last_digest = Some((index, digest));
        group.keep_checkpoint(now, header.mark, Some(done.view));
        for waiter in std::mem::take(&mut group.checkpoint_served) {
            output.replies.push((waiter, Reply::Checkpoint { index, digest, keys }));
        }
        output.compact.push((id, index));
        if let Some((mark, frozen)) = group.checkpoint_held.take() {
            group.start_or_hold_checkpoint(mark, frozen, output);
        }
        group.start_wanted_checkpoint(output);
        self.ready.insert(id);
        let kept = KEPT_ENTRIES.min(group.identity.digest_interval.entries.into());
        let keep_from = LogIndex(index.0.saturating_sub(kept)).next();
        self.step(now, id, Input::Compact { mark: done.mark, content, keep_from }, output);
    }
}

impl<W> Group<W> {
    fn may_not_apply(&self) -> bool {
        self.installing
            || self.awaiting.is_some()
            || self.halted.is_some()
            || self.fenced.is_some()
            || self.checkpoint_held.is_some()
    }

    fn reply_applied(&mut self, position: Position, applied: AppliedEntry, output: &mut Output<W>) {
        let index = position.index;
        if !applied.events.is_empty() {
            let events = EntryEvents { index, stamp: applied.stamp, events: Arc::new(applied.events) };
            self.backlog.note(events.clone());
            output.events.push((self.id, events));
        }
        let mut outcomes = &applied.outcomes[..];
        for (content, items) in &applied.frames {
            let (own, rest) = outcomes.split_at(*items);
            self.frames.applied(*content, own, index, output);
            outcomes = rest;
        }
        while self.in_flight.front().is_some_and(|entry| entry.position.index <= index) {
            let entry = self.in_flight.pop_front().expect("the front was just seen");
            if entry.position != position {
                output.refuse(entry.waiters, &Failure::LeadershipLost);
                continue;
            }
            // A tick has an outcome for which nobody waits.
            for (waiter, outcome) in entry.waiters.into_iter().zip(&applied.outcomes) {
                output.replies.push((waiter, Reply::Outcome { outcome: outcome.clone(), index }));
            }
        }
    }

    /// One checkpoint at a time: the running digest is with the one under way.
    fn start_or_hold_checkpoint(&mut self, mark: SnapshotMark, frozen: Frozen, output: &mut Output<W>) {
        match self.set_digest.take() {
            Some(set_digest) => {
                if self.config.is_signed() {
                    self.serve_with_this_checkpoint();
                }
                output.checkpoints.push(CheckpointJob { group: self.id, mark, frozen, set_digest });
            }
            None => self.checkpoint_held = Some((mark, frozen)),
        }
    }

    fn serve_with_this_checkpoint(&mut self) {
        self.checkpoint_due = false;
        self.checkpoint_served = std::mem::take(&mut self.checkpoint_waiters);
    }

    fn start_wanted_checkpoint(&mut self, output: &mut Output<W>) {
        let wanted = self.checkpoint_due || !self.checkpoint_waiters.is_empty();
        let free = self.set_digest.is_some() && !self.installing && !self.config.is_signed();
        if let Some(machine) = self.machine.as_mut().filter(|_| wanted && free) {
            let (mark, frozen) = (machine.mark().clone(), machine.freeze());
            self.serve_with_this_checkpoint();
            self.start_or_hold_checkpoint(mark, frozen, output);
        }
    }
}
