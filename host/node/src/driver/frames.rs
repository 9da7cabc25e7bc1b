//! Frames that clients of a group sent here and that wait to be ordered.
//!
//! Relies on whoever hands a frame over to have verified it. Promises that every member of the group holds what a
//! client sent to it until it is applied, so that whoever leads can order it and whoever does not can tell a leader
//! that leaves it out; that each waiter gets one reply; that a frame which was applied lately is answered with the
//! outcomes it had then; and bounds on all of it. Knows no signature.
//!
//! ```text
//! client --> held, unordered --> held, in a block --> applied: waiters answered, outcomes kept for a while
//!              ^                       |
//!              +---- another leads ----+
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use quorate_types::{
    COMMANDS_PER_ENTRY_MAX, Digest, FRAMES_PER_ENTRY_MAX, LogIndex, NodeId, Outcome, Time, encode_frames,
};

use super::io::{Failure, Output, Reply};
use super::{BATCH_BYTES_MAX, PENDING_BYTES_MAX, PENDING_ITEMS_MAX};

/// Who may wait for one frame; a client sends it once to each member.
const WAITING_PER_FRAME_MAX: usize = 4;
/// Applied frames whose outcomes are kept for clients whose copy comes late.
const ANSWERED_MAX: usize = 2_048;
/// Bytes of outcomes that are kept so.
const ANSWERED_BYTES_MAX: usize = 8 << 20;
/// After this long a member hands a frame that waits to the leader, which the client may not have reached: before the
/// member gives up the view of a leader that does nothing, so that no client has an honest one replaced.
pub const RELAYED_AFTER: Duration = Duration::from_millis(100);
/// The most frames that are handed on at a time: a leader with too much to do has most of them anyway.
const RELAYED_MAX: usize = 16;
/// After this long under one leader a frame counts as ignored: far longer than a loaded leader takes.
pub const IGNORED_AFTER: Duration = Duration::from_secs(3);
/// After this long nobody orders a frame any more: its client has long given up.
pub const FORGOTTEN_AFTER: Duration = Duration::from_secs(30);

/// A client's frame whose signature, key and certificate were verified at this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdmittedFrame {
    /// Names it: a digest of key and items.
    pub content: Digest,
    /// Its bytes, as they stand in an entry.
    pub bytes: Bytes,
    /// How many items it has.
    pub items: usize,
    /// The components that it puts in force.
    pub activates: Vec<Digest>,
}

/// A frame that waits.
struct Held<W> {
    frame: AdmittedFrame,
    /// Whoever waits for it, one for each item.
    waiting: Vec<Vec<W>>,
    /// When it came, or another leader took over since.
    since: Time,
    /// When it came.
    arrived: Time,
    /// Its place in the order of arrival.
    serial: u64,
    is_relayed: bool,
}

/// What a frame became.
struct Answered {
    index: LogIndex,
    outcomes: Vec<Outcome>,
    bytes: usize,
}

/// What is overdue in a group.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Overdue {
    /// To be handed to the leader.
    pub(super) relay: Vec<Bytes>,
    /// Whether the leader ignores a frame.
    pub(super) is_ignored: bool,
}

/// The frames of one group.
///
/// Invariant: `unordered` names frames of `held` alone, by their serial.
pub(super) struct Frames<W> {
    held: BTreeMap<Digest, Held<W>>,
    /// Held frames that this replica did not propose since it began to lead, in their order.
    unordered: BTreeMap<u64, Digest>,
    items: usize,
    bytes: usize,
    serial: u64,
    /// When to look whether something waits too long; may come too early.
    look_at: Time,
    answered: BTreeMap<Digest, Answered>,
    answered_order: VecDeque<Digest>,
    answered_bytes: usize,
}

impl<W> Default for Frames<W> {
    fn default() -> Self {
        Self {
            held: BTreeMap::new(),
            unordered: BTreeMap::new(),
            items: 0,
            bytes: 0,
            serial: 0,
            look_at: Time::default(),
            answered: BTreeMap::new(),
            answered_order: VecDeque::new(),
            answered_bytes: 0,
        }
    }
}

impl<W> Frames<W> {
    /// Whether nothing waits to be applied.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// How many items wait to be applied.
    pub(super) fn items(&self) -> usize {
        self.items
    }

    /// Whether a leader has something to propose.
    pub(super) fn is_proposable(&self) -> bool {
        !self.unordered.is_empty()
    }

