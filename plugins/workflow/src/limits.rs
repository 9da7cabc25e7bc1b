//! What one case may use.
//!
//! Relies on serde. Promises that limits which passed [`Limits::check`] let any command end within the
//! host's default limits. Knows no case.

use serde::{Deserialize, Serialize};

/// The limits of every case of a group, given as parameters when the component is deployed. A case that
/// exceeds one receives an error of the specification; no other case notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Steps that the expressions of one task transition may take together. 1,000 to 1,000,000.
    pub expression_fuel: u64,
    /// Levels of nested evaluation within an expression. 20 to 400: more would not fit the stack.
    pub expression_depth: u32,
    /// About how many bytes one document of a case (input, output, context) may have. 1 KiB to
    /// 512 KiB.
    pub document_bytes: usize,
    /// About how many bytes everything that a case holds may have. 4 KiB to 1 MiB less a reserve, since it
    /// is one value of the group's state.
    pub case_bytes: usize,
    /// Events in a case's history. 10 to 1,000,000.
    pub history_events: u64,
    /// Work items that a case may have open. 1 to 1,000.
    pub open_items: usize,
    /// Tasks that a case may have running at once, the nested ones included. 2 to 10,000.
    pub open_tasks: usize,
    /// Cases within cases. 1 to 64.
    pub case_depth: u8,
    /// Signals that a case may hold until it listens. 0 to 1,000.
    pub held_signals: usize,
    /// Transitions that one command makes before it leaves the rest to the next entry. 1 to 300: what
    /// they add to the history is one value of the state.
    pub transitions_per_command: u32,
    /// Steps of expressions after which a command leaves the rest to the next entry. At least 1,000.
    pub fuel_per_command: u64,
    /// Whether each task's lifecycle is shown to watchers, as each case's is.
    pub task_events: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            expression_fuel: 20_000,
            expression_depth: 300,
            document_bytes: 128 << 10,
            case_bytes: 512 << 10,
            history_events: 10_000,
            open_items: 200,
            open_tasks: 1_000,
            case_depth: 8,
            held_signals: 64,
            transitions_per_command: 200,
            fuel_per_command: 40_000,
            task_events: false,
        }
    }
}

impl Limits {
    /// The first limit that is out of its range, with the range.
    #[must_use]
    pub fn check(&self) -> Option<(&'static str, u64, u64, u64)> {
        let ranges = [
            ("expression_fuel", self.expression_fuel, 1_000, 1_000_000),
            ("expression_depth", self.expression_depth.into(), 20, 400),
            ("document_bytes", self.document_bytes as u64, 1 << 10, 512 << 10),
            ("case_bytes", self.case_bytes as u64, 4 << 10, 960 << 10),
            ("history_events", self.history_events, 10, 1_000_000),
            ("open_items", self.open_items as u64, 1, 1_000),
            ("open_tasks", self.open_tasks as u64, 2, 10_000),
            ("case_depth", self.case_depth.into(), 1, 64),
            ("held_signals", self.held_signals as u64, 0, 1_000),
            ("transitions_per_command", self.transitions_per_command.into(), 1, 300),
            ("fuel_per_command", self.fuel_per_command, 1_000, u64::MAX),
        ];
        ranges.into_iter().find(|(_, value, least, greatest)| !(*least..=*greatest).contains(value))
    }
}
