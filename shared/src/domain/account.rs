//! An upstream account: whom to ask, with which credential, for which models.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{AccountId, Glob, Limit, Timestamp};
use crate::crypto::Sealed;

/// What a key's permissions are judged by: whose models an account serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// Anthropic's models, wherever they run.
    Claude,
    /// OpenAI's models and everything that speaks OpenAI's protocols.
    Openai,
    /// Google's models.
    Gemini,
    /// Factory's Droid.
    Droid,
    /// The built-in simulator.
    Simulator,
}

impl Family {
    /// Every family.
    pub const ALL: [Self; 5] = [Self::Claude, Self::Openai, Self::Gemini, Self::Droid, Self::Simulator];

    /// The family as it is written in JSON, flags and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Claude => "claude",
            Self::Openai => "openai",
            Self::Gemini => "gemini",
            Self::Droid => "droid",
            Self::Simulator => "simulator",
        }
    }
}

/// Which provider serves an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AccountKind {
    /// Any Anthropic-compatible API with an API key.
    ClaudeConsole,
    /// A claude-code-router; models are asked for as `ccr,<model>`.
    Ccr,
    /// Any OpenAI-compatible API with an API key.
    OpenaiResponses,
    /// The Gemini API with an API key.
    GeminiApi,
    /// Azure OpenAI deployments.
    AzureOpenai,
    /// Answers by itself; serves models named `sim-*` and keys bound to it.
    Simulator,
}

impl AccountKind {
    /// Every kind that can be added.
    pub const ALL: [Self; 6] = [
        Self::ClaudeConsole,
        Self::Ccr,
        Self::OpenaiResponses,
        Self::GeminiApi,
        Self::AzureOpenai,
        Self::Simulator,
    ];

    /// The kind as it is written in JSON, flags and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ClaudeConsole => "claude-console",
            Self::Ccr => "ccr",
            Self::OpenaiResponses => "openai-responses",
            Self::GeminiApi => "gemini-api",
            Self::AzureOpenai => "azure-openai",
            Self::Simulator => "simulator",
        }
    }

    /// Whose permissions a key needs to be served by such an account.
    pub const fn family(self) -> Family {
        match self {
            Self::ClaudeConsole | Self::Ccr => Family::Claude,
            Self::OpenaiResponses | Self::AzureOpenai => Family::Openai,
            Self::GeminiApi => Family::Gemini,
            Self::Simulator => Family::Simulator,
        }
    }

    /// The vendor's own address, where there is one; `None` asks the operator for it.
    pub const fn default_base_url(self) -> Option<&'static str> {
        match self {
            Self::ClaudeConsole => Some("https://api.anthropic.com"),
            Self::OpenaiResponses => Some("https://api.openai.com/v1"),
            Self::GeminiApi => Some("https://generativelanguage.googleapis.com"),
            Self::Simulator => Some("http://simulator"),
            Self::Ccr | Self::AzureOpenai => None,
        }
    }

    /// Whether an account of this kind proves itself with a secret.
    pub const fn needs_secret(self) -> bool {
        !matches!(self, Self::Simulator)
    }
}

impl fmt::Display for AccountKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name stands for none of the known kinds or families; the message lists them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is not one of {known}")]
pub struct UnknownName {
    name: String,
    known: String,
}

fn by_name<T: Copy>(name: &str, all: &[T], name_of: fn(T) -> &'static str) -> Result<T, UnknownName> {
    all.iter().copied().find(|&item| name_of(item) == name).ok_or_else(|| UnknownName {
        name: name.to_owned(),
        known: all.iter().map(|&item| name_of(item)).collect::<Vec<_>>().join(", "),
    })
}

impl FromStr for AccountKind {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        by_name(name, &Self::ALL, Self::name)
    }
}

impl FromStr for Family {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        by_name(name, &Self::ALL, Self::name)
    }
}

/// An account as it is stored. Fields that this version does not know are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Its id.
    pub id: AccountId,
    /// Its name, unique among accounts.
    pub name: String,
    /// Which provider serves it.
    pub kind: AccountKind,
    /// Where it is reached: scheme, host and path prefix, without a slash at the end.
    pub base_url: String,
    /// Its credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Sealed>,
    /// `api-version` of Azure calls; the provider's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    /// Model names that clients may ask for; empty means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<Glob>,
    /// The upstream's name for a model, by the client's name for it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub model_map: BTreeMap<String, String>,
    /// The priced model that stands in where neither the reply's model nor the one sent has a price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price_as: Option<String>,
    /// Lower is asked first; 1 to 100.
    pub priority: u8,
    /// Its share among accounts of the same priority; 1 to 100.
    pub weight: u8,
    /// Taken out of scheduling by the operator.
    #[serde(default)]
    pub paused: bool,
    /// Headers that every call to it carries.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// What it may be used for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<Limit>,
    /// Milliseconds between the starts of two calls; zero where it does not matter.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gap_ms: u64,
    /// How the simulator behaves; only for accounts of that kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub simulator: Option<SimulatorSettings>,
    /// When it was added.
    pub created_at: Timestamp,
    /// When it was removed: only its name is still of use, for its usage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed_at: Option<Timestamp>,
    /// Fields of newer versions.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, serde_json::Value>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Priority of an account that was added without one.
