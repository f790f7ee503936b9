//! The built daemon in a temporary folder: started, watched, killed, started again on the same data. Only
//! processes that were started here are ended, by their id, also when a test fails.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal};
use shared::admin::{AdminCall, ListRequests, RequestRow, ShowStatus, StatusView};
use shared::progress::LongCall;
use tempfile::TempDir;

use super::admin::{self, CallError};
use super::client::Client;
use super::redis::RedisServer;

const START_MAX: Duration = Duration::from_secs(30);
const WAIT_MAX: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);

/// Settings that tests change, by section and key.
pub mod setting {
    /// A setting's section and key.
    pub type Name = (&'static str, &'static str);

    pub const WORKERS: Name = ("server", "workers");
    pub const CONNECTIONS_MAX: Name = ("server", "connections_max");
    pub const HEADER_READ_TIMEOUT_MS: Name = ("server", "header_read_timeout_ms");
    pub const BODY_BYTES_MAX: Name = ("server", "body_bytes_max");
    pub const BODY_BYTES_IN_FLIGHT_MAX: Name = ("server", "body_bytes_in_flight_max");
    pub const BODY_IDLE_TIMEOUT_MS: Name = ("server", "body_idle_timeout_ms");
    pub const WRITE_STALL_TIMEOUT_MS: Name = ("server", "write_stall_timeout_ms");
    pub const CORS: Name = ("server", "cors");
    pub const DRAIN_TIMEOUT_MS: Name = ("server", "drain_timeout_ms");
    pub const TRUSTED_PROXIES: Name = ("server", "trusted_proxies");
    pub const FAILURES_MAX: Name = ("auth", "failures_max");
    pub const FAILURES_WINDOW_MS: Name = ("auth", "failures_window_ms");
    pub const FIRST_BYTE_TIMEOUT_MS: Name = ("upstream", "first_byte_timeout_ms");
    pub const IDLE_TIMEOUT_MS: Name = ("upstream", "idle_timeout_ms");
    pub const HOLD_MS: Name = ("failover", "hold_ms");
    pub const STREAM_SILENCE_MS: Name = ("failover", "stream_silence_ms");
    pub const WHOLE_SILENCE_MS: Name = ("failover", "whole_silence_ms");
    pub const FAILOVER_TOTAL_MS: Name = ("failover", "total_ms");
    pub const SUSPECT_MS: Name = ("health", "suspect_ms");
    pub const QUEUE_ENABLED: Name = ("queue", "enabled");
    pub const QUEUE_SIZE_MAX: Name = ("queue", "size_max");
    pub const QUEUE_WAIT_MS: Name = ("queue", "wait_ms");
    pub const ON_DISCONNECT: Name = ("disconnect", "on_disconnect");
    pub const DRAINS_MAX: Name = ("disconnect", "drains_max");
    pub const DRAIN_MS: Name = ("disconnect", "drain_ms");
    pub const DRAIN_TOKENS_MAX: Name = ("disconnect", "drain_tokens_max");
    pub const DRAIN_BYTES_MAX: Name = ("disconnect", "drain_bytes_max");
    pub const JOURNAL_SEGMENT_BYTES: Name = ("journal", "segment_bytes");
    pub const STORE_URL: Name = ("store", "url");
    pub const STORE_PASSWORD_FILE: Name = ("store", "password_file");
    pub const STORE_TIMEOUT_MS: Name = ("store", "timeout_ms");
    pub const STORE_ON_FAILURE: Name = ("store", "on_failure");
    pub const LOG_FILE: Name = ("log", "file");
    pub const LOG_FILE_BYTES_MAX: Name = ("log", "file_bytes_max");
    pub const LOG_FILES_MAX: Name = ("log", "files_max");
    pub const LOG_REQUESTS: Name = ("log", "requests");
    pub const HOLD_TTL_MS: Name = ("limits", "hold_ttl_ms");
    pub const ZONE: Name = ("limits", "zone");
    pub const UNPRICED: Name = ("limits", "unpriced");
    pub const RATE_CLAUDE: Name = ("rates", "claude");
}

const STORE_URL: &str = "RELAYD__STORE__URL";

/// What a daemon is started with.
#[derive(Clone, Default)]
pub struct Setup {
    settings: BTreeMap<String, String>,
    data: Option<Arc<TempDir>>,
    has_redis: bool,
    redis: Option<RedisServer>,
    /// Addresses beside the first.
    more_addresses: usize,
}

impl Setup {
    /// Listens at a further address.
    pub fn one_more_address(mut self) -> Self {
        self.more_addresses += 1;
        self
    }

