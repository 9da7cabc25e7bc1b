//! The byte form of batches: every value comes back, and no other bytes are taken for one.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use quorate_types::{EntryKind, Epoch, HlcTimestamp, Position, Term};

use super::*;

fn entry() -> impl Strategy<Value = Entry> {
    (any::<[u64; 4]>(), prop::collection::vec(any::<u8>(), 0..300)).prop_map(
        |([epoch, term, index, hlc], body)| Entry {
            position: Position { epoch: Epoch(epoch), term: Term(term), index: LogIndex(index) },
            hlc: HlcTimestamp(hlc),
            kind: if body.is_empty() { EntryKind::Empty } else { EntryKind::Batch },
            body: body.into(),
        },
    )
}

fn owner() -> impl Strategy<Value = Owner> {
    any::<[u64; 3]>().prop_map(|[group, incarnation, boot]| Owner {
        group: GroupId(group),
        incarnation: Incarnation(incarnation),
        boot: BootNumber(boot),
    })
}

fn hard_state() -> impl Strategy<Value = Option<Bytes>> {
    prop::option::of(prop::collection::vec(any::<u8>(), 0..64).prop_map(Bytes::from))
}

fn damage() -> impl Strategy<Value = Option<Damage>> {
    let kinds = prop_oneof![
        Just(DamageKind::Corrupt),
        Just(DamageKind::SegmentMissing),
        Just(DamageKind::LogMissing),
        Just(DamageKind::EntriesMissing)
    ];
    prop::option::of((kinds, any::<[u64; 3]>()).prop_map(|(kind, [segment, offset, bytes])| Damage {
        kind,
        segment,
        offset,
        bytes,
    }))
}

fn record() -> impl Strategy<Value = Record> {
    let entries = || prop::collection::vec(entry(), 0..6);
    prop_oneof![
        (owner(), hard_state(), any::<u64>(), entries()).prop_map(|(owner, hard_state, base, entries)| {
            Record::Append { owner, hard_state, base: LogIndex(base), entries }
        }),
        (owner(), hard_state(), any::<u64>(), any::<bool>(), damage(), entries()).prop_map(
            |(owner, hard_state, base, whole, damage, entries)| {
                let standing = Standing { hard_state, base: LogIndex(base), whole, damage };
                Record::Standing { owner, standing, entries }
            }
        ),
        any::<[u64; 2]>()
            .prop_map(|[group, through]| Record::Base { group: GroupId(group), through: LogIndex(through) }),
        any::<[u64; 2]>()
            .prop_map(|[group, after]| Record::Reset { group: GroupId(group), after: LogIndex(after) }),
        any::<u64>().prop_map(|group| Record::Forget { group: GroupId(group) }),
        any::<u64>().prop_map(|group| Record::Repaired { group: GroupId(group) }),
    ]
}

fn borrowed(record: &Record) -> RecordRef<'_> {
    match record {
        Record::Append { owner, hard_state, base, entries } => {
            RecordRef::Append { owner: *owner, hard_state: hard_state.as_ref(), base: *base, entries }
        }
        Record::Standing { owner, standing, entries } => {
            RecordRef::Standing { owner: *owner, standing, entries }
        }
        Record::Base { group, through } => RecordRef::Base { group: *group, through: *through },
        Record::Reset { group, after } => RecordRef::Reset { group: *group, after: *after },
        Record::Forget { group } => RecordRef::Forget { group: *group },
        Record::Repaired { group } => RecordRef::Repaired { group: *group },
    }
}

const PLACE: BatchPlace = BatchPlace {
    segment: SegmentNumber(3),
    sequence: 4,
    first_record: 5,
    confirmed: LogOffset { segment: SegmentNumber(2), offset: 8_192 },
    salt: 6,
};

fn sealed(records: &[Record]) -> Vec<u8> {
    let mut builder = BatchBuilder::default();
    builder.clear();
    records.iter().for_each(|record| builder.push(&borrowed(record)));
    let expected = builder.stored_bytes();
    let bytes = builder.seal(PLACE).to_vec();
    assert_eq!(bytes.len() as u64, expected);
    bytes
}

fn open(bytes: &[u8]) -> Option<(BatchHeader, Result<Vec<Record>, DecodeError>)> {
    let header = BatchHeader::decode(bytes.first_chunk()?)?;
    let payload = bytes.get(BATCH_HEADER_BYTES..BATCH_HEADER_BYTES + header.payload_bytes as usize)?;
    if !header.vouches_for(payload) {
        return None;
    }
    Some((header, decode_records(&header, Bytes::copy_from_slice(payload))))
}

proptest! {
    #[test]
    fn batches_round_trip(records in prop::collection::vec(record(), 0..8)) {
        let bytes = sealed(&records);
        prop_assert_eq!(bytes.len() % 512, 0);
        let (header, read) = open(&bytes).unwrap();
        prop_assert_eq!(header.stored_bytes(), bytes.len() as u64);
        prop_assert_eq!((header.segment, header.sequence, header.first_record), (PLACE.segment, 4, 5));
        prop_assert_eq!((header.confirmed, header.salt), (PLACE.confirmed, 6));
        prop_assert_eq!(read.unwrap(), records);
    }

    #[test]
    fn a_changed_bit_is_never_taken_for_a_batch(
        records in prop::collection::vec(record(), 1..4),
        place in any::<prop::sample::Index>(),
        bit in 0u8..8,
    ) {
        let mut bytes = sealed(&records);
        let header = BatchHeader::decode(bytes.first_chunk().unwrap()).unwrap();
        let meaningful = BATCH_HEADER_BYTES + header.payload_bytes as usize;
        bytes[place.index(meaningful)] ^= 1 << bit;
        prop_assert!(open(&bytes).is_none());
    }

    #[test]
    fn any_payload_decodes_or_is_refused(
        payload in prop::collection::vec(any::<u8>(), 0..600),
        records in 0u32..9,
    ) {
        let bytes = sealed(&[]);
        let header = BatchHeader { records, ..BatchHeader::decode(bytes.first_chunk().unwrap()).unwrap() };
        if let Ok(read) = decode_records(&header, payload.into()) {
            prop_assert_eq!(read.len(), records as usize);
        }
    }
}
