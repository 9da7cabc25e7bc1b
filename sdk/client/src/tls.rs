//! Secure connections: what the client shows, whom it trusts, and why a connection was refused.
//!
//! Relies on rustls with the ring provider. Promises TLS 1.3 with both ends authenticated by the
//! cluster's authority, the node's certificate being valid for the host that was asked for, or for the one
//! node that is meant. Knows no request.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use quorate_crypto::SecretKey;
use quorate_proto::frames::PROTOCOL;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::config::{Security, host_of};
use crate::error::Error;

const HTTP2: &[u8] = b"h2";
/// How often a connection is checked for life, and how long the answer may take. A stopped machine sends
/// no reset, so this bounds how long its connections are believed in.
pub(crate) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
pub(crate) const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// The client's certificate and key, and the authority that issued the nodes' certificates, in PEM.
#[derive(Clone)]
pub struct TlsConfig {
    /// Certificates of the cluster's authority; one, or two while it is being replaced.
    pub ca_pem: Vec<u8>,
    /// The client's certificate; carries its role.
    pub cert_pem: Vec<u8>,
    /// The client's private key.
    pub key_pem: Vec<u8>,
}

impl std::fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key stays out of logs.
        f.debug_struct("TlsConfig").finish_non_exhaustive()
    }
}

impl TlsConfig {
    /// Reads the three files.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] that names the file.
    pub fn from_files(
        ca: impl AsRef<Path>,
        cert: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> Result<Self, Error> {
        let read = |path: &Path| {
            std::fs::read(path)
                .map_err(|error| Error::Config { reason: format!("cannot read {}: {error}", path.display()) })
        };
        Ok(Self { ca_pem: read(ca.as_ref())?, cert_pem: read(cert.as_ref())?, key_pem: read(key.as_ref())? })
    }

    /// With what the client signs frames: the key and the certificate that it shows in TLS.
    pub(crate) fn identity(&self) -> Result<ClientIdentity, Error> {
        let secret = SecretKey::from_pem(&self.key_pem).ok_or_else(|| Error::Config {
            reason:
                "the client's private key is no Ed25519 key, with which commands are signed for groups whose \
                     replicas may lie; issue a new certificate with `quorate pki client`"
                    .to_owned(),
        })?;
        let certificate = CertificateDer::from_pem_slice(&self.cert_pem)
            .map_err(|error| Error::Config { reason: format!("the client's certificate: {error}") })?;
        Ok(ClientIdentity { secret, certificate: Bytes::copy_from_slice(&certificate) })
    }

    /// A connector that agrees on one of these protocols.
    fn connector(&self, protocols: &[&[u8]]) -> Result<TlsConnector, Error> {
        let wrong =
            |what: &str, error: &dyn std::fmt::Display| Error::Config { reason: format!("{what}: {error}") };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&self.ca_pem) {
            let certificate = certificate.map_err(|error| wrong("certificate of the authority", &error))?;
            roots.add(certificate).map_err(|error| wrong("certificate of the authority", &error))?;
        }
        if roots.is_empty() {
            return Err(wrong("certificate of the authority", &"the PEM text holds none"));
        }
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&self.cert_pem)
            .collect::<Result<_, _>>()
            .map_err(|error| wrong("the client's certificate", &error))?;
        let key = PrivateKeyDer::from_pem_slice(&self.key_pem)
            .map_err(|error| wrong("the client's private key", &error))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| wrong("TLS 1.3", &error))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(|error| wrong("the client's certificate and private key", &error))?;
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

/// With what a client signs, and what shows that it may.
pub(crate) struct ClientIdentity {
    /// Its key.
    pub(crate) secret: SecretKey,
    /// Its certificate, in DER.
    pub(crate) certificate: Bytes,
}

/// Where a node is reached and as whom it must show itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Peer {
    /// As `host:port`.
    pub(crate) address: String,
    /// The name that its certificate must carry, where it matters which node it is; otherwise the host.
    pub(crate) name: Option<String>,
}

