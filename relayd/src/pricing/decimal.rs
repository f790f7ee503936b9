//! Decimal text to integers and back, exactly: no price ever passes through a float.

/// Why a text is no price.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPrice {
    /// It is not written as a decimal number.
    #[error("not a number")]
    NotANumber,
    /// It is below zero.
    #[error("below zero")]
    Negative,
    /// It has more digits than are kept.
    #[error("finer than a pico-dollar")]
    TooFine,
    /// It is larger than can be kept.
    #[error("too large")]
    TooLarge,
}

/// Reads a number in the forms of JSON (`0.25`, `3e-06`) and gives it times ten to the power of `scale`; what
/// comes out must be whole.
pub(super) fn scaled(text: &str, scale: i64) -> Result<u64, NoPrice> {
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (number, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if !is_digits(whole)
        || !is_digits(fraction)
        || !is_digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))
    {
        return Err(NoPrice::NotANumber);
    }
    let all = format!("{whole}{fraction}");
    let digits = all.trim_end_matches('0');
    if digits.is_empty() {
        return Ok(0);
    }
    if negative {
        return Err(NoPrice::Negative);
    }
    let out_of_range = if exponent.starts_with('-') { NoPrice::TooFine } else { NoPrice::TooLarge };
    let exponent: i64 = exponent.parse().map_err(|_| out_of_range)?;
    let point = whole.len().cast_signed() as i64 - digits.len().cast_signed() as i64;
    let zeros = exponent.saturating_add(scale).saturating_add(point);
    if zeros < 0 {
        return Err(NoPrice::TooFine);
    }
    let power = u32::try_from(zeros).ok().and_then(|zeros| 10_u64.checked_pow(zeros));
    let number = digits.parse::<u64>().ok();
    number.zip(power).and_then(|(number, power)| number.checked_mul(power)).ok_or(NoPrice::TooLarge)
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Writes `number` divided by ten to the power of `places`, with at least two digits after the point.
pub(super) fn unscaled(number: u64, places: u32) -> String {
    let unit = 10_u64.saturating_pow(places);
    let fraction = format!("{:0width$}", number % unit, width = places as usize);
    let kept = fraction.trim_end_matches('0').len().max(2);
    format!("{}.{}", number / unit, &fraction[..kept])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_read_to_the_last_digit() {
        use NoPrice::{Negative, NotANumber, TooFine, TooLarge};
        for (text, expected) in [
            ("3e-06", Ok(3_000_000)),
            ("3E-6", Ok(3_000_000)),
            ("0.000003", Ok(3_000_000)),
            ("1.38e-07", Ok(138_000)),
            ("6.25e-08", Ok(62_500)),
            ("0.035", Ok(35_000_000_000)),
            ("1", Ok(1_000_000_000_000)),
            ("10", Ok(10_000_000_000_000)),
            ("1e+1", Ok(10_000_000_000_000)),
            ("0.00010e2", Ok(10_000_000_000)),
            ("0", Ok(0)),
            ("-0.0", Ok(0)),
            ("0e99999999999999999999", Ok(0)),
            ("1e-12", Ok(1)),
            ("10e-13", Ok(1)),
            ("1e-13", Err(TooFine)),
            ("1.5000000000000002e-07", Err(TooFine)),
            ("1e-99999999999999999999", Err(TooFine)),
            ("18446744.073709551615", Ok(u64::MAX)),
            ("18446744.073709551616", Err(TooLarge)),
            ("1e8", Err(TooLarge)),
            ("1e99999999999999999999", Err(TooLarge)),
            ("1e9223372036854775807", Err(TooLarge)),
            ("-3e-06", Err(Negative)),
            ("", Err(NotANumber)),
            (".5", Err(NotANumber)),
            ("5.", Err(NotANumber)),
            ("1e", Err(NotANumber)),
            ("0e+-1", Err(NotANumber)),
            ("+1", Err(NotANumber)),
            ("1,5", Err(NotANumber)),
            ("0x1", Err(NotANumber)),
            ("\"3e-06\"", Err(NotANumber)),
        ] {
            assert_eq!(scaled(text, 12), expected, "{text}");
        }
    }

    #[test]
    fn numbers_are_written_with_the_digits_that_matter() {
        for (number, places, text) in [
            (0, 6, "0.00"),
            (3_000_000, 6, "3.00"),
            (62_500, 6, "0.0625"),
            (1, 6, "0.000001"),
            (10_000_000_000, 9, "10.00"),
            (u64::MAX, 6, "18446744073709.551615"),
        ] {
            assert_eq!(unscaled(number, places), text);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(number: u64) {
            prop_assert_eq!(scaled(&unscaled(number, 6), 6), Ok(number));
            prop_assert_eq!(scaled(&unscaled(number, 9), 9), Ok(number));
        }

        #[test]
        fn no_text_panics(text in "[-+0-9.eE]{0,40}", scale in -20..20_i64) {
            let _ = scaled(&text, scale);
        }
    }
}
