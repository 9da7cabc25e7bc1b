//! An enum as a name and a body: how commands, queries and events travel.
//!
//! Relies on the CBOR codec and on serde's view of enums. Promises that variant `CompareAndSet { key }`
//! is named `compare-and-set` and has its fields as body, that what [`encode`] writes [`decode`] reads,
//! and that nothing is decoded twice. Knows no command.
//!
//! ```text
//! Deposit { account, amount }  ->  "deposit"  {"account": .., "amount": ..}     a CBOR map
//! Rename(String)               ->  "rename"   the string itself
//! Swap(u8, u8)                 ->  "swap"     a CBOR array
//! Reset                        ->  "reset"    no bytes; null and {} are read as well
//! ```

use serde::Serialize;
use serde::de::{self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, Visitor};
use serde::ser::{self, Impossible};

use crate::cbor::{self, CodecError, Decoder, Encoder};

/// The CBOR of a map without pairs, which stands for a body that was left out.
const EMPTY_MAP: &[u8] = &[0xa0];
/// The CBOR of null.
const NULL: &[u8] = &[0xf6];

/// Why a name and a body are not a value of the enum.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NamedError {
    /// No variant has this name.
    #[error("nothing is called by this name")]
    UnknownName,
    /// The variant's fields do not read.
    #[error(transparent)]
    Body(#[from] CodecError),
}

impl de::Error for NamedError {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self::Body(de::Error::custom(message))
    }
}

/// Reads the variant of this name from its body.
///
/// # Errors
///
/// [`NamedError::UnknownName`], or whatever is wrong with the body.
pub fn decode<T: DeserializeOwned>(name: &str, body: &[u8]) -> Result<T, NamedError> {
    T::deserialize(Named { name, body })
}

/// A value's name and body. A struct is named after its type.
///
/// # Errors
///
/// When the type is neither enum nor struct, or its `Serialize` refuses.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<(String, Vec<u8>), CodecError> {
    let mut body = Vec::with_capacity(64);
    let name = value.serialize(Splitter { body: &mut body })?;
    Ok((name, body))
}

/// `CompareAndSet` and `compare_and_set` as `compare-and-set`, as serde's own `kebab-case` does.
pub(crate) fn kebab_case(name: &str) -> String {
    let mut kebab = String::with_capacity(name.len() + 4);
    for (place, letter) in name.char_indices() {
        if letter.is_uppercase() {
            if place > 0 {
                kebab.push('-');
            }
            kebab.extend(letter.to_lowercase());
        } else {
            kebab.push(if letter == '_' { '-' } else { letter });
        }
    }
    kebab
}

/// Whether [`kebab_case`] of this variant is this name; without an allocation, since every command asks.
fn is_called(variant: &str, name: &str) -> bool {
    if !variant.is_ascii() {
        return kebab_case(variant) == name;
    }
    let mut rest = name.as_bytes().iter();
    for (place, letter) in variant.bytes().enumerate() {
        if letter.is_ascii_uppercase() && place > 0 && rest.next() != Some(&b'-') {
            return false;
        }
        let expected = if letter == b'_' { b'-' } else { letter.to_ascii_lowercase() };
        if rest.next() != Some(&expected) {
            return false;
        }
    }
    rest.next().is_none()
}

/// A name and a body, to be read as an enum.
struct Named<'de> {
    name: &'de str,
    body: &'de [u8],
}

impl<'de> Deserializer<'de> for Named<'de> {
    type Error = NamedError;

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, NamedError> {
        let variant = variants.iter().find(|variant| is_called(variant, self.name));
        let variant = variant.ok_or(NamedError::UnknownName)?;
        visitor.visit_enum(Variant { variant, body: self.body })
    }

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, NamedError> {
        Err(NamedError::UnknownName)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

/// The variant that was asked for, and its body.
struct Variant<'de> {
    variant: &'static str,
    body: &'de [u8],
}

