use super::*;

fn body(model: &str) -> Value {
    json!({ "model": model, "max_tokens": 100, "messages": [{ "role": "user", "content": "hi" }] })
}

fn message(id: &str, content: &Value, stop_reason: Option<&str>, output_tokens: u64) -> Value {
    json!({
        "id": format!("msg_{id}"), "type": "message", "role": "assistant", "model": "sim-echo",
        "content": content, "stop_reason": stop_reason, "stop_sequence": null,
        "usage": {
            "input_tokens": 1, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
            "cache_creation": { "ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0 },
            "output_tokens": output_tokens, "service_tier": "standard",
        },
    })
}

#[tokio::test]
async fn a_whole_message() {
    let received = post("/v1/messages", &body("sim-echo")).await;
    assert_eq!(received.status, StatusCode::OK);
    assert_eq!(received.header("content-type"), Some("application/json"));
    let json = received.json();
    let id = hex(&json["id"], "msg_");
    assert_eq!(received.header("request-id"), Some(format!("req_{id}").as_str()));
    let content = json!([{ "type": "text", "text": HEARD, "citations": null }]);
    assert_eq!(json, message(&id, &content, Some("end_turn"), 6));
}

#[tokio::test]
async fn a_streamed_message() {
    let received = post("/v1/messages?beta=true", &with(body("sim-echo"), &json!({ "stream": true }))).await;
    assert_eq!(received.header("content-type"), Some("text/event-stream; charset=utf-8"));
    assert_eq!(received.header("content-length"), None);
    let events = received.events();
    let id = hex(&events[0]["message"]["id"], "msg_");
    let delta = |text: &str| json!({ "type": "content_block_delta", "index": 0, "delta": { "type": "text_delta", "text": text } });
    let expected = json!([
        { "type": "message_start", "message": message(&id, &json!([]), None, 1) },
        { "type": "content_block_start", "index": 0, "content_block": { "type": "text", "text": "" } },
        { "type": "ping" },
        delta(PIECES[0]),
        delta(PIECES[1]),
        delta(PIECES[2]),
        { "type": "content_block_stop", "index": 0 },
        {
            "type": "message_delta",
            "delta": { "stop_reason": "end_turn", "stop_sequence": null },
            "usage": {
                "input_tokens": 1, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
                "output_tokens": 6,
            },
        },
        { "type": "message_stop" },
    ]);
    assert_eq!(json!(events), expected);
}

#[tokio::test]
async fn a_tool_is_called_whole_and_streamed() {
    let schema = json!({ "type": "object", "properties": { "n": { "type": "integer" } }, "required": ["n"] });
    let body = with(body("sim-tools"), &json!({ "tools": [{ "name": "add", "input_schema": schema }] }));
    let whole = post("/v1/messages", &body).await.json();
    let id = hex(&whole["id"], "msg_");
    let call = json!({ "type": "tool_use", "id": format!("toolu_{id}"), "name": "add", "input": { "n": 1 } });
    assert_eq!((&whole["content"], &whole["stop_reason"]), (&json!([call]), &json!("tool_use")));
    assert_eq!(whole["usage"]["output_tokens"], 3);

    let events = post("/v1/messages", &with(body, &json!({ "stream": true }))).await.events();
    assert_eq!(events[1]["content_block"]["input"], json!({}));
    assert_eq!(events[1]["content_block"]["name"], "add");
    let arguments: String = events
        .iter()
        .filter(|event| event["delta"]["type"] == "input_json_delta")
        .map(|event| event["delta"]["partial_json"].as_str().unwrap())
        .collect();
    assert_eq!(arguments, r#"{"n":1}"#);
    assert_eq!(events[events.len() - 2]["delta"]["stop_reason"], "tool_use");
}

#[tokio::test]
async fn a_limit_cuts_the_message() {
    for (max_tokens, content, output_tokens) in
        [(2, json!([{ "type": "text", "text": "The simu", "citations": null }]), 2), (0, json!([]), 0)]
    {
        let body = with(body("sim-echo"), &json!({ "max_tokens": max_tokens }));
        let whole = post("/v1/messages", &body).await.json();
        assert_eq!((&whole["content"], &whole["stop_reason"]), (&content, &json!("max_tokens")));
        assert_eq!(whole["usage"]["output_tokens"], output_tokens);
    }
    let empty = with(body("sim-echo"), &json!({ "max_tokens": 0, "stream": true }));
    let events = post("/v1/messages", &empty).await.events();
    assert_eq!(types(&events), ["message_start", "message_delta", "message_stop"]);
    assert_eq!(events[1]["delta"]["stop_reason"], "max_tokens");
}

#[tokio::test]
async fn tokens_are_counted_as_the_message_counts_them() {
    let mut body = body("sim-echo");
    body["system"] = json!("be brief, and kind");
    let used = post("/v1/messages", &body).await.json()["usage"]["input_tokens"].clone();
    body.as_object_mut().unwrap().remove("max_tokens");
    let counted = post("/v1/messages/count_tokens", &body).await.json();
    assert_eq!(counted, json!({ "input_tokens": used }));
    assert_eq!(used, 5);
}

#[tokio::test]
async fn an_error_has_the_protocols_form() {
    let received = post("/v1/messages", &body("sim-error-529")).await;
    assert_eq!(received.status.as_u16(), 529);
    let json = received.json();
    assert_eq!((&json["type"], &json["error"]["type"]), (&json!("error"), &json!("overloaded_error")));
    assert_eq!(received.header("request-id"), json["request_id"].as_str());

    let limited = post("/v1/messages", &with(body("sim-error-429"), &json!({ "stream": true }))).await;
    assert_eq!((limited.status.as_u16(), limited.header("retry-after")), (429, Some("7")));
    assert_eq!(limited.header("content-type"), Some("application/json"));
}
