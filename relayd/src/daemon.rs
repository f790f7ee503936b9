//! Builds the parts in order, runs them until told to stop, and drains them: stop accepting, let calls end,
//! flush the ledger, close the store.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use shared::crypto::{CryptoError, Sealer};
use shared::domain::{Delay, Family, QueueBounds};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::{About, Admin, Socket, SocketError, Upkeep};
use crate::auth::Throttle;
use crate::budgets::{self, Budgets};
use crate::clock::Clock;
use crate::config::{Config, LogFormat, Queue, Unpriced};
use crate::directory::{Directory, DirectoryError, Sessions};
use crate::events::Events;
use crate::jobs::{self, Jobs};
use crate::keyfile::{self, KeyFileError};
use crate::ledger::{self, Lane, Ledger, LedgerError, Watch};
use crate::logging::{self, LogError};
use crate::migrate::{PlaceError, Places, make_folder};
use crate::relay::{self, BodyBudget, DrainBounds, Drains, Queueing, Relay};
use crate::scheduler::health::Cooldowns;
use crate::server::{self, Connections, RequestIds};
use crate::store::{Store, Switch};
use crate::upstream::{self, TlsError, Upstream};
use crate::workers::{self, Crew, Fleet, WorkerError};

/// What the command line says.
#[derive(Clone, Debug)]
pub struct Options {
    /// The data folder.
    pub data: PathBuf,
    /// The configuration file, to name it in `config show`.
    pub config_file: Option<PathBuf>,
}

