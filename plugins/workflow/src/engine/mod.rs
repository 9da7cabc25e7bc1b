//! The engine: what a command does to cases.
//!
//! Relies on the SDK's context for state, time, chance and timers. Promises that each command reads and
//! writes a case once however many transitions it makes, that a command which would make too many leaves
//! the rest to the next entry, and that whatever goes wrong in a case is an error of that case. Knows no
//! wire: commands and answers are the parent's affair.
//!
//! A case is a tree of frames, one for each running task, and a queue of actions. An action starts a task,
//! takes its output or its error; each may put further actions into the queue. Nothing calls itself, so
//! neither deep nor long workflows need stack.

mod calls;
pub(crate) mod case;
mod ending;
mod errors;
mod flow;
mod listening;
mod publish;
mod run;
pub(crate) mod schedule;
mod scope;
mod start;
mod tasks;

pub(crate) use publish::{Cursor, cloud_event};
pub(crate) use run::{Due, Run};
