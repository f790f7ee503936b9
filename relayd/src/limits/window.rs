//! Which hour, day, week or month of a calendar a moment lies in.
//!
//! A boundary that the clock leaps over in spring lies where the clock goes on; one that it passes twice in autumn
//! lies at the first passing. So windows follow each other without gaps, whatever the zone does.

use jiff::civil::{Date, DateTime, Time};
use jiff::{Span as Step, ToSpan};
use shared::domain::Timestamp;
use shared::domain::limit::{Calendar, CalendarUnit, TimeOfDay, Zone};

use super::counter::Span;

/// The start of the hour, day or month of a zone that `now` lies in.
pub fn start_of(unit: CalendarUnit, zone: &Zone, now: Timestamp) -> Timestamp {
    if unit == CalendarUnit::Hour && *zone == Zone::UTC {
        return now.hour();
    }
    let calendar = Calendar { unit, at: TimeOfDay::default(), zone: None };
    of_calendar(&calendar, zone, now).start
}

/// The window of the calendar that `now` lies in. Beyond the years that a calendar has, it has no end.
pub fn of_calendar(calendar: &Calendar, zone: &Zone, now: Timestamp) -> Span {
    within(calendar, zone, now).unwrap_or(Span { start: now, end: None })
}

fn within(calendar: &Calendar, zone: &Zone, now: Timestamp) -> Option<Span> {
    let instant = jiff::Timestamp::from_millisecond(now.as_millis()).ok()?;
    let local = zone.rules().to_datetime(instant);
    let mut start = latest(calendar, local)?;
    // Where the clock was put forward over a boundary, that lies later than its own digits say.
    while moment(zone, start)? > now {
        start = latest(calendar, start.checked_sub(1.second()).ok()?)?;
    }
    let mut next = following(calendar, start)?;
    while moment(zone, next)? <= now {
        (start, next) = (next, following(calendar, next)?);
    }
    Some(Span { start: moment(zone, start)?, end: Some(moment(zone, next)?) })
}

/// When the clocks of a zone show these digits.
fn moment(zone: &Zone, digits: DateTime) -> Option<Timestamp> {
    let instant = zone.rules().to_ambiguous_timestamp(digits).compatible().ok()?;
    Some(Timestamp::from_millis(instant.as_millisecond()))
}

/// The last boundary at or before these digits.
fn latest(calendar: &Calendar, local: DateTime) -> Option<DateTime> {
    let at = time(calendar);
    let date = local.date();
    let (begins, step_back) = match calendar.unit {
        CalendarUnit::Hour => return Some(date.at(local.hour(), 0, 0, 0)),
        CalendarUnit::Day => (date, 1.day()),
        CalendarUnit::Week(first) => {
            let days = date.weekday().since(first);
            (date.checked_sub(i64::from(days).days()).ok()?, 1.week())
        }
        CalendarUnit::Month(first) => (in_month(date, first)?, 1.month()),
    };
    let boundary = begins.to_datetime(at);
    if boundary <= local {
        return Some(boundary);
    }
    Some(stepped(calendar, begins, -step_back)?.to_datetime(at))
}

/// The boundary after one.
fn following(calendar: &Calendar, boundary: DateTime) -> Option<DateTime> {
    let step = match calendar.unit {
        CalendarUnit::Hour => return boundary.checked_add(1.hour()).ok(),
        CalendarUnit::Day => 1.day(),
        CalendarUnit::Week(_) => 1.week(),
        CalendarUnit::Month(_) => 1.month(),
    };
    Some(stepped(calendar, boundary.date(), step)?.to_datetime(time(calendar)))
}

/// Another boundary's date; in a month, the day that it begins on.
fn stepped(calendar: &Calendar, date: Date, step: Step) -> Option<Date> {
    match calendar.unit {
        CalendarUnit::Month(first) => in_month(date.first_of_month().checked_add(step).ok()?, first),
        _ => date.checked_add(step).ok(),
    }
}

