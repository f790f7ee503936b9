//! The store that is in use, behind a switch: it may be exchanged for another while the process runs. What is
//! applied meanwhile is noted, so that the other can be brought up to it. At the exchange nobody is admitted: whoever
//! wants to be waits for a moment.

mod gate;
mod noting;
#[cfg(test)]
mod tests;

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use shared::admin::AuditEntry;
use shared::domain::{RequestId, Timestamp};
use tokio::sync::Notify;

use self::gate::Gate;
use self::noting::Notes;
pub use self::noting::Touched;
use super::{
    Adopted, Adoption, Answer, Booked, Booking, Census, Chunk, Closed, CounterAsk, Cursor, Entry, Exported,
    GroupId, HeldGroup, Kept, Mark, News, Record, RecordKind, Reservation, Rollup, RollupKey, RollupQuery,
    RowQuery, Standing, Store, StoreError, StoreState, Stranger, Verdict, Write,
};

/// How many exchanges there may be. Each store stays where it is: whoever borrowed it may still be at it.
const EXCHANGES_MAX: usize = 7;
/// How long a call waits to be admitted.
const PATIENCE: Duration = Duration::from_secs(3);
/// When it makes sense to try again after that.
const RETRY: Duration = Duration::from_secs(5);

/// Why the store was not exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SwitchError {
    /// There were too many before.
    #[error("the store was exchanged too often since the start; restart relayd first")]
    TooOften,
}

/// The store in use.
pub struct Switch {
    first: Box<dyn Store>,
    later: [OnceLock<Box<dyn Store>>; EXCHANGES_MAX],
    exchanges: AtomicUsize,
    gate: Gate,
    /// What ended while the store is about to be exchanged.
    ends: Mutex<Option<Vec<HoldEnd>>>,
    notes: Notes,
    exchanged: Notify,
}

/// A request lets go of something.
struct HoldEnd {
    request: RequestId,
    group: GroupId,
    /// Of all that it holds in the group, not of its leases alone.
    is_whole: bool,
}

impl HoldEnd {
    fn carry_out(&self, store: &dyn Store) {
        match self.is_whole {
            true => store.give_back(self.request, &self.group),
            false => store.release(self.request, &self.group),
        }
    }
}

impl Switch {
    /// Begins with a store.
    pub fn new(store: Box<dyn Store>) -> Self {
        Self {
            first: store,
            later: std::array::from_fn(|_| OnceLock::new()),
            exchanges: AtomicUsize::new(0),
            gate: Gate::default(),
            ends: Mutex::default(),
            notes: Notes::default(),
            exchanged: Notify::new(),
        }
    }

    /// The store in use.
    pub fn current(&self) -> &dyn Store {
        let exchanges = self.exchanges.load(Ordering::Acquire);
        let last = exchanges.checked_sub(1).and_then(|place| self.later[place].get());
        &**last.unwrap_or(&self.first)
    }

    /// Begins to note what is applied.
    pub fn note(&self) {
        self.notes.begin();
    }

    /// What was applied since it was asked last.
    pub fn take_notes(&self) -> Touched {
        self.notes.take()
    }

    /// Ceases to note.
    pub fn forget(&self) {
        self.notes.end();
    }

    /// Lets nobody be admitted until the value is dropped; returns when nobody is half admitted.
    pub async fn freeze(&self) -> Frozen<'_> {
        *self.ends() = Some(Vec::new());
        let frozen = Frozen { switch: self };
        self.gate.shut().await;
        frozen
    }

    fn ends(&self) -> MutexGuard<'_, Option<Vec<HoldEnd>>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries out an end; while the store is about to be exchanged, it is noted for the next one.
    fn end(&self, request: RequestId, group: &GroupId, is_whole: bool) {
        let _pass = self.gate.pass();
        if !self.gate.is_shut() {
            return match is_whole {
                true => self.current().give_back(request, group),
                false => self.current().release(request, group),
            };
        }
        let end = HoldEnd { request, group: group.clone(), is_whole };
        let mut ends = self.ends();
        end.carry_out(self.current());
        if let Some(ends) = &mut *ends {
            ends.push(end);
        }
    }

    /// Waits to be let in, for a moment.
    async fn reserve_later(&self, reservation: Reservation<'_>) -> Result<Verdict, StoreError> {
        let retry_at = reservation.now.after(PATIENCE + RETRY);
        let opened = tokio::time::timeout(PATIENCE, self.gate.opened()).await;
        let Ok(_pass) = opened else { return Err(StoreError::Moving { retry_at }) };
        self.current().reserve(reservation).await
    }
}

/// Nobody is admitted while this lives.
pub struct Frozen<'a> {
    switch: &'a Switch,
}

