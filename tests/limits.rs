//! Limits on requests and concurrency, of keys and of accounts.

use std::sync::atomic::{AtomicBool, Ordering};

use shared::admin::{
    AddAccount, AdminCall, CreateKey, LimitHolder, ProblemCode, SetLimits, ShowKey, UpdateKey,
};
use shared::domain::{AccountKind, Limit, Protocol};
use tokio::task::JoinSet;

use crate::support::admin::{CallError, limited, limits};
use crate::support::{Answer, Call, Client, Gate, Reply, Rig, Setup, Step, Upstream, admin, answer, until};

fn seconds_to_wait(answer: &Answer) -> u64 {
    answer.header("retry-after").expect("no retry-after").parse().expect("retry-after is no number")
}

async fn used_and_held(rig: &Rig, key: &str) -> Vec<(u64, u64)> {
    let view = rig.daemon.call(&ShowKey { key: key.to_owned() }).await;
    view.limits.iter().map(|limit| (limit.used, limit.held)).collect()
}

#[tokio::test]
async fn requests_in_a_window() {
    let rig = Rig::start().await;
    for protocol in Protocol::ALL {
        let name = protocol.name();
        let client = rig.client_of(&limited(name, &["3 requests per hour"])).await;
        for _ in 0..3 {
            client.call(&Call::new(protocol, "m").streamed()).await.expect(200);
        }
        let refused = client.call(&Call::new(protocol, "m")).await.expect(429);
        let message = refused.error_message(protocol);
        assert!(message.contains("3 requests per hour"), "{message}");
        let wait = seconds_to_wait(&refused);
        assert!((3_500..=3_600).contains(&wait), "{wait}");
        rig.daemon.settled().await;
        assert_eq!(used_and_held(&rig, name).await, [(3, 0)]);
    }
    assert_eq!(rig.upstream.count(), 12);
}

#[tokio::test]
async fn requests_in_total_survive_a_restart_and_a_crash() {
    let mut rig = Rig::start().await;
    let key = rig.daemon.call(&limited("total", &["4 requests in total"])).await.key.expose().to_owned();
    let call = Call::new(Protocol::Messages, "m");
    rig.daemon.client(&key).call(&call).await.expect(200);
    rig.daemon.terminate();
    assert!(rig.daemon.ended().await.success());
    rig.start_again().await;
    rig.daemon.client(&key).call(&call).await.expect(200);
    rig.daemon.client(&key).call(&call).await.expect(200);
    rig.daemon.kill();
    rig.start_again().await;
    rig.daemon.client(&key).call(&call).await.expect(200);
    rig.daemon.client(&key).call(&call).await.expect(429).error_message(Protocol::Messages);
}

#[tokio::test]
async fn a_window_ends() {
    let rig = Rig::start().await;
    let client = rig.client_of(&limited("window", &["2 requests per 2 seconds"])).await;
    let call = Call::new(Protocol::Messages, "m");
    let mut statuses = Vec::new();
    until("a refusal", async || {
        statuses.push(client.call(&call).await.status);
        (statuses.last() == Some(&429)).then_some(())
    })
    .await;
    until("the next window", async || (client.call(&call).await.status == 200).then_some(())).await;
}

#[tokio::test]
async fn request_limits_are_exact_under_parallel_load() {
    let rig = Rig::start().await;
    let client = rig.client_of(&limited("parallel", &["25 requests per hour"])).await;
    let mut calls = JoinSet::new();
    for number in 0..100 {
        let client = client.clone();
        calls.spawn(async move { client.call(&Call::new(Protocol::ALL[number % 4], "m")).await.status });
    }
    let statuses = calls.join_all().await;
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 25);
    assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 75);
    assert_eq!(rig.upstream.count(), 25);
}

/// Holds every answer back until the gate opens.
fn hold(upstream: &Upstream) -> Gate {
    let gate = Gate::closed();
    let held = gate.clone();
    upstream.script(move |seen| answer(seen).after(Step::Wait(held.clone())));
    gate
}

/// Sends calls at once; the refused ones are back when `admitted` are open at the upstream.
async fn storm(rig: &Rig, client: &Client, calls: usize, admitted: usize) -> (JoinSet<Answer>, Vec<Answer>) {
    let mut open = JoinSet::new();
    for number in 0..calls {
        let client = client.clone();
        let call = Call::new(Protocol::ALL[number % 4], "m");
        let call = if number % 2 == 0 { call } else { call.streamed() };
        open.spawn(async move { client.call(&call).await });
    }
    let mut refused = Vec::new();
    for _ in 0..calls - admitted {
        refused.push(open.join_next().await.unwrap().unwrap());
    }
    until("the rest is open", async || (rig.upstream.answering() == admitted).then_some(())).await;
    (open, refused)
}

