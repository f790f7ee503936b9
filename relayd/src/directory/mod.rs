//! Keys, accounts and prices as the request path reads them: a snapshot in memory, swapped whole after every
//! change, in which all that did not change is shared with the one before. What ages by itself (an account's health and load) lives beside the records and outlasts a swap.

mod averages;
mod choice;
mod edit;
mod entry;
mod limits;
mod pace;
mod prices;
mod read;
mod roster;
mod seats;
mod sessions;

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use shared::crypto::{CryptoError, Digest, Pepper, Sealer};
use shared::domain::{AccountId, KeyId, Timestamp, Zone};
use tokio::sync::OwnedMutexGuard;

pub use averages::Averages;
pub use choice::Errand;
pub use edit::EditError;
pub use entry::{AccountEntry, InFlight, KeyEntry};
pub use limits::{LimitSet, SharedLimits};
pub use pace::{TooLong, Turn};
pub use prices::PricesError;
pub use sessions::Sessions;

use self::read::Reader;
use self::roster::Roster;
use crate::pricing::{PriceError, PriceTable};
use crate::store::{GroupId, Record, Store, StoreError};

const PEPPER_ID: &str = "pepper";

/// Why the snapshot cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The store cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The sealing key is not the one that the store was made with.
    #[error(
        "the sealing key is not the one that this store was made with; put that one back, or a backup of the store"
    )]
    OtherKey(#[source] CryptoError),
    /// A secret cannot be sealed or opened.
    #[error("{what} cannot be opened")]
    Crypto {
        /// Which secret.
        what: &'static str,
        /// Why.
        #[source]
        source: CryptoError,
    },
    /// A stored price list cannot be read.
    #[error("the stored price list cannot be read")]
    Prices {
        /// Why.
        #[source]
        source: PriceError,
    },
    /// A record is no valid JSON of its kind.
    #[error("the record {id} cannot be read")]
    Damaged {
        /// Its id.
        id: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// Keys and accounts at one moment.
#[derive(Clone, Default)]
pub struct Snapshot {
    by_digest: HashMap<Digest, Arc<KeyEntry>, ahash::RandomState>,
    keys: Vec<Arc<KeyEntry>>,
    accounts: Vec<Arc<AccountEntry>>,
    /// The same, as calls choose among them.
    roster: Roster,
    /// Accounts that are gone, for the names of what they served.
    removed: HashMap<AccountId, Removed>,
    shared_limits: SharedLimits,
    damaged: Vec<String>,
}

/// Who has limits.
pub struct Holder<'a> {
    /// The id of the key or account.
    pub id: Option<&'a str>,
    /// The name of the key, the account or the owner.
    pub name: &'a str,
    /// The limits.
    pub limits: &'a LimitSet,
}

#[derive(Clone)]
struct Removed {
    name: String,
    at: Timestamp,
}

impl Snapshot {
    /// All keys, deleted ones too, by id.
    pub fn keys(&self) -> &[Arc<KeyEntry>] {
        &self.keys
    }

    /// All accounts, by id.
    pub fn accounts(&self) -> &[Arc<AccountEntry>] {
        &self.accounts
    }

    /// The ids of keys and accounts that are left out because their records cannot be read.
    pub fn damaged(&self) -> &[String] {
        &self.damaged
    }

    /// Limits that keys share.
    pub fn shared_limits(&self) -> &SharedLimits {
        &self.shared_limits
    }

    /// A key by its id, or by its name if it is not deleted.
    pub fn key(&self, name: &str) -> Option<&Arc<KeyEntry>> {
        self.key_place(name).ok().map(|place| &self.keys[place]).or_else(|| {
            self.keys.iter().find(|entry| entry.key.deleted_at.is_none() && entry.key.name == name)
        })
    }

    /// A key that is not deleted, by what it is found with.
    pub fn key_of(&self, digest: &Digest) -> Option<&Arc<KeyEntry>> {
        self.by_digest.get(digest)
    }

    /// An account by its id or name.
    pub fn account(&self, name: &str) -> Option<&Arc<AccountEntry>> {
        let by_id = self.account_place(name).ok().map(|place| &self.accounts[place]);
        by_id.or_else(|| self.accounts.iter().find(|entry| entry.account.name == name))
    }

    /// Where the key with this id is, or would be.
    fn key_place(&self, id: &str) -> Result<usize, usize> {
        self.keys.binary_search_by(|entry| entry.key.id.as_str().cmp(id))
    }

    /// Where the account with this id is, or would be.
    fn account_place(&self, id: &str) -> Result<usize, usize> {
        self.accounts.binary_search_by(|entry| entry.account.id.as_str().cmp(id))
    }

    /// The position of an account.
    pub fn position(&self, id: &AccountId) -> Option<usize> {
        self.account_place(id.as_str()).ok()
    }

    /// The name of an account, for tables; its id when nothing is known of it.
    pub fn account_name(&self, id: &AccountId) -> String {
        let known = self.accounts.iter().find(|entry| entry.account.id == *id);
        let name = known.map(|entry| &entry.account.name);
        let name = name.or_else(|| self.removed.get(id).map(|removed| &removed.name));
        name.map_or_else(|| id.to_string(), Clone::clone)
    }

    /// The account that an id or a name stands for in questions about the past: the one that has the name, else
    /// the last that had it.
    pub fn past_account(&self, name: &str) -> Option<&AccountId> {
        let is_meant = |(id, removed): &(&AccountId, &Removed)| id.as_str() == name || removed.name == name;
        let had = || self.removed.iter().filter(is_meant);
        self.account(name)
            .map(|entry| &entry.account.id)
            .or_else(|| had().max_by_key(|(_, removed)| removed.at).map(|(id, _)| id))
    }

    /// The names of all accounts that are or were.
    pub fn past_account_names(&self) -> impl Iterator<Item = &str> {
        let removed = self.removed.values().map(|removed| removed.name.as_str());
        self.accounts.iter().map(|entry| entry.account.name.as_str()).chain(removed)
    }

    /// The key that an id or a name stands for in questions about the past.
    pub fn past_key(&self, name: &str) -> Option<&KeyId> {
        let had = || self.keys.iter().filter(|entry| entry.key.name == name);
        self.key(name).or_else(|| had().max_by_key(|entry| entry.key.deleted_at)).map(|entry| &entry.key.id)
    }

    /// Who has the limits that a group of counters counts for.
    pub fn holder(&self, group: &GroupId) -> Option<Holder<'_>> {
        let own = self.keys.iter().find(|entry| entry.limits.group == *group);
        let key = own.map(|entry| Holder {
            id: Some(entry.key.id.as_str()),
            name: &entry.key.name,
            limits: &entry.limits,
        });
        let account = || self.accounts.iter().find(|entry| entry.limits.group == *group);
        let account = || {
            account().map(|entry| Holder {
                id: Some(entry.account.id.as_str()),
                name: &entry.account.name,
                limits: &entry.limits,
            })
        };
        let shared = || {
            let mut sets = self.shared_limits.all().into_iter();
            let (holder, limits) = sets.find(|(_, set)| set.group == *group)?;
            Some(Holder { id: None, name: holder.name(), limits })
        };
        key.or_else(account).or_else(shared)
    }

    /// The name of a key, for tables; its id when it is gone.
    pub fn key_name(&self, id: &KeyId) -> String {
        self.keys
            .iter()
            .find(|entry| entry.key.id == *id)
            .map_or_else(|| id.to_string(), |entry| entry.key.name.clone())
    }
}

