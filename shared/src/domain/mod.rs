//! The words of the field as types: ids, keys, accounts, limits, usage, money, time.

pub mod account;
pub mod delay;
pub mod glob;
pub mod id;
pub mod key;
pub mod limit;
mod limit_change;
pub mod money;
pub mod name;
pub mod protocol;
pub mod queue;
mod text;
pub mod time;
pub mod usage;

pub use account::{Account, AccountKind, Family};
pub use delay::Delay;
pub use glob::Glob;
pub use id::{AccountId, KeyId, RequestId};
pub use key::{ApiKey, OnDisconnect};
pub use limit::{Limit, Zone};
pub use limit_change::{LimitChanges, LimitName, NoLimitName, NoSuchLimit};
pub use money::{Multiplier, NanoUsd, NoMultiplier};
pub use protocol::{MODEL_BYTES_MAX, Operation, Protocol};
pub use queue::{KeyQueue, QueueBounds};
pub use time::Timestamp;
pub use usage::{Provenance, Rates, ServiceTier, Usage, UsageClass};
