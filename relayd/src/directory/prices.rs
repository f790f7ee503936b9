//! The price list in force: the built-in table, the list that an operator loaded, and prices set by hand.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use shared::admin::{AuditEntry, PricesUpdated};
use tokio::sync::OwnedMutexGuard;

use super::edit::to_its_end;
use super::{Directory, DirectoryError, EditError, off_thread, parse};
use crate::pricing::{self, ParsedList, PriceError, PriceTable, SetPriceError, SetPrices};
use crate::store::{Record, RecordKind, StoreError, Write};

/// The loaded list, and the one before it, which is kept.
const LIST: &str = "list";
const PREVIOUS: &str = "list.previous";
/// In front of the model's name in the id of a price that was set by hand.
const SET: &str = "set/";

/// Why prices were not changed.
#[derive(Debug, thiserror::Error)]
pub enum PricesError {
    /// The list cannot be used.
    #[error(transparent)]
    List(#[from] PriceError),
    /// A price cannot be used.
    #[error(transparent)]
    Price(#[from] SetPriceError),
    /// There is none to take back.
    #[error("the model has no price that was set by hand")]
    NotSet,
    /// They cannot be stored.
    #[error(transparent)]
    Edit(#[from] EditError),
}

impl From<StoreError> for PricesError {
    fn from(error: StoreError) -> Self {
        Self::Edit(error.into())
    }
}

/// A loaded list as it is stored.
#[derive(Serialize, Deserialize)]
struct ListRecord {
    json: String,
}

/// Everything that prices are made of.
struct Sources {
    built_in: ParsedList,
    list: Option<(u64, ParsedList)>,
    raw_list: Option<Vec<u8>>,
    previous: Option<u64>,
    set: BTreeMap<String, SetPrices>,
    set_versions: BTreeMap<String, u64>,
}

impl Sources {
    fn read(records: Vec<Record>) -> Result<Self, DirectoryError> {
        let damaged = |source| DirectoryError::Prices { source };
        let mut sources = Self {
            built_in: pricing::built_in().map_err(damaged)?,
            list: None,
            raw_list: None,
            previous: None,
            set: BTreeMap::new(),
            set_versions: BTreeMap::new(),
        };
        for Record { id, version, value } in records {
            match id.strip_prefix(SET) {
                Some(model) => {
                    let prices: BTreeMap<String, String> = parse(&id, &value)?;
                    // What was accepted once is still a price; a newer version may know more classes. What was
                    // taken back is empty, and no price.
                    if let Ok(prices) = SetPrices::parse(&prices) {
                        sources.set.insert(model.to_owned(), prices);
                    }
                    sources.set_versions.insert(model.to_owned(), version);
                }
                None if id == LIST => {
                    let record: ListRecord = parse(&id, &value)?;
                    sources.list = Some((version, pricing::parse(&record.json).map_err(damaged)?));
                    sources.raw_list = Some(value);
                }
                None if id == PREVIOUS => sources.previous = Some(version),
                None => {}
            }
        }
        Ok(sources)
    }

    /// Grows with every change of any source, and means the same after a restart.
    fn version(&self) -> u64 {
        1 + self.list.as_ref().map_or(0, |(version, _)| *version) + self.set_versions.values().sum::<u64>()
    }

    fn table(&self) -> PriceTable {
        PriceTable::build(self.version(), &self.built_in, self.list.as_ref().map(|(_, list)| list), &self.set)
    }
}

impl Directory {
    /// The price list in force.
    pub fn prices(&self) -> Arc<PriceTable> {
        self.prices.load_full()
    }

    pub(super) async fn refresh_prices(&self) -> Result<(), DirectoryError> {
        let records = self.store.records(RecordKind::Price).await?;
        let table = off_thread(move || Sources::read(records).map(|sources| sources.table())).await??;
        self.prices.store(Arc::new(table));
        Ok(())
    }

    /// Replaces the loaded list; only says what would change on a dry run.
    pub async fn update_prices(
        self: &Arc<Self>,
        json: String,
        dry_run: bool,
        audit: AuditEntry,
    ) -> Result<PricesUpdated, PricesError> {
        let changing = self.change().await;
        let records = self.store.records(RecordKind::Price).await?;
        let before = self.prices();
        let prepared = off_thread(move || Prepared::new(records, &before, json, audit)).await??;
        let Prepared { updated, table, writes } = prepared;
        if dry_run {
            return Ok(updated);
        }
        let directory = Arc::clone(self);
        to_its_end(async move {
            let _changing = changing;
            directory.store.write(writes).await?;
            directory.prices.store(Arc::new(table));
            Ok(())
        })
        .await?;
        Ok(updated)
    }

    /// Sets prices of one model by hand, beside those that were set before; `None` takes a class back.
    pub async fn set_price(
        self: &Arc<Self>,
        model: &str,
        changes: &BTreeMap<String, Option<String>>,
        audit: AuditEntry,
    ) -> Result<(), PricesError> {
        let changing = self.change().await;
        let (before, read) = self.set_by_hand(model).await?;
        let prices = pricing::merged(before, changes)?;
        self.put_prices(changing, model, (prices, read), audit).await
    }

    /// Takes back the prices of one model that were set by hand. The record stays, empty: a version of the prices
    /// that was in force must not come again.
    pub async fn unset_price(self: &Arc<Self>, model: &str, audit: AuditEntry) -> Result<(), PricesError> {
        let changing = self.change().await;
        let (before, read) = self.set_by_hand(model).await?;
        if before.is_empty() {
            return Err(PricesError::NotSet);
        }
        self.put_prices(changing, model, (BTreeMap::new(), read), audit).await
    }

    /// The prices of a model that are set by hand, and the version of their record.
    async fn set_by_hand(&self, model: &str) -> Result<(BTreeMap<String, String>, Option<u64>), EditError> {
        let id = format!("{SET}{model}");
        let Some(record) = self.store.record(RecordKind::Price, &id).await? else {
            return Ok((BTreeMap::new(), None));
        };
        Ok((parse(&id, &record.value)?, Some(record.version)))
    }

    async fn put_prices(
        self: &Arc<Self>,
        changing: OwnedMutexGuard<()>,
        model: &str,
        (prices, read): (BTreeMap<String, String>, Option<u64>),
        audit: AuditEntry,
    ) -> Result<(), PricesError> {
        let value = serde_json::to_vec(&prices).map_err(EditError::from)?;
        let write = price_write(format!("{SET}{model}"), read, value, Some(audit));
        let directory = Arc::clone(self);
        let put = to_its_end(async move {
            let _changing = changing;
            directory.store.write(vec![write]).await?;
            Ok(directory.refresh_prices().await?)
        });
        Ok(put.await?)
    }
}

/// What a new list would do.
struct Prepared {
    updated: PricesUpdated,
    table: PriceTable,
    writes: Vec<Write>,
}

impl Prepared {
    fn new(
        records: Vec<Record>,
        before: &PriceTable,
        json: String,
        audit: AuditEntry,
    ) -> Result<Self, PricesError> {
        let parsed = pricing::parse(&json)?;
        let skipped = parsed.skipped.clone();
        let mut sources = Sources::read(records).map_err(EditError::from)?;
        let read = sources.list.as_ref().map(|(version, _)| *version);
        sources.list = Some((read.unwrap_or(0) + 1, parsed));
        let table = sources.table();
        let changes = pricing::diff(before, &table);
        let updated = PricesUpdated {
            version: table.version(),
            models: table.names().count() as u64,
            added: changes.added,
            changed: changes.changed,
            removed: changes.removed,
            skipped,
        };
        let value = serde_json::to_vec(&ListRecord { json }).map_err(EditError::from)?;
        let mut writes = vec![price_write(LIST.to_owned(), read, value, Some(audit))];
        if let Some(before) = sources.raw_list {
            writes.push(price_write(PREVIOUS.to_owned(), sources.previous, before, None));
        }
        Ok(Self { updated, table, writes })
    }
}

fn price_write(id: String, read: Option<u64>, value: Vec<u8>, audit: Option<AuditEntry>) -> Write {
    Write { kind: RecordKind::Price, id, expected: read, value: Some(value), audit }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shared::crypto::{Sealer, SealingKey};
    use shared::domain::{Timestamp, Zone};

    use super::*;
    use crate::directory::Sessions;
    use crate::store::embedded::Embedded;

    fn audit() -> AuditEntry {
        AuditEntry {
            at: Timestamp::from_millis(0),
            uid: None,
            pid: None,
            action: "prices.update".to_owned(),
            subject: "prices".to_owned(),
            name: "prices".to_owned(),
            fields: Vec::new(),
        }
    }

    fn large_list() -> String {
        let price = r#"{"input_cost_per_token": 1e-06, "output_cost_per_token": 2e-06}"#;
        let models: Vec<String> = (0..10_000).map(|number| format!("\"model-{number}\": {price}")).collect();
        format!("{{{}}}", models.join(","))
    }

    /// Nanoseconds for which this thread has been running: what others do meanwhile does not count.
    fn busy_ns() -> u64 {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        text.split(' ').next().unwrap().parse().unwrap()
    }

    /// Signals, jobs and all other admin calls are answered on the same thread.
    #[tokio::test]
    async fn a_large_list_holds_up_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Embedded::open(folder.path()).unwrap());
        let sealer = Sealer::new(&SealingKey::generate().unwrap());
        let sessions = Sessions::new(Duration::from_secs(60), 16);
        let directory = Arc::new(Directory::load(store, sealer, sessions, Zone::UTC).await.unwrap());
        let json = large_list();
        let began = busy_ns();
        pricing::parse(&json).unwrap();
        let takes = busy_ns() - began;
        for _ in 0..2 {
            let began = busy_ns();
            let updated = directory.update_prices(json.clone(), false, audit()).await.unwrap();
            let busy = busy_ns() - began;
            assert!(updated.models >= 10_000, "{updated:?}");
            assert!(busy < takes / 2, "the thread was held up for {busy} of {takes} ns");
        }
    }
}
