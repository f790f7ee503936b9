//! Flags to calls, and accounts to tables.

use std::collections::BTreeMap;
use std::time::Duration;

use shared::admin::{AccountView, AddAccount, FailureView, HealthView};
use shared::domain::AccountKind;
use shared::domain::account::SimulatorSettings;

use super::flags::SimulatorArgs;
use super::view::record;
use super::*;
use crate::args::tests::parsed;
use crate::output::tests::{PIPE, fits};
use crate::prompt::Prompt;

fn command(words: &[&str]) -> Result<AccountCommand, clap::Error> {
    parsed(&[&["account"], words].concat())
}

fn call(words: &[&str]) -> Result<AddAccount, Failure> {
    let AccountCommand::Add(args) = command(words).unwrap() else { panic!() };
    args.call(&Prompt::of_nobody())
}

fn view() -> AccountView {
    AccountView {
        id: "acc_1".into(),
        name: "main".to_owned(),
        kind: AccountKind::ClaudeConsole,
        base_url: "https://example.test".to_owned(),
        has_secret: true,
        api_version: None,
        models: vec!["claude-*".into()],
        model_map: BTreeMap::from([("fast".to_owned(), "haiku".to_owned())]),
        price_as: None,
        priority: 50,
        weight: 1,
        headers: vec!["x-team".to_owned()],
        limits: Vec::new(),
        gap_ms: 500,
        simulator: None,
        health: HealthView {
            state: "limited".to_owned(),
            cause: Some("429".to_owned()),
            since: Some(PIPE.now),
            until: Some(PIPE.now.after(Duration::from_secs(120))),
            last_failure: Some(FailureView {
                at: PIPE.now,
                status: Some(403),
                cause: "it answered 403".to_owned(),
            }),
        },
        in_flight: 2,
        last_used_at: None,
        created_at: PIPE.now,
    }
}

#[test]
fn an_account_is_added_as_the_flags_say() {
    let added = call(&[
        "add",
        "simulator",
        "--name",
        "sim",
        "--latency-ms",
        "5",
        "--map",
        "fast=sim-echo",
        "--header",
        "X-Team: red",
        "--model",
        "sim-*",
        "--limit",
        "4 concurrent",
        "--gap",
        "2s",
        "--priority",
        "10",
    ])
    .unwrap();
    assert_eq!((added.kind, added.priority, added.base_url), (AccountKind::Simulator, Some(10), None));
    assert_eq!(added.gap_ms, 2_000);
    assert_eq!(added.model_map["fast"], "sim-echo");
    assert_eq!(added.headers["x-team"], "red");
    assert_eq!(added.simulator.unwrap(), SimulatorSettings { latency_ms: 5, ..Default::default() });
}

#[test]
fn what_is_missing_is_named_when_nobody_can_be_asked() {
    for (words, part) in [
        (["add"].as_slice(), "KIND is missing"),
        (&["add", "gemini-api"], "--name is missing"),
        (&["add", "ccr", "--name", "r"], "--base-url is missing"),
        (&["add", "gemini-api", "--name", "g"], "a credential is missing"),
    ] {
        let failure = call(words).unwrap_err();
        assert!(matches!(failure, Failure::Usage { .. }), "{words:?}: {failure}");
        assert!(failure.to_string().contains(part), "{words:?}: {failure}");
    }
}

#[test]
fn a_credential_as_an_argument_is_refused_with_advice() {
    for flag in [["--secret", "sk-verysecret"].as_slice(), &["--key=sk-verysecret"], &["--api-key"]] {
        let words = [&["add", "gemini-api", "--name", "g"], flag].concat();
        let error = command(&words).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("--secret-env") && !error.contains("sk-verysecret"), "{error}");
    }
}

#[test]
fn wrong_values_are_named() {
    for (words, part) in [
        (["add", "claude"].as_slice(), "claude-console"),
        (&["add", "ccr", "--map", "fast"], "a mapping is written like"),
        (&["add", "ccr", "--header", "no colon"], "a header is written like"),
        (&["add", "ccr", "--header", "bad name: x"], "a header is written like"),
        (&["add", "ccr", "--priority", "0"], "a whole number from 1 to 100"),
        (&["add", "ccr", "--gap", "soon"], "a wait is written like"),
        (&["add", "ccr", "--secret-stdin", "--secret-env", "X"], "cannot be used with"),
    ] {
        let error = command(words).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(part), "{words:?}: {error}");
    }
}

#[test]
fn an_update_changes_what_is_named_and_nothing_else() {
    let update = |words: &[&str]| match command(words).unwrap() {
        AccountCommand::Update(args) => args.call(None),
        other => panic!("{other:?}"),
    };
    let call = update(&["update", "main", "--weight", "3", "--clear", "models", "--clear", "gap"]).unwrap();
    let expected = UpdateAccount {
        account: "main".to_owned(),
        weight: Some(3),
        models: Some(Vec::new()),
        gap_ms: Some(0),
        ..UpdateAccount::default()
    };
    assert_eq!(call, expected);
    assert!(matches!(update(&["update", "main"]), Err(Failure::Usage { .. })));
}

#[test]
fn simulator_flags_change_only_what_they_name() {
    let old = SimulatorSettings { latency_ms: 1, chunks: 2, chunk_gap_ms: 3, error_percent: 4 };
    assert_eq!(SimulatorArgs::default().over(old), None);
    let flags = SimulatorArgs { chunks: Some(9), ..SimulatorArgs::default() };
    assert_eq!(flags.over(old), Some(SimulatorSettings { chunks: 9, ..old }));
}

#[test]
fn accounts_are_shown_with_what_ails_them() {
    let long = AccountView { name: "a-relay-in-another-house".to_owned(), ..view() };
    fits(|look| table(&[view(), long.clone()], look), &["a-relay-in-another-house", "limited"]);
    let text = table(&[view()], &PIPE);
    assert!(text.contains("limited") && text.contains("429, just now, tried again in 2 min"), "{text}");
    let text = record(&view(), &PIPE);
    assert!(text.contains("fast -> haiku") && text.contains("credential    stored"), "{text}");
    assert!(text.contains("gap           500ms"), "{text}");
}

#[test]
fn what_is_over_ails_no_account_and_is_told_all_the_same() {
    for state in ["ok", "paused"] {
        let mut well = view();
        well.health = HealthView { state: state.to_owned(), until: None, ..view().health };
        let text = table(std::slice::from_ref(&well), &PIPE);
        assert!(text.ends_with("never      403, just now  -") && !text.contains("429"), "{text}");
        let text = record(&well, &PIPE);
        assert!(
            text.contains(
                "why           -\nlast failure  it answered 403, 2026-11-18T11:06:40Z (just now)\n"
            ),
            "{text}"
        );
    }
    let mut new = view();
    new.health = HealthView { until: None, last_failure: None, ..view().health };
    assert!(record(&new, &PIPE).contains("last failure  -\n"));
}

#[test]
fn models_are_what_an_account_serves() {
    for (kind, models) in [
        (AccountKind::ClaudeConsole, "any that a client names, but sim-*"),
        (AccountKind::Ccr, "ccr,*"),
        (AccountKind::Simulator, "sim-*, and any for keys bound to it"),
    ] {
        let text = record(&AccountView { kind, models: Vec::new(), ..view() }, &PIPE);
        assert!(text.contains(&format!("models        {models}\n")), "{text}");
    }
}
