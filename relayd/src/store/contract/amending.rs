//! What dropped rows leave behind, and putting right what is stored.

use shared::domain::NanoUsd;

use super::{
    CONCURRENT, Counter, Holds, IN_TOTAL, PER_MINUTE, Subject, ask, at, booking, closed, counter, entry,
    per_day, request_id,
};
use crate::store::{
    Booked, Booking, Closed, Kept, RequestId, Rollup, RollupKey, RollupQuery, RowQuery, Span, Standing,
};

const HOUR_MS: i64 = 3_600_000;

fn span(start: i64, end: Option<i64>) -> Span {
    Span { start: at(start), end: end.map(at) }
}

fn booked(group: &str, of: Counter, span: Span, amount: u64) -> Booking {
    Booking { group: group.into(), counter: counter(of), span, amount }
}

/// Opened at a time, with some digits of its own.
fn opened_at(millis: i64, digits: u8) -> RequestId {
    RequestId::new(at(millis), [digits; 10])
}

fn kept(subject: &Subject) -> Kept {
    let mut kept = subject.wait(subject.store().kept()).unwrap();
    kept.balances.sort_by_key(|balance| {
        (balance.group.clone(), balance.counter.as_str().to_owned(), balance.span.start)
    });
    kept
}

fn counters(subject: &Subject, groups: &[&str]) -> Vec<Booking> {
    let groups = groups.iter().map(|group| (*group).into()).collect();
    let mut counters = subject.wait(subject.store().counters(groups)).unwrap();
    counters.sort_by_key(|booked| (booked.group.clone(), booked.counter.as_str().to_owned()));
    counters
}

fn rows(subject: &Subject) -> Vec<Closed> {
    subject.wait(subject.store().rows(RowQuery { limit: usize::MAX, ..RowQuery::default() })).unwrap()
}

fn sums(subject: &Subject) -> Vec<(RollupKey, Rollup)> {
    subject.wait(subject.store().rollups(RollupQuery::default())).unwrap()
}

pub(in crate::store) fn dropped_rows_leave_closing_balances(subject: &mut Subject) {
    assert_eq!(kept(subject), Kept::default(), "nothing is gone from a new store");
    let day = per_day(0, 24 * HOUR_MS);
    let (first_minute, whole_day) = (span(0, Some(60_000)), span(0, Some(24 * HOUR_MS)));
    let batch: Vec<_> = (1..=6)
        .map(|number: i64| {
            let amount = u64::try_from(number).unwrap();
            let bookings = vec![
                booked("k", IN_TOTAL, Span::ENDLESS, 1),
                booked("k", day, whole_day, 10 * amount),
                booked("k", PER_MINUTE, first_minute, 1),
                booked("a", IN_TOTAL, Span::ENDLESS, amount),
            ];
            entry(0, amount, closed(opened_at(number * HOUR_MS, 1), bookings))
        })
        .collect();
    subject.apply(&batch);
    let prune = |subject: &Subject, rows, sums| subject.wait(subject.store().prune(at(rows), sums)).unwrap();
    assert_eq!(prune(subject, 3 * HOUR_MS, None), 2);
    let expected = Kept {
        rows_since: Some(at(3 * HOUR_MS)),
        balances: vec![
            booked("a", IN_TOTAL, Span::ENDLESS, 3),
            booked("k", day, whole_day, 30),
            booked("k", IN_TOTAL, Span::ENDLESS, 2),
        ],
        ..Kept::default()
    };
    assert_eq!(kept(subject), expected, "the minute was over by then");
    assert_eq!(prune(subject, 3 * HOUR_MS, None), 0);
    assert_eq!(prune(subject, HOUR_MS, None), 0);
    subject.apply(&batch);
    assert_eq!(kept(subject), expected, "nothing is added twice, and no time goes back");
    assert_eq!(prune(subject, 5 * HOUR_MS, Some(at(2 * HOUR_MS))), 2);
    subject.reopen();
    let later = kept(subject);
    assert_eq!((later.rows_since, later.sums_since), (Some(at(5 * HOUR_MS)), Some(at(2 * HOUR_MS))));
    let amounts: Vec<u64> = later.balances.iter().map(|balance| balance.amount).collect();
    assert_eq!(amounts, [10, 100, 4]);
    assert_eq!(subject.sums("k", IN_TOTAL, 6 * HOUR_MS), (6, 0), "counters stay as they are");
    prune(subject, 24 * HOUR_MS, None);
    let names = kept(subject).balances;
    let names: Vec<_> = names.iter().map(|balance| balance.counter.as_str()).collect();
    assert_eq!(names, ["requests in total"; 2], "balances of days that are over go too");
}

