//! OpenAI Chat Completions: <https://platform.openai.com/docs/api-reference/chat>.

use serde_json::{Value, json};

use super::figures::CREATED_S;
use super::form::{Form, Piece};
use super::reply::{Content, Reply};

/// The Chat Completions API.
pub(super) struct ChatCompletions {
    /// Whether the client asked for the chunk with the usage at a stream's end.
    pub(super) includes_usage: bool,
}

impl Form for ChatCompletions {
    fn whole(&self, reply: &Reply) -> Value {
        let message = match &reply.content {
            Content::Text(text) => {
                json!({ "role": "assistant", "content": text, "refusal": null, "annotations": [] })
            }
            Content::Call { name, json, .. } => json!({
                "role": "assistant",
                "content": null,
                "refusal": null,
                "annotations": [],
                "tool_calls": [{
                    "id": format!("call_{}", reply.id),
                    "type": "function",
                    "function": { "name": name, "arguments": json },
                }],
            }),
        };
        let mut whole = envelope(reply, "chat.completion");
        whole["choices"] = json!([{
            "index": 0,
            "message": message,
            "logprobs": null,
            "finish_reason": finish_reason(reply),
        }]);
        whole["usage"] = usage(reply);
        whole
    }

    fn opening(&self, reply: &Reply) -> String {
        let delta = match &reply.content {
            Content::Text(_) => json!({ "role": "assistant", "content": "", "refusal": null }),
            Content::Call { name, .. } => json!({
                "role": "assistant",
                "content": null,
                "refusal": null,
                "tool_calls": [{
                    "index": 0,
                    "id": format!("call_{}", reply.id),
                    "type": "function",
                    "function": { "name": name, "arguments": "" },
                }],
            }),
        };
        self.delta(reply, &delta, None)
    }

    fn piece(&self, reply: &Reply, piece: &Piece<'_>) -> String {
        let delta = match reply.content {
            Content::Text(_) => json!({ "content": piece.text }),
            Content::Call { .. } => {
                json!({ "tool_calls": [{ "index": 0, "function": { "arguments": piece.text } }] })
            }
        };
        self.delta(reply, &delta, None)
    }

    fn closing(&self, reply: &Reply, _pieces: usize) -> String {
        let mut closing = self.delta(reply, &json!({}), Some(finish_reason(reply)));
        if self.includes_usage {
            let mut chunk = envelope(reply, "chat.completion.chunk");
            chunk["choices"] = json!([]);
            chunk["usage"] = usage(reply);
            closing += &event(&chunk);
        }
        closing + "data: [DONE]\n\n"
    }
}

impl ChatCompletions {
    fn delta(&self, reply: &Reply, delta: &Value, finish_reason: Option<&str>) -> String {
        let mut chunk = envelope(reply, "chat.completion.chunk");
        chunk["choices"] =
            json!([{ "index": 0, "delta": delta, "logprobs": null, "finish_reason": finish_reason }]);
        if self.includes_usage {
            chunk["usage"] = Value::Null;
        }
        event(&chunk)
    }
}

fn event(chunk: &Value) -> String {
    format!("data: {chunk}\n\n")
}

fn envelope(reply: &Reply, object: &str) -> Value {
    json!({
        "id": format!("chatcmpl-{}", reply.id),
        "object": object,
        "created": CREATED_S,
        "model": reply.model,
        "service_tier": "default",
        "system_fingerprint": "fp_simulator",
    })
}

fn usage(reply: &Reply) -> Value {
    json!({
        "prompt_tokens": reply.input_tokens,
        "completion_tokens": reply.output_tokens,
        "total_tokens": reply.total_tokens(),
        "prompt_tokens_details": { "cached_tokens": 0, "audio_tokens": 0 },
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    })
}

fn finish_reason(reply: &Reply) -> &'static str {
    match reply.content {
        _ if reply.is_cut => "length",
        Content::Text(_) => "stop",
        Content::Call { .. } => "tool_calls",
    }
}
