//! `gemini-api`: Google's Gemini API with an API key.

use http::{HeaderMap, HeaderValue, Method, Request, header};
use shared::domain::{Operation, Protocol};

use super::{
    Call, Caller, ErrorReply, Provider, ProviderError, outcome_by_status, path_segment, sensitive, start,
    with_query,
};
use crate::protocol::Splice;
use crate::scheduler::health::Outcome;

pub(super) struct Gemini;

impl Provider for Gemini {
    fn speaks(&self, _operation: Operation) -> &'static [Protocol] {
        &[Protocol::GenerateContent]
    }

    fn request(&self, caller: Caller<'_>, call: Call<'_>) -> Result<Request<Splice>, ProviderError> {
        let Some(method) = call.gemini else { return Err(ProviderError::NotSpoken(call.protocol)) };
        let url = format!("{}/{}:{}", base(caller, method.version), model_path(call.model), method.name);
        let uri = with_query(url, call.query, &[]);
        let mut request = start(Method::POST, &uri, caller, call.headers).body(call.body)?;
        let headers = request.headers_mut();
        headers.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
        headers.insert("x-goog-api-key", sensitive(caller.secret.expose())?);
        Ok(request)
    }

    fn probe(&self, caller: Caller<'_>) -> Result<Request<Splice>, ProviderError> {
        let uri = format!("{}/models", base(caller, "v1beta"));
        let mut request = start(Method::GET, &uri, caller, &HeaderMap::new()).body(Splice::empty())?;
        request.headers_mut().insert("x-goog-api-key", sensitive(caller.secret.expose())?);
        Ok(request)
    }

    /// A bad API key is answered with 400 and this reason (error reference of the Gemini API).
    fn outcome(&self, reply: &ErrorReply<'_>) -> Outcome {
        if reply.status == 400 && memchr::memmem::find(reply.body, b"API_KEY_INVALID").is_some() {
            return Outcome::AuthFailed { status: reply.status };
        }
        outcome_by_status(reply)
    }
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

/// A version in the account's address wins over the one in the client's path.
fn base(caller: Caller<'_>, version: &str) -> String {
    super::versioned(caller.account.base_url.trim_end_matches('/').trim_end_matches("/models"), version)
}
