//! The outer form of every message between replicas.
//!
//! Relies on the codec. Promises that group, epoch, incarnation and boot number stand in every
//! message, so that none can speak for another life of a replica. Knows the protocols only as tags.

use bytes::Bytes;
use quorate_types::codec::{DecodeError, Reader, Writer};
use quorate_types::{BootNumber, Epoch, GroupId, Incarnation};

use crate::{hotstuff, raft};

/// A protocol's message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Of a Raft epoch.
    Raft(raft::Message),
    /// Of a HotStuff epoch.
    HotStuff(hotstuff::Message),
}

impl From<hotstuff::Message> for Message {
    fn from(message: hotstuff::Message) -> Self {
        Self::HotStuff(message)
    }
}

/// A message with what every message carries.
///
/// ```text
/// 0       8       16            24     32             40       41
/// +-------+-------+-------------+------+--------------+--------+-----...
/// | group | epoch | incarnation | boot | receiver's   |protocol| message
/// |       |       | of sender   |      | incarnation  |        |
/// +-------+-------+-------------+------+--------------+--------+-----...
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The group.
    pub group: GroupId,
    /// The epoch the sender is in.
    pub epoch: Epoch,
    /// Which life of the sender's durable state speaks.
    pub incarnation: Incarnation,
    /// Which start of the sender speaks.
    pub boot: BootNumber,
    /// Which life of the receiver is meant.
    pub to_incarnation: Incarnation,
    /// What it says.
    pub message: Message,
}

impl Envelope {
    /// The encoded form.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let hint = match &self.message {
            Message::Raft(message) => message.encoded_len_hint(),
            Message::HotStuff(message) => message.encoded_len_hint(),
        };
        let mut out = Writer::with_capacity(41 + hint);
        out.u64(self.group.0);
        out.u64(self.epoch.0);
        out.u64(self.incarnation.0);
        out.u64(self.boot.0);
        out.u64(self.to_incarnation.0);
        match &self.message {
            Message::Raft(message) => {
                out.u8(0);
                message.encode(&mut out);
            }
            Message::HotStuff(message) => {
                out.u8(2);
                message.encode(&mut out);
            }
        }
        out.finish()
    }

    /// Reads what [`Envelope::encode`] wrote; entry bodies share the buffer.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] for anything but one whole envelope.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut from = Reader::new(bytes);
        let group = GroupId(from.u64("envelope group")?);
        let epoch = Epoch(from.u64("envelope epoch")?);
        let incarnation = Incarnation(from.u64("envelope incarnation")?);
        let boot = BootNumber(from.u64("envelope boot number")?);
        let to_incarnation = Incarnation(from.u64("envelope receiver incarnation")?);
        let message = match from.u8("envelope protocol")? {
            0 => Message::Raft(raft::Message::decode(&mut from)?),
            2 => Message::HotStuff(hotstuff::Message::decode(&mut from)?),
            other => return Err(DecodeError::Unknown { what: "envelope protocol", value: other.into() }),
        };
        from.end()?;
        Ok(Self { group, epoch, incarnation, boot, to_incarnation, message })
    }
}
