//! The contract, and what only files can do wrong.

use std::fs::File;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use redb::StorageBackend;
use redb::backends::FileBackend;

use super::Embedded;
use super::database::DatabaseFile;
use super::ledger::LedgerFile;
use super::state::StateFile;
use crate::store::contract::{
    Folder, Holds, IN_TOTAL, ask, at, booking, closed, counter, entry, request_id, reserve,
};
use crate::store::{
    Booked, Booking, Entry, GroupId, RollupQuery, Span, Store, StoreError, StoreState, Verdict,
};

fn open(dir: &Path) -> Arc<dyn Store> {
    Arc::new(Embedded::open(dir).unwrap())
}

crate::store::contract::keeps_the_contract!(|dir, _| open(dir), Holds::EndWithIt);

#[test]
fn a_second_process_is_told_why_it_cannot_have_the_files() {
    let folder = Folder::new();
    let _first = open(folder.path());
    let Err(error @ StoreError::Unavailable(_)) = Embedded::open(folder.path()) else { panic!() };
    assert!(error.innermost().contains("another relayd"), "{}", error.innermost());
}

#[test]
fn the_files_are_their_owners_alone() {
    let folder = Folder::new();
    let _store = open(folder.path());
    for name in ["state.redb", "ledger.redb"] {
        let mode = folder.path().join(name).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn what_is_no_database_is_not_opened() {
    let folder = Folder::new();
    std::fs::write(folder.path().join("state.redb"), b"this was never a database").unwrap();
    assert!(Embedded::open(folder.path()).is_err());
}

/// A file whose operations fail from a certain one on, until it is healed.
#[derive(Debug)]
struct Brittle {
    file: FileBackend,
    left: Arc<AtomicU32>,
}

const HEALTHY: u32 = u32::MAX;

impl Brittle {
    fn step(&self) -> io::Result<()> {
        let take = |left: u32| match left {
            HEALTHY => Some(HEALTHY),
            left => left.checked_sub(1),
        };
        let taken = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        taken.map(drop).map_err(|_| io::ErrorKind::StorageFull.into())
    }
}

impl StorageBackend for Brittle {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.step()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.step()?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.step()?;
        self.file.write(offset, data)
    }
}

/// A store whose files fail when `left` says so.
fn brittle(dir: &Path, left: &Arc<AtomicU32>) -> Embedded {
    let file = |name: &str| {
        let left = Arc::clone(left);
        let opener = move |builder: &redb::Builder, path: &Path| {
            let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
            builder.create_with_backend(Brittle { file: FileBackend::new(file)?, left: Arc::clone(&left) })
        };
        DatabaseFile::open_through(dir.join(name), 1 << 20, Box::new(opener)).unwrap()
    };
    let (state, ledger) = (file("state.redb"), file("ledger.redb"));
    Embedded::with(StateFile::with(state).unwrap(), LedgerFile::with(ledger).unwrap()).unwrap()
}

#[test]
fn a_disk_that_fails_anywhere_makes_nothing_count_twice_or_never() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (folder, left) = (Folder::new(), Arc::new(AtomicU32::new(HEALTHY)));
    let store = brittle(folder.path(), &left);
    let group = GroupId::from("k");
    let asks = [ask(IN_TOTAL, 0)];
    let sums = |store: &Embedded| {
        let standings = store.standings(&group, &asks, at(0));
        let standing = runtime.block_on(standings).unwrap()[0];
        (standing.booked, standing.held)
    };
    for (operations, number) in (0_u32..).zip(1_u64..) {
        let held = runtime.block_on(reserve(&store, number, 0, &[("k", &[ask(IN_TOTAL, 1_000)])])).unwrap();
        let Verdict::Admitted(held) = held else { panic!() };
        let row = closed(request_id(number), held.iter().map(booking).collect());
        let batch: Arc<[Entry]> = Arc::new([entry(0, number, row)]);
        left.store(operations, Ordering::Relaxed);
        let result = runtime.block_on(store.apply(Arc::clone(&batch)));
        left.store(HEALTHY, Ordering::Relaxed);
        if let Err(error) = &result {
            assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
            assert!(matches!(store.state(), StoreState::Failing(_)));
            assert_eq!(sums(&store), (number - 1, 1), "the hold stays until it is booked");
            runtime.block_on(store.apply(Arc::clone(&batch))).unwrap();
        }
        assert_eq!(store.state(), StoreState::Ok);
        assert_eq!(sums(&store), (number, 0), "operation {operations}");
        if result.is_ok() && operations > 20 {
            break;
        }
    }
    let booked = sums(&store);
    drop(store);
    let store = Embedded::open(folder.path()).unwrap();
    assert_eq!(sums(&store), booked);
    let rollups = runtime.block_on(store.rollups(RollupQuery::default())).unwrap();
    assert_eq!(rollups.iter().map(|(_, sum)| sum.requests).sum::<u64>(), booked.0);
}

