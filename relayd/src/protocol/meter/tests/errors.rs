//! Errors within replies.

use super::super::{Opening, ReplyForm};
use super::{CHAT, GEMINI, MESSAGES, RESPONSES, read, responses_event, stream};
use crate::protocol::reading::ReplyError;
use shared::domain::Protocol;

/// The error is read at every cut; it is the reply's opening, unless substance came before.
fn error_is_read(protocol: Protocol, reply: &str, kind: &str, message: &str, status: Option<u16>) {
    let expected = Some(ReplyError { kind: kind.to_owned(), message: message.to_owned(), status });
    let (reading, opening) = stream(protocol, reply);
    assert_eq!((reading.error, opening), (expected.clone(), Opening::Error), "{reply}");
    assert_eq!(reading.terminal, reply.contains("response.failed"), "{reply}");
    let substance = match protocol {
        MESSAGES => r#"{"type":"content_block_start"}"#,
        CHAT => r#"{"choices":[{"text":"x"}]}"#,
        RESPONSES => r#"{"type":"response.output_item.added"}"#,
        GEMINI => r#"{"candidates":[{"content":{}}]}"#,
    };
    let (reading, opening) = stream(protocol, &format!("data: {substance}\n\n{reply}"));
    assert_eq!((reading.error, opening), (expected, Opening::Substance), "after substance: {reply}");
}

#[test]
fn errors_of_messages_and_chat() {
    let overloaded =
        r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"},"request_id":"r"}"#;
    let event = format!("event: error\ndata: {overloaded}\n\n");
    error_is_read(MESSAGES, &event, "overloaded_error", "Overloaded", Some(529));
    error_is_read(MESSAGES, "event:error\ndata:{\"message\":\"odd\"}\n\n", "error", "", None);
    for (error, kind, message, status) in [
        (
            r#"{"message":"slow","type":"requests","param":null,"code":"rate_limit_exceeded"}"#,
            "rate_limit_exceeded",
            "slow",
            Some(429),
        ),
        (r#"{"code":"429","message":"retry"}"#, "", "retry", Some(429)),
        (r#"{"code":502,"type":"x","message":7}"#, "x", "", Some(502)),
        (r#"{"code":99999999,"type":"server_error"}"#, "server_error", "", Some(500)),
        (r#""boom""#, "", "boom", None),
    ] {
        error_is_read(CHAT, &format!("data: {{\"error\":{error}}}\n\n"), kind, message, status);
    }
    error_is_read(CHAT, "{\"detail\":\"no\"}", "", "no", None);
    let long = format!("data: {{\"error\":{{\"message\":\"{}\"}}}}\n\n", "é".repeat(2000));
    let (reading, _) = read(CHAT, ReplyForm::EventStream, [long.as_bytes()]);
    assert_eq!(reading.error.unwrap().message.len(), 500);
}

#[test]
fn errors_of_responses() {
    for (event, rest, kind, message, status) in [
        (
            "response.failed",
            r#""response":{"error":{"code":"server_error","message":"sorry"}}"#,
            "server_error",
            "sorry",
            Some(500),
        ),
        ("response.failed", r#""response":{"status":"failed","error":null}"#, "response.failed", "", None),
        (
            "error",
            r#""code":"rate_limit_exceeded","message":"wait","param":null"#,
            "rate_limit_exceeded",
            "wait",
            Some(429),
        ),
        (
            "error",
            r#""error":{"type":"usage_limit_reached","message":"m","resets_in_seconds":5}"#,
            "usage_limit_reached",
            "m",
            Some(429),
        ),
    ] {
        error_is_read(RESPONSES, &responses_event(event, rest), kind, message, status);
    }
}

#[test]
fn what_is_said_of_an_error_stands() {
    let first = responses_event("error", r#""code":"server_error","message":"why""#);
    let bare = responses_event("response.failed", r#""response":{"error":null}"#);
    let full = responses_event("response.failed", r#""response":{"error":{"code":"c","message":"because"}}"#);
    for (last, expected) in [(bare, "why"), (full, "because")] {
        let (reading, _) = stream(RESPONSES, &format!("{first}{last}"));
        assert_eq!((reading.error.unwrap().message.as_str(), reading.terminal), (expected, true));
    }
}

#[test]
fn errors_of_gemini() {
    for (reply, kind, message, status) in [
        (
            "data: {\"error\":{\"code\":503,\"message\":\"busy\",\"status\":\"UNAVAILABLE\"}}\n\n",
            "UNAVAILABLE",
            "busy",
            Some(503),
        ),
        (
            "data: [{\"error\":{\"message\":\"busy\",\"status\":\"RESOURCE_EXHAUSTED\"}}]\n\n",
            "RESOURCE_EXHAUSTED",
            "busy",
            Some(429),
        ),
        (
            "{\n \"error\": {\n  \"code\": 400,\n\n  \"message\": \"bad\",\n  \"status\": \"INVALID_ARGUMENT\"\n }\n}\n",
            "INVALID_ARGUMENT",
            "bad",
            Some(400),
        ),
        ("[{\n \"error\": {\n  \"code\": 400,\n  \"message\": \"bad\"\n }\n}\n]", "", "bad", Some(400)),
        ("data: {\ndata: \"error\":{\"status\":\ndata: \"INTERNAL\"}}\n\n", "INTERNAL", "", Some(500)),
    ] {
        error_is_read(GEMINI, reply, kind, message, status);
    }
}
