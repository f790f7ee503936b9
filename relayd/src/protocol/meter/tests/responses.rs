//! Replies of Responses.

use super::super::{Opening, ReplyForm};
use super::{RESPONSES, opening_after, read, responses_event, stream, usage};
use shared::domain::UsageClass::{CacheRead, CacheWrite5m, Input, Output, Reasoning};

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
