//! Values of settings that are more than a number or a text.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use shared::domain::Multiplier;
use shared::redact::Secret;

/// A time in milliseconds, as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(u64);

impl Millis {
    /// Takes milliseconds.
    pub const fn new(millis: u64) -> Self {
        Self(millis)
    }

    /// The milliseconds.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The same time as a duration.
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

/// An address to listen at is none.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no address: write an IP address with a port, such as \"127.0.0.1:3000\" or \"[::]:3000\"")]
pub struct NoAddress(String);

/// Reads an address to listen at.
///
/// # Errors
///
/// It is none: a name, for example, or an address without a port.
pub fn address(text: &str) -> Result<SocketAddr, NoAddress> {
    text.trim().parse().map_err(|_| NoAddress(text.to_owned()))
}

/// Reads a list of them.
pub(super) fn addresses<'de, D: serde::Deserializer<'de>>(list: D) -> Result<Vec<SocketAddr>, D::Error> {
    let texts = Vec::<String>::deserialize(list)?;
    texts.iter().map(|text| address(text).map_err(serde::de::Error::custom)).collect()
}

/// Which pages in browsers may call: `false`, or a list of origins, where `"*"` stands for all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "WrittenCors", try_from = "WrittenCors")]
pub enum Cors {
    /// None.
    #[default]
    Off,
    /// Those of these origins, such as `https://app.example.com`.
    Origins(Vec<String>),
}

#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "must be false or a list of origins such as [\"https://app.example.com\"]")]
enum WrittenCors {
    Switch(bool),
    Origins(Vec<String>),
    /// From the environment, separated by commas.
    Listed(String),
}

/// `cors` is neither off nor a list of origins.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotCors {
    #[error("true does not say for whom; list the origins, or [\"*\"] for all of them")]
    On,
    #[error("{0:?} is not an origin such as \"https://app.example.com\", without a path")]
    NotOrigin(String),
}

impl TryFrom<WrittenCors> for Cors {
    type Error = NotCors;

    fn try_from(written: WrittenCors) -> Result<Self, NotCors> {
        let origins = match written {
            WrittenCors::Switch(false) => return Ok(Self::Off),
            WrittenCors::Switch(true) => return Err(NotCors::On),
            WrittenCors::Origins(origins) => origins,
            WrittenCors::Listed(text) => text.split(',').map(|origin| origin.trim().to_owned()).collect(),
        };
        match origins.iter().find(|origin| !is_origin(origin)) {
            Some(wrong) => Err(NotCors::NotOrigin(wrong.clone())),
            None => Ok(Self::Origins(origins)),
        }
    }
}

fn is_origin(text: &str) -> bool {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    text == "*"
        || host.is_some_and(|host| {
            !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic() && !b"/?#@,".contains(&byte))
        })
}

impl From<Cors> for WrittenCors {
    fn from(cors: Cors) -> Self {
        match cors {
            Cors::Off => Self::Switch(false),
            Cors::Origins(origins) => Self::Origins(origins),
        }
    }
}

/// What becomes of a call without a price that a limit of money covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unpriced {
    /// It is refused.
    #[default]
    Refuse,
    /// It passes, and counts for nothing.
    Allow,
}

/// A multiplier as it is written: a number, or a text where a number would be rounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "WrittenRate")]
pub struct Rate(pub Multiplier);

#[derive(Deserialize)]
#[serde(untagged, expecting = "must be a number such as 1 or 1.25")]
enum WrittenRate {
    Whole(u64),
    Fraction(f64),
    Text(String),
}

impl TryFrom<WrittenRate> for Rate {
    type Error = shared::domain::NoMultiplier;

    fn try_from(written: WrittenRate) -> Result<Self, Self::Error> {
        let text = match written {
            WrittenRate::Whole(number) => number.to_string(),
            // The shortest text that means this number is what was written.
            WrittenRate::Fraction(number) => number.to_string(),
            WrittenRate::Text(text) => text,
        };
        text.parse().map(Self)
    }
}

