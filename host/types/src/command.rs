//! What an entry of kind batch carries: client commands and the few things the host itself orders.
//!
//! Relies on the codec. Promises one byte string per batch, and bounds on all of it. Knows nothing of
//! what a command means.

use bytes::Bytes;

use crate::codec::{DecodeError, Reader, Writer};
use crate::entry::ENTRY_BYTES_MAX;
use crate::{Digest, Sequence, SessionId};

/// The most items in one batch; bounds the redo after a trap.
pub const COMMANDS_PER_ENTRY_MAX: usize = 4_096;
/// The greatest command name, in bytes.
pub const COMMAND_NAME_BYTES_MAX: usize = 128;
/// The greatest command body, in bytes; leaves room for the item's other fields in one entry.
pub const COMMAND_BODY_BYTES_MAX: usize = 1 << 20;
/// The greatest piece of evidence, in bytes: two statements with their signatures take about 300.
pub const EVIDENCE_BYTES_MAX: usize = 1 << 10;

const _: () = assert!(COMMAND_BODY_BYTES_MAX + COMMAND_NAME_BYTES_MAX + 64 < ENTRY_BYTES_MAX);

/// A command for the group's state machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The session it belongs to.
    pub session: SessionId,
    /// Its number in the session; a number that was applied before returns the cached outcome.
    pub sequence: Sequence,
    /// The client has the outcomes of all smaller numbers, which need not be kept any longer.
    pub acknowledged_below: Sequence,
    /// What the component calls it; at most [`COMMAND_NAME_BYTES_MAX`] bytes.
    pub name: String,
    /// Its arguments; at most [`COMMAND_BODY_BYTES_MAX`] bytes.
    pub body: Bytes,
}

/// What a state machine answered to one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was carried out.
    Done(Bytes),
    /// It was refused and left nothing behind.
    Rejected(Rejection),
}

/// Why a command was refused, the same on every replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// A number of the component's choice; [`Rejection::HOST_CODES`] belong to the host.
    pub code: u32,
    /// A stable name for programs, such as `insufficient-funds`.
    pub name: String,
    /// A sentence for people.
    pub message: String,
}

impl Rejection {
    /// Codes that only the host gives; a component's rejection in this range is moved out of it.
    pub const HOST_CODES: std::ops::RangeInclusive<u32> = 1..=99;
    /// The command trapped or panicked.
    pub const TRAPPED: u32 = 1;
    /// The command used more fuel than its limit.
    pub const OUT_OF_FUEL: u32 = 2;
    /// The command used more memory, output or host calls than its limits.
    pub const OVER_LIMIT: u32 = 3;
    /// No component is active in the group yet.
    pub const NO_COMPONENT: u32 = 4;
    /// The component answered against its contract.
    pub const BAD_ANSWER: u32 = 5;
    /// Activation failed: `init` or `migrate` refused; the old version and state stay.
    pub const ACTIVATION_FAILED: u32 = 6;
    /// The session is unknown or has expired; the command was not carried out.
    pub const SESSION_EXPIRED: u32 = 7;
    /// The sequence number lies below what the client acknowledged: its outcome is no longer kept.
    pub const SEQUENCE_STALE: u32 = 8;
    /// The group holds its greatest number of sessions.
    pub const TOO_MANY_SESSIONS: u32 = 9;
    /// The session holds its greatest number of unacknowledged outcomes.
    pub const WINDOW_FULL: u32 = 10;
    /// What was given as evidence proves no lie of a member of this epoch.
    pub const EVIDENCE_REFUSED: u32 = 11;
    /// The session belongs to whoever signs with another key; the command was not carried out.
    pub const FOREIGN_SESSION: u32 = 12;
    /// Another deployment came first; this one was not carried out.
    pub const DEPLOYMENT_SUPERSEDED: u32 = 13;
}