/// Takes away what older versions did not have.
fn forget_balances(dir: &Path) {
    let database = redb::Database::open(dir.join("ledger.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    for name in ["balances", "kept"] {
        let table = redb::TableDefinition::<&str, i64>::new(name);
        transaction.delete_table(table).unwrap();
    }
    transaction.commit().unwrap();
}

#[test]
fn a_file_of_an_older_version_knows_how_far_back_it_is_whole() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let hour_ms = 3_600_000;
    for (rows_before, since) in [(0, None), (10, Some(10)), (20, Some(21))] {
        let folder = Folder::new();
        let store = open(folder.path());
        let batch: Vec<Entry> = (0..20)
            .map(|hour: i64| {
                let id = shared::domain::RequestId::new(at(hour * hour_ms), [1; 10]);
                entry(0, u64::try_from(hour).unwrap() + 1, closed(id, Vec::new()))
            })
            .collect();
        runtime.block_on(store.apply(batch.into())).unwrap();
        runtime.block_on(store.prune(at(rows_before * hour_ms), None)).unwrap();
        drop(store);
        forget_balances(folder.path());
        for _ in 0..2 {
            let store = open(folder.path());
            let kept = runtime.block_on(store.kept()).unwrap();
            let since = since.map(|hour: i64| at(hour * hour_ms));
            assert_eq!((kept.rows_since, kept.balances_since), (since, since), "{rows_before}");
            assert_eq!((kept.sums_since, kept.balances.len()), (None, 0));
        }
    }
}

/// Takes away a group with all its counters.
fn forget_group(dir: &Path, group: &str) {
    let database = redb::Database::open(dir.join("state.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let table = redb::TableDefinition::<&str, &[u8]>::new("groups");
        transaction.open_table(table).unwrap().remove(group).unwrap().unwrap();
    }
    transaction.commit().unwrap();
}

#[test]
fn a_group_that_is_made_again_books_nothing_again() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let folder = Folder::new();
    let store = open(folder.path());
    let booking =
        Booking { group: GroupId::from("k"), counter: counter(IN_TOTAL), span: Span::ENDLESS, amount: 1 };
    let batch: Arc<[Entry]> = (1..=4)
        .map(|n| entry(n % 2, n.into(), closed(request_id(n.into()), vec![booking.clone()])))
        .collect();
    runtime.block_on(store.apply(batch.clone())).unwrap();
    drop(store);
    forget_group(folder.path(), "k");
    let store = open(folder.path());
    let Booking { group, counter, span, .. } = booking;
    let change = Booked { group: group.clone(), counter, span, before: 0, after: 4 };
    assert_eq!(runtime.block_on(store.correct(vec![change.clone()])).unwrap(), [change]);
    runtime.block_on(store.apply(batch)).unwrap();
    assert_eq!(runtime.block_on(store.counters(vec![group])).unwrap()[0].amount, 4);
}
