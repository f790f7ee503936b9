//! What the scripted upstream says in each protocol: whole replies, streams and errors with usage that is
//! known beforehand. The shapes are those of the vendors' SDKs; the texts hold what trips careless readers.

use bytes::Bytes;
use serde_json::{Value, json};
use shared::domain::{Protocol, Usage, UsageClass};

/// The answer's text in pieces: several bytes a character, a raw line separator, a quote, a backslash.
pub const PIECES: [&str; 4] = ["Grüße", " 🌍 a\u{2028}b", " \"quoted\" \\ back", " data: [DONE]"];

/// The whole answer's text.
pub fn text() -> String {
    PIECES.concat()
}

/// The usage that every normal answer reports, as the ledger is to have it.
pub fn usage(protocol: Protocol) -> Usage {
    use UsageClass::{CacheRead, CacheWrite1h, CacheWrite5m, Input, Output, Reasoning};
    let mut usage = Usage::of(&[(Input, 25), (CacheRead, 40), (Output, 15), (Reasoning, 4)]);
    if protocol == Protocol::Messages {
        usage[CacheWrite5m] = 7;
        usage[CacheWrite1h] = 3;
    }
    usage
}

fn messages_usage(output: u64) -> Value {
    json!({
        "input_tokens": 25, "cache_creation_input_tokens": 10, "cache_read_input_tokens": 40,
        "cache_creation": {"ephemeral_5m_input_tokens": 7, "ephemeral_1h_input_tokens": 3},
        "output_tokens": output, "output_tokens_details": {"thinking_tokens": 4}, "service_tier": "standard",
    })
}

fn chat_usage() -> Value {
    json!({
        "prompt_tokens": 65, "completion_tokens": 15, "total_tokens": 80,
        "prompt_tokens_details": {"cached_tokens": 40}, "completion_tokens_details": {"reasoning_tokens": 4},
    })
}

fn responses_usage() -> Value {
    json!({
        "input_tokens": 65, "input_tokens_details": {"cached_tokens": 40},
        "output_tokens": 15, "output_tokens_details": {"reasoning_tokens": 4}, "total_tokens": 80,
    })
}

fn gemini_usage() -> Value {
    json!({
        "promptTokenCount": 65, "cachedContentTokenCount": 40, "candidatesTokenCount": 11,
        "thoughtsTokenCount": 4, "totalTokenCount": 80,
    })
}

/// What the answer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// The text of [`PIECES`].
    Text,
    /// A call of the tool `get_weather` for Paris.
    Tool,
}

const ARGUMENTS: &str = r#"{"city":"Paris"}"#;

/// A whole reply.
pub fn whole(protocol: Protocol, model: &str, content: Content) -> Value {
    match protocol {
        Protocol::Messages => whole_messages(model, content),
        Protocol::ChatCompletions => whole_chat(model, content),
        Protocol::Responses => response_object(model, "completed", &[item(content)], &responses_usage()),
        Protocol::GenerateContent => gemini_chunk(model, &gemini_part(content), Some("STOP")),
    }
}

fn whole_messages(model: &str, content: Content) -> Value {
    let (block, stop) = match content {
        Content::Text => (json!({"type": "text", "text": text()}), "end_turn"),
        Content::Tool => {
            let input = json!({"city": "Paris"});
            (json!({"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": input}), "tool_use")
        }
    };
    json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": model, "content": [block],
        "stop_reason": stop, "stop_sequence": null, "usage": messages_usage(15),
    })
}

fn whole_chat(model: &str, content: Content) -> Value {
    let (message, finish) = match content {
        Content::Text => (json!({"role": "assistant", "content": text(), "refusal": null}), "stop"),
        Content::Tool => {
            let function = json!({"name": "get_weather", "arguments": ARGUMENTS});
            let calls = json!([{"id": "call_1", "type": "function", "function": function}]);
            (json!({"role": "assistant", "content": null, "tool_calls": calls}), "tool_calls")
        }
    };
    json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1_795_000_000, "model": model,
        "choices": [{"index": 0, "message": message, "logprobs": null, "finish_reason": finish}],
        "usage": chat_usage(),
    })
}

fn item(content: Content) -> Value {
    match content {
        Content::Text => json!({
            "id": "msg_1", "type": "message", "role": "assistant", "status": "completed",
            "content": [{"type": "output_text", "text": text(), "annotations": []}],
        }),
        Content::Tool => json!({
            "id": "fc_1", "type": "function_call", "call_id": "call_1", "name": "get_weather",
            "arguments": ARGUMENTS, "status": "completed",
        }),
    }
}

fn response_object(model: &str, status: &str, output: &[Value], usage: &Value) -> Value {
    json!({
        "id": "resp_1", "object": "response", "created_at": 1_795_000_000, "status": status, "error": null,
        "incomplete_details": null, "model": model, "output": output, "parallel_tool_calls": true,
        "tool_choice": "auto", "tools": [], "usage": usage,
    })
}

