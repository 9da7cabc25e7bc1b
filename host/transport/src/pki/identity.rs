//! What a certificate of a cluster says about its holder.
//!
//! Relies on `x509-parser` for the fields. Promises that a certificate names exactly one holder of one
//! cluster, or none is returned. Checks no signature and no dates: TLS has done that before.
//!
//! ```text
//! node    DNS name  node-<id>.<cluster, 32 hexadecimal digits>.quorate
//! client  DNS name  role-<role>.<cluster>.quorate      common name: the client's name
//! ca      DNS name  ca.<cluster>.quorate
//! ```

use std::fmt;
use std::str::FromStr;

use quorate_types::{ClusterId, NodeId};
use rustls::pki_types::CertificateDer;
use x509_parser::oid_registry::OID_SIG_ED25519;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::error::CertificateError;

/// The last label of every name that carries an identity.
const SUFFIX: &str = ".quorate";
/// The longest name of a client, in bytes; X.509 allows a common name 64.
pub const CLIENT_NAME_BYTES_MAX: usize = 64;

/// What a client may do. Each role may do all that the ones before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Asks queries and looks at status.
    Reader,
    /// Submits commands.
    Writer,
    /// Creates groups and deploys components.
    Operator,
    /// Changes members and whatever else there is.
    Admin,
}

impl Role {
    /// Every role, from the least to the greatest.
    pub const ALL: [Self; 4] = [Self::Reader, Self::Writer, Self::Operator, Self::Admin];

    /// The role's name in certificates and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Writer => "writer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text is not the name of a role.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a role; choose reader, writer, operator or admin")]
pub struct ParseRoleError(pub String);

impl FromStr for Role {
    type Err = ParseRoleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let role = Self::ALL.into_iter().find(|role| role.name() == text);
        role.ok_or_else(|| ParseRoleError(text.chars().take(80).collect()))
    }
}

/// Who holds a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A node of the cluster.
    Node(NodeId),
    /// A person or program that uses the cluster.
    Client {
        /// Chosen when the certificate was issued; for logs.
        name: String,
        /// What it may do.
        role: Role,
    },
}

/// The verified holder of the certificate at the other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PeerIdentity {
    /// The cluster that the certificate is for.
    pub cluster: ClusterId,
    /// The holder.
    pub subject: Subject,
}

impl PeerIdentity {
    /// The node, if the holder is one.
    #[must_use]
    pub fn node(&self) -> Option<NodeId> {
        match self.subject {
            Subject::Node(node) => Some(node),
            Subject::Client { .. } => None,
        }
    }

    /// The client's role, if the holder is a client.
    #[must_use]
    pub fn role(&self) -> Option<Role> {
        match self.subject {
            Subject::Node(_) => None,
            Subject::Client { role, .. } => Some(role),
        }
    }
}

impl fmt::Display for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.subject {
            Subject::Node(node) => write!(f, "node {node} of cluster {}", self.cluster),
            Subject::Client { name, role } => write!(f, "{role} {name} of cluster {}", self.cluster),
        }
    }
}

/// The DNS name that a node's certificate carries.
#[must_use]
pub fn node_name(cluster: ClusterId, node: NodeId) -> String {
    format!("node-{}.{cluster}{SUFFIX}", node.0)
}

/// The DNS name that a client's certificate carries.
pub(crate) fn role_name(cluster: ClusterId, role: Role) -> String {
    format!("role-{role}.{cluster}{SUFFIX}")
}

/// The DNS name that the certificate of the cluster's authority carries.
pub(crate) fn authority_name(cluster: ClusterId) -> String {
    format!("ca.{cluster}{SUFFIX}")
}

/// Whether `name` lies where identities are, so that it cannot be the name of a host.
pub(crate) fn is_reserved(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name.ends_with(SUFFIX)
}

/// Whether `name` may be a client's: letters, digits, dots, underscores, hyphens and at signs.
pub(crate) fn is_client_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte);
    (1..=CLIENT_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed)
}

/// Reads who holds a certificate that TLS has verified.
///
/// # Errors
///
/// [`CertificateError::NoIdentity`] if it names no holder, more than one, or one in a form that the
/// cluster's authority does not issue.
pub fn peer_identity(certificate: &CertificateDer<'_>) -> Result<PeerIdentity, CertificateError> {
    let parsed = parse(certificate)?;
    let (label, cluster) = identity_name(&parsed)?;
    let subject = if let Some(id) = label.strip_prefix("node-") {
        Subject::Node(parse_node(id).ok_or_else(|| fault(format!("{label:?} names no node")))?)
    } else if let Some(role) = label.strip_prefix("role-") {
        let role = role.parse().map_err(|error: ParseRoleError| fault(error.to_string()))?;
        Subject::Client { name: common_name(&parsed)?, role }
    } else {
        return Err(fault(format!("{label:?} names neither a node nor a role")));
    };
    Ok(PeerIdentity { cluster, subject })
}

