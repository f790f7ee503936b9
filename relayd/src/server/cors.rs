//! Which web pages may call the relay from a browser.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use crate::config::Cors;
use crate::relay::ReplyBody;

/// The origin that a request comes from, if its page may call.
pub(super) fn allowed(cors: &Cors, headers: &HeaderMap) -> Option<HeaderValue> {
    let origin = headers.get(ORIGIN)?;
    let is_allowed = match cors {
        Cors::Off => false,
        Cors::Origins(origins) => {
            origins.iter().any(|allowed| allowed == "*" || allowed.as_bytes() == origin.as_bytes())
        }
    };
    is_allowed.then(|| origin.clone())
}

/// Answers a browser that asks before it calls.
pub(super) fn preflight(headers: &HeaderMap) -> Response<ReplyBody> {
    let mut response = Response::new(ReplyBody::from(bytes::Bytes::new()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    let reply = response.headers_mut();
    reply.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD, POST, OPTIONS"));
    reply.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    if let Some(asked) = headers.get(ACCESS_CONTROL_REQUEST_HEADERS) {
        reply.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
    }
    response
}

/// Lets the page read a reply.
pub(super) fn allow(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.append(VARY, HeaderValue::from_static("origin"));
    headers.insert(
        ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("x-relay-request-id, x-request-id, request-id, retry-after"),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_allowed_by_the_switch() {
        let headers = HeaderMap::from_iter([(ORIGIN, HeaderValue::from_static("https://a.test"))]);
        let listed = |origin: &str| Cors::Origins(vec![origin.to_owned()]);
        for (cors, expected) in [
            (Cors::Off, false),
            (listed("*"), true),
            (listed("https://a.test"), true),
            (listed("https://b.test"), false),
        ] {
            assert_eq!(allowed(&cors, &headers).is_some(), expected, "{cors:?}");
        }
        assert_eq!(allowed(&listed("*"), &HeaderMap::new()), None, "no browser, no header");
    }
}
