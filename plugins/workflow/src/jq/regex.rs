//! Regular expressions.
//!
//! Relies on regex-lite, which matches in time linear in pattern and text. Promises to take fuel for that
//! time beforehand. Knows no expression.

use regex_lite::{Captures, Regex, RegexBuilder};

use super::machine::{Machine, Stop};
use super::native::Fun;
use crate::value::Value;

/// The longest pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 1_000;
/// The largest program a pattern may become, in bytes.
const PROGRAM_BYTES_MAX: usize = 64 << 10;

fn compile(pattern: &str, flags: &str) -> Result<Regex, String> {
    if pattern.len() > PATTERN_BYTES_MAX {
        return Err(format!("the pattern has {} bytes, more than {PATTERN_BYTES_MAX}", pattern.len()));
    }
    let mut builder = RegexBuilder::new(pattern);
    builder.size_limit(PROGRAM_BYTES_MAX);
    for flag in flags.chars() {
        match flag {
            'g' | 'n' => &mut builder,
            'i' => builder.case_insensitive(true),
            'x' => builder.ignore_whitespace(true),
            's' => builder.dot_matches_new_line(true),
            _ => return Err(format!("{flags} is not a valid modifier string")),
        };
    }
    builder.build().map_err(|error| format!("{pattern} (at offset 0) is not a valid regex: {error}"))
}

/// Whether a whole text matches a pattern; an error if the pattern does not read.
///
/// # Errors
///
/// What is wrong with the pattern.
pub fn is_match(pattern: &str, text: &str) -> Result<bool, String> {
    Ok(compile(pattern, "")?.is_match(text))
}

/// Runs `_match` and `_test`.
pub(super) fn run(
    machine: &mut Machine<'_>,
    fun: Fun,
    input: &Value,
    pattern: &Value,
    flags: &Value,
) -> Result<Value, Stop> {
    let (pattern, flags) = match pattern.items() {
        Some([pattern, flags]) => (pattern, flags),
        Some([pattern]) => (pattern, flags),
        _ => (pattern, flags),
    };
    let (Some(text), Some(pattern)) = (input.as_text(), pattern.as_text()) else {
        return Err(Stop::error("a regular expression is a string and matches strings"));
    };
    let flags = flags.as_text().unwrap_or_default();
    machine.charge(50 + pattern.len() * 8)?;
    machine.charge(text.len().saturating_mul(1 + pattern.len() / 8))?;
    let regex = compile(pattern, flags).map_err(|problem| Stop::error(&problem))?;
    if fun == Fun::Test {
        return Ok(Value::Bool(regex.is_match(text)));
    }
    let mut found = Vec::new();
    let count = if flags.contains('g') { usize::MAX } else { 1 };
    for captures in regex.captures_iter(text).take(count) {
        machine.charge(captures.len() * 4)?;
        machine.charge(text.len().saturating_mul(1 + pattern.len() / 8) / 4)?;
        found.push(describe(&regex, text, &captures)?);
    }
    Ok(Value::array(found)?)
}

fn letters(text: &str, bytes: usize) -> Value {
    Value::count(text.get(..bytes).map_or(0, |before| before.chars().count()))
}

/// jq's description of a match; places and lengths count letters.
fn describe(regex: &Regex, text: &str, captures: &Captures<'_>) -> Result<Value, Stop> {
    let mut groups = Vec::new();
    for (place, name) in regex.capture_names().enumerate().skip(1) {
        let group = captures.get(place);
        let found = group.map_or("", |group| group.as_str());
        groups.push(Value::record([
            ("offset", group.map_or(Value::Int(-1), |group| letters(text, group.start()))),
            ("length", Value::count(found.chars().count())),
            ("string", group.map_or(Value::Null, |group| Value::text(group.as_str()))),
            ("name", name.map_or(Value::Null, Value::text)),
        ]));
    }
    let whole = captures.get(0);
    let found = whole.map_or("", |whole| whole.as_str());
    Ok(Value::record([
        ("offset", letters(text, whole.map_or(0, |whole| whole.start()))),
        ("length", Value::count(found.chars().count())),
        ("string", Value::text(found)),
        ("captures", Value::array(groups)?),
    ]))
}
