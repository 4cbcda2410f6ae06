//! Working hours, what overrides them, and what people are told about them.

use jiff::civil;
use jiff::tz::TimeZone;

use super::*;

pub(super) const BERLIN: &str = "CET-1CEST,M3.5.0,M10.5.0/3";
pub(super) const NEW_YORK: &str = "EST5EDT,M3.2.0,M11.1.0";
/// Put forward by half an hour only.
pub(super) const LORD_HOWE: &str = "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0";
pub(super) const KATHMANDU: &str = "<+0545>-5:45";
/// Put forward at midnight, so that a day begins at one o'clock.
pub(super) const HAVANA: &str = "CST5CDT,M3.2.0/0,M11.1.0/1";

fn schedule(entries: &[&str]) -> Schedule {
    let (schedule, warnings) = Schedule::parse(entries).unwrap();
    assert_eq!(warnings, [], "{entries:?}");
    schedule
}

/// Hours of the week since Sunday midnight.
pub(super) fn hours_of(schedule: &Schedule) -> Vec<usize> {
    (0..168usize)
        .filter(|hour| {
            let day = Weekday::from_sunday_zero_offset(i8::try_from(hour / 24).unwrap()).unwrap();
            schedule.covers(day, u8::try_from(hour % 24).unwrap())
        })
        .collect()
}

#[test]
fn entries_cover_the_hours_they_name() {
    let cases: &[(&str, Vec<usize>)] = &[
        ("20-23 SUN", (20..23).collect()),
        ("20-23 sun,Tue", (20..23).chain(68..71).collect()),
        (
            "20-23 SUN-TUE",
            [20, 44, 68]
                .into_iter()
                .flat_map(|start| start..start + 3)
                .collect(),
        ),
        ("20 SUN", (20..24).collect()),
        ("20-00,00-08 SUN", (0..8).chain(20..24).collect()),
        ("0-24 SAT", (144..168).collect()),
        ("00-00 MON", (24..48).collect()),
        ("17-020,9 MON, and so on", (33..48).collect()),
        ("00-08 SUN,", (0..8).collect()),
        ("8-9 FRI-MON", vec![8, 32, 128, 152]),
        ("8-9 SUN-SUN", vec![8]),
        ("8-9\tSAT-SUN", vec![8, 152]),
    ];
    for (entry, hours) in cases {
        assert_eq!(&hours_of(&schedule(&[entry])), hours, "{entry}");
    }
    // The two entries of a span over midnight, written as the documentation does.
    let over_midnight = hours_of(&schedule(&["20-00 SUN,", "00-08 MON"]));
    assert_eq!(over_midnight, (20..32).collect::<Vec<_>>());
}

#[test]
fn bad_parts_are_left_out_and_bad_entries_refused() {
    for (entry, bad) in [
        ("8-9,25,x,20-8,5-5,24,-3,3-,+4,٣ SUN", 9),
        ("8-9, SUN,MOND,MON-,SUN-TUE-WED", 3),
        ("8-9,,8-9 SUN,,", 1),
    ] {
        let (schedule, warnings) = Schedule::parse(&[entry]).unwrap();
        assert_eq!(warnings.len(), bad, "{entry}: {warnings:?}");
        assert_eq!(hours_of(&schedule), [8], "{entry}");
    }
    let (never, warnings) = Schedule::parse(&["20-8 SUN"]).unwrap();
    assert!(matches!(
        &warnings[..],
        [HoursWarning::Hours { .. }, HoursWarning::Never { .. }]
    ));
    assert_eq!(WorkingHours::Up(never).describe()[1], "  - never");
    for entry in ["", "17-20", " ", "SUN,", "17-20,SUN"] {
        let error = Schedule::parse(&["1 MON", entry]).unwrap_err().to_string();
        assert!(
            error.contains(&format!("\"{entry}\"")) && error.contains("17-20 SUN-TUE"),
            "{error}"
        );
    }
}

