//! What was used: sums and single requests.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::domain::{
    AccountId, KeyId, Multiplier, NanoUsd, Operation, Protocol, Provenance, RequestId, Timestamp, Usage,
};

/// What usage is summed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UsageBy {
    /// One row per API key.
    Key,
    /// One row per account.
    Account,
    /// One row per model.
    Model,
    /// One row per day of the configured zone.
    Day,
}

/// Sums usage. Whole hours count: `since` is rounded down, `until` up.
#[derive(Debug, Serialize, Deserialize)]
pub struct SumUsage {
    /// What a row stands for.
    pub by: UsageBy,
    /// From this time on.
    pub since: Option<Timestamp>,
    /// Up to this time.
    pub until: Option<Timestamp>,
    /// Only this key (id or name).
    pub key: Option<String>,
    /// Only this account (id or name).
    pub account: Option<String>,
    /// Only this model.
    pub model: Option<String>,
}

/// One sum of usage.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UsageRow {
    /// What the row stands for: a name, a model or a day.
    pub name: String,
    /// The id of the key or account.
    pub id: Option<String>,
    /// Calls.
    pub requests: u64,
    /// Calls among them that failed.
    pub failed: u64,
    /// Amounts by class.
    pub usage: Usage,
    /// What it cost.
    pub cost: NanoUsd,
    /// What the keys' holders were charged: the cost times the multipliers.
    #[serde(default)]
    pub rated: NanoUsd,
    /// Calls with usage that has no price.
    pub unpriced: u64,
    /// Calls by where their numbers come from.
    pub provenance: BTreeMap<Provenance, u64>,
}

/// Asks for ledger rows, newest first.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ListRequests {
    /// Only this request.
    pub id: Option<RequestId>,
    /// Only this key (id or name).
    pub key: Option<String>,
    /// Only this account (id or name).
    pub account: Option<String>,
    /// From this time on.
    pub since: Option<Timestamp>,
    /// Up to this time.
    pub until: Option<Timestamp>,
    /// Only requests older than this one: for the next page.
    pub before: Option<RequestId>,
    /// At most so many rows; 100 when absent, 10,000 at most.
    pub limit: Option<u32>,
}

/// One request as the ledger has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestRow {
    /// Its id.
    pub id: RequestId,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// Milliseconds to the first byte of the reply.
    pub first_byte_ms: Option<u64>,
    /// Milliseconds to its end.
    pub total_ms: u64,
    /// Milliseconds of them that it waited for room or for its turn.
    #[serde(default)]
    pub queued_ms: u64,
    /// The key that asked.
    pub key: KeyId,
    /// Its name.
    #[serde(default)]
    pub key_name: String,
    /// The account that served it, if one was called.
    pub account: Option<AccountId>,
    /// Its name.
    #[serde(default)]
    pub account_name: Option<String>,
    /// Protocol of the client.
    pub protocol: Protocol,
    /// What was asked for.
    pub operation: Operation,
    /// The model that the client asked for.
    pub model: String,
    /// The model that was priced: the reply's, else the one sent.
    pub priced_model: Option<String>,
    /// HTTP status that the client got.
    pub status: u16,
    /// How it ended: `complete`, `truncated`, `client_gone`, `failed`, `refused`, `aborted`, `orphaned`.
    pub end: String,
    /// Accounts that were tried.
    pub attempts: u32,
    /// Amounts by class.
    pub usage: Usage,
    /// Where they come from.
    pub provenance: Provenance,
    /// What it cost.
    pub cost: NanoUsd,
    /// What the key's holder was charged: the cost times the multipliers.
    #[serde(default)]
    pub rated: NanoUsd,
    /// Whether some of the usage has no price.
    pub unpriced: bool,
    /// The prices that the cost was computed with, by class: dollars per million tokens, or per thousand searches.
    #[serde(default)]
    pub prices: BTreeMap<String, String>,
    /// Version of the price list that they are from.
    #[serde(default)]
    pub price_version: u64,
    /// What the cost was multiplied by for the key's holder.
    #[serde(default = "one")]
    pub multiplier: Multiplier,
}

const fn one() -> Multiplier {
    Multiplier::ONE
}
