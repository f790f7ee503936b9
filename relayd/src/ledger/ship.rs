//! The thread that ships: it reads what is synced out of the segments, hands it to the store in batches, and
//! drops segments when everything in them has been in the store for long enough.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;
use tracing::{error, info};

use super::LedgerError;
use super::apply::{Batch, Delivery, collect};
use super::frame::{FrameReader, HEADER_BYTES};
use super::hold::Held;
use super::journal::Epoch;
use super::lane::{Lane, Synced};
use super::recover::mend_epoch;
use super::sync::sync_all;
use crate::causes::Causes;
use crate::store::Mark;

const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// How often the thread looks for what has been kept long enough, if nothing else wakes it.
const TIDY: Duration = Duration::from_secs(30);
/// How many may wait for a flush; more wait for their turn to ask.
const FLUSHES: usize = 64;
const STACK_BYTES: usize = 1 << 20;

/// What the thread is asked.
enum Request {
    /// To bring everything that was appended to the store.
    Flush(Reply<()>),
    /// The same, from where the store says it is: it has lost something.
    ShipAgain(Reply<()>),
    /// To flush, and to ship nothing more until the hold is dropped.
    Hold(Reply<Held>),
}

type Reply<T> = oneshot::Sender<Result<T, LedgerError>>;

/// By lane.
type Positions = Arc<[AtomicU64]>;

/// What the thread ships and where it keeps what it cannot.
pub(super) struct Cargo {
    pub(super) epoch: Arc<Epoch>,
    pub(super) lanes: Vec<Arc<Lane>>,
    pub(super) delivery: Delivery,
    /// Folders of earlier epochs that are shipped and kept for a while.
    pub(super) retired: Vec<Retired>,
}

/// The folder of an epoch that is wholly in the store.
#[derive(Debug)]
pub(super) struct Retired {
    pub(super) epoch: u64,
    pub(super) folder: PathBuf,
    /// How long it is to be kept from now.
    pub(super) left: Duration,
    /// What it takes on the disk.
    pub(super) bytes: u64,
    /// Nobody else touches the folder while this is held.
    pub(super) _lock: File,
}

/// The thread.
pub(super) struct Shipper {
    requests: Option<mpsc::Sender<Request>>,
    positions: Positions,
    thread: Option<JoinHandle<()>>,
}

impl Shipper {
    /// Starts the thread; `synced` wakes it.
    pub(super) fn start(cargo: Cargo, synced: Arc<Notify>) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (requests, asked) = mpsc::channel(FLUSHES);
        let positions: Positions = cargo.lanes.iter().map(|_| AtomicU64::new(0)).collect();
        let run = Run::new(cargo, Arc::clone(&positions));
        let builder = std::thread::Builder::new().name("journal-ship".to_owned()).stack_size(STACK_BYTES);
        let thread = builder.spawn(move || runtime.block_on(run.run(asked, &synced)))?;
        Ok(Self { requests: Some(requests), positions, thread: Some(thread) })
    }

    /// The last sequence of each lane up to which everything is in the store.
    pub(super) fn positions(&self) -> impl Iterator<Item = u64> {
        self.positions.iter().map(|position| position.load(Ordering::Relaxed))
    }

    /// Syncs and ships everything that was appended until now.
    pub(super) async fn flush(&self) -> Result<(), LedgerError> {
        self.ask(Request::Flush).await
    }

    /// Does so from where the store says it is.
    pub(super) async fn ship_again(&self) -> Result<(), LedgerError> {
        self.ask(Request::ShipAgain).await
    }

    /// Syncs and ships everything that was appended until now, and nothing more while the hold lives.
    pub(super) async fn hold(&self) -> Result<Held, LedgerError> {
        self.ask(Request::Hold).await
    }

    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, LedgerError> {
        let requests = self.requests.as_ref().ok_or(LedgerError::Stopped)?;
        let (reply, answer) = oneshot::channel();
        requests.send(request(reply)).await.map_err(|_| LedgerError::Stopped)?;
        answer.await.unwrap_or(Err(LedgerError::Stopped))
    }

    /// Ends the thread, without a last flush.
    pub(super) fn stop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!("the journal's shipping thread panicked");
        }
    }
}

impl Drop for Shipper {
    fn drop(&mut self) {
        self.stop();
    }
}

