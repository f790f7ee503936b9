//! Calls that are read to their ends without their clients: what they hold meanwhile, what becomes of them when the
//! upstream fails or the daemon stops, and whose they are.

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use shared::admin::{AddAccount, CreateKey, RequestRow, ShowKey, SumUsage, UsageBy};
use shared::domain::{AccountKind, OnDisconnect, Protocol, Provenance, UsageClass};
use tokio::task::JoinSet;

use crate::support::client::Raw;
use crate::support::daemon::setting;
use crate::support::{
    Call, Client, Gate, Reply, Rig, Seen, Setup, Step, admin, answer, control, until, wire,
};

fn key(name: &str) -> CreateKey {
    CreateKey { on_disconnect: Some(OnDisconnect::Drain), ..admin::key(name) }
}

/// A rig whose calls are all drained.
fn draining() -> Setup {
    Setup::default().set(setting::ON_DISCONNECT, "drain")
}

async fn drains(rig: &Rig, calls: u64) {
    until("calls are drained", async || (rig.daemon.status().await.draining == calls).then_some(())).await;
}

/// Sends a call and leaves when the upstream has it.
async fn leave(rig: &Rig, client: &Client, call: &Call) {
    let before = rig.upstream.count();
    tokio::select! {
        () = until("the upstream has it", async || (rig.upstream.count() > before).then_some(())) => {}
        _ = client.open(call) => panic!("nothing can have come"),
    }
}

/// The first events of a stream, and the others when the gate opens.
fn begun(seen: &Seen, gate: &Gate, events: usize) -> Reply {
    let mut before = seen.events();
    let after = before.split_off(events);
    let begun = Reply::open_stream("text/event-stream").pieces(before);
    begun.then(Step::Wait(gate.clone())).pieces(after).end()
}

#[track_caller]
fn is_drained(row: &RequestRow, status: u16) {
    assert_eq!((row.end.as_str(), row.status), ("client_gone", status), "{row:?}");
    assert_eq!((row.provenance, row.attempts), (Provenance::Measured, 1), "{row:?}");
    assert_eq!(row.usage, wire::usage(row.protocol), "{row:?}");
}

/// Nobody can see from outside when the relay has read it; either way all of it is waited for.
#[tokio::test]
async fn a_head_that_is_held_is_drained() {
    let rig = Rig::with(draining()).await;
    let gate = Gate::closed();
    let held = gate.clone();
    rig.upstream.script(move |seen| begun(seen, &held, 1));
    leave(&rig, &rig.client, &Call::new(Protocol::Messages, "held").streamed()).await;
    drains(&rig, 1).await;
    gate.open();
    is_drained(&rig.daemon.row("held").await, 499);
}

/// What an upstream does once the client has left, and what comes of it.
struct Failure {
    name: &'static str,
    /// Before the gate, the client has a head; it has none otherwise.
    has_begun: bool,
    reply: fn(&Seen, Step) -> Reply,
    provenance: Provenance,
    state: &'static str,
    /// Whether the account is charged for nothing.
    is_in_vain: bool,
}

fn refused(status: u16, seen: &Seen, wait: Step) -> Reply {
    Reply::error(seen.protocol(), status, &[("retry-after", "120")]).after(wait)
}

fn broken(seen: &Seen, wait: Step, end: Step) -> Reply {
    Reply::open_stream("text/event-stream").pieces(seen.events().into_iter().take(5)).then(wait).then(end)
}

fn error_within(seen: &Seen, wait: Step) -> Reply {
    let error = wire::error_event(seen.protocol(), "too much");
    let begun = Reply::open_stream("text/event-stream").pieces(seen.events().into_iter().take(5));
    begun.then(wait).pieces([error]).end()
}

fn error_first(seen: &Seen, wait: Step) -> Reply {
    let error = wire::error_event(seen.protocol(), "too much");
    Reply::open_stream("text/event-stream").pieces([error]).end().after(wait)
}

