//! Files that end anywhere and bytes that are not what was written.

use std::path::{Path, PathBuf};

use super::{Home, Settings, attempt, bare_lane, closed, id, open, opened, orphaned, settings};
use crate::ledger::apply::{Batch, collect};
use crate::ledger::aside::SetAside;
use crate::ledger::frame::{self, FrameReader, HEADER_BYTES, Kind};
use crate::ledger::recover::{DeadLane, mend_epoch};
use crate::ledger::segment::epoch_folder;
use crate::store::contract::Folder;
use crate::store::{Closed, Entry, Mark, Store};

/// What the frames of the lane below mean, in their order.
enum Written {
    Opened(u64),
    Attempt(u64, u32),
    Closed(u64),
}

use Written::{Attempt, Closed as End, Opened as Begun};

const WRITTEN: [Written; 10] = [
    Begun(1),
    Attempt(1, 1),
    Begun(2),
    Attempt(2, 1),
    End(1),
    Attempt(2, 2),
    Begun(3),
    Attempt(3, 1),
    End(3),
    End(2),
];

/// A lane's only file, as a killed process leaves it.
fn written(home: &Home) -> (PathBuf, Vec<u8>) {
    let settings = home.settings();
    let lane = bare_lane(&settings, 1);
    for number in [1, 2] {
        open(&lane, number);
    }
    lane.close(&closed(1));
    lane.attempt(&attempt(2, 2)).unwrap();
    open(&lane, 3);
    lane.close(&closed(3));
    lane.close(&closed(2));
    let synced = {
        lane.sync().unwrap();
        lane.segment_with(1).unwrap()
    };
    let bytes = std::fs::read(&synced.segment.path).unwrap();
    (synced.segment.path.clone(), bytes[..usize::try_from(synced.bytes).unwrap()].to_vec())
}

/// Where each frame ends.
fn frame_ends(mut bytes: &[u8]) -> Vec<usize> {
    let (mut ends, mut end) = (Vec::new(), HEADER_BYTES);
    bytes = &bytes[HEADER_BYTES..];
    while let Some(frame) = frame::parse(bytes) {
        end += frame.bytes.len();
        ends.push(end);
        bytes = &bytes[frame.bytes.len()..];
    }
    ends
}

/// What is to be booked if only so many frames are intact.
fn expected(frames: usize) -> Vec<Closed> {
    let mut rows: Vec<Closed> = Vec::new();
    let mut open: Vec<(u64, u32)> = Vec::new();
    for written in &WRITTEN[..frames] {
        match *written {
            Begun(number) => open.push((number, 0)),
            Attempt(number, count) => open.iter_mut().find(|open| open.0 == number).unwrap().1 = count,
            End(number) => {
                open.retain(|open| open.0 != number);
                rows.push(closed(number));
            }
        }
    }
    rows.extend(open.into_iter().map(|(number, attempts)| orphaned(number, attempts)));
    rows
}

/// Mends and closes the lanes of epoch 1 in a folder, without shipping them.
fn mended(home: &Home, folder: &Path, store: &dyn Store) -> Vec<Entry> {
    let aside = SetAside::new(folder.with_file_name("set-aside"));
    let mut entries = Vec::new();
    for mut lane in mend_epoch(1, folder, &[], &aside).unwrap() {
        home.runtime.block_on(lane.close(0, store)).unwrap();
        entries.extend(entries_of(&lane, &aside));
    }
    assert!(entries.is_sorted_by(|one, other| one.mark < other.mark));
    entries
}

fn entries_of(lane: &DeadLane, aside: &SetAside) -> Vec<Entry> {
    let (mut reader, mut batch) = (FrameReader::default(), Batch::default());
    for segment in &lane.segments {
        reader.start_at(HEADER_BYTES as u64, segment.first_sequence - 1);
        collect(&mut reader, (&segment.file, segment.end), lane.name, 0, aside, &mut batch).unwrap();
    }
    assert!(!batch.is_full());
    batch.entries
}

fn rows(entries: &[Entry]) -> Vec<Closed> {
    entries.iter().map(|entry| entry.closed.clone()).collect()
}

/// Recovers a lane file with these bytes, twice, and gives what is to be booked.
fn recovered(home: &Home, path: &Path, bytes: &[u8], store: &dyn Store) -> Vec<Entry> {
    std::fs::write(path, bytes).unwrap();
    let entries = mended(home, path.parent().unwrap(), store);
    let after = std::fs::read(path).unwrap_or_default();
    assert_eq!(mended(home, path.parent().unwrap(), store), entries, "recovery repeats itself");
    assert_eq!(std::fs::read(path).unwrap_or_default(), after);
    entries
}

