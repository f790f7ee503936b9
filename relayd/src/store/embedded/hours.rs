//! In which hours a key or an account has rows.

use std::collections::HashSet;

use ahash::RandomState;
use redb::{ReadTransaction, TableDefinition, WriteTransaction};
use shared::domain::Timestamp;

use crate::store::id_span::{IdSpan, hour_of};
use crate::store::{Closed, RowQuery, StoreError};

/// Kind and id, hour; nothing.
const HOURS: TableDefinition<'_, (&str, i64), ()> = TableDefinition::new("hours");

/// Whose rows: the letter `k` or `a`, then the id of a key or an account.
pub(super) struct Subject(String);

impl Subject {
    /// Whom the query narrows the rows to; a single row needs no looking for.
    pub(super) fn of(query: &RowQuery) -> Option<Self> {
        let key = query.key.as_ref().map(|key| format!("k{key}"));
        let subject = key.or_else(|| query.account.as_ref().map(|account| format!("a{account}")));
        subject.filter(|_| query.id.is_none()).map(Self)
    }
}

pub(super) fn create(transaction: &WriteTransaction) -> Result<(), StoreError> {
    transaction.open_table(HOURS)?;
    Ok(())
}

/// Notes the hours of new rows.
pub(super) fn add(transaction: &WriteTransaction, rows: &[&Closed]) -> Result<(), StoreError> {
    let mut seen: HashSet<_, RandomState> = HashSet::default();
    for closed in rows {
        let hour = hour_of(closed.request.as_u128()).as_millis();
        seen.insert(('k', closed.key.as_str(), hour));
        seen.extend(closed.account.iter().map(|account| ('a', account.as_str(), hour)));
    }
    let mut table = transaction.open_table(HOURS)?;
    for (kind, id, hour) in seen {
        table.insert((format!("{kind}{id}").as_str(), hour), ())?;
    }
    Ok(())
}

/// The subject's hours that the span touches.
pub(super) fn newest_first(
    transaction: &ReadTransaction,
    subject: &Subject,
    span: IdSpan,
) -> Result<impl Iterator<Item = Result<Timestamp, StoreError>>, StoreError> {
    let (first, last) = span.hours();
    let (first, last) = (first.as_millis(), last.as_millis());
    let subject = subject.0.as_str();
    let range = transaction.open_table(HOURS)?.range((subject, first)..=(subject, last))?;
    Ok(range.rev().map(|row| Ok(Timestamp::from_millis(row?.0.value().1))))
}

/// Some of the hours that ended before a time, with whose they are. A subject's hours lie together, the oldest first:
/// those that stay are stepped over.
pub(super) fn some_before(
    transaction: &ReadTransaction,
    time: Timestamp,
    at_most: usize,
) -> Result<Vec<(String, i64)>, StoreError> {
    let first_kept = time.hour().as_millis();
    let table = transaction.open_table(HOURS)?;
    let subject_from = |subject: &str, hour| -> Result<Option<String>, StoreError> {
        let first = table.range((subject, hour)..)?.next().transpose()?;
        Ok(first.map(|(place, _)| place.value().0.to_owned()))
    };
    let mut found = Vec::new();
    let mut next = subject_from("", i64::MIN)?;
    while let Some(subject) = next.take().filter(|_| found.len() < at_most) {
        let ended = (subject.as_str(), i64::MIN)..(subject.as_str(), first_kept);
        for row in table.range(ended)?.take(at_most - found.len()) {
            found.push((subject.clone(), row?.0.value().1));
        }
        next = subject_from(&subject, i64::MAX)?;
    }
    Ok(found)
}

/// Forgets hours.
pub(super) fn forget(transaction: &WriteTransaction, hours: &[(String, i64)]) -> Result<(), StoreError> {
    let mut table = transaction.open_table(HOURS)?;
    for (subject, hour) in hours {
        table.remove((subject.as_str(), *hour))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::database::DatabaseFile;
    use super::*;
    use crate::store::contract::Folder;

    const HOUR_MS: i64 = 3_600_000;

    #[test]
    fn hours_are_forgotten_in_parts_and_only_the_old_ones() {
        let folder = Folder::new();
        let file = DatabaseFile::open(folder.path().join("hours.redb"), 1 << 20).unwrap();
        let all =
            ["a1", "k1", "k2"].map(|subject| (0..5).map(move |hour| (subject.to_owned(), hour * HOUR_MS)));
        let fill = |transaction: &WriteTransaction| {
            let mut table = transaction.open_table(HOURS)?;
            for (subject, hour) in all.into_iter().flatten() {
                table.insert((subject.as_str(), hour), ())?;
            }
            Ok(())
        };
        file.write(fill).unwrap();
        let time = Timestamp::from_millis(3 * HOUR_MS + 1);
        let mut parts = Vec::new();
        loop {
            let part = file.read(|transaction| some_before(transaction, time, 4)).unwrap();
            if part.is_empty() {
                break;
            }
            file.write(|transaction| forget(transaction, &part)).unwrap();
            parts.push(part.len());
        }
        assert_eq!(parts, [4, 4, 1]);
        let left =
            file.read(|transaction| some_before(transaction, Timestamp::from_millis(i64::MAX), 99)).unwrap();
        let left: Vec<_> = left.iter().map(|(subject, hour)| (subject.as_str(), hour / HOUR_MS)).collect();
        assert_eq!(left, [("a1", 3), ("a1", 4), ("k1", 3), ("k1", 4), ("k2", 3), ("k2", 4)]);
    }
}
