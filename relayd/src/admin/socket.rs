//! The Unix socket: who may open it, who may speak through it.

use std::convert::Infallible;
use std::fs::{DirBuilder, File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
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
    /// Makes the socket: for the owner alone, or for the owner's group too. A file that nobody answers on was left
    /// by a process that was killed, and is replaced.
    pub fn bind(path: &Path, is_for_group: bool) -> Result<Self, SocketError> {
        let failed = |source| SocketError::Io { path: path.to_owned(), source };
        let taken = || SocketError::Taken(path.to_owned());
        // Of two that start at once, one would replace what the other has just made.
        let _turn = turn(path).map_err(failed)?.ok_or_else(taken)?;
        match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => return Err(taken()),
            Err(error) if is_vacant(error.kind()) => {}
            Err(error) => return Err(failed(error)),
        }
        let mode = if is_for_group { 0o660 } else { 0o600 };
        let listener = Unseen::bind(path).and_then(|unseen| unseen.show(path, mode)).map_err(failed)?;
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

    /// Serves a caller; one that may not speak is told so.
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
        let is_allowed = self.is_allowed(peer.uid);
        if !is_allowed {
            tracing::warn!(uid = peer.uid, "an admin caller was turned away");
        }
        let admin = admin.clone();
        let service = service_fn(move |request| {
            let admin = admin.clone();
            async move {
                Ok::<_, Infallible>(match is_allowed {
                    true => admin.answer(request, peer).await,
                    false => super::denied(peer),
                })
            }
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
        // Best effort: the next start replaces what is left.
        drop(std::fs::remove_file(&self.path));
    }
}

/// Nobody answers there, or nothing is there.
const fn is_vacant(error: io::ErrorKind) -> bool {
    matches!(error, io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The turn to make a socket at a path, until it is dropped; `None` if another process has it.
fn turn(path: &Path) -> io::Result<Option<File>> {
    let folder = File::open(folder_of(path))?;
    match folder.try_lock() {
        Ok(()) => Ok(Some(folder)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// A socket in a folder that only its owner may look into, until it has its mode: whatever the umask is, nobody
/// else can connect before.
struct Unseen {
    listener: std::os::unix::net::UnixListener,
    hiding_place: HidingPlace,
}

impl Unseen {
    fn bind(path: &Path) -> io::Result<Self> {
        let hiding_place = HidingPlace::make(folder_of(path))?;
        let listener = std::os::unix::net::UnixListener::bind(hiding_place.socket())?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, hiding_place })
    }

    /// Puts it in its place, with its mode, and in place of whatever is there.
    fn show(self, path: &Path, mode: u32) -> io::Result<UnixListener> {
        let socket = self.hiding_place.socket();
        std::fs::set_permissions(&socket, Permissions::from_mode(mode))?;
        std::fs::rename(&socket, path)?;
        UnixListener::from_std(self.listener)
    }
}

/// A folder of its owner's that goes when it is dropped.
struct HidingPlace(PathBuf);

impl HidingPlace {
    /// The names are no longer than the socket's own will be: the path of a socket has at most 107 bytes.
    fn make(folder: &Path) -> io::Result<Self> {
        let place = Self(folder.join(format!(".{}", std::process::id())));
        // A process of this number may have been killed here.
        place.clear();
        DirBuilder::new().mode(0o700).create(&place.0)?;
        std::fs::set_permissions(&place.0, Permissions::from_mode(0o700))?;
        Ok(place)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("s")
    }

    /// What is not there needs no clearing; what cannot be cleared is found by whoever makes it.
    fn clear(&self) {
        drop(std::fs::remove_file(self.socket()));
        drop(std::fs::remove_dir(&self.0));
    }
}

impl Drop for HidingPlace {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn mode(path: &Path) -> Option<u32> {
        Some(path.metadata().ok()?.permissions().mode() & 0o777)
    }

    /// With the usual umask, the system makes sockets that all may look at.
    #[tokio::test]
    async fn it_is_never_seen_with_another_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("relayd.sock");
        let has_ended = Arc::new(AtomicBool::new(false));
        let (watched, end) = (path.clone(), has_ended.clone());
        let watcher = std::thread::spawn(move || {
            let mut seen = std::collections::BTreeSet::new();
            while !end.load(Ordering::Relaxed) {
                seen.extend(mode(&watched));
            }
            seen
        });
        for _ in 0..1_000 {
            drop(Socket::bind(&path, true).unwrap());
        }
        has_ended.store(true, Ordering::Relaxed);
        let seen = watcher.join().unwrap();
        assert!(seen.iter().all(|mode| *mode == 0o660), "{seen:?}");
    }

    #[tokio::test]
    async fn what_nobody_answers_on_is_replaced_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("relayd.sock");
        // A process that was killed leaves its file.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let first = Socket::bind(&path, false).unwrap();
        assert_eq!(mode(&path), Some(0o600));
        assert!(matches!(Socket::bind(&path, false), Err(SocketError::Taken(_))));
        UnixStream::connect(&path).await.unwrap();
        let left: Vec<_> =
            folder.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["relayd.sock"]);
        drop(first);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn who_may_not_speak_is_told_so() {
        let answer = super::super::denied(Peer { uid: 7, pid: None });
        assert_eq!(answer.status(), http::StatusCode::FORBIDDEN);
        let body = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes();
        let problem: shared::admin::Problem = serde_json::from_slice(&body).unwrap();
        assert_eq!(problem.code, shared::admin::ProblemCode::Denied);
        assert!(problem.message.starts_with("the user 7 may not control this relayd"), "{problem}");
    }

    #[test]
    fn of_several_that_start_at_once_one_has_it() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("relayd.sock");
        for _ in 0..100 {
            drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
            let start = std::sync::Barrier::new(4);
            let sockets: Vec<_> = std::thread::scope(|scope| {
                let bind = || {
                    let _context = runtime.enter();
                    start.wait();
                    Socket::bind(&path, false)
                };
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(bind)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert_eq!(sockets.iter().filter(|socket| socket.is_ok()).count(), 1);
            let refused = sockets.iter().filter_map(|socket| socket.as_ref().err());
            assert!(refused.into_iter().all(|error| matches!(error, SocketError::Taken(_))));
        }
    }
}
