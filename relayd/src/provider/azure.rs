//! `azure-openai`: deployments of Azure OpenAI, in the dated API. The account's model map names the deployment
//! that serves a model; without an entry the deployment has the model's name.

use http::{HeaderMap, HeaderValue, Method, Request, header};
use shared::domain::{Operation, Protocol};

use super::{Call, Caller, Provider, ProviderError, path, path_segment, sensitive, start, with_query};
use crate::protocol::Splice;

/// The last dated version that is generally available (Azure OpenAI REST reference, "API versions").
const VERSION: &str = "2024-10-21";
/// The first dated version that has the Responses API.
const RESPONSES_VERSION: &str = "2025-04-01-preview";

pub(super) struct Azure;

impl Provider for Azure {
    fn speaks(&self, operation: Operation) -> &'static [Protocol] {
        match operation {
            Operation::Generate => &[Protocol::ChatCompletions, Protocol::Responses],
            Operation::Embed => &[Protocol::ChatCompletions],
            Operation::CountTokens => &[],
        }
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
        let version = caller.account.api_version.as_deref().unwrap_or(default);
        let url = format!("{}/{endpoint}?api-version={}", base(caller), path_segment(version));
        let uri = with_query(url, call.query, &["api-version"]);
        let mut request = start(Method::POST, &uri, caller, call.headers).body(call.body)?;
        let headers = request.headers_mut();
        headers.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
        headers.insert("api-key", sensitive(caller.secret.expose())?);
        Ok(request)
    }

    fn probe(&self, caller: Caller<'_>) -> Result<Request<Splice>, ProviderError> {
        let version = caller.account.api_version.as_deref().unwrap_or(VERSION);
        let uri = format!("{}/models?api-version={}", base(caller), path_segment(version));
        let mut request = start(Method::GET, &uri, caller, &HeaderMap::new()).body(Splice::empty())?;
        request.headers_mut().insert("api-key", sensitive(caller.secret.expose())?);
        Ok(request)
    }
}

/// The resource's address with `/openai`, whatever the operator wrote of it: the portal shows addresses that go on
/// with `/v1`, or with a deployment.
fn base(caller: Caller<'_>) -> String {
    let url = caller.account.base_url.trim_end_matches('/');
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
