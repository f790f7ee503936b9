//! What quickstart decides, from values to values: whose account, under which name, which key, which call.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde_json::{Value, json};
use shared::admin::{AccountView, AddAccount, CreateKey, KeyView};
use shared::domain::{AccountKind, Timestamp};
use shared::redact::Secret;

/// Every key that relayd issues begins so, unless its settings say otherwise.
const OWN_KEY_PREFIX: &str = "cr_";
/// The name of the key that quickstart makes.
pub(super) const KEY_NAME: &str = "quickstart";
/// The names of short-lived keys begin so; the number of the process that made them follows.
const CHECK_PREFIX: &str = "quickstart-check-";
/// Who holds short-lived keys.
const CHECK_OWNER: &str = "relayctl quickstart";
/// A borrowed key outlives the one request, and little more.
const BORROWED_FOR: Duration = Duration::from_secs(300);
/// The end of a key's life is set by this program's clock, its beginning by the daemon's.
const CLOCKS_APART_MAX: Duration = Duration::from_secs(60);
/// What the first request asks.
pub(super) const QUESTION: &str = "Say hello in one short sentence.";

/// Who answers the first request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Vendor {
    Anthropic,
    Openai,
    Gemini,
    Simulator,
}

impl Vendor {
    /// Those with a key variable, in the order of looking.
    pub(super) const REAL: [Self; 3] = [Self::Anthropic, Self::Openai, Self::Gemini];

    /// The name of its account.
    pub(super) const fn account_name(self) -> &'static str {
        match self {
            Self::Anthropic => "anthropic",
            Self::Openai => "openai",
            Self::Gemini => "gemini",
            Self::Simulator => "simulator",
        }
    }

    /// The kind of its account.
    pub(super) const fn kind(self) -> AccountKind {
        match self {
            Self::Anthropic => AccountKind::ClaudeConsole,
            Self::Openai => AccountKind::OpenaiResponses,
            Self::Gemini => AccountKind::GeminiApi,
            Self::Simulator => AccountKind::Simulator,
        }
    }

    /// A small current model.
    pub(super) const fn model(self) -> &'static str {
        match self {
            Self::Anthropic => "claude-haiku-4-5",
            Self::Openai => "gpt-5.4-mini",
            Self::Gemini => "gemini-3.5-flash-lite",
            Self::Simulator => "sim-echo",
        }
    }

    /// The variables of its credential and its address.
    const fn variables(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Anthropic => Some(("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL")),
            Self::Openai => Some(("OPENAI_API_KEY", "OPENAI_BASE_URL")),
            Self::Gemini => Some(("GEMINI_API_KEY", "GOOGLE_GEMINI_BASE_URL")),
            Self::Simulator => None,
        }
    }

    /// Path and body of a streaming call in its protocol. The simulator is asked as Anthropic is.
    pub(super) fn call(self, model: &str) -> (String, Value) {
        let messages = json!([{ "role": "user", "content": QUESTION }]);
        match self {
            Self::Anthropic | Self::Simulator => (
                "/v1/messages".to_owned(),
                json!({ "model": model, "max_tokens": 256, "stream": true, "messages": messages }),
            ),
            Self::Openai => (
                "/openai/v1/chat/completions".to_owned(),
                json!({ "model": model, "stream": true, "messages": messages }),
            ),
            Self::Gemini => (
                format!("/gemini/v1beta/models/{model}:streamGenerateContent?alt=sse"),
                json!({ "contents": [{ "role": "user", "parts": [{ "text": QUESTION }] }] }),
            ),
        }
    }
}

/// A credential found in the environment.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) vendor: Vendor,
    pub(super) variable: &'static str,
    pub(super) secret: Secret,
    pub(super) base_url: Option<String>,
}

/// The first credential of the environment that is not one of our own keys. An address that points back at
/// us is what an earlier quickstart told to export, so it does not count.
pub(super) fn credential(variable: impl Fn(&str) -> Option<String>, own: SocketAddr) -> Option<Found> {
    let value =
        |name: &str| variable(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    Vendor::REAL.into_iter().find_map(|vendor| {
        let (key, url) = vendor.variables()?;
        let secret = value(key).filter(|secret| !secret.starts_with(OWN_KEY_PREFIX))?;
        let base_url = value(url).filter(|url| !points_at(url, own));
        Some(Found { vendor, variable: key, secret: Secret::new(secret), base_url })
    })
}

/// Whether a URL names an address of this machine and our port.
fn points_at(url: &str, own: SocketAddr) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let Some((host, port)) = authority.rsplit_once(':') else { return false };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_here = match host.parse::<IpAddr>() {
        Ok(address) => address.is_loopback() || address.is_unspecified() || address == own.ip(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    };
    is_here && port.parse() == Ok(own.port())
}

/// Which account serves the first request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum AccountPlan {
    /// It is there already.
    Reuse { vendor: Vendor, name: String },
    /// It is to be added under this name.
    Add { vendor: Vendor, name: String },
}

