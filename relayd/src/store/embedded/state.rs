//! The file `state.redb`: records, the audit log and epochs; what the groups have booked is in `bookings`.

use std::path::Path;

use redb::{ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction};
use shared::admin::AuditEntry;
use shared::domain::Timestamp;

use super::bookings;
use super::database::{DatabaseFile, damaged};
use super::marks::Marks;
use super::record::GroupRecord;
use crate::store::{
    AuditRow, Booked, Booking, Entry, GroupId, GroupState, Mark, Record, RecordKind, StoreError, Write,
};

const CACHE_BYTES: usize = 2 << 20;

/// Kind and id; version as eight bytes, then JSON.
const RECORDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");
/// Time and a number that tells entries of one millisecond apart; JSON.
const AUDIT: TableDefinition<'_, (i64, u64), &[u8]> = TableDefinition::new("audit");
/// Single numbers by name.
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");

/// The last epoch that was given.
const EPOCH: &str = "epoch";

/// The file.
pub(super) struct StateFile(DatabaseFile);

impl StateFile {
    pub(super) fn open(dir: &Path) -> Result<Self, StoreError> {
        Self::with(DatabaseFile::open(dir.join("state.redb"), CACHE_BYTES)?)
    }

    pub(super) fn with(file: DatabaseFile) -> Result<Self, StoreError> {
        file.create_tables(|transaction| {
            transaction.open_table(RECORDS)?;
            transaction.open_table(AUDIT)?;
            transaction.open_table(NUMBERS)?;
            bookings::create(transaction)
        })?;
        Ok(Self(file))
    }

    pub(super) fn records(&self, kind: RecordKind) -> Result<Vec<Record>, StoreError> {
        self.0.read(|transaction| {
            let table = transaction.open_table(RECORDS)?;
            let (from, to) = ([code(kind)], [code(kind) + 1]);
            let mut records = Vec::new();
            for row in table.range::<&[u8]>(from.as_slice()..to.as_slice())? {
                let (key, value) = row?;
                records.push(record(&key.value()[1..], value.value())?);
            }
            Ok(records)
        })
    }

    pub(super) fn record(&self, kind: RecordKind, id: &str) -> Result<Option<Record>, StoreError> {
        self.0.read(|transaction| {
            let table = transaction.open_table(RECORDS)?;
            let found = table.get(record_key(kind, id).as_slice())?;
            found.map(|value| record(id.as_bytes(), value.value())).transpose()
        })
    }

    pub(super) fn write(&self, writes: &[Write]) -> Result<Vec<u64>, StoreError> {
        self.0.write(|transaction| {
            let mut versions = Vec::with_capacity(writes.len());
            for write in writes {
                versions.push(change(transaction, write)?);
                if let Some(entry) = &write.audit {
                    append(transaction, entry)?;
                }
            }
            Ok(versions)
        })
    }

    pub(super) fn audit(
        &self,
        since: Option<Timestamp>,
        limit: usize,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        let since = since.map_or(i64::MIN, Timestamp::as_millis);
        self.0.read(|transaction| {
            let table = transaction.open_table(AUDIT)?;
            let mut entries = Vec::new();
            for row in table.range((since, 0)..)?.rev().take(limit) {
                let (_, value) = row?;
                let entry = serde_json::from_slice(value.value());
                entries.push(entry.map_err(|error| damaged("audit entry", error))?);
            }
            Ok(entries)
        })
    }

    pub(super) fn next_epoch(&self, seen: u64) -> Result<u64, StoreError> {
        self.0.write(|transaction| {
            let mut numbers = transaction.open_table(NUMBERS)?;
            let last = numbers.get(EPOCH)?.map_or(0, |last| last.value());
            let epoch =
                last.max(seen).checked_add(1).ok_or_else(|| damaged("epoch", "it is the last one"))?;
            numbers.insert(EPOCH, epoch)?;
            Ok(epoch)
        })
    }

