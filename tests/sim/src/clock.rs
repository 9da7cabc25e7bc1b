//! A node's two clocks as it sees them: one that runs a little fast or slow, one that is off and jumps.
//!
//! Relies on simulated time. Promises that the monotonic clock never goes back and that the instant at
//! which it shows a time can be computed. Knows no node.

use quorate_consensus::Now;
use quorate_types::{HlcTimestamp, Time};

/// Simulated time zero, in Unix milliseconds: any date well after 1970 will do.
const START_UNIX_MS: i64 = 1_700_000_000_000;
/// A monotonic clock counts this many steps per microsecond of simulated time when it runs true.
const TRUE_RATE: u64 = 1_024;

/// The clocks of one node.
#[derive(Clone, Debug)]
pub struct NodeClock {
    /// Steps per microsecond; [`TRUE_RATE`] is true.
    rate: u64,
    /// How far the wall clock is ahead, in milliseconds.
    ahead_ms: i64,
}

impl NodeClock {
    /// Clocks that show simulated time.
    #[must_use]
    pub fn exact() -> Self {
        Self { rate: TRUE_RATE, ahead_ms: 0 }
    }

    /// A monotonic clock that gains `gain` in 1,024 (a negative number loses), and a wall clock that is
    /// `ahead_ms` ahead.
    #[must_use]
    pub fn skewed(gain: i64, ahead_ms: i64) -> Self {
        let rate = TRUE_RATE.saturating_add_signed(gain).max(TRUE_RATE / 2);
        Self { rate, ahead_ms }
    }

    /// Sets the wall clock to so much ahead, in milliseconds.
    pub fn set_ahead(&mut self, ahead_ms: i64) {
        self.ahead_ms = ahead_ms;
    }

    /// What the clocks show at a simulated time.
    #[must_use]
    pub fn now(&self, time: Time) -> Now {
        let unix_ms = START_UNIX_MS + (time.0 / 1_000) as i64 + self.ahead_ms;
        Now { time: self.local(time), wall: HlcTimestamp::from_unix_ms(unix_ms.unsigned_abs()) }
    }

    /// The earliest simulated time at which the monotonic clock shows `local`.
    #[must_use]
    pub fn when(&self, local: Time) -> Time {
        let steps = u128::from(local.0) * u128::from(TRUE_RATE);
        let time = steps.div_ceil(u128::from(self.rate));
        Time(u64::try_from(time).unwrap_or(u64::MAX))
    }

    fn local(&self, time: Time) -> Time {
        let steps = u128::from(time.0) * u128::from(self.rate) / u128::from(TRUE_RATE);
        Time(u64::try_from(steps).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_reached_at_the_computed_instant_and_not_before() {
        for gain in [-100, -1, 0, 1, 100] {
            let clock = NodeClock::skewed(gain, 0);
            for local in [1, 999, 150_000, 7_777_777] {
                let at = clock.when(Time(local));
                assert!(clock.now(at).time >= Time(local), "gain {gain}");
                assert!(clock.now(Time(at.0 - 1)).time < Time(local), "gain {gain}");
            }
        }
    }

    #[test]
    fn a_jump_moves_the_wall_clock_only() {
        let mut clock = NodeClock::exact();
        let before = clock.now(Time(5_000));
        clock.set_ahead(-3_000);
        let after = clock.now(Time(5_000));
        assert_eq!(after.time, before.time);
        assert_eq!(before.wall.unix_ms() - after.wall.unix_ms(), 3_000);
    }
}
