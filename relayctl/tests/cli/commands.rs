//! What programs and people get from a command: exit codes, sentences, JSON, over a real socket.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Stdio;
use std::thread;

use serde_json::{Value, json};

use crate::support::{Daemon, Folder, Run, command, relayctl};

fn key(state: &str) -> Value {
    json!({
        "id": "key_1", "name": "alice", "hint": "cr_12ab…9f", "state": state, "owner": null,
        "permissions": [], "allow_models": [], "deny_models": [], "accounts": [], "limits": [],
        "usage": "inject", "expires_at": null, "valid_s_from_first_use": null,
        "created_at": "2026-11-01T00:00:00Z",
    })
}

fn account() -> Value {
    json!({
        "id": "acc_1", "name": "main", "kind": "simulator", "base_url": "http://x", "has_secret": false,
        "api_version": null, "models": [], "model_map": {}, "price_as": null, "priority": 50, "weight": 1,
        "headers": [], "limits": [], "simulator": null, "in_flight": 0, "last_used_at": null,
        "health": { "state": "ok", "cause": null, "since": null, "until": null },
        "created_at": "2026-11-01T00:00:00Z",
    })
}

fn answering(status: u16, body: Value) -> Daemon {
    Daemon::start(move |_, _| (status, body.to_string()))
}

#[test]
fn a_missing_daemon_is_one_sentence_and_code_1() {
    let folder = Folder::new();
    let run = relayctl(&folder.path().join("none.sock"), &["status"]);
    assert_eq!((run.code, run.out.as_str()), (1, ""));
    assert!(run.err.starts_with("relayctl: no relayd answers at /"), "{}", run.err);
    assert!(run.err.contains("start it with `relayd`") && run.err.lines().count() == 1, "{}", run.err);
}

#[test]
fn a_socket_that_nobody_serves_any_more_is_a_missing_daemon() {
    let folder = Folder::new();
    let socket = folder.path().join("stale.sock");
    drop(UnixListener::bind(&socket).unwrap());
    assert!(relayctl(&socket, &["status"]).err.contains("no relayd answers"));
}

#[test]
fn a_problem_is_told_with_its_hint() {
    let problem =
        json!({ "code": "not_found", "message": "no key is named \"bob\"", "hint": "try `key list`" });
    let daemon = answering(404, problem);
    let run = relayctl(&daemon.socket(), &["key", "show", "bob"]);
    assert_eq!((run.code, run.out.as_str()), (1, ""));
    assert_eq!(run.err, "relayctl: no key is named \"bob\"\nhint: try `key list`\n");
    assert_eq!(daemon.calls("/v1/keys/show"), [json!({ "key": "bob" })]);
}

#[test]
fn an_answer_of_another_version_is_said_to_be_one() {
    for (status, body) in [(200, json!({ "surprise": 1 })), (500, json!("boom"))] {
        let daemon = answering(status, body);
        let run = relayctl(&daemon.socket(), &["status"]);
        assert_eq!(run.code, 1);
        assert!(run.err.contains("different versions"), "{}", run.err);
    }
}

#[test]
fn a_daemon_that_breaks_off_is_a_failure() {
    let folder = Folder::new();
    let socket = folder.path().join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    let server = thread::spawn(move || drop(listener.accept().unwrap()));
    let run = relayctl(&socket, &["status"]);
    server.join().unwrap();
    assert_eq!(run.code, 1);
    assert!(run.err.contains("relayd broke off"), "{}", run.err);
}

#[test]
fn wrong_usage_is_code_2_and_reaches_no_daemon() {
    let daemon = Daemon::start(|path, _| match path {
        "/v1/keys/show" => (200, key("active").to_string()),
        "/v1/accounts/show" => (200, account().to_string()),
        _ => (200, json!([]).to_string()),
    });
    for args in [
        ["key", "create"].as_slice(),
        &["key", "delete", "alice"],
        &["account", "remove", "main"],
        &["account", "add"],
        &["account", "add", "gemini-api", "--name", "g"],
        &["account", "add", "gemini-api", "--name", "g", "--secret-env", "NOT_SET"],
        &["account", "add", "gemini-api", "--name", "g", "--secret", "sk-1"],
        &["key", "update", "alice"],
        &["usage", "--since", "yesterday"],
        &["frobnicate"],
        &[],
    ] {
        let run = relayctl(&daemon.socket(), args);
        assert_eq!((run.code, run.out.as_str()), (2, ""), "{args:?}: {}", run.err);
        assert!(!run.err.is_empty() && !run.err.contains("sk-1"), "{args:?}: {}", run.err);
    }
    for path in ["/v1/keys/delete", "/v1/accounts/remove", "/v1/accounts/add", "/v1/keys/update"] {
        assert_eq!(daemon.calls(path), [] as [Value; 0]);
    }
}

