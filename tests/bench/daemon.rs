//! relayd as it is shipped, with an account, a price, a key and limits: everything that a call passes is on.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};
use hyper::Request;
use hyper_util::rt::TokioIo;
use shared::admin::{AddAccount, AdminCall, CreateKey, SetPrice, ShowStatus};
use shared::domain::{AccountKind, Limit};
use shared::redact::Secret;
use tempfile::TempDir;
use tokio::net::{TcpStream, UnixStream};

use super::load::Target;
use super::process::Process;

const READY_MAX: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(1);

/// Where a daemon keeps everything.
#[derive(Clone, Copy)]
pub enum StoreOf<'a> {
    Folder,
    Redis(&'a Redis),
}

/// A Redis server of the bench's own.
pub struct Redis {
    _process: Process,
    _folder: TempDir,
    url: String,
}

impl Redis {
    /// Starts one, as it is set up for a relay; `None` where there is none to be started.
    pub fn start() -> Result<Option<Self>> {
        let folder = tempfile::Builder::new().prefix("relayd-bench-redis-").tempdir()?;
        let port = free_port()?.to_string();
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &port, "--save", "", "--appendonly", "yes", "--dir"]);
        command.arg(folder.path()).stdout(File::create(folder.path().join("log"))?);
        let Ok(process) = Process::start(&mut command) else { return Ok(None) };
        let start = Instant::now();
        while std::net::TcpStream::connect(format!("127.0.0.1:{port}")).is_err() {
            if start.elapsed() > READY_MAX {
                bail!("redis-server is not ready after {READY_MAX:?}");
            }
            std::thread::sleep(POLL);
        }
        let url = format!("redis://127.0.0.1:{port}/0");
        Ok(Some(Self { _process: process, _folder: folder, url }))
    }
}

/// How many keys and accounts there are beside those that are used.
pub struct Crowd {
    pub keys: usize,
    pub accounts: usize,
}

/// A running daemon on a data folder of its own.
pub struct Daemon {
    pub process: Process,
    pub address: SocketAddr,
    pub key: String,
    /// From the start of the process to the first answer.
    pub ready: Duration,
    data: TempDir,
}

impl Daemon {
    /// Starts it on an empty folder.
    pub fn spawn(store: StoreOf<'_>) -> Result<Starting> {
        let data = tempfile::Builder::new().prefix("relayd-bench-").tempdir()?;
        let mut settings = Vec::new();
        if let StoreOf::Redis(redis) = store {
            settings.push(("RELAYD__STORE__URL", redis.url.as_str()));
        }
        Starting::spawn(data, &settings)
    }

    /// Where calls go.
    pub fn target(&self) -> Target {
        Target { address: self.address, key: self.key.clone() }
    }

    /// Adds keys and accounts, all of which could serve.
    pub async fn fill(&mut self, crowd: &Crowd, upstream: SocketAddr) -> Result<()> {
        let socket = self.data.path().join("relayd.sock");
        for number in 0..crowd.keys {
            let key = CreateKey { name: format!("key-{number}"), limits: limits()?, ..CreateKey::default() };
            call(&socket, &key).await?;
        }
        for number in 0..crowd.accounts {
            let account = AddAccount { name: format!("account-{number}"), ..account(upstream) };
            call(&socket, &account).await?;
        }
        Ok(())
    }

    /// Ends it, and starts it again on its data.
    pub fn start_again(self) -> Result<Starting> {
        let Self { process, key, data, .. } = self;
        drop(process);
        Ok(Starting { key: Some(key), ..Starting::spawn(data, &[])? })
    }
}

/// A daemon that was started.
pub struct Starting {
    process: Process,
    address: SocketAddr,
    start: Instant,
    key: Option<String>,
    data: TempDir,
}

impl Starting {
    fn spawn(data: TempDir, settings: &[(&str, &str)]) -> Result<Self> {
        let address: SocketAddr = ([127, 0, 0, 1], free_port()?).into();
        let log = File::create(data.path().join("stderr.log"))?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_relayd"));
        command.arg("--data").arg(data.path()).args(["--listen", &address.to_string()]);
        command.envs(settings.iter().copied()).stdout(log.try_clone()?).stderr(log);
        let start = Instant::now();
        let process = Process::start(&mut command)?;
        Ok(Self { process, address, start, key: None, data })
    }

    /// Waits until it answers.
    pub async fn answering(self) -> Result<Daemon> {
        let Self { mut process, address, start, key, data } = self;
        while !answers(address).await {
            if process.has_ended()? {
                bail!("relayd ended: {}", std::fs::read_to_string(data.path().join("stderr.log"))?);
            }
            if start.elapsed() > READY_MAX {
                bail!("relayd is not ready after {READY_MAX:?}");
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(Daemon { process, address, key: key.unwrap_or_default(), ready: start.elapsed(), data })
    }

    /// The same, and adds what calls to `upstream` need.
    pub async fn ready(self, upstream: SocketAddr) -> Result<Daemon> {
        let mut daemon = self.answering().await?;
        daemon.key = set_up(&daemon.data.path().join("relayd.sock"), upstream).await?;
        Ok(daemon)
    }
}

/// A port that was free a moment ago; the daemon is asked over it before it can tell its own.
fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

async fn answers(address: SocketAddr) -> bool {
    health(address).await.unwrap_or(false)
}

async fn health(address: SocketAddr) -> Result<bool> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get("/health").header("host", "relay").body(Empty::<Bytes>::new())?;
    Ok(sender.send_request(request).await?.status().is_success())
}

async fn set_up(socket: &Path, upstream: SocketAddr) -> Result<String> {
    call(socket, &ShowStatus {}).await?;
    call(socket, &account(upstream)).await?;
    let prices = [("input", "3"), ("output", "15"), ("cache_read", "0.3")];
    let prices = prices.map(|(class, price)| (class.to_owned(), Some(price.to_owned())));
    call(socket, &SetPrice { model: "claude-bench".to_owned(), prices: prices.into() }).await?;
    let key = CreateKey { name: "bench".to_owned(), limits: limits()?, ..CreateKey::default() };
    Ok(call(socket, &key).await?.key.expose().to_owned())
}

fn limits() -> Result<Vec<Limit>> {
    let limits = ["5000 concurrent", "1000000000 requests per day"].iter().map(|limit| limit.parse());
    Ok(limits.collect::<Result<_, _>>()?)
}

fn account(upstream: SocketAddr) -> AddAccount {
    AddAccount {
        name: "bench".to_owned(),
        kind: AccountKind::ClaudeConsole,
        base_url: Some(format!("http://{upstream}")),
        secret: Some(Secret::new("sk-bench")),
        api_version: None,
        models: Vec::new(),
        model_map: BTreeMap::new(),
        price_as: None,
        priority: None,
        weight: None,
        headers: BTreeMap::new(),
        limits: Vec::new(),
        gap_ms: 0,
        simulator: None,
    }
}

async fn call<C: AdminCall>(socket: &Path, call: &C) -> Result<C::Reply> {
    let stream =
        UnixStream::connect(socket).await.with_context(|| PathBuf::from(socket).display().to_string())?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::post(C::PATH).header("host", "relayd").header("content-type", "application/json");
    let reply = sender.send_request(request.body(Full::new(Bytes::from(serde_json::to_vec(call)?)))?).await?;
    let status = reply.status();
    let body = reply.into_body().collect().await?.to_bytes();
    if !status.is_success() {
        bail!("{} was answered with {status}: {}", C::PATH, String::from_utf8_lossy(&body));
    }
    Ok(serde_json::from_slice(&body)?)
}
