//! A JSON document as the engine holds it: cheap to share, ordered, and never nested too deep.
//!
//! Relies on serde. Promises that equal documents have equal encodings (objects are ordered by key), that
//! no value nests deeper than [`DEPTH_MAX`], so that nothing which walks or drops one can run out of stack,
//! and that whole numbers stay whole. Knows no workflow.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The deepest nesting of arrays and objects. A case nests its documents a few levels deep in what it
/// stores, and the SDK's encoding ends at 128.
pub const DEPTH_MAX: u16 = 64;
/// Whole numbers up to here are the same as a float and as an integer.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

const _: () = assert!((DEPTH_MAX as u32) + 32 < quorate_sdk::cbor::DEPTH_MAX);

/// A value would nest deeper than [`DEPTH_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooDeep;

impl fmt::Display for TooDeep {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "a value nests deeper than {DEPTH_MAX} levels")
    }
}

/// An object's pairs, in the order of their keys.
pub type Pairs = BTreeMap<Rc<str>, Value>;

/// An array or an object's pairs, with how deep they nest at most.
#[derive(Clone, Debug)]
pub struct Nest<T> {
    depth: u16,
    items: T,
}

/// A JSON value.
#[derive(Clone, Debug, Default)]
pub enum Value {
    /// `null`.
    #[default]
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// A text.
    Str(Rc<str>),
    /// An array.
    Array(Rc<Nest<Vec<Value>>>),
    /// An object.
    Object(Rc<Nest<Pairs>>),
}

