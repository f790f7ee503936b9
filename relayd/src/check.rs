//! What a configuration names in the file system, looked at before anything is started. Nothing is made here.

use std::path::Path;

use crate::config::{Config, StoreUrl};
use crate::keyfile::{self, KeyFileError};
use crate::logging::{self, LogError};
use crate::store::redis;
use crate::upstream::{self, TlsError};

/// Why a daemon of this configuration would not start, or not with what was named.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// An authority's certificate cannot be read.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The store's server cannot be asked.
    #[error(transparent)]
    StoreClient(#[from] redis::ClientError),
    /// There is no sealing key where it should be.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// Nothing could be logged.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// Reads the certificates, the store's password and the sealing key, and looks whether the log file can be written. A
/// data folder that is not there yet lacks nothing; without one, only
/// what the configuration names is looked at.
pub fn check(config: &Config, data: Option<&Path>) -> Result<(), CheckError> {
    config.log.file().map_or(Ok(()), logging::check)?;
    upstream::Shared::load(&config.upstream.extra_ca)?;
    let store = &config.store;
    if let StoreUrl::Redis(url) = &store.url {
        redis::client(url, store.password_file(), store.ca_file())?;
    }
    let has_store = data.is_some_and(|data| data.join("store").exists());
    match (config.secrets.named_sealing_key_file(), data) {
        (Some(file), _) => {
            keyfile::find(file, has_store)?.ok_or_else(|| KeyFileError::Missing(file.to_owned()))?;
        }
        (None, Some(data)) => drop(keyfile::find(&config.secrets.sealing_key_file(data), has_store)?),
        (None, None) => drop(keyfile::given()?),
    }
    Ok(())
}
