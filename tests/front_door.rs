//! The routes: every path that real clients use, and what is told at the others.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::{Method, Request};
use serde_json::json;
use shared::admin::{AddAccount, CreateKey};
use shared::domain::{AccountKind, Family, Protocol};
use shared::redact::Secret;

use crate::support::client::{Raw, status_of};
use crate::support::{Answer, Call, Client, Reply, Rig, Setup, admin, answer};

/// The usual accounts and one of Azure. Those of OpenAI's family serve a model of their own each: several kinds
/// speak the same protocols.
async fn rig() -> Rig {
    let rig = Rig::bare(Setup::default()).await;
    for (kind, name, models) in [
        (AccountKind::ClaudeConsole, "claude", &["claude-*", "m"][..]),
        (AccountKind::OpenaiResponses, "openai", &["m"]),
        (AccountKind::GeminiApi, "gemini", &["m"]),
        (AccountKind::AzureOpenai, "azure", &["azure-m"]),
    ] {
        let models = models.iter().map(|model| (*model).into()).collect();
        rig.daemon.call(&AddAccount { models, ..rig.account(kind, name) }).await;
    }
    rig
}

async fn without_a_key(rig: &Rig, method: Method, path: &str) -> Answer {
    let uri = format!("http://{}{path}", rig.daemon.address());
    let request = Request::builder().method(method).uri(uri).body(Full::default()).unwrap();
    rig.client.send(request).await.rest().await
}

#[tokio::test]
async fn every_path_of_every_protocol_reaches_its_account() {
    let rig = rig().await;
    let messages = Call::new(Protocol::Messages, "m").body();
    let chat = Call::new(Protocol::ChatCompletions, "m").body();
    let responses = Call::new(Protocol::Responses, "m").body();
    let gemini = Call::new(Protocol::GenerateContent, "m").body();
    let embed = json!({"model": "m", "input": "hi"}).to_string().into();
    let embed_gemini = json!({"content": {"parts": [{"text": "hi"}]}}).to_string().into();
    let azure_chat = Call::new(Protocol::ChatCompletions, "azure-m").body();
    let azure_responses = Call::new(Protocol::Responses, "azure-m").body();
    let azure_embed = json!({"model": "azure-m", "input": "hi"}).to_string().into();
    for (path, body, sent_to) in [
        ("/v1/messages", &messages, "/v1/messages"),
        ("/v1/messages?beta=true", &messages, "/v1/messages"),
        ("/api/v1/messages", &messages, "/v1/messages"),
        ("/claude/v1/messages", &messages, "/v1/messages"),
        ("/api/claude/v1/messages", &messages, "/v1/messages"),
        ("/claude/claude/v1/messages", &messages, "/v1/messages"),
        ("/api/v1/messages/count_tokens?beta=true", &messages, "/v1/messages/count_tokens"),
        ("/claude/v1/messages/count_tokens", &messages, "/v1/messages/count_tokens"),
        ("/v1/messages/count_tokens", &messages, "/v1/messages/count_tokens"),
        ("/openai/v1/responses", &responses, "/v1/responses"),
        ("/openai/responses", &responses, "/v1/responses"),
        ("/v1/responses", &responses, "/v1/responses"),
        ("/openai/v1/chat/completions", &chat, "/v1/chat/completions"),
        ("/openai/chat/completions", &chat, "/v1/chat/completions"),
        ("/v1/chat/completions", &chat, "/v1/chat/completions"),
        ("/openai/v1/embeddings", &embed, "/v1/embeddings"),
        ("/v1/embeddings", &embed, "/v1/embeddings"),
        ("/openai/deployments/m/chat/completions?api-version=2024-10-21", &chat, "/v1/chat/completions"),
        ("/gemini/v1beta/models/m:generateContent", &gemini, "/v1beta/models/m:generateContent"),
        ("/gemini/v1/models/m:generateContent", &gemini, "/v1/models/m:generateContent"),
        ("/v1beta/models/m:generateContent", &gemini, "/v1beta/models/m:generateContent"),
        ("/v1/models/m:generateContent", &gemini, "/v1/models/m:generateContent"),
        ("/v1beta/models/m:streamGenerateContent?alt=sse", &gemini, "/v1beta/models/m:streamGenerateContent"),
        ("/gemini/v1beta/models/m:streamGenerateContent", &gemini, "/v1beta/models/m:streamGenerateContent"),
        ("/gemini/v1beta/models/m:countTokens", &gemini, "/v1beta/models/m:countTokens"),
        ("/v1beta/models/m:embedContent", &embed_gemini, "/v1beta/models/m:embedContent"),
        ("/azure/chat/completions", &azure_chat, "/openai/deployments/azure-m/chat/completions"),
        ("/azure/responses", &azure_responses, "/openai/responses"),
        ("/azure/embeddings", &azure_embed, "/openai/deployments/azure-m/embeddings"),
        (
            "/azure/deployments/azure-m/chat/completions",
            &chat,
            "/openai/deployments/azure-m/chat/completions",
        ),
        ("/openai/deployments/azure-m/embeddings", &embed, "/openai/deployments/azure-m/embeddings"),
        ("/v1/chat/completions", &azure_chat, "/openai/deployments/azure-m/chat/completions"),
    ] {
        rig.upstream.take_seen();
        rig.client.post(path, body.clone()).await.expect(200);
        let seen = rig.upstream.take_seen();
        assert_eq!((seen[0].method.as_str(), seen[0].path.as_str()), ("POST", sent_to), "{path}");
    }
}