impl From<Rate> for String {
    fn from(rate: Rate) -> Self {
        rate.0.to_string()
    }
}

/// What becomes of calls while the store is away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// They are judged by what this process knows.
    #[default]
    Serve,
    /// Those that a limit holds for are refused.
    Refuse,
}

/// Where what must last is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum StoreUrl {
    /// In files of the data folder.
    #[default]
    Embedded,
    /// On a Redis or Valkey server: its URL, which may hold a password.
    Redis(Secret),
}

/// The URL names no store of this version.
#[derive(Debug, thiserror::Error)]
#[error("must be \"embedded\", or a URL such as \"redis://127.0.0.1:6379/0\" (\"rediss://\" for TLS)")]
pub struct NoStore;

impl StoreUrl {
    const SCHEMES: [&str; 3] = ["redis://", "rediss://", "redis+unix://"];
}

impl TryFrom<String> for StoreUrl {
    type Error = NoStore;

    fn try_from(url: String) -> Result<Self, NoStore> {
        match url.as_str() {
            "embedded" => Ok(Self::Embedded),
            _ if Self::SCHEMES.iter().any(|scheme| url.starts_with(scheme)) => {
                Ok(Self::Redis(Secret::new(url)))
            }
            _ => Err(NoStore),
        }
    }
}

/// As it is shown: without the password.
impl From<StoreUrl> for String {
    fn from(url: StoreUrl) -> Self {
        match url {
            StoreUrl::Embedded => "embedded".to_owned(),
            StoreUrl::Redis(url) => without_password(url.expose()),
        }
    }
}

fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let authority = rest.split('/').next().unwrap_or_default();
    match authority.rsplit_once('@') {
        Some((credentials, host)) => {
            let user = credentials.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}:***@{host}{}", &rest[authority.len()..])
        }
        None => url.to_owned(),
    }
}

/// A range of addresses such as `10.0.0.0/8`, or a single one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Network(IpNet);

/// The text is no range of addresses.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not an address range such as \"10.0.0.0/8\"")]
pub struct NotNetwork(String);

impl Network {
    /// Whether an address lies in it. An IPv4 address counts as itself also when it is written as IPv6.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl TryFrom<String> for Network {
    type Error = NotNetwork;

    fn try_from(text: String) -> Result<Self, NotNetwork> {
        let one = || text.parse::<IpAddr>().ok().map(IpNet::from);
        text.parse().ok().or_else(one).map(Self).ok_or(NotNetwork(text))
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.0.to_string()
    }
}

/// What is logged at least.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// Nothing.
    Off,
    /// What went wrong for good.
    Error,
    /// What went wrong and was dealt with.
    Warn,
    /// What an operator wants to know.
    #[default]
    Info,
    /// What a developer wants to know.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// The level as it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_ranges_or_single_addresses() {
        for (network, address, is_inside) in [
            ("10.0.0.0/8", "10.9.8.7", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("10.0.0.0/8", "::ffff:10.0.0.1", true),
            ("fd00::/8", "fd12::1", true),
            ("::1", "::1", true),
        ] {
            let network = Network::try_from(network.to_owned()).unwrap();
            assert_eq!(network.contains(address.parse().unwrap()), is_inside, "{network:?} {address}");
        }
        for wrong in ["", "10.0.0.0/33", "localhost", "10.0.0"] {
            assert!(Network::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn origins_have_a_scheme_and_no_path() {
        for (origin, expected) in [
            ("*", true),
            ("https://app.example.com", true),
            ("http://localhost:5173", true),
            ("http://[::1]:80", true),
            ("https://app.example.com/", false),
            ("https://user@app.example.com", false),
            ("app.example.com", false),
            ("https://", false),
            ("https://a b", false),
            ("", false),
        ] {
            assert_eq!(is_origin(origin), expected, "{origin}");
        }
    }
}