fn gemini_part(content: Content) -> Value {
    match content {
        Content::Text => json!({"text": text()}),
        Content::Tool => json!({"functionCall": {"name": "get_weather", "args": {"city": "Paris"}}}),
    }
}

fn gemini_chunk(model: &str, part: &Value, finish: Option<&str>) -> Value {
    let mut candidate = json!({"content": {"role": "model", "parts": [part]}});
    if let Some(finish) = finish {
        candidate["finishReason"] = json!(finish);
    }
    json!({
        "candidates": [candidate], "usageMetadata": gemini_usage(), "modelVersion": model,
        "responseId": "gem_1",
    })
}

/// A stream's events, each with the empty line that ends it. `usage` asks Chat Completions for its usage chunk.
pub fn events(protocol: Protocol, model: &str, content: Content, usage: bool) -> Vec<Bytes> {
    match protocol {
        Protocol::Messages => messages_events(model, content),
        Protocol::ChatCompletions => chat_events(model, content, usage),
        Protocol::Responses => responses_events(model, content),
        Protocol::GenerateContent => gemini_events(model, content),
    }
}

fn named(event: &Value) -> Bytes {
    let name = event["type"].as_str().unwrap();
    format!("event: {name}\ndata: {event}\n\n").into()
}

fn unnamed(event: &Value) -> Bytes {
    format!("data: {event}\n\n").into()
}

fn messages_events(model: &str, content: Content) -> Vec<Bytes> {
    let message = json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": model, "content": [],
        "stop_reason": null, "stop_sequence": null, "usage": messages_usage(1),
    });
    let (block, deltas, stop) = match content {
        Content::Text => {
            let deltas = PIECES.map(|piece| json!({"type": "text_delta", "text": piece})).to_vec();
            (json!({"type": "text", "text": ""}), deltas, "end_turn")
        }
        Content::Tool => {
            let deltas = ["", "{\"city\":", "\"Paris\"}"];
            let deltas =
                deltas.map(|json| json!({"type": "input_json_delta", "partial_json": json})).to_vec();
            (
                json!({"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {}}),
                deltas,
                "tool_use",
            )
        }
    };
    let mut events = vec![
        json!({"type": "message_start", "message": message}),
        json!({"type": "content_block_start", "index": 0, "content_block": block}),
        json!({"type": "ping"}),
    ];
    events.extend(
        deltas.iter().map(|delta| json!({"type": "content_block_delta", "index": 0, "delta": delta})),
    );
    events.push(json!({"type": "content_block_stop", "index": 0}));
    let delta = json!({"stop_reason": stop, "stop_sequence": null});
    events.push(json!({"type": "message_delta", "delta": delta, "usage": messages_usage(15)}));
    events.push(json!({"type": "message_stop"}));
    events.iter().map(named).collect()
}

fn chat_events(model: &str, content: Content, usage: bool) -> Vec<Bytes> {
    let chunk = |choices: Value, usage_value: Value| {
        let mut chunk = json!({
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_795_000_000, "model": model,
            "choices": choices,
        });
        if usage {
            chunk["usage"] = usage_value;
        }
        unnamed(&chunk)
    };
    let choice = |delta: Value, finish: Value| json!([{"index": 0, "delta": delta, "finish_reason": finish}]);
    let mut deltas = vec![json!({"role": "assistant", "content": ""})];
    let finish = match content {
        Content::Text => {
            deltas.extend(PIECES.map(|piece| json!({"content": piece})));
            "stop"
        }
        Content::Tool => {
            let function = json!({"name": "get_weather", "arguments": ""});
            let first = json!({"index": 0, "id": "call_1", "type": "function", "function": function});
            deltas.push(json!({"tool_calls": [first]}));
            deltas.push(json!({"tool_calls": [{"index": 0, "function": {"arguments": ARGUMENTS}}]}));
            "tool_calls"
        }
    };
    let mut events: Vec<Bytes> =
        deltas.into_iter().map(|delta| chunk(choice(delta, Value::Null), Value::Null)).collect();
    events.push(chunk(choice(json!({}), json!(finish)), Value::Null));
    if usage {
        events.push(chunk(json!([]), chat_usage()));
    }
    events.push(Bytes::from_static(b"data: [DONE]\n\n"));
    events
}

fn responses_events(model: &str, content: Content) -> Vec<Bytes> {
    let started = response_object(model, "in_progress", &[], &Value::Null);
    let mut events = vec![
        json!({"type": "response.created", "response": started}),
        json!({"type": "response.in_progress", "response": started}),
    ];
    match content {
        Content::Text => {
            let part = json!({"type": "output_text", "text": "", "annotations": []});
            let place = json!({"item_id": "msg_1", "output_index": 0, "content_index": 0});
            let open = json!({
                "id": "msg_1", "type": "message", "role": "assistant", "status": "in_progress", "content": [],
            });
            events.push(json!({"type": "response.output_item.added", "output_index": 0, "item": open}));
            events.push(joined(json!({"type": "response.content_part.added", "part": part}), &place));
            for piece in PIECES {
                let delta = json!({"type": "response.output_text.delta", "delta": piece, "logprobs": []});
                events.push(joined(delta, &place));
            }
            let done = json!({"type": "response.output_text.done", "text": text(), "logprobs": []});
            events.push(joined(done, &place));
        }
        Content::Tool => {
            let place = json!({"item_id": "fc_1", "output_index": 0});
            let mut open = item(content);
            open["arguments"] = json!("");
            open["status"] = json!("in_progress");
            events.push(json!({"type": "response.output_item.added", "output_index": 0, "item": open}));
            let delta = json!({"type": "response.function_call_arguments.delta", "delta": ARGUMENTS});
            events.push(joined(delta, &place));
            let done = json!({"type": "response.function_call_arguments.done", "arguments": ARGUMENTS});
            events.push(joined(done, &place));
        }
    }
    events.push(json!({"type": "response.output_item.done", "output_index": 0, "item": item(content)}));
    let completed = response_object(model, "completed", &[item(content)], &responses_usage());
    events.push(json!({"type": "response.completed", "response": completed}));
    for (number, event) in events.iter_mut().enumerate() {
        event["sequence_number"] = json!(number);
    }
    events.iter().map(named).collect()
}

fn joined(mut object: Value, more: &Value) -> Value {
    for (name, value) in more.as_object().unwrap() {
        object[name] = value.clone();
    }
    object
}

fn gemini_events(model: &str, content: Content) -> Vec<Bytes> {
    let parts = match content {
        Content::Text => PIECES.map(|piece| json!({"text": piece})).to_vec(),
        Content::Tool => vec![gemini_part(content)],
    };
    let last = parts.len() - 1;
    let chunks = parts.iter().enumerate();
    let chunks = chunks.map(|(at, part)| gemini_chunk(model, part, (at == last).then_some("STOP")));
    chunks.map(|chunk| Bytes::from(format!("data: {chunk}\r\n\r\n"))).collect()
}

/// The stream of Gemini without `alt=sse`: one JSON array.
pub fn gemini_array(model: &str, content: Content) -> Vec<Bytes> {
    let events = gemini_events(model, content);
    let mut pieces = vec![Bytes::from_static(b"[")];
    for (at, event) in events.iter().enumerate() {
        if at > 0 {
            pieces.push(Bytes::from_static(b",\r\n"));
        }
        pieces.push(event.slice(6..event.len() - 4));
    }
    pieces.push(Bytes::from_static(b"]"));
    pieces
}

/// The event that ends a stream well, or what only it holds.
pub fn terminal_mark(protocol: Protocol) -> &'static [u8] {
    match protocol {
        Protocol::Messages => b"message_stop",
        Protocol::ChatCompletions => b"data: [DONE]\n",
        Protocol::Responses => b"event: response.completed",
        Protocol::GenerateContent => b"\"finishReason\"",
    }
}

