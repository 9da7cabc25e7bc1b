//! What a component says of itself, checked.
//!
//! Relies on nothing that the component says. Promises that every text is bounded and of its form. Knows
//! no engine.

use quorate_types::COMMAND_NAME_BYTES_MAX;

use crate::abi::DescriptorAbi;
use crate::check::World;
use crate::error::CheckError;

const NAME_BYTES_MAX: usize = 64;
const VERSION_BYTES_MAX: usize = 32;
const MIGRATES_FROM_MAX: usize = 256;
const CRITICAL_MAX: usize = 1_024;
const SCHEMA_BYTES_MAX: usize = 256 << 10;

/// What a component says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Its name, in kebab-case; at most 64 bytes.
    pub name: String,
    /// Its version, as `major.minor.patch`.
    pub version: String,
    /// The version of its state's layout. From 1.
    pub schema_version: u32,
    /// Layout versions that its `migrate` can start from, ascending.
    pub migrates_from: Vec<u32>,
    /// Commands that run only under a Byzantine protocol.
    pub critical: Vec<String>,
    /// A JSON object that lists commands, queries and events; at most 256 KiB.
    pub schema: String,
    /// Which world it is built for.
    pub world: World,
}

impl Descriptor {
    pub(crate) fn checked(said: DescriptorAbi, world: World) -> Result<Self, CheckError> {
        let DescriptorAbi { name, version, schema_version, mut migrates_from, critical, schema } = said;
        require("name", is_kebab(&name), || {
            format!("{} is not kebab-case of at most 64 bytes", quoted(&name))
        })?;
        require("version", is_version(&version), || {
            format!("{} is not major.minor.patch", quoted(&version))
        })?;
        require("schema-version", schema_version >= 1, || "layouts are numbered from 1".to_owned())?;
        require("migrates-from", migrates_from.len() <= MIGRATES_FROM_MAX, || {
            format!("{} versions are listed and {MIGRATES_FROM_MAX} may be", migrates_from.len())
        })?;
        require("critical", critical.len() <= CRITICAL_MAX, || {
            format!("{} commands are listed and {CRITICAL_MAX} may be", critical.len())
        })?;
        let misnamed = critical.iter().find(|name| name.is_empty() || name.len() > COMMAND_NAME_BYTES_MAX);
        require("critical", misnamed.is_none(), || {
            format!("a command's name has 1 to {COMMAND_NAME_BYTES_MAX} bytes")
        })?;
        require("schema", schema.len() <= SCHEMA_BYTES_MAX, || {
            format!("it has {} bytes and may have {SCHEMA_BYTES_MAX}", schema.len())
        })?;
        check_schema(&schema)?;
        migrates_from.sort_unstable();
        migrates_from.dedup();
        Ok(Self { name, version, schema_version, migrates_from, critical, schema, world })
    }
}

fn require(field: &'static str, holds: bool, reason: impl FnOnce() -> String) -> Result<(), CheckError> {
    if holds { Ok(()) } else { Err(CheckError::Descriptor { field, reason: reason() }) }
}

fn check_schema(schema: &str) -> Result<(), CheckError> {
    let value: Result<serde_json::Value, _> = serde_json::from_str(schema);
    let reason = match value {
        Ok(value) if value.is_object() => return Ok(()),
        Ok(_) => "it is not a JSON object; say {} if there is nothing to say".to_owned(),
        Err(error) => format!("it is not JSON: {error}"),
    };
    Err(CheckError::Descriptor { field: "schema", reason })
}

fn is_kebab(name: &str) -> bool {
    let is_word = |word: &str| {
        word.bytes().next().is_some_and(|first| first.is_ascii_lowercase())
            && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    name.len() <= NAME_BYTES_MAX && name.split('-').all(is_word)
}

fn is_version(version: &str) -> bool {
    let is_number = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_digit())
            && (part == "0" || !part.starts_with('0'))
    };
    version.len() <= VERSION_BYTES_MAX && version.split('.').count() == 3 && version.split('.').all(is_number)
}

/// The text in quotes, shortened for a message.
fn quoted(text: &str) -> String {
    format!("{:?}", &text[..text.floor_char_boundary(NAME_BYTES_MAX)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(name: &str, version: &str, schema: &str) -> Result<Descriptor, CheckError> {
        let said = DescriptorAbi {
            name: name.to_owned(),
            version: version.to_owned(),
            schema_version: 2,
            migrates_from: vec![2, 1, 1],
            critical: vec!["promote".to_owned()],
            schema: schema.to_owned(),
        };
        Descriptor::checked(said, World::StateMachine)
    }

    #[test]
    fn a_descriptor_of_the_right_form_is_taken() {
        assert!(matches!(said("key-value2", "0.10.3", "{}"), Ok(found) if found.migrates_from == [1, 2]));
    }

    #[test]
    fn each_bad_field_is_named() {
        let field = |result| match result {
            Err(CheckError::Descriptor { field, .. }) => field,
            _ => "none",
        };
        for name in ["", "Key", "a--b", "-a", "9a", "é", &"a".repeat(65)] {
            assert_eq!(field(said(name, "1.0.0", "{}")), "name", "{name}");
        }
        for version in ["", "1", "1.0", "1.0.0.0", "1.0.x", "01.0.0", "1..0"] {
            assert_eq!(field(said("a", version, "{}")), "version", "{version}");
        }
        for schema in ["", "[]", "{", "null"] {
            assert_eq!(field(said("a", "1.0.0", schema)), "schema", "{schema}");
        }
    }
}
