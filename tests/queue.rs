//! Calls that wait for limits of concurrency instead of being refused.

use std::time::{Duration, Instant};

use shared::admin::LimitHolder;
use shared::admin::{AddAccount, CreateKey, DeleteKey, SetLimits, ShowKey, UpdateAccount, UpdateKey};
use shared::domain::{AccountKind, Protocol};
use tokio::task::{JoinHandle, JoinSet};

use crate::support::admin::limits;
use crate::support::daemon::setting;
use crate::support::{Answer, Call, Client, Gate, Gauge, Rig, Setup, Step, Upstream, admin, answer, until};

/// A key whose calls wait.
fn queued(name: &str, limit: &str, queue: &str) -> CreateKey {
    CreateKey { limits: limits(&[limit]), queue: Some(queue.parse().unwrap()), ..admin::key(name) }
}

/// Holds every answer back until the gate opens.
fn hold(upstream: &Upstream) -> Gate {
    let gate = Gate::closed();
    let held = gate.clone();
    upstream.script(move |seen| answer(seen).after(Step::Wait(held.clone())));
    gate
}

fn send(client: &Client, call: Call) -> JoinHandle<Answer> {
    let client = client.clone();
    tokio::spawn(async move { client.call(&call).await })
}

fn numbered(number: usize) -> Call {
    let call = Call::new(Protocol::ALL[number % 4], format!("m-{number:03}"));
    if number.is_multiple_of(2) { call } else { call.streamed() }
}

/// Sends a call and waits until the upstream has it.
async fn open(rig: &Rig, client: &Client, call: Call) -> JoinHandle<Answer> {
    let before = rig.upstream.count();
    let open = send(client, call);
    until("the call is open", async || (rig.upstream.count() > before).then_some(())).await;
    open
}

fn models(upstream: &Upstream) -> Vec<String> {
    upstream.seen().iter().map(|seen| seen.model()).collect()
}

async fn nothing_is_left(rig: &Rig, key: &str) {
    rig.daemon.settled().await;
    rig.daemon.waiting(0).await;
    let view = rig.daemon.call(&ShowKey { key: key.to_owned() }).await;
    assert!(view.limits.iter().all(|limit| limit.held == 0), "{:?}", view.limits);
}

fn seconds_to_wait(answer: &Answer) -> u64 {
    answer.header("retry-after").expect("no retry-after").parse().expect("retry-after is no number")
}

#[tokio::test]
async fn calls_are_served_in_the_order_in_which_they_came() {
    let rig = Rig::with(Setup::default().set(setting::WORKERS, 4)).await;
    let team = SetLimits { holder: LimitHolder::Owner("team".to_owned()), limits: limits(&["1 concurrent"]) };
    let owned = |name| CreateKey {
        owner: Some("team".to_owned()),
        queue: Some("50:60s".parse().unwrap()),
        ..admin::key(name)
    };
    let clients = [rig.client_of(&owned("one")).await, rig.client_of(&owned("two")).await];
    rig.daemon.call(&team).await;
    let gate = hold(&rig.upstream);
    let mut calls = vec![open(&rig, &clients[0], numbered(0)).await];
    for number in 1..=24 {
        calls.push(send(&clients[number % 2], numbered(number)));
        rig.daemon.waiting(number as u64).await;
    }
    gate.open();
    for call in calls {
        call.await.unwrap().expect(200);
    }
    assert_eq!(models(&rig.upstream), (0..=24).map(|number| numbered(number).model).collect::<Vec<_>>());
    nothing_is_left(&rig, "one").await;
    let rows = rig.daemon.rows().await;
    let waited =
        |number: usize| rows.iter().find(|row| row.model == numbered(number).model).unwrap().queued_ms;
    assert_eq!(waited(0), 0);
    assert!(waited(1) > 0 && waited(24) > 0, "{rows:?}");
    assert!(rows.iter().all(|row| row.queued_ms <= row.total_ms), "{rows:?}");
}

