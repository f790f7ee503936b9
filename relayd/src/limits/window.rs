//! The arithmetic of time windows: which one is in force, and which one a use would open. Windows are half
//! open: the moment at which one ends belongs to the next.

use shared::domain::Timestamp;

use super::WindowRule;

/// A window of a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its first moment.
    pub start: Timestamp,
    /// The first moment that is no longer in it; `None` if it has no end.
    pub end: Option<Timestamp>,
}

/// The window in force at `now`, if the last use opened one at `last_start`. A time before its start (a clock
/// that was set back) is still in it, so that setting a clock never hands out a limit twice.
pub fn in_force(rule: WindowRule, last_start: Option<Timestamp>, now: Timestamp) -> Option<Span> {
    let window = opened(rule, last_start?)?;
    window.end.is_none_or(|end| now < end).then_some(window)
}

/// The window that a first use at `start` opens; `None` where nothing is counted over time.
pub fn opened(rule: WindowRule, start: Timestamp) -> Option<Span> {
    match rule {
        WindowRule::Now => None,
        WindowRule::Fixed(length) => Some(Span { start, end: Some(start.after(length)) }),
        WindowRule::Lifetime => Some(Span { start, end: None }),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const MINUTE: WindowRule = WindowRule::Fixed(Duration::from_secs(60));

    #[test]
    fn a_window_ends_to_the_millisecond() {
        let span = |start, end: Option<i64>| {
            Some(Span { start: Timestamp::from_millis(start), end: end.map(Timestamp::from_millis) })
        };
        for (rule, last_start, now, expected) in [
            (MINUTE, None, 5, None),
            (MINUTE, Some(0), 0, span(0, Some(60_000))),
            (MINUTE, Some(0), 59_999, span(0, Some(60_000))),
            (MINUTE, Some(0), 60_000, None),
            (MINUTE, Some(1_000), 0, span(1_000, Some(61_000))),
            (MINUTE, Some(i64::MAX), i64::MAX, None),
            (MINUTE, Some(i64::MIN), i64::MAX, None),
            (WindowRule::Lifetime, None, 5, None),
            (WindowRule::Lifetime, Some(3), i64::MAX, span(3, None)),
            (WindowRule::Now, Some(3), 5, None),
        ] {
            let last_start = last_start.map(Timestamp::from_millis);
            assert_eq!(
                in_force(rule, last_start, Timestamp::from_millis(now)),
                expected,
                "{rule:?} {last_start:?}"
            );
        }
    }

    proptest! {
        /// However calls come, no window is left before its end, the next begins with the call that finds
        /// none in force, and windows never overlap.
        #[test]
        fn windows_follow_each_other(length in 1..5_000_u64, gaps in prop::collection::vec(0..10_000_i64, 1..50)) {
            let rule = WindowRule::Fixed(Duration::from_millis(length));
            let (mut now, mut last) = (0, None::<Span>);
            for gap in gaps {
                now += gap;
                let time = Timestamp::from_millis(now);
                let window = in_force(rule, last.map(|span| span.start), time)
                    .or_else(|| opened(rule, time))
                    .unwrap();
                let end = window.end.unwrap();
                prop_assert!(window.start <= time && time < end);
                prop_assert_eq!(end.since(window.start), Duration::from_millis(length));
                if let Some(last) = last {
                    prop_assert!(window == last || (window.start == time && last.end.unwrap() <= time));
                }
                last = Some(window);
            }
        }

        #[test]
        fn no_clock_overflows(start: i64, now: i64, seconds: u64) {
            let rule = WindowRule::Fixed(Duration::from_secs(seconds));
            if let Some(window) = in_force(rule, Some(Timestamp::from_millis(start)), Timestamp::from_millis(now)) {
                prop_assert!(window.end.unwrap() >= window.start);
            }
        }
    }
}
