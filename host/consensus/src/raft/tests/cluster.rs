//! A simulated set of replicas: disks that lose what was not flushed, and a network in one's hand.
//!
//! Relies on the replicas' effects alone. Promises that a promise travels only once its token is
//! durable, and that a crash keeps exactly what was flushed. Knows no expectation.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use quorate_crypto::Verified;
use quorate_types::{
    ComponentLimits, Entry, EntryKind, Epoch, EpochConfig, GroupId, GroupKind, HlcTimestamp, Incarnation,
    LogIndex, Member, NodeId, Position, Protocol, Role, Time,
};

use super::super::{Raft, message};
use crate::{
    Effects, Input, Message, Now, Persist, Proposal, ProposalId, SnapshotFetch, SnapshotMark, Start, Status,
    Timings, Token,
};

/// When every clock of the simulation starts, in Unix milliseconds.
const WALL_START_MS: u64 = 1_000_000;

pub(super) const TIMINGS: Timings = Timings {
    heartbeat: Duration::from_millis(10),
    election_timeout: Duration::from_millis(100),
    clock_skew_max: Duration::from_millis(1_000),
};

pub(super) fn member(node: u64, role: Role, priority: u8) -> Member {
    Member { node: NodeId(node), incarnation: Incarnation(1), role, priority, key: None }
}

pub(super) fn config(members: Vec<Member>) -> EpochConfig {
    let first_leader = members.iter().find(|member| member.role == Role::Voter).unwrap().node;
    EpochConfig {
        epoch: Epoch(1),
        kind: GroupKind::Crash,
        protocol: Protocol::Raft,
        members,
        first_leader,
        limits: ComponentLimits::default(),
    }
}

pub(super) fn mark(position: Position, hlc: HlcTimestamp, config: &EpochConfig) -> SnapshotMark {
    SnapshotMark { position, hlc, config: config.clone() }
}

/// What survives a crash.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    pub(super) hard_state: Option<Bytes>,
    pub(super) entries: Vec<Entry>,
    pub(super) mark: SnapshotMark,
    /// The state that the mark stands for: every entry up to it.
    pub(super) state: Vec<Entry>,
}

impl Disk {
    fn store(&mut self, persist: Persist) {
        if persist.reset.is_some() {
            self.entries.clear();
        }
        if let Some(hard_state) = persist.hard_state {
            self.hard_state = Some(hard_state);
        }
        if let Some(first) = persist.entries.first() {
            self.entries.retain(|entry| entry.index() < first.index());
            self.entries.extend(persist.entries);
        }
    }
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) raft: Option<Raft>,
    pub(super) disk: Disk,
    pub(super) unflushed: VecDeque<Persist>,
    held: VecDeque<(Token, NodeId, Message)>,
    durable: Token,
    /// Every entry applied, from the first one of the group.
    pub(super) state: Vec<Entry>,
    pub(super) fetch: Option<SnapshotFetch>,
    pub(super) status: Option<Status>,
    pub(super) wall_ahead_ms: i64,
    /// The last index ever asked to be persisted; shows when a log is cut.
    persisted_last: LogIndex,
}

#[derive(Clone, Debug)]
pub(super) struct Packet {
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    pub(super) message: Message,
}

/// What happened in the whole run.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) conflicts: u64,
    pub(super) installs: u64,
    pub(super) losses: u64,
}

#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) nodes: BTreeMap<NodeId, Node>,
    pub(super) network: VecDeque<Packet>,
    pub(super) config: EpochConfig,
    pub(super) now: Time,
    pub(super) cut: BTreeSet<(NodeId, NodeId)>,
    pub(super) counts: Counts,
    seed: u64,
    starts: u64,
}

impl Cluster {
    pub(super) fn new(config: EpochConfig, seed: u64) -> Self {
        config.validate().unwrap();
        let mark = mark(Position::ZERO, HlcTimestamp::ZERO, &config);
        let node = |member: &Member| {
            let disk = Disk { hard_state: None, entries: Vec::new(), mark: mark.clone(), state: Vec::new() };
            let node = Node {
                raft: None,
                disk,
                unflushed: VecDeque::new(),
                held: VecDeque::new(),
                durable: Token(0),
                state: Vec::new(),
                fetch: None,
                status: None,
                wall_ahead_ms: 0,
                persisted_last: LogIndex::ZERO,
            };
            (member.node, node)
        };
        let nodes = config.members.iter().map(node).collect();
        let mut cluster = Self {
            nodes,
            network: VecDeque::new(),
            config,
            now: Time(1_000_000),
            cut: BTreeSet::new(),
            counts: Counts::default(),
            seed,
            starts: 0,
        };
        cluster.ids().into_iter().for_each(|node| cluster.start(node));
        cluster
    }

