//! Writing CBOR.
//!
//! Relies on serde. Promises the shortest heads, definite lengths wherever serde states one, one NaN,
//! and no allocation beside the output's own. Knows nothing of what is written.

use serde::ser::{self, Serialize};

use super::{CodecError, DEPTH_MAX, initial, major, tag};

/// The encoded form of a value.
///
/// # Errors
///
/// When the type's own `Serialize` refuses, or nests deeper than [`DEPTH_MAX`].
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, CodecError> {
    let mut out = Vec::with_capacity(64);
    write(value, &mut out)?;
    Ok(out)
}

/// Appends the encoded form of a value.
///
/// # Errors
///
/// As [`to_vec`]; `out` then holds an unfinished value.
pub fn write<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
    value.serialize(Encoder::new(out))
}

/// Where one value goes.
pub(crate) struct Encoder<'a> {
    out: &'a mut Vec<u8>,
    /// Levels that may still be opened.
    depth_left: u32,
}

impl<'a> Encoder<'a> {
    pub(crate) fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, depth_left: DEPTH_MAX }
    }

    fn head(&mut self, major: u8, value: u64) {
        let major = major << 5;
        match value {
            0..=23 => self.out.push(major | value as u8),
            24..=0xff => self.out.extend_from_slice(&[major | 24, value as u8]),
            0x100..=0xffff => {
                let bytes = (value as u16).to_be_bytes();
                self.out.extend_from_slice(&[major | 25, bytes[0], bytes[1]]);
            }
            0x1_0000..=0xffff_ffff => {
                self.out.push(major | 26);
                self.out.extend_from_slice(&(value as u32).to_be_bytes());
            }
            _ => {
                self.out.push(major | 27);
                self.out.extend_from_slice(&value.to_be_bytes());
            }
        }
    }

    fn big(&mut self, tag: u64, value: u128) {
        self.head(major::TAG, tag);
        let bytes = value.to_be_bytes();
        let significant = &bytes[value.leading_zeros() as usize / 8..];
        self.head(major::BYTES, significant.len() as u64);
        self.out.extend_from_slice(significant);
    }

    fn text(&mut self, text: &str) {
        self.head(major::TEXT, text.len() as u64);
        self.out.extend_from_slice(text.as_bytes());
    }

    /// Opens an array or a map; without a length it is closed by a break.
    fn open(mut self, major: u8, len: Option<usize>) -> Result<Items<'a>, CodecError> {
        let depth_left = self.depth_left.checked_sub(1).ok_or(CodecError::TooDeep)?;
        match len {
            Some(len) => self.head(major, len as u64),
            None if major == major::MAP => self.out.push(initial::MAP_OPEN),
            None => self.out.push(initial::ARRAY_OPEN),
        }
        Ok(Items { out: self.out, depth_left, closes: len.is_none() })
    }

    /// Opens the map of one pair that holds a variant and its content.
    fn variant(mut self, variant: &str) -> Result<Self, CodecError> {
        self.depth_left = self.depth_left.checked_sub(1).ok_or(CodecError::TooDeep)?;
        self.head(major::MAP, 1);
        self.text(variant);
        Ok(self)
    }
}

/// The items of an open array, or the keys and values of an open map.
pub(crate) struct Items<'a> {
    out: &'a mut Vec<u8>,
    depth_left: u32,
    closes: bool,
}

impl Items<'_> {
    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
        value.serialize(Encoder { out: &mut *self.out, depth_left: self.depth_left })
    }

    fn close(self) {
        if self.closes {
            self.out.push(initial::BREAK);
        }
    }
}

impl<'a> ser::Serializer for Encoder<'a> {
    type Ok = ();
    type Error = CodecError;
    type SerializeSeq = Items<'a>;
    type SerializeTuple = Items<'a>;
    type SerializeTupleStruct = Items<'a>;
    type SerializeTupleVariant = Items<'a>;
    type SerializeMap = Items<'a>;
    type SerializeStruct = Items<'a>;
    type SerializeStructVariant = Items<'a>;

    fn serialize_bool(self, value: bool) -> Result<(), CodecError> {
        self.out.push(if value { initial::TRUE } else { initial::FALSE });
        Ok(())
    }

    fn serialize_i8(self, value: i8) -> Result<(), CodecError> {
        self.serialize_i64(value.into())
    }

    fn serialize_i16(self, value: i16) -> Result<(), CodecError> {
        self.serialize_i64(value.into())
    }

    fn serialize_i32(self, value: i32) -> Result<(), CodecError> {
        self.serialize_i64(value.into())
    }

    fn serialize_i64(mut self, value: i64) -> Result<(), CodecError> {
        match u64::try_from(value) {
            Ok(value) => self.head(major::UNSIGNED, value),
            // -1 - value, without overflow: the bits of a negative number, inverted.
            Err(_) => self.head(major::NEGATIVE, !(value as u64)),
        }
        Ok(())
    }

