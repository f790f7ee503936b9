//! Accounts that keep the starts of their calls apart.

use std::time::{Duration, Instant};

use shared::admin::{AddAccount, CreateKey, UpdateAccount};
use shared::domain::{AccountKind, Protocol};
use tokio::task::{JoinHandle, JoinSet};

use crate::support::daemon::setting;
use crate::support::{Answer, Call, Client, Reply, Rig, Setup, admin, answer, until};

const GAP: Duration = Duration::from_millis(300);
/// The relay keeps its starts apart to the millisecond; how long a call then takes to the upstream is up to the
/// machine.
const SLACK: Duration = Duration::from_millis(100);

fn paced(rig: &Rig, name: &str, gap: Duration) -> AddAccount {
    let gap_ms = u64::try_from(gap.as_millis()).unwrap();
    AddAccount { gap_ms, ..rig.account(AccountKind::ClaudeConsole, name) }
}

fn call(model: &str) -> Call {
    Call::new(Protocol::Messages, model)
}

fn send(client: &Client, call: Call) -> JoinHandle<Answer> {
    let client = client.clone();
    tokio::spawn(async move { client.call(&call).await })
}

/// When the account got its calls.
fn starts(rig: &Rig, account: &str) -> Vec<Instant> {
    let mut starts: Vec<_> =
        rig.upstream.seen().iter().filter(|seen| seen.account == account).map(|seen| seen.at).collect();
    starts.sort();
    starts
}

#[track_caller]
fn are_apart(starts: &[Instant], count: usize) {
    assert_eq!(starts.len(), count);
    let gaps: Vec<_> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.iter().all(|gap| *gap + SLACK >= GAP), "{gaps:?}");
}

fn models(rig: &Rig) -> Vec<String> {
    rig.upstream.seen().iter().map(|seen| seen.model()).collect()
}

#[tokio::test]
async fn starts_of_parallel_calls_are_kept_apart() {
    let rig = Rig::bare(Setup::default().set(setting::WORKERS, 4)).await;
    rig.daemon.call(&paced(&rig, "one", GAP)).await;
    let mut calls = JoinSet::new();
    for number in 0..8 {
        let client = rig.client.clone();
        calls.spawn(async move { client.call(&call(&format!("m-{number}"))).await });
    }
    for answer in calls.join_all().await {
        answer.expect(200);
    }
    let starts = starts(&rig, "one");
    are_apart(&starts, 8);
    assert!(starts[7] - starts[0] < GAP * 9, "no time is lost: {:?}", starts[7] - starts[0]);
    let rows = rig.daemon.rows().await;
    let waited: Vec<_> = rows.iter().map(|row| u128::from(row.queued_ms)).collect();
    assert!(
        waited.iter().any(|ms| *ms < GAP.as_millis()) && waited.iter().any(|ms| *ms >= 6 * GAP.as_millis())
    );
    rig.daemon.waiting(0).await;
}

#[tokio::test]
async fn calls_are_started_in_the_order_in_which_they_came() {
    let rig = Rig::bare(Setup::default().set(setting::WORKERS, 4)).await;
    rig.daemon.call(&paced(&rig, "one", GAP)).await;
    let mut calls = Vec::new();
    for number in 0..5 {
        calls.push(send(&rig.client, call(&format!("m-{number}"))));
        until("it waits, or has started", async || {
            // In this order, one that starts meanwhile is missed rather than counted twice.
            let started = rig.upstream.count() as u64;
            (started + rig.daemon.status().await.waiting == number + 1).then_some(())
        })
        .await;
    }
    for call in calls {
        call.await.unwrap().expect(200);
    }
    assert_eq!(models(&rig), ["m-0", "m-1", "m-2", "m-3", "m-4"]);
    are_apart(&starts(&rig, "one"), 5);
}

