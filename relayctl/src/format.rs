//! Numbers, money and times as people read them in tables. JSON has the exact values.

use std::time::Duration;

use shared::domain::{NanoUsd, Timestamp};

/// What stands in a cell that has nothing to say.
pub(crate) const NOTHING: &str = "-";

/// A count with its thousands apart: `1,234,567`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A count of things: `1 call`, `2 calls`.
pub(crate) fn several(number: u64, thing: &str) -> String {
    format!("{} {thing}{}", count(number), if number == 1 { "" } else { "s" })
}

/// Dollars to the digit that matters: cents from a dollar up, more of them below.
pub(crate) fn dollars(amount: NanoUsd) -> String {
    let nanos = amount.as_nanos().unsigned_abs();
    let decimals = match nanos {
        0 | 1_000_000_000.. => 2,
        10_000_000.. => 4,
        _ => 6,
    };
    let unit = 10_u64.pow(9 - decimals);
    let rounded = nanos.saturating_add(unit / 2) / unit;
    if rounded == 0 && nanos > 0 {
        return "< $0.000001".to_owned();
    }
    let (whole, fraction) = (rounded / 10_u64.pow(decimals), rounded % 10_u64.pow(decimals));
    let sign = if amount.as_nanos() < 0 { "-" } else { "" };
    format!("{sign}${}.{fraction:0width$}", count(whole), width = decimals as usize)
}

/// What something cost, as far as it has a price.
pub(crate) fn cost(cost: NanoUsd, unpriced: bool) -> String {
    match (unpriced, cost) {
        (false, cost) => dollars(cost),
        (true, NanoUsd::ZERO) => "no price".to_owned(),
        (true, cost) => format!("{} + no price", dollars(cost)),
    }
}

/// A time seen from now: `3 min ago`, `in 2 h`, and the date when it is far away.
pub(crate) fn seen_from(now: Timestamp, time: Timestamp) -> String {
    const FAR: Duration = Duration::from_secs(60 * 86_400);
    let is_past = time <= now;
    let distance = if is_past { now.since(time) } else { time.since(now) };
    match (distance, is_past) {
        (distance, _) if distance >= FAR => date(time),
        (distance, _) if distance < Duration::from_secs(1) => "just now".to_owned(),
        (distance, true) => format!("{} ago", length(distance)),
        // Half a minute of answering and reading makes 30 days no 29.
        (distance, false) => format!("in {}", length(distance + distance / 1_000)),
    }
}

fn date(time: Timestamp) -> String {
    let text = time.to_string();
    text.split_once('T').map_or(text.clone(), |(date, _)| date.to_owned())
}

/// A length of time in its largest unit, rounded down: `45 s`, `3 min`, `2 h`, `5 days`.
pub(crate) fn length(length: Duration) -> String {
    match length.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3_600 => format!("{} min", seconds / 60),
        seconds @ 3_600..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

/// The time that a call took: `312 ms`, `1.4 s`, `2 min 5 s`.
pub(crate) fn millis(millis: u64) -> String {
    match millis {
        0..1_000 => format!("{millis} ms"),
        1_000..60_000 => format!("{}.{} s", millis / 1_000, millis % 1_000 / 100),
        _ => format!("{} min {} s", millis / 60_000, millis % 60_000 / 1_000),
    }
}

/// A size of files: `980 B`, `1.5 MiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.into_iter().find(|(_, size)| bytes >= *size) {
        Some((unit, size)) => format!("{}.{} {unit}", bytes / size, bytes % size * 10 / size),
        None => format!("{bytes} B"),
    }
}

/// Items in one cell: `a, b`, or `none` when there are none.
pub(crate) fn list<T: ToString>(items: &[T], none: &str) -> String {
    if items.is_empty() {
        return none.to_owned();
    }
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// A text without what a terminal would take for a command. Model names and messages come from elsewhere.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|char| if char.is_control() && char != '\n' { '\u{fffd}' } else { char }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_their_thousands_apart() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (1_234_567, "1,234,567"),
            (u64::MAX, "18,446,744,073,709,551,615"),
        ] {
            assert_eq!(count(number), text);
        }
    }

    #[test]
    fn one_thing_is_no_plural() {
        assert_eq!(
            (several(1, "call"), several(2_000, "call")),
            ("1 call".to_owned(), "2,000 calls".to_owned())
        );
    }

    #[test]
    fn dollars_are_rounded_to_what_matters() {
        for (nanos, text) in [
            (0, "$0.00"),
            (1_234_567_890_000, "$1,234.57"),
            (20_000_000_000, "$20.00"),
            (999_960_000, "$1.0000"),
            (123_456_789, "$0.1235"),
            (1_234_567, "$0.001235"),
            (400, "< $0.000001"),
            (-1_500_000_000, "-$1.50"),
            (i64::MAX, "$9,223,372,036.85"),
        ] {
            assert_eq!(dollars(NanoUsd::from_nanos(nanos)), text, "{nanos}");
        }
    }

    #[test]
    fn times_are_seen_from_now() {
        let now = Timestamp::from_millis(1_795_000_000_000);
        let at = |seconds: i64| Timestamp::from_millis(now.as_millis() + seconds * 1_000);
        for (seconds, text) in [
            (0, "just now"),
            (-45, "45 s ago"),
            (-180, "3 min ago"),
            (7_300, "in 2 h"),
            (30 * 86_400 - 20, "in 30 days"),
            (-3 * 86_400, "3 days ago"),
            (-400 * 86_400, "2025-10-14"),
        ] {
            assert_eq!(seen_from(now, at(seconds)), text, "{seconds}");
        }
    }

    #[test]
    fn lengths_and_sizes_have_fitting_units() {
        for (number, text) in [(312, "312 ms"), (1_450, "1.4 s"), (125_000, "2 min 5 s")] {
            assert_eq!(millis(number), text);
        }
        for (number, text) in [(980, "980 B"), (1_536, "1.5 KiB"), (3 << 20, "3.0 MiB")] {
            assert_eq!(bytes(number), text);
        }
    }

    #[test]
    fn terminal_commands_are_taken_out() {
        assert_eq!(plain("a\u{1b}[31mb\r\nc"), "a\u{fffd}[31mb\u{fffd}\nc");
    }
}
