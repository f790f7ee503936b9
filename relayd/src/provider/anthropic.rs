//! `claude-console`: Anthropic's API and everything compatible with it, with an API key.

use http::Request;
use shared::domain::{Operation, Protocol};

use super::{Call, Caller, Provider, ProviderError, messages};
use crate::protocol::Splice;

pub(super) struct Anthropic;

impl Provider for Anthropic {
    fn speaks(&self, operation: Operation) -> &'static [Protocol] {
        match operation {
            Operation::Generate | Operation::CountTokens => &[Protocol::Messages],
            Operation::Embed => &[],
        }
    }

    fn request(&self, caller: Caller<'_>, call: Call<'_>) -> Result<Request<Splice>, ProviderError> {
        messages::request(caller, call)
    }

    fn probe(&self, caller: Caller<'_>) -> Result<Request<Splice>, ProviderError> {
        messages::models(caller)
    }
}
