//! Costs, hourly sums and counters computed anew from rows and closing balances. Whoever rebuilds sees to it that
//! neither changes meanwhile: nothing is shipped, nothing pruned.
//!
//! What is found is shown before it is applied, and is applied from where it was found: rows first, then what is
//! derived from them. Dying anywhere in between leaves a difference that the next rebuild finds.

mod reprice;
mod tally;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use shared::admin::AuditEntry;
use shared::costs::PricesFrom;
use shared::domain::{RequestId, Timestamp};
use shared::progress::Progress;

pub use self::reprice::{List, Prices};
pub use self::tally::{Change, Plan};

use self::tally::Tally;
use crate::store::{Closed, GroupId, Kept, RecordKind, RollupQuery, RowQuery, Store, StoreError, Write};

/// Rows that are read, and may be written, at once.
const PAGE: usize = if cfg!(test) { 3 } else { 2_000 };
/// Sums that are written at once.
const SUMS_AT_ONCE: usize = if cfg!(test) { 2 } else { 2_000 };
/// The record that the last rebuild leaves.
const RECORD: &str = "rebuild";
/// Rows are dropped by the time at which their ids were made, which is when their calls began to arrive, and not by the
/// hour in which they are counted: the first hours of which rows are left may lack some.
const RAGGED: Duration = Duration::from_secs(2 * 3_600);

/// Why a rebuild does not go on.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nobody listens any more; nothing was changed.
    #[error("whoever asked to rebuild costs has gone")]
    Gone,
    /// Something else changed counters at the same time.
    #[error("{0} counters moved meanwhile and were left as they are")]
    Moved(usize),
}

/// Hears how far it is; tells whether somebody still wants to know.
pub type Tell = dyn Fn(Progress) -> bool + Send + Sync;

/// What it does, as listeners are told.
const READING: &str = "reading";
const APPLYING: &str = "applying";

/// What is to be rebuilt, and by which prices.
pub struct Job {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Counters are compared in the windows that run now.
    pub now: Timestamp,
    /// The prices.
    pub prices: Prices,
    /// Only calls opened from this time on are priced.
    pub since: Option<Timestamp>,
    /// Only sums of hours from this time on are compared.
    pub hours_since: Option<Timestamp>,
    /// Groups whose counters are compared, beside those in which rows have booked something.
    pub groups: Vec<GroupId>,
}

/// What the last rebuild was, as it is stored.
#[derive(Serialize)]
struct RebuildRecord {
    at: Timestamp,
    prices: PricesFrom,
    since: Option<Timestamp>,
}

impl Job {
    /// Computes what should be, and compares it with what is.
    pub async fn plan(self: &Arc<Self>, tell: &Tell) -> Result<Plan, RebuildError> {
        let kept = self.store.kept().await?;
        let hours_from = hours_from(&kept, self.hours_since);
        let sums = self.store.rollups(RollupQuery { since: hours_from, ..RollupQuery::default() }).await?;
        let of_keys = sums.iter().filter(|(place, _)| place.key.is_some());
        // What came before is read too, and nobody knows how much that is.
        let total = match self.hours_since {
            None => of_keys.map(|(_, sum)| sum.requests).sum(),
            Some(_) => 0,
        };
        let mut tally = Tally::new(self.now, hours_from);
        let mut before = None;
        while let Some((rows, last)) = self.page(before).await? {
            before = Some(last);
            let job = Arc::clone(self);
            tally = off_thread(move || {
                rows.iter().for_each(|row| job.count(row, &mut tally));
                tally
            })
            .await?;
            if !tell(progress(READING, tally.calls(), total)) {
                return Err(RebuildError::Gone);
            }
        }
        let of_balances = kept.balances.iter().map(|balance| &balance.group);
        let mut groups: Vec<GroupId> =
            self.groups.iter().chain(tally.groups()).chain(of_balances).cloned().collect();
        groups.sort_unstable();
        groups.dedup();
        let counters = self.store.counters(groups).await?;
        Ok(off_thread(move || tally.compare(&kept, counters, sums)).await?)
    }

