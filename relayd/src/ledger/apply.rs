//! From frames to the store: what both the shipping thread and the recovery do.

use std::fs::File;
use std::io;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::aside::SetAside;
use super::frame::{FrameReader, Kind};
use crate::store::{Booked, Entry, Mark, Store, StoreError};

/// How many entries go to the store at once: a commit costs as much for one as for hundreds.
const ENTRIES_MAX: usize = 4_000;
/// How many bytes of them, as they lie in the journal; one entry more may be begun.
const BYTES_MAX: usize = 4 << 20;

/// How often the store may refuse everything that it is given before that is set aside.
pub(super) const TRIES: u32 = 8;

/// What goes to the store at once.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) entries: Vec<Entry>,
    bytes: usize,
}

impl Batch {
    /// Nothing more shall be added before this is applied.
    pub(super) fn is_full(&self) -> bool {
        self.entries.len() >= ENTRIES_MAX || self.bytes >= BYTES_MAX
    }
}

/// The lane that is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct LaneName {
    pub(super) node: u32,
    pub(super) epoch: u64,
    pub(super) lane: u32,
}

impl LaneName {
    /// The sequence up to which the store has everything of the lane.
    pub(super) fn applied(self, marks: &[Mark]) -> u64 {
        match marks.iter().find(|mark| mark.writer() == (self.node, self.lane)) {
            Some(mark) if mark.epoch == self.epoch => mark.sequence,
            // Lanes are shipped in the order of their epochs.
            Some(mark) if mark.epoch > self.epoch => u64::MAX,
            _ => 0,
        }
    }

    /// What damaged frames of the lane are set aside as.
    pub(super) fn rest(self, first_sequence: u64, offset: u64) -> String {
        format!("e{:016x}-l{}-{first_sequence:020}-{offset}.rest", self.epoch, self.lane)
    }
}

/// Reads ends of requests, until there are enough or nothing more is intact before `limit`. What cannot be
/// decoded is set aside. Sequences up to `applied` are passed over.
pub(super) fn collect(
    reader: &mut FrameReader,
    (file, limit): (&File, u64),
    name: LaneName,
    applied: u64,
    aside: &SetAside,
    batch: &mut Batch,
) -> io::Result<()> {
    while !batch.is_full()
        && let Some(frame) = reader.next(file, limit)?
    {
        let (sequence, kind) = (frame.sequence, Kind::of(frame.kind));
        if sequence <= applied || matches!(kind, Some(Kind::Opened | Kind::Attempt)) {
            continue;
        }
        let LaneName { node, epoch, lane } = name;
        let entry = kind.map(|_| Entry::read(Mark { node, lane, epoch, sequence }, frame.payload));
        match entry {
            Some(Ok(entry)) => {
                batch.bytes += frame.bytes.len();
                batch.entries.push(entry);
            }
            Some(Err(error)) => aside.record(epoch, lane, sequence, &error.to_string(), frame.bytes),
            None => aside.record(epoch, lane, sequence, "unknown kind", frame.bytes),
        }
    }
    Ok(())
}

/// Where batches go: the store, and for what it does not take, the records set aside.
pub(super) struct Delivery {
    pub(super) store: Arc<dyn Store>,
    pub(super) aside: Arc<SetAside>,
    /// Who wants to know which counters moved.
    pub(super) watch: Option<Watch>,
    /// The first entry of a batch of which the store took nothing, and how often it was tried.
    pub(super) refused: Option<(Mark, u32)>,
}

/// Hears of counters that moved. Whoever is too slow to listen misses some: bookings wait for nobody.
pub type Watch = mpsc::Sender<Vec<Booked>>;

impl Delivery {
    /// Applies a batch. What the store finds damaged is set aside if it takes the rest, or if it has taken nothing
    /// [`TRIES`] times.
    ///
    /// # Errors
    ///
    /// Nothing or part of the batch was applied; all of it is to be applied again.
    pub(super) async fn apply(&mut self, Batch { entries, .. }: Batch) -> Result<(), StoreError> {
        self.apply_entries(&entries.into()).await
    }

    /// Applies a batch where nothing else can go on before: what the store finds damaged is tried again at once.
    ///
    /// # Errors
    ///
    /// The store cannot be reached.
    pub(super) async fn apply_in_the_end(&mut self, Batch { entries, .. }: Batch) -> Result<(), StoreError> {
        let entries: Arc<[Entry]> = entries.into();
        loop {
            match self.apply_entries(&entries).await {
                // It is set aside when it has been tried often enough.
                Err(StoreError::Damaged { .. }) => {}
                result => return result,
            }
        }
    }

    async fn apply_entries(&mut self, entries: &Arc<[Entry]>) -> Result<(), StoreError> {
        if entries.is_empty() {
            return Ok(());
        }
        match self.store.apply(Arc::clone(entries)).await {
            Ok(moved) => self.tell(moved),
            Err(damaged @ StoreError::Damaged { .. }) => self.apply_singly(entries, damaged).await?,
            Err(error) => return Err(error),
        }
        self.refused = None;
        Ok(())
    }

    async fn apply_singly(&mut self, entries: &[Entry], damaged: StoreError) -> Result<(), StoreError> {
        let mut refused = Vec::new();
        for entry in entries {
            match self.store.apply(Arc::new([entry.clone()])).await {
                Ok(moved) => self.tell(moved),
                Err(error @ StoreError::Damaged { .. }) => refused.push((entry, error)),
                Err(error) => return Err(error),
            }
        }
        // Not the entries but the store may be what is damaged.
        let is_doubtful = refused.len() == entries.len() && !entries.iter().all(|entry| self.is_aside(entry));
        if is_doubtful && self.tries(entries) < TRIES {
            return Err(damaged);
        }
        for (entry, error) in refused {
            self.set_aside(entry, &error);
        }
        Ok(())
    }

    /// How often nothing of a batch was taken, this time included.
    fn tries(&mut self, entries: &[Entry]) -> u32 {
        let Some(first) = entries.first().map(|entry| entry.mark) else { return 0 };
        let before = self.refused.filter(|(mark, _)| *mark == first).map_or(0, |(_, tries)| tries);
        self.refused = Some((first, before + 1));
        before + 1
    }

    fn is_aside(&self, entry: &Entry) -> bool {
        let Mark { lane, epoch, sequence, .. } = entry.mark;
        self.aside.has(epoch, lane, sequence)
    }

    /// Nothing will ever replace what the request holds: it is given back, or it would be held for ever.
    fn set_aside(&self, entry: &Entry, error: &StoreError) {
        let Mark { lane, epoch, sequence, .. } = entry.mark;
        self.aside.record(epoch, lane, sequence, &error.to_string(), entry.row());
        for booking in &entry.closed.bookings {
            self.store.give_back(entry.closed.request, &booking.group);
        }
    }

    fn tell(&self, moved: Vec<Booked>) {
        if let Some(watch) = &self.watch
            && !moved.is_empty()
            && watch.try_send(moved).is_err()
        {
            tracing::debug!("nobody hears which counters moved");
        }
    }
}
