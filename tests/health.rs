//! What a reply that fails in the middle tells of its account. The client has got a part of it by then, so the
//! call is lost; the next one is not.

use std::time::Duration;

use bytes::Bytes;
use shared::admin::AccountView;
use shared::domain::{AccountKind, Protocol};

use crate::support::daemon::setting;
use crate::support::{Ask, Call, Reply, Rig, Seen, Setup, Step, answer, until, upstream, wire};

const KINDS: [AccountKind; 3] =
    [AccountKind::ClaudeConsole, AccountKind::OpenaiResponses, AccountKind::GeminiApi];

async fn rig() -> Rig {
    let rig = Rig::bare(Setup::default().set(setting::IDLE_TIMEOUT_MS, 300)).await;
    for kind in KINDS {
        rig.add(kind, kind.name()).await;
    }
    rig
}

fn account(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Messages => KINDS[0].name(),
        Protocol::ChatCompletions | Protocol::Responses => KINDS[1].name(),
        Protocol::GenerateContent => KINDS[2].name(),
    }
}

async fn health(rig: &Rig, protocol: Protocol) -> (String, String) {
    let AccountView { health, .. } = rig.show(account(protocol)).await;
    (health.state, health.cause.unwrap_or_default())
}

/// A good beginning, up to something of an answer.
fn beginning(seen: &Seen) -> Vec<Bytes> {
    let mut events = seen.events();
    events.truncate(3);
    events
}

fn streamed(protocol: Protocol, prompt: &str) -> Call {
    Call::new(protocol, "m").streamed().prompt(prompt)
}

/// The error is all that tells: the stream ends in good order after it.
#[tokio::test]
async fn an_error_within_a_stream_counts_like_a_status() {
    let rig = rig().await;
    rig.upstream.script(|seen| {
        let mut events = beginning(seen);
        let status = if seen.json().to_string().contains("limited") { 429 } else { 529 };
        events.push(error_event(seen.protocol(), status));
        upstream::stream_of(events)
    });
    for protocol in Protocol::ALL {
        for (prompt, state) in [("overloaded", "overloaded"), ("limited", "limited")] {
            let answer = rig.client.call(&streamed(protocol, prompt)).await.expect(200);
            assert!(answer.text().contains("in the middle"), "{}", answer.text());
            let (found, cause) = health(&rig, protocol).await;
            assert_eq!(found, state, "{}: {cause}", protocol.name());
            assert!(!cause.is_empty());
            rig.resume(account(protocol)).await;
        }
    }
    assert_eq!(rig.daemon.output().matches("account rests").count(), 8);
}

fn error_event(protocol: Protocol, status: u16) -> Bytes {
    let (name, data) = match protocol {
        Protocol::Messages => {
            let kind = if status == 429 { "rate_limit_error" } else { "overloaded_error" };
            let error = serde_json::json!({"type": kind, "message": "in the middle"});
            ("event: error\n", serde_json::json!({"type": "error", "error": error}))
        }
        Protocol::ChatCompletions | Protocol::Responses => {
            let code = if status == 429 { "rate_limit_exceeded" } else { "server_is_overloaded" };
            let error = serde_json::json!({"message": "in the middle", "type": "error", "code": code});
            match protocol {
                Protocol::Responses => {
                    let response = serde_json::json!({"id": "resp_1", "status": "failed", "error": error});
                    let event = serde_json::json!({"type": "response.failed", "response": response});
                    ("event: response.failed\n", event)
                }
                _ => ("", serde_json::json!({"error": error})),
            }
        }
        Protocol::GenerateContent => ("", wire::error(protocol, status, "in the middle")),
    };
    format!("{name}data: {data}\n\n").into()
}

/// A stream that is one error and nothing else, its last line not ended: it says what it says all the same.
#[tokio::test]
async fn an_error_whose_event_was_not_ended_counts_like_a_status() {
    let rig = rig().await;
    rig.upstream.script(|seen| {
        let status = if seen.json().to_string().contains("limited") { 429 } else { 529 };
        let event = error_event(seen.protocol(), status);
        let begun =
            Reply::open_stream("text/event-stream").pieces([Bytes::from(event.trim_ascii_end().to_vec())]);
        if seen.json().to_string().contains("cut") { begun.then(Step::Close) } else { begun.end() }
    });
    for protocol in Protocol::ALL {
        for (prompt, state) in
            [("overloaded", "overloaded"), ("limited", "limited"), ("limited, cut", "limited")]
        {
            let told = rig.client.call(&streamed(protocol, prompt)).await;
            assert!([429, 503, 529].contains(&told.status), "{prompt}: {}", told.text());
            let (found, cause) = health(&rig, protocol).await;
            assert_eq!(found, state, "{}, {prompt}: {cause}", protocol.name());
            rig.resume(account(protocol)).await;
        }
    }
    let given_up: Vec<_> = rig.daemon.rows().await.into_iter().filter(|row| !row.usage.is_empty()).collect();
    assert!(given_up.is_empty(), "{given_up:?}");
}

