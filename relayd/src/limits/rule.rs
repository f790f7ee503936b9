//! A limit made ready to be asked about: with its counter's name and its zone at hand.

use shared::domain::limit::{Metric, Window, Zone};
use shared::domain::{Limit, Operation, Timestamp};

use super::counter::{CounterAsk, CounterId, WindowRule};
use super::window;

/// An amount that a call will probably need, and what it will need at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// What is reserved as a rule.
    pub likely: u64,
    /// What strict limits reserve.
    pub worst: u64,
}

/// What a call needs of the limits that cover it.
#[derive(Clone, Copy, Debug)]
pub struct Need<'a> {
    /// The model, as the client names it.
    pub model: &'a str,
    /// What it wants done.
    pub operation: Operation,
    /// Tokens of the prompt and of the answer.
    pub tokens: Amount,
    /// Nano-dollars; `None` where something of it has no price.
    pub cost: Option<Amount>,
}

/// A limit with its counter.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The limit.
    pub limit: Limit,
    /// What it is judged by.
    pub counter: CounterId,
    zone: Zone,
}

/// A limit of money covers a call whose cost nobody can know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it has no price")]
pub struct Unpriced;

impl Rule {
    /// Makes a limit ready; `zone` is for windows of the calendar that name none.
    pub fn new(limit: Limit, zone: &Zone) -> Self {
        let counter = CounterId::new(limit.metric, limit.counter_name());
        let own = match &limit.window {
            Window::Calendar(calendar) => calendar.zone.clone(),
            Window::Now | Window::Fixed(_) | Window::Lifetime => None,
        };
        Self { limit, counter, zone: own.unwrap_or_else(|| zone.clone()) }
    }

    /// The window that a call at `now` falls in.
    pub fn window(&self, now: Timestamp) -> WindowRule {
        match &self.limit.window {
            Window::Now => WindowRule::Now,
            Window::Fixed(length) => WindowRule::Fixed(*length),
            Window::Calendar(calendar) => {
                WindowRule::Calendar(window::of_calendar(calendar, &self.zone, now))
            }
            Window::Lifetime => WindowRule::Lifetime,
        }
    }

    /// What is asked to learn where the limit stands.
    pub fn look(&self, now: Timestamp) -> CounterAsk {
        let (counter, window) = (self.counter.clone(), self.window(now));
        CounterAsk { counter, window, amount: 0, limit: self.limit.amount }
    }

    /// What a call asks of the counter; `None` if the limit does not cover it. A call that may need more than
    /// there is at all asks for all there is: alone it may pass, unless the limit is strict.
    fn ask(&self, need: &Need<'_>, now: Timestamp) -> Result<Option<CounterAsk>, Unpriced> {
        if !self.limit.covers(need.model, need.operation) {
            return Ok(None);
        }
        let amount = match self.limit.metric {
            Metric::Requests | Metric::Concurrent => Amount { likely: 1, worst: 1 },
            Metric::Tokens => need.tokens,
            Metric::Cost => need.cost.ok_or(Unpriced)?,
        };
        let amount = match self.limit.is_strict {
            true => amount.worst,
            false => amount.likely.min(self.limit.amount),
        };
        Ok(Some(CounterAsk { amount, ..self.look(now) }))
    }
}

/// What a call asks of the counters of these rules, in their order.
///
/// # Errors
///
/// One of them counts money, and the call has no price.
pub fn asks(rules: &[Rule], need: &Need<'_>, now: Timestamp) -> Result<Vec<CounterAsk>, Unpriced> {
    let mut asks = Vec::with_capacity(rules.len());
    for rule in rules {
        asks.extend(rule.ask(need, now)?);
    }
    Ok(asks)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::limits::counter::Span;

    fn rules(texts: &[&str]) -> Vec<Rule> {
        let zone = "Europe/Berlin".parse().unwrap();
        texts.iter().map(|text| Rule::new(text.parse().unwrap(), &zone)).collect()
    }

    fn asked(texts: &[&str], need: &Need<'_>, now: &str) -> Vec<(String, WindowRule, u64, u64)> {
        let asks = asks(&rules(texts), need, now.parse().unwrap()).unwrap();
        let plain = |ask: CounterAsk| (ask.counter.as_str().to_owned(), ask.window, ask.amount, ask.limit);
        asks.into_iter().map(plain).collect()
    }

    const NEED: Need<'_> = Need {
        model: "claude-opus-5",
        operation: Operation::Generate,
        tokens: Amount { likely: 100, worst: 900 },
        cost: Some(Amount { likely: 7, worst: 63 }),
    };
    const NOON: &str = "2026-11-25T12:00:00Z";

    #[test]
    fn every_limit_that_covers_the_call_asks_its_counter() {
        let day = |start: &str, end: &str| {
            let (start, end) = (start.parse().unwrap(), Some(end.parse().unwrap()));
            WindowRule::Calendar(Span { start, end })
        };
        let minute = WindowRule::Fixed(Duration::from_secs(60));
        for (text, expected) in [
            ("4 concurrent", Some((WindowRule::Now, 1, 4))),
            ("60 requests per minute", Some((minute, 1, 60))),
            ("500 tokens in total", Some((WindowRule::Lifetime, 100, 500))),
            ("50 tokens in total", Some((WindowRule::Lifetime, 50, 50))),
            ("500 tokens in total strict", Some((WindowRule::Lifetime, 900, 500))),
            ("$20 per day", Some((day("2026-11-24T23:00:00Z", "2026-11-25T23:00:00Z"), 7, 20_000_000_000))),
            (
                "$20 per day in UTC strict",
                Some((day("2026-11-25T00:00:00Z", "2026-11-26T00:00:00Z"), 63, 20_000_000_000)),
            ),
            ("$20 per day on claude-sonnet-*", None),
            ("60 requests per minute for embed", None),
        ] {
            let expected = expected.map(|(window, amount, limit)| {
                (text.parse::<Limit>().unwrap().counter_name(), window, amount, limit)
            });
            assert_eq!(asked(&[text], &NEED, NOON), expected.into_iter().collect::<Vec<_>>(), "{text}");
        }
        let both = ["4 concurrent", "$1 per day on gpt-*", "60 requests per minute"];
        assert_eq!(asked(&both, &NEED, NOON).len(), 2);
    }

    #[test]
    fn money_without_a_price_is_not_guessed() {
        let need = Need { cost: None, ..NEED };
        let now = NOON.parse().unwrap();
        assert_eq!(asks(&rules(&["4 concurrent", "$1 per day"]), &need, now), Err(Unpriced));
        assert_eq!(asks(&rules(&["4 concurrent", "$1 per day on gpt-*"]), &need, now).unwrap().len(), 1);
    }
}
