//! Why the simulator refuses, and how each protocol says so.

use http::StatusCode;
use serde_json::{Value, json};
use shared::domain::Protocol;

/// A refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// There is nothing at this address.
    #[error("the simulator has nothing at this address")]
    NoEndpoint,
    /// The body is not a JSON object.
    #[error("the body is not a JSON object")]
    NotJson,
    /// A field that the protocol requires is missing or of the wrong kind.
    #[error("{0}: field required")]
    Missing(&'static str),
    /// More was asked for than is sensible.
    #[error("{0}: out of range")]
    OutOfRange(&'static str),
    /// The model's name asks for this status.
    #[error("the model name asks the simulator for this status")]
    Asked(StatusCode),
    /// The account's settings let this call fail.
    #[error("Overloaded")]
    Overloaded,
}

/// What a 429 says about when to come back.
pub(super) const RETRY_AFTER_S: u32 = 7;

/// Anthropic's status for an overloaded service.
const OVERLOADED: u16 = 529;

impl Fault {
    /// The status of the reply.
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::NoEndpoint => StatusCode::NOT_FOUND,
            Self::NotJson | Self::Missing(_) | Self::OutOfRange(_) => StatusCode::BAD_REQUEST,
            Self::Asked(status) => status,
            Self::Overloaded => StatusCode::from_u16(OVERLOADED).unwrap_or(StatusCode::SERVICE_UNAVAILABLE),
        }
    }

    /// How long the client is told to wait, in seconds.
    pub(super) fn retry_after_s(self) -> Option<u32> {
        (self.status() == StatusCode::TOO_MANY_REQUESTS).then_some(RETRY_AFTER_S)
    }

    /// The body of the reply in a protocol's form; `id` is the request's.
    pub(super) fn body(self, protocol: Protocol, id: &str) -> Value {
        let (status, message) = (self.status().as_u16(), self.to_string());
        match protocol {
            Protocol::Messages => json!({
                "type": "error",
                "error": { "type": anthropic_type(status), "message": message },
                "request_id": format!("req_{id}"),
            }),
            Protocol::ChatCompletions | Protocol::Responses => {
                let (kind, code) = openai_type(status);
                let param = match self {
                    Self::Missing(field) | Self::OutOfRange(field) => Some(field),
                    Self::NoEndpoint | Self::NotJson | Self::Asked(_) | Self::Overloaded => None,
                };
                json!({ "error": { "message": message, "type": kind, "param": param, "code": code } })
            }
            Protocol::GenerateContent => {
                let mut error =
                    json!({ "code": status, "message": message, "status": google_status(status) });
                if let Some(seconds) = self.retry_after_s() {
                    error["details"] = json!([{
                        "@type": "type.googleapis.com/google.rpc.RetryInfo",
                        "retryDelay": format!("{seconds}s"),
                    }]);
                }
                json!({ "error": error })
            }
        }
    }
}

const fn anthropic_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        409 => "conflict_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        504 => "timeout_error",
        OVERLOADED => "overloaded_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    }
}

const fn openai_type(status: u16) -> (&'static str, Option<&'static str>) {
    match status {
        401 => ("invalid_request_error", Some("invalid_api_key")),
        402 => ("insufficient_quota", Some("insufficient_quota")),
        403 => ("permission_error", None),
        404 => ("invalid_request_error", Some("model_not_found")),
        429 => ("requests", Some("rate_limit_exceeded")),
        500.. => ("server_error", None),
        _ => ("invalid_request_error", None),
    }
}

const fn google_status(status: u16) -> &'static str {
    match status {
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        409 => "ABORTED",
        429 => "RESOURCE_EXHAUSTED",
        499 => "CANCELLED",
        501 => "UNIMPLEMENTED",
        503 | OVERLOADED => "UNAVAILABLE",
        504 => "DEADLINE_EXCEEDED",
        500.. => "INTERNAL",
        _ => "INVALID_ARGUMENT",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_protocol_has_its_own_words() {
        for (status, anthropic, openai, google) in [
            (400, "invalid_request_error", "invalid_request_error", "INVALID_ARGUMENT"),
            (401, "authentication_error", "invalid_request_error", "UNAUTHENTICATED"),
            (403, "permission_error", "permission_error", "PERMISSION_DENIED"),
            (404, "not_found_error", "invalid_request_error", "NOT_FOUND"),
            (413, "request_too_large", "invalid_request_error", "INVALID_ARGUMENT"),
            (429, "rate_limit_error", "requests", "RESOURCE_EXHAUSTED"),
            (500, "api_error", "server_error", "INTERNAL"),
            (503, "api_error", "server_error", "UNAVAILABLE"),
            (504, "timeout_error", "server_error", "DEADLINE_EXCEEDED"),
            (529, "overloaded_error", "server_error", "UNAVAILABLE"),
        ] {
            let fault = Fault::Asked(StatusCode::from_u16(status).unwrap());
            assert_eq!(fault.body(Protocol::Messages, "1")["error"]["type"], anthropic, "{status}");
            assert_eq!(fault.body(Protocol::Responses, "1")["error"]["type"], openai, "{status}");
            let body = fault.body(Protocol::GenerateContent, "1");
            assert_eq!((&body["error"]["status"], &body["error"]["code"]), (&json!(google), &json!(status)));
        }
    }

    #[test]
    fn a_rate_limit_says_when_to_come_back() {
        let limited = Fault::Asked(StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(limited.retry_after_s(), Some(7));
        let body = limited.body(Protocol::GenerateContent, "1");
        assert_eq!(body["error"]["details"][0]["retryDelay"], "7s");
        assert_eq!(Fault::Overloaded.retry_after_s(), None);
    }
}
