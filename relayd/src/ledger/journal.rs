//! One epoch of the journal: its folder, its lock, and what its lanes have in common.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::Thread;
use std::time::Duration;

use super::apply::LaneName;
use super::frame::Header;
use super::segment::{create_folder, epoch_folder, lock_folder, sync_folder};

/// How the journal is kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The journal's folder.
    pub dir: PathBuf,
    /// This node's number among the nodes of the store.
    pub node: u32,
    /// How many threads write.
    pub lanes: u32,
    /// The usual size of a segment file.
    pub segment_bytes: u64,
    /// How long a record may be lost by a loss of power.
    pub sync_ms: u64,
    /// How long a record may wait before it goes to the store.
    pub ship_ms: u64,
    /// How long segments stay after everything in them is in the store.
    pub keep_s: u64,
    /// What all segments together may take; no request is opened beyond it.
    pub bytes_max: u64,
}

impl Settings {
    /// The usual settings for a folder.
    #[cfg(test)]
    pub fn of(dir: PathBuf) -> Self {
        Self {
            dir,
            node: 0,
            lanes: 1,
            segment_bytes: 8 << 20,
            sync_ms: 50,
            ship_ms: 500,
            keep_s: 600,
            bytes_max: 1 << 30,
        }
    }

    pub(super) const fn sync_interval(&self) -> Duration {
        Duration::from_millis(self.sync_ms)
    }

    pub(super) const fn ship_interval(&self) -> Duration {
        Duration::from_millis(self.ship_ms)
    }

    pub(super) const fn keep(&self) -> Duration {
        Duration::from_secs(self.keep_s)
    }
}

/// Why a record was not written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// There would be no room for the end of the request.
    #[error("the journal is full")]
    Full,
    /// The record is larger than any that could be needed.
    #[error("a journal record has {0} bytes, which is too many")]
    TooLarge(usize),
    /// The file system failed.
    #[error("the journal cannot be written")]
    Io(#[from] io::Error),
}

/// What the lanes of an epoch share.
#[derive(Debug)]
pub(super) struct Epoch {
    pub(super) number: u64,
    pub(super) folder: PathBuf,
    pub(super) settings: Settings,
    pub(super) room: Room,
    pub(super) wake: Wake,
    /// Lanes of which the last request that wanted to be opened was refused.
    pub(super) refusing: Count,
    /// Lanes of which the last end of a request could not be written.
    pub(super) failing: Count,
    spares: AtomicU64,
    /// Held as long as anything of the epoch is.
    _lock: File,
}

impl Epoch {
    /// Makes the folder of a new epoch and takes its lock.
    pub(super) fn create(number: u64, settings: Settings) -> io::Result<Self> {
        let folder = epoch_folder(&settings.dir, number);
        create_folder(&folder)?;
        let lock = lock_folder(&folder)?.ok_or(io::ErrorKind::WouldBlock)?;
        sync_folder(&settings.dir)?;
        // Every lane must have a segment and a spare.
        let bytes_max = settings.bytes_max.max(2 * u64::from(settings.lanes) * settings.segment_bytes);
        Ok(Self {
            number,
            folder,
            settings,
            room: Room { bytes: AtomicU64::new(0), bytes_max },
            wake: Wake::default(),
            refusing: Count::default(),
            failing: Count::default(),
            spares: AtomicU64::new(0),
            _lock: lock,
        })
    }

    pub(super) const fn lane_name(&self, lane: u32) -> LaneName {
        LaneName { node: self.settings.node, epoch: self.number, lane }
    }

    pub(super) const fn header(&self, lane: u32, first_sequence: u64, carried: u32) -> Header {
        Header { node: self.settings.node, lane, epoch: self.number, first_sequence, carried }
    }

    pub(super) fn next_spare(&self) -> u64 {
        self.spares.fetch_add(1, Ordering::Relaxed)
    }

    /// Makes something that takes room on the disk, if there is room.
    pub(super) fn take_room<T>(
        &self,
        bytes: u64,
        make: impl FnOnce() -> io::Result<T>,
    ) -> Result<T, JournalError> {
        if !self.room.take(bytes) {
            return Err(JournalError::Full);
        }
        make().map_err(|error| {
            self.room.give_back(bytes);
            match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => JournalError::Full,
                _ => JournalError::Io(error),
            }
        })
    }
}

/// The bytes that the journal takes on the disk.
#[derive(Debug)]
pub(super) struct Room {
    bytes: AtomicU64,
    bytes_max: u64,
}

impl Room {
    /// Takes room, unless that were too much.
    pub(super) fn take(&self, bytes: u64) -> bool {
        let take = |taken: u64| taken.checked_add(bytes).filter(|taken| *taken <= self.bytes_max);
        self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    /// Takes room without asking, for what a lane cannot be without.
    pub(super) fn take_anyway(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn give_back(&self, bytes: u64) {
        let give = |taken: u64| Some(taken.saturating_sub(bytes));
        let _ = self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, give);
    }

    pub(super) fn taken(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) const fn max(&self) -> u64 {
        self.bytes_max
    }
}

/// How many lanes have a trouble: whoever asks one lane is told of all.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn is_any(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

/// Whether one lane has a trouble.
#[derive(Debug, Default)]
pub(super) struct Trouble(AtomicBool);

impl Trouble {
    pub(super) fn is_there(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Begins or ends it, also in the count of the lanes that have it. Tells whether that is a change.
    pub(super) fn set(&self, is_there: bool, Count(lanes): &Count) -> bool {
        if self.is_there() == is_there || self.0.swap(is_there, Ordering::Relaxed) == is_there {
            return false;
        }
        match is_there {
            true => lanes.fetch_add(1, Ordering::Relaxed),
            false => lanes.fetch_sub(1, Ordering::Relaxed),
        };
        true
    }
}

/// Wakes the syncing thread when there is something to sync, and lets it sleep when there is not.
#[derive(Debug, Default)]
pub(super) struct Wake {
    is_dirty: AtomicBool,
    sleeper: OnceLock<Thread>,
}

impl Wake {
    /// Says that there is something to sync.
    pub(super) fn mark_dirty(&self) {
        if !self.is_dirty.load(Ordering::Relaxed) && !self.is_dirty.swap(true, Ordering::AcqRel) {
            self.wake();
        }
    }

    /// Wakes the thread for whatever it looks at.
    pub(super) fn wake(&self) {
        if let Some(thread) = self.sleeper.get() {
            thread.unpark();
        }
    }

    /// Names the thread to wake: the one that calls this.
    pub(super) fn sleep_here(&self) {
        let _ = self.sleeper.set(std::thread::current());
    }

    pub(super) fn is_dirty(&self) -> bool {
        self.is_dirty.load(Ordering::Acquire)
    }

    /// Whether there was something; whatever comes next counts anew.
    pub(super) fn take(&self) -> bool {
        self.is_dirty.swap(false, Ordering::AcqRel)
    }
}
