//! Signatures of a simulated cluster: who has which key, who signed what, and whether what was believed was
//! really signed.
//!
//! ```text
//! replica --sign--> Seal --statement--> Notary   remembers what each replica signed
//! frame, certificate --verify--> Notary          holds what is believed against it
//! ```
//!
//! Relies on the statements, certificates and membership checks of `crypto`, which are the product's in every
//! run. Promises that with real keys a signature is accepted by the product's one rule alone (a signature that
//! was made here is known to be valid and not verified again), that stand-in signatures are digests under the
//! signer's secret over the same signed bytes, and that a signature of an honest replica which it never made,
//! or a certificate without a quorum, is an offence the moment anyone believes it. Knows no message.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quorate_consensus::hotstuff::{Certifier, Signer};
use quorate_crypto::{
    Certificate, Check, PublicKey, SecretKey, Signature, SigningBytes, Stated, Statement, TimeoutCertificate,
    ValidatorSet,
};
use quorate_types::NodeId;

use crate::planted::Planted;
use crate::violation::{Invariant, Violation};

const STAND_IN_DOMAIN: &str = "quorate 2026 simulated signature";

/// What signatures are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Ed25519, as in the product.
    Ed25519,
    /// Digests under the signer's secret: many times quicker, and nobody in a run can forge them.
    StandIn,
}

type Entry = (NodeId, [u8; SigningBytes::BYTES]);

#[derive(Debug, Default)]
struct Records {
    /// What each replica signed.
    signed: HashSet<Entry>,
    /// Signatures known to be valid.
    valid: HashSet<(Entry, [u8; 64])>,
    offence: Option<Violation>,
}

/// Signs for all replicas of a cluster and judges all signatures.
#[derive(Debug)]
pub struct Notary {
    scheme: Scheme,
    keys: Vec<(NodeId, SecretKey)>,
    liars: BTreeSet<NodeId>,
    planted: Option<Planted>,
    records: Mutex<Records>,
}

impl Notary {
    /// A notary of these nodes, of which some lie.
    #[must_use]
    pub fn new(
        scheme: Scheme,
        nodes: &[NodeId],
        liars: BTreeSet<NodeId>,
        planted: Option<Planted>,
    ) -> Arc<Self> {
        let seed = |node: NodeId| std::array::from_fn(|at| if at == 0 { node.0 as u8 } else { 7 });
        let keys = nodes.iter().map(|node| (*node, SecretKey::from_seed(&seed(*node)))).collect();
        Arc::new(Self { scheme, keys, liars, planted, records: Mutex::default() })
    }

    /// What signatures are made of.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// A node's public key.
    #[must_use]
    pub fn key(&self, node: NodeId) -> Option<PublicKey> {
        self.secret(node).map(SecretKey::public)
    }

    /// Signs as a node.
    #[must_use]
    pub fn sign(&self, node: NodeId, statement: &Statement) -> Signature {
        let bytes = statement.signing_bytes();
        let signature = match (self.scheme, self.secret(node)) {
            (Scheme::Ed25519, Some(secret)) => secret.sign(statement),
            _ => stand_in(node, &bytes),
        };
        let mut records = self.records();
        let entry = (node, *bytes.as_array());
        records.signed.insert(entry);
        if self.scheme == Scheme::Ed25519 {
            records.valid.insert((entry, signature.0));
        }
        signature
    }

    /// Whether a signature is its signer's. One of an honest replica that it never made is an offence.
    #[must_use]
    pub fn accepts(&self, check: &Check) -> bool {
        let entry = (check.signer, *check.bytes.as_array());
        let accepted = match self.scheme {
            Scheme::StandIn => stand_in(check.signer, &check.bytes) == check.signature,
            Scheme::Ed25519 => {
                self.records().valid.contains(&(entry, check.signature.0)) || check.verify().is_accepted()
            }
        };
        if accepted && !self.liars.contains(&check.signer) && !self.records().signed.contains(&entry) {
            self.offend(format_args!("a signature of {} is believed that it never made", check.signer));
        }
        accepted
    }