#[test]
fn values_that_begin_with_a_hyphen_are_taken_or_told_how_to_write() {
    let daemon = answering(200, json!([]));
    for (args, advice) in [
        (&["usage", "--key", "-x"][..], Some("--key=-x")),
        (&["usage", "--key", "-y"], Some("--key=-y")),
        (&["usage", "--since", "-7d"], Some("--since=-7d")),
        (&["usage", "--model", "--x"], Some("--model=--x")),
        (&["account", "add", "simulator", "--name", "-x"], Some("--name=-x")),
        (&["account", "add", "simulator", "--latency-ms", "-5"], Some("--latency-ms=-5")),
        (&["--socket", "-s", "status"], Some("--socket=-s")),
        // A value was forgotten, or there is no such flag, or nothing to give a value to.
        (&["usage", "--key", "--by", "day"], None),
        (&["usage", "--nosuch", "-x"], None),
        (&["usage", "--key"], None),
        (&["usage", "-x"], None),
    ] {
        let run = relayctl(&daemon.socket(), args);
        let tip = advice.map(|form| format!("tip: a value that begins with a hyphen is written {form}\n"));
        assert_eq!(run.code, 2, "{args:?}");
        assert!(!run.err.contains("as a value, use"), "{args:?}: {}", run.err);
        match tip {
            Some(tip) => assert!(run.err.contains(&tip), "{args:?}: {}", run.err),
            None => assert!(!run.err.contains("hyphen"), "{args:?}: {}", run.err),
        }
    }
    // Where it is no flag's value, clap's own advice fits.
    let run = relayctl(&daemon.socket(), &["key", "show", "-x"]);
    assert!(run.err.contains("use '-- -x'"), "{}", run.err);
    assert_eq!(relayctl(&daemon.socket(), &["usage", "--key=-x", "--model=-m"]).code, 0);
    let call = &daemon.calls("/v1/usage")[0];
    assert_eq!((&call["key"], &call["model"]), (&json!("-x"), &json!("-m")));
}

#[test]
fn yes_answers_for_the_person() {
    let daemon = answering(200, key("deleted"));
    let run = relayctl(&daemon.socket(), &["key", "delete", "alice", "--yes"]);
    assert_eq!((run.code, run.out.as_str()), (0, "key alice (key_1) is deleted\n"));
    assert_eq!(daemon.calls("/v1/keys/delete"), [json!({ "key": "key_1" })], "the one that was looked up");
}

/// Nobody is asked about what is not there, or is told to pass `--yes` for it.
#[test]
fn what_is_to_go_is_looked_up_before_anybody_is_asked() {
    let daemon = Daemon::start(|path, _| match path {
        "/v1/limits/list" | "/v1/prices/show" => (200, json!([]).to_string()),
        _ => (404, json!({ "code": "not_found", "message": "there is none" }).to_string()),
    });
    for (args, told) in [
        (&["key", "delete", "bob"][..], "relayctl: there is none\n"),
        (&["account", "remove", "bob"], "relayctl: there is none\n"),
        (&["limit", "clear", "--owner", "Zed"], "relayctl: the keys of owner Zed share no limits\n"),
        (&["limit", "clear", "--all"], "relayctl: all keys share no limits\n"),
        (&["pricing", "unset", "m"], "relayctl: there is none\n"),
    ] {
        let run = relayctl(&daemon.socket(), args);
        assert_eq!((run.code, run.out.as_str()), (1, ""), "{args:?}");
        assert!(run.err.starts_with(told), "{args:?}: {}", run.err);
    }
    for path in ["/v1/keys/delete", "/v1/accounts/remove", "/v1/limits/set"] {
        assert_eq!(daemon.calls(path), [] as [Value; 0]);
    }
}

