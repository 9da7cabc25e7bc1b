//! Signed frames between the transport and the shards: verified by the vote service on its bounded pool.
//!
//! Relies on `driver` for what of a frame is signed and on `votes` for the verdicts. Promises that a frame of a
//! group that signs reaches its shard only verified, that frames of other groups never pass through here, and
//! that whatever is refused counts against the peer that delivered it. Knows no protocol.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use bytes::Bytes;
use quorate_crypto::ValidatorSet;
use quorate_types::{GroupId, NodeId};
use quorate_votes::{Answer, Service, ServiceConfig, ServiceError, Ticket};

use crate::clock::Clock;
use crate::driver::{AcceptedCertificates, FrameFault, Unverified};
use crate::shard::ShardSender;

/// What a peer delivered that was refused, since this node's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerFaults {
    /// Frames with a signature or certificate that is not valid.
    pub signatures_refused: u64,
    /// Frames that are no message of their group: malformed, unsigned, of another cluster, group or epoch, from
    /// a node that is no member.
    pub frames_refused: u64,
    /// Frames dropped because too many of this peer waited to be verified.
    pub frames_overloaded: u64,
}

/// Sends the frames of groups that sign through the vote service.
#[derive(Debug)]
pub struct Signatures {
    service: Service,
    shared: Arc<Shared>,
}

struct Shared {
    shards: Vec<ShardSender>,
    /// The voters of each group here that signs.
    sets: ArcSwap<BTreeMap<GroupId, Arc<ValidatorSet>>>,
    /// Frames under verification; as many as the service takes.
    waiting: Mutex<BTreeMap<Ticket, Unverified>>,
    accepted: Arc<AcceptedCertificates>,
    faults: Mutex<BTreeMap<NodeId, PeerFaults>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("groups", &self.sets.load().len()).finish_non_exhaustive()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Signatures {
    /// Starts the vote service with so many threads.
    ///
    /// # Errors
    ///
    /// [`ServiceError`].
    pub fn start(threads: usize, clock: Clock, shards: Vec<ShardSender>) -> Result<Self, ServiceError> {
        let shared = Arc::new(Shared {
            shards,
            sets: ArcSwap::default(),
            waiting: Mutex::default(),
            accepted: Arc::default(),
            faults: Mutex::default(),
        });
        let config = ServiceConfig { threads, ..ServiceConfig::default() };
        let answered = Arc::clone(&shared);
        let now = Arc::new(move || clock.now().time);
        let service = Service::start(config, None, now, move |answer| answered.answered(&answer))?;
        Ok(Self { service, shared })
    }

    /// Frames of this group are signed by these members from now on.
    pub fn add_group(&self, group: GroupId, set: Arc<ValidatorSet>) {
        self.shared.sets.rcu(|sets| {
            let mut sets = BTreeMap::clone(sets);
            sets.insert(group, Arc::clone(&set));
            sets
        });
    }

    /// What was accepted, for the replicas that read the same certificates later.
    #[must_use]
    pub fn accepted(&self) -> Arc<AcceptedCertificates> {
        Arc::clone(&self.shared.accepted)
    }

    /// Takes a frame if its group signs; gives it back if not.
    pub fn take(&self, from: NodeId, group: GroupId, frame: Bytes) -> Option<Bytes> {
        let sets = self.shared.sets.load();
        let Some(set) = sets.get(&group) else { return Some(frame) };
        match Unverified::read(from, frame, set) {
            Ok((unverified, request)) => {
                // Held meanwhile, so that no answer comes before its frame is among those that wait.
                let mut waiting = locked(&self.shared.waiting);
                match self.service.submit(request) {
                    Ok(ticket) => drop(waiting.insert(ticket, unverified)),
                    Err(overloaded) => {
                        drop(waiting);
                        tracing::debug!(%from, %group, %overloaded, "a signed frame was dropped");
                        self.shared.note(from, |faults| faults.frames_overloaded += 1);
                    }
                }
            }
            Err(fault) => self.shared.refuse(from, group, &fault),
        }
        None
    }

    /// What a peer delivered that was refused.
    #[must_use]
    pub fn faults(&self, peer: NodeId) -> PeerFaults {
        locked(&self.shared.faults).get(&peer).copied().unwrap_or_default()
    }
}

impl Shared {
    fn answered(&self, answer: &Answer) {
        let Some(unverified) = locked(&self.waiting).remove(&answer.ticket) else { return };
        let group = unverified.group();
        match unverified.admit(answer, &self.accepted) {
            Ok(input) => crate::node::shard_of(&self.shards, group).verified(answer.peer, input),
            Err(fault) => self.refuse(answer.peer, group, &fault),
        }
    }

