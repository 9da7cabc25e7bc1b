//! What operators do: groups, components, leadership, checkpoints, status.
//!
//! Relies on the node to have things ordered wherever the leader is. Promises what `admin.proto` says.
//! Knows no consensus protocol.

use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_consensus::hotstuff::Evidence;
use quorate_proto::CHUNK_BYTES_MAX;
use quorate_proto::v1::admin_server::Admin;
use quorate_proto::v1::{self, Error, ErrorCode};
use quorate_transport::Role;
use quorate_types::{
    BYZANTINE_REPLICAS_MIN, ComponentLimits, Digest, EpochConfig, GroupKind, NodeId, Protocol,
};
use tonic::{Request, Response, Status, Streaming};

use super::client::find_group;
use super::convert::{component_ref, descriptor, group_info, leader_hint, order_error};
use super::submit::not_signed;
use super::{Api, health, require};
use crate::catalog::{self, CatalogCommand, ComponentRecord, GroupRecord};
use crate::remote::{COMPONENT_BYTES_MAX, PeerCall, ReplicaReport};
use crate::workers::LogWork;

/// How long a call waits for a replica to reach an index or for a leader to change.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// The pause between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(5);

#[tonic::async_trait]
impl Admin for Api {
    async fn create_group(
        &self,
        request: Request<v1::CreateGroupRequest>,
    ) -> Result<Response<v1::CreateGroupReply>, Status> {
        require(&request, Role::Admin)?;
        let request = request.into_inner();
        let config = self.with_keys(self.epoch_config(&request)?).await?;
        let command = CatalogCommand::CreateGroup { name: request.name.clone(), config };
        let ordered = self.inner.order_catalog(command).await;
        ordered.map_err(|error| order_error(&self.inner, quorate_types::GroupId::CATALOG, error))?;
        // The leader has applied it; this node may be a moment behind.
        let record = self.wait(|| self.inner.group_record(&request.name)).await;
        let record =
            record.ok_or_else(|| unavailable("the group was created; this node has not heard of it yet"))?;
        Ok(Response::new(v1::CreateGroupReply { group: Some(group_info(&self.inner, &record)) }))
    }

    async fn list_groups(
        &self,
        request: Request<v1::ListGroupsRequest>,
    ) -> Result<Response<v1::ListGroupsReply>, Status> {
        require(&request, Role::Reader)?;
        let mut groups = vec![group_info(&self.inner, &self.inner.catalog_record())];
        groups.extend(self.inner.catalog().groups.iter().map(|record| group_info(&self.inner, record)));
        Ok(Response::new(v1::ListGroupsReply { groups }))
    }

    async fn describe_group(
        &self,
        request: Request<v1::DescribeGroupRequest>,
    ) -> Result<Response<v1::DescribeGroupReply>, Status> {
        require(&request, Role::Reader)?;
        let record = find_group(&self.inner, request.into_inner().group).await?;
        let asked = record.config.members.iter().map(|member| self.replica_report(&record, member.node));
        let found = futures_join(asked).await;
        let commit = found.iter().flatten().map(|report| report.commit).max().unwrap_or_default();
        let nodes = record.config.members.iter().map(|member| member.node);
        let accused = self.accused_among(&record, &found);
        let replicas = nodes
            .zip(&found)
            .map(|(node, report)| {
                let (is_accused, faults) = (accused.contains(&node.0), self.inner.signatures.faults(node));
                let state = health::member_state(is_accused, report.as_ref(), faults).into();
                v1::ReplicaInfo { state, ..replica_info(node, report.as_ref(), commit) }
            })
            .collect();
        let sessions = found.iter().flatten().map(|report| report.sessions).max().unwrap_or_default();
        Ok(Response::new(v1::DescribeGroupReply {
            group: Some(group_info(&self.inner, &record)),
            limits: Some(wire_limits(&record.config.limits)),
            replicas,
            sessions,
        }))
    }

