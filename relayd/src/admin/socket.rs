//! The Unix socket: who may open it, who may speak through it.

use std::convert::Infallible;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Admin, Peer};

/// How long callers have to take their answers when the daemon ends.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// Why there is no admin socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another relayd answers on it.
    #[error("another relayd is running: it answers on {}", .0.display())]
    Taken(PathBuf),
    /// It cannot be made.
    #[error("the admin socket {} cannot be made", .path.display())]
    Io {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The admin socket; its file goes when it is dropped.
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// Whether the file's mode lets in more than its owner.
    is_for_group: bool,
}

impl Socket {
    /// Makes the socket: for the owner alone, or for the owner's group too.
    pub fn bind(path: &Path, is_for_group: bool) -> Result<Self, SocketError> {
        let failed = |source| SocketError::Io { path: path.to_owned(), source };
        // A file that nobody answers on was left by a process that was killed.
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(SocketError::Taken(path.to_owned()));
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        // The folder keeps others out until the mode is set.
        let listener = UnixListener::bind(path).map_err(failed)?;
        let mode = if is_for_group { 0o660 } else { 0o600 };
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(failed)?;
        Ok(Self { listener, path: path.to_owned(), is_for_group })
    }

    /// Serves calls until told to end; calls that are being answered then are answered, within a bound.
    pub async fn serve(self, admin: Arc<Admin>, end: CancellationToken) {
        let graceful = GracefulShutdown::new();
        let mut callers = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = end.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    while callers.try_join_next().is_some() {}
                    if let Some(connection) = self.connection(stream, &admin, &graceful) {
                        callers.spawn(connection);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "an admin connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        if timeout(LAST_ANSWERS, graceful.shutdown()).await.is_err() {
            tracing::warn!("an admin caller does not take its answer and is cut off");
        }
        callers.shutdown().await;
    }

    /// Serves a caller, if it may speak.
    fn connection(
        &self,
        stream: UnixStream,
        admin: &Arc<Admin>,
        graceful: &GracefulShutdown,
    ) -> Option<impl Future<Output = ()> + Send + use<>> {
        let peer = match stream.peer_cred() {
            Ok(credentials) => Peer {
                uid: credentials.uid(),
                pid: credentials.pid().and_then(|pid| u32::try_from(pid).ok()),
            },
            Err(error) => {
                tracing::warn!(%error, "an admin caller could not be identified");
                return None;
            }
        };
        if !self.is_allowed(peer.uid) {
            tracing::warn!(uid = peer.uid, "an admin caller was turned away");
            return None;
        }
        let admin = admin.clone();
        let service = service_fn(move |request| {
            let admin = admin.clone();
            async move { Ok::<_, Infallible>(admin.answer(request, peer).await) }
        });
        let connection =
            http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
        let connection = graceful.watch(connection);
        Some(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "admin connection ended");
            }
        })
    }

    /// Root and the daemon's own user; for a service also whoever the file's group lets in.
    fn is_allowed(&self, uid: u32) -> bool {
        self.is_for_group || uid == 0 || uid == rustix::process::geteuid().as_raw()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Best effort: the next start removes what is left.
        drop(std::fs::remove_file(&self.path));
    }
}
