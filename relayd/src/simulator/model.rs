//! The simulated models: what each name does, and the lists of them.

use http::StatusCode;
use serde_json::{Value, json};
use shared::domain::Protocol;

use super::figures::{CREATED_S, LONG_TOKENS_MAX};

/// What a model does with a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behaviour {
    /// Repeats the last text; what every unknown name does, too.
    Echo,
    /// Repeats the last text, twenty times as slowly.
    Slow,
    /// Calls the first tool that it is given.
    Tools,
    /// Talks until the client's limit.
    Long,
    /// Fails with a status.
    Fail(StatusCode),
}

/// The names that the lists show; errors of other statuses are had by name.
const LISTED: [&str; 6] = ["sim-echo", "sim-slow", "sim-tools", "sim-long", "sim-error-429", "sim-error-529"];

/// How much longer `sim-slow` waits than its account says.
const SLOWNESS: u32 = 20;

impl Behaviour {
    /// Reads a model's name, with or without Gemini's `models/`.
    pub(super) fn of(model: &str) -> Self {
        match model.strip_prefix("models/").unwrap_or(model) {
            "sim-slow" => Self::Slow,
            "sim-tools" => Self::Tools,
            "sim-long" => Self::Long,
            name => name.strip_prefix("sim-error-").and_then(failing).map_or(Self::Echo, Self::Fail),
        }
    }

    /// By what the waits are multiplied.
    pub(super) const fn slowness(self) -> u32 {
        match self {
            Self::Slow => SLOWNESS,
            Self::Echo | Self::Tools | Self::Long | Self::Fail(_) => 1,
        }
    }
}

fn failing(status: &str) -> Option<StatusCode> {
    let status = status.parse::<StatusCode>().ok()?;
    (400..=599).contains(&status.as_u16()).then_some(status)
}

/// The list of models in a protocol's form.
pub(super) fn list(protocol: Protocol) -> Value {
    match protocol {
        Protocol::Messages => json!({
            "data": LISTED.map(|id| json!({
                "type": "model",
                "id": id,
                "display_name": id,
                "created_at": "2026-01-01T00:00:00Z",
            })),
            "has_more": false,
            "first_id": LISTED.first(),
            "last_id": LISTED.last(),
        }),
        Protocol::ChatCompletions | Protocol::Responses => json!({
            "object": "list",
            "data": LISTED.map(|id| json!({
                "id": id,
                "object": "model",
                "created": CREATED_S,
                "owned_by": "simulator",
            })),
        }),
        Protocol::GenerateContent => json!({
            "models": LISTED.map(|id| json!({
                "name": format!("models/{id}"),
                "version": "1",
                "displayName": id,
                "description": "A simulated model",
                "inputTokenLimit": 1_000_000,
                "outputTokenLimit": LONG_TOKENS_MAX,
                "supportedGenerationMethods": ["generateContent", "countTokens", "embedContent"],
            })),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_what_a_model_does() {
        for (model, expected) in [
            ("sim-echo", Behaviour::Echo),
            ("models/sim-slow", Behaviour::Slow),
            ("sim-tools", Behaviour::Tools),
            ("sim-long", Behaviour::Long),
            ("sim-error-429", Behaviour::Fail(StatusCode::TOO_MANY_REQUESTS)),
            ("models/sim-error-400", Behaviour::Fail(StatusCode::BAD_REQUEST)),
            ("sim-error-200", Behaviour::Echo),
            ("sim-error-99999", Behaviour::Echo),
            ("sim-error-", Behaviour::Echo),
            ("sim-unheard-of", Behaviour::Echo),
            ("gpt-5", Behaviour::Echo),
            ("", Behaviour::Echo),
        ] {
            assert_eq!(Behaviour::of(model), expected, "{model}");
        }
    }

    #[test]
    fn lists_have_the_keys_that_clients_need() {
        let messages = list(Protocol::Messages);
        assert_eq!(messages["data"][0]["id"], "sim-echo");
        assert_eq!(messages["last_id"], "sim-error-529");
        assert_eq!(list(Protocol::ChatCompletions)["data"][0]["object"], "model");
        assert_eq!(list(Protocol::GenerateContent)["models"][0]["name"], "models/sim-echo");
    }
}