#[test]
fn a_file_cut_anywhere_gives_what_is_before_the_cut() {
    let home = Home::new();
    let store = home.store();
    let (path, bytes) = written(&home);
    let ends = frame_ends(&bytes);
    assert_eq!(ends.len(), WRITTEN.len());
    for length in 0..=bytes.len() {
        // The rest is missing, or was never written.
        let mut zeros = bytes[..length].to_vec();
        zeros.resize(bytes.len() + 100, 0);
        for torn in [&bytes[..length], &zeros] {
            // Zeros that are missing are as good as there where zeros follow.
            let intact = ends.iter().filter(|end| torn.starts_with(&bytes[..**end])).count();
            let entries = recovered(&home, &path, torn, &*store);
            assert_eq!(rows(&entries), expected(intact), "{length}");
        }
    }
}

#[test]
fn a_wrong_byte_anywhere_gives_what_is_before_it() {
    let home = Home::new();
    let store = home.store();
    let (path, bytes) = written(&home);
    let ends = frame_ends(&bytes);
    for place in 0..bytes.len() {
        let mut wrong = bytes.clone();
        wrong[place] ^= 1 << (place % 8);
        let intact = if place < HEADER_BYTES { 0 } else { ends.iter().filter(|end| **end <= place).count() };
        let entries = recovered(&home, &path, &wrong, &*store);
        assert_eq!(rows(&entries), expected(intact), "{place}");
    }
    assert!(
        std::fs::read_dir(home.settings().dir.join("e0000000000000001").with_file_name("set-aside"))
            .unwrap()
            .next()
            .is_some(),
        "what is behind is kept for people to look at"
    );
}

#[test]
fn a_recovery_that_dies_anywhere_is_finished_by_the_next() {
    let home = Home::new();
    let store = home.store();
    let (path, bytes) = written(&home);
    let cut = frame_ends(&bytes)[6];
    let entries = recovered(&home, &path, &bytes[..cut], &*store);
    let whole = std::fs::read(&path).unwrap();
    assert!(whole.len() > cut, "ends were appended");
    for length in cut..=whole.len() {
        assert_eq!(recovered(&home, &path, &whole[..length], &*store), entries, "{length}");
    }
}

#[test]
fn damage_in_an_older_segment_costs_that_segment_alone() {
    let home = Home::new();
    let settings = home.settings();
    let lane = bare_lane(&settings, 1);
    for number in 1..=30 {
        open(&lane, number);
        lane.close(&closed(number));
    }
    lane.sync().unwrap();
    let (first, second) = (lane.segment_with(1).unwrap(), lane.segment_after(1).unwrap());
    drop(lane);
    let mut bytes = std::fs::read(&first.segment.path).unwrap();
    let damaged = frame_ends(&bytes)[5];
    bytes[damaged + 30] ^= 1;
    std::fs::write(&first.segment.path, &bytes).unwrap();
    let store = home.store();
    let entries = mended(&home, first.segment.path.parent().unwrap(), &*store);
    let lost = second.segment.first_sequence.div_ceil(3);
    let found: Vec<_> = entries.iter().map(|entry| entry.closed.request).collect();
    assert_eq!(found[..2], [id(1), id(2)]);
    assert!(found[2] >= id(lost) && found.last() == Some(&id(30)), "{found:?}");
}

#[test]
fn segments_that_the_store_has_are_not_read_again() {
    let home = Home::new();
    let settings = home.settings();
    let lane = bare_lane(&settings, 1);
    open(&lane, 1);
    for number in 2..=40 {
        open(&lane, number);
        lane.close(&closed(number));
    }
    lane.sync().unwrap();
    let first = lane.segment_with(1).unwrap();
    let last = lane.segment_with(u64::MAX).unwrap();
    drop(lane);
    let folder = epoch_folder(&settings.dir, 1);
    let aside = SetAside::new(settings.dir.join("set-aside"));
    let applied = Mark { node: 0, lane: 0, epoch: 1, sequence: last.segment.first_sequence - 1 };
    let mend = || mend_epoch(1, &folder, &[applied], &aside).unwrap().pop().unwrap();
    let lane = mend();
    assert_eq!(lane.segments.len(), 1);
    assert_eq!(lane.open.keys().collect::<Vec<_>>(), [&id(1)], "what is open is carried along");
    let length = first.segment.path.metadata().unwrap().len();
    assert_eq!(length, settings.segment_bytes, "the first segment was not touched");
    // Without what was carried, the segment before is needed.
    let bytes = std::fs::read(&last.segment.path).unwrap();
    std::fs::write(&last.segment.path, &bytes[..HEADER_BYTES + 20]).unwrap();
    let lane = mend();
    assert_eq!((lane.segments.len(), lane.open.contains_key(&id(1))), (2, true));
    std::fs::write(&last.segment.path, [0; 10]).unwrap();
    let lane = mend();
    assert_eq!((lane.segments.len(), lane.open.contains_key(&id(1))), (1, true));
}

