//! Changes of keys and accounts: written with their audit entry, then read back into the snapshot. A change
//! goes through only if nobody changed the record since it was read.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use shared::admin::AuditEntry;
use shared::crypto::{CryptoError, Digest, Sealed, Sealer, generate_pepper};
use shared::domain::{Account, AccountId, ApiKey, Timestamp};
use shared::redact::Secret;

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
        (self.pepper.digest(key.expose()), PEPPER_ID.to_owned())
    }

    /// Seals an account's credential.
    pub fn seal(&self, account: &AccountId, secret: &Secret) -> Result<Sealed, CryptoError> {
        self.sealer.seal(account.as_str(), "secret", secret)
    }

    /// Writes a key: a new one, or in place of the version that was read.
    pub async fn put_key(
        &self,
        key: ApiKey,
        read: Option<u64>,
        audit: Option<AuditEntry>,
    ) -> Edited<KeyEntry> {
        let _changing = self.changing.lock().await;
        let same_name = |other: &&Arc<KeyEntry>| {
            other.key.name == key.name && other.key.id != key.id && other.key.deleted_at.is_none()
        };
        if key.deleted_at.is_none() && self.snapshot().keys().iter().any(|other| same_name(&other)) {
            return Err(EditError::NameTaken(key.name));
        }
        let id = key.id.to_string();
        let value = Some(serde_json::to_vec(&key)?);
        self.write(Write { kind: RecordKind::Key, id: id.clone(), expected: read, value, audit }).await?;
        self.snapshot().key(&id).cloned().ok_or(EditError::Changed)
    }

    /// Writes an account: a new one, or in place of the version that was read.
    pub async fn put_account(
        &self,
        account: Account,
        read: Option<u64>,
        audit: Option<AuditEntry>,
    ) -> Edited<AccountEntry> {
        let _changing = self.changing.lock().await;
        let same_name =
            |other: &Arc<AccountEntry>| other.account.name == account.name && other.account.id != account.id;
        if self.snapshot().accounts().iter().any(same_name) {
            return Err(EditError::NameTaken(account.name));
        }
        let id = account.id.to_string();
        let value = Some(serde_json::to_vec(&account)?);
        self.write(Write { kind: RecordKind::Account, id: id.clone(), expected: read, value, audit }).await?;
        self.snapshot().account(&id).cloned().ok_or(EditError::Changed)
    }

    /// Removes an account. Its record stays without its credential, so that its usage keeps a name.
    pub async fn remove_account(
        &self,
        entry: &AccountEntry,
        now: Timestamp,
        audit: AuditEntry,
    ) -> Result<(), EditError> {
        let _changing = self.changing.lock().await;
        let removed = Account {
            secret: None,
            headers: BTreeMap::new(),
            removed_at: Some(now),
            ..entry.account.clone()
        };
        self.write(Write {
            kind: RecordKind::Account,
            id: entry.account.id.to_string(),
            expected: Some(entry.version),
            value: Some(serde_json::to_vec(&removed)?),
            audit: Some(audit),
        })
        .await
    }

    /// Settles the end of a key's life at its first use. Of several first uses at once, one settles it and all
    /// see the same end.
    pub async fn activate(&self, entry: &Arc<KeyEntry>, now: Timestamp) -> Edited<KeyEntry> {
        let Some(end) = entry.key.activated_at(now) else { return Ok(entry.clone()) };
        let key = ApiKey { expires_at: Some(end), ..entry.key.clone() };
        match self.put_key(key, Some(entry.version), None).await {
            Err(EditError::Changed) => {
                self.snapshot().key(entry.key.id.as_str()).cloned().ok_or(EditError::Changed)
            }
            settled => settled,
        }
    }

    async fn write(&self, write: Write) -> Result<(), EditError> {
        self.store.write(vec![write]).await?;
        Ok(self.refresh().await?)
    }
}

/// The pepper as it is stored.
#[derive(Serialize, Deserialize)]
struct PepperRecord {
    sealed: Sealed,
}

/// Opens the pepper; makes it on the first start. That it opens proves that the sealing key is the one that
/// this store was sealed with.
pub(super) async fn pepper(store: &dyn Store, sealer: &Sealer) -> Result<Secret, DirectoryError> {
    let failed = |source| DirectoryError::Crypto { what: "the pepper of the API keys", source };
    if let Some(Record { id, value, .. }) = store.record(RecordKind::Setting, PEPPER_ID).await? {
        let record: PepperRecord = super::parse(&id, &value)?;
        return sealer.open(PEPPER_ID, "sealed", &record.sealed).map_err(failed);
    }
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
