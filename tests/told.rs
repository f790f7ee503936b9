//! What operators and the holders of keys are told: figures with their units, failures that did not count, models
//! that can be had.

use serde_json::{Value, json};
use shared::admin::{AddAccount, CreateKey, SetPrice};
use shared::domain::{AccountKind, Family, Protocol};

use crate::support::control::{json as told, outcome, run};
use crate::support::{Call, Reply, Rig, Setup, admin, answer, until};

const MODEL: &str = "told-model";

/// One account of the Messages API, and a price for the model.
async fn rig() -> Rig {
    let rig = Rig::bare(Setup::default()).await;
    rig.add(AccountKind::ClaudeConsole, "claude").await;
    let prices =
        [("input", "3"), ("output", "15")].map(|(class, usd)| (class.to_owned(), Some(usd.to_owned())));
    rig.daemon.call(&SetPrice { model: MODEL.to_owned(), prices: prices.into_iter().collect() }).await;
    rig
}

fn limits(texts: &[&str]) -> Vec<shared::domain::Limit> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[tokio::test]
async fn a_family_that_a_key_lacks_does_not_serve_it_not_even_the_simulator() {
    let rig = rig().await;
    let data = rig.daemon.data();
    rig.daemon.call(&admin::account(AccountKind::Simulator, "sim", "http://simulator")).await;
    let simulated = Call::new(Protocol::Messages, "sim-echo");
    for (permissions, status) in
        [(vec![Family::Claude], 403), (vec![Family::Claude, Family::Simulator], 200), (vec![], 200)]
    {
        let name = format!("key-{}", permissions.len());
        let client = rig.client_of(&CreateKey { permissions, ..admin::key(&name) }).await;
        client.call(&simulated).await.expect(status);
        let models = client.get("/v1/models").await.expect(200).text();
        assert_eq!(models.contains("sim-echo"), status == 200, "{models}");
    }
    let told = told(data, &["explain", "--key", "key-1", "--model", "sim-echo"]);
    assert!(told.to_string().contains("the key may not use this account"), "{told}");
}

#[tokio::test]
async fn clients_mistakes_are_not_counted_as_failures() {
    let rig = rig().await;
    let data = rig.daemon.data();
    rig.upstream.script(|seen| {
        let status = seen.model().rsplit_once('-').and_then(|(_, status)| status.parse().ok()).unwrap_or(200);
        if status < 300 { answer(seen) } else { Reply::error(seen.protocol(), status, &[]) }
    });
    for (status, end, failed) in [
        (200, "complete", 0),
        (400, "refused", 0),
        (404, "refused", 0),
        (413, "refused", 0),
        (422, "refused", 0),
        (500, "failed", 1),
        (429, "failed", 1),
    ] {
        let model = format!("m-{status}");
        rig.client.call(&Call::new(Protocol::Messages, &model)).await.expect(status);
        let row = rig.daemon.row(&model).await;
        assert_eq!((row.status, row.end.as_str()), (status, end));
        let sums = told(data, &["usage", "--by", "model", "--model", &model]);
        assert_eq!((&sums[0]["requests"], &sums[0]["failed"]), (&json!(1), &json!(failed)), "{model}");
        rig.resume("claude").await;
    }
}

#[tokio::test]
async fn rows_tell_names_and_the_prices_that_were_used() {
    let rig = rig().await;
    let data = rig.daemon.data();
    rig.client_of(&CreateKey {
        rates: [(Family::Claude, "1.5".parse().unwrap())].into(),
        ..admin::key("dear")
    })
    .await
    .call(&Call::new(Protocol::Messages, MODEL))
    .await
    .expect(200);
    let row = &told(data, &["requests", "--key", "dear"])[0];
    assert_eq!((&row["key_name"], &row["account_name"]), (&json!("dear"), &json!("claude")));
    assert_eq!(row["prices"]["output"], "15.00", "{row}");
    assert_eq!((&row["prices"]["input"], &row["multiplier"]), (&json!("3.00"), &json!("1.5")));
    assert!(row["price_version"].is_u64(), "{row}");
    // The names last as long as the row.
    run(data, &["account", "remove", "claude", "--yes"]);
    run(data, &["key", "delete", "dear", "--yes"]);
    let row = &told(data, &["requests", "--key", "dear"])[0];
    assert_eq!((&row["key_name"], &row["account_name"]), (&json!("dear"), &json!("claude")));
}

