//! Keeps whoever knocks at a port from filling the log.
//!
//! Relies on a monotonic clock. Promises at most one line in each interval, and that the next line says
//! how many were left out. Knows no subject.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The least time between two lines.
const INTERVAL: Duration = Duration::from_secs(1);

/// Lets one line pass in each interval.
#[derive(Debug, Default)]
pub(crate) struct LogGate {
    state: Mutex<GateState>,
}

#[derive(Debug, Default)]
struct GateState {
    /// When a line passed last.
    last: Option<Instant>,
    /// How many were left out since.
    suppressed: u64,
}

impl LogGate {
    /// Logs a warning, unless one was logged less than a second ago.
    pub(crate) fn warn(&self, line: impl FnOnce() -> String) {
        match self.pass(Instant::now()) {
            Some(0) => tracing::warn!("{}", line()),
            Some(suppressed) => tracing::warn!(suppressed, "{}", line()),
            None => {}
        }
    }

    /// Whether a line may pass at `now`; then, how many were left out before it.
    fn pass(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.last.is_some_and(|last| now.saturating_duration_since(last) < INTERVAL) {
            state.suppressed += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_passes_each_interval_and_counts_the_others() {
        let gate = LogGate::default();
        let start = Instant::now();
        assert_eq!(gate.pass(start), Some(0));
        assert_eq!(gate.pass(start), None);
        assert_eq!(gate.pass(start + INTERVAL / 2), None);
        assert_eq!(gate.pass(start + INTERVAL), Some(2));
        assert_eq!(gate.pass(start + INTERVAL * 2), Some(0));
    }
}