const FAILURES: [Failure; 7] = [
    Failure {
        name: "limited",
        has_begun: false,
        reply: |seen, wait| refused(429, seen, wait),
        provenance: Provenance::Unused,
        state: "limited",
        is_in_vain: false,
    },
    Failure {
        name: "refused",
        has_begun: false,
        reply: |seen, wait| refused(400, seen, wait),
        provenance: Provenance::Unused,
        state: "ok",
        is_in_vain: false,
    },
    Failure {
        name: "closed",
        has_begun: false,
        reply: |_, wait| Reply::raw(vec![wait, Step::Close]),
        provenance: Provenance::Unused,
        state: "ok",
        is_in_vain: true,
    },
    Failure {
        name: "error-first",
        has_begun: false,
        reply: error_first,
        provenance: Provenance::Unused,
        state: "overloaded",
        is_in_vain: false,
    },
    Failure {
        name: "error-within",
        has_begun: true,
        reply: error_within,
        provenance: Provenance::Partial,
        state: "overloaded",
        is_in_vain: false,
    },
    Failure {
        name: "broken-off",
        has_begun: true,
        reply: |seen, wait| broken(seen, wait, Step::Close),
        provenance: Provenance::Partial,
        state: "ok",
        is_in_vain: false,
    },
    Failure {
        name: "reset",
        has_begun: true,
        reply: |seen, wait| broken(seen, wait, Step::Reset),
        provenance: Provenance::Partial,
        state: "ok",
        is_in_vain: false,
    },
];

async fn charged_in_vain(rig: &Rig, account: &str) -> bool {
    let by = UsageBy::Account;
    let sum = SumUsage { by, since: None, until: None, key: None, account: None, model: None };
    let sums = rig.daemon.call(&sum).await;
    let row = sums.into_iter().find(|row| row.name == account);
    row.is_some_and(|row| row.provenance.contains_key(&Provenance::Estimated))
}

/// The account answers for it as always; the call asks no other for a client that is not there.
#[tokio::test]
async fn an_upstream_that_fails_afterwards_is_judged_and_no_other_is_asked() {
    for failure in &FAILURES {
        let rig = Rig::bare(draining()).await;
        let first = rig.account(AccountKind::ClaudeConsole, "first");
        rig.daemon.call(&AddAccount { priority: Some(1), ..first }).await;
        rig.add(AccountKind::ClaudeConsole, "second").await;
        let gate = Gate::closed();
        let (held, reply) = (gate.clone(), failure.reply);
        rig.upstream.script(move |seen| reply(seen, Step::Wait(held.clone())));
        let call = Call::new(Protocol::Messages, failure.name).streamed();
        if failure.has_begun {
            let mut open = rig.client.open(&call).await;
            open.read_past(b"text_delta").await;
        } else {
            leave(&rig, &rig.client, &call).await;
        }
        drains(&rig, 1).await;
        gate.open();
        let row = rig.daemon.row(failure.name).await;
        let status = if failure.has_begun { 200 } else { 499 };
        assert_eq!((row.end.as_str(), row.status, row.attempts), ("client_gone", status, 1), "{row:?}");
        assert_eq!(row.provenance, failure.provenance, "{row:?}");
        assert_eq!(row.usage.is_empty(), row.provenance == Provenance::Unused, "{row:?}");
        assert_eq!(rig.upstream.count(), 1, "{}: another account was asked", failure.name);
        assert_eq!(rig.show("first").await.health.state, failure.state, "{}", failure.name);
        assert_eq!(charged_in_vain(&rig, "first").await, failure.is_in_vain, "{}", failure.name);
    }
}

#[tokio::test]
async fn a_call_holds_its_places_until_its_drain_ends() {
    let rig = Rig::bare(Setup::default()).await;
    let limits = vec!["2 concurrent".parse().unwrap()];
    let account = rig.account(AccountKind::ClaudeConsole, "claude");
    rig.daemon.call(&AddAccount { limits, ..account }).await;
    let limits = vec!["1 concurrent".parse().unwrap()];
    let client = rig.client_of(&CreateKey { limits, ..key("tight") }).await;
    let gate = Gate::closed();
    let held = gate.clone();
    rig.upstream.script(move |seen| begun(seen, &held, 4));
    let call = Call::new(Protocol::Messages, "m").streamed();
    client.open(&call).await.read_past(b"text_delta").await;
    drains(&rig, 1).await;
    let account = rig.show("claude").await;
    assert_eq!((account.in_flight, account.limits[0].held), (1, 1), "{account:?}");
    assert_eq!(rig.daemon.status().await.in_flight, 1);
    let refused = client.call(&call).await.expect(429).error_message(call.protocol);
    assert!(refused.ends_with("1 is open"), "{refused}");
    gate.open();
    drains(&rig, 0).await;
    client.call(&call).await.expect(200);
    rig.daemon.settled().await;
    let account = rig.show("claude").await;
    assert_eq!((account.in_flight, account.limits[0].held), (0, 0), "{account:?}");
}

