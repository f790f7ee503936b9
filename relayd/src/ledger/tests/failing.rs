//! Stores that fail, forget, or choke on a record.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shared::admin::AuditEntry;
use shared::domain::{RequestId, Timestamp};

use super::{Home, Settings, at, closed, id, in_total, open};
use crate::ledger::apply::TRIES;
use crate::ledger::{Ledger, LedgerError};
use crate::store::contract::Folder;
use crate::store::embedded::Embedded;
use crate::store::{
    Answer, Booked, Booking, Census, Chunk, Closed, CounterAsk, Cursor, Entry, Exported, GroupAsk, GroupId,
    HeldGroup, Kept, Mark, Record, RecordKind, Reservation, Rollup, RollupKey, RollupQuery, RowQuery,
    Standing, Store, StoreError, StoreState, Verdict, WindowRule, Write,
};

/// A store that fails when it is told to.
struct Moody {
    store: Mutex<Arc<Embedded>>,
    /// How often `apply` fails before it does anything.
    refuses: AtomicU32,
    /// How often `apply` does it and says it failed.
    lies: AtomicU32,
    /// A request that it cannot apply.
    chokes_on: Mutex<Option<RequestId>>,
}

impl Moody {
    fn new(home: &Home) -> Arc<Self> {
        let store = Arc::new(Embedded::open(home.folder.path()).unwrap());
        let (refuses, lies) = (AtomicU32::new(0), AtomicU32::new(0));
        Arc::new(Self { store: Mutex::new(store), refuses, lies, chokes_on: Mutex::new(None) })
    }

    fn inner(&self) -> Arc<Embedded> {
        Arc::clone(&self.store.lock().unwrap())
    }

    fn is_due(times: &AtomicU32) -> bool {
        times.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}

fn unavailable() -> StoreError {
    StoreError::Unavailable("the disk is gone".into())
}

impl Store for Moody {
    fn engine(&self) -> &'static str {
        "moody"
    }

    fn state(&self) -> StoreState {
        self.inner().state()
    }

    fn records(&self, kind: RecordKind) -> Answer<'_, Vec<Record>> {
        Box::pin(async move { self.inner().records(kind).await })
    }

    fn record(&self, kind: RecordKind, id: &str) -> Answer<'_, Option<Record>> {
        let id = id.to_owned();
        Box::pin(async move { self.inner().record(kind, &id).await })
    }

    fn write(&self, writes: Vec<Write>) -> Answer<'_, Vec<u64>> {
        Box::pin(async move { self.inner().write(writes).await })
    }

    fn audit(&self, since: Option<Timestamp>, limit: usize) -> Answer<'_, Vec<AuditEntry>> {
        Box::pin(async move { self.inner().audit(since, limit).await })
    }

    fn next_epoch(&self, seen: u64) -> Answer<'_, u64> {
        Box::pin(async move { self.inner().next_epoch(seen).await })
    }

    fn reserve<'a>(&'a self, reservation: Reservation<'a>) -> Answer<'a, Verdict> {
        Box::pin(async move { self.inner().reserve(reservation).await })
    }

    fn release(&self, request: RequestId, group: &GroupId) {
        self.inner().release(request, group);
    }

    fn give_back(&self, request: RequestId, group: &GroupId) {
        self.inner().give_back(request, group);
    }

    fn renew_holds(&self, now: Timestamp, until: Timestamp) -> Answer<'_, ()> {
        let inner = self.inner();
        Box::pin(async move { inner.renew_holds(now, until).await })
    }

    fn standings<'a>(
        &'a self,
        group: &'a GroupId,
        counters: &'a [CounterAsk],
        now: Timestamp,
    ) -> Answer<'a, Vec<Standing>> {
        Box::pin(async move { self.inner().standings(group, counters, now).await })
    }

    fn apply(&self, batch: Arc<[Entry]>) -> Answer<'_, Vec<Booked>> {
        Box::pin(async move {
            if Self::is_due(&self.refuses) {
                return Err(unavailable());
            }
            let bad = *self.chokes_on.lock().unwrap();
            if batch.iter().any(|entry| Some(entry.closed.request) == bad) {
                return Err(StoreError::Damaged { what: "group", source: "nonsense".into() });
            }
            let moved = self.inner().apply(batch).await?;
            if Self::is_due(&self.lies) { Err(unavailable()) } else { Ok(moved) }
        })
    }

    fn export(&self, cursor: Cursor) -> Answer<'_, Exported> {
        Box::pin(async move { self.inner().export(cursor).await })
    }

    fn import(&self, chunk: Chunk) -> Answer<'_, ()> {
        Box::pin(async move { self.inner().import(chunk).await })
    }

    fn census(&self) -> Answer<'_, Census> {
        Box::pin(async move { self.inner().census().await })
    }

    fn holds(&self) -> Vec<HeldGroup> {
        self.inner().holds()
    }

    fn hold_again(&self, holds: Vec<HeldGroup>, now: Timestamp, until: Timestamp) -> Answer<'_, ()> {
        Box::pin(async move { self.inner().hold_again(holds, now, until).await })
    }

    fn marks(&self) -> Answer<'_, Vec<Mark>> {
        Box::pin(async move { self.inner().marks().await })
    }

    fn rows(&self, query: RowQuery) -> Answer<'_, Vec<Closed>> {
        Box::pin(async move { self.inner().rows(query).await })
    }

    fn rollups(&self, query: RollupQuery) -> Answer<'_, Vec<(RollupKey, Rollup)>> {
        Box::pin(async move { self.inner().rollups(query).await })
    }

    fn prune(&self, rows_before: Timestamp, rollups_before: Option<Timestamp>) -> Answer<'_, u64> {
        Box::pin(async move { self.inner().prune(rows_before, rollups_before).await })
    }

    fn kept(&self) -> Answer<'_, Kept> {
        Box::pin(async move { self.inner().kept().await })
    }

    fn counters(&self, groups: Vec<GroupId>) -> Answer<'_, Vec<Booking>> {
        Box::pin(async move { self.inner().counters(groups).await })
    }

    fn amend_rows(&self, rows: Vec<Closed>) -> Answer<'_, u64> {
        Box::pin(async move { self.inner().amend_rows(rows).await })
    }

    fn put_sums(&self, sums: Vec<(RollupKey, Rollup)>) -> Answer<'_, ()> {
        Box::pin(async move { self.inner().put_sums(sums).await })
    }

    fn correct(&self, counters: Vec<Booked>) -> Answer<'_, Vec<Booked>> {
        Box::pin(async move { self.inner().correct(counters).await })
    }
}

