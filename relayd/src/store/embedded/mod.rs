//! The store that needs no other service: counters and holds in memory, two redb files for what must last.
//! Judging a call touches memory alone; whatever touches a file runs on a thread where it may block.

mod balances;
mod bookings;
mod database;
mod hours;
mod ledger;
mod marks;
mod record;
mod rollups;
mod state;
#[cfg(test)]
mod tests;
mod transfer;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use ahash::RandomState;
use shared::admin::AuditEntry;
use shared::domain::{RequestId, Timestamp};

use self::ledger::LedgerFile;
use self::state::StateFile;
use super::memory::{Counters, Settlement};
use super::{
    Answer, Booked, Booking, Census, Chunk, Closed, CounterAsk, Cursor, Entry, Exported, GroupId, HeldGroup,
    Kept, Mark, Record, RecordKind, Reservation, Rollup, RollupKey, RollupQuery, RowQuery, Standing, Store,
    StoreError, StoreState, Verdict, Write,
};

/// The engine. Clones share one store.
#[derive(Clone)]
pub struct Embedded {
    inner: Arc<Inner>,
}

struct Inner {
    counters: Counters,
    state: StateFile,
    ledger: LedgerFile,
    health: Mutex<StoreState>,
    /// Held while a batch is applied: memory takes over what the file has in the order of the commits.
    applying: Mutex<()>,
}

impl Embedded {
    /// Opens the files in a folder, which must exist, or creates them. Blocks.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] if another process has them open or the folder cannot be written,
    /// [`StoreError::Damaged`] if they hold what this version cannot read.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        Self::with(StateFile::open(dir)?, LedgerFile::open(dir)?)
    }

    fn with(state: StateFile, ledger: LedgerFile) -> Result<Self, StoreError> {
        let groups = state.groups()?.into_iter().map(|(group, record)| (group, record.counters));
        let counters = Counters::new(groups);
        let health = Mutex::new(StoreState::Ok);
        let inner = Inner { counters, state, ledger, health, applying: Mutex::new(()) };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Reads on a thread that may block.
    fn reading<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Answer<'_, T> {
        let inner = Arc::clone(&self.inner);
        Box::pin(async move {
            let done = tokio::task::spawn_blocking(move || work(&inner)).await;
            done.unwrap_or_else(|stopped| Err(StoreError::Unavailable(Box::new(stopped))))
        })
    }

    /// Writes on a thread that may block, and remembers how it went.
    fn writing<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Answer<'_, T> {
        self.reading(move |inner| {
            let result = work(inner);
            inner.remember(result.as_ref().err());
            result
        })
    }
}

impl Inner {
    fn remember(&self, error: Option<&StoreError>) {
        let state = match error {
            None | Some(StoreError::Changed) => StoreState::Ok,
            Some(error) => StoreState::Failing(error.innermost()),
        };
        *self.health.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// Rows first, counters second, memory last: the counters' marks are never ahead of the rows'. Memory takes
    /// over what the file has rather than adding to what it had itself, so that a commit whose outcome was
    /// not known is put right by the next.
    fn apply(&self, batch: &[Entry]) -> Result<Vec<Booked>, StoreError> {
        let _applying = self.applying.lock().unwrap_or_else(PoisonError::into_inner);
        self.ledger.add(batch)?;
        let mut settlements: HashMap<GroupId, Settlement, RandomState> = HashMap::default();
        let (groups, moved) = self.state.book(batch)?;
        for (group, record) in groups {
            settlements.entry(group).or_default().records = record.counters;
        }
        for entry in batch {
            let request = entry.closed.request;
            for group in self.counters.take_groups_of(request) {
                settlements.entry(group).or_default().requests.push(request);
            }
        }
        for (group, settlement) in &settlements {
            self.counters.settle(group, settlement);
        }
        Ok(moved)
    }

    /// As a batch that ends no request.
    fn correct(&self, counters: &[Booked]) -> Result<Vec<Booked>, StoreError> {
        let _applying = self.applying.lock().unwrap_or_else(PoisonError::into_inner);
        let (groups, moved) = self.state.correct(counters)?;
        for (group, record) in groups {
            self.counters.settle(&group, &Settlement { records: record.counters, requests: Vec::new() });
        }
        Ok(moved)
    }
}

impl Store for Embedded {
    fn engine(&self) -> &'static str {
        "embedded"
    }