/// Uses the found credential's account; without one, an account that an earlier quickstart added from a
/// credential; else the simulator.
pub(super) fn account(found: Option<Vendor>, accounts: &[AccountView]) -> AccountPlan {
    let existing = |vendor: Vendor| {
        let names = [vendor.account_name().to_owned(), other_name(vendor)];
        let fits = |account: &&AccountView| account.kind == vendor.kind() && names.contains(&account.name);
        accounts.iter().find(fits).map(|account| AccountPlan::Reuse { vendor, name: account.name.clone() })
    };
    let earlier = || Vendor::REAL.into_iter().find_map(existing);
    let reused = match found {
        Some(vendor) => existing(vendor),
        None => earlier().or_else(|| existing(Vendor::Simulator)),
    };
    reused.unwrap_or_else(|| {
        let vendor = found.unwrap_or(Vendor::Simulator);
        let is_taken = accounts.iter().any(|account| account.name == vendor.account_name());
        let name = if is_taken { other_name(vendor) } else { vendor.account_name().to_owned() };
        AccountPlan::Add { vendor, name }
    })
}

/// The call that adds an account.
pub(super) fn addition(vendor: Vendor, name: String, found: Option<Found>) -> AddAccount {
    let (secret, base_url) = found.map_or((None, None), |found| (Some(found.secret), found.base_url));
    AddAccount {
        name,
        kind: vendor.kind(),
        base_url,
        secret,
        api_version: None,
        models: Vec::new(),
        model_map: BTreeMap::new(),
        price_as: None,
        priority: None,
        weight: None,
        headers: BTreeMap::new(),
        limits: Vec::new(),
        gap_ms: 0,
        simulator: None,
    }
}

/// The name where an account of another kind has the usual one.
fn other_name(vendor: Vendor) -> String {
    format!("{}-quickstart", vendor.account_name())
}

/// Which key the first request carries.
#[derive(Debug)]
pub(super) enum KeyPlan<'a> {
    /// There is none yet: make the key that the person will use.
    Make,
    /// There is one, and its value cannot be shown again: make a short-lived one beside it.
    Borrow { kept: &'a KeyView, name: String },
}

/// Chooses the key for a quickstart that runs as this process.
pub(super) fn key(keys: &[KeyView], pid: u32) -> KeyPlan<'_> {
    let Some(kept) = keys.iter().find(|key| key.name == KEY_NAME) else { return KeyPlan::Make };
    let name = |number: usize| match number {
        1 => format!("{CHECK_PREFIX}{pid}"),
        number => format!("{CHECK_PREFIX}{pid}-{number}"),
    };
    // Among one name more than there are keys, one is free.
    let number = (1..=keys.len() + 1).find(|&number| keys.iter().all(|key| key.name != name(number)));
    KeyPlan::Borrow { kept, name: name(number.unwrap_or(0)) }
}

/// The call that makes a short-lived key.
pub(super) fn check_key(name: String, now: Timestamp) -> CreateKey {
    CreateKey {
        name,
        owner: Some(CHECK_OWNER.to_owned()),
        expires_at: Some(now.after(BORROWED_FOR)),
        ..CreateKey::default()
    }
}

/// The short-lived keys that runs left behind which were interrupted: their lives are over, or their processes are
/// gone. A key is told from a person's own by its name, its holder and its short life together.
pub(super) fn left_behind(keys: &[KeyView], now: Timestamp, lives: impl Fn(u32) -> bool) -> Vec<&KeyView> {
    let is_left = |key: &&KeyView| {
        let Some(end) = key.expires_at.filter(|_| key.owner.as_deref() == Some(CHECK_OWNER)) else {
            return false;
        };
        let pid = key.name.strip_prefix(CHECK_PREFIX).and_then(|rest| rest.split('-').next()?.parse().ok());
        let is_short = end.since(key.created_at) <= BORROWED_FOR + CLOCKS_APART_MAX;
        pid.is_some_and(|pid| is_short && (end <= now || !lives(pid)))
    };
    keys.iter().filter(is_left).collect()
}