fn flush_fails(home: &Home, ledger: &Ledger) {
    let result = home.runtime.block_on(ledger.flush());
    assert!(matches!(result, Err(LedgerError::Store(_))), "{result:?}");
}

#[test]
fn a_store_that_fails_for_a_while_gets_everything_once() {
    let home = Home::new();
    let moody = Moody::new(&home);
    let store: Arc<dyn Store> = moody.clone();
    let (ledger, lanes) = home.start(&store, home.settings());
    for number in 1..=100 {
        open(&lanes[0], number);
        lanes[0].close(&closed(number));
        match number {
            30 => {
                moody.refuses.store(1, Ordering::Relaxed);
                flush_fails(&home, &ledger);
            }
            60 => {
                moody.lies.store(1, Ordering::Relaxed);
                flush_fails(&home, &ledger);
                assert!(ledger.view().unshipped > 0, "nobody knows that it was applied");
            }
            90 => home.flush(&ledger),
            _ => {}
        }
    }
    home.flush(&ledger);
    assert_eq!(ledger.view().unshipped, 0);
    home.assert_booked(&store, &(1..=100).map(closed).collect::<Vec<_>>());
    home.stop(ledger);
}

#[test]
fn a_store_that_fails_is_tried_again_by_itself() {
    let home = Home::new();
    let moody = Moody::new(&home);
    let store: Arc<dyn Store> = moody.clone();
    let (ledger, lanes) = home.start(&store, Settings { ship_ms: 1, sync_ms: 1, ..home.settings() });
    moody.refuses.store(2, Ordering::Relaxed);
    open(&lanes[0], 1);
    lanes[0].close(&closed(1));
    while ledger.view().unshipped > 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    home.assert_booked(&store, &[closed(1)]);
    home.stop(ledger);
}

#[test]
fn a_store_that_comes_back_older_gets_again_what_it_lost() {
    let home = Home::new();
    let moody = Moody::new(&home);
    let store: Arc<dyn Store> = moody.clone();
    let settings = Settings { keep_s: 600, lanes: 2, ..home.settings() };
    let (ledger, lanes) = home.start(&store, settings);
    let close = |numbers: std::ops::RangeInclusive<u64>| {
        for number in numbers {
            let lane = &lanes[usize::from(number % 2 == 0)];
            open(lane, number);
            lane.close(&closed(number));
        }
    };
    close(1..=40);
    home.flush(&ledger);
    let older = Folder::new();
    *moody.store.lock().unwrap() = Arc::new(Embedded::open(older.path()).unwrap());
    close(41..=60);
    moody.refuses.store(1, Ordering::Relaxed);
    flush_fails(&home, &ledger);
    home.flush(&ledger);
    home.assert_booked(&store, &(1..=60).map(closed).collect::<Vec<_>>());
    home.stop(ledger);
}