    fn state(&self) -> StoreState {
        self.inner.health.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn records(&self, kind: RecordKind) -> Answer<'_, Vec<Record>> {
        self.reading(move |inner| inner.state.records(kind))
    }

    fn record(&self, kind: RecordKind, id: &str) -> Answer<'_, Option<Record>> {
        let id = id.to_owned();
        self.reading(move |inner| inner.state.record(kind, &id))
    }

    fn write(&self, writes: Vec<Write>) -> Answer<'_, Vec<u64>> {
        self.writing(move |inner| inner.state.write(&writes))
    }

    fn audit(&self, since: Option<Timestamp>, limit: usize) -> Answer<'_, Vec<AuditEntry>> {
        self.reading(move |inner| inner.state.audit(since, limit))
    }

    fn next_epoch(&self, seen: u64) -> Answer<'_, u64> {
        self.writing(move |inner| inner.state.next_epoch(seen))
    }

    fn reserve<'a>(&'a self, reservation: Reservation<'a>) -> Answer<'a, Verdict> {
        Box::pin(std::future::ready(Ok(self.inner.counters.reserve(&reservation))))
    }

    fn release(&self, request: RequestId, group: &GroupId) {
        self.inner.counters.release(request, group);
    }

    fn give_back(&self, request: RequestId, group: &GroupId) {
        self.inner.counters.give_back(request, group);
    }

    fn renew_holds(&self, _now: Timestamp, until: Timestamp) -> Answer<'_, ()> {
        self.inner.counters.renew_holds(until);
        Box::pin(std::future::ready(Ok(())))
    }

    fn standings<'a>(
        &'a self,
        group: &'a GroupId,
        counters: &'a [CounterAsk],
        now: Timestamp,
    ) -> Answer<'a, Vec<Standing>> {
        Box::pin(std::future::ready(Ok(self.inner.counters.standings(group, counters, now))))
    }

    fn apply(&self, batch: Arc<[Entry]>) -> Answer<'_, Vec<Booked>> {
        self.writing(move |inner| inner.apply(&batch))
    }

    fn marks(&self) -> Answer<'_, Vec<Mark>> {
        self.reading(|inner| Ok(inner.state.marks()?.common(&inner.ledger.marks()?)))
    }

    fn rows(&self, query: RowQuery) -> Answer<'_, Vec<Closed>> {
        self.reading(move |inner| inner.ledger.rows(&query))
    }

    fn rollups(&self, query: RollupQuery) -> Answer<'_, Vec<(RollupKey, Rollup)>> {
        self.reading(move |inner| inner.ledger.rollups(&query))
    }

    fn prune(&self, rows_before: Timestamp, rollups_before: Option<Timestamp>) -> Answer<'_, u64> {
        self.writing(move |inner| inner.ledger.prune(rows_before, rollups_before))
    }

    fn kept(&self) -> Answer<'_, Kept> {
        self.reading(|inner| inner.ledger.kept())
    }

    fn counters(&self, groups: Vec<GroupId>) -> Answer<'_, Vec<Booking>> {
        self.reading(move |inner| inner.state.counters(&groups))
    }

    fn amend_rows(&self, rows: Vec<Closed>) -> Answer<'_, u64> {
        self.writing(move |inner| inner.ledger.amend(&rows))
    }

    fn put_sums(&self, sums: Vec<(RollupKey, Rollup)>) -> Answer<'_, ()> {
        self.writing(move |inner| inner.ledger.put_sums(&sums))
    }

    fn correct(&self, counters: Vec<Booked>) -> Answer<'_, Vec<Booked>> {
        self.writing(move |inner| inner.correct(&counters))
    }

    fn export(&self, cursor: Cursor) -> Answer<'_, Exported> {
        self.reading(move |inner| inner.export(cursor))
    }

    fn import(&self, chunk: Chunk) -> Answer<'_, ()> {
        self.writing(move |inner| inner.import(chunk))
    }

    fn census(&self) -> Answer<'_, Census> {
        self.reading(Inner::census)
    }

    fn holds(&self) -> Vec<HeldGroup> {
        self.inner.counters.holds()
    }

    fn hold_again(&self, holds: Vec<HeldGroup>, _now: Timestamp, until: Timestamp) -> Answer<'_, ()> {
        for held in &holds {
            self.inner.counters.hold_again(held);
        }
        self.inner.counters.renew_holds(until);
        Box::pin(std::future::ready(Ok(())))
    }

    fn close(&self) {
        self.inner.state.close();
        self.inner.ledger.close();
    }
}
