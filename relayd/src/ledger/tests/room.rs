//! The promise that whatever was opened can be closed.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use shared::domain::{AccountId, KeyId};

use super::{Attempt, Home, Opened, Settings, attempt, bare_lane, closed, id, open, opened, orphaned};
use crate::ledger::frame::{self, Kind};
use crate::ledger::record::Bounded;
use crate::ledger::segment::{Segment, epoch_folder};
use crate::ledger::{JournalError, Lane};
use crate::store::{Booking, Closed, CounterId, GivenUp, GroupId, LIMITS_MAX, NAMES_BYTES_MAX, Span, Store};

/// The largest end that a request with so many attempts can have.
fn longest_end(number: u64, attempts: u32) -> Closed {
    let long = "m".repeat(400);
    let given_up = |count: u32| GivenUp {
        account: attempt(number, count).account,
        model: attempt(number, count).model,
        usage: longest_usage(),
        cost: shared::domain::NanoUsd::from_nanos(i64::MIN),
        tier: Some(shared::domain::ServiceTier::Other),
    };
    let opened_at = shared::domain::Timestamp::from_millis(i64::MAX);
    Closed {
        priced_model: Some(long),
        usage: longest_usage(),
        cost: shared::domain::NanoUsd::from_nanos(i64::MIN),
        rates: crate::store::Rates([u64::MAX; shared::domain::usage::UsageClass::ALL.len()]),
        first_byte_at: Some(opened_at),
        closed_at: opened_at,
        price_version: u64::MAX,
        session: Some(u64::MAX),
        given_up: (1..attempts).map(given_up).collect(),
        tier: Some(shared::domain::ServiceTier::Other),
        attempts,
        ..orphaned(number, attempts)
    }
}

fn longest_usage() -> shared::domain::Usage {
    let mut usage = shared::domain::Usage::default();
    for class in shared::domain::usage::UsageClass::ALL {
        usage[*class] = u64::MAX;
    }
    usage
}

/// Bookings in as many counters with as long names as a holder's limits may have.
fn widest(group: &GroupId) -> Vec<Booking> {
    let end = shared::domain::Timestamp::from_millis(i64::MAX);
    let name = |number: usize| {
        let bytes = NAMES_BYTES_MAX / LIMITS_MAX;
        format!("{:m<bytes$}", format!("cost in total on {number}"))
    };
    let booking = |number| Booking {
        group: group.clone(),
        counter: CounterId::named(&name(number)).unwrap(),
        span: Span { start: end, end: Some(end) },
        amount: u64::MAX,
    };
    (0..LIMITS_MAX).map(booking).collect()
}

/// As many attempts as the configuration allows, all holders with as many limits as they may have, and the longest
/// names.
#[test]
fn the_widest_limits_of_all_holders_fit_a_record() {
    const ATTEMPTS_MAX: u32 = 20;
    let home = Home::new();
    let lane = bare_lane(&home.settings(), 1);
    let owner = "\u{10348}".repeat(100);
    let key = KeyId::from_random([7; 10]);
    let groups = [GroupId::of_key(&key), GroupId::of_owner(&owner), GroupId::of_all()];
    let model = "m".repeat(256);
    let bookings: Vec<Booking> = groups.iter().flat_map(widest).collect();
    let opened = Opened { key: key.clone(), model: model.clone(), bookings, ..opened(1) };
    let attempts: Vec<Attempt> = (1..=ATTEMPTS_MAX)
        .map(|count| {
            let account = AccountId::from_random([count.to_le_bytes()[0]; 10]);
            let bookings = widest(&GroupId::of_account(&account));
            Attempt { account, model: model.clone(), bookings, ..attempt(1, count) }
        })
        .collect();
    lane.open(&opened, &attempts[0]).unwrap();
    attempts[1..].iter().for_each(|attempt| lane.attempt(attempt).unwrap());
    let given_up = |attempt: &Attempt| GivenUp {
        account: attempt.account.clone(),
        model: model.clone(),
        ..longest_end(1, ATTEMPTS_MAX).given_up[0].clone()
    };
    let end = Closed {
        key,
        model: model.clone(),
        bookings: opened
            .bookings
            .iter()
            .chain(attempts.iter().flat_map(|attempt| &attempt.bookings))
            .cloned()
            .collect(),
        given_up: attempts[1..].iter().map(given_up).collect(),
        ..longest_end(1, ATTEMPTS_MAX)
    };
    let mut frame = Vec::new();
    frame::append(&mut frame, Kind::Closed, &*end.bounded()).unwrap();
    assert!(frame.len() as u64 <= lane.locked().kept_for(id(1)));
    lane.close(&end);
    drop(lane);
    let store = home.store();
    let (_ledger, _lanes) = home.start(&store, home.settings());
    assert_eq!(home.rows(&store)[0].bookings, end.bookings);
}

