//! A Redis that came back empty, or as another store: calls go on from what the daemon knows, and `store adopt` brings
//! that back.

use std::collections::BTreeSet;

use shared::admin::{CreateKey, ListAudit, ProblemCode, ShowKey};
use shared::domain::Protocol;
use shared::store::AdoptStore;

use crate::support::admin::CallError;
use crate::support::{Call, Load, Rig, Setup, admin, control, until};

fn limited(name: &str, limits: &[&str]) -> CreateKey {
    CreateKey { limits: limits.iter().map(|text| text.parse().unwrap()).collect(), ..admin::key(name) }
}

async fn store_is(rig: &Rig, what: impl Fn(&str) -> bool) {
    until("the store's state", async || what(&rig.daemon.status().await.store.state).then_some(())).await;
}

async fn used(rig: &Rig, key: &str) -> (u64, u64) {
    let view = rig.daemon.call(&ShowKey { key: key.to_owned() }).await;
    (view.limits[0].used, view.limits[0].held)
}

#[tokio::test]
async fn an_emptied_server_is_given_what_the_daemon_knows() {
    let mut rig = Rig::with(Setup::default().on_redis()).await;
    let key = rig.daemon.call(&limited("busy", &["100000 requests in total"])).await.key.expose().to_owned();
    let spent = rig.client_of(&limited("spent", &["3 requests in total"])).await;
    for number in 0..3 {
        spent.call(&Call::new(Protocol::Messages, format!("spent-{number}"))).await.expect(200);
    }
    rig.daemon.settled().await;
    let load = Load::on(&rig.daemon.client(&key), "m");
    load.more(200).await;
    rig.daemon.redis().ask::<()>(&redis::cmd("FLUSHALL"));
    store_is(&rig, |state| state.contains("it is empty")).await;
    load.more(50).await;
    spent.call(&Call::new(Protocol::Messages, "beyond")).await.expect(429);
    let adopted = control::json(rig.daemon.data(), &["--yes", "store", "adopt"]);
    assert_eq!(
        (&adopted["applied"], &adopted["was_empty"], &adopted["state"]),
        (&true.into(), &true.into(), &"ok".into())
    );
    assert!(
        adopted["records"].as_u64().unwrap() >= 7 && adopted["groups"].as_u64().unwrap() >= 2,
        "{adopted}"
    );
    load.more(50).await;
    load.end().await;
    spent.call(&Call::new(Protocol::Messages, "beyond")).await.expect(429);
    let seen: BTreeSet<String> = rig.upstream.seen().iter().map(|seen| seen.model()).collect();
    let rows = until("the rows are back", async || {
        let rows = rig.daemon.rows().await;
        (rows.len() >= seen.len()).then_some(rows)
    })
    .await;
    let models: BTreeSet<String> = rows.iter().map(|row| row.model.clone()).collect();
    assert_eq!((models == seen, rows.len()), (true, seen.len()), "each once");
    assert_eq!(used(&rig, "busy").await, (rows.len() as u64 - 3, 0));
    assert_eq!(used(&rig, "spent").await, (3, 0));
    let audit = rig.daemon.call(&ListAudit { since: None, limit: None }).await;
    assert_eq!(audit[0].action, "store.adopt");
    rig.daemon.kill();
    rig.start_again().await;
    rig.daemon.client(&key).call(&Call::new(Protocol::Messages, "after")).await.expect(200);
    assert_eq!(rig.daemon.rows().await.len(), seen.len() + 1);
}

