//! The admin API: each call is a type that names its path and its reply. Calls are POSTed as JSON over
//! HTTP/1.1 on the daemon's Unix socket; a failure is a [`Problem`] with a status of 400 and up.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::costs::{CostsRebuilt, RebuildCosts};
use crate::domain::account::SimulatorSettings;
use crate::domain::key::UsageMode;
use crate::domain::{
    AccountId, AccountKind, Family, Glob, KeyId, KeyQueue, Limit, LimitChanges, Multiplier, NanoUsd,
    OnDisconnect, Operation, Protocol, Provenance, RequestId, Timestamp, Usage,
};
use crate::redact::{self, Secret};

mod told;

/// A call of the admin API.
pub trait AdminCall: Serialize + DeserializeOwned + Send {
    /// Where it is POSTed.
    const PATH: &'static str;
    /// What comes back with status 200.
    type Reply: Serialize + DeserializeOwned + Send;
}

macro_rules! admin_calls {
    ($($call:ident => $path:literal => $reply:ty,)*) => {
        $(impl AdminCall for $call {
            const PATH: &'static str = $path;
            type Reply = $reply;
        })*
    };
}

admin_calls! {
    ShowStatus => "/v1/status" => StatusView,
    StopDaemon => "/v1/stop" => Done,
    ShowConfig => "/v1/config/show" => ConfigView,
    CreateKey => "/v1/keys/create" => CreatedKey,
    ListKeys => "/v1/keys/list" => Vec<KeyView>,
    ShowKey => "/v1/keys/show" => KeyView,
    UpdateKey => "/v1/keys/update" => KeyView,
    DeleteKey => "/v1/keys/delete" => KeyView,
    AddAccount => "/v1/accounts/add" => AccountView,
    ListAccounts => "/v1/accounts/list" => Vec<AccountView>,
    ShowAccount => "/v1/accounts/show" => AccountView,
    UpdateAccount => "/v1/accounts/update" => AccountView,
    TestAccount => "/v1/accounts/test" => TestReport,
    RemoveAccount => "/v1/accounts/remove" => AccountView,
    SumUsage => "/v1/usage" => Vec<UsageRow>,
    ListRequests => "/v1/requests/list" => Vec<RequestRow>,
    Explain => "/v1/explain" => Explanation,
    ShowPrices => "/v1/prices/show" => Vec<PriceView>,
    UpdatePrices => "/v1/prices/update" => PricesUpdated,
    SetPrice => "/v1/prices/set" => PriceView,
    UnsetPrice => "/v1/prices/unset" => PriceUnset,
    RebuildCosts => "/v1/costs/rebuild" => CostsRebuilt,
    ListAudit => "/v1/audit" => Vec<AuditEntry>,
    ListLimits => "/v1/limits/list" => Vec<LimitsView>,
    SetLimits => "/v1/limits/set" => LimitsView,
    ListEvents => "/v1/events/list" => Vec<BudgetEvent>,
}

/// The answer of a call that has nothing to say.
#[derive(Debug, Serialize, Deserialize)]
pub struct Done {}

/// A failed call: one sentence, and what to do next where that is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// For programs: `invalid`, `denied`, `not_found`, `conflict`, `unavailable`, `internal`.
    pub code: ProblemCode,
    /// One sentence for people.
    pub message: String,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// Kinds of failures that a program tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemCode {
    /// The call's values are wrong.
    Invalid,
    /// The caller's user may not call.
    Denied,
    /// No such key, account, model or path.
    NotFound,
    /// The name is taken, or somebody else changed the record meanwhile.
    Conflict,
    /// The daemon cannot do it now.
    Unavailable,
    /// A defect or a failing disk; the log says more.
    Internal,
}

/// Asks how the daemon is.
#[derive(Debug, Serialize, Deserialize)]
pub struct ShowStatus {}

/// How the daemon is.
#[derive(Debug, Serialize, Deserialize)]
pub struct StatusView {
    /// Version of the daemon.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Name of this node.
    pub node: String,
    /// When it started.
    pub started_at: Timestamp,
    /// Addresses that clients reach it at.
    pub listen: Vec<String>,
    /// The data folder.
    pub data: String,
    /// The store's engine and state.
    pub store: StoreView,
    /// The journal's state.
    pub journal: JournalView,
    /// Client calls that are open now, those that wait included.
    pub in_flight: u64,
    /// Calls among them that wait for room or for their turn.
    #[serde(default)]
    pub waiting: u64,
    /// Calls among them whose clients have left, and whose replies are read to their ends.
    #[serde(default)]
    pub draining: u64,
    /// Client connections that are open now.
    pub connections: u64,
    /// API keys that are not deleted.
    pub keys: u64,
    /// Ids of keys and accounts that are left out because their records cannot be read.
    #[serde(default)]
    pub damaged: Vec<String>,
    /// All accounts with their state.
    pub accounts: Vec<AccountView>,
}

