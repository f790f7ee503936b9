//! Hourly sums: added up in memory for a batch, then added to the table.

use std::collections::HashMap;

use ahash::RandomState;
use minicbor::bytes::ByteArray;
use minicbor::{Decode, Encode, Encoder};
use redb::{
    AccessGuard, ReadOnlyTable, ReadTransaction, ReadableTable, ReadableTableMetadata, TableDefinition,
    WriteTransaction,
};
use shared::domain::{AccountId, KeyId, Provenance, Timestamp, Usage};

use super::database::{damaged, encode};
use crate::store::cbor::Appender;
use crate::store::{Closed, Rollup, RollupKey, RollupQuery, StoreError};

/// Hour; key, account and model as CBOR. The value is a [`SumRecord`] as CBOR.
const ROLLUPS: TableDefinition<'_, (i64, &[u8]), &[u8]> = TableDefinition::new("rollups");

type BorrowedKey<'a> = (Timestamp, Option<&'a KeyId>, Option<&'a AccountId>, &'a str);

/// What a batch adds.
pub(super) struct Sums<'a>(HashMap<BorrowedKey<'a>, Rollup, RandomState>);

impl<'a> Sums<'a> {
    pub(super) fn over(rows: &[&'a Closed]) -> Self {
        let mut sums: HashMap<BorrowedKey<'a>, Rollup, RandomState> = HashMap::default();
        for closed in rows {
            let hour = closed.hour;
            let model = closed.priced_model.as_ref().unwrap_or(&closed.model);
            let key = (hour, Some(&closed.key), closed.account.as_ref(), model.as_str());
            sums.entry(key).or_default().add(closed);
            for attempt in &closed.given_up {
                let key = (hour, None, Some(&attempt.account), attempt.model.as_str());
                sums.entry(key).or_default().add_given_up(attempt);
            }
        }
        Self(sums)
    }

    pub(super) fn add(self, transaction: &WriteTransaction) -> Result<(), StoreError> {
        let mut table = transaction.open_table(ROLLUPS)?;
        let (mut key, mut value) = (Vec::new(), Vec::new());
        for ((hour, api_key, account, model), mut sum) in self.0 {
            encode(&mut key, &(api_key, account, model))?;
            let place = (hour.as_millis(), key.as_slice());
            if let Some(stored) = table.get(place)? {
                sum += &decode(stored.value())?;
            }
            encode(&mut value, &SumRecord::from(&sum))?;
            table.insert(place, value.as_slice())?;
        }
        Ok(())
    }
}

/// Puts sums in the places of those that are stored; one without any call goes.
pub(super) fn put(transaction: &WriteTransaction, sums: &[(RollupKey, Rollup)]) -> Result<(), StoreError> {
    let mut table = transaction.open_table(ROLLUPS)?;
    let (mut key, mut value) = (Vec::new(), Vec::new());
    for (place, sum) in sums {
        encode(&mut key, &(&place.key, &place.account, &place.model))?;
        let place = (place.hour.as_millis(), key.as_slice());
        if sum.requests == 0 {
            table.remove(place)?;
            continue;
        }
        encode(&mut value, &SumRecord::from(sum))?;
        table.insert(place, value.as_slice())?;
    }
    Ok(())
}

/// The first hour and the last that have sums.
pub(super) fn hours(transaction: &WriteTransaction) -> Result<Option<(Timestamp, Timestamp)>, StoreError> {
    let table = transaction.open_table(ROLLUPS)?;
    let first = table.first()?.map(|(place, _)| Timestamp::from_millis(place.value().0));
    let last = table.last()?.map(|(place, _)| Timestamp::from_millis(place.value().0));
    Ok(first.zip(last))
}

pub(super) fn create(transaction: &WriteTransaction) -> Result<(), StoreError> {
    transaction.open_table(ROLLUPS)?;
    Ok(())
}

/// Sums with `since <= hour < until`, in the order of their keys.
pub(super) fn read(
    transaction: &ReadTransaction,
    query: &RollupQuery,
) -> Result<Vec<(RollupKey, Rollup)>, StoreError> {
    let since = query.since.map_or(i64::MIN, Timestamp::as_millis);
    let until = query.until.map_or(i64::MAX, Timestamp::as_millis);
    if since >= until {
        return Ok(Vec::new());
    }
    let table = transaction.open_table(ROLLUPS)?;
    let mut sums = match &query.key {
        Some(key) => of_key(&table, key, (since, until))?,
        None => {
            let none: &[u8] = &[];
            let rows = table.range((since, none)..(until, none))?;
            rows.map(|row| sum(&row?)).collect::<Result<_, StoreError>>()?
        }
    };
    if query.account.is_some() {
        sums.retain(|(key, _)| key.account == query.account);
    }
    sums.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    Ok(sums)
}

type Table = ReadOnlyTable<(i64, &'static [u8]), &'static [u8]>;
type Row = (AccessGuard<'static, (i64, &'static [u8])>, AccessGuard<'static, &'static [u8]>);

fn sum((place, value): &Row) -> Result<(RollupKey, Rollup), StoreError> {
    let (hour, key) = place.value();
    let (key, account, model) = minicbor::decode(key).map_err(|error| damaged("key of a rollup", error))?;
    Ok((RollupKey { hour: Timestamp::from_millis(hour), key, account, model }, decode(value.value())?))
}

/// The sums of one key, which lie together within each hour: from there, the next hour is looked up, and what other keys
/// have is not read. One key may be one of thousands.
fn of_key(
    table: &Table,
    key: &KeyId,
    (since, until): (i64, i64),
) -> Result<Vec<(RollupKey, Rollup)>, StoreError> {
    let (mut sums, mut prefix) = (Vec::new(), Vec::new());
    let encoded = Encoder::new(Appender(&mut prefix)).array(3).and_then(|array| array.encode(key)).map(drop);
    encoded.map_err(|error| damaged("key to be read", error))?;
    let none: &[u8] = &[];
    let mut next = Some(since);
    while let Some(hour) = next.take() {
        for row in table.range((hour, prefix.as_slice())..(until, none))? {
            let row = row?;
            let (found, place) = row.0.value();
            if found != hour || !place.starts_with(&prefix) {
                next = Some(found.max(hour.saturating_add(1)));
                break;
            }
            sums.push(sum(&row)?);
        }
    }
    Ok(sums)
}

/// Sums, and the hour in which they go on.
pub(super) type Page = (Vec<(RollupKey, Rollup)>, Option<Timestamp>);

/// Whole hours of sums from one on, at least so many if there are, and the hour in which it goes on.
pub(super) fn page(
    transaction: &ReadTransaction,
    since: Option<Timestamp>,
    count: usize,
) -> Result<Page, StoreError> {
    let none: &[u8] = &[];
    let since = since.map_or(i64::MIN, Timestamp::as_millis);
    let mut sums: Vec<(RollupKey, Rollup)> = Vec::new();
    for row in transaction.open_table(ROLLUPS)?.range((since, none)..)? {
        let (key, found) = sum(&row?)?;
        if sums.len() >= count && sums.last().is_some_and(|(last, _)| last.hour < key.hour) {
            return Ok((sums, Some(key.hour)));
        }
        sums.push((key, found));
    }
    Ok((sums, None))
}

pub(super) fn count(transaction: &ReadTransaction) -> Result<u64, StoreError> {
    Ok(transaction.open_table(ROLLUPS)?.len()?)
}

pub(super) fn drop_before(transaction: &WriteTransaction, time: Timestamp) -> Result<(), StoreError> {
    let none: &[u8] = &[];
    let mut table = transaction.open_table(ROLLUPS)?;
    table.retain_in(..(time.as_millis(), none), |_, _| false)?;
    Ok(())
}

/// A sum as it is stored. CBOR map; unknown keys are skipped.
#[derive(Encode, Decode)]
#[cbor(map)]
struct SumRecord {
    #[n(0)]
    requests: u64,
    #[n(1)]
    failed: u64,
    #[n(2)]
    unpriced: u64,
    #[n(3)]
    usage: Usage,
    /// Nano-dollars, most significant byte first: CBOR has no integers of this size.
    #[n(4)]
    cost: ByteArray<16>,
    /// In the order of [`Provenance::ALL`], which only grows at its end.
    #[n(5)]
    provenance: Vec<u64>,
    /// Like the cost.
    #[n(6)]
    rated: ByteArray<16>,
}

impl From<&Rollup> for SumRecord {
    fn from(sum: &Rollup) -> Self {
        Self {
            requests: sum.requests,
            failed: sum.failed,
            unpriced: sum.unpriced,
            usage: sum.usage,
            cost: sum.cost_nanos.to_be_bytes().into(),
            provenance: sum.provenance.to_vec(),
            rated: sum.rated_nanos.to_be_bytes().into(),
        }
    }
}

fn decode(value: &[u8]) -> Result<Rollup, StoreError> {
    let record: SumRecord = minicbor::decode(value).map_err(|error| damaged("rollup", error))?;
    let mut provenance = [0; Provenance::ALL.len()];
    for (calls, stored) in provenance.iter_mut().zip(record.provenance) {
        *calls = stored;
    }
    Ok(Rollup {
        requests: record.requests,
        failed: record.failed,
        unpriced: record.unpriced,
        usage: record.usage,
        cost_nanos: i128::from_be_bytes(record.cost.into()),
        rated_nanos: i128::from_be_bytes(record.rated.into()),
        provenance,
    })
}

#[cfg(test)]
mod tests {
    use super::super::database::DatabaseFile;
    use super::*;
    use crate::store::contract::Folder;

