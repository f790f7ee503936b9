//! Replies of Chat Completions, as OpenAI and others write them.

use super::super::{Meter, Opening, ReplyForm};
use super::{CHAT, at_every_cut, opening_after, read, stream, usage};
use shared::domain::UsageClass::{
    CacheRead, CacheWrite5m, Input, InputAudio, Output, OutputAudio, Reasoning,
};

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
            let mut meter = Meter::new(CHAT, ReplyForm::EventStream).expecting(choices);
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
