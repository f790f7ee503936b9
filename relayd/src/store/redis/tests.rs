//! The contract on a real server, and what only this engine has to do.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::reserving::TimeSource;
use super::{IdFile, Redis, Settings};
use crate::store::contract::moving::{chunks, everything, fill};
use crate::store::contract::{Folder, Holds, IN_TOTAL, ask, at, booking, closed, entry, request_id, reserve};
use crate::store::embedded::Embedded;
use crate::store::{
    Adopted, Adoption, AdoptionError, Chunk, Cursor, Entry, GroupId, RollupQuery, RowQuery, Store,
    StoreError, StoreState, Verdict,
};

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
            id_file: IdFile::at(self.socket.with_file_name("store-id")),
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
    runtime.block_on(async {
        while store.state() != StoreState::Ok {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let standing = runtime.block_on(store.standings(&group, &asks, at(0))).unwrap()[0];
    assert_eq!((standing.booked, standing.held), (400, 0));
    let sums = runtime.block_on(store.rollups(RollupQuery::default())).unwrap();
    assert_eq!(sums.iter().map(|(_, sum)| sum.requests).sum::<u64>(), 400);
    let rows = RowQuery { limit: 1_000, ..RowQuery::default() };
    assert_eq!(runtime.block_on(store.rows(rows)).unwrap().len(), 400);
}

async fn pour(from: &dyn Store, into: &dyn Store) {
    for chunk in chunks(from).await {
        into.import(chunk).await.unwrap();
    }
}

#[test]
fn a_store_comes_back_from_a_server_as_it_went() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (folder, other) = (Folder::new(), Folder::new());
    let server = Server::start(folder.path());
    runtime.block_on(async {
        let first = Embedded::open(folder.path()).unwrap();
        let there = Redis::open_with(server.settings(), TimeSource::Caller).await.unwrap();
        let last = Embedded::open(other.path()).unwrap();
        fill(&first).await;
        pour(&first, &there).await;
        pour(&there, &last).await;
        let all = everything(&first).await;
        assert_eq!(everything(&there).await, all);
        assert_eq!(everything(&last).await, all);
        assert_eq!(last.census().await.unwrap(), all.census());
    });
}

#[test]
fn what_an_emptied_server_says_is_not_learned() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let folder = Folder::new();
    let server = Server::start(folder.path());
    runtime.block_on(async {
        let store = Redis::open_with(server.settings(), TimeSource::Caller).await.unwrap();
        let asks = [ask(IN_TOTAL, 9)];
        let admit = async |number: u64| {
            let held = reserve(&store, number, 0, &[("k", &asks)]).await.unwrap();
            let Verdict::Admitted(held) = held else { panic!() };
            entry(0, number, closed(request_id(number), held.iter().map(booking).collect()))
        };
        let entries = [admit(1).await, admit(2).await, admit(3).await];
        store.apply(entries.to_vec().into()).await.unwrap();
        store.inner.link.ask_patiently::<()>(&redis::cmd("FLUSHALL")).await.unwrap();
        // Nobody knows yet that it is empty.
        let last = admit(4).await;
        assert!(matches!(store.apply([last.clone()].into()).await, Err(StoreError::Unavailable(_))));
        assert!(store.stranger().await.unwrap().is_some_and(|stranger| !stranger.is_used));
        assert_eq!(store.adopt(Adoption::Fill).await.unwrap(), Adopted { records: 0, groups: 1 });
        while store.state() != StoreState::Ok {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let group = GroupId::from("k");
        let standing = async || store.standings(&group, &asks, at(0)).await.unwrap()[0];
        assert_eq!((standing().await.booked, standing().await.held), (3, 1));
        let again = [&entries[..], &[last]].concat();
        // Everything is shipped again.
        while store.apply(again.clone().into()).await.is_err() {}
        assert_eq!((standing().await.booked, standing().await.held), (4, 0));
        let same = store.adopt(Adoption::Fill).await;
        assert!(matches!(same, Err(StoreError::Refused(AdoptionError::Same))), "{same:?}");
    });
}

#[test]
fn the_list_of_groups_is_cleaned_when_it_is_read() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let folder = Folder::new();
    let server = Server::start(folder.path());
    runtime.block_on(async {
        let store = Redis::open_with(server.settings(), TimeSource::Caller).await.unwrap();
        fill(&store).await;
        let listed = async || {
            let mut command = redis::cmd("ZRANGE");
            command.arg(super::name::GROUPS).arg(0).arg(-1);
            store.inner.link.ask_patiently::<Vec<String>>(&command).await.unwrap()
        };
        assert_eq!(listed().await.len(), 601);
        let mut gone = redis::cmd("DEL");
        gone.arg(&super::name::group(&GroupId::from("key:7"))[0]);
        store.inner.link.ask_patiently::<()>(&gone).await.unwrap();
        assert_eq!(store.census().await.unwrap().groups, 600);
        let (Chunk::Groups(groups), Some(_)) = store.export(Cursor::Groups(None)).await.unwrap() else {
            panic!()
        };
        assert!(groups.len() < 601 && everything(&store).await.census().groups == 600);
        assert!(!listed().await.contains(&"key:7".to_owned()));
    });
}
