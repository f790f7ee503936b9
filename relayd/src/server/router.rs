//! Method and path to a [`Route`]. It looks at nothing but these and the few headers that tell two clients of
//! one path apart; it says nothing about keys, accounts or bodies.

use http::{HeaderMap, Method};
use shared::domain::{AccountKind, Operation, Protocol};

use crate::near::nearest;
use crate::percent::decode;
use crate::provider::GeminiMethod;
use crate::relay::Target;

/// What a client wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// A call to relay.
    Relay(Target),
    /// The models that the key can reach.
    Models(Listing),
    /// One of them.
    Model(Listing, String),
    /// What the key's owner may know of it.
    KeyInfo(OwnerView),
    /// Telemetry of a client: taken and thrown away.
    EventLogging,
    /// How the relay is.
    Health,
    /// A greeting: clients probe their base URL.
    Greeting,
}

/// Which models are asked about, and how they are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The protocol's form.
    pub protocol: Protocol,
    /// The only kind of account whose models the path leads to.
    pub only: Option<AccountKind>,
}

/// The forms in which key owners ask about their key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerView {
    /// `GET /v1/key-info`.
    KeyInfo,
    /// `GET /v1/usage`.
    Usage,
    /// `GET /v1/me`.
    Me,
    /// `GET /v1/organizations/{id}/usage`.
    Credit,
    /// `GET /openai/key-info`, `/gemini/key-info`.
    OpenaiKeyInfo,
    /// `GET /openai/usage`, `/gemini/usage`, `/azure/usage`.
    OpenaiUsage,
}

/// Why there is no route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoRoute {
    /// Nothing is at this path.
    Unknown {
        /// The route that may be meant.
        nearest: Option<&'static str>,
    },
    /// The path is known, but not with this method.
    Method {
        /// The methods that it has.
        allowed: &'static str,
    },
}

/// Every route as it is named to people, to find the nearest one to a mistyped path.
const NAMED: &[&str] = &[
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/models",
    "/v1/key-info",
    "/v1/usage",
    "/v1/me",
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/embeddings",
    "/v1beta/models",
    "/v1beta/models/{model}:generateContent",
    "/v1beta/models/{model}:streamGenerateContent",
    "/api/v1/messages",
    "/api/v1/messages/count_tokens",
    "/api/v1/models",
    "/api/v1/key-info",
    "/api/v1/usage",
    "/api/v1/me",
    "/claude/v1/messages",
    "/claude/v1/messages/count_tokens",
    "/claude/v1/models",
    "/openai/v1/chat/completions",
    "/openai/v1/responses",
    "/openai/v1/embeddings",
    "/openai/v1/models",
    "/openai/responses",
    "/openai/usage",
    "/openai/key-info",
    "/gemini/v1beta/models",
    "/gemini/v1beta/models/{model}:generateContent",
    "/gemini/v1beta/models/{model}:streamGenerateContent",
    "/gemini/usage",
    "/gemini/key-info",
    "/azure/chat/completions",
    "/azure/responses",
    "/azure/embeddings",
    "/azure/models",
    "/azure/usage",
    "/health",
];

/// Finds the route of a request.
pub fn route(method: &Method, path: &str, headers: &HeaderMap) -> Result<Route, NoRoute> {
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let found = find(&segments, headers).filter(|found| !lacks_method(method, found));
    let found = found.ok_or_else(|| NoRoute::Unknown {
        nearest: nearest(path, NAMED.iter().map(|named| (named, *named))),
    })?;
    let (is_allowed, allowed) = match found {
        Route::Relay(_) | Route::EventLogging => (method == Method::POST, "POST"),
        Route::Models(_) | Route::Model(..) | Route::KeyInfo(_) | Route::Health | Route::Greeting => {
            (method == Method::GET || method == Method::HEAD, "GET, HEAD")
        }
    };
    if is_allowed { Ok(found) } else { Err(NoRoute::Method { allowed }) }
}

/// Whoever posts to a model with a colon in its name means a method of it that there is not.
fn lacks_method(method: &Method, found: &Route) -> bool {
    method == Method::POST && matches!(found, Route::Model(_, name) if name.contains(':'))
}

