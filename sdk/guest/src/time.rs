//! The only time a state machine knows: the stamp of the entry it applies.
//!
//! Relies on nothing. Promises the order and the layout of the host's hybrid logical clock. Knows no
//! clock.

use std::time::Duration;

/// A hybrid logical clock stamp: Unix milliseconds in the upper 48 bits, a counter in the lower 16.
///
/// Each entry's stamp is greater than that of the entry before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    const COUNTER_BITS: u32 = 16;

    /// The first stamp of a millisecond. Milliseconds beyond 48 bits become the last stamp.
    #[must_use]
    pub const fn from_unix_millis(millis: u64) -> Self {
        if millis >> (64 - Self::COUNTER_BITS) == 0 {
            Self(millis << Self::COUNTER_BITS)
        } else {
            Self(u64::MAX)
        }
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub const fn unix_millis(self) -> u64 {
        self.0 >> Self::COUNTER_BITS
    }

    /// The time from `earlier` to here in whole milliseconds; zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.unix_millis().saturating_sub(earlier.unix_millis()))
    }
}

/// Later by whole milliseconds; stops at the last stamp.
impl std::ops::Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let counter = self.0 & ((1 << Self::COUNTER_BITS) - 1);
        let later = Self::from_unix_millis(self.unix_millis().saturating_add(millis));
        Self(later.0 | counter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adding_keeps_the_counter_and_stops_at_the_end() {
        let start = Timestamp(Timestamp::from_unix_millis(1_000).0 | 7);
        let later = start + Duration::from_millis(250);
        assert_eq!((later.unix_millis(), later.0 & 0xffff), (1_250, 7));
        assert_eq!(later.since(start), Duration::from_millis(250));
        assert_eq!(start.since(later), Duration::ZERO);
        assert_eq!(start + Duration::MAX, Timestamp(u64::MAX));
    }
}