#[tokio::test]
async fn concurrency_is_exact_and_nothing_stays_held() {
    let rig = Rig::start().await;
    let client = rig.client_of(&limited("storm", &["3 concurrent"])).await;
    for _ in 0..5 {
        let gate = hold(&rig.upstream);
        let (open, refused) = storm(&rig, &client, 24, 3).await;
        for answer in &refused {
            assert_eq!(answer.status, 429, "{}", answer.text());
            assert!(seconds_to_wait(answer) >= 1);
            assert!(answer.text().contains("3 concurrent"), "{}", answer.text());
        }
        assert_eq!(used_and_held(&rig, "storm").await[0].1, 3);
        gate.open();
        for answer in open.join_all().await {
            answer.expect(200);
        }
        until("nothing is held", async || (used_and_held(&rig, "storm").await[0].1 == 0).then_some(())).await;
    }
    assert_eq!(rig.upstream.count(), 15);
}

#[tokio::test]
async fn clients_that_go_away_hold_nothing() {
    let rig = Rig::start().await;
    let client = rig.client_of(&limited("leavers", &["4 concurrent"])).await;
    for round in 1..=5 {
        let _gate = hold(&rig.upstream);
        let (mut open, _refused) = storm(&rig, &client, 12, 4).await;
        open.shutdown().await;
        until("nothing is held", async || (used_and_held(&rig, "leavers").await[0].1 == 0).then_some(()))
            .await;
        until("the upstream is let go", async || (rig.upstream.gone() == 4 * round).then_some(())).await;
    }
    rig.upstream.script(answer);
    client.call(&Call::new(Protocol::Messages, "m")).await.expect(200);
}

async fn two_accounts(texts: &[&str]) -> Rig {
    let rig = Rig::bare(Setup::default()).await;
    for name in ["one", "two"] {
        let account = rig.account(AccountKind::ClaudeConsole, name);
        rig.daemon.call(&AddAccount { limits: limits(texts), ..account }).await;
    }
    rig
}

fn messages(client: &Client) -> impl Future<Output = Answer> + Send + 'static {
    let client = client.clone();
    async move { client.call(&Call::new(Protocol::Messages, "m")).await }
}

#[tokio::test]
async fn concurrency_of_accounts_spills_over_and_then_refuses() {
    let rig = two_accounts(&["2 concurrent"]).await;
    let gate = hold(&rig.upstream);
    let mut open = JoinSet::new();
    for _ in 0..12 {
        open.spawn(messages(&rig.client));
    }
    for _ in 0..8 {
        let refused = open.join_next().await.unwrap().unwrap();
        let refused = refused.expect(429);
        assert!(seconds_to_wait(&refused) >= 1);
        let message = refused.error_message(Protocol::Messages);
        assert!(message.contains("2 concurrent"), "{message}");
    }
    until("four are open", async || (rig.upstream.answering() == 4).then_some(())).await;
    for name in ["one", "two"] {
        assert_eq!(rig.upstream.seen().iter().filter(|seen| seen.account == name).count(), 2);
        assert_eq!(rig.show(name).await.limits[0].held, 2);
    }
    gate.open();
    for answer in open.join_all().await {
        answer.expect(200);
    }
    until("nothing is held", async || (rig.show("one").await.limits[0].held == 0).then_some(())).await;
}

#[tokio::test]
async fn requests_of_accounts_spill_over_and_then_refuse() {
    let rig = two_accounts(&["3 requests per hour"]).await;
    for _ in 0..6 {
        messages(&rig.client).await.expect(200);
    }
    let refused = messages(&rig.client).await.expect(429);
    assert!((3_500..=3_600).contains(&seconds_to_wait(&refused)), "{}", seconds_to_wait(&refused));
    let message = refused.error_message(Protocol::Messages);
    assert!(message.contains("3 requests per hour"), "{message}");
    // Neither is ill: they are full.
    assert_eq!(rig.show("one").await.health.state, "ok");
    for name in ["one", "two"] {
        assert_eq!(rig.upstream.seen().iter().filter(|seen| seen.account == name).count(), 3);
    }
}

