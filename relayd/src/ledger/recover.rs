//! What happens to the journals of processes that are gone: their lanes are mended, what they left open is
//! closed, and all of it is shipped. Doing it again, wholly or from any point on, changes nothing more.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use shared::domain::{RequestId, Timestamp};
use tracing::{info, warn};

use super::LedgerError;
use super::apply::{Batch, Delivery, LaneName, collect};
use super::aside::SetAside;
use super::frame::{self, FrameReader, HEADER_BYTES, Header, Kind};
use super::record::{Attempt, OpenRequest, Opened};
use super::segment::{is_spare_name, lock_folder, parse_epoch_name, parse_segment_name, sync_folder};
use super::ship::{Retired, remove};
use crate::store::{Mark, RowQuery, Store};

/// What was found in the journal's folder.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The highest epoch of any folder; 0 if there is none.
    pub(super) epoch: u64,
    /// Lanes of processes that live.
    pub(super) lanes_in_use: Vec<u32>,
    /// Epochs whose processes are gone, in order, with their locks.
    dead: Vec<(u64, PathBuf, File)>,
}

/// Looks for epochs in the journal's folder. A folder whose lock is held is left alone.
pub(super) fn find(dir: &Path) -> io::Result<Found> {
    let mut epochs = Vec::new();
    for item in std::fs::read_dir(dir)? {
        let item = item?;
        if let Some(epoch) = item.file_name().to_str().and_then(parse_epoch_name) {
            epochs.push((epoch, item.path()));
        }
    }
    epochs.sort_unstable();
    let mut found = Found { epoch: epochs.last().map_or(0, |(epoch, _)| *epoch), ..Found::default() };
    for (epoch, folder) in epochs {
        match lock_folder(&folder)? {
            Some(lock) => found.dead.push((epoch, folder, lock)),
            None => found.lanes_in_use.extend(segments(&folder)?.into_keys()),
        }
    }
    Ok(found)
}

/// The segment files of a folder by lane, in their order.
fn segments(folder: &Path) -> io::Result<BTreeMap<u32, BTreeMap<u64, PathBuf>>> {
    let mut lanes: BTreeMap<u32, BTreeMap<u64, PathBuf>> = BTreeMap::new();
    for item in std::fs::read_dir(folder)? {
        let item = item?;
        if let Some((lane, first)) = item.file_name().to_str().and_then(parse_segment_name) {
            lanes.entry(lane).or_default().insert(first, item.path());
        }
    }
    Ok(lanes)
}

/// A lane whose process is gone, as far as it is intact.
#[derive(Debug)]
pub(super) struct DeadLane {
    pub(super) name: LaneName,
    pub(super) segments: Vec<Mended>,
    /// What has no end.
    pub(super) open: BTreeMap<RequestId, OpenRequest>,
    last_sequence: u64,
}

/// A segment without anything behind its last intact frame.
#[derive(Debug)]
pub(super) struct Mended {
    pub(super) file: File,
    pub(super) first_sequence: u64,
    pub(super) end: u64,
    /// Whether all is intact that was carried into it.
    has_carried: bool,
}

/// Mends, closes and ships what dead processes left; gives their folders, to be removed later.
pub(super) async fn recover(
    found: &mut Found,
    delivery: &mut Delivery,
    keep: Duration,
    now: Timestamp,
) -> Result<Vec<Retired>, LedgerError> {
    let marks = delivery.store.marks().await?;
    let mut retired = Vec::new();
    for (epoch, folder, lock) in found.dead.drain(..) {
        for mut lane in mend_epoch(epoch, &folder, &marks, &delivery.aside)? {
            let applied = lane.name.applied(&marks);
            lane.close(applied, &*delivery.store).await?;
            lane.ship(applied, delivery).await?;
        }
        let left = keep.saturating_sub(now.since(last_change(&folder)?));
        let old = Retired { epoch, bytes: disk_bytes(&folder)?, folder, left, _lock: lock };
        if !left.is_zero() || !remove(&old) {
            retired.push(old);
        }
    }
    Ok(retired)
}

/// What the files of a folder take on the disk, which is more or less than their lengths.
fn disk_bytes(folder: &Path) -> io::Result<u64> {
    const BLOCK_BYTES: u64 = 512;
    let mut bytes = 0;
    for item in std::fs::read_dir(folder)? {
        bytes += item?.metadata()?.blocks() * BLOCK_BYTES;
    }
    Ok(bytes)
}

