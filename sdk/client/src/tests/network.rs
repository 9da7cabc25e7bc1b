//! A network in memory: ports that answer, hang or refuse, and connections that can be cut.
//!
//! Relies on tokio's duplex streams. Promises that cutting a port ends all its connections at both ends.
//! Knows no protocol.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use tokio::io::{DuplexStream, copy_bidirectional, duplex};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

/// Bytes a connection holds in each direction.
const BUFFER_BYTES: usize = 256 << 10;

/// A network.
#[derive(Clone, Debug, Default)]
pub(crate) struct Network {
    ports: Arc<Mutex<BTreeMap<String, Port>>>,
}

#[derive(Debug)]
struct Port {
    accept: mpsc::UnboundedSender<io::Result<DuplexStream>>,
    state: PortState,
    connections: Vec<AbortHandle>,
    dialled: usize,
}

/// How a port behaves towards new connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PortState {
    /// It accepts.
    Up,
    /// It refuses.
    Down,
    /// It does not answer at all.
    Silent,
}

impl Network {
    /// A port that accepts; the receiver gives its connections.
    pub(crate) fn listen(&self, address: &str) -> mpsc::UnboundedReceiver<io::Result<DuplexStream>> {
        let (accept, accepted) = mpsc::unbounded_channel();
        let port = Port { accept, state: PortState::Up, connections: Vec::new(), dialled: 0 };
        self.ports.lock().unwrap().insert(address.to_owned(), port);
        accepted
    }

    pub(crate) async fn dial(&self, address: &str) -> io::Result<DuplexStream> {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let state = {
            let mut ports = self.ports.lock().unwrap();
            let port = ports.get_mut(address).ok_or_else(refused)?;
            port.dialled += 1;
            port.state
        };
        match state {
            PortState::Up => {}
            PortState::Down => return Err(refused()),
            PortState::Silent => std::future::pending().await,
        }
        let (ours, mut near) = duplex(BUFFER_BYTES);
        let (mut far, theirs) = duplex(BUFFER_BYTES);
        let relay = tokio::spawn(async move { copy_bidirectional(&mut near, &mut far).await.map(drop) });
        let mut ports = self.ports.lock().unwrap();
        let port = ports.get_mut(address).ok_or_else(refused)?;
        port.connections.push(relay.abort_handle());
        port.accept.send(Ok(theirs)).map_err(|_| refused())?;
        Ok(ours)
    }

    /// Ends all connections of a port, and sets how it behaves from now on.
    pub(crate) fn cut(&self, address: &str, state: PortState) {
        let mut ports = self.ports.lock().unwrap();
        let port = ports.get_mut(address).unwrap();
        port.state = state;
        port.connections.drain(..).for_each(|connection| connection.abort());
    }

    /// How often a port was dialled.
    pub(crate) fn dialled(&self, address: &str) -> usize {
        self.ports.lock().unwrap()[address].dialled
    }
}
