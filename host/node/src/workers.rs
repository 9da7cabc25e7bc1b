//! The node's two disk threads: one for the write-ahead log, one for checkpoints.
//!
//! Relies on `storage`. Promises that one flush serves everything that was appended when it began, that
//! completions are reported in order, and that a failed write or flush is reported once and ends the
//! thread: it is never tried again. Knows nothing of what is written.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

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
    Statistics(tokio::sync::oneshot::Sender<quorate_storage::WalStatistics>),
    /// End the thread.
    Stop,
}

/// Work for the checkpoint thread, done in order.
pub enum StoreWork {
    /// Write a checkpoint, then report it.
    Checkpoint(CheckpointJob, ShardSender),
    /// Make a fetched snapshot durable, then report it.
    Install(InstallJob, ShardSender),
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
    on_failure: OnFailure,
) -> std::io::Result<Worker<LogWork>> {
    let (sender, receiver) = channel();
    let thread = std::thread::Builder::new().name("log".to_owned()).spawn(move || {
        if let Err(error) = run_log(&mut wal, &receiver) {
            on_failure(DiskFailure { what: "writing the log", why: error.to_string(), path });
        }
    })?;
    Ok(Worker { sender, thread })
}

fn run_log<D: Disk>(wal: &mut Wal<D>, work: &Receiver<LogWork>) -> Result<(), quorate_storage::WalError> {
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
                LogWork::Statistics(reply) => drop(reply.send(wal.statistics())),
                LogWork::Stop => stop = true,
            }
            next = work.try_recv().ok();
        }
        if !gathered.is_empty() {
            wal.append(&gathered)?;
            gathered.clear();
        }
        if !tickets.is_empty() {
            wal.flush()?;
            for (shard, ticket) in tickets.drain(..) {
                shard.complete(DriverInput::Flushed(ticket));
            }
        }
        if maintain {
            maintain = wal.maintain()?;
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
                let (group, position) = (job.group(), job.position());
                match job.run(store)? {
                    Ok(done) => shard.complete(DriverInput::SnapshotInstalled(Box::new(done))),
                    Err(why) => {
                        tracing::warn!(%group, %why, "a fetched snapshot cannot be used");
                        shard.complete(DriverInput::SnapshotFailed { group, position });
                    }
                }
            }
            StoreWork::Stop => break,
        }
    }
    Ok(())
}
