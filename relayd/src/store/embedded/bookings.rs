//! What the groups' counters have booked, in `state.redb`, and the marks up to which each lane is applied.

use std::collections::HashMap;
use std::ops::Bound;

use ahash::RandomState;
use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction};
use shared::domain::Timestamp;

use super::database::{damaged, encode};
use super::marks::{self, Marks};
use super::record::GroupRecord;
use crate::store::memory::CounterRecord;
use crate::store::{Booked, Booking, Entry, GroupId, GroupState, StoreError};

/// Name; [`GroupRecord`] as CBOR.
const GROUPS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("groups");

/// Groups with what they have booked.
pub(super) type Groups = HashMap<GroupId, GroupRecord, RandomState>;

pub(super) fn create(transaction: &WriteTransaction) -> Result<(), StoreError> {
    transaction.open_table(GROUPS)?;
    marks::create(transaction)
}

pub(super) fn groups(transaction: &ReadTransaction) -> Result<Vec<(GroupId, GroupRecord)>, StoreError> {
    let table = transaction.open_table(GROUPS)?;
    let mut groups = Vec::new();
    for row in table.iter()? {
        let (name, value) = row?;
        groups.push((name.value().into(), decode(value.value())?));
    }
    Ok(groups)
}

/// Books a batch in its groups and moves the marks. What the groups have is read in the same transaction, so
/// that it is right whatever became of an earlier one. Gives the groups that were touched, and the counters that
/// moved.
pub(super) fn book(
    transaction: &WriteTransaction,
    batch: &[Entry],
) -> Result<(Groups, Vec<Booked>), StoreError> {
    let mut lanes = Marks::read_to_change(transaction)?;
    let mut table = transaction.open_table(GROUPS)?;
    let (mut groups, mut before) = (Groups::default(), Groups::default());
    let mut last_end = Timestamp::default();
    for Entry { mark, closed, .. } in batch {
        lanes.pass(*mark);
        last_end = last_end.max(closed.closed_at);
        for group in groups_in(&closed.bookings) {
            let of_group = closed.bookings.iter().filter(|booking| booking.group == *group);
            if !groups.contains_key(group) {
                let record = stored(&table, group)?;
                before.insert(group.clone(), record.clone());
                groups.insert(group.clone(), record);
            }
            if let Some(record) = groups.get_mut(group) {
                record.book(*mark, of_group);
            }
        }
    }
    let mut value = Vec::new();
    for (group, record) in &mut groups {
        record.forget_ended(last_end);
        encode(&mut value, &*record)?;
        table.insert(group.as_str(), value.as_slice())?;
    }
    lanes.write(transaction)?;
    let moved = groups.iter().flat_map(|(group, after)| after.moved_from(before.get(group), group)).collect();
    Ok((groups, moved))
}

/// What is booked in the counters of these groups.
pub(super) fn counters(
    transaction: &ReadTransaction,
    groups: &[GroupId],
) -> Result<Vec<Booking>, StoreError> {
    let table = transaction.open_table(GROUPS)?;
    let mut counters = Vec::new();
    for group in groups {
        let record = stored(&table, group)?;
        counters.extend(record.counters.into_iter().map(|CounterRecord { counter, span, booked }| Booking {
            group: group.clone(),
            counter,
            span,
            amount: booked,
        }));
    }
    Ok(counters)
}

/// Sets counters that stand where they are said to stand. Gives their groups, and those that were set. A group that is
/// not there begins with what all groups have had: what was applied before shall not be booked in it again.
pub(super) fn correct(
    transaction: &WriteTransaction,
    counters: &[Booked],
) -> Result<(Groups, Vec<Booked>), StoreError> {
    let mut table = transaction.open_table(GROUPS)?;
    let (mut groups, mut moved) = (Groups::default(), Vec::new());
    for change in counters {
        if !groups.contains_key(&change.group) {
            let is_there = table.get(change.group.as_str())?.is_some();
            let record = match is_there {
                true => stored(&table, &change.group)?,
                false => GroupRecord::unused(Marks::read_to_change(transaction)?.all()),
            };
            groups.insert(change.group.clone(), record);
        }
        if groups.get_mut(&change.group).is_some_and(|record| record.correct(change)) {
            moved.push(change.clone());
        }
    }
    let mut value = Vec::new();
    for (group, record) in &groups {
        encode(&mut value, record)?;
        table.insert(group.as_str(), value.as_slice())?;
    }
    Ok((groups, moved))
}

/// Groups behind one, by name.
pub(super) fn groups_after(
    transaction: &ReadTransaction,
    after: Option<&GroupId>,
    count: usize,
) -> Result<Vec<GroupState>, StoreError> {
    let from = after.map_or(Bound::Unbounded, |group| Bound::Excluded(group.as_str()));
    let mut groups = Vec::new();
    for row in transaction.open_table(GROUPS)?.range::<&str>((from, Bound::Unbounded))?.take(count) {
        let (name, value) = row?;
        groups.push(decode(value.value())?.state(name.value().into()));
    }
    Ok(groups)
}

/// Those of these groups that there are.
pub(super) fn these_groups(
    transaction: &ReadTransaction,
    groups: &[GroupId],
) -> Result<Vec<GroupState>, StoreError> {
    let table = transaction.open_table(GROUPS)?;
    let mut found = Vec::new();
    for group in groups {
        if let Some(value) = table.get(group.as_str())? {
            found.push(decode(value.value())?.state(group.clone()));
        }
    }
    Ok(found)
}

/// Puts groups in the places of those that have their names.
pub(super) fn put(transaction: &WriteTransaction, groups: &[GroupState]) -> Result<(), StoreError> {
    let (mut table, mut value) = (transaction.open_table(GROUPS)?, Vec::new());
    for state in groups {
        encode(&mut value, &GroupRecord::of(state))?;
        table.insert(state.group.as_str(), value.as_slice())?;
    }
    Ok(())
}

pub(super) fn count(transaction: &ReadTransaction) -> Result<u64, StoreError> {
    Ok(transaction.open_table(GROUPS)?.len()?)
}

/// Every group once.
fn groups_in(bookings: &[Booking]) -> impl Iterator<Item = &GroupId> {
    let is_first = |place: usize| {
        let group = &bookings[place].group;
        !bookings[..place].iter().any(|earlier| earlier.group == *group)
    };
    (0..bookings.len()).filter(move |&place| is_first(place)).map(|place| &bookings[place].group)
}

fn stored(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
    group: &GroupId,
) -> Result<GroupRecord, StoreError> {
    let value = table.get(group.as_str())?;
    Ok(value.map(|value| decode(value.value())).transpose()?.unwrap_or_default())
}

fn decode(value: &[u8]) -> Result<GroupRecord, StoreError> {
    minicbor::decode(value).map_err(|error| damaged("group of counters", error))
}
