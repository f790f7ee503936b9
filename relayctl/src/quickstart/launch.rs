//! Starting a daemon in the background, remembering it, and ending the one that was remembered.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use shared::admin::{ShowStatus, StatusView};
use shared::domain::Timestamp;
use tokio::time::{Instant, sleep};

use crate::client::{Client, ClientError};
use crate::failure::Failure;
use crate::program::relayd_program;
use crate::prompt;

pub(super) const FIRST_PORT: u16 = 3000;
const PORTS_TRIED: u16 = 100;
const READY_WITHIN: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);
const RECORD_FILE: &str = "quickstart.json";
const LOG_FILE: &str = "quickstart.log";
const LOG_TAIL_BYTES: u64 = 4 << 10;
const LOG_TAIL_LINES: usize = 15;

/// What quickstart started, as it is remembered in the data folder.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Started {
    pub(super) pid: u32,
    pub(super) listen: String,
    /// As the daemon's own status says; with the process id it names one run.
    pub(super) started_at: Timestamp,
}

impl Started {
    /// The record in a data folder; a missing or unreadable one is as good as none.
    pub(super) fn load(data: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(data.join(RECORD_FILE)).ok()?).ok()
    }

    /// Whether this is the daemon that answers.
    pub(super) fn is(&self, status: &StatusView) -> bool {
        self.pid == status.pid && self.started_at == status.started_at
    }

    fn save(&self, data: &Path) -> anyhow::Result<()> {
        let path = data.join(RECORD_FILE);
        let json = serde_json::to_vec(self)?;
        let write = || private_file().truncate(true).open(&path)?.write_all(&json);
        write().with_context(|| format!("cannot write {}", path.display()))
    }

    /// Forgets the daemon; it does not matter if it was forgotten already.
    pub(super) fn forget(data: &Path) {
        let _ = fs::remove_file(data.join(RECORD_FILE));
    }
}

/// Starts a daemon in a data folder and waits until it answers.
pub(super) async fn start(client: &Client, data: &Path) -> Result<(StatusView, SocketAddr), Failure> {
    let program = relayd_program()?;
    make_private(data).with_context(|| format!("cannot make the data folder {}", data.display()))?;
    let waiting = prompt::spinner("waiting for relayd");
    let answers = start_on_free_port(client, &program, data).await;
    waiting.finish_and_clear();
    let (status, listen) = answers?;
    let started = Started { pid: status.pid, listen: listen.to_string(), started_at: status.started_at };
    started.save(data)?;
    Ok((status, listen))
}

/// Takes the next port when another program was faster: ours is closed before the daemon opens its own.
async fn start_on_free_port(
    client: &Client,
    program: &Path,
    data: &Path,
) -> Result<(StatusView, SocketAddr), Failure> {
    let log = data.join(LOG_FILE);
    let mut first = FIRST_PORT;
    loop {
        let listen = free_address(first)?;
        let mut child = spawn(program, data, listen, &log)
            .with_context(|| format!("cannot run {}", program.display()))?;
        let failure = match ready(client, &mut child, &log).await {
            Ok(status) => return Ok((status, listen)),
            Err(failure) => failure,
        };
        let has_ended = child.try_wait().is_ok_and(|status| status.is_some());
        if !has_ended || TcpListener::bind(listen).is_ok() {
            return Err(failure);
        }
        first = listen.port().saturating_add(1);
    }
}

