//! The route of a group: who leads it, and finding out again.
//!
//! Relies on `Resolve`, which every node answers from memory. Promises one search at a time for all
//! sessions of a group, that a hint is tried before anything else, that old hints do not undo newer
//! knowledge, and that waiting for a new leader costs little more than its election. Knows no command.
//!
//! ```text
//!              wrong (with a newer hint: stay, at the hinted node)
//!   +-------+ ----------------------------------------------------> +---------+
//!   | known |                                                       | unknown | --.  search: ask all
//!   +-------+ <---------------------------------------------------- +---------+ <-'  nodes at once,
//!                       some node says that it leads                                 then wait
//! ```

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quorate_proto::v1::client_client::ClientClient;
use quorate_proto::v1::{ErrorCode, GroupInfo, LeaderHint, ResolveRequest, resolve_request};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::client::Inner;
use crate::error::Error;
use crate::node::Node;
use crate::verdict::{Judgement, Verdict, judge_status};

/// How long all nodes may take to answer a search.
const SEARCH_TIMEOUT: Duration = Duration::from_millis(500);
/// How long the others may take once one has answered: a stopped node must not delay the search.
const STRAGGLER_TIMEOUT: Duration = Duration::from_millis(50);
/// Hints that are followed in a row before a search; more would be two nodes pointing at each other.
const HINTS_IN_A_ROW_MAX: u32 = 3;
/// The most members that are remembered; the greatest group.
const MEMBERS_MAX: usize = 128;

/// Where commands of a group go.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) node: Arc<Node>,
    /// Which knowledge this is; names it when it turns out wrong.
    pub(crate) generation: u64,
}

/// Why there is no leader to send to.
#[derive(Debug)]
pub(crate) enum Lost {
    /// The deadline passed; what the last search met.
    Deadline(String),
    /// Searching further would not help.
    Final(Error),
}

/// The route of one group.
#[derive(Debug)]
pub(crate) struct Route {
    group: u64,
    state: Mutex<State>,
    /// Held by whoever searches.
    search: tokio::sync::Mutex<()>,
    /// Whether anything failed since the last success; spares the lock on the way of every command.
    troubled: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    leader: Option<Arc<Node>>,
    /// Raised whenever `leader` changes.
    generation: u64,
    /// The greatest term of a leader heard of.
    term: u64,
    /// Addresses of the members.
    members: Vec<String>,
    /// Since when nothing succeeded.
    lost_since: Option<Instant>,
    /// Hints followed since the last search or success.
    hints: u32,
    /// Searches since the last success.
    searches: u32,
    /// Why the leader before was given up.
    reason: String,
}

/// What a search gave.
enum Found {
    Leader(Arc<Node>, u64),
    Nobody(String),
    Final(Error),
}

impl Route {
    pub(crate) fn new(group: u64) -> Self {
        Self {
            group,
            state: Mutex::default(),
            search: tokio::sync::Mutex::default(),
            troubled: AtomicBool::new(false),
        }
    }

    /// Remembers what a node knows of the group.
    pub(crate) fn learn(&self, inner: &Inner, info: &GroupInfo) {
        let mut state = self.state();
        state.learn_members(info);
        if state.leader.is_none()
            && let Some(hint) = &info.leader
            && hint.term >= state.term
            && let Some(node) = inner.node(&hint.address)
        {
            state.set_leader(node, hint.term);
        }
    }

    /// Addresses of the members, the leader's first; may be empty.
    pub(crate) fn members(&self) -> Vec<String> {
        let state = self.state();
        let leader = state.leader.iter().map(|node| node.address().to_owned());
        let mut addresses: Vec<_> = leader.chain(state.members.iter().cloned()).collect();
        let mut seen = std::collections::BTreeSet::new();
        addresses.retain(|address| seen.insert(address.clone()));
        addresses
    }

    /// Who leads; searches until somebody does or the deadline passes.
    pub(crate) async fn leader(&self, inner: &Inner, deadline: Instant) -> Result<Target, Lost> {
        loop {
            if let Some(target) = self.current() {
                return Ok(target);
            }
            let late = |_| Lost::Deadline(self.state().reason.clone());
            let _searching = timeout_at(deadline, self.search.lock()).await.map_err(late)?;
            if let Some(target) = self.current() {
                return Ok(target);
            }
            let pause = self.pause(inner);
            let found = timeout_at(deadline, async {
                sleep(pause).await;
                self.ask_all(inner).await
            });
            match found.await.map_err(late)? {
                Found::Leader(node, term) => self.state().set_leader(node, term),
                Found::Nobody(reason) => self.state().reason = reason,
                Found::Final(error) => return Err(Lost::Final(error)),
            }
        }
    }

    /// The target turned out wrong. Without effect when somebody else noticed before.
    pub(crate) fn wrong(&self, inner: &Inner, target: &Target, hint: Option<&LeaderHint>, reason: &str) {
        let mut state = self.state();
        if state.generation != target.generation {
            return;
        }
        tracing::debug!(group = self.group, node = target.node.address(), reason, "the leader is lost");
        self.troubled.store(true, Ordering::Relaxed);
        state.lost_since.get_or_insert_with(Instant::now);
        state.leader = None;
        state.generation += 1;
        reason.clone_into(&mut state.reason);
        let Some(hint) = hint else { return };
        if state.hints < HINTS_IN_A_ROW_MAX
            && hint.term >= state.term
            && hint.address != target.node.address()
            && let Some(node) = inner.node(&hint.address)
        {
            state.hints += 1;
            state.set_leader(node, hint.term);
        }
    }

