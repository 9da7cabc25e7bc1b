//! Builds the component in a folder: `cargo run -p quorate-build --example build -- sdk/examples/kv`.

use quorate_build::{BuildError, BuildOptions, CargoOutput, build_component};

fn main() -> Result<(), BuildError> {
    let options = BuildOptions { output: CargoOutput::Shown, ..BuildOptions::default() };
    for folder in std::env::args().skip(1) {
        let built = build_component(folder.as_ref(), &options)?;
        println!("{} bytes at {}", built.bytes.len(), built.path.display());
    }
    Ok(())
}
