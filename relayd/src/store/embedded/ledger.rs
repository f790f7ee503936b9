//! The file `ledger.redb`: a row for each request by its id, hourly sums, and in which hours a key or an account
//! has rows, so that nobody's rows are looked for among everybody's.

use std::ops::Bound;
use std::path::Path;

use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction};
use shared::domain::{RequestId, Timestamp};

use super::balances::{self, Closing};
use super::database::{DatabaseFile, damaged};
use super::hours;
use super::marks::{self, Marks};
use super::rollups::{self, Sums};
use super::transfer::read;
use crate::store::amend::amended;
use crate::store::id_span::{IdSpan, first_id};
use crate::store::{Closed, Entry, Kept, Mark, Rollup, RollupKey, RollupQuery, Row, RowQuery, StoreError};

const CACHE_BYTES: usize = 4 << 20;

/// How many rows or hours one transaction drops.
const PRUNED_AT_ONCE: usize = 10_000;

/// Request id; [`Closed`] as CBOR.
const ROWS: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("rows");

/// The file.
pub(super) struct LedgerFile(DatabaseFile);

impl LedgerFile {
    pub(super) fn open(dir: &Path) -> Result<Self, StoreError> {
        Self::with(DatabaseFile::open(dir.join("ledger.redb"), CACHE_BYTES)?)
    }

    pub(super) fn with(file: DatabaseFile) -> Result<Self, StoreError> {
        file.create_tables(|transaction| {
            transaction.open_table(ROWS)?;
            hours::create(transaction)?;
            rollups::create(transaction)?;
            balances::create(transaction)?;
            marks::create(transaction)
        })?;
        if !file.read(balances::exist)? {
            file.write(|transaction| balances::begin(transaction, first_row(transaction)?))?;
        }
        Ok(Self(file))
    }

    /// Adds what is new in the batch: rows, sums, hours; and moves the marks.
    pub(super) fn add(&self, batch: &[Entry]) -> Result<(), StoreError> {
        self.0.write(|transaction| {
            let mut marks = Marks::read_to_change(transaction)?;
            let mut new: Vec<&Entry> = batch.iter().filter(|entry| marks.pass(entry.mark)).collect();
            // Neighbours share pages.
            new.sort_unstable_by_key(|entry| entry.closed.request);
            let mut table = transaction.open_table(ROWS)?;
            for entry in &new {
                table.insert(entry.closed.request.as_u128(), entry.row())?;
            }
            let new: Vec<&Closed> = new.into_iter().map(|entry| &entry.closed).collect();
            Sums::over(&new).add(transaction)?;
            hours::add(transaction, &new)?;
            marks.write(transaction)
        })
    }

    pub(super) fn marks(&self) -> Result<Marks, StoreError> {
        self.0.read(Marks::read)
    }

    pub(super) fn rows(&self, query: &RowQuery) -> Result<Vec<Closed>, StoreError> {
        let span = IdSpan::of(query);
        self.0.read(|transaction| {
            let mut rows = Vec::new();
            let Some(subject) = hours::Subject::of(query) else {
                collect(transaction, span, query, &mut rows)?;
                return Ok(rows);
            };
            for hour in hours::newest_first(transaction, &subject, span)? {
                collect(transaction, span.within_hour(hour?), query, &mut rows)?;
                if rows.len() >= query.limit {
                    break;
                }
            }
            Ok(rows)
        })
    }

    pub(super) fn rollups(&self, query: &RollupQuery) -> Result<Vec<(RollupKey, Rollup)>, StoreError> {
        self.0.read(|transaction| rollups::read(transaction, query))
    }

    pub(super) fn prune(
        &self,
        rows_before: Timestamp,
        rollups_before: Option<Timestamp>,
    ) -> Result<u64, StoreError> {
        let mut dropped = 0;
        loop {
            let some = self.0.write(|transaction| drop_rows(transaction, rows_before))?;
            dropped += some as u64;
            if some < PRUNED_AT_ONCE {
                break;
            }
        }
        self.forget_hours(rows_before)?;
        self.0.write(|transaction| {
            balances::drop_ended(transaction, rows_before)?;
            let Some(before) = rollups_before else { return Ok(()) };
            balances::note_sums(transaction, before)?;
            rollups::drop_before(transaction, before)
        })?;
        Ok(dropped)
    }

    pub(super) fn kept(&self) -> Result<Kept, StoreError> {
        self.0.read(balances::kept)
    }

    /// Puts rows in the places of those that are there; gives how many were.
    pub(super) fn amend(&self, rows: &[Closed]) -> Result<u64, StoreError> {
        self.0.write(|transaction| {
            let mut table = transaction.open_table(ROWS)?;
            let mut found = 0;
            for closed in rows {
                let id = closed.request.as_u128();
                let row = table.get(id)?.map(|stored| amended(stored.value(), closed)).transpose()?;
                if let Some(row) = row {
                    table.insert(id, row.as_slice())?;
                    found += 1;
                }
            }
            Ok(found)
        })
    }

    pub(super) fn put_sums(&self, sums: &[(RollupKey, Rollup)]) -> Result<(), StoreError> {
        self.0.write(|transaction| rollups::put(transaction, sums))
    }

