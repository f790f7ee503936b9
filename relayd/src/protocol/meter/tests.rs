//! Replies of all protocols, whole and at every cut.

use shared::domain::UsageClass::{
    CacheRead, CacheWrite1h, CacheWrite5m, Input, InputAudio, Output, OutputAudio, Reasoning, WebSearches,
};
use shared::domain::{Operation, Protocol, Usage, UsageClass};

use super::super::truncation_event;
use super::{Mark, Meter, Opening, Reading, ReplyError, ReplyForm};

const MESSAGES: Protocol = Protocol::Messages;
const CHAT: Protocol = Protocol::ChatCompletions;
const RESPONSES: Protocol = Protocol::Responses;
const GEMINI: Protocol = Protocol::GenerateContent;

fn read<'a>(
    protocol: Protocol,
    form: ReplyForm,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Reading, Opening) {
    let mut meter = Meter::new(protocol, Operation::Generate, form);
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
    let mut meter = Meter::new(protocol, Operation::Generate, ReplyForm::EventStream);
    meter.feed(stream.as_bytes());
    meter.opening()
}

const MESSAGES_STREAM: &str = concat!(
    "event: message_start\n",
    r#"data: {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"claude-opus-4-8","content":[],"stop_reason":null,"usage":{"input_tokens":25,"cache_creation_input_tokens":30,"cache_read_input_tokens":100,"cache_creation":{"ephemeral_5m_input_tokens":10,"ephemeral_1h_input_tokens":20},"output_tokens":1,"service_tier":"standard"}}}   "#,
    "\n\nevent: content_block_start\n",
    r#"data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
    "\n\nevent: ping\ndata: {\"type\":\"ping\"}\n\n: a comment\n\nevent: content_block_delta\n",
    r#"data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"\"usage\":{\"output_tokens\":9999}  \"type\":\"message_stop\""}}"#,
    "\u{2028}\u{85}\n\nevent: message_delta\n",
    r#"data: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":57,"cache_read_input_tokens":null,"output_tokens_details":{"thinking_tokens":40},"server_tool_use":{"web_search_requests":2}}}"#,
    "\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
);

#[test]
fn a_messages_stream() {
    let (reading, opening) = stream(MESSAGES, MESSAGES_STREAM);
    let expected = [
        (Input, 25),
        (CacheRead, 100),
        (CacheWrite5m, 10),
        (CacheWrite1h, 20),
        (Output, 57),
        (Reasoning, 40),
        (WebSearches, 2),
    ];
    assert_eq!(reading.usage, usage(&expected));
    assert_eq!(reading.model.as_deref(), Some("claude-opus-4-8"));
    assert_eq!(reading.tier.as_deref(), Some("standard"));
    assert_eq!((reading.terminal, reading.error, opening), (true, None, Opening::Substance));
    let bytes =
        MESSAGES_STREAM.lines().filter_map(|line| line.strip_prefix("data: ")).map(str::len).sum::<usize>();
    assert_eq!(reading.answer_bytes, bytes as u64);
}

#[test]
fn a_messages_stream_cut_off_is_not_terminal() {
    let end = MESSAGES_STREAM.find("event: message_stop").unwrap();
    for cut in 0..end {
        let Some(part) = MESSAGES_STREAM.get(..cut) else { continue };
        let (reading, opening) = read(MESSAGES, ReplyForm::EventStream, [part.as_bytes()]);
        assert!(!reading.terminal && opening != Opening::Error, "cut at {cut}");
    }
    let (reading, _) = read(MESSAGES, ReplyForm::EventStream, [&MESSAGES_STREAM.as_bytes()[..end]]);
    assert_eq!(reading.usage.unwrap()[Output], 57);
    // What is sent instead of the end is an error to whoever reads it, even in the middle of a line.
    for protocol in Protocol::ALL {
        for partial in ["", "data: {\"type\":\"cont", "data: {}\n", "data: {}\n\n"] {
            let event = truncation_event(protocol, ReplyForm::EventStream);
            let (reading, _) = read(protocol, ReplyForm::EventStream, [partial.as_bytes(), &event]);
            assert!(reading.error.is_some(), "{protocol:?} {partial:?}");
        }
    }
}