#[test]
fn tags_come_before_the_property_and_the_property_before_the_schedule() {
    let inside = LocalHour {
        day: Weekday::Sunday,
        hour: 17,
    };
    let outside = LocalHour {
        day: Weekday::Sunday,
        hour: 20,
    };
    let up = WorkingHours::Up(schedule(&["17-20 SUN"]));
    let down = WorkingHours::Down(schedule(&["17-20 SUN"]));
    let decide = |hours: &WorkingHours, now, tags: &[&str], force| {
        let decision = hours.decide(now, tags, force);
        (decision.active, decision.because)
    };
    for hours in [&up, &down, &WorkingHours::Always] {
        for force in [None, Some(Force::On), Some(Force::Off)] {
            assert_eq!(
                decide(hours, inside, &[TAG_ON, TAG_OFF], force),
                (false, Because::QueueTag)
            );
            assert_eq!(
                decide(hours, inside, &["other", TAG_ON], force),
                (true, Because::QueueTag)
            );
        }
        assert_eq!(
            decide(hours, inside, &["force"], Some(Force::On)),
            (true, Because::RuntimeProperty)
        );
        assert_eq!(
            decide(hours, inside, &[], Some(Force::Off)),
            (false, Because::RuntimeProperty)
        );
    }
    assert_eq!(decide(&up, inside, &[], None), (true, Because::Uptime));
    assert_eq!(decide(&up, outside, &[], None), (false, Because::Uptime));
    assert_eq!(decide(&down, inside, &[], None), (false, Because::Downtime));
    assert_eq!(decide(&down, outside, &[], None), (true, Because::Downtime));
    assert_eq!(
        decide(&WorkingHours::Always, outside, &[], None),
        (true, Because::NoSchedule)
    );
    assert_eq!(
        ["ON", "off", "maybe"].map(Force::from_property),
        [Some(Force::On), Some(Force::Off), None]
    );
}

#[test]
fn the_command_line_replaces_what_is_configured() {
    let one = || schedule(&["1 MON"]);
    let other = || schedule(&["2 TUE"]);
    let none = Schedule::default;
    let choose = WorkingHours::choose;
    assert_eq!(
        choose((none(), none()), (none(), none())),
        Ok(WorkingHours::Always)
    );
    assert_eq!(
        choose((none(), none()), (none(), other())),
        Ok(WorkingHours::Down(other()))
    );
    assert_eq!(
        choose((one(), none()), (none(), other())),
        Ok(WorkingHours::Up(one()))
    );
    assert_eq!(
        choose((none(), one()), (other(), other())),
        Ok(WorkingHours::Down(one()))
    );
    assert_eq!(choose((one(), one()), (none(), none())), Err(BothGiven));
    assert_eq!(choose((none(), none()), (one(), other())), Err(BothGiven));
}

#[test]
fn the_status_tells_what_is_in_force() {
    let up = WorkingHours::Up(schedule(&["17-20 SUN,TUE", "20-00,00-08 WED"]));
    let queue = |name: &str, tags: &[&str]| StatusQueue {
        name: name.to_owned(),
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
    };
    let now = civil::date(2026, 6, 3)
        .at(21, 30, 0, 0)
        .to_zoned(TimeZone::posix(BERLIN).unwrap())
        .unwrap();
    let queues = [queue("day", &[]), queue("night", &["gpu", TAG_ON])];
    let property = ForcedProperty {
        force: Force::Off,
        expires: Some(civil::time(9, 5, 0, 0)),
    };
    let forced = Forced {
        property: Some(property),
        queues: &queues,
    };
    assert_eq!(
        status_lines(&up, forced, &now),
        [
            "Working hours uptime configurations",
            "  - 17:00-19:59 on SUN and TUE",
            "  - 20:00-23:59 and 00:00-07:59 on WED",
            "  - By schedule ON until Thu 2026-06-04 00:00",
            "Currently forced OFF",
            "Currently forced ON",
            "  - Server runtime property 'force: off' expires at 09:05",
            "  - Listening to queue 'day'",
            "  - Listening to queue 'night' (tagged 'force_workers:on')",
        ]
    );
    let quiet = Forced {
        property: None,
        queues: &queues[..1],
    };
    assert_eq!(
        status_lines(&WorkingHours::Always, quiet, &now),
        [
            "No uptime/downtime configurations found",
            "  - Listening to queue 'day'"
        ]
    );
    let hostile = [StatusQueue {
        name: "a\n\u{1b}[2J".to_owned(),
        tags: Vec::new(),
    }];
    let shown = status_lines(
        &WorkingHours::Always,
        Forced {
            property: None,
            queues: &hostile,
        },
        &now,
    );
    assert_eq!(shown[1], r"  - Listening to queue 'a\n\u{1b}[2J'");
    let endless = ForcedProperty {
        force: Force::On,
        expires: None,
    };
    let lines = status_lines(
        &WorkingHours::Always,
        Forced {
            property: Some(endless),
            queues: &[],
        },
        &now,
    );
    assert_eq!(
        lines[1..],
        ["Currently forced ON", "  - Server runtime property 'force: on'"]
    );
    let no_queues = Forced {
        property: None,
        queues: &[],
    };
    for (hours, expected) in [
        (
            WorkingHours::Down(schedule(&["20-24 WED"])),
            "  - By schedule OFF until Thu 2026-06-04 00:00",
        ),
        (
            WorkingHours::Up(schedule(&["7-8 SAT"])),
            "  - By schedule OFF until Sat 2026-06-06 07:00",
        ),
        (
            WorkingHours::Up(schedule(&["0-24 SUN-SAT"])),
            "  - By schedule always ON",
        ),
    ] {
        assert_eq!(status_lines(&hours, no_queues, &now)[2], expected);
    }
    assert_eq!(
        WorkingHours::Down(schedule(&["7 MON"])).describe(),
        ["Working hours downtime configurations", "  - 07:00-23:59 on MON"]
    );
}

