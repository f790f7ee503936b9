//! The flags that a new and a changed account have in common, and what a change makes of them.

use std::collections::BTreeMap;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use shared::admin::UpdateAccount;
use shared::domain::account::SimulatorSettings;
use shared::domain::{Delay, Glob};

use crate::args::{self, replaced};
use crate::failure::Failure;
use crate::limits::LimitArgs;
use crate::secret::SecretArgs;

#[derive(Debug, Args)]
pub(crate) struct UpdateArgs {
    /// Its id or name
    pub(super) account: String,
    /// A new name
    #[arg(long, value_parser = args::name)]
    name: Option<String>,
    /// Empty what had been set (repeatable)
    #[arg(long, value_enum, value_name = "FIELD")]
    clear: Vec<AccountField>,
    #[command(flatten)]
    limits: LimitArgs,
    // It ends with a heading of its own, below which nothing else may come.
    #[command(flatten)]
    pub(super) settings: SettingsArgs,
}

/// What can be emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum AccountField {
    Models,
    Map,
    PriceAs,
    Headers,
    Limits,
    Gap,
}

/// What a new and a changed account have in common.
#[derive(Debug, Default, Args)]
pub(crate) struct SettingsArgs {
    /// Where it is reached [default: the vendor's own address]
    #[arg(long, value_name = "URL", value_parser = args::base_url)]
    pub(super) base_url: Option<String>,
    #[command(flatten)]
    pub(super) secret: SecretArgs,
    /// The `api-version` of Azure calls
    #[arg(long, value_name = "VERSION")]
    pub(super) api_version: Option<String>,
    /// Models that clients may ask for, such as claude-* (repeatable; any but sim-* when absent, of a ccr those that
    /// begin with ccr, and of a simulator sim-*)
    #[arg(long = "model", value_name = "GLOB", value_parser = args::glob)]
    pub(super) models: Vec<Glob>,
    /// The upstream's name for a model, by the client's (repeatable)
    #[arg(long = "map", value_name = "FROM=TO")]
    pub(super) model_map: Vec<Mapping>,
    /// The priced model that stands in where a model has no price
    #[arg(long, value_name = "MODEL")]
    pub(super) price_as: Option<String>,
    /// Lower is asked first [default: 50]
    #[arg(long, value_name = "1-100", value_parser = args::number::<u8>(1, 100))]
    pub(super) priority: Option<u8>,
    /// Its share among accounts of the same priority [default: 1]
    #[arg(long, value_name = "1-100", value_parser = args::number::<u8>(1, 100))]
    pub(super) weight: Option<u8>,
    /// Time between the starts of two calls, such as 500ms; a call that comes too early waits
    #[arg(long, value_name = "TIME")]
    pub(super) gap: Option<Delay>,
    /// A header that every call carries (repeatable)
    #[arg(long = "header", value_name = "NAME: VALUE")]
    pub(super) headers: Vec<Header>,
    #[command(flatten)]
    pub(super) simulator: SimulatorArgs,
}

/// How a simulator behaves.
#[derive(Clone, Copy, Debug, Default, Args)]
#[command(next_help_heading = "Simulator")]
pub(crate) struct SimulatorArgs {
    /// Time to the first byte
    #[arg(long, value_name = "MS", value_parser = args::number::<u64>(0, 600_000))]
    pub(super) latency_ms: Option<u64>,
    /// Pieces of a streamed answer
    #[arg(long, value_name = "COUNT", value_parser = args::number::<u32>(1, 10_000))]
    pub(super) chunks: Option<u32>,
    /// Time between two pieces
    #[arg(long, value_name = "MS", value_parser = args::number::<u64>(0, 60_000))]
    pub(super) chunk_gap_ms: Option<u64>,
    /// Calls in a hundred that fail
    #[arg(long, value_name = "0-100", value_parser = args::number::<u8>(0, 100))]
    pub(super) error_percent: Option<u8>,
}

impl SimulatorArgs {
    /// The settings that the flags make of others; `None` if no flag was given.
    pub(super) fn over(self, old: SimulatorSettings) -> Option<SimulatorSettings> {
        let new = SimulatorSettings {
            latency_ms: self.latency_ms.unwrap_or(old.latency_ms),
            chunks: self.chunks.unwrap_or(old.chunks),
            chunk_gap_ms: self.chunk_gap_ms.unwrap_or(old.chunk_gap_ms),
            error_percent: self.error_percent.unwrap_or(old.error_percent),
        };
        self.any().then_some(new)
    }

    pub(super) fn any(self) -> bool {
        self.latency_ms.is_some()
            || self.chunks.is_some()
            || self.chunk_gap_ms.is_some()
            || self.error_percent.is_some()
    }
}

/// A client's name for a model and the upstream's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mapping(String, String);

/// The text is no pair of model names.
#[derive(Debug, thiserror::Error)]
#[error("a mapping is written like fast=claude-haiku-4-5")]
pub(super) struct NoMapping;

impl FromStr for Mapping {
    type Err = NoMapping;

    fn from_str(text: &str) -> Result<Self, NoMapping> {
        args::pair(text, '=').map(|(from, to)| Self(from, to)).ok_or(NoMapping)
    }
}

/// The name and the value of a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header(String, String);

/// The text is no header.
#[derive(Debug, thiserror::Error)]
#[error("a header is written like \"x-team: red\"")]
pub(super) struct NoHeader;

impl FromStr for Header {
    type Err = NoHeader;

    fn from_str(text: &str) -> Result<Self, NoHeader> {
        let (name, value) = args::pair(text, ':').ok_or(NoHeader)?;
        let name = hyper::header::HeaderName::try_from(name).map_err(|_| NoHeader)?;
        hyper::header::HeaderValue::try_from(&value).map_err(|_| NoHeader)?;
        Ok(Self(name.as_str().to_owned(), value))
    }
}

impl UpdateArgs {
    pub(super) fn call(self, simulator: Option<SimulatorSettings>) -> Result<UpdateAccount, Failure> {
        let clears = |field| self.clear.contains(&field);
        let settings = self.settings;
        let (limits, limit_changes) = self.limits.changes(clears(AccountField::Limits));
        let unchanged = UpdateAccount { account: self.account.clone(), ..UpdateAccount::default() };
        let call = UpdateAccount {
            account: self.account,
            name: self.name,
            base_url: settings.base_url,
            secret: settings.secret.read()?,
            api_version: settings.api_version,
            models: replaced(settings.models, clears(AccountField::Models)),
            model_map: replaced(settings.model_map, clears(AccountField::Map)).map(mapped),
            price_as: settings.price_as.or_else(|| clears(AccountField::PriceAs).then(String::new)),
            priority: settings.priority,
            weight: settings.weight,
            headers: replaced(settings.headers, clears(AccountField::Headers)).map(headed),
            limits,
            limit_changes,
            gap_ms: settings
                .gap
                .or_else(|| clears(AccountField::Gap).then(Delay::default))
                .map(Delay::as_millis),
            simulator,
            paused: None,
        };
        if call == unchanged {
            return Err(Failure::usage("nothing to change", "say what, as with --priority or --clear"));
        }
        Ok(call)
    }
}

pub(super) fn mapped(mappings: Vec<Mapping>) -> BTreeMap<String, String> {
    mappings.into_iter().map(|Mapping(from, to)| (from, to)).collect()
}

pub(super) fn headed(headers: Vec<Header>) -> BTreeMap<String, String> {
    headers.into_iter().map(|Header(name, value)| (name, value)).collect()
}
