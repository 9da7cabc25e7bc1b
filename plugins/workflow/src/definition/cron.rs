//! Cron expressions: five fields, in UTC.
//!
//! Relies on the calendar of expressions. Promises the next moment after a given one, or none if there is
//! none within eight years (the thirtieth of February). Knows no clock.

use crate::jq::Civil;

/// Minutes are tried no further than this many days ahead: two leap years apart.
const DAYS_AHEAD_MAX: i64 = 8 * 366;
const DAY_SECONDS: i64 = 86_400;

const MONTHS: [&str; 12] =
    ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const DAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

/// A cron expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cron {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Whether both fields of days are narrowed, in which case either counts.
    either_day: bool,
}

/// One field as a set of bits.
fn field(text: &str, [least, most]: [u32; 2], names: &[&str]) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no field of a cron expression");
    let number = |text: &str| -> Result<u32, String> {
        let named = names.iter().position(|name| name.eq_ignore_ascii_case(text));
        let number = match named {
            Some(place) => u32::try_from(place).map_err(|_| wrong())? + least,
            None => text.parse().map_err(|_| wrong())?,
        };
        if (least..=most).contains(&number) { Ok(number) } else { Err(wrong()) }
    };
    let mut set = 0;
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => {
                (range, step.parse::<usize>().ok().filter(|step| *step > 0).ok_or_else(wrong)?)
            }
            None => (part, 1),
        };
        let (from, to) = match range.split_once('-') {
            Some((from, to)) => (number(from)?, number(to)?),
            None if range == "*" => (least, most),
            None if part.contains('/') => (number(range)?, most),
            None => (number(range)?, number(range)?),
        };
        if from > to {
            return Err(wrong());
        }
        for value in (from..=to).step_by(step) {
            set |= 1 << value;
        }
    }
    Ok(set)
}

impl Cron {
    /// Reads an expression such as `*/5 8-17 * * MON-FRI`.
    ///
    /// # Errors
    ///
    /// What is wrong, in a sentence.
    pub fn read(text: &str) -> Result<Self, String> {
        let text = match text.trim() {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other => other,
        };
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else {
            return Err(
                "a cron expression has five fields: minute, hour, day, month, day of the week".to_owned()
            );
        };
        let mut weekdays = field(weekday, [0, 7], &DAYS)?;
        // Sunday is 0 and 7.
        weekdays |= weekdays >> 7 & 1;
        Ok(Self {
            minutes: field(minute, [0, 59], &[])?,
            hours: field(hour, [0, 23], &[])?,
            days: field(day, [1, 31], &[])?,
            months: field(month, [1, 12], &MONTHS)?,
            weekdays,
            either_day: day != "*" && weekday != "*",
        })
    }

    /// The first moment after one, both in seconds since 1970.
    #[must_use]
    pub fn next_after(&self, seconds: i64) -> Option<i64> {
        let first = (seconds.div_euclid(60) + 1) * 60;
        let has = |set: u64, value: i64| u32::try_from(value).is_ok_and(|value| set >> value & 1 == 1);
        for ahead in 0..DAYS_AHEAD_MAX {
            let midnight = (first.div_euclid(DAY_SECONDS) + ahead) * DAY_SECONDS;
            let date = Civil::from_seconds(midnight);
            let (day, weekday) = (has(self.days, date.day), has(self.weekdays, date.weekday()));
            let is_day = if self.either_day { day || weekday } else { day && weekday };
            if !is_day || !has(self.months, date.month) {
                continue;
            }
            for hour in (0..24).filter(|hour| has(self.hours, *hour)) {
                for minute in (0..60).filter(|minute| has(self.minutes, *minute)) {
                    let moment = midnight + hour * 3_600 + minute * 60;
                    if moment >= first {
                        return Some(moment);
                    }
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::jq::parse_instant;

    #[test]
    fn the_next_moment_is_found() {
        for (cron, after, expected) in [
            ("0 0 * * *", "2025-06-15T15:06:40Z", Some("2025-06-16T00:00:00Z")),
            ("*/15 * * * *", "2025-06-15T15:06:40Z", Some("2025-06-15T15:15:00Z")),
            ("30 8 1 * *", "2025-12-31T08:30:00Z", Some("2026-01-01T08:30:00Z")),
            ("0 9 * * MON-FRI", "2025-06-13T09:00:00Z", Some("2025-06-16T09:00:00Z")),
            ("0 0 29 2 *", "2025-01-01T00:00:00Z", Some("2028-02-29T00:00:00Z")),
            ("0 0 13 * 5", "2025-06-14T00:00:00Z", Some("2025-06-20T00:00:00Z")),
            ("0 0 * * 7", "2025-06-14T00:00:00Z", Some("2025-06-15T00:00:00Z")),
            ("@hourly", "2025-06-14T00:59:59Z", Some("2025-06-14T01:00:00Z")),
            ("0 0 30 2 *", "2025-01-01T00:00:00Z", None),
        ] {
            let next = Cron::read(cron).unwrap().next_after(parse_instant(after).unwrap());
            assert_eq!(next, expected.and_then(parse_instant), "{cron}");
        }
    }

    #[test]
    fn what_is_no_cron_expression_is_refused() {
        for text in [
            "",
            "* * * *",
            "* * * * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "a * * * *",
            "5-1 * * * *",
            "*/0 * * * *",
            "1,, * * * *",
        ] {
            assert!(Cron::read(text).is_err(), "{text}");
        }
    }
}