    /// Whoever asks for the sums of one key must not be stopped, or held up, by what lies between them.
    #[test]
    fn the_sums_of_one_key_are_read_without_the_others() {
        let folder = Folder::new();
        let file = DatabaseFile::open(folder.path().join("sums.redb"), 1 << 20).unwrap();
        let place = |key: &str, model: &str| {
            let mut place = Vec::new();
            encode(&mut place, &(Some(KeyId::from(key)), None::<AccountId>, model)).unwrap();
            place
        };
        let mut value = Vec::new();
        encode(&mut value, &SumRecord::from(&Rollup { requests: 1, ..Rollup::default() })).unwrap();
        let fill = |transaction: &WriteTransaction| {
            let mut table = transaction.open_table(ROLLUPS)?;
            for (hour, key, model) in [
                (0, "key_b", "damaged"),
                (1, "key_a", "damaged"),
                (1, "key_b", "m"),
                (1, "key_b", "n"),
                (1, "key_bb", "damaged"),
                (2, "key_c", "damaged"),
                (5, "key_a", "damaged"),
                (6, "key_b", "m"),
                (7, "key_b", "damaged"),
            ] {
                let mut place = place(key, model);
                if model == "damaged" {
                    place.pop();
                }
                table.insert((hour, place.as_slice()), value.as_slice())?;
            }
            Ok(())
        };
        file.write(fill).unwrap();
        let query = |since, until| RollupQuery {
            since: Some(Timestamp::from_millis(since)),
            until: Some(Timestamp::from_millis(until)),
            key: Some(KeyId::from("key_b")),
            account: None,
        };
        let hours = |query: &RollupQuery| {
            let sums = file.read(|transaction| read(transaction, query)).unwrap();
            sums.into_iter().map(|(key, _)| (key.hour.as_millis(), key.model)).collect::<Vec<_>>()
        };
        let expected = [(1, "m"), (1, "n"), (6, "m")].map(|(hour, model)| (hour, model.to_owned()));
        assert_eq!(hours(&query(1, 7)), expected);
        assert_eq!(hours(&query(2, 6)), []);
        let nobody = RollupQuery { key: Some(KeyId::from("nobody")), ..RollupQuery::default() };
        assert_eq!(hours(&nobody), []);
    }
}
