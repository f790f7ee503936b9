//! Whole rebuilds: what was tampered with is put right, whenever they are stopped.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use shared::domain::Timestamp;
use shared::progress::Progress;
use tokio::runtime::Runtime;

use super::{HOUR_MS, at, audit, booked, by_list, row};
use crate::rebuild::{Job, Plan, Prices, RebuildError};
use crate::store::contract::Folder;
use crate::store::embedded::Embedded;
use crate::store::{
    Booked, Booking, Closed, Entry, GroupId, Kept, Mark, Rollup, RollupKey, RollupQuery, RowQuery, Span,
    Store,
};

/// The windows that run at the end of every test.
const NOW: i64 = 30 * HOUR_MS;
const TODAY: Span = Span { start: at_const(24 * HOUR_MS), end: Some(at_const(48 * HOUR_MS)) };
const YESTERDAY: Span = Span { start: at_const(0), end: Some(at_const(24 * HOUR_MS)) };

const fn at_const(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// A store on files of its own.
struct Home {
    runtime: Runtime,
    store: Arc<dyn Store>,
    folder: Folder,
}

/// What a store holds, of rows and of what is derived from them.
#[derive(Debug, PartialEq)]
struct Content {
    rows: Vec<Closed>,
    sums: Vec<(RollupKey, Rollup)>,
    counters: BTreeMap<(GroupId, String), (Timestamp, u64)>,
}

impl Home {
    fn new() -> Self {
        let folder = Folder::new();
        let store = Arc::new(Embedded::open(folder.path()).unwrap());
        Self { runtime: runtime(), store, folder }
    }

    /// With these rows, applied as calls are.
    fn with(rows: &[Closed]) -> Self {
        let home = Self::new();
        let entries = (1..).zip(rows).map(|(sequence, closed)| {
            let mark = Mark { node: 7, lane: 0, epoch: 1, sequence };
            Entry::read(mark, &minicbor::to_vec(closed).unwrap()).unwrap()
        });
        home.runtime.block_on(home.store.apply(entries.collect())).unwrap();
        home
    }

    fn reopen(self) -> Self {
        let Self { runtime: old, store, folder } = self;
        // What still runs on another thread ends first.
        drop(old);
        drop(store);
        let store = Arc::new(Embedded::open(folder.path()).unwrap());
        Self { runtime: runtime(), store, folder }
    }

    fn content(&self) -> Content {
        let rows = RowQuery { limit: usize::MAX, ..RowQuery::default() };
        let counters = self.runtime.block_on(self.store.counters(groups())).unwrap();
        let place = |booking: Booking| {
            ((booking.group, booking.counter.as_str().to_owned()), (booking.span.start, booking.amount))
        };
        Content {
            rows: self.runtime.block_on(self.store.rows(rows)).unwrap(),
            sums: self.runtime.block_on(self.store.rollups(RollupQuery::default())).unwrap(),
            counters: counters.into_iter().map(place).collect(),
        }
    }

    fn job(&self, prices: Prices) -> Arc<Job> {
        self.job_since(prices, None)
    }

    fn job_since(&self, prices: Prices, since: Option<i64>) -> Arc<Job> {
        let (store, since) = (Arc::clone(&self.store), since.map(at));
        Arc::new(Job { store, now: at(NOW), prices, since, hours_since: since, groups: groups() })
    }

    fn plan(&self, prices: Prices) -> Plan {
        self.runtime.block_on(self.job(prices).plan(&|_| true)).unwrap()
    }

    /// Plans and applies; gives the plan.
    fn rebuild(&self, job: &Arc<Job>) -> Plan {
        self.runtime.block_on(rebuild(job)).unwrap()
    }

    fn tamper(&self, counters: &[(GroupId, &str, Span, u64)], sums: impl Fn(&RollupKey, &mut Rollup)) {
        let Content { sums: stored, counters: stands, .. } = self.content();
        let changes = counters.iter().map(|(group, name, span, after)| {
            let stands =
                stands.get(&(group.clone(), (*name).to_owned())).filter(|(start, _)| *start == span.start);
            let before = stands.map_or(0, |(_, amount)| *amount);
            let counter = super::counter(name);
            Booked { group: group.clone(), counter, span: *span, before, after: *after }
        });
        let changes: Vec<_> = changes.collect();
        let set = self.runtime.block_on(self.store.correct(changes.clone())).unwrap();
        assert_eq!(set, changes);
        let mut changed = stored;
        changed.iter_mut().for_each(|(key, sum)| sums(key, sum));
        self.runtime.block_on(self.store.put_sums(changed)).unwrap();
    }
}

async fn rebuild(job: &Arc<Job>) -> Result<Plan, RebuildError> {
    let plan = job.plan(&|_| true).await?;
    if !plan.is_empty() {
        job.apply(&plan, audit(), &|_| true).await?;
    }
    Ok(plan)
}

fn alice() -> GroupId {
    GroupId::of_key(&"key_a".into())
}

fn of_account() -> GroupId {
    GroupId::of_account(&"acc_a".into())
}

fn groups() -> Vec<GroupId> {
    vec![alice(), of_account(), GroupId::of_all()]
}

/// A call for each hour from 18:00 of the first day on, at 3 nano-dollars a token.
fn calls() -> Vec<Closed> {
    (18..30_u8)
        .map(|hour| {
            let mut call = row(i64::from(hour) * HOUR_MS + 5, hour, 3, Vec::new());
            let day = if hour < 24 { YESTERDAY } else { TODAY };
            let names =
                [("cost per day", day), ("cost in total", Span::ENDLESS), ("tokens in total", Span::ENDLESS)];
            booked(&mut call, &alice(), &names);
            booked(&mut call, &of_account(), &names[..2]);
            booked(&mut call, &GroupId::of_all(), &names[1..2]);
            call
        })
        .collect()
}

#[test]
fn what_was_applied_is_what_should_be() {
    let home = Home::with(&calls());
    let before = home.content();
    for prices in [Prices::Booked, by_list(1, &[("m", 3)], Vec::new())] {
        let plan = home.plan(prices);
        assert_eq!(plan, Plan { calls: 12, ..Plan::default() });
    }
    home.rebuild(&home.job(Prices::Booked));
    assert_eq!(home.content(), before);
    assert_eq!(home.runtime.block_on(home.store.audit(None, 9)).unwrap(), [], "nothing was done");
}

#[test]
fn what_was_tampered_with_is_put_right() {
    let home = Home::with(&calls());
    let before = home.content();
    let stray = Span { start: at(26 * HOUR_MS), end: Some(at(40 * HOUR_MS)) };
    let counters = [
        (alice(), "cost per day", TODAY, 1),
        (alice(), "tokens in total", Span::ENDLESS, 0),
        (of_account(), "cost in total", Span::ENDLESS, 99_999),
        (GroupId::of_all(), "requests per day", stray, 4),
    ];
    home.tamper(&counters, |key, sum| match key.hour.as_millis() / HOUR_MS {
        20 => sum.cost_nanos = -5,
        21 => *sum = Rollup::default(),
        22 => sum.requests += 1,
        _ => {}
    });
    let tampered = home.content();
    let plan = home.plan(Prices::Booked);
    assert_eq!((plan.amended, plan.sums.len(), plan.counters.len()), (0, 3, 4));
    assert_eq!(plan.left_alone, []);
    assert_eq!(home.content(), tampered, "nothing changes before it is applied");
    let rebuilt = home.rebuild(&home.job(Prices::Booked));
    assert_eq!(rebuilt, plan);
    let mut after = home.content();
    // The stray counter stays, empty.
    let stray = after.counters.remove(&(GroupId::of_all(), "requests per day".to_owned()));
    assert_eq!(stray, Some((at(26 * HOUR_MS), 0)));
    assert_eq!(after, before);
    assert!(home.plan(Prices::Booked).is_empty());
    let log = home.runtime.block_on(home.store.audit(None, 9)).unwrap();
    assert_eq!(log, [audit()]);
    let home = home.reopen();
    assert!(home.plan(Prices::Booked).is_empty());
}

#[test]
fn todays_prices_move_costs_sums_and_counters_by_the_exact_difference() {
    let home = Home::with(&calls());
    let rebuilt = home.rebuild(&home.job(by_list(2, &[("m", 5)], Vec::new())));
    // 12 calls of ten tokens, two nano-dollars dearer each; holders pay half as much again.
    assert_eq!((rebuilt.amended, rebuilt.cost.after - rebuilt.cost.before), (12, 240));
    assert_eq!(rebuilt.rated.after - rebuilt.rated.before, 360);
    let Content { rows, sums, counters } = home.content();
    assert!(rows.iter().all(|row| row.cost.as_nanos() == 50 && row.price_version == 2));
    assert_eq!(sums.iter().map(|(_, sum)| (sum.cost_nanos, sum.rated_nanos)).max(), Some((50, 75)));
    assert_eq!(sums.iter().map(|(_, sum)| sum.cost_nanos).sum::<i128>(), 600);
    let amount = |group: GroupId, name: &str| counters[&(group, name.to_owned())].1;
    assert_eq!(amount(alice(), "cost in total"), 12 * 75);
    assert_eq!(amount(alice(), "cost per day"), 6 * 75, "yesterday is over");
    assert_eq!(amount(alice(), "tokens in total"), 120);
    assert_eq!(amount(of_account(), "cost in total"), 600);
    assert_eq!(amount(GroupId::of_all(), "cost in total"), 600);
    assert!(home.plan(Prices::Booked).is_empty(), "the rows have these prices now");
    assert!(home.plan(by_list(3, &[("m", 5)], Vec::new())).is_empty());
    let none = home.plan(by_list(4, &[("other", 5)], Vec::new()));
    assert!(none.is_empty() && none.without_price == 12, "what has no price stays");
}

#[test]
fn since_bounds_what_is_priced_and_compared() {
    let home = Home::with(&calls());
    let tamper = |key: &RollupKey, sum: &mut Rollup| {
        if [20, 28].contains(&(key.hour.as_millis() / HOUR_MS)) {
            sum.requests = 7;
        }
    };
    home.tamper(&[(alice(), "tokens in total", Span::ENDLESS, 1)], tamper);
    let since = 26 * HOUR_MS;
    let plan = home.rebuild(&home.job_since(by_list(2, &[("m", 5)], Vec::new()), Some(since)));
    assert_eq!((plan.amended, plan.hours_from), (4, Some(at(since))));
    let Content { rows, sums, counters } = home.content();
    for row in rows {
        assert_eq!(row.cost.as_nanos(), if row.opened_at < at(since) { 30 } else { 50 });
    }
    let hours: Vec<_> = sums
        .iter()
        .filter(|(_, sum)| sum.requests == 7)
        .map(|(key, _)| key.hour.as_millis() / HOUR_MS)
        .collect();
    assert_eq!(hours, [20], "what is older was not looked at");
    let amount = |name: &str| counters[&(alice(), name.to_owned())].1;
    assert_eq!(amount("cost in total"), 8 * 45 + 4 * 75, "counters are of whole windows");
    assert_eq!((amount("cost per day"), amount("tokens in total")), (2 * 45 + 4 * 75, 120));
}

#[test]
fn closing_balances_stand_for_rows_that_are_gone() {
    let home = Home::with(&calls());
    let before = home.content();
    let mut hours_from = 0;
    for hour in [20, 25, 28] {
        home.runtime.block_on(home.store.prune(at(hour * HOUR_MS), None)).unwrap();
        let plan = home.plan(Prices::Booked);
        assert!(plan.is_empty() && plan.left_alone.is_empty(), "{hour}: {plan:#?}");
        let from = plan.hours_from.unwrap().as_millis();
        assert!(from >= hour * HOUR_MS && from > hours_from);
        hours_from = from;
    }
    home.tamper(
        &[(alice(), "cost in total", Span::ENDLESS, 3), (alice(), "cost per day", TODAY, 3)],
        |_, _| {},
    );
    home.rebuild(&home.job(Prices::Booked));
    let after = home.content();
    assert_eq!((&after.counters, &after.sums), (&before.counters, &before.sums));
    home.rebuild(&home.job(by_list(2, &[("m", 5)], Vec::new())));
    let counters = home.content().counters;
    let amount = |name: &str| counters[&(alice(), name.to_owned())].1;
    assert_eq!(amount("cost in total"), 10 * 45 + 2 * 75, "what is gone keeps what it cost");
}

#[test]
fn counters_from_before_rows_were_kept_are_left_alone_and_told() {
    let home = Home::with(&calls());
    home.tamper(
        &[(alice(), "cost in total", Span::ENDLESS, 3), (alice(), "cost per day", TODAY, 3)],
        |_, _| {},
    );
    let before = home.content();
    let job = home.job(Prices::Booked);
    let mut tally = crate::rebuild::tally::Tally::new(at(NOW), None);
    before.rows.iter().for_each(|row| job.count(row, &mut tally));
    let counters = home.runtime.block_on(home.store.counters(groups())).unwrap();
    let kept = Kept { balances_since: Some(at(23 * HOUR_MS)), ..Kept::default() };
    let plan = tally.compare(&kept, counters, before.sums);
    let names = |counters: &[Booked]| -> Vec<String> {
        counters.iter().map(|counter| counter.counter.as_str().to_owned()).collect()
    };
    assert_eq!(names(&plan.counters), ["cost per day"], "it began later");
    assert_eq!(names(&plan.left_alone), ["cost in total"]);
}

#[test]
fn nothing_is_changed_for_somebody_who_has_gone() {
    let home = Home::with(&calls());
    home.tamper(&[(alice(), "cost in total", Span::ENDLESS, 3)], |_, _| {});
    let before = home.content();
    for listens_to in 0..=4_u32 {
        let told = AtomicU32::new(0);
        let tell = move |_: Progress| told.fetch_add(1, Ordering::Relaxed) < listens_to;
        let job = home.job(Prices::Booked);
        let gone = home.runtime.block_on(async {
            let plan = job.plan(&tell).await?;
            job.apply(&plan, audit(), &tell).await
        });
        assert!(matches!(gone, Err(RebuildError::Gone)), "{listens_to}: {gone:?}");
        assert_eq!(home.content(), before);
    }
}

/// A future that is dropped after so many polls; `None` if it was.
fn stopped_after<T>(runtime: &Runtime, polls: u32, future: impl Future<Output = T>) -> Option<T> {
    let mut left = polls;
    let mut future = pin!(future);
    runtime.block_on(std::future::poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        future.as_mut().poll(cx).map(Some)
    }))
}

