//! Slows down whoever guesses keys: a bounded count of failed attempts for each client address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use shared::domain::Timestamp;

/// Addresses remembered at once. When there are more, the oldest windows go first.
const ADDRESSES_MAX: usize = 10_000;

/// Failed attempts by address.
pub struct Throttle {
    failures: Mutex<HashMap<IpAddr, (u32, Timestamp), ahash::RandomState>>,
    failures_max: u32,
    window: Duration,
}

/// An attempt was one too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// When the window ends.
    pub retry_at: Timestamp,
    /// It is the first in its window.
    pub is_first: bool,
}

impl Throttle {
    /// Allows `failures_max` failed attempts in each window.
    pub fn new(failures_max: u32, window: Duration) -> Self {
        Self { failures: Mutex::default(), failures_max, window }
    }

    /// Counts a failed attempt; gives the refusal if it was one too many.
    pub fn failed(&self, address: IpAddr, now: Timestamp) -> Option<Refusal> {
        let address = block(address);
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= ADDRESSES_MAX && !failures.contains_key(&address) {
            failures.retain(|_, (_, since)| now.since(*since) < self.window);
            if failures.len() >= ADDRESSES_MAX {
                let oldest =
                    failures.iter().min_by_key(|(_, (_, since))| *since).map(|(address, _)| *address);
                oldest.map(|address| failures.remove(&address));
            }
        }
        let (count, since) = failures.entry(address).or_insert((0, now));
        if now.since(*since) >= self.window {
            (*count, *since) = (0, now);
        }
        *count = count.saturating_add(1);
        let is_first = *count == self.failures_max.saturating_add(1);
        (*count > self.failures_max).then(|| Refusal { retry_at: since.after(self.window), is_first })
    }
}

/// A whole IPv6 /64 is one client: whoever has one address of it has them all.
fn block(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    #[test]
    fn attempts_beyond_the_limit_wait_for_the_windows_end() {
        let throttle = Throttle::new(2, Duration::from_secs(60));
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        assert_eq!(throttle.failed(address, at(0)), None);
        assert_eq!(throttle.failed(address, at(10)), None);
        for (seconds, is_first) in [(20, true), (30, false)] {
            let refusal = Refusal { retry_at: at(60), is_first };
            assert_eq!(throttle.failed(address, at(seconds)), Some(refusal));
        }
        assert_eq!(throttle.failed("192.0.2.2".parse().unwrap(), at(20)), None);
        assert_eq!(throttle.failed(address, at(60)), None);
    }

    #[test]
    fn one_network_of_ipv6_is_one_client_and_mapped_addresses_are_ipv4() {
        let throttle = Throttle::new(1, Duration::from_secs(60));
        assert_eq!(throttle.failed("2001:db8::1".parse().unwrap(), at(0)), None);
        assert!(throttle.failed("2001:db8::2".parse().unwrap(), at(0)).is_some());
        assert_eq!(throttle.failed("192.0.2.1".parse().unwrap(), at(0)), None);
        assert!(throttle.failed("::ffff:192.0.2.1".parse().unwrap(), at(0)).is_some());
    }

    #[test]
    fn memory_is_bounded() {
        let throttle = Throttle::new(1, Duration::from_secs(60));
        for number in 0..u32::try_from(ADDRESSES_MAX + 100).unwrap() {
            throttle.failed(IpAddr::V4(number.into()), at(0));
        }
        assert!(throttle.failures.lock().unwrap().len() <= ADDRESSES_MAX);
    }
}