/// The address to call a daemon at that listens on `listen`.
pub(super) fn reachable(listen: &str) -> Option<SocketAddr> {
    let mut address: SocketAddr = listen.trim_start_matches("http://").trim_end_matches('/').parse().ok()?;
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    Some(address)
}

#[cfg(test)]
mod tests {
    use shared::admin::HealthView;
    use shared::domain::key::UsageMode;

    use super::*;

    fn own() -> SocketAddr {
        "127.0.0.1:3000".parse().unwrap()
    }

    fn account_view(name: &str, kind: AccountKind) -> AccountView {
        AccountView {
            id: "acc_1".into(),
            name: name.to_owned(),
            kind,
            base_url: String::new(),
            has_secret: true,
            api_version: None,
            models: Vec::new(),
            model_map: BTreeMap::new(),
            price_as: None,
            priority: 50,
            weight: 1,
            headers: Vec::new(),
            limits: Vec::new(),
            gap_ms: 0,
            simulator: None,
            health: HealthView {
                state: "ok".to_owned(),
                cause: None,
                since: None,
                until: None,
                last_failure: None,
            },
            in_flight: 0,
            last_used_at: None,
            created_at: Timestamp::from_millis(0),
        }
    }

    fn key_view(name: &str) -> KeyView {
        KeyView {
            id: "key_1".into(),
            name: name.to_owned(),
            hint: "cr_12ab…9f".to_owned(),
            state: "active".to_owned(),
            owner: None,
            permissions: Vec::new(),
            allow_models: Vec::new(),
            deny_models: Vec::new(),
            accounts: Vec::new(),
            bound: Vec::new(),
            limits: Vec::new(),
            queue: None,
            on_disconnect: None,
            rates: BTreeMap::new(),
            usage: UsageMode::Inject,
            expires_at: None,
            valid_s_from_first_use: None,
            created_at: Timestamp::from_millis(0),
            deleted_at: None,
            last_used_at: None,
        }
    }

    #[test]
    fn the_first_foreign_credential_is_taken() {
        for (variables, expected) in [
            ([].as_slice(), None),
            (&[("ANTHROPIC_API_KEY", " "), ("GEMINI_API_KEY", "g")], Some((Vendor::Gemini, None))),
            (&[("ANTHROPIC_API_KEY", "cr_1"), ("OPENAI_API_KEY", "o")], Some((Vendor::Openai, None))),
            (&[("OPENAI_API_KEY", "o"), ("ANTHROPIC_API_KEY", "a")], Some((Vendor::Anthropic, None))),
            (
                &[("OPENAI_API_KEY", "o"), ("OPENAI_BASE_URL", "https://llm.test/v1")],
                Some((Vendor::Openai, Some("https://llm.test/v1"))),
            ),
            (
                &[("OPENAI_API_KEY", "o"), ("OPENAI_BASE_URL", "http://localhost:3000/openai/v1")],
                Some((Vendor::Openai, None)),
            ),
            (&[("GEMINI_API_KEY", "cr_2")], None),
        ] {
            let variable = |name: &str| {
                variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
            };
            let found = credential(variable, own());
            let found = found.as_ref().map(|found| (found.vendor, found.base_url.as_deref()));
            assert_eq!(found, expected, "{variables:?}");
        }
    }

    #[test]
    fn our_own_address_is_known_by_its_names() {
        for (url, expected) in [
            ("http://127.0.0.1:3000", true),
            ("http://LOCALHOST:3000/api", true),
            ("http://[::1]:3000/", true),
            ("127.0.0.1:3000", true),
            ("http://127.0.0.1:3001", false),
            ("http://127.0.0.1", false),
            ("https://api.anthropic.com", false),
            ("", false),
        ] {
            assert_eq!(points_at(url, own()), expected, "{url}");
        }
    }

