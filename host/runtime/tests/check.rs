//! What may be deployed and what may not, and whether the refusal says why.
//!
//! What could go wrong: a component that can reach the outside passes, or its author is told nothing.

#![allow(clippy::unwrap_used, missing_docs)]

mod guest;

use std::time::Duration;

use guest::{CONTRACT, MACHINE, encode, engine, machine};
use quorate_runtime::{COMPONENT_BYTES_MAX, CheckError, Engine, EngineSettings, RuntimeError, World};

fn refused(bytes: &[u8]) -> CheckError {
    match engine().compile(bytes) {
        Err(error) => error,
        Ok(component) => panic!("{component:?} was accepted"),
    }
}

#[test]
fn a_component_of_the_contract_is_accepted_and_described() {
    let bytes = machine();
    let component = engine().compile(&bytes).unwrap();
    assert_eq!(component.digest(), quorate_crypto::component_digest(&bytes));
    let descriptor = component.descriptor();
    assert_eq!((descriptor.name.as_str(), descriptor.version.as_str()), ("test-guest", "1.2.3"));
    assert_eq!((descriptor.schema_version, &descriptor.migrates_from[..]), (2, &[1, 3, 4][..]));
    assert_eq!(descriptor.critical, ["raise"]);
    assert_eq!(descriptor.world, World::StateMachine);
}

#[test]
fn a_mergeable_component_names_its_world() {
    let merge = r#"(func (export "quorate:machine/mergeable@0.1.0#merge")
        (param i32 i32 i32 i32 i32 i32) (result i32)
        unreachable)"#;
    let module = MACHINE.replace("(;MORE-EXPORTS;)", merge);
    let component = engine().compile(&encode(&module, CONTRACT, "mergeable-state-machine")).unwrap();
    assert_eq!(component.descriptor().world, World::MergeableStateMachine);
}