    pub(super) fn ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    pub(super) fn node(&self, node: NodeId) -> &Node {
        &self.nodes[&node]
    }

    pub(super) fn raft(&self, node: NodeId) -> &Raft {
        self.nodes[&node].raft.as_ref().unwrap()
    }

    pub(super) fn is_up(&self, node: NodeId) -> bool {
        self.nodes[&node].raft.is_some()
    }

    fn clock(&self, node: NodeId) -> Now {
        let ms = (WALL_START_MS + self.now.0 / 1_000).saturating_add_signed(self.nodes[&node].wall_ahead_ms);
        Now { time: self.now, wall: HlcTimestamp::from_unix_ms(ms) }
    }

    pub(super) fn start(&mut self, id: NodeId) {
        let now = self.clock(id);
        self.starts += 1;
        let seed = self.seed.wrapping_add(self.starts << 20);
        let node = self.nodes.get_mut(&id).unwrap();
        let start = Start {
            group: GroupId(1),
            node: id,
            seed,
            timings: TIMINGS,
            base: node.disk.mark.clone(),
            content: None,
            hard_state: node.disk.hard_state.clone(),
            entries: node.disk.entries.clone(),
        };
        node.persisted_last = node.disk.entries.last().map_or(node.disk.mark.position.index, Entry::index);
        node.state = node.disk.state.clone();
        node.raft = Some(Raft::start(start, now).unwrap());
    }

    /// Loses everything that was not flushed.
    pub(super) fn crash(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).unwrap();
        self.counts.losses += u64::from(node.unflushed.iter().any(|persist| !persist.entries.is_empty()));
        node.raft = None;
        node.unflushed.clear();
        node.held.clear();
        node.durable = Token(0);
        node.fetch = None;
        node.status = None;
    }

    /// Steps a replica that is up and files its effects; what they were.
    pub(super) fn step(&mut self, id: NodeId, input: Input) -> Effects {
        let now = self.clock(id);
        let node = self.nodes.get_mut(&id).unwrap();
        let effects = node.raft.as_mut().unwrap().step(now, input);
        let asked = effects.clone();
        if let Some(persist) = effects.persist {
            if let (Some(first), Some(last)) = (persist.entries.first(), persist.entries.last()) {
                self.counts.conflicts += u64::from(first.index() <= node.persisted_last);
                node.persisted_last = last.index();
            }
            node.unflushed.push_back(persist);
        }
        for outgoing in effects.messages {
            let (to, message, after) = outgoing.into_parts();
            match after.filter(|token| *token > node.durable) {
                Some(token) => node.held.push_back((token, to, message)),
                None => self.network.push_back(Packet { from: id, to, message }),
            }
        }
        for committed in effects.deliver {
            assert_eq!(
                committed.entry.index().0,
                node.state.len() as u64 + 1,
                "{id} delivers in order, once"
            );
            node.state.push(committed.entry);
        }
        node.fetch = effects.fetch.or(node.fetch);
        if let Some(status) = effects.status {
            node.status = Some(status);
        }
        asked
    }

    /// Makes the oldest persist request durable; what that led to, if there was one.
    pub(super) fn flush_one(&mut self, id: NodeId) -> Option<(Token, Effects)> {
        let node = self.nodes.get_mut(&id).unwrap();
        let persist = node.unflushed.pop_front()?;
        let token = persist.token;
        node.disk.store(persist);
        node.durable = token;
        while let Some((_, to, message)) = node.held.pop_front_if(|(after, _, _)| *after <= token) {
            self.network.push_back(Packet { from: id, to, message });
        }
        Some((token, self.step(id, Input::Persisted(token))))
    }

    /// Hands a message over, unless the link is cut or the receiver is down.
    pub(super) fn hand_over(&mut self, packet: Packet) -> Option<Effects> {
        let Packet { from, to, message } = packet;
        if self.cut.contains(&(from, to)) || !self.is_up(to) {
            return None;
        }
        Some(self.step(to, Input::Message(Verified::from_authenticated_peer(from, message))))
    }

    pub(super) fn propose(&mut self, id: NodeId, serial: u64, body: &str) -> Effects {
        let body = Bytes::copy_from_slice(body.as_bytes());
        self.step(id, Input::Propose(Proposal { id: ProposalId(serial), kind: EntryKind::Batch, body }))
    }

    /// Takes a durable snapshot of what is applied up to `index`, then lets the log go before `keep`.
    pub(super) fn compact(&mut self, id: NodeId, index: LogIndex, keep_from: LogIndex) -> Effects {
        let config = self.config.clone();
        let node = self.nodes.get_mut(&id).unwrap();
        let state = node.state[..usize::try_from(index.0).unwrap()].to_vec();
        let last = state.last().unwrap();
        let mark = mark(last.position, last.hlc, &config);
        node.disk.state = state;
        node.disk.mark = mark.clone();
        let effects = self.step(id, Input::Compact { mark, content: None, keep_from });
        let node = self.nodes.get_mut(&id).unwrap();
        let kept = keep_from.min(index.next());
        // The log takes its work in order: nothing is released before what was asked for earlier.
        if node.unflushed.is_empty() {
            node.disk.entries.retain(|entry| entry.index() >= kept);
        }
        effects
    }

    /// Fetches what was asked for from the one that offered it, if that is still to be had.
    pub(super) fn install(&mut self, id: NodeId) -> Option<Effects> {
        let fetch = self.nodes.get_mut(&id).unwrap().fetch.take()?;
        let source = &self.nodes[&fetch.from].disk;
        let (mark, state) = (source.mark.clone(), source.state.clone());
        let node = self.nodes.get_mut(&id).unwrap();
        let usable = mark.position.index >= fetch.position.index
            && mark.position.index.0 > node.state.len() as u64
            && !self.cut.contains(&(fetch.from, id));
        if !usable {
            return Some(self.step(id, Input::SnapshotFailed(fetch.position)));
        }
        node.disk.state = state.clone();
        node.disk.mark = mark.clone();
        node.state = state;
        self.counts.installs += 1;
        Some(self.step(id, Input::SnapshotInstalled(mark)))
    }

    /// The next time a replica wants a tick, and which.
    pub(super) fn next_tick(&self) -> Option<(Time, NodeId)> {
        let due = |(id, node): (&NodeId, &Node)| Some((node.raft.as_ref()?.next_deadline()?, *id));
        self.nodes.iter().filter_map(due).min()
    }

    /// Flushes and hands over until nothing is under way.
    pub(super) fn settle(&mut self) {
        loop {
            let mut idle = true;
            for id in self.ids() {
                while self.flush_one(id).is_some() {
                    idle = false;
                }
            }
            while let Some(packet) = self.network.pop_front() {
                self.hand_over(packet);
                idle = false;
            }
            if idle {
                return;
            }
        }
    }

    /// Lets time pass with everything carried out at once.
    pub(super) fn run(&mut self, span: Duration) {
        let end = self.now.after(span);
        self.settle();
        while let Some((due, id)) = self.next_tick().filter(|(due, _)| *due <= end) {
            self.now = self.now.max(due);
            self.step(id, Input::Tick);
            self.settle();
        }
        self.now = end;
    }
}

