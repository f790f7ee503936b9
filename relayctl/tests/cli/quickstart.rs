//! Quickstart against a daemon that is played by the test: a script stands for the program, sockets in this
//! process for what it would open.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Daemon, Folder, Run, command, read_request};

const ID: &str = "req_00000000000000000000000000000001";
const REPLY: &str = "event: content_block_delta\r\n\
    data: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"Hello \"}}\r\n\r\n\
    data: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"there\"}}\n\n\
    data: {\"type\":\"message_stop\"}\n\n";

/// Paths and credentials of the requests that a front door got.
type Seen = Arc<Mutex<Vec<(String, String)>>>;

/// What the played daemon remembers.
#[derive(Default)]
struct Records {
    keys: Vec<Value>,
    accounts: Vec<Value>,
}

/// Answers admin calls as the real daemon does, as far as quickstart asks.
fn play(listen: SocketAddr, pid: u32, socket: PathBuf) -> impl FnMut(&str, &Value) -> (u16, String) {
    let mut records = Records::default();
    move |path, call| {
        let answer = match path {
            "/v1/status" => status(listen, pid, &records.accounts),
            "/v1/stop" => {
                fs::remove_file(&socket).unwrap();
                Command::new("kill").arg(pid.to_string()).status().unwrap();
                json!({})
            }
            "/v1/keys/list" => json!(records.keys),
            "/v1/keys/create" => {
                let name = call["name"].as_str().unwrap();
                records.keys.push(key(name));
                json!({ "id": format!("key_{name}"), "name": name, "key": format!("cr_{name}") })
            }
            "/v1/keys/delete" => {
                let at = records.keys.iter().position(|key| key["id"] == call["key"]).unwrap();
                records.keys.remove(at)
            }
            "/v1/accounts/add" => {
                records.accounts.push(account(call));
                account(call)
            }
            "/v1/requests/list" => json!([row()]),
            other => panic!("{other} is not called by quickstart"),
        };
        (200, answer.to_string())
    }
}

fn status(listen: SocketAddr, pid: u32, accounts: &[Value]) -> Value {
    json!({
        "version": "1", "pid": pid, "node": "n", "started_at": "2026-11-01T00:00:00Z",
        "listen": [listen.to_string()], "data": "/data", "store": { "engine": "embedded", "state": "ok" },
        "journal": { "epoch": 1, "unshipped": 0, "bytes": 0, "set_aside": 0 },
        "in_flight": 0, "connections": 0, "keys": 0, "accounts": accounts,
    })
}

fn key(name: &str) -> Value {
    json!({
        "id": format!("key_{name}"), "name": name, "hint": "cr_12ab…9f", "state": "active", "owner": null,
        "permissions": [], "allow_models": [], "deny_models": [], "accounts": [], "limits": [],
        "usage": "inject", "expires_at": null, "valid_s_from_first_use": null,
        "created_at": "2026-11-01T00:00:00Z",
    })
}

fn account(call: &Value) -> Value {
    json!({
        "id": "acc_1", "name": call["name"], "kind": call["kind"], "base_url": "http://x", "has_secret": true,
        "api_version": null, "models": [], "model_map": {}, "price_as": null, "priority": 50, "weight": 1,
        "headers": [], "limits": [], "simulator": null, "in_flight": 0, "last_used_at": null,
        "health": { "state": "ok", "cause": null, "since": null, "until": null },
        "created_at": "2026-11-01T00:00:00Z",
    })
}

fn row() -> Value {
    json!({
        "id": ID, "opened_at": "2026-11-01T00:00:00Z", "first_byte_ms": 40, "total_ms": 312, "key": "key_1",
        "account": "acc_1", "protocol": "messages", "operation": "generate", "model": "m",
        "priced_model": null, "status": 200, "end": "complete", "attempts": 1,
        "usage": { "input": 12, "output": 34 }, "provenance": "measured", "cost": "0.001234",
        "unpriced": false,
    })
}

/// A front door that answers every request with `status` and `body`, and remembers paths and keys.
fn front_door(listener: TcpListener, status: u16, body: &'static str) -> Seen {
    let seen = Seen::default();
    let remembered = Arc::clone(&seen);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // The port was tried before it was used.
            let Some(request) = read_request(&stream) else { continue };
            seen.lock().unwrap().push((request.path, request.headers["authorization"].clone()));
            let head =
                format!("HTTP/1.1 {status} x\r\nx-relay-request-id: {ID}\r\nconnection: close\r\n\r\n");
            let _ = stream.write_all((head + body).as_bytes());
        }
    });
    remembered
}

