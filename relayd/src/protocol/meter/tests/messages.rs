//! Replies of Messages.

use super::super::super::truncation_event;
use super::super::{Opening, ReplyForm};
use super::{MESSAGES, at_every_cut, read, stream, usage};
use shared::domain::Protocol;
use shared::domain::UsageClass::{
    CacheRead, CacheWrite1h, CacheWrite5m, Input, Output, Reasoning, WebSearches,
};

pub(super) const MESSAGES_STREAM: &str = concat!(
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
}
