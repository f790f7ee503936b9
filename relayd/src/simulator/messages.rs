//! Anthropic Messages: <https://platform.claude.com/docs/en/api/messages>.

use serde_json::{Value, json};

use super::form::{Form, Piece, named_event};
use super::reply::{Content, Reply};

/// The Messages API.
pub(super) struct Messages;

impl Form for Messages {
    fn whole(&self, reply: &Reply) -> Value {
        let content = match &reply.content {
            Content::Text(text) if text.is_empty() => json!([]),
            Content::Text(text) => json!([{ "type": "text", "text": text, "citations": null }]),
            Content::Call { arguments, .. } => json!([call(reply, &json!(arguments))]),
        };
        let mut message = message(reply, reply.output_tokens);
        message["content"] = content;
        message["stop_reason"] = json!(stop_reason(reply));
        message
    }

    fn opening(&self, reply: &Reply) -> String {
        // As the vendor does, the first event counts the one token that is sure to come.
        let message = message(reply, reply.output_tokens.min(1));
        let start = named_event(&json!({ "type": "message_start", "message": message }));
        let block = match &reply.content {
            Content::Text(text) if text.is_empty() => return start,
            Content::Text(_) => json!({ "type": "text", "text": "" }),
            Content::Call { .. } => call(reply, &json!({})),
        };
        let block = json!({ "type": "content_block_start", "index": 0, "content_block": block });
        start + &named_event(&block) + &named_event(&json!({ "type": "ping" }))
    }

    fn piece(&self, reply: &Reply, piece: &Piece<'_>) -> String {
        let delta = match reply.content {
            Content::Text(_) => json!({ "type": "text_delta", "text": piece.text }),
            Content::Call { .. } => json!({ "type": "input_json_delta", "partial_json": piece.text }),
        };
        named_event(&json!({ "type": "content_block_delta", "index": 0, "delta": delta }))
    }

    fn closing(&self, reply: &Reply, pieces: usize) -> String {
        let stop = match pieces {
            0 => String::new(),
            _ => named_event(&json!({ "type": "content_block_stop", "index": 0 })),
        };
        let delta = json!({
            "type": "message_delta",
            "delta": { "stop_reason": stop_reason(reply), "stop_sequence": null },
            "usage": {
                "input_tokens": reply.input_tokens,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
                "output_tokens": reply.output_tokens,
            },
        });
        stop + &named_event(&delta) + &named_event(&json!({ "type": "message_stop" }))
    }
}

fn message(reply: &Reply, output_tokens: u64) -> Value {
    json!({
        "id": format!("msg_{}", reply.id),
        "type": "message",
        "role": "assistant",
        "model": reply.model,
        "content": [],
        "stop_reason": null,
        "stop_sequence": null,
        "usage": {
            "input_tokens": reply.input_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "cache_creation": { "ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0 },
            "output_tokens": output_tokens,
            "service_tier": "standard",
        },
    })
}

fn call(reply: &Reply, input: &Value) -> Value {
    let name = match &reply.content {
        Content::Call { name, .. } => name.as_str(),
        Content::Text(_) => "",
    };
    json!({ "type": "tool_use", "id": format!("toolu_{}", reply.id), "name": name, "input": input })
}

fn stop_reason(reply: &Reply) -> &'static str {
    match reply.content {
        _ if reply.is_cut => "max_tokens",
        Content::Text(_) => "end_turn",
        Content::Call { .. } => "tool_use",
    }
}