#[test]
fn stopped_anywhere_and_run_again_it_ends_at_the_same() {
    let prices = || by_list(2, &[("m", 5)], Vec::new());
    let tampered = || {
        let home = Home::with(&calls());
        home.tamper(&[(alice(), "cost in total", Span::ENDLESS, 3)], |_, sum| sum.cost_nanos += 1);
        home
    };
    let home = tampered();
    home.rebuild(&home.job(prices()));
    let expected = home.content();
    let mut partial = 0;
    for polls in 0.. {
        let home = tampered();
        let before = home.content();
        let job = home.job(prices());
        let done = stopped_after(&home.runtime, polls, rebuild(&job));
        drop(job);
        let home = home.reopen();
        let between = home.content();
        partial += u32::from(between != before && between != expected);
        home.rebuild(&home.job(prices()));
        assert_eq!(home.content(), expected, "after {polls} polls");
        if done.is_some() {
            break;
        }
    }
    // How often depends on how soon the store answers.
    assert!(partial > 0, "it was never stopped in the middle");
}

/// When a call was opened, and what it cost, in hours and nano-dollars per token.
fn any_calls() -> impl Strategy<Value = Vec<(u8, u64, bool)>> {
    proptest::collection::vec((0..30_u8, 0..9_u64, any::<bool>()), 0..25)
}