#[tokio::test]
async fn a_stop_waits_for_drains() {
    let mut rig = Rig::with(draining()).await;
    let gate = Gate::closed();
    let held = gate.clone();
    rig.upstream.script(move |seen| match seen.is_stream() {
        true => begun(seen, &held, 4),
        false => answer(seen).after(Step::Wait(held.clone())),
    });
    let stream = Call::new(Protocol::Messages, "stream").streamed();
    rig.client.open(&stream).await.read_past(b"text_delta").await;
    leave(&rig, &rig.client, &Call::new(Protocol::Responses, "whole")).await;
    drains(&rig, 2).await;
    rig.daemon.terminate();
    let address = rig.daemon.address();
    let refused = async || tokio::net::TcpStream::connect(address).await.is_err().then_some(());
    until("connections are refused", refused).await;
    drains(&rig, 2).await;
    gate.open();
    assert!(rig.daemon.ended().await.success());
    rig.start_again().await;
    is_drained(&rig.daemon.row("stream").await, 200);
    is_drained(&rig.daemon.row("whole").await, 499);
}

/// The clients had left before the daemon gave up.
#[tokio::test]
async fn drains_that_outlast_a_stop_are_booked_as_left() {
    let mut rig = Rig::with(draining().set(setting::DRAIN_TIMEOUT_MS, 500)).await;
    rig.upstream.script(|seen| begun(seen, &Gate::closed(), 4));
    let stream = Call::new(Protocol::Messages, "stream").streamed();
    rig.client.open(&stream).await.read_past(b"text_delta").await;
    rig.upstream.script(|_| Reply::raw(vec![Step::Stall]));
    leave(&rig, &rig.client, &Call::new(Protocol::Messages, "whole")).await;
    drains(&rig, 2).await;
    rig.daemon.terminate();
    assert!(rig.daemon.ended().await.success());
    rig.start_again().await;
    for (model, status, provenance) in
        [("stream", 200, Provenance::Partial), ("whole", 499, Provenance::Estimated)]
    {
        let row = rig.daemon.row(model).await;
        assert_eq!((row.end.as_str(), row.status), ("client_gone", status), "{row:?}");
        assert_eq!((row.provenance, row.usage.is_empty()), (provenance, false), "{row:?}");
    }
}

/// A client that leaves while its call waits for room has sent nothing to an upstream.
#[tokio::test]
async fn calls_that_wait_are_not_drained() {
    let rig = Rig::with(draining().set(setting::QUEUE_ENABLED, true)).await;
    let gate = Gate::closed();
    let held = gate.clone();
    rig.upstream.script(move |seen| answer(seen).after(Step::Wait(held.clone())));
    let limits = vec!["1 concurrent".parse().unwrap()];
    let client = rig.client_of(&CreateKey { limits, ..key("tight") }).await;
    leave(&rig, &client, &Call::new(Protocol::Messages, "first")).await;
    drains(&rig, 1).await;
    let waiting = client.clone();
    let waiting = tokio::spawn(async move { waiting.call(&Call::new(Protocol::Messages, "m")).await });
    rig.daemon.waiting(1).await;
    waiting.abort();
    rig.daemon.waiting(0).await;
    gate.open();
    is_drained(&rig.daemon.row("first").await, 499);
    assert_eq!((rig.daemon.rows().await.len(), rig.upstream.count()), (1, 1));
}

/// It stays connected and reads nothing.
#[tokio::test]
async fn a_client_that_takes_nothing_has_left() {
    let rig = Rig::with(draining().set(setting::WRITE_STALL_TIMEOUT_MS, 200)).await;
    let text = "x".repeat(32 << 10);
    rig.upstream.script(move |seen| {
        let mut events = seen.events();
        let delta = json!({"type": "text_delta", "text": text});
        let delta = json!({"type": "content_block_delta", "index": 0, "delta": delta});
        let delta = Bytes::from(format!("event: content_block_delta\ndata: {delta}\n\n"));
        let end = events.split_off(4);
        Reply::stream("text/event-stream", [events, vec![delta; 512], end].concat())
    });
    let call = Call::new(Protocol::Messages, "stalled").streamed();
    let body = String::from_utf8(call.body().to_vec()).unwrap();
    let head = format!("POST {} HTTP/1.1\r\nhost: relay\r\nx-api-key: {}\r\n", call.path(), rig.key);
    let mut raw = Raw::connect(rig.daemon.address()).await;
    raw.send(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes()).await.unwrap();
    let row = rig.daemon.row("stalled").await;
    // Most of it came after the client had left: more tokens than are waited for.
    assert_eq!((row.end.as_str(), row.provenance), ("client_gone", Provenance::Partial), "{row:?}");
    let tokens = row.usage[UsageClass::Output];
    assert!((32_000..250_000).contains(&tokens), "{row:?}");
}