fn find(segments: &[&str], headers: &HeaderMap) -> Option<Route> {
    match segments {
        [] | ["api" | "claude" | "openai" | "gemini"] => Some(Route::Greeting),
        ["health"] | [_, "health"] => Some(Route::Health),
        ["api" | "claude", "claude", rest @ ..] | ["api" | "claude", rest @ ..] => {
            anthropic(rest, headers).or_else(|| openai(rest, None))
        }
        ["openai", "deployments", deployment, rest @ ..] => deployed(deployment, rest, None),
        ["openai", "key-info"] | ["gemini", "key-info"] => Some(Route::KeyInfo(OwnerView::OpenaiKeyInfo)),
        ["openai" | "gemini" | "azure", "usage"] => Some(Route::KeyInfo(OwnerView::OpenaiUsage)),
        ["openai", rest @ ..] => openai(rest, None),
        ["azure", rest @ ..] => azure(rest),
        ["gemini", "models"] => Some(Route::Models(listing(Protocol::GenerateContent, None))),
        ["gemini", rest @ ..] => gemini(rest),
        bare => anthropic(bare, headers).or_else(|| openai(bare, None)).or_else(|| gemini(bare)),
    }
}

fn relay(protocol: Protocol, operation: Operation) -> Route {
    Route::Relay(Target { protocol, operation, only: None, model: None, gemini: None })
}

const fn listing(protocol: Protocol, only: Option<AccountKind>) -> Listing {
    Listing { protocol, only }
}

fn anthropic(segments: &[&str], headers: &HeaderMap) -> Option<Route> {
    Some(match segments {
        ["v1", "messages"] => relay(Protocol::Messages, Operation::Generate),
        ["v1", "messages", "count_tokens"] => relay(Protocol::Messages, Operation::CountTokens),
        ["v1", "models"] => Route::Models(listing(speaker(headers), None)),
        ["v1", "models", id @ ..] if !id.is_empty() => {
            Route::Model(listing(speaker(headers), None), model(id)?)
        }
        ["v1", "key-info"] => Route::KeyInfo(OwnerView::KeyInfo),
        ["v1", "usage"] => Route::KeyInfo(OwnerView::Usage),
        ["v1", "me"] => Route::KeyInfo(OwnerView::Me),
        ["v1", "organizations", _, "usage"] => Route::KeyInfo(OwnerView::Credit),
        ["api", "event_logging", "batch"] | ["event_logging", "batch"] => Route::EventLogging,
        _ => return None,
    })
}

/// The model that these segments name; none if they name one of Gemini's methods, too. Many names have colons.
fn model(segments: &[&str]) -> Option<String> {
    let name = segments.join("/");
    let name = decode(&name);
    gemini_method(&name).is_none().then(|| name.into_owned())
}

/// Who is asking at a path that three protocols share.
fn speaker(headers: &HeaderMap) -> Protocol {
    if headers.contains_key("x-goog-api-key") {
        Protocol::GenerateContent
    } else if headers.contains_key("anthropic-version") || headers.contains_key("x-api-key") {
        Protocol::Messages
    } else {
        Protocol::ChatCompletions
    }
}

fn openai(segments: &[&str], only: Option<AccountKind>) -> Option<Route> {
    let rest = match segments {
        ["v1", rest @ ..] => rest,
        rest => rest,
    };
    let (protocol, operation) = match rest {
        ["chat", "completions"] => (Protocol::ChatCompletions, Operation::Generate),
        ["responses"] => (Protocol::Responses, Operation::Generate),
        ["embeddings"] => (Protocol::ChatCompletions, Operation::Embed),
        ["models"] => return Some(Route::Models(listing(Protocol::ChatCompletions, only))),
        ["models", id @ ..] if !id.is_empty() => {
            return Some(Route::Model(listing(Protocol::ChatCompletions, only), model(id)?));
        }
        _ => return None,
    };
    Some(Route::Relay(Target { protocol, operation, only, model: None, gemini: None }))
}

fn azure(segments: &[&str]) -> Option<Route> {
    const ONLY: Option<AccountKind> = Some(AccountKind::AzureOpenai);
    match segments {
        ["openai", "deployments", deployment, rest @ ..] | ["deployments", deployment, rest @ ..] => {
            deployed(deployment, rest, ONLY)
        }
        ["openai", rest @ ..] | rest => openai(rest, ONLY),
    }
}

/// The Azure SDK's form: the path names the model, and the body's `model` does not count.
fn deployed(deployment: &str, rest: &[&str], only: Option<AccountKind>) -> Option<Route> {
    let operation = match rest {
        ["chat", "completions"] => Operation::Generate,
        ["embeddings"] => Operation::Embed,
        _ => return None,
    };
    let model = Some(decode(deployment).into_owned());
    Some(Route::Relay(Target { protocol: Protocol::ChatCompletions, operation, only, model, gemini: None }))
}

