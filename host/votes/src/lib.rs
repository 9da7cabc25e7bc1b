//! Verification of signatures in bulk, across all groups of a node, one verdict each.
//!
//! Relies on `crypto` for the one rule by which a signature is accepted. Promises that every verdict is the
//! one that rule gives for that signature alone, never for a combination of several, so that one bad
//! signature costs nobody else a verdict and its deliverer is named; that no certificate is verified twice
//! while it is remembered; and that a flood from one peer delays no other peer by more than its turn. Knows
//! no protocol and no network: requests come in, answers go out.
//!
//! ```text
//! peers' envelopes -> Queue (fair, bounded) -> Batch -> verdicts -> Verifier (joins) -> Answer
//!                                                ^ cores or a card                          |
//!                                                                        Tally (votes per digest)
//! ```
//!
//! [`Verifier`] holds all of that without a thread or a clock, so that a simulator runs it as it runs the
//! protocols; [`Service`] puts a bounded pool of threads around it,
//! and a graphics card beside them where there is one and it is done sooner.

mod backend;
mod batch;
mod breaker;
mod dispatch;
pub mod gpu;
pub mod measure;
mod memory;
mod metrics;
mod queue;
mod request;
mod service;
mod tally;
mod verifier;

pub use backend::Backend;
pub use batch::{Batch, Verdicts};
pub use breaker::Breaker;
pub use dispatch::{COALESCE_MAX, Cost, DEVICE_VOTES_UNMEASURED, Dispatch};
pub use memory::Memory;
pub use metrics::{Histogram, Metrics, SIZE_CLASSES, TIME_CLASSES};
pub use queue::{Overloaded, TURN_SIGNATURES};
pub use request::{Answer, Part, PartResult, Request, Ticket};
pub use service::{Clock, Service, ServiceConfig, ServiceError, THREADS_MAX};
pub use tally::{Count, Equivocation, Progress, Standing, Tally, TallyError, VIEWS_AHEAD_MAX, Vote};
pub use verifier::{Verifier, VerifierLimits};