#[test]
fn a_recovery_that_the_store_refuses_is_tried_by_the_next_start() {
    let home = Home::new();
    let moody = Moody::new(&home);
    let store: Arc<dyn Store> = moody.clone();
    let (ledger, lanes) = home.start(&store, home.settings());
    for number in 1..=20 {
        open(&lanes[0], number);
        if number % 2 == 0 {
            lanes[0].close(&closed(number));
        }
    }
    drop((ledger, lanes));
    let start = || {
        let clock = crate::clock::Clock::new();
        home.runtime.block_on(Ledger::start(Arc::clone(&store), home.settings(), &clock, None))
    };
    moody.refuses.store(1, Ordering::Relaxed);
    assert!(matches!(start(), Err(LedgerError::Store(_))));
    moody.lies.store(1, Ordering::Relaxed);
    assert!(matches!(start(), Err(LedgerError::Store(_))));
    let (ledger, _lanes) = start().unwrap();
    let row = |number| if number % 2 == 0 { closed(number) } else { super::orphaned(number, 1) };
    home.assert_booked(&store, &(1..=20).map(row).collect::<Vec<_>>());
    home.stop(ledger);
}

/// Holds what a request's end will book.
fn hold(home: &Home, store: &dyn Store, number: u64) {
    let lapses_at = at(i64::MAX);
    let groups = ["key", "account"].map(GroupId::from);
    let ask = CounterAsk { counter: in_total(), window: WindowRule::Lifetime, amount: 1, limit: 100 };
    let asks = [ask];
    let groups = groups.each_ref().map(|group| GroupAsk { group, counters: &asks });
    let reservation = Reservation { request: id(number), now: at(0), lapses_at, groups: &groups };
    let verdict = home.runtime.block_on(store.reserve(reservation)).unwrap();
    assert!(matches!(verdict, Verdict::Admitted(_)), "{verdict:?}");
}

/// What is held in the groups of `hold`.
fn held(home: &Home, store: &dyn Store) -> [u64; 2] {
    let asks = [CounterAsk { counter: in_total(), window: WindowRule::Lifetime, amount: 0, limit: 0 }];
    ["key", "account"].map(|group| {
        let standings = home.runtime.block_on(store.standings(&group.into(), &asks, at(0)));
        standings.unwrap()[0].held
    })
}

#[test]
fn a_record_that_cannot_be_applied_blocks_nothing() {
    let home = Home::new();
    let moody = Moody::new(&home);
    let store: Arc<dyn Store> = moody.clone();
    let (ledger, lanes) = home.start(&store, home.settings());
    *moody.chokes_on.lock().unwrap() = Some(id(2));
    hold(&home, &*store, 2);
    open(&lanes[0], 2);
    lanes[0].close(&closed(2));
    flush_fails(&home, &ledger);
    assert_eq!(ledger.view().set_aside, 0, "it may be the store that is damaged");
    assert_eq!(held(&home, &*store), [1, 1], "it may still be booked");
    for number in [1, 3] {
        open(&lanes[0], number);
        lanes[0].close(&closed(number));
    }
    home.flush(&ledger);
    home.assert_booked(&store, &[closed(1), closed(3)]);
    assert_eq!(ledger.view().set_aside, 1);
    assert_eq!(held(&home, &*store), [0, 0], "nothing would ever book what it held");
    home.stop(ledger);
}

#[test]
fn records_that_are_refused_again_and_again_are_set_aside_and_counted_once() {
    let home = Home::new();
    let moody = Moody::new(&home);
    let store: Arc<dyn Store> = moody.clone();
    let (ledger, lanes) = home.start(&store, home.settings());
    *moody.chokes_on.lock().unwrap() = Some(id(1));
    hold(&home, &*store, 1);
    open(&lanes[0], 1);
    lanes[0].close(&closed(1));
    for _ in 1..TRIES {
        flush_fails(&home, &ledger);
    }
    home.flush(&ledger);
    assert_eq!((ledger.view().set_aside, ledger.view().unshipped), (1, 0));
    assert_eq!(held(&home, &*store), [0, 0]);

    // The journal is read again from where the store is, which is before that record.
    open(&lanes[0], 2);
    lanes[0].close(&closed(2));
    moody.refuses.store(1, Ordering::Relaxed);
    flush_fails(&home, &ledger);
    home.flush(&ledger);
    home.assert_booked(&store, &[closed(2)]);
    assert_eq!(ledger.view().set_aside, 1);
    home.stop(ledger);
}

#[test]
fn a_record_that_is_refused_keeps_no_start_from_succeeding() {
    let home = Home::new();
    let moody = Moody::new(&home);
    let store: Arc<dyn Store> = moody.clone();
    let (ledger, lanes) = home.start(&store, home.settings());
    open(&lanes[0], 1);
    lanes[0].close(&closed(1));
    drop((ledger, lanes));
    *moody.chokes_on.lock().unwrap() = Some(id(1));
    let (ledger, _lanes) = home.start(&store, home.settings());
    assert_eq!(ledger.view().set_aside, 1);
    home.stop(ledger);
}
