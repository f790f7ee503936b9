//! `openai-responses`: OpenAI's API and everything compatible with it, with an API key.

use http::{Request, header};
use shared::domain::{Account, Operation, Protocol};
use shared::redact::Secret;

use super::{Access, Call, Caller, Provider, ProviderError, bearer, get, post, undated_query, versioned};
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

    fn access(&self, account: &Account, secret: &Secret) -> Result<Access, ProviderError> {
        Ok(Access::new(account, &base(&account.base_url))?.with(header::AUTHORIZATION, bearer(secret)?))
    }

    fn request(&self, caller: Caller<'_>, call: Call<'_>) -> Result<Request<Splice>, ProviderError> {
        let path = match (call.protocol, call.operation) {
            (Protocol::Responses, Operation::Generate) => "/responses",
            (Protocol::ChatCompletions, Operation::Generate) => "/chat/completions",
            (Protocol::ChatCompletions, Operation::Embed) => "/embeddings",
            (other, _) => return Err(ProviderError::NotSpoken(other)),
        };
        post(caller.access, [caller.access.path(), path].concat(), undated_query, call)
    }

    fn probe(&self, caller: Caller<'_>) -> Result<Request<Splice>, ProviderError> {
        get(caller.access, [caller.access.path(), "/models"].concat())
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
