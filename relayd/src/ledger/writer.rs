//! What a lane writes, and the room that it keeps: whatever was opened can be closed without asking for more.
//!
//! The promise: either the spare segment has room for everything that is open and all its ends, or the current
//! one still has room for all the ends.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use ahash::RandomState;
use shared::domain::RequestId;

use super::frame::{self, HEADER_BYTES, Kind};
use super::journal::{Epoch, JournalError};
use super::record::{Attempt, Bounded, Opened};
use super::segment::{Segment, Spare};
use crate::store::Closed;

/// What an [`Opened`] or an [`Attempt`] may have, with its frame: room for all limits that may hold for a call
/// ([`crate::store::LIMITS_MAX`]).
const OPEN_FRAME_BYTES_MAX: usize = 32 << 10;
/// What an opening and its end rarely exceed, each of them.
const OPENING_BYTES: u64 = 4 << 10;
/// What the end of a request has beyond what its beginning has: frame, times, usage, the priced model.
const CLOSED_BYTES_MORE: u64 = 720;
/// What the end of a request has for an attempt beyond what the attempt's record has.
const GIVEN_UP_BYTES_MORE: u64 = 160;
const HEADER: u64 = HEADER_BYTES as u64;

/// A segment that is written, or was and is not dropped yet.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) segment: Arc<Segment>,
    pub(super) written: u64,
    pub(super) synced: u64,
}

/// A request without its end.
#[derive(Debug)]
struct OpenFrames {
    /// What is carried forward into the next segment.
    frames: Vec<u8>,
    /// The room kept for its end.
    close_bytes: u64,
}

/// The writing end of a lane.
#[derive(Debug)]
pub(super) struct Writer {
    lane: u32,
    pub(super) current: Live,
    /// Segments before the current one, oldest first.
    pub(super) full: VecDeque<Live>,
    pub(super) spare: Option<Spare>,
    pub(super) next_sequence: u64,
    open: HashMap<RequestId, OpenFrames, RandomState>,
    /// The sum of what is carried forward.
    carried_bytes: u64,
    /// The sum of what is kept for ends.
    close_bytes: u64,
    /// Ends that the file system refused, in order.
    unwritten: VecDeque<(RequestId, Vec<u8>)>,
    buffer: Vec<u8>,
    /// There are names in the folder that are not synced.
    pub(super) has_new_names: bool,
}

impl Writer {
    /// Begins a lane with an empty segment.
    pub(super) fn start(epoch: &Epoch, lane: u32) -> io::Result<Self> {
        let capacity = epoch.settings.segment_bytes.max(2 * HEADER);
        let spare = Spare::create(&epoch.folder, epoch.next_spare(), capacity)?;
        epoch.room.take_anyway(capacity);
        let segment = spare.begin(epoch.header(lane, 1, 0), &[]).map_err(|(_, error)| error)?;
        Ok(Self {
            lane,
            current: Live { segment: Arc::new(segment), written: HEADER, synced: 0 },
            full: VecDeque::new(),
            spare: None,
            next_sequence: 1,
            open: HashMap::default(),
            carried_bytes: 0,
            close_bytes: 0,
            unwritten: VecDeque::new(),
            buffer: Vec::new(),
            has_new_names: true,
        })
    }

    pub(super) fn open(
        &mut self,
        epoch: &Epoch,
        opened: &Opened,
        first: &Attempt,
    ) -> Result<(), JournalError> {
        let mut frames = std::mem::take(&mut self.buffer);
        let result = self.try_open(epoch, opened, first, &mut frames);
        self.buffer = frames;
        result
    }

    fn try_open(
        &mut self,
        epoch: &Epoch,
        opened: &Opened,
        first: &Attempt,
        frames: &mut Vec<u8>,
    ) -> Result<(), JournalError> {
        frames.clear();
        append(frames, Kind::Opened, &*opened.bounded())?;
        append(frames, Kind::Attempt, &*first.bounded())?;
        let close_bytes = frames.len() as u64 + CLOSED_BYTES_MORE + GIVEN_UP_BYTES_MORE;
        self.make_room(epoch, frames.len() as u64, close_bytes)?;
        self.write(frames)?;
        self.forget(opened.request);
        self.carried_bytes += frames.len() as u64;
        self.close_bytes += close_bytes;
        self.open.insert(opened.request, OpenFrames { frames: frames.clone(), close_bytes });
        Ok(())
    }

    pub(super) fn attempt(&mut self, epoch: &Epoch, attempt: &Attempt) -> Result<(), JournalError> {
        let mut frame = Vec::new();
        append(&mut frame, Kind::Attempt, &*attempt.bounded())?;
        let bytes = frame.len() as u64;
        let close_bytes = bytes + GIVEN_UP_BYTES_MORE;
        self.make_room(epoch, bytes, close_bytes)?;
        self.write(&mut frame)?;
        if let Some(open) = self.open.get_mut(&attempt.request) {
            open.frames.extend_from_slice(&frame);
            open.close_bytes += close_bytes;
            self.carried_bytes += bytes;
            self.close_bytes += close_bytes;
        }
        Ok(())
    }

    /// Writes the end of a request, or keeps it in memory until the file system takes it.
    ///
    /// # Errors
    ///
    /// [`JournalError::TooLarge`]: the request stays open. [`JournalError::Io`] and [`JournalError::Full`]:
    /// the end is kept and [`Self::retry`] writes it.
    pub(super) fn close(&mut self, epoch: &Epoch, closed: &Closed) -> Result<(), JournalError> {
        let mut frame = std::mem::take(&mut self.buffer);
        frame.clear();
        let appended = frame::append(&mut frame, Kind::Closed, &*closed.bounded());
        let result = match appended {
            Err(frame::TooLarge(bytes)) => Err(JournalError::TooLarge(bytes)),
            Ok(()) if self.unwritten.is_empty() => self.write_end(epoch, closed.request, &mut frame),
            Ok(()) => self.retry(epoch).and_then(|()| self.write_end(epoch, closed.request, &mut frame)),
        };
        if let Err(JournalError::Io(_) | JournalError::Full) = result {
            self.unwritten.push_back((closed.request, frame.clone()));
        }
        self.buffer = frame;
        result
    }

