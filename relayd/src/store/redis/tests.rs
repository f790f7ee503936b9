//! The contract on a real server, and what only this engine has to do.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::reserving::TimeSource;
use super::{Redis, Settings};
use crate::store::Store;
use crate::store::contract::Holds;

/// A server of its own in a folder, reached through a socket file. Ends with the value.
struct Server {
    child: Child,
    socket: PathBuf,
}

impl Server {
    fn start(dir: &Path) -> Self {
        let socket = dir.join("redis.sock");
        let child = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--daemonize", "no"])
            .arg("--unixsocket")
            .arg(&socket)
            .arg("--dir")
            .arg(dir)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed by tests/run");
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            assert!(Instant::now() < deadline, "redis-server does not start");
            std::thread::sleep(Duration::from_millis(2));
        }
        Self { child, socket }
    }

    fn settings(&self) -> Settings {
        let url = format!("redis+unix://{}", self.socket.display());
        Settings {
            client: redis::Client::open(url).unwrap(),
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(5),
            serves_alone: true,
            node: crate::store::contract::NODE,
            id_file: self.socket.with_file_name("store-id"),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Opens the engine on the server of a folder; starts that if need be, and ends the one before.
fn opener() -> impl Fn(&Path, &tokio::runtime::Runtime) -> Arc<dyn Store> {
    let running: RefCell<Option<(PathBuf, Server)>> = RefCell::default();
    move |dir, runtime| {
        let mut running = running.borrow_mut();
        if running.as_ref().is_none_or(|(path, _)| path != dir) {
            *running = None;
            *running = Some((dir.to_owned(), Server::start(dir)));
        }
        let settings = running.as_ref().unwrap().1.settings();
        Arc::new(runtime.block_on(Redis::open_with(settings, TimeSource::Caller)).unwrap())
    }
}

crate::store::contract::keeps_the_contract!(opener(), Holds::OutliveIt);
