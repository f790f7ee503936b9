//! Many rows: sums of a month are there at once, however many calls they are of.

use std::time::{Duration, Instant};

use super::{Subject, at, closed, entry};
use crate::store::{Entry, RequestId, RollupQuery};

const HOUR_MS: i64 = 3_600_000;
const HOURS: usize = 30 * 24;
const KEYS: usize = 200;
const BATCH: usize = 4_000;

/// Rows of the normal run; `RELAYD_TEST_FULL=1` asks optimised code for a million, and for an answer in time.
fn rows() -> (usize, Duration) {
    let is_full = std::env::var_os("RELAYD_TEST_FULL").is_some_and(|value| value == "1");
    if is_full && !cfg!(debug_assertions) {
        (1_000_000, Duration::from_secs(1))
    } else {
        (10_000, Duration::from_secs(30))
    }
}

fn row(number: usize, rows: usize) -> Entry {
    let hour = at(i64::try_from(number * HOURS / rows).unwrap() * HOUR_MS);
    let key = number % KEYS;
    let mut digits = [0; 10];
    digits[2..].copy_from_slice(&(number as u64).to_be_bytes());
    let mut row = closed(RequestId::new(hour, digits), Vec::new());
    row.key = format!("key_{key}").as_str().into();
    row.account = Some(format!("acc_{}", key % 5).as_str().into());
    entry(0, number as u64 + 1, row)
}

pub(in crate::store) fn a_month_of_many_calls_is_summed_up_at_once(subject: &mut Subject) {
    let (rows, time_max) = rows();
    for first in (0..rows).step_by(BATCH) {
        let batch: Vec<Entry> = (first..rows.min(first + BATCH)).map(|number| row(number, rows)).collect();
        subject.apply(&batch);
    }
    let began = Instant::now();
    let query = RollupQuery { since: Some(at(0)), ..RollupQuery::default() };
    let sums = subject.wait(subject.store().rollups(query)).unwrap();
    let took = began.elapsed();
    assert_eq!(sums.iter().map(|(_, sum)| sum.requests).sum::<u64>(), rows as u64);
    assert!(took < time_max, "{} sums of {rows} rows took {took:?}", sums.len());
}
