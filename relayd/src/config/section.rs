//! The sections of the configuration and their defaults. `config.example.toml` says what each is for.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shared::domain::{OnDisconnect, Zone};

use super::value::{self, Cors, LogFormat, LogLevel, Millis, Network, OnFailure, Rate, StoreUrl, Unpriced};

const MIB: usize = 1024 * 1024;
const MINUTE_MS: u64 = 60_000;

/// `[server]`: the front door.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Addresses that clients connect to.
    #[serde(deserialize_with = "value::addresses")]
    pub listen: Vec<SocketAddr>,
    /// Threads that serve requests; 0 is one per core.
    pub workers: usize,
    /// Connections that are served at the same time.
    pub connections_max: usize,
    /// Time for a request's head to arrive.
    pub header_read_timeout_ms: Millis,
    /// Bytes of a request's head.
    pub headers_bytes_max: usize,
    /// Bytes of a request's body.
    pub body_bytes_max: usize,
    /// Bytes of all bodies that are held at the same time.
    pub body_bytes_in_flight_max: usize,
    /// Time without a byte of a body that is still to come.
    pub body_idle_timeout_ms: Millis,
    /// Time without the client taking a byte.
    pub write_stall_timeout_ms: Millis,
    /// Which pages in browsers may call.
    pub cors: Cors,
    /// Peers whose `x-forwarded-for` is believed.
    pub trusted_proxies: Vec<Network>,
    /// Time for requests in flight to end when the daemon stops.
    pub drain_timeout_ms: Millis,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 3000))],
            workers: 0,
            connections_max: 10_000,
            header_read_timeout_ms: Millis::new(30_000),
            headers_bytes_max: 65_536,
            body_bytes_max: 100 * MIB,
            body_bytes_in_flight_max: 1024 * MIB,
            body_idle_timeout_ms: Millis::new(30_000),
            write_stall_timeout_ms: Millis::new(5 * MINUTE_MS),
            cors: Cors::Off,
            trusted_proxies: Vec::new(),
            drain_timeout_ms: Millis::new(10 * MINUTE_MS),
        }
    }
}

/// `[auth]`: the keys that clients present.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// What new keys begin with.
    pub key_prefix: String,
    /// Failed attempts of one client address within the window.
    pub failures_max: usize,
    /// How long a failed attempt is remembered.
    pub failures_window_ms: Millis,
}

impl Default for Auth {
    fn default() -> Self {
        Self { key_prefix: "cr_".to_owned(), failures_max: 20, failures_window_ms: Millis::new(MINUTE_MS) }
    }
}

/// `[upstream]`: the traffic to vendors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Upstream {
    /// Time for a connection, with TLS.
    pub connect_timeout_ms: Millis,
    /// Time to the first byte of the reply, with the connection and the request's upload.
    pub first_byte_timeout_ms: Millis,
    /// Time without a byte of a reply that is being read.
    pub idle_timeout_ms: Millis,
    /// Idle connections that each worker keeps for each host.
    pub pool_idle_per_host_max: usize,
    /// How long an idle connection is kept.
    pub pool_idle_timeout_ms: Millis,
    /// PEM files of authorities that are trusted beside the public ones.
    pub extra_ca: Vec<PathBuf>,
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            connect_timeout_ms: Millis::new(10_000),
            first_byte_timeout_ms: Millis::new(10 * MINUTE_MS),
            idle_timeout_ms: Millis::new(5 * MINUTE_MS),
            pool_idle_per_host_max: 64,
            pool_idle_timeout_ms: Millis::new(MINUTE_MS),
            extra_ca: Vec::new(),
        }
    }
}

/// `[failover]`: how long and how often another account is tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Failover {
    /// Accounts that are asked for one request, the first included.
    pub attempts: usize,
    /// Time after which no other account is asked, without the time in which accounts said nothing.
    pub total_ms: Millis,
    /// Silence to a call that streams after which an account is left, if another could serve the call.
    pub stream_silence_ms: Millis,
    /// The same to a call whose reply comes as a whole.
    pub whole_silence_ms: Millis,
    /// How long the head of a stream is held for an early error.
    pub hold_ms: Millis,
    /// Bytes of a stream that are held for an early error.
    pub hold_bytes_max: usize,
}

