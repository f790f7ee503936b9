//! Gemini's `generateContent`: <https://ai.google.dev/api/generate-content>. Fields with default values are left
//! out, as Google does.

use serde_json::{Value, json};

use super::figures::tokens;
use super::form::{Form, Piece};
use super::reply::{Content, Reply};
use super::route::Delivery;

/// The Gemini API.
pub(super) struct GenerateContent {
    /// How an answer is delivered.
    pub(super) delivery: Delivery,
}

impl Form for GenerateContent {
    fn whole(&self, reply: &Reply) -> Value {
        let parts = match &reply.content {
            Content::Text(text) => json!([{ "text": text }]),
            Content::Call { .. } => json!([call(reply)]),
        };
        response(reply, &parts, Some(finish_reason(reply)), reply.output_tokens)
    }

    fn stream_type(&self) -> &'static str {
        match self.delivery {
            Delivery::Events => "text/event-stream",
            Delivery::Array | Delivery::Whole => "application/json; charset=UTF-8",
        }
    }

    fn cuts_calls(&self) -> bool {
        false
    }

    fn opening(&self, _reply: &Reply) -> String {
        String::new()
    }

    fn piece(&self, reply: &Reply, piece: &Piece<'_>) -> String {
        let (parts, output_tokens) = match reply.content {
            Content::Text(_) => (json!([{ "text": piece.text }]), tokens(piece.bytes_so_far)),
            Content::Call { .. } => (json!([call(reply)]), reply.output_tokens),
        };
        self.element(&response(reply, &parts, None, output_tokens), piece.index)
    }

    fn closing(&self, reply: &Reply, pieces: usize) -> String {
        let last = response(reply, &json!([{ "text": "" }]), Some(finish_reason(reply)), reply.output_tokens);
        let end = if self.delivery == Delivery::Array { "]" } else { "" };
        self.element(&last, pieces) + end
    }
}

impl GenerateContent {
    /// A response within its stream.
    fn element(&self, response: &Value, index: usize) -> String {
        match (self.delivery, index) {
            (Delivery::Array, 0) => format!("[{response}\r\n"),
            (Delivery::Array, _) => format!(",\r\n{response}\r\n"),
            (Delivery::Events | Delivery::Whole, _) => format!("data: {response}\r\n\r\n"),
        }
    }
}

fn response(reply: &Reply, parts: &Value, finish_reason: Option<&str>, output_tokens: u64) -> Value {
    let mut candidate = json!({ "content": { "parts": parts, "role": "model" } });
    if let Some(reason) = finish_reason {
        candidate["finishReason"] = json!(reason);
    }
    let mut usage = json!({
        "promptTokenCount": reply.input_tokens,
        "totalTokenCount": reply.input_tokens.saturating_add(output_tokens),
        "promptTokensDetails": [{ "modality": "TEXT", "tokenCount": reply.input_tokens }],
    });
    if output_tokens > 0 {
        usage["candidatesTokenCount"] = json!(output_tokens);
    }
    json!({
        "candidates": [candidate],
        "usageMetadata": usage,
        "modelVersion": reply.model.strip_prefix("models/").unwrap_or(&reply.model),
        "responseId": reply.id,
    })
}

fn call(reply: &Reply) -> Value {
    match &reply.content {
        Content::Call { name, arguments, .. } => {
            let id = format!("call_{}", reply.id);
            json!({ "functionCall": { "id": id, "name": name, "args": arguments } })
        }
        Content::Text(text) => json!({ "text": text }),
    }
}

/// Calls finish with `STOP`, too.
fn finish_reason(reply: &Reply) -> &'static str {
    if reply.is_cut { "MAX_TOKENS" } else { "STOP" }
}
