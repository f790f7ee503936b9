//! Ordinary days, and processes that die.

use std::sync::Arc;

use super::{Home, Settings, attempt, bare_lane, closed, open, orphaned};
use crate::ledger::LedgerError;
use crate::ledger::segment::{epoch_folder, lock_folder};
use crate::store::{Closed, End, Store};

fn segment_files(settings: &Settings) -> usize {
    let files = |folder: std::fs::DirEntry| std::fs::read_dir(folder.path()).unwrap();
    let folders = std::fs::read_dir(&settings.dir).unwrap().map(Result::unwrap);
    let names = folders.flat_map(files).map(|file| file.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".seg")).count()
}

#[test]
fn what_is_closed_is_shipped_once() {
    let home = Home::new();
    let store = home.store();
    let (ledger, lanes) = home.start(&store, Settings { lanes: 2, ..home.settings() });
    for number in 1..=40 {
        let lane = &lanes[usize::from(number % 2 == 0)];
        open(lane, number);
        lane.close(&closed(number));
        if number % 10 == 0 {
            home.flush(&ledger);
        }
    }
    assert_eq!(ledger.view().unshipped, 0);
    let rows: Vec<Closed> = (1..=40).map(closed).collect();
    home.assert_booked(&store, &rows);
    home.stop(ledger);
    drop(lanes);
    let (ledger, _lanes) = home.start(&store, home.settings());
    home.assert_booked(&store, &rows);
    assert_eq!(ledger.view().epoch, 2);
    home.stop(ledger);
}

#[test]
fn what_is_held_back_is_shipped_when_the_hold_ends() {
    let home = Home::new();
    let store = home.store();
    let (ledger, lanes) = home.start(&store, Settings { ship_ms: 1, sync_ms: 1, ..home.settings() });
    let close = |numbers: std::ops::RangeInclusive<u64>| {
        for number in numbers {
            open(&lanes[0], number);
            lanes[0].close(&closed(number));
        }
    };
    close(1..=5);
    let held = home.runtime.block_on(ledger.hold()).unwrap();
    home.assert_booked(&store, &(1..=5).map(closed).collect::<Vec<_>>());
    close(6..=9);
    let refused = home.runtime.block_on(ledger.flush());
    assert!(matches!(refused, Err(LedgerError::Held)), "{refused:?}");
    let refused = home.runtime.block_on(ledger.hold());
    assert!(matches!(refused, Err(LedgerError::Held)), "{refused:?}");
    home.assert_booked(&store, &(1..=5).map(closed).collect::<Vec<_>>());
    drop(held);
    while ledger.view().unshipped > 0 {
        std::thread::yield_now();
    }
    home.assert_booked(&store, &(1..=9).map(closed).collect::<Vec<_>>());
    let held = home.runtime.block_on(ledger.hold()).unwrap();
    // Its thread ends all the same.
    assert!(matches!(home.runtime.block_on(ledger.stop()), Err(LedgerError::Held)));
    drop(held);
}

#[test]
fn records_ship_by_themselves() {
    let home = Home::new();
    let store = home.store();
    let (ledger, lanes) = home.start(&store, Settings { ship_ms: 1, sync_ms: 1, ..home.settings() });
    for number in 1..=3 {
        open(&lanes[0], number);
        lanes[0].close(&closed(number));
        while ledger.view().unshipped > 0 {
            std::thread::yield_now();
        }
        assert_eq!(home.rows(&store).len() as u64, number);
    }
    home.stop(ledger);
}

#[test]
fn a_request_may_stay_open_while_segments_come_and_go() {
    let home = Home::new();
    let store = home.store();
    let settings = home.settings();
    let (ledger, lanes) = home.start(&store, settings.clone());
    open(&lanes[0], 1);
    open(&lanes[0], 2);
    lanes[0].attempt(&attempt(2, 2)).unwrap();
    for number in 3..200 {
        open(&lanes[0], number);
        lanes[0].close(&closed(number));
        home.flush(&ledger);
    }
    assert!(segment_files(&settings) <= 2, "nothing pins a segment that is shipped");
    assert!(ledger.view().disk_bytes < 64 << 10, "what was written comes to three times that");
    lanes[0].close(&closed(1));
    home.flush(&ledger);
    drop((ledger, lanes));
    let (_ledger, _lanes) = home.start(&store, settings);
    let mut rows: Vec<Closed> = (1..200).map(closed).collect();
    rows[1] = orphaned(2, 2);
    home.assert_booked(&store, &rows);
}

