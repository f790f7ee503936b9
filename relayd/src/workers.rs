//! The threads that serve clients: one runtime each, all accepting from the same listening sockets, each with
//! its own connections to upstreams and its own lane of the journal. They share nothing that a call would have
//! to wait for.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::Throttle;
use crate::ledger::Lane;
use crate::relay::{Relay, Worker};
use crate::server::{self, Connections, RequestIds, Server, Views};
use crate::upstream::{self, Upstream};

/// Why the workers cannot start.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// An address cannot be listened at.
    #[error("relayd cannot listen at {address}; choose another with --listen or server.listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A socket from systemd cannot be used.
    #[error("a socket that systemd passed cannot be used")]
    Passed(#[source] io::Error),
    /// The operating system refuses a thread or a socket.
    #[error("a worker cannot start")]
    Start(#[source] io::Error),
}

/// Listening sockets with their addresses.
pub(crate) struct Listeners {
    sockets: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
}

impl Listeners {
    /// Where clients reach them.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

/// Takes the sockets that systemd passed, else makes them.
pub(crate) fn bind(addresses: &[SocketAddr]) -> Result<Listeners, WorkerError> {
    let mut passed = listenfd::ListenFd::from_env();
    let mut sockets = Vec::new();
    for index in 0..passed.len() {
        sockets.extend(passed.take_tcp_listener(index).map_err(WorkerError::Passed)?);
    }
    if sockets.is_empty() {
        for &address in addresses {
            let socket =
                TcpListener::bind(address).map_err(|source| WorkerError::Listen { address, source })?;
            sockets.push(socket);
        }
    }
    let addresses = sockets.iter().map(TcpListener::local_addr).collect::<io::Result<_>>();
    Ok(Listeners { sockets, addresses: addresses.map_err(WorkerError::Start)? })
}

/// How many workers a setting means; 0 is one for each core.
pub(crate) fn count(setting: usize) -> usize {
    match setting {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        workers => workers,
    }
}

/// What all workers are made of.
pub(crate) struct Fleet {
    pub(crate) relay: Arc<Relay>,
    pub(crate) tls: upstream::Shared,
    pub(crate) upstream: upstream::Settings,
    pub(crate) server: server::Settings,
    pub(crate) ids: Arc<RequestIds>,
    pub(crate) throttle: Arc<Throttle>,
    pub(crate) connections: Connections,
}

/// The workers that run.
pub(crate) struct Crew {
    threads: Vec<JoinHandle<()>>,
    stop: CancellationToken,
    abort: CancellationToken,
}

/// Starts a worker for each lane.
pub(crate) fn start(
    fleet: &Fleet,
    lanes: Vec<Arc<Lane>>,
    listeners: &Listeners,
) -> Result<Crew, WorkerError> {
    let (stop, abort) = (fleet.relay.stop.clone(), fleet.relay.abort.clone());
    let mut crew = Crew { threads: Vec::new(), stop, abort };
    for (number, lane) in lanes.into_iter().enumerate() {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(WorkerError::Start)?;
        let worker = Worker {
            relay: fleet.relay.clone(),
            lane,
            upstream: Upstream::new(&fleet.upstream, &fleet.tls),
            runtime: runtime.handle().clone(),
            tasks: TaskTracker::new(),
        };
        let server = Arc::new(Server {
            worker: Arc::new(worker),
            ids: fleet.ids.clone(),
            throttle: fleet.throttle.clone(),
            settings: fleet.server.clone(),
            views: Views::default(),
        });
        let sockets: io::Result<Vec<_>> = listeners.sockets.iter().map(TcpListener::try_clone).collect();
        let sockets = sockets.map_err(WorkerError::Start)?;
        let serving =
            serve(server, sockets, fleet.connections.clone(), crew.stop.clone(), crew.abort.clone());
        let thread = std::thread::Builder::new().name(format!("worker-{number}"));
        crew.threads.push(thread.spawn(move || runtime.block_on(serving)).map_err(WorkerError::Start)?);
    }
    Ok(crew)
}

async fn serve(
    server: Arc<Server>,
    sockets: Vec<TcpListener>,
    connections: Connections,
    stop: CancellationToken,
    abort: CancellationToken,
) {
    let tasks = server.worker.tasks.clone();
    for socket in sockets {
        let listener = socket.set_nonblocking(true).and_then(|()| tokio::net::TcpListener::from_std(socket));
        match listener {
            Ok(listener) => {
                let (stop, abort) = (stop.clone(), abort.clone());
                tasks.spawn(server::serve(server.clone(), listener, connections.clone(), stop, abort));
            }
            Err(error) => tracing::error!(%error, "a worker cannot accept"),
        }
    }
    tasks.close();
    tasks.wait().await;
}

impl Crew {
    /// Stops accepting and waits until every call has ended; those that are still open when `patience` ends are
    /// cut off.
    pub(crate) async fn drain(self, patience: impl Future<Output = ()>) {
        let Self { threads, stop, abort } = self;
        stop.cancel();
        let ended = async {
            for thread in threads {
                // A worker that panicked is not waited for any longer.
                drop(tokio::task::spawn_blocking(move || thread.join()).await);
            }
        };
        let mut ended = std::pin::pin!(ended);
        tokio::select! {
            () = &mut ended => return,
            () = patience => {}
        }
        tracing::warn!("calls that are still open are cut off");
        abort.cancel();
        ended.await;
    }
}