pub const DEFAULT_PRIORITY: u8 = 50;
/// Weight of an account that was added without one.
pub const DEFAULT_WEIGHT: u8 = 1;

impl Account {
    /// Whether a client may ask this account for a model. The simulator has `sim-*` where nothing is named.
    pub fn serves(&self, model: &str) -> bool {
        // As a segment of a path, they would lead to another part of the API.
        if matches!(model, "." | "..") {
            return false;
        }
        if self.model_map.contains_key(model) {
            return true;
        }
        match (self.models.as_slice(), self.kind) {
            ([], AccountKind::Ccr) => model.starts_with("ccr,"),
            ([], AccountKind::Simulator) => model.starts_with("sim-"),
            ([], _) => true,
            (models, _) => models.iter().any(|glob| glob.matches(model)),
        }
    }

    /// The name to send for a model that a client asked for.
    pub fn upstream_model<'a>(&'a self, model: &'a str) -> &'a str {
        let plain = match self.kind {
            AccountKind::Ccr => model.strip_prefix("ccr,").unwrap_or(model),
            _ => model,
        };
        self.model_map.get(model).or_else(|| self.model_map.get(plain)).map_or(plain, String::as_str)
    }
}

/// How a simulator account behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SimulatorSettings {
    /// Time to the first byte.
    pub latency_ms: u64,
    /// Pieces of a streamed answer, 1 to 10,000.
    pub chunks: u32,
    /// Time between two pieces.
    pub chunk_gap_ms: u64,
    /// Calls in a hundred that fail with 529.
    pub error_percent: u8,
}

impl Default for SimulatorSettings {
    fn default() -> Self {
        Self { latency_ms: 20, chunks: 12, chunk_gap_ms: 10, error_percent: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(kind: AccountKind) -> Account {
        Account {
            id: "acc_1".into(),
            name: "one".to_owned(),
            kind,
            base_url: "https://example.test".to_owned(),
            secret: None,
            api_version: None,
            models: Vec::new(),
            model_map: BTreeMap::new(),
            price_as: None,
            priority: DEFAULT_PRIORITY,
            weight: DEFAULT_WEIGHT,
            paused: false,
            headers: BTreeMap::new(),
            limits: Vec::new(),
            gap_ms: 0,
            simulator: None,
            created_at: Timestamp::from_millis(0),
            removed_at: None,
            unknown: BTreeMap::new(),
        }
    }

    #[test]
    fn models_are_served_by_list_and_map() {
        let plain = account(AccountKind::ClaudeConsole);
        let listed = Account { models: vec!["claude-*".into()], ..plain.clone() };
        let mapped = Account {
            model_map: BTreeMap::from([("fast".to_owned(), "haiku".to_owned())]),
            ..listed.clone()
        };
        for (account, model, serves, upstream) in [
            (&plain, "anything", true, "anything"),
            (&plain, "..", false, ".."),
            (&plain, "..x", true, "..x"),
            (&listed, "claude-opus-4", true, "claude-opus-4"),
            (&listed, "gpt-5", false, "gpt-5"),
            (&mapped, "fast", true, "haiku"),
            (&account(AccountKind::Ccr), "ccr,deepseek", true, "deepseek"),
            (&account(AccountKind::Ccr), "deepseek", false, "deepseek"),
            (&account(AccountKind::Simulator), "sim-echo", true, "sim-echo"),
            (&account(AccountKind::Simulator), "claude-opus-4", false, "claude-opus-4"),
        ] {
            assert_eq!(account.serves(model), serves, "{model}");
            assert_eq!(account.upstream_model(model), upstream);
        }
    }

    #[test]
    fn fields_of_newer_versions_are_kept() {
        let mut json = serde_json::to_value(account(AccountKind::Ccr)).unwrap();
        json["from_the_future"] = serde_json::json!([1, 2]);
        let read: Account = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), json);
    }

    #[test]
    fn unknown_kinds_are_refused_with_the_list() {
        let error = "claude".parse::<AccountKind>().unwrap_err().to_string();
        assert!(error.contains("claude-console") && error.contains("simulator"), "{error}");
    }
}