    /// Makes what is what should be.
    pub async fn apply(
        self: &Arc<Self>,
        plan: &Plan,
        audit: AuditEntry,
        tell: &Tell,
    ) -> Result<(), RebuildError> {
        let total = plan.amended + plan.sums.len() as u64 + plan.counters.len() as u64;
        let mut done = 0;
        if !tell(progress(APPLYING, done, total)) {
            return Err(RebuildError::Gone);
        }
        // From here on it goes to its end, whoever listens.
        let mut tell = |some: u64| {
            done += some;
            tell(progress(APPLYING, done, total));
        };
        self.note(audit).await?;
        if plan.amended > 0 {
            self.amend_rows(&mut tell).await?;
        }
        for some in plan.sums.chunks(SUMS_AT_ONCE) {
            let sums = some.iter().map(|change| (change.key.clone(), change.after.clone())).collect();
            self.store.put_sums(sums).await?;
            tell(some.len() as u64);
        }
        let set = self.store.correct(plan.counters.clone()).await?.len();
        tell(set as u64);
        if set < plan.counters.len() {
            return Err(RebuildError::Moved(plan.counters.len() - set));
        }
        Ok(())
    }

    /// Some rows older than one, newest first, with the id of the oldest among them.
    async fn page(&self, before: Option<RequestId>) -> Result<Option<(Vec<Closed>, RequestId)>, StoreError> {
        let rows = self.store.rows(RowQuery { before, limit: PAGE, ..RowQuery::default() }).await?;
        let last = rows.last().map(|row| row.request);
        Ok(last.map(|last| (rows, last)))
    }

    fn count(&self, row: &Closed, tally: &mut Tally) {
        if self.is_before(row) {
            return tally.add(row);
        }
        let repriced = self.prices.reprice(row);
        if repriced.has_no_price {
            tally.miss_price();
        }
        match &repriced.row {
            Some(after) => {
                tally.amend(row, after);
                tally.add(after);
            }
            None => tally.add(row),
        }
    }

    fn is_before(&self, row: &Closed) -> bool {
        self.since.is_some_and(|since| row.opened_at < since)
    }

    /// Prices every row again, and puts those that are others now in their places.
    async fn amend_rows(self: &Arc<Self>, tell: &mut (impl FnMut(u64) + Send)) -> Result<(), StoreError> {
        let mut before = None;
        while let Some((rows, last)) = self.page(before).await? {
            before = Some(last);
            let job = Arc::clone(self);
            let priced = rows.into_iter().filter(move |row| !job.is_before(row));
            let job = Arc::clone(self);
            let amended: Vec<Closed> =
                off_thread(move || priced.filter_map(|row| job.prices.reprice(&row).row).collect()).await?;
            if !amended.is_empty() {
                tell(self.store.amend_rows(amended).await?);
            }
        }
        Ok(())
    }

    /// Writes down that costs are rebuilt, and who does it, before anything is changed.
    async fn note(&self, audit: AuditEntry) -> Result<(), StoreError> {
        let prices = match self.prices {
            Prices::Booked => PricesFrom::Booked,
            Prices::List(_) => PricesFrom::Today,
        };
        let record = RebuildRecord { at: audit.at, prices, since: self.since };
        let value = serde_json::to_vec(&record)
            .map_err(|error| StoreError::Damaged { what: "value to be written", source: error.into() })?;
        let last = self.store.record(RecordKind::Setting, RECORD).await?;
        let write = Write {
            kind: RecordKind::Setting,
            id: RECORD.to_owned(),
            expected: last.map(|last| last.version),
            value: Some(value),
            audit: Some(audit),
        };
        self.store.write(vec![write]).await?;
        Ok(())
    }
}

/// The first hour of which all rows and all sums are there.
fn hours_from(kept: &Kept, since: Option<Timestamp>) -> Option<Timestamp> {
    let rows_since = kept.rows_since.map(|since| since.after(RAGGED));
    [rows_since, kept.sums_since, since].into_iter().flatten().max()
}

fn progress(stage: &str, done: u64, total: u64) -> Progress {
    Progress { stage: stage.to_owned(), done, total }
}

/// Does what takes long where it holds nobody up.
async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, StoreError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|stopped| StoreError::Unavailable(Box::new(stopped)))
}