#[tokio::test]
async fn an_account_that_is_full_refuses_in_every_protocol_and_makes_way_for_another() {
    let rig = Rig::bare(Setup::default()).await;
    for kind in [AccountKind::ClaudeConsole, AccountKind::OpenaiResponses, AccountKind::GeminiApi] {
        let account = rig.account(kind, kind.name());
        let limits = limits(&["1 request per hour"]);
        rig.daemon.call(&AddAccount { limits, priority: Some(10), ..account }).await;
    }
    let kinds = [
        (Protocol::Messages, AccountKind::ClaudeConsole),
        (Protocol::Responses, AccountKind::OpenaiResponses),
        (Protocol::GenerateContent, AccountKind::GeminiApi),
    ];
    for (protocol, kind) in kinds {
        let call = Call::new(protocol, "m");
        rig.client.call(&call).await.expect(200);
        let refused = rig.client.call(&call).await.expect(429);
        let message = refused.error_message(protocol);
        assert!(message.contains("1 request per hour"), "{message}");
        assert!(seconds_to_wait(&refused) > 3_500);
        rig.add(kind, &format!("spare-{}", kind.name())).await;
        rig.client.call(&call).await.expect(200);
    }
    let asked: Vec<_> = rig.upstream.take_seen().iter().map(|seen| seen.account.clone()).collect();
    let expected = kinds.map(|(_, kind)| [kind.name().to_owned(), format!("spare-{}", kind.name())]);
    assert_eq!(asked, expected.concat());
    // The refused calls were never opened.
    let rows = rig.daemon.rows().await;
    assert_eq!(rows.len(), 6, "{rows:?}");
    assert!(rows.iter().all(|row| row.status == 200 && row.attempts == 1), "{rows:?}");
}

#[tokio::test]
async fn counting_and_listing_take_nothing() {
    let rig = Rig::start().await;
    let client = rig.client_of(&limited("counter", &["1 request per hour", "1 concurrent"])).await;
    for _ in 0..5 {
        let body = Call::new(Protocol::Messages, "m").body();
        client.post("/v1/messages/count_tokens", body).await.expect(200);
        let body = Call::new(Protocol::GenerateContent, "m").body();
        client.post("/v1beta/models/m:countTokens", body).await.expect(200);
        client.get("/v1/models").await.expect(200);
        client.get("/v1/key-info").await.expect(200);
    }
    client.call(&Call::new(Protocol::Messages, "m")).await.expect(200);
    client.call(&Call::new(Protocol::Messages, "m")).await.expect(429);
}

/// As many limits as a holder may have, all of which hold for the model `m`, with texts as long as they may be.
fn widest() -> Vec<Limit> {
    let text = |number: usize| {
        // "requests", then what follows the amount: 64 bytes for each of 32.
        let scope = format!("per {} seconds on m, ", 1_000 + number);
        format!("1000000 requests {scope}{}", "x".repeat(64 - "requests ".len() - scope.len()))
    };
    let texts: Vec<String> = (0..32).map(|number| text(2 * number + 1)).collect();
    limits(&texts.iter().map(String::as_str).collect::<Vec<_>>())
}

async fn problem(rig: &Rig, call: &impl AdminCall) -> String {
    match rig.daemon.try_call(call).await {
        Err(CallError::Problem(problem)) if problem.code == ProblemCode::Invalid => problem.to_string(),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it was accepted"),
    }
}

#[tokio::test]
async fn nobody_has_more_limits_than_a_call_can_be_written_down_with() {
    let rig = Rig::bare(Setup::default()).await;
    let owner = "\u{10348}".repeat(100);
    for name in ["one", "two"] {
        let account = rig.account(AccountKind::ClaudeConsole, name);
        rig.daemon.call(&AddAccount { limits: widest(), ..account }).await;
    }
    for holder in [LimitHolder::Owner(owner.clone()), LimitHolder::All] {
        rig.daemon.call(&SetLimits { holder, limits: widest() }).await;
    }
    let wide = CreateKey { limits: widest(), owner: Some(owner), ..admin::key("wide") };
    let client = rig.client_of(&wide).await;
    // Both accounts are asked: what is held at either is written down.
    let has_failed = AtomicBool::new(false);
    rig.upstream.script(move |seen| match has_failed.swap(true, Ordering::Relaxed) {
        true => answer(seen),
        false => Reply::error(seen.protocol(), 529, &[]),
    });
    client.call(&Call::new(Protocol::Messages, "m")).await.expect(200);
    assert_eq!(rig.upstream.count(), 2);
    rig.daemon.settled().await;
    assert_eq!(used_and_held(&rig, "wide").await, [(1, 0); 32]);

    let too_many = [widest(), limits(&["4 concurrent"])].concat();
    let mut too_long = widest();
    too_long[0] = format!("{}x", too_long[0]).parse().unwrap();
    for limits in [too_many, too_long] {
        let key = CreateKey { limits: limits.clone(), ..admin::key("wider") };
        let update =
            UpdateKey { key: "wide".to_owned(), limits: Some(limits.clone()), ..UpdateKey::default() };
        let account =
            AddAccount { limits: limits.clone(), ..rig.account(AccountKind::ClaudeConsole, "three") };
        let shared = SetLimits { holder: LimitHolder::All, limits };
        for message in [
            problem(&rig, &key).await,
            problem(&rig, &update).await,
            problem(&rig, &account).await,
            problem(&rig, &shared).await,
        ] {
            assert!(message.contains("at most 32 limits"), "{message}");
        }
    }
    let nameless = CreateKey { owner: Some("x".repeat(101)), ..admin::key("nameless") };
    assert!(problem(&rig, &nameless).await.contains("a name has 1 to 100 characters"));
}