/// Opens until the lane refuses; gives how many it took.
fn fill(lane: &Lane, first: u64) -> u64 {
    for number in first.. {
        match lane.open(&opened(number), &attempt(number, 1)) {
            Ok(()) => {}
            Err(JournalError::Full) => return number - first,
            Err(error) => panic!("{error}"),
        }
    }
    unreachable!()
}

#[test]
fn the_longest_end_fits_the_room_kept_for_it() {
    let home = Home::new();
    let lane = bare_lane(&home.settings(), 1);
    for number in 1..=20_u32 {
        open(&lane, 1);
        (2..=number).for_each(|count| lane.attempt(&attempt(1, count)).unwrap());
        let mut frame = Vec::new();
        frame::append(&mut frame, Kind::Closed, &*longest_end(1, number).bounded()).unwrap();
        let kept = lane.locked().kept_for(id(1));
        assert!(frame.len() as u64 <= kept, "{number} attempts: {} bytes, {kept} kept", frame.len());
    }
}

#[test]
fn what_was_opened_can_be_closed_when_the_journal_is_full() {
    let home = Home::new();
    let lane = bare_lane(&Settings { bytes_max: 60 << 10, ..home.settings() }, 1);
    let taken = fill(&lane, 1);
    assert!(taken > 10, "{taken}");
    for number in 1..=taken {
        lane.close(&longest_end(number, 1));
        assert!(!lane.has_unwritten());
    }
    drop(lane);
    let store = home.store();
    let (_ledger, _lanes) = home.start(&store, home.settings());
    let rows = home.rows(&store);
    assert_eq!(rows.len() as u64, taken);
    assert!(rows.iter().all(|row| row.priced_model.as_ref().unwrap().len() == 256), "long names are cut");
}

#[test]
fn a_full_journal_takes_requests_again_when_the_store_does() {
    let home = Home::new();
    let store = home.store();
    let (ledger, lanes) = home.start(&store, Settings { bytes_max: 60 << 10, ..home.settings() });
    let mut next = 1;
    for _ in 0..4 {
        let taken = fill(&lanes[0], next);
        assert!(taken > 10);
        (next..next + taken).for_each(|number| lanes[0].close(&closed(number)));
        next += taken;
        home.flush(&ledger);
        assert!(ledger.view().disk_bytes <= ledger.view().disk_bytes_max);
    }
    home.assert_booked(&store, &(1..next).map(closed).collect::<Vec<_>>());
    home.stop(ledger);
}

/// What files take on the disk.
fn disk_bytes(folder: &Path) -> u64 {
    let files = folder.read_dir().into_iter().flatten();
    files.map(|file| file.unwrap().metadata().unwrap().blocks() * 512).sum()
}

/// Leaves the folder of an epoch that is wholly in the store, and larger than a small journal may be.
fn retire(home: &Home, store: &Arc<dyn Store>, settings: &Settings) -> PathBuf {
    let (ledger, lanes) = home.start(store, settings.clone());
    for number in 1..=300 {
        open(&lanes[0], number);
        lanes[0].close(&closed(number));
    }
    let folder = epoch_folder(&settings.dir, ledger.view().epoch);
    home.stop(ledger);
    assert!(disk_bytes(&folder) > 60 << 10);
    folder
}

