//! Monotonic time for protocols and hybrid logical clock (HLC) timestamps for state machines.
//!
//! Relies on nothing. Promises that stamps order entries as the log does. Knows no clock: both kinds
//! of time come in from outside.

use std::fmt;
use std::time::Duration;

/// Microseconds on a monotonic clock that starts anywhere; never compared between nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

impl Time {
    /// This time plus `duration`, saturating.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }

    /// How long ago `earlier` was; zero if it lies ahead.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// A hybrid logical clock timestamp (Kulkarni et al. 2014): 48 bits of Unix milliseconds, then 16
/// bits of counter.
///
/// ```text
/// 63                                  16 15            0
/// +-------------------------------------+---------------+
/// | milliseconds since 1970             | counter       |
/// +-------------------------------------+---------------+
/// ```
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct HlcTimestamp(pub u64);

impl HlcTimestamp {
    /// Before every real stamp.
    pub const ZERO: Self = Self(0);

    /// The stamp of a wall-clock reading in Unix milliseconds, counter zero.
    #[must_use]
    pub const fn from_unix_ms(unix_ms: u64) -> Self {
        Self(unix_ms << 16)
    }

    /// The wall-clock part, in Unix milliseconds.
    #[must_use]
    pub const fn unix_ms(self) -> u64 {
        self.0 >> 16
    }

    /// The stamp for an event that happens at wall-clock `now` after an event stamped `self`:
    /// `now` if that is later, otherwise the smallest greater stamp.
    #[must_use]
    pub fn tick(self, now: Self) -> Self {
        if now > self { now } else { Self(self.0.saturating_add(1)) }
    }
}

impl fmt::Display for HlcTimestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.unix_ms(), self.0 & 0xffff)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stalled_wall_clock_still_gives_growing_stamps() {
        let now = HlcTimestamp::from_unix_ms(1_000);
        let first = HlcTimestamp::ZERO.tick(now);
        let second = first.tick(now);
        assert!(second > first);
        assert_eq!(second.unix_ms(), 1_000);
        assert_eq!(second.tick(HlcTimestamp::from_unix_ms(1_001)).0, 1_001 << 16);
    }
}
