//! A client: opens a session, keeps commands under way, submits again under the same number until each
//! has its outcome, and asks queries in between.
//!
//! Relies on a seed and on being woken. Promises that a number stands for one command, that numbers are
//! acknowledged only after their outcomes arrived, and one outcome for each. Knows no state machine:
//! commands come from the workload.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use quorate_node::driver::{Failure, Reply};
use quorate_types::{BatchItem, Command, GroupId, LogIndex, NodeId, Outcome, Sequence, SessionId, Time};

use crate::random::Random;
use crate::workload::Workload;

/// Commands one client has under way at most.
const WINDOW: usize = 6;
/// How long sessions live without a sign of life: longer than any run, so that none expires.
const TTL_MS: u32 = 86_400_000;
/// After this a client takes a request for lost.
const PATIENCE: (u64, u64) = (60_000, 220_000);
/// Stands for the request that opens the session, or that activates the component.
pub const OPENING: Sequence = Sequence(0);

/// A request to a node.
#[derive(Clone, Debug)]
pub enum Request {
    /// Items, each with its number.
    Submit(Vec<(BatchItem, Sequence)>),
    /// A linearizable query, by number.
    Query {
        /// Tells the answers of different queries apart.
        number: u64,
        /// The query's name.
        name: String,
        /// Its arguments.
        body: Bytes,
    },
}

/// What a client learned.
#[derive(Clone, Debug)]
pub enum Learned {
    /// The outcome of a command.
    Acknowledged {
        /// The session.
        session: SessionId,
        /// The command's number.
        sequence: Sequence,
        /// The outcome.
        outcome: Outcome,
        /// The entry that gave it.
        index: LogIndex,
    },
    /// What the client opened or activated is in force.
    Opened {
        /// The outcome.
        outcome: Outcome,
    },
    /// The answer to a query.
    Answered {
        /// The answer's body.
        outcome: Outcome,
        /// The state it was read from.
        index: LogIndex,
        /// What had been acknowledged by anyone when it was asked.
        floor: Floor,
    },
}

/// What must be visible to a query that is asked now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Floor {
    /// The greatest index of an entry whose outcome was acknowledged, or that a query has read.
    pub index: LogIndex,
}

#[derive(Debug)]
struct Pending {
    item: BatchItem,
    /// When to submit it again; at once if it was never submitted.
    due: Time,
    /// Submitted, and nothing was heard since.
    awaited: bool,
}

impl Pending {
    fn new(item: BatchItem, due: Time) -> Self {
        Self { item, due, awaited: false }
    }
}

#[derive(Debug)]
struct PendingQuery {
    number: u64,
    floor: Floor,
    /// Each attempt asks anew; its answer may be older than that of none before.
    due: Time,
}

/// What a client does all day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// New commands whenever there is room.
    Busy,
    /// Only what is under way.
    Finishing,
}

/// A client of one group.
#[derive(Debug)]
pub struct Client {
    id: u32,
    group: GroupId,
    nodes: Vec<NodeId>,
    random: Random,
    workload: Workload,
    guess: usize,
    session: Option<SessionId>,
    opening: Option<Pending>,
    next: Sequence,
    pending: BTreeMap<Sequence, Pending>,
    query: Option<PendingQuery>,
    queries: u64,
    mode: Mode,
    /// No new command before this.
    think_until: Time,
}

impl Client {
    /// A client that opens a session of its own.
    #[must_use]
    pub fn new(id: u32, group: GroupId, nodes: Vec<NodeId>, mut random: Random) -> Self {
        let mut name = [0; 16];
        name[..4].copy_from_slice(&id.to_le_bytes());
        name[8..].copy_from_slice(&random.next().to_le_bytes());
        let workload = Workload::new(id, random.fork());
        let guess = random.below(nodes.len() as u64) as usize;
        let open = BatchItem::OpenSession { client: name, ttl_ms: TTL_MS };
        Self {
            id,
            group,
            nodes,
            random,
            workload,
            guess,
            session: None,
            opening: Some(Pending::new(open, Time(0))),
            next: Sequence(1),
            pending: BTreeMap::new(),
            query: None,
            queries: 0,
            mode: Mode::Busy,
            think_until: Time(0),
        }
    }

    /// A client that does one thing, such as activating a component, and then nothing.
    #[must_use]
    pub fn once(id: u32, group: GroupId, nodes: Vec<NodeId>, random: Random, item: BatchItem) -> Self {
        let opening = Some(Pending::new(item, Time(0)));
        Self { opening, mode: Mode::Finishing, ..Self::new(id, group, nodes, random) }
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The group it talks to.
    #[must_use]
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// Changes what it does.
    pub fn set_mode(&mut self, mode: Mode) {
        self.mode = mode;
    }

    /// Whether nothing is under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.opening.is_none() && self.pending.is_empty() && self.query.is_none()
    }

    /// The session, once it is open.
    #[must_use]
    pub fn session(&self) -> Option<SessionId> {
        self.session
    }

    /// Makes one command now, whatever the mode; returns its number. `None` before the session is open.
    pub fn command_now(&mut self, now: Time) -> Option<Sequence> {
        let session = self.session?;
        let sequence = self.next;
        self.next = sequence.next();
        let below = self.pending.keys().next().copied().unwrap_or(sequence);
        let (name, body) = self.workload.command();
        let command = Command { session, sequence, acknowledged_below: below, name, body };
        self.pending.insert(sequence, Pending::new(BatchItem::Command(command), now));
        Some(sequence)
    }