#[tokio::test]
async fn a_mistake_of_the_clients_is_passed_on_though_its_event_was_not_ended() {
    let rig = rig().await;
    let error = r#"{"type":"error","error":{"type":"invalid_request_error","message":"in the middle"}}"#;
    let event = format!("event: error\ndata: {error}");
    let sent = event.clone();
    rig.upstream.script(move |_| upstream::stream_of(vec![sent.clone().into()]));
    let told = rig.client.call(&streamed(Protocol::Messages, "m")).await.expect(200);
    assert_eq!(told.text(), event);
    assert_eq!(rig.upstream.count(), 1);
    assert_eq!(health(&rig, Protocol::Messages).await, ("ok".to_owned(), String::new()));
}

/// An end that no call of its own can be blamed for once two of different content have met it.
fn cut_off(seen: &Seen) -> Reply {
    let begun = Reply::open_stream("text/event-stream").pieces(beginning(seen));
    match seen.model().as_str() {
        "ended" => begun.end(),
        "closed" => begun.then(Step::Close),
        "reset" => begun.then(Step::Pause(Duration::from_millis(30))).then(Step::Reset),
        "stalled" => begun.then(Step::Stall),
        "erred" => begun.pieces([wire::error_event(seen.protocol(), "in the middle")]).end(),
        _ => answer(seen),
    }
}

#[tokio::test]
async fn streams_that_are_cut_off_count_when_their_calls_differ() {
    let rig = rig().await;
    rig.upstream.script(cut_off);
    for end in ["ended", "closed", "reset", "stalled"] {
        for protocol in Protocol::ALL {
            let call = |prompt: &str| Call { model: end.to_owned(), ..streamed(protocol, prompt) };
            for _ in 0..3 {
                rig.client.call(&call("poison")).await.expect(200);
            }
            assert_eq!(health(&rig, protocol).await.0, "ok", "{end}, {}", protocol.name());
            rig.client.call(&call("another")).await.expect(200);
            let (state, cause) = health(&rig, protocol).await;
            let named = if end == "stalled" { "stalled" } else { "broke" };
            assert!(state == "overloaded" && cause.contains(named), "{end}: {state}, {cause}");
            rig.resume(account(protocol)).await;
        }
    }
    assert_eq!(rig.daemon.output().matches("account rests").count(), 16);
}

#[tokio::test]
async fn a_reply_to_its_end_refutes_the_suspicion() {
    let rig = rig().await;
    rig.upstream.script(cut_off);
    for protocol in Protocol::ALL {
        for round in 0..4 {
            let cut = streamed(protocol, &format!("number {round}"));
            rig.client.call(&Call { model: "stalled".to_owned(), ..cut }).await.expect(200);
            assert_eq!(health(&rig, protocol).await.0, "ok", "{}", protocol.name());
            rig.client.call(&streamed(protocol, "whole")).await.expect(200);
        }
    }
}

