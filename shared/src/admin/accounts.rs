//! Upstream accounts, and which of them would serve a call.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::limits::LimitView;
use crate::domain::account::SimulatorSettings;
use crate::domain::{AccountId, AccountKind, Glob, Limit, LimitChanges, Protocol, Timestamp};
use crate::redact::{self, Secret};

/// Adds an account.
#[derive(Debug, Serialize, Deserialize)]
pub struct AddAccount {
    /// Its name.
    pub name: String,
    /// Which provider serves it.
    pub kind: AccountKind,
    /// Where it is reached; the vendor's own address when absent.
    pub base_url: Option<String>,
    /// Its credential.
    #[serde(default, serialize_with = "redact::in_clear_or_none")]
    pub secret: Option<Secret>,
    /// `api-version` of Azure calls.
    pub api_version: Option<String>,
    /// Models that clients may ask for; empty means all.
    pub models: Vec<Glob>,
    /// The upstream's name for a model, by the client's.
    pub model_map: BTreeMap<String, String>,
    /// The priced model that stands in where a model has no price.
    pub price_as: Option<String>,
    /// Lower is asked first; 50 when absent.
    pub priority: Option<u8>,
    /// Its share among equals; 1 when absent.
    pub weight: Option<u8>,
    /// Headers that every call carries.
    pub headers: BTreeMap<String, String>,
    /// What it may be used for.
    pub limits: Vec<Limit>,
    /// Milliseconds between the starts of two calls; zero, or absent, where it does not matter.
    #[serde(default)]
    pub gap_ms: u64,
    /// How the simulator behaves.
    pub simulator: Option<SimulatorSettings>,
}

/// Asks for all accounts.
#[derive(Debug, Serialize, Deserialize)]
pub struct ListAccounts {}

/// Asks for one account.
#[derive(Debug, Serialize, Deserialize)]
pub struct ShowAccount {
    /// Its id or name.
    pub account: String,
}

/// An account as it is shown.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AccountView {
    /// Its id.
    pub id: AccountId,
    /// Its name.
    pub name: String,
    /// Which provider serves it.
    pub kind: AccountKind,
    /// Where it is reached.
    pub base_url: String,
    /// Whether a credential is stored.
    pub has_secret: bool,
    /// `api-version` of Azure calls.
    pub api_version: Option<String>,
    /// Models that clients may ask for; empty means all.
    pub models: Vec<Glob>,
    /// The upstream's name for a model, by the client's.
    pub model_map: BTreeMap<String, String>,
    /// The priced model that stands in where a model has no price.
    pub price_as: Option<String>,
    /// Lower is asked first.
    pub priority: u8,
    /// Its share among equals.
    pub weight: u8,
    /// Names of the headers that every call carries; values may be secret.
    pub headers: Vec<String>,
    /// What it may be used for, and how much of that is used.
    pub limits: Vec<LimitView>,
    /// Milliseconds between the starts of two calls; zero where it does not matter.
    #[serde(default)]
    pub gap_ms: u64,
    /// How the simulator behaves.
    pub simulator: Option<SimulatorSettings>,
    /// Whether it can serve now, and if not, why and until when.
    pub health: HealthView,
    /// Calls that it is serving now.
    pub in_flight: u64,
    /// When it was last used.
    pub last_used_at: Option<Timestamp>,
    /// When it was added.
    pub created_at: Timestamp,
}

/// Whether an account can serve now.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HealthView {
    /// `ok`, `paused`, `limited`, `overloaded`, `auth_failed` or `unreachable`.
    pub state: String,
    /// What it last came to rest for.
    pub cause: Option<String>,
    /// When that happened.
    pub since: Option<Timestamp>,
    /// When it is tried again.
    pub until: Option<Timestamp>,
    /// What went wrong last, also if it does not rest for it.
    #[serde(default)]
    pub last_failure: Option<FailureView>,
}

