//! Closing balances: what rows that were dropped had booked in windows that may still run; and from when on rows,
//! sums and balances are whole.

use std::collections::HashMap;
use std::time::Duration;

use ahash::RandomState;
use redb::{ReadTransaction, ReadableTable, TableDefinition, TableHandle, WriteTransaction};
use shared::domain::Timestamp;

use super::database::damaged;
use super::rollups;
use crate::store::{Booking, CounterId, GroupId, Kept, Span, StoreError};

/// Group, counter, start of the window; its end, and what the rows had booked in it.
const BALANCES: TableDefinition<'_, (&str, &str, i64), (Option<i64>, u64)> = TableDefinition::new("balances");

/// Times by name.
const KEPT: TableDefinition<'_, &str, i64> = TableDefinition::new("kept");

const ROWS_SINCE: &str = "rows_since";
const SUMS_SINCE: &str = "sums_since";
const BALANCES_SINCE: &str = "balances_since";

/// A call's row may be some minutes younger or older than the hour that its sum is in.
const HOUR_OR_NEXT: Duration = Duration::from_secs(2 * 3_600);

pub(super) fn create(transaction: &WriteTransaction) -> Result<(), StoreError> {
    transaction.open_table(BALANCES)?;
    transaction.open_table(KEPT)?;
    Ok(())
}

/// Whether the file has balances at all: those of older versions have none.
pub(super) fn exist(transaction: &ReadTransaction) -> Result<bool, StoreError> {
    Ok(transaction.list_tables()?.any(|table| table.name() == KEPT.name()))
}

/// Begins to keep balances in a file of an older version. Sums of hours before the first row tell that rows were
/// dropped, and that nobody knows what these had booked.
pub(super) fn begin(transaction: &WriteTransaction, first_row: Option<Timestamp>) -> Result<(), StoreError> {
    create(transaction)?;
    let Some((first_hour, last_hour)) = rollups::hours(transaction)? else { return Ok(()) };
    let whole_since = match first_row {
        Some(row) if first_hour.after(HOUR_OR_NEXT) > row => return Ok(()),
        Some(row) => row,
        None => last_hour.after(HOUR_OR_NEXT),
    };
    note(transaction, ROWS_SINCE, whole_since)?;
    note(transaction, BALANCES_SINCE, whole_since)
}

/// A window of a counter, by its start.
type Place = (GroupId, CounterId, Timestamp);

/// What rows that are dropped leave behind: for each window, its end and what they had booked in it.
pub(super) struct Closing {
    before: Timestamp,
    rows: usize,
    booked: HashMap<Place, (Option<Timestamp>, u64), RandomState>,
}

impl Closing {
    /// Of rows opened before a time.
    pub(super) fn at(before: Timestamp) -> Self {
        Self { before, rows: 0, booked: HashMap::default() }
    }

    /// A row goes.
    pub(super) fn count(&mut self) {
        self.rows += 1;
    }

    /// How many rows go.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Takes over what a row booked in windows that go beyond that time: no other will ever be asked for again.
    pub(super) fn add(&mut self, bookings: Vec<Booking>) {
        for Booking { group, counter, span, amount } in bookings {
            if !span.is_over(self.before) {
                let balance = self.booked.entry((group, counter, span.start)).or_insert((span.end, 0));
                balance.1 = balance.1.saturating_add(amount);
            }
        }
    }

    pub(super) fn write(self, transaction: &WriteTransaction) -> Result<(), StoreError> {
        if self.rows == 0 {
            return Ok(());
        }
        let mut table = transaction.open_table(BALANCES)?;
        for ((group, counter, start), (end, booked)) in self.booked {
            let place = (group.as_str(), counter.as_str(), start.as_millis());
            let before = table.get(place)?.map_or(0, |stored| stored.value().1);
            table.insert(place, (end.map(Timestamp::as_millis), before.saturating_add(booked)))?;
        }
        note(transaction, ROWS_SINCE, self.before)
    }
}

/// Forgets balances of windows that were over at a time.
pub(super) fn drop_ended(transaction: &WriteTransaction, time: Timestamp) -> Result<(), StoreError> {
    let time = time.as_millis();
    transaction.open_table(BALANCES)?.retain(|_, (end, _)| end.is_none_or(|end| end > time))?;
    Ok(())
}

/// Sums of hours before a time are about to be dropped, if there are any.
pub(super) fn note_sums(transaction: &WriteTransaction, before: Timestamp) -> Result<(), StoreError> {
    match rollups::hours(transaction)? {
        Some((first, _)) if first < before => note(transaction, SUMS_SINCE, before),
        _ => Ok(()),
    }
}

/// What is gone does not come back: these times only grow.
fn note(transaction: &WriteTransaction, name: &str, time: Timestamp) -> Result<(), StoreError> {
    let mut table = transaction.open_table(KEPT)?;
    let before = table.get(name)?.map_or(i64::MIN, |stored| stored.value());
    table.insert(name, before.max(time.as_millis()))?;
    Ok(())
}

/// Puts in the place of what is there what another store kept.
pub(super) fn put(transaction: &WriteTransaction, kept: &Kept) -> Result<(), StoreError> {
    let Kept { rows_since, sums_since, balances_since, balances } = kept;
    let mut times = transaction.open_table(KEPT)?;
    for (name, time) in [(ROWS_SINCE, rows_since), (SUMS_SINCE, sums_since), (BALANCES_SINCE, balances_since)]
    {
        match time {
            Some(time) => drop(times.insert(name, time.as_millis())?),
            None => drop(times.remove(name)?),
        }
    }
    let mut table = transaction.open_table(BALANCES)?;
    table.retain(|_, _| false)?;
    for Booking { group, counter, span, amount } in balances {
        let place = (group.as_str(), counter.as_str(), span.start.as_millis());
        table.insert(place, (span.end.map(Timestamp::as_millis), *amount))?;
    }
    Ok(())
}

pub(super) fn kept(transaction: &ReadTransaction) -> Result<Kept, StoreError> {
    let times = transaction.open_table(KEPT)?;
    let time = |name: &str| -> Result<Option<Timestamp>, StoreError> {
        Ok(times.get(name)?.map(|stored| Timestamp::from_millis(stored.value())))
    };
    let mut balances = Vec::new();
    for row in transaction.open_table(BALANCES)?.iter()? {
        let (place, value) = row?;
        let ((group, counter, start), (end, amount)) = (place.value(), value.value());
        let counter = CounterId::named(counter)
            .ok_or_else(|| damaged("closing balance", "its counter has an unknown metric"))?;
        let span = Span { start: Timestamp::from_millis(start), end: end.map(Timestamp::from_millis) };
        balances.push(Booking { group: group.into(), counter, span, amount });
    }
    Ok(Kept {
        rows_since: time(ROWS_SINCE)?,
        sums_since: time(SUMS_SINCE)?,
        balances_since: time(BALANCES_SINCE)?,
        balances,
    })
}
