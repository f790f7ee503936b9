//! A dry run of the scheduler, as `relayctl explain` shows it.

use std::path::Path;

use serde_json::{Value, json};
use shared::domain::{AccountKind, Protocol};

use crate::support::admin::limited;
use crate::support::control::{add_account, json, refused, run};
use crate::support::{Call, Gate, Reply, Rig, Setup, Step, answer, until};

fn explained(data: &Path, key: &str, model: &str, more: &[&str]) -> Value {
    json(data, &[&["explain", "--key", key, "--model", model], more].concat())
}

/// Names of the accounts in the order that they are told in.
fn order(told: &Value) -> Vec<&str> {
    told["accounts"].as_array().unwrap().iter().map(|account| account["name"].as_str().unwrap()).collect()
}

fn reason<'a>(told: &'a Value, account: &str) -> &'a str {
    let mut accounts = told["accounts"].as_array().unwrap().iter();
    accounts.find(|told| told["name"] == account).unwrap()["reason"].as_str().unwrap()
}

#[tokio::test]
async fn explain_gives_a_reason_for_every_account() {
    let rig = Rig::start().await;
    let data = rig.daemon.data();
    rig.add(AccountKind::ClaudeConsole, "second").await;
    run(data, &["account", "pause", "second"]);
    let told = json(data, &["explain", "--key", "everything", "--model", "m", "--protocol", "messages"]);
    let accounts = told["accounts"].as_array().unwrap();
    assert_eq!(accounts.len(), 4);
    assert!(
        accounts.iter().all(|account| account["reason"].as_str().is_some_and(|reason| !reason.is_empty()))
    );
    let chosen: Vec<_> = accounts.iter().filter(|account| account["chosen"] == true).collect();
    assert_eq!(chosen.len(), 1);
    assert_eq!((&chosen[0]["name"], &told["chosen"]), (&json!("claude"), &chosen[0]["id"]));
    let paused = accounts.iter().find(|account| account["name"] == "second").unwrap();
    assert!(paused["reason"].as_str().unwrap().contains("paused"), "{paused}");
    assert_eq!(rig.upstream.count(), 0);
    refused(data, &["explain", "--key", "nobody", "--model", "m"]);
}

#[tokio::test]
async fn without_a_protocol_the_native_one_of_the_serving_account_is_assumed() {
    let rig = Rig::bare(Setup::default()).await;
    let data = rig.daemon.data();
    add_account(&rig, "claude-console", "claude", &["--model", "claude-*", "--model", "both"]);
    add_account(&rig, "azure-openai", "azure", &["--model", "gpt-*"]);
    add_account(
        &rig,
        "openai-responses",
        "openai",
        &["--model", "gpt-*", "--model", "both", "--priority", "7"],
    );
    add_account(&rig, "gemini-api", "gemini", &["--model", "gemini-*", "--model", "both"]);
    run(data, &["key", "create", "bound", "--account", "gemini"]);
    run(data, &["key", "create", "claude-only", "--permission", "claude"]);
    let openai = json!(["chat_completions", "responses"]);
    let all = json!(["messages", "chat_completions", "responses", "generate_content"]);
    for (key, model, protocol, served_in, chosen) in [
        ("everything", "claude-x", "messages", json!(["messages"]), Some("claude")),
        ("everything", "gpt-x", "responses", openai, Some("openai")),
        ("everything", "gemini-x", "generate_content", json!(["generate_content"]), Some("gemini")),
        ("everything", "both", "responses", all, Some("openai")),
        ("bound", "both", "generate_content", json!(["generate_content"]), Some("gemini")),
        ("claude-only", "both", "messages", json!(["messages"]), Some("claude")),
        // Nobody may serve it, so the protocol is that of the account that serves the model.
        ("claude-only", "gpt-x", "responses", json!([]), None),
        ("everything", "unheard-of", "messages", json!([]), None),
    ] {
        let told = explained(data, key, model, &[]);
        assert_eq!((&told["protocol"], &told["assumed"]), (&json!(protocol), &json!(true)), "{model}");
        assert_eq!(told["served_in"], served_in, "{model}");
        let first = &told["accounts"][0];
        let is_chosen = (first["chosen"] == true).then(|| first["name"].as_str().unwrap());
        assert_eq!(is_chosen, chosen, "{model}");
    }
    let named = explained(data, "everything", "claude-x", &["--protocol", "responses"]);
    assert_eq!((&named["assumed"], &named["chosen"]), (&json!(false), &Value::Null));
    assert_eq!(named["served_in"], json!(["messages"]));
    let printed = run(data, &["explain", "--key", "everything", "--model", "both"]);
    assert!(printed.starts_with("served by openai, asked in responses, which is assumed"), "{printed}");
}

