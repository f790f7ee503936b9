//! Who may come in and what they may ask for.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http_body_util::Full;
use hyper::{Method, Request};
use shared::admin::{CreateKey, DeleteKey, KeyView, ListKeys, ShowKey, SumUsage, UpdateKey, UsageBy};
use shared::domain::{AccountKind, Family, Protocol, Timestamp};

use crate::support::client::{Raw, status_of};
use crate::support::daemon::setting;
use crate::support::{Answer, Call, Client, Rig, Setup, admin, until};

const UNKNOWN: &str = "cr_0000000000000000000000000000000000000000000000000000000000000000";

async fn show(rig: &Rig, key: &str) -> KeyView {
    rig.daemon.call(&ShowKey { key: key.to_owned() }).await
}

fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp::from_millis(i64::try_from(since_epoch.as_millis()).unwrap())
}

async fn update(rig: &Rig, change: UpdateKey) -> KeyView {
    rig.daemon.call(&change).await
}

/// Posts a call of the protocol with nothing but the given header, or the given query.
async fn present(rig: &Rig, protocol: Protocol, header: Option<(&str, String)>, query: &str) -> Answer {
    let call = Call::new(protocol, "m");
    let uri = format!("http://{}{}{query}", rig.daemon.address(), call.path());
    let mut request = Request::builder().method(Method::POST).uri(uri);
    if let Some((name, value)) = header {
        request = request.header(name, value);
    }
    rig.client.send(request.body(Full::new(call.body())).unwrap()).await.rest().await
}

#[tokio::test]
async fn keys_are_taken_from_five_places_and_never_passed_on() {
    let rig = Rig::start().await;
    let key = rig.key.clone();
    let headers = [
        Some(("authorization", format!("Bearer {key}"))),
        Some(("authorization", format!("bearer {key}"))),
        Some(("x-api-key", key.clone())),
        Some(("x-goog-api-key", key.clone())),
        Some(("api-key", key.clone())),
        None,
    ];
    for protocol in Protocol::ALL {
        for header in &headers {
            let query = if header.is_none() { format!("?key={key}") } else { String::new() };
            present(&rig, protocol, header.clone(), &query).await.expect(200);
            let seen = rig.upstream.take_seen();
            let seen = format!("{:?}", seen.first().expect("the upstream was not called"));
            assert!(!seen.contains(&key), "the key was passed on: {seen}");
            let own = ["claude", "openai", "gemini"];
            assert!(own.iter().any(|name| seen.contains(&format!("upstream-{name}"))), "{seen}");
        }
    }
}

#[tokio::test]
async fn both_credential_headers_at_once_are_stripped() {
    let rig = Rig::start().await;
    let request = rig.client.request(Method::POST, "/v1/messages").header("x-api-key", &rig.key);
    let body = Full::new(Call::new(Protocol::Messages, "m").body());
    rig.client.send(request.body(body).unwrap()).await.rest().await.expect(200);
    let seen = rig.upstream.take_seen();
    assert_eq!(seen[0].header("x-api-key"), Some("sk-ant-upstream-claude"));
    assert_eq!(seen[0].header("authorization"), None);
}

#[tokio::test]
async fn no_key_and_unknown_keys_are_refused_in_the_protocol() {
    let rig = Rig::start().await;
    for protocol in Protocol::ALL {
        for header in
            [None, Some(("authorization", format!("Bearer {UNKNOWN}"))), Some(("x-api-key", "x".into()))]
        {
            let refused = present(&rig, protocol, header, "").await.expect(401);
            refused.error_message(protocol);
            assert!(refused.header("x-relay-request-id").is_some_and(|id| id.starts_with("req_")));
        }
    }
    assert_eq!(rig.upstream.count(), 0);
}

#[tokio::test]
async fn refusal_does_not_wait_for_the_body() {
    let rig = Rig::start().await;
    let mut raw = Raw::connect(rig.daemon.address()).await;
    let head = format!(
        "POST /v1/messages HTTP/1.1\r\nhost: relay\r\nx-api-key: {UNKNOWN}\r\ncontent-length: 50000000\r\n\r\n"
    );
    raw.send(head.as_bytes()).await.unwrap();
    assert_eq!(status_of(&raw.read_head().await), 401);
}

#[tokio::test]
async fn guessing_is_throttled_but_valid_keys_are_not() {
    let rig = Rig::start().await;
    let guesser = rig.daemon.client(UNKNOWN);
    let call = Call::new(Protocol::Messages, "m");
    let mut throttled = None;
    for _ in 0..2_000 {
        let refused = guesser.call(&call).await;
        if refused.status == 429 {
            throttled = Some(refused);
            break;
        }
        refused.expect(401);
    }
    let throttled = throttled.expect("two thousand guesses were judged");
    throttled.error_message(Protocol::Messages);
    let wait: u64 = throttled.header("retry-after").unwrap().parse().unwrap();
    assert!(wait >= 1, "{wait}");
    rig.client.call(&call).await.expect(200);
    assert_eq!(rig.upstream.count(), 1);
}

