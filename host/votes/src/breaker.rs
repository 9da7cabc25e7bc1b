//! Whether a device that failed may be tried again.
//!
//! Relies on time from outside. Promises that a device is left alone after a failure, twice as long after
//! each further one up to a bound, that one batch at a time tries it then, and that one success closes the
//! breaker. Knows no device.

use std::time::Duration;

use quorate_types::Time;

/// How long a device is left alone after its first failure.
pub const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest pause.
pub const PAUSE_MAX: Duration = Duration::from_secs(60);

/// The breaker of one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breaker {
    /// The device works.
    Closed,
    /// The device failed and is left alone.
    Open {
        /// When it may be tried again.
        until: Time,
        /// The present pause.
        pause: Duration,
    },
    /// One batch tries the device.
    Trying {
        /// The pause before this trial.
        pause: Duration,
    },
}

impl Breaker {
    /// Whether a batch may go to the device now; a batch that may must be reported back.
    pub fn may_try(&mut self, now: Time) -> bool {
        match *self {
            Self::Closed => true,
            Self::Open { until, pause } if now >= until => {
                *self = Self::Trying { pause };
                true
            }
            Self::Open { .. } | Self::Trying { .. } => false,
        }
    }

    /// The device gave verdicts.
    pub fn succeeded(&mut self) {
        // A batch that was under way when another one failed proves nothing about the time after.
        if matches!(self, Self::Trying { .. }) {
            *self = Self::Closed;
        }
    }

    /// The device failed; whether the breaker opened by that.
    pub fn failed(&mut self, now: Time) -> bool {
        let pause = match *self {
            Self::Closed => PAUSE_MIN,
            Self::Trying { pause } => (pause * 2).min(PAUSE_MAX),
            Self::Open { .. } => return false,
        };
        *self = Self::Open { until: now.after(pause), pause };
        true
    }

    /// Whether the device is in use.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Closed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::default().after(Duration::from_secs(seconds))
    }

    #[test]
    fn a_failure_opens_and_one_trial_closes() {
        let mut breaker = Breaker::Closed;
        assert!(breaker.may_try(at(0)));
        assert!(breaker.failed(at(0)));
        assert!(!breaker.failed(at(0)), "a second batch under way does not open it again");
        assert!(!breaker.may_try(at(0)));
        breaker.succeeded();
        assert!(!breaker.is_closed(), "an old success closes nothing");
        assert!(breaker.may_try(at(1)));
        assert!(!breaker.may_try(at(1)), "one batch tries");
        breaker.succeeded();
        assert!(breaker.is_closed() && breaker.may_try(at(1)));
    }

    #[test]
    fn pauses_double_up_to_the_bound() {
        let (mut breaker, mut now, mut pauses) = (Breaker::Closed, at(0), Vec::new());
        for _ in 0..9 {
            assert!(breaker.may_try(now) && breaker.failed(now));
            let Breaker::Open { until, pause } = breaker else { panic!("open") };
            pauses.push(pause.as_secs());
            now = until;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }
}
