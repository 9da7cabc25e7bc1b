//! The device path on its own: what `cargo xtask gpu` runs, and what measures a card where there is one.
//!
//! Relies on the library. Promises status 0 when all went well, 2 for wrong arguments, 3 when there is no
//! device, 1 for everything else. Knows no node.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use quorate_types::Time;
use quorate_votes::gpu::{self, Device, DeviceConfig, DeviceError};
use quorate_votes::{Clock, measure};

/// There is no device to measure.
const NO_DEVICE: u8 = 3;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["compile", architecture] => compile(architecture),
        ["digest", files @ ..] => digest(files),
        ["bench"] => bench(),
        _ => {
            eprintln!("usage: quorate-gpu compile ARCHITECTURE | digest FILE.. | bench");
            ExitCode::from(2)
        }
    }
}

/// Prints the kernels as portable code for an architecture such as `compute_80`.
fn compile(architecture: &str) -> ExitCode {
    match gpu::compile_ptx(architecture) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(log) => {
            eprintln!("error: {log}");
            ExitCode::FAILURE
        }
    }
}

/// Prints the digest and name of each file, as `b3sum` does.
fn digest(files: &[&str]) -> ExitCode {
    for file in files {
        match std::fs::read(file) {
            Ok(bytes) => println!("{}  {file}", quorate_crypto::component_digest(&bytes)),
            Err(error) => {
                eprintln!("error: cannot read {file}: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

/// Verifies all vectors on the card, then measures it beside the processor; without a card the processor
/// alone.
fn bench() -> ExitCode {
    let config =
        DeviceConfig { launch_timeout: std::time::Duration::from_secs(10), ..DeviceConfig::default() };
    let measured = match Device::open(config) {
        Ok(device) => measure_all(Some(&device)),
        Err(DeviceError::Missing) => measure_all(None).and(Err(DeviceError::Missing)),
        Err(error) => Err(error),
    };
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(DeviceError::Missing) => {
            eprintln!("no device is present");
            ExitCode::from(NO_DEVICE)
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints a table to standard error and JSON to standard output; what needs a card is `-` or null without one.
fn measure_all(device: Option<&Device>) -> Result<(), DeviceError> {
    let start = Instant::now();
    let clock: Clock = Arc::new(move || Time::default().after(start.elapsed()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let card = device.map(|device| measure_card(&clock, device)).transpose()?;
    eprintln!("{threads} threads of the processor; microseconds of one batch, median");
    eprintln!("{:>8} {:>12} {:>12} {:>12} {:>14}", "votes", "processor", "any key", "tables", "tables, M/s");
    let mut rows = Vec::new();
    for votes in measure::SIZES {
        let row = measure::row(&clock, threads, device, votes)?;
        let text = |us: Option<f64>, none: &str| us.map_or(none.to_owned(), |us| format!("{us:.1}"));
        let rate = row.tables_us.map(|us| votes as f64 / us);
        eprintln!(
            "{votes:>8} {:>12.1} {:>12} {:>12} {:>14}",
            row.processor_us,
            text(row.any_key_us, "-"),
            text(row.tables_us, "-"),
            text(rate, "-")
        );
        rows.push(format!(
            "{{\"votes\":{votes},\"processor_us\":{:.1},\"any_key_us\":{},\"tables_us\":{}}}",
            row.processor_us,
            text(row.any_key_us, "null"),
            text(row.tables_us, "null")
        ));
    }
    let card = card.unwrap_or_else(|| "null".to_owned());
    println!("{{\"threads\":{threads},\"device\":{card},\"rows\":[{}]}}", rows.join(","));
    Ok(())
}

/// What is measured of the card alone, as JSON; nothing is if a vector gets a wrong verdict.
fn measure_card(clock: &Clock, device: &Device) -> Result<String, DeviceError> {
    let check = measure::check_vectors(device)?;
    eprintln!("{}: {} vectors on both paths, {} mismatches", device.name(), check.vectors, check.mismatches);
    if check.mismatches > 0 {
        return Err(DeviceError::Disagrees);
    }
    let products = device.multiply_rate()?;
    let round_trip_us = measure::row(clock, 1, Some(device), 1)?.tables_us.unwrap_or_default();
    eprintln!(
        "{:.1} G products/s of 255 bits; one vote there and back {round_trip_us:.0} us",
        products / 1e9
    );
    Ok(format!(
        "{{\"name\":\"{}\",\"vectors\":{},\"mismatches\":{},\"products_per_second\":{products:.0},\
         \"round_trip_us\":{round_trip_us:.1}}}",
        device.name().replace(['"', '\\'], " "),
        check.vectors,
        check.mismatches
    ))
}
