//! `openai-responses`: OpenAI's API and everything compatible with it, with an API key.

use http::{HeaderMap, HeaderValue, Method, Request, header};
use shared::domain::{Operation, Protocol};

use super::{Call, Caller, Provider, ProviderError, bearer, start, versioned, with_query};
use crate::protocol::Splice;

pub(super) struct Openai;

impl Provider for Openai {
    fn speaks(&self, operation: Operation) -> &'static [Protocol] {
        match operation {
            Operation::Generate => &[Protocol::Responses, Protocol::ChatCompletions],
            Operation::Embed => &[Protocol::ChatCompletions],
            Operation::CountTokens => &[],
        }
    }

    fn request(&self, caller: Caller<'_>, call: Call<'_>) -> Result<Request<Splice>, ProviderError> {
        let path = match (call.protocol, call.operation) {
            (Protocol::Responses, Operation::Generate) => "responses",
            (Protocol::ChatCompletions, Operation::Generate) => "chat/completions",
            (Protocol::ChatCompletions, Operation::Embed) => "embeddings",
            (other, _) => return Err(ProviderError::NotSpoken(other)),
        };
        let base = base(&caller.account.base_url);
        // `api-version` comes from clients built for Azure and means nothing here.
        let uri = with_query([&base, "/", path].concat(), call.query, &["api-version"]);
        let mut request = start(Method::POST, &uri, caller, call.headers).body(call.body)?;
        let headers = request.headers_mut();
        headers.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
        headers.insert(header::AUTHORIZATION, bearer(caller.secret)?);
        Ok(request)
    }

    fn probe(&self, caller: Caller<'_>) -> Result<Request<Splice>, ProviderError> {
        let uri = format!("{}/models", base(&caller.account.base_url));
        let mut request = start(Method::GET, &uri, caller, &HeaderMap::new()).body(Splice::empty())?;
        request.headers_mut().insert(header::AUTHORIZATION, bearer(caller.secret)?);
        Ok(request)
    }
}

/// The address in front of the endpoints. One that was given with an endpoint is taken as it stands; else the
/// version is added where it lacks. Gateways and Google serve this API below a versioned path that ends with
/// `/openai`, without a version of its own (documentation of the Gemini API, "OpenAI compatibility").
fn base(base_url: &str) -> String {
    let url = base_url.trim_end_matches('/');
    let endpoint =
        ["/responses", "/chat/completions", "/embeddings"].iter().find_map(|end| url.strip_suffix(end));
    if let Some(base) = endpoint {
        return base.to_owned();
    }
    let is_below_version = url.ends_with("/openai") && super::path(url).split('/').any(super::is_version);
    if is_below_version { url.to_owned() } else { versioned(url, "v1") }
}