#[test]
fn what_earlier_starts_left_counts_until_it_is_removed() {
    let home = Home::new();
    let store = home.store();
    let settings = Settings { keep_s: 600, ..home.settings() };
    let folder = retire(&home, &store, &settings);
    let (ledger, lanes) = home.start(&store, settings.clone());
    let own = 2 * settings.segment_bytes;
    let left = disk_bytes(&folder);
    let taken = ledger.view().disk_bytes;
    assert!((left + settings.segment_bytes..=left + own).contains(&taken), "{taken} with {left} left");
    home.stop(ledger);
    drop(lanes);

    // Where it leaves no room for more, it is not kept.
    let (ledger, lanes) = home.start(&store, Settings { bytes_max: 60 << 10, ..settings });
    let deadline = Instant::now() + Duration::from_secs(10);
    while folder.exists() || ledger.view().disk_bytes > 60 << 10 {
        assert!(Instant::now() < deadline, "it is still there");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(fill(&lanes[0], 301) > 10);
    home.stop(ledger);
}

/// A balancer that was told so sends no more requests, and one of those would have found the room. It is told
/// by whichever lane it happens to ask.
#[test]
fn a_lane_that_refused_finds_room_without_a_request() {
    let home = Home::new();
    let store = home.store();
    let (ledger, lanes) = home.start(&store, Settings { lanes: 2, bytes_max: 60 << 10, ..home.settings() });
    let taken = fill(&lanes[0], 1);
    assert!(lanes[0].refusal().is_some());
    assert!(lanes[1].refusal().is_some());
    (1..=taken).for_each(|number| lanes[0].close(&closed(number)));
    home.flush(&ledger);
    let deadline = Instant::now() + Duration::from_secs(10);
    while lanes.iter().any(|lane| lane.refusal().is_some()) {
        assert!(Instant::now() < deadline, "it still refuses");
        std::thread::sleep(Duration::from_millis(1));
    }
    home.stop(ledger);
}

#[test]
fn more_requests_may_be_open_than_a_segment_has_room_for() {
    let home = Home::new();
    let lane = bare_lane(&home.settings(), 1);
    (1..=300).for_each(|number| open(&lane, number));
    (1..=300).for_each(|number| lane.close(&closed(number)));
    assert!(!lane.has_unwritten());
    drop(lane);
    let store = home.store();
    let (_ledger, _lanes) = home.start(&store, home.settings());
    home.assert_booked(&store, &(1..=300).map(closed).collect::<Vec<_>>());
}

#[test]
fn records_without_bounds_are_refused() {
    let home = Home::new();
    let lane = bare_lane(&home.settings(), 1);
    let mut wide = opened(1);
    wide.bookings = (0..2_000).flat_map(|_| wide.bookings.clone()).collect();
    assert!(matches!(lane.open(&wide, &attempt(1, 1)), Err(JournalError::TooLarge(_))));
    let mut long = opened(2);
    long.model = "ä".repeat(40_000);
    lane.open(&long, &attempt(2, 1)).unwrap();
    drop(lane);
    let store = home.store();
    let (_ledger, _lanes) = home.start(&store, home.settings());
    let rows = home.rows(&store);
    assert_eq!(rows.iter().map(|row| row.request).collect::<Vec<_>>(), [id(2)]);
    assert_eq!(rows[0].model, "ä".repeat(128));
}

#[test]
fn ends_wait_in_memory_for_a_disk_that_fails() {
    let home = Home::new();
    let lane = bare_lane(&home.settings(), 1);
    open(&lane, 1);
    open(&lane, 2);
    let segment = Arc::clone(&lane.locked().current.segment);
    let deaf = Segment {
        path: segment.path.clone(),
        file: std::fs::File::open(&segment.path).unwrap(),
        first_sequence: segment.first_sequence,
        capacity: segment.capacity,
    };
    lane.locked().current.segment = Arc::new(deaf);
    lane.close(&closed(1));
    assert!(lane.has_unwritten());
    assert!(matches!(lane.open(&opened(3), &attempt(3, 1)), Err(JournalError::Io(_))));
    assert!(matches!(lane.attempt(&attempt(2, 2)), Err(JournalError::Io(_))));
    lane.close(&closed(2));
    lane.tend();
    assert!(lane.has_unwritten());
    lane.locked().current.segment = segment;
    lane.tend();
    assert!(!lane.has_unwritten());
    drop(lane);
    let store = home.store();
    let (_ledger, _lanes) = home.start(&store, home.settings());
    home.assert_booked(&store, &[closed(1), closed(2)]);
}

#[derive(Clone, Debug)]
enum Step {
    Open,
    Attempt(usize),
    Close(usize),
    Tend,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Open),
        2 => (0..40_usize).prop_map(Step::Attempt),
        3 => (0..40_usize).prop_map(Step::Close),
        1 => Just(Step::Tend),
    ]
}

/// Takes the steps; gives what must be booked after the process died.
fn take(lane: &Lane, steps: &[Step]) -> BTreeMap<u64, Closed> {
    let (mut open, mut rows) = (Vec::new(), BTreeMap::new());
    for (number, step) in (1..).zip(steps) {
        match *step {
            Step::Open => match lane.open(&opened(number), &attempt(number, 1)) {
                Ok(()) => open.push((number, 1)),
                Err(error) => assert!(matches!(error, JournalError::Full), "{error}"),
            },
            Step::Attempt(place) if place < open.len() => {
                let (number, attempts) = &mut open[place];
                match lane.attempt(&attempt(*number, *attempts + 1)) {
                    Ok(()) => *attempts += 1,
                    Err(error) => assert!(matches!(error, JournalError::Full), "{error}"),
                }
            }
            Step::Close(place) if place < open.len() => {
                let (number, attempts) = open.swap_remove(place);
                let mut end = longest_end(number, attempts);
                lane.close(&end);
                assert!(!lane.has_unwritten(), "there was no room for an end");
                end.priced_model = Some("m".repeat(256));
                rows.insert(number, end);
            }
            Step::Tend => lane.tend(),
            Step::Attempt(_) | Step::Close(_) => {}
        }
    }
    rows.extend(open.into_iter().map(|(number, attempts)| (number, orphaned(number, attempts))));
    rows
}

#[test]
fn no_order_of_requests_breaks_the_promise() {
    let config = ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(steps in proptest::collection::vec(step(), 1..250), kib in 8..80_u64)| {
        let home = Home::new();
        let lane = bare_lane(&Settings { bytes_max: kib << 10, ..home.settings() }, 1);
        let rows = take(&lane, &steps);
        drop(lane);
        let store = home.store();
        let (_ledger, _lanes) = home.start(&store, home.settings());
        home.assert_booked(&store, &rows.into_values().collect::<Vec<_>>());
    });
}