    /// Takes a frame, with one waiter for each item or none at all; how many items were refused for want of room.
    pub(super) fn take(
        &mut self,
        now: Time,
        frame: AdmittedFrame,
        waiters: Vec<W>,
        output: &mut Output<W>,
    ) -> usize {
        if let Some(answered) = self.answered.get(&frame.content) {
            reply(waiters, &answered.outcomes, answered.index, output);
            return 0;
        }
        if let Some(held) = self.held.get_mut(&frame.content) {
            if waiters.is_empty() {
                return 0;
            }
            if held.waiting.len() >= WAITING_PER_FRAME_MAX {
                output.refuse(waiters, &Failure::Overloaded);
                return frame.items;
            }
            held.waiting.push(waiters);
            return 0;
        }
        let (items, bytes) = (self.items + frame.items, self.bytes + frame.bytes.len());
        if items > PENDING_ITEMS_MAX || bytes > PENDING_BYTES_MAX {
            output.refuse(waiters, &Failure::Overloaded);
            return frame.items;
        }
        (self.items, self.bytes) = (items, bytes);
        if self.held.is_empty() {
            self.look_at = now.after(RELAYED_AFTER);
        }
        let serial = self.serial;
        self.serial += 1;
        self.unordered.insert(serial, frame.content);
        let waiting = vec![waiters];
        let content = frame.content;
        let held = Held { frame, waiting, since: now, arrived: now, serial, is_relayed: false };
        self.held.insert(content, held);
        0
    }

    /// The body of the next entry, made of whole frames in the order in which they came; none if none waits.
    pub(super) fn next_body(&mut self) -> Option<Bytes> {
        let (mut frames, mut items, mut bytes) = (Vec::new(), 0, 0);
        while let Some((serial, content)) = self.unordered.first_key_value() {
            let frame = &self.held[content].frame;
            let fits = frames.len() < FRAMES_PER_ENTRY_MAX
                && items + frame.items <= COMMANDS_PER_ENTRY_MAX
                && (frames.is_empty() || bytes + frame.bytes.len() <= BATCH_BYTES_MAX);
            if !fits {
                break;
            }
            items += frame.items;
            bytes += frame.bytes.len();
            frames.push(frame.bytes.clone());
            let serial = *serial;
            self.unordered.remove(&serial);
        }
        (!frames.is_empty()).then(|| encode_frames(&frames))
    }

    /// Another leads: what the one before may have ordered is ordered again if it is not applied first, and the new
    /// one has its time.
    pub(super) fn order_again(&mut self, now: Time) {
        self.unordered = self.held.values().map(|held| (held.serial, held.frame.content)).collect();
        self.held.values_mut().for_each(|held| (held.since, held.is_relayed) = (now, false));
    }

    /// Takes what applying a frame gave.
    pub(super) fn applied(
        &mut self,
        content: Digest,
        outcomes: &[Outcome],
        index: LogIndex,
        output: &mut Output<W>,
    ) {
        if let Some(held) = self.forget(&content) {
            held.waiting.into_iter().for_each(|waiters| reply(waiters, outcomes, index, output));
        }
        self.keep(content, outcomes, index);
    }

    /// Refuses everything that waits.
    pub(super) fn refuse_all(&mut self, failure: &Failure, output: &mut Output<W>) {
        for held in std::mem::take(&mut self.held).into_values() {
            output.refuse(held.waiting.into_iter().flatten(), failure);
        }
        self.unordered.clear();
        (self.items, self.bytes) = (0, 0);
    }

