//! How replies end, and what stands in their rows for it.

use std::time::Duration;

use bytes::Bytes;
use shared::admin::{AddAccount, SumUsage, UsageBy, UsageRow};
use shared::domain::{AccountKind, Protocol, Provenance, UsageClass};

use crate::support::daemon::setting;
use crate::support::{Call, Gate, Reply, Rig, Setup, Step, answer, until, wire};

#[tokio::test]
async fn a_reply_with_trailers_is_complete() {
    let rig = Rig::start().await;
    rig.upstream.script(|seen| {
        let end = Bytes::from_static(b"0\r\nx-checksum: 1\r\n\r\n");
        Reply::open_stream("text/event-stream").pieces(seen.events()).then(Step::Send(end))
    });
    for protocol in Protocol::ALL {
        let call = Call::new(protocol, format!("trailers-{}", protocol.name())).streamed();
        let answer = rig.client.call(&call).await.expect(200);
        assert!(!answer.is_broken, "{}", answer.text());
        let row = rig.daemon.row(&call.model).await;
        assert_eq!((row.end.as_str(), row.provenance), ("complete", Provenance::Measured), "{row:?}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_with_the_last_event_had_all_of_it() {
    let rig = Rig::start().await;
    let gate = Gate::closed();
    let held = gate.clone();
    rig.upstream.script(move |seen| {
        Reply::open_stream("text/event-stream").pieces(seen.events()).then(Step::Wait(held.clone())).end()
    });
    for protocol in Protocol::ALL {
        let call = Call::new(protocol, format!("last-{}", protocol.name())).streamed();
        let mut open = rig.client.open(&call).await;
        open.read_past(wire::terminal_mark(protocol)).await;
        drop(open);
        let row = rig.daemon.row(&call.model).await;
        assert_eq!((row.end.as_str(), row.provenance), ("complete", Provenance::Measured), "{row:?}");
    }
    gate.open();
}

/// Messages tells of a token or two in front, and of the answer at its end.
#[tokio::test]
async fn whoever_leaves_before_the_end_pays_for_what_came() {
    let rig = Rig::start().await;
    let delta = wire::events(Protocol::Messages, "m", wire::Content::Text, false).swap_remove(3);
    let deltas = vec![delta; 100];
    rig.upstream.script(move |seen| {
        let events = seen.events().into_iter().take(3).chain(deltas.iter().cloned());
        let pieces = events.chain([Bytes::from_static(b":x\n")]);
        Reply::open_stream("text/event-stream").pieces(pieces).then(Step::Stall)
    });
    let mut open = rig.client.open(&Call::new(Protocol::Messages, "left").streamed()).await;
    open.read_past(b":x\n").await;
    drop(open);
    let row = rig.daemon.row("left").await;
    assert_eq!((row.end.as_str(), row.provenance), ("client_gone", Provenance::Partial), "{row:?}");
    assert!(row.usage[UsageClass::Output] >= 100, "{row:?}");
}

#[tokio::test]
async fn an_upstream_that_leads_elsewhere_is_not_followed() {
    let rig = Rig::bare(Setup::default()).await;
    rig.add(AccountKind::ClaudeConsole, "moved").await;
    rig.upstream.script(|seen| match seen.account.as_str() {
        "moved" => Reply::whole(307, &[("location", "http://elsewhere.test/v1/messages")], ""),
        _ => answer(seen),
    });
    let call = Call::new(Protocol::Messages, "m");
    let alone = rig.client.call(&call).await.expect(502);
    assert_eq!((alone.header("location"), alone.error_message(call.protocol).contains("307")), (None, true));
    let row = rig.daemon.row("m").await;
    assert_eq!((row.end.as_str(), row.provenance), ("failed", Provenance::Unused), "{row:?}");
    rig.add(AccountKind::ClaudeConsole, "stayed").await;
    rig.client.call(&call).await.expect(200);
}

/// SDKs look at the milliseconds first.
#[tokio::test]
async fn a_client_is_told_of_the_account_that_rests_least() {
    let rig = Rig::bare(Setup::default()).await;
    for name in ["one", "two"] {
        rig.add(AccountKind::ClaudeConsole, name).await;
    }
    rig.upstream.script(|seen| {
        let wait = if seen.account == "one" { "7000" } else { "40000" };
        Reply::error(seen.protocol(), 429, &[("retry-after-ms", wait)])
    });
    let answer = rig.client.call(&Call::new(Protocol::Messages, "m")).await.expect(429);
    assert_eq!((answer.header("retry-after"), answer.header("retry-after-ms")), (Some("7"), None));
}

/// An upstream that takes the connection and never speaks TLS: nothing can be sent to it.
#[tokio::test]
async fn a_client_that_leaves_before_anything_was_sent_pays_nothing() {
    let rig = Rig::bare(Setup::default()).await;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = Some(format!("https://{}", silent.local_addr().unwrap()));
    let account = rig.account(AccountKind::ClaudeConsole, "silent");
    rig.daemon.call(&AddAccount { base_url, ..account }).await;
    let call = Call::new(Protocol::Messages, "unsent");
    let _connection = tokio::select! {
        accepted = silent.accept() => accepted.unwrap(),
        _ = rig.client.call(&call) => panic!("nobody can have answered"),
    };
    let row = rig.daemon.row("unsent").await;
    assert_eq!((row.end.as_str(), row.status, row.attempts), ("client_gone", 499, 1), "{row:?}");
    assert_eq!((row.provenance, row.usage.is_empty()), (Provenance::Unused, true), "{row:?}");
}

#[tokio::test]
async fn a_client_that_leaves_while_the_upstream_thinks_pays_for_the_prompt() {
    let rig = Rig::start().await;
    rig.upstream.script(|_| Reply::raw(vec![Step::Stall]));
    let call = Call::new(Protocol::Messages, "sent");
    tokio::select! {
        () = until("the upstream has it", async || (rig.upstream.answering() == 1).then_some(())) => {}
        _ = rig.client.call(&call) => panic!("nobody can have answered"),
    }
    let row = rig.daemon.row("sent").await;
    assert_eq!((row.end.as_str(), row.status), ("client_gone", 499), "{row:?}");
    assert_eq!((row.provenance, row.usage.is_empty()), (Provenance::Estimated, false), "{row:?}");
}

/// The upstream has told of the prompt, and nothing of an answer yet: the head is still held.
#[tokio::test]
async fn figures_that_came_before_the_head_went_on_are_kept() {
    let rig = Rig::start().await;
    rig.upstream.script(|seen| {
        let first = seen.events().into_iter().take(1);
        Reply::open_stream("text/event-stream").pieces(first).then(Step::Stall)
    });
    let mut patience = Duration::from_millis(20);
    // How long the relay takes to read it cannot be seen from here.
    let row = until("a client left after it was read", async || {
        let model = format!("held-{}", patience.as_millis());
        let call = Call::new(Protocol::Messages, model.as_str()).streamed();
        let left = tokio::time::timeout(patience, rig.client.open(&call)).await;
        assert!(left.is_err(), "the head was not held");
        patience += Duration::from_millis(20);
        let row = rig.daemon.row(&model).await;
        (row.provenance == Provenance::Partial).then_some(row)
    })
    .await;
    assert_eq!((row.end.as_str(), row.status), ("client_gone", 499), "{row:?}");
    let told = wire::usage(Protocol::Messages);
    for class in [UsageClass::Input, UsageClass::CacheRead, UsageClass::CacheWrite5m] {
        assert_eq!(row.usage[class], told[class], "{row:?}");
    }
}

async fn usage_of(rig: &Rig, account: &str) -> Option<UsageRow> {
    rig.daemon.settled().await;
    let by = UsageBy::Account;
    let sum = SumUsage { by, since: None, until: None, key: None, account: None, model: None };
    rig.daemon.call(&sum).await.into_iter().find(|row| row.name == account)
}

/// The upstream had all of the request, so it may have worked and want money for it: the account is charged, the
/// key is not.
#[tokio::test]
async fn an_upstream_that_resets_after_the_request_is_taken_to_have_worked() {
    let rig = Rig::bare(Setup::default()).await;
    let bad = rig.account(AccountKind::ClaudeConsole, "bad");
    rig.daemon.call(&AddAccount { priority: Some(1), ..bad }).await;
    rig.add(AccountKind::ClaudeConsole, "good").await;
    for (number, step) in [Step::Reset, Step::Close].into_iter().enumerate() {
        rig.upstream.script(move |seen| match seen.account.as_str() {
            "bad" => Reply::raw(vec![step.clone()]),
            _ => answer(seen),
        });
        rig.resume("bad").await;
        rig.client.call(&Call::new(Protocol::Messages, format!("m-{number}"))).await.expect(200);
        let row = rig.daemon.row(&format!("m-{number}")).await;
        assert_eq!((row.attempts, row.provenance), (2, Provenance::Measured), "{row:?}");
        let charged = usage_of(&rig, "bad").await.expect("the account is charged nothing");
        assert_eq!(charged.provenance[&Provenance::Estimated], number as u64 + 1, "{charged:?}");
        assert!(!charged.usage.is_empty(), "{charged:?}");
    }
}

#[tokio::test]
async fn what_was_never_sent_is_charged_to_nobody() {
    let rig = Rig::bare(Setup::default().set(setting::FIRST_BYTE_TIMEOUT_MS, 1_000)).await;
    // It takes the connection and never speaks TLS.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = Some(format!("https://{}", silent.local_addr().unwrap()));
    let account = rig.account(AccountKind::ClaudeConsole, "silent");
    rig.daemon.call(&AddAccount { base_url, ..account }).await;
    rig.client.call(&Call::new(Protocol::Messages, "m")).await.expect(504);
    let row = rig.daemon.row("m").await;
    assert_eq!((row.end.as_str(), row.provenance), ("failed", Provenance::Unused), "{row:?}");
    let charged = usage_of(&rig, "silent").await.map(|row| row.usage).unwrap_or_default();
    assert!(charged.is_empty(), "{charged:?}");
}
