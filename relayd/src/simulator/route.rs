//! What a request asks for, told from its method, path and query.

use http::{HeaderMap, Method, Uri};
use shared::domain::Protocol;

/// A question that the simulator can answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint<'a> {
    /// An answer from a model.
    Generate(Dialect<'a>),
    /// The number of tokens of a prompt.
    CountTokens(Dialect<'a>),
    /// Vectors in OpenAI's form.
    Embeddings,
    /// One vector in Gemini's form.
    EmbedContent { model: &'a str },
    /// Several vectors in Gemini's form.
    BatchEmbedContents { model: &'a str },
    /// The list of models in a protocol's form.
    Models(Protocol),
}

/// A protocol with what its address says about the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect<'a> {
    /// Anthropic Messages.
    Messages,
    /// OpenAI Chat Completions.
    ChatCompletions,
    /// OpenAI Responses.
    Responses,
    /// Gemini, whose address names the model and the way to answer.
    GenerateContent { model: &'a str, delivery: Delivery },
}

/// How a Gemini answer is to be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    /// In one piece.
    Whole,
    /// As server-sent events.
    Events,
    /// As the elements of one JSON array.
    Array,
}

impl Dialect<'_> {
    /// The protocol that is spoken.
    pub(super) const fn protocol(self) -> Protocol {
        match self {
            Self::Messages => Protocol::Messages,
            Self::ChatCompletions => Protocol::ChatCompletions,
            Self::Responses => Protocol::Responses,
            Self::GenerateContent { .. } => Protocol::GenerateContent,
        }
    }
}

impl<'a> Endpoint<'a> {
    /// Finds the endpoint; `None` where there is nothing at this address.
    pub(super) fn of(method: &Method, uri: &'a Uri, headers: &HeaderMap) -> Option<Self> {
        match (method.as_str(), uri.path()) {
            ("POST", "/v1/messages") => Some(Self::Generate(Dialect::Messages)),
            ("POST", "/v1/messages/count_tokens") => Some(Self::CountTokens(Dialect::Messages)),
            ("POST", "/v1/chat/completions") => Some(Self::Generate(Dialect::ChatCompletions)),
            ("POST", "/v1/responses") => Some(Self::Generate(Dialect::Responses)),
            ("POST", "/v1/embeddings") => Some(Self::Embeddings),
            ("GET", "/v1/models") => Some(Self::Models(lister(headers))),
            ("GET", "/v1beta/models") => Some(Self::Models(Protocol::GenerateContent)),
            ("POST", path) => Self::of_gemini(path, uri.query().unwrap_or_default()),
            _ => None,
        }
    }

    fn of_gemini(path: &'a str, query: &str) -> Option<Self> {
        let rest = path.strip_prefix("/v1beta/models/").or_else(|| path.strip_prefix("/v1/models/"))?;
        let (model, method) = rest.rsplit_once(':')?;
        let generate = |delivery| Dialect::GenerateContent { model, delivery };
        match method {
            "generateContent" => Some(Self::Generate(generate(Delivery::Whole))),
            "streamGenerateContent" if has_alt_sse(query) => Some(Self::Generate(generate(Delivery::Events))),
            "streamGenerateContent" => Some(Self::Generate(generate(Delivery::Array))),
            "countTokens" => Some(Self::CountTokens(generate(Delivery::Whole))),
            "embedContent" => Some(Self::EmbedContent { model }),
            "batchEmbedContents" => Some(Self::BatchEmbedContents { model }),
            _ => None,
        }
    }

    /// The protocol in whose form a failure is told.
    pub(super) const fn protocol(self) -> Protocol {
        match self {
            Self::Generate(dialect) | Self::CountTokens(dialect) => dialect.protocol(),
            Self::Embeddings => Protocol::ChatCompletions,
            Self::EmbedContent { .. } | Self::BatchEmbedContents { .. } => Protocol::GenerateContent,
            Self::Models(protocol) => protocol,
        }
    }
}

/// Whose form a list of models is wanted in, where all vendors have it at one address.
fn lister(headers: &HeaderMap) -> Protocol {
    if headers.contains_key("anthropic-version") {
        Protocol::Messages
    } else if headers.contains_key("x-goog-api-key") {
        Protocol::GenerateContent
    } else {
        Protocol::ChatCompletions
    }
}

fn has_alt_sse(query: &str) -> bool {
    query.split('&').any(|pair| matches!(pair, "alt=sse" | "$alt=sse" | "%24alt=sse"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_name_endpoints() {
        let gemini = |delivery| Dialect::GenerateContent { model: "sim-echo", delivery };
        for (method, uri, expected) in [
            ("POST", "/v1/messages?beta=true", Some(Endpoint::Generate(Dialect::Messages))),
            ("POST", "/v1/messages/count_tokens", Some(Endpoint::CountTokens(Dialect::Messages))),
            ("POST", "/v1/chat/completions", Some(Endpoint::Generate(Dialect::ChatCompletions))),
            ("POST", "/v1/responses", Some(Endpoint::Generate(Dialect::Responses))),
            ("POST", "/v1/embeddings", Some(Endpoint::Embeddings)),
            ("GET", "/v1/models", Some(Endpoint::Models(Protocol::ChatCompletions))),
            ("GET", "/v1beta/models?pageSize=5", Some(Endpoint::Models(Protocol::GenerateContent))),
            (
                "POST",
                "/v1beta/models/sim-echo:generateContent",
                Some(Endpoint::Generate(gemini(Delivery::Whole))),
            ),
            (
                "POST",
                "/v1/models/sim-echo:streamGenerateContent?key=k&alt=sse",
                Some(Endpoint::Generate(gemini(Delivery::Events))),
            ),
            (
                "POST",
                "/v1beta/models/sim-echo:streamGenerateContent",
                Some(Endpoint::Generate(gemini(Delivery::Array))),
            ),
            (
                "POST",
                "/v1beta/models/sim-echo:countTokens",
                Some(Endpoint::CountTokens(gemini(Delivery::Whole))),
            ),
            ("POST", "/v1beta/models/a:b:embedContent", Some(Endpoint::EmbedContent { model: "a:b" })),
            (
                "POST",
                "/v1beta/models/sim-echo:batchEmbedContents",
                Some(Endpoint::BatchEmbedContents { model: "sim-echo" }),
            ),
            ("GET", "/v1/messages", None),
            ("POST", "/v1/models", None),
            ("POST", "/v1beta/models/sim-echo:tuneModel", None),
            ("POST", "/v1beta/models/sim-echo", None),
            ("POST", "/", None),
        ] {
            let (method, parsed) = (method.parse().unwrap(), uri.parse().unwrap());
            assert_eq!(Endpoint::of(&method, &parsed, &HeaderMap::new()), expected, "{uri}");
        }
    }
}