#[tokio::test]
async fn a_full_queue_refuses_in_every_protocol() {
    let rig = Rig::start().await;
    for protocol in Protocol::ALL {
        let gate = hold(&rig.upstream);
        let client = rig.client_of(&queued(protocol.name(), "1 concurrent", "2:60s")).await;
        let call = || Call::new(protocol, "m");
        let mut calls = vec![open(&rig, &client, call()).await];
        for waiting in 1..=2 {
            calls.push(send(&client, call()));
            rig.daemon.waiting(waiting).await;
        }
        for call in [call(), call().streamed()] {
            let refused = client.call(&call).await.expect(429);
            let message = refused.error_message(protocol);
            assert!(
                message.contains("1 concurrent") && message.ends_with("2 calls wait already"),
                "{message}"
            );
            assert_eq!(seconds_to_wait(&refused), 1);
        }
        gate.open();
        for call in calls {
            call.await.unwrap().expect(200);
        }
        nothing_is_left(&rig, protocol.name()).await;
    }
}

#[tokio::test]
async fn a_wait_ends_with_the_refusal_that_it_put_off() {
    let rig = Rig::start().await;
    for protocol in Protocol::ALL {
        let gate = hold(&rig.upstream);
        let client = rig.client_of(&queued(protocol.name(), "1 concurrent", "5:400ms")).await;
        let first = open(&rig, &client, Call::new(protocol, "m")).await;
        let asked = Instant::now();
        let refused = client.call(&Call::new(protocol, "m")).await.expect(429);
        assert!(asked.elapsed() >= Duration::from_millis(400), "{:?}", asked.elapsed());
        let message = refused.error_message(protocol);
        assert!(message.contains("1 concurrent") && message.contains("; this call waited "), "{message}");
        assert_eq!(seconds_to_wait(&refused), 1);
        gate.open();
        first.await.unwrap().expect(200);
        nothing_is_left(&rig, protocol.name()).await;
    }
    assert_eq!(rig.upstream.count(), 4);
    assert_eq!(rig.daemon.rows().await.len(), 4);
}

#[tokio::test]
async fn whoever_leaves_makes_way() {
    let rig = Rig::start().await;
    let client = rig.client_of(&queued("leavers", "1 concurrent", "10:60s")).await;
    let gate = hold(&rig.upstream);
    let mut calls = vec![open(&rig, &client, numbered(0)).await];
    for number in 1..=6 {
        calls.push(send(&client, numbered(number)));
        rig.daemon.waiting(number as u64).await;
    }
    // The first, one in the middle, and the last of those that wait.
    for (left, number) in [(5, 3), (4, 1), (3, 6)] {
        calls[number].abort();
        rig.daemon.waiting(left).await;
    }
    gate.open();
    for (number, call) in calls.into_iter().enumerate() {
        if ![1, 3, 6].contains(&number) {
            call.await.unwrap().expect(200);
        }
    }
    assert_eq!(models(&rig.upstream), [0, 2, 4, 5].map(|number| numbered(number).model));
    nothing_is_left(&rig, "leavers").await;
    assert_eq!(rig.daemon.rows().await.len(), 4, "nothing is booked of a call that was not sent");
}

#[tokio::test]
async fn a_storm_passes_and_no_wake_up_is_lost() {
    let rig = Rig::with(Setup::default().set(setting::WORKERS, 4)).await;
    let client = rig.client_of(&queued("storm", "2 concurrent", "1000:60s")).await;
    let gauge = Gauge::default();
    let working = gauge.clone();
    rig.upstream
        .script(move |seen| answer(seen).after(Step::Work(working.clone(), Duration::from_millis(2))));
    let mut calls = JoinSet::new();
    for number in 0..300 {
        let client = client.clone();
        calls.spawn(async move { client.call(&numbered(number)).await });
    }
    let began = Instant::now();
    for answer in calls.join_all().await {
        answer.expect(200);
    }
    assert_eq!((rig.upstream.count(), gauge.most()), (300, 2));
    // Looking again by the clock alone would take a quarter of a second for every other call.
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    nothing_is_left(&rig, "storm").await;
}

