//! A failure to a reply in the client's protocol. What a failed call means is said in `relay`; here stands what
//! can go wrong before a call is one.

use http::header::{ALLOW, CONNECTION, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use shared::domain::{Protocol, RequestId, Timestamp};

use super::reply;
use super::router::NoRoute;
use crate::auth::AuthError;
use crate::protocol::{ErrorKind, client_status, error_body};
use crate::relay::{Problem, RelayError, ReplyBody};
use crate::store::StoreError;

/// Why a request was not served.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServerError {
    /// Nothing is at this path.
    #[error("there is nothing here; {}", instead(*nearest))]
    NoRoute { nearest: Option<&'static str> },
    /// The path is known, but not with this method.
    #[error("this path takes {allowed}")]
    Method { allowed: &'static str },
    /// A WebSocket or another protocol was asked for.
    #[error("this relay speaks plain HTTP; use the POST form of this call")]
    Upgrade,
    /// The model is none that the key can reach.
    #[error("the model {0:?} does not exist, or this API key cannot reach it")]
    NoModel(String),
    /// The client may not come in.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The call failed.
    #[error(transparent)]
    Relay(#[from] RelayError),
    /// The store failed.
    #[error("the relay's store cannot be reached")]
    Store(#[from] StoreError),
}

/// The nearest route, or where calls go when none is near.
fn instead(nearest: Option<&'static str>) -> String {
    const OVERVIEW: &str = "calls go to /v1/messages, /v1/chat/completions, /v1/responses, /v1/embeddings or \
        /v1beta/models/{model}:generateContent, and /v1/models lists the models";
    nearest.map_or_else(|| OVERVIEW.to_owned(), |nearest| format!("the nearest route is {nearest}"))
}

impl From<NoRoute> for ServerError {
    fn from(none: NoRoute) -> Self {
        match none {
            NoRoute::Unknown { nearest } => Self::NoRoute { nearest },
            NoRoute::Method { allowed } => Self::Method { allowed },
        }
    }
}

impl ServerError {
    fn problem(&self, protocol: Protocol) -> Problem {
        let (kind, retry_at) = match self {
            Self::Relay(error) => return error.problem(protocol),
            Self::Method { .. } => {
                return Problem { kind: ErrorKind::InvalidRequest, status: 405, retry_at: None };
            }
            Self::Upgrade => return Problem { kind: ErrorKind::InvalidRequest, status: 426, retry_at: None },
            Self::NoRoute { .. } | Self::NoModel(_) => (ErrorKind::NotFound, None),
            Self::Auth(
                AuthError::Missing | AuthError::Unknown | AuthError::Disabled | AuthError::Expired(_),
            ) => (ErrorKind::Authentication, None),
            Self::Auth(AuthError::Throttled { retry_at }) => (ErrorKind::RateLimit, Some(*retry_at)),
            Self::Auth(AuthError::Activation(_)) | Self::Store(_) => (ErrorKind::Unavailable, None),
        };
        Problem { kind, status: client_status(protocol, kind), retry_at }
    }

    /// Whether it is the relay's own fault. Resting accounts were logged when they began to rest.
    const fn is_ours(&self) -> bool {
        match self {
            Self::Relay(error) => error.is_ours(),
            Self::Auth(AuthError::Activation(_)) | Self::Store(_) => true,
            _ => false,
        }
    }

    /// The reply that tells it.
    pub(super) fn render(&self, protocol: Protocol, id: RequestId, now: Timestamp) -> Response<ReplyBody> {
        let problem = self.problem(protocol);
        if self.is_ours() {
            tracing::warn!(request = %id, status = problem.status, error = %self, "request failed");
        } else {
            tracing::debug!(request = %id, status = problem.status, error = %self, "request failed");
        }
        let retry_after = problem.retry_after_s(now);
        let message = self.to_string();
        let body = error_body(protocol, problem.status, problem.kind, &message, &id.to_string(), retry_after);
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = reply(status, body);
        let headers = response.headers_mut();
        if let Some(seconds) = retry_after {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        match self {
            Self::Method { allowed } => drop(headers.insert(ALLOW, HeaderValue::from_static(allowed))),
            Self::Upgrade => drop(headers.insert(CONNECTION, HeaderValue::from_static("close"))),
            _ => {}
        }
        response
    }
}
