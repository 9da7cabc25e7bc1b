//! The vote service without threads: requests in, batches out, verdicts in, answers out.
//!
//! Relies on [`Queue`] for fairness and [`Memory`] for what was verified before. Promises that every request
//! that was taken is answered once all its signatures have verdicts, that a certificate which several
//! requests hold at the same time is verified once, and that time comes from outside. Knows no thread, no
//! device and no clock.
//!
//! A *job* is what is verified for one part of a request: a signature, or a certificate whose result all
//! requests that hold it wait for.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use quorate_crypto::Check;
use quorate_types::{Digest, NodeId, Time};

use crate::batch::Place;
use crate::memory::Memory;
use crate::metrics::TIME_CLASSES;
use crate::queue::{Overloaded, Queue};
use crate::{Answer, Batch, Metrics, Part, PartResult, Request, Ticket, Verdicts};

/// What the verifier may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifierLimits {
    /// Signatures that may wait per peer: enough for a view change of the largest group, and 0.1 s of one
    /// core's work. Bounds the requests of a peer that wait for their answer, too.
    pub peer_signatures_max: usize,
    /// Accepted certificates that are remembered; 32 bytes each, twice.
    pub certificates_remembered: usize,
}

impl Default for VerifierLimits {
    fn default() -> Self {
        Self { peer_signatures_max: 4_096, certificates_remembered: 16_384 }
    }
}

/// The vote service without threads.
///
/// Invariants: an open request waits for at least one job; a job in the queue or in a batch is in `jobs`.
#[derive(Debug)]
pub struct Verifier {
    limits: VerifierLimits,
    queue: Queue<u64>,
    memory: Memory,
    jobs: BTreeMap<u64, Job>,
    /// Certificates that are queued or in a batch, by digest.
    under_way: BTreeMap<Digest, u64>,
    open: BTreeMap<Ticket, Open>,
    open_by_peer: BTreeMap<NodeId, usize>,
    answers: VecDeque<Answer>,
    /// When the first of the signatures that wait was taken, or left behind by a batch.
    waiting_since: Option<Time>,
    next_job: u64,
    next_ticket: u64,
    metrics: Metrics,
}

/// A signature or certificate under verification.
#[derive(Debug)]
struct Job {
    checks: Vec<Check>,
    /// When it was taken.
    since: Time,
    /// Set for certificates.
    digest: Option<Digest>,
    /// Verdicts that are still missing.
    missing: usize,
    /// The first signature found invalid, by place.
    first_rejected: Option<usize>,
    /// The parts that wait for this job.
    waiting: Vec<(Ticket, usize)>,
}

/// A request that was taken and not answered.
#[derive(Debug)]
struct Open {
    peer: NodeId,
    results: Vec<Option<PartResult>>,
    missing: usize,
    since: Time,
}

impl Verifier {
    /// Holds nothing yet.
    #[must_use]
    pub fn new(limits: VerifierLimits) -> Self {
        Self {
            queue: Queue::new(limits.peer_signatures_max),
            memory: Memory::new(limits.certificates_remembered),
            jobs: BTreeMap::new(),
            under_way: BTreeMap::new(),
            open: BTreeMap::new(),
            open_by_peer: BTreeMap::new(),
            limits,
            answers: VecDeque::new(),
            waiting_since: None,
            next_job: 0,
            next_ticket: 0,
            metrics: Metrics::default(),
        }
    }

    /// Takes a request.
    ///
    /// # Errors
    ///
    /// [`Overloaded`] when the peer's queue has no room; nothing of the request is taken then.
    pub fn submit(&mut self, now: Time, request: Request) -> Result<Ticket, Overloaded> {
        let Request { peer, parts } = request;
        let weight: usize = parts.iter().filter(|part| !self.is_known(part)).map(Part::signatures).sum();
        let bound = self.limits.peer_signatures_max;
        let open = self.open_by_peer.get(&peer).copied().unwrap_or(0);
        let room = if open < bound {
            self.queue.check_room(peer, weight)
        } else {
            // Requests that only wait for others' certificates hold no signature and yet take room.
            Err(Overloaded { peer, waiting: open, added: weight, bound })
        };
        room.inspect_err(|_| self.metrics.overloaded += 1)?;
        *self.open_by_peer.entry(peer).or_default() += 1;
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let results = vec![None; parts.len()];
        self.open.insert(ticket, Open { peer, missing: results.len(), results, since: now });
        if parts.is_empty() {
            self.close(now, ticket);
        }
        for (at, part) in parts.into_iter().enumerate() {
            self.start(now, peer, (ticket, at), part);
        }
        Ok(ticket)
    }

