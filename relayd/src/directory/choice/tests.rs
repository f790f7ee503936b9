//! Whatever the accounts, the key and the call: the choice is the one that the scheduler makes of all candidates.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};
use shared::crypto::Pepper;
use shared::domain::key::UsageMode;
use shared::domain::{Account, AccountId, AccountKind, ApiKey, Family, Protocol, Timestamp, Zone};
use shared::redact::Secret;

use super::*;
use crate::directory::entry::AccountState;
use crate::directory::roster::Roster;
use crate::directory::seats::Seats;
use crate::directory::{AccountEntry, InFlight, Turn};
use crate::scheduler::Purpose;
use crate::scheduler::health::{Cooldowns, Outcome};

const NOW: Timestamp = Timestamp::from_millis(1_000_000_000);
const MODELS: [&str; 6] = ["m-1", "m-2", "n", "ccr,m-1", "sim-echo", ".."];
const OPERATIONS: [Operation; 3] = [Operation::Generate, Operation::CountTokens, Operation::Embed];

/// An account, and what became of it.
#[derive(Clone, Debug)]
struct Drawn {
    kind: AccountKind,
    /// Models that are served by list, and that are mapped.
    models: (Option<&'static str>, Option<&'static str>),
    priority: u8,
    weight: u8,
    is_paused: bool,
    gap_ms: u64,
    /// Calls that wait for their start, where there is a gap.
    waiting: usize,
    in_flight: usize,
    last_used: i64,
    ailments: Vec<(Operation, &'static str, Outcome)>,
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let until = || {
        prop_oneof![
            Just(None),
            (1..3_i64).prop_map(|s| Some(Timestamp::from_millis(NOW.as_millis() + s * 1_000)))
        ]
    };
    prop_oneof![
        (until(), any::<bool>()).prop_map(|(until, is_models)| Outcome::Limited { until, is_models }),
        until().prop_map(|until| Outcome::Overloaded { until }),
        Just(Outcome::AuthFailed { status: 401 }),
        Just(Outcome::Unreachable),
        Just(Outcome::Served),
    ]
}

fn drawn() -> impl Strategy<Value = Drawn> {
    let record = (
        // One kind is drawn more often than the others, so that there are enough that compete.
        prop_oneof![3 => Just(AccountKind::ClaudeConsole), 2 => select(&AccountKind::ALL[..])],
        prop_oneof![3 => Just(None), 1 => select(&["m-*", "n"][..]).prop_map(Some)],
        prop_oneof![4 => Just(None), 1 => select(&MODELS[..]).prop_map(Some)],
        1..3_u8,
        0..3_u8,
        prop::bool::weighted(0.1),
        prop_oneof![4 => Just(0), 1 => Just(5_000_u64)],
    );
    let ailment = (select(&OPERATIONS[..]), select(&MODELS[..]), outcome());
    let state = (
        0..3_usize,
        prop_oneof![2 => Just(0), 1 => 1..3_usize],
        0..4_i64,
        prop_oneof![
            3 => Just(Vec::new()),
            1 => vec(ailment, 1..4),
        ],
    );
    (record, state).prop_map(|((kind, list, mapped, priority, weight, is_paused, gap_ms), state)| {
        let (waiting, in_flight, last_used, ailments) = state;
        let models = (list, mapped);
        Drawn { kind, models, priority, weight, is_paused, gap_ms, waiting, in_flight, last_used, ailments }
    })
}

/// What is asked.
#[derive(Clone, Debug)]
struct Question {
    permissions: Vec<Family>,
    /// Positions; some are those of no account.
    bound: Vec<usize>,
    model: &'static str,
    protocol: Protocol,
    operation: Operation,
    only: Option<AccountKind>,
    affinity: Option<usize>,
    passed: Vec<usize>,
    delay_max: Duration,
    now_ms: i64,
}

fn question() -> impl Strategy<Value = Question> {
    let key = (
        prop_oneof![3 => Just(Vec::new()), 1 => vec(select(&Family::ALL[..]), 1..3)],
        prop_oneof![2 => Just(Vec::new()), 1 => vec(0..25_usize, 1..8)],
    );
    let call = (
        prop_oneof![3 => Just("m-1"), 2 => select(&MODELS[..])],
        prop_oneof![2 => Just(Protocol::Messages), 1 => select(&Protocol::ALL[..])],
        prop_oneof![3 => Just(Operation::Generate), 1 => select(&OPERATIONS[..])],
        prop_oneof![6 => Just(None), 1 => select(&AccountKind::ALL[..]).prop_map(Some)],
        prop::option::weighted(0.3, 0..20_usize),
        vec(0..20_usize, 0..4),
        select(&[0, 5, 10, 4_000_000_000][..]).prop_map(Duration::from_secs),
        select(&[0, 1_000, 1_500, 2_000, 20_000, 100_000, 10_000_000][..]),
    );
    (key, call).prop_map(|((permissions, bound), call)| {
        let (model, protocol, operation, only, affinity, passed, delay_max, now_ms) = call;
        Question { permissions, bound, model, protocol, operation, only, affinity, passed, delay_max, now_ms }
    })
}

/// In the order of the numbers, as the accounts of a snapshot are.
fn id(number: usize) -> AccountId {
    AccountId::from(format!("acc_{number:02}").as_str())
}

fn account(number: usize, drawn: &Drawn) -> Account {
    let (list, mapped) = drawn.models;
    Account {
        id: id(number),
        name: format!("account {number}"),
        kind: drawn.kind,
        base_url: "http://upstream".to_owned(),
        secret: None,
        api_version: None,
        models: list.map(Into::into).into_iter().collect(),
        model_map: mapped.map(|name| (name.to_owned(), "m-2".to_owned())).into_iter().collect(),
        price_as: None,
        priority: drawn.priority,
        weight: drawn.weight,
        paused: drawn.is_paused,
        headers: BTreeMap::new(),
        limits: Vec::new(),
        gap_ms: drawn.gap_ms,
        simulator: None,
        created_at: NOW,
        removed_at: None,
        unknown: BTreeMap::new(),
    }
}

fn key(question: &Question) -> ApiKey {
    ApiKey {
        id: "key_1".into(),
        name: "alice".to_owned(),
        digest: Pepper::new(&Secret::new("p")).digest("cr_1"),
        pepper_id: "1".to_owned(),
        hint: String::new(),
        owner: None,
        permissions: question.permissions.clone(),
        allow_models: Vec::new(),
        deny_models: Vec::new(),
        accounts: question.bound.iter().map(|&number| id(number)).collect(),
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

/// Accounts in a snapshot, and what is under way at them.
struct World {
    snapshot: Snapshot,
    _in_flight: Vec<InFlight>,
    _waiting: Vec<Turn>,
}

fn world(all: &[Drawn]) -> World {
    let mut seats = Seats::default();
    let mut accounts = Vec::new();
    for (number, drawn) in all.iter().enumerate() {
        let state = Arc::new(AccountState::new(seats.take()));
        let entry = AccountEntry::new(account(number, drawn), 1, &Secret::new("s"), &Zone::UTC, state);
        accounts.push(Arc::new(entry));
    }
    let roster = Roster::new(seats, &accounts);
    let (mut in_flight, mut waiting) = (Vec::new(), Vec::new());
    // All of it comes after the snapshot, as it does in life.
    for (entry, drawn) in accounts.iter().zip(all) {
        drop(entry.state.enter(Timestamp::from_millis(drawn.last_used)));
        in_flight.extend((0..drawn.in_flight).map(|_| entry.state.enter(Timestamp::from_millis(0))));
        waiting.extend((0..drawn.waiting).filter_map(|_| entry.line_up(Duration::MAX).unwrap()));
        for (operation, model, outcome) in &drawn.ailments {
            let purpose = Purpose { operation: *operation, model };
            entry.state.learn(purpose, outcome, NOW, &Cooldowns::default());
        }
    }
    let snapshot = Snapshot { accounts, roster, ..Snapshot::default() };
    World { snapshot, _in_flight: in_flight, _waiting: waiting }
}

/// What came of a choice, in a word.
fn word(choice: Result<(usize, Chosen), NoAccount>) -> &'static str {
    match choice {
        Ok((_, Chosen::Affinity)) => "affinity",
        Ok((_, Chosen::Order)) => "order",
        Err(NoAccount::NoModel) => "no model",
        Err(NoAccount::NoProtocol) => "no protocol",
        Err(NoAccount::NotPermitted) => "not permitted",
        Err(NoAccount::Unavailable { .. }) => "unavailable",
        Err(NoAccount::Crowded { .. }) => "crowded",
    }
}

#[test]
fn the_choice_is_that_of_the_scheduler() {
    let seen = RefCell::new(BTreeSet::new());
    let mut runner = TestRunner::new(Config { cases: 3_000, failure_persistence: None, ..Config::default() });
    let tested = runner.run(&(vec(drawn(), 0..20), question()), |(all, question)| {
        let World { snapshot, .. } = &world(&all);
        let key = key(&question);
        let passed: Vec<_> = question.passed.iter().map(|&at| (at, Passed::Tried)).collect();
        let Question { model, protocol, operation, only, affinity, delay_max, now_ms, .. } = question;
        let now = Timestamp::from_millis(NOW.as_millis() + now_ms);
        let affinity = affinity.filter(|&at| at < all.len());
        let ask = Ask { key: &key, model, protocol, only, affinity, delay_max, now };
        let errand = Errand { ask, operation, passed: &passed };
        let candidates = (0..all.len()).map(|at| snapshot.candidate(at, &errand));
        let specified = pick(candidates, &ask);
        prop_assert_eq!(snapshot.choose(&errand), specified);
        seen.borrow_mut().insert(word(specified));
        Ok(())
    });
    tested.unwrap();
    assert_eq!(seen.borrow().len(), 7, "each kind of result came up: {:?}", seen.borrow());
}