/// One thing an entry orders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BatchItem {
    /// Apply a client's command.
    Command(Command),
    /// Open a session. The same `client` again, while it is open, gives the same session.
    OpenSession {
        /// Drawn at random by the client.
        client: [u8; 16],
        /// The session expires when no item of it is applied for this long, in milliseconds.
        ttl_ms: u32,
    },
    /// Keep an idle session from expiring.
    KeepSession(SessionId),
    /// End a session and forget its outcomes.
    CloseSession(SessionId),
    /// Replace the group's component from here on.
    Activate {
        /// The component's bytes.
        component: Digest,
        /// Handed to `init` when this is the group's first component.
        parameters: Bytes,
        /// How many deployments the group carried out before, so that a signature is good for one of them; whatever
        /// their number, if left out, which only nodes of crash groups do.
        after: Option<u64>,
    },
    /// Nothing; carries an entry's stamp forward so that timers fire.
    Tick,
    /// Proof that a member lied, encoded; at most [`EVIDENCE_BYTES_MAX`]. Only what holds is kept.
    Evidence(Bytes),
    /// Every replica takes the state's digest after this entry, and a checkpoint with it.
    Checkpoint,
}

impl BatchItem {
    fn encode(&self, out: &mut Writer) {
        match self {
            Self::Command(command) => {
                out.u8(1);
                out.u64(command.session.0);
                out.u64(command.sequence.0);
                out.u64(command.acknowledged_below.0);
                out.bytes(command.name.as_bytes());
                out.bytes(&command.body);
            }
            Self::OpenSession { client, ttl_ms } => {
                out.u8(2);
                out.raw(client);
                out.u32(*ttl_ms);
            }
            Self::KeepSession(session) => {
                out.u8(3);
                out.u64(session.0);
            }
            Self::CloseSession(session) => {
                out.u8(4);
                out.u64(session.0);
            }
            Self::Activate { component, parameters, after } => {
                out.u8(if after.is_some() { 9 } else { 5 });
                out.raw(&component.0);
                out.bytes(parameters);
                after.iter().for_each(|after| out.u64(*after));
            }
            Self::Tick => out.u8(6),
            Self::Evidence(evidence) => {
                out.u8(7);
                out.bytes(evidence);
            }
            Self::Checkpoint => out.u8(8),
        }
    }

    fn decode(from: &mut Reader) -> Result<Self, DecodeError> {
        match from.u8("batch item")? {
            1 => Ok(Self::Command(Command {
                session: SessionId(from.u64("command session")?),
                sequence: Sequence(from.u64("command sequence")?),
                acknowledged_below: Sequence(from.u64("command acknowledgement")?),
                name: from.text(COMMAND_NAME_BYTES_MAX, "command name")?,
                body: from.bytes(COMMAND_BODY_BYTES_MAX, "command body")?,
            })),
            2 => Ok(Self::OpenSession {
                client: from.array("session client")?,
                ttl_ms: from.u32("session lifetime")?,
            }),
            3 => Ok(Self::KeepSession(SessionId(from.u64("session")?))),
            4 => Ok(Self::CloseSession(SessionId(from.u64("session")?))),
            tag @ (5 | 9) => Ok(Self::Activate {
                component: Digest(from.array("component digest")?),
                parameters: from.bytes(COMMAND_BODY_BYTES_MAX, "component parameters")?,
                after: if tag == 9 { Some(from.u64("deployments")?) } else { None },
            }),
            6 => Ok(Self::Tick),
            7 => Ok(Self::Evidence(from.bytes(EVIDENCE_BYTES_MAX, "evidence")?)),
            8 => Ok(Self::Checkpoint),
            other => Err(DecodeError::Unknown { what: "batch item", value: other.into() }),
        }
    }

    /// Whether whoever signs it shows a certificate with it; for anything else of a session its key is enough.
    #[must_use]
    pub fn needs_certificate(&self) -> bool {
        matches!(self, Self::OpenSession { .. } | Self::Activate { .. })
    }