    async fn push_component(
        &self,
        request: Request<Streaming<v1::ComponentChunk>>,
    ) -> Result<Response<v1::PushComponentReply>, Status> {
        require(&request, Role::Operator)?;
        let bytes = gather(request.into_inner()).await?;
        let digest = quorate_crypto::component_digest(&bytes);
        let known = self.inner.catalog().components.iter().any(|record| record.digest == digest);
        let component = match self.inner.compile(bytes.clone()).await {
            Ok(component) => component,
            Err(why) => return Err(Error::new(ErrorCode::ComponentRefused, why).into()),
        };
        let pushed = self.inner.push_component(component, bytes).await;
        let record =
            pushed.map_err(|error| order_error(&self.inner, quorate_types::GroupId::CATALOG, error))?;
        let listed = || {
            self.inner.catalog().components.iter().any(|other| other.digest == record.digest).then_some(())
        };
        let seen = self.wait(listed).await;
        seen.ok_or_else(|| unavailable("the component was published; this node has not heard of it yet"))?;
        Ok(Response::new(v1::PushComponentReply { component: Some(descriptor(&record)), known }))
    }

    async fn list_components(
        &self,
        request: Request<v1::ListComponentsRequest>,
    ) -> Result<Response<v1::ListComponentsReply>, Status> {
        require(&request, Role::Reader)?;
        let catalog = self.inner.catalog();
        let mut records: Vec<_> = catalog.components.iter().collect();
        records.sort_by(|left, right| (&left.name, &left.version).cmp(&(&right.name, &right.version)));
        let components = records.into_iter().map(descriptor).collect();
        Ok(Response::new(v1::ListComponentsReply { components }))
    }

    async fn check_component(
        &self,
        request: Request<Streaming<v1::ComponentChunk>>,
    ) -> Result<Response<v1::ComponentReport>, Status> {
        require(&request, Role::Reader)?;
        let bytes = gather(request.into_inner()).await?;
        let (imports, exports) = interfaces(&bytes);
        let begun = Instant::now();
        let compiled = self.inner.compile(bytes.clone()).await;
        let compile_us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        let (accepted, component, problems) = match compiled {
            Ok(component) => {
                let record = ComponentRecord::of(&component, bytes.len() as u64, self.inner.node);
                (true, Some(descriptor(&record)), Vec::new())
            }
            Err(why) => (false, None, vec![why]),
        };
        Ok(Response::new(v1::ComponentReport { accepted, component, problems, imports, exports, compile_us }))
    }

    async fn deploy(&self, request: Request<v1::DeployRequest>) -> Result<Response<v1::DeployReply>, Status> {
        require(&request, Role::Operator)?;
        let request = request.into_inner();
        let record = find_group(&self.inner, request.group).await?;
        if record.config.is_signed() {
            return Err(not_signed().into());
        }
        let component = self.published(request.component)?;
        let deployed = self.inner.deploy(&record, component, request.parameters).await;
        let index = deployed.map_err(|error| order_error(&self.inner, record.group, error))?;
        let component = Some(component_ref(&self.inner, component));
        Ok(Response::new(v1::DeployReply { index: index.0, component }))
    }

    async fn prepare_deployment(
        &self,
        request: Request<v1::DeployRequest>,
    ) -> Result<Response<v1::PrepareDeploymentReply>, Status> {
        require(&request, Role::Operator)?;
        let request = request.into_inner();
        let record = find_group(&self.inner, request.group).await?;
        let component = self.published(request.component)?;
        self.inner.prepare(component).await.map_err(|why| unavailable(&why))?;
        let report = self.report(record.group).await;
        let deployments =
            report.ok_or_else(|| unavailable("no replica of this group answers here"))?.deployments;
        let component = Some(component_ref(&self.inner, component));
        Ok(Response::new(v1::PrepareDeploymentReply { component, deployments }))
    }

