//! Which store this node uses: it is remembered in the data folder, so that one that came back empty, or another one,
//! is not taken for it.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

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
         `relayctl store adopt`; to start with it as it is, remove {}", .0.display()
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

/// The store that this node used last, if it used one.
pub(super) fn remembered(path: &Path) -> Result<Option<String>, IdentityError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_owned()).filter(|id| !id.is_empty())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(IdentityError::File { path: path.to_owned(), source }),
    }
}

/// Remembers the store.
pub(super) fn remember(path: &Path, id: &str) -> Result<(), IdentityError> {
    let failed = |source| IdentityError::File { path: path.to_owned(), source };
    let options = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    let mut file = options.map_err(failed)?;
    file.write_all(format!("{id}\n").as_bytes()).and_then(|()| file.sync_all()).map_err(failed)
}

/// Tells whether the store that was found is the one that this node used.
pub(super) fn check(path: &Path, remembered: &str, found: &str) -> Result<(), IdentityError> {
    match found {
        "" => Err(IdentityError::Emptied(path.to_owned())),
        same if same == remembered => Ok(()),
        _ => Err(IdentityError::Another(path.to_owned())),
    }
}
