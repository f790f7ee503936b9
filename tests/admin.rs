//! The control program end to end: what an operator types, and what programs read.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use shared::domain::{AccountKind, Protocol};

use crate::support::control::{SECRET, add_account, command, json, outcome, refused, run};
use crate::support::{Call, Rig, Setup, wire};

#[tokio::test]
async fn from_an_empty_daemon_to_a_bill() {
    let rig = Rig::bare(Setup::default()).await;
    let data = rig.daemon.data();
    let account = add_account(&rig, "claude-console", "main", &["--model", "claude-*", "--priority", "10"]);
    assert_eq!((&account["name"], &account["has_secret"]), (&json!("main"), &json!(true)));
    run(
        data,
        &[
            "pricing",
            "set",
            "claude-test",
            "input=3",
            "output=15",
            "cache_read=0.3",
            "cache_write_5m=3.75",
            "cache_write_1h=6",
        ],
    );
    let key = json(data, &["key", "create", "alice", "--limit", "4 concurrent"]);
    let (id, secret) = (key["id"].as_str().unwrap(), key["key"].as_str().unwrap());
    assert!(id.starts_with("key_") && secret.starts_with("cr_") && secret.len() == 3 + 64, "{key}");
    rig.daemon
        .client(secret)
        .call(&Call::new(Protocol::Messages, "claude-test").streamed())
        .await
        .expect(200);
    rig.daemon.settled().await;

    let rows = json(data, &["usage", "--by", "key"]);
    let row = rows.as_array().unwrap().iter().find(|row| row["name"] == "alice").expect("no row");
    assert_eq!(row["requests"], 1);
    assert_eq!(row["usage"], serde_json::to_value(wire::usage(Protocol::Messages)).unwrap());
    assert_eq!(row["provenance"], json!({"measured": 1}));
    // 25 x 3 + 15 x 15 + 40 x 0.3 + 7 x 3.75 + 3 x 6 dollars per million.
    assert_eq!(row["cost"], "0.00035625", "{row}");
    for by in ["account", "model", "day"] {
        assert_eq!(json(data, &["usage", "--by", by])[0]["cost"], "0.00035625", "{by}");
    }
    let requests = json(data, &["requests"]);
    assert_eq!((&requests[0]["model"], &requests[0]["status"]), (&json!("claude-test"), &json!(200)));
    let table = run(data, &["usage"]);
    assert!(table.contains("alice"), "{table}");
}

#[tokio::test]
async fn keys_are_managed() {
    let rig = Rig::start().await;
    let data = rig.daemon.data();
    let made = json(
        data,
        &["key", "create", "bob", "--owner", "team", "--permission", "claude", "--deny-model", "*-x"],
    );
    let listed = json(data, &["key", "list"]);
    assert_eq!(listed.as_array().unwrap().len(), 2);
    assert!(!listed.to_string().contains(made["key"].as_str().unwrap()), "a list shows a key");
    let view = json(data, &["key", "show", "bob"]);
    assert_eq!((&view["owner"], &view["permissions"]), (&json!("team"), &json!(["claude"])));
    json(data, &["key", "update", "bob", "--name", "robert", "--limit", "60 requests per minute"]);
    let view = json(data, &["key", "show", "robert"]);
    assert_eq!(view["limits"][0]["limit"], "60 requests per minute");
    run(data, &["key", "disable", "robert"]);
    assert_eq!(json(data, &["key", "show", "robert"])["state"], "disabled");
    run(data, &["key", "enable", "robert"]);
    run(data, &["key", "delete", "robert", "--yes"]);
    assert_eq!(json(data, &["key", "list"]).as_array().unwrap().len(), 1);

    run(data, &["key", "create", "bound", "--account", "claude"]);
    let listed = run(data, &["key", "list"]);
    let line = listed.lines().find(|line| line.starts_with("bound ")).unwrap();
    assert!(line.contains("only claude") && !line.contains(" all "), "{listed}");
    assert!(run(data, &["key", "show", "bound"]).lines().any(|line| line.ends_with("  claude")));

    assert!(refused(data, &["key", "show", "nobody"]).contains("nobody"));
    refused(data, &["key", "create", "everything"]);
    assert!(refused(data, &["key", "create", "eve", "--limit", "5 apples per day"]).contains("apples"));
    refused(data, &["key", "create", "eve", "--account", "no-such-account"]);
}

