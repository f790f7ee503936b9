//! From rules to counters, and from a counter that refused to what the client is told. Knows rules and no
//! counts: what has been used is the store's to know.

pub mod budget;
pub mod counter;
pub mod estimate;
mod rule;
mod window;

use std::fmt;
use std::time::Duration;

use shared::domain::limit::Metric;
use shared::domain::{Limit, NanoUsd, Timestamp};

pub use counter::Standing;
pub use rule::{Amount, Need, Rule, Unpriced, asks};
pub use window::start_of;

/// What a client waits for something that open calls hold: nobody knows when one of them will end.
const NEXT_TRY: Duration = Duration::from_secs(1);

/// Whose limit it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The API key's.
    Key,
    /// Of all keys with the same owner together.
    Owner,
    /// Of all keys together.
    All,
    /// The upstream account's.
    Account,
}

impl Scope {
    /// The scope as it is written in JSON and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Owner => "owner",
            Self::All => "all",
            Self::Account => "account",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key => "this key may have",
            Self::Owner => "the keys of this key's owner may have",
            Self::All => "all keys together may have",
            Self::Account => "this account may have",
        })
    }
}

/// A limit that has no room for one more call. Prints as one sentence that the client may read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct LimitExceeded {
    /// Whose limit it is.
    pub scope: Scope,
    /// The limit.
    pub limit: Limit,
    /// What the call may need; 0 if that is not known.
    pub amount: u64,
    /// Where the counter stands.
    pub standing: Standing,
}

impl LimitExceeded {
    /// Whether the call would not fit even if everything that is held were given back: only time helps.
    pub fn is_spent(&self) -> bool {
        let needed = self.standing.booked.saturating_add(self.amount);
        self.limit.metric != Metric::Concurrent && needed > self.limit.amount
    }

    /// How long to wait before asking again, in whole seconds and at least one; `None` where waiting is no use.
    pub fn retry_after(&self, now: Timestamp) -> Option<Duration> {
        // Whoever is counted as one will not be counted less.
        let waits_for_reset = self.is_spent() || self.limit.metric == Metric::Requests;
        match self.standing.resets_at {
            _ if self.limit.is_strict && self.amount > self.limit.amount => None,
            Some(at) if waits_for_reset => Some(whole_seconds(at.since(now)).max(NEXT_TRY)),
            None if self.is_spent() => None,
            _ => Some(NEXT_TRY),
        }
    }
}

/// Rounded up: a client that waits this long is not too early.
fn whole_seconds(wait: Duration) -> Duration {
    Duration::from_secs(wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)))
}

impl fmt::Display for LimitExceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scope, limit, amount, standing: Standing { booked, held, resets_at } } = self;
        let said = |amount: u64| Said(limit.metric, amount);
        write!(f, "{scope} {limit}")?;
        match (limit.metric, *booked, *held) {
            (Metric::Concurrent, _, open) => {
                let calls = if limit.amount == 1 { "call" } else { "calls" };
                write!(f, " {calls}; {} open", said(open))?;
            }
            (_, booked, 0) => write!(f, "; {} used", said(booked))?,
            (_, 0, held) => write!(f, "; {} in flight", said(held))?,
            (_, booked, held) => write!(f, "; {} used and {} in flight", said(booked), said(held))?,
        }
        if !limit.metric.is_exact() && (*amount > 1 || (limit.is_strict && *amount > 0)) {
            write!(f, "; this call may need {}", Plain(limit.metric, *amount))?;
        }
        match resets_at {
            Some(at) => write!(f, "; the window resets at {at}"),
            None => Ok(()),
        }
    }
}

/// An amount with its verb.
struct Said(Metric, u64);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.1 == 1 || self.0 == Metric::Cost { "is" } else { "are" };
        write!(f, "{} {verb}", Plain(self.0, self.1))
    }
}

/// An amount in the words of its metric.
struct Plain(Metric, u64);