/// The day of the date's month, or its last where it has no such day.
fn in_month(date: Date, day: i8) -> Option<Date> {
    Date::new(date.year(), date.month(), day.clamp(1, date.days_in_month())).ok()
}

fn time(calendar: &Calendar) -> Time {
    Time::new(calendar.at.hour, calendar.at.minute, 0, 0).unwrap_or_else(|_| Time::midnight())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use shared::domain::Limit;
    use shared::domain::limit::Window;

    use super::*;

    fn calendar(text: &str) -> (Calendar, Zone) {
        match format!("1 request per {text}").parse::<Limit>().unwrap().window {
            Window::Calendar(calendar) => {
                let zone = calendar.zone.clone().unwrap_or_default();
                (calendar, zone)
            }
            other => panic!("{other:?}"),
        }
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn days_weeks_and_months_begin_and_end_where_people_say() {
        for (text, now, start, end) in [
            ("day", "2026-11-25T10:00:00Z", "2026-11-25T00:00:00Z", "2026-11-26T00:00:00Z"),
            ("day", "2026-11-25T00:00:00Z", "2026-11-25T00:00:00Z", "2026-11-26T00:00:00Z"),
            ("day", "2026-11-25T23:59:59.999Z", "2026-11-25T00:00:00Z", "2026-11-26T00:00:00Z"),
            ("day at 06:00", "2026-11-25T05:59:59Z", "2026-11-24T06:00:00Z", "2026-11-25T06:00:00Z"),
            ("day at 06:30", "2026-11-25T06:30:00Z", "2026-11-25T06:30:00Z", "2026-11-26T06:30:00Z"),
            // 2026-11-25 is a Wednesday.
            ("week", "2026-11-25T10:00:00Z", "2026-11-23T00:00:00Z", "2026-11-30T00:00:00Z"),
            ("week from Sunday", "2026-11-22T00:00:00Z", "2026-11-22T00:00:00Z", "2026-11-29T00:00:00Z"),
            (
                "week from Wednesday at 11:00",
                "2026-11-25T10:59:59Z",
                "2026-11-18T11:00:00Z",
                "2026-11-25T11:00:00Z",
            ),
            ("week", "2026-01-01T00:00:00Z", "2025-12-29T00:00:00Z", "2026-01-05T00:00:00Z"),
            ("month", "2026-11-30T23:59:59Z", "2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z"),
            ("month", "2024-02-29T12:00:00Z", "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z"),
            ("month from day 31", "2026-02-27T12:00:00Z", "2026-01-31T00:00:00Z", "2026-02-28T00:00:00Z"),
            ("month from day 31", "2024-02-29T12:00:00Z", "2024-02-29T00:00:00Z", "2024-03-31T00:00:00Z"),
            ("month from day 31", "2026-04-30T00:00:00Z", "2026-04-30T00:00:00Z", "2026-05-31T00:00:00Z"),
            (
                "month from day 15 at 04:00",
                "2026-01-15T03:59:59Z",
                "2025-12-15T04:00:00Z",
                "2026-01-15T04:00:00Z",
            ),
            ("calendar hour", "2026-11-25T10:59:59.999Z", "2026-11-25T10:00:00Z", "2026-11-25T11:00:00Z"),
        ] {
            let (calendar, zone) = calendar(text);
            let expected = Span { start: at(start), end: Some(at(end)) };
            assert_eq!(of_calendar(&calendar, &zone, at(now)), expected, "{text} at {now}");
        }
    }

    #[test]
    fn the_clock_of_the_zone_counts_whatever_it_does() {
        for (text, now, start, end) in [
            // Half-hour zones.
            (
                "calendar hour in Asia/Kolkata",
                "2026-11-25T10:20:00Z",
                "2026-11-25T09:30:00Z",
                "2026-11-25T10:30:00Z",
            ),
            // 23 hours: at 02:00 the clock goes to 03:00 (2026-03-29).
            ("day in Europe/Berlin", "2026-03-29T12:00:00Z", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"),
            // 25 hours: at 03:00 the clock goes to 02:00 (2026-10-25).
            ("day in Europe/Berlin", "2026-10-25T12:00:00Z", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"),
            // 02:30 does not exist: the day begins when the clock would have shown it.
            (
                "day at 02:30 in Europe/Berlin",
                "2026-03-29T01:29:59Z",
                "2026-03-28T01:30:00Z",
                "2026-03-29T01:30:00Z",
            ),
            (
                "day at 02:30 in Europe/Berlin",
                "2026-03-29T01:30:00Z",
                "2026-03-29T01:30:00Z",
                "2026-03-30T00:30:00Z",
            ),
            // 02:30 comes twice: the first time counts.
            (
                "day at 02:30 in Europe/Berlin",
                "2026-10-25T01:00:00Z",
                "2026-10-25T00:30:00Z",
                "2026-10-26T01:30:00Z",
            ),
            // The hour that comes twice is one, of two hours.
            (
                "calendar hour in Europe/Berlin",
                "2026-10-25T01:30:00Z",
                "2026-10-25T00:00:00Z",
                "2026-10-25T02:00:00Z",
            ),
            // Midnight does not exist (2026-09-06 in Santiago): the day begins at 01:00.
            (
                "day in America/Santiago",
                "2026-09-06T12:00:00Z",
                "2026-09-06T04:00:00Z",
                "2026-09-07T03:00:00Z",
            ),
            // A day that was left out (2011-12-30 in Samoa).
            ("day in Pacific/Apia", "2011-12-30T09:59:59Z", "2011-12-29T10:00:00Z", "2011-12-30T10:00:00Z"),
        ] {
            let (calendar, zone) = calendar(text);
            let expected = Span { start: at(start), end: Some(at(end)) };
            assert_eq!(of_calendar(&calendar, &zone, at(now)), expected, "{text} at {now}");
        }
    }

    const TEXTS: [&str; 9] = [
        "calendar hour",
        "day",
        "day at 02:30",
        "week from Sunday at 02:15",
        "week at 23:59",
        "month",
        "month from day 29 at 02:30",
        "month from day 31 at 00:30",
        "day at 00:00",
    ];
    const ZONES: [&str; 8] = [
        "UTC",
        "Europe/Berlin",
        "America/New_York",
        "America/Santiago",
        "Australia/Lord_Howe",
        "Asia/Kathmandu",
        "Pacific/Apia",
        "Africa/Casablanca",
    ];

    proptest! {
        /// A moment lies in its window; every moment of a window has the same one; the next begins where it ends.
        #[test]
        fn windows_tile_time(
            text in prop::sample::select(TEXTS.to_vec()),
            zone in prop::sample::select(ZONES.to_vec()),
            now in 0..4_102_444_800_000_i64,
            within in 0.0..1.0_f64,
        ) {
            let (calendar, zone) = calendar(&format!("{text} in {zone}"));
            let of = |millis: i64| of_calendar(&calendar, &zone, Timestamp::from_millis(millis));
            let span = of(now);
            let (start, end) = (span.start.as_millis(), span.end.unwrap().as_millis());
            prop_assert!(start <= now && now < end, "{span:?}");
            #[expect(clippy::cast_possible_truncation, reason = "a share of a length is less than the length")]
            let inner = start + ((end - start) as f64 * within) as i64;
            for moment in [start, inner.min(end - 1), end - 1] {
                prop_assert_eq!(of(moment), span);
            }
            prop_assert_eq!(of(end).start.as_millis(), end);
            prop_assert_eq!(of(start - 1).end, Some(span.start));
            let longest = Duration::from_secs(32 * 24 * 3_600);
            prop_assert!(span.end.unwrap().since(span.start) <= longest);
        }

        #[test]
        fn no_time_panics(text in prop::sample::select(TEXTS.to_vec()), now: i64) {
            let (calendar, zone) = calendar(text);
            let span = of_calendar(&calendar, &zone, Timestamp::from_millis(now));
            prop_assert!(!span.is_over(Timestamp::from_millis(now)));
        }
    }
}
