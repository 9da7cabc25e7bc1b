//! What could go wrong: another CBOR implementation reads something else, or bytes from outside crash.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::{CodecError, DEPTH_MAX, from_slice, to_vec};
use crate::Bytes;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Kind {
    Plain,
    Named(String),
    Pair(i32, bool),
    Record { wide: u128, low: i128 },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Everything {
    kind: Kind,
    unsigned: u64,
    signed: i64,
    text: String,
    letter: char,
    bytes: Bytes,
    maybe: Option<u32>,
    list: Vec<(i16, ())>,
    map: BTreeMap<String, f64>,
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(Kind::Plain),
        any::<String>().prop_map(Kind::Named),
        any::<(i32, bool)>().prop_map(|(number, flag)| Kind::Pair(number, flag)),
        any::<(u128, i128)>().prop_map(|(wide, low)| Kind::Record { wide, low }),
    ]
}

prop_compose! {
    fn everything()(
        kind in kinds(),
        (unsigned, signed, text, letter) in any::<(u64, i64, String, char)>(),
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        maybe in any::<Option<u32>>(),
        list in proptest::collection::vec(any::<(i16, ())>(), 0..40),
        map in proptest::collection::btree_map(any::<String>(), any::<f64>(), 0..5),
    ) -> Everything {
        Everything { kind, unsigned, signed, text, letter, bytes: Bytes(bytes), maybe, list, map }
    }
}

/// Any CBOR value of moderate size.
fn values() -> impl Strategy<Value = ciborium::Value> {
    use ciborium::Value;
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        Just(Value::Null),
        any::<i64>().prop_map(|number| Value::Integer(number.into())),
        any::<u64>().prop_map(|number| Value::Integer(number.into())),
        any::<f32>().prop_map(|number| Value::Float(number.into())),
        any::<f64>().prop_map(Value::Float),
        any::<String>().prop_map(Value::Text),
        proptest::collection::vec(any::<u8>(), 0..30).prop_map(Value::Bytes),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            proptest::collection::vec((any::<String>().prop_map(Value::Text), inner.clone()), 0..6)
                .prop_map(Value::Map),
            (100u64..200, inner).prop_map(|(tag, value)| Value::Tag(tag, Box::new(value))),
        ]
    })
}

proptest! {
    #[test]
    fn values_round_trip_here_and_through_another_implementation(value in everything()) {
        let bytes = to_vec(&value).unwrap();
        prop_assert_eq!(&from_slice::<Everything>(&bytes).unwrap(), &value);
        prop_assert_eq!(&ciborium::from_reader::<Everything, _>(&bytes[..]).unwrap(), &value);
        let mut theirs = Vec::new();
        ciborium::into_writer(&value, &mut theirs).unwrap();
        prop_assert_eq!(&from_slice::<Everything>(&theirs).unwrap(), &value);
    }

    #[test]
    fn whatever_another_implementation_writes_is_read_whole(value in values()) {
        let mut bytes = Vec::new();
        ciborium::into_writer(&value, &mut bytes).unwrap();
        prop_assert_eq!(from_slice::<serde::de::IgnoredAny>(&bytes), Ok(serde::de::IgnoredAny));
        for cut in 0..bytes.len() {
            prop_assert!(from_slice::<serde::de::IgnoredAny>(&bytes[..cut]).is_err(), "cut at {}", cut);
        }
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        // Only what reads must also read as itself again.
        if let Ok(value) = from_slice::<Everything>(&bytes) {
            prop_assert_eq!(from_slice::<Everything>(&to_vec(&value).unwrap()), Ok(value));
        }
        let (Ok(_) | Err(_)) = from_slice::<ciborium::Value>(&bytes);
    }
}