/// When a segment of the folder was last written to; the dawn of time if there is none.
fn last_change(folder: &Path) -> io::Result<Timestamp> {
    let mut last = Timestamp::default();
    for path in segments(folder)?.values().flat_map(BTreeMap::values) {
        let changed = path.metadata()?.modified()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        last = last.max(Timestamp::default().after(changed));
    }
    Ok(last)
}

/// Mends all lanes of an epoch.
pub(super) fn mend_epoch(
    epoch: u64,
    folder: &Path,
    marks: &[Mark],
    aside: &SetAside,
) -> io::Result<Vec<DeadLane>> {
    for item in std::fs::read_dir(folder)? {
        let item = item?;
        if item.file_name().to_str().is_some_and(is_spare_name) {
            std::fs::remove_file(item.path())?;
        }
    }
    let (segments, mut lanes) = (segments(folder)?, Vec::new());
    let node = node_of(segments.values().flat_map(BTreeMap::values))?;
    for (lane, paths) in segments {
        let name = LaneName { node, epoch, lane };
        let paths: Vec<(u64, PathBuf)> = paths.into_iter().collect();
        lanes.push(mend_lane(name, &paths, name.applied(marks), aside)?);
    }
    sync_folder(folder)?;
    Ok(lanes)
}

/// The node that wrote the segments, as the first header that can be read tells. Where none can, nothing is
/// shipped that would need it.
fn node_of<'a>(mut paths: impl Iterator<Item = &'a PathBuf>) -> io::Result<u32> {
    let header = paths.find_map(|path| {
        let mut bytes = [0; HEADER_BYTES];
        match File::open(path).and_then(|file| file.read_exact_at(&mut bytes, 0)) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
            Err(error) => Some(Err(error)),
            Ok(()) => Header::decode(&bytes).map(Ok),
        }
    });
    Ok(header.transpose()?.map_or(0, |header| header.node))
}

/// Mends a lane from the first segment on that may have something for the store. That segment begins with what
/// was open; only if it does not is an earlier one needed.
fn mend_lane(
    name: LaneName,
    paths: &[(u64, PathBuf)],
    applied: u64,
    aside: &SetAside,
) -> io::Result<DeadLane> {
    let is_applied = |next: &&(u64, PathBuf)| next.0.saturating_sub(1) <= applied;
    let mut start = paths.iter().skip(1).take_while(is_applied).count();
    loop {
        let mut scan = Scan { name, aside, open: BTreeMap::new(), last_sequence: 0 };
        let mut segments = Vec::new();
        for (first_sequence, path) in &paths[start..] {
            segments.extend(scan.mend(*first_sequence, path)?);
        }
        let first = segments.first().filter(|first| paths[start].0 == first.first_sequence);
        if start == 0 || first.is_some_and(|first| first.has_carried) {
            let Scan { open, last_sequence, .. } = scan;
            return Ok(DeadLane { name, segments, open, last_sequence });
        }
        start -= 1;
    }
}

/// Reads a lane from its beginning.
struct Scan<'a> {
    name: LaneName,
    aside: &'a SetAside,
    open: BTreeMap<RequestId, OpenRequest>,
    last_sequence: u64,
}