impl Default for Failover {
    fn default() -> Self {
        Self {
            attempts: 3,
            total_ms: Millis::new(2 * MINUTE_MS),
            stream_silence_ms: Millis::new(MINUTE_MS),
            whole_silence_ms: Millis::new(3 * MINUTE_MS),
            hold_ms: Millis::new(5_000),
            hold_bytes_max: 65_536,
        }
    }
}

/// `[health]`: how long an account rests after a failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Health {
    /// After a 429 that names no time.
    pub limited_ms: Millis,
    /// After a 429 that names a time, at most.
    pub limited_max_ms: Millis,
    /// After a 529 or 503.
    pub overloaded_ms: Millis,
    /// After a 401.
    pub auth_failed_ms: Millis,
    /// After a failed connection.
    pub unreachable_ms: Millis,
    /// After failures that the request may have caused, once they count.
    pub suspect_ms: Millis,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            limited_ms: Millis::new(MINUTE_MS),
            limited_max_ms: Millis::new(60 * MINUTE_MS),
            overloaded_ms: Millis::new(30_000),
            auth_failed_ms: Millis::new(5 * MINUTE_MS),
            unreachable_ms: Millis::new(15_000),
            suspect_ms: Millis::new(30_000),
        }
    }
}

/// `[affinity]`: which account a session stays with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Affinity {
    /// How long a session is remembered after its last request.
    pub ttl_ms: Millis,
    /// Sessions that are remembered.
    pub sessions_max: usize,
}

impl Default for Affinity {
    fn default() -> Self {
        Self { ttl_ms: Millis::new(60 * MINUTE_MS), sessions_max: 100_000 }
    }
}

/// `[journal]`: what is written before and after each request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Journal {
    /// Time between two syncs to the disk, which a loss of power can cost.
    pub sync_ms: Millis,
    /// Time between two batches to the store.
    pub ship_ms: Millis,
    /// Size of a segment file.
    pub segment_bytes: u64,
    /// How long a segment is kept after it was shipped, in seconds.
    pub keep_s: u64,
    /// Bytes of all segments, beyond which calls are refused.
    pub bytes_max: u64,
}

impl Default for Journal {
    fn default() -> Self {
        Self {
            sync_ms: Millis::new(50),
            ship_ms: Millis::new(500),
            segment_bytes: 8 * 1024 * 1024,
            keep_s: 600,
            bytes_max: 4 * 1024 * 1024 * 1024,
        }
    }
}

/// `[ledger]`: how long what was used is remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ledger {
    /// Days that the row of a request is kept; 0 is for ever.
    pub rows_keep_days: u64,
    /// Days that hourly sums are kept; 0 is for ever.
    pub rollups_keep_days: u64,
}

impl Ledger {
    /// How long the row of a request is kept; `None` is for ever.
    pub fn rows_keep(&self) -> Option<Duration> {
        days(self.rows_keep_days)
    }

    /// How long hourly sums are kept; `None` is for ever.
    pub fn rollups_keep(&self) -> Option<Duration> {
        days(self.rollups_keep_days)
    }
}

fn days(days: u64) -> Option<Duration> {
    (days > 0).then(|| Duration::from_secs(days.saturating_mul(24 * 60 * 60)))
}

impl Default for Ledger {
    fn default() -> Self {
        Self { rows_keep_days: 90, rollups_keep_days: 0 }
    }
}

/// `[store]`: where what must last is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// Which store.
    pub url: StoreUrl,
    /// The file with the password of a server; empty for none, or for the one in the URL.
    password_file: PathBuf,
    /// PEM file of the authority that a server's certificate is signed by; empty for the public ones.
    ca_file: PathBuf,
    /// Time for a connection to a server.
    pub connect_timeout_ms: Millis,
    /// Time for a server's answer that a call waits for.
    pub timeout_ms: Millis,
    /// What becomes of calls while a server is away.
    pub on_failure: OnFailure,
}

impl Store {
    /// The file with the password.
    pub fn password_file(&self) -> Option<&Path> {
        Some(self.password_file.as_path()).filter(|file| !file.as_os_str().is_empty())
    }