    /// With a Redis server of its own as the store.
    pub fn on_redis(mut self) -> Self {
        self.has_redis = true;
        self
    }

    /// With its data in this folder.
    pub fn in_folder(mut self, data: &Arc<TempDir>) -> Self {
        self.data = Some(Arc::clone(data));
        self
    }

    /// Makes a setting, written as in the environment.
    pub fn set(mut self, (section, key): setting::Name, value: impl Copy + Display) -> Self {
        let name = format!("RELAYD__{}__{}", section.to_uppercase(), key.to_uppercase());
        self.settings.insert(name, value.to_string());
        self
    }

    pub async fn start(mut self) -> Daemon {
        let data = self.data.get_or_insert_with(|| Arc::new(temporary_folder()));
        let data = Arc::clone(data);
        if (self.has_redis || all_on_redis()) && !self.settings.contains_key(STORE_URL) {
            let server = RedisServer::start(&data.path().join("redis"));
            self = self.set(setting::STORE_URL, server.url().as_str());
            self.redis = Some(server);
        }
        let mut process = spawn(data.path(), &self);
        let address = ready(&mut process, &socket(data.path())).await;
        Daemon { setup: self, data, process, address }
    }
}

/// Every test's daemon has a Redis server as its store: the whole suite shows that the stores are alike.
pub fn all_on_redis() -> bool {
    std::env::var_os("RELAYD_TEST_STORE").is_some_and(|store| store == "redis")
}

/// A folder that is removed when dropped. Its name is short: a Unix socket's path has at most 107 bytes.
pub fn temporary_folder() -> TempDir {
    tempfile::Builder::new().prefix("relayd-test-").tempdir().unwrap()
}

fn socket(data: &Path) -> PathBuf {
    data.join("relayd.sock")
}

/// The daemon's program.
pub fn relayd() -> Command {
    clean(Command::new(env!("CARGO_BIN_EXE_relayd")))
}

/// The control program. `cargo test` on one package builds no other package's programs, so one that is missing
/// or older than its sources is built first.
pub fn relayctl() -> Command {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let program = PROGRAM.get_or_init(|| {
        let program = Path::new(env!("CARGO_BIN_EXE_relayd")).with_file_name("relayctl");
        let built_at = fs::metadata(&program).and_then(|file| file.modified()).ok();
        let changed_at = ["relayctl/src", "shared/src"].map(|folder| last_change(&repository().join(folder)));
        if built_at < changed_at.into_iter().max().flatten() {
            let mut cargo = Command::new(env!("CARGO"));
            cargo.args(["build", "--locked", "-p", "relayctl", "--manifest-path"]);
            let status = cargo.arg(repository().join("Cargo.toml")).status().unwrap();
            assert!(status.success(), "relayctl cannot be built");
        }
        program
    });
    clean(Command::new(program))
}

/// When anything in a folder was changed last.
fn last_change(folder: &Path) -> Option<SystemTime> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let change = |path: PathBuf| match path.is_dir() {
        true => last_change(&path),
        false => path.metadata().unwrap().modified().ok(),
    };
    entries.filter_map(change).max()
}

