//! Rows, sums and bookings.

use std::collections::BTreeMap;

use shared::domain::usage::UsageClass;
use shared::domain::{NanoUsd, Provenance, RequestId, ServiceTier, Usage};

use super::{
    CONCURRENT, Holds, IN_TOTAL, NODE, PER_MINUTE, Subject, ask, at, booking, closed, entry, request_id,
};
use crate::store::{
    Booked, Closed, End, Entry, GivenUp, Mark, Rollup, RollupKey, RollupQuery, RowQuery, Span, Standing,
    StoreState,
};

const HOUR_MS: i64 = 3_600_000;

fn marks(subject: &Subject) -> Vec<Mark> {
    let mut marks = subject.wait(subject.store().marks()).unwrap();
    marks.sort();
    marks
}

fn rows(subject: &Subject, query: RowQuery) -> Vec<Closed> {
    subject.wait(subject.store().rows(query)).unwrap()
}

fn all() -> RowQuery {
    RowQuery { limit: usize::MAX, ..RowQuery::default() }
}

/// Opened at a time, with some digits of its own.
fn opened_at(millis: i64, digits: u8) -> RequestId {
    RequestId::new(at(millis), [digits; 10])
}

pub(in crate::store) fn a_booking_replaces_its_hold(subject: &mut Subject) {
    let asks = [ask(PER_MINUTE, 1), ask(IN_TOTAL, 3), ask(CONCURRENT, 3)];
    let held = subject.admit(1, 5, &[("k", &asks), ("a", &asks)]);
    let batch = [entry(0, 1, closed(request_id(1), held.iter().map(booking).collect()))];
    subject.apply(&batch);
    for group in ["k", "a"] {
        let standing = Standing { booked: 1, held: 0, resets_at: Some(at(60_005)) };
        assert_eq!(subject.standing(group, PER_MINUTE, 6), standing);
        assert_eq!(subject.sums(group, IN_TOTAL, 6), (1, 0));
        assert_eq!(subject.sums(group, CONCURRENT, 6), (0, 0), "the lease goes with its hold");
    }
    assert_eq!(subject.refuse(2, 6, &[("k", &asks)]).ask, asks[0]);
    subject.admit(2, 60_005, &[("k", &asks)]);
    assert_eq!(subject.store().state(), StoreState::Ok);
}

pub(in crate::store) fn a_booking_adds_where_the_hold_has_lapsed(subject: &mut Subject) {
    let asks = [ask(IN_TOTAL, 3)];
    let held = subject.admit(1, 0, &[("k", &asks)]);
    assert_eq!(subject.sums("k", IN_TOTAL, 100_000), (0, 0));
    subject.apply(&[entry(0, 1, closed(request_id(1), held.iter().map(booking).collect()))]);
    assert_eq!(subject.sums("k", IN_TOTAL, 100_000), (1, 0));
}

pub(in crate::store) fn a_booking_goes_to_the_window_it_was_held_in(subject: &mut Subject) {
    let asks = [ask(PER_MINUTE, 5)];
    let old = subject.admit(1, 0, &[("k", &asks)]);
    let new = subject.admit(2, 60_000, &[("k", &asks)]);
    subject.apply(&[entry(0, 1, closed(request_id(1), old.iter().map(booking).collect()))]);
    assert_eq!(subject.sums("k", PER_MINUTE, 60_000), (0, 1), "the old window is over");
    subject.apply(&[entry(0, 2, closed(request_id(2), new.iter().map(booking).collect()))]);
    assert_eq!(subject.sums("k", PER_MINUTE, 60_001), (1, 0));
    let mut later = booking(&new[0]);
    later.span = Span { start: at(120_000), end: Some(at(180_000)) };
    subject.apply(&[entry(0, 3, closed(request_id(3), vec![later]))]);
    let standing = Standing { booked: 1, held: 0, resets_at: Some(at(180_000)) };
    assert_eq!(subject.standing("k", PER_MINUTE, 120_001), standing, "a booking can start a window");
}

