//! Changes in the files of a daemon that has ended.

use std::ops::Range;
use std::path::Path;

use minicbor::Decoder;
use redb::{Database, Key, ReadableTable, TableDefinition, Value};

/// Name; a map with the counters at 0.
const GROUPS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("groups");
/// Hour and key; a map with the cost at 4.
const ROLLUPS: TableDefinition<'_, (i64, &[u8]), &[u8]> = TableDefinition::new("rollups");
/// Request id; the row.
const ROWS: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("rows");

const DAY_MS: u128 = 86_400_000;

fn change<K: Key + 'static, V: Value + 'static>(
    data: &Path,
    file: &str,
    table: TableDefinition<'_, K, V>,
    change: impl FnOnce(&mut redb::Table<'_, K, V>),
) {
    let database = Database::open(data.join("store").join(file)).unwrap();
    let transaction = database.begin_write().unwrap();
    change(&mut transaction.open_table(table).unwrap());
    transaction.commit().unwrap();
}

/// Where in a map of CBOR the value of a key lies.
fn place(decoder: &mut Decoder<'_>, key: u8) -> Option<Range<usize>> {
    let mut found = None;
    for _ in 0..decoder.map().unwrap().unwrap() {
        let is_it = decoder.u8().unwrap() == key;
        let start = decoder.position();
        decoder.skip().unwrap();
        if is_it {
            found = Some(start..decoder.position());
        }
    }
    found
}

/// Sets what is booked in a counter.
pub fn counter(data: &Path, group: &str, name: &str, booked: u64) {
    change(data, "state.redb", GROUPS, |groups| {
        let mut value = groups.get(group).unwrap().expect("no such group").value().to_vec();
        let counters = place(&mut Decoder::new(&value), 0).unwrap();
        let mut decoder = Decoder::new(&value);
        decoder.set_position(counters.start);
        let number = decoder.array().unwrap().unwrap();
        let found = (0..number).find_map(|_| {
            let start = decoder.position();
            let amount = place(&mut decoder, 2).unwrap();
            let mut again = Decoder::new(&value);
            again.set_position(start);
            let named = place(&mut again, 0).unwrap();
            (Decoder::new(&value[named]).str().unwrap() == name).then_some(amount)
        });
        value.splice(found.expect("no such counter"), minicbor::to_vec(booked).unwrap());
        groups.insert(group, value.as_slice()).unwrap();
    });
}

/// Makes everything that was ever called free of charge, in the sums alone.
pub fn costs_of_sums(data: &Path) {
    change(data, "ledger.redb", ROLLUPS, |sums| {
        let all: Vec<_> = sums
            .iter()
            .unwrap()
            .map(|sum| sum.unwrap())
            .map(|(key, value)| (key.value().0, key.value().1.to_vec(), value.value().to_vec()))
            .collect();
        assert!(!all.is_empty(), "there are no sums");
        for (hour, key, mut value) in all {
            let cost = place(&mut Decoder::new(&value), 4).unwrap();
            // A head of one byte, then sixteen of the amount.
            value[cost][1..].fill(0);
            sums.insert((hour, key.as_slice()), value.as_slice()).unwrap();
        }
    });
}

/// Makes some of the rows older by so many days.
pub fn age_rows(data: &Path, number: usize, days: u128) {
    change(data, "ledger.redb", ROWS, |rows| {
        let all = rows.iter().unwrap().map(|row| row.unwrap());
        let some: Vec<_> = all.map(|(id, row)| (id.value(), row.value().to_vec())).take(number).collect();
        assert_eq!(some.len(), number);
        for (id, row) in some {
            rows.remove(id).unwrap();
            // An id begins with the time of its making.
            rows.insert(id - ((days * DAY_MS) << 80), row.as_slice()).unwrap();
        }
    });
}