/// How far a lane is read.
#[derive(Clone, Copy, Debug, Default)]
struct Cursor {
    /// The segment, by its first sequence; 0 before any.
    segment: u64,
    offset: u64,
    /// The last sequence that was read.
    read: u64,
    /// The last sequence that the store had anyway.
    applied: u64,
}

/// A segment that is wholly in the store.
#[derive(Clone, Copy, Debug)]
struct Shipped {
    lane: usize,
    first_sequence: u64,
    since: Instant,
}

struct Run {
    cargo: Cargo,
    cursors: Vec<Cursor>,
    reader: FrameReader,
    kept: VecDeque<Shipped>,
    positions: Positions,
    /// The store failed.
    is_failing: bool,
    /// The store may have less than was shipped to it: it failed, or is known to have lost something.
    is_behind: bool,
    retry: Duration,
    started: Instant,
}

impl Run {
    fn new(cargo: Cargo, positions: Positions) -> Self {
        let cursors = vec![Cursor::default(); cargo.lanes.len()];
        Self {
            cargo,
            cursors,
            reader: FrameReader::default(),
            kept: VecDeque::new(),
            positions,
            is_failing: false,
            is_behind: false,
            retry: RETRY_MIN,
            started: Instant::now(),
        }
    }

    async fn run(mut self, mut asked: mpsc::Receiver<Request>, synced: &Notify) {
        // What earlier starts left may leave no room.
        self.tidy();
        let mut has_more = false;
        loop {
            let pause = match (self.is_failing, has_more) {
                (true, _) => self.retry,
                (false, true) => self.cargo.epoch.settings.ship_interval(),
                (false, false) => TIDY,
            };
            tokio::select! {
                biased;
                request = asked.recv() => match request {
                    None => return,
                    Some(request) => self.serve(request, &mut asked).await,
                },
                () = synced.notified(), if !has_more => {
                    has_more = true;
                    continue;
                }
                () = tokio::time::sleep(pause) => {
                    // It was told, and will be tried again.
                    drop(self.ship().await);
                    self.tidy();
                }
            }
            has_more = false;
        }
    }

    async fn serve(&mut self, request: Request, asked: &mut mpsc::Receiver<Request>) {
        self.is_behind |= matches!(request, Request::ShipAgain(_));
        let flushed = self.flush().await;
        self.tidy();
        // Whoever asked may have gone.
        match (request, flushed) {
            (Request::Flush(reply) | Request::ShipAgain(reply), flushed) => drop(reply.send(flushed)),
            (Request::Hold(reply), Err(error)) => drop(reply.send(Err(error))),
            (Request::Hold(reply), Ok(())) => {
                let (held, released) = Held::new();
                drop(reply.send(Ok(held)));
                refuse_until(released, asked).await;
            }
        }
    }

    async fn flush(&mut self) -> Result<(), LedgerError> {
        sync_all(&self.cargo.lanes)?;
        self.ship().await
    }

    /// Ships everything that is synced, and tells once when that begins or ceases to fail.
    async fn ship(&mut self) -> Result<(), LedgerError> {
        let result = self.try_ship().await;
        match &result {
            Ok(()) => {
                if std::mem::take(&mut self.is_failing) {
                    info!("the ledger reaches the store again");
                }
                self.retry = RETRY_MIN;
            }
            Err(error) => {
                self.is_behind = true;
                if !std::mem::replace(&mut self.is_failing, true) {
                    error!(error = %Causes(error), "the ledger does not reach the store");
                }
                self.retry = (2 * self.retry).min(RETRY_MAX);
            }
        }
        result
    }

    async fn try_ship(&mut self) -> Result<(), LedgerError> {
        if self.is_behind {
            let marks = self.cargo.delivery.store.marks().await?;
            self.ship_retired(&marks).await?;
            self.rewind(&marks);
            self.is_behind = false;
        }
        loop {
            let (mut batch, mut passed) = (Batch::default(), Vec::new());
            let gathered =
                (0..self.cursors.len()).try_for_each(|lane| self.gather(lane, &mut batch, &mut passed));
            let is_full = batch.is_full();
            // If this or what follows fails, the next round goes back to where the store says it is.
            gathered?;
            self.cargo.delivery.apply(batch).await?;
            self.kept.extend(passed);
            for (position, cursor) in self.positions.iter().zip(&self.cursors) {
                position.store(cursor.read, Ordering::Relaxed);
            }
            if !is_full {
                return Ok(());
            }
        }
    }

