//! The calls of operators: whom they reach, and what becomes of them when nodes fail.

use quorate_proto::v1::admin_server;
use quorate_proto::v1::{self, ErrorCode};
use tonic::{Request, Response, Status, Streaming};

use super::world::{FakeNode, GROUP, World, address};
use super::*;

type Reply<T> = Result<Response<T>, Status>;

fn missing<T>() -> Reply<T> {
    Err(Status::unimplemented("not part of this cluster"))
}

#[tonic::async_trait]
impl admin_server::Admin for FakeNode {
    async fn create_group(&self, request: Request<v1::CreateGroupRequest>) -> Reply<v1::CreateGroupReply> {
        let name = request.into_inner().name;
        let mut state = self.world.state();
        state.created.push(self.me);
        if state.leader != Some(self.me) {
            return Err(v1::Error::not_leader(state.hint()).into());
        }
        if name == "taken" {
            return Err(v1::Error::new(ErrorCode::AlreadyExists, "choose another name").into());
        }
        let group = v1::GroupInfo { id: GROUP, name, ..v1::GroupInfo::default() };
        Ok(Response::new(v1::CreateGroupReply { group: Some(group) }))
    }

    async fn push_component(
        &self,
        request: Request<Streaming<v1::ComponentChunk>>,
    ) -> Reply<v1::PushComponentReply> {
        let mut chunks = request.into_inner();
        let mut sizes = Vec::new();
        while let Some(chunk) = chunks.message().await? {
            sizes.push(chunk.bytes.len());
        }
        self.world.state().chunks = sizes;
        Ok(Response::new(v1::PushComponentReply::default()))
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Reply<v1::StatusReply> {
        Ok(Response::new(v1::StatusReply { node: self.me as u64 + 1, ..v1::StatusReply::default() }))
    }

    async fn list_groups(&self, _: Request<v1::ListGroupsRequest>) -> Reply<v1::ListGroupsReply> {
        missing()
    }

    async fn describe_group(&self, _: Request<v1::DescribeGroupRequest>) -> Reply<v1::DescribeGroupReply> {
        missing()
    }

    async fn list_components(&self, _: Request<v1::ListComponentsRequest>) -> Reply<v1::ListComponentsReply> {
        missing()
    }

    async fn check_component(&self, _: Request<Streaming<v1::ComponentChunk>>) -> Reply<v1::ComponentReport> {
        missing()
    }

    async fn deploy(&self, _: Request<v1::DeployRequest>) -> Reply<v1::DeployReply> {
        missing()
    }

    async fn prepare_deployment(&self, _: Request<v1::DeployRequest>) -> Reply<v1::PrepareDeploymentReply> {
        missing()
    }

    async fn transfer_leader(&self, _: Request<v1::TransferLeaderRequest>) -> Reply<v1::TransferLeaderReply> {
        missing()
    }

    async fn list_evidence(&self, _: Request<v1::ListEvidenceRequest>) -> Reply<v1::ListEvidenceReply> {
        missing()
    }

    async fn snapshot(&self, _: Request<v1::SnapshotRequest>) -> Reply<v1::SnapshotReply> {
        missing()
    }

    async fn state_digest(&self, _: Request<v1::StateDigestRequest>) -> Reply<v1::StateDigestReply> {
        missing()
    }
}

fn named(name: &str) -> v1::CreateGroupRequest {
    v1::CreateGroupRequest { name: name.to_owned(), ..v1::CreateGroupRequest::default() }
}

#[tokio::test(start_paused = true)]
async fn a_call_follows_the_hint_to_the_leader() {
    let world = World::new();
    let client = client_of(&world).await;
    world.elect(Some(2));
    let reply = client.admin().create_group(named("orders")).await.unwrap();
    assert_eq!(reply.group.unwrap().name, "orders");
    assert_eq!(world.state().created, [0, 2]);
    let taken = client.admin().create_group(named("taken")).await.unwrap_err();
    assert_eq!(taken.code(), Some(ErrorCode::AlreadyExists));
}

#[tokio::test(start_paused = true)]
async fn a_call_to_one_node_goes_nowhere_else() {
    let world = World::new();
    let client = client_of(&world).await;
    for node in 0..3 {
        let status = client.admin_at(&address(node)).unwrap().status().await.unwrap();
        assert_eq!(status.node, node as u64 + 1);
    }
    let refused = client.admin_at(&address(1)).unwrap().create_group(named("orders")).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::NotLeader));
    assert_eq!(world.state().created, [1]);
    assert!(matches!(client.admin_at("nowhere"), Err(Error::Config { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_call_is_repeated_until_there_is_a_leader_or_the_deadline_passes() {
    let world = World::new();
    let client = client_of(&world).await;
    world.elect(None);
    world.kill(0);
    let short = client.admin().with_deadline(ms(2_000));
    let error = short.create_group(named("orders")).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. } | Error::DeadlineExceeded { .. }), "{error:?}");
    let asked = world.state().created.len();
    assert!(asked < 100, "{asked}");
    let electing = tokio::spawn({
        let world = world.clone();
        async move {
            tokio::time::sleep(ms(3_000)).await;
            world.elect(Some(1));
        }
    });
    client.admin().create_group(named("orders")).await.unwrap();
    electing.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_component_arrives_in_chunks() {
    let world = World::new();
    let client = client_of(&world).await;
    client.admin().push_component(vec![7; (1 << 20) + 3].into()).await.unwrap();
    assert_eq!(world.state().chunks, [1 << 20, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_the_node_does_not_know_is_a_protocol_error() {
    let world = World::new();
    let error = client_of(&world).await.admin().list_groups().await.unwrap_err();
    assert!(matches!(error, Error::Protocol { .. }), "{error:?}");
}
