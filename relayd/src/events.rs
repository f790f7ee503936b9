//! What happened that an operator wants to hear of. The latest are kept in memory; older ones make way.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use shared::admin::BudgetEvent;

const KEPT_MAX: usize = 1_000;

/// The latest events.
#[derive(Default)]
pub struct Events(Mutex<VecDeque<BudgetEvent>>);

impl Events {
    /// Adds one.
    pub fn add(&self, event: BudgetEvent) {
        let mut events = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if events.len() == KEPT_MAX {
            events.pop_front();
        }
        events.push_back(event);
    }

    /// The latest, newest first.
    pub fn latest(&self, limit: usize) -> Vec<BudgetEvent> {
        let events = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        events.iter().rev().take(limit).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use shared::domain::Timestamp;

    use super::*;

    #[test]
    fn the_latest_are_kept() {
        let events = Events::default();
        for number in 0..1_500 {
            events.add(BudgetEvent {
                at: Timestamp::from_millis(number),
                holder: "all".to_owned(),
                id: None,
                name: String::new(),
                limit: "1 request per day".parse().unwrap(),
                percent: 50,
                used: 1,
                resets_at: None,
            });
        }
        let times = |limit| events.latest(limit).iter().map(|event| event.at.as_millis()).collect::<Vec<_>>();
        assert_eq!(times(2), [1_499, 1_498]);
        assert_eq!(times(9_999).last(), Some(&500));
    }
}