#[test]
fn whatever_was_called_pruned_and_tampered_with_is_found_again() {
    let config = Config { cases: 24, failure_persistence: None, ..Config::default() };
    let strategy = (any_calls(), 0..31_i64, 0..1_000_u64, 1..9_u64);
    let result = TestRunner::new(config).run(&strategy, |(calls, pruned, wrong, price)| {
        let rows: Vec<Closed> = (0_u8..)
            .zip(&calls)
            .map(|(number, &(hour, price, is_limited))| {
                let mut call = row(i64::from(hour) * HOUR_MS, number, price, Vec::new());
                let day = if hour < 24 { YESTERDAY } else { TODAY };
                if is_limited {
                    booked(&mut call, &alice(), &[("cost per day", day), ("cost in total", Span::ENDLESS)]);
                }
                booked(&mut call, &of_account(), &[("cost in total", Span::ENDLESS)]);
                call
            })
            .collect();
        let home = Home::with(&rows);
        home.runtime.block_on(home.store.prune(at(pruned * HOUR_MS), None)).unwrap();
        let before = home.content();
        prop_assert!(home.plan(Prices::Booked).is_empty());
        home.tamper(
            &[
                (alice(), "cost in total", Span::ENDLESS, wrong),
                (of_account(), "cost in total", Span::ENDLESS, wrong),
            ],
            |key, sum| sum.rated_nanos += i128::from(key.hour >= at((pruned + 2) * HOUR_MS)),
        );
        home.rebuild(&home.job(Prices::Booked));
        let mut after = home.content();
        // What had no booking at all is there now, and empty.
        after.counters.retain(|place, booked| booked.1 > 0 || before.counters.contains_key(place));
        prop_assert_eq!(&after, &before);
        // By another list and back: all but what has gone.
        home.rebuild(&home.job(by_list(2, &[("m", price)], Vec::new())));
        let left = home.content();
        prop_assert!(left.rows.iter().all(|row| row.cost.as_counted() == 10 * price));
        let account = |content: &Content| {
            content.counters.get(&(of_account(), "cost in total".to_owned())).map_or(0, |booked| booked.1)
        };
        let gone = account(&before) - before.rows.iter().map(|row| row.cost.as_counted()).sum::<u64>();
        prop_assert_eq!(account(&left), gone + 10 * price * left.rows.len() as u64);
        prop_assert!(home.plan(Prices::Booked).is_empty());
        Ok(())
    });
    result.unwrap();
}
