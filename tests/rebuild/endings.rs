//! Calls that ended in every way there is: by the prices that they had they cost what they cost, and by others exactly
//! so much more.

use serde_json::{Value, json};
use shared::admin::{AddAccount, RequestRow, SumUsage, UpdatePrices, UsageBy};
use shared::domain::{AccountKind, Protocol, Provenance, UsageClass};
use tokio::task::JoinSet;

use super::{answer, limited, looking, today};
use crate::support::{Call, Client, Gate, Reply, Rig, Seen, Setup, Step, until, wire};

const MODELS: [&str; 5] = ["good", "fast", "reset", "cut", "held"];
const STANDARD_NANOS: u64 = 1_000;

/// Prices for every model; `priority` costs ten times as much.
async fn load_prices(rig: &Rig, factor: u64) {
    let dollars = |times: u64| format!("{}e-9", factor * times * STANDARD_NANOS).parse::<f64>().unwrap();
    let (standard, priority) = (dollars(1), dollars(10));
    let price = json!({
        "input_cost_per_token": standard, "output_cost_per_token": standard,
        "input_cost_per_token_priority": priority, "output_cost_per_token_priority": priority,
    });
    let list: serde_json::Map<String, Value> =
        MODELS.iter().map(|model| ((*model).to_owned(), price.clone())).collect();
    rig.daemon.call(&UpdatePrices { json: Value::Object(list).to_string(), dry_run: false }).await;
}

fn script(seen: &Seen, gate: &Gate) -> Reply {
    let is_first = seen.account == "first";
    let events = || wire::events(Protocol::Messages, &seen.model(), seen.content(), true);
    match seen.model().as_str() {
        "fast" => {
            let mut body = wire::whole(Protocol::Messages, &seen.model(), seen.content());
            body["usage"]["service_tier"] = json!("priority");
            Reply::json(200, &body)
        }
        "reset" if is_first => Reply::raw(vec![Step::Reset]),
        "cut" => {
            Reply::open_stream("text/event-stream").pieces(events().into_iter().take(5)).then(Step::Close)
        }
        "held" => answer(seen).after(Step::Wait(gate.clone())),
        _ => answer(seen),
    }
}

async fn call_all(client: &Client) {
    for model in ["good", "fast", "cut", "reset"] {
        let call = Call::new(Protocol::Messages, model);
        let call = if model == "cut" { call.streamed() } else { call };
        // How it ends is the upstream's business.
        if let Ok(open) = client.try_open(&call).await {
            open.rest().await;
        }
    }
}

/// What was given up, in nano-dollars.
async fn given_up(rig: &Rig) -> i64 {
    let query =
        SumUsage { by: UsageBy::Key, since: None, until: None, key: None, account: None, model: None };
    let sums = rig.daemon.call(&query).await;
    sums.iter().find(|sum| sum.id.is_none()).map_or(0, |sum| sum.cost.as_nanos())
}

async fn costs(rig: &Rig) -> Vec<i64> {
    let mut rows: Vec<RequestRow> = rig.daemon.rows().await;
    rows.sort_by_key(|row| row.id);
    rows.iter().map(|row| row.cost.as_nanos()).chain([given_up(rig).await]).collect()
}

async fn in_accounts(rig: &Rig) -> Vec<u64> {
    let mut used = Vec::new();
    for account in ["first", "second"] {
        used.push(rig.show(account).await.limits[0].used);
    }
    used
}

async fn nothing_differs(rig: &Rig) {
    let mut look = looking();
    look.prices = today().prices;
    for look in [looking(), look] {
        let found = rig.daemon.call_long(&look).await;
        let differs = found.repriced > 0 || found.hours > 0 || !found.counters.is_empty();
        assert!(!differs && found.left_alone.is_empty(), "{found:?}");
    }
}

#[tokio::test]
async fn by_unchanged_prices_nothing_costs_anything_else_however_it_ended() {
    let mut rig = Rig::bare(Setup::default()).await;
    load_prices(&rig, 1).await;
    for (name, priority) in [("first", 10), ("second", 20)] {
        let account = rig.account(AccountKind::ClaudeConsole, name);
        let limits = vec!["$100 in total".parse().unwrap()];
        rig.daemon.call(&AddAccount { priority: Some(priority), limits, ..account }).await;
    }
    let gate = Gate::closed();
    let held = gate.clone();
    rig.upstream.script(move |seen| script(seen, &held));
    let client = rig.client_of(&limited("bob", &["$100 per day strict", "$100 in total"])).await;
    call_all(&client).await;
    rig.resume("first").await;
    let mut open = JoinSet::new();
    for _ in 0..3 {
        let client = client.clone();
        open.spawn(async move { client.try_open(&Call::new(Protocol::Messages, "held")).await.is_ok() });
    }
    until("calls are open", async || (rig.upstream.answering() == 3).then_some(())).await;
    rig.daemon.kill();
    gate.open();
    while open.join_next().await.is_some() {}
    rig.start_again().await;

    let rows = rig.daemon.rows().await;
    for provenance in [Provenance::Measured, Provenance::Partial, Provenance::Orphaned] {
        assert!(rows.iter().any(|row| row.provenance == provenance && row.cost.as_nanos() > 0), "{rows:#?}");
    }
    let fast = rows.iter().find(|row| row.model == "fast").unwrap();
    let priced = fast.usage[UsageClass::Input] + fast.usage[UsageClass::Output];
    assert_eq!((fast.cost.as_counted(), fast.unpriced), (10 * STANDARD_NANOS * priced, true));
    let (before, accounts) = (costs(&rig).await, in_accounts(&rig).await);
    assert!(before.last() > Some(&0), "an attempt was given up");
    nothing_differs(&rig).await;
    load_prices(&rig, 3).await;
    rig.daemon.call_long(&today()).await;
    assert_eq!(costs(&rig).await, before.iter().map(|cost| 3 * cost).collect::<Vec<_>>());
    assert_eq!(in_accounts(&rig).await, accounts.iter().map(|used| 3 * used).collect::<Vec<_>>());
    nothing_differs(&rig).await;
}