    /// Bytes of the encoded form.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        1 + match self {
            Self::Command(command) => 3 * 8 + 4 + command.name.len() + 4 + command.body.len(),
            Self::OpenSession { .. } => 16 + 4,
            Self::KeepSession(_) | Self::CloseSession(_) => 8,
            Self::Activate { parameters, after, .. } => 32 + 4 + parameters.len() + after.map_or(0, |_| 8),
            Self::Tick | Self::Checkpoint => 0,
            Self::Evidence(evidence) => 4 + evidence.len(),
        }
    }
}

/// The items of one entry, in order. The cut between batches is part of the log: no replica merges or
/// splits them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// At most [`COMMANDS_PER_ENTRY_MAX`].
    pub items: Vec<BatchItem>,
}

impl Batch {
    /// Bytes of the encoded form before the first item.
    pub const HEADER_BYTES: usize = 4;

    /// The components that it puts in force, in order.
    pub fn activates(&self) -> impl Iterator<Item = Digest> + '_ {
        self.items.iter().filter_map(|item| match item {
            BatchItem::Activate { component, .. } => Some(*component),
            _ => None,
        })
    }

    /// The encoded form, an entry's body.
    ///
    /// # Panics
    ///
    /// With more than [`COMMANDS_PER_ENTRY_MAX`] items, which whoever builds the batch refuses.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        assert!(self.items.len() <= COMMANDS_PER_ENTRY_MAX, "{} items in a batch", self.items.len());
        let len: usize = self.items.iter().map(BatchItem::encoded_len).sum();
        let mut out = Writer::with_capacity(Self::HEADER_BYTES + len);
        out.u32(self.items.len() as u32);
        self.items.iter().for_each(|item| item.encode(&mut out));
        out.finish()
    }

    /// Reads an entry's body; command bodies share its buffer.
    ///
    /// # Errors
    ///
    /// As the codec: anything but one whole batch within its bounds.
    pub fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut from = Reader::new(body);
        let count = from.count(COMMANDS_PER_ENTRY_MAX, "batch items")?;
        // Each item takes at least one byte, so the bytes bound the allocation as well.
        let mut items = Vec::with_capacity(count.min(from.left()));
        for _ in 0..count {
            items.push(BatchItem::decode(&mut from)?);
        }
        from.end()?;
        Ok(Self { items })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_item() -> Vec<BatchItem> {
        vec![
            BatchItem::Command(Command {
                session: SessionId(1),
                sequence: Sequence(2),
                acknowledged_below: Sequence(1),
                name: "put".into(),
                body: Bytes::from_static(b"k=v"),
            }),
            BatchItem::OpenSession { client: [7; 16], ttl_ms: 60_000 },
            BatchItem::KeepSession(SessionId(3)),
            BatchItem::CloseSession(SessionId(4)),
            BatchItem::Activate { component: Digest([9; 32]), parameters: Bytes::new(), after: None },
            BatchItem::Activate {
                component: Digest([9; 32]),
                parameters: Bytes::from_static(b"{}"),
                after: Some(3),
            },
            BatchItem::Tick,
            BatchItem::Evidence(Bytes::from_static(b"proof")),
            BatchItem::Checkpoint,
        ]
    }

    #[test]
    fn every_item_round_trips_at_the_length_it_states() {
        for item in every_item() {
            let stated = Batch::HEADER_BYTES + item.encoded_len();
            let batch = Batch { items: vec![item] };
            let bytes = batch.encode();
            assert_eq!(bytes.len(), stated);
            assert_eq!(Batch::decode(bytes), Ok(batch));
        }
    }

    #[test]
    fn every_cut_and_every_odd_tag_is_a_typed_error() {
        let bytes = Batch { items: every_item() }.encode();
        for cut in 0..bytes.len() {
            assert!(Batch::decode(bytes.slice(..cut)).is_err(), "cut at {cut}");
        }
        assert!(matches!(
            Batch::decode(Bytes::from_static(&[1, 0, 0, 0, 99])),
            Err(DecodeError::Unknown { value: 99, .. })
        ));
        assert!(matches!(
            Batch::decode(Bytes::from_static(&[255, 255, 255, 255])),
            Err(DecodeError::TooLarge { .. })
        ));
    }
}
