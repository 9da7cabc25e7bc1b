//! How much memory a replica takes.
//!
//! Relies on the sizes of what it holds. Promises a figure that no peer can drive beyond the bounds of this
//! room; allocators take somewhat more. Decides nothing.

use std::mem::{size_of, size_of_val};

use quorate_crypto::{Certificate, Signature, Statement, TimeoutCertificate, TimeoutVote};

use super::message::Message;
use super::state::Ballot;
use super::{Block, Header, HotStuff};

/// Memory of a replica, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Votes, timeouts, certificates, blocks beside the log and whatever waits: bounded by this room.
    pub state: usize,
    /// The log since the last snapshot that is durable: bounded by whoever takes snapshots.
    pub log: usize,
}

impl HotStuff {
    /// How much memory this replica takes.
    #[must_use]
    pub fn footprint(&self) -> Footprint {
        let votes: usize = self.votes.values().map(|votes| votes.len() * (8 + size_of::<Ballot>())).sum();
        let timeouts = self.timeouts.len() * (8 + size_of::<(Statement, TimeoutVote)>());
        let proposals = self.proposals.len() * (16 + size_of::<(Statement, Signature)>());
        let orphans: usize = self.orphans.iter().map(|(_, message)| held(message)).sum();
        let milestones: usize = self.milestones.values().map(of_certificate).sum();
        let certified =
            [&self.high, &self.committed_by].map(|known| known.certificate().map_or(0, of_certificate));
        let timed_out = self.timed_out.as_ref().map_or(0, of_timeout);
        let starts = (self.lives.len() + self.recorded_by.len() + self.stale_by.len()) * 24;
        let offers = self.offers.len() * (8 + size_of::<super::Offered>());
        let loopback = self.loopback.len() * size_of::<Message>();
        let beside: usize = self.chain.beside().map(of_block).sum();
        let waiting = self.queued_bytes + self.reads.len() * size_of::<super::PendingRead>();
        let certificates = milestones + certified.iter().sum::<usize>() + timed_out;
        let state = size_of::<Self>()
            + votes
            + timeouts
            + proposals
            + orphans
            + certificates
            + starts
            + offers
            + loopback
            + beside
            + waiting;
        Footprint { state, log: self.chain.logged().map(of_block).sum() }
    }
}

fn of_block(block: &Block) -> usize {
    // Its digest names it twice more: where it stands, and as the parent of the next.
    size_of::<Block>() + 40 + block.encoded_len() - Header::BYTES
}

fn of_certificate(certificate: &Certificate) -> usize {
    size_of::<Certificate>() + certificate.signatures().len() * Signature::BYTES
}

fn of_timeout(certificate: &TimeoutCertificate) -> usize {
    size_of::<TimeoutCertificate>() + size_of_val(certificate.votes())
}

fn held(message: &Message) -> usize {
    size_of::<Message>() + message.encoded_len_hint()
}