/// Whether a call of a client that has left is drained.
async fn is_left_to_drain(rig: &Rig, client: &Client) -> bool {
    let gate = Gate::closed();
    let held = gate.clone();
    rig.upstream.script(move |seen| answer(seen).after(Step::Wait(held.clone())));
    leave(rig, client, &Call::new(Protocol::Messages, "m")).await;
    let drains = until("it ends or is drained", async || {
        let status = rig.daemon.status().await;
        (status.in_flight == status.draining).then_some(status.draining > 0)
    })
    .await;
    if drains {
        let shown = control::run(rig.daemon.data(), &["status"]);
        assert!(shown.contains("1 call (1 draining)"), "{shown}");
    }
    gate.open();
    rig.daemon.settled().await;
    drains
}

#[tokio::test]
async fn a_key_may_be_drained_or_not_whatever_is_configured() {
    for configured in OnDisconnect::ALL {
        let setup = Setup::default().set(setting::ON_DISCONNECT, configured.name());
        let rig = Rig::with(setup).await;
        let ctl = |args: &[&str]| control::run(rig.daemon.data(), args);
        let shown = ctl(&["key", "show", "everything"]);
        assert!(shown.contains("on disconnect  as configured"), "{shown}");
        let as_configured = configured == OnDisconnect::Drain;
        assert_eq!(is_left_to_drain(&rig, &rig.client).await, as_configured);
        for policy in OnDisconnect::ALL {
            let shown = ctl(&["key", "update", "everything", "--on-disconnect", policy.name()]);
            assert!(shown.contains(&format!("on disconnect  {}", policy.name())), "{shown}");
            assert_eq!(is_left_to_drain(&rig, &rig.client).await, policy == OnDisconnect::Drain);
        }
        ctl(&["key", "update", "everything", "--clear", "on-disconnect"]);
        assert_eq!(is_left_to_drain(&rig, &rig.client).await, as_configured);
        ctl(&["key", "create", "own", "--on-disconnect", "drain"]);
        let own = rig.daemon.call(&ShowKey { key: "own".to_owned() }).await;
        assert_eq!(own.on_disconnect, Some(OnDisconnect::Drain));
    }
}

/// Vectors are measured, counting tokens is nothing, and what tells no figures is estimated.
#[tokio::test]
async fn what_can_be_known_is_waited_for() {
    let rig = Rig::with(draining()).await;
    let gate = Gate::closed();
    let held = gate.clone();
    rig.upstream.script(move |seen| answer(seen).after(Step::Wait(held.clone())));
    let post = async |path: &str, body: serde_json::Value| {
        let before = rig.upstream.count();
        tokio::select! {
            () = until("the upstream has it", async || (rig.upstream.count() > before).then_some(())) => {}
            _ = rig.client.post(path, body.to_string()) => panic!("nothing can have come"),
        }
    };
    let message = json!([{"role": "user", "content": "hello"}]);
    post("/v1/messages/count_tokens", json!({"model": "counted", "messages": message})).await;
    until("it ends", async || (rig.daemon.status().await.in_flight == 0).then_some(())).await;
    post("/v1/embeddings", json!({"model": "vectors", "input": "hello"})).await;
    drains(&rig, 1).await;
    gate.open();
    let row = rig.daemon.row("vectors").await;
    assert_eq!((row.end.as_str(), row.provenance), ("client_gone", Provenance::Measured), "{row:?}");
    assert_eq!(row.usage[UsageClass::Input], 25, "{row:?}");
    assert_eq!(rig.daemon.rows().await.len(), 1);
}

/// Gemini's stream without `alt=sse` is one array.
#[tokio::test]
async fn an_array_is_drained_like_a_stream() {
    let rig = Rig::with(draining()).await;
    let gate = Gate::closed();
    let held = gate.clone();
    rig.upstream.script(move |seen| {
        let mut before = seen.events();
        let after = before.split_off(2);
        let begun = Reply::open_stream("application/json").pieces(before);
        begun.then(Step::Wait(held.clone())).pieces(after).end()
    });
    let body = Call::new(Protocol::GenerateContent, "array").body();
    let path = "/v1beta/models/array:streamGenerateContent";
    rig.client.open_post(path, body).await.read_past("Grüße".as_bytes()).await;
    drains(&rig, 1).await;
    gate.open();
    is_drained(&rig.daemon.row("array").await, 200);
}

