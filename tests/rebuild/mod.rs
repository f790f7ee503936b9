//! Costs, sums and counters computed anew: what was tampered with is put right, whatever goes on meanwhile.

mod endings;
mod tamper;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};
use shared::admin::{
    AddAccount, CreateKey, ListAudit, ListRequests, RemoveAccount, RequestRow, SetPrice, ShowKey, SumUsage,
    UsageBy,
};
use shared::costs::{CostsRebuilt, PricesFrom, RebuildCosts};
use shared::domain::{AccountKind, Family, Limit, Protocol};
use shared::progress::Progress;
use tokio::task::JoinSet;

use crate::support::daemon::relayctl;
use crate::support::{Call, Client, Reply, Rig, Seen, Setup, admin, until, wire};

/// What every call uses.
const INPUT_TOKENS: u64 = 100;
const OUTPUT_TOKENS: u64 = 20;

const LIMITS: [&str; 4] = ["$100 per day", "$1000 in total", "1m requests in total", "1b tokens per month"];

fn limits(texts: &[&str]) -> Vec<Limit> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn limited(name: &str, texts: &[&str]) -> CreateKey {
    CreateKey { limits: limits(texts), ..admin::key(name) }
}

fn call() -> Call {
    Call::new(Protocol::Messages, "m")
}

fn answer(seen: &Seen) -> Reply {
    let mut body = wire::whole(Protocol::Messages, &seen.model(), seen.content());
    body["usage"] = json!({"input_tokens": INPUT_TOKENS, "output_tokens": OUTPUT_TOKENS});
    Reply::json(200, &body)
}

/// Sets the price of a token of the model `m`, in thousands of nano-dollars.
async fn set_price(rig: &Rig, price: u64) {
    let prices = ["input", "output"].map(|class| (class.to_owned(), Some(price.to_string())));
    rig.daemon.call(&SetPrice { model: "m".to_owned(), prices: prices.into() }).await;
}

/// What a call costs at that price, in nano-dollars.
const fn cost(price: u64) -> u64 {
    1_000 * price * (INPUT_TOKENS + OUTPUT_TOKENS)
}

/// A daemon with an account and a key, both with limits; the key's holder pays twice the cost.
async fn rig() -> (Rig, Client) {
    let rig = Rig::bare(Setup::default()).await;
    set_price(&rig, 1).await;
    let account = rig.account(AccountKind::ClaudeConsole, "claude");
    rig.daemon.call(&AddAccount { limits: limits(&LIMITS[1..2]), ..account }).await;
    rig.upstream.script(answer);
    let rates = BTreeMap::from([(Family::Claude, "2".parse().unwrap())]);
    let key = CreateKey { rates, ..limited("alice", &LIMITS) };
    let client = rig.client_of(&key).await;
    (rig, client)
}

async fn storm(client: &Client, calls: usize) {
    let mut open = JoinSet::new();
    for _ in 0..calls {
        let client = client.clone();
        open.spawn(async move { drop(client.call(&call()).await.expect(200)) });
    }
    open.join_all().await;
}

fn booked() -> RebuildCosts {
    RebuildCosts::default()
}

fn today() -> RebuildCosts {
    RebuildCosts { prices: PricesFrom::Today, ..booked() }
}

fn looking() -> RebuildCosts {
    RebuildCosts { dry_run: true, ..booked() }
}

/// What is booked in the key's limits, in their order, and in the account's.
async fn standing(rig: &Rig) -> Vec<u64> {
    let key = rig.daemon.call(&ShowKey { key: "alice".to_owned() }).await;
    let account = rig.show("claude").await;
    assert!(key.limits.iter().all(|limit| limit.held == 0), "{:?}", key.limits);
    key.limits.iter().chain(&account.limits).map(|limit| limit.used).collect()
}

/// Calls, cost and rated cost of everything, by the hourly sums.
async fn sums(rig: &Rig) -> (u64, i64, i64) {
    let query =
        SumUsage { by: UsageBy::Key, since: None, until: None, key: None, account: None, model: None };
    let rows = rig.daemon.call(&query).await;
    rows.iter().fold((0, 0, 0), |(requests, cost, rated), row| {
        (requests + row.requests, cost + row.cost.as_nanos(), rated + row.rated.as_nanos())
    })
}