#[tokio::test]
async fn clients_that_leave_in_a_storm_take_nothing_with_them() {
    let rig = Rig::start().await;
    let client = rig.client_of(&queued("hasty", "2 concurrent", "1000:60s")).await;
    let gauge = Gauge::default();
    let working = gauge.clone();
    rig.upstream
        .script(move |seen| answer(seen).after(Step::Work(working.clone(), Duration::from_millis(2))));
    let mut calls = JoinSet::new();
    for number in 0..200_u64 {
        let client = client.clone();
        calls.spawn(async move {
            let call = numbered(usize::try_from(number).unwrap());
            let patience = Duration::from_millis(if number.is_multiple_of(3) { 20 + number } else { 60_000 });
            tokio::time::timeout(patience, client.call(&call)).await.ok().map(|answer| answer.status)
        });
    }
    let ends = calls.join_all().await;
    assert!(ends.iter().flatten().all(|status| *status == 200), "{ends:?}");
    assert!(ends.iter().flatten().count() >= 133);
    assert_eq!(gauge.most(), 2);
    nothing_is_left(&rig, "hasty").await;
    client.call(&numbered(0)).await.expect(200);
}

async fn two_accounts(setup: Setup) -> Rig {
    let rig = Rig::bare(setup).await;
    for (name, priority) in [("one", 10), ("two", 20)] {
        let account = rig.account(AccountKind::ClaudeConsole, name);
        let limits = limits(&["1 concurrent"]);
        rig.daemon.call(&AddAccount { limits, priority: Some(priority), ..account }).await;
    }
    rig
}

fn asked(upstream: &Upstream) -> Vec<String> {
    upstream.seen().iter().map(|seen| seen.account.clone()).collect()
}

#[tokio::test]
async fn accounts_that_have_room_go_first_and_then_the_first_to_have_room() {
    let rig = two_accounts(Setup::default().set(setting::QUEUE_ENABLED, true)).await;
    let gates = [Gate::closed(), Gate::closed()];
    let held = gates.clone();
    rig.upstream.script(move |seen| {
        let gate = &held[usize::from(seen.account == "two")];
        answer(seen).after(Step::Wait(gate.clone()))
    });
    let call = |name: &str| Call::new(Protocol::Messages, name);
    let one = open(&rig, &rig.client, call("first")).await;
    let two = open(&rig, &rig.client, call("second")).await;
    let third = send(&rig.client, call("third"));
    rig.daemon.waiting(1).await;
    let waits = Instant::now();
    assert_eq!(asked(&rig.upstream), ["one", "two"]);
    // What it waited is told in whole milliseconds.
    until("it has waited", async || (waits.elapsed() > Duration::from_millis(2)).then_some(())).await;
    gates[1].open();
    two.await.unwrap().expect(200);
    third.await.unwrap().expect(200);
    gates[0].open();
    one.await.unwrap().expect(200);
    assert_eq!(asked(&rig.upstream), ["one", "two", "two"]);
    assert_eq!(rig.daemon.row("second").await.queued_ms, 0);
    assert!(rig.daemon.row("third").await.queued_ms > 0);
    for name in ["one", "two"] {
        assert_eq!(rig.show(name).await.limits[0].held, 0);
    }
}

