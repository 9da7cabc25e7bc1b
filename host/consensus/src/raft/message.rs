//! What Raft replicas say to each other, and its byte form.
//!
//! Relies on the codec. Promises that what binds the sender ([`Pledge`]) and what does not
//! ([`Statement`]) are two types, so that the one cannot be sent as the other, and that every message
//! has one byte string. Does not know what a receiver makes of it.
//!
//! ```text
//! 0       8     9
//! +-------+-----+------...
//! | term  | tag | fields
//! +-------+-----+------...
//!
//! tag  fields                                      tag  fields
//!  1   last                       pre-vote         9    round                       heartbeat ack
//!  2                              pre-vote granted 10   position, stamp, config     snapshot offer
//!  3                              refused          11                               time out now
//!  5   prev, commit, n, entries   append           128  last, transfer              candidacy
//!  6   prev, hint                 append refused   129                              vote
//!  7   index                      stamp refused    130  matched                     append ack
//!  8   commit, round              heartbeat
//! ```

use quorate_types::codec::{DecodeError, Reader, Writer};
use quorate_types::{Entry, EpochConfig, HlcTimestamp, LogIndex, Position, Term};

use super::state::ReadRound;
use crate::SnapshotMark;

/// The greatest term or index that is taken from a peer; no honest history comes near it, and sums of
/// two of them do not overflow.
const COUNTER_MAX: u64 = 1 << 62;

/// A message of a Raft epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The sender's term; in a pre-vote and its grant, the term the asker would campaign in.
    pub term: Term,
    /// What is said.
    pub body: Body,
}

/// What is said, by whether it binds the sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Binds nobody: may leave at once.
    Statement(Statement),
    /// Promises something about the sender's durable state: leaves after it is durable.
    Pledge(Pledge),
}

/// What a replica may say without having stored anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// Would you vote for me? (Ongaro thesis §9.6)
    PreVote {
        /// The end of the asker's log.
        last: Position,
    },
    /// I would.
    PreVoteGranted,
    /// Not in your term: mine is in this message, or I have my reasons.
    Refused,
    /// Entries for a follower's log, or none, to find out where its log agrees.
    Append {
        /// The entry before the first one sent.
        prev: Position,
        /// The leader's commit index.
        commit: LogIndex,
        /// Consecutive entries.
        entries: Vec<Entry>,
    },
    /// My log does not hold `prev`.
    AppendRefused {
        /// The index of the `prev` that was refused.
        prev: LogIndex,
        /// The last place at which this log might agree.
        hint: Position,
    },
    /// An entry's stamp lies too far ahead of my clock.
    StampRefused {
        /// The first such entry.
        index: LogIndex,
    },
    /// The leader lives.
    Heartbeat {
        /// What the receiver is known to hold of what is committed.
        commit: LogIndex,
        /// The reads that an answer confirms.
        round: ReadRound,
    },
    /// I follow you.
    HeartbeatAck {
        /// As in the heartbeat.
        round: ReadRound,
    },
    /// The entries you lack are gone: fetch this snapshot.
    SnapshotOffer {
        /// What it includes.
        mark: Box<SnapshotMark>,
    },
    /// Campaign now, you are to lead (Ongaro thesis §3.10).
    TimeoutNow,
}

/// What a replica may say only once it is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pledge {
    /// I stand for election: this term, and my vote in it for myself, are stored.
    Candidacy {
        /// The end of the candidate's log.
        last: Position,
        /// The leader itself asked for this election.
        transfer: bool,
    },
    /// My vote in this term is yours, and stored.
    Vote,
    /// My stored log agrees with yours up to here.
    AppendAck {
        /// The last index that agrees.
        matched: LogIndex,
    },
}

impl Body {
    /// Whether only a leader says this.
    pub(super) fn is_from_leader(&self) -> bool {
        matches!(
            self,
            Self::Statement(
                Statement::Append { .. }
                    | Statement::Heartbeat { .. }
                    | Statement::SnapshotOffer { .. }
                    | Statement::TimeoutNow
            )
        )
    }
}

impl Message {
    /// About how many bytes [`Message::encode`] appends; never fewer for entries.
    #[must_use]
    pub fn encoded_len_hint(&self) -> usize {
        match &self.body {
            Body::Statement(Statement::Append { entries, .. }) => {
                64 + entries.iter().map(Entry::encoded_len).sum::<usize>()
            }
            Body::Statement(Statement::SnapshotOffer { mark }) => 128 + 18 * mark.config.members.len(),
            _ => 64,
        }
    }

    /// Appends the encoded form.
    pub fn encode(&self, out: &mut Writer) {
        out.u64(self.term.0);
        match &self.body {
            Body::Statement(statement) => statement.encode(out),
            Body::Pledge(pledge) => pledge.encode(out),
        }
    }

