//! Replies of Gemini.

use super::super::{Opening, Reading, ReplyForm};
use super::{GEMINI, at_every_cut, opening_after, read, stream, usage};
use shared::domain::UsageClass::{CacheRead, Input, InputAudio, Output, OutputAudio, Reasoning};

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
