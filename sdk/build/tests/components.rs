//! What could go wrong: a component that was built imports more than the contract, carries the builder's
//! folders, or a crate that is no state machine is refused without saying why.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use quorate_build::{BuildError, BuildOptions, build_component, check_imports, componentize};
use wasmparser::{Parser, Payload};

fn repository() -> PathBuf {
    Path::new("../..").canonicalize().unwrap()
}

fn text(path: &str) -> Vec<u8> {
    wat::parse_file(repository().join(path)).unwrap()
}

/// A crate of its own in a temporary folder, without dependencies.
fn crate_of(manifest: &str, source: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("src")).unwrap();
    let head = "[package]\nname = \"guest\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n";
    std::fs::write(folder.path().join("Cargo.toml"), format!("{head}{manifest}")).unwrap();
    std::fs::write(folder.path().join("src/lib.rs"), source).unwrap();
    folder
}

/// Builds a crate in its own folder, whatever target folder the tests themselves have.
fn build(folder: &tempfile::TempDir) -> BuildError {
    let options = BuildOptions { target_dir: Some(folder.path().join("target")), ..BuildOptions::default() };
    build_component(folder.path(), &options).unwrap_err()
}

/// The names that the outermost component imports and exports.
fn interfaces(component: &[u8]) -> (Vec<String>, Vec<String>) {
    let (mut imports, mut exports, mut depth) = (Vec::new(), Vec::new(), 0);
    for payload in Parser::new(0).parse_all(component) {
        match payload.unwrap() {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            Payload::ComponentImportSection(section) if depth == 0 => {
                imports.extend(section.into_iter().map(|import| import.unwrap().name.name.to_owned()));
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                exports.extend(section.into_iter().map(|export| export.unwrap().name.name.to_owned()));
            }
            _ => {}
        }
    }
    imports.sort();
    (imports, exports)
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn the_kv_example_becomes_a_component_of_the_contract_and_nothing_else() {
    let built = build_component(&repository().join("sdk/examples/kv"), &BuildOptions::default()).unwrap();
    let (imports, exports) = interfaces(&built.bytes);
    let contract = ["diagnostics", "effects", "kv-write", "kv", "types"]
        .map(|name| format!("quorate:machine/{name}@0.1.0"));
    assert_eq!(imports, contract);
    assert_eq!(exports, ["quorate:machine/machine@0.1.0"]);
    check_imports(&built.bytes).unwrap();
    assert_eq!(std::fs::read(&built.path).unwrap(), built.bytes);
    for folder in [repository(), std::env::home_dir().unwrap().join(".cargo")] {
        assert!(
            !contains(&built.bytes, folder.to_str().unwrap()),
            "{} is in the component",
            folder.display()
        );
    }
    assert!(built.bytes.len() < 400 << 10, "{} bytes", built.bytes.len());
}

#[test]
fn a_component_that_imports_wasi_is_refused_by_name_and_told_what_to_use() {
    let refused = check_imports(&text("tests/guests/wasi-clock/wasi-clock.wat")).unwrap_err().to_string();
    assert_eq!(refused, "wasi:clocks/wall-clock@0.2.6: a state machine has no clock; use ctx.time()");
}

#[test]
fn a_module_that_imports_more_than_the_contract_is_refused_with_all_of_it() {
    let refused = componentize(&text("tests/guests/wasi-clock/core-wasi.wat")).unwrap_err().to_string();
    assert!(
        refused.contains("wasi_snapshot_preview1.clock_time_get: a state machine has no clock"),
        "{refused}"
    );
    assert!(refused.contains("env.strlen: a symbol was left undefined"), "{refused}");
}

#[test]
fn another_version_of_the_contract_is_refused() {
    for import in ["quorate:machine/kv@0.2.0", "quorate:machine/files@0.1.0", "quorate:machinery/kv@0.1.0"] {
        let component = wat::parse_str(format!("(component (import \"{import}\" (instance)))")).unwrap();
        assert!(check_imports(&component).unwrap_err().to_string().starts_with(import), "{import}");
    }
    let component = wat::parse_str("(component (import \"quorate:machine/kv@0.1.0\" (instance)))").unwrap();
    check_imports(&component).unwrap();
}

#[test]
fn what_an_inner_component_imports_is_its_own_affair() {
    let component = wat::parse_str("(component (component (import \"wasi:x/y\" (instance))))").unwrap();
    check_imports(&component).unwrap();
}

#[test]
fn what_is_no_component_is_told_apart() {
    assert!(matches!(check_imports(b"\0asm\x01\0\0\0"), Err(BuildError::NotAComponent)));
    for garbage in [&b""[..], b"\0as", b"not wasm at all", b"\0asm\x0d\0\x01\0\xff\xff\xff"] {
        assert!(matches!(check_imports(garbage), Err(BuildError::NotWasm(_))), "{garbage:?}");
        assert!(componentize(garbage).is_err(), "{garbage:?}");
    }
    let component = wat::parse_str("(component)").unwrap();
    assert!(matches!(componentize(&component), Err(BuildError::Contract(_))));
    let module = wat::parse_str("(module)").unwrap();
    let refused = componentize(&module).unwrap_err();
    assert!(matches!(refused, BuildError::NoMachine | BuildError::Contract(_)), "{refused}");
}

#[test]
fn a_folder_without_a_crate_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(build(&folder), BuildError::NotACrate { .. }));
    let workspace = build_component(&repository(), &BuildOptions::default()).unwrap_err();
    assert!(workspace.to_string().contains("no [package]"), "{workspace}");
}

#[test]
fn a_crate_that_does_not_compile_is_refused_with_the_compilers_words() {
    let folder = crate_of("[lib]\ncrate-type = [\"cdylib\"]\n", "fn broken( {}");
    let refused = build(&folder);
    assert!(matches!(&refused, BuildError::Compile { output, .. } if output.contains("broken")), "{refused}");
}

#[test]
fn a_crate_that_makes_no_module_or_no_machine_is_told_which_line_is_missing() {
    let plain = build(&crate_of("", "pub fn nothing() {}"));
    assert!(plain.to_string().contains("crate-type = [\"cdylib\", \"rlib\"]"), "{plain}");
    let no_machine = build(&crate_of("[lib]\ncrate-type = [\"cdylib\"]\n", "pub fn nothing() {}"));
    assert!(matches!(no_machine, BuildError::NoMachine), "{no_machine}");
    assert!(no_machine.to_string().contains("quorate_sdk::export!"), "{no_machine}");
}