impl fmt::Display for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Metric::Cost => NanoUsd::from_counted(self.1).fmt(f),
            Metric::Requests | Metric::Tokens | Metric::Concurrent => self.1.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exceeded(
        scope: Scope,
        limit: &str,
        amount: u64,
        standing: (u64, u64, Option<Timestamp>),
    ) -> LimitExceeded {
        let (booked, held, resets_at) = standing;
        let standing = Standing { booked, held, resets_at };
        LimitExceeded { scope, limit: limit.parse().unwrap(), amount, standing }
    }

    /// Whose limit, the limit, what the call may need, and what is booked, held, and when that ends.
    type Case<'a> = (Scope, &'a str, u64, (u64, u64, Option<Timestamp>));
    /// What is said, how long to wait in seconds, and whether only time helps.
    type Told<'a> = (&'a str, Option<u64>, bool);

    const RESET: Option<Timestamp> = Some(Timestamp::from_millis(1_795_000_060_000));

    fn check(cases: &[(Case<'_>, Told<'_>)]) {
        let now = Timestamp::from_millis(1_795_000_017_001);
        for ((scope, limit, amount, standing), (sentence, wait, is_spent)) in cases {
            let exceeded = exceeded(*scope, limit, *amount, *standing);
            assert_eq!(exceeded.to_string(), *sentence);
            assert_eq!(exceeded.retry_after(now), wait.map(Duration::from_secs), "{sentence}");
            assert_eq!(exceeded.is_spent(), *is_spent, "{sentence}");
        }
    }

    #[test]
    fn a_refusal_says_what_why_and_until_when() {
        check(&[
            (
                (Scope::Key, "60 requests per minute", 1, (60, 0, RESET)),
                (
                    "this key may have 60 requests per minute; 60 are used; the window resets at \
                 2026-11-18T11:07:40Z",
                    Some(43),
                    true,
                ),
            ),
            (
                (Scope::Account, "1 request per minute", 1, (0, 1, RESET)),
                (
                    "this account may have 1 request per minute; 1 is in flight; the window resets at \
                 2026-11-18T11:07:40Z",
                    Some(43),
                    false,
                ),
            ),
            (
                (Scope::Owner, "3 requests per minute", 1, (1, 2, None)),
                (
                    "the keys of this key's owner may have 3 requests per minute; 1 is used and 2 are in flight",
                    Some(1),
                    false,
                ),
            ),
            (
                (Scope::Key, "4 concurrent", 1, (0, 4, None)),
                ("this key may have 4 concurrent calls; 4 are open", Some(1), false),
            ),
            (
                (Scope::Key, "1 concurrent", 1, (0, 1, None)),
                ("this key may have 1 concurrent call; 1 is open", Some(1), false),
            ),
            (
                (Scope::Key, "100 requests in total", 1, (100, 0, None)),
                ("this key may have 100 requests in total; 100 are used", None, true),
            ),
        ]);
    }

    #[test]
    fn tokens_and_money_say_what_the_call_may_need() {
        check(&[
            (
                (Scope::All, "$20 per day", 50_000_000, (19_980_000_000, 0, RESET)),
                (
                    "all keys together may have $20 per day; $19.98 is used; this call may need $0.05; \
                 the window resets at 2026-11-18T11:07:40Z",
                    Some(43),
                    true,
                ),
            ),
            (
                (Scope::Key, "$20 in total", 50_000_000, (19_000_000_000, 970_000_000, None)),
                (
                    "this key may have $20 in total; $19.00 is used and $0.97 is in flight; \
                 this call may need $0.05",
                    Some(1),
                    false,
                ),
            ),
            (
                (Scope::Key, "500 tokens per hour strict", 900, (0, 0, None)),
                (
                    "this key may have 500 tokens per hour strict; 0 are used; this call may need 900",
                    None,
                    true,
                ),
            ),
            (
                (Scope::Key, "500 tokens in total strict", 0, (500, 0, None)),
                ("this key may have 500 tokens in total strict; 500 are used", Some(1), false),
            ),
        ]);
    }

    #[test]
    fn a_wait_is_never_zero_and_never_overflows() {
        let exceeded = |resets_at| {
            let resets_at = Some(Timestamp::from_millis(resets_at));
            exceeded(Scope::Key, "1 request per minute", 1, (1, 0, resets_at))
        };
        let second = Some(Duration::from_secs(1));
        assert_eq!(exceeded(5).retry_after(Timestamp::from_millis(5)), second);
        assert_eq!(exceeded(i64::MIN).retry_after(Timestamp::from_millis(i64::MAX)), second);
        assert!(exceeded(i64::MAX).retry_after(Timestamp::from_millis(i64::MIN)) > second);
    }
}
