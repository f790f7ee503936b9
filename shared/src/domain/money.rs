//! Money as an integer: never a float, never a bare number.

use std::fmt;
use std::iter::Sum;
use std::ops::Add;
use std::str::FromStr;

use minicbor::{Decode, Encode};
use serde::Serialize;

use super::text::{json_by_text, read_by_text};

/// Nano-dollars (10⁻⁹ USD); one row holds at most about ±9.2 billion dollars, addition saturates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct NanoUsd(#[n(0)] i64);

impl NanoUsd {
    /// No money.
    pub const ZERO: Self = Self(0);

    /// Takes nano-dollars.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// The amount in nano-dollars.
    pub const fn as_nanos(self) -> i64 {
        self.0
    }

    /// Takes nano-dollars as limits and their counters have them; what is too much is the most there is.
    pub fn from_counted(nanos: u64) -> Self {
        Self(i64::try_from(nanos).unwrap_or(i64::MAX))
    }

    /// The amount as limits and their counters have it; less than nothing is nothing.
    pub fn as_counted(self) -> u64 {
        u64::try_from(self.0).unwrap_or(0)
    }

    /// The dollars without their sign: `0.05`, `-1.50`.
    pub fn to_decimal(self) -> String {
        self.to_string().replacen('$', "", 1)
    }

    /// The amount times a multiplier, rounded half away from zero.
    #[must_use]
    pub fn times(self, multiplier: Multiplier) -> Self {
        if multiplier == Multiplier::ONE {
            return self;
        }
        let millionths = i128::from(self.0) * i128::from(multiplier.0);
        let half = if millionths < 0 { -MILLION / 2 } else { MILLION / 2 };
        let most = if millionths < 0 { i64::MIN } else { i64::MAX };
        Self(i64::try_from((millionths + half) / MILLION).unwrap_or(most))
    }
}

const MILLION: i128 = 1_000_000;

/// What a cost is multiplied by, in millionths: `1.5`, at most a million.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Multiplier(#[n(0)] u64);

impl Multiplier {
    /// What changes nothing.
    pub const ONE: Self = Self(1_000_000);

    /// One after the other, rounded half up.
    #[must_use]
    pub fn times(self, other: Self) -> Self {
        let product = (u128::from(self.0) * u128::from(other.0) + 500_000) / 1_000_000;
        Self(u64::try_from(product).unwrap_or(u64::MAX).min(MULTIPLIER_MAX))
    }
}

const MULTIPLIER_MAX: u64 = 1_000_000_000_000;

impl Default for Multiplier {
    fn default() -> Self {
        Self::ONE
    }
}

impl fmt::Display for Multiplier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000);
        f.pad(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// The text is no multiplier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a multiplier is written like 1, 1.5 or 0.25, from 0 to 1000000, with at most six digits after the point"
)]
pub struct NoMultiplier;

impl FromStr for Multiplier {
    type Err = NoMultiplier;

    fn from_str(text: &str) -> Result<Self, NoMultiplier> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || fraction.len() > 6 || !digits(whole) || !digits(fraction) {
            return Err(NoMultiplier);
        }
        let millionths = format!("{whole}{fraction:0<6}").parse().ok();
        millionths.filter(|&millionths| millionths <= MULTIPLIER_MAX).map(Self).ok_or(NoMultiplier)
    }
}

json_by_text!(Multiplier);

impl Add for NanoUsd {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sum for NanoUsd {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Add::add)
    }
}

/// Prints dollars with the digits that matter: at least two, at most nine.
impl fmt::Display for NanoUsd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let nanos = self.0.unsigned_abs();
        let fraction = format!("{:09}", nanos % 1_000_000_000);
        let kept = fraction.trim_end_matches('0').len().max(2);
        f.pad(&format!("{sign}${}.{}", nanos / 1_000_000_000, &fraction[..kept]))
    }
}

/// The text is no amount of dollars with at most nine digits after the point.
#[derive(Debug, thiserror::Error)]
#[error("an amount is written like $20 or 0.0125, with at most nine digits after the point")]
pub struct NoAmount;

impl FromStr for NanoUsd {
    type Err = NoAmount;

    fn from_str(text: &str) -> Result<Self, NoAmount> {
        let (negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let text = text.strip_prefix('$').unwrap_or(text);
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || fraction.len() > 9 || !digits(whole) || !digits(fraction) {
            return Err(NoAmount);
        }
        let nanos: i64 = format!("{whole}{fraction:0<9}").parse().map_err(|_| NoAmount)?;
        Ok(Self(if negative { -nanos } else { nanos }))
    }
}

/// A decimal string of dollars without sign or currency (`"0.000123"`), so that no reader rounds it.
impl Serialize for NanoUsd {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_decimal())
    }
}

read_by_text!(NanoUsd);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_have_amounts_from_nothing_up() {
        for (counted, nanos) in [(0, 0), (1, 1), (i64::MAX as u64, i64::MAX), (u64::MAX, i64::MAX)] {
            assert_eq!(NanoUsd::from_counted(counted), NanoUsd::from_nanos(nanos), "{counted}");
        }
        for (nanos, counted) in [(i64::MIN, 0), (-1, 0), (0, 0), (i64::MAX, i64::MAX as u64)] {
            assert_eq!(NanoUsd::from_nanos(nanos).as_counted(), counted, "{nanos}");
        }
    }

    #[test]
    fn amounts_print_and_parse() {
        for (text, nanos) in
            [("$0.00", 0), ("$20.00", 20_000_000_000), ("$0.000000001", 1), ("-$1.50", -1_500_000_000)]
        {
            let amount = NanoUsd::from_nanos(nanos);
            assert_eq!(amount.to_string(), text);
            assert_eq!(text.parse::<NanoUsd>().unwrap(), amount);
        }
        assert_eq!("0.0125".parse::<NanoUsd>().unwrap().as_nanos(), 12_500_000);
        for bad in ["", "$", ".5", "1.0000000001", "1e3", "1,000", "99999999999999"] {
            assert!(bad.parse::<NanoUsd>().is_err(), "{bad}");
        }
    }

    #[test]
    fn multipliers_print_and_parse() {
        for (text, printed) in
            [("1", "1"), ("1.50", "1.5"), ("0.000001", "0.000001"), ("0", "0"), ("1000000", "1000000")]
        {
            assert_eq!(text.parse::<Multiplier>().unwrap().to_string(), printed);
        }
        for bad in ["", ".5", "-1", "1.0000001", "1000000.1", "1e3", "99999999999999999999"] {
            assert!(bad.parse::<Multiplier>().is_err(), "{bad}");
        }
        let of = |text: &str| text.parse::<Multiplier>().unwrap();
        assert_eq!(of("1.5").times(of("0.5")), of("0.75"));
        assert_eq!(of("1000000").times(of("1000000")), of("1000000"));
    }

    #[test]
    fn amounts_are_multiplied_and_rounded_once() {
        for (nanos, multiplier, expected) in [
            (100, "1", 100),
            (100, "1.5", 150),
            (1, "0.5", 1),
            (1, "0.499999", 0),
            (-1, "0.5", -1),
            (7, "0", 0),
            (i64::MAX, "2", i64::MAX),
            (i64::MIN, "2", i64::MIN),
        ] {
            let amount = NanoUsd::from_nanos(nanos).times(multiplier.parse().unwrap());
            assert_eq!(amount.as_nanos(), expected, "{nanos} x {multiplier}");
        }
    }
}
