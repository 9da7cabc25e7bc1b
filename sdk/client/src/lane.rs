//! The lane of a group whose replicas may lie: items gathered into frames, signed, sent to every member, and answered
//! once f + 1 members gave the same answer.
//!
//! Relies on links that TLS authenticated as one member each. Promises that what is believed was said by at least one
//! member that tells the truth, that f members may be silent or lie, and one signature for whatever queued up while
//! earlier frames were under way. Knows no session, and no leader: members that do not lead hold a frame as well, and
//! replace a leader that leaves it out.
//!
//! ```text
//! sessions --> queue --> frame, signed once --+--> member 1 --> answer --.
//!                                             +--> member 2 --> answer ---+--> f + 1 alike? --> sessions
//!                                             '--> member n --> silence   '
//! ```

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use quorate_crypto::sign_frame;
use quorate_proto::v1::{GroupInfo, GroupKind, MemberRole, SignedItems, reply, submit_item};
use quorate_types::{
    Batch, BatchItem, COMMANDS_PER_ENTRY_MAX, ClusterId, Command, GroupId, Sequence, SessionId,
    byzantine_faults,
};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::client::Inner;
use crate::error::Error;
use crate::link::{Answer, LinkFault, NotQueued};
use crate::node::Node;
use crate::tls::ClientIdentity;

/// Frames without answer; what comes meanwhile makes one frame, so that frames grow with the load.
const FRAMES_UNDER_WAY_MAX: usize = 4;
/// Where a frame ends, in bytes of its items; half of what a leader puts into one block.
const FRAME_BYTES: usize = 256 << 10;
/// The most members of a group.
const MEMBERS_MAX: usize = 128;

/// A member as its lane reaches it.
#[derive(Debug)]
struct Member {
    node: Arc<Node>,
    /// Until when nothing is sent there, because the last link failed.
    down_until: Mutex<Option<Instant>>,
}

/// One item that waits for a frame.
struct Queued {
    item: BatchItem,
    waiter: oneshot::Sender<Answer>,
}

#[derive(Default)]
struct State {
    queued: VecDeque<Queued>,
    bytes: usize,
}

/// The lane of one group.
pub(crate) struct Lane {
    cluster: ClusterId,
    group: u64,
    identity: ClientIdentity,
    members: Vec<Arc<Member>>,
    /// How many equal answers are believed: f + 1.
    need: usize,
    /// How long a frame may stay unanswered before others are sent all the same.
    patience: Duration,
    /// How long a member whose link failed is left alone.
    retry_delay: Duration,
    items_max: usize,
    bytes_max: usize,
    state: Mutex<State>,
    arrived: Arc<Notify>,
}

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane").field("group", &self.group).field("need", &self.need).finish_non_exhaustive()
    }
}

/// Whether the replicas of a group may lie.
pub(crate) fn may_lie(info: &GroupInfo) -> bool {
    !matches!(info.kind(), GroupKind::Crash | GroupKind::Unspecified)
}

impl Lane {
    /// The lane of a group of which enough nodes said the same. Must run within tokio.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if this client cannot sign, [`Error::Protocol`] for a description that makes no lane.
    pub(crate) fn open(inner: &Inner, info: &GroupInfo) -> Result<Arc<Self>, Error> {
        let odd = |reason: &str| Error::Protocol { reason: format!("group {}: {reason}", info.name) };
        let cluster = <[u8; 16]>::try_from(&info.cluster[..]).map_err(|_| odd("its cluster is not named"))?;
        let cluster = ClusterId(cluster);
        let voters = info.members.iter().filter(|member| member.role() == MemberRole::Voter);
        let mut members = Vec::new();
        for member in voters.take(MEMBERS_MAX) {
            // The name that the cluster's authority gives a node, and nobody else.
            let name = format!("node-{}.{cluster}.quorate", member.node);
            let node = inner.member(&member.address, &name);
            let node = node.ok_or_else(|| odd("the address of a member is not known yet"))?;
            members.push(Arc::new(Member { node, down_until: Mutex::default() }));
        }
        if members.is_empty() {
            return Err(odd("it has no members"));
        }
        let config = &inner.config;
        let lane = Arc::new(Self {
            cluster,
            group: info.id,
            identity: config.security.identity()?,
            need: byzantine_faults(members.len()) + 1,
            members,
            patience: config.attempt_timeout,
            retry_delay: config.retry_delay_max,
            items_max: config.in_flight_max,
            bytes_max: config.queued_bytes_max,
            state: Mutex::default(),
            arrived: Arc::default(),
        });
        tokio::spawn(make_frames(Arc::downgrade(&lane), Arc::clone(&lane.arrived)));
        Ok(lane)
    }

