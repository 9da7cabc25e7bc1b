//! Dates and times in UTC.
//!
//! Relies on values. Promises the proleptic Gregorian calendar and no clock: every time comes in. Knows no
//! expression.

use super::machine::Stop;
use super::native::Fun;
use crate::value::Value;

const DAY_SECONDS: i64 = 86_400;
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// A moment, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Civil {
    /// The year.
    pub year: i64,
    /// 1 to 12.
    pub month: i64,
    /// 1 to 31.
    pub day: i64,
    /// 0 to 23.
    pub hour: i64,
    /// 0 to 59.
    pub minute: i64,
    /// 0 to 59.
    pub second: i64,
}

/// Days since 1970-01-01 (Hinnant, "chrono-compatible low-level date algorithms").
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

impl Civil {
    /// A moment from seconds since 1970.
    #[must_use]
    pub fn from_seconds(seconds: i64) -> Self {
        let (days, rest) = (seconds.div_euclid(DAY_SECONDS), seconds.rem_euclid(DAY_SECONDS));
        let days = days + 719_468;
        let era = days.div_euclid(146_097);
        let of_era = days.rem_euclid(146_097);
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * of_year + 2) / 153;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        Self {
            year: year_of_era + era * 400 + i64::from(month <= 2),
            month,
            day: of_year - (153 * shifted + 2) / 5 + 1,
            hour: rest / 3_600,
            minute: rest / 60 % 60,
            second: rest % 60,
        }
    }

    /// Seconds since 1970.
    #[must_use]
    pub fn seconds(self) -> i64 {
        let days = days_from_civil(self.year, self.month, self.day);
        days * DAY_SECONDS + self.hour * 3_600 + self.minute * 60 + self.second
    }

    /// Days since Sunday.
    #[must_use]
    pub fn weekday(self) -> i64 {
        (days_from_civil(self.year, self.month, self.day) + 4).rem_euclid(7)
    }

    /// Days since the first of January.
    fn year_day(self) -> i64 {
        days_from_civil(self.year, self.month, self.day) - days_from_civil(self.year, 1, 1)
    }

    fn iso8601(self) -> String {
        let Self { year, month, day, hour, minute, second } = self;
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
    }
}

/// A moment in milliseconds since 1970 as ISO 8601 in UTC, such as `2025-06-15T15:06:40.001Z`.
#[must_use]
pub fn iso8601_millis(millis: u64) -> String {
    let seconds = i64::try_from(millis / 1_000).unwrap_or(0);
    format!("{}.{:03}Z", Civil::from_seconds(seconds).iso8601(), millis % 1_000)
}

/// Seconds since 1970 of an ISO 8601 moment in UTC or with an offset; fractions are cut.
#[must_use]
pub fn parse_instant(text: &str) -> Option<i64> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if separators.iter().any(|(place, letter)| text.as_bytes().get(*place) != Some(letter)) {
        return None;
    }
    let civil = Civil {
        year: number(0, 4)?,
        month: number(5, 7)?,
        day: number(8, 10)?,
        hour: number(11, 13)?,
        minute: number(14, 16)?,
        second: number(17, 19)?,
    };
    let in_range = (1..=12).contains(&civil.month)
        && (1..=31).contains(&civil.day)
        && (0..24).contains(&civil.hour)
        && (0..60).contains(&civil.minute)
        && (0..=60).contains(&civil.second);
    let mut rest = text.get(19..)?;
    if let Some(fraction) = rest.strip_prefix('.') {
        rest = fraction.trim_start_matches(|letter: char| letter.is_ascii_digit());
    }
    let offset = match rest.as_bytes() {
        b"Z" => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let seconds =
                rest.get(1..3)?.parse::<i64>().ok()? * 3_600 + rest.get(4..6)?.parse::<i64>().ok()? * 60;
            if *sign == b'+' { seconds } else { -seconds }
        }
        _ => return None,
    };
    in_range.then(|| civil.seconds() - offset)
}