pub(in crate::store) fn counters_are_set_from_where_they_stand(subject: &mut Subject) {
    let asks = [ask(PER_MINUTE, 9), ask(IN_TOTAL, 9), ask(CONCURRENT, 9)];
    let held = subject.admit(1, 5, &[("k", &asks)]);
    subject.admit(2, 6, &[("k", &asks)]);
    subject.apply(&[entry(0, 1, closed(request_id(1), held.iter().map(booking).collect()))]);
    let minute = span(5, Some(60_005));
    let all = [booked("k", IN_TOTAL, Span::ENDLESS, 1), booked("k", PER_MINUTE, minute, 1)];
    assert_eq!(counters(subject, &["k", "nobody"]), all);
    assert_eq!(counters(subject, &[]), []);
    let set = |of: Counter, span, before, after| Booked {
        group: "k".into(),
        counter: counter(of),
        span,
        before,
        after,
    };
    let correct = |subject: &Subject, changes: &[Booked]| {
        subject.wait(subject.store().correct(changes.to_vec())).unwrap()
    };
    let changes = [set(IN_TOTAL, Span::ENDLESS, 1, 4), set(PER_MINUTE, minute, 7, 8)];
    assert_eq!(correct(subject, &changes), changes[..1], "the minute does not stand at 7");
    assert_eq!(correct(subject, &changes), [], "nor does the total stand at 1 any more");
    assert_eq!(subject.sums("k", IN_TOTAL, 7), (4, 1), "what is held stays held");
    assert_eq!(subject.sums("k", CONCURRENT, 7), (0, 1));
    let later = span(70_000, Some(130_000));
    let changes = [
        set(IN_TOTAL, Span::ENDLESS, 4, 0),
        set(PER_MINUTE, later, 0, 3),
        set(per_day(0, 24 * HOUR_MS), span(0, Some(24 * HOUR_MS)), 0, 6),
    ];
    assert_eq!(correct(subject, &changes), changes, "windows may begin with it");
    assert_eq!(correct(subject, &[set(PER_MINUTE, minute, 1, 9)]), [], "that one is over");
    for _ in 0..2 {
        assert_eq!(subject.sums("k", IN_TOTAL, 70_001).0, 0);
        let standing = Standing { booked: 3, held: 0, resets_at: Some(at(130_000)) };
        assert_eq!(subject.standing("k", PER_MINUTE, 70_001), standing);
        assert_eq!(subject.sums("k", per_day(0, 24 * HOUR_MS), 70_001), (6, 0));
        subject.reopen();
    }
    let held = subject.admit(3, 70_001, &[("k", &asks[1..2])]);
    subject.apply(&[entry(0, 2, closed(request_id(3), held.iter().map(booking).collect()))]);
    let still_held = u64::from(subject.holds == Holds::OutliveIt);
    assert_eq!(subject.sums("k", IN_TOTAL, 70_002), (1, still_held), "what comes later is added");
}

pub(in crate::store) fn rows_are_amended_where_they_are(subject: &mut Subject) {
    let first: Vec<Closed> = (0..4).map(|n| closed(opened_at(1_000 + i64::from(n), n), Vec::new())).collect();
    let batch: Vec<_> = (1..).zip(&first).map(|(n, row)| entry(0, n, row.clone())).collect();
    subject.apply(&batch);
    let (sums_before, dearer) = (sums(subject), NanoUsd::from_nanos(77));
    let mut expected = first.clone();
    for row in &mut expected[1..3] {
        row.cost = dearer;
        row.bookings = vec![booked("k", IN_TOTAL, Span::ENDLESS, 9)];
    }
    let stranger = closed(opened_at(9_000, 9), Vec::new());
    let amend = |subject: &Subject| {
        let rows = [&expected[1..3], std::slice::from_ref(&stranger)].concat();
        subject.wait(subject.store().amend_rows(rows)).unwrap()
    };
    assert_eq!([amend(subject), amend(subject)], [2, 2], "what is not there does not come");
    subject.apply(&batch);
    subject.reopen();
    expected.reverse();
    assert_eq!(rows(subject), expected);
    assert_eq!(sums(subject), sums_before, "sums do not follow by themselves");
    assert_eq!(counters(subject, &["k"]), []);
    let of_key = RowQuery { key: Some("key_a".into()), limit: 9, ..RowQuery::default() };
    assert_eq!(subject.wait(subject.store().rows(of_key)).unwrap(), expected);
}

pub(in crate::store) fn sums_are_put_in_the_places_of_others(subject: &mut Subject) {
    let rows: Vec<Closed> =
        (0..6).map(|n| closed(opened_at(i64::from(n) * HOUR_MS, n), Vec::new())).collect();
    subject.apply(&(1..).zip(&rows).map(|(n, row)| entry(0, n, row.clone())).collect::<Vec<_>>());
    let mut expected = sums(subject);
    expected[1].1.cost_nanos = i128::from(i64::MAX) * 3;
    expected[2].1.requests += 5;
    let new = RollupKey { hour: at(0), key: None, account: Some("acc_z".into()), model: "z".to_owned() };
    let changes = vec![
        expected[1].clone(),
        expected[2].clone(),
        (expected[3].0.clone(), Rollup::default()),
        (new.clone(), expected[0].1.clone()),
        (RollupKey { hour: at(7 * HOUR_MS), ..new.clone() }, Rollup::default()),
    ];
    expected.remove(3);
    expected.push((new, expected[0].1.clone()));
    expected.sort_by(|(one, _), (other, _)| one.cmp(other));
    for _ in 0..2 {
        subject.wait(subject.store().put_sums(changes.clone())).unwrap();
        subject.reopen();
        assert_eq!(sums(subject), expected);
    }
    let before = expected.clone();
    subject.apply(&[entry(0, 9, closed(opened_at(3 * HOUR_MS, 77), Vec::new()))]);
    assert_eq!(sums(subject).len(), before.len() + 1, "what is gone can begin anew");
}