#[test]
fn an_import_from_outside_is_named() {
    let bytes = wat::parse_str(r#"(component (import "wasi:clocks/wall-clock@0.2.6" (instance)))"#).unwrap();
    let error = refused(&bytes);
    assert!(
        matches!(&error, CheckError::ForeignImport { import } if import == "wasi:clocks/wall-clock@0.2.6")
    );
    assert!(error.to_string().contains("build for wasm32-unknown-unknown"));
}

#[test]
fn another_version_of_the_contract_is_named() {
    let other = |text: &str| text.replace("0.1.0", "0.2.0");
    let error = refused(&encode(&other(MACHINE), &other(CONTRACT), "state-machine"));
    assert!(matches!(&error, CheckError::UnknownImport { import } if import.ends_with("@0.2.0")), "{error}");
}

#[test]
fn a_component_that_is_no_state_machine_is_told_so() {
    let error = refused(&wat::parse_str("(component)").unwrap());
    assert!(
        matches!(&error, CheckError::MissingExport { export } if export == "quorate:machine/machine@0.1.0")
    );
    let odd =
        wat::parse_str(r#"(component (instance $i) (export "wasi:cli/run@0.2.6" (instance $i)))"#).unwrap();
    assert!(matches!(refused(&odd), CheckError::ForeignExport { export } if export == "wasi:cli/run@0.2.6"));
    let empty = r#"(component (instance $i) (export "quorate:machine/machine@0.1.0" (instance $i)))"#;
    let error = refused(&wat::parse_str(empty).unwrap());
    assert!(
        matches!(&error, CheckError::MissingExport { export } if export.ends_with("#describe")),
        "{error}"
    );
}

#[test]
fn a_function_of_another_type_is_named() {
    let contract = CONTRACT.replace(
        "    /// Commands that run only under a Byzantine protocol.\n    critical: list<string>,\n",
        "",
    );
    assert_ne!(contract, CONTRACT, "the contract must still have what this test takes out");
    let error = refused(&encode(MACHINE, &contract, "state-machine"));
    assert!(
        matches!(&error, CheckError::WrongType { item, .. } if item.ends_with("machine#describe")),
        "{error}"
    );
    let contract = CONTRACT.replace("cancel-timer: func(id: string)", "cancel-timer: func(id: list<u8>)");
    assert_ne!(contract, CONTRACT);
    let error = refused(&encode(MACHINE, &contract, "state-machine"));
    assert!(matches!(&error, CheckError::WrongType { reason, .. } if reason.contains("effects")), "{error}");
}

#[test]
fn a_core_module_and_garbage_are_told_apart() {
    assert!(matches!(refused(&wat::parse_str("(module)").unwrap()), CheckError::CoreModule));
    assert!(matches!(refused(b"not wasm"), CheckError::NotWasm));
    assert!(matches!(refused(b""), CheckError::NotWasm));
    assert!(matches!(refused(b"\0asm\xff\xff\xff\xff"), CheckError::Malformed { .. }));
}

#[test]
fn damaged_bytes_never_panic() {
    let engine = engine();
    let good = machine();
    for at in (0..good.len()).step_by(97) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x55;
        // Many of these are still components; none may do more than be refused.
        engine.compile(&bytes).ok();
        assert!(engine.compile(&good[..at]).is_err(), "cut at {at}");
    }
}

#[test]
fn what_is_too_large_or_too_complex_is_refused_before_it_is_compiled() {
    let huge = vec![0; COMPONENT_BYTES_MAX + 1];
    assert!(matches!(refused(&huge), CheckError::TooLarge { .. }));
    let types = format!("(component (core module {}))", "(type (func))".repeat(20_001));
    assert!(matches!(refused(&wat::parse_str(types).unwrap()), CheckError::TooComplex { what: "types", .. }));
    let body = format!("(component (core module (func {})))", "i32.const 100000 drop ".repeat(250_000));
    let error = refused(&wat::parse_str(body).unwrap());
    assert!(matches!(error, CheckError::TooComplex { what: "bytes in one function", .. }), "{error}");
    let nested = (0..5).fold(String::new(), |inner, _| format!("(component {inner})"));
    let error = refused(&wat::parse_str(format!("(component {nested})")).unwrap());
    assert!(matches!(error, CheckError::TooComplex { what: "levels of nesting", .. }), "{error}");
}

#[test]
fn describe_may_neither_read_nor_run_forever_nor_lie() {
    let with = |code: &str| {
        refused(&encode(&MACHINE.replace("(;BEFORE-DESCRIBE;)", code), CONTRACT, "state-machine"))
    };
    let reads = with("(call $get (i32.const 0) (i32.const 0) (i32.const 4096))");
    assert!(matches!(reads, CheckError::Describe { name: "trapped", .. }), "{reads}");
    let runs = with("(loop $forever (br $forever))");
    assert!(matches!(runs, CheckError::Describe { name: "out-of-fuel", .. }), "{runs}");
    let lies = with("(i32.store8 (i32.const 1024) (i32.const 84))");
    assert!(matches!(lies, CheckError::Descriptor { field: "name", .. }), "{lies}");
}

#[test]
fn a_compilation_over_its_time_is_given_up_and_no_other_joins_it() {
    let settings = EngineSettings { compile_limit: Duration::ZERO, ..EngineSettings::default() };
    let engine = Engine::new(settings).unwrap();
    let bytes = machine();
    let limit = Duration::ZERO;
    assert!(matches!(engine.compile(&bytes), Err(CheckError::TooSlow { limit: found }) if found == limit));
    // The first one ends at some time; until then a second does not start.
    let second = engine.compile(&bytes);
    assert!(matches!(second, Err(CheckError::Busy | CheckError::TooSlow { .. })), "{second:?}");
}

#[test]
fn settings_out_of_range_are_named() {
    let settings = EngineSettings { instances: 1, ..EngineSettings::default() };
    let error = Engine::new(settings).unwrap_err();
    assert!(matches!(error, RuntimeError::Setting { name: "instances", value: 1, least: 2, .. }));
}
