//! The store as it is moved: chunks out of both files, and into them.

use shared::domain::Timestamp;

use super::Inner;
use crate::store::memory::Settlement;
use crate::store::transfer::{CHUNK, CHUNK_OF_GROUPS};
use crate::store::{Census, Chunk, Closed, Cursor, Exported, Row, StoreError};

impl Inner {
    pub(super) fn export(&self, cursor: Cursor) -> Result<Exported, StoreError> {
        Ok(match cursor {
            Cursor::Records => (Chunk::Records(self.state.all_records()?), None),
            Cursor::Audit(after) => {
                let rows = self.state.audit_rows(after, CHUNK)?;
                let last = rows.last().filter(|_| rows.len() == CHUNK);
                let next = last.map(|last| Cursor::Audit(Some((last.entry.at, last.number))));
                (Chunk::Audit(rows), next)
            }
            Cursor::Groups(after) => {
                let groups = self.state.groups_after(after.as_ref(), CHUNK_OF_GROUPS)?;
                let last = groups.last().filter(|_| groups.len() == CHUNK_OF_GROUPS);
                let next = last.map(|last| Cursor::Groups(Some(last.group.clone())));
                (Chunk::Groups(groups), next)
            }
            Cursor::TheseGroups(groups) => (Chunk::Groups(self.state.these_groups(&groups)?), None),
            Cursor::Rows(after) => {
                let rows = self.ledger.rows_after(after, CHUNK)?;
                let last = rows.last().filter(|_| rows.len() == CHUNK);
                let next = last.map(|last| Cursor::Rows(Some(last.request)));
                (Chunk::Rows(rows), next)
            }
            Cursor::TheseRows(ids) => (Chunk::Rows(self.ledger.these_rows(&ids)?), None),
            Cursor::Sums(since) => {
                let (sums, next) = self.ledger.sums_from(since, CHUNK)?;
                (Chunk::Sums(sums), next.map(|hour| Cursor::Sums(Some(hour))))
            }
            Cursor::TheseSums(hours) => (Chunk::Sums(self.ledger.these_sums(&hours)?), None),
            Cursor::Kept => (Chunk::Kept(self.ledger.kept()?), None),
            Cursor::Marks => {
                let marks = self.state.marks()?.common(&self.ledger.marks()?);
                (Chunk::Marks { marks, epoch: self.state.last_epoch()? }, None)
            }
        })
    }

    pub(super) fn import(&self, chunk: Chunk) -> Result<(), StoreError> {
        let _applying = self.applying.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match chunk {
            Chunk::Records(records) => self.state.put_records(&records),
            Chunk::Gone(ids) => self.state.remove_records(&ids),
            Chunk::Audit(rows) => self.state.put_audit(&rows),
            Chunk::Groups(groups) => {
                self.state.put_groups(&groups)?;
                for state in groups {
                    let settlement = Settlement { records: state.counters, requests: Vec::new() };
                    self.counters.settle(&state.group, &settlement);
                }
                Ok(())
            }
            Chunk::Rows(rows) => self.ledger.put_rows(&rows),
            Chunk::Sums(sums) => self.ledger.put_sums(&sums),
            Chunk::Kept(kept) => self.ledger.put_kept(&kept),
            Chunk::Marks { marks, epoch } => {
                self.ledger.put_marks(&marks)?;
                self.state.put_marks(&marks, epoch)
            }
        }
    }

    pub(super) fn census(&self) -> Result<Census, StoreError> {
        let (rows, sums) = self.ledger.count()?;
        let (records, audit, groups) = self.state.count()?;
        let writers = self.state.marks()?.common(&self.ledger.marks()?).len() as u64;
        Ok(Census { records, audit, groups, rows, sums, writers })
    }
}

/// A row with what it says.
pub(super) fn read(row: &Row) -> Result<Closed, StoreError> {
    minicbor::decode(&row.cbor).map_err(|error| super::database::damaged("ledger row", error))
}

/// The first moment after an hour.
pub(super) fn next_millisecond(hour: Timestamp) -> Timestamp {
    Timestamp::from_millis(hour.as_millis().saturating_add(1))
}
