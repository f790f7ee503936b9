//! The only door for operators: HTTP/1.1 and JSON over a Unix socket, one type for each call. Every change made
//! here leaves an entry in the audit log.

mod accounts;
mod costs;
mod daemon;
mod explain;
mod keys;
mod limits;
mod long;
mod prices;
mod probe;
mod socket;
mod store;
mod usage;
mod view;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::body::Incoming;
use shared::admin::{self as api, AdminCall, AuditEntry, Problem, ProblemCode};
use shared::costs::RebuildCosts;
use shared::domain::{AccountKind, Limit, MODEL_BYTES_MAX, NoSuchLimit, Timestamp, name};
use shared::store::{AdoptStore, MigrateStore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::long::Lines;
pub use socket::{Socket, SocketError};

use crate::clock::Clock;
use crate::config::NoStore;
use crate::directory::{Directory, DirectoryError, EditError, PricesError};
use crate::events::Events;
use crate::ledger::{Ledger, LedgerError};
use crate::migrate::{MigrateError, Places};
use crate::near::nearest;
use crate::rebuild::RebuildError;
use crate::store::{AdoptionError, LIMITS_MAX, NAMES_BYTES_MAX, StoreError, Switch};
use crate::upstream::Upstream;

/// A call's size: a price list is the largest.
const CALL_BYTES_MAX: usize = 64 << 20;
/// How long a call may take to arrive.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// What the admin API works on.
pub struct Admin {
    /// Keys, accounts, prices.
    pub directory: Arc<Directory>,
    /// The ledger.
    pub ledger: Arc<Ledger>,
    /// The store in use.
    pub switch: Arc<Switch>,
    /// Where stores lie.
    pub places: Places,
    /// How long a hold lives without being renewed.
    pub hold_ttl: Duration,
    /// What happened.
    pub events: Arc<Events>,
    /// The clock.
    pub clock: Clock,
    /// For test calls.
    pub upstream: Upstream,
    /// What new keys begin with.
    pub key_prefix: String,
    /// What the daemon says of itself.
    pub about: About,
    /// Client calls that are open now.
    pub in_flight: Arc<AtomicU64>,
    /// Calls among them that wait.
    pub waiting: Box<dyn Fn() -> u64 + Send + Sync>,
    /// Calls among them whose clients have left.
    pub draining: Box<dyn Fn() -> u64 + Send + Sync>,
    /// Client connections that are open now.
    pub connections: Box<dyn Fn() -> usize + Send + Sync>,
    /// Told to drain and end.
    pub stop: CancellationToken,
    /// Held while old rows are dropped, costs rebuilt, or the store is moved.
    pub upkeep: Upkeep,
    /// What goes on although the caller does not wait for it.
    pub tasks: TaskTracker,
}

/// Whose turn it is to drop rows, to rebuild what they add up to, or to move them.
pub type Upkeep = Arc<tokio::sync::Mutex<()>>;

/// What the daemon says of itself.
pub struct About {
    /// Name of this node.
    pub node: String,
    /// When it started.
    pub started_at: Timestamp,
    /// Addresses that clients reach it at.
    pub listen: Vec<String>,
    /// The data folder.
    pub data: PathBuf,
    /// The configuration file.
    pub config_file: Option<PathBuf>,
    /// The configuration in force, as TOML.
    pub config_toml: String,
}

/// Who calls.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// User id of its process.
    pub uid: u32,
    /// Its process id, where the system tells it.
    pub pid: Option<u32>,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
enum AdminError {
    /// The call's values are wrong.
    #[error("{0}")]
    Invalid(Invalid),
    /// There is no such key.
    #[error("there is no key {}", .0)]
    NoKey(Missing),
    /// There is no such account.
    #[error("there is no account {}", .0)]
    NoAccount(Missing),
    /// No price of the model was set by hand.
    #[error("no price is set by hand for {}", .0)]
    NotSet(Missing),
    /// Keys are bound to the account.
    #[error("keys are bound to this account: {}", .0.join(", "))]
    Bound(Vec<String>),
    /// The change was not made.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// The prices were not changed.
    #[error(transparent)]
    Prices(#[from] PricesError),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What the journal has does not reach the store, or must not now.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// Costs were not rebuilt, or not wholly.
    #[error(transparent)]
    Rebuild(#[from] RebuildError),
    /// The store was not moved.
    #[error(transparent)]
    Migrate(#[from] MigrateError),
}

/// A name that stands for nothing, and the one that may be meant.
#[derive(Debug)]
struct Missing {
    name: String,
    near: Option<String>,
}

impl Missing {
    fn among<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Self {
        let near = nearest(name, known.map(|known| (known, known)));
        Self { name: name.to_owned(), near: near.map(str::to_owned) }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.near {
            Some(near) => write!(f, "{:?}; did you mean {near:?}?", self.name),
            None => write!(f, "{:?}", self.name),
        }
    }
}

/// What is wrong with a call's values.
#[derive(Debug, thiserror::Error)]
enum Invalid {
    /// It is no JSON of the call's form.
    #[error("the call cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// It is larger than any call.
    #[error("the call is too large")]
    Size,
    /// It did not arrive.
    #[error("the call did not arrive in time")]
    Late,
    /// A name is empty or too long, or holds characters that names have not.
    #[error(transparent)]
    Name(#[from] name::NoName),
    /// An address is no URL that calls can be sent to.
    #[error("a base URL looks like https://host/path, not {0:?}")]
    BaseUrl(String),
    /// The kind has no address of its own.
    #[error("an account of this kind needs a base URL")]
    BaseUrlMissing,
    /// The kind needs a credential.
    #[error("an account of this kind needs a secret")]
    SecretMissing,
    /// The secret cannot be sent.
    #[error("the secret is empty or holds characters that no header can carry")]
    Secret,
    /// The secret is a key of a relay.
    #[error("the secret begins with {0:?}: it is a key of a relay, not of an upstream")]
    OwnKey(String),
    /// Out of range.
    #[error("priority and weight are 1 to 100")]
    Rank,
    /// A gap between calls is longer than any.
    #[error("a gap between calls is an hour at most")]
    Gap,
    /// A header cannot be sent, or is not the operator's to set.
    #[error("the header {0:?} cannot be set")]
    Header(String),
    /// A header is where credentials stand.
    #[error("the header {0:?} carries a credential, and headers are stored in clear")]
    CredentialHeader(String),
    /// Only the simulator has these settings.
    #[error("only accounts of kind simulator have simulator settings")]
    NotSimulator,
    /// It would have no effect.
    #[error("an account of kind {kind} has no {what}")]
    NoEffect {
        /// The account's kind.
        kind: AccountKind,
        /// What was given for it.
        what: &'static str,
    },
    /// A simulator setting is out of range.
    #[error(
        "chunks are 1 to 10000, the latency at most 600000 ms, the gap at most 60000 ms, errors at most 100 percent"
    )]
    Simulator,
    /// Two ways to end.
    #[error("a key either expires at a time or lives for a time from its first use")]
    TwoEnds,
    /// Over before it began.
    #[error("the end of a key's life lies in the future")]
    PastEnd,
    /// A limit that is not there cannot be taken away.
    #[error(transparent)]
    Limit(NoSuchLimit),
    /// A call could not be written down with what it holds of them.
    #[error(
        "a key, owner or account has at most {LIMITS_MAX} limits, whose texts without the amounts have at most {NAMES_BYTES_MAX} bytes together"
    )]
    Limits,
    /// A deleted key stays deleted.
    #[error("the key is deleted")]
    Deleted,
    /// All prices that were set would be taken back, one by one.
    #[error("no price of {0} would be left; `relayctl pricing unset {0}` takes all of them back")]
    NoPriceLeft(String),
    /// A store that there is not.
    #[error("the URL of a store {0}")]
    StoreUrl(NoStore),
    /// Its keys and accounts could not be read.
    #[error("the server's data was sealed with another sealing key than this daemon's")]
    OtherSealingKey,
    /// A price for nothing.
    #[error("a price is for one model: its exact name, 1 to {MODEL_BYTES_MAX} bytes, no pattern")]
    Model,
}

impl From<DirectoryError> for AdminError {
    fn from(error: DirectoryError) -> Self {
        Self::Edit(error.into())
    }
}

impl From<Invalid> for AdminError {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid)
    }
}

