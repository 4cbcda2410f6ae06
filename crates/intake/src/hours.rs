//! Working hours: when a worker takes tasks. Pure: the time is an argument.
//!
//! Entries such as `17-20 SUN-TUE` are read once, at start-up ([`Schedule`]); every pass then asks
//! [`WorkingHours::decide`], and who wants to sleep until it matters asks [`WorkingHours::next_change`].
//! Hours are those of the local clock, so what counts is the hour that it shows: where the clock is put
//! forward an hour may not happen at all, where it is put back it happens twice.

use std::fmt;

use jiff::civil::Weekday;
use jiff::{Timestamp, Zoned};

mod parse;
mod status;

pub use parse::{HoursError, HoursWarning};
pub use status::{Forced, ForcedProperty, StatusQueue, status_lines};

/// Tag of a queue that is served at any time.
pub const TAG_ON: &str = "force_workers:on";

/// Tag of a queue that is not served at all.
pub const TAG_OFF: &str = "force_workers:off";

/// Whole hours `start` to `end`, the latter excluded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    start: u8,
    end: u8,
}

/// One entry: hours on days.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    hours: Vec<Span>,
    /// In the order in which they were named, none twice.
    days: Vec<Weekday>,
}

impl Entry {
    fn covers(&self, day: Weekday, hour: u8) -> bool {
        self.days.contains(&day)
            && self
                .hours
                .iter()
                .any(|span| (span.start..span.end).contains(&hour))
    }
}

/// The hours of a week that any of its entries names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Schedule {
    entries: Vec<Entry>,
    /// One bit per hour, for each day since Sunday.
    week: [u32; 7],
}

impl Schedule {
    /// Whether the hour belongs to it.
    #[must_use]
    pub fn covers(&self, day: Weekday, hour: u8) -> bool {
        hour < 24 && self.week[usize::from(day.to_sunday_zero_offset().unsigned_abs())] & (1 << hour) != 0
    }

    /// Whether it has no entry, as if it had not been given.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn from_entries(entries: Vec<Entry>) -> Self {
        let mut week = [0; 7];
        for (offset, bits) in week.iter_mut().enumerate() {
            for hour in 0..24 {
                let day = Weekday::from_sunday_zero_offset(i8::try_from(offset).unwrap_or_default());
                if day.is_ok_and(|day| entries.iter().any(|entry| entry.covers(day, hour))) {
                    *bits |= 1 << hour;
                }
            }
        }
        Self { entries, week }
    }
}

/// An hour of the week on the local clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalHour {
    /// The day.
    pub day: Weekday,
    /// 0 to 23.
    pub hour: u8,
}

impl From<&Zoned> for LocalHour {
    fn from(time: &Zoned) -> Self {
        Self {
            day: time.weekday(),
            hour: time.hour().unsigned_abs(),
        }
    }
}

/// When a worker takes tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum WorkingHours {
    /// At any time.
    #[default]
    Always,
    /// Inside of the schedule.
    Up(Schedule),
    /// Outside of the schedule.
    Down(Schedule),
}

/// Why both schedules are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "both uptime and downtime are given, which contradict each other: both are ignored, give only one of them"
)]
pub struct BothGiven;

impl WorkingHours {
    /// Chooses between schedules; empty ones count as not given. A schedule of the command line takes the
    /// place of any configured one, of the same kind or of the other.
    ///
    /// # Errors
    ///
    /// [`BothGiven`] where the command line, or else the configuration, gives both. The worker then has no
    /// working hours; the caller says so.
    pub fn choose(
        command_line: (Schedule, Schedule),
        configured: (Schedule, Schedule),
    ) -> Result<Self, BothGiven> {
        let given = |pair: &(Schedule, Schedule)| !(pair.0.is_empty() && pair.1.is_empty());
        let (up, down) = if given(&command_line) {
            command_line
        } else {
            configured
        };
        match (up.is_empty(), down.is_empty()) {
            (true, true) => Ok(Self::Always),
            (false, true) => Ok(Self::Up(up)),
            (true, false) => Ok(Self::Down(down)),
            (false, false) => Err(BothGiven),
        }
    }

