//! A Redis server as the store, and its troubles: away, silent, older, empty, another. Calls go on, limits hold as
//! far as they are known, nothing is lost, and nothing has to be restarted.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shared::admin::{CreateKey, LimitHolder, ListRequests, SetLimits, ShowConfig, ShowKey};
use shared::domain::Protocol;
use tokio::task::JoinSet;

use crate::support::daemon::{relayd, setting, temporary_folder};
use crate::support::{Call, Client, Gate, RedisServer, Rig, Setup, Step, admin, answer, until};

fn call() -> Call {
    Call::new(Protocol::Messages, "m")
}

fn limited(name: &str, limits: &[&str]) -> CreateKey {
    CreateKey { limits: limits.iter().map(|text| text.parse().unwrap()).collect(), ..admin::key(name) }
}

async fn on_redis() -> Rig {
    Rig::with(Setup::default().on_redis()).await
}

async fn store_is(rig: &Rig, what: impl Fn(&str) -> bool) {
    until("the store's state", async || what(&rig.daemon.status().await.store.state).then_some(())).await;
}

/// What a key has used and holds of its limits.
async fn standing(rig: &Rig, key: &str) -> Vec<(u64, u64)> {
    let view = rig.daemon.call(&ShowKey { key: key.to_owned() }).await;
    view.limits.iter().map(|limit| (limit.used, limit.held)).collect()
}

async fn statuses(client: &Client, calls: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..calls {
        statuses.push(client.call(&call()).await.status);
    }
    statuses
}

#[tokio::test]
async fn a_call_asks_the_server_once_before_it_is_sent() {
    let rig = on_redis().await;
    let limits = ["100 requests per minute", "100m tokens per day", "9 concurrent"];
    let owner = LimitHolder::Owner("team".to_owned());
    for holder in [owner, LimitHolder::All] {
        let limits = limits.iter().map(|text| text.parse().unwrap()).collect();
        rig.daemon.call(&SetLimits { holder, limits }).await;
    }
    let key = CreateKey { owner: Some("team".to_owned()), ..limited("busy", &limits) };
    let client = rig.client_of(&key).await;
    client.call(&call()).await.expect(200);
    let redis = rig.daemon.redis().clone();
    let mut asked = Vec::new();
    for _ in 0..20 {
        rig.daemon.settled().await;
        let gate = Gate::closed();
        let held = gate.clone();
        rig.upstream.script(move |seen| answer(seen).after(Step::Wait(held.clone())));
        let before = redis.script_calls();
        let open = tokio::spawn({
            let client = client.clone();
            async move { client.call(&call()).await }
        });
        until("the call is sent", async || (rig.upstream.answering() == 1).then_some(())).await;
        asked.push(redis.script_calls() - before);
        gate.open();
        open.await.unwrap().expect(200);
    }
    // Once a second the server is looked at, and what ended a moment ago may still be on its way to it.
    let once = asked.iter().filter(|calls| **calls == 1).count();
    assert!(once >= 14 && asked.iter().all(|calls| (1..=3).contains(calls)), "{asked:?}");
}

#[tokio::test]
async fn calls_go_on_while_the_server_is_away_and_are_booked_when_it_is_back() {
    let rig = on_redis().await;
    let client = rig.client_of(&limited("five", &["5 requests in total", "2 concurrent"])).await;
    assert_eq!(statuses(&client, 2).await, [200; 2]);
    rig.daemon.settled().await;
    let redis = rig.daemon.redis().clone();
    redis.kill();
    // The limit is judged by what is known of it.
    assert_eq!(statuses(&client, 4).await, [200, 200, 200, 429]);
    store_is(&rig, |state| state != "ok").await;
    let health = rig.client.get("/health").await.expect(200).json();
    assert_eq!(health["status"], "degraded", "{health}");
    assert_eq!(rig.client.call(&call()).await.status, 200, "a call without limits needs no store");
    // An operator is told at once, and nothing hangs.
    let refused = rig.daemon.try_call(&admin::key("new")).await.err().unwrap();
    assert!(refused.to_string().contains("store"), "{refused}");
    redis.start_again();
    store_is(&rig, |state| state == "ok").await;
    assert_eq!(rig.daemon.rows().await.len(), 6);
    assert_eq!(standing(&rig, "five").await, [(5, 0), (0, 0)]);
    assert_eq!(client.call(&call()).await.status, 429);
    rig.daemon.call(&admin::key("new")).await;
    assert_eq!(rig.client.get("/health").await.expect(200).json()["status"], "ok");
}

