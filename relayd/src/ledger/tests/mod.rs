//! The ledger over real files and the embedded store, with stores and disks that fail.

mod cutting;
mod failing;
mod room;
mod running;

use std::path::Path;
use std::sync::Arc;

use shared::domain::usage::UsageClass;
use shared::domain::{NanoUsd, Operation, Protocol, RequestId, ServiceTier, Timestamp, Usage};
use tokio::runtime::Runtime;

use super::journal::Epoch;
use super::segment::create_folder;
use super::{Attempt, Lane, Ledger, Opened, Settings};
use crate::clock::Clock;
use crate::store::contract::{Folder, closed as closed_row};
use crate::store::embedded::Embedded;
use crate::store::{
    Booking, Closed, CounterAsk, CounterId, GroupId, Rates, RollupQuery, RowQuery, Span, Store, WindowRule,
};

fn in_total() -> CounterId {
    CounterId::named("requests in total").unwrap()
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn id(number: u64) -> RequestId {
    RequestId::from_u128(u128::from(number))
}

fn booking(group: &str) -> Booking {
    Booking { group: group.into(), counter: in_total(), span: Span::ENDLESS, amount: 1 }
}

fn opened(number: u64) -> Opened {
    Opened {
        request: id(number),
        opened_at: at(1_000),
        key: "key_a".into(),
        protocol: Protocol::Messages,
        operation: Operation::Generate,
        model: "claude".to_owned(),
        session: Some(number),
        estimate: Usage::of(&[(UsageClass::Input, 100), (UsageClass::Output, 50)]),
        estimate_cost: NanoUsd::from_nanos(700),
        unpriced: false,
        price_version: 3,
        rates: Rates::default(),
        bookings: vec![booking("key")],
        estimate_rated: NanoUsd::from_nanos(1_050),
        multiplier: "1.5".parse().unwrap(),
        queued_ms: 7,
        hour: at(3_600_000),
        tier: Some(ServiceTier::Flex),
    }
}

fn attempt(number: u64, count: u32) -> Attempt {
    Attempt {
        request: id(number),
        number: count,
        account: format!("acc_{count}").as_str().into(),
        model: format!("sent-{count}"),
        at: at(1_000 + i64::from(count)),
        bookings: vec![booking("account")],
    }
}

/// The end that a live process writes.
fn closed(number: u64) -> Closed {
    closed_row(id(number), vec![booking("key"), booking("account")])
}

/// The end that the recovery writes for a request that was tried with so many accounts.
fn orphaned(number: u64, attempts: u32) -> Closed {
    let attempts = (1..=attempts).map(|count| attempt(number, count)).collect();
    super::record::OpenRequest { opened: opened(number), attempts }.orphaned()
}

fn open(lane: &Lane, number: u64) {
    lane.open(&opened(number), &attempt(number, 1)).unwrap();
}

/// Small segments, nothing kept, and no waiting: whatever ships does so because it was flushed.
fn settings(dir: &Path) -> Settings {
    Settings { segment_bytes: 4 << 10, keep_s: 0, ship_ms: 60_000, ..Settings::of(dir.join("journal")) }
}

/// A journal without threads: what is in it is what a killed process leaves.
fn bare_lane(settings: &Settings, epoch: u64) -> Lane {
    create_folder(&settings.dir).unwrap();
    let epoch = Arc::new(Epoch::create(epoch, settings.clone()).unwrap());
    Lane::start(&epoch, 0).unwrap()
}

/// A data folder with a store and a runtime.
struct Home {
    runtime: Runtime,
    folder: Folder,
}

impl Home {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { runtime, folder: Folder::new() }
    }

    fn settings(&self) -> Settings {
        settings(self.folder.path())
    }

    fn store(&self) -> Arc<dyn Store> {
        Arc::new(Embedded::open(self.folder.path()).unwrap())
    }

    fn start(&self, store: &Arc<dyn Store>, settings: Settings) -> (Ledger, Vec<Arc<Lane>>) {
        let clock = Clock::new();
        self.runtime.block_on(Ledger::start(Arc::clone(store), settings, &clock, None)).unwrap()
    }

    fn flush(&self, ledger: &Ledger) {
        self.runtime.block_on(ledger.flush()).unwrap();
    }

    fn stop(&self, ledger: Ledger) {
        self.runtime.block_on(ledger.stop()).unwrap();
    }

    /// All rows, oldest first.
    fn rows(&self, store: &Arc<dyn Store>) -> Vec<Closed> {
        let query = RowQuery { limit: usize::MAX, ..RowQuery::default() };
        let mut rows = self.runtime.block_on(store.rows(query)).unwrap();
        rows.reverse();
        rows
    }

    /// What is booked in a group.
    fn booked(&self, store: &Arc<dyn Store>, group: &str) -> u64 {
        let group = GroupId::from(group);
        let (counter, window) = (in_total(), WindowRule::Lifetime);
        let asks = [CounterAsk { counter, window, amount: 0, limit: 0 }];
        let standings = self.runtime.block_on(store.standings(&group, &asks, at(0)));
        standings.unwrap()[0].booked
    }

    /// Every one of `rows` is booked once, in the rows, the sums and the counters.
    fn assert_booked(&self, store: &Arc<dyn Store>, rows: &[Closed]) {
        assert_eq!(self.rows(store), rows);
        let sums = self.runtime.block_on(store.rollups(RollupQuery::default())).unwrap();
        let given_up = rows.iter().flat_map(|row| &row.given_up);
        let calls = rows.len() + given_up.clone().count();
        assert_eq!(sums.iter().map(|(_, sum)| sum.requests).sum::<u64>(), calls as u64);
        let costs = rows.iter().map(|row| row.cost).chain(given_up.map(|attempt| attempt.cost));
        let cost: i128 = costs.map(|cost| i128::from(cost.as_nanos())).sum();
        assert_eq!(sums.iter().map(|(_, sum)| sum.cost_nanos).sum::<i128>(), cost);
        for group in ["key", "account"] {
            let bookings = rows.iter().flat_map(|row| &row.bookings);
            let expected = bookings.filter(|booking| booking.group.as_str() == group).count() as u64;
            assert_eq!(self.booked(store, group), expected, "{group}");
        }
    }
}
