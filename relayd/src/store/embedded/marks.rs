//! Each file's own account of what it has applied: one mark for each lane of a node, in a table of that file.

use std::collections::BTreeMap;

use redb::{ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};

use crate::store::{Mark, StoreError};

/// Node and lane; epoch and sequence.
const MARKS: TableDefinition<'_, (u32, u32), (u64, u64)> = TableDefinition::new("marks");

/// The marks of a file, by node and lane.
#[derive(Debug, Default)]
pub(super) struct Marks(BTreeMap<(u32, u32), Mark>);

pub(super) fn create(transaction: &WriteTransaction) -> Result<(), StoreError> {
    transaction.open_table(MARKS)?;
    Ok(())
}

impl Marks {
    pub(super) fn read(transaction: &ReadTransaction) -> Result<Self, StoreError> {
        Self::from_table(&transaction.open_table(MARKS)?)
    }

    pub(super) fn read_to_change(transaction: &WriteTransaction) -> Result<Self, StoreError> {
        Self::from_table(&transaction.open_table(MARKS)?)
    }

    fn from_table(table: &impl ReadableTable<(u32, u32), (u64, u64)>) -> Result<Self, StoreError> {
        let mut marks = Self::default();
        for row in table.iter()? {
            let (writer, value) = row?;
            let ((node, lane), (epoch, sequence)) = (writer.value(), value.value());
            marks.0.insert((node, lane), Mark { node, lane, epoch, sequence });
        }
        Ok(marks)
    }

    /// Moves the lane's mark up to this one; tells whether it was below, so that the entry is new here.
    pub(super) fn pass(&mut self, mark: Mark) -> bool {
        let is_new = self.0.get(&mark.writer()).is_none_or(|applied| *applied < mark);
        if is_new {
            self.0.insert(mark.writer(), mark);
        }
        is_new
    }

    /// Moves marks up to these.
    pub(super) fn put(transaction: &WriteTransaction, marks: &[Mark]) -> Result<(), StoreError> {
        let mut known = Self::read_to_change(transaction)?;
        for mark in marks {
            known.pass(*mark);
        }
        known.write(transaction)
    }

    pub(super) fn write(&self, transaction: &WriteTransaction) -> Result<(), StoreError> {
        let mut table = transaction.open_table(MARKS)?;
        for mark in self.0.values() {
            table.insert(mark.writer(), (mark.epoch, mark.sequence))?;
        }
        Ok(())
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<Mark> {
        self.0.values().copied().collect()
    }

    /// The marks that both files have reached.
    pub(super) fn common(self, other: &Self) -> Vec<Mark> {
        let lower = |mark: Mark| other.0.get(&mark.writer()).map(|reached| mark.min(*reached));
        self.0.into_values().filter_map(lower).collect()
    }
}