    async fn transfer_leader(
        &self,
        request: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderReply>, Status> {
        require(&request, Role::Operator)?;
        let request = request.into_inner();
        let record = find_group(&self.inner, request.group).await?;
        let to = match request.node {
            0 => self.best_successor(&record).await?,
            node => NodeId(node),
        };
        let ask = self.inner.at_leader(record.group, PeerCall::Transfer { group: record.group, to }).await;
        ask.map_err(|error| order_error(&self.inner, record.group, error))?;
        let deadline = Instant::now() + WAIT_MAX;
        while Instant::now() < deadline {
            if let Some(report) = self.replica_report(&record, to).await
                && report.role == "leader"
            {
                let leader = Some(leader_hint(&self.inner, to, report.term));
                return Ok(Response::new(v1::TransferLeaderReply { leader }));
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
        Err(unavailable(&format!("node {} did not take over in time; the old leader goes on", to.0)).into())
    }

    async fn snapshot(
        &self,
        request: Request<v1::SnapshotRequest>,
    ) -> Result<Response<v1::SnapshotReply>, Status> {
        require(&request, Role::Operator)?;
        let record = find_group(&self.inner, request.into_inner().group).await?;
        let (index, digest, _) = self.checkpoint(&record).await?;
        let digest = Bytes::copy_from_slice(&digest.0);
        Ok(Response::new(v1::SnapshotReply { index, digest, node: self.inner.node.0 }))
    }

    async fn status(&self, request: Request<v1::StatusRequest>) -> Result<Response<v1::StatusReply>, Status> {
        require(&request, Role::Reader)?;
        let inner = &self.inner;
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let asked = inner.log.send(LogWork::Statistics(sender)).is_ok();
        let log = if asked { receiver.await.ok() } else { None };
        let reports = inner.reports();
        let leads =
            reports.iter().filter(|(_, report)| report.leader == Some(inner.node)).map(|(id, _)| id.0);
        Ok(Response::new(v1::StatusReply {
            node: inner.node.0,
            cluster: Bytes::copy_from_slice(&inner.cluster.0),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            boot: inner.boot.0,
            uptime_ms: u64::try_from(inner.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            peers: inner
                .transport()
                .status()
                .into_iter()
                .filter(|p| p.node != inner.node)
                .map(|peer| {
                    let faults = inner.signatures.faults(peer.node);
                    health::peer_info(peer, faults)
                })
                .collect(),
            groups: reports.len() as u64,
            leads: leads.collect(),
            log: log.map(|log| v1::LogStats {
                flushes: log.statistics.flushes,
                records: log.statistics.appends,
                bytes: log.statistics.bytes,
                segments: log.statistics.segments,
                flush_p50_us: log.flush_p50_us,
                flush_p99_us: log.flush_p99_us,
            }),
            connections: self.connections.count() as u64,
            address: inner.api_address_of(inner.node).unwrap_or_default(),
            votes: Some(health::vote_stats(&inner.signatures.metrics())),
        }))
    }

    async fn list_evidence(
        &self,
        request: Request<v1::ListEvidenceRequest>,
    ) -> Result<Response<v1::ListEvidenceReply>, Status> {
        require(&request, Role::Reader)?;
        let record = find_group(&self.inner, request.into_inner().group).await?;
        let group = record.group;
        let deadline = Instant::now() + WAIT_MAX;
        // The state machine may be at work on an entry.
        let accused = loop {
            match self.inner.accused(group).await {
                Some(accused) => break accused,
                None if Instant::now() >= deadline => {
                    return Err(unavailable("no replica of this group answers here; ask a member").into());
                }
                None => tokio::time::sleep(LOOK_PAUSE).await,
            }
        };
        let mut evidence: Vec<_> =
            accused.lies().map(|lie| wire_evidence(&lie.evidence, lie.index.0)).collect();
        let waiting = self.inner.waiting_evidence(group);
        evidence.extend(waiting.iter().map(|found| wire_evidence(found, 0)));
        let keys = record.config.voters().filter_map(|member| {
            let key = Bytes::copy_from_slice(&member.key?.0);
            Some(v1::MemberKey { node: member.node.0, key })
        });
        Ok(Response::new(v1::ListEvidenceReply {
            group: group.0,
            cluster: Bytes::copy_from_slice(&self.inner.cluster.0),
            epoch: record.config.epoch.0,
            keys: keys.collect(),
            evidence,
        }))
    }

    async fn state_digest(
        &self,
        request: Request<v1::StateDigestRequest>,
    ) -> Result<Response<v1::StateDigestReply>, Status> {
        require(&request, Role::Reader)?;
        let request = request.into_inner();
        let record = find_group(&self.inner, request.group).await?;
        let deadline = Instant::now() + WAIT_MAX;
        while self.report(record.group).await.is_none_or(|report| report.applied.0 < request.index_min) {
            if Instant::now() >= deadline {
                let message = format!("this replica did not apply index {} in time", request.index_min);
                return Err(unavailable(&message).into());
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
        let (applied_index, digest, keys) = self.checkpoint(&record).await?;
        let digest = Bytes::copy_from_slice(&digest.0);
        Ok(Response::new(v1::StateDigestReply { node: self.inner.node.0, applied_index, digest, keys }))
    }
}

impl Api {
    /// The first epoch that a request describes.
    fn epoch_config(&self, request: &v1::CreateGroupRequest) -> Result<EpochConfig, Error> {
        let nodes: Vec<NodeId> = if request.members.is_empty() {
            self.inner.members_of(quorate_types::GroupId::CATALOG)
        } else {
            request.members.iter().copied().map(NodeId).collect()
        };
        let limits = request.limits.as_ref().map_or(ComponentLimits::default(), |limits| ComponentLimits {
            fuel_per_command: limits.fuel_per_command,
            memory_bytes: limits.memory_bytes,
            output_bytes: limits.output_bytes,
            host_calls: limits.host_calls,
        });
        let mut config = catalog::crash_group(&nodes, limits);
        config.kind = match (request.kind(), request.protocol()) {
            (v1::GroupKind::Hybrid, _) => GroupKind::Hybrid,
            (v1::GroupKind::Byzantine, _)
            | (v1::GroupKind::Unspecified, v1::Protocol::Hotstuff | v1::Protocol::Pbft) => {
                GroupKind::Byzantine
            }
            (v1::GroupKind::Crash | v1::GroupKind::Unspecified, _) => GroupKind::Crash,
        };
        config.protocol = match (request.protocol(), config.kind) {
            (v1::Protocol::Raft, _) => Protocol::Raft,
            (v1::Protocol::Pbft, _) => Protocol::Pbft,
            (v1::Protocol::Hotstuff, _) | (v1::Protocol::Unspecified, GroupKind::Byzantine) => {
                Protocol::HotStuff
            }
            (v1::Protocol::Unspecified, _) => Protocol::Raft,
        };
        Ok(config)
    }

    /// The same epoch with the keys that its members registered, checked.
    async fn with_keys(&self, mut config: EpochConfig) -> Result<EpochConfig, Error> {
        if config.is_signed() {
            self.wait_for_keys(&config).await?;
            let catalog = self.inner.catalog();
            config.members.iter_mut().for_each(|member| member.key = catalog.key(member.node));
        }
        let checked = config.validate();
        checked.map_err(|fault| Error::new(ErrorCode::Invalid, fault.to_string()))?;
        let runs = matches!(
            (config.kind, config.protocol),
            (GroupKind::Crash, Protocol::Raft)
                | (GroupKind::Hybrid | GroupKind::Byzantine, Protocol::HotStuff)
        );
        if !runs {
            let message = format!(
                "this version does not run {:?} in {:?} groups; choose Raft for crash groups and HotStuff for \
                 the others",
                config.protocol, config.kind
            );
            return Err(Error::new(ErrorCode::Invalid, message));
        }
        Ok(config)
    }

    /// The published component that a request names.
    fn published(&self, named: Option<v1::deploy_request::Component>) -> Result<Digest, Error> {
        use v1::deploy_request::Component;
        let reference = match named {
            Some(Component::Digest(bytes)) => {
                let digest = <[u8; 32]>::try_from(&bytes[..]).map(Digest);
                digest.map_err(|_| Error::new(ErrorCode::Invalid, "a digest has 32 bytes"))?.to_string()
            }
            Some(Component::Name(name)) => name,
            None => return Err(Error::new(ErrorCode::Invalid, "name a component, or give its digest")),
        };
        let found = self.inner.catalog().component(&reference).map(|record| record.digest);
        found.ok_or_else(|| {
            let hint =
                "push it first, or name one version as name@version; `quorate component list` shows all";
            Error::new(ErrorCode::NotFound, format!("there is no single component {reference:?}; {hint}"))
        })
    }

    /// Waits until all members have registered their keys: nodes of a young cluster may not have yet.
    async fn wait_for_keys(&self, config: &EpochConfig) -> Result<(), Error> {
        let known = self.inner.members_of(quorate_types::GroupId::CATALOG);
        let members = || config.members.iter().map(|member| member.node);
        if let Some(stranger) = members().find(|node| !known.contains(node)) {
            return Err(Error::new(ErrorCode::Invalid, format!("the cluster has no node {}", stranger.0)));
        }
        let missing = || members().filter(|node| self.inner.catalog().key(*node).is_none());
        let is_small = config.voters().count() < BYZANTINE_REPLICAS_MIN;
        if is_small || self.wait(|| missing().next().is_none().then_some(())).await.is_some() {
            return Ok(());
        }
        let missing: Vec<_> = missing().map(|node| node.0.to_string()).collect();
        Err(unavailable(&format!(
            "node {} has registered no consensus key; make one with `quorate pki node`, name it as \
             node.consensus_key and start the node",
            missing.join(", ")
        )))
    }

    async fn replica_report(&self, record: &GroupRecord, node: NodeId) -> Option<ReplicaReport> {
        let answer = self.inner.call(node, PeerCall::Report(record.group)).await.ok()?;
        catalog::from_cbor(&answer)
    }

    /// Who lied, by the log of this node's own replica, or by those of more replicas than may lie.
    fn accused_among(&self, record: &GroupRecord, found: &[Option<ReplicaReport>]) -> Vec<u64> {
        let members: Vec<NodeId> = record.config.members.iter().map(|member| member.node).collect();
        let own = members.iter().position(|node| *node == self.inner.node);
        if let Some(report) = own.and_then(|at| found.get(at)?.as_ref()) {
            return report.accused.clone();
        }
        let liars = quorate_types::byzantine_faults(record.config.voters().count());
        let named =
            |node: u64| found.iter().flatten().filter(|report| report.accused.contains(&node)).count();
        members.iter().map(|node| node.0).filter(|node| named(*node) > liars).collect()
    }

    /// The voter, other than the leader, that has the most of the log.
    async fn best_successor(&self, record: &GroupRecord) -> Result<NodeId, Error> {
        let leader = self.inner.leader_of(record.group);
        let voters: Vec<_> =
            record.config.voters().map(|m| m.node).filter(|node| Some(*node) != leader).collect();
        let found = futures_join(voters.iter().map(|node| self.replica_report(record, *node))).await;
        let known = voters.into_iter().zip(found).filter_map(|(node, report)| Some((report?.commit, node)));
        known.max().map(|(_, node)| node).ok_or_else(|| unavailable("no other voter of the group answers"))
    }

    async fn checkpoint(&self, record: &GroupRecord) -> Result<(u64, Digest, u64), Error> {
        let call = PeerCall::Checkpoint(record.group);
        let answer = self.inner.call(self.inner.node, call).await;
        let answer = answer.map_err(|error| order_error(&self.inner, record.group, error))?;
        catalog::from_cbor(&answer)
            .ok_or_else(|| Error::new(ErrorCode::Internal, "the replica's answer is odd"))
    }

    /// Looks until something is there, for a bounded time.
    async fn wait<T>(&self, look: impl Fn() -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + WAIT_MAX;
        loop {
            if let Some(found) = look() {
                return Some(found);
            }
            if Instant::now() >= deadline {
                return None;
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }
}

fn unavailable(message: &str) -> Error {
    Error::new(ErrorCode::Unavailable, message)
}

/// All answers, in the order of the questions, asked at once.
async fn futures_join<T, F: Future<Output = T>>(questions: impl Iterator<Item = F>) -> Vec<T> {
    let mut pending: Vec<_> = questions.map(|question| (Box::pin(question), None)).collect();
    std::future::poll_fn(|context| {
        let mut waiting = false;
        for (question, answer) in &mut pending {
            if answer.is_none() {
                match question.as_mut().poll(context) {
                    std::task::Poll::Ready(ready) => *answer = Some(ready),
                    std::task::Poll::Pending => waiting = true,
                }
            }
        }
        if waiting { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
    })
    .await;
    pending.into_iter().filter_map(|(_, answer)| answer).collect()
}

/// All bytes of a component.
async fn gather(mut chunks: Streaming<v1::ComponentChunk>) -> Result<Bytes, Status> {
    let mut bytes = Vec::new();
    while let Some(chunk) = chunks.message().await? {
        if chunk.bytes.len() > CHUNK_BYTES_MAX || bytes.len() + chunk.bytes.len() > COMPONENT_BYTES_MAX {
            let message = format!(
                "a component has at most {COMPONENT_BYTES_MAX} bytes, sent in chunks of at most {CHUNK_BYTES_MAX}"
            );
            return Err(Error::new(ErrorCode::TooLarge, message).into());
        }
        bytes.extend_from_slice(&chunk.bytes);
    }
    Ok(Bytes::from(bytes))
}

/// The interfaces that a component imports and exports; as many as can be read of bytes that are none.
fn interfaces(bytes: &[u8]) -> (Vec<String>, Vec<String>) {
    use wasmparser::{Parser, Payload};
    let (mut imports, mut exports) = (Vec::new(), Vec::new());
    // Only the outermost component counts: what is nested in it is its own affair.
    let mut depth = 0u32;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload {
            Ok(Payload::ModuleSection { .. } | Payload::ComponentSection { .. }) => depth += 1,
            Ok(Payload::End(_)) => depth = depth.saturating_sub(1),
            Ok(Payload::ComponentImportSection(section)) if depth == 0 => {
                imports.extend(section.into_iter().flatten().map(|import| import.name.name.to_owned()));
            }
            Ok(Payload::ComponentExportSection(section)) if depth == 0 => {
                exports.extend(section.into_iter().flatten().map(|export| export.name.name.to_owned()));
            }
            Ok(_) => {}
            Err(_) => break,
        }
    }
    (imports, exports)
}

fn wire_limits(limits: &ComponentLimits) -> v1::ComponentLimits {
    v1::ComponentLimits {
        fuel_per_command: limits.fuel_per_command,
        memory_bytes: limits.memory_bytes,
        output_bytes: limits.output_bytes,
        host_calls: limits.host_calls,
    }
}

fn replica_info(node: NodeId, report: Option<&ReplicaReport>, commit: u64) -> v1::ReplicaInfo {
    let Some(report) = report else {
        return v1::ReplicaInfo { node: node.0, reachable: false, ..v1::ReplicaInfo::default() };
    };
    let role = match &report.role[..] {
        "leader" => v1::ReplicaRole::Leader,
        "follower" => v1::ReplicaRole::Follower,
        "candidate" => v1::ReplicaRole::Candidate,
        "learner" => v1::ReplicaRole::Learner,
        _ => v1::ReplicaRole::Unspecified,
    };
    let (digest_index, digest) = report.digest.unwrap_or_default();
    v1::ReplicaInfo {
        node: node.0,
        role: role.into(),
        term: report.term,
        last_index: report.commit,
        commit_index: report.commit,
        applied_index: report.applied,
        digest_index,
        digest: if digest_index == 0 { Bytes::new() } else { Bytes::copy_from_slice(&digest.0) },
        lag: commit.saturating_sub(report.applied),
        halted_reason: report.halted.clone().unwrap_or_default(),
        fenced_reason: report.fenced.clone().unwrap_or_default(),
        reachable: true,
        state: v1::MemberState::Unspecified.into(),
    }
}

fn wire_evidence(evidence: &Evidence, index: u64) -> v1::Evidence {
    let statement = &evidence.statements()[0];
    v1::Evidence {
        node: evidence.signer().0,
        kind: format!("{:?}", statement.kind).to_lowercase(),
        view: statement.view.0,
        index,
        digest: Bytes::copy_from_slice(&evidence.digest().0),
        proof: evidence.to_bytes(),
    }
}
