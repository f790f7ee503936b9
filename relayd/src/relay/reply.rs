//! What a client gets back: bytes that are at hand, or an upstream's reply that streams through a tap.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONNECTION, HeaderName};
use http::{HeaderMap, Response};
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};

use super::drain::AttendedReply;
use super::tap::Tap;

/// The body of a reply.
pub enum ReplyBody {
    /// Bytes that are at hand.
    Full(Full<Bytes>),
    /// An upstream's reply.
    Tap(Box<Tap>),
    /// The same, read to its end if the client leaves.
    Attended(AttendedReply),
}

impl From<Bytes> for ReplyBody {
    fn from(bytes: Bytes) -> Self {
        Self::Full(Full::new(bytes))
    }
}

/// Why a reply broke off. The client sees a connection that ends too early.
#[derive(Debug, thiserror::Error)]
pub enum ReplyError {
    /// The upstream broke off.
    #[error("the upstream's reply broke off")]
    Broken(#[source] hyper::Error),
    /// The upstream paused for too long.
    #[error("the upstream's reply stalled")]
    Stalled,
    /// The stream ended without the event that ends it.
    #[error("the upstream's stream ended before the reply was complete")]
    Truncated,
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = ReplyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReplyError>>> {
        match self.get_mut() {
            Self::Full(full) => Pin::new(full).poll_frame(cx).map_err(|never| match never {}),
            Self::Tap(tap) => Pin::new(&mut **tap).poll_frame(cx),
            Self::Attended(reply) => reply.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(full) => full.is_end_stream(),
            Self::Tap(tap) => tap.is_end_stream(),
            Self::Attended(reply) => reply.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(full) => full.size_hint(),
            Self::Tap(tap) => tap.size_hint(),
            Self::Attended(reply) => reply.size_hint(),
        }
    }
}

/// Headers that belong to one connection, tell the client whose account served it, or let web pages read what
/// our own setting does not.
fn is_withheld(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-connection"
            | "set-cookie"
            | "alt-svc"
            | "anthropic-organization-id"
            | "anthropic-workspace-id"
            | "openai-organization"
            | "openai-project"
            | "access-control-allow-credentials"
            | "access-control-allow-headers"
            | "access-control-allow-methods"
            | "access-control-allow-origin"
    )
}

/// The head of an upstream's reply as the client gets it.
pub(super) fn head(mut parts: http::response::Parts) -> Response<()> {
    strip(&mut parts.headers);
    parts.version = http::Version::HTTP_11;
    Response::from_parts(parts, ())
}

fn strip(headers: &mut HeaderMap) {
    // Most replies have none of these: look before removing.
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .collect();
        named.iter().for_each(|name| drop(headers.remove(name)));
    }
    let withheld: Vec<HeaderName> =
        headers.keys().filter(|name| is_withheld(name.as_str())).cloned().collect();
    withheld.iter().for_each(|name| drop(headers.remove(name)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_headers_stay_and_others_pass() {
        let response = Response::builder()
            .header("connection", "close, x-hop")
            .header("x-hop", "1")
            .header("transfer-encoding", "chunked")
            .header("set-cookie", "a=b")
            .header("x-request-id", "req_1")
            .header("anthropic-ratelimit-requests-remaining", "7")
            .body(())
            .unwrap();
        let head = head(response.into_parts().0);
        let names: Vec<&str> = head.headers().keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["x-request-id", "anthropic-ratelimit-requests-remaining"]);
    }
}
