//! The store is moved while calls are served: everything is there afterwards, limits go on counting, and nobody goes on
//! with the old store by mistake.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use shared::admin::{CreateKey, ListAudit, RequestRow, ShowKey, SumUsage, UsageBy};
use shared::domain::Protocol;
use shared::progress::Progress;
use shared::redact::Secret;
use shared::store::{MigrateStore, StoreMigrated};

use crate::support::admin::CallError;
use crate::support::daemon::{all_on_redis, relayd, setting};
use crate::support::{Call, Gate, Load, RedisServer, Rig, Setup, Step, admin, answer, control, until};

const LIMITS: [&str; 4] =
    ["1000000 requests in total", "1000000 requests per 3 hours", "$1000 per day", "50 concurrent"];

fn limited(name: &str, limits: &[&str]) -> CreateKey {
    CreateKey { limits: limits.iter().map(|text| text.parse().unwrap()).collect(), ..admin::key(name) }
}

fn to(url: &str) -> MigrateStore {
    MigrateStore { to: Secret::new(url) }
}

async fn migrate(rig: &Rig, url: &str) -> (StoreMigrated, Vec<Progress>) {
    let mut told = Vec::new();
    let made = admin::call_long(&rig.daemon.socket(), &to(url), |progress| told.push(progress)).await;
    (made.unwrap_or_else(|error| panic!("{error}")), told)
}

async fn refusal(rig: &Rig, url: &str) -> String {
    match admin::call_long(&rig.daemon.socket(), &to(url), |_| {}).await {
        Err(CallError::Problem(problem)) => problem.message,
        Err(error) => panic!("{error}"),
        Ok(moved) => panic!("{moved:?}"),
    }
}

/// Where the limits of a key stand: used and held.
async fn standing(rig: &Rig, key: &str) -> Vec<(u64, u64)> {
    let view = rig.daemon.call(&ShowKey { key: key.to_owned() }).await;
    view.limits.iter().map(|limit| (limit.used, limit.held)).collect()
}

/// Every request that the upstream saw has exactly one row, and no other has.
async fn judge(rig: &Rig) -> Vec<RequestRow> {
    let rows = rig.daemon.rows().await;
    let mut sightings: BTreeMap<String, usize> = BTreeMap::new();
    for seen in rig.upstream.seen() {
        *sightings.entry(seen.model()).or_default() += 1;
    }
    let mut by_model: BTreeMap<String, usize> = BTreeMap::new();
    for row in &rows {
        *by_model.entry(row.model.clone()).or_default() += 1;
    }
    assert_eq!(by_model, sightings);
    let ids: BTreeSet<_> = rows.iter().map(|row| row.id).collect();
    assert_eq!(ids.len(), rows.len());
    rows
}

async fn requests_summed(rig: &Rig) -> u64 {
    let by_day =
        SumUsage { by: UsageBy::Day, since: None, until: None, key: None, account: None, model: None };
    rig.daemon.call(&by_day).await.iter().map(|row| row.requests).sum()
}