#[tokio::test]
async fn limits_are_changed_one_by_one() {
    let rig = Rig::start().await;
    let data = rig.daemon.data();
    run(data, &["key", "create", "alice", "--limit", "4 concurrent", "--limit", "60 requests per minute"]);
    let changed = |command: &[&str]| {
        let view = json(data, command);
        let limits = view["limits"].as_array().unwrap().iter();
        limits.map(|limit| limit["limit"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    for (group, name) in [("key", "alice"), ("account", "claude")] {
        let update = |flags: &[&str]| changed(&[&[group, "update", name], flags].concat());
        // In place of all the old.
        let limits = ["--limit", "4 concurrent", "--limit", "60 requests per minute"];
        assert_eq!(update(&limits), ["4 concurrent", "60 requests per minute"]);
        // Beside the old, and in place of the one that counts the same.
        let limits = ["--add-limit", "$20 per day on claude-*", "--add-limit", "9 requests per minute"];
        assert_eq!(update(&limits), ["4 concurrent", "9 requests per minute", "$20 per day on claude-*"]);
        // With and without the amount.
        assert_eq!(update(&["--drop-limit", "4 concurrent"]).len(), 2);
        let told = refused(data, &[group, "update", name, "--drop-limit", "60 requests per minute"]);
        assert!(
            told.contains("there is no limit \"60 requests per minute\"; there is \"9 requests per minute\""),
            "{told}"
        );
        let limits = ["--drop-limit", "requests per minute", "--add-limit", "1 concurrent"];
        assert_eq!(update(&limits), ["$20 per day on claude-*", "1 concurrent"]);
        let told =
            refused(data, &[group, "update", name, "--limit", "1 concurrent", "--drop-limit", "concurrent"]);
        assert!(told.contains("cannot be used with"), "{told}");
        assert_eq!(changed(&[group, "show", name]), ["$20 per day on claude-*", "1 concurrent"]);
    }
}

/// Three accounts whose secrets came from the environment, a file and the standard input.
fn add_three(rig: &Rig) {
    let data = rig.daemon.data();
    add_account(
        rig,
        "claude-console",
        "one",
        &["--map", "fast=claude-haiku", "--header", "x-team: secret-team"],
    );
    let file = data.join("secret.txt");
    std::fs::write(&file, format!("{SECRET}-2\n")).unwrap();
    let add = |kind: &str, name: &str, base_url: &str, secret: &[&str]| {
        let args = ["account", "add", kind, "--name", name, "--base-url", base_url];
        command(data, &[&args[..], secret].concat())
    };
    let base_url = format!("{}/v1", rig.upstream.base_url("two"));
    let mut from_file = add("openai-responses", "two", &base_url, &["--secret-file", file.to_str().unwrap()]);
    assert!(from_file.stdout(Stdio::null()).status().unwrap().success());
    std::fs::remove_file(file).unwrap();
    let mut from_stdin = add("gemini-api", "three", &rig.upstream.base_url("three"), &["--secret-stdin"]);
    let mut child = from_stdin.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(format!("{SECRET}-3\n").as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

#[tokio::test]
async fn secrets_are_used_and_never_shown() {
    let rig = Rig::bare(Setup::default()).await;
    add_three(&rig);
    rig.client.call(&Call::new(Protocol::Messages, "fast")).await.expect(200);
    rig.client.call(&Call::new(Protocol::Responses, "m")).await.expect(200);
    rig.client.call(&Call::new(Protocol::GenerateContent, "m")).await.expect(200);
    let seen = rig.upstream.take_seen();
    assert_eq!((seen[0].model().as_str(), seen[0].header("x-api-key")), ("claude-haiku", Some(SECRET)));
    assert_eq!(seen[0].header("x-team"), Some("secret-team"));
    assert_eq!(seen[1].header("authorization"), Some(format!("Bearer {SECRET}-2").as_str()));
    assert_eq!(seen[2].header("x-goog-api-key"), Some(format!("{SECRET}-3").as_str()));

    let data = rig.daemon.data();
    for args in
        [&["account", "list"][..], &["account", "show", "one"], &["status"], &["audit"], &["config", "show"]]
    {
        for format in ["json", "table"] {
            let printed = run(data, &[args, &["--output", format]].concat());
            assert!(!printed.contains(SECRET) && !printed.contains("secret-team"), "{args:?}: {printed}");
        }
    }
    assert!(!rig.daemon.output().contains(SECRET), "a secret is in the log");
    assert!(!rig.daemon.output().contains(&rig.key), "a key is in the log");
}

#[tokio::test]
async fn accounts_are_managed() {
    let rig = Rig::bare(Setup::default()).await;
    let data = rig.daemon.data();
    add_three(&rig);
    rig.client.call(&Call::new(Protocol::Messages, "fast")).await.expect(200);
    run(data, &["account", "pause", "one"]);
    assert_eq!(json(data, &["account", "show", "one"])["health"]["state"], "paused");
    run(data, &["account", "resume", "one"]);
    assert_eq!(json(data, &["account", "update", "one", "--priority", "7"])["priority"], 7);
    run(data, &["key", "update", "everything", "--account", "one"]);
    assert!(refused(data, &["account", "remove", "one", "--yes"]).contains("everything"));
    run(data, &["account", "remove", "one", "--yes", "--force"]);
    run(data, &["account", "remove", "two", "--yes"]);
    assert_eq!(json(data, &["account", "list"]).as_array().unwrap().len(), 1);
    // The usage of what is gone stays.
    rig.daemon.settled().await;
    let rows = json(data, &["usage", "--by", "account"]);
    assert!(rows.as_array().unwrap().iter().any(|row| row["name"] == "one"), "{rows}");
    let of_one = ["usage", "--by", "model", "--account", "one"];
    assert_eq!(json(data, &of_one)[0]["requests"], 1);
    assert_eq!(json(data, &["requests", "--account", "one"]).as_array().unwrap().len(), 1);
    // The name is free again, and stands for the new account then.
    add_account(&rig, "claude-console", "one", &[]);
    assert_eq!(json(data, &of_one), json!([]));
    run(data, &["account", "remove", "one", "--yes"]);
    run(data, &["key", "delete", "everything", "--yes"]);
    assert_eq!(json(data, &["usage", "--by", "account", "--key", "everything"])[0]["requests"], 1);
    refused(
        data,
        &["account", "add", "claude-console", "--name", "three", "--base-url", "http://127.0.0.1:9"],
    );
    refused(data, &["account", "add", "no-such-kind", "--name", "four"]);
}

#[tokio::test]
async fn usage_of_what_never_was_is_an_error_that_names_what_is_near() {
    let rig = Rig::start().await;
    let data = rig.daemon.data();
    let made = json(data, &["key", "create", "alice"]);
    run(data, &["key", "delete", "alice", "--yes"]);
    let removed = rig.add(AccountKind::ClaudeConsole, "spare").await;
    run(data, &["account", "remove", "spare", "--yes"]);
    for command in ["usage", "requests"] {
        for (flag, name, told) in [
            ("--key", "everythin", "there is no key \"everythin\"; did you mean \"everything\"?\n"),
            ("--key", "alcie", "there is no key \"alcie\"; did you mean \"alice\"?\n"),
            ("--key", "nosuch", "there is no key \"nosuch\"\nhint: `relayctl key list` shows all keys\n"),
            ("--account", "claud", "there is no account \"claud\"; did you mean \"claude\"?\n"),
            ("--account", "spar", "there is no account \"spar\"; did you mean \"spare\"?\n"),
            (
                "--account",
                "acc_1",
                "there is no account \"acc_1\"\nhint: `relayctl account list` shows all accounts\n",
            ),
        ] {
            let output = outcome(data, &[command, flag, name]);
            assert_eq!(output, (Some(1), String::new(), format!("relayctl: {told}")), "{command} {flag}");
        }
        // What is gone is known, by name and by id, and so is the lack of any usage.
        for (flag, known) in [
            ("--key", "alice"),
            ("--key", made["id"].as_str().unwrap()),
            ("--account", "spare"),
            ("--account", removed.id.as_str()),
        ] {
            assert_eq!(json(data, &[command, flag, known]), json!([]), "{command} {flag} {known}");
        }
    }
    assert_eq!(json(data, &["usage", "--model", "nosuch"]), json!([]));
    // The present is asked about what is there now.
    assert!(refused(data, &["key", "show", "everythin"]).contains("did you mean \"everything\"?"));
    assert!(!refused(data, &["account", "show", "spar"]).contains("did you mean"));
}

#[tokio::test]
async fn accounts_are_tested() {
    let rig = Rig::start().await;
    let data = rig.daemon.data();
    let report = json(data, &["account", "test", "claude", "--model", "m"]);
    assert_eq!((&report["ok"], &report["status"]), (&json!(true), &json!(200)));
    rig.upstream.script(|seen| crate::support::Reply::error(seen.protocol(), 401, &[]));
    let output =
        command(data, &["account", "test", "claude", "--model", "m", "--output", "json"]).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["ok"], &report["status"]), (&json!(false), &json!(401)));
}

#[tokio::test]
async fn prices_are_shown_updated_and_set() {
    let rig = Rig::start().await;
    let data = rig.daemon.data();
    let built_in = json(data, &["pricing", "show"]);
    let built_in = built_in.as_array().unwrap();
    assert!(built_in.len() >= 20 && built_in.iter().all(|price| price["source"] == "built_in"));

    let file = data.join("prices.json");
    let list = json!({
        "listed-model": {"input_cost_per_token": 2e-6, "output_cost_per_token": 1e-5, "mode": "chat"},
    });
    std::fs::write(&file, list.to_string()).unwrap();
    let path = file.to_str().unwrap();
    let dry = json(data, &["pricing", "update", "--file", path, "--dry-run"]);
    assert_eq!(dry["added"], 1, "{dry}");
    assert_eq!(json(data, &["pricing", "show", "listed-model"]), json!([]));
    json(data, &["pricing", "update", "--file", path]);
    let listed = json(data, &["pricing", "show", "listed-model"]);
    assert_eq!(
        (&listed[0]["source"], &listed[0]["prices"]["input"]),
        (&json!("file"), &json!("2.00")),
        "{listed}"
    );

    run(data, &["pricing", "set", "listed-model", "input=1", "output=4"]);
    let set = json(data, &["pricing", "show", "listed-model"]);
    assert_eq!((&set[0]["source"], &set[0]["prices"]["input"]), (&json!("set"), &json!("1.00")));

    // A file that is no price list changes nothing.
    for broken in ["", "[]", "{\"m\":", "{\"m\": {\"input_cost_per_token\": -1}}"] {
        std::fs::write(&file, broken).unwrap();
        let before = json(data, &["pricing", "show"]);
        let _ = command(data, &["pricing", "update", "--file", path]).output().unwrap();
        if broken.starts_with("{\"m\": ") {
            continue;
        }
        refused(data, &["pricing", "update", "--file", path]);
        assert_eq!(json(data, &["pricing", "show"]), before);
    }
}

#[tokio::test]
async fn prices_set_by_hand_are_merged_and_taken_back() {
    let mut rig = Rig::start().await;
    let data = rig.daemon.data().to_owned();
    let set = |prices: &[&str]| json(&data, &[&["pricing", "set", "claude-haiku-4-5"], prices].concat());
    let shown = || json(&data, &["pricing", "show", "claude-haiku-4-5"])[0].clone();
    let built_in = shown();
    assert_eq!(built_in["source"], "built_in");
    // The list's prices are not mixed with those set by hand.
    assert_eq!(set(&["input=3", "cache_read=0.3"])["prices"], json!({"cache_read": "0.30", "input": "3.00"}));
    let merged = json!({"cache_read": "0.30", "input": "2.00", "output": "15.00"});
    assert_eq!(set(&["output=15", "input=$2"])["prices"], merged);
    let dropped = json!({"input": "2.00", "output": "15.00"});
    assert_eq!(set(&["cache-read=none", "web_searches=none"])["prices"], dropped);
    assert_eq!(shown()["prices"], dropped);
    let told = refused(&data, &["pricing", "set", "claude-haiku-4-5", "input=none", "output=none"]);
    assert!(told.contains("`relayctl pricing unset claude-haiku-4-5`"), "{told}");
    assert_eq!(shown()["prices"], dropped, "what is refused changes nothing");
    let printed = run(&data, &["pricing", "set", "claude-haiku-4-5", "output=16"]);
    assert!(printed.contains("output  16.00") && printed.contains("input   2.00"), "{printed}");

    let list = data.join("prices.json");
    std::fs::write(&list, json!({"x": {"input_cost_per_token": 1e-6, "mode": "chat"}}).to_string()).unwrap();
    let update = ["pricing", "update", "--dry-run", "--file", list.to_str().unwrap()];
    let version = || json(&data, &update)["version"].as_u64().unwrap();
    let before = version();
    let told = refused(&data, &["pricing", "unset", "claude-haiku-4-5"]);
    assert!(told.contains("--yes"), "{told}");
    let unset = json(&data, &["pricing", "unset", "claude-haiku-4-5", "--yes"]);
    assert_eq!((&unset["model"], &unset["now"]), (&json!("claude-haiku-4-5"), &built_in));
    assert_eq!(shown(), built_in);
    assert!(version() > before, "a version of the prices would come again");
    let entries = json(&data, &["audit", "--limit", "1"]);
    assert_eq!(
        (&entries[0]["action"], &entries[0]["name"]),
        (&json!("prices.unset"), &json!("claude-haiku-4-5"))
    );

    run(&data, &["pricing", "set", "of-my-own", "input=1"]);
    let told = refused(&data, &["pricing", "unset", "of-my-on", "--yes"]);
    assert!(told.contains("no price is set by hand for \"of-my-on\"; did you mean \"of-my-own\"?"), "{told}");
    let printed = run(&data, &["pricing", "unset", "of-my-own", "--yes"]);
    assert_eq!(printed, "the price of of-my-own that was set by hand is taken back; it has no price now\n");
    assert_eq!(json(&data, &["pricing", "show", "of-my-own"]), json!([]));
    assert!(refused(&data, &["pricing", "unset", "of-my-own", "--yes"]).contains("of-my-own"));

    // What was taken back is gone after a restart too, and a price set anew begins with nothing.
    rig.daemon.terminate();
    assert!(rig.daemon.ended().await.success());
    rig.start_again().await;
    assert_eq!(shown(), built_in);
    assert_eq!(set(&["output=5"])["prices"], json!({"output": "5.00"}));
}

#[tokio::test]
async fn every_change_is_one_audit_entry() {
    let rig = Rig::bare(Setup::default()).await;
    let data = rig.daemon.data();
    let count = || json(data, &["audit", "--limit", "1000"]).as_array().unwrap().len();
    let before = count();
    add_account(&rig, "claude-console", "audited", &[]);
    for args in [
        &["key", "create", "audited"][..],
        &["key", "disable", "audited"],
        &["key", "update", "audited", "--owner", "me"],
        &["account", "pause", "audited"],
        &["pricing", "set", "m", "input=1"],
        &["pricing", "unset", "m", "--yes"],
        &["key", "delete", "audited", "--yes"],
        &["account", "remove", "audited", "--yes"],
    ] {
        run(data, args);
    }
    for args in [&["key", "list"][..], &["status"], &["explain", "--key", "everything", "--model", "m"]] {
        run(data, args);
    }
    refused(data, &["key", "disable", "nobody"]);
    refused(data, &["pricing", "unset", "m", "--yes"]);
    assert_eq!(count() - before, 9);
    let entries = json(data, &["audit"]);
    let newest = &entries[0];
    assert_eq!(
        (&newest["name"], &newest["uid"]),
        (&json!("audited"), &json!(rustix::process::getuid().as_raw()))
    );
    assert!(newest["action"].as_str().unwrap().starts_with("account."), "{newest}");
    let owner =
        entries.as_array().unwrap().iter().find(|entry| entry["fields"].to_string().contains("owner"));
    assert_eq!(owner.expect("no entry names the field")["action"], "key.update");
}

#[tokio::test]
async fn files_are_for_their_owner_alone() {
    let rig = Rig::start().await;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&rig.daemon.socket()), 0o600);
    for entry in std::fs::read_dir(rig.daemon.data()).unwrap() {
        let path = entry.unwrap().path();
        let is_ours = path.file_name().is_some_and(|name| name != "stderr.log");
        if is_ours && path.is_file() {
            assert_eq!(mode(&path) & 0o077, 0, "{}", path.display());
            let bytes = std::fs::read(&path).unwrap();
            for secret in [rig.key.as_bytes(), b"sk-ant-upstream-claude"] {
                assert!(!bytes.windows(secret.len()).any(|window| window == secret), "{}", path.display());
            }
        }
    }
}

#[test]
fn without_a_daemon_it_says_what_to_do() {
    let folder = crate::support::daemon::temporary_folder();
    let said = refused(folder.path(), &["status"]);
    assert!(said.contains("relayd"), "{said}");
}

#[tokio::test]
async fn limits_that_keys_share_are_set_shown_and_cleared() {
    let rig = Rig::bare(Setup::default()).await;
    let data = rig.daemon.data();
    json(data, &["key", "create", "one", "--owner", "Alice"]);
    let set = json(data, &["limit", "set", "--owner", "Alice", "--limit", "$20 per week from Sunday"]);
    assert_eq!((&set["holder"]["owner"], &set["keys"]), (&json!("Alice"), &json!(1)));
    json(data, &["limit", "set", "--all", "--limit", "100 concurrent"]);
    let list = json(data, &["limit", "list"]);
    let texts: Vec<_> = list.as_array().unwrap().iter().map(|view| &view["limits"][0]["limit"]).collect();
    assert_eq!(texts, ["$20 per week from Sunday", "100 concurrent"]);
    assert!(refused(data, &["limit", "set", "--all", "--limit", "5 per day"]).contains("written like"));
    json(data, &["limit", "clear", "--owner", "Alice", "--yes"]);
    assert_eq!(json(data, &["limit", "list"]).as_array().unwrap().len(), 1, "those of all stay");
    let actions = json(data, &["audit"]);
    let actions: Vec<_> = actions.as_array().unwrap().iter().map(|entry| &entry["action"]).collect();
    assert_eq!(actions[..3], ["limits.clear", "limits.set", "limits.set"]);
    assert!(json(data, &["events"]).as_array().unwrap().is_empty());
}
