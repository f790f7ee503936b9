//! `claude-console` and `ccr`: Anthropic's API and everything compatible with it, with an API key. That clients
//! ask a claude-code-router for `ccr,<model>` is the account's business, not the wire's.

use http::{HeaderMap, HeaderName, HeaderValue, Request, header};
use shared::domain::{Account, Operation, Protocol};
use shared::redact::Secret;

use super::{
    Access, Call, Caller, ErrorReply, Provider, ProviderError, bearer, error_message, get, outcome_by_status,
    post, sensitive, versioned, whole_query,
};
use crate::protocol::Splice;
use crate::scheduler::health::Outcome;

/// The version that is asked for when the client names none (documentation of the Messages API, "Versions").
const VERSION: HeaderValue = HeaderValue::from_static("2023-06-01");
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

    /// Anthropic's own keys go in `x-api-key`; compatible servers expect theirs as a bearer token.
    fn access(&self, account: &Account, secret: &Secret) -> Result<Access, ProviderError> {
        let access = Access::new(account, &endpoint(&account.base_url))?;
        Ok(match secret.expose().starts_with("sk-ant-") {
            true => access.with(API_KEY, sensitive(secret.expose())?),
            false => access.with(header::AUTHORIZATION, bearer(secret)?),
        })
    }

    fn request(&self, caller: Caller<'_>, call: Call<'_>) -> Result<Request<Splice>, ProviderError> {
        let path = match (call.protocol, call.operation) {
            (Protocol::Messages, Operation::Generate) => "",
            (Protocol::Messages, Operation::CountTokens) => "/count_tokens",
            (other, _) => return Err(ProviderError::NotSpoken(other)),
        };
        let path = [caller.access.path(), path].concat();
        let mut request = post(caller.access, path, whole_query, call)?;
        name_version(request.headers_mut());
        Ok(request)
    }

    fn probe(&self, caller: Caller<'_>) -> Result<Request<Splice>, ProviderError> {
        let path = caller.access.path();
        let path = [path.strip_suffix("/messages").unwrap_or(path), "/models"].concat();
        let mut request = get(caller.access, path)?;
        name_version(request.headers_mut());
        Ok(request)
    }

    /// That the account has no credit left is answered with 400, like a mistake of the client.
    fn outcome(&self, reply: &ErrorReply<'_>) -> Outcome {
        if reply.status == 400 && is_out_of_credit(&error_message(reply.body)) {
            return Outcome::AuthFailed { status: 402 };
        }
        outcome_by_status(reply)
    }
}

/// "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or purchase
/// credits." Messages repeat names that the client made up, but go on after them: so both ends have to fit.
fn is_out_of_credit(message: &str) -> bool {
    message.starts_with("Your credit balance is too low") && message.ends_with("purchase credits.")
}

/// The base URL may be written with or without `/v1` and `/messages`.
fn endpoint(base_url: &str) -> String {
    let base = base_url.trim_end_matches('/');
    if base.ends_with("/messages") { base.to_owned() } else { versioned(base, "v1") + "/messages" }
}

fn name_version(headers: &mut HeaderMap) {
    headers.entry(ANTHROPIC_VERSION).or_insert(VERSION);
}