impl Value {
    /// A text.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self::Str(text.into())
    }

    /// A number: whole if it can be, so that one number has one form.
    #[must_use]
    pub fn number(number: f64) -> Self {
        if number.fract() == 0.0 && number.abs() <= EXACT_MAX {
            // In range by the test above.
            Self::Int(number as i64)
        } else {
            Self::Float(number)
        }
    }

    /// A count.
    #[must_use]
    pub fn count(count: usize) -> Self {
        i64::try_from(count).map_or(Self::Float(count as f64), Self::Int)
    }

    /// An unsigned number, such as milliseconds.
    #[must_use]
    pub fn unsigned(number: u64) -> Self {
        i64::try_from(number).map_or(Self::Float(number as f64), Self::Int)
    }

    /// An array.
    ///
    /// # Errors
    ///
    /// [`TooDeep`].
    pub fn array(items: Vec<Value>) -> Result<Self, TooDeep> {
        let depth = 1 + items.iter().map(Self::depth).max().unwrap_or(0);
        if depth > DEPTH_MAX { Err(TooDeep) } else { Ok(Self::Array(Rc::new(Nest { depth, items }))) }
    }

    /// An object.
    ///
    /// # Errors
    ///
    /// [`TooDeep`].
    pub fn object(items: Pairs) -> Result<Self, TooDeep> {
        let depth = 1 + items.values().map(Self::depth).max().unwrap_or(0);
        if depth > DEPTH_MAX { Err(TooDeep) } else { Ok(Self::Object(Rc::new(Nest { depth, items }))) }
    }

    /// An object of a few pairs whose values are known to be flat.
    #[must_use]
    pub fn record<const N: usize>(pairs: [(&str, Value); N]) -> Self {
        let pairs: Pairs = pairs.into_iter().map(|(key, value)| (Rc::from(key), value)).collect();
        // Null stands in for what nests too deep, which callers exclude.
        Self::object(pairs).unwrap_or_default()
    }

    /// `[]`.
    #[must_use]
    pub fn empty_array() -> Self {
        Self::Array(Rc::new(Nest { depth: 1, items: Vec::new() }))
    }

    /// `{}`.
    #[must_use]
    pub fn empty_object() -> Self {
        Self::Object(Rc::new(Nest { depth: 1, items: Pairs::new() }))
    }

    /// How deep it nests at most; 0 for what has no parts.
    #[must_use]
    pub fn depth(&self) -> u16 {
        match self {
            Self::Array(array) => array.depth,
            Self::Object(object) => object.depth,
            _ => 0,
        }
    }

    /// The items of an array.
    #[must_use]
    pub fn items(&self) -> Option<&[Value]> {
        match self {
            Self::Array(array) => Some(&array.items),
            _ => None,
        }
    }

    /// The pairs of an object.
    #[must_use]
    pub fn pairs(&self) -> Option<&Pairs> {
        match self {
            Self::Object(object) => Some(&object.items),
            _ => None,
        }
    }

    /// A text's letters.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Str(text) => Some(text),
            _ => None,
        }
    }

    /// A number as a float.
    #[must_use]
    pub fn as_float(&self) -> Option<f64> {
        match self {
            Self::Int(number) => Some(*number as f64),
            Self::Float(number) => Some(*number),
            _ => None,
        }
    }

    /// A whole number.
    #[must_use]
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            _ => None,
        }
    }

    /// The value of a key, if this is an object that has it.
    #[must_use]
    pub fn field(&self, key: &str) -> Option<&Value> {
        self.pairs()?.get(key)
    }

    /// Whether jq takes it for true: all but `false` and `null`.
    #[must_use]
    pub fn is_true(&self) -> bool {
        !matches!(self, Self::Null | Self::Bool(false))
    }

    /// Whether it is `null`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// jq's name of the type.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "boolean",
            Self::Int(_) | Self::Float(_) => "number",
            Self::Str(_) => "string",
            Self::Array(_) => "array",
            Self::Object(_) => "object",
        }
    }

    /// Sets an item of an array; the index must be within it.
    ///
    /// # Errors
    ///
    /// [`TooDeep`].
    pub fn with_item(self, index: usize, value: Value) -> Result<Self, TooDeep> {
        let Self::Array(mut array) = self else { return Ok(self) };
        let nest = Rc::make_mut(&mut array);
        nest.depth = nest.depth.max(value.depth() + 1);
        if nest.depth > DEPTH_MAX {
            return Err(TooDeep);
        }
        if let Some(place) = nest.items.get_mut(index) {
            *place = value;
        }
        Ok(Self::Array(array))
    }

    /// Sets a key of an object.
    ///
    /// # Errors
    ///
    /// [`TooDeep`].
    pub fn with_field(self, key: &str, value: Value) -> Result<Self, TooDeep> {
        let Self::Object(mut object) = self else { return Ok(self) };
        let nest = Rc::make_mut(&mut object);
        nest.depth = nest.depth.max(value.depth() + 1);
        if nest.depth > DEPTH_MAX {
            return Err(TooDeep);
        }
        nest.items.insert(key.into(), value);
        Ok(Self::Object(object))
    }

    /// An array's items, taken out without a copy where nobody else has them.
    #[must_use]
    pub fn into_items(self) -> Option<Vec<Value>> {
        match self {
            Self::Array(array) => Some(Rc::try_unwrap(array).unwrap_or_else(|array| (*array).clone()).items),
            _ => None,
        }
    }

    /// An object's pairs, taken out without a copy where nobody else has them.
    #[must_use]
    pub fn into_pairs(self) -> Option<Pairs> {
        match self {
            Self::Object(object) => {
                Some(Rc::try_unwrap(object).unwrap_or_else(|object| (*object).clone()).items)
            }
            _ => None,
        }
    }

    /// Takes the item at an index out and leaves `null`, so that it can be changed in place.
    pub fn take_item(&mut self, index: usize) -> Value {
        match self {
            Self::Array(array) => Rc::make_mut(array).items.get_mut(index).map(std::mem::take),
            _ => None,
        }
        .unwrap_or_default()
    }

    /// Takes the value of a key out and leaves `null`, so that it can be changed in place.
    pub fn take_field(&mut self, key: &str) -> Value {
        match self {
            Self::Object(object) if object.items.contains_key(key) => {
                Rc::make_mut(object).items.get_mut(key).map(std::mem::take)
            }
            _ => None,
        }
        .unwrap_or_default()
    }

    /// About how many bytes it takes in an encoding.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Self::Null | Self::Bool(_) => 1,
            Self::Int(_) | Self::Float(_) => 9,
            Self::Str(text) => 3 + text.len(),
            Self::Array(array) => 3 + array.items.iter().map(Self::size).sum::<usize>(),
            Self::Object(object) => {
                3 + object.items.iter().map(|(key, value)| 3 + key.len() + value.size()).sum::<usize>()
            }
        }
    }

    /// Whether both are one allocation or equal without parts: equal without a look inside.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Int(a), Self::Int(b)) => a == b,
            (Self::Str(a), Self::Str(b)) => Rc::ptr_eq(a, b),
            (Self::Array(a), Self::Array(b)) => Rc::ptr_eq(a, b),
            (Self::Object(a), Self::Object(b)) => Rc::ptr_eq(a, b),
            _ => false,
        }
    }

    /// The JSON text. Floats that JSON lacks become `null`, as in jq.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads a JSON text.
    ///
    /// # Errors
    ///
    /// What is wrong, in a sentence.
    pub fn from_json(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    /// Where its type stands in jq's order.
    fn rank(&self) -> u8 {
        match self {
            Self::Null => 0,
            Self::Bool(false) => 1,
            Self::Bool(true) => 2,
            Self::Int(_) | Self::Float(_) => 3,
            Self::Str(_) => 4,
            Self::Array(_) => 5,
            Self::Object(_) => 6,
        }
    }
}

