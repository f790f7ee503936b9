//! What can be wrong with a request's body, and how errors look in each protocol.

use bytes::Bytes;
use serde_json::{Value, json};
use shared::domain::Protocol;

use super::ReplyForm;

pub use shared::domain::MODEL_BYTES_MAX;

/// Why a request body cannot be relayed. The text names the field and may be shown to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// The body is JSON of another kind, or nothing.
    #[error("the request body must be a JSON object")]
    NotAnObject,
    /// The body breaks the grammar of JSON.
    #[error("the request body is not valid JSON: unexpected byte or end at offset {offset}")]
    Malformed {
        /// Where.
        offset: usize,
    },
    /// A field that the relay reads stands there twice: what is checked must be what is sent.
    #[error("the field `{field}` is given more than once")]
    Repeated {
        /// Its name.
        field: &'static str,
    },
    /// There is no `model`, and nothing else says which model is meant.
    #[error("the field `model` is missing")]
    ModelMissing,
    /// `model` is no string.
    #[error("the field `model` must be a string")]
    ModelNotText,
    /// The model's name is empty.
    #[error("the model's name must not be empty")]
    ModelEmpty,
    /// The model's name is too long to be one.
    #[error("the model's name must have at most {MODEL_BYTES_MAX} bytes")]
    ModelTooLong,
    /// A string that the relay reads is no Unicode.
    #[error("the field `{field}` is not valid Unicode text")]
    NotUnicode {
        /// Its name.
        field: &'static str,
    },
}

/// Checks the name of a model, wherever a client wrote it.
///
/// # Errors
/// It is empty or too long to be one.
pub const fn check_model(name: &str) -> Result<(), ProtocolError> {
    match name.len() {
        0 => Err(ProtocolError::ModelEmpty),
        1..=MODEL_BYTES_MAX => Ok(()),
        _ => Err(ProtocolError::ModelTooLong),
    }
}

/// What went wrong, whatever the protocol calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request is wrong.
    InvalidRequest,
    /// The key is missing or unknown.
    Authentication,
    /// The money is spent.
    Billing,
    /// The key may not do this.
    Permission,
    /// There is no such thing.
    NotFound,
    /// The body is too large.
    TooLarge,
    /// The body's encoding or type is not understood.
    UnsupportedMedia,
    /// Too much for now.
    RateLimit,
    /// It took too long.
    Timeout,
    /// The vendor has too much to do.
    Overloaded,
    /// Nobody can serve the call now.
    Unavailable,
    /// The relay's or the vendor's own fault.
    Internal,
}

#[cfg(test)]
impl ErrorKind {
    /// Every kind.
    pub const ALL: [Self; 12] = [
        Self::InvalidRequest,
        Self::Authentication,
        Self::Billing,
        Self::Permission,
        Self::NotFound,
        Self::TooLarge,
        Self::UnsupportedMedia,
        Self::RateLimit,
        Self::Timeout,
        Self::Overloaded,
        Self::Unavailable,
        Self::Internal,
    ];
}

/// The HTTP status with which a client of `protocol` is told. 529 is known to Anthropic's SDKs only.
pub const fn client_status(protocol: Protocol, kind: ErrorKind) -> u16 {
    match kind {
        ErrorKind::InvalidRequest => 400,
        ErrorKind::Authentication => 401,
        ErrorKind::Billing => 402,
        ErrorKind::Permission => 403,
        ErrorKind::NotFound => 404,
        ErrorKind::TooLarge => 413,
        ErrorKind::UnsupportedMedia => 415,
        ErrorKind::RateLimit => 429,
        ErrorKind::Internal => 500,
        ErrorKind::Timeout => 504,
        ErrorKind::Overloaded if matches!(protocol, Protocol::Messages) => 529,
        ErrorKind::Overloaded | ErrorKind::Unavailable => 503,
    }
}

/// The JSON body with which a client of `protocol` is told. `status` is the one that is sent; only Gemini
/// repeats it in the body, and only Gemini says there when to retry: the others read `retry-after`.
pub fn error_body(
    protocol: Protocol,
    status: u16,
    kind: ErrorKind,
    message: &str,
    request_id: &str,
    retry_after_s: Option<u64>,
) -> Bytes {
    let body = match protocol {
        Protocol::Messages => json!({
            "type": "error",
            "error": {"type": messages_type(kind), "message": message},
            "request_id": request_id,
        }),
        Protocol::ChatCompletions | Protocol::Responses => {
            let (kind, code) = openai_type(kind);
            json!({"error": {"message": message, "type": kind, "param": null, "code": code}})
        }
        Protocol::GenerateContent => gemini_error(status, gemini_status(kind), message, retry_after_s),
    };
    body.to_string().into()
}

