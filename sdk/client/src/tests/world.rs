//! A cluster of three nodes with one group, as far as a client can tell: sessions as the host keeps them,
//! one leader, and a script of what goes wrong with which command.
//!
//! Relies on the generated service. Promises that what it records as applied is what a correct group would
//! have applied. Knows no consensus: leadership is what the test says.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use quorate_proto::v1::admin_server::AdminServer;
use quorate_proto::v1::client_server::{self, ClientServer};
use quorate_proto::v1::*;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::network::{Network, PortState};

pub(super) const GROUP: u64 = 7;

/// What happens to the next command that reaches the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Applied and answered.
    Answer,
    /// Applied; the reply is lost.
    LoseReply,
    /// Lost before it is applied.
    LoseCommand,
    /// Applied; then the stream breaks.
    ApplyAndBreak,
    /// The stream breaks.
    Break,
    /// Applied and answered twice.
    AnswerTwice,
    /// Applied; the node says that it lost its leadership.
    ApplyAndError(ErrorCode),
    /// Not applied; the node gives this error.
    Error(ErrorCode),
    /// Applied, and refused by the host with this code.
    HostRejects(u32),
    /// Applied, and refused by the component.
    Reject,
    /// A reply without content, and one with a tag that nobody uses.
    Garbage,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) leader: Option<usize>,
    pub(super) term: u64,
    /// What followers name as leader instead of the truth.
    pub(super) false_hint: Option<usize>,
    /// Nodes that clients are told to reach elsewhere.
    pub(super) relayed: HashMap<usize, String>,
    pub(super) script: VecDeque<Act>,
    /// In order: session, sequence, name.
    pub(super) applied: Vec<(u64, u64, String)>,
    /// Commands that reached some node.
    pub(super) arrived: usize,
    /// Items of every frame that reached some node.
    pub(super) frames: Vec<usize>,
    pub(super) kept: usize,
    pub(super) closed: Vec<u64>,
    /// `Resolve` calls.
    pub(super) resolved: usize,
    /// Queries by node.
    pub(super) queried: Vec<usize>,
    /// Errors for the next queries.
    pub(super) query_script: VecDeque<ErrorCode>,
    /// Requests of every watch.
    pub(super) watched: Vec<WatchRequest>,
    /// What the next watches tell before they end.
    pub(super) watch_script: VecDeque<Vec<watch_event::Kind>>,
    /// Nodes that were asked to create a group.
    pub(super) created: Vec<usize>,
    /// Sizes of the chunks of the last pushed component.
    pub(super) chunks: Vec<usize>,
    sessions: BTreeMap<u64, BTreeMap<u64, Bytes>>,
    acknowledged: BTreeMap<u64, u64>,
    clients: BTreeMap<Bytes, u64>,
    next_session: u64,
    index: u64,
}

/// The cluster.
#[derive(Clone)]
pub(super) struct World {
    state: Arc<Mutex<State>>,
    network: Network,
}

#[derive(Clone)]
pub(super) struct FakeNode {
    pub(super) world: World,
    pub(super) me: usize,
}

impl World {
    /// Three nodes; the first one leads.
    pub(super) fn new() -> Self {
        let state = State { leader: Some(0), term: 1, ..State::default() };
        let world = Self { state: Arc::new(Mutex::new(state)), network: Network::default() };
        for me in 0..3 {
            world.start(me);
        }
        world
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn network(&self) -> &Network {
        &self.network
    }

    pub(super) fn addresses(&self) -> Vec<String> {
        (0..3).map(address).collect()
    }

    pub(super) fn script(&self, acts: impl IntoIterator<Item = Act>) {
        self.state().script.extend(acts);
    }

    /// Another node, or nobody, leads in the next term.
    pub(super) fn elect(&self, leader: Option<usize>) {
        let mut state = self.state();
        state.term += 1;
        state.leader = leader;
    }

    /// The node is gone, with all its connections.
    pub(super) fn kill(&self, node: usize) {
        self.network.cut(&address(node), PortState::Down);
    }

    /// Nothing comes from the node any more, and nothing ends.
    pub(super) fn silence(&self, node: usize) {
        self.network.cut(&address(node), PortState::Silent);
    }

    pub(super) fn start(&self, me: usize) {
        let accepted = self.network.listen(&address(me));
        let service = ClientServer::new(FakeNode { world: self.clone(), me });
        let admin = AdminServer::new(FakeNode { world: self.clone(), me });
        let incoming = UnboundedReceiverStream::new(accepted);
        let server = tonic::transport::Server::builder().add_service(service).add_service(admin);
        tokio::spawn(server.serve_with_incoming(incoming));
    }

    /// Every command was applied exactly once.
    pub(super) fn assert_once(&self, names: impl IntoIterator<Item = u64>) {
        let mut applied: Vec<_> = self.state().applied.iter().map(|(_, _, name)| name.clone()).collect();
        applied.sort();
        let mut wanted: Vec<_> = names.into_iter().map(|number| format!("c{number}")).collect();
        wanted.sort();
        assert_eq!(applied, wanted);
    }
}

pub(super) fn address(node: usize) -> String {
    format!("node-{node}:7101")
}

impl State {
    pub(super) fn hint(&self) -> Option<LeaderHint> {
        let node = self.false_hint.or(self.leader)?;
        Some(LeaderHint { node: node as u64 + 1, address: self.reached(node), term: self.term })
    }

