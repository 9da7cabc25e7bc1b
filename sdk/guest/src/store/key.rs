//! Keys as bytes whose order is the order of the values.
//!
//! Relies on nothing. Promises that no encoded key is the beginning of another of its type, and that
//! `a < b` exactly when the encoding of `a` is below that of `b`. Knows no map.
//!
//! ```text
//! u8 .. u128       big-endian
//! i8 .. i128       big-endian, sign bit turned
//! bool             0 or 1
//! String, Bytes    the bytes, 00 written as 00 FF, then 00 00
//! [u8; N]          the bytes
//! (A, B, ..)       one after the other
//! ```

use crate::Bytes;

/// A type that can be the key of a [`Map`](crate::Map).
///
/// For a newtype of your own, implement it and [`AsKey`] by calling those of the inner type.
pub trait Key: AsKey<Self> + Sized {
    /// Takes an encoded key from the front; `None` if there is none.
    fn read_key(from: &mut &[u8]) -> Option<Self>;
}

/// Something that can be looked up where keys are `K`, such as a `str` for a `String`.
pub trait AsKey<K> {
    /// Appends the encoding.
    fn write_key(&self, out: &mut Vec<u8>);
}

impl<K, Q: AsKey<K> + ?Sized> AsKey<K> for &Q {
    fn write_key(&self, out: &mut Vec<u8>) {
        (**self).write_key(out);
    }
}

macro_rules! integer_keys {
    ($($signed:ty, $unsigned:ty);*) => {$(
        impl AsKey<$unsigned> for $unsigned {
            fn write_key(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_be_bytes());
            }
        }

        impl Key for $unsigned {
            fn read_key(from: &mut &[u8]) -> Option<Self> {
                from.split_off(..size_of::<Self>())?.try_into().ok().map(Self::from_be_bytes)
            }
        }

        impl AsKey<$signed> for $signed {
            fn write_key(&self, out: &mut Vec<u8>) {
                // With the sign bit turned, negative numbers come first.
                (self.cast_unsigned() ^ <$signed>::MIN.cast_unsigned()).write_key(out);
            }
        }

        impl Key for $signed {
            fn read_key(from: &mut &[u8]) -> Option<Self> {
                let turned = <$unsigned>::read_key(from)?;
                Some((turned ^ <$signed>::MIN.cast_unsigned()).cast_signed())
            }
        }
    )*};
}

integer_keys!(i8, u8; i16, u16; i32, u32; i64, u64; i128, u128);

impl AsKey<bool> for bool {
    fn write_key(&self, out: &mut Vec<u8>) {
        out.push((*self).into());
    }
}

