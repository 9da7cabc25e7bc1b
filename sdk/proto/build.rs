//! Compiles the published `.proto` files without an installed `protoc`, and keeps their descriptors for
//! reflection.

use std::error::Error;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = ["quorate/v1/client.proto", "quorate/v1/admin.proto"];
    let mut compiler = protox::Compiler::new(["proto"])?;
    // Reflection shows comments to whoever explores the interface, so they stay in.
    compiler.include_source_info(true).include_imports(true).open_files(files)?;
    let out = std::env::var("OUT_DIR")?;
    std::fs::write(Path::new(&out).join("quorate.v1.bin"), compiler.encode_file_descriptor_set())?;
    // `Bytes` fields share the receive buffer: a body is not copied between the socket and its reader.
    tonic_prost_build::configure().bytes(".").compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
