//! Looks at a component's bytes before they are compiled: its size, its shape and its world.
//!
//! Relies on `wasmparser` to walk sections without believing them. Promises that what passes is small
//! enough to compile and imports nothing but our package. Does not validate: the compiler does.

use wasmparser::{ComponentExternalKind, Encoding, Parser, Payload};

use crate::error::CheckError;
use crate::host::{IMPORTS, PACKAGE, VERSION};

/// The most bytes a component may have.
pub const COMPONENT_BYTES_MAX: usize = 16 << 20;
/// Functions in all modules together.
const FUNCTIONS_MAX: u64 = 100_000;
/// Bytes of one function: compiling takes more than proportional time.
const FUNCTION_BYTES_MAX: u64 = 1 << 20;
/// Imports of one module or component, and its exports.
const NAMES_MAX: u64 = 1_000;
/// Core modules and components inside the component.
const PARTS_MAX: u64 = 64;
/// How deep parts may lie inside parts.
const NESTING_MAX: u64 = 4;
/// Types, of which a few bytes can describe many.
const TYPES_MAX: u64 = 20_000;
/// Elements and data segments of all modules together.
const SEGMENTS_MAX: u64 = 20_000;

/// The world that a component says it is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum World {
    /// `state-machine`.
    StateMachine,
    /// `mergeable-state-machine`: values can be merged after a partition.
    MergeableStateMachine,
}

impl std::fmt::Display for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::StateMachine => "state-machine",
            Self::MergeableStateMachine => "mergeable-state-machine",
        })
    }
}

/// What the walk found.
#[derive(Debug, Default)]
struct Outline {
    depth: u64,
    parts: u64,
    functions: u64,
    types: u64,
    segments: u64,
    imports: Vec<String>,
    exports: Vec<String>,
}

/// Checks the bytes of a component without compiling them.
///
/// # Errors
///
/// [`CheckError`] for the first thing that is wrong.
pub(crate) fn check_shape(bytes: &[u8]) -> Result<World, CheckError> {
    if bytes.len() > COMPONENT_BYTES_MAX {
        return Err(CheckError::TooLarge { found: bytes.len() as u64, bound: COMPONENT_BYTES_MAX as u64 });
    }
    if !bytes.starts_with(b"\0asm") {
        return Err(CheckError::NotWasm);
    }
    let mut outline = Outline::default();
    for payload in Parser::new(0).parse_all(bytes) {
        outline.take(payload.map_err(malformed)?)?;
    }
    check_imports(&outline.imports)?;
    world_of(&outline.exports)
}

fn malformed(error: wasmparser::BinaryReaderError) -> CheckError {
    CheckError::Malformed { reason: error.to_string() }
}

fn bounded(what: &'static str, found: u64, bound: u64) -> Result<(), CheckError> {
    if found > bound { Err(CheckError::TooComplex { what, found, bound }) } else { Ok(()) }
}

impl Outline {
    fn take(&mut self, payload: Payload<'_>) -> Result<(), CheckError> {
        match payload {
            Payload::Version { encoding: Encoding::Module, .. } if self.depth == 0 => {
                Err(CheckError::CoreModule)
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => {
                self.depth += 1;
                self.parts += 1;
                bounded("levels of nesting", self.depth, NESTING_MAX)?;
                bounded("modules and components inside it", self.parts, PARTS_MAX)
            }
            Payload::End(_) => {
                self.depth = self.depth.saturating_sub(1);
                Ok(())
            }
            Payload::TypeSection(types) => self.take_types(types.count()),
            Payload::CoreTypeSection(types) => self.take_types(types.count()),
            Payload::ComponentTypeSection(types) => self.take_types(types.count()),
            Payload::FunctionSection(functions) => {
                self.functions += u64::from(functions.count());
                bounded("functions", self.functions, FUNCTIONS_MAX)
            }
            Payload::CodeSectionEntry(body) => {
                let range = body.range();
                bounded("bytes in one function", range.end - range.start, FUNCTION_BYTES_MAX)
            }
            Payload::ElementSection(section) => self.take_segments(section.count()),
            Payload::DataSection(section) => self.take_segments(section.count()),
            Payload::ImportSection(section) => {
                bounded("imports of one module", section.count().into(), NAMES_MAX)
            }
            Payload::ExportSection(section) => {
                bounded("exports of one module", section.count().into(), NAMES_MAX)
            }
            Payload::ComponentImportSection(section) => {
                bounded("imports", section.count().into(), NAMES_MAX)?;
                if self.depth > 0 {
                    return Ok(());
                }
                for import in section {
                    self.imports.push(import.map_err(malformed)?.name.name.to_owned());
                }
                Ok(())
            }
            Payload::ComponentExportSection(section) => {
                bounded("exports", section.count().into(), NAMES_MAX)?;
                if self.depth > 0 {
                    return Ok(());
                }
                for export in section {
                    let export = export.map_err(malformed)?;
                    if export.kind != ComponentExternalKind::Type {
                        self.exports.push(export.name.name.to_owned());
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn take_types(&mut self, count: u32) -> Result<(), CheckError> {
        self.types += u64::from(count);
        bounded("types", self.types, TYPES_MAX)
    }

    fn take_segments(&mut self, count: u32) -> Result<(), CheckError> {
        self.segments += u64::from(count);
        bounded("element and data segments", self.segments, SEGMENTS_MAX)
    }
}

fn check_imports(imports: &[String]) -> Result<(), CheckError> {
    for import in imports {
        let Some(rest) = import.strip_prefix(PACKAGE) else {
            return Err(CheckError::ForeignImport { import: import.clone() });
        };
        if !rest.strip_suffix(VERSION).is_some_and(|interface| IMPORTS.contains(&interface)) {
            return Err(CheckError::UnknownImport { import: import.clone() });
        }
    }
    Ok(())
}

fn world_of(exports: &[String]) -> Result<World, CheckError> {
    let machine = format!("{PACKAGE}machine{VERSION}");
    let mergeable = format!("{PACKAGE}mergeable{VERSION}");
    if let Some(export) = exports.iter().find(|&export| *export != machine && *export != mergeable) {
        return Err(CheckError::ForeignExport { export: export.clone() });
    }
    if !exports.contains(&machine) {
        return Err(CheckError::MissingExport { export: machine });
    }
    Ok(if exports.contains(&mergeable) { World::MergeableStateMachine } else { World::StateMachine })
}
