//! What happened: a hash over every effect, and the last few in words.
//!
//! Relies on BLAKE3. Promises that the hash depends on what was noted and its order alone. Knows no
//! meaning of it.

use std::collections::VecDeque;
use std::fmt;

use quorate_types::{Digest, Time};

/// The trace of one run.
#[derive(Debug)]
pub struct Trace {
    hasher: blake3::Hasher,
    lines: VecDeque<String>,
    /// How many of the last lines are kept; none in a run that nobody reads.
    kept: usize,
    now: Time,
    events: u64,
}

impl Trace {
    /// A trace that keeps the hash only.
    #[must_use]
    pub fn silent() -> Self {
        Self::telling(0)
    }

    /// A trace that also keeps the last `kept` lines in words.
    #[must_use]
    pub fn telling(kept: usize) -> Self {
        Self { hasher: blake3::Hasher::new(), lines: VecDeque::new(), kept, now: Time(0), events: 0 }
    }

    /// Begins an event.
    pub fn event(&mut self, now: Time) {
        self.now = now;
        self.events += 1;
        self.number(now.0);
    }

    /// How many events there were.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Notes a number.
    pub fn number(&mut self, number: u64) {
        self.hasher.update(&number.to_le_bytes());
    }

    /// Notes bytes, with their length so that no two effects run together.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.hasher.update(bytes);
    }

    /// Keeps a line for people. It is no part of the hash: what it tells was noted as numbers and bytes.
    pub fn line(&mut self, text: impl FnOnce() -> String) {
        if self.kept == 0 {
            return;
        }
        if self.lines.len() >= self.kept {
            self.lines.pop_front();
        }
        self.lines.push_back(format!("{:>11} ms  {}", Milliseconds(self.now), text()));
    }

    /// The lines kept, oldest first.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.lines.iter().cloned().collect()
    }

    /// The hash of all that was noted.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest(*self.hasher.finalize().as_bytes())
    }
}

/// The hash of several runs, in the order given.
#[must_use]
pub fn combined(digests: impl Iterator<Item = Digest>) -> Digest {
    let mut hasher = blake3::Hasher::new();
    digests.for_each(|digest| {
        hasher.update(&digest.0);
    });
    Digest(*hasher.finalize().as_bytes())
}

/// A time as milliseconds and microseconds, without floating point.
struct Milliseconds(Time);

impl fmt::Display for Milliseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}.{:03}", self.0.0 / 1_000, self.0.0 % 1_000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashed(note: impl FnOnce(&mut Trace)) -> Digest {
        let mut trace = Trace::telling(3);
        note(&mut trace);
        trace.digest()
    }

    #[test]
    fn order_and_boundaries_count_and_lines_do_not() {
        let one = hashed(|trace| {
            trace.bytes(b"ab");
            trace.bytes(b"c");
        });
        let other = hashed(|trace| {
            trace.bytes(b"a");
            trace.bytes(b"bc");
        });
        assert_ne!(one, other);
        let told = hashed(|trace| {
            trace.bytes(b"ab");
            trace.line(|| "in words".to_owned());
            trace.bytes(b"c");
        });
        assert_eq!(one, told);
    }

    #[test]
    fn only_the_last_lines_are_kept_and_a_silent_trace_makes_none() {
        let mut last = Trace::telling(2);
        last.event(Time(1_500));
        for number in 0..5 {
            last.line(|| format!("line {number}"));
        }
        assert_eq!(last.lines(), ["      1.500 ms  line 3", "      1.500 ms  line 4"]);
        Trace::silent().line(|| panic!("nobody reads this"));
    }
}