/// The snapshot and what it takes to change it.
pub struct Directory {
    store: Arc<dyn Store>,
    reader: Arc<Reader>,
    pepper: ArcSwap<Pepper>,
    current: ArcSwap<Snapshot>,
    prices: ArcSwap<PriceTable>,
    changing: Arc<tokio::sync::Mutex<()>>,
    sessions: Sessions,
    averages: Averages,
}

impl Directory {
    /// Reads everything; makes the pepper on the first start.
    pub async fn load(
        store: Arc<dyn Store>,
        sealer: Sealer,
        sessions: Sessions,
        zone: Zone,
    ) -> Result<Self, DirectoryError> {
        let pepper = edit::pepper(&*store, &sealer).await?;
        let directory = Self {
            store,
            reader: Arc::new(Reader { sealer, zone }),
            pepper: ArcSwap::new(Arc::new(Pepper::new(&pepper))),
            current: ArcSwap::default(),
            prices: ArcSwap::new(Arc::new(PriceTable::empty())),
            changing: Arc::default(),
            sessions,
            averages: Averages::default(),
        };
        directory.reload().await?;
        Ok(directory)
    }

    /// The snapshot in force.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// The key that a client presented.
    pub fn find_key(&self, presented: &str) -> Option<Arc<KeyEntry>> {
        self.current.load().key_of(&self.pepper.load().digest(presented)).cloned()
    }

    /// Which account served a session.
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// How long models' recent answers were.
    pub fn averages(&self) -> &Averages {
        &self.averages
    }

    /// The zone of days that name none, and of the hours that sums are kept by.
    pub fn zone(&self) -> &Zone {
        &self.reader.zone
    }

    /// Keeps records from being changed while the value lives.
    pub async fn still(&self) -> OwnedMutexGuard<()> {
        self.change().await
    }

    /// Whether settings of a store were sealed with our key.
    pub fn opens(&self, settings: &[Record]) -> bool {
        let sealed = settings.iter().find(|record| record.id == PEPPER_ID);
        sealed.is_some_and(|record| edit::open_pepper(record, &self.reader.sealer).is_ok())
    }

    /// The store behind it.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }
}

fn parse<T: serde::de::DeserializeOwned>(id: &str, json: &[u8]) -> Result<T, DirectoryError> {
    serde_json::from_slice(json).map_err(|source| DirectoryError::Damaged { id: id.to_owned(), source })
}

/// Does what takes long where it holds nobody up: signals, jobs and all other calls of the admin API share a thread, and
/// on the workers' threads replies are passed on.
async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, StoreError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|stopped| StoreError::Unavailable(Box::new(stopped)))
}
