use super::*;

fn path(model: &str, method: &str) -> String {
    format!("/v1beta/models/{model}:{method}")
}

fn body() -> Value {
    json!({ "contents": [{ "role": "user", "parts": [{ "text": "hi" }] }] })
}

fn response(id: &str, text: &str, finish_reason: Option<&str>, output_tokens: u64) -> Value {
    let mut candidate = json!({ "content": { "parts": [{ "text": text }], "role": "model" } });
    if let Some(reason) = finish_reason {
        candidate["finishReason"] = json!(reason);
    }
    json!({
        "candidates": [candidate],
        "usageMetadata": {
            "promptTokenCount": 1, "candidatesTokenCount": output_tokens, "totalTokenCount": 1 + output_tokens,
            "promptTokensDetails": [{ "modality": "TEXT", "tokenCount": 1 }],
        },
        "modelVersion": "sim-echo",
        "responseId": id,
    })
}

/// The pieces with the tokens so far, and the end.
fn stream(id: &str) -> Vec<Value> {
    vec![
        response(id, PIECES[0], None, 2),
        response(id, PIECES[1], None, 4),
        response(id, PIECES[2], None, 6),
        response(id, "", Some("STOP"), 6),
    ]
}

#[tokio::test]
async fn a_whole_response() {
    let json = post(&path("sim-echo", "generateContent"), &body()).await.json();
    let id = hex(&json["responseId"], "");
    assert_eq!(json, response(&id, HEARD, Some("STOP"), 6));
}

#[tokio::test]
async fn a_stream_of_events() {
    let received = post(&path("sim-echo", "streamGenerateContent?alt=sse"), &body()).await;
    assert_eq!(received.header("content-type"), Some("text/event-stream"));
    let data = received.text.split_terminator("\r\n\r\n").map(|event| event.strip_prefix("data: ").unwrap());
    let events: Vec<Value> = data.map(|data| serde_json::from_str(data).unwrap()).collect();
    assert_eq!(events, stream(&hex(&events[0]["responseId"], "")));
}

#[tokio::test]
async fn a_stream_of_array_elements() {
    let received = post("/v1/models/sim-echo:streamGenerateContent", &body()).await;
    assert_eq!(received.header("content-type"), Some("application/json; charset=UTF-8"));
    let json = received.json();
    assert_eq!(json, json!(stream(&hex(&json[0]["responseId"], ""))));
    assert_eq!(received.text.matches("}\r\n,\r\n{").count(), 3);
    assert!(received.text.ends_with("}\r\n]"));
}

#[tokio::test]
async fn a_tool_is_called_in_one_piece() {
    let parameters =
        json!({ "type": "OBJECT", "properties": { "n": { "type": "INTEGER" } }, "required": ["n"] });
    let tools = json!([{ "functionDeclarations": [{ "name": "add", "parameters": parameters }] }]);
    let asked = with(body(), &json!({ "tools": tools }));
    let whole = post(&path("sim-tools", "generateContent"), &asked).await.json();
    let id = hex(&whole["responseId"], "");
    let call = json!({ "id": format!("call_{id}"), "name": "add", "args": { "n": 1 } });
    let candidate = &whole["candidates"][0];
    assert_eq!(candidate["content"]["parts"], json!([{ "functionCall": call }]));
    assert_eq!(candidate["finishReason"], "STOP");

    let streamed = post(&path("sim-tools", "streamGenerateContent"), &asked).await.json();
    let streamed = streamed.as_array().unwrap();
    assert_eq!(streamed.len(), 2);
    let call = &streamed[0]["candidates"][0]["content"]["parts"][0]["functionCall"];
    assert_eq!((&call["name"], &call["args"]), (&json!("add"), &json!({ "n": 1 })));
    assert_eq!(streamed[1]["candidates"][0]["finishReason"], "STOP");
    assert_eq!(streamed[1]["usageMetadata"]["candidatesTokenCount"], 3);
}

#[tokio::test]
async fn a_limit_cuts_the_response() {
    let cut = with(body(), &json!({ "generationConfig": { "maxOutputTokens": 2 } }));
    let whole = post(&path("sim-echo", "generateContent"), &cut).await.json();
    assert_eq!(whole["candidates"][0]["finishReason"], "MAX_TOKENS");
    assert_eq!(whole["candidates"][0]["content"]["parts"], json!([{ "text": "The simu" }]));

    let nothing = with(body(), &json!({ "generationConfig": { "maxOutputTokens": 0 } }));
    let empty = post(&path("sim-echo", "streamGenerateContent"), &nothing).await.json();
    assert_eq!(empty.as_array().unwrap().len(), 1);
    assert!(empty[0]["usageMetadata"].get("candidatesTokenCount").is_none());
}

#[tokio::test]
async fn tokens_are_counted_and_texts_embedded() {
    let counted = post(&path("sim-echo", "countTokens"), &body()).await.json();
    let details = json!([{ "modality": "TEXT", "tokenCount": 1 }]);
    assert_eq!(counted, json!({ "totalTokens": 1, "promptTokensDetails": details }));

    let content = json!({ "content": { "parts": [{ "text": "hi" }] }, "outputDimensionality": 3 });
    let one = post(&path("sim-embed", "embedContent"), &content).await.json();
    assert_eq!(one["embedding"]["values"].as_array().unwrap().len(), 3);
    assert_eq!(one["usageMetadata"], json!({ "promptTokenCount": 1 }));
    let many = json!({ "requests": [content, content] });
    let many = post(&path("sim-embed", "batchEmbedContents"), &many).await.json();
    assert_eq!(many["embeddings"], json!([one["embedding"], one["embedding"]]));
}

#[tokio::test]
async fn an_error_has_the_protocols_form_also_in_an_array() {
    let limited = post(&path("sim-error-429", "generateContent"), &body()).await;
    assert_eq!((limited.status.as_u16(), limited.header("retry-after")), (429, Some("7")));
    let error = limited.json()["error"].clone();
    assert_eq!((&error["code"], &error["status"]), (&json!(429), &json!("RESOURCE_EXHAUSTED")));
    let array = post(&path("sim-error-529", "streamGenerateContent"), &body()).await;
    assert_eq!(array.json()[0]["error"]["status"], "UNAVAILABLE");
    let events = post(&path("sim-error-529", "streamGenerateContent?alt=sse"), &body()).await;
    assert_eq!(events.json()["error"]["code"], 529);
}
