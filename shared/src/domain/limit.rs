//! Limits as data, written the way a person says them: `4 concurrent`, `60 requests per minute`,
//! `100 requests in total`. What has been used of them is counted elsewhere.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::text::json_by_text;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Metric {
    /// Calls that were admitted.
    Requests,
    /// Calls that are open now; its window is always [`Window::Now`].
    Concurrent,
}

/// Over which time it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Window {
    /// Only what is open at this moment.
    Now,
    /// A fixed length that begins with the first use after the last window ended.
    Fixed(Duration),
    /// From the first use to the end of time.
    Lifetime,
}

/// At most `amount` of `metric` in `window`. Its text form parses and prints back to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Limit {
    /// What is counted.
    pub metric: Metric,
    /// How much is allowed, at least 1.
    pub amount: u64,
    /// Over which time.
    pub window: Window,
}

/// Why a text is no limit, with a form that would be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoLimit {
    /// The text has none of the known forms.
    #[error(
        "a limit is written like \"4 concurrent\", \"60 requests per minute\", \"500 requests per 5 hours\" \
         or \"100 requests in total\", not {0:?}"
    )]
    Form(String),
    /// The amount is zero, negative, fractional or too large.
    #[error("the amount of a limit is a whole number from 1 up, not {0:?}")]
    Amount(String),
    /// The metric is unknown.
    #[error("a limit counts \"requests\" or \"concurrent\" calls, not {0:?}")]
    Metric(String),
    /// The unit of time is unknown.
    #[error("a limit's time is in seconds, minutes, hours, days or weeks, not {0:?}")]
    Unit(String),
}

const UNITS: [(&str, u64); 5] =
    [("week", 604_800), ("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1)];

impl FromStr for Limit {
    type Err = NoLimit;

    fn from_str(text: &str) -> Result<Self, NoLimit> {
        let words: Vec<String> = text.split_whitespace().map(str::to_lowercase).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let form = || NoLimit::Form(text.to_owned());
        let (&amount, rest) = words.split_first().ok_or_else(form)?;
        let (&metric, rest) = rest.split_first().ok_or_else(form)?;
        let amount = count(amount)?;
        let metric = match metric {
            "request" | "requests" => Metric::Requests,
            "concurrent" => Metric::Concurrent,
            other => return Err(NoLimit::Metric(other.to_owned())),
        };
        let window = match (metric, rest) {
            (Metric::Concurrent, [] | ["requests" | "calls"]) => Window::Now,
            (Metric::Requests, ["in", "total"]) => Window::Lifetime,
            (Metric::Requests, ["per", unit]) => Window::Fixed(length(1, unit)?),
            (Metric::Requests, ["per", number, unit]) => Window::Fixed(length(count(number)?, unit)?),
            _ => return Err(form()),
        };
        Ok(Self { metric, amount, window })
    }
}

fn count(word: &str) -> Result<u64, NoLimit> {
    word.parse::<u64>()
        .ok()
        .filter(|&number| (1..=i64::MAX as u64).contains(&number))
        .ok_or_else(|| NoLimit::Amount(word.to_owned()))
}

fn length(number: u64, unit: &str) -> Result<Duration, NoLimit> {
    let singular = unit.strip_suffix('s').unwrap_or(unit);
    let (_, seconds) =
        UNITS.iter().find(|(name, _)| *name == singular).ok_or_else(|| NoLimit::Unit(unit.to_owned()))?;
    let total = number.checked_mul(*seconds).filter(|&total| total <= u64::from(u32::MAX));
    total.map(Duration::from_secs).ok_or_else(|| NoLimit::Amount(number.to_string()))
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let requests = if self.amount == 1 { "request" } else { "requests" };
        match self.window {
            Window::Now => write!(f, "{} concurrent", self.amount),
            Window::Lifetime => write!(f, "{} {requests} in total", self.amount),
            Window::Fixed(length) => write!(f, "{} {requests} per {}", self.amount, Length(length)),
        }
    }
}

/// A length of time in its largest whole unit: `minute`, `5 hours`.
struct Length(Duration);

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.0.as_secs();
        let (unit, seconds) =
            UNITS.into_iter().find(|(_, seconds)| total.is_multiple_of(*seconds)).unwrap_or(("second", 1));
        match total / seconds {
            1 => f.write_str(unit),
            number => write!(f, "{number} {unit}s"),
        }
    }
}

json_by_text!(Limit);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn limits_parse_and_print() {
        for (text, printed) in [
            ("4 concurrent", "4 concurrent"),
            ("4 concurrent requests", "4 concurrent"),
            ("60 requests per minute", "60 requests per minute"),
            ("60 Requests  per 60 seconds", "60 requests per minute"),
            ("1 request per 90 seconds", "1 request per 90 seconds"),
            ("500 requests per 5 hours", "500 requests per 5 hours"),
            ("100 requests in total", "100 requests in total"),
        ] {
            assert_eq!(text.parse::<Limit>().unwrap().to_string(), printed);
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (text, part) in [
            ("", "written like"),
            ("many requests per day", "whole number"),
            ("0 requests per day", "whole number"),
            ("-3 concurrent", "whole number"),
            ("5 apples per day", "\"apples\""),
            ("5 requests per fortnight", "\"fortnight\""),
            ("5 requests", "written like"),
            ("5 concurrent per day", "written like"),
            ("5 requests per 99999999999 weeks", "whole number"),
        ] {
            let error = text.parse::<Limit>().unwrap_err().to_string();
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn every_limit_prints_what_parses_to_it(amount in 1..=i64::MAX as u64, seconds in 1..=u64::from(u32::MAX)) {
            for limit in [
                Limit { metric: Metric::Concurrent, amount, window: Window::Now },
                Limit { metric: Metric::Requests, amount, window: Window::Lifetime },
                Limit { metric: Metric::Requests, amount, window: Window::Fixed(Duration::from_secs(seconds)) },
            ] {
                prop_assert_eq!(limit.to_string().parse::<Limit>().unwrap(), limit);
            }
        }

        #[test]
        fn no_text_panics(text in ".{0,60}") {
            let _ = text.parse::<Limit>();
        }
    }
}
