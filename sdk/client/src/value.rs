//! Values between Rust, CBOR and JSON.
//!
//! Relies on ciborium and `serde_json`. Promises that CBOR made from JSON gives the same JSON again, that
//! integers keep all their digits, and a typed error for what has no form on the other side. Knows no
//! component's schema.
//!
//! | CBOR | JSON |
//! |---|---|
//! | integer from -2^63 to 2^64 - 1 | number without fraction |
//! | floating point | number with fraction; `{"$float": "NaN"}`, `"Infinity"` or `"-Infinity"` |
//! | text, boolean, null, array | the same |
//! | bytes | `{"$bytes": "00ff"}`, in hexadecimal digits |
//! | map with keys of text | object |
//! | map with integer keys | object with the keys in decimal; not made from JSON again |

use bytes::Bytes;
use ciborium::Value as Cbor;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Number, Value as Json};

use crate::error::Error;

/// The key of an object that stands for bytes.
const BYTES_KEY: &str = "$bytes";
/// The key of an object that stands for a number that JSON cannot write.
const FLOAT_KEY: &str = "$float";

/// A value as CBOR.
///
/// # Errors
///
/// [`Error::Encode`].
pub fn to_cbor(value: &(impl Serialize + ?Sized)) -> Result<Bytes, Error> {
    let mut out = Vec::with_capacity(64);
    ciborium::into_writer(value, &mut out).map_err(|error| Error::Encode { reason: error.to_string() })?;
    Ok(out.into())
}

/// A value from CBOR; all of the bytes must be used.
///
/// # Errors
///
/// [`Error::Decode`].
pub fn from_cbor<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    let mut left = bytes;
    let value =
        ciborium::from_reader(&mut left).map_err(|error| Error::Decode { reason: error.to_string() })?;
    if left.is_empty() {
        Ok(value)
    } else {
        Err(Error::Decode { reason: format!("{} bytes follow the value", left.len()) })
    }
}

/// JSON as CBOR.
///
/// # Errors
///
/// [`Error::Encode`] for a malformed `$bytes` or `$float`.
pub fn json_to_cbor(json: &Json) -> Result<Bytes, Error> {
    to_cbor(&cbor_of(json)?)
}

/// CBOR as JSON.
///
/// # Errors
///
/// [`Error::Decode`] for bytes that are not one CBOR value, or one without a form in JSON.
pub fn cbor_to_json(bytes: &[u8]) -> Result<Json, Error> {
    json_of(from_cbor(bytes)?)
}

fn cbor_of(json: &Json) -> Result<Cbor, Error> {
    Ok(match json {
        Json::Null => Cbor::Null,
        Json::Bool(value) => Cbor::Bool(*value),
        Json::Number(number) => cbor_of_number(number)?,
        Json::String(text) => Cbor::Text(text.clone()),
        Json::Array(items) => Cbor::Array(items.iter().map(cbor_of).collect::<Result<_, _>>()?),
        Json::Object(fields) => match special(fields) {
            Some((BYTES_KEY, text)) => Cbor::Bytes(bytes_of_hex(text)?),
            Some((_, text)) => Cbor::Float(float_of(text)?),
            None => Cbor::Map(
                fields
                    .iter()
                    .map(|(key, value)| Ok((Cbor::Text(key.clone()), cbor_of(value)?)))
                    .collect::<Result<_, Error>>()?,
            ),
        },
    })
}

fn cbor_of_number(number: &Number) -> Result<Cbor, Error> {
    if let Some(value) = number.as_u64() {
        return Ok(Cbor::Integer(value.into()));
    }
    if let Some(value) = number.as_i64() {
        return Ok(Cbor::Integer(value.into()));
    }
    let too_large = || Error::Encode { reason: format!("{number} is outside the range of numbers") };
    number.as_f64().map(Cbor::Float).ok_or_else(too_large)
}

/// The key and text of an object that stands for something JSON cannot write.
fn special(fields: &Map<String, Json>) -> Option<(&str, &str)> {
    let (key, value) = fields.iter().next().filter(|_| fields.len() == 1)?;
    let text = value.as_str()?;
    (key == BYTES_KEY || key == FLOAT_KEY).then_some((key, text))
}

fn float_of(text: &str) -> Result<f64, Error> {
    match text {
        "NaN" => Ok(f64::NAN),
        "Infinity" => Ok(f64::INFINITY),
        "-Infinity" => Ok(f64::NEG_INFINITY),
        other => Err(Error::Encode {
            reason: format!("{FLOAT_KEY} is {other:?}; write NaN, Infinity or -Infinity"),
        }),
    }
}

fn bytes_of_hex(text: &str) -> Result<Vec<u8>, Error> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let pairs = text.as_bytes().chunks(2).map(|pair| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    });
    pairs.collect::<Option<_>>().ok_or_else(|| Error::Encode {
        reason: format!("{BYTES_KEY} must be an even number of hexadecimal digits"),
    })
}