/// Numbers in order; what is no number comes first.
fn compare_floats(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| b.is_nan().cmp(&a.is_nan()))
}

/// jq's order: null, false, true, numbers, texts, arrays, objects; objects first by their keys.
impl Ord for Value {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => a.cmp(b),
            (Self::Int(a), Self::Float(b)) => compare_floats(*a as f64, *b),
            (Self::Float(a), Self::Int(b)) => compare_floats(*a, *b as f64),
            (Self::Float(a), Self::Float(b)) => compare_floats(*a, *b),
            (Self::Str(a), Self::Str(b)) => a.cmp(b),
            (Self::Array(a), Self::Array(b)) => a.items.cmp(&b.items),
            (Self::Object(a), Self::Object(b)) => {
                a.items.keys().cmp(b.items.keys()).then_with(|| a.items.values().cmp(b.items.values()))
            }
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Value {}

impl fmt::Display for Value {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.to_json())
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Int(number) => serializer.serialize_i64(*number),
            Self::Float(number) => serializer.serialize_f64(*number),
            Self::Str(text) => serializer.serialize_str(text),
            Self::Array(array) => {
                let mut items = serializer.serialize_seq(Some(array.items.len()))?;
                for item in &array.items {
                    items.serialize_element(item)?;
                }
                items.end()
            }
            Self::Object(object) => {
                let mut pairs = serializer.serialize_map(Some(object.items.len()))?;
                for (key, value) in &object.items {
                    pairs.serialize_entry(&**key, value)?;
                }
                pairs.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Level(DEPTH_MAX).deserialize(deserializer)
    }
}

/// Reads a value that may nest this much deeper.
#[derive(Clone, Copy)]
struct Level(u16);

impl Level {
    fn inner<E: de::Error>(self) -> Result<Self, E> {
        self.0.checked_sub(1).map(Self).ok_or_else(|| E::custom(TooDeep))
    }
}

impl<'de> DeserializeSeed<'de> for Level {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level {
    type Value = Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Int(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::unsigned(number))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::number(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::text(text))
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Value, E> {
        std::str::from_utf8(bytes).map(Value::text).map_err(|_| E::custom("bytes are no JSON value"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut array = Vec::with_capacity(items.size_hint().unwrap_or(0).min(4_096));
        while let Some(item) = items.next_element_seed(inner)? {
            array.push(item);
        }
        Value::array(array).map_err(de::Error::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut pairs = Pairs::new();
        while let Some(key) = entries.next_key::<Key>()? {
            pairs.insert(key.0, entries.next_value_seed(inner)?);
        }
        Value::object(pairs).map_err(de::Error::custom)
    }
}

/// An object's key, read in one allocation.
struct Key(Rc<str>);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl Visitor<'_> for KeyVisitor {
            type Value = Key;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a key")
            }

            fn visit_str<E>(self, text: &str) -> Result<Key, E> {
                Ok(Key(text.into()))
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::tests::json;

    #[test]
    fn the_order_is_that_of_jq() {
        let ordered = [
            "null",
            "false",
            "true",
            "-1",
            "0.5",
            "1",
            "\"\"",
            "\"a\"",
            "[]",
            "[0]",
            "{}",
            r#"{"a":2}"#,
            r#"{"a":1,"b":1}"#,
            r#"{"b":0}"#,
        ];
        for pair in ordered.windows(2) {
            assert!(json(pair[0]) < json(pair[1]), "{pair:?}");
        }
        assert_eq!(json("1.0"), json("1"));
        assert!(Value::Float(f64::NAN) < Value::Float(f64::NEG_INFINITY));
    }

    #[test]
    fn values_survive_both_encodings() {
        let value = json(r#"{"b":[1,2.5,"x\u0000",null,true],"a":{"c":[]},"big":18446744073709551615}"#);
        assert_eq!(Value::from_json(&value.to_json()).unwrap(), value);
        let bytes = quorate_sdk::cbor::to_vec(&value).unwrap();
        assert_eq!(quorate_sdk::cbor::from_slice::<Value>(&bytes).unwrap(), value);
    }

    #[test]
    fn what_nests_too_deep_is_refused_wherever_it_comes_from() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        let deepest = json(&nested(DEPTH_MAX.into()));
        assert_eq!(deepest.depth(), DEPTH_MAX);
        assert!(Value::from_json(&nested(usize::from(DEPTH_MAX) + 1)).is_err());
        assert_eq!(Value::array(vec![deepest.clone()]), Err(TooDeep));
        assert_eq!(Value::empty_object().with_field("a", deepest.clone()), Err(TooDeep));
        assert_eq!(json("[0]").with_item(0, deepest), Err(TooDeep));
    }
}