/// What went wrong with an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureView {
    /// When.
    pub at: Timestamp,
    /// The upstream's status, where it is known.
    pub status: Option<u16>,
    /// One phrase.
    pub cause: String,
}

/// Changes an account; a field that is `None` stays as it is.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UpdateAccount {
    /// Its id or name.
    pub account: String,
    /// A new name.
    pub name: Option<String>,
    /// A new address.
    pub base_url: Option<String>,
    /// A new credential.
    #[serde(serialize_with = "redact::in_clear_or_none")]
    pub secret: Option<Secret>,
    /// A new `api-version`.
    pub api_version: Option<String>,
    /// A new list of models.
    pub models: Option<Vec<Glob>>,
    /// A new model map.
    pub model_map: Option<BTreeMap<String, String>>,
    /// A new stand-in for prices; an empty text removes it.
    pub price_as: Option<String>,
    /// A new priority.
    pub priority: Option<u8>,
    /// A new weight.
    pub weight: Option<u8>,
    /// New headers in place of all the old.
    pub headers: Option<BTreeMap<String, String>>,
    /// New limits in place of all the old.
    pub limits: Option<Vec<Limit>>,
    /// Changes of single limits, after that.
    pub limit_changes: LimitChanges,
    /// New milliseconds between the starts of two calls; zero for none.
    pub gap_ms: Option<u64>,
    /// New behaviour of the simulator.
    pub simulator: Option<SimulatorSettings>,
    /// Taken out of scheduling (`true`) or put back. Putting it back also forgets what ailed it.
    pub paused: Option<bool>,
}

/// Sends one small call through an account.
#[derive(Debug, Serialize, Deserialize)]
pub struct TestAccount {
    /// Its id or name.
    pub account: String,
    /// The model to ask; without it the account's model list is asked for where the provider has one.
    pub model: Option<String>,
}

/// What a test call met.
#[derive(Debug, Serialize, Deserialize)]
pub struct TestReport {
    /// Whether the account answered as it should.
    pub ok: bool,
    /// The address that was called.
    pub url: String,
    /// HTTP status, when there was an answer.
    pub status: Option<u16>,
    /// One sentence.
    pub message: String,
    /// Milliseconds to the head of the reply.
    pub first_byte_ms: Option<u64>,
    /// Milliseconds to its end.
    pub total_ms: u64,
}

/// Removes an account. Its usage stays.
#[derive(Debug, Serialize, Deserialize)]
pub struct RemoveAccount {
    /// Its id or name.
    pub account: String,
    /// Also when keys are bound to it: they lose the binding's only or last account.
    pub force: bool,
}

/// Asks which account would serve a call, and why the others would not. Nothing is sent.
#[derive(Debug, Serialize, Deserialize)]
pub struct Explain {
    /// The key's id or name.
    pub key: String,
    /// The model to ask for.
    pub model: String,
    /// The client's protocol; when absent, the one that the account speaks first which would serve the call if none
    /// rested or were paused.
    pub protocol: Option<Protocol>,
}

/// What the scheduler would do.
#[derive(Debug, Serialize, Deserialize)]
pub struct Explanation {
    /// The client's protocol.
    pub protocol: Protocol,
    /// Whether the question named none.
    pub assumed: bool,
    /// Every protocol in which some account would serve the call.
    pub served_in: Vec<Protocol>,
    /// Why the key itself may not ask, if so.
    pub refused: Option<String>,
    /// The account that would serve it.
    pub chosen: Option<AccountId>,
    /// Every account with its reason: in the order in which they would be tried, then those that are ruled out,
    /// by reason.
    pub accounts: Vec<ExplainedAccount>,
}

/// Where one account stands.
#[derive(Debug, Serialize, Deserialize)]
pub struct ExplainedAccount {
    /// Its id.
    pub id: AccountId,
    /// Its name.
    pub name: String,
    /// Whether it is the one chosen.
    pub chosen: bool,
    /// One phrase: why it was chosen, passed over or ruled out.
    pub reason: String,
}
