//! Mutual TLS 1.3 for peers and clients alike.
//!
//! Relies on rustls with its *ring* provider, named explicitly so that no process-wide default matters.
//! Promises that both ends are verified against the cluster's authority, that HTTP/2 is agreed on, and
//! that a reload takes effect with the next connection. Sessions are never resumed: a resumed one would
//! skip the check against authorities that were replaced meanwhile. Decides nothing about who may do what.

mod acceptor;
mod connector;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

pub use acceptor::{AcceptLimits, ConnectionCount, ConnectionInfo, Incoming, TlsConn};
pub use connector::ClientConn;
pub(crate) use connector::{AlertTap, fault_of_tls};

use crate::error::CertificateError;
use crate::pki::files::{read_key, read_public};
use crate::pki::{AUTHORITY_CERTIFICATE_FILE, PeerIdentity, ed25519_key, peer_identity};

/// The protocol both ends must agree on.
const ALPN_HTTP2: &[u8] = b"h2";
/// The most certificates of authorities in one file; more than two serve no replacement.
const AUTHORITIES_MAX: usize = 16;

/// Where certificate, key and authority lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of the trusted authorities; two while one replaces the other.
    pub authority: PathBuf,
    /// The holder's certificate.
    pub certificate: PathBuf,
    /// The holder's key, readable for its owner only.
    pub key: PathBuf,
}

impl TlsFiles {
    /// The file names that [`crate::pki::Credentials::write_to`] uses.
    #[must_use]
    pub fn named(directory: &Path, name: &str) -> Self {
        Self {
            authority: directory.join(AUTHORITY_CERTIFICATE_FILE),
            certificate: directory.join(format!("{name}.pem")),
            key: directory.join(format!("{name}-key.pem")),
        }
    }

    fn read(&self) -> Result<TlsPem, CertificateError> {
        Ok(TlsPem {
            authority: read_public(&self.authority)?,
            certificate: read_public(&self.certificate)?,
            key: read_key(&self.key)?,
        })
    }
}

/// Certificate, key and authority as PEM text.
#[derive(Clone)]
pub struct TlsPem {
    /// Certificates of the trusted authorities.
    pub authority: String,
    /// The holder's certificate.
    pub certificate: String,
    /// The holder's key.
    pub key: String,
}

impl std::fmt::Debug for TlsPem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key stays out of logs.
        f.debug_struct("TlsPem").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// One identity for accepting and opening connections; clones share it and its reloads.
#[derive(Clone)]
pub struct Tls {
    shared: Arc<Shared>,
}

struct Shared {
    /// Where to read again; none if the identity was given as text.
    files: Option<TlsFiles>,
    loaded: ArcSwap<Loaded>,
}

/// What one reading gave.
struct Loaded {
    identity: Arc<PeerIdentity>,
    verifier: Arc<dyn ClientCertVerifier>,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("identity", &self.identity()).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads an identity from files; [`Tls::reload`] reads them again.
    ///
    /// # Errors
    ///
    /// [`CertificateError`] if a file cannot be read, others may read the key, or the three do not fit
    /// together or are out of their dates.
    pub fn from_files(files: TlsFiles) -> Result<Self, CertificateError> {
        let loaded = load(&files.read()?)?;
        Ok(Self { shared: Arc::new(Shared { files: Some(files), loaded: ArcSwap::from_pointee(loaded) }) })
    }

    /// Takes an identity from memory; [`Tls::replace`] changes it.
    ///
    /// # Errors
    ///
    /// As [`Tls::from_files`], without the files.
    pub fn from_pem(pem: &TlsPem) -> Result<Self, CertificateError> {
        let loaded = load(pem)?;
        Ok(Self { shared: Arc::new(Shared { files: None, loaded: ArcSwap::from_pointee(loaded) }) })
    }

    /// Reads the files again; connections made from now on use them. Does nothing for an identity from
    /// memory.
    ///
    /// # Errors
    ///
    /// As [`Tls::from_files`] and [`CertificateError::IdentityChanged`]; what was in use stays.
    pub fn reload(&self) -> Result<(), CertificateError> {
        match &self.shared.files {
            Some(files) => self.replace(&files.read()?),
            None => Ok(()),
        }
    }

    /// Uses another certificate of the same holder, or other authorities, from now on.
    ///
    /// # Errors
    ///
    /// As [`Tls::from_pem`] and [`CertificateError::IdentityChanged`]; what was in use stays.
    pub fn replace(&self, pem: &TlsPem) -> Result<(), CertificateError> {
        let loaded = load(pem)?;
        let expected = self.identity();
        if loaded.identity != expected {
            let found = loaded.identity.to_string();
            return Err(CertificateError::IdentityChanged { found, expected: expected.to_string() });
        }
        self.shared.loaded.store(Arc::new(loaded));
        Ok(())
    }