/// Why the daemon cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The data folder cannot be used.
    #[error("the data folder {} cannot be used", .path.display())]
    Data {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Nothing can be logged.
    #[error(transparent)]
    Log(#[from] LogError),
    /// There is no sealing key.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// The store cannot be used.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// What the store holds cannot be used.
    #[error("what the store holds cannot be used")]
    Directory(#[from] DirectoryError),
    /// The ledger cannot start.
    #[error("the ledger cannot start")]
    Ledger(#[from] LedgerError),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The admin socket cannot be made.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The workers cannot start.
    #[error(transparent)]
    Workers(#[from] WorkerError),
    /// The operating system gives no random bytes.
    #[error(transparent)]
    Random(#[from] CryptoError),
    /// The operating system refuses threads, timers or signals.
    #[error("the operating system refuses what the daemon needs")]
    System(#[source] io::Error),
}

/// Runs the daemon until it is told to stop.
pub fn run(config: &Config, options: &Options) -> Result<(), RunError> {
    let _log = logging::start(&log_settings(config))?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(RunError::System)?;
    runtime.block_on(serve(config, options))
}

async fn serve(config: &Config, options: &Options) -> Result<(), RunError> {
    let daemon = Daemon::build(config, options).await?;
    // Whoever hears that it is ready may tell it to stop at once.
    let mut signals = Signals::listen().map_err(RunError::System)?;
    tell_systemd(sd_notify::NotifyState::Ready);
    tokio::select! {
        () = signals.end() => {}
        () = daemon.stop.cancelled() => {}
    }
    tell_systemd(sd_notify::NotifyState::Stopping);
    tracing::info!("draining; another signal ends calls that are still open");
    daemon.drain(config, signals).await;
    tracing::info!("stopped");
    Ok(())
}

/// The parts that run.
struct Daemon {
    crew: Crew,
    ledger: Arc<Ledger>,
    /// The admin API and the jobs, which outlast the workers.
    attendants: TaskTracker,
    /// Told by whoever wants the daemon to stop.
    stop: CancellationToken,
    /// Told to the attendants when all else has ended.
    end: CancellationToken,
}

impl Daemon {
    async fn build(config: &Config, options: &Options) -> Result<Self, RunError> {
        let clock = Clock::new();
        let started_at = clock.now();
        let data = &options.data;
        tracing::info!(version = env!("CARGO_PKG_VERSION"), data = %data.display(), "relayd starts");
        make_folder(data).map_err(|source| RunError::Data { path: data.clone(), source })?;
        let socket = admin_socket(data)?;
        let node = node_number(data)?;
        let places = Places::new(data.clone(), node, config.store.clone());
        let (store, directory) = open_store(config, data, &places).await?;
        let (watch, moved) = mpsc::channel(budgets::WAITING_MAX);
        let (ledger, lanes) = start_ledger(config, data, node, store.clone(), &clock, watch).await?;
        let ledger = Arc::new(ledger);
        let listeners = workers::bind(&config.server.listen)?;
        let fleet = fleet(config, clock.clone(), directory.clone())?;
        let (stop, end) = (CancellationToken::new(), CancellationToken::new());
        let (connections, queues, drains) =
            (fleet.connections.clone(), fleet.relay.queues.clone(), fleet.relay.drains.clone());
        let events = Arc::new(Events::default());
        let (attendants, upkeep) = (TaskTracker::new(), Upkeep::default());
        let budgets = Budgets { directory: directory.clone(), events: events.clone(), clock: clock.clone() };
        let admin = Admin {
            directory: directory.clone(),
            switch: store.clone(),
            places,
            hold_ttl: config.limits.hold_ttl_ms.duration(),
            events,
            ledger: ledger.clone(),
            clock: clock.clone(),
            upstream: Upstream::new(&fleet.upstream, &fleet.tls),
            key_prefix: config.auth.key_prefix.clone(),
            in_flight: fleet.relay.in_flight.clone(),
            waiting: Box::new(move || queues.waiting()),
            draining: Box::new(move || drains.running()),
            connections: Box::new(move || connections.open()),
            stop: stop.clone(),
            upkeep: upkeep.clone(),
            tasks: attendants.clone(),
            about: About {
                node: format!("{node:08x}"),
                started_at,
                listen: listeners.addresses().iter().map(SocketAddr::to_string).collect(),
                data: data.clone(),
                config_file: options.config_file.clone(),
                config_toml: config.to_toml(),
            },
        };
        for address in listeners.addresses() {
            tracing::info!(%address, "listening");
        }
        let crew = workers::start(&fleet, lanes, &listeners)?;
        attendants.spawn(socket.serve(Arc::new(admin), end.clone()));
        attendants.spawn(jobs::follow(store.clone(), directory, ledger.clone(), end.clone()));
        let settings = jobs::Settings::of(config);
        Jobs { store, clock, settings, upkeep, end: end.clone() }.start(&attendants);
        attendants.spawn(budgets.run(moved, end.clone()));
        attendants.close();
        Ok(Self { crew, ledger, attendants, stop, end })
    }

    async fn drain(self, config: &Config, mut signals: Signals) {
        let timeout = config.server.drain_timeout_ms.duration();
        let impatient = async {
            // Out of time, or out of patience.
            drop(tokio::time::timeout(timeout, signals.end()).await);
        };
        self.crew.drain(impatient).await;
        self.end.cancel();
        self.attendants.wait().await;
        // Whoever else knew the ledger has ended. What is not flushed now is shipped by the next start.
        if let Some(ledger) = Arc::into_inner(self.ledger)
            && let Err(error) = ledger.stop().await
        {
            tracing::warn!(%error, "the ledger could not be flushed");
        }
    }
}

/// What the workers are made of.
fn fleet(config: &Config, clock: Clock, directory: Arc<Directory>) -> Result<Fleet, RunError> {
    let relay = Relay {
        settings: relay_settings(config),
        clock,
        directory,
        bodies: BodyBudget::new(config.server.body_bytes_in_flight_max as u64),
        in_flight: Arc::new(AtomicU64::new(0)),
        abort: CancellationToken::new(),
        queues: Arc::default(),
        drains: Arc::new(Drains::new(drain_bounds(config))),
        stop: CancellationToken::new(),
    };
    let failures_max = u32::try_from(config.auth.failures_max).unwrap_or(u32::MAX);
    let throttle = Throttle::new(failures_max, config.auth.failures_window_ms.duration());
    Ok(Fleet {
        relay: Arc::new(relay),
        tls: upstream::Shared::load(&config.upstream.extra_ca)?,
        upstream: upstream_settings(config),
        server: server_settings(config),
        ids: Arc::new(RequestIds::new()?),
        throttle: Arc::new(throttle),
        connections: Connections::new(config.server.connections_max),
    })
}

async fn open_store(
    config: &Config,
    data: &Path,
    places: &Places,
) -> Result<(Arc<Switch>, Arc<Directory>), RunError> {
    let key = keyfile::load(&config.secrets.sealing_key_file(data), places.is_known())?;
    let store = Arc::new(Switch::new(places.open().await?));
    let sessions = Sessions::new(config.affinity.ttl_ms.duration(), config.affinity.sessions_max);
    let zone = config.limits.zone.clone();
    let directory = Directory::load(store.clone(), Sealer::new(&key), sessions, zone).await?;
    Ok((store, Arc::new(directory)))
}

async fn start_ledger(
    config: &Config,
    data: &Path,
    node: u32,
    store: Arc<dyn Store>,
    clock: &Clock,
    watch: Watch,
) -> Result<(Ledger, Vec<Arc<Lane>>), RunError> {
    let journal = &config.journal;
    let settings = ledger::Settings {
        dir: data.join("journal"),
        node,
        lanes: u32::try_from(workers::count(config.server.workers)).unwrap_or(u32::MAX),
        segment_bytes: journal.segment_bytes,
        sync_ms: journal.sync_ms.get(),
        ship_ms: journal.ship_ms.get(),
        keep_s: journal.keep_s,
        bytes_max: journal.bytes_max,
    };
    Ok(Ledger::start(store, settings, clock, Some(watch)).await?)
}

/// The signals that a daemon gets.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for a signal that says end. The terminal's hanging up does not: the daemon may outlive it.
    async fn end(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return tracing::info!("SIGTERM"),
                _ = self.interrupt.recv() => return tracing::info!("SIGINT"),
                _ = self.hang_up.recv() => tracing::info!("SIGHUP changes nothing: restart to read the configuration"),
            }
        }
    }
}

/// A service's socket lies in its runtime folder, for the group; a person's in the data folder, for them alone.
fn admin_socket(data: &Path) -> Result<Socket, RunError> {
    const NAME: &str = "relayd.sock";
    Ok(match std::env::var_os("RUNTIME_DIRECTORY") {
        Some(folder) => Socket::bind(&Path::new(&folder).join(NAME), true)?,
        None => Socket::bind(&data.join(NAME), false)?,
    })
}

/// The node keeps its number as long as its data folder: journal marks are kept by it.
fn node_number(data: &Path) -> Result<u32, RunError> {
    let path = data.join("node");
    let failed = |source| RunError::Data { path: path.clone(), source };
    if !path.exists() {
        let random: [u8; 4] = shared::crypto::random().map_err(|error| failed(io::Error::other(error)))?;
        keyfile::create(&path, &format!("{:08x}\n", u32::from_be_bytes(random))).map_err(failed)?;
    }
    let text = std::fs::read_to_string(&path).map_err(failed)?;
    u32::from_str_radix(text.trim(), 16)
        .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error)))
}

