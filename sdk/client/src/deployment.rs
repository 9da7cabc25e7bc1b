//! Deployments to a group whose replicas may lie: prepared at every member, signed, and ordered as commands are.
//!
//! Relies on the lane for signing and for what f + 1 members say alike. Promises that what is signed was said by one
//! member at least that tells the truth, that it is good for one deployment, and that it is submitted once a quorum is
//! ready for it. Knows no component.
//!
//! ```text
//! every member --prepare--> what, after how many --f + 1 alike, a quorum ready--> signed --lane--> in force
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use quorate_proto::v1::admin_client::AdminClient;
use quorate_proto::v1::{self, ErrorCode, PrepareDeploymentReply};
use quorate_types::{BatchItem, Digest, byzantine_quorum};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::agreement::agreed_refusal;
use crate::error::{Error, Rejection};
use crate::exchange::Settled;
use crate::group::Group;
use crate::lane::Lane;
use crate::link::RECEIVE_BYTES_MAX;
use crate::session::error_of;
use crate::verdict::{Judgement, Verdict, judge_status};

/// Codes of the host's rejections of deployments (`Rejection::HOST_CODES` of the node).
const HOST_ACTIVATION_FAILED: u32 = 6;
const HOST_DEPLOYMENT_SUPERSEDED: u32 = 13;

/// Deploys what a request names.
pub(crate) async fn deploy(
    group: &Group,
    lane: &Lane,
    request: v1::DeployRequest,
    patience: Duration,
) -> Result<v1::DeployReply, Error> {
    let started = Instant::now();
    let deadline = started + patience;
    let parameters = request.parameters.clone();
    let PrepareDeploymentReply { component, deployments } = prepared(group, lane, &request, deadline).await?;
    let digest = digest_of(component.as_ref())?;
    let item = || BatchItem::Activate {
        component: digest,
        parameters: parameters.clone(),
        after: Some(deployments),
    };
    match group.order(lane, group.inner().next_slot(), deadline, item).await {
        Ok(Settled::Done(done)) => Ok(v1::DeployReply { index: done.index, component }),
        Ok(Settled::Rejected(rejection)) => Err(refused(rejection)),
        Ok(other) => Err(Error::Protocol { reason: format!("a deployment gave {other:?}") }),
        Err(unsettled) => Err(error_of(unsettled, 0, 0, started)),
    }
}

fn digest_of(component: Option<&v1::ComponentRef>) -> Result<Digest, Error> {
    let bytes = component.and_then(|component| <[u8; 32]>::try_from(&component.digest[..]).ok());
    bytes.map(Digest).ok_or_else(|| Error::Protocol { reason: "a component has no digest".to_owned() })
}

fn refused(rejection: Rejection) -> Error {
    let code = match rejection.code {
        HOST_ACTIVATION_FAILED => ErrorCode::ComponentRefused,
        HOST_DEPLOYMENT_SUPERSEDED => ErrorCode::DeploymentSuperseded,
        _ => ErrorCode::Invalid,
    };
    Error::Refused { code, message: rejection.message }
}

/// Has every member make the component ready until enough are, and say the same of the group.
async fn prepared(
    group: &Group,
    lane: &Lane,
    request: &v1::DeployRequest,
    deadline: Instant,
) -> Result<PrepareDeploymentReply, Error> {
    let started = Instant::now();
    let mut attempts = 0;
    loop {
        let mut round = Round::new(lane);
        let mut asked = JoinSet::new();
        for node in lane.members() {
            let (channel, request) = (node.channel(0), request.clone());
            asked.spawn(async move {
                let mut client = AdminClient::new(channel).max_decoding_message_size(RECEIVE_BYTES_MAX);
                client.prepare_deployment(request).await.map_err(|status| judge_status(&status))
            });
        }
        while let Ok(Some(joined)) = timeout_at(deadline, asked.join_next()).await {
            // A task that panicked is a member that did not answer.
            let Ok(answer) = joined else { continue };
            if let Some(prepared) = round.note(answer.map(tonic::Response::into_inner)) {
                return Ok(prepared);
            }
        }
        if let Some(error) = round.refusal() {
            return Err(error);
        }
        attempts += 1;
        sleep_until((Instant::now() + group.inner().jitter.after_attempts(attempts)).min(deadline)).await;
        if Instant::now() >= deadline {
            let waited_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
            return Err(Error::DeadlineExceeded { waited_ms, maybe_applied: false, reason: round.reason });
        }
    }
}

/// What the members said in one round.
struct Round {
    need: usize,
    quorum: usize,
    answers: Vec<PrepareDeploymentReply>,
    refusals: Vec<Error>,
    /// Why there is nothing to sign yet.
    reason: String,
}

