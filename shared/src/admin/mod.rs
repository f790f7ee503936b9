//! The admin API: each call is a type that names its path and its reply. Calls are POSTed as JSON over
//! HTTP/1.1 on the daemon's Unix socket; a failure is a [`Problem`] with a status of 400 and up.

mod accounts;
mod daemon;
mod keys;
mod limits;
mod prices;
mod told;
mod usage;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::costs::{CostsRebuilt, RebuildCosts};

pub use accounts::{
    AccountView, AddAccount, Explain, ExplainedAccount, Explanation, FailureView, HealthView, ListAccounts,
    RemoveAccount, ShowAccount, TestAccount, TestReport, UpdateAccount,
};
pub use daemon::{
    AuditEntry, ConfigView, JournalView, ListAudit, ShowConfig, ShowStatus, StatusView, StopDaemon, StoreView,
};
pub use keys::{BoundAccount, CreateKey, CreatedKey, DeleteKey, KeyView, ListKeys, ShowKey, UpdateKey};
pub use limits::{BudgetEvent, LimitHolder, LimitView, LimitsView, ListEvents, ListLimits, SetLimits};
pub use prices::{PriceUnset, PriceView, PricesUpdated, SetPrice, ShowPrices, UnsetPrice, UpdatePrices};
pub use usage::{ListRequests, RequestRow, SumUsage, UsageBy, UsageRow};

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
