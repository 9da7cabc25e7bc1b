//! `quorate config`: what a node would run with.
//!
//! Relies on the node's configuration. Promises the same result as `quorate node run` with the same
//! arguments. Starts nothing.

use anyhow::Result;
use quorate_node::NodeConfig;
use serde_json::{Map, Value, json};

use crate::arguments::{ConfigArguments, ConfigCommand};
use crate::exit::Fault;
use crate::output::{Output, table};

/// Runs the command.
pub fn run(command: ConfigCommand, output: Output) -> Result<()> {
    match command {
        ConfigCommand::Explain(arguments) => {
            let explained = NodeConfig::explain(arguments.config.as_deref(), flags(&arguments)?)?;
            let rows =
                explained.iter().map(|line| [line.key.clone(), line.value.clone(), line.source.clone()]);
            output.show(&serde_json::to_value(&explained)?, || table(&["key", "value", "source"], rows))
        }
        ConfigCommand::Check(arguments) => {
            let config = load(&arguments)?;
            let genesis = config.genesis()?.to_string();
            let value = json!({ "valid": true, "node": config.node.id, "genesis": genesis });
            output.show(&value, || format!("the configuration of node {} is valid", config.node.id))
        }
    }
}

/// The configuration that these arguments lead to.
pub fn load(arguments: &ConfigArguments) -> Result<NodeConfig> {
    Ok(NodeConfig::load(arguments.config.as_deref(), flags(arguments)?)?)
}

/// What the flags set, with the keys of the configuration.
fn flags(arguments: &ConfigArguments) -> Result<Value> {
    let mut sections = Map::new();
    for setting in &arguments.set {
        let (key, value) = setting.split_once('=').ok_or_else(|| {
            Fault::usage(format!("--set {setting:?}: write KEY=VALUE, such as raft.heartbeat_ms=50"))
        })?;
        // What is not a JSON value is a text: `--set node.data=/var/lib/quorate` needs no quotes.
        set(&mut sections, key, serde_json::from_str(value).unwrap_or_else(|_| Value::from(value)))?;
    }
    if let Some(id) = arguments.id {
        set(&mut sections, "node.id", Value::from(id))?;
    }
    if let Some(data) = &arguments.data {
        set(&mut sections, "node.data", serde_json::to_value(data)?)?;
    }
    if let Some(address) = &arguments.listen_api {
        set(&mut sections, "listen.api", Value::from(address.as_str()))?;
    }
    if let Some(address) = &arguments.listen_peer {
        set(&mut sections, "listen.peer", Value::from(address.as_str()))?;
    }
    Ok(Value::Object(sections))
}

fn set(sections: &mut Map<String, Value>, key: &str, value: Value) -> Result<()> {
    let unknown = || Fault::usage(format!("{key:?} is no key; `quorate config explain` lists them all"));
    let (section, name) = key.split_once('.').ok_or_else(unknown)?;
    let section = sections.entry(section).or_insert_with(|| json!({}));
    section.as_object_mut().ok_or_else(unknown)?.insert(name.to_owned(), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::exit::{Kind, kind};

    #[test]
    fn flags_become_nested_keys_and_named_flags_win() {
        let arguments = ConfigArguments {
            id: Some(2),
            set: vec!["raft.heartbeat_ms=50".into(), "node.id=1".into(), "node.data=/x".into()],
            ..ConfigArguments::default()
        };
        let expected = json!({ "raft": { "heartbeat_ms": 50 }, "node": { "id": 2, "data": "/x" } });
        assert_eq!(flags(&arguments).unwrap(), expected);
    }

    #[test]
    fn a_setting_without_key_or_value_is_wrong_usage() {
        for setting in ["raft", "heartbeat=5"] {
            let arguments = ConfigArguments { set: vec![setting.into()], ..ConfigArguments::default() };
            assert_eq!(kind(&flags(&arguments).unwrap_err()), Kind::Usage, "{setting}");
        }
    }

    #[test]
    fn an_unknown_key_is_wrong_usage_and_named() {
        let arguments = ConfigArguments { set: vec!["raft.beat=5".into()], ..ConfigArguments::default() };
        let error = load(&arguments).unwrap_err();
        assert_eq!(kind(&error), Kind::Usage);
        assert!(error.to_string().contains("beat"), "{error}");
    }
}
