//! Many clients submit the lines of one file, each line once.
//!
//! Relies on sessions for exactly once. Promises to note what each client was told and when, and to hold
//! lines back so that the cluster is never killed while nothing is on its way. Knows no cluster.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use quorate_client::{Group, Outcome, Session, SessionOptions};
use quorate_ledger::audit::{Audit, Told};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::workload::{Line, Workload};

/// How often progress is drawn for people.
const PROGRESS_PAUSE: Duration = Duration::from_millis(100);
/// Characters of the bar.
const BAR_WIDTH: usize = 40;
/// How long to wait for acknowledgements before the demonstration counts as stuck.
const STUCK_TIMEOUT: Duration = Duration::from_secs(90);

/// A submission that is going on.
pub struct Submission {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<Result<()>>>,
    begun: Instant,
}

struct Shared {
    lines: Vec<Line>,
    /// The next line that nobody has taken.
    next: AtomicUsize,
    /// Lines from here on are held back.
    gate: watch::Sender<usize>,
    /// How many lines have their answer.
    count: watch::Sender<usize>,
    log: Mutex<Log>,
}

/// What clients were told.
struct Log {
    /// By line.
    told: Vec<Told>,
    /// When each answer came, in order.
    times: Vec<Instant>,
    /// The last error that left a command without an answer.
    fault: Option<String>,
}

impl Submission {
    /// Opens the sessions and starts them on the lines below two thirds, less a few: the rest waits for
    /// [`Submission::open_all`].
    ///
    /// # Errors
    ///
    /// A session cannot be opened.
    pub async fn start(
        workload: Workload,
        group: &Group,
        sessions: usize,
        options: SessionOptions,
    ) -> Result<Self> {
        let total = workload.len();
        let log = Log { told: vec![Told::Nothing; total], times: Vec::with_capacity(total), fault: None };
        let held_from =
            (total * 2 / 3).saturating_sub(4 * sessions).max(total / 3 + 2 * sessions + 1).min(total);
        let shared = Arc::new(Shared {
            lines: workload.lines,
            next: AtomicUsize::new(0),
            gate: watch::Sender::new(held_from),
            count: watch::Sender::new(0),
            log: Mutex::new(log),
        });
        let mut opened = Vec::with_capacity(sessions);
        for _ in 0..sessions {
            opened.push(group.session(options.clone()).await.context("a session cannot be opened")?);
        }
        let begun = Instant::now();
        let start = |session| tokio::spawn(work(session, Arc::clone(&shared)));
        let workers = opened.into_iter().map(start).collect();
        Ok(Self { shared, workers, begun })
    }

    /// How many lines there are.
    #[must_use]
    pub fn total(&self) -> usize {
        self.shared.lines.len()
    }

    /// How many clients submit.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.workers.len()
    }

    /// How many lines have their answer.
    #[must_use]
    pub fn count(&self) -> usize {
        *self.shared.count.borrow()
    }

    /// Holds no line back any more.
    pub fn open_all(&self) {
        self.shared.gate.send_replace(self.total());
    }

    /// Waits until as many lines have their answer, or all of them.
    ///
    /// # Errors
    ///
    /// It takes so long that the cluster must be stuck.
    pub async fn acknowledged(&self, count: usize) -> Result<()> {
        let wanted = count.min(self.total());
        let mut seen = self.shared.count.subscribe();
        let reached = tokio::time::timeout(STUCK_TIMEOUT, seen.wait_for(|count| *count >= wanted)).await;
        match reached {
            Ok(Ok(_)) => Ok(()),
            _ => {
                let fault =
                    self.shared.log().fault.clone().unwrap_or_else(|| "no client met an error".to_owned());
                bail!("only {} of {wanted} commands were acknowledged in time; {fault}", self.count())
            }
        }
    }

    /// The longest time without an acknowledgement that ended after this moment, the one that it fell into
    /// included.
    #[must_use]
    pub fn longest_silence_since(&self, moment: Instant) -> Duration {
        longest_silence(&self.shared.log().times, moment)
    }

    /// Draws a bar on standard error until the value is dropped.
    #[must_use]
    pub fn show_progress(&self) -> Progress {
        let shared = Arc::clone(&self.shared);
        let task = tokio::spawn(async move {
            loop {
                draw(*shared.count.borrow(), shared.lines.len());
                tokio::time::sleep(PROGRESS_PAUSE).await;
            }
        });
        Progress { task }
    }

    /// Waits until every line was submitted.
    ///
    /// # Errors
    ///
    /// A client ended early.
    pub async fn finish(self) -> Result<Submitted> {
        self.open_all();
        for worker in self.workers {
            worker.await.context("a client ended early")??;
        }
        let log = self.shared.log();
        let elapsed = log.times.last().map(|last| last.duration_since(self.begun)).unwrap_or_default();
        let mut audit = Audit::default();
        for (line, told) in self.shared.lines.iter().zip(&log.told) {
            audit.note(&line.command, *told);
        }
        let count = |wanted| log.told.iter().filter(|told| **told == wanted).count();
        let (done, refused) = (count(Told::Done), count(Told::Rejected));
        let fault = log.fault.clone();
        Ok(Submitted { audit, acknowledged: done + refused, refused, elapsed, fault })
    }
}

