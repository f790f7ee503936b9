//! What every engine must do, as tests over whatever opens one, and opens it again on the same data.

pub(super) mod amending;
pub(super) mod applying;
pub(super) mod holding;
pub(super) mod model;
pub(super) mod moving;
pub(super) mod recording;
pub(super) mod scale;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use shared::domain::usage::UsageClass;
use shared::domain::{NanoUsd, Operation, Protocol, Provenance, RequestId, ServiceTier, Timestamp, Usage};
use tokio::runtime::Runtime;

use super::{
    Answer, Booked, Booking, Closed, CounterAsk, CounterId, End, Entry, GroupAsk, GroupId, Held, Mark, Rates,
    Refusal, Reservation, Span, Standing, Store, StoreError, Verdict, WindowRule,
};

/// A folder that goes with the value.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("relayd-test-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// Opens an engine on the data in a folder, in a runtime.
type Open = Box<dyn Fn(&Path, &Runtime) -> Arc<dyn Store>>;

/// What becomes of holds when the process that has them ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holds {
    /// They end with it.
    EndWithIt,
    /// They stay until they lapse, or what they were held for is booked.
    OutliveIt,
}

/// An engine under test.
pub(super) struct Subject {
    runtime: Runtime,
    open: Open,
    holds: Holds,
    store: Option<Arc<dyn Store>>,
    folder: Folder,
}

impl Subject {
    pub(super) fn new(open: impl Fn(&Path, &Runtime) -> Arc<dyn Store> + 'static, holds: Holds) -> Self {
        let folder = Folder::new();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let store = Some(open(folder.path(), &runtime));
        Self { runtime, open: Box::new(open), holds, store, folder }
    }

    fn store(&self) -> &Arc<dyn Store> {
        self.store.as_ref().unwrap()
    }

    /// Lets go of the store and opens it anew.
    fn reopen(&mut self) {
        self.store = None;
        self.store = Some((self.open)(self.folder.path(), &self.runtime));
    }

    /// Opens a store on new data.
    fn start_afresh(&mut self) {
        self.store = None;
        self.folder = Folder::new();
        self.store = Some((self.open)(self.folder.path(), &self.runtime));
    }

    fn wait<T>(&self, answer: Answer<'_, T>) -> Result<T, StoreError> {
        self.runtime.block_on(answer)
    }

    fn reserve(&self, request: u64, now: i64, groups: &[(&str, &[CounterAsk])]) -> Verdict {
        self.wait(reserve(&**self.store(), request, now, groups)).unwrap()
    }

    fn admit(&self, request: u64, now: i64, groups: &[(&str, &[CounterAsk])]) -> Vec<Held> {
        match self.reserve(request, now, groups) {
            Verdict::Admitted(held) => held,
            Verdict::Refused(refusal) => panic!("{refusal:?}"),
        }
    }

    fn refuse(&self, request: u64, now: i64, groups: &[(&str, &[CounterAsk])]) -> Refusal {
        match self.reserve(request, now, groups) {
            Verdict::Admitted(held) => panic!("{held:?}"),
            Verdict::Refused(refusal) => refusal,
        }
    }

    fn release(&self, request: u64, group: &str) {
        self.store().release(request_id(request), &group.into());
    }

    fn give_back(&self, request: u64, group: &str) {
        self.store().give_back(request_id(request), &group.into());
    }

    fn apply(&self, batch: &[Entry]) -> Vec<Booked> {
        self.wait(self.store().apply(batch.into())).unwrap()
    }

    fn standing(&self, group: &str, counter: Counter, now: i64) -> Standing {
        let group = GroupId::from(group);
        self.wait(self.store().standings(&group, &[ask(counter, 0)], at(now))).unwrap()[0]
    }

    /// What is booked and what is held.
    fn sums(&self, group: &str, counter: Counter, now: i64) -> (u64, u64) {
        let standing = self.standing(group, counter, now);
        (standing.booked, standing.held)
    }
}

/// Makes one test of every part of the contract: an engine is a line, not thirty functions.
macro_rules! contract_tests {
    ($open:expr, $holds:expr => $($part:ident: $($test:ident)*;)*) => {
        $($(
            #[test]
            fn $test() {
                crate::store::contract::$part::$test(&mut crate::store::contract::Subject::new($open, $holds));
            }
        )*)*
    };
}

