//! What rows and closing balances add up to, beside what the store has. No I/O.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ahash::RandomState;
use shared::domain::Timestamp;

use crate::store::{Booked, Booking, Closed, CounterId, GroupId, Kept, Rollup, RollupKey, Span};

/// An amount before and after, in nano-dollars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Before.
    pub before: i128,
    /// After.
    pub after: i128,
}

/// An hourly sum that is not what the rows add up to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SumChange {
    /// Its key.
    pub key: RollupKey,
    /// What the store has.
    pub before: Rollup,
    /// What the rows add up to.
    pub after: Rollup,
}

/// How the store differs from what its rows add up to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Calls that were read.
    pub calls: u64,
    /// Calls among them that are to be written anew.
    pub amended: u64,
    /// Calls among them without a price in the list, which keep what they cost.
    pub without_price: u64,
    /// What those that are to be written anew cost.
    pub cost: Change,
    /// What the keys' holders are charged for them.
    pub rated: Change,
    /// The first hour whose sums could be compared; `None` is the first there is.
    pub hours_from: Option<Timestamp>,
    /// Hourly sums that differ.
    pub sums: Vec<SumChange>,
    /// Counters that differ.
    pub counters: Vec<Booked>,
    /// Counters that differ and are left alone: what they had counted before rows were kept is not known.
    pub left_alone: Vec<Booked>,
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.amended == 0 && self.sums.is_empty() && self.counters.is_empty()
    }
}

/// A counter.
type Name = (GroupId, CounterId);

/// What the rows that were read so far add up to.
pub(super) struct Tally {
    now: Timestamp,
    plan: Plan,
    sums: BTreeMap<RollupKey, Rollup>,
    /// What is booked in each window of a counter that has not ended.
    booked: HashMap<Name, BTreeMap<Timestamp, (Span, u64)>, RandomState>,
}

impl Tally {
    /// Of windows that run at `now`, and of hours from a time on.
    pub(super) fn new(now: Timestamp, hours_from: Option<Timestamp>) -> Self {
        let plan = Plan { hours_from, ..Plan::default() };
        Self { now, plan, sums: BTreeMap::new(), booked: HashMap::default() }
    }

    /// Counts a row as it is to be.
    pub(super) fn add(&mut self, row: &Closed) {
        self.plan.calls += 1;
        for Booking { group, counter, span, amount } in &row.bookings {
            self.book(group, counter, *span, *amount);
        }
        if self.plan.hours_from.is_some_and(|from| row.hour < from) {
            return;
        }
        self.sums.entry(RollupKey::of(row)).or_default().add(row);
        for attempt in &row.given_up {
            self.sums.entry(RollupKey::of_given_up(row, attempt)).or_default().add_given_up(attempt);
        }
    }

    /// A row is to be written anew.
    pub(super) fn amend(&mut self, before: &Closed, after: &Closed) {
        self.plan.amended += 1;
        let add = |change: &mut Change, from: i64, to: i64| {
            change.before += i128::from(from);
            change.after += i128::from(to);
        };
        let given_up = |row: &Closed| row.given_up.iter().map(|attempt| attempt.cost.as_nanos()).sum::<i64>();
        add(&mut self.plan.cost, before.cost.as_nanos(), after.cost.as_nanos());
        add(&mut self.plan.cost, given_up(before), given_up(after));
        add(&mut self.plan.rated, before.rated.as_nanos(), after.rated.as_nanos());
    }

    /// A row keeps what it cost for want of a price.
    pub(super) fn miss_price(&mut self) {
        self.plan.without_price += 1;
    }

    /// Calls that were counted.
    pub(super) fn calls(&self) -> u64 {
        self.plan.calls
    }

    /// The groups in which rows have booked something.
    pub(super) fn groups(&self) -> impl Iterator<Item = &GroupId> {
        self.booked.keys().map(|(group, _)| group)
    }

    /// Compares with what the store has: its closing balances, counters and hourly sums.
    pub(super) fn compare(
        mut self,
        kept: &Kept,
        counters: Vec<Booking>,
        sums: Vec<(RollupKey, Rollup)>,
    ) -> Plan {
        for Booking { group, counter, span, amount } in &kept.balances {
            self.book(group, counter, *span, *amount);
        }
        let (differing, left_alone) = self
            .counters(counters)
            .filter(|counter| counter.before != counter.after)
            .partition(|counter| kept.balances_since.is_none_or(|since| since <= counter.span.start));
        let sums = sum_changes(std::mem::take(&mut self.sums), sums);
        Plan { counters: differing, left_alone, sums, ..self.plan }
    }

    fn book(&mut self, group: &GroupId, counter: &CounterId, span: Span, amount: u64) {
        if span.is_over(self.now) {
            return;
        }
        let windows = self.booked.entry((group.clone(), counter.clone())).or_default();
        let (_, booked) = windows.entry(span.start).or_insert((span, 0));
        *booked = booked.saturating_add(amount);
    }

    /// Every counter in its last window: where it stands, and where it should.
    fn counters(&self, stored: Vec<Booking>) -> impl Iterator<Item = Booked> {
        let stored: BTreeMap<Name, (Span, u64)> = stored
            .into_iter()
            .filter(|booking| !booking.span.is_over(self.now))
            .map(|booking| ((booking.group, booking.counter), (booking.span, booking.amount)))
            .collect();
        let names: BTreeSet<Name> = stored.keys().chain(self.booked.keys()).cloned().collect();
        names.into_iter().filter_map(move |name| {
            let windows = self.booked.get(&name);
            let last = windows.and_then(|windows| windows.values().next_back()).map(|(span, _)| *span);
            let stands = stored.get(&name).copied();
            let of_store = stands.map(|(span, _)| span);
            let span = last.into_iter().chain(of_store).max_by_key(|span| span.start)?;
            let before = stands.filter(|(stored, _)| stored.start == span.start);
            let after = windows.and_then(|windows| windows.get(&span.start));
            let amount = |found: Option<(Span, u64)>| found.map_or(0, |(_, amount)| amount);
            let (group, counter) = name;
            Some(Booked { group, counter, span, before: amount(before), after: amount(after.copied()) })
        })
    }
}

/// The sums that differ, those too that stand for no row.
fn sum_changes(
    mut expected: BTreeMap<RollupKey, Rollup>,
    stored: Vec<(RollupKey, Rollup)>,
) -> Vec<SumChange> {
    let stored = stored.into_iter().map(|(key, before)| {
        let after = expected.remove(&key).unwrap_or_default();
        SumChange { key, before, after }
    });
    let mut changes: Vec<SumChange> = stored.filter(|change| change.before != change.after).collect();
    let missing =
        expected.into_iter().map(|(key, after)| SumChange { key, before: Rollup::default(), after });
    changes.extend(missing);
    changes
}
