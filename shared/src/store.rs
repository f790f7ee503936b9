//! Calls of the admin API that move the store, or put another in its place.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::admin::AdminCall;
use crate::progress::LongCall;
use crate::redact::{self, Secret};

/// Moves everything to another store, and goes on with that.
#[derive(Debug, Serialize, Deserialize)]
pub struct MigrateStore {
    /// Where to, as `store.url` says it: `embedded`, or the URL of a server.
    #[serde(serialize_with = "redact::in_clear")]
    pub to: Secret,
}

impl AdminCall for MigrateStore {
    const PATH: &'static str = "/v1/store/migrate";
    type Reply = StoreMigrated;
}

impl LongCall for MigrateStore {}

/// What was moved. All of it was counted in both stores before the new one was used.
#[derive(Debug, Serialize, Deserialize)]
pub struct StoreMigrated {
    /// The store that is used no more, without its password.
    pub from: String,
    /// The store in use, without its password: what `store.url` has to say from now on.
    pub to: String,
    /// How much there is of each part.
    pub counts: BTreeMap<String, u64>,
    /// Amounts that open calls hold, and hold there now.
    pub holds: u64,
    /// For how long nobody was admitted, in milliseconds.
    pub frozen_ms: u64,
}

/// Takes a server that came back empty, or another one, in place of the store that was used.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct AdoptStore {
    /// Takes its data as it is. Else it must be empty, and is given what the daemon knows.
    pub as_is: bool,
    /// Only say what is there and what would be done.
    pub dry_run: bool,
}

impl AdminCall for AdoptStore {
    const PATH: &'static str = "/v1/store/adopt";
    type Reply = StoreAdopted;
}

impl LongCall for AdoptStore {}

/// What the server held, and what became of it.
#[derive(Debug, Serialize, Deserialize)]
pub struct StoreAdopted {
    /// Whether it was done.
    pub applied: bool,
    /// Whether the server held no store.
    pub was_empty: bool,
    /// How much it held of each part.
    pub found: BTreeMap<String, u64>,
    /// Records (keys, accounts, prices, settings) that it was given, or has.
    pub records: u64,
    /// Groups of counters that it was given, or has.
    pub groups: u64,
    /// `ok`, or why the store cannot be used yet.
    pub state: String,
}
