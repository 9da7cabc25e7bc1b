//! Whole workflows through the native host.
//!
//! `samples` are workflows with what they must come to, one or more for each task and property of the
//! specification, accepted and refused; the coverage table of the README is made of them.

#![allow(clippy::unwrap_used, clippy::panic)]

mod bounds;
mod cases;
mod coverage;
mod examples;
mod harness;
mod items;

pub(crate) use harness::{Group, json};