/// An error's body with the status's own type.
pub fn error(protocol: Protocol, status: u16, message: &str) -> Value {
    match protocol {
        Protocol::Messages => {
            let error = json!({"type": messages_error_type(status), "message": message});
            json!({"type": "error", "error": error, "request_id": "req_upstream"})
        }
        Protocol::ChatCompletions | Protocol::Responses => {
            let kind = if status == 429 { "requests" } else { "invalid_request_error" };
            json!({"error": {"message": message, "type": kind, "param": null, "code": openai_error_code(status)}})
        }
        Protocol::GenerateContent => {
            json!({"error": {"code": status, "message": message, "status": google_status(status)}})
        }
    }
}

/// The type that an Anthropic error of this status has.
pub fn messages_error_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        504 => "timeout_error",
        529 => "overloaded_error",
        400..=499 => "invalid_request_error",
        _ => "api_error",
    }
}

fn openai_error_code(status: u16) -> Value {
    match status {
        401 => json!("invalid_api_key"),
        404 => json!("model_not_found"),
        429 => json!("rate_limit_exceeded"),
        _ => Value::Null,
    }
}

/// The canonical name of an HTTP status in Google's errors.
pub fn google_status(status: u16) -> &'static str {
    match status {
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        429 => "RESOURCE_EXHAUSTED",
        503 | 529 => "UNAVAILABLE",
        504 => "DEADLINE_EXCEEDED",
        500..=599 => "INTERNAL",
        _ => "INVALID_ARGUMENT",
    }
}

/// An error as an event inside a stream that had begun.
pub fn error_event(protocol: Protocol, message: &str) -> Bytes {
    match protocol {
        Protocol::Messages => named(&error(protocol, 529, message)),
        Protocol::ChatCompletions => unnamed(
            &json!({"error": {"message": message, "type": "server_error", "param": null, "code": null}}),
        ),
        Protocol::Responses => {
            let mut response = response_object("m", "failed", &[], &Value::Null);
            response["error"] = json!({"code": "server_error", "message": message});
            named(&json!({"type": "response.failed", "sequence_number": 0, "response": response}))
        }
        Protocol::GenerateContent => unnamed(&error(protocol, 503, message)),
    }
}
