//! A lane of the journal: one thread appends, the syncing thread makes it last, the shipping thread reads it.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::{error, info};

use super::journal::{Epoch, JournalError, Trouble};
use super::record::{Attempt, Opened};
use super::segment::{Segment, Spare, sync_folder};
use super::writer::{Live, Writer};
use crate::causes::Causes;
use crate::store::Closed;

/// One thread's part of the journal. Any thread may use it, but two of them would wait for each other; a
/// request is closed in the lane it was opened in.
#[derive(Debug)]
pub struct Lane {
    number: u32,
    epoch: Arc<Epoch>,
    writer: Mutex<Writer>,
    /// Held while the lane is synced: whoever finds something synced finds its names synced too.
    syncing: Mutex<()>,
    /// The last attempt to write an end failed; said once.
    failing: Trouble,
    /// The last request that wanted to be opened was refused.
    refusing: Trouble,
}

/// A segment as the shipping thread sees it.
#[derive(Clone, Debug)]
pub(super) struct Synced {
    pub(super) segment: Arc<Segment>,
    /// How much of it will last.
    pub(super) bytes: u64,
    /// Nothing will be added to it, and all of it will last.
    pub(super) is_complete: bool,
}

impl Lane {
    pub(super) fn start(epoch: &Arc<Epoch>, number: u32) -> io::Result<Self> {
        let writer = Mutex::new(Writer::start(epoch, number)?);
        let (failing, refusing) = (Trouble::default(), Trouble::default());
        Ok(Self { number, epoch: Arc::clone(epoch), writer, syncing: Mutex::new(()), failing, refusing })
    }

    /// Writes that a request was admitted and that its first account is about to be called: both or neither.
    /// It is in the system's hands when this returns, so that it outlives the process.
    ///
    /// # Errors
    ///
    /// The request must not be sent: its end might not be written.
    pub fn open(&self, opened: &Opened, first: &Attempt) -> Result<(), JournalError> {
        let opened = self.locked().open(&self.epoch, opened, first);
        let is_refused = matches!(opened, Err(JournalError::Full | JournalError::Io(_)));
        self.refusing.set(is_refused, &self.epoch.refusing);
        opened?;
        self.epoch.wake.mark_dirty();
        Ok(())
    }