#[test]
fn the_standards_examples_are_read_and_written_alike() {
    // RFC 8949, appendix A.
    assert_eq!(to_vec(&0u8).unwrap(), [0x00]);
    assert_eq!(to_vec(&23u64).unwrap(), [0x17]);
    assert_eq!(to_vec(&24u64).unwrap(), [0x18, 0x18]);
    assert_eq!(to_vec(&1_000_000u32).unwrap(), [0x1a, 0x00, 0x0f, 0x42, 0x40]);
    assert_eq!(to_vec(&u64::MAX).unwrap(), [0x1b, 255, 255, 255, 255, 255, 255, 255, 255]);
    assert_eq!(to_vec(&(u128::from(u64::MAX) + 1)).unwrap(), [0xc2, 0x49, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(to_vec(&-1i8).unwrap(), [0x20]);
    assert_eq!(to_vec(&-1000i64).unwrap(), [0x39, 0x03, 0xe7]);
    assert_eq!(to_vec(&(-i128::from(u64::MAX) - 2)).unwrap(), [0xc3, 0x49, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(to_vec("ü").unwrap(), [0x62, 0xc3, 0xbc]);
    assert_eq!(to_vec(&()).unwrap(), [0xf6]);
    for (bytes, value) in [
        (&[0xf9, 0x00, 0x00][..], 0.0),
        (&[0xf9, 0x3c, 0x00], 1.0),
        (&[0xf9, 0x3e, 0x00], 1.5),
        (&[0xf9, 0x7b, 0xff], 65504.0),
        (&[0xf9, 0x00, 0x01], 5.960_464_477_539_063e-8),
        (&[0xf9, 0xc4, 0x00], -4.0),
        (&[0xfa, 0x47, 0xc3, 0x50, 0x00], 100_000.0),
        (&[0xfb, 0x3f, 0xf1, 0x99, 0x99, 0x99, 0x99, 0x99, 0x9a], 1.1),
        (&[0xf9, 0x7c, 0x00], f64::INFINITY),
    ] {
        assert_eq!(from_slice::<f64>(bytes), Ok(value));
    }
    assert!(from_slice::<f64>(&[0xf9, 0x7e, 0x00]).unwrap().is_nan());
    // Indefinite lengths, which are read but not written.
    assert_eq!(from_slice::<String>(&[0x7f, 0x62, b'a', b'b', 0x61, b'c', 0xff]).unwrap(), "abc");
    assert_eq!(from_slice::<Vec<u8>>(&[0x9f, 1, 2, 0xff]), Ok(vec![1, 2]));
    assert_eq!(from_slice::<BTreeMap<String, u8>>(&[0xbf, 0x61, b'a', 1, 0xff]).unwrap()["a"], 1);
    // A tag that is not known.
    assert_eq!(from_slice::<u32>(&[0xc1, 0x1a, 0x51, 0x4b, 0x67, 0xb0]), Ok(1_363_896_240));
}

#[test]
fn what_comes_from_json_fits() {
    assert_eq!(from_slice::<f64>(&[5]), Ok(5.0), "a whole number in a float field");
    assert_eq!(from_slice::<Bytes>(&[0x62, b'h', b'i']), Ok("hi".into()), "a text in a byte field");
    assert_eq!(from_slice::<Bytes>(&[0x82, 1, 2]), Ok(vec![1, 2].into()), "an array in a byte field");
    assert_eq!(from_slice::<Option<u8>>(&[0xf6]), Ok(None));
    assert_eq!(from_slice::<Kind>(&[0xa1, 0x65, b'P', b'l', b'a', b'i', b'n', 0xf6]), Ok(Kind::Plain));
}

#[test]
fn what_does_not_fit_is_refused() {
    let refused = |bytes: &[u8]| from_slice::<u8>(bytes).unwrap_err();
    assert_eq!(refused(&[]), CodecError::Ended);
    assert_eq!(refused(&[1, 2]), CodecError::Trailing(1));
    assert_eq!(refused(&[0x1c]), CodecError::Unexpected { byte: 0x1c, at: "a number" });
    assert_eq!(refused(&[0x61, b'a']).to_string(), "invalid type: a text, expected u8");
    assert_eq!(refused(&[0x19, 1, 0]).to_string(), "invalid value: integer `256`, expected u8");
    assert_eq!(from_slice::<String>(&[0x61, 0xff]), Err(CodecError::NotText));
    assert!(from_slice::<u128>(&[0xc2, 0x51, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).is_err());
    assert!(from_slice::<(u8, u8)>(&[0x83, 1, 2, 3]).is_err(), "too long a tuple");
    assert!(from_slice::<(u8, u8)>(&[0x81, 1]).is_err(), "too short a tuple");
    assert!(from_slice::<String>(&[0x7f, 0x41, b'a', 0xff]).is_err(), "bytes within a text");
    // A length that no input justifies.
    assert_eq!(
        from_slice::<Vec<u64>>(&[0x9b, 0xff, 255, 255, 255, 255, 255, 255, 255]),
        Err(CodecError::Ended)
    );
    assert_eq!(from_slice::<Bytes>(&[0x5b, 0xff, 255, 255, 255, 255, 255, 255, 255]), Err(CodecError::Ended));
}

#[derive(Debug, Serialize, Deserialize)]
enum Tree {
    Leaf,
    Branch(Vec<Tree>),
}

#[test]
fn nesting_beyond_the_bound_is_refused_in_both_directions() {
    let arrays = |depth: usize| [vec![0x81; depth], vec![0x01]].concat();
    let depth = DEPTH_MAX as usize;
    assert!(from_slice::<serde::de::IgnoredAny>(&arrays(depth)).is_ok());
    assert_eq!(from_slice::<serde::de::IgnoredAny>(&arrays(depth + 1)), Err(CodecError::TooDeep));
    assert_eq!(from_slice::<serde::de::IgnoredAny>(&arrays(1 << 20)), Err(CodecError::TooDeep));
    // Tags are stepped over one by one: a million of them neither nests nor fails.
    let tags = [vec![0xc1; 1 << 20], vec![0x01]].concat();
    assert_eq!(from_slice::<u8>(&tags), Ok(1));
    let tree = |depth: usize| (0..depth).fold(Tree::Leaf, |tree, _| Tree::Branch(vec![tree]));
    assert!(to_vec(&tree(depth / 2)).is_ok());
    assert_eq!(to_vec(&tree(depth / 2 + 1)), Err(CodecError::TooDeep));
}

#[test]
fn every_nan_is_one_nan() {
    let odd = f64::from_bits(0xfff0_0000_0000_0001);
    assert_eq!(to_vec(&odd).unwrap(), to_vec(&f64::NAN).unwrap());
    assert_eq!(to_vec(&f32::from_bits(0xff80_0001)).unwrap(), to_vec(&f32::NAN).unwrap());
}
