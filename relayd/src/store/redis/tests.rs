//! The contract on a real server, and what only this engine has to do.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::reserving::TimeSource;
use super::{Redis, Settings};
use crate::store::contract::{Folder, Holds, IN_TOTAL, ask, at, booking, closed, entry, request_id, reserve};
use crate::store::{Entry, GroupId, RollupQuery, RowQuery, Store, StoreError, Verdict};

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

#[test]
fn a_batch_that_broke_off_is_applied_once_whatever_comes_with_it_again() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let folder = Folder::new();
    let server = Server::start(folder.path());
    let store = runtime.block_on(Redis::open_with(server.settings(), TimeSource::Caller)).unwrap();
    let group = GroupId::from("k");
    let asks = [ask(IN_TOTAL, 1_000)];
    let entries: Vec<Entry> = (1..=400)
        .map(|number| {
            let verdict = runtime.block_on(reserve(&store, number, 0, &[("k", &asks)])).unwrap();
            let Verdict::Admitted(held) = verdict else { panic!("{verdict:?}") };
            entry(0, number, closed(request_id(number), held.iter().map(booking).collect()))
        })
        .collect();
    let apply = |entries: &[Entry]| runtime.block_on(store.apply(entries.into()));
    apply(&entries[..80]).unwrap();
    // As if the server had died before the end of the batch: all is there but the store's own mark.
    let mut connection = server.settings().client.get_connection().unwrap();
    redis::cmd("DEL").arg(super::name::MARKS).exec(&mut connection).unwrap();
    assert!(matches!(apply(&entries[1..350]), Err(StoreError::Older)));
    let moved = apply(&entries[1..350]).unwrap();
    assert_eq!(moved.iter().map(|moved| (moved.before, moved.after)).collect::<Vec<_>>(), [(80, 350)]);
    apply(&entries).unwrap();
    let standing = runtime.block_on(store.standings(&group, &asks, at(0))).unwrap()[0];
    assert_eq!((standing.booked, standing.held), (400, 0));
    let sums = runtime.block_on(store.rollups(RollupQuery::default())).unwrap();
    assert_eq!(sums.iter().map(|(_, sum)| sum.requests).sum::<u64>(), 400);
    let rows = RowQuery { limit: 1_000, ..RowQuery::default() };
    assert_eq!(runtime.block_on(store.rows(rows)).unwrap().len(), 400);
}