#[tokio::test]
async fn everything_moves_to_a_server_and_back_under_load() {
    if all_on_redis() {
        return;
    }
    let mut rig = Rig::with(Setup::default().set(setting::UNPRICED, "allow")).await;
    let key = rig.daemon.call(&limited("busy", &LIMITS)).await.key.expose().to_owned();
    let client = rig.daemon.client(&key);
    let gate = Gate::closed();
    let held = gate.clone();
    rig.upstream.script(move |seen| match seen.model().as_str() {
        "long" => answer(seen).after(Step::Wait(held.clone())),
        _ => answer(seen),
    });
    let server = RedisServer::start(&rig.daemon.data().join("there"));
    let load = Load::on(&client, "first");
    load.more(100).await;
    let long = tokio::spawn({
        let client = client.clone();
        async move { client.call(&Call::new(Protocol::Messages, "long")).await }
    });
    until("it is sent", async || rig.upstream.seen().iter().any(|seen| seen.model() == "long").then_some(()))
        .await;
    let (moved, told) = migrate(&rig, &server.url()).await;
    assert_eq!((moved.from.as_str(), &moved.to), ("embedded", &server.url()));
    assert!(moved.counts["rows"] >= 100 && moved.counts["records"] >= 4, "{moved:?}");
    assert!(told.iter().any(|progress| progress.stage == "frozen"), "{told:?}");
    assert!(told.iter().all(|progress| progress.done <= progress.total), "{told:?}");
    assert_eq!(rig.daemon.status().await.store.engine, "redis");
    assert!(standing(&rig, "busy").await[3].1 >= 1, "what is open is held there");
    load.more(100).await;
    gate.open();
    long.await.unwrap().expect(200);
    load.end().await;
    let rows = judge(&rig).await;
    let used = standing(&rig, "busy").await;
    let calls = rows.len() as u64;
    assert_eq!((used[0], used[1], used[3]), ((calls, 0), (calls, 0), (0, 0)));
    assert_eq!(requests_summed(&rig).await, calls);
    nobody_starts_with_the_files(&mut rig, &server, &rows).await;
    back_to_files(&mut rig, &server, &key).await;
}

/// The files were left: they are not used by mistake.
async fn nobody_starts_with_the_files(rig: &mut Rig, server: &RedisServer, rows: &[RequestRow]) {
    rig.daemon.kill();
    let said = fails_to_start(rig.daemon.data(), "embedded");
    assert!(said.contains("the store was moved from embedded to redis://"), "{said}");
    rig.daemon.configure(setting::STORE_URL, &server.url());
    rig.start_again().await;
    assert_eq!(rig.daemon.rows().await, rows);
    assert!(refusal(rig, &server.url()).await.contains("there already"));
    let said = refusal(rig, "embedded").await;
    assert!(said.contains("is not empty"), "{said}");
}

async fn back_to_files(rig: &mut Rig, server: &RedisServer, key: &str) {
    let data = rig.daemon.data().to_owned();
    std::fs::rename(data.join("store"), data.join("old")).unwrap();
    let load = Load::on(&rig.daemon.client(key), "second");
    load.more(50).await;
    let (moved, _) = migrate(rig, "embedded").await;
    assert_eq!((&moved.from, moved.to.as_str()), (&server.url(), "embedded"));
    load.more(50).await;
    load.end().await;
    let rows = judge(rig).await;
    assert_eq!(standing(rig, "busy").await[0], (rows.len() as u64, 0));
    let audit = rig.daemon.call(&ListAudit { since: None, limit: None }).await;
    let moves = audit.iter().filter(|entry| entry.action == "store.migrate");
    assert_eq!((moves.count(), audit[0].action.as_str()), (2, "store.migrate"));
    rig.daemon.terminate();
    assert!(rig.daemon.ended().await.success());
    let said = fails_to_start(&data, &server.url());
    assert!(said.contains("to embedded at"), "{said}");
    rig.daemon.configure(setting::STORE_URL, "embedded");
    rig.start_again().await;
    assert_eq!(rig.daemon.rows().await, rows);
}

fn fails_to_start(data: &Path, url: &str) -> String {
    let mut command = relayd();
    command.arg("--data").arg(data).args(["--listen", "127.0.0.1:0"]).env("RELAYD__STORE__URL", url);
    let output = command.output().unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test]