pub(in crate::store) fn applying_twice_is_applying_once(subject: &mut Subject) {
    let asks = [ask(IN_TOTAL, 100)];
    let entries: Vec<Entry> = (1..=6)
        .map(|number| {
            let held = subject.admit(number, 0, &[("k", &asks)]);
            let (lane, sequence) = (u32::try_from(number % 2).unwrap(), number.div_ceil(2) * 10);
            entry(lane, sequence, closed(request_id(number), held.iter().map(booking).collect()))
        })
        .collect();
    let check = |subject: &Subject, applied: u64| {
        assert_eq!(subject.sums("k", IN_TOTAL, 0).0, applied);
        assert_eq!(rows(subject, all()).len() as u64, applied);
        let sums = subject.wait(subject.store().rollups(RollupQuery::default())).unwrap();
        assert_eq!(sums.iter().map(|(_, sum)| sum.requests).sum::<u64>(), applied);
    };
    subject.apply(&entries[..3]);
    check(subject, 3);
    subject.apply(&entries[..3]);
    check(subject, 3);
    subject.apply(&entries[1..5]);
    check(subject, 5);
    subject.reopen();
    check(subject, 5);
    let mark = |lane, sequence| Mark { node: NODE, lane, epoch: 1, sequence };
    assert_eq!(marks(subject), [mark(0, 20), mark(1, 30)]);
    subject.apply(&entries);
    check(subject, 6);
    subject.apply(&[]);
    assert_eq!(marks(subject), [mark(0, 30), mark(1, 30)]);
    let mut next_epoch = entries[0].clone();
    next_epoch.mark = Mark { node: NODE, lane: 1, epoch: 2, sequence: 1 };
    next_epoch.closed.request = request_id(7);
    subject.apply(&[next_epoch]);
    check(subject, 7);
    let mut late = entries[0].clone();
    late.mark = mark(1, 99);
    subject.apply(&[late]);
    check(subject, 7);
}

pub(in crate::store) fn counters_that_move_are_told_once(subject: &mut Subject) {
    let asks = [ask(PER_MINUTE, 9), ask(IN_TOTAL, 9)];
    let entries: Vec<Entry> = (1..=3)
        .map(|number| {
            let held = subject.admit(number, 0, &[("k", &asks)]);
            entry(0, number, closed(request_id(number), held.iter().map(booking).collect()))
        })
        .collect();
    let moves = |moved: Vec<Booked>| {
        let mut moves: Vec<_> = moved
            .iter()
            .map(|moved| (moved.counter.as_str().to_owned(), moved.before, moved.after))
            .collect();
        moves.sort();
        moves
    };
    let both = |before, after| {
        ["requests in total", "requests per minute"].map(|name| (name.to_owned(), before, after))
    };
    assert_eq!(moves(subject.apply(&entries[..2])), both(0, 2));
    assert_eq!(moves(subject.apply(&entries[..2])), []);
    assert_eq!(moves(subject.apply(&entries)), both(2, 3));
    let held = subject.admit(4, 70_000, &[("k", &asks)]);
    let later = entry(0, 4, closed(request_id(4), held.iter().map(booking).collect()));
    let moved = subject.apply(&[later]);
    let minute = moved.iter().find(|moved| moved.counter.as_str() == "requests per minute").unwrap();
    assert_eq!((minute.before, minute.after, minute.span.start), (0, 1, at(70_000)), "a new window");
}

pub(in crate::store) fn a_group_without_booking_loses_its_hold(subject: &mut Subject) {
    let asks = [ask(IN_TOTAL, 5), ask(CONCURRENT, 5)];
    for group in ["k", "a", "owner"] {
        subject.admit(1, 0, &[(group, &asks)]);
    }
    subject.apply(&[entry(0, 1, closed(request_id(1), Vec::new()))]);
    for group in ["k", "a", "owner"] {
        assert_eq!(subject.sums(group, IN_TOTAL, 0), (0, 0), "{group}");
        assert_eq!(subject.sums(group, CONCURRENT, 0), (0, 0), "{group}");
    }
}

pub(in crate::store) fn what_was_applied_outlives_the_store(subject: &mut Subject) {
    let asks = [ask(PER_MINUTE, 9), ask(IN_TOTAL, 9), ask(CONCURRENT, 9)];
    let held = subject.admit(1, 5, &[("k", &asks)]);
    subject.admit(2, 6, &[("k", &asks)]);
    let row = Closed { given_up: vec![given_up("acc_b", 4)], ..closed(opened_at(1_000, 1), Vec::new()) };
    let first = closed(request_id(1), held.iter().map(booking).collect());
    subject.apply(&[entry(0, 1, first.clone()), entry(0, 2, row.clone())]);
    subject.reopen();
    let held = u64::from(subject.holds == Holds::OutliveIt);
    assert_eq!(subject.sums("k", PER_MINUTE, 6), (1, held));
    assert_eq!(subject.standing("k", PER_MINUTE, 6).resets_at, Some(at(60_005)));
    assert_eq!(subject.sums("k", IN_TOTAL, 6), (1, held));
    assert_eq!(subject.sums("k", IN_TOTAL, 100_006), (1, 0), "what nobody renews lapses");
    assert_eq!(rows(subject, all()), [row, first]);
}

fn given_up(account: &str, cost: i64) -> GivenUp {
    GivenUp {
        account: account.into(),
        model: "slow".to_owned(),
        usage: Usage::of(&[(UsageClass::Input, 11)]),
        cost: NanoUsd::from_nanos(cost),
        tier: Some(ServiceTier::Batch),
    }
}

