//! The calls of operators: groups, components and nodes.
//!
//! Relies on the interface for requests and answers, which are handed through as they are. Promises that
//! a call is repeated until the deadline where repeating is safe, which it is for all of them, and that whatever is
//! deployed where replicas may lie is signed. Knows no component and no group.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_proto::v1::admin_client::AdminClient;
use quorate_proto::v1::{self, ResolveRequest, deploy_request, resolve_request};
use quorate_proto::{BODY_BYTES_MAX, CHUNK_BYTES_MAX, COMPONENT_BYTES_MAX};
use tonic::transport::Channel;

use crate::calls::{Patience, Scope, call};
use crate::client::{Client, Inner};
use crate::deployment;
use crate::error::Error;
use crate::link::RECEIVE_BYTES_MAX;

/// How long a call may take unless told otherwise; deploying compiles, and may wait for an election.
const DEADLINE: Duration = Duration::from_secs(30);

/// The calls of operators, from [`crate::Client::admin`] or [`crate::Client::admin_at`].
#[derive(Clone, Debug)]
pub struct Admin {
    inner: Arc<Inner>,
    scope: Scope,
    deadline: Duration,
}

/// Calls one method of the service, again and again if need be.
macro_rules! call {
    ($self:ident, $method:ident, $request:expr) => {{
        let request = $request;
        call(&$self.inner, &$self.scope, $self.patience(), |channel| {
            let request = request.clone();
            async move { service(channel).$method(request).await }
        })
        .await
    }};
}

impl Admin {
    pub(crate) fn new(inner: Arc<Inner>, scope: Scope) -> Self {
        Self { inner, scope, deadline: DEADLINE }
    }

    /// The same with another deadline for each call, retries included; 30 s otherwise.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Creates a group, or finds the one of that name if it has the same settings.
    ///
    /// # Errors
    ///
    /// A refusal such as `ALREADY_EXISTS`, or that no node answered.
    pub async fn create_group(&self, request: v1::CreateGroupRequest) -> Result<v1::CreateGroupReply, Error> {
        call!(self, create_group, request)
    }

    /// All groups, sorted by id.
    ///
    /// # Errors
    ///
    /// A refusal, or that no node answered.
    pub async fn list_groups(&self) -> Result<Vec<v1::GroupInfo>, Error> {
        let reply: v1::ListGroupsReply = call!(self, list_groups, v1::ListGroupsRequest {})?;
        Ok(reply.groups)
    }

    /// One group with its replicas, as the answering node knows them.
    ///
    /// # Errors
    ///
    /// A refusal such as `UNKNOWN_GROUP`, or that no node answered.
    pub async fn describe_group(&self, group: &str) -> Result<v1::DescribeGroupReply, Error> {
        call!(self, describe_group, v1::DescribeGroupRequest { group: named(group) })
    }

    /// Proofs that members of a group lied, and what is needed to verify them.
    ///
    /// # Errors
    ///
    /// A refusal such as `UNKNOWN_GROUP`, or that no node answered.
    pub async fn list_evidence(&self, group: &str) -> Result<v1::ListEvidenceReply, Error> {
        call!(self, list_evidence, v1::ListEvidenceRequest { group: named(group) })
    }

    /// Uploads, checks and publishes a component.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`], a refusal such as `COMPONENT_REFUSED`, or that no node answered.
    pub async fn push_component(&self, component: Bytes) -> Result<v1::PushComponentReply, Error> {
        let chunks = chunks(&component)?;
        call(&self.inner, &self.scope, self.patience(), |channel| {
            let chunks = chunks.clone();
            async move { service(channel).push_component(tokio_stream::iter(chunks)).await }
        })
        .await
    }

    /// All published components, sorted by name and version.
    ///
    /// # Errors
    ///
    /// A refusal, or that no node answered.
    pub async fn list_components(&self) -> Result<Vec<v1::ComponentDescriptor>, Error> {
        let reply: v1::ListComponentsReply = call!(self, list_components, v1::ListComponentsRequest {})?;
        Ok(reply.components)
    }

    /// Checks a component as a push does, and publishes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`], a refusal, or that no node answered. A component that would be refused is a
    /// report, not an error.
    pub async fn check_component(&self, component: Bytes) -> Result<v1::ComponentReport, Error> {
        let chunks = chunks(&component)?;
        call(&self.inner, &self.scope, self.patience(), |channel| {
            let chunks = chunks.clone();
            async move { service(channel).check_component(tokio_stream::iter(chunks)).await }
        })
        .await
    }

