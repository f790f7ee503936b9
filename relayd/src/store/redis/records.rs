//! Records, the audit log and epochs.

use redis::Cmd;
use shared::admin::AuditEntry;
use shared::domain::Timestamp;

use super::name;
use super::script::Script;
use crate::store::{AuditRow, Record, RecordKind, StoreError, Write};

/// All records of a kind.
pub(super) fn all(kind: RecordKind) -> Cmd {
    let mut command = redis::cmd("HGETALL");
    command.arg(name::records(kind));
    command
}

/// One record.
pub(super) fn one(kind: RecordKind, id: &str) -> Cmd {
    let mut command = redis::cmd("HGET");
    command.arg(name::records(kind)).arg(id);
    command
}

/// Changes, all or none.
pub(super) fn write(writes: &[Write]) -> Result<Cmd, StoreError> {
    let keys = [name::VERSION, name::CHANGES, name::AUDIT, name::AUDITED];
    let mut command =
        Script::Write.call(keys.into_iter().chain(name::KINDS.map(name::records)).collect::<Vec<_>>());
    for Write { kind, id, expected, value, audit } in writes {
        let place = name::KINDS.iter().position(|known| known == kind).unwrap_or_default();
        let expected = expected.map_or_else(String::new, |version| version.to_string());
        command.arg(place + 1).arg(id).arg(expected);
        command.arg(if value.is_some() { "w" } else { "d" }).arg(value.as_deref().unwrap_or_default());
        let (entry, at) = match audit {
            Some(entry) => {
                let json = serde_json::to_vec(entry).map_err(|error| damaged("audit entry", error))?;
                (json, entry.at.as_millis())
            }
            None => (Vec::new(), 0),
        };
        command.arg(entry).arg(at);
    }
    Ok(command)
}

/// What [`Script::Write`] said: the version of the records and those of each, or that somebody was faster.
pub(super) fn written(reply: &[u64]) -> Result<(u64, Vec<u64>), StoreError> {
    match reply {
        [] | [0, ..] => Err(StoreError::Changed),
        [version, each @ ..] => Ok((*version, each.to_vec())),
    }
}

/// The latest audit entries.
pub(super) fn audit(since: Option<Timestamp>, limit: usize) -> Cmd {
    let since = since.map_or_else(|| "-inf".to_owned(), |since| since.as_millis().to_string());
    let mut command = redis::cmd("ZREVRANGEBYSCORE");
    command.arg(name::AUDIT).arg("+inf").arg(since).arg("LIMIT").arg(0).arg(limit);
    command
}

/// Audit entries from a time on, the oldest first.
pub(super) fn audit_from(since: Option<Timestamp>, passed: usize, count: usize) -> Cmd {
    let since = since.map_or_else(|| "-inf".to_owned(), |since| since.as_millis().to_string());
    let mut command = redis::cmd("ZRANGEBYSCORE");
    command.arg(name::AUDIT).arg(since).arg("+inf").arg("LIMIT").arg(passed).arg(count);
    command
}

/// How many digits the number of an audit entry has.
const NUMBER_DIGITS: usize = 20;

/// Reads audit entries, each behind its number.
pub(super) fn audit_entries(found: &[Vec<u8>]) -> Result<Vec<AuditEntry>, StoreError> {
    Ok(audit_rows(found)?.into_iter().map(|row| row.entry).collect())
}

/// Reads audit entries with their numbers.
pub(super) fn audit_rows(found: &[Vec<u8>]) -> Result<Vec<AuditRow>, StoreError> {
    let read = |member: &Vec<u8>| {
        let (number, entry) = member.split_at_checked(NUMBER_DIGITS).unwrap_or_default();
        let number = std::str::from_utf8(number).ok().and_then(|number| number.parse().ok());
        let number = number.ok_or_else(|| damaged("audit entry", "it has no number"))?;
        let entry = serde_json::from_slice(entry).map_err(|error| damaged("audit entry", error))?;
        Ok(AuditRow { number, entry })
    };
    found.iter().map(read).collect()
}

/// An audit entry behind its number.
pub(super) fn audit_member(row: &AuditRow) -> Result<Vec<u8>, StoreError> {
    let mut member = format!("{:020}", row.number).into_bytes();
    serde_json::to_writer(&mut member, &row.entry).map_err(|error| damaged("audit entry", error))?;
    Ok(member)
}

/// A record as it is stored.
pub(super) fn stored(record: &Record) -> Vec<u8> {
    let mut stored = format!("{} ", record.version).into_bytes();
    stored.extend_from_slice(&record.value);
    stored
}

/// Reads a record: its version, a blank, its value.
pub(super) fn read(id: &str, stored: &[u8]) -> Result<Record, StoreError> {
    let blank = stored.iter().position(|byte| *byte == b' ');
    let (version, value) = blank
        .and_then(|blank| Some((std::str::from_utf8(&stored[..blank]).ok()?, &stored[blank + 1..])))
        .ok_or_else(|| damaged("record", "it has no version"))?;
    let version = version.parse().map_err(|error| damaged("record", error))?;
    Ok(Record { id: id.to_owned(), version, value: value.to_vec() })
}

fn damaged(what: &'static str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    StoreError::Damaged { what, source: source.into() }
}
