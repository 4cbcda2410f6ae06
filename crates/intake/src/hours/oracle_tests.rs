//! Working hours against a naive reading of their text, minute by minute.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, civil};
use proptest::prelude::*;

use super::tests::{BERLIN, HAVANA, KATHMANDU, LORD_HOWE, NEW_YORK, hours_of};
use super::*;

type Entries = Vec<(Vec<(u8, u8)>, Vec<usize>)>;

const NAMES: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

fn entries() -> impl Strategy<Value = Entries> {
    let span = (0u8..24).prop_flat_map(|start| (Just(start), start + 1..=24));
    let spans = proptest::collection::vec(span, 1..4);
    let days = proptest::collection::vec(0..7usize, 1..4);
    proptest::collection::vec((spans, days), 1..4)
}

fn text(entries: &Entries) -> Vec<String> {
    let list = |parts: Vec<String>| parts.join(",");
    let entry = |(spans, days): &(Vec<(u8, u8)>, Vec<usize>)| {
        let hours = spans
            .iter()
            .map(|(start, end)| format!("{start:02}-{:02}", end % 24));
        format!(
            "{} {}",
            list(hours.collect()),
            list(days.iter().map(|day| NAMES[*day].to_owned()).collect())
        )
    };
    entries.iter().map(entry).collect()
}

/// As a person would check it with the clock on the wall.
fn naive(entries: &Entries, time: &Zoned) -> bool {
    let hour = u8::try_from(time.hour()).unwrap();
    let name = time.strftime("%a").to_string().to_uppercase();
    entries.iter().any(|(spans, days)| {
        days.iter().any(|day| NAMES[*day] == name)
            && spans.iter().any(|(start, end)| *start <= hour && hour < *end)
    })
}

/// The minutes of ten days: hour and day as the clock on the wall shows them.
struct Calendar {
    start: Zoned,
    minutes: Vec<(u8, usize)>,
}

impl Calendar {
    fn of(zone: &str, (month, day): (i8, i8)) -> Self {
        let start = civil::date(2026, month, day)
            .to_zoned(TimeZone::posix(zone).unwrap())
            .unwrap();
        let at = |minute| start.checked_add(SignedDuration::from_mins(minute)).unwrap();
        let minutes = (0..10 * 24 * 60).map(at).map(|time| {
            let name = time.strftime("%a").to_string().to_uppercase();
            (
                u8::try_from(time.hour()).unwrap(),
                NAMES.iter().position(|day| *day == name).unwrap(),
            )
        });
        Self {
            minutes: minutes.collect(),
            start,
        }
    }
}