/// The store's engine and state.
#[derive(Debug, Serialize, Deserialize)]
pub struct StoreView {
    /// `embedded`.
    pub engine: String,
    /// `ok`, or what is wrong with it.
    pub state: String,
}

/// How far the journal is ahead of the store.
#[derive(Debug, Serialize, Deserialize)]
pub struct JournalView {
    /// The epoch of this run.
    pub epoch: u64,
    /// Records that the store has not taken yet.
    pub unshipped: u64,
    /// Bytes of journal files on disk.
    pub bytes: u64,
    /// Records that could not be applied and were set aside.
    pub set_aside: u64,
}

/// Asks the daemon to drain and end.
#[derive(Debug, Serialize, Deserialize)]
pub struct StopDaemon {}

/// Asks for the configuration in force.
#[derive(Debug, Serialize, Deserialize)]
pub struct ShowConfig {}

/// The configuration in force.
#[derive(Debug, Serialize, Deserialize)]
pub struct ConfigView {
    /// The file it was read from, if any.
    pub file: Option<String>,
    /// Every setting, as TOML.
    pub toml: String,
}

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

const fn one() -> Multiplier {
    Multiplier::ONE
}

/// A field that is there: `null` takes away what is stored, where an absent field leaves it.
fn named<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(
    json: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(json).map(Some)
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

/// Deletes a key: it stops working at once, its usage stays.
#[derive(Debug, Serialize, Deserialize)]
pub struct DeleteKey {
    /// Its id or name.
    pub key: String,
}

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

/// Asks for prices.
#[derive(Debug, Serialize, Deserialize)]
pub struct ShowPrices {
    /// Only models that fit.
    pub model: Option<Glob>,
}

/// The price of one model.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PriceView {
    /// The model's exact name.
    pub model: String,
    /// Where the price comes from: `built_in`, `file` or `set`.
    pub source: String,
    /// Dollars per million tokens (or per thousand searches), by class and tier: `input`,
    /// `output`, `input above 200000`, `output priority`.
    pub prices: BTreeMap<String, String>,
}

/// Replaces the price list by one in the per-token JSON format; prices that were set by hand stay.
#[derive(Debug, Serialize, Deserialize)]
pub struct UpdatePrices {
    /// The file's content.
    pub json: String,
    /// Only say what would change.
    pub dry_run: bool,
}

/// What an update of the price list changed.
#[derive(Debug, Serialize, Deserialize)]
pub struct PricesUpdated {
    /// Version of the list now in force.
    pub version: u64,
    /// Models that have a price now.
    pub models: u64,
    /// Models that had none before.
    pub added: u64,
    /// Models whose price differs now.
    pub changed: u64,
    /// Models that have none any more.
    pub removed: u64,
    /// Entries of the file that were left out, with the reason.
    pub skipped: Vec<String>,
}

/// Sets prices of one model by hand: dollars per million tokens by class. Classes that were set by hand before
/// and are not named stay.
#[derive(Debug, Serialize, Deserialize)]
pub struct SetPrice {
    /// The model's exact name.
    pub model: String,
    /// Decimal dollars per million, by class name (`input`, `output`, `cache_read`, …); `None` takes a class back.
    pub prices: BTreeMap<String, Option<String>>,
}

/// Takes back all prices of one model that were set by hand.
#[derive(Debug, Serialize, Deserialize)]
pub struct UnsetPrice {
    /// The model's exact name.
    pub model: String,
}

/// What is in force after prices were taken back.
#[derive(Debug, Serialize, Deserialize)]
pub struct PriceUnset {
    /// The model.
    pub model: String,
    /// Its price in a list; none where no list has one.
    pub now: Option<PriceView>,
}

/// Asks for the latest changes made through the admin API, newest first.
#[derive(Debug, Serialize, Deserialize)]
pub struct ListAudit {
    /// From this time on.
    pub since: Option<Timestamp>,
    /// At most so many; 100 when absent.
    pub limit: Option<u32>,
}

/// One change made through the admin API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// When.
    pub at: Timestamp,
    /// User id of the caller's process; the daemon's own changes have none.
    pub uid: Option<u32>,
    /// Process id of the caller.
    pub pid: Option<u32>,
    /// What was done: `key.create`, `account.pause`, …
    pub action: String,
    /// The record's id.
    pub subject: String,
    /// The record's name at that time.
    pub name: String,
    /// Fields that changed; values of secrets are never told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
}
