//! Changes of keys and accounts: written with their audit entry, then read back into the snapshot. A change
//! goes through only if nobody changed the record since it was read.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use shared::admin::AuditEntry;
use shared::crypto::{CryptoError, Digest, Sealed, Sealer, generate_pepper};
use shared::domain::{Account, AccountId, ApiKey, Timestamp};
use shared::redact::Secret;
use tokio::sync::OwnedMutexGuard;

use super::{AccountEntry, Directory, DirectoryError, KeyEntry, PEPPER_ID};
use crate::store::{Record, RecordKind, Store, StoreError, Write};

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// Another record has the name.
    #[error("the name {0:?} is taken")]
    NameTaken(String),
    /// Somebody else changed the record meanwhile.
    #[error("somebody else changed it meanwhile")]
    Changed,
    /// A secret cannot be sealed.
    #[error("the secret cannot be sealed")]
    Crypto(#[from] CryptoError),
    /// The record cannot be written as JSON.
    #[error("the record cannot be written")]
    Json(#[from] serde_json::Error),
    /// The store or the snapshot failed.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
}

impl From<StoreError> for EditError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Changed => Self::Changed,
            other => Self::Directory(other.into()),
        }
    }
}

/// What a change came to.
pub type Edited<T> = Result<Arc<T>, EditError>;

impl Directory {
    /// The digest of a new key, and the id of the pepper it was made with.
    pub fn digest(&self, key: &Secret) -> (Digest, String) {
        (self.pepper.load().digest(key.expose()), PEPPER_ID.to_owned())
    }

    /// Seals an account's credential.
    pub fn seal(&self, account: &AccountId, secret: &Secret) -> Result<Sealed, CryptoError> {
        self.reader.sealer.seal(account.as_str(), "secret", secret)
    }

    /// Writes a key: a new one, or in place of the version that was read.
    pub async fn put_key(
        self: &Arc<Self>,
        key: ApiKey,
        read: Option<u64>,
        audit: Option<AuditEntry>,
    ) -> Edited<KeyEntry> {
        let changing = self.change().await;
        if key.deleted_at.is_none() {
            let snapshot = self.snapshot();
            let live = snapshot.keys().iter().filter(|other| other.key.deleted_at.is_none());
            let named = live.map(|other| (other.key.id.as_str(), other.key.name.as_str()));
            check_free(&key.name, key.id.as_str(), named)?;
        }
        let id = key.id.to_string();
        let value = Some(serde_json::to_vec(&key)?);
        let write = Write { kind: RecordKind::Key, id: id.clone(), expected: read, value, audit };
        self.write(changing, write).await?;
        self.snapshot().key(&id).cloned().ok_or(EditError::Changed)
    }

    /// Writes an account: a new one, or in place of the version that was read.
    pub async fn put_account(
        self: &Arc<Self>,
        account: Account,
        read: Option<u64>,
        audit: Option<AuditEntry>,
    ) -> Edited<AccountEntry> {
        let changing = self.change().await;
        let snapshot = self.snapshot();
        let accounts = snapshot.accounts().iter().map(|other| &other.account);
        check_free(
            &account.name,
            account.id.as_str(),
            accounts.map(|other| (other.id.as_str(), other.name.as_str())),
        )?;
        let id = account.id.to_string();
        let value = Some(serde_json::to_vec(&account)?);
        let write = Write { kind: RecordKind::Account, id: id.clone(), expected: read, value, audit };
        self.write(changing, write).await?;
        self.snapshot().account(&id).cloned().ok_or(EditError::Changed)
    }

    /// Removes an account. Its record stays without its credential, so that its usage keeps a name.
    pub async fn remove_account(
        self: &Arc<Self>,
        entry: &AccountEntry,
        now: Timestamp,
        audit: AuditEntry,
    ) -> Result<(), EditError> {
        let changing = self.change().await;
        let removed = Account {
            secret: None,
            headers: BTreeMap::new(),
            removed_at: Some(now),
            ..entry.account.clone()
        };
        let write = Write {
            kind: RecordKind::Account,
            id: entry.account.id.to_string(),
            expected: Some(entry.version),
            value: Some(serde_json::to_vec(&removed)?),
            audit: Some(audit),
        };
        self.write(changing, write).await
    }

    /// Settles the end of a key's life at its first use. Of several first uses at once, one settles it and all
    /// see the same end.
    pub async fn activate(self: &Arc<Self>, entry: &Arc<KeyEntry>, now: Timestamp) -> Edited<KeyEntry> {
        let Some(end) = entry.key.activated_at(now) else { return Ok(entry.clone()) };
        let key = ApiKey { expires_at: Some(end), ..entry.key.clone() };
        match self.put_key(key, Some(entry.version), None).await {
            Err(EditError::Changed) => {
                self.snapshot().key(entry.key.id.as_str()).cloned().ok_or(EditError::Changed)
            }
            settled => settled,
        }
    }