#[tokio::test]
async fn who_wants_limits_kept_at_any_price_has_calls_refused() {
    let setup = Setup::default().on_redis().set(setting::STORE_ON_FAILURE, "refuse");
    let rig = Rig::with(setup).await;
    let client = rig.client_of(&limited("kept", &["9 requests in total"])).await;
    assert_eq!(client.call(&call()).await.status, 200);
    let redis = rig.daemon.redis().clone();
    redis.kill();
    let refused = client.call(&call()).await.expect(503);
    assert!(refused.error_message(Protocol::Messages).contains("store"), "{}", refused.text());
    assert_eq!(rig.client.call(&call()).await.status, 200, "nothing limits this key");
    assert_eq!(rig.client.get("/health").await.expect(503).json()["status"], "failing");
    redis.start_again();
    until("calls pass again", async || (client.call(&call()).await.status == 200).then_some(())).await;
    rig.client.get("/health").await.expect(200);
}

#[tokio::test]
async fn leases_taken_while_it_was_away_are_held_when_it_is_back() {
    let rig = on_redis().await;
    let client = rig.client_of(&limited("two", &["2 concurrent", "90 requests in total"])).await;
    let gate = Gate::closed();
    let held = gate.clone();
    rig.upstream.script(move |seen| answer(seen).after(Step::Wait(held.clone())));
    let open = |client: &Client| {
        tokio::spawn({
            let client = client.clone();
            async move { client.call(&call()).await }
        })
    };
    let before = open(&client);
    until("the first is open", async || (rig.upstream.answering() == 1).then_some(())).await;
    let redis = rig.daemon.redis().clone();
    redis.kill();
    let meanwhile = open(&client);
    until("the second is open", async || (rig.upstream.answering() == 2).then_some(())).await;
    assert_eq!(client.call(&call()).await.status, 429);
    redis.start_again();
    store_is(&rig, |state| state == "ok").await;
    assert_eq!(standing(&rig, "two").await[0], (0, 2), "the server knows of both");
    assert_eq!(client.call(&call()).await.status, 429);
    gate.open();
    for call in [before, meanwhile] {
        call.await.unwrap().expect(200);
    }
    rig.daemon.settled().await;
    assert_eq!(standing(&rig, "two").await, [(0, 0), (2, 0)]);
    assert_eq!(client.call(&call()).await.status, 200);
}

#[tokio::test]
async fn a_server_that_is_silent_for_a_while_counts_nothing_twice() {
    let setup = Setup::default().on_redis().set(setting::STORE_TIMEOUT_MS, 100);
    let rig = Rig::with(setup).await;
    let client = rig.client_of(&limited("patient", &["1000 requests in total", "9 concurrent"])).await;
    let redis = rig.daemon.redis().clone();
    for pause_ms in [20, 400, 1_200] {
        redis.pause(Duration::from_millis(pause_ms));
        assert_eq!(statuses(&client, 20).await, [200; 20], "{pause_ms}");
        store_is(&rig, |state| state == "ok").await;
    }
    assert_eq!(rig.daemon.rows().await.len(), 60);
    until("nothing is held", async || (standing(&rig, "patient").await == [(60, 0), (0, 0)]).then_some(()))
        .await;
}

#[tokio::test]
async fn a_limit_holds_while_the_server_comes_and_goes() {
    let setup = Setup::default().on_redis().set(setting::STORE_TIMEOUT_MS, 50).set(setting::WORKERS, 2);
    let rig = Rig::with(setup).await;
    let client = rig.client_of(&limited("storm", &["100 requests in total", "60 concurrent"])).await;
    let redis = rig.daemon.redis().clone();
    let mut calls = JoinSet::new();
    for number in 0..1_200 {
        let client = client.clone();
        calls.spawn(async move {
            tokio::time::sleep(Duration::from_millis(number)).await;
            client.call(&call()).await.status
        });
    }
    for round in 0..4 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        match round % 2 {
            0 => redis.pause(Duration::from_millis(120)),
            _ => redis.kill(),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        if round % 2 == 1 {
            redis.start_again();
        }
    }
    let statuses = calls.join_all().await;
    let passed = statuses.iter().filter(|status| **status == 200).count();
    assert!(statuses.iter().all(|status| matches!(status, 200 | 429)), "{statuses:?}");
    assert_eq!((passed, rig.upstream.count()), (100, 100));
    store_is(&rig, |state| state == "ok").await;
    rig.daemon.settled().await;
    assert_eq!(standing(&rig, "storm").await[0].0, 100);
}

/// Copies the files of a server that is not running.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

