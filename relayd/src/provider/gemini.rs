//! `gemini-api`: Google's Gemini API with an API key.

use http::{HeaderName, Request};
use shared::domain::{Account, Operation, Protocol};
use shared::redact::Secret;

use super::{
    Access, Call, Caller, ErrorReply, Provider, ProviderError, get, outcome_by_status, path_segment, post,
    sensitive, versioned,
};
use crate::protocol::Splice;
use crate::scheduler::health::Outcome;

const API_KEY: HeaderName = HeaderName::from_static("x-goog-api-key");

pub(super) struct Gemini;

impl Provider for Gemini {
    fn speaks(&self, _operation: Operation) -> &'static [Protocol] {
        &[Protocol::GenerateContent]
    }

    fn access(&self, account: &Account, secret: &Secret) -> Result<Access, ProviderError> {
        let url = account.base_url.trim_end_matches('/').trim_end_matches("/models");
        Ok(Access::new(account, url)?.with(API_KEY, sensitive(secret.expose())?))
    }

    /// A version in the account's address wins over the one in the client's path.
    fn request(&self, caller: Caller<'_>, call: Call<'_>) -> Result<Request<Splice>, ProviderError> {
        let Some(method) = call.gemini else { return Err(ProviderError::NotSpoken(call.protocol)) };
        let base = versioned(caller.access.path(), method.version);
        let path = format!("{base}/{}:{}", model_path(call.model), method.name);
        post(caller.access, path, keeps, call)
    }

    fn probe(&self, caller: Caller<'_>) -> Result<Request<Splice>, ProviderError> {
        get(caller.access, versioned(caller.access.path(), "v1beta") + "/models")
    }

    /// A bad API key is answered with 400 and this reason (error reference of the Gemini API). A message that repeats
    /// what the client wrote has it in escaped quotes.
    fn outcome(&self, reply: &ErrorReply<'_>) -> Outcome {
        if reply.status == 400 && memchr::memmem::find(reply.body, b"\"API_KEY_INVALID\"").is_some() {
            return Outcome::AuthFailed { status: reply.status };
        }
        outcome_by_status(reply)
    }
}

/// Google lets a query choose fields and form of the reply, so that it would say nothing of usage any more, in any
/// spelling (`fields`, `$fields`, `alt=proto`; "Query parameters" of Google Cloud APIs). What does no such thing goes on.
fn keeps(pair: &str) -> bool {
    matches!(pair, "alt=sse" | "alt=json") || pair.starts_with("prettyPrint=")
}

/// A model's path. A tuned model's name has the collection of those in front; whatever else a client names is
/// one segment, so that no name leads to another part of the API.
fn model_path(model: &str) -> String {
    match model.split_once('/') {
        Some((collection @ ("models" | "tunedModels"), name)) => {
            format!("{collection}/{}", path_segment(name))
        }
        _ => format!("models/{}", path_segment(model)),
    }
}