#[tokio::test]
async fn anthropics_own_keys_and_those_of_compatible_servers_go_where_each_expects_its() {
    for (kind, secret, x_api_key, authorization) in [
        (AccountKind::ClaudeConsole, "sk-ant-of-anthropic", Some("sk-ant-of-anthropic"), None),
        (AccountKind::ClaudeConsole, "of-another", None, Some("Bearer of-another")),
        (AccountKind::Ccr, "of-another", None, Some("Bearer of-another")),
    ] {
        let rig = Rig::bare(Setup::default()).await;
        let account = rig.account(kind, "claude");
        rig.daemon.call(&AddAccount { secret: Some(Secret::new(secret)), ..account }).await;
        for path in ["/v1/messages", "/v1/messages/count_tokens"] {
            let body =
                Call::new(Protocol::Messages, if kind == AccountKind::Ccr { "ccr,m" } else { "m" }).body();
            rig.client.post(path, body).await.expect(200);
            let seen = rig.upstream.take_seen();
            let sent = (seen[0].header("x-api-key"), seen[0].header("authorization"));
            assert_eq!(sent, (x_api_key, authorization), "{secret} at {path}");
        }
    }
}

#[tokio::test]
async fn azure_is_called_as_azure_wants_it() {
    let rig = Rig::bare(Setup::default()).await;
    let account = rig.account(AccountKind::AzureOpenai, "azure");
    let account = AddAccount { api_version: Some("2025-01-01".into()), ..account };
    rig.daemon.call(&account).await;
    rig.client.call(&Call::new(Protocol::ChatCompletions, "my gpt")).await.expect(200);
    let seen = rig.upstream.take_seen();
    assert_eq!(seen[0].path, "/openai/deployments/my%20gpt/chat/completions");
    assert_eq!(seen[0].query.as_deref(), Some("api-version=2025-01-01"));
    assert_eq!(
        (seen[0].header("api-key"), seen[0].header("authorization")),
        (Some("sk-upstream-azure"), None)
    );
}

#[tokio::test]
async fn ccr_models_lose_their_prefix() {
    let rig = Rig::bare(Setup::default()).await;
    rig.add(AccountKind::Ccr, "ccr").await;
    rig.client.call(&Call::new(Protocol::Messages, "ccr,deepseek")).await.expect(200);
    assert_eq!(rig.upstream.take_seen()[0].model(), "deepseek");
    rig.client.call(&Call::new(Protocol::Messages, "deepseek")).await.expect(404);
}

#[tokio::test]
async fn probes_and_telemetry_need_no_key() {
    let rig = rig().await;
    for path in ["/", "/api", "/claude"] {
        let answer = without_a_key(&rig, Method::HEAD, path).await.expect(200);
        assert!(answer.body.is_empty(), "{path}: {}", answer.text());
        assert_eq!(without_a_key(&rig, Method::GET, path).await.expect(200).json()["service"], "relayd");
    }
    for path in ["/api/event_logging/batch", "/api/api/event_logging/batch"] {
        let answer = without_a_key(&rig, Method::POST, path).await.expect(200);
        assert_eq!(answer.json()["success"], true, "{path}");
    }
    let health = without_a_key(&rig, Method::GET, "/health").await.expect(200).json();
    assert!(health["status"].is_string(), "{health}");
    assert!(health.to_string().contains("store"), "{health}");
    assert_eq!(rig.upstream.count(), 0);
}