/// An error whose word says nothing about the account is one that the call may have caused.
#[tokio::test]
async fn an_unclear_error_within_a_stream_is_suspected() {
    let rig = rig().await;
    rig.upstream.script(cut_off);
    for protocol in [Protocol::ChatCompletions, Protocol::Responses] {
        let call = |prompt: &str| Call { model: "erred".to_owned(), ..streamed(protocol, prompt) };
        for _ in 0..2 {
            rig.client.call(&call("poison")).await.expect(200);
        }
        assert_eq!(health(&rig, protocol).await.0, "ok");
        rig.client.call(&call("another")).await.expect(200);
        assert_eq!(health(&rig, protocol).await.0, "overloaded");
        rig.resume(account(protocol)).await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_is_never_blamed_on_the_account() {
    let rig = rig().await;
    rig.upstream.script(|seen| {
        let piece = Step::Send(Bytes::from_static(b"4\r\n:x\n\n\r\n"));
        let begun = Reply::open_stream("text/event-stream").pieces(beginning(seen));
        (0..600)
            .fold(begun, |reply, _| reply.then(piece.clone()).then(Step::Pause(Duration::from_millis(50))))
    });
    for protocol in Protocol::ALL {
        for number in 0..3 {
            let mut open = rig.client.open(&streamed(protocol, &format!("number {number}"))).await;
            open.read_past(b":x\n\n").await;
            drop(open);
            let gone = 1 + number + 3 * Protocol::ALL.iter().position(|other| *other == protocol).unwrap();
            until("the call is given up", async || (rig.upstream.gone() == gone).then_some(())).await;
        }
        assert_eq!(health(&rig, protocol).await, ("ok".to_owned(), String::new()), "{}", protocol.name());
    }
}

/// Clients end the connection as soon as they read of an error.
#[tokio::test]
async fn an_error_counts_although_the_client_leaves_at_it() {
    let rig = rig().await;
    rig.upstream.script(|seen| {
        let error = error_event(seen.protocol(), 529);
        let begun = Reply::open_stream("text/event-stream").pieces(beginning(seen)).pieces([error]);
        begun.then(Step::Stall)
    });
    for protocol in Protocol::ALL {
        let mut open = rig.client.open(&streamed(protocol, "m")).await;
        open.read_past(b"in the middle").await;
        drop(open);
        until("it is told", async || (health(&rig, protocol).await.0 == "overloaded").then_some(())).await;
        rig.resume(account(protocol)).await;
    }
}

/// What every key may ask for without a limit must not take an account from those who work with it.
#[tokio::test]
async fn what_counting_is_refused_says_nothing_of_answers() {
    let rig = rig().await;
    for (status, header) in
        [(429, [("retry-after", "90")]), (529, [("retry-after", "90")]), (500, [("x", "y")])]
    {
        rig.upstream.script(move |seen| match seen.ask() {
            Ask::CountTokens(_) => Reply::error(seen.protocol(), status, &header),
            _ => answer(seen),
        });
        for (protocol, path) in [
            (Protocol::Messages, "/v1/messages/count_tokens"),
            (Protocol::GenerateContent, "/v1beta/models/m:countTokens"),
        ] {
            for prompt in ["one", "another"] {
                let body = Call::new(protocol, "m").prompt(prompt).body();
                assert!(rig.client.post(path, body).await.status >= 429);
            }
            rig.client.call(&Call::new(protocol, "m")).await.expect(200);
            rig.resume(account(protocol)).await;
        }
    }
}

#[tokio::test]
async fn an_account_that_rests_for_embeddings_answers() {
    let rig = rig().await;
    rig.upstream.script(|seen| match seen.ask() {
        Ask::Embed(_) => Reply::error(seen.protocol(), 429, &[("retry-after", "90")]),
        _ => answer(seen),
    });
    let embed = || rig.client.post("/v1/embeddings", r#"{"model":"m","input":"a"}"#);
    embed().await.expect(429);
    let (state, cause) = health(&rig, Protocol::ChatCompletions).await;
    assert!(state == "limited" && cause.contains("embed"), "{state}: {cause}");
    rig.client.call(&Call::new(Protocol::ChatCompletions, "m")).await.expect(200);
    let asked = rig.upstream.count();
    embed().await.expect(429);
    assert_eq!(rig.upstream.count(), asked, "an account that rests is not asked");
}

/// A refused credential is the account's, whatever it was used for.
#[tokio::test]
async fn a_credential_that_counting_shows_to_be_bad_is_bad_for_all() {
    let rig = rig().await;
    rig.upstream.script(|seen| Reply::error(seen.protocol(), 401, &[]));
    let body = Call::new(Protocol::Messages, "m").body();
    rig.client.post("/v1/messages/count_tokens", body).await.expect(503);
    assert_eq!(health(&rig, Protocol::Messages).await.0, "auth_failed");
    rig.client.call(&Call::new(Protocol::Messages, "m")).await.expect(503);
    assert_eq!(rig.upstream.count(), 1);
}

#[tokio::test]
async fn a_limit_of_one_model_leaves_the_others() {
    let rig = rig().await;
    rig.upstream.script(|seen| match seen.model().as_str() {
        "large" => {
            let message = "This would exceed the rate limit of 30,000 input tokens (model: large)";
            let headers = [("content-type", "application/json"), ("retry-after", "90")];
            Reply::whole(429, &headers, wire::error(seen.protocol(), 429, message).to_string())
        }
        "small" => Reply::error(seen.protocol(), 429, &[("retry-after", "90")]),
        _ => answer(seen),
    });
    for protocol in Protocol::ALL {
        let call = |model: &str| Call::new(protocol, model);
        rig.client.call(&call("large")).await.expect(429);
        let asked = rig.upstream.count();
        let refused = rig.client.call(&call("large")).await.expect(429);
        assert!(refused.header("retry-after").is_some());
        assert_eq!(rig.upstream.count(), asked, "it is not asked for a model that it has no more of");
        let (state, cause) = health(&rig, protocol).await;
        assert!(state == "limited" && cause.contains("model large"), "{state}: {cause}");
        rig.client.call(&call("m")).await.expect(200);
        // A limit that names no model is the account's.
        rig.client.call(&call("small")).await.expect(429);
        rig.client.call(&call("m")).await.expect(429);
        rig.resume(account(protocol)).await;
        rig.client.call(&call("m")).await.expect(200);
    }
}
