//! Reading CBOR.
//!
//! Relies on serde. Promises never to panic, to allocate no more than the bytes justify, and to bound
//! nesting. Accepts more than it writes: indefinite lengths, floats of all sizes, tags it does not
//! know (the tagged value counts). Knows nothing of what is read.

use std::borrow::Cow;

use serde::de::{self, DeserializeSeed, Deserializer, Visitor};

use super::major::{ARRAY, BYTES, MAP, NEGATIVE, SIMPLE, TAG, TEXT, UNSIGNED};
use super::{CodecError, DEPTH_MAX, initial, major, tag};

/// Reads one value that fills the bytes. Borrowed text and bytes are not copied.
///
/// # Errors
///
/// [`CodecError`] for anything else than one whole value of the type.
pub fn from_slice<'de, T: de::Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, CodecError> {
    let mut decoder = Decoder::new(bytes);
    let value = T::deserialize(&mut decoder)?;
    finish(&decoder)?;
    Ok(value)
}

/// Refuses bytes after the value.
pub(crate) fn finish(decoder: &Decoder<'_>) -> Result<(), CodecError> {
    match decoder.rest.len() {
        0 => Ok(()),
        left => Err(CodecError::Trailing(left)),
    }
}

/// A place in encoded bytes.
pub(crate) struct Decoder<'de> {
    rest: &'de [u8],
    /// Levels that may still be opened.
    depth_left: u32,
}

/// How long an array, map or string is.
#[derive(Clone, Copy)]
enum Length {
    Definite(u64),
    UntilBreak,
}

impl<'de> Decoder<'de> {
    pub(crate) fn new(bytes: &'de [u8]) -> Self {
        Self { rest: bytes, depth_left: DEPTH_MAX }
    }

    fn peek(&self) -> Result<u8, CodecError> {
        self.rest.first().copied().ok_or(CodecError::Ended)
    }

