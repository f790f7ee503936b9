//! Limits on tokens and money: reserved before a call, settled after it, and never exceeded by more than was agreed.

use std::collections::BTreeMap;

use serde_json::json;
use shared::admin::{
    AddAccount, BudgetEvent, CreateKey, LimitHolder, ListEvents, ListRequests, SetLimits, SetPrice, ShowKey,
    SumUsage, UpdateAccount, UsageBy,
};
use shared::domain::{AccountKind, Family, NanoUsd, Protocol};
use tokio::task::JoinSet;

use crate::support::admin::{limited, limits};
use crate::support::daemon::setting;
use crate::support::{Answer, Call, Client, Gate, Reply, Rig, Seen, Setup, Step, admin, until, wire};

/// Dollars per million tokens of the model `m`.
const INPUT: u64 = 1;
const OUTPUT: u64 = 10;
/// What [`call`] allows its answer.
const ANSWER_MAX: u64 = 64;

fn call() -> Call {
    Call::new(Protocol::Messages, "m")
}

/// A daemon with one account, and a price for the model `m`.
async fn priced() -> Rig {
    let rig = Rig::start().await;
    set_price(&rig, "m").await;
    rig
}

async fn set_price(rig: &Rig, model: &str) {
    let prices = [("input", INPUT.to_string()), ("output", OUTPUT.to_string())];
    let prices = prices.into_iter().map(|(class, price)| (class.to_owned(), Some(price))).collect();
    rig.daemon.call(&SetPrice { model: model.to_owned(), prices }).await;
}

/// Prompt tokens that a body is estimated at.
fn prompt_tokens(body: &[u8]) -> u64 {
    (body.len() as u64).div_ceil(4)
}

/// What so many tokens cost, in nano-dollars.
fn nanos(input: u64, output: u64) -> u64 {
    1_000 * (input * INPUT + output * OUTPUT)
}

/// What [`call`] is estimated at.
fn call_nanos() -> u64 {
    nanos(prompt_tokens(&call().body()), ANSWER_MAX)
}

fn dollars(nanos: u64) -> String {
    NanoUsd::from_nanos(i64::try_from(nanos).unwrap()).to_string()
}

/// An answer that used so many tokens.
fn using(seen: &Seen, input: u64, output: u64) -> Reply {
    let mut body = wire::whole(Protocol::Messages, &seen.model(), seen.content());
    body["usage"] = json!({"input_tokens": input, "output_tokens": output});
    Reply::json(200, &body)
}

async fn standing(rig: &Rig, key: &str) -> Vec<(u64, u64)> {
    let view = rig.daemon.call(&ShowKey { key: key.to_owned() }).await;
    view.limits.iter().map(|limit| (limit.used, limit.held)).collect()
}

/// Sends calls at once; gives the answers of those that were refused, and then of those that passed.
async fn storm(client: &Client, calls: usize, admitted: usize, gate: &Gate) -> (Vec<Answer>, Vec<Answer>) {
    let mut open = JoinSet::new();
    for _ in 0..calls {
        let client = client.clone();
        open.spawn(async move { client.call(&call()).await });
    }
    let mut refused = Vec::new();
    while refused.len() < calls - admitted {
        refused.push(open.join_next().await.unwrap().unwrap());
    }
    gate.open();
    (refused, open.join_all().await)
}

async fn sum_of_costs(rig: &Rig, key: &str) -> u64 {
    let query = ListRequests { key: Some(key.to_owned()), limit: Some(10_000), ..ListRequests::default() };
    let rows = rig.daemon.call(&query).await;
    rows.iter().map(|row| u64::try_from(row.cost.as_nanos()).unwrap()).sum()
}

/// Every file that a storm has open, of the test and of the daemon, which inherits the bound.
fn allow_open_files(files: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let bound = getrlimit(Resource::Nofile);
    if bound.current.is_some_and(|current| current < files) {
        let raised = Rlimit { current: Some(files), ..bound };
        setrlimit(Resource::Nofile, raised).expect("the bound on open files cannot be raised");
    }
}

