//! What must hold of one Raft group, checked as its replicas log, lead, commit and promise.
//!
//! Relies on [`GroupHistory`] for the logs and on [`Replicas`] for what is known of each replica. Promises to judge
//! from what nodes log, send and keep, never from what they say about themselves where it can be seen. Knows no
//! outcome.

use quorate_consensus::Message;
use quorate_consensus::raft::{Body, Pledge, Statement};
use quorate_storage::GroupAppend;
use quorate_types::{Entry, LogIndex, NodeId, Position, Term};

use crate::chain::Link;
use crate::durable::FoundLog;
use crate::history::GroupHistory;
use crate::replicas::{Logs, Replicas, Stand, Standing};
use crate::violation::{Checked, hold};

/// The logs of a group and what its replicas promised.
#[derive(Debug)]
pub struct RaftLogs {
    history: GroupHistory,
    replicas: Replicas,
}

impl RaftLogs {
    /// A group whose replicas run on the nodes given.
    #[must_use]
    pub fn new(nodes: &[NodeId], first_leader: NodeId) -> Self {
        Self {
            history: GroupHistory::new(nodes.len() / 2 + 1),
            replicas: Replicas::new(nodes.iter().copied(), first_leader),
        }
    }
}

impl Logs for RaftLogs {
    fn replicas(&self) -> &Replicas {
        &self.replicas
    }

    fn replicas_mut(&mut self) -> &mut Replicas {
        &mut self.replicas
    }

    fn commit(&self) -> LogIndex {
        self.history.commit()
    }

    fn settled(&self) -> LogIndex {
        self.history.commit()
    }

    fn link(&self, node: NodeId, position: Position) -> Checked<Link> {
        let link = self.history.known(position.index, position.term);
        hold!(
            link.is_some(),
            StateMachineSafety,
            "node {node} holds {position}, which no replica ever logged"
        );
        Ok(link.unwrap_or_else(Link::start))
    }

    fn started(&mut self, node: NodeId, found: &FoundLog<'_>, checkpoint: Position) -> Checked {
        let base = self.link(node, checkpoint)?;
        let history = &self.history;
        let is_known = |entry: &Entry| history.entry(entry.index(), entry.position.term) == Some(entry);
        self.replicas.started(node, found, base, is_known)
    }

    fn logged(&mut self, node: NodeId, entries: &[Entry], standing: Standing) -> Checked<usize> {
        let Some(replica) = self.replicas.get_mut(node) else { return Ok(0) };
        let leads = replica.leads && standing.leads && standing.term == replica.term;
        self.history.logged(node, leads, &mut replica.log, entries)
    }

    fn stands(&mut self, node: NodeId, standing: Standing) -> Checked<Stand> {
        let mut stand = Stand::default();
        let Some((takes_over, range)) = self.replicas.stands(node, standing) else { return Ok(stand) };
        let Some(replica) = self.replicas.get(node) else { return Ok(stand) };
        if takes_over {
            stand.is_elected = standing.term > Term(1);
            self.history.leads(node, standing.term, &replica.log)?;
        }
        if range.0 < range.1 {
            let durable = self.replicas.durable();
            stand.committed = self.history.commits(node, standing.term, range, &replica.log, durable)?;
        }
        Ok(stand)
    }

    fn appended(&mut self, node: NodeId, append: &GroupAppend) -> Checked {
        let links = append.entries.iter().map(|entry| self.link(node, entry.position));
        let links = links.collect::<Checked<Vec<_>>>()?;
        let before = append.entries.first().map_or_else(Link::start, |first| self.history.before(first));
        let Some(replica) = self.replicas.get_mut(node) else { return Ok(()) };
        replica.durable.appended(replica.term, append.hard_state.clone(), before, links)
    }

    fn leaves(&mut self, node: NodeId, to: NodeId, message: &Message) -> Checked<bool> {
        let (Some(replica), Message::Raft(message)) = (self.replicas.get_mut(node), message) else {
            return Ok(false);
        };
        let term = message.term;
        match message.body {
            Body::Pledge(Pledge::Vote) => replica.durable.vote_leaves(term, to)?,
            Body::Pledge(Pledge::Candidacy { .. }) => replica.durable.candidacy_leaves(term)?,
            Body::Pledge(Pledge::AppendAck { matched }) => {
                replica.durable.acknowledgement_leaves(term, matched, &self.history)?;
            }
            Body::Statement(Statement::Append { .. } | Statement::Heartbeat { .. }) => {
                let leader = self.history.leader_of(term);
                hold!(
                    leader.is_none_or(|leader| leader == node),
                    ElectionSafety,
                    "node {node} speaks as leader of {term}, which {leader:?} leads"
                );
                return Ok(false);
            }
            Body::Statement(_) => return Ok(false),
        }
        Ok(true)
    }
}