    /// Reads on in one lane; names the segments that are read to their ends.
    fn gather(&mut self, place: usize, batch: &mut Batch, passed: &mut Vec<Shipped>) -> io::Result<()> {
        let (lane, aside) = (&self.cargo.lanes[place], &self.cargo.delivery.aside);
        let name = self.cargo.epoch.lane_name(lane.number());
        let cursor = &mut self.cursors[place];
        let mut next = lane.segment_with(cursor.segment);
        while let Some(Synced { segment, bytes, is_complete }) = next {
            if segment.first_sequence != cursor.segment {
                let (segment, offset) = (segment.first_sequence, HEADER_BYTES as u64);
                *cursor = Cursor { segment, offset, read: segment - 1, ..*cursor };
            }
            self.reader.start_at(cursor.offset, cursor.read);
            collect(&mut self.reader, (&segment.file, bytes), name, cursor.applied, aside, batch)?;
            (cursor.offset, cursor.read) = (self.reader.offset(), self.reader.last_sequence());
            if batch.is_full() {
                break;
            }
            if cursor.offset < bytes {
                aside.rest(&name.rest(cursor.segment, cursor.offset), &segment.file, cursor.offset, bytes)?;
                cursor.offset = bytes;
            }
            if !is_complete {
                break;
            }
            next = lane.segment_after(cursor.segment);
            if next.is_some() {
                let first_sequence = cursor.segment;
                passed.push(Shipped { lane: place, first_sequence, since: Instant::now() });
            }
        }
        Ok(())
    }

    /// Ships what the store lacks of earlier epochs, which come before this one.
    async fn ship_retired(&mut self, marks: &[Mark]) -> Result<(), LedgerError> {
        for Retired { epoch, folder, .. } in &self.cargo.retired {
            for lane in mend_epoch(*epoch, folder, marks, &self.cargo.delivery.aside)? {
                let applied = lane.name.applied(marks);
                lane.ship(applied, &mut self.cargo.delivery).await?;
            }
        }
        Ok(())
    }

    /// Goes back to where the store is.
    fn rewind(&mut self, marks: &[Mark]) {
        for (place, lane) in self.cargo.lanes.iter().enumerate() {
            let applied = self.cargo.epoch.lane_name(lane.number()).applied(marks);
            let next = applied.saturating_add(1);
            let segment = lane.segment_with(next).map_or(0, |found| found.segment.first_sequence);
            self.kept.retain(|shipped| shipped.lane != place || shipped.first_sequence < segment);
            // The segment is read from its beginning, and what the store has is passed over.
            let (offset, read) = (HEADER_BYTES as u64, segment.saturating_sub(1));
            self.cursors[place] = Cursor { segment, offset, read, applied };
        }
    }

    /// Drops folders and segments that were kept long enough, the oldest first; sooner when room runs out.
    fn tidy(&mut self) {
        let Cargo { epoch, lanes, retired, .. } = &mut self.cargo;
        let reserve = 2 * lanes.len() as u64 * epoch.settings.segment_bytes;
        let is_tight = || epoch.room.taken() + reserve > epoch.room.max();
        let kept_for = self.started.elapsed();
        retired.retain(|old| {
            let is_kept = old.left > kept_for && !is_tight();
            if !is_kept && remove(old) {
                epoch.room.give_back(old.bytes);
            }
            is_kept
        });
        while let Some(shipped) = self.kept.front() {
            if shipped.since.elapsed() < epoch.settings.keep() && !is_tight() {
                break;
            }
            lanes[shipped.lane].drop_segment(shipped.first_sequence);
            self.kept.pop_front();
        }
    }
}

/// Refuses what is asked until a hold is dropped.
async fn refuse_until(mut released: oneshot::Receiver<Infallible>, asked: &mut mpsc::Receiver<Request>) {
    loop {
        let request = tokio::select! {
            biased;
            _ = &mut released => return,
            request = asked.recv() => request,
        };
        match request {
            Some(Request::Flush(reply) | Request::ShipAgain(reply)) => {
                drop(reply.send(Err(LedgerError::Held)))
            }
            Some(Request::Hold(reply)) => drop(reply.send(Err(LedgerError::Held))),
            None => return,
        }
    }
}

/// Removes a folder whose lock is held; tells whether it is gone.
pub(super) fn remove(retired: &Retired) -> bool {
    let removed = std::fs::remove_dir_all(&retired.folder);
    if let Err(error) = &removed {
        error!(folder = %retired.folder.display(), %error, "an old folder of the journal cannot be removed");
    }
    removed.is_ok()
}
