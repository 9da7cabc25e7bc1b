//! Drivers joined in one thread: what the driver promises to whoever submits, and what it adds to each protocol,
//! without disk, network or components. The simulator shows the rest.
#![allow(clippy::unwrap_used)]

mod cluster;
mod crash;
mod signing;