/// Makes the folder for its owner alone. One that has something in it keeps its mode: it may be shared on
/// purpose, and the daemon judges it.
fn make_private(data: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(data)?;
    if fs::read_dir(data)?.next().is_none() {
        fs::set_permissions(data, Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// The first free port of the loopback from `first` on.
fn free_address(first: u16) -> Result<SocketAddr, Failure> {
    let ports = first..=first.saturating_add(PORTS_TRIED);
    let mut addresses = ports.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    addresses.find(|address| TcpListener::bind(address).is_ok()).ok_or_else(|| {
        Failure::bad_news(
            format!("no free port from {first} on"),
            "start relayd yourself with --listen, then run quickstart again",
        )
    })
}

/// The child gets a process group of its own, so that an interrupt at the terminal does not reach it, and
/// the data folder to work in, so that it keeps no other folder busy. It is no service, even where this
/// program runs in one: its socket belongs in the data folder.
fn spawn(program: &Path, data: &Path, listen: SocketAddr, log: &Path) -> io::Result<Child> {
    let output = private_file().append(true).open(log)?;
    let data = std::path::absolute(data)?;
    Command::new(std::path::absolute(program)?)
        .current_dir(&data)
        .env_remove("RUNTIME_DIRECTORY")
        .env_remove("NOTIFY_SOCKET")
        .arg("--data")
        .arg(&data)
        .args(["--listen", &listen.to_string()])
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .process_group(0)
        .spawn()
}

fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true).mode(0o600);
    options
}

async fn ready(client: &Client, child: &mut Child, log: &Path) -> Result<StatusView, Failure> {
    let deadline = Instant::now() + READY_WITHIN;
    loop {
        match client.call_within(READY_WITHIN, &ShowStatus {}).await {
            Ok(status) => return Ok(status),
            // It is not there yet, or it is gone again: that is seen below, and its log says why.
            Err(ClientError::NoAnswer(_) | ClientError::BrokenOff(_)) => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(status) = child.try_wait().context("cannot watch relayd")? {
            return Err(died(&format!("relayd ended at once ({status})"), log));
        }
        if Instant::now() >= deadline {
            // It is of no use to anybody now.
            let _ = child.kill().and_then(|()| child.wait());
            let waited = READY_WITHIN.as_secs();
            return Err(died(&format!("relayd did not answer within {waited} seconds and was ended"), log));
        }
        sleep(POLL).await;
    }
}

fn died(what: &str, log: &Path) -> Failure {
    let tail = tail(log).unwrap_or_default();
    let message = if tail.is_empty() { what.to_owned() } else { format!("{what}; it said:\n{tail}") };
    Failure::bad_news(message, format!("its log is {}", log.display()))
}

/// The last lines of a log.
fn tail(log: &Path) -> io::Result<String> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n"))
}

/// The log of the daemons that quickstart starts.
pub(super) fn log_in(data: &Path) -> PathBuf {
    data.join(LOG_FILE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn data_folders_are_made_for_their_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (new, empty, used) =
            (folder.path().join("a/b"), folder.path().join("empty"), folder.path().join("used"));
        fs::create_dir(&empty).unwrap();
        fs::create_dir(&used).unwrap();
        fs::write(used.join("file"), "").unwrap();
        fs::set_permissions(&empty, Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(&used, Permissions::from_mode(0o755)).unwrap();
        for (path, expected) in [(&new, 0o700), (&empty, 0o700), (&used, 0o755)] {
            make_private(path).unwrap();
            assert_eq!(mode(path), expected, "{}", path.display());
        }
        assert_eq!(mode(&folder.path().join("a")), 0o700);
    }

    #[test]
    fn a_taken_port_is_passed_over() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        assert_ne!(free_address(port).unwrap().port(), port);
    }

    #[test]
    fn what_was_started_is_remembered_privately() {
        let folder = tempfile::tempdir().unwrap();
        let started =
            Started { pid: 7, listen: "127.0.0.1:3000".to_owned(), started_at: Timestamp::from_millis(5) };
        assert_eq!(Started::load(folder.path()), None);
        started.save(folder.path()).unwrap();
        assert_eq!(
            (Started::load(folder.path()), mode(&folder.path().join(RECORD_FILE))),
            (Some(started), 0o600)
        );
        fs::write(folder.path().join(RECORD_FILE), "{broken").unwrap();
        assert_eq!(Started::load(folder.path()), None);
        Started::forget(folder.path());
        assert!(!folder.path().join(RECORD_FILE).exists());
    }

    #[test]
    fn only_the_end_of_a_log_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join(LOG_FILE);
        let lines: Vec<String> = (0..2_000).map(|line| format!("line {line}")).collect();
        fs::write(&log, lines.join("\n")).unwrap();
        let tail = tail(&log).unwrap();
        assert_eq!(tail.lines().count(), LOG_TAIL_LINES);
        assert!(tail.ends_with("line 1999"));
    }
}