fn quickstart(data: &Path, flags: &[&str], variables: &[(&str, &str)]) -> Run {
    let mut command = command(Path::new(env!("CARGO_BIN_EXE_relayctl")));
    command.arg("--data").arg(data).arg("quickstart").args(flags).envs(variables.iter().copied());
    command.output().unwrap().into()
}

fn running(status: u16, body: &'static str) -> (Daemon, Seen, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = listener.local_addr().unwrap();
    let folder = Folder::new();
    let socket = folder.path().join("relayd.sock");
    (Daemon::start_in(folder, play(listen, 1, socket)), front_door(listener, status, body), listen)
}

#[test]
fn the_first_run_makes_a_key_and_the_second_borrows_one() {
    let (daemon, seen, listen) = running(200, REPLY);
    let run = quickstart(daemon.data(), &[], &[]);
    assert_eq!((run.code, run.err.as_str()), (0, ""));
    for part in [
        "SIMULATED",
        "key quickstart is made: cr_quickstart\n",
        "\nHello there\n",
        "12 tokens in, 34 out; $0.001234; 312 ms, the first byte after 40 ms",
        &format!("export ANTHROPIC_BASE_URL=http://{listen}\nexport ANTHROPIC_API_KEY=cr_quickstart\n"),
    ] {
        assert!(run.out.contains(part), "{part}\n{}", run.out);
    }

    let run = quickstart(daemon.data(), &[], &[]);
    assert_eq!((run.code, run.err.as_str()), (0, ""));
    assert!(run.out.contains("export ANTHROPIC_API_KEY=YOUR_QUICKSTART_KEY\n"), "{}", run.out);
    assert!(run.out.contains("stands for the key cr_12ab…9f") && run.out.contains("key create NAME"));
    let borrowed = daemon.calls("/v1/keys/create")[1].clone();
    let name = borrowed["name"].as_str().unwrap();
    assert!(name.starts_with("quickstart-check-") && borrowed["expires_at"].is_string(), "{borrowed}");
    assert_eq!(daemon.calls("/v1/keys/delete"), [json!({ "key": format!("key_{name}") })]);
    assert_eq!(daemon.calls("/v1/accounts/add").len(), 1, "the account is reused");
    let asked = |key: &str| ("/v1/messages".to_owned(), format!("Bearer {key}"));
    assert_eq!(*seen.lock().unwrap(), [asked("cr_quickstart"), asked(&format!("cr_{name}"))]);
}

#[test]
fn a_credential_of_the_environment_becomes_an_account() {
    let (daemon, seen, listen) = running(200, "data: {\"candidates\":[{\"finishReason\":\"STOP\"}]}\n\n");
    let own = format!("http://{listen}/gemini");
    let variables = [
        ("ANTHROPIC_API_KEY", "cr_own"),
        ("GEMINI_API_KEY", "g-1"),
        ("GOOGLE_GEMINI_BASE_URL", own.as_str()),
    ];
    let run = quickstart(daemon.data(), &["--output", "json"], &variables);
    assert_eq!((run.code, run.err.as_str()), (0, ""));
    let report: Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!((&report["account"], &report["simulated"]), (&json!("gemini"), &json!(false)));
    assert_eq!((&report["key"], &report["request"]["id"]), (&json!("cr_quickstart"), &json!(ID)));
    let added = &daemon.calls("/v1/accounts/add")[0];
    assert_eq!(added["secret"], "g-1");
    assert_eq!((&added["kind"], &added["base_url"]), (&json!("gemini-api"), &Value::Null));
    let path = &seen.lock().unwrap()[0].0;
    assert_eq!(path, "/gemini/v1beta/models/gemini-3.5-flash-lite:streamGenerateContent?alt=sse");
}

