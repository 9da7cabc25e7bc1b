//! Where a batch is verified: on the processor or on a device, whichever is done sooner.
//!
//! Relies on measured times. Promises a choice that follows from them alone: each side's time is taken as
//! `a + b n` for n votes. Knows no device and no clock.

use std::time::Duration;

/// Votes from which a device is used until both sides are measured.
pub const DEVICE_VOTES_UNMEASURED: usize = 128;
/// How long votes may be held back for a batch that a device is sooner done with.
pub const COALESCE_MAX: Duration = Duration::from_micros(100);

/// What verifying costs on one side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// Of every batch, in nanoseconds.
    pub fixed_ns: f64,
    /// Of every vote, in nanoseconds.
    pub vote_ns: f64,
}

impl Cost {
    /// The line that fits the measurements best (least squares); `None` unless they hold two sizes.
    #[must_use]
    pub fn fit(measured: &[(usize, Duration)]) -> Option<Self> {
        let count = measured.len() as f64;
        let points = || measured.iter().map(|(votes, took)| (*votes as f64, took.as_nanos() as f64));
        let (mean_votes, mean_ns) =
            points().fold((0.0, 0.0), |sum, point| (sum.0 + point.0 / count, sum.1 + point.1 / count));
        let spread: f64 = points().map(|(votes, _)| (votes - mean_votes).powi(2)).sum();
        if spread <= 0.0 {
            return None;
        }
        let shared: f64 = points().map(|(votes, ns)| (votes - mean_votes) * (ns - mean_ns)).sum();
        // Measurements scatter; a time that falls with more votes or starts below zero is none.
        let vote_ns = (shared / spread).max(0.0);
        Some(Self { fixed_ns: (mean_ns - vote_ns * mean_votes).max(0.0), vote_ns })
    }

    /// The time for so many votes, in nanoseconds.
    #[must_use]
    pub fn of(&self, votes: usize) -> f64 {
        self.fixed_ns + self.vote_ns * votes as f64
    }
}

/// The choice between a processor and a device.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Dispatch {
    /// One thread's cost; `None` until measured.
    pub processor: Option<Cost>,
    /// The device's cost; `None` until measured.
    pub device: Option<Cost>,
    /// Threads that share a batch on the processor.
    pub threads: usize,
}

impl Dispatch {
    /// Whether a device is done sooner with so many votes.
    #[must_use]
    pub fn prefers_device(&self, votes: usize) -> bool {
        match (&self.processor, &self.device) {
            (Some(processor), Some(device)) => {
                device.of(votes) < processor.of(votes.div_ceil(self.threads.max(1)))
            }
            _ => votes >= DEVICE_VOTES_UNMEASURED,
        }
    }

    /// The smallest batch of at most `most` votes that a device is sooner done with; `None` if it never is.
    #[must_use]
    pub fn device_from(&self, most: usize) -> Option<usize> {
        (1..=most).find(|votes| self.prefers_device(*votes))
    }

    /// Whether so few votes should wait for more, up to [`COALESCE_MAX`]: when four times as many would go to
    /// the device.
    #[must_use]
    pub fn is_worth_waiting(&self, votes: usize) -> bool {
        !self.prefers_device(votes) && self.prefers_device(votes.saturating_mul(4))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn cost(fixed_us: u64, vote_us: u64) -> Cost {
        let at = |votes: u64| (votes as usize, Duration::from_micros(fixed_us + vote_us * votes));
        Cost::fit(&[at(10), at(100), at(1_000)]).unwrap()
    }

    #[test]
    fn a_line_is_found_and_one_size_is_none() {
        let cost = cost(100, 20);
        assert!((cost.fixed_ns - 100_000.0).abs() < 1.0 && (cost.vote_ns - 20_000.0).abs() < 0.1);
        assert_eq!(Cost::fit(&[(5, Duration::from_micros(1)), (5, Duration::from_micros(2))]), None);
        assert_eq!(Cost::fit(&[]), None);
        let falling = Cost::fit(&[(1, Duration::from_micros(9)), (9, Duration::from_micros(1))]).unwrap();
        assert!(falling.vote_ns >= 0.0 && falling.fixed_ns >= 0.0);
    }

    #[test]
    fn the_sooner_side_is_chosen() {
        let dispatch = Dispatch { processor: Some(cost(0, 20)), device: Some(cost(200, 0)), threads: 2 };
        assert!(!dispatch.prefers_device(19), "190 to 200 microseconds on two threads");
        assert!(dispatch.prefers_device(22));
        assert_eq!((dispatch.device_from(100), dispatch.device_from(20)), (Some(21), None));
        assert!(
            dispatch.is_worth_waiting(6) && !dispatch.is_worth_waiting(4) && !dispatch.is_worth_waiting(22)
        );
    }

    /// A device that is slower for every vote is never used, however many there are.
    #[test]
    fn a_slower_device_is_never_chosen() {
        let dispatch = Dispatch { processor: Some(cost(0, 20)), device: Some(cost(200, 30)), threads: 1 };
        assert!(!dispatch.prefers_device(1_000_000) && !dispatch.is_worth_waiting(1_000_000));
        assert_eq!(dispatch.device_from(10_000), None);
    }

    #[test]
    fn unmeasured_sides_go_by_number() {
        let dispatch = Dispatch { threads: 4, ..Dispatch::default() };
        assert!(!dispatch.prefers_device(127) && dispatch.prefers_device(128));
    }
}