fn broken_down(input: &Value) -> Result<Civil, Stop> {
    if let Some(seconds) = input.as_float() {
        return Ok(Civil::from_seconds(seconds as i64));
    }
    let parts: Vec<i64> = input
        .items()
        .unwrap_or_default()
        .iter()
        .filter_map(|part| part.as_float().map(|part| part as i64))
        .collect();
    match parts[..] {
        // Years far beyond any calendar would only overflow.
        [year, month, day, hour, minute, second, ..]
            if year.abs() < 1_000_000 && (0..12).contains(&month) =>
        {
            Ok(Civil { year, month: month + 1, day, hour, minute, second })
        }
        _ => Err(Stop::error("a time is a number of seconds or an array of its parts")),
    }
}

/// Runs a function on a time.
pub(super) fn run(fun: Fun, input: &Value, argument: &Value) -> Result<Value, Stop> {
    match fun {
        Fun::FromDate => {
            let text = input.as_text().ok_or_else(|| Stop::error("a date is a string"))?;
            let seconds = parse_instant(text);
            seconds.map(Value::Int).ok_or_else(|| {
                Stop::error(&format!("date \"{text}\" does not match format \"%Y-%m-%dT%H:%M:%SZ\""))
            })
        }
        Fun::ToDate => Ok(Value::text(&format!("{}Z", broken_down(input)?.iso8601()))),
        Fun::BrokenDown => {
            let civil = broken_down(input)?;
            let parts = [civil.year, civil.month - 1, civil.day, civil.hour, civil.minute, civil.second];
            let days = [civil.weekday(), civil.year_day()];
            Ok(Value::array(parts.into_iter().chain(days).map(Value::Int).collect())?)
        }
        Fun::MakeTime => match input.items() {
            Some(_) => Ok(Value::Int(broken_down(input)?.seconds())),
            None => Err(Stop::error("mktime requires array of 6 numbers")),
        },
        _ => {
            let format = argument.as_text().ok_or_else(|| Stop::error("strftime needs a format"))?;
            Ok(Value::text(&format_time(broken_down(input)?, format)?))
        }
    }
}

fn format_time(civil: Civil, format: &str) -> Result<String, Stop> {
    let mut out = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            out.push(letter);
            continue;
        }
        let hour_12 = (civil.hour + 11) % 12 + 1;
        let weekday =
            usize::try_from(civil.weekday()).ok().and_then(|day| DAYS.get(day)).copied().unwrap_or("");
        let month =
            usize::try_from(civil.month - 1).ok().and_then(|month| MONTHS.get(month)).copied().unwrap_or("");
        out.push_str(&match letters.next() {
            Some('Y') => format!("{:04}", civil.year),
            Some('m') => format!("{:02}", civil.month),
            Some('d') => format!("{:02}", civil.day),
            Some('e') => format!("{:2}", civil.day),
            Some('H') => format!("{:02}", civil.hour),
            Some('I') => format!("{hour_12:02}"),
            Some('M') => format!("{:02}", civil.minute),
            Some('S') => format!("{:02}", civil.second),
            Some('p') => (if civil.hour < 12 { "AM" } else { "PM" }).to_owned(),
            Some('Z') => "UTC".to_owned(),
            Some('z') => "+0000".to_owned(),
            Some('j') => format!("{:03}", civil.year_day() + 1),
            Some('a') => weekday.chars().take(3).collect(),
            Some('A') => weekday.to_owned(),
            Some('b') => month.chars().take(3).collect(),
            Some('B') => month.to_owned(),
            Some('F') => format!("{:04}-{:02}-{:02}", civil.year, civil.month, civil.day),
            Some('T') => format!("{:02}:{:02}:{:02}", civil.hour, civil.minute, civil.second),
            Some('s') => civil.seconds().to_string(),
            Some('%') => "%".to_owned(),
            other => return Err(Stop::error(&format!("strftime has no %{}", other.unwrap_or(' ')))),
        });
    }
    Ok(out)
}