impl<'de> Variant<'de> {
    fn read<T>(
        bytes: &'de [u8],
        read: impl FnOnce(&mut Decoder<'de>) -> Result<T, CodecError>,
    ) -> Result<T, NamedError> {
        let mut decoder = Decoder::new(bytes);
        let value = read(&mut decoder)?;
        cbor::finish(&decoder)?;
        Ok(value)
    }
}

impl<'de> de::EnumAccess<'de> for Variant<'de> {
    type Error = NamedError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), NamedError> {
        let value: Result<V::Value, NamedError> = seed.deserialize(self.variant.into_deserializer());
        Ok((value?, self))
    }
}

impl<'de> de::VariantAccess<'de> for Variant<'de> {
    type Error = NamedError;

    fn unit_variant(self) -> Result<(), NamedError> {
        if self.body.is_empty() || self.body == EMPTY_MAP || self.body == NULL {
            Ok(())
        } else {
            Err(de::Error::custom("takes no body"))
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, NamedError> {
        Self::read(self.body, |decoder| seed.deserialize(decoder))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, NamedError> {
        Self::read(self.body, |decoder| decoder.deserialize_seq(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, NamedError> {
        let body = if self.body.is_empty() || self.body == NULL { EMPTY_MAP } else { self.body };
        Self::read(body, |decoder| decoder.deserialize_map(visitor))
    }
}

/// Takes an enum or a struct apart; answers with its name, and leaves its body behind.
struct Splitter<'a> {
    body: &'a mut Vec<u8>,
}

/// The fields of a variant on their way into the body.
struct Fields<'a> {
    name: String,
    items: cbor::Items<'a>,
}

fn neither<T>() -> Result<T, CodecError> {
    Err(CodecError::Custom("only an enum or a struct has a name".into()))
}

/// Everything without a name of its own.
macro_rules! nameless {
    ($($method:ident($kind:ty)),*) => {$(
        fn $method(self, _value: $kind) -> Result<String, CodecError> {
            neither()
        }
    )*};
}

impl<'a> ser::Serializer for Splitter<'a> {
    type Ok = String;
    type Error = CodecError;
    type SerializeSeq = Impossible<String, CodecError>;
    type SerializeTuple = Impossible<String, CodecError>;
    type SerializeTupleStruct = Fields<'a>;
    type SerializeTupleVariant = Fields<'a>;
    type SerializeMap = Impossible<String, CodecError>;
    type SerializeStruct = Fields<'a>;
    type SerializeStructVariant = Fields<'a>;

    nameless!(
        serialize_bool(bool),
        serialize_i8(i8),
        serialize_i16(i16),
        serialize_i32(i32),
        serialize_i64(i64),
        serialize_u8(u8),
        serialize_u16(u16),
        serialize_u32(u32),
        serialize_u64(u64),
        serialize_f32(f32),
        serialize_f64(f64),
        serialize_char(char),
        serialize_str(&str),
        serialize_bytes(&[u8])
    );

    fn serialize_none(self) -> Result<String, CodecError> {
        neither()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<String, CodecError> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<String, CodecError> {
        neither()
    }

    fn serialize_unit_struct(self, name: &'static str) -> Result<String, CodecError> {
        Ok(kebab_case(name))
    }

    fn serialize_unit_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
    ) -> Result<String, CodecError> {
        Ok(kebab_case(variant))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<String, CodecError> {
        cbor::write(value, self.body)?;
        Ok(kebab_case(name))
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<String, CodecError> {
        cbor::write(value, self.body)?;
        Ok(kebab_case(variant))
    }

    fn serialize_seq(self, _len: Option<usize>) -> Result<Self::SerializeSeq, CodecError> {
        neither()
    }

    fn serialize_tuple(self, _len: usize) -> Result<Self::SerializeTuple, CodecError> {
        neither()
    }

    fn serialize_tuple_struct(self, name: &'static str, len: usize) -> Result<Fields<'a>, CodecError> {
        let items = Encoder::new(self.body).serialize_tuple(len)?;
        Ok(Fields { name: kebab_case(name), items })
    }

    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Fields<'a>, CodecError> {
        self.serialize_tuple_struct(variant, len)
    }

    fn serialize_map(self, _len: Option<usize>) -> Result<Self::SerializeMap, CodecError> {
        neither()
    }

    fn serialize_struct(self, name: &'static str, len: usize) -> Result<Fields<'a>, CodecError> {
        let items = Encoder::new(self.body).serialize_struct(name, len)?;
        Ok(Fields { name: kebab_case(name), items })
    }

    fn serialize_struct_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Fields<'a>, CodecError> {
        self.serialize_struct(variant, len)
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

macro_rules! positions_are {
    ($($role:ident),*) => {$(
        impl ser::$role for Fields<'_> {
            type Ok = String;
            type Error = CodecError;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
                ser::SerializeTuple::serialize_element(&mut self.items, value)
            }

            fn end(self) -> Result<String, CodecError> {
                ser::SerializeTuple::end(self.items)?;
                Ok(self.name)
            }
        }
    )*};
}

positions_are!(SerializeTupleStruct, SerializeTupleVariant);

macro_rules! fields_are {
    ($($role:ident),*) => {$(
        impl ser::$role for Fields<'_> {
            type Ok = String;
            type Error = CodecError;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), CodecError> {
                ser::SerializeStruct::serialize_field(&mut self.items, name, value)
            }

            fn end(self) -> Result<String, CodecError> {
                ser::SerializeStruct::end(self.items)?;
                Ok(self.name)
            }
        }
    )*};
}

fields_are!(SerializeStruct, SerializeStructVariant);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Command {
        Reset,
        Rename(String),
        Swap(u8, u8),
        CompareAndSet { key: String, to: Option<u64> },
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Renamed {
        CompareAndSet,
        #[serde(rename = "set")]
        Put,
    }

    #[test]
    fn every_kind_of_variant_round_trips_under_its_name() {
        let commands = [
            (Command::Reset, "reset"),
            (Command::Rename("n".into()), "rename"),
            (Command::Swap(1, 2), "swap"),
            (Command::CompareAndSet { key: "k".into(), to: Some(3) }, "compare-and-set"),
        ];
        for (command, expected) in commands {
            let (name, body) = encode(&command).unwrap();
            assert_eq!(name, expected);
            assert_eq!(decode::<Command>(&name, &body).unwrap(), command);
        }
    }

    #[test]
    fn names_that_serde_already_changed_are_kept() {
        assert_eq!(encode(&Renamed::CompareAndSet).unwrap().0, "compare-and-set");
        assert_eq!(decode::<Renamed>("compare-and-set", &[]), Ok(Renamed::CompareAndSet));
        assert_eq!(decode::<Renamed>("set", &[]), Ok(Renamed::Put));
        assert_eq!(decode::<Renamed>("put", &[]), Err(NamedError::UnknownName));
    }

    #[test]
    fn a_name_matches_exactly_its_variant() {
        for name in ["CompareAndSet", "compare_and_set", "compare-and-set-", "compare-and-se", "", "-reset"] {
            assert_eq!(decode::<Command>(name, EMPTY_MAP), Err(NamedError::UnknownName), "{name}");
        }
        for variant in ["Reset", "CompareAndSet", "V2", "snake_case", "ÄpfelÖl", "already-kebab"] {
            assert!(is_called(variant, &kebab_case(variant)), "{variant}");
        }
    }

    #[test]
    fn a_body_that_was_left_out_is_an_empty_one() {
        for body in [&[][..], EMPTY_MAP, NULL] {
            assert_eq!(decode::<Command>("reset", body), Ok(Command::Reset));
            let refused = decode::<Command>("compare-and-set", body).unwrap_err();
            assert_eq!(refused.to_string(), "missing field `key`");
        }
    }

    #[test]
    fn a_body_that_does_not_fit_is_refused() {
        assert!(decode::<Command>("reset", &[1]).is_err());
        assert!(decode::<Command>("rename", &[1]).is_err());
        assert!(decode::<Command>("swap", &[0x81, 1]).is_err(), "too short");
        assert!(decode::<Command>("swap", &[0x83, 1, 2, 3]).is_err(), "too long");
        assert!(decode::<Command>("swap", &[0x82, 1, 2, 3]).is_err(), "trailing");
        assert!(decode::<Command>("rename", &[]).is_err(), "empty");
    }

    #[test]
    fn what_has_no_name_is_refused() {
        assert!(encode(&5u8).is_err());
        assert!(encode(&[1u8, 2]).is_err());
        assert_eq!(decode::<()>("anything", &[]), Err(NamedError::UnknownName));
    }
}
