//! When a long-running command is asked to stop.
//!
//! Relies on the system's signals. Promises that an interrupt, a termination and, where asked for, the
//! end of standard input all end the wait. Knows nothing of what is stopped.

use std::io::Read;

use anyhow::{Context as _, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// Whether the end of standard input means stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StandardInput {
    /// Not looked at.
    Ignored,
    /// Its end means stop: it is a pipe from the program that started this one.
    Watched,
}

/// Resolves when the process is asked to stop.
///
/// # Errors
///
/// The system does not let signals be watched.
pub async fn stop(input: StandardInput) -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for interrupts")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot watch for termination")?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        () = end_of_input(input) => {}
    }
    Ok(())
}

async fn end_of_input(input: StandardInput) {
    if input == StandardInput::Ignored {
        return std::future::pending().await;
    }
    let (ended, end) = oneshot::channel();
    // A thread of its own: the event loop would wait at its end for a read that it cannot cancel.
    let watcher = std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        let mut buffer = [0; 256];
        // Whatever arrives is no command; an error means that the other end is gone as well.
        while std::io::stdin().read(&mut buffer).is_ok_and(|count| count > 0) {}
        ended.send(()).ok();
    });
    if let Err(error) = watcher {
        // Without a thread the sender is gone and this counts as the end, which errs on the safe side.
        tracing::warn!(%error, "standard input cannot be watched");
    }
    end.await.ok();
}
