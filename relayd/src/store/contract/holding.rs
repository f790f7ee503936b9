//! Judging and holding.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{CONCURRENT, IN_TOTAL, PER_MINUTE, Subject, ask, at, counter, per_day, request_id, reserve};
use crate::store::{CounterAsk, GroupId, Held, Span, Standing, Verdict};

pub(in crate::store) fn a_call_holds_in_all_groups_or_in_none(subject: &mut Subject) {
    let (one, two) = ([ask(PER_MINUTE, 1), ask(CONCURRENT, 9)], [ask(IN_TOTAL, 9), ask(PER_MINUTE, 2)]);
    let held = subject.admit(1, 0, &[("k", &one), ("a", &two)]);
    let minute = Span { start: at(0), end: Some(at(60_000)) };
    let expected = [("k", PER_MINUTE, minute), ("a", IN_TOTAL, Span::ENDLESS), ("a", PER_MINUTE, minute)]
        .map(|(group, name, span)| Held {
            group: group.into(),
            counter: counter(name),
            span,
            amount: 1,
            standing: Standing { booked: 0, held: 1, resets_at: span.end },
        });
    assert_eq!(held, expected);
    let refusal = subject.refuse(2, 1, &[("a", &two), ("k", &one)]);
    assert_eq!((refusal.group, refusal.ask), ("k".into(), one[0].clone()));
    assert_eq!(refusal.standing, Standing { booked: 0, held: 1, resets_at: Some(at(60_000)) });
    assert_eq!(subject.sums("a", PER_MINUTE, 1), (0, 1), "nothing was held");
    let both = [ask(PER_MINUTE, 1), ask(IN_TOTAL, 0)];
    let refusal = subject.refuse(3, 1, &[("a", &both), ("k", &one)]);
    assert_eq!(
        (refusal.group, refusal.ask),
        ("a".into(), both[0].clone()),
        "the first that does not fit is named"
    );
}

pub(in crate::store) fn a_counter_asked_twice_is_held_once(subject: &mut Subject) {
    let twice = [ask(PER_MINUTE, 5), CounterAsk { amount: 2, ..ask(PER_MINUTE, 4) }];
    let held = subject.admit(1, 0, &[("k", &twice)]);
    assert_eq!(held.iter().map(|held| held.amount).collect::<Vec<_>>(), [2]);
    assert_eq!(subject.sums("k", PER_MINUTE, 0), (0, 2));
    subject.give_back(1, "k");
    assert_eq!(subject.sums("k", PER_MINUTE, 0), (0, 0));
}