    /// What to send now and to whom, and when to wake it next. `floor` is what a query asked now must
    /// see.
    pub fn wake(&mut self, now: Time, floor: Floor) -> (Vec<(NodeId, Request)>, Time) {
        let mut requests = Vec::new();
        if self.mode == Mode::Busy && self.session.is_some() && now >= self.think_until {
            self.make_commands(now);
        }
        let due = self.take_due(now);
        if !due.is_empty() {
            requests.push((self.nodes[self.guess], Request::Submit(due)));
        }
        if let Some(request) = self.ask(now, floor) {
            requests.push((self.nodes[self.guess], request));
        }
        (requests, self.next_wake(now))
    }

    /// Takes a node's reply to an item; `None` if it was answered before or is to be tried again.
    pub fn reply(&mut self, now: Time, sequence: Sequence, reply: Reply) -> Option<Learned> {
        if sequence != OPENING && !self.pending.contains_key(&sequence) {
            return None;
        }
        match reply {
            Reply::Outcome { outcome, .. } if sequence == OPENING => {
                let pending = self.opening.take()?;
                if matches!(pending.item, BatchItem::OpenSession { .. })
                    && let Outcome::Done(body) = &outcome
                {
                    let number: [u8; 8] = body.as_ref().try_into().ok()?;
                    self.session = Some(SessionId(u64::from_le_bytes(number)));
                }
                Some(Learned::Opened { outcome })
            }
            Reply::Outcome { outcome, index } => {
                self.pending.remove(&sequence)?;
                Some(Learned::Acknowledged { session: self.session?, sequence, outcome, index })
            }
            Reply::Failed(failure) => {
                let due = self.after_failure(now, &failure);
                let pending =
                    if sequence == OPENING { self.opening.as_mut() } else { self.pending.get_mut(&sequence) };
                if let Some(pending) = pending {
                    pending.due = due;
                    pending.awaited = false;
                }
                None
            }
            _ => None,
        }
    }

    /// Takes a node's reply to a query; `None` unless it answers the one asked last.
    pub fn answer(&mut self, now: Time, number: u64, reply: Reply) -> Option<Learned> {
        if self.query.as_ref()?.number != number {
            return None;
        }
        match reply {
            Reply::Answer(answer) => {
                let floor = self.query.take()?.floor;
                Some(Learned::Answered { outcome: answer.outcome, index: answer.index, floor })
            }
            Reply::Failed(failure) => {
                let due = self.after_failure(now, &failure);
                if let Some(query) = self.query.as_mut() {
                    query.due = due;
                }
                None
            }
            _ => None,
        }
    }

    fn make_commands(&mut self, now: Time) {
        let room = (WINDOW - self.pending.len().min(WINDOW)) as u64;
        for _ in 0..self.random.between(1, 4).min(room) {
            self.command_now(now);
        }
        self.think_until = now.after(Duration::from_micros(self.random.between(500, 12_000)));
    }

    fn take_due(&mut self, now: Time) -> Vec<(BatchItem, Sequence)> {
        let patience = self.patience(now);
        let opening = self.opening.iter_mut().map(|opening| (OPENING, opening));
        let pending = self.pending.iter_mut().map(|(sequence, pending)| (*sequence, pending));
        let mut silent = false;
        let mut due = Vec::new();
        for (sequence, pending) in opening.chain(pending).filter(|(_, pending)| pending.due <= now) {
            silent |= pending.awaited;
            pending.due = patience;
            pending.awaited = true;
            due.push((pending.item.clone(), sequence));
        }
        // A node that does not answer may be gone.
        if silent && self.random.chance(700) {
            self.guess = (self.guess + 1) % self.nodes.len();
        }
        due
    }

    fn ask(&mut self, now: Time, floor: Floor) -> Option<Request> {
        let wants = self.mode == Mode::Busy && self.session.is_some() && self.random.chance(100);
        let again = self.query.as_ref().is_some_and(|query| query.due <= now);
        if !again && (self.query.is_some() || !wants) {
            return None;
        }
        self.queries += 1;
        let number = self.queries;
        self.query = Some(PendingQuery { number, floor, due: self.patience(now) });
        let (name, body) = self.workload.query();
        Some(Request::Query { number, name, body })
    }

    /// Turns to another node where that helps, and says when to try again.
    fn after_failure(&mut self, now: Time, failure: &Failure) -> Time {
        let wait = match failure {
            Failure::NotLeader { leader: Some(leader) } => {
                match self.nodes.iter().position(|node| node == leader) {
                    // A stale hint must not send it to and fro at once.
                    Some(at) if at != self.guess => {
                        self.guess = at;
                        self.random.between(100, 2_000)
                    }
                    _ => self.random.between(2_000, 10_000),
                }
            }
            Failure::LeadershipLost | Failure::Overloaded => self.random.between(1_000, 10_000),
            _ => {
                // By chance: as many refusals as there are nodes would lead from each to the next and back here.
                self.guess = self.random.below(self.nodes.len() as u64) as usize;
                self.random.between(2_000, 15_000)
            }
        };
        now.after(Duration::from_micros(wait))
    }

    fn patience(&mut self, now: Time) -> Time {
        now.after(Duration::from_micros(self.random.between(PATIENCE.0, PATIENCE.1)))
    }

    fn next_wake(&mut self, now: Time) -> Time {
        let due = self.pending.values().chain(&self.opening).map(|pending| pending.due);
        let due = due.chain(self.query.as_ref().map(|query| query.due)).min();
        let work = (self.mode == Mode::Busy && self.session.is_some() && self.pending.len() < WINDOW)
            .then_some(self.think_until.max(Time(now.0 + 500)));
        let idle = now.after(Duration::from_millis(20));
        due.into_iter().chain(work).min().unwrap_or(idle).max(Time(now.0 + 1))
    }
}