#[tokio::test]
async fn of_two_thousand_calls_at_once_a_limit_worth_a_hundred_lets_a_hundred_pass() {
    allow_open_files(16_384);
    let rig = priced().await;
    let limit = 100 * call_nanos();
    let client = rig.client_of(&limited("storm", &[&format!("{} per day", dollars(limit))])).await;
    let gate = Gate::closed();
    let held = gate.clone();
    rig.upstream.script(move |seen| {
        using(seen, prompt_tokens(&seen.body), ANSWER_MAX).after(Step::Wait(held.clone()))
    });
    let (refused, passed) = storm(&client, 2_000, 100, &gate).await;
    assert_eq!((refused.len(), passed.len()), (1_900, 100));
    for answer in refused {
        // The money is held, not spent: trying again may help.
        let answer = answer.expect(429);
        assert!(answer.header("retry-after").is_some());
        assert!(answer.error_message(Protocol::Messages).contains("in flight"), "{}", answer.text());
    }
    passed.into_iter().for_each(|answer| drop(answer.expect(200)));
    rig.daemon.settled().await;
    assert_eq!(standing(&rig, "storm").await, [(limit, 0)]);
    assert_eq!(sum_of_costs(&rig, "storm").await, limit);
    let spent = client.call(&call()).await.expect(402);
    assert_eq!(spent.json()["error"]["type"], "billing_error");
    assert_eq!(rig.upstream.count(), 100);
}

#[tokio::test]
async fn a_strict_limit_is_never_exceeded_though_calls_use_twice_the_estimate() {
    allow_open_files(16_384);
    let rig = priced().await;
    // Answers of half the most that is allowed make that the estimate; then they come to all of it.
    rig.upstream.script(|seen| using(seen, prompt_tokens(&seen.body), ANSWER_MAX / 4));
    rig.client.call(&call()).await.expect(200);
    rig.daemon.settled().await;
    let limit = 100 * call_nanos();
    let client = rig.client_of(&limited("strict", &[&format!("{} per day strict", dollars(limit))])).await;
    rig.upstream.script(|seen| using(seen, 2 * prompt_tokens(&seen.body), ANSWER_MAX));
    let mut open = JoinSet::new();
    for _ in 0..400 {
        let client = client.clone();
        open.spawn(async move {
            let mut passed = 0;
            for _ in 0..5 {
                passed += u64::from(client.call(&call()).await.status == 200);
            }
            passed
        });
    }
    let passed: u64 = open.join_all().await.into_iter().sum();
    rig.daemon.settled().await;
    let [(used, held)] = standing(&rig, "strict").await[..] else { panic!() };
    let each = nanos(2 * prompt_tokens(&call().body()), ANSWER_MAX);
    assert_eq!((used, held), (passed * each, 0));
    assert!(used <= limit && passed > 50, "{passed} passed, {used} of {limit} are used");
    assert_eq!(sum_of_costs(&rig, "strict").await, used);
}

