//! What could go wrong: the first ten minutes in `sdk/README.md` do not work as written. Its manifest and
//! code become a crate in a temporary folder, which is tested natively and built into a component.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

use quorate_build::{BuildOptions, build_component, check_imports};

/// The first block of a language in the text.
fn block<'a>(text: &'a str, language: &str) -> &'a str {
    let start = format!("```{language}\n");
    let from = text.find(&start).unwrap() + start.len();
    &text[from..from + text[from..].find("```").unwrap()]
}

/// A folder below the workspace's own target folder, which is kept between runs.
fn target_dir(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("..").join(name)
}

#[test]
fn the_first_ten_minutes_work_as_written() {
    let sdk = Path::new("..").canonicalize().unwrap();
    let readme = std::fs::read_to_string(sdk.join("README.md")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let written_path = "\"../quorate/sdk/guest\"";
    let manifest = block(&readme, "toml");
    assert!(manifest.contains(written_path));
    let real_path = format!("{:?}", sdk.join("guest"));
    std::fs::create_dir(folder.path().join("src")).unwrap();
    std::fs::write(folder.path().join("Cargo.toml"), manifest.replace(written_path, &real_path)).unwrap();
    std::fs::write(folder.path().join("src/lib.rs"), block(&readme, "rust")).unwrap();
    // The versions that the hostile guest is locked to; nothing is fetched.
    std::fs::copy(sdk.join("../tests/guests/hostile/Cargo.lock"), folder.path().join("Cargo.lock")).unwrap();

    let tested = Command::new(env!("CARGO"))
        .arg("test")
        .arg("--target-dir")
        .arg(target_dir("readme"))
        .env_remove("CARGO_TARGET_DIR")
        .current_dir(folder.path())
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&tested.stdout);
    assert!(tested.status.success(), "{output}{}", String::from_utf8_lossy(&tested.stderr));
    assert!(output.contains("counters_add_up_and_do_not_overflow ... ok"), "{output}");

    // The guests' folder is shared, since their dependencies are the same.
    let options = BuildOptions { target_dir: Some(target_dir("guests")), ..BuildOptions::default() };
    let built = build_component(folder.path(), &options).unwrap();
    check_imports(&built.bytes).unwrap();
    assert!(
        built.path.ends_with("wasm32-unknown-unknown/release/counter.component.wasm"),
        "{:?}",
        built.path
    );
}
