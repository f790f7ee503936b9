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

/// Forgets the hours that ended before a time.
pub(super) fn drop_before(transaction: &WriteTransaction, time: Timestamp) -> Result<(), StoreError> {
    let first_kept = time.hour().as_millis();
    transaction.open_table(HOURS)?.retain(|(_, hour), ()| hour >= first_kept)?;
    Ok(())
}