    /// The first offence, once.
    #[must_use]
    pub fn take_offence(&self) -> Option<Violation> {
        self.records().offence.take()
    }

    fn offend(&self, detail: std::fmt::Arguments<'_>) {
        let violation = Violation::new(Invariant::NoForgery, detail);
        self.records().offence.get_or_insert(violation);
    }

    fn secret(&self, node: NodeId) -> Option<&SecretKey> {
        self.keys.iter().find(|(other, _)| *other == node).map(|(_, key)| key)
    }

    fn records(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Judges a certificate by the product's checks, or without the one that a planted bug leaves out.
    fn holds(&self, certificate: &Certificate, set: &ValidatorSet) -> bool {
        let holds = match self.planted {
            Some(Planted::CountsNoSigners) => {
                certificate.statement().scope == *set.scope() && self.holds_by_hand(certificate, set)
            }
            Some(Planted::TrustsForeignCertificates) => {
                certificate.signatures().len() == set.quorum() && self.holds_by_hand(certificate, set)
            }
            Some(Planted::CountsASignerTwice) => self.holds_for_anyone(certificate, set),
            _ => certificate.checks(set).is_ok_and(|checks| checks.iter().all(|check| self.accepts(check))),
        };
        let statement = certificate.statement();
        let signers = certificate.signers().iter().filter_map(|place| set.members().get(place));
        let signed = |node: NodeId| {
            let entry = (node, *statement.signing_bytes().as_array());
            self.liars.contains(&node) || self.records().signed.contains(&entry)
        };
        let sound = statement.scope == *set.scope()
            && signers.filter(|member| signed(member.node)).count() > set.members().len() * 2 / 3;
        if holds && !sound {
            self.offend(format_args!(
                "a certificate without a quorum is believed: {:?}",
                certificate.signers()
            ));
        }
        holds
    }

    /// Whether each signature is its signer's, however many there are and whatever they say.
    fn holds_by_hand(&self, certificate: &Certificate, set: &ValidatorSet) -> bool {
        checks_by_hand(certificate, set).iter().all(|check| self.accepts(check))
    }

    /// Whether each signature is some member's.
    fn holds_for_anyone(&self, certificate: &Certificate, set: &ValidatorSet) -> bool {
        let is_anyones = |check: Check| {
            let mut members = set.members().iter();
            members.any(|member| self.accepts(&Check { signer: member.node, key: member.key, ..check }))
        };
        certificate.checks(set).is_ok_and(|checks| checks.into_iter().all(is_anyones))
    }
}

/// The signatures of a certificate, whatever set it names.
fn checks_by_hand(certificate: &Certificate, set: &ValidatorSet) -> Vec<Check> {
    let bytes = certificate.statement().signing_bytes();
    let members = certificate.signers().iter().filter_map(|place| set.members().get(place));
    let check = |(member, signature): (&quorate_crypto::Validator, &Signature)| Check {
        signer: member.node,
        key: member.key,
        bytes,
        signature: *signature,
    };
    members.zip(certificate.signatures()).map(check).collect()
}

fn stand_in(node: NodeId, bytes: &SigningBytes) -> Signature {
    let mut input = [0; 8 + SigningBytes::BYTES];
    input[..8].copy_from_slice(&node.0.to_le_bytes());
    input[8..].copy_from_slice(bytes.as_slice());
    let half = quorate_crypto::digest(STAND_IN_DOMAIN, &input).0;
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(&half);
    signature[32..].copy_from_slice(&half);
    Signature(signature)
}

/// One replica's way to the notary.
#[derive(Clone, Debug)]
pub struct Seal {
    /// Who signs.
    pub node: NodeId,
    /// With whom.
    pub notary: Arc<Notary>,
}

impl Seal {
    /// A value under this replica's signature.
    #[must_use]
    pub fn signature_of(&self, value: &impl Stated) -> Signature {
        self.notary.sign(self.node, &value.statement())
    }
}

impl Signer for Seal {
    fn sign(&self, statement: &Statement) -> Signature {
        self.notary.sign(self.node, statement)
    }
}

impl Certifier for Seal {
    fn holds(&self, certificate: &Certificate, set: &ValidatorSet) -> bool {
        self.notary.holds(certificate, set)
    }

