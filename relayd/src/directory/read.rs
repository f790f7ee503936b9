//! From the store's records to a snapshot. A key or an account that cannot be read is left out and named: it must
//! keep no other from working. Limits that keys share are not left out, because that would lift them.

use std::sync::Arc;

use shared::crypto::CryptoError;
use shared::domain::{Account, ApiKey};
use shared::redact::Secret;

use super::limits::SharedLimits;
use super::{AccountEntry, Directory, DirectoryError, KeyEntry, Removed, Snapshot};
use crate::causes::Causes;
use crate::store::{Record, RecordKind, StoreError};

/// Why a record is left out. Nothing of what stands in it is told.
#[derive(Debug, thiserror::Error)]
enum Damage {
    /// Its JSON is cut or garbled, or has not the fields of its kind.
    #[error("it is no JSON of its kind from byte {column} on")]
    Json {
        /// Where that shows.
        column: usize,
    },
    /// The credential in it does not open.
    #[error("its credential cannot be opened")]
    Secret(#[source] CryptoError),
}

impl Directory {
    /// Reads everything again, prices too, because somebody else changed something.
    ///
    /// # Errors
    ///
    /// The store cannot be read, or what it holds cannot be used; what was known stays in force.
    pub async fn reload(&self) -> Result<(), DirectoryError> {
        let _changing = self.change().await;
        self.refresh().await?;
        self.refresh_prices().await
    }

    /// Reads everything again. Health and load of accounts that were known stay with them.
    pub(super) async fn refresh(&self) -> Result<(), DirectoryError> {
        let before = self.snapshot();
        let limits = self.store.records(RecordKind::Limits).await?;
        let keys = self.store.records(RecordKind::Key).await?;
        let accounts = self.store.records(RecordKind::Account).await?;
        let shared_limits = SharedLimits::read(&limits, &self.zone)?;
        let mut snapshot = Snapshot { shared_limits, ..Snapshot::default() };
        for record in keys {
            match json(&record) {
                Ok(key) => self.add_key(key, record.version, &mut snapshot),
                Err(damage) => leave_out(record, &damage, &before, &mut snapshot),
            }
        }
        for record in accounts {
            if let Err(damage) = self.add_account(&record, &before, &mut snapshot) {
                leave_out(record, &damage, &before, &mut snapshot);
            }
        }
        self.current.store(Arc::new(snapshot));
        Ok(())
    }

    fn add_key(&self, key: ApiKey, version: u64, snapshot: &mut Snapshot) {
        let entry = Arc::new(KeyEntry::new(key, version, &snapshot.shared_limits, &self.zone));
        if entry.key.deleted_at.is_none() {
            snapshot.by_digest.insert(entry.key.digest, entry.clone());
        }
        snapshot.keys.push(entry);
    }

    /// Every account that is or was, of those whose records can be read.
    pub async fn past_accounts(&self) -> Result<Vec<Account>, StoreError> {
        let records = self.store.records(RecordKind::Account).await?;
        Ok(records.iter().filter_map(|record| json(record).ok()).collect())
    }

    fn add_account(&self, record: &Record, before: &Snapshot, snapshot: &mut Snapshot) -> Result<(), Damage> {
        let account: Account = json(record)?;
        if let Some(at) = account.removed_at {
            snapshot.removed.insert(account.id, Removed { name: account.name, at });
            return Ok(());
        }
        let secret = self.open_secret(&account)?;
        let state = before.account(account.id.as_str()).map(|known| known.state.clone()).unwrap_or_default();
        let entry = AccountEntry::new(account, record.version, &secret, &self.zone, state);
        snapshot.accounts.push(Arc::new(entry));
        Ok(())
    }

    fn open_secret(&self, account: &Account) -> Result<Secret, Damage> {
        let Some(sealed) = &account.secret else { return Ok(Secret::new("")) };
        self.sealer.open(account.id.as_str(), "secret", sealed).map_err(Damage::Secret)
    }
}

fn json<T: serde::de::DeserializeOwned>(record: &Record) -> Result<T, Damage> {
    serde_json::from_slice(&record.value).map_err(|error| Damage::Json { column: error.column() })
}

/// Says so once, not at every change of any record.
fn leave_out(record: Record, damage: &Damage, before: &Snapshot, snapshot: &mut Snapshot) {
    if !before.damaged.contains(&record.id) {
        tracing::error!(record = record.id, error = %Causes(damage), "a record cannot be read and is left out");
    }
    snapshot.damaged.push(record.id);
}
