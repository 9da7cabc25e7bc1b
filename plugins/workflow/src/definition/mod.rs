//! Definitions: from a text to what cases run by.
//!
//! Relies on expressions and values. Promises that a definition which was accepted reads for ever without
//! its text, and that one which was refused says everything that is wrong with it. Knows no case.

mod calls;
pub mod cron;
pub mod duration;
mod events;
pub mod fault;
pub mod program;
mod reader;
pub mod schema;
mod tasks;
pub mod text;
mod workflow;

#[cfg(test)]
mod tests;

pub use fault::Fault;
pub use program::{Outline, Task, TaskId};

use crate::value::Value;

/// A definition that was read.
#[derive(Clone, Debug)]
pub struct Definition {
    /// The workflow around its tasks.
    pub outline: Outline,
    /// The tasks, by their places.
    pub tasks: Vec<Task>,
    /// The document as it was written, for `$workflow.definition`.
    pub document: Value,
}

/// Reads a definition in YAML or JSON.
///
/// # Errors
///
/// Everything that is wrong with it; at least one fault.
pub fn read(text: &str) -> Result<Definition, Vec<Fault>> {
    let document = text::read(text).map_err(|fault| vec![fault])?;
    let (outline, tasks) = workflow::compile(&document)?;
    Ok(Definition { outline, tasks, document })
}
