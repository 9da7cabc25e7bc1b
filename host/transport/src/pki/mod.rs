//! Certificates: the cluster's authority, what it issues, and who a certificate is.
//!
//! Relies on `rcgen` and `x509-parser`. Promises that what the authority issues names one node or one
//! client of one cluster. Knows no socket.

mod authority;
pub(crate) mod files;
mod identity;

use std::path::Path;

pub use authority::{AUTHORITY_CERTIFICATE_FILE, AUTHORITY_KEY_FILE, Authority, Validity};
pub(crate) use identity::ed25519_key;
pub use identity::{
    CLIENT_NAME_BYTES_MAX, ParseRoleError, PeerIdentity, Role, Subject, node_name, peer_identity,
};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::error::CertificateError;
use crate::tls::{TlsFiles, TlsPem};

/// The first certificate of a PEM text, in DER.
///
/// # Errors
///
/// [`CertificateError::NotPem`] if it holds none.
pub fn der_of(pem: &str) -> Result<Vec<u8>, CertificateError> {
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes());
    let certificate =
        certificate.map_err(|_| CertificateError::NotPem { what: "the certificate".to_owned() })?;
    Ok(certificate.to_vec())
}

/// A certificate, its key and the authority that issued it, all in PEM.
#[derive(Clone)]
pub struct Credentials {
    /// Certificate of the authority.
    pub authority_pem: String,
    /// Certificate of the holder.
    pub certificate_pem: String,
    /// The holder's private key.
    pub key_pem: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key stays out of logs.
        f.debug_struct("Credentials").field("certificate_pem", &self.certificate_pem).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Writes `ca.pem`, `<name>.pem` and `<name>-key.pem` into `directory`, replacing older ones, and
    /// returns where. The key is readable for its owner only.
    ///
    /// # Errors
    ///
    /// [`CertificateError::Write`].
    pub fn write_to(&self, directory: &Path, name: &str) -> Result<TlsFiles, CertificateError> {
        let files = TlsFiles::named(directory, name);
        files::write_private(&files.key, &self.key_pem)?;
        files::write_public(&files.certificate, &self.certificate_pem)?;
        files::write_public(&files.authority, &self.authority_pem)?;
        Ok(files)
    }

    /// The same as [`TlsPem`], for use without files.
    #[must_use]
    pub fn to_tls_pem(&self) -> TlsPem {
        TlsPem {
            authority: self.authority_pem.clone(),
            certificate: self.certificate_pem.clone(),
            key: self.key_pem.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use quorate_types::{ClusterId, NodeId};
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    use super::*;

    const CLUSTER: ClusterId = ClusterId([0xab; 16]);

    fn identity(credentials: &Credentials) -> PeerIdentity {
        let der = CertificateDer::from_pem_slice(credentials.certificate_pem.as_bytes()).unwrap();
        peer_identity(&der).unwrap()
    }

    #[test]
    fn issued_certificates_say_who_they_are() {
        let authority = Authority::create(CLUSTER).unwrap();
        let node =
            authority.issue_node(NodeId(3), &["db.example".to_owned(), "10.0.0.3".to_owned()]).unwrap();
        assert_eq!(identity(&node), PeerIdentity { cluster: CLUSTER, subject: Subject::Node(NodeId(3)) });
        let client = authority.issue_client("ada", Role::Operator).unwrap();
        assert_eq!(identity(&client).role(), Some(Role::Operator));
        assert_eq!(identity(&client).node(), None);
        assert!(identity(&client).to_string().starts_with("operator ada of cluster abab"));
    }

    #[test]
    fn names_that_could_pass_for_an_identity_are_not_issued() {
        let authority = Authority::create(CLUSTER).unwrap();
        for host in
            [node_name(CLUSTER, NodeId(2)), "A.QUORATE.".to_owned(), "no spaces".to_owned(), String::new()]
        {
            let issued = authority.issue_node(NodeId(1), std::slice::from_ref(&host));
            assert!(matches!(issued, Err(CertificateError::BadHost { .. })), "{host:?}");
        }
        for name in ["", "a/b", "a b", &"x".repeat(65)] {
            let issued = authority.issue_client(name, Role::Reader);
            assert!(matches!(issued, Err(CertificateError::BadName { .. })), "{name:?}");
        }
        assert!(matches!(authority.issue_node(NodeId(0), &[]), Err(CertificateError::BadNode)));
    }

    #[test]
    fn an_authority_comes_back_from_its_files_and_is_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::create(CLUSTER).unwrap();
        authority.write_to(directory.path()).unwrap();
        let loaded = Authority::load(directory.path()).unwrap();
        assert_eq!(loaded.cluster(), CLUSTER);
        let credentials = loaded.issue_node(NodeId(1), &[]).unwrap();
        // Tls checks that the certificate chains to the authority.
        crate::tls::Tls::from_pem(&credentials.to_tls_pem()).unwrap();

        let second = Authority::create(CLUSTER).unwrap().write_to(directory.path());
        assert!(matches!(second, Err(CertificateError::Exists { .. })));
    }
}
