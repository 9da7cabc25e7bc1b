//! `quorate votes`: what verifying votes costs on this machine, and where it is done.
//!
//! Relies on the vote room's own measurements. Promises that whatever is timed gave the right verdicts, that
//! every published vector was verified on a device before it is measured, and that a machine without a device
//! is said to have none. Knows no node: what a running one chose may differ by its configuration.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use quorate_types::Time;
use quorate_votes::gpu::{self, Binary, Cards, Choice, Device, DeviceConfig};
use quorate_votes::measure::{self, Row};
use quorate_votes::{Clock, Cost};
use serde_json::{Value, json};

use crate::arguments::{VotesArguments, VotesBenchArguments, VotesCommand};
use crate::output::{Output, pairs, table};

/// How long a batch may take on a device that is measured: its first one may compile the kernels.
const LAUNCH_TIMEOUT: Duration = Duration::from_secs(10);
/// The kernels that are shipped, and a compute capability that each is for.
const KERNELS: [(&str, (i32, i32)); 3] = [("sm_90", (9, 0)), ("sm_89", (8, 9)), ("compute_80", (8, 0))];

/// What verifies votes here.
struct Machine {
    threads: usize,
    cards: Option<Cards>,
    clock: Clock,
}

impl Machine {
    /// Opens the devices and says in one line what there is.
    fn open(arguments: VotesArguments, output: Output) -> Result<Self> {
        let processor = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = arguments.threads.and_then(|threads| usize::try_from(threads).ok());
        let choice = if arguments.no_device { Choice::Off } else { Choice::All };
        let config = DeviceConfig { launch_timeout: LAUNCH_TIMEOUT, ..DeviceConfig::default() };
        let (cards, line) = Cards::open(&choice, config)?;
        output.hint(&line);
        let start = Instant::now();
        let clock: Clock = Arc::new(move || Time::default().after(start.elapsed()));
        Ok(Self { threads: threads.unwrap_or(processor.min(quorate_votes::THREADS_MAX)), cards, clock })
    }

    /// The device that is measured; others are taken to cost the same.
    fn device(&self) -> Option<&Device> {
        self.cards.as_ref().map(Cards::first)
    }

    fn device_names(&self) -> Vec<&str> {
        self.cards.iter().flat_map(Cards::devices).map(Device::name).collect()
    }
}

/// Carries out a command.
///
/// # Errors
///
/// A device fails, or comes to other verdicts than the processor.
pub fn run(command: &VotesCommand, output: Output) -> Result<()> {
    match command {
        VotesCommand::Bench(arguments) => bench(arguments, output),
        VotesCommand::Status(arguments) => status(*arguments, output),
    }
}

fn bench(arguments: &VotesBenchArguments, output: Output) -> Result<()> {
    let machine = Machine::open(arguments.machine, output)?;
    let device = machine.device();
    if let Some(device) = device {
        let check = measure::check_vectors(device)?;
        ensure!(
            check.mismatches == 0,
            "{} of {} vectors get a wrong verdict on {}: use --no-device",
            check.mismatches,
            check.vectors,
            device.name()
        );
        output.hint(&format!("{} vectors verified on {}, none wrongly", check.vectors, device.name()));
    }
    let mut rows = Vec::new();
    for votes in &arguments.votes {
        rows.push(measure::row(&machine.clock, machine.threads, device, usize::try_from(*votes)?)?);
    }
    let value = json!({
        "threads": machine.threads,
        "device": device.map(Device::name),
        "rows": rows.iter().map(row_json).collect::<Vec<_>>(),
    });
    output.show(&value, || {
        let columns = ["votes", "processor us", "any key us", "tables us", "processor /s", "device /s"];
        table(&columns, rows.iter().map(row_text))
    })
}

/// Verdicts per second of a batch that takes so many microseconds.
fn rate(votes: usize, us: f64) -> f64 {
    (votes as f64 * 1e6 / us.max(f64::EPSILON)).round()
}

/// The sooner of both ways on the device.
fn on_device(row: &Row) -> Option<f64> {
    [row.any_key_us, row.tables_us].into_iter().flatten().reduce(f64::min)
}