pub(in crate::store) fn rollups_are_the_sums_of_rows(subject: &mut Subject) {
    let mut expected: BTreeMap<RollupKey, Rollup> = BTreeMap::new();
    let mut sequence = 0;
    for round in 0..3_u8 {
        let mut batch = Vec::new();
        for number in 0..60_u8 {
            sequence += 1;
            let mut row = closed(opened_at(i64::from(number) * 200_000, number ^ (round << 6)), Vec::new());
            row.key = if number % 3 == 0 { "key_b" } else { "key_a" }.into();
            row.account = (number % 5 != 0).then(|| "acc_a".into());
            row.priced_model = (number % 2 == 0).then(|| format!("priced\0{}", number % 4));
            row.end = [End::Complete, End::Truncated, End::Failed, End::ClientGone, End::Aborted]
                [usize::from(number % 5)];
            row.provenance = Provenance::ALL[usize::from(number) % Provenance::ALL.len()];
            row.unpriced = number % 7 == 0;
            row.cost = NanoUsd::from_nanos(if number == 5 { i64::MAX } else { i64::from(number) });
            if number % 9 == 0 {
                row.given_up = vec![given_up("acc_b", 4), given_up("acc_b", 5), given_up("acc_c", 6)];
            }
            tally(&mut expected, &row);
            batch.push(entry(0, sequence, row));
        }
        subject.apply(&batch);
    }
    let sums = subject.wait(subject.store().rollups(RollupQuery::default())).unwrap();
    assert_eq!(sums, expected.clone().into_iter().collect::<Vec<_>>());
    assert!(sums.iter().any(|(_, sum)| sum.cost_nanos > i128::from(i64::MAX)));
    queries_give_their_own(subject, &expected);
    let (since, until) = (at(HOUR_MS), at(2 * HOUR_MS));
    let sums = subject
        .wait(subject.store().rollups(RollupQuery {
            since: Some(since),
            until: Some(until),
            ..RollupQuery::default()
        }))
        .unwrap();
    expected.retain(|key, _| key.hour == since);
    assert!(!sums.is_empty());
    assert_eq!(sums, expected.into_iter().collect::<Vec<_>>());
    assert_eq!(
        subject
            .wait(subject.store().rollups(RollupQuery {
                since: Some(until),
                until: Some(since),
                ..RollupQuery::default()
            }))
            .unwrap(),
        []
    );
}

/// For every key and every account there is.
fn queries_give_their_own(subject: &mut Subject, expected: &BTreeMap<RollupKey, Rollup>) {
    let keys = expected.keys().map(|place| RollupQuery { key: place.key.clone(), ..RollupQuery::default() });
    let accounts =
        expected.keys().map(|place| RollupQuery { account: place.account.clone(), ..RollupQuery::default() });
    for query in keys.chain(accounts).collect::<Vec<_>>() {
        let wanted = |place: &RollupKey| {
            (query.key.is_none() || place.key == query.key)
                && (query.account.is_none() || place.account == query.account)
        };
        let own: Vec<_> = expected.clone().into_iter().filter(|(place, _)| wanted(place)).collect();
        assert_eq!(subject.wait(subject.store().rollups(query.clone())).unwrap(), own, "{query:?}");
    }
    let nobody = RollupQuery { key: Some("key_nobody".into()), ..RollupQuery::default() };
    assert_eq!(subject.wait(subject.store().rollups(nobody)).unwrap(), []);
}

fn tally(sums: &mut BTreeMap<RollupKey, Rollup>, row: &Closed) {
    let hour = at(row.opened_at.as_millis() / HOUR_MS * HOUR_MS);
    let model = row.priced_model.clone().unwrap_or_else(|| row.model.clone());
    let key = RollupKey { hour, key: Some(row.key.clone()), account: row.account.clone(), model };
    let sum = sums.entry(key).or_default();
    sum.requests += 1;
    sum.failed += u64::from([End::Failed, End::Truncated, End::Aborted].contains(&row.end));
    sum.unpriced += u64::from(row.unpriced);
    sum.usage += row.usage;
    sum.cost_nanos += i128::from(row.cost.as_nanos());
    sum.rated_nanos += i128::from(row.rated.as_nanos());
    sum.provenance[Provenance::ALL.iter().position(|each| *each == row.provenance).unwrap()] += 1;
    for attempt in &row.given_up {
        let (account, model) = (Some(attempt.account.clone()), attempt.model.clone());
        let sum = sums.entry(RollupKey { hour, key: None, account, model }).or_default();
        sum.requests += 1;
        sum.failed += 1;
        sum.usage += attempt.usage;
        sum.cost_nanos += i128::from(attempt.cost.as_nanos());
        sum.provenance[2] += 1;
    }
}