#[test]
fn messages_usage_in_every_form() {
    for (start, delta, expected) in [
        (
            r#"{"input_tokens":0,"output_tokens":0}"#,
            r#"{"input_tokens":12,"output_tokens":5,"cache_read_input_tokens":7}"#,
            vec![(Input, 12), (Output, 5), (CacheRead, 7)],
        ),
        (
            r#"{"input_tokens":12,"cache_creation_input_tokens":null,"cache_creation":null}"#,
            r#"{"output_tokens":5}"#,
            vec![(Input, 12), (Output, 5)],
        ),
        (
            r#"{"input_tokens":12,"cache_creation_input_tokens":30}"#,
            r#"{"output_tokens":5,"speed":"fast"}"#,
            vec![(Input, 12), (Output, 5), (CacheWrite5m, 30)],
        ),
        (
            r#"{"input_tokens":1,"cache_creation_input_tokens":30,"cache_creation":{"ephemeral_1h_input_tokens":30}}"#,
            "{}",
            vec![(Input, 1), (CacheWrite1h, 30)],
        ),
        (
            r#"{"cache_creation_input_tokens":0,"cache_creation":{"ephemeral_5m_input_tokens":4}}"#,
            "{}",
            vec![(CacheWrite5m, 4)],
        ),
        (
            r#"{"input_tokens":1,"cache_creation":{"ephemeral_5m_input_tokens":4,"ephemeral_1h_input_tokens":5}}"#,
            "null",
            vec![(Input, 1), (CacheWrite5m, 4), (CacheWrite1h, 5)],
        ),
        (
            r#"{"input_tokens":-5,"output_tokens":"7","cache_read_input_tokens":1e99}"#,
            r#"{"input_tokens":[]}"#,
            vec![(Output, 7), (CacheRead, u64::MAX)],
        ),
        (r#"{"input_tokens":99}"#, r#"{"input_tokens":0}"#, vec![]),
    ] {
        let reply = format!(
            "data: {{\"type\":\"message_start\",\"message\":{{\"usage\":{start}}}}}\n\ndata: {{\"usage\":{delta},\"type\":\"message_delta\"}}\n\n"
        );
        let (reading, _) = stream(MESSAGES, &reply);
        assert_eq!(reading.usage, usage(&expected), "{start} {delta}");
        assert_eq!(reading.tier.as_deref(), delta.contains("fast").then_some("fast"), "{delta}");
    }
    let body = br#"{"type":"message","model":"m","content":[{"usage":{"input_tokens":1}}],"usage":{"input_tokens":3,"output_tokens":4}}"#;
    let (reading, opening) = at_every_cut(MESSAGES, ReplyForm::Json, body);
    assert_eq!(
        (reading.usage, reading.terminal, opening),
        (usage(&[(Input, 3), (Output, 4)]), true, Opening::Substance)
    );
    let (reading, _) = read(MESSAGES, ReplyForm::Json, [&body[..body.len() - 1]]);
    assert!(!reading.terminal);
    let mut meter = Meter::new(MESSAGES, Operation::CountTokens, ReplyForm::Json);
    meter.feed(br#"{"input_tokens":3,"usage":{"input_tokens":3}}"#);
    meter.finish();
    assert_eq!((meter.reading().usage, meter.reading().terminal), (None, true));
}

const CHAT_STREAM: &str = concat!(
    ": OPENROUTER PROCESSING\n\n",
    r#"data: {"choices":[],"prompt_filter_results":[{}],"id":"","model":"","object":"","created":0}"#,
    "\n\n",
    r#"data: {"id":"c","model":"gpt-5.6","service_tier":"default","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}],"usage":null}"#,
    "\n\n",
    r#"data: {"id":"c","choices":[{"index":0,"delta":{"content":"h\"finish_reason\":\"stop\" é"},"finish_reason":null}],"usage":null}"#,
    "\n\n",
    r#"data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}"#,
    "\n\n",
    r#"data: {"id":"c","choices":[],"usage":{"prompt_tokens":100,"completion_tokens":20,"total_tokens":120,"prompt_tokens_details":{"cached_tokens":30,"cache_write_tokens":20,"audio_tokens":5},"completion_tokens_details":{"reasoning_tokens":8,"audio_tokens":4}}}"#,
    "\n\ndata: [DONE]\n\n",
);

#[test]
fn a_chat_stream() {
    let (reading, opening) = stream(CHAT, CHAT_STREAM);
    let expected = [
        (Input, 45),
        (CacheRead, 30),
        (CacheWrite5m, 20),
        (InputAudio, 5),
        (Output, 16),
        (OutputAudio, 4),
        (Reasoning, 8),
    ];
    assert_eq!(reading.usage, usage(&expected));
    assert_eq!((reading.model.as_deref(), reading.tier.as_deref()), (Some("gpt-5.6"), Some("default")));
    assert_eq!((reading.terminal, reading.error, opening), (true, None, Opening::Substance));
    let until = |text: &str| CHAT_STREAM.find(text).unwrap();
    assert_eq!(opening_after(CHAT, &CHAT_STREAM[..until("data: ")]), Opening::Announcing);
    assert_eq!(
        opening_after(CHAT, &CHAT_STREAM[..until("data: {\"id\":\"c\",\"choices\"")]),
        Opening::Announcing
    );
}

#[test]
fn chat_usage_in_every_form() {
    for (usage_text, expected) in [
        (r#"{"prompt_tokens":10,"completion_tokens":2}"#, vec![(Input, 10), (Output, 2)]),
        (
            r#"{"prompt_tokens":10,"completion_tokens":2,"prompt_cache_hit_tokens":4,"prompt_cache_miss_tokens":6}"#,
            vec![(Input, 6), (CacheRead, 4), (Output, 2)],
        ),
        (r#"{"prompt_cache_hit_tokens":4,"prompt_cache_miss_tokens":6}"#, vec![(Input, 6), (CacheRead, 4)]),
        (
            r#"{"prompt_cache_hit_tokens":4,"prompt_tokens":10,"prompt_tokens_details":{"cached_tokens":2}}"#,
            vec![(Input, 8), (CacheRead, 2), (Output, 0)],
        ),
        (r#"{"prompt_tokens":10,"cached_tokens":4}"#, vec![(Input, 6), (CacheRead, 4)]),
        (
            r#"{"prompt_tokens":10,"cache_read_input_tokens":3,"cache_creation_input_tokens":2}"#,
            vec![(Input, 5), (CacheRead, 3), (CacheWrite5m, 2)],
        ),
        (
            r#"{"cached_tokens":4,"prompt_tokens":10,"prompt_tokens_details":{"cached_tokens":0}}"#,
            vec![(Input, 10)],
        ),
        (
            r#"{"cached_tokens":4,"prompt_tokens":10,"prompt_tokens_details":{"cached_tokens":null}}"#,
            vec![(Input, 10)],
        ),
        (
            r#"{"cached_tokens":4,"prompt_tokens":10,"prompt_tokens_details":null}"#,
            vec![(Input, 6), (CacheRead, 4)],
        ),
        (
            r#"{"cached_tokens":4,"prompt_tokens":10,"prompt_tokens_details":{"audio_tokens":0}}"#,
            vec![(Input, 6), (CacheRead, 4)],
        ),
        (
            r#"{"prompt_tokens":10,"prompt_tokens_details":{"cache_creation_tokens":2}}"#,
            vec![(Input, 8), (CacheWrite5m, 2)],
        ),
        (r#"{"prompt_tokens":10,"prompt_tokens_details":{"cached_tokens":99}}"#, vec![(CacheRead, 99)]),
        (r#"{"prompt_tokens":-1,"completion_tokens":1e40}"#, vec![(Output, u64::MAX)]),
        (r#"{"input_tokens":3,"output_tokens":4}"#, vec![(Input, 3), (Output, 4)]),
        (r#"{"total_tokens":8}"#, vec![(Input, 8)]),
    ] {
        for body in
            [format!("{{\"usage\":{usage_text}}}"), format!("{{\"x_groq\":{{\"usage\":{usage_text}}}}}")]
        {
            let (reading, _) = at_every_cut(CHAT, ReplyForm::Json, body.as_bytes());
            assert_eq!(reading.usage, usage(&expected), "{usage_text}");
        }
    }
    for nothing in ["null", "{}", "[]", "7", "\"\"", r#"{"prompt_tokens":null}"#] {
        let body = format!(r#"{{"usage":{nothing}}}"#);
        assert_eq!(read(CHAT, ReplyForm::Json, [body.as_bytes()]).0.usage, None, "{nothing}");
    }
    let kimi =
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\",\"usage\":{\"prompt_tokens\":3}}]}\n\n";
    assert_eq!(stream(CHAT, kimi).0.usage, usage(&[(Input, 3)]));
}

#[test]
fn chat_streams_deviate() {
    let delta =
        r#"data: {"choices":[{"delta":{"content":"x"}}],"usage":{"prompt_tokens":5,"completion_tokens":1}}"#;
    let finish = r#"data: {"choices":[{"finish_reason":"stop","delta":{},"index":0}],"usage":{"prompt_tokens":5,"completion_tokens":2}}"#;
    let two =
        r#"data: {"choices":[{"index":0,"finish_reason":"stop"},{"index":1,"finish_reason":"length"}]}"#;
    let first = r#"data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
    let second = r#"data:{"choices":[{"finish_reason":"stop","delta":{},"index":1}]}"#;
    let backwards =
        r#"data: {"choices":[{"finish_reason":"stop","index":0},{"finish_reason":"length","index":1}]}"#;
    let half = r#"data: {"choices":[{"index":0,"finish_reason":null},{"index":1,"finish_reason":"stop"}]}"#;
    let late = r#"data: {"choices":[],"usage":{"prompt_tokens":6,"completion_tokens":3}}"#;
    for (lines, choices, expected, is_terminal) in [
        (vec![delta, finish], 1, usage(&[(Input, 5), (Output, 2)]), true),
        (vec![delta, finish, late, "data: [DONE]"], 1, usage(&[(Input, 6), (Output, 3)]), true),
        (vec![delta], 1, usage(&[(Input, 5), (Output, 1)]), false),
        (vec![delta, "data: [DONE]"], 2, usage(&[(Input, 5), (Output, 1)]), true),
        (vec![delta, "data:[DONE] "], 2, usage(&[(Input, 5), (Output, 1)]), true),
        (vec![first], 2, None, false),
        (vec![first, first], 2, None, false),
        (vec![first, second], 2, None, true),
        (vec![two], 2, None, true),
        (vec![two], 3, None, false),
        (vec![backwards], 2, None, true),
        (vec![half, second, second], 2, None, false),
        (vec![half, first], 2, None, true),
        (vec![r#"data: {"id":"no choices"}"#], 1, None, false),
    ] {
        let reply = lines.join("\n\n");
        for end in ["", "\n", "\n\n"] {
            let mut meter = Meter::new(CHAT, Operation::Generate, ReplyForm::EventStream).expecting(choices);
            meter.feed(reply.as_bytes());
            meter.feed(end.as_bytes());
            meter.finish();
            assert_eq!(
                (meter.reading().usage, meter.reading().terminal),
                (expected, is_terminal),
                "{reply}{end:?}"
            );
        }
    }
    for (event, expected) in [
        (
            r#"{"choices":[{"delta":{"role":"assistant","content":null,"tool_calls":[]}}]}"#,
            Opening::Announcing,
        ),
        (r#"{"choices":[{"delta":{"role":"assistant","content":"a"}}]}"#, Opening::Substance),
        (r#"{"choices":[{"delta":{"reasoning_content":"a"}}]}"#, Opening::Substance),
        (r#"{"choices":[{"delta":{"tool_calls":[{"index":0}]}}]}"#, Opening::Substance),
        (r#"{"choices":[{"delta":{"role":"assistant"},"finish_reason":"length"}]}"#, Opening::Substance),
        (r#"{"choices":[{"text":"a"}]}"#, Opening::Substance),
        (r#"{"choices":[{"index":0,"content_filter_offsets":{},"delta":{}}]}"#, Opening::Announcing),
        (r#"{"error":null,"choices":[]}"#, Opening::Announcing),
        (r#"{"error":{"message":"x"}}"#, Opening::Error),
        (r#"{"error":"overloaded"}"#, Opening::Error),
        (r#"{"detail":"nope"}"#, Opening::Error),
        ("not json", Opening::Substance),
        ("{\"choices\":[", Opening::Substance),
    ] {
        assert_eq!(opening_after(CHAT, &format!("data: {event}\n\n")), expected, "{event}");
    }
}

fn responses_event(kind: &str, rest: &str) -> String {
    format!("event: {kind}\ndata: {{\"type\":\"{kind}\",\"sequence_number\":1,{rest}}}\n\n")
}

#[test]
fn a_responses_stream() {
    let created = responses_event(
        "response.created",
        r#""response":{"id":"r","model":"gpt-5.6","usage":null,"error":null}"#,
    );
    let delta = responses_event(
        "response.output_text.delta",
        r#""delta":"say \"response.completed\"","logprobs":[]"#,
    );
    let end = r#""response":{"id":"r","status":"completed","error":null,"model":"gpt-5.6-2026","service_tier":"priority","output":[{"usage":{"input_tokens":1}}],"usage":{"input_tokens":50,"input_tokens_details":{"cached_tokens":10,"cache_write_tokens":5},"output_tokens":9,"output_tokens_details":{"reasoning_tokens":4},"total_tokens":59}}"#;
    for kind in ["response.completed", "response.incomplete", "response.done"] {
        let reply = format!("{created}{delta}{}", responses_event(kind, end));
        let (reading, opening) = stream(RESPONSES, &reply);
        let expected = [(Input, 35), (CacheRead, 10), (CacheWrite5m, 5), (Output, 9), (Reasoning, 4)];
        assert_eq!(reading.usage, usage(&expected), "{kind}");
        assert_eq!(reading.model.as_deref(), Some("gpt-5.6-2026"));
        assert_eq!(reading.tier.as_deref(), Some("priority"));
        assert_eq!((reading.terminal, reading.error, opening), (true, None, Opening::Substance));
    }
    assert_eq!(opening_after(RESPONSES, &created), Opening::Announcing);
    assert_eq!(opening_after(RESPONSES, &format!("{created}{delta}")), Opening::Substance);
    let (reading, _) = stream(RESPONSES, &format!("{created}{delta}"));
    assert_eq!((reading.terminal, reading.usage), (false, None));
}

#[test]
fn a_huge_terminal_event_still_yields_its_usage() {
    let text = "lorem ipsum \\\"usage\\\":{ ".repeat(220_000);
    let rest = format!(
        r#""response":{{"output":[{{"text":"{text}"}}],"usage":{{"input_tokens":7,"output_tokens":8}}}}"#
    );
    let reply = responses_event("response.completed", &rest);
    assert!(reply.len() > 5_000_000);
    for size in [1000, 16 * 1024, 70_000, 1 << 20, reply.len()] {
        let (reading, _) = read(RESPONSES, ReplyForm::EventStream, reply.as_bytes().chunks(size));
        assert_eq!((reading.usage, reading.terminal), (usage(&[(Input, 7), (Output, 8)]), true), "{size}");
        assert_eq!(
            reading.answer_bytes,
            (reply.len() - "event: response.completed\ndata: \n\n".len()) as u64
        );
    }
    let (reading, opening) = read(RESPONSES, ReplyForm::Json, rest.as_bytes().chunks(5000));
    assert_eq!((reading.usage, opening), (None, Opening::Substance));
}

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

#[test]
fn a_gemini_stream_in_both_forms() {
    let chunks = [
        r#"{"candidates": [{"content": {"parts": [{"text": "a"}],"role": "model"}}],"usageMetadata": {"promptTokenCount": 9,"totalTokenCount": 9},"modelVersion": "gemini-3.1-pro"}"#,
        r#"{"candidates": [{"content": {"parts": [{"functionCall": {"name": "f","args": {"usageMetadata": {"promptTokenCount": 1}}}}]}}],"usageMetadata": {}}"#,
        r#"{"candidates": [{"content": {"parts": [{"text": ""}]},"finishReason": "STOP"}],"usageMetadata": {"promptTokenCount": 100,"candidatesTokenCount": "20","thoughtsTokenCount": 30,"toolUsePromptTokenCount": 5,"cachedContentTokenCount": 40,"totalTokenCount": 155,"promptTokensDetails": [{"modality": "TEXT","tokenCount": 88},{"modality": "AUDIO","tokenCount": 12}],"candidatesTokensDetails":[{"tokenCount":3,"modality":"AUDIO"}],"serviceTier":"standard"}}"#,
    ];
    let sse: String = chunks.iter().map(|chunk| format!("data: {chunk}\r\n\r\n")).collect();
    let (reading, opening) = at_every_cut(GEMINI, ReplyForm::EventStream, sse.as_bytes());
    let expected =
        [(Input, 53), (CacheRead, 40), (InputAudio, 12), (Output, 47), (OutputAudio, 3), (Reasoning, 30)];
    assert_eq!(reading.usage, usage(&expected));
    assert_eq!(reading.model.as_deref(), Some("gemini-3.1-pro"));
    assert_eq!(
        (reading.terminal, reading.tier.as_deref(), opening),
        (true, Some("standard"), Opening::Substance)
    );
    let array = format!("[{}]", chunks.join("\r\n,\r\n"));
    let (from_array, opening) = at_every_cut(GEMINI, ReplyForm::JsonArrayStream, array.as_bytes());
    assert_eq!(opening, Opening::Substance);
    assert_eq!(from_array, Reading { answer_bytes: array.len() as u64, ..reading });
    let (reading, _) = read(GEMINI, ReplyForm::JsonArrayStream, [&array.as_bytes()[..200]]);
    assert!(!reading.terminal && reading.usage.is_some());
    let (reading, opening) =
        at_every_cut(GEMINI, ReplyForm::JsonArrayStream, br#"[{"error":{"code":429,"message":"m"}}]"#);
    assert_eq!((reading.error.unwrap().status, opening), (Some(429), Opening::Error));
}

#[test]
fn gemini_usage_in_every_form() {
    for (metadata, expected) in [
        (
            r#"{"promptTokenCount":10,"candidatesTokenCount":7,"thoughtsTokenCount":3,"totalTokenCount":17}"#,
            vec![(Input, 10), (Output, 7), (Reasoning, 3)],
        ),
        (
            r#"{"promptTokenCount":10,"candidatesTokenCount":7,"thoughtsTokenCount":3,"totalTokenCount":20}"#,
            vec![(Input, 10), (Output, 10), (Reasoning, 3)],
        ),
        (
            r#"{"promptTokenCount":10,"candidatesTokenCount":7,"thoughtsTokenCount":3}"#,
            vec![(Input, 10), (Output, 10), (Reasoning, 3)],
        ),
        (
            r#"{"promptTokenCount":10,"candidatesTokenCount":7,"thoughtsTokenCount":3,"toolUsePromptTokenCount":2,"totalTokenCount":19}"#,
            vec![(Input, 12), (Output, 7), (Reasoning, 3)],
        ),
        (
            r#"{"promptTokenCount":10,"thoughtsTokenCount":5,"totalTokenCount":15}"#,
            vec![(Input, 10), (Output, 5), (Reasoning, 5)],
        ),
        (r#"{"promptTokenCount":"10","cachedContentTokenCount":"12"}"#, vec![(CacheRead, 12)]),
        (
            r#"{"promptTokenCount":10,"cachedContentTokenCount":6,"promptTokensDetails":[{"modality":"AUDIO","tokenCount":10}],"cacheTokensDetails":[{"modality":"AUDIO","tokenCount":6}]}"#,
            vec![(CacheRead, 6), (InputAudio, 4)],
        ),
        (
            r#"{"totalTokenCount":18446744073709551615,"promptTokenCount":18446744073709551615,"thoughtsTokenCount":9}"#,
            vec![(Input, u64::MAX), (Reasoning, 9)],
        ),
        (
            r#"{"promptTokenCount":3,"promptTokensDetails":[7,{"tokenCount":-1,"modality":"AUDIO"},{"modality":"AUDIO"}]}"#,
            vec![(Input, 3)],
        ),
    ] {
        let body = format!(r#"{{"candidates":[{{"finishReason":"STOP"}}],"usageMetadata":{metadata}}}"#);
        let (reading, _) = at_every_cut(GEMINI, ReplyForm::Json, body.as_bytes());
        assert_eq!((reading.usage, reading.terminal), (usage(&expected), true), "{metadata}");
    }
    let blocked = "data: {\"promptFeedback\":{\"blockReason\":\"SAFETY\"}}\r\n\r\n";
    let (reading, opening) = stream(GEMINI, &blocked.replace('\r', ""));
    assert_eq!((reading.terminal, opening), (true, Opening::Substance));
    assert_eq!(
        opening_after(GEMINI, "data: {\"usageMetadata\":{\"promptTokenCount\":3}}\n\n"),
        Opening::Announcing
    );
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
                let mut meter = Meter::new(protocol, Operation::Generate, form);
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