    pub(super) async fn write(
        self: &Arc<Self>,
        changing: OwnedMutexGuard<()>,
        write: Write,
    ) -> Result<(), EditError> {
        let directory = Arc::clone(self);
        to_its_end(async move {
            let _changing = changing;
            let (kind, id) = (write.kind, write.id.clone());
            let written = directory.store.write(vec![write]).await;
            // What somebody else made of the record meanwhile is seen, too.
            if matches!(written, Ok(_) | Err(StoreError::Changed)) {
                directory.refresh_record(kind, &id).await?;
            }
            written?;
            Ok(())
        })
        .await
    }

    /// Waits for its turn to change something.
    pub(super) async fn change(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.changing).lock_owned().await
    }
}

/// Whether a name is still to be had for what has this id.
fn check_free<'a>(
    name: &str,
    id: &str,
    mut named: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<(), EditError> {
    if named.any(|(other, taken)| taken == name && other != id) {
        return Err(EditError::NameTaken(name.to_owned()));
    }
    Ok(())
}

/// Makes a change also when whoever asked for it goes meanwhile: what is written must be read back, or a key
/// that was deleted would go on working.
pub(super) async fn to_its_end(
    change: impl Future<Output = Result<(), EditError>> + Send + 'static,
) -> Result<(), EditError> {
    let made = tokio::spawn(change).await;
    made.unwrap_or_else(|stopped| Err(StoreError::Unavailable(Box::new(stopped)).into()))
}

/// The pepper as it is stored.
#[derive(Serialize, Deserialize)]
struct PepperRecord {
    sealed: Sealed,
}

/// Opens the pepper; makes it on the first start. That it opens proves that the sealing key is the one that
/// this store was sealed with.
pub(super) async fn pepper(store: &dyn Store, sealer: &Sealer) -> Result<Secret, DirectoryError> {
    if let Some(record) = store.record(RecordKind::Setting, PEPPER_ID).await? {
        return open_pepper(&record, sealer);
    }
    let failed = pepper_failed;
    let pepper = generate_pepper().map_err(failed)?;
    let record = PepperRecord { sealed: sealer.seal(PEPPER_ID, "sealed", &pepper).map_err(failed)? };
    let value = serde_json::to_vec(&record)
        .map_err(|source| DirectoryError::Damaged { id: PEPPER_ID.to_owned(), source })?;
    let write = Write {
        kind: RecordKind::Setting,
        id: PEPPER_ID.to_owned(),
        expected: None,
        value: Some(value),
        audit: None,
    };
    store.write(vec![write]).await?;
    Ok(pepper)
}

/// Opens the pepper as it is stored.
pub(super) fn open_pepper(
    Record { id, value, .. }: &Record,
    sealer: &Sealer,
) -> Result<Secret, DirectoryError> {
    let record: PepperRecord = super::parse(id, value)?;
    sealer.open(PEPPER_ID, "sealed", &record.sealed).map_err(DirectoryError::OtherKey)
}