    #[test]
    fn accounts_are_reused_before_others_are_added() {
        let reuse = |vendor, name: &str| AccountPlan::Reuse { vendor, name: name.to_owned() };
        let add = |vendor, name: &str| AccountPlan::Add { vendor, name: name.to_owned() };
        let (real, simulated) = (AccountKind::ClaudeConsole, AccountKind::Simulator);
        for (found, accounts, expected) in [
            (None, vec![], add(Vendor::Simulator, "simulator")),
            (None, vec![("simulator", simulated)], reuse(Vendor::Simulator, "simulator")),
            (
                None,
                vec![("simulator", simulated), ("anthropic", real)],
                reuse(Vendor::Anthropic, "anthropic"),
            ),
            (Some(Vendor::Anthropic), vec![("simulator", simulated)], add(Vendor::Anthropic, "anthropic")),
            (Some(Vendor::Anthropic), vec![("anthropic", real)], reuse(Vendor::Anthropic, "anthropic")),
            (Some(Vendor::Openai), vec![("openai", real)], add(Vendor::Openai, "openai-quickstart")),
            (None, vec![("mine", real)], add(Vendor::Simulator, "simulator")),
        ] {
            let views: Vec<_> = accounts.iter().map(|(name, kind)| account_view(name, *kind)).collect();
            assert_eq!(account(found, &views), expected, "{accounts:?}");
        }
    }

    #[test]
    fn a_key_that_was_shown_is_not_replaced() {
        assert!(matches!(key(&[key_view("alice")], 7), KeyPlan::Make));
        for (others, expected) in [
            (&[][..], "quickstart-check-7"),
            (&["quickstart-check-7", "quickstart-check-7-3"], "quickstart-check-7-2"),
        ] {
            let keys: Vec<_> = others.iter().chain(&["quickstart"]).map(|name| key_view(name)).collect();
            let KeyPlan::Borrow { kept, name } = key(&keys, 7) else { panic!() };
            assert_eq!((kept.name.as_str(), name.as_str()), ("quickstart", expected));
        }
    }

    #[test]
    fn only_what_quickstart_left_behind_is_cleaned_up() {
        let now = Timestamp::from_millis(10_000_000);
        let ago = |seconds: i64| Timestamp::from_millis(now.as_millis() - seconds * 1_000);
        let made = |name: &str, ago_s: i64| {
            let call = check_key(name.to_owned(), ago(ago_s));
            KeyView {
                name: call.name,
                owner: call.owner,
                expires_at: call.expires_at,
                created_at: ago(ago_s),
                ..key_view("")
            }
        };
        let lives = |pid| pid == 7;
        for (key, is_left) in [
            (made("quickstart-check-7", 10), false),
            (made("quickstart-check-8", 10), true),
            (made("quickstart-check-7-2", 10), false),
            (made("quickstart-check-8-2", 10), true),
            (made("quickstart-check-7", 301), true),
            (made("quickstart-check-mine", 301), false),
            (made("quickstart", 301), false),
            (made("alice", 301), false),
            (KeyView { owner: None, ..made("quickstart-check-8", 301) }, false),
            (KeyView { owner: Some("me".to_owned()), ..made("quickstart-check-8", 301) }, false),
            (KeyView { expires_at: None, ..made("quickstart-check-8", 301) }, false),
            (KeyView { created_at: ago(90_000), ..made("quickstart-check-8", 301) }, false),
        ] {
            let left = left_behind(std::slice::from_ref(&key), now, lives);
            assert_eq!(!left.is_empty(), is_left, "{key:?}");
        }
    }

    #[test]
    fn wildcard_addresses_are_called_on_the_loopback() {
        for (listen, expected) in [
            ("127.0.0.1:3000", Some("127.0.0.1:3000")),
            ("http://10.0.0.1:80/", Some("10.0.0.1:80")),
            ("0.0.0.0:3000", Some("127.0.0.1:3000")),
            ("[::]:3000", Some("[::1]:3000")),
            ("unix:/x", None),
        ] {
            assert_eq!(reachable(listen), expected.map(|text| text.parse().unwrap()), "{listen}");
        }
    }

    #[test]
    fn every_call_streams_from_the_model() {
        for vendor in [Vendor::Anthropic, Vendor::Openai, Vendor::Gemini, Vendor::Simulator] {
            let (path, body) = vendor.call("m-1");
            let streams = body["stream"] == true || path.contains(":streamGenerateContent?alt=sse");
            let names_model = body["model"] == "m-1" || path.contains("/m-1:");
            assert!(streams && names_model && body.to_string().contains(QUESTION), "{path} {body}");
        }
    }
}