/// A question about a model is not answered about another protocol because the accounts at home with it are down.
#[tokio::test]
async fn accounts_that_are_down_are_told_so_whatever_the_protocol() {
    let rig = Rig::start().await;
    let data = rig.daemon.data();
    rig.upstream.script(|seen| match seen.account.as_str() {
        "claude" => Reply::error(Protocol::Messages, 429, &[("retry-after", "500")]),
        _ => answer(seen),
    });
    rig.client.call(&Call::new(Protocol::Messages, "claude-x")).await.expect(429);
    let told = explained(data, "everything", "claude-x", &[]);
    assert_eq!((&told["protocol"], &told["assumed"]), (&json!("messages"), &json!(true)), "{told}");
    assert!(reason(&told, "claude").starts_with("limited until"), "{told}");
    assert_eq!(reason(&told, "openai"), "does not speak messages");
    assert_eq!(told["served_in"], json!(["chat_completions", "responses", "generate_content"]));
    let printed = run(data, &["explain", "--key", "everything", "--model", "claude-x"]);
    assert!(printed.starts_with("no account can serve it, asked in messages"), "{printed}");
    // Also where another protocol is asked about.
    let told = explained(data, "everything", "claude-x", &["--protocol", "responses"]);
    assert!(reason(&told, "claude").starts_with("does not speak responses; limited until"), "{told}");
    run(data, &["account", "pause", "claude"]);
    let told = explained(data, "everything", "claude-x", &["--protocol", "responses"]);
    assert_eq!(reason(&told, "claude"), "does not speak responses; paused");
    // Without them at all, the protocol is that of whoever would serve it.
    run(data, &["account", "remove", "claude", "--yes"]);
    let told = explained(data, "everything", "claude-x", &[]);
    assert_ne!(told["chosen"], Value::Null, "{told}");
}

#[tokio::test]
async fn accounts_are_told_in_the_order_of_their_turn() {
    let rig = Rig::bare(Setup::default()).await;
    let data = rig.daemon.data();
    // Resting, the later of the two first.
    for (name, wait) in [("resting-long", "500"), ("resting-short", "50")] {
        let name_scripted = name.to_owned();
        rig.upstream.script(move |seen| match seen.account == name_scripted {
            true => Reply::error(Protocol::Messages, 429, &[("retry-after", wait)]),
            false => answer(seen),
        });
        add_account(&rig, "claude-console", name, &["--priority", "1"]);
        add_account(&rig, "claude-console", &format!("spare-{name}"), &["--priority", "2"]);
        rig.client.call(&Call::new(Protocol::Messages, "m")).await.expect(200);
        run(data, &["account", "remove", &format!("spare-{name}"), "--yes"]);
    }
    add_account(&rig, "claude-console", "late", &["--priority", "90"]);
    add_account(&rig, "claude-console", "early", &["--priority", "20"]);
    add_account(&rig, "claude-console", "paused", &["--priority", "5"]);
    run(data, &["account", "pause", "paused"]);
    add_account(&rig, "claude-console", "middle", &["--priority", "30"]);
    add_account(&rig, "claude-console", "other-model", &["--model", "x", "--priority", "3"]);
    add_account(&rig, "gemini-api", "other-protocol", &["--priority", "4"]);
    add_account(&rig, "openai-responses", "other-protocol-too", &["--priority", "2"]);
    let told = explained(data, "everything", "m", &["--protocol", "messages"]);
    assert_eq!(
        order(&told),
        [
            "early",
            "middle",
            "late",
            "resting-short",
            "resting-long",
            "paused",
            "other-protocol-too",
            "other-protocol",
            "other-model",
        ]
    );
    assert!(reason(&told, "early").starts_with("chosen: priority 20"), "{told}");
    assert!(reason(&told, "middle").starts_with("could serve it, comes later: priority 30"), "{told}");
    assert!(reason(&told, "resting-long").starts_with("limited until"), "{told}");
}

