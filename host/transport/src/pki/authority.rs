//! A cluster's own certificate authority: issues the certificates of its nodes and clients.
//!
//! Relies on `rcgen` for keys and signatures. Promises certificates that [`super::peer_identity`] reads
//! back, with a fresh key each, usable for what their holder does and nothing else. Knows no revocation:
//! certificates are short-lived and roots can be replaced while nodes run.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quorate_types::{ClusterId, NodeId};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ED25519, SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, DnsName};

use super::files::{read_key, read_public, refuse_existing, write_private, write_public};
use super::identity::{authority_cluster, authority_name, is_client_name, is_reserved, node_name, role_name};
use super::{Credentials, Role};
use crate::error::CertificateError;

/// File name of the authority's certificate, which every node and client trusts.
pub const AUTHORITY_CERTIFICATE_FILE: &str = "ca.pem";
/// File name of the authority's key, which only the operator who issues certificates holds.
pub const AUTHORITY_KEY_FILE: &str = "ca-key.pem";

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Ten years: replacing the authority touches every node.
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(3_650 * 24 * 60 * 60);
/// How far certificates reach into the past, for clocks that are behind.
const CLOCK_SKEW: Duration = Duration::from_secs(60 * 60);

/// When a certificate may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// From here, in whole seconds since 1970.
    pub from: SystemTime,
    /// Up to here.
    pub until: SystemTime,
}

impl Validity {
    /// From an hour ago, for clocks that are behind, to `lifetime` from now.
    #[must_use]
    pub fn from_now(lifetime: Duration) -> Self {
        let now = SystemTime::now();
        Self { from: now - CLOCK_SKEW, until: now + lifetime }
    }
}

/// A certificate authority of one cluster, with its key.
pub struct Authority {
    cluster: ClusterId,
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

impl Authority {
    /// Lifetime of certificates issued without saying otherwise: 397 days.
    pub const LEAF_LIFETIME: Duration = Duration::from_secs(397 * DAY.as_secs());

    /// Makes an authority with a fresh key.
    ///
    /// # Errors
    ///
    /// [`CertificateError::Issue`] if the key cannot be made.
    pub fn create(cluster: ClusterId) -> Result<Self, CertificateError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        // Two authorities of one cluster, while one replaces the other, must not share a name: a
        // certificate of one would be checked with the key of the other.
        let tail = &key.public_key_raw()[key.public_key_raw().len().saturating_sub(4)..];
        let tail: String = tail.iter().map(|byte| format!("{byte:02x}")).collect();
        params.distinguished_name = common_name(&format!("Quorate cluster {cluster} {tail}"));
        params.subject_alt_names = vec![dns(&authority_name(cluster))?];
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_validity(&mut params, Validity::from_now(AUTHORITY_LIFETIME));
        let certificate_pem = params.self_signed(&key)?.pem();
        Ok(Self { cluster, certificate_pem, issuer: Issuer::new(params, key) })
    }