pub(in crate::store) fn rows_are_paged_newest_first(subject: &mut Subject) {
    let ids: Vec<RequestId> = (0..25).map(|n| opened_at(1_000 + i64::from(n / 2), n)).collect();
    for (sequence, shuffled) in (1..).zip((0..25).map(|n| ids[n * 7 % 25])) {
        subject.apply(&[entry(0, sequence, closed(shuffled, Vec::new()))]);
    }
    let (mut before, mut paged) = (None, Vec::new());
    loop {
        let page = rows(subject, RowQuery { before, limit: 7, ..RowQuery::default() });
        assert!(page.len() <= 7);
        let Some(last) = page.last() else { break };
        before = Some(last.request);
        paged.extend(page.iter().map(|row| row.request));
    }
    assert!(paged.iter().rev().eq(&ids));
    assert!(rows(subject, RowQuery::default()).is_empty(), "no rows are asked for");
}

pub(in crate::store) fn rows_are_found_by_key_account_and_time(subject: &mut Subject) {
    let mut all_rows = Vec::new();
    for number in 0..40_u8 {
        let mut row = closed(opened_at(i64::from(number) * 700_000, number), Vec::new());
        row.key = if number % 10 == 3 { "key_b" } else { "key_a" }.into();
        row.account = (number % 4 != 0).then(|| if number % 8 < 4 { "acc_a" } else { "acc_b" }.into());
        all_rows.push(row);
    }
    let batch: Vec<Entry> = (1..).zip(&all_rows).map(|(n, row)| entry(0, n, row.clone())).collect();
    subject.apply(&batch);
    all_rows.reverse();
    let key = |row: &Closed| row.key.as_str() == "key_b";
    let account = |row: &Closed| row.account.as_ref().is_some_and(|account| account.as_str() == "acc_b");
    let since = |row: &Closed| row.opened_at.as_millis() >= 7_000_000;
    let until = |row: &Closed| row.opened_at.as_millis() < 14_000_000;
    for with in 0..16 {
        let is_set = |bit: i32| with & bit != 0;
        let query = RowQuery {
            key: is_set(1).then(|| "key_b".into()),
            account: is_set(2).then(|| "acc_b".into()),
            since: is_set(4).then(|| at(7_000_000)),
            until: is_set(8).then(|| at(14_000_000)),
            ..all()
        };
        let expected = all_rows.iter().filter(|row| {
            (!is_set(1) || key(row))
                && (!is_set(2) || account(row))
                && (!is_set(4) || since(row))
                && (!is_set(8) || until(row))
        });
        let found = rows(subject, query.clone());
        assert!(found.iter().eq(expected.clone()), "{query:?}: {found:#?}");
        let some = rows(subject, RowQuery { limit: 2, ..query });
        assert!(some.iter().eq(expected.take(2)));
    }
    let one = RowQuery { id: Some(all_rows[4].request), ..all() };
    assert_eq!(rows(subject, one.clone()), all_rows[4..5]);
    assert!(rows(subject, RowQuery { key: Some("key_c".into()), ..one }).is_empty());
    assert!(rows(subject, RowQuery { since: Some(at(-5)), until: Some(at(-1)), ..all() }).is_empty());
    assert_eq!(rows(subject, RowQuery { until: Some(at(i64::MAX)), ..all() }).len(), 40);
}

pub(in crate::store) fn old_rows_and_rollups_are_dropped(subject: &mut Subject) {
    let mut batch = Vec::new();
    for number in 0..30_u8 {
        let row = closed(opened_at(i64::from(number) * 600_000, number), Vec::new());
        batch.push(entry(0, u64::from(number) + 1, row));
    }
    subject.apply(&batch);
    let prune = |subject: &Subject, rows, rollups: Option<i64>| {
        subject.wait(subject.store().prune(at(rows), rollups.map(at))).unwrap()
    };
    assert_eq!(prune(subject, 5_400_000, None), 9);
    assert_eq!(prune(subject, 5_400_000, Some(2 * HOUR_MS)), 0);
    let left = rows(subject, all());
    assert_eq!((left.len(), left[20].opened_at), (21, at(5_400_000)));
    let of_key = RowQuery { key: Some("key_a".into()), ..all() };
    assert_eq!(rows(subject, of_key), left, "an hour that was dropped in part is still looked into");
    let sums = subject.wait(subject.store().rollups(RollupQuery::default())).unwrap();
    assert_eq!(sums.iter().map(|(key, _)| key.hour.as_millis() / HOUR_MS).collect::<Vec<_>>(), [2, 3, 4]);
    subject.apply(&batch);
    assert_eq!(rows(subject, all()), left, "what was dropped does not come back");
}