    /// When [`Frames::overdue`] is to be asked next.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        (!self.held.is_empty()).then_some(self.look_at)
    }

    /// What waits here for too long; what nobody waits for any more is forgotten.
    pub(super) fn overdue(&mut self, now: Time, output: &mut Output<W>) -> Overdue {
        if self.next_deadline().is_none_or(|deadline| deadline > now) {
            return Overdue::default();
        }
        let old = |held: &&Held<W>| now.since(held.arrived) >= FORGOTTEN_AFTER;
        let forgotten: Vec<Digest> = self.held.values().filter(old).map(|held| held.frame.content).collect();
        for content in forgotten {
            if let Some(held) = self.forget(&content) {
                output.refuse(held.waiting.into_iter().flatten(), &Failure::NotOrdered);
            }
        }
        let mut overdue = Overdue::default();
        for held in self.held.values_mut() {
            let is_due = now.since(held.since) >= RELAYED_AFTER && !held.is_relayed;
            if is_due && overdue.relay.len() < RELAYED_MAX {
                held.is_relayed = true;
                overdue.relay.push(held.frame.bytes.clone());
            }
            if now.since(held.since) >= IGNORED_AFTER {
                held.since = now;
                overdue.is_ignored = true;
            }
        }
        let next = self.held.values().map(Held::next_deadline).min().unwrap_or_default();
        self.look_at = next.max(now.after(RELAYED_AFTER));
        overdue
    }

    fn forget(&mut self, content: &Digest) -> Option<Held<W>> {
        let held = self.held.remove(content)?;
        self.unordered.remove(&held.serial);
        self.items -= held.frame.items;
        self.bytes -= held.frame.bytes.len();
        Some(held)
    }

    fn keep(&mut self, content: Digest, outcomes: &[Outcome], index: LogIndex) {
        let bytes = outcomes.iter().map(outcome_bytes).sum();
        if bytes > ANSWERED_BYTES_MAX || self.answered.contains_key(&content) {
            return;
        }
        self.answered.insert(content, Answered { index, outcomes: outcomes.to_vec(), bytes });
        self.answered_order.push_back(content);
        self.answered_bytes += bytes;
        while self.answered_order.len() > ANSWERED_MAX || self.answered_bytes > ANSWERED_BYTES_MAX {
            let Some(oldest) = self.answered_order.pop_front() else { return };
            self.answered_bytes -= self.answered.remove(&oldest).map_or(0, |answered| answered.bytes);
        }
    }
}

impl<W> Held<W> {
    fn next_deadline(&self) -> Time {
        let after = if self.is_relayed { IGNORED_AFTER } else { RELAYED_AFTER };
        self.since.after(after).min(self.arrived.after(FORGOTTEN_AFTER))
    }
}

fn reply<W>(waiters: Vec<W>, outcomes: &[Outcome], index: LogIndex, output: &mut Output<W>) {
    let replies = waiters.into_iter().zip(outcomes);
    output.replies.extend(
        replies.map(|(waiter, outcome)| (waiter, Reply::Outcome { outcome: outcome.clone(), index })),
    );
}

fn outcome_bytes(outcome: &Outcome) -> usize {
    64 + match outcome {
        Outcome::Done(body) => body.len(),
        Outcome::Rejected(rejection) => rejection.name.len() + rejection.message.len(),
    }
}

