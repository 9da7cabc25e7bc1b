//! The port for clients: gRPC over mutual TLS, with health and reflection.
//!
//! Relies on the certificate's role for authority and on the node for everything else. Promises that a
//! request is checked (size, role, names) before anything is done, and that every error is typed and says
//! what to do. Knows no consensus.

mod admin;
mod client;
mod convert;
mod frames;
mod health;
mod submit;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use quorate_proto::frames::PROTOCOL;
use quorate_proto::v1::admin_server::AdminServer;
use quorate_proto::v1::client_server::ClientServer;
use quorate_proto::v1::{Error, ErrorCode};
use quorate_transport::{AcceptLimits, ConnectionInfo, Role, Tls};
use tokio::task::JoinSet;
use tokio_stream::StreamExt as _;
use tonic::{Request, Status};

use crate::node::Inner;

/// HTTP/2 receive window of one stream, in bytes.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// HTTP/2 receive window of one connection, in bytes.
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// The most requests of one connection at a time.
const STREAMS_MAX: u32 = 1_024;

/// The services of one node.
#[derive(Clone)]
pub(crate) struct Api {
    inner: Arc<Inner>,
    connections: quorate_transport::ConnectionCount,
}

/// The running server.
pub(crate) struct ApiServer {
    address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
    /// Connections without HTTP/2.
    relays: Arc<Mutex<JoinSet<()>>>,
}

impl ApiServer {
    pub(crate) async fn start(inner: Arc<Inner>, tls: &Tls) -> Result<Self, String> {
        let limits =
            AcceptLimits { connections_max: inner.config.limits.connections, ..AcceptLimits::default() };
        let incoming = tls.listen(inner.config.listen.api, limits).await.map_err(|error| {
            format!("cannot listen on {}: {error}; choose another listen.api", inner.config.listen.api)
        })?;
        let address = incoming.local_address();
        let (health_reporter, health) = tonic_health::server::health_reporter();
        health_reporter.set_serving::<ClientServer<Api>>().await;
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(quorate_proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()
            .map_err(|error| format!("the reflection service cannot be built: {error}"))?;
        let bytes_max = inner.config.limits.request_bytes;
        let api = Api { inner, connections: incoming.connections() };
        let router = tonic::transport::Server::builder()
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_concurrent_streams(STREAMS_MAX)
            .http2_keepalive_interval(Some(std::time::Duration::from_secs(20)))
            .http2_keepalive_timeout(Some(std::time::Duration::from_secs(20)))
            .http2_max_pending_accept_reset_streams(Some(128))
            .http2_max_header_list_size(16 << 10)
            .add_service(health)
            .add_service(reflection)
            .add_service(ClientServer::new(api.clone()).max_decoding_message_size(bytes_max))
            .add_service(AdminServer::new(api.clone()).max_decoding_message_size(bytes_max));
        let relays = Arc::new(Mutex::new(JoinSet::new()));
        let incoming = {
            let relays = Arc::clone(&relays);
            incoming.also(PROTOCOL).filter_map(move |accepted| match accepted {
                Ok(connection) if connection.protocol() == Some(PROTOCOL) => {
                    let mut relays = relays.lock().unwrap_or_else(PoisonError::into_inner);
                    while relays.try_join_next().is_some() {}
                    relays.spawn(frames::serve(api.clone(), connection));
                    None
                }
                other => Some(other),
            })
        };
        let task = tokio::spawn(async move {
            if let Err(error) = router.serve_with_incoming(incoming).await {
                tracing::error!(%error, "the client port ended");
            }
        });
        Ok(Self { address, task, relays })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the port; requests under way are broken off, and clients repeat them elsewhere.
    pub(crate) async fn stop(self) {
        self.task.abort();
        self.relays.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
        // An aborted task ends with an error that says so.
        drop(self.task.await);
    }
}

/// Refuses a request whose connection does not carry at least this role.
fn require<T>(request: &Request<T>, least: Role) -> Result<(), Status> {
    Ok(require_role(request.extensions().get(), least)?)
}

fn require_role(info: Option<&ConnectionInfo>, least: Role) -> Result<(), Error> {
    let role = info.and_then(|info| info.identity.role());
    if role.is_some_and(|role| role >= least) {
        return Ok(());
    }
    let holder = info.map_or("an unknown holder".to_owned(), |info| info.identity.to_string());
    let message = format!(
        "{holder} may not do this: it needs the role {least}; issue a certificate with \
         `quorate pki client --role {least}`"
    );
    Err(Error::new(ErrorCode::Unauthorized, message))
}
