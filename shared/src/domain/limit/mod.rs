//! Limits as data, written the way a person says them: `4 concurrent`, `60 requests per minute`,
//! `$80 per week from Sunday on claude-opus-*`. What has been used of them is counted elsewhere.

mod calendar;
mod parse;
mod print;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use calendar::{Calendar, CalendarUnit, NoZone, TimeOfDay, Zone};
pub use parse::NoLimit;

use super::text::json_by_text;
use super::{Glob, NanoUsd, Operation};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Metric {
    /// Calls that were admitted.
    Requests,
    /// Tokens of every kind, cached ones too.
    Tokens,
    /// Money, in nano-dollars.
    Cost,
    /// Calls that are open now; its window is always [`Window::Now`].
    Concurrent,
}

impl Metric {
    /// Every metric.
    pub const ALL: [Self; 4] = [Self::Requests, Self::Tokens, Self::Cost, Self::Concurrent];

    /// The metric as it is written in JSON and in the names of counters.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::Cost => "cost",
            Self::Concurrent => "concurrent",
        }
    }

    /// Whether a call is counted as one, so that nothing about it has to be estimated.
    pub const fn is_exact(self) -> bool {
        matches!(self, Self::Requests | Self::Concurrent)
    }
}

/// An amount of what a limit counts, as it is told: a number of calls or tokens, or money, in JSON as a text of
/// dollars.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Counted {
    /// Calls or tokens.
    Number(u64),
    /// Dollars.
    Money(NanoUsd),
}

impl Counted {
    /// What a counter's number stands for.
    pub fn of(metric: Metric, amount: u64) -> Self {
        match metric {
            Metric::Cost => Self::Money(NanoUsd::from_counted(amount)),
            Metric::Requests | Metric::Tokens | Metric::Concurrent => Self::Number(amount),
        }
    }

    /// The counter's number.
    pub fn number(self) -> u64 {
        match self {
            Self::Number(number) => number,
            Self::Money(amount) => amount.as_counted(),
        }
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Money(amount) => amount.fmt(f),
        }
    }
}

/// Over which time it is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Window {
    /// Only what is open at this moment.
    Now,
    /// A fixed length, in whole seconds, that begins with the first use after the last window ended.
    Fixed(Duration),
    /// An hour, a day, a week or a month of the calendar.
    Calendar(Calendar),
    /// From the first use to the end of time.
    Lifetime,
}

/// At most `amount` of `metric` in `window`, counted over calls that ask for one of `models` and one of
/// `operations`. Its text form parses and prints back to itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What is counted.
    pub metric: Metric,
    /// How much is allowed, at least 1: calls, tokens or nano-dollars.
    pub amount: u64,
    /// Over which time.
    pub window: Window,
    /// The models whose calls count, as clients name them; empty means all.
    pub models: Vec<Glob>,
    /// The operations that count; empty means all.
    pub operations: Vec<Operation>,
    /// The worst case is reserved rather than the probable one, so that the amount is never exceeded.
    pub is_strict: bool,
}

impl Limit {
    /// Whether a call counts.
    pub fn covers(&self, model: &str, operation: Operation) -> bool {
        (self.operations.is_empty() || self.operations.contains(&operation))
            && (self.models.is_empty() || self.models.iter().any(|glob| glob.matches(model)))
    }

    /// Whether both limits count the same, whatever they allow of it.
    pub fn counts_like(&self, other: &Self) -> bool {
        (self.metric, &self.window, &self.models, &self.operations)
            == (other.metric, &other.window, &other.models, &other.operations)
    }
}

json_by_text!(Limit);
