use super::*;

const PATH: &str = "/v1/chat/completions";

fn body(model: &str) -> Value {
    json!({ "model": model, "messages": [{ "role": "user", "content": "hi" }] })
}

fn envelope(id: &str, object: &str) -> Value {
    json!({
        "id": format!("chatcmpl-{id}"), "object": object, "created": 1_767_225_600, "model": "sim-echo",
        "service_tier": "default", "system_fingerprint": "fp_simulator",
    })
}

fn usage() -> Value {
    json!({
        "prompt_tokens": 1, "completion_tokens": 6, "total_tokens": 7,
        "prompt_tokens_details": { "cached_tokens": 0, "audio_tokens": 0 },
        "completion_tokens_details": {
            "reasoning_tokens": 0, "audio_tokens": 0,
            "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0,
        },
    })
}

#[tokio::test]
async fn a_whole_completion() {
    let received = post(PATH, &body("sim-echo")).await;
    let json = received.json();
    let id = hex(&json["id"], "chatcmpl-");
    assert_eq!(received.header("x-request-id"), Some(format!("req_{id}").as_str()));
    let message = json!({ "role": "assistant", "content": HEARD, "refusal": null, "annotations": [] });
    let choices = json!([{ "index": 0, "message": message, "logprobs": null, "finish_reason": "stop" }]);
    let expected = with(envelope(&id, "chat.completion"), &json!({ "choices": choices, "usage": usage() }));
    assert_eq!(json, expected);
}

#[tokio::test]
async fn a_streamed_completion_with_and_without_usage() {
    let streamed = with(body("sim-echo"), &json!({ "stream": true }));
    let asking = with(streamed.clone(), &json!({ "stream_options": { "include_usage": true } }));
    for (body, usage_asked) in [(streamed, false), (asking, true)] {
        let events = post(PATH, &body).await.events();
        let id = hex(&events[0]["id"], "chatcmpl-");
        let chunk = |delta: Value, finish_reason: Option<&str>| {
            let choices =
                json!([{ "index": 0, "delta": delta, "logprobs": null, "finish_reason": finish_reason }]);
            let fields = json!({ "choices": choices, "usage": null });
            let mut chunk = with(envelope(&id, "chat.completion.chunk"), &fields);
            if !usage_asked {
                chunk.as_object_mut().unwrap().remove("usage");
            }
            chunk
        };
        let mut expected = vec![chunk(json!({ "role": "assistant", "content": "", "refusal": null }), None)];
        expected.extend(PIECES.map(|piece| chunk(json!({ "content": piece }), None)));
        expected.push(chunk(json!({}), Some("stop")));
        if usage_asked {
            let fields = json!({ "choices": [], "usage": usage() });
            expected.push(with(envelope(&id, "chat.completion.chunk"), &fields));
        }
        expected.push(json!("[DONE]"));
        assert_eq!(events, expected);
    }
}

#[tokio::test]
async fn a_tool_is_called_whole_and_streamed() {
    let parameters =
        json!({ "type": "object", "properties": { "n": { "type": "integer" } }, "required": ["n"] });
    let tool = json!({ "type": "function", "function": { "name": "add", "parameters": parameters } });
    let body = with(body("sim-tools"), &json!({ "tools": [tool] }));
    let whole = post(PATH, &body).await.json();
    let choice = &whole["choices"][0];
    let call = json!({
        "id": format!("call_{}", hex(&whole["id"], "chatcmpl-")),
        "type": "function",
        "function": { "name": "add", "arguments": r#"{"n":1}"# },
    });
    assert_eq!(
        (&choice["finish_reason"], &choice["message"]["content"]),
        (&json!("tool_calls"), &json!(null))
    );
    assert_eq!(choice["message"]["tool_calls"], json!([call]));

    let events = post(PATH, &with(body.clone(), &json!({ "stream": true }))).await.events();
    let first = &events[0]["choices"][0]["delta"]["tool_calls"][0];
    assert_eq!((&first["index"], &first["type"]), (&json!(0), &json!("function")));
    assert_eq!(first["function"], json!({ "name": "add", "arguments": "" }));
    let arguments: String = events[1..4]
        .iter()
        .map(|event| event["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"].as_str().unwrap())
        .collect();
    assert_eq!(arguments, r#"{"n":1}"#);
    assert_eq!(events[4]["choices"][0]["finish_reason"], "tool_calls");

    let mut answered = body;
    let result = json!({ "role": "tool", "tool_call_id": "call_1", "content": "hi" });
    answered["messages"].as_array_mut().unwrap().push(result);
    let echoed = post(PATH, &answered).await.json();
    assert_eq!(echoed["choices"][0]["message"]["content"], HEARD);
}

#[tokio::test]
async fn a_limit_cuts_the_completion() {
    let whole = post(PATH, &with(body("sim-echo"), &json!({ "max_completion_tokens": 2 }))).await.json();
    assert_eq!(whole["choices"][0]["message"]["content"], "The simu");
    assert_eq!(whole["choices"][0]["finish_reason"], "length");
    assert_eq!(whole["usage"]["completion_tokens"], 2);
}

#[tokio::test]
async fn an_error_has_the_protocols_form() {
    let received = post(PATH, &body("sim-error-401")).await;
    assert_eq!(received.status, StatusCode::UNAUTHORIZED);
    let error = json!({
        "message": "the model name asks the simulator for this status",
        "type": "invalid_request_error", "param": null, "code": "invalid_api_key",
    });
    assert_eq!(received.json(), json!({ "error": error }));
    let incomplete = post(PATH, &json!({ "model": "sim-echo" })).await;
    assert_eq!(incomplete.status, StatusCode::BAD_REQUEST);
    assert_eq!(incomplete.json()["error"]["param"], "messages");
}

#[tokio::test]
async fn embeddings_are_lists_of_vectors() {
    let body = json!({ "model": "sim-embed", "input": ["hello", "you"], "dimensions": 4 });
    let received = post("/v1/embeddings", &body).await;
    let json = received.json();
    assert_eq!((&json["object"], &json["model"]), (&json!("list"), &json!("sim-embed")));
    assert_eq!(json["usage"], json!({ "prompt_tokens": 3, "total_tokens": 3 }));
    assert_eq!(json["data"][1]["index"], 1);
    assert_eq!(json["data"][0]["embedding"].as_array().unwrap().len(), 4);
    let refused = post("/v1/embeddings", &json!({ "model": "sim-error-503", "input": "a" })).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
}