    /// A command or query was answered: the outage, if there was one, is over.
    pub(crate) fn succeeded(&self) {
        if self.troubled.load(Ordering::Relaxed) {
            let mut state = self.state();
            self.troubled.store(false, Ordering::Relaxed);
            state.lost_since = None;
            state.hints = 0;
            state.searches = 0;
        }
    }

    /// The target, if it is known without a search.
    pub(crate) fn current(&self) -> Option<Target> {
        let state = self.state();
        let node = state.leader.clone()?;
        Some(Target { node, generation: state.generation })
    }

    /// How long to wait before the next search: the first one of an outage starts at once.
    fn pause(&self, inner: &Inner) -> Duration {
        let mut state = self.state();
        self.troubled.store(true, Ordering::Relaxed);
        let since = *state.lost_since.get_or_insert_with(Instant::now);
        state.searches = state.searches.saturating_add(1);
        state.hints = 0;
        if state.searches == 1 { Duration::ZERO } else { inner.jitter.after_outage(since.elapsed()) }
    }

    /// Asks all known nodes at once who leads.
    async fn ask_all(&self, inner: &Inner) -> Found {
        let mut addresses = self.members();
        addresses.extend(inner.config.endpoints.iter().filter(|e| !self.is_member(e)).cloned());
        let mut asked = JoinSet::new();
        let nodes: Vec<_> = addresses.iter().filter_map(|address| inner.node(address)).collect();
        for node in nodes {
            asked.spawn(ask(node, self.group));
        }
        let mut tally = Tally { asked: asked.len(), ..Tally::default() };
        let mut ends = Instant::now() + SEARCH_TIMEOUT;
        while let Ok(Some(joined)) = timeout_at(ends, asked.join_next()).await {
            // A task that panicked is a node that did not answer.
            let Ok((node, answer)) = joined else { continue };
            match answer {
                Ok(info) => {
                    ends = ends.min(Instant::now() + STRAGGLER_TIMEOUT);
                    if let Some(found) = self.weigh(node, info, &mut tally) {
                        return found;
                    }
                }
                Err(judgement) => tally.failed(judgement),
            }
        }
        tally.conclude(inner, &addresses)
    }

    /// Whether an answer ends the search; otherwise keeps its hint.
    fn weigh(&self, node: Arc<Node>, info: GroupInfo, tally: &mut Tally) -> Option<Found> {
        let mut state = self.state();
        state.learn_members(&info);
        let Some(hint) = info.leader else {
            tally.reason = format!("node {} knows no leader", info.node);
            return None;
        };
        if hint.term < state.term {
            tally.reason = format!("node {} knows only an older leader", info.node);
            return None;
        }
        if hint.node == info.node && info.node != 0 {
            return Some(Found::Leader(node, hint.term));
        }
        tally.reason =
            format!("node {} says that node {} leads, which has not confirmed it", info.node, hint.node);
        if tally.hint.as_ref().is_none_or(|known| known.term < hint.term) {
            tally.hint = Some(hint);
        }
        None
    }

    fn is_member(&self, address: &str) -> bool {
        let state = self.state();
        state.members.iter().any(|member| member == address)
            || state.leader.as_ref().is_some_and(|leader| leader.address() == address)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn set_leader(&mut self, node: Arc<Node>, term: u64) {
        tracing::debug!(node = node.address(), term, "the leader is known");
        self.leader = Some(node);
        self.term = self.term.max(term);
        self.generation += 1;
    }

    fn learn_members(&mut self, info: &GroupInfo) {
        let known = info.members.iter().filter(|member| crate::config::is_address(&member.address));
        let addresses: Vec<_> = known.take(MEMBERS_MAX).map(|member| member.address.clone()).collect();
        if !addresses.is_empty() {
            self.members = addresses;
        }
    }
}

/// What the nodes said that do not lead.
#[derive(Default)]
struct Tally {
    asked: usize,
    /// The newest hint.
    hint: Option<LeaderHint>,
    /// Nodes that do not know the group.
    unknown: usize,
    refused: Option<Error>,
    reason: String,
}

impl Tally {
    fn failed(&mut self, judgement: Judgement) {
        self.reason = judgement.reason;
        if let Verdict::Final(error) = judgement.verdict {
            if error.code() == Some(ErrorCode::UnknownGroup) {
                self.unknown += 1;
            }
            self.refused = Some(error);
        }
    }

    fn conclude(self, inner: &Inner, asked: &[String]) -> Found {
        match self.refused {
            // A node that was just started may not know the group yet; all of them cannot be wrong.
            Some(error) if error.code() != Some(ErrorCode::UnknownGroup) || self.unknown == self.asked => {
                return Found::Final(error);
            }
            _ => {}
        }
        if let Some(hint) = self.hint
            && !asked.contains(&hint.address)
            && let Some(node) = inner.node(&hint.address)
        {
            return Found::Leader(node, hint.term);
        }
        let reason = if self.reason.is_empty() { "no node answered".to_owned() } else { self.reason };
        Found::Nobody(reason)
    }
}

/// Asks one node about the group.
async fn ask(node: Arc<Node>, group: u64) -> (Arc<Node>, Result<GroupInfo, Judgement>) {
    let request = ResolveRequest { group: Some(resolve_request::Group::Id(group)) };
    let mut client = ClientClient::new(node.channel(0));
    let answer = match timeout(SEARCH_TIMEOUT, client.resolve(request)).await {
        Ok(Ok(response)) => {
            node.heard();
            Ok(response.into_inner())
        }
        Ok(Err(status)) => Err(judge_status(&status)),
        Err(_) => Err(Judgement {
            verdict: Verdict::Elsewhere,
            unknown: false,
            reason: format!("{} is silent", node.address()),
        }),
    };
    (node, answer)
}
