use std::collections::BTreeMap;
use std::time::Duration;

use shared::crypto::Pepper;
use shared::domain::key::UsageMode;
use shared::redact::Secret;

use super::health::{Cooldowns, Outcome};
use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_000_000);
const DELAY_MAX: Duration = Duration::from_secs(30);

fn key() -> ApiKey {
    ApiKey {
        id: "key_1".into(),
        name: "alice".to_owned(),
        digest: Pepper::new(&Secret::new("p")).digest("cr_1"),
        pepper_id: "1".to_owned(),
        hint: String::new(),
        owner: None,
        permissions: Vec::new(),
        allow_models: Vec::new(),
        deny_models: Vec::new(),
        accounts: Vec::new(),
        limits: Vec::new(),
        queue: None,
        on_disconnect: None,
        rates: BTreeMap::new(),
        usage: UsageMode::default(),
        expires_at: None,
        valid_s_from_first_use: None,
        disabled: false,
        deleted_at: None,
        created_at: NOW,
        unknown: BTreeMap::new(),
    }
}

fn account(id: &str, kind: AccountKind) -> Account {
    Account {
        id: id.into(),
        name: id.to_owned(),
        kind,
        base_url: String::new(),
        secret: None,
        api_version: None,
        models: Vec::new(),
        model_map: BTreeMap::new(),
        price_as: None,
        priority: 50,
        weight: 1,
        paused: false,
        headers: BTreeMap::new(),
        limits: Vec::new(),
        gap_ms: 0,
        simulator: None,
        created_at: NOW,
        removed_at: None,
        unknown: BTreeMap::new(),
    }
}

fn seen(account: &Account) -> Candidate<'_> {
    Candidate {
        account,
        speaks: true,
        passed: None,
        health: Health::default(),
        delay: Duration::ZERO,
        in_flight: 0,
        last_used: Timestamp::from_millis(0),
    }
}

fn delayed(seconds: u64, account: &Account) -> Candidate<'_> {
    Candidate { delay: Duration::from_secs(seconds), ..seen(account) }
}

fn ask<'a>(key: &'a ApiKey, model: &'a str) -> Ask<'a> {
    Ask {
        key,
        model,
        protocol: Protocol::Messages,
        only: None,
        affinity: None,
        delay_max: DELAY_MAX,
        now: NOW,
    }
}

fn limited(seconds: u64) -> Health {
    let until = NOW.after(Duration::from_secs(seconds));
    Health::default().after(
        &Outcome::Limited { until: Some(until), is_models: false },
        NOW,
        &Cooldowns::default(),
    )
}

#[test]
fn the_order_is_affinity_priority_load_last_use() {
    let (a, b) = (account("a", AccountKind::ClaudeConsole), account("b", AccountKind::ClaudeConsole));
    let preferred = Account { priority: 10, ..b.clone() };
    let heavy = Account { weight: 4, ..b.clone() };
    let later = Timestamp::from_millis(5);
    let key = key();
    for (what, candidates, affinity, expected) in [
        ("the first of equals", vec![seen(&a), seen(&b)], None, 0),
        ("best priority wins", vec![seen(&a), seen(&preferred)], None, 1),
        ("the idle one of equals", vec![Candidate { in_flight: 1, ..seen(&a) }, seen(&b)], None, 1),
        (
            "load counts by weight",
            vec![Candidate { in_flight: 1, ..seen(&a) }, Candidate { in_flight: 3, ..seen(&heavy) }],
            None,
            1,
        ),
        ("least recently used", vec![Candidate { last_used: later, ..seen(&a) }, seen(&b)], None, 1),
        ("one that can start at once", vec![delayed(1, &a), Candidate { in_flight: 9, ..seen(&b) }], None, 1),
        ("the first to start", vec![delayed(9, &a), delayed(2, &b)], None, 1),
        ("priority before the start", vec![seen(&a), delayed(30, &preferred)], None, 1),
        ("no longer than it may wait", vec![seen(&a), delayed(31, &preferred)], None, 0),
        ("session waits for its account", vec![delayed(30, &a), seen(&b)], Some(0), 0),
        ("session leaves a crowded account", vec![delayed(31, &a), seen(&b)], Some(0), 1),
        ("session keeps its account", vec![seen(&a), seen(&preferred)], Some(0), 0),
        (
            "session leaves a limited account",
            vec![Candidate { health: limited(9), ..seen(&a) }, seen(&b)],
            Some(0),
            1,
        ),
        (
            "a tried account is not tried again",
            vec![Candidate { passed: Some(Passed::Tried), ..seen(&preferred) }, seen(&a)],
            Some(0),
            1,
        ),
    ] {
        let ask = Ask { affinity, ..ask(&key, "claude-opus-5") };
        assert_eq!(pick(candidates.into_iter(), &ask).map(|(at, _)| at), Ok(expected), "{what}");
    }
}