    /// Who holds the certificate.
    #[must_use]
    pub fn identity(&self) -> Arc<PeerIdentity> {
        Arc::clone(&self.shared.loaded.load().identity)
    }

    /// Who holds a certificate that was shown outside TLS, and the Ed25519 key that it names.
    ///
    /// # Errors
    ///
    /// [`CertificateError`] if the cluster's authorities do not vouch for it here and now, if it names no holder of
    /// this cluster, or a key of another kind.
    pub fn holder_of(&self, certificate: &[u8]) -> Result<(PeerIdentity, [u8; 32]), CertificateError> {
        let certificate = CertificateDer::from(certificate);
        let loaded = self.shared.loaded.load();
        let identity = peer_identity(&certificate)?;
        let not_trusted =
            |reason: String| CertificateError::NotTrusted { holder: identity.to_string(), reason };
        let verified = loaded.verifier.verify_client_cert(&certificate, &[], UnixTime::now());
        verified.map_err(|error| not_trusted(error.to_string()))?;
        if identity.cluster != loaded.identity.cluster {
            return Err(not_trusted(format!("this is cluster {}", loaded.identity.cluster)));
        }
        let key = ed25519_key(&certificate)?;
        Ok((identity, key))
    }

    /// The configuration for accepting connections now: TLS 1.3, HTTP/2, a client certificate of the
    /// cluster required.
    #[must_use]
    pub fn server_tls(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.shared.loaded.load().server)
    }

    /// The configuration for opening connections now: TLS 1.3, HTTP/2, the cluster's authority alone
    /// trusted, this holder's certificate shown.
    #[must_use]
    pub fn client_tls(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.shared.loaded.load().client)
    }
}

/// Builds both configurations and checks that certificate and authority belong together.
fn load(pem: &TlsPem) -> Result<Loaded, CertificateError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = certificates(&pem.certificate, "the certificate")?;
    let mut roots = RootCertStore::empty();
    for authority in certificates(&pem.authority, "the authority")? {
        roots.add(authority)?;
    }
    let roots = Arc::new(roots);
    let key = || {
        PrivateKeyDer::from_pem_slice(pem.key.as_bytes())
            .map_err(|_| CertificateError::NotPem { what: "the key".to_owned() })
    };
    let identity = Arc::new(peer_identity(&chain[0])?);
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
        .build()
        .map_err(|error| CertificateError::Tls(rustls::Error::General(error.to_string())))?;
    let server = server_config(&provider, &verifier, &identity, &chain, key()?)?;
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key()?)?;
    client.alpn_protocols = vec![ALPN_HTTP2.to_vec()];
    client.resumption = Resumption::disabled();
    client.enable_early_data = false;
    Ok(Loaded { identity, verifier, server: Arc::new(server), client: Arc::new(client) })
}

