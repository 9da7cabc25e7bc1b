//! Functions on texts, and the formats of jq.
//!
//! Relies on values. Promises to take fuel in proportion to the letters. Knows no expression.

use super::machine::{Machine, Stop};
use super::native::Fun;
use super::term::Format;
use crate::value::Value;

type Result<T> = std::result::Result<T, Stop>;

/// Letters that cost one step.
const LETTERS_PER_STEP: usize = 8;
/// The letters of base 64.
const BASE_64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn wrong(value: &Value, cannot: &str) -> Stop {
    Stop::error(&format!("{} {cannot}", value.type_name()))
}

/// Appends a value to a text as a format says.
pub(super) fn append(
    machine: &mut Machine<'_>,
    format: Format,
    value: &Value,
    out: &mut String,
) -> Result<()> {
    let json;
    let text: &str = match value {
        Value::Str(text) => text,
        _ => {
            json = value.to_json();
            &json
        }
    };
    machine.charge(1 + text.len() / LETTERS_PER_STEP)?;
    match format {
        Format::Text => out.push_str(text),
        Format::Json => out.push_str(&value.to_json()),
        Format::Html => text.chars().for_each(|letter| match letter {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '\'' => out.push_str("&#39;"),
            '"' => out.push_str("&quot;"),
            other => out.push(other),
        }),
        Format::Uri => percent_encode(text, out),
        Format::Csv => row(value, ",", out, |text| format!("\"{}\"", text.replace('"', "\"\"")))?,
        Format::Tsv => row(value, "\t", out, |text| {
            text.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n").replace('\r', "\\r")
        })?,
        Format::Sh => match value.items() {
            Some(items) => {
                for (place, item) in items.iter().enumerate() {
                    if place > 0 {
                        out.push(' ');
                    }
                    quote_for_shell(item, out)?;
                }
            }
            None => quote_for_shell(value, out)?,
        },
        Format::Base64 => encode_base_64(text.as_bytes(), out),
        Format::Base64d => out.push_str(&decode_base_64(text)?),
    }
    Ok(())
}

/// Percent-encodes what is not unreserved in a URI (RFC 3986 §2.3).
pub fn percent_encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

fn row(value: &Value, between: &str, out: &mut String, quote: impl Fn(&str) -> String) -> Result<()> {
    let Some(items) = value.items() else { return Err(wrong(value, "cannot be formatted as a row")) };
    for (place, item) in items.iter().enumerate() {
        if place > 0 {
            out.push_str(between);
        }
        match item {
            Value::Null => {}
            Value::Str(text) => out.push_str(&quote(text)),
            Value::Array(_) | Value::Object(_) => return Err(wrong(item, "is not valid in a row")),
            other => out.push_str(&other.to_json()),
        }
    }
    Ok(())
}

fn quote_for_shell(value: &Value, out: &mut String) -> Result<()> {
    match value {
        Value::Str(text) => {
            out.push('\'');
            out.push_str(&text.replace('\'', "'\\''"));
            out.push('\'');
        }
        Value::Array(_) | Value::Object(_) => return Err(wrong(value, "cannot be escaped for a shell")),
        other => out.push_str(&other.to_json()),
    }
    Ok(())
}

fn encode_base_64(bytes: &[u8], out: &mut String) {
    for chunk in bytes.chunks(3) {
        let group =
            chunk.iter().fold(0_u32, |group, byte| group << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            if place <= chunk.len() {
                let letter = BASE_64[(group >> (18 - 6 * place)) as usize & 63];
                out.push(char::from(letter));
            } else {
                out.push('=');
            }
        }
    }
}

fn decode_base_64(text: &str) -> Result<String> {
    let invalid = || Stop::error("string is not valid base64 data");
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut group, mut bits) = (0_u32, 0);
    for letter in text.trim_end_matches('=').bytes() {
        let six = BASE_64.iter().position(|known| *known == letter).ok_or_else(invalid)?;
        group = group << 6 | six as u32;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((group >> bits) as u8);
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The parts of a text between occurrences of another.
pub(super) fn split(machine: &mut Machine<'_>, input: &Value, between: &Value) -> Result<Value> {
    let (Some(text), Some(between)) = (input.as_text(), between.as_text()) else {
        return Err(Stop::error("split input and separator must be strings"));
    };
    machine.charge(text.len())?;
    if text.is_empty() {
        return Ok(Value::empty_array());
    }
    if between.is_empty() {
        let letters = text.chars().map(|letter| Value::text(letter.encode_utf8(&mut [0; 4])));
        return Ok(Value::array(letters.collect())?);
    }
    Ok(Value::array(text.split(between).map(Value::text).collect())?)
}

fn join(machine: &mut Machine<'_>, input: &Value, between: &Value) -> Result<Value> {
    let Some(items) = input.items() else { return Err(wrong(input, "cannot be joined")) };
    let Some(between) = between.as_text() else { return Err(wrong(between, "cannot join")) };
    let mut joined = String::new();
    for (place, item) in items.iter().enumerate() {
        if place > 0 {
            joined.push_str(between);
        }
        match item {
            Value::Null => {}
            Value::Array(_) | Value::Object(_) => return Err(wrong(item, "cannot be joined with a string")),
            other => append(machine, Format::Text, other, &mut joined)?,
        }
        machine.charge(between.len() / LETTERS_PER_STEP)?;
    }
    Ok(Value::text(&joined))
}

/// Runs a function on a text.
pub(super) fn run(machine: &mut Machine<'_>, fun: Fun, input: &Value, argument: &Value) -> Result<Value> {
    match fun {
        Fun::Join => return join(machine, input, argument),
        Fun::Split => return split(machine, input, argument),
        Fun::Implode => return implode(machine, input),
        Fun::LeftTrimText | Fun::RightTrimText
            if input.as_text().is_none() || argument.as_text().is_none() =>
        {
            return Ok(input.clone());
        }
        _ => {}
    }
    let Some(text) = input.as_text() else { return Err(wrong(input, "is not a string")) };
    machine.charge(text.len() / LETTERS_PER_STEP)?;
    let part = || argument.as_text().ok_or_else(|| wrong(argument, "is not a string"));
    Ok(match fun {
        Fun::StartsWith => Value::Bool(text.starts_with(part()?)),
        Fun::EndsWith => Value::Bool(text.ends_with(part()?)),
        Fun::LeftTrimText => Value::text(text.strip_prefix(part()?).unwrap_or(text)),
        Fun::RightTrimText => Value::text(text.strip_suffix(part()?).unwrap_or(text)),
        Fun::Trim => Value::text(text.trim()),
        Fun::LeftTrim => Value::text(text.trim_start()),
        Fun::RightTrim => Value::text(text.trim_end()),
        Fun::AsciiDowncase => Value::text(&text.to_ascii_lowercase()),
        Fun::AsciiUpcase => Value::text(&text.to_ascii_uppercase()),
        Fun::Explode => {
            machine.charge(text.len())?;
            Value::array(text.chars().map(|letter| Value::Int(u32::from(letter).into())).collect())?
        }
        _ => return Err(Stop::error("there is no such function")),
    })
}

fn implode(machine: &mut Machine<'_>, input: &Value) -> Result<Value> {
    let Some(items) = input.items() else { return Err(wrong(input, "cannot be imploded")) };
    machine.charge(items.len())?;
    let letter = |item: &Value| {
        let code = item.as_int().and_then(|code| u32::try_from(code).ok());
        code.and_then(char::from_u32).ok_or_else(|| wrong(item, "is no code point"))
    };
    Ok(Value::text(&items.iter().map(letter).collect::<Result<String>>()?))
}