    /// Reads back what [`Authority::write_to`] wrote.
    ///
    /// # Errors
    ///
    /// [`CertificateError`] if a file is missing, is not what it should be, or if others may read the key.
    pub fn load(directory: &Path) -> Result<Self, CertificateError> {
        let certificate_path = directory.join(AUTHORITY_CERTIFICATE_FILE);
        let key_path = directory.join(AUTHORITY_KEY_FILE);
        let certificate_pem = read_public(&certificate_path)?;
        let key_pem = read_key(&key_path)?;
        let not_pem = |path: &Path| CertificateError::NotPem { what: path.display().to_string() };
        let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes());
        let certificate = certificate.map_err(|_| not_pem(&certificate_path))?;
        let cluster = authority_cluster(&certificate)?;
        let key = KeyPair::from_pem(&key_pem).map_err(|_| not_pem(&key_path))?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Self { cluster, certificate_pem, issuer })
    }

    /// Writes certificate and key; the key is readable for its owner only.
    ///
    /// # Errors
    ///
    /// [`CertificateError::Exists`] if there is an authority already, [`CertificateError::Write`].
    pub fn write_to(&self, directory: &Path) -> Result<(), CertificateError> {
        let certificate_path = directory.join(AUTHORITY_CERTIFICATE_FILE);
        let key_path = directory.join(AUTHORITY_KEY_FILE);
        refuse_existing(&certificate_path)?;
        refuse_existing(&key_path)?;
        write_private(&key_path, &self.issuer.key().serialize_pem())?;
        write_public(&certificate_path, &self.certificate_pem)
    }

    /// The cluster whose authority this is.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The authority's certificate, which nodes and clients trust.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Issues a node's certificate. Clients reach the node as `localhost`, as a loopback address and
    /// under each name or address in `hosts`; peers know it by its identity alone.
    ///
    /// # Errors
    ///
    /// [`CertificateError::BadHost`] for a host that is neither a name nor an address, or that lies
    /// under `.quorate`.
    pub fn issue_node(&self, node: NodeId, hosts: &[String]) -> Result<Credentials, CertificateError> {
        self.issue_node_valid(node, hosts, Validity::from_now(Self::LEAF_LIFETIME))
    }

    /// [`Authority::issue_node`] with a chosen validity.
    ///
    /// # Errors
    ///
    /// As [`Authority::issue_node`].
    pub fn issue_node_valid(
        &self,
        node: NodeId,
        hosts: &[String],
        validity: Validity,
    ) -> Result<Credentials, CertificateError> {
        if node == NodeId::ZERO {
            return Err(CertificateError::BadNode);
        }
        let mut names = vec![
            dns(&node_name(self.cluster, node))?,
            dns("localhost")?,
            SanType::IpAddress(Ipv4Addr::LOCALHOST.into()),
            SanType::IpAddress(Ipv6Addr::LOCALHOST.into()),
        ];
        for host in hosts {
            let name = host_name(host)?;
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let mut params = leaf(&format!("Quorate node {}", node.0), validity);
        params.subject_alt_names = names;
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        self.sign(&params, KeyPair::generate()?)
    }

    /// Issues a client's certificate for one role, with an Ed25519 key: the same with which the client signs frames
    /// of commands for groups whose replicas may lie. (What TLS signs begins with 64 spaces, RFC 8446 §4.4.3, so that
    /// neither signature passes for the other.)
    ///
    /// # Errors
    ///
    /// [`CertificateError::BadName`] for a name with anything but letters, digits and `. _ - @`.
    pub fn issue_client(&self, name: &str, role: Role) -> Result<Credentials, CertificateError> {
        self.issue_client_valid(name, role, Validity::from_now(Self::LEAF_LIFETIME))
    }

    /// [`Authority::issue_client`] with a chosen validity.
    ///
    /// # Errors
    ///
    /// As [`Authority::issue_client`].
    pub fn issue_client_valid(
        &self,
        name: &str,
        role: Role,
        validity: Validity,
    ) -> Result<Credentials, CertificateError> {
        if !is_client_name(name) {
            return Err(CertificateError::BadName { name: name.chars().take(80).collect() });
        }
        let mut params = leaf(name, validity);
        params.subject_alt_names = vec![dns(&role_name(self.cluster, role))?];
        self.sign(&params, KeyPair::generate_for(&PKCS_ED25519)?)
    }

    fn sign(&self, params: &CertificateParams, key: KeyPair) -> Result<Credentials, CertificateError> {
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Credentials {
            authority_pem: self.certificate_pem.clone(),
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        })
    }
}

/// What the certificates of nodes and clients have in common: both open connections.
fn leaf(name: &str, validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(name);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, validity);
    params
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn set_validity(params: &mut CertificateParams, validity: Validity) {
    let at = |time: SystemTime| {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        // Whole seconds: X.509 has no finer time.
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(since.as_secs())
    };
    params.not_before = at(validity.from);
    params.not_after = at(validity.until);
}

fn dns(name: &str) -> Result<SanType, CertificateError> {
    Ok(SanType::DnsName(name.try_into()?))
}

/// A host of a node as the certificate carries it.
fn host_name(host: &str) -> Result<SanType, CertificateError> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    if is_reserved(host) || DnsName::try_from(host).is_err() {
        return Err(CertificateError::BadHost { host: host.chars().take(80).collect() });
    }
    dns(host)
}
