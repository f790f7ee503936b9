//! `simulator`: the vendor that lives in this process. It has no credential; how it behaves travels in a header.

use http::{HeaderMap, HeaderValue, Method, Request, header};
use shared::domain::{Operation, Protocol};

use super::{Call, Caller, Provider, ProviderError, path_segment, start, with_query};
use crate::protocol::Splice;

pub(super) struct Simulator;

impl Provider for Simulator {
    fn speaks(&self, operation: Operation) -> &'static [Protocol] {
        match operation {
            Operation::Generate => &Protocol::ALL,
            Operation::CountTokens => &[Protocol::Messages, Protocol::GenerateContent],
            Operation::Embed => &[Protocol::ChatCompletions, Protocol::GenerateContent],
        }
    }

    fn request(&self, caller: Caller<'_>, call: Call<'_>) -> Result<Request<Splice>, ProviderError> {
        let path = match (call.protocol, call.operation) {
            (Protocol::Messages, Operation::Generate) => "v1/messages".to_owned(),
            (Protocol::Messages, Operation::CountTokens) => "v1/messages/count_tokens".to_owned(),
            (Protocol::ChatCompletions, Operation::Generate) => "v1/chat/completions".to_owned(),
            (Protocol::ChatCompletions, Operation::Embed) => "v1/embeddings".to_owned(),
            (Protocol::Responses, Operation::Generate) => "v1/responses".to_owned(),
            (other, _) => match call.gemini {
                Some(method) => format!("v1beta/models/{}:{}", path_segment(call.model), method.name),
                None => return Err(ProviderError::NotSpoken(other)),
            },
        };
        let uri = with_query(format!("{}/{path}", caller.account.base_url), call.query, &["api-version"]);
        let mut request = start(Method::POST, &uri, caller, call.headers).body(call.body)?;
        let headers = request.headers_mut();
        headers.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
        if let Some(settings) = caller.account.simulator
            && let Ok(json) = serde_json::to_string(&settings)
            && let Ok(value) = HeaderValue::try_from(json)
        {
            headers.insert("x-simulator-settings", value);
        }
        Ok(request)
    }

    fn probe(&self, caller: Caller<'_>) -> Result<Request<Splice>, ProviderError> {
        let uri = format!("{}/v1/models", caller.account.base_url);
        Ok(start(Method::GET, &uri, caller, &HeaderMap::new()).body(Splice::empty())?)
    }
}
