//! What a group is, as enough nodes say alike.
//!
//! Relies on `Resolve`, which every node answers from memory. Promises that a description is believed when so many
//! endpoints gave it that one of them tells the truth, and that leaders, which change, are no part of it. Knows no
//! lane.

use std::sync::Arc;
use std::time::Duration;

use quorate_proto::v1::client_client::ClientClient;
use quorate_proto::v1::{ErrorCode, GroupInfo, ResolveRequest, resolve_request};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::client::Inner;
use crate::error::Error;
use crate::node::Node;
use crate::verdict::{Judgement, Verdict, judge_status};

/// How long a node may take to answer from memory.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// What the endpoints said in one round.
struct Round {
    need: usize,
    answers: Vec<GroupInfo>,
    refusals: Vec<Error>,
    /// Why nobody else is to be heard of.
    reason: String,
}

/// Asks all endpoints until `need` of them say the same.
pub(crate) async fn agree(
    inner: &Inner,
    group: resolve_request::Group,
    need: usize,
) -> Result<GroupInfo, Error> {
    let started = Instant::now();
    let deadline = started + inner.config.deadline;
    let mut attempts = 0;
    loop {
        let mut round = Round::new(need);
        let mut asked = JoinSet::new();
        for node in inner.config.endpoints.iter().filter_map(|address| inner.node(address)) {
            asked.spawn(ask(node, group.clone()));
        }
        while let Some(joined) = asked.join_next().await {
            // A task that panicked is a node that did not answer.
            let Ok(answer) = joined else { continue };
            if let Some(info) = round.note(answer) {
                return Ok(info);
            }
        }
        if let Some(error) = round.refusal() {
            return Err(error);
        }
        attempts += 1;
        sleep_until((Instant::now() + inner.jitter.after_attempts(attempts)).min(deadline)).await;
        if Instant::now() >= deadline {
            let waited_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
            let reason = format!("fewer than {need} endpoints say the same of the group; {}", round.reason);
            return Err(Error::DeadlineExceeded { waited_ms, maybe_applied: false, reason });
        }
    }
}

async fn ask(node: Arc<Node>, group: resolve_request::Group) -> Result<GroupInfo, Judgement> {
    let request = ResolveRequest { group: Some(group) };
    let mut client = ClientClient::new(node.channel(0));
    match timeout(ANSWER_TIMEOUT, client.resolve(request)).await {
        Ok(Ok(response)) => {
            node.heard();
            Ok(response.into_inner())
        }
        Ok(Err(status)) => Err(judge_status(&status)),
        Err(_) => {
            let reason = format!("{} is silent", node.address());
            Err(Judgement { verdict: Verdict::Elsewhere, unknown: false, reason })
        }
    }
}

impl Round {
    fn new(need: usize) -> Self {
        Self { need, answers: Vec::new(), refusals: Vec::new(), reason: "no node answered".to_owned() }
    }

    /// Counts an answer; the description, once enough gave it.
    fn note(&mut self, answer: Result<GroupInfo, Judgement>) -> Option<GroupInfo> {
        match answer {
            Ok(info) => {
                let alike = self.answers.iter().filter(|other| say_the_same(other, &info)).count() + 1;
                if alike >= self.need {
                    return Some(info);
                }
                self.reason = format!("node {} says something of its own", info.node);
                self.answers.push(info);
            }
            Err(Judgement { verdict: Verdict::Final(error), reason, .. }) => {
                self.reason = reason;
                self.refusals.push(error);
            }
            Err(judgement) => self.reason = judgement.reason,
        }
        None
    }

    fn refusal(&self) -> Option<Error> {
        agreed_refusal(&self.refusals, self.need, !self.answers.is_empty())
    }
}

/// The refusal that enough gave. A node that was just started may not know yet what others know.
pub(crate) fn agreed_refusal(refusals: &[Error], need: usize, is_known: bool) -> Option<Error> {
    let alike = |code| refusals.iter().filter(|other| other.code() == code).count();
    let enough = |error: &&Error| {
        let code = error.code();
        let may_lag = matches!(code, Some(ErrorCode::UnknownGroup | ErrorCode::NotFound));
        alike(code) >= need && !(is_known && may_lag)
    };
    refusals.iter().find(enough).cloned()
}

fn say_the_same(one: &GroupInfo, other: &GroupInfo) -> bool {
    (one.id, &one.name, one.kind, one.protocol, one.epoch, &one.members, &one.cluster)
        == (other.id, &other.name, other.kind, other.protocol, other.epoch, &other.members, &other.cluster)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use quorate_proto::v1::{GroupKind, GroupMember, LeaderHint};

    use super::*;

    fn info(node: u64, kind: GroupKind, members: u64) -> Result<GroupInfo, Judgement> {
        let member = |node| GroupMember { node, address: format!("node-{node}:1"), role: 1 };
        Ok(GroupInfo {
            id: 7,
            name: "ledger".into(),
            kind: kind.into(),
            members: (1..=members).map(member).collect(),
            leader: Some(LeaderHint { node, ..LeaderHint::default() }),
            node,
            ..GroupInfo::default()
        })
    }

    fn refused(code: ErrorCode) -> Result<GroupInfo, Judgement> {
        let error = Error::Refused { code, message: "no".into() };
        Err(Judgement { verdict: Verdict::Final(error), unknown: false, reason: "no".into() })
    }

    /// What could go wrong: one lying node makes the client take a group for one whose replicas do not lie, or its
    /// friends for the members.
    #[test]
    fn one_node_alone_is_not_believed() {
        let mut round = Round::new(2);
        assert_eq!(round.note(info(1, GroupKind::Crash, 4)), None);
        assert_eq!(round.note(info(2, GroupKind::Byzantine, 1)), None);
        assert_eq!(round.note(info(3, GroupKind::Byzantine, 4)), None);
        assert!(round.refusal().is_none());
        let believed = round.note(info(4, GroupKind::Byzantine, 4)).unwrap();
        assert_eq!((believed.kind(), believed.members.len()), (GroupKind::Byzantine, 4));
    }

    #[test]
    fn a_refusal_counts_when_enough_give_it_and_nobody_knows_better() {
        let mut round = Round::new(2);
        assert_eq!(round.note(refused(ErrorCode::UnknownGroup)), None);
        assert!(round.refusal().is_none());
        round.note(refused(ErrorCode::UnknownGroup));
        assert_eq!(round.refusal().unwrap().code(), Some(ErrorCode::UnknownGroup));
        round.note(info(1, GroupKind::Crash, 4));
        assert!(round.refusal().is_none(), "one that was just started does not know it yet");
        round.note(refused(ErrorCode::Unauthorized));
        round.note(refused(ErrorCode::Unauthorized));
        assert_eq!(round.refusal().unwrap().code(), Some(ErrorCode::Unauthorized));
    }
}
