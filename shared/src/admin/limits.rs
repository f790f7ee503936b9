//! Limits that keys share, what limits come to, and how they are shown.

use serde::{Deserialize, Serialize};

use super::told;
use crate::domain::{Limit, Timestamp};

/// A limit and where it stands. In JSON, money is a text of dollars.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "told::Limit", from = "told::Limit")]
pub struct LimitView {
    /// The limit.
    pub limit: Limit,
    /// What is booked in the current window: calls, tokens or nano-dollars.
    pub used: u64,
    /// What open calls hold.
    pub held: u64,
    /// When the current window ends, if one runs.
    pub resets_at: Option<Timestamp>,
}

/// Who shares limits beyond a single key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitHolder {
    /// All keys with this owner together.
    Owner(String),
    /// All keys together.
    All,
}

impl LimitHolder {
    /// The owner's name, or `all`.
    pub fn name(&self) -> &str {
        match self {
            Self::Owner(owner) => owner,
            Self::All => "all",
        }
    }
}

/// A limit is used to the half, to four fifths or wholly. In JSON, money is a text of dollars.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "told::Event", from = "told::Event")]
pub struct BudgetEvent {
    /// When that was seen.
    pub at: Timestamp,
    /// Whose limit it is: `key`, `owner`, `account` or `all`.
    pub holder: String,
    /// The id of the key or account.
    pub id: Option<String>,
    /// The holder's name.
    pub name: String,
    /// The limit.
    pub limit: Limit,
    /// 50, 80 or 100.
    pub percent: u8,
    /// What is used of it: calls, tokens or nano-dollars.
    pub used: u64,
    /// When its window ends.
    pub resets_at: Option<Timestamp>,
}

/// Asks for the latest budget events since the start of the daemon, newest first.
#[derive(Debug, Serialize, Deserialize)]
pub struct ListEvents {
    /// At most so many; 100 when absent.
    pub limit: Option<u32>,
}

/// Asks for the limits that keys share.
#[derive(Debug, Serialize, Deserialize)]
pub struct ListLimits {}

/// Gives keys limits that they share, in place of those that they shared before; none takes them away.
#[derive(Debug, Serialize, Deserialize)]
pub struct SetLimits {
    /// Who shares them.
    pub holder: LimitHolder,
    /// The limits.
    pub limits: Vec<Limit>,
}

/// Limits that keys share.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LimitsView {
    /// Who shares them.
    pub holder: LimitHolder,
    /// The limits, and how much of them is used.
    pub limits: Vec<LimitView>,
    /// Keys that they hold for.
    pub keys: u64,
}