/// Not being a service is no failure.
fn tell_systemd(state: sd_notify::NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!(%error, "systemd was not told");
    }
}

fn log_settings(config: &Config) -> logging::Settings {
    let log = &config.log;
    logging::Settings {
        filter: log.level.name().to_owned(),
        is_json: log.format == LogFormat::Json,
        file: log.file().map(Path::to_owned),
        file_bytes_max: log.file_bytes_max,
        files_max: u32::try_from(log.files_max).unwrap_or(u32::MAX),
    }
}

fn upstream_settings(config: &Config) -> upstream::Settings {
    let upstream = &config.upstream;
    upstream::Settings {
        connect_timeout: upstream.connect_timeout_ms.duration(),
        first_byte_timeout: upstream.first_byte_timeout_ms.duration(),
        pool_idle_per_host_max: upstream.pool_idle_per_host_max,
        pool_idle_timeout: upstream.pool_idle_timeout_ms.duration(),
    }
}

fn server_settings(config: &Config) -> server::Settings {
    let server = &config.server;
    server::Settings {
        header_read_timeout: server.header_read_timeout_ms.duration(),
        headers_bytes_max: server.headers_bytes_max,
        write_stall_timeout: server.write_stall_timeout_ms.duration(),
        trusted_proxies: server.trusted_proxies.clone(),
        cors: server.cors.clone(),
    }
}

fn relay_settings(config: &Config) -> relay::Settings {
    relay::Settings {
        body_bytes_max: config.server.body_bytes_max as u64,
        body_idle_timeout: config.server.body_idle_timeout_ms.duration(),
        attempts_max: config.failover.attempts,
        failover_total: config.failover.total_ms.duration(),
        stream_silence: config.failover.stream_silence_ms.duration(),
        whole_silence: config.failover.whole_silence_ms.duration(),
        hold: config.failover.hold_ms.duration(),
        hold_bytes_max: config.failover.hold_bytes_max,
        idle_timeout: config.upstream.idle_timeout_ms.duration(),
        cooldowns: cooldowns(config),
        hold_ttl: config.limits.hold_ttl_ms.duration(),
        queueing: queueing(config),
        on_disconnect: config.disconnect.on_disconnect,
        allows_unpriced: config.limits.unpriced == Unpriced::Allow,
        rates: rates(config),
        log_requests: config.log.requests,
    }
}

fn queueing(config: &Config) -> Queueing {
    let Queue { enabled, size_max, wait_ms } = config.queue;
    let size_max = u32::try_from(size_max).unwrap_or(QueueBounds::SIZE_MAX);
    let wait = Delay::from_millis(wait_ms.get()).unwrap_or(Delay::MAX);
    Queueing { is_enabled: enabled, bounds: QueueBounds { size_max, wait } }
}

const fn drain_bounds(config: &Config) -> DrainBounds {
    let disconnect = &config.disconnect;
    DrainBounds {
        calls_max: disconnect.drains_max,
        time: disconnect.drain_ms.duration(),
        tokens_max: disconnect.drain_tokens_max,
        bytes_max: disconnect.drain_bytes_max,
    }
}

fn rates(config: &Config) -> relay::Rates {
    let rates = &config.rates;
    let rates = [
        (Family::Claude, rates.claude),
        (Family::Openai, rates.openai),
        (Family::Gemini, rates.gemini),
        (Family::Droid, rates.droid),
    ];
    rates.into_iter().map(|(family, rate)| (family, rate.0)).collect()
}

const fn cooldowns(config: &Config) -> Cooldowns {
    let health = &config.health;
    Cooldowns {
        limited: health.limited_ms.duration(),
        limited_max: health.limited_max_ms.duration(),
        overloaded: health.overloaded_ms.duration(),
        auth_failed: health.auth_failed_ms.duration(),
        unreachable: health.unreachable_ms.duration(),
        suspect: health.suspect_ms.duration(),
    }
}