#[tokio::test]
async fn a_refused_key_is_served_by_nobody() {
    let rig = Rig::start().await;
    let data = rig.daemon.data();
    run(data, &["key", "create", "disabled"]);
    run(data, &["key", "disable", "disabled"]);
    run(data, &["key", "create", "denied", "--deny-model", "m"]);
    let deleted = json(data, &["key", "create", "deleted"])["id"].as_str().unwrap().to_owned();
    run(data, &["key", "delete", "deleted", "--yes"]);
    run(data, &["account", "pause", "claude"]);
    rig.add(AccountKind::ClaudeConsole, "second").await;
    for (key, refused) in [
        ("disabled", "the key is disabled"),
        ("denied", "the key's model lists exclude this model"),
        (&deleted, "the key is deleted"),
    ] {
        let told = explained(data, key, "m", &["--protocol", "messages"]);
        assert_eq!((&told["refused"], &told["chosen"]), (&json!(refused), &Value::Null));
        assert_eq!(told["served_in"], json!([]), "{key}");
        assert_eq!(reason(&told, "claude"), "paused");
        assert!(reason(&told, "second").starts_with("not asked, as the key is refused"), "{told}");
        let printed = run(data, &["explain", "--key", key, "--model", "m"]);
        assert!(printed.starts_with(&format!("refused: {refused}\n")), "{printed}");
        for word in ["could", "chosen", "served by"] {
            assert!(!printed.contains(word), "{word}: {printed}");
        }
    }
}

#[tokio::test]
async fn limits_without_room_are_told_of_keys_and_accounts() {
    let rig = Rig::bare(Setup::default()).await;
    let data = rig.daemon.data();
    add_account(&rig, "claude-console", "spent", &["--priority", "1", "--limit", "1 request per hour"]);
    add_account(&rig, "claude-console", "busy", &["--priority", "2", "--limit", "1 concurrent on m"]);
    add_account(&rig, "claude-console", "free", &["--priority", "3"]);
    let gate = Gate::closed();
    let held = gate.clone();
    rig.upstream.script(move |seen| match seen.account.as_str() {
        "busy" => answer(seen).after(Step::Wait(held.clone())),
        _ => answer(seen),
    });
    let call = Call::new(Protocol::Messages, "m");
    let key = rig.client_of(&limited("frugal", &["1 request per hour on m"])).await;
    key.call(&call).await.expect(200);
    let client = rig.client.clone();
    let open = tokio::spawn(async move { client.call(&Call::new(Protocol::Messages, "m")).await });
    until("a call is open", async || (rig.upstream.answering() == 1).then_some(())).await;

    let told = explained(data, "everything", "m", &["--protocol", "messages"]);
    assert_eq!(order(&told), ["free", "spent", "busy"]);
    assert!(reason(&told, "free").starts_with("chosen"), "{told}");
    assert!(
        reason(&told, "spent").starts_with("no room: this account may have 1 request per hour"),
        "{told}"
    );
    assert!(reason(&told, "busy").starts_with("no room: this account may have 1 concurrent on m"), "{told}");
    assert_eq!(told["served_in"], json!(["messages"]));
    let other = explained(data, "everything", "other", &["--protocol", "messages"]);
    assert_eq!(order(&other), ["busy", "free", "spent"], "its limit is for another model");

    let told = explained(data, "frugal", "m", &["--protocol", "messages"]);
    let refused = told["refused"].as_str().unwrap();
    assert!(refused.starts_with("this key may have 1 request per hour on m; 1 is "), "{told}");
    assert_eq!((&told["chosen"], &told["served_in"]), (&Value::Null, &json!([])));
    assert_eq!(explained(data, "frugal", "other", &["--protocol", "messages"])["refused"], Value::Null);
    gate.open();
    open.await.unwrap().expect(200);
}
