//! Records that cannot be read: they are left out and told of, and keep nothing else from working.

use std::fs;
use std::path::Path;

use redb::{Database, ReadableTable, TableDefinition};
use shared::admin::{CreateKey, ListAccounts, ListKeys};
use shared::domain::{AccountKind, Protocol};

use crate::support::daemon::{all_on_redis, relayctl, relayd};
use crate::support::{Call, Daemon, Rig, Setup, admin};

/// Kind and id; version as eight bytes, then JSON.
const RECORDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");

/// Changes the JSON of one record in the store of a daemon that has ended.
fn damage(daemon: &Daemon, id: &str, change: impl Fn(&str) -> String) {
    if !all_on_redis() {
        return damage_file(daemon.data(), id, change);
    }
    let server = daemon.redis();
    let records = ["relayd:{store}:keys", "relayd:{store}:accounts"];
    let stored = |key: &str| server.ask::<Option<String>>(redis::cmd("HGET").arg(key).arg(id));
    let (key, stored) = records.iter().find_map(|key| Some((key, stored(key)?))).expect("no such record");
    let (version, json) = stored.split_once(' ').unwrap();
    server.ask::<()>(redis::cmd("HSET").arg(key).arg(id).arg(format!("{version} {}", change(json))));
}

fn damage_file(data: &Path, id: &str, change: impl Fn(&str) -> String) {
    let database = Database::open(data.join("store/state.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut records = transaction.open_table(RECORDS).unwrap();
        let rows: Vec<(Vec<u8>, Vec<u8>)> = records
            .iter()
            .unwrap()
            .map(|row| row.unwrap())
            .map(|(key, value)| (key.value().to_vec(), value.value().to_vec()))
            .collect();
        let (key, value) = rows.iter().find(|(key, _)| &key[1..] == id.as_bytes()).expect("no such record");
        let (version, json) = value.split_at(8);
        let json = change(std::str::from_utf8(json).unwrap());
        records.insert(key.as_slice(), [version, json.as_bytes()].concat().as_slice()).unwrap();
    }
    transaction.commit().unwrap();
}

/// Another letter within the sealed credential, so that it is no longer what was sealed.
fn forged(json: &str) -> String {
    let start = json.find("\"secret\":\"").expect("nothing is sealed") + 10;
    let at = start + json[start..].find('"').unwrap() - 10;
    let other = if json[at..].starts_with('A') { "B" } else { "A" };
    [&json[..at], other, &json[at + 1..]].concat()
}

async fn stopped(rig: &mut Rig) {
    rig.daemon.terminate();
    assert!(rig.daemon.ended().await.success());
}

#[tokio::test]
async fn records_that_cannot_be_read_are_left_out_and_told_of() {
    let mut rig = Rig::bare(Setup::default()).await;
    rig.add(AccountKind::ClaudeConsole, "good").await;
    let torn = rig.add(AccountKind::ClaudeConsole, "torn").await.id.to_string();
    let unsealed = rig.add(AccountKind::ClaudeConsole, "unsealed").await.id.to_string();
    let lost = rig.daemon.call(&admin::key("lost")).await;
    let lost_id = lost.id.to_string();
    stopped(&mut rig).await;
    damage(&rig.daemon, &torn, |json| json[..json.len() / 2].to_owned());
    damage(&rig.daemon, &unsealed, forged);
    // What stands in the record is in the message of whoever could not read it.
    damage(&rig.daemon, &lost_id, |json| json.replace("\"disabled\":false", "\"disabled\":\"confidential\""));
    rig.start_again().await;

    let status = rig.daemon.status().await;
    let mut expected = [torn.clone(), unsealed.clone(), lost_id.clone()];
    let mut damaged = status.damaged.clone();
    expected.sort();
    damaged.sort();
    assert_eq!(damaged, expected);
    assert_eq!(status.keys, 1);
    let call = Call::new(Protocol::Messages, "m");
    for _ in 0..4 {
        rig.client.call(&call).await.expect(200);
    }
    assert!(rig.upstream.take_seen().iter().all(|seen| seen.account == "good"));
    rig.daemon.client(lost.key.expose()).call(&call).await.expect(401);

    // Changes go through, and say nothing of it again.
    let key = rig.daemon.call(&CreateKey { name: "new".to_owned(), ..CreateKey::default() }).await;
    rig.daemon.client(key.key.expose()).call(&call).await.expect(200);
    rig.resume("good").await;
    assert_eq!(rig.daemon.call(&ListAccounts {}).await.len(), 1);
    assert_eq!(rig.daemon.call(&ListKeys { deleted: false }).await.len(), 2);
    let log = rig.daemon.output();
    for id in [&torn, &unsealed, &lost_id] {
        let lines: Vec<_> = log.lines().filter(|line| line.contains(id.as_str())).collect();
        assert!(lines.len() == 1 && lines[0].contains("ERROR"), "{id}: {lines:?}");
    }
    assert!(!log.contains("confidential"), "{log}");
}

#[tokio::test]
async fn the_control_program_shows_them() {
    let mut rig = Rig::bare(Setup::default()).await;
    let torn = rig.add(AccountKind::ClaudeConsole, "torn").await.id.to_string();
    let ctl = |rig: &Rig, more: &[&str]| {
        let mut command = relayctl();
        command.arg("--socket").arg(rig.daemon.socket()).args(more).arg("status");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(!ctl(&rig, &[]).contains("damaged"));
    stopped(&mut rig).await;
    damage(&rig.daemon, &torn, |_| "{".to_owned());
    rig.start_again().await;
    let text = ctl(&rig, &[]);
    assert!(text.contains("damaged") && text.contains("1 record"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&ctl(&rig, &["--output", "json"])).unwrap();
    assert_eq!(json["damaged"], serde_json::json!([torn]));
}

/// That all records are sealed with another key is no damage.
#[tokio::test]
async fn another_sealing_key_is_refused_at_the_start() {
    let mut daemon = Daemon::start().await;
    daemon.terminate();
    assert!(daemon.ended().await.success());
    let file = daemon.data().join("sealing.key");
    let key = fs::read_to_string(&file).unwrap();
    let other = if key.starts_with('0') { "1" } else { "0" };
    fs::write(&file, [other, &key[1..]].concat()).unwrap();
    let mut command = relayd();
    command.arg("--data").arg(daemon.data()).args(["--listen", "127.0.0.1:0"]).env("HOME", daemon.data());
    command.envs(daemon.settings());
    let output = command.output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("the sealing key is not the one that this store was made with"), "{said}");
}