/// A message as a script shows it; positions as term/index.
pub(super) fn show(message: &Message) -> String {
    use message::{Body, Pledge, Statement};
    let Message::Raft(message) = message else { panic!("not of this protocol") };
    let at = |position: &Position| format!("{}/{}", position.term.0, position.index.0);
    let what = match &message.body {
        Body::Statement(Statement::PreVote { last }) => format!("pre-vote last {}", at(last)),
        Body::Statement(Statement::PreVoteGranted) => "pre-vote granted".to_owned(),
        Body::Statement(Statement::Refused) => "refused".to_owned(),
        Body::Statement(Statement::Append { prev, commit, entries }) => {
            let entries: Vec<_> = entries.iter().map(|entry| at(&entry.position)).collect();
            format!("append after {} commit {} [{}]", at(prev), commit.0, entries.join(" "))
        }
        Body::Statement(Statement::AppendRefused { prev, hint }) => {
            format!("append refused after {} hint {}", prev.0, at(hint))
        }
        Body::Statement(Statement::StampRefused { index }) => format!("stamp refused at {}", index.0),
        Body::Statement(Statement::Heartbeat { commit, round }) => {
            format!("heartbeat commit {} round {}", commit.0, round.0)
        }
        Body::Statement(Statement::HeartbeatAck { round }) => format!("heartbeat ack round {}", round.0),
        Body::Statement(Statement::SnapshotOffer { mark }) => {
            format!("snapshot offer {}", at(&mark.position))
        }
        Body::Statement(Statement::TimeoutNow) => "time out now".to_owned(),
        Body::Pledge(Pledge::Candidacy { last, transfer }) => {
            format!("candidacy last {}{}", at(last), if *transfer { " by transfer" } else { "" })
        }
        Body::Pledge(Pledge::Vote) => "vote".to_owned(),
        Body::Pledge(Pledge::AppendAck { matched }) => format!("append ack {}", matched.0),
    };
    format!("t{} {what}", message.term.0)
}
