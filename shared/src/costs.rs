//! The call that rebuilds costs and counters, and what it answers.

use serde::{Deserialize, Serialize};

use crate::domain::limit::Counted;
use crate::domain::{NanoUsd, Timestamp};
use crate::progress::LongCall;

/// By which prices costs are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PricesFrom {
    /// Those that each call was booked with.
    #[default]
    Booked,
    /// Those in force now.
    Today,
}

/// Computes costs, sums and counters anew from ledger rows and closing balances.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RebuildCosts {
    /// Only calls from this time on are priced, and only sums of hours from the one on that it lies in compared.
    pub since: Option<Timestamp>,
    /// The prices.
    pub prices: PricesFrom,
    /// Only say what would change.
    pub dry_run: bool,
}

impl LongCall for RebuildCosts {}

/// What differed.
#[derive(Debug, Serialize, Deserialize)]
pub struct CostsRebuilt {
    /// Whether it was put right.
    pub applied: bool,
    /// Calls that were read.
    pub calls: u64,
    /// Calls among them whose cost is another.
    pub repriced: u64,
    /// Calls among them whose model has no price now; they keep what they cost.
    pub without_price: u64,
    /// What the repriced calls cost.
    pub cost: AmountChange,
    /// What the keys' holders are charged for them.
    pub rated: AmountChange,
    /// The first hour whose sums could be compared; absent if all could.
    pub hours_from: Option<Timestamp>,
    /// Hourly sums that differed.
    pub hours: u64,
    /// These sums by key.
    pub sums: Vec<SumChange>,
    /// Counters that differed.
    pub counters: Vec<CounterChange>,
    /// Counters that differ and are left as they are, because rows do not go back to the beginning of their windows.
    pub left_alone: Vec<CounterChange>,
}

/// An amount before and after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AmountChange {
    /// Before.
    pub before: NanoUsd,
    /// After.
    pub after: NanoUsd,
}

/// A number before and after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountChange {
    /// Before.
    pub before: u64,
    /// After.
    pub after: u64,
}

/// Hourly sums of a key that differed, added up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SumChange {
    /// The key's id; absent for attempts that were given up.
    pub id: Option<String>,
    /// The key's name.
    pub name: String,
    /// Calls.
    pub requests: CountChange,
    /// What they cost.
    pub cost: AmountChange,
    /// What the key's holder is charged.
    pub rated: AmountChange,
}

/// A counter that differed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterChange {
    /// Whose it is: `key:ID`, `owner:NAME`, `account:ID` or `all`.
    pub group: String,
    /// The name of its holder.
    pub name: String,
    /// What it counts, such as `cost per day`.
    pub counter: String,
    /// When its window began; absent for one in total.
    pub starts_at: Option<Timestamp>,
    /// What was booked in it.
    pub before: Counted,
    /// What should be.
    pub after: Counted,
}
