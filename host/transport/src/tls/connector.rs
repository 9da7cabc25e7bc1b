//! Opens TLS connections and says in which way one failed.
//!
//! Relies on tokio for sockets and names. Promises that the other end proved the expected name under the
//! cluster's authority and agreed on HTTP/2. Sets no time limit: the caller does.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use quorate_types::NodeId;
use rustls::CertificateError as Verdict;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{ALPN_HTTP2, Tls};
use crate::error::LinkFault;
use crate::pki::node_name;

/// Keeps the TLS error that ended a connection. HTTP/2 reports such an error as text only, and an alert
/// about this side's certificate arrives when HTTP/2 has already begun.
#[derive(Clone, Debug, Default)]
pub(crate) struct AlertTap {
    seen: Arc<OnceLock<rustls::Error>>,
}

impl AlertTap {
    fn observe(&self, error: &io::Error) {
        if let Some(tls) = tls_error(error) {
            // Only the first error tells why; later ones are its consequences.
            self.seen.get_or_init(|| tls.clone());
        }
    }

    /// The TLS error that ended the connection, if one did.
    pub(crate) fn error(&self) -> Option<&rustls::Error> {
        self.seen.get()
    }
}

/// A connection that this side opened.
#[derive(Debug)]
pub struct ClientConn {
    stream: TlsStream<TcpStream>,
    tap: AlertTap,
}

impl ClientConn {
    pub(crate) fn tap(&self) -> AlertTap {
        self.tap.clone()
    }

    fn observe<T>(&self, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &outcome {
            self.tap.observe(error);
        }
        outcome
    }
}

impl AsyncRead for ClientConn {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.observe(outcome)
    }
}

impl AsyncWrite for ClientConn {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.observe(outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.observe(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(cx);
        self.observe(outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Tls {
    /// Opens a connection to a node of this cluster, which must prove to be that node.
    ///
    /// # Errors
    ///
    /// [`LinkFault`], by what went wrong.
    pub async fn connect_to_node(&self, address: &str, node: NodeId) -> Result<ClientConn, LinkFault> {
        let name = node_name(self.identity().cluster, node);
        let name = ServerName::try_from(name).expect("a node's name is a DNS name by construction");
        self.connect(address, name).await
    }

    /// Opens a connection to whichever node of this cluster answers at `address`, as clients do; its
    /// certificate must name the host.
    ///
    /// # Errors
    ///
    /// [`LinkFault`], by what went wrong.
    pub async fn connect_to_host(&self, address: &str) -> Result<ClientConn, LinkFault> {
        let name = host_of(address).and_then(|host| ServerName::try_from(host.to_owned()).ok());
        let name = name.ok_or_else(|| LinkFault::Unreachable {
            address: address.to_owned(),
            reason: "it is not of the form host:port".to_owned(),
        })?;
        self.connect(address, name).await
    }

    async fn connect(&self, address: &str, name: ServerName<'static>) -> Result<ClientConn, LinkFault> {
        let unreachable = |error: io::Error| LinkFault::Unreachable {
            address: address.to_owned(),
            reason: error.to_string(),
        };
        let socket = TcpStream::connect(address).await.map_err(unreachable)?;
        socket.set_nodelay(true).map_err(unreachable)?;
        let expected = name.to_str().into_owned();
        let stream = TlsConnector::from(self.client_tls()).connect(name, socket).await;
        let stream = stream.map_err(|error| match tls_error(&error) {
            Some(tls) => fault_of_tls(address, &expected, tls),
            None => protocol(address, error.to_string()),
        })?;
        if stream.get_ref().1.alpn_protocol() != Some(ALPN_HTTP2) {
            return Err(protocol(address, "it does not offer HTTP/2".to_owned()));
        }
        Ok(ClientConn { stream, tap: AlertTap::default() })
    }
}

/// The host of `host:port`, without the brackets of an IPv6 address.
fn host_of(address: &str) -> Option<&str> {
    let (host, port) = address.rsplit_once(':')?;
    port.parse::<u16>().ok()?;
    Some(host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host))
}

fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>())
}

fn protocol(address: &str, reason: String) -> LinkFault {
    LinkFault::Protocol { address: address.to_owned(), reason }
}

/// Sorts a TLS error by who has to do something about it.
pub(crate) fn fault_of_tls(address: &str, expected: &str, error: &rustls::Error) -> LinkFault {
    let address = address.to_owned();
    match error {
        rustls::Error::InvalidCertificate(Verdict::UnknownIssuer | Verdict::BadSignature) => {
            LinkFault::UnknownAuthority { address }
        }
        rustls::Error::InvalidCertificate(Verdict::NotValidForNameContext { presented, .. }) => {
            let found = presented.join(", ");
            LinkFault::WrongNode { address, expected: expected.to_owned(), found }
        }
        rustls::Error::InvalidCertificate(other) => {
            LinkFault::PeerCertificate { address, reason: other.to_string() }
        }
        rustls::Error::AlertReceived(alert) if is_about_certificates(*alert) => {
            LinkFault::OwnCertificate { address, reason: format!("{alert:?}") }
        }
        other => LinkFault::Protocol { address, reason: other.to_string() },
    }
}

fn is_about_certificates(alert: rustls::AlertDescription) -> bool {
    use rustls::AlertDescription as Alert;
    matches!(
        alert,
        Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::CertificateRequired
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::DecryptError
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_taken_from_addresses() {
        assert_eq!(host_of("db.example:7001"), Some("db.example"));
        assert_eq!(host_of("[::1]:7001"), Some("::1"));
        for odd in ["db.example", "db.example:port", "db.example:70000", ""] {
            assert_eq!(host_of(odd), None, "{odd:?}");
        }
    }
}
