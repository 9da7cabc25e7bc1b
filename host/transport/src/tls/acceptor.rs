//! Accepts TLS connections and hands on only those whose holder is known.
//!
//! Relies on tokio for sockets and timers. Promises a bound on the time and number of handshakes and on
//! all connections, and that whatever else arrives is closed, with at most one log line a second. Knows
//! no protocol above TLS.
//!
//! ```text
//! accept -> connections_max? -> handshake (handshakes_max at a time, handshake_timeout) -> identity -> out
//!                 |                                |                                          |
//!               close                    alert, then close                                  close
//! ```

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::Stream;
use tonic::transport::server::Connected;

use super::Tls;
use crate::gate::LogGate;
use crate::pki::{PeerIdentity, peer_identity};

/// How long accepting pauses when the system has no more sockets to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long a connection is silent before the system asks whether the other machine is still there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(20);
/// How long a failed handshake may take to deliver its alert.
const ALERT_LINGER: Duration = Duration::from_millis(500);

/// Bounds on connections that others open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptLimits {
    /// The most handshakes at a time; later connections wait in the system's queue.
    pub handshakes_max: usize,
    /// The most connections, those in handshake included; above, new ones are closed at once.
    pub connections_max: usize,
    /// The longest time for a handshake.
    pub handshake_timeout: Duration,
}

impl Default for AcceptLimits {
    fn default() -> Self {
        Self { handshakes_max: 64, connections_max: 1_024, handshake_timeout: Duration::from_secs(5) }
    }
}

/// Who is at the other end; every request carries it in its extensions.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    /// The verified holder of the certificate.
    pub identity: Arc<PeerIdentity>,
    /// Where it connected from.
    pub remote: SocketAddr,
}

/// An accepted connection whose holder is verified.
#[derive(Debug)]
pub struct TlsConn {
    stream: TlsStream<TcpStream>,
    info: ConnectionInfo,
    /// Counts against `connections_max` until the connection is dropped.
    _permit: OwnedSemaphorePermit,
}

impl TlsConn {
    /// Who is at the other end.
    #[must_use]
    pub fn info(&self) -> &ConnectionInfo {
        &self.info
    }

    /// The protocol above TLS that both ends agreed on.
    #[must_use]
    pub fn protocol(&self) -> Option<&[u8]> {
        self.stream.get_ref().1.alpn_protocol()
    }
}

impl Connected for TlsConn {
    type ConnectInfo = ConnectionInfo;

    fn connect_info(&self) -> ConnectionInfo {
        self.info.clone()
    }
}

impl AsyncRead for TlsConn {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for TlsConn {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The connections that a listener accepts, as a stream that never ends and never fails: what cannot be
/// accepted is logged and closed. Dropping it closes the listener and ends the handshakes.
pub struct Incoming {
    listener: TcpListener,
    local: SocketAddr,
    tls: Tls,
    /// A protocol that is agreed on rather than HTTP/2, where the other end knows it.
    also: Option<&'static [u8]>,
    limits: AcceptLimits,
    handshakes: JoinSet<Option<TlsConn>>,
    places: Arc<Semaphore>,
    /// Set while the system has no more sockets to give.
    pause: Option<Pin<Box<Sleep>>>,
    log: Arc<LogGate>,
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming").field("local", &self.local).finish_non_exhaustive()
    }
}

impl Tls {
    /// Opens a listener whose connections are verified, for `serve_with_incoming` of a tonic server.
    ///
    /// # Errors
    ///
    /// What the system says if the address cannot be listened on.
    pub async fn listen(&self, address: SocketAddr, limits: AcceptLimits) -> io::Result<Incoming> {
        self.acceptor(TcpListener::bind(address).await?, limits)
    }

    /// [`Tls::listen`] on a listener that is open already.
    ///
    /// # Errors
    ///
    /// What the system says if the listener has no local address.
    pub fn acceptor(&self, listener: TcpListener, limits: AcceptLimits) -> io::Result<Incoming> {
        Ok(Incoming {
            local: listener.local_addr()?,
            listener,
            tls: self.clone(),
            also: None,
            limits,
            handshakes: JoinSet::new(),
            places: Arc::new(Semaphore::new(limits.connections_max)),
            pause: None,
            log: Arc::new(LogGate::default()),
        })
    }
}

/// Counts what is open of an [`Incoming`]; stays true after that was handed to a server.
#[derive(Clone, Debug)]
pub struct ConnectionCount {
    places: Arc<Semaphore>,
    bound: usize,
}

impl ConnectionCount {
    /// Connections open now, those that still shake hands among them.
    #[must_use]
    pub fn count(&self) -> usize {
        self.bound.saturating_sub(self.places.available_permits())
    }
}

impl Incoming {
    /// Agrees on this protocol as well, with whoever knows it (ALPN, RFC 7301); see [`TlsConn::protocol`].
    #[must_use]
    pub fn also(self, protocol: &'static [u8]) -> Self {
        Self { also: Some(protocol), ..self }
    }

