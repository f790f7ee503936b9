//! The built-in simulator, reached through the same path as any upstream.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shared::admin::{CreateKey, UpdateAccount};
use shared::domain::account::SimulatorSettings;
use shared::domain::{AccountKind, Protocol, Provenance, UsageClass};

use crate::support::{Answer, Call, Rig, Setup, admin};

fn fast() -> SimulatorSettings {
    SimulatorSettings { latency_ms: 0, chunks: 6, chunk_gap_ms: 0, error_percent: 0 }
}

async fn rig(settings: SimulatorSettings) -> Rig {
    let rig = Rig::bare(Setup::default()).await;
    let account = rig.account(AccountKind::Simulator, "sim");
    rig.daemon.call(&shared::admin::AddAccount { simulator: Some(settings), ..account }).await;
    rig
}

async fn set(rig: &Rig, settings: SimulatorSettings) {
    let change =
        UpdateAccount { account: "sim".into(), simulator: Some(settings), ..UpdateAccount::default() };
    rig.daemon.call(&change).await;
}

/// Prompt and answer tokens as the reply itself reports them.
fn reported(protocol: Protocol, answer: &Answer) -> (u64, u64) {
    let body = answer.json();
    let count = |path: &str| body.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    match protocol {
        Protocol::Messages => (count("/usage/input_tokens"), count("/usage/output_tokens")),
        Protocol::ChatCompletions => (count("/usage/prompt_tokens"), count("/usage/completion_tokens")),
        Protocol::Responses => (count("/usage/input_tokens"), count("/usage/output_tokens")),
        Protocol::GenerateContent => (
            count("/usageMetadata/promptTokenCount"),
            count("/usageMetadata/candidatesTokenCount") + count("/usageMetadata/thoughtsTokenCount"),
        ),
    }
}

#[tokio::test]
async fn usage_is_exact_in_every_protocol_streamed_or_not() {
    let rig = rig(fast()).await;
    for protocol in Protocol::ALL {
        let call = |model: &str| Call::new(protocol, model).prompt("Count these words, please.");
        let whole = format!("sim-whole-{}", protocol.name());
        let answer = rig.client.call(&call(&whole)).await.expect(200);
        let row = rig.daemon.row(&whole).await;
        let booked = (row.usage.prompt_tokens(), row.usage.answer_tokens());
        assert_eq!(booked, reported(protocol, &answer), "{}", answer.text());
        assert!(booked.0 > 0 && booked.1 > 0, "{booked:?}");
        assert_eq!(row.provenance, Provenance::Measured);

        let streamed = format!("sim-strea-{}", protocol.name());
        rig.client.call(&call(&streamed).streamed()).await.expect(200);
        let row = rig.daemon.row(&streamed).await;
        assert_eq!((row.usage.prompt_tokens(), row.usage.answer_tokens()), booked);
        assert_eq!((row.end.as_str(), row.provenance), ("complete", Provenance::Measured));
    }
}

#[tokio::test]
async fn usage_follows_from_the_input() {
    let rig = rig(fast()).await;
    let mut amounts = BTreeMap::new();
    for (name, words) in [("sim-a", 10), ("sim-b", 10), ("sim-c", 1_000)] {
        let call = Call::new(Protocol::Messages, name).prompt("word ".repeat(words));
        rig.client.call(&call).await.expect(200);
        amounts.insert(name, rig.daemon.row(name).await.usage[UsageClass::Input]);
    }
    assert_eq!(amounts["sim-a"], amounts["sim-b"]);
    assert!(amounts["sim-c"] > amounts["sim-a"] * 10, "{amounts:?}");
}

#[tokio::test]
async fn tools_are_called_on_request() {
    let rig = rig(fast()).await;
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
    for (path, body, place) in [
        (
            "/v1/messages",
            json!({"max_tokens": 64, "messages": [{"role": "user", "content": "hi"}],
                "tools": [{"name": "get_weather", "input_schema": schema}]}),
            "tool_use",
        ),
        (
            "/v1/chat/completions",
            json!({"messages": [{"role": "user", "content": "hi"}],
                "tools": [{"type": "function", "function": {"name": "get_weather", "parameters": schema}}]}),
            "tool_calls",
        ),
        (
            "/v1/responses",
            json!({"input": "hi", "tools": [{"type": "function", "name": "get_weather", "parameters": schema}]}),
            "function_call",
        ),
        (
            "/v1beta/models/sim-tools:generateContent",
            json!({"contents": [{"role": "user", "parts": [{"text": "hi"}]}],
                "tools": [{"functionDeclarations": [{"name": "get_weather", "parameters": schema}]}]}),
            "functionCall",
        ),
    ] {
        let mut body = body;
        if !path.contains("sim-tools") {
            body["model"] = json!("sim-tools");
        }
        let answer = rig.client.post(path, body.to_string()).await.expect(200);
        let text = answer.text();
        assert!(text.contains(place) && text.contains("get_weather") && text.contains("city"), "{text}");
    }
}

#[tokio::test]
async fn latency_chunks_and_errors_are_settable() {
    let rig = rig(SimulatorSettings { latency_ms: 300, chunks: 40, chunk_gap_ms: 5, error_percent: 0 }).await;
    let call = Call::new(Protocol::Messages, "sim-m").prompt("word ".repeat(200)).streamed();
    let asked = Instant::now();
    let answer = rig.client.call(&call).await.expect(200);
    assert!(asked.elapsed() >= Duration::from_millis(300 + 39 * 5), "{:?}", asked.elapsed());
    assert_eq!(answer.text().matches("content_block_delta\n").count(), 40, "{}", answer.text());

    set(&rig, SimulatorSettings { error_percent: 100, ..fast() }).await;
    for protocol in Protocol::ALL {
        let change = UpdateAccount { account: "sim".into(), paused: Some(false), ..UpdateAccount::default() };
        rig.daemon.call(&change).await;
        let failed = rig.client.call(&Call::new(protocol, "sim-m")).await;
        assert!([503, 529].contains(&failed.status), "{}", failed.text());
        failed.error_message(protocol);
    }
    assert_eq!(rig.show("sim").await.health.state, "overloaded");
}

#[tokio::test]
async fn it_never_joins_a_real_pool() {
    let rig = rig(fast()).await;
    rig.client.call(&Call::new(Protocol::Messages, "claude-opus-4-5")).await.expect(404);
    rig.add(AccountKind::ClaudeConsole, "claude").await;
    for _ in 0..10 {
        rig.client.call(&Call::new(Protocol::Messages, "claude-opus-4-5")).await.expect(200);
    }
    assert_eq!(rig.upstream.take_seen().len(), 10);
    let sims = (0..10).map(|_| rig.client.clone());
    for client in sims {
        client.call(&Call::new(Protocol::Messages, "sim-echo")).await.expect(200);
    }
    assert!(rig.upstream.take_seen().is_empty(), "a sim-* model was sent to a real account");
    // A key that is bound to the simulator gets it by that.
    let bound = CreateKey { accounts: vec!["sim".into()], ..admin::key("bound") };
    let bound = rig.client_of(&bound).await;
    bound.call(&Call::new(Protocol::Messages, "sim-echo")).await.expect(200);
    assert!(rig.upstream.take_seen().is_empty());
}
