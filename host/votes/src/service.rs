//! The verifier with a bounded pool of threads around it.
//!
//! Relies on [`Verifier`] for everything but threads. Promises that requests are answered through the
//! function given at the start, on a thread of the pool and in no particular order, that work is split over
//! idle threads, and that dropping the service ends its threads. Knows no clock: one is given to it.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use quorate_types::Time;

use crate::{Answer, Metrics, Overloaded, Request, Ticket, Verifier, VerifierLimits};

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
    threads: usize,
}

struct State {
    verifier: Verifier,
    stopping: bool,
}

impl Service {
    /// Starts the pool. `deliver` gets each answer; it must not block for long and may submit again.
    ///
    /// # Errors
    ///
    /// [`ServiceError`].
    pub fn start(
        config: ServiceConfig,
        clock: Clock,
        deliver: impl Fn(Answer) + Send + Sync + 'static,
    ) -> Result<Self, ServiceError> {
        let threads = config.threads;
        if !(1..=THREADS_MAX).contains(&threads) {
            return Err(ServiceError::Threads { threads });
        }
        let state = Mutex::new(State { verifier: Verifier::new(config.limits), stopping: false });
        let deliver = Box::new(deliver);
        let shared = Arc::new(Shared { state, work: Condvar::new(), clock, deliver, threads });
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
        write!(f, "Service({} threads)", self.shared.threads)
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
            if let Some(answer) = state.verifier.next_answer() {
                drop(state);
                (self.deliver)(answer);
                state = self.lock();
                continue;
            }
            let share = state.verifier.waiting().div_ceil(self.threads).clamp(1, CPU_BATCH_MAX);
            let Some(batch) = state.verifier.next_batch(share) else {
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let is_more = state.verifier.waiting() > 0;
            drop(state);
            if is_more {
                self.work.notify_one();
            }
            let start = (self.clock)();
            let verdicts = batch.verify();
            let end = (self.clock)();
            state = self.lock();
            state.verifier.complete(end, batch, &verdicts, end.since(start));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::mpsc;
    use std::time::Instant;

    use quorate_crypto::{Check, Signature};
    use quorate_types::NodeId;

    use super::*;
    use crate::verifier::tests::{set, signed};

    fn clock() -> Clock {
        let start = Instant::now();
        Arc::new(move || Time::default().after(start.elapsed()))
    }

    #[test]
    fn every_request_is_answered_once_and_the_forger_is_named() {
        let (answers, received) = mpsc::channel();
        let config = ServiceConfig { threads: 3, ..ServiceConfig::default() };
        let service = Service::start(config, clock(), move |answer| answers.send(answer).unwrap()).unwrap();
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
            let refused = Service::start(config, clock(), |_| ());
            assert!(matches!(refused, Err(ServiceError::Threads { threads: found }) if found == threads));
        }
    }
}