    /// A count of the connections that came from here.
    #[must_use]
    pub fn connections(&self) -> ConnectionCount {
        ConnectionCount { places: Arc::clone(&self.places), bound: self.limits.connections_max }
    }

    /// Where connections are accepted.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.local
    }

    fn begin(&mut self, socket: TcpStream, remote: SocketAddr) {
        let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() else {
            let bound = self.limits.connections_max;
            self.log.warn(|| format!("closed a connection from {remote}: {bound} are open already"));
            return;
        };
        let mut config = self.tls.server_tls();
        if let Some(also) = self.also {
            // The end that accepts chooses, and it prefers what it names first.
            Arc::make_mut(&mut config).alpn_protocols.insert(0, also.to_vec());
        }
        let allowed = self.limits.handshake_timeout;
        let log = Arc::clone(&self.log);
        self.handshakes.spawn(async move {
            let outcome = timeout(allowed, handshake(config, socket, remote)).await;
            match outcome.unwrap_or_else(|_| Err("no TLS handshake in time".to_owned())) {
                Ok((stream, info)) => Some(TlsConn { stream, info, _permit: permit }),
                Err(reason) => {
                    log.warn(|| format!("refused a connection from {remote}: {reason}"));
                    None
                }
            }
        });
    }

    /// Waits out the pause, if there is one.
    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(pause) = &mut self.pause else { return Poll::Ready(()) };
        std::task::ready!(pause.as_mut().poll(cx));
        self.pause = None;
        Poll::Ready(())
    }

    fn accept_failed(&mut self, error: &io::Error) {
        use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
        if matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted) {
            return;
        }
        self.log.warn(|| format!("cannot accept on {}: {error}; raise the limit of open files", self.local));
        self.pause = Some(Box::pin(sleep(ACCEPT_PAUSE)));
    }
}

impl Stream for Incoming {
    type Item = Result<TlsConn, io::Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            while let Poll::Ready(Some(done)) = this.handshakes.poll_join_next(cx) {
                // A handshake that was refused, or whose task panicked, leaves nothing to hand on.
                if let Ok(Some(connection)) = done {
                    return Poll::Ready(Some(Ok(connection)));
                }
            }
            if this.handshakes.len() >= this.limits.handshakes_max {
                return Poll::Pending;
            }
            std::task::ready!(this.poll_pause(cx));
            match std::task::ready!(this.listener.poll_accept(cx)) {
                Ok((socket, remote)) => this.begin(socket, remote),
                Err(error) => this.accept_failed(&error),
            }
        }
    }
}

async fn handshake(
    config: Arc<rustls::ServerConfig>,
    socket: TcpStream,
    remote: SocketAddr,
) -> Result<(TlsStream<TcpStream>, ConnectionInfo), String> {
    keep_alive(&socket).map_err(|error| error.to_string())?;
    match TlsAcceptor::from(config).accept(socket).into_fallible().await {
        Ok(stream) => {
            let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
            let holder = chain.first().ok_or_else(|| "it showed no certificate".to_owned())?;
            let identity = peer_identity(holder).map_err(|error| error.to_string())?;
            Ok((stream, ConnectionInfo { identity: Arc::new(identity), remote }))
        }
        Err((error, socket)) => {
            // The outcome of saying goodbye changes nothing: the connection is closed either way.
            drop(timeout(ALERT_LINGER, deliver_alert(socket)).await);
            Err(error.to_string())
        }
    }
}

/// Has the system find out that the other machine is gone; only whoever speaks HTTP/2 would.
fn keep_alive(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let probes = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_IDLE / 4);
    SockRef::from(socket).set_tcp_keepalive(&probes)
}

/// Closes so that the alert arrives: closing with unread bytes would reset the connection, and a reset
/// can overtake the alert that says why.
async fn deliver_alert(mut socket: TcpStream) -> io::Result<()> {
    socket.shutdown().await?;
    let mut scrap = [0; 4_096];
    while socket.read(&mut scrap).await? > 0 {}
    Ok(())
}
