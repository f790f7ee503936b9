//! Which store this node uses: it is remembered in the data folder, so that one that came back empty, or another one,
//! is not taken for it.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::store::StoreError;

/// Why the server's data is not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum IdentityError {
    /// There is nothing in it.
    #[error(
        "it is empty, but this node's data was in it: bring the data back, or run `relayctl store adopt`; \
         to start with it as it is, remove {}", .0.display()
    )]
    Emptied(PathBuf),
    /// It is another one.
    #[error(
        "it holds the data of another store than this node used: point store.url at the old one, or run \
         `relayctl store adopt --as-is`; to start with it as it is, remove {}", .0.display()
    )]
    Another(PathBuf),
    /// The file that remembers it cannot be used.
    #[error("{} cannot be used", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It speaks no scripts as they are written here.
    #[error("it is version {0}; Redis 6.0 or Valkey is the oldest that serves")]
    TooOld(String),
}

impl From<IdentityError> for StoreError {
    fn from(error: IdentityError) -> Self {
        Self::Unavailable(Box::new(error))
    }
}

/// The file that remembers which store this node uses. Clones are the same file.
#[derive(Clone, Debug)]
pub struct IdFile(Arc<Mutex<PathBuf>>);

impl IdFile {
    /// The file at a path.
    pub fn at(path: PathBuf) -> Self {
        Self(Arc::new(Mutex::new(path)))
    }

    /// Gives it another name, also on the disk.
    pub fn rename(&self, path: &Path) -> io::Result<()> {
        let mut known = locked(&self.0);
        std::fs::rename(&*known, path)?;
        path.clone_into(&mut known);
        Ok(())
    }

    fn path(&self) -> PathBuf {
        locked(&self.0).clone()
    }
}

/// The store that this node uses.
pub(super) struct Identity {
    file: IdFile,
    id: Mutex<String>,
}

impl Identity {
    /// What a file remembers.
    pub(super) fn in_file(file: IdFile) -> Result<Self, IdentityError> {
        let id = Mutex::new(read(&file.path())?);
        Ok(Self { file, id })
    }

    /// The id; empty if it is not known yet.
    pub(super) fn known(&self) -> String {
        locked(&self.id).clone()
    }

    /// Remembers the store from now on.
    pub(super) fn remember(&self, id: &str) -> Result<(), IdentityError> {
        write(&locked(&self.file.0), id)?;
        id.clone_into(&mut locked(&self.id));
        Ok(())
    }

    /// Tells whether the store that was found is the one that this node uses.
    pub(super) fn check(&self, found: &str) -> Result<(), IdentityError> {
        match found {
            same if !same.is_empty() && *same == *locked(&self.id) => Ok(()),
            "" => Err(IdentityError::Emptied(self.file.path())),
            _ => Err(IdentityError::Another(self.file.path())),
        }
    }
}

/// Every change under these locks is whole.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read(path: &Path) -> Result<String, IdentityError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(source) => Err(IdentityError::File { path: path.to_owned(), source }),
    }
}

fn write(path: &Path, id: &str) -> Result<(), IdentityError> {
    let failed = |source| IdentityError::File { path: path.to_owned(), source };
    let options = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    let mut file = options.map_err(failed)?;
    file.write_all(format!("{id}\n").as_bytes()).and_then(|()| file.sync_all()).map_err(failed)
}
