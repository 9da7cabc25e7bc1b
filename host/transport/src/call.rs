//! The asking end of bulk calls, and the knock of a node that has just started.
//!
//! Relies on the peer's channel. Promises a typed reason for each call without an answer. Sets no time
//! limit on calls: the caller does.

use std::sync::Arc;

use bytes::Bytes;
use tonic::{Request, Status};

use crate::error::{LinkFault, RequestError};
use crate::hello::{Refusal, RefusalCode};
use crate::link::{fault_of_status, within};
use crate::peer::Peer;
use crate::proto::peer_client::PeerClient;
use crate::proto::{CallRequest, call_reply};
use crate::tls::AlertTap;
use crate::transport::Inner;

/// Asks a peer.
pub(crate) async fn ask(inner: &Inner, peer: &Peer, body: Bytes) -> Result<Bytes, RequestError> {
    let to = peer.node;
    let bound = inner.limits.call_bytes_max;
    if body.len() > bound {
        return Err(RequestError::TooLarge { bytes: body.len(), bound });
    }
    let hello = Some(inner.ourselves.hello(to));
    let reply = client(inner, peer).call(Request::new(CallRequest { hello, body })).await;
    let reply = reply.map_err(|status| fault(peer, &status))?;
    match reply.into_inner().result {
        Some(call_reply::Result::Body(body)) => Ok(body),
        Some(call_reply::Result::Error(message)) => Err(RequestError::Remote { to, message }),
        None => Err(RequestError::Remote { to, message: "it sent an empty answer".to_owned() }),
    }
}

/// Asks a peer with a lower id to open the link now. Done once: that peer goes on trying by itself.
pub(crate) async fn knock(inner: Arc<Inner>, peer: Arc<Peer>) {
    let address = peer.address.load_full();
    let hello = Request::new(inner.ourselves.hello(peer.node));
    let mut client = client(&inner, &peer);
    let outcome = tokio::select! {
        () = peer.retirement() => return,
        outcome = within(inner.limits.connect_timeout, &address, client.knock(hello)) => outcome,
    };
    let fault = match outcome {
        Ok(Ok(_)) => return,
        Ok(Err(status)) => fault_in(&peer, &status),
        Err(fault) => fault,
    };
    if !peer.is_connected() && peer.note(fault.clone()) {
        tracing::warn!(peer = %peer.node, "no link to node {} yet: {fault}", peer.node);
    }
}

fn client(inner: &Inner, peer: &Peer) -> PeerClient<tonic::transport::Channel> {
    let bound = inner.limits.decode_bytes_max();
    PeerClient::new(peer.calls.clone()).max_decoding_message_size(bound).max_encoding_message_size(bound)
}

fn fault(peer: &Peer, status: &Status) -> RequestError {
    let to = peer.node;
    match fault_in(peer, status) {
        LinkFault::Refused(Refusal { code: RefusalCode::Busy, .. }) => RequestError::Busy { to },
        fault => RequestError::Link { to, fault },
    }
}

/// The fault of the connector, if the channel could not be opened; otherwise what the status says.
fn fault_in(peer: &Peer, status: &Status) -> LinkFault {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if let Some(fault) = error.downcast_ref::<LinkFault>() {
            return fault.clone();
        }
        cause = error.source();
    }
    fault_of_status(&peer.address.load(), "", &AlertTap::default(), status)
}