/// The vendor refuses it at once; until it does, nobody else must go without.
#[tokio::test]
async fn a_number_of_answers_that_nobody_writes_does_not_hold_all_there_is() {
    let rig = priced().await;
    rig.daemon.call(&SetLimits { holder: LimitHolder::All, limits: limits(&["$10 per day"]) }).await;
    let gate = Gate::closed();
    let held = gate.clone();
    rig.upstream.script(move |seen| {
        match seen.json()["n"].is_null() && seen.json()["generationConfig"].is_null() {
            true => crate::support::answer(seen),
            false => Reply::error(seen.protocol(), 400, &[]).after(Step::Wait(held.clone())),
        }
    });
    let greedy = [
        ("/v1/chat/completions", r#"{"model":"m","n":4294967295,"messages":[]}"#),
        ("/v1beta/models/m:generateContent", r#"{"generationConfig":{"candidateCount":4294967295}}"#),
    ];
    let greedy = greedy.map(|(path, body)| {
        let client = rig.client.clone();
        tokio::spawn(async move { client.post(path, body).await })
    });
    until("both are open", async || (rig.upstream.answering() == 2).then_some(())).await;
    rig.client.call(&call()).await.expect(200);
    gate.open();
    for greedy in greedy {
        greedy.await.unwrap().expect(400);
    }
}

#[tokio::test]
async fn what_was_used_replaces_what_was_held() {
    let rig = priced().await;
    let texts = ["$1 per day", "1m tokens per week", "500 tokens in total on x-*", "$5 in total for embed"];
    let client = rig.client_of(&limited("all", &texts)).await;
    let gate = Gate::closed();
    let held = gate.clone();
    rig.upstream.script(move |seen| using(seen, 100, 20).after(Step::Wait(held.clone())));
    let calling = tokio::spawn({
        let client = client.clone();
        async move { client.call(&call()).await }
    });
    let tokens = prompt_tokens(&call().body()) + ANSWER_MAX;
    until("it is held", async || {
        (standing(&rig, "all").await == [(0, call_nanos()), (0, tokens), (0, 0), (0, 0)]).then_some(())
    })
    .await;
    gate.open();
    calling.await.unwrap().expect(200);
    rig.daemon.settled().await;
    assert_eq!(standing(&rig, "all").await, [(nanos(100, 20), 0), (120, 0), (0, 0), (0, 0)]);
    let row = rig.daemon.row("m").await;
    assert_eq!(row.cost.as_nanos(), row.rated.as_nanos());
}

#[tokio::test]
async fn replies_tell_what_is_left_in_the_clients_form() {
    let rig = priced().await;
    let texts = ["10 requests per hour", "5 requests per minute", "1m tokens in total", "$1 per day"];
    let client = rig.client_of(&limited("told", &texts)).await;
    for (number, protocol) in (1..).zip(Protocol::ALL) {
        let answer = client.call(&Call::new(protocol, "m")).await.expect(200);
        let [limit, left, reset] = match protocol {
            Protocol::Messages => ["limit", "remaining", "reset"]
                .map(|end| answer.header(&format!("anthropic-ratelimit-requests-{end}")).map(str::to_owned)),
            _ => ["limit", "remaining", "reset"]
                .map(|part| answer.header(&format!("x-ratelimit-{part}-requests")).map(str::to_owned)),
        };
        assert_eq!((limit.as_deref(), left), (Some("5"), Some((5 - number).to_string())));
        let reset = reset.unwrap();
        assert!(if protocol == Protocol::Messages { reset.ends_with('Z') } else { reset.ends_with('s') });
        assert_eq!(answer.header("x-relay-cost-limit"), Some("1.00"));
        assert!(answer.header("x-relay-cost-remaining").unwrap().starts_with("0.99"));
    }
    let unlimited = rig.client.call(&call()).await.expect(200);
    assert!(unlimited.headers.keys().all(|name| !name.as_str().contains("ratelimit")));
}

#[tokio::test]
async fn the_upstreams_own_figures_do_not_pass_for_the_keys() {
    let rig = priced().await;
    let headers = [
        ("content-type", "application/json"),
        ("anthropic-ratelimit-requests-remaining", "3999"),
        ("anthropic-ratelimit-requests-reset", "2030-01-01T00:00:00Z"),
        ("anthropic-ratelimit-tokens-remaining", "77"),
    ];
    rig.upstream.script(move |seen| {
        let body = wire::whole(Protocol::Messages, &seen.model(), seen.content());
        Reply::whole(200, &headers, body.to_string())
    });
    let client = rig.client_of(&limited("own", &["10 requests in total"])).await;
    let answer = client.call(&call()).await.expect(200);
    assert_eq!(answer.header("anthropic-ratelimit-requests-remaining"), Some("9"));
    assert_eq!(answer.header("anthropic-ratelimit-requests-reset"), None, "this limit has none");
    assert_eq!(
        answer.header("anthropic-ratelimit-tokens-remaining"),
        Some("77"),
        "the key has no such limit"
    );
}

#[tokio::test]
async fn keys_share_the_limits_of_their_owner_and_of_all() {
    let rig = priced().await;
    let owned = |name: &str| CreateKey { owner: Some("Alice".to_owned()), ..admin::key(name) };
    let (one, two) = (rig.client_of(&owned("one")).await, rig.client_of(&owned("two")).await);
    let set = |holder: LimitHolder, texts: &[&str]| SetLimits { holder, limits: limits(texts) };
    let alice = LimitHolder::Owner("Alice".to_owned());
    let view = rig.daemon.call(&set(alice.clone(), &["2 requests per day"])).await;
    assert_eq!((view.keys, view.limits.len()), (2, 1));
    one.call(&call()).await.expect(200);
    two.call(&call()).await.expect(200);
    for client in [&one, &two] {
        let refused = client.call(&call()).await.expect(429);
        let message = refused.error_message(Protocol::Messages);
        assert!(message.contains("the keys of this key's owner may have 2 requests per day"), "{message}");
    }
    rig.client.call(&call()).await.expect(200);
    rig.daemon.call(&set(alice, &[])).await;
    one.call(&call()).await.expect(200);
    rig.daemon.settled().await;
    rig.daemon.call(&set(LimitHolder::All, &["$0.000001 per day"])).await;
    rig.client.call(&call()).await.expect(200);
    rig.daemon.settled().await;
    for client in [&one, &two, &rig.client] {
        let spent = client.call(&call()).await.expect(402);
        assert!(spent.error_message(Protocol::Messages).contains("all keys together"), "{}", spent.text());
    }
    let shared = rig.daemon.call(&shared::admin::ListLimits {}).await;
    assert_eq!(shared.len(), 1, "{shared:?}");
    assert_eq!((&shared[0].holder, shared[0].keys), (&LimitHolder::All, 3));
}

#[tokio::test]
async fn a_daily_quota_of_an_account_makes_way_for_the_next() {
    let rig = Rig::bare(Setup::default()).await;
    set_price(&rig, "m").await;
    for (name, priority) in [("first", 10), ("second", 20)] {
        let account = rig.account(AccountKind::ClaudeConsole, name);
        rig.daemon.call(&AddAccount { priority: Some(priority), ..account }).await;
    }
    let quota = limits(&["$0.001 per day at 04:00 in Europe/Berlin"]);
    let update =
        UpdateAccount { account: "first".to_owned(), limits: Some(quota), ..UpdateAccount::default() };
    rig.daemon.call(&update).await;
    rig.upstream.script(|seen| using(seen, 0, 60));
    for _ in 0..3 {
        rig.client.call(&call()).await.expect(200);
        rig.daemon.settled().await;
    }
    let asked: Vec<_> = rig.upstream.seen().iter().map(|seen| seen.account.clone()).collect();
    // The third would come to more than what is left.
    assert_eq!(asked, ["first", "second", "second"]);
    let view = rig.show("first").await;
    assert_eq!((view.limits[0].used, view.limits[0].held), (nanos(0, 60), 0));
    assert_eq!(view.health.state, "ok");
}

#[tokio::test]
async fn holders_are_charged_by_the_multipliers_and_accounts_by_the_price() {
    let rig = Rig::bare(Setup::default().set(setting::RATE_CLAUDE, "1.5")).await;
    set_price(&rig, "m").await;
    let account = rig.account(AccountKind::ClaudeConsole, "claude");
    rig.daemon.call(&AddAccount { limits: limits(&["$1 in total"]), ..account }).await;
    let rates =
        BTreeMap::from([(Family::Claude, "2".parse().unwrap()), (Family::Gemini, "9".parse().unwrap())]);
    let client = rig.client_of(&CreateKey { rates, ..limited("dear", &["$1 in total"]) }).await;
    rig.upstream.script(|seen| using(seen, 100, 20));
    client.call(&call()).await.expect(200);
    rig.daemon.settled().await;
    let cost = nanos(100, 20);
    let row = rig.daemon.row("m").await;
    assert_eq!((row.cost.as_nanos(), row.rated.as_nanos()), (cost as i64, 3 * cost as i64));
    assert_eq!(standing(&rig, "dear").await, [(3 * cost, 0)]);
    assert_eq!(rig.show("claude").await.limits[0].used, cost);
}

#[tokio::test]
async fn what_has_no_price_is_refused_where_money_is_limited() {
    let rig = priced().await;
    let client = rig.client_of(&limited("money", &["$1 per day", "9 requests per day"])).await;
    for protocol in Protocol::ALL {
        let refused = client.call(&Call::new(protocol, "nameless")).await.expect(403);
        let message = refused.error_message(protocol);
        assert!(message.contains("\"nameless\" has no price"), "{message}");
    }
    assert_eq!((rig.upstream.count(), standing(&rig, "money").await[1]), (0, (0, 0)));
    let elsewhere = rig.client_of(&limited("elsewhere", &["$1 per day on claude-*"])).await;
    elsewhere.call(&Call::new(Protocol::Messages, "nameless")).await.expect(200);
    let rig = Rig::bare(Setup::default().set(setting::UNPRICED, "allow")).await;
    rig.add(AccountKind::ClaudeConsole, "claude").await;
    let client = rig.client_of(&limited("money", &["$1 per day"])).await;
    client.call(&Call::new(Protocol::Messages, "nameless")).await.expect(200);
    rig.daemon.settled().await;
    assert_eq!(standing(&rig, "money").await, [(0, 0)]);
}

#[tokio::test]
async fn money_that_was_spent_stays_spent_whoever_dies() {
    let mut rig = priced().await;
    rig.upstream.script(|seen| using(seen, 100, 20));
    let key = limited("lasting", &["$1 per week", "2k tokens per month"]);
    let key = rig.daemon.call(&key).await.key.expose().to_owned();
    rig.daemon.client(&key).call(&call()).await.expect(200);
    rig.daemon.kill();
    rig.start_again().await;
    rig.daemon.client(&key).call(&call()).await.expect(200);
    rig.daemon.terminate();
    assert!(rig.daemon.ended().await.success());
    rig.start_again().await;
    assert_eq!(standing(&rig, "lasting").await, [(2 * nanos(100, 20), 0), (240, 0)]);
}

#[tokio::test]
async fn days_are_those_of_the_zone() {
    for zone in ["Pacific/Kiritimati", "Etc/GMT+12", "Asia/Kathmandu"] {
        let rig = Rig::bare(Setup::default().set(setting::ZONE, zone)).await;
        rig.add(AccountKind::ClaudeConsole, "claude").await;
        let client =
            rig.client_of(&limited("zoned", &["9 requests per day", "9 requests per day in UTC"])).await;
        let today = || jiff::Timestamp::now().in_tz(zone).unwrap().date();
        let before = today();
        client.call(&call()).await.expect(200);
        let after = today();
        let usage =
            SumUsage { by: UsageBy::Day, since: None, until: None, key: None, account: None, model: None };
        let rows = rig.daemon.call(&usage).await;
        let name = &rows[0].name;
        assert!(
            rows.len() == 1 && [before.to_string(), after.to_string()].contains(name),
            "{zone}: {rows:?}"
        );
        let view = rig.daemon.call(&ShowKey { key: "zoned".to_owned() }).await;
        let resets_at = view.limits[0].resets_at.unwrap();
        let reset = jiff::Timestamp::from_millisecond(resets_at.as_millis()).unwrap().in_tz(zone).unwrap();
        assert_eq!(reset.time(), jiff::civil::Time::midnight(), "{zone}");
        assert_ne!(view.limits[1].resets_at, Some(resets_at), "{zone}");
    }
}

#[tokio::test]
async fn each_step_of_a_budget_is_told_once() {
    let mut rig = priced().await;
    let key = CreateKey { owner: Some("Alice".to_owned()), ..limited("watched", &["10 requests per day"]) };
    let key = rig.daemon.call(&key).await.key.expose().to_owned();
    let holder = LimitHolder::Owner("Alice".to_owned());
    rig.daemon.call(&SetLimits { holder, limits: limits(&["20 requests in total"]) }).await;
    let mut told = Vec::new();
    for number in 1..=10 {
        rig.daemon.client(&key).call(&call()).await.expect(200);
        if number == 8 {
            rig.daemon.settled().await;
        }
        if number == 6 {
            // What was told before is not told again by the next process.
            told.extend(events(&rig).await);
            rig.daemon.kill();
            rig.start_again().await;
        }
    }
    told.extend(events(&rig).await);
    told.sort();
    let told: Vec<_> = told.iter().map(String::as_str).collect();
    assert_eq!(
        told,
        ["Alice: 50 % of 20 requests in total", "watched: 100 %", "watched: 50 %", "watched: 80 %"]
    );
}

/// The events that are told once all calls are booked.
async fn events(rig: &Rig) -> Vec<String> {
    rig.daemon.settled().await;
    let print = |event: &BudgetEvent| match event.holder.as_str() {
        "key" => format!("{}: {} %", event.name, event.percent),
        _ => format!("{}: {} % of {}", event.name, event.percent, event.limit),
    };
    let mut before = None;
    until("all events are told", async || {
        let events: Vec<_> = rig.daemon.call(&ListEvents { limit: None }).await.iter().map(print).collect();
        let is_same = before.as_ref() == Some(&events) && !events.is_empty();
        before = Some(events.clone());
        is_same.then_some(events)
    })
    .await
}

/// The account's money is its operator's affair: a client never hears that it lacks some.
#[tokio::test]
async fn an_account_with_a_limit_of_money_makes_way_for_what_has_no_price() {
    let rig = Rig::bare(Setup::default()).await;
    for (kind, name) in [
        (AccountKind::ClaudeConsole, "claude"),
        (AccountKind::OpenaiResponses, "openai"),
        (AccountKind::GeminiApi, "gemini"),
    ] {
        let account = rig.account(kind, name);
        rig.daemon.call(&AddAccount { priority: Some(10), limits: limits(&["$1 per day"]), ..account }).await;
    }
    for protocol in Protocol::ALL {
        let refused = rig.client.call(&Call::new(protocol, "nameless")).await.expect(503);
        let message = refused.error_message(protocol);
        assert!(!message.contains("API key") && message.contains("no price"), "{message}");
    }
    assert_eq!(rig.upstream.count(), 0);
    for (kind, name) in [
        (AccountKind::ClaudeConsole, "claude-2"),
        (AccountKind::OpenaiResponses, "openai-2"),
        (AccountKind::GeminiApi, "gemini-2"),
    ] {
        rig.add(kind, name).await;
    }
    let key = rig.client_of(&limited("priced", &["9 requests per day"])).await;
    for protocol in Protocol::ALL {
        key.call(&Call::new(protocol, "nameless")).await.expect(200);
    }
    assert!(rig.upstream.seen().iter().all(|seen| seen.account.ends_with("-2")));
    rig.daemon.settled().await;
    assert_eq!(standing(&rig, "priced").await, [(4, 0)]);
    assert_eq!(rig.show("claude").await.limits[0].held, 0);
}

/// What a model is called at an account decides whether its price is known.
#[tokio::test]
async fn an_account_that_has_no_price_for_a_key_with_money_makes_way() {
    let rig = Rig::bare(Setup::default()).await;
    set_price(&rig, "m").await;
    let nameless = BTreeMap::from([("m".to_owned(), "nameless".to_owned())]);
    for (name, model_map, priority) in [("first", nameless, 10), ("second", BTreeMap::new(), 20)] {
        let account = rig.account(AccountKind::ClaudeConsole, name);
        rig.daemon.call(&AddAccount { model_map, priority: Some(priority), ..account }).await;
    }
    let client = rig.client_of(&limited("money", &["$1 per day"])).await;
    client.call(&call()).await.expect(200);
    assert_eq!(rig.upstream.take_seen()[0].account, "second");
    let paused = UpdateAccount { account: "second".into(), paused: Some(true), ..UpdateAccount::default() };
    rig.daemon.call(&paused).await;
    client.call(&call()).await.expect(403);
}

#[tokio::test]
async fn an_accounts_spent_money_is_no_bill_for_the_client() {
    let rig = Rig::start().await;
    set_price(&rig, "m").await;
    for (account, text) in [("claude", "$0.000001 per day"), ("openai", "$0.000001 in total")] {
        let limits = Some(limits(&[text]));
        rig.daemon.call(&UpdateAccount { account: account.into(), limits, ..UpdateAccount::default() }).await;
    }
    for protocol in [Protocol::Messages, Protocol::Responses] {
        let call = Call::new(protocol, "m");
        rig.client.call(&call).await.expect(200);
        rig.daemon.settled().await;
        let refused = rig.client.call(&call).await.expect(429);
        refused.error_message(protocol);
        assert_eq!(refused.header("retry-after").is_some(), protocol == Protocol::Messages);
    }
}