#[tokio::test]
async fn a_server_that_comes_back_older_gets_again_what_it_lacks() {
    let rig = on_redis().await;
    let client = rig.client_of(&limited("old", &["1000 requests in total"])).await;
    assert_eq!(statuses(&client, 3).await, [200; 3]);
    rig.daemon.settled().await;
    let redis = rig.daemon.redis().clone();
    redis.kill();
    let backup = rig.daemon.data().join("backup");
    copy(redis.dir(), &backup);
    redis.start_again();
    store_is(&rig, |state| state == "ok").await;
    assert_eq!(statuses(&client, 5).await, [200; 5]);
    rig.daemon.settled().await;
    redis.kill();
    std::fs::remove_dir_all(redis.dir()).unwrap();
    copy(&backup, redis.dir());
    redis.start_again();
    // Nobody calls meanwhile.
    until("the rows are back", async || {
        let rows = rig.daemon.try_call(&ListRequests { limit: Some(100), ..ListRequests::default() }).await;
        rows.is_ok_and(|rows| rows.len() == 8).then_some(())
    })
    .await;
    assert_eq!(standing(&rig, "old").await, [(8, 0)]);
    assert!(rig.daemon.output().contains("older"), "it is told");
    assert_eq!(client.call(&call()).await.status, 200);
    rig.daemon.settled().await;
    assert_eq!(standing(&rig, "old").await, [(9, 0)]);
}

#[tokio::test]
async fn an_empty_server_is_not_taken_for_the_store() {
    let mut rig = on_redis().await;
    let client = rig.client_of(&limited("kept", &["4 requests in total"])).await;
    assert_eq!(statuses(&client, 2).await, [200; 2]);
    rig.daemon.settled().await;
    let redis = rig.daemon.redis().clone();
    redis.ask::<()>(&redis::cmd("FLUSHALL"));
    store_is(&rig, |state| state.contains("empty") && state.contains("relayctl store adopt")).await;
    assert_eq!(statuses(&client, 3).await, [200, 200, 429], "keys and limits are known still");
    // Nor by a new start, which knows nothing of them.
    rig.daemon.terminate();
    rig.daemon.ended().await;
    let output = relayd()
        .arg("--data")
        .arg(rig.daemon.data())
        .args(["--listen", "127.0.0.1:0"])
        .env("RELAYD__STORE__URL", redis.url())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && told.contains("it is empty"), "{told}");
}

#[tokio::test]
async fn what_another_node_changes_is_known_within_a_second() {
    let rig = on_redis().await;
    // The nodes of a store share the key that its secrets are sealed with.
    let folder = Arc::new(temporary_folder());
    std::fs::copy(rig.daemon.data().join("sealing.key"), folder.path().join("sealing.key")).unwrap();
    let url = rig.daemon.redis().url();
    let second = Setup::default().in_folder(&folder).set(setting::STORE_URL, url.as_str()).start().await;
    let key = second.call(&admin::key("elsewhere")).await.key.expose().to_owned();
    let client = rig.daemon.client(&key);
    let start = Instant::now();
    until("the key is known", async || (client.call(&call()).await.status == 200).then_some(())).await;
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_password_is_asked_for_and_shown_nowhere() {
    let folder = Arc::new(temporary_folder());
    let server = RedisServer::start(&folder.path().join("redis"));
    server.ask::<()>(redis::cmd("CONFIG").arg("SET").arg("requirepass").arg("sesame-open"));
    let password_file = folder.path().join("password");
    std::fs::write(&password_file, "sesame-open\n").unwrap();
    let start = |settings: &[(&str, String)]| {
        let mut command = relayd();
        command.arg("--data").arg(folder.path()).args(["--listen", "127.0.0.1:0"]);
        command.envs(settings.iter().map(|(name, value)| (*name, value.as_str())));
        command
    };
    let url = ("RELAYD__STORE__URL", server.url());
    let without = start(std::slice::from_ref(&url)).output().unwrap();
    let told = String::from_utf8_lossy(&without.stderr).into_owned();
    assert!(!without.status.success() && told.contains("NOAUTH"), "{told}");
    let with_file = [url.clone(), ("RELAYD__STORE__PASSWORD_FILE", password_file.display().to_string())];
    assert!(start(&with_file).arg("--check").status().unwrap().success());
    let in_url = server.url().replace("redis://", "redis://:sesame-open@");
    let password_file = password_file.display().to_string();
    let by_url = Setup::default().set(setting::STORE_URL, in_url.as_str());
    let by_file = Setup::default().set(setting::STORE_URL, server.url().as_str());
    for setup in [by_url, by_file.set(setting::STORE_PASSWORD_FILE, password_file.as_str())] {
        let daemon = setup.in_folder(&folder).start().await;
        let config = daemon.call(&ShowConfig {}).await;
        assert!(!config.toml.contains("sesame"), "{}", config.toml);
        assert!(!daemon.output().contains("sesame"));
    }
}
