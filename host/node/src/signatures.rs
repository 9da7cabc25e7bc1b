//! What is signed, between the network and the shards: frames of peers and of clients, verified by the vote service on
//! its bounded pool.
//!
//! Relies on `driver` for what of a frame is signed, on `clients` for their keys, and on `votes` for the verdicts.
//! Promises that a frame of a group that signs reaches its shard only verified, what clients signed of a proposed block
//! included; that frames of other groups never pass through here; and that whatever is refused counts against the peer
//! that delivered it. Knows no protocol.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use bytes::Bytes;
use quorate_crypto::ValidatorSet;
use quorate_types::{Batch, ClientFrame, FrameContentError, GroupId, NodeId};
use quorate_votes::gpu::{CardError, Cards, Choice, DeviceConfig};
use quorate_votes::{
    Answer, Backend, Dispatch, Metrics, Part, Request, Service, ServiceConfig, ServiceError, Ticket, measure,
};

use crate::clients::Clients;
use crate::clock::Clock;
use crate::driver::{
    AcceptedCertificates, AdmittedFrame, ClientRegister as _, Failure, FrameFault, PayloadFault, Unverified,
};
use crate::shard::{ShardSender, Waiter, refuse_all};

/// Why signatures cannot be verified as configured.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A card that the configuration names cannot be used.
    #[error("{0}; correct votes.cards, or set it to \"off\"")]
    Card(#[from] CardError),
    /// The vote service cannot start.
    #[error(transparent)]
    Service(#[from] ServiceError),
}

/// What a peer delivered that was refused, since this node's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerFaults {
    /// Frames with a signature or certificate that is not valid.
    pub signatures_refused: u64,
    /// Frames that are no message of their group: malformed, unsigned, of another cluster, group or epoch, from
    /// a node that is no member.
    pub frames_refused: u64,
    /// Snapshots that did not hold what enough members vouch for.
    pub snapshots_refused: u64,
    /// Frames dropped because too many of this peer waited to be verified.
    pub frames_overloaded: u64,
    /// Blocks that it proposed, and clients' frames that it handed on, with something that no client signed.
    pub payloads_refused: u64,
}

/// Who delivers the frames of clients, to the vote service: all of them share one queue beside those of peers.
const ANY_CLIENT: NodeId = NodeId::ZERO;

/// Sends the frames of groups that sign through the vote service.
#[derive(Debug)]
pub struct Signatures {
    service: Service,
    shared: Arc<Shared>,
    clients: Clients,
}

/// What waits for its verdicts.
enum Waiting {
    /// From a peer.
    Message(Box<Unverified>),
    /// From a client, or from a peer that holds it for one.
    Client { group: GroupId, frame: Box<AdmittedFrame>, waiters: Vec<Waiter> },
}

struct Shared {
    shards: Vec<ShardSender>,
    /// The voters of each group here that signs.
    sets: ArcSwap<BTreeMap<GroupId, Arc<ValidatorSet>>>,
    /// Frames under verification; as many as the service takes.
    waiting: Mutex<BTreeMap<Ticket, Waiting>>,
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
    /// Starts the vote service with so many threads, and with these cards beside them.
    ///
    /// # Errors
    ///
    /// [`StartError`].
    pub fn start(
        threads: usize,
        cards: &Choice,
        clock: Clock,
        shards: Vec<ShardSender>,
        clients: Clients,
    ) -> Result<Self, StartError> {
        let now: quorate_votes::Clock = Arc::new(move || clock.now().time);
        let (cards, line) = Cards::open(cards, DeviceConfig::default())?;
        tracing::info!("{line}");
        let device = cards.map(|cards| measured(cards, threads, &now)).transpose()?;
        let shared = Arc::new(Shared {
            shards,
            sets: ArcSwap::default(),
            waiting: Mutex::default(),
            accepted: Arc::default(),
            faults: Mutex::default(),
        });
        let config = ServiceConfig { threads, ..ServiceConfig::default() };
        let answered = Arc::clone(&shared);
        let service = Service::start(config, device, now, move |answer| answered.answered(&answer))?;
        Ok(Self { service, shared, clients })
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
        let read = Unverified::read(from, frame, set).and_then(|(mut unverified, mut request)| {
            unverified.check_payload(&mut request, &self.clients)?;
            Ok((unverified, request))
        });
        match read {
            Ok((unverified, request)) => {
                if self.submit(request, Waiting::Message(Box::new(unverified))).is_err() {
                    self.shared.note(from, |faults| faults.frames_overloaded += 1);
                }
            }
            Err(fault) => self.shared.refuse(from, group, &fault),
        }
        None
    }

