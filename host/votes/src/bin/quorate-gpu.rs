//! The device path on its own: what `cargo xtask gpu` runs.
//!
//! Relies on the library. Promises status 0 when all went well, 2 for wrong arguments, 3 when there is no
//! device, 1 for everything else. Knows no node.

use std::process::ExitCode;

use quorate_votes::gpu;

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

fn bench() -> ExitCode {
    eprintln!("no device is present");
    ExitCode::from(NO_DEVICE)
}