    /// Where clients are told to reach a node.
    fn reached(&self, node: usize) -> String {
        self.relayed.get(&node).cloned().unwrap_or_else(|| address(node))
    }

    fn info(&self, me: usize) -> GroupInfo {
        let leader = match self.leader {
            Some(leader) if leader == me => {
                Some(LeaderHint { node: me as u64 + 1, address: self.reached(me), term: self.term })
            }
            _ => self.hint(),
        };
        let member = |node| GroupMember { node: node as u64 + 1, address: self.reached(node), role: 1 };
        GroupInfo {
            id: GROUP,
            name: "ledger".into(),
            members: (0..3).map(member).collect(),
            leader,
            node: me as u64 + 1,
            ..GroupInfo::default()
        }
    }

    /// As the host's session table does it.
    fn apply(&mut self, command: Command) -> reply::Kind {
        let Command { session, sequence, acknowledged_below, name, .. } = command;
        let Some(outcomes) = self.sessions.get_mut(&session) else { return error(ErrorCode::SessionExpired) };
        assert!(acknowledged_below <= sequence, "a command acknowledges itself");
        let acknowledged = self.acknowledged.entry(session).or_insert(1);
        *acknowledged = (*acknowledged).max(acknowledged_below);
        if sequence < *acknowledged {
            return error(ErrorCode::SequenceStale);
        }
        *outcomes = outcomes.split_off(acknowledged);
        assert!(outcomes.len() <= 1_024, "the window is too large");
        self.index += 1;
        let applied = &mut self.applied;
        let body = outcomes.entry(sequence).or_insert_with(|| {
            applied.push((session, sequence, name.clone()));
            Bytes::from(name)
        });
        reply::Kind::Done(Done { body: body.clone(), index: self.index })
    }

    /// The replies to one item; none at all if the stream breaks.
    fn take(&mut self, item: SubmitItem) -> Option<Vec<Reply>> {
        let tag = item.tag;
        let one = |kind| Some(vec![Reply { tag, kind: Some(kind) }]);
        match item.kind.unwrap() {
            submit_item::Kind::Command(command) => self.take_command(tag, command),
            submit_item::Kind::OpenSession(open) => {
                assert_eq!(open.client.len(), 16);
                let next = &mut self.next_session;
                let session = *self.clients.entry(open.client).or_insert_with(|| {
                    *next += 1;
                    *next
                });
                self.sessions.entry(session).or_default();
                one(reply::Kind::SessionOpened(SessionOpened { session }))
            }
            submit_item::Kind::KeepSession(keep) => {
                self.kept += 1;
                if self.sessions.contains_key(&keep.session) {
                    one(reply::Kind::Ok(Acknowledgement {}))
                } else {
                    one(error(ErrorCode::SessionExpired))
                }
            }
            submit_item::Kind::CloseSession(close) => {
                self.sessions.remove(&close.session);
                self.closed.push(close.session);
                one(reply::Kind::Ok(Acknowledgement {}))
            }
        }
    }