#[tokio::test]
async fn calls_that_no_account_was_asked_for_have_no_row() {
    let rig = rig().await;
    let data = rig.daemon.data();
    let id = |answer: &crate::support::Answer| answer.header("x-relay-request-id").unwrap().to_owned();
    let served = id(&rig.client.call(&Call::new(Protocol::Messages, MODEL)).await.expect(200));
    assert_eq!(told(data, &["requests", "--id", &served])[0]["id"], served);
    let refused = id(&rig.client.call(&Call::new(Protocol::Responses, MODEL)).await.expect(400));
    let (code, out, err) = outcome(data, &["requests", "--id", &refused]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(err.starts_with(&format!("relayctl: there is no row of {refused}")), "{err}");
}

#[tokio::test]
async fn money_is_told_in_dollars_everywhere() {
    let rig = rig().await;
    let data = rig.daemon.data();
    let limits = limits(&["$0.0001 per day", "1000 tokens per day"]);
    let client = rig.client_of(&CreateKey { limits, owner: Some("Al".to_owned()), ..admin::key("al") }).await;
    run(data, &["limit", "set", "--owner", "Al", "--limit", "$20 per day"]);
    client.call(&Call::new(Protocol::Messages, MODEL)).await.expect(200);
    rig.daemon.settled().await;
    let row = told(data, &["requests", "--key", "al"]);
    let cost = row[0]["cost"].as_str().unwrap();
    let key = told(data, &["key", "show", "al"]);
    assert_eq!(
        (&key["limits"][0]["used"], &key["limits"][0]["held"]),
        (&json!(cost), &json!("0.00")),
        "{key}"
    );
    assert!(key["limits"][1]["used"].is_u64(), "{key}");
    assert_eq!(told(data, &["limit", "list"])[0]["limits"][0]["used"], cost);
    let event = until("the limit is used up", async || {
        told(data, &["events"]).as_array().and_then(|events| events.first().cloned())
    });
    assert_eq!(event.await["used"], cost);
    let line = format!("used=${cost}");
    until("the log has it", async || rig.daemon.output().contains(&line).then_some(())).await;
}

#[tokio::test]
async fn holders_of_keys_see_the_limit_of_tokens_that_is_nearest() {
    let rig = rig().await;
    let free = rig.client.get("/v1/key-info").await.json();
    assert_eq!(free["keyInfo"]["tokenLimit"], 0, "{free}");
    let limits = limits(&["1m tokens per day", "500k tokens per week", "60 requests per minute"]);
    let client = rig.client_of(&CreateKey { limits, ..admin::key("limited") }).await;
    client.call(&Call::new(Protocol::Messages, MODEL)).await.expect(200);
    rig.daemon.settled().await;
    let key_info = client.get("/v1/key-info").await.json();
    assert_eq!(key_info["keyInfo"]["tokenLimit"], 500_000, "{key_info}");
    let short = client.get("/openai/key-info").await.json();
    let used = short["tokens_used"].as_u64().unwrap();
    assert!(used > 0, "{short}");
    assert_eq!(
        (&short["token_limit"], &short["tokens_remaining"]),
        (&json!(500_000), &json!(500_000 - used))
    );
    let unlimited = rig.client.get("/gemini/key-info").await.json();
    assert_eq!((&unlimited["token_limit"], &unlimited["tokens_remaining"]), (&json!(0), &Value::Null));
}

#[tokio::test]
async fn azures_list_has_the_models_that_its_path_leads_to() {
    let rig = Rig::bare(Setup::default()).await;
    for (kind, name, model) in
        [(AccountKind::OpenaiResponses, "openai", "theirs"), (AccountKind::AzureOpenai, "azure", "deployed")]
    {
        rig.daemon.call(&AddAccount { models: vec![model.into()], ..rig.account(kind, name) }).await;
    }
    let ids = async |path: &str| {
        let list = rig.client.get(path).await.expect(200).json();
        let ids =
            list["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap().to_owned());
        ids.collect::<Vec<_>>()
    };
    assert_eq!(ids("/azure/models").await, ["deployed"]);
    assert_eq!(ids("/openai/models").await, ["deployed", "theirs"]);
    rig.client.get("/azure/openai/models/deployed").await.expect(200);
    rig.client.get("/azure/openai/models/theirs").await.expect(404);
    let chat = json!({"messages": []}).to_string();
    rig.client.post("/azure/deployments/theirs/chat/completions", chat).await.expect(404);
}

/// The path of Azure's SDK names the model, which accounts of other kinds read from the body.
#[tokio::test]
async fn a_model_that_the_path_names_reaches_accounts_that_read_the_body() {
    let rig = Rig::bare(Setup::default()).await;
    for (kind, name, model) in
        [(AccountKind::OpenaiResponses, "openai", "theirs"), (AccountKind::AzureOpenai, "azure", "deployed")]
    {
        let model_map = [(model.to_owned(), format!("{model}-there"))].into();
        let account = rig.account(kind, name);
        rig.daemon.call(&AddAccount { models: vec![model.into()], model_map, ..account }).await;
    }
    rig.daemon.call(&admin::account(AccountKind::Simulator, "sim", "http://simulator")).await;
    for (model, body, sent) in [
        ("theirs", r#"{"messages":[]}"#, r#"{"model":"theirs-there","messages":[]}"#),
        ("theirs", "{}", r#"{"model":"theirs-there"}"#),
        (
            "theirs",
            r#"{"stream":true,"messages":[]}"#,
            r#"{"model":"theirs-there","stream_options":{"include_usage":true},"stream":true,"messages":[]}"#,
        ),
        ("theirs", r#"{"model":"x","messages":[]}"#, r#"{"model":"theirs-there","messages":[]}"#),
        ("deployed", r#"{"messages":[]}"#, r#"{"messages":[]}"#),
    ] {
        let path = format!("/openai/deployments/{model}/chat/completions");
        rig.client.post(&path, body).await.expect(200);
        let seen = rig.upstream.take_seen();
        assert_eq!(String::from_utf8_lossy(&seen[0].body), sent);
    }
    rig.client.post("/openai/deployments/theirs/embeddings", r#"{"input":"hi"}"#).await.expect(200);
    let seen = rig.upstream.take_seen();
    assert_eq!(String::from_utf8_lossy(&seen[0].body), r#"{"model":"theirs-there","input":"hi"}"#);
    let chat = json!({"messages": [{"role": "user", "content": "hello"}]}).to_string();
    let answer = rig.client.post("/openai/deployments/sim-echo/chat/completions", chat).await.expect(200);
    assert!(answer.text().contains("The simulator heard: hello"), "{}", answer.text());
}

#[tokio::test]
async fn a_failure_that_did_not_count_is_told_with_its_status() {
    let rig = rig().await;
    let data = rig.daemon.data();
    rig.upstream.script(|seen| Reply::error(seen.protocol(), 403, &[]));
    rig.client.call(&Call::new(Protocol::Messages, MODEL)).await.expect(503);
    let account = told(data, &["account", "show", "claude"]);
    let health = &account["health"];
    assert_eq!((&health["state"], &health["until"]), (&json!("ok"), &Value::Null));
    assert_eq!(health["last_failure"]["status"], 403, "{health}");
    assert_eq!(health["last_failure"]["cause"], "it answered 403");
    assert!(health["last_failure"]["at"].is_string(), "{health}");
    let list = run(data, &["account", "list"]);
    assert!(list.contains("LAST FAILURE") && list.contains("403, "), "{list}");
    let id = account["id"].as_str().unwrap();
    let log = rig.daemon.output();
    let line = log.lines().find(|line| line.contains("account failed")).expect("no line in the log");
    assert!(line.contains(id) && line.contains("name=\"claude\"") && line.contains("status=403"), "{line}");
    rig.resume("claude").await;
    let account = told(data, &["account", "show", "claude"]);
    assert_eq!(account["health"]["last_failure"], Value::Null);
}

/// A removed account keeps its name where keys are bound to it.
#[tokio::test]
async fn keys_tell_by_name_what_they_are_bound_to() {
    let rig = rig().await;
    let data = rig.daemon.data();
    rig.add(AccountKind::ClaudeConsole, "second").await;
    let accounts = vec!["claude".to_owned(), "second".to_owned()];
    rig.client_of(&CreateKey { accounts, ..admin::key("bound") }).await;
    assert!(outcome(data, &["account", "remove", "second", "--yes"]).2.contains("bound to no other"));
    run(data, &["account", "remove", "second", "--force", "--yes"]);
    for printed in [run(data, &["key", "show", "bound"]), run(data, &["key", "list"])] {
        assert!(printed.contains("claude, second (removed)") && !printed.contains("acc_"), "{printed}");
    }
    let bound = &told(data, &["key", "show", "bound"])["bound"];
    assert_eq!((&bound[1]["name"], &bound[1]["removed"]), (&json!("second"), &json!(true)));
}

#[tokio::test]
async fn a_key_tells_when_it_was_last_used_and_when_it_was_deleted() {
    let rig = rig().await;
    let data = rig.daemon.data();
    let client = rig.client_of(&admin::key("watched")).await;
    assert!(run(data, &["key", "show", "watched"]).contains("last used      never"));
    client.call(&Call::new(Protocol::Messages, MODEL)).await.expect(200);
    let key = told(data, &["key", "show", "watched"]);
    let row = rig.daemon.row(MODEL).await;
    assert_eq!(key["last_used_at"], json!(row.opened_at), "{key}");
    assert_eq!(key["deleted_at"], Value::Null);
    run(data, &["key", "delete", "watched", "--yes"]);
    let keys = told(data, &["key", "list", "--deleted"]);
    let deleted = keys.as_array().unwrap().iter().find(|key| key["name"] == "watched").unwrap();
    assert!(deleted["deleted_at"].is_string(), "{deleted}");
    assert!(run(data, &["key", "list", "--deleted"]).contains("DELETED"));
}

/// What is open holds a stop up, which says so.
#[tokio::test]
async fn a_stop_says_what_it_waits_for() {
    let mut rig = rig().await;
    let gate = crate::support::Gate::closed();
    let held = gate.clone();
    rig.upstream.script(move |seen| answer(seen).after(crate::support::Step::Wait(held.clone())));
    let call = rig.client.clone();
    let open = tokio::spawn(async move { call.call(&Call::new(Protocol::Messages, MODEL)).await });
    until("the call is open", async || (rig.daemon.status().await.in_flight == 1).then_some(())).await;
    let mut stop = crate::support::control::command(rig.daemon.data(), &["--yes", "stop"]);
    let mut stop =
        stop.stderr(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut told = std::io::BufReader::new(stop.stderr.take().unwrap());
    let line = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut told, &mut line).unwrap();
        line
    });
    let line = line.await.unwrap();
    assert!(line.starts_with("waiting for 1 open call to end, 60 seconds at most"), "{line}");
    gate.open();
    open.await.unwrap().expect(200);
    assert!(rig.daemon.ended().await.success());
    assert!(stop.wait().unwrap().success());
}

#[tokio::test]
async fn what_has_no_effect_and_credentials_in_headers_are_refused() {
    let rig = Rig::bare(Setup::default()).await;
    let data = rig.daemon.data();
    let add = |more: &[&str]| {
        let args = [&["account", "add"], more].concat();
        let output =
            crate::support::control::command(data, &args).env("THE_SECRET", "sk-1").output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let secret = ["--secret-env", "THE_SECRET"];
    for (args, more, message) in [
        (&["simulator", "--name", "s"][..], &secret[..], "an account of kind simulator has no credential"),
        (
            &["simulator", "--name", "s", "--base-url", "http://x"],
            &[],
            "an account of kind simulator has no base URL",
        ),
        (
            &["claude-console", "--name", "c", "--api-version", "2024-10-21"],
            &secret,
            "an account of kind claude-console has no api-version",
        ),
        (
            &["claude-console", "--name", "c", "--header", "Authorization: Bearer x"],
            &secret,
            "the header \"authorization\" carries a credential",
        ),
    ] {
        let (code, err) = add(&[args, more].concat());
        assert_eq!(code, Some(2), "{args:?}: {err}");
        assert!(err.starts_with(&format!("relayctl: {message}")), "{args:?}: {err}");
    }
    assert!(
        add(&[&["ccr", "--name", "c", "--base-url", "http://x", "--header", "cookie: a"], &secret[..]]
            .concat())
        .1
        .contains("hint: give it as the account's secret")
    );
    assert_eq!(told(data, &["account", "list"]), json!([]));
}

#[tokio::test]
async fn a_broken_price_list_says_where_it_breaks_off() {
    let rig = Rig::bare(Setup::default()).await;
    let data = rig.daemon.data();
    let file = data.join("prices.json");
    std::fs::write(&file, "{\n  \"m\": {\"input_cost_per_token\": 1,}\n").unwrap();
    let (code, _, err) = outcome(data, &["pricing", "update", "--file", file.to_str().unwrap()]);
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("this one is none from line 2, column "), "{err}");
}