    /// The members, each authenticated by its name.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.members.iter().map(|member| &member.node)
    }

    /// How many equal answers are believed.
    pub(crate) fn need(&self) -> usize {
        self.need
    }

    /// Queues an item; its answer is what f + 1 members said.
    pub(crate) fn send(&self, item: BatchItem) -> Result<oneshot::Receiver<Answer>, NotQueued> {
        let bytes = item.encoded_len();
        let mut state = self.state();
        if state.queued.len() >= self.items_max || state.bytes + bytes > self.bytes_max {
            return Err(NotQueued::Full);
        }
        let (waiter, receiver) = oneshot::channel();
        state.bytes += bytes;
        state.queued.push_back(Queued { item, waiter });
        drop(state);
        self.arrived.notify_one();
        Ok(receiver)
    }

    /// Sends frames as long as few are under way; until when to wait if there are too many.
    fn send_frames(&self, under_way: &mut VecDeque<(Instant, Arc<Tally>)>) -> Option<Instant> {
        loop {
            let now = Instant::now();
            under_way.retain(|(ends, tally)| !tally.is_done() && *ends > now);
            if under_way.len() >= FRAMES_UNDER_WAY_MAX {
                return under_way.iter().map(|(ends, _)| *ends).min();
            }
            let (items, waiters) = self.next_items()?;
            under_way.push_back((now + self.patience, self.send_frame(items, waiters)));
        }
    }

    fn next_items(&self) -> Option<(Vec<BatchItem>, Vec<oneshot::Sender<Answer>>)> {
        let mut state = self.state();
        let (mut items, mut waiters, mut bytes) = (Vec::new(), Vec::new(), 0);
        while let Some(Queued { item, .. }) = state.queued.front() {
            let more = item.encoded_len();
            if items.len() >= COMMANDS_PER_ENTRY_MAX || !items.is_empty() && bytes + more > FRAME_BYTES {
                break;
            }
            let Some(Queued { item, waiter }) = state.queued.pop_front() else { break };
            bytes += more;
            items.push(item);
            waiters.push(waiter);
        }
        state.bytes -= bytes;
        (!items.is_empty()).then_some((items, waiters))
    }

    fn send_frame(&self, items: Vec<BatchItem>, waiters: Vec<oneshot::Sender<Answer>>) -> Arc<Tally> {
        let is_certified = items.iter().any(BatchItem::needs_certificate);
        let certificate = if is_certified { self.identity.certificate.clone() } else { Bytes::new() };
        let items = Batch { items }.encode();
        let group = GroupId(self.group);
        let frame = sign_frame(self.cluster, group, &self.identity.secret, certificate, items);
        let signed = SignedItems {
            public_key: Bytes::copy_from_slice(&frame.key.0),
            signature: Bytes::copy_from_slice(&frame.signature),
            certificate: frame.certificate,
            items: frame.items,
            tag: 0,
        };
        let count = waiters.len();
        let tally = Arc::new(Tally::new(self.need, self.members.len(), waiters, Arc::clone(&self.arrived)));
        for (at, member) in self.members.iter().enumerate() {
            if member.is_down() {
                tally.lost(at, "a member cannot be reached");
                continue;
            }
            let share = Share {
                tally: Arc::clone(&tally),
                member: at,
                of: Arc::clone(member),
                pause: self.retry_delay,
            };
            if let Err(share) = member.node.link(0).send_signed(self.group, signed.clone(), count, share) {
                share.tally.lost(at, "too much waits for a member");
            }
        }
        tally
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        // Whoever makes frames finds the lane gone.
        self.arrived.notify_one();
    }
}

impl Member {
    fn is_down(&self) -> bool {
        let down_until = self.down_until.lock().unwrap_or_else(PoisonError::into_inner);
        down_until.is_some_and(|until| Instant::now() < until)
    }
}

/// Makes frames of what queues up until the lane is gone.
async fn make_frames(lane: Weak<Lane>, arrived: Arc<Notify>) {
    let mut under_way = VecDeque::new();
    loop {
        arrived.notified().await;
        // Sessions that were answered together submit together: let all of them queue first.
        tokio::task::yield_now().await;
        loop {
            let Some(lane) = lane.upgrade() else { return };
            let Some(ends) = lane.send_frames(&mut under_way) else { break };
            drop(lane);
            // A frame that is answered in the meantime makes room for the next one.
            if timeout_at(ends, arrived.notified()).await.is_ok() {
                tokio::task::yield_now().await;
            }
        }
    }
}