#[tokio::test]
async fn starts_are_kept_apart_across_failovers() {
    let rig = Rig::bare(Setup::default().set(setting::SUSPECT_MS, 0)).await;
    for (name, priority) in [("fails", 10), ("works", 20)] {
        let account = paced(&rig, name, GAP);
        rig.daemon.call(&AddAccount { priority: Some(priority), ..account }).await;
    }
    rig.upstream.script(|seen| match seen.account.as_str() {
        "fails" => Reply::error(seen.protocol(), 500, &[]),
        _ => answer(seen),
    });
    let calls: Vec<_> = (0..5).map(|number| send(&rig.client, call(&format!("m-{number}")))).collect();
    for call in calls {
        call.await.unwrap().expect(200);
    }
    are_apart(&starts(&rig, "fails"), 5);
    are_apart(&starts(&rig, "works"), 5);
}

#[tokio::test]
async fn whoever_would_wait_too_long_goes_elsewhere_or_is_refused() {
    let rig = Rig::start().await;
    for (kind, protocol) in [
        (AccountKind::ClaudeConsole, Protocol::Messages),
        (AccountKind::OpenaiResponses, Protocol::ChatCompletions),
        (AccountKind::OpenaiResponses, Protocol::Responses),
        (AccountKind::GeminiApi, Protocol::GenerateContent),
    ] {
        let (name, model) = (format!("paced-{}", protocol.name()), format!("m-{}", protocol.name()));
        let account = AddAccount {
            gap_ms: 60_000,
            priority: Some(1),
            models: vec![model.as_str().into()],
            ..rig.account(kind, &name)
        };
        rig.daemon.call(&account).await;
        let bound = rig.daemon.call(&shared::admin::ShowAccount { account: name.clone() }).await.id;
        let key = CreateKey { accounts: vec![bound.to_string()], ..admin::key(&name) };
        let only = rig.client_of(&key).await;
        let call = || Call::new(protocol, model.clone());
        only.call(&call()).await.expect(200);
        let refused = only.call(&call()).await.expect(429);
        let wait: u64 = refused.header("retry-after").expect("no retry-after").parse().unwrap();
        assert!((20..=30).contains(&wait), "{wait}");
        let message = refused.error_message(protocol);
        assert!(message.contains("more calls to start"), "{message}");
        // Whoever may be served by others is.
        rig.client.call(&call()).await.expect(200);
        assert_eq!(starts(&rig, &name).len(), 1);
    }
}

#[tokio::test]
async fn a_key_that_never_waits_is_not_kept_waiting_here_either() {
    let rig = Rig::bare(Setup::default()).await;
    rig.daemon.call(&paced(&rig, "one", GAP * 3)).await;
    let hasty =
        rig.client_of(&CreateKey { queue: Some("off".parse().unwrap()), ..admin::key("hasty") }).await;
    let patient = CreateKey { queue: Some("9:1200ms".parse().unwrap()), ..admin::key("patient") };
    let patient = rig.client_of(&patient).await;
    hasty.call(&call("first")).await.expect(200);
    hasty.call(&call("refused")).await.expect(429);
    let waits = send(&patient, call("waits"));
    rig.daemon.waiting(1).await;
    patient.call(&call("would wait for 1800 ms")).await.expect(429);
    waits.await.unwrap().expect(200);
    assert_eq!(models(&rig), ["first", "waits"]);
}

#[tokio::test]
async fn calls_that_leave_give_their_turns_back() {
    let rig = Rig::bare(Setup::default()).await;
    rig.daemon.call(&paced(&rig, "one", Duration::from_secs(2))).await;
    rig.client.call(&call("first")).await.expect(200);
    let leavers: Vec<_> = (0..5).map(|number| send(&rig.client, call(&format!("left-{number}")))).collect();
    rig.daemon.waiting(5).await;
    leavers.iter().for_each(JoinHandle::abort);
    rig.daemon.waiting(0).await;
    rig.client.call(&call("last")).await.expect(200);
    let starts = starts(&rig, "one");
    assert_eq!(models(&rig), ["first", "last"]);
    assert!(starts[1] - starts[0] < Duration::from_secs(4), "{:?}", starts[1] - starts[0]);
    assert_eq!(rig.daemon.rows().await.len(), 2);
}

