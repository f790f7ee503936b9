use super::*;

#[test]
fn each_kind_proves_itself_in_its_header() {
    const PLACES: [&str; 4] = ["authorization", "x-api-key", "x-goog-api-key", "api-key"];
    let messages = said(Messages, Generate);
    let chat = said(ChatCompletions, Generate);
    let generate = gemini("v1beta", "generateContent", Generate);
    let clients = [
        ("authorization", "Bearer cr_1"),
        ("x-api-key", "cr_1"),
        ("x-goog-api-key", "cr_1"),
        ("api-key", "cr_1"),
    ];
    for (kind, call, secret, expected) in [
        (ClaudeConsole, messages, "sk-ant-api03-1", Some(("x-api-key", "sk-ant-api03-1"))),
        (ClaudeConsole, messages, "other-1", Some(("authorization", "Bearer other-1"))),
        (Ccr, messages, "other-1", Some(("authorization", "Bearer other-1"))),
        (OpenaiResponses, chat, "sk-1", Some(("authorization", "Bearer sk-1"))),
        (GeminiApi, generate, "AIza1", Some(("x-goog-api-key", "AIza1"))),
        (AzureOpenai, chat, "az1", Some(("api-key", "az1"))),
        (Simulator, chat, "", None),
    ] {
        let account = account(kind, "https://a.test");
        let request = built(&account, secret, Said { headers: &clients, ..call }).unwrap();
        for request in [request, probed(&account, secret)] {
            let found: Vec<_> = PLACES
                .into_iter()
                .flat_map(|place| request.headers().get_all(place).iter().map(move |value| (place, value)))
                .collect();
            for (place, value) in &found {
                assert!(value.is_sensitive(), "{kind} {place}");
            }
            let found: Vec<_> =
                found.iter().map(|(place, value)| (*place, value.to_str().unwrap())).collect();
            assert_eq!(found, expected.into_iter().collect::<Vec<_>>(), "{kind}");
            assert!(!format!("{:?}", request.headers()).contains(secret) || secret.is_empty(), "{kind}");
        }
    }
}

#[test]
fn a_secret_that_no_header_can_carry_is_an_error() {
    let account = account(OpenaiResponses, "https://a.test");
    let result = built(&account, "line\nbreak", said(Responses, Generate));
    assert!(matches!(result, Err(ProviderError::Invalid(_))), "{result:?}");
}

#[test]
fn what_clients_say_of_themselves_goes_on() {
    let sent = [
        ("accept", "text/event-stream"),
        ("anthropic-beta", "claude-code-20250219"),
        ("anthropic-beta", "effort-2025-11-24"),
        ("anthropic-dangerous-direct-browser-access", "true"),
        ("anthropic-version", "2026-10-21"),
        ("content-type", "application/json; charset=utf-8"),
        ("idempotency-key", "1"),
        ("openai-beta", "responses=v1"),
        ("originator", "codex_exec"),
        ("session-id", "s1"),
        ("session_id", "s1"),
        ("thread-id", "t1"),
        ("user-agent", "claude-cli/2.1.197 (external, sdk-cli)"),
        ("x-app", "cli"),
        ("x-claude-code-session-id", "c1"),
        ("x-client-request-id", "r1"),
        ("x-codex-window-id", "w1"),
        ("x-goog-api-client", "google-genai-sdk/3"),
        ("x-stainless-lang", "python"),
    ];
    for (kind, call) in [
        (ClaudeConsole, said(Messages, Generate)),
        (OpenaiResponses, said(Responses, Generate)),
        (GeminiApi, gemini("v1", "generateContent", Generate)),
        (AzureOpenai, said(ChatCompletions, Generate)),
    ] {
        let request = built(&account(kind, "https://a.test"), "s", Said { headers: &sent, ..call }).unwrap();
        for (name, value) in sent {
            assert!(request.headers().get_all(name).iter().any(|sent| sent == value), "{kind} {name}");
        }
        assert_eq!(request.headers().get_all("anthropic-beta").iter().count(), 2);
    }
}