    /// Why requests are not being opened, in this or in any other lane of the journal, if they are not. Whoever
    /// asks makes the lanes look for room again: where nobody sends requests because of the answer, nothing else
    /// would.
    pub fn refusal(&self) -> Option<&'static str> {
        if self.epoch.refusing.is_any() {
            self.epoch.wake.mark_dirty();
            Some("it has no room, or cannot be written")
        } else if self.epoch.failing.is_any() {
            Some("it cannot be written; ends of requests are kept in memory")
        } else {
            None
        }
    }

    /// Writes that another account is about to be called.
    ///
    /// # Errors
    ///
    /// The account must not be called.
    pub fn attempt(&self, attempt: &Attempt) -> Result<(), JournalError> {
        self.locked().attempt(&self.epoch, attempt)?;
        self.epoch.wake.mark_dirty();
        Ok(())
    }

    /// Writes the end of a request. There is room for it since it was opened; what the file system refuses
    /// all the same is kept in memory and tried again.
    pub fn close(&self, closed: &Closed) {
        let result = self.locked().close(&self.epoch, closed);
        self.report(result);
        self.epoch.wake.mark_dirty();
    }

    fn report(&self, result: Result<(), JournalError>) {
        match result {
            Ok(()) => {
                if self.failing.set(false, &self.epoch.failing) {
                    info!(lane = self.number, "the journal is written again");
                }
            }
            // The request stays open, and the next start of the daemon books its estimate.
            Err(error @ JournalError::TooLarge(_)) => {
                error!(lane = self.number, %error, "a request has no end")
            }
            Err(error) => {
                if self.failing.set(true, &self.epoch.failing) {
                    error!(lane = self.number, error = %Causes(&error), "ends of requests are kept in memory");
                }
            }
        }
    }

    /// Makes what was written last.
    pub(super) fn sync(&self) -> io::Result<()> {
        let _syncing = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        let (unsynced, has_new_names) = {
            let mut writer = self.locked();
            let live = writer.full.iter().chain([&writer.current]);
            let unsynced: Vec<_> = live
                .filter(|live| live.synced < live.written)
                .map(|live| (Arc::clone(&live.segment), live.written))
                .collect();
            (unsynced, std::mem::take(&mut writer.has_new_names))
        };
        let synced = unsynced.iter().try_for_each(|(segment, _)| segment.file.sync_data());
        let named =
            synced.and_then(|()| if has_new_names { sync_folder(&self.epoch.folder) } else { Ok(()) });
        let mut writer = self.locked();
        if let Err(error) = named {
            writer.has_new_names |= has_new_names;
            return Err(error);
        }
        let Writer { full, current, .. } = &mut *writer;
        for live in full.iter_mut().chain([current]) {
            let of_it = unsynced.iter().find(|(segment, _)| Arc::ptr_eq(segment, &live.segment));
            live.synced = live.synced.max(of_it.map_or(0, |(_, written)| *written));
        }
        Ok(())
    }

    /// What the lane needs done off the path of requests: ends that could not be written, and the next segment.
    pub(super) fn tend(&self) {
        let missing = {
            let mut writer = self.locked();
            if writer.has_unwritten() {
                let result = writer.retry(&self.epoch);
                self.report(result);
            }
            writer.missing_spare(&self.epoch)
        };
        if let Some(capacity) = missing {
            self.prepare_spare(capacity);
        }
        if self.refusing.is_there() && self.locked().has_room(&self.epoch) {
            self.refusing.set(false, &self.epoch.refusing);
        }
    }

    fn prepare_spare(&self, capacity: u64) {
        let epoch = &self.epoch;
        let create = || Spare::create(&epoch.folder, epoch.next_spare(), capacity);
        // A failure is found and told by whoever needs the spare.
        let Ok(spare) = epoch.take_room(capacity, create) else { return };
        let mut writer = self.locked();
        match writer.spare {
            None => writer.spare = Some(spare),
            Some(_) => {
                spare.discard();
                epoch.room.give_back(capacity);
            }
        }
    }

    /// There are ends that only memory has.
    pub(super) fn has_unwritten(&self) -> bool {
        self.locked().has_unwritten()
    }

    /// The last sequence that was written.
    pub(super) fn last_sequence(&self) -> u64 {
        self.locked().next_sequence.saturating_sub(1)
    }

    pub(super) const fn number(&self) -> u32 {
        self.number
    }

    /// The segment that holds a sequence, or the oldest after it, as far as it is synced.
    pub(super) fn segment_with(&self, sequence: u64) -> Option<Synced> {
        let writer = self.locked();
        let first = writer.full.partition_point(|live| live.segment.first_sequence <= sequence);
        let before = first.checked_sub(1).and_then(|place| writer.full.get(place));
        let is_in_current = writer.current.segment.first_sequence <= sequence;
        let found = match (is_in_current, before) {
            (true, _) => &writer.current,
            (false, Some(live)) => live,
            (false, None) => writer.full.front().unwrap_or(&writer.current),
        };
        let is_full = found.segment.first_sequence != writer.current.segment.first_sequence;
        let Live { segment, written, synced } = found;
        let is_complete = is_full && synced == written;
        (*synced > 0).then(|| Synced { segment: Arc::clone(segment), bytes: *synced, is_complete })
    }

    /// The segment after one that begins with this sequence, as far as it is synced.
    pub(super) fn segment_after(&self, first_sequence: u64) -> Option<Synced> {
        let next = {
            let writer = self.locked();
            let live = writer.full.iter().chain([&writer.current]);
            let mut begins = live.map(|live| live.segment.first_sequence);
            begins.find(|begin| *begin > first_sequence)
        };
        next.and_then(|first| self.segment_with(first))
    }

    /// Removes a segment that is full, shipped and kept long enough.
    pub(super) fn drop_segment(&self, first_sequence: u64) {
        let dropped = {
            let mut writer = self.locked();
            let place = writer.full.iter().position(|live| live.segment.first_sequence == first_sequence);
            place.and_then(|place| writer.full.remove(place))
        };
        if let Some(Live { segment, .. }) = dropped {
            // A file that stays is found by the next start, which takes nothing from it twice.
            if let Err(error) = std::fs::remove_file(&segment.path) {
                error!(path = %segment.path.display(), %error, "a journal segment cannot be removed");
            }
            self.epoch.room.give_back(segment.capacity);
        }
    }

    /// Gives back the room that nothing will be written to.
    pub(super) fn finish(&self) {
        let mut writer = self.locked();
        if let Some(spare) = writer.spare.take() {
            self.epoch.room.give_back(spare.capacity);
            spare.discard();
        }
        // Only saves room: whatever is behind what was written is zeros.
        drop(writer.current.segment.file.set_len(writer.current.written));
    }

    /// A poisoned lock guards a writer whose counts are right: they change only after a write succeeded.
    pub(super) fn locked(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
