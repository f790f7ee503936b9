//! Accepts connections within the cap, serves each as HTTP/1.1, and drains when told to.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::Server;
use super::stall::Stalling;

/// How long a connection that was accepted but not yet read has to send its request before it is closed: graceful
/// shutdown closes whatever is idle, and such a connection looks idle.
const LAST_CALL: Duration = Duration::from_millis(150);
/// How much is read at once: a usual body comes in one piece then, and is not copied. A connection's buffer grows to
/// this size only where what comes fills it.
const READ_BYTES_MAX: usize = 128 << 10;
/// How long accepting pauses when the system has no more files or memory for connections.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// The cap on connections, and how many there are, over all workers.
#[derive(Clone)]
pub struct Connections {
    free: Arc<Semaphore>,
    open: Arc<AtomicUsize>,
}

impl Connections {
    /// Allows so many at once.
    pub fn new(connections_max: usize) -> Self {
        let connections_max = connections_max.min(Semaphore::MAX_PERMITS);
        Self { free: Arc::new(Semaphore::new(connections_max)), open: Arc::default() }
    }

    /// How many are open now.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

/// Serves one listening socket until `stop`, then waits until the open connections are done, or `abort`.
pub async fn serve(
    server: Arc<Server>,
    listener: TcpListener,
    connections: Connections,
    stop: CancellationToken,
    abort: CancellationToken,
) {
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept(&listener, &connections) => accepted,
        };
        let (stream, peer, slot) = accepted;
        spawn(&server, stream, peer, slot, &graceful);
    }
    drop(listener);
    tokio::time::sleep(LAST_CALL).await;
    tokio::select! {
        () = graceful.shutdown() => {}
        () = abort.cancelled() => {}
    }
}

/// A place among the connections; given back when dropped.
struct Slot {
    _permit: tokio::sync::OwnedSemaphorePermit,
    open: Arc<AtomicUsize>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Accepts a connection and waits for its place. Beyond the cap, each listening socket of a worker keeps one connection
/// that is not read yet; the others stay in the kernel's queue. A place that were taken beforehand would be held by every
/// socket at which nobody calls.
async fn accept(listener: &TcpListener, connections: &Connections) -> (TcpStream, SocketAddr, Slot) {
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "a connection was not accepted");
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
                continue;
            }
        };
        // The places are never closed.
        if let Ok(permit) = connections.free.clone().acquire_owned().await {
            connections.open.fetch_add(1, Ordering::Relaxed);
            return (stream, peer, Slot { _permit: permit, open: connections.open.clone() });
        }
    }
}

fn spawn(server: &Arc<Server>, stream: TcpStream, peer: SocketAddr, slot: Slot, graceful: &GracefulShutdown) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection was lost before it was served");
        return;
    }
    let settings = &server.settings;
    let io = TokioIo::new(Stalling::new(stream, settings.write_stall_timeout));
    let service_server = server.clone();
    let service = service_fn(move |request| {
        let server = service_server.clone();
        async move { Ok::<_, Infallible>(server.answer(request, peer).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.header_read_timeout)
        .max_header_size(settings.headers_bytes_max)
        .max_buf_size(READ_BYTES_MAX.max(settings.headers_bytes_max))
        .serve_connection(io, service);
    let connection = graceful.watch(connection);
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection ended");
        }
        drop(slot);
    });
}