fn row_json(row: &Row) -> Value {
    json!({
        "votes": row.votes,
        "processor_us": row.processor_us,
        "any_key_us": row.any_key_us,
        "tables_us": row.tables_us,
        "processor_per_second": rate(row.votes, row.processor_us),
        "device_per_second": on_device(row).map(|us| rate(row.votes, us)),
    })
}

fn row_text(row: &Row) -> Vec<String> {
    let us = |us: Option<f64>| us.map_or_else(|| "-".to_owned(), |us| format!("{us:.0}"));
    vec![
        row.votes.to_string(),
        us(Some(row.processor_us)),
        us(row.any_key_us),
        us(row.tables_us),
        rate(row.votes, row.processor_us).to_string(),
        on_device(row).map_or_else(|| "-".to_owned(), |us| rate(row.votes, us).to_string()),
    ]
}

fn status(arguments: VotesArguments, output: Output) -> Result<()> {
    let machine = Machine::open(arguments, output)?;
    let dispatch = measure::dispatch(&machine.clock, machine.threads, machine.device())?;
    let batch_max = DeviceConfig::default().batch_max;
    let device_from = machine.device().and_then(|_| dispatch.device_from(batch_max));
    let names = machine.device_names();
    let value = json!({
        "threads": machine.threads,
        "processor": dispatch.processor.map(cost_json),
        "devices": names,
        "device": dispatch.device.map(cost_json),
        "device_from_votes": device_from,
        "kernels": KERNELS.map(|(name, capability)| json!({ "name": name, "bytes": kernel_bytes(capability) })),
    });
    output.show(&value, || {
        let cost = |cost: Option<Cost>| cost.map_or_else(|| "not measured".to_owned(), cost_text);
        let mut lines = vec![
            ("processor", format!("{}; {} threads share a batch", cost(dispatch.processor), machine.threads)),
            ("kernels", KERNELS.map(|(name, _)| name).join(", ")),
        ];
        if names.is_empty() {
            lines.push(("devices", "none: every batch goes to the processor".to_owned()));
        } else {
            lines.push(("devices", names.join(", ")));
            lines.push(("device", cost(dispatch.device)));
            lines.push(("split", split_text(device_from)));
        }
        pairs(&lines)
    })
}

fn split_text(device_from: Option<usize>) -> String {
    match device_from {
        Some(votes) => format!("batches of {votes} votes and more go to a device"),
        None => "every batch goes to the processor, which is sooner done with it".to_owned(),
    }
}

fn cost_json(cost: Cost) -> Value {
    json!({ "fixed_us": cost.fixed_ns / 1e3, "vote_us": cost.vote_ns / 1e3 })
}

fn cost_text(cost: Cost) -> String {
    format!("{:.1} us a batch and {:.3} us a vote", cost.fixed_ns / 1e3, cost.vote_ns / 1e3)
}

fn kernel_bytes(capability: (i32, i32)) -> usize {
    match gpu::built(capability) {
        Some(Binary::Cubin(bytes)) => bytes.len(),
        Some(Binary::Ptx(text)) => text.len(),
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_measured_is_no_figure() {
        let row = Row { votes: 100, processor_us: 4_000.0, any_key_us: None, tables_us: None };
        let value = row_json(&row);
        assert_eq!((&value["processor_per_second"], &value["tables_us"]), (&json!(25_000.0), &Value::Null));
        assert_eq!(value["device_per_second"], Value::Null);
        assert_eq!(row_text(&row)[2..], ["-", "-", "25000", "-"]);
    }

    #[test]
    fn a_devices_rate_is_that_of_its_better_way() {
        let row = Row { votes: 1_000, processor_us: 1e5, any_key_us: Some(500.0), tables_us: Some(200.0) };
        assert_eq!(row_json(&row)["device_per_second"], json!(5e6));
    }

    /// A name without a binary would claim kernels that are not there.
    #[test]
    fn every_kernel_that_is_named_is_shipped() {
        for (name, capability) in KERNELS {
            assert!(kernel_bytes(capability) > 10_000, "{name}");
        }
    }
}
