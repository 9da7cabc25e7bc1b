//! What can go wrong, said so that the reader knows what to do next.
//!
//! Relies on the shared identities. Promises typed facts beside the sentences. Knows no recovery.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use quorate_types::NodeId;

use crate::hello::Refusal;

/// A transport does not start.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The peer port cannot be opened.
    #[error("cannot listen for peers on {address}: {source}; choose another address or end what uses it")]
    Listen {
        /// The address from the configuration.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The certificate is of another node, another cluster, or of a client.
    #[error(
        "the certificate is of {found}, but this is {expected}; use the certificate issued for this node"
    )]
    WrongCertificate {
        /// Whom the certificate names.
        found: String,
        /// Who this node is.
        expected: String,
    },
    /// A certificate, key or authority cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// Two limits contradict each other.
    #[error("transport limits: {rule}")]
    Limit {
        /// What must hold.
        rule: &'static str,
    },
}

/// A certificate, key or authority cannot be made, read or used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is there already and is not to be replaced.
    #[error("{path} exists and is kept; choose another directory, or move it away first")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// Others than its owner may read a private key.
    #[error("the key {path} may be read by others (mode {mode:o}); run: chmod 600 {path}")]
    KeyExposed {
        /// The key's file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A text is not a certificate or key in PEM.
    #[error("{what} holds no PEM of the expected kind; issue it again")]
    NotPem {
        /// The file, or what was read.
        what: String,
    },
    /// The authority did not issue the certificate, or it is not valid now.
    #[error("the certificate of {holder} cannot be used with this authority: {reason}; issue a new one")]
    NotTrusted {
        /// Whom the certificate names.
        holder: String,
        /// What the check said.
        reason: String,
    },
    /// A certificate does not name one node or client of a cluster.
    #[error("the certificate does not say who holds it: {reason}; issue it with this cluster's authority")]
    NoIdentity {
        /// What is wrong.
        reason: String,
    },
    /// A reload would make this process someone else.
    #[error("the new certificate is of {found}, the one in use of {expected}; restart to change identity")]
    IdentityChanged {
        /// Whom the new certificate names.
        found: String,
        /// Whom the one in use names.
        expected: String,
    },
    /// Node 0 has no certificate.
    #[error("nodes are numbered from 1")]
    BadNode,
    /// A text is not a client's name.
    #[error("{name:?} is not a client name; use 1 to 64 letters, digits, dots, hyphens, underscores or @")]
    BadName {
        /// The text.
        name: String,
    },
    /// A text is not a host's name or address.
    #[error("{host:?} is not a host; give a DNS name outside .quorate or an IP address, without a port")]
    BadHost {
        /// The text.
        host: String,
    },
    /// A key or certificate cannot be made.
    #[error("cannot issue a certificate: {0}")]
    Issue(#[from] rcgen::Error),
    /// TLS refuses the certificate or key.
    #[error("certificate and key cannot be used for TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// A frame was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The peer's queue is full: it takes frames more slowly than they are sent.
    #[error("the queue to node {to} is full; send less or later")]
    Full {
        /// The peer.
        to: NodeId,
    },
    /// There is no link to the peer now.
    #[error("node {to} is not connected")]
    NotConnected {
        /// The peer.
        to: NodeId,
    },
    /// The node is not among the peers.
    #[error("node {to} is not among the peers")]
    UnknownPeer {
        /// The node.
        to: NodeId,
    },
    /// The frame is empty or above the bound.
    #[error("a frame of {bytes} bytes is refused; a frame has 1 to {bound} bytes")]
    Size {
        /// The frame's bytes.
        bytes: usize,
        /// The greatest frame.
        bound: usize,
    },
}

/// A request was not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The node is not among the peers.
    #[error("node {to} is not among the peers")]
    UnknownPeer {
        /// The node.
        to: NodeId,
    },
    /// The request is above the bound.
    #[error("a request of {bytes} bytes is above the bound of {bound}")]
    TooLarge {
        /// The request's bytes.
        bytes: usize,
        /// The greatest request.
        bound: usize,
    },
    /// No answer came in time; the request may have been carried out.
    #[error("node {to} did not answer in time")]
    TimedOut {
        /// The peer.
        to: NodeId,
    },
    /// The peer answers as many calls of this node as it may; try again later.
    #[error("node {to} is busy; try again later")]
    Busy {
        /// The peer.
        to: NodeId,
    },
    /// The peer could not answer the question.
    #[error("node {to} could not answer: {message}")]
    Remote {
        /// The peer.
        to: NodeId,
        /// What it said.
        message: String,
    },
    /// The peer was not reached, turned this node away, or broke off.
    #[error("node {to}: {fault}")]
    Link {
        /// The peer.
        to: NodeId,
        /// Why.
        fault: LinkFault,
    },
}

/// Why there is no connection to a peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkFault {
    /// Nothing accepts connections there.
    #[error("cannot reach {address}: {reason}")]
    Unreachable {
        /// The peer's address.
        address: String,
        /// What the system said.
        reason: String,
    },
    /// No connection or no hello within the time allowed.
    #[error("{address} did not answer in time")]
    TimedOut {
        /// The peer's address.
        address: String,
    },
    /// What answers is not of this cluster.
    #[error(
        "what answers at {address} has a certificate that this cluster's authority did not issue; check that \
         address in [peers], or its certificate"
    )]
    UnknownAuthority {
        /// The peer's address.
        address: String,
    },
    /// Another node of this cluster, or none, answers there.
    #[error("what answers at {address} is not {expected} but {found}; check that address in [peers]")]
    WrongNode {
        /// The peer's address.
        address: String,
        /// The name that was looked for.
        expected: String,
        /// The names that were found.
        found: String,
    },
    /// The peer's certificate is out of its dates or otherwise unusable.
    #[error("the certificate at {address} is refused: {reason}; issue a new one for that node")]
    PeerCertificate {
        /// The peer's address.
        address: String,
        /// What the check said.
        reason: String,
    },
    /// The peer refused this node's certificate.
    #[error("{address} refused this node's certificate: {reason}; issue a new one for this node")]
    OwnCertificate {
        /// The peer's address.
        address: String,
        /// The alert that came.
        reason: String,
    },
    /// What answers does not speak TLS 1.3 with HTTP/2.
    #[error(
        "what answers at {address} does not speak the peer protocol: {reason}; check that address in [peers]"
    )]
    Protocol {
        /// The peer's address.
        address: String,
        /// What went wrong.
        reason: String,
    },
    /// The peer turned this node away.
    #[error("the peer refused: {0}")]
    Refused(Refusal),
    /// This node turned the peer away after its hello.
    #[error("the peer is refused: {0}")]
    Disagrees(Refusal),
    /// The connection broke.
    #[error("connection lost: {reason}")]
    Lost {
        /// What happened.
        reason: String,
    },
}
