//! How long models' recent answers were, on average: what the next call is expected to come to. Kept in memory and
//! learnt anew after a start.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

const SHARDS: usize = 8;
/// Clients name what they want; so many names are remembered in each shard.
const SHARD_MAX: usize = 256;
/// A new answer counts for one part in so many.
const WEIGHT: u64 = 16;
/// Averages are kept in parts of a token.
const PARTS: u64 = 256;

type Shard = HashMap<Box<str>, u64, ahash::RandomState>;

/// Average answer tokens by model.
#[derive(Default)]
pub struct Averages {
    shards: [Mutex<Shard>; SHARDS],
    hasher: ahash::RandomState,
}

impl Averages {
    /// The average of a model's recent answers, if it gave any.
    pub fn output_tokens(&self, model: &str) -> Option<u64> {
        self.shard(model).get(model).map(|parts| parts.div_ceil(PARTS))
    }

    /// Takes note of an answer.
    pub fn note(&self, model: &str, output_tokens: u64) {
        let parts = output_tokens.saturating_mul(PARTS);
        let mut shard = self.shard(model);
        if let Some(average) = shard.get_mut(model) {
            // Rounded towards the new value, so that a steady length is reached.
            *average = if parts > *average {
                *average + (parts - *average).div_ceil(WEIGHT)
            } else {
                *average - (*average - parts).div_ceil(WEIGHT)
            };
        } else if shard.len() < SHARD_MAX {
            shard.insert(model.into(), parts);
        }
    }

    fn shard(&self, model: &str) -> MutexGuard<'_, Shard> {
        let index = usize::try_from(self.hasher.hash_one(model) % SHARDS as u64).unwrap_or_default();
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_average_follows_what_it_is_told() {
        let averages = Averages::default();
        assert_eq!(averages.output_tokens("m"), None);
        averages.note("m", 100);
        assert_eq!(averages.output_tokens("m"), Some(100));
        averages.note("m", 100);
        assert_eq!(averages.output_tokens("m"), Some(100));
        averages.note("m", 1_700);
        assert_eq!(averages.output_tokens("m"), Some(200));
        (0..500).for_each(|_| averages.note("m", 7));
        assert_eq!(averages.output_tokens("m"), Some(7));
        averages.note("m", u64::MAX);
        assert_eq!(averages.output_tokens("other"), None);
    }

    #[test]
    fn names_that_clients_make_up_take_no_more_than_their_room() {
        let averages = Averages::default();
        (0..10_000).for_each(|number| averages.note(&format!("model-{number}"), number));
        let kept: usize = averages.shards.iter().map(|shard| shard.lock().unwrap().len()).sum();
        assert!(kept <= SHARDS * SHARD_MAX, "{kept}");
    }
}