/// What one member says of one frame.
#[derive(Clone, Debug)]
pub(crate) struct Share {
    tally: Arc<Tally>,
    member: usize,
    of: Arc<Member>,
    pause: Duration,
}

impl Share {
    /// The member answered this item.
    pub(crate) fn note(&self, item: usize, kind: reply::Kind) {
        self.tally.note(self.member, item, kind);
    }

    /// The member's link ended.
    pub(crate) fn lost(&self, reason: &str) {
        *self.of.down_until.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Instant::now() + self.pause);
        self.tally.lost(self.member, reason);
    }

    /// The member takes nothing of this client at all.
    pub(crate) fn refused(&self, error: &quorate_proto::v1::Error) {
        for item in 0..self.tally.items {
            self.note(item, reply::Kind::Error(error.clone()));
        }
    }
}

/// What members said of one frame.
#[derive(Debug)]
struct Tally {
    need: usize,
    members: usize,
    items: usize,
    counts: Mutex<Counts>,
    done: AtomicBool,
    arrived: Arc<Notify>,
}

#[derive(Debug)]
struct Counts {
    items: Vec<ItemCount>,
    unsettled: usize,
    /// Members whose links ended.
    lost: Vec<usize>,
}

#[derive(Debug)]
struct ItemCount {
    waiter: Option<oneshot::Sender<Answer>>,
    /// By member, in the order in which they came.
    answers: Vec<(usize, reply::Kind)>,
}

impl Tally {
    fn new(need: usize, members: usize, waiters: Vec<oneshot::Sender<Answer>>, arrived: Arc<Notify>) -> Self {
        let items = waiters.len();
        let count = |waiter| ItemCount { waiter: Some(waiter), answers: Vec::new() };
        let counts =
            Counts { items: waiters.into_iter().map(count).collect(), unsettled: items, lost: Vec::new() };
        Self { need, members, items, counts: Mutex::new(counts), done: AtomicBool::new(false), arrived }
    }

    /// Whether every item has its answer.
    fn is_done(&self) -> bool {
        self.done.load(Ordering::Relaxed)
    }

    fn note(&self, member: usize, item: usize, kind: reply::Kind) {
        let mut counts = self.counts();
        let lost = counts.lost.clone();
        let Some(count) = counts.items.get_mut(item) else { return };
        if count.waiter.is_none() || count.answers.iter().any(|(by, _)| *by == member) {
            return;
        }
        let alike = count.answers.iter().filter(|(_, other)| are_alike(&kind, other)).count() + 1;
        let settled = if alike >= self.need {
            Some(Ok(kind))
        } else {
            count.answers.push((member, kind));
            let silent = |member: &usize| count.answers.iter().all(|(by, _)| by != member);
            let heard = count.answers.len() + lost.iter().filter(|lost| silent(lost)).count();
            (heard >= self.members).then(|| {
                let said: Vec<_> = count.answers.iter().map(|(_, kind)| brief(kind)).collect();
                Err(disagreement(&format!("the members answered differently: {}", said.join(", "))))
            })
        };
        if let Some(answer) = settled {
            self.settle(counts, item, answer);
        }
    }

    fn lost(&self, member: usize, reason: &str) {
        let mut counts = self.counts();
        if counts.lost.contains(&member) {
            return;
        }
        counts.lost.push(member);
        let lost = counts.lost.clone();
        let mut hopeless = Vec::new();
        for (at, count) in counts.items.iter().enumerate() {
            let silent = |member: &&usize| count.answers.iter().all(|(by, _)| by != *member);
            let heard = count.answers.len() + lost.iter().filter(silent).count();
            if count.waiter.is_some() && heard >= self.members {
                hopeless.push(at);
            }
        }
        drop(counts);
        for item in hopeless {
            self.settle(self.counts(), item, Err(disagreement(reason)));
        }
    }

