//! API keys.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::limits::LimitView;
use crate::domain::key::UsageMode;
use crate::domain::{
    AccountId, Family, Glob, KeyId, KeyQueue, Limit, LimitChanges, Multiplier, OnDisconnect, Timestamp,
};
use crate::redact::{self, Secret};

/// Creates an API key.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CreateKey {
    /// Its name.
    pub name: String,
    /// Who holds it.
    pub owner: Option<String>,
    /// Families it may use; empty means all.
    pub permissions: Vec<Family>,
    /// Models it may ask for; empty means all.
    pub allow_models: Vec<Glob>,
    /// Models it may not ask for.
    pub deny_models: Vec<Glob>,
    /// Accounts (ids or names) that alone may serve it; empty means the pool.
    pub accounts: Vec<String>,
    /// What it may use.
    pub limits: Vec<Limit>,
    /// Whether its calls wait for limits of concurrency; as configured when absent.
    pub queue: Option<KeyQueue>,
    /// What becomes of its calls whose clients leave; as configured when absent.
    pub on_disconnect: Option<OnDisconnect>,
    /// What its holder is charged of the cost of a family's calls; 1 when absent.
    pub rates: BTreeMap<Family, Multiplier>,
    /// How the usage of Chat Completions streams is learned.
    pub usage: UsageMode,
    /// The end of its life.
    pub expires_at: Option<Timestamp>,
    /// Seconds of life from the first use on.
    pub valid_s_from_first_use: Option<u64>,
}

/// A new key. The key itself is shown here and never again.
#[derive(Debug, Serialize, Deserialize)]
pub struct CreatedKey {
    /// Its record's id.
    pub id: KeyId,
    /// Its name.
    pub name: String,
    /// The key, in clear.
    #[serde(serialize_with = "redact::in_clear")]
    pub key: Secret,
}

/// Asks for all keys that are not deleted.
#[derive(Debug, Serialize, Deserialize)]
pub struct ListKeys {
    /// Deleted ones too.
    pub deleted: bool,
}

/// Asks for one key.
#[derive(Debug, Serialize, Deserialize)]
pub struct ShowKey {
    /// Its id or name.
    pub key: String,
}

/// A key as it is shown.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeyView {
    /// Its id.
    pub id: KeyId,
    /// Its name.
    pub name: String,
    /// Its ends.
    pub hint: String,
    /// `active`, `disabled`, `expired`, `deleted`, or `waiting` for its first use.
    pub state: String,
    /// Who holds it.
    pub owner: Option<String>,
    /// Families it may use; empty means all.
    pub permissions: Vec<Family>,
    /// Models it may ask for; empty means all.
    pub allow_models: Vec<Glob>,
    /// Models it may not ask for.
    pub deny_models: Vec<Glob>,
    /// Ids of the accounts that alone may serve it.
    pub accounts: Vec<AccountId>,
    /// The same accounts by name.
    #[serde(default)]
    pub bound: Vec<BoundAccount>,
    /// What it may use, and how much of that is used.
    pub limits: Vec<LimitView>,
    /// Whether its calls wait for limits of concurrency; as configured when absent.
    #[serde(default)]
    pub queue: Option<KeyQueue>,
    /// What becomes of its calls whose clients leave; as configured when absent.
    #[serde(default)]
    pub on_disconnect: Option<OnDisconnect>,
    /// What its holder is charged of the cost of a family's calls; 1 where absent.
    #[serde(default)]
    pub rates: BTreeMap<Family, Multiplier>,
    /// How the usage of Chat Completions streams is learned.
    pub usage: UsageMode,
    /// The end of its life.
    pub expires_at: Option<Timestamp>,
    /// Seconds of life from the first use on.
    pub valid_s_from_first_use: Option<u64>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was deleted.
    #[serde(default)]
    pub deleted_at: Option<Timestamp>,
    /// When it last made a call that was booked; not told in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<Timestamp>,
}

/// An account that a key is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundAccount {
    /// Its id.
    pub id: AccountId,
    /// Its name.
    pub name: String,
    /// Whether it was removed, so that it serves nothing any more.
    pub removed: bool,
}

/// Changes a key; a field that is `None` stays as it is.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UpdateKey {
    /// Its id or name.
    pub key: String,
    /// A new name.
    pub name: Option<String>,
    /// A new holder; an empty text removes it.
    pub owner: Option<String>,
    /// New permissions.
    pub permissions: Option<Vec<Family>>,
    /// A new list of allowed models.
    pub allow_models: Option<Vec<Glob>>,
    /// A new list of denied models.
    pub deny_models: Option<Vec<Glob>>,
    /// A new list of accounts (ids or names).
    pub accounts: Option<Vec<String>>,
    /// New limits in place of all the old.
    pub limits: Option<Vec<Limit>>,
    /// Changes of single limits, after that.
    pub limit_changes: LimitChanges,
    /// Whether its calls wait; `Some(None)`, in JSON `null`, is as configured.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "named")]
    pub queue: Option<Option<KeyQueue>>,
    /// What becomes of its calls whose clients leave; `Some(None)`, in JSON `null`, is as configured.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "named")]
    pub on_disconnect: Option<Option<OnDisconnect>>,
    /// New multipliers in place of all the old.
    pub rates: Option<BTreeMap<Family, Multiplier>>,
    /// A new way to learn usage.
    pub usage: Option<UsageMode>,
    /// A new end of life.
    pub expires_at: Option<Timestamp>,
    /// No end of life any more.
    pub never_expires: bool,
    /// Switched off (`true`) or on.
    pub disabled: Option<bool>,
}

/// A field that is there: `null` takes away what is stored, where an absent field leaves it.
fn named<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(
    json: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(json).map(Some)
}

/// Deletes a key: it stops working at once, its usage stays.
#[derive(Debug, Serialize, Deserialize)]
pub struct DeleteKey {
    /// Its id or name.
    pub key: String,
}
