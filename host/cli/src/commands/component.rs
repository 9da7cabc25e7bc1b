//! `quorate component` and `quorate deploy`.
//!
//! Relies on the builder and the runtime for what needs no cluster, and on the client library for the
//! rest. Promises that `check` refuses what a node would refuse, and names the reason. Knows nothing of
//! what components do.

use std::path::Path;

use anyhow::{Context as _, Result};
use quorate_build::{BuildOptions, CargoOutput};
use quorate_client::proto::ComponentDescriptor;
use quorate_client::value;
use quorate_runtime::{Engine, EngineSettings};
use serde_json::{Value, json};
use wasmparser::{Parser, Payload};

use crate::arguments::{ComponentCommand, DeployArguments};
use crate::exit::{Fault, Kind};
use crate::output::{Output, pairs, table};
use crate::threads::on_one_thread;
use crate::{connection, setup};

/// Runs the command.
pub fn run(command: ComponentCommand, output: Output) -> Result<()> {
    match command {
        ComponentCommand::Build { dir, out, verbose } => build(&dir, out.as_deref(), verbose, output),
        ComponentCommand::Check { file } => check(&file, output),
        ComponentCommand::Push { file, connection } => on_one_thread(async {
            let client = connection::connect(&connection).await?;
            let pushed = setup::push(&client, &file).await?;
            let descriptor = pushed.component.context("the node did not say what it published")?;
            let mut value = describe(&descriptor);
            value["known"] = pushed.known.into();
            output.show(&value, || {
                let known = if pushed.known { "was published already" } else { "is published" };
                format!("{} {known}\n{}", label(&descriptor), digest(&descriptor))
            })
        }),
        ComponentCommand::List { connection } => on_one_thread(async {
            let components = connection::connect(&connection).await?.admin().list_components().await?;
            let value: Vec<_> = components.iter().map(describe).collect();
            let rows = components.iter().map(|found| {
                [label(found), found.schema_version.to_string(), found.size_bytes.to_string(), digest(found)]
            });
            output.show(&Value::from(value), || table(&["component", "schema", "bytes", "digest"], rows))
        }),
    }
}

/// Runs `quorate deploy`.
pub async fn deploy(arguments: DeployArguments, output: Output) -> Result<()> {
    let parameters = match &arguments.parameters {
        Some(text) => value::json_to_cbor(&super::call::json(text)?)?,
        None => bytes::Bytes::new(),
    };
    let client = connection::connect(&arguments.connection).await?;
    let deployed = setup::deploy(&client, &arguments.group, &arguments.component, parameters).await?;
    let component = deployed.component.unwrap_or_default();
    let value = json!({
        "group": arguments.group, "index": deployed.index, "name": component.name,
        "version": component.version, "digest": setup::digest_text(&component),
    });
    output.show(&value, || {
        let (name, version) = (&component.name, &component.version);
        format!("{name}@{version} is active in {} from index {}", arguments.group, deployed.index)
    })
}

fn build(directory: &Path, out: Option<&Path>, verbose: bool, output: Output) -> Result<()> {
    let cargo_output = if verbose { CargoOutput::Shown } else { CargoOutput::Captured };
    let options = BuildOptions { output: cargo_output, ..BuildOptions::default() };
    let built = quorate_build::build_component(directory, &options)?;
    let path = match out {
        Some(path) => {
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)
                    .with_context(|| format!("cannot make {}", parent.display()))?;
            }
            std::fs::write(path, &built.bytes).with_context(|| format!("cannot write {}", path.display()))?;
            path.to_owned()
        }
        None => built.path,
    };
    let value = json!({ "path": path, "bytes": built.bytes.len() });
    output.show(&value, || format!("{} ({} bytes)", path.display(), built.bytes.len()))
}

