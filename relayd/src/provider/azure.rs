//! `azure-openai`: deployments of Azure OpenAI, in the dated API. The account's model map names the deployment
//! that serves a model; without an entry the deployment has the model's name.

use http::{HeaderName, Request};
use shared::domain::{Account, Operation, Protocol};
use shared::redact::Secret;

use super::{
    Access, Call, Caller, Provider, ProviderError, get, path, path_segment, post, sensitive, undated_query,
};
use crate::protocol::Splice;

/// The last dated version that is generally available (Azure OpenAI REST reference, "API versions").
const VERSION: &str = "2024-10-21";
/// The first dated version that has the Responses API.
const RESPONSES_VERSION: &str = "2025-04-01-preview";

const API_KEY: HeaderName = HeaderName::from_static("api-key");

pub(super) struct Azure;

impl Provider for Azure {
    fn speaks(&self, operation: Operation) -> &'static [Protocol] {
        match operation {
            Operation::Generate => &[Protocol::ChatCompletions, Protocol::Responses],
            Operation::Embed => &[Protocol::ChatCompletions],
            Operation::CountTokens => &[],
        }
    }

    fn names_model_in_path(&self, protocol: Protocol) -> bool {
        protocol == Protocol::ChatCompletions
    }

    fn access(&self, account: &Account, secret: &Secret) -> Result<Access, ProviderError> {
        Ok(Access::new(account, &base(&account.base_url))?.with(API_KEY, sensitive(secret.expose())?))
    }

    fn request(&self, caller: Caller<'_>, call: Call<'_>) -> Result<Request<Splice>, ProviderError> {
        let deployment = path_segment(call.model);
        let (endpoint, default) = match (call.protocol, call.operation) {
            (Protocol::ChatCompletions, Operation::Generate) => {
                (format!("deployments/{deployment}/chat/completions"), VERSION)
            }
            (Protocol::ChatCompletions, Operation::Embed) => {
                (format!("deployments/{deployment}/embeddings"), VERSION)
            }
            (Protocol::Responses, Operation::Generate) => ("responses".to_owned(), RESPONSES_VERSION),
            (other, _) => return Err(ProviderError::NotSpoken(other)),
        };
        post(caller.access, dated(caller, &endpoint, default), undated_query, call)
    }

    fn probe(&self, caller: Caller<'_>) -> Result<Request<Splice>, ProviderError> {
        get(caller.access, dated(caller, "models", VERSION))
    }
}

/// The path of an endpoint, with the version that the account names or the default.
fn dated(caller: Caller<'_>, endpoint: &str, default: &str) -> String {
    let version = path_segment(caller.account.api_version.as_deref().unwrap_or(default));
    format!("{}/{endpoint}?api-version={version}", caller.access.path())
}

/// The resource's address with `/openai`, whatever the operator wrote of it: the portal shows addresses that go on
/// with `/v1`, or with a deployment.
fn base(base_url: &str) -> String {
    let url = base_url.trim_end_matches('/');
    let mut end = url.len() - path(url).len();
    for segment in path(url).split('/') {
        end += segment.len();
        if segment == "openai" {
            return url[..end].to_owned();
        }
        end += 1;
    }
    format!("{url}/openai")
}
