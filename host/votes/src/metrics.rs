//! What the vote service did, in numbers.
//!
//! Relies on nothing. Promises counters that only grow and one update per batch, not per signature. Knows no
//! exporter: whoever wants to print them reads them.

use std::time::Duration;

/// Upper bounds of the classes of batch sizes, in signatures; a last class holds what is above.
pub const SIZE_CLASSES: [u64; 8] = [1, 4, 16, 64, 256, 1_024, 16_384, 131_072];
/// Upper bounds of the classes of times, in microseconds; a last class holds what is above.
pub const TIME_CLASSES: [u64; 8] = [50, 100, 250, 500, 1_000, 5_000, 25_000, 100_000];

/// How often a value fell into each class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// One count per class, then one for what is above the last bound.
    pub counts: [u64; 9],
    /// The sum of all values.
    pub sum: u64,
}

impl Histogram {
    /// Counts `value` in the class of `bounds` it falls into.
    pub fn record(&mut self, bounds: &[u64; 8], value: u64) {
        let class = bounds.iter().position(|bound| value <= *bound).unwrap_or(bounds.len());
        self.counts[class] += 1;
        self.sum = self.sum.saturating_add(value);
    }

    /// How many values were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// Everything that is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Signatures accepted.
    pub accepted: u64,
    /// Signatures rejected.
    pub rejected: u64,
    /// Certificates that were known and not verified again.
    pub certificates_known: u64,
    /// Certificates verified.
    pub certificates_verified: u64,
    /// Requests refused because their peer's queue was full.
    pub overloaded: u64,
    /// Requests answered.
    pub answered: u64,
    /// Signatures verified on a device.
    pub on_device: u64,
    /// Batches that a device failed on and the processor redid.
    pub fallbacks: u64,
    /// How often the device's breaker opened.
    pub breaker_opened: u64,
    /// Signatures per batch, by [`SIZE_CLASSES`].
    pub batch_size: Histogram,
    /// Microseconds that the signature of a batch which waited longest did so before the batch was begun, by
    /// [`TIME_CLASSES`].
    pub queue_time: Histogram,
    /// Microseconds from taking a request to its answer, by [`TIME_CLASSES`].
    pub answer_time: Histogram,
    /// Microseconds of verifying one batch, by [`TIME_CLASSES`].
    pub verify_time: Histogram,
}

impl Metrics {
    pub(crate) fn record_batch(&mut self, size: usize, waited: Duration, took: Duration) {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.batch_size.record(&SIZE_CLASSES, size as u64);
        self.queue_time.record(&TIME_CLASSES, micros(waited));
        self.verify_time.record(&TIME_CLASSES, micros(took));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_on_a_bound_belongs_to_its_class_and_a_greater_one_to_the_last() {
        let mut histogram = Histogram::default();
        for value in [1, 2, 4, 1_000_000] {
            histogram.record(&SIZE_CLASSES, value);
        }
        assert_eq!((histogram.counts[0], histogram.counts[1], histogram.counts[8]), (1, 2, 1));
        assert_eq!((histogram.count(), histogram.sum), (4, 1_000_007));
    }
}
