//! The node's words as the client interface's words.
//!
//! Relies on both vocabularies. Promises one error code for each failure. Knows nothing else.

use bytes::Bytes;
use quorate_proto::v1::{self, Error, ErrorCode, LeaderHint};
use quorate_types::{Digest, GroupId, GroupKind, NodeId, Outcome, Protocol, Rejection, Role};

use crate::catalog::{ComponentRecord, GroupRecord};
use crate::driver::{Failure, Reply};
use crate::node::{Inner, OrderError};

/// An item's reply, for its stream.
pub(super) fn reply_kind(inner: &Inner, group: GroupId, opens: bool, reply: Reply) -> v1::reply::Kind {
    use v1::reply::Kind;
    match reply {
        Reply::Outcome { outcome: Outcome::Done(body), .. } if opens => {
            let session = body.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
            Kind::SessionOpened(v1::SessionOpened { session })
        }
        Reply::Outcome { outcome: Outcome::Done(body), index } => {
            #[cfg(feature = "planted")]
            let body = crate::driver::planted::answered(body);
            Kind::Done(v1::Done { body, index: index.0 })
        }
        Reply::Outcome { outcome: Outcome::Rejected(rejection), index } => rejected_kind(rejection, index.0),
        Reply::Failed(failure) => Kind::Error(failure_error(inner, group, &failure)),
        Reply::Accepted | Reply::Answer(_) | Reply::SnapshotChunk(_) | Reply::Checkpoint { .. } => {
            Kind::Error(Error::new(
                ErrorCode::Internal,
                "the replica answered another question; see the node's log",
            ))
        }
    }
}

fn rejected_kind(rejection: Rejection, index: u64) -> v1::reply::Kind {
    use v1::reply::Kind;
    let code = match rejection.code {
        Rejection::SESSION_EXPIRED => ErrorCode::SessionExpired,
        Rejection::SEQUENCE_STALE => ErrorCode::SequenceStale,
        Rejection::TOO_MANY_SESSIONS => ErrorCode::TooManySessions,
        Rejection::WINDOW_FULL => ErrorCode::WindowFull,
        _ => return Kind::Rejected(rejected(rejection, index)),
    };
    Kind::Error(Error::new(code, rejection.message))
}

pub(super) fn rejected(rejection: Rejection, index: u64) -> v1::Rejected {
    v1::Rejected { code: rejection.code, name: rejection.name, message: rejection.message, index }
}

/// Who leads, for a client that asked elsewhere.
pub(super) fn leader_hint(inner: &Inner, leader: NodeId, term: u64) -> LeaderHint {
    LeaderHint { node: leader.0, address: inner.api_address_of(leader).unwrap_or_default(), term }
}

pub(super) fn failure_error(inner: &Inner, group: GroupId, failure: &Failure) -> Error {
    let code = match failure {
        Failure::NotLeader { leader } => {
            let term = inner.reports().get(&group).map_or(0, |report| report.term.0);
            return Error::not_leader(leader.map(|node| leader_hint(inner, node, term)));
        }
        Failure::LeadershipLost => ErrorCode::LeadershipLost,
        Failure::Overloaded => ErrorCode::Overloaded,
        Failure::UnknownGroup => return unknown_here(inner, group),
        Failure::ApplyHalted(_) | Failure::QueryHalted(_) => ErrorCode::ApplyHalted,
        Failure::Fenced(_) | Failure::NoSnapshot(_) => ErrorCode::Unavailable,
        Failure::NotVoter { .. } => ErrorCode::Invalid,
        Failure::TooLarge => ErrorCode::TooLarge,
        Failure::FrameRefused(_) => ErrorCode::Invalid,
        Failure::NotOrdered | Failure::Skipped | Failure::ComponentMissing(_) => ErrorCode::Unavailable,
    };
    Error::new(code, failure.to_string())
}

/// The group exists elsewhere, is still being started here, or does not exist.
fn unknown_here(inner: &Inner, group: GroupId) -> Error {
    match inner.group_record(&group.0.to_string()) {
        Some(record) if record.config.member(inner.node).is_some() => Error::new(
            ErrorCode::Unavailable,
            "this node has not started its replica of the group yet; try again shortly",
        ),
        Some(record) => {
            let member = record.config.members.first().map(|member| leader_hint(inner, member.node, 0));
            Error::not_leader(member)
        }
        None => unknown_group(inner, &group.0.to_string()),
    }
}