    fn serialize_i128(mut self, value: i128) -> Result<(), CodecError> {
        match u128::try_from(value) {
            Ok(value) => self.serialize_u128(value),
            Err(_) => {
                let inverted = !(value as u128);
                match u64::try_from(inverted) {
                    Ok(small) => self.head(major::NEGATIVE, small),
                    Err(_) => self.big(tag::NEGATIVE_BIG, inverted),
                }
                Ok(())
            }
        }
    }

    fn serialize_u8(self, value: u8) -> Result<(), CodecError> {
        self.serialize_u64(value.into())
    }

    fn serialize_u16(self, value: u16) -> Result<(), CodecError> {
        self.serialize_u64(value.into())
    }

    fn serialize_u32(self, value: u32) -> Result<(), CodecError> {
        self.serialize_u64(value.into())
    }

    fn serialize_u64(mut self, value: u64) -> Result<(), CodecError> {
        self.head(major::UNSIGNED, value);
        Ok(())
    }

    fn serialize_u128(mut self, value: u128) -> Result<(), CodecError> {
        match u64::try_from(value) {
            Ok(small) => self.head(major::UNSIGNED, small),
            Err(_) => self.big(tag::POSITIVE_BIG, value),
        }
        Ok(())
    }

    fn serialize_f32(self, value: f32) -> Result<(), CodecError> {
        let value = if value.is_nan() { f32::from_bits(0x7fc0_0000) } else { value };
        self.out.push(initial::FLOAT_32);
        self.out.extend_from_slice(&value.to_be_bytes());
        Ok(())
    }

    fn serialize_f64(self, value: f64) -> Result<(), CodecError> {
        // Processors make different NaN; replicas may not.
        let value = if value.is_nan() { f64::from_bits(0x7ff8_0000_0000_0000) } else { value };
        self.out.push(initial::FLOAT_64);
        self.out.extend_from_slice(&value.to_be_bytes());
        Ok(())
    }

    fn serialize_char(mut self, value: char) -> Result<(), CodecError> {
        self.text(value.encode_utf8(&mut [0; 4]));
        Ok(())
    }

    fn serialize_str(mut self, value: &str) -> Result<(), CodecError> {
        self.text(value);
        Ok(())
    }

    fn serialize_bytes(mut self, value: &[u8]) -> Result<(), CodecError> {
        self.head(major::BYTES, value.len() as u64);
        self.out.extend_from_slice(value);
        Ok(())
    }

    fn serialize_none(self) -> Result<(), CodecError> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), CodecError> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), CodecError> {
        self.out.push(initial::NULL);
        Ok(())
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Result<(), CodecError> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(
        mut self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
    ) -> Result<(), CodecError> {
        self.text(variant);
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        value: &T,
    ) -> Result<(), CodecError> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), CodecError> {
        value.serialize(self.variant(variant)?)
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Items<'a>, CodecError> {
        self.open(major::ARRAY, len)
    }

    fn serialize_tuple(self, len: usize) -> Result<Items<'a>, CodecError> {
        self.open(major::ARRAY, Some(len))
    }

    fn serialize_tuple_struct(self, _name: &'static str, len: usize) -> Result<Items<'a>, CodecError> {
        self.open(major::ARRAY, Some(len))
    }

    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Items<'a>, CodecError> {
        self.variant(variant)?.open(major::ARRAY, Some(len))
    }

    fn serialize_map(self, len: Option<usize>) -> Result<Items<'a>, CodecError> {
        self.open(major::MAP, len)
    }

    fn serialize_struct(self, _name: &'static str, len: usize) -> Result<Items<'a>, CodecError> {
        self.open(major::MAP, Some(len))
    }

    fn serialize_struct_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Items<'a>, CodecError> {
        self.variant(variant)?.open(major::MAP, Some(len))
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

/// Serde asks for the same thing under many names.
macro_rules! items_are {
    ($($role:ident . $method:ident),*) => {$(
        impl ser::$role for Items<'_> {
            type Ok = ();
            type Error = CodecError;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
                self.item(value)
            }

            fn end(self) -> Result<(), CodecError> {
                self.close();
                Ok(())
            }
        }
    )*};
}

items_are!(
    SerializeSeq.serialize_element,
    SerializeTuple.serialize_element,
    SerializeTupleStruct.serialize_field,
    SerializeTupleVariant.serialize_field
);

/// As above, for what has names.
macro_rules! fields_are {
    ($($role:ident),*) => {$(
        impl ser::$role for Items<'_> {
            type Ok = ();
            type Error = CodecError;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), CodecError> {
                self.item(name)?;
                self.item(value)
            }

            fn end(self) -> Result<(), CodecError> {
                self.close();
                Ok(())
            }
        }
    )*};
}

fields_are!(SerializeStruct, SerializeStructVariant);

impl ser::SerializeMap for Items<'_> {
    type Ok = ();
    type Error = CodecError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), CodecError> {
        self.item(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
        self.item(value)
    }

    fn end(self) -> Result<(), CodecError> {
        self.close();
        Ok(())
    }
}
