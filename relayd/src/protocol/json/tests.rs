//! Heads of request bodies, against tables and against serde_json.

use bytes::Bytes;
use proptest::prelude::*;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use shared::domain::{Operation, Protocol};

use super::super::{Edits, Head, ProtocolError};
use super::value::{Value, unescape};

const CHAT: Protocol = Protocol::ChatCompletions;

fn read(protocol: Protocol, body: &str) -> Result<Head, ProtocolError> {
    Head::read(protocol, Operation::Generate, body.as_bytes())
}

#[test]
fn a_messages_head() {
    let user = r#"{\"device_id\":\"d\",\"account_uuid\":\"a\",\"session_id\":\"5e55-10n\"}"#;
    let body = format!(
        r#" {{ "max_tokens" : 32000, "metadata":{{"user_id":"{user}"}}, "model" : "claude-\u006fpus-4-8",
           "messages":[{{"role":"user","content":"hi \"you\""}}], "stream":true, "service_tier":"auto" }} "#
    );
    let head = read(Protocol::Messages, &body).unwrap();
    assert_eq!(head.model(), Ok("claude-opus-4-8"));
    let span = head.model.clone().unwrap().span;
    assert_eq!(&body[span], r#""claude-\u006fpus-4-8""#);
    assert!(head.stream && !head.include_usage);
    assert_eq!((head.output_tokens_max, head.choices), (Some(32000), None));
    assert_eq!(head.session.as_deref(), Some("5e55-10n"));
    assert_eq!(head.service_tier.as_deref(), Some("auto"));
}

