//! OpenAI Responses: <https://platform.openai.com/docs/api-reference/responses>.

use serde_json::{Value, json};

use super::figures::CREATED_S;
use super::form::{Form, Piece, named_event};
use super::reply::{Content, Reply};

/// The Responses API.
pub(super) struct Responses {
    /// What a response repeats of its request, with the defaults of what the request left out.
    repeated: Value,
}

impl Responses {
    /// Takes from a request what its response repeats.
    pub(super) fn repeating(request: &Value) -> Self {
        let mut repeated = json!({
            "background": false,
            "instructions": null,
            "max_output_tokens": null,
            "max_tool_calls": null,
            "metadata": {},
            "parallel_tool_calls": true,
            "previous_response_id": null,
            "prompt_cache_key": null,
            "reasoning": { "effort": null, "summary": null },
            "safety_identifier": null,
            "store": true,
            "temperature": 1.0,
            "text": { "format": { "type": "text" } },
            "tool_choice": "auto",
            "tools": [],
            "top_p": 1.0,
            "truncation": "disabled",
            "user": null,
        });
        for (name, value) in repeated.as_object_mut().into_iter().flatten() {
            if let Some(asked) = request.get(name).filter(|asked| !asked.is_null()) {
                value.clone_from(asked);
            }
        }
        Self { repeated }
    }

    fn response(&self, reply: &Reply, state: State) -> Value {
        let is_over = state == State::Over;
        let mut response = self.repeated.clone();
        response["id"] = json!(format!("resp_{}", reply.id));
        response["object"] = json!("response");
        response["created_at"] = json!(CREATED_S);
        response["model"] = json!(reply.model);
        response["service_tier"] = json!("default");
        response["error"] = Value::Null;
        response["status"] = json!(status(reply, state));
        response["completed_at"] = json!((is_over && !reply.is_cut).then_some(CREATED_S));
        response["incomplete_details"] =
            json!((is_over && reply.is_cut).then(|| json!({ "reason": "max_output_tokens" })));
        response["output"] = if is_over && has_item(reply) { json!([item(reply, state)]) } else { json!([]) };
        response["usage"] = json!(is_over.then(|| usage(reply)));
        response
    }
}

impl Form for Responses {
    fn whole(&self, reply: &Reply) -> Value {
        self.response(reply, State::Over)
    }

    fn opening(&self, reply: &Reply) -> String {
        let mut events = Events { text: String::new(), number: 0 };
        for kind in ["response.created", "response.in_progress"] {
            events.push(kind, json!({ "response": self.response(reply, State::Begun) }));
        }
        if has_item(reply) {
            let item = item(reply, State::Begun);
            events.push("response.output_item.added", json!({ "output_index": 0, "item": item }));
        }
        if is_message(reply) {
            events.push("response.content_part.added", at_part(reply, json!({ "part": part("") })));
        }
        events.text
    }

    fn piece(&self, reply: &Reply, piece: &Piece<'_>) -> String {
        let mut events = Events { text: String::new(), number: opening_events(reply) + piece.index };
        match reply.content {
            Content::Text(_) => events.push(
                "response.output_text.delta",
                at_part(reply, json!({ "delta": piece.text, "logprobs": [] })),
            ),
            Content::Call { .. } => events.push(
                "response.function_call_arguments.delta",
                json!({ "item_id": item_id(reply), "output_index": 0, "delta": piece.text }),
            ),
        }
        events.text
    }

    fn closing(&self, reply: &Reply, pieces: usize) -> String {
        let mut events = Events { text: String::new(), number: opening_events(reply) + pieces };
        match &reply.content {
            Content::Text(text) if text.is_empty() => {}
            Content::Text(text) => {
                let done = json!({ "text": text, "logprobs": [] });
                events.push("response.output_text.done", at_part(reply, done));
                events.push("response.content_part.done", at_part(reply, json!({ "part": part(text) })));
            }
            Content::Call { name, json: arguments, .. } => events.push(
                "response.function_call_arguments.done",
                json!({
                    "item_id": item_id(reply), "output_index": 0, "name": name, "arguments": arguments,
                }),
            ),
        }
        if has_item(reply) {
            let item = item(reply, State::Over);
            events.push("response.output_item.done", json!({ "output_index": 0, "item": item }));
        }
        let kind = if reply.is_cut { "response.incomplete" } else { "response.completed" };
        events.push(kind, json!({ "response": self.response(reply, State::Over) }));
        events.text
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Begun,
    Over,
}

/// Events in a row, numbered.
struct Events {
    text: String,
    number: usize,
}

impl Events {
    fn push(&mut self, kind: &str, mut event: Value) {
        event["type"] = json!(kind);
        event["sequence_number"] = json!(self.number);
        self.number += 1;
        self.text += &named_event(&event);
    }
}

/// How many events come before the first piece.
fn opening_events(reply: &Reply) -> usize {
    2 + usize::from(has_item(reply)) + usize::from(is_message(reply))
}

fn has_item(reply: &Reply) -> bool {
    is_message(reply) || matches!(reply.content, Content::Call { .. })
}

fn is_message(reply: &Reply) -> bool {
    matches!(&reply.content, Content::Text(text) if !text.is_empty())
}

fn status(reply: &Reply, state: State) -> &'static str {
    match state {
        State::Begun => "in_progress",
        State::Over if reply.is_cut => "incomplete",
        State::Over => "completed",
    }
}

fn item_id(reply: &Reply) -> String {
    match reply.content {
        Content::Text(_) => format!("msg_{}", reply.id),
        Content::Call { .. } => format!("fc_{}", reply.id),
    }
}

fn item(reply: &Reply, state: State) -> Value {
    let (id, status) = (item_id(reply), status(reply, state));
    match &reply.content {
        Content::Text(text) => {
            let content = if state == State::Over { json!([part(text)]) } else { json!([]) };
            json!({ "id": id, "type": "message", "role": "assistant", "status": status, "content": content })
        }
        Content::Call { name, json: arguments, .. } => json!({
            "id": id,
            "type": "function_call",
            "status": status,
            "call_id": format!("call_{}", reply.id),
            "name": name,
            "arguments": if state == State::Over { arguments } else { "" },
        }),
    }
}

fn part(text: &str) -> Value {
    json!({ "type": "output_text", "text": text, "annotations": [], "logprobs": [] })
}

/// Adds to an event which part of which item it is about.
fn at_part(reply: &Reply, mut event: Value) -> Value {
    event["item_id"] = json!(item_id(reply));
    event["output_index"] = json!(0);
    event["content_index"] = json!(0);
    event
}

fn usage(reply: &Reply) -> Value {
    json!({
        "input_tokens": reply.input_tokens,
        "input_tokens_details": { "cached_tokens": 0, "cache_write_tokens": 0 },
        "output_tokens": reply.output_tokens,
        "output_tokens_details": { "reasoning_tokens": 0 },
        "total_tokens": reply.total_tokens(),
    })
}