impl Key for bool {
    fn read_key(from: &mut &[u8]) -> Option<Self> {
        match u8::read_key(from)? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

/// Writes a string without its end, so that it is also the beginning of all that start with it.
pub(super) fn write_open_string(bytes: &[u8], out: &mut Vec<u8>) {
    for (place, part) in bytes.split(|byte| *byte == 0).enumerate() {
        if place > 0 {
            out.extend_from_slice(&[0x00, 0xff]);
        }
        out.extend_from_slice(part);
    }
}

fn write_string(bytes: &[u8], out: &mut Vec<u8>) {
    write_open_string(bytes, out);
    out.extend_from_slice(&[0x00, 0x00]);
}

fn read_string(from: &mut &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        let zero = from.iter().position(|byte| *byte == 0)?;
        bytes.extend_from_slice(&from[..zero]);
        let next = *from.get(zero + 1)?;
        *from = &from[zero + 2..];
        match next {
            0x00 => return Some(bytes),
            0xff => bytes.push(0),
            _ => return None,
        }
    }
}

impl AsKey<String> for str {
    fn write_key(&self, out: &mut Vec<u8>) {
        write_string(self.as_bytes(), out);
    }
}

impl AsKey<String> for String {
    fn write_key(&self, out: &mut Vec<u8>) {
        write_string(self.as_bytes(), out);
    }
}

impl Key for String {
    fn read_key(from: &mut &[u8]) -> Option<Self> {
        String::from_utf8(read_string(from)?).ok()
    }
}

impl AsKey<Bytes> for [u8] {
    fn write_key(&self, out: &mut Vec<u8>) {
        write_string(self, out);
    }
}

impl AsKey<Bytes> for Bytes {
    fn write_key(&self, out: &mut Vec<u8>) {
        write_string(self, out);
    }
}

impl Key for Bytes {
    fn read_key(from: &mut &[u8]) -> Option<Self> {
        read_string(from).map(Bytes)
    }
}

impl<const N: usize> AsKey<[u8; N]> for [u8; N] {
    fn write_key(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
}

impl<const N: usize> Key for [u8; N] {
    fn read_key(from: &mut &[u8]) -> Option<Self> {
        from.split_off(..N)?.try_into().ok()
    }
}

macro_rules! tuple_keys {
    ($($key:ident $query:ident $place:tt),*) => {
        impl<$($key, $query: AsKey<$key>),*> AsKey<($($key,)*)> for ($($query,)*) {
            fn write_key(&self, out: &mut Vec<u8>) {
                $(self.$place.write_key(out);)*
            }
        }

        impl<$($key: Key),*> Key for ($($key,)*) {
            fn read_key(from: &mut &[u8]) -> Option<Self> {
                Some(($($key::read_key(from)?,)*))
            }
        }
    };
}

tuple_keys!(A P 0, B Q 1);
tuple_keys!(A P 0, B Q 1, C R 2);
tuple_keys!(A P 0, B Q 1, C R 2, D S 3);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn encoded<K: Key>(key: &K) -> Vec<u8> {
        let mut out = Vec::new();
        key.write_key(&mut out);
        out
    }

    fn round_trips<K: Key + PartialEq + std::fmt::Debug>(key: &K) {
        let bytes = encoded(key);
        let mut rest = &bytes[..];
        assert_eq!(K::read_key(&mut rest).as_ref(), Some(key));
        assert!(rest.is_empty(), "{key:?} leaves {rest:?}");
    }

    /// Strings of few letters, zero among them, so that beginnings and zeros meet often.
    fn strings() -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(0xfe), Just(0xff), any::<u8>()], 0..5)
            .prop_map(Bytes)
    }

    proptest! {
        #[test]
        fn order_and_value_survive(
            a in (strings(), any::<i64>(), any::<u16>()),
            b in (strings(), any::<i64>(), any::<u16>()),
        ) {
            round_trips(&a);
            prop_assert_eq!(a.cmp(&b), encoded(&a).cmp(&encoded(&b)));
            prop_assert_eq!(a.0.cmp(&b.0), encoded(&a.0).cmp(&encoded(&b.0)));
            if a.0 != b.0 {
                prop_assert!(!encoded(&b.0).starts_with(&encoded(&a.0)), "no key begins another");
            }
        }

        #[test]
        fn bytes_that_are_no_key_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..20)) {
            // Whatever reads must be what its own encoding says.
            let mut rest = &bytes[..];
            if let Some(key) = <(String, u32, bool, [u8; 3])>::read_key(&mut rest) {
                prop_assert_eq!(encoded(&key), &bytes[..bytes.len() - rest.len()]);
            }
        }
    }

    #[test]
    fn cut_keys_are_no_keys() {
        let bytes = encoded(&("a\0b".to_owned(), 7u64));
        for cut in 0..bytes.len() {
            assert_eq!(<(String, u64)>::read_key(&mut &bytes[..cut]), None, "cut at {cut}");
        }
    }

    #[test]
    fn borrowed_parts_look_up_owned_keys() {
        let mut borrowed = Vec::new();
        AsKey::<(String, u64)>::write_key(&("a", 7u64), &mut borrowed);
        assert_eq!(borrowed, encoded(&("a".to_owned(), 7u64)));
    }
}
