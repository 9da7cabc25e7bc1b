//! The JSON text that lists a machine's commands, queries and events, learnt from their serde types.
//!
//! Relies on what serde's derived code asks a deserializer for: an enum names its variants, a variant
//! its fields, and a field its type. Promises names always and types as far as they can be told;
//! `any` otherwise. Knows no particular machine.
//!
//! ```text
//! {"commands":[{"name":"deposit","fields":[{"name":"account","type":"string"},..]},..],
//!  "queries":[..],"events":[..]}
//!
//! type: "u64", "string", "bytes", "any", .. or {"option": T}, {"list": T}, {"map": T}, {"tuple": [T, ..]},
//!       {"record": [{"name": .., "type": T}, ..]}, {"choice": [name, ..]}
//! ```
//!
//! A variant without fields has `"fields":[]`; one with an unnamed content has `"body": T` instead.

use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, Visitor,
};

use crate::StateMachine;
use crate::cbor::CodecError;
use crate::named::kebab_case;

/// How deep types are followed; recursive ones have no end of their own.
const DEPTH_MAX: u32 = 6;

/// The schema of a machine.
pub(crate) fn of_machine<M: StateMachine>() -> String {
    let mut json = String::from("{\"commands\":");
    variants_of::<M::Command>(&mut json);
    json.push_str(",\"queries\":");
    variants_of::<M::Query>(&mut json);
    json.push_str(",\"events\":");
    variants_of::<M::Event>(&mut json);
    json.push('}');
    json
}

/// Appends `"text"` with what JSON escapes.
fn quote(text: &str, json: &mut String) {
    json.push('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => json.extend(['\\', letter]),
            control if control < ' ' => json.push_str(&format!("\\u{:04x}", u32::from(control))),
            other => json.push(other),
        }
    }
    json.push('"');
}

/// Appends `[..]` with each item written by `write`.
fn list<T>(items: impl IntoIterator<Item = T>, json: &mut String, mut write: impl FnMut(T, &mut String)) {
    json.push('[');
    for (place, item) in items.into_iter().enumerate() {
        if place > 0 {
            json.push(',');
        }
        write(item, json);
    }
    json.push(']');
}