/// The folder of the workspace.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// No key, proxy or setting of the person who runs the tests takes part in them.
fn clean(mut command: Command) -> Command {
    command.env_clear();
    for name in ["PATH", "TMPDIR", "USER"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

fn spawn(data: &Path, setup: &Setup) -> Process {
    let log = File::options().create(true).append(true).open(data.join("stderr.log")).unwrap();
    let mut command = relayd();
    command.arg("--data").arg(data);
    for _ in 0..=setup.more_addresses {
        command.args(["--listen", "127.0.0.1:0"]);
    }
    command.env("HOME", data).envs(&setup.settings).stdin(Stdio::null());
    command.stdout(log.try_clone().unwrap()).stderr(log);
    Process(command.spawn().unwrap())
}

async fn ready(process: &mut Process, socket: &Path) -> SocketAddr {
    let start = Instant::now();
    loop {
        if let Ok(status) = admin::call(socket, &ShowStatus {}).await
            && status.pid == process.0.id()
        {
            let address = status.listen.first().expect("it listens nowhere");
            return address.trim_start_matches("http://").trim_end_matches('/').parse().unwrap();
        }
        if let Some(status) = process.0.try_wait().unwrap() {
            let log = fs::read_to_string(socket.with_file_name("stderr.log")).unwrap_or_default();
            panic!("relayd ended at its start with {status}:\n{log}");
        }
        assert!(start.elapsed() < START_MAX, "relayd is not ready after {START_MAX:?}");
        tokio::time::sleep(POLL).await;
    }
}

/// A process that ends with its owner.
struct Process(Child);

impl Process {
    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.0);
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running daemon.
pub struct Daemon {
    setup: Setup,
    data: Arc<TempDir>,
    process: Process,
    address: SocketAddr,
}

impl Daemon {
    pub async fn start() -> Self {
        Setup::default().start().await
    }

    /// Its settings, as they stand in its environment.
    pub fn settings(&self) -> &BTreeMap<String, String> {
        &self.setup.settings
    }

    /// The server that is its store.
    pub fn redis(&self) -> &RedisServer {
        self.setup.redis.as_ref().expect("the store of this test is no Redis")
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn data(&self) -> &Path {
        self.data.path()
    }

    pub fn socket(&self) -> PathBuf {
        socket(self.data())
    }

    pub fn client(&self, key: &str) -> Client {
        Client::new(self.address, key)
    }

    pub async fn try_call<C: AdminCall>(&self, call: &C) -> Result<C::Reply, CallError> {
        admin::call(&self.socket(), call).await
    }

    pub async fn call<C: AdminCall>(&self, call: &C) -> C::Reply {
        self.try_call(call).await.unwrap_or_else(|error| panic!("{}: {error}", C::PATH))
    }

    /// Makes a call that takes long.
    pub async fn call_long<C: LongCall>(&self, call: &C) -> C::Reply {
        let made = admin::call_long(&self.socket(), call, |_| {}).await;
        made.unwrap_or_else(|error| panic!("{}: {error}", C::PATH))
    }

    pub async fn status(&self) -> StatusView {
        self.call(&ShowStatus {}).await
    }

    /// Every ledger row, newest first, once all that has been journalled is in the store.
    pub async fn rows(&self) -> Vec<RequestRow> {
        self.settled().await;
        let mut rows: Vec<RequestRow> = Vec::new();
        loop {
            let before = rows.last().map(|row| row.id);
            let page = ListRequests { before, limit: Some(10_000), ..ListRequests::default() };
            let page = self.call(&page).await;
            if page.is_empty() {
                return rows;
            }
            rows.extend(page);
        }
    }

    /// Waits until so many calls wait for room or for their turn.
    pub async fn waiting(&self, calls: u64) {
        until("calls wait", async || (self.status().await.waiting == calls).then_some(())).await;
    }

    /// The one row of a model, once its call has ended.
    pub async fn row(&self, model: &str) -> RequestRow {
        until("a row", async || self.rows().await.into_iter().find(|row| row.model == model)).await
    }

    /// Waits until no call is open and the store has taken every record.
    pub async fn settled(&self) {
        until("the ledger is settled", async || {
            let status = self.status().await;
            (status.in_flight == 0 && status.journal.unshipped == 0).then_some(())
        })
        .await;
    }

    /// Ends the process as a crash would.
    pub fn kill(&mut self) {
        self.process.0.kill().unwrap();
        self.process.0.wait().unwrap();
    }

    pub fn terminate(&self) {
        self.process.signal(Signal::TERM);
    }

    /// Waits for the process to end by itself.
    pub async fn ended(&mut self) -> ExitStatus {
        until("the daemon ends", async || self.process.0.try_wait().unwrap()).await
    }

    /// Starts it again on the same data; the process must have ended.
    pub async fn start_again(&mut self) {
        assert!(self.process.0.try_wait().unwrap().is_some(), "the daemon is still running");
        self.process = spawn(self.data.path(), &self.setup);
        let socket = self.socket();
        self.address = ready(&mut self.process, &socket).await;
    }

    /// Makes a setting for the next start.
    pub fn configure(&mut self, (section, key): setting::Name, value: &str) {
        let name = format!("RELAYD__{}__{}", section.to_uppercase(), key.to_uppercase());
        self.setup.settings.insert(name, value.to_owned());
    }

    pub fn is_running(&mut self) -> bool {
        self.process.0.try_wait().unwrap().is_none()
    }

    /// The most bytes of memory that there ever were.
    pub fn memory_peak(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.0.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    /// What the daemon wrote to its standard output and error.
    pub fn output(&self) -> String {
        fs::read_to_string(self.data().join("stderr.log")).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let output = self.output();
            let tail: Vec<&str> = output.lines().rev().take(40).collect();
            let mut stderr = std::io::stderr().lock();
            let _ = writeln!(stderr, "--- the daemon's last words:");
            for line in tail.iter().rev() {
                let _ = writeln!(stderr, "{line}");
            }
        }
    }
}

/// Waits until a condition gives a value; panics after a minute.
pub async fn until<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(start.elapsed() < WAIT_MAX, "waited in vain: {what}");
        tokio::time::sleep(POLL).await;
    }
}
