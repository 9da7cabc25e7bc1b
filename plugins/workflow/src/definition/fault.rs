//! What is wrong with a definition, and where.
//!
//! Relies on serde. Promises a JSON pointer (RFC 6901) for each fault. Knows no rule.

use serde::{Deserialize, Serialize};

/// One fault of a definition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// A JSON pointer to the value that is at fault; empty for the whole.
    pub at: String,
    /// What is wrong, in a sentence.
    pub problem: String,
}

impl Fault {
    /// A fault at a place.
    #[must_use]
    pub fn new(at: &str, problem: impl Into<String>) -> Self {
        Self { at: at.to_owned(), problem: problem.into() }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = if self.at.is_empty() { "/" } else { &self.at };
        write!(out, "{at}: {}", self.problem)
    }
}

/// A pointer with one more step.
#[must_use]
pub fn pointer(at: &str, step: &str) -> String {
    format!("{at}/{}", step.replace('~', "~0").replace('/', "~1"))
}
