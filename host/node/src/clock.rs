//! The node's two clocks; the only place that reads them for consensus.
//!
//! Relies on the operating system. Promises that the monotonic one never goes back. Knows nothing of
//! what they are for.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use quorate_consensus::Now;
use quorate_types::{HlcTimestamp, Time};

/// Reads both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Default for Clock {
    fn default() -> Self {
        Self { start: Instant::now() }
    }
}

impl Clock {
    /// Both clocks, read one after the other.
    #[must_use]
    pub fn now(&self) -> Now {
        let micros = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX);
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall = HlcTimestamp::from_unix_ms(u64::try_from(unix.as_millis()).unwrap_or(0));
        // Zero is kept for "never".
        Now { time: Time(micros + 1), wall }
    }

    /// The instant at which the monotonic clock shows `time`.
    #[must_use]
    pub fn instant(&self, time: Time) -> Instant {
        self.start + std::time::Duration::from_micros(time.0.saturating_sub(1))
    }
}