#[tokio::test]
async fn a_failover_waits_for_room_too() {
    let rig = two_accounts(Setup::default().set(setting::QUEUE_ENABLED, true)).await;
    let gate = Gate::closed();
    let held = gate.clone();
    rig.upstream.script(move |seen| match (seen.account.as_str(), seen.model().as_str()) {
        ("one", "fails") => crate::support::Reply::error(seen.protocol(), 529, &[]),
        ("two", "holds") => answer(seen).after(Step::Wait(held.clone())),
        _ => answer(seen),
    });
    let pause = |account: &str, paused| UpdateAccount {
        account: account.to_owned(),
        paused: Some(paused),
        ..UpdateAccount::default()
    };
    rig.daemon.call(&pause("one", true)).await;
    let holds = open(&rig, &rig.client, Call::new(Protocol::Messages, "holds")).await;
    rig.daemon.call(&pause("one", false)).await;
    let fails = send(&rig.client, Call::new(Protocol::Messages, "fails"));
    rig.daemon.waiting(1).await;
    gate.open();
    holds.await.unwrap().expect(200);
    fails.await.unwrap().expect(200);
    assert_eq!(asked(&rig.upstream), ["two", "one", "two"]);
    let row = rig.daemon.row("fails").await;
    assert!(row.attempts == 2 && row.queued_ms > 0, "{row:?}");
}

/// The first in a line looks again by itself: nobody tells it of what is not released here.
#[tokio::test]
async fn changes_count_for_calls_that_wait() {
    let rig = Rig::start().await;
    let gate = hold(&rig.upstream);
    let client = rig.client_of(&queued("changed", "1 concurrent", "10:60s")).await;
    let update = || UpdateKey { key: "changed".to_owned(), ..UpdateKey::default() };
    let mut calls = vec![open(&rig, &client, numbered(0)).await];
    calls.push(send(&client, numbered(1)));
    rig.daemon.waiting(1).await;
    rig.daemon.call(&UpdateKey { limits: Some(limits(&["2 concurrent"])), ..update() }).await;
    until("the raised limit lets it in", async || (rig.upstream.count() == 2).then_some(())).await;
    for (number, update, status) in [
        (2, UpdateKey { deny_models: Some(vec!["m-002".into()]), ..update() }, 403),
        (3, UpdateKey { disabled: Some(true), ..update() }, 401),
    ] {
        let call = send(&client, Call::new(Protocol::Messages, numbered(number).model));
        rig.daemon.waiting(1).await;
        rig.daemon.call(&update).await;
        call.await.unwrap().expect(status).error_message(Protocol::Messages);
    }
    gate.open();
    for call in calls {
        call.await.unwrap().expect(200);
    }
    rig.daemon.call(&DeleteKey { key: "changed".to_owned() }).await;
    assert_eq!(rig.upstream.count(), 2);
}

#[tokio::test]
async fn an_account_that_is_paused_is_waited_for_no_longer() {
    let rig = two_accounts(Setup::default().set(setting::QUEUE_ENABLED, true)).await;
    let gate = hold(&rig.upstream);
    let call = || Call::new(Protocol::Messages, "m");
    let one = open(&rig, &rig.client, call()).await;
    let two = open(&rig, &rig.client, call()).await;
    let third = send(&rig.client, call());
    rig.daemon.waiting(1).await;
    for account in ["one", "two"] {
        let pause =
            UpdateAccount { account: account.to_owned(), paused: Some(true), ..UpdateAccount::default() };
        rig.daemon.call(&pause).await;
    }
    third.await.unwrap().expect(503).error_message(Protocol::Messages);
    gate.open();
    one.await.unwrap().expect(200);
    two.await.unwrap().expect(200);
}

#[tokio::test]
async fn whoever_waits_for_one_limit_stands_in_nobodys_way_who_needs_another() {
    let rig = Rig::start().await;
    let gate = hold(&rig.upstream);
    let key = queued("mixed", "3 concurrent", "10:60s");
    let key = CreateKey { limits: limits(&["1 concurrent on slow*", "3 concurrent"]), ..key };
    let client = rig.client_of(&key).await;
    let call = |model: &str| Call::new(Protocol::Messages, model);
    let mut calls = vec![open(&rig, &client, call("slow-1")).await];
    calls.push(send(&client, call("slow-2")));
    rig.daemon.waiting(1).await;
    calls.push(open(&rig, &client, call("fast-1")).await);
    calls.push(open(&rig, &client, call("fast-2")).await);
    calls.push(send(&client, call("fast-3")));
    rig.daemon.waiting(2).await;
    gate.open();
    for call in calls {
        call.await.unwrap().expect(200);
    }
    assert_eq!(models(&rig.upstream)[..3], ["slow-1", "fast-1", "fast-2"]);
    nothing_is_left(&rig, "mixed").await;
}

