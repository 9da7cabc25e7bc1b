//! The verifier with a bounded pool of threads around it, and a device beside them if there is one.
//!
//! Relies on [`Verifier`] for everything but threads, on [`Dispatch`] for where a batch goes and on
//! [`Breaker`] for when a failed device is tried again. A batch that a device fails on is verified again on
//! the processor: its verdicts come later, never from half a batch. Promises that requests are answered through the
//! function given at the start, on a thread of the pool and in no particular order, that work is split over
//! idle threads, and that dropping the service ends its threads. Knows no clock: one is given to it.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use quorate_types::Time;

use crate::backend::{Backend, verify_confirmed};
use crate::dispatch::{COALESCE_MAX, Dispatch};
use crate::measure::on_processor;
use crate::{Answer, Batch, Breaker, Metrics, Overloaded, Request, Ticket, Verifier, VerifierLimits};

/// The most threads of one pool.
pub const THREADS_MAX: usize = 64;
/// The most signatures of one batch on the processor: 1 to 2 ms, so that answers flow meanwhile.
const CPU_BATCH_MAX: usize = 64;

/// How the service works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceConfig {
    /// Threads that verify, 1 to [`THREADS_MAX`].
    pub threads: usize,
    /// What may wait and be remembered.
    pub limits: VerifierLimits,
}

impl Default for ServiceConfig {
    fn default() -> Self {
        Self { threads: 1, limits: VerifierLimits::default() }
    }
}

/// A service that cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The configuration asks for no thread, or too many.
    #[error("{threads} threads to verify votes; use 1 to {THREADS_MAX}")]
    Threads {
        /// What was asked for.
        threads: usize,
    },
    /// The operating system refused a thread.
    #[error("a thread to verify votes could not be started: {0}")]
    Spawn(#[from] std::io::Error),
}

/// Reads the time; the same clock that stamps requests.
pub type Clock = Arc<dyn Fn() -> Time + Send + Sync>;

/// The running pool.
pub struct Service {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    work: Condvar,
    clock: Clock,
    deliver: Box<dyn Fn(Answer) + Send + Sync>,
    device: Option<Arc<dyn Backend>>,
    dispatch: Dispatch,
}

struct State {
    verifier: Verifier,
    breaker: Breaker,
    /// Batches that the device is verifying.
    on_device: usize,
    stopping: bool,
}

/// What a thread does next.
enum Step {
    Deliver(Answer),
    OnProcessor(Batch),
    OnDevice(Batch),
    WaitForMore(Duration),
    Wait,
}

impl Service {
    /// Starts the pool. `deliver` gets each answer; it must not block for long and may submit again.
    /// `dispatch` says what both sides cost, as far as that is known.
    ///
    /// # Errors
    ///
    /// [`ServiceError`].
    pub fn start(
        config: ServiceConfig,
        device: Option<(Arc<dyn Backend>, Dispatch)>,
        clock: Clock,
        deliver: impl Fn(Answer) + Send + Sync + 'static,
    ) -> Result<Self, ServiceError> {
        let threads = config.threads;
        if !(1..=THREADS_MAX).contains(&threads) {
            return Err(ServiceError::Threads { threads });
        }
        let state = Mutex::new(State {
            verifier: Verifier::new(config.limits),
            breaker: Breaker::Closed,
            on_device: 0,
            stopping: false,
        });
        let (device, dispatch) = device.unzip();
        let dispatch = Dispatch { threads, ..dispatch.unwrap_or_default() };
        let (work, deliver) = (Condvar::new(), Box::new(deliver));
        let shared = Arc::new(Shared { state, work, clock, deliver, device, dispatch });
        let mut service = Self { shared, threads: Vec::new() };
        for number in 0..threads {
            let shared = Arc::clone(&service.shared);
            let name = format!("votes-{number}");
            service.threads.push(std::thread::Builder::new().name(name).spawn(move || shared.run())?);
        }
        Ok(service)
    }

    /// Takes a request; its answer comes later.
    ///
    /// # Errors
    ///
    /// [`Overloaded`] when the peer's queue has no room.
    pub fn submit(&self, request: Request) -> Result<Ticket, Overloaded> {
        let mut state = self.shared.lock();
        let ticket = state.verifier.submit((self.shared.clock)(), request)?;
        // Known certificates are answered without work, so that one thread is woken in any case.
        drop(state);
        self.shared.work.notify_one();
        Ok(ticket)
    }

