//! Times as people type them: a point in time, or a length such as `7d`. The clock is not read here.

use std::str::FromStr;
use std::time::Duration;

use shared::domain::Timestamp;

const DAY_S: u64 = 86_400;
const UNITS: [(char, u64); 5] = [('s', 1), ('m', 60), ('h', 3_600), ('d', DAY_S), ('w', 7 * DAY_S)];
/// A hundred years: beyond it a length is a slip of the keyboard.
const LENGTH_S_MAX: u64 = 100 * 366 * DAY_S;

/// A length of time such as `90s`, `30m`, `12h`, `7d` or `2w`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Length(pub(crate) Duration);

/// The text is no length of time.
#[derive(Debug, thiserror::Error)]
#[error("a length of time is written like 30m, 12h, 7d or 2w")]
pub(crate) struct NoLength;

impl FromStr for Length {
    type Err = NoLength;

    fn from_str(text: &str) -> Result<Self, NoLength> {
        let unit = text.chars().next_back().ok_or(NoLength)?;
        let (_, seconds) = UNITS.iter().find(|(name, _)| *name == unit).ok_or(NoLength)?;
        let digits = &text[..text.len() - unit.len_utf8()];
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(NoLength);
        }
        let total = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(*seconds));
        let total = total.filter(|total| (1..=LENGTH_S_MAX).contains(total)).ok_or(NoLength)?;
        Ok(Self(Duration::from_secs(total)))
    }
}

/// A point in time: named, or some length away from now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    At(Timestamp),
    Away(Duration),
}

/// The text is neither a point in time nor a length of time.
#[derive(Debug, thiserror::Error)]
#[error("a time is written like 2026-11-30, 2026-11-30T08:00:00Z, 12h or 7d")]
pub(crate) struct NoWhen;

impl FromStr for When {
    type Err = NoWhen;

    fn from_str(text: &str) -> Result<Self, NoWhen> {
        let length = text.parse::<Length>().map(|length| Self::Away(length.0));
        length.or_else(|_| text.parse().map(Self::At)).map_err(|_| NoWhen)
    }
}

impl When {
    /// The point in time, where a length means "ago".
    pub(crate) fn past(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(time) => time,
            Self::Away(length) => {
                let millis = i64::try_from(length.as_millis()).unwrap_or(i64::MAX);
                Timestamp::from_millis(now.as_millis().saturating_sub(millis))
            }
        }
    }

    /// The point in time, where a length means "from now".
    pub(crate) fn future(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(time) => time,
            Self::Away(length) => now.after(length),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_795_000_000_000);

    #[test]
    fn lengths_are_read_in_their_units() {
        for (text, seconds) in
            [("90s", 90), ("30m", 1_800), ("12h", 43_200), ("7d", 604_800), ("2w", 1_209_600)]
        {
            assert_eq!(text.parse::<Length>().unwrap().0.as_secs(), seconds, "{text}");
        }
        for bad in ["", "d", "7", "-7d", "+7d", "1.5h", "7 d", "0d", "7é", "99999999999999999999d", "999999w"]
        {
            assert!(bad.parse::<Length>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn times_are_points_or_lengths_away_from_now() {
        let day = 86_400_000;
        for (text, past, future) in [
            ("7d", NOW.as_millis() - 7 * day, NOW.as_millis() + 7 * day),
            ("1970-01-02", day, day),
            ("1970-01-01T00:00:01Z", 1_000, 1_000),
            ("1970-01-01T01:00:01+01:00", 1_000, 1_000),
        ] {
            let when: When = text.parse().unwrap();
            assert_eq!((when.past(NOW).as_millis(), when.future(NOW).as_millis()), (past, future), "{text}");
        }
        for bad in ["", "tomorrow", "2026-13-01", "7x"] {
            assert!(bad.parse::<When>().is_err(), "{bad:?}");
        }
    }
}
