//! From the store's records to a snapshot. A key or an account that cannot be read is left out and named: it must
//! keep no other from working. Limits that keys share are not left out, because that would lift them.

use std::sync::Arc;

use shared::crypto::{CryptoError, Pepper, Sealer};
use shared::domain::{Account, AccountId, ApiKey, Zone};
use shared::redact::Secret;

use super::entry::AccountState;
use super::limits::SharedLimits;
use super::roster::Roster;
use super::{AccountEntry, Directory, DirectoryError, KeyEntry, Removed, Snapshot, off_thread};
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

/// What it takes to read records.
pub(super) struct Reader {
    pub(super) sealer: Sealer,
    pub(super) zone: Zone,
}

/// Everything of which a snapshot is made.
struct Records {
    limits: Vec<Record>,
    keys: Vec<Record>,
    accounts: Vec<Record>,
}

impl Directory {
    /// Reads everything again, prices too, because somebody else changed something.
    ///
    /// # Errors
    ///
    /// The store cannot be read, or what it holds cannot be used; what was known stays in force.
    pub async fn reload(&self) -> Result<(), DirectoryError> {
        let _changing = self.change().await;
        let pepper = super::edit::pepper(&*self.store, &self.reader.sealer).await?;
        self.pepper.store(Arc::new(Pepper::new(&pepper)));
        self.refresh().await?;
        self.refresh_prices().await
    }

    /// Reads everything again. Health and load of accounts that were known stay with them.
    pub(super) async fn refresh(&self) -> Result<(), DirectoryError> {
        let limits = self.store.records(RecordKind::Limits).await?;
        let keys = self.store.records(RecordKind::Key).await?;
        let accounts = self.store.records(RecordKind::Account).await?;
        let (reader, before) = (self.reader.clone(), self.snapshot());
        let records = Records { limits, keys, accounts };
        let snapshot = off_thread(move || reader.snapshot(records, &before)).await??;
        self.current.store(Arc::new(snapshot));
        Ok(())
    }

    /// Reads one record again. All that hangs on no other record is read alone; limits that keys share hang on every
    /// key.
    pub(super) async fn refresh_record(&self, kind: RecordKind, id: &str) -> Result<(), DirectoryError> {
        if !matches!(kind, RecordKind::Key | RecordKind::Account) {
            return self.refresh().await;
        }
        let Some(record) = self.store.record(kind, id).await? else { return self.refresh().await };
        let (reader, before) = (self.reader.clone(), self.snapshot());
        let snapshot = off_thread(move || reader.with_record(kind, record, &before)).await?;
        self.current.store(Arc::new(snapshot));
        Ok(())
    }

    /// Every account that is or was, of those whose records can be read.
    pub async fn past_accounts(&self) -> Result<Vec<Account>, StoreError> {
        let records = self.store.records(RecordKind::Account).await?;
        Ok(records.iter().filter_map(|record| json(record).ok()).collect())
    }
}

impl Reader {
    fn snapshot(&self, records: Records, before: &Snapshot) -> Result<Snapshot, DirectoryError> {
        let shared_limits = SharedLimits::read(&records.limits, &self.zone)?;
        let mut snapshot = Snapshot { shared_limits, ..Snapshot::default() };
        snapshot.roster.seats = before.roster.seats.clone();
        for record in records.keys {
            self.add(RecordKind::Key, record, before, &mut snapshot);
        }
        for record in records.accounts {
            self.add(RecordKind::Account, record, before, &mut snapshot);
        }
        snapshot.line_up();
        Ok(snapshot)
    }

    /// The snapshot with one record in place of what it was before; the others are shared, not read.
    fn with_record(&self, kind: RecordKind, record: Record, before: &Snapshot) -> Snapshot {
        let mut snapshot = before.clone();
        snapshot.take_out(kind, &record.id);
        self.add(kind, record, before, &mut snapshot);
        if kind == RecordKind::Account {
            snapshot.line_up();
        }
        snapshot
    }

    fn add(&self, kind: RecordKind, record: Record, before: &Snapshot, snapshot: &mut Snapshot) {
        let added = match kind {
            RecordKind::Account => self.add_account(&record, before, snapshot),
            _ => self.add_key(&record, snapshot),
        };
        if let Err(damage) = added {
            leave_out(record, &damage, before, snapshot);
        }
    }

    fn add_key(&self, record: &Record, snapshot: &mut Snapshot) -> Result<(), Damage> {
        let key: ApiKey = json(record)?;
        let entry = Arc::new(KeyEntry::new(key, record.version, &snapshot.shared_limits, &self.zone));
        if entry.key.deleted_at.is_none() {
            snapshot.by_digest.insert(entry.key.digest, entry.clone());
        }
        let (Ok(place) | Err(place)) = snapshot.key_place(entry.key.id.as_str());
        snapshot.keys.insert(place, entry);
        Ok(())
    }

    fn add_account(&self, record: &Record, before: &Snapshot, snapshot: &mut Snapshot) -> Result<(), Damage> {
        let account: Account = json(record)?;
        if let Some(at) = account.removed_at {
            snapshot.removed.insert(account.id, Removed { name: account.name, at });
            return Ok(());
        }
        let secret = self.open_secret(&account)?;
        let known = before.position(&account.id).map(|place| before.accounts[place].state.clone());
        let state = known.unwrap_or_else(|| Arc::new(AccountState::new(snapshot.roster.seats.take())));
        let entry = AccountEntry::new(account, record.version, &secret, &self.zone, state);
        let (Ok(place) | Err(place)) = snapshot.account_place(entry.account.id.as_str());
        snapshot.accounts.insert(place, Arc::new(entry));
        Ok(())
    }

    fn open_secret(&self, account: &Account) -> Result<Secret, Damage> {
        let Some(sealed) = &account.secret else { return Ok(Secret::new("")) };
        self.sealer.open(account.id.as_str(), "secret", sealed).map_err(Damage::Secret)
    }
}

impl Snapshot {
    /// Lines its accounts up anew, of which some changed.
    fn line_up(&mut self) {
        self.roster = Roster::new(std::mem::take(&mut self.roster.seats), &self.accounts);
    }

    /// Takes out what a record said so far.
    fn take_out(&mut self, kind: RecordKind, id: &str) {
        self.damaged.retain(|damaged| damaged != id);
        match kind {
            RecordKind::Account => {
                if let Ok(place) = self.account_place(id) {
                    self.accounts.remove(place);
                }
                self.removed.remove(&AccountId::from(id));
            }
            _ => {
                if let Ok(place) = self.key_place(id) {
                    let entry = self.keys.remove(place);
                    self.by_digest.remove(&entry.key.digest);
                }
            }
        }
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
