//! The routes: every path that real clients use, and what is told at the others.

use http_body_util::Full;
use hyper::{Method, Request};
use serde_json::json;
use shared::admin::AddAccount;
use shared::domain::{AccountKind, Protocol};
use shared::redact::Secret;

use crate::support::client::{Raw, status_of};
use crate::support::{Answer, Call, Client, Rig, Setup};

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
        let answer = without_a_key(&rig, Method::HEAD, path).await;
        assert!(answer.status < 500 && answer.body.is_empty(), "{path}: {}", answer.status);
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
    for path in ["/v1/responses", "/openai/responses"] {
        let mut raw = Raw::connect(rig.daemon.address()).await;
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: relay\r\nauthorization: Bearer {}\r\nconnection: Upgrade\r\n\
             upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
             openai-beta: responses_websockets=2026-02-06\r\n\r\n",
            rig.key
        );
        raw.send(request.as_bytes()).await.unwrap();
        assert!([404, 405, 426].contains(&status_of(&raw.read_head().await)));
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
    ] {
        let told = rig.client.post(path, "{}").await.expect(404);
        assert!(told.text().contains(nearest), "{path}: {}", told.text());
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
async fn connections_are_kept_alive_and_every_reply_bears_an_id() {
    let rig = rig().await;
    let mut raw = Raw::connect(rig.daemon.address()).await;
    for path in ["/health", "/v1/models", "/nowhere"] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: relay\r\nx-api-key: {}\r\n\r\n", rig.key);
        raw.send(request.as_bytes()).await.unwrap();
        let head = raw.read_head().await.to_lowercase();
        assert!(head.contains("x-relay-request-id: req_"), "{path}: {head}");
        // The rest of the body is read with the next head, which is looked for in what comes after it.
        assert!(!head.contains("connection: close"), "{path}: {head}");
    }
}
