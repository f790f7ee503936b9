//! A point in time, to the millisecond. Reading the clock is not done here.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use minicbor::{Decode, Encode};
use serde::Serialize;

use super::text::read_by_text;

/// Milliseconds since the Unix epoch; printed as RFC 3339 in UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Timestamp(#[n(0)] i64);

impl Timestamp {
    /// Takes milliseconds since the Unix epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// The time `duration` later, at most the last that can be said.
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// The time that passed since `earlier`; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// The start of the UTC hour that this time lies in.
    pub const fn hour(self) -> Self {
        Self(self.0 - self.0.rem_euclid(3_600_000))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(time) => write!(f, "{time}"),
            Err(_) => write!(f, "{} ms", self.0),
        }
    }
}

/// The text is no RFC 3339 time.
#[derive(Debug, thiserror::Error)]
#[error("a time is written like 2026-11-30T08:00:00Z or 2026-11-30")]
pub struct NoTimestamp;

impl FromStr for Timestamp {
    type Err = NoTimestamp;

    fn from_str(text: &str) -> Result<Self, NoTimestamp> {
        let time = text.parse::<jiff::Timestamp>().or_else(|_| {
            let day = text.parse::<jiff::civil::Date>()?;
            Ok::<_, jiff::Error>(day.to_zoned(jiff::tz::TimeZone::UTC)?.timestamp())
        });
        time.map(|time| Self(time.as_millisecond())).map_err(|_| NoTimestamp)
    }
}

/// As it prints, but always with three digits behind the seconds: texts that sort as the times do.
impl Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(time) => serializer.collect_str(&format_args!("{time:.3}")),
            Err(_) => serializer.collect_str(self),
        }
    }
}

read_by_text!(Timestamp);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_print_and_parse() {
        let time = Timestamp::from_millis(1_795_000_000_123);
        assert_eq!(time.to_string().parse::<Timestamp>().unwrap(), time);
        assert_eq!("1970-01-02".parse::<Timestamp>().unwrap().as_millis(), 86_400_000);
        assert!("yesterday".parse::<Timestamp>().is_err());
        for (millis, json) in [(0, "\"1970-01-01T00:00:00.000Z\""), (1_500, "\"1970-01-01T00:00:01.500Z\"")] {
            let time = Timestamp::from_millis(millis);
            assert_eq!(serde_json::to_string(&time).unwrap(), json);
            assert_eq!(serde_json::from_str::<Timestamp>(json).unwrap(), time);
        }
    }

    #[test]
    fn the_hour_is_rounded_down_on_both_sides_of_the_epoch() {
        assert_eq!(Timestamp::from_millis(3_600_001).hour().as_millis(), 3_600_000);
        assert_eq!(Timestamp::from_millis(-1).hour().as_millis(), -3_600_000);
    }
}
