//! What a client's signature of a frame says, and how it is made and checked.
//!
//! Relies on [`PublicKey::register`] for what a key must be. Promises that a frame signed for one group of one cluster
//! is none for another, and that [`FrameCheck`] names a frame byte by byte. Knows no session: replaying a frame is
//! harmless because the sessions of its group carry out each of its commands once.

use bytes::Bytes;
use quorate_types::{ClientFrame, ClientKey, ClusterId, Digest, Epoch, GroupId, LogIndex, Protocol, View};

use crate::{Check, KeyError, PublicKey, Scope, SecretKey, Signature, Statement, StatementKind};

const CONTENT_DOMAIN: &str = "quorate 2026 client frame";
const BYTES_DOMAIN: &str = "quorate 2026 client frame bytes";

/// What names the content of a frame, whoever delivers it and whatever its signature bytes: a digest of its key and
/// its items.
#[must_use]
pub fn frame_content(frame: &ClientFrame) -> Digest {
    content(&frame.key, &frame.items)
}

fn content(key: &ClientKey, items: &[u8]) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key(CONTENT_DOMAIN);
    hasher.update(&key.0).update(items);
    Digest(*hasher.finalize().as_bytes())
}

/// A frame outlives the epoch that it was signed in, so that epoch and protocol are left open.
fn statement(cluster: ClusterId, group: GroupId, digest: Digest) -> Statement {
    let scope = Scope { cluster, group, epoch: Epoch::ZERO, protocol: Protocol::Raft };
    Statement { scope, kind: StatementKind::ClientFrame, view: View::ZERO, index: LogIndex::ZERO, digest }
}

/// Signs items for a group.
#[must_use]
pub fn sign_frame(
    cluster: ClusterId,
    group: GroupId,
    secret: &SecretKey,
    certificate: Bytes,
    items: Bytes,
) -> ClientFrame {
    let key = ClientKey(secret.public().to_bytes());
    let signature = secret.sign(&statement(cluster, group, content(&key, &items))).0;
    ClientFrame { key, signature, certificate, items }
}

/// A frame's signature, to be verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameCheck {
    /// Names the frame with its signature and certificate: what was accepted under it needs no second look.
    pub digest: Digest,
    /// What is to be verified. The signer is no member, so its node is 0.
    pub check: Check,
}

impl FrameCheck {
    /// What must be verified of a frame for this group. `register` gives the key, from memory if it was registered
    /// before.
    ///
    /// # Errors
    ///
    /// [`KeyError`] for a key that nobody should register.
    pub fn of(
        cluster: ClusterId,
        group: GroupId,
        frame: &ClientFrame,
        register: impl FnOnce(&ClientKey) -> Result<PublicKey, KeyError>,
    ) -> Result<Self, KeyError> {
        let key = register(&frame.key)?;
        let content = frame_content(frame);
        let mut hasher = blake3::Hasher::new_derive_key(BYTES_DOMAIN);
        hasher.update(&cluster.0).update(&group.0.to_le_bytes());
        hasher.update(&content.0).update(&frame.signature).update(&frame.certificate);
        let digest = Digest(*hasher.finalize().as_bytes());
        let bytes = statement(cluster, group, content).signing_bytes();
        let signature = Signature(frame.signature);
        Ok(Self { digest, check: Check { signer: quorate_types::NodeId::ZERO, key, bytes, signature } })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const CLUSTER: ClusterId = ClusterId([3; 16]);
    const GROUP: GroupId = GroupId(4);

    fn secret() -> SecretKey {
        SecretKey::from_seed(&[1; 32])
    }

    fn frame() -> ClientFrame {
        sign_frame(CLUSTER, GROUP, &secret(), Bytes::from_static(b"cert"), Bytes::from_static(b"items"))
    }

    fn check(cluster: ClusterId, group: GroupId, frame: &ClientFrame) -> FrameCheck {
        FrameCheck::of(cluster, group, frame, |key| PublicKey::register(&key.0)).unwrap()
    }

    fn accepted(cluster: ClusterId, group: GroupId, frame: &ClientFrame) -> bool {
        check(cluster, group, frame).check.verify().is_accepted()
    }

    /// What could go wrong: a frame counts in another group, or for other items, or under another key.
    #[test]
    fn a_signature_is_of_one_frame_for_one_group() {
        let good = frame();
        assert!(accepted(CLUSTER, GROUP, &good));
        assert!(!accepted(ClusterId([9; 16]), GROUP, &good));
        assert!(!accepted(CLUSTER, GroupId(5), &good));
        let other_items = ClientFrame { items: Bytes::from_static(b"other"), ..good.clone() };
        assert!(!accepted(CLUSTER, GROUP, &other_items));
        let other = ClientKey(SecretKey::from_seed(&[2; 32]).public().to_bytes());
        assert!(!accepted(CLUSTER, GROUP, &ClientFrame { key: other, ..good.clone() }));
        assert!(!accepted(CLUSTER, GROUP, &ClientFrame { signature: [0; 64], ..good }));
    }

    /// What could go wrong: a key for which anyone can sign, or on which verifiers differ.
    #[test]
    fn keys_that_nobody_should_register_are_refused() {
        let of = |key| {
            let frame = ClientFrame { key: ClientKey(key), ..frame() };
            FrameCheck::of(CLUSTER, GROUP, &frame, |key| PublicKey::register(&key.0)).unwrap_err()
        };
        assert_eq!(of([0; 32]), KeyError::SmallOrder);
        let mut none = [0; 32];
        none[0] = 2;
        assert_eq!(of(none), KeyError::NotAPoint);
    }

    /// What could go wrong: a frame with bad bytes is taken for a good one that was verified before.
    #[test]
    fn the_digest_names_every_byte_and_the_content_only_what_was_signed() {
        let good = frame();
        let digest = |frame: &ClientFrame| check(CLUSTER, GROUP, frame).digest;
        let other_signature = ClientFrame { signature: [0; 64], ..good.clone() };
        let other_certificate = ClientFrame { certificate: Bytes::new(), ..good.clone() };
        for other in [&other_signature, &other_certificate] {
            assert_ne!(digest(other), digest(&good));
            assert_eq!(frame_content(other), frame_content(&good));
        }
        assert_ne!(check(CLUSTER, GroupId(5), &good).digest, digest(&good));
        let other_items = ClientFrame { items: Bytes::from_static(b"other"), ..good.clone() };
        assert_ne!(frame_content(&other_items), frame_content(&good));
    }
}