#[test]
fn sessions_are_found_in_every_form() {
    let legacy =
        format!("user_{}_account_{}_session_5e55", "0a".repeat(32), "11111111-2222-3333-4444-555555555555");
    for (protocol, member, expected) in [
        (Protocol::Messages, format!(r#""metadata":{{"user_id":"{legacy}"}}"#), Some("5e55")),
        (Protocol::Messages, r#""metadata":{"user_id":"somebody"}"#.to_owned(), None),
        (Protocol::Messages, r#""metadata":{"user_id":"{\"session_id\":7}"}"#.to_owned(), None),
        (Protocol::Messages, r#""metadata":{"user_id":"{\"session_id\":"}"#.to_owned(), None),
        (Protocol::Messages, r#""metadata":{"user_id":null}"#.to_owned(), None),
        (Protocol::Messages, r#""metadata":"user_x_session_y""#.to_owned(), None),
        (Protocol::Messages, r#""session_id":"x""#.to_owned(), None),
        (Protocol::Responses, r#""prompt_cache_key":"k""#.to_owned(), Some("k")),
        (Protocol::Responses, r#""prompt_cache_key":"k","conversation_id":"c""#.to_owned(), Some("c")),
        (CHAT, r#""session_id":"s","conversation_id":"c","prompt_cache_key":"k""#.to_owned(), Some("s")),
        (CHAT, r#""session_id":"","conversation_id":7,"prompt_cache_key":"k""#.to_owned(), Some("k")),
        (Protocol::GenerateContent, r#""session_id":"s""#.to_owned(), None),
    ] {
        let head = read(protocol, &format!("{{{member}}}")).unwrap();
        assert_eq!(head.session.as_deref(), expected, "{member}");
    }
}

#[test]
fn limits_and_tiers_are_read_per_protocol() {
    let gemini = Protocol::GenerateContent;
    for (protocol, body, max, choices, tier) in [
        (
            Protocol::Messages,
            r#"{"max_tokens":7,"n":3,"speed":"fast","service_tier":"auto"}"#,
            Some(7),
            None,
            Some("fast"),
        ),
        (Protocol::Messages, r#"{"service_tier":"auto","speed":"fast"}"#, None, None, Some("fast")),
        (Protocol::Messages, r#"{"service_tier":"auto","speed":"standard"}"#, None, None, Some("auto")),
        (CHAT, r#"{"max_tokens":7,"max_completion_tokens":5,"n":3}"#, Some(7), Some(3), None),
        (
            CHAT,
            r#"{"max_tokens":null,"max_completion_tokens":1e3,"service_tier":"flex"}"#,
            Some(1000),
            None,
            Some("flex"),
        ),
        (CHAT, r#"{"max_tokens":-4,"n":99999999999}"#, Some(0), Some(u32::MAX), None),
        (CHAT, r#"{"max_tokens":1e400}"#, Some(u64::MAX), None, None),
        (CHAT, r#"{"max_tokens":[7],"n":{"a":1},"service_tier":7}"#, None, None, None),
        (Protocol::Responses, r#"{"max_output_tokens":16,"max_tokens":7}"#, Some(16), None, None),
        (
            gemini,
            r#"{"generationConfig":{"maxOutputTokens":"8","candidateCount":2},"serviceTier":"flex"}"#,
            Some(8),
            Some(2),
            Some("flex"),
        ),
        (
            gemini,
            r#"{"generation_config":{"x":[{}],"max_output_tokens":9,"candidate_count":1}}"#,
            Some(9),
            Some(1),
            None,
        ),
        (gemini, r#"{"stream":true,"generationConfig":7}"#, None, None, None),
    ] {
        let head = read(protocol, body).unwrap();
        let seen = (head.output_tokens_max, head.choices, head.service_tier.as_deref(), head.stream);
        assert_eq!(seen, (max, choices, tier, false), "{body}");
    }
    for value in ["false", "null", "1", "\"true\"", "[true]"] {
        assert!(!read(CHAT, &format!(r#"{{"stream":{value}}}"#)).unwrap().stream, "{value}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    let malformed = |offset| ProtocolError::Malformed { offset };
    let repeated = |field| ProtocolError::Repeated { field };
    let long = format!(r#"{{"model":"{}"}}"#, "m".repeat(257));
    let longer = format!(r#"{{"model":"{}"}}"#, "m".repeat(5000));
    for (body, expected) in [
        ("", ProtocolError::NotAnObject),
        (" \n", ProtocolError::NotAnObject),
        ("[]", ProtocolError::NotAnObject),
        ("\"model\"", ProtocolError::NotAnObject),
        ("nul", malformed(0)),
        ("[1,]", malformed(3)),
        ("{", malformed(1)),
        ("{\"a\"}", malformed(4)),
        ("{\"a\":1,}", malformed(7)),
        ("{\"a\":01}", malformed(6)),
        ("{\"a\":1}}", malformed(7)),
        ("{\"a\":[}", malformed(6)),
        ("{\"a\":[{\"b\":1]}", malformed(12)),
        ("{\"model\":\"\\x\"}", ProtocolError::NotUnicode { field: "model" }),
        ("{\"a\":\"\\\"}", malformed(9)),
        ("{\"a\":\"", malformed(6)),
        ("{'a':1}", malformed(1)),
        ("{\"a\":.5}", malformed(5)),
        ("{\"a\":5.}", malformed(7)),
        ("{\"a\":1e}", malformed(7)),
        ("{\"a\":tru}", malformed(5)),
        ("\u{feff}{}", malformed(0)),
        (r#"{"model":"a","model":"b"}"#, repeated("model")),
        (r#"{"model":"a","mod\u0065l":"b"}"#, repeated("model")),
        (r#"{"\u006D\u006f\u0064\u0065\u006c":"a","model":"a"}"#, repeated("model")),
        (r#"{"stream":true,"stream":true}"#, repeated("stream")),
        (
            r#"{"stream_options":{"include_usage":true,"include_usage":false}}"#,
            repeated("stream_options.include_usage"),
        ),
        (r#"{"model":7}"#, ProtocolError::ModelNotText),
        (r#"{"model":null}"#, ProtocolError::ModelNotText),
        (r#"{"model":{"model":"a"}}"#, ProtocolError::ModelNotText),
        (r#"{"model":""}"#, ProtocolError::ModelEmpty),
        (&long, ProtocolError::ModelTooLong),
        (&longer, ProtocolError::ModelTooLong),
        (r#"{"model":"\ud800"}"#, ProtocolError::NotUnicode { field: "model" }),
        (r#"{"session_id":"\udc00\ud800"}"#, ProtocolError::NotUnicode { field: "session_id" }),
    ] {
        assert_eq!(read(CHAT, body).unwrap_err(), expected, "{body}");
    }
    let gemini = r#"{"generationConfig":{},"generation_config":{}}"#;
    assert_eq!(read(Protocol::GenerateContent, gemini), Err(repeated("generationConfig")));
    let users = r#"{"metadata":{"user_id":"a","user_id":"b"}}"#;
    assert_eq!(read(Protocol::Messages, users), Err(repeated("metadata.user_id")));
    assert_eq!(read(CHAT, "{}").unwrap().model(), Err(ProtocolError::ModelMissing));
    assert_eq!(
        Head::read(CHAT, Operation::Generate, b"{\"model\":\"a\xff\"}"),
        Err(ProtocolError::NotUnicode { field: "model" })
    );
}

#[test]
fn what_is_not_read_is_not_judged() {
    let longest = "m".repeat(256);
    let escaped = "\\u006d".repeat(256);
    for body in [
        r#"{"messages":[{"model":1,"model":2}],"x":1,"x":2,"model":"a"}"#.to_owned(),
        r#"{"x":"\ud800","\ud800":1,"n\u0000":"\u0000","model":"a"}"#.to_owned(),
        format!(r#"{{"model":"{longest}"}}"#),
        format!(r#"{{"model":"{escaped}"}}"#),
    ] {
        assert!(read(CHAT, &body).unwrap().model.is_some(), "{body}");
    }
    let bytes = b"{\"x\":\"\xff\n\x00\",\"\xff\":1,\"model\":\"a\"}";
    assert_eq!(Head::read(CHAT, Operation::Generate, bytes).unwrap().model(), Ok("a"));
    let embed = r#"{"model":"a","stream":true,"stream":true,"n":2,"n":3}"#;
    let head = Head::read(CHAT, Operation::Embed, embed.as_bytes()).unwrap();
    assert_eq!((head.model(), head.stream, head.choices), (Ok("a"), false, None));
}

#[test]
fn any_depth_is_read() {
    let depth = 1_000_000;
    for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[{\"model\":[", "]}]")] {
        let deep = format!(r#"{{"x":{}1{},"model":"a"}}"#, open.repeat(depth), close.repeat(depth));
        assert_eq!(read(CHAT, &deep).unwrap().model(), Ok("a"));
        let open_only = format!(r#"{{"x":{}"#, open.repeat(depth));
        assert_eq!(read(CHAT, &open_only), Err(ProtocolError::Malformed { offset: open_only.len() }));
    }
    // Brackets are matched by kind across the words that they are noted in.
    for depth in [63, 64, 65, 127, 128, 129, 200] {
        let kinds: Vec<_> = (0..depth).map(|level| level % 3 == 0).collect();
        let open: String = kinds.iter().map(|&is_object| if is_object { "{\"k\":" } else { "[" }).collect();
        let close: String = kinds.iter().rev().map(|&is_object| if is_object { "}" } else { "]" }).collect();
        assert!(read(CHAT, &format!(r#"{{"x":{open}0{close}}}"#)).is_ok(), "{depth}");
        let wrong = close.replacen(']', "}", 1);
        assert!(read(CHAT, &format!(r#"{{"x":{open}0{wrong}}}"#)).is_err(), "{depth}");
    }
}

#[test]
fn binary_content_is_estimated() {
    let data = "iVBORw0KGgo+/9j".repeat(1000);
    let slashed = data.replace('/', "\\/");
    let prose = "It was a bright cold day in April. ".repeat(1000);
    for (content, expected) in [
        (format!(r#"{{"type":"base64","data":"{data}"}}"#), 15_000),
        (format!(r#"{{"url":"data:image/png;base64,{data}"}}"#), 15_000),
        (format!(r#"{{"data":"{slashed}"}}"#), slashed.len() as u64),
        (format!(r#"["{data}","{data}","{prose}"]"#), 30_000),
        (format!(r#""{prose}""#), 0),
        (format!(r#""{}""#, &data[..300]), 0),
    ] {
        let head = read(CHAT, &format!(r#"{{"model":"a","messages":[{content}]}}"#)).unwrap();
        assert_eq!(head.binary_bytes, expected, "{}", &content[..40]);
    }
}

#[test]
fn edits_touch_nothing_else() {
    for (body, expected) in [
        ("{}", r#"{"stream_options":{"include_usage":true}}"#),
        (r#"{ "model":"a" }"#, r#"{"stream_options":{"include_usage":true}, "model":"b" }"#),
        (
            r#"{"stream_options":null,"model":"a"}"#,
            r#"{"stream_options":{"include_usage":true},"model":"b"}"#,
        ),
        (
            r#"{"stream_options": { } ,"model":"a"}"#,
            r#"{"stream_options": {"include_usage":true } ,"model":"b"}"#,
        ),
        (
            r#"{"stream_options":{"x":1},"model":"a"}"#,
            r#"{"stream_options":{"include_usage":true,"x":1},"model":"b"}"#,
        ),
        (r#"{"stream_options":{"include_usage" : false}}"#, r#"{"stream_options":{"include_usage" : true}}"#),
        (
            r#"{"stream_options":{"include_\u0075sage":null}}"#,
            r#"{"stream_options":{"include_\u0075sage":true}}"#,
        ),
        (
            r#"{"stream_options":{"include_usage":true},"model":"a"}"#,
            r#"{"stream_options":{"include_usage":true},"model":"b"}"#,
        ),
        (r#"{"stream_options":"x"}"#, r#"{"stream_options":"x"}"#),
    ] {
        let head = read(CHAT, body).unwrap();
        let edits = head.set_model("b").and(head.include_usage());
        assert_eq!(edits, head.include_usage().and(head.set_model("b")));
        let edited = edits.apply(&Bytes::from(body)).to_bytes();
        assert_eq!(edited, expected);
        assert!(serde_json::from_slice::<IgnoredAny>(&edited).is_ok());
    }
    let head = read(CHAT, r#"{"model":"a"}"#).unwrap();
    let edited = head.set_model("a \"b\"\n\u{1f600}").apply(&Bytes::from_static(br#"{"model":"a"}"#));
    assert_eq!(edited.to_bytes(), "{\"model\":\"a \\\"b\\\"\\n\u{1f600}\"}");
    assert_eq!(read(Protocol::GenerateContent, "{}").unwrap().set_model("b"), Edits::default());
}

#[test]
fn escapes_are_read() {
    for (inner, expected) in [
        (r#"a\"\\\/\b\f\n\r\t"#, Some("a\"\\/\u{8}\u{c}\n\r\t")),
        (r"\u00e9\u20ac\ud83d\ude00x", Some("é€😀x")),
        (r"\ud83d", None),
        (r"\ud83dxxxxxx", None),
        (r"\ud83d\u0041", None),
        (r"\ude00", None),
        (r"\u+123", None),
        (r"\u12", None),
        (r"\", None),
    ] {
        assert_eq!(unescape(inner.as_bytes()).as_deref(), expected.map(str::as_bytes), "{inner}");
    }
}

#[test]
fn counts_are_clamped() {
    for (text, expected) in [
        ("0", Some(0)),
        ("12", Some(12)),
        ("\"12\"", Some(12)),
        ("-1", Some(0)),
        ("1.9", Some(1)),
        ("18446744073709551615", Some(u64::MAX)),
        ("18446744073709551616", Some(u64::MAX)),
        ("1e999", Some(u64::MAX)),
        ("-1e999", Some(0)),
        ("null", None),
        ("true", None),
        ("\"\"", None),
        ("\"x\"", None),
        ("\"inf\"", None),
        ("{}", None),
        ("", None),
    ] {
        assert_eq!(Value::new(text.as_bytes()).count(), expected, "{text}");
    }
}

/// What serde_json makes of the fields that are read in a Chat body.
#[derive(Deserialize)]
struct Reference<'a> {
    #[serde(borrow)]
    model: Option<&'a RawValue>,
    #[serde(borrow)]
    stream: Option<&'a RawValue>,
    #[serde(borrow)]
    max_tokens: Option<&'a RawValue>,
    #[serde(borrow, rename = "stream_options")]
    _stream_options: Option<&'a RawValue>,
    #[serde(rename = "n")]
    _n: Option<IgnoredAny>,
}

fn agrees_with_serde(body: &str) -> Result<(), TestCaseError> {
    let ours = read(CHAT, body);
    let theirs = serde_json::from_str::<Reference<'_>>(body);
    let is_grammatical = serde_json::from_str::<IgnoredAny>(body).is_ok();
    match (&ours, &theirs) {
        (Ok(head), Ok(reference)) => {
            let model = reference.model.map(RawValue::get);
            prop_assert_eq!(head.model.as_ref().map(|model| &body[model.span.clone()]), model);
            if let (Some(raw), Some(model)) = (model, &head.model) {
                prop_assert_eq!(&serde_json::from_str::<String>(raw).unwrap(), &model.value);
            }
            prop_assert_eq!(head.stream, reference.stream.map(RawValue::get) == Some("true"));
            let max = reference.max_tokens.and_then(|raw| serde_json::from_str::<u64>(raw.get()).ok());
            prop_assert!(max.is_none() || head.output_tokens_max == max);
        }
        // What follows a backslash in a string that is passed over is the upstream's to judge.
        (Ok(_), Err(error))
            if ["escape", "surrogate"].iter().any(|what| error.to_string().contains(what)) => {}
        (Ok(_), Err(error)) => prop_assert!(false, "we accept what serde_json refuses: {error}"),
        // Serde ends with the error that it meets first, so only the fact counts.
        (Err(ProtocolError::Malformed { .. }), _) => prop_assert!(!is_grammatical, "we refuse good grammar"),
        (Err(ProtocolError::NotAnObject), _) => {
            let is_object = body.trim_start().starts_with('{');
            prop_assert!(!is_object);
        }
        (Err(ProtocolError::Repeated { .. }), theirs) => {
            let nested = body.contains("include_usage");
            prop_assert!(theirs.is_err() || nested, "nothing is repeated");
        }
        (Err(_), _) => {}
    }
    Ok(())
}

fn json_text() -> impl Strategy<Value = String> {
    let space = "[ \n\t]{0,2}";
    let string = prop_oneof![
        Just(r#""model""#.to_owned()),
        r#""([a-z ü]|\\n|\\"|\\\\|\\u00e9|\\ud83d\\ude00|\\/){0,24}""#,
    ];
    let leaf = prop_oneof![
        string,
        "-?(0|[1-9][0-9]{0,3})(\\.[0-9]{1,3})?([eE][+-]?[0-9]{1,2})?",
        "true|false|null",
    ];
    let value = leaf.prop_recursive(5, 40, 5, move |inner| {
        let key = r#""(x|stream|[a-z]{0,9}|a\\u0041)""#;
        prop_oneof![
            (proptest::collection::vec(inner.clone(), 0..5), space).prop_map(|(items, space)| format!(
                "[{space}{}{space}]",
                items.join(&format!("{space},{space}"))
            )),
            (proptest::collection::vec((key, inner), 0..5), space).prop_map(|(members, space)| {
                let members: Vec<_> =
                    members.iter().map(|(key, value)| format!("{key}{space}:{space}{value}")).collect();
                format!("{{{}{space}}}", members.join(&format!("{space},")))
            }),
        ]
    });
    let key = r#""(model|mod\\u0065l|stream|max_tokens|stream_options|n|x|messages)""#;
    proptest::collection::vec((key, value), 0..6).prop_map(|members| {
        let members: Vec<_> = members.iter().map(|(key, value)| format!("{key}:{value}")).collect();
        format!("{{{}}}", members.join(", "))
    })
}

proptest! {
    #[test]
    fn good_bodies_are_read_as_serde_reads_them(body in json_text()) {
        agrees_with_serde(&body)?;
    }

    #[test]
    fn broken_bodies_are_refused_as_serde_refuses_them(
        body in json_text(),
        at in any::<prop::sample::Index>(),
        cut in 0usize..3,
        junk in r#"[\[\]{}",:\\0-9eE.+a-z-]{0,2}"#,
    ) {
        let mut broken: Vec<char> = body.chars().collect();
        let start = at.index(broken.len());
        let end = (start + cut).min(broken.len());
        broken.splice(start..end, junk.chars());
        let broken: String = broken.into_iter().collect();
        agrees_with_serde(&broken)?;
    }

    #[test]
    fn token_soup_is_judged_alike(
        body in r#"(\{|\}|\[|\]|,|:|"model"|"x"|"\\u00|"\\n"|true|nul|-|0|12|1\.5|1e|\.|"| ){0,12}"#,
    ) {
        agrees_with_serde(&body)?;
        agrees_with_serde(&format!("{{{body}}}"))?;
    }
}
