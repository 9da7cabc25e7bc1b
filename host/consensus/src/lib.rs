//! Consensus protocols as pure machines: inputs in, effects out.
//!
//! Relies on `types` for the words and on `crypto` for proof of origin. Promises that the same inputs
//! give the same effects, byte for byte; that no promise to a peer can leave before what it promises
//! is durable; and that bytes from a peer, client or component can trip no assertion. Knows no clock,
//! no randomness, no thread, no file, no socket and no log output: time and seeds come in.

mod effects;
mod envelope;
pub mod hotstuff;
mod input;
pub mod raft;
mod replica;

pub use effects::{
    Committed, Effects, Fence, Outgoing, Persist, Promise, ProposeError, ReadError, ReplicaRole,
    SnapshotFetch, Status, Token,
};
pub use envelope::{Envelope, Message};
pub use input::{Input, Now, Proposal, ProposalId, ReadId, SnapshotContent, SnapshotMark};
pub use replica::{Replica, Start, StartError, Timings, TimingsError};