#[test]
fn a_damaged_lane_books_nothing_that_the_store_has() {
    let home = Home::new();
    let store = home.store();
    let (path, bytes) = written(&home);
    let settings = Settings { keep_s: 600, ..home.settings() };
    let (ledger, lanes) = home.start(&store, settings.clone());
    let booked = [closed(1), closed(2), closed(3)];
    home.assert_booked(&store, &booked);
    drop((ledger, lanes));
    // The ends of 2 and 3 are lost from the file, but not from the store.
    std::fs::write(&path, &bytes[..frame_ends(&bytes)[7]]).unwrap();
    let (_ledger, _lanes) = home.start(&store, settings);
    home.assert_booked(&store, &booked);
}

#[test]
fn a_damaged_lane_does_not_number_its_records_again() {
    let home = Home::new();
    let store = home.store();
    let (ledger, lanes) = home.start(&store, home.settings());
    open(&lanes[0], 9);
    for number in 1..=3 {
        open(&lanes[0], number);
        lanes[0].close(&closed(number));
    }
    home.flush(&ledger);
    let path = lanes[0].segment_with(1).unwrap().segment.path.clone();
    drop((ledger, lanes));
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..frame_ends(&bytes)[3]]).unwrap();
    let (_ledger, _lanes) = home.start(&store, home.settings());
    home.assert_booked(&store, &[closed(1), closed(2), closed(3), orphaned(9, 1)]);
}

#[test]
fn records_that_cannot_be_read_block_nothing() {
    let home = Home::new();
    let settings = home.settings();
    let lane = bare_lane(&settings, 1);
    open(&lane, 1);
    lane.sync().unwrap();
    let segment = lane.segment_with(1).unwrap();
    drop(lane);
    let mut bytes = std::fs::read(&segment.segment.path).unwrap();
    bytes.truncate(usize::try_from(segment.bytes).unwrap());
    let mut frames = Vec::new();
    frame::append(&mut frames, Kind::Closed, &"no end of a request").unwrap();
    frame::append(&mut frames, Kind::Opened, &7_u8).unwrap();
    let unknown = frames.len();
    frame::append(&mut frames, Kind::Closed, &closed(1)).unwrap();
    frames[unknown + 8] = 99;
    frame::append(&mut frames, Kind::Closed, &closed(1)).unwrap();
    frame::stamp(&mut frames, 3);
    bytes.extend_from_slice(&frames);
    std::fs::write(&segment.segment.path, &bytes).unwrap();
    let store = home.store();
    let (ledger, _lanes) = home.start(&store, settings.clone());
    home.assert_booked(&store, &[closed(1)]);
    assert_eq!(ledger.view().set_aside, 3);
    assert_eq!(std::fs::read_dir(settings.dir.join("set-aside")).unwrap().count(), 3);
}

#[test]
fn no_bytes_make_the_recovery_panic() {
    use proptest::prelude::*;
    let (home, folder) = (Home::new(), Folder::new());
    let (store, settings) = (home.store(), settings(folder.path()));
    let lane = bare_lane(&settings, 1);
    lane.open(&opened(1), &attempt(1, 1)).unwrap();
    lane.sync().unwrap();
    let path = lane.segment_with(1).unwrap().segment.path.clone();
    drop(lane);
    let header = std::fs::read(&path).unwrap()[..HEADER_BYTES].to_vec();
    let (home, path, folder) = (&home, &path, epoch_folder(&settings.dir, 1));
    proptest!(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() },
    |(noise in proptest::collection::vec(any::<u8>(), 0..2_000), kind in 1..4_u8)| {
        // Noise behind a header, and noise in an intact frame.
        let mut bytes = header.clone();
        bytes.extend_from_slice(&noise);
        std::fs::write(path, &bytes).unwrap();
        mended(home, &folder, &*store);
        let mut frame = Vec::new();
        frame::append(&mut frame, Kind::of(kind).unwrap(), &minicbor::bytes::ByteVec::from(noise)).unwrap();
        frame::stamp(&mut frame, 1);
        let mut bytes = header.clone();
        bytes.extend_from_slice(&frame);
        std::fs::write(path, &bytes).unwrap();
        prop_assert!(mended(home, &folder, &*store).is_empty());
    });
}
