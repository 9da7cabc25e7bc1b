//! All that a step asks of the outside, in one value read in one order (etcd's `Ready` is the model).
//!
//! Relies on `types` and on the protocols' split of what they say into what binds the sender and what
//! does not. Promises, by construction, that a promise to a peer carries the token that must be durable
//! before it leaves: `Outgoing::after` is the only way to send a [`Promise`]. Does not know how effects
//! are carried out.

use bytes::Bytes;
use quorate_types::{Entry, Epoch, LogIndex, NodeId, Position, Term, Time};

use crate::{Message, ProposalId, ReadId, SnapshotContent, hotstuff, raft};

/// Names a persist request; grows by one with each request of a replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// What must become durable, all of it or, after a crash, a prefix in the order of the fields'
/// requests. Requests become durable in the order of their tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Persist {
    /// Comes back in [`crate::Input::Persisted`].
    pub token: Token,
    /// Before anything else, every entry that the log holds is void, and the next one follows this
    /// position: an installed snapshot replaced that history. The hard state stays.
    pub reset: Option<Position>,
    /// The protocol's durable variables in its own encoding, if they changed.
    pub hard_state: Option<Bytes>,
    /// Consecutive entries. They replace whatever the log holds from the first one's index on.
    pub entries: Vec<Entry>,
}

/// A message that promises something about this replica's durable state: a vote, an acknowledgement.
///
/// It can only be sent together with the token of that state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promise(Message);

impl Promise {
    /// A Raft pledge made in `term`.
    pub(crate) fn raft(term: Term, pledge: raft::Pledge) -> Self {
        Self(Message::Raft(raft::Message { term, body: raft::Body::Pledge(pledge) }))
    }

    /// A signed HotStuff message that binds its signer; made by the voter alone.
    pub(crate) fn hotstuff(message: hotstuff::Message) -> Self {
        Self(Message::HotStuff(message))
    }

    /// What a replica promised itself, once that is durable.
    pub(crate) fn into_message(self) -> Message {
        self.0
    }
}

/// A message that binds nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unbinding(Message);

impl Unbinding {
    /// A Raft statement made in `term`.
    pub(crate) fn raft(term: Term, statement: raft::Statement) -> Self {
        Self(Message::Raft(raft::Message { term, body: raft::Body::Statement(statement) }))
    }

    /// A signed HotStuff message that does not bind its signer.
    pub(crate) fn hotstuff(message: hotstuff::Message) -> Self {
        Self(Message::HotStuff(message))
    }
}

/// A message to one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    to: NodeId,
    message: Message,
    after: Option<Token>,
}

impl Outgoing {
    /// A message that promises nothing and may leave at once.
    pub(crate) fn at_once(to: NodeId, unbinding: Unbinding) -> Self {
        Self { to, message: unbinding.0, after: None }
    }

    /// A promise, to leave once `token` is durable.
    pub(crate) fn after(to: NodeId, promise: Promise, token: Token) -> Self {
        Self { to, message: promise.0, after: Some(token) }
    }

    /// Who receives it.
    #[must_use]
    pub fn to(&self) -> NodeId {
        self.to
    }

    /// The token that must be durable before it leaves; `None` for a message that promises nothing.
    #[must_use]
    pub fn token(&self) -> Option<Token> {
        self.after
    }

    /// What is sent.
    #[must_use]
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// Splits into receiver, message and token.
    #[must_use]
    pub fn into_parts(self) -> (NodeId, Message, Option<Token>) {
        (self.to, self.message, self.after)
    }
}

/// A committed entry, delivered once and in order since the start of the replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The entry.
    pub entry: Entry,
}

/// Why a proposal was not appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Another replica leads, or none does.
    #[error("this replica does not lead")]
    NotLeader {
        /// Who does, as far as known.
        leader: Option<NodeId>,
    },
    /// Leadership is being handed over.
    #[error("leadership is being transferred")]
    Transferring,
    /// Too much is appended and not yet committed.
    #[error("too many uncommitted bytes")]
    Overloaded,
    /// Nobody may propose an entry of this kind or size.
    #[error("no entry of this kind or size can be proposed")]
    NotAllowed,
}

/// Why a read was not confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Another replica leads, or none does.
    #[error("this replica does not lead")]
    NotLeader {
        /// Who does, as far as known.
        leader: Option<NodeId>,
    },
    /// Leadership was lost before the read was confirmed.
    #[error("leadership was lost before the read was confirmed")]
    LeadershipLost,
    /// Too many reads wait for confirmation.
    #[error("too many reads wait for confirmation")]
    Overloaded,
}

/// What a replica does in its group right now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReplicaRole {
    /// Orders entries.
    Leader,
    /// Follows a leader.
    Follower,
    /// Asks whether it may campaign, or campaigns.
    Candidate,
    /// Receives the log without counting.
    Learner,
}

/// What watchers see; given whenever any of it changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The epoch in force.
    pub epoch: Epoch,
    /// The term; under HotStuff the view with which the leader's tenure begins, so that in every protocol it
    /// grows with each new leader and with nothing else.
    pub term: Term,
    /// What this replica does.
    pub role: ReplicaRole,
    /// Who leads, as far as known.
    pub leader: Option<NodeId>,
    /// The last index known to be committed.
    pub commit: LogIndex,
}

/// A broken invariant: this replica takes no further part, and nothing else is touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// What was found, for the operator.
    pub reason: String,
}

/// The replica needs a snapshot, because its leader no longer holds the entries it lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotFetch {
    /// Who offers it.
    pub from: NodeId,
    /// What it includes.
    pub position: Position,
    /// What exactly it must hold, where one replica's word is not enough: anything else is to be refused, and
    /// nothing of it kept.
    pub content: Option<SnapshotContent>,
}

/// All that one step asks for, carried out in the order of the fields.
#[derive(Clone, Debug, Default)]
pub struct Effects {
    /// Append to the log and flush; the answer is [`crate::Input::Persisted`].
    pub persist: Option<Persist>,
    /// Send; those with a token only once it is durable.
    pub messages: Vec<Outgoing>,
    /// Apply, in order.
    pub deliver: Vec<Committed>,
    /// Where each proposal was appended, or why it was not. Appended is not committed.
    pub proposed: Vec<(ProposalId, Result<Position, ProposeError>)>,
    /// Reads that may be answered once the state machine applied this index, or never.
    pub reads: Vec<(ReadId, Result<LogIndex, ReadError>)>,
    /// Fetch a snapshot; replaces an earlier request.
    pub fetch: Option<SnapshotFetch>,
    /// Members that lied, with the proof; one lie may come more than once.
    pub evidence: Vec<hotstuff::Evidence>,
    /// Anything of this changed.
    pub status: Option<Status>,
    /// Stop this replica for good.
    pub fence: Option<Fence>,
}

impl Effects {
    /// Whether the step asked for nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.persist.is_none()
            && self.messages.is_empty()
            && self.deliver.is_empty()
            && self.proposed.is_empty()
            && self.reads.is_empty()
            && self.fetch.is_none()
            && self.evidence.is_empty()
            && self.status.is_none()
            && self.fence.is_none()
    }
}

/// When something next has to happen by itself; the earlier of two.
pub(crate) fn earlier(left: Option<Time>, right: Option<Time>) -> Option<Time> {
    match (left, right) {
        (Some(left), Some(right)) => Some(left.min(right)),
        (one, other) => one.or(other),
    }
}
