//! Bytes pass: what the client wrote is what the upstream reads, but for the declared spans, and the reply's
//! bytes are the upstream's.

use std::collections::BTreeMap;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Method;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use serde_json::Value;
use shared::admin::AddAccount;
use shared::domain::{AccountKind, Protocol};

use crate::support::{Call, Reply, Rig, Setup, answer, wire};

/// Bodies of each property; every one of them crosses the whole path.
const CASES: u32 = 150;

/// The text of a JSON string, with escapes where none are needed.
fn string() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[ !#-\\[\\]-~]{0,12}",
        1 => Just("\\u0041\\u00e9\\uD83D\\uDE00".to_owned()),
        1 => Just("\\/\\b\\f\\n\\r\\t\\\"\\\\".to_owned()),
        1 => Just("é\u{2028}🌍\u{7f}".to_owned()),
        1 => Just("\\u0000\\u001f".to_owned()),
        1 => Just("data: [DONE]".to_owned()),
    ];
    prop::collection::vec(piece, 0..4).prop_map(|pieces| format!("\"{}\"", pieces.concat()))
}

fn space() -> impl Strategy<Value = &'static str> {
    prop_oneof![6 => Just(""), 1 => Just(" "), 1 => Just("\n\t"), 1 => Just("  \r\n")]
}

/// The text of any JSON value: big integers, odd floats, keys that repeat.
fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        string(),
        Just("123456789012345678901234567890".to_owned()),
        Just("-0".to_owned()),
        Just("1.0E+2".to_owned()),
        Just("0.10000000000000000555".to_owned()),
        Just("true".to_owned()),
        Just("null".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            (prop::collection::vec(inner.clone(), 0..4), space())
                .prop_map(|(items, space)| format!("[{space}{}{space}]", items.join(&format!(",{space}")))),
            (prop::collection::vec((repeating_key(), inner), 0..4), space()).prop_map(|(fields, space)| {
                let fields: Vec<_> = fields.iter().map(|(k, v)| format!("{k}{space}:{space}{v}")).collect();
                format!("{{{space}{}{space}}}", fields.join(&format!("{space},")))
            }),
        ]
    })
}

fn repeating_key() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("\"a\"".to_owned()),
        Just("\"model\"".to_owned()),
        Just("\"stream\"".to_owned()),
        string()
    ]
}

/// A body: fields in any order with any space between, and where the model's value stands.
#[derive(Clone, Debug)]
struct Body {
    before: String,
    model: &'static str,
    after: String,
}

impl Body {
    fn with_model(&self, model: &str) -> Bytes {
        format!("{}{model}{}", self.before, self.after).into()
    }

    fn bytes(&self) -> Bytes {
        self.with_model(self.model)
    }
}

/// `more` are fields that the protocol needs, as text.
fn body(more: &'static [&'static str]) -> impl Strategy<Value = Body> {
    let fields = prop::collection::vec(value(), 0..5);
    let model = prop_oneof![3 => Just("\"plain-model\""), 1 => Just("\"pl\\u0061in-model\"")];
    (fields, space(), model, any::<prop::sample::Index>()).prop_map(move |(values, space, model, place)| {
        let unknown = values.iter().enumerate();
        let mut fields: Vec<_> =
            unknown.map(|(at, value)| format!("\"x_{at}\"{space}:{space}{value}")).collect();
        fields.extend(more.iter().map(|field| (*field).to_owned()));
        let at = place.index(fields.len() + 1);
        let join = |fields: &[String]| fields.join(&format!("{space},{space}"));
        let (head, tail) = fields.split_at(at);
        let comma = |fields: &[String]| if fields.is_empty() { "" } else { "," };
        Body {
            before: format!("{space}{{{space}{}{}\"model\":{space}", join(head), comma(head)),
            model,
            after: format!("{space}{}{}{space}}}{space}", comma(tail), join(tail)),
        }
    })
}

const MESSAGES: &[&str] = &["\"max_tokens\":16", "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"];
const CHAT: &[&str] = &["\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"];
const RESPONSES: &[&str] = &["\"input\":\"hi\""];

