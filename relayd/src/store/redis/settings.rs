//! How the server is reached and used.

use std::path::{Path, PathBuf};
use std::time::Duration;

use shared::redact::Secret;

use super::IdFile;

/// How the server is reached and used.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it is, and the credentials.
    pub client: redis::Client,
    /// Time for a connection.
    pub connect_timeout: Duration,
    /// Time for an answer that a call waits for.
    pub timeout: Duration,
    /// Calls are judged by what this process knows while the server is away; else they fail.
    pub serves_alone: bool,
    /// This node's number.
    pub node: u32,
    /// The file that remembers which store this node uses.
    pub id_file: IdFile,
}

/// Why no server can be reached by these settings, whatever it does.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The URL names no server.
    #[error("store.url names no server: {}", .0.to_string())]
    Url(redis::RedisError),
    /// A file cannot be read.
    #[error("{key} cannot be read: {}", .path.display())]
    File {
        /// The setting.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// What connects to the server at a URL.
///
/// # Errors
///
/// The URL or a file is of no use.
pub fn client(
    url: &Secret,
    password: Option<&Path>,
    ca: Option<&Path>,
) -> Result<redis::Client, ClientError> {
    let read = |key, path: &Path| {
        std::fs::read(path).map_err(|source| ClientError::File { key, path: path.to_owned(), source })
    };
    let mut info = redis::IntoConnectionInfo::into_connection_info(url.expose()).map_err(ClientError::Url)?;
    if let Some(path) = password {
        let file = |source| ClientError::File { key: "store.password_file", path: path.to_owned(), source };
        let password = std::fs::read_to_string(path).map_err(file)?;
        let settings = info.redis_settings().clone();
        info = info.set_redis_settings(settings.set_password(password.trim()));
    }
    let client = match ca {
        Some(path) => {
            let root_cert = Some(read("store.ca_file", path)?);
            redis::Client::build_with_tls(info, redis::TlsCertificates { client_tls: None, root_cert })
        }
        None => redis::Client::open(info),
    };
    client.map_err(ClientError::Url)
}