#[tokio::test]
async fn a_key_may_wait_or_not_whatever_is_configured() {
    let setup = Setup::default().set(setting::QUEUE_ENABLED, true).set(setting::QUEUE_SIZE_MAX, 1);
    let rig = Rig::with(setup.set(setting::QUEUE_WAIT_MS, 60_000)).await;
    let gate = hold(&rig.upstream);
    let key = |name| CreateKey { limits: limits(&["1 concurrent"]), ..admin::key(name) };
    let as_configured = rig.client_of(&key("as-configured")).await;
    let off = rig.client_of(&CreateKey { queue: Some("off".parse().unwrap()), ..key("off") }).await;
    let call = || Call::new(Protocol::Messages, "m");
    let mut calls = vec![open(&rig, &as_configured, call()).await, open(&rig, &off, call()).await];
    let refused = off.call(&call()).await.expect(429).error_message(Protocol::Messages);
    assert!(refused.ends_with("1 is open"), "{refused}");
    calls.push(send(&as_configured, call()));
    rig.daemon.waiting(1).await;
    let refused = as_configured.call(&call()).await.expect(429).error_message(Protocol::Messages);
    assert!(refused.ends_with("another call waits already"), "{refused}");
    // What is taken away from a key is the configuration's again.
    rig.daemon.call(&UpdateKey { key: "off".to_owned(), queue: Some(None), ..UpdateKey::default() }).await;
    calls.push(send(&off, call()));
    rig.daemon.waiting(2).await;
    gate.open();
    for call in calls {
        call.await.unwrap().expect(200);
    }
}

#[tokio::test]
async fn a_daemon_that_drains_keeps_nobody_waiting() {
    let mut rig = Rig::start().await;
    let gate = hold(&rig.upstream);
    let client = rig.client_of(&queued("drained", "1 concurrent", "10:60s")).await;
    let first = open(&rig, &client, Call::new(Protocol::Messages, "m")).await;
    let waiting: Vec<_> =
        Protocol::ALL.iter().map(|protocol| send(&client, Call::new(*protocol, "m"))).collect();
    rig.daemon.waiting(4).await;
    rig.daemon.terminate();
    for (call, protocol) in waiting.into_iter().zip(Protocol::ALL) {
        let message = call.await.unwrap().expect(503).error_message(protocol);
        assert!(message.contains("stopping"), "{message}");
    }
    gate.open();
    first.await.unwrap().expect(200);
    assert!(rig.daemon.ended().await.success());
}

#[tokio::test]
async fn bodies_of_calls_that_wait_keep_their_room() {
    let setup = Setup::default().set(setting::BODY_BYTES_MAX, 65_536);
    let rig = Rig::with(setup.set(setting::BODY_BYTES_IN_FLIGHT_MAX, 100_000)).await;
    let gate = hold(&rig.upstream);
    let client = rig.client_of(&queued("large", "1 concurrent", "10:60s")).await;
    let large = || Call::new(Protocol::Messages, "m").prompt("x".repeat(60_000));
    let first = open(&rig, &client, Call::new(Protocol::Messages, "m")).await;
    let second = send(&client, large());
    rig.daemon.waiting(1).await;
    let refused = rig.client.call(&large()).await.expect(503).error_message(Protocol::Messages);
    assert!(refused.contains("too many large requests"), "{refused}");
    second.abort();
    rig.daemon.waiting(0).await;
    gate.open();
    rig.client.call(&large()).await.expect(200);
    first.await.unwrap().expect(200);
}