    /// Gives out up to `max` signatures, at least one job if any waits: a certificate is never split over
    /// turns, but may be larger than `max`.
    pub fn next_batch(&mut self, max: usize) -> Option<Batch> {
        let mut batch = Batch::with_room(max.min(self.queue.waiting()));
        while batch.checks.len() < max {
            let room = if batch.checks.is_empty() { usize::MAX } else { max - batch.checks.len() };
            let Some(number) = self.queue.pop(room) else { break };
            let job = self.jobs.get(&number).expect("a job in the queue is in jobs");
            batch.checks.extend_from_slice(&job.checks);
            batch.places.extend((0..job.checks.len()).map(|at| Place { job: number, at }));
        }
        if self.queue.waiting() == 0 {
            self.waiting_since = None;
        }
        (!batch.checks.is_empty()).then_some(batch)
    }

    /// Takes the verdicts of a batch, which took `took` to verify.
    ///
    /// # Panics
    ///
    /// If there are not as many verdicts as signatures: the caller mixed up two batches.
    pub fn complete(&mut self, now: Time, batch: Batch, verdicts: &Verdicts, took: Duration) {
        assert_eq!(batch.checks.len(), verdicts.len(), "one verdict for each signature");
        let mut oldest = now;
        for (place, accepted) in batch.places.iter().zip(verdicts) {
            let job = self.jobs.get_mut(&place.job).expect("a job in a batch is in jobs");
            oldest = oldest.min(job.since);
            job.missing -= 1;
            if !accepted {
                job.first_rejected = Some(job.first_rejected.map_or(place.at, |at| at.min(place.at)));
                self.metrics.rejected += 1;
            } else {
                self.metrics.accepted += 1;
            }
            if job.missing == 0 {
                self.finish(now, place.job);
            }
        }
        self.metrics.record_batch(verdicts.len(), now.since(oldest).saturating_sub(took), took);
    }

    /// Takes the next answer.
    pub fn next_answer(&mut self) -> Option<Answer> {
        self.answers.pop_front()
    }

