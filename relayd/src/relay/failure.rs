//! Everything that can keep a call from being served.

use shared::domain::limit::Metric;
use shared::domain::{Protocol, Timestamp};
use tokio::task::JoinError;

use super::{BodyError, Queued};
use crate::auth::AuthError;
use crate::ledger::JournalError;
use crate::limits::{LimitExceeded, Scope};
use crate::protocol::{ErrorKind, ProtocolError, client_status};
use crate::scheduler::health::{Ailment, Failure};
use crate::scheduler::{Cooling, NoAccount};
use crate::store::StoreError;

/// Why a call was not served.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The body could not be read.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// The body is not what the protocol wants.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// The key may not ask for the model.
    #[error("this API key may not use the model {0:?}")]
    ModelDenied(String),
    /// No account may or can serve it.
    #[error("{}", schedule_message(*.none, .model, *.protocol))]
    Schedule {
        /// Why.
        none: NoAccount,
        /// The model that was asked for.
        model: String,
        /// The client's protocol.
        protocol: Protocol,
    },
    /// The key may not be used any more: it was changed, or ended, while the call waited.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// A limit of the key refused it.
    #[error("{exceeded}{queued}")]
    Limit {
        /// Which, and where it stands.
        exceeded: Box<LimitExceeded>,
        /// How long it waited for room.
        queued: Queued,
        /// When it makes sense to try again.
        retry_at: Option<Timestamp>,
    },
    /// A limit of money holds for it, and nobody knows what it costs.
    #[error("the model {0:?} has no price, and this API key has a limit of money")]
    Unpriced(String),
    /// The same for limits of the accounts that could serve it: that is their operator's to mend.
    #[error(
        "the model {0:?} has no price, and the accounts that serve it have limits of money; the relay's operator has to look after it"
    )]
    AccountUnpriced(String),
    /// It waited, and the daemon is about to end.
    #[error("the relay is stopping; this call was not sent")]
    Stopping,
    /// The journal has no room, so that the call could not be booked.
    #[error("the relay cannot book calls now")]
    Journal(#[from] JournalError),
    /// Nobody is admitted for a moment.
    #[error("the relay's store is being moved; try again in a few seconds")]
    Moving {
        /// When it makes sense to try again.
        retry_at: Timestamp,
    },
    /// The store failed.
    #[error("the relay's store cannot be reached")]
    Store(#[source] StoreError),
    /// Reading its body failed within the relay.
    #[error("the relay failed to read the body; its log says more")]
    Unread(#[source] JoinError),
    /// The settings of every account that was tried make no valid request.
    #[error(
        "the account that would serve this call is not set up right; the relay's operator has to look after it"
    )]
    Misconfigured,
    /// Every account that was tried refused our credential.
    #[error("the relay's own access to the upstream was refused; its operator has to look after it")]
    Credential {
        /// When it is tried again.
        retry_at: Option<Timestamp>,
    },
    /// Every account that was tried failed without an answer that could be passed on.
    #[error("the upstream {}", .failure.describe())]
    Failed {
        /// How the most hopeful of them failed.
        failure: Failure,
        /// When it makes sense to try again, where that is known.
        retry_at: Option<Timestamp>,
    },
    /// No upstream could be reached.
    #[error("the upstream cannot be reached")]
    Unreachable {
        /// When it is tried again.
        retry_at: Option<Timestamp>,
    },
}

impl From<StoreError> for RelayError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Moving { retry_at } => Self::Moving { retry_at },
            error => Self::Store(error),
        }
    }
}

/// A failure as the client is told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What it is in the protocol's words.
    pub kind: ErrorKind,
    /// HTTP status.
    pub status: u16,
    /// When it makes sense to try again, where that is known.
    pub retry_at: Option<Timestamp>,
}

impl Problem {
    /// The seconds after which it makes sense to try again, where that is known.
    pub fn retry_after_s(&self, now: Timestamp) -> Option<u64> {
        self.retry_at.map(|at| seconds_until(at, now))
    }
}

/// Rounded up, and never zero: a client that comes back too early is refused again.
pub(super) fn seconds_until(at: Timestamp, now: Timestamp) -> u64 {
    u64::try_from(at.since(now).as_millis().div_ceil(1_000)).unwrap_or(u64::MAX).max(1)
}

impl RelayError {
    /// A limit has no room for the call.
    pub(super) fn limit(exceeded: LimitExceeded, queued: Queued, now: Timestamp) -> Self {
        let retry_at = exceeded.retry_after(now).map(|wait| now.after(wait));
        Self::Limit { exceeded: Box::new(exceeded), queued, retry_at }
    }