/// Opens connections.
pub(crate) enum Dialer {
    /// Over TCP with TLS.
    Tls {
        /// For HTTP/2.
        http2: TlsConnector,
        /// For frames, or else for HTTP/2.
        frames: TlsConnector,
    },
    #[cfg(test)]
    Memory(crate::tests::network::Network),
}

impl Dialer {
    pub(crate) fn new(security: &Security) -> Result<Self, Error> {
        match security {
            Security::Tls(tls) => {
                Ok(Self::Tls { http2: tls.connector(&[HTTP2])?, frames: tls.connector(&[PROTOCOL, HTTP2])? })
            }
            #[cfg(test)]
            Security::Memory(network) => Ok(Self::Memory(network.clone())),
        }
    }

    /// Opens a connection for HTTP/2; certificate errors, now or later, are noted in `fault`.
    pub(crate) async fn dial(&self, peer: &Peer, fault: &Arc<TlsFault>) -> io::Result<Connection> {
        match self {
            Self::Tls { http2, .. } => Ok(Connection::new(connect(http2, peer, fault).await?, fault)),
            #[cfg(test)]
            Self::Memory(network) => Ok(Connection::new(network.dial(&peer.address).await?, fault)),
        }
    }

    /// Opens a connection for frames; none if only HTTP/2 is spoken there.
    pub(crate) async fn dial_frames(
        &self,
        peer: &Peer,
        fault: &Arc<TlsFault>,
    ) -> io::Result<Option<Connection>> {
        match self {
            Self::Tls { frames, .. } => {
                let stream = connect(frames, peer, fault).await?;
                let agreed = stream.get_ref().1.alpn_protocol() == Some(PROTOCOL);
                Ok(agreed.then(|| Connection::new(stream, fault)))
            }
            #[cfg(test)]
            Self::Memory(_) => Ok(None),
        }
    }
}

async fn connect(
    tls: &TlsConnector,
    Peer { address, name }: &Peer,
    fault: &TlsFault,
) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    // HTTP/2 asks by itself; frames leave it to the system, which also gives up what is not acknowledged.
    let probes = TcpKeepalive::new().with_time(KEEPALIVE_INTERVAL).with_interval(KEEPALIVE_INTERVAL);
    SockRef::from(&tcp).set_tcp_keepalive(&probes)?;
    #[cfg(target_os = "linux")]
    SockRef::from(&tcp).set_tcp_user_timeout(Some(KEEPALIVE_INTERVAL + KEEPALIVE_TIMEOUT))?;
    let host = name.as_deref().or_else(|| host_of(address));
    let host = host.and_then(|host| ServerName::try_from(host.to_owned()).ok());
    let host = host.ok_or_else(|| io::Error::other(format!("{address} names no host")))?;
    tls.connect(host, tcp).await.inspect_err(|error| fault.observe(error))
}

/// Why TLS with one node failed the last time; with TLS 1.3 a client learns only after the handshake
/// that its certificate is refused, and HTTP/2 does not hand that on.
#[derive(Debug, Default)]
pub(crate) struct TlsFault {
    reason: Mutex<Option<String>>,
}

impl TlsFault {
    pub(crate) fn get(&self) -> Option<String> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The node answered: whatever was wrong is over.
    pub(crate) fn clear(&self) {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn observe(&self, error: &io::Error) {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if let Some(fault @ (rustls::Error::InvalidCertificate(_) | rustls::Error::AlertReceived(_))) = inner
        {
            *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault.to_string());
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection that notes why TLS ends it.
pub(crate) struct Connection {
    stream: Box<dyn Stream>,
    fault: Arc<TlsFault>,
}

impl Connection {
    fn new(stream: impl Stream + 'static, fault: &Arc<TlsFault>) -> Self {
        Self { stream: Box::new(stream), fault: Arc::clone(fault) }
    }

    fn observed<T>(&self, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &outcome {
            self.fault.observe(error);
        }
        outcome
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.observed(outcome)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.observed(outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.observed(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(cx);
        self.observed(outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