#[test]
fn what_a_dead_process_left_open_is_closed_with_its_estimate() {
    let home = Home::new();
    let store = home.store();
    let (ledger, lanes) = home.start(&store, home.settings());
    for number in 1..=5 {
        open(&lanes[0], number);
    }
    lanes[0].attempt(&attempt(4, 2)).unwrap();
    lanes[0].close(&closed(2));
    home.flush(&ledger);
    lanes[0].close(&closed(3));
    drop((ledger, lanes));
    let rows = [orphaned(1, 1), closed(2), closed(3), orphaned(4, 2), orphaned(5, 1)];
    assert_eq!((rows[3].end, rows[3].attempts, rows[3].cost.as_nanos()), (End::Orphaned, 2, 700));
    assert_eq!(rows[3].account.as_ref().unwrap().as_str(), "acc_2");
    for _ in 0..3 {
        let (ledger, lanes) = home.start(&store, home.settings());
        home.assert_booked(&store, &rows);
        drop((ledger, lanes));
    }
}

#[test]
fn many_threads_share_lanes() {
    let home = Home::new();
    let store = home.store();
    let settings = Settings { lanes: 2, sync_ms: 1, ship_ms: 1, ..home.settings() };
    let (ledger, lanes) = home.start(&store, settings);
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let lane = &lanes[usize::from(thread % 2 == 0)];
            scope.spawn(move || {
                for number in 0..300 {
                    open(lane, 1 + thread * 1_000 + number);
                    lane.close(&closed(1 + thread * 1_000 + number));
                }
            });
        }
    });
    home.stop(ledger);
    let numbers = (0..4).flat_map(|thread| (0..300).map(move |number| 1 + thread * 1_000 + number));
    home.assert_booked(&store, &numbers.map(closed).collect::<Vec<_>>());
}

#[test]
fn the_folder_of_a_live_process_is_left_alone() {
    let home = Home::new();
    let store = home.store();
    let settings = home.settings();
    let live = bare_lane(&settings, 5);
    open(&live, 1);
    let (ledger, lanes) = home.start(&store, Settings { lanes: 2, ..settings.clone() });
    assert_eq!(ledger.view().epoch, 6, "epochs go on after the highest folder");
    assert_eq!(lanes.iter().map(|lane| lane.number()).collect::<Vec<_>>(), [1, 2], "lane 0 is in use");
    home.stop(ledger);
    drop(lanes);
    home.assert_booked(&store, &[]);
    live.close(&closed(1));
    drop(live);
    let (ledger, lanes) = home.start(&store, settings.clone());
    assert_eq!(lanes[0].number(), 0);
    home.assert_booked(&store, &[closed(1)]);
    assert!(!epoch_folder(&settings.dir, 5).exists(), "it was kept for long enough");
    home.stop(ledger);
}

#[test]
fn an_epoch_is_locked_while_anything_of_it_lives() {
    let home = Home::new();
    let store = home.store();
    let settings = home.settings();
    let (ledger, lanes) = home.start(&store, settings.clone());
    let folder = epoch_folder(&settings.dir, ledger.view().epoch);
    drop(ledger);
    assert!(lock_folder(&folder).unwrap().is_none());
    drop(lanes);
    assert!(lock_folder(&folder).unwrap().is_some());
}

#[test]
fn shipped_folders_are_kept_for_a_while() {
    let home = Home::new();
    let settings = Settings { keep_s: 600, ..home.settings() };
    let store = home.store();
    for number in 1..=3 {
        let (ledger, lanes) = home.start(&store, settings.clone());
        open(&lanes[0], number);
        lanes[0].close(&closed(number));
        home.stop(ledger);
    }
    assert_eq!(segment_files(&settings), 3);
    drop(store);
    // The store's files are lost; the journal has them all.
    for name in ["state.redb", "ledger.redb"] {
        std::fs::remove_file(home.folder.path().join(name)).unwrap();
    }
    let store: Arc<dyn Store> = home.store();
    let (ledger, _lanes) = home.start(&store, settings);
    assert_eq!(ledger.view().epoch, 4);
    home.assert_booked(&store, &[closed(1), closed(2), closed(3)]);
    home.stop(ledger);
}
