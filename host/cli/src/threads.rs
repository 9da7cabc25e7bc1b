//! Event loops: one thread for what waits, more for what works.
//!
//! Relies on tokio. Promises a loop with timers and sockets. Knows no command.

use anyhow::{Context as _, Result};
use tokio::runtime::{Builder, Runtime};

/// An event loop with as many threads.
///
/// # Errors
///
/// The system gives no threads or no event queue.
pub fn runtime(threads: usize) -> Result<Runtime> {
    let mut builder = match threads {
        0 | 1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    if threads > 1 {
        builder.worker_threads(threads);
    }
    builder.enable_all().build().context("this system gives no threads or no event queue")
}

/// Runs a command that waits for others most of its time.
///
/// # Errors
///
/// The command's own, or that the system gives no event queue.
pub fn on_one_thread(command: impl Future<Output = Result<()>>) -> Result<()> {
    runtime(1)?.block_on(command)
}