/// A thousand schedules, each over a shift of the clock, a week end or an ordinary week, at every minute.
#[test]
fn a_thousand_schedules_agree_with_a_naive_oracle_at_every_minute() {
    let zones = [BERLIN, NEW_YORK, LORD_HOWE, KATHMANDU, HAVANA];
    let begins = [(3, 6), (3, 27), (4, 2), (6, 1), (10, 1), (10, 30)];
    let calendars: Vec<Calendar> = zones
        .iter()
        .flat_map(|zone| begins.iter().map(|begin| Calendar::of(zone, *begin)))
        .collect();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(1000));
    let inputs = (entries(), 0..calendars.len(), 0..10 * 24 * 60_usize);
    let result = runner.run(&inputs, |(entries, calendar, minute)| {
        let Calendar { start, minutes } = &calendars[calendar];
        let schedule = Schedule::parse(&text(&entries)).unwrap().0;
        let naive = |hour: u8, day: usize| {
            entries.iter().any(|(spans, days)| {
                days.contains(&day) && spans.iter().any(|(start, end)| *start <= hour && hour < *end)
            })
        };
        let week: Vec<[bool; 7]> = (0..24)
            .map(|hour| std::array::from_fn(|day| naive(hour, day)))
            .collect();
        let expected: Vec<bool> = minutes
            .iter()
            .map(|(hour, day)| week[usize::from(*hour)][*day])
            .collect();
        let (up, down) = (WorkingHours::Up(schedule.clone()), WorkingHours::Down(schedule));
        for (&(hour, day), &inside) in minutes.iter().zip(&expected) {
            let day = Weekday::from_sunday_zero_offset(i8::try_from(day).unwrap()).unwrap();
            let now = LocalHour { day, hour };
            let both = [&up, &down].map(|hours| hours.decide::<&str>(now, &[], None).active);
            prop_assert_eq!(both, [inside, !inside]);
        }
        let time = |minute: usize| {
            start
                .checked_add(SignedDuration::from_mins(i64::try_from(minute).unwrap()))
                .unwrap()
        };
        let change = (minute..expected.len()).find(|later| expected[*later] != expected[minute]);
        let found = up.next_change(&time(minute));
        prop_assert_eq!(&found, &down.next_change(&time(minute)));
        match change {
            Some(change) => prop_assert_eq!(found, Some(time(change))),
            None => prop_assert!(found.is_none_or(|found| found >= time(expected.len()))),
        }
        Ok(())
    });
    result.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(12), ..ProptestConfig::default() })]

    /// Weeks in which the clock is shifted, and ordinary ones, each minute of ten days.
    #[test]
    fn every_minute_agrees_with_a_naive_reading(
        entries in entries(),
        zone in proptest::sample::select(&[BERLIN, NEW_YORK, LORD_HOWE, KATHMANDU, HAVANA][..]),
        (month, day) in proptest::sample::select(&[(3, 6), (3, 27), (4, 2), (6, 1), (10, 1), (10, 22), (10, 30)][..]),
        seconds in 0i64..86_400,
    ) {
        let hours = WorkingHours::Up(Schedule::parse(&text(&entries)).unwrap().0);
        let start = civil::date(2026, month, day).to_zoned(TimeZone::posix(zone).unwrap()).unwrap();
        let start = start.checked_add(SignedDuration::from_secs(seconds)).unwrap();
        let minute = SignedDuration::from_mins(1);
        let whole = start.with().second(0).subsec_nanosecond(0).build().unwrap();
        let mut expected = None;
        let mut time = whole;
        for _ in 0..10 * 24 * 60 {
            let inside = naive(&entries, &time);
            prop_assert_eq!(hours.decide::<&str>(LocalHour::from(&time), &[], None).active, inside, "at {}", &time);
            if expected.is_none() && inside != naive(&entries, &start) {
                expected = Some(time.clone());
            }
            time = time.checked_add(minute).unwrap();
        }
        let found = hours.next_change(&start);
        match expected {
            Some(expected) => prop_assert_eq!(found, Some(expected)),
            None => prop_assert!(found.is_none_or(|found| found >= time)),
        }
    }

    #[test]
    fn no_entry_is_too_strange(entries in proptest::collection::vec(strange(), 0..4)) {
        if let Ok((schedule, warnings)) = Schedule::parse(&entries) {
            prop_assert_eq!(schedule.is_empty(), entries.is_empty());
            let read = hours_of(&schedule);
            if !read.is_empty() && warnings.is_empty() {
                prop_assert!(read.len() <= 168);
            }
            prop_assert_eq!(WorkingHours::Up(schedule).describe().len(), entries.len() + 1);
        }
    }
}

/// `PROPTEST_CASES` raises the number of slow cases as well.
fn cases(short: u32) -> u32 {
    std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok())
        .unwrap_or(short)
}

fn strange() -> impl Strategy<Value = String> {
    let words = prop_oneof![
        5 => "[0-9,-]{1,5}",
        3 => "(SUN|MON|sat|-|,| |\t)",
        1 => any::<Vec<u8>>().prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
    ];
    proptest::collection::vec(words, 0..8).prop_map(|words| words.concat())
}
