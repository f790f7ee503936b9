//! The thread that makes what was appended last: it sleeps until there is something, and then gathers what comes
//! within the interval, so that the disk is asked once for many records.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tracing::{error, info};

use super::journal::Epoch;
use super::lane::Lane;

/// How long the thread waits after a failure.
const RETRY: Duration = Duration::from_secs(1);
/// It parks, and calls a lane's writer: no more than that.
const STACK_BYTES: usize = 256 << 10;

/// The thread.
#[derive(Debug)]
pub(super) struct Syncer {
    epoch: Arc<Epoch>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Syncer {
    /// Starts the thread; it calls `synced` whenever more records may be shipped.
    pub(super) fn start(epoch: &Arc<Epoch>, lanes: &[Arc<Lane>], synced: Arc<Notify>) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let run = Run { epoch: Arc::clone(epoch), lanes: lanes.to_vec(), synced, stop: Arc::clone(&stop) };
        let builder = std::thread::Builder::new().name("journal-sync".to_owned()).stack_size(STACK_BYTES);
        let thread = builder.spawn(move || run.run())?;
        Ok(Self { epoch: Arc::clone(epoch), stop, thread: Some(thread) })
    }

    /// Ends the thread, without a last sync.
    pub(super) fn stop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            if thread.join().is_err() {
                error!(epoch = self.epoch.number, "the journal's syncing thread panicked");
            }
        }
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Run {
    epoch: Arc<Epoch>,
    lanes: Vec<Arc<Lane>>,
    synced: Arc<Notify>,
    stop: Arc<AtomicBool>,
}

impl Run {
    fn run(&self) {
        self.epoch.wake.sleep_here();
        self.lanes.iter().for_each(|lane| lane.tend());
        let mut is_failing = false;
        while self.wait_until_dirty() {
            let interval = self.epoch.settings.sync_interval();
            self.sleep(if is_failing { interval.max(RETRY) } else { interval });
            self.epoch.wake.take();
            is_failing = self.sync(is_failing);
        }
    }

    /// Syncs all lanes; tells whether that failed.
    fn sync(&self, was_failing: bool) -> bool {
        let result = sync_all(&self.lanes);
        self.lanes.iter().for_each(|lane| lane.tend());
        if self.lanes.iter().any(|lane| lane.has_unwritten()) {
            self.epoch.wake.mark_dirty();
        }
        match result {
            Ok(()) if was_failing => info!("the journal is synced again"),
            Ok(()) => {}
            Err(error) => {
                self.epoch.wake.mark_dirty();
                if !was_failing {
                    error!(%error, "the journal cannot be synced");
                }
                return true;
            }
        }
        self.synced.notify_one();
        false
    }

    fn wait_until_dirty(&self) -> bool {
        while !self.stop.load(Ordering::Acquire) {
            if self.epoch.wake.is_dirty() {
                return true;
            }
            std::thread::park();
        }
        false
    }

    fn sleep(&self, duration: Duration) {
        let end = Instant::now() + duration;
        while !self.stop.load(Ordering::Acquire) {
            match end.checked_duration_since(Instant::now()) {
                Some(left) if !left.is_zero() => std::thread::park_timeout(left),
                _ => break,
            }
        }
    }
}

/// Syncs every lane, also after one failed.
pub(super) fn sync_all(lanes: &[Arc<Lane>]) -> io::Result<()> {
    let mut result = Ok(());
    for lane in lanes {
        result = result.and(lane.sync());
    }
    result
}