    /// Whether clients of this group sign, as far as this node runs it.
    #[must_use]
    pub fn is_signed(&self, group: GroupId) -> bool {
        self.shared.sets.load().contains_key(&group)
    }

    /// Takes a client's frame, with one waiter for each item.
    pub fn take_client(&self, group: GroupId, frame: &ClientFrame, batch: &Batch, waiters: Vec<Waiter>) {
        let bytes = || frame.encode();
        if let Err((failure, waiters)) = self.check_client(ANY_CLIENT, group, (frame, bytes), batch, waiters)
        {
            refuse_all(waiters, &failure);
        }
    }

    /// Takes a client's frame that a peer holds and believes that this node, leading, does not.
    pub fn take_relayed(&self, from: NodeId, group: GroupId, bytes: Bytes) {
        let checked = ClientFrame::decode(bytes.clone()).map_err(FrameContentError::from).and_then(|frame| {
            let batch = frame.batch()?;
            Ok((frame, batch))
        });
        let fault = match checked {
            Ok((frame, batch)) => {
                match self.check_client(from, group, (&frame, || bytes), &batch, Vec::new()) {
                    Err((Failure::FrameRefused(fault), _)) => fault,
                    // Taken, or there is no room for it: nobody's fault.
                    _ => return,
                }
            }
            Err(fault) => fault.to_string(),
        };
        tracing::debug!(%from, %group, fault, "a client's frame that a peer handed on was refused");
        self.shared.note(from, |faults| faults.payloads_refused += 1);
    }

    /// Has a client's frame verified; its bytes are asked for once nothing else is wrong with it.
    fn check_client(
        &self,
        from: NodeId,
        group: GroupId,
        (frame, bytes): (&ClientFrame, impl FnOnce() -> Bytes),
        batch: &Batch,
        waiters: Vec<Waiter>,
    ) -> Result<(), (Failure, Vec<Waiter>)> {
        if !self.is_signed(group) {
            return Err((Failure::UnknownGroup, waiters));
        }
        let check = match self.clients.check(group, frame, batch) {
            Ok(check) => check,
            Err(fault) => return Err((Failure::FrameRefused(fault.to_string()), waiters)),
        };
        let content = quorate_crypto::frame_content(frame);
        let activates = batch.activates().collect();
        let admitted = AdmittedFrame { content, bytes: bytes(), items: batch.items.len(), activates };
        let request = Request { peer: from, parts: vec![Part::frame(check)] };
        match self.submit(request, Waiting::Client { group, frame: Box::new(admitted), waiters }) {
            Err(Waiting::Client { waiters, .. }) => Err((Failure::Overloaded, waiters)),
            _ => Ok(()),
        }
    }

    /// Has a request judged; gives back what was to wait if there is no room.
    fn submit(&self, request: Request, what: Waiting) -> Result<(), Waiting> {
        // Held meanwhile, so that no answer comes before its frame is among those that wait.
        let mut waiting = locked(&self.shared.waiting);
        match self.service.submit(request) {
            Ok(ticket) => {
                waiting.insert(ticket, what);
                Ok(())
            }
            Err(overloaded) => {
                drop(waiting);
                tracing::debug!(%overloaded, "a signed frame was dropped");
                Err(what)
            }
        }
    }

