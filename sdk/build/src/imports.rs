//! What a component may import: the contract and nothing else.
//!
//! Relies on wasmparser. Promises to name every import outside the contract and to say what a state
//! machine uses instead. Knows nothing of what the contract's functions do.

use std::fmt;

use wasmparser::{Parser, Payload};

use crate::{BuildError, CONTRACT_PACKAGE, CONTRACT_VERSION};

/// An import that a state machine may not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its name, such as `wasi:clocks/wall-clock@0.2.6`.
    pub import: String,
    /// What to do instead.
    pub advice: &'static str,
}

impl fmt::Display for Refused {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.import, self.advice)
    }
}

/// Beginnings of well-known imports with what to do about them; the first that fits counts.
const ADVICE: &[(&str, &str)] = &[
    ("wasi:clocks", "a state machine has no clock; use ctx.time()"),
    ("wasi_snapshot_preview1.clock", "a state machine has no clock; use ctx.time()"),
    ("wasi:random", "a state machine has no randomness of its own; use ctx.random()"),
    ("wasi_snapshot_preview1.random", "a state machine has no randomness of its own; use ctx.random()"),
    ("wasi:filesystem", "a state machine has no files; keep state in a Map or Value"),
    ("wasi:sockets", "a state machine has no network; let a client fetch it and submit it as a command"),
    ("wasi:http", "a state machine has no network; let a client fetch it and submit it as a command"),
    ("wasi:cli/std", "a state machine has no standard streams; use ctx.log()"),
    ("wasi:", "a state machine has no WASI; build for wasm32-unknown-unknown with the SDK"),
    ("wasi_", "a state machine has no WASI; build for wasm32-unknown-unknown with the SDK"),
    (
        "__wbindgen",
        "a dependency is made for web browsers; turn off its `js`, `wasmbind` or `wasm-bindgen` feature",
    ),
    ("env", "a symbol was left undefined; a dependency needs a C library, which a state machine has not"),
];

/// The advice for everything else.
const ADVICE_ELSE: &str = "a state machine may import quorate:machine@0.1.0 only; remove what needs this";

fn refused(import: String) -> Refused {
    let known = ADVICE.iter().find(|(start, _)| import.starts_with(start));
    let advice = if import.starts_with(CONTRACT_PACKAGE) {
        "the contract has no such interface in version 0.1.0; build with the SDK of this version"
    } else {
        known.map_or(ADVICE_ELSE, |(_, advice)| *advice)
    };
    Refused { import, advice }
}

/// Whether a name is one of the contract's interfaces in its version.
fn is_contract(import: &str) -> bool {
    let interface = import.strip_prefix(CONTRACT_PACKAGE).and_then(|rest| rest.strip_prefix('/'));
    let parts = interface.and_then(|rest| rest.split_once('@'));
    parts.is_some_and(|(interface, version)| {
        version == CONTRACT_VERSION
            && matches!(interface, "types" | "kv" | "kv-write" | "effects" | "diagnostics")
    })
}

fn verdict(refusals: Vec<Refused>) -> Result<(), BuildError> {
    if refusals.is_empty() { Ok(()) } else { Err(BuildError::Imports(refusals)) }
}

/// Refuses a component that imports anything outside the contract, naming all of it.
///
/// # Errors
///
/// [`BuildError::Imports`], or [`BuildError::NotAComponent`] or [`BuildError::NotWasm`] when the bytes
/// are something else.
pub fn check_imports(component: &[u8]) -> Result<(), BuildError> {
    let mut refusals = Vec::new();
    // Only the outermost component's imports reach the host; nested ones are its own affair.
    let mut depth = 0;
    for payload in Parser::new(0).parse_all(component) {
        match payload.map_err(|error| BuildError::NotWasm(error.to_string()))? {
            Payload::Version { encoding: wasmparser::Encoding::Module, .. } if depth == 0 => {
                return Err(BuildError::NotAComponent);
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    let import = import.map_err(|error| BuildError::NotWasm(error.to_string()))?;
                    let name = import.name.name;
                    if !is_contract(name) {
                        refusals.push(refused(name.to_owned()));
                    }
                }
            }
            _ => {}
        }
    }
    verdict(refusals)
}

/// Refuses a core module that imports what the contract does not provide.
pub(crate) fn check_core_imports(module: &[u8]) -> Result<(), BuildError> {
    let mut refusals: Vec<Refused> = Vec::new();
    for payload in Parser::new(0).parse_all(module) {
        let Payload::ImportSection(section) =
            payload.map_err(|error| BuildError::NotWasm(error.to_string()))?
        else {
            continue;
        };
        for import in section.into_imports() {
            let import = import.map_err(|error| BuildError::NotWasm(error.to_string()))?;
            // Resources of the component's own come from `[export]..`; the root's built-ins from `$root`.
            let is_own = import.module.starts_with("[export]") || import.module == "$root";
            if is_own || is_contract(import.module) {
                continue;
            }
            // A component's interface says enough; in a flat module only the function does.
            let name = if import.module.contains(':') {
                import.module.to_owned()
            } else {
                format!("{}.{}", import.module, import.name)
            };
            if refusals.iter().all(|known| known.import != name) {
                refusals.push(refused(name));
            }
        }
    }
    verdict(refusals)
}
