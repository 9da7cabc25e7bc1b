//! How results are shown: tables for people, JSON for programs.
//!
//! Relies on comfy-table and serde_json. Promises that with JSON the last line of standard output is one
//! value, failures included, and that hints for people go to standard error. Knows no command.

use std::io::{self, IsTerminal, Write};

use anyhow::{Context, Result};
use comfy_table::{LineStyle, Table, TableStyle};
use serde_json::{Value, json};

use crate::arguments::Format;
use crate::exit;

/// A line below the header and nothing else: rows stay next to each other.
const STYLE: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

/// Where results go.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    format: Format,
}

impl Output {
    /// Results in this format on standard output.
    #[must_use]
    pub fn new(format: Format) -> Self {
        Self { format }
    }

    /// Whether programs read along.
    #[must_use]
    pub fn is_json(self) -> bool {
        self.format == Format::Json
    }

    /// Shows one result: the value to programs, the text to people.
    ///
    /// # Errors
    ///
    /// Standard output cannot be written.
    pub fn show(self, value: &Value, text: impl FnOnce() -> String) -> Result<()> {
        match self.format {
            Format::Json => self.line(&value.to_string()),
            Format::Table => self.line(&text()),
        }
    }

    /// Writes one line to standard output, at once.
    ///
    /// # Errors
    ///
    /// Standard output cannot be written.
    pub fn line(self, line: &str) -> Result<()> {
        let mut out = io::stdout().lock();
        // In one piece, so that a reader who leaves after the first line does not end the program.
        let whole = format!("{line}\n");
        out.write_all(whole.as_bytes()).and_then(|()| out.flush()).context("cannot write to standard output")
    }

    /// Shows an error. Standard error cannot report that it is itself broken, so that is ignored.
    pub fn error(self, error: &anyhow::Error) {
        let text = format!("{error:#}");
        if self.is_json() {
            let value = json!({ "error": text, "status": exit::kind(error).status() });
            writeln!(io::stdout().lock(), "{value}").ok();
        }
        writeln!(io::stderr().lock(), "error: {text}").ok();
    }

    /// Tells people something that is no result; programs that read JSON see none of it on standard
    /// output.
    pub fn hint(self, text: &str) {
        writeln!(io::stderr().lock(), "{text}").ok();
    }

    /// Whether someone sees progress as it happens.
    #[must_use]
    pub fn is_watched(self) -> bool {
        io::stderr().is_terminal()
    }
}

/// A table with these columns and rows.
#[must_use]
pub fn table<R>(columns: &[&str], rows: impl IntoIterator<Item = R>) -> String
where
    R: IntoIterator<Item = String>,
{
    let mut table = Table::new();
    table.load_style(STYLE).set_header(columns.iter().copied());
    for row in rows {
        table.add_row(row.into_iter().collect::<Vec<_>>());
    }
    table.to_string()
}

/// Pairs of a name and a value, the names aligned.
#[must_use]
pub fn pairs(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
    let lines = pairs.iter().map(|(name, value)| format!("{name:<width$}  {value}"));
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_aligned() {
        let text = pairs(&[("a", "1".into()), ("long", "2".into())]);
        assert_eq!(text, "a     1\nlong  2");
    }

    #[test]
    fn a_table_has_its_header_and_every_row() {
        let text = table(&["node", "role"], [vec!["1".to_owned(), "leader".to_owned()]]);
        assert!(text.contains("node") && text.contains("leader"), "{text}");
    }
}