const fn pepper_failed(source: CryptoError) -> DirectoryError {
    DirectoryError::Crypto { what: "the pepper of the API keys", source }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shared::crypto::SealingKey;
    use shared::domain::key::UsageMode;
    use shared::domain::{KeyId, Zone};

    use super::*;
    use crate::directory::Sessions;
    use crate::store::embedded::Embedded;

    async fn directory(folder: &tempfile::TempDir) -> Arc<Directory> {
        let store = Arc::new(Embedded::open(folder.path()).unwrap());
        let sealer = Sealer::new(&SealingKey::generate().unwrap());
        let sessions = Sessions::new(Duration::from_secs(60), 16);
        Arc::new(Directory::load(store, sealer, sessions, Zone::UTC).await.unwrap())
    }

    fn key(directory: &Directory, number: u32) -> ApiKey {
        let (digest, pepper_id) = directory.digest(&Secret::new(format!("cr_{number}")));
        ApiKey {
            id: KeyId::from(format!("key_{number}").as_str()),
            name: format!("key {number}"),
            digest,
            pepper_id,
            hint: String::new(),
            owner: None,
            permissions: Vec::new(),
            allow_models: Vec::new(),
            deny_models: Vec::new(),
            accounts: Vec::new(),
            limits: Vec::new(),
            queue: None,
            on_disconnect: None,
            rates: BTreeMap::new(),
            usage: UsageMode::default(),
            expires_at: None,
            valid_s_from_first_use: None,
            disabled: false,
            deleted_at: None,
            created_at: Timestamp::from_millis(0),
            unknown: BTreeMap::new(),
        }
    }

    #[tokio::test]
    async fn a_change_is_read_back_when_whoever_asked_for_it_has_gone() {
        let folder = tempfile::tempdir().unwrap();
        let directory = directory(&folder).await;
        let put = directory.put_key(key(&directory, 1), None, None);
        assert!(tokio::time::timeout(Duration::ZERO, put).await.is_err(), "nobody waits for the file");
        let known = async {
            while directory.find_key("cr_1").is_none() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), known).await.unwrap();
    }

    /// Changes a record as another process would.
    async fn write_elsewhere(directory: &Directory, kind: RecordKind, id: &str, value: &impl Serialize) {
        let read = directory.store.record(kind, id).await.unwrap();
        let write = Write {
            kind,
            id: id.to_owned(),
            expected: read.map(|record| record.version),
            value: Some(serde_json::to_vec(value).unwrap()),
            audit: None,
        };
        directory.store.write(vec![write]).await.unwrap();
    }

    fn audit() -> AuditEntry {
        AuditEntry {
            at: Timestamp::from_millis(0),
            uid: None,
            pid: None,
            action: "change".to_owned(),
            subject: "it".to_owned(),
            name: "it".to_owned(),
            fields: Vec::new(),
        }
    }

    fn account(number: u32) -> Account {
        let account = serde_json::json!({
            "id": format!("acc_{number}"), "name": format!("account {number}"), "kind": "claude-console",
            "base_url": "https://api.example", "priority": 50, "weight": 1, "created_at": Timestamp::from_millis(0),
        });
        serde_json::from_value(account).unwrap()
    }

    #[tokio::test]
    async fn a_change_reads_its_own_record_alone() {
        let folder = tempfile::tempdir().unwrap();
        let directory = directory(&folder).await;
        for number in [3, 1, 2] {
            directory.put_key(key(&directory, number), None, None).await.unwrap();
            directory.put_account(account(number), None, None).await.unwrap();
        }
        let before = directory.snapshot();
        let other = ApiKey { name: "changed elsewhere".to_owned(), ..key(&directory, 1) };
        write_elsewhere(&directory, RecordKind::Key, "key_1", &other).await;
        write_elsewhere(&directory, RecordKind::Price, "set/m", &BTreeMap::from([("input", "1")])).await;

        let disabled = ApiKey { disabled: true, ..key(&directory, 2) };
        directory.put_key(disabled, Some(1), None).await.unwrap();
        let paused = Account { paused: true, ..account(2) };
        directory.put_account(paused, Some(1), None).await.unwrap();
        let after = directory.snapshot();
        let ids: Vec<&str> = after.keys().iter().map(|entry| entry.key.id.as_str()).collect();
        assert_eq!(ids, ["key_1", "key_2", "key_3"]);
        assert!(after.key("key_2").unwrap().key.disabled && after.account("acc_2").unwrap().account.paused);
        for number in [1, 3] {
            let (key, account) = (format!("key_{number}"), format!("acc_{number}"));
            assert!(Arc::ptr_eq(before.key(&key).unwrap(), after.key(&key).unwrap()), "{key}");
            assert!(
                Arc::ptr_eq(before.account(&account).unwrap(), after.account(&account).unwrap()),
                "{account}"
            );
        }

        let prices = directory.prices().version();
        directory.reload().await.unwrap();
        assert_eq!(directory.snapshot().key("key_1").unwrap().key.name, "changed elsewhere");
        assert!(directory.snapshot().key("key_2").unwrap().key.disabled);
        assert!(directory.prices().version() > prices);
    }

    #[tokio::test]
    async fn what_a_record_was_is_gone_from_the_snapshot() {
        let folder = tempfile::tempdir().unwrap();
        let directory = directory(&folder).await;
        let first = directory.put_key(key(&directory, 1), None, None).await.unwrap();
        let renewed = ApiKey { digest: directory.digest(&Secret::new("cr_new")).0, ..first.key.clone() };
        let renewed = directory.put_key(renewed, Some(first.version), None).await.unwrap();
        assert!(directory.find_key("cr_1").is_none() && directory.find_key("cr_new").is_some());
        let deleted = ApiKey { deleted_at: Some(Timestamp::from_millis(7)), ..renewed.key.clone() };
        directory.put_key(deleted, Some(renewed.version), None).await.unwrap();
        assert!(directory.find_key("cr_new").is_none());
        assert_eq!(directory.snapshot().keys().len(), 1);

        let entry = directory.put_account(account(1), None, None).await.unwrap();
        directory.remove_account(&entry, Timestamp::from_millis(9), audit()).await.unwrap();
        let snapshot = directory.snapshot();
        assert!(snapshot.accounts().is_empty());
        assert_eq!(snapshot.account_name(&AccountId::from("acc_1")), "account 1");
    }

    #[tokio::test]
    async fn a_record_that_somebody_else_changed_is_seen_by_whoever_fails_to_change_it() {
        let folder = tempfile::tempdir().unwrap();
        let directory = directory(&folder).await;
        let put = directory.put_key(key(&directory, 1), None, None).await.unwrap();
        let other = ApiKey { disabled: true, ..put.key.clone() };
        write_elsewhere(&directory, RecordKind::Key, "key_1", &other).await;
        let changed = directory.put_key(put.key.clone(), Some(put.version), None).await;
        assert!(matches!(changed, Err(EditError::Changed)));
        assert!(directory.snapshot().key("key_1").unwrap().key.disabled);
    }
}
