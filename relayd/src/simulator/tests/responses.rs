use super::*;

const PATH: &str = "/v1/responses";

fn body(model: &str) -> Value {
    json!({ "model": model, "input": "hi", "temperature": 0.5 })
}

fn usage() -> Value {
    json!({
        "input_tokens": 1, "input_tokens_details": { "cached_tokens": 0, "cache_write_tokens": 0 },
        "output_tokens": 6, "output_tokens_details": { "reasoning_tokens": 0 }, "total_tokens": 7,
    })
}

fn response(id: &str, over: bool, output: &Value) -> Value {
    json!({
        "id": format!("resp_{id}"), "object": "response", "created_at": 1_767_225_600, "model": "sim-echo",
        "completed_at": over.then_some(1_767_225_600),
        "status": if over { "completed" } else { "in_progress" },
        "error": null, "incomplete_details": null, "service_tier": "default",
        "output": output, "usage": over.then(usage),
        "background": false, "instructions": null, "max_output_tokens": null, "max_tool_calls": null,
        "metadata": {}, "parallel_tool_calls": true, "previous_response_id": null, "prompt_cache_key": null,
        "reasoning": { "effort": null, "summary": null }, "safety_identifier": null, "store": true,
        "temperature": 0.5, "text": { "format": { "type": "text" } }, "tool_choice": "auto", "tools": [],
        "top_p": 1.0, "truncation": "disabled", "user": null,
    })
}

fn part(text: &str) -> Value {
    json!({ "type": "output_text", "text": text, "annotations": [], "logprobs": [] })
}

fn item(id: &str, status: &str, content: &Value) -> Value {
    json!({
        "id": format!("msg_{id}"), "type": "message", "role": "assistant", "status": status, "content": content,
    })
}

#[tokio::test]
async fn a_whole_response() {
    let json = post(PATH, &body("sim-echo")).await.json();
    let id = hex(&json["id"], "resp_");
    assert_eq!(json, response(&id, true, &json!([item(&id, "completed", &json!([part(HEARD)]))])));
}

#[tokio::test]
async fn a_streamed_response() {
    let events = post(PATH, &with(body("sim-echo"), &json!({ "stream": true }))).await.events();
    let id = hex(&events[0]["response"]["id"], "resp_");
    let (begun, done) = (item(&id, "in_progress", &json!([])), item(&id, "completed", &json!([part(HEARD)])));
    let at = json!({ "item_id": format!("msg_{id}"), "output_index": 0, "content_index": 0 });
    let delta = |text: &str| {
        with(at.clone(), &json!({ "type": "response.output_text.delta", "delta": text, "logprobs": [] }))
    };
    let text_done = json!({ "type": "response.output_text.done", "text": HEARD, "logprobs": [] });
    let mut expected = vec![
        json!({ "type": "response.created", "response": response(&id, false, &json!([])) }),
        json!({ "type": "response.in_progress", "response": response(&id, false, &json!([])) }),
        json!({ "type": "response.output_item.added", "output_index": 0, "item": begun }),
        with(at.clone(), &json!({ "type": "response.content_part.added", "part": part("") })),
        delta(PIECES[0]),
        delta(PIECES[1]),
        delta(PIECES[2]),
        with(at.clone(), &text_done),
        with(at.clone(), &json!({ "type": "response.content_part.done", "part": part(HEARD) })),
        json!({ "type": "response.output_item.done", "output_index": 0, "item": done }),
        json!({ "type": "response.completed", "response": response(&id, true, &json!([done])) }),
    ];
    for (number, event) in expected.iter_mut().enumerate() {
        event["sequence_number"] = json!(number);
    }
    assert_eq!(events, expected);
}

#[tokio::test]
async fn a_tool_is_called_whole_and_streamed() {
    let parameters =
        json!({ "type": "object", "properties": { "n": { "type": "integer" } }, "required": ["n"] });
    let tools = json!([{ "type": "function", "name": "add", "parameters": parameters, "strict": true }]);
    let body = with(body("sim-tools"), &json!({ "tools": tools }));
    let whole = post(PATH, &body).await.json();
    let id = hex(&whole["id"], "resp_");
    let call = |id: &str, status: &str, arguments: &str| {
        json!({
            "id": format!("fc_{id}"), "type": "function_call", "status": status,
            "call_id": format!("call_{id}"), "name": "add", "arguments": arguments,
        })
    };
    assert_eq!(whole["output"], json!([call(&id, "completed", r#"{"n":1}"#)]));
    assert_eq!((&whole["status"], &whole["tools"]), (&json!("completed"), &tools));

    let events = post(PATH, &with(body, &json!({ "stream": true }))).await.events();
    let delta = "response.function_call_arguments.delta";
    let expected = [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        delta,
        delta,
        delta,
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ];
    assert_eq!(types(&events), expected);
    let id = hex(&events[0]["response"]["id"], "resp_");
    assert_eq!(events[2]["item"], call(&id, "in_progress", ""));
    let pieces: String = events[3..6].iter().map(|event| event["delta"].as_str().unwrap()).collect();
    assert_eq!((pieces.as_str(), &events[6]["arguments"]), (r#"{"n":1}"#, &json!(r#"{"n":1}"#)));
    assert_eq!(events[7]["item"], call(&id, "completed", r#"{"n":1}"#));
    let numbers: Vec<usize> =
        events.iter().map(|event| event["sequence_number"].to_string().parse().unwrap()).collect();
    assert_eq!(numbers, (0..9).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_limit_leaves_the_response_incomplete() {
    let cut = with(body("sim-echo"), &json!({ "max_output_tokens": 2 }));
    let whole = post(PATH, &cut).await.json();
    assert_eq!((&whole["status"], &whole["completed_at"]), (&json!("incomplete"), &json!(null)));
    assert_eq!(whole["incomplete_details"], json!({ "reason": "max_output_tokens" }));
    assert_eq!(whole["output"][0]["content"][0]["text"], "The simu");

    let events = post(PATH, &with(cut, &json!({ "stream": true }))).await.events();
    let last = events.last().unwrap();
    assert_eq!(
        (&last["type"], &last["response"]["status"]),
        (&json!("response.incomplete"), &json!("incomplete"))
    );

    let nothing = with(body("sim-echo"), &json!({ "max_output_tokens": 0, "stream": true }));
    let events = post(PATH, &nothing).await.events();
    assert_eq!(types(&events), ["response.created", "response.in_progress", "response.incomplete"]);
}

#[tokio::test]
async fn an_error_has_the_protocols_form() {
    let received = post(PATH, &with(body("sim-error-429"), &json!({ "stream": true }))).await;
    assert_eq!((received.status.as_u16(), received.header("retry-after")), (429, Some("7")));
    let error = received.json()["error"].clone();
    assert_eq!((&error["type"], &error["code"]), (&json!("requests"), &json!("rate_limit_exceeded")));
}