    /// Counts a snapshot that a peer delivered and that was refused.
    pub fn refuse_snapshot(&self, peer: NodeId) {
        self.shared.note(peer, |faults| faults.snapshots_refused += 1);
    }

    /// What was verified, where, and how long it waited.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.service.metrics()
    }

    /// What a peer delivered that was refused.
    #[must_use]
    pub fn faults(&self, peer: NodeId) -> PeerFaults {
        locked(&self.shared.faults).get(&peer).copied().unwrap_or_default()
    }
}

/// The cards with what a batch costs on them and on the processor.
fn measured(
    cards: Cards,
    threads: usize,
    clock: &quorate_votes::Clock,
) -> Result<(Arc<dyn Backend>, Dispatch), CardError> {
    let dispatch = measure::dispatch(clock, threads, Some(cards.first()));
    let dispatch = dispatch.map_err(|fault| CardError { ordinal: cards.first().ordinal(), fault })?;
    Ok((Arc::new(cards), dispatch))
}

impl Shared {
    fn answered(&self, answer: &Answer) {
        let Some(waiting) = locked(&self.waiting).remove(&answer.ticket) else { return };
        match waiting {
            Waiting::Message(unverified) => {
                let group = unverified.group();
                match unverified.admit(answer, &self.accepted) {
                    Ok(input) => crate::node::shard_of(&self.shards, group).verified(answer.peer, input),
                    Err(fault) => self.refuse(answer.peer, group, &fault),
                }
            }
            Waiting::Client { group, frame, waiters } if answer.is_accepted() => {
                crate::node::shard_of(&self.shards, group).client_frame(group, *frame, waiters);
            }
            Waiting::Client { group, waiters, .. } => {
                if answer.peer != ANY_CLIENT {
                    self.refuse(answer.peer, group, &PayloadFault::Signature.into());
                }
                refuse_all(waiters, &Failure::FrameRefused(PayloadFault::Signature.to_string()));
            }
        }
    }