/// What is known of a type.
#[derive(Clone, Debug, Default, PartialEq)]
enum Shape {
    /// Nothing.
    #[default]
    Any,
    /// A type without parts, by its name.
    Plain(&'static str),
    /// The type or null.
    Option(Box<Shape>),
    /// Any number of one type.
    List(Box<Shape>),
    /// Keys, and values of one type.
    Map(Box<Shape>),
    /// A fixed number of types.
    Tuple(Vec<Shape>),
    /// Named fields.
    Record(Vec<(&'static str, Shape)>),
    /// One of these variants.
    Choice(&'static [&'static str]),
}

impl Shape {
    fn write(&self, json: &mut String) {
        let word = match self {
            Self::Any => return quote("any", json),
            Self::Plain(name) => return quote(name, json),
            Self::Option(_) => "option",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Tuple(_) => "tuple",
            Self::Record(_) => "record",
            Self::Choice(_) => "choice",
        };
        json.push('{');
        quote(word, json);
        json.push(':');
        self.write_parts(json);
        json.push('}');
    }

    fn write_parts(&self, json: &mut String) {
        match self {
            Self::Any | Self::Plain(_) => {}
            Self::Option(inner) | Self::List(inner) | Self::Map(inner) => inner.write(json),
            Self::Tuple(parts) => list(parts, json, Self::write),
            Self::Record(fields) => Self::write_fields(fields, json),
            Self::Choice(names) => list(*names, json, |name, json| quote(name, json)),
        }
    }

    fn write_fields(fields: &[(&'static str, Self)], json: &mut String) {
        list(fields, json, |(name, shape), json| {
            json.push_str("{\"name\":");
            quote(name, json);
            json.push_str(",\"type\":");
            shape.write(json);
            json.push('}');
        });
    }
}

/// What a variant carries.
enum Content {
    Fields(Vec<(&'static str, Shape)>),
    Body(Shape),
}

/// Appends the variants of an enum; none if the type is something else.
fn variants_of<T: DeserializeOwned>(json: &mut String) {
    let mut names: &'static [&'static str] = &[];
    // The first question only asks for the names, and fails by design.
    let asked = T::deserialize(Names { names: &mut names });
    debug_assert!(asked.is_err(), "a probe has no value to give");
    list(names, json, |name, json| {
        let mut content = Content::Fields(Vec::new());
        // Whether a value comes out does not matter: the content is noted on the way.
        let (Ok(_) | Err(_)) = T::deserialize(Variant { name, content: &mut content, depth_left: DEPTH_MAX });
        json.push_str("{\"name\":");
        quote(&kebab_case(name), json);
        match content {
            Content::Fields(fields) => {
                json.push_str(",\"fields\":");
                Shape::write_fields(&fields, json);
            }
            Content::Body(shape) => {
                json.push_str(",\"body\":");
                shape.write(json);
            }
        }
        json.push('}');
    });
}

/// The answer to everything that cannot be probed.
fn unknown<T>() -> Result<T, CodecError> {
    Err(CodecError::Custom("a probe does not know this type".into()))
}

/// Notes the names of an enum's variants.
struct Names<'a> {
    names: &'a mut &'static [&'static str],
}

impl<'de> Deserializer<'de> for Names<'_> {
    type Error = CodecError;

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, CodecError> {
        *self.names = variants;
        unknown()
    }

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, CodecError> {
        unknown()
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

/// Pretends to be one variant and notes what it carries.
struct Variant<'a> {
    name: &'static str,
    content: &'a mut Content,
    depth_left: u32,
}

impl<'de> Deserializer<'de> for Variant<'_> {
    type Error = CodecError;

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        visitor.visit_enum(self)
    }

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, CodecError> {
        unknown()
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

impl<'de> de::EnumAccess<'de> for Variant<'_> {
    type Error = CodecError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), CodecError> {
        let name: Result<V::Value, CodecError> = seed.deserialize(self.name.into_deserializer());
        Ok((name?, self))
    }
}

impl<'de> de::VariantAccess<'de> for Variant<'_> {
    type Error = CodecError;

    fn unit_variant(self) -> Result<(), CodecError> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, CodecError> {
        let mut shape = Shape::Any;
        let value = seed.deserialize(Probe { shape: &mut shape, depth_left: self.depth_left });
        *self.content = match shape {
            Shape::Record(fields) => Content::Fields(fields),
            other => Content::Body(other),
        };
        value
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, CodecError> {
        let mut shape = Shape::Any;
        let value = Probe { shape: &mut shape, depth_left: self.depth_left }.deserialize_tuple(len, visitor);
        *self.content = Content::Body(shape);
        value
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        let mut shape = Shape::Any;
        let probe = Probe { shape: &mut shape, depth_left: self.depth_left };
        let value = probe.deserialize_struct("", fields, visitor);
        if let Shape::Record(fields) = shape {
            *self.content = Content::Fields(fields);
        }
        value
    }
}

/// Notes the type it is asked for and gives its least value.
struct Probe<'a> {
    shape: &'a mut Shape,
    depth_left: u32,
}

impl Probe<'_> {
    /// Notes one part of this type with `probe`, and hands its shape to `note`.
    fn part<T>(
        &mut self,
        probe: impl FnOnce(Probe<'_>) -> Result<T, CodecError>,
        note: impl FnOnce(&mut Shape, Shape),
    ) -> Result<T, CodecError> {
        let Some(depth_left) = self.depth_left.checked_sub(1) else {
            return unknown();
        };
        let mut shape = Shape::Any;
        let value = probe(Probe { shape: &mut shape, depth_left });
        note(self.shape, shape);
        value
    }
}

macro_rules! plain_types {
    ($($method:ident $visit:ident $name:literal $value:expr;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
            *self.shape = Shape::Plain($name);
            visitor.$visit($value)
        }
    )*};
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = CodecError;

    plain_types! {
        deserialize_bool visit_bool "bool" false;
        deserialize_i8 visit_i8 "i8" 0;
        deserialize_i16 visit_i16 "i16" 0;
        deserialize_i32 visit_i32 "i32" 0;
        deserialize_i64 visit_i64 "i64" 0;
        deserialize_i128 visit_i128 "i128" 0;
        deserialize_u8 visit_u8 "u8" 0;
        deserialize_u16 visit_u16 "u16" 0;
        deserialize_u32 visit_u32 "u32" 0;
        deserialize_u64 visit_u64 "u64" 0;
        deserialize_u128 visit_u128 "u128" 0;
        deserialize_f32 visit_f32 "f32" 0.0;
        deserialize_f64 visit_f64 "f64" 0.0;
        deserialize_char visit_char "char" ' ';
        deserialize_str visit_borrowed_str "string" "";
        deserialize_string visit_borrowed_str "string" "";
        deserialize_bytes visit_borrowed_bytes "bytes" b"";
        deserialize_byte_buf visit_borrowed_bytes "bytes" b"";
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_unit()
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_unit()
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, CodecError> {
        unknown()
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        *self.shape = Shape::Plain("null");
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_option<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, CodecError> {
        *self.shape = Shape::Option(Box::default());
        self.part(|probe| visitor.visit_some(probe), |shape, part| *shape = Shape::Option(Box::new(part)))
    }

    fn deserialize_seq<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, CodecError> {
        *self.shape = Shape::List(Box::default());
        visitor.visit_seq(Parts { probe: &mut self, left: 1 })
    }

    fn deserialize_tuple<V: Visitor<'de>>(mut self, len: usize, visitor: V) -> Result<V::Value, CodecError> {
        *self.shape = Shape::Tuple(Vec::new());
        visitor.visit_seq(Parts { probe: &mut self, left: len })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, CodecError> {
        *self.shape = Shape::Map(Box::default());
        visitor.visit_map(Parts { probe: &mut self, left: 1 })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        mut self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        *self.shape = Shape::Record(fields.iter().map(|name| (*name, Shape::Any)).collect());
        visitor.visit_map(Fields { probe: &mut self, fields, place: 0 })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        *self.shape = Shape::Choice(variants);
        // A value is needed for the fields after this one; the first variant's content is noted nowhere.
        let Some(name) = variants.first() else { return unknown() };
        let Some(depth_left) = self.depth_left.checked_sub(1) else { return unknown() };
        visitor.visit_enum(Variant { name, content: &mut Content::Fields(Vec::new()), depth_left })
    }
}

/// The items of a list or tuple, or one pair of a map.
struct Parts<'a, 'b> {
    probe: &'a mut Probe<'b>,
    left: usize,
}

impl<'de> de::SeqAccess<'de> for Parts<'_, '_> {
    type Error = CodecError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, CodecError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let note = |shape: &mut Shape, part| match shape {
            Shape::Tuple(parts) => parts.push(part),
            other => *other = Shape::List(Box::new(part)),
        };
        self.probe.part(|probe| seed.deserialize(probe), note).map(Some)
    }
}

impl<'de> MapAccess<'de> for Parts<'_, '_> {
    type Error = CodecError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, CodecError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        self.probe.part(|probe| seed.deserialize(probe), |_, _| ()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, CodecError> {
        self.probe.part(|probe| seed.deserialize(probe), |shape, part| *shape = Shape::Map(Box::new(part)))
    }
}

/// The fields of a record.
struct Fields<'a, 'b> {
    probe: &'a mut Probe<'b>,
    fields: &'static [&'static str],
    place: usize,
}

impl<'de> MapAccess<'de> for Fields<'_, '_> {
    type Error = CodecError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, CodecError> {
        match self.fields.get(self.place) {
            Some(name) => seed.deserialize((*name).into_deserializer()).map(Some),
            None => Ok(None),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, CodecError> {
        let place = self.place;
        self.place += 1;
        let note = |shape: &mut Shape, part| {
            if let Shape::Record(fields) = shape
                && let Some(field) = fields.get_mut(place)
            {
                field.1 = part;
            }
        };
        self.probe.part(|probe| seed.deserialize(probe), note)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Serialize};

    use super::variants_of;
    use crate::Bytes;

    #[derive(Serialize, Deserialize)]
    enum Tree {
        Branch(Vec<Tree>),
        Leaf { value: u8 },
    }

    #[derive(Serialize, Deserialize)]
    enum Color {
        Red,
        Green,
    }

    #[derive(Serialize, Deserialize)]
    struct Inner {
        flag: bool,
        color: Color,
    }

    #[derive(Serialize, Deserialize)]
    enum Command {
        Nested { inner: Inner, many: Vec<(u8, f32)>, map: BTreeMap<String, Bytes>, maybe: Option<char> },
        Wrapped(Inner),
        Bare(String),
        Pair(i64, ()),
        NotZero { first: std::num::NonZeroU8, second: u16 },
        Recursive { tree: Tree, after: Tree },
    }

    fn schema<T: serde::de::DeserializeOwned>() -> String {
        let mut json = String::new();
        variants_of::<T>(&mut json);
        json
    }

    #[test]
    fn types_are_told_as_far_as_they_can_be() {
        let json = schema::<Command>();
        for part in [
            concat!(
                r#"{"name":"inner","type":{"record":[{"name":"flag","type":"bool"},"#,
                r#"{"name":"color","type":{"choice":["Red","Green"]}}]}}"#
            ),
            r#"{"name":"many","type":{"list":{"tuple":["u8","f32"]}}}"#,
            r#"{"name":"map","type":{"map":"bytes"}},{"name":"maybe","type":{"option":"char"}}"#,
            r#"{"name":"wrapped","fields":[{"name":"flag","type":"bool"},"#,
            r#"{"name":"bare","body":"string"}"#,
            r#"{"name":"pair","body":{"tuple":["i64","null"]}}"#,
            // Zero is refused, so the fields after it stay unknown; their names do not.
            r#"{"name":"not-zero","fields":[{"name":"first","type":"u8"},{"name":"second","type":"any"}]}"#,
            r#"{"name":"tree","type":{"choice":["Branch","Leaf"]}}"#,
        ] {
            assert!(json.contains(part), "{part} is not in {json}");
        }
    }

    #[test]
    fn types_without_variants_have_none() {
        assert_eq!(schema::<()>(), "[]");
        assert_eq!(schema::<crate::Nothing>(), "[]");
        assert_eq!(schema::<BTreeMap<String, u8>>(), "[]");
    }

    #[test]
    fn odd_names_are_escaped() {
        let mut json = String::new();
        super::quote("a\"b\\c\n", &mut json);
        assert_eq!(json, r#""a\"b\\c\u000a""#);
    }
}
