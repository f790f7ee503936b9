//! The words in which rules and counters meet: plain values. What a rule counts as is said by `limits`, how much
//! has been counted by the store.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use shared::domain::Timestamp;
use shared::domain::limit::Metric;

/// How many limits a holder may have. What is held of them is written into the journal with every call, and a record
/// has its bounds.
pub const LIMITS_MAX: usize = 32;
/// How many bytes the names of their counters may have together.
pub const NAMES_BYTES_MAX: usize = 2 << 10;

/// Names a counter within its group by what it counts: a limit's text without its amount, so that the amount may
/// change without a new counter.
#[derive(Clone)]
pub struct CounterId {
    metric: Metric,
    name: Arc<str>,
}

impl CounterId {
    /// The counter of this name; `None` if it does not begin with a metric.
    pub fn named(name: &str) -> Option<Self> {
        let first = name.split(' ').next().unwrap_or_default();
        let metric = Metric::ALL.into_iter().find(|metric| metric.name() == first)?;
        Some(Self { metric, name: name.into() })
    }

    pub(super) fn new(metric: Metric, name: String) -> Self {
        Self { metric, name: name.into() }
    }

    /// What is counted.
    pub const fn metric(&self) -> Metric {
        self.metric
    }

    /// The name as it is stored.
    pub fn as_str(&self) -> &str {
        &self.name
    }
}

/// Clones are told to be the same without their names being read.
impl PartialEq for CounterId {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.name, &other.name) || self.name == other.name
    }
}

impl Eq for CounterId {}

impl PartialOrd for CounterId {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for CounterId {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.name.cmp(&other.name)
    }
}

impl Hash for CounterId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl fmt::Debug for CounterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.name, f)
    }
}

/// A stretch of time in which something is counted. Half open: the moment at which it ends belongs to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// Its first moment.
    pub start: Timestamp,
    /// The first moment that is no longer in it; `None` if it has no end.
    pub end: Option<Timestamp>,
}

impl Span {
    /// All of time. Where it begins is the same for everybody, so that a booking finds it whenever the first
    /// use was.
    pub const ENDLESS: Self = Self { start: Timestamp::from_millis(0), end: None };

    /// Whether it is over at `now`. A time before its start (a clock that was set back) is still in it, so that
    /// setting a clock never hands out a limit twice.
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.end.is_some_and(|end| end <= now)
    }
}

/// How a counter's window is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WindowRule {
    /// No window: only what is held now counts. Such an amount is a lease; it is released, never booked.
    Now,
    /// A window of this length begins with the first use after the last one ended.
    Fixed(Duration),
    /// The window of the calendar that the caller's clock says it is.
    Calendar(Span),
    /// One window, from the first use on.
    Lifetime,
}

impl WindowRule {
    /// The window that a first use at `now` opens.
    pub fn opened(self, now: Timestamp) -> Span {
        match self {
            Self::Now | Self::Lifetime => Span::ENDLESS,
            Self::Fixed(length) => Span { start: now, end: Some(now.after(length)) },
            Self::Calendar(span) => span,
        }
    }

    /// When the window ends that a use now would fall in, where that does not depend on the use.
    pub const fn known_end(self) -> Option<Timestamp> {
        match self {
            Self::Calendar(span) => span.end,
            Self::Now | Self::Fixed(_) | Self::Lifetime => None,
        }
    }

    /// The window in force at `now` where the last use was in `last`; `None` where none is. A window that began
    /// after the calendar's was begun by somebody whose clock is ahead, and stands.
    pub fn in_force(self, last: Span, now: Timestamp) -> Option<Span> {
        let is_in_force = match self {
            Self::Now | Self::Lifetime => true,
            Self::Fixed(_) => !last.is_over(now),
            Self::Calendar(span) => last.start >= span.start,
        };
        is_in_force.then_some(last)
    }
}

/// What a call asks of one counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CounterAsk {
    /// The counter.
    pub counter: CounterId,
    /// Its window.
    pub window: WindowRule,
    /// How much the call may need.
    pub amount: u64,
    /// What booked and held amounts may come to.
    pub limit: u64,
}

/// Where a counter stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Booked in the current window.
    pub booked: u64,
    /// Held by open calls in the current window.
    pub held: u64,
    /// When the current window ends; `None` if none runs or it has no end.
    pub resets_at: Option<Timestamp>,
}

impl Standing {
    /// What is neither booked nor held of a limit.
    pub const fn left_of(&self, limit: u64) -> u64 {
        limit.saturating_sub(self.booked).saturating_sub(self.held)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: WindowRule = WindowRule::Fixed(Duration::from_secs(60));

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn span(start: i64, end: i64) -> Span {
        Span { start: at(start), end: Some(at(end)) }
    }

    #[test]
    fn a_counter_is_known_by_its_name() {
        let counter = CounterId::named("cost per day on claude-*").unwrap();
        assert_eq!((counter.metric(), counter.as_str()), (Metric::Cost, "cost per day on claude-*"));
        assert_eq!(counter, CounterId::named("cost per day on claude-*").unwrap());
        assert_ne!(counter, CounterId::named("cost per day").unwrap());
        for name in ["", "apples per day", " cost"] {
            assert_eq!(CounterId::named(name), None, "{name}");
        }
    }

    #[test]
    fn a_window_ends_to_the_millisecond() {
        for (rule, last, now, expected) in [
            (MINUTE, span(0, 60_000), 0, true),
            (MINUTE, span(0, 60_000), 59_999, true),
            (MINUTE, span(0, 60_000), 60_000, false),
            (MINUTE, span(1_000, 61_000), 0, true),
            (WindowRule::Lifetime, Span::ENDLESS, i64::MAX, true),
            (WindowRule::Now, Span::ENDLESS, i64::MAX, true),
            (WindowRule::Calendar(span(100, 200)), span(0, 100), 99, false),
            (WindowRule::Calendar(span(100, 200)), span(100, 200), 150, true),
            (WindowRule::Calendar(span(0, 100)), span(100, 200), 99, true),
        ] {
            let expected = expected.then_some(last);
            assert_eq!(rule.in_force(last, at(now)), expected, "{rule:?} {last:?} {now}");
        }
    }

    #[test]
    fn what_is_left_is_never_less_than_nothing() {
        for (booked, held, limit, left) in
            [(0, 0, 5, 5), (3, 1, 5, 1), (3, 2, 5, 0), (9, 0, 5, 0), (u64::MAX, u64::MAX, 5, 0)]
        {
            assert_eq!(Standing { booked, held, resets_at: None }.left_of(limit), left);
        }
    }

    proptest! {
        /// However calls come, no window is left before its end, the next begins with the call that finds
        /// none in force, and windows never overlap.
        #[test]
        fn windows_follow_each_other(
            length in 1..5_000_u64,
            gaps in prop::collection::vec(0..10_000_i64, 1..50),
        ) {
            let rule = WindowRule::Fixed(Duration::from_millis(length));
            let (mut now, mut last) = (0, None::<Span>);
            for gap in gaps {
                now += gap;
                let time = at(now);
                let window =
                    last.and_then(|last| rule.in_force(last, time)).unwrap_or_else(|| rule.opened(time));
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
            let window = rule.opened(at(start));
            prop_assert!(window.end.unwrap() >= window.start);
            let _ = rule.in_force(window, at(now));
        }
    }
}