    pub(super) fn groups(&self) -> Result<Vec<(GroupId, GroupRecord)>, StoreError> {
        self.0.read(bookings::groups)
    }

    /// Books a batch; gives what the groups that it touches have now, and which of their counters moved.
    pub(super) fn book(&self, batch: &[Entry]) -> Result<(bookings::Groups, Vec<Booked>), StoreError> {
        self.0.write(|transaction| bookings::book(transaction, batch))
    }

    /// What is booked in the counters of these groups.
    pub(super) fn counters(&self, groups: &[GroupId]) -> Result<Vec<Booking>, StoreError> {
        self.0.read(|transaction| bookings::counters(transaction, groups))
    }

    /// Sets counters; gives what their groups have now, and which of them were set.
    pub(super) fn correct(&self, counters: &[Booked]) -> Result<(bookings::Groups, Vec<Booked>), StoreError> {
        self.0.write(|transaction| bookings::correct(transaction, counters))
    }

    pub(super) fn marks(&self) -> Result<Marks, StoreError> {
        self.0.read(Marks::read)
    }

    /// Lets go of the file.
    pub(super) fn close(&self) {
        self.0.close();
    }
}

/// Moving.
impl StateFile {
    pub(super) fn all_records(&self) -> Result<Vec<(RecordKind, Record)>, StoreError> {
        let mut all = Vec::new();
        for kind in RecordKind::ALL {
            all.extend(self.records(kind)?.into_iter().map(|record| (kind, record)));
        }
        Ok(all)
    }

    pub(super) fn put_records(&self, records: &[(RecordKind, Record)]) -> Result<(), StoreError> {
        self.0.write(|transaction| {
            let mut table = transaction.open_table(RECORDS)?;
            for (kind, Record { id, version, value }) in records {
                table.insert(record_key(*kind, id).as_slice(), stored(*version, value).as_slice())?;
            }
            Ok(())
        })
    }

    pub(super) fn remove_records(&self, ids: &[(RecordKind, String)]) -> Result<(), StoreError> {
        self.0.write(|transaction| {
            let mut table = transaction.open_table(RECORDS)?;
            for (kind, id) in ids {
                table.remove(record_key(*kind, id).as_slice())?;
            }
            Ok(())
        })
    }

    /// Audit entries behind one, the oldest first.
    pub(super) fn audit_rows(
        &self,
        after: Option<(Timestamp, u64)>,
        count: usize,
    ) -> Result<Vec<AuditRow>, StoreError> {
        let after = after.map_or((i64::MIN, 0), |(at, number)| (at.as_millis(), number));
        self.0.read(|transaction| {
            let mut rows = Vec::new();
            for row in transaction.open_table(AUDIT)?.range(after..)? {
                let (place, value) = row?;
                if place.value() == after {
                    continue;
                }
                if rows.len() == count {
                    break;
                }
                let entry = serde_json::from_slice(value.value());
                let entry = entry.map_err(|error| damaged("audit entry", error))?;
                rows.push(AuditRow { number: place.value().1, entry });
            }
            Ok(rows)
        })
    }

    pub(super) fn put_audit(&self, rows: &[AuditRow]) -> Result<(), StoreError> {
        self.0.write(|transaction| {
            let mut table = transaction.open_table(AUDIT)?;
            for AuditRow { number, entry } in rows {
                let bytes = serde_json::to_vec(entry).map_err(|error| damaged("audit entry", error))?;
                table.insert((entry.at.as_millis(), *number), bytes.as_slice())?;
            }
            Ok(())
        })
    }

    pub(super) fn groups_after(
        &self,
        after: Option<&GroupId>,
        count: usize,
    ) -> Result<Vec<GroupState>, StoreError> {
        self.0.read(|transaction| bookings::groups_after(transaction, after, count))
    }