    fn timeout_holds(&self, certificate: &TimeoutCertificate, set: &ValidatorSet) -> bool {
        let accepts = |check: &Check| self.notary.accepts(check);
        certificate.checks(set).is_ok_and(|checks| checks.iter().all(accepts))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use quorate_crypto::{Scope, StatementKind, Validator};
    use quorate_types::{ClusterId, Digest, Epoch, GroupId, LogIndex, Protocol, View};

    use super::*;

    fn statement(group: u64) -> Statement {
        let scope = Scope {
            cluster: ClusterId([1; 16]),
            group: GroupId(group),
            epoch: Epoch(1),
            protocol: Protocol::HotStuff,
        };
        let kind = StatementKind::Vote;
        Statement { scope, kind, view: View(3), index: LogIndex(2), digest: Digest([9; 32]) }
    }

    fn nodes() -> Vec<NodeId> {
        (1..=4).map(NodeId).collect()
    }

    fn notary(scheme: Scheme, planted: Option<Planted>) -> (Arc<Notary>, ValidatorSet) {
        let notary = Notary::new(scheme, &nodes(), BTreeSet::from([NodeId(4)]), planted);
        let member = |node: &NodeId| Validator { node: *node, key: notary.key(*node).unwrap() };
        let set = ValidatorSet::new(statement(1).scope, nodes().iter().map(member).collect()).unwrap();
        (notary, set)
    }

    fn certificate(notary: &Arc<Notary>, set: &ValidatorSet, signers: [u64; 3]) -> Certificate {
        let vote =
            |place: usize| (NodeId(place as u64 + 1), notary.sign(NodeId(signers[place]), &statement(1)));
        Certificate::assemble(statement(1), set, (0..3).map(vote)).unwrap()
    }

    /// Either scheme must refuse what the signer did not sign, or nothing that a run shows means anything.
    #[test]
    fn a_signature_is_its_signers_over_these_bytes_and_no_others() {
        for scheme in [Scheme::Ed25519, Scheme::StandIn] {
            let (notary, set) = notary(scheme, None);
            let signature = notary.sign(NodeId(1), &statement(1));
            let check = |node: u64, statement: Statement| {
                let signer = NodeId(node);
                let key = set.member(signer).unwrap().key;
                notary.accepts(&Check { signer, key, bytes: statement.signing_bytes(), signature })
            };
            assert!(check(1, statement(1)));
            assert!(!check(2, statement(1)) && !check(1, statement(2)));
            assert_eq!(notary.take_offence(), None);
        }
    }

    #[test]
    fn a_certificate_of_one_signature_under_three_names_is_refused_and_an_offence_if_believed() {
        let seal = |notary: &Arc<Notary>| Seal { node: NodeId(1), notary: Arc::clone(notary) };
        let (sound, set) = notary(Scheme::StandIn, None);
        assert!(seal(&sound).holds(&certificate(&sound, &set, [1, 2, 3]), &set));
        let (refusing, set) = notary(Scheme::StandIn, None);
        assert!(!seal(&refusing).holds(&certificate(&refusing, &set, [4, 4, 4]), &set));
        assert_eq!(refusing.take_offence(), None);
        let (broken, set) = notary(Scheme::StandIn, Some(Planted::CountsASignerTwice));
        assert!(seal(&broken).holds(&certificate(&broken, &set, [4, 4, 4]), &set));
        assert_eq!(broken.take_offence().unwrap().invariant, Invariant::NoForgery);
    }
}