    /// How many signatures wait to be given out.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.waiting()
    }

    /// Since when there has been something to give out; `None` if there is nothing.
    #[must_use]
    pub fn waiting_since(&self) -> Option<Time> {
        self.waiting_since
    }

    /// How many requests were taken and not answered.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// What was done so far.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// To count what happens outside it: devices, fallbacks, breakers.
    pub fn metrics_mut(&mut self) -> &mut Metrics {
        &mut self.metrics
    }

    /// Whether a part costs nothing: it was verified before, or is being verified.
    fn is_known(&self, part: &Part) -> bool {
        match part {
            Part::Signature(_) => false,
            Part::Certificate { digest, checks } => {
                checks.is_empty() || self.memory.holds(digest) || self.under_way.contains_key(digest)
            }
        }
    }

    fn start(&mut self, now: Time, peer: NodeId, part: (Ticket, usize), what: Part) {
        let (digest, checks) = match what {
            Part::Signature(check) => (None, vec![check]),
            Part::Certificate { digest, checks } => (Some(digest), checks),
        };
        if let Some(digest) = digest {
            if self.memory.holds(&digest) {
                self.metrics.certificates_known += 1;
                return self.settle(now, part, PartResult::CertificateAccepted);
            }
            if let Some(job) = self.under_way.get(&digest).and_then(|number| self.jobs.get_mut(number)) {
                self.metrics.certificates_known += 1;
                job.waiting.push(part);
                return;
            }
        }
        let number = self.next_job;
        self.next_job += 1;
        if checks.is_empty() {
            // No certificate of `crypto` is without signatures: a quorum is at least three.
            return self.settle(now, part, PartResult::CertificateRejected { signer: NodeId::ZERO });
        }
        if let Some(digest) = digest {
            self.under_way.insert(digest, number);
        }
        self.queue.push(peer, checks.len(), number);
        self.waiting_since.get_or_insert(now);
        let missing = checks.len();
        let waiting = vec![part];
        let job = Job { checks, since: now, digest, missing, first_rejected: None, waiting };
        self.jobs.insert(number, job);
    }

    fn finish(&mut self, now: Time, number: u64) {
        let job = self.jobs.remove(&number).expect("the caller just found it");
        let result = match (job.digest, job.first_rejected) {
            (None, rejected) => PartResult::Signature(job.checks[0].decided_elsewhere(rejected.is_none())),
            (Some(digest), rejected) => {
                self.metrics.certificates_verified += 1;
                self.under_way.remove(&digest);
                match rejected {
                    Some(at) => PartResult::CertificateRejected { signer: job.checks[at].signer },
                    None => {
                        self.memory.insert(digest);
                        PartResult::CertificateAccepted
                    }
                }
            }
        };
        for part in job.waiting {
            self.settle(now, part, result.clone());
        }
    }

    fn settle(&mut self, now: Time, (ticket, at): (Ticket, usize), result: PartResult) {
        let open = self.open.get_mut(&ticket).expect("a request is open until its last part is settled");
        open.results[at] = Some(result);
        open.missing -= 1;
        if open.missing == 0 {
            self.close(now, ticket);
        }
    }

    fn close(&mut self, now: Time, ticket: Ticket) {
        let open = self.open.remove(&ticket).expect("the caller just found it");
        if let Some(count) = self.open_by_peer.get_mut(&open.peer) {
            *count -= 1;
            if *count == 0 {
                self.open_by_peer.remove(&open.peer);
            }
        }
        let waited = u64::try_from(now.since(open.since).as_micros()).unwrap_or(u64::MAX);
        self.metrics.answer_time.record(&TIME_CLASSES, waited);
        self.metrics.answered += 1;
        let results = open.results.into_iter().flatten().collect();
        self.answers.push_back(Answer { ticket, peer: open.peer, results });
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use quorate_crypto::{
        Certificate, Scope, SecretKey, Signature, Signed, Statement, StatementKind, Validator, ValidatorSet,
        Verified,
    };
    use quorate_types::{ClusterId, Epoch, GroupId, LogIndex, Protocol, View};

    use super::*;

    pub(crate) fn scope() -> Scope {
        let (group, epoch) = (GroupId(1), Epoch(1));
        Scope { cluster: ClusterId([1; 16]), group, epoch, protocol: Protocol::HotStuff }
    }

    pub(crate) fn keys() -> Vec<SecretKey> {
        (1..=4).map(|node| SecretKey::from_seed(&[node; 32])).collect()
    }

    pub(crate) fn set() -> ValidatorSet {
        let members = keys()
            .into_iter()
            .zip(1..)
            .map(|(key, node)| Validator { node: NodeId(node), key: key.public() });
        ValidatorSet::new(scope(), members.collect()).unwrap()
    }

    pub(crate) fn vote(view: u64, content: u8) -> Statement {
        let (kind, digest) = (StatementKind::Vote, Digest([content; 32]));
        Statement { scope: scope(), kind, view: View(view), index: LogIndex(view), digest }
    }

    pub(crate) fn signed(view: u64, content: u8, node: u64) -> Signed<Statement> {
        Signed::sign(vote(view, content), NodeId(node), &keys()[node as usize - 1])
    }

    fn good(view: u64) -> Check {
        signed(view, 1, 1).check(&set()).unwrap()
    }

    fn bad(view: u64) -> Check {
        Check { signature: Signature([9; 64]), ..good(view) }
    }

    fn certificate(view: u64) -> Certificate {
        let votes = [1, 2, 3].map(|node| (NodeId(node), signed(view, 1, node).signature()));
        Certificate::assemble(vote(view, 1), &set(), votes).unwrap()
    }

    fn part(certificate: &Certificate) -> Part {
        Part::certificate(certificate, &set()).unwrap()
    }

    /// Verifies all that waits, `max` at a time, and returns the answers.
    fn run(verifier: &mut Verifier, max: usize) -> Vec<Answer> {
        while let Some(batch) = verifier.next_batch(max) {
            let verdicts = batch.verify();
            verifier.complete(Time(5), batch, &verdicts, Duration::ZERO);
        }
        std::iter::from_fn(|| verifier.next_answer()).collect()
    }

    /// Were verdicts joined over a batch, one forger could make everyone's votes fail again and again.
    #[test]
    fn one_bad_signature_in_a_batch_costs_nobody_else_a_verdict() {
        let mut verifier = Verifier::new(VerifierLimits::default());
        for peer in 1..=8 {
            let check = if peer == 5 { bad(peer) } else { good(peer) };
            verifier.submit(Time(1), Request::signature(NodeId(peer), check)).unwrap();
        }
        let answers = run(&mut verifier, 64);
        assert_eq!(answers.len(), 8);
        let culprits: Vec<_> = answers.iter().filter_map(Answer::culprit).collect();
        assert_eq!(culprits, [NodeId(5)]);
        assert_eq!((verifier.metrics().accepted, verifier.metrics().rejected), (7, 1));
    }

    #[test]
    fn the_answer_to_a_signature_makes_its_value_believed() {
        let mut verifier = Verifier::new(VerifierLimits::default());
        let (set, signed) = (set(), signed(3, 1, 2));
        verifier.submit(Time(1), Request::signature(NodeId(2), signed.check(&set).unwrap())).unwrap();
        let [answer] = run(&mut verifier, 8).try_into().unwrap();
        let [PartResult::Signature(verdict)] = answer.results.as_slice() else { panic!("a verdict") };
        let verified = Verified::from_verdict(signed, &set, verdict).unwrap();
        assert_eq!(verified.origin(), NodeId(2));
    }

    #[test]
    fn a_certificate_is_verified_once_whoever_brings_it() {
        let mut verifier = Verifier::new(VerifierLimits::default());
        let certificate = certificate(7);
        for peer in 1..=3 {
            // While the first is under way, the others wait for it.
            verifier
                .submit(Time(1), Request { peer: NodeId(peer), parts: vec![part(&certificate)] })
                .unwrap();
        }
        assert_eq!(verifier.waiting(), 3);
        assert!(run(&mut verifier, 2).iter().all(Answer::is_accepted));
        verifier.submit(Time(2), Request { peer: NodeId(4), parts: vec![part(&certificate)] }).unwrap();
        assert!(verifier.next_answer().unwrap().is_accepted(), "without another verification");
        let metrics = verifier.metrics();
        assert_eq!((metrics.certificates_verified, metrics.certificates_known, metrics.accepted), (1, 3, 3));
    }

    /// A rejected certificate is blamed on who delivered it, names the signer, and is not remembered; those
    /// who delivered the same bytes meanwhile are answered alike.
    #[test]
    fn a_bad_certificate_is_rejected_by_name_for_all_that_hold_it() {
        let mut verifier = Verifier::new(VerifierLimits::default());
        let votes = [1, 2, 3].map(|node| {
            let view = if node == 2 { 8 } else { 7 };
            (NodeId(node), signed(view, 1, node).signature())
        });
        let forged = Certificate::assemble(vote(7, 1), &set(), votes).unwrap();
        for peer in [6, 7] {
            let parts = vec![Part::Signature(good(1)), part(&forged)];
            verifier.submit(Time(1), Request { peer: NodeId(peer), parts }).unwrap();
        }
        for answer in run(&mut verifier, 64) {
            assert!(answer.results[0].is_accepted());
            assert_eq!(answer.results[1], PartResult::CertificateRejected { signer: NodeId(2) });
            assert_eq!(answer.culprit(), Some(answer.peer));
        }
        verifier.submit(Time(1), Request { peer: NodeId(6), parts: vec![part(&forged)] }).unwrap();
        assert_eq!(verifier.waiting(), 3, "it is verified again");
    }

    #[test]
    fn a_flood_is_answered_overloaded_and_starves_nobody() {
        let mut verifier =
            Verifier::new(VerifierLimits { peer_signatures_max: 100, ..VerifierLimits::default() });
        let flood = |verifier: &mut Verifier| verifier.submit(Time(1), Request::signature(NodeId(9), bad(1)));
        while flood(&mut verifier).is_ok() {}
        let refused = flood(&mut verifier).unwrap_err();
        assert_eq!(refused, Overloaded { peer: NodeId(9), waiting: 100, added: 1, bound: 100 });
        assert_eq!(verifier.metrics().overloaded, 2);
        let ticket = verifier.submit(Time(1), Request::signature(NodeId(1), good(1))).unwrap();
        let batch = verifier.next_batch(64).unwrap();
        let verdicts = batch.verify();
        verifier.complete(Time(2), batch, &verdicts, Duration::ZERO);
        let answers: Vec<_> = std::iter::from_fn(|| verifier.next_answer()).collect();
        assert!(answers.iter().any(|answer| answer.ticket == ticket && answer.is_accepted()));
    }

    /// Measured from a batch's end, a slow verification would look like a long queue.
    #[test]
    fn the_time_in_the_queue_is_that_of_the_signature_that_waited_longest() {
        let mut verifier = Verifier::new(VerifierLimits::default());
        for (peer, taken) in [(1, 100), (2, 400), (3, 900)] {
            verifier.submit(Time(taken), Request::signature(NodeId(peer), good(1))).unwrap();
        }
        let batch = verifier.next_batch(2).unwrap();
        let verdicts = batch.verify();
        verifier.complete(Time(1_500), batch, &verdicts, Duration::from_micros(500));
        let queue_time = verifier.metrics().queue_time;
        assert_eq!((queue_time.count(), queue_time.sum), (1, 900));
        let batch = verifier.next_batch(2).unwrap();
        verifier.complete(Time(2_000), batch, &vec![true], Duration::from_micros(50));
        assert_eq!(verifier.metrics().queue_time.sum, 900 + 1_050);
    }

    /// Requests that only wait for a certificate under way cost no signature; were they not bounded, one
    /// peer could fill the memory with them.
    #[test]
    fn requests_that_wait_for_anothers_certificate_are_bounded() {
        let mut verifier =
            Verifier::new(VerifierLimits { peer_signatures_max: 5, ..VerifierLimits::default() });
        let certificate = certificate(7);
        let repeat = |verifier: &mut Verifier, peer| {
            verifier.submit(Time(1), Request { peer: NodeId(peer), parts: vec![part(&certificate)] })
        };
        for _ in 0..5 {
            repeat(&mut verifier, 1).unwrap();
        }
        assert!(matches!(repeat(&mut verifier, 1), Err(Overloaded { waiting: 5, .. })));
        assert!(repeat(&mut verifier, 2).is_ok());
        assert_eq!(run(&mut verifier, 64).len(), 6);
        assert!(repeat(&mut verifier, 1).is_ok(), "answered requests take no room");
    }

    #[test]
    fn nothing_to_verify_is_answered_at_once_and_a_certificate_without_signatures_is_rejected() {
        let mut verifier = Verifier::new(VerifierLimits::default());
        verifier.submit(Time(1), Request { peer: NodeId(1), parts: vec![] }).unwrap();
        assert!(verifier.next_answer().unwrap().is_accepted());
        let empty = Part::Certificate { digest: Digest([1; 32]), checks: vec![] };
        verifier.submit(Time(1), Request { peer: NodeId(1), parts: vec![empty] }).unwrap();
        assert!(!verifier.next_answer().unwrap().is_accepted());
        assert!(verifier.open() == 0 && verifier.next_batch(8).is_none());
    }
}
