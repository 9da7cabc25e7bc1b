//! What can happen in a simulated cluster, and what travels over its network.
//!
//! Relies on the driver's words. Promises nothing; it is vocabulary. Knows no handling.

use bytes::Bytes;
use quorate_node::driver::{ApplyJob, Reply};
use quorate_types::{GroupId, NodeId, Sequence};

use crate::client::Request;
use crate::director::Action;
use crate::network::Endpoint;

/// A message on the network.
#[derive(Clone, Debug)]
pub enum Message {
    /// Between replicas: an encoded envelope.
    Frame(Bytes),
    /// From a client.
    Request(GroupId, Request),
    /// To a client, about an item.
    Reply(Sequence, Reply),
    /// To a client, about a query.
    Answer(u64, Reply),
    /// A request for a piece of a snapshot.
    SnapshotRequest {
        /// Tells pulls apart.
        pull: u64,
        /// Tells the requests of one pull apart.
        step: u32,
        /// The encoded request.
        request: Bytes,
    },
    /// A piece of a snapshot; `None` if it is not to be had.
    SnapshotPiece {
        /// As in the request.
        pull: u64,
        /// As in the request.
        step: u32,
        /// The encoded piece.
        piece: Option<Bytes>,
    },
}

/// Which start of a node an event belongs to; events of earlier ones are void.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// The node.
    pub node: NodeId,
    /// Its start.
    pub life: u64,
}

/// Something that happens.
#[derive(Debug)]
pub enum Event {
    /// A message arrives.
    Arrive {
        /// From here.
        from: Endpoint,
        /// To here.
        to: Endpoint,
        /// What it says.
        message: Message,
    },
    /// A driver's deadline.
    Wake(Life),
    /// The log thread's flush ends.
    Flush(Life),
    /// The tables thread's work ends.
    Tables(Life),
    /// A job that ran beside consensus ends.
    Applied(Life, Box<ApplyJob>),
    /// The code that a driver asked for is here.
    Component(Life),
    /// A request for a piece of a snapshot was not answered in time.
    PullDue(Life, GroupId, u64, u32),
    /// A node that was told to end at its next chance has it.
    Crash(Life),
    /// A client wakes.
    Client(u32),
    /// A liar says something of its own accord.
    Lie(NodeId),
    /// The director looks at the cluster.
    Director,
    /// Something the director decided earlier.
    Act(Action),
}