/// Checks a component without a cluster, with the checks of a node.
fn check(file: &Path, output: Output) -> Result<()> {
    let bytes = setup::read_component(file)?;
    let refused = |reason: String| Fault::of(Kind::Rejected, format!("{}: {reason}", file.display()));
    // Names every foreign import at once and what to use instead; the engine stops at the first.
    quorate_build::check_imports(&bytes).map_err(|error| refused(error.to_string()))?;
    let engine = Engine::new(EngineSettings::default())?;
    let component = engine.compile(&bytes).map_err(|error| refused(error.to_string()))?;
    let (imports, exports) = interfaces(&bytes);
    let found = component.descriptor();
    let schema: Value = serde_json::from_str(&found.schema).unwrap_or_default();
    let value = json!({
        "accepted": true, "digest": component.digest().to_string(), "name": found.name,
        "version": found.version, "schema_version": found.schema_version,
        "migrates_from": found.migrates_from, "critical": found.critical, "schema": schema,
        "imports": imports, "exports": exports, "bytes": bytes.len(),
    });
    output.show(&value, || {
        pairs(&[
            ("component", format!("{}@{}", found.name, found.version)),
            ("digest", component.digest().to_string()),
            ("bytes", bytes.len().to_string()),
            ("world", found.world.to_string()),
            ("imports", imports.join(", ")),
            ("exports", exports.join(", ")),
            ("commands", names(&schema, "commands")),
            ("queries", names(&schema, "queries")),
            ("events", names(&schema, "events")),
        ])
    })
}

/// What a component imports and exports, itself and not what is nested in it.
fn interfaces(bytes: &[u8]) -> (Vec<String>, Vec<String>) {
    let (mut imports, mut exports) = (Vec::new(), Vec::new());
    let mut depth = 0_u32;
    // The compiler has accepted the bytes, so they can be read to their end.
    for payload in Parser::new(0).parse_all(bytes).map_while(Result::ok) {
        match payload {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                imports.extend(section.into_iter().flatten().map(|import| import.name.name.to_owned()));
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                exports.extend(section.into_iter().flatten().map(|export| export.name.name.to_owned()));
            }
            _ => {}
        }
    }
    (imports, exports)
}

/// The names that a schema lists under a key.
fn names(schema: &Value, key: &str) -> String {
    let of_array = |items: &Vec<Value>| {
        let name = |item: &Value| item.as_str().or_else(|| item.get("name")?.as_str()).map(str::to_owned);
        items.iter().filter_map(name).collect()
    };
    let names: Vec<String> = match schema.get(key) {
        Some(Value::Object(fields)) => fields.keys().cloned().collect(),
        Some(Value::Array(items)) => of_array(items),
        _ => Vec::new(),
    };
    names.join(", ")
}

fn label(descriptor: &ComponentDescriptor) -> String {
    let component = descriptor.component.clone().unwrap_or_default();
    format!("{}@{}", component.name, component.version)
}

fn digest(descriptor: &ComponentDescriptor) -> String {
    descriptor.component.as_ref().map(setup::digest_text).unwrap_or_default()
}

fn describe(descriptor: &ComponentDescriptor) -> Value {
    let component = descriptor.component.clone().unwrap_or_default();
    json!({
        "name": component.name, "version": component.version, "digest": setup::digest_text(&component),
        "schema_version": descriptor.schema_version, "migrates_from": descriptor.migrates_from,
        "critical": descriptor.critical, "bytes": descriptor.size_bytes,
        "schema": serde_json::from_str::<Value>(&descriptor.schema).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::arguments::Format;
    use crate::exit::kind;

    #[test]
    fn names_are_found_in_either_form_of_schema() {
        assert_eq!(names(&json!({ "commands": { "put": {}, "del": {} } }), "commands"), "del, put");
        assert_eq!(names(&json!({ "commands": [{ "name": "put" }, "del"] }), "commands"), "put, del");
        assert_eq!(names(&json!({}), "commands"), "");
    }

    #[test]
    fn what_is_no_component_is_rejected_and_a_missing_file_is_wrong_usage() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("odd.wasm");
        let output = Output::new(Format::Json);
        assert_eq!(kind(&check(&file, output).unwrap_err()), Kind::Usage);
        std::fs::write(&file, b"no wasm at all").unwrap();
        assert_eq!(kind(&check(&file, output).unwrap_err()), Kind::Rejected);
    }
}
