//! One redb file: opened with a lock, private to its owner, and opened anew after a failure, because redb
//! serves nothing more once an operation of the file system has failed.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};

use redb::backends::FileBackend;
use redb::{
    Builder, CommitError, Database, DatabaseError, ReadTransaction, ReadableDatabase, StorageError,
    TableError, TransactionError, WriteTransaction,
};

use crate::store::StoreError;
use crate::store::cbor::Appender;

/// Opens a file's database, or creates it.
pub(super) type Opener = Box<dyn Fn(&Builder, &Path) -> Result<Database, DatabaseError> + Send + Sync>;

/// A database file.
pub(super) struct DatabaseFile {
    path: PathBuf,
    cache_bytes: usize,
    opener: Opener,
    /// `None` after a failure, until the next use.
    database: RwLock<Option<Database>>,
    /// Nobody shall use it any more.
    is_closed: AtomicBool,
}

/// Another process has the file.
#[derive(Debug, thiserror::Error)]
#[error("{} is open in another process: is another relayd running on this data folder?", .0.display())]
struct HeldByAnother(PathBuf);

impl DatabaseFile {
    /// Opens the file or creates it.
    pub(super) fn open(path: PathBuf, cache_bytes: usize) -> Result<Self, StoreError> {
        Self::open_through(path, cache_bytes, Box::new(open_file))
    }

    /// Opens the file in a way of the caller.
    pub(super) fn open_through(
        path: PathBuf,
        cache_bytes: usize,
        opener: Opener,
    ) -> Result<Self, StoreError> {
        let (database, is_closed) = (RwLock::new(None), AtomicBool::new(false));
        let file = Self { path, cache_bytes, opener, database, is_closed };
        let database = file.connect()?;
        *file.database.write().unwrap_or_else(PoisonError::into_inner) = Some(database);
        Ok(file)
    }

    /// Creates the tables if the file is new: starting with an old one shall not wait for the disk.
    pub(super) fn create_tables(
        &self,
        create: impl FnOnce(&WriteTransaction) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let is_new = self.read(|transaction| Ok(transaction.list_tables()?.next().is_none()))?;
        if is_new { self.write(create) } else { Ok(()) }
    }

    /// Reads at one point in time.
    pub(super) fn read<T>(
        &self,
        work: impl FnOnce(&ReadTransaction) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.with(|database| work(&database.begin_read()?))
    }

    /// Writes all or nothing; what is written is on the disk when this returns.
    pub(super) fn write<T>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.with(|database| {
            let mut transaction = database.begin_write()?;
            // A killed process is back at once, however large the file is.
            transaction.set_quick_repair(true);
            let result = work(&transaction)?;
            transaction.commit()?;
            Ok(result)
        })
    }

    fn with<T>(&self, work: impl FnOnce(&Database) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        if database.is_none() {
            drop(database);
            self.reconnect()?;
            database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        }
        let result = match &*database {
            Some(database) => work(database),
            None => Err(DatabaseError::from(io::Error::other("the file was closed meanwhile")).into()),
        };
        drop(database);
        if let Err(StoreError::Unavailable(_)) = result {
            *self.database.write().unwrap_or_else(PoisonError::into_inner) = None;
        }
        result
    }

    /// Lets go of the file for good.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        *self.database.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn reconnect(&self) -> Result<(), StoreError> {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        if database.is_none() {
            *database = Some(self.connect()?);
        }
        Ok(())
    }

    fn connect(&self) -> Result<Database, StoreError> {
        if self.is_closed.load(Ordering::Acquire) {
            return Err(DatabaseError::from(io::Error::other("the store was moved")).into());
        }
        let mut builder = Database::builder();
        builder.set_cache_size(self.cache_bytes);
        (self.opener)(&builder, &self.path).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => {
                StoreError::Unavailable(Box::new(HeldByAnother(self.path.clone())))
            }
            other => other.into(),
        })
    }
}

fn open_file(builder: &Builder, path: &Path) -> Result<Database, DatabaseError> {
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    builder.create_with_backend(FileBackend::new(file)?)
}

/// A value that this version cannot read.
pub(super) fn damaged(
    what: &'static str,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> StoreError {
    StoreError::Damaged { what, source: source.into() }
}

/// Replaces what a buffer holds by a value's CBOR.
pub(super) fn encode(buffer: &mut Vec<u8>, value: &impl minicbor::Encode<()>) -> Result<(), StoreError> {
    buffer.clear();
    minicbor::encode(value, Appender(buffer)).map_err(|error| damaged("value to be written", error))
}

impl From<StorageError> for StoreError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Corrupted(_) => damaged("database file", error),
            other => Self::Unavailable(Box::new(other)),
        }
    }
}

impl From<DatabaseError> for StoreError {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::Storage(error) => error.into(),
            DatabaseError::UpgradeRequired(_) => damaged("database file", error),
            other => Self::Unavailable(Box::new(other)),
        }
    }
}

impl From<TransactionError> for StoreError {
    fn from(error: TransactionError) -> Self {
        match error {
            TransactionError::Storage(error) => error.into(),
            other => Self::Unavailable(Box::new(other)),
        }
    }
}

impl From<CommitError> for StoreError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Storage(error) => error.into(),
            other => Self::Unavailable(Box::new(other)),
        }
    }
}

impl From<TableError> for StoreError {
    fn from(error: TableError) -> Self {
        match error {
            TableError::Storage(error) => error.into(),
            other => damaged("table", other),
        }
    }
}
