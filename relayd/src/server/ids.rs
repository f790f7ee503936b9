//! Request ids: unique, in the order of time, and made without asking the system for random bytes each time.

use std::sync::atomic::{AtomicU64, Ordering};

use shared::crypto::{self, CryptoError};
use shared::domain::{RequestId, Timestamp};

/// Makes the ids of one process: behind the time come 40 random bits of the process and a counter.
pub struct RequestIds {
    process: [u8; 5],
    next: AtomicU64,
}

impl RequestIds {
    /// Draws the random bits.
    pub fn new() -> Result<Self, CryptoError> {
        Ok(Self { process: crypto::random()?, next: AtomicU64::new(0) })
    }

    /// The next id. The counter comes round after a million million ids, by when the time has moved on.
    pub fn next(&self, now: Timestamp) -> RequestId {
        let [.., a, b, c, d, e] = self.next.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let [v, w, x, y, z] = self.process;
        RequestId::new(now, [v, w, x, y, z, a, b, c, d, e])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_and_keep_the_order_of_time() {
        let (one, other) = (RequestIds::new().unwrap(), RequestIds::new().unwrap());
        let now = Timestamp::from_millis(1_795_000_000_000);
        let ids = [one.next(now), one.next(now), one.next(Timestamp::from_millis(1_795_000_000_001))];
        assert!(ids.is_sorted() && ids[0] != ids[1] && ids[1] != ids[2]);
        assert!(!ids.contains(&other.next(now)));
    }
}