pub(in crate::store) fn threads_admit_exactly_the_limit(subject: &mut Subject) {
    let (key, account) = ([ask(PER_MINUTE, 500), ask(CONCURRENT, 700)], [ask(IN_TOTAL, 600)]);
    let (request, admitted) = (AtomicU64::new(1), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (request, admitted, store, key, account) =
                (&request, &admitted, &**subject.store(), &key, &account);
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                for _ in 0..200 {
                    let request = request.fetch_add(1, Ordering::Relaxed);
                    // Half of the threads name the groups the other way round.
                    let mut groups = [("k", &key[..]), ("a", &account[..])];
                    groups.rotate_left(thread % 2);
                    let verdict = runtime.block_on(reserve(store, request, 0, &groups)).unwrap();
                    admitted.fetch_add(u64::from(matches!(verdict, Verdict::Admitted(_))), Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(admitted.into_inner(), 500);
    assert_eq!(subject.sums("k", PER_MINUTE, 0), (0, 500));
    assert_eq!(subject.sums("k", CONCURRENT, 0), (0, 500));
    assert_eq!(subject.sums("a", IN_TOTAL, 0), (0, 500));
}

pub(in crate::store) fn threads_never_hold_more_leases_than_there_are(subject: &mut Subject) {
    let (request, holding, admitted) = (AtomicU64::new(1), AtomicU64::new(0), AtomicU64::new(0));
    let (group, asks) = (GroupId::from("k"), [ask(CONCURRENT, 2)]);
    let store = &**subject.store();
    let one_call = async || {
        let request = request.fetch_add(1, Ordering::SeqCst);
        let Verdict::Admitted(_) = reserve(store, request, 0, &[("k", &asks)]).await.unwrap() else { return };
        assert!(holding.fetch_add(1, Ordering::SeqCst) < 2, "more than two hold a lease");
        admitted.fetch_add(1, Ordering::SeqCst);
        // Whoever holds one takes its time.
        drop(store.standings(&group, &asks, at(0)).await.unwrap());
        holding.fetch_sub(1, Ordering::SeqCst);
        store.release(request_id(request), &group);
    };
    let work = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        (0..200).for_each(|_| runtime.block_on(one_call()));
    };
    std::thread::scope(|scope| (0..8).for_each(|_| drop(scope.spawn(work))));
    assert!(admitted.into_inner() > 2, "what is released can be had again");
    assert_eq!(subject.sums("k", CONCURRENT, 0), (0, 0));
}

pub(in crate::store) fn leases_are_released_alone(subject: &mut Subject) {
    let asks = [ask(CONCURRENT, 1), ask(PER_MINUTE, 2)];
    assert_eq!(subject.admit(1, 0, &[("k", &asks)]).len(), 1, "a lease is not booked, so it is not listed");
    assert_eq!(subject.refuse(2, 1, &[("k", &asks)]).ask, asks[0]);
    for _ in 0..2 {
        subject.release(1, "k");
        assert_eq!(subject.sums("k", CONCURRENT, 2), (0, 0));
        assert_eq!(subject.sums("k", PER_MINUTE, 2), (0, 1));
    }
    subject.admit(3, 2, &[("k", &asks)]);
    subject.release(9, "k");
    subject.release(3, "no such group");
    assert_eq!(subject.sums("k", CONCURRENT, 2), (0, 1));
}

pub(in crate::store) fn what_is_given_back_is_as_if_never_held(subject: &mut Subject) {
    let asks = [ask(CONCURRENT, 1), ask(PER_MINUTE, 1), ask(IN_TOTAL, 1)];
    for request in 1..4 {
        subject.admit(request, 0, &[("k", &asks), ("a", &asks)]);
        subject.give_back(request, "k");
        assert_eq!(subject.sums("a", IN_TOTAL, 0), (0, 1), "the other group still holds");
        subject.give_back(request, "a");
        subject.give_back(request, "a");
        assert_eq!(subject.sums("k", IN_TOTAL, 0), (0, 0));
    }
}

pub(in crate::store) fn a_request_may_ask_another_group_later(subject: &mut Subject) {
    let asks = [ask(CONCURRENT, 1), ask(IN_TOTAL, 5)];
    subject.admit(1, 0, &[("k", &asks)]);
    subject.admit(1, 1, &[("a", &asks)]);
    subject.release(1, "a");
    subject.admit(1, 2, &[("b", &asks)]);
    for (group, leases) in [("k", 1), ("a", 0), ("b", 1)] {
        assert_eq!(subject.sums(group, CONCURRENT, 3), (0, leases), "{group}");
        assert_eq!(subject.sums(group, IN_TOTAL, 3), (0, 1), "{group}");
    }
}

pub(in crate::store) fn windows_start_at_first_use_and_end_on_time(subject: &mut Subject) {
    let asks = [ask(PER_MINUTE, 1)];
    assert_eq!(subject.standing("k", PER_MINUTE, 5), Standing::default(), "looking is not using");
    assert_eq!(subject.admit(1, 7, &[("k", &asks)])[0].span.start, at(7));
    let running = Standing { booked: 0, held: 1, resets_at: Some(at(60_007)) };
    assert_eq!(subject.standing("k", PER_MINUTE, 60_006), running);
    assert_eq!(subject.refuse(2, 60_006, &[("k", &asks)]).standing, running);
    assert_eq!(subject.standing("k", PER_MINUTE, 60_007), Standing::default());
    assert_eq!(subject.admit(3, 60_007, &[("k", &asks)])[0].span.start, at(60_007));
    subject.give_back(1, "k");
    assert_eq!(subject.sums("k", PER_MINUTE, 60_008), (0, 1), "the old hold was in the old window");
    let refusal = subject.refuse(4, 60_000, &[("k", &asks)]);
    assert_eq!(refusal.standing.held, 1, "a reader of a clock that is a little behind is in the same window");
}

pub(in crate::store) fn windows_of_the_calendar_are_the_askers(subject: &mut Subject) {
    let (first, second) = (per_day(0, 1_000), per_day(1_000, 2_000));
    let unused = Standing { resets_at: Some(at(1_000)), ..Standing::default() };
    assert_eq!(subject.standing("k", first, 5), unused, "it ends whether it is used or not");
    let held = subject.admit(1, 5, &[("k", &[ask(first, 1)])]);
    assert_eq!(held[0].span, Span { start: at(0), end: Some(at(1_000)) });
    assert_eq!(subject.refuse(2, 999, &[("k", &[ask(first, 1)])]).standing.resets_at, Some(at(1_000)));
    assert_eq!(subject.sums("k", second, 1_000), (0, 0), "the next one begins empty");
    subject.admit(3, 1_000, &[("k", &[ask(second, 1)])]);
    let refusal = subject.refuse(4, 999, &[("k", &[ask(first, 1)])]);
    assert_eq!(refusal.standing.resets_at, Some(at(2_000)), "a clock that is behind opens no old window");
    subject.give_back(1, "k");
    assert_eq!(subject.sums("k", second, 1_001), (0, 1));
}

pub(in crate::store) fn amounts_are_held_and_judged_as_they_are(subject: &mut Subject) {
    let day = per_day(0, 1_000);
    let costs = |amount| [CounterAsk { amount, ..ask(day, 10) }];
    let held = subject.admit(1, 0, &[("k", &costs(4))]);
    assert_eq!(held[0].standing, Standing { booked: 0, held: 4, resets_at: Some(at(1_000)) });
    subject.admit(2, 0, &[("k", &costs(6))]);
    let refusal = subject.refuse(3, 0, &[("k", &costs(1))]);
    assert_eq!((refusal.ask.amount, refusal.standing.held), (1, 10));
    subject.admit(4, 0, &[("k", &costs(0))]);
    subject.give_back(2, "k");
    subject.refuse(5, 0, &[("k", &costs(7))]);
    subject.refuse(5, 0, &[("k", &costs(u64::MAX))]);
    subject.admit(5, 0, &[("k", &costs(6))]);
    assert_eq!(subject.sums("k", day, 1), (0, 10));
}

pub(in crate::store) fn a_request_may_ask_for_more(subject: &mut Subject) {
    let day = per_day(0, 1_000);
    let costs = |amount| [CounterAsk { amount, ..ask(day, 10) }];
    subject.admit(1, 0, &[("k", &costs(4))]);
    let held = subject.admit(1, 1, &[("k", &costs(5))]);
    assert_eq!((held[0].amount, held[0].standing.held), (5, 9));
    subject.refuse(1, 2, &[("k", &costs(2))]);
    subject.give_back(1, "k");
    assert_eq!(subject.sums("k", day, 3), (0, 0));
}

pub(in crate::store) fn holds_lapse_unless_they_are_renewed(subject: &mut Subject) {
    let asks = [ask(CONCURRENT, 2), ask(IN_TOTAL, 2)];
    subject.admit(1, 0, &[("k", &asks)]);
    subject.admit(2, 10, &[("k", &asks)]);
    assert_eq!(subject.sums("k", IN_TOTAL, 99_999), (0, 2));
    assert_eq!(subject.sums("k", CONCURRENT, 100_000), (0, 1));
    assert_eq!(subject.sums("k", IN_TOTAL, 100_000), (0, 1));
    let full = [ask(CONCURRENT, 1), ask(IN_TOTAL, 1)];
    subject.admit(7, 0, &[("b", &full)]);
    subject.admit(8, 100_000, &[("b", &full)]);
    subject.wait(subject.store().renew_holds(at(100_000), at(200_000))).unwrap();
    subject.wait(subject.store().renew_holds(at(100_000), at(150_000))).unwrap();
    assert_eq!(subject.sums("k", IN_TOTAL, 199_999), (0, 1));
    subject.admit(3, 150_000, &[("k", &asks)]);
    assert_eq!(subject.sums("k", IN_TOTAL, 200_000), (0, 1), "the younger one has its own time");
    assert_eq!(subject.sums("k", IN_TOTAL, 250_000), (0, 0));
}