impl Round {
    fn new(lane: &Lane) -> Self {
        Self::of(lane.need(), byzantine_quorum(lane.members().count()))
    }

    fn of(need: usize, quorum: usize) -> Self {
        let reason = "no member answered".to_owned();
        Self { need, quorum, answers: Vec::new(), refusals: Vec::new(), reason }
    }

    /// Counts an answer; what is to be signed, once enough are ready for it and agree about it.
    fn note(&mut self, answer: Result<PrepareDeploymentReply, Judgement>) -> Option<PrepareDeploymentReply> {
        match answer {
            Ok(answer) => self.answers.push(answer),
            Err(Judgement { verdict: Verdict::Final(error), reason, .. }) => {
                self.reason = reason;
                self.refusals.push(error);
                return None;
            }
            Err(judgement) => {
                self.reason = judgement.reason;
                return None;
            }
        }
        let mut ready: BTreeMap<&Bytes, usize> = BTreeMap::new();
        for component in self.answers.iter().filter_map(|answer| answer.component.as_ref()) {
            *ready.entry(&component.digest).or_default() += 1;
        }
        let alike = |one: &&PrepareDeploymentReply| {
            let is_ready =
                one.component.as_ref().is_some_and(|component| ready[&component.digest] >= self.quorum);
            is_ready && self.answers.iter().filter(|other| other == one).count() >= self.need
        };
        let agreed = self.answers.iter().find(alike).cloned();
        if agreed.is_none() {
            let (ready, quorum) = (self.answers.len(), self.quorum);
            self.reason = format!("{ready} members are ready or say different things; {quorum} have to be");
        }
        agreed
    }

    fn refusal(&self) -> Option<Error> {
        agreed_refusal(&self.refusals, self.need, !self.answers.is_empty())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn ready(digest: u8, deployments: u64) -> Result<PrepareDeploymentReply, Judgement> {
        let digest = Bytes::from(vec![digest; 32]);
        let component = v1::ComponentRef { digest, name: "ledger".into(), version: "1.0.0".into() };
        Ok(PrepareDeploymentReply { component: Some(component), deployments })
    }

    fn refused(code: ErrorCode) -> Result<PrepareDeploymentReply, Judgement> {
        let error = Error::Refused { code, message: "no".into() };
        Err(Judgement { verdict: Verdict::Final(error), unknown: false, reason: "no".into() })
    }

    /// What could go wrong: an operator signs what one lying member names, or what nobody could vote for.
    #[test]
    fn what_is_signed_is_what_f_plus_one_members_say_once_a_quorum_is_ready() {
        let mut round = Round::of(2, 3);
        assert_eq!(round.note(ready(9, 0)), None);
        assert_eq!(round.note(ready(1, 7)), None);
        assert_eq!(round.note(ready(1, 7)), None, "two are ready of the three that have to be");
        assert_eq!(round.note(ready(1, 8)), ready(1, 7).ok(), "the last one is ahead, or lies");
        let mut round = Round::of(2, 3);
        for deployments in 1..=3 {
            assert_eq!(round.note(ready(1, deployments)), None, "none of them is to be believed");
        }
        assert!(round.reason.contains("3 members are ready"), "{}", round.reason);
    }

    #[test]
    fn a_refusal_counts_when_enough_give_it_and_nobody_knows_better() {
        let mut round = Round::of(2, 3);
        assert_eq!(round.note(refused(ErrorCode::NotFound)), None);
        assert!(round.refusal().is_none(), "one may lie");
        round.note(refused(ErrorCode::NotFound));
        assert_eq!(round.refusal().unwrap().code(), Some(ErrorCode::NotFound));
        round.note(ready(1, 0));
        assert!(round.refusal().is_none(), "a member that lags does not know it yet");
        round.note(refused(ErrorCode::Unauthorized));
        round.note(refused(ErrorCode::Unauthorized));
        assert_eq!(round.refusal().unwrap().code(), Some(ErrorCode::Unauthorized));
    }

    #[test]
    fn a_deployment_that_is_refused_says_how() {
        let code = |code| {
            let rejection = Rejection { code, name: String::new(), message: "why".into(), index: 3 };
            super::refused(rejection).code()
        };
        assert_eq!(code(HOST_ACTIVATION_FAILED), Some(ErrorCode::ComponentRefused));
        assert_eq!(code(HOST_DEPLOYMENT_SUPERSEDED), Some(ErrorCode::DeploymentSuperseded));
        assert!(digest_of(None).is_err());
    }
}
