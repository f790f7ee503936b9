//! What is left of a client's limits, in the headers that its protocol has for that.

use http::{HeaderName, HeaderValue};
use shared::domain::limit::Metric;
use shared::domain::{NanoUsd, Protocol, Timestamp};

/// What is left of one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// What is counted.
    pub metric: Metric,
    /// How much is allowed: calls, tokens or nano-dollars.
    pub limit: u64,
    /// How much of it is neither used nor held.
    pub left: u64,
    /// When all of it will be there again.
    pub resets_at: Option<Timestamp>,
}

/// The three headers of one metric: limit, what is left, reset.
type Names = [HeaderName; 3];

/// Anthropic's names, with the reset as a time.
/// <https://docs.anthropic.com/en/api/rate-limits#response-headers>
const MESSAGES_REQUESTS: Names = [
    HeaderName::from_static("anthropic-ratelimit-requests-limit"),
    HeaderName::from_static("anthropic-ratelimit-requests-remaining"),
    HeaderName::from_static("anthropic-ratelimit-requests-reset"),
];
const MESSAGES_TOKENS: Names = [
    HeaderName::from_static("anthropic-ratelimit-tokens-limit"),
    HeaderName::from_static("anthropic-ratelimit-tokens-remaining"),
    HeaderName::from_static("anthropic-ratelimit-tokens-reset"),
];
/// OpenAI's names, with the reset as a length of time (`6m0s`). Gemini's API has none; these are what most
/// libraries look for. <https://platform.openai.com/docs/guides/rate-limits#rate-limits-in-headers>
const OPENAI_REQUESTS: Names = [
    HeaderName::from_static("x-ratelimit-limit-requests"),
    HeaderName::from_static("x-ratelimit-remaining-requests"),
    HeaderName::from_static("x-ratelimit-reset-requests"),
];
const OPENAI_TOKENS: Names = [
    HeaderName::from_static("x-ratelimit-limit-tokens"),
    HeaderName::from_static("x-ratelimit-remaining-tokens"),
    HeaderName::from_static("x-ratelimit-reset-tokens"),
];
/// No vendor tells of money; amounts are dollars, the reset is a time.
const COST: Names = [
    HeaderName::from_static("x-relay-cost-limit"),
    HeaderName::from_static("x-relay-cost-remaining"),
    HeaderName::from_static("x-relay-cost-reset"),
];

/// The headers for what is left. They stand in place of the upstream's, which tell of the account's own limits; where
/// ours has no value, the upstream's goes all the same.
pub fn left_headers(
    protocol: Protocol,
    left: &Left,
    now: Timestamp,
) -> Option<[(HeaderName, Option<HeaderValue>); 3]> {
    let is_messages = protocol == Protocol::Messages;
    let names = match left.metric {
        Metric::Requests if is_messages => MESSAGES_REQUESTS,
        Metric::Requests => OPENAI_REQUESTS,
        Metric::Tokens if is_messages => MESSAGES_TOKENS,
        Metric::Tokens => OPENAI_TOKENS,
        Metric::Cost => COST,
        Metric::Concurrent => return None,
    };
    let amount = |amount: u64| match left.metric {
        Metric::Cost => NanoUsd::from_counted(amount).to_decimal().parse().ok(),
        Metric::Requests | Metric::Tokens | Metric::Concurrent => Some(HeaderValue::from(amount)),
    };
    let reset = left.resets_at.and_then(|at| match left.metric {
        Metric::Requests | Metric::Tokens if !is_messages => length(at.since(now).as_secs()).parse().ok(),
        _ => at.to_string().parse().ok(),
    });
    let [limit, remaining, resets] = names;
    Some([(limit, amount(left.limit)), (remaining, amount(left.left)), (resets, reset)])
}

/// A length of time as OpenAI writes it: `1h2m3s`, `6m0s`, `12s`.
fn length(seconds: u64) -> String {
    let (hours, minutes, rest) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, minutes) => format!("{minutes}m{rest}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{rest}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_protocol_has_its_own_form() {
        let now = Timestamp::from_millis(1_795_000_000_000);
        let resets_at = Some(Timestamp::from_millis(1_795_000_360_000));
        for (protocol, metric, resets_at, expected) in [
            (
                Protocol::Messages,
                Metric::Requests,
                resets_at,
                "anthropic-ratelimit-requests-limit=60 anthropic-ratelimit-requests-remaining=7 \
                 anthropic-ratelimit-requests-reset=2026-11-18T11:12:40Z",
            ),
            (
                Protocol::Messages,
                Metric::Tokens,
                None,
                "anthropic-ratelimit-tokens-limit=60 anthropic-ratelimit-tokens-remaining=7 \
                 anthropic-ratelimit-tokens-reset=",
            ),
            (
                Protocol::Responses,
                Metric::Requests,
                resets_at,
                "x-ratelimit-limit-requests=60 x-ratelimit-remaining-requests=7 x-ratelimit-reset-requests=6m0s",
            ),
            (
                Protocol::GenerateContent,
                Metric::Tokens,
                resets_at,
                "x-ratelimit-limit-tokens=60 x-ratelimit-remaining-tokens=7 x-ratelimit-reset-tokens=6m0s",
            ),
            (
                Protocol::ChatCompletions,
                Metric::Cost,
                resets_at,
                "x-relay-cost-limit=0.00000006 x-relay-cost-remaining=0.000000007 \
                 x-relay-cost-reset=2026-11-18T11:12:40Z",
            ),
        ] {
            let headers =
                left_headers(protocol, &Left { metric, limit: 60, left: 7, resets_at }, now).unwrap();
            let text = headers.map(|(name, value)| {
                format!("{name}={}", value.as_ref().map_or("", |value| value.to_str().unwrap()))
            });
            assert_eq!(text.join(" "), expected);
        }
        let open = Left { metric: Metric::Concurrent, limit: 4, left: 1, resets_at: None };
        assert_eq!(left_headers(Protocol::Messages, &open, now), None);
    }

    #[test]
    fn lengths_are_written_in_their_largest_units() {
        for (seconds, text) in [(0, "0s"), (59, "59s"), (60, "1m0s"), (3_599, "59m59s"), (3_600, "1h0m0s")] {
            assert_eq!(length(seconds), text);
        }
    }
}
