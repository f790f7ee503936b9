//! A session stays with its account, so that the vendor's prompt cache stays warm.

use bytes::Bytes;
use http_body_util::Full;
use hyper::Method;
use serde_json::{Value, json};
use shared::admin::{AddAccount, CreateKey, UpdateAccount};
use shared::domain::{AccountKind, Protocol};

use crate::support::{Call, Client, Reply, Rig, Setup, admin, answer};

const CALLS: usize = 4;

/// Two accounts of the same standing for every kind of client protocol.
async fn pairs() -> Rig {
    let rig = Rig::bare(Setup::default()).await;
    for kind in [AccountKind::ClaudeConsole, AccountKind::OpenaiResponses, AccountKind::GeminiApi] {
        for side in ["left", "right"] {
            rig.add(kind, &format!("{side}-{}", kind.name())).await;
        }
    }
    rig
}

/// A call of a session, by a header or by a field of the body, and the account that got it.
async fn asked(rig: &Rig, client: &Client, protocol: Protocol, session: &Session) -> String {
    let call = Call::new(protocol, "m");
    let mut body: Value = serde_json::from_slice(&call.body()).unwrap();
    let mut request = client.request(Method::POST, &call.path());
    match session {
        Session::None => {}
        Session::Header(name, value) => request = request.header(*name, *value),
        Session::Field(name, value) => body[*name] = value.clone(),
    }
    let body = Full::new(Bytes::from(body.to_string()));
    client.send(request.body(body).unwrap()).await.rest().await.expect(200);
    rig.upstream.take_seen()[0].account.clone()
}

enum Session {
    None,
    Header(&'static str, &'static str),
    Field(&'static str, Value),
}

#[tokio::test]
async fn sessions_stay_with_their_account_and_other_calls_take_turns() {
    let rig = pairs().await;
    let claude_code = json!({"user_id": "{\"device_id\":\"d\",\"session_id\":\"from-metadata\"}"});
    for (protocol, session) in [
        (Protocol::Messages, Session::Header("x-claude-code-session-id", "from-header")),
        (Protocol::Messages, Session::Field("metadata", claude_code)),
        (Protocol::Responses, Session::Header("session_id", "from-header")),
        (Protocol::Responses, Session::Field("prompt_cache_key", json!("from-body"))),
        (Protocol::ChatCompletions, Session::Field("session_id", json!("from-body"))),
        (Protocol::GenerateContent, Session::Header("x-session-id", "from-header")),
    ] {
        let own = asked(&rig, &rig.client, protocol, &session).await;
        let mut others = Vec::new();
        for _ in 0..CALLS {
            others.push(asked(&rig, &rig.client, protocol, &Session::None).await);
            assert_eq!(asked(&rig, &rig.client, protocol, &session).await, own, "{}", protocol.name());
        }
        // Without a session, the account that was used less recently is next.
        assert!(others.iter().any(|other| *other != own), "{own}: {others:?}");
    }
}

#[tokio::test]
async fn keys_do_not_share_sessions() {
    let rig = pairs().await;
    let session = Session::Header("x-claude-code-session-id", "the-same");
    let second = rig.client_of(&admin::key("second")).await;
    let of_first = asked(&rig, &rig.client, Protocol::Messages, &session).await;
    let of_second = asked(&rig, &second, Protocol::Messages, &session).await;
    assert_ne!(of_first, of_second, "the second key's session was bound by the first key");
    for _ in 0..CALLS {
        assert_eq!(asked(&rig, &rig.client, Protocol::Messages, &session).await, of_first);
        assert_eq!(asked(&rig, &second, Protocol::Messages, &session).await, of_second);
    }
}

#[tokio::test]
async fn a_session_moves_when_its_account_fails_and_stays_where_it_went() {
    let rig = pairs().await;
    let session = Session::Header("x-claude-code-session-id", "moving");
    let first = asked(&rig, &rig.client, Protocol::Messages, &session).await;
    let failing = first.clone();
    rig.upstream.script(move |seen| {
        if seen.account == failing { Reply::error(seen.protocol(), 529, &[]) } else { answer(seen) }
    });
    assert_eq!(asked(&rig, &rig.client, Protocol::Messages, &session).await, first, "it was not asked first");
    rig.upstream.script(answer);
    let second = asked(&rig, &rig.client, Protocol::Messages, &session).await;
    assert_ne!(second, first);
    let resume = UpdateAccount { account: first.clone(), paused: Some(false), ..UpdateAccount::default() };
    rig.daemon.call(&resume).await;
    for _ in 0..CALLS {
        assert_eq!(asked(&rig, &rig.client, Protocol::Messages, &session).await, second);
    }
}

#[tokio::test]
async fn a_session_outranks_priority_but_not_what_the_key_may_use() {
    let rig = Rig::bare(Setup::default()).await;
    let spare = rig.account(AccountKind::ClaudeConsole, "spare");
    rig.daemon.call(&AddAccount { priority: Some(60), ..spare }).await;
    let key = rig.daemon.call(&CreateKey { accounts: vec!["spare".into()], ..admin::key("bound") }).await;
    let client = rig.daemon.client(key.key.expose());
    let session = Session::Header("x-claude-code-session-id", "s");
    assert_eq!(asked(&rig, &client, Protocol::Messages, &session).await, "spare");

    let first = rig.account(AccountKind::ClaudeConsole, "first");
    rig.daemon.call(&AddAccount { priority: Some(10), ..first }).await;
    let bind = |accounts: &[&str]| shared::admin::UpdateKey {
        key: "bound".into(),
        accounts: Some(accounts.iter().map(|name| (*name).to_owned()).collect()),
        ..Default::default()
    };
    rig.daemon.call(&bind(&["spare", "first"])).await;
    assert_eq!(asked(&rig, &client, Protocol::Messages, &Session::None).await, "first");
    assert_eq!(asked(&rig, &client, Protocol::Messages, &session).await, "spare");
    rig.daemon.call(&bind(&["first"])).await;
    assert_eq!(asked(&rig, &client, Protocol::Messages, &session).await, "first");
}
