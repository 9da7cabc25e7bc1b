//! A whole cluster in one thread under one seed: the product's driver, consensus, log and tables with a
//! real component, on simulated disks, clocks and a simulated network.
//!
//! Relies on the product's rooms for everything a node does, and on nothing of a node's own judgement for
//! what is right: histories, disks and outcomes are watched from outside. Promises that the same seed
//! gives the same trace hash on every machine and in every build, and that invariants are checked after
//! every event. Knows no real time, socket, file or thread within a run.
//!
//! | module | what it holds |
//! |---|---|
//! | `random`, `queue`, `trace` | choices, the order of events, what happened |
//! | `network`, `clock`, `faults`, `director` | what can go wrong and when it does |
//! | `node`, `client`, `workload` | nodes as the product runs them, and their clients |
//! | `world`, `event`, `carry`, `disks`, `pulls`, `mishaps` | one run |
//! | `observer`, `history`, `chain`, `durable`, `model`, `violation` | what must hold |
//! | `planted` | bugs on purpose |
//! | `campaign`, `report`, `statistics`, `component` | many runs and what they gave |

mod campaign;
mod carry;
mod chain;
mod client;
mod clock;
mod component;
mod describe;
mod director;
mod disks;
mod durable;
mod event;
mod faults;
mod history;
mod mishaps;
mod model;
mod network;
mod node;
mod observer;
mod planted;
mod pulls;
mod queue;
mod random;
mod report;
mod statistics;
mod trace;
mod violation;
mod workload;
mod world;

pub use campaign::{Campaign, CampaignResult, SeedResult, run_seed, tell};
pub use component::{ComponentError, load};
pub use faults::{FaultKind, FaultSet, UnknownFault};
pub use planted::Planted;
pub use report::{CampaignReport, PlantedFound, PlantedReport};
pub use statistics::Statistics;
pub use trace::Trace;
pub use violation::{Invariant, Violation};
pub use world::{RECOVERY_BOUND, Ran, Settings};