    /// Whether a queue is served now.
    ///
    /// `tags` are the queue's, `force` is the worker's runtime property.
    #[must_use]
    pub fn decide<T: AsRef<str>>(&self, now: LocalHour, tags: &[T], force: Option<Force>) -> Decision {
        let tagged = |tag| tags.iter().any(|own| own.as_ref() == tag);
        if tagged(TAG_OFF) {
            return Decision {
                active: false,
                because: Because::QueueTag,
            };
        }
        if tagged(TAG_ON) {
            return Decision {
                active: true,
                because: Because::QueueTag,
            };
        }
        if let Some(force) = force {
            return Decision {
                active: force == Force::On,
                because: Because::RuntimeProperty,
            };
        }
        let (active, because) = match self {
            Self::Always => (true, Because::NoSchedule),
            Self::Up(schedule) => (schedule.covers(now.day, now.hour), Because::Uptime),
            Self::Down(schedule) => (!schedule.covers(now.day, now.hour), Because::Downtime),
        };
        Decision { active, because }
    }

    /// The first moment after `now` at which the schedule begins or ends, in the time zone of `now`. `None`
    /// if it never does. Tags and properties can change at any time and are not considered.
    #[must_use]
    pub fn next_change(&self, now: &Zoned) -> Option<Zoned> {
        let schedule = match self {
            Self::Always => return None,
            Self::Up(schedule) | Self::Down(schedule) => schedule,
        };
        let covers = |time: &Zoned| {
            let local = LocalHour::from(time);
            schedule.covers(local.day, local.hour)
        };
        let before = covers(now);
        let mut time = now.clone();
        // An hour that is skipped once because the clock is put forward comes again a week later; more than
        // two weeks in a row no zone skips.
        for _ in 0..24 * 7 * 3 {
            time = next_hour(&time)?;
            if covers(&time) != before {
                return Some(time);
            }
        }
        None
    }
}

/// The next moment at which the clock shows another hour: the end of this one, or when it is put forward
/// or back before that.
fn next_hour(time: &Zoned) -> Option<Zoned> {
    let into = i64::from(time.minute()) * 60 + i64::from(time.second());
    let end = Timestamp::from_second(
        time.timestamp().as_second() - i64::from(time.timestamp().subsec_nanosecond() < 0),
    )
    .and_then(|second| second.checked_add(jiff::SignedDuration::from_secs(3600 - into)))
    .ok()?;
    let shift = time.time_zone().following(time.timestamp()).next();
    let next = shift.map_or(end, |shift| shift.timestamp().min(end));
    Some(next.to_zoned(time.time_zone().clone()))
}

/// What the worker's runtime property `force` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// Serve all queues.
    On,
    /// Serve none.
    Off,
}

impl Force {
    /// Reads the property's value, in any case. `None`: it means nothing and is ignored, with a warning.
    #[must_use]
    pub fn from_property(value: &str) -> Option<Self> {
        if value.eq_ignore_ascii_case("on") {
            Some(Self::On)
        } else if value.eq_ignore_ascii_case("off") {
            Some(Self::Off)
        } else {
            None
        }
    }
}

/// As the property's value.
impl fmt::Display for Force {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::On => "on",
            Self::Off => "off",
        })
    }
}

/// Whether a queue is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// Whether tasks are taken from it.
    pub active: bool,
    /// What decided.
    pub because: Because,
}

/// What decided; the first that applies, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Because {
    /// A tag of the queue.
    QueueTag,
    /// The worker's runtime property.
    RuntimeProperty,
    /// The hours in which it works.
    Uptime,
    /// The hours in which it doesn't.
    Downtime,
    /// Nothing restricts it.
    NoSchedule,
}

#[cfg(test)]
#[path = "hours_tests.rs"]
mod tests;

#[cfg(test)]
mod oracle_tests;