/// There is no such group, or this node cannot say so yet.
pub(super) fn unknown_group(inner: &Inner, name: &str) -> Error {
    if !inner.catalog_known() {
        let message = "this node has not heard from the catalog since it started; try again shortly";
        return Error::new(ErrorCode::Unavailable, message);
    }
    let message = format!("there is no group {name:?}; `quorate group list` shows those there are");
    Error::new(ErrorCode::UnknownGroup, message)
}

pub(super) fn order_error(inner: &Inner, group: GroupId, error: OrderError) -> Error {
    match error {
        OrderError::Failure(failure) => failure_error(inner, group, &failure),
        OrderError::Rejected(rejection) => {
            let code = match (rejection.code, &rejection.name[..]) {
                (Rejection::ACTIVATION_FAILED, _) => ErrorCode::ComponentRefused,
                (_, "name-taken") => ErrorCode::AlreadyExists,
                (_, "unknown-group") => ErrorCode::UnknownGroup,
                _ => ErrorCode::Invalid,
            };
            Error::new(code, rejection.message)
        }
        OrderError::Peer(why) => Error::new(ErrorCode::Unavailable, why),
        OrderError::NoLeader(_) => Error::new(ErrorCode::Unavailable, error.to_string()),
        OrderError::NotFound(what) => Error::new(ErrorCode::NotFound, what),
    }
}

pub(super) fn group_info(inner: &Inner, record: &GroupRecord) -> v1::GroupInfo {
    let report = inner.reports().remove(&record.group);
    let leader = report
        .as_ref()
        .and_then(|report| report.leader.map(|leader| leader_hint(inner, leader, report.term.0)));
    let member = |member: &quorate_types::Member| v1::GroupMember {
        node: member.node.0,
        address: inner.api_address_of(member.node).unwrap_or_default(),
        role: match member.role {
            Role::Voter => v1::MemberRole::Voter,
            Role::Learner => v1::MemberRole::Learner,
        }
        .into(),
    };
    let active = report.and_then(|report| report.component).or(record.component);
    v1::GroupInfo {
        id: record.group.0,
        name: record.name.clone(),
        kind: match record.config.kind {
            GroupKind::Crash => v1::GroupKind::Crash,
            GroupKind::Hybrid => v1::GroupKind::Hybrid,
            GroupKind::Byzantine => v1::GroupKind::Byzantine,
        }
        .into(),
        protocol: match record.config.protocol {
            Protocol::Raft => v1::Protocol::Raft,
            Protocol::Pbft => v1::Protocol::Pbft,
            Protocol::HotStuff => v1::Protocol::Hotstuff,
        }
        .into(),
        epoch: record.config.epoch.0,
        members: record.config.members.iter().map(member).collect(),
        leader,
        component: active.map(|digest| component_ref(inner, digest)),
        node: inner.node.0,
        cluster: Bytes::copy_from_slice(&inner.cluster.0),
    }
}

pub(super) fn component_ref(inner: &Inner, digest: Digest) -> v1::ComponentRef {
    let catalog = inner.catalog();
    let record = catalog.components.iter().find(|record| record.digest == digest);
    v1::ComponentRef {
        digest: Bytes::copy_from_slice(&digest.0),
        name: record.map(|record| record.name.clone()).unwrap_or_default(),
        version: record.map(|record| record.version.clone()).unwrap_or_default(),
    }
}

pub(super) fn descriptor(record: &ComponentRecord) -> v1::ComponentDescriptor {
    v1::ComponentDescriptor {
        component: Some(v1::ComponentRef {
            digest: Bytes::copy_from_slice(&record.digest.0),
            name: record.name.clone(),
            version: record.version.clone(),
        }),
        schema_version: record.schema_version,
        migrates_from: record.migrates_from.clone(),
        critical: record.critical.clone(),
        schema: record.schema.clone(),
        size_bytes: record.size,
    }
}