fn server_config(
    provider: &Arc<CryptoProvider>,
    verifier: &Arc<dyn ClientCertVerifier>,
    identity: &PeerIdentity,
    chain: &[CertificateDer<'static>],
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, CertificateError> {
    // Peers will make the same check; here it fails with a sentence instead of an alert at each of them.
    let trusted = verifier.verify_client_cert(&chain[0], &chain[1..], UnixTime::now());
    trusted.map_err(|error| CertificateError::NotTrusted {
        holder: identity.to_string(),
        reason: error.to_string(),
    })?;
    let mut server = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::clone(verifier))
        .with_single_cert(chain.to_vec(), key)?;
    server.alpn_protocols = vec![ALPN_HTTP2.to_vec()];
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    server.max_early_data_size = 0;
    Ok(server)
}

/// At least one certificate from PEM text.
fn certificates(pem: &str, what: &str) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let not_pem = || CertificateError::NotPem { what: what.to_owned() };
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(pem.as_bytes()).take(AUTHORITIES_MAX).collect();
    let found = found.map_err(|_| not_pem())?;
    if found.is_empty() { Err(not_pem()) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::{Duration, SystemTime};

    use quorate_types::{ClusterId, NodeId};

    use super::*;
    use crate::pki::{Authority, Validity};

    fn authority() -> Authority {
        Authority::create(ClusterId([1; 16])).unwrap()
    }

    #[test]
    fn a_certificate_of_another_authority_is_refused_at_start() {
        let mut pem = authority().issue_node(NodeId(1), &[]).unwrap().to_tls_pem();
        assert!(Tls::from_pem(&pem).is_ok());
        pem.authority = authority().certificate_pem().to_owned();
        assert!(matches!(Tls::from_pem(&pem), Err(CertificateError::NotTrusted { .. })));
    }

    /// What could go wrong: a key that the authority does not know opens sessions, or a node acts as a client.
    #[test]
    fn a_certificate_shown_outside_tls_is_believed_if_the_authority_vouches_for_it_now() {
        let authority = authority();
        let tls = Tls::from_pem(&authority.issue_node(NodeId(1), &[]).unwrap().to_tls_pem()).unwrap();
        let der = |credentials: &crate::pki::Credentials| {
            CertificateDer::from_pem_slice(credentials.certificate_pem.as_bytes()).unwrap().to_vec()
        };
        let app = authority.issue_client("app", crate::Role::Writer).unwrap();
        let (holder, key) = tls.holder_of(&der(&app)).unwrap();
        assert_eq!(holder.role(), Some(crate::Role::Writer));
        assert_ne!(
            tls.holder_of(&der(&authority.issue_client("b", crate::Role::Writer).unwrap())).unwrap().1,
            key
        );

        let stranger = Authority::create(ClusterId([1; 16])).unwrap();
        let stranger = stranger.issue_client("app", crate::Role::Admin).unwrap();
        assert!(matches!(tls.holder_of(&der(&stranger)), Err(CertificateError::NotTrusted { .. })));
        let (hour, now) = (Duration::from_secs(3_600), SystemTime::now());
        let past = Validity { from: now - 2 * hour, until: now - hour };
        let expired = authority.issue_client_valid("app", crate::Role::Writer, past).unwrap();
        assert!(matches!(tls.holder_of(&der(&expired)), Err(CertificateError::NotTrusted { .. })));
        let node = authority.issue_node(NodeId(2), &[]).unwrap();
        assert!(matches!(tls.holder_of(&der(&node)), Err(CertificateError::NoIdentity { .. })));
        assert!(tls.holder_of(b"garbage").is_err());
    }

    #[test]
    fn an_expired_certificate_is_refused_at_start() {
        let hour = Duration::from_secs(3_600);
        let now = SystemTime::now();
        let past = Validity { from: now - 2 * hour, until: now - hour };
        let expired = authority().issue_node_valid(NodeId(1), &[], past).unwrap();
        let fault = Tls::from_pem(&expired.to_tls_pem()).unwrap_err();
        assert!(matches!(&fault, CertificateError::NotTrusted { .. }), "{fault}");
        assert!(fault.to_string().contains("node n1 of cluster 0101"), "{fault}");
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let authority = authority();
        let mut pem = authority.issue_node(NodeId(1), &[]).unwrap().to_tls_pem();
        pem.key = authority.issue_node(NodeId(1), &[]).unwrap().key_pem;
        assert!(matches!(Tls::from_pem(&pem), Err(CertificateError::Tls(_))));
    }

    #[test]
    fn texts_that_are_not_pem_are_refused() {
        let pem = authority().issue_node(NodeId(1), &[]).unwrap().to_tls_pem();
        for broken in [
            TlsPem { authority: "x".to_owned(), ..pem.clone() },
            TlsPem { certificate: String::new(), ..pem.clone() },
            TlsPem { key: pem.certificate.clone(), ..pem },
        ] {
            assert!(matches!(Tls::from_pem(&broken), Err(CertificateError::NotPem { .. })));
        }
    }

    #[test]
    fn a_reload_reads_the_files_again_and_keeps_what_works_when_they_do_not() {
        let directory = tempfile::tempdir().unwrap();
        let authority = authority();
        let files = authority.issue_node(NodeId(1), &[]).unwrap().write_to(directory.path(), "node").unwrap();
        let tls = Tls::from_files(files.clone()).unwrap();
        let before = tls.server_tls();
        tls.reload().unwrap();
        assert!(!Arc::ptr_eq(&before, &tls.server_tls()));

        let kept = tls.server_tls();
        authority.issue_node(NodeId(2), &[]).unwrap().write_to(directory.path(), "node").unwrap();
        assert!(matches!(tls.reload(), Err(CertificateError::IdentityChanged { .. })));
        std::fs::write(&files.certificate, "garbage").unwrap();
        assert!(matches!(tls.reload(), Err(CertificateError::NotPem { .. })));
        assert!(Arc::ptr_eq(&kept, &tls.server_tls()));
    }
}