    /// Whether it is the relay's own fault, so that its operator should hear of it.
    pub const fn is_ours(&self) -> bool {
        matches!(
            self,
            Self::Journal(_)
                | Self::Store(_)
                | Self::Unread(_)
                | Self::Misconfigured
                | Self::AccountUnpriced(_)
                | Self::Credential { .. }
        )
    }

    /// The one place where a failure gets its kind and status.
    pub fn problem(&self, protocol: Protocol) -> Problem {
        use ErrorKind::{
            Billing, Internal, InvalidRequest, NotFound, Permission, RateLimit, Timeout, TooLarge,
            Unavailable, UnsupportedMedia,
        };
        let (kind, retry_at) = match self {
            Self::Body(BodyError::TooLarge(_)) => (TooLarge, None),
            Self::Body(BodyError::Encoding) => (UnsupportedMedia, None),
            Self::Body(BodyError::NoRoom) => (Unavailable, None),
            // 408 has no kind of its own in any of the protocols.
            Self::Body(BodyError::Timeout) => {
                return Problem { kind: InvalidRequest, status: 408, retry_at: None };
            }
            Self::Body(BodyError::Broken(_) | BodyError::Undecodable(_)) | Self::Protocol(_) => {
                (InvalidRequest, None)
            }
            Self::ModelDenied(_) | Self::Unpriced(_) => (Permission, None),
            Self::Schedule { none, .. } => match none {
                NoAccount::NotPermitted => (Permission, None),
                NoAccount::NoModel => (NotFound, None),
                NoAccount::NoProtocol => (InvalidRequest, None),
                NoAccount::Crowded { until } => (RateLimit, Some(*until)),
                NoAccount::Unavailable { cooling: None } => (Unavailable, None),
                NoAccount::Unavailable { cooling: Some(cooling) } => (kind_of(*cooling), Some(cooling.until)),
            },
            Self::Auth(_) => (ErrorKind::Authentication, None),
            Self::Limit { exceeded, retry_at, .. } => match exceeded.limit.metric {
                // What an account has spent is not the client's bill.
                Metric::Cost if exceeded.is_spent() && !matches!(exceeded.scope, Scope::Account) => {
                    (Billing, *retry_at)
                }
                _ => (RateLimit, *retry_at),
            },
            Self::Journal(_) | Self::Store(_) | Self::Stopping | Self::AccountUnpriced(_) => {
                (Unavailable, None)
            }
            Self::Moving { retry_at } => (Unavailable, Some(*retry_at)),
            Self::Misconfigured | Self::Unread(_) => (Internal, None),
            Self::Credential { retry_at } | Self::Unreachable { retry_at } => (Unavailable, *retry_at),
            Self::Failed { failure, retry_at } => match failure {
                Failure::Timeout | Failure::Stalled => (Timeout, *retry_at),
                Failure::Status(429) => (RateLimit, *retry_at),
                Failure::Status(503 | 529) => (ErrorKind::Overloaded, *retry_at),
                // The gateway is not to blame; no protocol has a kind of its own for that.
                Failure::Status(_) | Failure::Broken | Failure::StreamError => {
                    return Problem { kind: Internal, status: 502, retry_at: *retry_at };
                }
            },
        };
        Problem { kind, status: client_status(protocol, kind), retry_at }
    }
}

/// Resting accounts are told of like the replies that made them rest.
const fn kind_of(cooling: Cooling) -> ErrorKind {
    match cooling.ailment {
        Ailment::Limited => ErrorKind::RateLimit,
        Ailment::Overloaded => ErrorKind::Overloaded,
        Ailment::AuthFailed | Ailment::Unreachable => ErrorKind::Unavailable,
    }
}

fn schedule_message(none: NoAccount, model: &str, protocol: Protocol) -> String {
    match none {
        NoAccount::NotPermitted => {
            format!("this API key may not use the accounts that serve the model {model:?}")
        }
        NoAccount::NoModel => format!("no account serves the model {model:?}"),
        NoAccount::NoProtocol => format!(
            "the accounts that serve the model {model:?} do not speak this protocol ({}); use the route of theirs",
            protocol.name()
        ),
        NoAccount::Crowded { .. } => {
            format!("every account that serves the model {model:?} has more calls to start than may wait")
        }
        NoAccount::Unavailable { .. } => {
            format!("every account that serves the model {model:?} is unavailable right now")
        }
    }
}