impl AdminError {
    fn problem(&self) -> Problem {
        let (code, hint) = match self {
            Self::Invalid(Invalid::Deleted | Invalid::NoPriceLeft(_)) => (ProblemCode::Conflict, None),
            Self::Invalid(Invalid::Limit(_)) => (ProblemCode::NotFound, None),
            Self::Invalid(Invalid::CredentialHeader(_)) => (
                ProblemCode::Invalid,
                Some(
                    "give it as the account's secret, as with --secret-env; the provider puts it where it belongs",
                ),
            ),
            Self::Invalid(_) | Self::Prices(PricesError::List(_) | PricesError::Price(_)) => {
                (ProblemCode::Invalid, None)
            }
            Self::NoKey(missing) | Self::NoAccount(missing) | Self::NotSet(missing)
                if missing.near.is_some() =>
            {
                (ProblemCode::NotFound, None)
            }
            Self::NoKey(_) => (ProblemCode::NotFound, Some("`relayctl key list` shows all keys")),
            Self::NoAccount(_) => (ProblemCode::NotFound, Some("`relayctl account list` shows all accounts")),
            Self::NotSet(_) | Self::Prices(PricesError::NotSet) => {
                (ProblemCode::NotFound, Some("`relayctl pricing show` says where each price comes from"))
            }
            Self::Bound(_) => (
                ProblemCode::Conflict,
                Some(
                    "`--force` removes it all the same; those that are bound to no other then have no account",
                ),
            ),
            Self::Edit(EditError::NameTaken(_)) => (ProblemCode::Conflict, Some("choose another name")),
            Self::Edit(EditError::Changed) | Self::Prices(PricesError::Edit(EditError::Changed)) => {
                (ProblemCode::Conflict, Some("look at it again, then try again"))
            }
            Self::Store(StoreError::Refused(AdoptionError::Another)) => {
                (ProblemCode::Conflict, Some("`relayctl store adopt --as-is` takes it all the same"))
            }
            Self::Store(StoreError::Refused(_)) => (ProblemCode::Conflict, None),
            Self::Migrate(error) => return error.problem(),
            Self::Ledger(LedgerError::Held) | Self::Rebuild(RebuildError::Moved(_)) => {
                (ProblemCode::Conflict, Some("try it again"))
            }
            Self::Rebuild(RebuildError::Gone) => (ProblemCode::Conflict, None),
            Self::Edit(EditError::Directory(DirectoryError::Store(_)))
            | Self::Store(_)
            | Self::Ledger(_)
            | Self::Rebuild(RebuildError::Store(_)) => {
                (ProblemCode::Unavailable, Some("the daemon's log says more"))
            }
            Self::Edit(EditError::Crypto(_) | EditError::Json(_) | EditError::Directory(_))
            | Self::Prices(PricesError::Edit(_)) => {
                (ProblemCode::Internal, Some("the daemon's log says more"))
            }
        };
        Problem { code, message: self.to_string(), hint: hint.map(str::to_owned) }
    }
}

