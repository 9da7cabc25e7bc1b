//! What a measurement found.
//!
//! Relies on a histogram with three significant digits. Promises the keys of `quorate bench --output
//! json`. Knows nothing of what was measured.

use std::time::Duration;

use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::cluster::usage::processor_time;

/// The longest latency that is told apart, in microseconds; longer ones count as this one.
const LATENCY_US_MAX: u64 = 600_000_000;
const SIGNIFICANT_DIGITS: u8 = 3;

/// A process whose processor time counts.
#[derive(Clone, Debug)]
pub struct Process {
    name: String,
    pid: u32,
}

impl Process {
    /// A process under the name that results use.
    #[must_use]
    pub fn new(name: String, pid: u32) -> Self {
        Self { name, pid }
    }

    /// The name that results use.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its processor time so far; zero if the system does not tell.
    #[must_use]
    pub fn time(&self) -> Duration {
        processor_time(self.pid).unwrap_or_default()
    }
}

/// Latencies and errors while a measurement runs.
#[derive(Debug)]
pub struct Recorder {
    latencies: Histogram<u64>,
    errors: u64,
}

impl Recorder {
    /// Nothing yet.
    ///
    /// # Errors
    ///
    /// Never with the bounds above; the histogram checks them.
    pub fn new() -> Result<Self> {
        let latencies = Histogram::new_with_bounds(1, LATENCY_US_MAX, SIGNIFICANT_DIGITS);
        Ok(Self { latencies: latencies.context("the histogram's bounds are refused")?, errors: 0 })
    }

    /// A command was answered after this time.
    pub fn done(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(LATENCY_US_MAX);
        self.latencies.saturating_record(micros.max(1));
    }

    /// A command was not answered, or not as it should be.
    pub fn failed(&mut self) {
        self.errors += 1;
    }

    /// The figures of a measurement that lasted this long, with the processor time of each process.
    #[must_use]
    pub fn figures(&self, lasted: Duration, used: Vec<(String, Duration)>) -> Figures {
        let commands = self.latencies.len();
        let per_command = |time: Duration| time.as_secs_f64() * 1e6 / (commands.max(1) as f64);
        let cpu: Vec<_> = used.into_iter().map(|(name, time)| (name, per_command(time))).collect();
        Figures {
            commands,
            seconds: lasted.as_secs_f64(),
            commands_per_second: commands as f64 / lasted.as_secs_f64().max(f64::EPSILON),
            p50_us: self.latencies.value_at_quantile(0.5),
            p99_us: self.latencies.value_at_quantile(0.99),
            max_us: self.latencies.max(),
            errors: self.errors,
            cpu_us_per_command: cpu.iter().map(|(_, micros)| micros).sum(),
            cpu,
        }
    }
}

/// What a measurement found.
#[derive(Clone, Debug, PartialEq)]
pub struct Figures {
    /// Commands answered.
    pub commands: u64,
    /// How long it lasted.
    pub seconds: f64,
    /// The one divided by the other.
    pub commands_per_second: f64,
    /// Median latency, in microseconds.
    pub p50_us: u64,
    /// 99th percentile of it.
    pub p99_us: u64,
    /// The longest.
    pub max_us: u64,
    /// Commands not answered, or not as they should be.
    pub errors: u64,
    /// Processor time of all processes per command answered, in microseconds.
    pub cpu_us_per_command: f64,
    /// The same for each process.
    pub cpu: Vec<(String, f64)>,
}

impl Figures {
    /// The figures for programs.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let round = |value: f64| (value * 100.0).round() / 100.0;
        let cpu: Vec<_> = self
            .cpu
            .iter()
            .map(|(process, micros)| json!({ "process": process, "us_per_command": round(*micros) }))
            .collect();
        json!({
            "commands_per_second": round(self.commands_per_second),
            "p50_us": self.p50_us,
            "p99_us": self.p99_us,
            "max_us": self.max_us,
            "errors": self.errors,
            "cpu_us_per_command": round(self.cpu_us_per_command),
            "cpu": cpu,
            "commands": self.commands,
            "seconds": round(self.seconds),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn quantiles_rates_and_processor_time_are_those_of_what_was_recorded() {
        let mut recorder = Recorder::new().unwrap();
        for micros in 1..=1_000 {
            recorder.done(Duration::from_micros(micros));
        }
        recorder.failed();
        let used =
            vec![("a".to_owned(), Duration::from_millis(3)), ("b".to_owned(), Duration::from_millis(1))];
        let figures = recorder.figures(Duration::from_secs(2), used);
        assert_eq!((figures.commands, figures.errors), (1_000, 1));
        assert!((figures.commands_per_second - 500.0).abs() < 1e-9);
        assert_eq!((figures.p50_us, figures.p99_us, figures.max_us), (500, 990, 1_000));
        assert!((figures.cpu_us_per_command - 4.0).abs() < 1e-9);
    }

    #[test]
    fn a_latency_beyond_the_bound_counts_as_the_bound() {
        let mut recorder = Recorder::new().unwrap();
        recorder.done(Duration::from_secs(100_000));
        recorder.done(Duration::ZERO);
        assert!(recorder.figures(Duration::from_secs(1), Vec::new()).max_us >= LATENCY_US_MAX);
    }

    #[test]
    fn a_measurement_without_commands_has_finite_figures() {
        let figures = Recorder::new().unwrap().figures(Duration::ZERO, vec![("a".into(), Duration::ZERO)]);
        assert!(figures.commands_per_second.is_finite() && figures.cpu_us_per_command.is_finite());
    }

    #[test]
    fn programs_find_the_promised_keys() {
        let value = Recorder::new().unwrap().figures(Duration::from_secs(1), Vec::new()).to_json();
        for key in ["commands_per_second", "p50_us", "p99_us", "max_us", "errors", "cpu_us_per_command"] {
            assert!(value[key].is_number(), "{key}");
        }
    }
}
