//! Core module in, component out.
//!
//! Relies on wit-component, which reads the contract's types from a section that the SDK left in the
//! module. Promises a valid component that exports a state machine. Knows no cargo.

use wasmparser::{Parser, Payload};
use wit_component::ComponentEncoder;

use crate::imports::{check_core_imports, check_imports};
use crate::{BuildError, CONTRACT_PACKAGE, CONTRACT_VERSION};

/// Makes a component of a core module that was built with the SDK.
///
/// # Errors
///
/// When the module imports anything outside the contract, exports no state machine, or is damaged.
pub fn componentize(core_module: &[u8]) -> Result<Vec<u8>, BuildError> {
    if Parser::is_component(core_module) {
        return Err(BuildError::Contract("it is a component already".into()));
    }
    // Asked before encoding, which would refuse too, but without saying what to do instead.
    check_core_imports(core_module)?;
    let component = ComponentEncoder::default()
        .validate(true)
        .module(core_module)
        .map_err(misfit)?
        .encode()
        .map_err(misfit)?;
    check_imports(&component)?;
    if exports_machine(&component)? { Ok(component) } else { Err(BuildError::NoMachine) }
}

/// What wit-component says, with all its causes.
fn misfit(error: impl std::fmt::Display) -> BuildError {
    BuildError::Contract(format!("{error:#}"))
}

/// Whether the outermost component exports the machine interface.
fn exports_machine(component: &[u8]) -> Result<bool, BuildError> {
    let wanted = format!("{CONTRACT_PACKAGE}/machine@{CONTRACT_VERSION}");
    let mut depth = 0;
    for payload in Parser::new(0).parse_all(component) {
        match payload.map_err(|error| BuildError::NotWasm(error.to_string()))? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    let export = export.map_err(|error| BuildError::NotWasm(error.to_string()))?;
                    if export.name.name == wanted {
                        return Ok(true);
                    }
                }
            }
            _ => {}
        }
    }
    Ok(false)
}