#[tokio::test]
async fn replies_without_figures_are_estimated_by_all_that_came() {
    let rig = Rig::start().await;
    let usage = shared::domain::key::UsageMode::Estimate;
    let client = rig.client_of(&CreateKey { usage, ..key("estimated") }).await;
    let gate = Gate::closed();
    let held = gate.clone();
    rig.upstream.script(move |seen| begun(seen, &held, 2));
    client.open(&Call::new(Protocol::ChatCompletions, "silent").streamed()).await.read_past(b"Gr").await;
    drains(&rig, 1).await;
    gate.open();
    let row = rig.daemon.row("silent").await;
    assert_eq!((row.end.as_str(), row.provenance), ("client_gone", Provenance::Estimated), "{row:?}");
    let whole = wire::events(Protocol::ChatCompletions, "silent", wire::Content::Text, false).concat().len();
    let tokens = row.usage[UsageClass::Output];
    assert!(tokens * 60 > whole as u64 * 8 / 10, "{tokens} tokens of {whole} bytes");
}

/// Nothing would be known of it.
#[tokio::test]
async fn a_reply_in_an_unknown_encoding_is_not_drained() {
    let rig = Rig::with(draining()).await;
    rig.upstream.script(|_| {
        let head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: br\r\n";
        let head = [head.as_slice(), b"content-length: 1000\r\n\r\n{here"].concat();
        Reply::raw(vec![Step::Send(head.into()), Step::Stall])
    });
    rig.client.open(&Call::new(Protocol::Messages, "encoded")).await.read_past(b"here").await;
    until("the upstream is let go", async || (rig.upstream.gone() == 1).then_some(())).await;
    let row = rig.daemon.row("encoded").await;
    assert_eq!((row.end.as_str(), row.provenance), ("client_gone", Provenance::Estimated), "{row:?}");
}

/// However clients leave, every call has one row, and nothing stays held.
#[tokio::test]
async fn a_storm_of_leaving_clients_leaves_nothing_behind() {
    const CALLS: usize = 160;
    let rig = Rig::with(Setup::default().set(setting::DRAINS_MAX, 8).set(setting::WORKERS, 2)).await;
    let pause = Duration::from_millis(2);
    rig.upstream.script(move |seen| answer(seen).with_gaps(pause).after(Step::Pause(pause)));
    let limits = || vec!["40 concurrent".parse().unwrap(), "1000000 tokens per day".parse().unwrap()];
    let client = rig.client_of(&CreateKey { limits: limits(), ..key("stormy") }).await;
    let mut calls = JoinSet::new();
    for number in 0..CALLS {
        let client = client.clone();
        let call = Call::new(Protocol::ALL[number % 4], format!("m-{number:03}"));
        let call = if number % 3 == 0 { call } else { call.streamed() };
        let patience = Duration::from_millis(number as u64 * 7 % 41);
        calls.spawn(async move { tokio::time::timeout(patience, client.call(&call)).await.is_ok() });
    }
    let served = calls.join_all().await.into_iter().filter(|is_served| *is_served).count();
    until("all has ended", async || (rig.daemon.status().await.in_flight == 0).then_some(())).await;
    assert_eq!(rig.daemon.status().await.draining, 0);
    let rows = rig.daemon.rows().await;
    assert!(served < CALLS && rows.len() <= CALLS, "{served} served, {} rows", rows.len());
    let mut models: Vec<&str> = rows.iter().map(|row| row.model.as_str()).collect();
    models.sort_unstable();
    models.dedup();
    assert_eq!(models.len(), rows.len(), "a call has two rows");
    let tokens: u64 = rows.iter().map(|row| row.usage.tokens()).sum();
    let view = rig.daemon.call(&ShowKey { key: "stormy".to_owned() }).await;
    assert!(view.limits.iter().all(|limit| limit.held == 0), "{:?}", view.limits);
    assert_eq!(view.limits[1].used, tokens, "{:?}", view.limits);
    for row in rows.iter().filter(|row| row.provenance == Provenance::Measured) {
        assert_eq!(row.usage, wire::usage(row.protocol), "{row:?}");
    }
}
