//! Where components come from: a client's upload, the data directory, or another node; and how a group's
//! component is replaced.
//!
//! Relies on the runtime to check and compile, and on the other nodes for what this one lacks. Promises
//! that bytes are stored and checked before their code is used, and that an activation in a crash group is ordered
//! only when a quorum of the group is ready for it; elsewhere the operator's program asks for that. Knows no consensus
//! protocol.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use quorate_consensus::ReplicaRole;
use quorate_runtime::Component;
use quorate_types::{Digest, LogIndex, NodeId};
use tokio::sync::oneshot;

use super::{Inner, OrderError, PEER_TIMEOUT, locked};
use crate::catalog::{self, CatalogCommand, ComponentRecord, GroupRecord};
use crate::driver::DriverInput;
use crate::remote::{COMPONENT_BYTES_MAX, COMPONENT_CHUNK_BYTES, PeerCall, PeerRequest};

impl Inner {
    /// Compiles bytes, off the consensus path, and checks that they are a state machine.
    pub(crate) async fn compile(&self, bytes: Bytes) -> Result<Component, String> {
        let engine = self.engine.clone();
        match tokio::task::spawn_blocking(move || engine.compile(&bytes)).await {
            Ok(compiled) => compiled.map_err(|error| error.to_string()),
            Err(error) => Err(format!("compiling ended unexpectedly: {error}")),
        }
    }

    /// Stores a checked component and lists it in the catalog.
    pub(crate) async fn push_component(
        &self,
        component: Component,
        bytes: Bytes,
    ) -> Result<ComponentRecord, OrderError> {
        let record = ComponentRecord::of(&component, bytes.len() as u64, self.node);
        self.keep_component(component, bytes).await.map_err(OrderError::Peer)?;
        self.order_catalog(CatalogCommand::RegisterComponent(record.clone())).await?;
        Ok(record)
    }

    async fn keep_component(&self, component: Component, bytes: Bytes) -> Result<(), String> {
        let (store, digest) = (Arc::clone(&self.store), component.digest());
        let stored = tokio::task::spawn_blocking(move || store.put_component(digest, &bytes)).await;
        match stored {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(error.to_string()),
            Err(error) => return Err(error.to_string()),
        }
        locked(&self.components).insert(digest, component.clone());
        for shard in &self.shards {
            shard.complete(DriverInput::Component(component.clone()));
        }
        Ok(())
    }

    /// Makes sure that a component is stored, compiled and known to the shards.
    pub(crate) async fn prepare(&self, digest: Digest) -> Result<(), String> {
        if locked(&self.components).contains_key(&digest) {
            return Ok(());
        }
        let (sender, receiver) = oneshot::channel();
        let first = {
            let mut finding = locked(&self.finding);
            let waiting = finding.entry(digest).or_default();
            waiting.push(sender);
            waiting.len() == 1
        };
        if first {
            let inner = self.weak.upgrade().expect("whoever calls holds the node");
            self.runtime.spawn(async move {
                let result = inner.find_component(digest).await;
                let waiting = locked(&inner.finding).remove(&digest).unwrap_or_default();
                // Whoever waited may have left.
                waiting.into_iter().for_each(|waiter| drop(waiter.send(result.clone())));
            });
        }
        receiver.await.unwrap_or_else(|_| Err("the node is stopping".to_owned()))
    }

    async fn find_component(&self, digest: Digest) -> Result<(), String> {
        let stored = self.store.component(digest).map_err(|error| error.to_string())?;
        let bytes = match stored {
            Some(bytes) => bytes,
            None => self.fetch_component(digest).await?,
        };
        let component = self.compile(bytes.clone()).await?;
        self.keep_component(component, bytes).await
    }

    /// Asks the other nodes in turn.
    async fn fetch_component(&self, digest: Digest) -> Result<Bytes, String> {
        let mut faults = Vec::new();
        for node in self.config.cluster.nodes.iter().map(|node| NodeId(node.id)).filter(|id| *id != self.node)
        {
            match self.fetch_component_from(node, digest).await {
                Ok(bytes) => return Ok(bytes),
                Err(fault) => faults.push(format!("{node}: {fault}")),
            }
        }
        Err(format!("no node could send component {}: {}", digest.short(), faults.join("; ")))
    }