/// That counters and sums are what the rows add up to.
async fn agrees(rig: &Rig) -> Vec<RequestRow> {
    let rows = rig.daemon.rows().await;
    let sum = |amount: fn(&RequestRow) -> i64| rows.iter().map(amount).sum::<i64>();
    let (cost, rated) = (sum(|row| row.cost.as_nanos()), sum(|row| row.rated.as_nanos()));
    assert_eq!(rated, 2 * cost);
    assert_eq!(sums(rig).await, (rows.len() as u64, cost, rated));
    let tokens = rows.iter().map(|row| row.usage.tokens()).sum();
    let [cost, rated] = [cost, rated].map(|nanos| u64::try_from(nanos).unwrap());
    assert_eq!(standing(rig).await, [rated, rated, rows.len() as u64, tokens, cost]);
    rows
}

async fn stopped(rig: &mut Rig) {
    rig.daemon.terminate();
    assert!(rig.daemon.ended().await.success());
}

/// Runs `relayctl costs rebuild` and gives what it says.
fn ctl(rig: &Rig, args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = relayctl();
    command.arg("--socket").arg(rig.daemon.socket()).args(["costs", "rebuild"]).args(args);
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn what_was_tampered_with_is_put_right() {
    let (mut rig, client) = rig().await;
    storm(&client, 200).await;
    rig.daemon.settled().await;
    let nothing = rig.daemon.call_long(&booked()).await;
    assert!(!nothing.applied && nothing.calls == 200, "{nothing:?}");
    let rows = agrees(&rig).await;
    let id = rig.daemon.call(&ShowKey { key: "alice".to_owned() }).await.id;
    stopped(&mut rig).await;
    let data = rig.daemon.data().to_owned();
    tamper::counter(&data, &format!("key:{id}"), "cost in total", 5);
    tamper::counter(&data, &format!("key:{id}"), "requests in total", 7_000);
    tamper::costs_of_sums(&data);
    rig.start_again().await;

    let tampered = (standing(&rig).await, sums(&rig).await);
    assert_eq!((tampered.0[1], tampered.0[2], tampered.1.1), (5, 7_000, 0));
    let found = rig.daemon.call_long(&looking()).await;
    assert_eq!((found.applied, found.repriced, found.counters.len()), (false, 0, 2));
    let (code, text, _) = ctl(&rig, &["--dry-run"]);
    assert_eq!(code, Some(0));
    for part in ["200 calls were read", "alice", "cost in total", "7,000", "hourly sum"] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    // Nobody is there to say yes.
    let (code, text, error) = ctl(&rig, &[]);
    assert!(code == Some(2) && text.contains("cost in total") && error.contains("--yes"), "{text}{error}");
    assert_eq!((standing(&rig).await, sums(&rig).await), tampered, "nothing has changed yet");

    let (code, text, error) = ctl(&rig, &["--yes", "--output", "json"]);
    assert_eq!(code, Some(0), "{error}");
    let done: CostsRebuilt = serde_json::from_str(&text).unwrap();
    assert!(done.applied && done.counters == found.counters && done.sums == found.sums, "{text}");
    assert_eq!(agrees(&rig).await.len(), rows.len());
    assert_eq!(ctl(&rig, &["--yes"]).1, "200 calls were read\nnothing differs\n");
    let audit = rig.daemon.call(&ListAudit { since: None, limit: None }).await;
    let entries: Vec<_> = audit.iter().filter(|entry| entry.action == "costs.rebuild").collect();
    assert!(entries.len() == 1 && entries[0].uid.is_some(), "{entries:?}");
    assert!(entries[0].fields.contains(&"2 counters".to_owned()), "{entries:?}");
    stopped(&mut rig).await;
    rig.start_again().await;
    agrees(&rig).await;
}

#[tokio::test]
async fn since_leaves_what_is_older_alone() {
    let (mut rig, client) = rig().await;
    storm(&client, 20).await;
    rig.daemon.settled().await;
    stopped(&mut rig).await;
    let data = rig.daemon.data().to_owned();
    tamper::costs_of_sums(&data);
    rig.start_again().await;
    set_price(&rig, 3).await;
    let since = Some("2100-01-01T00:00:00Z".parse().unwrap());
    let later = rig.daemon.call_long(&RebuildCosts { since, ..today() }).await;
    assert!(!later.applied && later.repriced == 0 && later.hours_from.is_some(), "{later:?}");
    assert_eq!(sums(&rig).await.1, 0);
    let since = Some("2000-01-01T00:00:00Z".parse().unwrap());
    let all = rig.daemon.call_long(&RebuildCosts { since, ..today() }).await;
    assert!(all.applied && all.repriced == 20, "{all:?}");
    agrees(&rig).await;
}

#[tokio::test]
async fn todays_prices_change_costs_and_counters_by_the_exact_difference() {
    let (rig, client) = rig().await;
    storm(&client, 30).await;
    rig.daemon.settled().await;
    assert_eq!(standing(&rig).await[4], 30 * cost(1));
    for price in [3, 1] {
        set_price(&rig, price).await;
        storm(&client, 5).await;
        rig.daemon.settled().await;
        let before = standing(&rig).await;
        let done = rig.daemon.call_long(&today()).await;
        assert!(done.applied, "{done:?}");
        let moved = done.cost.after.as_nanos() - done.cost.before.as_nanos();
        assert_eq!(done.rated.after.as_nanos() - done.rated.before.as_nanos(), 2 * moved);
        let after = standing(&rig).await;
        assert_eq!(i64::try_from(after[4]).unwrap() - i64::try_from(before[4]).unwrap(), moved);
        assert_eq!((before[2], before[3]), (after[2], after[3]), "calls and tokens stay");
        for row in agrees(&rig).await {
            assert_eq!(row.cost.as_counted(), cost(price));
        }
        assert!(!rig.daemon.call_long(&today()).await.applied, "once is enough");
        assert!(!rig.daemon.call_long(&booked()).await.applied, "the rows have these prices now");
    }
}

#[tokio::test]
async fn what_stood_in_for_a_price_still_does_when_the_account_is_gone() {
    let rig = Rig::bare(Setup::default()).await;
    set_price(&rig, 1).await;
    rig.upstream.script(answer);
    let account = rig.account(AccountKind::ClaudeConsole, "gone");
    rig.daemon.call(&AddAccount { price_as: Some("m".to_owned()), ..account }).await;
    rig.client.call(&Call::new(Protocol::Messages, "nameless")).await.expect(200);
    assert_eq!(rig.daemon.row("nameless").await.cost.as_counted(), cost(1));
    rig.daemon.call(&RemoveAccount { account: "gone".to_owned(), force: false }).await;
    set_price(&rig, 3).await;
    let done = rig.daemon.call_long(&today()).await;
    assert_eq!((done.applied, done.repriced, done.without_price), (true, 1, 0));
    assert_eq!(rig.daemon.row("nameless").await.cost.as_counted(), cost(3));
}

#[tokio::test]
async fn what_was_pruned_stays_in_the_totals() {
    let (mut rig, client) = rig().await;
    storm(&client, 40).await;
    rig.daemon.settled().await;
    let before = standing(&rig).await;
    let id = rig.daemon.call(&ShowKey { key: "alice".to_owned() }).await.id;
    stopped(&mut rig).await;
    let data = rig.daemon.data().to_owned();
    tamper::age_rows(&data, 15, 100);
    rig.start_again().await;
    // They are dropped at the start.
    let all = ListRequests { limit: Some(1_000), ..ListRequests::default() };
    until("old rows are gone", async || (rig.daemon.call(&all).await.len() == 25).then_some(())).await;
    let found = rig.daemon.call_long(&looking()).await;
    assert!(found.counters.is_empty() && found.left_alone.is_empty(), "{found:?}");
    stopped(&mut rig).await;
    tamper::counter(&data, &format!("key:{id}"), "cost in total", 5);
    rig.start_again().await;
    let done = rig.daemon.call_long(&booked()).await;
    assert_eq!((done.counters.len(), done.counters[0].after.number()), (1, before[1]));
    assert_eq!(standing(&rig).await, before);
    set_price(&rig, 3).await;
    rig.daemon.call_long(&today()).await;
    assert_eq!(standing(&rig).await[4], 15 * cost(1) + 25 * cost(3), "what is gone keeps what it cost");
}

/// Calls one after the other until told to end; gives how many there were.
async fn load(client: Client, end: Arc<AtomicBool>) -> usize {
    let mut calls = 0;
    while !end.load(Ordering::SeqCst) {
        drop(client.call(&call()).await.expect(200));
        calls += 1;
    }
    calls
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_under_load() {
    let (rig, client) = rig().await;
    let (end, mut clients) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
    for _ in 0..8 {
        clients.spawn(load(client.clone(), end.clone()));
    }
    for round in 0..6 {
        let seen = rig.upstream.count();
        until("calls go on", async || (rig.upstream.count() > seen + 50).then_some(())).await;
        set_price(&rig, 2 + round % 3).await;
        rig.daemon.call_long(&today()).await;
        let checked = rig.daemon.call_long(&looking()).await;
        let differs = checked.repriced > 0 || checked.hours > 0 || !checked.counters.is_empty();
        assert!(!differs, "rows and counters are of one moment: {checked:?}");
    }
    end.store(true, Ordering::SeqCst);
    let calls: usize = clients.join_all().await.into_iter().sum();
    rig.daemon.settled().await;
    assert_eq!(agrees(&rig).await.len(), calls);
    assert_eq!(rig.upstream.count(), calls);
}

#[tokio::test]
async fn of_two_at_once_the_second_waits_for_its_turn() {
    let (rig, client) = rig().await;
    storm(&client, 20).await;
    rig.daemon.settled().await;
    set_price(&rig, 3).await;
    let (one, other) = (today(), today());
    let (one, other) = tokio::join!(rig.daemon.call_long(&one), rig.daemon.call_long(&other));
    assert_eq!([one.applied, other.applied].iter().filter(|applied| **applied).count(), 1);
    agrees(&rig).await;
}

/// Rebuilds by today's prices, and counts how often it is told that something was applied, or that it is over.
async fn rebuild_and_count(socket: PathBuf, told: Arc<AtomicUsize>) {
    let hear = |progress: Progress| {
        told.fetch_add(usize::from(progress.stage == "applying"), Ordering::SeqCst);
    };
    // It may break off.
    drop(admin::call_long(&socket, &today(), hear).await);
    told.fetch_add(100, Ordering::SeqCst);
}

#[tokio::test]
async fn killed_in_the_middle_and_run_again_it_ends_at_the_same() {
    let (mut rig, client) = rig().await;
    storm(&client, 150).await;
    rig.daemon.settled().await;
    // A little later in each round: at the beginning, after the rows, after the sums, after the counters.
    for (price, moment) in (2..).zip([1, 2, 3, 4, 1]) {
        set_price(&rig, price).await;
        let told = Arc::new(AtomicUsize::new(0));
        let rebuilding = tokio::spawn(rebuild_and_count(rig.daemon.socket(), told.clone()));
        while told.load(Ordering::SeqCst) < moment {
            tokio::task::yield_now().await;
        }
        rig.daemon.kill();
        rebuilding.await.unwrap();
        rig.start_again().await;
        rig.daemon.call_long(&today()).await;
        for row in agrees(&rig).await {
            assert_eq!(row.cost.as_counted(), cost(price), "moment {moment}");
        }
    }
}

#[tokio::test]
async fn a_call_that_cannot_be_read_is_a_problem_and_not_a_line() {
    let (rig, _) = rig().await;
    let (code, _, error) = ctl(&rig, &["--prices", "yesterday"]);
    assert!(code == Some(2) && error.contains("booked, today"), "{error}");
    let call = json!({"prices": "yesterday"});
    let problem: Value = admin::post_raw(&rig.daemon.socket(), "/v1/costs/rebuild", &call).await;
    assert_eq!(problem["code"], "invalid");
}
