//! Runtime expressions: jq, within bounds.
//!
//! Relies on jaq's lexer and parser for the language's syntax. Promises that evaluating any expression on
//! any value ends, uses bounded memory and stack, and gives the same result on every replica. Knows no
//! workflow: what `$workflow` and the like stand for comes through [`Globals`].
//!
//! # Why the bounds are sound
//!
//! jaq's own interpreter has no notion of fuel, and its compiled form cannot be stored. So its parser is
//! used, and the terms are evaluated here, with three rules:
//!
//! - *Fuel.* Each evaluation of a term takes one unit before it does anything, and every function that
//!   walks or builds something takes units in proportion to its size before it starts. There is no loop or
//!   recursion of the language that does not evaluate a term each time round, so an expression ends within
//!   its fuel, and it cannot have built more than its fuel allows.
//! - *Depth.* Evaluation passes each output on by calling what comes next, so the stack grows with the
//!   nesting of terms, pipes and calls. Each level is counted, and [`Bounds::depth`] of them fit the
//!   component's stack with room to spare. Loops of the language (`until`, `while`, `repeat`, `range`,
//!   `limit`) are loops here.
//! - *Values* nest at most [`value::DEPTH_MAX`](crate::value::DEPTH_MAX) levels, so comparing, encoding
//!   and dropping them is bounded as well.
//!
//! Running out is an error that `try` within the expression cannot catch; the task that owns the expression
//! receives it. Nothing reads a clock, a random number or the environment: functions that would are refused
//! when the definition is read. Objects are ordered by key and regular expressions are matched in linear
//! time, so nothing depends on addresses or hash seeds.

mod compile;
mod control;
mod dates;
mod functions;
mod machine;
mod native;
mod paths;
mod prelude;
mod regex;
mod run;
mod term;
mod texts;

#[cfg(test)]
mod tests;

pub use compile::{TEXT_BYTES_MAX, compile};
pub use dates::{Civil, iso8601_millis, parse_instant};
pub use machine::{Bounds, Failure, Globals, evaluate};
pub use regex::is_match;
pub use term::Filter;
pub use texts::percent_encode;
