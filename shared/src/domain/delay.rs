//! Lengths of time to wait, written as people write them: `500ms`, `30s`, `5m`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::text::json_by_text;

const UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];

/// A length of time in whole milliseconds, an hour at most. Prints in the largest unit that needs no fraction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Delay(u64);

impl Delay {
    /// The longest: whoever means to wait longer than that made a slip of the keyboard.
    pub const MAX: Self = Self(3_600_000);

    /// Takes milliseconds; `None` beyond the longest.
    pub const fn from_millis(millis: u64) -> Option<Self> {
        if millis <= Self::MAX.0 { Some(Self(millis)) } else { None }
    }

    /// The milliseconds.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The same time as a duration.
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }

    /// Whether there is nothing to wait for.
    pub const fn is_zero(&self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |&&(_, length): &&(&str, u64)| length <= self.0 && self.0.is_multiple_of(length);
        let (unit, length) = UNITS.iter().rev().find(fits).copied().unwrap_or(("s", 1_000));
        write!(f, "{}{unit}", self.0 / length)
    }
}

/// The text is no length of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a wait is written like 500ms, 30s or 5m, and is an hour at most")]
pub struct NoDelay;

impl FromStr for Delay {
    type Err = NoDelay;

    fn from_str(text: &str) -> Result<Self, NoDelay> {
        let digits = text.trim_end_matches(|char: char| char.is_ascii_alphabetic());
        let unit = &text[digits.len()..];
        let (_, length) = UNITS.iter().find(|(name, _)| *name == unit).ok_or(NoDelay)?;
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(NoDelay);
        }
        let millis = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(*length));
        millis.and_then(Self::from_millis).ok_or(NoDelay)
    }
}

json_by_text!(Delay);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_written_in_the_largest_unit_that_fits() {
        for (text, millis, printed) in [
            ("0s", 0, "0s"),
            ("0ms", 0, "0s"),
            ("500ms", 500, "500ms"),
            ("1000ms", 1_000, "1s"),
            ("90s", 90_000, "90s"),
            ("60s", 60_000, "1m"),
            ("5m", 300_000, "5m"),
            ("1h", 3_600_000, "1h"),
        ] {
            let delay: Delay = text.parse().unwrap();
            assert_eq!((delay.as_millis(), delay.to_string().as_str()), (millis, printed), "{text}");
            assert_eq!(printed.parse(), Ok(delay));
        }
        for wrong in ["", "s", "5", "-5s", "+5s", "1.5s", "5 s", "5d", "61m", "99999999999999999999s", "5é"]
        {
            assert_eq!(wrong.parse::<Delay>(), Err(NoDelay), "{wrong:?}");
        }
    }
}
