//! The node's two disk threads: one for the write-ahead log, one for checkpoints.
//!
//! Relies on `storage`. Promises that one flush serves everything that was appended when it began, that
//! completions are reported in order, and that a failed write or flush is reported once and ends the
//! thread: it is never tried again. Knows nothing of what is written.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use quorate_consensus::hotstuff::Evidence;
use quorate_storage::{Disk, GroupAppend, Store, Wal};
use quorate_types::{GroupId, LogIndex, Position};

use crate::driver::{CheckpointJob, DriverInput, InstallJob, Ticket};
use crate::shard::ShardSender;

/// Work for the log thread, done in order.
pub enum LogWork {
    /// Append and flush, then report the ticket to the shard.
    Append {
        /// What to append.
        batch: Vec<GroupAppend>,
        /// What to report.
        ticket: Ticket,
        /// To whom.
        shard: ShardSender,
    },
    /// A checkpoint holds a group's entries through this index.
    Compact(GroupId, LogIndex),
    /// A snapshot replaced a group's log.
    Reset(GroupId, Position),
    /// Say how the log stands.
    Statistics(tokio::sync::oneshot::Sender<LogReport>),
    /// End the thread.
    Stop,
}

/// How the log stands.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogReport {
    /// What the log counted since it was opened.
    pub statistics: quorate_storage::WalStatistics,
    /// Half of the last 1,024 flushes took at most so many microseconds.
    pub flush_p50_us: u64,
    /// 99 of a hundred of them took at most so many microseconds.
    pub flush_p99_us: u64,
}

/// How long the last flushes took, in microseconds.
#[derive(Debug, Default)]
struct FlushTimes {
    last_us: std::collections::VecDeque<u64>,
}

impl FlushTimes {
    const KEPT: usize = 1_024;

    fn note(&mut self, took: Duration) {
        if self.last_us.len() == Self::KEPT {
            self.last_us.pop_front();
        }
        self.last_us.push_back(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// The smallest time that so many of a hundred flushes did not exceed; 0 before the first.
    fn percentile(&self, percent: usize) -> u64 {
        let mut sorted: Vec<u64> = self.last_us.iter().copied().collect();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100);
        sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
    }
}

/// Work for the checkpoint thread, done in order.
pub enum StoreWork {
    /// Write a checkpoint, then report it.
    Checkpoint(CheckpointJob, ShardSender),
    /// Make a fetched snapshot durable, then report it.
    Install(InstallJob, ShardSender),
    /// Keep the proof of a lie.
    Evidence(GroupId, Evidence),
    /// End the thread.
    Stop,
}

/// What ended a disk thread, for the operator. The process must stop.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{what} failed: {why}; the node stops so that it never promises what it did not store")]
pub struct DiskFailure {
    /// What was being done.
    pub what: &'static str,
    /// What the disk said.
    pub why: String,
    /// Where.
    pub path: PathBuf,
}

/// A disk thread and the way to it.
#[derive(Debug)]
pub struct Worker<T> {
    sender: Sender<T>,
    thread: JoinHandle<()>,
}

impl<T> Worker<T> {
    /// Where its work goes.
    #[must_use]
    pub fn sender(&self) -> Sender<T> {
        self.sender.clone()
    }