    /// Makes a published component, `name@version` or `name`, the active one of a group. `parameters`
    /// go to its `init` if it is the group's first. Where replicas may lie, this signs the deployment.
    ///
    /// # Errors
    ///
    /// A refusal such as `COMPONENT_REFUSED`, `NOT_FOUND` or `DEPLOYMENT_SUPERSEDED`, or that no node answered. For a
    /// group whose replicas may lie, [`Error::Config`] if this client names fewer than four endpoints or its key
    /// cannot sign.
    pub async fn deploy(
        &self,
        group: &str,
        component: &str,
        parameters: Bytes,
    ) -> Result<v1::DeployReply, Error> {
        self.deploy_component(group, deploy_request::Component::Name(component.to_owned()), parameters).await
    }

    /// As [`Admin::deploy`], by the digest of the component's bytes.
    ///
    /// # Errors
    ///
    /// As [`Admin::deploy`].
    pub async fn deploy_digest(
        &self,
        group: &str,
        digest: [u8; 32],
        parameters: Bytes,
    ) -> Result<v1::DeployReply, Error> {
        let digest = Bytes::copy_from_slice(&digest);
        self.deploy_component(group, deploy_request::Component::Digest(digest), parameters).await
    }

    /// Hands a group's leadership to a voting member; 0 for the one with the longest log.
    ///
    /// # Errors
    ///
    /// A refusal, or that no node answered.
    pub async fn transfer_leader(&self, group: &str, node: u64) -> Result<v1::TransferLeaderReply, Error> {
        call!(self, transfer_leader, v1::TransferLeaderRequest { group: named(group), node })
    }

    /// Takes a checkpoint of a group at the answering node.
    ///
    /// # Errors
    ///
    /// A refusal, or that no node answered.
    pub async fn snapshot(&self, group: &str) -> Result<v1::SnapshotReply, Error> {
        call!(self, snapshot, v1::SnapshotRequest { group: named(group) })
    }

    /// How the answering node is.
    ///
    /// # Errors
    ///
    /// A refusal, or that no node answered.
    pub async fn status(&self) -> Result<v1::StatusReply, Error> {
        call!(self, status, v1::StatusRequest {})
    }

    /// Digest of a group's state at the answering node, once that has applied `index_min`; 0 for any.
    ///
    /// # Errors
    ///
    /// A refusal, or that no node answered.
    pub async fn state_digest(&self, group: &str, index_min: u64) -> Result<v1::StateDigestReply, Error> {
        call!(self, state_digest, v1::StateDigestRequest { group: named(group), index_min })
    }

    async fn deploy_component(
        &self,
        group: &str,
        component: deploy_request::Component,
        parameters: Bytes,
    ) -> Result<v1::DeployReply, Error> {
        if parameters.len() > BODY_BYTES_MAX {
            let bytes = parameters.len();
            return Err(Error::TooLarge { what: "the parameters", bytes, bytes_max: BODY_BYTES_MAX });
        }
        let request = v1::DeployRequest { group: named(group), component: Some(component), parameters };
        let found =
            Client::of(Arc::clone(&self.inner)).find(resolve_request::Group::Name(group.to_owned())).await?;
        match found.lane() {
            Some(lane) => deployment::deploy(&found, lane, request, self.deadline).await,
            None => call!(self, deploy, request),
        }
    }

    /// One node may take the whole time: what it does may be long work.
    fn patience(&self) -> Patience {
        Patience::new(self.deadline, self.deadline)
    }
}

fn service(channel: Channel) -> AdminClient<Channel> {
    AdminClient::new(channel).max_decoding_message_size(RECEIVE_BYTES_MAX)
}

fn named(group: &str) -> Option<ResolveRequest> {
    Some(ResolveRequest { group: Some(resolve_request::Group::Name(group.to_owned())) })
}

/// A component in parts; they share its bytes.
fn chunks(component: &Bytes) -> Result<Vec<v1::ComponentChunk>, Error> {
    if component.len() > COMPONENT_BYTES_MAX {
        let bytes = component.len();
        return Err(Error::TooLarge { what: "the component", bytes, bytes_max: COMPONENT_BYTES_MAX });
    }
    let starts = (0..component.len()).step_by(CHUNK_BYTES_MAX);
    let chunk = |start| component.slice(start..component.len().min(start + CHUNK_BYTES_MAX));
    Ok(starts.map(|start| v1::ComponentChunk { bytes: chunk(start) }).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_component_is_cut_into_chunks_that_join_to_it() {
        let component = Bytes::from((0..CHUNK_BYTES_MAX * 2 + 5).map(|i| i as u8).collect::<Vec<_>>());
        let parts = chunks(&component).unwrap();
        assert_eq!(
            parts.iter().map(|part| part.bytes.len()).collect::<Vec<_>>(),
            [CHUNK_BYTES_MAX, CHUNK_BYTES_MAX, 5]
        );
        assert_eq!(parts.iter().flat_map(|part| part.bytes.iter().copied()).collect::<Vec<_>>(), component);
        let large = Bytes::from(vec![0; COMPONENT_BYTES_MAX + 1]);
        assert!(matches!(chunks(&large), Err(Error::TooLarge { .. })));
    }
}
