//! Reads the entries of a schedule.
//!
//! What can't be an entry is an error, so that a worker doesn't start with other hours than its owner meant.
//! A single bad hour or day is a warning and is left out, as other agents do it.

use jiff::civil::Weekday;

use super::{Entry, Schedule, Span};

const DAYS: [(&str, Weekday); 7] = [
    ("SUN", Weekday::Sunday),
    ("MON", Weekday::Monday),
    ("TUE", Weekday::Tuesday),
    ("WED", Weekday::Wednesday),
    ("THU", Weekday::Thursday),
    ("FRI", Weekday::Friday),
    ("SAT", Weekday::Saturday),
];

/// An entry that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "reading the working hours \"{entry}\": an entry has hours and days with a blank between them, such as \"17-20 SUN-TUE\""
)]
pub struct HoursError {
    /// The entry.
    pub entry: String,
}

/// A part of an entry that is left out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HoursWarning {
    /// Not hours.
    #[error(
        "working hours \"{entry}\": \"{token}\" is left out, hours are such as 17-20 or 17, from 0 to 24 and not over midnight"
    )]
    Hours {
        /// The entry.
        entry: String,
        /// The part.
        token: String,
    },
    /// Not days.
    #[error("working hours \"{entry}\": \"{token}\" is left out, days are such as SUN-TUE or SUN")]
    Days {
        /// The entry.
        entry: String,
        /// The part.
        token: String,
    },
    /// Nothing remains.
    #[error("working hours \"{entry}\": no hour of any day is left, so the entry never applies")]
    Never {
        /// The entry.
        entry: String,
    },
}

impl Schedule {
    /// Reads entries, each such as `20-23 SUN`, `20-00,00-08 SUN,TUE` or `20 FRI-MON`. What follows the
    /// days is ignored, and so is a comma after an entry.
    ///
    /// # Errors
    ///
    /// [`HoursError`] for an entry without hours or days.
    pub fn parse<E: AsRef<str>>(entries: &[E]) -> Result<(Self, Vec<HoursWarning>), HoursError> {
        let mut warnings = Vec::new();
        let mut read = Vec::new();
        for entry in entries.iter().map(AsRef::as_ref) {
            read.push(parse_entry(entry, &mut warnings)?);
        }
        Ok((Self::from_entries(read), warnings))
    }
}

fn parse_entry(entry: &str, warnings: &mut Vec<HoursWarning>) -> Result<Entry, HoursError> {
    let mut fields = entry.split_whitespace().map(|field| field.trim_end_matches(','));
    let (Some(hours), Some(days)) = (fields.next(), fields.next()) else {
        return Err(HoursError {
            entry: entry.to_owned(),
        });
    };
    let mut spans = Vec::new();
    for token in hours.split(',') {
        match parse_hours(token) {
            Some(span) if spans.contains(&span) => {}
            Some(span) => spans.push(span),
            None => warnings.push(HoursWarning::Hours {
                entry: entry.to_owned(),
                token: token.to_owned(),
            }),
        }
    }
    let mut named = Vec::new();
    for token in days.split(',') {
        match parse_days(token) {
            Some(span) => {
                for day in span {
                    if !named.contains(&day) {
                        named.push(day);
                    }
                }
            }
            None => warnings.push(HoursWarning::Days {
                entry: entry.to_owned(),
                token: token.to_owned(),
            }),
        }
    }
    if spans.is_empty() || named.is_empty() {
        warnings.push(HoursWarning::Never {
            entry: entry.to_owned(),
        });
    }
    Ok(Entry {
        hours: spans,
        days: named,
    })
}

/// `17-20`, or `17` until midnight. An end of 0 is midnight too.
fn parse_hours(token: &str) -> Option<Span> {
    let (start, end) = match token.split_once('-') {
        Some((start, end)) => (hour(start)?, hour(end)?),
        None => (hour(token)?, 24),
    };
    let end = if end == 0 { 24 } else { end };
    (start < end).then_some(Span { start, end })
}

fn hour(text: &str) -> Option<u8> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits = text.trim_start_matches('0');
    let value = if digits.is_empty() {
        0
    } else {
        digits.parse().ok()?
    };
    (value <= 24).then_some(value)
}

/// `SUN-TUE`, or `SUN`. A span may run over the end of the week.
fn parse_days(token: &str) -> Option<Vec<Weekday>> {
    let (first, last) = match token.split_once('-') {
        Some((first, last)) => (day(first)?, day(last)?),
        None => (day(token)?, day(token)?),
    };
    let length = (last + DAYS.len() - first) % DAYS.len();
    Some(
        (first..=first + length)
            .map(|index| DAYS[index % DAYS.len()].1)
            .collect(),
    )
}

fn day(text: &str) -> Option<usize> {
    DAYS.iter().position(|(name, _)| name.eq_ignore_ascii_case(text))
}

/// The name of a day as entries have it.
pub(super) fn day_name(day: Weekday) -> &'static str {
    DAYS[usize::from(day.to_sunday_zero_offset().unsigned_abs())].0
}
