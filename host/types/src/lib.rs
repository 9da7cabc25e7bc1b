//! The words every room of Quorate shares: identities, positions, time, entries, commands, epochs
//! and limits.
//!
//! Relies on nothing of ours. Promises that every encoding is canonical (one value, one byte string)
//! and that decoding bytes from outside returns a typed error and never panics. Knows no protocol,
//! no disk, no network and no clock.

pub mod codec;
mod command;
mod digest;
mod entry;
mod epoch;
mod frame;
mod ids;
mod limits;
mod quorum;
mod time;

pub use command::{
    Batch, BatchItem, COMMAND_BODY_BYTES_MAX, COMMAND_NAME_BYTES_MAX, COMMANDS_PER_ENTRY_MAX, Command,
    EVIDENCE_BYTES_MAX, Outcome, Rejection,
};
pub use digest::Digest;
pub use entry::{ENTRY_BYTES_MAX, Entry, EntryKind, Position};
pub use epoch::{EpochConfig, EpochConfigError, GroupKind, Member, MemberKey, Protocol, REPLICAS_MAX, Role};
pub use frame::{
    CLIENT_CERTIFICATE_BYTES_MAX, ClientFrame, ClientKey, FRAME_BYTES_MAX, FRAMES_PER_ENTRY_MAX,
    FrameContentError, decode_frames, encode_frames, read_frames,
};
pub use ids::{
    BootNumber, ClusterId, Epoch, GroupId, Incarnation, LogIndex, NodeId, Sequence, SessionId, Term, View,
};
pub use limits::{ComponentLimits, LimitsError};
pub use quorum::{
    BYZANTINE_REPLICAS_MIN, TooFewReplicas, byzantine_faults, byzantine_quorum, check_byzantine,
};
pub use time::{HlcTimestamp, Time};
