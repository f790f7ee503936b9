mod addresses;
mod headers;
mod outcomes;

use bytes::Bytes;
use http::HeaderName;
use serde_json::json;
use shared::domain::AccountKind::{
    self, AzureOpenai, Ccr, ClaudeConsole, GeminiApi, OpenaiResponses, Simulator,
};
use shared::domain::Operation::{CountTokens, Embed, Generate};
use shared::domain::Protocol::{ChatCompletions, GenerateContent, Messages, Responses};

use super::*;

fn account(kind: AccountKind, base_url: &str) -> Account {
    let json = json!({
        "id": "acc_1", "name": "one", "kind": kind, "base_url": base_url, "priority": 50, "weight": 1,
        "created_at": "2026-01-01T00:00:00Z",
    });
    serde_json::from_value(json).unwrap()
}

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&str, &str)| {
        (HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap())
    };
    pairs.iter().map(pair).collect()
}

/// What a test says of a call; the rest is empty.
#[derive(Clone, Copy)]
struct Said<'a> {
    protocol: Protocol,
    operation: Operation,
    model: &'a str,
    gemini: Option<GeminiMethod>,
    query: Option<&'a str>,
    headers: &'a [(&'a str, &'a str)],
}

const fn said(protocol: Protocol, operation: Operation) -> Said<'static> {
    Said { protocol, operation, model: "some-model", gemini: None, query: None, headers: &[] }
}

const fn gemini(version: &'static str, name: &'static str, operation: Operation) -> Said<'static> {
    Said { gemini: Some(GeminiMethod { version, name }), ..said(GenerateContent, operation) }
}

fn built(account: &Account, secret: &str, said: Said<'_>) -> Result<Request<Splice>, ProviderError> {
    let access = provider(account.kind).access(account, &Secret::new(secret))?;
    let call = Call {
        protocol: said.protocol,
        operation: said.operation,
        model: said.model,
        gemini: said.gemini,
        headers: &headers(said.headers),
        query: said.query,
        body: Splice::whole(Bytes::from_static(b"{ }")),
    };
    provider(account.kind).request(Caller { account, access: &access }, call)
}

fn probed(account: &Account, secret: &str) -> Request<Splice> {
    let access = provider(account.kind).access(account, &Secret::new(secret)).unwrap();
    provider(account.kind).probe(Caller { account, access: &access }).unwrap()
}

#[test]
fn a_provider_builds_what_it_speaks_and_refuses_the_rest() {
    for kind in AccountKind::ALL {
        let account = account(kind, "https://a.test");
        for operation in [Generate, CountTokens, Embed] {
            for protocol in Protocol::ALL {
                let method = GeminiMethod { version: "v1beta", name: "generateContent" };
                let gemini = (protocol == GenerateContent).then_some(method);
                let result = built(&account, "s", Said { gemini, ..said(protocol, operation) });
                let speaks = provider(kind).speaks(operation).contains(&protocol);
                match result {
                    Ok(_) => assert!(speaks, "{kind} builds {protocol:?} {operation:?}"),
                    Err(ProviderError::NotSpoken(named)) => {
                        assert!(!speaks && named == protocol, "{kind} refuses {protocol:?} {operation:?}");
                    }
                    Err(error) => panic!("{kind} {protocol:?} {operation:?}: {error}"),
                }
            }
        }
    }
}