fn runner() -> TestRunner {
    TestRunner::new(Config { cases: CASES, failure_persistence: None, ..Config::default() })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Sends the body; gives what the upstream got.
async fn pass(rig: &Rig, path: &str, body: Bytes) -> Result<Bytes, TestCaseError> {
    rig.upstream.take_seen();
    let answer = rig.client.post(path, body.clone()).await;
    prop_assert_eq!(answer.status, 200, "{}: {}", String::from_utf8_lossy(&body), answer.text());
    let seen = rig.upstream.take_seen();
    prop_assert_eq!(seen.len(), 1);
    Ok(seen[0].body.clone())
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn bodies_pass_as_they_are() {
    let runtime = runtime();
    let rig = runtime.block_on(Rig::start());
    for (path, more) in
        [("/v1/messages", MESSAGES), ("/v1/chat/completions", CHAT), ("/v1/responses", RESPONSES)]
    {
        runner()
            .run(&body(more), |body| {
                let got = runtime.block_on(pass(&rig, path, body.bytes()))?;
                prop_assert_eq!(shown(&got), shown(&body.bytes()));
                Ok(())
            })
            .unwrap();
    }
    runner()
        .run(&value(), |extra| {
            let body = format!("{{\"contents\":[{{\"parts\":[{{\"text\":\"hi\"}}]}}], \"extra\":{extra}}}");
            let got =
                runtime.block_on(pass(&rig, "/v1beta/models/m:generateContent", body.clone().into()))?;
            prop_assert_eq!(shown(&got), body);
            Ok(())
        })
        .unwrap();
}

#[test]
fn only_the_span_of_a_mapped_model_changes() {
    let runtime = runtime();
    let rig = runtime.block_on(async {
        let rig = Rig::bare(Setup::default()).await;
        for kind in [AccountKind::ClaudeConsole, AccountKind::OpenaiResponses] {
            let model_map = BTreeMap::from([("plain-model".to_owned(), "mapped \"model\"".to_owned())]);
            rig.daemon.call(&AddAccount { model_map, ..rig.account(kind, kind.name()) }).await;
        }
        rig
    });
    for (path, more) in [("/v1/messages", MESSAGES), ("/v1/responses", RESPONSES)] {
        runner()
            .run(&body(more), |body| {
                let got = runtime.block_on(pass(&rig, path, body.bytes()))?;
                prop_assert_eq!(shown(&got), shown(&body.with_model("\"mapped \\\"model\\\"\"")));
                Ok(())
            })
            .unwrap();
    }
}

/// Where the longer text has something inserted, if that is the only difference.
fn inserted(short: &[u8], long: &[u8]) -> Option<Bytes> {
    let more = long.len().checked_sub(short.len())?;
    let at = short.iter().zip(long).take_while(|(one, other)| one == other).count();
    (long[at + more..] == short[at..]).then(|| Bytes::copy_from_slice(&long[at..at + more]))
}

#[test]
fn chat_streams_gain_include_usage_and_nothing_else() {
    let runtime = runtime();
    let rig = runtime.block_on(Rig::start());
    const STREAM: &[&str] = &["\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]", "\"stream\":true"];
    const OPTIONS: &[&str] = &[
        "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]",
        "\"stream\":true",
        "\"stream_options\":{ }",
    ];
    const ASKED: &[&str] = &[
        "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]",
        "\"stream\":true",
        "\"stream_options\" : {\"include_usage\" :true, \"x\":1}",
    ];
    for more in [STREAM, OPTIONS, ASKED] {
        runner()
            .run(&body(more), |body| {
                let got = runtime.block_on(pass(&rig, "/v1/chat/completions", body.bytes()))?;
                let Some(span) = inserted(&body.bytes(), &got) else {
                    return Err(TestCaseError::fail(format!(
                        "{} became {}",
                        shown(&body.bytes()),
                        shown(&got)
                    )));
                };
                prop_assert_eq!(span.is_empty(), more == ASKED, "{}", shown(&span));
                let parsed: Value = serde_json::from_slice(&got).unwrap();
                prop_assert_eq!(&parsed["stream_options"]["include_usage"], &Value::Bool(true));
                Ok(())
            })
            .unwrap();
    }
}

#[test]
fn whole_replies_pass_as_they_are() {
    let runtime = runtime();
    let rig = runtime.block_on(Rig::start());
    let any_reply = (value(), any::<prop::sample::Index>(), 0..4_usize);
    runner()
        .run(&any_reply, |(extra, cut, protocol)| {
            let protocol = Protocol::ALL[protocol];
            let whole = wire::whole(protocol, "m", wire::Content::Text).to_string();
            let reply = Bytes::from(format!("  {{ \"x\" : {extra},{} \n", &whole[1..]));
            let pieces = crate::support::cut(&reply, &[cut.index(reply.len())]);
            rig.upstream.script(move |_| Reply::stream("application/json", pieces.clone()));
            let answer = runtime.block_on(rig.client.call(&Call::new(protocol, "m")));
            prop_assert_eq!(answer.status, 200);
            prop_assert_eq!(shown(&answer.body), shown(&reply));
            Ok(())
        })
        .unwrap();
    let rows = runtime.block_on(rig.daemon.rows());
    for row in &rows {
        assert_eq!(row.usage, wire::usage(row.protocol), "{row:?}");
    }
}

#[tokio::test]
async fn headers_pass_by_an_allow_list() {
    let rig = Rig::bare(Setup::default()).await;
    let headers = BTreeMap::from([("x-extra".to_owned(), "by the operator".to_owned())]);
    rig.daemon.call(&AddAccount { headers, ..rig.account(AccountKind::ClaudeConsole, "claude") }).await;
    let sent = [
        ("anthropic-version", "2026-10-21"),
        ("anthropic-beta", "context-1m-2025-08-07,effort-2025-11-24"),
        ("anthropic-dangerous-direct-browser-access", "true"),
        ("x-stainless-lang", "js"),
        ("x-claude-code-session-id", "c0ffee"),
        ("x-app", "cli"),
        ("cookie", "private=1"),
        ("x-forwarded-for", "10.1.2.3"),
        ("forwarded", "for=10.1.2.3"),
        ("x-secret-of-mine", "private"),
        ("x-api-key", &rig.key),
        ("proxy-authorization", "Basic private"),
        ("te", "trailers"),
        ("accept-encoding", "gzip, br"),
        ("user-agent", "claude-cli/2.1.197 (external, sdk-cli)"),
    ];
    let mut request = rig.client.request(Method::POST, "/v1/messages?beta=true");
    for (name, value) in sent {
        request = request.header(name, value);
    }
    let request = request.header("content-type", "application/json");
    let body = Full::new(Call::new(Protocol::Messages, "m").body());
    rig.client.send(request.body(body).unwrap()).await.rest().await.expect(200);
    let seen = rig.upstream.take_seen();
    let seen = &seen[0];
    for (name, value) in &sent[..6] {
        assert_eq!(seen.header(name), Some(*value), "{name}");
    }
    for name in
        ["cookie", "x-forwarded-for", "forwarded", "x-secret-of-mine", "proxy-authorization", "authorization"]
    {
        assert_eq!(seen.header(name), None, "{name}");
    }
    assert_eq!(seen.header("x-extra"), Some("by the operator"));
    assert_eq!(seen.header("x-api-key"), Some("sk-ant-upstream-claude"));
    assert_eq!(seen.header("content-type"), Some("application/json"));
    assert_eq!(seen.header("host"), Some(rig.upstream.address().to_string().as_str()));
    assert!(seen.header("accept-encoding").is_none_or(|value| value == "identity"));
    let agent = seen.header("user-agent").unwrap();
    assert!(agent.starts_with("claude-cli/") || agent.starts_with("relayd/"), "{agent}");
    assert_eq!(seen.query.as_deref(), Some("beta=true"));
}

#[tokio::test]
async fn reply_headers_pass_and_bear_our_id() {
    let rig = Rig::start().await;
    rig.upstream.script(|seen| {
        let whole = wire::whole(seen.protocol(), "m", wire::Content::Text).to_string();
        let headers = [
            ("content-type", "application/json"),
            ("request-id", "req_of_theirs"),
            ("anthropic-ratelimit-requests-remaining", "7"),
            ("set-cookie", "theirs=1"),
            ("connection", "keep-alive"),
        ];
        Reply::whole(200, &headers, whole)
    });
    let answer = rig.client.call(&Call::new(Protocol::Messages, "m")).await.expect(200);
    assert_eq!(answer.header("request-id"), Some("req_of_theirs"));
    assert_eq!(answer.header("x-request-id"), Some("req_upstream"));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("set-cookie"), None);
    let id: shared::domain::RequestId = answer.header("x-relay-request-id").unwrap().parse().unwrap();
    assert_eq!(rig.daemon.row("m").await.id, id);
}

#[tokio::test]
async fn paths_and_queries_of_gemini_pass_without_the_key() {
    let rig = Rig::start().await;
    let body = Call::new(Protocol::GenerateContent, "m").body();
    let path = format!(
        "/gemini/v1/models/m:streamGenerateContent?alt=sse&key={}&prettyPrint=false&fields=candidates",
        rig.key
    );
    rig.client.post(&path, body).await.expect(200);
    let seen = rig.upstream.take_seen();
    assert_eq!(seen[0].path, "/v1/models/m:streamGenerateContent");
    assert_eq!(seen[0].query.as_deref(), Some("alt=sse&prettyPrint=false"));
    assert_eq!(seen[0].header("x-goog-api-key"), Some("sk-upstream-gemini"));
    // No query makes Google leave out what is booked.
    for query in ["fields=candidates", "$fields=candidates", "%66ields=candidates", "alt=proto", "$alt=proto"]
    {
        let body = Call::new(Protocol::GenerateContent, "m").body();
        rig.client.post(&format!("/v1beta/models/m:generateContent?{query}"), body).await.expect(200);
        assert_eq!(rig.upstream.take_seen()[0].query, None, "{query}");
    }
}

/// Where the path names the model, the body's name is the client's: Google writes `models/` before it, and so it
/// stays where an account maps the model.
#[tokio::test]
async fn a_model_that_the_path_names_is_left_alone_in_the_body() {
    let rig = Rig::bare(Setup::default()).await;
    for kind in [AccountKind::GeminiApi, AccountKind::AzureOpenai] {
        let model_map = BTreeMap::from([("mapped".to_owned(), "other".to_owned())]);
        rig.daemon.call(&AddAccount { model_map, ..rig.account(kind, kind.name()) }).await;
    }
    let gemini = |model: &str| format!("/v1beta/models/{model}:embedContent");
    let azure = |model: &str| format!("/azure/openai/deployments/{model}/chat/completions");
    for (path, sent, expected) in [
        (gemini("m"), r#"{ "model" : "models/m","x":1}"#, r#"{ "model" : "models/m","x":1}"#),
        (gemini("m"), r#"{"model":"m"}"#, r#"{"model":"m"}"#),
        (gemini("m"), r#"{"model":"models\/m"}"#, r#"{"model":"models\/m"}"#),
        (gemini("m"), r#"{"content":{}}"#, r#"{"content":{}}"#),
        (gemini("mapped"), r#"{ "model" : "models/mapped","x":1}"#, r#"{ "model" : "models/other","x":1}"#),
        (gemini("mapped"), r#"{"model":"mapped"}"#, r#"{"model":"other"}"#),
        (azure("m"), r#"{"model":"gpt-5.6","messages":[]}"#, r#"{"model":"gpt-5.6","messages":[]}"#),
        (azure("mapped"), r#"{"model":"gpt-5.6","messages":[]}"#, r#"{"model":"other","messages":[]}"#),
    ] {
        rig.client.post(&path, sent).await.expect(200);
        let seen = rig.upstream.take_seen();
        assert_eq!(shown(&seen[0].body), expected, "{path} {sent}");
    }
}

/// What is checked is what is sent: an account that is told the model in the body is told the one of the path.
#[tokio::test]
async fn a_deployment_is_named_in_the_body_where_the_upstream_reads_it_there() {
    let rig = Rig::start().await;
    for (sent, expected) in [
        (r#"{"model":"other","messages":[]}"#, r#"{"model":"m","messages":[]}"#),
        (r#"{ "messages":[]}"#, r#"{"model":"m", "messages":[]}"#),
        ("{}", r#"{"model":"m"}"#),
    ] {
        rig.client.post("/openai/deployments/m/chat/completions", sent).await.expect(200);
        assert_eq!(shown(&rig.upstream.take_seen()[0].body), expected);
    }
    let streamed = r#"{"stream":true}"#;
    rig.client.post("/openai/deployments/m/chat/completions", streamed).await.expect(200);
    let body = rig.upstream.take_seen()[0].json();
    let expected =
        serde_json::json!({"model": "m", "stream": true, "stream_options": {"include_usage": true}});
    assert_eq!(body, expected);
}

#[tokio::test]
async fn encoded_request_bodies_are_decoded() {
    use std::io::Write;
    let rig = Rig::start().await;
    rig.upstream.script(answer);
    let level = flate2::Compression::default();
    for protocol in Protocol::ALL {
        let call = Call::new(protocol, "m");
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), level);
        gzip.write_all(&call.body()).unwrap();
        let gzip = gzip.finish().unwrap();
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), level);
        zlib.write_all(&call.body()).unwrap();
        let zlib = zlib.finish().unwrap();
        let plain = call.body().to_vec();
        for (encoding, body) in
            [("gzip", &gzip), ("X-GZip", &gzip), ("deflate", &zlib), ("identity", &plain), ("", &plain)]
        {
            let request = rig.client.request(Method::POST, &call.path()).header("content-encoding", encoding);
            let body = Full::new(body.clone().into());
            rig.client.send(request.body(body).unwrap()).await.rest().await.expect(200);
            let seen = rig.upstream.take_seen();
            assert_eq!(seen[0].body, call.body(), "{encoding}");
            assert_eq!(seen[0].header("content-encoding"), None, "{encoding}");
        }
    }
}
