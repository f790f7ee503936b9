//! The daemon itself: how it is, its configuration, its audit log.

use serde::{Deserialize, Serialize};

use super::accounts::AccountView;
use crate::domain::Timestamp;

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
