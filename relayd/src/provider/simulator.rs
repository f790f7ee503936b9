//! `simulator`: the vendor that lives in this process. It has no credential; how it behaves travels in a header.

use http::{HeaderName, HeaderValue, Request};
use shared::domain::{Account, Operation, Protocol};
use shared::redact::Secret;

use super::{Access, Call, Caller, Provider, ProviderError, get, path_segment, post, undated_query};
use crate::protocol::Splice;

const SETTINGS: HeaderName = HeaderName::from_static("x-simulator-settings");

pub(super) struct Simulator;

impl Provider for Simulator {
    fn speaks(&self, operation: Operation) -> &'static [Protocol] {
        match operation {
            Operation::Generate => &Protocol::ALL,
            Operation::CountTokens => &[Protocol::Messages, Protocol::GenerateContent],
            Operation::Embed => &[Protocol::ChatCompletions, Protocol::GenerateContent],
        }
    }

    fn access(&self, account: &Account, _: &Secret) -> Result<Access, ProviderError> {
        let access = Access::new(account, &account.base_url)?;
        let settings = account.simulator.and_then(|settings| serde_json::to_string(&settings).ok());
        Ok(match settings.and_then(|json| HeaderValue::try_from(json).ok()) {
            Some(settings) => access.with(SETTINGS, settings),
            None => access,
        })
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
        let path = [caller.access.path(), "/", &path].concat();
        post(caller.access, path, undated_query, call)
    }

    fn probe(&self, caller: Caller<'_>) -> Result<Request<Splice>, ProviderError> {
        get(caller.access, [caller.access.path(), "/v1/models"].concat())
    }
}