    /// Sends the last piece of work and waits until all of it is done.
    pub fn stop(self, last: T) {
        // A thread that failed has reported why and needs no stopping.
        if self.sender.send(last).is_ok() {
            drop(self.sender);
            drop(self.thread.join());
        }
    }
}

/// Called with each group that keeps the log from being shortened until it has a checkpoint.
pub type OnHeld = Arc<dyn Fn(GroupId) + Send + Sync>;

/// Called once when a disk thread fails.
pub type OnFailure = Arc<dyn Fn(DiskFailure) + Send + Sync>;

/// Starts the log thread.
///
/// # Errors
///
/// As the operating system, when it has no thread to give.
pub fn start_log<D: Disk>(
    mut wal: Wal<D>,
    path: PathBuf,
    on_held: OnHeld,
    on_failure: OnFailure,
) -> std::io::Result<Worker<LogWork>> {
    let (sender, receiver) = channel();
    let thread = std::thread::Builder::new().name("log".to_owned()).spawn(move || {
        if let Err(error) = run_log(&mut wal, &receiver, &*on_held) {
            on_failure(DiskFailure { what: "writing the log", why: error.to_string(), path });
        }
    })?;
    Ok(Worker { sender, thread })
}

fn run_log<D: Disk>(
    wal: &mut Wal<D>,
    work: &Receiver<LogWork>,
    on_held: &(dyn Fn(GroupId) + Send + Sync),
) -> Result<(), quorate_storage::WalError> {
    let mut flush_times = FlushTimes::default();
    let mut gathered: Vec<GroupAppend> = Vec::new();
    let mut tickets: Vec<(ShardSender, Ticket)> = Vec::new();
    let mut stop = false;
    // Whether segments wait to be freed; done a little at a time between batches.
    let mut maintain = false;
    while !stop {
        let first = if maintain { work.try_recv().ok() } else { work.recv().ok() };
        if first.is_none() && !maintain {
            return Ok(());
        }
        let mut next = first;
        while let Some(item) = next {
            match item {
                LogWork::Append { mut batch, ticket, shard } => {
                    gathered.append(&mut batch);
                    tickets.push((shard, ticket));
                }
                LogWork::Compact(group, through) => {
                    // What was gathered may hold entries that this releases.
                    wal.append(&gathered)?;
                    gathered.clear();
                    wal.compact(group, through);
                    maintain = true;
                }
                LogWork::Reset(group, position) => {
                    // What was appended before must not end up after the reset.
                    wal.append(&gathered)?;
                    gathered.clear();
                    wal.reset(group, position);
                }
                // Whoever asked may have left.
                LogWork::Statistics(reply) => drop(reply.send(LogReport {
                    statistics: wal.statistics(),
                    flush_p50_us: flush_times.percentile(50),
                    flush_p99_us: flush_times.percentile(99),
                })),
                LogWork::Stop => stop = true,
            }
            next = work.try_recv().ok();
        }
        if !gathered.is_empty() {
            wal.append(&gathered)?;
            gathered.clear();
        }
        if !tickets.is_empty() {
            let begun = Instant::now();
            wal.flush()?;
            flush_times.note(begun.elapsed());
            for (shard, ticket) in tickets.drain(..) {
                shard.complete(DriverInput::Flushed(ticket));
            }
        }
        if maintain {
            maintain = wal.maintain()?;
            if !maintain {
                wal.groups_holding_back().into_iter().for_each(on_held);
            }
        }
    }
    Ok(())
}

/// Starts the checkpoint thread.
///
/// # Errors
///
/// As the operating system, when it has no thread to give.
pub fn start_store(
    store: Arc<Store>,
    path: PathBuf,
    on_failure: OnFailure,
) -> std::io::Result<Worker<StoreWork>> {
    let (sender, receiver) = channel();
    let thread = std::thread::Builder::new().name("checkpoint".to_owned()).spawn(move || {
        if let Err(error) = run_store(&store, &receiver) {
            on_failure(DiskFailure { what: "writing a checkpoint", why: error.to_string(), path });
        }
    })?;
    Ok(Worker { sender, thread })
}

fn run_store(store: &Store, work: &Receiver<StoreWork>) -> Result<(), quorate_storage::StoreError> {
    while let Ok(item) = work.recv() {
        match item {
            StoreWork::Checkpoint(job, shard) => {
                let done = job.run(store)?;
                shard.complete(DriverInput::CheckpointDone(done));
            }
            StoreWork::Install(job, shard) => {
                let (group, position, from) = (job.group(), job.position(), job.from());
                match job.run(store)? {
                    Ok(done) => shard.complete(DriverInput::SnapshotInstalled(Box::new(done))),
                    Err(fault) => {
                        shard.complete(DriverInput::SnapshotRefused { group, position, from, fault });
                    }
                }
            }
            StoreWork::Evidence(group, evidence) => {
                store.put_evidence(group, evidence.digest(), &evidence.to_bytes())?;
            }
            StoreWork::Stop => break,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_last_flushes_only() {
        let mut times = FlushTimes::default();
        assert_eq!(times.percentile(50), 0);
        times.note(Duration::from_secs(9));
        for us in 1..=1_024 {
            times.note(Duration::from_micros(us));
        }
        assert_eq!((times.percentile(50), times.percentile(99)), (512, 1_014));
    }
}