const fn status_of(code: ProblemCode) -> StatusCode {
    match code {
        ProblemCode::Invalid => StatusCode::BAD_REQUEST,
        ProblemCode::NotFound => StatusCode::NOT_FOUND,
        ProblemCode::Denied => StatusCode::FORBIDDEN,
        ProblemCode::Conflict => StatusCode::CONFLICT,
        ProblemCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ProblemCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// A reply, whole or line by line.
type Body = Either<Full<Bytes>, Lines>;

/// A call's reply as JSON, or why it failed.
type Answer = Result<Bytes, AdminError>;

impl Admin {
    /// Answers one call.
    async fn answer(self: &Arc<Self>, request: Request<Incoming>, peer: Peer) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path();
        let answer = if parts.method == Method::POST {
            match timeout(CALL_TIMEOUT, Limited::new(body, CALL_BYTES_MAX).collect()).await {
                Ok(Ok(body)) => self.dispatch(path, &body.to_bytes(), peer).await,
                Ok(Err(_)) => Some(Err(Invalid::Size.into())),
                Err(_) => Some(Err(Invalid::Late.into())),
            }
        } else {
            None
        };
        let problem = match answer {
            Some(Ok(reply)) => return json(StatusCode::OK, reply),
            Some(Err(error)) => told(path, &error),
            None => Problem {
                code: ProblemCode::NotFound,
                message: format!("this relayd has no call {path:?}"),
                hint: Some("relayctl and relayd should be of the same version".to_owned()),
            },
        };
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        json(status_of(problem.code), Body::Left(Full::new(body.into())))
    }

    /// Finds the call of a path; `None` if there is none.
    async fn dispatch(
        self: &Arc<Self>,
        path: &str,
        body: &[u8],
        peer: Peer,
    ) -> Option<Result<Body, AdminError>> {
        let answer = match path.split('/').nth(2) {
            Some("keys") => self.dispatch_key(path, body, peer).await,
            Some("accounts") => self.dispatch_account(path, body, peer).await,
            Some("prices" | "limits") => self.dispatch_rule(path, body, peer).await,
            Some("costs" | "store") => return self.dispatch_long(path, body, peer),
            _ => self.dispatch_question(path, body, peer).await,
        };
        Some(answer?.map(|reply| Body::Left(Full::new(reply))))
    }

    /// What takes long, and tells how far it is.
    fn dispatch_long(
        self: &Arc<Self>,
        path: &str,
        body: &[u8],
        peer: Peer,
    ) -> Option<Result<Body, AdminError>> {
        let admin = Arc::clone(self);
        let lines =
            match path {
                RebuildCosts::PATH => self
                    .in_lines(body, async move |call, teller| admin.rebuild_costs(&call, peer, teller).await),
                MigrateStore::PATH => self
                    .in_lines(body, async move |call, teller| admin.migrate_store(call, peer, teller).await),
                AdoptStore::PATH => {
                    self.in_lines(body, async move |call, _| admin.adopt_store(&call, peer).await)
                }
                _ => return None,
            };
        Some(lines.map(Body::Right))
    }

    async fn dispatch_key(&self, path: &str, body: &[u8], peer: Peer) -> Option<Answer> {
        Some(match path {
            api::CreateKey::PATH => handle(body, async |call| self.create_key(call, peer).await).await,
            api::ListKeys::PATH => handle(body, async |call| self.list_keys(&call).await).await,
            api::ShowKey::PATH => handle(body, async |call| self.show_key(&call).await).await,
            api::UpdateKey::PATH => handle(body, async |call| self.update_key(call, peer).await).await,
            api::DeleteKey::PATH => handle(body, async |call| self.delete_key(&call, peer).await).await,
            _ => return None,
        })
    }

    async fn dispatch_account(&self, path: &str, body: &[u8], peer: Peer) -> Option<Answer> {
        Some(match path {
            api::AddAccount::PATH => handle(body, async |call| self.add_account(call, peer).await).await,
            api::ListAccounts::PATH => {
                handle(body, async |_: api::ListAccounts| self.list_accounts().await).await
            }
            api::ShowAccount::PATH => handle(body, async |call| self.show_account(&call).await).await,
            api::UpdateAccount::PATH => {
                handle(body, async |call| self.update_account(call, peer).await).await
            }
            api::TestAccount::PATH => handle(body, async |call| self.test_account(&call).await).await,
            api::RemoveAccount::PATH => {
                handle(body, async |call| self.remove_account(&call, peer).await).await
            }
            _ => return None,
        })
    }

    /// Prices, and limits that keys share.
    async fn dispatch_rule(&self, path: &str, body: &[u8], peer: Peer) -> Option<Answer> {
        Some(match path {
            api::ShowPrices::PATH => handle(body, async |call| Ok(self.show_prices(&call))).await,
            api::UpdatePrices::PATH => handle(body, async |call| self.update_prices(call, peer).await).await,
            api::SetPrice::PATH => handle(body, async |call| self.set_price(&call, peer).await).await,
            api::UnsetPrice::PATH => handle(body, async |call| self.unset_price(call, peer).await).await,
            api::ListLimits::PATH => handle(body, async |_: api::ListLimits| self.list_limits().await).await,
            api::SetLimits::PATH => handle(body, async |call| self.set_limits(call, peer).await).await,
            _ => return None,
        })
    }

    /// The daemon itself, and what happened.
    async fn dispatch_question(&self, path: &str, body: &[u8], peer: Peer) -> Option<Answer> {
        Some(match path {
            api::ShowStatus::PATH => handle(body, async |_: api::ShowStatus| self.status().await).await,
            api::StopDaemon::PATH => handle(body, async |_: api::StopDaemon| Ok(self.stop(peer))).await,
            api::ShowConfig::PATH => handle(body, async |_: api::ShowConfig| Ok(self.config())).await,
            api::SumUsage::PATH => handle(body, async |call| self.sum_usage(&call).await).await,
            api::ListRequests::PATH => handle(body, async |call| self.list_requests(call).await).await,
            api::Explain::PATH => handle(body, async |call| self.explain(&call).await).await,
            api::ListEvents::PATH => handle(body, async |call| Ok(self.list_events(&call))).await,
            api::ListAudit::PATH => handle(body, async |call| self.list_audit(&call).await).await,
            _ => return None,
        })
    }

    /// An audit entry for a change that a caller makes now.
    fn audit(&self, peer: Peer, action: &str, subject: &str, name: &str, fields: Vec<String>) -> AuditEntry {
        AuditEntry {
            at: self.clock.now(),
            uid: Some(peer.uid),
            pid: peer.pid,
            action: action.to_owned(),
            subject: subject.to_owned(),
            name: name.to_owned(),
            fields,
        }
    }
}

/// Reads a call, makes it, writes its reply: the types agree because the call names its reply.
async fn handle<C: AdminCall>(
    body: &[u8],
    make: impl AsyncFnOnce(C) -> Result<C::Reply, AdminError>,
) -> Answer {
    let call = serde_json::from_slice(body).map_err(Invalid::Json)?;
    let reply = make(call).await?;
    Ok(serde_json::to_vec(&reply).map_err(EditError::Json)?.into())
}

/// The answer to a caller that may not speak.
fn denied(peer: Peer) -> Response<Body> {
    let problem = Problem {
        code: ProblemCode::Denied,
        message: format!(
            "the user {} may not control this relayd: it serves its own user and root",
            peer.uid
        ),
        hint: Some("run relayctl as the user that runs relayd".to_owned()),
    };
    let body = serde_json::to_vec(&problem).unwrap_or_default();
    json(status_of(problem.code), Body::Left(Full::new(body.into())))
}

/// What the caller is told of a failure. The log is told too where the caller cannot help it.
fn told(path: &str, error: &AdminError) -> Problem {
    let problem = error.problem();
    if matches!(problem.code, ProblemCode::Unavailable | ProblemCode::Internal) {
        tracing::error!(path, error = ?error, "admin call failed");
    }
    problem
}

fn json(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, json);
    response
}

/// Every call is written down with what it holds of its limits, and a record has its bounds.
fn checked_limits(limits: Vec<Limit>) -> Result<Vec<Limit>, Invalid> {
    let bytes: usize = limits.iter().map(|limit| limit.counter_name().len()).sum();
    if limits.len() <= LIMITS_MAX && bytes <= NAMES_BYTES_MAX { Ok(limits) } else { Err(Invalid::Limits) }
}

/// Names are shown in tables and typed in commands.
fn check_name(name: &str) -> Result<(), Invalid> {
    Ok(name::check(name)?)
}