#[tokio::test]
async fn limits_hold_whoever_asks_first_after_a_wipe() {
    let mut rig = Rig::with(Setup::default().on_redis()).await;
    let key = rig.daemon.call(&limited("spent", &["2 requests in total"])).await.key.expose().to_owned();
    for number in 0..2 {
        let call = Call::new(Protocol::Messages, format!("m-{number}"));
        rig.daemon.client(&key).call(&call).await.expect(200);
    }
    rig.daemon.settled().await;
    rig.daemon.kill();
    rig.start_again().await;
    until("the counters are learned", async || {
        let view = rig.daemon.call(&ShowKey { key: "spent".to_owned() }).await;
        (view.limits[0].used == 2).then_some(())
    })
    .await;
    rig.daemon.redis().ask::<()>(&redis::cmd("FLUSHALL"));
    store_is(&rig, |state| state.contains("it is empty")).await;
    rig.daemon.client(&key).call(&Call::new(Protocol::Messages, "beyond")).await.expect(429);
    control::json(rig.daemon.data(), &["--yes", "store", "adopt"]);
    rig.daemon.client(&key).call(&Call::new(Protocol::Messages, "beyond")).await.expect(429);
    assert_eq!(used(&rig, "spent").await, (2, 0));
    rig.daemon.kill();
    rig.start_again().await;
    rig.daemon.client(&key).call(&Call::new(Protocol::Messages, "beyond")).await.expect(429);
}

#[tokio::test]
async fn another_stores_data_is_taken_only_as_it_is() {
    let rig = Rig::with(Setup::default().on_redis()).await;
    rig.client.call(&Call::new(Protocol::Messages, "before")).await.expect(200);
    rig.daemon.settled().await;
    let nothing = control::refused(rig.daemon.data(), &["--yes", "store", "adopt"]);
    assert!(nothing.contains("nothing to adopt"), "{nothing}");
    rig.daemon.redis().ask::<()>(redis::cmd("SET").arg("relayd:{store}:id").arg("somebody else's"));
    store_is(&rig, |state| state.contains("another store")).await;
    let said = control::refused(rig.daemon.data(), &["--yes", "store", "adopt"]);
    assert!(said.contains("the data of another store") && said.contains("--as-is"), "{said}");
    let call = AdoptStore { as_is: false, dry_run: false };
    let Err(CallError::Problem(problem)) = admin::call_long(&rig.daemon.socket(), &call, |_| {}).await else {
        panic!("it was taken")
    };
    assert_eq!(problem.code, ProblemCode::Conflict);
    let asked = control::refused(rig.daemon.data(), &["store", "adopt", "--as-is"]);
    assert!(asked.contains("--yes") && asked.contains("go on with what this server has"), "{asked}");
    let adopted = control::json(rig.daemon.data(), &["--yes", "store", "adopt", "--as-is"]);
    assert_eq!((&adopted["was_empty"], &adopted["state"]), (&false.into(), &"ok".into()));
    rig.client.call(&Call::new(Protocol::Messages, "after")).await.expect(200);
    assert_eq!(rig.daemon.rows().await.len(), 2);
}

#[tokio::test]
async fn data_under_another_sealing_key_is_not_taken() {
    let (rig, other) =
        (Rig::with(Setup::default().on_redis()).await, Rig::with(Setup::default().on_redis()).await);
    let pepper: String =
        other.daemon.redis().ask(redis::cmd("HGET").arg("relayd:{store}:settings").arg("pepper"));
    let ours = rig.daemon.redis();
    ours.ask::<()>(redis::cmd("HSET").arg("relayd:{store}:settings").arg("pepper").arg(pepper));
    ours.ask::<()>(redis::cmd("SET").arg("relayd:{store}:id").arg("theirs"));
    store_is(&rig, |state| state.contains("another store")).await;
    let said = control::refused(rig.daemon.data(), &["--yes", "store", "adopt", "--as-is"]);
    assert!(said.contains("another sealing key"), "{said}");
    rig.client.call(&Call::new(Protocol::Messages, "m")).await.expect(200);
}

#[tokio::test]
async fn files_are_not_adopted() {
    let rig = Rig::with(Setup::default()).await;
    let said = control::refused(rig.daemon.data(), &["--yes", "store", "adopt"]);
    assert!(said.contains("nothing to adopt"), "{said}");
}