impl Scan<'_> {
    /// Cuts what is behind the last intact frame: a torn tail, or room that was not used. `None` for a file
    /// that is no segment of this lane.
    fn mend(&mut self, first_sequence: u64, path: &Path) -> io::Result<Option<Mended>> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let length = file.metadata()?.len();
        let Some(header) = self.header(&file, first_sequence)? else {
            self.aside.rest(&self.name.rest(first_sequence, 0), &file, 0, length)?;
            std::fs::remove_file(path)?;
            return Ok(None);
        };
        let mut reader = FrameReader::default();
        reader.start_at(HEADER_BYTES as u64, self.last_sequence.max(first_sequence.saturating_sub(1)));
        while let Some(frame) = reader.next(&file, length)? {
            self.note(frame);
        }
        self.last_sequence = reader.last_sequence();
        let end = reader.offset();
        if end < length {
            self.aside.rest(&self.name.rest(first_sequence, end), &file, end, length)?;
            file.set_len(end)?;
            file.sync_all()?;
        }
        let has_carried = self.last_sequence + 1 >= first_sequence + u64::from(header.carried);
        Ok(Some(Mended { file, first_sequence, end, has_carried }))
    }

    fn header(&self, file: &File, first_sequence: u64) -> io::Result<Option<Header>> {
        let mut bytes = [0; HEADER_BYTES];
        match file.read_exact_at(&mut bytes, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        let LaneName { epoch, lane, .. } = self.name;
        let header = Header::decode(&bytes);
        Ok(header.filter(|h| (h.epoch, h.lane, h.first_sequence) == (epoch, lane, first_sequence)))
    }

    fn note(&mut self, frame: frame::Frame<'_>) {
        let result = match Kind::of(frame.kind) {
            Some(Kind::Opened) => minicbor::decode(frame.payload).map(|opened: Opened| {
                let open = OpenRequest { opened, attempts: Vec::new() };
                self.open.entry(open.opened.request).or_insert(open);
            }),
            Some(Kind::Attempt) => minicbor::decode(frame.payload).map(|attempt: Attempt| {
                if let Some(open) = self.open.get_mut(&attempt.request) {
                    open.add(attempt);
                }
            }),
            // Shipping sets aside what it cannot read of these.
            Some(Kind::Closed) => {
                if let Ok(ClosedRequest { request }) = minicbor::decode(frame.payload) {
                    self.open.remove(&request);
                }
                return;
            }
            None => return,
        };
        if let Err(error) = result {
            let LaneName { epoch, lane, .. } = self.name;
            self.aside.record(epoch, lane, frame.sequence, &error.to_string(), frame.bytes);
        }
    }
}

/// What is needed of a [`crate::store::Closed`] that is only passed.
#[derive(minicbor::Decode)]
#[cbor(array)]
struct ClosedRequest {
    #[n(0)]
    request: RequestId,
}

impl DeadLane {
    /// Writes an end for everything that has none. `applied` is the sequence up to which the store has the lane.
    pub(super) async fn close(&mut self, applied: u64, store: &dyn Store) -> Result<(), LedgerError> {
        if applied > self.last_sequence {
            // Damage took records that the store has. Their numbers are not used again, and what they closed
            // is not closed again.
            self.forget_rows(store).await?;
            self.last_sequence = applied;
        }
        if applied == u64::MAX && !self.open.is_empty() {
            let LaneName { epoch, lane, .. } = self.name;
            warn!(
                epoch,
                lane,
                count = self.open.len(),
                "requests of a damaged lane cannot be closed any more"
            );
            return Ok(());
        }
        let ends = std::mem::take(&mut self.open).into_values().map(OpenRequest::orphaned);
        let Some(segment) = self.segments.last_mut() else { return Ok(()) };
        let (mut frames, mut count) = (Vec::new(), 0_u64);
        for closed in ends {
            match frame::append(&mut frames, Kind::Closed, &closed) {
                Ok(()) => count += 1,
                Err(error) => warn!(request = %closed.request, %error, "an orphaned request has no end"),
            }
        }
        if count > 0 {
            self.last_sequence = frame::stamp(&mut frames, self.last_sequence.saturating_add(1)) - 1;
            segment.file.write_all_at(&frames, segment.end)?;
            segment.file.sync_all()?;
            segment.end += frames.len() as u64;
            let LaneName { epoch, lane, .. } = self.name;
            info!(epoch, lane, count, "requests of a process that died were closed");
        }
        Ok(())
    }

    async fn forget_rows(&mut self, store: &dyn Store) -> Result<(), LedgerError> {
        let requests: Vec<RequestId> = self.open.keys().copied().collect();
        for request in requests {
            let query = RowQuery { id: Some(request), limit: 1, ..RowQuery::default() };
            if !store.rows(query).await?.is_empty() {
                self.open.remove(&request);
            }
        }
        Ok(())
    }

    pub(super) async fn ship(&self, applied: u64, delivery: &mut Delivery) -> Result<(), LedgerError> {
        let (mut reader, mut batch) = (FrameReader::default(), Batch::default());
        for Mended { file, first_sequence, end, .. } in &self.segments {
            reader.start_at(HEADER_BYTES as u64, first_sequence.saturating_sub(1));
            loop {
                collect(&mut reader, (file, *end), self.name, applied, &delivery.aside, &mut batch)?;
                if !batch.is_full() {
                    break;
                }
                delivery.apply_in_the_end(std::mem::take(&mut batch)).await?;
            }
        }
        Ok(delivery.apply_in_the_end(batch).await?)
    }
}