/// The status that a guess gets which says that it comes from these addresses.
async fn guess(rig: &Rig, forwarded_for: &str) -> u16 {
    let client = rig.daemon.client(UNKNOWN);
    let request = client.request(Method::POST, "/v1/messages").header("x-forwarded-for", forwarded_for);
    let body = Full::new(Call::new(Protocol::Messages, "m").body());
    client.send(request.body(body).unwrap()).await.rest().await.status
}

#[tokio::test]
async fn addresses_are_throttled_one_by_one_behind_a_trusted_proxy() {
    let setup =
        Setup::default().set(setting::FAILURES_MAX, 2).set(setting::TRUSTED_PROXIES, "127.0.0.0/8, ::1");
    let rig = Rig::bare(setup).await;
    for (forwarded_for, status) in [
        ("198.51.100.1", 401),
        ("198.51.100.1", 401),
        ("198.51.100.1", 429),
        ("198.51.100.2", 401),
        // What the client itself wrote in front changes nothing, nor does a proxy behind the first.
        ("203.0.113.7, 198.51.100.1", 429),
        ("198.51.100.1, 127.0.0.9", 429),
        ("198.51.100.1, 198.51.100.3", 401),
        // Whoever has one address of an IPv6 network has them all.
        ("2001:db8::1", 401),
        ("2001:db8::2", 401),
        ("2001:db8::3", 429),
    ] {
        assert_eq!(guess(&rig, forwarded_for).await, status, "{forwarded_for}");
    }
    rig.add(AccountKind::ClaudeConsole, "claude").await;
    let request = rig.client.request(Method::POST, "/v1/messages").header("x-forwarded-for", "198.51.100.1");
    let body = Full::new(Call::new(Protocol::Messages, "m").body());
    rig.client.send(request.body(body).unwrap()).await.rest().await.expect(200);
}

#[tokio::test]
async fn nobody_elses_forwarded_addresses_are_believed() {
    for setup in [Setup::default(), Setup::default().set(setting::TRUSTED_PROXIES, "10.0.0.0/8")] {
        let rig = Rig::bare(setup.set(setting::FAILURES_MAX, 2)).await;
        for (forwarded_for, status) in [("198.51.100.1", 401), ("198.51.100.2", 401), ("198.51.100.3", 429)] {
            assert_eq!(guess(&rig, forwarded_for).await, status, "{forwarded_for}");
        }
    }
}

#[tokio::test]
async fn a_throttled_address_may_guess_again_after_the_window() {
    let setup = Setup::default().set(setting::FAILURES_MAX, 1).set(setting::FAILURES_WINDOW_MS, 1_000);
    let rig = Rig::bare(setup).await;
    until("it is throttled", async || (guess(&rig, "").await == 429).then_some(())).await;
    until("it is judged again", async || (guess(&rig, "").await == 401).then_some(())).await;
}

#[tokio::test]
async fn a_key_can_be_disabled_enabled_and_deleted() {
    let rig = Rig::start().await;
    let key = rig.daemon.call(&admin::key("alice")).await;
    let client = rig.daemon.client(key.key.expose());
    let call = Call::new(Protocol::Messages, "m");
    client.call(&call).await.expect(200);
    assert_eq!(show(&rig, "alice").await.state, "active");

    let change =
        |disabled| UpdateKey { key: "alice".into(), disabled: Some(disabled), ..UpdateKey::default() };
    assert_eq!(update(&rig, change(true)).await.state, "disabled");
    client.call(&call).await.expect(401).error_message(Protocol::Messages);
    assert_eq!(update(&rig, change(false)).await.state, "active");
    client.call(&call).await.expect(200);

    rig.daemon.call(&DeleteKey { key: "alice".into() }).await;
    client.call(&call).await.expect(401);
    let listed = |keys: Vec<KeyView>| keys.iter().any(|view| view.id == key.id);
    assert!(!listed(rig.daemon.call(&ListKeys { deleted: false }).await));
    assert!(listed(rig.daemon.call(&ListKeys { deleted: true }).await));
    // Its usage stays, and its name is free again.
    rig.daemon.settled().await;
    let rows = SumUsage { by: UsageBy::Key, since: None, until: None, key: None, account: None, model: None };
    let rows = rig.daemon.call(&rows).await;
    let row = rows.iter().find(|row| row.id.as_deref() == Some(key.id.as_str())).expect("no usage");
    assert_eq!((row.name.as_str(), row.requests), ("alice", 2));
    rig.daemon.call(&admin::key("alice")).await;
}

