//! Hourly sums as the server keeps them: what they are kept by as CBOR, figures as integers of eight bytes, because
//! scripts add those up without knowing more of them than where money is.

use std::collections::HashMap;

use ahash::RandomState;
use shared::domain::usage::UsageClass;
use shared::domain::{AccountId, KeyId, Provenance, Timestamp, Usage};

use crate::store::{Closed, Rollup, RollupKey, StoreError};

/// Money is kept in two integers: this many bits in the lower one.
const LOW_BITS: u32 = 40;
const LOW_MASK: i128 = (1 << LOW_BITS) - 1;
/// Places for provenance; those of usage follow, and may become more.
const PROVENANCES: usize = 8;
const FIRST_PROVENANCE: usize = 7;
const FIRST_CLASS: usize = FIRST_PROVENANCE + PROVENANCES;

/// What ended requests add to the sums of their hour: fields and figures.
pub(super) fn of<'a>(rows: impl IntoIterator<Item = &'a Closed>) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
    let mut sums: HashMap<Vec<u8>, Rollup, RandomState> = HashMap::default();
    for closed in rows {
        let model = closed.priced_model.as_ref().unwrap_or(&closed.model);
        let of_call = field(Some(&closed.key), closed.account.as_ref(), model);
        sums.entry(of_call).or_default().add(closed);
        for attempt in &closed.given_up {
            let of_attempt = field(None, Some(&attempt.account), &attempt.model);
            sums.entry(of_attempt).or_default().add_given_up(attempt);
        }
    }
    sums.into_iter().map(|(field, sum)| (field, figures(&sum)))
}

/// A sum as it is stored: its field and its figures.
pub(super) fn stored(key: &RollupKey, sum: &Rollup) -> (Vec<u8>, Vec<u8>) {
    (field(key.key.as_ref(), key.account.as_ref(), &key.model), figures(sum))
}

/// Reads a sum.
pub(super) fn read(hour: Timestamp, field: &[u8], figures: &[u8]) -> Result<(RollupKey, Rollup), StoreError> {
    let damaged = |error: minicbor::decode::Error| StoreError::Damaged {
        what: "key of a rollup",
        source: Box::new(error),
    };
    let (key, account, model): (Option<KeyId>, Option<AccountId>, String) =
        minicbor::decode(field).map_err(damaged)?;
    Ok((RollupKey { hour, key, account, model }, rollup(figures)))
}

fn field(key: Option<&KeyId>, account: Option<&AccountId>, model: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Memory takes all.
    drop(minicbor::encode((key, account, model), &mut bytes));
    bytes
}

fn figures(sum: &Rollup) -> Vec<u8> {
    let counted = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let [cost, rated] = [sum.cost_nanos, sum.rated_nanos].map(|nanos| {
        let [high, low] = [nanos >> LOW_BITS, nanos & LOW_MASK];
        [high, low].map(|half| i64::try_from(half).unwrap_or(i64::MAX))
    });
    let mut numbers = vec![counted(sum.requests), counted(sum.failed), counted(sum.unpriced)];
    numbers.extend(cost.into_iter().chain(rated));
    numbers.extend(sum.provenance.iter().map(|calls| counted(*calls)));
    numbers.resize(FIRST_CLASS, 0);
    numbers.extend(UsageClass::ALL.iter().map(|class| counted(sum.usage[*class])));
    numbers.into_iter().flat_map(i64::to_be_bytes).collect()
}

/// What is missing at the end is nothing: an older version wrote it.
fn rollup(figures: &[u8]) -> Rollup {
    let (numbers, _) = figures.as_chunks();
    let number = |place: usize| numbers.get(place).copied().map_or(0, i64::from_be_bytes);
    let counted = |place: usize| u64::try_from(number(place)).unwrap_or_default();
    let money = |place: usize| (i128::from(number(place)) << LOW_BITS) + i128::from(number(place + 1));
    let mut usage = Usage::default();
    for (place, class) in UsageClass::ALL.iter().enumerate() {
        usage[*class] = counted(FIRST_CLASS + place);
    }
    Rollup {
        requests: counted(0),
        failed: counted(1),
        unpriced: counted(2),
        usage,
        cost_nanos: money(3),
        rated_nanos: money(5),
        provenance: std::array::from_fn::<_, { Provenance::ALL.len() }, _>(|place| {
            counted(FIRST_PROVENANCE + place)
        }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn there_are_places_for_every_provenance() {
        assert!(Provenance::ALL.len() <= PROVENANCES);
    }

    proptest! {
        #[test]
        fn figures_come_back_as_they_went(
            requests in 0..u64::from(u32::MAX),
            cost in -(1_i128 << 90)..1_i128 << 90,
            rated: i64,
            output in 0..1_u64 << 53,
        ) {
            let mut sum = Rollup { requests, cost_nanos: cost, rated_nanos: rated.into(), ..Rollup::default() };
            sum.usage[UsageClass::Output] = output;
            sum.provenance[1] = requests;
            prop_assert_eq!(rollup(&figures(&sum)), sum);
        }

        #[test]
        fn nothing_that_is_stored_panics(bytes: Vec<u8>) {
            let _ = rollup(&bytes);
            let _ = read(Timestamp::from_millis(0), &bytes, &bytes);
        }
    }
}