#[test]
fn the_reason_is_that_of_the_most_fitting_account() {
    let claude = account("a", AccountKind::ClaudeConsole);
    let listed = Account { models: vec!["claude-haiku*".into()], ..claude.clone() };
    let paused = Account { paused: true, ..claude.clone() };
    let key = key();
    let openai_only = ApiKey { permissions: vec![Family::Openai], ..key.clone() };
    for (what, candidates, key, expected) in [
        ("none at all", vec![], &key, NoAccount::NoModel),
        ("no permission", vec![seen(&claude)], &openai_only, NoAccount::NotPermitted),
        ("no model", vec![seen(&listed)], &key, NoAccount::NoModel),
        ("no protocol", vec![Candidate { speaks: false, ..seen(&claude) }], &key, NoAccount::NoProtocol),
        ("paused", vec![seen(&paused), seen(&listed)], &key, NoAccount::Unavailable { cooling: None }),
        (
            "the earliest cooldown",
            vec![
                Candidate { health: limited(90), ..seen(&claude) },
                Candidate { health: limited(30), ..seen(&claude) },
            ],
            &key,
            NoAccount::Unavailable { cooling: limited(30).cooling(NOW) },
        ),
        (
            "the first to be crowded no longer",
            vec![
                delayed(50, &claude),
                Candidate { health: limited(5), ..seen(&claude) },
                delayed(40, &claude),
            ],
            &key,
            NoAccount::Crowded { until: NOW.after(Duration::from_secs(10)) },
        ),
    ] {
        assert_eq!(pick(candidates.into_iter(), &ask(key, "claude-opus-5")), Err(expected), "{what}");
    }
}

#[test]
fn the_simulator_stays_out_of_real_pools() {
    let (real, sim) = (account("r", AccountKind::ClaudeConsole), account("s", AccountKind::Simulator));
    let unbound = key();
    let bound = ApiKey { accounts: vec!["s".into()], ..key() };
    for (key, model, expected) in [
        (&unbound, "claude-opus-5", Ok(0)),
        (&unbound, "sim-echo", Ok(1)),
        (&bound, "claude-opus-5", Ok(1)),
        (&bound, "sim-echo", Ok(1)),
    ] {
        let chosen = pick([seen(&real), seen(&sim)].into_iter(), &ask(key, model)).map(|(at, _)| at);
        assert_eq!(chosen, expected, "{model}");
    }
}

#[test]
fn a_path_may_allow_one_kind_only() {
    let (azure, other) = (account("z", AccountKind::AzureOpenai), account("o", AccountKind::OpenaiResponses));
    let key = key();
    let ask = Ask { only: Some(AccountKind::AzureOpenai), ..ask(&key, "gpt-5") };
    assert_eq!(pick([seen(&other), seen(&azure)].into_iter(), &ask).map(|(at, _)| at), Ok(1));
    assert_eq!(rule_out(&seen(&other), &ask), Some(RuledOut::OtherRoute));
}
