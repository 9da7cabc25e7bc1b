//! The accepting end of the peer protocol.
//!
//! Relies on TLS for who calls. Promises that nothing of a caller reaches the handler before its
//! certificate and its hello were checked, and bounds on how long and how often it may try. Knows no
//! frame's meaning.

use std::pin::Pin;
use std::sync::Arc;

use quorate_types::NodeId;
use tokio::time::timeout;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use crate::config::TransportLimits;
use crate::hello::{Greeted, Refusal, RefusalCode};
use crate::link;
use crate::peer::Peer;
use crate::proto::link_message::Content;
use crate::proto::{CallReply, CallRequest, Hello, LinkMessage, call_reply, peer_server};
use crate::queue::{Outbound, Queue};
use crate::tls::ConnectionInfo;
use crate::transport::Inner;

/// The service that peers call.
pub(crate) struct Service {
    inner: Arc<Inner>,
}

impl Service {
    /// The service with its limits on messages.
    pub(crate) fn limited(inner: Arc<Inner>) -> peer_server::PeerServer<Self> {
        let bound = inner.limits.decode_bytes_max();
        peer_server::PeerServer::new(Self { inner })
            .max_decoding_message_size(bound)
            .max_encoding_message_size(bound)
    }

    /// The node whose certificate opened the connection.
    fn certified<T>(&self, request: &Request<T>) -> Result<NodeId, Refusal> {
        let info = request.extensions().get::<ConnectionInfo>();
        let info = info.expect("every connection of the peer port passed the TLS acceptor");
        let outcome = self.inner.ourselves.check_certificate(&info.identity);
        outcome.inspect_err(|refusal| self.log(info, refusal))
    }

    /// Checks a hello and finds the member that sent it.
    fn admit(&self, certified: NodeId, hello: &Hello) -> Result<(Arc<Peer>, Greeted), Refusal> {
        let greeted = self.inner.ourselves.check(hello, certified)?;
        let peer = self.inner.peer(greeted.node).ok_or_else(|| {
            let us = self.inner.ourselves.node;
            let message = format!("node {} is not among the peers of node {us}; add it there", greeted.node);
            Refusal::new(RefusalCode::Member, message)
        })?;
        Ok((peer, greeted))
    }

    fn admit_optional(
        &self,
        certified: NodeId,
        hello: Option<&Hello>,
    ) -> Result<(Arc<Peer>, Greeted), Refusal> {
        let hello = hello.ok_or_else(|| {
            Refusal::new(
                RefusalCode::Malformed,
                format!("node {certified} sent no hello; run the same version"),
            )
        })?;
        self.admit(certified, hello)
    }

    /// The hello that a link opens with.
    async fn first(&self, inbound: &mut Streaming<LinkMessage>) -> Result<Option<Hello>, Status> {
        let first = timeout(self.inner.limits.hello_timeout, inbound.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no hello in time"))??;
        Ok(match first.and_then(|message| message.content) {
            Some(Content::Hello(hello)) => Some(hello),
            _ => None,
        })
    }

    fn refuse(&self, info: Option<&ConnectionInfo>, refusal: &Refusal) -> Status {
        if let Some(info) = info {
            self.log(info, refusal);
        }
        refusal.to_status()
    }

    fn log(&self, info: &ConnectionInfo, refusal: &Refusal) {
        let remote = info.remote;
        self.inner.log.warn(|| format!("refused a peer at {remote}: {refusal}"));
    }
}

#[tonic::async_trait]
impl peer_server::Peer for Service {
    type LinkStream = Pin<Box<dyn Stream<Item = Result<LinkMessage, Status>> + Send>>;