/// Whichever program notices that a value can mean nothing, the exit code is the same.
#[test]
fn values_that_can_mean_nothing_are_wrong_usage() {
    let answers = |code: &'static str| {
        Daemon::start(move |_, _| (400, json!({ "code": code, "message": "it is wrong" }).to_string()))
    };
    let add = ["account", "add", "simulator", "--name"];
    for (code, expected) in
        [("invalid", 2), ("not_found", 1), ("conflict", 1), ("denied", 1), ("internal", 1)]
    {
        let daemon = answers(code);
        let run = relayctl(&daemon.socket(), &[&add[..], &["a"]].concat());
        assert_eq!((run.code, run.err.as_str()), (expected, "relayctl: it is wrong\n"), "{code}");
    }
    let daemon = answers("internal");
    for args in [
        &["account", "add", "ccr", "--name", "r", "--base-url", "foo"][..],
        &["account", "add", "ccr", "--name", "r", "--header", "no colon"],
        &["account", "add", "simulator", "--name", "acc_1"],
        &["key", "create", " alice"],
        &["key", "create", "alice", "--queue", "0:1s"],
        &["usage", "--since", "1h", "--until", "2h"],
        &["requests", "--since", "2026-11-02", "--until", "2026-11-01"],
    ] {
        let run = relayctl(&daemon.socket(), args);
        assert_eq!((run.code, run.out.as_str()), (2, ""), "{args:?}: {}", run.err);
    }
    assert!(relayctl(&daemon.socket(), &["--help"]).out.contains("Exit codes: 0 it is done; 1 it is not; 2"));
}

#[test]
fn sums_over_part_of_an_hour_say_that_they_count_it_whole() {
    let daemon = answering(200, json!([]));
    for (since, is_told) in [("30s", true), ("2020-01-01", false), ("2d", false)] {
        let run = relayctl(&daemon.socket(), &["usage", "--since", since]);
        assert_eq!(
            (run.code, run.err.contains("whole hours are counted")),
            (0, is_told),
            "{since}: {}",
            run.err
        );
    }
    let run = relayctl(&daemon.socket(), &["usage", "--since", "30s", "--output", "json"]);
    assert_eq!(run.err, "");
}

#[test]
fn flags_of_an_update_stand_below_their_own_headings() {
    let help = relayctl(Path::new("none"), &["account", "update", "--help"]).out;
    let (options, simulator) = help.split_once("\nSimulator:\n").unwrap();
    assert!(options.contains("--clear <FIELD>") && options.contains("--limit <LIMIT>"), "{help}");
    assert!(!simulator.contains("--clear") && simulator.contains("--latency-ms"), "{help}");
}

#[test]
fn a_request_without_a_row_is_a_failure() {
    let daemon = answering(200, json!([]));
    let id = "req_00000000000000000000000000000001";
    let run = relayctl(&daemon.socket(), &["requests", "--id", id]);
    assert_eq!((run.code, run.out.as_str()), (1, ""));
    assert!(run.err.starts_with(&format!("relayctl: there is no row of {id}\n")), "{}", run.err);
    assert_eq!(relayctl(&daemon.socket(), &["requests"]).code, 0);
}

#[test]
fn programs_get_errors_as_json_too() {
    let problem = json!({ "code": "not_found", "message": "no key is named \"bob\"", "hint": "look" });
    let daemon = answering(404, problem.clone());
    let json = |args: &[&str]| {
        let run = relayctl(&daemon.socket(), &[args, &["--output", "json"]].concat());
        assert_eq!((run.out.as_str(), run.err.lines().count()), ("", 1), "{}", run.err);
        (run.code, serde_json::from_str::<Value>(&run.err).unwrap()["error"].clone())
    };
    assert_eq!(json(&["key", "show", "bob"]), (1, problem));
    let (code, error) = json(&["key", "update", "bob"]);
    assert_eq!((code, &error["code"], &error["message"]), (2, &json!("usage"), &json!("nothing to change")));
    let (code, error) = json(&["requests", "--since", "2026-11-02", "--until", "2026-11-01"]);
    assert_eq!((code, &error["code"]), (2, &json!("usage")));
}