    /// Batches wait for the file only as long as one part takes.
    fn forget_hours(&self, before: Timestamp) -> Result<(), StoreError> {
        loop {
            let some = self.0.read(|transaction| hours::some_before(transaction, before, PRUNED_AT_ONCE))?;
            if some.is_empty() {
                return Ok(());
            }
            self.0.write(|transaction| hours::forget(transaction, &some))?;
        }
    }
}

/// Moving.
impl LedgerFile {
    pub(super) fn rows_after(&self, after: Option<RequestId>, count: usize) -> Result<Vec<Row>, StoreError> {
        let from = after.map_or(Bound::Unbounded, |id| Bound::Excluded(id.as_u128()));
        self.0.read(|transaction| {
            let mut rows = Vec::new();
            for row in transaction.open_table(ROWS)?.range::<u128>((from, Bound::Unbounded))?.take(count) {
                let (id, value) = row?;
                rows.push(Row { request: RequestId::from_u128(id.value()), cbor: value.value().into() });
            }
            Ok(rows)
        })
    }

    pub(super) fn these_rows(&self, ids: &[RequestId]) -> Result<Vec<Row>, StoreError> {
        self.0.read(|transaction| {
            let table = transaction.open_table(ROWS)?;
            let mut rows = Vec::new();
            for id in ids {
                if let Some(value) = table.get(id.as_u128())? {
                    rows.push(Row { request: *id, cbor: value.value().into() });
                }
            }
            Ok(rows)
        })
    }

    pub(super) fn put_rows(&self, rows: &[Row]) -> Result<(), StoreError> {
        let closed = rows.iter().map(read).collect::<Result<Vec<Closed>, _>>()?;
        self.0.write(|transaction| {
            let mut table = transaction.open_table(ROWS)?;
            for row in rows {
                table.insert(row.request.as_u128(), &*row.cbor)?;
            }
            hours::add(transaction, &closed.iter().collect::<Vec<_>>())
        })
    }

    /// Whole hours of sums from one on, and the hour in which it goes on.
    pub(super) fn sums_from(
        &self,
        since: Option<Timestamp>,
        count: usize,
    ) -> Result<rollups::Page, StoreError> {
        self.0.read(|transaction| rollups::page(transaction, since, count))
    }

    pub(super) fn these_sums(&self, hours: &[Timestamp]) -> Result<Vec<(RollupKey, Rollup)>, StoreError> {
        self.0.read(|transaction| {
            let mut sums = Vec::new();
            for hour in hours {
                let (since, until) = (Some(*hour), Some(super::transfer::next_millisecond(*hour)));
                let query = RollupQuery { since, until, ..RollupQuery::default() };
                sums.extend(rollups::read(transaction, &query)?);
            }
            Ok(sums)
        })
    }

    pub(super) fn put_kept(&self, kept: &Kept) -> Result<(), StoreError> {
        self.0.write(|transaction| balances::put(transaction, kept))
    }

    pub(super) fn put_marks(&self, marks: &[Mark]) -> Result<(), StoreError> {
        self.0.write(|transaction| Marks::put(transaction, marks))
    }

    /// Rows and sums.
    pub(super) fn count(&self) -> Result<(u64, u64), StoreError> {
        self.0.read(|transaction| Ok((transaction.open_table(ROWS)?.len()?, rollups::count(transaction)?)))
    }

    /// Lets go of the file.
    pub(super) fn close(&self) {
        self.0.close();
    }
}

/// Collects the rows of a span that the query asks for, newest first, until there are enough.
fn collect(
    transaction: &ReadTransaction,
    span: IdSpan,
    query: &RowQuery,
    rows: &mut Vec<Closed>,
) -> Result<(), StoreError> {
    if span.is_empty() {
        return Ok(());
    }
    let table = transaction.open_table(ROWS)?;
    for row in table.range(span.first..span.end)?.rev() {
        if rows.len() >= query.limit {
            break;
        }
        let (_, value) = row?;
        let closed: Closed = minicbor::decode(value.value()).map_err(|error| damaged("ledger row", error))?;
        let is_asked = query.key.as_ref().is_none_or(|key| closed.key == *key)
            && query.account.as_ref().is_none_or(|account| closed.account.as_ref() == Some(account));
        if is_asked {
            rows.push(closed);
        }
    }
    Ok(())
}

/// Drops some of the rows opened before a time, and closes the balances of what they had booked.
fn drop_rows(transaction: &WriteTransaction, before: Timestamp) -> Result<usize, StoreError> {
    let mut table = transaction.open_table(ROWS)?;
    let mut closing = Closing::at(before);
    for row in table.extract_from_if(..first_id(before), |_, _| true)?.take(PRUNED_AT_ONCE) {
        let (_, value) = row?;
        closing.count();
        // What cannot be read goes all the same; it is in no balance, as it is in no list of rows.
        if let Ok(closed) = minicbor::decode::<Closed>(value.value()) {
            closing.add(closed.bookings);
        }
    }
    let dropped = closing.rows();
    closing.write(transaction)?;
    Ok(dropped)
}

/// When the first row was opened.
fn first_row(transaction: &WriteTransaction) -> Result<Option<Timestamp>, StoreError> {
    let first = transaction.open_table(ROWS)?.first()?.map(|(id, _)| id.value());
    // 48 bits are left.
    Ok(first.map(|id| Timestamp::from_millis(i64::try_from(id >> 80).unwrap_or(i64::MAX))))
}
