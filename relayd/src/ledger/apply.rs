//! From frames to the store: what both the shipping thread and the recovery do.

use std::fs::File;
use std::io;
use std::sync::Arc;

use super::aside::SetAside;
use super::frame::{FrameReader, Kind};
use crate::store::{Entry, Mark, Store, StoreError};

/// How many entries go to the store at once.
pub(super) const BATCH: usize = 1_000;

/// The lane that is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct LaneName {
    pub(super) epoch: u64,
    pub(super) lane: u32,
}

impl LaneName {
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
    entries: &mut Vec<Entry>,
) -> io::Result<()> {
    while entries.len() < BATCH
        && let Some(frame) = reader.next(file, limit)?
    {
        let (sequence, kind) = (frame.sequence, Kind::of(frame.kind));
        if sequence <= applied || matches!(kind, Some(Kind::Opened | Kind::Attempt)) {
            continue;
        }
        let LaneName { epoch, lane } = name;
        let decoded = kind.map(|_| minicbor::decode(frame.payload));
        match decoded {
            Some(Ok(closed)) => entries.push(Entry { mark: Mark { lane, epoch, sequence }, closed }),
            Some(Err(error)) => aside.record(epoch, lane, sequence, &error.to_string(), frame.bytes),
            None => aside.record(epoch, lane, sequence, "unknown kind", frame.bytes),
        }
    }
    Ok(())
}

/// Applies a batch. If the store finds some of it damaged and takes the rest, that is set aside.
///
/// # Errors
///
/// Nothing or part of the batch was applied; all of it is to be applied again.
pub(super) async fn apply(
    store: &dyn Store,
    batch: Arc<[Entry]>,
    aside: &SetAside,
) -> Result<(), StoreError> {
    let result = store.apply(Arc::clone(&batch)).await;
    let Err(damaged @ StoreError::Damaged { .. }) = result else { return result };
    let mut refused = Vec::new();
    for entry in &*batch {
        match store.apply(Arc::new([entry.clone()])).await {
            Ok(()) => {}
            Err(error @ StoreError::Damaged { .. }) => refused.push((entry, error)),
            Err(error) => return Err(error),
        }
    }
    if refused.len() == batch.len() {
        // Not the entries but the store is what is damaged.
        return Err(damaged);
    }
    for (entry, error) in refused {
        let Mark { lane, epoch, sequence } = entry.mark;
        let bytes = minicbor::to_vec(&entry.closed).unwrap_or_default();
        aside.record(epoch, lane, sequence, &error.to_string(), &bytes);
    }
    Ok(())
}
