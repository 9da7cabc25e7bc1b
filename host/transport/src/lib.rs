//! Carries opaque frames between the nodes of a cluster, over mutual TLS.
//!
//! Relies on tonic for HTTP/2, on rustls for TLS 1.3, and on tokio. Promises one stream for each pair of
//! nodes, both ends proven by certificates that name cluster and node, a bound on everything that waits,
//! and a new link soon after one was lost. Knows nothing of consensus, groups or what a frame means, and
//! promises no delivery: a frame on a link that is lost is lost.
//!
//! ```text
//!    node 1                                             node 2
//!    Transport::send -> queue -> Frames{..} ==link==> Handler::receive
//!    Handler::receive <=========link== Frames{..} <- queue <- Transport::send
//!    Transport::request -- CallRequest ==calls==> Handler::serve
//! ```
//!
//! The node with the lower id opens the link. A node that starts knocks at those with lower ids, so that
//! they need not wait for their next attempt. Calls run over connections of their own.
//!
//! [`tls`] and [`pki`] are also what the client port and the command line use: [`Tls::listen`] gives
//! connections whose [`ConnectionInfo`] says who is at the other end and in which role.

mod call;
mod config;
mod error;
mod gate;
mod hello;
mod link;
mod peer;
pub mod pki;
#[doc(hidden)]
pub mod proto;
mod queue;
mod service;
pub mod tls;
mod transport;

pub use config::{FRAMES_PER_MESSAGE_MAX, TransportConfig, TransportLimits};
pub use error::{CertificateError, LinkFault, RequestError, SendError, TransportError};
pub use hello::{PROTOCOL_VERSION, Refusal, RefusalCode};
pub use peer::PeerStatus;
pub use pki::{PeerIdentity, Role, Subject};
pub use tls::{AcceptLimits, ConnectionCount, ConnectionInfo, Tls, TlsConn, TlsFiles, TlsPem};
pub use transport::{BoxFuture, Handler, Transport};