#[test]
fn what_is_not_for_the_upstream_stays_here() {
    let sent = [
        ("accept-encoding", "br, gzip"),
        ("connection", "keep-alive, x-app"),
        ("content-encoding", "gzip"),
        ("content-length", "4711"),
        ("cookie", "session=1"),
        ("expect", "100-continue"),
        ("forwarded", "for=192.0.2.1"),
        ("host", "relay.test"),
        ("origin", "https://page.test"),
        ("openai-organization", "org-1"),
        ("openai-project", "proj-1"),
        ("proxy-authorization", "Basic 1"),
        ("referer", "https://page.test"),
        ("session-token", "1"),
        ("te", "trailers"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
        ("via", "1.1 proxy"),
        ("x-amz-security-token", "1"),
        ("x-forwarded-for", "192.0.2.1"),
        ("x-forwarded-host", "relay.test"),
        ("x-goog-user-project", "p"),
        ("x-real-ip", "192.0.2.1"),
        ("x-simulator-settings", "{}"),
    ];
    for kind in AccountKind::ALL {
        for operation in [Generate, CountTokens, Embed] {
            for &protocol in provider(kind).speaks(operation) {
                let method = GeminiMethod { version: "v1", name: "x" };
                let call = Said {
                    gemini: (protocol == GenerateContent).then_some(method),
                    headers: &sent,
                    ..said(protocol, operation)
                };
                let request = built(&account(kind, "https://a.test"), "s", call).unwrap();
                for (name, _) in sent.iter().filter(|(name, _)| !["accept-encoding", "host"].contains(name)) {
                    assert!(!request.headers().contains_key(*name), "{kind} {protocol:?} forwards {name}");
                }
                let encodings: Vec<_> = request.headers().get_all("accept-encoding").iter().collect();
                assert_eq!(encodings, ["identity"], "{kind}");
                assert_eq!(request.headers()["host"], "a.test", "{kind}");
            }
        }
    }
}

#[test]
fn what_clients_leave_out_is_filled_in() {
    let ours = format!("relayd/{}", env!("CARGO_PKG_VERSION"));
    for (kind, call) in [
        (ClaudeConsole, said(Messages, Generate)),
        (OpenaiResponses, said(Responses, Generate)),
        (GeminiApi, gemini("v1", "generateContent", Generate)),
        (AzureOpenai, said(ChatCompletions, Generate)),
        (Simulator, said(Messages, Generate)),
    ] {
        let account = account(kind, "https://a.test");
        let request = built(&account, "s", call).unwrap();
        assert_eq!(request.headers()["user-agent"], ours.as_str(), "{kind}");
        assert_eq!(request.headers()["accept"], "*/*");
        assert_eq!(request.headers()["content-type"], "application/json");
        let probe = probed(&account, "s");
        assert_eq!(probe.headers()["user-agent"], ours.as_str(), "{kind}");
        assert!(!probe.headers().contains_key("content-type"), "a probe has no body");
        let version = request.headers().get("anthropic-version").map(HeaderValue::as_bytes);
        assert_eq!(version, (kind == ClaudeConsole).then_some(&b"2023-06-01"[..]), "{kind}");
    }
}

#[test]
fn an_accounts_headers_win_but_not_over_its_credential() {
    let own = [
        ("anthropic-beta", "operators"),
        ("anthropic-version", "2024-01-01"),
        ("authorization", "Bearer operators"),
        ("user-agent", "operators/1"),
        ("x-team", "blue"),
    ];
    let own = own.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let account = Account { headers: own, ..account(ClaudeConsole, "https://a.test") };
    let sent = [
        ("anthropic-beta", "one"),
        ("anthropic-beta", "two"),
        ("anthropic-version", "2026-10-21"),
        ("user-agent", "client/1"),
    ];
    let request = built(&account, "s", Said { headers: &sent, ..said(Messages, Generate) }).unwrap();
    for (name, expected) in [
        ("anthropic-beta", "operators"),
        ("anthropic-version", "2024-01-01"),
        ("authorization", "Bearer s"),
        ("user-agent", "operators/1"),
        ("x-team", "blue"),
    ] {
        let values: Vec<_> = request.headers().get_all(name).iter().collect();
        assert_eq!(values, [expected], "{name}");
    }
}

#[test]
fn a_simulator_is_told_how_to_behave() {
    let settings = shared::domain::account::SimulatorSettings { error_percent: 7, ..Default::default() };
    let plain = account(Simulator, "http://simulator");
    let set = Account { simulator: Some(settings), ..plain.clone() };
    let call = said(Messages, Generate);
    let told = built(&set, "", call).unwrap().headers()["x-simulator-settings"].to_str().unwrap().to_owned();
    assert_eq!(serde_json::from_str::<shared::domain::account::SimulatorSettings>(&told).unwrap(), settings);
    assert!(!built(&plain, "", call).unwrap().headers().contains_key("x-simulator-settings"));
}
