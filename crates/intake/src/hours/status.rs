//! The lines in which `daemon --status` tells about working hours.

use clearml_support::text::printable_in_line;
use jiff::Zoned;
use jiff::civil::Time;

use super::parse::day_name;
use super::{Because, Entry, Force, LocalHour, WorkingHours};

/// The worker's runtime property, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForcedProperty {
    /// What it says.
    pub force: Force,
    /// Until when, on the local clock.
    pub expires: Option<Time>,
}

/// A queue as the status shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusQueue {
    /// Its name.
    pub name: String,
    /// Its tags.
    pub tags: Vec<String>,
}

/// All that decides about working hours at the moment.
#[derive(Debug, Clone, Copy)]
pub struct Forced<'a> {
    /// The worker's runtime property.
    pub property: Option<ForcedProperty>,
    /// The queues it listens to.
    pub queues: &'a [StatusQueue],
}

impl WorkingHours {
    /// A heading, and one line for each entry.
    #[must_use]
    pub fn describe(&self) -> Vec<String> {
        let (kind, schedule) = match self {
            Self::Always => return vec!["No uptime/downtime configurations found".to_owned()],
            Self::Up(schedule) => ("uptime", schedule),
            Self::Down(schedule) => ("downtime", schedule),
        };
        let heading = format!("Working hours {kind} configurations");
        std::iter::once(heading)
            .chain(schedule.entries.iter().map(line))
            .collect()
    }
}

fn line(entry: &Entry) -> String {
    let hours: Vec<String> = entry
        .hours
        .iter()
        .map(|span| format!("{:02}:00-{:02}:59", span.start, span.end - 1))
        .collect();
    let days: Vec<&str> = entry.days.iter().map(|day| day_name(*day)).collect();
    match (hours.is_empty(), days.is_empty()) {
        (false, false) => format!("  - {} on {}", hours.join(" and "), days.join(" and ")),
        _ => "  - never".to_owned(),
    }
}

/// What the schedule says now, and until when.
fn by_schedule(hours: &WorkingHours, now: &Zoned) -> Option<String> {
    if matches!(hours, WorkingHours::Always) {
        return None;
    }
    let active = hours.decide::<&str>(LocalHour::from(now), &[], None).active;
    let state = if active { "ON" } else { "OFF" };
    Some(match hours.next_change(now) {
        Some(change) => format!("  - By schedule {state} until {}", change.strftime("%a %F %H:%M")),
        None => format!("  - By schedule always {state}"),
    })
}

/// The whole status at one moment: the schedule, what overrides it, and the queues.
#[must_use]
pub fn status_lines(hours: &WorkingHours, forced: Forced<'_>, now: &Zoned) -> Vec<String> {
    let mut lines = hours.describe();
    lines.extend(by_schedule(hours, now));
    let force = forced.property.map(|property| property.force);
    let hour = LocalHour::from(now);
    let decisions = forced
        .queues
        .iter()
        .map(|queue| hours.decide(hour, &queue.tags, force));
    let alone = forced
        .queues
        .is_empty()
        .then(|| hours.decide::<&str>(hour, &[], force));
    for decision in decisions.chain(alone) {
        let forced = matches!(decision.because, Because::QueueTag | Because::RuntimeProperty);
        let line = format!("Currently forced {}", if decision.active { "ON" } else { "OFF" });
        if forced && !lines.contains(&line) {
            lines.push(line);
        }
    }
    if let Some(property) = forced.property {
        let expires = property.expires.map_or_else(String::new, |time| {
            format!(" expires at {:02}:{:02}", time.hour(), time.minute())
        });
        lines.push(format!(
            "  - Server runtime property 'force: {}'{expires}",
            property.force
        ));
    }
    for queue in forced.queues {
        let decision = hours.decide(hour, &queue.tags, None);
        let tagged = match decision.because {
            Because::QueueTag if decision.active => format!(" (tagged '{}')", super::TAG_ON),
            Because::QueueTag => format!(" (tagged '{}')", super::TAG_OFF),
            _ => String::new(),
        };
        let name = printable_in_line(&queue.name);
        lines.push(format!("  - Listening to queue '{name}'{tagged}"));
    }
    lines
}