async fn a_move_that_was_broken_off_is_gone_on_with_and_no_other() {
    if all_on_redis() {
        return;
    }
    let rig = Rig::start().await;
    rig.client.call(&Call::new(Protocol::Messages, "m")).await.expect(200);
    let server = RedisServer::start(&rig.daemon.data().join("there"));
    let set = |kind: &str, id: &str, value: &str| {
        let mut command = redis::cmd("HSET");
        command.arg(format!("relayd:{{store}}:{kind}")).arg(id).arg(value);
        server.ask::<()>(&command);
    };
    set("keys", "key_x", "1 {}");
    assert!(refusal(&rig, &server.url()).await.contains("is not empty"));
    set("settings", "migrating", "1 embedded 00000000");
    assert!(refusal(&rig, &server.url()).await.contains("holds part of another store"));
    let node = rig.daemon.status().await.node;
    set("settings", "migrating", &format!("1 embedded {node}"));
    let unfinished = crate::support::daemon::temporary_folder();
    let said = fails_to_start(unfinished.path(), &server.url());
    assert!(said.contains("was broken off"), "{said}");
    let moved = control::json(rig.daemon.data(), &["store", "migrate", "--to", &server.url()]);
    assert_eq!(moved["counts"]["rows"], 1);
    assert!(!server.ask::<bool>(redis::cmd("HEXISTS").arg("relayd:{store}:keys").arg("key_x")));
    rig.client.call(&Call::new(Protocol::Messages, "m2")).await.expect(200);
    judge(&rig).await;
}

#[tokio::test]
async fn calls_wait_a_moment_while_nobody_is_admitted() {
    let setup = Setup::default().set(setting::STORE_TIMEOUT_MS, 20_000);
    let rig = Rig::with(setup).await;
    let client = rig.client_of(&limited("counted", &["1000 requests in total"])).await;
    let server = RedisServer::start(&rig.daemon.data().join("there"));
    let (frozen, mut is_frozen) = tokio::sync::mpsc::unbounded_channel();
    let (pausing, mut is_first) = (server.clone(), true);
    let hear = move |progress: Progress| {
        if progress.stage == "frozen" && std::mem::take(&mut is_first) {
            pausing.pause(Duration::from_secs(5));
            frozen.send(()).unwrap();
        }
    };
    let (socket, call) = (rig.daemon.socket(), to(&server.url()));
    let moving = tokio::spawn(async move { admin::call_long(&socket, &call, hear).await });
    is_frozen.recv().await.unwrap();
    let call = Call::new(Protocol::Messages, "m");
    let refused = client.call(&call).await.expect(503);
    assert!(refused.error_message(Protocol::Messages).contains("is being moved"), "{}", refused.text());
    assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    // What counts nothing needs no store; what comes at the end of it waits.
    rig.client.call(&Call::new(Protocol::Messages, "free")).await.expect(200);
    client.call(&call).await.expect(200);
    let moved = moving.await.unwrap().unwrap_or_else(|error| panic!("{error}"));
    assert!(moved.frozen_ms >= 3_000, "{moved:?}");
    assert!(rig.daemon.output().contains("nobody is admitted"), "{}", rig.daemon.output());
    rig.daemon.settled().await;
    assert_eq!(standing(&rig, "counted").await, [(1, 0)]);
    assert_eq!(rig.daemon.status().await.store.state, "ok");
}

#[tokio::test]
async fn one_server_takes_the_place_of_another() {
    let mut rig = Rig::with(Setup::default().on_redis()).await;
    let key = rig.daemon.call(&limited("busy", &LIMITS[..2])).await.key.expose().to_owned();
    let server = RedisServer::start(&rig.daemon.data().join("there"));
    let load = Load::on(&rig.daemon.client(&key), "m");
    load.more(60).await;
    let (moved, _) = migrate(&rig, &server.url()).await;
    assert_eq!((&moved.from, &moved.to), (&rig.daemon.redis().url(), &server.url()));
    // It is needed no more.
    rig.daemon.redis().kill();
    load.more(60).await;
    load.end().await;
    let rows = judge(&rig).await;
    assert_eq!(standing(&rig, "busy").await, [(rows.len() as u64, 0); 2]);
    rig.daemon.kill();
    let said = fails_to_start(rig.daemon.data(), &moved.from);
    assert!(said.contains("set store.url to that"), "{said}");
    rig.daemon.configure(setting::STORE_URL, &server.url());
    rig.start_again().await;
    assert_eq!(rig.daemon.rows().await, rows);
}
