//! The byte form of messages: every message comes back, and nothing else is read.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use proptest::prelude::*;
use quorate_types::codec::{DecodeError, Reader, Writer};
use quorate_types::{
    BootNumber, Entry, EntryKind, Epoch, GroupId, HlcTimestamp, Incarnation, LogIndex, Position, Role, Term,
};

use super::cluster::{config, mark, member};
use crate::raft::{Body, Message, Pledge, ReadRound, Statement};
use crate::{Envelope, Message as AnyMessage};

fn counter() -> impl Strategy<Value = u64> {
    prop_oneof![0_u64..100, 0..=1_u64 << 62]
}

fn position() -> impl Strategy<Value = Position> {
    (counter(), counter(), counter()).prop_map(|(epoch, term, index)| Position {
        epoch: Epoch(epoch),
        term: Term(term),
        index: LogIndex(index),
    })
}

fn entry() -> impl Strategy<Value = Entry> {
    let body = prop::collection::vec(any::<u8>(), 0..40);
    (position(), any::<u64>(), 0_u8..3, body).prop_map(|(position, hlc, kind, body)| {
        let kind = EntryKind::try_from(kind).unwrap();
        let body = if kind == EntryKind::Empty { Bytes::new() } else { Bytes::from(body) };
        Entry { position, hlc: HlcTimestamp(hlc), kind, body }
    })
}

fn body() -> impl Strategy<Value = Body> {
    let index = || counter().prop_map(LogIndex);
    let round = || any::<u64>().prop_map(ReadRound);
    let entries = prop::collection::vec(entry(), 0..5);
    let statement = prop_oneof![
        position().prop_map(|last| Statement::PreVote { last }),
        Just(Statement::PreVoteGranted),
        Just(Statement::Refused),
        (position(), index(), entries).prop_map(|(prev, commit, entries)| Statement::Append {
            prev,
            commit,
            entries
        }),
        (index(), position()).prop_map(|(prev, hint)| Statement::AppendRefused { prev, hint }),
        index().prop_map(|index| Statement::StampRefused { index }),
        (index(), round()).prop_map(|(commit, round)| Statement::Heartbeat { commit, round }),
        round().prop_map(|round| Statement::HeartbeatAck { round }),
        (position(), any::<u64>(), 1_u64..5).prop_map(|(position, hlc, voters)| {
            let config = config((1..=voters).map(|node| member(node, Role::Voter, 1)).collect());
            Statement::SnapshotOffer { mark: Box::new(mark(position, HlcTimestamp(hlc), &config)) }
        }),
        Just(Statement::TimeoutNow),
    ];
    let pledge = prop_oneof![
        (position(), any::<bool>()).prop_map(|(last, transfer)| Pledge::Candidacy { last, transfer }),
        Just(Pledge::Vote),
        index().prop_map(|matched| Pledge::AppendAck { matched }),
    ];
    prop_oneof![statement.prop_map(Body::Statement), pledge.prop_map(Body::Pledge)]
}

fn message() -> impl Strategy<Value = Message> {
    (counter(), body()).prop_map(|(term, body)| Message { term: Term(term), body })
}

fn encoded(message: &Message) -> Bytes {
    let mut out = Writer::default();
    message.encode(&mut out);
    out.finish()
}

proptest! {
    #[test]
    fn a_message_round_trips_within_its_length_hint(message in message()) {
        let bytes = encoded(&message);
        if let Body::Statement(Statement::Append { .. } | Statement::SnapshotOffer { .. }) = message.body {
            prop_assert!(bytes.len() <= message.encoded_len_hint());
        }
        let mut from = Reader::new(bytes);
        prop_assert_eq!(Message::decode(&mut from), Ok(message));
        prop_assert_eq!(from.end(), Ok(()));
    }

    #[test]
    fn a_message_cut_short_is_refused(message in message()) {
        let bytes = encoded(&message);
        for len in 0..bytes.len() {
            prop_assert!(Message::decode(&mut Reader::new(bytes.slice(..len))).is_err());
        }
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let whole = Envelope::decode(Bytes::from(bytes.clone()));
        if let Ok(envelope) = whole {
            prop_assert_eq!(envelope.encode(), Bytes::from(bytes));
        }
    }
}

#[test]
fn an_envelope_round_trips_and_left_over_bytes_are_refused() {
    let message = Message { term: Term(3), body: Body::Pledge(Pledge::Vote) };
    let envelope = Envelope {
        group: GroupId(1),
        epoch: Epoch(2),
        incarnation: Incarnation(3),
        boot: BootNumber(4),
        to_incarnation: Incarnation(5),
        message: AnyMessage::Raft(message),
    };
    let bytes = envelope.encode();
    assert_eq!(Envelope::decode(bytes.clone()), Ok(envelope));
    let mut longer = bytes.to_vec();
    longer.push(0);
    assert_eq!(Envelope::decode(longer.into()), Err(DecodeError::Trailing { left: 1 }));
}

#[test]
fn terms_and_counts_beyond_reason_are_refused() {
    let mut out = Writer::default();
    out.u64(u64::MAX);
    out.u8(3);
    let term = Message::decode(&mut Reader::new(out.finish()));
    assert!(matches!(term, Err(DecodeError::TooLarge { what: "message term", .. })));
    let mut out = Writer::default();
    out.u64(1);
    out.u8(5);
    (0..4).for_each(|_| out.u64(0));
    out.u32(u32::MAX);
    let count = Message::decode(&mut Reader::new(out.finish()));
    assert!(matches!(count, Err(DecodeError::TooLarge { what: "message entries", bound: 0, .. })));
}