    fn refuse(&self, from: NodeId, group: GroupId, fault: &FrameFault) {
        let before = self.note(from, |faults| match fault {
            FrameFault::Signature(quorate_crypto::VerifyError::InvalidSignature { .. })
            | FrameFault::Certificate(_) => faults.signatures_refused += 1,
            FrameFault::Payload(_) => faults.payloads_refused += 1,
            _ => faults.frames_refused += 1,
        });
        // A peer chooses how many there are; the counters tell.
        if before.signatures_refused + before.frames_refused + before.payloads_refused == 0 {
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

    use quorate_consensus::hotstuff::{Block, Body, Header, Justify, Life, Message, Proposal};
    use quorate_consensus::{Envelope, Message as AnyMessage};
    use quorate_crypto::{Scope, SecretKey, Validator};
    use quorate_transport::Role;
    use quorate_transport::pki::Authority;
    use quorate_types::{
        BatchItem, BootNumber, ClientKey, ClusterId, Command, Digest, EntryKind, Epoch, HlcTimestamp,
        Incarnation, LogIndex, Position, Protocol, Sequence, SessionId, Term, View, encode_frames,
    };

    use super::*;
    use crate::clients::tests::{CLUSTER, TestClient, client, clients, frame as client_frame, open};
    use crate::driver::Reply;

    const GROUP: GroupId = GroupId(3);

    fn secret(node: u64) -> SecretKey {
        SecretKey::from_seed(&[node as u8; 32])
    }

    fn scope() -> Scope {
        let cluster = CLUSTER;
        Scope { cluster, group: GROUP, epoch: Epoch(1), protocol: Protocol::HotStuff }
    }

    fn set() -> Arc<ValidatorSet> {
        let member = |node| Validator { node: NodeId(node), key: secret(node).public() };
        Arc::new(ValidatorSet::new(scope(), (1..=4).map(member).collect()).unwrap())
    }

    fn frame(scope: Scope, key: &SecretKey) -> Bytes {
        said(scope, key, Body::Boot(Life { boot: BootNumber(1), nonce: 2 }))
    }

    /// The first block, proposed by its leader with this in it.
    fn proposed(kind: EntryKind, body: Bytes) -> Bytes {
        let header = Header {
            parent: Digest::default(),
            tenure: View(1),
            position: Position { epoch: Epoch(1), term: Term(1), index: LogIndex(1) },
            hlc: HlcTimestamp(1),
            kind,
            body: Digest::default(),
        };
        let block = Block::new(header, body);
        let proposal = Proposal { block, justify: Justify::Genesis, timed_out: None };
        said(scope(), &secret(2), Body::Proposal(Box::new(proposal)))
    }

    fn said(scope: Scope, key: &SecretKey, body: Body) -> Bytes {
        let signature = key.sign(&body.statement(scope));
        let message = AnyMessage::HotStuff(Message { scope, body, signature });
        let (incarnation, boot) = (Incarnation(1), BootNumber(1));
        Envelope { group: GROUP, epoch: Epoch(1), incarnation, boot, to_incarnation: incarnation, message }
            .encode()
    }

    fn signatures() -> (Signatures, ShardSender, Authority) {
        let shard = ShardSender::new(16);
        let authority = Authority::create(CLUSTER).unwrap();
        let clients = clients(&authority);
        let shards = vec![shard.clone()];
        let signatures = Signatures::start(1, &Choice::Off, Clock::default(), shards, clients).unwrap();
        signatures.add_group(GROUP, set());
        (signatures, shard, authority)
    }

    fn wait_until(signatures: &Signatures, is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !is_so() {
            assert!(Instant::now() < deadline, "{signatures:?}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_card_that_is_named_and_missing_is_an_error_that_says_what_to_do() {
        let authority = Authority::create(CLUSTER).unwrap();
        let start = |threads, choice| {
            Signatures::start(threads, &choice, Clock::default(), Vec::new(), clients(&authority))
                .unwrap_err()
        };
        let refused = start(1, Choice::These(vec![1_000]));
        assert!(matches!(&refused, StartError::Card(CardError { ordinal: 1_000, .. })), "{refused}");
        assert!(refused.to_string().contains("votes.cards"), "{refused}");
        assert!(matches!(start(0, Choice::Off), StartError::Service(ServiceError::Threads { threads: 0 })));
    }

    /// What could go wrong: a forged frame that reaches a replica, or one that is held against its victim.
    #[test]
    fn only_verified_frames_reach_the_shard_and_refusals_count_against_the_deliverer() {
        let (signatures, shard, _) = signatures();
        let good = frame(scope(), &secret(2));
        assert_eq!(signatures.take(NodeId(2), GROUP, good.clone()), None);
        // The same frame delivered by another peer names that peer as its signer.
        assert_eq!(signatures.take(NodeId(4), GROUP, good), None);
        wait_until(&signatures, || {
            signatures.faults(NodeId(4)).signatures_refused > 0 && shard.waiting() > 0
        });
        assert_eq!(shard.waiting(), 1);
        assert_eq!(signatures.faults(NodeId(2)), PeerFaults::default());
    }

    #[test]
    fn what_is_no_message_of_the_group_is_counted_and_other_groups_pass() {
        let (signatures, shard, _) = signatures();
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

    fn command() -> BatchItem {
        BatchItem::Command(Command {
            session: SessionId(1),
            sequence: Sequence(1),
            acknowledged_below: Sequence(1),
            name: "withdraw".into(),
            body: Bytes::new(),
        })
    }

    fn frames(frames: &[ClientFrame]) -> Bytes {
        proposed(
            EntryKind::Frames,
            encode_frames(&frames.iter().map(ClientFrame::encode).collect::<Vec<_>>()),
        )
    }

    fn signed(client: &TestClient, items: Vec<BatchItem>) -> ClientFrame {
        client_frame(client, &client.certificate, items).0
    }

    /// What could go wrong: a leader orders a command that nobody sent, and is voted for.
    #[test]
    fn a_block_with_what_no_client_signed_never_reaches_the_shard_and_counts_against_its_proposer() {
        let (signatures, shard, authority) = signatures();
        let [writer, operator] = [Role::Writer, Role::Operator].map(|role| client(&authority, role));
        let deploy =
            |after| BatchItem::Activate { component: Digest([1; 32]), parameters: Bytes::new(), after };
        let good = signed(&writer, vec![open(), command()]);
        let batch = |items| proposed(EntryKind::Batch, Batch { items }.encode());
        let fabricated =
            ClientFrame { items: signed(&writer, vec![command(), command()]).items, ..good.clone() };
        let stranger = client(&Authority::create(CLUSTER).unwrap(), Role::Writer);
        let smuggled = BatchItem::Evidence(Bytes::new());
        let bad = [
            frames(&[good.clone(), fabricated]),
            frames(&[ClientFrame { key: ClientKey([0; 32]), ..good.clone() }]),
            frames(&[signed(&stranger, vec![open()])]),
            frames(&[client_frame(&writer, &Bytes::new(), vec![open()]).0]),
            frames(&[signed(&writer, vec![smuggled.clone()])]),
            proposed(EntryKind::Frames, Bytes::from_static(b"garbage")),
            batch(vec![BatchItem::Tick, command()]),
            batch(vec![open()]),
            batch(vec![BatchItem::CloseSession(SessionId(1))]),
            batch(vec![deploy(Some(0))]),
            batch(vec![deploy(None)]),
            frames(&[signed(&writer, vec![deploy(Some(0))])]),
            frames(&[signed(&operator, vec![deploy(None)])]),
            frames(&[client_frame(&operator, &Bytes::new(), vec![deploy(Some(0))]).0]),
            frames(&[ClientFrame {
                items: signed(&operator, vec![deploy(Some(1))]).items,
                ..signed(&operator, vec![deploy(Some(0))])
            }]),
            proposed(EntryKind::Batch, Bytes::from_static(b"garbage")),
        ];
        for (count, frame) in (1..).zip(bad) {
            assert_eq!(signatures.take(NodeId(2), GROUP, frame), None);
            wait_until(&signatures, || signatures.faults(NodeId(2)).payloads_refused == count);
        }
        assert_eq!(shard.waiting(), 0);
        signatures.take(NodeId(2), GROUP, frames(&[good]));
        signatures.take(NodeId(2), GROUP, batch(vec![BatchItem::Tick, smuggled]));
        signatures.take(NodeId(2), GROUP, frames(&[signed(&operator, vec![deploy(Some(0))])]));
        wait_until(&signatures, || shard.waiting() == 3);
    }

    /// What could go wrong: an honest leader is blamed for what a client or another member made up.
    #[test]
    fn a_frame_with_a_bad_signature_is_told_so_and_ordered_by_nobody() {
        let (signatures, shard, authority) = signatures();
        let writer = client(&authority, Role::Writer);
        let good = signed(&writer, vec![command()]);
        let bad = ClientFrame { signature: [1; 64], ..good.clone() };
        let told = |group, frame: &ClientFrame| {
            let (sender, receiver) = tokio::sync::oneshot::channel();
            let batch = frame.batch().unwrap();
            signatures.take_client(group, frame, &batch, vec![Waiter::Once(sender)]);
            receiver.blocking_recv().unwrap()
        };
        assert!(matches!(told(GROUP, &bad), Reply::Failed(Failure::FrameRefused(_))));
        assert!(matches!(told(GroupId(9), &good), Reply::Failed(Failure::UnknownGroup)));
        signatures.take_relayed(NodeId(3), GROUP, bad.encode());
        signatures.take_relayed(NodeId(3), GROUP, Bytes::from_static(b"garbage"));
        wait_until(&signatures, || signatures.faults(NodeId(3)).payloads_refused == 2);
        assert_eq!(shard.waiting(), 0);
        signatures.take_relayed(NodeId(3), GROUP, good.encode());
        wait_until(&signatures, || shard.waiting() == 1);
    }
}