/// The Ed25519 key that a certificate names (RFC 8410).
pub(crate) fn ed25519_key(certificate: &CertificateDer<'_>) -> Result<[u8; 32], CertificateError> {
    let parsed = parse(certificate)?;
    let named = parsed.public_key();
    let key = (named.algorithm.algorithm == OID_SIG_ED25519)
        .then(|| <[u8; 32]>::try_from(&named.subject_public_key.data[..]).ok());
    key.flatten().ok_or_else(|| fault("its key is no Ed25519 key".to_owned()))
}

/// Reads the cluster from the certificate of its authority.
pub(crate) fn authority_cluster(certificate: &CertificateDer<'_>) -> Result<ClusterId, CertificateError> {
    let parsed = parse(certificate)?;
    match identity_name(&parsed)? {
        ("ca", cluster) => Ok(cluster),
        (other, _) => Err(fault(format!("it is the certificate of {other:?}, not of an authority"))),
    }
}

fn fault(reason: String) -> CertificateError {
    CertificateError::NoIdentity { reason }
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, CertificateError> {
    let (rest, parsed) = X509Certificate::from_der(certificate).map_err(|error| fault(error.to_string()))?;
    if !rest.is_empty() {
        return Err(fault(format!("{} bytes follow the certificate", rest.len())));
    }
    Ok(parsed)
}

/// The one name with an identity: its first label and the cluster.
fn identity_name<'a>(parsed: &'a X509Certificate<'_>) -> Result<(&'a str, ClusterId), CertificateError> {
    let names = parsed.subject_alternative_name().map_err(|error| fault(error.to_string()))?;
    let names = names.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
    let mut found = names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) if is_reserved(name) => Some(*name),
        _ => None,
    });
    let name = found.next().ok_or_else(|| fault("it carries no name under .quorate".to_owned()))?;
    if let Some(second) = found.next() {
        return Err(fault(format!("it carries two identities, {name:?} and {second:?}")));
    }
    let parts = name.strip_suffix(SUFFIX).and_then(|rest| rest.split_once('.'));
    let (label, cluster) = parts.ok_or_else(|| fault(format!("{name:?} names no cluster")))?;
    let cluster = parse_cluster(cluster).ok_or_else(|| fault(format!("{name:?} names no cluster")))?;
    Ok((label, cluster))
}

/// The client's name, from the only common name.
fn common_name(parsed: &X509Certificate<'_>) -> Result<String, CertificateError> {
    let mut names = parsed.subject().iter_common_name();
    let name = names.next().and_then(|name| name.as_str().ok()).unwrap_or_default();
    if names.next().is_some() || !is_client_name(name) {
        return Err(fault("its common name is not the name of a client".to_owned()));
    }
    Ok(name.to_owned())
}

/// A node id in its only form: decimal, above zero, no leading zero.
fn parse_node(text: &str) -> Option<NodeId> {
    let id = text.parse::<u64>().ok().filter(|id| *id > 0)?;
    (id.to_string() == text).then_some(NodeId(id))
}

/// A cluster id in its only form: 32 lower-case hexadecimal digits.
fn parse_cluster(text: &str) -> Option<ClusterId> {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if text.len() != 32 || !text.bytes().all(is_digit) {
        return None;
    }
    u128::from_str_radix(text, 16).ok().map(|value| ClusterId(value.to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_clusters_have_one_text_form() {
        let cluster = ClusterId(std::array::from_fn(|i| i as u8 * 17));
        assert_eq!(parse_cluster(&cluster.to_string()), Some(cluster));
        assert_eq!(parse_cluster(&cluster.to_string().to_uppercase()), None);
        assert_eq!(parse_cluster("+0112233445566778899aabbccddeeff"), None);
        assert_eq!(parse_node("7"), Some(NodeId(7)));
        for odd in ["0", "07", "+7", "", "7a"] {
            assert_eq!(parse_node(odd), None, "{odd:?}");
        }
    }

    #[test]
    fn roles_are_ordered_by_what_they_may_do() {
        assert!(Role::Admin > Role::Operator && Role::Operator > Role::Writer && Role::Writer > Role::Reader);
        assert_eq!("operator".parse(), Ok(Role::Operator));
        assert!("Operator".parse::<Role>().is_err());
    }

    #[test]
    fn bytes_that_are_no_certificate_have_no_identity() {
        let garbage = CertificateDer::from(vec![0x30, 0x82, 0xff, 0xff, 0x01]);
        assert!(matches!(peer_identity(&garbage), Err(CertificateError::NoIdentity { .. })));
    }
}