#[tokio::test]
async fn a_key_expires() {
    let rig = Rig::start().await;
    let past = Some(Timestamp::from_millis(1_000));
    let never_lived = CreateKey { expires_at: past, ..admin::key("past") };
    assert!(rig.daemon.try_call(&never_lived).await.is_err(), "a key was born dead");

    let soon = Some(now().after(Duration::from_secs(3)));
    let late = rig.client_of(&CreateKey { expires_at: soon, ..admin::key("late") }).await;
    let call = Call::new(Protocol::Messages, "m");
    late.call(&call).await.expect(200);
    until("the key expires", async || (late.call(&call).await.status == 401).then_some(())).await;
    let refused = late.call(&call).await.expect(401);
    assert!(refused.error_message(Protocol::Messages).contains("expired"), "{}", refused.text());
    assert_eq!(show(&rig, "late").await.state, "expired");
    update(&rig, UpdateKey { key: "late".into(), never_expires: true, ..UpdateKey::default() }).await;
    late.call(&call).await.expect(200);
}

#[tokio::test]
async fn life_begins_with_the_first_use_once() {
    let mut rig = Rig::start().await;
    let key = CreateKey { valid_s_from_first_use: Some(3_600), ..admin::key("waiting") };
    let key = rig.daemon.call(&key).await.key.expose().to_owned();
    let client = rig.daemon.client(&key);
    let view = show(&rig, "waiting").await;
    assert_eq!((view.state.as_str(), view.expires_at), ("waiting", None));
    let calls: Vec<_> = (0..8)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.call(&Call::new(Protocol::Messages, "m")).await.status })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), 200);
    }
    let view = show(&rig, "waiting").await;
    assert_eq!(view.state, "active");
    let end = view.expires_at.expect("no end was set");
    rig.daemon.kill();
    rig.start_again().await;
    rig.daemon.client(&key).call(&Call::new(Protocol::Messages, "m")).await.expect(200);
    assert_eq!(show(&rig, "waiting").await.expires_at, Some(end), "the first use counted twice");
}

#[tokio::test]
async fn a_short_life_ends_by_itself() {
    let rig = Rig::start().await;
    let client = rig.client_of(&CreateKey { valid_s_from_first_use: Some(1), ..admin::key("brief") }).await;
    let call = Call::new(Protocol::Messages, "m");
    client.call(&call).await.expect(200);
    until("the key expires", async || (client.call(&call).await.status == 401).then_some(())).await;
    assert_eq!(show(&rig, "brief").await.state, "expired");
}

#[tokio::test]
async fn permissions_are_judged_by_the_account_that_would_serve() {
    let rig = Rig::start().await;
    let families = [
        (Protocol::Messages, Family::Claude),
        (Protocol::ChatCompletions, Family::Openai),
        (Protocol::Responses, Family::Openai),
        (Protocol::GenerateContent, Family::Gemini),
    ];
    for family in [Family::Claude, Family::Openai, Family::Gemini] {
        let key = CreateKey { permissions: vec![family], ..admin::key(family.name()) };
        let client = rig.client_of(&key).await;
        for (protocol, needed) in families {
            let answer = client.call(&Call::new(protocol, "m")).await;
            if needed == family {
                answer.expect(200);
            } else {
                answer.expect(403).error_message(protocol);
            }
        }
    }
}

#[tokio::test]
async fn a_key_can_be_bound_to_accounts() {
    let rig = Rig::start().await;
    rig.add(AccountKind::ClaudeConsole, "second").await;
    let bound = rig.client_of(&CreateKey { accounts: vec!["second".into()], ..admin::key("bound") }).await;
    for _ in 0..4 {
        bound.call(&Call::new(Protocol::Messages, "m")).await.expect(200);
    }
    assert!(rig.upstream.take_seen().iter().all(|seen| seen.account == "second"));
    // What only others could serve is not permitted, whatever protocol they speak.
    let refused = bound.call(&Call::new(Protocol::GenerateContent, "m")).await.expect(403);
    refused.error_message(Protocol::GenerateContent);
}

async fn models(client: &Client, path: &str) -> String {
    client.get(path).await.expect(200).text()
}

#[tokio::test]
async fn model_lists_allow_and_deny() {
    let rig = Rig::bare(Setup::default()).await;
    for (kind, name) in [(AccountKind::ClaudeConsole, "claude"), (AccountKind::GeminiApi, "gemini")] {
        let models = vec!["good-1".into(), "good-bad".into(), "other".into()];
        rig.daemon.call(&shared::admin::AddAccount { models, ..rig.account(kind, name) }).await;
    }
    let lists = CreateKey {
        allow_models: vec!["good-*".into()],
        deny_models: vec!["*-bad".into()],
        ..admin::key("lists")
    };
    let client = rig.client_of(&lists).await;
    for protocol in [Protocol::Messages, Protocol::GenerateContent] {
        for (model, status) in [("good-1", 200), ("good-bad", 403), ("other", 403)] {
            let answer = client.call(&Call::new(protocol, model)).await.expect(status);
            if status == 403 {
                let message = answer.error_message(protocol);
                assert!(message.contains(model), "{message}");
            }
        }
    }
    for path in ["/v1/models", "/api/v1/models", "/openai/v1/models", "/v1beta/models", "/gemini/v1/models"] {
        let listed = models(&client, path).await;
        assert!(listed.contains("good-1"), "{path}: {listed}");
        assert!(!listed.contains("good-bad") && !listed.contains("\"other\""), "{path}: {listed}");
    }
}