    async fn link(
        &self,
        request: Request<Streaming<LinkMessage>>,
    ) -> Result<Response<Self::LinkStream>, Status> {
        let certified = self.certified(&request).map_err(|refusal| refusal.to_status())?;
        let info = request.extensions().get::<ConnectionInfo>().cloned();
        let mut inbound = request.into_inner();
        let hello = self.first(&mut inbound).await?;
        let admitted = self.admit_optional(certified, hello.as_ref());
        let (peer, greeted) = admitted.map_err(|refusal| self.refuse(info.as_ref(), &refusal))?;
        let us = self.inner.ourselves.node;
        if greeted.node > us {
            let message = format!("node {us} opens the link to node {}; knock instead", greeted.node);
            return Err(self.refuse(info.as_ref(), &Refusal::new(RefusalCode::Direction, message)));
        }
        let queue = Queue::new(self.inner.ourselves.hello(greeted.node), &self.inner.limits);
        let session = peer.begin(Arc::clone(&queue), greeted.boot).ok_or_else(|| {
            Refusal::new(RefusalCode::Stopping, format!("node {us} has just dropped its peer")).to_status()
        })?;
        tracing::info!(peer = %peer.node, boot = greeted.boot.0, "linked to node {}", peer.node);
        let limits = self.inner.limits;
        self.inner.spawn(async move {
            tokio::select! {
                () = peer.retirement() => {}
                why = link::read(&limits, session, inbound) => {
                    tracing::warn!(peer = %peer.node, "lost the link to node {}: {why}", peer.node);
                }
            }
        });
        Ok(Response::new(Box::pin(Outbound::new(queue).map(Ok))))
    }

    async fn knock(&self, request: Request<Hello>) -> Result<Response<Hello>, Status> {
        let certified = self.certified(&request).map_err(|refusal| refusal.to_status())?;
        let admitted = self.admit(certified, request.get_ref());
        let info = request.extensions().get::<ConnectionInfo>();
        let (peer, greeted) = admitted.map_err(|refusal| self.refuse(info, &refusal))?;
        peer.end_older(greeted.boot);
        peer.wake.notify_one();
        Ok(Response::new(self.inner.ourselves.hello(greeted.node)))
    }

    async fn call(&self, request: Request<CallRequest>) -> Result<Response<CallReply>, Status> {
        let certified = self.certified(&request).map_err(|refusal| refusal.to_status())?;
        let admitted = self.admit_optional(certified, request.get_ref().hello.as_ref());
        let info = request.extensions().get::<ConnectionInfo>();
        let (peer, greeted) = admitted.map_err(|refusal| self.refuse(info, &refusal))?;
        let bound = self.inner.limits.call_bytes_max;
        let body = request.into_inner().body;
        if body.len() > bound {
            let message = format!("a call of {} bytes is above the bound of {bound}", body.len());
            return Err(Refusal::new(RefusalCode::Malformed, message).to_status());
        }
        let Ok(_place) = peer.answering.try_acquire() else {
            let us = self.inner.ourselves.node;
            return Err(Refusal::new(RefusalCode::Busy, format!("node {us} is busy")).to_status());
        };
        let answer = self.inner.handler.serve(greeted.node, body).await;
        let result = match answer {
            Ok(body) if body.len() > bound => call_reply::Result::Error(format!(
                "the answer of {} bytes is above the bound of {bound}; ask for less at a time",
                body.len()
            )),
            Ok(body) => call_reply::Result::Body(body),
            Err(message) => call_reply::Result::Error(message),
        };
        Ok(Response::new(CallReply { result: Some(result) }))
    }
}

/// How HTTP/2 is spoken by the accepting end.
pub(crate) fn server(limits: &TransportLimits) -> Server {
    Server::builder()
        .initial_stream_window_size(limits.stream_window_bytes)
        .initial_connection_window_size(limits.connection_window_bytes)
        .http2_adaptive_window(Some(false))
        .max_concurrent_streams(limits.streams_max)
        .max_frame_size(limits.http_frame_bytes_max)
        .http2_max_header_list_size(limits.header_list_bytes_max)
        .http2_max_local_error_reset_streams(Some(limits.reset_streams_max))
        .http2_max_pending_accept_reset_streams(Some(limits.reset_streams_max))
        .http2_keepalive_interval(Some(limits.keepalive_interval))
        .http2_keepalive_timeout(Some(limits.keepalive_timeout))
        .accept_http1(false)
}
