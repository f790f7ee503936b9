//! A limit as text: the form that parses to the same.

use std::fmt;
use std::time::Duration;

use super::parse::{HOUR_S, UNITS, WEEKDAYS};
use super::{Calendar, CalendarUnit, Limit, Metric, TimeOfDay, Window};
use crate::domain::NanoUsd;
use crate::domain::limit::calendar::Zone;

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.metric, self.amount) {
            (Metric::Cost, nanos) => {
                let dollars = NanoUsd::from_counted(nanos).to_string();
                f.write_str(dollars.strip_suffix(".00").unwrap_or(&dollars))?;
            }
            (Metric::Requests, 1) => f.write_str("1 request")?,
            (Metric::Tokens, 1) => f.write_str("1 token")?,
            (metric, amount) => write!(f, "{amount} {}", metric.name())?,
        }
        write!(f, "{}", Scope(self))?;
        if self.is_strict { f.write_str(" strict") } else { Ok(()) }
    }
}

impl Limit {
    /// Names what the limit counts: its text without the amount. Limits that count the same have the same name.
    pub fn counter_name(&self) -> String {
        format!("{}{}", self.metric.name(), Scope(self))
    }
}

/// What the amount is counted over.
struct Scope<'a>(&'a Limit);

impl fmt::Display for Scope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.window {
            Window::Now => {}
            Window::Lifetime => f.write_str(" in total")?,
            Window::Fixed(length) => write!(f, " per {}", Length(*length))?,
            Window::Calendar(calendar) => write!(f, " per {calendar}")?,
        }
        list(f, " on ", self.0.models.iter())?;
        list(f, " for ", self.0.operations.iter().map(|operation| operation.name()))
    }
}

fn list(
    f: &mut fmt::Formatter<'_>,
    before: &str,
    items: impl Iterator<Item = impl fmt::Display>,
) -> fmt::Result {
    let mut separator = before;
    for item in items {
        write!(f, "{separator}{item}")?;
        separator = ", ";
    }
    Ok(())
}

/// A length of time from the first use on: `minute`, `5 hours`, `24 hours`. Never `day` or `week`, which are the
/// calendar's.
struct Length(Duration);

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.0.as_secs();
        let fits = |&(_, seconds): &(&str, u64)| {
            total.is_multiple_of(seconds) && (seconds <= HOUR_S || total > seconds)
        };
        let (unit, seconds) = UNITS.into_iter().find(fits).unwrap_or(("second", 1));
        match total / seconds {
            1 => f.write_str(unit),
            number => write!(f, "{number} {unit}s"),
        }
    }
}

impl fmt::Display for Calendar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.unit {
            CalendarUnit::Hour => f.write_str("calendar hour")?,
            CalendarUnit::Day => f.write_str("day")?,
            CalendarUnit::Week(jiff::civil::Weekday::Monday) => f.write_str("week")?,
            CalendarUnit::Week(first) => {
                let name = WEEKDAYS.iter().find(|(_, day)| *day == first).map_or("Monday", |(name, _)| name);
                write!(f, "week from {name}")?;
            }
            CalendarUnit::Month(1) => f.write_str("month")?,
            CalendarUnit::Month(first) => write!(f, "month from day {first}")?,
        }
        if self.at != TimeOfDay::default() {
            write!(f, " at {}", self.at)?;
        }
        self.zone.as_ref().map_or(Ok(()), |zone: &Zone| write!(f, " in {zone}"))
    }
}
