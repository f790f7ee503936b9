//! The words in which rules and counters meet: plain values. What a rule counts as is said by `limits`, how much
//! has been counted by the store.

use std::time::Duration;

use shared::domain::Timestamp;
use shared::domain::limit::Metric;

/// How a counter's window is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WindowRule {
    /// No window: only what is held now counts. Such an amount is a lease; it is released, never booked.
    Now,
    /// A window of this length begins with the first use after the last one ended.
    Fixed(Duration),
    /// One window, from the first use on.
    Lifetime,
}

/// Names a counter within its group. Its limit may change without a new counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CounterId {
    /// What is counted.
    pub metric: Metric,
    /// Over which window.
    pub window: WindowRule,
}

/// What a call asks of one counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CounterAsk {
    /// The counter.
    pub counter: CounterId,
    /// How much the call may need.
    pub amount: u64,
    /// What booked and held amounts may come to.
    pub limit: u64,
}

/// Where a counter stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Booked in the current window.
    pub booked: u64,
    /// Held by open calls in the current window.
    pub held: u64,
    /// When the current window ends; `None` if none runs or it has no end.
    pub resets_at: Option<Timestamp>,
}