    fn take_command(&mut self, tag: u64, command: Command) -> Option<Vec<Reply>> {
        let reply = |kind| Reply { tag, kind: Some(kind) };
        match self.script.pop_front().unwrap_or(Act::Answer) {
            Act::Answer => Some(vec![reply(self.apply(command))]),
            Act::LoseReply => {
                self.apply(command);
                Some(Vec::new())
            }
            Act::LoseCommand => Some(Vec::new()),
            Act::ApplyAndBreak => {
                self.apply(command);
                None
            }
            Act::Break => None,
            Act::AnswerTwice => {
                let kind = self.apply(command);
                Some(vec![reply(kind.clone()), reply(kind)])
            }
            Act::ApplyAndError(code) => {
                self.apply(command);
                Some(vec![reply(error(code))])
            }
            Act::Error(code) => Some(vec![reply(error(code))]),
            Act::HostRejects(code) => {
                let rejected = Rejected { code, name: "host".into(), message: "no".into(), index: 1 };
                Some(vec![reply(reply::Kind::Rejected(rejected))])
            }
            Act::Reject => {
                self.apply(command);
                let name = "insufficient-funds".to_owned();
                let rejected = Rejected { code: 100, name, message: "no".into(), index: 1 };
                Some(vec![reply(reply::Kind::Rejected(rejected))])
            }
            Act::Garbage => {
                let stray = Reply { tag: u64::MAX, kind: Some(reply::Kind::Ok(Acknowledgement {})) };
                Some(vec![stray, Reply { tag, kind: None }])
            }
        }
    }

    /// Ends a session as its lifetime would.
    pub(super) fn expire(&mut self, session: u64) {
        self.sessions.remove(&session).unwrap();
    }
}

fn error(code: ErrorCode) -> reply::Kind {
    reply::Kind::Error(Error::new(code, "by script"))
}

impl FakeNode {
    /// Replies to a frame, or ends the stream.
    fn frame(&self, frame: SubmitFrame, out: &mpsc::UnboundedSender<Result<ReplyFrame, Status>>) -> bool {
        assert_eq!(frame.group, GROUP);
        let mut replies = Vec::new();
        let mut state = self.world.state();
        state.frames.push(frame.items.len());
        for item in frame.items {
            state.arrived += usize::from(matches!(item.kind, Some(submit_item::Kind::Command(_))));
            if state.leader != Some(self.me) {
                let kind = reply::Kind::Error(Error::not_leader(state.hint()));
                replies.push(Reply { tag: item.tag, kind: Some(kind) });
                continue;
            }
            match state.take(item) {
                Some(more) => replies.extend(more),
                None => return false,
            }
        }
        out.send(Ok(ReplyFrame { replies, ended: None })).is_ok()
    }
}

type Boxed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl client_server::Client for FakeNode {
    type SubmitStream = Boxed<ReplyFrame>;
    type WatchStream = Boxed<WatchEvent>;

    async fn submit(
        &self,
        request: Request<Streaming<SubmitFrame>>,
    ) -> Result<Response<Self::SubmitStream>, Status> {
        let (out, replies) = mpsc::unbounded_channel();
        let (node, mut inbound) = (self.clone(), request.into_inner());
        tokio::spawn(async move {
            while let Ok(Some(frame)) = inbound.message().await {
                if !node.frame(frame, &out) {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(replies))))
    }

    async fn query(&self, request: Request<QueryRequest>) -> Result<Response<QueryReply>, Status> {
        let request = request.into_inner();
        let mut state = self.world.state();
        state.queried.push(self.me);
        if let Some(code) = state.query_script.pop_front() {
            return Err(Error::new(code, "by script").into());
        }
        let linearizable = matches!(request.consistency, Some(query_request::Consistency::Linearizable(_)));
        if linearizable && state.leader != Some(self.me) {
            return Err(Error::not_leader(state.hint()).into());
        }
        let rejected = (request.name == "refused").then(|| Rejected { code: 101, ..Rejected::default() });
        let (index, node) = (state.index, self.me as u64 + 1);
        Ok(Response::new(QueryReply { body: request.body, index, node, rejected, ..QueryReply::default() }))
    }

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let mut state = self.world.state();
        state.watched.push(request.into_inner());
        match state.watch_script.pop_front() {
            Some(kinds) => {
                let events = kinds.into_iter().map(|kind| Ok(WatchEvent { kind: Some(kind) }));
                Ok(Response::new(Box::pin(tokio_stream::iter(events.collect::<Vec<_>>()))))
            }
            None => Err(Error::new(ErrorCode::Unavailable, "nothing more").into()),
        }
    }

    async fn resolve(&self, request: Request<ResolveRequest>) -> Result<Response<GroupInfo>, Status> {
        let mut state = self.world.state();
        state.resolved += 1;
        match request.into_inner().group {
            Some(resolve_request::Group::Name(name)) if name == "ledger" => {}
            Some(resolve_request::Group::Id(0 | GROUP)) => {}
            _ => return Err(Error::new(ErrorCode::UnknownGroup, "no such group; list the groups").into()),
        }
        Ok(Response::new(state.info(self.me)))
    }
}