/// Secrets would lie in whatever folder one is in.
#[test]
fn without_a_home_nothing_is_made_anywhere() {
    let folder = Folder::new();
    let environments = [&[][..], &[("HOME", "")], &[("XDG_STATE_HOME", "state"), ("HOME", "home")]];
    for variables in environments {
        for args in [&["quickstart"][..], &["quickstart", "--stop"], &["status"]] {
            let mut command = command(Path::new(env!("CARGO_BIN_EXE_relayctl")));
            command.args(args).envs(variables.iter().copied()).current_dir(folder.path());
            let run: Run = command.output().unwrap().into();
            assert_eq!((run.code, run.out.as_str()), (1, ""), "{variables:?} {args:?}");
            let told = "relayctl: there is no home folder to keep data in; name one with --data\n";
            assert_eq!(run.err, told, "{variables:?} {args:?}");
        }
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_new_key_is_the_whole_answer() {
    let daemon = answering(200, json!({ "id": "key_1", "name": "alice", "key": "cr_secret" }));
    let args = ["key", "create", "alice", "--limit", "4 concurrent"];
    let run = relayctl(&daemon.socket(), &args);
    assert_eq!(run.out, "cr_secret\n");
    let told = "This is the key \"alice\" (key_1). It is not shown again: store it now.\n";
    assert_eq!(run.err, told);
    let run = relayctl(&daemon.socket(), &[&args, ["--output", "json"].as_slice()].concat());
    assert_eq!(run.err, "");
    let answer: Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(answer, json!({ "id": "key_1", "name": "alice", "key": "cr_secret" }));
    assert_eq!(run.out.lines().count(), 1, "compact where no person reads");
    assert_eq!(daemon.calls("/v1/keys/create")[0]["limits"], json!(["4 concurrent"]));
}

#[test]
fn json_is_the_reply_itself() {
    let rows = json!([{
        "name": "alice", "id": "key_1", "requests": 3, "failed": 1, "usage": { "input": 7 },
        "cost": "0.000123", "rated": "0.000123", "unpriced": 0, "provenance": { "measured": 2, "unused": 1 },
    }]);
    let daemon = answering(200, rows.clone());
    let args = ["usage", "--by", "key", "--since", "2026-11-01", "--output", "json"];
    let run = relayctl(&daemon.socket(), &args);
    assert_eq!((run.code, serde_json::from_str::<Value>(&run.out).unwrap()), (0, rows));
    assert_eq!(daemon.calls("/v1/usage")[0]["since"], "2026-11-01T00:00:00.000Z");
    let run = relayctl(&daemon.socket(), &["usage"]);
    assert!(run.out.starts_with("KEY") && run.out.contains("2 measured, 1 unused"), "{}", run.out);
    assert!(!run.out.contains('\u{1b}'), "no colours in a pipe");
}

#[test]
fn a_secret_comes_from_where_the_flags_say() {
    let folder = Folder::new();
    let file = folder.path().join("secret");
    fs::write(&file, "sk-file\n").unwrap();
    let daemon = Daemon::start(|_, _| (409, json!({ "code": "conflict", "message": "taken" }).to_string()));
    let add = ["account", "add", "gemini-api", "--name", "g"];
    let run = |flags: &[&str]| {
        let mut command = command(Path::new(env!("CARGO_BIN_EXE_relayctl")));
        command.arg("--socket").arg(daemon.socket()).args(add).args(flags).env("KEY_VARIABLE", "sk-variable");
        let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // A program that does not read its input may be gone already.
        let _ = child.stdin.take().unwrap().write_all(b"sk-stdin\n");
        let run: Run = child.wait_with_output().unwrap().into();
        assert_eq!((run.code, run.err.as_str()), (1, "relayctl: taken\n"));
    };
    run(&["--secret-file", file.to_str().unwrap()]);
    run(&["--secret-env", "KEY_VARIABLE"]);
    run(&["--secret-stdin"]);
    let secrets: Vec<Value> =
        daemon.calls("/v1/accounts/add").iter().map(|call| call["secret"].clone()).collect();
    assert_eq!(secrets, ["sk-file", "sk-variable", "sk-stdin"]);
}

#[test]
fn a_failed_test_of_an_account_is_code_1() {
    let report = json!({
        "ok": false, "url": "https://x.test/v1/models", "status": 401, "message": "invalid x-api-key",
        "first_byte_ms": 5, "total_ms": 6,
    });
    let daemon = answering(200, report.clone());
    let run = relayctl(&daemon.socket(), &["account", "test", "main", "--output", "json"]);
    assert_eq!((run.code, serde_json::from_str::<Value>(&run.out).unwrap()), (1, report));
    let error: Value = serde_json::from_str(&run.err).unwrap();
    assert_eq!(error["error"]["message"], "the account main does not work");
}

#[test]
fn what_takes_long_is_read_line_by_line() {
    let nothing = json!({ "before": "0.00", "after": "0.00" });
    let report = move |applied: bool| {
        json!({
            "applied": applied, "calls": 7, "repriced": 0, "without_price": 0, "cost": nothing,
            "rated": nothing, "hours_from": null, "hours": 1,
            "sums": [{
                "id": "key_1", "name": "alice", "requests": { "before": 1, "after": 7 }, "cost": nothing,
                "rated": nothing,
            }],
            "counters": [], "left_alone": [],
        })
    };
    let progress = json!({ "progress": { "stage": "reading", "done": 7, "total": 7 } });
    let daemon = Daemon::start(move |_, call| {
        let reply = json!({ "reply": report(call["dry_run"] == false) });
        (200, format!("{progress}\n{reply}\n"))
    });
    let rebuild = ["costs", "rebuild", "--prices", "today"];
    let run = relayctl(&daemon.socket(), &rebuild);
    assert_eq!(run.code, 2, "{}", run.err);
    assert!(run.out.contains("alice") && run.err.contains("pass --yes"), "{}{}", run.out, run.err);
    let run = relayctl(&daemon.socket(), &[&rebuild, ["--yes"].as_slice()].concat());
    assert_eq!((run.code, run.err.as_str()), (0, ""));
    assert!(run.out.ends_with("put right: 0 calls, 1 hourly sum, 0 counters\n"), "{}", run.out);
    let run = relayctl(&daemon.socket(), &[&rebuild, ["--yes", "--output", "json"].as_slice()].concat());
    let answer: Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!((run.code, &answer["applied"]), (0, &json!(true)));
    let calls = daemon.calls("/v1/costs/rebuild");
    let dry: Vec<&Value> = calls.iter().map(|call| &call["dry_run"]).collect();
    assert_eq!(dry, [true, true, false, true, false]);
    assert_eq!(calls[0]["prices"], "today");
}

#[test]
fn what_takes_long_may_fail_on_the_way() {
    let problem = json!({ "code": "conflict", "message": "not now", "hint": "try it again" });
    for (status, body, told) in [
        (200, format!("{}\n", json!({ "problem": problem })), "relayctl: not now\nhint: try it again\n"),
        (409, problem.to_string(), "relayctl: not now\nhint: try it again\n"),
        (200, String::new(), "relayctl: relayd broke off before it was done\n"),
        (200, "{\"reply\":{}}\n".to_owned(), "different versions"),
    ] {
        let daemon = Daemon::start(move |_, _| (status, body.clone()));
        let run = relayctl(&daemon.socket(), &["costs", "rebuild", "--dry-run"]);
        assert_eq!((run.code, run.out.as_str()), (1, ""), "{told}");
        assert!(run.err.contains(told), "{}", run.err);
    }
}

#[test]
fn a_store_is_moved_and_what_to_set_is_said() {
    let progress = json!({ "progress": { "stage": "rows", "done": 7, "total": 9 } });
    let reply = json!({ "reply": {
        "from": "embedded", "to": "redis://127.0.0.1:6379/0", "counts": { "rows": 1_234, "hourly_sums": 5 },
        "holds": 3, "frozen_ms": 41,
    } });
    let daemon = Daemon::start(move |_, _| (200, format!("{progress}\n{reply}\n")));
    let migrate = ["store", "migrate", "--to", "redis://127.0.0.1:6379/0"];
    let run = relayctl(&daemon.socket(), &migrate);
    assert_eq!((run.code, run.err.as_str()), (0, ""));
    for told in [
        "from embedded to redis://",
        "1,234",
        "hourly sums",
        "for 41 ms",
        "url = \"redis://127.0.0.1:6379/0\"",
    ] {
        assert!(run.out.contains(told), "{told}: {}", run.out);
    }
    assert_eq!(daemon.calls("/v1/store/migrate"), [json!({ "to": "redis://127.0.0.1:6379/0" })]);
    let refused = relayctl(&daemon.socket(), &["store", "migrate", "--to", "redis://u:sesame@127.0.0.1/0"]);
    assert_eq!(refused.code, 2, "others could see it: {}", refused.err);
    assert!(
        !refused.err.contains("sesame") && refused.err.contains("store.password_file"),
        "{}",
        refused.err
    );
    let run = relayctl(&daemon.socket(), &[&migrate[..], &["--output", "json"]].concat());
    assert_eq!(serde_json::from_str::<Value>(&run.out).unwrap()["frozen_ms"], 41);
}

#[test]
fn a_server_is_adopted_only_after_it_was_looked_at() {
    let start = |was_empty: bool| {
        Daemon::start(move |_, call| {
            let found = if was_empty { json!({ "records": 0 }) } else { json!({ "records": 12, "rows": 3 }) };
            let reply = json!({ "reply": {
                "applied": call["dry_run"] == false, "was_empty": was_empty, "found": found, "records": 12,
                "groups": 4, "state": "ok",
            } });
            (200, format!("{reply}\n"))
        })
    };
    let daemon = start(true);
    let run = relayctl(&daemon.socket(), &["store", "adopt"]);
    assert!(run.code == 2 && run.err.contains("fill this empty server"), "{}", run.err);
    let run = relayctl(&daemon.socket(), &["--yes", "store", "adopt"]);
    assert_eq!(run.out, "the server was given 12 records and 4 groups of counters; it is in use\n");
    let calls = daemon.calls("/v1/store/adopt");
    assert_eq!(calls.iter().map(|call| &call["dry_run"]).collect::<Vec<_>>(), [true, true, false]);
    let daemon = start(false);
    let run = relayctl(&daemon.socket(), &["--yes", "store", "adopt"]);
    assert!(run.code == 1 && run.err.contains("12 records") && run.err.contains("--as-is"), "{}", run.err);
    assert_eq!(daemon.calls("/v1/store/adopt").len(), 1);
    let run = relayctl(&daemon.socket(), &["--yes", "store", "adopt", "--as-is"]);
    assert!(run.out.starts_with("the server has 12 records"), "{}", run.out);
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let keys: Vec<Value> = (0..2_000).map(|_| key("active")).collect();
    let daemon = answering(200, json!(keys));
    let mut command = command(Path::new(env!("CARGO_BIN_EXE_relayctl")));
    command.arg("--socket").arg(daemon.socket()).args(["key", "list"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let run: Run = child.wait_with_output().unwrap().into();
    assert_eq!((run.code, run.err.as_str()), (0, ""));
}

#[test]
fn checking_a_configuration_says_what_relayd_finds() {
    let folder = Folder::under(Path::new(env!("CARGO_TARGET_TMPDIR")));
    let program = folder.path().join("relayctl");
    fs::hard_link(env!("CARGO_BIN_EXE_relayctl"), &program).unwrap();
    let relayd = folder.path().join("relayd");
    let check = |script: &str, args: &[&str]| -> (i32, String, String) {
        fs::write(&relayd, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&relayd, fs::Permissions::from_mode(0o755)).unwrap();
        let run: Run = command(&program).args(["config", "check"]).args(args).output().unwrap().into();
        (run.code, run.out, run.err)
    };
    let told = |code, out: &str, err: &str| (code, out.to_owned(), err.to_owned());
    let is_asked = "test \"$*\" = '--check --config x.toml' && echo fine >&2";
    let json = ["--output", "json"];
    assert_eq!(check(is_asked, &["x.toml"]), told(0, "x.toml is valid\n", ""));
    assert_eq!(
        check(is_asked, &["x.toml", json[0], json[1]]),
        told(0, "{\"ok\":true,\"file\":\"x.toml\"}\n", "")
    );
    assert_eq!(check("exit 0", &[]), told(0, "the configuration is valid\n", ""));
    assert_eq!(check("exit 0", &json), told(0, "{\"ok\":true,\"file\":null}\n", ""));
    let says_no = "echo 'relayd: x.toml:3: there is no x' >&2; exit 3";
    assert_eq!(check(says_no, &["x.toml"]), told(1, "", "relayctl: x.toml:3: there is no x\n"));
    let (code, out, err) = check(says_no, &["x.toml", json[0], json[1]]);
    let error: Value = serde_json::from_str(&err).unwrap();
    assert_eq!((code, out.as_str(), &error["error"]["message"]), (1, "", &json!("x.toml:3: there is no x")));
    assert_eq!(check("kill -9 $$", &[]).0, 1);
}
