//! A Redis server of a test's own, on a free port and with an append-only file: started, killed, paused, wiped.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::{Client, Cmd, Connection, FromRedisValue};
use tempfile::TempDir;

const START_MAX: Duration = Duration::from_secs(20);

/// The server. Clones are the same one; it ends with the last of them.
#[derive(Clone)]
pub struct RedisServer(Arc<Server>);

struct Server {
    dir: PathBuf,
    folder: Option<TempDir>,
    port: u16,
    child: Mutex<Option<Child>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

impl Server {
    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) {
        if let Some(mut child) = self.child().take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl RedisServer {
    /// Starts a server whose files lie in a folder, which goes with it.
    pub fn start_in(folder: TempDir) -> Self {
        let mut server = Self::start(folder.path());
        Arc::get_mut(&mut server.0).unwrap().folder = Some(folder);
        server
    }

    /// Starts a server whose files lie in a folder.
    pub fn start(dir: &Path) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server =
            Self(Arc::new(Server { dir: dir.to_owned(), folder: None, port, child: Mutex::new(None) }));
        server.start_again();
        server
    }

    /// Starts it again with what its file holds; it must have ended.
    pub fn start_again(&self) {
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--daemonize", "no", "--loglevel", "warning"])
            .args(["--appendonly", "yes", "--appendfsync", "everysec"])
            .args(["--port", &self.0.port.to_string(), "--dir"])
            .arg(&self.0.dir)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed by tests/run");
        *self.0.child() = Some(child);
        let start = Instant::now();
        while self.try_ask::<String>(&redis::cmd("PING")).is_err() {
            assert!(start.elapsed() < START_MAX, "redis-server is not ready after {START_MAX:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it as a crash would.
    pub fn kill(&self) {
        self.0.end();
    }

    /// Cuts the end of its file off: the server, which must have ended, never wrote that.
    pub fn lose_tail(&self, bytes: u64) {
        let folder = self.0.dir.join("appendonlydir");
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<PathBuf> =
            files.filter(|path| path.to_string_lossy().ends_with(".incr.aof")).collect();
        files.sort();
        let Some(path) = files.pop() else { return };
        let file = std::fs::File::options().write(true).open(path).unwrap();
        let length = file.metadata().unwrap().len();
        file.set_len(length.saturating_sub(bytes)).unwrap();
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.0.port)
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.0.dir
    }

    /// Asks it something.
    pub fn ask<T: FromRedisValue>(&self, command: &Cmd) -> T {
        self.try_ask(command).unwrap()
    }

    /// Asks it to answer nobody for a while.
    pub fn pause(&self, time: Duration) {
        self.ask::<()>(redis::cmd("CLIENT").arg("PAUSE").arg(u64::try_from(time.as_millis()).unwrap()));
    }

    /// How often scripts were called so far.
    pub fn script_calls(&self) -> u64 {
        let text: String = self.ask(redis::cmd("INFO").arg("commandstats"));
        let line = text.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
        line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
    }

    fn try_ask<T: FromRedisValue>(&self, command: &Cmd) -> redis::RedisResult<T> {
        let client = Client::open(self.url())?;
        let mut connection: Connection = client.get_connection_with_timeout(Duration::from_secs(5))?;
        command.query(&mut connection)
    }
}
