//! What an account's settings and the way of asking change.

use std::time::{Duration, Instant};

use super::*;

const PATH: &str = "/v1/chat/completions";

fn body(model: &str, fields: &Value) -> Value {
    with(json!({ "model": model, "messages": [{ "role": "user", "content": "hi" }] }), fields)
}

/// The chunks that carry words.
fn pieces(received: &Received) -> usize {
    let has_words =
        |event: &&Value| event["choices"][0]["delta"]["content"].as_str().is_some_and(|s| !s.is_empty());
    received.events().iter().filter(has_words).count()
}

#[tokio::test]
async fn a_stream_has_as_many_pieces_as_the_account_says() {
    let mut caller = Caller::new().await;
    let long = body("sim-long", &json!({ "stream": true, "max_tokens": 30_000 }));
    for (chunks, expected) in [(0_u64, 1), (1, 1), (50, 50), (10_000, 10_000), (4_000_000_000, 10_000)] {
        let settings = json!({ "latency_ms": 0, "chunk_gap_ms": 0, "chunks": chunks }).to_string();
        assert_eq!(pieces(&caller.post(PATH, &settings, &long).await), expected);
    }
    let short = caller
        .post(
            PATH,
            r#"{"latency_ms":0,"chunk_gap_ms":0,"chunks":500}"#,
            &with(long, &json!({ "model": "sim-echo" })),
        )
        .await;
    assert_eq!(pieces(&short), HEARD.len());
}

#[tokio::test]
async fn waits_come_before_the_first_byte_and_between_pieces() {
    let streamed = json!({ "stream": true });
    for (model, settings, least_ms) in [
        ("sim-echo", r#"{"latency_ms":40,"chunk_gap_ms":0,"chunks":3}"#, 40),
        ("sim-echo", r#"{"latency_ms":0,"chunk_gap_ms":20,"chunks":3}"#, 40),
        ("sim-slow", r#"{"latency_ms":2,"chunk_gap_ms":1,"chunks":3}"#, 80),
    ] {
        let begun = Instant::now();
        let received = Caller::new().await.post(PATH, settings, &body(model, &streamed)).await;
        assert_eq!(received.status, StatusCode::OK);
        assert!(begun.elapsed() >= Duration::from_millis(least_ms), "{model} {settings}");
    }
}

#[tokio::test]
async fn the_head_is_sent_before_the_last_piece() {
    let mut caller = Caller::new().await;
    let settings = r#"{"latency_ms":0,"chunk_gap_ms":600000,"chunks":2}"#;
    let request = Request::post(PATH).header(SETTINGS_HEADER, settings);
    let asked = body("sim-echo", &json!({ "stream": true })).to_string();
    let response = caller.0.send_request(request.body(Bytes::from(asked).into()).unwrap()).await.unwrap();
    let mut stream = response.into_body();
    let mut text = String::new();
    while !text.contains("The simu") {
        let data = stream.frame().await.unwrap().unwrap().into_data().unwrap();
        text += std::str::from_utf8(&data).unwrap();
    }
    assert!(!text.contains("DONE"));
}

#[tokio::test]
async fn the_error_rate_is_exact_over_connections() {
    // No other test uses this rate, so that the row of calls is its own.
    let settings = r#"{"latency_ms":0,"chunk_gap_ms":0,"error_percent":23}"#;
    let (mut one, mut other) = (Caller::new().await, Caller::new().await);
    let mut failed = 0;
    for call in 0..200 {
        let caller = if call % 3 == 0 { &mut one } else { &mut other };
        let received = caller.post(PATH, settings, &body("sim-echo", &json!({}))).await;
        if received.status != StatusCode::OK {
            assert_eq!(received.status.as_u16(), 529);
            assert_eq!(received.json()["error"]["message"], "Overloaded");
            failed += 1;
        }
    }
    assert_eq!(failed, 46);
}

#[tokio::test]
async fn what_is_no_request_is_refused() {
    let mut caller = Caller::new().await;
    for malformed in ["", "{", "[]", "null", "\"text\"", "{\"model\":"] {
        let request = Request::post("/v1/messages").header(SETTINGS_HEADER, QUICK);
        let received = caller.send(request.body(Bytes::from(malformed).into()).unwrap()).await;
        assert_eq!(received.status, StatusCode::BAD_REQUEST, "{malformed}");
        assert_eq!(received.json()["error"]["type"], "invalid_request_error");
    }
    let nowhere = caller.post("/v2/anything", QUICK, &json!({})).await;
    assert_eq!(nowhere.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn models_are_listed_in_the_askers_form() {
    let mut caller = Caller::new().await;
    for (path, header, pointer, expected) in [
        ("/v1/models", "authorization", "/data/0/object", "model"),
        ("/v1/models?limit=5", "anthropic-version", "/data/0/type", "model"),
        ("/v1/models", "x-goog-api-key", "/models/0/name", "models/sim-echo"),
        ("/v1beta/models", "x-goog-api-key", "/models/0/name", "models/sim-echo"),
    ] {
        let request = Request::get(path).header(SETTINGS_HEADER, QUICK).header(header, "x");
        let received = caller.send(request.body(Full::default()).unwrap()).await;
        assert_eq!(received.json().pointer(pointer), Some(&json!(expected)), "{path} {header}");
    }
}

#[tokio::test]
async fn answers_of_one_connection_have_their_own_ids() {
    let mut caller = Caller::new().await;
    let first = caller.post(PATH, QUICK, &body("sim-echo", &json!({}))).await.json();
    let second = caller.post(PATH, QUICK, &body("sim-echo", &json!({}))).await.json();
    assert_ne!(first["id"], second["id"]);
}
