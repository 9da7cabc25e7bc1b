//! Event loops: one thread for what waits, more for what works.
//!
//! Relies on tokio, and on Linux for batch scheduling. Promises a loop with timers and sockets. Knows no command.

use std::io;

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

/// Has the system schedule this thread, and all that it starts from now on, as batch work (`SCHED_BATCH`, sched(7)): a
/// thread that wakes waits until whoever runs on its core pauses or has used up its share. Does nothing on systems
/// other than Linux.
///
/// # Errors
///
/// Those of the system.
#[allow(unsafe_code)]
pub fn schedule_as_batch() -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        let parameters = libc::sched_param { sched_priority: 0 };
        // SAFETY: the call reads `parameters`, which outlives it, and changes nothing else in this process's memory.
        if unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameters) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Field 41 of /proc/thread-self/stat, proc(5).
    fn policy() -> i32 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let after_name = stat.rsplit_once(')').unwrap().1;
        after_name.split_whitespace().nth(38).unwrap().parse().unwrap()
    }

    #[test]
    fn threads_started_later_are_batch_work_too() {
        std::thread::spawn(|| {
            schedule_as_batch().unwrap();
            assert_eq!(policy(), libc::SCHED_BATCH);
            assert_eq!(std::thread::spawn(policy).join().unwrap(), libc::SCHED_BATCH);
        })
        .join()
        .unwrap();
    }
}
