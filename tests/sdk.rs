//! Real SDKs through the relay: `tests/sdk` holds their side, this file the upstream's and the ledger's.

use shared::admin::{AddAccount, RequestRow};
use shared::domain::{AccountKind, Operation, Protocol, Provenance};

use crate::support::upstream;
use crate::support::{Ask, Reply, Rig, Seen, Step, python, until, wire};

/// The model's name says what is to happen.
fn script(seen: &Seen) -> Reply {
    let Ask::Generate(protocol) = seen.ask() else { return upstream::answer(seen) };
    let mut events = seen.events();
    match seen.model().as_str() {
        "fail-429" => Reply::error(protocol, 429, &[("retry-after", "7")]),
        "fail-529" => Reply::error(protocol, 529, &[]),
        "fail-503" => Reply::error(protocol, 503, &[]),
        "fail-400" => Reply::error(protocol, 400, &[]),
        "fail-404" => Reply::error(protocol, 404, &[]),
        "slow" => {
            Reply::open_stream("text/event-stream").pieces(events.into_iter().take(2)).then(Step::Stall)
        }
        "midway" => {
            events.truncate(3);
            events.push(wire::error_event(protocol, "scripted error"));
            upstream::stream_of(events)
        }
        "broken" => {
            // Everything that tells of an end is missing, and the connection says that all is well.
            let end = wire::terminal_mark(protocol);
            let finish: &[u8] = if protocol == Protocol::ChatCompletions { b"\"stop\"" } else { end };
            let holds = |event: &[u8], mark: &[u8]| event.windows(mark.len()).any(|window| window == mark);
            events.retain(|event| !holds(event, end) && !holds(event, finish));
            upstream::stream_of(events)
        }
        _ => upstream::answer(seen),
    }
}

/// An account for every kind of model name, so that a failing one takes no other with it.
async fn rig(kind: AccountKind, failures: &[&str]) -> Rig {
    let rig = Rig::bare(crate::support::Setup::default()).await;
    rig.upstream.script(script);
    let named =
        |name: &str, model: &str| AddAccount { models: vec![model.into()], ..rig.account(kind, name) };
    rig.daemon.call(&named("good", "m-*")).await;
    rig.daemon.call(&named("listed", "m-listed")).await;
    for model in failures {
        rig.daemon.call(&named(model, model)).await;
    }
    rig
}

/// Gemini says nothing of what an embedding used.
fn provenance(row: &RequestRow) -> Provenance {
    match (row.protocol, row.operation) {
        (Protocol::GenerateContent, Operation::Embed) => Provenance::Estimated,
        _ => Provenance::Measured,
    }
}

/// Every answer was booked with the upstream's figures, and the cancelled call as far as it went.
async fn is_booked(rig: &Rig, cancelled: usize) {
    until("the cancelled calls end upstream", async || (rig.upstream.gone() >= cancelled).then_some(()))
        .await;
    let rows = rig.daemon.rows().await;
    for row in rows.iter().filter(|row| row.model.starts_with("m-") && row.status == 200) {
        assert_eq!((row.end.as_str(), row.provenance), ("complete", provenance(row)), "{row:?}");
    }
    let slow: Vec<_> = rows.iter().filter(|row| row.model == "slow").collect();
    assert_eq!(slow.len(), cancelled);
    for row in slow {
        assert_eq!(row.end, "client_gone", "{row:?}");
    }
    for row in rows.iter().filter(|row| row.model == "broken") {
        assert_eq!(row.end, "truncated", "{row:?}");
    }
}

const FAILURES: [&str; 7] = ["fail-429", "fail-503", "fail-400", "fail-404", "midway", "broken", "slow"];

async fn run(kind: AccountKind, failures: &[&str], script: &str, cancelled: usize) {
    let rig = rig(kind, failures).await;
    python::run(script, &format!("http://{}", rig.daemon.address()), &rig.key).await;
    is_booked(&rig, cancelled).await;
}

#[tokio::test]
async fn anthropic() {
    let failures = [&FAILURES[..], &["fail-529"]].concat();
    run(AccountKind::ClaudeConsole, &failures, "anthropic_sdk.py", 1).await;
}

#[tokio::test]
async fn openai() {
    run(AccountKind::OpenaiResponses, &FAILURES, "openai_sdk.py", 2).await;
}

#[tokio::test]
async fn google_genai() {
    run(AccountKind::GeminiApi, &FAILURES, "genai_sdk.py", 1).await;
}

#[tokio::test]
async fn azure_openai() {
    run(AccountKind::AzureOpenai, &[], "azure_sdk.py", 0).await;
}
