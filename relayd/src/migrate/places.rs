//! Where stores lie: in files of the data folder, or on a server. What was moved is marked in the data folder, so that
//! nobody goes on with the old store by mistake.

use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use shared::domain::Timestamp;

use crate::config::{self, OnFailure, StoreUrl};
use crate::store::embedded::Embedded;
use crate::store::redis::{self, IdFile, Redis};
use crate::store::{RecordKind, Store, StoreError};

/// The setting that marks a store which is being filled; its value says from where.
pub(super) const MIGRATING: &str = "migrating";

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// A folder or a file cannot be used.
    #[error("{} cannot be used", .path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It cannot be opened.
    #[error("the store cannot be opened")]
    Store(#[from] StoreError),
    /// The URL is of no use.
    #[error(transparent)]
    Client(#[from] redis::ClientError),
    /// Its data was moved.
    #[error(
        "the store was moved from {from} to {to} at {at}: set store.url to that; to go on with the old one all the \
         same, without what came since, remove {}", .path.display()
    )]
    Moved {
        /// The old store.
        from: String,
        /// The new one.
        to: String,
        /// When.
        at: Timestamp,
        /// The marker.
        path: PathBuf,
    },
    /// It was never filled wholly.
    #[error(
        "the store holds part of another: `relayctl store migrate` was broken off. Start with the old store.url and \
         run it again"
    )]
    Unfinished,
}

/// What is remembered of a move.
#[derive(Debug, Serialize, Deserialize)]
struct Moved {
    from: String,
    to: String,
    at: Timestamp,
}

/// The data folder, and how servers are reached.
pub struct Places {
    data: PathBuf,
    node: u32,
    settings: config::Store,
    /// Where the store in use lies.
    current: Mutex<StoreUrl>,
}

/// A store that is to be filled, and the file that remembers it until then.
pub(super) struct Target {
    pub(super) store: Box<dyn Store>,
    pub(super) url: StoreUrl,
    id_file: Option<IdFile>,
}

impl Places {
    /// As configured.
    pub fn new(data: PathBuf, node: u32, settings: config::Store) -> Self {
        let current = Mutex::new(settings.url.clone());
        Self { data, node, settings, current }
    }

    /// Opens the store that is configured.
    ///
    /// # Errors
    ///
    /// It cannot be opened, was moved, or is not whole.
    pub async fn open(&self) -> Result<Box<dyn Store>, PlaceError> {
        let url = &self.settings.url;
        self.check_not_moved(url)?;
        let store: Box<dyn Store> = match url {
            StoreUrl::Embedded => self.embedded()?,
            StoreUrl::Redis(_) => self.server(url, IdFile::at(self.id_path())).await?,
        };
        if store.record(RecordKind::Setting, MIGRATING).await?.is_some() {
            return Err(PlaceError::Unfinished);
        }
        Ok(store)
    }

    /// Whether something was ever stored.
    pub fn is_known(&self) -> bool {
        self.folder().exists() || self.id_path().exists()
    }

    /// Opens a store that is to be filled.
    pub(super) async fn open_target(&self, url: &StoreUrl) -> Result<Target, PlaceError> {
        let id_path = self.data.join("store-id.new");
        // It may be of another server, to which a move was broken off; that there is part of this store in one is told
        // by the store itself.
        drop(std::fs::remove_file(&id_path));
        let id_file = IdFile::at(id_path);
        Ok(match url {
            StoreUrl::Embedded => Target { store: self.embedded()?, url: url.clone(), id_file: None },
            StoreUrl::Redis(_) => Target {
                store: self.server(url, id_file.clone()).await?,
                url: url.clone(),
                id_file: Some(id_file),
            },
        })
    }

    /// The store in use, as it is shown.
    pub(super) fn current(&self) -> String {
        locked(&self.current).clone().into()
    }

    /// Who the store in use is: what was broken off may go on from it, and from no other.
    pub(super) fn name(&self) -> String {
        let id = std::fs::read_to_string(self.id_path()).unwrap_or_default();
        match &*locked(&self.current) {
            StoreUrl::Embedded => format!("embedded {:08x}", self.node),
            StoreUrl::Redis(_) => format!("redis {}", id.trim()),
        }
    }

    /// The store was moved: from now on, nobody starts with the old one.
    pub(super) fn moved(&self, target: &Target, at: Timestamp) -> Result<(), PlaceError> {
        let moved = Moved { from: self.current(), to: target.url.clone().into(), at };
        let path = self.marker();
        let failed = |source| PlaceError::File { path: path.clone(), source };
        let json = serde_json::to_vec(&moved).map_err(|error| failed(error.into()))?;
        write_whole(&path, &json).map_err(failed)?;
        let id_path = self.id_path();
        let remembered = match &target.id_file {
            Some(file) => file.rename(&id_path),
            // Whatever server is named then, it is not the one in use.
            None => write_whole(&id_path, b"embedded\n"),
        };
        remembered.map_err(|source| {
            // The old store goes on.
            drop(std::fs::remove_file(&path));
            PlaceError::File { path: id_path, source }
        })
    }

    /// The new store is in use.
    pub(super) fn use_now(&self, url: &StoreUrl) {
        url.clone_into(&mut locked(&self.current));
    }

    fn check_not_moved(&self, url: &StoreUrl) -> Result<(), PlaceError> {
        let path = self.marker();
        let failed = |source| PlaceError::File { path: path.clone(), source };
        let json = match std::fs::read(&path) {
            Ok(json) => json,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        let Moved { from, to, at } = serde_json::from_slice(&json).map_err(|error| failed(error.into()))?;
        let is_old = String::from(url.clone()) == from && from != to;
        if is_old { Err(PlaceError::Moved { from, to, at, path }) } else { Ok(()) }
    }

    fn embedded(&self) -> Result<Box<dyn Store>, PlaceError> {
        let folder = self.folder();
        make_folder(&folder).map_err(|source| PlaceError::File { path: folder.clone(), source })?;
        Ok(Box::new(Embedded::open(&folder)?))
    }

    async fn server(&self, url: &StoreUrl, id_file: IdFile) -> Result<Box<dyn Store>, PlaceError> {
        let StoreUrl::Redis(url) = url else { return self.embedded() };
        let settings = &self.settings;
        let settings = redis::Settings {
            client: redis::client(url, settings.password_file(), settings.ca_file())?,
            connect_timeout: settings.connect_timeout_ms.duration(),
            timeout: settings.timeout_ms.duration(),
            serves_alone: settings.on_failure == OnFailure::Serve,
            node: self.node,
            id_file,
        };
        Ok(Box::new(Redis::open(settings).await?))
    }

    fn folder(&self) -> PathBuf {
        self.data.join("store")
    }

    fn id_path(&self) -> PathBuf {
        self.data.join("store-id")
    }

    fn marker(&self) -> PathBuf {
        self.data.join("store-moved")
    }
}

/// Made by us, nobody else may look in; made by the operator, it is as open as they want.
pub fn make_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
}

/// Writes a file wholly or not at all.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let beside = path.with_extension("tmp");
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