#[tokio::test]
async fn an_account_that_can_start_at_once_is_preferred_among_equals() {
    let rig = Rig::bare(Setup::default()).await;
    for name in ["one", "two", "three"] {
        rig.daemon.call(&paced(&rig, name, Duration::from_secs(20))).await;
    }
    for number in 0..3 {
        rig.client.call(&call(&format!("m-{number}"))).await.expect(200);
    }
    let mut asked: Vec<_> = rig.upstream.seen().iter().map(|seen| seen.account.clone()).collect();
    asked.sort();
    assert_eq!(asked, ["one", "three", "two"]);
    assert!(rig.daemon.rows().await.iter().all(|row| row.queued_ms == 0));
}

#[tokio::test]
async fn a_session_waits_for_its_account() {
    let rig = Rig::bare(Setup::default()).await;
    for name in ["one", "two"] {
        rig.daemon.call(&paced(&rig, name, GAP)).await;
    }
    let request = || {
        let request = rig.client.request(hyper::Method::POST, "/v1/messages").header("session-id", "s");
        request.body(http_body_util::Full::new(call("m").body())).unwrap()
    };
    for _ in 0..3 {
        rig.client.send(request()).await.rest().await.expect(200);
    }
    let asked: Vec<_> = rig.upstream.seen().iter().map(|seen| seen.account.clone()).collect();
    assert!(asked.iter().all(|account| *account == asked[0]), "{asked:?}");
    are_apart(&starts(&rig, &asked[0]), 3);
}

#[tokio::test]
async fn a_call_whose_account_is_paused_meanwhile_goes_elsewhere() {
    let rig = Rig::bare(Setup::default()).await;
    for (name, priority) in [("one", 10), ("two", 20)] {
        let limits = vec!["10 requests per hour".parse().unwrap()];
        let account = paced(&rig, name, Duration::from_secs(2));
        rig.daemon.call(&AddAccount { priority: Some(priority), limits, ..account }).await;
    }
    rig.client.call(&call("first")).await.expect(200);
    let waits = send(&rig.client, call("waits"));
    rig.daemon.waiting(1).await;
    let pause = UpdateAccount { account: "one".into(), paused: Some(true), ..UpdateAccount::default() };
    rig.daemon.call(&pause).await;
    waits.await.unwrap().expect(200);
    rig.daemon.settled().await;
    let asked: Vec<_> = rig.upstream.seen().iter().map(|seen| seen.account.clone()).collect();
    assert_eq!(asked, ["one", "two"]);
    for name in ["one", "two"] {
        let limit = &rig.show(name).await.limits[0];
        assert_eq!((limit.used, limit.held), (1, 0), "{name}");
    }
}

#[tokio::test]
async fn a_daemon_that_drains_starts_nothing_that_waits() {
    let mut rig = Rig::bare(Setup::default()).await;
    rig.daemon.call(&paced(&rig, "one", Duration::from_secs(20))).await;
    rig.client.call(&call("first")).await.expect(200);
    let waits = send(&rig.client, call("waits"));
    rig.daemon.waiting(1).await;
    rig.daemon.terminate();
    waits.await.unwrap().expect(503).error_message(Protocol::Messages);
    assert!(rig.daemon.ended().await.success());
    assert_eq!(rig.upstream.count(), 1);
}

#[tokio::test]
async fn counting_tokens_needs_no_turn() {
    let rig = Rig::bare(Setup::default()).await;
    rig.daemon.call(&paced(&rig, "one", Duration::from_secs(60))).await;
    rig.client.call(&call("m")).await.expect(200);
    for _ in 0..3 {
        rig.client.post("/v1/messages/count_tokens", call("m").body()).await.expect(200);
    }
    rig.client.call(&call("m")).await.expect(429);
}