    /// What was done so far.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        *self.shared.lock().verifier.metrics()
    }

    /// Whether the device is in use, failed, or being tried; closed where there is none.
    #[must_use]
    pub fn breaker(&self) -> Breaker {
        self.shared.lock().breaker
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.shared.lock().stopping = true;
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            // A thread that panicked has ended as well, and has said so itself.
            drop(thread.join());
        }
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Service({} threads)", self.shared.dispatch.threads)
    }
}

impl Shared {
    /// The state; also after a panic of `deliver` on another thread, which never runs under the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut state = self.lock();
        while !state.stopping {
            let step = self.next_step(&mut state);
            state = match step {
                Step::Wait => self.work.wait(state).unwrap_or_else(PoisonError::into_inner),
                Step::WaitForMore(time) => {
                    self.work.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner).0
                }
                Step::Deliver(answer) => {
                    drop(state);
                    (self.deliver)(answer);
                    self.lock()
                }
                Step::OnProcessor(batch) => self.verify(state, batch),
                Step::OnDevice(batch) => self.verify_on_device(state, batch),
            };
        }
    }

    fn next_step(&self, state: &mut State) -> Step {
        if let Some(answer) = state.verifier.next_answer() {
            return Step::Deliver(answer);
        }
        let waiting = state.verifier.waiting();
        if let Some(device) = &self.device
            && state.on_device < device.lanes()
        {
            let now = (self.clock)();
            if self.dispatch.prefers_device(waiting) && state.breaker.may_try(now) {
                if let Some(batch) = state.verifier.next_batch(device.batch_max()) {
                    state.on_device += 1;
                    return Step::OnDevice(batch);
                }
            } else if state.breaker.is_closed() && self.dispatch.is_worth_waiting(waiting) {
                let waited = state.verifier.waiting_since().map_or(COALESCE_MAX, |since| now.since(since));
                if waited < COALESCE_MAX {
                    return Step::WaitForMore(COALESCE_MAX - waited);
                }
            }
        }
        let share = waiting.div_ceil(self.dispatch.threads).clamp(1, CPU_BATCH_MAX);
        state.verifier.next_batch(share).map_or(Step::Wait, Step::OnProcessor)
    }

    fn verify<'a>(&'a self, state: MutexGuard<'a, State>, batch: Batch) -> MutexGuard<'a, State> {
        self.pass_on(state);
        let start = (self.clock)();
        let verdicts = batch.verify();
        let end = (self.clock)();
        let mut state = self.lock();
        state.verifier.complete(end, batch, &verdicts, end.since(start));
        state
    }

    fn verify_on_device<'a>(&'a self, state: MutexGuard<'a, State>, batch: Batch) -> MutexGuard<'a, State> {
        self.pass_on(state);
        let start = (self.clock)();
        let result = self.device.as_ref().map(|device| verify_confirmed(device.as_ref(), batch.checks()));
        let end = (self.clock)();
        let mut state = self.lock();
        state.on_device -= 1;
        if let Some(Ok(verdicts)) = result {
            state.breaker.succeeded();
            state.verifier.metrics_mut().on_device += verdicts.len() as u64;
            state.verifier.complete(end, batch, &verdicts, end.since(start));
            return state;
        }
        let has_opened = state.breaker.failed(end);
        let metrics = state.verifier.metrics_mut();
        metrics.fallbacks += 1;
        metrics.breaker_opened += u64::from(has_opened);
        drop(state);
        let verdicts = on_processor(batch.checks(), self.dispatch.threads);
        let end = (self.clock)();
        let mut state = self.lock();
        state.verifier.complete(end, batch, &verdicts, end.since(start));
        state
    }

    /// Lets another thread see to what is left, while this one verifies.
    fn pass_on(&self, state: MutexGuard<'_, State>) {
        let is_more = state.verifier.waiting() > 0;
        drop(state);
        if is_more {
            self.work.notify_one();
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::mpsc;
    use std::time::Instant;

    use quorate_crypto::{Check, Signature};
    use quorate_types::NodeId;

    use super::*;
    use crate::Verdicts;
    use crate::gpu::DeviceError;
    use crate::verifier::tests::{set, signed};

    pub(crate) fn clock() -> Clock {
        let start = Instant::now();
        Arc::new(move || Time::default().after(start.elapsed()))
    }

    #[test]
    fn every_request_is_answered_once_and_the_forger_is_named() {
        let (answers, received) = mpsc::channel();
        let config = ServiceConfig { threads: 3, ..ServiceConfig::default() };
        let service =
            Service::start(config, None, clock(), move |answer| answers.send(answer).unwrap()).unwrap();
        let mut tickets = Vec::new();
        for number in 0..200 {
            let node = number % 4 + 1;
            let mut check = signed(number, 1, node).check(&set()).unwrap();
            if node == 3 {
                check = Check { signature: Signature([1; 64]), ..check };
            }
            tickets.push(service.submit(Request::signature(NodeId(node), check)).unwrap());
        }
        let mut answered = Vec::new();
        for answer in received.iter().take(200) {
            assert_eq!(answer.culprit().is_some(), answer.peer == NodeId(3));
            answered.push(answer.ticket);
        }
        answered.sort();
        assert_eq!(answered, tickets);
        assert_eq!(service.metrics().rejected, 50);
        drop(service);
        assert!(received.recv().is_err(), "the threads have ended, and with them the sender");
    }

    #[test]
    fn a_pool_without_threads_or_with_too_many_is_refused() {
        for threads in [0, THREADS_MAX + 1] {
            let config = ServiceConfig { threads, ..ServiceConfig::default() };
            let refused = Service::start(config, None, clock(), |_| ());
            assert!(matches!(refused, Err(ServiceError::Threads { threads: found }) if found == threads));
        }
    }

    /// A device that verifies as the processor does, except when told to fail or to lie.
    struct Fake(Mutex<Mood>);

    #[derive(Clone, Copy, PartialEq)]
    enum Mood {
        Works,
        Fails,
        Lies,
    }

    impl Backend for Fake {
        fn verify(&self, checks: &[Check]) -> Result<Verdicts, DeviceError> {
            let mood = *self.0.lock().unwrap();
            match mood {
                Mood::Fails => Err(DeviceError::TimedOut),
                _ => Ok(checks
                    .iter()
                    .map(|check| check.verify().is_accepted() == (mood == Mood::Works))
                    .collect()),
            }
        }

        fn batch_max(&self) -> usize {
            1_024
        }

        fn lanes(&self) -> usize {
            2
        }
    }

    /// Submits 200 votes, of which every fourth is forged, at once, so that they make a batch for the device.
    fn run(fake: &Arc<Fake>) -> (Vec<bool>, Metrics, Breaker) {
        let (answers, received) = mpsc::channel();
        let (gate, opened) = mpsc::sync_channel::<()>(0);
        let opened = Mutex::new(opened);
        let device: Arc<dyn Backend> = Arc::clone(fake) as _;
        let service = Service::start(
            ServiceConfig::default(),
            Some((device, Dispatch::default())),
            clock(),
            move |answer| {
                if answer.results.is_empty() {
                    // The one thread is held here until all votes wait.
                    opened.lock().unwrap().recv().unwrap();
                } else {
                    answers.send(answer).unwrap();
                }
            },
        )
        .unwrap();
        service.submit(Request { peer: NodeId(9), parts: vec![] }).unwrap();
        for number in 0..200 {
            let mut check = signed(number, 1, number % 4 + 1).check(&set()).unwrap();
            if number % 4 == 2 {
                check.signature = Signature([1; 64]);
            }
            service.submit(Request::signature(NodeId(number % 4 + 1), check)).unwrap();
        }
        gate.send(()).unwrap();
        let mut verdicts: Vec<_> = received.iter().take(200).collect();
        verdicts.sort_by_key(|answer| answer.ticket);
        let breaker = service.breaker();
        (verdicts.iter().map(Answer::is_accepted).collect(), service.metrics(), breaker)
    }

    #[test]
    fn a_device_gives_the_same_verdicts_and_a_failing_or_lying_one_is_found_out() {
        let expected: Vec<_> = (0..200).map(|number| number % 4 != 2).collect();
        let (verdicts, metrics, breaker) = run(&Arc::new(Fake(Mutex::new(Mood::Works))));
        assert_eq!((verdicts, breaker), (expected.clone(), Breaker::Closed));
        assert_eq!((metrics.on_device, metrics.fallbacks), (200, 0));
        for mood in [Mood::Fails, Mood::Lies] {
            let (verdicts, metrics, breaker) = run(&Arc::new(Fake(Mutex::new(mood))));
            assert_eq!(verdicts, expected, "the processor redoes the batch");
            assert_eq!((metrics.on_device, metrics.fallbacks, metrics.breaker_opened), (0, 1, 1));
            assert!(matches!(breaker, Breaker::Open { .. }));
        }
    }
}
