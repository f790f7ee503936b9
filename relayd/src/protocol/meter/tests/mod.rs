//! Replies of all protocols, whole and at every cut.

mod chat_completions;
mod errors;
mod generate_content;
mod messages;
mod responses;

use shared::domain::{Protocol, Usage, UsageClass};

use self::messages::MESSAGES_STREAM;
use super::{Mark, Meter, Opening, Reading, ReplyForm};

const MESSAGES: Protocol = Protocol::Messages;
const CHAT: Protocol = Protocol::ChatCompletions;
const RESPONSES: Protocol = Protocol::Responses;
const GEMINI: Protocol = Protocol::GenerateContent;

fn read<'a>(
    protocol: Protocol,
    form: ReplyForm,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Reading, Opening) {
    let mut meter = Meter::new(protocol, form);
    for piece in pieces {
        meter.feed(piece);
    }
    meter.finish();
    (meter.reading().clone(), meter.opening())
}

fn at_every_cut(protocol: Protocol, form: ReplyForm, reply: &[u8]) -> (Reading, Opening) {
    let whole = read(protocol, form, [reply]);
    assert_eq!(read(protocol, form, reply.chunks(1)), whole, "byte by byte");
    for cut in 0..=reply.len() {
        let (first, second) = reply.split_at(cut);
        assert_eq!(read(protocol, form, [first, second]), whole, "cut at {cut}");
    }
    whole
}

/// The stream with each line ending, at every cut.
fn stream(protocol: Protocol, reply: &str) -> (Reading, Opening) {
    let whole = at_every_cut(protocol, ReplyForm::EventStream, reply.as_bytes());
    for end in ["\r\n", "\r"] {
        let other = at_every_cut(protocol, ReplyForm::EventStream, reply.replace('\n', end).as_bytes());
        assert_eq!(other, whole, "{end:?}");
    }
    whole
}

fn usage(amounts: &[(UsageClass, u64)]) -> Option<Usage> {
    Some(Usage::of(amounts))
}

fn opening_after(protocol: Protocol, stream: &str) -> Opening {
    let mut meter = Meter::new(protocol, ReplyForm::EventStream);
    meter.feed(stream.as_bytes());
    meter.opening()
}

fn responses_event(kind: &str, rest: &str) -> String {
    format!("event: {kind}\ndata: {{\"type\":\"{kind}\",\"sequence_number\":1,{rest}}}\n\n")
}

#[test]
fn marks_with_null_are_none() {
    let mark = Mark::key("\"usage\"");
    for (data, expected) in [
        (r#"{"usage":null}"#, false),
        (r#"{"usage" : null,"x":1}"#, false),
        (r#"{"usage":null,"a":{"usage":{}}}"#, true),
        (r#"{"usage":{"a":null}}"#, true),
        (r#"{"text":"\"usage\":{}"}"#, false),
        (r#"{"usage""#, true),
        ("", false),
    ] {
        assert_eq!(mark.is_in(data.as_bytes()), expected, "{data}");
    }
}

#[test]
fn openings_are_told_before_the_end() {
    for (protocol, stream, expected) in [
        (MESSAGES, "", Opening::Nothing),
        (MESSAGES, "event: message_start\n", Opening::Nothing),
        (MESSAGES, ":\n", Opening::Announcing),
        (MESSAGES, "data: {\"type\":\"ping\"}\n\n", Opening::Announcing),
        (MESSAGES, "event: ping\ndata: {}\n\n", Opening::Announcing),
        (MESSAGES, &MESSAGES_STREAM[..MESSAGES_STREAM.find("event: content").unwrap()], Opening::Announcing),
        (MESSAGES, "data: {\"type\":\"something_new\"}\n\n", Opening::Substance),
        (
            MESSAGES,
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\"}}\n",
            Opening::Error,
        ),
        (RESPONSES, "data: {\"type\":\"codex.rate_limits\"}\n\n", Opening::Announcing),
        (CHAT, "data: [DONE]\n\n", Opening::Substance),
        (CHAT, "data: {\"choices\":[", Opening::Nothing),
    ] {
        assert_eq!(opening_after(protocol, stream), expected, "{stream}");
    }
    let (_, opening) = read(CHAT, ReplyForm::EventStream, [b"data: {\"choices\":[".as_slice()]);
    assert_eq!(opening, Opening::Substance, "at its end");
}

#[test]
fn the_form_follows_from_the_content_type() {
    for (protocol, is_stream, content_type, expected) in [
        (CHAT, true, "text/event-stream; charset=utf-8", ReplyForm::EventStream),
        (GEMINI, true, "Text/Event-Stream", ReplyForm::EventStream),
        (GEMINI, true, "application/json; charset=UTF-8", ReplyForm::JsonArrayStream),
        (GEMINI, false, "application/json", ReplyForm::Json),
        (CHAT, true, "application/json", ReplyForm::Json),
        (CHAT, true, "", ReplyForm::Json),
    ] {
        assert_eq!(ReplyForm::of(protocol, is_stream, content_type), expected, "{content_type}");
    }
}

#[test]
fn memory_stays_bounded() {
    for protocol in Protocol::ALL {
        for piece in
            ["data: x", "{", "[", "\"", "event: ", "data: {\"error\":\"", "a", ":", "{\"choices\":[", "\\"]
        {
            for form in [ReplyForm::EventStream, ReplyForm::JsonArrayStream, ReplyForm::Json] {
                let mut meter = Meter::new(protocol, form);
                for _ in 0..30_000 {
                    meter.feed(piece.repeat(10).as_bytes());
                }
                assert!(
                    meter.kept_bytes() < 400 * 1024,
                    "{protocol:?} {form:?} {piece}: {}",
                    meter.kept_bytes()
                );
                meter.finish();
            }
        }
    }
}
