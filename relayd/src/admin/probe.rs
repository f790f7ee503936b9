//! The test call of an account: one small request, through the same clients and providers as any other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Limited};
use serde_json::json;
use shared::admin::{TestAccount, TestReport};
use shared::domain::{Account, Operation, Protocol};

use super::{Admin, AdminError};
use crate::causes::Causes;
use crate::directory::AccountEntry;
use crate::protocol::Splice;
use crate::provider::{Call, GeminiMethod, ProviderError};
use crate::upstream::{Egress, Handover};

const DEADLINE: Duration = Duration::from_secs(30);
const REPLY_BYTES_MAX: usize = 1 << 20;
/// How much of an upstream's error an operator is shown.
const SHOWN_CHARS_MAX: usize = 300;

impl Admin {
    pub(super) async fn test_account(&self, call: &TestAccount) -> Result<TestReport, AdminError> {
        let entry = self.account_entry(&call.account)?;
        let started = Instant::now();
        let request = match request(&entry, call.model.as_deref()) {
            Ok(request) => request,
            Err(error) => return Ok(failed(String::new(), error.to_string(), started)),
        };
        let url = request.uri().to_string();
        match tokio::time::timeout(DEADLINE, self.send(&entry.account, request, started)).await {
            Err(_) => Ok(failed(url, format!("no answer within {} s", DEADLINE.as_secs()), started)),
            Ok(Err(error)) => Ok(failed(url, Causes(&*error).to_string(), started)),
            Ok(Ok(report)) => Ok(TestReport { url, ..report }),
        }
    }

    async fn send(
        &self,
        account: &Account,
        request: Request<Splice>,
        started: Instant,
    ) -> Result<TestReport, Box<dyn std::error::Error + Send + Sync>> {
        let reply = self.upstream.send(Egress::of(account.kind), request, Handover::default()).await?;
        let first_byte_ms = millis(started);
        let status = reply.status();
        let body = Limited::new(reply.into_body(), REPLY_BYTES_MAX).collect().await?.to_bytes();
        let message = if status.is_success() {
            "the account works".to_owned()
        } else {
            format!("the upstream answered {status}: {}", shown(&body))
        };
        Ok(TestReport {
            ok: status.is_success(),
            url: String::new(),
            status: Some(status.as_u16()),
            message,
            first_byte_ms: Some(first_byte_ms),
            total_ms: millis(started),
        })
    }
}

fn failed(url: String, message: String, started: Instant) -> TestReport {
    TestReport { ok: false, url, status: None, message, first_byte_ms: None, total_ms: millis(started) }
}

fn millis(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// The upstream's words: its error message, else the beginning of what it sent.
fn shown(body: &[u8]) -> String {
    let json: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let told = [&json["error"]["message"], &json["message"], &json["detail"], &json["error"]];
    let told = told.into_iter().find_map(serde_json::Value::as_str).map(str::to_owned);
    let text = told.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(SHOWN_CHARS_MAX).collect()
}

/// Without a model, what costs nothing; with one, the smallest answer.
fn request(entry: &AccountEntry, model: Option<&str>) -> Result<Request<Splice>, Arc<ProviderError>> {
    let caller = entry.caller()?;
    let Some(model) = model else { return Ok(entry.provider.probe(caller)?) };
    let model = entry.account.upstream_model(model);
    let protocol = entry.provider.speaks(Operation::Generate).first().copied().unwrap_or(Protocol::Messages);
    let text = "Reply with the word ok.";
    let body = match protocol {
        Protocol::Messages | Protocol::ChatCompletions => json!({
            "model": model, "max_tokens": 16, "messages": [{"role": "user", "content": text}],
        }),
        Protocol::Responses => json!({"model": model, "max_output_tokens": 16, "input": text}),
        Protocol::GenerateContent => json!({
            "contents": [{"role": "user", "parts": [{"text": text}]}],
            "generationConfig": {"maxOutputTokens": 16},
        }),
    };
    let gemini = GeminiMethod { version: "v1beta", name: "generateContent" };
    let call = Call {
        protocol,
        operation: Operation::Generate,
        model,
        gemini: (protocol == Protocol::GenerateContent).then_some(gemini),
        headers: &HeaderMap::new(),
        query: None,
        body: Splice::whole(body.to_string().into()),
    };
    Ok(entry.provider.request(caller, call)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_upstreams_words_are_found() {
        for (body, expected) in [
            (r#"{"error":{"message":"bad key"}}"#, "bad key"),
            (r#"{"detail":"gone"}"#, "gone"),
            (r#"{"error":"plain"}"#, "plain"),
            ("<html>\n oops </html>", "<html> oops </html>"),
        ] {
            assert_eq!(shown(body.as_bytes()), expected);
        }
    }
}