#[tokio::test]
async fn web_socket_upgrades_are_refused_fast() {
    let rig = rig().await;
    for path in ["/v1/responses", "/openai/responses", "/v1/realtime"] {
        let mut raw = Raw::connect(rig.daemon.address()).await;
        let asked = Instant::now();
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: relay\r\nauthorization: Bearer {}\r\nconnection: Upgrade\r\n\
             upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
             openai-beta: responses_websockets=2026-02-06\r\n\r\n",
            rig.key
        );
        raw.send(request.as_bytes()).await.unwrap();
        // The connection is closed too: the client falls back to POST on a new one.
        let reply = raw.read_to_end().await;
        assert_eq!(status_of(&reply), 426, "{reply}");
        assert!(reply.contains("\"error\"") && reply.contains("POST"), "{reply}");
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    }
    assert_eq!(rig.upstream.count(), 0);
}

#[tokio::test]
async fn unknown_paths_name_the_nearest_route() {
    let rig = rig().await;
    for (path, nearest) in [
        ("/v1/mesages", "/v1/messages"),
        ("/v1/chat/completion", "/v1/chat/completions"),
        ("/openai/v1/response", "/openai/v1/responses"),
        ("/api/v1/message", "/api/v1/messages"),
        ("/gemini/v1beta/model", "/gemini/v1beta/models"),
    ] {
        let told = rig.client.post(path, "{}").await.expect(404);
        assert!(told.text().contains(&format!("{nearest}\"")), "{path}: {}", told.text());
    }
    // What is near to nothing is told where calls go. A path as long as a head may be costs no more than another.
    let long = format!("/{}", "v1/".repeat(10_000));
    for path in ["/favicon.ico", "/v2/complete", &long] {
        let told = rig.client.post(path, "{}").await.expect(404);
        let text = told.text();
        assert!(text.contains("/v1/messages, /v1/chat/completions") && !text.contains("nearest"), "{text}");
    }
    let told = rig.client.get("/v1/messages").await.expect(405);
    assert!(told.header("allow").is_some_and(|allow| allow.contains("POST")));
}

async fn get(client: &Client, path: &str) -> serde_json::Value {
    client.get(path).await.expect(200).json()
}

#[tokio::test]
async fn owners_see_their_key_and_its_usage() {
    let rig = rig().await;
    rig.client.call(&Call::new(Protocol::Messages, "m")).await.expect(200);
    rig.daemon.settled().await;
    for prefix in ["", "/api", "/claude"] {
        let info = get(&rig.client, &format!("{prefix}/v1/key-info")).await;
        assert!(info["keyInfo"]["id"].as_str().is_some_and(|id| id.starts_with("key_")), "{info}");
        assert_eq!(info["keyInfo"]["name"], "everything");
        let usage = get(&rig.client, &format!("{prefix}/v1/usage")).await;
        assert!(usage["usage"].is_object(), "{usage}");
        assert_eq!(get(&rig.client, &format!("{prefix}/v1/me")).await["type"], "user");
    }
    for path in ["/openai/key-info", "/openai/usage", "/gemini/key-info", "/gemini/usage", "/azure/usage"] {
        let told = get(&rig.client, path).await;
        assert!(told.is_object() && !told.to_string().contains(&rig.key), "{path}: {told}");
    }
    without_a_key(&rig, Method::GET, "/v1/key-info").await.expect(401);
}

#[tokio::test]
async fn connections_are_kept_alive() {
    let rig = rig().await;
    let mut raw = Raw::connect(rig.daemon.address()).await;
    for path in ["/health", "/v1/models", "/nowhere", "/v1/messages"] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: relay\r\nx-api-key: {}\r\n\r\n", rig.key);
        raw.send(request.as_bytes()).await.unwrap();
        let head = raw.read_head().await.to_lowercase();
        // The rest of the body is read with the next head, which is looked for in what comes after it.
        assert!(head.contains("x-relay-request-id: req_"), "{path}: {head}");
        assert!(!head.contains("connection: close"), "{path}: {head}");
    }
}

