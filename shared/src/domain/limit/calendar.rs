//! Hours, days, weeks and months as people keep them: in a zone of the world, with an hour and a day at which
//! the next one begins. Which of them a moment lies in is computed elsewhere.

use std::fmt;
use std::str::FromStr;

use jiff::civil::Weekday;
use jiff::tz::TimeZone;

use crate::domain::Timestamp;
use crate::domain::text::json_by_text;

/// A recurring window of the calendar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calendar {
    /// Its length, and the day on which it begins.
    pub unit: CalendarUnit,
    /// The time of day at which it begins; midnight for hours, which begin at each full one.
    pub at: TimeOfDay,
    /// Where; `None` is the zone of the configuration.
    pub zone: Option<Zone>,
}

/// Lengths of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CalendarUnit {
    /// An hour.
    Hour,
    /// A day.
    Day,
    /// A week that begins on this day.
    Week(Weekday),
    /// A month that begins on this day, from 1 to 31, or on its last where it is shorter.
    Month(i8),
}

/// A time of day to the minute; midnight is the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeOfDay {
    /// 0 to 23.
    pub hour: i8,
    /// 0 to 59.
    pub minute: i8,
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.hour, self.minute)
    }
}

/// The text is no time of day.
#[derive(Debug, thiserror::Error)]
#[error("a time of day is written like 06:00")]
pub struct NoTimeOfDay;

impl FromStr for TimeOfDay {
    type Err = NoTimeOfDay;

    fn from_str(text: &str) -> Result<Self, NoTimeOfDay> {
        let number = |text: &str, below: i8| {
            let is_short = (1..=2).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|number| is_short && (0..below).contains(number)).ok_or(NoTimeOfDay)
        };
        let (hour, minute) = text.split_once(':').unwrap_or((text, "0"));
        Ok(Self { hour: number(hour, 24)?, minute: number(minute, 60)? })
    }
}

/// A time zone by its IANA name, such as `Europe/Berlin`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone(TimeZone);

impl Zone {
    /// Where the clock is never put forward or back.
    pub const UTC: Self = Self(TimeZone::UTC);

    /// Its name.
    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }

    /// The day that a time lies in, such as `2026-11-25`.
    pub fn day(&self, time: Timestamp) -> String {
        match jiff::Timestamp::from_millisecond(time.as_millis()) {
            Ok(instant) => self.0.to_datetime(instant).date().to_string(),
            Err(_) => time.to_string(),
        }
    }

    /// Its rules.
    pub const fn rules(&self) -> &TimeZone {
        &self.0
    }
}

impl Default for Zone {
    fn default() -> Self {
        Self::UTC
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// No zone has the name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no time zone; zones have names like Europe/Berlin, America/New_York or UTC")]
pub struct NoZone(String);

impl FromStr for Zone {
    type Err = NoZone;

    fn from_str(name: &str) -> Result<Self, NoZone> {
        if name.eq_ignore_ascii_case("utc") {
            return Ok(Self::UTC);
        }
        // An offset or a POSIX rule would be taken, too, and has no name to print.
        let zone = TimeZone::get(name).ok().filter(|zone| zone.iana_name().is_some());
        zone.map(Self).ok_or_else(|| NoZone(name.to_owned()))
    }
}

json_by_text!(Zone);