fn gemini(segments: &[&str]) -> Option<Route> {
    let (version, rest) = match segments {
        ["v1", rest @ ..] => ("v1", rest),
        ["v1beta", rest @ ..] => ("v1beta", rest),
        _ => return None,
    };
    let name = match rest {
        ["models"] => return Some(Route::Models(listing(Protocol::GenerateContent, None))),
        ["models", name @ ..] if !name.is_empty() => name.join("/"),
        ["tunedModels", ..] => rest.join("/"),
        _ => return None,
    };
    let name = decode(&name);
    let name = name.strip_prefix("models/").unwrap_or(&name);
    let Some((model, name, operation)) = gemini_method(name) else {
        return Some(Route::Model(listing(Protocol::GenerateContent, None), name.to_owned()));
    };
    Some(Route::Relay(Target {
        protocol: Protocol::GenerateContent,
        operation,
        only: None,
        model: Some(model.to_owned()),
        gemini: Some(GeminiMethod { version, name }),
    }))
}

/// A model with one of Gemini's methods behind it.
fn gemini_method(name: &str) -> Option<(&str, &'static str, Operation)> {
    let (model, method) = name.rsplit_once(':')?;
    let (method, operation) = match method {
        "generateContent" => ("generateContent", Operation::Generate),
        "streamGenerateContent" => ("streamGenerateContent", Operation::Generate),
        "countTokens" => ("countTokens", Operation::CountTokens),
        "embedContent" => ("embedContent", Operation::Embed),
        "batchEmbedContents" => ("batchEmbedContents", Operation::Embed),
        _ => return None,
    };
    Some((model, method, operation))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(names: &[&'static str]) -> HeaderMap {
        names
            .iter()
            .map(|&name| (http::HeaderName::from_static(name), http::HeaderValue::from_static("x")))
            .collect()
    }

    fn at(method: &Method, path: &str) -> Result<Route, NoRoute> {
        route(method, path, &HeaderMap::new())
    }

    fn target(path: &str) -> Target {
        match at(&Method::POST, path) {
            Ok(Route::Relay(target)) => target,
            other => panic!("{path}: {other:?}"),
        }
    }

    #[test]
    fn every_path_of_a_protocol_leads_to_it() {
        use Operation::{CountTokens, Embed, Generate};
        use Protocol::{ChatCompletions, GenerateContent, Messages, Responses};
        for (paths, protocol, operation) in [
            (
                &[
                    "/v1/messages",
                    "/api/v1/messages",
                    "/claude/v1/messages",
                    "/api/claude/v1/messages",
                    "//v1//messages",
                ][..],
                Messages,
                Generate,
            ),
            (&["/v1/messages/count_tokens", "/api/v1/messages/count_tokens"], Messages, CountTokens),
            (
                &[
                    "/v1/chat/completions",
                    "/openai/v1/chat/completions",
                    "/openai/chat/completions",
                    "/chat/completions",
                    "/azure/chat/completions",
                    "/api/v1/chat/completions",
                ],
                ChatCompletions,
                Generate,
            ),
            (
                &["/v1/responses", "/openai/responses", "/openai/v1/responses", "/azure/openai/responses"],
                Responses,
                Generate,
            ),
            (&["/v1/embeddings", "/openai/embeddings", "/azure/embeddings"], ChatCompletions, Embed),
            (
                &[
                    "/v1beta/models/gemini-3:generateContent",
                    "/gemini/v1/models/gemini-3:streamGenerateContent",
                    "/v1/models/gemini-3:generateContent",
                ],
                GenerateContent,
                Generate,
            ),
            (&["/gemini/v1beta/models/gemini-3:countTokens"], GenerateContent, CountTokens),
            (
                &["/gemini/v1beta/models/e:batchEmbedContents", "/v1beta/models/e:embedContent"],
                GenerateContent,
                Embed,
            ),
        ] {
            for path in paths {
                let target = target(path);
                assert_eq!((target.protocol, target.operation), (protocol, operation), "{path}");
                assert_eq!(target.only.is_some(), path.starts_with("/azure"), "{path}");
            }
        }
    }

    #[test]
    fn models_are_read_from_paths() {
        for (path, model) in [
            ("/v1beta/models/gemini-3:generateContent", "gemini-3"),
            ("/v1beta/models/models/gemini-3:generateContent", "gemini-3"),
            ("/v1beta/models/gemini-3%3AgenerateContent", "gemini-3"),
            ("/v1beta/tunedModels/mine:generateContent", "tunedModels/mine"),
            ("/v1beta/models/a:b:generateContent", "a:b"),
            ("/openai/deployments/my%20gpt/chat/completions", "my gpt"),
            ("/azure/openai/deployments/gpt/embeddings", "gpt"),
            ("/azure/deployments/gpt/chat/completions", "gpt"),
        ] {
            assert_eq!(target(path).model.as_deref(), Some(model), "{path}");
        }
    }

    #[test]
    fn a_colon_names_a_method_only_where_it_is_one() {
        let model = |protocol, name: &str| Ok(Route::Model(listing(protocol, None), name.to_owned()));
        for (path, protocol, name) in [
            ("/v1/models/ft:gpt-4o:org::id", Protocol::ChatCompletions, "ft:gpt-4o:org::id"),
            ("/v1/models/ft%3Agpt-4o:org::id", Protocol::ChatCompletions, "ft:gpt-4o:org::id"),
            ("/openai/v1/models/ft:gpt-4o:org::id", Protocol::ChatCompletions, "ft:gpt-4o:org::id"),
            ("/openai/models/a/b:c", Protocol::ChatCompletions, "a/b:c"),
            ("/api/v1/models/ft:x", Protocol::ChatCompletions, "ft:x"),
            ("/v1beta/models/a:b", Protocol::GenerateContent, "a:b"),
            ("/gemini/v1/models/a:b", Protocol::GenerateContent, "a:b"),
        ] {
            assert_eq!(at(&Method::GET, path), model(protocol, name), "{path}");
            assert!(at(&Method::POST, path).is_err(), "{path}");
        }
        for path in [
            "/v1/models/m%3AgenerateContent",
            "/v1/models/m:generateContent",
            "/v1/models/ft:m%3aembedContent",
            "/v1beta/models/m%3AstreamGenerateContent",
        ] {
            assert_eq!(target(path).protocol, Protocol::GenerateContent, "{path}");
            assert_eq!(at(&Method::GET, path), Err(NoRoute::Method { allowed: "POST" }), "{path}");
        }
    }

    #[test]
    fn shared_paths_answer_in_the_callers_form() {
        for (sent, protocol) in [
            (&["anthropic-version"][..], Protocol::Messages),
            (&["x-api-key"], Protocol::Messages),
            (&["x-goog-api-key"], Protocol::GenerateContent),
            (&["authorization"], Protocol::ChatCompletions),
            (&["authorization", "anthropic-version"], Protocol::Messages),
        ] {
            assert_eq!(
                route(&Method::GET, "/v1/models", &headers(sent)),
                Ok(Route::Models(listing(protocol, None)))
            );
        }
        assert_eq!(
            at(&Method::GET, "/openai/v1/models/ft%3Agpt/x"),
            Ok(Route::Model(listing(Protocol::ChatCompletions, None), "ft:gpt/x".to_owned()))
        );
        let azure = Some(AccountKind::AzureOpenai);
        for (path, route) in [
            ("/azure/models", Route::Models(listing(Protocol::ChatCompletions, azure))),
            (
                "/azure/openai/models/gpt-5",
                Route::Model(listing(Protocol::ChatCompletions, azure), "gpt-5".to_owned()),
            ),
            ("/openai/models", Route::Models(listing(Protocol::ChatCompletions, None))),
        ] {
            assert_eq!(at(&Method::GET, path), Ok(route), "{path}");
        }
    }

    #[test]
    fn wrong_paths_name_the_nearest_route_and_wrong_methods_the_right_ones() {
        for (path, nearest) in [
            ("/v1/mesages", Some("/v1/messages")),
            ("/v1/chat/completion", Some("/v1/chat/completions")),
            ("/api/v1/message", Some("/api/v1/messages")),
            ("/V1/Messages", Some("/v1/messages")),
            ("/gemini/v1beta/model", Some("/gemini/v1beta/models")),
            ("/v1beta/models/gemini-3:generatContent", Some("/v1beta/models/{model}:generateContent")),
            ("/favicon.ico", None),
            ("/v1", None),
            ("/v2/complete", None),
        ] {
            assert_eq!(at(&Method::POST, path), Err(NoRoute::Unknown { nearest }), "{path}");
        }
        assert_eq!(at(&Method::GET, "/v1/messages"), Err(NoRoute::Method { allowed: "POST" }));
        assert_eq!(at(&Method::POST, "/health"), Err(NoRoute::Method { allowed: "GET, HEAD" }));
        assert_eq!(at(&Method::HEAD, "/api"), Ok(Route::Greeting));
    }
}