#[test]
fn a_request_that_fails_is_told_with_the_next_step() {
    let cut = "data: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"Hel\"}}\n\n";
    let busy = "{\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"all are busy\"}}";
    let midway = "data: {\"type\":\"error\",\"error\":{\"message\":\"it broke\"}}\n\n";
    for (status, body, part) in [
        (503, busy, "status 503 Service Unavailable: all are busy"),
        (404, "plain text", "status 404 Not Found: the reply says no more"),
        (200, cut, "the reply ended before it was complete"),
        (200, midway, "broke off with an error: it broke"),
    ] {
        let (daemon, _, _) = running(status, body);
        let run = quickstart(daemon.data(), &[], &[]);
        assert_eq!(run.code, 1, "{part}");
        assert!(run.err.contains(part), "{part}\n{}", run.err);
        assert!(run.err.contains(" account test simulator` says"), "{}", run.err);
    }
}

#[test]
fn stopping_ends_only_what_quickstart_started() {
    let (daemon, _, _) = running(200, REPLY);
    let run = quickstart(daemon.data(), &["--stop"], &[]);
    assert_eq!((run.code, run.out.as_str()), (1, ""));
    assert!(run.err.contains("was not started by quickstart and goes on\nhint: "), "{}", run.err);
    assert!(daemon.calls("/v1/stop").is_empty());
    let nothing = Folder::new();
    let run = quickstart(nothing.path(), &["--stop"], &[]);
    assert_eq!((run.code, run.out.as_str()), (1, ""));
    assert!(run.err.starts_with("relayctl: no relayd answers at"), "{}", run.err);
}

/// relayctl with a script beside it that stands for relayd.
fn installed(script: &str) -> (Folder, PathBuf) {
    let folder = Folder::under(Path::new(env!("CARGO_TARGET_TMPDIR")));
    let (program, relayd) = (folder.path().join("relayctl"), folder.path().join("relayd"));
    fs::hard_link(env!("CARGO_BIN_EXE_relayctl"), &program).unwrap();
    fs::write(&relayd, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&relayd, fs::Permissions::from_mode(0o755)).unwrap();
    (folder, program)
}

#[test]
fn a_daemon_that_dies_at_once_is_told_with_its_last_words() {
    let (_program_folder, program) = installed("echo 'the store is damaged' >&2; exit 4");
    let data = Folder::new();
    let mut command = command(&program);
    let run: Run = command.arg("--data").arg(data.path()).arg("quickstart").output().unwrap().into();
    assert_eq!(run.code, 1);
    assert!(
        run.err.contains("relayd ended at once") && run.err.contains("the store is damaged"),
        "{}",
        run.err
    );
    assert!(run.err.contains("quickstart.log"), "{}", run.err);
}

#[test]
fn a_started_daemon_is_remembered_and_ended_by_stop() {
    let script =
        "umask 077; echo \"$$ $4\" > \"$2/asked.new\"; mv \"$2/asked.new\" \"$2/asked\"; exec sleep 60";
    let (_program_folder, program) = installed(script);
    let folder = Folder::new();
    let data = folder.path().join("deep/data");
    let asked = data.join("asked");
    let (player, run) = thread::scope(|scope| {
        let started = scope.spawn(|| {
            let mut command = command(&program);
            Run::from(command.arg("--data").arg(&data).arg("quickstart").output().unwrap())
        });
        let deadline = Instant::now() + Duration::from_secs(8);
        while !asked.exists() {
            assert!(Instant::now() < deadline, "relayd was not started");
            thread::sleep(Duration::from_millis(5));
        }
        let words = fs::read_to_string(&asked).unwrap();
        let (pid, listen) = words.trim().split_once(' ').unwrap();
        let (pid, listen): (u32, SocketAddr) = (pid.parse().unwrap(), listen.parse().unwrap());
        front_door(TcpListener::bind(listen).unwrap(), 200, REPLY);
        let socket = data.join("relayd.sock");
        let player = Daemon::start_in(Folder::at(&data), play(listen, pid, socket));
        (player, started.join().unwrap())
    });
    assert_eq!((run.code, run.err.as_str()), (0, ""));
    assert!(run.out.contains("relayd is started on http://127.0.0.1:3"), "{}", run.out);
    assert!(run.out.contains("quickstart --stop` ends relayd"), "{}", run.out);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&data), mode(&data.join("quickstart.log"))), (0o700, 0o600));

    let run = quickstart(&data, &["--stop"], &[]);
    assert_eq!((run.code, run.err.as_str()), (0, ""));
    assert!(run.out.contains("has ended"), "{}", run.out);
    assert_eq!(player.calls("/v1/stop").len(), 1);
    assert!(!data.join("quickstart.json").exists());
}
