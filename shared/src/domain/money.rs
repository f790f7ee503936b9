//! Money as an integer: never a float, never a bare number.

use std::fmt;
use std::iter::Sum;
use std::ops::Add;
use std::str::FromStr;

use minicbor::{Decode, Encode};
use serde::Serialize;

use super::text::read_by_text;

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
}

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
        serializer.serialize_str(&self.to_string().replacen('$', "", 1))
    }
}

read_by_text!(NanoUsd);

#[cfg(test)]
mod tests {
    use super::*;

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
}