    pub(super) fn these_groups(&self, groups: &[GroupId]) -> Result<Vec<GroupState>, StoreError> {
        self.0.read(|transaction| bookings::these_groups(transaction, groups))
    }

    pub(super) fn put_groups(&self, groups: &[GroupState]) -> Result<(), StoreError> {
        self.0.write(|transaction| bookings::put(transaction, groups))
    }

    pub(super) fn last_epoch(&self) -> Result<u64, StoreError> {
        self.0.read(|transaction| {
            let numbers = transaction.open_table(NUMBERS)?;
            Ok(numbers.get(EPOCH)?.map_or(0, |last| last.value()))
        })
    }

    pub(super) fn put_marks(&self, marks: &[Mark], epoch: u64) -> Result<(), StoreError> {
        self.0.write(|transaction| {
            let mut numbers = transaction.open_table(NUMBERS)?;
            let last = numbers.get(EPOCH)?.map_or(0, |last| last.value());
            numbers.insert(EPOCH, last.max(epoch))?;
            Marks::put(transaction, marks)
        })
    }

    /// Records, audit entries, groups.
    pub(super) fn count(&self) -> Result<(u64, u64, u64), StoreError> {
        self.0.read(|transaction| {
            let records = transaction.open_table(RECORDS)?.len()?;
            let audit = transaction.open_table(AUDIT)?.len()?;
            Ok((records, audit, bookings::count(transaction)?))
        })
    }
}

/// Makes one change, if the record is at the expected version.
fn change(transaction: &WriteTransaction, write: &Write) -> Result<u64, StoreError> {
    let mut table = transaction.open_table(RECORDS)?;
    let key = record_key(write.kind, &write.id);
    let found = table.get(key.as_slice())?.map(|value| split(value.value()).map(|(version, _)| version));
    let found = found.transpose()?;
    if found != write.expected {
        return Err(StoreError::Changed);
    }
    let version = found.unwrap_or(0).checked_add(1).ok_or(StoreError::Changed)?;
    match &write.value {
        Some(value) => {
            table.insert(key.as_slice(), stored(version, value).as_slice())?;
        }
        None => drop(table.remove(key.as_slice())?),
    }
    Ok(version)
}

fn append(transaction: &WriteTransaction, entry: &AuditEntry) -> Result<(), StoreError> {
    let mut table = transaction.open_table(AUDIT)?;
    let at = entry.at.as_millis();
    let last = table.range((at, 0)..=(at, u64::MAX))?.next_back().transpose()?;
    let number = last.map_or(0, |(key, _)| key.value().1.saturating_add(1));
    let bytes = serde_json::to_vec(entry).map_err(|error| damaged("audit entry", error))?;
    table.insert((at, number), bytes.as_slice())?;
    Ok(())
}

const fn code(kind: RecordKind) -> u8 {
    match kind {
        RecordKind::Key => 0,
        RecordKind::Account => 1,
        RecordKind::Price => 2,
        RecordKind::Setting => 3,
        RecordKind::Limits => 4,
    }
}

fn record_key(kind: RecordKind, id: &str) -> Vec<u8> {
    let mut key = vec![code(kind)];
    key.extend_from_slice(id.as_bytes());
    key
}

fn record(id: &[u8], stored: &[u8]) -> Result<Record, StoreError> {
    let id = std::str::from_utf8(id).map_err(|error| damaged("record id", error))?;
    let (version, value) = split(stored)?;
    Ok(Record { id: id.to_owned(), version, value: value.to_vec() })
}

/// As it is stored.
fn stored(version: u64, value: &[u8]) -> Vec<u8> {
    let mut bytes = version.to_be_bytes().to_vec();
    bytes.extend_from_slice(value);
    bytes
}

fn split(stored: &[u8]) -> Result<(u64, &[u8]), StoreError> {
    let (version, value) =
        stored.split_first_chunk().ok_or_else(|| damaged("record", "it has no version"))?;
    Ok((u64::from_be_bytes(*version), value))
}
