//! From rules to counters, and from a counter that refused to what the client is told. Knows rules and no
//! counts: what has been used is the store's to know.

pub mod counter;
pub mod estimate;
pub mod window;

use std::fmt;
use std::time::Duration;

use shared::domain::Timestamp;
use shared::domain::limit::{Limit, Metric, Window};

pub use counter::{CounterAsk, CounterId, Standing, WindowRule};

/// What a client waits for a place among concurrent calls: nobody knows when one will be free.
const NEXT_TRY: Duration = Duration::from_secs(1);

/// The counters that one call asks for under these limits. Two limits of one counter count as the lower of them.
pub fn counters(limits: &[Limit]) -> Vec<CounterAsk> {
    let mut asks: Vec<CounterAsk> = Vec::with_capacity(limits.len());
    for limit in limits {
        let counter = counter(limit);
        match asks.iter_mut().find(|ask| ask.counter == counter) {
            Some(ask) => ask.limit = ask.limit.min(limit.amount),
            None => asks.push(CounterAsk { counter, amount: 1, limit: limit.amount }),
        }
    }
    asks
}

/// The counter that a limit is judged by.
pub fn counter(limit: &Limit) -> CounterId {
    let window = match limit.window {
        Window::Now => WindowRule::Now,
        Window::Fixed(length) => WindowRule::Fixed(length),
        Window::Lifetime => WindowRule::Lifetime,
    };
    CounterId { metric: limit.metric, window }
}

/// The rule that an ask stands for.
fn rule(ask: &CounterAsk) -> Limit {
    let window = match ask.counter.window {
        WindowRule::Now => Window::Now,
        WindowRule::Fixed(length) => Window::Fixed(length),
        WindowRule::Lifetime => Window::Lifetime,
    };
    Limit { metric: ask.counter.metric, amount: ask.limit, window }
}

/// Whose limit it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The API key's.
    Key,
    /// The upstream account's.
    Account,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key => "key",
            Self::Account => "account",
        })
    }
}

/// A limit that has no room for one more call. Prints as one sentence that the client may read. It is always
/// a 429; without [`Self::retry_after`] there is no use in asking again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub struct LimitExceeded {
    /// Whose limit it is.
    pub scope: Scope,
    /// The counter that refused, and its limit.
    pub ask: CounterAsk,
    /// Where the counter stands.
    pub standing: Standing,
}

impl LimitExceeded {
    /// How long to wait before asking again, in whole seconds and at least one; `None` where waiting is no use.
    pub fn retry_after(&self, now: Timestamp) -> Option<Duration> {
        match (self.ask.counter.window, self.standing.resets_at) {
            (WindowRule::Lifetime, _) => None,
            (WindowRule::Now, _) | (WindowRule::Fixed(_), None) => Some(NEXT_TRY),
            (WindowRule::Fixed(_), Some(at)) => Some(whole_seconds(at.since(now)).max(NEXT_TRY)),
        }
    }
}

/// Rounded up: a client that waits this long is not too early.
fn whole_seconds(wait: Duration) -> Duration {
    Duration::from_secs(wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)))
}

impl fmt::Display for LimitExceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Standing { booked, held, resets_at } = self.standing;
        write!(f, "this {} may have {}", self.scope, rule(&self.ask))?;
        match (self.ask.counter.metric, held) {
            (Metric::Concurrent, open) => write!(f, " calls; {open} {} open", verb(open))?,
            (Metric::Requests, 0) => write!(f, "; {booked} {} used", verb(booked))?,
            (Metric::Requests, open) if booked == 0 => write!(f, "; {open} {} in flight", verb(open))?,
            (Metric::Requests, open) => {
                write!(f, "; {booked} {} used and {open} {} in flight", verb(booked), verb(open))?;
            }
        }
        match resets_at {
            Some(at) => write!(f, "; the window resets at {at}"),
            None => Ok(()),
        }
    }
}

const fn verb(count: u64) -> &'static str {
    if count == 1 { "is" } else { "are" }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: WindowRule = WindowRule::Fixed(Duration::from_secs(60));

    fn limits(texts: &[&str]) -> Vec<Limit> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn ask(metric: Metric, window: WindowRule, limit: u64) -> CounterAsk {
        CounterAsk { counter: CounterId { metric, window }, amount: 1, limit }
    }

    #[test]
    fn every_limit_is_a_counter_and_the_lower_of_two_counts() {
        for (texts, expected) in [
            (&[][..], vec![]),
            (&["4 concurrent"], vec![ask(Metric::Concurrent, WindowRule::Now, 4)]),
            (
                &["60 requests per minute", "100 requests in total"],
                vec![ask(Metric::Requests, MINUTE, 60), ask(Metric::Requests, WindowRule::Lifetime, 100)],
            ),
            (
                &["60 requests per minute", "3 concurrent", "50 requests per 60 seconds", "9 concurrent"],
                vec![ask(Metric::Requests, MINUTE, 50), ask(Metric::Concurrent, WindowRule::Now, 3)],
            ),
        ] {
            assert_eq!(counters(&limits(texts)), expected, "{texts:?}");
        }
    }

    #[test]
    fn a_refusal_says_what_why_and_until_when() {
        let at = Some(Timestamp::from_millis(1_795_000_060_000));
        let now = Timestamp::from_millis(1_795_000_017_001);
        for (scope, ask, (booked, held, resets_at), sentence, wait) in [
            (
                Scope::Key,
                ask(Metric::Requests, MINUTE, 60),
                (60, 0, at),
                "this key may have 60 requests per minute; 60 are used; the window resets at \
                 2026-11-18T11:07:40Z",
                Some(43),
            ),
            (
                Scope::Account,
                ask(Metric::Requests, MINUTE, 1),
                (0, 1, at),
                "this account may have 1 request per minute; 1 is in flight; the window resets at \
                 2026-11-18T11:07:40Z",
                Some(43),
            ),
            (
                Scope::Key,
                ask(Metric::Requests, MINUTE, 3),
                (1, 2, None),
                "this key may have 3 requests per minute; 1 is used and 2 are in flight",
                Some(1),
            ),
            (
                Scope::Key,
                ask(Metric::Concurrent, WindowRule::Now, 4),
                (0, 4, None),
                "this key may have 4 concurrent calls; 4 are open",
                Some(1),
            ),
            (
                Scope::Key,
                ask(Metric::Requests, WindowRule::Lifetime, 100),
                (100, 0, None),
                "this key may have 100 requests in total; 100 are used",
                None,
            ),
        ] {
            let exceeded = LimitExceeded { scope, ask, standing: Standing { booked, held, resets_at } };
            assert_eq!(exceeded.to_string(), sentence);
            assert_eq!(exceeded.retry_after(now), wait.map(Duration::from_secs), "{sentence}");
        }
    }

    #[test]
    fn a_wait_is_never_zero_and_never_overflows() {
        let exceeded = |resets_at| LimitExceeded {
            scope: Scope::Key,
            ask: ask(Metric::Requests, MINUTE, 1),
            standing: Standing { booked: 1, held: 0, resets_at: Some(Timestamp::from_millis(resets_at)) },
        };
        let second = Some(Duration::from_secs(1));
        assert_eq!(exceeded(5).retry_after(Timestamp::from_millis(5)), second);
        assert_eq!(exceeded(i64::MIN).retry_after(Timestamp::from_millis(i64::MAX)), second);
        assert!(exceeded(i64::MAX).retry_after(Timestamp::from_millis(i64::MIN)) > second);
    }
}
