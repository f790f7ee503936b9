//! An API key that we issued: who may call what, until when, how much.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{AccountId, Family, Glob, KeyId, KeyQueue, Limit, Multiplier, Timestamp};
use crate::crypto::Digest;

/// An API key as it is stored: its digest, never the key. Fields that this version does not know are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    /// Its id.
    pub id: KeyId,
    /// Its name, unique among keys that are not deleted.
    pub name: String,
    /// HMAC-SHA-256 of the key under the pepper.
    pub digest: Digest,
    /// Id of the pepper that the digest was made with.
    pub pepper_id: String,
    /// The key's ends, to recognise it by.
    pub hint: String,
    /// Who holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Families of accounts that may serve it; empty means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub permissions: Vec<Family>,
    /// Models it may ask for; empty means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_models: Vec<Glob>,
    /// Models it may not ask for, whatever `allow_models` says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny_models: Vec<Glob>,
    /// The only accounts that may serve it; empty means the pool.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accounts: Vec<AccountId>,
    /// What it may use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<Limit>,
    /// Whether its calls wait for limits of concurrency; as configured when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<KeyQueue>,
    /// What becomes of its calls whose clients leave; as configured when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_disconnect: Option<OnDisconnect>,
    /// What its holder is charged of the cost of a family's calls, beside the family's own multiplier.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rates: BTreeMap<Family, Multiplier>,
    /// How the usage of Chat Completions streams is learned.
    #[serde(default)]
    pub usage: UsageMode,
    /// The end of its life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Seconds of life that begin with the first use; `expires_at` is set by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_s_from_first_use: Option<u64>,
    /// Switched off by the operator.
    #[serde(default)]
    pub disabled: bool,
    /// When it was deleted; its rows keep its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Fields of newer versions.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, serde_json::Value>,
}

/// How the usage of a Chat Completions stream is learned when the client did not ask for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UsageMode {
    /// `stream_options.include_usage` is added, and the usage chunk is taken out of the reply again.
    #[default]
    Inject,
    /// The request is left alone; usage is estimated from sizes.
    Estimate,
}

/// What becomes of a call whose client leaves before its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDisconnect {
    /// It is ended at the upstream too.
    #[default]
    Abort,
    /// The upstream's reply is read to its end, within bounds, so that what was used is known.
    Drain,
}

impl OnDisconnect {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Abort, Self::Drain];

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Abort => "abort",
            Self::Drain => "drain",
        }
    }
}

/// Why a key may not be used now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// It was deleted.
    Deleted,
    /// It was switched off.
    Disabled,
    /// Its life ended at the given time.
    Expired(Timestamp),
}

impl ApiKey {
    /// Why the key may not be used at `now`, if so.
    pub fn unusable(&self, now: Timestamp) -> Option<Unusable> {
        match self.expires_at {
            _ if self.deleted_at.is_some() => Some(Unusable::Deleted),
            _ if self.disabled => Some(Unusable::Disabled),
            Some(end) if end <= now => Some(Unusable::Expired(end)),
            _ => None,
        }
    }

    /// The end of life that a first use at `now` gives to the key; `None` if its end is settled already.
    pub fn activated_at(&self, now: Timestamp) -> Option<Timestamp> {
        match (self.expires_at, self.valid_s_from_first_use) {
            (None, Some(seconds)) => Some(now.after(Duration::from_secs(seconds))),
            _ => None,
        }
    }

    /// Whether it may ask for a model.
    pub fn may_ask_for(&self, model: &str) -> bool {
        let any = |globs: &[Glob]| globs.iter().any(|glob| glob.matches(model));
        (self.allow_models.is_empty() || any(&self.allow_models)) && !any(&self.deny_models)
    }

    /// Whether an account may serve it: one that it is bound to, else one of a family that it has the permission for.
    pub fn may_use(&self, family: Family, account: &AccountId) -> bool {
        if !self.accounts.is_empty() {
            return self.accounts.contains(account);
        }
        self.permissions.is_empty() || self.permissions.contains(&family)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Pepper;
    use crate::redact::Secret;

    fn key() -> ApiKey {
        ApiKey {
            id: "key_1".into(),
            name: "alice".to_owned(),
            digest: Pepper::new(&Secret::new("p")).digest("cr_1"),
            pepper_id: "1".to_owned(),
            hint: "cr_…".to_owned(),
            owner: None,
            permissions: Vec::new(),
            allow_models: Vec::new(),
            deny_models: Vec::new(),
            accounts: Vec::new(),
            limits: Vec::new(),
            queue: None,
            on_disconnect: None,
            rates: BTreeMap::new(),
            usage: UsageMode::default(),
            expires_at: None,
            valid_s_from_first_use: None,
            disabled: false,
            deleted_at: None,
            created_at: Timestamp::from_millis(0),
            unknown: BTreeMap::new(),
        }
    }

    #[test]
    fn a_key_ends_when_its_time_has_come() {
        let at = Timestamp::from_millis;
        let expiring = ApiKey { expires_at: Some(at(10)), ..key() };
        for (key, now, expected) in [
            (key(), at(i64::MAX), None),
            (expiring.clone(), at(9), None),
            (expiring.clone(), at(10), Some(Unusable::Expired(at(10)))),
            (ApiKey { disabled: true, ..expiring.clone() }, at(0), Some(Unusable::Disabled)),
            (ApiKey { deleted_at: Some(at(1)), disabled: true, ..key() }, at(0), Some(Unusable::Deleted)),
        ] {
            assert_eq!(key.unusable(now), expected);
        }
    }

    #[test]
    fn first_use_settles_the_end_once() {
        let now = Timestamp::from_millis(1_000);
        let waiting = ApiKey { valid_s_from_first_use: Some(60), ..key() };
        assert_eq!(waiting.activated_at(now), Some(Timestamp::from_millis(61_000)));
        let running = ApiKey { expires_at: Some(now), ..waiting };
        assert_eq!(running.activated_at(now), None);
        assert_eq!(key().activated_at(now), None);
    }

    #[test]
    fn deny_lists_win() {
        let key =
            ApiKey { allow_models: vec!["claude-*".into()], deny_models: vec!["*opus*".into()], ..key() };
        assert!(key.may_ask_for("claude-sonnet-5"));
        assert!(!key.may_ask_for("claude-opus-5"));
        assert!(!key.may_ask_for("gpt-5"));
    }

    #[test]
    fn bindings_and_permissions_choose_accounts() {
        let (one, two) = (AccountId::from("acc_1"), AccountId::from("acc_2"));
        assert!(key().may_use(Family::Gemini, &one));
        let claude = ApiKey { permissions: vec![Family::Claude], ..key() };
        assert!(claude.may_use(Family::Claude, &one) && !claude.may_use(Family::Openai, &one));
        assert!(!claude.may_use(Family::Simulator, &one), "the simulator is a family like the others");
        let bound = ApiKey { accounts: vec![one.clone()], ..key() };
        assert!(bound.may_use(Family::Openai, &one) && !bound.may_use(Family::Openai, &two));
    }
}