    async fn fetch_component_from(&self, node: NodeId, digest: Digest) -> Result<Bytes, String> {
        let mut bytes = Vec::new();
        loop {
            let request = PeerRequest::Component { digest, offset: bytes.len() as u64 }.encode();
            let piece =
                self.transport().request(node, request, PEER_TIMEOUT).await.map_err(|e| e.to_string())?;
            bytes.extend_from_slice(&piece);
            if bytes.len() > COMPONENT_BYTES_MAX {
                return Err("it is larger than a component may be".to_owned());
            }
            if piece.len() < COMPONENT_CHUNK_BYTES {
                break;
            }
        }
        if quorate_crypto::component_digest(&bytes) != digest {
            return Err("the bytes do not have that digest".to_owned());
        }
        Ok(Bytes::from(bytes))
    }

    /// Replaces a group's component: waits until a quorum of its members has the code, then orders the
    /// activation. Answers the index at which it took effect.
    pub(crate) async fn deploy(
        &self,
        record: &GroupRecord,
        component: Digest,
        parameters: Bytes,
    ) -> Result<LogIndex, OrderError> {
        let members: Vec<_> = record.config.voters().map(|member| member.node).collect();
        let (sender, mut prepared) = tokio::sync::mpsc::unbounded_channel();
        for node in members.iter().copied() {
            let inner = self.weak.upgrade().expect("whoever calls holds the node");
            let sender = sender.clone();
            self.runtime.spawn(async move {
                let result = inner.call(node, PeerCall::Prepare(component)).await;
                // Whoever deploys may have a quorum already.
                drop(sender.send((node, result)));
            });
        }
        drop(sender);
        let (mut ready, mut faults) = (0, Vec::new());
        while ready < record.config.quorum() {
            match prepared.recv().await {
                Some((_, Ok(_))) => ready += 1,
                Some((node, Err(error))) => faults.push(format!("node {node}: {error}")),
                None => {
                    let why =
                        format!("no quorum of the group has the component ready: {}", faults.join("; "));
                    return Err(OrderError::Peer(why));
                }
            }
        }
        let group = record.group;
        let call = PeerCall::Activate { group, component, parameters: parameters.to_vec() };
        let answer = self.at_leader(group, call).await?;
        self.order_catalog(CatalogCommand::NoteActivation { group, component }).await?;
        Ok(LogIndex(catalog::from_cbor(&answer).unwrap_or_default()))
    }

    /// Has the catalog list what was put in force, without its knowledge, in groups that are led here.
    pub(super) fn note_activations(&self) {
        let catalog = self.catalog();
        let reports = self.reports();
        let news = catalog.groups.iter().find_map(|record| {
            let report = reports.get(&record.group).filter(|report| report.role == ReplicaRole::Leader)?;
            let component = report.component.filter(|component| record.component != Some(*component))?;
            Some(CatalogCommand::NoteActivation { group: record.group, component })
        });
        let Some(news) = news else { return };
        if self.noting_activation.swap(true, Ordering::AcqRel) {
            return;
        }
        let inner = self.weak.upgrade().expect("whoever calls holds the node");
        self.runtime.spawn(async move {
            if let Err(error) = inner.order_catalog(news).await {
                tracing::debug!(%error, "the catalog could not be told of a component yet");
            }
            inner.noting_activation.store(false, Ordering::Release);
        });
    }

    /// A piece of a stored component, for another node.
    pub(super) fn serve_component(&self, digest: Digest, offset: u64) -> Result<Bytes, String> {
        let bytes = self.store.component(digest).map_err(|error| error.to_string())?;
        let bytes = bytes.ok_or_else(|| "this node does not hold it".to_owned())?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        Ok(bytes.slice(start..(start + COMPONENT_CHUNK_BYTES).min(bytes.len())))
    }
}