/// What is sent after a stream that broke off, so that nobody takes the half for the whole. It begins with an
/// empty line, which ends an event that broke off in the middle. Empty for a form that has no place for errors:
/// there, only the connection can be broken.
pub fn truncation_event(protocol: Protocol, form: ReplyForm) -> Bytes {
    const MESSAGE: &str = "the upstream's stream ended before the reply was complete";
    if form != ReplyForm::EventStream {
        return Bytes::new();
    }
    let event = match protocol {
        Protocol::Messages => {
            let data = json!({"type": "error", "error": {"type": "api_error", "message": MESSAGE}});
            format!("\n\nevent: error\ndata: {data}\n\n")
        }
        Protocol::ChatCompletions => {
            let error = json!({"message": MESSAGE, "type": "server_error", "param": null, "code": null});
            format!("\n\ndata: {}\n\n", json!({ "error": error }))
        }
        // Both shapes at once: readers of the API's own form find `code` and `message`, and OpenAI's SDKs raise
        // on whatever has an `error`.
        Protocol::Responses => {
            let error = json!({"type": "server_error", "code": "server_error", "message": MESSAGE});
            let data = json!({
                "type": "error", "code": "server_error", "message": MESSAGE, "param": null, "error": error,
            });
            format!("\n\nevent: error\ndata: {data}\n\n")
        }
        Protocol::GenerateContent => {
            format!("\r\n\r\ndata: {}\r\n\r\n", gemini_error(503, "UNAVAILABLE", MESSAGE, None))
        }
    };
    event.into()
}

const fn messages_type(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::InvalidRequest | ErrorKind::UnsupportedMedia => "invalid_request_error",
        ErrorKind::Authentication => "authentication_error",
        ErrorKind::Billing => "billing_error",
        ErrorKind::Permission => "permission_error",
        ErrorKind::NotFound => "not_found_error",
        ErrorKind::TooLarge => "request_too_large",
        ErrorKind::RateLimit => "rate_limit_error",
        ErrorKind::Timeout => "timeout_error",
        ErrorKind::Overloaded => "overloaded_error",
        ErrorKind::Unavailable | ErrorKind::Internal => "api_error",
    }
}

/// Type and code.
const fn openai_type(kind: ErrorKind) -> (&'static str, Option<&'static str>) {
    match kind {
        ErrorKind::InvalidRequest
        | ErrorKind::NotFound
        | ErrorKind::TooLarge
        | ErrorKind::UnsupportedMedia => ("invalid_request_error", None),
        ErrorKind::Authentication => ("invalid_request_error", Some("invalid_api_key")),
        // What CRS and OpenAI call it, with a status that their SDKs do not try again.
        ErrorKind::Billing => ("insufficient_quota", Some("insufficient_quota")),
        ErrorKind::Permission => ("permission_error", None),
        ErrorKind::RateLimit => ("rate_limit_error", Some("rate_limit_exceeded")),
        ErrorKind::Timeout => ("timeout_error", None),
        ErrorKind::Overloaded | ErrorKind::Unavailable | ErrorKind::Internal => ("server_error", None),
    }
}

const fn gemini_status(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::InvalidRequest | ErrorKind::TooLarge | ErrorKind::UnsupportedMedia => "INVALID_ARGUMENT",
        ErrorKind::Authentication => "UNAUTHENTICATED",
        // Google has no word for money; this is what stands for a quota that is used up.
        ErrorKind::Billing | ErrorKind::RateLimit => "RESOURCE_EXHAUSTED",
        ErrorKind::Permission => "PERMISSION_DENIED",
        ErrorKind::NotFound => "NOT_FOUND",
        ErrorKind::Timeout => "DEADLINE_EXCEEDED",
        ErrorKind::Overloaded | ErrorKind::Unavailable => "UNAVAILABLE",
        ErrorKind::Internal => "INTERNAL",
    }
}