#[test]
fn the_next_change_follows_the_clock_over_its_shifts() {
    let change = |zone: &str, entry: &str, now: civil::DateTime| {
        let now = now.to_zoned(TimeZone::posix(zone).unwrap()).unwrap();
        let hours = WorkingHours::Up(schedule(&[entry]));
        hours
            .next_change(&now)
            .map(|time| time.strftime("%F %H:%M %:z").to_string())
    };
    let date = civil::date;
    let cases = [
        // An ordinary day.
        (
            BERLIN,
            "17-20 MON",
            date(2026, 6, 1).at(3, 20, 7, 9),
            Some("2026-06-01 17:00 +02:00"),
        ),
        (
            BERLIN,
            "17-20 MON",
            date(2026, 6, 1).at(17, 0, 0, 0),
            Some("2026-06-01 20:00 +02:00"),
        ),
        (
            BERLIN,
            "17-20 MON",
            date(2026, 6, 1).at(20, 0, 0, 0),
            Some("2026-06-08 17:00 +02:00"),
        ),
        // Midnight is no change where both sides are covered.
        (
            BERLIN,
            "20-00,00-08 SUN-SAT",
            date(2026, 6, 1).at(21, 0, 0, 0),
            Some("2026-06-02 08:00 +02:00"),
        ),
        // The hour that begins at two is skipped: the span begins at three, or not at all that week.
        (
            BERLIN,
            "2-4 SUN",
            date(2026, 3, 29).at(1, 30, 0, 0),
            Some("2026-03-29 03:00 +02:00"),
        ),
        (
            BERLIN,
            "2-3 SUN",
            date(2026, 3, 29).at(1, 30, 0, 0),
            Some("2026-04-05 02:00 +02:00"),
        ),
        // It comes twice, and both count.
        (
            BERLIN,
            "2-3 SUN",
            date(2026, 10, 25).at(2, 30, 0, 0),
            Some("2026-10-25 03:00 +01:00"),
        ),
        // Back from three to two ends a span that had begun.
        (
            BERLIN,
            "0-2 SUN",
            date(2026, 10, 25).at(1, 30, 0, 0),
            Some("2026-10-25 02:00 +02:00"),
        ),
        (
            LORD_HOWE,
            "1-2 SUN",
            date(2026, 4, 5).at(0, 59, 0, 0),
            Some("2026-04-05 01:00 +11:00"),
        ),
        (
            LORD_HOWE,
            "1-2 SUN",
            date(2026, 4, 5).at(1, 10, 0, 0),
            Some("2026-04-05 02:00 +10:30"),
        ),
        (
            KATHMANDU,
            "8-9 SUN",
            date(2026, 4, 5).at(8, 10, 0, 0),
            Some("2026-04-05 09:00 +05:45"),
        ),
        (
            HAVANA,
            "0-1 SUN",
            date(2026, 3, 7).at(23, 0, 0, 0),
            Some("2026-03-15 00:00 -04:00"),
        ),
        (BERLIN, "0-24 SUN-SAT", date(2026, 6, 1).at(0, 0, 0, 0), None),
    ];
    for (zone, entry, now, expected) in cases {
        assert_eq!(
            change(zone, entry, now).as_deref(),
            expected,
            "{entry} after {now}"
        );
    }
    let now = date(2026, 6, 1).at(0, 0, 0, 0).to_zoned(TimeZone::UTC).unwrap();
    assert_eq!(WorkingHours::Always.next_change(&now), None);
}