/// What a submission came to.
pub struct Submitted {
    audit: Audit,
    acknowledged: usize,
    refused: usize,
    elapsed: Duration,
    fault: Option<String>,
}

impl Submitted {
    /// What the ledger must hold if clients were told the truth.
    #[must_use]
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// Commands whose outcome a client was told.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        self.acknowledged
    }

    /// Those of them that the ledger refused.
    #[must_use]
    pub fn refused(&self) -> usize {
        self.refused
    }

    /// The last error that left a command without an answer.
    #[must_use]
    pub fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// From the first command to the last answer.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }
}

/// A bar that is drawn until this is dropped.
pub struct Progress {
    task: JoinHandle<()>,
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.task.abort();
        eprint!("\r{:width$}\r", "", width = BAR_WIDTH + 24);
    }
}

impl Shared {
    fn log(&self) -> std::sync::MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A line that nobody has taken, once it is not held back.
    async fn take(&self) -> Option<usize> {
        let at = self.next.fetch_add(1, Ordering::Relaxed);
        if at >= self.lines.len() {
            return None;
        }
        let mut gate = self.gate.subscribe();
        // The sender lives in this value, so waiting cannot fail.
        gate.wait_for(|limit| at < *limit).await.is_ok().then_some(at)
    }

    fn note(&self, at: usize, told: Told, fault: Option<String>) {
        let mut log = self.log();
        log.told[at] = told;
        if told != Told::Nothing {
            log.times.push(Instant::now());
        }
        if fault.is_some() {
            log.fault = fault;
        }
        drop(log);
        if told != Told::Nothing {
            self.count.send_modify(|count| *count += 1);
        }
    }
}

async fn work(session: Session, shared: Arc<Shared>) -> Result<()> {
    while let Some(at) = shared.take().await {
        let line = &shared.lines[at];
        match session.submit(&line.name, line.body.clone()).await {
            Ok(Outcome::Done { .. }) => shared.note(at, Told::Done, None),
            Ok(Outcome::Rejected(_)) => shared.note(at, Told::Rejected, None),
            Err(error) => shared.note(at, Told::Nothing, Some(format!("line {}: {error}", at + 1))),
        }
    }
    if let Err(error) = session.close().await {
        tracing::debug!(%error, "the session was left to expire");
    }
    Ok(())
}

fn draw(count: usize, total: usize) {
    let filled = BAR_WIDTH * count / total.max(1);
    eprint!("\r[{}{}] {count}/{total}", "#".repeat(filled), " ".repeat(BAR_WIDTH - filled));
}

pub(super) fn longest_silence(times: &[Instant], moment: Instant) -> Duration {
    let first = times.partition_point(|time| *time < moment).saturating_sub(1);
    let gaps = times[first..].windows(2).map(|pair| pair[1].duration_since(pair[0]));
    gaps.max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_silence_that_the_moment_falls_into_counts_and_earlier_ones_do_not() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let times = [at(0), at(500), at(510), at(760), at(800)];
        assert_eq!(longest_silence(&times, at(520)), Duration::from_millis(250));
        assert_eq!(longest_silence(&times, at(0)), Duration::from_millis(500));
        assert_eq!(longest_silence(&times, at(900)), Duration::ZERO);
        assert_eq!(longest_silence(&[], start), Duration::ZERO);
    }
}