fn gemini_error(code: u16, status: &str, message: &str, retry_after_s: Option<u64>) -> Value {
    let mut error = json!({"code": code, "message": message, "status": status});
    if let Some(seconds) = retry_after_s {
        error["details"] = json!([{
            "@type": "type.googleapis.com/google.rpc.RetryInfo",
            "retryDelay": format!("{seconds}s"),
        }]);
    }
    json!({ "error": error })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(protocol: Protocol, kind: ErrorKind, retry_after_s: Option<u64>) -> Value {
        let status = client_status(protocol, kind);
        let body = error_body(protocol, status, kind, "no \"way\"\n", "req_1", retry_after_s);
        serde_json::from_slice(&body).unwrap()
    }

    #[test]
    fn each_protocol_has_its_own_shape() {
        assert_eq!(
            body(Protocol::Messages, ErrorKind::Overloaded, Some(3)),
            json!({"type": "error", "error": {"type": "overloaded_error", "message": "no \"way\"\n"}, "request_id": "req_1"})
        );
        for protocol in [Protocol::ChatCompletions, Protocol::Responses] {
            assert_eq!(
                body(protocol, ErrorKind::Authentication, None),
                json!({"error": {"message": "no \"way\"\n", "type": "invalid_request_error", "param": null, "code": "invalid_api_key"}})
            );
        }
        assert_eq!(
            body(Protocol::GenerateContent, ErrorKind::RateLimit, Some(34)),
            json!({"error": {"code": 429, "message": "no \"way\"\n", "status": "RESOURCE_EXHAUSTED", "details": [
                {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34s"}]}})
        );
        assert!(body(Protocol::GenerateContent, ErrorKind::Internal, None)["error"].get("details").is_none());
    }

    #[test]
    fn every_kind_has_a_status_and_a_type() {
        let table = [
            (
                ErrorKind::InvalidRequest,
                400,
                "invalid_request_error",
                "invalid_request_error",
                "INVALID_ARGUMENT",
            ),
            (
                ErrorKind::Authentication,
                401,
                "authentication_error",
                "invalid_request_error",
                "UNAUTHENTICATED",
            ),
            (ErrorKind::Billing, 402, "billing_error", "insufficient_quota", "RESOURCE_EXHAUSTED"),
            (ErrorKind::Permission, 403, "permission_error", "permission_error", "PERMISSION_DENIED"),
            (ErrorKind::NotFound, 404, "not_found_error", "invalid_request_error", "NOT_FOUND"),
            (ErrorKind::TooLarge, 413, "request_too_large", "invalid_request_error", "INVALID_ARGUMENT"),
            (
                ErrorKind::UnsupportedMedia,
                415,
                "invalid_request_error",
                "invalid_request_error",
                "INVALID_ARGUMENT",
            ),
            (ErrorKind::RateLimit, 429, "rate_limit_error", "rate_limit_error", "RESOURCE_EXHAUSTED"),
            (ErrorKind::Timeout, 504, "timeout_error", "timeout_error", "DEADLINE_EXCEEDED"),
            (ErrorKind::Overloaded, 503, "overloaded_error", "server_error", "UNAVAILABLE"),
            (ErrorKind::Unavailable, 503, "api_error", "server_error", "UNAVAILABLE"),
            (ErrorKind::Internal, 500, "api_error", "server_error", "INTERNAL"),
        ];
        assert_eq!(table.map(|row| row.0), ErrorKind::ALL);
        for (kind, status, messages, openai, gemini) in table {
            assert_eq!(client_status(Protocol::Responses, kind), status);
            assert_eq!(body(Protocol::Messages, kind, None)["error"]["type"], messages);
            assert_eq!(body(Protocol::Responses, kind, None)["error"]["type"], openai);
            let error = &body(Protocol::GenerateContent, kind, None)["error"];
            assert_eq!((&error["status"], &error["code"]), (&json!(gemini), &json!(status)));
        }
        assert_eq!(client_status(Protocol::Messages, ErrorKind::Overloaded), 529);
    }

    #[test]
    fn only_event_streams_carry_a_truncation() {
        for protocol in Protocol::ALL {
            assert!(truncation_event(protocol, ReplyForm::Json).is_empty());
            assert!(truncation_event(protocol, ReplyForm::JsonArrayStream).is_empty());
            assert!(truncation_event(protocol, ReplyForm::EventStream).ends_with(b"\n"));
        }
    }
}