/// Every part of the contract.
macro_rules! keeps_the_contract {
    ($open:expr, $holds:expr) => {
        crate::store::contract::contract_tests! { $open, $holds =>
            recording:
                records_change_only_from_the_version_that_was_read
                a_batch_of_changes_is_made_wholly_or_not_at_all
                records_are_listed_by_kind
                audit_entries_come_newest_first
                epochs_only_grow;
            holding:
                a_call_holds_in_all_groups_or_in_none
                a_counter_asked_twice_is_held_once
                threads_admit_exactly_the_limit
                threads_never_hold_more_leases_than_there_are
                leases_are_released_alone
                what_is_given_back_is_as_if_never_held
                a_request_may_ask_another_group_later
                windows_start_at_first_use_and_end_on_time
                windows_of_the_calendar_are_the_askers
                amounts_are_held_and_judged_as_they_are
                a_request_may_ask_for_more
                holds_lapse_unless_they_are_renewed;
            applying:
                a_booking_replaces_its_hold
                a_booking_adds_where_the_hold_has_lapsed
                a_booking_goes_to_the_window_it_was_held_in
                applying_twice_is_applying_once
                counters_that_move_are_told_once
                a_group_without_booking_loses_its_hold
                what_was_applied_outlives_the_store
                rollups_are_the_sums_of_rows
                rows_are_paged_newest_first
                rows_are_found_by_key_account_and_time
                old_rows_and_rollups_are_dropped;
            amending:
                dropped_rows_leave_closing_balances
                counters_are_set_from_where_they_stand
                rows_are_amended_where_they_are
                sums_are_put_in_the_places_of_others;
            moving:
                what_goes_out_comes_in_as_it_was
                what_came_in_is_not_applied_again
                some_of_it_is_exported_by_name
                what_is_held_is_held_elsewhere;
            scale:
                a_month_of_many_calls_is_summed_up_at_once;
            model:
                any_sequence_of_operations_agrees_with_the_model;
        }
    };
}

pub(super) use {contract_tests, keeps_the_contract};

/// The node whose records are applied.
pub(super) const NODE: u32 = 7;

const LAPSE_MS: i64 = 100_000;

/// A counter's name and its window.
pub(super) type Counter = (&'static str, WindowRule);

pub(super) const CONCURRENT: Counter = ("concurrent", WindowRule::Now);
const PER_MINUTE: Counter = ("requests per minute", WindowRule::Fixed(Duration::from_secs(60)));
pub(super) const IN_TOTAL: Counter = ("requests in total", WindowRule::Lifetime);

/// A window of the calendar.
const fn per_day(start: i64, end: i64) -> Counter {
    let span = Span { start: Timestamp::from_millis(start), end: Some(Timestamp::from_millis(end)) };
    ("cost per day", WindowRule::Calendar(span))
}

pub(super) fn counter((name, _): Counter) -> CounterId {
    CounterId::named(name).unwrap()
}

pub(super) fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// One of `counter`, of which there may be `limit`.
pub(super) fn ask((name, window): Counter, limit: u64) -> CounterAsk {
    CounterAsk { counter: counter((name, window)), window, amount: 1, limit }
}

pub(super) fn request_id(number: u64) -> RequestId {
    RequestId::from_u128(u128::from(number))
}

pub(super) fn reserve<'a>(
    store: &'a dyn Store,
    request: u64,
    now: i64,
    groups: &[(&str, &'a [CounterAsk])],
) -> Answer<'a, Verdict> {
    let groups: Vec<(GroupId, &[CounterAsk])> =
        groups.iter().map(|(group, counters)| ((*group).into(), *counters)).collect();
    Box::pin(async move {
        let groups: Vec<GroupAsk<'_>> =
            groups.iter().map(|(group, counters)| GroupAsk { group, counters }).collect();
        let request = request_id(request);
        let (now, lapses_at) = (at(now), at(now + LAPSE_MS));
        store.reserve(Reservation { request, now, lapses_at, groups: &groups }).await
    })
}

pub(super) fn booking(held: &Held) -> Booking {
    let Held { group, counter, span, amount, .. } = held.clone();
    Booking { group, counter, span, amount }
}

pub(super) fn entry(lane: u32, sequence: u64, closed: Closed) -> Entry {
    let row = minicbor::to_vec(&closed).unwrap().into();
    Entry { mark: Mark { node: NODE, lane, epoch: 1, sequence }, closed, row }
}

/// A request of `key_a` that was served by `acc_a` and used seven tokens.
pub(crate) fn closed(request: RequestId, bookings: Vec<Booking>) -> Closed {
    Closed {
        request,
        opened_at: at(i64::try_from(request.as_u128() >> 80).unwrap()),
        first_byte_at: None,
        closed_at: at(5_000),
        key: "key_a".into(),
        account: Some("acc_a".into()),
        protocol: Protocol::Messages,
        operation: Operation::Generate,
        model: "claude".to_owned(),
        priced_model: None,
        status: 200,
        end: End::Complete,
        attempts: 1,
        usage: Usage::of(&[(UsageClass::Input, 5), (UsageClass::Output, 2)]),
        provenance: Provenance::Measured,
        cost: NanoUsd::from_nanos(30),
        unpriced: false,
        price_version: 1,
        rates: Rates::default(),
        bookings,
        given_up: Vec::new(),
        session: None,
        rated: NanoUsd::from_nanos(45),
        multiplier: "1.5".parse().unwrap(),
        queued_ms: 7,
        tier: Some(ServiceTier::Priority),
        hour: at(i64::try_from(request.as_u128() >> 80).unwrap()).hour(),
    }
}