/// A reply of every kind, good and bad, each with the status that it must have.
async fn replies(rig: &Rig) -> Vec<(u16, Answer)> {
    let post = async |path: &str, body: &[u8], header: (&str, &str)| {
        let request = rig.client.request(Method::POST, path).header(header.0, header.1);
        rig.client.send(request.body(Full::new(body.to_vec().into())).unwrap()).await.rest().await
    };
    let none = ("x-none", "1");
    let of = |model: &str| Call::new(Protocol::Messages, model).body();
    let stranger = rig.daemon.client("cr_stranger");
    let limited = CreateKey {
        limits: vec!["1 request in total".parse().unwrap()],
        permissions: vec![Family::Claude],
        ..admin::key("limited")
    };
    let limited = rig.client_of(&limited).await;
    limited.call(&Call::new(Protocol::Messages, "m")).await.expect(200);
    vec![
        (200, post("/v1/messages", &of("m"), none).await),
        (200, rig.client.call(&Call::new(Protocol::Messages, "m").streamed()).await),
        (200, post("/v1/messages/count_tokens", &of("m"), none).await),
        (200, rig.client.get("/v1/models").await),
        (200, without_a_key(rig, Method::GET, "/health").await),
        (200, without_a_key(rig, Method::HEAD, "/").await),
        (200, without_a_key(rig, Method::POST, "/api/event_logging/batch").await),
        (400, post("/v1/messages", b"{", none).await),
        (401, stranger.call(&Call::new(Protocol::Messages, "m")).await),
        (403, limited.call(&Call::new(Protocol::GenerateContent, "m")).await),
        (404, rig.client.get("/nowhere").await),
        (404, post("/v1/messages", &of("unknown"), none).await),
        (404, rig.client.get("/v1/models/unknown").await),
        (405, rig.client.get("/v1/messages").await),
        (405, without_a_key(rig, Method::OPTIONS, "/v1/messages").await),
        (415, post("/v1/messages", &of("m"), ("content-encoding", "br")).await),
        (426, post("/v1/messages", &of("m"), ("upgrade", "websocket")).await),
        (429, limited.call(&Call::new(Protocol::Messages, "m")).await),
        // The upstream's own.
        (400, post("/v1/messages", &of("claude-400"), none).await),
        (422, rig.client.call(&Call::new(Protocol::Messages, "claude-422").streamed()).await),
        (500, post("/v1/messages", &of("claude-500"), none).await),
        // That we were refused is our own affair.
        (503, post("/v1/messages", &of("claude-401"), none).await),
    ]
}

#[tokio::test]
async fn every_reply_bears_an_id_of_its_own() {
    let rig = rig().await;
    rig.upstream.script(|seen| match seen.model().strip_prefix("claude-") {
        Some(status) => Reply::error(seen.protocol(), status.parse().unwrap(), &[]),
        None => answer(seen),
    });
    let mut ids = BTreeSet::new();
    for (number, (status, reply)) in replies(&rig).await.into_iter().enumerate() {
        assert_eq!(reply.status, status, "reply {number}: {}", reply.text());
        let id = reply.header("x-relay-request-id").unwrap_or_else(|| panic!("reply {number} has no id"));
        id.parse::<shared::domain::RequestId>().unwrap();
        assert!(ids.insert(id.to_owned()), "reply {number} has the id of another");
        // `x-request-id` is the upstream's, and there is none where it was not asked.
        if let Some(theirs) = reply.header("x-request-id") {
            assert_eq!(theirs, "req_upstream");
        }
        if status >= 400 && reply.header("x-request-id").is_none() && reply.json()["type"] == "error" {
            assert_eq!(reply.json()["request_id"], id, "reply {number}");
        }
    }
}

#[tokio::test]
async fn the_upstreams_id_passes_with_whole_replies_streams_and_errors() {
    let rig = rig().await;
    for call in [Call::new(Protocol::Messages, "m"), Call::new(Protocol::Responses, "m").streamed()] {
        assert_eq!(rig.client.call(&call).await.expect(200).header("x-request-id"), Some("req_upstream"));
    }
    rig.upstream.script(|seen| Reply::error(seen.protocol(), 400, &[]));
    for protocol in Protocol::ALL {
        let refused = rig.client.call(&Call::new(protocol, "m")).await.expect(400);
        assert_eq!(refused.header("x-request-id"), Some("req_upstream"));
    }
    let own = rig.client.post("/v1/messages", "{").await.expect(400);
    assert_eq!(own.header("x-request-id"), None);
}