fn json_of(cbor: Cbor) -> Result<Json, Error> {
    Ok(match cbor {
        Cbor::Null => Json::Null,
        Cbor::Bool(value) => Json::Bool(value),
        Cbor::Integer(value) => json_of_integer(value.into())?,
        Cbor::Float(value) => match Number::from_f64(value) {
            Some(number) => Json::Number(number),
            None => special_object(
                FLOAT_KEY,
                if value.is_nan() {
                    "NaN"
                } else if value > 0.0 {
                    "Infinity"
                } else {
                    "-Infinity"
                },
            ),
        },
        Cbor::Text(text) => Json::String(text),
        Cbor::Bytes(bytes) => {
            special_object(BYTES_KEY, &bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
        }
        Cbor::Array(items) => Json::Array(items.into_iter().map(json_of).collect::<Result<_, _>>()?),
        Cbor::Map(fields) => json_of_map(fields)?,
        other => return Err(Error::Decode { reason: format!("{other:?} has no form in JSON") }),
    })
}

fn json_of_integer(value: i128) -> Result<Json, Error> {
    let unsigned = u64::try_from(value).map(Number::from);
    let number = unsigned.or_else(|_| i64::try_from(value).map(Number::from));
    number.map(Json::Number).map_err(|_| Error::Decode {
        reason: format!("{value} is outside the range of integers, -2^63 to 2^64 - 1"),
    })
}

fn json_of_map(fields: Vec<(Cbor, Cbor)>) -> Result<Json, Error> {
    let mut object = Map::with_capacity(fields.len());
    for (key, value) in fields {
        let key = match key {
            Cbor::Text(text) => text,
            Cbor::Integer(value) => i128::from(value).to_string(),
            other => {
                return Err(Error::Decode {
                    reason: format!("a map has the key {other:?}, which JSON cannot have"),
                });
            }
        };
        if object.insert(key.clone(), json_of(value)?).is_some() {
            return Err(Error::Decode { reason: format!("a map has the key {key:?} twice") });
        }
    }
    Ok(Json::Object(object))
}

fn special_object(key: &str, text: &str) -> Json {
    Json::Object([(key.to_owned(), Json::String(text.to_owned()))].into_iter().collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn json_comes_back_from_cbor_as_it_was() {
        for value in [
            json!(null),
            json!([true, false, "text", "ä\u{0}"]),
            json!([0, -1, u64::MAX, i64::MIN, 1.5, -0.25, 1e300]),
            json!({"a": {"b": [1, {"c": null}]}, "": []}),
            json!({"$bytes": "00ff10"}),
            json!([{"$float": "NaN"}, {"$float": "-Infinity"}, {"$float": "Infinity"}]),
            json!({"$bytes": "zz", "and": "more than one key is an object like any other"}),
        ] {
            assert_eq!(cbor_to_json(&json_to_cbor(&value).unwrap()).unwrap(), value);
        }
    }

    #[test]
    fn bytes_are_bytes_and_not_text() {
        let cbor = json_to_cbor(&json!({"$bytes": "00ff"})).unwrap();
        assert_eq!(&cbor[..], [0x42, 0x00, 0xff]);
    }

    #[test]
    fn malformed_bytes_and_floats_are_refused() {
        for value in [json!({"$bytes": "0"}), json!({"$bytes": "0g"}), json!({"$float": "inf"})] {
            assert!(matches!(json_to_cbor(&value), Err(Error::Encode { .. })), "{value}");
        }
    }

    #[test]
    fn cbor_that_json_cannot_say_is_a_typed_error() {
        let two_keys =
            Cbor::Map(vec![(Cbor::Text("1".into()), Cbor::Null), (Cbor::Integer(1.into()), Cbor::Null)]);
        let odd_key = Cbor::Map(vec![(Cbor::Null, Cbor::Null)]);
        let tagged = Cbor::Tag(99, Box::new(Cbor::Null));
        for value in [two_keys, odd_key, tagged] {
            let bytes = to_cbor(&value).unwrap();
            assert!(matches!(cbor_to_json(&bytes), Err(Error::Decode { .. })), "{value:?}");
        }
    }

    #[test]
    fn garbage_and_left_over_bytes_are_typed_errors() {
        for bytes in
            [&[][..], &[0xff], &[0x9f, 0x01], &[0x01, 0x02], &[0x5b, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]]
        {
            assert!(matches!(cbor_to_json(bytes), Err(Error::Decode { .. })), "{bytes:?}");
        }
        let deep = vec![0x81; 100_000];
        assert!(matches!(cbor_to_json(&deep), Err(Error::Decode { .. })));
    }

    #[test]
    fn integer_keys_are_shown_in_decimal() {
        let map = Cbor::Map(vec![(Cbor::Integer((-7).into()), Cbor::Bool(true))]);
        assert_eq!(cbor_to_json(&to_cbor(&map).unwrap()).unwrap(), json!({"-7": true}));
    }
}