impl Frozen<'_> {
    /// Puts a store in the place of the one in use, which is let go of. What ended meanwhile ends there too.
    ///
    /// # Errors
    ///
    /// There were too many; nothing was changed.
    pub fn exchange(self, store: Box<dyn Store>) -> Result<(), SwitchError> {
        let switch = self.switch;
        let mut ends = switch.ends();
        let (old, exchanges) = (switch.current(), switch.exchanges.load(Ordering::Acquire));
        let place = switch.later.get(exchanges).ok_or(SwitchError::TooOften)?;
        place.set(store).map_err(|_| SwitchError::TooOften)?;
        switch.exchanges.store(exchanges + 1, Ordering::Release);
        for end in ends.take().into_iter().flatten() {
            end.carry_out(switch.current());
        }
        drop(ends);
        old.close();
        switch.exchanged.notify_waiters();
        Ok(())
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        *self.switch.ends() = None;
        self.switch.gate.open();
    }
}

impl Store for Switch {
    fn engine(&self) -> &'static str {
        self.current().engine()
    }

    fn state(&self) -> StoreState {
        self.current().state()
    }

    fn serves(&self) -> bool {
        self.current().serves()
    }

    fn news(&self) -> Pin<Box<dyn Future<Output = News> + Send + '_>> {
        Box::pin(async {
            loop {
                let exchanged = self.exchanged.notified();
                tokio::select! {
                    news = self.current().news() => return news,
                    () = exchanged => {}
                }
            }
        })
    }

    fn records(&self, kind: RecordKind) -> Answer<'_, Vec<Record>> {
        self.current().records(kind)
    }

    fn record(&self, kind: RecordKind, id: &str) -> Answer<'_, Option<Record>> {
        self.current().record(kind, id)
    }

    fn write(&self, writes: Vec<Write>) -> Answer<'_, Vec<u64>> {
        self.current().write(writes)
    }

    fn audit(&self, since: Option<Timestamp>, limit: usize) -> Answer<'_, Vec<AuditEntry>> {
        self.current().audit(since, limit)
    }

    fn next_epoch(&self, seen: u64) -> Answer<'_, u64> {
        self.current().next_epoch(seen)
    }

    fn reserve<'a>(&'a self, reservation: Reservation<'a>) -> Answer<'a, Verdict> {
        let pass = self.gate.pass();
        if self.gate.is_shut() {
            drop(pass);
            return Box::pin(self.reserve_later(reservation));
        }
        let answer = self.current().reserve(reservation);
        Box::pin(async move {
            let _pass = pass;
            answer.await
        })
    }

    fn release(&self, request: RequestId, group: &GroupId) {
        self.end(request, group, false);
    }

    fn give_back(&self, request: RequestId, group: &GroupId) {
        self.end(request, group, true);
    }

    fn renew_holds(&self, now: Timestamp, until: Timestamp) -> Answer<'_, ()> {
        self.current().renew_holds(now, until)
    }

    fn standings<'a>(
        &'a self,
        group: &'a GroupId,
        counters: &'a [CounterAsk],
        now: Timestamp,
    ) -> Answer<'a, Vec<Standing>> {
        self.current().standings(group, counters, now)
    }

    fn apply(&self, batch: Arc<[Entry]>) -> Answer<'_, Vec<Booked>> {
        Box::pin(async move {
            let result = self.current().apply(Arc::clone(&batch)).await;
            // Also of a batch that failed, some may be there.
            self.notes.add(&batch);
            result
        })
    }

    fn marks(&self) -> Answer<'_, Vec<Mark>> {
        self.current().marks()
    }

    fn rows(&self, query: RowQuery) -> Answer<'_, Vec<Closed>> {
        self.current().rows(query)
    }

    fn rollups(&self, query: RollupQuery) -> Answer<'_, Vec<(RollupKey, Rollup)>> {
        self.current().rollups(query)
    }

    fn prune(&self, rows_before: Timestamp, rollups_before: Option<Timestamp>) -> Answer<'_, u64> {
        self.current().prune(rows_before, rollups_before)
    }

    fn kept(&self) -> Answer<'_, Kept> {
        self.current().kept()
    }

    fn counters(&self, groups: Vec<GroupId>) -> Answer<'_, Vec<Booking>> {
        self.current().counters(groups)
    }

    fn amend_rows(&self, rows: Vec<Closed>) -> Answer<'_, u64> {
        self.current().amend_rows(rows)
    }

    fn put_sums(&self, sums: Vec<(RollupKey, Rollup)>) -> Answer<'_, ()> {
        self.current().put_sums(sums)
    }

    fn correct(&self, counters: Vec<Booked>) -> Answer<'_, Vec<Booked>> {
        self.current().correct(counters)
    }

    fn export(&self, cursor: Cursor) -> Answer<'_, Exported> {
        self.current().export(cursor)
    }

    fn import(&self, chunk: Chunk) -> Answer<'_, ()> {
        self.current().import(chunk)
    }

    fn census(&self) -> Answer<'_, Census> {
        self.current().census()
    }

    fn holds(&self) -> Vec<HeldGroup> {
        self.current().holds()
    }

    fn hold_again(&self, holds: Vec<HeldGroup>, now: Timestamp, until: Timestamp) -> Answer<'_, ()> {
        self.current().hold_again(holds, now, until)
    }

    fn close(&self) {
        self.current().close();
    }

    fn stranger(&self) -> Answer<'_, Option<Stranger>> {
        self.current().stranger()
    }

    fn adopt(&self, how: Adoption) -> Answer<'_, Adopted> {
        self.current().adopt(how)
    }
}
