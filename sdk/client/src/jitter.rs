//! How long to wait before something is tried again, and what is drawn at random.
//!
//! Relies on the system's source of randomness once, for a seed. Promises waits within their bounds.
//! Knows neither what is tried nor what time it is.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::error::Error;

/// Spreads waits, so that clients which lost one leader at the same moment do not return at the same
/// moment.
#[derive(Debug)]
pub(crate) struct Jitter {
    drawn: AtomicU64,
    least: Duration,
    greatest: Duration,
}

impl Jitter {
    pub(crate) fn new(seed: u64, least: Duration, greatest: Duration) -> Self {
        Self { drawn: AtomicU64::new(seed), least, greatest }
    }

    /// The wait before a leader is looked for again: an eighth of the outage so far, so that finding the
    /// new leader adds little to the election, however long that takes.
    pub(crate) fn after_outage(&self, outage: Duration) -> Duration {
        self.spread(outage / 8)
    }

    /// The wait before sending attempt `attempt`, from 1, of something that was turned away: doubles.
    pub(crate) fn after_attempts(&self, attempt: u32) -> Duration {
        self.spread(self.least.saturating_mul(1 << attempt.saturating_sub(1).min(16)))
    }

    /// A duration between half of `wanted` and `wanted`, which is first brought into the bounds.
    fn spread(&self, wanted: Duration) -> Duration {
        let wanted = wanted.clamp(self.least, self.greatest);
        let share = f64::from((self.draw() >> 40) as u32) / f64::from(1_u32 << 24);
        wanted.mul_f64(1.0 - share / 2.0)
    }

    /// SplitMix64 (Steele et al. 2014).
    fn draw(&self) -> u64 {
        let state = self.drawn.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Bytes that nobody can guess.
pub(crate) fn random_bytes<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    rustls::crypto::ring::default_provider()
        .secure_random
        .fill(&mut bytes)
        .map_err(|_| Error::Config { reason: "the system gives no random bytes".to_owned() })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: Duration = Duration::from_millis(5);
    const GREATEST: Duration = Duration::from_millis(250);

    #[test]
    fn waits_start_short_grow_to_the_bound_and_differ() {
        let jitter = Jitter::new(7, LEAST, GREATEST);
        assert!(jitter.after_outage(Duration::ZERO) <= LEAST);
        for attempt in 0..40 {
            let wait = jitter.after_attempts(attempt);
            assert!(wait >= LEAST / 2 && wait <= GREATEST, "{attempt}: {wait:?}");
        }
        let long = Duration::from_secs(60);
        let waits: std::collections::BTreeSet<_> = (0..16).map(|_| jitter.after_outage(long)).collect();
        assert!(waits.len() > 8);
        assert!(waits.iter().all(|wait| *wait >= GREATEST / 2 && *wait <= GREATEST));
    }

    #[test]
    fn the_wait_for_a_leader_is_a_small_part_of_the_outage() {
        let jitter = Jitter::new(1, LEAST, GREATEST);
        for outage_ms in [100, 200, 400, 1_000] {
            let outage = Duration::from_millis(outage_ms);
            assert!(jitter.after_outage(outage) <= outage / 8);
        }
    }
}
