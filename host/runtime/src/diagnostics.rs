//! Where a component's log lines and panics go.
//!
//! Relies on the node to bring a receiver. Promises that what is said here never becomes part of an
//! outcome. Knows no log.

use std::fmt;

use quorate_types::Digest;

/// Which component speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The digest of its bytes.
    pub component: Digest,
    /// Its name and version, as `name@version`; empty while it is still being checked.
    pub label: String,
}

/// How much a log line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For following every step.
    Trace,
    /// For finding faults.
    Debug,
    /// For knowing what happens.
    Info,
    /// Something odd.
    Warn,
    /// Something wrong.
    Error,
}

/// Receives what components say for people. Called while a component runs: must be quick and must not
/// call back. The texts come from outside and are at most a few KiB long. An entry that is redone
/// command by command says its lines again.
pub trait Diagnostics: fmt::Debug + Send + Sync {
    /// A line for the log; `target` is the component's own word for where it comes from.
    fn log(&self, source: &Source, level: Level, target: &str, message: &str);

    /// A panic, just before its trap; `location` is the place in the component's source.
    fn panicked(&self, source: &Source, message: &str, location: &str);
}

/// Drops everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Diagnostics for Silent {
    fn log(&self, _: &Source, _: Level, _: &str, _: &str) {}

    fn panicked(&self, _: &Source, _: &str, _: &str) {}
}
