//! Definitions as they are stored.

#![allow(clippy::unwrap_used)]

use super::*;

const TEXT: &str = "document: {dsl: 1.0.0, namespace: t, name: n, version: 1.0.0}\n\
                    do: [{a: {for: {in: .l}, do: [{b: {set: {x: '${ $item | map(. + 1) }'}}}]}}]";

#[test]
fn the_stored_form_survives_its_encoding() {
    let definition = read(TEXT).unwrap();
    for task in &definition.tasks {
        let bytes = quorate_sdk::cbor::to_vec(task).unwrap();
        let again: Task = quorate_sdk::cbor::from_slice(&bytes).unwrap();
        assert_eq!(quorate_sdk::cbor::to_vec(&again).unwrap(), bytes);
    }
}

#[test]
fn all_faults_are_told_at_once() {
    let faults = read("document: {dsl: 1.0.0, namespace: t, name: n}\ndo: [{a: {wait: x}}, {b: {set: 1}}]")
        .unwrap_err();
    let places: Vec<&str> = faults.iter().map(|fault| fault.at.as_str()).collect();
    assert_eq!(places, ["/document", "/do/0/a/wait", "/do/1/b/set"]);
}

#[test]
fn yaml_and_json_make_the_same_definition() {
    let yaml = read(TEXT).unwrap();
    let json = read(&yaml.document.to_json()).unwrap();
    assert_eq!(json.document, yaml.document);
    assert_eq!(json.tasks.len(), yaml.tasks.len());
}

#[test]
fn definitions_are_bounded() {
    let mut deep = String::from("set: {}");
    for _ in 0..20 {
        deep = format!("do: [{{a: {{{deep}}}}}]");
    }
    let head = "document: {dsl: 1.0.0, namespace: t, name: n, version: 1.0.0}\n";
    assert!(read(&format!("{head}{deep}")).unwrap_err()[0].problem.contains("nest deeper"));
    let many: Vec<String> = (0..1_100).map(|at| format!("{{t{at}: {{set: {{}}}}}}")).collect();
    let faults = read(&format!("{head}do: [{}]", many.join(","))).unwrap_err();
    assert!(faults[0].problem.contains("more than 1000 tasks") && faults.len() <= 50);
}