    fn take(&mut self, len: u64) -> Result<&'de [u8], CodecError> {
        let len = usize::try_from(len).map_err(|_| CodecError::Ended)?;
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(CodecError::Ended)?;
        self.rest = rest;
        Ok(taken)
    }

    fn take_array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(CodecError::Ended)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn byte(&mut self) -> Result<u8, CodecError> {
        Ok(u8::from_be_bytes(self.take_array()?))
    }

    /// The number that follows an initial byte with this low part.
    fn argument(&mut self, byte: u8, at: &'static str) -> Result<u64, CodecError> {
        match byte & 0x1f {
            small @ 0..=23 => Ok(small.into()),
            24 => Ok(self.byte()?.into()),
            25 => Ok(u16::from_be_bytes(self.take_array()?).into()),
            26 => Ok(u32::from_be_bytes(self.take_array()?).into()),
            27 => Ok(u64::from_be_bytes(self.take_array()?)),
            _ => Err(CodecError::Unexpected { byte, at }),
        }
    }

    fn length(&mut self, byte: u8, at: &'static str) -> Result<Length, CodecError> {
        match byte & 0x1f {
            31 => Ok(Length::UntilBreak),
            _ => Ok(Length::Definite(self.argument(byte, at)?)),
        }
    }

    /// A byte or text string whose initial byte was read; in one piece unless it came in chunks.
    fn string(&mut self, byte: u8, at: &'static str) -> Result<Cow<'de, [u8]>, CodecError> {
        match self.length(byte, at)? {
            Length::Definite(len) => Ok(Cow::Borrowed(self.take(len)?)),
            Length::UntilBreak => {
                let mut whole = Vec::new();
                while !self.at_break()? {
                    let chunk = self.byte()?;
                    if chunk >> 5 != byte >> 5 {
                        return Err(CodecError::Unexpected { byte: chunk, at });
                    }
                    let len = self.argument(chunk, at)?;
                    whole.extend_from_slice(self.take(len)?);
                }
                Ok(Cow::Owned(whole))
            }
        }
    }

    /// Steps over a break, if there is one.
    fn at_break(&mut self) -> Result<bool, CodecError> {
        let found = self.peek()? == initial::BREAK;
        if found {
            self.rest = &self.rest[1..];
        }
        Ok(found)
    }

    /// Runs `inner` one level deeper.
    fn deeper<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T, CodecError>) -> Result<T, CodecError> {
        self.depth_left = self.depth_left.checked_sub(1).ok_or(CodecError::TooDeep)?;
        let result = inner(self);
        self.depth_left += 1;
        result
    }

    /// The initial byte of the next value. Tags are stepped over, since the tagged value counts, but for
    /// those of big numbers, which come back as `0xc2` and `0xc3`.
    fn initial(&mut self) -> Result<u8, CodecError> {
        loop {
            let byte = self.byte()?;
            if byte >> 5 != major::TAG {
                return Ok(byte);
            }
            match self.argument(byte, "a tag")? {
                tag::POSITIVE_BIG => return Ok(initial::POSITIVE_BIG),
                tag::NEGATIVE_BIG => return Ok(initial::NEGATIVE_BIG),
                _ => {}
            }
        }
    }

    fn visit_text<V: Visitor<'de>>(&mut self, byte: u8, visitor: V) -> Result<V::Value, CodecError> {
        match self.string(byte, "a text")? {
            Cow::Borrowed(bytes) => {
                visitor.visit_borrowed_str(std::str::from_utf8(bytes).map_err(|_| CodecError::NotText)?)
            }
            Cow::Owned(bytes) => {
                visitor.visit_string(String::from_utf8(bytes).map_err(|_| CodecError::NotText)?)
            }
        }
    }

    fn visit_bytes<V: Visitor<'de>>(&mut self, byte: u8, visitor: V) -> Result<V::Value, CodecError> {
        match self.string(byte, "bytes")? {
            Cow::Borrowed(bytes) => visitor.visit_borrowed_bytes(bytes),
            Cow::Owned(bytes) => visitor.visit_byte_buf(bytes),
        }
    }

    /// An array whose initial byte was read. The visitor must have taken all of it.
    fn visit_array<V: Visitor<'de>>(&mut self, byte: u8, visitor: V) -> Result<V::Value, CodecError> {
        let length = self.length(byte, "an array")?;
        self.deeper(|decoder| {
            let mut items = Items { decoder, length };
            let value = visitor.visit_seq(&mut items)?;
            if items.has_next()? { Err(de::Error::custom("the array is too long")) } else { Ok(value) }
        })
    }

    /// A map whose initial byte was read. The visitor must have taken all of it.
    fn visit_pairs<V: Visitor<'de>>(&mut self, byte: u8, visitor: V) -> Result<V::Value, CodecError> {
        let length = self.length(byte, "a map")?;
        self.deeper(|decoder| {
            let mut items = Items { decoder, length };
            let value = visitor.visit_map(&mut items)?;
            if items.has_next()? { Err(de::Error::custom("the map is too long")) } else { Ok(value) }
        })
    }

    /// The digits of a big number whose tag was read.
    fn big(&mut self) -> Result<u128, CodecError> {
        let byte = self.byte()?;
        if byte >> 5 != major::BYTES {
            return Err(CodecError::Unexpected { byte, at: "a big number" });
        }
        let digits = self.string(byte, "a big number")?;
        let mut wide = [0; 16];
        let place = wide.len().checked_sub(digits.len());
        let place = place.ok_or_else(|| CodecError::Custom("a number has more than 128 bits".into()))?;
        wide[place..].copy_from_slice(&digits);
        Ok(u128::from_be_bytes(wide))
    }

    fn visit_integer<V: Visitor<'de>>(&mut self, byte: u8, visitor: V) -> Result<V::Value, CodecError> {
        let value = self.argument(byte, "a number")?;
        if byte >> 5 == major::UNSIGNED {
            return visitor.visit_u64(value);
        }
        match i64::try_from(value) {
            Ok(inverted) => visitor.visit_i64(-1 - inverted),
            Err(_) => visitor.visit_i128(-1 - i128::from(value)),
        }
    }

    fn visit_big<V: Visitor<'de>>(&mut self, byte: u8, visitor: V) -> Result<V::Value, CodecError> {
        let value = self.big()?;
        if byte == initial::POSITIVE_BIG {
            return visitor.visit_u128(value);
        }
        let value = i128::try_from(value).map_err(|_| CodecError::Custom("a number is too small".into()))?;
        visitor.visit_i128(-1 - value)
    }

    /// A float whose initial byte was read.
    fn float(&mut self, byte: u8) -> Result<f64, CodecError> {
        match byte {
            initial::FLOAT_16 => Ok(half(u16::from_be_bytes(self.take_array()?)).into()),
            initial::FLOAT_32 => Ok(f32::from_be_bytes(self.take_array()?).into()),
            initial::FLOAT_64 => Ok(f64::from_be_bytes(self.take_array()?)),
            _ => Err(CodecError::Unexpected { byte, at: "a float" }),
        }
    }

    fn visit_simple<V: Visitor<'de>>(&mut self, byte: u8, visitor: V) -> Result<V::Value, CodecError> {
        match byte {
            initial::FALSE => visitor.visit_bool(false),
            initial::TRUE => visitor.visit_bool(true),
            initial::NULL | initial::UNDEFINED => visitor.visit_unit(),
            initial::FLOAT_16 | initial::FLOAT_32 | initial::FLOAT_64 => visitor.visit_f64(self.float(byte)?),
            _ => Err(CodecError::Unexpected { byte, at: "a value" }),
        }
    }
}

