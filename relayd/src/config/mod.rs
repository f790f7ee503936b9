//! TOML and environment, read into one checked `Config`. An empty file, or none, is a valid configuration;
//! whatever is unknown or out of bounds is refused with a sentence. Nothing here reads the environment itself.

mod check;
mod error;
mod section;
mod source;
#[cfg(test)]
mod tests;
mod value;

use std::path::Path;

use serde::{Deserialize, Serialize};
use toml::Table;

use check::Wrong;
use source::Entry;

pub use error::{ConfigError, Place};
pub use section::{
    Affinity, Auth, Disconnect, Failover, Health, Journal, Ledger, Limits, Log, Queue, Rates, Secrets,
    Server, Store, Upstream,
};
pub use value::{Cors, LogFormat, Network, NoAddress, NoStore, OnFailure, StoreUrl, Unpriced, address};

/// Every setting of the daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The front door.
    pub server: Server,
    /// The keys that clients present.
    pub auth: Auth,
    /// The traffic to vendors.
    pub upstream: Upstream,
    /// How long and how often another account is tried.
    pub failover: Failover,
    /// How long an account rests after a failure.
    pub health: Health,
    /// Which account a session stays with.
    pub affinity: Affinity,
    /// What is written before and after each request.
    pub journal: Journal,
    /// How long what was used is remembered.
    pub ledger: Ledger,
    /// Where what must last is kept.
    pub store: Store,
    /// What the daemon writes about itself.
    pub log: Log,
    /// How limits are kept.
    pub limits: Limits,
    /// Whether calls wait for limits of concurrency.
    pub queue: Queue,
    /// What becomes of a call whose client leaves.
    pub disconnect: Disconnect,
    /// What keys' holders are charged.
    pub rates: Rates,
    /// How secrets are sealed.
    pub secrets: Secrets,
}

impl Config {
    /// Reads a file, then lets `RELAYD__SECTION__KEY` variables override it, and checks the result.
    pub fn load(
        file: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let text = match file {
            Some(path) => std::fs::read_to_string(path)
                .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?,
            None => String::new(),
        };
        Self::parse(file.unwrap_or(Path::new("")), &text, env)
    }

    fn parse(
        path: &Path,
        text: &str,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let known = Self::default().to_table();
        let mut entries = source::file_entries(path, text, &known)?;
        entries.extend(source::variable_entries(env, &known)?);
        let mut table = known.clone();
        let mut config = Self::default();
        for entry in &entries {
            config = with(&mut table, entry, &known)?;
        }
        check::check(&config).map_err(|wrong| placed(wrong, &entries))?;
        Ok(config)
    }

    /// Writes every setting as TOML that [`Config::load`] reads back to the same, but for a password. Numbers that TOML cannot write
    /// do not pass the bounds, so this always succeeds for what was loaded.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).unwrap_or_default()
    }

    fn to_table(&self) -> Table {
        Table::try_from(self).unwrap_or_default()
    }
}

/// Adds an entry, one at a time, so that what is wrong with it is blamed on its place.
fn with(table: &mut Table, entry: &Entry, known: &Table) -> Result<Config, ConfigError> {
    if let Some(section) = table.get_mut(&entry.section).and_then(toml::Value::as_table_mut) {
        section.insert(entry.key.clone(), entry.value.clone());
    }
    Config::deserialize(table.clone()).map_err(|cause| ConfigError::WrongValue {
        place: entry.place.clone(),
        key: format!("{}.{}", entry.section, entry.key),
        default: known
            .get(&entry.section)
            .and_then(|section| section.get(&entry.key))
            .map_or_else(String::new, toml::Value::to_string),
        cause: Box::new(cause),
    })
}

/// Says where the wrong value was set; the last place wins.
fn placed(wrong: Wrong, entries: &[Entry]) -> ConfigError {
    let place = |key: &str| {
        let set =
            entries.iter().rev().find(|entry| key.split_once('.') == Some((&entry.section, &entry.key)));
        set.map(|entry| entry.place.clone())
    };
    match wrong {
        Wrong::OutOfBounds { key, value, least, most } => {
            let place = place(key).unwrap_or(Place::Default);
            ConfigError::OutOfBounds { place, key, value, least, most }
        }
        Wrong::Exceeds { key, value, bound_key, bound } => {
            let place = place(key).or_else(|| place(bound_key)).unwrap_or(Place::Default);
            ConfigError::Exceeds { place, key, value, bound_key, bound }
        }
        Wrong::Rule { key, rule } => {
            ConfigError::Rule { place: place(key).unwrap_or(Place::Default), key, rule }
        }
    }
}
