//! TLS with real certificates over loopback: who belongs together, and what is said to who does not.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::world::{World, address};
use super::*;
use crate::TlsConfig;

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Certificate and key.
    fn issue(&self, names: &[&str]) -> (String, String) {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn client(&self, trusted: &Self) -> TlsConfig {
        let (cert, key) = self.issue(&["client.example"]);
        TlsConfig { ca_pem: trusted.0.pem().into(), cert_pem: cert.into(), key_pem: key.into() }
    }
}

/// Puts TLS before node 0 of a world; returns where it listens.
async fn serve(world: &World, authority: &Authority, names: &[&str]) -> u16 {
    let (cert, key) = authority.issue(names);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.0.pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let network = world.network().clone();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (acceptor, network) = (acceptor.clone(), network.clone());
            tokio::spawn(async move {
                if let Ok(mut outer) = acceptor.accept(tcp).await {
                    let mut inner = network.dial(&address(0)).await.unwrap();
                    drop(tokio::io::copy_bidirectional(&mut outer, &mut inner).await);
                }
            });
        }
    });
    port
}

fn config(port: u16, tls: TlsConfig) -> ClientConfig {
    ClientConfig { deadline: ms(5_000), ..ClientConfig::new([format!("127.0.0.1:{port}")], tls) }
}

#[tokio::test]
async fn certificates_of_one_authority_connect() {
    let (world, authority) = (World::new(), Authority::new());
    let port = serve(&world, &authority, &["127.0.0.1"]).await;
    let client = Client::connect(config(port, authority.client(&authority))).await.unwrap();
    assert_eq!(client.describe("ledger").await.unwrap().name, "ledger");
}

/// What could go wrong: where only HTTP/2 is spoken, frames are offered and commands never arrive.
#[tokio::test]
async fn commands_cross_a_relay_that_speaks_http2_alone() {
    let (world, authority) = (World::new(), Authority::new());
    let port = serve(&world, &authority, &["127.0.0.1"]).await;
    world.state().relayed.insert(0, format!("127.0.0.1:{port}"));
    let client = Client::connect(config(port, authority.client(&authority))).await.unwrap();
    let session = client.group("ledger").await.unwrap().session(SessionOptions::default()).await.unwrap();
    for number in 0..3 {
        submit(&session, number).await.unwrap();
    }
    world.assert_once(0..3);
}

#[tokio::test]
async fn a_node_of_another_authority_is_refused_at_once() {
    let (world, authority, other) = (World::new(), Authority::new(), Authority::new());
    let port = serve(&world, &authority, &["127.0.0.1"]).await;
    let error = Client::connect(config(port, authority.client(&other))).await.unwrap_err();
    assert!(
        matches!(&error, Error::Tls { reason } if reason.contains("invalid peer certificate")),
        "{error:?}"
    );
}

/// With TLS 1.3 the node's verdict about the client arrives after the handshake.
#[tokio::test]
async fn a_client_of_another_authority_learns_that_it_is_refused() {
    let (world, authority, other) = (World::new(), Authority::new(), Authority::new());
    let port = serve(&world, &authority, &["127.0.0.1"]).await;
    let error = Client::connect(config(port, other.client(&authority))).await.unwrap_err();
    assert!(matches!(&error, Error::Tls { reason } if reason.contains("alert")), "{error:?}");
}

#[tokio::test]
async fn a_node_under_another_name_is_refused() {
    let (world, authority) = (World::new(), Authority::new());
    let port = serve(&world, &authority, &["elsewhere.example"]).await;
    let error = Client::connect(config(port, authority.client(&authority))).await.unwrap_err();
    assert!(matches!(error, Error::Tls { .. }), "{error:?}");
}

#[tokio::test]
async fn pem_texts_that_hold_nothing_are_configuration_errors() {
    let authority = Authority::new();
    let good = authority.client(&authority);
    for bad in [
        TlsConfig { ca_pem: b"nothing".to_vec(), ..good.clone() },
        TlsConfig { cert_pem: b"nothing".to_vec(), ..good.clone() },
        TlsConfig { key_pem: b"nothing".to_vec(), ..good.clone() },
        TlsConfig { key_pem: authority.client(&authority).key_pem, ..good.clone() },
    ] {
        let error = Client::connect(config(1, bad)).await.unwrap_err();
        assert!(matches!(error, Error::Config { .. }), "{error:?}");
    }
    let missing = TlsConfig::from_files("no/ca.pem", "no/cert.pem", "no/key.pem");
    assert!(matches!(missing, Err(Error::Config { reason }) if reason.contains("no/ca.pem")));
}

/// What could go wrong: a client finds out with its first command that nobody takes what it signs.
#[test]
fn a_key_with_which_frames_cannot_be_signed_is_named_with_what_to_do() {
    let authority = Authority::new();
    let Err(Error::Config { reason }) = authority.client(&authority).identity() else {
        panic!("it can sign")
    };
    assert!(reason.contains("quorate pki client"), "{reason}");
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let good = TlsConfig { key_pem: key.serialize_pem().into(), ..authority.client(&authority) };
    let identity = good.identity().unwrap();
    assert_eq!(&identity.secret.public().to_bytes()[..], key.public_key_raw());
}
