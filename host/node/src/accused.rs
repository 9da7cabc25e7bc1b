//! Members of a group of whom the log proves that they lied.
//!
//! Relies on evidence that proves itself. Promises that only what holds against a member of the epoch in force is
//! kept, that it is part of the group's state and so of its digest and snapshots, and that one liar cannot fill
//! that state. Does not know what is done about a liar.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_consensus::hotstuff::Evidence;
use quorate_crypto::ValidatorSet;
use quorate_runtime::{Space, State};
use quorate_types::codec::{DecodeError, Reader, Writer};
use quorate_types::{Digest, LogIndex, NodeId, Rejection};

/// Where evidence lies in the host's part of the state.
const KEY_PREFIX: u8 = b'e';
/// Lies that are kept of one member; the first already says all.
pub const EVIDENCE_PER_MEMBER_MAX: usize = 8;

/// A lie, and the entry that proved it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvenLie {
    /// The entry that brought the proof.
    pub index: LogIndex,
    /// The proof.
    pub evidence: Evidence,
}

/// What the log proves, by member and by the digest that names the lie.
#[derive(Clone, Debug, Default)]
pub struct Accused {
    lies: BTreeMap<(NodeId, Digest), ProvenLie>,
    members: BTreeSet<NodeId>,
}

impl Accused {
    /// Reads what [`Accused::note`] wrote into the state.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] when it cannot be read.
    pub fn load(state: &State) -> Result<Self, DecodeError> {
        let mut lies = BTreeMap::new();
        for (_, value) in state.range(Space::Host, &[KEY_PREFIX], Some(&[KEY_PREFIX + 1])) {
            let mut from = Reader::new(value.clone());
            let index = LogIndex(from.u64("evidence index")?);
            let evidence = Evidence::decode(&mut from)?;
            from.end()?;
            lies.insert((evidence.signer(), evidence.digest()), ProvenLie { index, evidence });
        }
        let members = lies.keys().map(|(member, _)| *member).collect();
        Ok(Self { lies, members })
    }

    /// Keeps evidence if it holds against a member of `set`; what is known already changes nothing.
    ///
    /// # Errors
    ///
    /// A rejection for anything that proves no lie.
    pub fn note(
        &mut self,
        state: &mut State,
        index: LogIndex,
        bytes: Bytes,
        set: &ValidatorSet,
    ) -> Result<(), Rejection> {
        let refused = |message: String| Rejection {
            code: Rejection::EVIDENCE_REFUSED,
            name: "evidence-refused".to_owned(),
            message,
        };
        let evidence = Evidence::from_bytes(bytes).map_err(|error| refused(error.to_string()))?;
        let key = (evidence.signer(), evidence.digest());
        let of_member = self.lies.keys().filter(|(member, _)| *member == key.0).count();
        if self.lies.contains_key(&key) || of_member >= EVIDENCE_PER_MEMBER_MAX {
            return Ok(());
        }
        evidence.verify(set).map_err(|error| refused(error.to_string()))?;
        let mut value = Writer::default();
        value.u64(index.0);
        evidence.encode(&mut value);
        let mut stored = vec![KEY_PREFIX];
        stored.extend_from_slice(&key.0.0.to_be_bytes());
        stored.extend_from_slice(&key.1.0);
        state.put(Space::Host, Bytes::from(stored), value.finish());
        self.members.insert(key.0);
        self.lies.insert(key, ProvenLie { index, evidence });
        Ok(())
    }

    /// The members that lied, in order.
    #[must_use]
    pub fn members(&self) -> Vec<NodeId> {
        self.members.iter().copied().collect()
    }

    /// How many members lied.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether nobody lied.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Every lie, by member.
    pub fn lies(&self) -> impl Iterator<Item = &ProvenLie> {
        self.lies.values()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use quorate_crypto::{Scope, SecretKey, Statement, StatementKind, Validator};
    use quorate_types::{ClusterId, Epoch, GroupId, Protocol, View};

    use super::*;

    fn secret(node: u64) -> SecretKey {
        SecretKey::from_seed(&[node as u8; 32])
    }

    fn scope() -> Scope {
        let (cluster, group) = (ClusterId([1; 16]), GroupId(3));
        Scope { cluster, group, epoch: Epoch(1), protocol: Protocol::HotStuff }
    }

    fn set() -> ValidatorSet {
        let member = |node| Validator { node: NodeId(node), key: secret(node).public() };
        ValidatorSet::new(scope(), (1..=4).map(member).collect()).unwrap()
    }

    /// Two votes of one view, the second for `content`.
    fn lie(scope: Scope, node: u64, view: u64, content: u8, key: &SecretKey) -> Bytes {
        let vote = |content| {
            let digest = Digest([content; 32]);
            Statement { scope, kind: StatementKind::Vote, view: View(view), index: LogIndex(view), digest }
        };
        let signed = |content| (vote(content), key.sign(&vote(content)));
        Evidence::of(NodeId(node), signed(0), signed(content)).unwrap().to_bytes()
    }

    #[test]
    fn a_lie_is_kept_once_and_comes_back_with_the_state() {
        let (mut state, mut accused, set) = (State::new(), Accused::default(), set());
        let bytes = lie(scope(), 2, 7, 1, &secret(2));
        assert_eq!(accused.note(&mut state, LogIndex(9), bytes.clone(), &set), Ok(()));
        assert_eq!(accused.note(&mut state, LogIndex(10), bytes, &set), Ok(()));
        assert_eq!(accused.members(), [NodeId(2)]);
        let loaded = Accused::load(&state).unwrap();
        assert_eq!(loaded.lies().collect::<Vec<_>>(), accused.lies().collect::<Vec<_>>());
        assert_eq!(loaded.lies().next().unwrap().index, LogIndex(9));
    }

    /// What could go wrong: an honest member is called a liar.
    #[test]
    fn what_proves_nothing_is_refused() {
        let (mut state, mut accused, set) = (State::new(), Accused::default(), set());
        let mut note = |bytes| accused.note(&mut state, LogIndex(9), bytes, &set).map_err(|fault| fault.code);
        let refused = Err(Rejection::EVIDENCE_REFUSED);
        assert_eq!(note(lie(scope(), 2, 7, 1, &secret(3))), refused, "signed by another");
        assert_eq!(note(lie(scope(), 9, 7, 1, &secret(9))), refused, "no member");
        let elsewhere = Scope { group: GroupId(4), ..scope() };
        assert_eq!(note(lie(elsewhere, 2, 7, 1, &secret(2))), refused, "another group");
        assert_eq!(note(Bytes::from_static(b"garbage")), refused);
        assert!(accused.members().is_empty() && Accused::load(&state).unwrap().members().is_empty());
    }

    #[test]
    fn one_liar_cannot_fill_the_state() {
        let (mut state, mut accused, set) = (State::new(), Accused::default(), set());
        for view in 1..=20 {
            accused.note(&mut state, LogIndex(view), lie(scope(), 2, view, 1, &secret(2)), &set).unwrap();
        }
        assert_eq!(accused.lies().count(), EVIDENCE_PER_MEMBER_MAX);
        accused.note(&mut state, LogIndex(30), lie(scope(), 3, 1, 1, &secret(3)), &set).unwrap();
        assert_eq!(accused.members(), [NodeId(2), NodeId(3)]);
    }
}