    /// Reads what [`Message::encode`] wrote; entry bodies share the reader's buffer.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] for bytes that are not a message, and for terms or indices beyond 2^62.
    pub fn decode(from: &mut Reader) -> Result<Self, DecodeError> {
        let term = Term(counter(from, "message term")?);
        let body = match from.u8("message tag")? {
            1 => Body::Statement(Statement::PreVote { last: position(from)? }),
            2 => Body::Statement(Statement::PreVoteGranted),
            3 => Body::Statement(Statement::Refused),
            5 => Body::Statement(Statement::decode_append(from)?),
            6 => Body::Statement(Statement::AppendRefused { prev: index(from)?, hint: position(from)? }),
            7 => Body::Statement(Statement::StampRefused { index: index(from)? }),
            8 => Body::Statement(Statement::Heartbeat {
                commit: index(from)?,
                round: ReadRound(from.u64("heartbeat round")?),
            }),
            9 => Body::Statement(Statement::HeartbeatAck { round: ReadRound(from.u64("heartbeat round")?) }),
            10 => Body::Statement(Statement::decode_offer(from)?),
            11 => Body::Statement(Statement::TimeoutNow),
            128 => Body::Pledge(Pledge::Candidacy {
                last: position(from)?,
                transfer: from.flag("candidacy by transfer")?,
            }),
            129 => Body::Pledge(Pledge::Vote),
            130 => Body::Pledge(Pledge::AppendAck { matched: index(from)? }),
            other => return Err(DecodeError::Unknown { what: "message tag", value: other.into() }),
        };
        Ok(Self { term, body })
    }
}

impl Statement {
    fn encode(&self, out: &mut Writer) {
        match self {
            Self::PreVote { last } => {
                out.u8(1);
                last.encode(out);
            }
            Self::PreVoteGranted => out.u8(2),
            Self::Refused => out.u8(3),
            Self::Append { prev, commit, entries } => {
                out.u8(5);
                prev.encode(out);
                out.u64(commit.0);
                out.u32(u32::try_from(entries.len()).expect("a message's entries are bounded in bytes"));
                entries.iter().for_each(|entry| entry.encode(out));
            }
            Self::AppendRefused { prev, hint } => {
                out.u8(6);
                out.u64(prev.0);
                hint.encode(out);
            }
            Self::StampRefused { index } => {
                out.u8(7);
                out.u64(index.0);
            }
            Self::Heartbeat { commit, round } => {
                out.u8(8);
                out.u64(commit.0);
                out.u64(round.0);
            }
            Self::HeartbeatAck { round } => {
                out.u8(9);
                out.u64(round.0);
            }
            Self::SnapshotOffer { mark } => {
                out.u8(10);
                mark.position.encode(out);
                out.u64(mark.hlc.0);
                mark.config.encode(out);
            }
            Self::TimeoutNow => out.u8(11),
        }
    }

    fn decode_append(from: &mut Reader) -> Result<Self, DecodeError> {
        let prev = position(from)?;
        let commit = index(from)?;
        // Each entry has a header, so what is left bounds the count and with it the allocation.
        let count = from.count(from.left() / Entry::HEADER_BYTES, "message entries")?;
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            let entry = Entry::decode(from)?;
            bounded(entry.position)?;
            entries.push(entry);
        }
        Ok(Self::Append { prev, commit, entries })
    }

    fn decode_offer(from: &mut Reader) -> Result<Self, DecodeError> {
        let position = position(from)?;
        let hlc = HlcTimestamp(from.u64("snapshot stamp")?);
        let config = EpochConfig::decode(from)?;
        Ok(Self::SnapshotOffer { mark: Box::new(SnapshotMark { position, hlc, config }) })
    }
}

impl Pledge {
    fn encode(&self, out: &mut Writer) {
        match self {
            Self::Candidacy { last, transfer } => {
                out.u8(128);
                last.encode(out);
                out.u8(u8::from(*transfer));
            }
            Self::Vote => out.u8(129),
            Self::AppendAck { matched } => {
                out.u8(130);
                out.u64(matched.0);
            }
        }
    }
}

fn within(value: u64, what: &'static str) -> Result<u64, DecodeError> {
    if value > COUNTER_MAX {
        return Err(DecodeError::TooLarge { what, value, bound: COUNTER_MAX });
    }
    Ok(value)
}

fn counter(from: &mut Reader, what: &'static str) -> Result<u64, DecodeError> {
    within(from.u64(what)?, what)
}

fn index(from: &mut Reader) -> Result<LogIndex, DecodeError> {
    counter(from, "message index").map(LogIndex)
}

fn position(from: &mut Reader) -> Result<Position, DecodeError> {
    bounded(Position::decode(from)?)
}

fn bounded(position: Position) -> Result<Position, DecodeError> {
    within(position.term.0, "position term")?;
    within(position.index.0, "position index")?;
    Ok(position)
}