    /// The file with the authority's certificate.
    pub fn ca_file(&self) -> Option<&Path> {
        Some(self.ca_file.as_path()).filter(|file| !file.as_os_str().is_empty())
    }
}

impl Default for Store {
    fn default() -> Self {
        Self {
            url: StoreUrl::default(),
            password_file: PathBuf::new(),
            ca_file: PathBuf::new(),
            connect_timeout_ms: Millis::new(2_000),
            timeout_ms: Millis::new(1_000),
            on_failure: OnFailure::default(),
        }
    }
}

/// `[log]`: what the daemon writes about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// What is logged at least.
    pub level: LogLevel,
    /// How lines are written.
    pub format: LogFormat,
    /// The file; empty is the standard error stream.
    file: PathBuf,
    /// Size at which a new file is begun.
    pub file_bytes_max: u64,
    /// Files that are kept, the current one included.
    pub files_max: usize,
    /// Whether each request gets a line.
    pub requests: bool,
}

impl Log {
    /// The file; `None` is the standard error stream.
    pub fn file(&self) -> Option<&Path> {
        named(&self.file)
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: LogLevel::Info,
            format: LogFormat::Text,
            file: PathBuf::new(),
            file_bytes_max: 10 * 1024 * 1024,
            files_max: 5,
            requests: false,
        }
    }
}

/// `[limits]`: how limits are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// How long a hold outlives the node that renews it.
    pub hold_ttl_ms: Millis,
    /// The zone of days, weeks and months that name none.
    pub zone: Zone,
    /// What becomes of a call without a price that a limit of money covers.
    pub unpriced: Unpriced,
}

impl Default for Limits {
    fn default() -> Self {
        Self { hold_ttl_ms: Millis::new(2 * MINUTE_MS), zone: Zone::default(), unpriced: Unpriced::default() }
    }
}

/// `[queue]`: whether calls wait for limits of concurrency.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Queue {
    /// Whether calls of keys that say nothing of it wait.
    pub enabled: bool,
    /// Calls that wait for the same limits at the same time.
    pub size_max: usize,
    /// How long one of them waits.
    pub wait_ms: Millis,
}

impl Default for Queue {
    fn default() -> Self {
        Self { enabled: false, size_max: 100, wait_ms: Millis::new(30_000) }
    }
}

/// `[disconnect]`: what becomes of a call whose client leaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Disconnect {
    /// What becomes of calls whose keys say nothing of it.
    pub on_disconnect: OnDisconnect,
    /// Calls that are drained at the same time.
    pub drains_max: usize,
    /// How long one of them is drained.
    pub drain_ms: Millis,
    /// Tokens of its answer that are waited for.
    pub drain_tokens_max: u64,
    /// Bytes of its reply that are read.
    pub drain_bytes_max: u64,
}

impl Default for Disconnect {
    fn default() -> Self {
        Self {
            on_disconnect: OnDisconnect::Abort,
            drains_max: 64,
            drain_ms: Millis::new(5 * MINUTE_MS),
            drain_tokens_max: 32_000,
            drain_bytes_max: 32 * 1024 * 1024,
        }
    }
}

/// `[rates]`: what keys' holders are charged of the costs of each family.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rates {
    /// Of Anthropic's models.
    pub claude: Rate,
    /// Of OpenAI's models and compatible ones.
    pub openai: Rate,
    /// Of Google's models.
    pub gemini: Rate,
    /// Of Droid.
    pub droid: Rate,
}

/// `[secrets]`: how secrets are sealed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Secrets {
    /// The file with the sealing key; empty is `sealing.key` in the data folder.
    sealing_key_file: PathBuf,
}

impl Secrets {
    /// The file with the sealing key, if it is named.
    pub fn named_sealing_key_file(&self) -> Option<&Path> {
        named(&self.sealing_key_file)
    }

    /// The file with the sealing key.
    pub fn sealing_key_file(&self, data: &Path) -> PathBuf {
        self.named_sealing_key_file().map_or_else(|| data.join("sealing.key"), Path::to_owned)
    }
}

fn named(path: &Path) -> Option<&Path> {
    (!path.as_os_str().is_empty()).then_some(path)
}