    /// Writes the ends that could not be written before.
    pub(super) fn retry(&mut self, epoch: &Epoch) -> Result<(), JournalError> {
        while let Some((request, mut frame)) = self.unwritten.pop_front() {
            if let Err(error) = self.write_end(epoch, request, &mut frame) {
                self.unwritten.push_front((request, frame));
                return Err(error);
            }
        }
        Ok(())
    }

    pub(super) fn has_unwritten(&self) -> bool {
        !self.unwritten.is_empty()
    }

    /// Whether a request could be opened now.
    pub(super) fn has_room(&mut self, epoch: &Epoch) -> bool {
        !self.has_unwritten() && self.make_room(epoch, OPENING_BYTES, OPENING_BYTES).is_ok()
    }

    /// The size of the spare that should be there and is not.
    pub(super) fn missing_spare(&self, epoch: &Epoch) -> Option<u64> {
        let wanted = (2 * (HEADER + self.carried_bytes + self.close_bytes)).max(epoch.settings.segment_bytes);
        self.spare.is_none().then_some(wanted)
    }

    fn write_end(&mut self, epoch: &Epoch, request: RequestId, frame: &mut [u8]) -> Result<(), JournalError> {
        let bytes = frame.len() as u64;
        if bytes > self.kept_for(request) {
            // Longer than its beginning promised: it must not take the room of others.
            self.make_room(epoch, bytes, 0)?;
        } else if self.free() < bytes {
            self.rotate(epoch)?;
        }
        self.write(frame)?;
        self.forget(request);
        Ok(())
    }

    /// The room kept for the end of a request.
    pub(super) fn kept_for(&self, request: RequestId) -> u64 {
        self.open.get(&request).map_or(0, |open| open.close_bytes)
    }

    fn forget(&mut self, request: RequestId) {
        if let Some(open) = self.open.remove(&request) {
            self.carried_bytes -= open.frames.len() as u64;
            self.close_bytes -= open.close_bytes;
        }
    }

    fn free(&self) -> u64 {
        self.current.segment.capacity.saturating_sub(self.current.written)
    }

    /// Sees to it that frames can be written now, and that the promise holds with them and with the ends that
    /// they will have.
    fn make_room(&mut self, epoch: &Epoch, bytes: u64, close_bytes: u64) -> Result<(), JournalError> {
        let ends = self.close_bytes + close_bytes;
        if self.free() >= bytes + ends {
            return Ok(());
        }
        self.need_spare(epoch, HEADER + self.carried_bytes + bytes + ends)?;
        if self.free() < bytes {
            self.rotate(epoch)?;
        }
        Ok(())
    }

    /// Sees to it that there is a spare of this size. The syncing thread made one beforehand, as a rule.
    fn need_spare(&mut self, epoch: &Epoch, bytes: u64) -> Result<(), JournalError> {
        match &mut self.spare {
            Some(spare) if spare.capacity >= bytes => {}
            Some(spare) => {
                let capacity = 2 * bytes;
                let more = capacity - spare.capacity;
                epoch.take_room(more, || spare.grow(capacity))?;
            }
            None => {
                let capacity = (2 * bytes).max(epoch.settings.segment_bytes);
                let create = || Spare::create(&epoch.folder, epoch.next_spare(), capacity);
                self.spare = Some(epoch.take_room(capacity, create)?);
            }
        }
        Ok(())
    }

    /// Goes on in the spare segment, which begins with everything that is open.
    fn rotate(&mut self, epoch: &Epoch) -> io::Result<()> {
        let Some(spare) = self.spare.take() else { return Err(io::ErrorKind::StorageFull.into()) };
        let mut frames: Vec<u8> = Vec::new();
        self.open.values().for_each(|open| frames.extend_from_slice(&open.frames));
        let next_sequence = frame::stamp(&mut frames, self.next_sequence);
        let carried = u32::try_from(next_sequence - self.next_sequence).unwrap_or(u32::MAX);
        match spare.begin(epoch.header(self.lane, self.next_sequence, carried), &frames) {
            Err((spare, error)) => {
                self.spare = Some(spare);
                Err(error)
            }
            Ok(segment) => {
                let written = HEADER + frames.len() as u64;
                let begun = Live { segment: Arc::new(segment), written, synced: 0 };
                self.full.push_back(std::mem::replace(&mut self.current, begun));
                self.next_sequence = next_sequence;
                self.has_new_names = true;
                Ok(())
            }
        }
    }

    fn write(&mut self, frames: &mut [u8]) -> io::Result<()> {
        let next_sequence = frame::stamp(frames, self.next_sequence);
        self.current.segment.file.write_all_at(frames, self.current.written)?;
        self.current.written += frames.len() as u64;
        self.next_sequence = next_sequence;
        Ok(())
    }
}

fn append(frames: &mut Vec<u8>, kind: Kind, value: &impl minicbor::Encode<()>) -> Result<(), JournalError> {
    let start = frames.len();
    frame::append(frames, kind, value).map_err(|frame::TooLarge(bytes)| JournalError::TooLarge(bytes))?;
    match frames.len() - start {
        bytes if bytes > OPEN_FRAME_BYTES_MAX => Err(JournalError::TooLarge(bytes)),
        _ => Ok(()),
    }
}