/// The refusal of a value of another kind than the type wants.
#[cold]
fn mismatch(byte: u8, expected: &dyn de::Expected) -> CodecError {
    let found = match (byte >> 5, byte) {
        (major::UNSIGNED | major::NEGATIVE, _) => "a number",
        (major::BYTES, _) => "bytes",
        (major::TEXT, _) => "a text",
        (major::ARRAY, _) => "an array",
        (major::MAP, _) => "a map",
        (major::TAG, _) => "a big number",
        (_, initial::FALSE | initial::TRUE) => "a boolean",
        (_, initial::NULL | initial::UNDEFINED) => "null",
        (_, initial::FLOAT_16 | initial::FLOAT_32 | initial::FLOAT_64) => "a float",
        _ => return CodecError::Unexpected { byte, at: "a value" },
    };
    de::Error::invalid_type(de::Unexpected::Other(found), expected)
}

/// The value of a 16-bit float (RFC 8949, appendix D).
fn half(bits: u16) -> f32 {
    let exponent = (bits >> 10) & 0x1f;
    let mantissa = f32::from(bits & 0x3ff);
    let magnitude = match exponent {
        0 => mantissa * 2f32.powi(-24),
        31 if mantissa == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (mantissa + 1024.0) * 2f32.powi(i32::from(exponent) - 25),
    };
    if bits & 0x8000 == 0 { magnitude } else { -magnitude }
}

