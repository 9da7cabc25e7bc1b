//! Durations: as an object of units, and as ISO 8601.
//!
//! Relies on values. Promises whole milliseconds, at most [`MILLIS_MAX`]. Knows no clock.

use crate::value::Value;

/// The longest duration, ten years: what lasts longer is more likely a mistake.
pub const MILLIS_MAX: u64 = 10 * 366 * DAY;
const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// The units of an object, in milliseconds.
const UNITS: [(&str, u64); 5] =
    [("days", DAY), ("hours", HOUR), ("minutes", MINUTE), ("seconds", SECOND), ("milliseconds", 1)];

fn bounded(millis: f64) -> Result<u64, String> {
    if (0.0..=MILLIS_MAX as f64).contains(&millis) {
        // Within range by the test above.
        Ok(millis as u64)
    } else {
        Err("a duration is between nothing and ten years".to_owned())
    }
}

/// Milliseconds of a duration in either form.
///
/// # Errors
///
/// What is wrong, in a sentence.
pub fn millis(value: &Value) -> Result<u64, String> {
    if let Some(text) = value.as_text() {
        return iso8601(text);
    }
    let Some(pairs) = value.pairs() else {
        return Err("a duration is an ISO 8601 text or an object of units".to_owned());
    };
    if pairs.is_empty() {
        return Err("a duration needs a unit".to_owned());
    }
    let mut sum = 0.0;
    for (unit, count) in pairs {
        let Some((_, millis)) = UNITS.iter().find(|(known, _)| *known == &**unit) else {
            return Err(format!(
                "`{unit}` is no unit; there are days, hours, minutes, seconds, milliseconds"
            ));
        };
        let count = count.as_int().ok_or_else(|| format!("`{unit}` needs a whole number"))?;
        sum += count as f64 * *millis as f64;
    }
    bounded(sum)
}

/// Milliseconds of an ISO 8601 duration such as `PT1H30M` or `P2DT0.5S`. Months and years have no fixed
/// length and are refused.
fn iso8601(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not an ISO 8601 duration such as PT1H30M");
    let rest = text.strip_prefix('P').ok_or_else(wrong)?;
    let (date, time) = rest.split_once('T').map_or((rest, None), |(date, time)| (date, Some(time)));
    if (date.is_empty() && time.is_none()) || time == Some("") {
        return Err(wrong());
    }
    let mut sum = 0.0;
    for (part, units) in [
        (date, &[('W', 7 * DAY), ('D', DAY)][..]),
        (time.unwrap_or(""), &[('H', HOUR), ('M', MINUTE), ('S', SECOND)]),
    ] {
        let mut units = units.iter();
        let mut part = part;
        while !part.is_empty() {
            let end =
                part.find(|letter: char| !letter.is_ascii_digit() && letter != '.').ok_or_else(wrong)?;
            let count: f64 = part[..end].parse().map_err(|_| wrong())?;
            let letter = part[end..].chars().next().ok_or_else(wrong)?;
            if "YM".contains(letter) && time.is_none_or(|time| !time.contains(letter)) {
                return Err("months and years have no fixed length; use days".to_owned());
            }
            let (_, millis) = units.find(|(unit, _)| *unit == letter).ok_or_else(wrong)?;
            sum += count * *millis as f64;
            part = &part[end + letter.len_utf8()..];
        }
    }
    bounded(sum)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn both_forms_are_read() {
        let read = |json: &str| millis(&Value::from_json(json).unwrap());
        assert_eq!(read(r#"{"hours":2,"minutes":15,"seconds":30}"#), Ok(8_130_000));
        assert_eq!(read(r#"{"days":1,"milliseconds":1}"#), Ok(86_400_001));
        for (text, expected) in
            [("PT1H30M", 5_400_000), ("P1DT0.5S", 86_400_500), ("P2W", 1_209_600_000), ("PT0S", 0)]
        {
            assert_eq!(iso8601(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for json in
            ["{}", r#"{"years":1}"#, r#"{"seconds":"1"}"#, r#"{"seconds":-1}"#, r#"{"days":99999}"#, "1"]
        {
            assert!(millis(&Value::from_json(json).unwrap()).is_err(), "{json}");
        }
        for text in ["", "P", "PT", "1S", "PT1X", "P1M", "P1Y", "PT1M1H", "PTS", "PT1", "P1DT"] {
            assert!(iso8601(text).is_err(), "{text}");
        }
    }
}