    fn settle(&self, mut counts: MutexGuard<'_, Counts>, item: usize, answer: Answer) {
        let count = &mut counts.items[item];
        count.answers = Vec::new();
        let Some(waiter) = count.waiter.take() else { return };
        counts.unsettled -= 1;
        let is_last = counts.unsettled == 0;
        drop(counts);
        if waiter.send(answer).is_err() {
            tracing::trace!("an answer came after it was given up");
        }
        if is_last {
            self.done.store(true, Ordering::Relaxed);
            self.arrived.notify_one();
        }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn disagreement(reason: &str) -> LinkFault {
    LinkFault { maybe_sent: true, reason: reason.into() }
}

/// An answer in a few words.
fn brief(kind: &reply::Kind) -> String {
    match kind {
        reply::Kind::Done(done) => format!("done at {}", done.index),
        reply::Kind::Rejected(rejected) => format!("rejected at {}", rejected.index),
        reply::Kind::SessionOpened(opened) => format!("session {}", opened.session),
        reply::Kind::Ok(_) => "kept".to_owned(),
        reply::Kind::Error(error) => error.code().as_str_name().to_owned(),
    }
}

/// Whether two members said the same. Errors are told apart by their codes: their texts may name the node.
fn are_alike(one: &reply::Kind, other: &reply::Kind) -> bool {
    match (one, other) {
        (reply::Kind::Error(one), reply::Kind::Error(other)) => one.code == other.code,
        _ => one == other,
    }
}

/// An item as it stands in a signed frame.
pub(crate) fn item_of(kind: submit_item::Kind) -> BatchItem {
    match kind {
        submit_item::Kind::Command(command) => BatchItem::Command(Command {
            session: SessionId(command.session),
            sequence: Sequence(command.sequence),
            acknowledged_below: Sequence(command.acknowledged_below),
            name: command.name,
            body: command.body,
        }),
        submit_item::Kind::OpenSession(open) => {
            let mut client = [0; 16];
            let len = open.client.len().min(client.len());
            client[..len].copy_from_slice(&open.client[..len]);
            BatchItem::OpenSession { client, ttl_ms: open.ttl_ms }
        }
        submit_item::Kind::KeepSession(keep) => BatchItem::KeepSession(SessionId(keep.session)),
        submit_item::Kind::CloseSession(close) => BatchItem::CloseSession(SessionId(close.session)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use quorate_proto::v1::{self, Done, ErrorCode};

    use super::*;

    fn done(body: &'static str, index: u64) -> reply::Kind {
        reply::Kind::Done(Done { body: Bytes::from_static(body.as_bytes()), index })
    }

    fn error(code: ErrorCode, text: &str) -> reply::Kind {
        reply::Kind::Error(v1::Error::new(code, text))
    }

    /// A frame of so many items, of which two of four members must say the same.
    fn tally(items: usize) -> (Tally, Vec<oneshot::Receiver<Answer>>) {
        let (waiters, receivers) = (0..items).map(|_| oneshot::channel()).unzip();
        (Tally::new(2, 4, waiters, Arc::default()), receivers)
    }

    /// What could go wrong: one lying member is believed, alone or by answering often.
    #[test]
    fn an_answer_counts_when_f_plus_one_members_gave_it() {
        let (tally, mut waiting) = tally(2);
        tally.note(0, 0, done("a lie", 3));
        tally.note(0, 0, done("a lie", 3));
        tally.note(1, 0, done("truth", 3));
        tally.note(1, 0, done("truth", 3));
        assert!(waiting[0].try_recv().is_err());
        tally.note(2, 0, done("truth", 4));
        assert!(waiting[0].try_recv().is_err(), "the same at another index is another answer");
        tally.note(3, 0, done("truth", 3));
        assert_eq!(waiting[0].try_recv().unwrap().unwrap(), done("truth", 3));
        assert!(!tally.is_done());
        tally.note(1, 1, error(ErrorCode::Overloaded, "node 1 is busy"));
        tally.note(2, 1, error(ErrorCode::Overloaded, "node 2 is busy"));
        assert!(matches!(waiting[1].try_recv().unwrap().unwrap(), reply::Kind::Error(_)));
        assert!(tally.is_done());
        tally.note(3, 1, done("late", 3));
        tally.note(3, 9, done("of no item", 3));
    }

    /// What could go wrong: a client waits to its deadline for members that cannot agree any more.
    #[test]
    fn what_no_member_can_settle_any_more_is_given_back() {
        let (tally, mut waiting) = tally(2);
        for (member, index) in [(0, 1), (1, 2), (2, 3)] {
            tally.note(member, 0, done("a", index));
        }
        tally.note(3, 0, error(ErrorCode::Overloaded, "node 4 is busy"));
        let fault = waiting[0].try_recv().unwrap().unwrap_err();
        assert!(
            fault.reason.ends_with("done at 1, done at 2, done at 3, ERROR_CODE_OVERLOADED"),
            "{fault:?}"
        );
        tally.note(0, 1, done("a", 1));
        for member in [3, 2, 2, 0] {
            tally.lost(member, "gone");
        }
        assert!(waiting[1].try_recv().is_err(), "member 1 may still answer");
        tally.note(1, 1, done("a", 1));
        assert_eq!(waiting[1].try_recv().unwrap().unwrap(), done("a", 1));
    }
}
