//! The load generator: clients with one put outstanding each.
//!
//! Relies on a [`Putter`] for each client, so that every system is driven alike. Promises the same keys,
//! sizes and pacing whatever is measured: each client sends its next put when the last was answered. Knows
//! no system.
//!
//! Keys have 16 bytes and are drawn evenly from [`KEYS`] of them; the draws depend on the client alone.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::figures::{Figures, Process, Recorder};

/// How many different keys there are.
pub const KEYS: u64 = 100_000;
/// Bytes of a key.
pub const KEY_BYTES: usize = 16;
/// How long to run before anything counts.
pub const WARM_UP: Duration = Duration::from_secs(2);
/// How long a client rests after an error, so that a broken system is not flooded.
const ERROR_PAUSE: Duration = Duration::from_millis(10);

/// One client of whatever is measured.
pub trait Putter: Send + 'static {
    /// Sets a key durably and waits for the answer.
    ///
    /// # Errors
    ///
    /// What went wrong; it counts as an error of the measurement.
    fn put(&mut self, key: &str, value: &[u8]) -> impl Future<Output = Result<()>> + Send;
}

/// How to measure.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// Bytes of each value.
    pub value_bytes: usize,
    /// How long to run before anything counts.
    pub warm_up: Duration,
    /// How long to measure.
    pub duration: Duration,
}

/// What the clients are doing.
struct Phase(AtomicU8);

const WARMING_UP: u8 = 0;
const MEASURING: u8 = 1;
const ENDED: u8 = 2;

impl Phase {
    fn get(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, phase: u8) {
        self.0.store(phase, Ordering::Relaxed);
    }
}

/// Drives the clients and measures. The generator's own processor time counts beside the processes'.
///
/// # Errors
///
/// A client ended unexpectedly, or nothing at all was answered.
pub async fn run<P: Putter>(
    clients: Vec<P>,
    options: LoadOptions,
    mut processes: Vec<Process>,
) -> Result<Figures> {
    processes.push(Process::new("generator".to_owned(), std::process::id()));
    let phase = Arc::new(Phase(AtomicU8::new(WARMING_UP)));
    let recorder = Arc::new(Mutex::new(Recorder::new()?));
    let fault = Arc::new(Mutex::new(None));
    let drive = |(number, client)| {
        let (phase, recorder, fault) = (Arc::clone(&phase), Arc::clone(&recorder), Arc::clone(&fault));
        let draws = Draws::new(number as u64, options.value_bytes);
        tokio::spawn(drive_client(client, draws, phase, recorder, fault))
    };
    let tasks: Vec<_> = clients.into_iter().enumerate().map(drive).collect();
    tokio::time::sleep(options.warm_up).await;
    let before: Vec<_> = processes.iter().map(Process::time).collect();
    let begun = Instant::now();
    phase.set(MEASURING);
    tokio::time::sleep(options.duration).await;
    phase.set(ENDED);
    let lasted = begun.elapsed();
    let used = processes.iter().zip(before);
    let used =
        used.map(|(process, before)| (process.name().to_owned(), process.time().saturating_sub(before)));
    let used: Vec<_> = used.collect();
    for task in tasks {
        task.await.context("a client of the generator ended")?;
    }
    let figures = locked(&recorder).figures(lasted, used);
    if figures.commands == 0 {
        let why = locked(&fault).take().unwrap_or_else(|| "no answer came".to_owned());
        anyhow::bail!("nothing was measured: {why}");
    }
    Ok(figures)
}

async fn drive_client<P: Putter>(
    mut client: P,
    mut draws: Draws,
    phase: Arc<Phase>,
    recorder: Arc<Mutex<Recorder>>,
    fault: Arc<Mutex<Option<String>>>,
) {
    while phase.get() != ENDED {
        draws.next();
        let begun = Instant::now();
        let result = client.put(&draws.key, &draws.value).await;
        let latency = begun.elapsed();
        // Counted where it ends: what was on its way at either end of the measurement evens out.
        let counts = phase.get() == MEASURING;
        match result {
            Ok(()) if counts => locked(&recorder).done(latency),
            Ok(()) => {}
            Err(error) => {
                if counts {
                    locked(&recorder).failed();
                }
                locked(&fault).get_or_insert_with(|| format!("{error:#}"));
                tokio::time::sleep(ERROR_PAUSE).await;
            }
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The keys and values of one client.
struct Draws {
    state: u64,
    key: String,
    value: Vec<u8>,
}

impl Draws {
    fn new(client: u64, value_bytes: usize) -> Self {
        let mut draws =
            Self { state: client, key: String::with_capacity(KEY_BYTES), value: vec![0; value_bytes] };
        // Values that do not compress, so that no system gains by trying.
        for at in 0..value_bytes {
            draws.value[at] = draws.draw().to_le_bytes()[0];
        }
        draws
    }

    fn next(&mut self) {
        use std::fmt::Write;
        let number = self.draw() % KEYS;
        self.key.clear();
        // Writing to a string cannot fail.
        write!(self.key, "key-{number:012}").ok();
        let stamp = self.draw().to_le_bytes();
        let len = self.value.len().min(stamp.len());
        self.value[..len].copy_from_slice(&stamp[..len]);
    }

    /// SplitMix64 (Steele, Lea and Flood 2014).
    fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Answers every put after a millisecond of tokio's own time; every `fails`-th with an error.
    struct Fake {
        fails: usize,
        puts: usize,
    }

    impl Putter for Fake {
        async fn put(&mut self, key: &str, value: &[u8]) -> Result<()> {
            assert_eq!((key.len(), value.len()), (KEY_BYTES, 32));
            tokio::time::sleep(Duration::from_millis(1)).await;
            self.puts += 1;
            if self.puts.is_multiple_of(self.fails) {
                anyhow::bail!("refused");
            }
            Ok(())
        }
    }

    const OPTIONS: LoadOptions = LoadOptions {
        value_bytes: 32,
        warm_up: Duration::from_millis(20),
        duration: Duration::from_millis(200),
    };

    #[tokio::test(start_paused = true)]
    async fn answers_and_errors_are_counted_apart() {
        let clients = (0..4).map(|_| Fake { fails: 10, puts: 0 }).collect();
        let figures = run(clients, OPTIONS, Vec::new()).await.unwrap();
        assert!(figures.commands >= 100, "{figures:?}");
        assert!(figures.errors >= 4, "{figures:?}");
        assert_eq!(figures.cpu.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_system_that_answers_nothing_is_a_failure_with_its_reason() {
        let error = run(vec![Fake { fails: 1, puts: 0 }], OPTIONS, Vec::new()).await.unwrap_err();
        assert!(error.to_string().contains("refused"), "{error}");
    }

    #[test]
    fn draws_are_the_same_for_one_client_and_differ_between_clients() {
        let keys = |client| {
            let mut draws = Draws::new(client, 8);
            (0..10)
                .map(|_| {
                    draws.next();
                    draws.key.clone()
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(keys(1), keys(1));
        assert_ne!(keys(1), keys(2));
    }
}
