//! A value whose origin was checked.
//!
//! Relies on whoever calls [`Verified::from_authenticated_peer`] to be the driver of a crash group.
//! Promises that nothing else makes one without an accepted signature: a decoder cannot, and a verdict
//! vouches only for the value whose statement it judged. Knows nothing of what is verified.

use quorate_types::NodeId;

use crate::signed::{Signed, Stated, VerifyError};
use crate::{ValidatorSet, Verdict};

/// A value together with the node that vouched for it.
///
/// In crash groups the origin is the mutually authenticated peer that delivered the value; in hybrid
/// and Byzantine groups the signer that the value names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified<T> {
    origin: NodeId,
    value: T,
}

impl<T> Verified<T> {
    /// Vouches for a value received from `peer` over a connection on which both sides proved their
    /// identity.
    #[must_use]
    pub fn from_authenticated_peer(peer: NodeId, value: T) -> Self {
        Self { origin: peer, value }
    }

    /// Who vouched for the value.
    #[must_use]
    pub fn origin(&self) -> NodeId {
        self.origin
    }

    /// The value.
    #[must_use]
    pub fn value(&self) -> &T {
        &self.value
    }

    /// The same value as part of a wider type.
    #[must_use]
    pub fn widen<U: From<T>>(self) -> Verified<U> {
        Verified { origin: self.origin, value: self.value.into() }
    }

    /// Splits into origin and value.
    #[must_use]
    pub fn into_parts(self) -> (NodeId, T) {
        (self.origin, self.value)
    }
}

impl<T: Stated> Verified<T> {
    /// Verifies a signed value of a member of `set`.
    ///
    /// # Errors
    ///
    /// [`VerifyError`] for the first reason not to believe it.
    pub fn from_signed(signed: Signed<T>, set: &ValidatorSet) -> Result<Self, VerifyError> {
        let verdict = signed.check(set)?.verify();
        Self::from_verdict(signed, set, &verdict)
    }

    /// Takes a verdict that was reached before, for this very value, signer, key and signature.
    ///
    /// # Errors
    ///
    /// [`VerifyError`]; [`VerifyError::OtherVerdict`] when it is on anything else.
    pub fn from_verdict(
        signed: Signed<T>,
        set: &ValidatorSet,
        verdict: &Verdict,
    ) -> Result<Self, VerifyError> {
        let signer = signed.signer();
        if *verdict.check() != signed.check(set)? {
            return Err(VerifyError::OtherVerdict { signer });
        }
        if !verdict.is_accepted() {
            return Err(VerifyError::InvalidSignature { signer });
        }
        Ok(Self { origin: signer, value: signed.into_value() })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use quorate_types::{Epoch, GroupId, NodeId, View};

    use super::*;
    use crate::validators::tests::{keys, set};
    use crate::{Signature, Statement};

    fn vote(view: u64) -> Statement {
        Statement { view: View(view), ..crate::statement::tests::statement() }
    }

    #[test]
    fn a_members_signature_vouches_for_its_value() {
        let (set, keys) = (set(4), keys(4));
        let verified = Verified::from_signed(Signed::sign(vote(1), NodeId(2), &keys[1]), &set).unwrap();
        assert_eq!(verified.clone().widen::<Option<Statement>>().into_parts(), (NodeId(2), Some(vote(1))));
        assert_eq!(verified.into_parts(), (NodeId(2), vote(1)));
    }

    #[test]
    fn strangers_forgers_and_other_places_are_refused_by_name() {
        let (set, keys) = (set(4), keys(4));
        let verify = |signed: Signed<Statement>| Verified::from_signed(signed, &set).map(|_| ());
        let stranger = Signed::sign(vote(1), NodeId(9), &keys[0]);
        assert_eq!(verify(stranger), Err(VerifyError::UnknownSigner { signer: NodeId(9) }));
        let forged = Signed::sign(vote(1), NodeId(2), &keys[0]);
        assert_eq!(verify(forged), Err(VerifyError::InvalidSignature { signer: NodeId(2) }));
        let replayed = Signed::sign(vote(1), NodeId(1), &keys[0]).signature();
        let replayed = Signed::from_parts(vote(2), NodeId(1), replayed);
        assert_eq!(verify(replayed), Err(VerifyError::InvalidSignature { signer: NodeId(1) }));
        let zero = Signed::from_parts(vote(1), NodeId(1), Signature([0; 64]));
        assert_eq!(verify(zero), Err(VerifyError::InvalidSignature { signer: NodeId(1) }));
        let mut other = vote(1);
        other.scope.group = GroupId(77);
        let foreign = verify(Signed::sign(other, NodeId(1), &keys[0]));
        assert!(matches!(foreign, Err(VerifyError::Foreign(crate::ForeignScope::Group { .. }))));
        let mut other = vote(1);
        other.scope.epoch = Epoch(77);
        let foreign = verify(Signed::sign(other, NodeId(1), &keys[0]));
        assert!(matches!(foreign, Err(VerifyError::Foreign(crate::ForeignScope::Epoch { .. }))));
    }

    /// A pool that mixes up its answers must not turn a good verdict on one value into belief in another.
    #[test]
    fn a_verdict_vouches_for_nothing_but_what_it_judged() {
        let (set, keys) = (set(4), keys(4));
        let good = Signed::sign(vote(1), NodeId(1), &keys[0]);
        let verdict = good.check(&set).unwrap().verify();
        assert!(Verified::from_verdict(good.clone(), &set, &verdict).is_ok());
        for other in [
            Signed::from_parts(vote(2), NodeId(1), good.signature()),
            Signed::from_parts(vote(1), NodeId(2), good.signature()),
            Signed::from_parts(vote(1), NodeId(1), Signature([0; 64])),
        ] {
            let signer = other.signer();
            let refused = Verified::from_verdict(other, &set, &verdict);
            assert_eq!(refused, Err(VerifyError::OtherVerdict { signer }));
        }
    }
}