/// Methods that read the listed major types and refuse others.
macro_rules! typed {
    ($($method:ident: { $($major:pat => $visit:ident),* };)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
            let byte = self.initial()?;
            match byte >> 5 {
                $($major => self.$visit(byte, visitor),)*
                _ => Err(mismatch(byte, &visitor)),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for &mut Decoder<'de> {
    type Error = CodecError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        let byte = self.initial()?;
        match byte >> 5 {
            major::UNSIGNED | major::NEGATIVE => self.visit_integer(byte, visitor),
            major::BYTES => self.visit_bytes(byte, visitor),
            major::TEXT => self.visit_text(byte, visitor),
            major::ARRAY => self.visit_array(byte, visitor),
            major::MAP => self.visit_pairs(byte, visitor),
            major::TAG => self.visit_big(byte, visitor),
            _ => self.visit_simple(byte, visitor),
        }
    }

    // Each type below reads what it can be and nothing else, so that a component does not carry the
    // code for an array in every integer.

    typed! {
        deserialize_bool: { SIMPLE => visit_simple };
        deserialize_i8: { UNSIGNED | NEGATIVE => visit_integer };
        deserialize_i16: { UNSIGNED | NEGATIVE => visit_integer };
        deserialize_i32: { UNSIGNED | NEGATIVE => visit_integer };
        deserialize_i64: { UNSIGNED | NEGATIVE => visit_integer };
        deserialize_i128: { UNSIGNED | NEGATIVE => visit_integer, TAG => visit_big };
        deserialize_u8: { UNSIGNED | NEGATIVE => visit_integer };
        deserialize_u16: { UNSIGNED | NEGATIVE => visit_integer };
        deserialize_u32: { UNSIGNED | NEGATIVE => visit_integer };
        deserialize_u64: { UNSIGNED | NEGATIVE => visit_integer };
        deserialize_u128: { UNSIGNED | NEGATIVE => visit_integer, TAG => visit_big };
        deserialize_f32: { UNSIGNED | NEGATIVE => visit_integer, SIMPLE => visit_simple };
        deserialize_f64: { UNSIGNED | NEGATIVE => visit_integer, SIMPLE => visit_simple };
        deserialize_char: { TEXT => visit_text };
        deserialize_str: { TEXT => visit_text };
        deserialize_string: { TEXT => visit_text };
        deserialize_identifier: { TEXT => visit_text };
        deserialize_bytes: { BYTES => visit_bytes, TEXT => visit_text, ARRAY => visit_array };
        deserialize_byte_buf: { BYTES => visit_bytes, TEXT => visit_text, ARRAY => visit_array };
        deserialize_unit: { SIMPLE => visit_simple };
        deserialize_seq: { ARRAY => visit_array };
        deserialize_map: { MAP => visit_pairs };
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, CodecError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        self.deserialize_map(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        match self.peek()? {
            initial::NULL | initial::UNDEFINED => {
                self.rest = &self.rest[1..];
                visitor.visit_none()
            }
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        let byte = self.peek()?;
        if byte >> 5 == major::TEXT {
            return visitor.visit_enum(Variant { decoder: self, has_content: false });
        }
        self.rest = &self.rest[1..];
        match (byte >> 5, self.length(byte, "a variant")?) {
            (major::MAP, Length::Definite(1)) => {
                self.deeper(|decoder| visitor.visit_enum(Variant { decoder, has_content: true }))
            }
            _ => Err(CodecError::Unexpected { byte, at: "a variant" }),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        // Goes through the same visitors, so that nesting is bounded here too.
        self.deserialize_any(visitor)
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

/// The items of an array, or the keys and values of a map.
struct Items<'a, 'de> {
    decoder: &'a mut Decoder<'de>,
    /// What is left: items of an array, pairs of a map.
    length: Length,
}

impl Items<'_, '_> {
    /// Steps to the next item or pair.
    fn has_next(&mut self) -> Result<bool, CodecError> {
        match &mut self.length {
            Length::Definite(0) => Ok(false),
            Length::Definite(left) => {
                *left -= 1;
                Ok(true)
            }
            Length::UntilBreak => {
                let ended = self.decoder.at_break()?;
                if ended {
                    self.length = Length::Definite(0);
                }
                Ok(!ended)
            }
        }
    }

    /// What may be reserved: the bytes that are left bound what a head may claim.
    fn hint(&self) -> Option<usize> {
        match self.length {
            Length::Definite(left) => {
                usize::try_from(left).ok().map(|left| left.min(self.decoder.rest.len()))
            }
            Length::UntilBreak => None,
        }
    }
}

impl<'de> de::SeqAccess<'de> for &mut Items<'_, 'de> {
    type Error = CodecError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, CodecError> {
        if self.has_next()? { seed.deserialize(&mut *self.decoder).map(Some) } else { Ok(None) }
    }

    fn size_hint(&self) -> Option<usize> {
        self.hint()
    }
}

impl<'de> de::MapAccess<'de> for &mut Items<'_, 'de> {
    type Error = CodecError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, CodecError> {
        if self.has_next()? { seed.deserialize(&mut *self.decoder).map(Some) } else { Ok(None) }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, CodecError> {
        seed.deserialize(&mut *self.decoder)
    }

    fn size_hint(&self) -> Option<usize> {
        self.hint()
    }
}

/// A variant's name and, in the map form, its content.
struct Variant<'a, 'de> {
    decoder: &'a mut Decoder<'de>,
    has_content: bool,
}

impl<'a, 'de> Variant<'a, 'de> {
    fn content(self) -> Result<&'a mut Decoder<'de>, CodecError> {
        if self.has_content {
            Ok(self.decoder)
        } else {
            Err(de::Error::custom("the variant needs a content"))
        }
    }
}

impl<'de> de::EnumAccess<'de> for Variant<'_, 'de> {
    type Error = CodecError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), CodecError> {
        let name = seed.deserialize(&mut *self.decoder)?;
        Ok((name, self))
    }
}

impl<'de> de::VariantAccess<'de> for Variant<'_, 'de> {
    type Error = CodecError;

    fn unit_variant(self) -> Result<(), CodecError> {
        if self.has_content { de::Deserialize::deserialize(self.decoder) } else { Ok(()) }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, CodecError> {
        seed.deserialize(self.content()?)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, CodecError> {
        self.content()?.deserialize_seq(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        self.content()?.deserialize_map(visitor)
    }
}
