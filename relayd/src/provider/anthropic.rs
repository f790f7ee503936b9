//! `claude-console` and `ccr`: Anthropic's API and everything compatible with it, with an API key. That clients
//! ask a claude-code-router for `ccr,<model>` is the account's business, not the wire's.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};
use shared::domain::{Operation, Protocol};

use super::{Call, Caller, Provider, ProviderError, bearer, sensitive, start, versioned, with_query};
use crate::protocol::Splice;

/// The version that is asked for when the client names none (documentation of the Messages API, "Versions").
const VERSION: &str = "2023-06-01";
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const ANTHROPIC_VERSION: HeaderName = HeaderName::from_static("anthropic-version");

pub(super) struct Anthropic;

impl Provider for Anthropic {
    fn speaks(&self, operation: Operation) -> &'static [Protocol] {
        match operation {
            Operation::Generate | Operation::CountTokens => &[Protocol::Messages],
            Operation::Embed => &[],
        }
    }

    fn request(&self, caller: Caller<'_>, call: Call<'_>) -> Result<Request<Splice>, ProviderError> {
        request(caller, call)
    }

    fn probe(&self, caller: Caller<'_>) -> Result<Request<Splice>, ProviderError> {
        models(caller)
    }
}

/// A Messages call to a server that follows Anthropic's API.
fn request(caller: Caller<'_>, call: Call<'_>) -> Result<Request<Splice>, ProviderError> {
    let path = match (call.protocol, call.operation) {
        (Protocol::Messages, Operation::Generate) => "",
        (Protocol::Messages, Operation::CountTokens) => "/count_tokens",
        (other, _) => return Err(ProviderError::NotSpoken(other)),
    };
    let uri = with_query(endpoint(&caller.account.base_url) + path, call.query, &[]);
    let mut request = start(Method::POST, &uri, caller, call.headers).body(call.body)?;
    let headers = request.headers_mut();
    headers.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
    authenticate(caller, headers)?;
    Ok(request)
}

/// A request for the list of models.
fn models(caller: Caller<'_>) -> Result<Request<Splice>, ProviderError> {
    let endpoint = endpoint(&caller.account.base_url);
    let uri = format!("{}/models", endpoint.strip_suffix("/messages").unwrap_or(&endpoint));
    let mut request = start(Method::GET, &uri, caller, &HeaderMap::new()).body(Splice::empty())?;
    authenticate(caller, request.headers_mut())?;
    Ok(request)
}

/// The base URL may be written with or without `/v1` and `/messages`.
fn endpoint(base_url: &str) -> String {
    let base = base_url.trim_end_matches('/');
    if base.ends_with("/messages") { base.to_owned() } else { versioned(base, "v1") + "/messages" }
}

/// Anthropic's own keys go in `x-api-key`; compatible servers expect theirs as a bearer token.
fn authenticate(caller: Caller<'_>, headers: &mut HeaderMap) -> Result<(), ProviderError> {
    let secret = caller.secret;
    if secret.expose().starts_with("sk-ant-") {
        headers.insert(API_KEY, sensitive(secret.expose())?);
    } else {
        headers.insert(header::AUTHORIZATION, bearer(secret)?);
    }
    headers.entry(ANTHROPIC_VERSION).or_insert(HeaderValue::from_static(VERSION));
    Ok(())
}
