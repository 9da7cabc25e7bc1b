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
//! | `signing`, `notary`, `liar`, `lore`, `forgery` | keys, signatures, and members that lie |
//! | `world`, `event`, `carry`, `disks`, `pulls`, `mishaps` | one run |
//! | `observer`, `model`, `violation` | what must hold |
//! | `replicas`, `committed`, `chain`, `durable` | what is known of a group's logs and disks |
//! | `raft_logs`, `history`, `agreement`, `pledges` | what must hold of them under each protocol |
//! | `twins`, `sizes` | replicas alone: two of them with one key, and many of them |
//! | `planted` | bugs on purpose |
//! | `campaign`, `report`, `statistics`, `component` | many runs and what they gave |

mod agreement;
mod campaign;
mod carry;
mod chain;
mod client;
mod clock;
mod committed;
mod component;
mod describe;
mod director;
mod disks;
mod durable;
mod event;
mod faults;
mod forgery;
mod history;
mod liar;
mod lore;
mod mishaps;
mod model;
mod network;
mod node;
mod notary;
mod observer;
mod planted;
mod pledges;
mod pulls;
mod queue;
mod raft_logs;
mod random;
mod replicas;
mod report;
#[cfg(test)]
mod scene;
mod signing;
mod sizes;
mod statistics;
mod trace;
mod twins;
mod violation;
mod workload;
mod world;

pub use campaign::{Campaign, CampaignResult, SeedResult, run_seed, tell};
pub use component::{ComponentError, load};
pub use faults::{FaultKind, FaultSet, UnknownFault};
pub use planted::{Finder, Planted};
pub use report::{CampaignReport, PlantedFound, PlantedReport, name_of};
pub use sizes::{SizeReport, sizes};
pub use statistics::Statistics;
pub use trace::Trace;
pub use twins::{RuleReport, Twins, TwinsReport};
pub use violation::{Invariant, Violation};
pub use world::{Ran, Settings, recovery_bound};
