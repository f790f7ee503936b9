//! The only reader of the system clock. Wall time never steps back within the process, so that windows and
//! expiries that are compared on reading keep their order when the machine's clock is set.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use shared::domain::Timestamp;

/// Tells the time; clones share one memory of the latest time told.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    latest_millis: Arc<AtomicI64>,
}

impl Clock {
    /// Makes a clock. A process needs one: clocks made apart do not keep each other from stepping back.
    pub fn new() -> Self {
        Self::default()
    }

    /// The wall time, never earlier than any time told before.
    pub fn now(&self) -> Timestamp {
        self.advance_to(system_millis())
    }

    fn advance_to(&self, millis: i64) -> Timestamp {
        let before = self.latest_millis.fetch_max(millis, Ordering::Relaxed);
        Timestamp::from_millis(before.max(millis))
    }
}

/// A clock set before 1970 reads as 1970.
fn system_millis() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_steps_back() {
        let clock = Clock::new();
        assert_eq!(clock.advance_to(1_000).as_millis(), 1_000);
        assert_eq!(clock.clone().advance_to(400).as_millis(), 1_000);
        assert_eq!(clock.advance_to(1_001).as_millis(), 1_001);
    }

    #[test]
    fn the_system_time_is_told() {
        let clock = Clock::new();
        let first = clock.now();
        assert!(first.as_millis() > 1_700_000_000_000);
        assert!(clock.now() >= first);
    }
}