    fn refuse(&self, from: NodeId, group: GroupId, fault: &FrameFault) {
        let before = self.note(from, |faults| match fault {
            FrameFault::Signature(quorate_crypto::VerifyError::InvalidSignature { .. })
            | FrameFault::Certificate(_) => faults.signatures_refused += 1,
            _ => faults.frames_refused += 1,
        });
        // A peer chooses how many there are; the counters tell.
        if before.signatures_refused + before.frames_refused == 0 {
            tracing::warn!(%from, %group, %fault, "a signed frame was refused, and later ones are only counted");
        } else {
            tracing::debug!(%from, %group, %fault, "a signed frame was refused");
        }
    }

    /// Counts something a peer delivered; returns what was counted before.
    fn note(&self, peer: NodeId, count: impl FnOnce(&mut PeerFaults)) -> PeerFaults {
        let mut faults = locked(&self.faults);
        let faults = faults.entry(peer).or_default();
        let before = *faults;
        count(faults);
        before
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::{Duration, Instant};

    use quorate_consensus::hotstuff::{Body, Life, Message};
    use quorate_consensus::{Envelope, Message as AnyMessage};
    use quorate_crypto::{Scope, SecretKey, Validator};
    use quorate_types::{BootNumber, ClusterId, Epoch, Incarnation, Protocol};

    use super::*;

    const GROUP: GroupId = GroupId(3);

    fn secret(node: u64) -> SecretKey {
        SecretKey::from_seed(&[node as u8; 32])
    }

    fn scope() -> Scope {
        let cluster = ClusterId([1; 16]);
        Scope { cluster, group: GROUP, epoch: Epoch(1), protocol: Protocol::HotStuff }
    }

    fn set() -> Arc<ValidatorSet> {
        let member = |node| Validator { node: NodeId(node), key: secret(node).public() };
        Arc::new(ValidatorSet::new(scope(), (1..=4).map(member).collect()).unwrap())
    }

    fn frame(scope: Scope, key: &SecretKey) -> Bytes {
        let body = Body::Boot(Life { boot: BootNumber(1), nonce: 2 });
        let signature = key.sign(&body.statement(scope));
        let message = AnyMessage::HotStuff(Message { scope, body, signature });
        let (incarnation, boot) = (Incarnation(1), BootNumber(1));
        Envelope { group: GROUP, epoch: Epoch(1), incarnation, boot, to_incarnation: incarnation, message }
            .encode()
    }

    fn signatures() -> (Signatures, ShardSender) {
        let shard = ShardSender::new(16);
        let signatures = Signatures::start(1, Clock::default(), vec![shard.clone()]).unwrap();
        signatures.add_group(GROUP, set());
        (signatures, shard)
    }

    /// What could go wrong: a forged frame that reaches a replica, or one that is held against its victim.
    #[test]
    fn only_verified_frames_reach_the_shard_and_refusals_count_against_the_deliverer() {
        let (signatures, shard) = signatures();
        let good = frame(scope(), &secret(2));
        assert_eq!(signatures.take(NodeId(2), GROUP, good.clone()), None);
        // The same frame delivered by another peer names that peer as its signer.
        assert_eq!(signatures.take(NodeId(4), GROUP, good), None);
        let deadline = Instant::now() + Duration::from_secs(10);
        while signatures.faults(NodeId(4)).signatures_refused == 0 || shard.waiting() == 0 {
            assert!(Instant::now() < deadline, "{signatures:?}");
            std::thread::yield_now();
        }
        assert_eq!(shard.waiting(), 1);
        assert_eq!(signatures.faults(NodeId(2)), PeerFaults::default());
    }

    #[test]
    fn what_is_no_message_of_the_group_is_counted_and_other_groups_pass() {
        let (signatures, shard) = signatures();
        let refused = |from, frame| {
            assert_eq!(signatures.take(NodeId(from), GROUP, frame), None);
            signatures.faults(NodeId(from)).frames_refused
        };
        assert_eq!(refused(1, Bytes::from_static(b"garbage")), 1);
        assert_eq!(refused(9, frame(scope(), &secret(9))), 1, "no member");
        let elsewhere = Scope { cluster: ClusterId([2; 16]), ..scope() };
        assert_eq!(refused(2, frame(elsewhere, &secret(2))), 1);
        assert_eq!(refused(2, frame(Scope { epoch: Epoch(2), ..scope() }, &secret(2))), 2);
        let other = Bytes::from_static(b"of a crash group");
        assert_eq!(signatures.take(NodeId(2), GroupId(4), other.clone()), Some(other));
        assert_eq!(shard.waiting(), 0);
    }
}
