//! An account that says nothing must not keep its callers waiting while others stand idle, and a long answer must
//! not be taken for silence.

use std::time::{Duration, Instant};

use shared::admin::AddAccount;
use shared::domain::{AccountKind, Limit, Protocol};

use crate::support::daemon::setting;
use crate::support::{Call, Gate, Reply, Rig, Seen, Setup, Step, answer, until};

const KINDS: [AccountKind; 3] =
    [AccountKind::ClaudeConsole, AccountKind::OpenaiResponses, AccountKind::GeminiApi];

fn impatient() -> Setup {
    Setup::default().set(setting::STREAM_SILENCE_MS, 300).set(setting::WHOLE_SILENCE_MS, 600)
}

/// An account that comes first, and one for which calls leave it.
async fn pairs(setup: Setup) -> Rig {
    let rig = Rig::bare(setup).await;
    for kind in KINDS {
        add(&rig, kind, "first", 10, &[]).await;
        add(&rig, kind, "second", 20, &[]).await;
    }
    rig
}

async fn add(rig: &Rig, kind: AccountKind, side: &str, priority: u8, limits: &[&str]) {
    let account = rig.account(kind, &format!("{side}-{}", kind.name()));
    let limits = limits.iter().map(|limit| limit.parse::<Limit>().unwrap()).collect();
    rig.daemon.call(&AddAccount { priority: Some(priority), limits, ..account }).await;
}

fn hangs(seen: &Seen) -> Reply {
    if seen.account.starts_with("first") { Reply::raw(vec![Step::Stall]) } else { answer(seen) }
}

#[tokio::test]
async fn a_hung_account_is_left_long_before_the_last_deadline() {
    let rig = pairs(impatient()).await;
    rig.upstream.script(hangs);
    for protocol in Protocol::ALL {
        for call in [Call::new(protocol, "m"), Call::new(protocol, "m").streamed()] {
            for kind in KINDS {
                rig.resume(&format!("first-{}", kind.name())).await;
            }
            rig.upstream.take_seen();
            let asked = Instant::now();
            rig.client.call(&call).await.expect(200);
            assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
            assert_eq!(rig.upstream.count(), 2);
        }
    }
    let health = rig.show("first-gemini-api").await.health;
    assert!(health.state == "overloaded" && health.cause.unwrap().contains("in time"));
}

#[tokio::test]
async fn counting_waits_for_no_silent_account() {
    let rig = pairs(impatient()).await;
    rig.upstream.script(hangs);
    let body = Call::new(Protocol::Messages, "m").body();
    rig.client.post("/v1/messages/count_tokens", body).await.expect(200);
    assert_eq!(rig.upstream.count(), 2);
}

/// Nobody else could serve the call: the others are paused, rest, or have no room.
#[tokio::test]
async fn the_last_account_may_take_its_time() {
    let rig = Rig::bare(impatient()).await;
    add(&rig, KINDS[0], "first", 10, &[]).await;
    add(&rig, KINDS[0], "second", 20, &["1 concurrent"]).await;
    let gate = Gate::closed();
    let held = gate.clone();
    rig.upstream.script(move |seen| match (seen.account.starts_with("first"), seen.model().as_str()) {
        (true, "refused") => Reply::error(seen.protocol(), 529, &[]),
        (true, _) => answer(seen).after(Step::Pause(Duration::from_millis(1_500))),
        (false, _) => answer(seen).after(Step::Wait(held.clone())),
    });
    let refused = Call::new(Protocol::Messages, "refused").streamed();
    let other = tokio::spawn({
        let client = rig.client.clone();
        async move { client.call(&refused).await }
    });
    until("the second is taken", async || {
        (rig.upstream.answering() == 1 && rig.upstream.count() == 2).then_some(())
    })
    .await;
    rig.resume("first-claude-console").await;
    for call in [Call::new(Protocol::Messages, "m"), Call::new(Protocol::Messages, "m").streamed()] {
        rig.client.call(&call).await.expect(200);
    }
    gate.open();
    other.await.unwrap().expect(200);
    let asked: Vec<_> = rig.upstream.seen().iter().map(|seen| seen.account.clone()).collect();
    let first = "first-claude-console";
    assert_eq!(asked, [first, "second-claude-console", first, first]);
}

/// A whole reply says nothing until it is complete. That the account answers others shows that it works on it.
#[tokio::test]
async fn a_long_answer_is_waited_for_where_the_account_answers_others() {
    let rig = pairs(impatient()).await;
    rig.upstream.script(|seen| match seen.model().as_str() {
        "long" => answer(seen).after(Step::Pause(Duration::from_millis(2_000))),
        _ => answer(seen),
    });
    let long = tokio::spawn({
        let client = rig.client.clone();
        async move { client.call(&Call::new(Protocol::Messages, "long")).await }
    });
    while !long.is_finished() {
        rig.client.call(&Call::new(Protocol::Messages, "m")).await.expect(200);
    }
    long.await.unwrap().expect(200);
    assert!(rig.upstream.seen().iter().all(|seen| seen.account.starts_with("first")));
}

/// An answer that takes as long elsewhere is no fault of the account which was left.
#[tokio::test]
async fn an_account_does_not_rest_for_what_takes_long_everywhere() {
    let rig = pairs(impatient()).await;
    rig.upstream.script(|seen| answer(seen).after(Step::Pause(Duration::from_millis(1_500))));
    rig.client.call(&Call::new(Protocol::Messages, "m")).await.expect(200);
    assert_eq!(rig.upstream.count(), 2);
    assert_eq!(rig.show("first-claude-console").await.health.state, "ok");
}

/// The time in which an account said nothing is no reason to ask no other.
#[tokio::test]
async fn a_first_byte_that_does_not_come_in_time_moves_the_call() {
    let setup = Setup::default().set(setting::FIRST_BYTE_TIMEOUT_MS, 500);
    let rig = pairs(setup.set(setting::HOLD_MS, 50).set(setting::FAILOVER_TOTAL_MS, 100)).await;
    rig.upstream.script(hangs);
    for protocol in Protocol::ALL {
        rig.client.call(&Call::new(protocol, "m")).await.expect(200);
    }
}