/// A frame that waits too long, on its way to the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayedFrame {
    /// Who leads.
    pub to: NodeId,
    /// The frame's bytes.
    pub bytes: Bytes,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use quorate_types::decode_frames;

    use super::*;

    fn frame(name: u8, items: usize) -> AdmittedFrame {
        AdmittedFrame {
            content: Digest([name; 32]),
            bytes: vec![name; 10].into(),
            items,
            activates: Vec::new(),
        }
    }

    fn done(text: &'static str) -> Outcome {
        Outcome::Done(Bytes::from_static(text.as_bytes()))
    }

    fn at(ms: u64) -> Time {
        Time::default().after(Duration::from_millis(ms))
    }

    fn told(output: &mut Output<u32>) -> Vec<(u32, Option<u64>)> {
        let index = |reply| match reply {
            Reply::Outcome { index, .. } => Some(index.0),
            _ => None,
        };
        std::mem::take(&mut output.replies)
            .into_iter()
            .map(|(waiter, reply)| (waiter, index(reply)))
            .collect()
    }

    #[test]
    fn frames_are_ordered_whole_and_as_they_came_and_each_item_is_answered() {
        let (mut frames, mut output) = (Frames::default(), Output::default());
        assert_eq!(frames.take(at(0), frame(2, 2), vec![20, 21], &mut output), 0);
        assert_eq!(frames.take(at(0), frame(1, 1), vec![10], &mut output), 0);
        let body = frames.next_body().unwrap();
        assert_eq!(decode_frames(body).unwrap(), [frame(2, 2).bytes, frame(1, 1).bytes]);
        assert!(frames.next_body().is_none() && !frames.is_empty());
        frames.applied(Digest([2; 32]), &[done("a"), done("b")], LogIndex(7), &mut output);
        assert_eq!(told(&mut output), [(20, Some(7)), (21, Some(7))]);
        assert_eq!(frames.items(), 1);
    }

    /// What could go wrong: a member to which the client's copy comes after the block has no answer for it.
    #[test]
    fn a_frame_that_comes_after_it_was_applied_gets_the_same_answer_and_is_not_ordered_again() {
        let (mut frames, mut output) = (Frames::default(), Output::default());
        frames.applied(Digest([1; 32]), &[done("a")], LogIndex(7), &mut output);
        frames.applied(Digest([1; 32]), &[done("a")], LogIndex(9), &mut output);
        assert_eq!(frames.take(at(0), frame(1, 1), vec![10], &mut output), 0);
        assert_eq!(told(&mut output), [(10, Some(7))]);
        assert!(frames.is_empty() && !frames.is_proposable());
        for name in 0..=ANSWERED_MAX {
            let mut content = [9; 32];
            content[..8].copy_from_slice(&name.to_le_bytes());
            frames.applied(Digest(content), &[done("x")], LogIndex(8), &mut output);
        }
        assert_eq!(frames.answered.len(), ANSWERED_MAX);
        frames.take(at(0), frame(1, 1), vec![10], &mut output);
        assert!(frames.is_proposable(), "long forgotten");
    }

    #[test]
    fn another_leader_orders_what_the_last_one_left() {
        let (mut frames, mut output) = (Frames::<u32>::default(), Output::default());
        frames.take(at(0), frame(1, 1), Vec::new(), &mut output);
        frames.take(at(0), frame(2, 1), Vec::new(), &mut output);
        let first = frames.next_body();
        frames.applied(Digest([1; 32]), &[done("a")], LogIndex(1), &mut output);
        assert!(first.is_some() && !frames.is_proposable());
        frames.order_again(at(5));
        assert_eq!(decode_frames(frames.next_body().unwrap()).unwrap(), [frame(2, 1).bytes]);
    }

    /// What could go wrong: one client fills the memory of a member, or waits without end.
    #[test]
    fn what_is_too_much_is_refused_and_what_is_too_old_is_forgotten() {
        let (mut frames, mut output) = (Frames::default(), Output::default());
        frames.take(at(0), frame(1, PENDING_ITEMS_MAX), vec![1], &mut output);
        assert_eq!(frames.take(at(0), frame(2, 1), vec![2], &mut output), 1);
        for waiter in 3..=5 {
            assert_eq!(frames.take(at(0), frame(1, 1), vec![waiter], &mut output), 0);
        }
        assert_eq!(frames.take(at(0), frame(1, 1), vec![6], &mut output), 1);
        assert_eq!(told(&mut output), [(2, None), (6, None)]);
        frames.overdue(at(29_999), &mut output);
        assert!(told(&mut output).is_empty());
        frames.overdue(at(30_100), &mut output);
        assert_eq!(told(&mut output).len(), 4);
        assert!(frames.is_empty() && frames.items() == 0 && frames.next_deadline().is_none());
    }

    #[test]
    fn a_frame_that_waits_is_shown_to_the_leader_before_the_leader_is_blamed_and_each_leader_has_its_time() {
        let (mut frames, mut output) = (Frames::<u32>::default(), Output::default());
        frames.take(at(0), frame(1, 1), Vec::new(), &mut output);
        assert_eq!(frames.overdue(at(99), &mut output), Overdue::default());
        assert_eq!(frames.next_deadline(), Some(at(100)));
        let relay = vec![frame(1, 1).bytes];
        assert_eq!(frames.overdue(at(100), &mut output), Overdue { relay, is_ignored: false });
        assert_eq!(frames.next_deadline(), Some(at(3_000)));
        assert_eq!(frames.overdue(at(2_999), &mut output), Overdue::default());
        assert!(frames.overdue(at(3_000), &mut output).is_ignored);
        frames.order_again(at(3_500));
        assert!(!frames.overdue(at(6_400), &mut output).is_ignored);
        assert!(frames.overdue(at(6_500), &mut output).is_ignored);
    }

    #[test]
    fn a_member_hands_on_a_few_frames_at_a_time() {
        let (mut frames, mut output) = (Frames::<u32>::default(), Output::default());
        for name in 0..2 * RELAYED_MAX as u8 {
            frames.take(at(0), frame(name, 1), Vec::new(), &mut output);
        }
        assert_eq!(frames.overdue(at(100), &mut output).relay.len(), RELAYED_MAX);
        assert!(frames.overdue(at(199), &mut output).relay.is_empty());
        assert_eq!(frames.overdue(at(200), &mut output).relay.len(), RELAYED_MAX);
    }
}
