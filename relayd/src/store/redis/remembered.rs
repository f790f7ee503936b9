//! The records as they were read or written last: what a server that came back empty can be given again.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::store::{Record, RecordKind, Write};

type Known = BTreeMap<(RecordKind, String), (u64, Vec<u8>)>;

#[derive(Default)]
pub(super) struct Remembered(Mutex<Known>);

impl Remembered {
    /// These are all that there are of a kind.
    pub(super) fn set_kind(&self, kind: RecordKind, records: &[Record]) {
        let mut known = self.known();
        known.retain(|(of, _), _| *of != kind);
        records.iter().for_each(|record| put(&mut known, kind, record));
    }

    /// One was read; there may be none of this id.
    pub(super) fn set(&self, kind: RecordKind, id: &str, record: Option<&Record>) {
        match record {
            Some(record) => put(&mut self.known(), kind, record),
            None => self.remove(kind, id),
        }
    }

    pub(super) fn put_all(&self, records: &[(RecordKind, Record)]) {
        let mut known = self.known();
        records.iter().for_each(|(kind, record)| put(&mut known, *kind, record));
    }

    pub(super) fn remove(&self, kind: RecordKind, id: &str) {
        self.known().remove(&(kind, id.to_owned()));
    }

    /// What was written, at the versions that it got.
    pub(super) fn wrote(&self, writes: &[Write], versions: &[u64]) {
        let mut known = self.known();
        for (Write { kind, id, value, .. }, version) in writes.iter().zip(versions) {
            match value {
                Some(value) => drop(known.insert((*kind, id.clone()), (*version, value.clone()))),
                None => drop(known.remove(&(*kind, id.clone()))),
            }
        }
    }

    pub(super) fn all(&self) -> Vec<(RecordKind, Record)> {
        let known = self.known();
        let record = |((kind, id), (version, value)): (&(RecordKind, String), &(u64, Vec<u8>))| {
            (*kind, Record { id: id.clone(), version: *version, value: value.clone() })
        };
        known.iter().map(record).collect()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn put(known: &mut Known, kind: RecordKind, Record { id, version, value }: &Record) {
    known.insert((kind, id.clone()), (*version, value.clone()));
}
